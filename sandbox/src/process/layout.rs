//! The memory a worker shares with the host, as both sides see it.
//!
//! ```text
//! down (the host writes, the worker can only read):   set-up · a line for each slot · requests, 64 MiB for each slot
//! up   (the worker writes, the host believes nothing): state · a line for each slot · crash · counters · log · replies
//! ```
//!
//! A slot takes one call at a time. Slot 0 is for the hooks, each of the others has a thread of the worker. The host
//! writes the request and then the slot's number of turns (`down.turn`); the worker answers by writing the reply and
//! then the same number (`up.turn`). Both numbers are futexes, each on a line of its own; whoever sleeps says so on a
//! line of its own side, so that the other makes the system call only when somebody sleeps.
//!
//! The files behind are sparse and sealed in size. What is touched is given back after a large message.

use std::mem::offset_of;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};

use themis_messages::limits::{MESSAGE_BYTES_MAX, PLUGIN_COUNTERS_MAX, WORKER_CALLS_MAX};

/// Descriptors of a worker, in their places. What a plugin prints belongs in the log, as what it complains of does.
pub(super) const OUT_FD: i32 = 1;
pub(super) const LOG_FD: i32 = 2;
pub(super) const CONTROL_FD: i32 = 3;
pub(super) const DOWN_FD: i32 = 4;
pub(super) const UP_FD: i32 = 5;
pub(super) const EVENT_FD: i32 = 6;
/// Where the worker's program is while it is executed; closed by that.
pub(super) const PROGRAM_FD: i32 = 7;

/// Slots: one for hooks, and one for each call that can be under way.
pub(super) const SLOTS_MAX: usize = WORKER_CALLS_MAX as usize + 1;
/// Room for one message.
pub(super) const ARENA: usize = MESSAGE_BYTES_MAX;
/// Where the messages begin in either file.
pub(super) const ARENAS: usize = 256 << 10;
/// Bytes of log lines that may wait to be read.
pub(super) const LOG_BYTES: usize = 64 << 10;
/// Longest name of a counter.
pub(super) const COUNTER_NAME_MAX: usize = 64;

/// Told apart from a file of something else, or of another version.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"themis01");

/// Bytes of either file for so many slots.
pub(super) const fn file_bytes(slots: usize) -> usize {
    ARENAS + slots * ARENA
}

/// Where a long message of a slot lies.
pub(super) const fn arena(slot: usize) -> usize {
    ARENAS + slot * ARENA
}

/// Bytes of a request that travel with the words that announce it: each cache line that the other side has to fetch
/// costs about half a round trip.
pub(super) const NEAR_REQUEST: usize = 96;
/// The same of a reply.
pub(super) const NEAR_REPLY: usize = 104;

/// Where a request of so many bytes lies.
pub(super) const fn request_place(slot: usize, len: usize) -> usize {
    if len > NEAR_REQUEST {
        return arena(slot);
    }
    offset_of!(Down, slots) + slot * size_of::<DownSlot>() + offset_of!(DownSlot, near)
}

/// Where a reply of so many bytes lies.
pub(super) const fn reply_place(slot: usize, len: usize) -> usize {
    if len > NEAR_REPLY {
        return arena(slot);
    }
    offset_of!(Up, slots) + slot * size_of::<UpSlot>() + offset_of!(UpSlot, near)
}

/// What the host writes.
#[repr(C)]
pub(super) struct Down {
    pub(super) setup: Setup,
    /// Bytes of log lines that were read.
    pub(super) log_read: WaitLine,
    pub(super) slots: [DownSlot; SLOTS_MAX],
}

/// What a worker has to know before it gives everything up. Written before the worker starts.
#[repr(C, align(64))]
pub(super) struct Setup {
    pub(super) magic: AtomicU64,
    pub(super) slots: AtomicU32,
    pub(super) pids: AtomicU32,
    pub(super) memory_bytes: AtomicU64,
    /// Whether memory is not capped by a cgroup.
    pub(super) cap_memory: AtomicU32,
    /// Zero of the clock that plugins see, in nanoseconds of the system's monotonic one.
    pub(super) origin_ns: AtomicU64,
    /// Tells hosts apart that see the same process numbers: seven bits.
    pub(super) host: AtomicU32,
}

/// One slot, the host's side.
#[repr(C, align(128))]
pub(super) struct DownSlot {
    /// Counts up with every request.
    pub(super) turn: AtomicU32,
    pub(super) op: AtomicU32,
    pub(super) method: AtomicU32,
    /// How often to look for the next request before sleeping.
    pub(super) spin: AtomicU32,
    pub(super) request_len: AtomicU64,
    /// Of a request of two parts: bytes of the first.
    pub(super) first_len: AtomicU64,
    /// A short request. Elsewhere it is read and written by address.
    pub(super) near: [AtomicU8; NEAR_REQUEST],
    /// How the caller waits: one of `WAIT_*`. On a line of its own: it is written after the request.
    pub(super) waiting: WaitLine,
}

/// A word of the host on a line of its own: how a caller waits, or how far the log was read.
#[repr(C, align(64))]
pub(super) struct WaitLine {
    pub(super) word: AtomicU32,
}

/// It looks again and again.
pub(super) const WAIT_AWAKE: u32 = 0;
/// It sleeps on the turn.
pub(super) const WAIT_FUTEX: u32 = 1;
/// It wants the event to be written.
pub(super) const WAIT_EVENT: u32 = 2;

/// What the worker writes.
#[repr(C)]
pub(super) struct Up {
    pub(super) state: State,
    pub(super) crash: Crash,
    pub(super) slots: [UpSlot; SLOTS_MAX],
    pub(super) counters: [Counter; PLUGIN_COUNTERS_MAX],
    pub(super) log: Log,
}

/// What there is to know of the whole worker.
#[repr(C, align(64))]
pub(super) struct State {
    /// Grows with everything that is logged or counted.
    pub(super) services: AtomicU32,
    /// Not zero once it is ending by itself: the crash line is filled.
    pub(super) ending: AtomicU32,
    /// Counters that are named.
    pub(super) counters: AtomicU32,
    /// Log lines that found no room.
    pub(super) log_dropped: AtomicU32,
    /// Writes to a reply's sink that came too late or from another thread.
    pub(super) refused_writes: AtomicU32,
    /// The layers that hold, as bits; written before anything of a plugin runs.
    pub(super) layers: AtomicU32,
}

/// What a crash handler tells.
#[repr(C, align(64))]
pub(super) struct Crash {
    pub(super) signal: AtomicI32,
    pub(super) syscall: AtomicI32,
    pub(super) address: AtomicU64,
}

/// One slot, the worker's side.
#[repr(C, align(128))]
pub(super) struct UpSlot {
    /// The turn that was answered last.
    pub(super) turn: AtomicU32,
    pub(super) status: AtomicI32,
    pub(super) reply_len: AtomicU64,
    /// Not zero when the reply went over its cap.
    pub(super) overflow: AtomicU32,
    pub(super) unused: AtomicU32,
    /// A short reply.
    pub(super) near: [AtomicU8; NEAR_REPLY],
    /// On a line of its own: written while the host looks at the turn.
    pub(super) sleep: SleepLine,
}

/// Whether a worker's thread is there and asleep.
#[repr(C, align(64))]
pub(super) struct SleepLine {
    pub(super) asleep: AtomicU32,
    /// Not zero once a thread serves the slot.
    pub(super) ready: AtomicU32,
}

/// One counter of the plugin.
#[repr(C, align(128))]
pub(super) struct Counter {
    pub(super) value: AtomicU64,
    pub(super) name_len: AtomicU32,
    pub(super) name: [AtomicU8; COUNTER_NAME_MAX],
}

/// Log lines: each its level, its length (two bytes each, little-endian) and its text, around the end.
#[repr(C, align(64))]
pub(super) struct Log {
    /// Bytes ever written, by the worker.
    pub(super) head: AtomicU32,
    pub(super) bytes: [AtomicU8; LOG_BYTES],
}

const _: () = assert!(size_of::<Down>() <= ARENAS);
const _: () = assert!(size_of::<Up>() <= ARENAS);
const _: () = assert!(LOG_BYTES.is_power_of_two());
// What announces a message and a short message itself fill two lines, which processors fetch as a pair.
const _: () = assert!(offset_of!(DownSlot, waiting) == 128 && offset_of!(UpSlot, sleep) == 128);
const _: () = assert!(offset_of!(DownSlot, near) % 8 == 0 && offset_of!(UpSlot, near) % 8 == 0);

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::FromRepr)]
#[repr(u32)]
pub(super) enum Op {
    /// Receive and map the plugin.
    Load = 1,
    Init,
    Call,
    Health,
    SaveState,
    Reload,
    Shutdown,
    /// End: the host has lost sight of the process. Before there is a plugin only.
    Leave,
}

/// Statuses of the worker itself, beside what a plugin's entry returned: outside of what 32 bits of a plugin give.
pub(super) const STATUS_MISSING: i32 = i32::MIN + 1;

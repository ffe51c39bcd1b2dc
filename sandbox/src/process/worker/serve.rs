//! A worker's threads: each waits for its slot's turn, carries it out, and answers.
//!
//! ```text
//! asleep ──turn──▶ carrying out ──reply written──▶ looking for the next turn, for a while ──▶ asleep
//! ```
//!
//! Slot 0 is the process's first thread: it maps the plugin and runs the hooks. It starts a thread for each of the
//! others; those run calls.
#![expect(unsafe_code, reason = "wakes and waits by the kernel's own means")]

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::thread::futex;
use themis_messages::instance::Concurrency;
use themis_messages::sandbox::SetupStep;

use super::super::layout::{
    DownSlot, EVENT_FD, Op, UpSlot, WAIT_AWAKE, WAIT_EVENT, WAIT_FUTEX, arena, reply_place,
    request_place,
};
use super::Memory;
use super::plugin::{Answer, LoadFault, Plugin};
use crate::native::refused_writes;

/// Stack of a thread that runs calls.
const STACK: usize = 2 << 20;

/// One turn of a slot.
pub(super) struct Turn {
    pub(super) op: Op,
    pub(super) method: u32,
    pub(super) request: &'static [u8],
    pub(super) first_len: usize,
    pub(super) reply: Room,
}

/// Where a reply goes: by its length, to one place or the other.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Up to [`NEAR_REPLY`](super::super::layout::NEAR_REPLY) bytes.
    pub(super) near: *mut u8,
    /// A whole message.
    pub(super) far: *mut u8,
}

/// Serves slot 0 for good.
pub(super) fn serve(memory: &'static Memory, control: OwnedFd) -> Result<(), Errno> {
    let mut hooks = Hooks { memory, control: Some(control), plugin: None };
    serve_slot(memory, 0, |turn| hooks.carry_out(turn))
}

struct Hooks {
    memory: &'static Memory,
    /// There until the plugin has arrived.
    control: Option<OwnedFd>,
    plugin: Option<&'static Plugin>,
}

impl Hooks {
    fn carry_out(&mut self, turn: &Turn) -> Answer {
        match (self.plugin, self.control.take()) {
            (None, Some(control)) if turn.op == Op::Load => self.load(turn, control),
            (None, Some(_)) if turn.op == Op::Leave => leave(),
            (Some(plugin), None) => {
                let answer = plugin.hook(turn);
                if turn.op == Op::Init && answer.status == 0 {
                    self.start_other_threads(plugin);
                }
                answer
            }
            // The host keeps the order; one that does not has no use for an answer.
            (None, _) | (Some(_), Some(_)) => Answer::status(i32::MIN),
        }
    }

    fn load(&mut self, turn: &Turn, control: OwnedFd) -> Answer {
        let loaded = Plugin::load(self.memory, turn.request, control).and_then(|plugin| {
            // One thread at least, or no call would ever be answered.
            start_thread(self.memory, plugin, 1)
                .map_err(|errno| LoadFault::Setup(SetupStep::Threads, errno))?;
            Ok(plugin)
        });
        match loaded {
            Ok(plugin) => {
                self.plugin = Some(plugin);
                Answer::bytes(0, turn.reply, &plugin.traits())
            }
            Err(fault) => Answer::bytes(1, turn.reply, fault.told().as_bytes()),
        }
    }

    /// Calls of a plugin that takes one at a time need one thread. What cannot be started for want of room is not used
    /// by the host.
    fn start_other_threads(&self, plugin: &'static Plugin) {
        if plugin.concurrency() == Concurrency::Serial {
            return;
        }
        for slot in 2..self.memory.slots {
            if start_thread(self.memory, plugin, slot).is_err() {
                return;
            }
        }
    }
}

/// The host does not know this process: it has lost its handle.
fn leave() -> ! {
    // SAFETY: ends the process at once; there is nothing to be put in order.
    unsafe { libc::_exit(0) }
}

fn start_thread(
    memory: &'static Memory,
    plugin: &'static Plugin,
    slot: usize,
) -> Result<(), Errno> {
    let builder = std::thread::Builder::new().name(format!("call-{slot}")).stack_size(STACK);
    let started = builder.spawn(move || serve_slot(memory, slot, |turn| plugin.call(turn)));
    match started {
        Ok(_detached) => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)),
    }
}

/// Carries out the turns of one slot; does not return but for a fault of the system.
fn serve_slot(
    memory: &'static Memory,
    slot: usize,
    mut carry_out: impl FnMut(&Turn) -> Answer,
) -> Result<(), Errno> {
    let down = &memory.down.header().slots[slot];
    let up = &memory.up.header().slots[slot];
    let mut served = up.turn.load(Ordering::SeqCst);
    up.sleep.ready.store(1, Ordering::SeqCst);
    loop {
        wait_for_turn(down, up, served)?;
        served = down.turn.load(Ordering::SeqCst);
        let answer = match turn(memory, slot, down) {
            Some(turn) => carry_out(&turn),
            None => Answer::status(i32::MIN),
        };
        up.status.store(answer.status, Ordering::Relaxed);
        up.reply_len.store(answer.len as u64, Ordering::Relaxed);
        up.overflow.store(u32::from(answer.overflowed), Ordering::Relaxed);
        tell_refused_writes(memory);
        up.turn.store(served, Ordering::SeqCst);
        match down.waiting.word.load(Ordering::SeqCst) {
            WAIT_FUTEX => {
                let _ = futex::wake(&up.turn, futex::Flags::empty(), 1);
            }
            WAIT_EVENT => write_event(),
            WAIT_AWAKE.. => {}
        }
    }
}

fn turn(memory: &Memory, slot: usize, down: &DownSlot) -> Option<Turn> {
    let len = usize::try_from(down.request_len.load(Ordering::Relaxed)).ok()?;
    let request = memory.down.at(request_place(slot, len), len);
    Some(Turn {
        op: Op::from_repr(down.op.load(Ordering::Relaxed))?,
        method: down.method.load(Ordering::Relaxed),
        // SAFETY: inside the mapping, which is never unmapped. The host writes there only between turns.
        request: unsafe { std::slice::from_raw_parts(request, len) },
        first_len: usize::try_from(down.first_len.load(Ordering::Relaxed)).ok()?.min(len),
        reply: Room {
            near: memory.up.at(reply_place(slot, 0), 0),
            far: memory.up.at(arena(slot), 0),
        },
    })
}

fn wait_for_turn(down: &DownSlot, up: &UpSlot, served: u32) -> Result<(), Errno> {
    for _ in 0..down.spin.load(Ordering::Relaxed) {
        if down.turn.load(Ordering::Acquire) != served {
            return Ok(());
        }
        std::hint::spin_loop();
    }
    loop {
        // Said before the last look: whoever takes a turn looks at this after.
        up.sleep.asleep.store(1, Ordering::SeqCst);
        if down.turn.load(Ordering::SeqCst) != served {
            up.sleep.asleep.store(0, Ordering::Relaxed);
            return Ok(());
        }
        // Not on the turn: what a process may not write takes the system a slower way to find.
        match futex::wait(&up.sleep.asleep, futex::Flags::empty(), 1, None) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Late writes have no turn of their own: they are told with the next.
fn tell_refused_writes(memory: &Memory) {
    let refused = u32::try_from(refused_writes()).unwrap_or(u32::MAX);
    let state = &memory.up.header().state;
    if state.refused_writes.load(Ordering::Relaxed) != refused {
        state.refused_writes.store(refused, Ordering::Relaxed);
        state.services.fetch_add(1, Ordering::Release);
    }
}

pub(super) fn write_event() {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the descriptor is this process's own for good; eight bytes are read. A full event has woken its reader.
    unsafe { libc::write(EVENT_FD, one.as_ptr().cast(), one.len()) };
}

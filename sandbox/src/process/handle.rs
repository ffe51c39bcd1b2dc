//! The host's side of one worker: turns of its slots, its end, and nothing that trusts what it writes.
//!
//! ```text
//!          ┌────────── killed by us: deadline, memory, protocol ──────────┐
//! LIVE ────┤                                                              ├──▶ ENDED(verdict): told once to everybody
//!          └── crash noted, or the process's handle says that it ended ───┘
//! LIVE ──stop──▶ STOPPED: killed without a verdict, nobody is told
//! ```
//!
//! Whoever waits for a reply is woken when the worker ends, before the process is gone: taking its memory down takes as
//! long as it has memory. A caller that sees the end first tells the others.
//!
//! A caller that sleeps has no alarm of its own, which would cost as much as a tenth of its call: it writes down until when
//! it may sleep, and the watcher looks at that.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::{Signal, WaitIdOptions};
use rustix::thread::futex;
use themis_messages::instance::{OnEnd, ReplyBuffer};
use themis_messages::limits::MESSAGE_BYTES_MAX;
use themis_messages::sandbox::{Activity, Layer, Layers, Limits, Usage, Verdict};

use super::cgroup::Group;
use super::drain::Drain;
use super::layout::{Down, Op, SLOTS_MAX, Up, WAIT_AWAKE, WAIT_FUTEX, reply_place, request_place};
use super::pending::Calls;
use super::shared::Region;
use super::spin::Spin;
use super::verdict::{Facts, Note, Status, judge};

const LIVE: u32 = 0;
const ENDED: u32 = 1;
const STOPPED: u32 = 2;

/// Who waits for a hook or a slot looks whether the worker has ended this often.
const LOOK: Duration = Duration::from_millis(50);
/// What is kept of a worker's error output, for its verdict.
pub(super) const STDERR_KEPT: usize = 4 << 10;
/// Reads that empty a pipe.
const STDERR_READS: usize = 8;

/// What came back in a slot, with its numbers checked. The bytes are still in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: i32,
    pub(super) len: usize,
    pub(super) overflowed: bool,
}

/// There is no reply and there will be none. Without a verdict the worker was stopped on purpose.
#[derive(Debug, Clone)]
pub(super) struct Gone(pub(super) Option<Arc<Verdict>>);

/// Why a call has no reply.
#[derive(Debug, Clone)]
pub(super) enum NoReply {
    /// There is no worker any more.
    Gone(Gone),
    /// Others had all the slots, for as long as a call may wait for one. Whoever of them does not end in time ends the
    /// worker; that others wait is nobody's fault.
    NoSeat(Duration),
}

impl From<Gone> for NoReply {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// What a worker was started with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) process: OwnedFd,
    pub(super) down: Region<Down>,
    pub(super) up: Region<Up>,
    pub(super) event: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) group: Option<Group>,
    pub(super) limits: Limits,
    pub(super) layers: Layers,
    /// Its memory map, opened by itself when it could still be believed.
    pub(super) maps: Option<OwnedFd>,
    /// Filters over its system calls before it has a plugin.
    pub(super) filters: u32,
    /// The watcher's set of events.
    pub(super) epoll: Arc<OwnedFd>,
}

/// One worker.
pub(super) struct Worker {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) limits: Limits,
    pub(super) layers: Layers,
    pub(super) maps: Option<OwnedFd>,
    pub(super) filters: u32,
    pub(super) process: OwnedFd,
    pub(super) event: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Its error output has been read, and is not looked at again before the next round.
    pub(super) stderr_rests: AtomicBool,
    pub(super) down: Region<Down>,
    pub(super) up: Region<Up>,
    /// Until the plugin was sent.
    pub(super) control: Mutex<Option<OwnedFd>>,
    /// Calls that no thread waits for.
    pub(super) calls: Mutex<Calls>,
    epoll: Arc<OwnedFd>,
    group: Mutex<Option<Group>>,
    state: AtomicU32,
    verdict: OnceLock<Arc<Verdict>>,
    listeners: Mutex<Vec<OnEnd>>,
    /// Where what its plugin says goes, once it has one.
    pub(super) drain: OnceLock<Drain>,
    /// The last of its error output.
    pub(super) stderr_kept: Mutex<Vec<u8>>,
    /// Slots for calls that nobody uses, a bit each.
    free: AtomicU32,
    /// All of them.
    slots: AtomicU32,
    /// Who waits for a slot, on a thread or without one.
    pub(super) waiting: AtomicU32,
    freed: (Mutex<()>, Condvar),
    /// Until when the caller in a slot may sleep, in nanoseconds after [`Worker::born`]; zero when none does.
    sleepers: [AtomicU64; SLOTS_MAX],
    born: Instant,
    /// Held for a turn of slot 0.
    hooks: Mutex<()>,
    spin: Spin,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    /// The last usage seen of a process that is gone.
    last_usage: Mutex<Usage>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("pid", &self.pid)
            .field("state", &self.state)
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}

/// The right to one slot.
pub(super) struct Seat<'a> {
    worker: &'a Worker,
    slot: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.worker.give_seat_back(self.slot);
    }
}

impl Seat<'_> {
    /// The slot, to be given back by its number.
    pub(super) fn into_slot(self) -> usize {
        let slot = self.slot;
        std::mem::forget(self);
        slot
    }
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            number: parts.number,
            pid: parts.pid,
            limits: parts.limits,
            layers: parts.layers,
            maps: parts.maps,
            filters: parts.filters,
            stderr_rests: AtomicBool::new(false),
            process: parts.process,
            event: parts.event,
            stderr: parts.stderr,
            down: parts.down,
            up: parts.up,
            control: Mutex::new(Some(parts.control)),
            calls: Mutex::default(),
            epoll: parts.epoll,
            group: Mutex::new(parts.group),
            state: AtomicU32::new(LIVE),
            verdict: OnceLock::new(),
            listeners: Mutex::default(),
            stderr_kept: Mutex::default(),
            free: AtomicU32::new(0),
            slots: AtomicU32::new(0),
            drain: OnceLock::new(),
            waiting: AtomicU32::new(0),
            freed: (Mutex::new(()), Condvar::new()),
            sleepers: std::array::from_fn(|_slot| AtomicU64::new(0)),
            born: Instant::now(),
            hooks: Mutex::new(()),
            spin: Spin::default(),
            request_bytes: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
            last_usage: Mutex::default(),
        })
    }

    /// Opens slots for calls: the first, or all.
    pub(super) fn open_slots(&self, parallel: bool) {
        let calls = if parallel { self.limits.calls } else { 1 };
        let slots = ((1 << calls) - 1) << 1;
        self.slots.store(slots, Ordering::Release);
        self.free.store(slots, Ordering::Release);
    }

    /// How it ended; `None` while it lives, and when it was stopped.
    pub(super) fn verdict(&self) -> Option<Arc<Verdict>> {
        self.verdict.get().cloned()
    }

    pub(super) fn is_live(&self) -> bool {
        self.state.load(Ordering::Acquire) == LIVE
    }

    pub(super) fn gone(&self) -> Gone {
        Gone(self.verdict())
    }

    // === Turns ===

    /// Runs a hook. One at a time; a health check waits for the hook before it.
    pub(super) fn hook(
        &self,
        op: Op,
        request: (&[u8], &[u8]),
        limit: Duration,
        activity: Activity,
        reply: &mut Vec<u8>,
    ) -> Result<Reply, Gone> {
        let _turn = self.hooks.lock();
        let overdue = Overdue { limit, activity };
        let answered = self.turn(0, op, 0, request, &overdue)?;
        self.take_reply(0, &answered, reply);
        self.take_services();
        Ok(answered)
    }

    /// Runs a call: waits for a seat, writes the request, waits for the reply and appends it.
    pub(super) fn call(
        &self,
        method: u32,
        request: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Result<Reply, NoReply> {
        let limit = self.limits.call_deadline;
        let seat = self.take_seat(limit)?;
        let overdue = Overdue { limit, activity: Activity::Call };
        let answered = self.turn(seat.slot, Op::Call, method, (request, &[]), &overdue)?;
        if let Some(room) = reply.room(answered.len) {
            self.take_reply(seat.slot, &answered, room);
        }
        self.request_bytes.fetch_add(request.len() as u64, Ordering::Relaxed);
        self.reply_bytes.fetch_add(answered.len as u64, Ordering::Relaxed);
        self.take_services();
        Ok(answered)
    }

    fn take_seat(&self, limit: Duration) -> Result<Seat<'_>, NoReply> {
        if let Some(seat) = self.try_seat() {
            return Ok(seat);
        }
        let until = Instant::now() + limit;
        let mut queue = self.freed.0.lock();
        loop {
            // Said before the last look: whoever gives a seat back looks at this after.
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let seat = self.try_seat();
            let live = self.is_live();
            if seat.is_none() && live {
                self.freed.1.wait_for(&mut queue, LOOK);
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            match seat {
                Some(seat) => return Ok(seat),
                None if !live => return Err(self.gone().into()),
                None if Instant::now() >= until => return Err(NoReply::NoSeat(limit)),
                None => {}
            }
        }
    }

    pub(super) fn give_seat_back(&self, slot: usize) {
        self.free.fetch_or(1 << slot, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let queue = self.freed.0.lock();
            self.freed.1.notify_one();
            drop(queue);
            self.wake_seating();
        }
    }

    /// The bytes of a call's answer, and what the plugin has said meanwhile.
    pub(super) fn take_call_reply(
        &self,
        slot: usize,
        answered: &Reply,
        request_len: usize,
        reply: &mut Vec<u8>,
    ) {
        self.take_reply(slot, answered, reply);
        self.down.give_back(request_place(slot, request_len), request_len);
        self.request_bytes.fetch_add(request_len as u64, Ordering::Relaxed);
        self.reply_bytes.fetch_add(answered.len as u64, Ordering::Relaxed);
        self.take_services();
    }

    /// Has the watcher thread look at the event once more.
    pub(super) fn watch_events(&self) {
        let data =
            epoll::EventData::new_u64(self.number * super::workers::KINDS + super::workers::EVENT);
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        // It is gone from the set once the process is.
        let _ = epoll::modify(&*self.epoll, &self.event, data, once);
    }

    pub(super) fn try_seat(&self) -> Option<Seat<'_>> {
        let mut free = self.free.load(Ordering::SeqCst);
        loop {
            let mut usable = free;
            // The first has its thread since the plugin was mapped; others get theirs later, or never.
            while usable != 0 {
                let slot = usable.trailing_zeros() as usize;
                if slot <= 1
                    || self.up.header().slots[slot].sleep.ready.load(Ordering::Relaxed) != 0
                {
                    break;
                }
                usable &= usable - 1;
            }
            if usable == 0 {
                return None;
            }
            let slot = usable.trailing_zeros() as usize;
            let taken = free & !(1 << slot);
            let swapped =
                self.free.compare_exchange_weak(free, taken, Ordering::SeqCst, Ordering::SeqCst);
            match swapped {
                Ok(_) => return Some(Seat { worker: self, slot }),
                Err(now) => free = now,
            }
        }
    }

    /// One turn of a slot that the caller has to itself.
    fn turn(
        &self,
        slot: usize,
        op: Op,
        method: u32,
        request: (&[u8], &[u8]),
        overdue: &Overdue,
    ) -> Result<Reply, Gone> {
        if !self.is_live() {
            return Err(self.gone());
        }
        let spin = self.spin.begin();
        let before = self.publish(slot, (op, method), request, WAIT_AWAKE, spin.rounds());
        let up = &self.up.header().slots[slot];
        if !spin.run(|| up.turn.load(Ordering::Acquire) != before) {
            if slot == 0 {
                self.sleep(before, overdue)?;
            } else {
                self.sleep_watched(slot, before, overdue.limit)?;
            }
        }
        let answered = self.answered_after(slot, before)?;
        let len = request.0.len() + request.1.len();
        self.down.give_back(request_place(slot, len), len);
        Ok(answered)
    }

    /// Writes a request and gives the worker its turn; answers the turn before.
    pub(super) fn publish(
        &self,
        slot: usize,
        (op, method): (Op, u32),
        request: (&[u8], &[u8]),
        waiting: u32,
        spin: u32,
    ) -> u32 {
        let (down, up) = (&self.down.header().slots[slot], &self.up.header().slots[slot]);
        let len = request.0.len() + request.1.len();
        let place = request_place(slot, len);
        self.down.write(place, request.0);
        self.down.write(place + request.0.len(), request.1);
        down.op.store(op as u32, Ordering::Relaxed);
        down.method.store(method, Ordering::Relaxed);
        down.request_len.store(len as u64, Ordering::Relaxed);
        down.first_len.store(request.0.len() as u64, Ordering::Relaxed);
        down.spin.store(spin, Ordering::Relaxed);
        // Left alone when it says so already: the line then stays in both caches.
        if down.waiting.word.load(Ordering::Relaxed) != waiting {
            down.waiting.word.store(waiting, Ordering::Relaxed);
        }
        let before = down.turn.load(Ordering::Relaxed);
        down.turn.store(before.wrapping_add(1), Ordering::SeqCst);
        if up.sleep.asleep.load(Ordering::SeqCst) != 0 {
            up.sleep.asleep.store(0, Ordering::SeqCst);
            let _ = futex::wake(&up.sleep.asleep, futex::Flags::empty(), 1);
        }
        before
    }

    /// Whether the worker's side of a turn is not what it was.
    pub(super) fn is_answered(&self, slot: usize, before: u32) -> bool {
        self.up.header().slots[slot].turn.load(Ordering::SeqCst) != before
    }

    /// Waits for a call's answer, for as long as the watcher lets it.
    fn sleep_watched(&self, slot: usize, before: u32, limit: Duration) -> Result<(), Gone> {
        let (down, up) = (&self.down.header().slots[slot], &self.up.header().slots[slot]);
        let until = self.after_birth(Instant::now() + limit);
        self.sleepers[slot].store(until, Ordering::Relaxed);
        down.waiting.word.store(WAIT_FUTEX, Ordering::SeqCst);
        let woken = loop {
            if up.turn.load(Ordering::SeqCst) != before {
                break Ok(());
            }
            // Should it end from here on, and take back the word that wakes this one: at the end of its process there is
            // another wake.
            if !self.is_live() {
                break Err(self.gone());
            }
            match futex::wait(&up.turn, futex::Flags::empty(), before, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => {
                    break Err(self.broken(format!("its turn cannot be waited for: {errno}")));
                }
            }
        };
        self.sleepers[slot].store(0, Ordering::Relaxed);
        down.waiting.word.store(WAIT_AWAKE, Ordering::SeqCst);
        woken
    }

    fn after_birth(&self, moment: Instant) -> u64 {
        let nanos = moment.saturating_duration_since(self.born).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Ends the worker over a call that is overdue; answers how long from now until the next one may be. Whoever begins to
    /// sleep later may sleep for a whole call's limit.
    pub(super) fn check_sleepers(&self, now: Instant) -> Duration {
        let limit = self.limits.call_deadline;
        let (now, mut next) = (self.after_birth(now), limit);
        for (slot, sleeper) in self.sleepers.iter().enumerate() {
            let until = sleeper.load(Ordering::Relaxed);
            if until == 0 {
                continue;
            }
            let turn = self.down.header().slots[slot].turn.load(Ordering::Relaxed);
            if until > now {
                next = next.min(Duration::from_nanos(until - now));
            } else if !self.is_answered(slot, turn.wrapping_sub(1)) {
                // Answered, it would only not have noticed yet.
                drop(self.overdue(&Overdue { limit, activity: Activity::Call }));
            }
        }
        next
    }

    /// Waits for a hook's answer until the worker's side of the turn is not what it was.
    fn sleep(&self, before: u32, overdue: &Overdue) -> Result<(), Gone> {
        let (down, up) = (&self.down.header().slots[0], &self.up.header().slots[0]);
        let until = Instant::now() + overdue.limit;
        down.waiting.word.store(WAIT_FUTEX, Ordering::SeqCst);
        let woken = loop {
            if up.turn.load(Ordering::SeqCst) != before {
                break Ok(());
            }
            if !self.is_live() {
                break Err(self.gone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(self.overdue(overdue));
            }
            let look = left.min(LOOK);
            let look = futex::Timespec { tv_sec: 0, tv_nsec: i64::from(look.subsec_nanos()) };
            match futex::wait(&up.turn, futex::Flags::empty(), before, Some(&look)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                Err(errno) => {
                    break Err(self.broken(format!("its turn cannot be waited for: {errno}")));
                }
            }
        };
        down.waiting.word.store(WAIT_AWAKE, Ordering::SeqCst);
        woken
    }

    /// Checks what stands in the slot, each number read once.
    pub(super) fn answered_after(&self, slot: usize, before: u32) -> Result<Reply, Gone> {
        let (up, turn) = (&self.up.header().slots[slot], before.wrapping_add(1));
        let seen = up.turn.load(Ordering::SeqCst);
        if seen != turn {
            return Err(self.not_its_turn(seen, turn));
        }
        let (status, len) =
            (up.status.load(Ordering::Relaxed), up.reply_len.load(Ordering::Relaxed));
        let overflowed = up.overflow.load(Ordering::Relaxed) != 0;
        match usize::try_from(len) {
            Ok(len) if len <= MESSAGE_BYTES_MAX => Ok(Reply { status, len, overflowed }),
            Ok(_) | Err(_) => Err(self.broken(format!("a reply of {len} bytes"))),
        }
    }

    fn take_reply(&self, slot: usize, answered: &Reply, reply: &mut Vec<u8>) {
        let place = reply_place(slot, answered.len);
        self.up.read(place, answered.len, reply);
        self.up.give_back(place, answered.len);
    }

    // === Ends ===

    /// A turn that nobody asked for: the worker told that it is ending, or writes what it likes.
    #[cold]
    fn not_its_turn(&self, seen: u32, turn: u32) -> Gone {
        if !self.is_live() {
            return self.gone();
        }
        match self.note() {
            Some(note) => {
                self.take_last_stderr();
                let facts = self.stderr_kept.lock().clone();
                let verdict = judge(&Facts {
                    status: Status::Unknown,
                    note: Some(note),
                    oom_kills: 0,
                    memory_limit: self.limits.memory_bytes,
                    stderr: &facts,
                });
                self.end(verdict);
                self.gone()
            }
            None => self.broken(format!("turn {seen} was answered, not {turn}")),
        }
    }

    #[cold]
    pub(super) fn broken(&self, what: String) -> Gone {
        self.end(Verdict::ProtocolViolation { what });
        self.gone()
    }

    #[cold]
    pub(super) fn overdue(&self, overdue: &Overdue) -> Gone {
        self.end(Verdict::Deadline { what: overdue.activity, limit: overdue.limit });
        self.gone()
    }

    /// What its handler noted, once the note is complete.
    fn note(&self) -> Option<Note> {
        let up = self.up.header();
        if up.state.ending.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let signal = up.crash.signal.load(Ordering::SeqCst);
        (signal > 0).then(|| Note {
            signal,
            syscall: up.crash.syscall.load(Ordering::SeqCst),
            address: up.crash.address.load(Ordering::SeqCst),
        })
    }

    /// Ends it with a verdict, unless it has ended: tells everybody, and kills what is left of it.
    pub(super) fn end(&self, verdict: Verdict) {
        if self.settle(ENDED, Some(verdict), || self.measure()) {
            self.kill();
        }
    }

    /// Ends it on purpose: nobody is told.
    pub(super) fn stop(&self) {
        if self.settle(STOPPED, None, || self.measure()) {
            self.kill();
        }
    }

    /// Whether this was the first word about its end. Nobody is told with a lock held: who is told may ask back.
    fn settle(&self, state: u32, verdict: Option<Verdict>, usage: impl FnOnce() -> Usage) -> bool {
        if !self.is_live() {
            return false;
        }
        self.take_services();
        let (verdict, usage) = (verdict.map(Arc::new), usage());
        let listeners = {
            let mut listeners = self.listeners.lock();
            // Under the lock, so that who listens later finds the verdict.
            if !self.is_live() {
                return false;
            }
            *self.last_usage.lock() = usage;
            if let Some(verdict) = &verdict {
                drop(self.verdict.set(Arc::clone(verdict)));
            }
            self.state.store(state, Ordering::Release);
            std::mem::take(&mut *listeners)
        };
        self.wake_everybody();
        if let Some(verdict) = &verdict {
            listeners.into_iter().for_each(|told| told(Arc::clone(verdict)));
            tracing::warn!(worker = self.pid, code = verdict.code(), %verdict, "a worker ended");
        }
        true
    }

    fn wake_everybody(&self) {
        for slot in &self.up.header().slots {
            // Who is about to sleep on the old number does not.
            slot.turn.fetch_add(u32::MAX / 3, Ordering::SeqCst);
            let _ = futex::wake(&slot.turn, futex::Flags::empty(), u32::MAX >> 1);
        }
        let queue = self.freed.0.lock();
        self.freed.1.notify_all();
        drop(queue);
        self.settle_calls(Instant::now());
    }

    /// Kills the process and everything it may have started. It may be gone already.
    fn kill(&self) {
        if let Some(group) = &*self.group.lock()
            && let Err(error) = group.kill()
        {
            tracing::debug!(%error, "the group of a worker was not killed as one");
        }
        match rustix::process::pidfd_send_signal(&self.process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => tracing::error!(worker = self.pid, %errno, "a worker was not killed"),
        }
    }

    /// Told once when it ends by itself; at once when it has.
    pub(super) fn on_end(&self, told: OnEnd) {
        let mut listeners = self.listeners.lock();
        if self.is_live() {
            return listeners.push(told);
        }
        drop(listeners);
        if let Some(verdict) = self.verdict() {
            told(verdict);
        }
    }

    /// The process is gone: takes its status and settles its verdict if nobody has. Answers its group, to be removed.
    pub(super) fn reap(&self) -> Option<Group> {
        // Its number is its own until it has been waited for.
        let usage = self.measure();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = wait(&self.process, options);
        self.take_last_stderr();
        let oom_kills = self.group.lock().as_ref().map_or(0, Group::oom_kills);
        let stderr = self.stderr_kept.lock().clone();
        let memory_limit = self.limits.memory_bytes;
        let note = self.note();
        let facts = Facts { status, note, oom_kills, memory_limit, stderr: &stderr };
        if !self.settle(ENDED, Some(judge(&facts)), || usage) {
            // It could take back the first wake for as long as it was there.
            self.wake_everybody();
        }
        self.group.lock().take()
    }

    /// The system kills for want of memory before the process is gone.
    pub(super) fn look_at_memory_events(&self) {
        let oom_kills = self.group.lock().as_ref().map_or(0, Group::oom_kills);
        if oom_kills > 0 {
            self.end(Verdict::MemoryLimit { limit: self.limits.memory_bytes });
        }
    }

    /// Whether it uses more memory, or has more threads, than it may, where no cgroup would notice.
    pub(super) fn check_limits(&self) {
        if !self.is_live() {
            return;
        }
        let limit = self.limits.memory_bytes;
        if self.resident_bytes().is_some_and(|bytes| bytes > limit) {
            return self.end(Verdict::MemoryLimit { limit });
        }
        // A user of its own has them counted by the system.
        let limit = self.limits.pids;
        if !self.layers.has(Layer::OwnUser)
            && super::usage::threads_of(self.pid).is_some_and(|threads| threads > limit)
        {
            let what = format!("it has more threads than its limit of {limit}");
            self.end(Verdict::ProtocolViolation { what });
        }
    }

    // === Use ===

    /// Its own memory, and what it has of the shared.
    fn resident_bytes(&self) -> Option<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let mut pages = statm.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (pages.next()?, pages.next()?);
        let own = resident.saturating_sub(shared) * rustix::param::page_size() as u64;
        Some(own + self.up.resident_bytes())
    }

    /// What it has used.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = if self.is_live() { self.measure() } else { *self.last_usage.lock() };
        usage.log_lines_dropped = self.drain.get().map_or(0, Drain::dropped);
        usage.request_bytes = self.request_bytes.load(Ordering::Relaxed);
        usage.reply_bytes = self.reply_bytes.load(Ordering::Relaxed);
        usage
    }

    fn measure(&self) -> Usage {
        let mut usage = super::usage::of_process(self.pid);
        if let Some(group) = &*self.group.lock() {
            let counted = group.usage();
            usage.cpu = Some(counted.cpu);
            usage.memory_bytes = counted.memory_bytes.or(usage.memory_bytes);
            usage.memory_peak_bytes = counted.memory_peak_bytes.or(usage.memory_peak_bytes);
        }
        usage
    }

    pub(super) fn memory_events(&self) -> Option<OwnedFd> {
        self.group.lock().as_ref()?.memory_events()
    }

    /// Takes what there is of its error output; answers how much that was.
    pub(super) fn take_stderr(&self) -> usize {
        let mut new = [0; 16 << 10];
        let mut kept = self.stderr_kept.lock();
        let read = rustix::io::read(&self.stderr, &mut new[..]).unwrap_or(0);
        let new = &new[..read];
        kept.extend_from_slice(new);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
        drop(kept);
        if let (Some(drain), false) = (self.drain.get(), new.is_empty()) {
            drain.stderr(new);
        }
        read
    }

    /// All that is left of it, as far as a pipe holds.
    fn take_last_stderr(&self) {
        for _ in 0..STDERR_READS {
            if self.take_stderr() == 0 {
                return;
            }
        }
    }

    /// Takes what its plugin logged and counted.
    pub(super) fn take_services(&self) {
        if let Some(drain) = self.drain.get() {
            drain.take(self.down.header(), self.up.header());
        }
    }

    /// Whether a call or hook is under way.
    pub(super) fn is_busy(&self) -> bool {
        let all = self.slots.load(Ordering::Relaxed);
        self.free.load(Ordering::Relaxed) != all || self.hooks.is_locked()
    }
}

/// A turn's limit, and what it was for.
pub(super) struct Overdue {
    pub(super) limit: Duration,
    pub(super) activity: Activity,
}

/// The status of a process that ended.
fn wait(process: &OwnedFd, options: WaitIdOptions) -> Status {
    use rustix::process::{WaitId, waitid};
    // A worker sends no signal at its end, and is waited for as such.
    let options = options | WaitIdOptions::from_bits_retain(libc::__WALL.unsigned_abs());
    match waitid(WaitId::PidFd(process.as_fd()), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Killed(signal),
            (None, None) => Status::Unknown,
        },
        Ok(None) | Err(_) => Status::Unknown,
    }
}

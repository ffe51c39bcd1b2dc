//! How a caller holds a generation during a call, and how a replaced one learns that nobody does any more.
//!
//! A [`Serving`] is one stint of a generation as the current one; a rollback makes a new stint of a warm
//! generation. Callers enter and leave; the owner closes it once another stint is published, and is told when
//! the last caller has left.
//!
//! ```text
//! OPEN ──hold()──▶ HELD ──close()──▶ CLOSED ──last caller leaves──▶ drained
//!   ▲                │ released, or its limit passed
//!   └────────────────┘
//! enter(): counted   enter(): waits   enter(): refused, look again
//! ```
//!
//! Entering is a count on a shard of the caller's thread and then a look at the door; shutting the door is a store
//! to it and then a look at the counts. Both are sequentially consistent, so of a caller and a closer that
//! meet, at least one sees the other: no caller is inside a stint that was reported drained. A single shared
//! count would cost 108–120 ns with eight callers; a shard costs one uncontended atomic.
//!
//! A stint is held while its state goes to the next version. A hold ends by itself at its limit, whatever became
//! of who holds it, so callers never wait longer; whoever holds it learns that when it tries to close the door.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex, MutexGuard};
use themis_messages::call::CallError;
use themis_messages::instance::Concurrency;
use themis_messages::lifecycle::FirstCall;
use themis_messages::limits::PROBATION_ERRORS_MIN;
use themis_messages::probation::Tally;
use tokio::sync::Notify;

use crate::generation::Generation;
use times::Times;

mod times;

/// Callers may enter.
const OPEN: u8 = 0;
/// Callers wait.
const HELD: u8 = 1;
/// Callers are refused: a newer stint is published, or about to be.
const CLOSED: u8 = 2;

/// Shards of the counts: above the number of threads that call at once on usual machines.
const SHARDS: usize = 16;

#[derive(Debug, Default)]
struct Shard {
    /// Entries ever made, refused ones included.
    entered: AtomicU64,
    /// Entries ended; never above `entered`.
    left: AtomicU64,
    /// Calls made.
    calls: AtomicU64,
}

/// One stint of a generation as the one that serves.
#[derive(Debug)]
pub struct Serving {
    /// What serves.
    pub generation: Arc<Generation>,
    shards: [CachePadded<Shard>; SHARDS],
    door: AtomicU8,
    /// Until when the door is held; guards the changes between open and held.
    held_until: Mutex<Option<Instant>>,
    door_moved: Condvar,
    left_while_shut: Notify,
    /// When it was published.
    began: Instant,
    /// Leases held over many calls, which are inside without a call.
    leases: AtomicU64,
    /// Taken for each call of a plugin that is not thread-safe.
    turn: Option<Mutex<()>>,
    /// Whether somebody has reported that the turn is never given up.
    reported_stuck: AtomicBool,
    /// Calls that ended in an error of any kind.
    errors: AtomicU64,
    /// Those of them whose code the ABI does not know.
    faults: AtomicU64,
    /// Those of them that the plugin called its caller's mistake.
    mistakes: AtomicU64,
    /// Wakes whoever watches this stint's errors.
    alarm: Notify,
    times: Times,
    first: OnceLock<FirstCall>,
    /// Calls and errors that the metrics know already.
    pub(crate) folded: Mutex<(u64, u64)>,
    /// Sampled latencies, in seconds.
    pub(crate) latency: metrics::Histogram,
}

/// Proof of having entered: the shard to leave from.
#[derive(Debug, Clone, Copy)]
struct Entry(usize);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The shard of this thread; threads are dealt out in turn.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|cell| {
        if cell.get() == usize::MAX {
            cell.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        cell.get()
    })
}

impl Serving {
    /// A stint that callers may enter once it is published.
    #[must_use]
    pub fn new(generation: Arc<Generation>, latency: metrics::Histogram) -> Arc<Self> {
        let turn = match generation.instance.concurrency() {
            Concurrency::Parallel => None,
            Concurrency::Serial => Some(Mutex::new(())),
        };
        Arc::new(Self {
            generation,
            shards: Default::default(),
            door: AtomicU8::new(OPEN),
            held_until: Mutex::new(None),
            door_moved: Condvar::new(),
            left_while_shut: Notify::new(),
            began: Instant::now(),
            leases: AtomicU64::new(0),
            turn,
            reported_stuck: AtomicBool::new(false),
            errors: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            mistakes: AtomicU64::new(0),
            alarm: Notify::new(),
            times: Times::default(),
            first: OnceLock::new(),
            folded: Mutex::new((0, 0)),
            latency,
        })
    }

    /// Enters for the time `visit` lives; `None` when the door is shut: see [`Serving::wait_at_door`].
    pub(crate) fn enter(&self) -> Option<Visit<'_>> {
        let entry = self.begin()?;
        Some(Visit { serving: self, entry })
    }

    fn begin(&self) -> Option<Entry> {
        let entry = Entry(shard_of_thread());
        self.shards[entry.0].entered.fetch_add(1, Ordering::SeqCst);
        if self.door.load(Ordering::SeqCst) != OPEN {
            self.end(entry);
            return None;
        }
        Some(entry)
    }

    /// Waits until a held door moves. Behind a closed one a newer stint, or none, is published.
    #[cold]
    pub(crate) fn wait_at_door(&self) {
        let mut held_until = self.held_until.lock();
        while self.door.load(Ordering::SeqCst) == HELD {
            let Some(until) = *held_until else { return };
            if self.door_moved.wait_until(&mut held_until, until).timed_out() {
                // Who held it overstayed its limit, or is no more.
                return self.open_if_held(&mut held_until);
            }
        }
    }

    fn open_if_held(&self, held_until: &mut MutexGuard<'_, Option<Instant>>) {
        **held_until = None;
        let opened = self.door.compare_exchange(HELD, OPEN, Ordering::SeqCst, Ordering::SeqCst);
        tracing::trace!(opened = opened.is_ok(), "a hold is over");
        self.door_moved.notify_all();
    }

    /// Holds new callers from now on, at most until `until`; `None` when the door is not open.
    pub(crate) fn hold(self: &Arc<Self>, until: Instant) -> Option<Hold> {
        let mut held_until = self.held_until.lock();
        self.door.compare_exchange(OPEN, HELD, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        *held_until = Some(until);
        Some(Hold { serving: Arc::clone(self), began: Instant::now() })
    }

    fn end(&self, entry: Entry) {
        self.shards[entry.0].left.fetch_add(1, Ordering::SeqCst);
        if self.door.load(Ordering::SeqCst) != OPEN {
            self.left_while_shut.notify_waiters();
        }
    }

    /// Waits for the plugin's turn when it takes one call at a time: `Err` after `limit`.
    pub(crate) fn take_turn(&self, limit: Duration) -> Result<Option<MutexGuard<'_, ()>>, Stuck> {
        match &self.turn {
            None => Ok(None),
            Some(turn) => match turn.try_lock_for(limit) {
                Some(guard) => Ok(Some(guard)),
                None => Err(Stuck),
            },
        }
    }

    /// Refuses callers from now on. A newer stint, or none, must be published before.
    pub fn close(&self) {
        let _moving = self.held_until.lock();
        self.door.store(CLOSED, Ordering::SeqCst);
        self.door_moved.notify_all();
    }

    /// Callers inside. Exact once closed: an entry stays on its shard, and `left` is read first.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| {
                let left = shard.left.load(Ordering::SeqCst);
                shard.entered.load(Ordering::SeqCst) - left
            })
            .sum()
    }

    /// Ends when the last caller has left a held or closed stint.
    pub async fn drained(&self) {
        loop {
            let left = self.left_while_shut.notified();
            tokio::pin!(left);
            // Listening before looking: whoever leaves in between is heard.
            left.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Calls made in this stint.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shards.iter().map(|shard| shard.calls.load(Ordering::Relaxed)).sum()
    }

    /// Calls of this stint that ended in an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Counts a call that failed, and wakes the watcher when that may decide a probation.
    #[cold]
    pub(crate) fn count_error(&self, error: &CallError) {
        // What somebody else did to it says nothing about the version.
        if matches!(error, CallError::Ended { verdict, .. } if !verdict.is_its_own()) {
            return;
        }
        let earlier = self.errors.fetch_add(1, Ordering::Relaxed);
        let is_fault = matches!(error, CallError::Fault { .. } | CallError::Ended { .. });
        let is_mistake =
            matches!(error, CallError::UnknownMethod { .. } | CallError::BadRequest { .. });
        if is_fault {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        if is_mistake {
            self.mistakes.fetch_add(1, Ordering::Relaxed);
        }
        if is_fault || earlier + 1 == PROBATION_ERRORS_MIN {
            self.alarm.notify_one();
        }
    }

    /// How long ago it was published.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends soon after errors that may decide a probation. One waiter at a time.
    pub(crate) async fn alarmed(&self) {
        self.alarm.notified().await;
    }

    /// Whether this is the first report that a turn is never given up.
    pub(crate) fn report_stuck(&self) -> bool {
        !self.reported_stuck.swap(true, Ordering::Relaxed)
    }

    /// Takes one timed call, which may have been the first; whether it was.
    pub(crate) fn time(&self, elapsed: Duration, method: u32, ok: bool) -> bool {
        self.times.record(elapsed);
        self.latency.record(elapsed.as_secs_f64());
        if self.first.get().is_some() {
            return false;
        }
        let first = FirstCall {
            generation: self.generation.id,
            version: self.generation.version().clone(),
            method,
            ok,
            after: self.began.elapsed(),
        };
        self.first.set(first).is_ok()
    }

    /// The first call that was answered in this stint.
    #[must_use]
    pub fn first_call(&self) -> Option<&FirstCall> {
        self.first.get()
    }

    /// What was counted in this stint.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let (samples, p90_ns) = self.times.ninth_decile();
        // Faults are counted after errors and errors after calls: read in the order that keeps them below.
        let faults = self.faults.load(Ordering::Relaxed);
        let mistakes = self.mistakes.load(Ordering::Relaxed);
        let errors = self.errors();
        Tally { calls: self.calls(), errors, mistakes, faults, samples, p90_ns, stalled_ns: 0 }
    }

    /// Calls inside that are no lease's, and how many have ended so far, leases included.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let ended = self.shards.iter().map(|shard| shard.left.load(Ordering::SeqCst)).sum();
        (self.in_flight().saturating_sub(self.leases.load(Ordering::SeqCst)), ended)
    }
}

/// New callers of a stint are held while this lives, at most until its limit.
#[derive(Debug)]
pub struct Hold {
    serving: Arc<Serving>,
    began: Instant,
}

impl Hold {
    /// For how long callers have been held.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Closes the door for good, if callers are still held: then none has been inside since the hold began. The
    /// next stint must be published at once.
    #[must_use]
    pub(crate) fn close(self) -> bool {
        let serving = &self.serving;
        let _moving = serving.held_until.lock();
        serving.door.compare_exchange(HELD, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.serving.open_if_held(&mut self.serving.held_until.lock());
    }
}

/// The plugin did not give up its turn in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stuck;

/// A caller inside a stint.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    serving: &'a Serving,
    entry: Entry,
}

impl Visit<'_> {
    /// Counts one call; the number is the thread shard's own, for sampling.
    pub(crate) fn count_call(&self) -> u64 {
        self.serving.shards[self.entry.0].calls.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.serving.end(self.entry);
    }
}

/// A stint held over many calls: they all see one version.
///
/// Holding one delays the end of a replaced version, never its replacement.
#[derive(Debug)]
pub struct HeldServing {
    serving: Arc<Serving>,
    entry: Entry,
}

impl HeldServing {
    /// Enters `serving`; `None` when a newer stint is already published.
    pub(crate) fn enter(serving: &Arc<Serving>) -> Option<Self> {
        let entry = serving.begin()?;
        serving.leases.fetch_add(1, Ordering::SeqCst);
        Some(Self { serving: Arc::clone(serving), entry })
    }

    /// The stint.
    #[must_use]
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    pub(crate) fn count_call(&self) -> u64 {
        self.serving.shards[shard_of_thread()].calls.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for HeldServing {
    fn drop(&mut self) {
        self.serving.leases.fetch_sub(1, Ordering::SeqCst);
        self.serving.end(self.entry);
    }
}

#[cfg(test)]
mod tests;

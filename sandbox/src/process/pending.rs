//! Calls that nobody's thread waits for: the worker writes an event, the watcher thread wakes whoever is concerned.
//!
//! ```text
//! seating ──seat──▶ under way ──event, turn answered──▶ done
//!                        └── dropped: the seat, and what the caller held, stay until the worker answers or ends
//! ```

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use themis_messages::sandbox::Activity;

use super::handle::{Gone, NoReply, Overdue, Reply, Worker};
use super::layout::{Op, WAIT_EVENT};

/// Events that concern nobody, one after the other, before they are an attack.
const IDLE_EVENTS_MAX: u32 = 10_000;

/// What is kept until a call is over: it ends with the worker's answer, not with its caller's patience.
pub(super) type Keep = Box<dyn Any + Send>;

/// One call under way.
pub(super) struct UnderWay {
    slot: usize,
    before: u32,
    until: Instant,
    waker: Option<Waker>,
    /// There once its caller is gone.
    keep: Option<Keep>,
}

/// All calls under way in one worker, and those that wait for a seat.
#[derive(Default)]
pub(super) struct Calls {
    under_way: Vec<UnderWay>,
    seating: Vec<Waker>,
    idle_events: u32,
}

/// One call: a future that answers what came back, and the bytes.
pub(super) struct Pending {
    worker: Arc<Worker>,
    method: u32,
    request: Vec<u8>,
    /// The slot, and its turn before.
    seat: Option<(usize, u32)>,
    keep: Option<Keep>,
    /// When it was first asked for.
    asked: Option<Instant>,
}

impl Pending {
    pub(super) fn new(worker: Arc<Worker>, method: u32, request: Vec<u8>, keep: Keep) -> Self {
        Self { worker, method, request, seat: None, keep: Some(keep), asked: None }
    }

    /// Takes a seat and writes the request; `false` when all are taken.
    fn begin(&mut self, waker: &Waker) -> Result<bool, NoReply> {
        let limit = self.worker.limits.call_deadline;
        let asked = *self.asked.get_or_insert_with(Instant::now);
        let mut calls = self.worker.calls.lock();
        if !self.worker.is_live() {
            return Err(self.worker.gone().into());
        }
        if asked.elapsed() > limit {
            return Err(NoReply::NoSeat(limit));
        }
        let Some(slot) = self.worker.seat_or_queue(&mut calls, waker) else { return Ok(false) };
        let until = Instant::now() + limit;
        let request = (self.request.as_slice(), [].as_slice());
        let before = self.worker.publish(slot, (Op::Call, self.method), request, WAIT_EVENT, 0);
        let waker = Some(waker.clone());
        calls.under_way.push(UnderWay { slot, before, until, waker, keep: None });
        self.seat = Some((slot, before));
        drop(calls);
        self.worker.watch_events();
        Ok(true)
    }

    fn finish(&mut self, slot: usize, before: u32) -> Result<(Reply, Vec<u8>), Gone> {
        self.seat = None;
        let answered = self.worker.answered_after(slot, before);
        let mut bytes = Vec::new();
        let answered = answered.inspect(|answered| {
            self.worker.take_call_reply(slot, answered, self.request.len(), &mut bytes);
        });
        let mut calls = self.worker.calls.lock();
        calls.under_way.retain(|it| it.slot != slot);
        // An answer that was there before anybody slept has written its event all the same.
        calls.idle_events = 0;
        drop(calls);
        self.worker.give_seat_back(slot);
        answered.map(|answered| (answered, bytes))
    }
}

impl Future for Pending {
    type Output = Result<(Reply, Vec<u8>), NoReply>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let waker = context.waker();
        match this.seat {
            None => match this.begin(waker) {
                Err(none) => return Poll::Ready(Err(none)),
                Ok(false) => return Poll::Pending,
                Ok(true) => {}
            },
            Some((slot, _)) => {
                let mut calls = this.worker.calls.lock();
                if let Some(own) = calls.under_way.iter_mut().find(|it| it.slot == slot) {
                    own.waker = Some(waker.clone());
                }
            }
        }
        let Some((slot, before)) = this.seat else { return Poll::Pending };
        // Looked at behind the waker's registration: an answer in between wakes it.
        if this.worker.is_answered(slot, before) || !this.worker.is_live() {
            return Poll::Ready(this.finish(slot, before).map_err(NoReply::Gone));
        }
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some((slot, _)) = self.seat else { return };
        let mut calls = self.worker.calls.lock();
        if let Some(own) = calls.under_way.iter_mut().find(|it| it.slot == slot) {
            (own.waker, own.keep) = (None, self.keep.take());
        }
        drop(calls);
        // It may have been answered just before.
        self.worker.settle_calls(Instant::now());
    }
}

impl Worker {
    /// The event was written: wakes whose turn was answered.
    pub(super) fn take_event(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.event, &mut count);
        let met = self.settle_calls(Instant::now());
        let mut calls = self.calls.lock();
        calls.idle_events = if met { 0 } else { calls.idle_events + 1 };
        let (flood, waited_for) =
            (calls.idle_events > IDLE_EVENTS_MAX, !calls.under_way.is_empty());
        drop(calls);
        if flood {
            self.broken("it floods the event of its answers".to_owned());
        } else if waited_for {
            self.watch_events();
        }
    }

    /// Wakes callers whose calls are over, ends the worker over an overdue one, and frees what nobody waits for any
    /// more; whether anything was over.
    pub(super) fn settle_calls(&self, now: Instant) -> bool {
        let live = self.is_live();
        let mut calls = self.calls.lock();
        let (mut late, mut woken, mut over) = (false, Vec::new(), Vec::new());
        for (index, call) in calls.under_way.iter_mut().enumerate() {
            if self.is_answered(call.slot, call.before) || !live {
                woken.extend(call.waker.take());
                if call.keep.is_some() {
                    over.push(index);
                }
            }
            late |= now >= call.until;
        }
        let met = !over.is_empty() || !woken.is_empty();
        let left: Vec<_> =
            over.into_iter().rev().map(|index| calls.under_way.swap_remove(index)).collect();
        // Wakers are somebody else's code: not with a lock held.
        drop(calls);
        woken.into_iter().for_each(Waker::wake);
        // A slot may have got its thread, or a caller waited long enough.
        self.wake_seating();
        for orphan in left {
            self.give_seat_back(orphan.slot);
        }
        if late && live {
            let limit = self.limits.call_deadline;
            drop(self.overdue(&Overdue { limit, activity: Activity::Call }));
        }
        met
    }

    /// Somebody left a seat: whoever waits for one looks again. All of them, since one may have given up.
    pub(super) fn wake_seating(&self) {
        let seating = std::mem::take(&mut self.calls.lock().seating);
        for waker in seating {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            waker.wake();
        }
    }

    /// A seat, or a place among those who are woken when there is one.
    fn seat_or_queue(&self, calls: &mut Calls, waker: &Waker) -> Option<usize> {
        let into_slot = super::handle::Seat::into_slot;
        if let Some(slot) = self.try_seat().map(into_slot) {
            return Some(slot);
        }
        // Said before the last look: whoever gives a seat back looks at this after.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if let Some(slot) = self.try_seat().map(into_slot) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Some(slot);
        }
        calls.seating.push(waker.clone());
        None
    }
}

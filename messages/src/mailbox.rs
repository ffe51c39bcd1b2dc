//! Bounded queues with a role, and asks that always have a limit.
//!
//! A [`Mailbox`] names a role, not an incarnation, and owns the queue: what waits in it survives the actor that
//! reads it. Each request carries a permit that is given back when its handler is done with it.
//!
//! ```text
//! send ──permit?──▶ queue ──knock──▶ reader: take() ──▶ handler
//!   └─ none left: Overloaded        (swapped at a restart; the queue stays)
//! tell ──always───▶ queue
//! close: requests are dropped, which tells their askers; facts stay for the next reader
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::lifecycle::KernelFault;

/// Carries one answer back to who asked.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// A reply and what waits for it.
    #[must_use]
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. Whoever asked may have stopped waiting; that is theirs to decide.
    pub fn send(self, answer: T) {
        drop(self.0.send(answer));
    }
}

/// A message with its place in the queue; the place is free again when this is dropped.
#[derive(Debug)]
pub struct Admitted<M> {
    /// The message.
    pub message: M,
    /// The place; `None` for facts, which are never refused.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// One incarnation of a role, as its queue sees it.
pub trait Reader: Send + Sync {
    /// Wakes it: it takes one message, if one is there. Without effect when it is gone.
    fn knock(&self);

    /// Whether it still handles messages.
    fn is_alive(&self) -> bool;

    /// Ends it at its next await, without asking it.
    fn kill(&self);
}

/// A role as its watchers see it, whatever it is told.
pub trait Watched: Send + Sync {
    /// The role's name.
    fn role(&self) -> &'static str;
    /// Messages in the queue or being handled, facts not counted.
    fn depth(&self) -> usize;
    /// Requests refused because the queue was full.
    fn refused(&self) -> u64;
    /// Wakes the reader although nothing may be waiting: it answers by [`Mailbox::beat`].
    fn knock(&self);
    /// Milliseconds, on the clock of whoever calls [`Mailbox::beat`], at which the reader last showed life.
    fn last_beat(&self) -> u64;
    /// Whether a living reader is behind the role.
    fn is_alive(&self) -> bool;
    /// Ends the reader; its supervisor sees to the rest.
    fn kill(&self);
    /// Drops what waits for an answer: see [`Mailbox::close`].
    fn close(&self);
}

/// The bounded queue of one role.
pub struct Mailbox<M> {
    role: &'static str,
    capacity: usize,
    permits: Arc<Semaphore>,
    queue: Mutex<Queue<M>>,
    reader: ArcSwapOption<Box<dyn Reader>>,
    refused: AtomicU64,
    beat: AtomicU64,
}

struct Queue<M> {
    waiting: VecDeque<Admitted<M>>,
    /// Whether a reader is there or on its way.
    open: bool,
}

impl<M> std::fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("role", &self.role).finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Mailbox<M> {
    /// A queue nobody reads yet: it takes facts, and requests once a reader is connected.
    #[must_use]
    pub fn new(role: &'static str, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            role,
            capacity,
            permits: Arc::new(Semaphore::new(capacity)),
            queue: Mutex::new(Queue { waiting: VecDeque::new(), open: false }),
            reader: ArcSwapOption::empty(),
            refused: AtomicU64::new(0),
            beat: AtomicU64::new(0),
        })
    }

    /// Puts a new incarnation behind the role; it is woken for everything that waits.
    pub fn connect(&self, reader: impl Reader + 'static) {
        let reader: Arc<Box<dyn Reader>> = Arc::new(Box::new(reader));
        self.reader.store(Some(Arc::clone(&reader)));
        let waiting = {
            let mut queue = self.queue.lock();
            queue.open = true;
            queue.waiting.len()
        };
        for _ in 0..waiting {
            reader.knock();
        }
    }

    /// Nobody will read for now: waiting requests are dropped, which tells their askers; facts stay.
    pub fn close(&self) {
        let dropped: Vec<_> = {
            let mut queue = self.queue.lock();
            queue.open = false;
            let (requests, facts) =
                queue.waiting.drain(..).partition::<VecDeque<_>, _>(|it| it.permit.is_some());
            queue.waiting = facts;
            requests.into_iter().collect()
        };
        // Outside the lock: a dropped message may own anything.
        drop(dropped);
    }

    /// Sends a request.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full, `Stopped` when nobody reads it nor will soon.
    pub fn send(&self, message: M) -> Result<(), KernelFault> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(KernelFault::Overloaded { role: self.role, capacity: self.capacity });
        };
        {
            let mut queue = self.queue.lock();
            if !queue.open {
                return Err(KernelFault::Stopped { role: self.role });
            }
            queue.waiting.push_back(Admitted { message, permit: Some(permit) });
        }
        self.knock();
        Ok(())
    }

    /// Sends a fact. It is never refused: what happened has happened. Between two incarnations it waits.
    pub fn tell(&self, message: M) {
        self.queue.lock().waiting.push_back(Admitted { message, permit: None });
        self.knock();
    }

    /// The oldest message; for the reader that was woken.
    #[must_use]
    pub fn take(&self) -> Option<Admitted<M>> {
        self.queue.lock().waiting.pop_front()
    }

    /// The reader shows life, at `now` milliseconds of its clock.
    pub fn beat(&self, now: u64) {
        self.beat.store(now, Ordering::Relaxed);
    }

    /// Asks and waits for the answer, at most `limit`. Between two incarnations the question waits.
    ///
    /// # Errors
    /// As [`Mailbox::send`]; `NoAnswer` past the limit; `Stopped` when the actor died with the question.
    pub async fn ask<T>(
        &self,
        limit: Duration,
        request: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, KernelFault> {
        let (reply, answer) = Reply::channel();
        self.send(request(reply))?;
        self.answer(limit, answer).await
    }

    /// As [`Mailbox::ask`], with what a full queue must not refuse: the end of something that has begun.
    ///
    /// # Errors
    /// `NoAnswer` past the limit, and the message is still heard; `Stopped` when the actor died with it.
    pub async fn insist<T>(
        &self,
        limit: Duration,
        message: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, KernelFault> {
        let (reply, answer) = Reply::channel();
        self.tell(message(reply));
        self.answer(limit, answer).await
    }

    async fn answer<T>(
        &self,
        limit: Duration,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, KernelFault> {
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(KernelFault::Stopped { role: self.role }),
            Err(_elapsed) => Err(KernelFault::NoAnswer { role: self.role, limit }),
        }
    }
}

impl<M: Send + 'static> Watched for Mailbox<M> {
    fn role(&self) -> &'static str {
        self.role
    }

    fn depth(&self) -> usize {
        self.capacity - self.permits.available_permits()
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn knock(&self) {
        if let Some(reader) = self.reader.load().as_ref() {
            reader.knock();
        }
    }

    fn last_beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    fn is_alive(&self) -> bool {
        self.reader.load().as_ref().is_some_and(|reader| reader.is_alive())
    }

    fn kill(&self) {
        if let Some(reader) = self.reader.load().as_ref() {
            reader.kill();
        }
    }

    fn close(&self) {
        Self::close(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that lets everything wait.
    struct Idle;

    impl Reader for Idle {
        fn knock(&self) {}

        fn is_alive(&self) -> bool {
            true
        }

        fn kill(&self) {}
    }

    /// A reader made of a closure that is run at each knock.
    struct Handler<F>(F);

    impl<F: Fn() + Send + Sync> Reader for Handler<F> {
        fn knock(&self) {
            (self.0)();
        }

        fn is_alive(&self) -> bool {
            true
        }

        fn kill(&self) {}
    }

    #[test]
    fn a_full_queue_refuses_requests_and_takes_facts() {
        let mailbox = Mailbox::new("test", 2);
        mailbox.connect(Idle);
        assert_eq!(mailbox.send(1), Ok(()));
        assert_eq!(mailbox.send(2), Ok(()));
        let overloaded = KernelFault::Overloaded { role: "test", capacity: 2 };
        assert_eq!(mailbox.send(3), Err(overloaded));
        assert_eq!(mailbox.refused(), 1);
        mailbox.tell(4);
        assert_eq!(mailbox.depth(), 2, "facts take no place");
        for expected in [1, 2, 4] {
            assert_eq!(mailbox.take().map(|admitted| admitted.message), Some(expected));
        }
        assert_eq!(mailbox.depth(), 0);
        assert_eq!(mailbox.send(5), Ok(()));
    }

    #[test]
    fn a_role_that_nobody_reads_refuses_requests_and_keeps_facts() {
        let mailbox = Mailbox::new("test", 2);
        assert_eq!(mailbox.send(1), Err(KernelFault::Stopped { role: "test" }));
        assert_eq!(mailbox.depth(), 0, "a refused message gives its place back");
        mailbox.tell(2);
        mailbox.connect(Idle);
        assert_eq!(mailbox.send(3), Ok(()));
        mailbox.close();
        assert_eq!(mailbox.depth(), 0, "its asker is told by the drop");
        assert_eq!(mailbox.take().map(|admitted| admitted.message), Some(2));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn the_next_reader_is_woken_for_what_waits() {
        let mailbox = Mailbox::new("test", 4);
        mailbox.connect(Idle);
        mailbox.send(1).unwrap();
        mailbox.tell(2);
        let knocks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&knocks);
        mailbox.connect(Handler(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(knocks.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ask_ends_at_its_limit_or_with_its_actor() {
        let mailbox: Arc<Mailbox<Reply<u32>>> = Mailbox::new("test", 4);
        let limit = Duration::from_secs(5);
        mailbox.connect(Idle);
        let no_answer = KernelFault::NoAnswer { role: "test", limit };
        assert_eq!(mailbox.ask(limit, |reply| reply).await, Err(no_answer));
        drop(mailbox.take());
        let inner = Arc::clone(&mailbox);
        mailbox.connect(Handler(move || drop(inner.take())));
        let stopped = KernelFault::Stopped { role: "test" };
        assert_eq!(mailbox.ask(limit, |reply| reply).await, Err(stopped));
        let inner = Arc::clone(&mailbox);
        mailbox.connect(Handler(move || {
            if let Some(admitted) = inner.take() {
                admitted.message.send(7);
            }
        }));
        assert_eq!(mailbox.ask(limit, |reply| reply).await, Ok(7));
    }
}

//! Bounded queues with a role, and asks that always have a limit.
//!
//! ractor's mailboxes have no bound, so each message carries a permit that is given back when the handler is
//! done with it. A [`Mailbox`] names a role, not an incarnation: a supervisor swaps the sender inside when it
//! restarts the actor, and between two incarnations the role answers [`KernelFault::Stopped`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
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
pub trait Incarnation<M>: Send + Sync {
    /// Takes a message; `false` when this incarnation is gone.
    fn deliver(&self, message: Admitted<M>) -> bool;

    /// Whether it still handles messages.
    fn is_alive(&self) -> bool;
}

/// The bounded queue of one role.
pub struct Mailbox<M> {
    role: &'static str,
    capacity: usize,
    permits: Arc<Semaphore>,
    incarnation: ArcSwapOption<Box<dyn Incarnation<M>>>,
}

impl<M> std::fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("role", &self.role).finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Mailbox<M> {
    /// A queue nobody reads yet.
    #[must_use]
    pub fn new(role: &'static str, capacity: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(capacity));
        Arc::new(Self { role, capacity, permits, incarnation: ArcSwapOption::empty() })
    }

    /// Puts a new incarnation behind the role.
    pub fn connect(&self, incarnation: impl Incarnation<M> + 'static) {
        self.incarnation.store(Some(Arc::new(Box::new(incarnation))));
    }

    /// Sends a request.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full, `Stopped` when nobody reads it.
    pub fn send(&self, message: M) -> Result<(), KernelFault> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(KernelFault::Overloaded { role: self.role, capacity: self.capacity });
        };
        self.deliver(Admitted { message, permit: Some(permit) })
    }

    /// Sends a fact, which a full queue cannot refuse: what happened has happened.
    ///
    /// # Errors
    /// `Stopped` when nobody reads the queue.
    pub fn tell(&self, message: M) -> Result<(), KernelFault> {
        self.deliver(Admitted { message, permit: None })
    }

    fn deliver(&self, admitted: Admitted<M>) -> Result<(), KernelFault> {
        let incarnation = self.incarnation.load();
        let delivered = incarnation.as_ref().is_some_and(|it| it.deliver(admitted));
        if delivered { Ok(()) } else { Err(KernelFault::Stopped { role: self.role }) }
    }

    /// Asks and waits for the answer, at most `limit`.
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
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(KernelFault::Stopped { role: self.role }),
            Err(_elapsed) => Err(KernelFault::NoAnswer { role: self.role, limit }),
        }
    }

    /// Whether a living incarnation is behind the role. It may die right after.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.incarnation.load().as_ref().is_some_and(|it| it.is_alive())
    }

    /// Messages in the queue or being handled.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.capacity - self.permits.available_permits()
    }

    /// The role's name.
    #[must_use]
    pub fn role(&self) -> &'static str {
        self.role
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// An incarnation made of a closure; it never dies.
    struct Handler<F>(F);

    impl<M: Send, F: Fn(Admitted<M>) + Send + Sync> Incarnation<M> for Handler<F> {
        fn deliver(&self, message: Admitted<M>) -> bool {
            (self.0)(message);
            true
        }

        fn is_alive(&self) -> bool {
            true
        }
    }

    fn collecting<M: Send + 'static>(mailbox: &Mailbox<M>) -> Arc<Mutex<Vec<Admitted<M>>>> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&kept);
        mailbox.connect(Handler(move |admitted| sink.lock().unwrap().push(admitted)));
        kept
    }

    #[test]
    fn a_full_queue_refuses_requests_and_takes_facts() {
        let mailbox = Mailbox::new("test", 2);
        let kept = collecting(&mailbox);
        assert_eq!(mailbox.send(1), Ok(()));
        assert_eq!(mailbox.send(2), Ok(()));
        let overloaded = KernelFault::Overloaded { role: "test", capacity: 2 };
        assert_eq!(mailbox.send(3), Err(overloaded));
        assert_eq!(mailbox.tell(4), Ok(()));
        kept.lock().unwrap().clear();
        assert_eq!(mailbox.depth(), 0);
        assert_eq!(mailbox.send(5), Ok(()));
    }

    #[test]
    fn a_role_without_an_incarnation_says_so() {
        let mailbox = Mailbox::new("test", 1);
        assert_eq!(mailbox.send(1), Err(KernelFault::Stopped { role: "test" }));
        assert_eq!(mailbox.depth(), 0, "a refused message gives its place back");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ask_ends_at_its_limit_or_with_its_actor() {
        let mailbox: Arc<Mailbox<Reply<u32>>> = Mailbox::new("test", 4);
        let limit = Duration::from_secs(5);
        let _kept = collecting(&mailbox);
        let no_answer = KernelFault::NoAnswer { role: "test", limit };
        assert_eq!(mailbox.ask(limit, |reply| reply).await, Err(no_answer));
        mailbox.connect(Handler(drop));
        assert_eq!(
            mailbox.ask(limit, |reply| reply).await,
            Err(KernelFault::Stopped { role: "test" })
        );
        mailbox.connect(Handler(|admitted: Admitted<Reply<u32>>| admitted.message.send(7)));
        assert_eq!(mailbox.ask(limit, |reply| reply).await, Ok(7));
    }
}

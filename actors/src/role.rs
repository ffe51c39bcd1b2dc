//! The shell of every role: an actor that takes from its role's queue, one message each time it is woken.
//!
//! ```text
//! (started) ──knock──▶ beat, take, handle ──▶ (waiting) ──knock──▶ …
//!                          └─ Err or panic or kill: the supervisor starts the next incarnation
//! ```
//!
//! The queue is the mailbox's, so an incarnation that dies takes at most the one message it was handling with
//! it. A role says what it does; that it shows life, and that it is replaced, is the same for all.

use std::marker::PhantomData;
use std::sync::{Arc, LazyLock};

use ractor::{
    Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr, SupervisionEvent,
};
use themis_messages::mailbox::{Admitted, Mailbox, Reader};
use tokio::time::Instant;

/// What a role does with its messages.
pub trait Role: Sized + Send + 'static {
    /// What it is told.
    type Msg: Send + 'static;
    /// What each incarnation is given.
    type Seed: Clone + Send + Sync + 'static;

    /// A new incarnation. It does no work: a start that hangs would hang its supervisor.
    fn start(seed: Self::Seed) -> Self;

    /// Handles one message. Expected failures travel in its reply; an error ends this incarnation.
    fn handle(
        &mut self,
        me: &ActorCell,
        admitted: Admitted<Self::Msg>,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send;

    /// An actor linked below this one ended.
    fn child_ended(
        &mut self,
        _me: &ActorCell,
        _ended: Ended,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        async { Ok(()) }
    }
}

/// A linked actor that is no more.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub who: ActorCell,
    /// Why, for people.
    pub why: String,
}

/// Wakes an actor; whether a message waits is for it to see.
#[derive(Debug, Clone, Copy)]
pub struct Knock;

/// The one actor type of all roles.
struct Shell<R>(PhantomData<fn() -> R>);

struct Running<R: Role> {
    role: R,
    mailbox: Arc<Mailbox<R::Msg>>,
}

impl<R: Role> Actor for Shell<R> {
    type Msg = Knock;
    type State = Running<R>;
    type Arguments = (R::Seed, Arc<Mailbox<R::Msg>>);

    async fn pre_start(
        &self,
        _me: ActorRef<Knock>,
        (seed, mailbox): Self::Arguments,
    ) -> Result<Running<R>, ActorProcessingErr> {
        mailbox.beat(now());
        Ok(Running { role: R::start(seed), mailbox })
    }

    async fn handle(
        &self,
        me: ActorRef<Knock>,
        _knock: Knock,
        running: &mut Running<R>,
    ) -> Result<(), ActorProcessingErr> {
        running.mailbox.beat(now());
        match running.mailbox.take() {
            Some(admitted) => running.role.handle(&me.get_cell(), admitted).await,
            None => Ok(()),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Knock>,
        event: SupervisionEvent,
        running: &mut Running<R>,
    ) -> Result<(), ActorProcessingErr> {
        let ended = match event {
            SupervisionEvent::ActorFailed(who, error) => Ended { who, why: error.to_string() },
            SupervisionEvent::ActorTerminated(who, _state, reason) => {
                Ended { who, why: reason.unwrap_or_else(|| "it stopped".to_owned()) }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        running.role.child_ended(&me.get_cell(), ended).await
    }
}

/// Starts an incarnation of `R` below `supervisor` and puts it behind its role.
///
/// # Errors
/// [`SpawnErr`] when its start failed.
pub async fn spawn<R: Role>(
    seed: R::Seed,
    mailbox: &Arc<Mailbox<R::Msg>>,
    supervisor: ActorCell,
) -> Result<ActorCell, SpawnErr> {
    let arguments = (seed, Arc::clone(mailbox));
    let (actor, _ended) =
        Actor::spawn_linked(None, Shell::<R>(PhantomData), arguments, supervisor).await?;
    Ok(connect(actor, mailbox))
}

/// Starts the root of a tree; the second value ends with it.
///
/// # Errors
/// [`SpawnErr`] when its start failed.
pub async fn spawn_root<R: Role>(
    seed: R::Seed,
    mailbox: &Arc<Mailbox<R::Msg>>,
) -> Result<(ActorCell, impl Future<Output = ()> + Send + use<R>), SpawnErr> {
    let arguments = (seed, Arc::clone(mailbox));
    let (actor, ended) = Actor::spawn(None, Shell::<R>(PhantomData), arguments).await?;
    Ok((connect(actor, mailbox), async move { drop(ended.await) }))
}

fn connect<M: Send + 'static>(actor: ActorRef<Knock>, mailbox: &Mailbox<M>) -> ActorCell {
    let cell = actor.get_cell();
    mailbox.connect(Incarnation(actor));
    cell
}

struct Incarnation(ActorRef<Knock>);

impl Reader for Incarnation {
    fn knock(&self) {
        // A dead one is not woken; its successor is when it is connected.
        drop(self.0.cast(Knock));
    }

    fn is_alive(&self) -> bool {
        self.0.get_status() < ActorStatus::Draining
    }

    fn kill(&self) {
        self.0.kill();
    }
}

/// Milliseconds of the clock by which roles show life; it starts at 1, so that 0 is never.
#[must_use]
pub fn now() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

//! Who is restarted when it fails, and when that ends.
//!
//! ractor's own supervisor stops on any child's exit, even a normal one. This one restarts the child that
//! failed (one_for_one) while its intensity lasts; then it fails itself, which its own supervisor sees, or, for
//! children that must not take each other down, leaves that child dead.
//!
//! When a supervisor dies its children are stopped with it; its parent starts it again, and it starts its
//! fixed children. Children added later are added again by whoever needs them.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr,
    SupervisionEvent,
};
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{ASK_DEADLINE, RESTART_PERIOD, RESTARTS_MAX};
use themis_messages::mailbox::{Admitted, Incarnation, Mailbox, Reply};
use tokio::time::Instant;

pub mod policy;

use policy::{Intensity, RestartLog, Verdict};

/// A future that is boxed, as children of many kinds are started by one supervisor.
pub type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// How to start a child, as often as needed.
#[derive(Clone)]
pub struct ChildSpec {
    /// For logs.
    pub name: Arc<str>,
    start: Arc<dyn Fn(ActorCell) -> BoxFuture<Result<ActorCell, SpawnErr>> + Send + Sync>,
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ChildSpec {
    /// A child that reads `mailbox`; each incarnation gets arguments of its own and is put behind the role.
    pub fn role<A, M>(
        name: impl Into<Arc<str>>,
        mailbox: Arc<Mailbox<M>>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Msg = Admitted<M>>,
        M: Send + 'static,
    {
        let start = move |supervisor: ActorCell| -> BoxFuture<Result<ActorCell, SpawnErr>> {
            let (actor, arguments) = make();
            let mailbox = Arc::clone(&mailbox);
            Box::pin(async move {
                let (actor, _ended) =
                    Actor::spawn_linked(None, actor, arguments, supervisor).await?;
                let cell = actor.get_cell();
                mailbox.connect(RactorIncarnation(actor));
                Ok(cell)
            })
        };
        Self { name: name.into(), start: Arc::new(start) }
    }

    /// A supervisor with fixed children; started means all of them are.
    pub fn supervisor(
        name: &'static str,
        mailbox: Arc<Mailbox<SupervisorMsg>>,
        spent: Spent,
        children: Vec<Self>,
    ) -> Self {
        let start = move |parent: ActorCell| -> BoxFuture<Result<ActorCell, SpawnErr>> {
            let mailbox = Arc::clone(&mailbox);
            let children = children.clone();
            Box::pin(async move {
                let arguments = Arguments { name, spent };
                let (actor, _ended) =
                    Actor::spawn_linked(None, Supervisor, arguments, parent).await?;
                let cell = actor.get_cell();
                mailbox.connect(RactorIncarnation(actor));
                for child in children {
                    let started = mailbox
                        .ask(ASK_DEADLINE, |reply| SupervisorMsg::Start { child, reply })
                        .await
                        .and_then(|started| started);
                    started.map_err(|fault| SpawnErr::StartupFailed(Box::new(fault)))?;
                }
                Ok(cell)
            })
        };
        Self { name: name.into(), start: Arc::new(start) }
    }
}

/// A ractor actor behind a role.
pub(crate) struct RactorIncarnation<M: Send + 'static>(pub(crate) ActorRef<Admitted<M>>);

impl<M: Send + 'static> Incarnation<M> for RactorIncarnation<M> {
    fn deliver(&self, message: Admitted<M>) -> bool {
        self.0.cast(message).is_ok()
    }

    fn is_alive(&self) -> bool {
        self.0.get_status() < ActorStatus::Draining
    }
}

/// What to do when a child's intensity is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// Fail as well: the children only make sense together.
    Escalate,
    /// Leave that child dead: its siblings are none of its business.
    LeaveDead,
}

/// What a supervisor is asked.
#[derive(Debug)]
pub enum SupervisorMsg {
    /// Starts a child and watches over it.
    Start {
        /// The child.
        child: ChildSpec,
        /// Whether it started.
        reply: Reply<Result<(), KernelFault>>,
    },
}

/// Name and policy of one supervisor.
#[derive(Debug, Clone, Copy)]
pub struct Arguments {
    name: &'static str,
    spent: Spent,
}

/// Restarts its children one by one.
#[derive(Debug)]
pub struct Supervisor;

impl Supervisor {
    /// Name and policy of a supervisor that is started by hand: the root.
    #[must_use]
    pub fn arguments(name: &'static str, spent: Spent) -> Arguments {
        Arguments { name, spent }
    }
}

/// The children and how often they failed.
#[derive(Debug)]
pub struct State {
    arguments: Arguments,
    since: Instant,
    children: HashMap<ActorId, (ChildSpec, RestartLog)>,
    /// Used when failures escalate: the children share one intensity.
    together: RestartLog,
}

/// The intensity of every node; the product along a path stays small because there are two levels.
const INTENSITY: Intensity = Intensity { restarts: RESTARTS_MAX, period: RESTART_PERIOD };

impl Actor for Supervisor {
    type Msg = Admitted<SupervisorMsg>;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (children, together) = (HashMap::new(), RestartLog::default());
        Ok(State { arguments, since: Instant::now(), children, together })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        admitted: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisorMsg::Start { child, reply } = admitted.message;
        let started = state.start(child, RestartLog::default(), myself.get_cell()).await;
        reply.send(started.map_err(|error| {
            tracing::error!(%error, "a child did not start");
            KernelFault::Stopped { role: state.arguments.name }
        }));
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (who, why) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, error.to_string()),
            SupervisionEvent::ActorTerminated(who, _state, reason) => {
                (who, reason.unwrap_or_else(|| "it stopped".to_owned()))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        state.child_ended(who.get_id(), &why, myself.get_cell()).await
    }
}

impl State {
    async fn start(
        &mut self,
        child: ChildSpec,
        log: RestartLog,
        supervisor: ActorCell,
    ) -> Result<(), SpawnErr> {
        let cell = (child.start)(supervisor).await?;
        self.children.insert(cell.get_id(), (child, log));
        Ok(())
    }

    async fn child_ended(
        &mut self,
        who: ActorId,
        why: &str,
        supervisor: ActorCell,
    ) -> Result<(), ActorProcessingErr> {
        let Some((child, mut log)) = self.children.remove(&who) else { return Ok(()) };
        let now = self.since.elapsed();
        let verdict = match self.arguments.spent {
            Spent::Escalate => self.together.decide(now, INTENSITY),
            Spent::LeaveDead => log.decide(now, INTENSITY),
        };
        let (name, under) = (&child.name, self.arguments.name);
        match (verdict, self.arguments.spent) {
            (Verdict::Restart, _) => {
                tracing::warn!(child = %name, under, why, "an actor failed and is restarted");
                metrics::counter!("themis_restarts_total", "supervisor" => under).increment(1);
                self.start(child, log, supervisor).await?;
                Ok(())
            }
            (Verdict::GiveUp, Spent::LeaveDead) => {
                tracing::error!(child = %name, under, why, "an actor failed too often and stays down");
                Ok(())
            }
            (Verdict::GiveUp, Spent::Escalate) => {
                tracing::error!(child = %name, under, why, "actors fail too often: giving up");
                Err(format!("{under}: {name} failed too often, last: {why}").into())
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Who is restarted when it fails, after how long, and when that ends.
//!
//! ractor's own supervisor stops on any child's exit, even a normal one. This one restarts children by its
//! node's [`Strategy`], with back-off, while the node's intensity lasts; then it fails itself, which its own
//! supervisor sees, or, for children that must not take each other down, leaves that child dead.
//!
//! ```text
//! running ──ended──▶ waiting ──back-off over──▶ running
//!    │                                 └─ does not start: as if it had ended
//!    └──ended, intensity spent──▶ left dead (its queue closes)   or   this supervisor fails
//! ```
//!
//! When a supervisor dies its children die with it; its parent starts it again, and it starts the children that
//! its node lists then.

use std::sync::Arc;

use ractor::{ActorCell, ActorId, ActorProcessingErr, SpawnErr};
use themis_messages::event::LifecycleEvent;
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{
    ASK_DEADLINE, RESTART_PERIOD, RESTART_WAIT_FIRST, RESTART_WAIT_LONGEST, RESTARTS_MAX,
};
use themis_messages::mailbox::{Admitted, Mailbox, Reply, Watched};
use tokio::time::Instant;

use crate::events::Events;
use crate::role::{self, Ended, Role};

pub mod policy;

use policy::{Backoff, Intensity, RestartLog, Strategy, Verdict};

/// A future that is boxed, as children of many kinds are started by one supervisor.
pub type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

type Start = dyn Fn(ActorCell) -> BoxFuture<Result<ActorCell, SpawnErr>> + Send + Sync;

/// How to start a child, as often as needed.
#[derive(Clone)]
pub struct ChildSpec {
    /// For logs; a child of the same name replaces a dead one.
    pub name: Arc<str>,
    start: Arc<Start>,
    queue: Arc<dyn Watched>,
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ChildSpec {
    /// A child that reads `mailbox`; each incarnation gets a copy of `seed` and is put behind the role.
    pub fn role<R: Role>(
        name: impl Into<Arc<str>>,
        mailbox: &Arc<Mailbox<R::Msg>>,
        seed: R::Seed,
    ) -> Self {
        let queue = Arc::clone(mailbox);
        let start = move |supervisor: ActorCell| -> BoxFuture<Result<ActorCell, SpawnErr>> {
            let (seed, mailbox) = (seed.clone(), Arc::clone(&queue));
            Box::pin(async move { role::spawn::<R>(seed, &mailbox, supervisor).await })
        };
        let queue: Arc<dyn Watched> = Arc::<Mailbox<R::Msg>>::clone(mailbox);
        Self { name: name.into(), start: Arc::new(start), queue }
    }

    /// A supervisor; started means that the children it lists then are.
    pub fn supervisor(
        mailbox: &Arc<Mailbox<SupervisorMsg>>,
        node: Node,
        events: Events,
        children: impl Fn() -> Vec<Self> + Send + Sync + 'static,
    ) -> Self {
        let queue = Arc::clone(mailbox);
        let start = move |parent: ActorCell| -> BoxFuture<Result<ActorCell, SpawnErr>> {
            let (mailbox, children) = (Arc::clone(&queue), children());
            let seed = Seed { node, mailbox: Arc::clone(&mailbox), events: events.clone() };
            Box::pin(async move {
                let cell = role::spawn::<Supervisor>(seed, &mailbox, parent).await?;
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
        let queue: Arc<dyn Watched> = Arc::<Mailbox<SupervisorMsg>>::clone(mailbox);
        Self { name: node.name.into(), start: Arc::new(start), queue }
    }
}

/// What to do when the intensity is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// Fail as well: the children share one intensity.
    Escalate,
    /// Leave that child dead: its siblings are none of its business, and each has an intensity of its own.
    LeaveDead,
}

/// Name and policy of one supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// For logs and metrics.
    pub name: &'static str,
    /// Whom a failed child takes with it.
    pub strategy: Strategy,
    /// How often children may fail.
    pub intensity: Intensity,
    /// How long a restart waits.
    pub backoff: Backoff,
    /// What comes after.
    pub spent: Spent,
}

impl Node {
    /// A node with the intensity and back-off that all nodes of the kernel have.
    #[must_use]
    pub const fn new(name: &'static str, strategy: Strategy, spent: Spent) -> Self {
        let intensity = Intensity { restarts: RESTARTS_MAX, period: RESTART_PERIOD };
        let backoff = Backoff { first: RESTART_WAIT_FIRST, longest: RESTART_WAIT_LONGEST };
        Self { name, strategy, intensity, backoff, spent }
    }
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
    /// The back-off of these children is over.
    Due {
        /// Their names.
        children: Vec<Arc<str>>,
    },
}

/// What a supervisor is given.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its policy.
    pub node: Node,
    /// Its own queue, for its timers.
    pub mailbox: Arc<Mailbox<SupervisorMsg>>,
    /// Who is told of restarts.
    pub events: Events,
}

/// Restarts its children.
#[derive(Debug)]
pub struct Supervisor {
    seed: Seed,
    since: Instant,
    /// In the order they were started.
    children: Vec<Child>,
    /// Used when failures escalate.
    together: RestartLog,
}

#[derive(Debug)]
struct Child {
    spec: ChildSpec,
    log: RestartLog,
    /// The living incarnation; none while it waits or is left dead.
    running: Option<ActorCell>,
    /// Its restart is due after a back-off.
    waiting: bool,
}

impl Role for Supervisor {
    type Msg = SupervisorMsg;
    type Seed = Seed;

    fn start(seed: Seed) -> Self {
        let (children, together) = (Vec::new(), RestartLog::default());
        Self { seed, since: Instant::now(), children, together }
    }

    async fn handle(
        &mut self,
        me: &ActorCell,
        admitted: Admitted<SupervisorMsg>,
    ) -> Result<(), ActorProcessingErr> {
        match admitted.message {
            SupervisorMsg::Start { child, reply } => {
                reply.send(self.add(me, child).await);
                Ok(())
            }
            SupervisorMsg::Due { children } => {
                for name in children {
                    let waiting = |it: &Child| it.spec.name == name && it.running.is_none();
                    if let Some(index) = self.children.iter().position(waiting) {
                        self.start_child(me, index).await?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn child_ended(
        &mut self,
        me: &ActorCell,
        ended: Ended,
    ) -> Result<(), ActorProcessingErr> {
        let id: ActorId = ended.who.get_id();
        let is_it = |child: &Child| child.running.as_ref().is_some_and(|it| it.get_id() == id);
        match self.children.iter().position(is_it) {
            // Stopped here on purpose, beside one that failed.
            None => Ok(()),
            Some(index) => self.failed(me, index, &ended.why).await,
        }
    }
}

impl Supervisor {
    async fn add(&mut self, me: &ActorCell, spec: ChildSpec) -> Result<(), KernelFault> {
        let stopped = KernelFault::Stopped { role: self.seed.node.name };
        let known = self.children.iter().position(|child| child.spec.name == spec.name);
        let log = match known {
            // A second start of what runs or is about to would make two of it.
            Some(index) if self.children[index].running.is_some() => return Ok(()),
            Some(index) if self.children[index].waiting => return Ok(()),
            // Whoever asks for it again wants a fresh try.
            Some(index) => {
                self.children.remove(index);
                RestartLog::default()
            }
            None => RestartLog::default(),
        };
        let started = (spec.start)(me.clone()).await;
        let running = started.map_err(|error| {
            tracing::error!(child = %spec.name, %error, "a child did not start");
            stopped
        })?;
        self.children.push(Child { spec, log, running: Some(running), waiting: false });
        Ok(())
    }

    /// Starts a known child; one that does not start has failed again.
    async fn start_child(
        &mut self,
        me: &ActorCell,
        index: usize,
    ) -> Result<(), ActorProcessingErr> {
        let child = &mut self.children[index];
        child.waiting = false;
        let started = (child.spec.start)(me.clone()).await;
        match started {
            Ok(cell) => {
                self.children[index].running = Some(cell);
                Ok(())
            }
            Err(error) => Box::pin(self.failed(me, index, &error.to_string())).await,
        }
    }

    async fn failed(
        &mut self,
        me: &ActorCell,
        index: usize,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Seed { node, .. } = self.seed;
        let now = self.since.elapsed();
        let child = &mut self.children[index];
        child.running = None;
        let name = Arc::clone(&child.spec.name);
        let log = match node.spent {
            Spent::Escalate => &mut self.together,
            Spent::LeaveDead => &mut child.log,
        };
        match (log.decide(now, node.intensity), node.spent) {
            (Verdict::Restart { earlier }, _) => {
                let wait = node.backoff.wait(earlier);
                tracing::warn!(child = %name, under = node.name, why, ?wait, "an actor failed and is restarted");
                metrics::counter!("themis_restarts_total", "supervisor" => node.name).increment(1);
                self.seed
                    .events
                    .emit(LifecycleEvent::ActorRestarted { actor: name.to_string(), wait });
                self.restart_from(me, index, wait).await
            }
            (Verdict::GiveUp, Spent::LeaveDead) => {
                tracing::error!(child = %name, under = node.name, why, "an actor failed too often and stays down");
                self.children[index].spec.queue.close();
                Ok(())
            }
            (Verdict::GiveUp, Spent::Escalate) => {
                tracing::error!(child = %name, under = node.name, why, "actors fail too often: giving up");
                Err(format!("{}: {name} failed too often, last: {why}", node.name).into())
            }
        }
    }

    /// Ends the children that the failed one takes with it, last first, and starts them all when `wait` is over.
    async fn restart_from(
        &mut self,
        me: &ActorCell,
        index: usize,
        wait: std::time::Duration,
    ) -> Result<(), ActorProcessingErr> {
        let affected = self.seed.node.strategy.affected(index, self.children.len());
        for other in affected.clone().rev() {
            self.children[other].waiting = true;
            if let Some(cell) = self.children[other].running.take() {
                cell.kill();
            }
        }
        if wait.is_zero() {
            for other in affected {
                self.start_child(me, other).await?;
            }
            return Ok(());
        }
        let children = self.children[affected].iter().map(|it| Arc::clone(&it.spec.name)).collect();
        let mailbox = Arc::clone(&self.seed.mailbox);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            mailbox.tell(SupervisorMsg::Due { children });
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Starting and stopping all actors in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ractor::ActorCell;
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::event::LifecycleEvent;
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{ASK_DEADLINE, AUDIT_DEADLINE, SHUTDOWN_DEADLINE};
use themis_messages::mailbox::{Mailbox, Reply};
use themis_persistence::store::Store;
use tokio::sync::watch;

use crate::ab::manager::{self, Manager};
use crate::audit::{Audit, AuditMsg, Tail};
use crate::catalog::{self, Catalog};
use crate::coordinator::Coordinator;
use crate::environment::Environment;
use crate::plugin::PluginMsg;
use crate::registry::client::RegistryClient;
use crate::role;
use crate::store::StoreActor;
use crate::supervision::policy::Strategy;
use crate::supervision::{ChildSpec, Node, Seed, Spent, Supervisor, SupervisorMsg};
use crate::watchdog::{self, Watchdog};

/// Every supervisor of the kernel, with its policy.
pub mod nodes {
    use super::{Node, Spent, Strategy};

    /// The root. When its intensity is spent the kernel reports itself failed; the host goes on.
    pub const KERNEL: Node = Node::new("kernel", Strategy::OneForOne, Spent::Escalate);
    /// Store, audit and the marketplace's client. The log is opened again when the store's actor failed: it reads back what is on the disk.
    pub const SERVICES: Node = Node::new("services", Strategy::RestForOne, Spent::Escalate);
    /// The plugins' actors, each with an intensity of its own.
    pub const PLUGINS: Node = Node::new("plugins", Strategy::OneForOne, Spent::LeaveDead);
    /// Catalog, coordinator, experiments, watchdog: none takes anything from another.
    pub const CONTROL: Node = Node::new("control", Strategy::OneForOne, Spent::Escalate);
}

/// Whether the tree stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Running,
    /// Actors failed faster than they may: no lifecycle request is taken, loaded plugins go on serving.
    Failed,
    /// It was stopped.
    Stopped,
}

/// The running actors.
#[derive(Debug)]
pub struct Tree {
    environment: Arc<Environment>,
    root: ActorCell,
    health: watch::Receiver<Health>,
    stopping: Arc<AtomicBool>,
}

impl Tree {
    /// Starts every actor; when this returns they answer.
    ///
    /// # Errors
    /// [`KernelFault`] when one did not start.
    pub async fn start(
        environment: Arc<Environment>,
        store: Arc<Store>,
    ) -> Result<Self, KernelFault> {
        let mailbox = Mailbox::new("kernel", 8);
        let (node, events) = (nodes::KERNEL, environment.events.clone());
        let seed = Seed { node, mailbox: Arc::clone(&mailbox), events };
        let started = role::spawn_root::<Supervisor>(seed, &mailbox).await;
        let (root, ended) = started.map_err(|error| {
            tracing::error!(%error, "the root supervisor did not start");
            KernelFault::Stopped { role: "kernel" }
        })?;
        let (sender, health) = watch::channel(Health::Running);
        let stopping = Arc::new(AtomicBool::new(false));
        let (asked, watched) = (Arc::clone(&stopping), Arc::clone(&environment));
        tokio::spawn(async move {
            ended.await;
            let asked = asked.load(Ordering::SeqCst);
            let health = if asked { Health::Stopped } else { Health::Failed };
            close_queues(&watched);
            if !asked {
                tracing::error!("the kernel has failed: loaded plugins go on, nothing else will");
                watched.events.emit(LifecycleEvent::KernelFailed);
            }
            sender.send_replace(health);
        });
        let tree = Self { environment, root, health, stopping };
        for child in tree.children(&store) {
            mailbox.ask(SHUTDOWN_DEADLINE, |reply| SupervisorMsg::Start { child, reply }).await??;
        }
        tokio::spawn(manager::tick(Arc::downgrade(&tree.environment)));
        tokio::spawn(watchdog::tick(Arc::downgrade(&tree.environment)));
        let entry = AuditEntry::new(AuditEvent::Start, AuditOutcome::Done, "kernel");
        tree.environment.record(entry).await?;
        Ok(tree)
    }

    /// Services, Plugins and Control, in the order they start.
    fn children(&self, store: &Arc<Store>) -> [ChildSpec; 3] {
        let environment = &self.environment;
        let (again, stored) = (Arc::clone(environment), Arc::clone(store));
        let tail = Tail::default();
        let services = move || {
            let (roles, store) = (&again.roles, &stored);
            let audit = (Arc::clone(store), tail.clone());
            vec![
                ChildSpec::role::<StoreActor>("store", &roles.store, Arc::clone(store)),
                ChildSpec::role::<Audit>("audit", &roles.audit, audit),
                ChildSpec::role::<RegistryClient>("registry", &roles.registry, Arc::clone(&again)),
            ]
        };
        let again = Arc::clone(environment);
        let plugins = move || catalog::plugin_actors(&again);
        let again = Arc::clone(environment);
        let control = move || {
            let (roles, seed) = (&again.roles, || Arc::clone(&again));
            vec![
                ChildSpec::role::<Catalog>("catalog", &roles.catalog, seed()),
                ChildSpec::role::<Coordinator>("coordinator", &roles.coordinator, seed()),
                ChildSpec::role::<Manager>("experiments", &roles.experiments, seed()),
                ChildSpec::role::<Watchdog>("watchdog", &roles.watchdog, seed()),
            ]
        };
        let (roles, events) = (&environment.roles, || environment.events.clone());
        [
            ChildSpec::supervisor(&roles.services, nodes::SERVICES, events(), services),
            ChildSpec::supervisor(&roles.plugins, nodes::PLUGINS, events(), plugins),
            ChildSpec::supervisor(&roles.control, nodes::CONTROL, events(), control),
        ]
    }

    /// Whether the tree stands; changes once at most.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Unloads every plugin, makes the log durable, stops every actor. Takes at most
    /// [`SHUTDOWN_DEADLINE`]; a plugin that does not end is left as it is.
    pub async fn stop(self) {
        let until = Instant::now() + SHUTDOWN_DEADLINE;
        self.stopping.store(true, Ordering::SeqCst);
        if *self.health.borrow() == Health::Failed {
            tracing::error!(
                "the kernel has failed: its plugins end with the process, without a shutdown"
            );
        } else {
            self.unload_all(until).await;
        }
        let environment = &self.environment;
        environment.note(AuditEntry::new(AuditEvent::Stop, AuditOutcome::Done, "kernel"));
        let closed = environment.roles.audit.ask(AUDIT_DEADLINE, |reply| AuditMsg::Close { reply });
        if let Err(fault) = closed.await {
            tracing::error!(%fault, "the audit log was not closed in good order");
        }
        if let Err(error) = self.root.stop_and_wait(None, Some(ASK_DEADLINE)).await {
            tracing::error!(%error, "the actors did not stop in time");
        }
    }

    /// All at once: each drains on its own.
    async fn unload_all(&self, until: Instant) {
        let mut leaving = Vec::new();
        for slot in self.environment.directory.slots() {
            let (reply, answer) = Reply::channel();
            let actor = "kernel".to_owned();
            slot.mailbox().tell(PluginMsg::Unload { actor, reply });
            leaving.push((slot, answer));
        }
        for (slot, answer) in leaving {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::ZERO);
            if tokio::time::timeout(left, answer).await.is_err() {
                tracing::warn!(plugin = %slot.name(), "did not end before the kernel stopped");
            }
        }
    }
}

/// Nobody will answer any more: whoever asks is told at once.
fn close_queues(environment: &Environment) {
    for role in environment.roles.all() {
        role.close();
    }
    for slot in environment.directory.slots() {
        slot.mailbox().close();
    }
}

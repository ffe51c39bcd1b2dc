//! Starting and stopping all actors in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorRef};
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{ASK_DEADLINE, AUDIT_DEADLINE, SHUTDOWN_DEADLINE};
use themis_messages::mailbox::{Admitted, Mailbox, Reply};
use themis_persistence::store::Store;
use tokio::sync::watch;

use crate::audit::{Audit, AuditMsg, Tail};
use crate::catalog::Catalog;
use crate::coordinator::Coordinator;
use crate::environment::Environment;
use crate::plugin::PluginMsg;
use crate::store::StoreActor;
use crate::supervision::{ChildSpec, RactorIncarnation, Spent, Supervisor, SupervisorMsg};

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
    root: ActorRef<Admitted<SupervisorMsg>>,
    health: watch::Receiver<Health>,
    stopping: Arc<std::sync::atomic::AtomicBool>,
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
        let stopped = |role| KernelFault::Stopped { role };
        let arguments = Supervisor::arguments("kernel", Spent::Escalate);
        let (root, ended) = Actor::spawn(None, Supervisor, arguments).await.map_err(|error| {
            tracing::error!(%error, "the root supervisor did not start");
            stopped("kernel")
        })?;
        let (sender, health) = watch::channel(Health::Running);
        let stopping = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = Arc::clone(&stopping);
        tokio::spawn(async move {
            drop(ended.await);
            let asked = asked.load(std::sync::atomic::Ordering::SeqCst);
            if !asked {
                tracing::error!("the kernel has failed: loaded plugins go on, nothing else will");
            }
            sender.send_replace(if asked { Health::Stopped } else { Health::Failed });
        });
        let mailbox = Mailbox::new("kernel", 8);
        mailbox.connect(RactorIncarnation(root.clone()));
        let tree = Self { environment, root, health, stopping };
        for child in tree.children(&store) {
            mailbox.ask(SHUTDOWN_DEADLINE, |reply| SupervisorMsg::Start { child, reply }).await??;
        }
        let entry = AuditEntry::new(AuditEvent::Start, AuditOutcome::Done, "kernel");
        tree.environment.record(entry).await?;
        Ok(tree)
    }

    /// Services, Plugins and Control, in the order they start.
    fn children(&self, store: &Arc<Store>) -> [ChildSpec; 3] {
        let roles = &self.environment.roles;
        let (for_store, for_audit) = (Arc::clone(store), Arc::clone(store));
        let tail = Tail::default();
        let services = vec![
            ChildSpec::role("store", Arc::clone(&roles.store), move || {
                (StoreActor, Arc::clone(&for_store))
            }),
            ChildSpec::role("audit", Arc::clone(&roles.audit), move || {
                (Audit, (Arc::clone(&for_audit), tail.clone()))
            }),
        ];
        let (for_catalog, for_coordinator) =
            (Arc::clone(&self.environment), Arc::clone(&self.environment));
        let control = vec![
            ChildSpec::role("catalog", Arc::clone(&roles.catalog), move || {
                (Catalog, Arc::clone(&for_catalog))
            }),
            ChildSpec::role("coordinator", Arc::clone(&roles.coordinator), move || {
                (Coordinator, Arc::clone(&for_coordinator))
            }),
        ];
        let node = |name, spent, children| {
            ChildSpec::supervisor(name, Mailbox::new(name, 64), spent, children)
        };
        let plugins = Arc::clone(&roles.plugins);
        [
            node("services", Spent::Escalate, services),
            ChildSpec::supervisor("plugins", plugins, Spent::LeaveDead, Vec::new()),
            node("control", Spent::Escalate, control),
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
        self.stopping.store(true, std::sync::atomic::Ordering::SeqCst);
        self.unload_all(until).await;
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
            if slot.mailbox().tell(PluginMsg::Unload { actor, reply }).is_ok() {
                leaving.push((slot, answer));
            }
        }
        for (slot, answer) in leaving {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::ZERO);
            if tokio::time::timeout(left, answer).await.is_err() {
                tracing::warn!(plugin = %slot.name(), "did not end before the kernel stopped");
            }
        }
    }
}

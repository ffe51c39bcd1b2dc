//! What every actor is given when it starts: the operator's choices and the ways to the other roles.
//!
//! Nothing here changes while the kernel runs, but for the number of the next generation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use themis_messages::audit::AuditEntry;
use themis_messages::ids::{GenerationId, PluginName};
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{
    AUDIT_DEADLINE, AUDIT_QUEUE, CATALOG_QUEUE, COORDINATOR_QUEUE, PLUGIN_QUEUE,
};
use themis_messages::mailbox::Mailbox;
use themis_sandbox::admission::{PluginRoot, Policy};

use crate::audit::AuditMsg;
use crate::catalog::CatalogMsg;
use crate::coordinator::CoordinatorMsg;
use crate::store::StoreMsg;
use crate::supervision::SupervisorMsg;

/// The operator's choices.
#[derive(Debug)]
pub struct Settings {
    /// Where plugins lie.
    pub root: PluginRoot,
    /// Who and what may load.
    pub policy: Policy,
    /// A private directory for executable copies where memory files may not be executed.
    pub scratch: PathBuf,
    /// The operator's configuration of each plugin, laid over the manifest's.
    pub plugin_config: BTreeMap<PluginName, serde_json::Map<String, serde_json::Value>>,
    /// Limit of each hook.
    pub hook_deadline: Duration,
    /// How long a caller waits for a plugin that takes one call at a time.
    pub serial_wait: Duration,
    /// After this a replaced generation that is still leased is reported.
    pub drain_limit: Duration,
}

/// The queues of all roles, by role and not by incarnation.
#[derive(Debug, Clone)]
pub struct Roles {
    /// The open database.
    pub store: Arc<Mailbox<StoreMsg>>,
    /// The tail of the log.
    pub audit: Arc<Mailbox<AuditMsg>>,
    /// Starts the actors of plugins.
    pub plugins: Arc<Mailbox<SupervisorMsg>>,
    /// Which names exist.
    pub catalog: Arc<Mailbox<CatalogMsg>>,
    /// Accepts lifecycle requests.
    pub coordinator: Arc<Mailbox<CoordinatorMsg>>,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            store: Mailbox::new("store", CATALOG_QUEUE),
            audit: Mailbox::new("audit", AUDIT_QUEUE),
            plugins: Mailbox::new("plugins", PLUGIN_QUEUE),
            catalog: Mailbox::new("catalog", CATALOG_QUEUE),
            coordinator: Mailbox::new("coordinator", COORDINATOR_QUEUE),
        }
    }
}

/// Given to every actor.
#[derive(Debug)]
pub struct Environment {
    /// The operator's choices.
    pub settings: Settings,
    /// The ways to the other roles.
    pub roles: Roles,
    /// Names that exist, as readers see them.
    pub directory: crate::catalog::Directory,
    next_generation: AtomicU64,
}

impl Environment {
    /// Before any actor has started.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            roles: Roles::default(),
            directory: crate::catalog::Directory::default(),
            next_generation: AtomicU64::new(1),
        })
    }

    /// A number no generation of this kernel had.
    #[must_use]
    pub fn next_generation(&self) -> GenerationId {
        GenerationId(self.next_generation.fetch_add(1, Ordering::Relaxed))
    }

    /// Appends to the audit log and waits until the record is durable.
    ///
    /// # Errors
    /// [`KernelFault`]: then the record may be lost, and what it tells must not stand.
    pub async fn record(&self, entry: AuditEntry) -> Result<u64, KernelFault> {
        self.roles
            .audit
            .ask(AUDIT_DEADLINE, |reply| AuditMsg::Append { entry, durable: Some(reply) })
            .await?
    }

    /// Waits until everything appended before can be read.
    ///
    /// # Errors
    /// [`KernelFault`].
    pub async fn settle_audit(&self) -> Result<(), KernelFault> {
        self.roles.audit.ask(AUDIT_DEADLINE, |reply| AuditMsg::Settle { reply }).await
    }

    /// Appends to the audit log without waiting for the disk.
    pub fn note(&self, entry: AuditEntry) {
        let event = entry.event;
        if let Err(fault) = self.roles.audit.tell(AuditMsg::Append { entry, durable: None }) {
            tracing::error!(?event, %fault, "an event could not be given to the audit log");
            metrics::counter!("themis_audit_lost_total").increment(1);
        }
    }
}

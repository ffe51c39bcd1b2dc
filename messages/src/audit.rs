//! The records of the tamper-evident log.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, GenerationId, KeyId, PluginName, PluginVersion, Tier};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::EnumIter)]
#[serde(rename_all = "kebab-case")]
pub enum AuditEvent {
    /// The kernel started.
    Start,
    /// The kernel stopped in good order.
    Stop,
    /// A plugin was found and verified, or refused, below the plugin root.
    Discover,
    /// First version of a plugin.
    Load,
    /// A new version in place of another.
    Reload,
    /// The previous version again.
    Rollback,
    /// A plugin stopped serving.
    Unload,
    /// A replaced generation ended: its last lease was returned and its shutdown hook ran.
    Retire,
    /// A plugin was quarantined.
    Quarantine,
    /// A quarantined image may be loaded again.
    Release,
    /// The same version again in a new instance.
    Restart,
    /// A version failed its probation, and the one before serves again.
    SwapBack,
    /// A version passed its probation.
    Settle,
    /// The first call that a version answered.
    FirstCall,
    /// The process of a generation ended by itself, or was killed for what it did.
    WorkerEnd,
    /// An experiment began, or ended in whichever way.
    Experiment,
    /// A bundle was fetched from the registry, or what came was not it.
    Fetch,
    /// A plugin from the registry was put in its place, or an installation failed.
    Install,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutcome {
    /// About to be tried.
    Intent,
    /// Done.
    Done,
    /// Refused before any code of the plugin ran.
    Refused,
    /// Tried and failed.
    Failed,
}

/// What an actor says happened; the log adds sequence, time and chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// What happened.
    pub event: AuditEvent,
    /// How far it came.
    pub outcome: AuditOutcome,
    /// Who asked: "host", "admin uid 1000", "kernel".
    pub actor: String,
    /// The plugin, when it is known by a valid name.
    pub plugin: Option<PluginName>,
    /// The version.
    pub version: Option<PluginVersion>,
    /// Digest of the image.
    pub digest: Option<Digest>,
    /// The key it was signed with.
    pub key_id: Option<KeyId>,
    /// The tier.
    pub tier: Option<Tier>,
    /// The generation.
    pub generation: Option<GenerationId>,
    /// Stable code of a refusal or failure.
    pub code: Option<String>,
    /// The sentence for people; cut at [`AUDIT_REASON_BYTES_MAX`](crate::limits::AUDIT_REASON_BYTES_MAX).
    pub reason: Option<String>,
}

impl AuditEntry {
    /// An entry with nothing but what happened and how far it came.
    #[must_use]
    pub fn new(event: AuditEvent, outcome: AuditOutcome, actor: impl Into<String>) -> Self {
        Self {
            event,
            outcome,
            actor: actor.into(),
            plugin: None,
            version: None,
            digest: None,
            key_id: None,
            tier: None,
            generation: None,
            code: None,
            reason: None,
        }
    }
}

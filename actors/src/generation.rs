//! One initialised instance of a verified image, with what its manifest says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use themis_messages::ids::{Digest, GenerationId, KeyId, PluginName, PluginVersion, Tier};
use themis_messages::instance::{HookError, Instance};
use themis_messages::limits::HOOK_KILL_GRACE;
use themis_messages::manifest::Manifest;

use crate::telemetry::Counted;
use crate::usage::Sampled;

/// Runs the init hook of a mapped image once more; it blocks for as long as that does.
#[derive(Clone)]
pub(crate) struct Again(Arc<dyn Fn() -> Result<Arc<dyn Instance>, HookError> + Send + Sync>);

impl Again {
    pub(crate) fn new(
        init: impl Fn() -> Result<Arc<dyn Instance>, HookError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(init))
    }

    pub(crate) fn init(&self) -> Result<Arc<dyn Instance>, HookError> {
        (self.0)()
    }
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Again")
    }
}

/// How long to wait for a hook that may take `limit`: a tier that ends an overdue hook itself is waited for a little
/// longer, so that it can say so.
pub(crate) fn patience(tier: Tier, limit: Duration) -> Duration {
    match tier {
        Tier::Process | Tier::Wasm => limit + HOOK_KILL_GRACE,
        Tier::InProcess => limit,
    }
}

/// An immutable, initialised version of a plugin. Kept warm while a rollback may need it.
#[derive(Debug)]
pub struct Generation {
    /// Never reused within a kernel.
    pub id: GenerationId,
    /// What the plugin says of itself, verified.
    pub manifest: Arc<Manifest>,
    /// Where it runs.
    pub tier: Tier,
    /// Digest of the image's file.
    pub digest: Digest,
    /// Digest of the manifest; `None` for a detached binary.
    pub manifest_digest: Option<Digest>,
    /// The key it was signed with.
    pub key_id: KeyId,
    /// Where it was loaded from, for people.
    pub path: PathBuf,
    /// What runs.
    pub instance: Arc<dyn Instance>,
    /// Makes another instance of the same image, for a restart.
    pub(crate) again: Again,
    /// What was measured of its calls.
    pub(crate) sampled: Sampled,
    /// Held for its drop.
    pub(crate) _counted: Counted,
}

impl Generation {
    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.manifest.name
    }

    /// How long to wait for a hook that may take `limit`.
    pub(crate) fn patience(&self, limit: Duration) -> Duration {
        patience(self.tier, limit)
    }

    /// The plugin's version.
    #[must_use]
    pub fn version(&self) -> &PluginVersion {
        &self.manifest.version
    }
}

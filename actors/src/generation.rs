//! One initialised instance of a verified image, with what its manifest says.

use std::path::PathBuf;
use std::sync::Arc;

use themis_messages::ids::{Digest, GenerationId, KeyId, PluginName, PluginVersion, Tier};
use themis_messages::instance::Instance;
use themis_messages::manifest::Manifest;

use crate::telemetry::Counted;

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
    /// Held for its drop.
    pub(crate) _counted: Counted,
}

impl Generation {
    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.manifest.name
    }

    /// The plugin's version.
    #[must_use]
    pub fn version(&self) -> &PluginVersion {
        &self.manifest.version
    }
}

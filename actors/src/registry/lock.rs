//! The lock file: what is installed from the registry, to the last byte and for every platform.
//!
//! It is written whole or not at all, and read as strictly as it is written: it stands for the registry when that is not
//! asked. What it says is good for every machine that shares it, because it lists the digest of each file of each
//! platform and not of this one's alone.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};
use themis_messages::ids::{Digest, PluginName};
use themis_messages::limits::REGISTRY_METADATA_BYTES_MAX;
use themis_messages::registry::{RegistryError, Release};

use super::files;

/// The form this release writes and reads.
const FORM: u32 = 1;
/// What stands above everything else.
const HEAD: &str = "# What is installed from the registry. Written by `themis registry install`; keep it with your configuration.\n\n";

/// A lock file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    form: u32,
    /// What is installed, by name.
    #[serde(default, rename = "plugin")]
    plugins: Vec<Locked>,
}

/// One installed plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The registry it came from. It is installed from no other.
    pub registry: String,
    /// Whether somebody asked for it, or only another plugin needs it.
    pub wanted: Option<semver::VersionReq>,
    /// What was installed.
    pub release: Release,
    /// SHA-256 of its files, by path, of all platforms.
    pub files: BTreeMap<String, Digest>,
}

impl Default for Lock {
    fn default() -> Self {
        Self { form: FORM, plugins: Vec::new() }
    }
}

impl Lock {
    /// Reads a lock file; one that is not there locks nothing.
    ///
    /// # Errors
    /// [`RegistryError::Io`], also for a file that is no lock file.
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        let failed = |error: &std::io::Error| RegistryError::io(path, "read", error);
        let bytes = match files::read(path, REGISTRY_METADATA_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(&error)),
        };
        let lock: Self =
            toml::from_slice(&bytes).map_err(|error| failed(&Error::other(error.to_string())))?;
        match lock.form {
            FORM => Ok(lock),
            form => {
                let what = format!("it is of form {form}, and this release reads {FORM}");
                Err(failed(&Error::other(what)))
            }
        }
    }

    /// Writes it, durably, in place of the one that is there.
    ///
    /// # Errors
    /// [`RegistryError::Io`]; then the one that was there still is.
    pub fn write(&self, path: &Path) -> Result<(), RegistryError> {
        let text = toml::to_string_pretty(self).map_err(Error::other);
        let written =
            text.and_then(|text| files::replace(path, format!("{HEAD}{text}").as_bytes()));
        written.map_err(|error| RegistryError::io(path, "write", &error))
    }

    /// An installed plugin.
    #[must_use]
    pub fn find(&self, plugin: &PluginName) -> Option<&Locked> {
        self.plugins.iter().find(|locked| locked.release.plugin == *plugin)
    }

    /// All of them, by name.
    pub fn plugins(&self) -> std::slice::Iter<'_, Locked> {
        self.plugins.iter()
    }

    /// Puts one in, in place of the version that was there.
    pub fn put(&mut self, locked: Locked) {
        self.plugins.retain(|it| it.release.plugin != locked.release.plugin);
        self.plugins.push(locked);
        self.plugins.sort_by(|a, b| a.release.plugin.cmp(&b.release.plugin));
    }
}

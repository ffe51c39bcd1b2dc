//! The marketplace's vocabulary: what is published, what was found, what an installation did, and what a request took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, KeyId, PluginName, PluginVersion};

pub mod error;

pub use error::{FetchFailure, RegistryError};

/// One published version of a plugin, as the registry's signed metadata tells it.
///
/// It says where the bundle is and what it must be. What the plugin needs is in its own manifest, which its publisher
/// signed; what stands here must be the same, or the bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: PluginVersion,
    /// SHA-256 of the bundle.
    pub sha256: Digest,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// SHA-256 of the manifest in it.
    pub manifest_sha256: Digest,
    /// The publisher's signature of the manifest: 128 hexadecimal digits.
    pub signature: String,
    /// The key it was made with: an id to look up among pinned keys, and nothing to trust.
    pub key_id: KeyId,
    /// What it needs.
    pub dependencies: BTreeMap<PluginName, semver::VersionReq>,
    /// What it may ask of the host.
    pub capabilities: BTreeSet<String>,
    /// What it was built for.
    pub platforms: BTreeSet<String>,
    /// Withdrawn: not chosen any more, and left where it is.
    pub yanked: bool,
    /// One line for people.
    #[serde(default)]
    pub description: String,
}

/// Where a plugin's version is, and everything that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// What was chosen.
    pub release: Release,
    /// Where its bundle is.
    pub url: String,
    /// It and all that it needs, in the order in which they load.
    pub plan: Vec<Planned>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The plugin.
    pub plugin: PluginName,
    /// The version.
    pub version: PluginVersion,
    /// Who needs it; nobody if it was asked for.
    pub needed_by: Vec<PluginName>,
}

/// What a request of the registry took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStats {
    /// Requests sent, those that were repeated included.
    pub attempts: u32,
    /// From the question to the answer, waiting included.
    pub total_time: Duration,
    /// The last thing that went wrong, if anything did.
    pub last_error: Option<String>,
    /// Bytes received.
    pub bytes: u64,
    /// Whether nothing had to be fetched.
    pub from_cache: bool,
}

/// What is to be installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallRequest {
    /// Plugins and what is wanted of each. None, for an update: everything that is installed.
    #[serde(default)]
    pub wanted: Vec<Wanted>,
    /// What is installed already may be replaced by something newer.
    #[serde(default)]
    pub update: bool,
    /// New dependencies, capabilities and publishers are accepted.
    #[serde(default)]
    pub approve: bool,
    /// An older version than the one installed is accepted, and the floor with it lowered.
    #[serde(default)]
    pub downgrade: bool,
    /// Nothing is fetched: what is not here already is an error.
    #[serde(default)]
    pub offline: bool,
}

/// A plugin and which of its versions are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The plugin.
    pub plugin: PluginName,
    /// Which versions.
    pub version: semver::VersionReq,
}

impl std::str::FromStr for Wanted {
    type Err = WantedError;

    /// `geo`, `geo@1.2.0` (that version), `geo@^1` or `geo@>=1, <3`.
    fn from_str(text: &str) -> Result<Self, WantedError> {
        let (plugin, version) = text.split_once('@').unwrap_or((text, "*"));
        let plugin = plugin.parse().map_err(WantedError::Plugin)?;
        // A bare version means itself, as `geo@1.2.0` reads; in a requirement it would mean `^1.2.0`.
        let version = match version.parse::<PluginVersion>() {
            Ok(exact) => format!("={exact}"),
            Err(_a_requirement) => version.to_owned(),
        };
        let version = version
            .parse()
            .map_err(|error: semver::Error| WantedError::Version { what: error.to_string() })?;
        Ok(Self { plugin, version })
    }
}

/// Why a text does not say what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// The part before `@`.
    #[error("{0}")]
    Plugin(crate::ids::IdError),
    /// The part after it.
    #[error("not a requirement on versions, such as ^1, >=1.2, <2 or 1.2.0: {what}")]
    Version {
        /// The library's words.
        what: String,
    },
}

/// What an installation did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// In the order in which they load.
    pub installed: Vec<Installed>,
    /// What was there already and stays.
    pub unchanged: Vec<Planned>,
    /// What it took.
    pub stats: RequestStats,
}

/// One plugin that was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version now.
    pub version: PluginVersion,
    /// Its version before.
    pub replaced: Option<PluginVersion>,
    /// SHA-256 of the bundle that was fetched.
    pub sha256: Digest,
    /// Below the plugin root.
    pub path: String,
    /// Whether it serves now: a plugin that was loaded is reloaded, and one that was not is left to be loaded.
    pub serves: bool,
}

/// How far something of the registry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Progress {
    /// The registry's metadata is being fetched and verified.
    Metadata,
    /// Versions are being chosen.
    Resolving,
    /// A bundle is being fetched.
    Fetching {
        /// Whose.
        plugin: PluginName,
        /// Which.
        version: PluginVersion,
        /// So far, what was there from an interrupted attempt included.
        bytes: u64,
        /// In all.
        of: u64,
    },
    /// A bundle is being verified.
    Verifying {
        /// Whose.
        plugin: PluginName,
        /// Which.
        version: PluginVersion,
    },
    /// A plugin is being put in its place.
    Installing {
        /// Which.
        plugin: PluginName,
        /// Which version.
        version: PluginVersion,
    },
    /// Something went wrong and is tried again.
    Retrying {
        /// What went wrong.
        why: String,
        /// How long it waits first.
        after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_a_name_and_a_requirement() {
        for (text, version) in
            [("geo", "*"), ("geo@1.2.0", "=1.2.0"), ("geo@^1", "^1"), ("geo@>=1, <3", ">=1, <3")]
        {
            let wanted: Wanted = text.parse().unwrap();
            assert_eq!(
                (wanted.plugin.as_str(), wanted.version.to_string().as_str()),
                ("geo", version)
            );
        }
        for text in ["", "@1", "Geo", "geo@", "geo@1.2.3.4", "geo@x y", "../geo"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}

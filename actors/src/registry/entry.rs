//! What a registry's signed metadata says of one bundle, and how that is written.
//!
//! A bundle is the TUF target `NAME/NAME-VERSION.tdb`; what else is to be known of it stands in the target's custom
//! metadata under `themis`. It is signed, but by the registry and not by the publisher: all of it is compared with the
//! bundle's own manifest before anything is installed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use themis_messages::bundle::show;
use themis_messages::ids::{Digest, KeyId, PluginName, PluginVersion};
use themis_messages::limits::BUNDLE_BYTES_MAX;
use themis_messages::manifest::Manifest;
use themis_messages::registry::{RegistryError, Release};
use tough::TargetName;
use tough::schema::{Hashes, Target};

/// Custom metadata that is ours.
const CUSTOM: &str = "themis";
/// The form of entries this release writes and reads.
const SCHEMA: u32 = 1;
/// Most capabilities, platforms and dependencies of an entry, each.
const LISTED_MAX: usize = 256;
/// Longest capability, platform or description, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// An entry as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`SCHEMA`].
    schema: u32,
    /// The plugin.
    name: PluginName,
    /// Its version.
    version: PluginVersion,
    /// SHA-256 of the manifest's bytes.
    manifest_sha256: Digest,
    /// Their signature: 128 hexadecimal digits.
    signature: String,
    /// The publisher's key.
    key_id: KeyId,
    /// What it needs.
    #[serde(default)]
    dependencies: BTreeMap<PluginName, semver::VersionReq>,
    /// What it asks of the host.
    #[serde(default)]
    capabilities: BTreeSet<String>,
    /// What it was built for.
    #[serde(default)]
    platforms: BTreeSet<String>,
    /// Whether it was withdrawn.
    #[serde(default)]
    yanked: bool,
    /// For people.
    #[serde(default)]
    description: String,
}

/// Where a bundle lies among a registry's targets.
#[must_use]
pub fn target_name(plugin: &PluginName, version: &PluginVersion) -> String {
    format!("{plugin}/{plugin}-{version}.tdb")
}

/// The file a bundle is served as: its digest stands in front, so that no two contents have one address.
#[must_use]
pub fn file_name(plugin: &PluginName, version: &PluginVersion, sha256: Digest) -> String {
    format!("{plugin}/{sha256}.{plugin}-{version}.tdb")
}

impl Entry {
    /// The entry of a bundle with this manifest.
    #[must_use]
    pub fn of(manifest: &Manifest, digest: Digest, signature: &[u8]) -> Self {
        let platforms = manifest.files.iter().map(|file| file.target.as_str());
        let platforms = platforms.filter(|target| *target != "data");
        let mut description = manifest.description.clone().unwrap_or_default();
        description.truncate(description.floor_char_boundary(TEXT_BYTES_MAX));
        Self {
            schema: SCHEMA,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            manifest_sha256: digest,
            signature: hex::encode(signature),
            key_id: manifest.key_id,
            dependencies: manifest.dependencies.clone(),
            capabilities: manifest.capabilities.iter().map(|it| it.as_str().to_owned()).collect(),
            platforms: platforms.map(str::to_owned).collect(),
            yanked: false,
            description,
        }
    }

    /// The entry as withdrawn, or as not withdrawn any more.
    #[must_use]
    pub fn yanked(mut self, yanked: bool) -> Self {
        self.yanked = yanked;
        self
    }

    /// Which plugin and version it is of.
    #[must_use]
    pub fn names(&self) -> (&PluginName, &PluginVersion) {
        (&self.name, &self.version)
    }

    /// The first thing in which a release's entry is not what this one is, and both. Whether it is withdrawn, and what is
    /// said for people, is the registry's to say.
    #[must_use]
    pub fn difference(&self, release: &Release) -> Option<(&'static str, String, String)> {
        let list = |texts: &BTreeSet<String>| texts.iter().cloned().collect::<Vec<_>>().join(", ");
        let needs = |needs: &BTreeMap<PluginName, semver::VersionReq>| {
            let needs: Vec<_> =
                needs.iter().map(|(name, wanted)| format!("{name} {wanted}")).collect();
            needs.join(", ")
        };
        let digest = |digest: &Digest| digest.to_string();
        let both = [
            ("its name", self.name.to_string(), release.plugin.to_string()),
            ("its version", self.version.to_string(), release.version.to_string()),
            ("its manifest", digest(&self.manifest_sha256), digest(&release.manifest_sha256)),
            ("its signature", self.signature.clone(), release.signature.clone()),
            ("its key", self.key_id.to_string(), release.key_id.to_string()),
            ("what it needs", needs(&self.dependencies), needs(&release.dependencies)),
            ("what it may use", list(&self.capabilities), list(&release.capabilities)),
            ("its platforms", list(&self.platforms), list(&release.platforms)),
        ];
        both.into_iter().find(|(_, ours, theirs)| ours != theirs)
    }

    /// The target of a bundle with these bytes.
    #[must_use]
    pub fn target(&self, sha256: Digest, bytes: u64) -> Target {
        let custom = serde_json::to_value(self).unwrap_or(Value::Null);
        Target {
            length: bytes,
            hashes: Hashes { sha256: sha256.0.to_vec().into(), _extra: HashMap::new() },
            custom: HashMap::from([(CUSTOM.to_owned(), custom)]),
            _extra: HashMap::new(),
        }
    }

    /// Reads the entry of a target.
    ///
    /// # Errors
    /// [`RegistryError::Entry`].
    pub fn read(name: &TargetName, target: &Target) -> Result<Self, RegistryError> {
        let refused = |what: String| RegistryError::Entry { target: show(name.raw()), what };
        let custom =
            target.custom.get(CUSTOM).ok_or_else(|| refused(format!("it has no {CUSTOM:?}")))?;
        let entry = Self::deserialize(custom).map_err(|error| refused(error.to_string()))?;
        if entry.schema != SCHEMA {
            let schema = entry.schema;
            return Err(refused(format!(
                "it is of form {schema}, and this release reads {SCHEMA}"
            )));
        }
        let expected = target_name(&entry.name, &entry.version);
        if name.raw() != expected {
            return Err(refused(format!("it is of {expected:?}")));
        }
        if target.length > BUNDLE_BYTES_MAX {
            let length = target.length;
            return Err(refused(format!(
                "{length} bytes are over a bundle's limit of {BUNDLE_BYTES_MAX}"
            )));
        }
        if entry.signature.len() != 128 || !entry.signature.bytes().all(is_hex) {
            return Err(refused(
                "its signature is not 128 lower-case hexadecimal digits".to_owned(),
            ));
        }
        let texts = entry.capabilities.iter().chain(&entry.platforms).chain([&entry.description]);
        let longest = texts.map(String::len).max().unwrap_or(0);
        let most =
            entry.capabilities.len().max(entry.platforms.len()).max(entry.dependencies.len());
        if longest > TEXT_BYTES_MAX || most > LISTED_MAX {
            return Err(refused("it says more than a manifest can".to_owned()));
        }
        Ok(entry)
    }

    /// The release it tells of.
    ///
    /// # Errors
    /// [`RegistryError::Entry`] when the target has no SHA-256.
    pub fn release(self, name: &TargetName, target: &Target) -> Result<Release, RegistryError> {
        let sha256 = <[u8; 32]>::try_from(&target.hashes.sha256[..]).map_err(|_other_length| {
            let what = "its SHA-256 is none".to_owned();
            RegistryError::Entry { target: show(name.raw()), what }
        })?;
        Ok(Release {
            plugin: self.name,
            version: self.version,
            sha256: Digest(sha256),
            bytes: target.length,
            manifest_sha256: self.manifest_sha256,
            signature: self.signature,
            key_id: self.key_id,
            dependencies: self.dependencies,
            capabilities: self.capabilities,
            platforms: self.platforms,
            yanked: self.yanked,
            description: self.description,
        })
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

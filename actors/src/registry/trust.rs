//! Which metadata is believed: TUF's rules, and what they leave open.
//!
//! ```text
//! remembered ─▶ scratch ─▶ load (tough: root chain, timestamp, snapshot, targets) ─▶ further checks ─▶ remembered anew
//!                             └─ anything wrong: the scratch is dropped, what is remembered stays
//! ```
//!
//! What is remembered makes a rollback visible, so it is kept in the kernel's store and replaced as a whole or not at
//! all: a half-written file would be a registry that nobody remembers. Beyond TUF's own rules: a version far ahead of the
//! last one is refused (it would use up the numbers), roles that this kind of registry does not have are not fetched,
//! and a failure to fetch the next root is a failure, unless the server says that there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use themis_messages::limits::{REGISTRY_METADATA_BYTES_MAX, REGISTRY_VERSION_STEP_MAX};
use themis_messages::registry::error::MetadataFault;
use themis_messages::registry::{FetchFailure, RegistryError};
use tough::error::Error as TufError;
use tough::schema::RoleType;
use tough::{
    ExpirationEnforcement, Limits, Repository, RepositoryLoader, Transport, TransportError,
    TransportErrorKind, TransportStream,
};
use url::Url;

use super::http::Http;
use super::operation::Operation;

/// Below the registry's address.
pub const METADATA_DIR: &str = "metadata/";
/// Below the registry's address.
pub const TARGETS_DIR: &str = "targets/";
/// Root metadata that may be followed in one go.
const ROOT_UPDATES_MAX: u64 = 256;
/// Bytes of root, timestamp and snapshot metadata.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// What is remembered, as the library names its files.
const REMEMBERED: [&str; 5] =
    ["root.json", "timestamp.json", "snapshot.json", "targets.json", "latest_known_time.json"];

/// What is remembered of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// SHA-256 of the root that the operator configured when this was learnt, in hexadecimal.
    anchor: String,
    /// Metadata by file name.
    files: BTreeMap<String, String>,
}

/// Where a registry is and where trust in it begins.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Its address, with a slash at the end: what it is known by, wherever it is fetched from.
    pub home: Url,
    /// Where it is fetched from: the same address, or a mirror's.
    pub source: Url,
    /// Root metadata that the operator got from the publisher himself.
    pub root: Arc<[u8]>,
}

/// Metadata as it was fetched, by file name: what a mirror passes on.
pub type Originals = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Fetches and verifies a registry's metadata. The bytes of what was fetched, verified or not, are kept in `originals`; where
/// this succeeds, they are what was verified.
///
/// # Errors
/// [`RegistryError`]; then what is remembered is still right.
pub async fn refresh(
    anchor: &Anchor,
    http: &Http,
    operation: &Operation,
    memory: &Memory,
    originals: Option<&Originals>,
) -> Result<(Repository, Memory), RegistryError> {
    let digest = hex::encode(Sha256::digest(&anchor.root));
    let scratch = tempfile::tempdir().map_err(|error| io("make a scratch directory", &error))?;
    for (name, text) in &memory.files {
        let written = tokio::fs::write(scratch.path().join(name), text).await;
        written.map_err(|error| io("write remembered metadata", &error))?;
    }
    // The chain of roots was followed before; it goes on from where it was, unless trust begins elsewhere now.
    let root = memory.files.get("root.json").filter(|_| memory.anchor == digest);
    let root = root.map_or(&anchor.root[..], String::as_bytes);
    let transport = Metadata {
        http: http.clone(),
        operation: operation.clone(),
        originals: originals.cloned(),
    };
    let limits = Limits {
        max_root_size: SMALL_BYTES_MAX,
        max_targets_size: REGISTRY_METADATA_BYTES_MAX,
        max_timestamp_size: SMALL_BYTES_MAX,
        max_snapshot_size: SMALL_BYTES_MAX,
        max_root_updates: ROOT_UPDATES_MAX,
    };
    let (metadata, targets) = bases(&anchor.source)?;
    let loaded = RepositoryLoader::new(&root, metadata, targets)
        .transport(transport)
        .limits(limits)
        .datastore(scratch.path())
        .expiration_enforcement(ExpirationEnforcement::Safe)
        .load()
        .await;
    let repository = loaded.map_err(|error| refused(&error))?;
    check_steps(&repository, memory)?;
    check_delegations(&repository)?;
    let mut files = BTreeMap::new();
    for name in REMEMBERED {
        let text = tokio::fs::read_to_string(scratch.path().join(name)).await;
        files.insert(name.to_owned(), text.map_err(|error| io("read verified metadata", &error))?);
    }
    check_same(memory, &files)?;
    Ok((repository, Memory { anchor: digest, files }))
}

fn bases(home: &Url) -> Result<(Url, Url), RegistryError> {
    let join = |below: &str| {
        home.join(below).map_err(|error| RegistryError::Settings {
            field: "url",
            what: format!("{home}: {error}"),
        })
    };
    Ok((join(METADATA_DIR)?, join(TARGETS_DIR)?))
}

fn io(action: &'static str, error: &std::io::Error) -> RegistryError {
    RegistryError::io(&std::env::temp_dir(), action, error)
}

/// Versions as they are in signed metadata, without a look at the rest.
#[derive(Deserialize)]
struct Versioned {
    signed: Version,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// The number of a piece of metadata; 0 where it is none.
pub(super) fn version_of(bytes: &[u8]) -> u64 {
    serde_json::from_slice::<Versioned>(bytes).map_or(0, |it| it.signed.version)
}

impl Memory {
    fn version(&self, file: &str) -> u64 {
        self.files.get(file).map_or(0, |text| version_of(text.as_bytes()))
    }
}

/// What is signed, whatever it is.
#[derive(Deserialize)]
struct Contents {
    signed: serde_json::Value,
}

/// One number stands for one content: somebody who signs two of them shows each to somebody else.
fn check_same(memory: &Memory, now: &BTreeMap<String, String>) -> Result<(), RegistryError> {
    let contents = |text: &String| serde_json::from_str::<Contents>(text).map(|it| it.signed).ok();
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let file = format!("{role}.json");
        let (Some(before), Some(now)) = (memory.files.get(&file), now.get(&file)) else { continue };
        let number = version_of(now.as_bytes());
        if number == version_of(before.as_bytes()) && contents(before) != contents(now) {
            let why =
                format!("version {number} was something else before: one of the two is forged");
            return Err(RegistryError::Metadata { role, fault: MetadataFault::Equivocation, why });
        }
    }
    Ok(())
}

/// No version may be further ahead of the last one than publishing makes it. After new root metadata, which is how a
/// publisher recovers from a stolen key, counting starts anew.
fn check_steps(repository: &Repository, memory: &Memory) -> Result<(), RegistryError> {
    let root = repository.root().signed.version.get();
    let rotated = root != memory.version("root.json") && !memory.files.is_empty();
    let now = [
        ("timestamp", repository.timestamp().signed.version.get()),
        ("snapshot", repository.snapshot().signed.version.get()),
        ("targets", repository.targets().signed.version.get()),
    ];
    for (role, version) in now {
        let before = if rotated { 0 } else { memory.version(&format!("{role}.json")) };
        if version.saturating_sub(before) > REGISTRY_VERSION_STEP_MAX {
            let why = format!(
                "its version went from {before} to {version}, further than any publisher comes; \
                 it recovers when the publisher rotates the {role} key"
            );
            return Err(RegistryError::Metadata { role, fault: MetadataFault::FastForward, why });
        }
    }
    Ok(())
}

fn check_delegations(repository: &Repository) -> Result<(), RegistryError> {
    let delegations = repository.targets().signed.delegations.as_ref();
    if delegations.is_none_or(|delegations| delegations.roles.is_empty()) {
        return Ok(());
    }
    let why = "it delegates to further roles, which registries of plugins do not have".to_owned();
    Err(RegistryError::Metadata { role: "targets", fault: MetadataFault::Malformed, why })
}

/// Fetches metadata for the library, and nothing but what a registry has.
#[derive(Debug, Clone)]
struct Metadata {
    http: Http,
    operation: Operation,
    originals: Option<Originals>,
}

/// `timestamp.json`, or one of the numbered files.
fn is_metadata(url: &Url) -> bool {
    let name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or("");
    match name.split_once('.') {
        Some((number, "root.json" | "snapshot.json" | "targets.json")) => {
            !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
        }
        _ => name == "timestamp.json",
    }
}

#[tough::async_trait]
impl Transport for Metadata {
    /// Failures are told within the stream: what the library sees at once it takes for "there is no newer root".
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let fetched = self.whole(&url).await.map_err(|error| {
            let kind = if is_absent(&error, &url) {
                TransportErrorKind::FileNotFound
            } else {
                TransportErrorKind::Other
            };
            TransportError::new_with_cause(kind, url.as_str(), error)
        });
        Ok(Box::pin(stream::once(std::future::ready(fetched))))
    }
}

/// Whether the server says that there is no such file. Object stores say "forbidden" of what is not there; only of the
/// next root, which mostly is not there, is that believed.
fn is_absent(error: &RegistryError, url: &Url) -> bool {
    let RegistryError::Fetch(failure) = error else { return false };
    let forbidden = matches!(failure, FetchFailure::Status { status: 403, .. });
    matches!(failure, FetchFailure::NotFound { .. })
        || (forbidden && url.path().ends_with(".root.json"))
}

impl Metadata {
    async fn whole(&self, url: &Url) -> Result<Bytes, RegistryError> {
        if !is_metadata(url) {
            let why = format!("it refers to {url}, which registries of plugins do not have");
            let fault = MetadataFault::Malformed;
            return Err(RegistryError::Metadata { role: "targets", fault, why });
        }
        let attempt = || async {
            let mut body = self.http.get(url, REGISTRY_METADATA_BYTES_MAX, None).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = body.chunk().await? {
                self.operation.received(chunk.len() as u64);
                bytes.extend_from_slice(&chunk);
            }
            Ok(Bytes::from(bytes))
        };
        let bytes = self.operation.retry(attempt).await?;
        let name = url.path_segments().and_then(|mut segments| segments.next_back());
        if let (Some(originals), Some(name)) = (&self.originals, name) {
            originals.lock().insert(name.to_owned(), bytes.clone());
        }
        Ok(bytes)
    }
}

fn role(role: &RoleType) -> &'static str {
    match role {
        RoleType::Root => "root",
        RoleType::Snapshot => "snapshot",
        RoleType::Targets => "targets",
        RoleType::Timestamp => "timestamp",
        RoleType::DelegatedTargets => "delegated",
    }
}

/// The library's refusals in our words.
#[expect(clippy::wildcard_enum_match_arm, reason = "its errors are many and become more")]
fn refused(error: &TufError) -> RegistryError {
    use MetadataFault as Fault;
    let metadata = |role, fault, why: String| RegistryError::Metadata { role, fault, why };
    match error {
        TufError::Transport { source, .. } => refused_transport(source, error),
        TufError::ExpiredMetadata { role: it, .. } => {
            let why = "it has expired; a registry that is looked after publishes anew in time, and \
                       a server that holds back what is new cannot";
            metadata(role(it), Fault::Expired, why.to_owned())
        }
        TufError::OlderMetadata { role: it, current_version, new_version, .. } => {
            let fault =
                if matches!(it, RoleType::Root) { Fault::RootChain } else { Fault::Rollback };
            let why = format!("version {new_version} comes after {current_version}");
            metadata(role(it), fault, why)
        }
        TufError::OlderSnapshotInTimestamp { .. }
        | TufError::SnapshotRoleMissing { .. }
        | TufError::SnapshotRoleRollback { .. } => {
            metadata("snapshot", Fault::Rollback, error.to_string())
        }
        TufError::VersionMismatch { role: it, fetched, expected, .. } => {
            let why = format!("it is version {fetched}, and {expected} was announced");
            metadata(role(it), Fault::Mismatch, why)
        }
        TufError::VerifyMetadata { role: it, source, .. } => {
            metadata(role(it), Fault::Signature, source.to_string())
        }
        TufError::VerifyTrustedMetadata { source, .. } => RegistryError::Settings {
            field: "root",
            what: format!("it is not signed by its own keys: {source}"),
        },
        TufError::ParseTrustedMetadata { source, .. } => RegistryError::Settings {
            field: "root",
            what: format!("it is no root metadata: {source}"),
        },
        TufError::ParseMetadata { role: it, source, .. } => {
            let why = format!(
                "it is no metadata ({source}); if the server shows a page in its place, is the address \
                 right, and does something in between want a log-in?"
            );
            metadata(role(it), Fault::Malformed, why)
        }
        TufError::SystemTimeSteppedBackward { sys_time, latest_known_time, .. } => {
            let why = format!(
                "this machine's clock says {sys_time}, and said {latest_known_time} before: set it right"
            );
            metadata("registry", Fault::Clock, why)
        }
        TufError::MaxUpdatesExceeded { .. } => {
            metadata("root", Fault::RootChain, error.to_string())
        }
        other => metadata("registry", Fault::Malformed, other.to_string()),
    }
}

/// What went wrong on the way is our own error inside the library's; a wrong digest is the library's.
fn refused_transport(source: &TransportError, whole: &TufError) -> RegistryError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<RegistryError>() {
            return ours.clone();
        }
        if let Some(theirs) = error.downcast_ref::<TufError>() {
            let (fault, role) = (MetadataFault::Mismatch, "registry");
            return RegistryError::Metadata { role, fault, why: theirs.to_string() };
        }
        cause = error.source();
    }
    let (fault, role) = (MetadataFault::Malformed, "registry");
    RegistryError::Metadata { role, fault, why: whole.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_registry_has_is_fetched() {
        let asked =
            |path: &str| is_metadata(&format!("https://x/metadata/{path}").parse().unwrap());
        for path in ["1.root.json", "timestamp.json", "12.snapshot.json", "3.targets.json"] {
            assert!(asked(path), "{path}");
        }
        for path in [
            "root.json",
            "evil.json",
            "1.evil.json",
            ".root.json",
            "-1.root.json",
            "1.root.json/x",
            "",
        ] {
            assert!(!asked(path), "{path}");
        }
    }
}

//! A copy of a registry for others to fetch from: a folder that any web server can serve, brought up to date in place.
//!
//! ```text
//! DIR/public/metadata/, DIR/public/targets/   served; the very bytes of the registry
//! DIR/trust.json                              what is remembered of it: a mirror never goes back
//! DIR/incoming/                               bundles on their way here
//! DIR/lock                                    held while somebody works here
//! ```
//!
//! A mirror holds no key and is not believed: whoever fetches from it verifies all of it from his own root on. It is filled
//! as a registry is published: bundles, numbered metadata, and `timestamp.json` last and by a rename, so that a client sees
//! it as it was before or as it is after. When it is cut short, the next run goes on where it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use themis_messages::ids::Digest;
use themis_messages::limits::REGISTRY_METADATA_BYTES_MAX;
use themis_messages::registry::{Progress, RegistryError, Release};
use tokio::sync::mpsc;

use super::client::RegistrySettings;
use super::entry::file_name;
use super::fetch::{Bundles, hash};
use super::files::{self, replace};
use super::http::Http;
use super::index::Offer;
use super::operation::Operation;
use super::trust::{self, Memory, Originals};

/// What a run has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mirrored {
    /// What a web server serves.
    pub public: PathBuf,
    /// Versions of plugins that are there now.
    pub releases: usize,
    /// How many of them were fetched by this run.
    pub fetched: usize,
    /// Bytes of those.
    pub bytes: u64,
    /// Number of the registry's publication.
    pub version: u64,
    /// Until when it is good: the mirror has to be brought up to date before.
    pub expires: jiff::Timestamp,
    /// Entries that were passed over, and why.
    pub refused: Vec<String>,
}

/// Copies a registry to a folder, or brings the copy there up to date. The chain of roots begins with the configured one:
/// configure the oldest root that a client of the mirror has.
///
/// # Errors
/// [`RegistryError`]; then clients of the mirror see it as it was.
pub async fn mirror(
    settings: &RegistrySettings,
    dir: &Path,
    told: Option<mpsc::Sender<Progress>>,
) -> Result<Mirrored, RegistryError> {
    let place = Place::open(dir)?;
    let http = settings.client()?;
    let operation = Operation::start(settings.retry_limit, told.clone());
    operation.tell(Progress::Metadata);
    let first = format!("{}.root.json", trust::version_of(&settings.anchor.root));
    let memory = place.memory(&first)?;
    let originals = Originals::default();
    let anchor = &settings.anchor;
    let refreshed = trust::refresh(anchor, &http, &operation, &memory, Some(&originals)).await;
    let (repository, learnt) = refreshed?;
    // Before it is used: what was believed once must be remembered, whatever happens next.
    place.remember(&learnt)?;
    let offer = Offer::read(&repository)?;
    let (mut fetched, mut bytes) = (0, 0_u64);
    for release in offer.releases() {
        // Each for itself: a large registry takes longer than one request may.
        let operation = Operation::start(settings.retry_limit, told.clone());
        if place.fetch(settings, &http, &operation, release).await? {
            (fetched, bytes) = (fetched + 1, bytes.saturating_add(release.bytes));
        }
    }
    let mut files = std::mem::take(&mut *originals.lock());
    files.insert(first, Bytes::copy_from_slice(&anchor.root));
    place.publish(files)?;
    let timestamp = &repository.timestamp().signed;
    Ok(Mirrored {
        public: place.public(),
        releases: offer.releases().count(),
        fetched,
        bytes,
        version: timestamp.version.get(),
        expires: timestamp.expires,
        refused: offer.refused.iter().map(ToString::to_string).collect(),
    })
}

/// The folder, held for as long as this lives.
struct Place {
    dir: PathBuf,
    _held: File,
}

impl Place {
    fn open(dir: &Path) -> Result<Self, RegistryError> {
        for part in ["public/metadata", "public/targets", "incoming"] {
            make_dir(&dir.join(part))?;
        }
        let path = dir.join("lock");
        let held = File::options().write(true).create(true).truncate(false).open(&path);
        let held = held.map_err(|error| RegistryError::io(&path, "open", &error))?;
        held.try_lock().map_err(|error| {
            let busy = std::io::Error::other(format!("another run is under way here ({error})"));
            RegistryError::io(&path, "lock", &busy)
        })?;
        Ok(Self { dir: dir.to_owned(), _held: held })
    }

    fn public(&self) -> PathBuf {
        self.dir.join("public")
    }

    fn metadata(&self) -> PathBuf {
        self.public().join("metadata")
    }

    /// What was learnt by the runs before. A mirror that has nothing has nothing to go back from.
    fn memory(&self, first_root: &str) -> Result<Memory, RegistryError> {
        let path = self.dir.join("trust.json");
        if !self.metadata().join(first_root).exists() {
            return Ok(Memory::default());
        }
        let failed = |error: &std::io::Error| RegistryError::io(&path, "read", error);
        // The metadata of four roles, as text within text.
        let text = files::read(&path, 8 * REGISTRY_METADATA_BYTES_MAX);
        let text = text.map_err(|error| failed(&error))?;
        serde_json::from_slice(&text).map_err(|error| RegistryError::Memory {
            registry: path.display().to_string(),
            what: error.to_string(),
        })
    }

    fn remember(&self, memory: &Memory) -> Result<(), RegistryError> {
        let path = self.dir.join("trust.json");
        let text = serde_json::to_vec(memory);
        let text = text.map_err(|error| RegistryError::io(&path, "write", &error.into()))?;
        replace(&path, &text).map_err(|error| RegistryError::io(&path, "write", &error))
    }

    /// Whether it had to be fetched. What is here already is hashed again.
    async fn fetch(
        &self,
        settings: &RegistrySettings,
        http: &Http,
        operation: &Operation,
        release: &Release,
    ) -> Result<bool, RegistryError> {
        let name = file_name(&release.plugin, &release.version, release.sha256);
        let to = self.public().join("targets").join(name);
        if digest_of(&to).await? == Some(release.sha256) {
            return Ok(false);
        }
        let bundles = Bundles::in_dir(self.dir.join("incoming"));
        let url = settings.url_of(release)?;
        let from = bundles.fetch(http, operation, &url, release).await?;
        make_dir(to.parent().unwrap_or(&self.dir))?;
        let bytes =
            std::fs::read(&from).map_err(|error| RegistryError::io(&from, "read", &error))?;
        replace(&to, &bytes).map_err(|error| RegistryError::io(&to, "write", &error))?;
        let removed = std::fs::remove_file(&from);
        removed.map_err(|error| RegistryError::io(&from, "remove", &error))?;
        Ok(true)
    }

    /// Puts metadata where it is served, `timestamp.json` last: it is what makes the rest count.
    fn publish(&self, files: BTreeMap<String, Bytes>) -> Result<(), RegistryError> {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by_key(|(name, _)| name == "timestamp.json");
        for (name, bytes) in files {
            let to = self.metadata().join(name);
            replace(&to, &bytes).map_err(|error| RegistryError::io(&to, "write", &error))?;
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> Result<(), RegistryError> {
    std::fs::create_dir_all(path).map_err(|error| RegistryError::io(path, "make", &error))
}

async fn digest_of(path: &Path) -> Result<Option<Digest>, RegistryError> {
    match hash(path.to_owned()).await {
        Ok(digest) => Ok(Some(digest)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RegistryError::io(path, "read", &error)),
    }
}

//! The publisher's end: a folder that any web server can serve, and the keys that make it a registry.
//!
//! ```text
//! DIR/public/metadata/   N.root.json, timestamp.json, N.snapshot.json, N.targets.json      served
//! DIR/public/targets/    NAME/SHA256.NAME-VERSION.tdb                                      served
//! DIR/staged/            what `add` has verified and `publish` will sign
//! DIR/keys/              ROLE-ID.key.pem: never served; the root's belong elsewhere
//! ```
//!
//! Everything is numbered and nothing is changed in place but `timestamp.json`, which is written last and by a rename: a
//! client that asks meanwhile sees the registry as it was before or as it is after.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, PluginName, PluginVersion};
use themis_messages::registry::RegistryError;
use themis_sandbox::admission::{KeyError, PublicKey, VerifiedBundle};
use tough::editor::RepositoryEditor;
use tough::editor::signed::SignedRepository;
use tough::key_source::KeySource;
use tough::schema::Target;
use tough::{ExpirationEnforcement, FilesystemTransport, Repository, RepositoryLoader, TargetName};
use url::Url;

use super::entry::{Entry, file_name, target_name};
use super::files;

pub mod keys;
pub mod root;

/// Days for which metadata is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The root: as long as its keys are looked after.
    pub root: u32,
    /// What there is.
    pub targets: u32,
    /// How recent that is: how long a server may hold back what is new without being noticed. The registry has to be
    /// published anew before it ends, also when there is nothing new.
    pub timestamp: u32,
}

impl Default for Validity {
    fn default() -> Self {
        Self { root: 365, targets: 90, timestamp: 14 }
    }
}

/// Why a registry is not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is none.
    #[error("{dir} is no registry: make one with `themis registry init`", dir = dir.display())]
    NotARegistry {
        /// The folder.
        dir: PathBuf,
    },
    /// There is one already.
    #[error("{dir} is not empty: a registry is made in a folder of its own", dir = dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: cannot {action}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: std::io::Error,
    },
    /// A key cannot be used.
    #[error("{0}")]
    Key(KeyError),
    /// The bundle is not what its publisher signed.
    #[error("{0}")]
    Bundle(AdmitError),
    /// A version with other contents is published.
    #[error(
        "{plugin} {version} is published with other contents ({published}; this is {offered}): a version never changes, publish a new one"
    )]
    Published {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// What it is.
        published: Digest,
        /// What it was to become.
        offered: Digest,
    },
    /// It is not published.
    #[error("{plugin} {version} is not published here")]
    Unknown {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
    },
    /// There are fewer keys than have to sign.
    #[error(
        "{role} metadata needs {threshold} signatures, and {keys} has {present} of its keys: put the others there"
    )]
    Keys {
        /// Whose metadata.
        role: &'static str,
        /// How many have to sign.
        threshold: u64,
        /// Where keys are looked for.
        keys: String,
        /// How many of the right ones are there.
        present: usize,
    },
    /// Numbers that make no sense.
    #[error("{0}")]
    Numbers(String),
    /// Something published is damaged.
    #[error("{0}")]
    Entry(RegistryError),
    /// The library refuses.
    #[error("cannot {what}: {error}")]
    Tuf {
        /// What was tried.
        what: &'static str,
        /// The library's words.
        error: Box<tough::error::Error>,
    },
}

impl PublishError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARegistry { .. } => "publish.not_a_registry",
            Self::Exists { .. } => "publish.exists",
            Self::Io { .. } => "publish.io",
            Self::Key(error) => error.code(),
            Self::Bundle(error) => error.code(),
            Self::Published { .. } => "publish.published",
            Self::Unknown { .. } => "publish.unknown",
            Self::Keys { .. } => "publish.keys",
            Self::Numbers(_) => "publish.numbers",
            Self::Entry(error) => error.code(),
            Self::Tuf { .. } => "publish.metadata",
        }
    }

    fn tuf(what: &'static str) -> impl FnOnce(tough::error::Error) -> Self {
        move |error| Self::Tuf { what, error: Box::new(error) }
    }
}

impl From<KeyError> for PublishError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

/// A folder that is a registry.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
}

/// What a publication changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Published {
    /// What is new: plugins and versions.
    pub added: Vec<(PluginName, PluginVersion)>,
    /// How many versions there are in all.
    pub releases: usize,
    /// Number of this publication.
    pub version: u64,
    /// Until when it is good.
    pub expires: jiff::Timestamp,
}

impl Registry {
    /// The registry in a folder.
    ///
    /// # Errors
    /// [`PublishError::NotARegistry`].
    pub fn open(dir: &Path) -> Result<Self, PublishError> {
        let registry = Self { dir: dir.to_owned() };
        match registry.metadata().is_dir() && registry.keys().is_dir() {
            true => Ok(registry),
            false => Err(PublishError::NotARegistry { dir: dir.to_owned() }),
        }
    }

    /// What a web server serves.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        self.dir.join("public")
    }

    fn metadata(&self) -> PathBuf {
        self.public().join("metadata")
    }

    fn targets(&self) -> PathBuf {
        self.public().join("targets")
    }

    fn staged(&self) -> PathBuf {
        self.dir.join("staged")
    }

    /// Where its keys are.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// Verifies a bundle against its publisher's key and stages it. Nobody sees it before it is published.
    ///
    /// # Errors
    /// [`PublishError::Bundle`]; [`PublishError::Published`].
    pub async fn add(&self, bundle: &Path, publisher: &PublicKey) -> Result<Entry, PublishError> {
        let checked = VerifiedBundle::by_key(bundle, publisher, jiff::Timestamp::now());
        let bundle = checked.map_err(PublishError::Bundle)?;
        let (summary, offered) = (&bundle.summary, bundle.digest());
        let manifest = &summary.manifest;
        let entry = Entry::of(manifest, summary.manifest_digest, &summary.signature);
        let (plugin, version) = (manifest.name.clone(), manifest.version.clone());
        if let Some((published, _entry)) = self.find(&plugin, &version).await?
            && published != offered
        {
            return Err(PublishError::Published { plugin, version, published, offered });
        }
        make_dir(&self.staged())?;
        let place = self.staged().join(format!("{plugin}-{version}.tdb"));
        let staged = Staged { sha256: offered, entry };
        let text = serde_json::to_vec_pretty(&staged).unwrap_or_default();
        write(&place, bundle.bytes())?;
        write(&place.with_extension("tdb.json"), &text)?;
        Ok(staged.entry)
    }

    /// Signs what is staged and what there was, anew: also when nothing is staged, so that it stays good.
    ///
    /// # Errors
    /// [`PublishError`]; then clients see the registry as it was.
    pub async fn publish(&self, validity: Validity) -> Result<Published, PublishError> {
        let mut added = Vec::new();
        let mut targets = Vec::new();
        for bundle in self.staged_bundles()? {
            let (Staged { sha256, entry }, bytes) = read_staged(&bundle)?;
            let (plugin, version) = entry.names();
            added.push((plugin.clone(), version.clone()));
            let place = self.targets().join(file_name(plugin, version, sha256));
            make_dir(place.parent().unwrap_or(&self.dir))?;
            write(&place, &bytes)?;
            let target = entry.target(sha256, bytes.len() as u64);
            targets.push((target_name(plugin, version), target));
        }
        let published = self.sign(validity, added, |editor| {
            targets.into_iter().try_for_each(|(name, target)| list(editor, name, target))
        });
        let published = published.await?;
        for bundle in self.staged_bundles()? {
            for file in [bundle.with_extension("tdb.json"), bundle] {
                std::fs::remove_file(&file).map_err(io(&file, "remove"))?;
            }
        }
        Ok(published)
    }

    /// Withdraws a version, or takes that back, and publishes.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn yank(
        &self,
        plugin: &PluginName,
        version: &PluginVersion,
        yanked: bool,
        validity: Validity,
    ) -> Result<Published, PublishError> {
        let found = self.find(plugin, version).await?;
        let Some((sha256, (entry, bytes))) = found else {
            let (plugin, version) = (plugin.clone(), version.clone());
            return Err(PublishError::Unknown { plugin, version });
        };
        let target = entry.yanked(yanked).target(sha256, bytes);
        let name = target_name(plugin, version);
        self.sign(validity, Vec::new(), |editor| list(editor, name, target)).await
    }

    /// What is published now, verified. Right after a change of keys, also when that was cut short, it is still signed
    /// with the old ones: then it is what the root before vouches for.
    async fn load(&self) -> Result<Repository, PublishError> {
        let newest = root::newest(&self.metadata())?;
        let loaded = self.load_from(&self.metadata(), &newest).await;
        let signed_before = |error: &PublishError| {
            let PublishError::Tuf { error, .. } = error else { return false };
            matches!(**error, tough::error::Error::VerifyMetadata { .. })
        };
        if !loaded.as_ref().is_err_and(signed_before) {
            return loaded;
        }
        let scratch = tempfile::tempdir_in(&self.dir).map_err(io(&self.dir, "write in"))?;
        for entry in std::fs::read_dir(self.metadata()).map_err(io(&self.metadata(), "read"))? {
            let from = entry.map_err(io(&self.metadata(), "read"))?.path();
            if from != newest {
                let to = scratch.path().join(from.file_name().unwrap_or_default());
                std::fs::copy(&from, &to).map_err(io(&from, "copy"))?;
            }
        }
        let before = root::newest(scratch.path())?;
        self.load_from(scratch.path(), &before).await
    }

    async fn load_from(&self, metadata: &Path, root: &Path) -> Result<Repository, PublishError> {
        let bytes = std::fs::read(root).map_err(io(root, "read"))?;
        let base = |dir: &Path| {
            let dir = dir.canonicalize().map_err(io(dir, "open"))?;
            Url::from_directory_path(&dir)
                .map_err(|()| PublishError::NotARegistry { dir: self.dir.clone() })
        };
        RepositoryLoader::new(&bytes, base(metadata)?, base(&self.targets())?)
            .transport(FilesystemTransport)
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await
            .map_err(PublishError::tuf("read what is published"))
    }

    async fn find(
        &self,
        plugin: &PluginName,
        version: &PluginVersion,
    ) -> Result<Option<(Digest, (Entry, u64))>, PublishError> {
        let name = target_name(plugin, version);
        let repository = self.load().await?;
        let found: Option<(&TargetName, &Target)> =
            repository.all_targets().find(|(target, _)| target.raw() == name);
        let Some((name, target)) = found else { return Ok(None) };
        let entry = Entry::read(name, target).map_err(PublishError::Entry)?;
        let release = entry.clone().release(name, target).map_err(PublishError::Entry)?;
        Ok(Some((release.sha256, (entry, target.length))))
    }

    async fn sign(
        &self,
        validity: Validity,
        added: Vec<(PluginName, PluginVersion)>,
        change: impl FnOnce(&mut RepositoryEditor) -> Result<(), PublishError>,
    ) -> Result<Published, PublishError> {
        let repository = self.load().await?;
        let next = |version: NonZeroU64| version.saturating_add(1);
        let versions = (
            next(repository.targets().signed.version),
            next(repository.snapshot().signed.version),
            next(repository.timestamp().signed.version),
        );
        let root = root::newest(&self.metadata())?;
        let editor = RepositoryEditor::from_repo(&root, repository).await;
        let mut editor = editor.map_err(PublishError::tuf("read what is published"))?;
        change(&mut editor)?;
        let (signed, expires) = self.signed(editor, versions, validity).await?;
        self.write_metadata(&signed).await?;
        let releases = self.load().await?.all_targets().count();
        Ok(Published { added, releases, version: versions.2.get(), expires })
    }

    async fn signed(
        &self,
        mut editor: RepositoryEditor,
        (targets, snapshot, timestamp): (NonZeroU64, NonZeroU64, NonZeroU64),
        validity: Validity,
    ) -> Result<(SignedRepository, jiff::Timestamp), PublishError> {
        let expires = days_from_now(validity.timestamp)?;
        let later = days_from_now(validity.targets.max(validity.timestamp))?;
        editor.targets_version(targets).map_err(PublishError::tuf("number the targets"))?;
        editor.targets_expires(later).map_err(PublishError::tuf("date the targets"))?;
        editor.snapshot_version(snapshot).snapshot_expires(later);
        editor.timestamp_version(timestamp).timestamp_expires(expires);
        let mut sources: Vec<Box<dyn KeySource>> = Vec::new();
        for (_role, name) in keys::ROLES.into_iter().filter(|(_, name)| *name != "root") {
            let files = keys::of_role(&self.keys(), name).map_err(io(&self.keys(), "read"))?;
            sources.extend(files.into_iter().map(|it| Box::new(keys::KeyFile(it)) as _));
        }
        let signed = editor.sign(&sources).await;
        Ok((signed.map_err(PublishError::tuf("sign (are the keys of all roles there?)"))?, expires))
    }

    /// Puts signed metadata where it is served, `timestamp.json` last: it is what makes the rest count.
    async fn write_metadata(&self, signed: &SignedRepository) -> Result<(), PublishError> {
        let scratch = tempfile::tempdir_in(&self.dir).map_err(io(&self.dir, "write in"))?;
        signed.write(scratch.path()).await.map_err(PublishError::tuf("write metadata"))?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(scratch.path()).map_err(io(scratch.path(), "read"))? {
            names.push(entry.map_err(io(scratch.path(), "read"))?.file_name());
        }
        names.sort_by_key(|name| name == "timestamp.json");
        for name in names {
            let (from, to) = (scratch.path().join(&name), self.metadata().join(&name));
            let bytes = std::fs::read(&from).map_err(io(&from, "read"))?;
            write(&to, &bytes)?;
        }
        Ok(())
    }

    fn staged_bundles(&self) -> Result<Vec<PathBuf>, PublishError> {
        let dir = self.staged();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(&dir, "read")(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(io(&dir, "read"))?.path();
            if path.extension().is_some_and(|ending| ending == "tdb") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn list(editor: &mut RepositoryEditor, name: String, target: Target) -> Result<(), PublishError> {
    editor.add_target(name, target).map(drop).map_err(PublishError::tuf("list a bundle"))
}

/// What `add` has verified.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Staged {
    sha256: Digest,
    entry: Entry,
}

/// What is published is what was verified.
fn read_staged(path: &Path) -> Result<(Staged, Vec<u8>), PublishError> {
    let note = path.with_extension("tdb.json");
    let text = std::fs::read(&note).map_err(io(&note, "read"))?;
    let staged: Staged = serde_json::from_slice(&text)
        .map_err(|error| io(&note, "read")(std::io::Error::other(error)))?;
    let bytes = std::fs::read(path).map_err(io(path, "read"))?;
    if Digest(Sha256::digest(&bytes).into()) != staged.sha256 {
        let changed = std::io::Error::other("it was changed after it was added: add it again");
        return Err(io(path, "publish")(changed));
    }
    Ok((staged, bytes))
}

fn days_from_now(days: u32) -> Result<jiff::Timestamp, PublishError> {
    let span = jiff::SignedDuration::from_hours(24 * i64::from(days));
    jiff::Timestamp::now()
        .checked_add(span)
        .map_err(|error| PublishError::Numbers(format!("{days} days from now is no date: {error}")))
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> PublishError {
    let path = path.to_owned();
    move |error| PublishError::Io { path, action, error }
}

fn make_dir(path: &Path) -> Result<(), PublishError> {
    std::fs::create_dir_all(path).map_err(io(path, "make"))
}

/// Writes a file so that others see it whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    files::replace(path, bytes).map_err(io(path, "write"))
}

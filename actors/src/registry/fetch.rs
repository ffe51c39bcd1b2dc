//! Bundles on their way here: fetched by digest, resumed where they broke off, believed only when they are whole.
//!
//! ```text
//! (nothing) ─▶ DIGEST.part ─all there─▶ hash ─right─▶ DIGEST.tdb
//!                 ▲  └─ broke off: stays, and the next attempt goes on behind it
//!                 └──── wrong: removed; once more from the beginning, and then it is an error
//! ```
//!
//! A part that is resumed may be of something else: the hash at the end decides, over every byte. What is kept is hashed
//! again each time it is used.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use themis_messages::ids::Digest;
use themis_messages::limits::{REGISTRY_BUNDLES_KEPT, REGISTRY_HASH_DEADLINE};
use themis_messages::registry::{FetchFailure, Progress, RegistryError, Release};
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::http::{Http, Resume};
use super::operation::Operation;
use crate::work;

/// Bytes hashed at a time.
const HASH_CHUNK: usize = 256 << 10;
/// Progress is told when so many more bytes are here.
const TELL_EVERY: u64 = 128 << 10;

/// The directory of fetched bundles.
#[derive(Debug, Clone)]
pub struct Bundles {
    dir: PathBuf,
}

impl Bundles {
    /// In this directory, which is made when it is first needed.
    #[must_use]
    pub fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn file(&self, digest: Digest, ending: &str) -> PathBuf {
        self.dir.join(format!("{digest}.{ending}"))
    }

    /// The bundle of a release, if it is here and still what it was.
    ///
    /// # Errors
    /// [`RegistryError::Io`].
    pub async fn held(&self, release: &Release) -> Result<Option<PathBuf>, RegistryError> {
        let path = self.file(release.sha256, "tdb");
        match hash(path.clone()).await {
            Ok(digest) if digest == release.sha256 => Ok(Some(path)),
            Ok(_changed) => {
                tracing::warn!(path = %path.display(), "a fetched bundle was changed and is fetched anew");
                remove(&path).await?;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RegistryError::io(&path, "read", &error)),
        }
    }

    /// Fetches the bundle of a release, unless it is here.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Digest`] when it is not what it must be, twice.
    pub async fn fetch(
        &self,
        http: &Http,
        operation: &Operation,
        url: &Url,
        release: &Release,
    ) -> Result<PathBuf, RegistryError> {
        if let Some(held) = self.held(release).await? {
            return Ok(held);
        }
        let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).await;
        made.map_err(|error| RegistryError::io(&self.dir, "make", &error))?;
        let part = self.file(release.sha256, "part");
        let mut difference = String::new();
        // What was resumed may have been of something else: whether it was the server, the second attempt tells.
        for _ in 0..2 {
            operation.retry(|| self.attempt(http, operation, url, release)).await?;
            match check(&part, release).await? {
                None => return self.keep(&part, release).await,
                Some(what) => difference = what,
            }
            remove(&part).await?;
            remove(&self.file(release.sha256, "tag")).await?;
        }
        let (plugin, version) = (release.plugin.clone(), release.version.clone());
        Err(RegistryError::Digest { plugin, version, url: url.to_string(), what: difference })
    }

    /// Fetches what is missing of it.
    async fn attempt(
        &self,
        http: &Http,
        operation: &Operation,
        url: &Url,
        release: &Release,
    ) -> Result<(), FetchFailure> {
        let (part, tag) = (self.file(release.sha256, "part"), self.file(release.sha256, "tag"));
        let here = tokio::fs::metadata(&part).await.map_or(0, |found| found.len());
        let known =
            tokio::fs::read_to_string(&tag).await.ok().filter(|_| here > 0 && here < release.bytes);
        let resume = known.map(|tag| Resume { from: here, tag });
        let mut body = http.get(url, release.bytes, resume.as_ref()).await?;
        let failed = |error: &std::io::Error| FetchFailure::Store {
            path: part.clone(),
            error: error.to_string(),
        };
        let mut options = tokio::fs::OpenOptions::new();
        let options = options.create(true).mode(0o600);
        let opened = match body.offset {
            0 => options.write(true).truncate(true).open(&part).await,
            _ => options.append(true).open(&part).await,
        };
        let mut file = opened.map_err(|error| failed(&error))?;
        let mut bytes = body.offset;
        // Without a tag there is no telling later whether it is still the same content.
        let noted = match &body.tag {
            Some(text) => tokio::fs::write(&tag, text).await,
            None => remove_file(&tag).await,
        };
        noted.map_err(|error| failed(&error))?;
        let mut told = bytes;
        while let Some(chunk) = body.chunk().await? {
            file.write_all(&chunk).await.map_err(|error| failed(&error))?;
            bytes = bytes.saturating_add(chunk.len() as u64);
            operation.received(chunk.len() as u64);
            if bytes.saturating_sub(told) >= TELL_EVERY || bytes == release.bytes {
                told = bytes;
                operation.tell(Progress::Fetching {
                    plugin: release.plugin.clone(),
                    version: release.version.clone(),
                    bytes,
                    of: release.bytes,
                });
            }
        }
        file.flush().await.map_err(|error| failed(&error))?;
        file.sync_all().await.map_err(|error| failed(&error))
    }

    async fn keep(&self, part: &Path, release: &Release) -> Result<PathBuf, RegistryError> {
        let kept = self.file(release.sha256, "tdb");
        let renamed = tokio::fs::rename(part, &kept).await;
        renamed.map_err(|error| RegistryError::io(&kept, "keep", &error))?;
        remove(&self.file(release.sha256, "tag")).await?;
        let synced = async { tokio::fs::File::open(&self.dir).await?.sync_all().await };
        synced.await.map_err(|error| RegistryError::io(&self.dir, "sync", &error))?;
        let tidied = self.tidy().await;
        tidied.map_err(|error| RegistryError::io(&self.dir, "tidy", &error))?;
        Ok(kept)
    }

    /// Lets the oldest go.
    async fn tidy(&self) -> Result<(), std::io::Error> {
        let mut files = Vec::new();
        let mut entries = tokio::fs::read_dir(&self.dir).await?;
        while let Some(entry) = entries.next_entry().await? {
            files.push((entry.metadata().await?.modified()?, entry.path()));
        }
        files.sort();
        let surplus = files.len().saturating_sub(REGISTRY_BUNDLES_KEPT);
        for (_, path) in files.iter().take(surplus) {
            remove_file(path).await?;
        }
        Ok(())
    }
}

/// What is wrong with a fetched bundle, if anything is.
async fn check(part: &Path, release: &Release) -> Result<Option<String>, RegistryError> {
    let found = tokio::fs::metadata(part).await;
    let length = found.map_err(|error| RegistryError::io(part, "read", &error))?.len();
    if length != release.bytes {
        return Ok(Some(format!("{length} bytes in place of {}", release.bytes)));
    }
    let digest =
        hash(part.to_owned()).await.map_err(|error| RegistryError::io(part, "read", &error))?;
    Ok((digest != release.sha256)
        .then(|| format!("its SHA-256 is {digest} in place of {}", release.sha256)))
}

/// The SHA-256 of a file.
pub(super) async fn hash(path: PathBuf) -> Result<Digest, std::io::Error> {
    let hashed = work::run("hash", REGISTRY_HASH_DEADLINE, move || {
        let (mut file, mut hasher) = (File::open(&path)?, Sha256::new());
        let mut buffer = vec![0; HASH_CHUNK];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Digest(hasher.finalize().into())),
                count => hasher.update(&buffer[..count]),
            }
        }
    });
    hashed.await.map_err(std::io::Error::other)?
}

async fn remove(path: &Path) -> Result<(), RegistryError> {
    remove_file(path).await.map_err(|error| RegistryError::io(path, "remove", &error))
}

/// Gone is gone, whoever removed it.
async fn remove_file(path: &Path) -> Result<(), std::io::Error> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

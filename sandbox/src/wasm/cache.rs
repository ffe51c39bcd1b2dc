//! Compiled modules on disk, so that the next start of the host compiles nothing that it has compiled before.
//!
//! ```text
//! <data_dir>/compiled/key                     64 random bytes, for nobody but the host's user
//!                     <digest>-<engine>.code  MAC, 32 bytes ‖ what the engine serialised
//! ```
//!
//! Whoever can have the engine load bytes of their choice runs code in the host. So an artefact counts only with a MAC
//! (HMAC-SHA-256) over its content, the module's digest and the engine's configuration, under a key that lies beside it with
//! mode 0600. What does not verify is removed, told, and compiled anew; what cannot be written is compiled again the next
//! time. Nothing here refuses a plugin.

#![expect(unsafe_code, reason = "the engine takes it on trust that an artefact is its own")]

use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use themis_messages::ids::Digest;
use themis_messages::limits::{WASM_ARTEFACT_BYTES_MAX, WASM_ARTEFACTS_MAX};
use wasmtime::{Engine, Module};

/// As many as a block of the hash.
const KEY_BYTES: usize = 64;
const MAC_BYTES: usize = 32;
/// Changes with everything that the meter makes of a module: what an older one has metered is not loaded.
const METER: &str = "themis meter 1";

/// The artefacts of one data directory and engine.
pub(super) struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    /// Of the engine's version, configuration and machine.
    engine: u64,
}

impl Cache {
    /// Opens the directory, or makes it with a new key.
    pub(super) fn open(dir: &Path, engine: &Engine) -> std::io::Result<Self> {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        check_private(&std::fs::symlink_metadata(dir)?)?;
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        METER.hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), key: key(&dir.join("key"))?, engine: hasher.finish() })
    }

    fn path(&self, module: Digest) -> PathBuf {
        self.dir.join(format!("{module}-{:016x}.code", self.engine))
    }

    fn mac(&self, module: Digest, artefact: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(METER.as_bytes());
        mac.update(&module.0);
        mac.update(&self.engine.to_le_bytes());
        mac.update(artefact);
        mac
    }

    /// What was compiled of a module before, if that can be trusted.
    pub(super) fn load(&self, engine: &Engine, module: Digest) -> Option<Module> {
        let path = self.path(module);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => return self.distrust(&path, &error.to_string()),
        };
        let Some((mac, artefact)) = bytes.split_first_chunk::<MAC_BYTES>() else {
            return self.distrust(&path, "it is cut short");
        };
        if self.mac(module, artefact).verify_slice(mac).is_err() {
            return self.distrust(&path, "its authentication code is not this host's");
        }
        // SAFETY: the code verifies under a key that only this user can read, so these bytes, for this module and engine, are
        // what `store` had from the engine; they are in memory of our own and do not change.
        match unsafe { Module::deserialize(engine, artefact) } {
            Ok(module) => Some(module),
            Err(error) => self.distrust(&path, &format!("{error:#}")),
        }
    }

    fn distrust(&self, path: &Path, why: &str) -> Option<Module> {
        let removed = std::fs::remove_file(path);
        let path = path.display();
        match removed {
            Ok(()) => {
                tracing::warn!(%path, why, "compiled code is not trusted: removed, and compiled anew")
            }
            Err(error) => {
                tracing::warn!(%path, why, %error, "compiled code is not trusted, and cannot be removed")
            }
        }
        None
    }

    /// Keeps what was compiled. The plugin runs all the same when that fails.
    pub(super) fn store(&self, digest: Digest, module: &Module) {
        let path = self.path(digest);
        let kept = module.serialize().map_err(|error| error.to_string()).and_then(|artefact| {
            let mac = self.mac(digest, &artefact).finalize().into_bytes();
            let kept = write(&path, &[mac.as_slice(), &artefact]).and_then(|()| self.thin());
            kept.map_err(|error| error.to_string())
        });
        if let Err(error) = kept {
            let path = path.display();
            tracing::warn!(%path, %error, "compiled code was not kept: the next start compiles it again");
        }
    }

    /// Removes the oldest beyond what is kept.
    fn thin(&self) -> std::io::Result<()> {
        let mut artefacts: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|ending| ending == "code") {
                artefacts.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        artefacts.sort_unstable();
        let beyond = artefacts.len().saturating_sub(WASM_ARTEFACTS_MAX);
        artefacts.iter().take(beyond).try_for_each(|(_, path)| std::fs::remove_file(path))
    }
}

/// The key of the directory, or a new one.
fn key(path: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    match read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_wrong: Vec<u8>| {
            std::io::Error::other(format!("{} is no key: remove it", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; KEY_BYTES];
            getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
            write(path, &[&key])?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// Reads a file that nobody else can have written.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    check_private(&metadata)?;
    if !metadata.is_file() || metadata.len() > WASM_ARTEFACT_BYTES_MAX {
        return Err(std::io::Error::other("it is no regular file, or too large"));
    }
    let mut bytes = Vec::new();
    file.take(WASM_ARTEFACT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_private(metadata: &std::fs::Metadata) -> std::io::Result<()> {
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if ours && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(std::io::Error::other("it belongs to somebody else, or others have rights to it"))
}

/// Writes a file beside its place and moves it there.
fn write(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        std::fs::rename(&fresh, path)
    })();
    if written.is_err() {
        // What is left of it is replaced the next time.
        drop(std::fs::remove_file(&fresh));
    }
    written
}

#[cfg(test)]
mod tests;

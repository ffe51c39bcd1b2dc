//! Plugins in their places below the plugin root: put there whole, found as they were put, taken away again.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use themis_messages::ids::Digest;
use themis_messages::manifest::{MANIFEST_FILE, SIGNATURE_FILE};
use themis_messages::registry::RegistryError;

use super::fetch::hash;
use super::install::off_thread;

/// Where plugins wait below the plugin root until all of them are there. The loader passes over names with a dot.
pub(super) const STAGING: &str = ".installing";

/// Whether a plugin lies there as it was installed, file by file; what is not there at all is not an error.
///
/// # Errors
/// [`RegistryError::Io`] for what was changed, or cannot be read: it is somebody's, and not overwritten.
pub(super) async fn is_intact(
    place: &Path,
    files: &BTreeMap<String, Digest>,
) -> Result<bool, RegistryError> {
    if !place.join(MANIFEST_FILE).is_file() {
        return Ok(false);
    }
    for (name, expected) in files {
        let path = place.join(name);
        let found = hash(path.clone()).await;
        let found = found.map_err(|error| RegistryError::io(&path, "read", &error))?;
        if found != *expected {
            let what =
                "it was changed since it was installed; move the directory away and install again";
            return Err(RegistryError::io(&path, "keep", &std::io::Error::other(what)));
        }
    }
    Ok(true)
}

/// Takes away what an installation left that was cut short. There is no other under way: one has the store.
pub(super) fn clear(root: &Path) -> Result<(), RegistryError> {
    for entry in std::fs::read_dir(root).map_err(|error| RegistryError::io(root, "read", &error))? {
        let path = entry.map_err(|error| RegistryError::io(root, "read", &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(STAGING) {
            std::fs::remove_dir_all(&path)
                .map_err(|error| RegistryError::io(&path, "remove", &error))?;
        }
    }
    Ok(())
}

/// Moves a plugin to its place; answers whether it was not there already. One that was put there by an installation that
/// was cut short is the same plugin: the loader verifies each of its files again.
pub(super) fn put(from: &Path, to: &Path) -> Result<bool, RegistryError> {
    let parent = to.parent().unwrap_or(to);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
    made.map_err(|error| RegistryError::io(parent, "make", &error))?;
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) if is_same(from, to) => return Ok(false),
        Err(rustix::io::Errno::EXIST) => {
            let what = "there is something already that was not installed from the registry; \
                        move it away";
            return Err(RegistryError::io(to, "install", &std::io::Error::other(what)));
        }
        Err(errno) => return Err(RegistryError::io(to, "install", &errno.into())),
    }
    let synced = std::fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(|error| RegistryError::io(parent, "sync", &error))?;
    Ok(true)
}

/// Whether two directories are of the same signed manifest.
fn is_same(one: &Path, other: &Path) -> bool {
    [MANIFEST_FILE, SIGNATURE_FILE].iter().all(|name| {
        let read = |dir: &Path| std::fs::read(dir.join(name));
        matches!((read(one), read(other)), (Ok(one), Ok(other)) if one == other)
    })
}

/// Takes back what was put in place for nothing.
pub(super) async fn take_away(placed: Vec<PathBuf>) {
    for place in placed {
        let removed = place.clone();
        let removing = off_thread(&place, "remove", move || {
            std::fs::remove_dir_all(&removed)
                .map_err(|error| RegistryError::io(&removed, "remove", &error))
        });
        if let Err(error) = removing.await {
            tracing::error!(%error, "what was installed for nothing is still there");
        }
    }
}

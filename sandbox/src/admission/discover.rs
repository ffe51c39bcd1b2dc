//! Finds every plugin version below the root and verifies each in full, without keeping any.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use themis_messages::admit::AdmitError;
use themis_messages::limits::DISCOVERY_VERSIONS_MAX;

use super::policy::Policy;
use super::root::{Dir, PluginRoot};
use super::sealed::hash;
use super::signed::{Summary, check_files, check_listing, check_signed};
use super::source::Source;

/// Fewest threads: hashing one plugin hides the disk's wait for another.
const THREADS_MIN: usize = 2;
/// Most threads: the host has other things to do at its start.
const THREADS_MAX: usize = 8;

/// One plugin version below the root, or what stands in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// Its directory.
    pub path: PathBuf,
    /// What it is, or why it is refused. Its code is looked at only when it is loaded.
    pub result: Result<Summary, AdmitError>,
}

/// Verifies signature, listing and every file of each `<name>/<version>` below the root, sorted by path.
/// Names that begin with a dot, and files, are passed over.
///
/// # Errors
/// [`AdmitError`] when the root itself cannot be listed or holds more versions than can be looked at; a
/// refused plugin is a result, not an error.
pub fn discover(
    root: &PluginRoot,
    policy: &Policy,
    now: jiff::Timestamp,
) -> Result<Vec<Discovered>, AdmitError> {
    let (places, mut found) = places(root)?;
    let cores = std::thread::available_parallelism().map_or(THREADS_MIN, usize::from);
    let threads = cores.clamp(THREADS_MIN, THREADS_MAX).min(places.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let path = root.path().join(&place.name).join(&place.version);
            done.push(Discovered { path, result: verify(root, place, policy, now) });
        }
        done
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|_| {
                std::thread::Builder::new().name("discover".to_owned()).spawn_scoped(scope, work)
            })
            .collect();
        for thread in started {
            let thread = thread.map_err(|error| failed(root, error.to_string()))?;
            let done = thread
                .join()
                .map_err(|_panic| failed(root, "a verifying thread panicked".to_owned()))?;
            found.extend(done);
        }
        Ok::<_, AdmitError>(())
    })?;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn failed(root: &PluginRoot, error: String) -> AdmitError {
    AdmitError::Io { path: root.path().to_owned(), action: "verify what lies below", error }
}

/// Where a version lies.
struct Place {
    name: String,
    version: String,
}

/// Every version's place, and the refusals that need no look inside.
fn places(root: &PluginRoot) -> Result<(Vec<Place>, Vec<Discovered>), AdmitError> {
    let (mut places, mut refused) = (Vec::new(), Vec::new());
    let dir = root.dir()?;
    for name in directories(dir, &mut refused)? {
        let below = dir.open_dir(&name).and_then(|dir| directories(&dir, &mut refused));
        match below {
            Ok(versions) => places
                .extend(versions.into_iter().map(|version| Place { name: name.clone(), version })),
            Err(error) => {
                refused.push(Discovered { path: dir.path.join(&name), result: Err(error) });
            }
        }
        if places.len() > DISCOVERY_VERSIONS_MAX {
            return Err(failed(root, format!("more than {DISCOVERY_VERSIONS_MAX} versions")));
        }
    }
    Ok((places, refused))
}

/// The directories in a directory. A link is reported: it looks like a plugin but never is one.
fn directories(dir: &Dir, refused: &mut Vec<Discovered>) -> Result<Vec<String>, AdmitError> {
    let mut names = Vec::new();
    for entry in dir.entries(DISCOVERY_VERSIONS_MAX + 1)? {
        if entry.name.starts_with('.') {
            continue;
        }
        if entry.kind.is_dir() {
            names.push(entry.name);
        } else if entry.kind.is_symlink() {
            let path = dir.path.join(entry.name);
            let result = Err(AdmitError::PathSymlink { path: path.clone() });
            refused.push(Discovered { path, result });
        }
    }
    Ok(names)
}

fn verify(
    root: &PluginRoot,
    place: &Place,
    policy: &Policy,
    now: jiff::Timestamp,
) -> Result<Summary, AdmitError> {
    let dir = root.dir()?.open_dir(&place.name)?.open_dir(&place.version)?;
    let summary =
        check_signed(Source::Dir(&dir), Some((&place.name, &place.version)), policy, now)?;
    check_listing(Source::Dir(&dir), &summary.manifest)?;
    check_files(Source::Dir(&dir), &summary.manifest, policy, |_, file| {
        hash(&file, policy.file_bytes_max).map(|(digest, _size)| digest)
    })?;
    Ok(summary)
}

#[cfg(test)]
mod tests;

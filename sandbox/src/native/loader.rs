//! Hands verified files to the system's loader, one at a time, and remembers what is mapped.
//!
//! ```text
//! idle ──enter──▶ loading(plugin, since) ──dlopen returned──▶ idle
//!                        └──longer than the limit──▶ stuck: nobody enters any more
//! ```
//!
//! The loader compares *names* before it looks at files: a descriptor's number that is used again, spelled
//! the same, gives the library that had it before. So every load spells its path in a new way.
#![expect(unsafe_code, reason = "dlopen runs the plugin's constructors")]

use std::collections::BTreeMap;
use std::error::Error;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use parking_lot::{Mutex, MutexGuard};
use themis_messages::ids::Digest;
use themis_messages::lifecycle::MapError;
use themis_messages::limits::{HOOK_MESSAGE_BYTES_MAX, IMAGES_MAX, LOADER_STUCK_AFTER};
use themis_plugin::abi;

use super::image::{Image, Mapped};
use super::proof;
use super::services::clean_text;
use crate::admission::{AdmittedPlugin, Descriptor, SealedFile};

/// The process has one system loader, so there is one of these.
static LOADER: Loader = Loader::new(LOADER_STUCK_AFTER);

/// Maps an admitted plugin's image, or finds it mapped already. Blocks, and runs the image's constructors:
/// call it on a thread of the kernel's own.
///
/// # Errors
/// The system's loader refused, what it mapped is not the verified file, a required entry is missing, there
/// are too many images, or an earlier constructor never returned.
pub fn map(plugin: &AdmittedPlugin) -> Result<Arc<Image>, MapError> {
    LOADER.map(plugin.manifest.name.as_str(), &plugin.image, &plugin.descriptor)
}

/// The plugin whose constructor holds the system's loader for longer than a hook may take: nothing can be
/// mapped in this process until it returns.
#[must_use]
pub fn loader_stuck() -> Option<String> {
    LOADER.stuck()
}

/// How many images are mapped, for metrics: each takes address space for good.
#[must_use]
pub fn mapped_images() -> usize {
    LOADER.images.lock().opened
}

/// The one way to the system's loader.
pub(super) struct Loader {
    /// Held while the system's loader is at work.
    entry: Mutex<()>,
    /// Who holds it.
    current: Mutex<Option<Loading>>,
    images: Mutex<Images>,
    limit: Duration,
}

struct Loading {
    plugin: String,
    since: Instant,
}

struct Images {
    by_digest: BTreeMap<Digest, Arc<Mapped>>,
    /// Files the system's loader took, also those that were refused afterwards: all stay mapped.
    opened: usize,
}

/// The right to use the system's loader.
struct Entered<'a> {
    loader: &'a Loader,
    _entry: MutexGuard<'a, ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.loader.current.lock().take();
    }
}

impl Loader {
    pub(super) const fn new(limit: Duration) -> Self {
        Self {
            entry: Mutex::new(()),
            current: Mutex::new(None),
            images: Mutex::new(Images { by_digest: BTreeMap::new(), opened: 0 }),
            limit,
        }
    }

    pub(super) fn map(
        &self,
        plugin: &str,
        file: &SealedFile,
        described: &Descriptor,
    ) -> Result<Arc<Image>, MapError> {
        if let Some(image) = self.known(file) {
            return Ok(image);
        }
        let _entered = self.enter(plugin)?;
        // Another thread may have mapped it while this one waited.
        if let Some(image) = self.known(file) {
            return Ok(image);
        }
        self.room()?;
        let descriptor = open(file)?;
        self.images.lock().opened += 1;
        let mapped = proof::prove(descriptor?, file, described)?;
        let mut images = self.images.lock();
        let twin = images.by_digest.values().find(|other| other.address == mapped.address);
        if let Some(twin) = twin {
            let what = format!("it is the image of digest {}", twin.evidence.digest);
            return Err(MapError::NotTheVerifiedImage { what });
        }
        let mapped = Arc::new(mapped);
        images.by_digest.insert(file.digest(), Arc::clone(&mapped));
        Ok(Image::new(mapped, false))
    }

    pub(super) fn stuck(&self) -> Option<String> {
        let current = self.current.lock();
        current
            .as_ref()
            .filter(|loading| loading.since.elapsed() > self.limit)
            .map(|loading| loading.plugin.clone())
    }

    fn known(&self, file: &SealedFile) -> Option<Arc<Image>> {
        let images = self.images.lock();
        images.by_digest.get(&file.digest()).map(|mapped| Image::new(Arc::clone(mapped), true))
    }

    /// Waits for its turn, but never behind a constructor that hangs.
    fn enter(&self, plugin: &str) -> Result<Entered<'_>, MapError> {
        loop {
            if let Some(plugin) = self.stuck() {
                return Err(MapError::LoaderStuck { plugin });
            }
            // Whoever holds the entry now is overdue when this has passed, or has let another one in.
            if let Some(entry) = self.entry.try_lock_for(self.limit) {
                let loading = Loading { plugin: plugin.to_owned(), since: Instant::now() };
                *self.current.lock() = Some(loading);
                return Ok(Entered { loader: self, _entry: entry });
            }
        }
    }

    fn room(&self) -> Result<(), MapError> {
        let mapped = self.images.lock().opened;
        if mapped >= IMAGES_MAX {
            return Err(MapError::TooManyImages { mapped, max: IMAGES_MAX });
        }
        Ok(())
    }
}

/// Where the system's loader found a descriptor, if it did.
type Found = Result<*const abi::Descriptor, MapError>;

/// Lets the system's loader map the file, for good. The inner result is about what is mapped then.
fn open(file: &SealedFile) -> Result<Found, MapError> {
    let path = fresh_path(file.fd().as_raw_fd());
    let refused = |error| MapError::Loader { what: loaders_words(&error, &path) };
    // SAFETY: this runs constructors. Their bytes are sealed, and were verified and pre-flighted: whoever
    // signed them is trusted to run code in this process.
    let library = unsafe { Library::open(Some(path.as_str()), RTLD_NOW | RTLD_LOCAL) };
    // Never closed: see the module `native`.
    let library = ManuallyDrop::new(library.map_err(refused)?);
    // SAFETY: the symbol's address is taken as a pointer, and proved before it is followed.
    let symbol = unsafe { library.get::<*const abi::Descriptor>(abi::DESCRIPTOR_SYMBOL) };
    Ok(symbol.map(|symbol| *symbol).map_err(refused))
}

/// What the system's loader said, without this module's path. It can quote names from the file, so it is
/// bounded and cleaned like any text of a plugin.
fn loaders_words(error: &libloading::Error, path: &str) -> String {
    let words = match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    let words = words.replace(path, "the image");
    let kept = words.len().min(HOOK_MESSAGE_BYTES_MAX);
    clean_text(&words.as_bytes()[..kept], kept < words.len())
}

/// A path to the descriptor, spelled as never before: the digits of a counter, in binary, are written as
/// `./` and `.//`.
fn fresh_path(fd: RawFd) -> String {
    static LOADS: AtomicU64 = AtomicU64::new(2);
    spelled(LOADS.fetch_add(1, Ordering::Relaxed), fd)
}

fn spelled(number: u64, fd: RawFd) -> String {
    let digits = number.ilog2();
    let mut path = String::from("/proc/self/fd/");
    // The leading one is told by how many digits follow.
    for digit in (0..digits).rev() {
        path.push_str(if number >> digit & 1 == 1 { ".//" } else { "./" });
    }
    path.push_str(&fd.to_string());
    path
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_loads_spell_their_path_alike() {
        let paths: BTreeSet<_> = (2..5_000).map(|number| spelled(number, 7)).collect();
        assert_eq!(paths.len(), 4_998);
        assert!(!paths.contains("/proc/self/fd/7"), "what anybody else might have used");
        assert!(spelled(u64::MAX, RawFd::MAX).len() < 256, "short for every counter");
    }
}

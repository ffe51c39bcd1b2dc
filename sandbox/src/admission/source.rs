//! Where a plugin's files come from: its directory, or a bundle of the same files.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use themis_messages::admit::AdmitError;
use themis_messages::bundle::BundleFault;
use themis_messages::limits::BUNDLE_BYTES_MAX;

use super::bundle::{Bundle, Entry};
use super::root::{Dir, PluginFile, from_io};
use super::sealed::{Purpose, SealedFile, Sealer};

/// The ending of a bundle's name.
pub(super) const BUNDLE_ENDING: &str = "tdb";

/// Whether a file's name is a bundle's.
pub(super) fn is_bundle(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == BUNDLE_ENDING)
}

/// The files of one plugin version.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Dir(&'a Dir),
    Bundle(&'a OpenBundle<'a>),
}

/// A bundle whose structure has been checked, over a copy that nobody can change.
#[derive(Debug)]
pub(super) struct OpenBundle<'a> {
    path: PathBuf,
    bundle: Bundle<'a>,
}

impl<'a> OpenBundle<'a> {
    /// Copies and seals a bundle's file, so that what is checked is what is read later.
    pub(super) fn seal(sealer: &Sealer<'_>, file: PluginFile) -> Result<SealedFile, AdmitError> {
        sealer.seal(file, BUNDLE_BYTES_MAX, Purpose::Data)
    }

    pub(super) fn read(path: &Path, bytes: &'a [u8]) -> Result<Self, AdmitError> {
        let bundle = Bundle::read(bytes).map_err(|fault| refused(path, fault))?;
        Ok(Self { path: path.to_owned(), bundle })
    }

    /// The paths of its entries.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.bundle.entries().iter().map(|entry| entry.path())
    }

    /// The path, the size and the packed size of its entries.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let sizes = |entry: &Entry<'a>| (entry.path(), entry.size(), entry.packed_size());
        self.bundle.entries().iter().map(sizes)
    }

    /// Unpacks one entry into memory that is a file to everybody else.
    fn open(&self, name: &str) -> Result<PluginFile, AdmitError> {
        let path = self.path.join(name);
        let entry = self.bundle.open(name).map_err(|fault| {
            if matches!(fault, BundleFault::MissingFile { .. }) {
                AdmitError::NotFound { path: path.clone() }
            } else {
                refused(&self.path, fault)
            }
        })?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("themis-bundle", flags);
        let memory = memory.map_err(|errno| from_io(&path, "unpack", &errno.into()))?;
        let mut file = File::from(memory);
        entry.extract(&mut file).map_err(|fault| refused(&self.path, fault))?;
        let rewound = file.flush().and_then(|()| file.rewind());
        rewound.map_err(|error| from_io(&path, "unpack", &error))?;
        Ok(PluginFile { file, path, size: entry.size() })
    }
}

fn refused(path: &Path, fault: BundleFault) -> AdmitError {
    AdmitError::Bundle { path: path.to_owned(), fault }
}

impl Source<'_> {
    /// For messages: the directory's path or the bundle's.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Dir(dir) => &dir.path,
            Self::Bundle(bundle) => &bundle.path,
        }
    }

    /// Opens a file by its `/`-separated path.
    pub(super) fn open_path(&self, path: &str) -> Result<PluginFile, AdmitError> {
        match self {
            Self::Dir(dir) => dir.open_path(path),
            Self::Bundle(bundle) => bundle.open(path),
        }
    }
}

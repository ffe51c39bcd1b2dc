//! Why the store could not be opened, read or written.

use std::path::PathBuf;

/// A failure of the store; the text of the database is kept, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The system would not do something with the directory.
    #[error("{path}: cannot {action}: {error}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// Something else is where the data directory should be.
    #[error("{path}: is not a directory", path = path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Others could read or change what is kept.
    #[error("{path}: is accessible by group or others (mode {mode:04o}): run `chmod 700`", path = path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// The owner of the directory can do with it what they like, and it is not us.
    #[error("{path}: belongs to uid {uid}, which is neither root nor the kernel's own", path = path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// The owner.
        uid: u32,
    },
    /// There is no store to read.
    #[error("{path}: there is no store here", path = path.display())]
    NotFound {
        /// The data directory.
        path: PathBuf,
    },
    /// Another kernel has it open.
    #[error("{path}: the store is in use by another kernel, which must be stopped first", path = path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error("{path}: the store has format {found}, this release knows up to {supported}", path = path.display())]
    FormatTooNew {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The newest this release knows.
        supported: u64,
    },
    /// No readable format number although there is data.
    #[error("{path}: the store does not say which format it has", path = path.display())]
    FormatUnreadable {
        /// The data directory.
        path: PathBuf,
    },
    /// A key space this release does not know: written by a newer one.
    #[error("{path}: the store has a key space {name:?} that this release does not know", path = path.display())]
    KeySpaceUnknown {
        /// The data directory.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// A key space that every store has is not there.
    #[error("the store has no key space {name:?}")]
    KeySpaceMissing {
        /// Its name.
        name: &'static str,
    },
    /// Asked to write into a store opened for reading.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The database failed: disk full, read error, damaged file.
    #[error("the database cannot {action}: {error}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// The database's words.
        error: String,
    },
}

impl StoreError {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "store.io",
            Self::NotADirectory { .. } => "store.not_a_directory",
            Self::OpenToOthers { .. } => "store.open_to_others",
            Self::ForeignOwner { .. } => "store.foreign_owner",
            Self::NotFound { .. } => "store.not_found",
            Self::Locked { .. } => "store.locked",
            Self::FormatTooNew { .. } => "store.format_too_new",
            Self::FormatUnreadable { .. } => "store.format_unreadable",
            Self::KeySpaceUnknown { .. } => "store.key_space_unknown",
            Self::KeySpaceMissing { .. } => "store.key_space_missing",
            Self::ReadOnly => "store.read_only",
            Self::Database { .. } => "store.database",
        }
    }
}

//! Why a configuration is refused, with file, line, column and key.

use std::fmt;
use std::path::PathBuf;

use themis_messages::admit::KeyError;

/// Where in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key with the tables it is in, for example `plugin.geo.tier`; empty when there is none.
    pub key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, ": {}", self.key) }
    }
}

/// Why a configuration is refused. Nothing of it is used then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The system would not read the file.
    #[error("{path}: cannot {action}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// A directory, device or pipe.
    #[error("{path}: is not a regular file", path = path.display())]
    WrongFileType {
        /// The path.
        path: PathBuf,
    },
    /// Others could change what is trusted.
    #[error("{path}: is writable by group or others (mode {mode:04o}): run `chmod go-w`", path = path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Over the size cap.
    #[error("{path}: {size} bytes are over the limit of {max}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes, or as much of it as was read.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// Not text.
    #[error("{path}: is not UTF-8", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// Not TOML, a key that is not known, or a value that a key may not have.
    #[error("{at}: {what}")]
    Invalid {
        /// Where.
        at: Place,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A key that cannot be read or must not be trusted.
    #[error("{at}: {error}")]
    Key {
        /// Where it is named.
        at: Place,
        /// What is wrong with it.
        error: Box<KeyError>,
    },
    /// Right in itself, but it asks for what cannot be given; ignoring it would promise what does not hold.
    #[error("{at}: {what}")]
    Unsupported {
        /// Where.
        at: Place,
        /// What cannot be given, and what can be done.
        what: String,
    },
}

impl ConfigError {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "config.io",
            Self::WrongFileType { .. } => "config.wrong_file_type",
            Self::WritableByOthers { .. } => "config.writable_by_others",
            Self::TooLarge { .. } => "config.too_large",
            Self::NotUtf8 { .. } => "config.not_utf8",
            Self::Invalid { .. } => "config.invalid",
            Self::Key { error, .. } => error.code(),
            Self::Unsupported { .. } => "config.unsupported",
        }
    }
}

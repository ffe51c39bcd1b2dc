//! Every reason to refuse a bundle as a whole, each with its code.

use std::fmt;

mod entry;

pub use entry::{EntryFault, EntryFaultKind, NEEDED_MAX};

use crate::limits::BUNDLE_ENTRIES_MAX;

/// How many characters of a name a message shows.
const NAME_SHOWN: usize = 80;

/// An entry, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// Its name, shortened, control characters escaped.
    pub name: String,
    /// Where the header in question begins, in bytes from the start of the bundle.
    pub offset: u64,
}

impl At {
    /// Makes a name that somebody else chose fit to be shown.
    pub fn new(name: &[u8], offset: u64) -> Self {
        // A character has at most four bytes: what is not shown is not decoded.
        let shown = name.get(..4 * NAME_SHOWN).unwrap_or(name);
        Self { name: show(&String::from_utf8_lossy(shown)), offset }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry \"{}\" (byte {})", self.name, self.offset)
    }
}

/// Foreign text for an error: short, and without anything a terminal would obey.
#[must_use]
pub fn show(text: &str) -> String {
    text.chars().take(NAME_SHOWN).flat_map(char::escape_debug).collect()
}

/// Why a bundle, or one entry of it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(name(BundleFaultKind), derive(Hash, PartialOrd, Ord, strum::EnumIter))]
#[strum_discriminants(doc = "The variants of [`BundleFault`] without their data.")]
pub enum BundleFault {
    // === The file as a whole ===
    /// Larger than any bundle may be.
    #[error("{size} bytes are over a bundle's limit of {max}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// Something else: also a tar archive, however compressed.
    #[error("is no zip archive but {found}: make a bundle with `themis pack`")]
    NotAZip {
        /// What its first bytes say.
        found: &'static str,
    },
    /// A zip without entries.
    #[error("has no entries")]
    Empty,
    /// Cut short.
    #[error("is cut short: {what} is not all there (byte {offset})")]
    Truncated {
        /// What was cut.
        what: &'static str,
        /// Where that begins, or would.
        offset: u64,
    },
    /// Begins with something that is not part of the archive.
    #[error(
        "begins with {found} instead of its first entry, which is at byte {offset}: make it anew with `themis pack`"
    )]
    Prepended {
        /// What its first bytes say.
        found: &'static str,
        /// Where the archive begins, as far as can be told.
        offset: u64,
    },
    /// Goes on after its end.
    #[error(
        "goes on after its end at byte {offset} (bytes: {bytes}): make it anew with `themis pack`"
    )]
    Trailing {
        /// Where the archive ends.
        offset: u64,
        /// What follows.
        bytes: u64,
    },
    /// The archive has a comment.
    #[error("has a comment of {bytes} bytes (byte {offset}): make it anew with `themis pack`")]
    Comment {
        /// Of the end record.
        offset: u64,
        /// The comment's length.
        bytes: u64,
    },
    /// Two archives in one file, or a second end record: readers disagree about which one counts.
    #[error("has a second end record at byte {offset}: it is two archives in one")]
    TwoDirectories {
        /// Of the end record that does not end the file.
        offset: u64,
    },
    /// Bytes that belong to nothing.
    #[error(
        "has {bytes} bytes at byte {offset} that belong to no entry: make it anew with `themis pack`"
    )]
    Gap {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// A zip64 record, or numbers that need one: a bundle is never so large.
    #[error("uses zip64 (byte {offset}), which no bundle needs: make it anew with `themis pack`")]
    Zip64 {
        /// Of the record.
        offset: u64,
    },
    /// One part of an archive over several disks.
    #[error("is part of an archive over several disks (byte {offset}): want it all in one file")]
    Split {
        /// Of the record that says so.
        offset: u64,
    },
    /// More entries than a plugin has files.
    #[error("has {entries} entries: at most {BUNDLE_ENTRIES_MAX} are read")]
    TooMany {
        /// As the end record has it.
        entries: u64,
    },
    /// A header that is none, or a directory that is not what the end record says.
    #[error("is damaged at byte {offset}: {why}")]
    Header {
        /// Where.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// All entries together are over the cap.
    #[error("unpacks to {size} bytes: at most {max} are unpacked")]
    TotalTooLarge {
        /// All entries together, in bytes.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },

    // === Its entries ===
    /// No entry of that name.
    #[error("{name:?} is not in the bundle")]
    MissingFile {
        /// The path asked for, shortened, control characters escaped.
        name: String,
    },
    /// An entry that is refused, or whose data are.
    #[error("{at}: {fault}")]
    Entry {
        /// Which.
        at: At,
        /// Why.
        fault: EntryFault,
    },
}

impl BundleFault {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        if let Self::Entry { fault, .. } = self {
            return fault.code();
        }
        BundleFaultKind::from(self).code()
    }
}

impl BundleFaultKind {
    /// Stable code for programs, metrics and the audit log; an entry's fault has its own.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "bundle.too_large",
            Self::NotAZip => "bundle.not_a_zip",
            Self::Empty => "bundle.empty",
            Self::Truncated => "bundle.truncated",
            Self::Prepended => "bundle.prepended",
            Self::Trailing => "bundle.trailing",
            Self::Comment => "bundle.comment",
            Self::TwoDirectories => "bundle.two_directories",
            Self::Gap => "bundle.gap",
            Self::Zip64 => "bundle.zip64",
            Self::Split => "bundle.split",
            Self::TooMany => "bundle.too_many",
            Self::Header => "bundle.header",
            Self::TotalTooLarge => "bundle.total_too_large",
            Self::MissingFile => "bundle.missing_file",
            Self::Entry => "bundle.entry",
        }
    }
}

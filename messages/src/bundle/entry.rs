//! Every reason to refuse one entry of a bundle, each with its code.

use crate::admit::PathFault;
use crate::limits::BUNDLE_RATIO_MAX;

/// The newest format an entry may need: 2.0, with deflate.
pub const NEEDED_MAX: u16 = 20;

/// What is wrong with an entry: with what its headers say, or with its data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(name(EntryFaultKind), derive(Hash, PartialOrd, Ord, strum::EnumIter))]
#[strum_discriminants(doc = "The variants of [`EntryFault`] without their data.")]
pub enum EntryFault {
    // === Its name ===
    /// No path of a file inside a plugin.
    #[error("the path is refused: {fault}")]
    Path {
        /// What is wrong with it.
        fault: PathFault,
    },
    /// Starts at the file system's root.
    #[error("the path is absolute: want one below the plugin's directory")]
    AbsolutePath,
    /// Starts at a drive.
    #[error("the path begins with a drive: want one below the plugin's directory")]
    DrivePath,
    /// The same name twice.
    #[error("is there twice")]
    Duplicate,
    /// The same name but for case.
    #[error("differs only in case from \"{other}\": rename one")]
    CaseCollision {
        /// The other name, shortened, control characters escaped.
        other: String,
    },
    /// A file inside a file.
    #[error("lies inside \"{file}\", which is a file: rename one")]
    FileAndDirectory {
        /// The file's name, shortened, control characters escaped.
        file: String,
    },

    // === What it is ===
    /// A directory: only files are listed.
    #[error("is a directory: a bundle lists only files; make it with `themis pack`")]
    DirectoryEntry,
    /// A symbolic link, wherever it leads.
    #[error("is a symbolic link: a plugin has none")]
    Symlink,
    /// A device, pipe, socket, or whatever else is no regular file.
    #[error("is no regular file (mode {mode:o})")]
    SpecialFile {
        /// Type and permission bits.
        mode: u32,
    },
    /// Set-user-id, set-group-id or sticky.
    #[error("has a special permission bit (mode {mode:o})")]
    Setuid {
        /// Type and permission bits.
        mode: u32,
    },

    // === Its headers ===
    /// The two headers disagree.
    #[error("its two headers disagree about the {field}")]
    HeaderMismatch {
        /// The first field that differs.
        field: &'static str,
    },
    /// Extra fields can rename, encrypt or enlarge an entry; a bundle's have none.
    #[error(
        "has an extra field (0x{id:04x}: {name}): make the bundle with `themis pack`, or `zip -X -D`",
        name = extra_name(*id)
    )]
    ExtraField {
        /// Which, by its number in the format.
        id: u16,
    },
    /// A comment of its own.
    #[error("has a comment of {bytes} bytes: make the bundle with `themis pack`")]
    Comment {
        /// Its length.
        bytes: u16,
    },
    /// Zip64 numbers: a bundle is never so large.
    #[error("uses zip64, which no bundle needs: make it with `themis pack`")]
    Zip64,
    /// On another disk of an archive over several.
    #[error("is on another disk: want the whole archive in one file")]
    Split,
    /// Encrypted.
    #[error("is encrypted: a bundle is signed, not secret")]
    Encrypted,
    /// Sizes and checksum stand after the data, where they come too late.
    #[error("has its sizes after its data: make the bundle with `themis pack`")]
    DataDescriptor,
    /// A flag no bundle has.
    #[error("has flags no bundle has (0x{flags:04x}): make the bundle with `themis pack`")]
    Flags {
        /// All its flags.
        flags: u16,
    },
    /// Compressed by something else than deflate.
    #[error("is compressed by method {method}: only stored (0) and deflate (8) are read")]
    Method {
        /// The method's number in the format.
        method: u16,
    },
    /// Needs a reader of a newer format than stored and deflate do.
    #[error("needs zip format {needed}, at most {NEEDED_MAX} is read: make it with `themis pack`")]
    Version {
        /// Ten times the format's version.
        needed: u16,
    },
    /// Attributes of a system we do not know.
    #[error("was made on system {host}: only DOS (0) and Unix (3) are known")]
    HostSystem {
        /// The system's number in the format.
        host: u16,
    },

    // === Its place and sizes ===
    /// Shares bytes with another entry, or reaches into the directory.
    #[error("lies over what is before or after it")]
    Overlap,
    /// Unpacks to far more than code and data do.
    #[error("{packed} bytes unpack to {size}: at most {BUNDLE_RATIO_MAX} times as many may")]
    Bomb {
        /// In the bundle, in bytes.
        packed: u64,
        /// Unpacked, in bytes, as its header says.
        size: u64,
    },
    /// Over the cap of one file.
    #[error("{size} bytes are over the limit of {max}")]
    FileTooLarge {
        /// Unpacked, in bytes, as its header says.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },

    // === Its data ===
    /// Unpacks to more or fewer bytes than its header says.
    #[error("does not unpack to {size} bytes, as it says")]
    LyingSize {
        /// What it says.
        size: u64,
    },
    /// Not one whole deflate stream.
    #[error("its deflate stream {why}")]
    Deflate {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not what was packed.
    #[error("its data have CRC-32 {found:08x}, its header says {expected:08x}")]
    Checksum {
        /// What its header says.
        expected: u32,
        /// What its data have.
        found: u32,
    },
    /// Whoever takes the data would not.
    #[error("cannot write what was unpacked: {error}")]
    Write {
        /// The system's words.
        error: String,
    },
}

/// What archivers commonly add.
const fn extra_name(id: u16) -> &'static str {
    match id {
        0x000a => "NTFS times",
        0x5455 => "times",
        0x5855 => "old Unix attributes",
        0x7075 => "another name",
        0x7855 | 0x7875 => "owner",
        0x9901 => "AES",
        0xcafe => "Java",
        _ => "unknown",
    }
}

impl EntryFault {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        EntryFaultKind::from(self).code()
    }
}

impl EntryFaultKind {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Path => "bundle.path",
            Self::AbsolutePath => "bundle.absolute_path",
            Self::DrivePath => "bundle.drive_path",
            Self::Duplicate => "bundle.duplicate",
            Self::CaseCollision => "bundle.case_collision",
            Self::FileAndDirectory => "bundle.file_and_directory",
            Self::DirectoryEntry => "bundle.directory_entry",
            Self::Symlink => "bundle.symlink",
            Self::SpecialFile => "bundle.special_file",
            Self::Setuid => "bundle.setuid",
            Self::HeaderMismatch => "bundle.header_mismatch",
            Self::ExtraField => "bundle.extra_field",
            Self::Comment => "bundle.comment",
            Self::Zip64 => "bundle.zip64",
            Self::Split => "bundle.split",
            Self::Encrypted => "bundle.encrypted",
            Self::DataDescriptor => "bundle.data_descriptor",
            Self::Flags => "bundle.flags",
            Self::Method => "bundle.method",
            Self::Version => "bundle.version",
            Self::HostSystem => "bundle.host_system",
            Self::Overlap => "bundle.overlap",
            Self::Bomb => "bundle.bomb",
            Self::FileTooLarge => "bundle.file_too_large",
            Self::LyingSize => "bundle.lying_size",
            Self::Deflate => "bundle.deflate",
            Self::Checksum => "bundle.checksum",
            Self::Write => "bundle.write",
        }
    }
}

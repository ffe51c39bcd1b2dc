//! Packs files into a bundle: the same files always into the same bytes.

use std::io::Write;

use miniz_oxide::deflate::compress_to_vec;

use crate::admission::bundle::file_bytes_max;
use crate::admission::bundle::layout::is_bomb;
use crate::admission::bundle::names::{Clash, first_clash};
use crate::admission::bundle::raw::{Central, Common, DEFLATE, End, FLAG_UTF8, Local, STORED};
use themis_messages::admit::PathFault;
use themis_messages::bundle::NEEDED_MAX;
use themis_messages::bundle::show;
use themis_messages::limits::{BUNDLE_ENTRIES_MAX, BUNDLE_UNPACKED_BYTES_MAX};
use themis_messages::manifest::{MANIFEST_FILE, SIGNATURE_FILE, check_relative_path};

/// The default of most packers: beyond it files hardly shrink.
const LEVEL: u8 = 6;
/// 1980-01-01, the first day the format has; the time of day is 0.
const DATE: u16 = 1 << 5 | 1;
/// A regular file, `rw-r--r--`.
const MODE: u32 = 0o100_644;
const HOST_UNIX: u16 = 3;

/// Why files were not packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// No files.
    #[error("there is nothing to pack")]
    Empty,
    /// More files than a plugin has.
    #[error("there are too many files: a bundle has at most {BUNDLE_ENTRIES_MAX}")]
    TooMany,
    /// A path that no plugin file may have.
    #[error("path \"{path}\" is refused: {fault}")]
    Path {
        /// The path, shortened, control characters escaped.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The same path twice.
    #[error("\"{path}\" was given twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// The same path but for case.
    #[error("\"{path}\" and \"{other}\" differ only in case: rename one")]
    CaseCollision {
        /// The path.
        path: String,
        /// The other one.
        other: String,
    },
    /// A file inside a file.
    #[error("\"{path}\" would lie inside the file \"{file}\": rename one")]
    FileAndDirectory {
        /// The path.
        path: String,
        /// The file in its way.
        file: String,
    },
    /// Over the cap of one file.
    #[error("\"{path}\": {size} bytes are over the limit of {max}")]
    FileTooLarge {
        /// The path.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// All files together are over the cap.
    #[error("{size} bytes are too many for one plugin: at most {max}")]
    TotalTooLarge {
        /// All files together, in bytes.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// The bundle could not be written.
    #[error("cannot write the bundle: {error}")]
    Write {
        /// The system's words.
        error: String,
    },
}

impl PackError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "pack.empty",
            Self::TooMany => "pack.too_many",
            Self::Path { .. } => "pack.path",
            Self::Duplicate { .. } => "pack.duplicate",
            Self::CaseCollision { .. } => "pack.case_collision",
            Self::FileAndDirectory { .. } => "pack.file_and_directory",
            Self::FileTooLarge { .. } => "pack.file_too_large",
            Self::TotalTooLarge { .. } => "pack.total_too_large",
            Self::Write { .. } => "pack.write",
        }
    }
}

/// Packs files into memory; see [`pack_into`].
///
/// # Errors
/// [`PackError`].
pub fn pack<P: AsRef<str>, B: AsRef<[u8]>>(
    files: impl IntoIterator<Item = (P, B)>,
) -> Result<Vec<u8>, PackError> {
    let mut bundle = Vec::new();
    pack_into(files, &mut bundle)?;
    Ok(bundle)
}

/// Packs files, given as path and content, into `out`: the manifest first, its signature second, the rest by
/// path. Times, owners and permissions are not kept, so the same files make the same bytes in whatever order
/// they come. A file is deflated where that makes it smaller, but not where it would look like a bomb.
///
/// Whatever this writes, [`Bundle::read`](crate::admission::bundle::Bundle::read) accepts. One packed file at a time is held in
/// memory. Nothing is written unless all files can be packed.
///
/// # Errors
/// [`PackError`]: the first reason found.
pub fn pack_into<P: AsRef<str>, B: AsRef<[u8]>>(
    files: impl IntoIterator<Item = (P, B)>,
    out: &mut impl Write,
) -> Result<(), PackError> {
    // One more than there may be shows that there are too many.
    let files: Vec<_> = files.into_iter().take(BUNDLE_ENTRIES_MAX + 1).collect();
    let mut files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_ref(), bytes.as_ref())).collect();
    files.sort_by_key(|(path, _)| (*path != MANIFEST_FILE, *path != SIGNATURE_FILE, *path));
    check(&files)?;

    let mut put = |bytes: &[u8]| {
        out.write_all(bytes).map_err(|error| PackError::Write { error: error.to_string() })
    };
    let (mut directory, mut offset) = (Vec::new(), 0_u32);
    for (path, bytes) in &files {
        let packed = Packed::new(bytes);
        let common = common(path, bytes, &packed);
        let mut header = Vec::new();
        Local { common }.write(&mut header);
        header.extend(path.as_bytes());
        put(&header)?;
        put(packed.bytes(bytes))?;
        Central {
            made_by: HOST_UNIX << 8 | NEEDED_MAX,
            common,
            comment_len: 0,
            disk: 0,
            internal: 0,
            external: MODE << 16,
            offset,
        }
        .write(&mut directory);
        directory.extend(path.as_bytes());
        offset = offset.saturating_add(word(header.len())).saturating_add(common.packed);
    }
    let entries = half(files.len());
    let end = End {
        disk: 0,
        directory_disk: 0,
        entries_here: entries,
        entries,
        size: word(directory.len()),
        offset,
        comment_len: 0,
    };
    end.write(&mut directory);
    put(&directory)
}

/// Everything a reader would refuse, before a byte is written.
fn check(files: &[(&str, &[u8])]) -> Result<(), PackError> {
    match files.len() {
        0 => return Err(PackError::Empty),
        1..=BUNDLE_ENTRIES_MAX => {}
        _ => return Err(PackError::TooMany),
    }
    let mut total = 0_u64;
    for (path, bytes) in files {
        check_relative_path(path).map_err(|fault| PackError::Path { path: show(path), fault })?;
        let (size, max) = (bytes.len() as u64, file_bytes_max(path));
        if size > max {
            return Err(PackError::FileTooLarge { path: show(path), size, max });
        }
        total = total.saturating_add(size);
    }
    if total > BUNDLE_UNPACKED_BYTES_MAX {
        return Err(PackError::TotalTooLarge { size: total, max: BUNDLE_UNPACKED_BYTES_MAX });
    }
    let Some(((path, _), clash)) = first_clash(files, |(path, _)| path) else { return Ok(()) };
    let path = show(path);
    Err(match clash {
        Clash::Duplicate => PackError::Duplicate { path },
        Clash::Case { other } => PackError::CaseCollision { path, other: show(other) },
        Clash::Inside { file } => PackError::FileAndDirectory { path, file: show(file) },
    })
}

/// A file's data as they will lie in the bundle.
enum Packed {
    AsIs,
    Deflated(Vec<u8>),
}

impl Packed {
    fn new(bytes: &[u8]) -> Self {
        let deflated = compress_to_vec(bytes, LEVEL);
        let (packed, size) = (deflated.len() as u64, bytes.len() as u64);
        if packed < size && !is_bomb(packed, size) { Self::Deflated(deflated) } else { Self::AsIs }
    }

    fn bytes<'a>(&'a self, original: &'a [u8]) -> &'a [u8] {
        match self {
            Self::AsIs => original,
            Self::Deflated(deflated) => deflated,
        }
    }
}

fn common(path: &str, bytes: &[u8], packed: &Packed) -> Common {
    Common {
        needed: NEEDED_MAX,
        flags: if path.is_ascii() { 0 } else { FLAG_UTF8 },
        method: match packed {
            Packed::AsIs => STORED,
            Packed::Deflated(_) => DEFLATE,
        },
        time: 0,
        date: DATE,
        crc: crc32fast::hash(bytes),
        packed: word(packed.bytes(bytes).len()),
        size: word(bytes.len()),
        name_len: half(path.len()),
        extra_len: 0,
    }
}

/// A size or offset as a header has it; [`check`] leaves none that does not fit.
fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// As [`word`], for counts and the lengths of names.
fn half(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

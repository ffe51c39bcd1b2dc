//! The two files gpg is to read: as paths, as open descriptors, and the signature's bytes.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpgInput {
    /// The detached signature.
    Signature,
    /// What it signs.
    Data,
}

impl fmt::Display for GpgInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "the signature",
            Self::Data => "the signed file",
        })
    }
}

/// Why a file is not given to gpg.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpgInputError {
    /// The system would not open or read it.
    #[error("{path}: cannot {action} {input}: {error}", path = path.display())]
    Io {
        /// Which file.
        input: GpgInput,
        /// Its path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// A directory, device or pipe: gpg might wait for it for ever.
    #[error("{path}: {input} is not a regular file", path = path.display())]
    NotAFile {
        /// Which file.
        input: GpgInput,
        /// Its path.
        path: PathBuf,
    },
    /// Over the size cap.
    #[error("{path}: {input} is over the limit of {max} bytes", path = path.display())]
    TooLarge {
        /// Which file.
        input: GpgInput,
        /// Its path.
        path: PathBuf,
        /// The cap in bytes.
        max: u64,
    },
}

impl GpgInputError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { input: GpgInput::Signature, .. } => "gpg.signature_io",
            Self::Io { input: GpgInput::Data, .. } => "gpg.data_io",
            Self::NotAFile { input: GpgInput::Signature, .. } => "gpg.signature_not_a_file",
            Self::NotAFile { input: GpgInput::Data, .. } => "gpg.data_not_a_file",
            Self::TooLarge { input: GpgInput::Signature, .. } => "gpg.signature_too_large",
            Self::TooLarge { input: GpgInput::Data, .. } => "gpg.data_too_large",
        }
    }
}

fn io(input: GpgInput, path: &Path, action: &'static str, error: &impl ToString) -> GpgInputError {
    GpgInputError::Io { input, path: path.to_owned(), action, error: error.to_string() }
}

/// The absolute path of a regular file of at most `max` bytes.
pub(super) fn path(
    input: GpgInput,
    path: &Path,
    max: Option<u64>,
) -> Result<PathBuf, GpgInputError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| io(input, path, "resolve the path of", &error))?;
    let found = absolute.metadata().map_err(|error| io(input, path, "look at", &error))?;
    check(input, path, found.is_file(), found.len(), max)?;
    Ok(absolute)
}

/// The path by which another process of this user reaches a file this one has open. It names the open file,
/// not a place in a directory; a reader starts at its beginning.
pub(super) fn open(
    input: GpgInput,
    fd: BorrowedFd<'_>,
    max: Option<u64>,
) -> Result<PathBuf, GpgInputError> {
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
    let found = rustix::fs::fstat(fd).map_err(|error| io(input, &path, "look at", &error))?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    check(input, &path, is_file, u64::try_from(found.st_size).unwrap_or(u64::MAX), max)?;
    Ok(path)
}

fn check(
    input: GpgInput,
    path: &Path,
    is_file: bool,
    size: u64,
    max: Option<u64>,
) -> Result<(), GpgInputError> {
    if !is_file {
        return Err(GpgInputError::NotAFile { input, path: path.to_owned() });
    }
    match max {
        Some(max) if size > max => {
            Err(GpgInputError::TooLarge { input, path: path.to_owned(), max })
        }
        Some(_) | None => Ok(()),
    }
}

/// The content of a signature file.
pub(super) fn read_signature(path: &Path, max: u64) -> Result<Vec<u8>, GpgInputError> {
    // Without O_NONBLOCK a named pipe would hang the reader.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| io(GpgInput::Signature, path, "open", &error))?;
    read_open(std::os::fd::AsFd::as_fd(&file), path, max)
}

/// The content of an open signature file, whose own position is left alone; `path` is for the error.
pub(super) fn read_open(
    fd: BorrowedFd<'_>,
    path: &Path,
    max: u64,
) -> Result<Vec<u8>, GpgInputError> {
    let input = GpgInput::Signature;
    let found = rustix::fs::fstat(fd).map_err(|error| io(input, path, "look at", &error))?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    check(input, path, is_file, u64::try_from(found.st_size).unwrap_or(u64::MAX), Some(max))?;
    let mut bytes = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let at = bytes.len() as u64;
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut chunk, at))
            .map_err(|error| io(input, path, "read", &error))?;
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        // It may have grown since its size was looked at.
        check(input, path, true, bytes.len() as u64, Some(max))?;
        if count == 0 {
            return Ok(bytes);
        }
    }
}

/// A nameless file with these bytes that nobody can change any more.
pub(super) fn sealed(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let make = |flags| rustix::fs::memfd_create("themis-gpg", flags);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match make(flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => make(flags)?,
        made => made?,
    };
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests;

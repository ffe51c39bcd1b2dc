//! Private copies of a plugin's files that nobody can change any more, hashed after that point.
//!
//! ```text
//! file ──copy──▶ memfd ──seal──▶ map ──hash──▶ SealedFile
//!          └─ executable memfds forbidden ─▶ nameless file, write end closed ─▶ map ──hash──▶
//! ```
//!
//! Whatever happens to the original during or after the copy, the digest is that of the bytes that will be
//! mapped. When a [`SealedFile`] is dropped its mapping and descriptor go; what the system loader mapped
//! from the descriptor stays.

#![expect(
    unsafe_code,
    reason = "maps the sealed copy, so that it is hashed and read where it lies"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::Digest;

use super::root::{PluginFile, from_io};

/// How much is copied or hashed at a time.
const CHUNK: usize = 256 << 10;
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Whether a copy will be mapped as code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Code,
    Data,
}

/// An immutable private copy of a file.
#[derive(Debug)]
pub struct SealedFile {
    fd: OwnedFd,
    map: Map,
    digest: Digest,
    inode: u64,
}

impl SealedFile {
    /// The content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    /// The descriptor to map from.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// SHA-256 of [`Self::bytes`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Inode of the copy, by which a mapping of it is recognised.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Copies bytes from `offset` on into `into` and says how many: 0 at the end.
    #[must_use]
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.bytes().get(offset..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        count
    }

    /// Seals bytes that went through no admission.
    #[cfg(test)]
    pub(crate) fn seal_for_test(bytes: &[u8]) -> Self {
        Self::seal_by_for_test(&Sealer::new(Path::new("/nonexistent")), bytes)
    }

    /// As [`SealedFile::seal_for_test`], where the system forbids executable memory files.
    #[cfg(test)]
    pub(crate) fn copy_for_test(scratch: &Path, bytes: &[u8]) -> Self {
        let sealer = Sealer::new(scratch).with_memfd(|_flags| Err(Errno::ACCESS));
        Self::seal_by_for_test(&sealer, bytes)
    }

    #[cfg(test)]
    fn seal_by_for_test(sealer: &Sealer<'_>, bytes: &[u8]) -> Self {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut &file).unwrap();
        let file = PluginFile { file, path: "test".into(), size: bytes.len() as u64 };
        sealer.seal(file, u64::MAX, Purpose::Code).unwrap()
    }
}

type MakeMemfd = fn(MemfdFlags) -> Result<OwnedFd, Errno>;

/// Makes sealed copies; `scratch` is a private directory for where executable memory files are forbidden.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealer<'a> {
    scratch: &'a Path,
    make_memfd: MakeMemfd,
}

impl<'a> Sealer<'a> {
    pub(super) fn new(scratch: &'a Path) -> Self {
        Self { scratch, make_memfd: |flags| rustix::fs::memfd_create("themis-plugin", flags) }
    }

    /// Another way of making memory files, for tests.
    #[cfg(test)]
    pub(super) fn with_memfd(self, make_memfd: MakeMemfd) -> Self {
        Self { make_memfd, ..self }
    }

    /// Copies a file of at most `max` bytes, seals the copy and hashes it.
    pub(super) fn seal(
        &self,
        from: PluginFile,
        max: u64,
        purpose: Purpose,
    ) -> Result<SealedFile, AdmitError> {
        from.check_size(max)?;
        let path = from.path.clone();
        let fd = match self.memfd(purpose) {
            Ok(memfd) => {
                let copy = File::from(memfd);
                copy_capped(&from, &copy, max)?;
                seal(&path, &copy)?;
                OwnedFd::from(copy)
            }
            Err(Errno::ACCESS | Errno::PERM) => self.private_copy(&from, max)?,
            Err(errno) => return Err(refused(&path, format!("memfd_create: {errno}"))),
        };
        finish(&path, fd, max)
    }

    /// Kernels before 6.3 know neither flag about execution; their memory files can always be mapped.
    fn memfd(&self, purpose: Purpose) -> Result<OwnedFd, Errno> {
        let plain = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let execution = match purpose {
            Purpose::Code => MemfdFlags::EXEC,
            Purpose::Data => MemfdFlags::NOEXEC_SEAL,
        };
        match (self.make_memfd)(plain | execution) {
            Err(Errno::INVAL) => (self.make_memfd)(plain),
            made => made,
        }
    }

    /// A file without a name in the private directory; once its write end is closed and only a read-only
    /// descriptor is left, nobody but this user and root can reach it.
    fn private_copy(&self, from: &PluginFile, max: u64) -> Result<OwnedFd, AdmitError> {
        let path = &from.path;
        let fault = |what: &str, errno: Errno| {
            let place = self.scratch.display();
            refused(
                path,
                format!("executable memory files are forbidden, and {what} in {place}: {errno}"),
            )
        };
        let status = rustix::fs::stat(self.scratch).map_err(|errno| fault("stat", errno))?;
        let private =
            status.st_mode & 0o077 == 0 && status.st_uid == rustix::process::geteuid().as_raw();
        if !private {
            let place = self.scratch.display();
            let why = "executable memory files are forbidden, and others have rights to";
            return Err(refused(path, format!("{why} {place}")));
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::XUSR;
        let written = rustix::fs::open(self.scratch, flags, mode)
            .map_err(|errno| fault("O_TMPFILE", errno))?;
        let written = File::from(written);
        copy_capped(from, &written, max)?;
        let again = format!("/proc/self/fd/{}", written.as_raw_fd());
        rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| fault("reopening", errno))
    }
}

fn refused(path: &Path, why: String) -> AdmitError {
    AdmitError::ImageRefused { path: path.to_owned(), why }
}

/// Copies until the end of the file, however its size has changed since it was opened, but never more than
/// `max` bytes.
fn copy_capped(from: &PluginFile, mut to: &File, max: u64) -> Result<(), AdmitError> {
    let mut source = &from.file;
    let mut buffer = vec![0; CHUNK];
    let mut size = 0_u64;
    loop {
        let count = read_chunk(&mut source, &mut buffer)
            .map_err(|error| from_io(&from.path, "read", &error))?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            return Ok(());
        };
        size = size.saturating_add(count as u64);
        if size > max {
            return Err(AdmitError::FileTooLarge { path: from.path.clone(), size, max });
        }
        to.write_all(chunk).map_err(|error| refused(&from.path, format!("copying: {error}")))?;
    }
}

fn read_chunk(source: &mut &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Hashes a file without keeping it, at most `max` bytes.
pub(super) fn hash(from: &PluginFile, max: u64) -> Result<(Digest, u64), AdmitError> {
    from.check_size(max)?;
    let mut source = &from.file;
    // Most files are small; the size is only a hint.
    let hint = usize::try_from(from.size).unwrap_or(CHUNK).saturating_add(1);
    let mut buffer = vec![0; hint.min(CHUNK)];
    let (mut hasher, mut size) = (Sha256::new(), 0_u64);
    loop {
        let count = read_chunk(&mut source, &mut buffer)
            .map_err(|error| from_io(&from.path, "read", &error))?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            return Ok((Digest(hasher.finalize().into()), size));
        };
        size = size.saturating_add(count as u64);
        if size > max {
            return Err(AdmitError::FileTooLarge { path: from.path.clone(), size, max });
        }
        hasher.update(chunk);
    }
}

fn seal(path: &Path, copy: &File) -> Result<(), AdmitError> {
    rustix::fs::fcntl_add_seals(copy, SEALS)
        .map_err(|errno| refused(path, format!("sealing: {errno}")))?;
    let held = rustix::fs::fcntl_get_seals(copy)
        .map_err(|errno| refused(path, format!("reading the seals: {errno}")))?;
    if !held.contains(SEALS) {
        return Err(refused(path, "the system did not keep the seals".to_owned()));
    }
    Ok(())
}

fn finish(path: &Path, fd: OwnedFd, max: u64) -> Result<SealedFile, AdmitError> {
    let status = rustix::fs::fstat(&fd)
        .map_err(|errno| refused(path, format!("looking at the copy: {errno}")))?;
    let size = u64::try_from(status.st_size).unwrap_or(u64::MAX);
    let len = usize::try_from(size)
        .ok()
        .filter(|_| size <= max)
        .ok_or_else(|| refused(path, format!("the copy has {size} bytes")))?;
    let map = Map::new(&fd, len).map_err(|errno| refused(path, format!("mapping: {errno}")))?;
    let digest = Digest(Sha256::digest(map.bytes()).into());
    Ok(SealedFile { fd, map, digest, inode: status.st_ino })
}

/// A read-only mapping of a whole immutable file.
#[derive(Debug)]
struct Map {
    /// Dangling when `len` is 0: the system maps no empty ranges.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is mapped read-only from a file nobody can write, and is unmapped only by `Drop`.
unsafe impl Send for Map {}
// SAFETY: as above; shared reads of memory that never changes.
unsafe impl Sync for Map {}

impl Map {
    fn new(fd: &OwnedFd, len: usize) -> Result<Self, Errno> {
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len });
        }
        // SAFETY: the kernel picks the address, so no existing mapping is touched.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::PRIVATE | MapFlags::POPULATE,
                fd,
                0,
            )?
        };
        NonNull::new(start.cast()).map(|start| Self { start, len }).ok_or(Errno::NOMEM)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is the first of `len` readable bytes (or dangling with `len` 0). The file cannot
        // shrink or change: it is sealed, or nameless with its only write end closed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: exactly the range that was mapped, and every borrow of it has ended.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
            // It fails only for ranges that are no mapping; then there is nothing to give back.
            debug_assert!(unmapped.is_ok());
        }
    }
}

#[cfg(test)]
mod tests;

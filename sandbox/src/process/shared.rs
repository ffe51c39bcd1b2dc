//! One mapping of memory shared between host and worker, with checked access to what lies in it.
//!
//! The host makes two files for each worker. It maps both for reading and writing, and gives the worker a descriptor of
//! `down` that was opened for reading only: no right the worker has, or can get, lets it write there. Both files are
//! sealed against growing and shrinking, so that no access of the host can find them cut off.
#![expect(unsafe_code, reason = "maps memory that another process writes to")]

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// A message that was longer than this gives its memory back: the next one is likely to be short.
const KEPT: usize = 256 << 10;
const PAGE: usize = 4_096;

/// A memory file of a fixed size.
pub(super) fn make_file(name: &str, bytes: usize) -> Result<OwnedFd, Errno> {
    let plain = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(name, plain | MemfdFlags::NOEXEC_SEAL) {
        // Older than 6.3: there nothing says whether a file may be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, plain)?,
        made => made?,
    };
    rustix::fs::ftruncate(&file, bytes as u64)?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// The same file, for reading only.
pub(super) fn reopened_read_only(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A mapping whose first bytes are a `T`.
pub(super) struct Region<T> {
    start: NonNull<u8>,
    bytes: usize,
    /// Kept by the host, which gives memory back through it.
    file: Option<OwnedFd>,
    what: PhantomData<T>,
}

// SAFETY: what is shared as a reference are atomics; the rest is reached through pointers whose users keep to the
// turns of a slot.
unsafe impl<T: Sync> Send for Region<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Region<T> {}

impl<T> Region<T> {
    /// Maps a file of at least `bytes` bytes, for writing as well where `writable`.
    pub(super) fn map(file: impl AsFd, bytes: usize, writable: bool) -> Result<Self, Errno> {
        assert!(size_of::<T>() <= bytes && align_of::<T>() <= PAGE, "the header fits");
        let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address the system chooses: nothing else is there.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, rights, MapFlags::SHARED, file, 0)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, bytes, file: None, what: PhantomData })
    }

    /// Keeps the file: memory can then be given back.
    pub(super) fn keeping(mut self, file: OwnedFd) -> Self {
        self.file = Some(file);
        self
    }

    /// The file, where it is kept.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// The header: atomics only, whatever the other side writes.
    pub(super) fn header(&self) -> &T {
        // SAFETY: the mapping is at least as long, aligned to a page, and lives as long as `self`. `T` is made of
        // atomics, for which any bits will do at any time.
        unsafe { self.start.cast::<T>().as_ref() }
    }

    /// The address of `len` bytes at `offset`; they lie in the mapping.
    pub(super) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.bytes && len <= self.bytes - offset, "inside the mapping");
        // SAFETY: inside the mapping, as was just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Copies into the mapping. Only the one whose turn it is may.
    pub(super) fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: `at` has checked the range; the two cannot overlap, since `from` is not in shared memory.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    /// Appends a copy of `len` bytes to `into`; the other side may write to them meanwhile, and `into` has whatever was
    /// there at some moment.
    pub(super) fn read(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        let from = self.at(offset, len);
        into.reserve(len);
        let end = into.len();
        // SAFETY: `at` has checked the range, and `into` has room for as many bytes behind its end, which are
        // initialised by the copy. The source is only ever read by its address: a race changes bytes, nothing else.
        unsafe {
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr().add(end), len);
            into.set_len(end + len);
        }
    }

    /// Gives the memory of a long message back to the system. What fails here costs memory only, and the next message
    /// tries again.
    pub(super) fn give_back(&self, offset: usize, len: usize) {
        let Some(file) = &self.file else { return };
        if len <= KEPT {
            return;
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = len.next_multiple_of(PAGE) as u64;
        if let Err(errno) = rustix::fs::fallocate(file, punch, offset as u64, len) {
            tracing::debug!(%errno, "the memory of a message was not given back");
        }
    }

    /// Bytes of memory behind the file.
    pub(super) fn resident_bytes(&self) -> u64 {
        let blocks = self.file.as_ref().and_then(|file| rustix::fs::fstat(file).ok());
        blocks.map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    /// Whether the mapping can neither be unmapped nor changed from now on.
    pub(super) fn seal(&self) -> bool {
        // SAFETY: the call changes what may be done with the mapping, not its content.
        unsafe { libc::syscall(libc::SYS_mseal, self.start.as_ptr(), self.bytes, 0_usize) == 0 }
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's own, and no reference into it outlives the region.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        if let Err(errno) = unmapped {
            tracing::error!(%errno, "shared memory was not unmapped");
        }
    }
}

impl<T> std::fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let file = make_file("test", 3 * PAGE).unwrap();
        let reader = reopened_read_only(&file).unwrap();
        let host = Region::<AtomicU32>::map(&file, 3 * PAGE, true).unwrap().keeping(file);
        let worker = Region::<AtomicU32>::map(&reader, 3 * PAGE, false).unwrap();
        host.header().store(7, Ordering::SeqCst);
        host.write(PAGE, b"request");
        assert_eq!(worker.header().load(Ordering::SeqCst), 7);
        let mut read = b"kept ".to_vec();
        worker.read(PAGE, 7, &mut read);
        assert_eq!(read, b"kept request");
    }

    #[test]
    fn a_file_opened_for_reading_cannot_be_mapped_for_writing() {
        let file = make_file("test", PAGE).unwrap();
        let reader = reopened_read_only(&file).unwrap();
        assert_eq!(Region::<AtomicU32>::map(&reader, PAGE, true).unwrap_err(), Errno::ACCESS);
        let mapped = Region::<AtomicU32>::map(&reader, PAGE, false).unwrap();
        let rights = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
        // SAFETY: the mapping is the test's own; the call fails.
        let raised = unsafe { rustix::mm::mprotect(mapped.at(0, 1).cast(), PAGE, rights) };
        assert_eq!(raised, Err(Errno::ACCESS));
    }

    #[test]
    fn the_size_is_sealed_and_the_memory_of_long_messages_given_back() {
        let bytes = 1 << 20;
        let file = make_file("test", bytes).unwrap();
        assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::PERM));
        let region = Region::<AtomicU32>::map(&file, bytes, true).unwrap().keeping(file);
        region.write(0, &vec![1; bytes]);
        assert_eq!(region.resident_bytes(), bytes as u64);
        region.give_back(0, KEPT);
        assert_eq!(region.resident_bytes(), bytes as u64, "short ones are kept");
        region.give_back(0, bytes);
        assert_eq!(region.resident_bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "inside the mapping")]
    fn nothing_outside_is_reached() {
        let file = make_file("test", PAGE).unwrap();
        let region = Region::<AtomicU32>::map(&file, PAGE, true).unwrap();
        region.write(PAGE - 1, b"ab");
    }
}

//! Copies that cannot change, by either way of making them.

use std::fs;
use std::io::Seek as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::*;
use crate::admission::fixtures::digest;

fn source(bytes: &[u8]) -> PluginFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    PluginFile { file, path: "lib.so".into(), size: bytes.len() as u64 }
}

fn forbidden(flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    if flags.contains(MemfdFlags::EXEC) {
        return Err(Errno::ACCESS);
    }
    rustix::fs::memfd_create("test", flags)
}

fn old_kernel(flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    if flags.intersects(MemfdFlags::EXEC | MemfdFlags::NOEXEC_SEAL) {
        return Err(Errno::INVAL);
    }
    rustix::fs::memfd_create("test", flags)
}

fn scratch(mode: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    dir
}

/// What every copy owes, however it was made.
fn check_copy(sealer: &Sealer<'_>, purpose: Purpose) {
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let bytes: Vec<u8> = (0..size).map(|i| i.to_le_bytes()[0]).collect();
        let sealed = sealer.seal(source(&bytes), size as u64, purpose).unwrap();
        assert_eq!(sealed.bytes(), bytes);
        assert_eq!(sealed.digest(), digest(&bytes));
        assert_eq!((sealed.len(), sealed.is_empty()), (size as u64, size == 0));
        let status = rustix::fs::fstat(sealed.fd()).unwrap();
        assert_eq!(status.st_ino, sealed.inode());
        let writable = File::from(sealed.fd().try_clone_to_owned().unwrap());
        assert!(writable.write_at(b"x", 0).is_err(), "no byte can be changed");
        assert!(writable.set_len(1_000_000).is_err(), "it cannot grow");
        assert!(size == 0 || writable.set_len(0).is_err(), "it cannot shrink");
        if size > 0 {
            let too_small = sealer.seal(source(&bytes), size as u64 - 1, purpose).unwrap_err();
            assert!(matches!(too_small, AdmitError::FileTooLarge { .. }));
        }
    }
}

#[test]
fn memory_copies_are_sealed() {
    let sealer = Sealer::new(Path::new("/nonexistent"));
    for purpose in [Purpose::Code, Purpose::Data] {
        check_copy(&sealer, purpose);
        check_copy(&sealer.with_memfd(old_kernel), purpose);
    }
    let sealed = sealer.seal(source(b"code"), 4, Purpose::Code).unwrap();
    assert_eq!(rustix::fs::fcntl_get_seals(sealed.fd()).unwrap() & SEALS, SEALS);
}

#[test]
fn where_executable_memory_is_forbidden_the_copy_is_a_private_file() {
    let scratch = scratch(0o700);
    let sealer = Sealer::new(scratch.path()).with_memfd(forbidden);
    if let Err(error) = sealer.seal(source(b"x"), 1, Purpose::Code) {
        assert!(error.to_string().contains("O_TMPFILE"), "{error}");
        eprintln!("skipped: the file system for temporary files has no O_TMPFILE");
        return;
    }
    check_copy(&sealer, Purpose::Code);
    let sealed = sealer.seal(source(b"code"), 4, Purpose::Code).unwrap();
    let status = rustix::fs::fstat(sealed.fd()).unwrap();
    assert_eq!(status.st_mode & 0o777, 0o500);
    assert_eq!(status.st_nlink, 0, "it has no name");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn without_a_private_directory_there_is_no_private_file() {
    for mode in [0o755, 0o710, 0o707] {
        let scratch = scratch(mode);
        let sealer = Sealer::new(scratch.path()).with_memfd(forbidden);
        let error = sealer.seal(source(b"code"), 4, Purpose::Code).unwrap_err();
        assert!(matches!(error, AdmitError::ImageRefused { .. }), "{error}");
    }
    let nowhere = Sealer::new(Path::new("/nonexistent")).with_memfd(forbidden);
    let error = nowhere.seal(source(b"code"), 4, Purpose::Code).unwrap_err();
    assert!(matches!(error, AdmitError::ImageRefused { .. }), "{error}");
    assert!(nowhere.seal(source(b"data"), 4, Purpose::Data).is_ok(), "data needs no execution");
    let broken = nowhere.with_memfd(|_| Err(Errno::NFILE));
    let error = broken.seal(source(b"code"), 4, Purpose::Code).unwrap_err();
    assert!(matches!(error, AdmitError::ImageRefused { .. }), "{error}");
}

/// A30: what the file becomes while or after it is copied does not matter.
#[test]
fn a30_the_digest_is_of_the_copy_not_of_the_original() {
    let from = source(b"first");
    let again = from.file.try_clone().unwrap();
    let sealed = Sealer::new(Path::new("")).seal(from, 100, Purpose::Code).unwrap();
    again.write_all_at(b"other", 0).unwrap();
    assert_eq!(sealed.bytes(), b"first");
    assert_eq!(sealed.digest(), digest(b"first"));

    let grown = source(b"first");
    grown.file.write_all_at(&[7; 200], 0).unwrap();
    let error = Sealer::new(Path::new("")).seal(grown, 100, Purpose::Code).unwrap_err();
    assert!(matches!(error, AdmitError::FileTooLarge { .. }), "the cap holds while copying");
    let grown = source(b"first");
    grown.file.write_all_at(&[7; 200], 0).unwrap();
    assert!(matches!(hash(&grown, 100), Err(AdmitError::FileTooLarge { .. })));
}

#[test]
fn hashing_without_keeping_gives_the_same_digest() {
    for size in [0, 1, CHUNK, CHUNK + 1] {
        let bytes = vec![3; size];
        let hashed = hash(&source(&bytes), size as u64).unwrap();
        assert_eq!(hashed, (digest(&bytes), size as u64));
    }
}

#[test]
fn reading_at_an_offset_stays_inside() {
    let sealed = SealedFile::seal_for_test(b"0123456789");
    let read = |offset, room| {
        let mut into = vec![b'.'; room];
        let count = sealed.read_at(offset, &mut into);
        (count, String::from_utf8(into).unwrap())
    };
    assert_eq!(read(0, 4), (4, "0123".to_owned()));
    assert_eq!(read(8, 4), (2, "89..".to_owned()));
    assert_eq!(read(10, 4), (0, "....".to_owned()));
    assert_eq!(read(u64::MAX, 4), (0, "....".to_owned()));
    assert_eq!(read(0, 0), (0, String::new()));
}

//! The data directory: made private, kept private, and locked by the one process that writes in it.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::error::StoreError;

/// Holds the lock of the writing process; empty.
const LOCK_FILE: &str = "lock";
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const GROUP_AND_OTHERS: u32 = 0o077;

/// Makes the directory when it is absent and refuses it when it is not private.
pub(super) fn prepare(dir: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir);
    match made {
        Ok(()) => check(dir),
        // Something is there, and `check` says what is wrong with it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check(dir),
        Err(error) => Err(io_error(dir, "create", &error)),
    }
}

/// Refuses a directory that is not there, not ours, or not private.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    let metadata = match dir.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NotFound { path: dir.to_owned() });
        }
        Err(error) => return Err(io_error(dir, "stat", &error)),
    };
    check_metadata(dir, &metadata, rustix::process::geteuid().as_raw())
}

fn check_metadata(dir: &Path, metadata: &Metadata, own_uid: u32) -> Result<(), StoreError> {
    let path = dir.to_owned();
    if !metadata.is_dir() {
        return Err(StoreError::NotADirectory { path });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & GROUP_AND_OTHERS != 0 {
        return Err(StoreError::OpenToOthers { path, mode });
    }
    let uid = metadata.uid();
    if uid != 0 && uid != own_uid {
        return Err(StoreError::ForeignOwner { path, uid });
    }
    Ok(())
}

/// Takes the lock; it is held as long as the file is open and goes with the process, however that ends.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE_FILE)
        .open(&path)
        .map_err(|error| io_error(&path, "open", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(&path, "lock", &error)),
    }
}

fn io_error(path: &Path, action: &'static str, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), action, error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::private_dir;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_directory_is_private() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b");
        prepare(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, PRIVATE_DIR);
        prepare(&dir).unwrap();
    }

    #[test]
    fn each_bit_for_group_or_others_is_a_refusal() {
        let base = tempfile::tempdir().unwrap();
        for bit in 0..6 {
            let mode = 0o700 | (1 << bit);
            fs::set_permissions(base.path(), Permissions::from_mode(mode)).unwrap();
            let path = base.path().to_owned();
            assert_eq!(prepare(base.path()), Err(StoreError::OpenToOthers { path, mode }));
        }
        fs::set_permissions(base.path(), Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn files_and_foreign_directories_are_refused() {
        let base = private_dir();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(prepare(&file), Err(StoreError::NotADirectory { path: file.clone() }));
        let under_a_file = prepare(&file.join("x")).unwrap_err();
        assert_eq!(under_a_file.code(), "store.io");
        // Seen by another user, our own directory is a foreign one, unless we are root, whom all trust.
        let metadata = base.path().metadata().unwrap();
        let seen = check_metadata(base.path(), &metadata, metadata.uid() + 1);
        if metadata.uid() == 0 {
            assert_eq!(seen, Ok(()));
        } else {
            assert_eq!(seen.unwrap_err().code(), "store.foreign_owner");
        }
    }
}

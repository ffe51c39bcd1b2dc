//! Directories and files below the plugin root, opened so that nothing can lead out of it.
//!
//! The root's descriptor is kept; every name below it is opened one component at a time from the directory
//! above, and each of them is checked on its own open descriptor: kind, owner, write permission. What has
//! been opened stays the same object however names are swapped afterwards.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use themis_messages::admit::{AdmitError, PathFault};
use themis_messages::manifest::check_relative_path;

/// How often an open is repeated when the kernel could not rule out a race.
const RACE_RETRIES: usize = 64;

/// How a name is opened below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolver {
    /// `openat2`: the kernel itself refuses every link and every way out.
    Openat2,
    /// `openat` without following links, where the kernel or a filter has no `openat2`.
    Walk,
}

impl Resolver {
    /// `openat2` wherever it works; old kernels say ENOSYS, system call filters often EPERM.
    fn detect(dir: &OwnedFd) -> Self {
        match rustix::fs::openat2(dir, ".", DIRECTORY, Mode::empty(), BENEATH) {
            Err(Errno::NOSYS | Errno::PERM) => Self::Walk,
            Ok(_) | Err(_) => Self::Openat2,
        }
    }
}

const COMMON: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const DIRECTORY: OFlags = COMMON.union(OFlags::DIRECTORY);
/// A named pipe opens at once instead of waiting for a writer; a terminal does not become ours.
const ANYTHING: OFlags = COMMON.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The directory that holds all plugins.
#[derive(Debug)]
pub struct PluginRoot {
    dir: Dir,
    /// As given, made absolute, and with links resolved: a path may begin with either.
    spellings: [PathBuf; 2],
}

impl PluginRoot {
    /// Opens and keeps the root. The way to it is the operator's business; itself it must belong to root
    /// or to us and be writable by nobody else.
    ///
    /// # Errors
    /// [`AdmitError`] with what is wrong with the directory.
    pub fn open(path: &Path) -> Result<Self, AdmitError> {
        let fault = |error: &std::io::Error| from_io(path, "open", error);
        let absolute = std::path::absolute(path).map_err(|error| fault(&error))?;
        let canonical = absolute.canonicalize().map_err(|error| fault(&error))?;
        Ok(Self { dir: Dir::open(&absolute)?, spellings: [absolute, canonical] })
    }

    /// The root's path as given, made absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Another way of opening what lies below, for tests.
    #[cfg(test)]
    pub(super) fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.dir.resolver = resolver;
        self
    }

    /// The root itself, checked again: its permissions may have changed since it was opened.
    pub(super) fn dir(&self) -> Result<&Dir, AdmitError> {
        let status = self.dir.stat()?;
        check_owner_and_mode(&self.dir.path, &status)?;
        Ok(&self.dir)
    }

    /// The components below the root that a path means, from text alone.
    pub(super) fn components(&self, path: &Path) -> Result<Vec<String>, AdmitError> {
        let escapes = || AdmitError::PathEscapes { path: path.to_owned() };
        let below = if path.is_absolute() {
            let own = self.spellings.iter().find_map(|root| path.strip_prefix(root).ok());
            own.ok_or_else(escapes)?
        } else {
            path
        };
        let mut components = Vec::new();
        for component in below.components() {
            match component {
                Component::Normal(name) => components.push(utf8(path, name)?.to_owned()),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(escapes());
                }
            }
        }
        check_relative_path(&components.join("/")).map_err(|fault| invalid(path, fault))?;
        Ok(components)
    }
}

fn utf8<'a>(path: &Path, name: &'a OsStr) -> Result<&'a str, AdmitError> {
    name.to_str().ok_or_else(|| invalid(path, PathFault::NotUtf8))
}

fn invalid(path: &Path, fault: PathFault) -> AdmitError {
    let text = path.to_string_lossy();
    AdmitError::PathInvalid { path: text.chars().take(200).collect(), fault }
}

/// An open directory that passed the checks.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    /// For messages; never opened again.
    pub(super) path: PathBuf,
    resolver: Resolver,
}

/// An open regular file that passed the checks.
#[derive(Debug)]
pub(super) struct PluginFile {
    pub(super) file: File,
    /// For messages; never opened again.
    pub(super) path: PathBuf,
    /// Size in bytes when it was opened; reading must not trust it.
    pub(super) size: u64,
}

/// What a name turned out to be.
#[derive(Debug)]
pub(super) enum Opened {
    Dir(Dir),
    File(PluginFile),
}

impl Dir {
    /// Opens a directory by a path of the operator's own, which may go through links.
    pub(super) fn open(path: &Path) -> Result<Self, AdmitError> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => wrong_type(path, "directory"),
            errno => from_errno(path, "open", errno),
        })?;
        let resolver = Resolver::detect(&fd);
        let dir = Self { fd, path: path.to_owned(), resolver };
        check_owner_and_mode(path, &dir.stat()?)?;
        Ok(dir)
    }

    fn stat(&self) -> Result<Stat, AdmitError> {
        rustix::fs::fstat(&self.fd).map_err(|errno| from_errno(&self.path, "stat", errno))
    }

    /// Opens whatever has this name: one component, already checked as text.
    pub(super) fn open_any(&self, name: &str) -> Result<Opened, AdmitError> {
        let path = self.path.join(name);
        let fd = self.open_at(name).map_err(|errno| self.explain(&path, name, errno))?;
        let status = rustix::fs::fstat(&fd).map_err(|errno| from_errno(&path, "stat", errno))?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind.is_dir() {
            check_owner_and_mode(&path, &status)?;
            return Ok(Opened::Dir(Self { fd, path, resolver: self.resolver }));
        }
        if !kind.is_file() {
            return Err(wrong_type(&path, "regular file"));
        }
        check_owner_and_mode(&path, &status)?;
        let size = u64::try_from(status.st_size).unwrap_or_default();
        Ok(Opened::File(PluginFile { file: File::from(fd), path, size }))
    }

    pub(super) fn open_dir(&self, name: &str) -> Result<Self, AdmitError> {
        match self.open_any(name)? {
            Opened::Dir(dir) => Ok(dir),
            Opened::File(file) => Err(wrong_type(&file.path, "directory")),
        }
    }

    pub(super) fn open_file(&self, name: &str) -> Result<PluginFile, AdmitError> {
        match self.open_any(name)? {
            Opened::File(file) => Ok(file),
            Opened::Dir(dir) => Err(wrong_type(&dir.path, "regular file")),
        }
    }

    /// Opens a file by its `/`-separated path below this directory, checking every directory between.
    pub(super) fn open_path(&self, path: &str) -> Result<PluginFile, AdmitError> {
        let Some((mut head, mut rest)) = path.split_once('/') else { return self.open_file(path) };
        let mut dir = self.open_dir(head)?;
        while let Some((next, after)) = rest.split_once('/') {
            (head, rest) = (next, after);
            dir = dir.open_dir(head)?;
        }
        dir.open_file(rest)
    }

    fn open_at(&self, name: &str) -> Result<OwnedFd, Errno> {
        for _attempt in 0..RACE_RETRIES {
            let opened = match self.resolver {
                Resolver::Openat2 => {
                    rustix::fs::openat2(&self.fd, name, ANYTHING, Mode::empty(), BENEATH)
                }
                Resolver::Walk => rustix::fs::openat(&self.fd, name, ANYTHING, Mode::empty()),
            };
            match opened {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The two ways of opening answer with different numbers; the verdict is the same.
    fn explain(&self, path: &Path, name: &str, errno: Errno) -> AdmitError {
        match errno {
            Errno::LOOP => AdmitError::PathSymlink { path: path.to_owned() },
            Errno::XDEV => AdmitError::PathEscapes { path: path.to_owned() },
            // Opening a socket, or a device without driver.
            Errno::NXIO | Errno::NODEV => match self.kind_of(name) {
                Some(FileType::Symlink) => AdmitError::PathSymlink { path: path.to_owned() },
                Some(_) | None => wrong_type(path, "regular file"),
            },
            errno => from_errno(path, "open", errno),
        }
    }

    /// What a name is now, without opening it.
    fn kind_of(&self, name: &str) -> Option<FileType> {
        let status = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(status.st_mode))
    }

    /// At most `max` entries, sorted by name.
    pub(super) fn entries(&self, max: usize) -> Result<Vec<Entry>, AdmitError> {
        let fault = |errno| from_errno(&self.path, "list", errno);
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            if entries.len() == max {
                break;
            }
            let path = self.path.join(OsStr::from_bytes(bytes));
            let name = utf8(&path, OsStr::from_bytes(bytes))?.to_owned();
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                kind = self.kind_of(&name).unwrap_or(kind);
            }
            entries.push(Entry { name, kind });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// One name in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: FileType,
}

impl PluginFile {
    /// Opens a file by a path of the operator's own.
    pub(super) fn open(path: &Path) -> Result<Self, AdmitError> {
        let flags = ANYTHING.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let fd = fd.map_err(|errno| from_errno(path, "open", errno))?;
        let status = rustix::fs::fstat(&fd).map_err(|errno| from_errno(path, "stat", errno))?;
        if !FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(wrong_type(path, "regular file"));
        }
        let size = u64::try_from(status.st_size).unwrap_or_default();
        Ok(Self { file: File::from(fd), path: path.to_owned(), size })
    }

    /// Reads all of it, at most `max` bytes however much it has grown since it was opened.
    pub(super) fn read(self, max: u64) -> Result<Vec<u8>, AdmitError> {
        self.check_size(max)?;
        let mut bytes = Vec::new();
        (&self.file)
            .take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| from_io(&self.path, "read", &error))?;
        let size = bytes.len() as u64;
        if size > max {
            return Err(AdmitError::FileTooLarge { path: self.path, size, max });
        }
        Ok(bytes)
    }

    pub(super) fn check_size(&self, max: u64) -> Result<(), AdmitError> {
        if self.size > max {
            let (path, size) = (self.path.clone(), self.size);
            return Err(AdmitError::FileTooLarge { path, size, max });
        }
        Ok(())
    }
}

fn check_owner_and_mode(path: &Path, status: &Stat) -> Result<(), AdmitError> {
    // Group write also stands for any write right an access control list grants: its mask shows there.
    if status.st_mode & 0o022 != 0 {
        let mode = status.st_mode & 0o7777;
        return Err(AdmitError::WritableByOthers { path: path.to_owned(), mode });
    }
    let uid = status.st_uid;
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(AdmitError::ForeignOwner { path: path.to_owned(), uid });
    }
    Ok(())
}

fn wrong_type(path: &Path, wanted: &'static str) -> AdmitError {
    AdmitError::WrongFileType { path: path.to_owned(), wanted }
}

fn from_errno(path: &Path, action: &'static str, errno: Errno) -> AdmitError {
    match errno {
        Errno::NOENT => AdmitError::NotFound { path: path.to_owned() },
        errno => AdmitError::Io { path: path.to_owned(), action, error: errno.to_string() },
    }
}

pub(super) fn from_io(path: &Path, action: &'static str, error: &std::io::Error) -> AdmitError {
    match Errno::from_io_error(error) {
        Some(Errno::NOTDIR) => wrong_type(path, "directory"),
        Some(errno) => from_errno(path, action, errno),
        None => AdmitError::Io { path: path.to_owned(), action, error: error.to_string() },
    }
}

/// Gives "not found" the name it has for the caller.
pub(super) fn missing_as(
    error: AdmitError,
    name: impl FnOnce(PathBuf) -> AdmitError,
) -> AdmitError {
    if let AdmitError::NotFound { path } = error { name(path) } else { error }
}

#[cfg(test)]
mod tests;

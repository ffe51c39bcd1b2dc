//! Whether gpg, its home and its keyring are in nobody else's hands.
//!
//! Whoever can write one of them, or a directory on the way to it, decides what counts as signed. So each
//! must belong to root or to this user, and so must every directory above it; none may be writable by group
//! or others (directories with the sticky bit, such as `/tmp`, may). Links are resolved first, and what is
//! run is what was looked at.

use std::fmt;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A part of the setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpgPart {
    /// The program.
    Program,
    /// The directory gpg takes for its own.
    Home,
    /// The file with the public keys.
    Keyring,
}

impl fmt::Display for GpgPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program => "the gpg program",
            Self::Home => "gpg's home",
            Self::Keyring => "gpg's keyring",
        })
    }
}

/// Why gpg is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpgSetupError {
    /// A relative path would mean another file after a change of directory.
    #[error("{path}: the path of {part} is not absolute: configure it from / on", path = path.display())]
    NotAbsolute {
        /// What it is to be.
        part: GpgPart,
        /// The path.
        path: PathBuf,
    },
    /// There is nothing.
    #[error("{path}: {part} is missing: install or create it, or configure where it is", path = path.display())]
    Missing {
        /// What it is to be.
        part: GpgPart,
        /// The path.
        path: PathBuf,
    },
    /// A directory where a file should be, or the other way round.
    #[error("{path}: {part} must be a {wanted}", path = path.display())]
    WrongType {
        /// What it is to be.
        part: GpgPart,
        /// The path.
        path: PathBuf,
        /// What was expected.
        wanted: &'static str,
    },
    /// This user may not run it.
    #[error("{path}: {part} is not executable for this user", path = path.display(), part = GpgPart::Program)]
    NotExecutable {
        /// The program.
        path: PathBuf,
    },
    /// It, or a directory above it, belongs to somebody else.
    #[error(
        "{at}: belongs to user {owner}, who could replace {part}: it must belong to root or to this user",
        at = at.display()
    )]
    Owner {
        /// What is in danger.
        part: GpgPart,
        /// The file or directory.
        at: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// It, or a directory above it, can be written by others.
    #[error(
        "{at}: is writable by group or others (mode {mode:04o}), who could replace {part}: chmod go-w",
        at = at.display()
    )]
    Writable {
        /// What is in danger.
        part: GpgPart,
        /// The file or directory.
        at: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system would not say.
    #[error("{path}: cannot look at {part}: {error}", path = path.display())]
    Io {
        /// What it is to be.
        part: GpgPart,
        /// The path.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
}

impl GpgSetupError {
    /// Stable code for programs: one per fault and part.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        use GpgPart::{Home, Keyring, Program};
        match self {
            Self::NotAbsolute { part: Program, .. } => "gpg.program_not_absolute",
            Self::NotAbsolute { part: Home, .. } => "gpg.home_not_absolute",
            Self::NotAbsolute { part: Keyring, .. } => "gpg.keyring_not_absolute",
            Self::Missing { part: Program, .. } => "gpg.program_missing",
            Self::Missing { part: Home, .. } => "gpg.home_missing",
            Self::Missing { part: Keyring, .. } => "gpg.keyring_missing",
            Self::WrongType { part: Program, .. } => "gpg.program_wrong_type",
            Self::WrongType { part: Home, .. } => "gpg.home_wrong_type",
            Self::WrongType { part: Keyring, .. } => "gpg.keyring_wrong_type",
            Self::NotExecutable { .. } => "gpg.program_not_executable",
            Self::Owner { part: Program, .. } => "gpg.program_owner",
            Self::Owner { part: Home, .. } => "gpg.home_owner",
            Self::Owner { part: Keyring, .. } => "gpg.keyring_owner",
            Self::Writable { part: Program, .. } => "gpg.program_writable",
            Self::Writable { part: Home, .. } => "gpg.home_writable",
            Self::Writable { part: Keyring, .. } => "gpg.keyring_writable",
            Self::Io { part: Program, .. } => "gpg.program_io",
            Self::Io { part: Home, .. } => "gpg.home_io",
            Self::Io { part: Keyring, .. } => "gpg.keyring_io",
        }
    }
}

/// The setup with every link resolved.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) program: PathBuf,
    pub(super) home: PathBuf,
    pub(super) keyring: PathBuf,
}

pub(super) fn check(program: &Path, home: &Path, keyring: &Path) -> Result<Checked, GpgSetupError> {
    let checked = Checked {
        program: check_part(GpgPart::Program, program)?,
        home: check_part(GpgPart::Home, home)?,
        keyring: check_part(GpgPart::Keyring, keyring)?,
    };
    rustix::fs::access(&checked.program, Access::EXEC_OK)
        .map_err(|_denied| GpgSetupError::NotExecutable { path: program.to_owned() })?;
    Ok(checked)
}

fn check_part(part: GpgPart, path: &Path) -> Result<PathBuf, GpgSetupError> {
    if !path.is_absolute() {
        return Err(GpgSetupError::NotAbsolute { part, path: path.to_owned() });
    }
    let io = |error: std::io::Error| match error.kind() == ErrorKind::NotFound {
        true => GpgSetupError::Missing { part, path: path.to_owned() },
        false => GpgSetupError::Io { part, path: path.to_owned(), error: error.to_string() },
    };
    let real = path.canonicalize().map_err(io)?;
    let found = real.symlink_metadata().map_err(io)?;
    let (fits, wanted) = match part {
        GpgPart::Home => (found.is_dir(), "directory"),
        GpgPart::Program | GpgPart::Keyring => (found.is_file(), "regular file"),
    };
    if !fits {
        return Err(GpgSetupError::WrongType { part, path: path.to_owned(), wanted });
    }
    // Even with the sticky bit: others could put files beside gpg's own.
    check_hands(part, &real, &found, 0)?;
    for dir in real.ancestors().skip(1) {
        let found = dir.symlink_metadata().map_err(io)?;
        check_hands(part, dir, &found, STICKY)?;
    }
    Ok(real)
}

/// Who owns it and who may write it; a bit of `excused` excuses that others may.
fn check_hands(
    part: GpgPart,
    at: &Path,
    found: &Metadata,
    excused: u32,
) -> Result<(), GpgSetupError> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(GpgSetupError::Owner { part, at: at.to_owned(), owner });
    }
    if mode & WRITABLE_BY_OTHERS != 0 && mode & excused == 0 {
        return Err(GpgSetupError::Writable { part, at: at.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

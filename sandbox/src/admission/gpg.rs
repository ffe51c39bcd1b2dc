//! Verifies a detached OpenPGP signature with the system's gpg, for plugins signed the old way.
//!
//! ```text
//! signature ─▶ one packet? ─▶ setup safe? ─▶ gpg (no shell, own group, limit) ─▶ status lines ─▶ trust
//!     │             │              │                     │                            │
//!     └─────────────┴──────────────┴── any doubt: error ─┴────────────────────────────┘
//! ```
//!
//! Two questions are kept apart. [`Gpg::run_gpg_verify`] only runs gpg and says what it printed and how it
//! ended. [`Gpg::verify`] and [`Gpg::verify_open`] decide, and only from the status lines on gpg's standard
//! output, its exit code and the fingerprints the caller has pinned: no message for people counts.
//!
//! gpg's own verdict is not enough. It ends with status 0 for a good signature by a key that has expired, and
//! of several signatures of different kinds it checks the first one and leaves the rest out of its status
//! lines. So the signature file is read here first and must be exactly one signature packet; that packet,
//! and not the file, is what gpg gets.
//!
//! gpg reaches that packet, and files the caller holds open, through `/proc/<this process>/fd`. A process that
//! has made itself undumpable cannot be looked into like that: then everything is refused.
//!
//! There is no state between two calls; they may come from any number of threads at once.

mod armor;
mod decide;
mod fingerprint;
mod input;
mod output;
mod packet;
mod rule;
mod run;
mod setup;
mod status;
mod verify;

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use setup::Checked;
use themis_messages::limits::OPENPGP_BYTES_MAX;

pub use decide::{GpgRefusal, GpgSignature, HashAlgorithm, decide};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use input::{GpgInput, GpgInputError};
pub use output::{GpgOutput, GpgResult, GpgStream};
pub use packet::SignatureFileFault;
pub use rule::GpgRule;
pub use run::GpgRunError;
pub use setup::{GpgPart, GpgSetupError};
pub use verify::GpgVerifyError;

/// The flags of every run, between the program and the home. Checked with GnuPG 2.2.40; a gpg that does not
/// know one of them fails, and then nothing is trusted.
///
/// Without options file, terminal, agent, network, trust database or lock files: gpg only reads, and what it
/// reads is named here. (`/etc/gnupg/gpg.conf` is read even so; only root can write it.)
const FLAGS: [&str; 14] = [
    "--batch",
    "--no-tty",
    "--no-options",
    "--no-greeting",
    "--no-default-keyring",
    "--trust-model=always",
    "--no-auto-check-trustdb",
    "--no-auto-key-retrieve",
    "--no-auto-key-locate",
    "--disable-dirmngr",
    "--no-autostart",
    "--no-random-seed-file",
    "--lock-never",
    "--exit-on-status-write-error",
];

/// What one run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpgLimits {
    /// From start to end of gpg; then it is killed.
    pub time: Duration,
    /// How many bytes of each of the two streams are kept; the rest is read and counted.
    pub kept_bytes: usize,
    /// How many bytes both streams may have together; above that gpg is killed.
    pub output_bytes_max: u64,
    /// Largest signature file, in bytes; above that gpg is not run.
    pub signature_bytes_max: u64,
}

impl Default for GpgLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            kept_bytes: 64 << 10,
            output_bytes_max: 8 << 20,
            signature_bytes_max: OPENPGP_BYTES_MAX,
        }
    }
}

/// A configured gpg: the program, its dedicated home and the keyring with the keys of those who may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpg {
    program: PathBuf,
    home: PathBuf,
    keyring: PathBuf,
    limits: GpgLimits,
}

impl Gpg {
    /// Takes three absolute paths. They are looked at before every run, not here: they may change.
    #[must_use]
    pub fn new(
        program: impl Into<PathBuf>,
        home: impl Into<PathBuf>,
        keyring: impl Into<PathBuf>,
    ) -> Self {
        Self {
            program: program.into(),
            home: home.into(),
            keyring: keyring.into(),
            limits: GpgLimits::default(),
        }
    }

    /// With other limits than the default ones.
    #[must_use]
    pub fn with_limits(self, limits: GpgLimits) -> Self {
        Self { limits, ..self }
    }

    /// Whether program, home and keyring are there and nobody but root and this user can change them.
    ///
    /// # Errors
    /// [`GpgSetupError`].
    pub fn check_setup(&self) -> Result<(), GpgSetupError> {
        self.checked().map(drop)
    }

    /// Runs `gpg --verify -- sig file` and says what came of it, without any judgement: exit code 0 alone is
    /// no trust. gpg opens both paths itself; relative ones are made absolute first.
    ///
    /// # Errors
    /// [`GpgRunError`].
    pub fn run_gpg_verify(&self, sig: &Path, file: &Path) -> Result<GpgResult, GpgRunError> {
        let (signature, data) = (GpgInput::Signature, GpgInput::Data);
        let sig = input::path(signature, sig, Some(self.limits.signature_bytes_max))?;
        let file = input::path(data, file, None)?;
        self.run(&sig, &file)
    }

    /// As [`Self::run_gpg_verify`], for files the caller holds open. gpg gets them as
    /// `/proc/<this process>/fd/<n>`, so it reads these files whatever happens to their names.
    ///
    /// A file that can still be written to may change under gpg; hand over sealed memory files.
    ///
    /// # Errors
    /// [`GpgRunError`].
    pub fn run_gpg_verify_open(
        &self,
        sig: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
    ) -> Result<GpgResult, GpgRunError> {
        let (signature, data) = (GpgInput::Signature, GpgInput::Data);
        let sig = input::open(signature, sig, Some(self.limits.signature_bytes_max))?;
        let file = input::open(data, file, None)?;
        self.run(&sig, &file)
    }

    /// Both paths are absolute, so neither can be taken for an option or for "-", standard input.
    fn run(&self, sig: &Path, file: &Path) -> Result<GpgResult, GpgRunError> {
        let checked = self.checked()?;
        run::run(command(&checked, sig, file), &self.limits)
    }

    fn limits(&self) -> &GpgLimits {
        &self.limits
    }

    fn checked(&self) -> Result<Checked, GpgSetupError> {
        setup::check(&self.program, &self.home, &self.keyring)
    }
}

/// The whole command. Nothing of this process's environment is handed on.
fn command(setup: &Checked, sig: &Path, file: &Path) -> Command {
    let mut command = Command::new(&setup.program);
    command
        .args(FLAGS)
        .args([OsStr::new("--homedir"), setup.home.as_os_str()])
        .args([OsStr::new("--keyring"), setup.keyring.as_os_str()])
        // Alone on standard output: messages for people go to standard error.
        .args(["--status-fd", "1", "--verify", "--"])
        .args([sig, file])
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &setup.home)
        .env("GNUPGHOME", &setup.home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that whatever it starts can be killed with it.
        .process_group(0);
    command
}

#[cfg(test)]
mod tests;

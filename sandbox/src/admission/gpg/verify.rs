//! From two files to a verdict: the signature is taken apart here, run past gpg, and judged.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use super::Gpg;
use super::decide::{GpgRefusal, GpgSignature, decide};
use super::fingerprint::Fingerprint;
use super::input::{self, GpgInput};
use super::output::GpgResult;
use super::packet::{SignatureFileFault, only_signature};
use super::run::GpgRunError;

/// Why a file does not count as signed. Every one of them means: no trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpgVerifyError {
    /// Without a pinned key nothing can be trusted.
    #[error("no key is pinned: configure the fingerprints of those who may sign")]
    NothingPinned,
    /// The signature file is not one detached signature. gpg was not run.
    #[error("{path}: {fault}", path = path.display())]
    SignatureFile {
        /// The signature file.
        path: PathBuf,
        /// What is wrong with it.
        fault: SignatureFileFault,
    },
    /// The system would not hold a private copy of what gpg is to read. gpg was not run.
    #[error("cannot make a private copy for gpg in memory: {error}")]
    Copy {
        /// The system's words.
        error: String,
    },
    /// gpg was not run, or not to its end.
    #[error(transparent)]
    Run(#[from] GpgRunError),
    /// gpg ran, and what it says is not enough.
    #[error("{path}: {reason}", path = path.display())]
    Refused {
        /// The signed file.
        path: PathBuf,
        /// Why it is not trusted.
        reason: GpgRefusal,
        /// The run, for the log.
        result: Box<GpgResult>,
    },
}

impl GpgVerifyError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NothingPinned => "gpg.nothing_pinned",
            Self::SignatureFile { fault, .. } => fault.code(),
            Self::Copy { .. } => "gpg.copy",
            Self::Run(error) => error.code(),
            Self::Refused { reason, .. } => reason.code(),
        }
    }
}

impl Gpg {
    /// Whether `sig` holds exactly one good detached signature of `file` by one of the pinned keys or one of
    /// their subkeys.
    ///
    /// It says so of the bytes that gpg read at that path. What is opened there later may be something else:
    /// where that matters use [`Self::verify_open`].
    ///
    /// # Errors
    /// [`GpgVerifyError`].
    pub fn verify(
        &self,
        sig: &Path,
        file: &Path,
        pinned: &BTreeSet<Fingerprint>,
    ) -> Result<GpgSignature, GpgVerifyError> {
        check_pinned(pinned)?;
        let signature = input::read_signature(sig, self.limits().signature_bytes_max)
            .map_err(GpgRunError::from)?;
        let data = input::path(GpgInput::Data, file, None).map_err(GpgRunError::from)?;
        self.judge(&signature, sig, &data, pinned)
    }

    /// As [`Self::verify`], of files the caller holds open: what was verified is what these descriptors
    /// give, whatever happens to the names. Their positions are left alone.
    ///
    /// A file that can still be written to can change after it has been verified; hand over sealed memory
    /// files.
    ///
    /// # Errors
    /// [`GpgVerifyError`].
    pub fn verify_open(
        &self,
        sig: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        pinned: &BTreeSet<Fingerprint>,
    ) -> Result<GpgSignature, GpgVerifyError> {
        check_pinned(pinned)?;
        let max = self.limits().signature_bytes_max;
        let sig_path =
            input::open(GpgInput::Signature, sig, Some(max)).map_err(GpgRunError::from)?;
        let signature = input::read_open(sig, &sig_path, max).map_err(GpgRunError::from)?;
        let data = input::open(GpgInput::Data, file, None).map_err(GpgRunError::from)?;
        self.judge(&signature, &sig_path, &data, pinned)
    }

    /// As [`Self::verify`], with the signature's bytes at hand.
    pub(super) fn verify_parts(
        &self,
        signature: &[u8],
        sig_path: &Path,
        data: &Path,
        pinned: &BTreeSet<Fingerprint>,
    ) -> Result<GpgSignature, GpgVerifyError> {
        check_pinned(pinned)?;
        self.judge(signature, sig_path, data, pinned)
    }

    /// gpg is given the packet that was found, in a file of its own, and not the signature file: so there is
    /// nothing in it that the two could read differently.
    fn judge(
        &self,
        signature: &[u8],
        sig_path: &Path,
        data: &Path,
        pinned: &BTreeSet<Fingerprint>,
    ) -> Result<GpgSignature, GpgVerifyError> {
        let packet = only_signature(signature)
            .map_err(|fault| GpgVerifyError::SignatureFile { path: sig_path.to_owned(), fault })?;
        let packet = input::sealed(&packet)
            .map_err(|errno| GpgVerifyError::Copy { error: errno.to_string() })?;
        let packet_path =
            input::open(GpgInput::Signature, packet.as_fd(), None).map_err(GpgRunError::from)?;
        let result = self.run(&packet_path, data)?;
        decide(&result, pinned).map_err(|reason| GpgVerifyError::Refused {
            path: data.to_owned(),
            reason,
            result: Box::new(result),
        })
    }
}

fn check_pinned(pinned: &BTreeSet<Fingerprint>) -> Result<(), GpgVerifyError> {
    if pinned.is_empty() {
        return Err(GpgVerifyError::NothingPinned);
    }
    Ok(())
}

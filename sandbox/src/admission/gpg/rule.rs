//! The operator's demand for an OpenPGP signature beside the Ed25519 one, and whether a plugin meets it.
//!
//! It is asked after the pinned Ed25519 key has vouched for the same bytes, and never instead of it.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::Path;

use themis_messages::admit::AdmitError;

use super::super::policy::NameSet;
use super::super::root::{PluginFile, missing_as};
use super::input::{self, GpgInput};
use super::verify::GpgVerifyError;
use super::{Fingerprint, Gpg, GpgRunError};

/// Which plugins must carry an OpenPGP signature, by whom, and the gpg that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpgRule {
    /// The gpg that is asked.
    pub gpg: Gpg,
    /// Keys that count: one of them, or a subkey of it, must have signed. None means that nothing counts.
    pub fingerprints: BTreeSet<Fingerprint>,
    /// The plugins it is demanded of.
    pub plugins: NameSet,
}

impl GpgRule {
    /// Whether `signature`, which may be missing, is one good signature of `bytes` by a pinned key; `signed` is their
    /// place, for the error. gpg sees copies that nobody can change.
    ///
    /// # Errors
    /// [`AdmitError::OpenPgpMissing`], [`AdmitError::OpenPgp`] and what the file system says: every doubt.
    pub(in super::super) fn check(
        &self,
        signature: Result<PluginFile, AdmitError>,
        signed: &Path,
        bytes: &[u8],
    ) -> Result<(), AdmitError> {
        let file = signature
            .map_err(|error| missing_as(error, |path| AdmitError::OpenPgpMissing { path }))?;
        let path = file.path.clone();
        let packet = file.read(self.gpg.limits().signature_bytes_max)?;
        self.judge(&packet, &path, bytes).map(drop).map_err(|error| AdmitError::OpenPgp {
            path: signed.to_owned(),
            code: error.code(),
            why: why(&error),
        })
    }

    fn judge(
        &self,
        signature: &[u8],
        path: &Path,
        bytes: &[u8],
    ) -> Result<super::GpgSignature, GpgVerifyError> {
        let copy = |errno: rustix::io::Errno| GpgVerifyError::Copy { error: errno.to_string() };
        let data = input::sealed(bytes).map_err(copy)?;
        let place = input::open(GpgInput::Data, data.as_fd(), None).map_err(GpgRunError::from)?;
        self.gpg.verify_parts(signature, path, &place, &self.fingerprints)
    }
}

/// The reason without the place of the copy, which is of no use to anybody.
fn why(error: &GpgVerifyError) -> String {
    match error {
        GpgVerifyError::Refused { reason, .. } => reason.to_string(),
        GpgVerifyError::NothingPinned
        | GpgVerifyError::SignatureFile { .. }
        | GpgVerifyError::Copy { .. }
        | GpgVerifyError::Run(_) => error.to_string(),
    }
}

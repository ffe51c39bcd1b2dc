//! The decision: whether a run of gpg shows one good signature by a pinned key.
//!
//! ```text
//! complete status? ─▶ one signature? ─▶ nothing against it? ─▶ exit code 0? ─▶ GOODSIG and VALIDSIG of one
//!        key? ─▶ over the bytes as they are? ─▶ strong hash? ─▶ pinned? ─▶ GpgSignature
//! ```

use std::collections::BTreeSet;
use std::fmt;

use super::fingerprint::Fingerprint;
use super::output::{GpgResult, printable};
use super::status::Report;

/// A good signature by a pinned key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpgSignature {
    /// The key, or subkey, that signed.
    pub signer: Fingerprint,
    /// The pinned key: the signer itself or the primary key it belongs to.
    pub pinned: Fingerprint,
    /// What was hashed with.
    pub hash: HashAlgorithm,
    /// When it says it was made, in seconds since 1970. gpg takes dates in the future as they are.
    pub created: u64,
}

/// The hash algorithms that count (RFC 9580, 9.5). MD5, SHA-1 and RIPEMD-160 do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-224.
    Sha224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-512.
    Sha3_512,
}

impl HashAlgorithm {
    fn from_number(number: u64) -> Option<Self> {
        match number {
            8 => Some(Self::Sha256),
            9 => Some(Self::Sha384),
            10 => Some(Self::Sha512),
            11 => Some(Self::Sha224),
            12 => Some(Self::Sha3_256),
            14 => Some(Self::Sha3_512),
            _ => None,
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Sha224 => "SHA-224",
            Self::Sha3_256 => "SHA3-256",
            Self::Sha3_512 => "SHA3-512",
        })
    }
}

/// Why a run of gpg shows no trust. Texts from gpg are cut and made printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpgRefusal {
    /// Something killed gpg.
    #[error("gpg was ended by signal {signal}")]
    Killed {
        /// The signal's number; 0 when unknown.
        signal: i32,
    },
    /// More status lines than are kept.
    #[error("gpg's status lines are {bytes} bytes long: too long to be read whole")]
    StatusTooLong {
        /// Their length.
        bytes: u64,
    },
    /// The last status line has no end.
    #[error("gpg's status lines are cut off")]
    StatusCut,
    /// Something else among the status lines.
    #[error("gpg's standard output has something other than status lines: \"{line}\"")]
    StatusStray {
        /// The line.
        line: String,
    },
    /// A `VALIDSIG` or `GOODSIG` line that is not as documented.
    #[error("gpg's {keyword} line is not understood: \"{line}\"")]
    StatusMalformed {
        /// Which line.
        keyword: &'static str,
        /// Its arguments.
        line: String,
    },
    /// gpg looked at several signatures.
    #[error("there are {count} signatures: exactly one counts")]
    SeveralSignatures {
        /// How many.
        count: usize,
    },
    /// The file or the signature has been changed.
    #[error("the signature by key {key} does not match the file: one of them has been changed")]
    BadSignature {
        /// The key it names.
        key: String,
    },
    /// The signature's own date has passed.
    #[error("the signature by key {key} has expired: have it signed anew")]
    SignatureExpired {
        /// The key.
        key: String,
    },
    /// The key's date has passed.
    #[error(
        "key {key} has expired: import it anew if it was extended, or have it signed by another"
    )]
    KeyExpired {
        /// The key.
        key: String,
    },
    /// Its owner has revoked the key.
    #[error("key {key} has been revoked by its owner: have it signed by another")]
    KeyRevoked {
        /// The key.
        key: String,
    },
    /// The keyring does not have the key.
    #[error("key {key} is not in the keyring: import it there if it may sign")]
    KeyMissing {
        /// The key it names.
        key: String,
    },
    /// gpg cannot check it: an algorithm it does not know, or a date in the future.
    #[error("gpg cannot check the signature by key {key}: see its messages")]
    CannotCheck {
        /// The key it names.
        key: String,
    },
    /// gpg reports a fault of another kind.
    #[error("gpg reports \"{line}\": see its messages")]
    Reported {
        /// The status line.
        line: String,
    },
    /// Not 0.
    #[error("gpg ended with status {code}: see its messages")]
    ExitCode {
        /// The exit code.
        code: i32,
    },
    /// No `GOODSIG` or no `VALIDSIG`, although nothing speaks against the signature.
    #[error("gpg ended with status 0 but without a {keyword} status line: is it gpg?")]
    NoProof {
        /// What is missing.
        keyword: &'static str,
    },
    /// The two lines speak of two keys.
    #[error("gpg calls a signature by {good} good, but one by {valid} valid")]
    KeysDiffer {
        /// The key of the `GOODSIG` line.
        good: String,
        /// The key of the `VALIDSIG` line.
        valid: Fingerprint,
    },
    /// Not a signature over bytes. One over text leaves line ends free, so other bytes have it too.
    #[error(
        "it is a signature of class {class}, not of a binary file (00): sign without --textmode"
    )]
    SignatureClass {
        /// The class, two hexadecimal digits.
        class: String,
    },
    /// A hash for which two files with the same digest can be made, or an unknown one.
    #[error(
        "the hash algorithm (number {number}) is weak or unknown: sign with --digest-algo SHA256"
    )]
    WeakHash {
        /// Its number.
        number: u64,
    },
    /// Good, but by a key nobody has pinned.
    #[error("key {signer} (primary key {primary}) is not pinned: pin it if it may sign")]
    NotPinned {
        /// The key that signed.
        signer: Fingerprint,
        /// The primary key it belongs to.
        primary: Fingerprint,
    },
}

impl GpgRefusal {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Killed { .. } => "gpg.killed",
            Self::StatusTooLong { .. } => "gpg.status_too_long",
            Self::StatusCut => "gpg.status_cut",
            Self::StatusStray { .. } => "gpg.status_stray",
            Self::StatusMalformed { .. } => "gpg.status_malformed",
            Self::SeveralSignatures { .. } => "gpg.several_signatures",
            Self::BadSignature { .. } => "gpg.bad_signature",
            Self::SignatureExpired { .. } => "gpg.signature_expired",
            Self::KeyExpired { .. } => "gpg.key_expired",
            Self::KeyRevoked { .. } => "gpg.key_revoked",
            Self::KeyMissing { .. } => "gpg.key_missing",
            Self::CannotCheck { .. } => "gpg.cannot_check",
            Self::Reported { .. } => "gpg.reported",
            Self::ExitCode { .. } => "gpg.exit_code",
            Self::NoProof { .. } => "gpg.no_proof",
            Self::KeysDiffer { .. } => "gpg.keys_differ",
            Self::SignatureClass { .. } => "gpg.signature_class",
            Self::WeakHash { .. } => "gpg.weak_hash",
            Self::NotPinned { .. } => "gpg.key_not_pinned",
        }
    }
}

/// Whether the run shows exactly one good signature, by a pinned key or a subkey of one. Only exit code and
/// status lines count; two signatures are refused even if both are good.
///
/// # Errors
/// [`GpgRefusal`].
pub fn decide(
    result: &GpgResult,
    pinned: &BTreeSet<Fingerprint>,
) -> Result<GpgSignature, GpgRefusal> {
    let Some(code) = result.exit_code else {
        return Err(GpgRefusal::Killed { signal: result.signal.unwrap_or_default() });
    };
    let report = Report::read(&result.output.status)?;
    let count = report.started.max(report.good.len()).max(report.valid.len());
    if count > 1 {
        return Err(GpgRefusal::SeveralSignatures { count });
    }
    if let Some(fault) = report.fault {
        return Err(fault);
    }
    if code != 0 {
        return Err(GpgRefusal::ExitCode { code });
    }
    let no_proof = |keyword| GpgRefusal::NoProof { keyword };
    let good = report.good.first().ok_or_else(|| no_proof("GOODSIG"))?;
    let valid = report.valid.first().ok_or_else(|| no_proof("VALIDSIG"))?;
    Valid::parse(valid)?.trusted(good, pinned)
}

/// The arguments of `VALIDSIG` that matter.
struct Valid {
    signer: Fingerprint,
    primary: Fingerprint,
    created: u64,
    hash: u64,
    class: String,
}

impl Valid {
    fn parse(arguments: &[&[u8]]) -> Result<Self, GpgRefusal> {
        let understood = || {
            let text = |at: usize| str::from_utf8(arguments.get(at)?).ok();
            let signer = Fingerprint::parse(text(0)?).ok()?;
            let primary = match arguments.len() {
                // The primary key is left out by very old versions.
                9 => signer.clone(),
                10 => Fingerprint::parse(text(9)?).ok()?,
                _ => return None,
            };
            let class = text(8).filter(|class| class.len() == 2)?.to_owned();
            Some(Self {
                signer,
                primary,
                created: decimal(text(2)?)?,
                hash: decimal(text(7)?)?,
                class,
            })
        };
        understood().ok_or_else(|| malformed("VALIDSIG", arguments))
    }

    fn trusted(
        self,
        good: &[&[u8]],
        pinned: &BTreeSet<Fingerprint>,
    ) -> Result<GpgSignature, GpgRefusal> {
        let named = good.first().and_then(|name| str::from_utf8(name).ok());
        let named = named.ok_or_else(|| malformed("GOODSIG", good))?;
        if !self.signer.is_named(named) {
            let good = printable(named.as_bytes());
            return Err(GpgRefusal::KeysDiffer { good, valid: self.signer });
        }
        if self.class != "00" {
            return Err(GpgRefusal::SignatureClass { class: printable(self.class.as_bytes()) });
        }
        let hash = HashAlgorithm::from_number(self.hash)
            .ok_or(GpgRefusal::WeakHash { number: self.hash })?;
        let pin = [&self.signer, &self.primary].into_iter().find_map(|key| pinned.get(key));
        match pin.cloned() {
            Some(pinned) => {
                Ok(GpgSignature { signer: self.signer, pinned, hash, created: self.created })
            }
            None => Err(GpgRefusal::NotPinned { signer: self.signer, primary: self.primary }),
        }
    }
}

fn malformed(keyword: &'static str, arguments: &[&[u8]]) -> GpgRefusal {
    GpgRefusal::StatusMalformed { keyword, line: printable(&arguments.join(&b' ')) }
}

/// Digits only: the standard parser also takes a sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;

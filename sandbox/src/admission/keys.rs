//! Ed25519 keys and nothing else: a key that is not canonical, is weak or of another kind never gets in.
//!
//! Strict verification refuses weak keys and signatures with weak points. It still accepts keys with a
//! torsion component, for which "valid" depends on who asks; those are refused here, when the key is read.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::SubjectPublicKeyInfoRef;
use ed25519_dalek::pkcs8::spki::der::pem::{LineEnding, PemLabel as _};
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, Document, EncodePrivateKey as _, EncodePublicKey as _, ObjectIdentifier,
    PrivateKeyInfoRef, SecretDocument,
};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use themis_messages::ids::KeyId;
use themis_messages::limits::KEY_FILE_BYTES_MAX;
use zeroize::Zeroizing;

pub use themis_messages::admit::KeyError;

/// id-Ed25519 (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const PUBLIC: &str = "an SPKI public key";
const PRIVATE: &str = "a PKCS#8 private key";

/// The order of the group, little-endian: a signature's scalar must be below it, or one signature could be
/// written in two ways.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A public key that was canonical, not weak and free of torsion when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureFault {
    /// The scalar is not below the group order.
    ScalarRange,
    /// It is not a signature of these bytes under this key.
    Mismatch,
}

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032; `path` is where they come from, for the error.
    ///
    /// # Errors
    /// [`KeyError::NotCanonical`] or [`KeyError::Weak`].
    pub fn from_bytes(path: &Path, bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let not_canonical = || KeyError::NotCanonical { path: path.to_owned() };
        let key = VerifyingKey::from_bytes(bytes).map_err(|_no_point| not_canonical())?;
        let point = key.to_edwards();
        if point.compress().as_bytes() != bytes {
            return Err(not_canonical());
        }
        if key.is_weak() || !point.is_torsion_free() {
            return Err(KeyError::Weak { path: path.to_owned() });
        }
        Ok(Self::trusted(key))
    }

    fn trusted(key: VerifyingKey) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(key.as_bytes()));
        Self { key, id: KeyId([a, b, c, d, e, f, g, h]) }
    }

    /// Reads an SPKI PEM text; `path` is where it comes from, for the error.
    ///
    /// # Errors
    /// [`KeyError`]; a key of another algorithm is refused by that algorithm's name.
    pub fn from_pem(path: &Path, pem: &str) -> Result<Self, KeyError> {
        let format = |why: String| KeyError::Format { path: path.to_owned(), wanted: PUBLIC, why };
        let (label, document) =
            Document::from_pem(pem).map_err(|error| format(error.to_string()))?;
        if label != SubjectPublicKeyInfoRef::PEM_LABEL {
            return Err(wrong_label(path, PUBLIC, label));
        }
        let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes())
            .map_err(|error| format(error.to_string()))?;
        check_algorithm(path, info.algorithm.oid)?;
        if info.algorithm.parameters.is_some() {
            return Err(format("its algorithm has parameters, which Ed25519 has not".to_owned()));
        }
        let bits = info.subject_public_key.as_bytes().unwrap_or_default();
        let bytes: &[u8; 32] = bits
            .try_into()
            .map_err(|_length| format(format!("a key is 32 bytes, this is {}", bits.len())))?;
        Self::from_bytes(path, bytes)
    }

    /// Reads an SPKI PEM file.
    ///
    /// # Errors
    /// As [`Self::from_pem`], and when the file cannot be read or is too large.
    pub fn from_pem_file(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(path, &read(path, PUBLIC, Exposure::Allowed)?)
    }

    /// The first eight bytes of SHA-256 over the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// As SPKI PEM, as OpenSSL reads it.
    ///
    /// # Errors
    /// [`KeyError::Format`] when it cannot be encoded.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.key
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| unencodable(PUBLIC, &error.to_string()))
    }

    /// Verifies strictly: no weak point, one spelling per signature, the same verdict every time.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureFault> {
        let (_, scalar) = signature.split_at(32);
        // Little-endian numbers compare from their last byte down.
        if scalar.iter().rev().ge(GROUP_ORDER.iter().rev()) {
            return Err(SignatureFault::ScalarRange);
        }
        self.key
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_one_reason_only| SignatureFault::Mismatch)
    }
}

/// A private key. It is wiped from memory when dropped and never printed.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public_key().key_id())
    }
}

impl SigningKey {
    /// Makes a new key from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Io`] when the system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|error| io(Path::new("the system's random source"), &error))?;
        Ok(Self { key: ed25519_dalek::SigningKey::from_bytes(&seed) })
    }

    /// Reads a PKCS#8 PEM file that nobody else can read.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::Exposed`] when group or others have any right to the file.
    pub fn from_pem_file(path: &Path) -> Result<Self, KeyError> {
        let pem = Zeroizing::new(read(path, PRIVATE, Exposure::Refused)?);
        let format = |why: String| KeyError::Format { path: path.to_owned(), wanted: PRIVATE, why };
        let (label, document) =
            SecretDocument::from_pem(&pem).map_err(|error| format(error.to_string()))?;
        if label != PrivateKeyInfoRef::PEM_LABEL {
            return Err(wrong_label(path, PRIVATE, label));
        }
        let info = PrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|error| format(error.to_string()))?;
        check_algorithm(path, info.algorithm.oid)?;
        let key = ed25519_dalek::SigningKey::from_pkcs8_der(document.as_bytes())
            .map_err(|error| format(error.to_string()))?;
        Ok(Self { key })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        // A point derived from a clamped scalar is a multiple of the base point: canonical, no torsion.
        PublicKey::trusted(self.key.verifying_key())
    }

    /// Signs. The public key is always this key's own, never one handed in.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Writes `PREFIX.key.pem` (mode 0600) and `PREFIX.pub.pem` and gives their paths. Neither may exist.
    ///
    /// # Errors
    /// [`KeyError::Io`]; then neither file was made.
    pub fn write_pem_pair(&self, prefix: &Path) -> Result<(PathBuf, PathBuf), KeyError> {
        let private = self
            .key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| unencodable(PRIVATE, &error.to_string()))?;
        let public = self.public_key().to_pem()?;
        let (key_path, pub_path) = (suffixed(prefix, ".key.pem"), suffixed(prefix, ".pub.pem"));
        create(&key_path, 0o600, private.as_bytes())?;
        if let Err(error) = create(&pub_path, 0o644, public.as_bytes()) {
            // Half a pair would block the next attempt. The file is ours: it was just created.
            std::fs::remove_file(&key_path).map_err(|error| io(&key_path, &error))?;
            return Err(error);
        }
        Ok((key_path, pub_path))
    }
}

fn suffixed(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Never overwrites, never follows a link; what could not be written whole is taken away again.
fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), KeyError> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| io(path, &error))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| match std::fs::remove_file(path) {
        Ok(()) => io(path, &error),
        Err(also) => io(path, &format!("{error}, and it cannot be removed: {also}")),
    })
}

fn io(path: &Path, error: &impl ToString) -> KeyError {
    KeyError::Io { path: path.to_owned(), error: error.to_string() }
}

fn unencodable(wanted: &'static str, why: &str) -> KeyError {
    KeyError::Format { path: PathBuf::from("the key in memory"), wanted, why: why.to_owned() }
}

/// Whether others may have rights to a key file.
enum Exposure {
    Allowed,
    Refused,
}

fn read(path: &Path, wanted: &'static str, exposure: Exposure) -> Result<String, KeyError> {
    // Without O_NONBLOCK a named pipe would hang the reader.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| io(path, &error))?;
    let status = file.metadata().map_err(|error| io(path, &error))?;
    let format =
        |why: &str| KeyError::Format { path: path.to_owned(), wanted, why: why.to_owned() };
    if !status.is_file() {
        return Err(format("it is not a regular file"));
    }
    let mode = status.permissions().mode() & 0o7777;
    if matches!(exposure, Exposure::Refused) && mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| io(path, &error))?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(KeyError::TooLarge { path: path.to_owned(), max: KEY_FILE_BYTES_MAX });
    }
    str::from_utf8(&bytes).map(ToOwned::to_owned).map_err(|_not_text| format("it is not text"))
}

fn check_algorithm(path: &Path, found: ObjectIdentifier) -> Result<(), KeyError> {
    if found == ED25519 {
        return Ok(());
    }
    let name = match found.to_string().as_str() {
        "1.2.840.113549.1.1.1" => "RSA".to_owned(),
        "1.2.840.113549.1.1.10" => "RSA-PSS".to_owned(),
        "1.2.840.10045.2.1" => "ECDSA (elliptic curve)".to_owned(),
        "1.2.840.10040.4.1" => "DSA".to_owned(),
        "1.2.840.113549.1.3.1" => "Diffie-Hellman".to_owned(),
        "1.3.101.110" => "X25519".to_owned(),
        "1.3.101.111" => "X448".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        other => format!("algorithm {other}"),
    };
    Err(KeyError::Algorithm { path: path.to_owned(), found: name })
}

/// A PEM block of another kind than the one wanted.
fn wrong_label(path: &Path, wanted: &'static str, label: &str) -> KeyError {
    let path = path.to_owned();
    let algorithm = match label {
        "RSA PUBLIC KEY" | "RSA PRIVATE KEY" => Some("RSA"),
        "EC PRIVATE KEY" | "EC PARAMETERS" => Some("ECDSA (elliptic curve)"),
        "DSA PRIVATE KEY" | "DSA PARAMETERS" => Some("DSA"),
        _ => None,
    };
    if let Some(found) = algorithm {
        return KeyError::Algorithm { path, found: found.to_owned() };
    }
    let why = match label {
        "PRIVATE KEY" => "it is a private key: give the file with the public key".to_owned(),
        "PUBLIC KEY" => "it is a public key: give the file with the private key".to_owned(),
        "ENCRYPTED PRIVATE KEY" => "it is encrypted, which is not supported".to_owned(),
        other => {
            format!("it is a PEM block of kind {:?}", other.chars().take(40).collect::<String>())
        }
    };
    KeyError::Format { path, wanted, why }
}

#[cfg(test)]
mod tests;

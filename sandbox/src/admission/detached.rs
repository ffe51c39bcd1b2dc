//! The second accepted form: one binary with a signature over the whole file beside it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, KeyId, Tier};
use themis_messages::limits::{FILE_BYTES_MAX, SIGNATURE_BYTES};
use themis_messages::manifest::{ListedFile, Manifest, RequestedLimits, Target};

use super::admit::{Admission, AdmittedPlugin};
use super::descriptor::Descriptor;
use super::elf::Image;
use super::keys::{PublicKey, SignatureFault, SigningKey};
use super::root::{Dir, PluginFile};
use super::sealed::Purpose;
use super::sign::replace;
use super::signed::{read_signature, verify};
use super::source::Source;

/// Admits a binary with its detached signature.
///
/// The signature names no key, so the binary's own name is read first, by code made for hostile bytes; it
/// picks the one key that may sign it, and counts for nothing until that key's signature has been verified.
pub(super) fn admit(
    admission: &Admission<'_>,
    dir: &Dir,
    file_name: &str,
    file: PluginFile,
) -> Result<AdmittedPlugin, AdmitError> {
    let policy = admission.policy;
    let path = file.path.clone();
    let signature = read_signature(Source::Dir(dir), &format!("{file_name}.sig"))?;
    let image = admission.sealer.seal(file, policy.file_bytes_max, Purpose::Code)?;
    let elf = Image::parse(&path, image.bytes())?;
    let descriptor = elf.descriptor()?;
    let (name, version) = (&descriptor.name, &descriptor.version);

    policy.check_name(name)?;
    let key_id = policy.only_key(&path, name)?;
    let key = policy.check_key(&path, key_id, name, admission.now)?;
    verify(&path, image.bytes(), &signature, key)?;
    if let Some(rule) = policy.openpgp_for(name) {
        rule.check(dir.open_path(&format!("{file_name}.asc")), &path, image.bytes())?;
    }
    policy.check_floor(name, version)?;
    policy.check_digest(&path, image.digest())?;
    let tier = policy.tier_for(name, admission.request.tier)?;
    if tier == Tier::Wasm {
        let target = |target: Target| target.as_str().to_owned();
        let (target, there) = (target(Target::Wasm32), target(Target::HOST));
        return Err(AdmitError::NoTarget { path, target, there });
    }
    elf.refuse_hazards()?;
    elf.build_id()?;
    let listed = ListedFile {
        path: file_name.to_owned(),
        target: Target::HOST,
        sha256: image.digest(),
        size: image.len(),
    };
    let given = admission.request.manifest.as_ref();
    let manifest = stand_in(&path, given, &descriptor, listed, key_id)?;
    Ok(AdmittedPlugin {
        manifest,
        manifest_digest: None,
        image,
        descriptor,
        wasm: None,
        data: Arc::default(),
        key_id,
        tier,
        path,
    })
}

/// The manifest of a plugin that has none of its own: from the signed binary what it is, from the manifest
/// handed over what can be called. Capabilities need a signed manifest.
fn stand_in(
    path: &Path,
    given: Option<&Manifest>,
    descriptor: &Descriptor,
    listed: ListedFile,
    key_id: KeyId,
) -> Result<Manifest, AdmitError> {
    let Some(given) = given else {
        return Ok(Manifest {
            name: descriptor.name.clone(),
            version: descriptor.version.clone(),
            abi: descriptor.abi,
            description: None,
            license: None,
            authors: Vec::new(),
            files: vec![listed],
            key_id,
            methods: Vec::new(),
            dependencies: Default::default(),
            capabilities: Vec::new(),
            limits: RequestedLimits::default(),
            config: Default::default(),
            self_test: Vec::new(),
            created: None,
            expires: None,
            extensions: Default::default(),
        });
    };
    descriptor.check_against(path, given)?;
    let differs = |field: &str| AdmitError::ManifestDiffers {
        path: path.to_owned(),
        field: field.to_owned(),
    };
    // Where it speaks of the binary or the key it must speak of these.
    if given.key_id != key_id {
        return Err(differs("key_id"));
    }
    let same = |file: &ListedFile| file.sha256 == listed.sha256 && file.size == listed.size;
    if given.file_for(&Target::HOST).is_some_and(|file| !same(file)) {
        return Err(differs("files"));
    }
    Ok(Manifest { files: vec![listed], capabilities: Vec::new(), ..given.clone() })
}

/// A file whose detached signature counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The key it verified with.
    pub key_id: KeyId,
}

/// Why a detached signature does not count, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The system would not read or write a file.
    #[error("{path}: cannot {action}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// A directory, device or pipe.
    #[error("{path}: is not a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Over the size cap.
    #[error("{path}: is over the limit of {max} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The cap in bytes.
        max: u64,
    },
    /// Not 64 bytes.
    #[error("{path}: a signature is 64 bytes, this is {found}", path = path.display())]
    SignatureLength {
        /// The signature file.
        path: PathBuf,
        /// Its size; one more than the right size stands for anything longer.
        found: u64,
    },
    /// The scalar is out of range: malleable.
    #[error("{path}: the signature's scalar is out of range", path = path.display())]
    ScalarRange {
        /// The signature file.
        path: PathBuf,
    },
    /// Not a signature of this file under this key.
    #[error("{path}: the signature does not match under key {key_id}", path = path.display())]
    Mismatch {
        /// The signed file.
        path: PathBuf,
        /// The key.
        key_id: KeyId,
    },
}

impl VerifyError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "file.io",
            Self::NotAFile { .. } => "path.wrong_file_type",
            Self::TooLarge { .. } => "file.too_large",
            Self::SignatureLength { .. } => "sig.length",
            Self::ScalarRange { .. } => "sig.scalar_range",
            Self::Mismatch { .. } => "sig.mismatch",
        }
    }
}

/// Verifies the detached signature of one file: pure Ed25519 over its bytes, strictly.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_detached(
    binary: &Path,
    signature: &Path,
    key: &PublicKey,
) -> Result<Verified, VerifyError> {
    let raw = match read(signature, SIGNATURE_BYTES) {
        // Whatever is longer is wrong by its length, not by its size.
        Err(VerifyError::TooLarge { path, .. }) => {
            return Err(VerifyError::SignatureLength { path, found: SIGNATURE_BYTES + 1 });
        }
        other => other?,
    };
    let raw: [u8; 64] = raw.try_into().map_err(|raw: Vec<u8>| VerifyError::SignatureLength {
        path: signature.to_owned(),
        found: raw.len() as u64,
    })?;
    let bytes = read(binary, FILE_BYTES_MAX)?;
    key.verify(&bytes, &raw).map_err(|fault| match fault {
        SignatureFault::ScalarRange => VerifyError::ScalarRange { path: signature.to_owned() },
        SignatureFault::Mismatch => {
            VerifyError::Mismatch { path: binary.to_owned(), key_id: key.key_id() }
        }
    })?;
    Ok(Verified {
        digest: Digest(Sha256::digest(&bytes).into()),
        size: bytes.len() as u64,
        key_id: key.key_id(),
    })
}

/// Signs one file and writes the 64 bytes to `signature`, replacing what was there.
///
/// # Errors
/// [`VerifyError`].
pub fn sign_detached(
    binary: &Path,
    signature: &Path,
    key: &SigningKey,
) -> Result<Verified, VerifyError> {
    let bytes = read(binary, FILE_BYTES_MAX)?;
    replace(signature, &key.sign(&bytes)).map_err(|error| io(signature, "write", &error))?;
    Ok(Verified {
        digest: Digest(Sha256::digest(&bytes).into()),
        size: bytes.len() as u64,
        key_id: key.public_key().key_id(),
    })
}

fn io(path: &Path, action: &'static str, error: &std::io::Error) -> VerifyError {
    VerifyError::Io { path: path.to_owned(), action, error: error.to_string() }
}

/// Reads a regular file of at most `max` bytes.
pub(super) fn read(path: &Path, max: u64) -> Result<Vec<u8>, VerifyError> {
    // Without O_NONBLOCK a named pipe would hang the reader.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| io(path, "open", &error))?;
    let status = file.metadata().map_err(|error| io(path, "stat", &error))?;
    if !status.is_file() {
        return Err(VerifyError::NotAFile { path: path.to_owned() });
    }
    let hint = status.len().min(max).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(hint).unwrap_or_default());
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| io(path, "read", &error))?;
    if bytes.len() as u64 > max {
        return Err(VerifyError::TooLarge { path: path.to_owned(), max });
    }
    Ok(bytes)
}

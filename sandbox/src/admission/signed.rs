//! A plugin directory: what its signature vouches for, and whether the files are the signed ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, KeyId};
use themis_messages::limits::{FILES_MAX, MANIFEST_BYTES_MAX, PLUGIN_BYTES_MAX, SIGNATURE_BYTES};
use themis_messages::manifest::{
    ListedFile, MANIFEST_FILE, Manifest, OPENPGP_FILE, SIGNATURE_FILE,
};

use super::descriptor::unsupported;
use super::keys::{PublicKey, SignatureFault};
use super::policy::Policy;
use super::root::{Dir, PluginFile, missing_as};
use super::source::Source;

/// What a verified plugin directory says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The signed manifest.
    pub manifest: Manifest,
    /// SHA-256 of its exact bytes.
    pub manifest_digest: Digest,
    /// The key that signed it.
    pub key_id: KeyId,
    /// Its signature.
    pub signature: [u8; 64],
}

/// Everything that can be said before a listed file is opened; `place` is the plugin's and the version's
/// directory name. A bundle says by its manifest alone what it is.
pub(super) fn check_signed(
    source: Source<'_>,
    place: Option<(&str, &str)>,
    policy: &Policy,
    now: jiff::Timestamp,
) -> Result<Summary, AdmitError> {
    let file = source.open_path(MANIFEST_FILE)?;
    let path = file.path.clone();
    let bytes = file.read(MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::parse(&path, &bytes)?;
    if let Some(place) = place {
        check_place(&path, place, &manifest)?;
    }
    policy.check_name(&manifest.name)?;
    let key = policy.check_key(&path, manifest.key_id, &manifest.name, now)?;
    let signature = read_signature(source, SIGNATURE_FILE)?;
    verify(&path, &bytes, &signature, key)?;
    if let Some(rule) = policy.openpgp_for(&manifest.name) {
        rule.check(source.open_path(OPENPGP_FILE), &path, &bytes)?;
    }

    if let Some(expires) = manifest.expires.filter(|expires| now > *expires) {
        return Err(AdmitError::ManifestExpired { path, expires });
    }
    policy.check_floor(&manifest.name, &manifest.version)?;
    let manifest_digest = Digest(Sha256::digest(&bytes).into());
    policy.check_digest(&path, manifest_digest)?;
    if !manifest.abi.is_supported() {
        return Err(unsupported(&path, manifest.abi));
    }
    let signature = signature.bytes;
    Ok(Summary { manifest_digest, key_id: manifest.key_id, manifest, signature })
}

/// A valid signature of one plugin or version must not serve in the place of another.
fn check_place(
    path: &Path,
    (name, version): (&str, &str),
    manifest: &Manifest,
) -> Result<(), AdmitError> {
    let path = || path.to_owned();
    if manifest.name.as_str() != name {
        let (expected, found) = (name.to_owned(), manifest.name.clone());
        return Err(AdmitError::NameMismatch { path: path(), expected, found });
    }
    if manifest.version.to_string() != version {
        let (expected, found) = (version.to_owned(), manifest.version.clone());
        return Err(AdmitError::VersionMismatch { path: path(), expected, found });
    }
    Ok(())
}

/// Reads a signature file: exactly 64 bytes.
pub(super) fn read_signature(source: Source<'_>, name: &str) -> Result<Signature, AdmitError> {
    let file = source
        .open_path(name)
        .map_err(|error| missing_as(error, |path| AdmitError::SignatureMissing { path }))?;
    let path = file.path.clone();
    let length = |found| AdmitError::SignatureLength { path: path.clone(), found };
    if file.size != SIGNATURE_BYTES {
        return Err(length(file.size));
    }
    // One byte of room, so that a file that grows in between is seen to have.
    let bytes = file.read(SIGNATURE_BYTES + 1)?;
    let bytes = bytes.try_into().map_err(|bytes: Vec<u8>| length(bytes.len() as u64))?;
    Ok(Signature { path, bytes })
}

/// The 64 bytes, and where they were.
pub(super) struct Signature {
    path: PathBuf,
    pub(super) bytes: [u8; 64],
}

/// Verifies the exact bytes of what lies at `path`.
pub(super) fn verify(
    path: &Path,
    bytes: &[u8],
    signature: &Signature,
    key: &PublicKey,
) -> Result<(), AdmitError> {
    key.verify(bytes, &signature.bytes).map_err(|fault| match fault {
        SignatureFault::ScalarRange => {
            AdmitError::SignatureScalarRange { path: signature.path.clone() }
        }
        SignatureFault::Mismatch => {
            AdmitError::SignatureMismatch { path: path.to_owned(), key_id: key.key_id() }
        }
    })
}

/// Whether the directory or bundle holds the listed files and nothing else.
pub(super) fn check_listing(source: Source<'_>, manifest: &Manifest) -> Result<(), AdmitError> {
    let mut missing: BTreeSet<&str> =
        manifest.files.iter().map(|file| file.path.as_str()).collect();
    let mut expected = missing.clone();
    expected.extend([MANIFEST_FILE, SIGNATURE_FILE, OPENPGP_FILE]);
    // Directories on the way to a listed file; any other is as unlisted as a file.
    let parents: BTreeSet<&str> = manifest
        .files
        .iter()
        .flat_map(|file| file.path.match_indices('/').filter_map(|(at, _)| file.path.get(..at)))
        .collect();
    match source {
        Source::Dir(dir) => list(dir, "", &expected, &parents, &mut missing)?,
        Source::Bundle(bundle) => {
            for path in bundle.paths() {
                if !expected.contains(path) {
                    return Err(AdmitError::UnlistedFile { path: source.path().join(path) });
                }
                missing.remove(path);
            }
        }
    }
    match missing.first() {
        Some(first) => Err(AdmitError::MissingFile { path: source.path().join(first) }),
        None => Ok(()),
    }
}

fn list<'a>(
    dir: &Dir,
    below: &str,
    expected: &BTreeSet<&'a str>,
    parents: &BTreeSet<&'a str>,
    missing: &mut BTreeSet<&'a str>,
) -> Result<(), AdmitError> {
    // With one entry more than could be listed, at least one is not.
    for entry in dir.entries(FILES_MAX + 4)? {
        let path = format!("{below}{}", entry.name);
        if entry.kind.is_symlink() {
            return Err(AdmitError::PathSymlink { path: dir.path.join(&entry.name) });
        }
        if entry.kind.is_dir() && parents.contains(path.as_str()) {
            let inner = dir.open_dir(&entry.name)?;
            list(&inner, &format!("{path}/"), expected, parents, missing)?;
        } else if expected.contains(path.as_str()) {
            missing.remove(path.as_str());
        } else {
            return Err(AdmitError::UnlistedFile { path: dir.path.join(&entry.name) });
        }
    }
    Ok(())
}

/// Opens every listed file, lets `take` read it, and compares the digest of what was read.
pub(super) fn check_files(
    source: Source<'_>,
    manifest: &Manifest,
    policy: &Policy,
    mut take: impl FnMut(&ListedFile, PluginFile) -> Result<Digest, AdmitError>,
) -> Result<(), AdmitError> {
    // What they add up to is known before anything is read.
    let size = manifest.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    if size > PLUGIN_BYTES_MAX {
        let (path, max) = (source.path().to_owned(), PLUGIN_BYTES_MAX);
        return Err(AdmitError::FileTooLarge { path, size, max });
    }
    for listed in &manifest.files {
        let file = source
            .open_path(&listed.path)
            .map_err(|error| missing_as(error, |path| AdmitError::MissingFile { path }))?;
        let path = file.path.clone();
        file.check_size(policy.file_bytes_max)?;
        if file.size != listed.size {
            let (expected, found) = (listed.size, file.size);
            return Err(AdmitError::SizeMismatch { path, expected, found });
        }
        let found = take(listed, file)?;
        if found != listed.sha256 {
            return Err(AdmitError::DigestMismatch { path, expected: listed.sha256, found });
        }
        policy.check_digest(&path, found)?;
    }
    Ok(())
}

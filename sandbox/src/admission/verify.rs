//! What is done with a signed plugin before anybody loads it: verifying it as the loader would, and packing it.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, Tier};
use themis_messages::limits::{
    FILE_BYTES_MAX, MANIFEST_BYTES_MAX, OPENPGP_BYTES_MAX, WASM_MEMORY_BYTES_MAX,
};
use themis_messages::manifest::{MANIFEST_FILE, Manifest, OPENPGP_FILE, SIGNATURE_FILE, Target};

use super::bundle::pack;
use super::elf::preflight;
use super::keys::PublicKey;
use super::policy::{NameSet, Policy, TrustedKey};
use super::root::{Dir, PluginFile, from_io};
use super::sealed::{Purpose, SealedFile, Sealer, hash};
use super::sign::{SignError, replace};
use super::signed::{Summary, check_files, check_listing, check_signed, read_signature};
use super::source::{BUNDLE_ENDING, OpenBundle, Source, is_bundle};
use crate::wasm::examine::examine;

/// Verifies a plugin directory or a bundle as the loader would, with one trusted key, for any name. A directory's place must
/// say the name and version: `…/<name>/<version>`. What this machine would run, and the wasm module, are looked at as before
/// mapping.
///
/// # Errors
/// [`AdmitError`]: what the loader would say.
pub fn verify_plugin(
    path: &Path,
    key: &PublicKey,
    now: jiff::Timestamp,
) -> Result<Summary, AdmitError> {
    if !is_bundle(path) {
        let opened = Dir::open(path)?;
        let place = path.canonicalize().map_err(|error| from_io(path, "open", &error))?;
        let component = |path: Option<&Path>| {
            let name = path.and_then(Path::file_name).and_then(|name| name.to_str());
            name.unwrap_or_default().to_owned()
        };
        let (name, version) = (component(place.parent()), component(Some(&place)));
        return verify(Source::Dir(&opened), Some((&name, &version)), &by_key(key), now);
    }
    VerifiedBundle::by_key(path, key, now).map(|bundle| bundle.summary)
}

/// A bundle as its publisher signed it, in memory that nobody can change.
#[derive(Debug)]
pub struct VerifiedBundle {
    /// What it says of itself.
    pub summary: Summary,
    path: PathBuf,
    sealed: SealedFile,
}

impl VerifiedBundle {
    /// Verifies a bundle as the loader would, with one trusted key, for any name.
    ///
    /// # Errors
    /// [`AdmitError`]: what the loader would say.
    pub fn by_key(path: &Path, key: &PublicKey, now: jiff::Timestamp) -> Result<Self, AdmitError> {
        Self::verify(path, &by_key(key), now)
    }

    /// Verifies a bundle as the loader would, with the keys that its policy has for the plugin.
    ///
    /// # Errors
    /// [`AdmitError`]: what the loader would say.
    pub fn by_policy(
        path: &Path,
        policy: &Policy,
        now: jiff::Timestamp,
    ) -> Result<Self, AdmitError> {
        Self::verify(path, policy, now)
    }

    fn verify(path: &Path, policy: &Policy, now: jiff::Timestamp) -> Result<Self, AdmitError> {
        let sealed = OpenBundle::seal(&no_code(), PluginFile::open(path)?)?;
        let bundle = OpenBundle::read(path, sealed.bytes())?;
        let summary = verify(Source::Bundle(&bundle), None, policy, now)?;
        Ok(Self { summary, path: path.to_owned(), sealed })
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.sealed.bytes()
    }

    /// Their SHA-256.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.sealed.digest()
    }

    /// Writes its files into a directory that is there and empty, durably, writable by nobody else.
    ///
    /// # Errors
    /// [`AdmitError`]; what was written until then is left, for whoever made the directory to remove.
    pub fn unpack(&self, into: &Path) -> Result<(), AdmitError> {
        let bundle = OpenBundle::read(&self.path, self.sealed.bytes())?;
        let names: Vec<String> = bundle.paths().map(str::to_owned).collect();
        let source = Source::Bundle(&bundle);
        for name in names {
            // A checked relative path: the reader lets through no other.
            let to = into.join(&name);
            let written = unpack_one(source.open_path(&name)?, into, &to);
            written.map_err(|error| from_io(&to, "unpack", &error))?;
        }
        Ok(())
    }
}

fn unpack_one(mut from: PluginFile, root: &Path, to: &Path) -> std::io::Result<()> {
    let parent = to.parent().unwrap_or(root);
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(to)?;
    std::io::copy(&mut from.file, &mut file)?;
    file.sync_all()?;
    File::open(parent)?.sync_all()
}

fn by_key(key: &PublicKey) -> Policy {
    trusting(vec![TrustedKey {
        label: "given".to_owned(),
        key: key.clone(),
        not_before: None,
        not_after: None,
        plugins: NameSet::Any,
    }])
}

/// Nothing here will be mapped as code: the copies need no right to it, and so no other place.
fn no_code() -> Sealer<'static> {
    Sealer::new(Path::new(""))
}

fn verify(
    source: Source<'_>,
    place: Option<(&str, &str)>,
    policy: &Policy,
    now: jiff::Timestamp,
) -> Result<Summary, AdmitError> {
    let summary = check_signed(source, place, policy, now)?;
    check_listing(source, &summary.manifest)?;
    check_files(source, &summary.manifest, policy, |listed, file| {
        if ![Target::HOST, Target::Wasm32].contains(&listed.target) {
            return hash(&file, FILE_BYTES_MAX).map(|(digest, _size)| digest);
        }
        let path = file.path.clone();
        let copy = no_code().seal(file, FILE_BYTES_MAX, Purpose::Data)?;
        // Bytes that are not the signed ones are reported as that, not by what is wrong inside.
        if copy.digest() == listed.sha256 {
            check_code(&path, copy.bytes(), &listed.target, &summary.manifest)?;
        }
        Ok(copy.digest())
    })?;
    Ok(summary)
}

fn check_code(
    path: &Path,
    bytes: &[u8],
    target: &Target,
    manifest: &Manifest,
) -> Result<(), AdmitError> {
    if *target == Target::Wasm32 {
        let examined = examine(bytes, manifest, WASM_MEMORY_BYTES_MAX);
        return match examined {
            Ok(_) => Ok(()),
            Err(fault) => Err(AdmitError::Wasm { path: path.to_owned(), fault }),
        };
    }
    preflight(path, bytes, manifest).map(drop)
}

/// Packs a signed plugin directory into one file. Whether the signature counts is for whoever trusts a key to say; that it is
/// there, and that the files are the listed ones, is checked. Without `to`, the bundle is `NAME-VERSION.tdb` in the current
/// directory; answers where it is.
///
/// # Errors
/// [`SignError`]; nothing is left behind when it fails.
pub fn pack_dir(dir: &Path, to: Option<&Path>) -> Result<(Manifest, PathBuf), SignError> {
    let opened = Dir::open(dir)?;
    let source = Source::Dir(&opened);
    let file = source.open_path(MANIFEST_FILE)?;
    let path = file.path.clone();
    let bytes = file.read(MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::parse(&path, &bytes)?;
    let signature = read_signature(source, SIGNATURE_FILE)?;
    check_listing(source, &manifest)?;
    let mut files = vec![
        (MANIFEST_FILE.to_owned(), bytes),
        (SIGNATURE_FILE.to_owned(), signature.bytes.to_vec()),
    ];
    match source.open_path(OPENPGP_FILE) {
        Ok(file) => files.push((OPENPGP_FILE.to_owned(), file.read(OPENPGP_BYTES_MAX)?)),
        Err(AdmitError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    check_files(source, &manifest, &trusting(Vec::new()), |listed, file| {
        let bytes = file.read(FILE_BYTES_MAX)?;
        let digest = Digest(Sha256::digest(&bytes).into());
        files.push((listed.path.clone(), bytes));
        Ok(digest)
    })?;
    let packed = pack(files).map_err(|error| SignError::Pack { path: dir.to_owned(), error })?;
    let own = || format!("{}-{}.{BUNDLE_ENDING}", manifest.name, manifest.version).into();
    let path = to.map_or_else(own, Path::to_owned);
    match replace(&path, &packed) {
        Ok(()) => Ok((manifest, path)),
        Err(error) => Err(SignError::Write { path, error: error.to_string() }),
    }
}

/// The policy of somebody who trusts these keys for everything.
fn trusting(keys: Vec<TrustedKey>) -> Policy {
    Policy {
        allow: NameSet::Any,
        trusted_in_process: Default::default(),
        default_tier: Tier::InProcess,
        tiers: Default::default(),
        keys,
        revoked_keys: Default::default(),
        revoked_digests: Default::default(),
        openpgp: None,
        floors: Default::default(),
        file_bytes_max: FILE_BYTES_MAX,
        wasm_memory_bytes_max: WASM_MEMORY_BYTES_MAX,
    }
}

//! What is inside a bundle, as `inspect` tells it.

use serde::Serialize;
use themis_messages::admit::AdmitError;
use themis_messages::limits::MANIFEST_BYTES_MAX;
use themis_messages::manifest::{MANIFEST_FILE, Manifest, Target};

use super::super::root::PluginFile;
use super::super::sealed::Sealer;
use super::super::source::{OpenBundle, Source};
use super::{Path, PathBuf};

/// A bundle that is well made, and what its manifest says; no signature has been looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BundleInspection {
    /// The bundle.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// The key it says it is signed with.
    pub key_id: String,
    /// What this machine would run of it: a target, or nothing.
    pub runs_here: Option<String>,
    /// Its files, the manifest and the signature included.
    pub files: Vec<Packed>,
}

/// A file in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// Its path.
    pub path: String,
    /// What it is for; none for the manifest, the signature, and what is not listed.
    pub target: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Bytes in the bundle.
    pub packed_size: u64,
}

/// Looks at a bundle.
pub(super) fn bundle(file: PluginFile) -> Result<BundleInspection, AdmitError> {
    let (path, size) = (file.path.clone(), file.size);
    let sealed = OpenBundle::seal(&Sealer::new(Path::new("")), file)?;
    let open = OpenBundle::read(&path, sealed.bytes())?;
    let manifest = Source::Bundle(&open).open_path(MANIFEST_FILE)?;
    let place = manifest.path.clone();
    let manifest = Manifest::parse(&place, &manifest.read(MANIFEST_BYTES_MAX)?)?;
    let target = |path: &str| {
        let listed = manifest.files.iter().find(|file| file.path == path);
        listed.map(|file| file.target.as_str().to_owned())
    };
    let packed = |(path, size, packed_size): (&str, u64, u64)| {
        let target = target(path);
        Packed { path: path.to_owned(), target, size, packed_size }
    };
    let runs = [Target::HOST, Target::Wasm32];
    let runs_here = runs.into_iter().find(|target| manifest.file_for(target).is_some());
    Ok(BundleInspection {
        size,
        name: manifest.name.to_string(),
        version: manifest.version.to_string(),
        key_id: manifest.key_id.to_string(),
        runs_here: runs_here.map(|target| target.as_str().to_owned()),
        files: open.sizes().map(packed).collect(),
        file: path,
    })
}

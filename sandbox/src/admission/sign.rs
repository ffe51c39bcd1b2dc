//! The author's side: fills a manifest in and signs it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use themis_messages::admit::{AdmitError, PathFault};
use themis_messages::limits::{FILE_BYTES_MAX, FILES_MAX, MANIFEST_BYTES_MAX};
use themis_messages::manifest::{
    MANIFEST_FILE, Manifest, OPENPGP_FILE, SIGNATURE_FILE, Target, check_relative_path,
};
use themis_messages::strict_json::{self, StrictJsonError};

use super::bundle::PackError;
use super::keys::SigningKey;
use super::root::{Dir, PluginFile, missing_as};
use super::sealed::hash;
use super::signed::check_listing;
use super::source::Source;

/// Why a directory could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The loader would refuse the result, for this reason.
    #[error(transparent)]
    Refused(#[from] AdmitError),
    /// The manifest is not JSON.
    #[error("{path}: {error}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, and where.
        error: StrictJsonError,
    },
    /// The manifest, or an entry of its `files`, has not the shape that could be filled in.
    #[error("{path}: field {field}: {why}", path = path.display())]
    Shape {
        /// The manifest.
        path: PathBuf,
        /// The field.
        field: String,
        /// What was wanted.
        why: &'static str,
    },
    /// A path that no plugin file may have.
    #[error("{path}: cannot be listed: {fault}", path = path.display())]
    Path {
        /// The file.
        path: PathBuf,
        /// What is wrong with its path.
        fault: PathFault,
    },
    /// More files than a manifest may list.
    #[error("{path}: holds more than {max} files", path = path.display())]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// The files cannot be packed.
    #[error("{path}: {error}", path = path.display())]
    Pack {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: PackError,
    },
    /// The result could not be written.
    #[error("{path}: cannot write: {error}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
}

impl SignError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Manifest { error: StrictJsonError::DuplicateKey { .. }, .. } => {
                "manifest.duplicate_key"
            }
            Self::Manifest { error: StrictJsonError::Syntax { .. }, .. } => "manifest.syntax",
            Self::Shape { .. } => "manifest.field",
            Self::Path { .. } => "path.invalid",
            Self::TooManyFiles { .. } => "sign.too_many_files",
            Self::Pack { error, .. } => error.code(),
            Self::Write { .. } => "sign.write",
        }
    }
}

/// Signs a plugin directory: fills `key_id`, `created` and each file's digest and size into its
/// `manifest.json`, and writes `plugin.sig`. Without `files`, everything found is listed.
///
/// # Errors
/// [`SignError`]; what the loader would refuse by its shape is not signed.
pub fn sign_dir(dir: &Path, key: &SigningKey) -> Result<Manifest, SignError> {
    let opened = Dir::open(dir)?;
    let file = opened.open_file(MANIFEST_FILE)?;
    let path = file.path.clone();
    let bytes = file.read(MANIFEST_BYTES_MAX)?;
    let value = strict_json::parse(&bytes)
        .map_err(|error| SignError::Manifest { path: path.clone(), error })?;
    let Value::Object(mut fields) = value else {
        return Err(shape(&path, "(the whole)", "want an object"));
    };
    fields.insert("key_id".to_owned(), json!(key.public_key().key_id()));
    if !fields.contains_key("created") {
        let seconds = jiff::Timestamp::now().as_second();
        let created = jiff::Timestamp::from_second(seconds)
            .map_err(|_range| shape(&path, "created", "the clock shows no representable time"))?;
        fields.insert("created".to_owned(), json!(created.to_string()));
    }
    let listed = match fields.remove("files") {
        None => Vec::new(),
        Some(Value::Array(listed)) => listed,
        Some(_) => return Err(shape(&path, "files", "want an array")),
    };
    let listed = if listed.is_empty() { found_files(&opened)? } else { listed };
    let filled: Result<Vec<Value>, SignError> =
        listed.into_iter().enumerate().map(|(i, entry)| fill(&opened, &path, i, entry)).collect();
    fields.insert("files".to_owned(), Value::Array(filled?));

    let text = format!("{:#}\n", Value::Object(fields));
    let manifest = Manifest::parse(&path, text.as_bytes())?;
    check_listing(Source::Dir(&opened), &manifest)?;
    let signature = key.sign(text.as_bytes());
    for (name, bytes) in [(MANIFEST_FILE, text.as_bytes()), (SIGNATURE_FILE, &signature)] {
        let path = dir.join(name);
        replace(&path, bytes)
            .map_err(|error| SignError::Write { path, error: error.to_string() })?;
    }
    Ok(manifest)
}

fn shape(path: &Path, field: &str, why: &'static str) -> SignError {
    SignError::Shape { path: path.to_owned(), field: field.to_owned(), why }
}

/// Entries without digest for everything in the directory.
fn found_files(dir: &Dir) -> Result<Vec<Value>, SignError> {
    let mut paths = Vec::new();
    collect(dir, "", &mut paths)?;
    let entry = |path: String| {
        let target = guess_target(&path);
        json!({ "path": path, "target": target })
    };
    Ok(paths.into_iter().map(entry).collect())
}

fn collect(dir: &Dir, below: &str, paths: &mut Vec<String>) -> Result<(), SignError> {
    for entry in dir.entries(FILES_MAX + 4)? {
        let path = format!("{below}{}", entry.name);
        if [MANIFEST_FILE, SIGNATURE_FILE, OPENPGP_FILE].contains(&path.as_str()) {
            continue;
        }
        // The length bounds how deep this goes.
        check_relative_path(&path)
            .map_err(|fault| SignError::Path { path: dir.path.join(&entry.name), fault })?;
        if entry.kind.is_dir() {
            collect(&dir.open_dir(&entry.name)?, &format!("{path}/"), paths)?;
        } else {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(SignError::TooManyFiles { path: dir.path.clone(), max: FILES_MAX });
        }
    }
    Ok(())
}

/// What a file is for, by its place: a shared library below a platform's name, a module by its ending.
fn guess_target(path: &str) -> &'static str {
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
    let platform = path.split('/').next().unwrap_or_default();
    let known = Target::NATIVE.into_iter().find(|known| *known == platform);
    match (ending, known) {
        (Some("so" | "dylib" | "dll"), Some(platform)) => platform,
        (Some("wasm"), _) => "wasm32",
        (_, _) => "data",
    }
}

/// Puts digest and size into one entry of `files`.
fn fill(dir: &Dir, manifest: &Path, i: usize, entry: Value) -> Result<Value, SignError> {
    let field = format!("files[{i}]");
    let Value::Object(mut entry) = entry else {
        return Err(shape(manifest, &field, "want an object"));
    };
    let file = listed_file(dir, manifest, &field, &entry)?;
    let (digest, size) = hash(&file, FILE_BYTES_MAX)?;
    entry.insert("sha256".to_owned(), json!(digest));
    entry.insert("size".to_owned(), json!(size));
    Ok(Value::Object(entry))
}

fn listed_file(
    dir: &Dir,
    manifest: &Path,
    field: &str,
    entry: &Map<String, Value>,
) -> Result<PluginFile, SignError> {
    let Some(Value::String(path)) = entry.get("path") else {
        return Err(shape(manifest, &format!("{field}.path"), "want a string"));
    };
    check_relative_path(path)
        .map_err(|fault| SignError::Path { path: dir.path.join(path), fault })?;
    dir.open_path(path)
        .map_err(|error| missing_as(error, |path| AdmitError::MissingFile { path }).into())
}

/// Writes a file beside its place and moves it there, so that nobody reads half of it. Nothing is left
/// behind when that fails.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let file = File::options().write(true).create_new(true).mode(0o644).open(&fresh)?;
    let written = (&file)
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = written {
        return match std::fs::remove_file(&fresh) {
            Ok(()) => Err(error),
            Err(also) => Err(std::io::Error::other(format!(
                "{error}, and {} cannot be removed: {also}",
                fresh.display()
            ))),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Everything that can be said of a plugin's library without running any of it, and every reason there is not
//! to map it.
//!
//! Admission stops at the first offence, because one is enough. An author wants all of them, and what to
//! change in the build. Both ask the very same checks.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use themis_messages::admit::{AdmitError, AdmitErrorKind};
use themis_messages::ids::Digest;
use themis_messages::limits::{FILE_BYTES_MAX, MANIFEST_BYTES_MAX};
use themis_messages::manifest::{MANIFEST_FILE, Target, check_relative_path};
use themis_messages::strict_json;

use super::descriptor::Descriptor;
use super::elf::{Image, LIST_MAX};
use super::root::{Dir, PluginFile, from_io};
use super::source::BUNDLE_ENDING;
pub use bundle::{BundleInspection, Packed};
pub use module::{Metered, ModuleInspection};

mod bundle;
mod module;

/// What a library is, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The library.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, as a manifest lists it.
    pub sha256: Digest,
    /// What it says of itself; none when that cannot be read.
    pub descriptor: Option<Described>,
    /// The linker's build id, by which receipts name the code.
    pub build_id: Option<String>,
    /// Libraries it pulls in.
    pub needed: Vec<String>,
    /// How many symbols it takes from others.
    pub imports: usize,
    /// Imported functions that an operator may want to hear of.
    pub notable_imports: Vec<Import>,
    /// Symbols it offers to others.
    pub exports: Symbols,
    /// The ranges that would be mapped.
    pub segments: Vec<Segment>,
    /// What they take together, in whole pages.
    pub mapped_bytes: u64,
    /// Every reason to refuse it, in the order of admission: it would tell the first.
    pub findings: Vec<Finding>,
}

/// The descriptor in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// The ABI it was built for.
    pub abi: String,
    /// Whether calls may overlap.
    pub thread_safe: bool,
    /// All feature bits.
    pub features: u64,
    /// Its entries, in the descriptor's order.
    pub entries: Vec<Entry>,
}

/// One entry of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Whether there will be a function once the loader is done.
    pub present: bool,
}

/// A symbol it takes from another library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Import {
    /// Its name.
    pub symbol: String,
    /// What it is good for.
    pub does: &'static str,
}

/// A list of symbols, cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Symbols {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

/// One range that would be mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Where, relative to the library's start.
    pub address: u64,
    /// Bytes that come from the file.
    pub file_bytes: u64,
    /// Bytes in memory; what the file does not have is zero.
    pub memory_bytes: u64,
    /// Bytes of whole pages.
    pub mapped_bytes: u64,
    /// For example `r-x`.
    pub rights: String,
}

/// One reason to refuse it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The code that admission would refuse with.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to change.
    pub remedy: &'static str,
}

/// What to change in a build, by the reason for a refusal.
const REMEDIES: [(AdmitErrorKind, &str); 15] = [
    (
        AdmitErrorKind::ElfFormat,
        "link an ordinary shared library: cc -shared -fPIC, or crate-type \"cdylib\"",
    ),
    (AdmitErrorKind::ElfArchitecture, "build it for the machine that loads it"),
    (
        AdmitErrorKind::ElfTextRelocations,
        "compile every object with -fPIC, assembler and static libraries too, and link with -Wl,-z,text",
    ),
    (
        AdmitErrorKind::ElfExecutableStack,
        "link with -Wl,-z,noexecstack; assembler sources need .section .note.GNU-stack,\"\",@progbits",
    ),
    (
        AdmitErrorKind::ElfWritableCode,
        "link without -N, --omagic and --no-rosegment, and without a linker script that joins code and data",
    ),
    (
        AdmitErrorKind::ElfSearchPath,
        "link without -rpath, or remove it from the library: patchelf --remove-rpath",
    ),
    (
        AdmitErrorKind::ElfFilter,
        "link without -F, -f, --audit and -P (--filter, --auxiliary, --depaudit)",
    ),
    (AdmitErrorKind::ElfUniqueSymbol, "compile with -fno-gnu-unique, or with clang"),
    (
        AdmitErrorKind::ElfStaticTls,
        "compile without -ftls-model=initial-exec or local-exec, static libraries too",
    ),
    (
        AdmitErrorKind::ElfNeeded,
        "link that library in statically; only the C library's own parts and libgcc_s may stay shared",
    ),
    (
        AdmitErrorKind::DescriptorMissing,
        "define themis_plugin with THEMIS_PLUGIN_EXPORT, or use themis_plugin::export!, and do not strip it",
    ),
    (
        AdmitErrorKind::DescriptorInvalid,
        "fill the descriptor in with THEMIS_PLUGIN_HEAD or themis_plugin::export!",
    ),
    (
        AdmitErrorKind::DescriptorMismatch,
        "say the same in the source and in manifest.json, then build and sign again",
    ),
    (AdmitErrorKind::FeatureUnknown, "build without that feature, or use a kernel that knows it"),
    (AdmitErrorKind::AbiUnsupported, "build against this kernel's SDK or header"),
];

/// What to change so that a library is not refused for this reason; none for reasons that lie outside it.
#[must_use]
pub fn remedy(kind: AdmitErrorKind) -> Option<&'static str> {
    REMEDIES.iter().find(|(known, _)| *known == kind).map(|(_, remedy)| *remedy)
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Inspected {
    /// A library.
    Library(Inspection),
    /// A wasm module.
    Module(ModuleInspection),
    /// A bundle.
    Bundle(BundleInspection),
}

impl Inspected {
    /// What was looked at.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Library(it) => &it.file,
            Self::Module(it) => &it.file,
            Self::Bundle(it) => &it.file,
        }
    }

    /// Every reason to refuse it.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Library(it) => &it.findings,
            Self::Module(it) => &it.findings,
            Self::Bundle(_) => &[],
        }
    }
}

/// Looks at a library, at the one in a plugin directory that is for this machine, at a wasm module, or at a bundle. Nothing is
/// executed.
///
/// A plugin directory need not be signed: its library is compared with whatever name, version and ABI the
/// manifest has.
///
/// # Errors
/// [`AdmitError`] when there is nothing to look at: what cannot be opened, is too large, is no well-made bundle, or is a
/// plugin directory whose manifest names no code that this machine can run.
pub fn inspect(path: &Path) -> Result<Inspected, AdmitError> {
    let fault = |action, error: std::io::Error| from_io(path, action, &error);
    // Opening a pipe would wait for its other end.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| fault("open", error))?;
    let metadata = file.metadata().map_err(|error| fault("stat", error))?;
    if metadata.is_dir() {
        return directory(path);
    }
    if !metadata.is_file() {
        let wanted = "regular file or plugin directory";
        return Err(AdmitError::WrongFileType { path: path.to_owned(), wanted });
    }
    let file = PluginFile { file, path: path.to_owned(), size: metadata.len() };
    match path.extension() {
        Some(ending) if ending == BUNDLE_ENDING => bundle::bundle(file).map(Inspected::Bundle),
        Some(ending) if ending == "wasm" => module::module(file).map(Inspected::Module),
        Some(_) | None => library(file, [None, None, None]).map(Inspected::Library),
    }
}

fn directory(path: &Path) -> Result<Inspected, AdmitError> {
    let dir = Dir::open(path)?;
    let manifest = dir.open_file(MANIFEST_FILE)?;
    let place = manifest.path.clone();
    let value = strict_json::parse(&manifest.read(MANIFEST_BYTES_MAX)?).map_err(|error| {
        AdmitError::ManifestSyntax { path: place.clone(), what: error.to_string() }
    })?;
    let target = Target::HOST.as_str();
    let path_of = |target: &str| {
        let listed = value["files"].as_array().into_iter().flatten();
        listed.filter(|file| file["target"] == *target).find_map(|file| file["path"].as_str())
    };
    let (native, wasm) = (path_of(target), path_of(Target::Wasm32.as_str()));
    let code = native.or(wasm).ok_or_else(|| {
        let listed = value["files"].as_array().into_iter().flatten();
        let there: Vec<_> = listed.filter_map(|file| file["target"].as_str()).collect();
        let there = there.join(", ").chars().take(200).flat_map(char::escape_default).collect();
        AdmitError::NoTarget { path: place.clone(), target: target.to_owned(), there }
    })?;
    check_relative_path(code).map_err(|fault| AdmitError::PathInvalid {
        path: code.chars().take(80).flat_map(char::escape_default).collect(),
        fault,
    })?;
    let said = ["name", "version", "abi"].map(|key| value[key].as_str().map(str::to_owned));
    let file = dir.open_path(code)?;
    match native {
        Some(_) => library(file, said).map(Inspected::Library),
        None => module::module(file).map(Inspected::Module),
    }
}

fn library(file: PluginFile, said: [Option<String>; 3]) -> Result<Inspection, AdmitError> {
    let path = file.path.clone();
    let bytes = file.read(FILE_BYTES_MAX)?;
    let mut inspection = Inspection {
        size: bytes.len() as u64,
        sha256: Digest(Sha256::digest(&bytes).into()),
        file: path.clone(),
        descriptor: None,
        build_id: None,
        needed: Vec::new(),
        imports: 0,
        notable_imports: Vec::new(),
        exports: Symbols::default(),
        segments: Vec::new(),
        mapped_bytes: 0,
        findings: Vec::new(),
    };
    match Image::parse(&path, &bytes) {
        Ok(image) => look(&mut inspection, &path, &image, said),
        Err(error) => inspection.find(&path, [error]),
    }
    Ok(inspection)
}

/// The order is admission's.
fn look(inspection: &mut Inspection, path: &Path, image: &Image<'_>, said: [Option<String>; 3]) {
    inspection.find(path, image.hazards().take(LIST_MAX));
    match image.build_id() {
        Ok(build_id) => inspection.build_id = build_id,
        Err(error) => inspection.find(path, [error]),
    }
    match image.descriptor() {
        Ok(descriptor) => {
            inspection.find(path, descriptor.mismatches(path, said));
            inspection.descriptor = Some(described(&descriptor, image));
        }
        Err(error) => inspection.find(path, [error]),
    }
    inspection.needed = image.needed();
    (inspection.imports, inspection.notable_imports) = image.imports();
    inspection.exports = image.exports();
    inspection.segments = image.mapped();
    let sizes = inspection.segments.iter().map(|segment| segment.mapped_bytes);
    inspection.mapped_bytes = sizes.fold(0, u64::saturating_add);
}

fn described(descriptor: &Descriptor, image: &Image<'_>) -> Described {
    Described {
        name: descriptor.name.to_string(),
        version: descriptor.version.to_string(),
        abi: descriptor.abi.to_string(),
        thread_safe: descriptor.is_thread_safe(),
        features: descriptor.features,
        entries: image.entries(),
    }
}

impl Inspection {
    /// Adds findings, each once: two entries of a file may say the same.
    fn find(&mut self, path: &Path, errors: impl IntoIterator<Item = AdmitError>) {
        let place = format!("{}: ", path.display());
        for error in errors {
            let what = error.to_string();
            let what = what.strip_prefix(&place).map_or(what.clone(), str::to_owned);
            let remedy = remedy(AdmitErrorKind::from(&error)).unwrap_or_default();
            let finding = Finding { code: error.code(), what, remedy };
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }
}

#[cfg(test)]
mod tests;

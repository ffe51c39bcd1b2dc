//! `inspect`: everything that can be said of a plugin without running any of it.

use std::path::{Path, PathBuf};

use themis_kernel::admission::{Inspection, inspect};
use themis_kernel::admit::AdmitError;
use themis_kernel::limits::MANIFEST_BYTES_MAX;
use themis_kernel::manifest::{MANIFEST_FILE, Manifest, Target, check_relative_path};

use super::refuse_bundle;
use crate::output::{Failure, Printer, clean, table};

/// Look at a plugin without running it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A shared library, or a plugin's directory
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    refuse_bundle(&arguments.file)?;
    let (path, manifest) = if arguments.file.is_dir() {
        library_of(&arguments.file)?
    } else {
        (arguments.file.clone(), None)
    };
    let inspection = inspect(&path, manifest.as_ref())?;
    printer.show(&inspection, people)?;
    match inspection.findings.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(first.code, &first.what)),
    }
}

/// The library for this machine, and the manifest when it is whole: before it is signed its digests are missing.
fn library_of(dir: &Path) -> Result<(PathBuf, Option<Manifest>), Failure> {
    let path = dir.join(MANIFEST_FILE);
    let failed = |error: std::io::Error| {
        Failure::new("inspect.read", format!("{}: {error}", path.display()))
    };
    let size = std::fs::metadata(&path).map_err(failed)?.len();
    if size > MANIFEST_BYTES_MAX {
        let error = AdmitError::FileTooLarge { path, size, max: MANIFEST_BYTES_MAX };
        return Err(error.into());
    }
    let bytes = std::fs::read(&path).map_err(failed)?;
    let missing = || {
        let (dir, target) = (dir.display(), Target::HOST.as_str().to_owned());
        Failure::new(
            "inspect.no_library",
            format!("{dir}: its manifest lists no file for {target}"),
        )
    };
    match Manifest::parse(&path, &bytes) {
        Ok(manifest) => {
            let library = dir.join(&manifest.file_for(&Target::HOST).ok_or_else(missing)?.path);
            Ok((library, Some(manifest)))
        }
        Err(AdmitError::ManifestMissingField { .. }) => {
            let library = unsigned_library(&bytes).ok_or_else(missing)?;
            Ok((dir.join(library), None))
        }
        Err(error) => Err(error.into()),
    }
}

/// The path that a manifest without digests lists for this machine.
fn unsigned_library(bytes: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let files = manifest["files"].as_array()?;
    let file = files.iter().find(|file| file["target"] == Target::HOST.as_str())?;
    let path = file["path"].as_str()?;
    check_relative_path(path).is_ok().then(|| path.to_owned())
}

fn people(it: &Inspection) -> String {
    let mut rows = vec![
        ["file".to_owned(), format!("{}, {} bytes", it.path.display(), it.size)],
        ["in memory".to_owned(), format!("{} KiB for good", it.resident_bytes.div_ceil(1_024))],
    ];
    if let Some(described) = &it.descriptor {
        let safe = if described.thread_safe { "calls may overlap" } else { "one call at a time" };
        let told =
            format!("{} {}, ABI {}, {safe}", described.name, described.version, described.abi);
        rows.push(["plugin".to_owned(), told]);
    }
    let build_id = it.build_id.as_deref().unwrap_or("none: link with -Wl,--build-id");
    rows.push(["build id".to_owned(), build_id.to_owned()]);
    rows.push(["needs".to_owned(), it.needed.join(" ")]);
    let constructors = format!("{} run when it is mapped", it.constructors);
    rows.push(["constructors".to_owned(), constructors]);
    rows.push(["exports".to_owned(), it.exports.join(" ")]);
    rows.push(["imports".to_owned(), format!("{} symbols", it.imports.len())]);
    for notable in &it.notable {
        rows.push(["".to_owned(), format!("{}: {}", notable.symbol, notable.why)]);
    }
    let mut told = table(["", "what it says of itself"], rows);
    for finding in &it.findings {
        let what = clean(&finding.what);
        told.push_str(&format!("\n\n{}: {what}\n  remedy: {}", finding.code, finding.remedy));
    }
    if it.findings.is_empty() {
        told.push_str("\n\nnothing speaks against it");
    }
    told
}

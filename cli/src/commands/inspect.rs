//! `inspect`: what a library, module or bundle is, and every reason to refuse it with its remedy. Nothing of it runs.

use std::path::PathBuf;

use themis_kernel::admission::{
    BundleInspection, Described, Finding, Inspected, Inspection, ModuleInspection, inspect,
};

use crate::output::{Failure, Printer, clean, table};

/// Look at a plugin's code without running any of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A shared library, a wasm module, a bundle, or a plugin directory, signed or not
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    let inspected = inspect(&arguments.file)?;
    printer.show(&inspected, |inspected| match inspected {
        Inspected::Library(library) => people(library),
        Inspected::Module(module) => people_of_module(module),
        Inspected::Bundle(bundle) => people_of_bundle(bundle),
    })?;
    let Some(first) = inspected.findings().first() else { return Ok(()) };
    let (file, what) = (inspected.file().display(), &first.what);
    let more = match inspected.findings().len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Err(Failure::new(first.code, format!("{file}: {what}{more}")))
}

fn people(inspection: &Inspection) -> String {
    let mut parts = vec![
        table(["field", "value"], fields(inspection)),
        table(
            ["segment", "address", "from file", "in memory", "rights"],
            inspection.segments.iter().enumerate().map(|(index, segment)| {
                [
                    index.to_string(),
                    format!("{:#x}", segment.address),
                    segment.file_bytes.to_string(),
                    segment.memory_bytes.to_string(),
                    segment.rights.clone(),
                ]
            }),
        ),
    ];
    if inspection.segments.is_empty() {
        parts.pop();
    }
    parts.push(reasons(&inspection.findings));
    parts.join("\n\n")
}

fn reasons(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found that a kernel would refuse it for".to_owned();
    }
    let rows = findings
        .iter()
        .map(|finding| [finding.code.to_owned(), clean(&finding.what), finding.remedy.to_owned()]);
    table(["refused with", "because", "remedy"], rows)
}

fn people_of_module(module: &ModuleInspection) -> String {
    let metered = match &module.metered {
        Some(it) => {
            format!("{} bytes, {} checks, {} loops unrolled", it.size, it.checks, it.unrolled)
        }
        None => "not to be metered".to_owned(),
    };
    let rows = [
        ("file", module.file.display().to_string()),
        ("size", format!("{} bytes; metered {metered}", module.size)),
        ("sha256", module.sha256.to_string()),
        ("says", module.identity.clone().unwrap_or_else(|| "nothing".to_owned())),
        ("imports", or_none(&module.imports)),
        ("exports", or_none(&module.exports)),
        ("memory", format!("{} bytes to begin with", module.memory_bytes)),
    ];
    let rows = rows.map(|(field, value)| [field.to_owned(), clean(&value)]);
    format!("{}\n\n{}", table(["field", "value"], rows), reasons(&module.findings))
}

fn people_of_bundle(bundle: &BundleInspection) -> String {
    let rows = [
        ("bundle", bundle.file.display().to_string()),
        ("size", format!("{} bytes", bundle.size)),
        ("plugin", format!("{} {}", bundle.name, bundle.version)),
        ("key", format!("{} (`themis verify` checks the signature)", bundle.key_id)),
        ("runs here", bundle.runs_here.clone().unwrap_or_else(|| "nothing of it".to_owned())),
    ];
    let rows = rows.map(|(field, value)| [field.to_owned(), clean(&value)]);
    let files = bundle.files.iter().map(|file| {
        let target = file.target.clone().unwrap_or_default();
        [clean(&file.path), target, file.size.to_string(), file.packed_size.to_string()]
    });
    let files = table(["file", "target", "bytes", "packed"], files);
    format!("{}\n\n{files}", table(["field", "value"], rows))
}

fn fields(inspection: &Inspection) -> Vec<[String; 2]> {
    let mut rows = vec![
        ("file", inspection.file.display().to_string()),
        ("size", format!("{} bytes, {} mapped", inspection.size, inspection.mapped_bytes)),
        ("sha256", inspection.sha256.to_string()),
    ];
    if let Some(descriptor) = &inspection.descriptor {
        rows.extend(described(descriptor));
    }
    let notable: Vec<_> = inspection
        .notable_imports
        .iter()
        .map(|import| format!("{} ({})", import.symbol, import.does))
        .collect();
    rows.extend([
        (
            "build id",
            inspection.build_id.clone().unwrap_or_else(|| "none: -Wl,--build-id".to_owned()),
        ),
        ("needs", or_none(&inspection.needed)),
        ("imports", format!("{} symbols; notable: {}", inspection.imports, or_none(&notable))),
        ("exports", exports(inspection)),
    ]);
    rows.into_iter().map(|(field, value)| [field.to_owned(), clean(&value)]).collect()
}

fn described(descriptor: &Described) -> [(&'static str, String); 3] {
    let Described { name, version, abi, features, .. } = descriptor;
    let calls = if descriptor.thread_safe { "calls overlap" } else { "one call at a time" };
    let entries = |present: bool| {
        let entries = descriptor.entries.iter().filter(|entry| entry.present == present);
        or_none(&entries.map(|entry| entry.name.to_owned()).collect::<Vec<_>>())
    };
    [
        ("plugin", format!("{name} {version}, ABI {abi}")),
        ("features", format!("{features:#x}: {calls}")),
        ("entries", format!("{}; without: {}", entries(true), entries(false))),
    ]
}

fn exports(inspection: &Inspection) -> String {
    const SHOWN: usize = 8;
    let exports = &inspection.exports;
    let shown: Vec<_> = exports.first.iter().take(SHOWN).cloned().collect();
    let rest = exports.count - shown.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}: {}{more}", exports.count, or_none(&shown))
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

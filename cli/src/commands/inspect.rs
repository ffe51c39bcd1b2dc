//! `inspect`: what a library is, and every reason to refuse it with its remedy. Nothing of it runs.

use std::path::PathBuf;

use themis_kernel::admission::{Described, Inspection, inspect};

use super::refuse_bundle;
use crate::output::{Failure, Printer, clean, table};

/// Look at a library without running any of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A shared library, or a plugin directory, signed or not
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    refuse_bundle(&arguments.file)?;
    let inspection = inspect(&arguments.file)?;
    printer.show(&inspection, people)?;
    let Some(first) = inspection.findings.first() else { return Ok(()) };
    let (file, what) = (inspection.file.display(), &first.what);
    let more = match inspection.findings.len() - 1 {
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
    parts.push(if inspection.findings.is_empty() {
        "nothing found that a kernel would refuse it for".to_owned()
    } else {
        let rows = inspection.findings.iter().map(|finding| {
            [finding.code.to_owned(), finding.what.clone(), finding.remedy.to_owned()]
        });
        table(["refused with", "because", "remedy"], rows)
    });
    parts.join("\n\n")
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

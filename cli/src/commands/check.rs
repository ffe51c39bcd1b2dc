//! `plugin check`: the table of behaviours, run against a plugin on a stage of its own.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::PathBuf;

use themis_kernel::conformance::{Effort, Report, Subject, Verdict, run as look};
use themis_kernel::ids::Tier;

use crate::output::{Failure, Printer, table};

/// What to look at, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plugin's directory, with its manifest; it need not be signed, and is not changed
    dir: PathBuf,
    /// Where to run it: in-process, process or wasm
    #[arg(long, default_value = "in-process")]
    tier: Tier,
    /// Reloads under load
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    reloads: u32,
    /// Threads that call meanwhile
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    callers: u8,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    let Arguments { dir, tier, reloads, callers } = arguments;
    let effort = Effort {
        reloads: usize::try_from(*reloads).unwrap_or(usize::MAX),
        callers: usize::from(*callers),
    };
    let subject = Subject::prepare(dir, *tier, effort)?;
    let shows = stderr().is_terminal() && !printer.json;
    let report = look(&subject, &mut |behaviour| {
        if shows {
            // Progress that nobody sees misses nobody.
            drop(writeln!(stderr(), "looking whether {} ...", behaviour.promise));
        }
    });
    subject.end();
    printer.show(&report, people)?;
    if report.conforms() {
        return Ok(());
    }
    let broken = report.findings.iter().find(|it| matches!(it.verdict, Verdict::Broken(_)));
    let (id, promise) = broken.map_or(("", ""), |it| (it.id, it.promise));
    Err(Failure::new(format!("check.{id}"), format!("{}: broken: {promise}", dir.display())))
}

fn people(report: &Report) -> String {
    let rows = report.findings.iter().map(|finding| {
        let (held, seen) = match &finding.verdict {
            Verdict::Held(seen) => ("yes", seen),
            Verdict::Broken(seen) => ("NO", seen),
            Verdict::NotApplicable(seen) => ("-", seen),
        };
        let area = finding.area.as_str().to_owned();
        [area, finding.promise.to_owned(), held.to_owned(), seen.clone()]
    });
    format!(
        "{} {}, {}\n{}",
        report.plugin,
        report.version,
        report.tier,
        table(["area", "behaviour", "held", "seen"], rows)
    )
}

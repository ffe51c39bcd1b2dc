//! Measures the promised numbers in one run and prints them as one table: must, goal, measured, baseline.
//!
//! Each row is measured beside its baseline on the same machine in the same run; on a noisy machine the ratio
//! says more than the time. Nothing here fails a build: a bench reports.
#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to report")]

use clap::Parser;

mod admission;
mod calls;
mod lifecycle;
mod report;

use report::Row;

/// What to measure.
#[derive(Debug, Parser)]
#[command(name = "themis-benches")]
struct Arguments {
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// For programs: an array of rows.
    #[arg(long)]
    json: bool,
}

type Bench = fn() -> Row;

const BENCHES: [(&str, Bench); 10] = [
    ("look-up", calls::look_up),
    ("call", calls::call),
    ("load", lifecycle::load),
    ("swap", lifecycle::swap),
    ("reload", lifecycle::reload),
    ("rollback", lifecycle::rollback),
    ("verify manifest", admission::verify_manifest),
    ("admission", admission::admit),
    ("verify detached", admission::verify_detached),
    ("discovery", admission::discovery),
];

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let mut rows = Vec::new();
    for (name, bench) in BENCHES {
        if arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            eprintln!("measuring {name} ...");
            rows.push(bench());
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{}", report::table(&rows));
    }
    Ok(())
}

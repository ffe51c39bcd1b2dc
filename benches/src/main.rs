//! Measures the promised numbers in one run and prints them as one table: must, goal, measured, baseline.
//!
//! Each row is measured beside its baseline on the same machine in the same run; on a noisy machine the ratio
//! says more than the time. Nothing here fails a build: a bench reports.
#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to report")]

use clap::Parser;
use serde::Serialize;

mod ab;
mod admission;
mod calls;
mod endurance;
mod kernels;
mod lifecycle;
mod market;
mod report;
mod wasm;
mod workers;

use report::Row;

/// What to measure.
#[derive(Debug, Parser)]
#[command(name = "themis-benches")]
struct Arguments {
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Reloads of an endurance run.
    #[arg(long, default_value_t = 10_000)]
    reloads: usize,
    /// Threads that call during an endurance run.
    #[arg(long, default_value_t = 4)]
    callers: usize,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Measured {
    rows: Vec<Row>,
    endurance: Vec<endurance::Endurance>,
    deaths: Vec<endurance::Deaths>,
    callers: Vec<workers::Callers>,
    cycles: Option<workers::Cycles>,
    wasm_callers: Vec<workers::Callers>,
    kernels: Option<kernels::Kernels>,
}

type Bench = fn() -> Row;

const BENCHES: [(&str, Bench); 26] = [
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
    ("worker call", workers::call),
    ("worker one core", workers::call_on_one_core),
    ("worker warm", workers::warm),
    ("worker cold", workers::cold),
    ("worker memory", workers::memory_cap),
    ("worker deadline", workers::deadline),
    ("wasm call", wasm::call),
    ("wasm page", wasm::call_of_a_page),
    ("wasm load", wasm::load),
    ("wasm cached", wasm::load_cached),
    ("wasm instantiate", wasm::instantiate),
    ("ab assign", ab::assign),
    ("ab evaluate", ab::evaluate),
    ("ab restore", ab::restore),
    ("market resolve", market::resolve_few),
    ("market resolve many", market::resolve_many),
];

/// Nothing, where what it needs is not here.
type MayBench = fn() -> Vec<Row>;

/// Those that need another program, or give several rows.
const BENCHES_WITH: [(&str, MayBench); 6] = [
    ("ab record", ab::record),
    ("worker grpc", || Vec::from_iter(workers::call_beside_grpc())),
    ("market gpg", || Vec::from_iter(market::gpg())),
    ("market install", || Vec::from_iter(market::install())),
    ("market questions", || Vec::from_iter(market::questions())),
    ("wasm extism", || Vec::from_iter(wasm::calls_beside_extism())),
];

/// Sandboxes that must leave nothing behind.
const CYCLES: usize = 1_000;

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let wanted =
        |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut measured = Measured {
        rows: Vec::new(),
        endurance: Vec::new(),
        deaths: Vec::new(),
        callers: Vec::new(),
        cycles: None,
        wasm_callers: Vec::new(),
        kernels: None,
    };
    for (name, bench) in BENCHES {
        if wanted(name) {
            eprintln!("measuring {name} ...");
            measured.rows.push(bench());
        }
    }
    for (name, bench) in BENCHES_WITH {
        if wanted(name) {
            eprintln!("measuring {name} ...");
            measured.rows.extend(bench());
        }
    }
    if wanted("wasm threads") {
        eprintln!("measuring callers of one wasm plugin ...");
        measured.wasm_callers = wasm::callers();
    }
    if wanted("wasm kernels") {
        eprintln!("measuring what metering costs ...");
        measured.kernels = Some(kernels::measure());
    }
    if wanted("worker threads") {
        eprintln!("measuring callers of one worker ...");
        measured.callers = workers::callers();
    }
    if wanted("worker cycles") {
        eprintln!("measuring {CYCLES} sandboxes made and ended ...");
        measured.cycles = Some(workers::cycles(CYCLES));
    }
    if wanted("endurance") {
        for digests in [2, 300] {
            eprintln!("measuring {} reloads among {digests} digests ...", arguments.reloads);
            measured.endurance.push(endurance::reloads(
                arguments.reloads,
                digests,
                arguments.callers,
            ));
        }
    }
    if wanted("deaths") {
        eprintln!("measuring deaths of actors ...");
        measured.deaths = endurance::deaths();
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        print_tables(&measured);
    }
    Ok(())
}

/// For people: what was measured, a table each.
fn print_tables(measured: &Measured) {
    let tables = [
        (!measured.rows.is_empty()).then(|| report::table(&measured.rows)),
        (!measured.endurance.is_empty()).then(|| endurance::table(&measured.endurance)),
        (!measured.deaths.is_empty()).then(|| endurance::deaths_table(&measured.deaths)),
        (!measured.callers.is_empty())
            .then(|| workers::callers_table("callers of one worker", &measured.callers)),
        (!measured.wasm_callers.is_empty())
            .then(|| workers::callers_table("callers of one wasm plugin", &measured.wasm_callers)),
        measured.kernels.as_ref().map(kernels::table),
        measured.kernels.as_ref().map(kernels::sizes_table),
        measured.cycles.as_ref().map(workers::cycles_table),
    ];
    for table in tables.into_iter().flatten() {
        println!("{table}\n");
    }
}

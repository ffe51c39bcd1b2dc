//! `doctor`: what this machine offers, and how well a worker process is really confined here. Needs no kernel; starts one
//! worker, which ends with the report.

use std::time::{Duration, Instant};

use serde::Serialize;
use themis_kernel::PluginSandbox;
use themis_kernel::config::WorkersConfig;
use themis_kernel::ids::PluginName;
use themis_kernel::machine::{Machine, Probe, Verdict};
use themis_kernel::sandbox::{Isolation, Limits, Require, SandboxError};

use crate::output::{Failure, Printer, table};

#[derive(Serialize)]
struct Report {
    machine: Machine,
    tiers: [Tier; 3],
    fallback: Verdict,
    /// A worker that was started to see.
    worker: Worker,
}

/// What became of it.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum Worker {
    Confined {
        isolation: Isolation,
        #[serde(skip)]
        took: Duration,
    },
    Failed {
        code: &'static str,
        what: String,
    },
}

/// Whether plugins can run in one isolation tier here, with this release.
#[derive(Serialize)]
struct Tier {
    tier: themis_kernel::ids::Tier,
    runs: bool,
    note: String,
}

pub(crate) fn run(printer: Printer) -> Result<(), Failure> {
    let machine = Machine::probe();
    let worker = start_worker();
    let tiers = tiers(&machine, &worker);
    let report = Report { tiers, fallback: machine.verdict(), worker, machine };
    printer.show(&report, people)
}

/// Facts about a machine are one thing, a process that is confined by them another.
fn start_worker() -> Worker {
    let started = || -> Result<(Isolation, Duration), SandboxError> {
        let nobody: PluginName = match "doctor".parse() {
            Ok(name) => name,
            Err(_unlikely) => return Err(SandboxError::NoProgram),
        };
        let sandboxes =
            PluginSandbox::start(&WorkersConfig { pool: 0, ..WorkersConfig::default() })?;
        let began = Instant::now();
        let sandboxes = sandboxes.requiring(Require::Any);
        let sandbox = sandboxes.create_sandbox(&nobody, Limits::default())?;
        Ok((sandbox.isolation().clone(), began.elapsed()))
    };
    match started() {
        Ok((isolation, took)) => Worker::Confined { isolation, took },
        Err(error) => Worker::Failed { code: error.code(), what: error.to_string() },
    }
}

fn tiers(machine: &Machine, worker: &Worker) -> [Tier; 3] {
    use themis_kernel::ids::Tier as Name;
    let copies = if machine.memfd.is_available() {
        "for plugins named in trusted_in_process; code is mapped from sealed memory files"
    } else {
        "for plugins named in trusted_in_process; code is mapped from private copies in data_dir"
    };
    let (runs, note) = match themis_kernel::wasm_engine() {
        Ok(()) => (true, "modules are metered, compiled and run in this process".to_owned()),
        Err(error) => (false, format!("{}: {error}", error.code())),
    };
    let wasm = Tier { tier: Name::Wasm, runs, note };
    let process = match worker {
        Worker::Confined { isolation, took } => Tier {
            tier: Name::Process,
            runs: true,
            note: format!(
                "a worker was started in {took:.1?} and is confined at level {}",
                isolation.level
            ),
        },
        Worker::Failed { code, what } => {
            Tier { tier: Name::Process, runs: false, note: format!("{code}: {what}") }
        }
    };
    [Tier { tier: Name::InProcess, runs: true, note: copies.to_owned() }, process, wasm]
}

fn people(report: &Report) -> String {
    let machine = &report.machine;
    let rows = probes(machine).into_iter().map(|(what, probe)| {
        let (state, told) = match probe {
            Probe::Available { detail } => ("yes", detail),
            Probe::Missing { why } => ("no", why),
        };
        [what.to_owned(), state.to_owned(), told.clone()]
    });
    let kernel = ["kernel".to_owned(), String::new(), machine.kernel.clone()];
    let tiers = report.tiers.iter().map(|it| {
        let runs = if it.runs { "yes" } else { "no" };
        [it.tier.to_string(), runs.to_owned(), it.note.clone()]
    });
    let Verdict { tier, means, next } = &report.fallback;
    let mut parts = vec![
        table(["machine", "there", "detail"], std::iter::once(kernel).chain(rows)),
        table(["tier", "runs", "note"], tiers),
        format!("worker processes can be confined here at level {tier:?} of A to D: {means}"),
    ];
    if let Worker::Confined { isolation, .. } = &report.worker
        && !isolation.missing.is_empty()
    {
        parts.push(format!("the worker that was started lacks: {}", isolation.missing_text()));
    }
    if !next.is_empty() {
        let steps: Vec<_> = next.iter().map(|step| format!("  - {step}")).collect();
        parts.push(format!("to get the next level:\n{}", steps.join("\n")));
    }
    parts.join("\n\n")
}

fn probes(machine: &Machine) -> [(&'static str, &Probe); 14] {
    [
        ("cgroup v2", &machine.cgroup),
        ("cgroup controllers", &machine.cgroup_controllers),
        ("cgroup delegated", &machine.cgroup_delegated),
        ("seccomp filters", &machine.seccomp),
        ("Landlock", &machine.landlock),
        ("user namespaces", &machine.user_namespace),
        ("pid namespaces", &machine.pid_namespace),
        ("network namespaces", &machine.net_namespace),
        ("mount namespaces", &machine.mount_namespace),
        ("executable memfd", &machine.memfd),
        ("pidfd", &machine.pidfd),
        ("clone3", &machine.clone3),
        ("vm.max_map_count", &machine.max_map_count),
        ("open files", &machine.open_files),
    ]
}

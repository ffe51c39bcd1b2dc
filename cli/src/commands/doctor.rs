//! `doctor`: what this machine offers, and what a kernel can isolate with it. Needs no kernel, changes nothing.

use serde::Serialize;
use themis_kernel::machine::{Machine, Probe, Verdict};

use crate::output::{Failure, Printer, table};

#[derive(Serialize)]
struct Report {
    machine: Machine,
    tiers: [Tier; 3],
    fallback: Verdict,
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
    let report = Report { tiers: tiers(&machine), fallback: machine.verdict(), machine };
    printer.show(&report, people)
}

fn tiers(machine: &Machine) -> [Tier; 3] {
    use themis_kernel::ids::Tier as Name;
    let copies = if machine.memfd.is_available() {
        "for plugins named in trusted_in_process; code is mapped from sealed memory files"
    } else {
        "for plugins named in trusted_in_process; code is mapped from private copies in data_dir"
    };
    let absent = |tier, what: &str| Tier {
        tier,
        runs: false,
        note: format!("refused with tier.unavailable: this release has no {what}"),
    };
    [
        Tier { tier: Name::InProcess, runs: true, note: copies.to_owned() },
        absent(Name::Process, "worker processes"),
        absent(Name::Wasm, "WebAssembly engine"),
    ]
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
        format!("worker processes could be isolated here at level {tier:?} of A to D: {means}"),
    ];
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

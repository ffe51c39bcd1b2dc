//! `doctor`: what this machine offers, which isolation follows, and how to get more.

use serde_json::json;
use themis_kernel::machine::{Isolation, Machine};

use crate::output::{Failure, Printer, table};

pub(crate) fn run(printer: Printer) -> Result<(), Failure> {
    let machine = Machine::look();
    let told = json!({
        "release": machine.release,
        "facts": machine.facts,
        "tiers": {
            "in-process": {"runs": true, "isolation": "none: only for plugins the operator trusts"},
            "process": {"runs": false, "isolation": machine.isolation, "next": machine.next,
                        "why": "not part of this release (tier.unavailable)"},
            "wasm": {"runs": false, "why": "not part of this release (tier.unavailable)"},
        },
    });
    printer.show(&told, |_| people(&machine))
}

fn people(machine: &Machine) -> String {
    let rows = machine.facts.iter().map(|fact| {
        let there = if fact.offer.is_available() { "yes" } else { "no" };
        let remedy = if fact.offer.is_available() { "" } else { fact.remedy };
        [
            fact.id.to_owned(),
            there.to_owned(),
            fact.offer.detail().to_owned(),
            fact.purpose.to_owned(),
            remedy.to_owned(),
        ]
    });
    let facts = table(["what", "there", "detail", "to", "how to get it"], rows);
    let isolation = match machine.isolation {
        Isolation::A => "A (full)",
        Isolation::B => "B (no memory controller: limits are watched)",
        Isolation::C => "C (no group of its own)",
        Isolation::D => "D (system calls and resource limits only)",
        Isolation::None => "none",
    };
    let next = match machine.next.as_str() {
        "" => String::new(),
        next => format!("\n            for the next one: {next}"),
    };
    format!(
        "Linux {}\n{facts}\n\n\
         in-process  runs; nothing is kept apart, so only plugins named in trusted_in_process\n\
         process     not part of this release; this machine would allow isolation {isolation}{next}\n\
         wasm        not part of this release",
        machine.release
    )
}

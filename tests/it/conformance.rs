//! The table of behaviours, over all three tiers: good plugins hold all of it, and each behaviour is seen broken.
//!
//! What takes a plugin of a special kind (hooks that hang, state that does not move, versions that turn bad) is in
//! `hooks`, `state`, `probation`, `watchdog` and `bad_input`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;
use strum::IntoEnumIterator as _;
use themis_kernel::config::Program;
use themis_kernel::conformance::{Area, BEHAVIOURS, Effort, Report, Subject, Verdict, run};
use themis_kernel::ids::Tier;
use themis_tests::{Fixture, Site, built_example, built_guest, worker_program};

/// Columns of the table: every tier that this release can run.
const TIERS: [Tier; 3] = [Tier::InProcess, Tier::Process, Tier::Wasm];
/// Less than an author would ask for.
const EFFORT: Effort = Effort { reloads: 60, callers: 3 };

fn prepare(path: &Path, tier: Tier) -> Subject {
    let program = Program::At(worker_program());
    Subject::prepare_with(path, tier, EFFORT, program).unwrap()
}

fn look(fixture: &Fixture, tier: Tier) -> Report {
    let site = Site::new();
    let below = site.add_unsigned(fixture);
    let subject = prepare(&site.root().join(below), tier);
    let report = run(&subject, &mut |_| {});
    subject.end();
    report
}

/// `[method, request, reply]` as the manifest has them.
fn self_test(method: &str, request: &[u8], reply: &[u8]) -> serde_json::Value {
    use base64::Engine as _;
    let text = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
    json!([{"method": method, "request": text(request), "reply": text(reply)}])
}

fn good() -> Vec<Fixture> {
    let echo = |fixture: Fixture| fixture.with("self_test", self_test("echo", b"hello", b"hello"));
    vec![
        echo(Fixture::c("counter.c", "counter", "1.0.0").with_wasm()),
        echo(Fixture::c("stateful.c", "stateful", "1.0.0").with_wasm()),
        echo(Fixture::c("stateful.c", "serial", "1.0.0").with_wasm().flag("-DNOT_THREAD_SAFE")),
        // Without self-tests, and in Rust.
        Fixture::c("counter.c", "plain", "1.0.0").with_wasm(),
        Fixture::built(built_example("geo_1_1"), "geo", "1.1.0")
            .with(
                "methods",
                json!([{"name": "distance_km", "id": 1}, {"name": "answered", "id": 2}]),
            )
            .with_module(std::fs::read(built_guest("geo_1_1")).unwrap()),
    ]
}

#[test]
fn good_plugins_hold_every_behaviour_in_every_tier() {
    for tier in TIERS {
        for fixture in good() {
            let report = look(&fixture, tier);
            assert!(report.conforms(), "{tier:?} {}: {:#?}", fixture.name, report.findings);
            assert_eq!(report.findings.len(), BEHAVIOURS.len());
        }
    }
}

#[test]
fn every_area_has_a_behaviour() {
    let covered: Vec<_> = BEHAVIOURS.iter().map(|it| it.area).collect();
    assert!(Area::iter().all(|area| covered.contains(&area)));
    let ids: BTreeSet<_> = BEHAVIOURS.iter().map(|it| it.id).collect();
    assert_eq!(ids.len(), BEHAVIOURS.len(), "each by a name of its own");
}

/// A table that cannot fail proves nothing: each behaviour is broken by a plugin made for it. `lease` is the kernel's
/// own promise, which no plugin can break.
#[test]
fn each_behaviour_is_seen_broken() {
    let bad = |flag: &str| {
        Fixture::c("nonconforming.c", "nonconforming", "1.0.0")
            .with_wasm()
            .flag(&format!("-D{flag}"))
            .with("methods", json!([{"name": "answer", "id": 1}]))
            .with("self_test", self_test("answer", b"", b"right"))
    };
    let cases = |fails_under_load| {
        [
            ("loads", Fixture::c("fail_init.c", "fails", "1.0.0").with_wasm()),
            ("self-tests", bad("MOODY")),
            ("unloads", bad("FORGETFUL")),
            ("hooks-in-time", bad("SLOW")),
            ("unknown-method", bad("CHATTY")),
            ("garbage", bad("BRITTLE")),
            ("large-request", bad("BRITTLE")),
            ("callers", bad(fails_under_load)),
            ("reloads", bad(fails_under_load)),
            ("memory", bad("LEAKS")),
            ("rollback", bad(fails_under_load)),
            ("state", bad("LOSER")),
            ("settles", bad("DECAYS")),
        ]
    };
    for tier in TIERS {
        // What a plugin leaks or leaves behind in a worker or an instance goes with it.
        let cannot_break: &[&str] = match tier {
            Tier::Process | Tier::Wasm => &["lease", "memory", "unloads"],
            Tier::InProcess => &["lease"],
        };
        // An instance of a module has one call at a time.
        let fails_under_load = if tier == Tier::Wasm { "TIRED" } else { "CLUMSY" };
        let cases = cases(fails_under_load);
        let mut seen: BTreeSet<_> = cannot_break.iter().copied().collect();
        for (id, fixture) in cases.iter().filter(|(id, _)| !cannot_break.contains(id)) {
            let site = Site::new();
            let below = site.add_unsigned(fixture);
            let subject = prepare(&site.root().join(below), tier);
            let behaviour = BEHAVIOURS.iter().find(|it| it.id == *id).unwrap();
            let verdict = (behaviour.look)(&subject);
            assert!(matches!(verdict, Verdict::Broken(_)), "{tier:?} {id}: {verdict:?}");
            subject.end();
            seen.insert(id);
        }
        assert_eq!(seen, BEHAVIOURS.iter().map(|it| it.id).collect());
    }
}

#[test]
fn an_author_is_told_what_is_broken() {
    let site = Site::new();
    let good = site.add_unsigned(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    let bad = site.add_unsigned(&Fixture::c("wild_code.c", "wild", "1.0.0").with_wasm());
    let crashing = Fixture::c("rude.c", "rude", "1.0.0").with_wasm().flag("-DEXIT");
    let crashing = site.add_unsigned(&crashing);
    for tier in TIERS {
        let check = |below: &str| {
            let mut command = themis_tests::program();
            command.args(["plugin", "check", "--reloads", "20", "--json", "--tier", tier.as_str()]);
            command.arg(site.root().join(below)).output().unwrap()
        };
        let refused = |below: &str| {
            let output = check(below);
            assert_eq!(output.status.code(), Some(1), "{below} in tier {tier}");
            let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
            told["error"]["code"].as_str().unwrap().to_owned()
        };
        let output = check(&good);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["plugin"], &report["tier"]),
            (&"counter".into(), &tier.as_str().into())
        );
        assert_eq!(report["findings"].as_array().unwrap().len(), BEHAVIOURS.len());
        assert!(refused(&bad).starts_with("check."), "{tier}");
        // One ends the process it is looked at in, the others a worker or an instance.
        let ended = refused(&crashing);
        assert_eq!(ended == "check.crashed", tier == Tier::InProcess, "{tier}: {ended}");
        refused("nowhere");
    }
}

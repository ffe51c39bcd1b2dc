//! Signatures and discovery: what is paid before a plugin's first instruction.

use themis_kernel::SignatureVerifier;
use themis_kernel::admission::{self, PluginRoot};
use themis_kernel::lifecycle::LoadRequest;
use themis_tests::{Fixture, Site};

use crate::report::{Row, Times};

const RUNS: usize = 200;
const PLUGINS: usize = 500;

fn library(padding: u32) -> Fixture {
    Fixture::c("counter.c", "counter", "1.0.0").flag(&format!("-DPADDING={padding}"))
}

/// Signature over the manifest and digests of all files, as discovery and `themis verify` do it.
pub(crate) fn verify_manifest() -> Row {
    let site = Site::new();
    let path = site.add(&library(1 << 20));
    let policy = site.config(&["counter"]).policy();
    let root = PluginRoot::open(&site.root()).expect("a root");
    let times = Times::of(RUNS, || {
        let found = admission::discover(&root, &policy, themis_tests::now()).expect("scanned");
        assert!(found.iter().all(|found| found.result.is_ok()), "it verifies");
    });
    let file = site.root().join(&path).join("linux-x86_64/libcounter.so");
    let p50_ns = times.p50();
    Row {
        what: "Ed25519 over 1 MB by manifest digest",
        must: "<= 5 ms",
        goal: "<= 1 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "reading the file",
        baseline_ns: read(&file).p50(),
        must_held: p50_ns <= 5_000_000,
        goal_met: p50_ns <= 1_000_000,
    }
}

/// All that happens before a plugin's first instruction: the above, the sealed copy, the ELF pre-flight.
pub(crate) fn admit() -> Row {
    let site = Site::new();
    let path = site.add(&library(1 << 20));
    let policy = site.config(&["counter"]).policy();
    let root = PluginRoot::open(&site.root()).expect("a root");
    let scratch = site.path().join("scratch");
    let times = Times::of(RUNS, || {
        let request = LoadRequest::at(&path);
        let now = themis_tests::now();
        let admitted = admission::admit(&root, &request, &policy, now, &scratch);
        std::hint::black_box(admitted.expect("admitted"));
    });
    let file = site.root().join(&path).join("linux-x86_64/libcounter.so");
    let p50_ns = times.p50();
    Row {
        what: "whole admission, 1 MB: verify, seal, pre-flight",
        must: "-",
        goal: "<= 2 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "reading the file",
        baseline_ns: read(&file).p50(),
        must_held: true,
        goal_met: p50_ns <= 2_000_000,
    }
}

/// The detached form: Ed25519 hashes every byte with SHA-512.
pub(crate) fn verify_detached() -> Row {
    let site = Site::new();
    let below = site.add(&library(1 << 20));
    let binary = site.root().join(below).join("linux-x86_64/libcounter.so");
    let signature = site.path().join("libcounter.so.sig");
    admission::sign_detached(&binary, &signature, &site.key).expect("signed");
    let key = site.key.public_key();
    let times = Times::of(RUNS, || {
        SignatureVerifier::verify(&binary, &signature, &key).expect("verifies");
    });
    let p50_ns = times.p50();
    Row {
        what: "Ed25519 over 1 MB, detached",
        must: "<= 5 ms",
        goal: "<= 3 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "reading the file",
        baseline_ns: read(&binary).p50(),
        must_held: p50_ns <= 5_000_000,
        goal_met: p50_ns <= 3_000_000,
    }
}

fn read(path: &std::path::Path) -> Times {
    Times::of(RUNS, || {
        std::hint::black_box(std::fs::read(path).expect("readable"));
    })
}

/// Discovery of 500 signed plugins of 32 KiB, every one verified.
pub(crate) fn discovery() -> Row {
    let site = Site::new();
    let template = site.add(&library(16 << 10));
    let template = site.root().join(template);
    let names: Vec<_> = (1..PLUGINS).map(|n| format!("plugin-{n}")).collect();
    for name in &names {
        site.add(&Fixture::built(template.join("linux-x86_64/libcounter.so"), name, "1.0.0"));
    }
    let config = site.config(&[]);
    let root = PluginRoot::open(&site.root()).expect("a root");
    let policy = config.policy();
    let times = Times::of(20, || {
        let found = admission::discover(&root, &policy, themis_tests::now()).expect("scanned");
        assert_eq!(found.len(), PLUGINS, "every plugin is found");
        assert!(found.iter().all(|found| found.result.is_ok()), "every plugin verifies");
    });
    let reading = Times::of(20, || {
        for name in &names {
            let dir = site.root().join(name).join("1.0.0");
            for file in [
                "manifest.json".to_owned(),
                "plugin.sig".to_owned(),
                format!("linux-x86_64/lib{name}.so"),
            ] {
                std::hint::black_box(std::fs::read(dir.join(file)).expect("readable"));
            }
        }
    });
    let p50_ns = times.p50();
    Row {
        what: "discovery of 500 plugins of 32 KiB, all verified",
        must: "<= 1 s",
        goal: "<= 80 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "reading the same files, one thread",
        baseline_ns: reading.p50(),
        must_held: p50_ns <= 1_000_000_000,
        goal_met: p50_ns <= 80_000_000,
    }
}

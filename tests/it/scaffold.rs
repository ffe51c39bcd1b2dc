//! What the program tells and gives to authors: a scaffold that works as it comes, a library looked at without
//! running it, and the facts of a machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use themis_kernel::admission::remedy;
use themis_kernel::config::Program;
use themis_kernel::ids::Tier;
use themis_kernel::{Config, Kernel};
use themis_tests::{Fixture, Site, every_admit_error};

use crate::program::{refuse, run, succeed};

/// This checkout, asked at run time: the program may have been built in another one.
fn sdk() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    Path::new(&tests).parent().unwrap().join("sdk")
}

/// `make` in a scaffold, with the program that is under test.
fn make(dir: &Path, arguments: &[&str]) -> String {
    let program = PathBuf::from(themis_tests::program().get_program());
    let mut command = Command::new("make");
    command.args(arguments).arg(format!("THEMIS={}", program.display())).current_dir(dir);
    // What an outer make or cargo says is not meant for this one.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "CFLAGS", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command.env("CARGO_TARGET_DIR", dir.join("target"));
    succeed(command.output().unwrap())
}

/// Signs what was built, starts a kernel with the scaffold's own configuration, and calls the plugin in `tier`.
fn signs_loads_and_answers(dir: &Path, name: &str, arguments: &[&str], tier: Tier) -> Kernel {
    make(dir, &[arguments, &["sign"]].concat());
    // And it behaves as every plugin must.
    let built = dir.join(format!("dist/{name}/0.1.0"));
    let built = built.to_str().unwrap();
    let checked = ["plugin", "check", "--reloads", "50", "--tier", tier.as_str(), built];
    succeed(run(dir, &checked));
    // Nothing has changed, so the signature stays.
    make(dir, arguments);
    let plugin = dir.join("dist").join(name).join("0.1.0");
    assert!(plugin.join("plugin.sig").is_file());
    let told = succeed(run(dir, &["inspect", plugin.to_str().unwrap(), "--json"]));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["descriptor"]["name"], name);
    assert!(told["build_id"].is_string(), "{told}");

    let mut config = Config::from_file(&dir.join("themis.toml")).unwrap();
    // The program is its own worker program; a test is not.
    config.workers.program = Program::At(themis_tests::worker_program());
    config.default_tier = tier;
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = kernel.plugin(name).expect("it was loaded at start");
    assert_eq!(plugin.info().tier, Some(tier));
    assert_eq!(plugin.call("hello", b"world").unwrap().bytes, b"hello, world");
    assert_eq!(plugin.call("hello", b"").unwrap().bytes, b"hello, ");
    kernel
}

#[test]
fn a_c_scaffold_works_as_it_comes() {
    let site = Site::new();
    succeed(run(site.path(), &["new", "greet-c", "--lang", "c"]));
    let dir = site.path().join("greet-c");
    let strict = ["CFLAGS=-O2 -Wall -Wextra -Wpedantic -Werror"];
    make(&dir, &strict);
    let told = make(&dir, &[strict.as_slice(), &["test"]].concat());
    assert!(told.contains("all answers are right"), "{told}");
    signs_loads_and_answers(&dir, "greet-c", &strict, Tier::Process).shutdown_blocking();
    make(&dir, &[strict.as_slice(), &["wasm"]].concat());
    for tier in [Tier::Wasm, Tier::Process] {
        signs_loads_and_answers(&dir, "greet-c", &strict, tier).shutdown_blocking();
    }

    // A test that cannot fail proves nothing.
    let source = dir.join("greet-c.c");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("\"hello, \", 7", "\"hullo, \", 7")).unwrap();
    let tested = Command::new("make").arg("test").current_dir(&dir).output().unwrap();
    assert!(!tested.status.success(), "its test sees a wrong answer");
}

#[test]
fn a_rust_scaffold_works_as_it_comes() {
    let site = Site::new();
    let sdk = sdk();
    let to = ["--dir", "made", "--sdk", sdk.to_str().unwrap()];
    succeed(run(site.path(), &[&["new", "greet-rs"], to.as_slice()].concat()));
    let dir = site.path().join("made");
    // The versions of this repository, which cargo has at hand; it drops those that are not needed.
    let lock = sdk.parent().unwrap().join("Cargo.lock");
    std::fs::copy(lock, dir.join("Cargo.lock")).unwrap();
    let mut fetch = Command::new("cargo");
    fetch.args(["fetch", "--offline"]).current_dir(&dir);
    let fetched = fetch.output().unwrap();
    if !fetched.status.success() {
        let why = String::from_utf8_lossy(&fetched.stderr);
        println!("skipped: cargo has not all at hand that a Rust plugin needs: {why}");
        return;
    }
    let offline = ["CARGO_FLAGS=--offline"];
    make(&dir, &offline);
    let told = make(&dir, &[offline.as_slice(), &["test"]].concat());
    assert!(told.contains("3 passed"), "{told}");
    greets_and_counts(&dir, &offline, Tier::Process);
    if wasm_library().is_dir() {
        make(&dir, &[offline.as_slice(), &["wasm"]].concat());
        greets_and_counts(&dir, &offline, Tier::Wasm);
    } else {
        println!("skipped for wasm: the toolchain has no library for it");
    }
}

fn greets_and_counts(dir: &Path, arguments: &[&str], tier: Tier) {
    let kernel = signs_loads_and_answers(dir, "greet-rs", arguments, tier);
    let plugin = kernel.plugin("greet-rs").unwrap();
    let nil = [0xc0];
    // Two calls here, and the one the kernel tried before the plugin served.
    assert_eq!(plugin.call("greeted", &nil).unwrap().bytes, [3]);
    kernel.shutdown_blocking();
}

/// Where the toolchain's library for wasm is, if it has one.
fn wasm_library() -> PathBuf {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]);
    PathBuf::from(succeed(rustc.output().unwrap()).trim())
}

#[test]
fn a_scaffold_overwrites_nothing_and_says_what_it_cannot_do() {
    let site = Site::new();
    let dir = site.path();
    for name in ["Upper", "0digit", "a.b", "../a", "", "-x", &"a".repeat(64)] {
        let refused = run(dir, &["new", "--lang", "c", name]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
    }
    assert_eq!(run(dir, &["new", "geo", "--lang", "cobol"]).status.code(), Some(2));
    std::fs::create_dir(dir.join("empty")).unwrap();
    succeed(run(dir, &["new", "geo", "--lang", "c", "--dir", "empty"]));
    let again = run(dir, &["new", "geo", "--lang", "c", "--dir", "empty"]);
    refuse(&again, "new.not_empty");
    std::fs::write(dir.join("file"), "mine").unwrap();
    refuse(&run(dir, &["new", "geo", "--lang", "c", "--dir", "file"]), "new.write");
    assert_eq!(std::fs::read(dir.join("file")).unwrap(), b"mine");
    let refused = refuse(&run(dir, &["new", "geo", "--sdk", "nowhere"]), "new.sdk");
    assert!(refused.contains("--sdk"), "{refused}");
    assert!(!dir.join("geo").exists(), "nothing is left of what could not be made");
}

#[test]
fn a_library_is_looked_at_with_every_fault_and_its_remedy() {
    let site = Site::new();
    let witness = site.path().join("ran");
    let plugin = |name| {
        let witness = format!("-DWITNESS=\"{}\"", witness.display());
        Fixture::c("ctor_writes.c", name, "1.0.0").flag(&witness)
    };
    let good = format!("plugins/{}", site.add_unsigned(&plugin("good")));
    let told = succeed(run(site.path(), &["inspect", &good]));
    assert!(told.contains("good 1.0.0") && told.contains("nothing found"), "{told}");

    let bad = plugin("bad").flag("-Wl,-z,execstack").flag("-Wl,-rpath,/tmp");
    let bad = format!("plugins/{}", site.add(&bad));
    for place in [bad.clone(), format!("{bad}/linux-x86_64/libbad.so")] {
        let output = run(site.path(), &["inspect", &place, "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = told["findings"].as_array().unwrap();
        let codes: Vec<_> = findings.iter().map(|it| it["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["elf.executable_stack", "elf.search_path"], "{told}");
        assert!(findings[0]["remedy"].as_str().unwrap().contains("-Wl,-z,noexecstack"), "{told}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], "elf.executable_stack");
    }
    let refused = refuse(&run(site.path(), &["inspect", &bad]), "elf.executable_stack");
    assert!(refused.contains("1 more"), "{refused}");
    refuse(&run(site.path(), &["inspect", "nowhere"]), "path.not_found");
    assert!(!witness.exists(), "nothing of it ran");
}

#[test]
fn every_fault_of_a_library_has_a_remedy() {
    for kind in every_admit_error() {
        let code = kind.code();
        let of_library = ["elf.", "descriptor.", "abi."].iter().any(|it| code.starts_with(it));
        assert_eq!(remedy(kind).is_some(), of_library, "{code}");
    }
}

#[test]
fn a_machine_is_told_by_its_facts() {
    let site = Site::new();
    let told = succeed(run(site.path(), &["doctor"]));
    assert!(told.contains("in-process") && told.contains("level"), "{told}");
    let told: Value =
        serde_json::from_str(&succeed(run(site.path(), &["doctor", "--json"]))).unwrap();
    assert!(told["machine"]["kernel"].is_string(), "{told}");
    let state = told["machine"]["seccomp"]["state"].as_str().unwrap();
    assert!(["available", "missing"].contains(&state), "{told}");
    let runs: Vec<_> = told["tiers"].as_array().unwrap().iter().map(|it| &it["runs"]).collect();
    assert_eq!(runs, [true, true, true]);
    assert!(["A", "B", "C", "D", "None"].iter().any(|it| told["fallback"]["tier"] == **it));
}

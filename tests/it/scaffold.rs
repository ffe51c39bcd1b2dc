//! A newcomer's way: `themis new` makes a plugin that builds, tests, conforms, signs, loads and answers as it comes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use themis_kernel::admission::{PublicKey, TrustedKey};
use themis_kernel::{Config, Kernel};
use themis_tests::{Site, program, repository};

fn done(what: &str, output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}{told}", String::from_utf8_lossy(&output.stdout));
}

/// Where the program lies, for the scaffold's own Makefile.
fn themis() -> PathBuf {
    program().get_program().into()
}

fn make(dir: &Path, target: &str) -> Output {
    let mut make = Command::new("make");
    make.arg(target).current_dir(dir).env("THEMIS", themis());
    // Nothing is fetched: what the SDK needs was fetched when this repository was built.
    make.env("CARGO_FLAGS", "--offline").env("CARGO_TARGET_DIR", dir.join("target"));
    // The scaffold is a workspace of its own, whatever the tests' own cargo says.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG")) {
        make.env_remove(name);
    }
    make.output().unwrap()
}

fn walk(lang: &str, name: &str) {
    let site = Site::new();
    let dir = site.path().join("work");
    let scaffolded =
        program().args(["new", name, "--lang", lang]).arg("--dir").arg(&dir).output().unwrap();
    done("new", &scaffolded);
    if lang == "rust" {
        // The same versions of what the SDK needs as here, so that nothing has to be looked up.
        std::fs::copy(repository().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    }
    for target in ["test", "build", "sign"] {
        done(&format!("make {target}"), &make(&dir, target));
    }
    let plugin = dir.join(format!("dist/{name}/0.1.0"));
    let check =
        program().args(["plugin", "check", "--reloads", "50"]).arg(&plugin).output().unwrap();
    done("plugin check", &check);
    let inspected = program().arg("inspect").arg(&plugin).output().unwrap();
    done("inspect", &inspected);

    let mut config = Config::new(site.path().join("var"), dir.join("dist"));
    config.allow = themis_kernel::admission::NameSet::Any;
    config.trusted_in_process = [name.parse().unwrap()].into();
    config.default_tier = themis_kernel::ids::Tier::InProcess;
    config.trusted_keys = vec![TrustedKey {
        label: "dev".to_owned(),
        key: PublicKey::from_pem_file(&dir.join("dev.pub.pem")).unwrap(),
        not_before: None,
        not_after: None,
        plugins: themis_kernel::admission::NameSet::Any,
    }];
    let kernel = Kernel::start_blocking(config).unwrap();
    let loaded = kernel.loader().load_blocking(format!("{name}/0.1.0"), None).unwrap();
    assert_eq!(loaded.call("hello", b"world").unwrap().bytes, b"hello, world");
    assert!(loaded.info().build_id.is_some());
    kernel.shutdown_blocking();
}

#[test]
fn a_scaffold_in_c_builds_tests_signs_loads_and_answers() {
    walk("c", "hello-c");
}

#[test]
fn a_scaffold_in_rust_builds_tests_signs_loads_and_answers() {
    walk("rust", "hello-rust");
}

#[test]
fn what_cannot_be_scaffolded_is_refused() {
    let site = Site::new();
    let new = |arguments: &[&str]| {
        program().arg("new").args(arguments).current_dir(site.path()).output().unwrap()
    };
    assert_eq!(new(&["Bad Name"]).status.code(), Some(2));
    assert_eq!(new(&["good", "--lang", "cobol"]).status.code(), Some(2));
    assert_eq!(new(&["good", "--lang", "c"]).status.code(), Some(0));
    let again = new(&["good", "--lang", "c"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).starts_with("themis: new.exists: "));
    let nowhere = new(&["other", "--sdk", "nowhere"]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("give --sdk DIR"));
}

#[test]
fn inspect_tells_everything_that_speaks_against_a_library_and_runs_none_of_it() {
    let site = Site::new();
    let witness = site.path().join("ran");
    let library = site.path().join("bad.so");
    let source = repository().join("tests/plugins/ctor_writes.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-z,execstack", "-Wl,-rpath,/elsewhere", "-lz", "-o"])
        .arg(&library)
        .arg(format!("-DWITNESS=\"{}\"", witness.display()))
        .arg("-I")
        .arg(repository().join("sdk/include"))
        .arg(&source)
        .output()
        .unwrap();
    if !compiled.status.success() {
        // There is no library at hand that nobody signed; the other findings are enough.
        let told = String::from_utf8_lossy(&compiled.stderr);
        println!("skipped: {told}");
        return;
    }
    let output = program().args(["inspect", "--json"]).arg(&library).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<_> = told["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["code"].as_str().unwrap())
        .collect();
    assert!(codes.contains(&"elf.executable_stack"), "{codes:?}");
    assert!(codes.contains(&"elf.search_path"), "{codes:?}");
    assert!(told["findings"][0]["remedy"].as_str().unwrap().contains("noexecstack"));
    assert!(!witness.exists(), "nothing ran");
}

#[test]
fn doctor_says_what_this_machine_offers() {
    let output = program().args(["doctor", "--json"]).output().unwrap();
    done("doctor", &output);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["facts"].as_array().unwrap().len() >= 10);
    assert_eq!(told["tiers"]["in-process"]["runs"], true);
    assert_eq!(told["tiers"]["process"]["runs"], false);
    done("doctor", &program().arg("doctor").output().unwrap());
}

//! Machines that offer less: what is refused is done without and told, or the worker does not start, by name.
//!
//! A filter over the whole program refuses the system calls that containers, old kernels and hardened hosts refuse.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use themis_tests::{Fixture, Site};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
mod call {
    pub(super) const SETRESUID: u32 = 117;
    pub(super) const PIVOT_ROOT: u32 = 155;
    pub(super) const MOUNT: u32 = 165;
    pub(super) const UNSHARE: u32 = 272;
    pub(super) const SECCOMP: u32 = 317;
    pub(super) const CLONE3: u32 = 435;
    pub(super) const LANDLOCK: u32 = 444;
    pub(super) const MSEAL: u32 = 462;
}
#[cfg(target_arch = "aarch64")]
mod call {
    pub(super) const SETRESUID: u32 = 147;
    pub(super) const PIVOT_ROOT: u32 = 41;
    pub(super) const MOUNT: u32 = 40;
    pub(super) const UNSHARE: u32 = 97;
    pub(super) const SECCOMP: u32 = 277;
    pub(super) const CLONE3: u32 = 435;
    pub(super) const LANDLOCK: u32 = 444;
    pub(super) const MSEAL: u32 = 462;
}

/// The program that refuses.
fn deny(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/deny.c");
    let program = dir.join("deny");
    let status = Command::new("cc").arg("-o").args([&program, &source]).status().unwrap();
    assert!(status.success());
    program
}

/// The program, on a machine that refuses these calls.
fn without(deny: &Path, refused: &[(u32, u32)]) -> Command {
    let mut command = Command::new(deny);
    command.args(refused.iter().map(|(call, error)| format!("{call}={error}"))).arg("--");
    command.arg(themis_tests::program().get_program());
    command
}

/// What `themis doctor` tells of the worker it has started.
fn worker(deny: &Path, refused: &[(u32, u32)]) -> Value {
    let output = without(deny, refused).args(["doctor", "--json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
    report["worker"].clone()
}

fn missing(worker: &Value) -> BTreeSet<String> {
    let list = worker["isolation"]["missing"].as_array().unwrap_or_else(|| panic!("{worker}"));
    list.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_machine_lacks_is_done_without_and_told() {
    let site = Site::new();
    let deny = deny(site.path());
    let usual = missing(&worker(&deny, &[]));
    let lacks = [
        // There is an older call that does.
        (call::CLONE3, ENOSYS, ""),
        (call::LANDLOCK, ENOSYS, "landlock"),
        (call::MSEAL, ENOSYS, "sealed-mappings"),
        (call::UNSHARE, EPERM, "pid-namespace mount-namespace net-namespace ipc-namespace"),
        (call::MOUNT, EPERM, "pid-namespace mount-namespace"),
    ];
    for (number, error, more) in lacks {
        let found = missing(&worker(&deny, &[(number, error)]));
        let wanted = usual.iter().map(String::as_str).chain(more.split_whitespace());
        assert_eq!(found, wanted.map(str::to_owned).collect(), "without {number}");
    }
}

#[test]
fn a_step_that_the_machine_has_and_that_fails_ends_the_worker_by_name() {
    let site = Site::new();
    let deny = deny(site.path());
    let mut steps = vec![(call::PIVOT_ROOT, EPERM, "root"), (call::SECCOMP, ENOSYS, "wide-filter")];
    if rustix::process::geteuid().is_root() {
        steps.push((call::SETRESUID, EPERM, "user"));
    } else {
        println!("skipped: only root gives its workers other users");
    }
    for (number, error, step) in steps {
        let told = worker(&deny, &[(number, error)]);
        assert_eq!(told["code"], "sandbox.setup_failed", "{step}: {told}");
        let what = told["what"].as_str().unwrap();
        assert!(what.contains(&format!("step {step}")), "{step}: {what}");
    }
}

#[test]
fn a_host_that_cannot_have_workers_does_not_try_without_a_pause() {
    let site = Site::new();
    site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let config = std::fs::read_to_string(site.write_config(&["counter"])).unwrap();
    let tier = config.replace("default_tier = \"in-process\"", "default_tier = \"process\"");
    assert_ne!(tier, config);
    std::fs::write(site.path().join("themis.toml"), tier).unwrap();
    let mut command = without(&deny(site.path()), &[(call::PIVOT_ROOT, EPERM)]);
    command.args(["run", "--config", "themis.toml"]).current_dir(site.path());
    let started = Instant::now();
    let mut daemon = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(daemon.stderr.take().unwrap()).lines().map(Result::unwrap);
    let failed = lines.filter(|line| line.contains("no worker could be made ready"));
    assert_eq!(failed.take(4).count(), 4);
    // A tenth of a second, two, and four.
    assert!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

//! Reloads, rollbacks and unloads race callers: nothing is lost, and every answer is its version's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use themis_kernel::audit::{AuditEvent, AuditOutcome};
use themis_kernel::call::CallError;
use themis_kernel::lifecycle::{KernelFault, LoadError};
use themis_kernel::{Kernel, PluginRef};
use themis_tests::{Fixture, Site};

const CALLERS: usize = 4;

/// Callers that check each answer against the version that gave it.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<(u64, u64)>>,
    answered: Arc<AtomicU64>,
}

impl Load {
    fn start(plugin: PluginRef) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers = (0..CALLERS)
            .map(|_| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                spawn(move || call_until(&stop, &answered, plugin))
            })
            .collect();
        Self { stop, callers, answered }
    }

    /// Answered and refused because nothing served.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let counts = self.callers.into_iter().map(|caller| caller.join().unwrap());
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Waits until callers have made some progress.
    fn some_answers(&self) {
        let goal = self.answered.load(Ordering::SeqCst) + 1_000;
        while self.answered.load(Ordering::SeqCst) < goal {
            std::thread::yield_now();
        }
    }
}

fn call_until(stop: &AtomicBool, answered: &AtomicU64, plugin: PluginRef) -> (u64, u64) {
    let (mut answers, mut refusals) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        match plugin.call("version", b"") {
            Ok(answer) => {
                let version = answer.served_by.version.to_string();
                assert_eq!(answer.bytes, version.as_bytes(), "an answer of another version");
                answers += 1;
                answered.fetch_add(1, Ordering::SeqCst);
            }
            Err(CallError::NotLoaded { .. }) => refusals += 1,
            Err(error) => panic!("lost: {error}"),
        }
    }
    (answers, refusals)
}

fn versions(site: &Site) -> [String; 2] {
    ["1.0.0", "2.0.0"].map(|version| site.add(&Fixture::c("counter.c", "counter", version)))
}

#[test]
fn two_hundred_reloads_and_rollbacks_lose_no_call() {
    let site = Site::new();
    let paths = versions(&site);
    let kernel = site.start(&["counter"]);
    let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
    let load = Load::start(plugin);
    load.some_answers();
    for round in 0..200 {
        if round % 5 == 4 {
            kernel.reloads().rollback_blocking("counter").unwrap();
        } else {
            let path = &paths[(round + 1) % 2];
            kernel.reloads().reload_module_blocking("counter", path).unwrap();
        }
    }
    load.some_answers();
    let (answers, refusals) = load.end();
    assert_eq!(refusals, 0, "a plugin that is reloaded is never gone");
    assert!(answers > 0);
    kernel.shutdown_blocking();
}

#[test]
fn unloads_race_callers() {
    let site = Site::new();
    let [path, _] = versions(&site);
    let kernel = site.start(&["counter"]);
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    let load = Load::start(plugin);
    for _ in 0..50 {
        load.some_answers();
        kernel.unload_blocking("counter").unwrap();
        assert_eq!(plugin.info().in_flight, 0);
        kernel.loader().load_blocking(&path, None).unwrap();
    }
    let (answers, _refusals) = load.end();
    assert!(answers >= 50_000);
    kernel.shutdown_blocking();
}

#[test]
fn a_lease_sees_one_version_and_delays_only_the_end_of_it() {
    let site = Site::new();
    let [one, two] = versions(&site);
    let kernel = site.start(&["counter"]);
    let plugin = kernel.loader().load_blocking(&one, None).unwrap();
    let lease = plugin.lease().unwrap();
    kernel.reloads().reload_module_blocking("counter", &two).unwrap();
    for _ in 0..3 {
        assert_eq!(lease.call(1, b"").unwrap().bytes, b"1.0.0");
        assert_eq!(plugin.call(1, b"").unwrap().bytes, b"2.0.0");
    }
    let kernel = Arc::new(kernel);
    let unloading = {
        let kernel = Arc::clone(&kernel);
        spawn(move || kernel.unload_blocking("counter"))
    };
    // The unload takes the plugin out of service at once, and waits for the lease.
    while plugin.call(1, b"").is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(lease.call(1, b"").unwrap().bytes, b"1.0.0");
    assert!(!unloading.is_finished());
    drop(lease);
    unloading.join().unwrap().unwrap();
    Arc::into_inner(kernel).unwrap().shutdown_blocking();
}

#[test]
fn a_lease_that_outlives_the_drain_limit_is_told_and_then_waited_for() {
    let site = Site::new();
    let [one, two] = versions(&site);
    let mut config = site.config(&["counter"]);
    config.drain_limit = Duration::from_millis(50);
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = kernel.loader().load_blocking(&one, None).unwrap();
    let lease = plugin.lease().unwrap();
    kernel.reloads().reload_module_blocking("counter", &two).unwrap();
    let told = |code: Option<&str>, outcome| {
        let records = kernel.audit_records_blocking(0, 1_000).unwrap();
        records.iter().any(|it| {
            it.event == AuditEvent::Retire && it.code.as_deref() == code && it.outcome == outcome
        })
    };
    while !told(Some("drain.overdue"), AuditOutcome::Intent) {
        std::thread::yield_now();
    }
    assert_eq!(lease.call(1, b"").unwrap().bytes, b"1.0.0", "it still answers");
    assert!(!told(None, AuditOutcome::Done), "it has not ended");
    drop(lease);
    kernel.unload_blocking("counter").unwrap();
    assert!(told(None, AuditOutcome::Done), "both have ended");
    kernel.shutdown_blocking();
}

#[test]
fn a_second_reload_meanwhile_is_busy() {
    if themis_tests::only_in_process("it hangs by opening a file") {
        return;
    }
    let site = Site::new();
    let one = site.add(&Fixture::c("counter.c", "plugin", "1.0.0"));
    let fifo = site.fifo();
    let slow = Fixture::c("hang_init.c", "plugin", "2.0.0")
        .flag(&format!("-DHANG_FIFO=\"{}\"", fifo.display()));
    let slow = site.add(&slow);
    let kernel = Arc::new(site.start(&["plugin"]));
    let plugin = kernel.loader().load_blocking(&one, None).unwrap();
    // The two may meet before the slow one is claimed; then the slow one is the one that is told.
    let reloading = {
        let kernel = Arc::clone(&kernel);
        spawn(move || retry_while_busy(|| kernel.reloads().reload_module_blocking("plugin", &slow)))
    };
    // The slow reload sits in its init until the pipe is opened below, so this ends with its claim.
    let operation = loop {
        match kernel.reloads().reload_module_blocking("plugin", &one) {
            Ok(_before_the_claim) => {}
            Err(LoadError::Kernel(KernelFault::Busy { operation, .. })) => break operation,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(operation, "reload");
    assert_eq!(kernel.reloads().rollback_blocking("plugin").unwrap_err().code(), "kernel.busy");
    assert_eq!(kernel.unload_blocking("plugin").unwrap_err().code(), "kernel.busy");
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
    drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
    reloading.join().unwrap().unwrap();
    assert_eq!(plugin.info().version.unwrap().to_string(), "2.0.0");
    Arc::into_inner(kernel).unwrap().shutdown_blocking();
}

fn retry_while_busy<T>(mut attempt: impl FnMut() -> Result<T, LoadError>) -> Result<T, LoadError> {
    loop {
        match attempt() {
            Err(LoadError::Kernel(KernelFault::Busy { .. })) => std::thread::yield_now(),
            other => return other,
        }
    }
}

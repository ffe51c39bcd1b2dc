//! A version that turns bad after the swap is swapped back by itself, with evidence; one that is well settles.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use themis_kernel::audit::AuditEvent;
use themis_kernel::event::LifecycleEvent;
use themis_kernel::lifecycle::{Operation, ReloadReceipt, StateOutcome};
use themis_kernel::probation::Fault;
use themis_kernel::{Config, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

fn moody(version: &str, flags: &[&str]) -> Fixture {
    let fixture = Fixture::c("moody.c", "moody", version);
    flags.iter().fold(fixture, |fixture, flag| fixture.flag(flag))
}

fn config(site: &Site) -> Config {
    let mut config = site.config(&["moody", "counter"]);
    config.probation.window = Duration::from_secs(60);
    config
}

/// Calls until the version on probation is judged; answers how many calls failed.
fn call_until_settled(kernel: &Kernel, plugin: PluginRef, callers: usize) -> (ReloadReceipt, u64) {
    let (stop, errors) = (AtomicBool::new(false), AtomicU64::new(0));
    let receipt = std::thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    errors.fetch_add(u64::from(plugin.call(1, b"").is_err()), Ordering::SeqCst);
                }
            });
        }
        let receipt = kernel.reloads().settled_blocking("moody").unwrap().unwrap();
        stop.store(true, Ordering::SeqCst);
        receipt
    });
    (receipt, errors.into_inner())
}

#[test]
fn a_version_that_fails_after_the_swap_is_swapped_back_with_evidence() {
    let site = Site::new();
    let good = site.add(&moody("1.0.0", &[]));
    let bad = site.add(&moody("2.0.0", &["-DCALL_CODE=1"]));
    let kernel = Kernel::start_blocking(config(&site)).unwrap();
    let plugin = kernel.loader().load_blocking(&good, None).unwrap();
    for _ in 0..1_000 {
        plugin.call(1, b"").unwrap();
    }
    let receipt = kernel.reloads().reload_module_blocking("moody", &bad).unwrap();
    assert_eq!(receipt.probation, Some(Duration::from_secs(60)));

    let (back, errors) = call_until_settled(&kernel, plugin, 2);
    assert_eq!((back.operation, back.to.to_string().as_str()), (Operation::SwapBack, "1.0.0"));
    assert_eq!(back.state, StateOutcome::Own { why: "probation.errors" });
    let evidence = back.evidence.unwrap();
    assert_eq!(evidence.fault, Some(Fault::Errors));
    assert_eq!((evidence.before.calls, evidence.before.errors), (1_000, 0));
    assert!(evidence.after.errors >= 10 && errors >= 10, "{evidence} {errors}");
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");

    let again = kernel.reloads().reload_module_blocking("moody", &bad).unwrap_err();
    assert_eq!(again.code(), "load.quarantined", "it is not tried again by itself");
    let records = kernel.audit_records_blocking(0, 1_000).unwrap();
    let record = records.iter().find(|it| it.event == AuditEvent::SwapBack).unwrap();
    assert_eq!(record.code.as_deref(), Some("probation.errors"));
    assert!(record.reason.as_ref().unwrap().contains("calls failed"), "{record:?}");
    kernel.shutdown_blocking();
}

/// One caller, so that calls can be counted: the promise is 50 calls or 100 ms.
#[test]
fn a_version_that_always_fails_is_gone_within_fifty_calls_or_a_tenth_of_a_second() {
    let site = Site::new();
    let good = site.add(&moody("1.0.0", &[]));
    let bad = site.add(&moody("2.0.0", &["-DCALL_CODE=1"]));
    let kernel = Kernel::start_blocking(config(&site)).unwrap();
    let plugin = kernel.loader().load_blocking(&good, None).unwrap();
    plugin.call(1, b"").unwrap();
    kernel.reloads().reload_module_blocking("moody", &bad).unwrap();
    let (mut calls, first) = (0, Instant::now());
    while plugin.call(1, b"").is_err() {
        calls += 1;
    }
    let took = first.elapsed();
    println!("{calls} calls failed in {took:?}");
    assert!(calls <= 50 || took <= Duration::from_millis(100), "{calls} calls, {took:?}");
    kernel.shutdown_blocking();
}

#[test]
fn one_fault_of_a_version_without_faults_before_is_enough() {
    let site = Site::new();
    let good = site.add(&moody("1.0.0", &[]));
    let bad = site.add(&moody("2.0.0", &["-DCALL_CODE=99", "-DGOOD_CALLS=100"]));
    let kernel = Kernel::start_blocking(config(&site)).unwrap();
    let plugin = kernel.loader().load_blocking(&good, None).unwrap();
    kernel.reloads().reload_module_blocking("moody", &bad).unwrap();
    let (back, _) = call_until_settled(&kernel, plugin, 1);
    assert_eq!(back.evidence.unwrap().fault, Some(Fault::Faults));
    kernel.shutdown_blocking();
}

#[test]
fn a_version_that_is_much_slower_is_swapped_back() {
    let site = Site::new();
    let good = site.add(&moody("1.0.0", &[]));
    let slow = site.add(&moody("2.0.0", &["-DSLOW_MICROS=3000"]));
    let mut config = config(&site);
    // One call in 64 is timed: a few are enough here.
    config.probation.samples_min = 3;
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = kernel.loader().load_blocking(&good, None).unwrap();
    for _ in 0..1_000 {
        plugin.call(1, b"").unwrap();
    }
    kernel.reloads().reload_module_blocking("moody", &slow).unwrap();
    let (back, errors) = call_until_settled(&kernel, plugin, 2);
    assert_eq!(back.evidence.unwrap().fault, Some(Fault::Latency));
    assert_eq!(errors, 0);
    kernel.shutdown_blocking();
}

/// The calls that hang cannot be ended in-process; everybody else goes on with the old version within the budget.
#[test]
fn a_version_whose_calls_hang_is_swapped_back_around_them() {
    if themis_tests::only_in_process("it hangs by opening a file") {
        return;
    }
    let site = Site::new();
    let fifo = site.fifo();
    let hang = format!("-DHANG_FIFO=\"{}\"", fifo.display());
    let good = site.add(&moody("1.0.0", &[]));
    let bad = Fixture::c("rude.c", "moody", "2.0.0").flag("-DCALL_HANG").flag(&hang);
    let bad = site.add(&bad);
    let mut config = config(&site);
    config.probation.stall = Duration::from_millis(200);
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = kernel.loader().load_blocking(&good, None).unwrap();
    plugin.call(1, b"").unwrap();
    // An idle lease is no call that hangs.
    let lease = plugin.lease().unwrap();
    kernel.reloads().reload_module_blocking("moody", &bad).unwrap();
    let held = plugin.lease().unwrap();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| plugin.call(1, b""));
        let back = kernel.reloads().settled_blocking("moody").unwrap().unwrap();
        let evidence = back.evidence.unwrap();
        assert_eq!(evidence.fault, Some(Fault::Hangs), "{evidence}");
        assert!(back.total < Duration::from_millis(500), "the rollback budget");
        assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
        // It still gets its answer when the plugin lets go.
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        assert!(stuck.join().unwrap().is_err());
    });
    drop((lease, held));
    kernel.shutdown_blocking();
}

#[test]
fn a_version_that_is_well_settles_and_only_then_lets_the_one_before_last_go() {
    let site = Site::new();
    let paths = ["1.0.0", "2.0.0", "3.0.0"].map(|it| site.add(&moody(it, &[])));
    let mut config = config(&site);
    config.probation.window = Duration::from_millis(300);
    let kernel = Kernel::start_blocking(config).unwrap();
    let mut events = kernel.subscribe();
    let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
    for path in &paths[1..] {
        kernel.reloads().reload_module_blocking("moody", path).unwrap();
    }
    let kept = |plugin: PluginRef| plugin.info().budget.generations.len();
    assert_eq!(kept(plugin), 3, "what a swap back would need to roll back from is parked");
    let receipt = kernel.reloads().settled_blocking("moody").unwrap().unwrap();
    assert_eq!((receipt.operation, receipt.to.to_string().as_str()), (Operation::Reload, "3.0.0"));
    let settled = loop {
        let event = events.next_blocking().unwrap().unwrap();
        if let LifecycleEvent::Settled { evidence, .. } = event.what {
            break evidence;
        }
    };
    assert_eq!(settled.fault, None);
    while kept(plugin) > 2 {
        std::thread::yield_now();
    }
    kernel.shutdown_blocking();
}

#[test]
fn after_a_swap_back_a_rollback_goes_where_it_went_before() {
    let site = Site::new();
    let (one, two) = (site.add(&moody("1.0.0", &[])), site.add(&moody("1.1.0", &[])));
    let bad = site.add(&moody("1.3.0", &["-DCALL_CODE=7"]));
    let kernel = Kernel::start_blocking(config(&site)).unwrap();
    let plugin = kernel.loader().load_blocking(&one, None).unwrap();
    kernel.reloads().reload_module_blocking("moody", &two).unwrap();
    kernel.reloads().reload_module_blocking("moody", &bad).unwrap();
    call_until_settled(&kernel, plugin, 1);
    assert_eq!(plugin.info().version.unwrap().to_string(), "1.1.0");
    assert_eq!(kernel.reloads().rollback_blocking("moody").unwrap().to.to_string(), "1.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn a_first_version_has_nothing_to_go_back_to_and_is_not_on_probation() {
    let site = Site::new();
    let bad = site.add(&moody("1.0.0", &["-DCALL_CODE=1"]));
    let kernel = Kernel::start_blocking(config(&site)).unwrap();
    let plugin = kernel.loader().load_blocking(&bad, None).unwrap();
    for _ in 0..100 {
        assert!(plugin.call(1, b"").is_err());
    }
    assert_eq!(plugin.info().probation, None);
    assert_eq!(plugin.info().version.unwrap().to_string(), "1.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn the_first_call_of_a_version_is_in_its_receipt_on_record_and_told() {
    let site = Site::new();
    let paths = ["1.0.0", "2.0.0"].map(|it| site.add(&moody(it, &[])));
    let kernel = Kernel::start_blocking(config(&site)).unwrap();
    let mut events = kernel.subscribe();
    let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
    kernel.reloads().reload_module_blocking("moody", &paths[1]).unwrap();
    plugin.call(1, b"").unwrap();
    let first = loop {
        if let LifecycleEvent::FirstCall { first, .. } =
            events.next_blocking().unwrap().unwrap().what
        {
            break first;
        }
    };
    assert_eq!((first.version.to_string().as_str(), first.method, first.ok), ("2.0.0", 1, true));
    let receipt = loop {
        // The event is told before the ledger is published.
        let receipt = plugin.info().receipt.unwrap();
        if receipt.first_call.is_some() {
            break receipt;
        }
        std::thread::yield_now();
    };
    assert_eq!(receipt.first_call, Some(first));
    assert_eq!(receipt.build_id, plugin.info().build_id);
    let records = kernel.audit_records_blocking(0, 100).unwrap();
    let record = records.iter().find(|it| it.event == AuditEvent::FirstCall).unwrap();
    assert_eq!(record.generation, Some(receipt.generation));
    kernel.shutdown_blocking();
}

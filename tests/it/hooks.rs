//! A plugin that hangs costs its caller the deadline and the kernel a thread, nothing else.

use std::time::Duration;

use themis_kernel::call::CallError;
use themis_kernel::lifecycle::PluginState;
use themis_kernel::{Config, Kernel};
use themis_tests::{Fixture, Site};

/// Short enough to wait for, long enough that no healthy hook misses it.
const DEADLINE: Duration = Duration::from_millis(800);

fn start(site: &Site, trusted: &[&str]) -> Kernel {
    let mut config: Config = site.config(trusted);
    config.hook_deadline = DEADLINE;
    config.call_deadline = DEADLINE;
    Kernel::start_blocking(config).unwrap()
}

#[test]
fn a_hanging_init_is_answered_quarantined_and_alone() {
    if themis_tests::only_in_process("no thread is lost, and nothing to be quarantined at once") {
        return;
    }
    let site = Site::new();
    let hanging = site.add(&Fixture::c("hang_init.c", "hang", "1.0.0"));
    let better = site.add(&Fixture::c("counter.c", "hang", "1.1.0"));
    let other = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let kernel = start(&site, &["hang", "counter"]);
    let counter = kernel.loader().load_blocking(other, None).unwrap();

    let error = kernel.loader().load_blocking(&hanging, None).unwrap_err();
    assert_eq!(error.code(), "init.deadline", "{error}");
    let info = kernel.list().into_iter().find(|it| it.name.as_str() == "hang").unwrap();
    assert_eq!(info.state, PluginState::Quarantined);
    assert_eq!(
        kernel.loader().load_blocking(&hanging, None).unwrap_err().code(),
        "load.quarantined"
    );

    assert_eq!(counter.call(2, b"fine").unwrap().bytes, b"fine");
    let hang = kernel.loader().load_blocking(&better, None).unwrap();
    assert_eq!(hang.info().state, PluginState::Active);
    kernel.shutdown_blocking();
}

#[test]
fn a_candidate_that_hangs_leaves_the_old_version_serving() {
    if themis_tests::only_in_process("a hook is killed, with another code") {
        return;
    }
    let site = Site::new();
    let good = site.add(&Fixture::c("counter.c", "plugin", "1.0.0"));
    let hanging = site.add(&Fixture::c("hang_init.c", "plugin", "1.1.0"));
    let kernel = start(&site, &["plugin"]);
    let plugin = kernel.loader().load_blocking(good, None).unwrap();
    let error = kernel.reloads().reload_module_blocking("plugin", hanging).unwrap_err();
    assert_eq!(error.code(), "init.deadline");
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
    assert_eq!(plugin.info().state, PluginState::Active);
    kernel.shutdown_blocking();
}

#[test]
fn a_hanging_shutdown_holds_nobody_up_past_its_deadline() {
    let site = Site::new();
    let hanging = site.add(&Fixture::c("hang_shutdown.c", "hang", "1.0.0"));
    let kernel = start(&site, &["hang"]);
    kernel.loader().load_blocking(hanging, None).unwrap();
    kernel.unload_blocking("hang").unwrap();
    let records = kernel.audit_records_blocking(0, 100).unwrap();
    assert!(records.iter().any(|it| it.code.as_deref() == Some("shutdown.failed")), "{records:?}");
    kernel.shutdown_blocking();
}

#[test]
fn a_call_stuck_in_a_serial_plugin_frees_its_other_callers() {
    if themis_tests::only_in_process("a worker is killed at the deadline") {
        return;
    }
    let site = Site::new();
    let path = site.add(&Fixture::c("slow_serial.c", "slow", "1.0.0"));
    let kernel = start(&site, &["slow"]);
    let plugin = kernel.loader().load_blocking(path, None).unwrap();
    let fifo = site.fifo();
    let request = fifo.to_str().unwrap().as_bytes().to_vec();
    let stuck = std::thread::spawn(move || plugin.call(1, &request));

    // Two callers: the first waits for its turn in vain, and the plugin is out of service afterwards.
    let waited = loop {
        match plugin.call(2, b"") {
            // The stuck call has not arrived yet.
            Ok(answer) => assert_eq!(answer.bytes, [0], "calls overlapped"),
            Err(error) => break error,
        }
    };
    assert!(matches!(waited, CallError::SerialWait { .. }), "{waited}");
    let after = loop {
        match plugin.call(2, b"") {
            Err(CallError::SerialWait { .. }) => {}
            other => break other,
        }
    };
    assert!(matches!(after, Err(CallError::Quarantined { .. })), "{after:?}");

    // The stuck call itself still gets its answer when the plugin lets go.
    std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    assert!(stuck.join().unwrap().is_ok());
    kernel.shutdown_blocking();
}

#[test]
fn a_constructor_that_hangs_stops_loading_and_nothing_else() {
    if themis_tests::only_in_process("a worker has a loader of its own") {
        return;
    }
    let site = Site::new();
    // An ordinary exit would wait for the system loader's lock, which the constructor holds.
    let test = "hooks::a_constructor_that_hangs_stops_loading_and_nothing_else";
    themis_tests::in_killed_process(test, site.path(), |_dir| {
        let site = Site::new();
        let good = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
        let hanging = site.add(&Fixture::c("hang_ctor.c", "hang_ctor", "1.0.0"));
        let late = site.add(&Fixture::c("counter.c", "late", "1.0.0"));
        let kernel = start(&site, &["counter", "hang_ctor", "late"]);
        let load = |path: &str| kernel.loader().load_blocking(path, None);
        let counter = load(&good).unwrap();
        assert!(counter.call(2, b"").is_ok());
        assert_eq!(load(&hanging).unwrap_err().code(), "map.deadline");
        assert_eq!(load(&late).unwrap_err().code(), "map.loader_stuck");
        assert_eq!(counter.call(2, b"on").unwrap().bytes, b"on");
        std::mem::forget(kernel);
    });
}

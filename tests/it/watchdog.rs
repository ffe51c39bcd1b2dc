//! Plugins that are not well are restarted, and quarantined when that does not help; what is quarantined is
//! listed, explained and released.

use std::time::Duration;

use themis_kernel::call::CallError;
use themis_kernel::config::Intensity;
use themis_kernel::event::LifecycleEvent;
use themis_kernel::lifecycle::{Operation, PluginState, StateOutcome};
use themis_kernel::{Config, Events, Kernel};
use themis_tests::{Fixture, Site};

/// As the default, but for people who do not have ten minutes.
fn hasty(site: &Site) -> Config {
    let mut config = site.config(&["moody", "fails", "stateful"]);
    config.health_period = Duration::from_millis(20);
    config.hook_deadline = Duration::from_millis(300);
    config.probation.window = Duration::ZERO;
    config.failures.wait_first = Duration::from_millis(1);
    config.failures.wait_longest = Duration::from_millis(4);
    config.failures.intensity = Intensity { restarts: 3, period: Duration::from_secs(600) };
    config
}

/// The first event that `wanted` takes.
fn wait_for<T>(events: &mut Events, wanted: impl Fn(&LifecycleEvent) -> Option<T>) -> T {
    loop {
        let event = events.next_blocking().unwrap().unwrap();
        if let Some(found) = wanted(&event.what) {
            return found;
        }
    }
}

fn restarted(event: &LifecycleEvent) -> Option<themis_kernel::ids::GenerationId> {
    match event {
        LifecycleEvent::Serves { receipt } if receipt.operation == Operation::Restart => {
            assert_eq!(receipt.state, StateOutcome::Fresh);
            Some(receipt.generation)
        }
        _ => None,
    }
}

#[test]
fn a_plugin_that_is_not_well_is_restarted_until_it_is() {
    if themis_tests::only_in_process("what is static goes with the worker") {
        return;
    }
    let site = Site::new();
    let sick = site.path().join("sick");
    let flag = format!("-DSICK=\"{}\"", sick.display());
    let path = site.add(&Fixture::c("moody.c", "moody", "1.0.0").flag(&flag));
    let mut config = hasty(&site);
    // However many restarts fail before the file is gone, it is not given up.
    config.failures.failed_loads = u32::MAX;
    config.failures.intensity.restarts = usize::MAX;
    let kernel = Kernel::start_blocking(config).unwrap();
    let mut events = kernel.subscribe();
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    let before = plugin.info().generation.unwrap();
    std::fs::write(&sick, b"").unwrap();
    wait_for(&mut events, |event| match event {
        LifecycleEvent::RestartDue { attempt: 1, .. } => Some(()),
        _ => None,
    });
    // A restart is proved before it takes over: while the new instance is not well either, the old one serves.
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
    std::fs::remove_file(&sick).unwrap();
    let after = wait_for(&mut events, restarted);
    assert_ne!(before, after);
    assert_eq!(plugin.call(1, b"").unwrap().served_by.generation, after);
    kernel.shutdown_blocking();
}

#[test]
fn a_plugin_that_stays_unwell_is_quarantined_listed_explained_and_released() {
    if themis_tests::only_in_process("what is static goes with the worker") {
        return;
    }
    let site = Site::new();
    let sick = site.path().join("sick");
    let flag = format!("-DSICK=\"{}\"", sick.display());
    let path = site.add(&Fixture::c("moody.c", "moody", "1.0.0").flag(&flag));
    let mut config = hasty(&site);
    // Each failed restart would count as a failed load as well.
    config.failures.failed_loads = u32::MAX;
    let kernel = Kernel::start_blocking(config).unwrap();
    let mut events = kernel.subscribe();
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    std::fs::write(&sick, b"").unwrap();
    let reason = wait_for(&mut events, |event| match event {
        LifecycleEvent::Quarantined { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.starts_with("restarted 3 times and not well again"), "{reason}");
    let quarantined = loop {
        if let [quarantined] = &kernel.quarantined()[..] {
            break quarantined.clone();
        }
        std::thread::yield_now();
    };
    assert_eq!((quarantined.code.as_str(), &quarantined.reason), ("restart.spent", &reason));
    let refused = plugin.call(1, b"").unwrap_err();
    assert!(matches!(refused, CallError::Quarantined { .. }), "{refused}");
    assert_eq!(plugin.info().state, PluginState::Quarantined);
    let load = || kernel.loader().load_blocking(&path, None);
    assert_eq!(load().unwrap_err().code(), "load.quarantined");

    std::fs::remove_file(&sick).unwrap();
    let other = kernel.release_blocking("moody", Some(themis_kernel::ids::Digest([7; 32])));
    assert_eq!(other.unwrap_err().code(), "quarantine.not_quarantined");
    let released = kernel.release_blocking("moody", Some(quarantined.digest)).unwrap();
    assert_eq!(released.len(), 1);
    assert_eq!(kernel.quarantined(), []);
    load().unwrap();
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn a_health_check_that_hangs_counts_and_its_thread_is_the_only_one_lost() {
    if themis_tests::only_in_process("no thread is lost") {
        return;
    }
    let site = Site::new();
    let hung = site.path().join("hung");
    let flag = format!("-DHUNG=\"{}\"", hung.display());
    let path = site.add(&Fixture::c("moody.c", "moody", "1.0.0").flag(&flag));
    let kernel = Kernel::start_blocking(hasty(&site)).unwrap();
    let mut events = kernel.subscribe();
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    std::fs::write(&hung, b"").unwrap();
    let reason = wait_for(&mut events, |event| match event {
        LifecycleEvent::Unwell { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("did not return within 300ms"), "{reason}");
    std::fs::remove_file(&hung).unwrap();
    let after = wait_for(&mut events, restarted);
    assert_eq!(plugin.call(1, b"").unwrap().served_by.generation, after);
    // The instance with the thread inside is kept, and says why.
    let stuck = |info: themis_kernel::lifecycle::PluginInfo| {
        info.budget.generations.iter().any(|it| it.reason.as_str() == "stuck")
    };
    while !stuck(plugin.info()) {
        std::thread::yield_now();
    }
    kernel.shutdown_blocking();
}

#[test]
fn three_failed_loads_in_a_row_are_enough() {
    let site = Site::new();
    let path = site.add(&Fixture::c("fail_init.c", "fails", "1.0.0"));
    let good = site.add(&Fixture::c("counter.c", "fails", "2.0.0"));
    let kernel = Kernel::start_blocking(hasty(&site)).unwrap();
    let load = |path: &str| kernel.loader().load_blocking(path, None).map(drop);
    let code = |outcome: Result<(), themis_kernel::lifecycle::LoadError>| {
        outcome.map_or_else(|error| error.code(), |()| "ok")
    };
    let codes: Vec<_> = (0..5).map(|_| code(load(&path))).collect();
    assert_eq!(codes[..3], ["init.refused"; 3]);
    assert_eq!(codes[3..], ["load.quarantined"; 2]);
    assert_eq!(code(load(&good)), "ok", "another version is not meant");
    let [quarantined] = &kernel.quarantined()[..] else { panic!("one") };
    assert!(quarantined.reason.starts_with("3 loads failed"), "{}", quarantined.reason);
    assert_eq!(kernel.release_blocking("fails", None).unwrap().len(), 1);
    assert_eq!(code(load(&path)), "load.already_loaded");
    kernel.shutdown_blocking();
}

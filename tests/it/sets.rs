//! Plugins that depend on each other change together or not at all.

use std::time::Duration;

use serde_json::json;
use themis_kernel::lifecycle::{LoadError, Operation};
use themis_kernel::{Kernel, PluginRef};
use themis_tests::{Fixture, Site};

const NAMES: [&str; 3] = ["base", "middle", "top"];

/// Version `major` of a plugin; each needs the same major of the one below.
fn fixture(source: &str, name: &str, major: u32) -> Fixture {
    let fixture = Fixture::c(source, name, &format!("{major}.0.0"));
    let below = NAMES.iter().position(|it| *it == name).and_then(|it| it.checked_sub(1));
    match below {
        Some(below) => fixture.with("dependencies", json!({ NAMES[below]: format!("^{major}") })),
        None => fixture,
    }
}

struct Stack {
    kernel: Kernel,
    plugins: Vec<PluginRef>,
    _site: Site,
    next: Vec<String>,
}

/// All three in version 1 serve; the next set is made of `sources`.
fn stack(sources: [&str; 3]) -> Stack {
    let site = Site::new();
    let first = NAMES.map(|name| site.add(&fixture("counter.c", name, 1)));
    let next: Vec<_> =
        std::iter::zip(sources, NAMES).map(|(it, name)| site.add(&fixture(it, name, 2))).collect();
    let mut config = site.config(&NAMES);
    config.probation.window = Duration::from_secs(60);
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugins =
        first.iter().map(|path| kernel.loader().load_blocking(path, None).unwrap()).collect();
    Stack { kernel, plugins, _site: site, next }
}

impl Stack {
    fn versions(&self) -> Vec<String> {
        let version = |it: &PluginRef| it.info().version.map(|it| it.to_string());
        self.plugins.iter().filter_map(version).collect()
    }
}

#[test]
fn a_set_changes_in_the_order_of_its_needs_and_goes_back_together() {
    let stack = stack(["counter.c"; 3]);
    let reloads = stack.kernel.reloads();
    // One by one is impossible: top 1 needs middle 1, middle 1 needs base 1.
    let alone = reloads.reload_module_blocking("base", &stack.next[0]).unwrap_err();
    assert_eq!(alone.code(), "load.dependency");
    let [base, middle, top] = &stack.next[..] else { panic!("three") };
    let receipts = reloads.reload_set_blocking([top, base, middle]).unwrap();
    let order: Vec<_> = receipts.iter().map(|it| it.plugin.as_str()).collect();
    assert_eq!(order, NAMES, "what is needed before what needs it");
    assert_eq!(stack.versions(), ["2.0.0"; 3]);

    let alone = reloads.rollback_set_blocking(&["base"]).unwrap_err();
    assert_eq!(alone.code(), "rollback.dependency", "{alone}");
    assert_eq!(stack.versions(), ["2.0.0"; 3]);
    let back = reloads.rollback_set_blocking(&NAMES).unwrap();
    assert!(back.iter().all(|it| it.operation == Operation::Rollback));
    assert_eq!(back[0].plugin.as_str(), "top", "what needs it before what is needed");
    assert_eq!(stack.versions(), ["1.0.0"; 3]);
    stack.kernel.shutdown_blocking();
}

#[test]
fn a_set_of_which_one_fails_changes_nothing() {
    for failing in 0..3 {
        let mut sources = ["counter.c"; 3];
        sources[failing] = "fail_init.c";
        let stack = stack(sources);
        let error = stack.kernel.reloads().reload_set_blocking(&stack.next).unwrap_err();
        assert!(error.to_string().contains(NAMES[failing]), "{error}");
        assert_eq!(error.code(), "init.refused");
        assert_eq!(stack.versions(), ["1.0.0"; 3]);
        for plugin in &stack.plugins {
            assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
            assert_eq!(plugin.info().budget.generations.len(), 1, "the candidates are gone");
        }
        stack.kernel.shutdown_blocking();
    }
}

#[test]
fn one_that_fails_on_probation_takes_its_set_back() {
    let site = Site::new();
    let names = ["moody", "counter"];
    let first = [
        site.add(&Fixture::c("moody.c", "moody", "1.0.0")),
        site.add(&Fixture::c("counter.c", "counter", "1.0.0")),
    ];
    let next = [
        site.add(&Fixture::c("moody.c", "moody", "2.0.0").flag("-DCALL_CODE=1")),
        site.add(&Fixture::c("counter.c", "counter", "2.0.0")),
    ];
    let kernel = site.start(&names);
    let plugins = first.map(|path| kernel.loader().load_blocking(path, None).unwrap());
    kernel.reloads().reload_set_blocking(&next).unwrap();
    while plugins[0].call(1, b"").is_err() {}
    for name in names {
        let receipt = kernel.reloads().settled_blocking(name).unwrap().unwrap();
        assert_eq!(receipt.to.to_string(), "1.0.0", "{name}");
        assert_eq!(receipt.operation, Operation::SwapBack, "{name}");
    }
    let [quarantined] = &kernel.quarantined()[..] else { panic!("only the one at fault") };
    assert_eq!(quarantined.plugin.as_str(), "moody");
    kernel.shutdown_blocking();
}

#[test]
fn a_set_that_makes_no_sense_is_refused() {
    let stack = stack(["counter.c"; 3]);
    let reloads = stack.kernel.reloads();
    let none: [&str; 0] = [];
    assert!(matches!(reloads.reload_set_blocking(none), Err(LoadError::SetSize { count: 0, .. })));
    let twice = reloads.reload_set_blocking([&stack.next[0], &stack.next[0]]).unwrap_err();
    assert_eq!(twice.code(), "set.twice");
    let unmet = reloads.reload_set_blocking([&stack.next[2], &stack.next[0]]).unwrap_err();
    assert_eq!(unmet.code(), "load.dependency", "{unmet}");
    assert_eq!(stack.versions(), ["1.0.0"; 3]);
    stack.kernel.shutdown_blocking();
}

#[test]
fn what_others_need_is_neither_unloaded_nor_loaded_without() {
    let site = Site::new();
    let mut paths = vec![site.add(&Fixture::c("counter.c", "base", "1.0.0"))];
    for name in ["west", "east"] {
        let fixture = Fixture::c("counter.c", name, "1.0.0");
        paths.push(site.add(&fixture.with("dependencies", json!({"base": "^1"}))));
    }
    let kernel = site.start(&["base", "east", "west"]);
    let load = |path: &String| kernel.loader().load_blocking(path, None);
    assert_eq!(
        load(&paths[1]).unwrap_err().to_string(),
        "plugin west needs base ^1, but it is not loaded"
    );
    for path in &paths {
        load(path).unwrap();
    }
    let unload = |name| kernel.unload_blocking(name);
    let refused = unload("base").unwrap_err();
    assert_eq!(refused.to_string(), "plugin base is needed by east, west: unload that first");
    for name in ["west", "east", "base"] {
        unload(name).unwrap();
    }
    kernel.shutdown_blocking();
}

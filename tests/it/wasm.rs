//! The wasm tier: what a module may ask for, what a call may cost, and that the next one works whatever the last did.

use std::time::{Duration, Instant};

use themis_kernel::call::CallError;
use themis_kernel::config::FailureRules;
use themis_kernel::ids::Tier;
use themis_kernel::sandbox::Verdict;
use themis_kernel::wasm::{Fuel, Stop, TrapKind};
use themis_kernel::{Config, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

/// Short enough to wait for, long enough that no healthy hook or call misses it.
const DEADLINE: Duration = Duration::from_millis(800);

fn config(site: &Site) -> Config {
    let mut config = site.config(&[]);
    config.default_tier = Tier::Wasm;
    config.hook_deadline = DEADLINE;
    config.call_deadline = DEADLINE;
    config.probation.window = Duration::ZERO;
    config.failures = FailureRules {
        wait_first: Duration::from_millis(1),
        wait_longest: Duration::from_millis(1),
        ..FailureRules::default()
    };
    config
}

fn start(site: &Site) -> Kernel {
    Kernel::start_blocking(config(site)).unwrap()
}

fn load(kernel: &Kernel, path: &str) -> PluginRef {
    kernel.loader().load_blocking(path, None).unwrap_or_else(|error| panic!("{error}"))
}

fn stop(error: CallError) -> Stop {
    match error {
        CallError::Ended { verdict, .. } => match &*verdict {
            Verdict::Stopped { stop } => stop.clone(),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

#[test]
fn a_module_answers_as_the_native_build_of_the_same_source_does() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    assert_eq!(counter.info().tier, Some(Tier::Wasm));
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_eq!(counter.call("echo", b"hello").unwrap().bytes, b"hello");
    let failed = counter.call("fail", b"").unwrap_err();
    assert!(matches!(&failed, CallError::Plugin { text, .. } if text == "counter is out of order"));
    assert_eq!(counter.call("unknown", b"").unwrap_err().code(), "call.unknown_method");
    assert_eq!(counter.call("bad_request", b"").unwrap_err().code(), "call.bad_request");
    let usage = counter.info().usage.unwrap();
    assert!(usage.fuel.is_some_and(|fuel| fuel > 0), "{usage:?}");
    assert!(usage.memory_bytes.is_some_and(|bytes| bytes >= 64 << 10), "{usage:?}");
    kernel.unload_blocking("counter").unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn messages_of_any_size_arrive_whole() {
    let site = Site::new();
    let fixture = Fixture::c("counter.c", "counter", "1.0.0").with_wasm();
    let path = site.add(&fixture);
    let mut config = config(&site);
    config.call_deadline = Duration::from_secs(30);
    config.limits.wasm_memory_bytes = 512 << 20;
    let kernel = Kernel::start_blocking(config).unwrap();
    let counter = load(&kernel, &path);
    for size in [0, 1, 4_095, 4_096, 4_097, 1 << 20, 64 << 20] {
        let request: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        assert!(counter.call("echo", &request).unwrap().bytes == request, "{size} bytes");
    }
    let too_large = counter.call("echo", &vec![0; (64 << 20) + 1]).unwrap_err();
    assert_eq!(too_large.code(), "call.request_too_large");
    kernel.shutdown_blocking();
}

#[test]
fn the_same_call_uses_the_same_fuel_always() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    let fuel = || counter.info().usage.unwrap().fuel.unwrap();
    let mut used = Vec::new();
    for _ in 0..5 {
        let before = fuel();
        counter.call("echo", b"always the same").unwrap();
        used.push(fuel() - before);
    }
    assert!(used[0] > 0);
    assert!(used.iter().all(|it| *it == used[0]), "{used:?}");
    kernel.shutdown_blocking();
}

/// Whatever a call does to its instance, it has a name, and the next call works.
#[test]
fn what_a_guest_does_is_its_callers_error_and_the_next_call_works() {
    let site = Site::new();
    let fixture = Fixture::c("guest.c", "guest", "1.0.0").with_wasm();
    let fixture = fixture.with("limits", serde_json::json!({"fuel_per_call": 200_000_000}));
    let path = site.add(&fixture);
    let mut config = config(&site);
    config.limits.wasm_memory_bytes = 4 << 20;
    let kernel = Kernel::start_blocking(config).unwrap();
    let guest = load(&kernel, &path);
    type Expected = fn(&Stop) -> bool;
    let ends: [(u32, Expected); 9] = [
        (10, |it| matches!(it, Stop::FuelExhausted { of: Fuel::Call, limit: 200_000_000 })),
        (11, |it| matches!(it, Stop::Trap { kind: TrapKind::StackOverflow, .. })),
        (12, |it| matches!(it, Stop::Trap { kind: TrapKind::Unreachable, .. })),
        (13, |it| matches!(it, Stop::Trap { kind: TrapKind::OutOfBounds, .. })),
        (14, |it| matches!(it, Stop::Trap { kind: TrapKind::Arithmetic, .. })),
        (15, |it| matches!(it, Stop::FuelExhausted { .. })),
        (16, |it| matches!(it, Stop::MemoryLimit { limit } if *limit == 4 << 20)),
        (17, |it| matches!(it, Stop::Protocol { .. })),
        (18, |it| matches!(it, Stop::Trap { kind: TrapKind::BadCall, .. })),
    ];
    for (method, expected) in ends {
        let found = stop(guest.call(method, b"").unwrap_err());
        assert!(expected(&found), "{method}: {found:?}");
        assert_eq!(guest.call(1_u32, b"again").unwrap().bytes, b"again", "after {method}");
    }
    let too_much = guest.call(19_u32, b"").unwrap_err();
    assert_eq!(too_much.code(), "call.reply_too_large");
    assert_eq!(guest.call(1_u32, b"again").unwrap().bytes, b"again");
    kernel.shutdown_blocking();
}

#[test]
fn a_loop_without_an_end_is_ended_at_the_calls_deadline() {
    let site = Site::new();
    let fixture = Fixture::c("guest.c", "guest", "1.0.0").with_wasm();
    // Without a limit on its fuel.
    let path = site.add(&fixture.with("limits", serde_json::json!({"fuel_per_call": 0})));
    let kernel = start(&site);
    let guest = load(&kernel, &path);
    let started = Instant::now();
    let found = stop(guest.call(10_u32, b"").unwrap_err());
    assert!(matches!(found, Stop::Deadline { limit: DEADLINE, .. }), "{found:?}");
    assert!(started.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(guest.info().usage.unwrap().fuel_remaining, Some(u64::MAX));
    assert_eq!(guest.call(1_u32, b"again").unwrap().bytes, b"again");
    assert_eq!(guest.info().usage.unwrap().fuel_remaining, Some(u64::MAX));
    kernel.shutdown_blocking();
}

#[test]
fn a_module_that_asks_for_more_than_it_is_granted_is_refused_with_all_of_it() {
    let site = Site::new();
    let fixture = Fixture::c("counter.c", "counter", "1.0.0").with_wasm();
    let path = site.add(&fixture.with("capabilities", serde_json::json!(["clock"])));
    let kernel = start(&site);
    let refused = kernel.loader().load_blocking(&path, None).unwrap_err();
    assert_eq!(refused.code(), "wasm.imports");
    let told = refused.to_string();
    for import in ["themis.log", "themis.counter_add", "themis.resource_read"] {
        assert!(told.contains(import), "{told}");
    }
    assert!(!told.contains("now_ns") && !told.contains("themis.reply"), "{told}");
    kernel.shutdown_blocking();
}

#[test]
fn a_plugin_without_a_native_build_runs_as_wasm() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    std::fs::remove_dir_all(site.root().join(&path).join("linux-x86_64")).unwrap();
    let manifest = site.root().join(&path).join("manifest.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    value["files"].as_array_mut().unwrap().retain(|file| file["target"] == "wasm32");
    std::fs::write(&manifest, value.to_string()).unwrap();
    themis_kernel::admission::sign_dir(&site.root().join(&path), &site.key).unwrap();
    let mut config = config(&site);
    config.default_tier = Tier::Process;
    let kernel = Kernel::start_blocking(config).unwrap();
    let counter = load(&kernel, &path);
    assert_eq!(counter.info().tier, Some(Tier::Wasm));
    assert_eq!(counter.call("echo", b"portable").unwrap().bytes, b"portable");
    kernel.shutdown_blocking();
}

#[test]
fn state_moves_to_the_next_version_and_is_not_shared_meanwhile() {
    let site = Site::new();
    let paths = ["1.0.0", "2.0.0"]
        .map(|version| site.add(&Fixture::c("stateful.c", "stateful", version).with_wasm()));
    let kernel = start(&site);
    let plugin = load(&kernel, &paths[0]);
    for _ in 0..5 {
        plugin.call(6_u32, b"").unwrap();
    }
    kernel.reloads().reload_module_blocking("stateful", &paths[1]).unwrap();
    assert_eq!(plugin.call(1_u32, b"").unwrap().bytes, b"2.0.0");
    assert_eq!(plugin.call(7_u32, b"").unwrap().bytes, 5_u64.to_le_bytes());
    kernel.shutdown_blocking();
}

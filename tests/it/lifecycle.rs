//! A plugin's life through the host API: load, call, reload, roll back, unload, and what is written down.

use serde_json::json;
use themis_kernel::admission::sign_detached;
use themis_kernel::audit::{AuditEvent, AuditOutcome};
use themis_kernel::call::CallError;
use themis_kernel::config::PluginConfig;
use themis_kernel::lifecycle::{LoadError, Operation, PluginState, RollbackError, UnloadError};
use themis_kernel::manifest::Manifest;
use themis_kernel::{Config, Kernel};
use themis_tests::{Fixture, Site, built_example};

fn counter(version: &str) -> Fixture {
    Fixture::c("counter.c", "counter", version)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_reference_survives_reload_rollback_and_unload() {
    let site = Site::new();
    let (one, two) = (site.add(&counter("1.0.0")), site.add(&counter("2.0.0")));
    let kernel = site.start(&["counter"]);
    assert!(kernel.plugin("counter").is_none());

    let plugin = kernel.loader().load_blocking(&one, None).unwrap();
    let version = || {
        let answer = plugin.call("version", b"").unwrap();
        assert_eq!(text(&answer.bytes), answer.served_by.version.to_string());
        answer.served_by.version.to_string()
    };
    assert_eq!(version(), "1.0.0");
    assert_eq!(
        kernel.reloads().rollback_blocking("counter").unwrap_err().code(),
        "rollback.no_previous"
    );

    let receipt = kernel.reloads().reload_module_blocking("counter", &two).unwrap();
    assert_eq!(receipt.operation, Operation::Reload);
    assert_eq!(receipt.from.unwrap().to_string(), "1.0.0");
    // A module has no build id: its digest is what was compiled.
    assert_eq!(receipt.build_id.is_some(), themis_tests::tier() != themis_kernel::ids::Tier::Wasm);
    assert!(receipt.audit_seq.is_some());
    assert_eq!(version(), "2.0.0");

    for expected in ["1.0.0", "2.0.0", "1.0.0"] {
        let receipt = kernel.reloads().rollback_blocking("counter").unwrap();
        assert_eq!(receipt.to.to_string(), expected);
        assert_eq!(version(), expected);
    }

    kernel.unload_blocking("counter").unwrap();
    assert!(matches!(plugin.call("version", b""), Err(CallError::NotLoaded { .. })));
    assert!(kernel.plugin("counter").is_none());
    assert_eq!(plugin.info().state, PluginState::Unloaded);
    assert!(matches!(kernel.unload_blocking("counter"), Err(UnloadError::NotLoaded { .. })));
    assert!(matches!(
        kernel.reloads().rollback_blocking("counter"),
        Err(RollbackError::NotLoaded { .. })
    ));

    kernel.loader().load_blocking(&two, None).unwrap();
    assert_eq!(version(), "2.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn every_way_a_call_can_end_has_its_error() {
    let site = Site::new();
    let counter = site.add(&counter("1.0.0"));
    let wild = site.add(&Fixture::c("wild_code.c", "wild_code", "1.0.0").flag("-DWELL"));
    let big = site.add(&Fixture::c("big_reply.c", "big_reply", "1.0.0"));
    let kernel = site.start(&["counter", "wild_code", "big_reply"]);
    let plugin = kernel.loader().load_blocking(counter, None).unwrap();

    assert_eq!(plugin.call("echo", b"hello").unwrap().bytes, b"hello");
    assert_eq!(plugin.call(2, b"").unwrap().bytes, b"", "an empty reply is a reply");
    let mut reply = b"kept".to_vec();
    let error = plugin.call_into("fail", b"", &mut reply).unwrap_err();
    assert_eq!(reply, b"kept", "a failed call leaves the buffer as it was");
    assert!(matches!(error, CallError::Plugin { text, .. } if text.contains("out of order")));
    for (method, code) in [
        ("unknown", "call.unknown_method"),
        ("bad_request", "call.bad_request"),
        ("nope", "call.unknown_method"),
    ] {
        assert_eq!(plugin.call(method, b"").unwrap_err().code(), code, "{method}");
    }

    let wild = kernel.loader().load_blocking(wild, None).unwrap();
    assert!(matches!(wild.call(1, b""), Err(CallError::Fault { code: 77, .. })));
    let big = kernel.loader().load_blocking(big, None).unwrap();
    let mut reply = Vec::new();
    let error = big.call_into(1, b"", &mut reply).unwrap_err();
    assert_eq!(error.code(), "call.reply_too_large");
    kernel.shutdown_blocking();
}

#[test]
fn a_panicking_rust_plugin_answers_an_error() {
    if themis_tests::not_as_wasm("a panic is a trap there") {
        return;
    }
    let site = Site::new();
    let path = site.add(&Fixture::built(built_example("panics"), "panics", "1.0.0"));
    let kernel = site.start(&["panics"]);
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    for _ in 0..3 {
        let error = plugin.call(1, b"xyz").unwrap_err();
        assert!(error.to_string().contains("boom at 3 bytes"), "{error}");
        assert_eq!(plugin.call(2, b"still here").unwrap().bytes, b"still here");
    }
    kernel.shutdown_blocking();
}

#[test]
fn a_panic_in_any_hook_is_that_hooks_error() {
    if themis_tests::not_as_wasm("a panic is a trap there") {
        return;
    }
    for (hook, load, reload, shutdown) in [
        ("init", "init.refused", "", ""),
        ("health", "probe.health", "", ""),
        ("save_state", "ok", "state.save_refused", "ok"),
        ("reload", "ok", "state.take_refused", "ok"),
        ("shutdown", "ok", "ok", "shutdown.failed"),
    ] {
        let site = Site::new();
        let path = site.add(&Fixture::built(built_example("panics"), "panics", "1.0.0"));
        let mut config = site.config(&["panics"]);
        let settings = json!({ "panic": hook });
        let own = PluginConfig {
            config: settings.as_object().unwrap().clone(),
            autoload: false,
            ..PluginConfig::default()
        };
        config.plugins.insert("panics".parse().unwrap(), own);
        let kernel = Kernel::start_blocking(config).unwrap();
        let code = |error: &LoadError| error.code();
        let loaded = kernel.loader().load_blocking(&path, None);
        assert_eq!(loaded.as_ref().err().map_or("ok", code), load, "{hook}");
        if let Ok(plugin) = loaded {
            let again = kernel.reloads().reload_module_blocking("panics", &path);
            assert_eq!(again.as_ref().err().map_or("ok", code), reload, "{hook}");
            assert_eq!(plugin.call(2, b"on").unwrap().bytes, b"on", "{hook}");
            kernel.unload_blocking("panics").unwrap();
            let records = kernel.audit_records_blocking(0, 100).unwrap();
            let failed = records.iter().any(|it| it.code.as_deref() == Some("shutdown.failed"));
            assert_eq!(failed, shutdown == "shutdown.failed", "{hook}");
        }
        kernel.shutdown_blocking();
    }
}

#[test]
fn load_replaces_nothing_and_reload_loads_nothing() {
    let site = Site::new();
    let (one, two) = (site.add(&counter("1.0.0")), site.add(&counter("2.0.0")));
    let other = site.add(&Fixture::c("counter.c", "other", "1.0.0"));
    let kernel = site.start(&["counter", "other"]);
    let code = |error: LoadError| error.code();
    let reloads = kernel.reloads();
    assert_eq!(
        code(reloads.reload_module_blocking("counter", &one).unwrap_err()),
        "reload.not_loaded"
    );
    kernel.loader().load_blocking(&one, None).unwrap();
    assert_eq!(code(kernel.loader().load_blocking(&two, None).unwrap_err()), "load.already_loaded");
    assert_eq!(
        code(reloads.reload_module_blocking("counter", other).unwrap_err()),
        "reload.other_plugin"
    );
    assert_eq!(kernel.plugin("counter").unwrap().info().version.unwrap().to_string(), "1.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn the_same_digest_loads_again_without_mapping_it_again() {
    if themis_tests::only_in_process("an image goes with its worker") {
        return;
    }
    let site = Site::new();
    let one = site.add(&counter("1.0.0"));
    let kernel = site.start(&["counter"]);
    kernel.loader().load_blocking(&one, None).unwrap();
    for _ in 0..5 {
        let receipt = kernel.reloads().reload_module_blocking("counter", &one).unwrap();
        assert!(receipt.image_reused);
    }
    assert_eq!(themis_tests::images_mapped(), 1);
    kernel.shutdown_blocking();
}

#[test]
fn dependencies_hold_in_both_directions() {
    let site = Site::new();
    let (base1, base2) = (
        site.add(&Fixture::c("counter.c", "base", "1.0.0")),
        site.add(&Fixture::c("counter.c", "base", "2.0.0")),
    );
    let user = Fixture::c("counter.c", "user", "1.0.0").with("dependencies", json!({"base": "^1"}));
    let user = site.add(&user);
    let kernel = site.start(&["base", "user"]);
    let load = |path: &str| kernel.loader().load_blocking(path, None);
    assert_eq!(load(&user).unwrap_err().code(), "load.dependency");
    load(&base1).unwrap();
    load(&user).unwrap();
    let error = kernel.reloads().reload_module_blocking("base", base2).unwrap_err();
    assert_eq!(error.code(), "load.dependency", "its dependents could not use 2.0.0: {error}");
    assert_eq!(kernel.unload_blocking("base").unwrap_err().code(), "unload.needed");
    kernel.unload_blocking("user").unwrap();
    kernel.unload_blocking("base").unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn a_failed_self_test_or_init_is_never_visible() {
    let site = Site::new();
    let good = site.add(&counter("1.0.0"));
    // base64 of "ping" and "pong": the plugin echoes, so the second expectation is wrong.
    let wrong = json!([{"method": "echo", "request": "cGluZw==", "reply": "cG9uZw=="}]);
    let right = json!([{"method": "echo", "request": "cGluZw==", "reply": "cGluZw=="}]);
    let failing = site.add(&counter("1.1.0").with("self_test", wrong));
    let passing = site.add(&counter("1.2.0").with("self_test", right));
    let init = site.add(&Fixture::c("fail_init.c", "counter", "1.3.0"));
    let kernel = site.start(&["counter"]);
    let plugin = kernel.loader().load_blocking(&good, None).unwrap();
    let reload = |path: &str| kernel.reloads().reload_module_blocking("counter", path);
    assert_eq!(reload(&failing).unwrap_err().code(), "probe.self_test");
    assert_eq!(reload(&init).unwrap_err().code(), "init.refused");
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
    reload(&passing).unwrap();
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.2.0");
    kernel.shutdown_blocking();
}

#[test]
fn host_services_follow_the_capabilities() {
    let site = Site::new();
    let fixture =
        Fixture::c("uses_host.c", "uses_host", "1.0.0").data("data/greeting.txt", b"hello");
    let granted = site.add(&fixture);
    let kernel = site.start(&["uses_host"]);
    let plugin = kernel.loader().load_blocking(&granted, None).unwrap();
    let read = plugin.call(1, b"data/greeting.txt").unwrap();
    assert_eq!(text(&read.bytes), "hello");
    kernel.shutdown_blocking();
}

#[test]
fn every_step_is_on_the_audit_record_and_the_chain_holds() {
    let site = Site::new();
    let (one, two) = (site.add(&counter("1.0.0")), site.add(&counter("2.0.0")));
    let unsigned = site.add_unsigned(&Fixture::c("counter.c", "unsigned", "1.0.0"));
    let kernel = site.start(&["counter", "unsigned"]);
    kernel.loader().load_blocking(&one, None).unwrap();
    let refused = kernel.loader().load_blocking(&unsigned, None).unwrap_err();
    kernel.reloads().reload_module_blocking("counter", &two).unwrap();
    kernel.reloads().rollback_blocking("counter").unwrap();
    kernel.unload_blocking("counter").unwrap();
    kernel.shutdown_blocking();

    // A second kernel continues the log of the first.
    let kernel = site.start(&["counter"]);
    let report = kernel.audit_verify_blocking().unwrap();
    let records = kernel.audit_records_blocking(0, 100).unwrap();
    assert_eq!(records.len() as u64, report.records);
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let version = record.version.as_ref().map(ToString::to_string).unwrap_or_default();
            (record.event, record.outcome, version, record.code.clone().unwrap_or_default())
        })
        .collect();
    use AuditEvent as E;
    use AuditOutcome as O;
    let expected = [
        (E::Start, O::Done, "", ""),
        (E::Load, O::Intent, "1.0.0", ""),
        (E::Load, O::Done, "1.0.0", ""),
        (E::Load, O::Refused, "1.0.0", refused.code()),
        (E::Reload, O::Intent, "2.0.0", ""),
        (E::Reload, O::Done, "2.0.0", ""),
        (E::Rollback, O::Done, "1.0.0", ""),
        (E::Unload, O::Done, "1.0.0", ""),
    ];
    for (got, want) in told.iter().zip(&expected) {
        assert_eq!((got.0, got.1, got.2.as_str(), got.3.as_str()), *want);
    }
    let rest = &told[expected.len()..];
    assert_eq!(rest.iter().filter(|it| it.0 == E::Retire && it.1 == O::Done).count(), 2);
    assert_eq!(rest.last().map(|it| it.0), Some(E::Start));
    assert_eq!(rest.iter().filter(|it| it.0 == E::Stop).count(), 1);
    kernel.shutdown_blocking();
}

#[test]
fn a_record_is_durable_when_load_has_returned() {
    let site = Site::new();
    site.add(&counter("1.0.0"));
    site.write_config(&["counter"]);
    let test = "lifecycle::a_record_is_durable_when_load_has_returned";
    themis_tests::in_killed_process(test, site.path(), |dir| {
        let config = Config::from_file(&dir.join("themis.toml")).unwrap();
        let kernel = Kernel::start_blocking(config).unwrap();
        kernel.loader().load_blocking("counter/1.0.0", None).unwrap();
        std::mem::forget(kernel);
    });
    let kernel = site.start(&[]);
    let records = kernel.audit_records_blocking(0, 100).unwrap();
    let loaded =
        records.iter().any(|it| it.event == AuditEvent::Load && it.outcome == AuditOutcome::Done);
    assert!(loaded, "{records:?}");
    kernel.audit_verify_blocking().unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn a_detached_signature_is_the_second_accepted_form() {
    if themis_tests::not_as_wasm("the form is for libraries") {
        return;
    }
    let site = Site::new();
    let signed = site.root().join(site.add(&counter("1.0.0")));
    let (binary, signature) =
        (site.root().join("libcounter.so"), site.root().join("libcounter.so.sig"));
    std::fs::copy(signed.join("linux-x86_64/libcounter.so"), &binary).unwrap();
    sign_detached(&binary, &signature, &site.key).unwrap();
    let kernel = site.start(&["counter"]);
    let plugin = kernel.loader().load_blocking("libcounter.so", None).unwrap();
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0", "methods have numbers");
    assert_eq!(plugin.call("version", b"").unwrap_err().code(), "call.unknown_method");

    // A manifest handed over names the methods.
    kernel.unload_blocking("counter").unwrap();
    let path = signed.join("manifest.json");
    let manifest = Manifest::parse(&path, &std::fs::read(&path).unwrap()).unwrap();
    let plugin = kernel.loader().load_blocking("libcounter.so", Some(manifest)).unwrap();
    assert_eq!(plugin.call("version", b"").unwrap().bytes, b"1.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn blocking_twins_refuse_a_runtime_thread() {
    let site = Site::new();
    let path = site.add(&counter("1.0.0"));
    let kernel = site.start(&["counter"]);
    let refused = themis_tests::block_on(async { kernel.loader().load_blocking(&path, None) });
    assert_eq!(refused.unwrap_err().code(), "kernel.on_runtime_thread");
    // The async twin works on any runtime, not only on the kernel's.
    themis_tests::block_on(kernel.loader().load(&path, None)).unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn a_kernel_lives_in_a_runtime_it_is_given() {
    let site = Site::new();
    let path = site.add(&counter("1.0.0"));
    themis_tests::block_on(async {
        let kernel = Kernel::start(site.config(&["counter"])).await.unwrap();
        let plugin = kernel.loader().load(&path, None).await.unwrap();
        assert_eq!(plugin.call_async("echo", b"x".to_vec()).await.unwrap().bytes, b"x");
        kernel.reloads().reload_module("counter", &path).await.unwrap();
        kernel.reloads().rollback("counter").await.unwrap();
        kernel.unload("counter").await.unwrap();
        assert!(kernel.audit_verify().await.unwrap().records > 5);
        kernel.shutdown().await;
    });
    // The store is closed: another kernel can have it.
    site.start(&[]).shutdown_blocking();
}

#[test]
fn what_the_configuration_names_is_loaded_at_start() {
    let site = Site::new();
    for version in ["1.0.0", "1.2.0", "2.0.0"] {
        site.add(&counter(version));
    }
    site.add(
        &Fixture::c("counter.c", "user", "1.0.0").with("dependencies", json!({"counter": "^1"})),
    );
    let mut config = site.config(&["counter", "user"]);
    let version = Some("^1".parse().unwrap());
    for (name, version) in [("counter", version), ("user", None)] {
        let plugin = PluginConfig { version, ..PluginConfig::default() };
        config.plugins.insert(name.parse().unwrap(), plugin);
    }
    let kernel = Kernel::start_blocking(config).unwrap();
    let serving: Vec<_> = kernel
        .list()
        .into_iter()
        .map(|it| format!("{} {}", it.name, it.version.unwrap()))
        .collect();
    assert_eq!(serving, ["counter 1.2.0", "user 1.0.0"]);
    kernel.shutdown_blocking();
}

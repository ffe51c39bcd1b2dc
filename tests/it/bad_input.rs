//! What ill-mannered plugins do: each thing is a clear error or a documented limit of the tier, none a silent
//! corruption. Hooks of state that fail, hang or write too much are in `state`; panics in `lifecycle`.

use std::time::Duration;

use themis_kernel::call::CallError;
use themis_kernel::{Kernel, PluginRef};
use themis_tests::{Fixture, Site};

fn start(site: &Site) -> Kernel {
    let mut config = site.config(&["rude", "late_writer"]);
    config.hook_deadline = Duration::from_millis(400);
    Kernel::start_blocking(config).unwrap()
}

fn rude(flags: &[&str]) -> Fixture {
    let fixture = Fixture::c("rude.c", "rude", "1.0.0");
    flags.iter().fold(fixture, |fixture, flag| fixture.flag(flag))
}

/// Loads a rude plugin and has it used.
fn with(flags: &[&str], scene: impl FnOnce(&Kernel, PluginRef)) {
    let site = Site::new();
    let path = site.add(&rude(flags));
    let kernel = start(&site);
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    scene(&kernel, plugin);
    kernel.shutdown_blocking();
}

#[test]
fn a_reply_that_is_written_late_or_by_another_thread_is_not_taken() {
    if themis_tests::not_as_wasm("a guest has no threads") {
        return;
    }
    let site = Site::new();
    let path = site.add(&Fixture::c("late_writer.c", "late_writer", "1.0.0"));
    let kernel = start(&site);
    let plugin = kernel.loader().load_blocking(&path, None).unwrap();
    let before = themis_kernel::refused_writes();
    for _ in 0..100 {
        assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
        for (method, refused) in [(2, "own2"), (3, "own1"), (4, "own1")] {
            let reply = plugin.call(method, b"").unwrap().bytes;
            assert_eq!(String::from_utf8(reply).unwrap(), refused, "method {method}");
        }
    }
    // And when the thread whose call it was is another one.
    let kept = std::thread::spawn(move || plugin.call(1, b"").map(drop)).join().unwrap();
    assert_eq!(kept, Ok(()));
    assert_eq!(themis_kernel::refused_writes() - before, 400);
    kernel.shutdown_blocking();
}

#[test]
fn a_reply_of_a_gigabyte_is_an_error_and_costs_no_more_than_the_cap() {
    with(&["-DBIG=1073741824"], |_, plugin| {
        let error = plugin.call(1, b"").unwrap_err();
        assert!(matches!(error, CallError::ReplyTooLarge { .. }), "{error}");
        assert_eq!(plugin.call(2, b"").unwrap().bytes, b"1.0.0");
    });
}

#[test]
fn wild_codes_of_hooks_are_errors() {
    for code in [2, 17, -1, i32::MIN, i32::MAX] {
        for (hook, refused) in [("INIT", "init.fault"), ("HEALTH", "probe.health")] {
            let site = Site::new();
            let path = site.add(&rude(&[&format!("-D{hook}_CODE={code}")]));
            let kernel = start(&site);
            let error = kernel.loader().load_blocking(&path, None).unwrap_err();
            assert_eq!(error.code(), refused, "{error}");
            kernel.shutdown_blocking();
        }
        with(&[&format!("-DSHUTDOWN_CODE={code}")], |kernel, _| {
            kernel.unload_blocking("rude").unwrap();
            let records = kernel.audit_records_blocking(0, 100).unwrap();
            let told = records.iter().any(|it| it.code.as_deref() == Some("shutdown.failed"));
            assert!(told, "{records:?}");
        });
    }
}

#[test]
fn a_hook_that_hangs_costs_its_deadline() {
    if themis_tests::only_in_process("a hook is killed, with another code") {
        return;
    }
    for (hook, code) in [("INIT", "init.deadline"), ("HEALTH", "probe.health")] {
        let site = Site::new();
        let path = site.add(&rude(&[&format!("-D{hook}_HANG")]));
        let kernel = start(&site);
        let error = kernel.loader().load_blocking(&path, None).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let quarantined = kernel.loader().load_blocking(&path, None).unwrap_err();
        assert_eq!(quarantined.code(), "load.quarantined");
        kernel.shutdown_blocking();
    }
    with(&["-DSHUTDOWN_HANG"], |kernel, _| {
        kernel.unload_blocking("rude").unwrap();
    });
}

/// In-process, nobody can keep a plugin from lying about it: documented.
#[test]
fn a_plugin_that_claims_to_be_thread_safe_is_taken_at_its_word() {
    if themis_tests::not_as_wasm("an instance has one call at a time") {
        return;
    }
    with(&["-DLIAR"], |_, plugin| {
        let met = || {
            std::thread::scope(|scope| {
                let callers: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| plugin.call(3, b"").unwrap().bytes)).collect();
                callers.into_iter().any(|caller| caller.join().unwrap() == [1])
            })
        };
        while !met() {}
    });
}

/// Its image is never unmapped, so its threads never lose the ground under their feet.
#[test]
fn a_plugin_that_starts_threads_is_unloaded_while_they_live_on() {
    if themis_tests::not_as_wasm("a guest has no threads") {
        return;
    }
    let site = Site::new();
    let path = site.add(&rude(&["-DTHREADS=3"]));
    let kernel = start(&site);
    for _ in 0..3 {
        let plugin = kernel.loader().load_blocking(&path, None).unwrap();
        let ticks = || u64::from_le_bytes(plugin.call(3, b"").unwrap().bytes.try_into().unwrap());
        let before = ticks();
        while ticks() == before {
            std::thread::yield_now();
        }
        kernel.unload_blocking("rude").unwrap();
    }
    kernel.shutdown_blocking();
}

#[test]
fn thread_locals_with_destructors_end_after_the_plugin_has() {
    if themis_tests::not_as_wasm("a guest has no threads") {
        return;
    }
    with(&["-DTLS"], |kernel, plugin| {
        let (ready, wait) = std::sync::mpsc::channel::<()>();
        let (called, is_called) = std::sync::mpsc::channel::<()>();
        let caller = std::thread::spawn(move || {
            plugin.call(2, b"").unwrap();
            called.send(()).unwrap();
            // Its destructors run when the plugin is gone already.
            wait.recv().unwrap();
        });
        is_called.recv().unwrap();
        kernel.unload_blocking("rude").unwrap();
        ready.send(()).unwrap();
        caller.join().unwrap();
    });
}

/// In-process this is not survivable; the documentation says so. What was acknowledged is on record all the same.
#[test]
fn a_plugin_that_exits_ends_the_host_and_nothing_that_was_acknowledged_is_lost() {
    if themis_tests::not_as_wasm("a guest has no process") {
        return;
    }
    let site = Site::new();
    site.add(&rude(&["-DEXIT"]));
    let config = site.write_config(&["rude"]);
    let mut daemon = themis_tests::program();
    daemon.args(["run", "--config"]).arg(&config).stdout(std::process::Stdio::piped());
    let mut daemon = daemon.spawn().unwrap();
    let mut line = String::new();
    let mut told = std::io::BufReader::new(daemon.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    let socket = site.path().join("admin.sock");
    let plugin = |arguments: &[&str]| {
        let mut command = themis_tests::program();
        command.arg("plugin").args(arguments).arg("--socket").arg(&socket);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    };
    let path = site.root().join("rude/1.0.0");
    assert!(plugin(&["load", path.to_str().unwrap()]).status.success());
    assert!(!plugin(&["call", "rude", "1"]).status.success());
    assert_eq!(daemon.wait().unwrap().code(), Some(7), "the plugin's exit code");
    let verified =
        themis_tests::program().args(["audit", "verify", "--config"]).arg(&config).output();
    assert!(verified.unwrap().status.success());
}

//! The hooks that move state, one by one and against each other.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use themis_messages::instance::{CallStatus, HookError, Instance, StateHooks};
use themis_messages::lifecycle::MapError;
use themis_messages::limits::STATE_BYTES_MAX;

use super::{Bench, call};

fn count(instance: &Arc<dyn Instance>, method: u32) -> u64 {
    u64::from_le_bytes(call(instance, method, b"").1.try_into().unwrap())
}

fn refused(message: &str) -> HookError {
    HookError::Refused { message: message.to_owned() }
}

#[test]
fn a_successor_takes_over_what_was_saved() {
    let Some(bench) = Bench::new() else { return };
    let old = bench.start("stateful", &[]);
    assert_eq!((count(&old, 6), count(&old, 6), count(&old, 7)), (1, 2, 2));
    assert_eq!(old.state_hooks(), StateHooks { saves: true, takes: true });
    let state = old.save_state().unwrap();
    assert_eq!(state, b"COUNT\x02\0\0\0\0\0\0\0");
    assert_eq!(count(&old, 6), 3, "it goes on");
    let new = bench.start("stateful", &["-DVERSION=\"2.0.0\""]);
    new.reload("1.0.0", &state).unwrap();
    assert_eq!(count(&new, 7), 2);
    for garbage in [&b""[..], b"COUNT", b"TNUOC\0\0\0\0\0\0\0\0"] {
        assert_eq!(new.reload("1.0.0", garbage), Err(refused("this is no count")));
    }
    assert_eq!(count(&new, 7), 2, "what it refused has changed nothing");
    for instance in [old, new] {
        instance.shutdown().unwrap();
        let gone = refused("the instance was shut down");
        assert_eq!(instance.save_state().unwrap_err(), gone);
        assert_eq!(instance.reload("1.0.0", &state).unwrap_err(), gone);
    }
}

#[test]
fn a_hook_that_is_not_there_is_told_before_all_else() {
    let Some(bench) = Bench::new() else { return };
    for (flag, hooks) in [
        ("-DNO_SAVE", StateHooks { saves: false, takes: true }),
        ("-DNO_RELOAD", StateHooks { saves: true, takes: false }),
    ] {
        let instance = bench.start("stateful", &[flag]);
        assert_eq!(instance.state_hooks(), hooks);
        assert_eq!(instance.save_state() == Err(HookError::Missing), !hooks.saves);
        assert_eq!(instance.reload("1.0.0", b"") == Err(HookError::Missing), !hooks.takes);
        instance.shutdown().unwrap();
        assert_eq!(instance.save_state() == Err(HookError::Missing), !hooks.saves);
    }
}

#[test]
fn a_hook_that_points_out_of_the_image_is_never_called() {
    let Some(bench) = Bench::new() else { return };
    for (flag, entry) in
        [("-DSAVE=(void *)pause", "save_state"), ("-DRELOAD=(void *)pause", "reload")]
    {
        let refused = bench.map(&bench.build("stateful", &[flag])).unwrap_err();
        let MapError::NotTheVerifiedImage { what } = refused else { panic!("{refused}") };
        assert_eq!(what, format!("entry {entry} points out of the image: declare it static"));
    }
}

#[test]
fn a_state_ends_at_its_cap_whatever_the_plugin_says_of_it() {
    let Some(bench) = Bench::new() else { return };
    let full = bench.start("stateful", &[&format!("-DSAVE_BYTES={STATE_BYTES_MAX}ULL")]);
    assert_eq!(full.save_state().unwrap().len(), STATE_BYTES_MAX);
    let over = STATE_BYTES_MAX + 1;
    let full = bench.start("stateful", &[&format!("-DSAVE_BYTES={over}ULL")]);
    assert_eq!(full.save_state(), Err(HookError::TooLarge { max: STATE_BYTES_MAX }));
}

#[test]
fn codes_of_state_hooks_are_refusals_or_faults() {
    let Some(bench) = Bench::new() else { return };
    for code in [1, 3, 2, 4, 63, -1, i32::MAX] {
        let expected = match code {
            1 | 3 => refused("not today"),
            code => HookError::Fault { code },
        };
        let (save, reload) = (format!("-DSAVE_CODE={code}"), format!("-DRELOAD_CODE={code}"));
        let instance = bench.start("stateful", &[&save, &reload]);
        assert_eq!(instance.save_state().unwrap_err(), expected);
        assert_eq!(instance.reload("1.0.0", b"").unwrap_err(), expected);
    }
}

/// Releases a hook that hangs.
fn open(fifo: &Path) {
    drop(File::options().write(true).open(fifo).unwrap());
}

#[test]
fn a_state_hook_that_hangs_holds_up_shutdown_and_not_health() {
    let Some(bench) = Bench::new() else { return };
    let fifo = bench.fifo();
    let hang = format!("-DHANG_FIFO=\"{}\"", fifo.display());
    for hook in ["-DSAVE_HANG", "-DRELOAD_HANG"] {
        let instance = bench.start("stateful", &["-DTELLS", hook, &hang]);
        let state = b"COUNT\x02\0\0\0\0\0\0\0";
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| match hook {
                "-DSAVE_HANG" => instance.save_state().map(drop),
                _ => instance.reload("1.0.0", state),
            });
            // Health is refused by the plugin itself, and only while the hook is inside.
            while instance.health().is_ok() {
                std::thread::yield_now();
            }
            let ending = scope.spawn(|| instance.shutdown());
            while !matches!(call(&instance, 7, b"").0, CallStatus::Fault(_)) {
                std::thread::yield_now();
            }
            assert!(!hanging.is_finished() && !ending.is_finished());
            open(&fifo);
            assert_eq!(hanging.join().unwrap(), Ok(()));
            assert_eq!(ending.join().unwrap(), Ok(()), "no other hook was under way");
        });
        assert_eq!(instance.health(), Err(refused("the instance was shut down")));
    }
}

#[test]
fn state_hooks_of_one_instance_take_turns() {
    let Some(bench) = Bench::new() else { return };
    let instance = bench.start("stateful", &["-DTELLS"]);
    let state = instance.save_state().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    assert_eq!(instance.save_state(), Ok(state.clone()));
                }
            });
            scope.spawn(|| {
                for _ in 0..2_000 {
                    assert_eq!(instance.reload("1.0.0", &state), Ok(()));
                }
            });
        }
    });
    instance.shutdown().unwrap();
}

#[test]
fn an_image_counts_its_file_and_its_writable_segments() {
    let Some(bench) = Bench::new() else { return };
    const PAGE: u64 = 4_096;
    let mut private = 0;
    for flags in [&[][..], &["-DPADDING=100000"]] {
        let built = bench.build("counter", flags);
        let evidence = bench.map(&built).unwrap().evidence().clone();
        let expected = writable(&bench.dir.path().join("plugin.so"), PAGE);
        let file = evidence.bytes.next_multiple_of(PAGE);
        assert_eq!(evidence.resident_bytes, file + expected);
        assert!(expected >= PAGE && (private == 0 || private == expected), "padding is read-only");
        private = expected;
    }
}

/// What the writable segments take, by the system's own tool: not by what is under test.
fn writable(library: &Path, page: u64) -> u64 {
    let output = Command::new("readelf").arg("-lW").arg(library).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap();
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.first() == Some(&"LOAD") && fields.get(6) == Some(&"RW"))
        .map(|fields| (hex(fields[2]) % page + hex(fields[5])).next_multiple_of(page))
        .sum()
}

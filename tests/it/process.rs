//! The process tier: what a plugin in a worker can do, what becomes of it when it does more, and who notices.

use std::time::{Duration, Instant};

use themis_kernel::call::CallError;
use themis_kernel::config::FailureRules;
use themis_kernel::event::LifecycleEvent;
use themis_kernel::ids::Tier;
use themis_kernel::lifecycle::LoadError;
use themis_kernel::sandbox::{Activity, Layer, Require, SandboxError, Verdict};
use themis_kernel::{Config, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

/// Short enough to wait for, long enough that no healthy hook or call misses it.
const DEADLINE: Duration = Duration::from_millis(800);

/// Workers by default; restarts without a wait.
fn config(site: &Site) -> Config {
    let mut config = site.config(&[]);
    config.default_tier = Tier::Process;
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

fn verdict(error: CallError) -> Verdict {
    match error {
        CallError::Ended { verdict, .. } => (*verdict).clone(),
        other => panic!("{other}"),
    }
}

/// Until an event of this kind.
fn wait_for<T>(
    events: &mut themis_kernel::Events,
    pick: impl Fn(LifecycleEvent) -> Option<T>,
) -> T {
    loop {
        let event = events.next_blocking().unwrap().expect("the kernel runs");
        if let Some(picked) = pick(event.what) {
            return picked;
        }
    }
}

fn restarted(event: LifecycleEvent) -> Option<()> {
    use themis_kernel::lifecycle::Operation;
    matches!(event, LifecycleEvent::Serves { receipt } if receipt.operation == Operation::Restart)
        .then_some(())
}

#[test]
fn a_plugin_answers_from_its_worker_and_its_information_says_how_it_is_confined() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_eq!(counter.call("echo", b"hello").unwrap().bytes, b"hello");
    let info = counter.info();
    assert_eq!(info.tier, Some(Tier::Process));
    let isolation = info.isolation.unwrap();
    for layer in [Layer::Seccomp, Layer::Unprivileged] {
        assert!(isolation.layers.has(layer), "{isolation:?}");
    }
    let usage = info.usage.unwrap();
    assert_eq!((usage.request_bytes, usage.reply_bytes), (5, 10));
    assert!(usage.memory_bytes.is_some_and(|bytes| bytes > 0), "{usage:?}");
    kernel.unload_blocking("counter").unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn messages_of_any_size_arrive_whole() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let mut config = config(&site);
    config.call_deadline = Duration::from_secs(30);
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
fn what_a_worker_does_to_itself_is_its_callers_error_and_the_next_call_works() {
    type Expected = fn(&Verdict) -> bool;
    let ends: [(&str, Expected); 3] = [
        ("-DEXIT", |it| *it == Verdict::UnexpectedExit { code: 7 }),
        ("-DCRASH", |it| matches!(it, Verdict::Crash { signal: 11, address: Some(0) })),
        ("-DABORT", |it| matches!(it, Verdict::Crash { signal: 6, .. })),
    ];
    for (flag, expected) in ends {
        let site = Site::new();
        let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0").flag(flag));
        let kernel = start(&site);
        let plugin = load(&kernel, &path);
        let mut events = kernel.subscribe();
        let found = verdict(plugin.call(1, b"").unwrap_err());
        assert!(expected(&found), "{flag}: {found:?}");
        let told = wait_for(&mut events, |event| match event {
            LifecycleEvent::WorkerEnded { verdict, .. } => Some(verdict),
            _ => None,
        });
        assert_eq!(told, found);
        wait_for(&mut events, restarted);
        assert_eq!(plugin.call(2, b"").unwrap().bytes, b"1.0.0", "{flag}");
        kernel.shutdown_blocking();
    }
}

#[test]
fn a_call_that_does_not_end_is_ended_at_its_deadline() {
    let site = Site::new();
    let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0").flag("-DCALL_HANG"));
    let kernel = start(&site);
    let plugin = load(&kernel, &path);
    let started = Instant::now();
    let found = verdict(plugin.call(2, b"").unwrap_err());
    assert_eq!(found, Verdict::Deadline { what: Activity::Call, limit: DEADLINE });
    assert!(started.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", started.elapsed());
    kernel.shutdown_blocking();
}

#[test]
fn a_hook_that_does_not_end_is_ended_logged_and_on_record() {
    let hangs = [("-DINIT_HANG", Activity::Init), ("-DHEALTH_HANG", Activity::Health)];
    for (flag, what) in hangs {
        let site = Site::new();
        let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0").flag(flag));
        let kernel = start(&site);
        let error = kernel.loader().load_blocking(&path, None).unwrap_err();
        assert_eq!(
            error.code(),
            if what == Activity::Init { "sandbox.deadline" } else { "probe.health" }
        );
        assert!(error.to_string().contains(&format!("{what} did not end within")), "{error}");
        let records = kernel.audit_records_blocking(0, 100).unwrap();
        let failed = records.iter().find(|it| it.code.as_deref() == Some(error.code()));
        assert!(failed.is_some(), "{records:?}");
        kernel.shutdown_blocking();
    }
}

#[test]
fn a_shutdown_that_does_not_end_holds_nobody_up_past_its_deadline() {
    let site = Site::new();
    let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0").flag("-DSHUTDOWN_HANG"));
    let kernel = start(&site);
    load(&kernel, &path);
    let started = Instant::now();
    kernel.unload_blocking("rude").unwrap();
    assert!(started.elapsed() < 2 * DEADLINE, "{:?}", started.elapsed());
    let records = kernel.audit_records_blocking(0, 100).unwrap();
    assert!(records.iter().any(|it| it.code.as_deref() == Some("shutdown.failed")), "{records:?}");
    kernel.shutdown_blocking();
}

#[test]
fn a_version_that_crashes_on_probation_is_swapped_back_at_once() {
    let site = Site::new();
    let good = site.add(&Fixture::c("counter.c", "plugin", "1.0.0"));
    let bad = site.add(&Fixture::c("rude.c", "plugin", "1.1.0").flag("-DCRASH"));
    let mut config = config(&site);
    config.probation.window = Duration::from_secs(60);
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = load(&kernel, &good);
    kernel.reloads().reload_module_blocking("plugin", bad).unwrap();
    verdict(plugin.call(1, b"").unwrap_err());
    let receipt = kernel.reloads().settled_blocking("plugin").unwrap().unwrap();
    assert_eq!(receipt.to.to_string(), "1.0.0");
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.0");
    kernel.shutdown_blocking();
}

#[test]
fn full_isolation_that_cannot_be_had_is_refused_by_name() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let mut config = config(&site);
    let name: themis_kernel::ids::PluginName = "counter".parse().unwrap();
    config.plugins.entry(name).or_default().require = Require::Full;
    let kernel = Kernel::start_blocking(config).unwrap();
    match kernel.loader().load_blocking(&path, None) {
        Ok(_) => println!("skipped: this machine confines workers fully"),
        Err(LoadError::Sandbox { error: SandboxError::Isolation { missing, .. }, .. }) => {
            assert!(!missing.is_empty());
        }
        Err(other) => panic!("{other}"),
    }
    kernel.shutdown_blocking();
}

#[test]
fn a_kernel_without_a_worker_program_says_so_and_runs_on() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let mut config = config(&site);
    config.workers.program = themis_kernel::config::Program::Own;
    let kernel = Kernel::start_blocking(config).unwrap();
    let error = kernel.loader().load_blocking(&path, None).unwrap_err();
    assert_eq!(error.code(), "sandbox.no_program");
    kernel.shutdown_blocking();
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn is_there(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// Looks until it is so; the test runner ends what never comes.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_that_is_killed_is_started_again() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    let mut events = kernel.subscribe();
    let worker = counter.info().isolation.unwrap().pid;
    kill(worker.try_into().unwrap());
    let told = wait_for(&mut events, |event| match event {
        LifecycleEvent::WorkerEnded { verdict, .. } => Some(verdict),
        _ => None,
    });
    assert_eq!(told, Verdict::ExternalKill { signal: 9 });
    wait_for(&mut events, restarted);
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_ne!(counter.info().isolation.unwrap().pid, worker);
    kernel.shutdown_blocking();
}

#[test]
fn a_spawner_that_is_killed_takes_no_worker_along_and_another_comes() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let other = site.add(&Fixture::c("counter.c", "other", "1.0.0"));
    let mut config = config(&site);
    config.workers.pool = 0;
    let kernel = Kernel::start_blocking(config).unwrap();
    let counter = load(&kernel, &path);
    let spawners = themis_tests::children("--themis-role=spawner");
    assert_eq!(spawners.len(), 1);
    kill(spawners[0]);
    until(|| !is_there(spawners[0].unsigned_abs()));
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    let other = load(&kernel, &other);
    assert_eq!(other.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_ne!(themis_tests::children("--themis-role=spawner"), spawners);
    kernel.shutdown_blocking();
}

fn send(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// As after a debugger, a suspended machine, or seconds of swapping.
#[test]
fn a_spawner_that_does_not_answer_is_replaced_and_takes_no_worker_along() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let other = site.add(&Fixture::c("counter.c", "other", "1.0.0"));
    let mut config = config(&site);
    config.workers.pool = 0;
    let kernel = Kernel::start_blocking(config).unwrap();
    let counter = load(&kernel, &path);
    let before = counter.info().isolation.unwrap().pid;
    let spawner = themis_tests::children("--themis-role=spawner")[0];
    send(spawner, rustix::process::Signal::STOP);
    let other = load(&kernel, &other);
    assert_eq!(other.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_eq!(counter.info().isolation.unwrap().pid, before);
    until(|| !is_there(spawner.unsigned_abs()));
    kernel.shutdown_blocking();
    until(|| themis_tests::children("--themis-role").is_empty());
}

/// The host goes at whatever moment of a start: each scene ends somewhere else in it.
#[test]
fn nothing_is_left_of_a_host_that_is_killed_while_it_starts_workers() {
    let test = "process::nothing_is_left_of_a_host_that_is_killed_while_it_starts_workers";
    for round in 0..12_u64 {
        let site = Site::new();
        std::fs::write(site.path().join("round"), round.to_string()).unwrap();
        themis_tests::in_killed_process(test, site.path(), |dir| {
            let site = Site::new();
            let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
            let kernel = start(&site);
            load(&kernel, &path);
            let round: u64 = std::fs::read_to_string(dir.join("round")).unwrap().parse().unwrap();
            std::thread::spawn(move || {
                loop {
                    kernel.unload_blocking("counter").unwrap();
                    load(&kernel, &path);
                }
            });
            // A moment that differs by round, and by what the machine does besides.
            let until = Instant::now() + Duration::from_micros(997 * round);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        });
        until(|| orphans().is_empty());
    }
}

/// Workers and spawners whose host is gone.
fn orphans() -> Vec<u32> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|it| it.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let parent = read("stat")
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1).and_then(|it| it.parse::<i32>().ok()));
        if parent == Some(1) && read("cmdline").contains("--themis-role") && is_there(pid) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn nothing_is_left_of_a_host_that_is_killed() {
    let site = Site::new();
    let (test, dir) = ("process::nothing_is_left_of_a_host_that_is_killed", site.path());
    themis_tests::in_killed_process(test, dir, |dir| {
        let site = Site::new();
        let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0").flag("-DTHREADS=2"));
        let kernel = start(&site);
        let plugin = load(&kernel, &path);
        assert_eq!(plugin.call(2, b"").unwrap().bytes, b"1.0.0");
        let mut pids = themis_tests::children("--themis-role");
        pids.push(plugin.info().isolation.unwrap().pid.try_into().unwrap());
        std::fs::write(dir.join("pids"), format!("{pids:?}")).unwrap();
    });
    let pids = std::fs::read_to_string(dir.join("pids")).unwrap();
    let pids = pids.trim_matches(['[', ']']).split(", ").map(|pid| pid.parse::<u32>().unwrap());
    for pid in pids {
        until(|| !is_there(pid));
    }
}

/// All slots are taken by calls that are slow, and none that is too slow: others wait, some in vain, and nobody is killed
/// for it.
#[test]
fn callers_that_queue_are_no_reason_to_end_anything() {
    let site = Site::new();
    let fixture = Fixture::c("hostile.c", "hostile", "1.0.0").flag("-DPARALLEL");
    let path = site.add(&fixture);
    let neighbour = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let mut config = config(&site);
    config.workers.calls = 2;
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = load(&kernel, &path);
    let before = plugin.info().isolation.unwrap().pid;
    let slow = u32::try_from(DEADLINE.as_millis() * 7 / 10).unwrap().to_le_bytes();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| plugin.call(6400, &slow).map(|it| it.bytes))).collect();
        callers.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let answered = outcomes.iter().filter(|it| it.is_ok()).count();
    let busy = outcomes.iter().filter(|it| matches!(it, Err(CallError::Busy { .. }))).count();
    assert_eq!(answered + busy, outcomes.len(), "{outcomes:?}");
    assert!(answered >= 2 && busy >= 1, "{answered} answered, {busy} turned away");
    assert_eq!(plugin.info().isolation.unwrap().pid, before);
    let neighbour = load(&kernel, &neighbour);
    assert_eq!(neighbour.call("version", b"").unwrap().bytes, b"1.0.0");
    // The same without threads.
    one_thread().block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            calls.spawn(async move { plugin.call_async(6400_u32, slow.to_vec()).await });
        }
        let outcomes = calls.join_all().await;
        let busy = outcomes.iter().filter(|it| matches!(it, Err(CallError::Busy { .. }))).count();
        let answered = outcomes.iter().filter(|it| it.is_ok()).count();
        assert_eq!(answered + busy, outcomes.len(), "{outcomes:?}");
        assert!(answered >= 2 && busy >= 1, "{answered} answered, {busy} turned away");
    });
    kernel.shutdown_blocking();
}

/// Its end comes while another operation is under way, which then fails: nobody asks after its health, and it is started
/// again all the same.
#[test]
fn a_worker_that_ends_during_a_reload_that_fails_is_started_again() {
    let site = Site::new();
    let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0"));
    let hangs = site.add(&Fixture::c("rude.c", "rude", "2.0.0").flag("-DINIT_HANG"));
    let mut config = config(&site);
    config.health_period = Duration::ZERO;
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = load(&kernel, &path);
    let mut events = kernel.subscribe();
    let worker = plugin.info().isolation.unwrap().pid;
    let failed = std::thread::scope(|scope| {
        let reload =
            scope.spawn(|| kernel.reloads().reload_module_blocking("rude", &hangs).unwrap_err());
        // The reload is at its candidate's init once there is another worker.
        until(|| themis_tests::children("--themis-role=worker").len() > 1);
        kill(worker.try_into().unwrap());
        reload.join().unwrap()
    });
    assert_eq!(failed.code(), "sandbox.deadline");
    wait_for(&mut events, restarted);
    assert_eq!(plugin.call(2, b"").unwrap().bytes, b"1.0.0");
    kernel.shutdown_blocking();
}

/// An answer that is there before its caller slept has written an event that nobody waits for.
#[test]
fn quick_answers_are_no_flood() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    let before = counter.info().isolation.unwrap().pid;
    one_thread().block_on(async {
        for _ in 0..30_000 {
            counter.call_async("echo", b"quick".to_vec()).await.unwrap();
        }
    });
    assert_eq!(counter.info().isolation.unwrap().pid, before);
    kernel.shutdown_blocking();
}

#[test]
fn the_pool_is_filled_before_anybody_asks_and_gone_with_the_kernel() {
    let site = Site::new();
    let mut config = config(&site);
    config.workers.pool = 3;
    let kernel = Kernel::start_blocking(config).unwrap();
    until(|| themis_tests::children("--themis-role=worker").len() == 3);
    kernel.shutdown_blocking();
    assert_eq!(
        themis_tests::children("--themis-role"),
        [] as [i32; 0],
        "the kernel has waited for them"
    );
}

#[test]
fn an_unloaded_plugin_leaves_no_process() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let mut config = config(&site);
    config.workers.pool = 0;
    let kernel = Kernel::start_blocking(config).unwrap();
    for _ in 0..20 {
        load(&kernel, &path);
        kernel.reloads().reload_module_blocking("counter", &path).unwrap();
        kernel.unload_blocking("counter").unwrap();
    }
    until(|| themis_tests::children("--themis-role=worker").is_empty());
    kernel.shutdown_blocking();
    until(|| themis_tests::children("--themis-role").is_empty());
}

/// Half a second at most from the last page it touched to the error: the operator's promise to whoever calls.
#[test]
fn a_plugin_that_eats_memory_is_killed_and_its_caller_told() {
    for took in themis_tests::cap_to_error(256 << 20, 1) {
        println!("{took:?} from the last page to the error");
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn many_calls_are_under_way_on_one_thread() {
    for flag in ["-DSAFE", "-DNOT_THREAD_SAFE"] {
        let site = Site::new();
        let path = site.add(&Fixture::c("stateful.c", "stateful", "1.0.0").flag(flag));
        let mut config = config(&site);
        config.call_deadline = Duration::from_secs(60);
        let kernel = Kernel::start_blocking(config).unwrap();
        let plugin = load(&kernel, &path);
        one_thread().block_on(async {
            let calls = (0..500_u32).map(|number| async move {
                let request = number.to_le_bytes().to_vec();
                let answer = plugin.call_async("echo", request.clone()).await.unwrap();
                assert_eq!(answer.bytes, request);
            });
            let mut set = tokio::task::JoinSet::new();
            calls.for_each(|call| drop(set.spawn(call)));
            while let Some(ended) = set.join_next().await {
                ended.unwrap();
            }
        });
        assert_eq!(plugin.call("echo", b"and then").unwrap().bytes, b"and then", "{flag}");
        kernel.shutdown_blocking();
    }
}

/// Whoever gives up on a call leaves it to the worker: the seat is free again when it is over, not before.
#[test]
fn a_call_that_nobody_waits_for_any_more_ends_all_the_same() {
    let site = Site::new();
    let path = site.add(&Fixture::c("rude.c", "rude", "1.0.0").flag("-DLIAR"));
    let mut config = config(&site);
    config.workers.calls = 1;
    config.call_deadline = Duration::from_secs(60);
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = load(&kernel, &path);
    one_thread().block_on(async {
        for _ in 0..50 {
            let mut call = Box::pin(plugin.call_async(3_u32, Vec::new()));
            // Begun, and given up.
            let begun = std::future::poll_fn(|context| {
                std::task::Poll::Ready(call.as_mut().poll(context).is_pending())
            });
            assert!(begun.await);
            drop(call);
            // Method 3 says whether two were inside at once.
            assert_eq!(plugin.call_async(3_u32, Vec::new()).await.unwrap().bytes, [0]);
        }
    });
    kernel.unload_blocking("rude").unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn calls_that_no_thread_waits_for_have_their_deadline_and_their_verdict() {
    let site = Site::new();
    let hanging = site.add(&Fixture::c("rude.c", "hanging", "1.0.0").flag("-DCALL_HANG"));
    let crashing = site.add(&Fixture::c("rude.c", "crashing", "1.0.0").flag("-DCRASH"));
    let kernel = start(&site);
    let (hanging, crashing) = (load(&kernel, &hanging), load(&kernel, &crashing));
    one_thread().block_on(async {
        let found = verdict(hanging.call_async(2_u32, Vec::new()).await.unwrap_err());
        assert_eq!(found, Verdict::Deadline { what: Activity::Call, limit: DEADLINE });
        let found = verdict(crashing.call_async(1_u32, Vec::new()).await.unwrap_err());
        assert!(matches!(found, Verdict::Crash { signal: 11, .. }), "{found:?}");
    });
    kernel.shutdown_blocking();
}

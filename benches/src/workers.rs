//! Worker processes: what a call to one costs, what one costs to make, and how long its end takes to be told.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::Table;
use serde::Serialize;
use themis_kernel::admission::{self, AdmittedPlugin, PluginRoot};
use themis_kernel::config::WorkersConfig;
use themis_kernel::ids::Tier;
use themis_kernel::lifecycle::LoadRequest;
use themis_kernel::sandbox::Limits;
use themis_kernel::{Config, Kernel, PluginRef, PluginSandbox};
use themis_tests::{Fixture, Site};

use crate::report::{Row, Times, time};

const CALLS: usize = 20_000;
const CREATED: usize = 60;
const KILLED: usize = 20;
const HANG_DEADLINE: Duration = Duration::from_millis(50);
/// As the kernel waits: so many looks before sleeping.
const LOOKS: u32 = 2_000;

fn config(site: &Site) -> Config {
    let mut config = site.config(&[]);
    config.default_tier = Tier::Process;
    config.probation.window = Duration::ZERO;
    config.failures.wait_first = Duration::from_millis(1);
    config.failures.wait_longest = Duration::from_millis(1);
    config.failures.intensity.restarts = 1_000_000;
    config
}

fn start(site: &Site, fixture: &Fixture, config: Config) -> (Kernel, PluginRef) {
    let path = site.add(fixture);
    let kernel = Kernel::start_blocking(config).expect("starts");
    let plugin = kernel.loader().load_blocking(&path, None).expect("loads");
    (kernel, plugin)
}

fn counter() -> Fixture {
    Fixture::c("counter.c", "counter", "1.0.0")
}

/// Two processes that wait for each other through shared memory, as bare as it gets.
struct PingPong {
    _dir: tempfile::TempDir,
    program: PathBuf,
}

impl PingPong {
    fn build() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("ping_pong");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ping_pong.c");
        let built = Command::new("cc").arg("-O2").arg("-o").args([&program, &source]).status();
        assert!(built.expect("a C compiler is there").success(), "it compiles");
        Self { _dir: dir, program }
    }

    /// So many round trips; each side looks so often before it sleeps.
    fn play(&self, rounds: usize, looks: u32) -> Times {
        let arguments = [rounds.to_string(), looks.to_string()];
        times_told_by(Command::new(&self.program).args(arguments))
    }
}

/// Of a program that prints the nanoseconds of each round trip.
pub(crate) fn times_told_by(command: &mut Command) -> Times {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).expect("numbers");
    let mut times = Times::new();
    for nanos in told.lines() {
        times.add(Duration::from_nanos(nanos.parse().expect("a number")), 1);
    }
    times
}

/// What the kernel is compared with, in a workspace of its own.
pub(crate) fn peers() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("the running program has a path");
    let built = own.ancestors().skip(1).map(|dir| dir.join("peers/debug/themis-peers"));
    built.take(3).find(|path| path.is_file())
}

/// A call beside what it would be over gRPC, whose workspace `make bench` builds; `None` where that is not there.
pub(crate) fn call_beside_grpc() -> Option<Row> {
    let Some(peers) = peers() else {
        eprintln!("skipped: gRPC, which only `make bench` builds");
        return None;
    };
    let bare = times_told_by(Command::new(peers).args(["grpc", &CALLS.to_string()]));
    let (ours, _) = calls_beside(LOOKS);
    let (p50_ns, baseline_ns) = (ours.p50(), bare.p50());
    Some(Row {
        what: "process-tier call, 64 bytes echoed, beside gRPC",
        must: "-",
        goal: ">= 10x faster",
        p50_ns,
        p99_ns: ours.p99(),
        baseline: "tonic, unary, bytes, unix socket, one caller",
        baseline_ns,
        must_held: true,
        goal_met: p50_ns * 10 <= baseline_ns,
    })
}

/// A round trip of 64 bytes, beside a bare one: both look before they sleep.
pub(crate) fn call() -> Row {
    let (ours, bare) = calls_beside(LOOKS);
    let (p50_ns, baseline_ns) = (ours.p50(), bare.p50());
    Row {
        what: "process-tier call, 64 bytes echoed, adaptive",
        must: "-",
        goal: "<= 1.3x a bare ping-pong, <= 1 us with a spare core",
        p50_ns,
        p99_ns: ours.p99(),
        baseline: "two futex words, two processes, looking before sleeping",
        baseline_ns,
        must_held: true,
        goal_met: p50_ns * 10 <= baseline_ns * 13 && p50_ns <= 1_000,
    }
}

/// As [`call`] on one core, where looking would only keep the other side from answering: both sleep at once.
pub(crate) fn call_on_one_core() -> Row {
    const PINNED: &str = "THEMIS_BENCH_PINNED";
    if std::env::var_os(PINNED).is_some() {
        let (ours, bare) = calls_beside(0);
        return row_on_one_core(ours.p50(), ours.p99(), bare.p50());
    }
    // How many cores there are is asked once in a process.
    let own = std::env::current_exe().expect("the running program has a path");
    let mut again = Command::new("taskset");
    again.args(["-c", "0"]).arg(own).args(["--only", "worker one core", "--json"]).env(PINNED, "1");
    let output = again.output().expect("taskset runs");
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let number = |name: &str| measured["rows"][0][name].as_u64().unwrap_or(0);
    row_on_one_core(number("p50_ns"), number("p99_ns"), number("baseline_ns"))
}

fn row_on_one_core(p50_ns: u64, p99_ns: u64, baseline_ns: u64) -> Row {
    Row {
        what: "process-tier call, 64 bytes echoed, blocking, one core",
        must: "-",
        goal: "<= 1.3x a bare ping-pong",
        p50_ns,
        p99_ns,
        baseline: "two futex words, two processes, sleeping at once",
        baseline_ns,
        must_held: true,
        goal_met: p50_ns * 10 <= baseline_ns * 13,
    }
}

fn calls_beside(looks: u32) -> (Times, Times) {
    let site = Site::new();
    let (kernel, plugin) = start(&site, &counter(), config(&site));
    let request = [7_u8; 64];
    let mut reply = Vec::with_capacity(64);
    let (mut ours, mut bare) = (Times::new(), Times::new());
    let ping_pong = PingPong::build();
    for _ in 0..10 {
        ours.merge(&Times::of(CALLS / 10, || {
            reply.clear();
            black_box(plugin.call_into(2, black_box(&request), &mut reply)).expect("answers");
        }));
        bare.merge(&ping_pong.play(CALLS / 10, looks));
    }
    kernel.shutdown_blocking();
    (ours, bare)
}

fn admitted(site: &Site, fixture: &Fixture) -> AdmittedPlugin {
    let path = site.add(fixture);
    let root = PluginRoot::open(&site.root()).expect("a root");
    let policy = config(site).policy();
    let scratch = site.path().join("var/images");
    let now = themis_tests::now();
    admission::admit(&root, &LoadRequest::at(path), &policy, now, &scratch).expect("admitted")
}

fn sandboxes(site: &Site, pool: usize) -> PluginSandbox {
    let program = config(site).workers.program;
    PluginSandbox::start(&WorkersConfig { program, pool, calls: 4 }).expect("starts")
}

/// Starting a program and waiting for its end: what any process costs.
fn bare_process() -> Times {
    Times::of(CREATED, || {
        let ended = Command::new("/bin/true").status().expect("it runs");
        assert!(ended.success());
    })
}

fn creation(what: &'static str, goal: &'static str, pool: usize, bound: u64) -> Row {
    let site = Site::new();
    let plugin = admitted(&site, &counter());
    let sandboxes = sandboxes(&site, pool);
    let id = plugin.manifest.name.clone();
    // The spawner is there, and so is the pool.
    drop(sandboxes.create_sandbox(&id, Limits::default()).expect("a sandbox"));
    let mut ours = Times::new();
    for _ in 0..CREATED {
        assert!(sandboxes.wait_for_pool(Duration::from_secs(10)), "the pool fills");
        let started = Instant::now();
        let sandbox = sandboxes.create_sandbox(&id, Limits::default()).expect("a sandbox");
        let plugin = sandbox.load(&plugin, "{}").expect("loads");
        ours.add(started.elapsed(), 1);
        assert_eq!(plugin.call(2, b"x").expect("answers"), b"x");
    }
    let baseline_ns = bare_process().p50();
    Row {
        what,
        must: "<= 50 ms",
        goal,
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "starting /bin/true and waiting for its end",
        baseline_ns,
        must_held: ours.p50() <= 50_000_000,
        goal_met: ours.p50() <= bound,
    }
}

/// A ready worker: the plugin mapped, both filters, init.
pub(crate) fn warm() -> Row {
    creation("sandbox with its plugin initialised, warm", "<= 1 ms", 2, 1_000_000)
}

/// No worker is ready.
pub(crate) fn cold() -> Row {
    creation("sandbox with its plugin initialised, cold", "<= 5 ms", 0, 5_000_000)
}

/// From the last page a plugin touched to its caller's error.
pub(crate) fn memory_cap() -> Row {
    let mut ours = Times::new();
    for took in themis_tests::cap_to_error(256 << 20, KILLED) {
        ours.add(took, 1);
    }
    Row {
        what: "memory cap of 256 MiB exceeded, to the caller's error",
        must: "<= 500 ms",
        goal: "<= 50 ms",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "a look at the worker's memory every 10 ms",
        baseline_ns: 10_000_000,
        must_held: ours.p99() <= 500_000_000,
        goal_met: ours.p50() <= 50_000_000,
    }
}

/// From the deadline of a call that hangs to its caller's error.
pub(crate) fn deadline() -> Row {
    let site = Site::new();
    let mut config = config(&site);
    config.call_deadline = HANG_DEADLINE;
    let fixture = Fixture::c("rude.c", "rude", "1.0.0").flag("-DCALL_HANG");
    let (kernel, plugin) = start(&site, &fixture, config);
    let mut ours = Times::new();
    while ours.count() < KILLED as u64 {
        let generation = plugin.info().generation;
        let started = Instant::now();
        plugin.call(2, b"").expect_err("it hangs");
        ours.add(started.elapsed().saturating_sub(HANG_DEADLINE), 1);
        // Another instance serves before the next.
        while plugin.info().generation == generation {
            thread::yield_now();
        }
    }
    kernel.shutdown_blocking();
    Row {
        what: "call killed at its deadline, to the caller's error",
        must: "<= 500 ms",
        goal: "<= 50 ms",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "the deadline itself",
        baseline_ns: u64::try_from(HANG_DEADLINE.as_nanos()).unwrap_or(u64::MAX),
        must_held: ours.p99() <= 500_000_000,
        goal_met: ours.p50() <= 50_000_000,
    }
}

/// Calls a second by callers at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Callers {
    callers: usize,
    calls_per_second: u64,
    p50_ns: u64,
    p99_ns: u64,
}

pub(crate) fn callers() -> Vec<Callers> {
    let site = Site::new();
    let (kernel, plugin) = start(&site, &counter(), config(&site));
    let measured = callers_of(plugin);
    kernel.shutdown_blocking();
    measured
}

/// So many threads that call one plugin.
pub(crate) fn callers_of(plugin: PluginRef) -> Vec<Callers> {
    let measured = [1, 2, 4, 8].map(|callers| {
        let started = Instant::now();
        let mut times = Times::new();
        thread::scope(|scope| {
            let calling: Vec<_> = (0..callers)
                .map(|_| {
                    scope.spawn(|| {
                        Times::of(CALLS, || {
                            black_box(plugin.call(2, black_box(&[7_u8; 64]))).expect("answers");
                        })
                    })
                })
                .collect();
            for caller in calling {
                times.merge(&caller.join().expect("a caller"));
            }
        });
        let calls = (callers * CALLS) as u128;
        let rate = calls * 1_000_000_000 / started.elapsed().as_nanos().max(1);
        Callers {
            callers,
            calls_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            p50_ns: times.p50(),
            p99_ns: times.p99(),
        }
    });
    measured.to_vec()
}

pub(crate) fn callers_table(what: &str, rows: &[Callers]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([what, "calls/s", "p50", "p99"]);
    for row in rows {
        table.add_row([
            row.callers.to_string(),
            row.calls_per_second.to_string(),
            time(row.p50_ns),
            time(row.p99_ns),
        ]);
    }
    table
}

/// Sandboxes made, used and ended, and what was left of them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cycles {
    cycles: usize,
    each_ns: u64,
    descriptors_grew: i64,
    memory_grew_kib: i64,
}

pub(crate) fn cycles(count: usize) -> Cycles {
    let site = Site::new();
    let plugin = admitted(&site, &counter());
    let sandboxes = sandboxes(&site, 0);
    let id = plugin.manifest.name.clone();
    let cycle = || {
        let sandbox = sandboxes.create_sandbox(&id, Limits::default()).expect("a sandbox");
        let plugin = sandbox.load(&plugin, "{}").expect("loads");
        plugin.call(2, b"x").expect("answers");
        plugin.shutdown().expect("ends");
    };
    let settle = || {
        while !themis_tests::children("--themis-role=worker").is_empty() {
            thread::yield_now();
        }
    };
    // What is allocated once is allocated by now.
    (0..50).for_each(|_| cycle());
    settle();
    let before = (descriptors(), resident_kib());
    let started = Instant::now();
    (0..count).for_each(|_| cycle());
    let each = started.elapsed() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    settle();
    let after = (descriptors(), resident_kib());
    Cycles {
        cycles: count,
        each_ns: u64::try_from(each.as_nanos()).unwrap_or(u64::MAX),
        descriptors_grew: after.0 - before.0,
        memory_grew_kib: after.1 - before.1,
    }
}

fn descriptors() -> i64 {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    i64::try_from(open).unwrap_or(i64::MAX)
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

pub(crate) fn cycles_table(row: &Cycles) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "sandboxes made, called and ended",
        "each",
        "descriptors left",
        "memory left",
    ]);
    table.add_row([
        row.cycles.to_string(),
        time(row.each_ns),
        row.descriptors_grew.to_string(),
        format!("{} KiB", row.memory_grew_kib),
    ]);
    table
}

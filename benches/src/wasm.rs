//! Wasm plugins: what a call costs beside the bare engine and beside Extism, what loading one costs, and a further instance.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use themis_kernel::admission::{self, AdmittedPlugin, PluginRoot};
use themis_kernel::ids::Tier;
use themis_kernel::lifecycle::LoadRequest;
use themis_kernel::{Config, Kernel, PluginRef};
use themis_sandbox::native::HostServices;
use themis_sandbox::wasm::{Options, Wasm, WasmImage, WasmLimits};
use themis_tests::{Fixture, Site, built_guest};
use wasmtime::{
    Caller, Config as EngineConfig, Engine, InstanceAllocationStrategy, InstancePre, Linker,
    Memory, Module, PoolingAllocationConfig, Store, TypedFunc,
};

use crate::report::{Row, Times};
use crate::workers::{Callers, callers_of};

const BATCHES: usize = 2_000;
const BATCH: u32 = 500;
const LOADS: usize = 20;
const INSTANCES: usize = 500;

fn config(site: &Site) -> Config {
    let mut config = site.config(&[]);
    config.default_tier = Tier::Wasm;
    config.probation.window = Duration::ZERO;
    config
}

fn counter() -> Fixture {
    Fixture::c("counter.c", "counter", "1.0.0").with_wasm()
}

fn start(site: &Site) -> (Kernel, PluginRef, Vec<u8>) {
    let path = site.add(&counter());
    let kernel = Kernel::start_blocking(config(site)).expect("starts");
    let plugin = kernel.loader().load_blocking(&path, None).expect("loads");
    let module = std::fs::read(site.root().join(&path).join("counter.wasm")).expect("a module");
    (kernel, plugin, module)
}

/// The engine as the kernel sets it up, and what a guest of these benches imports.
fn engine() -> (Engine, Linker<Vec<u8>>) {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(16).total_memories(16).total_tables(16).max_memory_size(64 << 20);
    let mut config = EngineConfig::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool)).memory_init_cow(true);
    let engine = Engine::new(&config).expect("an engine");
    let mut linker = Linker::new(&engine);
    let reply = |mut caller: Caller<'_, Vec<u8>>, start: u32, len: u32| {
        let memory = caller.get_export("memory").and_then(|it| it.into_memory());
        let memory = memory.ok_or_else(|| wasmtime::Error::msg("no memory"))?;
        let (memory, reply) = memory.data_and_store_mut(&mut caller);
        let end = start as usize + len as usize;
        let chunk = memory.get(start as usize..end);
        reply.extend_from_slice(chunk.ok_or_else(|| wasmtime::Error::msg("outside"))?);
        wasmtime::Result::Ok(())
    };
    linker.func_wrap("themis", "reply", reply).expect("links");
    linker.func_wrap("themis", "log", |_: i32, _: i32, _: i32| {}).expect("links");
    (engine, linker)
}

/// The same module on the bare engine: alloc, copy in, call, reply, copy out.
struct Bare {
    store: Store<Vec<u8>>,
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    call: TypedFunc<(i32, i32, i32), i32>,
}

impl Bare {
    fn new(module: &InstancePre<Vec<u8>>) -> Self {
        let mut store = Store::new(module.module().engine(), Vec::new());
        let instance = module.instantiate(&mut store).expect("instantiates");
        let init = instance.get_typed_func::<(i32, i32), i32>(&mut store, "themis_init");
        init.expect("exported").call(&mut store, (0, 0)).expect("starts");
        Self {
            memory: instance.get_memory(&mut store, "memory").expect("exported"),
            alloc: instance.get_typed_func(&mut store, "themis_alloc").expect("exported"),
            call: instance.get_typed_func(&mut store, "themis_call").expect("exported"),
            store,
        }
    }

    fn call(&mut self, method: i32, request: &[u8], reply: &mut Vec<u8>) {
        self.store.data_mut().clear();
        let len = i32::try_from(request.len()).expect("short");
        let at = self.alloc.call(&mut self.store, len).expect("room");
        self.memory.write(&mut self.store, at as usize, request).expect("room");
        let code = self.call.call(&mut self.store, (method, at, len)).expect("answers");
        assert_eq!(code, 0);
        reply.extend_from_slice(self.store.data());
    }
}

fn call_of(bytes: usize, what: &'static str) -> Row {
    let site = Site::new();
    let (kernel, plugin, module) = start(&site);
    let (engine, linker) = engine();
    let module = Module::new(&engine, module).expect("compiles");
    let mut bare = Bare::new(&linker.instantiate_pre(&module).expect("links"));
    let request = vec![7_u8; bytes];
    let mut reply = Vec::with_capacity(bytes);
    let (mut ours, mut baseline) = (Times::new(), Times::new());
    for _ in 0..20 {
        ours.merge(&Times::of_batches(BATCHES / 20, BATCH, || {
            reply.clear();
            black_box(plugin.call_into(2, black_box(&request), &mut reply)).expect("answers");
        }));
        baseline.merge(&Times::of_batches(BATCHES / 20, BATCH, || {
            reply.clear();
            bare.call(2, black_box(&request), &mut reply);
        }));
    }
    kernel.shutdown_blocking();
    let (p50_ns, baseline_ns) = (ours.p50(), baseline.p50());
    Row {
        what,
        must: "-",
        goal: "<= 1.5x bare wasmtime",
        p50_ns,
        p99_ns: ours.p99(),
        baseline: "wasmtime, the same module unmetered: alloc, call, reply",
        baseline_ns,
        must_held: true,
        goal_met: p50_ns * 2 <= baseline_ns * 3,
    }
}

pub(crate) fn call() -> Row {
    call_of(64, "wasm call, 64 bytes echoed")
}

pub(crate) fn call_of_a_page() -> Row {
    call_of(4_096, "wasm call, 4 KiB echoed")
}

/// The same beside Extism, whose program `make bench` builds; nothing where that is not there.
pub(crate) fn calls_beside_extism() -> Vec<Row> {
    let Some(peers) = crate::workers::peers() else {
        eprintln!("skipped: Extism, which only `make bench` builds");
        return Vec::new();
    };
    let rows = [
        (64, "wasm call, 64 bytes echoed, beside Extism"),
        (4_096, "wasm call, 4 KiB echoed, beside Extism"),
    ];
    let row = |(bytes, what): (usize, &'static str)| {
        let (batches, batch) = (BATCHES.to_string(), BATCH.to_string());
        let arguments = ["extism", &bytes.to_string(), &batches, &batch];
        let theirs = crate::workers::times_told_by(Command::new(&peers).args(arguments));
        let ours = call_of(bytes, what);
        let baseline_ns = theirs.p50();
        let goal_met = ours.p50_ns < baseline_ns;
        Row { goal: "faster", baseline: "Extism, the same echo", baseline_ns, goal_met, ..ours }
    };
    rows.map(row).into()
}

/// Threads that call one pooled plugin.
pub(crate) fn callers() -> Vec<Callers> {
    let site = Site::new();
    let (kernel, plugin, _) = start(&site);
    let measured = callers_of(plugin);
    kernel.shutdown_blocking();
    measured
}

fn geo(site: &Site) -> PathBuf {
    let module = std::fs::read(built_guest("geo_1_0")).expect("`make guests` was done");
    let methods = serde_json::json!([{"name": "distance_km", "id": 1}]);
    site.add(&Fixture::module(module, "geo", "1.0.0").with("methods", methods)).into()
}

/// Loads once in a kernel of its own, which finds in its data directory what an earlier one left.
fn load_once(site: &Site, path: &Path) -> Duration {
    let kernel = Kernel::start_blocking(config(site)).expect("starts");
    // The engine is there, as for every module but a host's first.
    let other = site.add(&Fixture::c("counter.c", "warm", "1.0.0").with_wasm());
    kernel.loader().load_blocking(other, None).expect("loads");
    let started = Instant::now();
    kernel.loader().load_blocking(path, None).expect("loads");
    let took = started.elapsed();
    kernel.shutdown_blocking();
    took
}

fn loads(what: &'static str, goal: &'static str, bound: u64, forgets: bool) -> Row {
    let site = Site::new();
    let path = geo(&site);
    let module = site.root().join(&path).join("geo.wasm");
    let mut ours = Times::new();
    load_once(&site, &path);
    for _ in 0..LOADS {
        if forgets {
            std::fs::remove_dir_all(site.path().join("var/compiled")).expect("it is there");
        }
        ours.add(load_once(&site, &path), 1);
    }
    let bytes = std::fs::read(&module).expect("a module");
    let (engine, _) = engine();
    let compile = || drop(black_box(Module::new(&engine, &bytes).expect("compiles")));
    let baseline = Times::of(LOADS, compile);
    Row {
        what,
        must: "-",
        goal,
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "wasmtime compiling the module as it is",
        baseline_ns: baseline.p50(),
        must_held: true,
        goal_met: ours.p50() <= bound,
    }
}

/// Verified, metered, compiled, instantiated, initialised, on record.
pub(crate) fn load() -> Row {
    loads(
        "load of a wasm module of 110 KB: verify, meter, compile, init",
        "<= 200 ms",
        200_000_000,
        true,
    )
}

/// As [`load`], with what an earlier start has compiled.
pub(crate) fn load_cached() -> Row {
    loads("the same, compiled by an earlier start", "<= 10 ms", 10_000_000, false)
}

fn admitted(site: &Site, path: &str) -> AdmittedPlugin {
    let root = PluginRoot::open(&site.root()).expect("a root");
    let (policy, scratch) = (config(site).policy(), site.path().join("var/images"));
    let now = themis_tests::now();
    admission::admit(&root, &LoadRequest::at(path), &policy, now, &scratch).expect("admitted")
}

fn image(site: &Site, path: &str) -> Arc<WasmImage> {
    let plugin = admitted(site, path);
    let engine = Wasm::start(&Options { memory_bytes_max: 64 << 20, cache: None });
    let services = HostServices {
        plugin: plugin.manifest.name.clone(),
        capabilities: Vec::new(),
        log: Arc::new(|_, _| {}),
        counter: Arc::new(|_, _| {}),
        data: Arc::clone(&plugin.data),
    };
    let limits = WasmLimits {
        memory_bytes: 64 << 20,
        fuel_per_call: None,
        fuel_total: None,
        call_deadline: Duration::from_secs(30),
        hook_deadline: Duration::from_secs(5),
    };
    engine.expect("an engine").map(&plugin, services, limits).expect("compiles")
}

/// A further instance of a module that is compiled, initialised, and its end.
pub(crate) fn instantiate() -> Row {
    let site = Site::new();
    let path = site.add(&counter());
    let image = image(&site, &path);
    let module = std::fs::read(site.root().join(&path).join("counter.wasm")).expect("a module");
    let (engine, linker) = engine();
    let module = Module::new(&engine, module).expect("compiles");
    let bare = linker.instantiate_pre(&module).expect("links");
    let (mut ours, mut baseline) = (Times::new(), Times::new());
    for _ in 0..10 {
        ours.merge(&Times::of(INSTANCES / 10, || {
            black_box(image.init(b"{}").expect("starts"));
        }));
        baseline.merge(&Times::of(INSTANCES / 10, || {
            black_box(Bare::new(&bare));
        }));
    }
    let (p50_ns, baseline_ns) = (ours.p50(), baseline.p50());
    Row {
        what: "a further instance of a wasm plugin, initialised, and its end",
        must: "-",
        goal: "<= 2x bare wasmtime",
        p50_ns,
        p99_ns: ours.p99(),
        baseline: "wasmtime, the same module unmetered",
        baseline_ns,
        must_held: true,
        goal_met: p50_ns <= 2 * baseline_ns,
    }
}

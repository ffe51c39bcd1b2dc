//! What metering costs: ten kernels, each as it is, metered, and as the engine's own meters have it.
//!
//! All variants run in one process, in turn, many short rounds, so that what disturbs the machine for a while disturbs both
//! sides of a ratio; and each kernel with its code at several places, because the same loop is up to a fifth slower or
//! faster elsewhere. What is told is the geometric mean over the places of the rounds' lower quartiles.

use std::process::Command;
use std::time::{Duration, Instant};

use comfy_table::Table;
use serde::Serialize;
use themis_sandbox::wasm::meter::{
    FUEL_EXPORT, Options, REFILL_FIELD, REFILL_MODULE, Tank, instrument, unroll_without_meter,
};
use wasmtime::{
    Caller, Config, Engine, Global, InstanceAllocationStrategy, Linker, Module, OptLevel,
    PoolingAllocationConfig, Store, TypedFunc, Val,
};

/// Name, the argument that makes it run for a millisecond, and whether its time is spent in loops.
const KERNELS: [(&str, i32, bool); 10] = [
    ("xorshift", 1000, true),
    ("sum", 3000, true),
    ("memory", 500, true),
    ("fibonacci", 25, false),
    ("matrix", 8, true),
    ("sieve", 10, true),
    ("sha256", 3, true),
    ("nbody", 100, true),
    ("sort", 2, true),
    ("utf8", 10, true),
];
/// As the kernel hands it out.
const SLICE: u64 = 1 << 20;
/// Rounds at each place.
const ROUNDS: usize = 25;
/// At how many places each kernel's code is put.
const PLACES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    AsIs,
    Metered,
    NotUnrolled,
    UnrolledOnly,
    Fuel,
    Epochs,
}

const VARIANTS: [(&str, Variant); 6] = [
    ("as it is", Variant::AsIs),
    ("metered", Variant::Metered),
    ("metered, not unrolled", Variant::NotUnrolled),
    ("unrolled, not metered", Variant::UnrolledOnly),
    ("wasmtime fuel", Variant::Fuel),
    ("wasmtime epochs", Variant::Epochs),
];

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Kernels {
    rows: Vec<Kernel>,
    /// Of all, and of those that are loops.
    means: [Vec<f64>; 2],
    sizes: Vec<Size>,
}

/// One kernel: its time as it is, and the ratios of all variants to that.
#[derive(Debug, Serialize)]
struct Kernel {
    name: &'static str,
    micros: f64,
    ratios: Vec<f64>,
}

/// What a variant adds to the code, and how long that takes.
#[derive(Debug, Serialize)]
struct Size {
    variant: &'static str,
    wasm_bytes: usize,
    pass_micros: u128,
    compile_micros: u128,
    code_bytes: usize,
}

struct Run {
    store: Store<Tank>,
    kernel: TypedFunc<i32, i64>,
    fuel: Option<Global>,
    /// Seconds, by round.
    times: Vec<f64>,
}

/// The engine as the kernel sets it up.
fn engine(variant: Variant) -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(4).total_memories(4).total_tables(4).max_memory_size(64 << 20);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .consume_fuel(variant == Variant::Fuel)
        .epoch_interruption(variant == Variant::Epochs)
        .wasm_branch_hinting(true);
    Engine::new(&config).expect("an engine")
}

/// The module as a variant has it compiled.
fn rewritten(variant: Variant, wasm: &[u8]) -> Vec<u8> {
    let options = Options::default();
    let done = match variant {
        Variant::AsIs | Variant::Fuel | Variant::Epochs => return wasm.to_vec(),
        Variant::Metered => instrument(wasm, &options),
        Variant::NotUnrolled => instrument(wasm, &Options { unroll: 1, ..options }),
        Variant::UnrolledOnly => unroll_without_meter(wasm, &options),
    };
    done.expect("an accepted module").module
}

impl Run {
    fn new(variant: Variant, wasm: &[u8], kernel: &str) -> Self {
        let engine = engine(variant);
        let module = Module::new(&engine, rewritten(variant, wasm)).expect("compiles");
        let mut store = Store::new(&engine, Tank::new(Tank::UNITS_MAX, SLICE));
        if variant == Variant::Fuel {
            store.set_fuel(u64::MAX).expect("switched on");
        }
        if variant == Variant::Epochs {
            store.set_epoch_deadline(u64::MAX >> 1);
        }
        let mut linker = Linker::new(&engine);
        let refill = |mut caller: Caller<'_, Tank>, left: i64| {
            caller.data_mut().refill(left).map_err(wasmtime::Error::new)
        };
        linker.func_wrap(REFILL_MODULE, REFILL_FIELD, refill).expect("links");
        let instance = linker.instantiate(&mut store, &module).expect("instantiates");
        let kernel = instance.get_typed_func(&mut store, &format!("run_{kernel}"));
        let fuel = instance.get_global(&mut store, FUEL_EXPORT);
        Self { kernel: kernel.expect("exported"), store, fuel, times: Vec::new() }
    }

    fn round(&mut self, argument: i32) -> i64 {
        *self.store.data_mut() = Tank::new(Tank::UNITS_MAX, SLICE);
        if let Some(fuel) = self.fuel {
            fuel.set(&mut self.store, Val::I64(0)).expect("it is an i64");
        }
        let start = Instant::now();
        let result = self.kernel.call(&mut self.store, argument).expect("returns");
        self.times.push(start.elapsed().as_secs_f64());
        result
    }
}

/// The lower quartile: what disturbs a round only makes it slower.
fn quartile(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 4]
}

fn geometric_mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "ten at most")]
    let count = numbers.len() as f64;
    (numbers.map(f64::ln).sum::<f64>() / count).exp()
}

/// The kernels, their code moved by some bytes.
fn compiled(place: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("kernels.wasm");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels.c");
    let status = Command::new("clang")
        .args(["--target=wasm32", "-O2", "-mbulk-memory", "-nostdlib", "-Wl,--no-entry"])
        .arg(format!("-DSHIFT={place}"))
        .args([source.as_ref(), "-o".as_ref(), output.as_os_str()])
        .status();
    assert!(status.expect("clang is there").success(), "it compiles");
    std::fs::read(&output).expect("a module")
}

/// Runs all variants of a kernel in turn; seconds by variant.
fn times(wasm: &[u8], name: &str, argument: i32) -> Vec<f64> {
    let mut runs: Vec<_> = VARIANTS.iter().map(|(_, it)| Run::new(*it, wasm, name)).collect();
    for round in 0..ROUNDS {
        let mut results = Vec::new();
        for place in 0..runs.len() {
            // One later each round, and every other round backwards: none always follows the same one.
            let place = if round % 2 == 0 { place } else { runs.len() - 1 - place };
            let variant = (place + round / 2) % VARIANTS.len();
            results.push(runs[variant].round(argument));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {results:?}");
    }
    runs.into_iter().map(|run| quartile(run.times)).collect()
}

fn kernel(places: &[Vec<u8>], name: &'static str, argument: i32) -> Kernel {
    let measured: Vec<_> = places.iter().map(|wasm| times(wasm, name, argument)).collect();
    let mean = |variant: usize| geometric_mean(measured.iter().map(|times| times[variant]));
    let base = mean(0);
    let ratios = (0..VARIANTS.len()).map(|variant| mean(variant) / base).collect();
    Kernel { name, micros: base * 1e6, ratios }
}

pub(crate) fn measure() -> Kernels {
    let places: Vec<_> = (0..PLACES).map(compiled).collect();
    let rows: Vec<_> =
        KERNELS.iter().map(|(name, argument, _)| kernel(&places, name, *argument)).collect();
    let mean = |rows: Vec<&Kernel>| -> Vec<f64> {
        let of = |at: usize| geometric_mean(rows.iter().map(|row| row.ratios[at]));
        (0..VARIANTS.len()).map(of).collect()
    };
    let loops = KERNELS.iter().zip(&rows).filter(|((_, _, is_loop), _)| *is_loop);
    let means = [mean(rows.iter().collect()), mean(loops.map(|(_, row)| row).collect())];
    let size = |(name, variant): &(&'static str, _)| size(name, *variant, &places[0]);
    Kernels { rows, means, sizes: VARIANTS.iter().map(size).collect() }
}

/// Fastest of twenty.
fn fastest<T>(work: impl Fn() -> T) -> (Duration, T) {
    let mut best = None;
    for _ in 0..20 {
        let start = Instant::now();
        let done = work();
        let took = start.elapsed();
        if best.as_ref().is_none_or(|(least, _)| took < *least) {
            best = Some((took, done));
        }
    }
    best.expect("done at least once")
}

fn size(variant: &'static str, kind: Variant, wasm: &[u8]) -> Size {
    let engine = engine(kind);
    let (pass, module) = fastest(|| rewritten(kind, wasm));
    let (compiling, code_bytes) = fastest(|| {
        let range = Module::new(&engine, &module).expect("compiles").image_range();
        range.end as usize - range.start as usize
    });
    Size {
        variant,
        wasm_bytes: module.len(),
        pass_micros: if module == wasm { 0 } else { pass.as_micros() },
        compile_micros: compiling.as_micros(),
        code_bytes,
    }
}

/// Ratios to the module as it is.
pub(crate) fn table(kernels: &Kernels) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    let variants = VARIANTS[1..].iter().map(|(name, _)| (*name).to_owned());
    table.set_header(["kernel".to_owned(), "as it is, µs".to_owned()].into_iter().chain(variants));
    let cells =
        |ratios: &[f64]| ratios[1..].iter().map(|it| format!("{it:.3}")).collect::<Vec<_>>();
    for row in &kernels.rows {
        let first = [row.name.to_owned(), format!("{:.0}", row.micros)];
        table.add_row(first.into_iter().chain(cells(&row.ratios)));
    }
    for (what, mean) in ["geometric mean", "geometric mean of loops"].iter().zip(&kernels.means) {
        let first = [(*what).to_owned(), String::new()];
        table.add_row(first.into_iter().chain(cells(mean)));
    }
    table
}

/// What the variants add to the code.
pub(crate) fn sizes_table(kernels: &Kernels) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "variant",
        "wasm, bytes",
        "pass, µs",
        "compiling, µs",
        "machine code, bytes",
    ]);
    for size in &kernels.sizes {
        table.add_row([
            size.variant.to_owned(),
            size.wasm_bytes.to_string(),
            size.pass_micros.to_string(),
            size.compile_micros.to_string(),
            size.code_bytes.to_string(),
        ]);
    }
    table
}

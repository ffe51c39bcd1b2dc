//! Generated modules, by wasm-smith and by [`programs`], run as they are, metered, and counted instruction by instruction.
//!
//! wasmtime's own fuel guards every run, so that a meter which lets something run for ever fails a test and not the machine.

use crate::wasm::meter::{FUEL_EXPORT, Options, instrument};
use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use wasmtime::{Engine, ExternType, Module, Ref, Trap, Val};

use super::counting;
use super::host::{self, Outcome, PLENTY, State};
use super::naive::{SPENT_EXPORT, naive};
use super::programs::program;

/// What a module as it is may use of wasmtime's fuel. If it needs more, its results are not compared.
const GUARD: u64 = 200_000;
/// At most so many instructions of the metered module for one of the module as it is.
const OVERHEAD: u64 = 40;
/// A budget for modules that need more than the guard.
const BUDGET: u64 = 300_000;
const ALL: [Options; 4] = [
    Options { unroll: 1, growth_percent: 0 },
    Options { unroll: 2, growth_percent: u8::MAX },
    Options { unroll: 4, growth_percent: u8::MAX },
    Options { unroll: 8, growth_percent: u8::MAX },
];

/// One call: what came of it, and what was spent then since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    outcome: Outcome,
    spent: u64,
}

/// All calls until one ran out of fuel, and what they left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trace {
    calls: Vec<Call>,
    left_behind: Vec<String>,
}

impl Trace {
    fn outcomes(&self) -> Vec<&Outcome> {
        self.calls.iter().map(|call| &call.outcome).collect()
    }

    fn any(&self, is: impl Fn(&Outcome) -> bool) -> bool {
        self.calls.iter().any(|call| is(&call.outcome))
    }

    /// Whether the engine itself stopped it: out of its fuel, or of its stack, whose frames are of different sizes.
    fn is_stopped_by_engine(&self) -> bool {
        let stops = [Trap::OutOfFuel.to_string(), Trap::StackOverflow.to_string()];
        self.any(|outcome| matches!(outcome, Outcome::Trapped(text) if stops.contains(text)))
    }

    fn is_exhausted(&self) -> bool {
        self.any(|outcome| *outcome == Outcome::Exhausted)
    }

    /// Per call that returned, what it spent.
    fn bills(&self) -> Vec<Option<u64>> {
        let before = std::iter::once(0).chain(self.calls.iter().map(|call| call.spent));
        let bill = |(call, before): (&Call, u64)| {
            matches!(call.outcome, Outcome::Values(_)).then(|| call.spent - before)
        };
        self.calls.iter().zip(before).map(bill).collect()
    }
}

fn engine() -> Engine {
    Engine::new(host::config().consume_fuel(true)).expect("a configuration wasmtime accepts")
}

fn spent(store: &mut wasmtime::Store<State>, instance: &wasmtime::Instance) -> (u64, bool) {
    if let Some(count) = instance.get_global(&mut *store, SPENT_EXPORT) {
        return (count.get(&mut *store).unwrap_i64().unsigned_abs(), false);
    }
    if instance.get_global(&mut *store, FUEL_EXPORT).is_none() {
        return (0, false);
    }
    let left = host::left(store, instance);
    match store.data().tank.spent(left) {
        Ok(spent) => (spent, false),
        Err(exhausted) => (exhausted.spent, true),
    }
}

/// Runs all exported functions of a module in order, with a guard, a budget and slices.
fn run(engine: &Engine, module: &Module, guard: u64, (budget, slice): (u64, u64)) -> Trace {
    let mut trace = Trace { calls: vec![], left_behind: vec![] };
    let mut store = host::store(engine, budget, slice);
    store.set_fuel(guard).expect("an engine with fuel");
    let mut linker = host::linker(engine);
    linker.define_unknown_imports_as_default_values(&mut store, module).expect("default values");
    let instance = match linker.instantiate(&mut store, module) {
        Ok(instance) => instance,
        Err(error) => {
            let outcome = host::failure(&error);
            trace.calls.push(Call { name: "start".to_owned(), outcome, spent: 0 });
            return trace;
        }
    };
    let (after, _) = spent(&mut store, &instance);
    let outcome = Outcome::Values(vec![]);
    trace.calls.push(Call { name: "start".to_owned(), outcome, spent: after });
    for export in module.exports() {
        let ExternType::Func(ty) = export.ty() else { continue };
        for round in 0..2 {
            let mut arguments: Vec<_> = ty.params().map(|ty| host::argument(&ty)).collect();
            if let (1, Some(Val::I32(first))) = (round, arguments.first_mut()) {
                *first = 77;
            }
            let outcome = host::call(&mut store, &instance, export.name(), &arguments);
            let (spent, exhausted) = spent(&mut store, &instance);
            let outcome = if exhausted { Outcome::Exhausted } else { outcome };
            trace.calls.push(Call { name: export.name().to_owned(), outcome, spent });
            if trace.is_exhausted() || trace.is_stopped_by_engine() {
                return trace;
            }
        }
    }
    trace.left_behind = left_behind(&mut store, &instance, module);
    trace
}

fn is_meters(name: &str) -> bool {
    name == FUEL_EXPORT || name == SPENT_EXPORT
}

/// Exports, globals, tables and memories as the calls left them.
fn left_behind(
    store: &mut wasmtime::Store<State>,
    instance: &wasmtime::Instance,
    module: &Module,
) -> Vec<String> {
    let mut lines = vec![];
    for export in module.exports().filter(|export| !is_meters(export.name())) {
        let name = export.name();
        if let Some(global) = instance.get_global(&mut *store, name) {
            let value = global.get(&mut *store);
            lines.push(format!("{name}: {}", host::show(&mut *store, &value)));
        } else if let Some(memory) = instance.get_memory(&mut *store, name) {
            let data = memory.data(&*store);
            let sum = data.iter().fold(1_u64, |sum, byte| {
                sum.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(*byte))
            });
            lines.push(format!("{name}: {} bytes, sum {sum:x}", data.len()));
        } else if let Some(table) = instance.get_table(&mut *store, name) {
            let size = table.size(&*store);
            let is_null = |at| table.get(&mut *store, at).is_none_or(|value: Ref| value.is_null());
            let nulls = (0..size).map(is_null).filter(|null| *null).count();
            lines.push(format!("{name}: {size} elements, {nulls} null"));
        } else {
            lines.push(format!("{name}: function"));
        }
    }
    lines
}

/// How often what was seen, so that a test can tell that it tested something.
#[derive(Debug, Default)]
struct Seen {
    compared: usize,
    values: usize,
    traps: usize,
    exhausted: usize,
    unrolled: usize,
    /// Too long or too deep for the engine as they are: only their end is tested.
    stopped: usize,
}

/// Holds a module against every promise of the meter.
fn examine(engine: &Engine, wasm: &[u8], shown: &str, seen: &mut Seen) {
    let plain = Module::new(engine, wasm).expect("a valid module");
    let plain = run(engine, &plain, GUARD, (0, 1));
    let counted = Module::new(engine, naive(wasm)).expect("a valid module");
    let counted = run(engine, &counted, GUARD * OVERHEAD, (0, 1));
    let stopped = plain.is_stopped_by_engine() || counted.is_stopped_by_engine();
    seen.stopped += usize::from(stopped);
    for options in ALL {
        let metered = instrument(wasm, &options).expect("an accepted module");
        seen.unrolled += metered.unrolled;
        let again = instrument(wasm, &options).expect("an accepted module");
        assert_eq!(metered.module, again.module, "the same module is metered the same:\n{shown}");
        let module = Module::new(engine, &metered.module).expect("a valid metered module");
        if stopped {
            ends(engine, &module, BUDGET, shown);
            continue;
        }
        let full = run(engine, &module, GUARD * OVERHEAD, (PLENTY, PLENTY));
        if full.is_stopped_by_engine() {
            // Its frames are larger: what the module as it is just managed may not fit.
            assert!(
                !full.any(|outcome| *outcome == Outcome::Trapped(Trap::OutOfFuel.to_string())),
                "{shown}"
            );
            continue;
        }
        assert_eq!(full.outcomes(), plain.outcomes(), "{options:?}:\n{shown}");
        assert_eq!(full.left_behind, plain.left_behind, "{options:?}:\n{shown}");
        assert_eq!(full.bills(), counted.bills(), "exact, {options:?}:\n{shown}");
        same_however_sliced(engine, &module, &full, shown);
        with_little_fuel(engine, &module, &full, shown, seen);
        seen.compared += 1;
    }
    seen.values += plain.bills().iter().flatten().count();
    seen.traps += usize::from(plain.any(|outcome| matches!(outcome, Outcome::Trapped(_))));
}

fn same_however_sliced(engine: &Engine, module: &Module, full: &Trace, shown: &str) {
    for slice in [1, 7, 1000, PLENTY] {
        let sliced = run(engine, module, GUARD * OVERHEAD, (PLENTY, slice));
        assert_eq!(&sliced, full, "slices of {slice}:\n{shown}");
    }
}

/// A run with any budget is the beginning of the full run, and ends within its fuel.
fn with_little_fuel(engine: &Engine, module: &Module, full: &Trace, shown: &str, seen: &mut Seen) {
    let all = full.calls.last().map_or(0, |call| call.spent);
    for budget in [0, 1, 10, 100, all / 3, all / 2] {
        let little = ends(engine, module, budget, shown);
        seen.exhausted += usize::from(little.is_exhausted());
        let same = little.calls.iter().zip(&full.calls);
        let same = same.take_while(|(little, _)| little.outcome != Outcome::Exhausted);
        same.for_each(|(little, full)| assert_eq!(little, full, "budget {budget}:\n{shown}"));
        assert_eq!(
            little,
            run(engine, module, BUDGET * OVERHEAD, (budget, 3)),
            "{budget}:\n{shown}"
        );
    }
    if full.bills().iter().all(Option::is_some) {
        let enough = run(engine, module, GUARD * OVERHEAD, (all, 100));
        assert_eq!(&enough, full, "a budget of exactly what it needs:\n{shown}");
        if let Some(less) = all.checked_sub(1) {
            assert!(ends(engine, module, less, shown).is_exhausted(), "one less:\n{shown}");
        }
    }
}

/// Runs with a budget, slice by slice, and sees that it ends of itself.
fn ends(engine: &Engine, module: &Module, budget: u64, shown: &str) -> Trace {
    let guard = (budget + 10_000).saturating_mul(OVERHEAD);
    let trace = run(engine, module, guard, (budget, 3));
    let ran_on = |outcome: &Outcome| *outcome == Outcome::Trapped(Trap::OutOfFuel.to_string());
    assert!(!trace.any(ran_on), "it does not end with a budget of {budget}:\n{shown}");
    trace
}

/// Runs a property on `count` inputs, always the same.
fn each(count: u32, bytes: u32, mut property: impl FnMut(&mut Unstructured<'_>) -> Result<()>) {
    for number in 1..=count {
        let seed = u64::from(number.wrapping_mul(0x9E37_79B9) | 1) << 32 | u64::from(bytes);
        // Running out of input only ends that one.
        let mut once = |u: &mut Unstructured<'_>| property(u).or(Ok(()));
        arbtest(&mut once).seed(seed).run();
    }
}

fn smith() -> wasm_smith::Config {
    wasm_smith::Config {
        exceptions_enabled: false,
        gc_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        memory64_enabled: false,
        extended_const_enabled: false,
        custom_page_sizes_enabled: false,
        wide_arithmetic_enabled: false,
        export_everything: true,
        min_funcs: 2,
        max_funcs: 12,
        max_instructions: 300,
        max_imports: 5,
        max_memory32_bytes: 4 << 16,
        memory_max_size_required: true,
        max_table_elements: 1000,
        table_max_size_required: true,
        generate_custom_sections: true,
        ..wasm_smith::Config::default()
    }
}

#[test]
fn modules_of_wasm_smith_run_and_cost_the_same() {
    let engine = engine();
    let mut seen = Seen::default();
    each(400, 4096, |u| {
        let mut config = smith();
        // Half of them without traps: they get further.
        config.disallow_traps = u.arbitrary()?;
        let Ok(module) = wasm_smith::Module::new(config, u) else { return Ok(()) };
        let wasm = module.to_bytes();
        examine(&engine, &wasm, &wasmprinter::print_bytes(&wasm).unwrap_or_default(), &mut seen);
        Ok(())
    });
    println!("{seen:?}");
    assert!(seen.compared > 800 && seen.values > 500 && seen.exhausted > 1000, "{seen:?}");
}

/// Loops whose charges move: given back on the way out, moved from the head to the way back, waiting for a block to end while
/// another loop is looked at. Called with 1 and with 77.
const MOVED: [&str; 8] = [
    // Left from the top at 50, where what is charged ahead was moved, or from the middle.
    "(module (memory 1) (func (export \"f\") (param i32) (result i32) (local i32)
       (block $out (loop $l
         (br_if $out (i32.eq (local.get 1) (i32.const 50)))
         (drop (i32.add (i32.const 1) (i32.const 2)))
         (block $b
           (br_if $b (i32.ne (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (local.get 0)))
           (br $out))
         (if (i32.eqz (i32.and (local.get 1) (i32.const 7)))
           (then (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))))
         (br_if $out (i32.eq (local.get 1) (i32.const 60)))
         (drop (i32.const 1))
         (br $l)))
       (local.get 1)))",
    // The same with a check at its head.
    "(module (memory 1) (func (export \"f\") (param i32) (result i32) (local i32)
       (block $out (loop $l
         (br_if $out (i32.eq (local.get 1) (i32.const 50)))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (local.set 1 (i32.add (local.get 1) (i32.const 1)))
         (if (i32.eqz (i32.and (local.get 1) (i32.const 7)))
           (then (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))))
         (br_if $out (i32.eq (local.get 1) (i32.const 60)))
         (drop (i32.const 1))
         (br $l)))
       (local.get 1)))",
    // Left from a block after a loop in it, with much to come after the block.
    "(module (func (export \"f\") (param i32) (result i32) (local i32)
       (block $out (loop $l
         (block $b
           (br_if $b (i32.eqz (local.get 0)))
           (local.set 1 (i32.const 3))
           (loop $in (br_if $in (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))
           (br_if $out (i32.lt_s (local.tee 0 (i32.sub (local.get 0) (i32.const 10))) (i32.const 5))))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (br $l)))
       (local.get 0)))",
    // At its own pace, left at its bound with much charged ahead.
    "(module (memory 1) (func (export \"f\") (param i32) (result i32) (local i32)
       (block $out (loop $l
         (if (i32.eqz (i32.and (local.get 1) (i32.const 7)))
           (then (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))))
         (block $b
           (br_if $b (i32.ne (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (local.get 0)))
           (br $out))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.add (i32.const 1) (i32.const 2))))
         (br $l)))
       (local.get 1)))",
    // The bound moves nearer: no pace.
    "(module (memory 1) (func (export \"f\") (param i32) (result i32) (local i32 i32)
       (local.set 2 (i32.const 200))
       (loop $l
         (if (i32.eq (local.get 1) (i32.const 3))
           (then (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))
             (local.set 2 (i32.add (local.get 0) (i32.const 10)))))
         (br_if $l (i32.ne (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (local.get 2))))
       (local.get 1)))",
    // The branch back carries a value: no pace.
    "(module (memory 1) (func (export \"f\") (param i32) (result i32) (local i32)
       (i32.const 3)
       (loop $l (param i32) (result i32)
         (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))
         (i32.add (i32.const 2))
         (br_if $l (i32.ne (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (local.get 0))))))",
    // So does the branch out of a block in the loop.
    "(module (memory 1) (func (export \"f\") (param i32) (result i32) (local i32 i32)
       (block $out (loop $l
         (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))
         (local.set 2 (block $b (result i32)
           (i32.const 5)
           (br_if $b (i32.ne (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (local.get 0)))
           (br $out)))
         (br $l)))
       (i32.add (local.get 1) (local.get 2))))",
    // Returns from within blocks and loops.
    "(module (func (export \"f\") (param i32) (result i32) (local i32)
       (loop $l
         (block $b
           (br_if $b (i32.and (local.get 1) (i32.const 1)))
           (if (i32.gt_u (local.get 1) (i32.const 30)) (then (return (i32.const 5))))
           (drop (i32.const 1)))
         (local.set 1 (i32.add (local.get 1) (i32.const 1)))
         (drop (i32.add (i32.const 1) (i32.const 2)))
         (br_if $l (i32.lt_u (local.get 1) (local.get 0))))
       (local.get 1)))",
];

#[test]
fn charges_that_move_add_up() {
    let engine = engine();
    let mut seen = Seen::default();
    for wat in MOVED {
        let wasm = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}:\n{wat}"));
        examine(&engine, &wasm, wat, &mut seen);
    }
    assert_eq!((seen.compared, seen.stopped), (MOVED.len() * ALL.len(), 0), "{seen:?}");
}

#[test]
fn loops_that_count_run_and_cost_the_same() {
    let engine = engine();
    let mut seen = Seen::default();
    each(400, 1200, |u| {
        let text = counting::program(u)?;
        let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        examine(&engine, &wasm, &text, &mut seen);
        Ok(())
    });
    println!("{seen:?}");
    assert!(seen.compared > 500 && seen.values > 1000 && seen.unrolled > 5000, "{seen:?}");
}

#[test]
fn programs_with_loops_run_and_cost_the_same() {
    let engine = engine();
    let mut seen = Seen::default();
    each(400, 1500, |u| {
        let text = program(u)?;
        let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        examine(&engine, &wasm, &text, &mut seen);
        Ok(())
    });
    println!("{seen:?}");
    assert!(seen.compared > 1000 && seen.values > 2000 && seen.unrolled > 1000, "{seen:?}");
}

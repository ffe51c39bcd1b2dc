//! A host: an engine, stores with a tank, and calls that end in values or a trap.

use crate::wasm::meter::{
    ACCEPTED, FUEL_EXPORT, Options, REFILL_FIELD, REFILL_MODULE, Tank, instrument,
};
use wasmtime::{
    AsContextMut, Caller, Config, Engine, Extern, Instance, Linker, Module, Ref, Store, Trap, Val,
    WasmFeatures,
};

/// A budget nobody uses up.
pub(crate) const PLENTY: u64 = Tank::UNITS_MAX;

/// What a call came to: its values, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Values(Vec<String>),
    Trapped(String),
    Exhausted,
}

pub(crate) struct State {
    pub(crate) tank: Tank,
    pub(crate) refills: u64,
}

/// A configuration that takes what the meter takes, and is as strict as the specification about NaN, so that two ways of
/// compiling agree.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config.cranelift_nan_canonicalization(true).wasm_branch_hinting(true);
    config.wasm_features(WasmFeatures::all(), false).wasm_features(ACCEPTED, true);
    config.memory_reservation(1 << 20).memory_guard_size(0);
    config
}

/// An engine of that configuration.
pub(crate) fn engine() -> Engine {
    Engine::new(&config()).expect("a configuration wasmtime accepts")
}

pub(crate) fn store(engine: &Engine, budget: u64, slice: u64) -> Store<State> {
    Store::new(engine, State { tank: Tank::new(budget, slice), refills: 0 })
}

pub(crate) fn linker(engine: &Engine) -> Linker<State> {
    let mut linker = Linker::new(engine);
    let refill = |mut caller: Caller<'_, State>, left: i64| {
        caller.data_mut().refills += 1;
        caller.data_mut().tank.refill(left).map_err(wasmtime::Error::new)
    };
    linker.func_wrap(REFILL_MODULE, REFILL_FIELD, refill).expect("a free name");
    linker
}

/// What is left in an instance's slice.
pub(crate) fn left(store: &mut Store<State>, instance: &Instance) -> i64 {
    match instance.get_global(&mut *store, FUEL_EXPORT).map(|global| global.get(&mut *store)) {
        Some(Val::I64(left)) => left,
        other => panic!("no fuel: {other:?}"),
    }
}

/// A metered instance of a module, and what came of starting it.
pub(crate) fn start(
    engine: &Engine,
    wasm: &[u8],
    options: &Options,
    (budget, slice): (u64, u64),
) -> (Store<State>, Result<Instance, Outcome>) {
    let metered = instrument(wasm, options).expect("a module the meter accepts");
    let module = Module::new(engine, &metered.module).expect("a valid metered module");
    let mut store = store(engine, budget, slice);
    let instance = linker(engine).instantiate(&mut store, &module).map_err(|e| failure(&e));
    (store, instance)
}

/// Calls an export.
pub(crate) fn call(
    store: &mut Store<State>,
    instance: &Instance,
    name: &str,
    arguments: &[Val],
) -> Outcome {
    let Some(Extern::Func(function)) = instance.get_export(&mut *store, name) else {
        return Outcome::Trapped(format!("no function {name}"));
    };
    let ty = function.ty(&*store);
    let mut results = vec![Val::I32(0); ty.results().len()];
    match function.call(&mut *store, arguments, &mut results) {
        Ok(()) => Outcome::Values(results.iter().map(|value| show(&mut *store, value)).collect()),
        Err(error) => failure(&error),
    }
}

pub(crate) fn failure(error: &wasmtime::Error) -> Outcome {
    if error.downcast_ref::<crate::wasm::meter::Exhausted>().is_some() {
        return Outcome::Exhausted;
    }
    match error.downcast_ref::<Trap>() {
        Some(trap) => Outcome::Trapped(trap.to_string()),
        None => Outcome::Trapped(error.to_string()),
    }
}

/// A value such that equal text means equal bits. A reference to a host's thing shows the number it was made from, one to a
/// function only whether it is null: what it is called is the engine's business.
pub(crate) fn show(mut store: impl AsContextMut, value: &Val) -> String {
    match value {
        Val::FuncRef(reference) => format!("funcref null={}", reference.is_none()),
        Val::ExternRef(Some(reference)) => {
            let data = reference.data(store.as_context_mut()).expect("a live reference");
            format!("externref {:?}", data.and_then(|data| data.downcast_ref::<u32>()))
        }
        other => format!("{other:?}"),
    }
}

/// An argument of a type: one, or null.
pub(crate) fn argument(ty: &wasmtime::ValType) -> Val {
    match ty {
        wasmtime::ValType::I32 => Val::I32(1),
        wasmtime::ValType::I64 => Val::I64(1),
        wasmtime::ValType::F32 => Val::F32(1.0_f32.to_bits()),
        wasmtime::ValType::F64 => Val::F64(1.0_f64.to_bits()),
        wasmtime::ValType::V128 => Val::V128(1.into()),
        wasmtime::ValType::Ref(ty) => Ref::null(ty.heap_type()).into(),
    }
}

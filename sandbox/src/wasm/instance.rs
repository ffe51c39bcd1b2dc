//! One instance of a module: entering it, and what becomes of it when it does not come back.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the engine's traps become more: what is not named is another"
)]

use std::sync::Arc;
use std::time::Duration;

use themis_messages::sandbox::Activity;
use themis_messages::wasm::{Stop, TrapKind};
use wasmtime::{
    Global, InstancePre, Memory, Store, Trap, TypedFunc, Val, WasmBacktrace, WasmParams,
    WasmResults,
};

use super::host::{Run, State, Stopped, Total};
use super::meter::{FUEL_EXPORT, Tank};

/// Fuel handed out at once: about a millisecond of work, after which the clock is looked at.
const SLICE: u64 = 1 << 20;
/// Functions of a backtrace that are told.
const FRAMES: usize = 8;
/// Where a panic of Rust goes through.
const PANICS: [&str; 3] = ["core::panicking::", "std::panicking::", "core::option::expect_failed"];
/// Characters of a function's name that are told.
const NAME_MAX: usize = 80;

/// What a call or hook may cost.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) what: Activity,
    pub(super) limit: Duration,
    /// In units; `None` without a limit.
    pub(super) fuel: Option<u64>,
    /// What all calls draw from.
    pub(super) total: Option<Arc<Total>>,
    pub(super) reply_cap: usize,
}

impl Allowed {
    pub(super) fn run(&self) -> Run {
        self.run_with(Tank::new(self.budget(), SLICE))
    }

    fn budget(&self) -> u64 {
        self.fuel.unwrap_or(Tank::UNITS_MAX)
    }

    /// The tank of a guest that holds so much from its last call. Fuel that others wait for is never held.
    fn tank(&self, held: u64) -> Option<Tank> {
        let holds = held > 0 && self.total.is_none();
        Tank::holding(self.budget(), SLICE, held).filter(|_| holds)
    }

    fn run_with(&self, tank: Tank) -> Run {
        Run {
            tank,
            fuel: self.fuel,
            total: self.total.clone(),
            what: self.what,
            limit: self.limit,
            since: None,
        }
    }
}

/// An instance that nobody is in.
pub(super) struct Live {
    store: Store<State>,
    memory: Memory,
    fuel: Global,
    burnt: u64,
    /// Fuel that was handed to it and is not used.
    held: u64,
    alloc: TypedFunc<i32, i32>,
    call: TypedFunc<(i32, i32, i32), i32>,
    init: TypedFunc<(i32, i32), i32>,
    health: Option<TypedFunc<(), i32>>,
    save_state: Option<TypedFunc<(), i32>>,
    reload: Option<TypedFunc<(i32, i32, i32, i32), i32>>,
    shutdown: Option<TypedFunc<(), i32>>,
}

/// What came back: the guest's own code. The reply is in the instance.
pub(super) struct Returned {
    pub(super) code: i32,
    pub(super) overflowed: bool,
}

impl Live {
    /// Instantiates: the start function and `_initialize` run, metered, as part of `allowed`.
    pub(super) fn start(
        module: &InstancePre<State>,
        mut state: State,
        allowed: &Allowed,
    ) -> Result<Self, Stop> {
        state.run = allowed.run();
        let mut store = Store::new(module.module().engine(), state);
        store.limiter(|state| state);
        let instance = module.instantiate(&mut store);
        let instance = instance.map_err(|error| why(&error, store.data()))?;
        let missing = |what: &str| Stop::Instance { what: format!("it has no {what}") };
        let memory = instance.get_memory(&mut store, "memory").ok_or_else(|| missing("memory"))?;
        store.data_mut().memory = Some(memory);
        let fuel = instance.get_global(&mut store, FUEL_EXPORT).ok_or_else(|| missing("meter"))?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            let initialized = initialize.call(&mut store, ());
            initialized.map_err(|error| why(&error, store.data()))?;
        }
        fn must<P: WasmParams, R: WasmResults>(
            instance: &wasmtime::Instance,
            store: &mut Store<State>,
            name: &str,
        ) -> Result<TypedFunc<P, R>, Stop> {
            let found = instance.get_typed_func(store, name);
            found.map_err(|error| Stop::Instance { what: error.to_string() })
        }
        Ok(Self {
            alloc: must(&instance, &mut store, "themis_alloc")?,
            call: must(&instance, &mut store, "themis_call")?,
            init: must(&instance, &mut store, "themis_init")?,
            health: must(&instance, &mut store, "themis_health").ok(),
            save_state: must(&instance, &mut store, "themis_save_state").ok(),
            reload: must(&instance, &mut store, "themis_reload").ok(),
            shutdown: must(&instance, &mut store, "themis_shutdown").ok(),
            memory,
            fuel,
            burnt: 0,
            held: 0,
            store,
        })
    }

    /// Bytes of its memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.data_size(&self.store) as u64
    }

    /// What it has replied; taken by whoever asked.
    pub(super) fn reply(&mut self) -> &mut Vec<u8> {
        &mut self.store.data_mut().reply
    }

    pub(super) fn init(&mut self, config: &[u8], allowed: &Allowed) -> Result<Returned, Stop> {
        self.enter(allowed, |live| {
            let (start, len) = live.give(config)?;
            live.init.call(&mut live.store, (start, len)).map_err(|error| live.why(&error))
        })
    }

    pub(super) fn call(
        &mut self,
        method: u32,
        request: &[u8],
        allowed: &Allowed,
    ) -> Result<Returned, Stop> {
        self.enter(allowed, |live| {
            let (start, len) = live.give(request)?;
            let method = method.cast_signed();
            live.call.call(&mut live.store, (method, start, len)).map_err(|error| live.why(&error))
        })
    }

    pub(super) fn reload(
        &mut self,
        from_version: &[u8],
        state: &[u8],
        allowed: &Allowed,
    ) -> Result<Option<Returned>, Stop> {
        let Some(reload) = self.reload.clone() else { return Ok(None) };
        let returned = self.enter(allowed, |live| {
            let (version, version_len) = live.give(from_version)?;
            let (state, state_len) = live.give(state)?;
            let taken = (version, version_len, state, state_len);
            reload.call(&mut live.store, taken).map_err(|error| live.why(&error))
        });
        returned.map(Some)
    }

    pub(super) fn hook(&mut self, allowed: &Allowed) -> Result<Option<Returned>, Stop> {
        let hook = match allowed.what {
            Activity::Health => self.health.clone(),
            Activity::SaveState => self.save_state.clone(),
            Activity::Shutdown => self.shutdown.clone(),
            Activity::Setup
            | Activity::Loading
            | Activity::Init
            | Activity::Call
            | Activity::Reload => None,
        };
        let Some(hook) = hook else { return Ok(None) };
        let returned = self.enter(allowed, |live| {
            hook.call(&mut live.store, ()).map_err(|error| live.why(&error))
        });
        returned.map(Some)
    }

    /// Runs `inside` with its own fuel and time.
    fn enter(
        &mut self,
        allowed: &Allowed,
        inside: impl FnOnce(&mut Self) -> Result<i32, Stop>,
    ) -> Result<Returned, Stop> {
        let state = self.store.data_mut();
        state.reply_cap = allowed.reply_cap;
        (state.overflowed, state.refused_memory) = (false, false);
        match allowed.tank(self.held) {
            Some(tank) => state.run = allowed.run_with(tank),
            None => {
                state.run = allowed.run();
                let first = state.run.first()?;
                self.set_fuel(first)?;
            }
        }
        let code = inside(self);
        let ran_out = matches!(code, Err(Stop::FuelExhausted { .. }));
        let spent = self.spent(ran_out);
        // Of what was stopped, the last charge was not carried out.
        self.burnt = match (&code, &spent) {
            (Ok(_), Ok(spent)) => *spent,
            (Err(_), Ok(spent)) => (*spent).min(self.store.data().run.tank.granted()),
            (_, Err(_)) => self.store.data().run.tank.granted(),
        };
        let code = code?;
        spent?;
        Ok(Returned { code, overflowed: self.store.data().overflowed })
    }

    /// Fuel that whatever ran last has used.
    pub(super) const fn burnt(&self) -> u64 {
        self.burnt
    }

    /// What the guest has used since it was entered. What it was granted of the plugin's fuel and did not use goes back.
    /// One that ran out has used all of it, whatever its global says: that is only written now and then.
    fn spent(&mut self, ran_out: bool) -> Result<u64, Stop> {
        let left = if ran_out { 0 } else { self.fuel.get(&mut self.store).i64().unwrap_or(0) };
        self.held = u64::try_from(left).unwrap_or(0);
        let run = &self.store.data().run;
        let spent = run.tank.spent(left).map_err(|_exhausted| run.exhausted())?;
        if let Some(total) = &run.total {
            total.settle(run.tank.granted(), spent).map_err(|_exhausted| run.exhausted())?;
        }
        Ok(spent)
    }

    fn set_fuel(&mut self, units: i64) -> Result<(), Stop> {
        let set = self.fuel.set(&mut self.store, Val::I64(units));
        set.map_err(|error| Stop::Instance { what: error.to_string() })
    }

    /// Has the guest take a copy of `bytes`; from then on it is the guest's.
    fn give(&mut self, bytes: &[u8]) -> Result<(i32, i32), Stop> {
        if bytes.is_empty() {
            return Ok((0, 0));
        }
        let too_long =
            |_| Stop::Protocol { what: "it was given more than it can address".to_owned() };
        let len = u32::try_from(bytes.len()).map_err(too_long)?.cast_signed();
        let given = self.alloc.call(&mut self.store, len).map_err(|error| self.why(&error))?;
        let start = given.cast_unsigned() as usize;
        let (memory, state) = self.memory.data_and_store_mut(&mut self.store);
        let place = start.checked_add(bytes.len()).and_then(|end| memory.get_mut(start..end));
        match place.filter(|_| start != 0) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok((given, len))
            }
            None if state.refused_memory => Err(Stop::MemoryLimit { limit: state.memory_limit }),
            None => Err(Stop::Protocol {
                what: format!("themis_alloc gave {start} for {len} bytes, which is no room"),
            }),
        }
    }

    fn why(&self, error: &wasmtime::Error) -> Stop {
        why(error, self.store.data())
    }
}

/// What stopped the guest, in the host's words.
fn why(error: &wasmtime::Error, state: &State) -> Stop {
    if let Some(Stopped(stop)) = error.downcast_ref() {
        return stop.clone();
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if state.refused_memory {
            return Stop::MemoryLimit { limit: state.memory_limit };
        }
        let what = error.root_cause().to_string();
        return Stop::Instance { what };
    };
    // A guest that is refused memory has no other way to say that it cannot go on.
    let kind = kind(*trap);
    if state.refused_memory && kind != TrapKind::StackOverflow {
        return Stop::MemoryLimit { limit: state.memory_limit };
    }
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let named = frames.iter().map(|frame| match frame.func_name() {
        Some(name) => shown(name),
        None => format!("function {}", frame.func_index()),
    });
    let mut backtrace: Vec<String> = named.collect();
    // How a panic comes to its trap is the same every time, and the author's own function is below.
    if let Some(last) =
        backtrace.iter().rposition(|name| PANICS.iter().any(|it| name.starts_with(it)))
    {
        backtrace.drain(..=last);
    }
    backtrace.truncate(FRAMES);
    Stop::Trap { kind, backtrace }
}

/// A function's name, as its author wrote it, cut.
fn shown(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

fn kind(trap: Trap) -> TrapKind {
    match trap {
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::ArrayOutOfBounds => {
            TrapKind::OutOfBounds
        }
        Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference => TrapKind::BadCall,
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => {
            TrapKind::Arithmetic
        }
        Trap::StackOverflow => TrapKind::StackOverflow,
        _ => TrapKind::Other,
    }
}

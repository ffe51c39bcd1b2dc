//! What a guest may ask of the host: each import checks what it is given, and touches the guest's memory within its bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use themis_messages::limits::{LOG_LINE_BYTES_MAX, PATH_BYTES_MAX, WASM_TABLE_ELEMENTS_MAX};
use themis_messages::sandbox::Activity;
use themis_messages::wasm::{Fuel, Stop};
use wasmtime::{Caller, Linker, Memory, ResourceLimiter};

use super::examine::HOST_MODULE;
use super::meter::{Exhausted, REFILL_FIELD, REFILL_MODULE, Tank};
use crate::bucket::Bucket;
use crate::native::{HostServices, LogLevel, admits_counter, clean_text, counter_name};
use crate::process::origin_elapsed;

/// What belongs to one instance.
pub(super) struct State {
    pub(super) services: Arc<HostServices>,
    pub(super) lines: Arc<Lines>,
    /// Known once it is instantiated.
    pub(super) memory: Option<Memory>,
    pub(super) memory_limit: u64,
    /// Whether memory was refused since the guest was last entered.
    pub(super) refused_memory: bool,
    pub(super) run: Run,
    /// What was replied, and whether that was more than it may be.
    pub(super) reply: Vec<u8>,
    pub(super) reply_cap: usize,
    pub(super) overflowed: bool,
}

/// How much a plugin may log, all its instances together.
#[derive(Debug)]
pub(super) struct Lines {
    bucket: Mutex<Bucket>,
    /// Those that were too many.
    pub(super) dropped: AtomicU64,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { bucket: Mutex::new(Bucket::full(Instant::now())), dropped: AtomicU64::new(0) }
    }
}

/// What the guest is doing, and what that may cost.
pub(super) struct Run {
    pub(super) tank: Tank,
    /// Units it had; `None` without a limit.
    pub(super) fuel: Option<u64>,
    /// What all calls of the plugin draw from; `None` where that has no limit.
    pub(super) total: Option<Arc<Total>>,
    pub(super) what: Activity,
    pub(super) limit: Duration,
    /// Since when, as seen at its first request for fuel: short calls need no clock.
    pub(super) since: Option<Instant>,
}

/// Why the host has stopped the guest, on its way through the engine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct Stopped(pub(super) Stop);

fn stopped(stop: Stop) -> wasmtime::Error {
    wasmtime::Error::new(Stopped(stop))
}

fn protocol(what: &str) -> wasmtime::Error {
    stopped(Stop::Protocol { what: what.to_owned() })
}

/// The fuel of a plugin that has only so much of it.
#[derive(Debug)]
pub(super) struct Total {
    limit: u64,
    left: AtomicU64,
}

impl Total {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: AtomicU64::new(limit) }
    }

    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// What was granted and not spent comes back; what was spent beyond, before anybody looked, is taken.
    pub(super) fn settle(&self, granted: u64, spent: u64) -> Result<(), Exhausted> {
        let settled = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left + granted).checked_sub(spent)
        });
        settled.map(drop).map_err(|_left| {
            self.left.store(0, Ordering::Relaxed);
            Exhausted { spent }
        })
    }

    /// Grants from what is left; of calls at the same time, none sees a unit that another one has.
    fn refill(&self, tank: &mut Tank, guest: i64) -> Result<i64, Exhausted> {
        let mut left = self.left();
        loop {
            let mut filled = tank.clone();
            let grant = filled.refill_from(guest, left)?;
            let rest = left.saturating_sub(grant.unsigned_abs());
            match self.left.compare_exchange_weak(left, rest, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    *tank = filled;
                    return Ok(grant);
                }
                Err(now) => left = now,
            }
        }
    }
}

impl Run {
    /// Grants the first slice: a guest without fuel is told at its first check.
    pub(super) fn first(&mut self) -> Result<i64, Stop> {
        self.grant(0)
    }

    /// Grants the next slice, or says why there is none.
    fn refill(&mut self, left: i64) -> Result<i64, Stop> {
        self.check_time()?;
        self.grant(left)
    }

    fn grant(&mut self, left: i64) -> Result<i64, Stop> {
        let granted = match &self.total {
            Some(total) => total.refill(&mut self.tank, left),
            None => self.tank.refill(left),
        };
        granted.map_err(|_exhausted| self.exhausted())
    }

    /// Whose limit it was: the call's, unless the plugin's was in the way.
    pub(super) fn exhausted(&self) -> Stop {
        match (&self.total, self.fuel) {
            (Some(total), _) if total.left() == 0 => {
                Stop::FuelExhausted { of: Fuel::Total, limit: total.limit }
            }
            (_, limit) => Stop::FuelExhausted { of: Fuel::Call, limit: limit.unwrap_or(u64::MAX) },
        }
    }

    /// The guest has reached the host: has it taken too long?
    fn check_time(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) > self.limit {
            return Err(Stop::Deadline { what: self.what, limit: self.limit });
        }
        Ok(())
    }
}

impl State {
    /// What the host does for a guest takes time that its fuel does not count.
    fn check_time(&mut self) -> wasmtime::Result<()> {
        self.run.check_time().map_err(stopped)
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired as u64 <= self.memory_limit;
        self.refused_memory |= !granted;
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused_memory = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired as u64 <= WASM_TABLE_ELEMENTS_MAX;
        self.refused_memory |= !granted;
        Ok(granted)
    }
}

/// Everything a module can import. What it is not granted it does not import: that was examined.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(REFILL_MODULE, REFILL_FIELD, |mut caller: Caller<'_, State>, left: i64| {
        caller.data_mut().run.refill(left).map_err(stopped)
    })?;
    linker.func_wrap(HOST_MODULE, "reply", reply)?;
    linker.func_wrap(HOST_MODULE, "log", log)?;
    linker.func_wrap(HOST_MODULE, "now_ns", |mut caller: Caller<'_, State>| {
        caller.data_mut().check_time()?;
        wasmtime::Result::Ok(i64::try_from(origin_elapsed().as_nanos()).unwrap_or(i64::MAX))
    })?;
    linker.func_wrap(HOST_MODULE, "counter_add", counter_add)?;
    linker.func_wrap(HOST_MODULE, "resource_read", resource_read)?;
    Ok(())
}

/// The guest's memory, and what belongs to the instance.
fn split<'a>(caller: &'a mut Caller<'_, State>) -> wasmtime::Result<(&'a mut [u8], &'a mut State)> {
    let memory =
        caller.data().memory.ok_or_else(|| protocol("it called the host before its start"))?;
    Ok(memory.data_and_store_mut(caller))
}

/// A slice of the guest's memory. Addresses are unsigned, whatever the type of the import says.
fn part<'a>(memory: &'a [u8], start: i32, len: i32, what: &str) -> wasmtime::Result<&'a [u8]> {
    let (start, len) = (start.cast_unsigned() as usize, len.cast_unsigned() as usize);
    let end = start.checked_add(len);
    end.and_then(|end| memory.get(start..end))
        .ok_or_else(|| protocol(&format!("{what} outside of its memory")))
}

fn reply(mut caller: Caller<'_, State>, start: i32, len: i32) -> wasmtime::Result<()> {
    let (memory, state) = split(&mut caller)?;
    if !state.reply.is_empty() {
        state.check_time()?;
    }
    let chunk = part(memory, start, len, "a reply")?;
    let fits = !state.overflowed && chunk.len() <= state.reply_cap - state.reply.len();
    if fits {
        state.reply.extend_from_slice(chunk);
    }
    state.overflowed |= !fits;
    Ok(())
}

fn log(mut caller: Caller<'_, State>, level: i32, start: i32, len: i32) -> wasmtime::Result<()> {
    let (memory, state) = split(&mut caller)?;
    state.check_time()?;
    let line = part(memory, start, len, "a log line")?;
    if !state.lines.bucket.lock().take(Instant::now()) {
        state.lines.dropped.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let kept = line.len().min(LOG_LINE_BYTES_MAX);
    let text = clean_text(&line[..kept], kept < line.len());
    (state.services.log)(LogLevel::from_abi(level.cast_unsigned()), &text);
    Ok(())
}

fn counter_add(
    mut caller: Caller<'_, State>,
    start: i32,
    len: i32,
    delta: i64,
) -> wasmtime::Result<()> {
    let (memory, state) = split(&mut caller)?;
    state.check_time()?;
    let name = counter_name(part(memory, start, len, "a counter's name")?);
    if let Some(name) = name.filter(|name| admits_counter(&state.services.plugin, name)) {
        (state.services.counter)(name, delta.cast_unsigned());
    }
    Ok(())
}

fn resource_read(
    mut caller: Caller<'_, State>,
    path: i32,
    path_len: i32,
    offset: i64,
    to: i32,
    cap: i32,
) -> wasmtime::Result<i64> {
    const NO_SUCH_FILE: i64 = -1;
    let (memory, state) = split(&mut caller)?;
    state.check_time()?;
    let path = part(memory, path, path_len, "a path")?;
    let path = std::str::from_utf8(path).ok().filter(|path| path.len() <= PATH_BYTES_MAX);
    let Some(file) = path.and_then(|path| state.services.data.get(path)) else {
        return Ok(NO_SUCH_FILE);
    };
    let from = usize::try_from(offset.cast_unsigned()).unwrap_or(usize::MAX);
    let rest = file.bytes().get(from..).unwrap_or_default();
    let (to, cap) = (to.cast_unsigned() as usize, cap.cast_unsigned() as usize);
    let count = rest.len().min(cap);
    let target = to.checked_add(count).and_then(|end| memory.get_mut(to..end));
    let target =
        target.ok_or_else(|| protocol("a resource was to be read outside of its memory"))?;
    target.copy_from_slice(&rest[..count]);
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

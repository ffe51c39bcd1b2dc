//! A compiled module and its instances: what the kernel calls.
//!
//! ```text
//! pooled    idle ⇄ in a call, as many at once as are allowed; what stops is thrown away, the next call starts another
//! single    one, in turn; what stops takes its state along, and is told as the plugin's end
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use themis_messages::instance::{
    CallStatus, Concurrency, HookError, ImageEvidence, Instance, OnEnd, ReplyBuffer, StateHooks,
};
use themis_messages::limits::{
    HOOK_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, STATE_BYTES_MAX, WASM_INSTANCES_IDLE,
    WASM_INSTANCES_MAX,
};
use themis_messages::sandbox::{Activity, Usage, Verdict};
use themis_messages::wasm::Stop;
use themis_plugin::abi;
use wasmtime::InstancePre;

use super::examine::Examined;
use super::host::{Lines, State, Total};
use super::instance::{Allowed, Live, Returned};
use crate::native::{HostServices, clean_text};

/// What one plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WasmLimits {
    /// Linear memory of one instance, in bytes.
    pub memory_bytes: u64,
    /// Fuel of one call, in units; `None` without a limit.
    pub fuel_per_call: Option<u64>,
    /// Fuel of all calls until the next reload or restart, in units; `None` without a limit.
    pub fuel_total: Option<u64>,
    /// For a call.
    pub call_deadline: Duration,
    /// For a hook.
    pub hook_deadline: Duration,
}

/// A module that is compiled and may be instantiated.
pub struct WasmImage {
    pub(super) module: InstancePre<State>,
    pub(super) examined: Examined,
    pub(super) services: Arc<HostServices>,
    pub(super) limits: WasmLimits,
    pub(super) evidence: ImageEvidence,
}

impl std::fmt::Debug for WasmImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmImage").field("evidence", &self.evidence).finish_non_exhaustive()
    }
}

impl WasmImage {
    /// Starts the plugin: its first instance is made, and `themis_init` has run in it.
    ///
    /// # Errors
    /// The plugin refused, or was stopped.
    pub fn init(self: &Arc<Self>, config_json: &[u8]) -> Result<Arc<dyn Instance>, HookError> {
        let plugin = WasmPlugin {
            image: Arc::clone(self),
            config: config_json.to_vec(),
            pool: Mutex::new(Pool { idle: Vec::new(), live: 0, closed: false }),
            freed: Condvar::new(),
            ended: Mutex::default(),
            is_ended: AtomicBool::new(false),
            used: Used::new(self.limits.fuel_per_call),
            total: self.limits.fuel_total.map(|limit| Arc::new(Total::new(limit))),
            lines: Arc::new(Lines::new()),
        };
        let first = plugin.start_instance()?;
        {
            let mut pool = plugin.pool.lock();
            pool.live = 1;
            pool.idle.push(first);
        }
        Ok(Arc::new(plugin))
    }

    fn state(&self, lines: &Arc<Lines>) -> State {
        let run = self.hook(Activity::Setup, 0).run();
        State {
            services: Arc::clone(&self.services),
            lines: Arc::clone(lines),
            memory: None,
            memory_limit: self.limits.memory_bytes,
            refused_memory: false,
            run,
            reply: Vec::new(),
            reply_cap: 0,
            overflowed: false,
        }
    }

    /// Hooks have time; what they may do in it is not counted.
    fn hook(&self, what: Activity, reply_cap: usize) -> Allowed {
        Allowed { what, limit: self.limits.hook_deadline, fuel: None, total: None, reply_cap }
    }
}

struct Pool {
    idle: Vec<Live>,
    /// Idle ones and those in a call.
    live: usize,
    closed: bool,
}

#[derive(Debug)]
struct Used {
    fuel: AtomicU64,
    /// What the last call has left of its fuel.
    remaining: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    memory_peak: AtomicU64,
}

impl Used {
    fn new(fuel_per_call: Option<u64>) -> Self {
        Self {
            fuel: AtomicU64::new(0),
            remaining: AtomicU64::new(fuel_per_call.unwrap_or(u64::MAX)),
            request_bytes: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
        }
    }
}

/// How a stateful plugin ended, and who wants to know.
#[derive(Default)]
struct Ended {
    verdict: Option<Arc<Verdict>>,
    listeners: Vec<OnEnd>,
}

/// An initialised plugin: one instance, or a pool of them.
struct WasmPlugin {
    image: Arc<WasmImage>,
    config: Vec<u8>,
    pool: Mutex<Pool>,
    freed: Condvar,
    ended: Mutex<Ended>,
    is_ended: AtomicBool,
    used: Used,
    total: Option<Arc<Total>>,
    lines: Arc<Lines>,
}

impl std::fmt::Debug for WasmPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmPlugin").field("image", &self.image).finish_non_exhaustive()
    }
}

/// Why nobody was entered.
enum NoInstance {
    /// All were busy for so long.
    Busy(Duration),
    /// It has ended.
    Ended(Arc<Verdict>),
    /// Another one did not start.
    Start(HookError),
}

impl WasmPlugin {
    fn is_single(&self) -> bool {
        self.image.examined.is_single()
    }

    fn most(&self) -> usize {
        if self.is_single() { 1 } else { WASM_INSTANCES_MAX }
    }

    fn allowed(&self) -> Allowed {
        Allowed {
            what: Activity::Call,
            limit: self.image.limits.call_deadline,
            fuel: self.image.limits.fuel_per_call,
            total: self.total.clone(),
            reply_cap: MESSAGE_BYTES_MAX,
        }
    }

    fn start_instance(&self) -> Result<Live, HookError> {
        let setup = self.image.hook(Activity::Setup, 0);
        let live = Live::start(&self.image.module, self.image.state(&self.lines), &setup);
        let mut live = live.map_err(stopped)?;
        let init = self.image.hook(Activity::Init, HOOK_MESSAGE_BYTES_MAX);
        let returned = live.init(&self.config, &init).map_err(stopped)?;
        outcome(&returned, live.reply())?;
        Ok(live)
    }

    /// An instance that nobody is in: an idle one, a new one, or the next that comes back.
    fn take(&self, limit: Duration) -> Result<Live, NoInstance> {
        let until = Instant::now() + limit;
        let mut pool = self.pool.lock();
        loop {
            if let Some(verdict) = self.verdict() {
                return Err(NoInstance::Ended(verdict));
            }
            if let Some(live) = pool.idle.pop() {
                return Ok(live);
            }
            if pool.live < self.most() && !self.is_single() {
                pool.live += 1;
                drop(pool);
                return self.start_instance().map_err(|error| {
                    self.forget();
                    NoInstance::Start(error)
                });
            }
            if self.freed.wait_until(&mut pool, until).timed_out() {
                return Err(NoInstance::Busy(limit));
            }
        }
    }

    fn give_back(&self, live: Live) {
        let bytes = live.memory_bytes();
        self.used.memory_peak.fetch_max(bytes, Ordering::Relaxed);
        let mut pool = self.pool.lock();
        if pool.closed || pool.idle.len() >= WASM_INSTANCES_IDLE {
            pool.live -= 1;
        } else {
            pool.idle.push(live);
        }
        drop(pool);
        self.freed.notify_one();
    }

    /// One is gone.
    fn forget(&self) {
        self.pool.lock().live -= 1;
        self.freed.notify_one();
    }

    fn verdict(&self) -> Option<Arc<Verdict>> {
        if !self.is_ended.load(Ordering::Acquire) {
            return None;
        }
        self.ended.lock().verdict.clone()
    }

    /// An instance was stopped and is thrown away. If it was the only one, the plugin has ended.
    fn throw_away(&self, live: Live, stop: Stop) -> Arc<Verdict> {
        drop(live);
        let verdict = Arc::new(Verdict::Stopped { stop });
        if self.is_single() {
            let mut ended = self.ended.lock();
            let first = ended.verdict.is_none();
            ended.verdict.get_or_insert_with(|| Arc::clone(&verdict));
            let listeners = std::mem::take(&mut ended.listeners);
            self.is_ended.store(true, Ordering::Release);
            drop(ended);
            if first {
                listeners.into_iter().for_each(|told| told(Arc::clone(&verdict)));
            }
        }
        self.forget();
        verdict
    }

    /// Runs a hook in some instance, or the one there is.
    fn hook(
        &self,
        allowed: &Allowed,
        run: impl FnOnce(&mut Live) -> Result<Option<Returned>, Stop>,
    ) -> Result<(Returned, Vec<u8>), HookError> {
        let mut live = match self.take(allowed.limit) {
            Ok(live) => live,
            Err(NoInstance::Busy(limit)) => return Err(HookError::Deadline { limit }),
            Err(NoInstance::Ended(verdict)) => return Err(HookError::Ended { verdict }),
            Err(NoInstance::Start(error)) => return Err(error),
        };
        live.reply().clear();
        match run(&mut live) {
            Ok(Some(returned)) => {
                let bytes = std::mem::take(live.reply());
                self.give_back(live);
                Ok((returned, bytes))
            }
            Ok(None) => {
                self.give_back(live);
                Err(HookError::Missing)
            }
            Err(stop) => Err(HookError::Ended { verdict: self.throw_away(live, stop) }),
        }
    }

    /// What a call has used of its fuel.
    fn burnt(&self, fuel: u64) {
        self.used.fuel.fetch_add(fuel, Ordering::Relaxed);
        let budget = self.image.limits.fuel_per_call;
        let left = budget.map_or(u64::MAX, |budget| budget.saturating_sub(fuel));
        self.used.remaining.store(left, Ordering::Relaxed);
    }
}

impl Instance for WasmPlugin {
    fn call(&self, method: u32, request: &[u8], reply: &mut ReplyBuffer<'_>) -> CallStatus {
        if request.len() > MESSAGE_BYTES_MAX {
            return CallStatus::RequestTooLarge;
        }
        let allowed = self.allowed();
        let mut live = match self.take(allowed.limit) {
            Ok(live) => live,
            Err(NoInstance::Busy(limit)) => return CallStatus::Busy(limit),
            Err(NoInstance::Ended(verdict)) => return CallStatus::Ended(verdict),
            Err(NoInstance::Start(error)) => {
                let stop = Stop::Instance { what: error.to_string() };
                return CallStatus::Ended(Arc::new(Verdict::Stopped { stop }));
            }
        };
        live.reply().clear();
        let returned = match live.call(method, request, &allowed) {
            Ok(returned) => returned,
            Err(stop) => {
                self.burnt(live.burnt());
                return CallStatus::Ended(self.throw_away(live, stop));
            }
        };
        let written = reply.write(live.reply());
        self.burnt(live.burnt());
        self.used.request_bytes.fetch_add(request.len() as u64, Ordering::Relaxed);
        self.used.reply_bytes.fetch_add(live.reply().len() as u64, Ordering::Relaxed);
        self.give_back(live);
        match returned.code {
            _ if returned.overflowed || !written => CallStatus::ReplyTooLarge,
            abi::OK => CallStatus::Ok,
            abi::ERROR => CallStatus::PluginError,
            abi::UNKNOWN_METHOD => CallStatus::UnknownMethod,
            abi::BAD_REQUEST => CallStatus::BadRequest,
            code => CallStatus::Fault(code),
        }
    }

    fn concurrency(&self) -> Concurrency {
        if self.is_single() { Concurrency::Serial } else { Concurrency::Parallel }
    }

    fn health(&self) -> Result<(), HookError> {
        if !self.image.examined.health {
            return match self.verdict() {
                Some(verdict) => Err(HookError::Ended { verdict }),
                None => Ok(()),
            };
        }
        let allowed = self.image.hook(Activity::Health, HOOK_MESSAGE_BYTES_MAX);
        let (returned, text) = self.hook(&allowed, |live| live.hook(&allowed))?;
        outcome(&returned, &text)
    }

    fn state_hooks(&self) -> StateHooks {
        StateHooks { saves: self.image.examined.saves, takes: self.image.examined.takes }
    }

    fn save_state(&self) -> Result<Vec<u8>, HookError> {
        if !self.image.examined.saves {
            return Err(HookError::Missing);
        }
        let allowed = self.image.hook(Activity::SaveState, STATE_BYTES_MAX);
        let (returned, state) = self.hook(&allowed, |live| live.hook(&allowed))?;
        if returned.overflowed {
            return Err(HookError::TooLarge { max: STATE_BYTES_MAX });
        }
        outcome(&returned, &state)?;
        Ok(state)
    }

    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), HookError> {
        if !self.image.examined.takes {
            return Err(HookError::Missing);
        }
        let allowed = self.image.hook(Activity::Reload, HOOK_MESSAGE_BYTES_MAX);
        let (returned, text) =
            self.hook(&allowed, |live| live.reload(from_version.as_bytes(), state, &allowed))?;
        outcome(&returned, &text)
    }

    fn shutdown(&self) -> Result<(), HookError> {
        let idle = {
            let mut pool = self.pool.lock();
            pool.closed = true;
            std::mem::take(&mut pool.idle)
        };
        let allowed = self.image.hook(Activity::Shutdown, HOOK_MESSAGE_BYTES_MAX);
        let mut first = Ok(());
        for mut live in idle {
            live.reply().clear();
            let ended = match live.hook(&allowed) {
                Ok(Some(returned)) => outcome(&returned, live.reply()),
                Ok(None) => Ok(()),
                Err(stop) => Err(stopped(stop)),
            };
            first = first.and(ended);
        }
        first
    }

    fn evidence(&self) -> &ImageEvidence {
        &self.image.evidence
    }

    fn on_end(&self, told: OnEnd) {
        let mut ended = self.ended.lock();
        match ended.verdict.clone() {
            None => ended.listeners.push(told),
            Some(verdict) => {
                drop(ended);
                told(verdict);
            }
        }
    }

    fn usage(&self) -> Usage {
        let pool = self.pool.lock();
        let memory = pool.idle.iter().map(Live::memory_bytes).sum();
        drop(pool);
        Usage {
            memory_bytes: Some(memory),
            memory_peak_bytes: Some(self.used.memory_peak.load(Ordering::Relaxed).max(memory)),
            request_bytes: self.used.request_bytes.load(Ordering::Relaxed),
            reply_bytes: self.used.reply_bytes.load(Ordering::Relaxed),
            fuel: Some(self.used.fuel.load(Ordering::Relaxed)),
            fuel_remaining: Some(match &self.total {
                Some(total) => total.left(),
                None => self.used.remaining.load(Ordering::Relaxed),
            }),
            log_lines_dropped: self.lines.dropped.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }
}

fn stopped(stop: Stop) -> HookError {
    HookError::Ended { verdict: Arc::new(Verdict::Stopped { stop }) }
}

/// What a hook's code means. Of the ABI's refusals, 2 has no meaning for a hook.
fn outcome(returned: &Returned, text: &[u8]) -> Result<(), HookError> {
    match returned.code {
        abi::OK => Ok(()),
        abi::ERROR | abi::BAD_REQUEST => {
            let kept = text.len().min(HOOK_MESSAGE_BYTES_MAX);
            let message = match kept {
                0 => "it gave no reason".to_owned(),
                kept => clean_text(&text[..kept], returned.overflowed || kept < text.len()),
            };
            Err(HookError::Refused { message })
        }
        code => Err(HookError::Fault { code }),
    }
}

//! A compiled module and its instances: what the kernel calls.
//!
//! ```text
//! pooled    idle ⇄ in a call, as many at once as are allowed; what stops is thrown away, the next call starts another
//! single    one, in turn; what stops takes its state along, and is told as the plugin's end
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
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

use super::engine::Compiled;
use super::examine::Examined;
use super::host::{Lines, State, Total};
use super::instance::{Allowed, Live, Returned};
use super::pool::{Pool, Taken};
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
    /// As long as somebody holds it, nobody compiles it again.
    pub(super) compiled: Arc<Compiled>,
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
    /// What was compiled, and whether that was done before.
    #[must_use]
    pub fn evidence(&self) -> &ImageEvidence {
        &self.evidence
    }

    /// Starts the plugin: its first instance is made, and `themis_init` has run in it.
    ///
    /// # Errors
    /// The plugin refused, or was stopped.
    pub fn init(self: &Arc<Self>, config_json: &[u8]) -> Result<Arc<dyn Instance>, HookError> {
        let shared = Shared {
            image: Arc::clone(self),
            config: config_json.to_vec(),
            total: self.limits.fuel_total.map(|limit| Arc::new(Total::new(limit))),
            lines: Arc::new(Lines::new()),
            books: Arc::default(),
            remaining: AtomicU64::new(self.limits.fuel_per_call.unwrap_or(u64::MAX)),
        };
        let first = Box::new(shared.start_instance()?);
        let (most, keeps) = if self.examined.is_single() {
            (1, 0)
        } else {
            (WASM_INSTANCES_MAX, WASM_INSTANCES_IDLE)
        };
        Ok(Arc::new(WasmPlugin {
            shared,
            pool: Pool::new(first, most, keeps),
            ended: Mutex::default(),
            is_ended: AtomicBool::new(false),
        }))
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

/// What one instance has used; written by whoever is in it, and by nobody else.
#[derive(Debug, Default)]
pub(super) struct Used {
    fuel: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    memory: AtomicU64,
}

/// Adds to a number that only this thread writes now.
fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// What all instances have used.
#[derive(Debug, Default)]
struct Books {
    /// Of those there are.
    open: Vec<Arc<Used>>,
    /// Of those that are gone: fuel, bytes of requests, bytes of replies.
    closed: [u64; 3],
    memory_peak: u64,
}

/// How a stateful plugin ended, and who wants to know.
#[derive(Default)]
struct Ended {
    verdict: Option<Arc<Verdict>>,
    listeners: Vec<OnEnd>,
}

/// What the instances of a plugin have in common.
struct Shared {
    image: Arc<WasmImage>,
    config: Vec<u8>,
    total: Option<Arc<Total>>,
    lines: Arc<Lines>,
    books: Arc<Mutex<Books>>,
    /// What the last call has left of its fuel.
    remaining: AtomicU64,
}

/// An initialised plugin: one instance, or a pool of them.
struct WasmPlugin {
    shared: Shared,
    pool: Pool<Member>,
    ended: Mutex<Ended>,
    is_ended: AtomicBool,
}

/// An instance and its own page of the books.
struct Member {
    live: Live,
    used: Arc<Used>,
    books: Arc<Mutex<Books>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.books.lock().close(&self.used);
    }
}

impl std::fmt::Debug for WasmPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmPlugin").field("image", &self.shared.image).finish_non_exhaustive()
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

impl Shared {
    fn allowed(&self) -> Allowed {
        Allowed {
            what: Activity::Call,
            limit: self.image.limits.call_deadline,
            fuel: self.image.limits.fuel_per_call,
            total: self.total.clone(),
            reply_cap: MESSAGE_BYTES_MAX,
        }
    }

    fn start_instance(&self) -> Result<Member, HookError> {
        let setup = self.image.hook(Activity::Setup, 0);
        let live = Live::start(&self.image.compiled.module, self.image.state(&self.lines), &setup);
        let mut live = live.map_err(stopped)?;
        let init = self.image.hook(Activity::Init, HOOK_MESSAGE_BYTES_MAX);
        let returned = live.init(&self.config, &init).map_err(stopped)?;
        outcome(&returned, live.reply())?;
        let used = Arc::<Used>::default();
        used.memory.store(live.memory_bytes(), Ordering::Relaxed);
        self.books.lock().open.push(Arc::clone(&used));
        Ok(Member { live, used, books: Arc::clone(&self.books) })
    }

    /// What a call has used of its fuel.
    fn burnt(&self, used: &Used, fuel: u64) {
        add(&used.fuel, fuel);
        let budget = self.image.limits.fuel_per_call;
        let left = budget.map_or(u64::MAX, |budget| budget.saturating_sub(fuel));
        self.remaining.store(left, Ordering::Relaxed);
    }
}

impl Books {
    /// An instance is gone.
    fn close(&mut self, used: &Arc<Used>) {
        self.memory_peak = self.memory_peak.max(self.memory());
        self.open.retain(|open| !Arc::ptr_eq(open, used));
        for (sum, number) in self.closed.iter_mut().zip(used.numbers()) {
            *sum = sum.saturating_add(number);
        }
    }

    fn memory(&self) -> u64 {
        self.open.iter().map(|used| used.memory.load(Ordering::Relaxed)).sum()
    }
}

impl Used {
    fn numbers(&self) -> [u64; 3] {
        [&self.fuel, &self.request_bytes, &self.reply_bytes].map(|it| it.load(Ordering::Relaxed))
    }
}

impl WasmPlugin {
    fn is_single(&self) -> bool {
        self.shared.image.examined.is_single()
    }

    /// An instance that nobody is in: an idle one, a new one, or the next that comes back.
    fn take(&self, limit: Duration) -> Result<Box<Member>, NoInstance> {
        let ended = || self.verdict().map(NoInstance::Ended);
        match self.pool.take(limit) {
            Taken::One(member) => Ok(member),
            // Its only instance is gone, and with it the plugin.
            Taken::Room if self.is_single() => {
                self.pool.forget();
                Err(ended().unwrap_or(NoInstance::Busy(limit)))
            }
            Taken::Room => self.shared.start_instance().map(Box::new).map_err(|error| {
                self.pool.forget();
                NoInstance::Start(error)
            }),
            Taken::Busy => Err(ended().unwrap_or(NoInstance::Busy(limit))),
        }
    }

    fn give_back(&self, member: Box<Member>) {
        member.used.memory.store(member.live.memory_bytes(), Ordering::Relaxed);
        self.pool.give(member);
    }

    fn verdict(&self) -> Option<Arc<Verdict>> {
        if !self.is_ended.load(Ordering::Acquire) {
            return None;
        }
        self.ended.lock().verdict.clone()
    }

    /// An instance was stopped and is thrown away. If it was the only one, the plugin has ended.
    fn throw_away(&self, member: Box<Member>, stop: Stop) -> Arc<Verdict> {
        drop(member);
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
        self.pool.forget();
        verdict
    }

    /// Runs a hook in some instance, or the one there is.
    fn hook(
        &self,
        allowed: &Allowed,
        run: impl FnOnce(&mut Live) -> Result<Option<Returned>, Stop>,
    ) -> Result<(Returned, Vec<u8>), HookError> {
        let mut member = match self.take(allowed.limit) {
            Ok(member) => member,
            Err(NoInstance::Busy(limit)) => return Err(HookError::Deadline { limit }),
            Err(NoInstance::Ended(verdict)) => return Err(HookError::Ended { verdict }),
            Err(NoInstance::Start(error)) => return Err(error),
        };
        member.live.reply().clear();
        match run(&mut member.live) {
            Ok(Some(returned)) => {
                let bytes = std::mem::take(member.live.reply());
                self.give_back(member);
                Ok((returned, bytes))
            }
            Ok(None) => {
                self.give_back(member);
                Err(HookError::Missing)
            }
            Err(stop) => Err(HookError::Ended { verdict: self.throw_away(member, stop) }),
        }
    }
}

impl Instance for WasmPlugin {
    fn call(&self, method: u32, request: &[u8], reply: &mut ReplyBuffer<'_>) -> CallStatus {
        if request.len() > MESSAGE_BYTES_MAX {
            return CallStatus::RequestTooLarge;
        }
        let allowed = self.shared.allowed();
        let mut member = match self.take(allowed.limit) {
            Ok(member) => member,
            Err(NoInstance::Busy(limit)) => return CallStatus::Busy(limit),
            Err(NoInstance::Ended(verdict)) => return CallStatus::Ended(verdict),
            Err(NoInstance::Start(error)) => {
                let stop = Stop::Instance { what: error.to_string() };
                return CallStatus::Ended(Arc::new(Verdict::Stopped { stop }));
            }
        };
        let Member { live, used, .. } = &mut *member;
        live.reply().clear();
        let returned = live.call(method, request, &allowed);
        self.shared.burnt(used, live.burnt());
        let returned = match returned {
            Ok(returned) => returned,
            Err(stop) => return CallStatus::Ended(self.throw_away(member, stop)),
        };
        let written = reply.write(live.reply());
        add(&used.request_bytes, request.len() as u64);
        add(&used.reply_bytes, live.reply().len() as u64);
        self.give_back(member);
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
        if !self.shared.image.examined.health {
            return match self.verdict() {
                Some(verdict) => Err(HookError::Ended { verdict }),
                None => Ok(()),
            };
        }
        let allowed = self.shared.image.hook(Activity::Health, HOOK_MESSAGE_BYTES_MAX);
        let (returned, text) = self.hook(&allowed, |live| live.hook(&allowed))?;
        outcome(&returned, &text)
    }

    fn state_hooks(&self) -> StateHooks {
        StateHooks {
            saves: self.shared.image.examined.saves,
            takes: self.shared.image.examined.takes,
        }
    }

    fn save_state(&self) -> Result<Vec<u8>, HookError> {
        if !self.shared.image.examined.saves {
            return Err(HookError::Missing);
        }
        let allowed = self.shared.image.hook(Activity::SaveState, STATE_BYTES_MAX);
        let (returned, state) = self.hook(&allowed, |live| live.hook(&allowed))?;
        if returned.overflowed {
            return Err(HookError::TooLarge { max: STATE_BYTES_MAX });
        }
        outcome(&returned, &state)?;
        Ok(state)
    }

    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), HookError> {
        if !self.shared.image.examined.takes {
            return Err(HookError::Missing);
        }
        let allowed = self.shared.image.hook(Activity::Reload, HOOK_MESSAGE_BYTES_MAX);
        let (returned, text) =
            self.hook(&allowed, |live| live.reload(from_version.as_bytes(), state, &allowed))?;
        outcome(&returned, &text)
    }

    fn shutdown(&self) -> Result<(), HookError> {
        let idle = self.pool.close();
        let allowed = self.shared.image.hook(Activity::Shutdown, HOOK_MESSAGE_BYTES_MAX);
        let mut first = Ok(());
        for mut member in idle {
            let live = &mut member.live;
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
        &self.shared.image.evidence
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
        let mut books = self.shared.books.lock();
        let memory = books.memory();
        books.memory_peak = books.memory_peak.max(memory);
        let mut sums = books.closed;
        for used in &books.open {
            for (sum, number) in sums.iter_mut().zip(used.numbers()) {
                *sum = sum.saturating_add(number);
            }
        }
        let [fuel, request_bytes, reply_bytes] = sums;
        Usage {
            memory_bytes: Some(memory),
            memory_peak_bytes: Some(books.memory_peak),
            request_bytes,
            reply_bytes,
            fuel: Some(fuel),
            fuel_remaining: Some(match &self.shared.total {
                Some(total) => total.left(),
                None => self.shared.remaining.load(Ordering::Relaxed),
            }),
            log_lines_dropped: self.shared.lines.dropped.load(Ordering::Relaxed),
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

//! The published pointer of one plugin, and the call path: no lock, no message.
//!
//! ```text
//! Catalog map ──name──▶ Slot ──▶ Serving ──▶ Generation ──▶ Instance
//!  (published)        (interned)  (swapped)     (warm)
//! ```
//!
//! A slot is interned for the process's life, so that holding one costs no count; names are few
//! ([`CATALOG_NAMES_MAX`](themis_messages::limits::CATALOG_NAMES_MAX)). Its pointer is written by the plugin's
//! actor alone. When that actor dies the pointer stays, and callers notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use themis_messages::call::{Answer, CallError, Method, ServedBy};
use themis_messages::ids::{GenerationId, PluginName, Tier};
use themis_messages::instance::{CallStatus, ReplyBuffer};
use themis_messages::lifecycle::{PluginInfo, PluginState};
use themis_messages::limits::{LATENCY_SAMPLE, MESSAGE_BYTES_MAX};
use themis_messages::mailbox::Mailbox;
use tokio::sync::watch;

use crate::ab::live::{Arm, Assigned, Live};
use crate::generation::Generation;
use crate::lease::{HeldServing, Serving, Visit};
use crate::plugin::{Ledger, PluginFact, PluginMsg};
use crate::usage;

/// One plugin as its callers see it.
#[derive(Debug)]
pub struct Slot {
    name: PluginName,
    current: ArcSwapOption<Serving>,
    /// Stints beside that one: arms of an experiment.
    arms: ArcSwap<Vec<Arc<Serving>>>,
    experiment: ArcSwapOption<Live>,
    /// Whether there is a current stint: for look-ups, which need no more.
    serving: AtomicBool,
    /// What the plugin's actor knew after its last message.
    ledger: watch::Sender<Arc<Ledger>>,
    /// How long a caller waits for a plugin that takes one call at a time.
    serial_wait: Duration,
    mailbox: Arc<Mailbox<PluginMsg>>,
}

impl Slot {
    /// An empty slot, interned for good.
    #[must_use]
    pub fn intern(
        name: PluginName,
        mailbox: Arc<Mailbox<PluginMsg>>,
        serial_wait: Duration,
    ) -> &'static Self {
        Box::leak(Box::new(Self {
            name,
            current: ArcSwapOption::empty(),
            arms: ArcSwap::default(),
            experiment: ArcSwapOption::empty(),
            serving: AtomicBool::new(false),
            ledger: watch::Sender::new(Arc::default()),
            serial_wait,
            mailbox,
        }))
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.name
    }

    /// Whether a version serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// The stint that serves.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Serving>> {
        self.current.load_full()
    }

    /// Lets callers into an arm. Only the plugin's actor calls this.
    pub(crate) fn open_arm(&self, arm: Arc<Serving>) {
        let mut arms = Vec::clone(&self.arms.load());
        arms.push(arm);
        self.arms.store(Arc::new(arms));
    }

    /// Lets nobody new into an arm. Only the plugin's actor calls this.
    pub(crate) fn close_arm(&self, generation: GenerationId) -> Option<Arc<Serving>> {
        let mut arms = Vec::clone(&self.arms.load());
        let index = arms.iter().position(|arm| arm.generation.id == generation)?;
        let arm = arms.swap_remove(index);
        self.arms.store(Arc::new(arms));
        arm.close();
        Some(arm)
    }

    /// The arm that is this generation.
    #[must_use]
    pub fn arm(&self, generation: GenerationId) -> Option<Arc<Serving>> {
        self.arms.load().iter().find(|arm| arm.generation.id == generation).cloned()
    }

    /// Sets or ends the experiment that deals out this plugin's units.
    pub(crate) fn set_experiment(&self, experiment: Option<Arc<Live>>) {
        self.experiment.store(experiment);
    }

    /// Calls the version that the unit is dealt, if there is an experiment, and else the one that serves. Answers who served and
    /// what the unit's outcomes are to be told to.
    ///
    /// # Errors
    /// As [`Slot::call_into`].
    pub fn call_for(
        &self,
        unit: &[u8],
        method: Method<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(ServedBy, Option<Assigned>), CallError> {
        let Some(live) = self.experiment.load_full() else {
            return self.call_into(method, request, reply).map(|served_by| (served_by, None));
        };
        let Some(arm) = live.arm_of(unit) else {
            return self.call_into(method, request, reply).map(|served_by| (served_by, None));
        };
        let started = Instant::now();
        let called = live.with_arm(arm, |serving| {
            let visit = serving.enter()?;
            let count = Visit::count_call(&visit);
            Some(self.call_on(serving, count, method, request, reply))
        });
        // An arm that has just left takes nobody in: the control does, and the unit counts for nobody.
        let (called, counts) = match called {
            Arm::Control => (self.call_into(method, request, reply), true),
            Arm::Called(called) => (called, true),
            Arm::Gone => (self.call_into(method, request, reply), false),
        };
        if !counts {
            return called.map(|served_by| (served_by, None));
        }
        live.called(arm, unit, started.elapsed(), called.is_ok());
        called.map(|served_by| (served_by, Some(Assigned::new(live, arm))))
    }

    /// The queue of the plugin's actor.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox<PluginMsg>> {
        &self.mailbox
    }

    /// Publishes a stint, or none; answers what served and how long callers could have noticed.
    pub(crate) fn publish(&self, next: Option<Arc<Serving>>) -> (Option<Arc<Serving>>, Duration) {
        self.serving.store(next.is_some(), Ordering::Release);
        let before = Instant::now();
        let replaced = self.current.swap(next);
        let took = before.elapsed();
        if let Some(serving) = &replaced {
            serving.close();
        }
        (replaced, took)
    }

    /// A fact for the plugin's actor: it is never refused for want of room.
    pub(crate) fn tell(&self, fact: PluginFact) {
        self.mailbox.tell(PluginMsg::Fact(fact));
    }

    /// What the plugin's actor knew after its last message.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger.borrow())
    }

    /// Changes with the ledger.
    #[must_use]
    pub fn watch_ledger(&self) -> watch::Receiver<Arc<Ledger>> {
        self.ledger.subscribe()
    }

    /// Only the plugin's actor calls this.
    pub(crate) fn set_ledger(&self, ledger: Ledger) {
        self.ledger.send_replace(Arc::new(ledger));
    }

    /// Calls the serving version and appends its reply to `reply`.
    ///
    /// # Errors
    /// [`CallError`]; what was appended by then is cut off again.
    pub fn call_into(
        &self,
        method: Method<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<ServedBy, CallError> {
        loop {
            let current = self.current.load();
            let Some(serving) = current.as_ref() else { return Err(self.not_serving()) };
            if let Some(visit) = serving.enter() {
                let count = Visit::count_call(&visit);
                return self.call_on(serving, count, method, request, reply);
            }
            // Held for a moment, or a newer stint is published: the next look finds it.
            serving.wait_at_door();
        }
    }

    /// Holds the serving version over many calls.
    ///
    /// # Errors
    /// [`CallError::NotLoaded`] or [`CallError::Quarantined`].
    pub fn hold(&self) -> Result<HeldServing, CallError> {
        loop {
            let Some(serving) = self.current.load_full() else { return Err(self.not_serving()) };
            if let Some(held) = HeldServing::enter(&serving) {
                return Ok(held);
            }
            serving.wait_at_door();
        }
    }

    /// Begins a call that no thread waits for, on the version that serves; `Err` gives the request back where calls run
    /// on their callers' threads, or nobody can enter at this moment without waiting.
    ///
    /// # Errors
    /// The request, for a call on a thread.
    pub fn start_call(
        &'static self,
        method: Method<'_>,
        request: Vec<u8>,
    ) -> Result<impl Future<Output = Result<Answer, CallError>> + use<>, Vec<u8>> {
        let Some(serving) = self.current.load_full() else { return Err(request) };
        if !serving.generation.instance.starts_calls() {
            return Err(request);
        }
        let Some(held) = HeldServing::enter(&serving) else { return Err(request) };
        let id = match method {
            Method::Id(id) => Some(id),
            Method::Name(name) => serving.generation.manifest.method_id(name),
        };
        let (Some(id), true) = (id, request.len() <= MESSAGE_BYTES_MAX) else {
            return Err(request);
        };
        let count = held.count_call();
        let len = request.len();
        let instance = Arc::clone(&serving.generation.instance);
        let started = Instant::now();
        let call = instance.start_call(id, request, Box::new(held)).map_err(|it| it.request)?;
        let asked = method_text(method);
        Ok(async move {
            let (status, bytes) = call.await;
            let ok = status == CallStatus::Ok;
            if count.is_multiple_of(u64::from(LATENCY_SAMPLE)) {
                if serving.time(started.elapsed(), id, ok) {
                    self.tell(PluginFact::FirstCall { generation: serving.generation.id });
                }
                serving.generation.sampled.add(Duration::ZERO, len, bytes.len());
            }
            if ok {
                return Ok(Answer { bytes, served_by: served_by(&serving.generation) });
            }
            let error = call_error(&self.name, &serving.generation, status, &asked, &bytes);
            serving.count_error(&error);
            Err(error)
        })
    }

    /// Calls a held version, whatever serves by now.
    ///
    /// # Errors
    /// As [`Slot::call_into`].
    pub fn call_held(
        &self,
        held: &HeldServing,
        method: Method<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<ServedBy, CallError> {
        self.call_on(held.serving(), held.count_call(), method, request, reply)
    }

    fn call_on(
        &self,
        serving: &Serving,
        count: u64,
        method: Method<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<ServedBy, CallError> {
        let sampled = count.is_multiple_of(u64::from(LATENCY_SAMPLE));
        let started = sampled.then(|| (Instant::now(), usage::thread_cpu()));
        let start = reply.len();
        let outcome = self.try_call(serving, method, request, reply);
        if let Some((started, cpu)) = started {
            self.time(serving, method, started.elapsed(), outcome.is_ok());
            let cpu = usage::thread_cpu().saturating_sub(cpu);
            serving.generation.sampled.add(cpu, request.len(), reply.len() - start);
        }
        match outcome {
            Ok(()) => Ok(served_by(&serving.generation)),
            Err(error) => {
                reply.truncate(start);
                serving.count_error(&error);
                Err(error)
            }
        }
    }

    /// The first call of a stint is among those that are timed.
    fn time(&self, serving: &Serving, method: Method<'_>, elapsed: Duration, ok: bool) {
        let manifest = &serving.generation.manifest;
        let id = match method {
            Method::Id(id) => id,
            Method::Name(name) => manifest.method_id(name).unwrap_or_default(),
        };
        if serving.time(elapsed, id, ok) {
            self.tell(PluginFact::FirstCall { generation: serving.generation.id });
        }
    }

    fn try_call(
        &self,
        serving: &Serving,
        method: Method<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), CallError> {
        let generation = &serving.generation;
        let id = match method {
            Method::Id(id) => id,
            Method::Name(name) => {
                generation.manifest.method_id(name).ok_or_else(|| self.unknown_method(method))?
            }
        };
        if request.len() > MESSAGE_BYTES_MAX {
            let (size, max) = (request.len(), MESSAGE_BYTES_MAX);
            return Err(CallError::RequestTooLarge { plugin: self.name.clone(), size, max });
        }
        let Ok(_turn) = serving.take_turn(self.serial_wait) else {
            return Err(self.report_stuck(serving));
        };
        let start = reply.len();
        let mut buffer = ReplyBuffer::new(reply);
        match generation.instance.call(id, request, &mut buffer) {
            CallStatus::Ok => Ok(()),
            failed @ (CallStatus::PluginError
            | CallStatus::UnknownMethod
            | CallStatus::BadRequest
            | CallStatus::RequestTooLarge
            | CallStatus::Busy(_)
            | CallStatus::ReplyTooLarge
            | CallStatus::Fault(_)
            | CallStatus::Ended(_)) => {
                let asked = method_text(method);
                Err(call_error(&self.name, generation, failed, &asked, &reply[start..]))
            }
        }
    }

    /// Tells the actor once; it takes the generation out of service.
    fn report_stuck(&self, serving: &Serving) -> CallError {
        let limit = self.serial_wait;
        // In a process of its own what does not end is ended.
        if serving.generation.tier == Tier::InProcess && serving.report_stuck() {
            self.tell(PluginFact::CallStuck { generation: serving.generation.id, limit });
        }
        CallError::SerialWait { plugin: self.name.clone(), limit }
    }

    fn unknown_method(&self, method: Method<'_>) -> CallError {
        CallError::UnknownMethod { plugin: self.name.clone(), method: method_text(method) }
    }

    #[cold]
    fn not_serving(&self) -> CallError {
        let plugin = self.name.clone();
        match self.ledger.borrow().out_of_service() {
            Some(reason) => CallError::Quarantined { plugin, reason: reason.to_owned() },
            None => CallError::NotLoaded { plugin },
        }
    }

    /// What is known of the plugin, from what is published: no question to an actor.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        let serving = self.current.load_full();
        let ledger = self.ledger();
        let generation = serving.as_ref().map(|serving| &serving.generation);
        let state = match (&serving, ledger.out_of_service()) {
            (Some(_), _) => PluginState::Active,
            (None, Some(_)) => PluginState::Quarantined,
            (None, None) => PluginState::Unloaded,
        };
        let methods = generation
            .map(|it| it.manifest.methods.iter().map(|method| method.name.clone()).collect());
        PluginInfo {
            name: self.name.clone(),
            version: generation.map(|it| it.version().clone()),
            previous: ledger.previous().map(|it| it.version().clone()),
            tier: generation.map(|it| it.tier),
            isolation: generation.and_then(|it| it.instance.isolation().cloned()),
            usage: generation.map(|it| it.usage()),
            state,
            quarantine: ledger.out_of_service().map(str::to_owned),
            generation: generation.map(|it| it.id),
            digest: generation.map(|it| it.digest),
            build_id: generation.and_then(|it| it.instance.evidence().build_id.clone()),
            key_id: generation.map(|it| it.key_id),
            methods: methods.unwrap_or_default(),
            in_flight: serving.as_ref().map_or(0, |it| it.in_flight()),
            calls: ledger.earlier_calls() + serving.as_ref().map_or(0, |it| it.calls()),
            draining: ledger.draining(),
            probation: ledger.probation(),
            restarts: ledger.restarts(),
            unwell: ledger.unwell(),
            quarantined: ledger.quarantined(),
            budget: ledger.budget(serving.as_deref()),
            receipt: ledger.receipt().cloned(),
        }
    }
}

#[cold]
fn call_error(
    plugin: &PluginName,
    generation: &Generation,
    status: CallStatus,
    method: &str,
    reply: &[u8],
) -> CallError {
    let (plugin, method) = (plugin.clone(), method.to_owned());
    let served_by = served_by(generation);
    match status {
        CallStatus::Ok => CallError::Fault { plugin, code: 0, served_by },
        CallStatus::PluginError => {
            let text = String::from_utf8_lossy(reply).into_owned();
            CallError::Plugin { plugin, text, served_by }
        }
        CallStatus::UnknownMethod => CallError::UnknownMethod { plugin, method },
        CallStatus::BadRequest => CallError::BadRequest { plugin, method },
        CallStatus::ReplyTooLarge => CallError::ReplyTooLarge { plugin, max: MESSAGE_BYTES_MAX },
        // Looked at before the call as well.
        CallStatus::RequestTooLarge => {
            let max = MESSAGE_BYTES_MAX;
            CallError::RequestTooLarge { plugin, size: max + 1, max }
        }
        CallStatus::Busy(limit) => CallError::Busy { plugin, limit },
        CallStatus::Fault(code) => CallError::Fault { plugin, code, served_by },
        CallStatus::Ended(verdict) => CallError::Ended { plugin, verdict, served_by },
    }
}

fn served_by(generation: &Generation) -> ServedBy {
    ServedBy { version: generation.version().clone(), generation: generation.id }
}

fn method_text(method: Method<'_>) -> String {
    match method {
        Method::Id(id) => id.to_string(),
        Method::Name(name) => name.chars().take(80).collect(),
    }
}

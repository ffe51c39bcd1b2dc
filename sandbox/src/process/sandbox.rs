//! What the host has of a worker: a sandbox, the plugin mapped in it, and the instance that answers.
//!
//! ```text
//! Sandbox ──load──▶ Loaded ──init──▶ instance ──shutdown──▶ killed
//!    └────────────────┴─────────────────┴──dropped──▶ killed
//! ```

use std::any::Any;
use std::fs;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use themis_messages::ids::PluginName;
use themis_messages::instance::{
    CallFuture, CallStatus, Concurrency, HookError, ImageEvidence, Instance, NotAsync, OnEnd,
    ReplyBuffer, StateHooks,
};
use themis_messages::lifecycle::MapError;
use themis_messages::limits::{HOOK_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, STATE_BYTES_MAX};
use themis_messages::sandbox::{
    Activity, Isolation, Limits, Require, SandboxError, SetupStep, Usage, Verdict,
};
use themis_plugin::abi;

use super::drain::Drain;
use super::handle::{Gone, NoReply, Reply, Worker};
use super::layout::{Op, STATUS_MISSING};
use super::pending::Pending;
use super::wire::{self, PluginFile};
use super::worker::{Described, fault_told};
use super::workers::{Owned, Workers};
use crate::admission::{AdmittedPlugin, SealedFile};
use crate::native::{HostServices, build_id_of, clean_text};

/// Filters that a worker puts on once a plugin is mapped.
const STRICT_FILTERS: u32 = 1;

/// What a call is told when its instance was shut down: no plugin was asked.
const GONE: i32 = i32::MIN;

/// A worker that waits for a plugin.
#[derive(Debug)]
pub struct Sandbox {
    plugin: PluginName,
    owned: Owned,
    /// The last of these to go takes all workers with it.
    workers: Workers,
    isolation: Isolation,
}

/// A worker in which a plugin is mapped.
#[derive(Debug)]
pub struct Loaded {
    owned: Owned,
    _workers: Workers,
    isolation: Isolation,
    evidence: ImageEvidence,
    concurrency: Concurrency,
    state_hooks: StateHooks,
    has_health: bool,
}

impl Workers {
    /// A sandbox for one instance: a ready worker when there is one with these limits, else a new one.
    ///
    /// # Errors
    /// [`SandboxError`]: a limit out of range, a step of the set-up that failed, or a machine that does not confine
    /// workers as well as `require` wants.
    pub fn sandbox(
        &self,
        plugin: &PluginName,
        limits: &Limits,
        require: Require,
    ) -> Result<Sandbox, SandboxError> {
        let owned = self.take(limits)?;
        let isolation = Isolation::of(owned.0.pid, owned.0.layers);
        if isolation.level > require.weakest() {
            let (has, missing) = (isolation.level, isolation.missing_text());
            return Err(SandboxError::Isolation { require, has, missing });
        }
        Ok(Sandbox { plugin: plugin.clone(), owned, isolation, workers: self.clone() })
    }
}

impl Sandbox {
    /// Whose it is.
    #[must_use]
    pub fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    /// How it is confined.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.owned.0.pid
    }

    /// Maps an admitted plugin: its constructors run, in the worker. Blocks, at most for as long as a hook may take.
    ///
    /// # Errors
    /// [`SandboxError::Map`] when it does not map, [`SandboxError::Ended`] when its constructors did what they may not.
    pub fn load(
        self,
        plugin: &AdmittedPlugin,
        services: HostServices,
    ) -> Result<Loaded, SandboxError> {
        let worker = &self.owned.0;
        let paths = plugin.data.keys().cloned().collect();
        let described = Described::new(&plugin.descriptor, &services.capabilities, paths);
        let described = serde_json::to_vec(&described).unwrap_or_default();
        send_files(worker, plugin)?;
        drop(worker.drain.set(Drain::new(services)));
        let mut reply = Vec::new();
        let limit = worker.limits.hook_deadline;
        let loaded = worker.hook(Op::Load, (&described, &[]), limit, Activity::Loading, &mut reply);
        let loaded = loaded.map_err(|gone| self.ended(&gone))?;
        let [saves, takes, health] = match (loaded.status, reply.as_slice()) {
            (0, &[saves, takes, health]) => [saves, takes, health].map(|told| told != 0),
            (0, _) => return Err(SandboxError::Map(loader("its worker told nothing of it"))),
            (_, told) => return Err(refused(told)),
        };
        prove(worker, plugin.image.inode())?;
        let thread_safe = plugin.descriptor.features & abi::THREAD_SAFE != 0;
        worker.open_slots(thread_safe);
        Ok(Loaded {
            evidence: evidence(&plugin.image),
            concurrency: if thread_safe { Concurrency::Parallel } else { Concurrency::Serial },
            state_hooks: StateHooks { saves, takes },
            has_health: health,
            isolation: self.isolation,
            owned: self.owned,
            _workers: self.workers,
        })
    }

    fn ended(&self, gone: &Gone) -> SandboxError {
        match &gone.0 {
            Some(verdict) => (**verdict).clone().into(),
            None => {
                SandboxError::State { plugin: self.plugin.clone(), what: "was closed meanwhile" }
            }
        }
    }
}

/// Sends the image, and then each data file, and ends the connection: constructors are not to find it.
fn send_files(worker: &Worker, plugin: &AdmittedPlugin) -> Result<(), SandboxError> {
    let failed = |errno: rustix::io::Errno| {
        let errno = errno.raw_os_error();
        SandboxError::Ended(Verdict::SetupFailed { step: SetupStep::Files, errno })
    };
    let control = worker.control.lock().take();
    let control = control.ok_or_else(|| failed(rustix::io::Errno::PIPE))?;
    let files = std::iter::once(&plugin.image).chain(plugin.data.values());
    for (index, file) in (0..).zip(files) {
        let message = PluginFile { bytes: file.len(), index, unused: 0 };
        wire::send(&control, &message, &[file.fd()]).map_err(failed)?;
    }
    Ok(())
}

fn loader(what: &str) -> MapError {
    MapError::Loader { what: what.to_owned() }
}

/// What the worker told of a plugin that it did not map: a text of somebody hostile.
fn refused(told: &[u8]) -> SandboxError {
    let kept = told.len().min(HOOK_MESSAGE_BYTES_MAX);
    let told = String::from_utf8_lossy(&told[..kept]);
    // The separator would be blanked with the rest.
    let mut parts = told.splitn(2, '\0').map(|part| clean_text(part.as_bytes(), false));
    let told = [parts.next().unwrap_or_default(), parts.next().unwrap_or_default()].join("\0");
    match fault_told(&told) {
        Ok(error) => SandboxError::Map(error),
        Err((step, errno)) => SandboxError::Ended(Verdict::SetupFailed { step, errno }),
    }
}

/// That the file which was verified is what is mapped, and that every thread is behind the strict filter: as the system
/// says, since constructors have run, and what the worker says is theirs.
fn prove(worker: &Worker, inode: u64) -> Result<(), SandboxError> {
    // A constructor may have ended the process in between.
    let or_its_end = |error| worker.verdict().map_or(error, |it| (*it).clone().into());
    if !maps_has(worker, inode) {
        let what = "its file is not mapped as code in its worker".to_owned();
        return Err(or_its_end(SandboxError::Map(MapError::NotTheVerifiedImage { what })));
    }
    let wanted = worker.filters + STRICT_FILTERS;
    let held = filters_of_threads(worker.pid);
    if held.is_empty() || held.iter().any(|filters| *filters != wanted) {
        let what = "a constructor kept it from its filter over system calls".to_owned();
        worker.end(Verdict::ProtocolViolation { what: what.clone() });
        return Err(or_its_end(Verdict::ProtocolViolation { what }.into()));
    }
    Ok(())
}

/// How many filters the system says that each thread of a process is behind.
fn filters_of_threads(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // A thread may end meanwhile.
    let statuses = threads.filter_map(|it| fs::read_to_string(it.path().join("status")).ok());
    statuses.map(|status| filters_in(&status).unwrap_or(0)).collect()
}

/// Filters over the system calls of a process, as the text of its status has it; since Linux 5.9.
pub(super) fn filters_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?;
    line.trim().parse().ok()
}

/// Whether a file is mapped as code, as the system says.
fn maps_has(worker: &Worker, inode: u64) -> bool {
    let mut maps = String::new();
    let own = worker.maps.as_ref().and_then(|maps| maps.try_clone().ok());
    if let Some(own) = own {
        // What cannot be read is not there.
        drop(fs::File::from(own).read_to_string(&mut maps));
    }
    maps.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let code = fields.next().is_some_and(|rights| rights.contains('x'));
        code && fields.nth(2).and_then(|field| field.parse().ok()) == Some(inode)
    })
}

/// The image goes with its worker: nothing of it stays.
fn evidence(image: &SealedFile) -> ImageEvidence {
    ImageEvidence {
        digest: image.digest(),
        build_id: build_id_of(image.bytes()),
        inode: image.inode(),
        reused: false,
        bytes: image.len(),
        resident_bytes: 0,
    }
}

impl Loaded {
    /// Runs the plugin's init.
    ///
    /// # Errors
    /// The plugin refused, or its worker ended.
    pub fn init(self, config_json: &[u8]) -> Result<Arc<dyn Instance>, HookError> {
        let instance = ProcessInstance { loaded: self };
        instance.plain(Op::Init, Activity::Init, (config_json, &[]))?;
        Ok(Arc::new(instance))
    }

    /// How it is confined.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }
}

/// An initialised instance in a worker.
#[derive(Debug)]
struct ProcessInstance {
    loaded: Loaded,
}

impl ProcessInstance {
    fn worker(&self) -> &Worker {
        &self.loaded.owned.0
    }

    /// A hook whose reply is a text, if anything.
    fn plain(&self, op: Op, activity: Activity, request: (&[u8], &[u8])) -> Result<(), HookError> {
        let (bytes, max) = (request.0.len() + request.1.len(), MESSAGE_BYTES_MAX);
        if bytes > max {
            return Err(HookError::TooLarge { max });
        }
        let limit = self.worker().limits.hook_deadline;
        let mut text = Vec::new();
        let ended = self.worker().hook(op, request, limit, activity, &mut text);
        outcome(&ended.map_err(gone)?, &text)
    }
}

impl Instance for ProcessInstance {
    fn call(&self, method: u32, request: &[u8], reply: &mut ReplyBuffer<'_>) -> CallStatus {
        if request.len() > MESSAGE_BYTES_MAX {
            return CallStatus::RequestTooLarge;
        }
        match self.worker().call(method, request, reply) {
            Err(none) => no_reply(none),
            Ok(_) if reply.overflowed() => CallStatus::ReplyTooLarge,
            Ok(answered) => status(&answered),
        }
    }

    fn concurrency(&self) -> Concurrency {
        self.loaded.concurrency
    }

    fn health(&self) -> Result<(), HookError> {
        if self.loaded.has_health {
            return self.plain(Op::Health, Activity::Health, (&[], &[]));
        }
        // Without a hook, that it lives is all there is to ask.
        match self.worker().verdict() {
            Some(verdict) => Err(HookError::Ended { verdict }),
            None => Ok(()),
        }
    }

    fn state_hooks(&self) -> StateHooks {
        self.loaded.state_hooks
    }

    fn save_state(&self) -> Result<Vec<u8>, HookError> {
        if !self.loaded.state_hooks.saves {
            return Err(HookError::Missing);
        }
        let limit = self.worker().limits.hook_deadline;
        let mut state = Vec::new();
        let saved =
            self.worker().hook(Op::SaveState, (&[], &[]), limit, Activity::SaveState, &mut state);
        let saved = saved.map_err(gone)?;
        // A hook that ignores the refusal has saved only a part.
        if saved.overflowed {
            return Err(HookError::TooLarge { max: STATE_BYTES_MAX });
        }
        outcome(&saved, &state)?;
        Ok(state)
    }

    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), HookError> {
        if !self.loaded.state_hooks.takes {
            return Err(HookError::Missing);
        }
        self.plain(Op::Reload, Activity::Reload, (from_version.as_bytes(), state))
    }

    fn shutdown(&self) -> Result<(), HookError> {
        if !self.worker().is_live() {
            return Ok(());
        }
        let ended = self.plain(Op::Shutdown, Activity::Shutdown, (&[], &[]));
        self.worker().stop();
        ended
    }

    fn evidence(&self) -> &ImageEvidence {
        &self.loaded.evidence
    }

    fn starts_calls(&self) -> bool {
        true
    }

    fn start_call(
        &self,
        method: u32,
        request: Vec<u8>,
        keep: Box<dyn Any + Send>,
    ) -> Result<CallFuture, NotAsync> {
        if request.len() > MESSAGE_BYTES_MAX {
            return Ok(Box::pin(std::future::ready((CallStatus::RequestTooLarge, Vec::new()))));
        }
        let pending = Pending::new(Arc::clone(&self.loaded.owned.0), method, request, keep);
        Ok(Box::pin(async move {
            match pending.await {
                Err(none) => (no_reply(none), Vec::new()),
                Ok((reply, bytes)) => (status(&reply), bytes),
            }
        }))
    }

    fn on_end(&self, told: OnEnd) {
        self.worker().on_end(told);
    }

    fn isolation(&self) -> Option<&Isolation> {
        Some(&self.loaded.isolation)
    }

    fn usage(&self) -> Usage {
        self.worker().usage()
    }

    fn abandon(&self, after: Duration) {
        self.worker().end(Verdict::Deadline { what: Activity::Call, limit: after });
    }
}

/// What a call's status means.
fn status(answered: &Reply) -> CallStatus {
    match answered.status {
        _ if answered.overflowed => CallStatus::ReplyTooLarge,
        abi::OK => CallStatus::Ok,
        abi::ERROR => CallStatus::PluginError,
        abi::UNKNOWN_METHOD => CallStatus::UnknownMethod,
        abi::BAD_REQUEST => CallStatus::BadRequest,
        code => CallStatus::Fault(code),
    }
}

fn no_reply(none: NoReply) -> CallStatus {
    match none {
        NoReply::Gone(Gone(Some(verdict))) => CallStatus::Ended(verdict),
        NoReply::Gone(Gone(None)) => CallStatus::Fault(GONE),
        NoReply::NoSeat(limit) => CallStatus::Busy(limit),
    }
}

fn gone(Gone(verdict): Gone) -> HookError {
    match verdict {
        Some(verdict) => HookError::Ended { verdict },
        None => HookError::Refused { message: "the instance was shut down".to_owned() },
    }
}

/// What a hook's status means. Of the ABI's refusals, 2 has no meaning for a hook.
fn outcome(ended: &Reply, text: &[u8]) -> Result<(), HookError> {
    match ended.status {
        abi::OK => Ok(()),
        abi::ERROR | abi::BAD_REQUEST => {
            let kept = text.len().min(HOOK_MESSAGE_BYTES_MAX);
            let message = match kept {
                0 => "it gave no reason".to_owned(),
                kept => clean_text(&text[..kept], ended.overflowed || kept < text.len()),
            };
            Err(HookError::Refused { message })
        }
        STATUS_MISSING => Err(HookError::Missing),
        code => Err(HookError::Fault { code }),
    }
}

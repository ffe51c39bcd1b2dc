//! What every actor is given when it starts: the operator's choices and the ways to the other roles.
//!
//! Nothing here changes while the kernel runs, but for the number of the next generation and the marketplace's floors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use themis_messages::admit::AdmitError;
use themis_messages::audit::AuditEntry;
use themis_messages::ids::{GenerationId, PluginName, PluginVersion};
use themis_messages::lifecycle::{KernelFault, MapError};
use themis_messages::limits::{
    AUDIT_DEADLINE, AUDIT_QUEUE, CATALOG_QUEUE, COORDINATOR_QUEUE, EXPERIMENTS_QUEUE, PLUGIN_QUEUE,
    REGISTRY_QUEUE, WASM_FUEL_PER_CALL, WATCHDOG_QUEUE,
};
use themis_messages::mailbox::{Mailbox, Watched};
use themis_messages::manifest::Manifest;
use themis_messages::probation;
use themis_messages::sandbox::{Limits, Require, SandboxError};
use themis_sandbox::admission::{PluginRoot, Policy};
use themis_sandbox::process::Workers;
use themis_sandbox::wasm::{self, Wasm, WasmLimits};

use crate::ab::live::Experiments;
use crate::ab::manager::ExperimentsMsg;
use crate::audit::AuditMsg;
use crate::catalog::CatalogMsg;
use crate::coordinator::CoordinatorMsg;
use crate::drill::Drill;
use crate::events::Events;
use crate::plugin::failures;
use crate::registry::client::{RegistryMsg, RegistrySettings};
use crate::reload::budget::BudgetRules;
use crate::store::StoreMsg;
use crate::supervision::SupervisorMsg;
use crate::watchdog::WatchdogMsg;

/// The operator's choices.
#[derive(Debug)]
pub struct Settings {
    /// Where plugins lie.
    pub root: PluginRoot,
    /// Who and what may load.
    pub policy: Policy,
    /// A private directory for executable copies where memory files may not be executed.
    pub scratch: PathBuf,
    /// The operator's configuration of each plugin, laid over the manifest's.
    pub plugin_config: BTreeMap<PluginName, serde_json::Map<String, serde_json::Value>>,
    /// Limit of each hook.
    pub hook_deadline: Duration,
    /// How long a caller waits for a plugin that takes one call at a time.
    pub serial_wait: Duration,
    /// After this a replaced generation that is still leased is reported.
    pub drain_limit: Duration,
    /// For how long new leases may be held while state moves.
    pub hold_limit: Duration,
    /// How new versions are watched.
    pub probation: probation::Rules,
    /// How often a plugin may fail.
    pub failures: failures::Rules,
    /// How often each plugin is asked whether it is well. Zero asks never.
    pub health_period: Duration,
    /// What may be kept of replaced versions.
    pub budget: BudgetRules,
    /// Worker processes, or why there are none.
    pub workers: WorkerSettings,
    /// Wasm plugins.
    pub wasm: WasmSettings,
    /// The marketplace, where there is one.
    pub registry: Option<RegistrySettings>,
}

/// How wasm plugins run.
#[derive(Debug)]
pub struct WasmSettings {
    /// Started with the first wasm plugin: most of it is address space.
    engine: Arc<OnceLock<Result<Wasm, MapError>>>,
    /// Where compiled modules are kept; nowhere without.
    pub cache: Option<PathBuf>,
    /// Linear memory of a plugin that asks for none, in bytes.
    pub memory_bytes: u64,
    /// What no manifest may exceed.
    pub memory_bytes_max: u64,
    /// Fuel of a call of a plugin that asks for none; 0 is no limit.
    pub fuel_per_call: u64,
    /// What no manifest may exceed; with 0 a manifest may ask for calls without a limit.
    pub fuel_per_call_max: u64,
    /// Fuel of all calls until the next reload or restart; 0 is no limit.
    pub fuel_total: u64,
    /// How long one call may take.
    pub call_deadline: Duration,
    /// The operator's word about single plugins.
    pub plugins: BTreeMap<PluginName, WasmOverride>,
}

/// What the operator wants for one wasm plugin, instead of what it asks for and of the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct WasmOverride {
    /// Linear memory in bytes.
    pub memory_bytes: Option<u64>,
    /// How long one call may take.
    pub call_deadline: Option<Duration>,
    /// Fuel of one call; 0 is no limit.
    pub fuel_per_call: Option<u64>,
    /// Fuel of all calls; 0 is no limit.
    pub fuel_total: Option<u64>,
}

impl WasmSettings {
    /// For plugins that ask for nothing, and what no manifest may exceed.
    #[must_use]
    pub fn new(memory_bytes: u64, memory_bytes_max: u64, call_deadline: Duration) -> Self {
        Self {
            engine: Arc::default(),
            cache: None,
            memory_bytes,
            memory_bytes_max,
            fuel_per_call: WASM_FUEL_PER_CALL,
            fuel_per_call_max: 0,
            fuel_total: 0,
            call_deadline,
            plugins: BTreeMap::new(),
        }
    }

    /// What gives the engine of this kernel, or says why it cannot be set up. Blocks for some milliseconds the first time.
    pub fn engine(&self) -> impl FnOnce() -> Result<Wasm, MapError> + Send + 'static {
        let (memory_bytes_max, cache) = (self.memory_bytes_max, self.cache.clone());
        let options = wasm::Options { memory_bytes_max, cache };
        let engine = Arc::clone(&self.engine);
        move || engine.get_or_init(|| Wasm::start(&options)).clone()
    }

    /// The operator's word, else what the manifest asks for within the maxima, else the default. Fuel of zero is fuel
    /// without a limit.
    ///
    /// # Errors
    /// [`SandboxError::Limit`]: more than it may have is refused, not cut.
    pub fn limits_of(
        &self,
        manifest: &Manifest,
        hook_deadline: Duration,
    ) -> Result<WasmLimits, SandboxError> {
        let own = self.plugins.get(&manifest.name).copied().unwrap_or_default();
        let asked = &manifest.limits;
        if let Some(is) = asked.memory_bytes.filter(|is| *is > self.memory_bytes_max) {
            let (what, max) = ("limits.memory_bytes", self.memory_bytes_max);
            return Err(SandboxError::Limit { what, is, min: 1, max });
        }
        let memory_bytes = own.memory_bytes.or(asked.memory_bytes).unwrap_or(self.memory_bytes);
        let max = self.fuel_per_call_max;
        let beyond = |fuel: &u64| max > 0 && !(1..=max).contains(fuel);
        if let Some(is) = asked.fuel_per_call.filter(beyond) {
            return Err(SandboxError::Limit { what: "limits.fuel_per_call", is, min: 1, max });
        }
        let fuel = own.fuel_per_call.or(asked.fuel_per_call).unwrap_or(self.fuel_per_call);
        let limited = |units: u64| (units > 0).then_some(units);
        Ok(WasmLimits {
            memory_bytes,
            fuel_per_call: limited(fuel),
            fuel_total: limited(own.fuel_total.unwrap_or(self.fuel_total)),
            call_deadline: own.call_deadline.unwrap_or(self.call_deadline),
            hook_deadline,
        })
    }
}

/// How plugins run in worker processes.
#[derive(Debug)]
pub struct WorkerSettings {
    /// The workers; without them no plugin runs in one.
    pub workers: Result<Workers, SandboxError>,
    /// Limits of plugins that ask for nothing.
    pub limits: Limits,
    /// What no manifest may exceed.
    pub memory_bytes_max: u64,
    /// What no manifest may exceed, in percent of one core.
    pub cpu_percent_max: u32,
    /// The operator's word about single plugins.
    pub plugins: BTreeMap<PluginName, WorkerOverride>,
}

/// What the operator wants for one plugin, instead of what it asks for and of the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerOverride {
    /// How well it has to be confined.
    pub require: Require,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU in percent of one core.
    pub cpu_percent: Option<u32>,
    /// How long one call may take.
    pub call_deadline: Option<Duration>,
}

impl WorkerSettings {
    /// The operator's word, else what the manifest asks for within the maxima, else the default.
    ///
    /// # Errors
    /// [`SandboxError::Limit`]: more than it may have is refused, not cut.
    pub fn limits_of(
        &self,
        manifest: &Manifest,
        hook_deadline: Duration,
    ) -> Result<Limits, SandboxError> {
        let own = self.plugins.get(&manifest.name).copied().unwrap_or_default();
        let asked = &manifest.limits;
        let maxima = [
            ("limits.memory_bytes", asked.memory_bytes, self.memory_bytes_max),
            ("limits.cpu_percent", asked.cpu_percent.map(u64::from), self.cpu_percent_max.into()),
        ];
        for (what, is, max) in maxima {
            if let Some(is) = is.filter(|is| *is > max) {
                return Err(SandboxError::Limit { what, is, min: 1, max });
            }
        }
        let limits = Limits {
            memory_bytes: own
                .memory_bytes
                .or(asked.memory_bytes)
                .unwrap_or(self.limits.memory_bytes),
            cpu_percent: own.cpu_percent.or(asked.cpu_percent).unwrap_or(self.limits.cpu_percent),
            pids: asked.pids.unwrap_or(self.limits.pids),
            calls: self.limits.calls,
            call_deadline: own.call_deadline.unwrap_or(self.limits.call_deadline),
            hook_deadline,
        };
        limits.check()?;
        Ok(limits)
    }

    /// How well a plugin has to be confined.
    #[must_use]
    pub fn require_of(&self, plugin: &PluginName) -> Require {
        self.plugins.get(plugin).map(|own| own.require).unwrap_or_default()
    }
}

/// The queues of all roles, by role and not by incarnation.
#[derive(Debug, Clone)]
pub struct Roles {
    /// The open database.
    pub store: Arc<Mailbox<StoreMsg>>,
    /// The tail of the log.
    pub audit: Arc<Mailbox<AuditMsg>>,
    /// The marketplace's client.
    pub registry: Arc<Mailbox<RegistryMsg>>,
    /// Experiments between versions.
    pub experiments: Arc<Mailbox<ExperimentsMsg>>,
    /// Restarts store, audit and the marketplace's client.
    pub services: Arc<Mailbox<SupervisorMsg>>,
    /// Starts the actors of plugins.
    pub plugins: Arc<Mailbox<SupervisorMsg>>,
    /// Restarts catalog, coordinator and watchdog.
    pub control: Arc<Mailbox<SupervisorMsg>>,
    /// Which names exist.
    pub catalog: Arc<Mailbox<CatalogMsg>>,
    /// Accepts lifecycle requests.
    pub coordinator: Arc<Mailbox<CoordinatorMsg>>,
    /// Asks plugins and actors for signs of life.
    pub watchdog: Arc<Mailbox<WatchdogMsg>>,
}

impl Roles {
    /// Every role but those of single plugins.
    #[must_use]
    pub fn all(&self) -> [Arc<dyn Watched>; 10] {
        [
            Arc::clone(&self.services) as Arc<dyn Watched>,
            Arc::clone(&self.plugins) as Arc<dyn Watched>,
            Arc::clone(&self.control) as Arc<dyn Watched>,
            Arc::clone(&self.store) as Arc<dyn Watched>,
            Arc::clone(&self.audit) as Arc<dyn Watched>,
            Arc::clone(&self.registry) as Arc<dyn Watched>,
            Arc::clone(&self.experiments) as Arc<dyn Watched>,
            Arc::clone(&self.catalog) as Arc<dyn Watched>,
            Arc::clone(&self.coordinator) as Arc<dyn Watched>,
            Arc::clone(&self.watchdog) as Arc<dyn Watched>,
        ]
    }
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            store: Mailbox::new("store", CATALOG_QUEUE),
            audit: Mailbox::new("audit", AUDIT_QUEUE),
            registry: Mailbox::new("registry", REGISTRY_QUEUE),
            experiments: Mailbox::new("experiments", EXPERIMENTS_QUEUE),
            services: Mailbox::new("services", SUPERVISOR_QUEUE),
            plugins: Mailbox::new("plugins", PLUGIN_QUEUE),
            control: Mailbox::new("control", SUPERVISOR_QUEUE),
            catalog: Mailbox::new("catalog", CATALOG_QUEUE),
            coordinator: Mailbox::new("coordinator", COORDINATOR_QUEUE),
            watchdog: Mailbox::new("watchdog", WATCHDOG_QUEUE),
        }
    }
}

/// Requests waiting for a supervisor whose children are fixed.
const SUPERVISOR_QUEUE: usize = 64;

/// Given to every actor.
#[derive(Debug)]
pub struct Environment {
    /// The operator's choices.
    pub settings: Settings,
    /// The ways to the other roles.
    pub roles: Roles,
    /// Names that exist, as readers see them.
    pub directory: crate::catalog::Directory,
    /// Experiments that run, as callers see them.
    pub experiments: Experiments,
    /// Where events are told.
    pub events: Events,
    /// When the kernel started, for what is counted in windows of time.
    pub since: Instant,
    /// Faults on purpose; none outside tests.
    pub drill: Drill,
    /// Below which versions the marketplace lets nothing load any more, besides the configuration's own floors.
    floors: Mutex<BTreeMap<PluginName, PluginVersion>>,
    next_generation: AtomicU64,
}

impl Environment {
    /// Before any actor has started.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            roles: Roles::default(),
            directory: crate::catalog::Directory::default(),
            experiments: Experiments::default(),
            events: Events::default(),
            since: Instant::now(),
            drill: Drill::default(),
            floors: Mutex::default(),
            next_generation: AtomicU64::new(1),
        })
    }

    /// A number no generation of this kernel had.
    #[must_use]
    pub fn next_generation(&self) -> GenerationId {
        GenerationId(self.next_generation.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the marketplace still lets a version load.
    ///
    /// # Errors
    /// [`AdmitError::BelowFloor`].
    pub fn check_floor(
        &self,
        name: &PluginName,
        version: &PluginVersion,
    ) -> Result<(), AdmitError> {
        let floor = self.floors.lock().get(name).filter(|floor| version < *floor).cloned();
        let below = floor.map(|floor| AdmitError::BelowFloor {
            name: name.clone(),
            version: version.clone(),
            floor,
        });
        below.map_or(Ok(()), Err)
    }

    /// Sets a floor, higher or lower than it was, or takes it away; answers what it was.
    pub fn set_floor(
        &self,
        name: &PluginName,
        floor: Option<PluginVersion>,
    ) -> Option<PluginVersion> {
        let mut floors = self.floors.lock();
        match floor {
            Some(floor) => floors.insert(name.clone(), floor),
            None => floors.remove(name),
        }
    }

    /// Appends to the audit log and waits until the record is durable.
    ///
    /// # Errors
    /// [`KernelFault`]: then the record may be lost, and what it tells must not stand.
    pub async fn record(&self, entry: AuditEntry) -> Result<u64, KernelFault> {
        self.roles
            .audit
            .ask(AUDIT_DEADLINE, |reply| AuditMsg::Append { entry, durable: Some(reply) })
            .await?
    }

    /// Waits until everything appended before can be read.
    ///
    /// # Errors
    /// [`KernelFault`].
    pub async fn settle_audit(&self) -> Result<(), KernelFault> {
        self.roles.audit.ask(AUDIT_DEADLINE, |reply| AuditMsg::Settle { reply }).await
    }

    /// Appends to the audit log without waiting for the disk. Between two incarnations of the log the entry waits.
    pub fn note(&self, entry: AuditEntry) {
        self.roles.audit.tell(AuditMsg::Append { entry, durable: None });
    }
}

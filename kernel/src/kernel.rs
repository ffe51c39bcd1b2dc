//! The composition root: opens what is remembered, starts the actors, serves the admin socket and the metrics.
//!
//! ```text
//! start: config ─▶ plugin root ─▶ store ─▶ actors ─▶ autoload ─▶ admin socket, metrics
//! stop:  admin socket, metrics ─▶ plugins unload and drain ─▶ audit log durable ─▶ actors ─▶ store
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use themis_actors::ab::manager::ExperimentsMsg;
use themis_actors::environment::{
    Environment, Settings, WasmOverride, WasmSettings, WorkerOverride, WorkerSettings,
};
use themis_actors::plugin::PluginMsg;
use themis_actors::registry::graph::{Graph, Member};
use themis_actors::store::{StoreFault, StoreMsg};
use themis_actors::tree::{Health, Tree};
use themis_actors::work;
use themis_messages::admit::AdmitError;
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{Digest, Tier, named_by_place};
use themis_messages::lifecycle::{
    BudgetTotals, KernelFault, PluginInfo, Quarantine, ReleaseError, UnloadError,
};
use themis_messages::limits::{
    ADMIT_DEADLINE, ASK_DEADLINE, AUDIT_DEADLINE, HOLD_LIMIT_MAX, HOOK_DEADLINE, WORKER_PIDS,
};
use themis_messages::sandbox::{Limits, SandboxError};
use themis_persistence::audit_log::{AuditRecord, VerifyReport};
use themis_persistence::experiments::read_all;
use themis_persistence::registry::{NoteError, floors};
use themis_persistence::store::{Store, StoreError};
use themis_sandbox::admission::{self, Discovered, PluginRoot};
use themis_sandbox::process::{Options, Workers};
use tokio::sync::watch;

use crate::config::{Config, WorkersConfig};
use crate::events::Events;
use crate::experiments::{self, ExperimentManager};
use crate::marketplace::MarketplaceClient;
use crate::plugin_sandbox::PluginSandbox;
use crate::refs::{Control, HotReloadManager, PluginLoader, PluginRef};
use crate::runtime::Executor;
use crate::{admin, autoload, marketplace, metrics_endpoint};

/// Why the kernel does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plugin root cannot be trusted or opened.
    #[error("{0}")]
    PluginRoot(AdmitError),
    /// The store cannot be opened.
    #[error("{0}")]
    Store(StoreError),
    /// What the marketplace lets load cannot be read: without it, versions that were replaced for a reason would load.
    #[error("{0}")]
    Floors(NoteError),
    /// The directory for private copies of images cannot be made.
    #[error("{path}: cannot be made: {error}", path = path.display())]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// The admin socket cannot be served.
    #[error("{path}: the admin socket cannot be served: {error}", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// The metrics cannot be served.
    #[error("{listen}: metrics cannot be served: {error}")]
    Metrics {
        /// The address.
        listen: String,
        /// The system's words.
        error: String,
    },
    /// There is no runtime, or none could be started.
    #[error("no async runtime: {error}")]
    Runtime {
        /// The system's words.
        error: String,
    },
    /// An actor did not start, or the log takes no record.
    #[error("{0}")]
    Kernel(KernelFault),
}

impl StartError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PluginRoot(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Floors(_) => "registry.memory",
            Self::Scratch { .. } => "start.scratch",
            Self::Socket { .. } => "start.socket",
            Self::Metrics { .. } => "start.metrics",
            Self::Runtime { .. } => "start.runtime",
            Self::Kernel(fault) => fault.code(),
        }
    }
}

impl From<KernelFault> for StartError {
    fn from(fault: KernelFault) -> Self {
        Self::Kernel(fault)
    }
}

/// Worker processes as configured. Where there can be none, plugins that need one are told why when they are loaded.
fn workers(config: &Config) -> WorkerSettings {
    let limits = Limits {
        memory_bytes: config.limits.memory_bytes,
        cpu_percent: config.limits.cpu_percent,
        calls: config.workers.calls,
        pids: WORKER_PIDS.max(config.workers.calls + 2),
        call_deadline: config.call_deadline,
        hook_deadline: config.hook_deadline.min(HOOK_DEADLINE),
    };
    let WorkersConfig { program, pool, calls: _ } = config.workers.clone();
    let plugins = config.plugins.iter().map(|(name, plugin)| {
        let own = WorkerOverride {
            require: plugin.require,
            memory_bytes: plugin.limits.memory_bytes,
            cpu_percent: plugin.limits.cpu_percent,
            call_deadline: plugin.limits.call_deadline,
        };
        (name.clone(), own)
    });
    WorkerSettings {
        workers: Workers::start(Options { program, pool, pooled: limits }),
        limits,
        memory_bytes_max: config.limits.max.memory_bytes,
        cpu_percent_max: config.limits.max.cpu_percent,
        plugins: plugins.collect(),
    }
}

/// Wasm plugins as configured.
fn wasm(config: &Config) -> WasmSettings {
    let limits = &config.limits;
    let max = limits.max.wasm_memory_bytes;
    let mut settings = WasmSettings::new(limits.wasm_memory_bytes, max, config.call_deadline);
    settings.cache = Some(config.data_dir.join("compiled"));
    settings.fuel_per_call = limits.fuel_per_call;
    settings.fuel_per_call_max = limits.max.fuel_per_call;
    settings.fuel_total = limits.fuel_total;
    let own = |plugin: &crate::config::PluginConfig| WasmOverride {
        memory_bytes: plugin.limits.wasm_memory_bytes,
        call_deadline: plugin.limits.call_deadline,
        fuel_per_call: plugin.limits.fuel_per_call,
        fuel_total: plugin.limits.fuel_total,
    };
    settings.plugins =
        config.plugins.iter().map(|(name, plugin)| (name.clone(), own(plugin))).collect();
    settings
}

/// A running kernel.
///
/// Dropping it without [`Kernel::shutdown`] leaves its plugins mapped and its threads to the runtime.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) control: Control,
    tree: Tree,
    /// Ends the admin socket and the metrics when dropped.
    serving: watch::Sender<()>,
    metrics: Option<metrics_endpoint::Metrics>,
    store_closed: tokio::sync::oneshot::Receiver<()>,
}

impl Kernel {
    /// Starts on the tokio runtime this is called in.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let executor = Executor::current()
            .map_err(|error| StartError::Runtime { error: error.to_string() })?;
        Self::start_on(executor, config).await
    }

    /// Starts on threads of its own.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_blocking(config: Config) -> Result<Self, StartError> {
        let executor =
            Executor::start().map_err(|error| StartError::Runtime { error: error.to_string() })?;
        let started = executor.clone();
        executor.block(Self::start_on(started, config))?
    }

    async fn start_on(executor: Executor, config: Config) -> Result<Self, StartError> {
        let metrics = config.metrics_listen.map(metrics_endpoint::Metrics::install).transpose()?;
        themis_actors::telemetry::describe();
        let root = PluginRoot::open(&config.plugin_root).map_err(StartError::PluginRoot)?;
        let data_dir = config.data_dir.clone();
        let scratch = config.data_dir.join("images");
        let made = scratch.clone();
        let opened = work::run("store", AUDIT_DEADLINE, move || {
            let store = Store::open(&data_dir)?;
            let floors = floors(&store);
            let experiments = read_all(&store)?;
            Ok((store, floors, experiments, make_private(&made)))
        });
        let opened = opened.await;
        let (mut store, floors, experiments, made) = match opened {
            Ok(opened) => opened.map_err(StartError::Store)?,
            Err(error) => return Err(KernelFault::Audit { what: error.to_string() }.into()),
        };
        made.map_err(|error| StartError::Scratch {
            path: scratch.clone(),
            error: error.to_string(),
        })?;
        let (closed, store_closed) = tokio::sync::oneshot::channel();
        // Whoever waits for it may be gone.
        store.after_close(move || closed.send(()).unwrap_or_default());
        let environment = Environment::new(Settings {
            root,
            policy: config.policy(),
            scratch,
            plugin_config: config
                .plugins
                .iter()
                .map(|(name, plugin)| (name.clone(), plugin.config.clone()))
                .collect(),
            hook_deadline: config.hook_deadline.min(HOOK_DEADLINE),
            serial_wait: config.call_deadline,
            drain_limit: config.drain_limit,
            hold_limit: config.hold_limit.min(HOLD_LIMIT_MAX),
            probation: config.probation,
            failures: config.failures,
            health_period: config.health_period,
            budget: config.budget,
            workers: workers(&config),
            wasm: wasm(&config),
            registry: marketplace::settings(&config),
        });
        if let (Ok(workers), Tier::Process) =
            (&environment.settings.workers.workers, config.default_tier)
        {
            workers.prewarm();
        }
        for (plugin, floor) in floors.map_err(StartError::Floors)? {
            environment.set_floor(&plugin, Some(floor));
        }
        for read in experiments {
            experiments::restore(&environment, read);
        }
        let tree = Tree::start(Arc::clone(&environment), Arc::new(store)).await?;
        let control = Control { executor, environment, actor: "host".into() };
        let (serving, stopped) = watch::channel(());
        let kernel = Self { control, tree, serving, metrics, store_closed };
        autoload::run(&kernel, &config).await;
        kernel.serve(&config, stopped).await?;
        Ok(kernel)
    }

    /// Opens the admin socket and the metrics endpoint.
    async fn serve(&self, config: &Config, stopped: watch::Receiver<()>) -> Result<(), StartError> {
        if let Some(path) = &config.admin_socket {
            admin::serve(path, self.control.clone(), stopped.clone()).map_err(|error| {
                StartError::Socket { path: path.clone(), error: error.to_string() }
            })?;
        }
        if let Some(metrics) = &self.metrics {
            metrics.serve(Arc::clone(&self.control.environment), stopped).await?;
        }
        Ok(())
    }

    /// The plugin that serves under `name`: one load of a published map, one hash.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<PluginRef> {
        let slot = self.control.environment.directory.find(name)?;
        slot.is_serving().then(|| PluginRef::new(slot))
    }

    /// Loads plugins.
    #[must_use]
    pub fn loader(&self) -> PluginLoader {
        PluginLoader(self.control.clone())
    }

    /// Worker processes on their own, from the kernel's own pool.
    ///
    /// # Errors
    /// [`SandboxError`]: why there are none.
    pub fn sandboxes(&self) -> Result<PluginSandbox, SandboxError> {
        let workers = &self.control.environment.settings.workers.workers;
        workers.clone().map(PluginSandbox::of)
    }

    /// Replaces plugins and goes back.
    #[must_use]
    pub fn reloads(&self) -> HotReloadManager {
        HotReloadManager(self.control.clone())
    }

    /// Experiments between versions.
    #[must_use]
    pub fn experiments(&self) -> ExperimentManager {
        ExperimentManager(self.control.clone())
    }

    /// The marketplace, as configured.
    #[must_use]
    pub fn marketplace(&self) -> MarketplaceClient {
        MarketplaceClient(self.control.clone())
    }

    /// Stops a plugin: callers get [`NotLoaded`](crate::call::CallError::NotLoaded) at once, calls under way end,
    /// its shutdown hook runs. References to it stay valid for when it is loaded again.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// kernel.unload_blocking("geo")?;
    /// assert!(kernel.plugin("geo").is_none());
    /// # kernel.shutdown_blocking();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UnloadError`].
    pub async fn unload(&self, name: &str) -> Result<(), UnloadError> {
        self.control.unload(name).await
    }

    /// Blocking twin of [`Kernel::unload`].
    ///
    /// # Errors
    /// [`UnloadError`]; also when called on a runtime's thread.
    pub fn unload_blocking(&self, name: &str) -> Result<(), UnloadError> {
        self.control.executor.block(self.unload(name))?
    }

    /// Verifies everything below the plugin root, loading nothing. Each refusal is an audit record.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// for found in kernel.discover_blocking()? {
    ///     match found.result {
    ///         Ok(plugin) => println!("{} {}", plugin.manifest.name, plugin.manifest.version),
    ///         Err(error) => println!("{}: {error}", error.code()),
    ///     }
    /// }
    /// # kernel.shutdown_blocking();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AdmitError`] when the root cannot be read; a refused plugin is a result, not an error.
    pub async fn discover(&self) -> Result<Vec<Discovered>, AdmitError> {
        self.control.discover().await
    }

    /// Blocking twin of [`Kernel::discover`].
    ///
    /// # Errors
    /// As [`Kernel::discover`]; also when called on a runtime's thread.
    pub fn discover_blocking(&self) -> Result<Vec<Discovered>, AdmitError> {
        let refused = |fault: KernelFault| discover_fault(&fault);
        self.control.executor.block(self.discover()).map_err(refused)?
    }

    /// Every plugin that was ever loaded, by name.
    #[must_use]
    pub fn list(&self) -> Vec<PluginInfo> {
        self.control.list()
    }

    /// What happens from now on: loads, reloads with their progress, probations, restarts, quarantines. The stream
    /// is bounded and slows nobody; a subscriber that is too slow is told how many events it missed.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// use themis_kernel::event::LifecycleEvent;
    ///
    /// let mut events = kernel.subscribe();
    /// kernel.reloads().reload_module_blocking("geo", "geo/1.1.0")?;
    /// while let Some(event) = events.next_blocking()? {
    ///     match event.what {
    ///         LifecycleEvent::Progress { stage, .. } => println!("{stage}"),
    ///         LifecycleEvent::Serves { receipt } => {
    ///             println!("{} serves", receipt.to);
    ///             break;
    ///         }
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # kernel.shutdown_blocking();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(&self.control)
    }

    /// The plugins that serve, and what they need of each other.
    #[must_use]
    pub fn graph(&self) -> Graph {
        self.control.graph()
    }

    /// What is kept of all plugins' versions; of one plugin's, and why, is in its
    /// [`PluginInfo::budget`].
    #[must_use]
    pub fn budget(&self) -> BudgetTotals {
        self.control.budget()
    }

    /// Images that are not loaded until they are released, and why.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantine> {
        self.control.quarantined()
    }

    /// Releases what is quarantined of a plugin: one image, or all when no digest is given. It can be loaded again,
    /// with a clean record; nothing is loaded by this.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub async fn release(
        &self,
        name: &str,
        digest: Option<Digest>,
    ) -> Result<Vec<Quarantine>, ReleaseError> {
        self.control.release(name, digest).await
    }

    /// Blocking twin of [`Kernel::release`].
    ///
    /// # Errors
    /// [`ReleaseError`]; also when called on a runtime's thread.
    pub fn release_blocking(
        &self,
        name: &str,
        digest: Option<Digest>,
    ) -> Result<Vec<Quarantine>, ReleaseError> {
        self.control.executor.block(self.release(name, digest))?
    }

    /// Records of the audit log from number `from` on, at most `limit`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// for record in kernel.audit_records_blocking(0, 100)? {
    ///     println!("{} {:?} {:?}", record.seq, record.event, record.outcome);
    /// }
    /// let report = kernel.audit_verify_blocking()?;
    /// println!("{} records, unbroken", report.records);
    /// # kernel.shutdown_blocking();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StoreFault`].
    pub async fn audit_records(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreFault> {
        self.control.audit_records(from, limit).await
    }

    /// Blocking twin of [`Kernel::audit_records`].
    ///
    /// # Errors
    /// [`StoreFault`]; also when called on a runtime's thread.
    pub fn audit_records_blocking(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreFault> {
        self.control.executor.block(self.audit_records(from, limit))?
    }

    /// Replays the whole audit log.
    ///
    /// # Errors
    /// [`StoreFault::Broken`] names the first record that is not what was written.
    pub async fn audit_verify(&self) -> Result<VerifyReport, StoreFault> {
        self.control.audit_verify().await
    }

    /// Blocking twin of [`Kernel::audit_verify`].
    ///
    /// # Errors
    /// As [`Kernel::audit_verify`]; also when called on a runtime's thread.
    pub fn audit_verify_blocking(&self) -> Result<VerifyReport, StoreFault> {
        self.control.executor.block(self.audit_verify())?
    }

    /// The metrics as Prometheus reads them; `None` when the host owns the recorder.
    #[must_use]
    pub fn metrics_text(&self) -> Option<String> {
        let metrics = self.metrics.as_ref()?;
        Some(metrics.render(&self.control.environment))
    }

    /// Whether the kernel can still take lifecycle requests. When its actors fail faster than they may it becomes
    /// [`Health::Failed`]: loaded plugins go on serving, and the host decides.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.tree.health()
    }

    /// Ends in good order: no new requests, plugins drain and shut down, the audit log is made durable, the store
    /// is closed.
    ///
    /// ```
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// kernel.shutdown_blocking(); // or, in async code: kernel.shutdown().await
    /// ```
    pub async fn shutdown(self) {
        let Self { control, tree, serving, store_closed, .. } = self;
        let executor = control.executor.clone();
        let workers = control.environment.settings.workers.workers.clone();
        let environment = Arc::clone(&control.environment);
        drop(serving);
        drop(control);
        let stopped = executor.run(async move {
            let close = |reply| ExperimentsMsg::Close { reply };
            if let Err(fault) = environment.roles.experiments.ask(AUDIT_DEADLINE, close).await {
                tracing::error!(%fault, "what experiments have counted last is not kept");
            }
            drop(environment);
            tree.stop().await;
            if let Ok(workers) = workers
                && let Err(fault) = tokio::task::spawn_blocking(move || workers.close()).await
            {
                tracing::error!(%fault, "worker processes were not ended in good order");
            }
            let closed = tokio::time::timeout(AUDIT_DEADLINE, store_closed).await;
            if closed.is_err() {
                tracing::error!("the store is still in use; it closes with the process");
            }
        });
        if let Err(fault) = stopped.await {
            tracing::error!(%fault, "the kernel did not stop in good order");
        }
    }

    /// Blocking twin of [`Kernel::shutdown`]. On a runtime's thread it can only log that it was called there.
    pub fn shutdown_blocking(self) {
        let executor = self.control.executor.clone();
        if let Err(fault) = executor.block(self.shutdown()) {
            tracing::error!(%fault, "the kernel was not stopped");
        }
    }
}

impl Control {
    pub(crate) fn budget(&self) -> BudgetTotals {
        let rules = self.environment.settings.budget;
        let mut totals = BudgetTotals {
            generations: 0,
            leases: 0,
            images: 0,
            image_bytes: 0,
            image_bytes_max: rules.image_bytes,
            generations_max: rules.generations,
        };
        for plugin in self.list() {
            let budget = plugin.budget;
            totals.generations += budget.generations.len() as u64;
            totals.leases += budget.generations.iter().map(|it| it.leases).sum::<u64>();
            totals.images += budget.images;
            totals.image_bytes += budget.image_bytes;
        }
        totals
    }

    pub(crate) fn graph(&self) -> Graph {
        let slots = self.environment.directory.slots().into_iter();
        let members = slots.filter_map(|slot| slot.current()).map(|serving| {
            let manifest = &serving.generation.manifest;
            let (version, needs) = (manifest.version.clone(), manifest.dependencies.clone());
            (manifest.name.clone(), Member { version, needs })
        });
        Graph::new(members.collect())
    }

    pub(crate) fn quarantined(&self) -> Vec<Quarantine> {
        let slots = self.environment.directory.slots();
        slots.into_iter().flat_map(|slot| slot.ledger().quarantined()).collect()
    }

    pub(crate) async fn release(
        &self,
        plugin: &str,
        digest: Option<Digest>,
    ) -> Result<Vec<Quarantine>, ReleaseError> {
        let name = self.known(plugin, |plugin| ReleaseError::NotQuarantined { plugin })?;
        let (environment, actor) = (Arc::clone(&self.environment), self.actor.to_string());
        let answer = self.executor.run(async move {
            let Some(slot) = environment.directory.find(name.as_str()) else {
                return Ok(Err(ReleaseError::NotQuarantined { plugin: name }));
            };
            let release = |reply| PluginMsg::Release { digest, actor, reply };
            slot.mailbox().ask(ASK_DEADLINE, release).await
        });
        answer.await??
    }

    pub(crate) fn list(&self) -> Vec<PluginInfo> {
        self.environment.directory.slots().into_iter().map(|slot| slot.info()).collect()
    }

    pub(crate) async fn discover(&self) -> Result<Vec<Discovered>, AdmitError> {
        let environment = Arc::clone(&self.environment);
        let scanned = self.executor.run(work::run("discover", ADMIT_DEADLINE, move || {
            let settings = &environment.settings;
            admission::discover(&settings.root, &settings.policy, jiff::Timestamp::now())
        }));
        let found = match scanned.await {
            Ok(Ok(found)) => found?,
            Ok(Err(error)) => return Err(discover_fault(&error)),
            Err(fault) => return Err(discover_fault(&fault)),
        };
        for refused in found.iter() {
            if let Err(error) = &refused.result {
                self.note_refusal(&refused.path, error);
            }
        }
        Ok(found)
    }

    fn note_refusal(&self, path: &Path, error: &AdmitError) {
        let actor = self.actor.as_ref();
        let mut entry = AuditEntry::new(AuditEvent::Discover, AuditOutcome::Refused, actor);
        (entry.plugin, entry.version) = named_by_place(path).unzip();
        entry.code = Some(error.code().to_owned());
        entry.reason = Some(error.to_string());
        self.environment.note(entry);
        metrics::counter!("themis_refusals_total", "reason" => error.code()).increment(1);
    }

    pub(crate) async fn audit_records(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreFault> {
        let environment = Arc::clone(&self.environment);
        let answer = self.executor.run(async move {
            environment.settle_audit().await?;
            let store = &environment.roles.store;
            store.ask(AUDIT_DEADLINE, |reply| StoreMsg::ReadAudit { from, limit, reply }).await
        });
        answer.await??
    }

    pub(crate) async fn audit_verify(&self) -> Result<VerifyReport, StoreFault> {
        let environment = Arc::clone(&self.environment);
        let answer = self.executor.run(async move {
            environment.settle_audit().await?;
            let store = &environment.roles.store;
            store.ask(AUDIT_DEADLINE, |reply| StoreMsg::VerifyAudit { reply }).await
        });
        answer.await??
    }
}

/// A directory for this user alone; one that is there already is checked when it is used.
fn make_private(path: &Path) -> Result<(), std::io::Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Discovery that could not be carried out at all.
fn discover_fault(error: &dyn std::fmt::Display) -> AdmitError {
    AdmitError::Io {
        path: PathBuf::new(),
        action: "scan the plugin root",
        error: error.to_string(),
    }
}

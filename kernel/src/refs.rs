//! The typed references a host holds. No actor reference leaves this crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use themis_actors::coordinator::CoordinatorMsg;
use themis_actors::environment::Environment;
use themis_actors::lease::HeldServing;
use themis_actors::reload::Request;
use themis_actors::reload::member::{Replaces, Target};
use themis_actors::slot::Slot;
use themis_messages::call::{Answer, CallError, Method, ServedBy};
use themis_messages::ids::PluginName;
use themis_messages::lifecycle::{
    KernelFault, LoadError, LoadRequest, Operation, PluginInfo, ReloadError, ReloadReceipt,
    RollbackError, UnloadError,
};
use themis_messages::limits::{OPERATION_DEADLINE, ROLLBACK_DEADLINE, SHUTDOWN_DEADLINE};
use themis_messages::manifest::Manifest;
use themis_sandbox::admission::gpg::{Gpg, GpgResult, GpgRunError};
use themis_sandbox::admission::{self, PublicKey, Verified, VerifyError};
use tracing::Instrument as _;

use crate::experiments::Served;
use crate::runtime::Executor;

/// A plugin by name. Stays valid across reloads, rollbacks, unloads and restarts; copying it is free.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (_site, kernel) = themis_tests::Site::of_examples_running();
/// let geo = kernel.plugin("geo").ok_or("not loaded")?;
/// let answer = geo.call("echo", b"hello")?;
/// assert_eq!(answer.bytes, b"hello");
/// assert_eq!(answer.served_by.version.to_string(), "1.0.0");
/// # kernel.shutdown_blocking();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct PluginRef {
    slot: &'static Slot,
}

impl PluginRef {
    pub(crate) fn new(slot: &'static Slot) -> Self {
        Self { slot }
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        self.slot.name()
    }

    /// Calls the serving version on this thread: no lock, no message.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call<'m>(
        &self,
        method: impl Into<Method<'m>>,
        request: &[u8],
    ) -> Result<Answer, CallError> {
        let mut bytes = Vec::new();
        let served_by = self.call_into(method, request, &mut bytes)?;
        Ok(Answer { bytes, served_by })
    }

    /// As [`PluginRef::call`], appending the reply to a buffer the caller reuses.
    ///
    /// # Errors
    /// [`CallError`]; `reply` is then as it was.
    pub fn call_into<'m>(
        &self,
        method: impl Into<Method<'m>>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<ServedBy, CallError> {
        self.slot.call_into(method.into(), request, reply)
    }

    /// Calls the version that this unit gets: while there is an experiment the same one for ever, else what serves. The answer
    /// says to whom the unit's outcomes are to be told. A unit is whatever is to see one version, such as a user.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call_for<'m>(
        &self,
        unit: &[u8],
        method: impl Into<Method<'m>>,
        request: &[u8],
    ) -> Result<Served, CallError> {
        let mut bytes = Vec::new();
        let (served_by, assigned) = self.slot.call_for(unit, method.into(), request, &mut bytes)?;
        Ok(Served { answer: Answer { bytes, served_by }, assigned })
    }

    /// Calls off this task's thread: plugins may block.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// # let geo = kernel.plugin("geo").ok_or("not loaded")?;
    /// # let answer = themis_tests::block_on(async {
    /// geo.call_async("echo", b"hello".to_vec()).await
    /// # })?;
    /// # assert_eq!(answer.bytes, b"hello");
    /// # kernel.shutdown_blocking();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`]; `Abandoned` outside a tokio runtime.
    pub async fn call_async(
        &self,
        method: impl Into<Method<'_>>,
        request: Vec<u8>,
    ) -> Result<Answer, CallError> {
        let abandoned = |what| CallError::Abandoned { plugin: self.name().clone(), what };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(abandoned("call_async needs a tokio runtime".to_owned()));
        };
        let (this, method) = (*self, method.into());
        let request = match self.slot.start_call(method, request) {
            Ok(call) => return call.await,
            Err(request) => request,
        };
        let owned = OwnedMethod::from(method);
        let call = runtime.spawn_blocking(move || this.call(owned.as_method(), &request));
        call.await.unwrap_or_else(|error| Err(abandoned(error.to_string())))
    }

    /// Holds the serving version over many calls, so that one statement sees one version throughout.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_site, kernel) = themis_tests::Site::of_examples_running();
    /// let geo = kernel.plugin("geo").ok_or("not loaded")?;
    /// let lease = geo.lease()?;
    /// kernel.reloads().reload_module_blocking("geo", "geo/1.1.0")?;
    /// assert_eq!(lease.call("version", b"")?.bytes, b"1.0.0"); // held
    /// assert_eq!(geo.call("version", b"")?.bytes, b"1.1.0"); // serving
    /// # drop(lease);
    /// # kernel.shutdown_blocking();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError::NotLoaded`] or [`CallError::Quarantined`].
    pub fn lease(&self) -> Result<Lease, CallError> {
        Ok(Lease { slot: self.slot, held: self.slot.hold()? })
    }

    /// What is known of the plugin.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        self.slot.info()
    }

    /// Fuel that is left to a wasm plugin, in units: of its total where it has one, else of what its last call might have
    /// used; [`u64::MAX`] when neither has a limit. `None` when what serves is no wasm plugin, or nothing serves.
    #[must_use]
    pub fn remaining_fuel(&self) -> Option<u64> {
        self.slot.info().usage?.fuel_remaining
    }
}

/// A method that can cross threads.
enum OwnedMethod {
    Id(u32),
    Name(String),
}

impl From<Method<'_>> for OwnedMethod {
    fn from(method: Method<'_>) -> Self {
        match method {
            Method::Id(id) => Self::Id(id),
            Method::Name(name) => Self::Name(name.to_owned()),
        }
    }
}

impl OwnedMethod {
    fn as_method(&self) -> Method<'_> {
        match self {
            Self::Id(id) => Method::Id(*id),
            Self::Name(name) => Method::Name(name),
        }
    }
}

/// One version held over many calls. Holding it delays the end of a replaced version, never its replacement.
#[derive(Debug)]
pub struct Lease {
    slot: &'static Slot,
    held: HeldServing,
}

impl Lease {
    /// Calls the held version.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call<'m>(
        &self,
        method: impl Into<Method<'m>>,
        request: &[u8],
    ) -> Result<Answer, CallError> {
        let mut bytes = Vec::new();
        let served_by = self.call_into(method, request, &mut bytes)?;
        Ok(Answer { bytes, served_by })
    }

    /// As [`Lease::call`], appending to a buffer the caller reuses.
    ///
    /// # Errors
    /// [`CallError`]; `reply` is then as it was.
    pub fn call_into<'m>(
        &self,
        method: impl Into<Method<'m>>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<ServedBy, CallError> {
        self.slot.call_held(&self.held, method.into(), request, reply)
    }
}

/// Way of all lifecycle requests.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) executor: Executor,
    pub(crate) environment: Arc<Environment>,
    /// Who asks, for the audit log.
    pub(crate) actor: Arc<str>,
}

impl Control {
    /// Loads or replaces one plugin.
    pub(crate) async fn replace(
        &self,
        replaces: Option<PluginName>,
        load: LoadRequest,
    ) -> Result<ReloadReceipt, LoadError> {
        let (operation, replaces) = match replaces {
            Some(plugin) => (Operation::Reload, Replaces::Plugin(plugin)),
            None => (Operation::Load, Replaces::Nothing),
        };
        let receipts =
            self.change(operation, vec![Target::Files { load: Box::new(load), replaces }]).await?;
        let stopped = KernelFault::Stopped { role: "reload" };
        receipts.into_iter().next().ok_or(LoadError::Kernel(stopped))
    }

    /// Loads or replaces several together, or none of them.
    pub(crate) async fn replace_set(
        &self,
        loads: Vec<LoadRequest>,
    ) -> Result<Vec<ReloadReceipt>, LoadError> {
        let replaces = Replaces::Whatever;
        let targets = loads.into_iter().map(|load| {
            let replaces = replaces.clone();
            Target::Files { load: Box::new(load), replaces }
        });
        self.change(Operation::Reload, targets.collect()).await
    }

    async fn change(
        &self,
        operation: Operation,
        targets: Vec<Target>,
    ) -> Result<Vec<ReloadReceipt>, LoadError> {
        let (environment, actor) = (Arc::clone(&self.environment), self.actor.to_string());
        let requested = Instant::now();
        let limit = OPERATION_DEADLINE
            .saturating_mul(u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1));
        let answer = self.executor.run(async move {
            let ask = environment.roles.coordinator.ask(limit, |reply| {
                let request = Request { operation, targets, actor, requested, reply };
                CoordinatorMsg::Replace(Box::new(request))
            });
            ask.await
        });
        answer.await??
    }

    pub(crate) async fn rollback_set(
        &self,
        plugins: &[&str],
    ) -> Result<Vec<ReloadReceipt>, RollbackError> {
        let not_loaded = |plugin| RollbackError::NotLoaded { plugin };
        let names = plugins.iter().map(|plugin| self.known(plugin, not_loaded));
        let plugins = names.collect::<Result<Vec<_>, _>>()?;
        let (environment, actor) = (Arc::clone(&self.environment), self.actor.to_string());
        let requested = Instant::now();
        let answer = self.executor.run(async move {
            let ask = environment.roles.coordinator.ask(OPERATION_DEADLINE, |reply| {
                CoordinatorMsg::RollbackSet { plugins, actor, requested, reply }
            });
            ask.await
        });
        answer.await??
    }

    /// Waits until nothing of the plugin is on probation; answers how what serves then came to serve.
    pub(crate) async fn settled(
        &self,
        plugin: &str,
    ) -> Result<Option<ReloadReceipt>, RollbackError> {
        let name = self.known(plugin, |plugin| RollbackError::NotLoaded { plugin })?;
        let environment = Arc::clone(&self.environment);
        let answer = self.executor.run(async move {
            let slot = environment.directory.find(name.as_str())?;
            let mut ledger = slot.watch_ledger();
            // The slot lives for good, and so does its side of the channel.
            let settled = ledger.wait_for(|ledger| ledger.probation().is_none()).await.ok()?;
            settled.receipt().cloned()
        });
        Ok(answer.await?)
    }

    pub(crate) async fn rollback(&self, plugin: &str) -> Result<ReloadReceipt, RollbackError> {
        let plugin = self.known(plugin, |plugin| RollbackError::NotLoaded { plugin })?;
        let (environment, actor) = (Arc::clone(&self.environment), self.actor.to_string());
        let requested = Instant::now();
        let span = tracing::info_span!("plugin", operation = "rollback", name = %plugin);
        let answer = self.executor.run(async move {
            let ask = environment.roles.coordinator.ask(ROLLBACK_DEADLINE, |reply| {
                CoordinatorMsg::Rollback { plugin, actor, requested, reply }
            });
            ask.instrument(span).await
        });
        answer.await??
    }

    pub(crate) async fn unload(&self, plugin: &str) -> Result<(), UnloadError> {
        let plugin = self.known(plugin, |plugin| UnloadError::NotLoaded { plugin })?;
        let (environment, actor) = (Arc::clone(&self.environment), self.actor.to_string());
        let name = plugin.clone();
        let answer = self.executor.run(async move {
            let ask = environment.roles.coordinator.ask(UNLOAD_DEADLINE, |reply| {
                CoordinatorMsg::Unload { plugin: name, actor, reply }
            });
            ask.await
        });
        match answer.await? {
            // It was told at once; what it waits for is its callers.
            Err(KernelFault::NoAnswer { limit, .. }) => Err(UnloadError::Leased { plugin, limit }),
            answered => answered?,
        }
    }

    /// A text that is no name belongs to no plugin.
    pub(crate) fn known<E: From<KernelFault>>(
        &self,
        plugin: &str,
        not_loaded: impl FnOnce(PluginName) -> E,
    ) -> Result<PluginName, E> {
        match plugin.parse::<PluginName>() {
            Ok(name) if self.environment.directory.find(name.as_str()).is_some() => Ok(name),
            Ok(name) => Err(not_loaded(name)),
            Err(error) => Err(KernelFault::BadName { what: error.to_string() }.into()),
        }
    }
}

/// An unload waits for the leases under way, and then for the shutdown hook.
const UNLOAD_DEADLINE: std::time::Duration = SHUTDOWN_DEADLINE;

/// Loads plugins.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (_site, kernel) = themis_tests::Site::of_examples_running();
/// let text = kernel.loader().load_blocking("text/1.0.0", None)?;
/// assert_eq!(text.name().as_str(), "text");
///
/// let refused = kernel.loader().load_blocking("../elsewhere", None).unwrap_err();
/// println!("{}: {refused}", refused.code());
/// # kernel.shutdown_blocking();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PluginLoader(pub(crate) Control);

impl PluginLoader {
    /// Verifies, maps, initialises and publishes the plugin at `path`: a directory below the plugin root, or a
    /// library with its detached signature. Returns once its audit record is durable.
    ///
    /// A `manifest` must equal the signed one; for a detached binary it names the methods.
    ///
    /// # Errors
    /// [`LoadError`]: refused, failed, or not carried out; nothing serves then that did not before.
    pub async fn load(
        &self,
        path: impl Into<PathBuf>,
        manifest: Option<Manifest>,
    ) -> Result<PluginRef, LoadError> {
        let request = LoadRequest { manifest, ..LoadRequest::at(path) };
        let receipt = self.load_request(request).await?;
        self.found(receipt)
    }

    fn found(&self, receipt: ReloadReceipt) -> Result<PluginRef, LoadError> {
        match self.0.environment.directory.find(receipt.plugin.as_str()) {
            Some(slot) => Ok(PluginRef::new(slot)),
            None => Err(LoadError::NotLoaded { plugin: receipt.plugin }),
        }
    }

    /// As [`PluginLoader::load`], with a tier of the caller's choice, answering the receipt.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load_request(&self, request: LoadRequest) -> Result<ReloadReceipt, LoadError> {
        self.0.replace(None, request).await
    }

    /// As [`PluginLoader::load_blocking`], with a tier of the caller's choice.
    ///
    /// # Errors
    /// [`LoadError`]; also when called on a runtime's thread.
    pub fn load_request_blocking(&self, request: LoadRequest) -> Result<PluginRef, LoadError> {
        let receipt = self.0.executor.block(self.load_request(request))??;
        self.found(receipt)
    }

    /// Blocking twin of [`PluginLoader::load`].
    ///
    /// # Errors
    /// [`LoadError`]; also when called on a runtime's thread.
    pub fn load_blocking(
        &self,
        path: impl Into<PathBuf>,
        manifest: Option<Manifest>,
    ) -> Result<PluginRef, LoadError> {
        self.0.executor.block(self.load(path, manifest))?
    }
}

/// Replaces loaded plugins and goes back.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (_site, kernel) = themis_tests::Site::of_examples_running();
/// let receipt = kernel.reloads().reload_module_blocking("geo", "geo/1.1.0")?;
/// assert_eq!(receipt.to.to_string(), "1.1.0");
/// let receipt = kernel.reloads().rollback_blocking("geo")?;
/// assert_eq!(receipt.to.to_string(), "1.0.0");
/// # kernel.shutdown_blocking();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HotReloadManager(pub(crate) Control);

impl HotReloadManager {
    /// Prepares the version at `path` beside the serving one, proves it, swaps, drains the old one.
    ///
    /// # Errors
    /// [`ReloadError`]: the old version still serves and no caller noticed.
    pub async fn reload_module(
        &self,
        name: &str,
        path: impl Into<PathBuf>,
    ) -> Result<ReloadReceipt, ReloadError> {
        self.reload_request(name, LoadRequest::at(path)).await
    }

    /// As [`HotReloadManager::reload_module`], with manifest or tier of the caller's choice.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub async fn reload_request(
        &self,
        name: &str,
        request: LoadRequest,
    ) -> Result<ReloadReceipt, ReloadError> {
        let name = self.0.known(name, |plugin| ReloadError::NotLoaded { plugin })?;
        self.0.replace(Some(name), request).await
    }

    /// Blocking twin of [`HotReloadManager::reload_module`].
    ///
    /// # Errors
    /// [`ReloadError`]; also when called on a runtime's thread.
    pub fn reload_module_blocking(
        &self,
        name: &str,
        path: impl Into<PathBuf>,
    ) -> Result<ReloadReceipt, ReloadError> {
        self.0.executor.block(self.reload_module(name, path))?
    }

    /// Reloads plugins that depend on each other: all of them or none, what is needed before what needs it. Plugins
    /// that are not loaded yet may be among them. The swaps follow each other within microseconds; a caller of two
    /// plugins may see one of them changed before the other.
    ///
    /// On probation they stand together as well: when one is swapped back, all are.
    ///
    /// # Errors
    /// [`ReloadError`] of the first plugin that failed: everything serves as before.
    pub async fn reload_set(
        &self,
        paths: impl IntoIterator<Item = impl Into<PathBuf>>,
    ) -> Result<Vec<ReloadReceipt>, ReloadError> {
        self.0.replace_set(paths.into_iter().map(LoadRequest::at).collect()).await
    }

    /// Blocking twin of [`HotReloadManager::reload_set`].
    ///
    /// # Errors
    /// [`ReloadError`]; also when called on a runtime's thread.
    pub fn reload_set_blocking(
        &self,
        paths: impl IntoIterator<Item = impl Into<PathBuf>>,
    ) -> Result<Vec<ReloadReceipt>, ReloadError> {
        self.0.executor.block(self.reload_set(paths))?
    }

    /// Rolls several plugins back together, or none of them.
    ///
    /// # Errors
    /// [`RollbackError`] of the first plugin that cannot go back: everything serves as before.
    pub async fn rollback_set(&self, names: &[&str]) -> Result<Vec<ReloadReceipt>, RollbackError> {
        self.0.rollback_set(names).await
    }

    /// Blocking twin of [`HotReloadManager::rollback_set`].
    ///
    /// # Errors
    /// [`RollbackError`]; also when called on a runtime's thread.
    pub fn rollback_set_blocking(
        &self,
        names: &[&str],
    ) -> Result<Vec<ReloadReceipt>, RollbackError> {
        self.0.executor.block(self.rollback_set(names))?
    }

    /// Waits until the plugin's version has passed its probation or was swapped back; answers the receipt of what
    /// serves then. After a swap back that is [`Operation::SwapBack`], with what was seen in
    /// [`evidence`](ReloadReceipt::evidence).
    ///
    /// # Errors
    /// [`RollbackError::NotLoaded`] when no such plugin is known.
    pub async fn settled(&self, name: &str) -> Result<Option<ReloadReceipt>, RollbackError> {
        self.0.settled(name).await
    }

    /// Blocking twin of [`HotReloadManager::settled`].
    ///
    /// # Errors
    /// As [`HotReloadManager::settled`]; also when called on a runtime's thread.
    pub fn settled_blocking(&self, name: &str) -> Result<Option<ReloadReceipt>, RollbackError> {
        self.0.executor.block(self.settled(name))?
    }

    /// Swaps back to the previous version, which is still initialised. Does not wait for the disk.
    ///
    /// # Errors
    /// [`RollbackError`]: what served still serves.
    pub async fn rollback(&self, name: &str) -> Result<ReloadReceipt, RollbackError> {
        self.0.rollback(name).await
    }

    /// Blocking twin of [`HotReloadManager::rollback`].
    ///
    /// # Errors
    /// [`RollbackError`]; also when called on a runtime's thread.
    pub fn rollback_blocking(&self, name: &str) -> Result<ReloadReceipt, RollbackError> {
        self.0.executor.block(self.rollback(name))?
    }
}

/// Checks detached signatures; needs no kernel.
#[derive(Debug, Clone, Copy)]
pub struct SignatureVerifier;

impl SignatureVerifier {
    /// Whether `signature` is a strict Ed25519 signature by `key` over the bytes of `binary`.
    ///
    /// ```
    /// use themis_kernel::SignatureVerifier;
    /// use themis_kernel::admission::{PublicKey, SigningKey, sign_detached};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let _site = themis_tests::Site::of_examples();
    /// # let (binary, signature) = ("themis.toml".as_ref(), "themis.toml.sig".as_ref());
    /// sign_detached(binary, signature, &SigningKey::from_pem_file("test.key.pem".as_ref())?)?;
    /// let key = PublicKey::from_pem_file("test.pub.pem".as_ref())?;
    /// SignatureVerifier::verify(binary, signature, &key)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VerifyError`] says which file and why.
    pub fn verify(
        binary: &Path,
        signature: &Path,
        key: &PublicKey,
    ) -> Result<Verified, VerifyError> {
        admission::verify_detached(binary, signature, key)
    }

    /// What `gpg --verify` makes of a detached OpenPGP signature: its exit code and its words, and no judgement, because
    /// exit code 0 alone is no trust. Whether a pinned key has signed is what [`Gpg::verify`] says. At most 30 s.
    ///
    /// ```no_run
    /// use themis_kernel::SignatureVerifier;
    /// use themis_kernel::admission::gpg::Gpg;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gpg = Gpg::new("/usr/bin/gpg", "/etc/themis/gpg", "/etc/themis/gpg/publishers.gpg");
    /// let result =
    ///     SignatureVerifier::run_gpg_verify(&gpg, "plugin.so.asc".as_ref(), "plugin.so".as_ref())?;
    /// println!("gpg ended with {:?}", result.exit_code);
    ///
    /// let pinned = ["0123456789ABCDEF0123456789ABCDEF01234567".parse()?].into();
    /// gpg.verify("plugin.so.asc".as_ref(), "plugin.so".as_ref(), &pinned)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`GpgRunError`]: gpg was not run, or not to its end.
    pub fn run_gpg_verify(gpg: &Gpg, sig: &Path, file: &Path) -> Result<GpgResult, GpgRunError> {
        gpg.run_gpg_verify(sig, file)
    }
}

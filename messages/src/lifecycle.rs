//! Load, reload, rollback, unload: requests, receipts, information and errors.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::admit::AdmitError;
use crate::ids::{Digest, GenerationId, KeyId, PluginName, PluginVersion, Tier};
use crate::instance::HookError;
use crate::manifest::Manifest;
use crate::probation::Evidence;
use crate::sandbox::{Isolation, SandboxError, Usage};

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// A plugin directory, or a shared library with its detached `.sig` beside it; relative paths are
    /// relative to the plugin root.
    pub path: PathBuf,
    /// Must equal the signed manifest when there is one; gives a detached binary its methods.
    pub manifest: Option<Manifest>,
    /// Overrides the configured tier.
    pub tier: Option<Tier>,
}

impl LoadRequest {
    /// Loads what lies at `path` as the configuration says.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), manifest: None, tier: None }
    }
}

/// The stages of a load or reload, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::EnumIter)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Files are read, verified and pre-flighted.
    Admitting,
    /// The right to change the plugin is taken, and what it depends on is checked.
    Claiming,
    /// The intent is being made durable.
    Recording,
    /// The image is mapped; constructors run.
    Loading,
    /// The init hook runs.
    Initialising,
    /// Health and self-tests run.
    Probing,
    /// New leases are held while the old version's state goes to the new one.
    HandingOver,
    /// The pointer is swapped.
    Swapping,
    /// The outcome is being made durable.
    Settling,
}

impl Stage {
    /// As written in errors, events, metrics and the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitting => "admitting",
            Self::Claiming => "claiming",
            Self::Recording => "recording",
            Self::Loading => "loading",
            Self::Initialising => "initialising",
            Self::Probing => "probing",
            Self::HandingOver => "handing-over",
            Self::Swapping => "swapping",
            Self::Settling => "settling",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an image could not be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The system's loader refused it.
    #[error("the system loader refused the image: {what}")]
    Loader {
        /// Its words.
        what: String,
    },
    /// The wasm engine does not take it, or cannot be set up.
    #[error("the wasm engine refused it: {what}")]
    Compile {
        /// Its words.
        what: String,
    },
    /// What is mapped is not what was verified.
    #[error("the mapped image is not the verified one: {what}")]
    NotTheVerifiedImage {
        /// What differs.
        what: String,
    },
    /// The descriptor in memory differs from the one in the file.
    #[error("the mapped descriptor differs from the verified file in {field}")]
    DescriptorChanged {
        /// The field.
        field: &'static str,
    },
    /// A required entry of the descriptor is NULL.
    #[error("the descriptor's {entry} is NULL")]
    NullEntry {
        /// The entry.
        entry: &'static str,
    },
    /// A constructor hung: the system's loader lock is held for good.
    #[error(
        "in-process loading has stopped: a constructor of {plugin} never returned and holds the system loader's lock; restart the host to load in-process again"
    )]
    LoaderStuck {
        /// Whose constructor.
        plugin: String,
    },
    /// Too many images are mapped.
    #[error("{mapped} images are mapped, the limit is {max}: restart the host")]
    TooManyImages {
        /// How many.
        mapped: usize,
        /// The limit.
        max: usize,
    },
    /// Mapping did not end in time.
    #[error("mapping did not end within {limit:?}: a constructor hangs")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// The mapping's thread could not be started, or died.
    #[error("the mapping's thread failed: {what}")]
    Thread {
        /// What the system said.
        what: String,
    },
}

impl MapError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Loader { .. } => "map.loader",
            Self::Compile { .. } => "map.compile",
            Self::NotTheVerifiedImage { .. } => "map.not_the_verified_image",
            Self::DescriptorChanged { .. } => "map.descriptor_changed",
            Self::NullEntry { .. } => "map.null_entry",
            Self::LoaderStuck { .. } => "map.loader_stuck",
            Self::TooManyImages { .. } => "map.too_many_images",
            Self::Deadline { .. } => "map.deadline",
            Self::Thread { .. } => "map.thread",
        }
    }
}

/// What a self-test or health check found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The health hook.
    #[error("health check: {0}")]
    Health(HookError),
    /// A self-test's answer is not the expected one.
    #[error("self-test {index} ({method}): {what}")]
    SelfTest {
        /// Its place in the manifest, from 0.
        index: usize,
        /// Its method.
        method: String,
        /// What came instead.
        what: String,
    },
    /// The self-tests did not end in time.
    #[error("the self-tests did not end within {limit:?}")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
}

/// Why the state of a version did not reach the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// Callers were inside for longer than new leases may be held.
    #[error("calls or leases on the serving version did not end within {limit:?}")]
    Leased {
        /// The limit.
        limit: Duration,
    },
    /// The serving version did not save its state.
    #[error("save_state of the serving version: {0}")]
    Save(HookError),
    /// The new version did not take the state.
    #[error("reload of the new version: {0}")]
    Take(HookError),
    /// It took longer than new leases may be held: calls have gone on with the serving version.
    #[error("the hand-over took longer than {limit:?}, for which new leases may be held")]
    Lapsed {
        /// The limit.
        limit: Duration,
    },
    /// Something else took over meanwhile.
    #[error("another version serves by now")]
    Overtaken,
}

impl HandOverError {
    /// Whether the version that was to take the state failed, and not the one that serves. A hook that took longer than
    /// callers may wait has not failed for that: a busy machine is enough. Whether it ever ends is seen when the
    /// candidate is shut down.
    #[must_use]
    pub const fn is_takers_fault(&self) -> bool {
        matches!(self, Self::Take(error) if !matches!(error, HookError::Deadline { .. }))
    }

    /// Whether it was called off for want of time, and another try may succeed.
    #[must_use]
    pub const fn is_for_time(&self) -> bool {
        matches!(
            self,
            Self::Leased { .. }
                | Self::Lapsed { .. }
                | Self::Save(HookError::Deadline { .. })
                | Self::Take(HookError::Deadline { .. })
        )
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Leased { .. } => "state.leased",
            Self::Save(HookError::TooLarge { .. }) => "state.too_large",
            Self::Save(HookError::Deadline { .. }) => "state.save_deadline",
            Self::Save(HookError::Refused { .. }) => "state.save_refused",
            Self::Save(HookError::Ended { verdict }) | Self::Take(HookError::Ended { verdict }) => {
                verdict.code()
            }
            Self::Save(HookError::Fault { .. } | HookError::Missing | HookError::Thread { .. }) => {
                "state.save_fault"
            }
            Self::Take(HookError::Deadline { .. }) => "state.take_deadline",
            Self::Take(HookError::Refused { .. }) => "state.take_refused",
            Self::Take(
                HookError::Fault { .. }
                | HookError::Missing
                | HookError::TooLarge { .. }
                | HookError::Thread { .. },
            ) => "state.take_fault",
            Self::Lapsed { .. } => "state.lapsed",
            Self::Overtaken => "state.overtaken",
        }
    }
}

/// Why a load failed; what served before, if anything, still serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Refused before any of its code ran.
    #[error("{0}")]
    Refused(AdmitError),
    /// Could not be mapped.
    #[error("plugin {plugin}: {error}")]
    Map {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        error: MapError,
    },
    /// Its worker process could not be had, or did not come to serve.
    #[error("plugin {plugin}: {error}")]
    Sandbox {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        error: SandboxError,
    },
    /// Its init hook failed.
    #[error("plugin {plugin} {version}: init: {error}")]
    Init {
        /// The plugin.
        plugin: PluginName,
        /// The version that was tried.
        version: PluginVersion,
        /// Why.
        error: HookError,
    },
    /// It started but did not prove well.
    #[error("plugin {plugin} {version}: {error}")]
    Probe {
        /// The plugin.
        plugin: PluginName,
        /// The version that was tried.
        version: PluginVersion,
        /// What was found.
        error: ProbeError,
    },
    /// The serving version's state did not reach it.
    #[error("plugin {plugin} {version}: state: {error}")]
    HandOver {
        /// The plugin.
        plugin: PluginName,
        /// The version that was tried.
        version: PluginVersion,
        /// Why.
        error: HandOverError,
    },
    /// What is kept of replaced versions has reached its limit.
    #[error(
        "plugin {plugin}: the generation budget is spent: {used} {what}, the limit is {max}; restart the host, or raise the limit under [budget]"
    )]
    BudgetSpent {
        /// The plugin.
        plugin: PluginName,
        /// What is counted.
        what: &'static str,
        /// How many there are, this one not counted.
        used: u64,
        /// The limit.
        max: u64,
    },
    /// A set names a plugin twice.
    #[error("plugin {plugin} is in the set twice")]
    Twice {
        /// The plugin.
        plugin: PluginName,
    },
    /// Plugins of a set need each other in a circle.
    #[error("plugins need each other in a circle: {}", names(.plugins))]
    Circle {
        /// Those that could not be put in an order.
        plugins: Vec<PluginName>,
    },
    /// A set without members, or with too many.
    #[error("a set has 1 to {max} plugins, not {count}")]
    SetSize {
        /// How many it has.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A plugin it needs is not there.
    #[error("plugin {plugin} needs {dependency} {wanted}, but {found}")]
    Dependency {
        /// The plugin.
        plugin: PluginName,
        /// What it needs.
        dependency: PluginName,
        /// In which versions.
        wanted: String,
        /// What is there: a version, or "it is not loaded".
        found: String,
    },
    /// It serves already: `reload` replaces, `load` does not.
    #[error("plugin {plugin} {version} is loaded already: use reload to replace it")]
    AlreadyLoaded {
        /// The plugin.
        plugin: PluginName,
        /// What serves.
        version: PluginVersion,
    },
    /// Not loaded, so there is nothing to replace.
    #[error("plugin {plugin} is not loaded: use load")]
    NotLoaded {
        /// The plugin.
        plugin: PluginName,
    },
    /// This very image misbehaved before.
    #[error(
        "plugin {plugin} {version} is quarantined: {reason}; load another version, or release this one: themis plugin quarantine release {plugin}"
    )]
    Quarantined {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// What it did.
        reason: String,
    },
    /// The new version is another plugin.
    #[error("{path} holds plugin {found}, not {plugin}", path = path.display())]
    OtherPlugin {
        /// The plugin to replace.
        plugin: PluginName,
        /// What was found.
        found: PluginName,
        /// Where.
        path: PathBuf,
    },
    /// A constructor hung: nothing can be loaded in-process any more.
    #[error(
        "in-process loading has stopped: a constructor of {by} never returned and holds the system loader's lock; restart the host to load in-process again"
    )]
    LoaderStuck {
        /// Whose constructor.
        by: String,
    },
    /// The operation could not be carried out by the kernel.
    #[error("{0}")]
    Kernel(KernelFault),
}

/// Faults of the kernel's own machinery, common to all operations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelFault {
    /// Another operation on this plugin is running.
    #[error("plugin {plugin} is busy with another {operation}: try again when it is done")]
    Busy {
        /// The plugin.
        plugin: PluginName,
        /// load, reload, rollback or unload.
        operation: &'static str,
    },
    /// A role's queue is full.
    #[error("{role} is overloaded: its queue of {capacity} is full")]
    Overloaded {
        /// The role.
        role: &'static str,
        /// How many it holds.
        capacity: usize,
    },
    /// A role is stopped or restarting.
    #[error("{role} is not running: the kernel is stopping or has failed")]
    Stopped {
        /// The role.
        role: &'static str,
    },
    /// A role did not answer in time.
    #[error("{role} did not answer within {limit:?}")]
    NoAnswer {
        /// The role.
        role: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The audit log could not take a record: nothing happens unlogged.
    #[error("the audit log refused a record: {what}")]
    Audit {
        /// Why.
        what: String,
    },
    /// A text that cannot be a plugin's name.
    #[error("{what}")]
    BadName {
        /// What is wrong with it.
        what: String,
    },
    /// A blocking call on a thread of an async runtime would stop that runtime.
    #[error("a blocking call was made on a thread of an async runtime: use the async twin there")]
    OnRuntimeThread,
    /// Too many distinct plugin names.
    #[error("{names} plugin names are known, the limit is {max}")]
    TooManyNames {
        /// How many.
        names: usize,
        /// The limit.
        max: usize,
    },
}

impl KernelFault {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "kernel.busy",
            Self::Overloaded { .. } => "kernel.overloaded",
            Self::Stopped { .. } => "kernel.stopped",
            Self::NoAnswer { .. } => "kernel.no_answer",
            Self::Audit { .. } => "audit.refused",
            Self::BadName { .. } => "plugin.bad_name",
            Self::OnRuntimeThread => "kernel.on_runtime_thread",
            Self::TooManyNames { .. } => "kernel.too_many_names",
        }
    }
}

impl LoadError {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Map { error, .. } => error.code(),
            Self::Sandbox { error, .. } => error.code(),
            Self::Init { error, .. } => match error {
                HookError::Refused { .. } => "init.refused",
                HookError::Fault { .. } => "init.fault",
                HookError::Deadline { .. } => "init.deadline",
                HookError::Missing => "init.missing",
                HookError::TooLarge { .. } => "init.too_large",
                HookError::Thread { .. } => "init.thread",
                HookError::Ended { verdict } => verdict.code(),
            },
            Self::Probe { error, .. } => match error {
                ProbeError::Health(_) => "probe.health",
                ProbeError::SelfTest { .. } => "probe.self_test",
                ProbeError::Deadline { .. } => "probe.deadline",
            },
            Self::LoaderStuck { .. } => "map.loader_stuck",
            Self::HandOver { error, .. } => error.code(),
            Self::BudgetSpent { .. } => "load.budget_spent",
            Self::Twice { .. } => "set.twice",
            Self::Circle { .. } => "set.circle",
            Self::SetSize { .. } => "set.size",
            Self::Dependency { .. } => "load.dependency",
            Self::AlreadyLoaded { .. } => "load.already_loaded",
            Self::NotLoaded { .. } => "reload.not_loaded",
            Self::Quarantined { .. } => "load.quarantined",
            Self::OtherPlugin { .. } => "reload.other_plugin",
            Self::Kernel(fault) => fault.code(),
        }
    }

    /// Whether a hook or constructor never returned: its thread is written off, the plugin quarantined.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        matches!(
            self,
            Self::Map { error: MapError::Deadline { .. }, .. }
                | Self::Init { error: HookError::Deadline { .. }, .. }
                | Self::Probe {
                    error: ProbeError::Deadline { .. }
                        | ProbeError::Health(HookError::Deadline { .. }),
                    ..
                }
        )
    }
}

/// Names for people.
fn names(plugins: &[PluginName]) -> String {
    plugins.iter().map(PluginName::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a reload failed; the old version still serves.
pub type ReloadError = LoadError;

/// Why a rollback failed; what served still serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// There is no warm previous generation.
    #[error(
        "plugin {plugin} has no previous version to go back to: it was not reloaded since it was loaded"
    )]
    NoPrevious {
        /// The plugin.
        plugin: PluginName,
    },
    /// Not loaded.
    #[error("plugin {plugin} is not loaded")]
    NotLoaded {
        /// The plugin.
        plugin: PluginName,
    },
    /// What it would go back to was revoked since.
    #[error("{0}")]
    Refused(AdmitError),
    /// What a set would go back to does not fit together.
    #[error("{what}")]
    Dependency {
        /// What does not fit.
        what: String,
    },
    /// The kernel could not carry it out.
    #[error("{0}")]
    Kernel(KernelFault),
}

impl RollbackError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoPrevious { .. } => "rollback.no_previous",
            Self::Dependency { .. } => "rollback.dependency",
            Self::NotLoaded { .. } => "rollback.not_loaded",
            Self::Refused(error) => error.code(),
            Self::Kernel(fault) => fault.code(),
        }
    }
}

/// Why an unload failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnloadError {
    /// Not loaded.
    #[error("plugin {plugin} is not loaded")]
    NotLoaded {
        /// The plugin.
        plugin: PluginName,
    },
    /// It does not serve any more, and somebody still holds a lease on it.
    #[error(
        "plugin {plugin} does not serve any more, but a call or lease on it has not ended within {limit:?}; it is shut down when that ends"
    )]
    Leased {
        /// The plugin.
        plugin: PluginName,
        /// How long was waited.
        limit: Duration,
    },
    /// Other plugins need it.
    #[error("plugin {plugin} is needed by {}: unload that first", names(needed_by))]
    Needed {
        /// The plugin.
        plugin: PluginName,
        /// All that need it, by name.
        needed_by: Vec<PluginName>,
    },
    /// The kernel could not carry it out.
    #[error("{0}")]
    Kernel(KernelFault),
}

impl UnloadError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotLoaded { .. } => "unload.not_loaded",
            Self::Needed { .. } => "unload.needed",
            Self::Leased { .. } => "unload.leased",
            Self::Kernel(fault) => fault.code(),
        }
    }
}

/// Why an image stays in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Nothing of this plugin is quarantined, or not this image.
    #[error(
        "nothing of plugin {plugin} is quarantined under that digest: see `themis plugin quarantine`"
    )]
    NotQuarantined {
        /// The plugin.
        plugin: PluginName,
    },
    /// The kernel could not carry it out.
    #[error("{0}")]
    Kernel(KernelFault),
}

impl ReleaseError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotQuarantined { .. } => "quarantine.not_quarantined",
            Self::Kernel(fault) => fault.code(),
        }
    }
}

macro_rules! from_fault {
    ($($error:ty),*) => {$(
        impl From<KernelFault> for $error {
            fn from(fault: KernelFault) -> Self {
                Self::Kernel(fault)
            }
        }
    )*};
}
from_fault!(LoadError, RollbackError, UnloadError, ReleaseError);

/// How a version came to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// First version of a plugin.
    Load,
    /// A new version in place of another.
    Reload,
    /// The previous version again, by request.
    Rollback,
    /// The previous version again, because the new one failed its probation.
    SwapBack,
    /// The same version again, in a new instance.
    Restart,
}

impl Operation {
    /// As written in events, logs and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Reload => "reload",
            Self::Rollback => "rollback",
            Self::SwapBack => "swap-back",
            Self::Restart => "restart",
        }
    }
}

/// What became of the state that callers had built up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum StateOutcome {
    /// There is none: a first version, or one of the two versions has no hook for it.
    None,
    /// It went from the version before to the one that serves now.
    HandedOver {
        /// How much.
        bytes: u64,
        /// For how long new leases were held.
        #[serde(rename = "held_us", serialize_with = "as_micros")]
        held: Duration,
    },
    /// The version that serves again goes on with the state it still had.
    Own {
        /// Why nothing was handed over.
        why: &'static str,
    },
    /// It is lost: a restart begins afresh.
    Fresh,
}

/// The first call that a generation answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstCall {
    /// The generation that answered.
    pub generation: GenerationId,
    /// Its version.
    pub version: PluginVersion,
    /// The method's number.
    pub method: u32,
    /// Whether the answer was one, and not an error.
    pub ok: bool,
    /// From the swap to the answer.
    #[serde(rename = "after_us", serialize_with = "as_micros")]
    pub after: Duration,
}

/// What proves that a version serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadReceipt {
    /// What was done.
    pub operation: Operation,
    /// The plugin.
    pub plugin: PluginName,
    /// What served before.
    pub from: Option<PluginVersion>,
    /// What serves now.
    pub to: PluginVersion,
    /// Its generation.
    pub generation: GenerationId,
    /// Its tier.
    pub tier: Tier,
    /// Digest of the verified bytes, which are the mapped bytes.
    pub digest: Digest,
    /// Build id read from the mapped image.
    pub build_id: Option<String>,
    /// Whether the image was mapped already.
    pub image_reused: bool,
    /// From the request to the swap.
    #[serde(rename = "total_us", serialize_with = "as_micros")]
    pub total: Duration,
    /// How long the pointer store took: all a caller can notice.
    #[serde(rename = "swap_ns", serialize_with = "as_nanos")]
    pub swap: Duration,
    /// Sequence number of the audit record of the outcome; a rollback does not wait for it.
    pub audit_seq: Option<u64>,
    /// What became of the state.
    pub state: StateOutcome,
    /// The first call that the new version answered, when there was one before this receipt was written; a later
    /// one is an event, an audit record, and in the plugin's information.
    pub first_call: Option<FirstCall>,
    /// For how long the version is watched from now on; `None` when it is not.
    #[serde(rename = "probation_ms", serialize_with = "as_optional_millis")]
    pub probation: Option<Duration>,
    /// Of a swap back: what the version that was given up has shown.
    pub evidence: Option<Evidence>,
}

/// Serialises whole milliseconds.
pub(crate) fn as_millis<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_millis())
}

fn as_optional_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&duration.as_millis()),
        None => serializer.serialize_none(),
    }
}

fn as_micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_micros())
}

fn as_nanos<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_nanos())
}

/// What a plugin's life has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    /// Known, not serving.
    Unloaded,
    /// Serving.
    Active,
    /// Not serving because it misbehaved.
    Quarantined,
}

/// An image that is not loaded until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantine {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: PluginVersion,
    /// The image.
    pub digest: Digest,
    /// Stable code of what it did.
    pub code: String,
    /// The sentence for people.
    pub reason: String,
    /// Since when.
    pub since: jiff::Timestamp,
}

/// Why a generation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, strum::EnumIter)]
#[serde(rename_all = "kebab-case")]
pub enum Retention {
    /// It serves.
    Serving,
    /// It serves beside that, as an arm of an experiment.
    Arm,
    /// A rollback goes back to it.
    Previous,
    /// A rollback goes back to it if the version on probation is swapped back.
    Parked,
    /// Callers are still inside.
    Leased,
    /// Its shutdown hook runs.
    Ending,
    /// A thread is inside one of its hooks or calls for good.
    Stuck,
}

impl Retention {
    /// As written in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Arm => "arm",
            Self::Previous => "previous",
            Self::Parked => "parked",
            Self::Leased => "leased",
            Self::Ending => "ending",
            Self::Stuck => "stuck",
        }
    }
}

/// A generation that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// The generation.
    pub generation: GenerationId,
    /// Its version.
    pub version: PluginVersion,
    /// Its image.
    pub digest: Digest,
    /// Callers inside.
    pub leases: u64,
    /// Why it is kept.
    pub reason: Retention,
}

/// What is kept of a plugin's versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Generations that are initialised.
    pub generations: Vec<Retained>,
    /// Images mapped for good, in this process.
    pub images: u64,
    /// Memory of those images, in bytes: their files and the private copies of their writable parts.
    pub image_bytes: u64,
}

/// What is kept of all plugins' versions, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BudgetTotals {
    /// Generations that are initialised.
    pub generations: u64,
    /// Callers inside them.
    pub leases: u64,
    /// Images mapped for good.
    pub images: u64,
    /// Their memory, in bytes.
    pub image_bytes: u64,
    /// How many bytes there may be.
    pub image_bytes_max: u64,
    /// How many generations of one plugin may be initialised.
    pub generations_max: u64,
}

/// A version on probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Probation {
    /// Which generation.
    pub generation: GenerationId,
    /// For how long in all.
    #[serde(rename = "window_ms", serialize_with = "as_millis")]
    pub window: Duration,
}

/// What is known of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginInfo {
    /// Its name.
    pub name: PluginName,
    /// What serves.
    pub version: Option<PluginVersion>,
    /// What a rollback would go back to.
    pub previous: Option<PluginVersion>,
    /// Where it runs.
    pub tier: Option<Tier>,
    /// How its worker process is confined; `None` where it has none.
    pub isolation: Option<Isolation>,
    /// What the serving generation has used. In the host's own process estimated from sampled calls.
    pub usage: Option<Usage>,
    /// What its life has come to.
    pub state: PluginState,
    /// Why it is quarantined.
    pub quarantine: Option<String>,
    /// The serving generation.
    pub generation: Option<GenerationId>,
    /// Digest of the serving image.
    pub digest: Option<Digest>,
    /// Build id of the serving image.
    pub build_id: Option<String>,
    /// The key it was signed with.
    pub key_id: Option<KeyId>,
    /// Methods of the serving version.
    pub methods: Vec<String>,
    /// Calls and leases under way on the serving generation.
    pub in_flight: u64,
    /// Calls made since the plugin was first loaded.
    pub calls: u64,
    /// Generations replaced but still leased.
    pub draining: usize,
    /// The version on probation, if one is.
    pub probation: Option<Probation>,
    /// Restarts within the last ten minutes.
    pub restarts: usize,
    /// What the last health check of the serving generation found wrong.
    pub unwell: Option<String>,
    /// Images of this plugin that are not loaded until they are released.
    pub quarantined: Vec<Quarantine>,
    /// What is kept of its versions.
    pub budget: Budget,
    /// How what serves came to serve.
    pub receipt: Option<ReloadReceipt>,
}

//! What the operator decides: which plugins may load, where their code runs, and whose signature counts.
//!
//! A host fills a [`Config`] in code or reads it from `themis.toml`. Everything that is not said is refused or
//! has the default named here; nothing is taken from the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use themis_messages::ids::{Digest, KeyId, PluginName, PluginVersion, Tier};
pub use themis_messages::limits::{
    CALL_DEADLINE, CALL_DEADLINE_MAX, CPU_PERCENT, CPU_PERCENT_MAX, MEMORY_BYTES, MEMORY_BYTES_MAX,
    WASM_FUEL_MAX, WASM_FUEL_PER_CALL, WASM_MEMORY_BYTES, WASM_MEMORY_BYTES_MAX,
};
use themis_messages::limits::{
    CONFIG_BYTES_MAX, DRAIN_LIMIT, FILE_BYTES_MAX, HEALTH_PERIOD, HOLD_LIMIT, HOOK_DEADLINE,
    WORKER_CALLS, WORKER_POOL,
};
use themis_sandbox::admission::{NameSet, Policy, TrustedKey};

pub use self::error::{ConfigError, Place};
pub use self::registry::RegistryConfig;
pub use themis_actors::plugin::failures::Rules as FailureRules;
pub use themis_actors::registry::tls::TlsTrust;
pub use themis_actors::reload::budget::{BudgetRules, WhenSpent};
pub use themis_actors::supervision::policy::Intensity;
pub use themis_messages::probation::Rules as ProbationRules;
pub use themis_messages::sandbox::Require;
pub use themis_sandbox::admission::gpg::GpgRule;
pub use themis_sandbox::process::Program;

mod error;
mod file;
mod gpg;
mod registry;
mod source;
#[cfg(test)]
mod tests;
mod watch;
mod workers;

/// The admin socket below the data directory, when the file does not say otherwise.
const ADMIN_SOCKET: &str = "admin.sock";
const GROUP_AND_OTHERS_WRITE: u32 = 0o022;

/// Everything the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the kernel keeps its store; made, private, when it is absent.
    pub data_dir: PathBuf,
    /// Where plugins are found, as `<name>/<version>/`. Not writable by group or others.
    pub plugin_root: PathBuf,
    /// Which names may load. Default: none.
    pub allow: NameSet,
    /// Which names may run in the host's own address space. Default: none.
    pub trusted_in_process: BTreeSet<PluginName>,
    /// Where a plugin runs that has no tier of its own. Default: [`Tier::Process`].
    pub default_tier: Tier,
    /// Whose signatures count. Default: nobody's.
    pub trusted_keys: Vec<TrustedKey>,
    /// Keys that count no more, whatever their dates.
    pub revoked_keys: BTreeSet<KeyId>,
    /// Manifests and files that never load again.
    pub revoked_digests: BTreeSet<Digest>,
    /// Unix socket of the admin API. Default in code: none. Default of a file: `admin.sock` in the data
    /// directory.
    pub admin_socket: Option<PathBuf>,
    /// Loopback address the metrics are served on. Default: none.
    pub metrics_listen: Option<SocketAddr>,
    /// What is decided for single plugins.
    pub plugins: BTreeMap<PluginName, PluginConfig>,
    /// How worker processes are had.
    pub workers: WorkersConfig,
    /// Limits of plugins that ask for nothing, and maxima of those that ask.
    pub limits: Limits,
    /// After this a lifecycle hook is written off. Default and maximum: [`HOOK_DEADLINE`]; the kernel takes no more.
    pub hook_deadline: Duration,
    /// After this a call is ended, or in-process only reported; and the longest wait for a turn with a plugin
    /// that takes one call at a time. Default: [`CALL_DEADLINE`].
    pub call_deadline: Duration,
    /// After this a replaced version that is still leased is reported; it stays until the lease ends.
    /// Default: [`DRAIN_LIMIT`].
    pub drain_limit: Duration,
    /// For how long new leases on a stateful plugin may be held while its state moves. Default: [`HOLD_LIMIT`];
    /// the kernel takes no more than [`HOLD_LIMIT_MAX`](themis_messages::limits::HOLD_LIMIT_MAX).
    pub hold_limit: Duration,
    /// How new versions are watched, and when they are swapped back.
    pub probation: ProbationRules,
    /// How often each plugin is asked whether it is well; zero asks never. Default: [`HEALTH_PERIOD`].
    pub health_period: Duration,
    /// How often a plugin may fail before it is quarantined.
    pub failures: FailureRules,
    /// What may be kept of replaced versions.
    pub budget: BudgetRules,
    /// Which plugins must carry an OpenPGP signature beside the Ed25519 one. Default: none.
    pub gpg: Option<GpgRule>,
    /// Where the marketplace is. Default: nowhere.
    pub registry: Option<RegistryConfig>,
}

/// What is decided for one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// Handed to its `init`, over the defaults of its manifest.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Where it runs; `None` means [`Config::default_tier`].
    pub tier: Option<Tier>,
    /// How much isolation there must be.
    pub require: Require,
    /// Limits instead of [`Config::limits`].
    pub limits: PluginLimits,
    /// Whether it is loaded when the kernel starts. True for every plugin that is configured, false for others.
    pub autoload: bool,
    /// Which versions may load at start; the highest that matches does. `None` means any release version.
    pub version: Option<semver::VersionReq>,
    /// Versions below this one are refused.
    pub floor: Option<PluginVersion>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            config: serde_json::Map::new(),
            tier: None,
            require: Require::default(),
            limits: PluginLimits::default(),
            autoload: true,
            version: None,
            floor: None,
        }
    }
}

/// How the process tier gets its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersConfig {
    /// The program they are. Default: the host's own, whose `main` begins with
    /// [`process_entry`](crate::process_entry).
    pub program: Program,
    /// How many are kept ready. Default: [`WORKER_POOL`].
    pub pool: usize,
    /// Calls that run at once in a thread-safe plugin. Default: [`WORKER_CALLS`].
    pub calls: u32,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self { program: Program::Own, pool: WORKER_POOL, calls: WORKER_CALLS }
    }
}

/// Limits of one plugin; `None` means the default. Only the process and wasm tiers can enforce them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PluginLimits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Linear memory of a wasm plugin in bytes.
    pub wasm_memory_bytes: Option<u64>,
    /// CPU in percent of one core.
    pub cpu_percent: Option<u32>,
    /// How long one call may take.
    pub call_deadline: Option<Duration>,
    /// Fuel of one call of a wasm plugin, in units; 0 is no limit.
    pub fuel_per_call: Option<u64>,
    /// Fuel of all calls of a wasm plugin until it is reloaded or restarted; 0 is no limit.
    pub fuel_total: Option<u64>,
}

impl PluginLimits {
    /// Whether nothing is limited beyond the defaults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits of plugins that ask for nothing. They hold in the process and wasm tiers; nothing can enforce them on
/// code in the host's own address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes. Default: [`MEMORY_BYTES`].
    pub memory_bytes: u64,
    /// Linear memory of a wasm plugin in bytes. Default: [`WASM_MEMORY_BYTES`].
    pub wasm_memory_bytes: u64,
    /// CPU in percent of one core. Default: [`CPU_PERCENT`].
    pub cpu_percent: u32,
    /// Fuel of one call of a wasm plugin, in units; 0 is no limit. Default: [`WASM_FUEL_PER_CALL`].
    pub fuel_per_call: u64,
    /// Fuel of all calls of a wasm plugin until it is reloaded or restarted; 0, the default, is no limit.
    pub fuel_total: u64,
    /// What no manifest may exceed.
    pub max: LimitMaxima,
}

/// What no manifest and no other limit may exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitMaxima {
    /// Memory in bytes. Default: [`MEMORY_BYTES_MAX`].
    pub memory_bytes: u64,
    /// Linear memory of a wasm plugin in bytes. Default: [`WASM_MEMORY_BYTES_MAX`].
    pub wasm_memory_bytes: u64,
    /// CPU in percent of one core. Default: [`CPU_PERCENT_MAX`].
    pub cpu_percent: u32,
    /// Fuel of one call of a wasm plugin, in units. With 0, the default, a manifest may ask for as much as it likes, and for
    /// calls without a limit.
    pub fuel_per_call: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES,
            wasm_memory_bytes: WASM_MEMORY_BYTES,
            cpu_percent: CPU_PERCENT,
            fuel_per_call: WASM_FUEL_PER_CALL,
            fuel_total: 0,
            max: LimitMaxima::default(),
        }
    }
}

impl Default for LimitMaxima {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES_MAX,
            wasm_memory_bytes: WASM_MEMORY_BYTES_MAX,
            cpu_percent: CPU_PERCENT_MAX,
            fuel_per_call: 0,
        }
    }
}

impl Config {
    /// A configuration under which nothing loads yet: no name is allowed and no key is trusted.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, plugin_root: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            plugin_root: plugin_root.into(),
            allow: NameSet::Only(BTreeSet::new()),
            trusted_in_process: BTreeSet::new(),
            default_tier: Tier::Process,
            trusted_keys: Vec::new(),
            revoked_keys: BTreeSet::new(),
            revoked_digests: BTreeSet::new(),
            admin_socket: None,
            metrics_listen: None,
            plugins: BTreeMap::new(),
            workers: WorkersConfig::default(),
            limits: Limits::default(),
            hook_deadline: HOOK_DEADLINE,
            call_deadline: CALL_DEADLINE,
            drain_limit: DRAIN_LIMIT,
            hold_limit: HOLD_LIMIT,
            probation: ProbationRules::default(),
            health_period: HEALTH_PERIOD,
            failures: FailureRules::default(),
            budget: BudgetRules::default(),
            gpg: None,
            registry: None,
        }
    }

    /// Reads `themis.toml` and the keys it names. Relative paths are relative to the file.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, others can write it, or what it says is refused.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let absolute =
            std::path::absolute(path).map_err(|error| io_error(path, "resolve", &error))?;
        let base_dir = absolute.parent().unwrap_or(Path::new("/"));
        Self::from_toml(&text, base_dir, path)
    }

    /// Takes the text of a `themis.toml` and reads the keys it names. Relative paths are relative to
    /// `base_dir`; `path` is for error messages.
    ///
    /// # Errors
    /// [`ConfigError`] with the place of the first fault.
    pub fn from_toml(text: &str, base_dir: &Path, path: &Path) -> Result<Self, ConfigError> {
        file::parse(&source::Source { text, base_dir, path })
    }

    /// What admission goes by.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let of_plugins = || self.plugins.iter();
        Policy {
            allow: self.allow.clone(),
            trusted_in_process: self.trusted_in_process.clone(),
            default_tier: self.default_tier,
            tiers: of_plugins()
                .filter_map(|(name, plugin)| Some((name.clone(), plugin.tier?)))
                .collect(),
            keys: self.trusted_keys.clone(),
            revoked_keys: self.revoked_keys.clone(),
            revoked_digests: self.revoked_digests.clone(),
            openpgp: self.gpg.clone(),
            floors: of_plugins()
                .filter_map(|(name, plugin)| Some((name.clone(), plugin.floor.clone()?)))
                .collect(),
            file_bytes_max: FILE_BYTES_MAX,
            wasm_memory_bytes_max: self.limits.max.wasm_memory_bytes,
        }
    }
}

/// Reads the file once, from one descriptor, so that what was checked is what is used.
fn read(path: &Path) -> Result<String, ConfigError> {
    let mut file = File::open(path).map_err(|error| io_error(path, "open", &error))?;
    let metadata = file.metadata().map_err(|error| io_error(path, "stat", &error))?;
    let owned = || path.to_owned();
    if !metadata.is_file() {
        return Err(ConfigError::WrongFileType { path: owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & GROUP_AND_OTHERS_WRITE != 0 {
        return Err(ConfigError::WritableByOthers { path: owned(), mode });
    }
    let mut bytes = Vec::new();
    let read = file
        .by_ref()
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error(path, "read", &error))?;
    let size = u64::try_from(read).unwrap_or(u64::MAX);
    if size > CONFIG_BYTES_MAX {
        let size = metadata.len().max(size);
        return Err(ConfigError::TooLarge { path: owned(), size, max: CONFIG_BYTES_MAX });
    }
    String::from_utf8(bytes).map_err(|_not_text| ConfigError::NotUtf8 { path: owned() })
}

fn io_error(path: &Path, action: &'static str, error: &std::io::Error) -> ConfigError {
    ConfigError::Io { path: path.to_owned(), action, error: error.to_string() }
}

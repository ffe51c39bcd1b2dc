//! Worker processes: what they may use, how well they are confined, how they end.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::ids::PluginName;
use crate::lifecycle::{MapError, as_millis};
use crate::limits::{
    CPU_PERCENT, CPU_PERCENT_MAX, MEMORY_BYTES, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, WORKER_CALLS,
    WORKER_CALLS_MAX, WORKER_PIDS, WORKER_PIDS_MAX,
};
use crate::wasm::Stop;

/// What one worker process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Memory in bytes, [`MEMORY_BYTES_MIN`] to [`MEMORY_BYTES_MAX`]. Default: [`MEMORY_BYTES`].
    pub memory_bytes: u64,
    /// CPU in percent of one core, from 1. Enforced only with a cgroup that has the `cpu` controller.
    pub cpu_percent: u32,
    /// Processes and threads, the worker's own included. Default: [`WORKER_PIDS`].
    pub pids: u32,
    /// Calls that run at once in a thread-safe plugin, each on a thread of its own. Default: [`WORKER_CALLS`].
    pub calls: u32,
    /// How long one call may take before the worker is killed.
    #[serde(rename = "call_deadline_ms", serialize_with = "as_millis")]
    pub call_deadline: Duration,
    /// How long one hook may take before the worker is killed.
    #[serde(rename = "hook_deadline_ms", serialize_with = "as_millis")]
    pub hook_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES,
            cpu_percent: CPU_PERCENT,
            pids: WORKER_PIDS,
            calls: WORKER_CALLS,
            call_deadline: crate::limits::CALL_DEADLINE,
            hook_deadline: crate::limits::HOOK_DEADLINE,
        }
    }
}

impl Limits {
    /// Checks that every limit can be kept.
    ///
    /// # Errors
    /// [`SandboxError::Limit`] names the first that cannot.
    pub fn check(&self) -> Result<(), SandboxError> {
        let ranges = [
            ("memory_bytes", self.memory_bytes, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX),
            ("cpu_percent", u64::from(self.cpu_percent), 1, u64::from(CPU_PERCENT_MAX)),
            ("calls", u64::from(self.calls), 1, u64::from(WORKER_CALLS_MAX)),
            // The worker's own thread, one for each call, and one to spare.
            ("pids", u64::from(self.pids), u64::from(self.calls) + 2, u64::from(WORKER_PIDS_MAX)),
        ];
        for (what, is, min, max) in ranges {
            if !(min..=max).contains(&is) {
                return Err(SandboxError::Limit { what, is, min, max });
            }
        }
        Ok(())
    }
}

/// How well a worker has to be confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    /// Level A: everything, memory and CPU capped by a cgroup.
    Full,
    /// At least level C: namespaces and filters, with memory capped by resource limits and a watchdog where there is
    /// no cgroup for it. What is missing is told loudly.
    #[default]
    Degraded,
    /// At least level D: whatever there is, down to a filter over system calls and resource limits.
    Any,
}

impl Require {
    /// The weakest level that satisfies it.
    #[must_use]
    pub const fn weakest(self) -> Level {
        match self {
            Self::Full => Level::A,
            Self::Degraded => Level::C,
            Self::Any => Level::D,
        }
    }

    /// As written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Degraded => "degraded",
            Self::Any => "any",
        }
    }
}

/// How well workers are confined, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Level {
    /// Capped by a cgroup of its own, in namespaces, without files, with a filter over system calls.
    A,
    /// As A, but something is missing: no Landlock, or memory is capped by resource limits and a watchdog.
    B,
    /// Without a cgroup: namespaces, resource limits and a filter.
    C,
    /// Resource limits and a filter.
    D,
}

impl Level {
    /// As written in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One layer of a worker's confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::EnumIter)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Layer {
    /// Filters over system calls, one while the plugin is mapped and a stricter one after. Never missing.
    Seccomp,
    /// No capabilities, no new privileges, not dumpable, resource limits. Never missing.
    Unprivileged,
    /// A user of its own, where the host is root.
    OwnUser,
    /// Process numbers of its own: it sees nobody.
    PidNamespace,
    /// A root directory with nothing in it but its own `/proc`.
    MountNamespace,
    /// A network without an interface.
    NetNamespace,
    /// System V objects, message queues and a host name of its own.
    IpcNamespace,
    /// No right to any file.
    Landlock,
    /// No memory that was writable can become code.
    WriteXorExecute,
    /// A cgroup to kill and account by.
    Cgroup,
    /// Memory, processes and CPU capped by that cgroup.
    CgroupLimits,
    /// The memory shared with the host cannot be unmapped or changed in its rights.
    SealedMappings,
}

impl Layer {
    /// As written in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Unprivileged => "unprivileged",
            Self::OwnUser => "own-user",
            Self::PidNamespace => "pid-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::NetNamespace => "net-namespace",
            Self::IpcNamespace => "ipc-namespace",
            Self::Landlock => "landlock",
            Self::WriteXorExecute => "write-xor-execute",
            Self::Cgroup => "cgroup",
            Self::CgroupLimits => "cgroup-limits",
            Self::SealedMappings => "sealed-mappings",
        }
    }

    /// Its place in [`Layers`].
    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The layers that hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers(u32);

impl Layers {
    /// From the bits of [`Layers::bits`]; unknown ones are dropped.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        let known = <Layer as strum::IntoEnumIterator>::iter();
        Self(bits & known.fold(0, |all, layer| all | layer.bit()))
    }

    /// One bit for each layer.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, layer: Layer) -> Self {
        Self(self.0 | layer.bit())
    }

    /// Whether it holds.
    #[must_use]
    pub const fn has(self, layer: Layer) -> bool {
        self.0 & layer.bit() != 0
    }

    /// Those that hold, or those that do not.
    fn filtered(self, held: bool) -> impl Iterator<Item = Layer> {
        <Layer as strum::IntoEnumIterator>::iter().filter(move |layer| self.has(*layer) == held)
    }

    /// Those that do not hold.
    #[must_use]
    pub fn missing(self) -> Vec<Layer> {
        self.filtered(false).collect()
    }

    /// The level that these layers make.
    #[must_use]
    pub fn level(self) -> Level {
        let apart = [Layer::PidNamespace, Layer::MountNamespace, Layer::NetNamespace];
        let apart = apart.into_iter().all(|layer| self.has(layer));
        let full = self.has(Layer::CgroupLimits) && self.has(Layer::Landlock);
        match (apart, self.has(Layer::Cgroup), full) {
            (true, true, true) => Level::A,
            (true, true, false) => Level::B,
            (true, false, _) => Level::C,
            (false, _, _) => Level::D,
        }
    }
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.filtered(true))
    }
}

/// How a worker is confined, as it was found when it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// The worker's process, as the host sees it.
    pub pid: u32,
    /// What it amounts to.
    pub level: Level,
    /// What holds.
    pub layers: Layers,
    /// What does not, by name.
    pub missing: Vec<Layer>,
}

impl Isolation {
    /// What these layers amount to.
    #[must_use]
    pub fn of(pid: u32, layers: Layers) -> Self {
        Self { pid, level: layers.level(), layers, missing: layers.missing() }
    }

    /// What is missing, for people; empty when nothing is.
    #[must_use]
    pub fn missing_text(&self) -> String {
        let names: Vec<_> = self.missing.iter().map(|layer| layer.as_str()).collect();
        names.join(", ")
    }
}

/// A step on a worker's way to serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::EnumIter, strum::FromRepr)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SetupStep {
    /// The spawner is started.
    Spawner = 1,
    /// Shared memory, sockets and pipes are made.
    Channels,
    /// The cgroup is made.
    Cgroup,
    /// The process is cloned.
    Clone,
    /// Descriptors are put in their places.
    Descriptors,
    /// The worker program is executed.
    Exec,
    /// Shared memory is mapped.
    Memory,
    /// Libraries that plugins need are loaded.
    Libraries,
    /// An empty root directory is entered.
    Root,
    /// Resource limits are set.
    ResourceLimits,
    /// Capabilities are given up.
    Capabilities,
    /// The user is changed.
    User,
    /// Flags of the process are set.
    Flags,
    /// Rights to files are given up.
    Landlock,
    /// Handlers that report crashes are installed.
    Handlers,
    /// The filter for mapping is installed.
    WideFilter,
    /// The plugin's files are received.
    Files,
    /// The filter for serving is installed.
    StrictFilter,
    /// Threads for calls are started.
    Threads,
}

impl SetupStep {
    /// As written in errors and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spawner => "spawner",
            Self::Channels => "channels",
            Self::Cgroup => "cgroup",
            Self::Clone => "clone",
            Self::Descriptors => "descriptors",
            Self::Exec => "exec",
            Self::Memory => "memory",
            Self::Libraries => "libraries",
            Self::Root => "root",
            Self::ResourceLimits => "resource-limits",
            Self::Capabilities => "capabilities",
            Self::User => "user",
            Self::Flags => "flags",
            Self::Landlock => "landlock",
            Self::Handlers => "handlers",
            Self::WideFilter => "wide-filter",
            Self::Files => "files",
            Self::StrictFilter => "strict-filter",
            Self::Threads => "threads",
        }
    }
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A system call by number, with its name where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Syscall {
    /// The number; `None` when the kernel did not tell.
    pub number: Option<i64>,
    /// The name.
    pub name: Option<&'static str>,
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name, self.number) {
            (Some(name), _) => f.pad(name),
            (None, Some(number)) => write!(f, "number {number}"),
            (None, None) => f.pad("one the system did not name"),
        }
    }
}

/// How a worker ended, or what a call in it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It used more memory than it may and was killed.
    #[error("its worker was killed: it used more memory than its limit of {limit} bytes")]
    MemoryLimit {
        /// The limit in bytes.
        limit: u64,
    },
    /// A call or hook did not end in time; the worker was killed.
    #[error("its worker was killed: {what} did not end within {limit:?}")]
    Deadline {
        /// What it was doing.
        what: Activity,
        /// The limit.
        #[serde(rename = "limit_ms", serialize_with = "as_millis")]
        limit: Duration,
    },
    /// It made a system call that no plugin may make.
    #[error("its worker was ended: it made the system call {syscall}, which plugins may not")]
    SeccompViolation {
        /// Which one.
        syscall: Syscall,
    },
    /// It crashed.
    #[error("its worker crashed: {}{}", signal_name(*.signal), at_address(.address))]
    Crash {
        /// The signal.
        signal: i32,
        /// The address it could not use, where it told one.
        address: Option<u64>,
    },
    /// It panicked where a panic cannot be caught.
    #[error("its worker panicked: {message}")]
    Panic {
        /// The panic's text, cut.
        message: String,
    },
    /// It ended the process.
    #[error("its worker exited with status {code}: no plugin may end its process")]
    UnexpectedExit {
        /// The status.
        code: i32,
    },
    /// It wrote what the kernel's side of the shared memory cannot be.
    #[error("its worker broke the protocol and was killed: {what}")]
    ProtocolViolation {
        /// What was found.
        what: String,
    },
    /// The worker could not be set up.
    #[error("its worker could not be set up: step {step}: {}", errno_text(*.errno))]
    SetupFailed {
        /// The step that failed.
        step: SetupStep,
        /// The system's reason.
        errno: i32,
    },
    /// A wasm plugin was stopped, or trapped: it has no process that could end.
    #[error("{stop}")]
    Stopped {
        /// Why.
        stop: Stop,
    },
    /// Somebody else killed it.
    #[error("its worker was killed from outside, by {}", signal_name(*.signal))]
    ExternalKill {
        /// The signal.
        signal: i32,
    },
}

impl Verdict {
    /// Stable code for programs, metrics and logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MemoryLimit { .. } => "sandbox.memory_limit",
            Self::Deadline { .. } => "sandbox.deadline",
            Self::SeccompViolation { .. } => "sandbox.seccomp_violation",
            Self::Crash { .. } => "sandbox.crash",
            Self::Panic { .. } => "sandbox.panic",
            Self::UnexpectedExit { .. } => "sandbox.unexpected_exit",
            Self::ProtocolViolation { .. } => "sandbox.protocol_violation",
            Self::SetupFailed { .. } => "sandbox.setup_failed",
            Self::Stopped { stop } => stop.code(),
            Self::ExternalKill { .. } => "sandbox.external_kill",
        }
    }

    /// Whether what ran in it brought it about; else somebody else did, or the machine.
    #[must_use]
    pub const fn is_its_own(&self) -> bool {
        !matches!(self, Self::ExternalKill { .. } | Self::SetupFailed { .. })
    }

    /// As written in metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let code = self.code();
        code.split_once('.').map_or(code, |(_, reason)| reason)
    }
}

/// What a worker was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Being set up.
    Setup,
    /// Mapping the plugin: its constructors run.
    Loading,
    /// The init hook.
    Init,
    /// A call.
    Call,
    /// The health hook.
    Health,
    /// The save_state hook.
    SaveState,
    /// The reload hook.
    Reload,
    /// The shutdown hook.
    Shutdown,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Setup => "its set-up",
            Self::Loading => "a constructor",
            Self::Init => "init",
            Self::Call => "a call",
            Self::Health => "health",
            Self::SaveState => "save_state",
            Self::Reload => "reload",
            Self::Shutdown => "shutdown",
        })
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

fn at_address(address: &Option<u64>) -> String {
    address.map_or_else(String::new, |address| format!(" at address {address:#x}"))
}

fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// Why there is no sandbox, or none that serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// No program to run workers with.
    #[error(
        "there is no worker program: call themis_kernel::process_entry() first in main(), or set `worker` to the path of themis-worker"
    )]
    NoProgram,
    /// A limit that cannot be kept.
    #[error("{what} = {is} is out of range: {min} to {max}")]
    Limit {
        /// Which one.
        what: &'static str,
        /// Its value.
        is: u64,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// The machine does not confine workers as well as is required.
    #[error(
        "workers are confined at level {has} here, and require = \"{}\" wants at least {}: missing {missing}; see `themis doctor`",
        .require.as_str(), .require.weakest()
    )]
    Isolation {
        /// What is required.
        require: Require,
        /// What there is.
        has: Level,
        /// What is missing.
        missing: String,
    },
    /// The image does not map, or is not the verified one.
    #[error("{0}")]
    Map(MapError),
    /// The worker ended before it served.
    #[error("{0}")]
    Ended(Verdict),
    /// The sandbox holds a plugin already, or none yet, or was closed.
    #[error("the sandbox of {plugin} {what}")]
    State {
        /// Whose.
        plugin: PluginName,
        /// What it is.
        what: &'static str,
    },
}

impl SandboxError {
    /// Stable code for programs, metrics and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoProgram => "sandbox.no_program",
            Self::Limit { .. } => "sandbox.limit",
            Self::Isolation { .. } => "sandbox.isolation",
            Self::Map(error) => error.code(),
            Self::Ended(verdict) => verdict.code(),
            Self::State { .. } => "sandbox.state",
        }
    }
}

impl From<Verdict> for SandboxError {
    fn from(verdict: Verdict) -> Self {
        Self::Ended(verdict)
    }
}

/// What an instance has used, as far as its tier can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Time on a CPU.
    #[serde(rename = "cpu_us", serialize_with = "as_optional_micros")]
    pub cpu: Option<Duration>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The most memory that was in use, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Page faults, those without and with reading a disk.
    pub page_faults: Option<u64>,
    /// Bytes of requests.
    pub request_bytes: u64,
    /// Bytes of replies.
    pub reply_bytes: u64,
    /// Log lines that were dropped because there were too many.
    pub log_lines_dropped: u64,
    /// Fuel that calls of a wasm plugin have used, in units.
    pub fuel: Option<u64>,
    /// Fuel that is left to a wasm plugin: of its total, else of what the last call might have used; [`u64::MAX`] when
    /// neither has a limit.
    pub fuel_remaining: Option<u64>,
}

fn as_optional_micros<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&duration.as_micros()),
        None => serializer.serialize_none(),
    }
}

/// A process that promised to open no socket could not be kept from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this process cannot be kept off the network, so nothing was done: {what}")]
pub struct OfflineError {
    /// The system's words.
    pub what: String,
}

impl OfflineError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "offline.unavailable"
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    fn all() -> Layers {
        Layer::iter().fold(Layers::default(), Layers::with)
    }

    fn without(layer: Layer) -> Layers {
        Layers::from_bits(all().bits() & !layer.bit())
    }

    #[test]
    fn the_level_is_that_of_the_weakest_layer() {
        assert_eq!(all().level(), Level::A);
        assert_eq!(without(Layer::Landlock).level(), Level::B);
        assert_eq!(without(Layer::CgroupLimits).level(), Level::B);
        assert_eq!(without(Layer::Cgroup).level(), Level::C);
        for apart in [Layer::PidNamespace, Layer::NetNamespace, Layer::MountNamespace] {
            assert_eq!(without(apart).level(), Level::D);
        }
        assert_eq!(without(Layer::SealedMappings).level(), Level::A, "told, and no more");
    }

    #[test]
    fn bits_of_layers_survive_and_unknown_ones_are_dropped() {
        for layer in Layer::iter() {
            let one = Layers::default().with(layer);
            assert_eq!(Layers::from_bits(one.bits()), one);
            assert!(one.has(layer));
        }
        assert_eq!(Layers::from_bits(u32::MAX), all());
        assert_eq!(all().missing(), []);
    }

    #[test]
    fn what_is_required_grows_with_the_word() {
        assert!(Require::Full.weakest() < Require::Degraded.weakest());
        assert!(Require::Degraded.weakest() < Require::Any.weakest());
    }

    #[test]
    fn limits_out_of_range_are_refused_by_name() {
        assert_eq!(Limits::default().check(), Ok(()));
        let too_much = Limits { memory_bytes: MEMORY_BYTES_MAX + 1, ..Limits::default() };
        let refused = too_much.check().unwrap_err();
        assert_eq!(refused.code(), "sandbox.limit");
        assert!(refused.to_string().starts_with("memory_bytes = 2147483649 is out of range"));
        let no_room = Limits { pids: 3, calls: 2, ..Limits::default() };
        assert!(matches!(no_room.check(), Err(SandboxError::Limit { what: "pids", .. })));
    }
}

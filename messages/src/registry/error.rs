//! Why the marketplace refuses or fails: one enum for a single request, one for everything that is built from requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ids::{Digest, KeyId, PluginName, PluginVersion};
use crate::lifecycle::KernelFault;

/// Why one request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// The address may not be asked.
    #[error("{url} is not asked: {why}")]
    Refused {
        /// The address.
        url: String,
        /// Why.
        why: String,
    },
    /// It was sent on too often, or in a circle.
    #[error("{url} leads to {hops} other addresses in turn, and at most {max} are followed")]
    Redirects {
        /// The address that was asked first.
        url: String,
        /// How often it was sent on.
        hops: usize,
        /// How often it may be.
        max: usize,
    },
    /// TLS failed: nothing else is tried.
    #[error("{url}: the server's identity is not what it must be: {what}")]
    Tls {
        /// The address.
        url: String,
        /// The library's words.
        what: String,
    },
    /// No connection.
    #[error("{url}: no connection: {what}")]
    Connect {
        /// The address.
        url: String,
        /// The library's words.
        what: String,
    },
    /// Nothing came for too long.
    #[error("{url}: nothing came for {after:?}")]
    Silent {
        /// The address.
        url: String,
        /// How long.
        after: Duration,
    },
    /// It is not there.
    #[error("{url} is not there (status {status})")]
    NotFound {
        /// The address.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// The server wants to be asked less often.
    #[error("{url}: the server asks for patience (status 429{})", wait(retry_after))]
    Throttled {
        /// The address.
        url: String,
        /// How long, as it says.
        retry_after: Option<Duration>,
    },
    /// The server failed.
    #[error("{url}: the server failed (status {status}{})", wait(retry_after))]
    Server {
        /// The address.
        url: String,
        /// 5xx.
        status: u16,
        /// When to come back, as it says.
        retry_after: Option<Duration>,
    },
    /// Some other status.
    #[error("{url}: the server refuses (status {status})")]
    Status {
        /// The address.
        url: String,
        /// Which.
        status: u16,
    },
    /// The body was encoded, although that was not asked for.
    #[error("{url}: the server sent it encoded as {encoding:?}, which was not asked for")]
    Encoded {
        /// The address.
        url: String,
        /// How.
        encoding: String,
    },
    /// More than there may be.
    #[error("{url}: there are more than {limit} bytes of it, and no more may be")]
    TooLarge {
        /// The address.
        url: String,
        /// Most bytes it may have.
        limit: u64,
    },
    /// The body ended early or broke off.
    #[error("{url}: it broke off after {bytes} bytes: {what}")]
    BrokeOff {
        /// The address.
        url: String,
        /// How many came.
        bytes: u64,
        /// The library's words.
        what: String,
    },
    /// What came cannot be kept here: a full disk, or a file that may not be written.
    #[error("{path}: what was fetched cannot be stored: {error}", path = path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
}

fn wait(after: &Option<Duration>) -> String {
    after.map(|after| format!(", for {} s", after.as_secs())).unwrap_or_default()
}

impl FetchFailure {
    /// Whether asking again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Silent { .. }
            | Self::Throttled { .. }
            | Self::Server { .. }
            | Self::BrokeOff { .. } => true,
            Self::Refused { .. }
            | Self::Redirects { .. }
            | Self::Tls { .. }
            | Self::NotFound { .. }
            | Self::Status { .. }
            | Self::Encoded { .. }
            | Self::TooLarge { .. }
            | Self::Store { .. } => false,
        }
    }

    /// When the server wants to be asked again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } | Self::Server { retry_after, .. } => *retry_after,
            Self::Refused { .. }
            | Self::Redirects { .. }
            | Self::Tls { .. }
            | Self::Connect { .. }
            | Self::Silent { .. }
            | Self::NotFound { .. }
            | Self::Status { .. }
            | Self::Encoded { .. }
            | Self::TooLarge { .. }
            | Self::BrokeOff { .. }
            | Self::Store { .. } => None,
        }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "registry.address",
            Self::Redirects { .. } => "registry.redirects",
            Self::Tls { .. } => "registry.tls",
            Self::Connect { .. } => "registry.connect",
            Self::Silent { .. } => "registry.silent",
            Self::NotFound { .. } => "registry.not_found",
            Self::Throttled { .. } => "registry.throttled",
            Self::Server { .. } => "registry.server",
            Self::Status { .. } => "registry.status",
            Self::Encoded { .. } => "registry.encoded",
            Self::TooLarge { .. } => "registry.too_large",
            Self::BrokeOff { .. } => "registry.broke_off",
            Self::Store { .. } => "registry.store",
        }
    }
}

/// Why something of the marketplace was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no registry.
    #[error("no registry is configured: set `url` and `root` in [registry]")]
    NotConfigured,
    /// The settings cannot be used.
    #[error("[registry] {field}: {what}")]
    Settings {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// One request failed for good.
    #[error("{0}")]
    Fetch(FetchFailure),
    /// It was tried until there was no time left.
    #[error(
        "the registry has no answer after {attempts} attempts in {elapsed:.1?} (the limit is {limit:?}); last: {last}"
    )]
    OutOfTime {
        /// How often.
        attempts: u32,
        /// How long.
        elapsed: Duration,
        /// How long it may be tried.
        limit: Duration,
        /// What went wrong last.
        last: String,
    },
    /// Metadata that may not be believed.
    #[error("the registry's {role} metadata is refused: {why}")]
    Metadata {
        /// `root`, `timestamp`, `snapshot`, `targets`, or `registry` where it is not known which.
        role: &'static str,
        /// What is wrong with it.
        fault: MetadataFault,
        /// The sentence.
        why: String,
    },
    /// What is remembered of the registry cannot be read.
    #[error(
        "what is remembered of {registry} is damaged ({what}); without it a rollback of the registry would not be seen. Put the data directory back from a copy, or begin with a new one once you know why"
    )]
    Memory {
        /// The registry.
        registry: String,
        /// What is wrong with it.
        what: String,
    },
    /// Signed metadata that says something impossible of a plugin.
    #[error("the registry's entry {target:?} is refused: {what}")]
    Entry {
        /// Its name, shortened.
        target: String,
        /// What is wrong with it.
        what: String,
    },
    /// One version with two contents.
    #[error(
        "{plugin} {version} was {seen} and is now {now}: a published version never changes, so one of the two is not the publisher's. Nothing was installed"
    )]
    Equivocation {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// The digest seen first.
        seen: Box<Digest>,
        /// The digest that is offered now.
        now: Box<Digest>,
    },
    /// No set of versions fits.
    #[error("{message}")]
    Resolve {
        /// Its stable code.
        code: &'static str,
        /// The sentence.
        message: String,
    },
    /// The bytes are not those that were signed for.
    #[error(
        "{plugin} {version}: the bundle from {url} is not what the registry's metadata says: {what}. Nothing was installed"
    )]
    Digest {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// Where it came from.
        url: String,
        /// The difference.
        what: String,
    },
    /// The bundle is refused, as the loader would refuse it.
    #[error("{plugin} {version}: {message}")]
    Bundle {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// The refusal's stable code.
        code: &'static str,
        /// Its sentence.
        message: String,
    },
    /// The publisher's manifest says something else than the registry.
    #[error(
        "{plugin} {version}: its signed manifest and the registry's entry differ in {field}: the publisher says {}, the registry {}. The publisher counts, and the registry is not believed",
        both.0,
        both.1
    )]
    Differs {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// In what.
        field: &'static str,
        /// As the manifest has it, and as the registry has it.
        both: Box<(String, String)>,
    },
    /// Something new that a person has to agree to.
    #[error("{} would be new: {}. Look at it, and repeat with --approve", plugin, what.join("; "))]
    Approval {
        /// The plugin.
        plugin: PluginName,
        /// What is new: dependencies, capabilities, a publisher's key.
        what: Vec<String>,
    },
    /// It was installed from another registry.
    #[error(
        "{plugin} was installed from {} and is not taken from {}: one name in two registries may be two plugins. Take it out of the lock file if it is to come from the other one",
        bound.0,
        bound.1
    )]
    Bound {
        /// The plugin.
        plugin: PluginName,
        /// Where it is from, and the registry that was asked now.
        bound: Box<(String, String)>,
    },
    /// An older version than the one that was installed.
    #[error(
        "{plugin} {version} is older than {floor}, below which nothing is installed any more; repeat with --downgrade if that is meant"
    )]
    Downgrade {
        /// The plugin.
        plugin: PluginName,
        /// What was asked for.
        version: PluginVersion,
        /// The floor.
        floor: PluginVersion,
    },
    /// Nothing may be fetched, and something is not here.
    #[error("{what} is not here, and nothing is fetched offline")]
    Offline {
        /// What.
        what: String,
    },
    /// The publisher's key is not among those the operator trusts.
    #[error(
        "{plugin} is signed with key {key}, which is not trusted for it: add its public key to [[trusted_key]] if it should be. A key that a registry serves is never used"
    )]
    Publisher {
        /// The plugin.
        plugin: PluginName,
        /// The key.
        key: KeyId,
    },
    /// A file could not be read or written.
    #[error("{path}: cannot {action}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// It was put in its place and does not serve: what served before still does.
    #[error("{plugin} {version} does not load, and what served before still does: {message}")]
    Load {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// The failure's stable code.
        code: &'static str,
        /// Its sentence.
        message: String,
    },
    /// The kernel's machinery failed.
    #[error("{0}")]
    Kernel(KernelFault),
}

/// What is wrong with metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataFault {
    /// Not signed by enough of its keys.
    Signature,
    /// Older than what was seen before.
    Rollback,
    /// Past its date.
    Expired,
    /// Parts that do not belong together.
    Mismatch,
    /// A version that is further ahead than any publisher comes.
    FastForward,
    /// One version with two contents.
    Equivocation,
    /// Not what it must look like.
    Malformed,
    /// The clock of this machine was set back.
    Clock,
    /// Root metadata without the step before it.
    RootChain,
}

impl MetadataFault {
    const fn code(self) -> &'static str {
        match self {
            Self::Signature => "registry.signature",
            Self::Rollback => "registry.rollback",
            Self::Expired => "registry.expired",
            Self::Mismatch => "registry.mismatch",
            Self::FastForward => "registry.fast_forward",
            Self::Equivocation => "registry.equivocation",
            Self::Malformed => "registry.malformed",
            Self::Clock => "registry.clock",
            Self::RootChain => "registry.root",
        }
    }
}

impl RegistryError {
    /// What the system said of a file; `action` completes "cannot …".
    #[must_use]
    pub fn io(path: &Path, action: &'static str, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, error: error.to_string() }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotConfigured => "registry.not_configured",
            Self::Settings { .. } => "registry.settings",
            Self::Fetch(failure) => failure.code(),
            Self::OutOfTime { .. } => "registry.out_of_time",
            Self::Metadata { fault, .. } => fault.code(),
            Self::Memory { .. } => "registry.memory",
            Self::Entry { .. } => "registry.entry",
            Self::Equivocation { .. } => "registry.equivocation",
            Self::Resolve { code, .. } | Self::Bundle { code, .. } | Self::Load { code, .. } => {
                code
            }
            Self::Digest { .. } => "registry.digest",
            Self::Differs { .. } => "registry.differs",
            Self::Approval { .. } => "registry.approval",
            Self::Bound { .. } => "registry.bound",
            Self::Downgrade { .. } => "registry.downgrade",
            Self::Offline { .. } => "registry.offline",
            Self::Publisher { .. } => "registry.publisher",
            Self::Io { .. } => "registry.io",
            Self::Kernel(fault) => fault.code(),
        }
    }
}

impl From<FetchFailure> for RegistryError {
    fn from(failure: FetchFailure) -> Self {
        Self::Fetch(failure)
    }
}

impl From<KernelFault> for RegistryError {
    fn from(fault: KernelFault) -> Self {
        Self::Kernel(fault)
    }
}

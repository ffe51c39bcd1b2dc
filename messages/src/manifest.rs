//! What a signed plugin says of itself: the manifest, parsed once and valid ever after.
//!
//! A [`Manifest`] can only be had from bytes that obey every rule of the format; the parser is
//! [`Manifest::parse`].

use std::collections::BTreeMap;

use crate::ids::{Digest, KeyId, PluginName, PluginVersion};

mod parse;

pub use parse::check_relative_path;

/// The file every plugin directory has.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The signature over the exact bytes of [`MANIFEST_FILE`].
pub const SIGNATURE_FILE: &str = "plugin.sig";

/// The name of the OpenPGP signature over the manifest's exact bytes, as `gpg --armor --detach-sign` names it. It may be there;
/// it counts where the operator asks for one, and never instead of the other.
pub const OPENPGP_FILE: &str = "manifest.json.asc";

/// A manifest that obeys every rule of the format.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The plugin's name.
    pub name: PluginName,
    /// The plugin's version.
    pub version: PluginVersion,
    /// The ABI it was built for.
    pub abi: AbiVersion,
    /// For people.
    pub description: Option<String>,
    /// SPDX expression or name.
    pub license: Option<String>,
    /// For people.
    pub authors: Vec<String>,
    /// Every file of the plugin besides manifest and signature, in the manifest's order.
    pub files: Vec<ListedFile>,
    /// The one key to verify with.
    pub key_id: KeyId,
    /// What can be called.
    pub methods: Vec<MethodEntry>,
    /// Plugins it needs, with the versions it can use.
    pub dependencies: BTreeMap<PluginName, semver::VersionReq>,
    /// What it may ask of the host.
    pub capabilities: Vec<Capability>,
    /// What it asks for; the operator's maxima stand above it.
    pub limits: RequestedLimits,
    /// Default configuration, handed to init under the operator's own.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Calls with known answers, made before a version serves.
    pub self_test: Vec<SelfTest>,
    /// When it was made.
    pub created: Option<jiff::Timestamp>,
    /// After this it is not admitted any more.
    pub expires: Option<jiff::Timestamp>,
    /// For what comes later; not looked at.
    pub extensions: serde_json::Map<String, serde_json::Value>,
}

/// `major.minor` of the plugin ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbiVersion {
    /// Must equal the kernel's.
    pub major: u16,
    /// Must not be above the kernel's.
    pub minor: u16,
}

impl AbiVersion {
    /// What this kernel has.
    pub const KERNEL: Self = Self { major: 1, minor: 0 };

    /// Same major, minor not above ours.
    #[must_use]
    #[expect(
        clippy::absurd_extreme_comparisons,
        reason = "the kernel's minor is 0 only until it rises"
    )]
    pub const fn is_supported(self) -> bool {
        self.major == Self::KERNEL.major && self.minor <= Self::KERNEL.minor
    }
}

impl std::fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One file of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Relative path with `/`, checked: no way up, no reserved names.
    pub path: String,
    /// What it is for.
    pub target: Target,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a file is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Read by the plugin through the host, never executed.
    Data,
    /// A WebAssembly module.
    Wasm32,
    /// A shared library for one platform, for example `linux-x86_64`.
    Native(&'static str),
    /// One this kernel does not know: digest-checked, otherwise ignored.
    Unknown(String),
}

impl Target {
    /// Platforms a shared library may be for.
    pub const NATIVE: [&'static str; 5] =
        ["linux-x86_64", "linux-aarch64", "macos-x86_64", "macos-aarch64", "windows-x86_64"];

    /// The platform this kernel runs on.
    pub const HOST: Self =
        Self::Native(if cfg!(target_arch = "x86_64") { "linux-x86_64" } else { "linux-aarch64" });

    /// As written in the manifest.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Data => "data",
            Self::Wasm32 => "wasm32",
            Self::Native(platform) => platform,
            Self::Unknown(text) => text,
        }
    }
}

/// One callable method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodEntry {
    /// Unique within the manifest; `[a-z][a-z0-9_]{0,62}`.
    pub name: String,
    /// Unique within the manifest.
    pub id: u32,
    /// How requests and replies are encoded.
    pub encoding: Encoding,
}

/// How a method's requests and replies are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Whatever the plugin says.
    #[default]
    Bytes,
    /// JSON.
    Json,
    /// MessagePack, as the SDK's typed methods use it.
    MsgPack,
}

impl Encoding {
    /// As written in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Json => "json",
            Self::MsgPack => "msgpack",
        }
    }
}

/// What a plugin may ask of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::EnumIter)]
pub enum Capability {
    /// Write log lines.
    Log,
    /// Read the monotonic clock.
    Clock,
    /// Count things.
    Metrics,
    /// Read its own `data` files.
    Resources,
}

impl Capability {
    /// As written in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Clock => "clock",
            Self::Metrics => "metrics",
            Self::Resources => "resources",
        }
    }
}

/// Limits a plugin asks for; absent means the operator's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestedLimits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU in percent of one core.
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Fuel of one wasm call.
    pub fuel_per_call: Option<u64>,
}

/// A call with a known answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// Name of a listed method.
    pub method: String,
    /// Bytes of the request.
    pub request: Vec<u8>,
    /// Bytes the reply must have.
    pub reply: Vec<u8>,
}

impl Manifest {
    /// The file for a target, if one is listed.
    #[must_use]
    pub fn file_for(&self, target: &Target) -> Option<&ListedFile> {
        self.files.iter().find(|file| file.target == *target)
    }

    /// The number of a method.
    #[must_use]
    pub fn method_id(&self, name: &str) -> Option<u32> {
        self.methods.iter().find(|method| method.name == name).map(|method| method.id)
    }

    /// Whether the operator's policy still has to grant it: only listed capabilities are.
    #[must_use]
    pub fn wants(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

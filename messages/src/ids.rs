//! Names, versions, digests, keys and generations: parsed once, valid ever after.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{NAME_BYTES_MAX, VERSION_BYTES_MAX};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `[a-z][a-z0-9_-]{0,62}`.
    #[error("not a plugin name: want [a-z][a-z0-9_-]{{0,62}}, got {got:?}")]
    Name {
        /// The text, shortened.
        got: String,
    },
    /// Not a semantic version without build metadata, or too long.
    #[error(
        "not a plugin version: want semver without build metadata, at most {VERSION_BYTES_MAX} bytes, got {got:?}"
    )]
    Version {
        /// The text, shortened.
        got: String,
    },
    /// Not exactly the wanted number of lower-case hexadecimal digits.
    #[error("want {digits} lower-case hexadecimal digits, got {got:?}")]
    Hex {
        /// How many digits were wanted.
        digits: usize,
        /// The text, shortened.
        got: String,
    },
    /// Not one of the tiers.
    #[error("not a tier: want in-process, process or wasm, got {got:?}")]
    Tier {
        /// The text, shortened.
        got: String,
    },
}

/// The first 80 characters: ids in errors come from hostile input.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Name of a plugin: `[a-z][a-z0-9_-]{0,62}`. Safe as a path component, a metric label and a log field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(Arc<str>);

impl PluginName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PluginName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = text.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let tail =
            bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if head && tail && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Name { got: shorten(text) })
        }
    }
}

/// Version of a plugin: semver without build metadata, so that equal versions have equal text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginVersion(semver::Version);

impl PluginVersion {
    /// The version for comparing with requirements.
    #[must_use]
    pub fn semver(&self) -> &semver::Version {
        &self.0
    }
}

impl FromStr for PluginVersion {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::Version { got: shorten(text) };
        if text.len() > VERSION_BYTES_MAX {
            return Err(refuse());
        }
        match semver::Version::parse(text) {
            Ok(version) if version.build.is_empty() => Ok(Self(version)),
            Ok(_) | Err(_) => Err(refuse()),
        }
    }
}

/// The plugin and version that a plugin directory's place names, `…/<name>/<version>`: what was asked for, before
/// anything there has been verified.
#[must_use]
pub fn named_by_place(path: &Path) -> Option<(PluginName, PluginVersion)> {
    let version = path.file_name()?.to_str()?.parse().ok()?;
    let name = path.parent()?.file_name()?.to_str()?.parse().ok()?;
    Some((name, version))
}

/// `N` bytes that are written as lower-case hexadecimal.
fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let refuse = || IdError::Hex { digits: N * 2, got: shorten(text) };
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(refuse());
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_not_hex| refuse())?;
    Ok(bytes)
}

/// SHA-256 of a file or manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_hex(text).map(Self)
    }
}

/// The first eight bytes of SHA-256 over a 32-byte Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl FromStr for KeyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_hex(text).map(Self)
    }
}

/// One initialised instance of an image; numbers rise within a kernel and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationId(pub u64);

/// Where a plugin's code runs: the operator's choice, not the author's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::EnumIter)]
pub enum Tier {
    /// In the host's own address space: fastest, for plugins the operator names as trusted.
    InProcess,
    /// In a sandboxed worker process.
    Process,
    /// As a WebAssembly module.
    Wasm,
}

impl Tier {
    /// As written in configuration, on the command line, in metrics and in the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Process => "process",
            Self::Wasm => "wasm",
        }
    }
}

impl FromStr for Tier {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "in-process" => Ok(Self::InProcess),
            "process" => Ok(Self::Process),
            "wasm" => Ok(Self::Wasm),
            _ => Err(IdError::Tier { got: shorten(text) }),
        }
    }
}

/// `Display`, `Serialize` and `Deserialize` of an id are its text.
macro_rules! as_text {
    ($($id:ty => |$it:ident, $f:ident| $write:expr;)*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $it = self;
                $write
            }
        }

        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text! {
    PluginName => |it, f| f.pad(&it.0);
    PluginVersion => |it, f| it.0.fmt(f);
    Digest => |it, f| f.pad(&hex::encode(it.0));
    KeyId => |it, f| f.pad(&hex::encode(it.0));
    Tier => |it, f| f.pad(it.as_str());
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ascii_and_bounded() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for good in ["a", "geo", "g0-_x", long.as_str()] {
            assert_eq!(good.parse::<PluginName>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "Geo", "0a", "-a", "a.b", "a/b", "a\0", "géo", "gеo", "a ", &too_long] {
            assert!(bad.parse::<PluginName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_place_names_a_plugin_only_when_both_names_are_valid() {
        let named = |path: &str| {
            named_by_place(Path::new(path)).map(|(name, version)| format!("{name} {version}"))
        };
        assert_eq!(named("/srv/plugins/geo/1.2.0"), Some("geo 1.2.0".to_owned()));
        for path in ["geo", "1.2.0", "Geo/1.2.0", "geo/latest", "lib.so", "", "../1.2.0", "geo/.."]
        {
            assert_eq!(named(path), None, "{path}");
        }
    }

    #[test]
    fn versions_have_one_spelling() {
        for good in ["1.0.0", "0.1.0-alpha.1", "10.20.30"] {
            assert_eq!(good.parse::<PluginVersion>().unwrap().to_string(), good);
        }
        for bad in [
            "1.0",
            "01.0.0",
            "1.0.0+build",
            "v1.0.0",
            " 1.0.0",
            "1.0.0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(bad.parse::<PluginVersion>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests_are_lower_case_hex_of_exact_length() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        let upper = good.to_uppercase();
        let spaced = format!(" {}", &good[1..]);
        for bad in ["", &good[1..], upper.as_str(), spaced.as_str(), "sha256:abc"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}

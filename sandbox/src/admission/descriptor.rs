//! What a shared library says of itself, read from its file before anything of it is mapped.

use std::mem::offset_of;
use std::path::Path;
use std::str::FromStr;

use themis_messages::admit::AdmitError;
use themis_messages::ids::{PluginName, PluginVersion};
use themis_messages::manifest::{AbiVersion, Manifest};
use themis_plugin::abi;

/// A descriptor's own size must be at least this: the structure of ABI 1.0.
const SIZE: usize = size_of::<abi::Descriptor>();
/// Feature bits this kernel knows in the half it must know.
const KNOWN_REQUIRED: u64 = 0;

/// The part of the descriptor that is there before relocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes of the plugin's structure.
    pub struct_size: u32,
    /// The ABI it was built for.
    pub abi: AbiVersion,
    /// Feature bits; no unknown one in the upper half.
    pub features: u64,
    /// The plugin's name.
    pub name: PluginName,
    /// The plugin's version.
    pub version: PluginVersion,
}

impl Descriptor {
    /// Reads a descriptor from its first byte on; `bytes` may go on behind it.
    ///
    /// # Errors
    /// [`AdmitError::DescriptorInvalid`] with the field, [`AdmitError::AbiUnsupported`] or
    /// [`AdmitError::FeatureUnknown`].
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, AdmitError> {
        let reader = Reader { path, bytes };
        if reader.array::<8>("magic", offset_of!(abi::Descriptor, magic))? != abi::MAGIC {
            return Err(reader.invalid("magic", "is not \"THEMIS1\" and a NUL"));
        }
        let u16_at = |field, offset| reader.array(field, offset).map(u16::from_le_bytes);
        let found = AbiVersion {
            major: u16_at("abi_major", offset_of!(abi::Descriptor, abi_major))?,
            minor: u16_at("abi_minor", offset_of!(abi::Descriptor, abi_minor))?,
        };
        if !found.is_supported() {
            return Err(unsupported(path, found));
        }
        let struct_size = offset_of!(abi::Descriptor, struct_size);
        let struct_size = u32::from_le_bytes(reader.array("struct_size", struct_size)?);
        let size = usize::try_from(struct_size).unwrap_or(usize::MAX);
        if size < SIZE || size > bytes.len() {
            let room = bytes.len();
            let why = format!("is {struct_size}: want at least {SIZE}, and the file has {room}");
            return Err(reader.invalid("struct_size", why));
        }
        let features = offset_of!(abi::Descriptor, features);
        let features = u64::from_le_bytes(reader.array("features", features)?);
        let unknown = features & abi::FEATURES_REQUIRED & !KNOWN_REQUIRED;
        if unknown != 0 {
            let bit = unknown.trailing_zeros();
            return Err(AdmitError::FeatureUnknown { path: path.to_owned(), bit });
        }
        let name = reader.array::<{ abi::NAME_LEN }>("name", offset_of!(abi::Descriptor, name))?;
        let version = offset_of!(abi::Descriptor, version);
        let version = reader.array::<{ abi::VERSION_LEN }>("version", version)?;
        Ok(Self {
            struct_size,
            abi: found,
            features,
            name: reader.padded("name", &name)?,
            version: reader.padded("version", &version)?,
        })
    }

    /// Whether `call` may run on many threads at once.
    #[must_use]
    pub fn is_thread_safe(&self) -> bool {
        self.features & abi::THREAD_SAFE != 0
    }

    /// Whether it says the same as the signed manifest.
    ///
    /// # Errors
    /// [`AdmitError::DescriptorMismatch`] with the first field that differs.
    pub(super) fn check_against(&self, path: &Path, manifest: &Manifest) -> Result<(), AdmitError> {
        let (name, version) = (manifest.name.to_string(), manifest.version.to_string());
        let said = [Some(name), Some(version), Some(manifest.abi.to_string())];
        self.mismatches(path, said).next().map_or(Ok(()), Err)
    }

    /// Every field that differs from what a manifest says: its name, version and ABI, where it has them.
    pub(super) fn mismatches(
        &self,
        path: &Path,
        [name, version, abi]: [Option<String>; 3],
    ) -> impl Iterator<Item = AdmitError> {
        let pairs = [
            ("name", name, self.name.to_string()),
            ("version", version, self.version.to_string()),
            ("abi", abi, self.abi.to_string()),
        ];
        pairs.into_iter().filter_map(move |(field, expected, found)| {
            let expected = expected.filter(|expected| *expected != found)?;
            Some(AdmitError::DescriptorMismatch { path: path.to_owned(), field, expected, found })
        })
    }

    /// Reads the descriptor of a library that went through no admission.
    #[cfg(test)]
    pub(crate) fn for_test(bytes: &[u8]) -> Self {
        let path = Path::new("test");
        super::elf::Image::parse(path, bytes).unwrap().descriptor().unwrap()
    }
}

pub(super) fn unsupported(path: &Path, found: AbiVersion) -> AdmitError {
    AdmitError::AbiUnsupported {
        path: path.to_owned(),
        found: found.to_string(),
        supported: AbiVersion::KERNEL.to_string(),
    }
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn invalid(&self, field: &'static str, why: impl Into<String>) -> AdmitError {
        AdmitError::DescriptorInvalid { path: self.path.to_owned(), field, why: why.into() }
    }

    fn array<const N: usize>(
        &self,
        field: &'static str,
        offset: usize,
    ) -> Result<[u8; N], AdmitError> {
        let bytes = self.bytes.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(|| self.invalid(field, "lies outside the file"))
    }

    /// Text, then NUL to the end: anything behind the first NUL could be read by somebody else as more.
    fn padded<T: FromStr<Err: std::fmt::Display>>(
        &self,
        field: &'static str,
        bytes: &[u8],
    ) -> Result<T, AdmitError> {
        let end = bytes.iter().position(|&byte| byte == 0);
        let (text, rest) = end
            .and_then(|end| bytes.split_at_checked(end))
            .ok_or_else(|| self.invalid(field, "does not end in NUL"))?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(self.invalid(field, "has bytes behind its NUL"));
        }
        let text = str::from_utf8(text).map_err(|_not_utf8| self.invalid(field, "is not UTF-8"))?;
        text.parse().map_err(|error: T::Err| self.invalid(field, error.to_string()))
    }
}

#[cfg(test)]
mod tests;

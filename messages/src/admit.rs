//! Every reason to refuse a plugin before any of its code runs.
//!
//! One enum for one operation, admission. Its variants carry data; the sentence for people and the stable
//! code for programs are derived from them. [`AdmitErrorKind`] lists the variants, so that tests can be
//! parametrised over all of them.

use std::path::PathBuf;

use crate::bundle::BundleFault;
use crate::ids::{Digest, KeyId, PluginName, PluginVersion};
use crate::wasm::WasmFault;

/// What is wrong with a path, before the file system is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Starts at the file system's root or a drive.
    #[error("it is absolute")]
    Absolute,
    /// Has a `..` component.
    #[error("it leads upwards")]
    Parent,
    /// Has an empty or `.` component.
    #[error("it has an empty or '.' component")]
    Component,
    /// Has a NUL, another control character or a backslash.
    #[error("it has a character that no plugin path may have")]
    Character,
    /// A component ends in a dot or space, or is a name some system reserves.
    #[error("it has a component that some systems would read as another name")]
    Reserved,
    /// Longer than allowed, as a whole or in one component.
    #[error("it is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// Why a plugin was refused. No code of it has run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(name(AdmitErrorKind), derive(Hash, PartialOrd, Ord, strum::EnumIter))]
#[strum_discriminants(doc = "The variants of [`AdmitError`] without their data.")]
pub enum AdmitError {
    // === Policy ===
    /// The name is not on the allow-list.
    #[error("plugin {name} is not on the allow-list: add it to `allow` in themis.toml")]
    NotAllowed {
        /// The plugin.
        name: PluginName,
    },
    /// In-process needs the operator's word.
    #[error(
        "plugin {name} is not trusted in-process: add it to `trusted_in_process` in themis.toml, or choose another tier"
    )]
    NotTrustedInProcess {
        /// The plugin.
        name: PluginName,
    },
    /// Older than the operator's floor.
    #[error("plugin {name} {version} is below its floor {floor}")]
    BelowFloor {
        /// The plugin.
        name: PluginName,
        /// The version offered.
        version: PluginVersion,
        /// The lowest version that may load.
        floor: PluginVersion,
    },
    /// A digest on the revocation list.
    #[error("{path}: digest {digest} is revoked", path = path.display())]
    DigestRevoked {
        /// The file.
        path: PathBuf,
        /// Its digest.
        digest: Digest,
    },

    // === Paths and files ===
    /// The path is refused as text.
    #[error("path {path:?} is refused: {fault}")]
    PathInvalid {
        /// The path, shortened, control characters escaped.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The path leads out of the plugin root (EPERM).
    #[error("{path}: leads out of the plugin root: operation not permitted", path = path.display())]
    PathEscapes {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic or magic link on the way (EPERM).
    #[error("{path}: is or is behind a symbolic link: operation not permitted", path = path.display())]
    PathSymlink {
        /// The path.
        path: PathBuf,
    },
    /// Nothing there.
    #[error("{path}: not found", path = path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A directory, device, socket or pipe where a file should be, or the reverse.
    #[error("{path}: is not a {wanted}", path = path.display())]
    WrongFileType {
        /// The path.
        path: PathBuf,
        /// What was wanted: "regular file" or "directory".
        wanted: &'static str,
    },
    /// Others could change it.
    #[error("{path}: is writable by group or others (mode {mode:04o}): run `chmod go-w`", path = path.display())]
    WritableByOthers {
        /// The path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Belongs to a user that is neither root nor the kernel's own.
    #[error("{path}: belongs to uid {uid}, which is neither root nor the kernel's own", path = path.display())]
    ForeignOwner {
        /// The path.
        path: PathBuf,
        /// The owner.
        uid: u32,
    },
    /// Over the size cap.
    #[error("{path}: {size} bytes are over the limit of {max}", path = path.display())]
    FileTooLarge {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// The system would not read it.
    #[error("{path}: cannot {action}: {error}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried: "open", "read", "stat".
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// Neither a sealed memory file nor a private copy could be made executable.
    #[error("no executable copy of {path} can be made here: {why}", path = path.display())]
    ImageRefused {
        /// The path.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },

    // === Manifest ===
    /// Not strict JSON.
    #[error("{path}: {what}", path = path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// Place and fault.
        what: String,
    },
    /// The same key twice.
    #[error("{path}: duplicate key {key:?}", path = path.display())]
    ManifestDuplicateKey {
        /// The manifest.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A key this schema does not have.
    #[error("{path}: unknown key {key:?}", path = path.display())]
    ManifestUnknownKey {
        /// The manifest.
        path: PathBuf,
        /// The key with its place, for example `files[0].mode`.
        key: String,
    },
    /// A required field is absent.
    #[error("{path}: field {field} is missing", path = path.display())]
    ManifestMissingField {
        /// The manifest.
        path: PathBuf,
        /// The field with its place.
        field: String,
    },
    /// A field with a value it may not have.
    #[error("{path}: field {field}: {why}", path = path.display())]
    ManifestField {
        /// The manifest.
        path: PathBuf,
        /// The field with its place.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// The manifest's name is not the directory's.
    #[error("{path}: names plugin {found}, but its place says {expected}", path = path.display())]
    NameMismatch {
        /// The manifest.
        path: PathBuf,
        /// What the place says.
        expected: String,
        /// What the manifest says.
        found: PluginName,
    },
    /// The manifest's version is not the directory's.
    #[error("{path}: names version {found}, but its place says {expected}", path = path.display())]
    VersionMismatch {
        /// The manifest.
        path: PathBuf,
        /// What the place says.
        expected: String,
        /// What the manifest says.
        found: PluginVersion,
    },
    /// Past its `expires`.
    #[error("{path}: the manifest expired at {expires}", path = path.display())]
    ManifestExpired {
        /// The manifest.
        path: PathBuf,
        /// When.
        expires: jiff::Timestamp,
    },
    /// The manifest handed to `load` is not the signed one.
    #[error("{path}: differs from the manifest handed over, first in field {field}", path = path.display())]
    ManifestDiffers {
        /// The manifest.
        path: PathBuf,
        /// The first field that differs.
        field: String,
    },
    /// A bundle that is none, or hides something.
    #[error("{path}: {fault}", path = path.display())]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        fault: BundleFault,
    },
    /// A wasm module that will not be compiled.
    #[error("{path}: {fault}", path = path.display())]
    Wasm {
        /// The module.
        path: PathBuf,
        /// What is wrong with it.
        fault: WasmFault,
    },
    /// No file for the tier and machine.
    #[error("{path}: lists no file for target {target}, but for: {there}", path = path.display())]
    NoTarget {
        /// The manifest.
        path: PathBuf,
        /// The target wanted.
        target: String,
        /// The targets it lists files for.
        there: String,
    },
    /// Built for another ABI.
    #[error("{path}: ABI {found} is not supported: this kernel has {supported}", path = path.display())]
    AbiUnsupported {
        /// Manifest or binary.
        path: PathBuf,
        /// What the plugin was built for.
        found: String,
        /// What this kernel has.
        supported: String,
    },

    // === Signature and keys ===
    /// Not signed.
    #[error("{path}: there is no signature: sign it with `themis sign`", path = path.display())]
    SignatureMissing {
        /// Where the signature should be.
        path: PathBuf,
    },
    /// Not 64 bytes.
    #[error("{path}: a signature is 64 bytes, this is {found}", path = path.display())]
    SignatureLength {
        /// The signature file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// S is not below the group order: malleable.
    #[error("{path}: the signature's scalar is out of range", path = path.display())]
    SignatureScalarRange {
        /// The signature file.
        path: PathBuf,
    },
    /// Does not verify, strictly.
    #[error("{path}: the signature does not match under key {key_id}", path = path.display())]
    SignatureMismatch {
        /// The signed file.
        path: PathBuf,
        /// The key it should verify with.
        key_id: KeyId,
    },
    /// No such key is pinned.
    #[error("{path}: key {key_id} is not pinned: add it as [[trusted_key]]", path = path.display())]
    KeyUnknown {
        /// The manifest or binary.
        path: PathBuf,
        /// The key asked for.
        key_id: KeyId,
    },
    /// On the revocation list, whatever the date.
    #[error("{path}: key {key_id} is revoked", path = path.display())]
    KeyRevoked {
        /// The manifest or binary.
        path: PathBuf,
        /// The key.
        key_id: KeyId,
    },
    /// Before its time.
    #[error("{path}: key {key_id} is not valid before {not_before}", path = path.display())]
    KeyNotYetValid {
        /// The manifest or binary.
        path: PathBuf,
        /// The key.
        key_id: KeyId,
        /// From when.
        not_before: jiff::Timestamp,
    },
    /// Past its time.
    #[error("{path}: key {key_id} expired at {not_after}", path = path.display())]
    KeyExpired {
        /// The manifest or binary.
        path: PathBuf,
        /// The key.
        key_id: KeyId,
        /// Until when.
        not_after: jiff::Timestamp,
    },
    /// Pinned, but not for this name.
    #[error("{path}: key {key_id} may not sign plugin {name}", path = path.display())]
    KeyNotEntitled {
        /// The manifest or binary.
        path: PathBuf,
        /// The key.
        key_id: KeyId,
        /// The plugin.
        name: PluginName,
    },
    /// A detached signature names no key, and none or several keys may sign this plugin.
    #[error("{path}: a detached signature names no key, and {entitled} pinned keys may sign plugin {name}: exactly one must", path = path.display())]
    KeyAmbiguous {
        /// The binary.
        path: PathBuf,
        /// The plugin.
        name: PluginName,
        /// How many keys may sign it.
        entitled: usize,
    },

    /// The operator asks for an OpenPGP signature as well, and there is none.
    #[error("{path}: there is no OpenPGP signature, and [gpg] asks for one: make it with `gpg --armor --detach-sign`", path = path.display())]
    OpenPgpMissing {
        /// Where the signature should be.
        path: PathBuf,
    },
    /// The operator asks for an OpenPGP signature as well, and this one does not count, or gpg could not say.
    #[error("{path}: the OpenPGP signature does not count: {why}", path = path.display())]
    OpenPgp {
        /// What is signed.
        path: PathBuf,
        /// Stable code of the reason, `gpg.…`.
        code: &'static str,
        /// The reason.
        why: String,
    },

    // === Listed files ===
    /// Bytes that are not the signed ones.
    #[error("{path}: digest {found} is not the signed {expected}", path = path.display())]
    DigestMismatch {
        /// The file.
        path: PathBuf,
        /// From the manifest.
        expected: Digest,
        /// Of the file.
        found: Digest,
    },
    /// Size that is not the signed one.
    #[error("{path}: {found} bytes are not the signed {expected}", path = path.display())]
    SizeMismatch {
        /// The file.
        path: PathBuf,
        /// From the manifest.
        expected: u64,
        /// Of the file.
        found: u64,
    },
    /// In the directory, not in the manifest.
    #[error("{path}: is not listed in the manifest", path = path.display())]
    UnlistedFile {
        /// The file.
        path: PathBuf,
    },
    /// In the manifest, not in the directory.
    #[error("{path}: is listed in the manifest but missing", path = path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },

    // === ELF pre-flight ===
    /// Not an ELF shared library, or a broken one.
    #[error("{path}: is not a usable ELF shared library: {why}", path = path.display())]
    ElfFormat {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// For another machine.
    #[error("{path}: is built for {found}, this machine is {wanted}", path = path.display())]
    ElfArchitecture {
        /// The file.
        path: PathBuf,
        /// What it is built for.
        found: String,
        /// This machine.
        wanted: &'static str,
    },
    /// Relocations in code: the loader would make code writable.
    #[error("{path}: has text relocations: build with -fPIC", path = path.display())]
    ElfTextRelocations {
        /// The file.
        path: PathBuf,
    },
    /// Asks for an executable stack, or does not say.
    #[error("{path}: wants an executable stack: link with -z noexecstack", path = path.display())]
    ElfExecutableStack {
        /// The file.
        path: PathBuf,
    },
    /// A segment that is writable and executable.
    #[error("{path}: segment {segment} is writable and executable", path = path.display())]
    ElfWritableCode {
        /// The file.
        path: PathBuf,
        /// Its index in the program header table.
        segment: usize,
    },
    /// Tells the loader where to look for libraries.
    #[error("{path}: has {tag} {value:?}: link without -rpath", path = path.display())]
    ElfSearchPath {
        /// The file.
        path: PathBuf,
        /// RPATH or RUNPATH.
        tag: &'static str,
        /// Its value.
        value: String,
    },
    /// Makes the loader load another library in its place or beside it.
    #[error("{path}: has {tag}, which loads another library", path = path.display())]
    ElfFilter {
        /// The file.
        path: PathBuf,
        /// FILTER, AUXILIARY, AUDIT or DEPAUDIT.
        tag: &'static str,
    },
    /// A symbol that is unique in the process: generations would share it.
    #[error("{path}: symbol {symbol:?} is STB_GNU_UNIQUE: build with -fno-gnu-unique", path = path.display())]
    ElfUniqueSymbol {
        /// The file.
        path: PathBuf,
        /// The symbol.
        symbol: String,
    },
    /// Needs static TLS, of which a process has little.
    #[error("{path}: needs static TLS: build without -ftls-model=initial-exec", path = path.display())]
    ElfStaticTls {
        /// The file.
        path: PathBuf,
    },
    /// Pulls a library that nobody signed.
    #[error("{path}: needs library {library:?}, which is not on the short list of system libraries", path = path.display())]
    ElfNeeded {
        /// The file.
        path: PathBuf,
        /// The library.
        library: String,
    },

    // === Descriptor ===
    /// No `themis_plugin` symbol.
    #[error("{path}: exports no themis_plugin descriptor", path = path.display())]
    DescriptorMissing {
        /// The file.
        path: PathBuf,
    },
    /// A descriptor that is not one.
    #[error("{path}: descriptor field {field}: {why}", path = path.display())]
    DescriptorInvalid {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Says something else than the signed manifest.
    #[error("{path}: descriptor field {field} is {found:?}, the manifest says {expected:?}", path = path.display())]
    DescriptorMismatch {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// From the manifest.
        expected: String,
        /// From the descriptor.
        found: String,
    },
    /// Requires a feature this kernel does not have.
    #[error("{path}: requires feature bit {bit}, which this kernel does not know", path = path.display())]
    FeatureUnknown {
        /// The file.
        path: PathBuf,
        /// The bit, 32 to 63.
        bit: u32,
    },
}

impl AdmitError {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        if let Self::Wasm { fault, .. } = self {
            return fault.code();
        }
        if let Self::Bundle { fault, .. } = self {
            return fault.code();
        }
        if let Self::OpenPgp { code, .. } = self {
            return code;
        }
        AdmitErrorKind::from(self).code()
    }

    /// Whether the system would call this "operation not permitted".
    #[must_use]
    pub const fn is_permission(&self) -> bool {
        matches!(
            self,
            Self::PathInvalid { .. }
                | Self::PathEscapes { .. }
                | Self::PathSymlink { .. }
                | Self::WritableByOthers { .. }
                | Self::ForeignOwner { .. }
                | Self::NotAllowed { .. }
                | Self::NotTrustedInProcess { .. }
        )
    }
}

impl AdmitErrorKind {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAllowed => "policy.not_allowed",
            Self::NotTrustedInProcess => "policy.not_trusted_in_process",
            Self::BelowFloor => "version.below_floor",
            Self::DigestRevoked => "digest.revoked",
            Self::PathInvalid => "path.invalid",
            Self::PathEscapes => "path.escapes",
            Self::PathSymlink => "path.symlink",
            Self::NotFound => "path.not_found",
            Self::WrongFileType => "path.wrong_file_type",
            Self::WritableByOthers => "path.writable_by_others",
            Self::ForeignOwner => "path.foreign_owner",
            Self::FileTooLarge => "file.too_large",
            Self::Io => "file.io",
            Self::ImageRefused => "image.refused",
            Self::ManifestSyntax => "manifest.syntax",
            Self::ManifestDuplicateKey => "manifest.duplicate_key",
            Self::ManifestUnknownKey => "manifest.unknown_key",
            Self::ManifestMissingField => "manifest.missing_field",
            Self::ManifestField => "manifest.field",
            Self::NameMismatch => "manifest.id_mismatch",
            Self::VersionMismatch => "manifest.version_mismatch",
            Self::ManifestExpired => "manifest.expired",
            Self::ManifestDiffers => "manifest.differs",
            Self::Bundle => "bundle.refused",
            Self::Wasm => "wasm.refused",
            Self::NoTarget => "manifest.no_target",
            Self::AbiUnsupported => "abi.unsupported",
            Self::SignatureMissing => "sig.missing",
            Self::SignatureLength => "sig.length",
            Self::SignatureScalarRange => "sig.scalar_range",
            Self::SignatureMismatch => "sig.mismatch",
            Self::KeyUnknown => "key.unknown",
            Self::KeyRevoked => "key.revoked",
            Self::KeyNotYetValid => "key.not_yet_valid",
            Self::KeyExpired => "key.expired",
            Self::KeyNotEntitled => "key.not_entitled",
            Self::KeyAmbiguous => "key.ambiguous",
            Self::OpenPgpMissing => "gpg.signature_missing",
            Self::OpenPgp => "gpg.refused",
            Self::DigestMismatch => "file.digest_mismatch",
            Self::SizeMismatch => "file.size_mismatch",
            Self::UnlistedFile => "bundle.unlisted_file",
            Self::MissingFile => "bundle.missing_file",
            Self::ElfFormat => "elf.format",
            Self::ElfArchitecture => "elf.architecture",
            Self::ElfTextRelocations => "elf.text_relocations",
            Self::ElfExecutableStack => "elf.executable_stack",
            Self::ElfWritableCode => "elf.writable_code",
            Self::ElfSearchPath => "elf.search_path",
            Self::ElfFilter => "elf.filter",
            Self::ElfUniqueSymbol => "elf.unique_symbol",
            Self::ElfStaticTls => "elf.static_tls",
            Self::ElfNeeded => "elf.needed",
            Self::DescriptorMissing => "descriptor.missing",
            Self::DescriptorInvalid => "descriptor.invalid",
            Self::DescriptorMismatch => "descriptor.mismatch",
            Self::FeatureUnknown => "descriptor.unknown_feature",
        }
    }
}

/// Why a file is not a key to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system would not read it.
    #[error("{path}: cannot read the key: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// Over the size cap.
    #[error("{path}: a key file is at most {max} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The cap.
        max: u64,
    },
    /// Not a PEM file of the wanted kind.
    #[error("{path}: is not {wanted}: {why}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// "an SPKI public key" or "a PKCS#8 private key".
        wanted: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A key of another algorithm: RSA, ECDSA, Ed448 and all else are refused by name.
    #[error("{path}: is a key for {found}: only Ed25519 is accepted", path = path.display())]
    Algorithm {
        /// The file.
        path: PathBuf,
        /// The algorithm's name, or its object identifier.
        found: String,
    },
    /// The 32 bytes are no point, or not the canonical spelling of one.
    #[error("{path}: is not a canonical Ed25519 key", path = path.display())]
    NotCanonical {
        /// The file.
        path: PathBuf,
    },
    /// Of small order, or with a torsion component: a signature could be valid for anything.
    #[error("{path}: is a weak Ed25519 key", path = path.display())]
    Weak {
        /// The file.
        path: PathBuf,
    },
    /// A private key that others can read.
    #[error("{path}: a private key must not be readable by others (mode {mode:04o}): run `chmod 600`", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
}

impl KeyError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "key.io",
            Self::TooLarge { .. } => "key.too_large",
            Self::Format { .. } => "key.format",
            Self::Algorithm { .. } => "key.algorithm",
            Self::NotCanonical { .. } => "key.not_canonical",
            Self::Weak { .. } => "key.weak",
            Self::Exposed { .. } => "key.exposed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use strum::IntoEnumIterator;

    #[test]
    fn every_refusal_has_a_code_of_its_own() {
        let codes: BTreeSet<_> = AdmitErrorKind::iter().map(AdmitErrorKind::code).collect();
        assert_eq!(codes.len(), AdmitErrorKind::iter().count());
        for code in codes {
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_')),
                "{code} is a metric label"
            );
        }
    }
}

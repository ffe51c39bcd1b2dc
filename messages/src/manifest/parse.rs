//! Reads a manifest from bytes that nobody has vouched for yet: capped, strict, every fault with its field.
//!
//! The rules are those of the format alone. Whether this kernel supports the ABI, trusts the key or still
//! admits the date is the business of admission, which asks after the signature has been verified.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::{
    AbiVersion, Capability, Encoding, ListedFile, MANIFEST_FILE, Manifest, MethodEntry,
    OPENPGP_FILE, RequestedLimits, SIGNATURE_FILE, SelfTest, Target,
};
use crate::admit::{AdmitError, PathFault};
use crate::ids::{KeyId, PluginName, PluginVersion};
use crate::limits::{
    FILES_MAX, MANIFEST_BYTES_MAX, MANIFEST_LIST_MAX, MANIFEST_TEXT_BYTES_MAX, NAME_BYTES_MAX,
    PATH_BYTES_MAX, PATH_COMPONENT_BYTES_MAX,
};
use crate::strict_json::{self, StrictJsonError};

/// The one schema there is.
const SCHEMA: u64 = 1;
/// Longest id-like text: a target, a time, a version requirement.
const WORD_BYTES_MAX: usize = 256;
/// Every key of the outermost object.
const KEYS: [&str; 18] = [
    "schema",
    "name",
    "version",
    "abi",
    "description",
    "license",
    "authors",
    "files",
    "key_id",
    "methods",
    "dependencies",
    "capabilities",
    "limits",
    "config",
    "self_test",
    "created",
    "expires",
    "extensions",
];

impl Manifest {
    /// Parses the bytes of a `manifest.json`; `path` is only named in errors.
    ///
    /// # Errors
    /// [`AdmitError::FileTooLarge`] or one of its `Manifest…` variants, with the field at fault.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, AdmitError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > MANIFEST_BYTES_MAX {
            let max = MANIFEST_BYTES_MAX;
            return Err(AdmitError::FileTooLarge { path: path.to_owned(), size, max });
        }
        let value = strict_json::parse(bytes).map_err(|error| match error {
            StrictJsonError::Syntax { .. } => {
                AdmitError::ManifestSyntax { path: path.to_owned(), what: error.to_string() }
            }
            StrictJsonError::DuplicateKey { key, .. } => {
                AdmitError::ManifestDuplicateKey { path: path.to_owned(), key: shorten(&key) }
            }
        })?;
        manifest(value).map_err(|fault| fault.at(path))
    }

    /// The first field in which two manifests differ.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let fields = [
            ("name", self.name == other.name),
            ("version", self.version == other.version),
            ("abi", self.abi == other.abi),
            ("description", self.description == other.description),
            ("license", self.license == other.license),
            ("authors", self.authors == other.authors),
            ("files", self.files == other.files),
            ("key_id", self.key_id == other.key_id),
            ("methods", self.methods == other.methods),
            ("dependencies", self.dependencies == other.dependencies),
            ("capabilities", self.capabilities == other.capabilities),
            ("limits", self.limits == other.limits),
            ("config", self.config == other.config),
            ("self_test", self.self_test == other.self_test),
            ("created", self.created == other.created),
            ("expires", self.expires == other.expires),
            ("extensions", self.extensions == other.extensions),
        ];
        fields.into_iter().find(|(_, equal)| !equal).map(|(field, _)| field.to_owned())
    }
}

/// Whether a text may be the path of a file inside a plugin, on every system alike.
///
/// # Errors
/// The first [`PathFault`] found.
pub fn check_relative_path(path: &str) -> Result<(), PathFault> {
    if path.is_empty() {
        return Err(PathFault::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(PathFault::TooLong);
    }
    let drive = path.as_bytes().get(1) == Some(&b':');
    if path.starts_with('/') || (drive && path.starts_with(|c: char| c.is_ascii_alphabetic())) {
        return Err(PathFault::Absolute);
    }
    path.split('/').try_for_each(check_component)
}

fn check_component(component: &str) -> Result<(), PathFault> {
    match component {
        ".." => return Err(PathFault::Parent),
        "" | "." => return Err(PathFault::Component),
        _ => {}
    }
    if component.len() > PATH_COMPONENT_BYTES_MAX {
        return Err(PathFault::TooLong);
    }
    // Besides control characters and the other systems' separator: what cannot be in a file name, or
    // names a stream, on Windows.
    if component.contains(|c: char| c.is_control() || "\\<>:\"|?*".contains(c)) {
        return Err(PathFault::Character);
    }
    if component.ends_with(['.', ' ']) || is_device(component) {
        return Err(PathFault::Reserved);
    }
    Ok(())
}

/// `NUL`, `con.txt` and their like: on Windows they are devices in every directory.
fn is_device(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    port.is_some_and(|number| {
        matches!(number, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
    })
}

/// What is wrong, before the manifest's own path is known.
#[derive(Debug)]
enum Fault {
    Missing { field: String },
    Unknown { key: String },
    Field { field: String, why: String },
}

impl Fault {
    fn at(self, path: &Path) -> AdmitError {
        let path = path.to_owned();
        match self {
            Self::Missing { field } => AdmitError::ManifestMissingField { path, field },
            Self::Unknown { key } => AdmitError::ManifestUnknownKey { path, key },
            Self::Field { field, why } => AdmitError::ManifestField { path, field, why },
        }
    }
}

fn fault(field: &str, why: impl Into<String>) -> Fault {
    Fault::Field { field: field.to_owned(), why: why.into() }
}

/// Foreign text for an error: short, and without anything a terminal would obey.
fn shorten(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// One object of fixed shape; `place` is its own name followed by a dot, or nothing for the outermost.
struct Object {
    place: String,
    map: Map<String, Value>,
}

impl Object {
    /// Refuses what is not an object or has other keys.
    fn of(field: &str, value: Value, keys: &[&str]) -> Result<Self, Fault> {
        let object = Self { place: format!("{field}."), map: object(field, value)? };
        object.only(keys)?;
        Ok(object)
    }

    fn only(&self, keys: &[&str]) -> Result<(), Fault> {
        match self.map.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => Err(Fault::Unknown { key: format!("{}{}", self.place, shorten(key)) }),
            None => Ok(()),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    /// Reads a field that must be there.
    fn required<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str, Value) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let field = self.name(key);
        match self.map.remove(key) {
            Some(value) => read(&field, value),
            None => Err(Fault::Missing { field }),
        }
    }

    /// Reads a field that may be absent (`null` is a value, not absence).
    fn optional<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str, Value) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let field = self.name(key);
        self.map.remove(key).map(|value| read(&field, value)).transpose()
    }

    /// Reads a list that may be absent.
    fn list<T>(
        &mut self,
        key: &str,
        read: impl FnMut(&str, Value) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let list =
            self.optional(key, |field, value| list(field, value, MANIFEST_LIST_MAX, read))?;
        Ok(list.unwrap_or_default())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wanted(field: &str, what: &str, value: &Value) -> Fault {
    fault(field, format!("want {what}, got {}", kind(value)))
}

fn object(field: &str, value: Value) -> Result<Map<String, Value>, Fault> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(wanted(field, "an object", &value))
        }
    }
}

fn list<T>(
    field: &str,
    value: Value,
    max: usize,
    mut read: impl FnMut(&str, Value) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let Value::Array(values) = value else { return Err(wanted(field, "an array", &value)) };
    if values.len() > max {
        return Err(fault(field, format!("{} entries are over the limit of {max}", values.len())));
    }
    values.into_iter().enumerate().map(|(i, value)| read(&format!("{field}[{i}]"), value)).collect()
}

fn string(field: &str, value: Value, max: usize) -> Result<String, Fault> {
    match value {
        Value::String(text) if text.len() <= max => Ok(text),
        Value::String(text) => {
            Err(fault(field, format!("{} bytes are over the limit of {max}", text.len())))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(wanted(field, "a string", &value))
        }
    }
}

/// Text for people. It ends up on terminals: no control characters but line feed and tabulator.
fn text(field: &str, value: Value) -> Result<String, Fault> {
    let text = string(field, value, MANIFEST_TEXT_BYTES_MAX)?;
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Err(fault(field, "has a control character"));
    }
    Ok(text)
}

/// A short text that parses into something.
fn word<T: FromStr<Err: std::fmt::Display>>(field: &str, value: Value) -> Result<T, Fault> {
    let text = string(field, value, WORD_BYTES_MAX)?;
    text.parse().map_err(|error: T::Err| fault(field, error.to_string()))
}

/// A number from 1 up to what the type holds.
fn positive<T: TryFrom<u64>>(field: &str, value: Value) -> Result<T, Fault> {
    match value.as_u64() {
        Some(number) if number > 0 => {
            T::try_from(number).map_err(|_too_big| fault(field, format!("{number} is too large")))
        }
        Some(_) | None => {
            Err(fault(field, format!("want a whole number above 0, got {value:.80}")))
        }
    }
}

fn number<T: TryFrom<u64>>(field: &str, value: Value) -> Result<T, Fault> {
    let Some(number) = value.as_u64() else {
        return Err(wanted(field, "a whole number that is not negative", &value));
    };
    T::try_from(number).map_err(|_too_big| fault(field, format!("{number} is too large")))
}

fn time(field: &str, value: Value) -> Result<jiff::Timestamp, Fault> {
    word(field, value)
}

fn base64(field: &str, value: Value) -> Result<Vec<u8>, Fault> {
    // The manifest's own cap bounds it.
    let text = string(field, value, usize::MAX)?;
    BASE64.decode(text).map_err(|error| fault(field, format!("is not base64: {error}")))
}

fn manifest(value: Value) -> Result<Manifest, Fault> {
    let mut top = Object { place: String::new(), map: object("the manifest", value)? };
    // First: a manifest of another schema should be called that, not a collection of unknown keys.
    top.required("schema", schema)?;
    top.only(&KEYS)?;
    let name: PluginName = top.required("name", word)?;
    let methods = top.required("methods", |field, value| {
        list(field, value, MANIFEST_LIST_MAX, method).and_then(|all| distinct_methods(field, all))
    })?;
    let self_test =
        top.list("self_test", |field, value| self_test(field, value, methods.as_slice()))?;
    let config = top.optional("config", object)?.unwrap_or_default();
    let extensions = top.optional("extensions", object)?.unwrap_or_default();
    Ok(Manifest {
        version: top.required("version", word::<PluginVersion>)?,
        abi: top.required("abi", abi)?,
        description: top.optional("description", text)?,
        license: top.optional("license", text)?,
        authors: top.list("authors", text)?,
        files: top.required("files", files)?,
        key_id: top.required("key_id", word::<KeyId>)?,
        dependencies: top
            .optional("dependencies", |field, value| dependencies(field, value, &name))?
            .unwrap_or_default(),
        capabilities: distinct_capabilities(top.list("capabilities", capability)?)?,
        limits: top.optional("limits", limits)?.unwrap_or_default(),
        created: top.optional("created", time)?,
        expires: top
            .optional("expires", |field, value| match value {
                Value::Null => Ok(None),
                Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => time(field, value).map(Some),
            })?
            .flatten(),
        name,
        methods,
        self_test,
        config,
        extensions,
    })
}

fn schema(field: &str, value: Value) -> Result<(), Fault> {
    match number::<u64>(field, value)? {
        SCHEMA => Ok(()),
        other => Err(fault(field, format!("{other} is not supported: want {SCHEMA}"))),
    }
}

fn abi(field: &str, value: Value) -> Result<AbiVersion, Fault> {
    let text = string(field, value, WORD_BYTES_MAX)?;
    let version = text.split_once('.').and_then(|(major, minor)| {
        Some(AbiVersion { major: abi_number(major)?, minor: abi_number(minor)? })
    });
    version.ok_or_else(|| fault(field, format!("want \"major.minor\", got {:?}", shorten(&text))))
}

/// Plain decimal with one spelling: no sign, no leading zero.
fn abi_number(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn files(field: &str, value: Value) -> Result<Vec<ListedFile>, Fault> {
    let files = list(field, value, FILES_MAX, file)?;
    if files.is_empty() {
        return Err(fault(field, "is empty"));
    }
    let mut paths = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for (i, file) in files.iter().enumerate() {
        // Some file systems do not tell case apart: there the second file would replace the first.
        if !paths.insert(file.path.to_lowercase()) {
            let why = format!("{:?} is listed twice, or differs only in case", shorten(&file.path));
            return Err(fault(&format!("{field}[{i}].path"), why));
        }
        if file.target != Target::Data && !targets.insert(&file.target) {
            let why = format!("a second file for target {}", file.target.as_str());
            return Err(fault(&format!("{field}[{i}].target"), why));
        }
    }
    Ok(files)
}

fn file(field: &str, value: Value) -> Result<ListedFile, Fault> {
    let mut object = Object::of(field, value, &["path", "target", "sha256", "size"])?;
    Ok(ListedFile {
        path: object.required("path", listed_path)?,
        target: object.required("target", target)?,
        sha256: object.required("sha256", word)?,
        size: object.required("size", number)?,
    })
}

fn listed_path(field: &str, value: Value) -> Result<String, Fault> {
    let path = string(field, value, usize::MAX)?;
    check_relative_path(&path)
        .map_err(|why| fault(field, format!("path {:?} is refused: {why}", shorten(&path))))?;
    if [MANIFEST_FILE, SIGNATURE_FILE, OPENPGP_FILE]
        .iter()
        .any(|own| path.eq_ignore_ascii_case(own))
    {
        return Err(fault(field, format!("{path} cannot be listed")));
    }
    Ok(path)
}

fn target(field: &str, value: Value) -> Result<Target, Fault> {
    let text = string(field, value, NAME_BYTES_MAX)?;
    if let Some(platform) = Target::NATIVE.into_iter().find(|platform| *platform == text) {
        return Ok(Target::Native(platform));
    }
    match text.as_str() {
        "data" => Ok(Target::Data),
        "wasm32" => Ok(Target::Wasm32),
        _ if !text.is_empty() && text.bytes().all(is_target_byte) => Ok(Target::Unknown(text)),
        _ => Err(fault(field, format!("want [a-z0-9._-]{{1,63}}, got {:?}", shorten(&text)))),
    }
}

/// A target ends up in messages, so even an unknown one has a narrow alphabet.
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
}

fn method(field: &str, value: Value) -> Result<MethodEntry, Fault> {
    let mut object = Object::of(field, value, &["name", "id", "encoding"])?;
    Ok(MethodEntry {
        name: object.required("name", method_name)?,
        id: object.required("id", number)?,
        encoding: object.optional("encoding", encoding)?.unwrap_or_default(),
    })
}

fn method_name(field: &str, value: Value) -> Result<String, Fault> {
    let name = string(field, value, NAME_BYTES_MAX)?;
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    if head && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Ok(name);
    }
    Err(fault(field, format!("want [a-z][a-z0-9_]{{0,62}}, got {:?}", shorten(&name))))
}

fn encoding(field: &str, value: Value) -> Result<Encoding, Fault> {
    let text = string(field, value, WORD_BYTES_MAX)?;
    [Encoding::Bytes, Encoding::Json, Encoding::MsgPack]
        .into_iter()
        .find(|encoding| encoding.as_str() == text)
        .ok_or_else(|| {
            fault(field, format!("want bytes, json or msgpack, got {:?}", shorten(&text)))
        })
}

fn distinct_methods(field: &str, methods: Vec<MethodEntry>) -> Result<Vec<MethodEntry>, Fault> {
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for (i, method) in methods.iter().enumerate() {
        if !names.insert(&method.name) {
            return Err(fault(
                &format!("{field}[{i}].name"),
                format!("{} is listed twice", method.name),
            ));
        }
        if !ids.insert(method.id) {
            return Err(fault(
                &format!("{field}[{i}].id"),
                format!("{} is given twice", method.id),
            ));
        }
    }
    Ok(methods)
}

fn self_test(field: &str, value: Value, methods: &[MethodEntry]) -> Result<SelfTest, Fault> {
    let mut object = Object::of(field, value, &["method", "request", "reply"])?;
    let method = object.required("method", method_name)?;
    if !methods.iter().any(|listed| listed.name == method) {
        return Err(fault(&object.name("method"), format!("{method} is not in methods")));
    }
    Ok(SelfTest {
        method,
        request: object.required("request", base64)?,
        reply: object.required("reply", base64)?,
    })
}

fn dependencies(
    field: &str,
    value: Value,
    own: &PluginName,
) -> Result<BTreeMap<PluginName, semver::VersionReq>, Fault> {
    let map = object(field, value)?;
    if map.len() > MANIFEST_LIST_MAX {
        let why = format!("{} entries are over the limit of {MANIFEST_LIST_MAX}", map.len());
        return Err(fault(field, why));
    }
    map.into_iter()
        .map(|(key, value)| {
            let place = format!("{field}.{}", shorten(&key));
            let name: PluginName =
                key.parse().map_err(|error| fault(&place, format!("{error}")))?;
            if name == *own {
                return Err(fault(&place, "a plugin cannot depend on itself"));
            }
            Ok((name, word(&place, value)?))
        })
        .collect()
}

fn capability(field: &str, value: Value) -> Result<Capability, Fault> {
    let text = string(field, value, WORD_BYTES_MAX)?;
    [Capability::Log, Capability::Clock, Capability::Metrics, Capability::Resources]
        .into_iter()
        .find(|capability| capability.as_str() == text)
        .ok_or_else(|| {
            let why = format!("want log, clock, metrics or resources, got {:?}", shorten(&text));
            fault(field, why)
        })
}

fn distinct_capabilities(all: Vec<Capability>) -> Result<Vec<Capability>, Fault> {
    let mut seen = BTreeSet::new();
    for (i, capability) in all.iter().enumerate() {
        if !seen.insert(capability) {
            let why = format!("{} is listed twice", capability.as_str());
            return Err(fault(&format!("capabilities[{i}]"), why));
        }
    }
    Ok(all)
}

fn limits(field: &str, value: Value) -> Result<RequestedLimits, Fault> {
    let keys = ["memory_bytes", "cpu_percent", "pids", "fuel_per_call"];
    let mut object = Object::of(field, value, &keys)?;
    Ok(RequestedLimits {
        memory_bytes: object.optional("memory_bytes", positive)?,
        cpu_percent: object.optional("cpu_percent", positive)?,
        pids: object.optional("pids", positive)?,
        fuel_per_call: object.optional("fuel_per_call", number)?,
    })
}

#[cfg(test)]
mod tests;

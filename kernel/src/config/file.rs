//! The shape of `themis.toml`, and how its text becomes a [`Config`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use themis_messages::ids::{Digest, KeyId, PluginName, PluginVersion, Tier};
use themis_messages::limits::HOOK_DEADLINE;
use themis_sandbox::admission::{NameSet, PublicKey, TrustedKey};
use toml::Spanned;

use super::error::ConfigError;
use super::gpg::{self, GpgToml};
use super::registry::{self, RegistryToml};
use super::source::Source;
use super::watch::{self, BudgetToml, ProbationToml, StateToml, WatchdogToml};
use super::workers::{self, WorkersToml};
use super::{
    ADMIN_SOCKET, CALL_DEADLINE_MAX, CPU_PERCENT_MAX, Config, Limits, PluginConfig, PluginLimits,
    Require, WASM_FUEL_MAX, WASM_MEMORY_BYTES_MAX,
};

/// Longest name of a trusted key.
const LABEL_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ThemisToml {
    data_dir: Spanned<String>,
    plugin_root: Spanned<String>,
    #[serde(default)]
    allow: Vec<NameOrAll>,
    #[serde(default)]
    trusted_in_process: BTreeSet<PluginName>,
    default_tier: Option<Tier>,
    #[serde(default)]
    trusted_key: Vec<KeyToml>,
    #[serde(default)]
    revoked: RevokedToml,
    #[serde(default)]
    admin: AdminToml,
    #[serde(default)]
    metrics: MetricsToml,
    #[serde(default)]
    plugin: BTreeMap<PluginName, PluginToml>,
    #[serde(default)]
    limits: LimitsToml,
    #[serde(default)]
    probation: ProbationToml,
    #[serde(default)]
    watchdog: WatchdogToml,
    #[serde(default)]
    state: StateToml,
    #[serde(default)]
    budget: BudgetToml,
    #[serde(default)]
    workers: WorkersToml,
    registry: Option<RegistryToml>,
    gpg: Option<GpgToml>,
}

/// A plugin's name, or `"*"`.
pub(super) enum NameOrAll {
    All,
    Name(PluginName),
}

impl<'de> Deserialize<'de> for NameOrAll {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "*" {
            return Ok(Self::All);
        }
        text.parse().map(Self::Name).map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct KeyToml {
    id: Spanned<String>,
    path: Spanned<String>,
    not_before: Option<Spanned<toml::Value>>,
    not_after: Option<Spanned<toml::Value>>,
    plugins: Vec<NameOrAll>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct RevokedToml {
    keys: Vec<Spanned<String>>,
    digests: BTreeSet<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct AdminToml {
    socket: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct MetricsToml {
    listen: Option<Spanned<SocketAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct PluginToml {
    config: Option<Spanned<toml::Table>>,
    tier: Option<Tier>,
    require: Option<Spanned<Require>>,
    limits: Option<Spanned<PluginLimitsToml>>,
    autoload: Option<bool>,
    version: Option<semver::VersionReq>,
    floor: Option<PluginVersion>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct PluginLimitsToml {
    memory_bytes: Option<Spanned<u64>>,
    wasm_memory_bytes: Option<Spanned<u64>>,
    cpu_percent: Option<Spanned<u64>>,
    call_deadline_ms: Option<Spanned<u64>>,
    fuel_per_call: Option<Spanned<u64>>,
    fuel_total: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct LimitsToml {
    memory_bytes: Option<Spanned<u64>>,
    wasm_memory_bytes: Option<Spanned<u64>>,
    cpu_percent: Option<Spanned<u64>>,
    hook_deadline_ms: Option<Spanned<u64>>,
    call_deadline_ms: Option<Spanned<u64>>,
    fuel_per_call: Option<Spanned<u64>>,
    fuel_total: Option<Spanned<u64>>,
    max: MaximaToml,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct MaximaToml {
    memory_bytes: Option<Spanned<u64>>,
    wasm_memory_bytes: Option<Spanned<u64>>,
    cpu_percent: Option<Spanned<u64>>,
    fuel_per_call: Option<Spanned<u64>>,
}

/// Reads the text and the keys it names.
pub(super) fn parse(source: &Source<'_>) -> Result<Config, ConfigError> {
    let file: ThemisToml = toml::from_str(source.text).map_err(|error| source.not_toml(&error))?;
    let mut config =
        Config::new(source.resolve(&file.data_dir)?, source.resolve(&file.plugin_root)?);
    config.allow = name_set(file.allow);
    config.trusted_in_process = file.trusted_in_process;
    config.default_tier = file.default_tier.unwrap_or(config.default_tier);
    config.admin_socket = Some(match &file.admin.socket {
        Some(path) => source.resolve(path)?,
        None => config.data_dir.join(ADMIN_SOCKET),
    });
    config.metrics_listen =
        file.metrics.listen.map(|address| loopback(source, &address)).transpose()?;
    config.workers = workers::read(source, &file.workers)?;
    config.limits = limits(source, &file.limits)?;
    config.hook_deadline = deadline(source, &file.limits.hook_deadline_ms, HOOK_DEADLINE)?
        .unwrap_or(config.hook_deadline);
    config.call_deadline = deadline(source, &file.limits.call_deadline_ms, CALL_DEADLINE_MAX)?
        .unwrap_or(config.call_deadline);
    for (name, section) in file.plugin {
        let plugin = plugin(source, section, &config)?;
        config.plugins.insert(name, plugin);
    }
    config.trusted_keys = trusted_keys(source, file.trusted_key)?;
    config.revoked_keys = revoked_keys(source, &file.revoked.keys, &config.trusted_keys)?;
    config.revoked_digests = file.revoked.digests;
    config.registry = file.registry.map(|it| registry::read(source, &it)).transpose()?;
    config.gpg = file.gpg.map(|it| gpg::read(source, it)).transpose()?;
    let tables = (file.probation, file.watchdog, file.state, file.budget);
    watch::read(source, &mut config, &tables)?;
    Ok(config)
}

pub(super) fn name_set(names: Vec<NameOrAll>) -> NameSet {
    let mut set = BTreeSet::new();
    for name in names {
        match name {
            NameOrAll::All => return NameSet::Any,
            NameOrAll::Name(name) => set.insert(name),
        };
    }
    NameSet::Only(set)
}

/// Metrics tell names, versions and refusals to whoever asks, so they are not offered to other machines.
fn loopback(source: &Source<'_>, address: &Spanned<SocketAddr>) -> Result<SocketAddr, ConfigError> {
    let listen = *address.get_ref();
    if listen.ip().is_loopback() {
        return Ok(listen);
    }
    let what = format!(
        "metrics are served on loopback only, {} is not: use 127.0.0.1 or [::1]",
        listen.ip()
    );
    Err(source.invalid(address.span(), what))
}

// === Keys ===

fn trusted_keys(
    source: &Source<'_>,
    sections: Vec<KeyToml>,
) -> Result<Vec<TrustedKey>, ConfigError> {
    let mut keys: Vec<TrustedKey> = Vec::new();
    for section in sections {
        let key = trusted_key(source, &section)?;
        if keys.iter().any(|other| other.label == key.label) {
            return Err(source.invalid(section.id.span(), "two trusted keys have this id"));
        }
        keys.push(TrustedKey { plugins: name_set(section.plugins), ..key });
    }
    Ok(keys)
}

/// The key without the names it may sign.
fn trusted_key(source: &Source<'_>, section: &KeyToml) -> Result<TrustedKey, ConfigError> {
    let label = section.id.get_ref();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.bytes().all(plain) {
        let what = format!("want 1 to {LABEL_BYTES_MAX} of the characters a-z A-Z 0-9 - _ .");
        return Err(source.invalid(section.id.span(), what));
    }
    let path = source.resolve(&section.path)?;
    let key = PublicKey::from_pem_file(&path).map_err(|error| ConfigError::Key {
        at: source.place(section.path.span().start),
        error: Box::new(error),
    })?;
    // A label that reads like a key id must be that key's, or a revocation could mean two keys.
    if KeyId::from_str(label).is_ok_and(|id| id != key.key_id()) {
        let what = format!(
            "this is the id of another key: the key in {} has {}",
            path.display(),
            key.key_id()
        );
        return Err(source.invalid(section.id.span(), what));
    }
    let not_before = section.not_before.as_ref().map(|time| instant(source, time)).transpose()?;
    let not_after = section.not_after.as_ref().map(|time| instant(source, time)).transpose()?;
    if let (Some(from), Some(until), Some(time)) = (not_before, not_after, &section.not_after)
        && until < from
    {
        return Err(
            source.invalid(time.span(), "is before not_before: the key would never be valid")
        );
    }
    Ok(TrustedKey {
        label: label.clone(),
        key,
        not_before,
        not_after,
        plugins: name_set(Vec::new()),
    })
}

/// A date and time with its offset, as TOML writes it or as text.
fn instant(
    source: &Source<'_>,
    value: &Spanned<toml::Value>,
) -> Result<jiff::Timestamp, ConfigError> {
    let text = match value.get_ref() {
        toml::Value::Datetime(time) => Some(time.to_string()),
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        source
            .invalid(value.span(), "want a date and time with an offset, like 2027-01-31T00:00:00Z")
    })
}

/// Ids as the manifest writes them, or the names given to trusted keys.
fn revoked_keys(
    source: &Source<'_>,
    entries: &[Spanned<String>],
    trusted: &[TrustedKey],
) -> Result<BTreeSet<KeyId>, ConfigError> {
    let id_of = |entry: &Spanned<String>| {
        let text = entry.get_ref();
        let labelled = trusted.iter().find(|key| key.label == *text).map(|key| key.key.key_id());
        labelled.or_else(|| text.parse().ok()).ok_or_else(|| {
            source.invalid(
                entry.span(),
                "want a key id of 16 lower-case hexadecimal digits, or the id of a [[trusted_key]]",
            )
        })
    };
    entries.iter().map(id_of).collect()
}

// === Plugins ===

fn plugin(
    source: &Source<'_>,
    section: PluginToml,
    config: &Config,
) -> Result<PluginConfig, ConfigError> {
    let in_process = section.tier.unwrap_or(config.default_tier) == Tier::InProcess;
    if let Some(require) = section.require.as_ref().filter(|_| in_process)
        && *require.get_ref() == Require::Full
    {
        let what = "an in-process plugin is not isolated at all: choose tier \"process\" or \"wasm\", or drop `require`";
        return Err(source.unsupported(require.span(), what));
    }
    if let Some(limits) = section.limits.as_ref().filter(|_| in_process) {
        let what = "limits cannot be enforced on an in-process plugin: choose tier \"process\" or \"wasm\", or drop them";
        return Err(source.unsupported(limits.span(), what));
    }
    let config_object = match section.config {
        Some(table) => json_object(source, table)?,
        None => serde_json::Map::new(),
    };
    let limits = match section.limits {
        Some(limits) => plugin_limits(source, limits.get_ref(), &config.limits)?,
        None => PluginLimits::default(),
    };
    Ok(PluginConfig {
        config: config_object,
        tier: section.tier,
        require: section.require.map(Spanned::into_inner).unwrap_or_default(),
        limits,
        autoload: section.autoload.unwrap_or(true),
        version: section.version,
        floor: section.floor,
    })
}

/// TOML as the JSON that `init` gets. What JSON cannot say is refused, not approximated.
fn json_object(
    source: &Source<'_>,
    table: Spanned<toml::Table>,
) -> Result<serde_json::Map<String, serde_json::Value>, ConfigError> {
    let span = table.span();
    let fields = table.into_inner().into_iter().map(|(key, value)| match json(value) {
        Some(value) => Ok((key, value)),
        None => {
            let what = format!("{key:?} has a date, an infinity or a NaN in it, which JSON does not have: use a string");
            Err(source.invalid(span.clone(), what))
        }
    });
    fields.collect()
}

fn json(value: toml::Value) -> Option<serde_json::Value> {
    Some(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)?.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(_) => return None,
        toml::Value::Array(items) => {
            items.into_iter().map(json).collect::<Option<Vec<_>>>()?.into()
        }
        toml::Value::Table(table) => {
            let fields = table.into_iter().map(|(key, value)| Some((key, json(value)?)));
            serde_json::Value::Object(fields.collect::<Option<_>>()?)
        }
    })
}

// === Limits ===

fn limits(source: &Source<'_>, file: &LimitsToml) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let max = &mut limits.max;
    max.memory_bytes =
        within(source, &file.max.memory_bytes, u64::MAX)?.unwrap_or(max.memory_bytes);
    max.wasm_memory_bytes = within(source, &file.max.wasm_memory_bytes, WASM_MEMORY_BYTES_MAX)?
        .unwrap_or(max.wasm_memory_bytes);
    max.cpu_percent =
        percent(source, &file.max.cpu_percent, CPU_PERCENT_MAX)?.unwrap_or(max.cpu_percent);
    max.fuel_per_call = fuel(source, &file.max.fuel_per_call, 0)?.unwrap_or(max.fuel_per_call);
    let max = limits.max;
    let fuel_default = if max.fuel_per_call > 0 {
        limits.fuel_per_call.min(max.fuel_per_call)
    } else {
        limits.fuel_per_call
    };
    limits.fuel_per_call =
        fuel(source, &file.fuel_per_call, max.fuel_per_call)?.unwrap_or(fuel_default);
    limits.fuel_total = fuel(source, &file.fuel_total, 0)?.unwrap_or(limits.fuel_total);
    // A default that was not written down gives way to a maximum that was.
    limits.memory_bytes = within(source, &file.memory_bytes, max.memory_bytes)?
        .unwrap_or(limits.memory_bytes.min(max.memory_bytes));
    limits.wasm_memory_bytes = within(source, &file.wasm_memory_bytes, max.wasm_memory_bytes)?
        .unwrap_or(limits.wasm_memory_bytes.min(max.wasm_memory_bytes));
    limits.cpu_percent = percent(source, &file.cpu_percent, max.cpu_percent)?
        .unwrap_or(limits.cpu_percent.min(max.cpu_percent));
    Ok(limits)
}

fn plugin_limits(
    source: &Source<'_>,
    file: &PluginLimitsToml,
    limits: &Limits,
) -> Result<PluginLimits, ConfigError> {
    Ok(PluginLimits {
        memory_bytes: within(source, &file.memory_bytes, limits.max.memory_bytes)?,
        wasm_memory_bytes: within(source, &file.wasm_memory_bytes, limits.max.wasm_memory_bytes)?,
        cpu_percent: percent(source, &file.cpu_percent, limits.max.cpu_percent)?,
        call_deadline: deadline(source, &file.call_deadline_ms, CALL_DEADLINE_MAX)?,
        fuel_per_call: fuel(source, &file.fuel_per_call, limits.max.fuel_per_call)?,
        fuel_total: fuel(source, &file.fuel_total, 0)?,
    })
}

/// Units of fuel: 0 is no limit, unless a maximum is set. A maximum of 0 is none.
fn fuel(
    source: &Source<'_>,
    number: &Option<Spanned<u64>>,
    max: u64,
) -> Result<Option<u64>, ConfigError> {
    let Some(number) = number else { return Ok(None) };
    let value = *number.get_ref();
    let what = match max {
        0 if value <= WASM_FUEL_MAX => return Ok(Some(value)),
        0 => format!("want 0 (no limit) to {WASM_FUEL_MAX}, got {value}"),
        max if (1..=max).contains(&value) => return Ok(Some(value)),
        max => format!("want 1 to {max} (limits.max.fuel_per_call), got {value}"),
    };
    Err(source.invalid(number.span(), what))
}

/// A number from 1 to `max`, if there is one.
fn within(
    source: &Source<'_>,
    number: &Option<Spanned<u64>>,
    max: u64,
) -> Result<Option<u64>, ConfigError> {
    let Some(number) = number else {
        return Ok(None);
    };
    let value = *number.get_ref();
    if (1..=max).contains(&value) {
        return Ok(Some(value));
    }
    Err(source.invalid(number.span(), format!("want 1 to {max}, got {value}")))
}

fn percent(
    source: &Source<'_>,
    number: &Option<Spanned<u64>>,
    max: u32,
) -> Result<Option<u32>, ConfigError> {
    let value = within(source, number, u64::from(max))?;
    // `within` kept it at or below a u32.
    Ok(value.map(|value| u32::try_from(value).unwrap_or(max)))
}

fn deadline(
    source: &Source<'_>,
    number: &Option<Spanned<u64>>,
    max: Duration,
) -> Result<Option<Duration>, ConfigError> {
    let max_ms = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    Ok(within(source, number, max_ms)?.map(Duration::from_millis))
}

//! The table `[registry]`: where the marketplace is, and what is believed of it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use themis_actors::registry::tls::TlsTrust;
use themis_messages::limits::REGISTRY_RETRY_LIMIT;
use toml::Spanned;
use url::Url;

use super::error::ConfigError;
use super::source::Source;

/// What is installed, next to the configuration file, when that does not say otherwise.
const LOCK_FILE: &str = "themis.lock";
/// Largest root metadata, certificates or token, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest that anybody should wait for a registry, in milliseconds: an hour.
const RETRY_MS_MAX: u64 = 3_600_000;
const PIN_BYTES: usize = 32;

/// Where the marketplace is.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Its address: `https`, with a slash at the end.
    pub url: Url,
    /// A mirror that everything is fetched from in place of `url`. It is not believed: the registry's own keys are. Default:
    /// none.
    pub mirror: Option<Url>,
    /// Its root metadata, which the operator got from the publisher by a way of his own.
    pub root: Arc<[u8]>,
    /// Authorities and pins. Default: the system's authorities, no pins.
    pub tls: TlsTrust,
    /// Whether it may refer to addresses in private networks. Default: no.
    pub allow_private: bool,
    /// Through which everything goes. Default: none.
    pub proxy: Option<Url>,
    /// Sent to the registry, and to nobody else. Default: none.
    pub token: Option<String>,
    /// How long one operation may try. Default: [`REGISTRY_RETRY_LIMIT`].
    pub retry_limit: Duration,
    /// Where it is written down what is installed.
    pub lock_file: PathBuf,
}

impl std::fmt::Debug for RegistryConfig {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryConfig").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl RegistryConfig {
    /// A registry with nothing but what it must have.
    #[must_use]
    pub fn new(url: Url, root: impl Into<Arc<[u8]>>, lock_file: impl Into<PathBuf>) -> Self {
        Self {
            url,
            mirror: None,
            root: root.into(),
            tls: TlsTrust::default(),
            allow_private: false,
            proxy: None,
            token: None,
            retry_limit: REGISTRY_RETRY_LIMIT,
            lock_file: lock_file.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RegistryToml {
    url: Spanned<String>,
    mirror: Option<Spanned<String>>,
    root: Spanned<String>,
    ca: Option<Spanned<String>>,
    #[serde(default)]
    pins: Vec<Spanned<String>>,
    #[serde(default)]
    allow_private: bool,
    proxy: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    max_total_retry_time_ms: Option<Spanned<u64>>,
    lock_file: Option<Spanned<String>>,
}

pub(super) fn read(
    source: &Source<'_>,
    table: &RegistryToml,
) -> Result<RegistryConfig, ConfigError> {
    let url = folder(source, &table.url)?;
    let lock_file = match &table.lock_file {
        Some(path) => source.resolve(path)?,
        None => source.base_dir.join(LOCK_FILE),
    };
    let mut config = RegistryConfig::new(url, bytes(source, &table.root)?, lock_file);
    config.mirror = table.mirror.as_ref().map(|it| folder(source, it)).transpose()?;
    if let Some(ca) = &table.ca {
        config.tls.authorities = bytes(source, ca)?;
    }
    config.tls.pins = table.pins.iter().map(|it| pin(source, it)).collect::<Result<_, _>>()?;
    config.allow_private = table.allow_private;
    config.proxy = table.proxy.as_ref().map(|it| address(source, it)).transpose()?;
    config.token = table.token_file.as_ref().map(|it| token(source, it)).transpose()?;
    if let Some(limit) = &table.max_total_retry_time_ms {
        let is = *limit.get_ref();
        if !(1..=RETRY_MS_MAX).contains(&is) {
            return Err(source.invalid(limit.span(), format!("want 1 to {RETRY_MS_MAX}, not {is}")));
        }
        config.retry_limit = Duration::from_millis(is);
    }
    Ok(config)
}

/// Where files are fetched from.
fn folder(source: &Source<'_>, text: &Spanned<String>) -> Result<Url, ConfigError> {
    let mut url = address(source, text)?;
    if url.scheme() != "https" {
        let what = "want an https address: nothing is fetched without TLS";
        return Err(source.invalid(text.span(), what));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn address(source: &Source<'_>, text: &Spanned<String>) -> Result<Url, ConfigError> {
    text.get_ref()
        .parse()
        .map_err(|error| source.invalid(text.span(), format!("not an address: {error}")))
}

fn pin(source: &Source<'_>, text: &Spanned<String>) -> Result<[u8; PIN_BYTES], ConfigError> {
    let mut pin = [0; PIN_BYTES];
    hex::decode_to_slice(text.get_ref(), &mut pin).map_err(|error| {
        let what =
            format!("want the SHA-256 of a public key (SPKI), 64 hexadecimal digits: {error}");
        source.invalid(text.span(), what)
    })?;
    Ok(pin)
}

fn bytes(source: &Source<'_>, path: &Spanned<String>) -> Result<Vec<u8>, ConfigError> {
    let (file, place) = open(source, path)?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    let count = read.map_err(|error| failed(&place, "read", &error))?;
    if count as u64 > FILE_BYTES_MAX {
        let (path, size) = (place, count as u64);
        return Err(ConfigError::TooLarge { path, size, max: FILE_BYTES_MAX });
    }
    Ok(bytes)
}

fn open(source: &Source<'_>, path: &Spanned<String>) -> Result<(File, PathBuf), ConfigError> {
    let place = source.resolve(path)?;
    let file = File::open(&place).map_err(|error| failed(&place, "open", &error))?;
    Ok((file, place))
}

/// A secret has one owner.
fn token(source: &Source<'_>, path: &Spanned<String>) -> Result<String, ConfigError> {
    let (file, place) = open(source, path)?;
    let mode = file.metadata().map_err(|error| failed(&place, "stat", &error))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let what =
            format!("{} can be read by others (mode {mode:04o}): run `chmod 600`", place.display());
        return Err(source.invalid(path.span(), what));
    }
    let text = String::from_utf8(bytes(source, path)?);
    let text = text.map_err(|_not_text| ConfigError::NotUtf8 { path: place })?;
    Ok(text.trim().to_owned())
}

fn failed(path: &Path, action: &'static str, error: &std::io::Error) -> ConfigError {
    ConfigError::Io { path: path.to_owned(), action, error: error.to_string() }
}

//! The marketplace as a host sees it: finding plugins, installing them, and what that took.

use std::path::Path;
use std::sync::Arc;

use themis_actors::registry::client::{RegistryMsg, RegistrySettings};
use themis_actors::registry::http::HttpSettings;
use themis_actors::registry::mirror::Mirrored;
use themis_actors::registry::trust::Anchor;
use themis_actors::registry::{self, install};
use themis_messages::ids::PluginName;
use themis_messages::limits::ASK_DEADLINE;
use themis_messages::registry::{
    InstallReport, InstallRequest, Progress, RegistryError, RequestStats, Resolved, Wanted,
};
use tokio::sync::mpsc;

use crate::Config;
use crate::refs::Control;

/// The registry as configured, opened when it is first asked.
pub(crate) fn settings(config: &Config) -> Option<RegistrySettings> {
    let registry = config.registry.as_ref()?;
    let (home, source) = (&registry.url, registry.mirror.as_ref().unwrap_or(&registry.url));
    let http = HttpSettings {
        home: source.clone(),
        tls: registry.tls.clone(),
        allow_private: registry.allow_private,
        proxy: registry.proxy.clone(),
        token: registry.token.clone(),
    };
    let anchor =
        Anchor { home: home.clone(), source: source.clone(), root: Arc::clone(&registry.root) };
    let bundles = config.data_dir.join("bundles");
    let lock_file = registry.lock_file.clone();
    Some(RegistrySettings::new(http, anchor, registry.retry_limit, bundles, lock_file))
}

/// Copies the configured registry to a folder that any web server can serve, or brings the copy there up to date. Needs no
/// kernel, and holds a lock on the folder meanwhile.
///
/// # Errors
/// [`RegistryError`]; then clients of the mirror see it as it was.
pub async fn mirror(
    config: &Config,
    dir: &Path,
    told: Option<mpsc::Sender<Progress>>,
) -> Result<Mirrored, RegistryError> {
    let settings = settings(config).ok_or(RegistryError::NotConfigured)?;
    registry::mirror::mirror(&settings, dir, told).await
}

/// Finds and installs plugins.
///
/// Nothing is believed because a registry says it: metadata is verified from the configured root on, and every bundle
/// against the publishers' keys of the configuration, as if it had been copied here by hand.
///
/// ```no_run
/// use themis_kernel::market::{InstallRequest, Progress};
/// use themis_kernel::{Config, Kernel};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = Kernel::start(Config::from_file("themis.toml".as_ref())?).await?;
/// let market = kernel.marketplace();
///
/// // Where it is: nothing is fetched but metadata.
/// let found = market.resolve(&"geo".parse()?, "^1".parse()?).await?;
/// println!("{} {}: {}", found.release.plugin, found.release.version, found.url);
///
/// // Install it with what it needs, and hear how far it is.
/// let (told, mut steps) = tokio::sync::mpsc::channel(16);
/// let request = InstallRequest { wanted: vec!["geo@^1".parse()?], ..InstallRequest::default() };
/// let installing = market.install(request, Some(told));
/// let showing = async {
///     while let Some(step) = steps.recv().await {
///         if let Progress::Fetching { plugin, bytes, of, .. } = step {
///             println!("{plugin}: {bytes} of {of} bytes");
///         }
///     }
/// };
/// let (report, ()) = tokio::join!(installing, showing);
/// for it in report?.installed {
///     let geo = kernel.loader().load(&it.path, None).await?;
///     println!("{} {} serves", geo.name(), it.version);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MarketplaceClient(pub(crate) Control);

impl MarketplaceClient {
    /// Where a plugin is, in the newest version that matches: address, digest, size, the publisher's signature, and
    /// what it needs besides.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve(
        &self,
        plugin: &PluginName,
        version: semver::VersionReq,
    ) -> Result<Resolved, RegistryError> {
        self.resolve_telling(Wanted { plugin: plugin.clone(), version }, None).await
    }

    pub(crate) async fn resolve_telling(
        &self,
        wanted: Wanted,
        told: Option<mpsc::Sender<Progress>>,
    ) -> Result<Resolved, RegistryError> {
        let environment = Arc::clone(&self.0.environment);
        let found =
            self.0.executor.run(async move { install::find(&environment, wanted, told).await });
        found.await?
    }

    /// Blocking twin of [`MarketplaceClient::resolve`].
    ///
    /// # Errors
    /// [`RegistryError`]; also when called on a runtime's thread.
    pub fn resolve_blocking(
        &self,
        plugin: &PluginName,
        version: semver::VersionReq,
    ) -> Result<Resolved, RegistryError> {
        self.0.executor.block(self.resolve(plugin, version))?
    }

    /// Installs plugins and everything they need, or updates what is installed: all of it or nothing. What was loaded is
    /// reloaded; if that fails, the installation has failed, and what served before still serves.
    ///
    /// `told` hears how far it is, as long as it listens; it holds nothing up.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn install(
        &self,
        request: InstallRequest,
        told: Option<mpsc::Sender<Progress>>,
    ) -> Result<InstallReport, RegistryError> {
        let (environment, actor) = (Arc::clone(&self.0.environment), self.0.actor.to_string());
        let installed = self
            .0
            .executor
            .run(async move { install::install(&environment, &request, &actor, told).await });
        installed.await?
    }

    /// Blocking twin of [`MarketplaceClient::install`].
    ///
    /// # Errors
    /// [`RegistryError`]; also when called on a runtime's thread.
    pub fn install_blocking(
        &self,
        request: InstallRequest,
    ) -> Result<InstallReport, RegistryError> {
        self.0.executor.block(self.install(request, None))?
    }

    /// What the last request of the registry took; `None` when there was none yet.
    ///
    /// # Errors
    /// [`RegistryError::Kernel`].
    pub async fn last_request_stats(&self) -> Result<Option<RequestStats>, RegistryError> {
        let environment = Arc::clone(&self.0.environment);
        let asked = self.0.executor.run(async move {
            let registry = &environment.roles.registry;
            registry.ask(ASK_DEADLINE, |reply| RegistryMsg::LastRequest { reply }).await
        });
        Ok(asked.await??)
    }

    /// Blocking twin of [`MarketplaceClient::last_request_stats`].
    ///
    /// # Errors
    /// As that; also when called on a runtime's thread.
    pub fn last_request_stats_blocking(&self) -> Result<Option<RequestStats>, RegistryError> {
        self.0.executor.block(self.last_request_stats())?
    }
}

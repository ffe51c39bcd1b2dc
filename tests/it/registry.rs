//! The marketplace, both ends: what is published is what is installed, whatever a server does in between.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use themis_kernel::Config;
use themis_kernel::admission::pack_dir;
use themis_kernel::config::RegistryConfig;
use themis_kernel::market::{InstallRequest, RegistryError, Wanted};
use themis_kernel::registry::http::{Http, HttpSettings};
use themis_kernel::registry::operation::Operation;
use themis_kernel::registry::publish::root::Founding;
use themis_kernel::registry::publish::{Registry, Validity};
use themis_kernel::registry::tls::TlsTrust;
use themis_kernel::registry::trust::{Anchor, Memory, refresh};
use themis_tests::web::{Answer, Certificate, Piece, Web, file};
use themis_tests::{Fixture, Site};

mod attacks;
mod forge;
mod install;
mod metadata;
mod mirror;
mod nginx;
mod transport;

/// Long enough for a busy machine, and short enough to wait for where a limit is what is tested.
const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(1_500);

/// A registry, and the place whose key signs what is in it.
struct Published {
    site: Site,
    registry: Registry,
    dir: PathBuf,
}

impl Published {
    /// With these versions of `counter`.
    async fn new(versions: &[&str]) -> Self {
        let site = Site::new();
        let dir = site.path().join("registry");
        let founding = Founding { root_keys: 1, threshold: 1, validity: Validity::default() };
        let registry = Registry::init(&dir, founding).await.unwrap();
        let published = Self { site, registry, dir };
        for version in versions {
            published.add(&Fixture::c("counter.c", "counter", version)).await;
        }
        published.publish().await;
        published
    }

    async fn add(&self, fixture: &Fixture) {
        let bundle = self.bundle(fixture);
        self.registry.add(&bundle, &self.site.key.public_key()).await.unwrap();
    }

    async fn publish(&self) {
        self.registry.publish(Validity::default()).await.unwrap();
    }

    /// A bundle of a plugin, outside of the plugin root.
    fn bundle(&self, fixture: &Fixture) -> PathBuf {
        let dir = self.site.root().join(self.site.add(fixture));
        let to = self.site.path().join("packed.tdb");
        pack_dir(&dir, Some(&to)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        to
    }

    fn public(&self) -> PathBuf {
        self.registry.public()
    }

    fn root(&self) -> Vec<u8> {
        std::fs::read(self.public().join("metadata/1.root.json")).unwrap()
    }

    fn anchor(&self, web: &Web) -> Anchor {
        let home = RegistryConfig::new(web.url.parse().unwrap(), [], "").url;
        Anchor { source: home.clone(), home, root: Arc::from(self.root()) }
    }

    /// A host that trusts this registry, and the keys of its publisher.
    fn host(&self, web: &Web) -> (Site, Config) {
        let site = Site::new();
        let mut config = site.config(&["counter"]);
        config.trusted_keys = self.site.config(&[]).trusted_keys;
        config.probation.window = Duration::ZERO;
        let lock_file = site.path().join("themis.lock");
        let mut registry = RegistryConfig::new(web.url.parse().unwrap(), self.root(), lock_file);
        registry.tls.authorities = web.authority.clone();
        registry.retry_limit = LIMIT;
        config.registry = Some(registry);
        (site, config)
    }
}

fn wanted(texts: &[&str]) -> InstallRequest {
    let wanted = texts.iter().map(|text| text.parse::<Wanted>().unwrap()).collect();
    InstallRequest { wanted, ..InstallRequest::default() }
}

fn settings(web: &Web) -> HttpSettings {
    HttpSettings {
        home: web.url.parse().unwrap(),
        tls: TlsTrust { authorities: web.authority.clone(), pins: Vec::new() },
        allow_private: false,
        proxy: None,
        token: None,
    }
}

/// Fetches the metadata once, as somebody who has seen `memory`.
async fn look(
    published: &Published,
    web: &Web,
    memory: &Memory,
) -> Result<(Vec<String>, Memory), RegistryError> {
    look_within(LIMIT, published, web, memory).await
}

async fn look_within(
    limit: Duration,
    published: &Published,
    web: &Web,
    memory: &Memory,
) -> Result<(Vec<String>, Memory), RegistryError> {
    let http = Http::new(&settings(web)).unwrap();
    let operation = Operation::start(limit, None);
    let (repository, memory) =
        refresh(&published.anchor(web), &http, &operation, memory, None).await?;
    let names = repository.all_targets().map(|(name, _)| name.raw().to_owned());
    Ok((names.collect(), memory))
}

/// A server that gives out one of several copies of a registry.
struct Copies {
    web: Web,
    shown: Arc<Mutex<PathBuf>>,
}

impl Copies {
    fn serve(first: &Path) -> Self {
        let shown = Arc::new(Mutex::new(first.to_owned()));
        let served = Arc::clone(&shown);
        let web = Web::start(move |seen| file(&served.lock().unwrap(), seen));
        Self { web, shown }
    }

    fn show(&self, dir: &Path) {
        *self.shown.lock().unwrap() = dir.to_owned();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

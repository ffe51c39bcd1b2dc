//! The marketplace, both ends: what is published is what is installed, whatever a server does in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use themis_kernel::admission::{PublicKey, SigningKey, pack_dir, sign_dir};
use themis_kernel::market::RegistryError;
use themis_kernel::registry::http::{Http, HttpSettings};
use themis_kernel::registry::operation::Operation;
use themis_kernel::registry::publish::root::Founding;
use themis_kernel::registry::publish::{Registry, Validity};
use themis_kernel::registry::tls::TlsTrust;
use themis_kernel::registry::trust::{Anchor, Memory, refresh};
use themis_tests::web::{Answer, Certificate, Piece, Seen, Web, file};
use themis_tests::{Fixture, Site};

mod metadata;
mod transport;

const LIMIT: Duration = Duration::from_secs(10);

/// A registry with `counter` in some versions, and the site whose key signed them.
struct Published {
    site: Site,
    registry: Registry,
    dir: PathBuf,
}

impl Published {
    async fn new(versions: &[&str]) -> Self {
        let site = Site::new();
        let dir = site.root().parent().unwrap().join("registry");
        let founding = Founding { root_keys: 1, threshold: 1, validity: Validity::default() };
        let registry = Registry::init(&dir, founding).await.unwrap();
        let published = Self { site, registry, dir };
        for version in versions {
            published.add(version).await;
        }
        published.registry.publish(Validity::default()).await.unwrap();
        published
    }

    async fn add(&self, version: &str) {
        let bundle = bundle(&self.site, &Fixture::c("counter.c", "counter", version).with_wasm());
        self.registry.add(&bundle, &self.site.key.public_key()).await.unwrap();
    }

    fn public(&self) -> PathBuf {
        self.registry.public()
    }

    fn anchor(&self, web: &Web) -> Anchor {
        let root = std::fs::read(self.public().join("metadata/1.root.json")).unwrap();
        Anchor { home: web.url.parse().unwrap(), root: Arc::from(root) }
    }
}

/// A bundle of a plugin, outside of the plugin root.
fn bundle(site: &Site, fixture: &Fixture) -> PathBuf {
    let dir = site.root().join(site.add(fixture));
    let to = site.root().parent().unwrap().join("counter.tdb");
    pack_dir(&dir, Some(&to)).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    to
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
    let http = Http::new(&settings(web)).unwrap();
    let operation = Operation::start(LIMIT, None);
    let (repository, memory) = refresh(&published.anchor(web), &http, &operation, memory).await?;
    let names = repository.all_targets().map(|(name, _)| name.raw().to_owned());
    Ok((names.collect(), memory))
}

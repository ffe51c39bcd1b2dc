//! Mirrors: served by whoever likes, filled without a key, and never believed.

use themis_kernel::Kernel;

use super::*;

/// A mirror's folder, and what its operator configured.
struct Mirroring {
    site: Site,
    config: Config,
}

impl Mirroring {
    fn of(published: &Published, web: &Web) -> Self {
        let (site, config) = published.host(web);
        Self { site, config }
    }

    fn dir(&self) -> PathBuf {
        self.site.path().join("mirror")
    }

    fn public(&self) -> PathBuf {
        self.dir().join("public")
    }

    /// Versions that are there, and how many of them are new.
    async fn run(&self) -> Result<(usize, usize), RegistryError> {
        let done = themis_kernel::mirror(&self.config, &self.dir(), None).await?;
        assert_eq!(done.public, self.public());
        Ok((done.releases, done.fetched))
    }
}

/// A host that fetches from a mirror and has nothing of the registry but its address and its root.
fn host_of(published: &Published, home: &Web, mirror: &Web) -> (Site, Config) {
    let (site, mut config) = published.host(home);
    let registry = config.registry.as_mut().unwrap();
    registry.mirror = Some(mirror.url.parse().unwrap());
    registry.tls.authorities = mirror.authority.clone();
    (site, config)
}

async fn install(config: Config, request: InstallRequest) -> Result<usize, RegistryError> {
    let kernel = Kernel::start(config).await.unwrap();
    let report = kernel.marketplace().install(request, None).await;
    kernel.shutdown().await;
    Ok(report?.installed.len())
}

/// Every file below a folder, with its content.
fn files(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_mirror_serves_the_registrys_own_bytes_and_follows_it() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let mirroring = Mirroring::of(&published, &web);
    assert_eq!(mirroring.run().await.unwrap(), (1, 1));
    assert_eq!(mirroring.run().await.unwrap(), (1, 0), "nothing is fetched twice");

    // New versions and a new root key.
    published.add(&Fixture::c("counter.c", "counter", "1.1.0")).await;
    published.publish().await;
    published.registry.rotate("root", Validity::default()).await.unwrap();
    assert_eq!(mirroring.run().await.unwrap(), (2, 1));
    let (theirs, ours) = (files(&published.public()), files(&mirroring.public()));
    for (name, bytes) in &ours {
        assert_eq!(theirs.get(name), Some(bytes), "{}", name.display());
    }
    for name in ["1.root.json", "2.root.json", "timestamp.json"] {
        assert!(ours.contains_key(&Path::new("metadata").join(name)), "{name}");
    }

    // A damaged bundle is made good.
    let bundle = ours.keys().find(|name| name.starts_with("targets")).unwrap();
    std::fs::write(mirroring.public().join(bundle), "damaged").unwrap();
    assert_eq!(mirroring.run().await.unwrap(), (2, 1));
    assert_eq!(files(&mirroring.public()), ours);
}

#[tokio::test]
async fn hosts_install_from_a_mirror_while_the_registry_is_gone() {
    let published = Published::new(&["1.0.0"]).await;
    let home = Web::serve(published.public());
    let mirroring = Mirroring::of(&published, &home);
    mirroring.run().await.unwrap();
    let mirror = Web::serve(mirroring.public());
    let (site, config) = host_of(&published, &home, &mirror);
    let asked = home.seen().len();
    assert_eq!(install(config.clone(), wanted(&["counter@^1"])).await.unwrap(), 1);
    assert_eq!(home.seen().len(), asked, "the registry itself was not asked");
    let lock = std::fs::read_to_string(site.path().join("themis.lock")).unwrap();
    assert!(lock.contains(&home.url), "it is known by the registry's own address: {lock}");
    assert!(!lock.contains(&mirror.url));

    // Back to the registry, which is the same one.
    published.add(&Fixture::c("counter.c", "counter", "1.1.0")).await;
    published.publish().await;
    let mut direct = config;
    let registry = direct.registry.as_mut().unwrap();
    registry.mirror = None;
    registry.tls.authorities = home.authority.clone();
    let update = InstallRequest { update: true, ..InstallRequest::default() };
    assert_eq!(install(direct, update).await.unwrap(), 1);
}

#[tokio::test]
async fn a_tampered_mirror_is_refused() {
    let published = Published::new(&["1.0.0"]).await;
    let home = Web::serve(published.public());
    for (part, code) in [("targets", "registry.digest"), ("targets.json", "registry.mismatch")] {
        let mirroring = Mirroring::of(&published, &home);
        mirroring.run().await.unwrap();
        let mirror = Web::serve(mirroring.public());
        let all = files(&mirroring.public());
        let name = all
            .keys()
            .find(|name| name.starts_with(part) || name.display().to_string().ends_with(part));
        let path = mirroring.public().join(name.unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 9;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (site, config) = host_of(&published, &home, &mirror);
        let error = install(config, wanted(&["counter"])).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(std::fs::read_dir(site.root()).unwrap().next().is_none());
    }
}

#[tokio::test]
async fn a_mirror_never_goes_back_and_keeps_what_it_has() {
    let published = Published::new(&["1.0.0"]).await;
    let old = published.site.path().join("old");
    copy(&published.public(), &old);
    published.add(&Fixture::c("counter.c", "counter", "1.1.0")).await;
    published.publish().await;
    let web = Web::serve(published.public());
    let mirroring = Mirroring::of(&published, &web);
    mirroring.run().await.unwrap();
    let before = files(&mirroring.public());

    // The registry as it was: an attacker's, or a backup that somebody put back.
    std::fs::remove_dir_all(published.public()).unwrap();
    std::fs::rename(&old, published.public()).unwrap();
    assert_eq!(mirroring.run().await.unwrap_err().code(), "registry.rollback");
    assert_eq!(files(&mirroring.public()), before);

    // Two at once would disturb each other.
    let held = std::fs::File::open(mirroring.dir().join("lock")).unwrap();
    held.lock().unwrap();
    let error = mirroring.run().await.unwrap_err();
    assert!(error.to_string().contains("another run is under way"), "{error}");
}

//! The marketplace: choosing versions beside bare PubGrub on the same data, verifying beside gpg itself, and installing from
//! nginx beside curl.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pubgrub::{OfflineDependencyProvider, Ranges};
use semver::{Version, VersionReq};
use themis_kernel::admission::gpg::{Fingerprint, Gpg};
use themis_kernel::config::RegistryConfig;
use themis_kernel::market::InstallRequest;
use themis_kernel::registry::publish::root::Founding;
use themis_kernel::registry::publish::{Registry, Validity};
use themis_kernel::registry::resolve::{Index, Limits, Release, Releases, Request, resolve};

use themis_kernel::admission::pack_dir;
use themis_kernel::{Config, Kernel};
use themis_tests::nginx::{self, Nginx};
use themis_tests::{Fixture, Site};

use crate::report::{Row, Times};

const RESOLVES: usize = 20;
const INSTALLS: usize = 30;
/// Questions at once, and how often.
const QUESTIONS: usize = 1_000;
const ROUNDS: usize = 10;
const GPG_RUNS: usize = 100;
const GPG: &str = "/usr/bin/gpg";

/// What one release needs: plugin, and lowest and highest minor version of it.
type Needs = Vec<(usize, u64, u64)>;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).unwrap_or(0)
    }
}

/// Every plugin needs the next and three later ones; three needs of ten exclude the newest version.
fn world(plugins: usize, versions: usize) -> Vec<Vec<Needs>> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut needs_of = |plugin: usize| -> Needs {
        let later = plugins - plugin - 1;
        let mut needs = BTreeMap::new();
        for number in 0..if later == 0 { 0 } else { 4 } {
            let to = plugin + 1 + if number == 0 { 0 } else { dice.roll(later) };
            let lowest = dice.roll(versions / 2) as u64;
            let highest = versions - if dice.roll(10) < 3 { 2 } else { 1 };
            needs.insert(to, (lowest, highest as u64));
        }
        needs.into_iter().map(|(to, (lowest, highest))| (to, lowest, highest)).collect()
    };
    (0..plugins).map(|plugin| (0..versions).map(|_| needs_of(plugin)).collect()).collect()
}

fn releases(world: &[Vec<Needs>]) -> Releases {
    let name = |plugin: usize| format!("plugin-{plugin}").parse().expect("a name");
    let needs = |needs: &Needs| {
        let needs = needs.iter().map(|(to, lowest, highest)| {
            let wanted = format!(">=1.{lowest}.0, <1.{}.0", highest + 1);
            (name(*to), wanted.parse::<VersionReq>().expect("a requirement"))
        });
        Release { dependencies: needs.collect(), yanked: false, runs_here: true }
    };
    let versions = |versions: &Vec<Needs>| {
        let releases = versions.iter().enumerate();
        releases
            .map(|(at, it)| (format!("1.{at}.0").parse().expect("a version"), needs(it)))
            .collect()
    };
    world.iter().enumerate().map(|(plugin, it)| (name(plugin), versions(it))).collect()
}

fn bare(world: &[Vec<Needs>]) -> OfflineDependencyProvider<String, Ranges<Version>> {
    let mut provider = OfflineDependencyProvider::new();
    for (plugin, versions) in world.iter().enumerate() {
        for (minor, needs) in versions.iter().enumerate() {
            let needs = needs.iter().map(|(to, lowest, highest)| {
                let range = Version::new(1, *lowest, 0)..Version::new(1, highest + 1, 0);
                (format!("plugin-{to}"), Ranges::from_range_bounds(range))
            });
            let version = Version::new(1, minor as u64, 0);
            provider.add_dependencies(format!("plugin-{plugin}"), version, needs);
        }
    }
    provider
}

fn resolve_of(
    plugins: usize,
    versions: usize,
    what: &'static str,
    goal: (u64, &'static str),
) -> Row {
    let world = world(plugins, versions);
    let index = Index::new(releases(&world));
    let wanted = vec![("plugin-0".parse().expect("a name"), VersionReq::STAR)];
    let request = Request { wanted, ..Request::default() };
    let never = || false;
    let limits = Limits { spent: &never, budget: Duration::MAX, decisions: u64::MAX };
    let provider = bare(&world);
    let newest = Version::new(1, versions as u64 - 1, 0);
    let (mut ours, mut theirs) = (Times::new(), Times::new());
    for _ in 0..RESOLVES {
        ours.merge(&Times::of(1, || {
            black_box(resolve(&index, &request, &limits)).expect("a plan");
        }));
        theirs.merge(&Times::of(1, || {
            let found = pubgrub::resolve(&provider, "plugin-0".to_owned(), newest.clone());
            drop(black_box(found).expect("versions"));
        }));
    }
    Row {
        what,
        must: "-",
        goal: goal.1,
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "bare pubgrub, the same data, no plan and no messages",
        baseline_ns: theirs.p50(),
        must_held: true,
        goal_met: ours.p50() <= goal.0,
    }
}

pub(crate) fn resolve_few() -> Row {
    resolve_of(500, 20, "versions of 500 plugins, 20 each, chosen", (10_000_000, "<= 10 ms"))
}

pub(crate) fn resolve_many() -> Row {
    resolve_of(5_000, 10, "versions of 5,000 plugins, 10 each, chosen", (100_000_000, "<= 100 ms"))
}

/// A key, a file of 1 MiB, its signature.
struct Signed {
    dir: tempfile::TempDir,
    key: Fingerprint,
}

impl Signed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["keys", "home"] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("made");
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&path, private).expect("private");
        }
        std::fs::write(dir.path().join("data"), vec![7; 1 << 20]).expect("written");
        let mut signed = Self { dir, key: Fingerprint::parse(&"0".repeat(40)).expect("digits") };
        signed.gpg(&["--quick-gen-key", "Ed <ed@example.org>", "ed25519", "sign", "never"]);
        let list = signed.gpg(&["--with-colons", "--list-secret-keys"]);
        let key = list.lines().find(|line| line.starts_with("fpr:")).expect("a key was made");
        let key = key.split(':').nth(9).expect("a fingerprint");
        signed.key = Fingerprint::parse(key).expect("a fingerprint");
        let (data, sig) = (signed.path("data"), signed.path("data.sig"));
        signed.gpg(&["--output", text(&sig), "--detach-sign", text(&data)]);
        let keyring = signed.path("home/pub.gpg");
        signed.gpg(&["--output", text(&keyring), "--export"]);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&keyring, private).expect("private");
        signed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gpg(&self, arguments: &[&str]) -> String {
        let run = Command::new(GPG)
            .arg("--homedir")
            .arg(self.path("keys"))
            .args(["--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let run = run.expect("gpg runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Nothing where gpg is not there.
pub(crate) fn gpg() -> Option<Row> {
    if !Path::new(GPG).exists() {
        eprintln!("skipped: there is no {GPG}");
        return None;
    }
    let signed = Signed::new();
    let gpg = Gpg::new(GPG, signed.path("home"), signed.path("home/pub.gpg"));
    let pinned = BTreeSet::from([signed.key.clone()]);
    let (sig, data) = (signed.path("data.sig"), signed.path("data"));
    let (mut ours, mut theirs) = (Times::new(), Times::new());
    for _ in 0..GPG_RUNS {
        ours.merge(&Times::of(1, || {
            gpg.verify(&sig, &data, &pinned).expect("it is good");
        }));
        theirs.merge(&Times::of(1, || {
            let mut bare = Command::new(GPG);
            bare.args(["--batch", "--no-tty", "--no-options", "--no-default-keyring"])
                .args(["--trust-model=always", "--lock-never", "--homedir"])
                .arg(signed.path("home"))
                .arg("--keyring")
                .arg(signed.path("home/pub.gpg"))
                .args(["--status-fd", "1", "--verify"])
                .args([&sig, &data]);
            assert!(bare.output().expect("gpg runs").status.success());
        }));
    }
    Some(Row {
        what: "a signature of 1 MiB verified by gpg",
        must: "<= 500 ms",
        goal: "<= 1.1x gpg itself",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "gpg, the same file and key",
        baseline_ns: theirs.p50(),
        must_held: ours.p50() <= 500_000_000,
        goal_met: ours.p50() * 10 <= theirs.p50() * 11,
    })
}

/// A registry behind nginx with one plugin of a megabyte.
struct Shop {
    site: Site,
    registry: Registry,
    server: Nginx,
}

impl Shop {
    fn new() -> Option<Self> {
        let program = nginx::program()?;
        let site = Site::new();
        let mut dice = Dice(7);
        // Nothing that could be packed smaller.
        let data: Vec<u8> = (0..1 << 20).map(|_| dice.roll(256).to_le_bytes()[0]).collect();
        let plugin = Fixture::c("counter.c", "counter", "1.0.0").data("data/table", &data);
        let dir = site.root().join(site.add(&plugin));
        let bundle = site.path().join("counter.tdb");
        pack_dir(&dir, Some(&bundle)).expect("packed");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let registry = runtime.expect("a runtime").block_on(async {
            let founding = Founding { root_keys: 1, threshold: 1, validity: Validity::default() };
            let made = Registry::init(&site.path().join("registry"), founding).await;
            let registry = made.expect("made");
            registry.add(&bundle, &site.key.public_key()).await.expect("added");
            registry.publish(Validity::default()).await.expect("published");
            registry
        });
        let server = Nginx::serve(&program, site.path(), &registry.public());
        Some(Self { site, registry, server })
    }

    /// Somebody who has installed nothing yet.
    fn host(&self) -> (Site, Config) {
        let site = Site::new();
        let mut config = site.config(&["counter"]);
        config.trusted_keys = self.site.config(&[]).trusted_keys;
        let root = std::fs::read(self.registry.public().join("metadata/1.root.json"));
        let url = self.server.url().parse().expect("an address");
        let lock_file = site.path().join("themis.lock");
        let mut registry = RegistryConfig::new(url, root.expect("the root"), lock_file);
        registry.tls.authorities = std::fs::read(self.site.path().join("ca.pem")).expect("a ca");
        config.registry = Some(registry);
        (site, config)
    }

    /// Fetches the bundle as anybody would.
    fn curl(&self) {
        let dir = self.registry.public().join("targets/counter");
        let bundle = std::fs::read_dir(dir).expect("published").next().expect("one").expect("read");
        let name = bundle.file_name();
        let url = format!("{}targets/counter/{}", self.server.url(), text(name.as_ref()));
        let fetched = Command::new("curl")
            .args(["--silent", "--fail", "--cacert"])
            .arg(self.site.path().join("ca.pem"))
            .arg("--output")
            .arg(self.site.path().join("fetched"))
            .arg(url)
            .status();
        assert!(fetched.expect("curl runs").success());
    }
}

/// From nothing to installed, and on record: metadata, download, verification, files and floors made durable.
pub(crate) fn install() -> Option<Row> {
    let shop = Shop::new()?;
    let (mut ours, mut theirs) = (Times::new(), Times::new());
    for _ in 0..INSTALLS {
        let (_site, config) = shop.host();
        let kernel = Kernel::start_blocking(config).expect("it starts");
        let wanted = vec!["counter@^1".parse().expect("a wish")];
        let request = InstallRequest { wanted, ..InstallRequest::default() };
        ours.merge(&Times::of(1, || {
            let installed = kernel.marketplace().install_blocking(request.clone());
            assert_eq!(installed.expect("installed").installed.len(), 1);
        }));
        kernel.shutdown_blocking();
        theirs.merge(&Times::of(1, || shop.curl()));
    }
    Some(Row {
        what: "cold install of a plugin of 1 MiB from nginx",
        must: "-",
        goal: "-",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "curl of the bundle, its process included",
        baseline_ns: theirs.p50(),
        must_held: true,
        goal_met: true,
    })
}

/// All of them answered; who asks while metadata is being fetched shares the answer.
pub(crate) fn questions() -> Option<Row> {
    let shop = Shop::new()?;
    let (_site, config) = shop.host();
    let kernel = Kernel::start_blocking(config).expect("it starts");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    let ask = |count: usize| {
        runtime.block_on(async {
            let asked = (0..count).map(|_| {
                let market = kernel.marketplace();
                let plugin = "counter".parse().expect("a name");
                tokio::spawn(async move { market.resolve(&plugin, VersionReq::STAR).await })
            });
            for asked in asked.collect::<Vec<_>>() {
                asked.await.expect("asked").expect("an answer");
            }
        });
    };
    let (many, one) = (Times::of(ROUNDS, || ask(QUESTIONS)), Times::of(ROUNDS, || ask(1)));
    kernel.shutdown_blocking();
    Some(Row {
        what: "1,000 resolves at once, all answered",
        must: "-",
        goal: "-",
        p50_ns: many.p50(),
        p99_ns: many.p99(),
        baseline: "one alone",
        baseline_ns: one.p50(),
        must_held: true,
        goal_met: true,
    })
}

//! Sets the stage: a private directory with keys, signed plugins, and three that must be refused.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use themis_kernel::admission::{NameSet, PublicKey, SigningKey, TrustedKey, pack_dir, sign_dir};
use themis_kernel::config::RegistryConfig;
use themis_kernel::ids::{PluginName, Tier};
use themis_kernel::limits::HOLD_LIMIT_MAX;
use themis_kernel::registry::publish::root::Founding;
use themis_kernel::registry::publish::{Registry, Validity};
use themis_kernel::{Config, Kernel};
use tokio::runtime::Runtime;

use crate::output::Failure;
use crate::web::Web;

/// The C plugins, compiled when this program was built.
const TEXT_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libtext.so"));
const ROGUE_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/librogue.so"));
const ROGUE_MANIFEST: &str = include_str!("../../../sdk/examples/rogue.manifest.json");
const TEXT_MANIFEST: &str = include_str!("../../../sdk/examples/text.manifest.json");
/// The Rust plugin's versions: number, built example, manifest.
const GEO: [(&str, &str, &str); 4] = [
    ("1.0.0", "geo_1_0", include_str!("../../../sdk/examples/geo_1_0.manifest.json")),
    ("1.1.0", "geo_1_1", include_str!("../../../sdk/examples/geo_1_1.manifest.json")),
    ("1.2.0", "geo_1_2", include_str!("../../../sdk/examples/geo_1_2.manifest.json")),
    ("1.3.0", "geo_1_3", include_str!("../../../sdk/examples/geo_1_3.manifest.json")),
];

/// The plugins that must be refused: what is wrong, where, with which code.
const REFUSED: [(&str, &str, &str); 3] = [
    ("unsigned", "unsigned/1.0.0", "sig.missing"),
    ("tampered", "tampered/1.0.0", "file.digest_mismatch"),
    ("behind a symlink", "linked/1.0.0", "path.symlink"),
];

/// The code a plugin of [`Stage::refusals`] must be refused with.
pub(crate) fn refusal_code(what: &str) -> &'static str {
    REFUSED.iter().find(|(about, _, _)| *about == what).map_or("unknown", |(_, _, code)| code)
}

/// Everything the demo needs on disk; removed at the end.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: TempDir,
    key: SigningKey,
    shop: Shop,
}

/// A registry that is served to this machine for as long as the demo runs.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) dir: PathBuf,
    pub(crate) registry: Registry,
    pub(crate) url: String,
    authority: String,
    /// The folder that is served.
    pub(crate) shown: Arc<Mutex<PathBuf>>,
    /// Its threads end with it.
    _runtime: Runtime,
}

impl Shop {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let dir = dir.join("shop");
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().map_err(failed)?;
        let founding = Founding { root_keys: 1, threshold: 1, validity: Validity::default() };
        let registry = runtime.block_on(Registry::init(&dir.join("registry"), founding))?;
        let public = registry.public();
        let web = runtime.block_on(Web::open(([127, 0, 0, 1], 0).into(), &public))?;
        let (url, authority, shown) = (web.url.clone(), web.authority.clone(), web.dir());
        runtime.spawn(web.serve());
        Ok(Self { dir, registry, url, authority, shown, _runtime: runtime })
    }

    /// What an operator who trusts it writes into the configuration.
    fn config(&self) -> Result<RegistryConfig, Failure> {
        let root = std::fs::read(self.registry.public().join("metadata/1.root.json"));
        let url = self.url.parse().map_err(|error| Failure::new("demo.stage", error));
        let mut config =
            RegistryConfig::new(url?, root.map_err(failed)?, self.dir.join("themis.lock"));
        config.tls.authorities = self.authority.clone().into_bytes();
        Ok(config)
    }
}

impl Stage {
    pub(crate) fn set(artifacts: Option<&Path>) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("themis-demo-").tempdir().map_err(failed)?;
        let shop = Shop::open(dir.path())?;
        let stage = Self { dir, key: SigningKey::generate()?, shop };
        stage.key.write_pem_pair(&stage.dir.path().join("demo"))?;
        let artifacts = find_artifacts(artifacts)?;
        for (version, example, manifest) in GEO {
            let library = artifacts.join(format!("lib{example}.so"));
            let bytes = std::fs::read(&library).map_err(|error| {
                Failure::new("demo.artifacts", format!("{}: {error}", library.display()))
            })?;
            stage.add("geo", version, manifest, &bytes)?;
            sign_dir(&stage.plugin(&format!("geo/{version}")), &stage.key)?;
        }
        for name in ["text", "unsigned", "tampered", "linked"] {
            let manifest = TEXT_MANIFEST.replace("\"text\"", &format!("\"{name}\""));
            stage.add(name, "1.0.0", &manifest, TEXT_LIBRARY)?;
            sign_dir(&stage.plugin(&format!("{name}/1.0.0")), &stage.key)?;
        }
        stage.add("rogue", "1.0.0", ROGUE_MANIFEST, ROGUE_LIBRARY)?;
        sign_dir(&stage.plugin("rogue/1.0.0"), &stage.key)?;
        let guests = artifacts.join("../../guests");
        let guests = if guests.is_dir() { guests } else { artifacts };
        let (_, _, geo_manifest) = GEO[0];
        stage.pack("geo", geo_manifest, &guests.join("geo_1_0.wasm"))?;
        let limits = format!("\"fuel_per_call\": {},", super::portable::FUEL);
        let manifest =
            ROGUE_MANIFEST.replacen("\"limits\": {", &format!("\"limits\": {{ {limits}"), 1);
        stage.pack("rogue", &manifest, &guests.join("rogue.wasm"))?;
        stage.spoil()?;
        Ok(stage)
    }

    fn add(
        &self,
        name: &str,
        version: &str,
        manifest: &str,
        library: &[u8],
    ) -> Result<(), Failure> {
        let dir = self.plugin(&format!("{name}/{version}"));
        let inner = dir.join("linux-x86_64");
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&inner).map_err(failed)?;
        write(&dir.join("manifest.json"), manifest.as_bytes())?;
        write(&inner.join(format!("lib{name}.so")), library)
    }

    /// A bundle with a module and nothing else, signed.
    fn pack(&self, name: &str, manifest: &str, module: &Path) -> Result<(), Failure> {
        let bytes = std::fs::read(module).map_err(|error| {
            Failure::new("demo.artifacts", format!("{}: {error}", module.display()))
        })?;
        let dir = self.dir.path().join("unpacked").join(name).join("1.0.0");
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir).map_err(failed)?;
        write(&dir.join("manifest.json"), manifest.as_bytes())?;
        write(&dir.join(format!("{name}.wasm")), &bytes)?;
        sign_dir(&dir, &self.key)?;
        pack_dir(&dir, Some(&self.bundle(name)))?;
        Ok(())
    }

    /// Where the bundle of a plugin is.
    pub(crate) fn bundle(&self, name: &str) -> PathBuf {
        self.plugin(&format!("{name}-1.0.0.tdb"))
    }

    /// A signature taken away, a bit flipped after signing, a directory moved away behind a link.
    fn spoil(&self) -> Result<(), Failure> {
        std::fs::remove_file(self.plugin("unsigned/1.0.0/plugin.sig")).map_err(failed)?;
        let library = self.plugin("tampered/1.0.0/linux-x86_64/libtampered.so");
        let mut bytes = std::fs::read(&library).map_err(failed)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        std::fs::write(&library, bytes).map_err(failed)?;
        let (linked, elsewhere) = (self.plugin("linked/1.0.0"), self.dir.path().join("elsewhere"));
        std::fs::rename(&linked, &elsewhere).map_err(failed)?;
        symlink(elsewhere, linked).map_err(failed)
    }

    /// A path below the plugin root.
    pub(crate) fn plugin(&self, below: &str) -> PathBuf {
        self.dir.path().join("plugins").join(below)
    }

    /// The registry.
    pub(crate) fn shop(&self) -> &Shop {
        &self.shop
    }

    /// The key that every plugin is signed with.
    pub(crate) fn publisher(&self) -> PublicKey {
        self.key.public_key()
    }

    /// The admin socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("var/admin.sock")
    }

    /// As an operator would write it: these names, this key, one of them in-process by name.
    /// A version is watched for `probation`.
    pub(crate) fn config(&self, probation: Duration) -> Result<Config, Failure> {
        let mut config = Config::new(self.dir.path().join("var"), self.dir.path().join("plugins"));
        let names = || {
            let names = ["geo", "text", "rogue", "unsigned", "tampered", "linked"];
            names.into_iter().filter_map(|name| name.parse::<PluginName>().ok()).collect()
        };
        config.allow = NameSet::Only(names());
        // Only geo is trusted with the host's own address space; everything else runs in a process of its own.
        config.trusted_in_process = "geo".parse().into_iter().collect();
        config.default_tier = Tier::Process;
        if let (Ok(geo), Ok(rogue)) = ("geo".parse(), "rogue".parse()) {
            let geo = config.plugins.entry(geo).or_default();
            (geo.tier, geo.autoload) = (Some(Tier::InProcess), false);
            let rogue = config.plugins.entry(rogue).or_default();
            rogue.autoload = false;
            rogue.limits.call_deadline = Some(super::rogue::CALL_DEADLINE);
        }
        config.failures.wait_first = Duration::from_millis(200);
        config.admin_socket = Some(self.socket());
        config.probation.window = probation;
        // The load takes every core there is: what moves the state may have to wait for one.
        config.hold_limit = HOLD_LIMIT_MAX;
        config.trusted_keys = vec![TrustedKey {
            label: "demo".to_owned(),
            key: self.key.public_key(),
            not_before: None,
            not_after: None,
            plugins: NameSet::Only(names()),
        }];
        config.registry = Some(self.shop.config()?);
        Ok(config)
    }

    /// Tries what must be refused; answers the codes it was refused with.
    pub(crate) fn refusals(&self, kernel: &Kernel) -> Vec<(&'static str, String)> {
        let tried = REFUSED.iter().map(|(what, path, _code)| {
            let refused = kernel.loader().load_blocking(*path, None);
            let code =
                refused.map_or_else(|error| error.code().to_owned(), |_| "loaded".to_owned());
            (*what, code)
        });
        tried.collect()
    }
}

/// `cargo build` leaves examples beside the program.
fn find_artifacts(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let program = std::env::current_exe().map_err(failed)?;
    let beside = program.parent().map(|dir| dir.join("examples"));
    beside.filter(|dir| dir.is_dir()).ok_or_else(|| {
        let what = "the example plugins are not beside this program: build them with `make build`, \
                    or give --artifacts DIR";
        Failure::new("demo.artifacts", what)
    })
}

/// Not writable by the group, whatever the umask: such files are refused.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o644).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(failed)
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new("demo.stage", error)
}

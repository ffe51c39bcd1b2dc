//! Fixtures of the integration tests and benches: a place with keys, signed plugins and a kernel.
//!
//! Plugins are C sources in `plugins/`, compiled where they are used, so that a test says with which options its
//! plugin was built; those that have to be Rust are the `examples/` of this package.

#![expect(clippy::expect_used, reason = "a fixture that cannot be set up fails its test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub use jiff::Timestamp;
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;
use themis_kernel::admission::{self, NameSet, SigningKey, TrustedKey};
use themis_kernel::admit::AdmitErrorKind;
use themis_kernel::config::Program;
use themis_kernel::ids::{Digest, PluginName, Tier};
use themis_kernel::instance::Instance;
use themis_kernel::{Config, Kernel};
use themis_sandbox::native;

pub mod nginx;
pub mod web;

/// Where this repository lies.
#[must_use]
pub fn repository() -> PathBuf {
    // Asked at run time: what was built in one checkout may run in another.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.parent().map(Path::to_owned).unwrap_or_default()
}

/// A shared library that cargo built as an example of some package of this workspace.
///
/// # Panics
/// When it is not built: `cargo build --workspace --all-targets` builds all.
#[must_use]
pub fn built_example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    let profile = own.ancestors().find(|dir| dir.join("examples").is_dir());
    let path = profile.expect("examples are built").join(format!("examples/lib{name}.so"));
    assert!(path.exists(), "{} is not built", path.display());
    path
}

/// A module that `make guests` built of an example.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn built_guest(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    let guests = own.ancestors().map(|dir| dir.join("guests")).find(|dir| dir.is_dir());
    guests.expect("`make guests` was done").join(format!("{name}.wasm"))
}

/// The program, built beside whatever is running.
///
/// # Panics
/// When it is not built: `cargo build --workspace --all-targets` builds all.
#[must_use]
pub fn program() -> Command {
    let own = std::env::current_exe().expect("the running program has a path");
    let program = own.ancestors().map(|dir| dir.join("themis")).find(|path| path.is_file());
    Command::new(program.expect("the program is built"))
}

/// One plugin to compile and sign.
#[derive(Debug, Clone)]
pub struct Fixture {
    source: Source,
    /// Its name, in descriptor and manifest.
    pub name: String,
    /// Its version, in descriptor and manifest.
    pub version: String,
    /// Additional arguments of the compiler.
    pub flags: Vec<String>,
    /// Laid over the manifest's own keys.
    pub manifest: Value,
    /// Files with target `data`.
    pub data: Vec<(String, Vec<u8>)>,
    /// Whether there is a wasm build beside the native one.
    pub wasm: bool,
    /// The wasm build where that is not of the same source.
    module: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Source {
    C(PathBuf),
    /// Built without the SDK, and without unwinding.
    Rust(PathBuf),
    Built(PathBuf),
    /// A wasm module, and no native library.
    Module(Vec<u8>),
}

impl Fixture {
    /// A C source of `plugins/`.
    #[must_use]
    pub fn c(source: &str, name: &str, version: &str) -> Self {
        let path = repository().join("tests/plugins").join(source);
        Self::new(Source::C(path), name, version)
    }

    /// A Rust source of `plugins/`.
    #[must_use]
    pub fn rust(source: &str, name: &str, version: &str) -> Self {
        let path = repository().join("tests/plugins").join(source);
        Self::new(Source::Rust(path), name, version)
    }

    /// A library that is built already; its descriptor must say `name` and `version`.
    #[must_use]
    pub fn built(library: PathBuf, name: &str, version: &str) -> Self {
        Self::new(Source::Built(library), name, version)
    }

    /// A wasm module as it is; its section must say `name` and `version`.
    #[must_use]
    pub fn module(bytes: Vec<u8>, name: &str, version: &str) -> Self {
        Self::new(Source::Module(bytes), name, version)
    }

    fn new(source: Source, name: &str, version: &str) -> Self {
        Self {
            source,
            name: name.to_owned(),
            version: version.to_owned(),
            flags: Vec::new(),
            manifest: json!({}),
            data: Vec::new(),
            wasm: tier() == Tier::Wasm,
            module: None,
        }
    }

    /// Builds the same C source for wasm as well.
    #[must_use]
    pub fn with_wasm(mut self) -> Self {
        self.wasm = true;
        self
    }

    /// Puts this module beside the library.
    #[must_use]
    pub fn with_module(mut self, bytes: Vec<u8>) -> Self {
        self.module = Some(bytes);
        self
    }

    /// Adds an argument of the compiler.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Sets a key of the manifest.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.manifest[key] = value;
        self
    }

    /// Adds a data file.
    #[must_use]
    pub fn data(mut self, path: &str, bytes: &[u8]) -> Self {
        self.data.push((path.to_owned(), bytes.to_vec()));
        self
    }

    /// Writes the library to `to`. Where `THEMIS_FIXTURES` names a directory, what was built once is taken from there: a
    /// guest's compiler takes seconds.
    fn build(&self, to: &Path) {
        // One that knows a path of this very run is of no use to another.
        let lasts = self.flags.iter().all(|flag| !flag.contains('/'));
        let kept = std::env::var_os("THEMIS_FIXTURES").filter(|_| lasts);
        let kept = kept.map(|dir| self.kept_in(Path::new(&dir)));
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_file()) {
            std::fs::copy(kept, to).expect("the library can be copied");
            return;
        }
        self.compile(to);
        if let Some(kept) = kept {
            // Another test may build the same at the same time: whole files only, under their names.
            let own = kept.with_extension(std::process::id().to_string());
            let kept = std::fs::copy(to, &own).and_then(|_| std::fs::rename(&own, &kept));
            kept.expect("THEMIS_FIXTURES can be written");
        }
    }

    /// By everything that its content depends on.
    fn kept_in(&self, dir: &Path) -> PathBuf {
        let source = match &self.source {
            Source::C(source) | Source::Rust(source) | Source::Built(source) => Some(source),
            Source::Module(_) => None,
        };
        let mut text = format!("{} {} {:?} {source:?}", self.name, self.version, self.flags);
        let shared = ["tests/plugins/fixture.h", "sdk/src/abi.rs"].map(|it| repository().join(it));
        for path in source.cloned().into_iter().chain(shared) {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(path).expect("it can be read")));
        }
        let digest = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
        dir.join(format!("{}-{digest:032x}.so", self.name))
    }

    fn compile(&self, to: &Path) {
        match &self.source {
            Source::Module(_) => {}
            Source::Built(library) => {
                std::fs::copy(library, to).expect("the library can be copied");
            }
            Source::Rust(source) => {
                let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
                let status = Command::new(rustc)
                    .args(["--edition=2024", "--crate-type=cdylib", "--cap-lints=allow", "-O"])
                    .args(["-Cpanic=abort", "-Clink-arg=-Wl,--build-id", "-o"])
                    .arg(to)
                    .args(&self.flags)
                    .arg(source)
                    .env("NAME", &self.name)
                    .env("VERSION", &self.version)
                    .status()
                    .expect("rustc is there");
                assert!(status.success(), "{} does not compile", source.display());
            }
            Source::C(source) => {
                let include = repository().join("sdk/include");
                let status = Command::new("cc")
                    .args(["-shared", "-fPIC", "-O1", "-fvisibility=hidden"])
                    .args(["-Wl,--build-id", "-Wl,-z,noexecstack", "-o"])
                    .arg(to)
                    .arg("-I")
                    .arg(include)
                    .arg(format!("-DNAME=\"{}\"", self.name))
                    .arg(format!("-DVERSION=\"{}\"", self.version))
                    .args(&self.flags)
                    .arg(source)
                    .status()
                    .expect("a C compiler is there");
                assert!(status.success(), "{} does not compile", source.display());
            }
        }
    }

    /// Where its wasm build goes, below the plugin's directory.
    fn wasm_path(&self) -> Option<String> {
        let has = match self.source {
            Source::C(_) => self.wasm,
            Source::Module(_) => true,
            Source::Rust(_) | Source::Built(_) => self.module.is_some(),
        };
        has.then(|| format!("{}.wasm", self.name))
    }

    fn is_native(&self) -> bool {
        !matches!(self.source, Source::Module(_))
    }

    fn compile_wasm(&self, to: &Path) {
        let module = match &self.source {
            Source::Module(bytes) => Some(bytes),
            Source::C(_) | Source::Rust(_) | Source::Built(_) => self.module.as_ref(),
        };
        if let Some(bytes) = module {
            return std::fs::write(to, bytes).expect("it can be written");
        }
        let Source::C(source) = &self.source else { return };
        let include = repository().join("sdk/include");
        let granted = ["LOG", "CLOCK", "METRICS", "RESOURCES"].map(|it| format!("-DTHEMIS_{it}"));
        let status = Command::new("clang")
            .args(["--target=wasm32", "-O2", "-nostdlib", "-mbulk-memory", "-Wl,--no-entry"])
            .arg("-I")
            .arg(&include)
            .arg("-I")
            .arg(include.join("wasm"))
            .arg(format!("-DNAME=\"{}\"", self.name))
            .arg(format!("-DVERSION=\"{}\"", self.version))
            .args(granted)
            .args(&self.flags)
            .arg("-o")
            .args([to, source])
            .status()
            .expect("clang is there");
        assert!(status.success(), "{} does not compile for wasm", source.display());
    }

    fn manifest_json(&self, library: &str) -> Value {
        let native = json!({"path": library, "target": "linux-x86_64"});
        let mut files: Vec<_> = self.is_native().then_some(native).into_iter().collect();
        files.extend(self.wasm_path().map(|path| json!({"path": path, "target": "wasm32"})));
        files.extend(self.data.iter().map(|(path, _)| json!({"path": path, "target": "data"})));
        let mut manifest = json!({
            "schema": 1, "name": self.name, "version": self.version, "abi": "1.0",
            "files": files,
            "methods": [
                {"name": "version", "id": 1}, {"name": "echo", "id": 2}, {"name": "fail", "id": 3},
                {"name": "unknown", "id": 4}, {"name": "bad_request", "id": 5},
            ],
            "capabilities": ["log", "clock", "metrics", "resources"],
        });
        if let (Some(manifest), Some(own)) = (manifest.as_object_mut(), self.manifest.as_object()) {
            manifest.extend(own.clone());
        }
        manifest
    }
}

/// A private directory with a plugin root, a key and a data directory; it is removed when dropped.
#[derive(Debug)]
pub struct Site {
    dir: tempfile::TempDir,
    /// The key that every plugin is signed with and that is trusted for all names.
    pub key: Arc<SigningKey>,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// An empty place.
    ///
    /// # Panics
    /// When the system gives no temporary directory.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let site = Self { dir, key: Arc::new(SigningKey::generate().expect("a key")) };
        make_dir(&site.root());
        site
    }

    /// A place as the examples of the documentation find it: `geo` 1.0.0 and 1.1.0 and `text` 1.0.0 below
    /// `plugins`, each with the methods `version` and `echo`, a key and a `themis.toml`. It becomes the current
    /// directory.
    ///
    /// # Panics
    /// When it cannot be set up.
    #[must_use]
    pub fn of_examples() -> Self {
        let site = Self::new();
        for (name, version) in [("geo", "1.0.0"), ("geo", "1.1.0"), ("text", "1.0.0")] {
            site.add(&Fixture::c("counter.c", name, version));
        }
        site.write_config(&["geo", "text"]);
        std::env::set_current_dir(site.path()).expect("it can be entered");
        site
    }

    /// As [`Site::of_examples`], with a kernel that has loaded `geo` 1.0.0.
    ///
    /// # Panics
    /// When it cannot be set up.
    #[must_use]
    pub fn of_examples_running() -> (Self, Kernel) {
        let site = Self::of_examples();
        let kernel = site.start(&["geo", "text"]);
        kernel.loader().load_blocking("geo/1.0.0", None).expect("geo loads");
        (site, kernel)
    }

    /// The place itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A named pipe: opening one end waits for the other.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn fifo(&self) -> PathBuf {
        let fifo = self.dir.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
        assert!(made.success(), "{} cannot be made", fifo.display());
        fifo
    }

    /// The plugin root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("plugins")
    }

    /// Compiles, lists and signs a plugin; answers its path below the root.
    ///
    /// # Panics
    /// When that fails: the fixture is wrong.
    pub fn add(&self, fixture: &Fixture) -> String {
        let below = self.write(fixture);
        admission::sign_dir(&self.root().join(&below), &self.key)
            .expect("the plugin can be signed");
        below
    }

    /// As [`Site::add`], with the signature taken away again.
    ///
    /// # Panics
    /// When that fails: the fixture is wrong.
    pub fn add_unsigned(&self, fixture: &Fixture) -> String {
        let below = self.add(fixture);
        let signature = self.root().join(&below).join("plugin.sig");
        std::fs::remove_file(signature).expect("there is a signature");
        below
    }

    /// Compiles a plugin and writes its manifest, without digests.
    fn write(&self, fixture: &Fixture) -> String {
        let below = format!("{}/{}", fixture.name, fixture.version);
        let dir = self.root().join(&below);
        let library = format!("linux-x86_64/lib{}.so", fixture.name);
        make_dir(&dir);
        if fixture.is_native() {
            make_dir(&dir.join("linux-x86_64"));
            fixture.build(&dir.join(&library));
        }
        if let Some(module) = fixture.wasm_path() {
            fixture.compile_wasm(&dir.join(module));
        }
        for (path, bytes) in &fixture.data {
            let path = dir.join(path);
            make_dir(path.parent().expect("a data file is in a directory"));
            std::fs::write(path, bytes).expect("a data file can be written");
        }
        let manifest = serde_json::to_vec_pretty(&fixture.manifest_json(&library)).expect("JSON");
        std::fs::write(dir.join("manifest.json"), manifest).expect("a manifest can be written");
        below
    }

    /// Every plugin allowed and trusted in-process under the site's key.
    ///
    /// # Panics
    /// When the names are no plugin names.
    #[must_use]
    pub fn config(&self, trusted: &[&str]) -> Config {
        let names = trusted.iter().map(|name| name.parse::<PluginName>().expect("a name"));
        let mut config = Config::new(self.dir.path().join("var"), self.root());
        config.allow = NameSet::Any;
        config.trusted_in_process = names.collect();
        config.default_tier = tier();
        config.workers.program = Program::At(worker_program());
        config.trusted_keys = vec![TrustedKey {
            label: "test".to_owned(),
            key: self.key.public_key(),
            not_before: None,
            not_after: None,
            plugins: NameSet::Any,
        }];
        config
    }

    /// Writes `themis.toml` and the public key it names; answers its path.
    ///
    /// # Panics
    /// When that fails.
    pub fn write_config(&self, trusted: &[&str]) -> PathBuf {
        self.key.write_pem_pair(&self.dir.path().join("test")).expect("keys can be written");
        let text = format!(
            "data_dir = \"var\"\nplugin_root = \"plugins\"\nallow = [\"*\"]\n\
             trusted_in_process = {trusted:?}\ndefault_tier = \"in-process\"\n\
             [[trusted_key]]\nid = \"test\"\npath = \"test.pub.pem\"\nplugins = [\"*\"]\n\
             [admin]\nsocket = \"admin.sock\"\n"
        );
        let path = self.dir.path().join("themis.toml");
        std::fs::write(&path, text).expect("a configuration can be written");
        path
    }

    /// A kernel on threads of its own that trusts these names in-process.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(&self, trusted: &[&str]) -> Kernel {
        Kernel::start_blocking(self.config(trusted)).expect("the kernel starts")
    }
}

/// Processes whose parent this one is, by their arguments.
///
/// # Panics
/// When `/proc` cannot be read.
#[must_use]
pub fn children(argument: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc can be read") {
        let path = entry.expect("/proc can be read").path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()) else {
            continue;
        };
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        let stat = read("stat");
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(own.as_str()) && read("cmdline").contains(argument) {
            found.push(pid);
        }
    }
    found
}

/// The tier that tests load into: in-process, unless `THEMIS_TEST_TIER` says otherwise.
///
/// # Panics
/// When it says something that is no tier.
#[must_use]
pub fn tier() -> Tier {
    match std::env::var("THEMIS_TEST_TIER") {
        Ok(tier) => tier.parse().expect("THEMIS_TEST_TIER is a tier"),
        Err(_unset) => Tier::InProcess,
    }
}

/// Whether a test cannot be about the tier that was asked for; says so then.
#[must_use]
pub fn only_in_process(why: &str) -> bool {
    let elsewhere = tier() != Tier::InProcess;
    if elsewhere {
        println!("skipped in the {} tier: {why}", tier().as_str());
    }
    elsewhere
}

/// Whether a test cannot be about wasm, where that is the tier; says so then.
#[must_use]
pub fn not_as_wasm(why: &str) -> bool {
    let is_wasm = tier() == Tier::Wasm;
    if is_wasm {
        println!("skipped in the wasm tier: {why}");
    }
    is_wasm
}

/// Has a plugin in a worker eat memory, again and again; answers the times from the last page it touched to its
/// caller's error.
///
/// # Panics
/// When it is not killed for its memory.
#[must_use]
pub fn cap_to_error(cap: u64, often: usize) -> Vec<Duration> {
    let site = Site::new();
    let path = site.add(&Fixture::c("rude.c", "hog", "1.0.0").flag("-DHOG"));
    let mut config = site.config(&[]);
    config.default_tier = Tier::Process;
    config.limits.memory_bytes = cap;
    config.call_deadline = Duration::from_secs(60);
    config.probation.window = Duration::ZERO;
    config.failures.wait_first = Duration::from_millis(1);
    config.failures.wait_longest = Duration::from_millis(1);
    config.failures.intensity.restarts = often;
    config.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let kernel = Kernel::start_blocking(config).expect("the kernel starts");
    let plugin = kernel.loader().load_blocking(&path, None).expect("the plugin loads");
    let counted = || {
        let text = kernel.metrics_text().expect("the kernel has the metrics");
        let line = text.lines().find(|line| line.contains("touched_at_ns"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut times = Vec::new();
    for _ in 0..often {
        // Each instance counts from zero to the time of its last page.
        let (before, generation) = (counted(), plugin.info().generation);
        let ended = plugin.call(1, b"").expect_err("it eats for ever");
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        assert_eq!(ended.code(), "sandbox.memory_limit", "{ended}");
        let now = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("a time");
        times.push(Duration::from_nanos(now.saturating_sub(counted() - before)));
        while plugin.info().generation == generation {
            std::thread::yield_now();
        }
    }
    let layers = plugin.info().isolation.map(|it| it.layers);
    println!("{}", serde_json::to_string(&layers).expect("JSON"));
    kernel.shutdown_blocking();
    times
}

/// The program of worker processes, beside the running one. An example in the documentation runs from elsewhere, and needs
/// none: it gets the bare name.
#[must_use]
pub fn worker_program() -> PathBuf {
    const NAME: &str = "themis-worker";
    let own = std::env::current_exe().expect("the running program has a path");
    let built = own.ancestors().skip(1).map(|dir| dir.join(NAME));
    let found = built.take(3).find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from(NAME))
}

/// Makes a directory and its parents, not writable by others whatever the umask.
///
/// # Panics
/// When it cannot be made.
pub fn make_dir(path: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.expect("a directory can be made");
}

/// Every reason to refuse a plugin.
#[must_use]
pub fn every_admit_error() -> Vec<AdmitErrorKind> {
    AdmitErrorKind::iter().collect()
}

/// SHA-256 of a file, by the system's own tool: not by what is under test.
///
/// # Panics
/// When the tool is not there.
#[must_use]
pub fn sha256(path: &Path) -> [u8; 32] {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    let text = String::from_utf8(output.stdout).expect("hexadecimal");
    text.split(' ').next().and_then(|hex| hex.parse::<Digest>().ok()).expect("a digest").0
}

/// Runs a future on a runtime of its own.
///
/// # Panics
/// When there is no runtime to be had.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// The present, for admission.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Distinct images mapped in this process.
#[must_use]
pub fn images_mapped() -> usize {
    native::mapped_images()
}

/// Maps and initialises an admitted plugin without a kernel, for comparison.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn bare_instance(plugin: &admission::AdmittedPlugin) -> Arc<dyn Instance> {
    let image = native::map(plugin).expect("it maps");
    let services = themis_sandbox::native::HostServices {
        plugin: plugin.manifest.name.clone(),
        capabilities: Vec::new(),
        log: Arc::new(|_, _| {}),
        counter: Arc::new(|_, _| {}),
        data: Arc::clone(&plugin.data),
    };
    image.init(services, b"{}").expect("it starts")
}

/// Has so many threads map a wasm plugin at once in an engine of their own; answers for each whether it was there already.
///
/// # Panics
/// When it does not map.
#[must_use]
pub fn map_at_once(site: &Site, below: &str, threads: usize) -> Vec<bool> {
    use themis_sandbox::{native::HostServices, wasm};
    let root = admission::PluginRoot::open(&site.root()).expect("a root");
    let request = themis_kernel::lifecycle::LoadRequest::at(below);
    let mut config = site.config(&[]);
    config.default_tier = Tier::Wasm;
    let scratch = site.path().join("images");
    let plugin = admission::admit(&root, &request, &config.policy(), now(), &scratch);
    let plugin = plugin.expect("admitted");
    let options = wasm::Options { memory_bytes_max: 1 << 20, cache: None };
    let engine = wasm::Wasm::start(&options).expect("an engine");
    let limits = wasm::WasmLimits {
        memory_bytes: 1 << 20,
        fuel_per_call: None,
        fuel_total: None,
        call_deadline: Duration::from_secs(1),
        hook_deadline: Duration::from_secs(1),
    };
    let together = std::sync::Barrier::new(threads);
    let map = || {
        let services = HostServices {
            plugin: plugin.manifest.name.clone(),
            capabilities: Vec::new(),
            log: Arc::new(|_, _| {}),
            counter: Arc::new(|_, _| {}),
            data: Arc::clone(&plugin.data),
        };
        together.wait();
        engine.map(&plugin, services, limits).expect("it maps")
    };
    std::thread::scope(|scope| {
        let mapping: Vec<_> = (0..threads).map(|_| scope.spawn(map)).collect();
        // Kept until all are there.
        let images = mapping.into_iter().map(|it| it.join().expect("a thread"));
        let images: Vec<_> = images.collect();
        images.iter().map(|image| image.evidence().reused).collect()
    })
}

/// Where a scene that runs in a process of its own finds its directory.
const SCENE_DIR: &str = "THEMIS_TEST_DIR";
/// Written there when the scene has got to its end.
const SCENE_DONE: &str = "scene-done";

/// Runs `scene` if this is the process started for it, and tells whether it was.
fn played_here(scene: impl FnOnce(&Path)) -> bool {
    let Some(dir) = std::env::var_os(SCENE_DIR) else { return false };
    let dir = PathBuf::from(dir);
    scene(&dir);
    std::fs::write(dir.join(SCENE_DONE), b"").expect("a file can be written");
    true
}

/// Starts the calling test again, in a process of its own, and waits for its end.
fn play_elsewhere(test: &str, dir: &Path) -> std::process::Output {
    let own = std::env::current_exe().expect("the running program has a path");
    let arguments = ["--exact", test, "--nocapture"];
    let output = Command::new(own).args(arguments).env(SCENE_DIR, dir).output();
    let output = output.expect("the test can be started again");
    let told = String::from_utf8_lossy(&output.stderr);
    let done = dir.join(SCENE_DONE).exists();
    assert!(done, "{test} did not get to its end: {}\n{told}", output.status);
    output
}

/// Runs `scene` in a process of its own that is killed with SIGKILL right behind it, and checks that it got to
/// its end. `test` is the path of the calling test.
///
/// # Panics
/// When the scene did not get to its end.
pub fn in_killed_process(test: &str, dir: &Path, scene: impl FnOnce(&Path)) {
    if played_here(scene) {
        // Not with a program: starting one needs the system loader, which a scene may have got stuck.
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("may be killed");
        unreachable!("killed");
    }
    play_elsewhere(test, dir);
}

/// Runs `scene` in a process of its own, and checks that it got to its end and that the process then ended as any
/// other: a crash would not take the caller along. `test` is the path of the calling test. Answers whether this is
/// the process that looks on; the other has nothing left to do but to end.
///
/// # Panics
/// When the scene did not get to its end, or the process crashed behind it.
#[must_use]
pub fn in_own_process(test: &str, dir: &Path, scene: impl FnOnce(&Path)) -> bool {
    if played_here(scene) {
        return false;
    }
    let output = play_elsewhere(test, dir);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} ended badly: {}\n{told}", output.status);
    true
}

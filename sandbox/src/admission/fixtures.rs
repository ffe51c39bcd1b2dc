//! What the tests of admission share: a plugin root in a temporary directory, and libraries built for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, PluginName, Tier};
use themis_messages::lifecycle::LoadRequest;
use themis_messages::limits::FILE_BYTES_MAX;
use themis_messages::manifest::Target;

use super::{
    AdmittedPlugin, NameSet, PluginRoot, Policy, PublicKey, SigningKey, TrustedKey, admit,
};

/// A library with a descriptor and nothing else; the macros and `EXTRA` are the test's.
const SOURCE: &str = r#"
struct descriptor {
    char magic[8]; unsigned struct_size; unsigned short major, minor; unsigned long long features;
    char name[64]; char version[32]; int (*hook[6])(void);
};
static int hook(void) { return 0; }
#ifndef FEATURES
#define FEATURES 0
#endif
#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif
EXPORT extern const struct descriptor themis_plugin;
const struct descriptor themis_plugin = {
    "THEMIS1", sizeof(struct descriptor), 1, 0, FEATURES, NAME, VERSION, {hook, hook, 0, 0, 0, hook}
};
"#;

/// Compiles a library; `None`, and a line that says so, where there is no C compiler.
pub(super) fn library(name: &str, version: &str, extra: &str, flags: &[&str]) -> Option<Vec<u8>> {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("skipped: there is no C compiler `cc`");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("plugin.c"), dir.path().join("plugin.so"));
    fs::write(&source, format!("{SOURCE}\n{extra}\n")).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-Wl,-z,noexecstack"])
        .args([format!("-DNAME=\"{name}\""), format!("-DVERSION=\"{version}\"")])
        .arg("-o")
        .arg(&out)
        .arg(&source)
        .args(flags)
        .output()
        .unwrap();
    assert!(built.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&built.stderr));
    Some(fs::read(out).unwrap())
}

/// A plain library that is admitted.
pub(super) fn geo() -> Option<Vec<u8>> {
    library("geo", "1.0.0", "", &["-Wl,--build-id=0xdeadbeef"])
}

pub(super) fn name(text: &str) -> PluginName {
    text.parse().unwrap()
}

pub(super) fn time(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Where the library of this machine lies in a plugin.
pub(super) fn library_path() -> String {
    format!("{}/libgeo.so", Target::HOST.as_str())
}

pub(super) fn pin(key: PublicKey) -> TrustedKey {
    let label = key.key_id().to_string();
    TrustedKey { label, key, not_before: None, not_after: None, plugins: NameSet::Any }
}

pub(super) fn policy(key: PublicKey) -> Policy {
    Policy {
        allow: NameSet::Any,
        trusted_in_process: [name("geo")].into(),
        default_tier: Tier::InProcess,
        tiers: Default::default(),
        keys: vec![pin(key)],
        revoked_keys: Default::default(),
        revoked_digests: Default::default(),
        openpgp: None,
        floors: Default::default(),
        file_bytes_max: FILE_BYTES_MAX,
        wasm_memory_bytes_max: u64::MAX,
    }
}

/// A plugin root and everything that decides about what lies in it.
pub(super) struct Site {
    pub(super) dir: tempfile::TempDir,
    pub(super) key: SigningKey,
    pub(super) policy: Policy,
    pub(super) now: jiff::Timestamp,
}

impl Site {
    pub(super) fn new() -> Self {
        let key = SigningKey::generate().unwrap();
        let policy = policy(key.public_key());
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            key,
            policy,
            now: time("2026-06-01T00:00:00Z"),
        };
        make_dir(&site.root());
        make_dir(&site.scratch());
        fs::set_permissions(site.scratch(), fs::Permissions::from_mode(0o700)).unwrap();
        site
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("plugins")
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    pub(super) fn open(&self) -> PluginRoot {
        PluginRoot::open(&self.root()).unwrap()
    }

    /// Makes a signed plugin of these files; the one at [`library_path`] is the library.
    pub(super) fn plugin(&self, name: &str, version: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.root().join(name).join(version);
        for (path, bytes) in files {
            write(&dir.join(path), bytes);
        }
        self.sign(&dir, &manifest(name, version, files, &self.key));
        dir
    }

    /// Writes a manifest and a signature over its bytes, whatever they are.
    pub(super) fn sign(&self, dir: &Path, manifest: &Value) {
        let bytes = manifest.to_string().into_bytes();
        write(&dir.join("plugin.sig"), &self.key.sign(&bytes));
        write(&dir.join("manifest.json"), &bytes);
    }

    pub(super) fn admit(&self, path: impl Into<PathBuf>) -> Result<AdmittedPlugin, AdmitError> {
        self.admit_request(&LoadRequest::at(path))
    }

    pub(super) fn admit_request(
        &self,
        request: &LoadRequest,
    ) -> Result<AdmittedPlugin, AdmitError> {
        admit(&self.open(), request, &self.policy, self.now, &self.scratch())
    }

    /// The code of the refusal of `geo/1.0.0`.
    pub(super) fn refusal(&self) -> &'static str {
        self.admit("geo/1.0.0").unwrap_err().code()
    }
}

pub(super) fn manifest(
    name: &str,
    version: &str,
    files: &[(&str, &[u8])],
    key: &SigningKey,
) -> Value {
    let library = library_path();
    let listed = files.iter().map(|(path, bytes)| {
        let target = if *path == library { Target::HOST.as_str() } else { "data" };
        json!({"path": path, "target": target, "sha256": digest(bytes), "size": bytes.len()})
    });
    json!({
        "schema": 1, "name": name, "version": version, "abi": "1.0",
        "files": listed.collect::<Vec<_>>(), "key_id": key.public_key().key_id(),
        "methods": [{"name": "distance_km", "id": 1}], "capabilities": ["log"],
    })
}

/// A directory nobody else can write, and all directories above it that are missing.
pub(super) fn make_dir(dir: &Path) {
    if dir.exists() {
        return;
    }
    make_dir(dir.parent().unwrap());
    fs::create_dir(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A file nobody else can write.
pub(super) fn write(path: &Path, bytes: &[u8]) {
    make_dir(path.parent().unwrap());
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

//! Plugins of which the operator demands an OpenPGP signature as well, with the gpg of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::WaitOptions;
use themis_kernel::admission::gpg::{Fingerprint, Gpg, GpgLimits};
use themis_kernel::admission::{pack_dir, sign_detached};
use themis_kernel::{Config, Kernel, SignatureVerifier};
use themis_tests::{Fixture, Site};

const PROGRAM: &str = "/usr/bin/gpg";

/// A publisher with OpenPGP keys, and the configuration of somebody who demands their signatures.
struct Publisher {
    site: Site,
    /// Where one signed plugin is, below the root.
    below: PathBuf,
}

impl Publisher {
    fn new() -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            println!("skipped: there is no {PROGRAM}");
            return None;
        }
        let site = Site::new();
        for name in ["keys", "gpg"] {
            fs::DirBuilder::new().mode(0o700).create(site.path().join(name)).unwrap();
        }
        let below = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
        Some(Self { site, below: below.into() })
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let run = Command::new(PROGRAM)
            .arg("--homedir")
            .arg(self.site.path().join("keys"))
            .args(["--batch", "--no-tty", "--quiet", "--yes", "--no-options"])
            .args(["--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        run.stdout
    }

    /// Makes a key and gives its fingerprint.
    fn key(&self, user: &str) -> String {
        self.gpg(&["--quick-gen-key", user, "ed25519", "sign", "never"]);
        let list = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", user])).unwrap();
        let line = list.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// As a publisher does it: `gpg --armor --detach-sign FILE`.
    fn sign(&self, key: &str, file: &Path) {
        let user = format!("{key}!");
        let file = file.to_str().unwrap();
        self.gpg(&["--local-user", &user, "--armor", "--detach-sign", file]);
    }

    fn manifest(&self) -> PathBuf {
        self.site.root().join(&self.below).join("manifest.json")
    }

    /// With a `[gpg]` table that pins this key.
    fn config(&self, pinned: &str) -> Config {
        let keyring = self.site.path().join("gpg/publishers.gpg");
        let mut file = fs::File::options();
        let mut file =
            file.write(true).create(true).truncate(true).mode(0o600).open(keyring).unwrap();
        file.write_all(&self.gpg(&["--export"])).unwrap();
        let text = format!(
            "data_dir = 'data'\nplugin_root = 'plugins'\n[gpg]\nhome = 'gpg'\n\
             keyring = 'gpg/publishers.gpg'\nfingerprints = ['{pinned}']\nplugins = ['counter']\n"
        );
        let path = self.site.path().join("themis.toml");
        let parsed = Config::from_toml(&text, self.site.path(), &path).unwrap();
        Config { gpg: parsed.gpg, ..self.site.config(&["counter"]) }
    }

    /// What becomes of loading it: fine, or the code of the refusal and what is said.
    fn load(&self, pinned: &str, path: &Path) -> Result<(), (&'static str, String)> {
        let kernel = Kernel::start_blocking(self.config(pinned)).unwrap();
        let loaded = kernel.loader().load_blocking(path, None);
        let loaded = loaded.map(drop).map_err(|error| (error.code(), error.to_string()));
        kernel.shutdown_blocking();
        loaded
    }

    fn code(&self, pinned: &str, path: &Path) -> &'static str {
        self.load(pinned, path).unwrap_err().0
    }
}

#[test]
fn a_plugin_loads_with_both_signatures_and_not_with_one() {
    let Some(publisher) = Publisher::new() else { return };
    let (key, other) = (publisher.key("Ed <ed@example.org>"), publisher.key("Al <al@example.org>"));
    let below = publisher.below.clone();
    let (code, words) = publisher.load(&key, &below).unwrap_err();
    assert_eq!(code, "gpg.signature_missing");
    assert!(
        words.contains("manifest.json.asc") && words.contains("gpg --armor --detach-sign"),
        "{words}"
    );

    publisher.sign(&key, &publisher.manifest());
    assert_eq!(publisher.load(&key, &below), Ok(()));
    assert_eq!(publisher.code(&other, &below), "gpg.key_not_pinned", "not the pinned one");

    // OpenPGP never stands in for Ed25519.
    let ed25519 = publisher.site.root().join(&below).join("plugin.sig");
    let good = fs::read(&ed25519).unwrap();
    fs::write(&ed25519, [7; 64]).unwrap();
    assert!(publisher.code(&key, &below).starts_with("sig."));
    fs::write(&ed25519, good).unwrap();

    // Of other bytes: another manifest, rightly signed by Ed25519.
    let text = fs::read_to_string(publisher.manifest()).unwrap();
    fs::write(publisher.manifest(), format!("{text} ")).unwrap();
    sign_detached(&publisher.manifest(), &ed25519, &publisher.site.key).unwrap();
    assert_eq!(publisher.code(&key, &below), "gpg.bad_signature");
}

#[test]
fn a_bundle_carries_the_signature_along() {
    let Some(publisher) = Publisher::new() else { return };
    let key = publisher.key("Ed <ed@example.org>");
    let dir = publisher.site.root().join(&publisher.below);
    let bundle = publisher.site.root().join("counter.tdb");
    pack_dir(&dir, Some(&bundle)).unwrap();
    assert_eq!(publisher.code(&key, Path::new("counter.tdb")), "gpg.signature_missing");
    publisher.sign(&key, &publisher.manifest());
    pack_dir(&dir, Some(&bundle)).unwrap();
    assert_eq!(publisher.load(&key, Path::new("counter.tdb")), Ok(()));
}

#[test]
fn a_single_library_has_one_beside_it() {
    let Some(publisher) = Publisher::new() else { return };
    let key = publisher.key("Ed <ed@example.org>");
    let library = publisher.site.root().join(&publisher.below).join("linux-x86_64/libcounter.so");
    let single = publisher.site.root().join("counter.so");
    fs::copy(library, &single).unwrap();
    fs::set_permissions(&single, fs::Permissions::from_mode(0o644)).unwrap();
    let signature = publisher.site.root().join("counter.so.sig");
    sign_detached(&single, &signature, &publisher.site.key).unwrap();
    assert_eq!(publisher.code(&key, Path::new("counter.so")), "gpg.signature_missing");
    publisher.sign(&key, &single);
    assert_eq!(publisher.load(&key, Path::new("counter.so")), Ok(()));

    let rule = publisher.config(&key).gpg.unwrap();
    let asc = publisher.site.root().join("counter.so.asc");
    let raw = SignatureVerifier::run_gpg_verify(&rule.gpg, &asc, &single).unwrap();
    assert_eq!(raw.exit_code, Some(0));
    assert!(raw.output.to_string().contains("Good signature"), "{}", raw.output);
}

#[test]
fn every_doubt_refuses() {
    let Some(publisher) = Publisher::new() else { return };
    let key = publisher.key("Ed <ed@example.org>");
    publisher.sign(&key, &publisher.manifest());
    let asc = publisher.manifest().with_extension("json.asc");
    let good = fs::read(&asc).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&asc, bytes).unwrap();
        publisher.code(&key, &publisher.below)
    };
    assert_eq!(refused(b""), "gpg.signature_empty");
    assert_eq!(
        refused(&[good.as_slice(), &good].concat()),
        "gpg.several_signatures",
        "two of them"
    );
    assert_eq!(refused(&vec![b'-'; (64 << 10) + 1]), "file.too_large");
    fs::write(&asc, &good).unwrap();
    // A keyring that others can write says nothing; neither does one that is not there.
    let mut config = publisher.config(&key);
    let mut without = |change: &dyn Fn(&Path)| {
        let rule = config.gpg.as_mut().unwrap();
        let keyring = publisher.site.path().join("gpg/publishers.gpg");
        rule.gpg = Gpg::new(PROGRAM, publisher.site.path().join("gpg"), &keyring);
        change(&keyring);
        let kernel = Kernel::start_blocking(config.clone()).unwrap();
        let code = kernel.loader().load_blocking(&publisher.below, None).unwrap_err().code();
        kernel.shutdown_blocking();
        code
    };
    let mode = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(without(&mode), "gpg.keyring_writable");
    assert_eq!(without(&|path| fs::remove_file(path).unwrap()), "gpg.keyring_missing");
}

/// Alone in its process, as every test is, so that all there is to count is its own.
#[test]
fn two_hundred_runs_of_every_kind_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::DirBuilder::new().mode(0o700).create(path("home")).unwrap();
    for (name, mode, content) in [
        ("home/pub.gpg", 0o600, &b"keys"[..]),
        ("data", 0o600, b"data"),
        ("data.sig", 0o600, &[0xc2, 1, 4]),
        ("ends", 0o755, b"#!/bin/sh\necho '[GNUPG:] NEWSIG'; echo words >&2\n"),
        ("dies", 0o755, b"#!/bin/sh\nkill -KILL $$\n"),
        ("hangs", 0o755, b"#!/bin/sh\nsleep infinity & exec sleep infinity\n"),
        ("floods", 0o755, b"#!/bin/sh\nexec cat /dev/zero\n"),
        ("none", 0o755, b"\x7fELF"),
    ] {
        fs::write(path(name), content).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let gpg = |program: &str, time: Duration| {
        Gpg::new(path(program), path("home"), path("home/pub.gpg"))
            .with_limits(GpgLimits { time, ..GpgLimits::default() })
    };
    let (long, short) = (Duration::from_secs(120), Duration::from_millis(20));
    let ways = [
        (gpg("ends", long), "gpg.no_proof"),
        (gpg("dies", long), "gpg.killed"),
        (gpg("hangs", short), "gpg.timed_out"),
        (gpg("floods", long), "gpg.too_much_output"),
        (gpg("none", long), "gpg.start"),
        (gpg("missing", long), "gpg.program_missing"),
    ];
    let pinned = BTreeSet::from(["A".repeat(40).parse::<Fingerprint>().unwrap()]);
    let held = || {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        (count("/proc/self/fd"), count("/proc/self/task"))
    };
    let before = held();
    for (gpg, code) in ways.iter().cycle().take(200) {
        let error = gpg.verify(&path("data.sig"), &path("data"), &pinned).unwrap_err();
        assert_eq!(error.code(), *code);
    }
    assert_eq!(held(), before, "descriptors and threads");
    let child = rustix::process::wait(WaitOptions::NOHANG);
    assert_eq!(child.unwrap_err(), Errno::CHILD, "no child is left, living or dead");
}

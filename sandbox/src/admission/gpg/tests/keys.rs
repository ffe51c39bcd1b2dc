//! Keys and signatures made with the system's gpg.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::fixtures::{limits, pins, write};
use crate::admission::gpg::{Gpg, GpgSignature, GpgVerifyError};

/// Where gpg is; says why a test has nothing to do when it is nowhere.
fn installed() -> Option<PathBuf> {
    let found = ["/usr/bin/gpg", "/bin/gpg", "/usr/local/bin/gpg"].map(PathBuf::from);
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("skipped: gpg is not installed");
    }
    found
}

/// Somebody with keys, and the keyring of somebody who trusts them.
pub(super) struct Signer {
    pub(super) dir: TempDir,
    program: PathBuf,
}

impl Signer {
    pub(super) fn new() -> Option<Self> {
        let program = installed()?;
        let dir = tempfile::tempdir().unwrap();
        for name in ["keys", "home"] {
            fs::DirBuilder::new().mode(0o700).create(dir.path().join(name)).unwrap();
        }
        let signer = Self { dir, program };
        write(&signer.path("data"), b"some data\n");
        Some(signer)
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs gpg with the private keys; every argument stands for itself.
    pub(super) fn gpg<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Vec<u8> {
        let run = Command::new(&self.program)
            .arg("--homedir")
            .arg(self.path("keys"))
            .args(["--batch", "--no-tty", "--quiet", "--yes", "--no-options"])
            .args(["--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{messages}");
        run.stdout
    }

    /// Makes a key and gives its fingerprint.
    pub(super) fn key(&self, user: &str, algorithm: &str) -> String {
        self.key_at(user, algorithm, "never", &[])
    }

    pub(super) fn key_at(&self, user: &str, algorithm: &str, expire: &str, at: &[&str]) -> String {
        let make = ["--allow-freeform-uid", "--quick-gen-key", user, algorithm, "sign", expire];
        self.gpg(&[at, &make].concat());
        let keys = self.fingerprints();
        keys.into_iter().rfind(|(is_primary, _)| *is_primary).unwrap().1
    }

    /// Adds a signing subkey and gives its fingerprint.
    pub(super) fn subkey(&self, primary: &str, expire: &str, at: &[&str]) -> String {
        let before = self.fingerprints();
        self.gpg(&[at, &["--quick-add-key", primary, "ed25519", "sign", expire]].concat());
        let mut after = self.fingerprints();
        after.retain(|key| !before.contains(key));
        after.pop().unwrap().1
    }

    /// All keys and subkeys in the order they were made, and whether they are primary.
    fn fingerprints(&self) -> Vec<(bool, String)> {
        let list = String::from_utf8(self.gpg(&["--with-colons", "--list-secret-keys"])).unwrap();
        let mut keys = Vec::new();
        let mut primary = false;
        for line in list.lines() {
            let fields: Vec<_> = line.split(':').collect();
            match fields[0] {
                "sec" => primary = true,
                "ssb" => primary = false,
                "fpr" => keys.push((primary, fields[9].to_owned())),
                _ => {}
            }
        }
        keys
    }

    /// Signs `data` by that key exactly and gives the signature.
    pub(super) fn sign(&self, key: &str, more: &[&str]) -> Vec<u8> {
        let (user, out, data) = (format!("{key}!"), self.path("made.sig"), self.path("data"));
        let mut arguments: Vec<&OsStr> = more.iter().map(OsStr::new).collect();
        arguments.extend(["--local-user", &user, "--output"].map(OsStr::new));
        arguments.push(out.as_os_str());
        // Another way of signing may have been asked for.
        if !more.iter().any(|option| ["--sign", "--clearsign"].contains(option)) {
            arguments.push(OsStr::new("--detach-sign"));
        }
        arguments.push(data.as_os_str());
        self.gpg(&arguments);
        fs::read(out).unwrap()
    }

    /// gpg with a home of its own and the public keys as they are now.
    pub(super) fn verifier(&self) -> Gpg {
        self.verifier_by(&self.program)
    }

    pub(super) fn verifier_by(&self, program: &Path) -> Gpg {
        let keyring = self.path("home/pub.gpg");
        write(&keyring, &self.gpg(&["--export"]));
        Gpg::new(program, self.path("home"), keyring).with_limits(limits())
    }

    /// Whether the signature of `data` is trusted.
    pub(super) fn verify(
        &self,
        signature: &[u8],
        pinned: &[&str],
    ) -> Result<GpgSignature, GpgVerifyError> {
        write(&self.path("data.sig"), signature);
        self.verifier().verify(&self.path("data.sig"), &self.path("data"), &pins(pinned))
    }

    /// Why it is not.
    pub(super) fn refusal(&self, signature: &[u8], pinned: &[&str]) -> &'static str {
        match self.verify(signature, pinned) {
            Ok(signature) => panic!("trusted: {signature:?}"),
            Err(error) => error.code(),
        }
    }

    /// A program that does something first and then becomes gpg.
    pub(super) fn wrapper(&self, script: &str) -> PathBuf {
        let path = self.path("wrapper");
        let script = format!(
            "#!/bin/sh\nDIR='{}'\n{script}\nexec '{}' \"$@\"\n",
            self.dir.path().display(),
            self.program.display()
        );
        super::fixtures::install(&path, script.as_bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        path
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // Making keys starts an agent, which would outlive the test. If it cannot be told to go it goes by
        // itself when it finds its home gone.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.path("keys"))
            .args(["--kill", "gpg-agent"])
            .stdin(Stdio::null())
            .output();
    }
}

//! A site with a program that plays gpg, whatever it is told to do.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use tempfile::TempDir;

use crate::admission::gpg::{Fingerprint, Gpg, GpgLimits, GpgResult, GpgRunError, GpgVerifyError};

pub(super) const SIGNER: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
/// What gpg says of a good signature by [`SIGNER`].
pub(super) const GOOD: &str = "\
[GNUPG:] NEWSIG
[GNUPG:] GOODSIG 89ABCDEF01234567 Somebody <somebody@example.org>
[GNUPG:] VALIDSIG 0123456789ABCDEF0123456789ABCDEF01234567 2026-01-02 1767312000 0 4 0 22 8 00 \
0123456789ABCDEF0123456789ABCDEF01234567
";
/// For programs that never end: long enough for a shell to start on a busy machine.
pub(super) const SHORT: Duration = Duration::from_secs(2);

pub(super) fn pins(keys: &[&str]) -> BTreeSet<Fingerprint> {
    keys.iter().map(|key| Fingerprint::parse(key).unwrap()).collect()
}

/// Limits under which a test that should not time out does not.
pub(super) fn limits() -> GpgLimits {
    GpgLimits { time: Duration::from_secs(120), ..GpgLimits::default() }
}

pub(super) struct Mock {
    pub(super) dir: TempDir,
    pub(super) limits: GpgLimits,
}

impl Mock {
    /// `script` is what the program does; `$DIR` is the site's directory.
    pub(super) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mock = Self { dir, limits: limits() };
        fs::DirBuilder::new().mode(0o700).create(mock.path("home")).unwrap();
        write(&mock.path("home/pub.gpg"), b"keys");
        write(&mock.path("data"), b"data");
        // A signature packet of one byte.
        write(&mock.path("data.sig"), &[0xc2, 1, 4]);
        let script = format!("#!/bin/sh\nDIR='{}'\n{script}\n", mock.dir.path().display());
        install(&mock.path("gpg"), script.as_bytes());
        mock
    }

    /// One that prints these bytes on standard output, some on standard error, and exits.
    pub(super) fn printing(stdout: impl AsRef<[u8]>, stderr: &str, code: i32) -> Self {
        let mock = Self::new(&format!("cat \"$DIR/out\"\ncat \"$DIR/err\" >&2\nexit {code}"));
        write(&mock.path("out"), stdout.as_ref());
        write(&mock.path("err"), stderr.as_bytes());
        mock
    }

    pub(super) fn limit(mut self, time: Duration) -> Self {
        self.limits.time = time;
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn gpg(&self) -> Gpg {
        Gpg::new(self.path("gpg"), self.path("home"), self.path("home/pub.gpg"))
            .with_limits(self.limits)
    }

    pub(super) fn run(&self) -> Result<GpgResult, GpgRunError> {
        self.gpg().run_gpg_verify(&self.path("data.sig"), &self.path("data"))
    }

    /// The verdict as a code; `Ok` is trust.
    pub(super) fn verdict(&self) -> Result<(), &'static str> {
        let (sig, data) = (self.path("data.sig"), self.path("data"));
        let verdict = self.gpg().verify(&sig, &data, &pins(&[SIGNER]));
        verdict.map(drop).map_err(|error: GpgVerifyError| error.code())
    }

    /// Waits until the process is gone whose number the program wrote to that file.
    pub(super) fn assert_gone(&self, name: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let pid = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        let limit = Timespec::try_from(Duration::from_secs(60)).unwrap();
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        let ended = rustix::event::poll(&mut polled, Some(&limit)).unwrap();
        assert_eq!(ended, 1, "process {pid:?} is still there");
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) {
    // Not as the umask has it: others must not be able to write.
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

/// Writes a program by means of another process. Written by this one, a process that another test starts at
/// the same time could hold it open for writing for a moment, and then it cannot be run.
pub(super) fn install(path: &Path, script: &[u8]) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    install.stdin.take().unwrap().write_all(script).unwrap();
    assert!(install.wait().unwrap().success());
}

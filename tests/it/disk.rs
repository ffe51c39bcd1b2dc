//! A disk that takes nothing more: loads are refused before any code of theirs runs, and what serves serves on.

use std::io::BufRead as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use themis_tests::{Fixture, Site, program};

/// Largest file the daemon may write, in blocks of the shell's `ulimit -f`: its log reaches that after some records.
const BLOCKS: &str = "96";

struct Daemon {
    process: std::process::Child,
    site: Site,
}

impl Daemon {
    /// Writes beyond the limit fail, as on a full disk, instead of ending the process.
    fn start(site: Site) -> Self {
        let config = site.write_config(&["counter", "witness"]);
        let script = format!("trap '' XFSZ; ulimit -f {BLOCKS}; exec \"$0\" run --config \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(program().get_program()).arg(config);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        let told = process.stdout.take().unwrap();
        std::io::BufReader::new(told).read_line(&mut line).unwrap();
        assert!(line.contains("themis is running"), "{line}");
        Self { process, site }
    }

    fn plugin(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.args(["plugin", "--json"]).args(arguments);
        command.arg("--socket").arg(self.site.path().join("admin.sock"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn load(&self, below: &str) -> Result<(), String> {
        let path = self.site.root().join(below);
        let output = self.plugin(&["load", path.to_str().unwrap()]);
        if output.status.success() {
            return Ok(());
        }
        let told: Value = serde_json::from_slice(&output.stderr).unwrap();
        Err(told["error"]["code"].as_str().unwrap().to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_log_that_cannot_be_written_fails_loads_closed_and_nothing_else() {
    let site = Site::new();
    let counter = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let ran = site.path().join("ran");
    let witness = format!("-DWITNESS=\"{}\"", ran.display());
    let witness = site.add(&Fixture::c("ctor_writes.c", "witness", "1.0.0").flag(&witness));
    let daemon = Daemon::start(site);
    let mut loads = 0;
    let refused = loop {
        match daemon.load(&counter) {
            Ok(()) => loads += 1,
            Err(code) => break code,
        }
        assert!(loads < 2_000, "the limit is never reached");
        assert!(daemon.plugin(&["unload", "counter"]).status.success());
    };
    println!("refused with {refused} after {loads} loads");
    assert_eq!(refused, "audit.refused");
    // No code runs whose intent is not on record.
    assert_eq!(daemon.load(&witness), Err("audit.refused".to_owned()));
    assert!(!ran.exists(), "its constructor ran");
    // And the kernel is there to say so.
    assert!(daemon.plugin(&["list"]).status.success());
}

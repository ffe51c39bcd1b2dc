//! The program as its users meet it: files, exit codes, one line of error, and a running kernel behind its socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use themis_tests::{Fixture, Site, make_dir, repository};

/// The program, built beside this test.
fn themis(dir: &Path) -> Command {
    let mut command = themis_tests::program();
    command.current_dir(dir).env_remove("THEMIS_SOCKET");
    command
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    themis(dir).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
pub(crate) fn succeed(output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "stdout: {out}\nstderr: {err}");
    out.to_owned()
}

/// The one line an operation fails with.
#[track_caller]
pub(crate) fn refuse(output: &Output, code: &str) -> String {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with(&format!("themis: {code}: ")), "{err}");
    err.to_owned()
}

/// A daemon that is ended in good order.
struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        let mut child = themis(dir)
            .args(["run", "--config", "themis.toml"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says one line once it can be talked to.
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert!(line.contains("admin.sock"), "{line}");
        Self { child, dir: dir.to_owned() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let socket = self.dir.join("admin.sock");
        themis(&self.dir).args(arguments).env("THEMIS_SOCKET", socket).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&succeed(self.run(&arguments))).unwrap()
    }

    fn call(&self, method: &str, request: &[u8]) -> Output {
        let mut child = themis(&self.dir)
            .args(["plugin", "call", "counter", method])
            .args(["--socket", "admin.sock"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(request).unwrap();
        child.wait_with_output().unwrap()
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(!self.dir.join("admin.sock").exists(), "the socket is gone");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
    }
}

fn counter(version: &str) -> Fixture {
    Fixture::c("counter.c", "counter", version)
}

#[test]
fn a_plugin_lives_behind_the_socket() {
    let site = Site::new();
    let unsigned =
        format!("plugins/{}", site.add_unsigned(&Fixture::c("counter.c", "bare", "1.0.0")));
    site.add(&counter("1.0.0"));
    site.add(&counter("2.0.0"));
    site.write_config(&["counter", "bare"]);
    let daemon = Daemon::start(site.path());

    let socket = std::fs::metadata(site.path().join("admin.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(daemon.json(&["plugin", "list"]), json!([]));
    let receipt = daemon.json(&["plugin", "load", "plugins/counter/1.0.0"]);
    assert_eq!(receipt["to"], "1.0.0");
    assert_eq!(daemon.call("echo", b"\x00\xff bytes\n").stdout, b"\x00\xff bytes\n");
    assert_eq!(text(&daemon.call("version", b"").stdout), "1.0.0");
    refuse(&daemon.call("fail", b""), "call.plugin_error");

    let receipt = daemon.json(&["plugin", "reload", "counter", "plugins/counter/2.0.0"]);
    assert_eq!((&receipt["from"], &receipt["to"]), (&json!("1.0.0"), &json!("2.0.0")));
    assert_eq!(text(&daemon.call("version", b"").stdout), "2.0.0");
    let receipt = daemon.json(&["plugin", "rollback", "counter"]);
    assert_eq!((&receipt["operation"], &receipt["to"]), (&json!("rollback"), &json!("1.0.0")));

    let listed = daemon.json(&["plugin", "list"]);
    for (key, want) in
        [("name", "counter"), ("version", "1.0.0"), ("tier", "in-process"), ("state", "active")]
    {
        assert_eq!(listed[0][key], want, "{key}");
    }
    assert!(succeed(daemon.run(&["plugin", "list"])).contains("counter"));

    refuse(&daemon.run(&["plugin", "load", &unsigned]), "sig.missing");
    let found = daemon.json(&["plugin", "discover"]);
    let verdicts: Vec<_> = found.as_array().unwrap().iter().map(|it| it["ok"].clone()).collect();
    assert_eq!(verdicts, [json!(false), json!(true), json!(true)], "{found}");
    refuse(&daemon.run(&["plugin", "load", "/etc"]), "path.escapes");
    refuse(
        &daemon.run(&["plugin", "load", "plugins/counter/1.0.0", "--tier", "wasm"]),
        "manifest.no_target",
    );
    refuse(&daemon.run(&["plugin", "rollback", "nobody"]), "rollback.not_loaded");
    let failed = daemon.run(&["plugin", "unload", "nobody", "--json"]);
    let error: Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert_eq!(error["error"]["code"], "unload.not_loaded");
    assert!(error["error"]["message"].as_str().unwrap().contains("nobody"));

    succeed(daemon.run(&["plugin", "unload", "counter"]));
    refuse(&daemon.call("version", b""), "call.not_loaded");
    // The program is its own worker program.
    succeed(daemon.run(&["plugin", "load", "plugins/counter/1.0.0", "--tier", "process"]));
    assert_eq!(daemon.call("echo", b"from a worker").stdout, b"from a worker");
    let info = daemon.json(&["plugin", "info", "counter"]);
    assert_eq!(info["tier"], "process");
    assert!(info["isolation"]["pid"].as_u64().is_some_and(|pid| pid > 1), "{info}");
    succeed(daemon.run(&["plugin", "unload", "counter"]));
    let shown = daemon.json(&["audit", "show"]);
    let events: Vec<_> = shown.as_array().unwrap().iter().map(|it| it["event"].clone()).collect();
    assert!(events.contains(&json!("rollback")), "{events:?}");
    succeed(daemon.run(&["audit", "verify"]));
    // Offline, also beside a running kernel.
    succeed(run(site.path(), &["audit", "verify", "--config", "themis.toml"]));
    daemon.stop();
    succeed(run(site.path(), &["audit", "verify", "--config", "themis.toml"]));
}

#[test]
fn quarantines_sets_and_probations_are_operated_from_a_shell() {
    let site = Site::new();
    for (version, needs) in [("1.0.0", "^1"), ("2.0.0", "^2")] {
        site.add(&Fixture::c("counter.c", "lower", version));
        let needs = json!({ "lower": needs });
        site.add(&Fixture::c("counter.c", "upper", version).with("dependencies", needs));
    }
    site.add(&Fixture::c("fail_init.c", "fails", "1.0.0"));
    let config = site.write_config(&["lower", "upper", "fails"]);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[probation]\nwindow_ms = 300\n")).unwrap();
    let daemon = Daemon::start(site.path());
    for plugin in ["lower", "upper"] {
        succeed(daemon.run(&["plugin", "load", &format!("plugins/{plugin}/1.0.0")]));
    }

    refuse(&daemon.run(&["plugin", "reload", "lower", "plugins/lower/2.0.0"]), "load.dependency");
    let set = ["plugin", "reload-set", "plugins/upper/2.0.0", "plugins/lower/2.0.0"];
    let receipts = daemon.json(&set);
    assert_eq!(
        (&receipts[0]["plugin"], &receipts[1]["plugin"]),
        (&json!("lower"), &json!("upper"))
    );
    let back = daemon.json(&["plugin", "rollback-set", "upper", "lower"]);
    assert_eq!(back[0]["to"], "1.0.0");
    assert!(succeed(daemon.run(&set)).contains("lower 2.0.0 serves (was 1.0.0)"));

    for _ in 0..3 {
        refuse(&daemon.run(&["plugin", "load", "plugins/fails/1.0.0"]), "init.refused");
    }
    refuse(&daemon.run(&["plugin", "load", "plugins/fails/1.0.0"]), "load.quarantined");
    let listed = succeed(daemon.run(&["plugin", "quarantine"]));
    assert!(listed.contains("init.refused") && listed.contains("3 loads failed"), "{listed}");
    let info = succeed(daemon.run(&["plugin", "info", "fails"]));
    assert!(info.contains("quarantined"), "{info}");
    let digest = daemon.json(&["plugin", "quarantine", "list"])[0]["digest"].clone();
    let release = |digest: &str| {
        daemon.run(&["plugin", "quarantine", "release", "fails", "--digest", digest])
    };
    refuse(&release(&"0".repeat(64)), "quarantine.not_quarantined");
    succeed(release(digest.as_str().unwrap()));
    refuse(&daemon.run(&["plugin", "load", "plugins/fails/1.0.0"]), "init.refused");

    let reload = ["plugin", "reload", "upper", "plugins/upper/2.0.0", "--wait"];
    let settled = succeed(daemon.run(&reload));
    assert!(settled.contains("on probation for 1 s"), "{settled}");
    let info = succeed(daemon.run(&["plugin", "info", "upper"]));
    assert!(info.contains("reason serving") && info.contains("budget: image bytes"), "{info}");
    daemon.stop();
}

#[test]
fn metrics_are_scraped_over_loopback() {
    let site = Site::new();
    site.add(&counter("1.0.0"));
    let config = site.write_config(&["counter"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[metrics]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
    let daemon = Daemon::start(site.path());
    succeed(daemon.run(&["plugin", "load", "plugins/counter/1.0.0"]));
    for _ in 0..3 {
        succeed(daemon.call("echo", b"x"));
    }
    refuse(&daemon.call("fail", b""), "call.plugin_error");
    refuse(&daemon.run(&["plugin", "load", "nothing"]), "path.escapes");

    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut scraped = String::new();
    stream.read_to_string(&mut scraped).unwrap();
    for line in [
        "themis_calls_total{plugin=\"counter\",version=\"1.0.0\"} 4",
        "themis_call_errors_total{plugin=\"counter\",version=\"1.0.0\"} 1",
        "themis_loads_total{outcome=\"ok\"} 1",
        "themis_plugins 1",
        "themis_mailbox_depth{role=\"coordinator\"}",
        "themis_mailbox_refused_total{role=\"plugin\"} 0",
        "themis_retained_generations{plugin=\"counter\",reason=\"serving\"} 1",
        "themis_retained_images{plugin=\"counter\"} 1",
        "themis_quarantined_images{plugin=\"counter\"} 0",
        "themis_plugin_on_probation{plugin=\"counter\"} 0",
        "themis_refused_writes_total 0",
    ] {
        assert!(scraped.contains(line), "{line} is missing in\n{scraped}");
    }
    assert!(scraped.contains("themis_refusals_total{reason="), "{scraped}");
    assert!(scraped.contains("themis_call_latency_seconds_bucket{plugin=\"counter\""), "{scraped}");
    daemon.stop();
}

#[test]
fn keys_and_signatures_interoperate_with_openssl() {
    let site = Site::new();
    let dir = site.path();
    let below = format!("plugins/{}", site.add_unsigned(&counter("1.0.0")));
    succeed(run(dir, &["keygen", "--out", "dev"]));
    refuse(&run(dir, &["keygen", "--out", "dev"]), "key.io");
    succeed(run(dir, &["sign", &below, "--key", "dev.key.pem"]));
    succeed(run(dir, &["verify", &below, "--trust", "dev.pub.pem"]));

    let openssl = |arguments: &[&str]| {
        Command::new("openssl").args(arguments).current_dir(dir).output().unwrap()
    };
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not installed");
        return;
    }
    let manifest = format!("{below}/manifest.json");
    let signature = format!("{below}/plugin.sig");
    succeed(openssl(&[
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "dev.pub.pem",
        "-in",
        &manifest,
        "-sigfile",
        &signature,
    ]));
    succeed(openssl(&["genpkey", "-algorithm", "ed25519", "-out", "other.key.pem"]));
    succeed(openssl(&["pkey", "-in", "other.key.pem", "-pubout", "-out", "other.pub.pem"]));
    let library = format!("{below}/linux-x86_64/libcounter.so");
    succeed(openssl(&[
        "pkeyutl",
        "-sign",
        "-rawin",
        "-inkey",
        "other.key.pem",
        "-in",
        &library,
        "-out",
        "lib.sig",
    ]));
    let verify = ["verify-file", "--file", &library, "--sig", "lib.sig", "--key"];
    succeed(run(dir, &[verify.as_slice(), &["other.pub.pem"]].concat()));
    refuse(&run(dir, &[verify.as_slice(), &["dev.pub.pem"]].concat()), "sig.mismatch");
    succeed(openssl(&["genrsa", "-out", "rsa.key.pem", "2048"]));
    succeed(openssl(&["rsa", "-in", "rsa.key.pem", "-pubout", "-out", "rsa.pub.pem"]));
    let refused =
        refuse(&run(dir, &[verify.as_slice(), &["rsa.pub.pem"]].concat()), "key.algorithm");
    assert!(refused.to_lowercase().contains("rsa"), "{refused}");
}

#[test]
fn bad_usage_exits_with_two_and_bad_configuration_names_its_place() {
    let site = Site::new();
    for usage in [&["frobnicate"][..], &["plugin"], &["sign"], &["plugin", "load"]] {
        assert_eq!(run(site.path(), usage).status.code(), Some(2), "{usage:?}");
    }
    let config = site.write_config(&["counter"]);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}turbo = true\n")).unwrap();
    let output = run(site.path(), &["run", "--config", "themis.toml"]);
    let line = text.lines().count() + 1;
    let error = refuse(&output, "config.invalid");
    assert!(error.contains(&format!("themis.toml:{line}:")), "{error}");
    let refused = run(site.path(), &["plugin", "list", "--socket", "nowhere.sock"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn a_c_plugin_needs_the_header_alone() {
    let site = Site::new();
    let place = site.path().join("elsewhere");
    make_dir(&place);
    std::fs::copy(repository().join("sdk/include/themis_plugin.h"), place.join("themis_plugin.h"))
        .unwrap();
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let source = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    for version in ["1.0.0", "1.1.0"] {
        std::fs::write(place.join("hello.c"), source.replace("1.0.0", version)).unwrap();
        let dir = site.root().join("hello").join(version);
        make_dir(&dir.join("linux-x86_64"));
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(dir.join("linux-x86_64/libhello.so"))
            .arg("hello.c")
            .current_dir(&place)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .output();
        succeed(compiled.unwrap());
        let manifest = readme.split("```json\n").nth(1).and_then(|it| it.split("```").next());
        let manifest = manifest.unwrap().replace("1.0.0", version);
        std::fs::write(dir.join("manifest.json"), manifest).unwrap();
    }
    site.write_config(&["hello"]);
    for version in ["1.0.0", "1.1.0"] {
        let dir = format!("plugins/hello/{version}");
        succeed(run(site.path(), &["sign", &dir, "--key", "test.key.pem"]));
    }
    let daemon = Daemon::start(site.path());
    succeed(daemon.run(&["plugin", "load", "plugins/hello/1.0.0"]));
    let greet = || {
        let request = site.path().join("request");
        std::fs::write(&request, "world").unwrap();
        let request = request.to_str().unwrap();
        succeed(daemon.run(&["plugin", "call", "hello", "greet", "--request", request]))
    };
    assert_eq!(greet(), "hello, world");
    let receipt = daemon.json(&["plugin", "reload", "hello", "plugins/hello/1.1.0"]);
    assert_eq!(receipt["to"], "1.1.0");
    assert_eq!(greet(), "hello, world");
    daemon.stop();
}

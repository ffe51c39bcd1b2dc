//! The real thing: a registry behind nginx, with certificates that openssl made, used by the program.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::program::{refuse, run, succeed};

/// nginx of this machine, or the one that the set-up has unpacked.
fn nginx() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_default();
    let places = [
        "/usr/sbin/nginx".into(),
        "/usr/local/sbin/nginx".into(),
        target.join("tools/usr/sbin/nginx"),
    ];
    let runs = |path: &PathBuf| {
        Command::new(path).arg("-v").stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    places.into_iter().find(runs)
}

/// An authority, and a certificate of its for this machine.
fn certificates(dir: &Path) {
    std::fs::write(dir.join("ext"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &[&str]| {
        let ended = Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    let ca =
        ["req", "-x509", "-subj", "/CN=test", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&ca[..], &curve].concat());
    let request = ["req", "-subj", "/CN=localhost", "-keyout", "own.key", "-out", "own.csr"];
    openssl(&[&request[..], &curve].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        "own.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "ext",
        "-out",
        "own.pem",
    ]);
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // In good order, so that its workers end with it.
        let id = self.0.id().to_string();
        let told = Command::new("kill").args(["-QUIT", &id]).status();
        assert!(told.is_ok_and(|it| it.success()) && self.0.wait().is_ok());
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn serve(program: &Path, dir: &Path, public: &Path, port: u16) -> Server {
    let here = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {here}/{what};"))
        .concat();
    let config = format!(
        "daemon off; pid {here}/nginx.pid; error_log {here}/error.log; worker_processes 1;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; {temporary}\n\
         server {{ listen 127.0.0.1:{port} ssl; server_name localhost; root {};\n\
         ssl_certificate {here}/own.pem; ssl_certificate_key {here}/own.key; }} }}\n",
        public.display()
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn a_registry_behind_nginx_is_installed_from() {
    let Some(program) = nginx() else {
        eprintln!(
            "skipped: there is no nginx on this machine, and the set-up could not unpack one"
        );
        return;
    };
    let published = Published::new(&["1.0.0"]).await;
    let dir = published.site.path().to_owned();
    certificates(&dir);
    let port = port();
    let server = serve(&program, &dir, &published.public(), port);
    let site = Site::new();
    published.site.key.write_pem_pair(&site.path().join("publisher")).unwrap();
    for name in ["ca.pem", "registry/public/metadata/1.root.json"] {
        let from = dir.join(name);
        std::fs::copy(&from, site.path().join(from.file_name().unwrap())).unwrap();
    }
    let mut config = std::fs::File::create(site.path().join("themis.toml")).unwrap();
    writeln!(
        config,
        "data_dir = \"var\"\nplugin_root = \"plugins\"\nallow = [\"*\"]\n\
         [[trusted_key]]\nid = \"test\"\npath = \"publisher.pub.pem\"\nplugins = [\"*\"]\n\
         [registry]\nurl = \"https://localhost:{port}/\"\nroot = \"1.root.json\"\nca = \"ca.pem\""
    )
    .unwrap();
    let themis = |arguments: &[&str]| {
        run(site.path(), &[&["registry"], arguments, &["--config", "themis.toml"]].concat())
    };
    // It may not listen yet; the client is patient.
    let resolved = succeed(themis(&["resolve", "counter@^1"]));
    assert!(
        resolved.contains(&format!("counter 1.0.0 at https://localhost:{port}/targets/")),
        "{resolved}"
    );
    succeed(themis(&["install", "counter@^1"]));
    assert!(site.root().join("counter/1.0.0/plugin.sig").exists());
    let lock = std::fs::read_to_string(site.path().join("themis.lock")).unwrap();
    assert!(lock.contains("linux-x86_64/libcounter.so"), "{lock}");
    drop(server);
    std::fs::remove_dir_all(site.root().join("counter")).unwrap();
    succeed(themis(&["install", "--offline"]));
    assert!(site.root().join("counter/1.0.0/plugin.sig").exists());
    refuse(&themis(&["install", "--offline", "other"]), "registry.offline");
}

//! nginx as a registry's web server, with certificates that openssl made.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// nginx of this machine, or the one that the set-up has unpacked; says so where there is none.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_default();
    let places = [
        "/usr/sbin/nginx".into(),
        "/usr/local/sbin/nginx".into(),
        target.join("tools/usr/sbin/nginx"),
    ];
    let runs = |path: &PathBuf| {
        Command::new(path).arg("-v").stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    let found = places.into_iter().find(runs);
    if found.is_none() {
        eprintln!(
            "skipped: there is no nginx on this machine, and the set-up could not unpack one"
        );
    }
    found
}

/// An authority, and a certificate of its for this machine.
fn certificates(dir: &Path) {
    let ext = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
    std::fs::write(dir.join("ext"), ext).expect("written");
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &[&str]| {
        let ended = Command::new("openssl")
            .current_dir(dir)
            .args(arguments)
            .output()
            .expect("openssl runs");
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

/// A server of one folder, over TLS.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    port: u16,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // In good order, so that its workers end with it.
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-QUIT", &id]).status();
        assert!(told.is_ok_and(|it| it.success()) && self.child.wait().is_ok());
    }
}

impl Nginx {
    /// Serves `public`; what it needs for itself, and the authority `ca.pem`, lies in `dir` then. It may not listen yet when
    /// this returns: the registry's client is patient.
    ///
    /// # Panics
    /// When openssl or nginx cannot be run.
    #[must_use]
    pub fn serve(program: &Path, dir: &Path, public: &Path) -> Self {
        Self::serve_with(program, dir, public, "")
    }

    /// As [`Nginx::serve`], with more lines in the configuration of the server.
    ///
    /// # Panics
    /// As that.
    #[must_use]
    pub fn serve_with(program: &Path, dir: &Path, public: &Path, more: &str) -> Self {
        certificates(dir);
        let port = port();
        let here = dir.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {here}/{what};"))
            .concat();
        let config = format!(
            "daemon off; pid {here}/nginx.pid; error_log {here}/error.log; worker_processes 1;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:{port} ssl; server_name localhost; root {};\n\
             ssl_certificate {here}/own.pem; ssl_certificate_key {here}/own.key; {more} }} }}\n",
            public.display()
        );
        std::fs::write(dir.join("nginx.conf"), config).expect("written");
        let mut command = Command::new(program);
        command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("nginx starts"), port }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

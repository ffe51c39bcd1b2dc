//! A web server that does what it is told, however hostile: TLS with an authority of its own, answers made by the test.
//!
//! It runs on a thread of its own and ends with its owner. Nothing of it is clever: a request is a head, an answer is a head
//! and pieces of a body, so that a test can say anything a server can say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// One request, as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its path and query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A piece of an answer.
#[derive(Debug, Clone)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, one at a time, so far apart.
    Drip(Vec<u8>, Duration),
    /// Nothing more, and the connection stays open.
    Hang,
    /// Zeros, for as long as somebody reads them.
    Endless,
}

/// An answer: exactly these lines, exactly these pieces. Then the connection is closed.
#[derive(Debug, Clone)]
pub struct Answer {
    head: String,
    pieces: Vec<Piece>,
}

impl Answer {
    /// A status and nothing else.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { head: format!("HTTP/1.1 {status} X\r\nConnection: close\r\n"), pieces: Vec::new() }
    }

    /// A body, with its length.
    #[must_use]
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::status(200).header("Content-Length", &body.len().to_string()).then(Piece::Bytes(body))
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(to: &str) -> Self {
        Self::status(302).header("Location", to).header("Content-Length", "0")
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// With one more piece.
    #[must_use]
    pub fn then(mut self, piece: Piece) -> Self {
        self.pieces.push(piece);
        self
    }
}

type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

/// What is wrong with the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing.
    Good,
    /// Its time is over.
    Expired,
    /// It is another host's.
    OtherHost,
    /// No authority signed it.
    SelfSigned,
}

/// A running server.
#[derive(Debug)]
pub struct Web {
    /// `https://localhost:PORT/`.
    pub url: String,
    /// Its authority's certificate, PEM.
    pub authority: Vec<u8>,
    /// SHA-256 of its public key (SPKI), to be pinned.
    pub pin: [u8; 32],
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts one that answers as `handler` says.
    #[must_use]
    pub fn start(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(Certificate::Good, true, handler)
    }

    /// Starts one that serves a directory, with ranges and entity tags, as nginx does.
    #[must_use]
    pub fn serve(dir: PathBuf) -> Self {
        Self::start(move |seen| file(&dir, seen))
    }

    /// Starts one with this certificate, or without TLS.
    #[must_use]
    pub fn with(
        certificate: Certificate,
        tls: bool,
        handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (config, authority, pin) = tls_config(certificate);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (port, at) = std::sync::mpsc::channel();
        let noted = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
                port.send(listener.local_addr().expect("bound").port()).expect("waited for");
                let acceptor = tls.then(|| TlsAcceptor::from(Arc::new(config)));
                tokio::select! {
                    () = accept(listener, acceptor, Arc::new(handler), noted) => {}
                    _ = stopped => {}
                }
            });
        });
        let port = at.recv().expect("it listens");
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{port}/");
        Self { url, authority, pin, seen, stop: Some(stop), thread: Some(thread) }
    }

    /// What was asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }
}

fn tls_config(kind: Certificate) -> (ServerConfig, Vec<u8>, [u8; 32]) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_cert = authority.self_signed(&authority_key).expect("signed");
    let pem = authority_cert.pem().into_bytes();
    let issuer = Issuer::new(authority, &authority_key);
    let host = if kind == Certificate::OtherHost { "elsewhere.example" } else { "localhost" };
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
    if kind == Certificate::Expired {
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    let key = KeyPair::generate().expect("a key");
    let cert = match kind {
        Certificate::SelfSigned => params.self_signed(&key),
        Certificate::Good | Certificate::Expired | Certificate::OtherHost => {
            params.signed_by(&key, &issuer)
        }
    };
    let chain = vec![CertificateDer::from(cert.expect("signed"))];
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, private.into())
        .expect("a certificate with its key");
    let public = rcgen::PublicKeyData::subject_public_key_info(&key);
    let digest = rustls_digest(&public);
    (config, pem, digest)
}

fn rustls_digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    handler: Arc<Handler>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    loop {
        let Ok((stream, _peer)) = listener.accept().await else { return };
        let (acceptor, handler, seen) = (acceptor.clone(), Arc::clone(&handler), Arc::clone(&seen));
        tokio::spawn(async move {
            match acceptor {
                // A client that does not believe us goes away; that is what many tests are about.
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => answer(stream, &*handler, &seen).await,
                    Err(_refused) => {}
                },
                None => answer(stream, &*handler, &seen).await,
            }
        });
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    handler: &Handler,
    seen: &Mutex<Vec<Seen>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_gone) => return,
        }
    }
    let request = parse(&String::from_utf8_lossy(&head));
    seen.lock().expect("not poisoned").push(request.clone());
    let Answer { head, pieces } = handler(&request);
    // Whoever has enough goes away; the answer ends then.
    let _ = send(&mut stream, head, pieces).await;
    let _ = stream.shutdown().await;
}

fn parse(head: &str) -> Seen {
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Seen { path, headers: headers.collect() }
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    head: String,
    pieces: Vec<Piece>,
) -> std::io::Result<()> {
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => stream.write_all(&bytes).await?,
            Piece::Drip(bytes, apart) => {
                let mut drops = tokio::time::interval(apart);
                for byte in bytes {
                    drops.tick().await;
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                }
            }
            Piece::Hang => std::future::pending().await,
            Piece::Endless => loop {
                stream.write_all(&[0; 65_536]).await?;
            },
        }
        stream.flush().await?;
    }
    stream.flush().await
}

/// A file below a directory, as a static server gives it out.
#[must_use]
pub fn file(dir: &std::path::Path, seen: &Seen) -> Answer {
    let path = seen.path.trim_start_matches('/');
    assert!(!path.contains(".."), "a client asked for {path}");
    let Ok(bytes) = std::fs::read(dir.join(path)) else { return Answer::status(404) };
    let tag = format!("\"{:x}\"", bytes.len());
    let from = seen.header("range").and_then(|range| range.strip_prefix("bytes="));
    let from = from.and_then(|range| range.strip_suffix('-')).and_then(|from| from.parse().ok());
    let same = seen.header("if-range").is_none_or(|known| known == tag);
    match from.filter(|from: &usize| same && *from < bytes.len()) {
        Some(from) => {
            let (last, total) = (bytes.len() - 1, bytes.len());
            Answer::status(206)
                .header("Content-Range", &format!("bytes {from}-{last}/{total}"))
                .header("Content-Length", &(total - from).to_string())
                .header("ETag", &tag)
                .then(Piece::Bytes(bytes[from..].to_vec()))
        }
        None => Answer::ok(bytes).header("ETag", &tag),
    }
}

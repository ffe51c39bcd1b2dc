//! Serves a folder over TLS to this machine alone: enough to try a registry out, and nothing to run one on.
//!
//! The certificate is made when it starts, by an authority that exists for as long. Only plain file names below the folder are
//! given out; everything else is not there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::output::Failure;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;

/// What is served, and how it is reached.
pub(crate) struct Web {
    /// Its address.
    pub(crate) url: String,
    /// The certificate of its authority, PEM.
    pub(crate) authority: String,
    dir: Arc<Mutex<PathBuf>>,
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Web {
    /// Listens; nothing is answered yet.
    pub(crate) async fn open(listen: SocketAddr, dir: &Path) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::new("serve.listen", format!("{listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (config, authority) = certificates()?;
        Ok(Self {
            url: format!("https://localhost:{port}/"),
            authority,
            dir: Arc::new(Mutex::new(dir.to_owned())),
            listener,
            tls: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// The folder that is served, which may become another one while it is.
    pub(crate) fn dir(&self) -> Arc<Mutex<PathBuf>> {
        Arc::clone(&self.dir)
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self) {
        let connections = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _peer)) = self.listener.accept().await else { return };
            let (tls, dir) = (self.tls.clone(), self.dir());
            tokio::spawn(async move {
                let _permit = permit;
                // Whoever does not believe the certificate goes away again.
                let Ok(stream) = tls.accept(stream).await else { return };
                let answer = service_fn(move |request| {
                    let dir = dir.lock().clone();
                    async move { Ok::<_, std::convert::Infallible>(answer(&dir, &request).await) }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                // A client that breaks off has what it wanted.
                drop(served.await);
            });
        }
    }
}

async fn answer(dir: &Path, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let found = match plain(request.uri().path()) {
        Some(below) => tokio::fs::read(dir.join(below)).await.ok(),
        None => None,
    };
    let mut answer = Response::new(Full::default());
    match found {
        Some(bytes) => *answer.body_mut() = Full::from(bytes),
        None => *answer.status_mut() = StatusCode::NOT_FOUND,
    }
    answer
}

/// A path of plain names.
fn plain(path: &str) -> Option<PathBuf> {
    let is_plain = |part: &str| {
        !part.starts_with('.')
            && !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let parts: Vec<_> = path.strip_prefix('/')?.split('/').collect();
    parts.iter().all(|part| is_plain(part)).then(|| parts.iter().collect())
}

fn certificates() -> Result<(ServerConfig, String), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::new("serve.certificate", error.to_string());
    let made = || -> Result<_, rcgen::Error> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, &authority_key);
        let key = KeyPair::generate()?;
        let own = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
        Ok((own, key, pem))
    };
    let (own, key, pem) = made().map_err(|error| failed(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_no_client_auth();
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = config.with_single_cert(vec![CertificateDer::from(own)], private.into());
    Ok((config.map_err(|error| failed(&error))?, pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_plain_names_is_given_out() {
        for good in ["/metadata/1.root.json", "/targets/geo/ab12.geo-1.0.0.tdb"] {
            assert!(plain(good).is_some(), "{good}");
        }
        for bad in
            ["", "/", "//x", "/../x", "/a/../b", "/.x", "/a%2f", "/a b", "x", "/a/", "/\u{e4}"]
        {
            assert_eq!(plain(bad), None, "{bad}");
        }
    }
}

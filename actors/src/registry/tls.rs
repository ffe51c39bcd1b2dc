//! TLS as the registry's client speaks it: 1.2 or newer, the operator's roots or the system's, and pins on top.
//!
//! A pin is the SHA-256 of a public key (SPKI) that the server itself must have. It is looked
//! for after everything else was verified, so that a pin never makes anything acceptable that would not be.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};

/// What TLS trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsTrust {
    /// Certificates of authorities, PEM. Empty: the system's.
    pub authorities: Vec<u8>,
    /// SHA-256 of public keys (SPKI), of which the server must have one. Empty: any.
    pub pins: Vec<[u8; 32]>,
}

/// Why there can be no TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The authorities could not be read.
    #[error("the certificates of `ca` cannot be used: {what}")]
    Authorities {
        /// The library's words.
        what: String,
    },
    /// The system trusts nobody.
    #[error("this system has no certificate authorities; install them or name one with `ca`")]
    NoAuthorities,
    /// The library refuses.
    #[error("TLS cannot be set up: {what}")]
    Library {
        /// Its words.
        what: String,
    },
}

/// A client's configuration.
///
/// # Errors
/// [`TlsError`].
pub fn client(trust: &TlsTrust) -> Result<ClientConfig, TlsError> {
    let library = |error: &dyn std::fmt::Display| TlsError::Library { what: error.to_string() };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = Arc::new(roots(trust)?);
    let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let chain = chain.build().map_err(|error| library(&error))?;
    let verifier = Arc::new(Pinned { chain, pins: trust.pins.clone() });
    // The library's oldest version is 1.2.
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| library(&error))?;
    Ok(versions.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(trust: &TlsTrust) -> Result<RootCertStore, TlsError> {
    let refused = |what: String| TlsError::Authorities { what };
    let mut roots = RootCertStore::empty();
    if trust.authorities.is_empty() {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
    } else {
        for certificate in CertificateDer::pem_slice_iter(&trust.authorities) {
            let certificate = certificate.map_err(|error| refused(format!("{error:?}")))?;
            roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("there is none in it".to_owned()));
        }
    }
    if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) }
}

/// Verifies a chain as usual, and then that the server's key is pinned.
#[derive(Debug)]
struct Pinned {
    chain: Arc<WebPkiServerVerifier>,
    pins: Vec<[u8; 32]>,
}

impl Pinned {
    fn has_pin(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return false };
        let key: [u8; 32] = Sha256::digest(parsed.subject_public_key_info().as_ref()).into();
        self.pins.contains(&key)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        // Only the server's own key: what else it sends need not be part of the chain that was verified.
        if self.pins.is_empty() || self.has_pin(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

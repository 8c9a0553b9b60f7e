//! The server's side of mutual TLS: whose certificates are let in, which changes while a server runs.
//!
//! Owns the check of callers' certificates. Authorities are those of the organisations that the registry
//! has; a node that it binds to a key is let in also when its certificate has run out, since consensus must
//! not stop for want of a renewal: its key is what vouches for it. Never decides what a caller may do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ledger::Hash32;
use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::net::{Identity, NetError, TrustRoots, identity_error, install_tls_provider, key_hash_of, valid_at};

/// What HTTP/2 is called in the handshake.
const ALPN: &[u8] = b"h2";

/// The configuration of a server's handshakes; the next one uses the newest.
pub struct Door {
    identity: Identity,
    config: RwLock<Arc<ServerConfig>>,
}

impl Door {
    /// Lets in callers with certificates of `roots`, and the nodes whose keys these are although their
    /// certificates have run out.
    ///
    /// # Errors
    /// [`NetError::Identity`] when a certificate or key cannot be used.
    pub fn open(identity: Identity, roots: &TrustRoots, nodes: BTreeSet<Hash32>) -> Result<Self, NetError> {
        let config = RwLock::new(config(&identity, roots, nodes)?);
        Ok(Self { identity, config })
    }

    /// Changes who is let in from the next handshake on.
    ///
    /// # Errors
    /// As [`Door::open`]; nothing has changed then.
    pub fn change(&self, roots: &TrustRoots, nodes: BTreeSet<Hash32>) -> Result<(), NetError> {
        let next = config(&self.identity, roots, nodes)?;
        *self.config.write() = next;
        Ok(())
    }

    /// For one handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read())
    }
}

fn config(identity: &Identity, roots: &TrustRoots, nodes: BTreeSet<Hash32>) -> Result<Arc<ServerConfig>, NetError> {
    install_tls_provider();
    let unusable = |error: &dyn fmt::Display| identity_error("the certificate and its key", error);
    let inner = WebPkiClientVerifier::builder(Arc::new(roots.store()?))
        .build()
        .map_err(|error| identity_error("the list of CA certificates", &error))?;
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(Callers { inner, nodes }))
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Whoever comes again is looked at again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The usual checks, but for the end of the certificates of nodes.
#[derive(Debug)]
struct Callers {
    inner: Arc<dyn ClientCertVerifier>,
    nodes: BTreeSet<Hash32>,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let judged = self.inner.verify_client_cert(end_entity, intermediates, now);
        let registered = || key_hash_of(end_entity).is_ok_and(|hash| self.nodes.contains(&hash));
        match (&judged, valid_at(end_entity)) {
            // Everything but its end is checked as of a time at which it was valid.
            (Err(error), Some(then)) if ran_out(error) && registered() => {
                self.inner.verify_client_cert(end_entity, intermediates, then)
            }
            _ => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether the only thing wrong is that a certificate has run out.
pub(crate) fn ran_out(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
    )
}

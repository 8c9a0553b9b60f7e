//! The server's side of mutual TLS: whose certificates are let in, which changes while a server runs.
//!
//! Owns the check of callers' certificates. Authorities are those of the organisations that the registry
//! has. What an organisation has revoked is refused. A node that the registry binds to a key is let in also
//! when its certificate has run out, since consensus must not stop for want of a renewal: its key is what
//! vouches for it. Never decides what a caller may do, and knows no connection: whoever keeps those asks
//! [`Door::keeps`] about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ledger::genesis::OrgInfo;
use ledger::{Hash32, OrgId};
use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::net::{
    Identity, NetError, TrustRoots, identity_error, install_tls_provider, issuing_org, key_hash_of, valid_at,
};

/// What HTTP/2 is called in the handshake.
const ALPN: &[u8] = b"h2";

/// Whom a door lets in, as the registry says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetIn {
    /// The organisations whose authorities vouch for callers.
    pub orgs: Vec<OrgInfo>,
    /// The nodes, by `sha256` of the subject public key info of their certificates, and whose they are.
    pub nodes: BTreeMap<Hash32, OrgId>,
    /// What was revoked, in the same terms, and by whom.
    pub revoked: Arc<BTreeSet<(OrgId, Hash32)>>,
}

impl LetIn {
    /// Whether whoever vouches for a certificate, the first of these, has revoked its key, or that of an authority
    /// between them. What one organisation revokes says nothing of the certificates of another.
    fn has_revoked(&self, chain: &[CertificateDer<'_>]) -> bool {
        let keys: Vec<Hash32> = chain.iter().filter_map(|shown| key_hash_of(shown).ok()).collect();
        let by: Vec<OrgId> =
            self.revoked.iter().filter(|(_, credential)| keys.contains(credential)).map(|(org, _)| *org).collect();
        if by.is_empty() {
            return false;
        }
        let node = chain.first().and_then(|leaf| self.nodes.get(&key_hash_of(leaf).ok()?).copied());
        let vouching = [node, issuing_org(chain, &self.orgs)];
        // Where it is not seen whose the certificate is, any word counts.
        vouching.iter().all(Option::is_none) || vouching.into_iter().flatten().any(|org| by.contains(&org))
    }
}

/// The configuration of a server's handshakes; the next one uses the newest.
pub struct Door {
    identity: Identity,
    inside: RwLock<Inside>,
}

struct Inside {
    config: Arc<ServerConfig>,
    callers: Arc<Callers>,
}

impl Door {
    /// Lets in whom `let_in` names.
    ///
    /// # Errors
    /// [`NetError::Identity`] when a certificate or key cannot be used.
    pub fn open(identity: Identity, let_in: LetIn) -> Result<Self, NetError> {
        let inside = RwLock::new(inside(&identity, let_in)?);
        Ok(Self { identity, inside })
    }

    /// Changes who is let in from the next handshake on.
    ///
    /// # Errors
    /// As [`Door::open`]; nothing has changed then.
    pub fn change(&self, let_in: LetIn) -> Result<(), NetError> {
        let next = inside(&self.identity, let_in)?;
        *self.inside.write() = next;
        Ok(())
    }

    /// For one handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.inside.read().config)
    }

    /// Whether somebody who was let in at some time with these certificates, leaf first, may stay. The end of
    /// a certificate does not end a connection. Nor does a new authority of its organisation end that of a
    /// node: it would stop consensus, and the registry's word for the node's key is enough.
    #[must_use]
    pub fn keeps(&self, certificates: &[CertificateDer<'_>], since: UnixTime) -> bool {
        let callers = Arc::clone(&self.inside.read().callers);
        callers.keep(certificates, since)
    }
}

fn inside(identity: &Identity, let_in: LetIn) -> Result<Inside, NetError> {
    install_tls_provider();
    let unusable = |error: &dyn fmt::Display| identity_error("the certificate and its key", error);
    let inner = WebPkiClientVerifier::builder(Arc::new(TrustRoots::of_orgs(&let_in.orgs).store()?))
        .build()
        .map_err(|error| identity_error("the list of CA certificates", &error))?;
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| unusable(&error))?;
    let callers = Arc::new(Callers { inner, let_in });
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(callers.clone())
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Whoever comes again is looked at again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Inside { config: Arc::new(config), callers })
}

/// The usual checks, what was revoked, and leave for the end of the certificates of nodes.
#[derive(Debug)]
struct Callers {
    inner: Arc<dyn ClientCertVerifier>,
    let_in: LetIn,
}

impl Callers {
    fn is_node(&self, leaf: &CertificateDer<'_>) -> bool {
        key_hash_of(leaf).is_ok_and(|key| self.let_in.nodes.contains_key(&key))
    }

    fn keep(&self, certificates: &[CertificateDer<'_>], since: UnixTime) -> bool {
        let Some((leaf, intermediates)) = certificates.split_first() else { return false };
        match self.is_node(leaf) {
            true => !self.let_in.has_revoked(certificates),
            false => self.verify_client_cert(leaf, intermediates, since).is_ok(),
        }
    }
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
        let judged = match (&judged, valid_at(end_entity)) {
            // Everything but its end is checked as of a time at which it was valid.
            (Err(error), Some(then)) if ran_out(error) && self.is_node(end_entity) => {
                self.inner.verify_client_cert(end_entity, intermediates, then)
            }
            _ => judged,
        };
        let chain = [std::slice::from_ref(end_entity), intermediates].concat();
        if judged.is_ok() && self.let_in.has_revoked(&chain) {
            tracing::warn!("a certificate that was revoked was shown, and refused");
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        judged
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::certificate_key_hash;
    use crate::net::tests::{authority, intermediate, leaf};

    const A: OrgId = OrgId(1);
    const B: OrgId = OrgId(2);

    fn org(id: OrgId, ca_pem: &str) -> OrgInfo {
        let admin_key = ledger::SecretKey::derive(b"admin", &id.0.to_be_bytes()).public();
        OrgInfo { id, name: format!("org-{id}"), ca_pem: ca_pem.to_owned(), admin_key }
    }

    /// Whether the next handshake would succeed, and whether a connection that stands may stay.
    fn judged(door: &Door, who: &Identity) -> [bool; 2] {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(who.cert_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        let (now, callers) = (UnixTime::now(), Arc::clone(&door.inside.read().callers));
        let next = callers.verify_client_cert(&certificates[0], &certificates[1..], now);
        [next.is_ok(), door.keeps(&certificates, now)]
    }

    #[test]
    fn what_an_organisation_revokes_counts_for_its_own_certificates_alone() {
        let (pem_a, ca_a) = authority("ca a");
        let (pem_b, _) = authority("ca b");
        let (stolen, other) = (leaf(&ca_a, "a", "client"), leaf(&ca_a, "a", "client"));
        let door = |revoked: &[(OrgId, Hash32)]| {
            let revoked = Arc::new(revoked.iter().copied().collect());
            let orgs = vec![org(A, &pem_a), org(B, &pem_b)];
            Door::open(leaf(&ca_a, "a", "node"), LetIn { orgs, revoked, ..LetIn::default() }).unwrap()
        };
        let key = stolen.key_hash().unwrap();
        assert_eq!(judged(&door(&[]), &stolen), [true; 2]);
        assert_eq!(judged(&door(&[(B, key)]), &stolen), [true; 2], "B has no say about it");
        assert_eq!(judged(&door(&[(A, key)]), &stolen), [false; 2]);
        assert_eq!(judged(&door(&[(A, key), (B, key)]), &stolen), [false; 2]);
        assert_eq!(judged(&door(&[(A, key)]), &other), [true; 2]);
    }

    #[test]
    fn behind_an_intermediate_authority_its_organisations_word_counts_and_nobody_elses() {
        let (pem_a, ca_a) = authority("ca a");
        let (pem_b, _) = authority("ca b");
        let (between, issuer) = intermediate(&ca_a, "issuing ca of a", true);
        let own = leaf(&issuer, "a", "client");
        let shown = Identity::new(format!("{}{between}", own.cert_pem), "");
        let door = |revoked: &[(OrgId, Hash32)]| {
            let revoked = Arc::new(revoked.iter().copied().collect());
            let orgs = vec![org(A, &pem_a), org(B, &pem_b)];
            Door::open(leaf(&ca_a, "a", "node"), LetIn { orgs, revoked, ..LetIn::default() }).unwrap()
        };
        let [key, authority_key] = [&own.cert_pem, &between].map(|pem| certificate_key_hash(pem).unwrap());
        assert_eq!(judged(&door(&[]), &shown), [true; 2]);
        assert_eq!(judged(&door(&[(B, key), (B, authority_key)]), &shown), [true; 2], "B has no say about it");
        assert_eq!(judged(&door(&[(A, key)]), &shown), [false; 2]);
        assert_eq!(judged(&door(&[(A, authority_key)]), &shown), [false; 2], "and all that it has issued");
        assert_eq!(judged(&door(&[(A, authority_key)]), &leaf(&ca_a, "a", "client")), [true; 2]);
    }

    #[test]
    fn an_organisation_that_is_gone_is_not_let_in_and_does_not_stay() {
        let (pem_a, ca_a) = authority("ca a");
        let (pem_b, ca_b) = authority("ca b");
        let (ours, theirs) = (leaf(&ca_a, "a", "client"), leaf(&ca_b, "b", "client"));
        let both = LetIn { orgs: vec![org(A, &pem_a), org(B, &pem_b)], ..LetIn::default() };
        let door = Door::open(leaf(&ca_a, "a", "node"), both).unwrap();
        assert_eq!((judged(&door, &ours), judged(&door, &theirs)), ([true; 2], [true; 2]));
        door.change(LetIn { orgs: vec![org(A, &pem_a)], ..LetIn::default() }).unwrap();
        assert_eq!((judged(&door, &ours), judged(&door, &theirs)), ([true; 2], [false; 2]));
        // Without anybody at all it would be no door; the one before stays.
        assert_eq!(door.change(LetIn::default()).map_err(|error| error.code()), Err("tls_identity"));
        assert_eq!(judged(&door, &ours), [true; 2]);
    }

    #[test]
    fn the_connections_of_a_node_outlive_its_authority_and_not_its_key() {
        let (old, ca_old) = authority("ca of old");
        let (new, ca_new) = authority("ca of now");
        let node = leaf(&ca_old, "a", "node");
        let key = node.key_hash().unwrap();
        let let_in = |ca_pem: &str, nodes: &[Hash32], revoked: &[(OrgId, Hash32)]| LetIn {
            orgs: vec![org(A, ca_pem)],
            nodes: nodes.iter().map(|key| (*key, A)).collect(),
            revoked: Arc::new(revoked.iter().copied().collect()),
        };
        let door = Door::open(leaf(&ca_new, "a", "node"), let_in(&old, &[key], &[])).unwrap();
        assert_eq!(judged(&door, &node), [true; 2]);
        door.change(let_in(&new, &[key], &[])).unwrap();
        assert_eq!(judged(&door, &node), [false, true]);
        door.change(let_in(&new, &[], &[])).unwrap();
        assert_eq!(judged(&door, &node), [false; 2]);
        door.change(let_in(&old, &[key], &[(A, key)])).unwrap();
        assert_eq!(judged(&door, &node), [false; 2]);
    }
}

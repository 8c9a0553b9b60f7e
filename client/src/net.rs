//! Mutual TLS between all processes: identities, trust, connections, and who the peer is.
//!
//! Owns certificates and channel settings. It never decides what a peer may do: it says who the
//! peer is, and the service that was called decides.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;

use ledger::genesis::OrgInfo;
use ledger::hash::sha256;
use ledger::limits::GRPC_BYTES_MAX;
use ledger::{Hash32, NodeId, OrgId};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server, ServerTlsConfig};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use zeroize::Zeroizing;

use crate::door::ran_out;
use crate::secrets::{Keyring, SecretError};
use crate::sockets::{Sockets, Wire};
use crate::traffic::{Counted, Traffic};

/// Flow-control window of one stream. A submit stream carries megabytes ahead of its answers, and
/// the 64 KiB of the HTTP/2 default would make it wait for a round trip every few hundred payments.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Flow-control window of a connection, shared by all of its streams.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// HTTP/2 frames: fewer and larger ones cost less per byte.
const FRAME_BYTES: u32 = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller may take for its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// Intermediate authorities between a certificate and its organisation's that are looked at. Certificates that are
/// shown behind them count for nothing.
const INTERMEDIATES_MAX: usize = 4;

/// Why a connection cannot even be attempted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// A certificate or key is not in PEM, or is not usable.
    #[error("{what} cannot be used: {cause}; check that it is the PEM file made for this cluster")]
    Identity {
        /// Which one.
        what: String,
        /// What is wrong.
        cause: String,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}; check the path and its permissions")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The address is not `host:port`.
    #[error("'{addr}' is no address: {cause}; expected host:port")]
    Address {
        /// The text.
        addr: String,
        /// What is wrong.
        cause: String,
    },
    /// The peer's certificate cannot be parsed or lacks what names it.
    #[error("the peer's certificate does not say who it is: {0}")]
    Peer(String),
    /// The private key does not open.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl NetError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Identity { .. } => "tls_identity",
            Self::File { .. } => "tls_file",
            Self::Address { .. } => "address_form",
            Self::Peer(_) => "tls_peer",
            Self::Secret(error) => error.code(),
        }
    }
}

/// Makes ring the process-wide TLS provider. Done once; every function here calls it.
pub fn install_tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Another part of the process may have chosen already; its choice then stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The certificate of this process and its key.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain, PEM, leaf first.
    pub cert_pem: String,
    /// Private key, PEM. Wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    /// An identity from PEM texts.
    #[must_use]
    pub fn new(cert_pem: impl Into<String>, key_pem: impl Into<String>) -> Self {
        Self { cert_pem: cert_pem.into(), key_pem: Zeroizing::new(key_pem.into()) }
    }

    /// Reads a certificate in PEM and its key, sealed or in PEM. The passphrase is found by the rule of
    /// [`Passphrase::find`](crate::secrets::Passphrase::find).
    ///
    /// # Errors
    /// [`NetError::File`] or [`NetError::Secret`].
    pub fn load(cert: &Path, key: &Path) -> Result<Self, NetError> {
        Self::load_with(cert, key, &mut Keyring::finding(None))
    }

    /// As [`Identity::load`], with a passphrase that is known or named.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load_with(cert: &Path, key: &Path, keyring: &mut Keyring) -> Result<Self, NetError> {
        let cert_pem = read(cert)?;
        let key_pem = keyring.pem(key).map_err(|error| match error {
            SecretError::Io { path, cause, .. } => NetError::File { path, cause },
            other => NetError::Secret(other),
        })?;
        Ok(Self { cert_pem, key_pem })
    }

    /// `sha256` of the subject public key info of the leaf: what the registry binds a node to.
    ///
    /// # Errors
    /// [`NetError::Identity`].
    pub fn key_hash(&self) -> Result<Hash32, NetError> {
        let der = first_certificate("the certificate", &self.cert_pem)?;
        key_hash_of(&der)
    }

    fn tonic(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.cert_pem, self.key_pem.as_str())
    }
}

/// The certificate authorities whose certificates are accepted.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    /// PEM texts; each may hold several certificates.
    pub ca_pems: Vec<String>,
}

impl TrustRoots {
    /// The roots of all organisations.
    #[must_use]
    pub fn of_orgs(orgs: &[OrgInfo]) -> Self {
        Self { ca_pems: orgs.iter().map(|org| org.ca_pem.clone()).collect() }
    }

    /// The roots of those organisations whose authority can be used, and the others: a registry takes the
    /// frame of a certificate, and what is wrong inside concerns its own organisation alone.
    #[must_use]
    pub fn usable_of_orgs(orgs: &[OrgInfo]) -> (Self, Vec<OrgId>) {
        let usable = |org: &&OrgInfo| Self { ca_pems: vec![org.ca_pem.clone()] }.store().is_ok();
        let (good, bad): (Vec<&OrgInfo>, Vec<&OrgInfo>) = orgs.iter().partition(usable);
        let roots = Self { ca_pems: good.into_iter().map(|org| org.ca_pem.clone()).collect() };
        (roots, bad.into_iter().map(|org| org.id).collect())
    }

    /// Reads one PEM file.
    ///
    /// # Errors
    /// [`NetError::File`].
    pub fn load(path: &Path) -> Result<Self, NetError> {
        Ok(Self { ca_pems: vec![read(path)?] })
    }

    fn joined(&self) -> String {
        let mut all = String::new();
        for pem in &self.ca_pems {
            all.push_str(pem.trim());
            all.push('\n');
        }
        all
    }

    /// Every certificate, parsed. An authority that does not parse is an error here, where rustls
    /// would leave it out and refuse its organisation later without a reason.
    pub(crate) fn store(&self) -> Result<rustls::RootCertStore, NetError> {
        let mut store = rustls::RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(self.joined().as_bytes()) {
            let der = der.map_err(|error| identity("a CA certificate", error))?;
            store.add(der).map_err(|error| identity("a CA certificate", error))?;
        }
        if store.is_empty() {
            return Err(identity("the list of CA certificates", "it is empty"));
        }
        Ok(store)
    }
}

fn read(path: &Path) -> Result<String, NetError> {
    std::fs::read_to_string(path)
        .map_err(|error| NetError::File { path: path.display().to_string(), cause: error.to_string() })
}

fn identity(what: &str, cause: impl fmt::Display) -> NetError {
    NetError::Identity { what: what.to_owned(), cause: cause.to_string() }
}

pub(crate) fn identity_error(what: &str, cause: &dyn fmt::Display) -> NetError {
    identity(what, cause)
}

fn first_certificate(what: &str, pem: &str) -> Result<CertificateDer<'static>, NetError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| identity(what, error))
}

pub(crate) fn key_hash_of(der: &[u8]) -> Result<Hash32, NetError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|error| NetError::Peer(error.to_string()))?;
    Ok(sha256(cert.public_key().raw))
}

/// `sha256` of the subject public key info of the first certificate of a PEM text.
///
/// # Errors
/// [`NetError::Identity`] when there is none.
pub fn certificate_key_hash(pem: &str) -> Result<Hash32, NetError> {
    key_hash_of(&first_certificate("the certificate", pem)?)
}

/// The last moment at which a certificate is valid.
pub(crate) fn valid_at(der: &[u8]) -> Option<UnixTime> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let secs = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
}

/// The name a node's certificate carries and its peers insist on.
#[must_use]
pub fn node_server_name(node: NodeId) -> String {
    format!("node-{node}.seamark")
}

/// A channel to `addr`, which must present a certificate of the roots for `server_name`. It
/// connects when first used and again whenever the connection was lost.
///
/// # Errors
/// [`NetError`] when address, identity or roots are unusable; failures to connect show up in calls.
pub fn connect(addr: &str, identity: &Identity, roots: &TrustRoots, server_name: &str) -> Result<Channel, NetError> {
    Ok(endpoint_for(addr, identity, roots, server_name)?.connect_lazy())
}

/// As [`connect`], over these sockets.
///
/// # Errors
/// As [`connect`].
pub fn connect_over(
    addr: &str,
    identity: &Identity,
    roots: &TrustRoots,
    server_name: &str,
    sockets: &Arc<dyn Sockets>,
) -> Result<Channel, NetError> {
    let connector = Connector { sockets: Arc::clone(sockets), traffic: Arc::default() };
    Ok(endpoint_for(addr, identity, roots, server_name)?.connect_with_connector_lazy(connector))
}

fn endpoint_for(addr: &str, identity: &Identity, roots: &TrustRoots, server_name: &str) -> Result<Endpoint, NetError> {
    roots.store()?;
    let config = ClientTlsConfig::new()
        .identity(identity.tonic())
        .ca_certificates(roots.ca_pems.iter().map(Certificate::from_pem))
        .domain_name(server_name);
    endpoint(addr)?.tls_config(config).map_err(|error| tonic_error("the identity", &error))
}

/// As [`connect`], and the peer's key must be the one the registry binds the node to. A certificate
/// authority of one organisation can then not make itself a node of another. What goes through the
/// channel's sockets, which come from `sockets`, is added to `traffic`.
///
/// # Errors
/// As [`connect`].
pub fn connect_pinned(
    addr: &str,
    identity: &Identity,
    roots: &TrustRoots,
    server_name: &str,
    key_hash: Hash32,
    sockets: &Arc<dyn Sockets>,
    traffic: &Arc<Traffic>,
) -> Result<Channel, NetError> {
    let endpoint = endpoint(addr)?;
    let inner = WebPkiServerVerifier::builder(Arc::new(roots.store()?))
        .build()
        .map_err(|error| self::identity("the list of CA certificates", error))?;
    let config = ClientTlsConfig::new().identity(identity.tonic()).domain_name(server_name);
    let endpoint = endpoint
        .tls_config_with_verifier(config, Arc::new(PinnedKey { inner, key_hash }))
        .map_err(|error| tonic_error("the identity", &error))?;
    Ok(endpoint.connect_with_connector_lazy(Connector { sockets: Arc::clone(sockets), traffic: Arc::clone(traffic) }))
}

/// Opens sockets whose bytes are counted.
#[derive(Clone)]
struct Connector {
    sockets: Arc<dyn Sockets>,
    traffic: Arc<Traffic>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Counted<Box<dyn Wire>>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (sockets, traffic) = (Arc::clone(&self.sockets), Arc::clone(&self.traffic));
        Box::pin(async move {
            let missing = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "an address without host or port");
            let host = uri.host().ok_or_else(missing)?.trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().ok_or_else(missing)?;
            let stream = sockets.connect(host, port).await?;
            Ok(TokioIo::new(Counted::new(stream, traffic)))
        })
    }
}

fn tonic_error(what: &str, error: &dyn std::error::Error) -> NetError {
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    identity(what, cause)
}

fn endpoint(addr: &str) -> Result<Endpoint, NetError> {
    install_tls_provider();
    let form = |cause: String| NetError::Address { addr: addr.to_owned(), cause };
    match addr.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {}
        _ => return Err(form("no host or no port".to_owned())),
    }
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).map_err(|error| form(error.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(20)))
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES))
}

/// TLS of a server that answers nobody without a certificate of the roots.
///
/// # Errors
/// [`NetError::Identity`].
pub fn server_tls(identity: &Identity, roots: &TrustRoots) -> Result<ServerTlsConfig, NetError> {
    install_tls_provider();
    roots.store()?;
    first_certificate("the certificate", &identity.cert_pem)?;
    Ok(ServerTlsConfig::new()
        .identity(identity.tonic())
        .client_ca_root(Certificate::from_pem(roots.joined()))
        .client_auth_optional(false)
        .timeout(HANDSHAKE_TIMEOUT))
}

/// A server with the same tuning as the channels of [`connect`], TLS included.
///
/// # Errors
/// As [`server_tls`].
pub fn server(identity: &Identity, roots: &TrustRoots) -> Result<Server, NetError> {
    server_behind_door().tls_config(server_tls(identity, roots)?).map_err(|error| tonic_error("the identity", &error))
}

/// As [`server`], for connections whose TLS a [`crate::Door`] has ended.
#[must_use]
pub fn server_behind_door() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(20)))
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
}

/// A client of the `Router` service with the cluster's message limits.
#[must_use]
pub fn router_client(channel: Channel) -> proto::v1::router_client::RouterClient<Channel> {
    proto::v1::router_client::RouterClient::new(channel)
        .max_decoding_message_size(GRPC_BYTES_MAX)
        .max_encoding_message_size(GRPC_BYTES_MAX)
}

/// A client of the `Node` service with the cluster's message limits.
#[must_use]
pub fn node_client(channel: Channel) -> proto::v1::node_client::NodeClient<Channel> {
    proto::v1::node_client::NodeClient::new(channel)
        .max_decoding_message_size(GRPC_BYTES_MAX)
        .max_encoding_message_size(GRPC_BYTES_MAX)
}

/// What a process is, as its certificate says in OU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Hosts replicas.
    Node,
    /// A stand-alone router.
    Router,
    /// Submits and reads.
    Client,
    /// An administrator of its organisation.
    Admin,
    /// Reads what it was granted, and changes nothing.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Node, Self::Router, Self::Client, Self::Admin, Self::Auditor];

    /// As written in certificates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Router => "router",
            Self::Client => "client",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
    }

    /// From the text in a certificate.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Who a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// O: the organisation it claims. Only [`issuing_org`] says which one vouches for it.
    pub org: Option<String>,
    /// CN: `node-3`, `router-1`, `client`, `admin`.
    pub common_name: String,
    /// `sha256` of the subject public key info.
    pub key_hash: Hash32,
    /// OU.
    pub role: Role,
}

impl PeerIdentity {
    /// Reads a leaf certificate, whose chain TLS has checked.
    ///
    /// # Errors
    /// [`NetError::Peer`] when it does not parse, or has no common name or no known role.
    pub fn from_der(der: &[u8]) -> Result<Self, NetError> {
        let peer = |text: &str| NetError::Peer(text.to_owned());
        let (_, cert) = X509Certificate::from_der(der).map_err(|error| NetError::Peer(error.to_string()))?;
        let subject = cert.subject();
        let role = first_text(subject, Field::Unit).ok_or_else(|| peer("it has no OU"))?;
        Ok(Self {
            org: first_text(subject, Field::Org),
            common_name: first_text(subject, Field::Name).ok_or_else(|| peer("it has no CN"))?,
            key_hash: sha256(cert.public_key().raw),
            role: Role::parse(&role).ok_or_else(|| peer("its OU is none of node, router, client, admin, auditor"))?,
        })
    }

    /// The node number in a common name such as `node-3`.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        let number = self.common_name.strip_prefix("node-")?.parse().ok()?;
        (self.role == Role::Node).then_some(NodeId(number))
    }
}

#[derive(Clone, Copy)]
enum Field {
    Org,
    Unit,
    Name,
}

fn first_text(name: &X509Name<'_>, field: Field) -> Option<String> {
    let text = match field {
        Field::Org => name.iter_organization().next()?.as_str(),
        Field::Unit => name.iter_organizational_unit().next()?.as_str(),
        Field::Name => name.iter_common_name().next()?.as_str(),
    };
    text.ok().map(str::to_owned)
}

/// A certificate as people look at one: whose it is, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Who it names; `None` for one that is no process's, such as an authority's.
    pub peer: Option<PeerIdentity>,
    /// Subject, as text.
    pub subject: String,
    /// Issuer, as text.
    pub issuer: String,
    /// It may sign others.
    pub authority: bool,
    /// Valid from, seconds since 1970.
    pub from_secs: i64,
    /// Valid until, seconds since 1970.
    pub until_secs: i64,
}

impl CertificateInfo {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// [`NetError::Identity`].
    pub fn from_pem(pem: &str) -> Result<Self, NetError> {
        let der = first_certificate("the certificate", pem)?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|error| identity("the certificate", error))?;
        Ok(Self {
            peer: PeerIdentity::from_der(&der).ok(),
            subject: cert.subject().to_string(),
            issuer: cert.issuer().to_string(),
            authority: cert.is_ca(),
            from_secs: cert.validity().not_before.timestamp(),
            until_secs: cert.validity().not_after.timestamp(),
        })
    }

    /// The organisation that an authority's certificate names; `None` of one that is no authority's.
    ///
    /// # Errors
    /// [`NetError::Identity`].
    pub fn org_of_authority(pem: &str) -> Result<Option<String>, NetError> {
        let der = first_certificate("the certificate", pem)?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|error| identity("the certificate", error))?;
        Ok(first_text(cert.subject(), Field::Org).filter(|_| cert.is_ca()))
    }
}

/// The organisation that vouches for the caller, by the certificates that it has shown. `None` without TLS, and of
/// one that the registry does not know.
#[must_use]
pub fn peer_org<T>(request: &tonic::Request<T>, orgs: &[OrgInfo]) -> Option<OrgId> {
    issuing_org(&request.peer_certs()?, orgs)
}

/// `sha256` of the subject public key info of the caller's leaf certificate.
#[must_use]
pub fn peer_key_hash<T>(request: &tonic::Request<T>) -> Option<Hash32> {
    key_hash_of(request.peer_certs()?.first()?).ok()
}

/// Who the caller is, by its certificate.
///
/// # Errors
/// [`NetError::Peer`].
pub fn peer_identity<T>(request: &tonic::Request<T>) -> Result<PeerIdentity, NetError> {
    let certs = request.peer_certs().ok_or_else(|| NetError::Peer("there is none".to_owned()))?;
    let leaf = certs.first().ok_or_else(|| NetError::Peer("there is none".to_owned()))?;
    PeerIdentity::from_der(leaf)
}

/// The organisation whose authority signed the first of these certificates: itself, or over intermediate authorities,
/// which follow in the order in which each has signed the one before it. Of several the nearest counts, since an
/// organisation's authority may be below that of another one. What the certificate claims in O does not count: any
/// organisation could write any name there.
#[must_use]
pub fn issuing_org(chain: &[CertificateDer<'_>], orgs: &[OrgInfo]) -> Option<OrgId> {
    let (leaf, intermediates) = chain.split_first()?;
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    if let Some(org) = orgs.iter().find(|org| signed_by(&parsed, &org.ca_pem)) {
        return Some(org.id);
    }
    let mut between = (1..=intermediates.len().min(INTERMEDIATES_MAX)).map(|count| &intermediates[..count]);
    between.find_map(|between| orgs.iter().find(|org| vouches(&org.ca_pem, leaf, between)).map(|org| org.id))
}

fn signed_by(leaf: &X509Certificate<'_>, ca_pem: &str) -> bool {
    CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten().any(|der| {
        X509Certificate::from_der(&der).is_ok_and(|(_, ca)| leaf.verify_signature(Some(ca.public_key())).is_ok())
    })
}

/// Whether a path leads from a certificate over these intermediate authorities to this one. It is checked as for a
/// handshake, since that may have taken another path, to the authority of somebody else: what is between must be
/// allowed to sign, and be valid still.
fn vouches(ca_pem: &str, leaf: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> bool {
    install_tls_provider();
    let roots = TrustRoots { ca_pems: vec![ca_pem.to_owned()] }.store();
    let Some(verifier) = roots.ok().and_then(|roots| WebPkiClientVerifier::builder(Arc::new(roots)).build().ok())
    else {
        return false;
    };
    match (verifier.verify_client_cert(leaf, between, UnixTime::now()), valid_at(leaf)) {
        // The end of a certificate does not end a connection.
        (Err(error), Some(then)) if ran_out(&error) => verifier.verify_client_cert(leaf, between, then).is_ok(),
        (judged, _) => judged.is_ok(),
    }
}

/// The usual checks of a server certificate, and then its key.
#[derive(Debug)]
struct PinnedKey {
    inner: Arc<WebPkiServerVerifier>,
    key_hash: Hash32,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let check = |now| self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verified = match (check(now), valid_at(end_entity)) {
            // The key vouches for the node: what the registry binds it to holds without a renewal. Everything
            // but the end is checked as of a time at which the certificate was valid.
            (Err(error), Some(then)) if ran_out(&error) => check(then)?,
            (judged, _) => judged?,
        };
        match key_hash_of(end_entity) {
            Ok(found) if found == self.key_hash => Ok(verified),
            Ok(_) => Err(rustls::Error::General("the server's key is not the one in the registry".to_owned())),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    pub(crate) fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, Issuer::new(params, key))
    }

    /// An authority below another one.
    pub(crate) fn intermediate(
        above: &Issuer<'_, KeyPair>,
        name: &str,
        may_sign: bool,
    ) -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = if may_sign { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.signed_by(&key, above).unwrap().pem();
        (pem, Issuer::new(params, key))
    }

    /// The certificates of PEM texts, one after the other.
    pub(crate) fn chain(pems: &[&str]) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pems.concat().as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn leaf(issuer: &Issuer<'_, KeyPair>, org: &str, role: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node-3.seamark".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "node-3");
        params.distinguished_name.push(DnType::OrganizationName, org);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role);
        let cert = params.signed_by(&key, issuer).unwrap();
        Identity::new(cert.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_says_who_it_is_and_its_issuer_says_whose() {
        let (pem_a, ca_a) = authority("ca a");
        let (pem_b, ca_b) = authority("ca b");
        let org = |id, name: &str, ca_pem: &str| OrgInfo {
            id: OrgId(id),
            name: name.to_owned(),
            ca_pem: ca_pem.to_owned(),
            admin_key: ledger::SecretKey::derive(b"admin", name.as_bytes()).public(),
        };
        let orgs = [org(1, "a", &pem_a), org(2, "b", &pem_b)];
        let honest = leaf(&ca_a, "a", "node");
        let der = first_certificate("x", &honest.cert_pem).unwrap();
        let peer = PeerIdentity::from_der(&der).unwrap();
        assert_eq!(peer.org.as_deref(), Some("a"));
        assert_eq!(peer.role, Role::Node);
        assert_eq!(peer.node(), Some(NodeId(3)));
        assert_eq!(peer.key_hash, honest.key_hash().unwrap());
        assert_eq!(issuing_org(&[der], &orgs), Some(OrgId(1)));

        let liar = chain(&[&leaf(&ca_b, "a", "node").cert_pem]);
        assert_eq!(issuing_org(&liar, &orgs), Some(OrgId(2)));
        let (_, stranger) = authority("ca c");
        let stranger = chain(&[&leaf(&stranger, "a", "node").cert_pem]);
        assert_eq!(issuing_org(&stranger, &orgs), None);
        assert_eq!(issuing_org(&[], &orgs), None);
        let odd = first_certificate("x", &leaf(&ca_a, "a", "king").cert_pem).unwrap();
        assert_eq!(PeerIdentity::from_der(&odd).unwrap_err().code(), "tls_peer");
    }

    #[test]
    fn an_authority_vouches_over_intermediate_ones_and_over_nobody_else() {
        let (pem_a, ca_a) = authority("root of a");
        let (pem_b, ca_b) = authority("root of b");
        let admin_key = ledger::SecretKey::derive(b"admin", b"").public();
        let org = |id, ca_pem: &str| OrgInfo {
            id: OrgId(id),
            name: format!("org-{id}"),
            ca_pem: ca_pem.to_owned(),
            admin_key,
        };
        let orgs = [org(1, &pem_a), org(2, &pem_b)];
        let (issuing, issuer) = intermediate(&ca_a, "issuing ca of a", true);
        let client = leaf(&issuer, "a", "client").cert_pem;
        assert_eq!(issuing_org(&chain(&[&client, &issuing]), &orgs), Some(OrgId(1)));
        assert_eq!(issuing_org(&chain(&[&client, &issuing, &pem_a]), &orgs), Some(OrgId(1)), "the root may come along");
        assert_eq!(issuing_org(&chain(&[&client]), &orgs), None, "it has to be shown");
        assert_eq!(issuing_org(&chain(&[&client, &issuing]), &orgs[1..]), None);
        let (lower, lower_issuer) = intermediate(&issuer, "lower ca of a", true);
        let deep = leaf(&lower_issuer, "b", "client").cert_pem;
        assert_eq!(issuing_org(&chain(&[&deep, &lower, &issuing]), &orgs), Some(OrgId(1)));
        assert_eq!(issuing_org(&chain(&[&deep, &lower]), &orgs), None);

        // What is no authority vouches for nobody, whoever has its key: here a client of a's.
        let (person, person_key) = intermediate(&ca_a, "a client of a", false);
        let forged = leaf(&person_key, "a", "client").cert_pem;
        assert_eq!(issuing_org(&chain(&[&forged, &person]), &orgs), None);
        // Also when b makes the same key an authority of its own: then it is b's.
        let below_b = {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "a client of a");
            params.signed_by(person_key.key(), &ca_b).unwrap().pem()
        };
        assert_eq!(issuing_org(&chain(&[&forged, &person, &below_b]), &orgs), Some(OrgId(2)));
        assert_eq!(issuing_org(&chain(&[&forged, &below_b, &person]), &orgs), Some(OrgId(2)));
        // Whose own authority is below that of another one is not taken for the other.
        let below = [org(1, &pem_a), org(3, &issuing)];
        assert_eq!(issuing_org(&chain(&[&client, &issuing]), &below), Some(OrgId(3)));
        assert_eq!(issuing_org(&chain(&[&deep, &lower, &issuing]), &below), Some(OrgId(3)));
    }

    #[tokio::test]
    async fn unusable_input_has_its_code() {
        let (ca, issuer) = authority("ca");
        let me = leaf(&issuer, "a", "client");
        let roots = TrustRoots { ca_pems: vec![ca] };
        let none = TrustRoots::default();
        assert!(connect("localhost:1", &me, &roots, "node-1.seamark").is_ok());
        assert_eq!(connect("localhost", &me, &roots, "n").unwrap_err().code(), "address_form");
        assert_eq!(connect("localhost:1", &me, &none, "n").unwrap_err().code(), "tls_identity");
        let broken = Identity::new("no pem", "no pem");
        assert_eq!(connect("localhost:1", &broken, &roots, "n").unwrap_err().code(), "tls_identity");
        assert_eq!(server_tls(&broken, &roots).unwrap_err().code(), "tls_identity");
        let missing = Identity::load(Path::new("/no/such"), Path::new("/no/such")).unwrap_err();
        assert_eq!(missing.code(), "tls_file");
    }
}

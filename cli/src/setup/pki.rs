//! Certificates of organisations, nodes, routers, clients, admins and auditors: ECDSA over P-256, one
//! authority for each organisation, one level deep.
//!
//! Never writes a file and never checks a peer: `client::net` does that.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use client::secrets::is_random;
use client::{Identity, NetError, Role};
use ledger::hash::{Hash32, sha256};
use ledger::ids::NodeId;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument, pkcs5};
use rand::TryRngCore;
use rand::rngs::OsRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// How long an organisation's authority is valid.
pub const CA_VALID_DAYS: i64 = 3653;
/// How long every other certificate is valid: the longest that TLS stacks accept everywhere.
pub const LEAF_VALID_DAYS: i64 = 397;
/// What a PEM file with an encrypted key begins with (RFC 7468).
const SEALED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// How far validity reaches back, for machines whose clocks run behind.
const BACKDATED: Duration = Duration::hours(1);

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("the certificate of {subject} cannot be made: {cause}; check that names are plain ASCII")]
    Make {
        /// Whose certificate.
        subject: String,
        /// What the library said.
        cause: rcgen::Error,
    },
    /// The system gave no randomness.
    #[error("the system's random source failed: {0}; check that /dev/urandom is readable")]
    Random(String),
    /// A CA certificate or key is not usable.
    #[error("the certificate authority cannot be used: {0}; restore ca.pem and ca.key from a backup")]
    Authority(rcgen::Error),
    /// The passphrase of a CA key is wrong, or the file is damaged: the cipher cannot tell.
    #[error(
        "the key of the certificate authority does not open; check the passphrase, or restore ca.key from a backup"
    )]
    Locked,
    /// Certificate and key are of two authorities.
    #[error("ca.pem and ca.key do not belong together; restore both from the same backup")]
    Mismatch,
    /// The cipher refused to close a CA key.
    #[error("the key of the certificate authority cannot be encrypted: {0}; report it")]
    Seal(String),
    /// A certificate cannot be read back.
    #[error(transparent)]
    Read(#[from] NetError),
}

impl PkiError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Make { .. } => "pki_make",
            Self::Random(_) => "pki_random",
            Self::Authority(_) => "pki_authority",
            Self::Locked => "pki_locked",
            Self::Mismatch => "pki_mismatch",
            Self::Seal(_) => "pki_seal",
            Self::Read(error) => error.code(),
        }
    }
}

/// What a certificate says about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// CN: `node-3`, `router-1`, a client's or admin's name.
    pub common_name: String,
    /// O, for people; what counts is who signed.
    pub org: String,
    /// OU.
    pub role: Role,
    /// Further host names and addresses it answers under. Servers always have
    /// `<common name>.seamark`, `localhost` and 127.0.0.1.
    pub hosts: Vec<String>,
}

impl Subject {
    /// A node, which also answers under the hosts of its addresses.
    #[must_use]
    pub fn node(id: NodeId, org: &str, hosts: Vec<String>) -> Self {
        Self { common_name: format!("node-{id}"), org: org.to_owned(), role: Role::Node, hosts }
    }

    /// A router of its own.
    #[must_use]
    pub fn router(name: &str, org: &str, hosts: Vec<String>) -> Self {
        Self { common_name: name.to_owned(), org: org.to_owned(), role: Role::Router, hosts }
    }

    /// A client application.
    #[must_use]
    pub fn client(name: &str, org: &str) -> Self {
        Self { common_name: name.to_owned(), org: org.to_owned(), role: Role::Client, hosts: Vec::new() }
    }

    /// An administrator.
    #[must_use]
    pub fn admin(name: &str, org: &str) -> Self {
        Self { common_name: name.to_owned(), org: org.to_owned(), role: Role::Admin, hosts: Vec::new() }
    }

    /// An auditor.
    #[must_use]
    pub fn auditor(name: &str, org: &str) -> Self {
        Self { common_name: name.to_owned(), org: org.to_owned(), role: Role::Auditor, hosts: Vec::new() }
    }

    fn is_server(&self) -> bool {
        match self.role {
            Role::Node | Role::Router => true,
            Role::Client | Role::Admin | Role::Auditor => false,
        }
    }
}

/// A certificate and its private key, in PEM. Never printed.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert_pem: String,
    /// The key, PKCS #8. Wiped when dropped.
    pub key_pem: Zeroizing<String>,
    /// `sha256` of the subject public key info: what the registry binds a node to.
    pub key_hash: Hash32,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({})", self.key_hash)
    }
}

impl Leaf {
    /// As the TLS layer takes it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { cert_pem: self.cert_pem.clone(), key_pem: self.key_pem.clone() }
    }
}

/// An organisation's certificate authority.
pub struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// Makes an authority with a new key. A part of its serial number is in its name, so that two
    /// authorities of equal name are never taken for each other.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn make(org: &str) -> Result<Self, PkiError> {
        let make = |cause| PkiError::Make { subject: org.to_owned(), cause };
        let key = KeyPair::generate().map_err(make)?;
        let serial = random::<16>()?;
        let mut params = dated(CA_VALID_DAYS);
        params.serial_number = Some(positive(serial));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{org} CA {}", hex::encode(&serial[..4])));
        params.distinguished_name.push(DnType::OrganizationName, org);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(&key).map_err(make)?.pem();
        Ok(Self { cert_pem, issuer: Issuer::new(params, key) })
    }

    /// Takes up an authority from its files.
    ///
    /// # Errors
    /// [`PkiError::Authority`].
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        Self::of(cert_pem, KeyPair::from_pem(key_pem).map_err(PkiError::Authority)?)
    }

    fn of(cert_pem: &str, key: KeyPair) -> Result<Self, PkiError> {
        let key_hash = sha256(&key.subject_public_key_info());
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(PkiError::Authority)?;
        if Identity::new(cert_pem, "").key_hash()? != key_hash {
            return Err(PkiError::Mismatch);
        }
        Ok(Self { cert_pem: cert_pem.to_owned(), issuer })
    }

    /// Takes up an authority whose key is under a passphrase.
    ///
    /// # Errors
    /// [`PkiError::Locked`] or [`PkiError::Authority`].
    pub fn from_sealed_pem(cert_pem: &str, key_pem: &str, passphrase: &str) -> Result<Self, PkiError> {
        let (_, sealed) = SecretDocument::from_pem(key_pem).map_err(|_| PkiError::Locked)?;
        let open = EncryptedPrivateKeyInfo::try_from(sealed.as_bytes()).map_err(|_| PkiError::Locked)?;
        let key = open.decrypt(passphrase).map_err(|_| PkiError::Locked)?;
        Self::of(cert_pem, KeyPair::try_from(key.as_bytes()).map_err(PkiError::Authority)?)
    }

    /// Whether a key file is under a passphrase.
    #[must_use]
    pub fn is_sealed(key_pem: &str) -> bool {
        key_pem.contains(SEALED_LABEL)
    }

    /// The private key under a passphrase: PKCS #8 in PEM with scrypt and AES-256 (RFC 8018), as OpenSSL reads it.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn sealed_key_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, PkiError> {
        let seal = |error: pkcs8::Error| PkiError::Seal(error.to_string());
        let (salt, iv) = (random::<16>()?, random::<16>()?);
        let cost = scrypt_cost(passphrase).map_err(|error| PkiError::Seal(error.to_string()))?;
        let params = pkcs5::pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv)
            .map_err(|error| PkiError::Seal(error.to_string()))?;
        let der = Zeroizing::new(self.issuer.key().serialize_der());
        let key = PrivateKeyInfo::try_from(der.as_slice()).map_err(seal)?;
        let sealed = key.encrypt_with_params(params, passphrase).map_err(seal)?;
        sealed.to_pem(SEALED_LABEL, LineEnding::LF).map_err(|error| PkiError::Seal(error.to_string()))
    }

    /// The certificate, in PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key, in PEM. Whoever has it can make members of the organisation.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Makes a certificate with a new key. Nodes and routers may serve and call, others only call.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn issue(&self, subject: &Subject) -> Result<Leaf, PkiError> {
        self.issue_for(subject, LEAF_VALID_DAYS)
    }

    /// As [`Authority::issue`], valid for so many days.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn issue_for(&self, subject: &Subject, days: i64) -> Result<Leaf, PkiError> {
        let make = |cause| PkiError::Make { subject: subject.common_name.clone(), cause };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = dated(days);
        params.serial_number = Some(positive(random::<16>()?));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
        params.distinguished_name.push(DnType::OrganizationName, subject.org.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, subject.role.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject.is_server() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names = alternative_names(subject).map_err(make)?;
        }
        let cert_pem = params.signed_by(&key, &self.issuer).map_err(make)?.pem();
        let key_hash = sha256(&key.subject_public_key_info());
        Ok(Leaf { cert_pem, key_pem: Zeroizing::new(key.serialize_pem()), key_hash })
    }
}

fn alternative_names(subject: &Subject) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = vec![
        SanType::DnsName(format!("{}.seamark", subject.common_name).try_into()?),
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    ];
    for host in &subject.hosts {
        let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn dated(days: i64) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now - BACKDATED + Duration::days(days);
    params
}

/// What each try of a passphrase costs: 16 MiB, five times over, which is as much memory as OpenSSL allows. Next to
/// nothing for 256 random bits, which nobody tries.
fn scrypt_cost(passphrase: &str) -> Result<pkcs5::scrypt::Params, pkcs5::scrypt::errors::InvalidParams> {
    let (log_n, passes) = if is_random(passphrase) { (4, 1) } else { (14, 5) };
    pkcs5::scrypt::Params::new(log_n, 8, passes, 32)
}

/// A serial number: positive and never zero, as RFC 5280 asks.
fn positive(mut serial: [u8; 16]) -> SerialNumber {
    serial[0] = (serial[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&serial)
}

/// Random bytes of the system.
///
/// # Errors
/// [`PkiError::Random`].
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| PkiError::Random(error.to_string()))?;
    Ok(bytes)
}

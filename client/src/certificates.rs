//! Why a certificate ended a connection: whose it was, and what was wrong with it.
//!
//! Owns how that is read out of what a transport reports. Judges no certificate: the router has judged ours, and rustls the
//! router's.

use rustls::{AlertDescription as Alert, CertificateError};
use tonic::Status;

use crate::routers::cause_of;

/// A certificate that was not taken. The same call over the same router ends in the same way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// The router knows no authority of ours.
    #[error(
        "the router knows no authority that has issued this client's certificate; use one that an organisation of this cluster has issued"
    )]
    UnknownAuthority,
    /// Ours is not valid at this time.
    #[error(
        "this client's certificate has expired, or is not valid yet by the router's clock; have another one issued ('seamark ca issue')"
    )]
    Expired,
    /// The organisation has revoked ours.
    #[error("this client's certificate was revoked; use another one of its organisation")]
    Revoked,
    /// The router does not take ours for another reason.
    #[error(
        "the router does not take this client's certificate ({0}); use a certificate issued for this cluster and role"
    )]
    Refused(String),
    /// The router shows the certificate of another node, or of another router.
    #[error(
        "the router shows the certificate of another one than the profile names ({0}); correct addr and server_name of the router in the profile"
    )]
    OtherRouter(String),
    /// The profile has no authority of the router's.
    #[error(
        "the router's certificate is of no authority that the profile has; use the profile of this cluster, with the authorities that the registry has now"
    )]
    RouterAuthority,
    /// The router's is not valid at this time.
    #[error(
        "the router's certificate has expired, or is not valid yet by this machine's clock ({0}); its organisation has to issue another one; use the other routers until then"
    )]
    RouterExpired(String),
    /// The router's cannot be used for another reason.
    #[error("the router's certificate cannot be used ({0}); its organisation has to issue another one")]
    RouterUnusable(String),
}

impl CertificateFault {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => "certificate_unknown_authority",
            Self::Expired => "certificate_expired",
            Self::Revoked => "certificate_revoked",
            Self::Refused(_) => "access_denied",
            Self::OtherRouter(_) => "router_certificate_other",
            Self::RouterAuthority => "router_certificate_unknown_authority",
            Self::RouterExpired(_) => "router_certificate_expired",
            Self::RouterUnusable(_) => "router_certificate_unusable",
        }
    }

    /// What was wrong with a certificate, if it was one that ended this call.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        verdict(status).map(Self::of_router).or_else(|| Self::of_alert(status))
    }

    fn of_router(verdict: &CertificateError) -> Self {
        match verdict {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherRouter(verdict.to_string())
            }
            // The latter where an authority has the name of one that the profile has.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::RouterAuthority,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::RouterExpired(verdict.to_string()),
            other => Self::RouterUnusable(other.to_string()),
        }
    }

    /// In TLS 1.3 the router's alert comes after the handshake, through HTTP/2, which keeps of it no more than its text.
    fn of_alert(status: &Status) -> Option<Self> {
        let cause = cause_of(status);
        let alerts = [
            (Alert::UnknownCA, Self::UnknownAuthority),
            (Alert::CertificateExpired, Self::Expired),
            (Alert::CertificateRevoked, Self::Revoked),
        ];
        let others = [
            Alert::BadCertificate,
            Alert::UnsupportedCertificate,
            Alert::CertificateUnknown,
            Alert::CertificateRequired,
            Alert::AccessDenied,
            Alert::DecryptError,
        ];
        let mut all = alerts.into_iter().chain(others.map(|alert| (alert, Self::Refused(cause.clone()))));
        all.find(|(alert, _)| cause == rustls::Error::AlertReceived(*alert).to_string()).map(|(_, is)| is)
    }
}

/// What rustls has found wrong here with the router's certificate. It stands inside of an IO error, which is not a source
/// of anything.
fn verdict(status: &Status) -> Option<&CertificateError> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inside.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(verdict)) = tls {
            return Some(verdict);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A call that ended with this, as the transport reports it.
    fn ended(error: rustls::Error) -> Status {
        Status::from_error(Box::new(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn each_certificate_has_its_code() {
        let router = |verdict| ended(rustls::Error::InvalidCertificate(verdict));
        let alert = |alert| ended(rustls::Error::AlertReceived(alert));
        for (status, code) in [
            (alert(Alert::UnknownCA), Some("certificate_unknown_authority")),
            (alert(Alert::CertificateExpired), Some("certificate_expired")),
            (alert(Alert::CertificateRevoked), Some("certificate_revoked")),
            (alert(Alert::CertificateRequired), Some("access_denied")),
            (alert(Alert::BadCertificate), Some("access_denied")),
            (alert(Alert::HandshakeFailure), None),
            (router(CertificateError::NotValidForName), Some("router_certificate_other")),
            (router(CertificateError::UnknownIssuer), Some("router_certificate_unknown_authority")),
            (router(CertificateError::BadSignature), Some("router_certificate_unknown_authority")),
            (router(CertificateError::Expired), Some("router_certificate_expired")),
            (router(CertificateError::NotValidYet), Some("router_certificate_expired")),
            (router(CertificateError::BadEncoding), Some("router_certificate_unusable")),
            (Status::unavailable("nobody listens"), None),
            (Status::permission_denied("access_denied: no"), None),
        ] {
            assert_eq!(CertificateFault::of(&status).map(|fault| fault.code()), code, "{status:?}");
        }
    }
}

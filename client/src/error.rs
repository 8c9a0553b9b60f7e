//! What can go wrong for a caller of the SDK: a stable code, a cause, and what to do about it.

use bytes::Bytes;
use ledger::{GroupId, Reject, TxId};
use proto::{EdgeError, v1};

use crate::admins::AdminsError;
use crate::certificates::CertificateFault;
use crate::evidence::EvidenceFileError;
use crate::exclusion::ExclusionFileError;
use crate::keystore::KeystoreError;
use crate::net::NetError;
use crate::profile::ProfileError;
use crate::proof::ProofError;
use crate::sdk::Settled;

/// An error of the SDK.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A key cannot be used.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// Certificates or addresses cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// No router answered in time.
    #[error(
        "no router answered: {last}; check with 'seamark status' that the cluster runs and that the profile is current"
    )]
    Unreachable {
        /// What the last one tried said.
        last: String,
    },
    /// A router lets us not in.
    #[error("the router refused the call: {0}; use a certificate issued for this cluster and role")]
    Denied(String),
    /// A certificate was not taken: ours by the router, or the router's by us.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    /// The router is of another cluster.
    #[error("the router at {addr} serves another cluster; use the profile of this cluster")]
    OtherCluster {
        /// Its address.
        addr: String,
    },
    /// The cluster refused and wrote no receipt. After `timeout` the transaction may still execute.
    #[error("{code}: {detail}")]
    Refused {
        /// The reason, if this version knows it.
        reject: Option<Reject>,
        /// The group that refused; `None` when it was the router, or nobody answered.
        group: Option<GroupId>,
        /// Stable code.
        code: String,
        /// Cause, and what happened in this case.
        detail: String,
    },
    /// The transaction was rejected, and nothing changed. That is final: the same bytes are rejected
    /// again, whatever happens.
    #[error("{group} rejected the transaction: {reject}")]
    Rejected {
        /// The group that said no.
        group: GroupId,
        /// Why.
        reject: Reject,
        /// The receipt or the votes that say so.
        settled: Box<Settled>,
    },
    /// A transaction that was signed here has no fate yet. The same bytes have one fate however often
    /// they are sent; signed anew, it could execute twice.
    #[error("{cause} (transaction {txid}; send the same bytes again, do not sign it anew)")]
    Unsettled {
        /// Its id.
        txid: TxId,
        /// The signed bytes, to be sent again with [`crate::Client::submit`].
        tx: Bytes,
        /// What went wrong.
        cause: Box<ClientError>,
    },
    /// The transaction is final, and that its credits have been applied was not confirmed in time.
    #[error(
        "transaction {} is final, but its credits were not confirmed in time; do not sign it anew, ask for it again later",
        settled.txid()
    )]
    Unapplied {
        /// The receipt or the votes that say so.
        settled: Box<Settled>,
    },
    /// The bytes are no transaction of this cluster; nothing was sent.
    #[error("the transaction was not sent: {0}")]
    BadTransaction(Reject),
    /// An answer that no correct router gives.
    #[error("the router's answer makes no sense: {0}; report it with both versions")]
    Protocol(String),
    /// An answer whose proof does not hold.
    #[error("the answer is not proved: {0}; do not rely on it")]
    Proof(#[from] ProofError),
    /// An exclusion receipt that does not hold.
    #[error("the exclusion receipt does not hold: {0}; do not rely on it")]
    Exclusion(#[from] ExclusionFileError),
    /// Evidence that does not hold.
    #[error("the evidence does not hold: {0}; do not rely on it")]
    Evidence(#[from] EvidenceFileError),
    /// The admins' keys that a router shows are not proved, or not as of now. Nothing is to be sealed for them.
    #[error("the admins' keys are not proved, and nothing is sealed for them: {0}")]
    Admins(#[from] AdminsError),
    /// The stream was closed.
    #[error("the submit stream is closed; open another one")]
    Closed,
    /// No randomness for a salt.
    #[error("the system gives no randomness: {0}; check the machine")]
    Randomness(String),
}

impl ClientError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Profile(error) => error.code(),
            Self::Keystore(error) => error.code(),
            Self::Net(error) => error.code(),
            Self::Unreachable { .. } => "unreachable",
            Self::Denied(_) => "access_denied",
            Self::Certificate(fault) => fault.code(),
            Self::OtherCluster { .. } => "other_cluster",
            Self::Refused { code, .. } => code,
            Self::Unsettled { cause, .. } => cause.code(),
            Self::Unapplied { .. } => "not_applied",
            Self::Rejected { reject, .. } | Self::BadTransaction(reject) => reject.code(),
            Self::Protocol(_) => "protocol",
            Self::Proof(error) => error.code(),
            Self::Exclusion(error) => error.code(),
            Self::Evidence(error) => error.code(),
            Self::Admins(error) => error.code(),
            Self::Closed => "closed",
            Self::Randomness(_) => "randomness",
        }
    }

    /// Whether the same call may succeed later. Of [`ClientError::Unsettled`] it is the sending of
    /// the same bytes that may; the call that failed would sign others.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Unsettled { cause, .. } => cause.retryable(),
            Self::Refused { reject, .. } => reject.is_some_and(Reject::retryable),
            _ => false,
        }
    }

    /// Whether the fate of a transaction is known from this error: it has its receipt, or its bytes
    /// can never execute. After any other error they may, now or when somebody sends them again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Rejected { .. } | Self::Unapplied { .. } | Self::BadTransaction(_) => true,
            Self::Refused { reject: Some(reject), .. } => matches!(
                reject,
                Reject::Malformed
                    | Reject::BodyTooLarge
                    | Reject::MemoTooLarge
                    | Reject::MemoAcrossLedgers
                    | Reject::MoveCount
                    | Reject::WrongCluster
                    | Reject::Expired
                    | Reject::BadSignature
                    | Reject::ZeroAmount
                    | Reject::AssetForm
                    | Reject::AuthForm
            ),
            _ => false,
        }
    }

    /// The error of a refusal.
    #[must_use]
    pub fn refused(refusal: &v1::Refusal) -> Self {
        let reject = refusal.reject();
        let cause = reject.map_or(String::new(), |reject| format!("{}; {}", reject.cause(), reject.fix()));
        let detail = match (cause.is_empty(), refusal.detail.is_empty()) {
            (false, false) => format!("{cause} ({})", refusal.detail),
            (false, true) => cause,
            (true, _) => refusal.detail.clone(),
        };
        Self::Refused { reject, group: None, code: refusal.code.clone(), detail }
    }

    /// Adds which group refused, if one did.
    #[must_use]
    pub(crate) fn by(mut self, by: Option<GroupId>) -> Self {
        if let Self::Refused { group, .. } = &mut self {
            *group = by;
        }
        self
    }
}

impl From<EdgeError> for ClientError {
    fn from(error: EdgeError) -> Self {
        Self::Protocol(error.to_string())
    }
}

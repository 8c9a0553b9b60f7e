//! Hand-overs: how a later committee of a group follows from an earlier one. Each step is the last header that a
//! committee certifies, which names the next one. Pure; whoever trusts one committee finds here which one to trust next.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::certificate::{Certificate, CertificateError};
use crate::committee::Committee;
use crate::hash::Hash32;
use crate::ids::{ClusterId, GroupId, Height};

/// A step from one committee of a group to the next.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Handover {
    /// The committee that signed `certificate`.
    pub committee: Committee,
    /// Its last header, which names the next committee.
    pub certificate: Certificate,
}

/// Why steps lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// Another cluster or group.
    #[error("a step is of another chain")]
    OtherChain,
    /// The committee is not the one that the step before names, or is none.
    #[error("a step is signed by a committee that nobody named")]
    Unnamed,
    /// Heights do not rise.
    #[error("the steps are out of order")]
    Order,
    /// A certificate does not hold.
    #[error("the certificate of a step does not hold: {0}")]
    Certificate(#[from] CertificateError),
}

/// Where steps lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Hash of the committee that is trusted behind them.
    pub committee: Hash32,
    /// The last block of the one before it; none without a step.
    pub after: Option<Height>,
}

/// Follows steps of a group from a committee that the caller trusts, by its hash.
///
/// # Errors
/// [`HandoverError`] names the first thing that does not hold.
pub fn follow(
    cluster: &ClusterId,
    group: GroupId,
    first: Hash32,
    steps: &[Handover],
) -> Result<Followed, HandoverError> {
    let mut followed = Followed { committee: first, after: None };
    for step in steps {
        let header = &step.certificate.header;
        if header.cluster != *cluster || header.group != group {
            return Err(HandoverError::OtherChain);
        }
        if step.committee.hash() != followed.committee || !step.committee.well_formed() {
            return Err(HandoverError::Unnamed);
        }
        if followed.after.is_some_and(|height| header.height <= height) {
            return Err(HandoverError::Order);
        }
        step.certificate.verify(&step.committee)?;
        followed = Followed { committee: header.next_committee_hash, after: Some(header.height) };
    }
    Ok(followed)
}

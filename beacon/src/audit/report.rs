//! The report: what the beacon says of the audit, with the proofs that it keeps, as a file.
//!
//! What a group or a replica has signed the file proves by itself, to anybody who has the genesis. How far groups are
//! audited and what their flows came to is the word of the beacon that was asked.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId};
use ledger::view::View;

use crate::audit::evidence::{self, Kept};
use crate::audit::status::AuditStatus;
use crate::audit::{AUDIT_VERSION, proof_id};
use crate::limits::AUDIT_REPORT_BYTES_MAX;

/// First bytes of such a file.
pub const REPORT_MAGIC: &[u8; 8] = b"SEAMAUDT";

/// What the beacon says, and the proofs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditReport {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The beacon's word.
    pub status: AuditStatus,
    /// Proofs, by group; the first of them, as many as a report takes.
    pub proofs: Vec<Kept>,
}

/// Why a report cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not such a file.
    #[error("this is no audit report: {0}; write it again with 'seamark audit report'")]
    Malformed(String),
    /// Of another cluster than the genesis.
    #[error("the report is of cluster {found}, the genesis is of {expected}; use the genesis of its cluster")]
    OtherCluster {
        /// That of the report.
        found: ClusterId,
        /// That of the genesis.
        expected: ClusterId,
    },
    /// A proof that does not hold.
    #[error("proof {0} in the report does not hold: somebody has changed the file, or made it up")]
    Proof(Hash32),
}

impl ReportError {
    /// The stable code that programs match on.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "audit_report_malformed",
            Self::OtherCluster { .. } => "audit_report_other_cluster",
            Self::Proof(_) => "audit_report_proof",
        }
    }
}

/// What one proof in a report has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Name of the proof.
    pub id: Hash32,
    /// What kind of proof.
    pub kind: &'static str,
    /// The group that it is about.
    pub group: GroupId,
    /// The committee that certified stands in the genesis. Otherwise it holds for the committee that the report names, and
    /// whose committee that is has to be proved with a file of 'seamark block --prove'.
    pub of_genesis: bool,
}

impl AuditReport {
    /// Reads it from the beacon's state.
    pub fn read(view: &mut View<'_>, cluster: ClusterId) -> Self {
        let mut report = Self { version: AUDIT_VERSION, cluster, status: AuditStatus::read(view), proofs: Vec::new() };
        let size = |kept: &Kept| borsh::object_length(kept).unwrap_or(AUDIT_REPORT_BYTES_MAX);
        let mut room = AUDIT_REPORT_BYTES_MAX / 2;
        for kept in evidence::kept(view) {
            let Some(left) = room.checked_sub(size(&kept)) else { continue };
            room = left;
            report.proofs.push(kept);
        }
        report
    }

    /// The bytes of a file: magic, then the encoding.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let mut bytes = REPORT_MAGIC.to_vec();
        bytes.extend(borsh::to_vec(self).expect("writing to memory does not fail"));
        bytes
    }

    /// Reads the bytes of a file. Says nothing about whether its proofs hold.
    ///
    /// # Errors
    /// `audit_report_malformed`.
    pub fn from_file(bytes: &[u8]) -> Result<Self, ReportError> {
        let malformed = |cause: &str| ReportError::Malformed(cause.to_owned());
        if bytes.len() > AUDIT_REPORT_BYTES_MAX + REPORT_MAGIC.len() {
            return Err(malformed("it is too large"));
        }
        let body = bytes.strip_prefix(REPORT_MAGIC).ok_or_else(|| malformed("it does not start as one"))?;
        let report: Self = borsh::from_slice(body).map_err(|error| ReportError::Malformed(error.to_string()))?;
        if report.version == AUDIT_VERSION { Ok(report) } else { Err(malformed("unknown version")) }
    }

    /// Judges the proofs by a genesis that the caller trusts.
    ///
    /// # Errors
    /// [`ReportError`] names the first thing that does not hold.
    pub fn verify(&self, genesis: &Genesis) -> Result<Vec<Shown>, ReportError> {
        let expected = genesis.cluster_id();
        if self.cluster != expected {
            return Err(ReportError::OtherCluster { found: self.cluster, expected });
        }
        self.proofs.iter().map(|kept| shown(kept, genesis, &expected)).collect()
    }
}

fn shown(kept: &Kept, genesis: &Genesis, cluster: &ClusterId) -> Result<Shown, ReportError> {
    let (id, group) = (proof_id(&kept.proof), kept.proof.certified().group);
    let known: Option<&Committee> = genesis.committee(group);
    // Members of a made-up committee would be anybody.
    let usable = kept.committee.well_formed() && kept.committee.group == group;
    if !usable || !kept.proof.holds(cluster, &kept.committee) {
        return Err(ReportError::Proof(id));
    }
    Ok(Shown { id, kind: kept.proof.name(), group, of_genesis: known == Some(&kept.committee) })
}

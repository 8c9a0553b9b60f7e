//! The admin key of every organisation, proved: what is for an organisation alone is sealed for that key, so a router that
//! shows another one would read it.
//!
//! Owns the form of that proof, the one function that judges it, and the rule how old it may be. The keys stand in the
//! registry, whose hash is a leaf of the beacon's state ([`RegistryHead`]); so the registry comes whole, with the path to that
//! leaf and a header of the beacon that is certified. Whose certificate counts is for [`crate::descent`]. Pure: it trusts the
//! genesis and the time that the caller gives, and never a router. What is sealed for the keys is for [`crate::opening`].
//!
//! What is proved is what the beacon held at the block of that header. A router, or a member of the beacon that leads, can keep
//! showing an old block, and with it a key that has been replaced since: [`ProvedAdmins::check_age`] bounds for how long.

use std::collections::BTreeMap;

use beacon::registry::head_key;
use beacon::{ClusterView, RegistryHead};
use borsh::{BorshDeserialize, BorshSerialize};
use ledger::genesis::Genesis;
use ledger::tree::{self, BitPrefix, TreeProof, value_hash};
use ledger::{Certificate, ClusterId, Committee, GroupId, Height, OrgId, PublicKey, TimeMs, schema};

use crate::descent::{Descent, Handover};
use crate::limits::{ADMINS_AGE_MS_MAX, ADMINS_AHEAD_MS_MAX};
use crate::proof::ProofError;

/// Version written into new proofs.
pub const ADMINS_FORMAT: u8 = 1;

/// The registry as the beacon holds it, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AdminsProof {
    /// Format version, [`ADMINS_FORMAT`].
    pub version: u8,
    /// The encoded [`ClusterView`]; `None` claims that the registry is still that of the genesis.
    pub registry: Option<Vec<u8>>,
    /// The path in the beacon's state tree to the [`RegistryHead`], or to where it would be.
    pub path: TreeProof,
    /// A header of the beacon, certified.
    pub certificate: Certificate,
    /// The beacon's committee that certified it.
    pub committee: Committee,
    /// From the beacon's first committee to the last one before `committee`.
    pub handovers: Vec<Handover>,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedAdmins {
    /// The admin key of every organisation of the cluster. A key that was revoked is in force nowhere.
    pub keys: BTreeMap<OrgId, PublicKey>,
    /// The beacon's block that proves it.
    pub height: Height,
    /// Time of that block.
    pub time_ms: TimeMs,
}

/// Why no admin key is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminsError {
    /// The bytes are no proof of this version, or hold no registry.
    #[error("it does not decode: {0}; ask over another router, or use a newer program")]
    Malformed(String),
    /// Header or registry are of another cluster.
    #[error("it is of cluster {found}, the genesis is of {expected}; ask over a router of this cluster")]
    OtherCluster {
        /// The proof's.
        found: ClusterId,
        /// That of the genesis.
        expected: ClusterId,
    },
    /// Whoever signed the header is not the beacon's committee, or not enough of it.
    #[error("who signed it does not follow from the genesis: {0}; ask over another router")]
    Committee(ProofError),
    /// The beacon's certified state holds another registry.
    #[error(
        "the beacon's certified state does not hold it: {0}; ask over another router, this one shows keys that are none"
    )]
    NotInState(#[from] tree::ProofError),
    /// The header is too old: a key may have been replaced since.
    #[error(
        "the beacon's block that proves it is {0} s older than this machine's clock; set the clock if it is ahead, else ask over \
         another router, and see with 'seamark status' whether the beacon has a quorum"
    )]
    Stale(u64),
    /// The header is of a time to come.
    #[error(
        "the beacon's block that proves it is {0} s ahead of this machine's clock, so its age is not known; set the clock"
    )]
    Ahead(u64),
    /// An earlier block than the client has been shown already.
    #[error("it stands at the beacon's block {shown}, and block {seen} was shown before; ask over another router")]
    Older {
        /// The proof's block.
        shown: Height,
        /// The latest one that was proved to this client.
        seen: Height,
    },
}

impl AdminsError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "admins_malformed",
            Self::OtherCluster { .. } => "admins_other_cluster",
            Self::Committee(_) => "admins_committee",
            Self::NotInState(_) => "admins_not_in_state",
            Self::Stale(_) => "admins_stale",
            Self::Ahead(_) => "admins_ahead",
            Self::Older { .. } => "admins_older",
        }
    }
}

/// Judges a proof by a genesis that the caller trusts. How old it may be is for [`ProvedAdmins::check_age`].
///
/// # Errors
/// [`AdminsError`] names the first thing that does not hold.
pub fn verify(proof: &AdminsProof, genesis: &Genesis) -> Result<ProvedAdmins, AdminsError> {
    let AdminsProof { version, registry, path, certificate, committee, handovers } = proof;
    if *version != ADMINS_FORMAT {
        return Err(AdminsError::Malformed("unknown version".to_owned()));
    }
    let (expected, header) = (genesis.cluster_id(), &certificate.header);
    if header.cluster != expected {
        return Err(AdminsError::OtherCluster { found: header.cluster, expected });
    }
    if header.group != GroupId::BEACON {
        return Err(AdminsError::Committee(ProofError::Committee("it is not that of the beacon")));
    }
    let descent = Descent { committee, handovers, founded: None, born: None };
    descent.check(header, genesis).map_err(AdminsError::Committee)?;
    certificate.verify(committee).map_err(|error| AdminsError::Committee(error.into()))?;
    let registry = match registry {
        Some(bytes) => held(bytes, path, certificate, expected)?,
        None => {
            // The first change writes the head, and nothing removes it.
            path.verify_exclusion(&header.state_root.0, &BitPrefix::ROOT, &position())?;
            ClusterView::from_genesis(genesis)
        }
    };
    let keys = registry.orgs.iter().map(|org| (org.id, org.admin_key)).collect();
    Ok(ProvedAdmins { keys, height: header.height, time_ms: header.time_ms })
}

/// The registry, if the certified state holds the hash of it.
fn held(
    bytes: &[u8],
    path: &TreeProof,
    certificate: &Certificate,
    expected: ClusterId,
) -> Result<ClusterView, AdminsError> {
    let registry: ClusterView = borsh::from_slice(bytes).map_err(|error| AdminsError::Malformed(error.to_string()))?;
    if registry.cluster != expected {
        return Err(AdminsError::OtherCluster { found: registry.cluster, expected });
    }
    let head = RegistryHead::of(registry.revision, bytes);
    let leaf = borsh::to_vec(&head).expect("writing to memory does not fail");
    let root = &certificate.header.state_root.0;
    path.verify_inclusion(root, &BitPrefix::ROOT, &position(), &value_hash(&leaf))?;
    // What is certified and not as this program knows it is of a later one.
    match registry.well_formed() {
        true => Ok(registry),
        false => Err(AdminsError::Malformed("the registry is of an unknown form".to_owned())),
    }
}

/// Where the head of the registry stands in the beacon's state tree.
fn position() -> tree::Position {
    schema::tree_position(&head_key()).expect("the head is a leaf of the state tree")
}

impl ProvedAdmins {
    /// Whether it is of about now: not of an earlier block than `seen`, the latest that was proved before it was asked for,
    /// and not too old by `now`, this machine's clock. The time of a header is that of the beacon's clocks, which its
    /// committee has signed.
    ///
    /// # Errors
    /// [`AdminsError::Older`], [`AdminsError::Stale`], [`AdminsError::Ahead`].
    pub fn check_age(&self, now: TimeMs, seen: Height) -> Result<(), AdminsError> {
        if self.height < seen {
            return Err(AdminsError::Older { shown: self.height, seen });
        }
        let (age_ms, ahead_ms) = (now.0.saturating_sub(self.time_ms.0), self.time_ms.0.saturating_sub(now.0));
        if age_ms > ADMINS_AGE_MS_MAX {
            return Err(AdminsError::Stale(age_ms / 1000));
        }
        if ahead_ms > ADMINS_AHEAD_MS_MAX {
            return Err(AdminsError::Ahead(ahead_ms / 1000));
        }
        Ok(())
    }
}

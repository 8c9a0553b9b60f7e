//! Proofs against replicas and groups: two headers for one height.
//!
//! A signature of a replica is over the hash of a header alone. So what proves that a replica has another header is that
//! header itself with its signature, beside the one that the committee certified; a hash without its header proves nothing,
//! not even its height. A committee that certified two headers at one height has proved itself unsound, whoever of it lied:
//! its group goes into quarantine. Evidence counts against those who are in force: what a committee of long ago signs, whose
//! keys nobody guards any more, stops nobody.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::crypto::{self, SecretKey, Signature};
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{ClusterId, GroupId, Height, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::audit::quarantine::{self, DivergentMark, Quarantine};
use crate::audit::{AUDIT_VERSION, Trail, proof_id};
use crate::limits::AUDIT_PROOFS_MAX;
use crate::registry;
use crate::seats;

/// A replica has signed another header than its committee has certified.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Divergent {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// What the replica has.
    pub header: Header,
    /// Its node.
    pub node: NodeId,
    /// By the key of the node, over the hash of `header`.
    pub signature: Signature,
    /// What the committee has, at the same height and in the same incarnation.
    pub certificate: Certificate,
}

impl Divergent {
    /// Signs what a replica has to say of itself.
    #[must_use]
    pub fn sign(header: Header, node: NodeId, key: &SecretKey, certificate: Certificate) -> Self {
        let signature = key.sign(&header.hash());
        Self { version: AUDIT_VERSION, header, node, signature, certificate }
    }

    /// Whether it proves what it says, by the committee that certified.
    #[must_use]
    pub fn holds(&self, cluster: &ClusterId, committee: &Committee) -> bool {
        let certified = &self.certificate.header;
        let key = committee.index_of(self.node).map(|index| committee.members[index].key);
        self.version == AUDIT_VERSION
            && of_one_height(&self.header, certified, cluster)
            && key.is_some_and(|key| crypto::verify(&key, &self.header.hash(), &self.signature).is_ok())
            && self.certificate.verify(committee).is_ok()
    }
}

/// A committee has certified two headers at one height.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Twice {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// One of them.
    pub first: Certificate,
    /// The other one.
    pub second: Certificate,
}

impl Twice {
    /// Puts two certificates together.
    #[must_use]
    pub const fn of(first: Certificate, second: Certificate) -> Self {
        Self { version: AUDIT_VERSION, first, second }
    }

    /// Whether it proves what it says, by the committee that certified both.
    #[must_use]
    pub fn holds(&self, cluster: &ClusterId, committee: &Committee) -> bool {
        self.version == AUDIT_VERSION
            && of_one_height(&self.first.header, &self.second.header, cluster)
            && self.first.verify(committee).is_ok()
            && self.second.verify(committee).is_ok()
    }
}

/// Whether these are two different headers of one group at one height.
fn of_one_height(one: &Header, other: &Header, cluster: &ClusterId) -> bool {
    let place = |header: &Header| (header.version, header.cluster, header.group, header.incarnation, header.height);
    place(one) == (HEADER_VERSION, *cluster, other.group, other.incarnation, other.height)
        && place(one) == place(other)
        && one.hash() != other.hash()
}

/// What is kept of what was proved. Each can be judged by itself, with the committee that certified.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Proof {
    /// Two certified headers at one height.
    Twice(Twice) = 0,
    /// A certified header, and a certified chain with another one at its height.
    Fork {
        /// The header.
        certificate: Certificate,
        /// The chain.
        trail: Trail,
    } = 1,
    /// A certified chain with a block whose value flow does not balance, or does not open with what was there before.
    Unbalanced(Trail) = 2,
    /// A replica that has another header than was certified.
    Divergent(Divergent) = 3,
}

impl Proof {
    /// Its name for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Twice(_) => "certified_twice",
            Self::Fork { .. } => "fork",
            Self::Unbalanced(_) => "unbalanced",
            Self::Divergent(_) => "divergent",
        }
    }

    /// The header at its end, whose committee certified it all.
    #[must_use]
    pub const fn certified(&self) -> &Header {
        match self {
            Self::Twice(twice) => &twice.first.header,
            Self::Fork { certificate, .. } => &certificate.header,
            Self::Unbalanced(trail) => &trail.certificate.header,
            Self::Divergent(divergent) => &divergent.certificate.header,
        }
    }

    /// Whether it proves what it says, by the committee that certified. Of value that a block made up by opening with another
    /// total than the last one closed with, which may be long ago, the chain shows only that it was certified.
    #[must_use]
    pub fn holds(&self, cluster: &ClusterId, committee: &Committee) -> bool {
        match self {
            Self::Twice(twice) => twice.holds(cluster, committee),
            Self::Divergent(divergent) => divergent.holds(cluster, committee),
            Self::Fork { certificate, trail } => {
                trail.links(cluster)
                    && trail.all().any(|header| of_one_height(header, &certificate.header, cluster))
                    && certificate.verify(committee).is_ok()
                    && trail.certificate.verify(committee).is_ok()
            }
            Self::Unbalanced(trail) => trail.links(cluster) && trail.certificate.verify(committee).is_ok(),
        }
    }
}

/// A proof in the beacon's state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Kept {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// What was proved.
    pub proof: Proof,
    /// The committee that certified.
    pub committee: Committee,
    /// The beacon's block that took it.
    pub taken: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

const KEPT: &[u8] = b"audit-proof/";

fn kept_prefix(group: GroupId) -> Vec<u8> {
    registry::key(KEPT, &[&group.0.to_be_bytes()])
}

/// All proofs that are kept, by group.
pub fn kept(view: &mut View<'_>) -> Vec<Kept> {
    registry::family(view, &registry::key(KEPT, &[])).into_iter().map(|(_, kept)| kept).collect()
}

/// Keeps a proof, with the committee that certified; the first ones of a group say enough.
fn keep(view: &mut View<'_>, at: &BlockContext, group: GroupId, proof: &Proof) {
    let key = registry::key(KEPT, &[&group.0.to_be_bytes(), &proof_id(proof).0]);
    let known = view.scan_prefix(&kept_prefix(group));
    if known.len() >= AUDIT_PROOFS_MAX || known.iter().any(|(found, _)| *found == key) {
        return;
    }
    let Some(committee) = registry::committee_by_hash(view, group, &proof.certified().committee_hash) else { return };
    let (taken, time_ms) = (at.height, at.time_ms);
    registry::put(view, key, &Kept { version: AUDIT_VERSION, proof: proof.clone(), committee, taken, time_ms });
}

/// Puts a group into quarantine for a proof that was judged, unless it is in there, or what the proof is about was
/// looked into when it was released.
pub(crate) fn against_group(view: &mut View<'_>, at: &BlockContext, group: GroupId, height: Height, proof: &Proof) {
    let known = quarantine::of_group(view, group);
    if known.is_some_and(|known| known.covers(height)) {
        return;
    }
    keep(view, at, group, proof);
    let mark = Quarantine {
        version: AUDIT_VERSION,
        group,
        height,
        proof: proof_id(proof),
        taken: at.height,
        time_ms: at.time_ms,
        released: None,
    };
    registry::put(view, quarantine::group_key(group), &mark);
    registry::bump_revision(view);
}

/// The committee in force that certified a header.
fn in_force(view: &mut View<'_>, at: &BlockContext, header: &Header) -> Result<Committee, Reject> {
    if header.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    let committee = registry::committee(view, header.group).ok_or(Reject::CommitteeUnknown)?;
    if committee.hash() == header.committee_hash { Ok(committee) } else { Err(Reject::CommitteeUnknown) }
}

/// Takes two certificates that exclude each other.
///
/// # Errors
/// [`Reject::AuditForm`] when it proves nothing, [`Reject::WrongCluster`], and [`Reject::CommitteeUnknown`] when who
/// certified is not in force. The view is then unchanged.
pub(crate) fn apply_twice(view: &mut View<'_>, at: &BlockContext, twice: &Twice) -> Result<(), Reject> {
    let header = &twice.first.header;
    let committee = in_force(view, at, header)?;
    if !twice.holds(&at.cluster, &committee) {
        return Err(Reject::AuditForm);
    }
    against_group(view, at, header.group, header.height, &Proof::Twice(twice.clone()));
    Ok(())
}

/// Takes the proof that a replica diverges. Its node takes no seat from then on, and those that it has go to others, until
/// it is released. Returns what is to be mailed.
///
/// # Errors
/// As [`apply_twice`].
pub(crate) fn apply_divergent(
    view: &mut View<'_>,
    at: &BlockContext,
    divergent: &Divergent,
) -> Result<Vec<(GroupId, Message)>, Reject> {
    let header = &divergent.certificate.header;
    let committee = in_force(view, at, header)?;
    if !divergent.holds(&at.cluster, &committee) {
        return Err(Reject::AuditForm);
    }
    let (group, node) = (header.group, divergent.node);
    let known = quarantine::of_node(view, node, group);
    if known.is_some_and(|known| known.covers(header.height)) {
        return Ok(Vec::new());
    }
    let proof = Proof::Divergent(divergent.clone());
    keep(view, at, group, &proof);
    let mark = DivergentMark {
        version: AUDIT_VERSION,
        node,
        group,
        height: header.height,
        proof: proof_id(&proof),
        taken: at.height,
        time_ms: at.time_ms,
        released: None,
    };
    registry::put(view, quarantine::node_key(node, group), &mark);
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    Ok(mail)
}

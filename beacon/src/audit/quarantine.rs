//! Who is in quarantine: groups that have certified what excludes each other, and nodes of replicas that diverge.
//!
//! A mark stands until more than half of the organisations have released it, after somebody has looked into it. What is
//! released says up to which block it was looked into, so that old evidence does not put it there again.
//!
//! | | nothing is held | held | released up to h |
//! |---|---|---|---|
//! | evidence at or below h | - | stays | stays released |
//! | evidence above h, or any | held | stays | held |
//! | release by too few | refused | stays held | refused |
//! | release by enough | refused | released | refused |

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::audit;
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::majority::{self, Verdict};
use crate::policies::Matter;
use crate::registry;
use crate::seats;

/// A group in quarantine, or that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Quarantine {
    /// Format version, [`audit::AUDIT_VERSION`].
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// The block of its chain that was certified twice, or does not balance.
    pub height: Height,
    /// Name of the proof ([`audit::proof_id`]).
    pub proof: Hash32,
    /// The beacon's block that took it.
    pub taken: Height,
    /// Its time.
    pub time_ms: TimeMs,
    /// Released: what is said of blocks up to here counts no more.
    pub released: Option<Height>,
}

/// A node that had a replica which diverges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DivergentMark {
    /// Format version, [`audit::AUDIT_VERSION`].
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// The group of the replica.
    pub group: GroupId,
    /// The block of which it has another header.
    pub height: Height,
    /// Name of the proof ([`audit::proof_id`]).
    pub proof: Hash32,
    /// The beacon's block that took it.
    pub taken: Height,
    /// Its time.
    pub time_ms: TimeMs,
    /// Released: what is said of blocks up to here counts no more.
    pub released: Option<Height>,
}

impl Quarantine {
    /// Whether it is in force.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.released.is_none()
    }

    /// Whether evidence about this block changes nothing.
    pub(crate) fn covers(&self, height: Height) -> bool {
        self.released.is_none_or(|upto| height <= upto)
    }
}

impl DivergentMark {
    /// Whether it is in force.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.released.is_none()
    }

    /// Whether evidence about this block changes nothing.
    pub(crate) fn covers(&self, height: Height) -> bool {
        self.released.is_none_or(|upto| height <= upto)
    }
}

/// What is to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Held {
    /// The group, or that of the replica.
    pub group: GroupId,
    /// The node of a replica that diverges; the group itself without one.
    pub node: Option<NodeId>,
}

const QUARANTINE: &[u8] = b"quarantine/";
const DIVERGENT: &[u8] = b"divergent/";
const RELEASE: &[u8] = b"release/";

/// Key of a [`Quarantine`].
#[must_use]
pub fn group_key(group: GroupId) -> Vec<u8> {
    registry::key(QUARANTINE, &[&group.0.to_be_bytes()])
}

/// Key of a [`DivergentMark`].
#[must_use]
pub fn node_key(node: NodeId, group: GroupId) -> Vec<u8> {
    registry::key(DIVERGENT, &[&node.0.to_be_bytes(), &group.0.to_be_bytes()])
}

/// All groups that are or were in quarantine, ascending.
pub fn quarantines(view: &mut View<'_>) -> Vec<Quarantine> {
    registry::family(view, &registry::key(QUARANTINE, &[])).into_iter().map(|(_, mark)| mark).collect()
}

/// All replicas that diverge or did, by node.
pub fn divergent(view: &mut View<'_>) -> Vec<DivergentMark> {
    registry::family(view, &registry::key(DIVERGENT, &[])).into_iter().map(|(_, mark)| mark).collect()
}

/// What is or was held against a group.
pub fn of_group(view: &mut View<'_>, group: GroupId) -> Option<Quarantine> {
    view.load(&group_key(group))
}

/// What is or was held against a node for its replica of a group.
pub fn of_node(view: &mut View<'_>, node: NodeId, group: GroupId) -> Option<DivergentMark> {
    view.load(&node_key(node, group))
}

/// Takes an organisation's approval of a release; the one with which the policy holds releases.
///
/// # Errors
/// [`Reject::NotQuarantined`], [`Reject::Busy`] when too many proposals wait, and [`Reject::PeerBusy`] while a group does
/// not take its mail. The view is then unchanged.
pub(crate) fn release(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    held: Held,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    let since = match held.node {
        Some(node) => of_node(view, node, held.group).filter(DivergentMark::holds).map(|mark| mark.height),
        None => of_group(view, held.group).filter(Quarantine::holds).map(|mark| mark.height),
    };
    let since = since.ok_or(Reject::NotQuarantined)?;
    let proposal = (Matter::Quarantine, RELEASE, registry::key(RELEASE, &[&registry::encode(&held)]));
    let decided = match majority::approve(view, at, proposal, (), (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        Verdict::Decided(decided) => decided,
    };
    refuse_full(view)?;
    decided.close(view, |_| false);
    let checkpoint = registry::checkpoint(view, held.group).map(|checkpoint| checkpoint.height);
    let released = Some(checkpoint.unwrap_or_default().max(since));
    let mut mail = Vec::new();
    match held.node {
        Some(node) => {
            if let Some(mark) = of_node(view, node, held.group) {
                registry::put(view, node_key(node, held.group), &DivergentMark { released, ..mark });
            }
            mail = seats::go_on(view);
        }
        None => {
            if let Some(mark) = of_group(view, held.group) {
                registry::put(view, group_key(held.group), &Quarantine { released, ..mark });
            }
            audit::forget(view, held.group);
        }
    }
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

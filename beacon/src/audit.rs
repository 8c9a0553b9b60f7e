//! The audit of all groups: their chains header by header, their value flows, and what is held against replicas and
//! groups.
//!
//! Owns how far each group has been audited, what entered and left it until there, where its streams stood, what was
//! found, and who is in quarantine. Takes nobody's word: a [`Trail`] is judged by the certificate at its end, evidence by
//! the signatures in it. Never repairs anything, and never stops a group: routers refuse new work for one that is in
//! quarantine, and everything else goes on. [`trail`] takes headers, [`rounds`] says when streams are shown with them,
//! [`flows`] adds up and compares, [`evidence`] judges proofs, [`quarantine`] keeps and releases marks, [`status`] shows it
//! all, [`report`] is the file that can be judged offline.

mod border;
pub mod evidence;
pub mod flows;
mod legacy;
mod lines;
pub mod quarantine;
pub mod report;
pub mod rounds;
pub mod status;
pub mod trail;

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::hash::Hash32;
use ledger::ids::{AssetId, GroupId, Height, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::limits::{AUDIT_BYTES_MAX, AUDIT_FINDINGS_MAX};
use crate::registry;

pub use evidence::{Divergent, Proof, Twice};
pub use quarantine::{DivergentMark, Quarantine};
pub use trail::{GroupAudit, Trail};

/// Version written into everything here.
pub const AUDIT_VERSION: u8 = 1;

/// What a member of a group brings before the beacon.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum AuditEntry {
    /// The headers of a group behind its audited one.
    Trail(Trail) = 0,
    /// A replica has signed another header than its committee has certified.
    Divergent(Divergent) = 1,
    /// A committee has certified two headers at one height.
    Twice(Twice) = 2,
}

impl AuditEntry {
    /// Encodes for an entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes what stands in an entry.
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`] or [`Reject::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > AUDIT_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        borsh::from_slice(bytes).map_err(|_| Reject::Malformed)
    }

    /// The group that it is about.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        match self {
            Self::Trail(trail) => trail.certificate.header.group,
            Self::Divergent(divergent) => divergent.certificate.header.group,
            Self::Twice(twice) => twice.first.header.group,
        }
    }

    /// Tells the kinds apart.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Trail(_) => 0,
            Self::Divergent(_) => 1,
            Self::Twice(_) => 2,
        }
    }
}

/// What does not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Flaw {
    /// What entered an asset's total in a block and what left it are not equal, by the block's own header.
    Unbalanced {
        /// The asset.
        asset: AssetId,
    } = 0,
    /// A block opens with another total of an asset than the one before it closed with.
    Discontinuous {
        /// The asset.
        asset: AssetId,
        /// What the last block with this asset closed with.
        closed: u128,
        /// What this one opens with.
        opened: u128,
    } = 1,
    /// The group has taken other mail than the peer has sent: both say how much it is, and not the same what.
    OtherMail {
        /// The peer.
        peer: GroupId,
    } = 2,
    /// All mail was taken, and the group has not given to the peer what the peer has from it. Amounts are counted modulo
    /// 2^128.
    FlowsDiffer {
        /// Who has received.
        peer: GroupId,
        /// The asset.
        asset: AssetId,
        /// What the group says it has given to the peer.
        exported: u128,
        /// What the peer says it has from the group.
        imported: u128,
    } = 3,
    /// What shards began with of an asset, as far as they have shown it, is not what those left that were cut or joined
    /// into them.
    Inherited {
        /// The asset.
        asset: AssetId,
        /// What was left to them, together.
        left: u128,
        /// What they began with, together.
        opened: u128,
    } = 4,
    /// All mail was taken, and shards that came from each other have together not given what all shards have from them.
    /// The finding is of the one of the lowest number. Amounts are counted modulo 2^128.
    LineDiffers {
        /// The asset.
        asset: AssetId,
        /// What they say they have given to shards.
        exported: u128,
        /// What shards say they have from them.
        imported: u128,
    } = 5,
    /// Shards have more of an asset from the channel than all shards have given it: it has returned what it had not, or one
    /// of them has booked what it has not sent. Amounts are counted modulo 2^128.
    ChannelOverdrawn {
        /// The asset.
        asset: AssetId,
        /// What shards say they have given to the channel.
        given: u128,
        /// What shards say they have from it.
        returned: u128,
    } = 6,
}

impl Flaw {
    /// Its name for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unbalanced { .. } => "unbalanced",
            Self::Discontinuous { .. } => "discontinuous",
            Self::OtherMail { .. } => "other_mail",
            Self::FlowsDiffer { .. } => "flows_differ",
            Self::Inherited { .. } => "inherited",
            Self::LineDiffers { .. } => "line_differs",
            Self::ChannelOverdrawn { .. } => "channel_overdrawn",
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Unbalanced { asset } => {
                format!("what entered and what left of asset {asset} in this block are not equal")
            }
            Self::Discontinuous { asset, closed, opened } => {
                format!("asset {asset} opens with {opened}, the last block with it closed with {closed}")
            }
            Self::OtherMail { peer } => format!("it has taken other mail than {peer} has sent"),
            Self::FlowsDiffer { peer, asset, exported, imported } => {
                format!("it has given {exported} of asset {asset} to {peer}, which has {imported} from it")
            }
            Self::Inherited { asset, left, opened } => {
                format!("shards were left {left} of asset {asset} by those they came from, and began with {opened}")
            }
            Self::ChannelOverdrawn { asset, given, returned } => {
                format!("shards have {returned} of asset {asset} from it, and have given it {given}")
            }
            Self::LineDiffers { asset, exported, imported } => format!(
                "with all shards that it was cut or joined into or with it has given {exported} of asset {asset}, and shards \
                 have {imported} from them"
            ),
        }
    }
}

/// A line of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Finding {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// Counts the lines since the genesis.
    pub number: u64,
    /// Whose chain it was found in.
    pub group: GroupId,
    /// The block of that chain.
    pub height: Height,
    /// What.
    pub flaw: Flaw,
    /// The beacon's block that found it.
    pub taken: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

const FINDING: &[u8] = b"audit-finding/";

/// Key of how many findings there ever were.
#[must_use]
pub fn findings_key() -> Vec<u8> {
    registry::key(b"audit-findings", &[])
}

fn finding_key(number: u64) -> Vec<u8> {
    registry::key(FINDING, &[&number.to_be_bytes()])
}

/// What was found and not released, the latest last.
pub fn findings(view: &mut View<'_>) -> Vec<Finding> {
    registry::family(view, &registry::key(FINDING, &[])).into_iter().map(|(_, finding)| finding).collect()
}

/// Notes what was found, once; the first ones say most. Says whether it is new.
pub(crate) fn note(view: &mut View<'_>, at: &BlockContext, group: GroupId, height: Height, flaw: Flaw) -> bool {
    let known = findings(view);
    if known.len() >= AUDIT_FINDINGS_MAX || known.iter().any(|found| found.group == group && same(&found.flaw, &flaw)) {
        return false;
    }
    let number: u64 = view.load(&findings_key()).unwrap_or(0);
    let (taken, time_ms) = (at.height, at.time_ms);
    let finding = Finding { version: AUDIT_VERSION, number, group, height, flaw, taken, time_ms };
    registry::put(view, finding_key(number), &finding);
    registry::put(view, findings_key(), &(number + 1));
    true
}

/// Whether two flaws of one group are of one kind and about the same: amounts move on.
fn same(one: &Flaw, other: &Flaw) -> bool {
    let about = |flaw: &Flaw| match *flaw {
        Flaw::Unbalanced { asset } => (0, None, Some(asset)),
        Flaw::Discontinuous { asset, .. } => (1, None, Some(asset)),
        Flaw::OtherMail { peer } => (2, Some(peer), None),
        Flaw::FlowsDiffer { peer, asset, .. } => (3, Some(peer), Some(asset)),
        Flaw::Inherited { asset, .. } => (4, None, Some(asset)),
        Flaw::LineDiffers { asset, .. } => (5, None, Some(asset)),
        Flaw::ChannelOverdrawn { asset, .. } => (6, None, Some(asset)),
    };
    about(one) == about(other)
}

/// Forgets what was found of a group, or between it and others.
pub(crate) fn forget(view: &mut View<'_>, group: GroupId) {
    let about = |flaw: &Flaw| match flaw {
        Flaw::OtherMail { peer } | Flaw::FlowsDiffer { peer, .. } => *peer == group,
        Flaw::Unbalanced { .. }
        | Flaw::Discontinuous { .. }
        | Flaw::Inherited { .. }
        | Flaw::LineDiffers { .. }
        | Flaw::ChannelOverdrawn { .. } => false,
    };
    for finding in findings(view).into_iter().filter(|found| found.group == group || about(&found.flaw)) {
        registry::remove(view, finding_key(finding.number));
    }
}

/// Takes what a member brings. Returns what is to be mailed: plans of committees without a replica that diverges.
///
/// # Errors
/// [`Reject`]: it proves nothing, or does not continue what is audited. The view is then unchanged.
pub fn apply(view: &mut View<'_>, at: &BlockContext, entry: &AuditEntry) -> Result<Vec<(GroupId, Message)>, Reject> {
    match entry {
        AuditEntry::Trail(trail) => trail::apply(view, at, trail).map(|()| Vec::new()),
        AuditEntry::Divergent(divergent) => evidence::apply_divergent(view, at, divergent),
        AuditEntry::Twice(twice) => evidence::apply_twice(view, at, twice).map(|()| Vec::new()),
    }
}

/// Groups in quarantine, ascending. A retired one takes nothing new from anybody.
pub fn quarantined(view: &mut View<'_>) -> Vec<GroupId> {
    let layout = registry::layout(view);
    let held = quarantine::quarantines(view).into_iter().filter(Quarantine::holds);
    let lives = |group: &GroupId| !layout.as_ref().is_some_and(|layout| layout.retired(*group));
    held.map(|quarantine| quarantine.group).filter(lives).collect()
}

/// Nodes whose state went wrong somewhere and that nobody has released, ascending.
pub(crate) fn divergent_nodes(view: &mut View<'_>) -> Vec<NodeId> {
    let held = quarantine::divergent(view).into_iter().filter(DivergentMark::holds);
    let mut nodes: Vec<NodeId> = held.map(|mark| mark.node).collect();
    nodes.dedup();
    nodes
}

/// Names a proof: `sha256("seamark/audit-proof/v1" ‖ borsh)`.
#[must_use]
pub fn proof_id(proof: &Proof) -> Hash32 {
    let bytes = borsh::to_vec(proof).expect("writing to memory does not fail");
    ledger::hash::tagged(b"seamark/audit-proof/v1", &[&bytes])
}

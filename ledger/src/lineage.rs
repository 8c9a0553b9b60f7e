//! How shards end and others begin out of them: what a parent is told, what it and its children keep of it, and
//! what the beacon's state says of a child for good.
//!
//! Owns these records and what of them can be checked without any state. Never decides that a shard is to end: the
//! beacon does, by a job. The machine of a shard executes a [`Seal`]; a proof about a child is judged by its
//! [`BornShard`]. Which shard came from which one stands in the layout ([`crate::layout::Lineage`]).

use borsh::{BorshDeserialize, BorshSerialize};

use crate::committee::Committee;
use crate::hash::Hash32;
use crate::ids::{Epoch, GroupId, Height, Incarnation, JobId, LayoutVersion, TimeMs};
use crate::layout::{BitPrefix, Layout};
use crate::limits::SPINE_MAX;
use crate::tree::SubtreeRoot;

/// Version written into new seals.
pub const SEAL_VERSION: u8 = 1;
/// Version written into new records of a seal in force.
pub const SEALED_VERSION: u8 = 1;
/// Version written into new origins.
pub const ORIGIN_VERSION: u8 = 1;
/// Version written into new leaves of born shards.
pub const BORN_VERSION: u8 = 1;

/// A shard that begins.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChildShard {
    /// The shard; its ordinal is never given to another one.
    pub group: GroupId,
    /// What it owns, for good.
    pub prefix: BitPrefix,
    /// Its first committee.
    pub committee: Committee,
}

/// What a parent is told, and what its last block and the first of each child follow from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seal {
    /// Format version, [`SEAL_VERSION`].
    pub version: u8,
    /// The job that wants it.
    pub job: JobId,
    /// The shards that end, one or two, the left one first.
    pub parents: Vec<GroupId>,
    /// The shards that begin, two or one, the left one first.
    pub children: Vec<ChildShard>,
    /// The layout that comes into force with it: the next one.
    pub layout: Layout,
}

impl Seal {
    /// Whether it cuts one shard into two or joins two into one, exactly as its layout says, with committees that
    /// can begin.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        let groups: Vec<GroupId> = self.children.iter().map(|child| child.group).collect();
        let shape = matches!((self.parents.as_slice(), groups.as_slice()), ([_], [_, _]) | ([_, _], [_]));
        let ends = |parent: &GroupId| {
            let entry = self.layout.lineage.iter().find(|entry| entry.group == *parent);
            entry.is_some_and(|entry| entry.until == self.layout.version && entry.successors == groups)
        };
        let begins = |child: &ChildShard| {
            self.layout.prefix_of(child.group) == Some(child.prefix)
                && child.committee.group == child.group
                && child.committee.incarnation == Incarnation(0)
                && child.committee.epoch == Epoch(0)
                && child.committee.well_formed()
        };
        self.version == SEAL_VERSION
            && shape
            && self.layout.well_formed()
            && self.parents.windows(2).all(|pair| self.layout.prefix_ever(pair[0]) < self.layout.prefix_ever(pair[1]))
            && self.parents.iter().all(ends)
            && self.children.iter().all(begins)
    }
}

/// What a shard keeps while a seal is in force, under [`crate::schema::sealed`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SealedBy {
    /// Format version, [`SEALED_VERSION`].
    pub version: u8,
    /// The seal.
    pub seal: Seal,
    /// The block that took it: the last one, unless it is taken back.
    pub height: Height,
}

/// One stretch of an inherited chain: the blocks `from..=to` are those of `group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Segment {
    /// Whose blocks.
    pub group: GroupId,
    /// The first one.
    pub from: Height,
    /// The last one.
    pub to: Height,
}

impl Segment {
    /// Whether a height lies in it.
    #[must_use]
    pub fn holds(&self, height: Height) -> bool {
        self.from <= height && height <= self.to
    }
}

/// How a shard began that others were cut or joined into, under [`crate::schema::origin`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Origin {
    /// Format version, [`ORIGIN_VERSION`].
    pub version: u8,
    /// The job that made it.
    pub job: JobId,
    /// Height of its first block.
    pub first: Height,
    /// Hash of the header of that block.
    pub header_hash: Hash32,
    /// Where its parents ended, the left one first.
    pub parents: Vec<ParentEnd>,
    /// The chain before the first block as it stands under the plain keys, oldest first.
    pub spine: Vec<Segment>,
    /// The chains that stand under [`crate::schema::archived`].
    pub archived: Vec<Segment>,
}

impl Origin {
    /// Whose block stands under the plain key of a height before the first block; `None` where none does.
    #[must_use]
    pub fn on_spine(&self, height: Height) -> Option<GroupId> {
        self.spine.iter().find(|segment| segment.holds(height)).map(|segment| segment.group)
    }

    /// Whether the blocks of a group stand under the plain keys.
    #[must_use]
    pub fn has_spine(&self, group: GroupId) -> bool {
        self.spine.iter().any(|segment| segment.group == group)
    }

    /// Whether it names as many parents and stretches as one may.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        self.version == ORIGIN_VERSION
            && (1..=2).contains(&self.parents.len())
            && self.spine.len() + self.archived.len() <= SPINE_MAX
            && self.spine.iter().all(|segment| segment.from <= segment.to && segment.to < self.first)
            && self.spine.windows(2).all(|pair| pair[0].to < pair[1].from)
    }
}

/// Where a parent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ParentEnd {
    /// The parent.
    pub group: GroupId,
    /// Its last block.
    pub height: Height,
    /// Hash of the header of that block.
    pub header_hash: Hash32,
    /// Time of that block.
    pub time_ms: TimeMs,
    /// Root of its state after that block.
    pub root: SubtreeRoot,
}

/// What the beacon's certified state says for good of a shard that others were cut or joined into, under
/// [`crate::schema::born`]: enough to trust its first committee, and to know what it owns.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BornShard {
    /// Format version, [`BORN_VERSION`].
    pub version: u8,
    /// The shard.
    pub group: GroupId,
    /// What it owns.
    pub prefix: BitPrefix,
    /// Hash of its first committee.
    pub committee: Hash32,
    /// The job that made it.
    pub job: JobId,
    /// The layout that it came with.
    pub layout: LayoutVersion,
    /// Where its parents ended, the left one first.
    pub parents: Vec<ParentEnd>,
    /// The root of its state after its first block: one.
    pub roots: Vec<SubtreeRoot>,
}

//! Foundations: how a group that was not in the genesis began. The beacon writes one record for each,
//! and block 0 of the group is a pure function of the genesis and that record.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::committee::Committee;
use crate::hash::{Hash32, tagged};
use crate::ids::{Epoch, GroupId, GroupKind, Height, Incarnation, OrgId, TimeMs};
use crate::layout::Layout;
use crate::limits::{CHARTER_BYTES_MAX, FOUNDERS_MAX};

/// Version written into new foundations.
pub const FOUNDATION_VERSION: u8 = 1;

/// What a group founded at run time began with.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Foundation {
    /// Format version, [`FOUNDATION_VERSION`].
    pub version: u8,
    /// The group; its ordinal is never given to another one.
    pub group: GroupId,
    /// What the group's own machine starts from; opaque to everybody else.
    pub charter: Vec<u8>,
    /// The organisations that founded it, ascending.
    pub members: Vec<OrgId>,
    /// Its first committee.
    pub committee: Committee,
    /// The beacon's committee at that time, by which the group judges its first mail.
    pub beacon_committee: Committee,
    /// The layout in force at that time.
    pub layout: Layout,
    /// Time of the beacon's block that founded it; that of block 0.
    pub founded_ms: TimeMs,
    /// Height of that block.
    pub beacon_height: Height,
}

/// What the beacon's certified state says for good of a group that it founded: enough to trust the
/// group's first committee without anything else of the registry, and all that those are shown who are not given the
/// foundation itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct FoundedGroup {
    /// Format version, 1.
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// Hash of its first committee.
    pub committee: Hash32,
    /// [`Foundation::hash`], the parent that its block 0 names.
    pub foundation: Hash32,
}

impl Foundation {
    /// What the beacon's state tree holds of it, under [`crate::schema::founded`].
    #[must_use]
    pub fn leaf(&self) -> FoundedGroup {
        FoundedGroup { version: 1, group: self.group, committee: self.committee.hash(), foundation: self.hash() }
    }

    /// `sha256("seamark/foundation/v1" ‖ borsh)`: the parent that block 0 of the group names.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/foundation/v1", &[&bytes])
    }

    /// Whether everything in it is within limits, in order, and about one channel.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        let first = |committee: &Committee| committee.incarnation == Incarnation(0) && committee.epoch == Epoch(0);
        self.version == FOUNDATION_VERSION
            && self.group.kind() == Some(GroupKind::Channel)
            && self.charter.len() <= CHARTER_BYTES_MAX
            && (1..=FOUNDERS_MAX).contains(&self.members.len())
            && self.members.windows(2).all(|pair| pair[0] < pair[1])
            && self.committee.group == self.group
            && first(&self.committee)
            && self.committee.well_formed()
            && self.committee.members.iter().all(|member| self.members.binary_search(&member.org).is_ok())
            && self.beacon_committee.group == GroupId::BEACON
            && self.beacon_committee.well_formed()
            && !self.layout.shards.is_empty()
            && self.layout.well_formed()
    }
}

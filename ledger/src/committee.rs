//! Committees: the replicas of a group in an epoch, with keys and threshold. Kept for ever, so that
//! any certificate can be judged later.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::crypto::PublicKey;
use crate::hash::{Hash32, tagged};
use crate::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId};
use crate::limits::COMMITTEE_MAX;

/// One replica of a group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// The key its headers are signed with.
    pub key: PublicKey,
}

/// The replicas of a group in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Committee {
    /// Format version, 1.
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// The group's incarnation.
    pub incarnation: Incarnation,
    /// Counts the committees of the incarnation.
    pub epoch: Epoch,
    /// Sorted by node, without repetition.
    pub members: Vec<Member>,
    /// Signatures that make a certificate: a majority for Raft, 2f+1 for BFT.
    pub threshold: u16,
}

impl Committee {
    /// A committee that certifies by majority.
    #[must_use]
    pub fn majority(group: GroupId, incarnation: Incarnation, epoch: Epoch, mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.node);
        let threshold = u16::try_from(members.len() / 2 + 1).unwrap_or(u16::MAX);
        Self { version: 1, group, incarnation, epoch, members, threshold }
    }

    /// `sha256("seamark/committee/v1" ‖ borsh)`.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/committee/v1", &[&bytes])
    }

    /// Position of a node among the members.
    #[must_use]
    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search_by_key(&node, |member| member.node).ok()
    }

    /// Whether members are sorted and unique, keys unique, and the threshold is a strict majority.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        let n = self.members.len();
        let mut keys: Vec<_> = self.members.iter().map(|member| member.key).collect();
        keys.sort();
        (1..=COMMITTEE_MAX).contains(&n)
            && self.members.windows(2).all(|pair| pair[0].node < pair[1].node)
            && keys.windows(2).all(|pair| pair[0] != pair[1])
            && usize::from(self.threshold) > n / 2
            && usize::from(self.threshold) <= n
    }
}

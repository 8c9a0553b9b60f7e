//! Committees: the replicas of a group in an epoch, with keys and threshold. Kept for ever, so that
//! any certificate can be judged later.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::crypto::PublicKey;
use crate::hash::{Hash32, tagged};
use crate::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId};
use crate::limits::{BFT_MEMBERS_MIN, COMMITTEE_MAX};

/// Version of the committees that this program makes and takes. Version 1 had no engine.
pub const COMMITTEE_VERSION: u8 = 2;

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

/// Which engine orders a group's entries, and so how many members decide. A property of the committee: another
/// engine comes with another committee, in the block that puts it in force.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// A majority decides; replicas may stop.
    #[default]
    Raft,
    /// More than two thirds decide; replicas may lie.
    Bft,
}

impl Engine {
    /// Members that decide among `members`.
    #[must_use]
    pub const fn threshold(self, members: usize) -> usize {
        match self {
            Self::Raft => members / 2 + 1,
            Self::Bft => members - self.tolerated(members),
        }
    }

    /// Members of `members` that may fail, each in the engine's way, without harm.
    #[must_use]
    pub const fn tolerated(self, members: usize) -> usize {
        match self {
            Self::Raft => members.saturating_sub(1) / 2,
            Self::Bft => members.saturating_sub(1) / 3,
        }
    }

    /// Members that a committee which the beacon makes has at least: with fewer the engine would not do what it is
    /// chosen for. Raft orders also on one node.
    #[must_use]
    pub const fn least_members(self) -> usize {
        match self {
            Self::Raft => 1,
            Self::Bft => BFT_MEMBERS_MIN,
        }
    }

    /// Whether members may do whatever they like, so that no single one is believed: two ballots of one that exclude each other
    /// are a proof against it, and a state is taken from one only as far as others vouch for it.
    #[must_use]
    pub const fn bears_liars(self) -> bool {
        match self {
            Self::Raft => false,
            Self::Bft => true,
        }
    }

    /// Whether each member checks the signatures of clients before it votes for an entry, whatever the cluster's `verify`.
    #[must_use]
    pub const fn checks_before_vote(self) -> bool {
        match self {
            Self::Raft => false,
            Self::Bft => true,
        }
    }

    /// Whether the leader gives votes and takes them, a request to the engine for each change, and whoever has a seat in the
    /// committee in force has a vote by that. Otherwise voters follow from that committee by themselves, and one that has come to it
    /// without records is let in by the others.
    #[must_use]
    pub const fn leader_gives_votes(self) -> bool {
        match self {
            Self::Raft => true,
            Self::Bft => false,
        }
    }

    /// Its name in commands, files and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Bft => "bft",
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, form: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        form.pad(self.name())
    }
}

/// The replicas of a group in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Committee {
    /// Format version, [`COMMITTEE_VERSION`].
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// The group's incarnation.
    pub incarnation: Incarnation,
    /// Counts the committees of the incarnation.
    pub epoch: Epoch,
    /// Sorted by node, without repetition.
    pub members: Vec<Member>,
    /// What orders the entries of the group while this committee is in force.
    pub engine: Engine,
    /// Signatures that make a certificate: what the engine needs, or more.
    pub threshold: u16,
}

impl Committee {
    /// A committee of an engine, with the threshold that goes with it.
    #[must_use]
    pub fn of(
        engine: Engine,
        group: GroupId,
        incarnation: Incarnation,
        epoch: Epoch,
        mut members: Vec<Member>,
    ) -> Self {
        members.sort_by_key(|member| member.node);
        let threshold = u16::try_from(engine.threshold(members.len())).unwrap_or(u16::MAX);
        Self { version: COMMITTEE_VERSION, group, incarnation, epoch, members, engine, threshold }
    }

    /// A committee of a Raft group: it certifies by majority.
    #[must_use]
    pub fn majority(group: GroupId, incarnation: Incarnation, epoch: Epoch, members: Vec<Member>) -> Self {
        Self::of(Engine::Raft, group, incarnation, epoch, members)
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

    /// Whether members are sorted and unique, keys unique, and the threshold is what the engine needs at least.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        let n = self.members.len();
        let mut keys: Vec<_> = self.members.iter().map(|member| member.key).collect();
        keys.sort();
        (1..=COMMITTEE_MAX).contains(&n)
            && self.members.windows(2).all(|pair| pair[0].node < pair[1].node)
            && keys.windows(2).all(|pair| pair[0] != pair[1])
            && usize::from(self.threshold) >= self.engine.threshold(n)
            && usize::from(self.threshold) <= n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_needs_and_tolerates() {
        let rows =
            |engine: Engine| (1..=10).map(move |n| (engine.threshold(n), engine.tolerated(n))).collect::<Vec<_>>();
        assert_eq!(
            rows(Engine::Raft),
            [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2), (4, 3), (5, 3), (5, 4), (6, 4)]
        );
        assert_eq!(rows(Engine::Bft), [(1, 0), (2, 0), (3, 0), (3, 1), (4, 1), (5, 1), (5, 2), (6, 2), (7, 2), (7, 3)]);
        // Whoever is made outlives one liar, and no smaller committee would.
        let least = Engine::Bft.least_members();
        assert_eq!((Engine::Bft.tolerated(least), Engine::Bft.tolerated(least - 1)), (1, 0));
        // Two quorums of liars' engine share an honest member; two majorities share a member.
        for n in 1..=64 {
            let (quorum, f) = (Engine::Bft.threshold(n), Engine::Bft.tolerated(n));
            assert!(2 * quorum > n + f && quorum <= n - f, "n = {n}");
            assert!(2 * Engine::Raft.threshold(n) > n);
        }
    }
}

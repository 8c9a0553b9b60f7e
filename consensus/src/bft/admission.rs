//! When a replica may vote that may have forgotten what it promised.
//!
//! Such a replica has lost the records of its votes, or comes with an empty log to a group that has begun (see
//! docs/adr/0017-an-empty-log-is-not-a-new-member.md). It follows without a vote, and asks the members how far they
//! are. When as many as decide, all of them voting and none of them itself, have said so, let `reached` be the
//! highest of what they said and of what is applied here then. From entry `reached + 3` on it votes, if the committee
//! has not changed until then; if it has, it asks anew. When more than that many have said so, those who said the least
//! count, and of each member the least that it has said: what follows holds for any such set of them, and for anything
//! that they have said since this replica began anew. So nobody keeps it out by a high number as long as enough others
//! speak, and it does not run after members that go on.
//!
//! Why that is safe: let its former self have cast a vote at entry `v`. It did so when `v - 1` was decided, so more
//! than two thirds had precommitted `v - 1`, and each honest one of them had applied `v - 2` before. Were `v` above
//! `reached + 2`, then `reached + 2` was decided as well, and those who precommitted it had applied `reached + 1`.
//! They were a quorum of the same committee, which shares an honest member with those who were asked later; that
//! one has said more than `reached`, which is the highest that anyone has said. What a member says that started
//! anew counts the records of its votes, so it does not go back.
//!
//! The price is that a group in which too many have forgotten does not go on by itself: with `n` members, as many as
//! decide have to be left besides this one. One that joins is not among the `n` yet when it asks, so it is let vote also
//! where as many of them are silent, or lie, as are tolerated. It keeps what it was let do when its seat comes: that
//! it had promised nothing beyond what is applied here was true of that time, whoever decides what follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::committee::Committee;
use ledger::ids::NodeId;

/// What members have said to a replica that does not vote.
#[derive(Clone, Debug)]
pub struct Admission {
    own: NodeId,
    committee: Arc<Committee>,
    /// The lowest that each has said.
    reached: BTreeMap<NodeId, u64>,
    /// What was applied here when enough had spoken.
    applied: Option<u64>,
    from: Option<u64>,
}

impl Admission {
    /// Nothing was said yet to the replica of this node, under a committee.
    #[must_use]
    pub fn new(own: NodeId, committee: Arc<Committee>) -> Self {
        Self { own, committee, reached: BTreeMap::new(), applied: None, from: None }
    }

    /// A voting replica has said how far it is; `applied` is how far this one is.
    pub fn heard(&mut self, node: NodeId, reached: u64, applied: u64) {
        if node == self.own || self.committee.index_of(node).is_none() {
            return;
        }
        let said = self.reached.entry(node).or_insert(reached);
        *said = reached.min(*said);
        let mut all: Vec<u64> = self.reached.values().copied().collect();
        all.sort_unstable();
        let last = usize::from(self.committee.threshold).saturating_sub(1);
        if let Some(highest) = all.get(last) {
            let applied = *self.applied.get_or_insert(applied);
            self.from = Some(applied.max(*highest).saturating_add(3));
        }
    }

    /// This committee is in force now.
    pub fn in_force(&mut self, committee: &Arc<Committee>) {
        if self.committee != *committee {
            *self = Self::new(self.own, committee.clone());
        }
    }

    /// Whether it may vote on the entry behind the one that is applied.
    #[must_use]
    pub fn may_vote(&self, applied: u64) -> bool {
        self.from.is_some_and(|from| applied.saturating_add(1) >= from)
    }
}

#[cfg(test)]
mod tests {
    use ledger::committee::{Engine, Member};
    use ledger::crypto::SecretKey;
    use ledger::ids::{Epoch, GroupId, Incarnation, OrgId};

    use super::*;

    fn committee(epoch: u64, nodes: u32) -> Arc<Committee> {
        let member = |node: u32| {
            let key = SecretKey::derive(&node.to_le_bytes(), b"test").public();
            Member { node: NodeId(node), org: OrgId::default(), key }
        };
        let members = (1..=nodes).map(member).collect();
        Arc::new(Committee::of(Engine::Bft, GroupId::shard(7), Incarnation::default(), Epoch(epoch), members))
    }

    #[test]
    fn a_quorum_of_others_has_to_speak_and_to_move_on() {
        let mut admission = Admission::new(NodeId(4), committee(0, 4));
        admission.heard(NodeId(1), 10, 8);
        admission.heard(NodeId(1), 12, 8);
        admission.heard(NodeId(4), 12, 8);
        admission.heard(NodeId(9), 12, 8);
        admission.heard(NodeId(2), 11, 8);
        assert!(!admission.may_vote(1_000), "two of the three others have spoken");
        admission.heard(NodeId(3), 9, 8);
        assert!(!admission.may_vote(12));
        assert!(admission.may_vote(13), "from entry 14 on, three behind the highest of what each said first");
        [1, 2, 3].into_iter().for_each(|node| admission.heard(NodeId(node), 40, 13));
        assert!(admission.may_vote(13), "they go on, and it need not run after them");
    }

    #[test]
    fn a_liar_keeps_nobody_out_when_enough_others_speak() {
        let mut admission = Admission::new(NodeId(7), committee(0, 7));
        admission.heard(NodeId(1), u64::MAX, 8);
        [2, 3, 4, 5].into_iter().for_each(|node| admission.heard(NodeId(node), 10, 8));
        assert!(!admission.may_vote(u64::MAX - 2), "five have spoken, and the liar is one of them");
        admission.heard(NodeId(6), 11, 9);
        assert!(!admission.may_vote(12));
        assert!(admission.may_vote(13), "the five others are enough");
        // A liar that says less than is true is one of those that are borne: an honest one of the five says enough.
        admission.heard(NodeId(1), 0, 9);
        assert!(!admission.may_vote(11));
        assert!(admission.may_vote(12));
    }

    #[test]
    fn what_is_applied_here_counts_as_well() {
        let mut admission = Admission::new(NodeId(4), committee(0, 4));
        [1, 2, 3].into_iter().for_each(|node| admission.heard(NodeId(node), 0, 20));
        assert!(!admission.may_vote(21));
        assert!(admission.may_vote(22));
    }

    #[test]
    fn another_committee_is_asked_anew() {
        let mut admission = Admission::new(NodeId(4), committee(0, 4));
        [1, 2, 3].into_iter().for_each(|node| admission.heard(NodeId(node), 5, 5));
        admission.in_force(&committee(0, 4));
        assert!(admission.may_vote(7));
        admission.in_force(&committee(1, 4));
        assert!(!admission.may_vote(7));
        [1, 2, 3].into_iter().for_each(|node| admission.heard(NodeId(node), 8, 8));
        assert!(admission.may_vote(10));
    }
}

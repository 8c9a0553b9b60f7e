//! Which replica of a node is meant. A node that leaves a group and joins it again comes back without the
//! votes that it gave, so to the engine it is another replica then, as in production (ADR 16).
//!
//! Owns the engine's names of replicas in the simulator; decides nothing about who has a seat.

use std::collections::{BTreeMap, BTreeSet};

use ledger::committee::Committee;
use ledger::ids::{GroupId, NodeId};
use ledger::schema;
use storage::mem::MemKv;

use crate::state;

const JOIN_SHIFT: u32 = 16;

/// The engine's name of the replica that a node has of a group since its join with this number. In groups
/// of the genesis that nobody joins the number is 0, and a seat is named like its node.
#[must_use]
pub fn seat(node: NodeId, join: u16) -> NodeId {
    NodeId(node.0 | (u32::from(join) << JOIN_SHIFT))
}

/// The node of a seat.
#[must_use]
pub fn node_of(seat: NodeId) -> NodeId {
    NodeId(seat.0 & ((1 << JOIN_SHIFT) - 1))
}

/// The join of those who come with a committee: one more than its epoch, so it is never given twice.
#[must_use]
pub fn join_at(committee: &Committee) -> u16 {
    u16::try_from(committee.epoch.0.saturating_add(1)).unwrap_or(u16::MAX)
}

/// Whether a group goes on without the replica that a node has since its join with this number: the committee that it joined
/// with was in force, and the one in force now does not name the node. One that is still to join is not meant.
#[must_use]
pub fn is_over(current: &Committee, node: NodeId, join: u16) -> bool {
    current.index_of(node).is_none() && join <= join_at(current)
}

/// The committees of a founded group that were ever in force, by its own state, in order.
#[must_use]
pub fn committees(kv: &MemKv, group: GroupId) -> Vec<Committee> {
    let Ok(Some(current)) = state::find::<Committee>(kv, &schema::current_committee(group)) else { return Vec::new() };
    let known = state::scan(kv, schema::COMMITTEES_PREFIX);
    let mut all: Vec<Committee> = known.iter().filter_map(|(_, value)| borsh::from_slice(value).ok()).collect();
    all.retain(|committee| committee.group == group && committee.epoch <= current.epoch);
    all.sort_by_key(|committee| committee.epoch);
    all
}

/// The committee that a group began with, by its own state.
#[must_use]
pub fn first(kv: &MemKv, group: GroupId) -> Option<Committee> {
    committees(kv, group).into_iter().next()
}

/// Who has a seat in a founded group by its own state, and the join with which each has it.
#[must_use]
pub fn seats(kv: &MemKv, group: GroupId) -> BTreeMap<NodeId, u16> {
    let mut joins = BTreeMap::new();
    for committee in committees(kv, group) {
        joins.retain(|node, _| committee.index_of(*node).is_some());
        for member in &committee.members {
            joins.entry(member.node).or_insert_with(|| join_at(&committee));
        }
    }
    joins
}

/// Every seat that a founded group ever had, by its own state.
#[must_use]
pub fn all_seats(kv: &MemKv, group: GroupId) -> BTreeSet<NodeId> {
    let mut all = BTreeSet::new();
    let mut before: Option<Committee> = None;
    for committee in committees(kv, group) {
        let new = |node: NodeId| before.as_ref().is_none_or(|before| before.index_of(node).is_none());
        let joined = committee.members.iter().filter(|member| new(member.node));
        all.extend(joined.map(|member| seat(member.node, join_at(&committee))));
        before = Some(committee);
    }
    all
}

#[cfg(test)]
mod tests {
    use ledger::committee::Member;
    use ledger::ids::{Epoch, Incarnation, OrgId};
    use storage::kv::{Kv, WriteBatch};

    use super::*;
    use crate::cluster::node_key;

    #[test]
    fn a_replica_is_out_once_its_committee_was_in_force_and_another_one_goes_on_without_it() {
        let member = |node: &u32| Member { node: NodeId(*node), org: OrgId(0), key: node_key(NodeId(*node)).public() };
        let group = GroupId::shard(0);
        let of = |epoch, nodes: &[u32]| {
            Committee::majority(group, Incarnation(0), Epoch(epoch), nodes.iter().map(member).collect())
        };
        for (what, current, node, join, out) in [
            ("a member of the first committee", of(0, &[0, 1, 2]), 2, 1, false),
            ("one that had a seat from the first", of(1, &[0, 1, 3]), 2, 1, true),
            ("one that joins with the next committee", of(1, &[0, 1, 3]), 4, 3, false),
            ("one whose plan was overtaken", of(3, &[0, 1, 3]), 4, 3, true),
            ("one that has joined and left", of(7, &[0, 1, 3]), 2, 5, true),
        ] {
            assert_eq!(is_over(&current, NodeId(node), join), out, "{what}");
        }
    }

    #[test]
    fn whoever_comes_back_has_another_seat() {
        let group = GroupId::channel(0);
        let member = |node: &u32| Member { node: NodeId(*node), org: OrgId(0), key: node_key(NodeId(*node)).public() };
        let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
        // Epoch 2 was given up, and epoch 5 is not in force here yet.
        for (epoch, nodes) in [(0, &[0, 1, 2][..]), (1, &[0, 1][..]), (3, &[0, 1, 2][..]), (5, &[0, 1, 2, 4][..])] {
            let members = nodes.iter().map(member).collect();
            let committee = Committee::majority(group, Incarnation(0), Epoch(epoch), members);
            let bytes = borsh::to_vec(&committee).expect("writing to memory does not fail");
            batch.put(schema::committee(group, &committee.hash()), bytes.clone());
            if epoch == 3 {
                batch.put(schema::current_committee(group), bytes);
            }
        }
        kv.write(batch).expect("memory takes it");
        assert_eq!(seats(&kv, group), BTreeMap::from([(NodeId(0), 1), (NodeId(1), 1), (NodeId(2), 4)]));
        let (first, second) = (seat(NodeId(2), 1), seat(NodeId(2), 4));
        assert_eq!((node_of(first), node_of(second)), (NodeId(2), NodeId(2)));
        assert_ne!(first, second);
        assert!(all_seats(&kv, group).is_superset(&BTreeSet::from([first, second])));
        assert_eq!(seat(NodeId(7), 0), NodeId(7));
    }
}

//! The next step of a change of members, for each stand that it can be at.

use ledger::Member;
use ledger::crypto::SecretKey;
use ledger::ids::{Epoch, GroupId, Incarnation, OrgId};

use super::*;

const GROUP: GroupId = GroupId::shard(0);

fn committee(epoch: u64, nodes: &[u32]) -> Committee {
    let member = |node: &u32| Member {
        node: NodeId(*node),
        org: OrgId(1),
        key: SecretKey::derive(b"node", &node.to_be_bytes()).public(),
    };
    Committee::majority(GROUP, Incarnation(0), Epoch(epoch), nodes.iter().map(member).collect())
}

fn replica(node: u32, join: u16, votes: bool) -> Replica {
    Replica { id: replica_id(NodeId(node), join), node: NodeId(node), votes }
}

fn voters(nodes: &[u32]) -> Vec<Replica> {
    nodes.iter().map(|node| replica(*node, 1, true)).collect()
}

/// The step of node 1, which leads at entry 1000, with what the others have of the log.
fn step(
    current: &Committee,
    coming: Option<&Committee>,
    replicas: &[Replica],
    replicated: &[(u32, u64)],
    uncertified: Option<Height>,
) -> Step {
    let replicated = replicated.iter().map(|(node, upto)| (NodeId(*node), *upto)).collect();
    let role = RoleView { leads: true, last_log_index: 1000, replicated, ..RoleView::default() };
    Facts { node: NodeId(1), current, coming, uncertified, replicas, role: &role }.next()
}

#[test]
fn whoever_joins_is_a_learner_first_and_a_voter_when_its_committee_is_in_force() {
    let (before, after) = (committee(0, &[1, 2, 3]), committee(4, &[1, 2, 5]));
    let full = [(2, 1000), (3, 1000)];
    let start = voters(&[1, 2, 3]);
    assert_eq!(step(&before, None, &start, &full, None), Step::Nothing);
    let joins = replica_id(NodeId(5), 5);
    assert_eq!(step(&before, Some(&after), &start, &full, None), Step::AddLearner(joins, NodeId(5)));
    assert_eq!(step(&before, Some(&after), &start, &full, Some(Height(3))), Step::Certificate(Height(3)));

    let mut learning = start.clone();
    learning.push(replica(5, 5, false));
    assert_eq!(step(&before, Some(&after), &learning, &full, None), Step::Nothing, "the beacon decides");
    let behind = [(2, 1000), (3, 1000), (5, 100)];
    assert_eq!(step(&after, None, &learning, &behind, None), Step::Nothing, "it has not caught up");
    let caught_up = [(2, 1000), (3, 1000), (5, 990)];
    assert_eq!(step(&after, None, &learning, &caught_up, Some(Height(9))), Step::Certificate(Height(9)));
    let mut ids = vec![replica_id(NodeId(1), 1), replica_id(NodeId(2), 1), joins];
    ids.sort_unstable();
    assert_eq!(step(&after, None, &learning, &caught_up, None), Step::ChangeVoters(ids));
}

#[test]
fn voters_do_not_change_when_one_more_failure_would_take_the_quorum() {
    let after = committee(1, &[1, 2, 5]);
    let mut replicas = voters(&[1, 2, 3]);
    replicas.push(replica(5, 2, false));
    let one_is_down = [(2, 10), (3, 1000), (5, 1000)];
    assert_eq!(step(&after, None, &replicas, &one_is_down, None), Step::Nothing);
}

#[test]
fn a_leader_without_a_seat_hands_over_to_the_one_with_the_longest_log() {
    let after = committee(1, &[2, 3, 5]);
    let mut replicas = voters(&[1, 2, 3]);
    replicas.push(replica(5, 2, false));
    let reached = [(2, 998), (3, 1000), (5, 1000)];
    assert_eq!(step(&after, None, &replicas, &reached, None), Step::HandOver(NodeId(3)));
}

#[test]
fn learners_of_a_plan_that_was_given_up_go() {
    let current = committee(0, &[1, 2, 3]);
    let mut replicas = voters(&[1, 2, 3]);
    replicas.push(replica(5, 2, false));
    let full = [(2, 1000), (3, 1000), (5, 1000)];
    let gone = Step::RemoveLearners(vec![replica_id(NodeId(5), 2)]);
    assert_eq!(step(&current, None, &replicas, &full, None), gone);
    // A later plan has the same node join anew, under another id.
    let again = committee(2, &[1, 2, 5]);
    assert_eq!(step(&current, Some(&again), &replicas, &full, None), gone);
}

#[test]
fn an_excluded_leader_hands_over_to_the_one_with_the_longest_log_that_stays() {
    let voters = [1, 2, 3, 4, 5].map(NodeId).to_vec();
    let replicated = [(2, 990), (3, 1000), (4, 998)].map(|(node, upto)| (NodeId(node), upto)).to_vec();
    let role = RoleView { leads: true, voters, replicated, ..RoleView::default() };
    // Nodes 1, which leads, and 3 are of the organisation that has to go; nothing is known of 5.
    assert_eq!(role.heir(|node| ![1, 3].contains(&node.0)), Some(NodeId(4)));
    assert_eq!(role.heir(|node| node == NodeId(5)), Some(NodeId(5)), "there is nobody else");
    assert_eq!(role.heir(|_| false), None);
    // Of several that have as much, the first one behind the leader, and around the end.
    let replicated = [(1, 1000), (2, 1000), (3, 1000), (5, 1000)].map(|(node, upto)| (NodeId(node), upto)).to_vec();
    let role = RoleView { leader: Some(NodeId(4)), replicated, ..role };
    assert_eq!(role.heir(|node| node != NodeId(4)), Some(NodeId(5)));
    assert_eq!(role.heir(|node| ![4, 5].contains(&node.0)), Some(NodeId(1)));
}

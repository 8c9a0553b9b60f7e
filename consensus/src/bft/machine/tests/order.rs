//! The order: who proposes, what becomes of it, and who may take part.

use std::collections::BTreeMap;

use ledger::ballot::BallotKind;
use ledger::ids::NodeId;

use super::net::{Net, batch, committee, key, next_key, renewed};
use crate::bft::{BftTiming, Body, Fate, Input, Message, TURN_MS};

const TIMING: BftTiming = BftTiming::DEFAULT;

#[test]
fn members_decide_the_same_batches_in_the_order_in_which_the_leader_was_given_them() {
    for count in [1, 4, 7] {
        let mut net = Net::new(count, 1);
        let texts: Vec<String> = (1..=5).map(|n| format!("batch {n}")).collect();
        for (ticket, text) in (1..).zip(&texts) {
            net.submit(1, ticket, batch(text));
        }
        net.until(5);
        assert_eq!(net.texts(), texts, "{count} members");
        assert_eq!(net.now, 1000, "work is not waited for");
        for ticket in 1..=5 {
            assert_eq!(net.fates[&ticket], Fate::Applied(ticket));
        }
        let chains: Vec<_> = net.nodes.iter().map(|node| node.disk.chains.clone()).collect();
        assert!(chains.iter().all(|other| *other == chains[0]));
    }
}

#[test]
fn each_sends_two_votes_to_each_other_one_and_shows_them_the_proposal_once() {
    for count in [4, 7] {
        let mut net = Net::new(count, 1);
        net.submit(1, 1, batch("one"));
        net.until(1);
        let (mut proposed, mut voted, mut shown) = (0, 0, 0);
        for (from, message) in &net.sent {
            let Message::Ballot(signed) = message else { continue };
            match signed.ballot.kind {
                BallotKind::Proposal { .. } if *from == signed.ballot.node => proposed += 1,
                BallotKind::Proposal { .. } => shown += 1,
                BallotKind::Prevote | BallotKind::Precommit => voted += 1,
            }
        }
        let others = count - 1;
        assert_eq!((proposed, voted), (others, 2 * count * others), "{count} members");
        assert_eq!(shown, others * (others - 1), "{count} members");
    }
}

#[test]
fn a_leader_without_work_proposes_blanks_as_a_sign_of_life() {
    let mut net = Net::new(4, 1);
    net.until(4);
    assert_eq!(net.now, 1000 + 4 * TIMING.idle_ms);
    for value in net.history.values() {
        assert_eq!((value.proposer, value.round, &value.body), (NodeId(1), 0, &Body::Blank));
    }
}

#[test]
fn a_turn_ends_in_time_and_nobody_has_missed_anything() {
    let mut net = Net::new(4, 1);
    let last = TURN_MS / TIMING.idle_ms;
    net.until(last + 1);
    assert_eq!(net.now, 1000 + (last + 1) * TIMING.idle_ms);
    let by = |index: u64| (net.history[&index].proposer, net.history[&index].round, net.history[&index].lasted_ms);
    assert_eq!(by(last), (NodeId(1), 0, TURN_MS));
    assert_eq!(by(last + 1), (NodeId(2), 0, TIMING.idle_ms));
    let chain = net.nodes[0].disk.chains.last().unwrap();
    assert!(chain.turn.missed.is_empty());
}

#[test]
fn a_dead_leader_costs_one_time_out_and_leadership_stays_with_the_next() {
    let mut net = Net::new(4, 1);
    net.until(1);
    let died = net.now;
    net.crash(net.at(1));
    net.until(2);
    assert_eq!((net.history[&2].proposer, net.history[&2].round), (NodeId(2), 1));
    assert!(net.now - died <= TIMING.idle_ms + TIMING.propose_ms + TIMING.vote_ms, "{}", net.now - died);
    let led = net.now;
    net.until(4);
    assert_eq!(net.now - led, 2 * TIMING.idle_ms, "nobody waits for the dead one again");
    assert_eq!((net.history[&4].proposer, net.history[&4].round), (NodeId(2), 0));
    assert_eq!(net.leader(), 2);
}

/// Without the dead one nothing is decided before the late one has voted, too.
#[test]
fn a_dead_leader_costs_one_time_out_also_when_a_member_lacks_the_entry_before() {
    let mut net = Net::new(4, 1);
    net.until(1);
    net.cut.insert(NodeId(4));
    net.until(2);
    let died = net.now;
    net.crash(net.at(1));
    net.cut.clear();
    net.until(3);
    assert_eq!((net.history[&3].proposer, net.history[&3].round), (NodeId(2), 1));
    // It hears of the entry when the others give it up, asks for the one before, and does not wait for the dead one.
    let most = TIMING.idle_ms + TIMING.propose_ms + 2 * TIMING.vote_ms;
    assert!(net.now - died <= most, "{}", net.now - died);
}

#[test]
fn a_leader_hands_over_at_once() {
    let mut net = Net::new(4, 1);
    net.step(net.at(2), Input::HandOver(NodeId(3)));
    net.step(net.at(1), Input::HandOver(NodeId(9)));
    net.settle(10_000);
    assert_eq!(net.history.len(), 0, "only the leader hands over, and only to a member");
    net.step(net.at(1), Input::HandOver(NodeId(3)));
    net.until(1);
    assert_eq!((net.now, net.history[&1].heir, net.leader()), (1000, Some(NodeId(3)), 3));
    net.submit(1, 1, batch("late"));
    net.submit(3, 2, batch("in time"));
    net.until(2);
    assert_eq!(net.fates[&1], Fate::NotLeader(Some(NodeId(3))));
    assert_eq!(net.fates[&2], Fate::Applied(2));
}

#[test]
fn what_another_member_decided_instead_may_still_be_ordered_and_what_was_not_proposed_may_not() {
    let mut net = Net::new(4, 1);
    net.cut.insert(NodeId(1));
    net.submit(1, 1, batch("proposed"));
    net.submit(1, 2, batch("waiting"));
    net.until(1);
    assert!(net.fates.is_empty());
    net.cut.clear();
    net.until(3);
    assert_eq!(net.fates[&1], Fate::Unknown);
    assert_eq!(net.fates[&2], Fate::NotLeader(Some(NodeId(2))));
    assert!(net.texts().is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let mut net = Net::new(4, 1);
    for ticket in 1..=70 {
        net.submit(1, ticket, batch("x"));
    }
    let full: Vec<u64> = net.fates.iter().filter(|(_, fate)| **fate == Fate::Full).map(|(ticket, _)| *ticket).collect();
    assert_eq!(full, (66..=70).collect::<Vec<_>>());
    net.until(65);
    net.settle(100_000);
    assert_eq!(net.machine(1).desk.queue.held(), (0, 0));
    assert_eq!(net.machine(1).desk.outbox.waiting(), 0);
}

#[test]
fn loss_and_disorder_delay_and_change_nothing() {
    for seed in 0..5 {
        let mut net = Net::new(4, seed);
        (net.wild, net.loss) = (true, 20);
        let mut ticket = 0;
        while net.history.len() < 10 {
            ticket += 1;
            let node = 1 + net.draw(4) as u32;
            net.submit(node, ticket, batch(&format!("batch {ticket}")));
            net.settle(50);
            net.pass();
        }
        net.loss = 0;
        let index = net.history.len() as u64;
        net.until(index);
        // What has a place in the order is there once, and it is the place that its host was told.
        for (ticket, fate) in &net.fates {
            let text = format!("batch {ticket}");
            let places = net.history.values().filter(|value| value.body == batch(&text));
            let places: Vec<u64> = places.map(|value| value.index).collect();
            match fate {
                Fate::Applied(index) => assert_eq!(places, [*index]),
                Fate::NotLeader(_) | Fate::Full => assert!(places.is_empty()),
                Fate::Unknown => assert!(places.len() <= 1),
            }
        }
    }
}

#[test]
fn a_node_that_a_later_committee_names_follows_and_votes_from_then_on() {
    let mut net = Net::new(4, 1);
    net.committees.insert(2, committee(1..=5, 1));
    net.add(5, true, true);
    net.until(12);
    let mut by_five: Vec<u64> = net.said.keys().filter(|(node, ..)| *node == NodeId(5)).map(|said| said.1).collect();
    by_five.sort_unstable();
    assert!(by_five.first().is_some_and(|first| *first > 2), "{by_five:?}");
    assert!(!net.fetched.is_empty());
}

/// Which of its keys a member has signed the ballots of each entry with that it has sent: the first one, the next one.
fn signed_by(net: &Net, node: u32) -> BTreeMap<u64, (bool, bool)> {
    let mut found: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
    for (from, message) in &net.sent {
        let Message::Ballot(signed) = message else { continue };
        if *from == NodeId(node) && signed.ballot.node == *from {
            let with = found.entry(signed.ballot.index).or_default();
            with.0 |= signed.verify_key(&key(node).public()).is_ok();
            with.1 |= signed.verify_key(&next_key(node).public()).is_ok();
        }
    }
    found
}

#[test]
fn a_member_whose_key_changes_signs_each_entry_with_the_key_that_its_committee_names() {
    let mut net = Net::new(4, 1);
    let next = renewed(&net.in_force(0), 2);
    // It is in force behind the third entry, so it decides the fourth.
    net.committees.insert(3, next);
    // Without one of the others, the member is needed for every entry.
    net.cut.insert(NodeId(4));
    net.until(8);
    let found = signed_by(&net, 2);
    assert!(found.len() >= 8, "{found:?}");
    for (index, with) in found {
        assert_eq!(with, (index <= 3, index > 3), "entry {index}");
    }
    assert!(net.evidence.is_empty());

    // One that does not have that key goes on as a follower, and comes back to vote with it.
    let mut net = Net::new(4, 1);
    let next = renewed(&net.in_force(0), 2);
    net.committees.insert(3, next);
    net.lack.insert(NodeId(2));
    net.crash(net.at(2));
    net.start(net.at(2), 0);
    net.until(8);
    assert!(signed_by(&net, 2).keys().all(|index| *index <= 3));
    net.lack.clear();
    net.crash(net.at(2));
    net.start(net.at(2), 0);
    net.cut.insert(NodeId(4));
    let last = net.history.len() as u64;
    net.until(last + 4);
    assert!(signed_by(&net, 2).into_iter().any(|(index, with)| index > 3 && with == (false, true)));
}

/// It may have been there before, and voted under that very committee.
#[test]
fn a_member_that_has_forgotten_signs_nothing_under_whatever_committee() {
    let mut net = Net::new(4, 1);
    net.committees.insert(2, committee(1..=5, 1));
    net.add(5, false, true);
    net.until(12);
    assert!(net.said.keys().all(|(node, ..)| *node != NodeId(5)));
}

#[test]
fn a_member_that_may_not_vote_signs_nothing_and_follows() {
    let mut net = Net::of(committee(1..=4, 0), 1..=3, 1);
    net.add(4, false, true);
    net.until(5);
    let spoken = net
        .sent
        .iter()
        .filter(|(from, message)| *from == NodeId(4) && matches!(message, Message::Ballot(_) | Message::Ballots(..)));
    assert_eq!(spoken.count(), 0);
    let node = &net.nodes[net.at(4)];
    assert!(node.written.is_empty() && node.disk.records.is_empty());
}

#[test]
fn a_member_goes_on_behind_a_snapshot() {
    let mut net = Net::new(4, 1);
    net.cut.insert(NodeId(4));
    net.until(6);
    let (from, to) = (net.at(1), net.at(4));
    let disk = net.nodes[from].disk.clone();
    let node = &mut net.nodes[to];
    (node.disk.chains, node.disk.log, node.disk.applied) = (disk.chains, disk.log, disk.applied);
    let chain = Box::new(node.disk.chains[node.disk.applied].clone());
    let committee = net.in_force(chain.index);
    net.cut.clear();
    net.step(to, Input::Installed { chain, committee });
    net.until(8);
    assert!(net.said.keys().any(|(node, index, ..)| *node == NodeId(4) && *index > 6), "it votes again");
}

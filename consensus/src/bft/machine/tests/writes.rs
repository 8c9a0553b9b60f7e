//! How much is written down: what a vote follows from, once, and nothing else.

use ledger::ballot::BallotKind;
use ledger::ids::NodeId;

use super::net::{Net, batch, committee};
use crate::bft::{BftTiming, Event, Input, Message};

const TIMING: BftTiming = BftTiming::DEFAULT;

#[test]
fn an_idle_group_writes_twice_for_a_sign_of_life_and_only_what_its_votes_follow_from() {
    for count in [1, 4, 7] {
        let mut net = Net::new(count, 1);
        let entries = 60_000 / TIMING.idle_ms;
        net.until(entries);
        assert_eq!(net.now, 1000 + 60_000, "a minute for {count} members");
        let entries = usize::try_from(entries).unwrap();
        let quorum = usize::from(net.in_force(0).threshold);
        for node in &net.nodes {
            assert!(node.writes <= 2 * entries, "{count} members: {} writes for {entries} entries", node.writes);
            // The value, its proposal, prevotes of a quorum and its own precommit.
            let records = node.written.len();
            assert!(records <= (quorum + 3) * entries, "{count} members: {records} records for {entries} entries");
            let held = net.machine(node.id.0).desk.outbox.held();
            assert_eq!(held, 0, "the votes that have decided an entry go with it");
        }
    }
}

#[test]
fn a_busy_group_writes_no_oftener_for_an_entry() {
    let mut net = Net::new(4, 1);
    for ticket in 1..=50 {
        net.submit(1, ticket, batch(&format!("batch {ticket}")));
    }
    net.until(50);
    for node in &net.nodes {
        assert!(node.writes <= 2 * 50, "{} writes of node {}", node.writes, node.id);
    }
}

#[test]
fn votes_of_others_are_written_before_the_vote_that_follows_from_them_and_with_it() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    let hear = |net: &mut Net, by: u32| {
        let signed = net.ballot(by, 1, 0, BallotKind::Prevote, None);
        net.step(0, Input::Peer { from: NodeId(by), message: Message::Ballot(signed) });
    };
    hear(&mut net, 1);
    net.settle(100);
    assert_eq!((net.nodes[0].writes, net.machine(4).desk.outbox.held()), (0, 1), "nothing follows from one vote");
    // No value can get enough prevotes any more, so it prevotes nothing itself, and that is a quorum.
    hear(&mut net, 2);
    assert_eq!((net.nodes[0].writes, net.machine(4).desk.outbox.held()), (1, 0));
    assert!(net.sent.is_empty(), "it is not durable yet");
    net.settle(100);
    let ballots = net.nodes[0].written.iter().filter_map(|record| match &record.event {
        Event::Ballot(signed) => Some(signed.ballot.node.0),
        _ => None,
    });
    assert_eq!(ballots.collect::<Vec<_>>(), [1, 2, 4, 4], "two votes of its own behind those of two others");
    assert!(!net.sent.is_empty());
}

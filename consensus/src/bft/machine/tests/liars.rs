//! What members cannot do that sign whatever they want.

use ledger::ballot::{BallotKind, SignedBallot};
use ledger::hash::Hash32;
use ledger::ids::{Epoch, NodeId, Tick};
use ledger::limits::BATCH_BYTES_MAX;

use super::super::parts::split;
use super::net::{CLUSTER, Net, batch, committee};
use crate::bft::{
    BftTiming, Body, Decided, Event, Input, Message, Quorum, Record, TURN_SLACK_MS, VALUE_VERSION, Value,
};

const PROPOSAL: BallotKind = BallotKind::Proposal { valid_round: None };

/// Four members of which the first, who leads, is a liar: only the others run.
fn led_by_a_liar() -> Net {
    Net::of(committee(1..=4, 0), 2..=4, 1)
}

/// The liar sends a value in parts to the others.
fn spread(net: &mut Net, index: u64, value: &Value) -> Hash32 {
    let (id, encoded) = (value.id(), value.encode());
    for part in split(index, id, &encoded) {
        for to in 2..=4 {
            net.deliver(1, to, Message::Part(part.clone()));
        }
    }
    id
}

fn say(net: &mut Net, signed: SignedBallot) {
    for to in 2..=4 {
        net.deliver(1, to, Message::Ballot(signed));
    }
}

/// Votes of honest members for a value.
fn votes_for(net: &Net, id: Hash32) -> usize {
    let mut votes = 0;
    for (_, message) in &net.sent {
        if let Message::Ballot(signed) = message {
            votes += usize::from(signed.ballot.node != NodeId(1) && signed.ballot.value == Some(id));
        }
    }
    votes
}

#[test]
fn two_proposals_of_a_round_are_evidence_and_one_value_is_decided() {
    let mut net = led_by_a_liar();
    let values = [net.value(2, 0, batch("one")), net.value(2, 0, batch("two"))];
    let ids = [spread(&mut net, 1, &values[0]), spread(&mut net, 1, &values[1])];
    for id in ids {
        let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
        say(&mut net, signed);
    }
    net.until(1);
    assert_eq!(net.evidence.len(), 3, "each finds it");
    for pair in &net.evidence {
        assert_eq!(pair.verify(&CLUSTER, &committee(1..=4, 0)), Ok(NodeId(1)));
        assert_eq!(pair.first.ballot.kind, PROPOSAL);
    }
}

#[test]
fn who_has_refused_a_value_of_another_entry_comes_back_with_its_records() {
    let mut net = led_by_a_liar();
    let value = Value { index: 2, ..net.value(2, 0, batch("of the next entry")) };
    let id = spread(&mut net, 1, &value);
    let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
    say(&mut net, signed);
    net.settle(1000);
    let at = net.at(2);
    let refused = |record: &Record| matches!(record.event, Event::Value { valid: false, .. });
    assert!(net.nodes[at].written.iter().any(refused), "it has written down what it refused");
    net.crash(at);
    net.start(at, 0);
    assert_eq!(net.nodes[at].stopped, None);
    net.until(1);
    assert!(net.nodes.iter().all(|node| node.stopped.is_none()));
}

#[test]
fn two_proposals_of_which_each_member_gets_one_are_evidence() {
    // Who gets the second one votes for it, or for nothing.
    for second in ["two", "bad signature"] {
        let mut net = led_by_a_liar();
        for (text, members) in [("one", &[2][..]), (second, &[3, 4][..])] {
            let value = net.value(2, 0, batch(text));
            let (id, encoded) = (value.id(), value.encode());
            let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
            for to in members {
                for part in split(1, id, &encoded) {
                    net.deliver(1, *to, Message::Part(part));
                }
                net.deliver(1, *to, Message::Ballot(signed));
            }
        }
        net.until(1);
        assert_eq!(net.evidence.len(), 3, "each is shown what others were asked to vote for: {second}");
        for pair in &net.evidence {
            assert_eq!(pair.verify(&CLUSTER, &committee(1..=4, 0)), Ok(NodeId(1)));
            assert_eq!(pair.first.ballot.kind, PROPOSAL);
        }
    }
}

#[test]
fn a_precommit_for_something_else_than_what_it_has_decided_elsewhere_is_evidence() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    let signed = net.ballot(1, 1, 0, BallotKind::Precommit, None);
    net.deliver(1, 4, Message::Ballot(signed));
    net.settle(1000);
    assert!(net.evidence.is_empty());
    let value = net.value(4, 0, batch("good"));
    let decided = Box::new(decided(&net, &value, 0, &[1, 2, 3]));
    net.step(0, Input::Decided { from: NodeId(2), decided });
    net.settle(1000);
    assert_eq!(net.history[&1], value);
    let liars: Vec<_> = net.evidence.iter().map(|pair| pair.verify(&CLUSTER, &committee(1..=4, 0))).collect();
    assert_eq!(liars, [Ok(NodeId(1))]);
    assert_eq!(net.evidence[0].first.ballot.kind, BallotKind::Precommit);
}

#[test]
fn a_prevote_for_something_else_than_what_a_quorum_shows_is_evidence() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    let signed = net.ballot(1, 1, 0, BallotKind::Prevote, None);
    net.deliver(1, 4, Message::Ballot(signed));
    let polka = [1, 2, 3].map(|by| net.ballot(by, 1, 0, BallotKind::Prevote, Some(Hash32([1; 32]))));
    net.deliver(2, 4, Message::Ballots(Quorum::Polka, polka.to_vec()));
    net.settle(1000);
    let liars: Vec<_> = net.evidence.iter().map(|pair| pair.verify(&CLUSTER, &committee(1..=4, 0))).collect();
    assert_eq!(liars, [Ok(NodeId(1))]);
}

#[test]
fn two_votes_of_a_round_are_evidence() {
    for kind in [BallotKind::Prevote, BallotKind::Precommit] {
        let mut net = led_by_a_liar();
        for value in [None, Some(Hash32([1; 32])), Some(Hash32([2; 32]))] {
            let signed = net.ballot(1, 1, 0, kind, value);
            net.deliver(1, 2, Message::Ballot(signed));
        }
        net.until(1);
        assert!((1..=3).contains(&net.evidence.len()));
        for pair in &net.evidence {
            assert_eq!(pair.verify(&CLUSTER, &committee(1..=4, 0)), Ok(NodeId(1)));
            assert_eq!(pair.first.ballot.kind, kind);
        }
    }
}

#[test]
fn a_value_that_does_not_say_what_is_true_gets_no_vote() {
    let changes: [(&str, fn(&mut Value)); 10] = [
        ("version", |value| value.version = VALUE_VERSION + 1),
        ("index", |value| value.index += 1),
        ("previous", |value| value.previous = Hash32([1; 32])),
        ("proposer", |value| value.proposer = NodeId(2)),
        ("round", |value| value.round = 1),
        ("another's turn", |value| (value.round, value.proposer) = (1, NodeId(2))),
        ("heir", |value| value.heir = Some(NodeId(9))),
        ("itself as heir", |value| value.heir = Some(value.proposer)),
        ("size", |value| value.body = Body::Batch(vec![0; BATCH_BYTES_MAX + 1].into())),
        ("batch", |value| value.body = batch("bad signature")),
    ];
    for (what, change) in changes {
        let mut net = led_by_a_liar();
        let mut value = net.value(2, 0, batch("good"));
        change(&mut value);
        let id = spread(&mut net, 1, &value);
        let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
        say(&mut net, signed);
        net.until(1);
        assert_eq!(votes_for(&net, id), 0, "{what}");
        assert_eq!((net.history[&1].round, net.history[&1].proposer), (1, NodeId(2)), "{what}");
    }
    let mut net = led_by_a_liar();
    let value = net.value(2, 0, batch("good"));
    let id = spread(&mut net, 1, &value);
    let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
    say(&mut net, signed);
    net.until(1);
    assert_eq!(net.history[&1], value, "without a change it is decided");
}

#[test]
fn a_proposal_out_of_turn_of_garbage_or_of_parts_that_never_finish_gets_no_vote() {
    let mut net = led_by_a_liar();
    let value = net.value(2, 0, batch("good"));
    let id = spread(&mut net, 1, &value);
    // The third member does not propose in the first round; its own value and another's are the same to all.
    for by in [3, 4] {
        let signed = net.ballot(by, 1, 0, PROPOSAL, Some(id));
        say(&mut net, signed);
    }
    // Bytes that are no value, with the id that they have.
    let garbage = bytes::Bytes::from_static(b"no value at all");
    let garbage_id = Value::id_of(&garbage);
    for part in split(1, garbage_id, &garbage) {
        for to in 2..=4 {
            net.deliver(1, to, Message::Part(part.clone()));
        }
    }
    let signed = net.ballot(1, 1, 0, PROPOSAL, Some(garbage_id));
    say(&mut net, signed);
    net.until(1);
    assert_eq!(votes_for(&net, id) + votes_for(&net, garbage_id), 0);

    let mut net = led_by_a_liar();
    let value = net.value(2, 0, Body::Batch(vec![1; 600_000].into()));
    let (id, encoded) = (value.id(), value.encode());
    for to in 2..=4 {
        net.deliver(1, to, Message::Part(split(1, id, &encoded)[0].clone()));
    }
    let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
    say(&mut net, signed);
    net.until(1);
    assert_eq!(votes_for(&net, id), 0);
    net.until(2);
    assert_eq!(net.machine(3).desk.shelf.held().1, 0, "dropped with its index");
}

#[test]
fn a_batch_whose_time_has_passed_is_asked_about_again_when_two_thirds_have_prevoted_it() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    let value = net.value(4, 0, batch("late by a minute"));
    let (id, encoded) = (value.id(), value.encode());
    net.deliver(1, 4, Message::Part(split(1, id, &encoded)[0].clone()));
    let signed = net.ballot(1, 1, 0, PROPOSAL, Some(id));
    net.deliver(1, 4, Message::Ballot(signed));
    net.settle(1000);
    assert_eq!(net.asked, [(NodeId(4), id, false)]);
    assert_eq!(votes_for(&net, id), 0);
    for kind in [BallotKind::Prevote, BallotKind::Precommit] {
        for by in 1..=3 {
            let signed = net.ballot(by, 1, 0, kind, Some(id));
            net.deliver(by, 4, Message::Ballot(signed));
        }
        net.settle(1000);
    }
    assert_eq!(net.asked, [(NodeId(4), id, false), (NodeId(4), id, true)]);
    assert_eq!(net.history[&1], value);
}

/// It proposes just before every time-out, and says each time that its turn has hardly begun.
#[test]
fn a_leader_that_is_slow_and_hides_it_loses_the_lead_all_the_same() {
    let mut net = led_by_a_liar();
    let (began, late_ms) = (net.now, BftTiming::DEFAULT.idle_ms + BftTiming::DEFAULT.propose_ms - 100);
    let mut index = 0;
    while index == 0 || net.history[&index].proposer == NodeId(1) {
        index += 1;
        net.now += late_ms;
        let value = net.value(2, 0, Body::Blank);
        let id = spread(&mut net, index, &value);
        let signed = net.ballot(1, index, 0, PROPOSAL, Some(id));
        say(&mut net, signed);
        net.until(index);
    }
    assert_eq!(index, TURN_SLACK_MS / late_ms + 1, "the first that hides too much");
    assert_eq!((net.history[&index].proposer, net.history[&index].round), (NodeId(2), 1));
    assert!(net.now - began < TURN_SLACK_MS + 2 * late_ms);
    let turn = &net.nodes[0].disk.chains.last().unwrap().turn;
    assert!(turn.missed.iter().any(|missed| missed.node == NodeId(1)), "it has missed the rest of its turn");
    assert!(turn.lasted_ms > TURN_SLACK_MS, "the next one says what is true");
}

#[test]
fn a_value_that_says_less_of_its_turn_than_the_one_before_gets_no_vote() {
    for (lasted_ms, votes) in [(499, 0), (500, 3)] {
        let mut net = Net::of(committee(1..=4, 0), [4], 1);
        let before = Value { lasted_ms: 500, ..net.value(4, 0, Body::Blank) };
        let decided = Box::new(decided(&net, &before, 0, &[1, 2, 3]));
        net.step(0, Input::Decided { from: NodeId(1), decided });
        net.settle(1000);
        let value = Value { lasted_ms, ..net.value(4, 0, Body::Blank) };
        let id = value.id();
        net.deliver(1, 4, Message::Part(split(2, id, &value.encode())[0].clone()));
        let signed = net.ballot(1, 2, 0, PROPOSAL, Some(id));
        net.deliver(1, 4, Message::Ballot(signed));
        net.settle(1000);
        assert_eq!(votes_for(&net, id), votes, "{lasted_ms}, to each of the others");
    }
}

/// Whoever leads in another one's turn would end it so.
#[test]
fn a_value_that_says_much_more_of_its_turn_than_was_seen_gets_no_vote_in_any_round() {
    for (lasted_ms, votes) in [(2 * TURN_SLACK_MS, 0), (TURN_SLACK_MS, 3)] {
        let mut net = Net::of(committee(1..=4, 0), [4], 1);
        for member in 1..=3 {
            for kind in [BallotKind::Prevote, BallotKind::Precommit] {
                let signed = net.ballot(member, 1, 0, kind, None);
                net.deliver(member, 4, Message::Ballot(signed));
            }
        }
        // The next round begins when the last vote is not waited for any more.
        net.settle(1000);
        net.pass();
        net.settle(1000);
        let value = Value { lasted_ms, ..net.value(4, 1, Body::Blank) };
        let id = value.id();
        net.deliver(2, 4, Message::Part(split(1, id, &value.encode())[0].clone()));
        let signed = net.ballot(2, 1, 1, PROPOSAL, Some(id));
        net.deliver(2, 4, Message::Ballot(signed));
        net.settle(1000);
        let own = |message: &Message| matches!(message, Message::Ballot(signed) if signed.ballot.node == NodeId(4) && signed.ballot.value == Some(id));
        let cast = net.sent.iter().filter(|(_, message)| own(message)).count();
        assert_eq!(cast, votes, "{lasted_ms}, to each of the others");
    }
}

/// As for the time of a batch: members whose clocks differ come to an end.
#[test]
fn a_value_that_hides_its_time_is_voted_for_when_two_thirds_have_prevoted_it() {
    for body in [Body::Blank, batch("good")] {
        let mut net = Net::of(committee(1..=4, 0), [4], 1);
        for _ in 0..3 {
            net.now += TURN_SLACK_MS / 2;
            let value = net.value(4, 0, Body::Blank);
            let decided = Box::new(decided(&net, &value, 0, &[1, 2, 3]));
            net.step(0, Input::Decided { from: NodeId(1), decided });
            net.settle(1000);
        }
        assert_eq!(net.history.len(), 3);
        let value = net.value(4, 0, body);
        let (id, encoded) = (value.id(), value.encode());
        net.deliver(1, 4, Message::Part(split(4, id, &encoded)[0].clone()));
        let signed = net.ballot(1, 4, 0, PROPOSAL, Some(id));
        net.deliver(1, 4, Message::Ballot(signed));
        net.settle(1000);
        assert_eq!((votes_for(&net, id), net.asked.len()), (0, 0));
        for kind in [BallotKind::Prevote, BallotKind::Precommit] {
            for by in 1..=3 {
                let signed = net.ballot(by, 4, 0, kind, Some(id));
                net.deliver(by, 4, Message::Ballot(signed));
            }
            net.settle(1000);
        }
        assert_eq!(net.history[&4], value);
        assert_eq!(net.asked.len(), usize::from(value.body != Body::Blank), "once, and its stamp does not matter");
    }
}

/// A value with precommits by some members, signed as a committee and round want.
fn decided(net: &Net, value: &Value, round: u32, by: &[u32]) -> Decided {
    let precommit = |by: u32| net.ballot(by, value.index, round, BallotKind::Precommit, Some(value.id()));
    let signatures = by.iter().map(|by| (NodeId(*by), precommit(*by).signature)).collect();
    Decided { value: value.clone(), round, signatures }
}

#[test]
fn a_forged_decision_is_refused() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    let value = net.value(4, 0, batch("good"));
    let good = decided(&net, &value, 0, &[1, 2, 3]);
    let mut other = net.value(4, 0, batch("other"));
    other.previous = Hash32([1; 32]);
    let mut forged = vec![
        decided(&net, &value, 0, &[1, 2]),
        decided(&net, &value, 0, &[1, 2, 2]),
        decided(&net, &value, 0, &[3, 2, 1]),
        decided(&net, &value, 0, &[1, 2, 9]),
        Decided { round: 1, ..good.clone() },
        Decided { value: net.value(4, 0, batch("another")), ..good.clone() },
        decided(&net, &other, 0, &[1, 2, 3]),
    ];
    let elsewhere = Net::of(committee(1..=4, 7), [4], 1);
    forged.push(decided(&elsewhere, &value, 0, &[1, 2, 3]));
    assert_eq!(elsewhere.in_force(0).epoch, Epoch(7));
    for (which, decided) in forged.into_iter().enumerate() {
        net.step(0, Input::Decided { from: NodeId(1), decided: Box::new(decided) });
        net.settle(1000);
        assert_eq!(net.nodes[0].disk.applied, 0, "forgery {which}");
    }
    net.step(0, Input::Decided { from: NodeId(1), decided: Box::new(good) });
    net.settle(1000);
    assert_eq!(net.history[&1], value);
}

/// A member claims to work on an entry.
fn claim(net: &mut Net, by: u32, index: u64) {
    net.step(0, Input::Peer { from: NodeId(by), message: Message::Want { index, value: Hash32([1; 32]) } });
}

/// Time passes until so many questions were asked.
fn asked(net: &mut Net, count: usize) {
    for _ in 0..100 {
        if net.fetched.len() >= count {
            return;
        }
        net.pass();
        net.settle(1000);
    }
    panic!("{:?}", net.fetched);
}

#[test]
fn who_claims_to_be_far_ahead_and_answers_with_little_gets_its_turn_and_no_more() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    claim(&mut net, 1, u64::MAX);
    let soon = Tick(net.now + BftTiming::DEFAULT.vote_ms);
    assert_eq!(net.machine(4).follow.at, Some(soon), "one alone may be a liar");
    claim(&mut net, 2, 9);
    assert_eq!(net.machine(4).follow.at, Some(Tick(net.now)), "one of two is honest");
    claim(&mut net, 3, 9);
    asked(&mut net, 1);
    // The liar gives what is next, and nothing else.
    let value = net.value(4, 0, batch("good"));
    let decided = Box::new(decided(&net, &value, 0, &[1, 2, 3]));
    net.step(0, Input::Decided { from: NodeId(1), decided });
    net.settle(1000);
    assert_eq!(net.history[&1], value);
    asked(&mut net, 5);
    assert_eq!(net.fetched, [1, 2, 3, 1, 2].map(NodeId), "the others before it is asked again");
}

#[test]
fn a_certificate_of_too_few_of_others_or_of_another_index_moves_nobody() {
    let mut net = Net::of(committee(1..=4, 0), [4], 1);
    let vote = |net: &Net, by, index, round, kind| net.ballot(by, index, round, kind, Some(Hash32([1; 32])));
    let ballots = |net: &Net, by: &[u32], index, kind| -> Vec<SignedBallot> {
        by.iter().map(|by| vote(net, *by, index, 5, kind)).collect()
    };
    let mut broken = ballots(&net, &[1, 2, 3], 1, BallotKind::Prevote);
    broken[1].signature.0[7] ^= 1;
    let forged = [
        (Quorum::Polka, ballots(&net, &[1, 2], 1, BallotKind::Prevote)),
        (Quorum::Polka, ballots(&net, &[1, 2, 2], 1, BallotKind::Prevote)),
        (Quorum::Polka, ballots(&net, &[1, 2, 9], 1, BallotKind::Prevote)),
        (Quorum::Polka, ballots(&net, &[1, 2, 3], 1, BallotKind::Precommit)),
        (Quorum::Polka, ballots(&net, &[1, 2, 3], 2, BallotKind::Prevote)),
        (Quorum::Polka, ballots(&net, &[1, 2, 3], 1, PROPOSAL)),
        (Quorum::Polka, Vec::new()),
        (Quorum::Polka, broken.clone()),
        (Quorum::Skip, ballots(&net, &[1], 1, BallotKind::Prevote)),
        (Quorum::Skip, Vec::new()),
        (Quorum::Skip, vec![broken[0], broken[1]]),
        (Quorum::Precommits, ballots(&net, &[1, 2, 3], 1, BallotKind::Prevote)),
        (Quorum::Precommits, ballots(&net, &[1, 2], 1, BallotKind::Precommit)),
        (Quorum::Precommits, ballots(&net, &[1, 2, 3, 1, 2], 1, BallotKind::Precommit)),
    ];
    for (quorum, ballots) in forged {
        net.deliver(1, 4, Message::Ballots(quorum, ballots));
        net.settle(1000);
        assert_eq!(net.machine(4).standing().round, 0);
    }
    assert_eq!(net.nodes[0].stopped, None);
    let skip = ballots(&net, &[1, 2], 1, BallotKind::Prevote);
    net.deliver(1, 4, Message::Ballots(Quorum::Skip, skip));
    net.settle(1000);
    assert_eq!(net.machine(4).standing().round, 5, "one honest member is there");
}

//! Floods: what is kept of what peers send has a bound, whatever they send.

use ledger::ballot::BallotKind;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, Tick};
use ledger::limits::EVIDENCE_PER_MEMBER_MAX;

use super::super::answers::QUESTIONS_MAX;
use super::super::follow::{AHEAD_MAX, EARLY_MAX, Follow};
use super::super::parts::{BUILDING_MAX, VALUE_BYTES_MAX, WHOLE_MAX, split};
use super::super::peer::{ROUND_MAX, STRIKES_MAX};
use super::net::{Net, batch, committee};
use crate::bft::{Body, Decided, Input, Message, PART_BYTES_MAX, Part, Quorum};

/// One member that runs, and three that send what they like.
fn alone() -> Net {
    Net::of(committee(1..=4, 0), [4], 1)
}

fn send(net: &mut Net, from: u32, message: Message) {
    net.step(0, Input::Peer { from: NodeId(from), message });
}

#[test]
fn votes_of_far_rounds_and_repeated_ones_take_no_room() {
    let mut net = alone();
    for round in 0..400 {
        let round = if round < 200 { round } else { u32::MAX - round };
        for kind in [BallotKind::Prevote, BallotKind::Precommit] {
            let signed = net.ballot(1, 1, round, kind, Some(Hash32([1; 32])));
            send(&mut net, 1, Message::Ballot(signed));
            send(&mut net, 1, Message::Ballot(signed));
        }
    }
    let far = net.ballot(1, 1, ROUND_MAX, BallotKind::Prevote, None);
    let far_too = net.ballot(2, 1, ROUND_MAX, BallotKind::Prevote, None);
    send(&mut net, 1, Message::Ballots(Quorum::Skip, vec![far, far_too]));
    let machine = net.machine(4);
    assert_eq!(machine.standing().round, 0, "one liar moves nobody");
    assert_eq!(machine.library.driver.votes().rounds(), 11);
    assert!(net.nodes[0].stopped.is_none());
}

/// One liar signs as much as anybody remembers: neither its own double vote in the running round nor that of another one is
/// hidden behind it, and that it was too much is said.
#[test]
fn whoever_signs_more_than_is_remembered_hides_no_double_vote_and_is_named() {
    let mut net = Net::of(committee(1..=64, 0), [64], 1);
    let places = QUESTIONS_MAX / 64;
    for round in 0..=places as u32 {
        // Far from where anybody is, as only a proof of a round may be that a member is shown.
        let signed = net.ballot(1, 1, ROUND_MAX - 1 - round, BallotKind::Prevote, None);
        assert!(net.nodes[0].machine.as_mut().unwrap().desk.verify(&signed));
    }
    assert_eq!(net.machine(64).desk.answers.held(), places);
    assert!(net.evidence.is_empty());
    for (by, found) in [(1, 1), (2, 2)] {
        for value in [None, Some(Hash32([1; 32]))] {
            let signed = net.ballot(by, 1, 0, BallotKind::Prevote, value);
            send(&mut net, by, Message::Ballot(signed));
        }
        assert_eq!(net.evidence.len(), found, "the double vote of member {by}");
        assert_eq!(net.evidence[found - 1].node(), NodeId(by));
    }
    // Nor does a liar that is proved to be one use up the room for proofs against others.
    for value in 2..=255 {
        let signed = net.ballot(1, 1, 0, BallotKind::Prevote, Some(Hash32([value; 32])));
        send(&mut net, 1, Message::Ballot(signed));
    }
    for value in [None, Some(Hash32([1; 32]))] {
        let signed = net.ballot(3, 1, 0, BallotKind::Precommit, value);
        send(&mut net, 3, Message::Ballot(signed));
    }
    let of = |node: u32| net.evidence.iter().filter(|pair| pair.node() == NodeId(node)).count();
    assert_eq!([of(1), of(2), of(3)], [EVIDENCE_PER_MEMBER_MAX, 1, 1]);
    assert_eq!(net.unremembered, [(NodeId(64), NodeId(1))], "once");
}

#[test]
fn who_sends_what_does_not_verify_is_not_heard_for_a_while() {
    let mut net = alone();
    for byte in 0..=255 {
        let mut signed = net.ballot(1, 1, 0, BallotKind::Prevote, None);
        signed.signature.0[0] ^= byte | 1;
        send(&mut net, 1, Message::Ballot(signed));
    }
    assert_eq!(net.machine(4).desk.strikes[&NodeId(1)], STRIKES_MAX);
    let good = net.ballot(1, 1, 0, BallotKind::Prevote, None);
    send(&mut net, 1, Message::Ballot(good));
    assert_eq!(net.machine(4).library.driver.votes().rounds(), 0);
    send(&mut net, 2, Message::Ballot(good));
    assert_eq!(net.machine(4).library.driver.votes().rounds(), 1, "passed on by another");
    net.pass();
    let next = net.ballot(1, 1, 1, BallotKind::Prevote, None);
    send(&mut net, 1, Message::Ballot(next));
    assert_eq!(net.machine(4).library.driver.votes().rounds(), 2, "forgiven");
}

#[test]
fn a_liar_cannot_use_up_the_places_of_a_round_with_what_its_proposer_has_not_signed() {
    let mut net = alone();
    for (number, from) in (0..100_u8).zip([2, 3, 1].into_iter().cycle()) {
        let value = Some(Hash32([number; 32]));
        let mut signed = net.ballot(1, 1, 0, BallotKind::Proposal { valid_round: None }, value);
        signed.signature.0[5] ^= 1;
        send(&mut net, from, Message::Ballot(signed));
        // Its own, out of its turn.
        let own = net.ballot(from, 1, from, BallotKind::Proposal { valid_round: None }, value);
        send(&mut net, from, Message::Ballot(own));
    }
    let desk = &net.machine(4).desk;
    assert!(desk.proposals.is_empty() && desk.answers.held() == 0);
    let value = net.value(4, 0, batch("good"));
    let signed = net.ballot(1, 1, 0, BallotKind::Proposal { valid_round: None }, Some(value.id()));
    send(&mut net, 1, Message::Ballot(signed));
    assert_eq!(net.machine(4).desk.proposals[&0].len(), 1);
}

#[test]
fn what_comes_early_is_kept_within_bounds_and_who_has_no_seat_is_not_heard() {
    let mut net = alone();
    for index in 1..500 {
        let signed = net.ballot(1, index, 0, BallotKind::Prevote, None);
        for _ in 0..2 {
            send(&mut net, 1, Message::Ballot(signed));
        }
        send(&mut net, 9, Message::Ballot(signed));
        let part = Part { index, value: Hash32::ZERO, total_bytes: 1, part: 0, data: vec![1].into() };
        send(&mut net, 9, Message::Part(part));
    }
    let near = net.ballot(1, 2, 0, BallotKind::Prevote, None);
    let data = bytes::Bytes::from(vec![0; PART_BYTES_MAX]);
    for number in 0..500 {
        send(&mut net, 1, Message::Ballot(near));
        let total_bytes = 4 * PART_BYTES_MAX as u32;
        send(
            &mut net,
            2,
            Message::Part(Part { index: 2, value: Hash32::ZERO, total_bytes, part: number, data: data.clone() }),
        );
    }
    let machine = net.machine(4);
    assert_eq!(machine.follow.held().0, EARLY_MAX + VALUE_BYTES_MAX / PART_BYTES_MAX);
    assert_eq!(machine.standing().heard.len(), 3);
    assert!(!machine.follow.heard.contains_key(&NodeId(9)));
}

#[test]
fn parts_and_proposals_are_kept_within_bounds() {
    let mut net = alone();
    // The proposer of the round begins many values, and names as many.
    for number in 0..100_u32 {
        let body = Body::Batch(vec![number as u8; PART_BYTES_MAX + number as usize].into());
        let value = net.value(4, 0, body);
        let (id, encoded) = (value.id(), value.encode());
        let part = split(1, id, &encoded)[0].clone();
        send(&mut net, 1, Message::Part(part.clone()));
        // It is not the third member's turn.
        send(&mut net, 3, Message::Part(part));
        let signed = net.ballot(1, 1, 0, BallotKind::Proposal { valid_round: None }, Some(id));
        send(&mut net, 1, Message::Ballot(signed));
    }
    let desk = &net.machine(4).desk;
    let (bytes, building) = desk.shelf.held();
    assert!(building <= 2 * BUILDING_MAX && bytes <= building * 2 * PART_BYTES_MAX);
    assert_eq!(desk.proposals.values().map(Vec::len).sum::<usize>(), 2);
    assert_eq!(desk.answers.held(), 2, "what has no place is not verified");
    // Whole values that nobody has named.
    for number in 0..100 {
        let value = net.value(4, 0, batch(&format!("whole {number}")));
        for part in split(1, value.id(), &value.encode()) {
            send(&mut net, 1, Message::Part(part));
        }
    }
    assert_eq!(net.machine(4).desk.shelf.all().count(), WHOLE_MAX);
    assert_eq!(net.asked.len(), 1, "one of them was judged before it was proposed");
}

#[test]
fn decided_values_that_come_early_are_kept_within_bounds() {
    let mut net = alone();
    for index in 2..100 {
        for text in ["one", "two"] {
            let mut value = net.value(4, 0, batch(text));
            value.index = index;
            let decided = Box::new(Decided { value, round: 0, signatures: Vec::new() });
            net.step(0, Input::Decided { from: NodeId(1), decided });
        }
    }
    assert_eq!(net.machine(4).follow.held().1, AHEAD_MAX);
}

#[test]
fn who_is_asked_already_is_waited_for() {
    let mut follow = Follow::new(Vec::new());
    assert_eq!(follow.ask([NodeId(1)].into_iter(), Tick(10), 1000), Some(NodeId(1)));
    assert_eq!(follow.ask([NodeId(2)].into_iter(), Tick(20), 1000), Some(NodeId(2)));
    follow.answered(NodeId(2));
    // The one that has answered is not ahead any more.
    assert_eq!(follow.ask([NodeId(1)].into_iter(), Tick(30), 1000), None);
    follow.ask_at(Tick(30));
    assert_eq!(follow.at, Some(Tick(1010)), "not at once, again and again");
    assert_eq!(follow.ask([NodeId(1)].into_iter(), Tick(1010), 1000), Some(NodeId(1)));
}

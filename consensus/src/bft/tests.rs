//! Bytes, turns, and how values follow each other.

use bytes::Bytes;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, SignedBallot};
use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::{SecretKey, Signature};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, Epoch, GroupId, Incarnation, NodeId, OrgId, Tick};
use ledger::limits::COMMITTEE_MAX;
use proptest::prelude::*;

use super::turn::{Age, SKIPS_FIRST};
use super::*;

const CLUSTER: ClusterId = ClusterId(Hash32([7; 32]));

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value(body: Body) -> Value {
    Value {
        version: VALUE_VERSION,
        index: 5,
        previous: Hash32([1; 32]),
        proposer: NodeId(2),
        round: 3,
        heir: matches!(body, Body::Batch(_)).then_some(NodeId(4)),
        lasted_ms: 700,
        body,
    }
}

fn ballot(kind: BallotKind, value: Option<Hash32>) -> SignedBallot {
    let ballot = Ballot {
        version: BALLOT_VERSION,
        cluster: CLUSTER,
        group: GroupId(0x0100_0001),
        incarnation: Incarnation(2),
        committee: Hash32([6; 32]),
        index: 5,
        round: 3,
        kind,
        value,
        node: NodeId(2),
    };
    SignedBallot { ballot, signature: Signature([8; 64]) }
}

fn proposal() -> SignedBallot {
    ballot(BallotKind::Proposal { valid_round: Some(1) }, Some(Hash32([5; 32])))
}

fn prevote() -> SignedBallot {
    ballot(BallotKind::Prevote, None)
}

fn decided() -> Decided {
    Decided {
        value: value(Body::Batch(Bytes::from_static(b"batch"))),
        round: 6,
        signatures: vec![(NodeId(7), Signature([8; 64]))],
    }
}

fn records() -> [Record; 4] {
    let events = [
        Event::Value { encoded: Bytes::from_static(b"bytes"), round: 3, valid: true },
        Event::Ballot(prevote()),
        Event::Polka(vec![prevote()]),
        Event::Timeout { step: 2, round: 9 },
    ];
    events.map(|event| Record { index: 5, event })
}

fn messages() -> [Message; 4] {
    let (value, data) = (Hash32([5; 32]), Bytes::from_static(b"data"));
    [
        Message::Ballot(proposal()),
        Message::Ballots(Quorum::Skip, vec![prevote()]),
        Message::Part(Part { index: 5, value, total_bytes: 300_000, part: 1, data }),
        Message::Want { index: 5, value },
    ]
}

fn chain() -> Chain {
    let missed = vec![Missed { node: NodeId(3), skips: 1, next: 2 }];
    let turn = Turn { owner: NodeId(1), leader: NodeId(2), until: 1029, lasted_ms: 900, missed };
    Chain { version: CHAIN_VERSION, index: 5, value: Hash32([1; 32]), turn }
}

#[test]
fn formats_do_not_change() {
    let bytes = |encoded: std::io::Result<Vec<u8>>| hex(&encoded.unwrap());
    let batch = value(Body::Batch(Bytes::from_static(b"batch")));
    let rows = [
        (
            "a value",
            bytes(borsh::to_vec(&batch)),
            concat!(
                "0205000000000000000101010101010101010101010101010101010101010101010101010101010101020000",
                "00030000000104000000bc0200000000000001050000006261746368",
            ),
        ),
        (
            "a blank",
            bytes(borsh::to_vec(&value(Body::Blank))),
            concat!(
                "0205000000000000000101010101010101010101010101010101010101010101010101010101010101020000",
                "000300000000bc0200000000000000",
            ),
        ),
        (
            "a decided value",
            bytes(borsh::to_vec(&decided())),
            concat!(
                "0205000000000000000101010101010101010101010101010101010101010101010101010101010101020000",
                "00030000000104000000bc020000000000000105000000626174636806000000010000000700000008080808",
                "0808080808080808080808080808080808080808080808080808080808080808080808080808080808080808",
                "08080808080808080808080808080808",
            ),
        ),
        (
            "a chain",
            hex(&chain().encode()),
            concat!(
                "0205000000000000000101010101010101010101010101010101010101010101010101010101010101010000",
                "000200000005040000000000008403000000000000010000000300000001000200",
            ),
        ),
        ("a value's record", bytes(borsh::to_vec(&records()[0])), "0500000000000000000500000062797465730300000001"),
        (
            "a ballot's record",
            bytes(borsh::to_vec(&records()[1])),
            concat!(
                "0500000000000000010107070707070707070707070707070707070707070707070707070707070707070100",
                "0001000000000200000006060606060606060606060606060606060606060606060606060606060606060500",
                "0000000000000300000001000200000008080808080808080808080808080808080808080808080808080808",
                "080808080808080808080808080808080808080808080808080808080808080808080808",
            ),
        ),
        (
            "a polka's record",
            bytes(borsh::to_vec(&records()[2])),
            concat!(
                "0500000000000000020100000001070707070707070707070707070707070707070707070707070707070707",
                "0707010000010000000002000000060606060606060606060606060606060606060606060606060606060606",
                "0606050000000000000003000000010002000000080808080808080808080808080808080808080808080808",
                "08080808080808080808080808080808080808080808080808080808080808080808080808080808",
            ),
        ),
        ("a time-out's record", bytes(borsh::to_vec(&records()[3])), "0500000000000000030209000000"),
        (
            "a ballot",
            bytes(borsh::to_vec(&messages()[0])),
            concat!(
                "0001070707070707070707070707070707070707070707070707070707070707070701000001000000000200",
                "0000060606060606060606060606060606060606060606060606060606060606060605000000000000000300",
                "0000000101000000010505050505050505050505050505050505050505050505050505050505050505020000",
                "0008080808080808080808080808080808080808080808080808080808080808080808080808080808080808",
                "080808080808080808080808080808080808080808",
            ),
        ),
        (
            "ballots",
            bytes(borsh::to_vec(&messages()[1])),
            concat!(
                "0102010000000107070707070707070707070707070707070707070707070707070707070707070100000100",
                "0000000200000006060606060606060606060606060606060606060606060606060606060606060500000000",
                "0000000300000001000200000008080808080808080808080808080808080808080808080808080808080808",
                "080808080808080808080808080808080808080808080808080808080808080808",
            ),
        ),
        (
            "a part",
            bytes(borsh::to_vec(&messages()[2])),
            concat!(
                "0205000000000000000505050505050505050505050505050505050505050505050505050505050505e09304",
                "0001000400000064617461",
            ),
        ),
        (
            "a question",
            bytes(borsh::to_vec(&messages()[3])),
            "0305000000000000000505050505050505050505050505050505050505050505050505050505050505",
        ),
    ];
    for (what, encoded, golden) in rows {
        assert_eq!(encoded, golden, "{what}");
    }
    assert_eq!(batch.id().to_string(), "3d2da6aa9dfd51ebfc442f63dbc6a2cecb37a67e2ee8bd63592988e4066409c4");
    assert_eq!(Value::id_of(&batch.encode()), batch.id());
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..200_usize) {
        let _ = borsh::from_slice::<Value>(&bytes);
        let _ = borsh::from_slice::<Decided>(&bytes);
        let _ = borsh::from_slice::<Chain>(&bytes);
        let _ = borsh::from_slice::<Record>(&bytes);
        let _ = borsh::from_slice::<Message>(&bytes);
        for message in messages() {
            let whole = borsh::to_vec(&message).unwrap();
            prop_assert_eq!(borsh::from_slice::<Message>(&whole).unwrap(), message);
            let cut = cut.min(whole.len() - 1);
            prop_assert!(borsh::from_slice::<Message>(&whole[..cut]).is_err());
        }
        for record in records() {
            let whole = borsh::to_vec(&record).unwrap();
            prop_assert_eq!(borsh::from_slice::<Record>(&whole).unwrap(), record);
        }
    }
}

fn key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"a member's key")
}

fn committee(nodes: std::ops::RangeInclusive<u32>) -> Committee {
    let member = |node: u32| Member { node: NodeId(node), org: OrgId(1), key: key(node).public() };
    let members = nodes.map(member).collect();
    Committee::of(Engine::Bft, GroupId(0x0100_0001), Incarnation(0), Epoch(0), members)
}

/// A value of a round, by who proposes in it.
fn made(chain: &Chain, committee: &Committee, round: u32) -> Value {
    let proposer = chain.turn.proposer(committee, round);
    let (index, previous) = (chain.index + 1, chain.value);
    Value { version: VALUE_VERSION, index, previous, proposer, round, heir: None, lasted_ms: 0, body: Body::Blank }
}

fn after(chain: &Chain, committee: &Committee, round: u32) -> Chain {
    let value = made(chain, committee, round);
    chain.after(&value, value.id(), committee)
}

#[test]
fn the_leader_of_an_order_follows_from_where_it_begins_and_the_next_rounds_are_the_others() {
    let committee = committee(1..=4);
    for (index, leader) in [(0, 1), (1, 2), (7, 4), (8, 1)] {
        let turn = Turn::first(index, &committee);
        let expected = (NodeId(leader), NodeId(leader), index + TURN_ENTRIES);
        assert_eq!((turn.owner, turn.leader, turn.until), expected);
    }
    let turn = Turn::first(2, &committee);
    let rounds: Vec<u32> = (0..6).map(|round| turn.proposer(&committee, round).0).collect();
    assert_eq!(rounds, [3, 4, 1, 2, 3, 4]);
    assert!(turn.proposer(&committee, u32::MAX).0 <= 4);
}

#[test]
fn a_leader_stays_for_its_turn_and_then_the_next_one_leads() {
    let committee = committee(1..=4);
    let mut chain = Chain::start(0, Hash32::ZERO, &committee);
    for entry in 1..=4 * TURN_ENTRIES {
        let leader = 1 + (entry - 1) / TURN_ENTRIES;
        assert_eq!(chain.turn.leader, NodeId(leader as u32), "entry {entry}");
        chain = after(&chain, &committee, 0);
        assert_eq!(chain.index, entry);
    }
    assert_eq!(chain.turn.leader, NodeId(1));
    assert!(chain.turn.missed.is_empty());
}

#[test]
fn a_turn_ends_with_the_first_value_that_says_that_its_time_is_over() {
    let committee = committee(1..=4);
    let chain = Chain::start(0, Hash32::ZERO, &committee);
    let at = |index: u64, lasted_ms: u64| Value { index, lasted_ms, ..made(&chain, &committee, 0) };
    let turn = chain.turn.after(&at(1, TURN_MS - 1), &committee);
    assert_eq!((turn.owner, turn.until, turn.lasted_ms), (NodeId(1), TURN_ENTRIES, TURN_MS - 1));
    for lasted_ms in [TURN_MS, u64::MAX] {
        let next = turn.after(&at(2, lasted_ms), &committee);
        let expected = (NodeId(2), NodeId(2), 2 + TURN_ENTRIES, 0);
        assert_eq!((next.owner, next.leader, next.until, next.lasted_ms), expected);
        assert!(next.missed.is_empty() && next.well_formed(2));
    }
    // Its last value hands over to nobody.
    let with_heir = Value { heir: Some(NodeId(4)), ..at(2, TURN_MS) };
    assert_eq!(turn.after(&with_heir, &committee).leader, NodeId(2));
}

#[test]
fn a_member_has_seen_a_turn_last_as_long_as_it_has_and_as_its_values_have_said() {
    let committee = committee(1..=4);
    let first = Turn::first(0, &committee);
    let told = |lasted_ms: u64| Turn { lasted_ms, ..first.clone() };
    let mut age = Age::new(&first, Tick(1_000));
    assert_eq!(age.ms(Tick(2_400)), 1_400);
    age.applied(&told(100), Tick(2_400));
    assert_eq!(age.ms(Tick(2_400)), 1_400, "it has seen for itself that this is not true");
    age.applied(&told(9_000), Tick(2_500));
    assert_eq!((age.ms(Tick(2_500)), age.ms(Tick(2_600))), (9_000, 9_100), "it may have come later");
    assert_eq!(age.ms(Tick(99_000)), 14_000, "what stands still is no slow leader");
    assert_eq!(age.ms(Tick(0)), 9_000);
    let next = Turn { until: 7 + TURN_ENTRIES, ..told(0) };
    age.applied(&next, Tick(5_000));
    assert_eq!(age, Age::new(&next, Tick(5_000)), "another turn");
}

#[test]
fn who_misses_its_turn_is_left_out_of_more_and_more_and_forgiven_when_it_leads_again() {
    let committee = committee(1..=4);
    let mut chain = Chain::start(0, Hash32::ZERO, &committee);
    chain = after(&chain, &committee, 2);
    let turn = &chain.turn;
    assert_eq!((turn.owner, turn.leader, turn.until), (NodeId(1), NodeId(3), TURN_ENTRIES), "3 leads on in 1's turn");
    let missed = |node, skips, next| Missed { node: NodeId(node), skips, next };
    assert_eq!(chain.turn.missed, [missed(1, SKIPS_FIRST, 32), missed(2, SKIPS_FIRST, 32)]);
    let mut owners = Vec::new();
    for turns in 1..=36 {
        while chain.index < turns * TURN_ENTRIES {
            chain = after(&chain, &committee, 0);
        }
        assert_eq!(chain.turn.leader, chain.turn.owner);
        owners.push(chain.turn.owner.0);
    }
    let (between, then) = owners.split_at(2 * usize::from(SKIPS_FIRST));
    assert!(between.chunks(2).all(|pair| pair == [3, 4]), "1 and 2 are left out of sixteen turns each");
    assert_eq!(then, [2, 3, 4, 1]);
    assert_eq!(chain.turn.missed, [missed(1, 0, 32)], "2 has led a whole turn");
    chain = after(&chain, &committee, 1);
    assert_eq!(chain.turn.missed, [missed(1, 32, 64)]);
    let mut again = Turn { owner: NodeId(1), leader: NodeId(1), until: u64::MAX, lasted_ms: 0, missed: Vec::new() };
    for _ in 0..20 {
        let mut value = made(&chain, &committee, 1);
        value.proposer = NodeId(2);
        again = Turn { leader: NodeId(1), ..again.after(&value, &committee) };
    }
    assert_eq!(again.missed, [missed(1, SKIPS_MAX, SKIPS_MAX)]);
}

#[test]
fn an_heir_leads_in_the_rest_of_the_turn_when_it_is_a_member_and_who_is_none_any_more_is_forgotten() {
    let committee = committee(1..=4);
    let chain = Chain::start(0, Hash32::ZERO, &committee);
    let mut value = made(&chain, &committee, 1);
    value.heir = Some(NodeId(4));
    let next = chain.turn.after(&value, &committee);
    assert_eq!((next.owner, next.leader, next.until), (NodeId(1), NodeId(4), TURN_ENTRIES));
    let last = Value { index: TURN_ENTRIES, ..value.clone() };
    let then = chain.turn.after(&last, &committee);
    assert_eq!(
        (then.owner, then.leader, then.until),
        (NodeId(2), NodeId(2), 2 * TURN_ENTRIES),
        "nothing is left of it"
    );
    value.heir = Some(NodeId(9));
    assert_eq!(chain.turn.after(&value, &committee).leader, NodeId(2));
    // The owner loses its seat: its turn ends when it would have, and goes to the one behind it.
    let smaller = self::committee(2..=4);
    let value = made(&Chain { turn: next.clone(), ..chain }, &smaller, 0);
    let next = next.after(&value, &smaller);
    assert!(next.missed.is_empty() && next.well_formed(value.index));
    assert_eq!((next.owner, next.leader, next.until), (NodeId(1), NodeId(4), TURN_ENTRIES));
    let then = next.after(&Value { index: TURN_ENTRIES, ..value }, &smaller);
    assert_eq!((then.owner, then.leader), (NodeId(2), NodeId(2)));
}

#[test]
fn a_turn_that_nobody_can_have_is_not_well_formed_and_overflows_nothing() {
    let good = chain();
    assert!(good.well_formed());
    let missed = |node, skips, next| Missed { node: NodeId(node), skips, next };
    let with = |missed: &[Missed]| Turn { missed: missed.to_vec(), ..good.turn.clone() };
    let many: Vec<Missed> = (0..=COMMITTEE_MAX as u32).map(|node| missed(node, 1, 2)).collect();
    let rows = [
        ("over", Turn { until: 5, ..good.turn.clone() }),
        ("too long", Turn { until: 5 + TURN_ENTRIES + 1, ..good.turn.clone() }),
        ("for ever", Turn { until: u64::MAX, ..good.turn.clone() }),
        ("over by the time", Turn { lasted_ms: TURN_MS, ..good.turn.clone() }),
        ("out of order", with(&[missed(3, 1, 2), missed(2, 1, 2)])),
        ("twice", with(&[missed(3, 1, 2), missed(3, 1, 2)])),
        ("left out for too long", with(&[missed(3, SKIPS_MAX + 1, 2)])),
        ("too long the next time", with(&[missed(3, 1, SKIPS_MAX + 1)])),
        ("not at all the next time", with(&[missed(3, 1, 0)])),
        ("more than there are", with(&many)),
    ];
    for (what, turn) in rows {
        assert!(!Chain { turn, ..good.clone() }.well_formed(), "{what}");
    }
    assert!(!Chain { version: CHAIN_VERSION + 1, ..good.clone() }.well_formed());
    let turn = Turn { until: u64::MAX, ..good.turn };
    assert!(!Chain { index: u64::MAX - 1, turn, ..good }.well_formed(), "there is no room behind it");

    let committee = committee(1..=4);
    let value = Value { index: u64::MAX, round: u32::MAX, ..value(Body::Blank) };
    let turn = Turn { missed: vec![missed(1, u16::MAX, u16::MAX)], ..Turn::first(u64::MAX, &committee) };
    assert_eq!(turn.after(&value, &committee).until, u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// As many turns as there are members, with as many liars as are borne: they hand over to each other or to
    /// anybody, or say nothing, as they like. Honest members are in time and keep their turns.
    #[test]
    fn whatever_liars_do_who_misses_nothing_leads_a_whole_turn(faults in 1..=3_u32, seed in any::<u64>()) {
        let nodes = 3 * faults + 1;
        let committee = committee(1..=nodes);
        let mut state = seed;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % below
        };
        let mut liars: Vec<NodeId> = Vec::new();
        while liars.len() < faults as usize {
            let node = NodeId(1 + draw(nodes));
            if !liars.contains(&node) {
                liars.push(node);
            }
        }
        let first = u64::from(draw(nodes));
        let mut turn = Turn::first(first, &committee);
        let mut led = std::collections::BTreeMap::<NodeId, u64>::new();
        for index in first + 1..=first + u64::from(nodes) * TURN_ENTRIES {
            let mut round = 0;
            while liars.contains(&turn.proposer(&committee, round)) && draw(4) == 0 {
                round += 1;
            }
            let proposer = turn.proposer(&committee, round);
            let lies = liars.contains(&proposer);
            let heir = match draw(4) {
                1 if lies => Some(NodeId(1 + draw(nodes))),
                2 | 3 if lies => Some(liars[draw(faults) as usize]),
                _ => None,
            };
            if proposer == turn.owner {
                *led.entry(proposer).or_default() += 1;
            }
            let heir = heir.filter(|heir| *heir != proposer);
            turn = turn.after(&Value { index, proposer, round, heir, ..value(Body::Blank) }, &committee);
            prop_assert!(turn.well_formed(index), "{:?}", turn);
        }
        for member in committee.members.iter().filter(|member| !liars.contains(&member.node)) {
            let led = led.get(&member.node).copied().unwrap_or(0);
            prop_assert!(led >= TURN_ENTRIES && led.is_multiple_of(TURN_ENTRIES), "{} has led {}", member.node, led);
        }
    }
}

fn certified(value: &Value, round: u32, committee: &Committee, by: &[u32]) -> Decided {
    let ballot = Ballot {
        version: BALLOT_VERSION,
        cluster: CLUSTER,
        group: committee.group,
        incarnation: committee.incarnation,
        committee: committee.hash(),
        index: value.index,
        round,
        kind: BallotKind::Precommit,
        value: Some(value.id()),
        node: NodeId(0),
    };
    let signed =
        by.iter().map(|node| (NodeId(*node), Ballot { node: NodeId(*node), ..ballot }.sign(&key(*node)).signature));
    Decided { value: value.clone(), round, signatures: signed.collect() }
}

#[test]
fn a_decided_value_is_what_two_thirds_have_precommitted_in_one_round() {
    let committee = committee(1..=4);
    let value = made(&Chain::start(0, Hash32::ZERO, &committee), &committee, 0);
    let judged = |decided: &Decided| decided.verify(CLUSTER, &committee);
    for by in [&[1, 2, 3][..], &[1, 2, 4], &[1, 2, 3, 4]] {
        assert_eq!(judged(&certified(&value, 2, &committee, by)), Ok(()));
    }
    let good = certified(&value, 2, &committee, &[1, 2, 3]);
    let rows = [
        ("two", certified(&value, 2, &committee, &[1, 2]), DecidedError::TooFew),
        ("one twice", certified(&value, 2, &committee, &[1, 2, 2]), DecidedError::Signer),
        ("out of order", certified(&value, 2, &committee, &[2, 1, 3]), DecidedError::Signer),
        ("no seat", certified(&value, 2, &committee, &[1, 2, 5]), DecidedError::Signer),
        ("another round", Decided { round: 3, ..good.clone() }, DecidedError::Signature),
        (
            "another value",
            Decided { value: Value { round: 1, ..value.clone() }, ..good.clone() },
            DecidedError::Signature,
        ),
        ("another committee", certified(&value, 2, &self::committee(1..=5), &[1, 2, 3]), DecidedError::Signature),
    ];
    for (what, decided, error) in rows {
        assert_eq!(judged(&decided), Err(error), "{what}");
    }
    assert_eq!(good.verify(ClusterId(Hash32([8; 32])), &committee), Err(DecidedError::Signature));
}

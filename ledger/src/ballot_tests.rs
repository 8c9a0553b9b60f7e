use super::*;
use crate::committee::{Engine, Member};
use crate::ids::{Epoch, OrgId};

const CLUSTER: ClusterId = ClusterId(Hash32([7; 32]));
const GROUP: GroupId = GroupId(0x0100_0001);

fn key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"a member's key")
}

fn committee(epoch: u64) -> Committee {
    let members = (1..=4).map(|node| Member { node: NodeId(node), org: OrgId(node as u16), key: key(node).public() });
    Committee::of(Engine::Bft, GROUP, Incarnation(0), Epoch(epoch), members.collect())
}

fn ballot(node: u32, kind: BallotKind, value: Option<u8>) -> Ballot {
    Ballot {
        version: BALLOT_VERSION,
        cluster: CLUSTER,
        group: GROUP,
        incarnation: Incarnation(0),
        committee: committee(0).hash(),
        index: 9,
        round: 2,
        kind,
        value: value.map(|byte| Hash32([byte; 32])),
        node: NodeId(node),
    }
}

#[test]
fn a_ballot_counts_for_what_it_names_and_nothing_else() {
    let signed = ballot(1, BallotKind::Prevote, Some(1)).sign(&key(1));
    assert_eq!(signed.verify(&CLUSTER, &committee(0)), Ok(()));
    let changes: [(&str, fn(&mut Ballot), BallotError); 9] = [
        ("version", |b| b.version = 2, BallotError::Version),
        ("cluster", |b| b.cluster = ClusterId(Hash32([8; 32])), BallotError::Committee),
        ("group", |b| b.group = GroupId(0x0100_0002), BallotError::Committee),
        ("incarnation", |b| b.incarnation = Incarnation(1), BallotError::Committee),
        ("committee", |b| b.committee = committee(1).hash(), BallotError::Committee),
        ("index", |b| b.index = 10, BallotError::Signature),
        ("round", |b| b.round = 3, BallotError::Signature),
        ("kind", |b| b.kind = BallotKind::Precommit, BallotError::Signature),
        ("signer", |b| b.node = NodeId(5), BallotError::Signer),
    ];
    for (what, change, expected) in changes {
        let mut other = signed;
        change(&mut other.ballot);
        assert_eq!(other.verify(&CLUSTER, &committee(0)), Err(expected), "{what}");
    }
    let forged = ballot(2, BallotKind::Prevote, Some(1)).sign(&key(1));
    assert_eq!(forged.verify(&CLUSTER, &committee(0)), Err(BallotError::Signature));
}

#[test]
fn a_proposal_has_a_value_and_refers_to_an_earlier_round() {
    let proposal = |valid_round, value| ballot(1, BallotKind::Proposal { valid_round }, value).sign(&key(1));
    assert_eq!(proposal(None, Some(1)).verify(&CLUSTER, &committee(0)), Ok(()));
    assert_eq!(proposal(Some(1), Some(1)).verify(&CLUSTER, &committee(0)), Ok(()));
    assert_eq!(proposal(Some(2), Some(1)).verify(&CLUSTER, &committee(0)), Err(BallotError::Malformed));
    assert_eq!(proposal(None, None).verify(&CLUSTER, &committee(0)), Err(BallotError::Malformed));
}

#[test]
fn two_answers_to_one_question_are_proof_against_whoever_gave_them() {
    let proposal = |valid_round, value| ballot(1, BallotKind::Proposal { valid_round }, value);
    let vote = |kind, value| ballot(1, kind, value);
    let conflicts = [
        (vote(BallotKind::Prevote, Some(1)), vote(BallotKind::Prevote, Some(2))),
        (vote(BallotKind::Prevote, Some(1)), vote(BallotKind::Prevote, None)),
        (vote(BallotKind::Precommit, None), vote(BallotKind::Precommit, Some(1))),
        (proposal(None, Some(1)), proposal(None, Some(2))),
        (proposal(None, Some(1)), proposal(Some(1), Some(1))),
    ];
    for (one, other) in conflicts {
        let pair = Equivocation::of(one.sign(&key(1)), other.sign(&key(1))).unwrap();
        assert_eq!(Some(pair), Equivocation::of(other.sign(&key(1)), one.sign(&key(1))), "one form");
        assert_eq!(pair.verify(&CLUSTER, &committee(0)), Ok(NodeId(1)));
        assert_eq!(pair.verify(&CLUSTER, &committee(1)), Err(BallotError::Committee));
        let swapped = Equivocation { first: pair.second, second: pair.first };
        assert_eq!(swapped.verify(&CLUSTER, &committee(0)), Err(BallotError::NoConflict));
        let framed = Equivocation { first: one.min(other).sign(&key(2)), ..pair };
        assert!(framed.verify(&CLUSTER, &committee(0)).is_err(), "nobody is convicted by another's signature");
    }
    let honest = [
        (vote(BallotKind::Prevote, Some(1)), vote(BallotKind::Prevote, Some(1))),
        (vote(BallotKind::Prevote, Some(1)), vote(BallotKind::Precommit, Some(2))),
        (vote(BallotKind::Prevote, Some(1)), Ballot { round: 3, ..vote(BallotKind::Prevote, Some(2)) }),
        (vote(BallotKind::Prevote, Some(1)), Ballot { index: 10, ..vote(BallotKind::Prevote, Some(2)) }),
        (vote(BallotKind::Prevote, Some(1)), ballot(2, BallotKind::Prevote, Some(2))),
        (vote(BallotKind::Prevote, Some(1)), proposal(None, Some(2))),
    ];
    for (one, other) in honest {
        assert_eq!(Equivocation::of(one.sign(&key(1)), other.sign(&key(other.node.0))), None, "{one:?} {other:?}");
    }
}

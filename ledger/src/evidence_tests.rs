use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::ballot::{BALLOT_VERSION, Ballot, BallotKind};
use crate::committee::{Engine, Member};
use crate::crypto::SecretKey;
use crate::hash::Hash32;
use crate::ids::{ClusterId, Epoch, Incarnation, NodeId, OrgId};

type State = BTreeMap<Vec<u8>, Bytes>;

const CLUSTER: ClusterId = ClusterId(Hash32([7; 32]));
const GROUP: GroupId = GroupId::shard(3);

fn key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"a member's key")
}

fn committee(engine: Engine) -> Committee {
    let members = (1..=4).map(|node| Member { node: NodeId(node), org: OrgId(1), key: key(node).public() });
    Committee::of(engine, GROUP, Incarnation(0), Epoch(0), members.collect())
}

/// Two prevotes of a node for one round, by the key of `signer`.
fn twice(committee: &Committee, node: u32, round: u32, signer: u32) -> Equivocation {
    let ballot = |value: u8| Ballot {
        version: BALLOT_VERSION,
        cluster: CLUSTER,
        group: GROUP,
        incarnation: Incarnation(0),
        committee: committee.hash(),
        index: 9,
        round,
        kind: BallotKind::Prevote,
        value: Some(Hash32([value; 32])),
        node: NodeId(node),
    };
    let [one, other] = [1, 2].map(|value| ballot(value).sign(&key(signer)));
    Equivocation::of(one, other).expect("they exclude each other")
}

fn at(height: u64) -> BlockContext {
    BlockContext { cluster: CLUSTER, group: GROUP, height: Height(height), time_ms: TimeMs(height * 10) }
}

fn state() -> State {
    let known = [Engine::Bft, Engine::Raft].map(committee);
    let encode = |committee: &Committee| Bytes::from(borsh::to_vec(committee).expect("it encodes"));
    known.iter().map(|known| (schema::committee(GROUP, &known.hash()), encode(known))).collect()
}

fn run(state: &mut State, owned: BitPrefix, height: u64, proof: &Equivocation) -> Result<Keeping, Reject> {
    let mut view = View::new(&*state);
    let kept = keep(&mut view, &at(height), owned, proof);
    let writes = view.into_writes().expect("no fault");
    assert_eq!(writes.len(), usize::from(kept == Ok(Keeping::New)), "nothing else leaves a trace");
    for (key, value) in writes {
        state.insert(key, value.expect("evidence is never removed"));
    }
    kept
}

#[test]
fn a_proof_is_kept_once_with_its_block_and_three_of_a_member_are_enough() {
    let (mut state, bft, owned) = (state(), committee(Engine::Bft), BitPrefix::ALL);
    let first = twice(&bft, 2, 0, 2);
    assert_eq!(run(&mut state, owned, 5, &first), Ok(Keeping::New));
    assert_eq!(run(&mut state, owned, 6, &first), Ok(Keeping::Known));
    for round in 1..3 {
        assert_eq!(run(&mut state, owned, 7, &twice(&bft, 2, round, 2)), Ok(Keeping::New));
    }
    assert_eq!(run(&mut state, owned, 8, &twice(&bft, 2, 3, 2)), Ok(Keeping::Enough));
    assert_eq!(run(&mut state, owned, 8, &twice(&bft, 3, 0, 3)), Ok(Keeping::New), "each member has its own share");
    let mut view = View::new(&state);
    let all = kept(&mut view, owned);
    assert_eq!(all.len(), 4);
    let found = all.iter().find(|evidence| evidence.proof == first).expect("it is kept");
    assert_eq!((found.version, found.height, found.time_ms), (1, Height(5), TimeMs(50)));
}

#[test]
fn what_proves_nothing_is_refused_and_leaves_no_trace() {
    let (mut state, bft) = (state(), committee(Engine::Bft));
    let good = twice(&bft, 2, 0, 2);
    let unknown = Committee { epoch: Epoch(9), ..bft.clone() };
    for (what, proof, expected) in [
        ("a key that is not the member's", twice(&bft, 2, 0, 3), Reject::EvidenceUnproved),
        ("a node without a seat", twice(&bft, 7, 0, 7), Reject::EvidenceUnproved),
        ("one ballot, twice", Equivocation { second: good.first, ..good }, Reject::EvidenceUnproved),
        ("the other way round", Equivocation { first: good.second, second: good.first }, Reject::EvidenceUnproved),
        ("members of a Raft group cast no ballots", twice(&committee(Engine::Raft), 2, 0, 2), Reject::EvidenceUnproved),
        ("a committee that nobody knows", twice(&unknown, 2, 0, 2), Reject::CommitteeUnknown),
    ] {
        assert_eq!(run(&mut state, BitPrefix::ALL, 5, &proof), Err(expected), "{what}");
    }
}

#[test]
fn it_lies_in_the_part_of_the_tree_that_the_group_owns() {
    let bft = committee(Engine::Bft);
    let all = BitPrefix::ALL;
    for owned in [all, all.child(false), all.child(true), all.child(true).child(false).child(true)] {
        let mut state = state();
        assert_eq!(run(&mut state, owned, 5, &twice(&bft, 2, 0, 2)), Ok(Keeping::New));
        let key = state.keys().find(|key| key[0] == schema::STATE).expect("it is a leaf");
        let position = schema::tree_position(key).expect("a leaf has a position");
        assert!(owned.in_tree().contains(&position), "{owned}");
        assert_eq!(kept(&mut View::new(&state), owned).len(), 1);
    }
}

use ledger::Committee;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
use ledger::ids::{Epoch, NodeId};
use ledger::machine::Driver;

use super::*;
use crate::core::driver::testing::{at_zero, block, config};
use crate::core::driver::{DriverConfig, Input};
use crate::core::entry::{Command, Entry};
use crate::core::support::{self, PEER, SHARD, genesis, header, liars, node_key};

/// Two prevotes of a node in one round, signed by `signer`.
fn twice(committee: &Committee, node: u32, round: u32, signer: u32) -> Equivocation {
    two_of(BallotKind::Prevote, committee, node, round, signer)
}

/// As [`twice`], two ballots of another kind.
fn two_of(kind: BallotKind, committee: &Committee, node: u32, round: u32, signer: u32) -> Equivocation {
    let ballot = |value: u8| Ballot {
        version: BALLOT_VERSION,
        cluster: genesis().cluster_id(),
        group: committee.group,
        incarnation: committee.incarnation,
        committee: committee.hash(),
        index: 5,
        round,
        kind,
        value: Some(Hash32([value; 32])),
        node: NodeId(node),
    };
    let [one, other] = [1, 2].map(|value| ballot(value).sign(&node_key(signer)));
    Equivocation::of(one, other).expect("they exclude each other")
}

struct Bench {
    driver: GroupDriver,
    now: Tick,
}

impl Bench {
    /// A replica of a group at block 0, with this leader.
    fn new(group: GroupId, node: u32, leader: u32) -> Self {
        let mut bench = Self { driver: GroupDriver::new(DriverConfig { group, ..config(node) }), now: Tick(0) };
        let known = vec![support::committee(GroupId::BEACON, 0), liars(), support::committee(PEER, 0)];
        bench.step(Input::System(at_zero(group, known)));
        bench.step(Input::Role { leads: node == leader, leader: Some(NodeId(leader)) });
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.driver.step(self.now, input, &mut out);
        out
    }

    fn found(&mut self, proof: Equivocation) -> Vec<Output> {
        self.step(Input::Evidence(Box::new(proof)))
    }

    fn heard(&mut self, from: u32, proof: Equivocation) -> Vec<Output> {
        self.step(Input::Peer { from: NodeId(from), message: Box::new(PeerMessage::Evidence(proof)) })
    }

    fn after(&mut self, ms: u64) -> Vec<Output> {
        self.now.0 += ms;
        self.step(Input::Timer)
    }

    /// A block takes the proof.
    fn kept(&mut self, height: u64, proof: Equivocation) -> Vec<Output> {
        let outcomes = vec![CommandOutcome::Evidence(Box::new(proof))];
        self.step(Input::Committed(CommittedBlock { outcomes, ..block(header(SHARD, height)) }))
    }
}

/// What is proposed of evidence, with the proposal.
fn proposed(out: &[Output]) -> Vec<(u64, Equivocation)> {
    let mut all = Vec::new();
    for output in out {
        let Output::Propose { id, entry } = output else { continue };
        for command in Entry::decode(entry).commands {
            if let Command::Evidence(bytes) = command {
                all.push((*id, borsh::from_slice(&bytes).expect("a proof")));
            }
        }
    }
    all
}

/// To whom evidence is sent.
fn told(out: &[Output]) -> Vec<(GroupId, u32)> {
    let to = |output: &Output| match output {
        Output::Send { node, group, message: PeerMessage::Evidence(_) } => Some((*group, node.0)),
        _ => None,
    };
    out.iter().filter_map(to).collect()
}

fn beacon() -> Vec<(GroupId, u32)> {
    support::nodes(GroupId::BEACON).map(|node| (GroupId::BEACON, node)).to_vec()
}

#[test]
fn a_leader_proposes_a_proof_until_the_state_has_it_and_then_tells_the_beacon() {
    let mut leader = Bench::new(SHARD, 1, 1);
    let proof = twice(&liars(), 2, 0, 2);
    let out = leader.found(proof);
    assert_eq!(proposed(&out), [(0, proof)]);
    assert_eq!(proposed(&leader.found(proof)), [], "it is known");
    leader.step(Input::Proposed { id: 0, accepted: false });
    assert_eq!(proposed(&leader.after(AGAIN_MS - 1)), []);
    assert_eq!(proposed(&leader.after(1)), [(1, proof)], "what is lost is proposed again");
    leader.step(Input::Proposed { id: 1, accepted: true });
    leader.kept(1, proof);
    let out = leader.after(AGAIN_MS);
    assert_eq!((proposed(&out), told(&out)), (vec![], beacon()));
    assert_eq!(told(&leader.after(BEACON_EVERY_MS - 1)), []);
    assert_eq!(told(&leader.after(1)), beacon(), "as long as the node has a seat");
    let others = vec![support::committee(GroupId::BEACON, 0), support::committee(SHARD, 1)];
    leader.step(Input::Committees(others.into()));
    assert_eq!(told(&leader.after(BEACON_EVERY_MS)), beacon(), "node 2 has one in the next committee, too");
    leader.step(Input::Committees(vec![support::committee(GroupId::BEACON, 0)].into()));
    assert_eq!(told(&leader.after(BEACON_EVERY_MS)), []);
}

#[test]
fn two_proposals_and_two_precommits_are_passed_on_as_two_prevotes_are() {
    let (new, again) = (BallotKind::Proposal { valid_round: None }, BallotKind::Proposal { valid_round: Some(0) });
    for kind in [new, again, BallotKind::Prevote, BallotKind::Precommit] {
        let proof = two_of(kind, &liars(), 2, 1, 2);
        let mut leader = Bench::new(SHARD, 1, 1);
        assert_eq!(proposed(&leader.heard(3, proof)), [(0, proof)], "{kind:?}");
        leader.step(Input::Proposed { id: 0, accepted: true });
        leader.kept(1, proof);
        assert_eq!(told(&leader.after(AGAIN_MS)), beacon(), "{kind:?}");
        let mut follower = Bench::new(SHARD, 3, 1);
        assert_eq!(told(&follower.found(proof)), [(SHARD, 1)], "{kind:?}");
        let mut keeper = Bench::new(GroupId::BEACON, 7, 7);
        assert_eq!(proposed(&keeper.heard(3, proof)), [(0, proof)], "{kind:?}");
        // What nobody casts is no proof of anything.
        let later = two_of(BallotKind::Proposal { valid_round: Some(1) }, &liars(), 2, 1, 2);
        assert_eq!(proposed(&Bench::new(SHARD, 1, 1).heard(3, later)), []);
    }
}

#[test]
fn of_a_liar_that_the_state_says_enough_of_nothing_more_is_proposed() {
    let mut leader = Bench::new(SHARD, 1, 1);
    for round in 0..EVIDENCE_PER_MEMBER_MAX as u32 {
        leader.kept(u64::from(round) + 1, twice(&liars(), 2, round, 2));
    }
    assert_eq!(proposed(&leader.found(twice(&liars(), 2, 9, 2))), []);
    let other = twice(&liars(), 3, 9, 3);
    assert_eq!(proposed(&leader.found(other)), [(0, other)], "of another member");
}

#[test]
fn others_give_it_to_the_leader_and_one_about_the_leader_to_the_beacon() {
    let mut follower = Bench::new(SHARD, 3, 1);
    assert_eq!(told(&follower.found(twice(&liars(), 2, 0, 2))), [(SHARD, 1)]);
    assert_eq!(told(&follower.after(AGAIN_MS)), [(SHARD, 1)], "again until it is in state");
    follower.kept(1, twice(&liars(), 2, 0, 2));
    assert_eq!(told(&follower.after(BEACON_EVERY_MS)), []);
    // A leader proposes nothing against itself.
    assert_eq!(told(&follower.found(twice(&liars(), 1, 0, 1))), beacon());
    // The one that leads next is told, and proposes it.
    let out = follower.step(Input::Role { leads: true, leader: Some(NodeId(3)) });
    assert_eq!(proposed(&out), [(0, twice(&liars(), 1, 0, 1))]);
}

#[test]
fn what_proves_nothing_is_dropped() {
    let raft = support::committee(SHARD, 0);
    let unknown = Committee { epoch: Epoch(7), ..liars() };
    for (what, proof) in [
        ("another's key", twice(&liars(), 2, 0, 3)),
        ("no seat", twice(&liars(), 9, 0, 9)),
        ("a committee without ballots", twice(&raft, 2, 0, 2)),
        ("a committee that is not known", twice(&unknown, 2, 0, 2)),
    ] {
        let mut leader = Bench::new(SHARD, 1, 1);
        assert_eq!(proposed(&leader.found(proof)), [], "{what}");
        assert_eq!(proposed(&leader.heard(3, proof)), [], "{what}");
    }
    let good = twice(&liars(), 2, 0, 2);
    let mut leader = Bench::new(SHARD, 1, 1);
    assert_eq!(proposed(&leader.heard(6, good)), [], "from a node of another group");
    assert_eq!(proposed(&leader.heard(3, good)), [(0, good)]);
    let mut elsewhere = Bench::new(PEER, 4, 4);
    assert_eq!(proposed(&elsewhere.found(good)), [], "another group's is not this one's");
}

#[test]
fn the_beacon_takes_what_members_of_any_group_have_signed() {
    let good = twice(&liars(), 2, 0, 2);
    let mut leader = Bench::new(GroupId::BEACON, 7, 7);
    assert_eq!(proposed(&leader.heard(5, good)), [], "a node that may not speak for the group");
    assert_eq!(proposed(&leader.heard(3, good)), [(0, good)]);
    leader.step(Input::Proposed { id: 0, accepted: true });
    assert_eq!(proposed(&leader.heard(4, good)), [], "once");
    let mut follower = Bench::new(GroupId::BEACON, 8, 7);
    assert_eq!(told(&follower.heard(3, good)), [(GroupId::BEACON, 7)]);
    let mut leader = Bench::new(GroupId::BEACON, 7, 7);
    assert_eq!(proposed(&leader.heard(8, good)), [(0, good)], "passed on within the beacon");
}

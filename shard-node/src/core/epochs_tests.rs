//! Epochs in the composed machine: deadlines call for blocks, and blocks turn epochs.

use beacon::command::BeaconCommand;
use beacon::epochs::{Contribution, Fate, Part, commitment_of};
use beacon::{EpochBook, EpochPolicy};
use ledger::crypto::SecretKey;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use ledger::reject::Reject;

use crate::core::consortium::{Consortium, SHARDS, borsh_of};
use crate::core::entry::Command;
use crate::core::machine::CommandOutcome;

const LENGTH_MS: u64 = 4_000;

fn give(world: &Consortium, epoch: u64, node: NodeId, part: Part) -> Command {
    let key = SecretKey::derive(b"node", &node.0.to_be_bytes());
    Command::Contribution(borsh_of(&Contribution::sign(world.cluster, epoch, node, part, &key)))
}

fn book(world: &Consortium) -> EpochBook {
    world.chain(GroupId::BEACON).read(EpochBook::read)
}

#[test]
fn contributions_are_sequenced_and_deadlines_turn_the_epoch() {
    let mut world = Consortium::new();
    let none = world.block(GroupId::BEACON, Vec::new());
    assert_eq!(none.next_deadline, None, "without epochs nothing is due");
    let set = BeaconCommand::SetEpochs(EpochPolicy { length_ms: LENGTH_MS, ..EpochPolicy::DEFAULT });
    for org in 1..=3 {
        assert_eq!(world.beacon(org, &set), CommandOutcome::Registered);
    }
    let round = book(&world).round.expect("epoch 1 runs");
    let members: Vec<NodeId> = round.entrants.iter().map(|entrant| entrant.node).collect();
    let secret = |node: NodeId| Hash32([u8::try_from(node.0).expect("a small number"); 32]);
    let commitments: Vec<Command> = members
        .iter()
        .map(|node| give(&world, 1, *node, Part::Commitment(commitment_of(&world.cluster, 1, *node, &secret(*node)))))
        .collect();
    let block = world.block(GroupId::BEACON, commitments.clone());
    assert!(block.outcomes.iter().all(|done| *done == CommandOutcome::Registered), "{:?}", block.outcomes);
    assert_eq!(block.next_deadline, Some(round.reveal_ms), "the end of commitments calls for a block");
    let elsewhere = world.one(SHARDS[0], commitments[0].clone());
    assert_eq!(elsewhere, CommandOutcome::Ignored(Reject::UnknownGroup));
    assert_eq!(world.one(GroupId::BEACON, Command::Contribution(vec![1])), CommandOutcome::Ignored(Reject::Malformed));

    world.now = round.reveal_ms.0;
    let block = world.block(GroupId::BEACON, Vec::new());
    assert_eq!(block.next_deadline, Some(round.ends_ms));
    let late = world.one(GroupId::BEACON, commitments[0].clone());
    assert_eq!(late, CommandOutcome::Ignored(Reject::ContributionPhase));
    let secrets = members.iter().map(|node| give(&world, 1, *node, Part::Secret(secret(*node)))).collect();
    assert!(world.block(GroupId::BEACON, secrets).outcomes.iter().all(|done| *done == CommandOutcome::Registered));

    world.now = round.ends_ms.0;
    let before = world.chain(GroupId::BEACON).applied.state_root;
    let block = world.block(GroupId::BEACON, Vec::new());
    assert_ne!(block.header.state_root, before, "the state commits to the seed");
    let [record] = &book(&world).records[..] else { panic!("one has ended") };
    assert!(record.fresh && record.entrants.iter().all(|entrant| entrant.fate() == Fate::Revealed));
    assert_eq!(record.check(&world.cluster), Ok(()));
    let next = book(&world).round.expect("epoch 2 runs");
    assert_eq!((next.epoch, block.next_deadline), (2, Some(next.reveal_ms)));
}

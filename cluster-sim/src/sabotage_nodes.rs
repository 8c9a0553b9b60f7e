//! Bugs about nodes that come and go, about their keys in the registry, about who decides, and about who is accused of
//! having voted twice. Each is put back around the registry's step, in its view.

use beacon::policies::policy_key;
use beacon::{BeaconCommand, Matter, SignedCommand, accused, keys, nodes, registry};
use cross_shard::stream;
use ledger::ballot::Equivocation;
use ledger::genesis::NodeInfo;
use ledger::ids::GroupId;
use ledger::machine::{BlockContext, Machine};
use ledger::view::View;
use shard_node::core::entry::Command;
use shard_node::core::machine::{BlockWork, CommandOutcome};

use super::Sabotage;

fn is_here(sabotage: Sabotage) -> bool {
    sabotage.of_nodes() || matches!(sabotage, Sabotage::KeyTaken | Sabotage::PolicyBefore)
}

/// Applies a command to the registry with the bug; `None` where the bug changes nothing about it.
pub(super) fn apply(
    sabotage: Sabotage,
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    command: &Command,
) -> Option<CommandOutcome> {
    if let (Sabotage::AccusedUnproved, Command::Evidence(bytes)) = (sabotage, command) {
        return accuse_whomever(work, view, at, command, bytes);
    }
    let Command::Registry(bytes) = command else { return None };
    if at.group != GroupId::BEACON || !is_here(sabotage) {
        return None;
    }
    let asked = SignedCommand::decode(bytes).ok()?.parse().ok()?;
    match (sabotage, asked) {
        (Sabotage::DrainUndone, BeaconCommand::SetNodeCapacity { node, capacity: 0 }) => {
            let before = registry::node(view, node)?;
            let outcome = work.apply(view, at, command);
            if registry::node(view, node).is_some_and(|now| now.capacity == 0) && before.capacity > 0 {
                view.store(registry::node_key(node), &NodeInfo { capacity: before.capacity, ..before });
            }
            Some(outcome)
        }
        (Sabotage::NumberReused, BeaconCommand::RemoveNode { node }) => {
            let outcome = work.apply(view, at, command);
            view.delete(nodes::removed_key(node));
            Some(outcome)
        }
        (Sabotage::KeyTaken, BeaconCommand::RotateNodeKey { node, .. }) => {
            let before = registry::node(view, node)?;
            let outcome = work.apply(view, at, command);
            view.delete(keys::replaced_key(&before.key));
            Some(outcome)
        }
        (
            Sabotage::PolicyBefore,
            BeaconCommand::SplitShard { .. } | BeaconCommand::MergeShards { .. } | BeaconCommand::MoveShard { .. },
        ) => {
            let key = policy_key(Matter::Jobs);
            let in_force = view.get(&key)?;
            view.delete(key.clone());
            let outcome = work.apply(view, at, command);
            view.put(key, in_force);
            Some(outcome)
        }
        _ => None,
    }
}

/// Has the beacon accuse whoever a proof names that it has not taken.
fn accuse_whomever(
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    command: &Command,
    bytes: &[u8],
) -> Option<CommandOutcome> {
    if at.group != GroupId::BEACON {
        return None;
    }
    let proof: Equivocation = borsh::from_slice(bytes).ok()?;
    let outcome = work.apply(view, at, command);
    if matches!(outcome, CommandOutcome::Ignored(_)) {
        for (dest, message) in accused::accuse(view, &at, &proof) {
            if dest == at.group {
                work.receive(view, at, dest, message);
            } else {
                stream::emit(view, dest, message.encode());
            }
        }
    }
    Some(outcome)
}

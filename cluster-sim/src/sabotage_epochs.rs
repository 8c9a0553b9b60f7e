//! Bugs about the seeds of epochs and the deals that follow from them. Each is put back around the registry's step, in its
//! view.

use beacon::Contribution;
use beacon::epochs::{self, EpochHead, Part, Phase, commitment_of};
use beacon::registry;
use ledger::ids::GroupId;
use ledger::machine::{BlockContext, Machine};
use ledger::view::View;
use shard_node::core::entry::Command;
use shard_node::core::machine::{BlockWork, CommandOutcome};

use super::Sabotage;

/// What the bug makes of an epoch that has ended with this block, and of the one that has begun.
pub(super) fn begun(sabotage: Sabotage, view: &mut View<'_>, at: BlockContext) {
    if at.group != GroupId::BEACON {
        return;
    }
    match sabotage {
        Sabotage::SeedStands | Sabotage::DealAltered => {
            let ended = epochs::records(view).pop().filter(|record| record.ended_height == at.height && record.fresh);
            let Some(mut record) = ended else { return };
            if sabotage == Sabotage::SeedStands {
                record.seed = record.previous;
                view.store(registry::seed_key(), &record.seed);
            } else {
                let Some(mut deal) = epochs::deals(view).pop().filter(|deal| deal.epoch == record.epoch) else {
                    return;
                };
                let untouched = |group: GroupId| deal.moves.iter().all(|(moved, _)| *moved != group);
                let Some(seated) = deal.groups.iter().find(|seated| untouched(seated.group)).cloned() else { return };
                let mut members = seated.members;
                members.pop();
                deal.moves.push((seated.group, members));
                deal.moves.sort_by_key(|(group, _)| *group);
                record.deal = Some(deal.hash());
                view.store(epochs::deal_key(deal.epoch), &deal);
            }
            view.store(epochs::record_key(record.epoch), &record);
            let kept = epochs::records(view);
            view.store(registry::epochs_key(), &EpochHead::of(&kept));
        }
        Sabotage::WithholderPlays => {
            let fresh = epochs::round(view).filter(|round| round.began_height == at.height);
            let Some(mut round) = fresh else { return };
            round.entrants.iter_mut().for_each(|entrant| entrant.barred = false);
            view.store(epochs::round_key(), &round);
        }
        _ => {}
    }
}

/// Applies a contribution with the bug; `None` where the bug changes nothing about it.
pub(super) fn apply(
    sabotage: Sabotage,
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    command: &Command,
) -> Option<CommandOutcome> {
    let Command::Contribution(bytes) = command else { return None };
    if at.group != GroupId::BEACON {
        return None;
    }
    let given: Contribution = borsh::from_slice(bytes).ok()?;
    let mut round = epochs::round(view).filter(|round| round.phase_at(at.time_ms) == Phase::Reveal)?;
    match (sabotage, given.part) {
        (Sabotage::CommitLate, Part::Commitment(_)) => {
            Some(work.apply(view, BlockContext { time_ms: round.began_ms, ..at }, command))
        }
        (Sabotage::SecretUnchecked, Part::Secret(secret)) => {
            let (cluster, epoch, node) = (at.cluster, round.epoch, given.node);
            let place = round.entrants.iter().position(|entrant| entrant.node == node)?;
            let known = round.entrants[place].commitment?;
            round.entrants[place].commitment = Some(commitment_of(&cluster, epoch, node, &secret));
            view.store(epochs::round_key(), &round);
            let outcome = work.apply(view, at, command);
            if let Some(mut round) = epochs::round(view)
                && let Some(entrant) = round.entrants.get_mut(place)
            {
                entrant.commitment = Some(known);
                view.store(epochs::round_key(), &round);
            }
            Some(outcome)
        }
        _ => None,
    }
}

//! Synchronous payments of which one half was posted before both sides came to lie in one group.
//!
//! A payment within a group moves nothing over its border. If a group that this one came from has posted one half, it has
//! counted it as gone to, or come from, the other one; so the other half is counted here, too, as that of the group
//! that had the account on the other side. Otherwise the totals of this group would not be what its accounts have.

use ledger::ids::{Address, GroupId};
use ledger::rules::{Effects, OwnLeg};
use ledger::tx::Move;

use super::CommitContext;

/// Adds what left or came over a border that is gone by now. `legs` are those that were posted at once.
pub(super) fn count_lone_halves(ctx: &CommitContext<'_>, legs: &[OwnLeg<'_>], effects: &mut Effects) {
    for leg in legs {
        let Move::PaySync { from, to, asset, amount } = leg.mv else { continue };
        let pays = leg.voter.authorises;
        let peer = if pays { to } else { from };
        let both = legs.iter().any(|other| other.slot == leg.slot && other.voter.authorises != pays);
        if both || !ctx.lies_here(peer) {
            continue;
        }
        if let Some(before) = last_owner(ctx, peer) {
            let side = if pays { &mut effects.exported } else { &mut effects.imported };
            side.push((before, *asset, *amount));
        }
    }
}

/// The group that had an account of this group last, before this one.
fn last_owner(ctx: &CommitContext<'_>, account: &Address) -> Option<GroupId> {
    let (layout, partition) = (ctx.rules.layout?, account.partition());
    layout.lineage.iter().rev().find(|entry| entry.prefix.covers(&partition.0)).map(|entry| entry.group)
}

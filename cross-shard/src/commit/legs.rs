//! Who speaks for which leg of a transaction, and who has to hear it, under the layout in force.
//!
//! Owns nothing but these two questions. Legs never change, and a group's prefix is the same for all its life; so what
//! a group may speak for is the same in every layout in which it lives.

use ledger::ids::{Address, GroupId, LedgerId};
use ledger::layout::Layout;
use ledger::tx::{Slot, TxBody};

use super::record::{LegId, legs_where};

/// The legs that a group speaks for, ascending: those in the clear whose accounts lie under its prefix, and those hidden
/// for a group that it is the heir of. `here` is the group that asks; without a layout all of the main ledger is its own.
#[must_use]
pub fn legs_of(layout: Option<&Layout>, here: GroupId, group: GroupId, body: &TxBody) -> Vec<LegId> {
    let prefix = layout.and_then(|layout| layout.prefix_ever(group));
    let owns = |account: &Address| match layout {
        Some(_) => prefix.is_some_and(|prefix| prefix.covers(&account.partition().0)),
        None => group == here,
    };
    legs_where(body, |slot, account| match slot {
        Slot::Clear { ledger: LedgerId::MAIN, .. } => account.is_some_and(|account| owns(&account)),
        Slot::Clear { ledger, .. } => GroupId(ledger.0) == group,
        Slot::Hidden { group: named, .. } => layout.map_or(*named, |layout| layout.heir(*named)) == group,
    })
}

/// The groups that every vote on a transaction goes to, sorted: all that speak for a leg, and all that came from a
/// retired shard that a hidden slot names. What lies behind the slot may lie with any of these, if the shard had voted.
#[must_use]
pub fn hearers(layout: Option<&Layout>, here: GroupId, body: &TxBody) -> Vec<GroupId> {
    let mut groups = Vec::new();
    for slot in &body.slots {
        match (slot, layout) {
            (Slot::Clear { ledger: LedgerId::MAIN, .. }, None) => groups.push(here),
            (Slot::Clear { ledger: LedgerId::MAIN, mv }, Some(layout)) => {
                groups.extend(mv.voters().map(|voter| layout.locate(&voter.account)));
            }
            (Slot::Clear { ledger, .. }, _) => groups.push(GroupId(ledger.0)),
            (Slot::Hidden { group, .. }, None) => groups.push(*group),
            (Slot::Hidden { group, .. }, Some(layout)) => groups.extend(layout.successors(*group)),
        }
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

//! Which groups a transaction goes to, and what each of them is given. Pure: layout in, groups out.
//!
//! Every move has one or two voters: the accounts that can refuse. The groups that own them vote;
//! followers may lie anywhere, mail finds them. A move that is hidden goes, opened, to its own group
//! and to nobody else. Where several ledgers take part, each is given the witnesses of its own accounts.
//!
//! A hidden move keeps the name of its shard when that is cut or joined. Its heir speaks for it then, and is given the
//! opening. Whether a transaction was begun before that, only the groups know: so once a shard has ended, they judge how
//! many may vote, and what lies where.

use ledger::rules::{all_voter_groups, voter_groups};
use ledger::tx::ParsedTx;
use ledger::{
    Address, GroupId, GroupKind, Layout, LedgerId, LedgerWitnesses, Move, Opening, Reject, Slot, Submission, TxBody,
};

/// Where a transaction goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// One group decides alone, and gets the bytes as they came.
    One(GroupId),
    /// Several groups vote: two at least, sorted.
    Several(Vec<Part>),
}

/// What one of several voter groups is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The group.
    pub group: GroupId,
    /// The transaction with the openings of this group's slots, and of no others, and, where it spans ledgers, with
    /// the witnesses of this group's ledger alone; `None` when nothing is to be dealt out, so that the bytes go there
    /// as they came.
    pub own: Option<Vec<u8>>,
}

impl Plan {
    /// The groups that vote, sorted.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let (one, several) = match self {
            Self::One(group) => (Some(*group), &[][..]),
            Self::Several(parts) => (None, parts.as_slice()),
        };
        one.into_iter().chain(several.iter().map(|part| part.group))
    }
}

/// Where this transaction goes.
///
/// # Errors
/// [`Reject::TooManyVoters`] while no shard has ended; [`Reject::MultiVoter`] for the issue of an asset together with moves
/// of other groups; [`Reject::UnknownGroup`] when a move is on a ledger that no group serves, or
/// hidden for a group that does not serve its ledger; [`Reject::WrongShard`] for an opening whose
/// accounts lie, or lay, in another group than its slot names; [`Reject::HiddenSlot`] for a move that is
/// hidden from the beacon, which takes none; [`Reject::WitnessUnplaced`] for a witness of which it is not known whom
/// it concerns.
pub fn plan(layout: &Layout, tx: &ParsedTx) -> Result<Plan, Reject> {
    let groups = voters(layout, &tx.body)?;
    for opening in &tx.openings {
        check_opening(layout, &tx.body, opening)?;
    }
    if let [group] = groups[..] {
        return Ok(Plan::One(group));
    }
    // What was signed keeps its bytes; only openings and witnesses are dealt out.
    if tx.body.spans_ledgers() {
        let dealt = tx.deal(|_, _| None)?;
        let own = |group| Some(own_bytes(layout, own_witnesses(tx, &dealt, group), tx, group));
        return Ok(Plan::Several(groups.into_iter().map(|group| Part { group, own: own(group) }).collect()));
    }
    let signed = if tx.openings.is_empty() { None } else { Some(tx.signed()) };
    let part = |group| Part { group, own: signed.clone().map(|signed| own_bytes(layout, signed, tx, group)) };
    Ok(Plan::Several(groups.into_iter().map(part).collect()))
}

/// The transaction with the witnesses of a group's ledger.
fn own_witnesses(tx: &ParsedTx, dealt: &[LedgerWitnesses], group: GroupId) -> Vec<u8> {
    let own = dealt.iter().find(|given| Some(given.ledger) == group.ledger());
    tx.signed_with(own.map(|given| given.witnesses.clone()).unwrap_or_default())
}

fn own_bytes(layout: &Layout, signed: Vec<u8>, tx: &ParsedTx, group: GroupId) -> Vec<u8> {
    let own = |opening: &&Opening| hidden_for(&tx.body, opening).map(|named| layout.heir(named)) == Some(group);
    Submission::encode(signed, tx.openings.iter().filter(own).cloned().collect())
}

fn hidden_for(body: &TxBody, opening: &Opening) -> Option<GroupId> {
    match body.slots.get(usize::from(opening.slot))? {
        Slot::Hidden { group, .. } => Some(*group),
        Slot::Clear { .. } => None,
    }
}

/// The groups that vote, sorted, each of a kind that there is. Whether a group exists besides, its
/// committee tells.
fn voters(layout: &Layout, body: &TxBody) -> Result<Vec<GroupId>, Reject> {
    for slot in &body.slots {
        match slot {
            Slot::Clear { ledger, mv } => check_ledger(*ledger, mv)?,
            Slot::Hidden { ledger, group, .. } => check_hidden(layout, *ledger, *group)?,
        }
    }
    // What was begun with few voters has more of them when shards are cut.
    let groups = if layout.lineage.is_empty() { voter_groups(layout, body) } else { all_voter_groups(layout, body) }?;
    match groups[..] {
        [] => Err(Reject::MoveCount),
        [GroupId::BEACON] if body.moves().count() < body.slots.len() => Err(Reject::HiddenSlot),
        _ => Ok(groups),
    }
}

/// Assets are defined on the beacon's ledger, and nothing else happens there. A move on the wrong
/// ledger is as unknown as a move on a ledger that does not exist.
fn check_ledger(ledger: LedgerId, mv: &Move) -> Result<(), Reject> {
    let issues = matches!(mv, Move::Issue(_));
    let serves = match GroupId(ledger.0).kind() {
        Some(GroupKind::Beacon) => issues && ledger == LedgerId::BEACON,
        Some(GroupKind::Channel) => !issues,
        Some(GroupKind::Shard) | None => !issues && ledger == LedgerId::MAIN,
    };
    if serves { Ok(()) } else { Err(Reject::UnknownGroup) }
}

/// A hidden slot names its group, which must be one that serves its ledger, or a shard that did.
fn check_hidden(layout: &Layout, ledger: LedgerId, group: GroupId) -> Result<(), Reject> {
    let serves = match group.kind() {
        Some(GroupKind::Shard) => ledger == LedgerId::MAIN && layout.prefix_ever(group).is_some(),
        Some(GroupKind::Beacon | GroupKind::Channel) => ledger.0 == group.0,
        None => false,
    };
    if serves { Ok(()) } else { Err(Reject::UnknownGroup) }
}

/// Only whoever has an opening can tell that its slot names the wrong group; the groups could not. Of a shard that has
/// ended they can: what lay there may have been decided before.
fn check_opening(layout: &Layout, body: &TxBody, opening: &Opening) -> Result<(), Reject> {
    let Some(Slot::Hidden { ledger, group, .. }) = body.slots.get(usize::from(opening.slot)) else {
        return Err(Reject::OpeningMismatch);
    };
    check_ledger(*ledger, &opening.mv)?;
    let prefix = layout.prefix_ever(*group);
    let lay_there = |account: &Address| prefix.is_some_and(|prefix| prefix.covers(&account.partition().0));
    let lies_there = *ledger != LedgerId::MAIN || opening.mv.voters().all(|voter| lay_there(&voter.account));
    if lies_there { Ok(()) } else { Err(Reject::WrongShard) }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

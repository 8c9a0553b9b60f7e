//! Where a message goes whose destination was retired.
//!
//! Pure: it follows from the layout and the message alone, so that whoever passes a message on, the group that wrote it
//! or those that came from it, agrees with every other one.

use ledger::ids::{GroupId, LedgerId};
use ledger::layout::{BitPrefix, Layout};
use ledger::tx::{SignedTx, TxBody};

use crate::commit::{hearers, legs_of};
use crate::message::{Message, Vote};

/// The groups that a message to `dest` goes to: itself while it lives; else those of its successors that the message
/// is for, in order of prefix.
#[must_use]
pub fn route(layout: &Layout, dest: GroupId, message: &Message) -> Vec<GroupId> {
    if !layout.retired(dest) {
        return vec![dest];
    }
    match message {
        Message::Credit(credit) => vec![layout.locate(&credit.account)],
        // Retired groups are shards, so it is on its way to the pair account of the main ledger.
        Message::Transfer(transfer) if [transfer.from, transfer.to].contains(&LedgerId::MAIN) => {
            vec![layout.locate(&transfer.pair(LedgerId::MAIN))]
        }
        Message::Transfer(_) => vec![layout.heir(dest)],
        Message::Vote(vote) => {
            let heard = body_of(vote).map_or(Vec::new(), |body| hearers(Some(layout), dest, &body));
            layout.successors(dest).into_iter().filter(|group| heard.binary_search(group).is_ok()).collect()
        }
        Message::Closed(_) => layout.successors(dest),
        // Said to every group alike: one that two were joined into hears it as the left one would have.
        Message::AssetUpdate(_)
        | Message::CommitteeUpdate(_)
        | Message::RegistryUpdate(_)
        | Message::AnchorsUpdate(_)
        | Message::Reshaped(_) => {
            if joined_from_the_right(layout, dest) {
                Vec::new()
            } else {
                layout.successors(dest)
            }
        }
        // About the retired group itself, or never said to a shard.
        Message::CommitteePlan(_)
        | Message::Seal(_)
        | Message::Unseal(_)
        | Message::LayoutUpdate(_)
        | Message::ChannelUpdate(_) => Vec::new(),
    }
}

fn joined_from_the_right(layout: &Layout, group: GroupId) -> bool {
    let is_right = |prefix: BitPrefix| prefix.parent().is_some_and(|whole| whole.child(true) == prefix);
    let mut ended = layout.lineage.iter().filter(|entry| entry.group == group);
    ended.any(|entry| entry.successors.len() == 1 && is_right(entry.prefix))
}

/// A vote as far as it is on legs that `me` speaks for; `None` when it is on none.
#[must_use]
pub fn own_part(layout: &Layout, me: GroupId, vote: Vote) -> Option<Vote> {
    let own = legs_of(Some(layout), me, me, &body_of(&vote)?);
    let legs: Vec<_> = vote.legs.iter().filter(|leg| own.contains(leg)).copied().collect();
    (!legs.is_empty()).then_some(Vote { legs, ..vote })
}

/// Whether a vote on this transaction goes to `me`.
pub(crate) fn hears(layout: &Layout, me: GroupId, vote: &Vote) -> bool {
    body_of(vote).is_some_and(|body| hearers(Some(layout), me, &body).binary_search(&me).is_ok())
}

/// The body of the transaction that a vote is on. It was decoded before it was voted on.
fn body_of(vote: &Vote) -> Option<TxBody> {
    let signed: SignedTx = borsh::from_slice(&vote.tx).ok()?;
    TxBody::decode(&signed.body).ok()
}

//! What a group remembers of a transaction that several groups vote on.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{Address, GroupId, Height, TimeMs, TxId};
use ledger::reject::Reject;
use ledger::tx::{Opening, Slot, TxBody};

/// A vote. Written once and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Decision {
    /// The legs can be carried out, and what they need is reserved.
    Yes,
    /// They cannot, for this reason.
    No(Reject),
}

impl Decision {
    /// As it is told to another ledger, which learns that and not why.
    #[must_use]
    pub const fn veiled(self) -> Self {
        match self {
            Self::Yes => Self::Yes,
            Self::No(_) => Self::No(Reject::RefusedElsewhere),
        }
    }
}

/// The vote register under each account that votes, a leaf of the state tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Register {
    /// Format version, 1.
    pub version: u8,
    /// What its group decided.
    pub decision: Decision,
    /// In which block.
    pub height: Height,
}

/// One vote on a transaction: the account that votes within a slot. `2 × slot` names the move's
/// first account, `2 × slot + 1` its second. A hidden slot is one leg, whatever is behind it.
///
/// The outcome is the AND over all legs, not over groups, so that it means the same to groups that
/// know different layouts.
pub type LegId = u16;

/// All legs of a body, ascending.
#[must_use]
pub fn all_legs(body: &TxBody) -> Vec<LegId> {
    legs_where(body, |_, _| true)
}

/// The legs for which `owned` holds, given the slot and, unless it is hidden, the voting account.
pub fn legs_where(body: &TxBody, mut owned: impl FnMut(&Slot, Option<Address>) -> bool) -> Vec<LegId> {
    let mut legs = Vec::new();
    for (slot, index) in body.slots.iter().zip(0u16..) {
        match slot {
            Slot::Clear { mv, .. } => {
                for (voter, second) in mv.voters().zip(0u16..) {
                    if owned(slot, Some(voter.account)) {
                        legs.push(2 * index + second);
                    }
                }
            }
            Slot::Hidden { .. } => {
                if owned(slot, None) {
                    legs.push(2 * index);
                }
            }
        }
    }
    legs
}

/// When something happened, in the group's own chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Stamp {
    /// The block.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

/// This group's vote.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Cast {
    /// The vote.
    pub decision: Decision,
    /// The legs it speaks for.
    pub legs: Vec<LegId>,
    /// Accounts that carry its register.
    pub accounts: Vec<Address>,
    /// Where it was mailed: destination and sequence number.
    pub sent: Vec<(GroupId, u64)>,
    /// When.
    pub at: Stamp,
}

/// Another group's vote.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Received {
    /// Whose.
    pub group: GroupId,
    /// The vote; a NO of another ledger without its reason ([`Decision::veiled`]).
    pub decision: Decision,
    /// The legs it speaks for.
    pub legs: Vec<LegId>,
    /// When it was delivered here.
    pub at: Stamp,
}

/// How it ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Resolved {
    /// Posted, or set free.
    pub committed: bool,
    /// When.
    pub at: Stamp,
}

/// What a group knows of one transaction, from its first sight of it on. Kept as history, without
/// the transaction's bytes, after the register has been dropped.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Prepared {
    /// Format version, 1.
    pub version: u8,
    /// The transaction.
    pub txid: TxId,
    /// The signed transaction as it came, without the witnesses of other ledgers; empty once the register is dropped.
    pub tx: Vec<u8>,
    /// Openings of this group's hidden slots, as far as they came; never mailed.
    pub openings: Vec<Opening>,
    /// The groups that vote, this one included, sorted.
    pub voters: Vec<GroupId>,
    /// Every leg that has to say yes.
    pub legs: Vec<LegId>,
    /// Last block time at which a YES may be written.
    pub valid_until_ms: TimeMs,
    /// When it was first seen.
    pub seen: Stamp,
    /// Whether a client handed it over, rather than a vote of another group.
    pub handed_over: bool,
    /// This group's vote; `None` while it waits for openings, or to be handed over to it.
    pub own: Option<Cast>,
    /// Other groups' votes, in the order they came.
    pub received: Vec<Received>,
    /// The outcome here.
    pub outcome: Option<Resolved>,
    /// When the register was dropped.
    pub dropped: Option<Stamp>,
}

/// What is known of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some leg has not voted yet, and none has said no.
    Open,
    /// All legs said yes.
    Commit,
    /// A leg of this group said no.
    Abort(GroupId, Reject),
}

impl Prepared {
    /// The outcome rule: AND over all legs. One NO decides; absence never does.
    #[must_use]
    pub fn verdict(&self, me: GroupId) -> Verdict {
        let Some(own) = &self.own else { return Verdict::Open };
        let own_vote = (me, own.decision, own.legs.as_slice());
        let others = self.received.iter().map(|vote| (vote.group, vote.decision, vote.legs.as_slice()));
        let votes = || std::iter::once(own_vote).chain(others.clone());
        for (group, decision, _) in votes() {
            if let Decision::No(reason) = decision {
                return Verdict::Abort(group, reason);
            }
        }
        let covered = |leg: &LegId| votes().any(|(_, _, legs)| legs.contains(leg));
        if self.legs.iter().all(covered) { Verdict::Commit } else { Verdict::Open }
    }

    /// Whether every vote of every other group has come.
    #[must_use]
    pub fn heard_all(&self) -> bool {
        let own = self.own.as_ref().map_or(&[][..], |cast| cast.legs.as_slice());
        let heard = |leg: &LegId| own.contains(leg) || self.received.iter().any(|vote| vote.legs.contains(leg));
        self.legs.iter().all(heard)
    }
}

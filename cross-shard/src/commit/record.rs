//! What a group remembers of a transaction that several groups vote on.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{Address, GroupId, Height, TimeMs, TxId};
use ledger::layout::BitPrefix;
use ledger::reject::Reject;
use ledger::tx::{Opening, Slot, TxBody};

/// Version written into new records. Version 1 had one vote of the group and one outcome.
pub const PREPARED_VERSION: u8 = 2;

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

/// A vote of this group, or of a retired one that it came from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Cast {
    /// Who wrote it.
    pub group: GroupId,
    /// The vote.
    pub decision: Decision,
    /// The legs it speaks for.
    pub legs: Vec<LegId>,
    /// Accounts that carry its register.
    pub accounts: Vec<Address>,
    /// Where it was mailed: destination and sequence number, in the streams of `group`.
    pub sent: Vec<(GroupId, u64)>,
    /// When, in the chain of `group`.
    pub at: Stamp,
    /// The accounts that this entry is carried out for: those under this prefix that lie here. It is that of
    /// everything, but for a vote that two shards had carried out differently far when they were joined.
    pub within: BitPrefix,
    /// How it ended for these accounts.
    pub outcome: Option<Resolved>,
}

impl Cast {
    /// Whether this entry is carried out for an account, if that lies here.
    #[must_use]
    pub fn carries(&self, account: &Address) -> bool {
        self.within == BitPrefix::ALL || self.within.covers(&account.partition().0)
    }
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
    /// Format version, [`PREPARED_VERSION`].
    pub version: u8,
    /// The transaction.
    pub txid: TxId,
    /// The signed transaction as it came, without the witnesses of other ledgers; empty once the register is dropped.
    pub tx: Vec<u8>,
    /// Openings of this group's hidden slots, as far as they came, by slot; never mailed.
    pub openings: Vec<Opening>,
    /// The groups that voted by the layout at first sight, this one included, sorted. For people; who has to hear a
    /// vote follows from the layout in force.
    pub voters: Vec<GroupId>,
    /// Every leg that has to say yes.
    pub legs: Vec<LegId>,
    /// Last block time at which a YES may be written.
    pub valid_until_ms: TimeMs,
    /// When it was first seen.
    pub seen: Stamp,
    /// Whether a client handed it over, rather than a vote of another group.
    pub handed_over: bool,
    /// The votes of this group, and of the retired ones that it came from; none while it waits for openings, or to be
    /// handed over to it.
    pub casts: Vec<Cast>,
    /// Other groups' votes, in the order they came.
    pub received: Vec<Received>,
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
    /// All votes that are known, this group's first.
    fn votes(&self) -> impl Iterator<Item = (GroupId, Decision, &[LegId])> {
        let own = self.casts.iter().map(|cast| (cast.group, cast.decision, cast.legs.as_slice()));
        own.chain(self.received.iter().map(|vote| (vote.group, vote.decision, vote.legs.as_slice())))
    }

    /// The first NO that is known.
    #[must_use]
    pub fn refusal(&self) -> Option<(GroupId, Reject)> {
        self.votes().find_map(|(group, decision, _)| match decision {
            Decision::Yes => None,
            Decision::No(reason) => Some((group, reason)),
        })
    }

    /// The outcome rule: AND over all legs. One NO decides; absence never does. It is open while this group has said
    /// nothing.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.casts.is_empty() {
            return Verdict::Open;
        }
        match self.refusal() {
            Some((group, reason)) => Verdict::Abort(group, reason),
            None if self.heard_all() => Verdict::Commit,
            None => Verdict::Open,
        }
    }

    /// Whether a vote on every leg is known.
    #[must_use]
    pub fn heard_all(&self) -> bool {
        self.legs.iter().all(|leg| self.votes().any(|(_, _, legs)| legs.contains(leg)))
    }

    /// What this group says of its legs: NO if it has said so of any; `None` while it has said nothing.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        let mut said = self.casts.iter().map(|cast| cast.decision);
        let first = said.next()?;
        Some(std::iter::once(first).chain(said).find(|decision| *decision != Decision::Yes).unwrap_or(Decision::Yes))
    }

    /// How it ended here; `None` while it has not for some vote, or there is none.
    #[must_use]
    pub fn outcome(&self) -> Option<Resolved> {
        let outcomes: Option<Vec<Resolved>> = self.casts.iter().map(|cast| cast.outcome).collect();
        outcomes?.into_iter().max_by_key(|outcome| outcome.at.height)
    }

    /// Whether another entry of the same vote has been carried out, by one of two shards that were joined.
    pub(super) fn carried_out_in_part(&self, cast: &Cast) -> bool {
        let same = |other: &&Cast| other.group == cast.group && other.legs == cast.legs;
        self.casts.iter().filter(same).any(|other| other.outcome.is_some())
    }

    /// The accounts that carry a register.
    pub fn accounts(&self) -> impl Iterator<Item = &Address> {
        self.casts.iter().flat_map(|cast| &cast.accounts)
    }

    /// Of the legs that are this group's, those that neither it nor a group that it came from has spoken for.
    #[must_use]
    pub fn unspoken(&self, own: &[LegId]) -> Vec<LegId> {
        let spoken = |leg: &&LegId| self.casts.iter().any(|cast| cast.legs.contains(*leg));
        own.iter().filter(|leg| !spoken(leg)).copied().collect()
    }

    /// Whether a vote of another group tells nothing: of each of its legs this group has heard it from that group, or
    /// the same from another one.
    #[must_use]
    pub fn repeats(&self, source: GroupId, decision: Decision, legs: &[LegId]) -> bool {
        let tells = |known: &Received, leg: &LegId| {
            (known.group == source || known.decision == decision) && known.legs.contains(leg)
        };
        legs.iter().all(|leg| self.received.iter().any(|known| tells(known, leg)))
    }
}

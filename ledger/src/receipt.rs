//! Receipts: what a group did with a transaction. History, kept at least until
//! `valid_until + 24 h`.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::Hash32;
use crate::ids::{GroupId, Height, TimeMs, TxId};
use crate::merkle;
use crate::reject::Reject;

/// The fate of a transaction in its voter group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// Executed. Credits for other groups left with these mail sequence numbers; they are applied
    /// there once that group's cursor is beyond them.
    Committed {
        /// Destination and sequence number of each credit, in move order.
        mail: Vec<(GroupId, u64)>,
    },
    /// Refused; nothing changed.
    Rejected(Reject),
    /// Another voter group said no; nothing changed.
    Aborted {
        /// Which.
        group: GroupId,
        /// Why; of a group of another ledger [`Reject::RefusedElsewhere`], whatever its reason was.
        reason: Reject,
    },
}

/// What happened, where and when. Its bytes are a leaf of the block's `receipts_root`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// Format version, 1.
    pub version: u8,
    /// The transaction.
    pub txid: TxId,
    /// Group that executed it.
    pub group: GroupId,
    /// Block.
    pub height: Height,
    /// Position among the block's receipts.
    pub index: u32,
    /// Time of the block.
    pub time_ms: TimeMs,
    /// Result.
    pub outcome: Outcome,
}

impl Receipt {
    /// Why it was not executed, if it was not.
    #[must_use]
    pub fn reason(&self) -> Option<Reject> {
        match &self.outcome {
            Outcome::Committed { .. } => None,
            Outcome::Rejected(reason) | Outcome::Aborted { reason, .. } => Some(*reason),
        }
    }

    /// Whether the transaction was executed.
    #[must_use]
    pub fn committed(&self) -> bool {
        matches!(self.outcome, Outcome::Committed { .. })
    }

    /// The leaf below `receipts_root`.
    #[must_use]
    pub fn leaf(&self) -> Hash32 {
        merkle::leaf_hash(&borsh::to_vec(self).expect("writing to memory does not fail"))
    }
}

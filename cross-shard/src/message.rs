//! What one group can say to another.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::asset::AssetDef;
use ledger::committee::Committee;
use ledger::ids::TxId;
use ledger::layout::Layout;
use ledger::rules::Credit;

use crate::commit::{Decision, LegId};

/// A group's vote on a transaction. Cluster, group and incarnation are bound by the certified header
/// that it travels under.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The transaction.
    pub txid: TxId,
    /// The signed transaction, without openings, so that a group that never saw it can vote.
    pub tx: Vec<u8>,
    /// The legs that this vote speaks for, ascending.
    pub legs: Vec<LegId>,
    /// The vote.
    pub decision: Decision,
}

/// One message. The first byte of its encoding is the variant and so the version: variants are
/// added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// A payment's credit; emitted by the debit's group.
    Credit(Credit),
    /// The beacon defines or changes an asset.
    AssetUpdate(AssetDef),
    /// The beacon announces the committee of a group.
    CommitteeUpdate(Committee),
    /// The beacon announces a layout.
    LayoutUpdate(Layout),
    /// A voter group's vote; emitted when its registers are written.
    Vote(Vote),
    /// The beacon names the committee that a group is being prepared for, to that group alone. The one
    /// in force cancels the plan.
    CommitteePlan(Committee),
}

impl Message {
    /// The bytes that are chained, stored and sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }
}

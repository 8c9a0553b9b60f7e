//! What a block leaves in the database beside state: where receipts stand, the receipts of a block,
//! and the heads of its streams.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::StreamLeaf;
use ledger::ids::Height;
use ledger::receipt::Receipt;

/// Where the receipt of a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReceiptPlace {
    /// The block.
    pub height: Height,
    /// Index among its receipts.
    pub index: u32,
}

/// The receipts of a block and the leaves below its stream roots: all that its proofs need.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockRecord {
    /// In execution order; their leaves give `receipts_root`.
    pub receipts: Vec<Receipt>,
    /// Sorted by destination; give `outbox_root`.
    pub outbox: Vec<StreamLeaf>,
    /// Sorted by source; give `inbox_cursors_root`.
    pub inbox: Vec<StreamLeaf>,
}

//! What a block leaves in the database beside state: where receipts stand, the receipts of a block,
//! and the heads of its streams. And where a shard keeps the chains that it has inherited.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::StreamLeaf;
use ledger::ids::{GroupId, Height};
use ledger::lineage::Origin;
use ledger::receipt::Receipt;
use ledger::schema;

/// Where the receipt of a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReceiptPlace {
    /// The block.
    pub height: Height,
    /// Index among its receipts.
    pub index: u32,
    /// Whose block: this group, or one that it came from, which its receipts name.
    pub chain: GroupId,
}

impl ReceiptPlace {
    /// Key of the block's record in the database of the group `here`, which began as `origin` says, if others were
    /// cut or joined into it.
    #[must_use]
    pub fn block_key(&self, here: GroupId, origin: Option<&Origin>) -> Vec<u8> {
        let plain = schema::block(self.height);
        if self.chain == here || origin.is_some_and(|origin| origin.has_spine(self.chain)) {
            plain
        } else {
            schema::archived(self.chain, &plain)
        }
    }
}

/// Key of the shapes ([`beacon::jobs::RootShape`], a list) of the roots that belong to the seal in force: of both halves,
/// left first, where the shard is to be cut, else of the whole. Written with the seal, so that whoever leads after a
/// restart has them without a look at the tree.
#[must_use]
pub fn seal_shapes() -> Vec<u8> {
    [&[schema::META], &b"seal-shapes"[..]].concat()
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

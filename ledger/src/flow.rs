//! Value flow of a block, per asset: `opening + imported + minted = closing + exported + burned`.
//!
//! Headers of shards show it. Those of channels only commit to it, by way of the state root: see
//! [`SealedFlow`] and `docs/adr/0018-sealed-value-flows.md`.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::{Hash32, tagged};
use crate::ids::{AssetId, GroupId, Height};

/// One asset's flow through one block. Only assets that a block touched have a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FlowLine {
    /// The asset.
    pub asset: AssetId,
    /// Total of the group before the block.
    pub opening: u128,
    /// Total of the group after the block.
    pub closing: u128,
    /// Created by its issuer.
    pub minted: u128,
    /// Destroyed by its issuer.
    pub burned: u128,
    /// Credits that came by mail, by source, sorted.
    pub imported: Vec<(GroupId, u128)>,
    /// Credits that left by mail, by destination, sorted.
    pub exported: Vec<(GroupId, u128)>,
}

impl FlowLine {
    /// Whether both sides are equal. `None` of an overflow counts as unequal.
    #[must_use]
    pub fn balances(&self) -> bool {
        let sum = |start: [u128; 2], peers: &[(GroupId, u128)]| {
            peers.iter().map(|(_, amount)| *amount).chain(start).try_fold(0u128, u128::checked_add)
        };
        let left = sum([self.opening, self.minted], &self.imported);
        let right = sum([self.closing, self.burned], &self.exported);
        left.is_some() && left == right
    }
}

/// Version written into new sealed flows and their heads.
pub const SEAL_VERSION: u8 = 1;

/// The value flow of a channel's block, with what opens the commitment to it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SealedFlow {
    /// Format version, [`SEAL_VERSION`].
    pub version: u8,
    /// See [`next_salt`]; whoever has only headers and mail of the channel cannot know it.
    pub salt: Hash32,
    /// Lines for the assets that the block touched, sorted by asset; not empty.
    pub lines: Vec<FlowLine>,
}

impl SealedFlow {
    /// `sha256("seamark/flow/v1" ‖ salt ‖ height (BE) ‖ lines)`.
    #[must_use]
    pub fn commitment(&self, height: Height) -> Hash32 {
        let lines = borsh::to_vec(&self.lines).expect("writing to memory does not fail");
        tagged(b"seamark/flow/v1", &[&self.salt.0, &height.0.to_be_bytes(), &lines])
    }
}

/// Count and chain of the commitments of all blocks so far: a leaf of a channel's state tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FlowHead {
    /// Format version, [`SEAL_VERSION`].
    pub version: u8,
    /// Blocks with a value flow.
    pub blocks: u64,
    /// Chain of their commitments, all zero before the first.
    pub chain: Hash32,
}

impl Default for FlowHead {
    fn default() -> Self {
        Self { version: SEAL_VERSION, blocks: 0, chain: Hash32::ZERO }
    }
}

impl FlowHead {
    /// The head after one more block: `sha256("seamark/flow-chain/v1" ‖ chain ‖ commitment)`.
    #[must_use]
    pub fn after(&self, commitment: &Hash32) -> Self {
        let chain = tagged(b"seamark/flow-chain/v1", &[&self.chain.0, &commitment.0]);
        Self { version: SEAL_VERSION, blocks: self.blocks + 1, chain }
    }
}

/// What the flow of a block is salted with: `sha256("seamark/flow-salt/v1" ‖ salt of the block before ‖
/// entry)`, all zero before the first block. The entry is the block's as it was sequenced, which only
/// members have: one transaction in it or in any block before is enough to make the salt a secret.
#[must_use]
pub fn next_salt(before: &Hash32, entry: &[u8]) -> Hash32 {
    tagged(b"seamark/flow-salt/v1", &[&before.0, entry])
}

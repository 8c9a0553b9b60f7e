//! Value flow of a block, per asset: `opening + imported + minted = closing + exported + burned`.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::ids::{AssetId, GroupId};

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

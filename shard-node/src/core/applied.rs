//! The applied position: the last block and where the consensus log stands, written in the same
//! batch as the block's effects.

use borsh::{BorshDeserialize, BorshSerialize};
use consensus::port::AppliedState;
use ledger::hash::Hash32;
use ledger::ids::{Height, TimeMs};

/// What a restarted replica continues from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AppliedRecord {
    /// Format version, 1.
    pub version: u8,
    /// Where the log stands.
    pub consensus: AppliedState,
    /// The last block.
    pub height: Height,
    /// Its header's hash, the next block's parent.
    pub header_hash: Hash32,
    /// Its time.
    pub time_ms: TimeMs,
    /// Its state root, so that a rebuilt tree can be checked.
    pub state_root: Hash32,
}

//! Block headers. Every field is computed from state; the hash of a header names its block.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::flow::FlowLine;
use crate::hash::{Hash32, tagged};
use crate::ids::{ClusterId, GroupId, Height, Incarnation, LayoutVersion, TimeMs};

/// Version written into new headers.
pub const HEADER_VERSION: u8 = 1;

/// Bit of [`Header::flags`]: after this block a seal is in force ([`crate::lineage::Seal`]). Unless it is taken back,
/// this is the last block of its group.
pub const FLAG_SEALED: u16 = 1;
/// Bit of [`Header::flags`]: the first block of a shard that others were cut or joined into.
pub const FLAG_BORN: u16 = 2;

/// What a group signs about one block (DESIGN §5).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// Format version, [`HEADER_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The group whose chain this is.
    pub group: GroupId,
    /// The group's incarnation.
    pub incarnation: Incarnation,
    /// Position in the chain.
    pub height: Height,
    /// Hash of the previous header; in the first block of a shard that others were joined into, of the last headers of
    /// both, the left one's first.
    pub parents: Vec<Hash32>,
    /// `max(stamp, previous + 1)`.
    pub time_ms: TimeMs,
    /// Layout that execution went by.
    pub layout_version: LayoutVersion,
    /// Merkle root over the hashes of the commands.
    pub batch_root: Hash32,
    /// Merkle root over the receipts.
    pub receipts_root: Hash32,
    /// Root of the state tree.
    pub state_root: Hash32,
    /// Merkle root over the outgoing streams: destination, next sequence number, head.
    pub outbox_root: Hash32,
    /// Merkle root over the incoming streams: source, next sequence number, head.
    pub inbox_cursors_root: Hash32,
    /// Lines for the assets that this block touched, sorted by asset.
    pub value_flow: Vec<FlowLine>,
    /// Busy peers and how full their stream is, in percent, sorted by peer.
    pub congestion: Vec<(GroupId, u8)>,
    /// Committee that signs this header.
    pub committee_hash: Hash32,
    /// Committee that signs the next one.
    pub next_committee_hash: Hash32,
    /// [`FLAG_SEALED`], [`FLAG_BORN`]; the other bits are 0.
    pub flags: u16,
}

impl Header {
    /// `sha256("seamark/header/v1" ‖ borsh)`: the digest that replicas sign.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/header/v1", &[&bytes])
    }
}

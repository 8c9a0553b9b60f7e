//! The vocabulary of the ledger and the rules for what accounts may do.
//!
//! Owns ids, amounts, limits, canonical bytes, hashing, signing, transactions, receipts, headers,
//! certificates, the state tree, and the account rules. Never does IO, reads a clock, draws
//! randomness or knows which consensus engine runs. `cross-shard` carries what this crate decides
//! to other groups; `shard-node::core` composes both into the machine of a group.

pub mod account;
pub mod asset;
pub mod auth;
pub mod ballot;
pub mod certificate;
pub mod checked;
pub mod claim;
pub mod committee;
pub mod crypto;
pub mod dealing;
pub mod evidence;
pub mod flow;
pub mod foundation;
pub mod genesis;
pub mod handover;
pub mod hash;
pub mod header;
pub mod ids;
pub mod keys;
pub mod layout;
pub mod limits;
pub mod lineage;
pub mod lock;
pub mod machine;
pub mod memo;
pub mod merkle;
pub mod moves;
pub mod pair;
pub mod receipt;
pub mod record;
pub mod reject;
mod rejections;
pub mod rules;
pub mod schema;
pub mod tree;
pub mod tx;
pub mod uncovered;
pub mod view;

pub use account::{AccountRecord, Balance};
pub use asset::{AssetDef, AssetSpec};
pub use auth::{Authorisation, Witness};
pub use ballot::{Ballot, BallotKind, Equivocation, SignedBallot};
pub use certificate::{Attestation, Certificate};
pub use checked::Checked;
pub use committee::{Committee, Engine, Member};
pub use crypto::{PublicKey, SecretKey, Signature};
pub use dealing::{DealtTx, LedgerWitnesses};
pub use evidence::Evidence;
pub use foundation::{Foundation, FoundedGroup};
pub use handover::Handover;
pub use hash::Hash32;
pub use header::Header;
pub use ids::{
    Address, AssetId, ClusterId, Epoch, GroupId, GroupKind, Height, Incarnation, JobId, LayoutVersion, LedgerId,
    LockId, NodeId, OrgId, Tick, TimeMs, TxId,
};
pub use keys::NodeKeys;
pub use layout::{BitPrefix, Layout, ShardRange};
pub use lineage::{BornShard, ChildShard, Origin, ParentEnd, Seal, SealedBy, Segment};
pub use receipt::{Outcome, Receipt};
pub use reject::Reject;
pub use tx::{AccountWrite, Condition, Move, Opening, ParsedTx, SignedTx, Slot, Submission, TxBody, Voter};

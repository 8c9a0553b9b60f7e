//! The machine of a private channel's governance.
//!
//! Owns members and their keys, nodes and anchors; policies, proposals and approvals; the phases of a
//! channel from its founding to its end; audit grants; and who may do what. Holds no balances, never
//! does IO, reads a clock or draws randomness. `shard-node::core` composes [`machine`] with the
//! account rules into the machine of a channel's group; the beacon hosts [`founding`].
//!
//! A command's way: [`command`] checks form and signature, [`machine`] finds out who signs,
//! `debate` counts approvals by a [`policy`], `enact` and `acts` say what changes, and all of it is
//! written to [`state`] at once or not at all. [`access`] answers for every read and write of the host.

pub mod access;
mod acts;
pub mod change;
pub mod charter;
pub mod command;
mod debate;
mod enact;
pub mod exclusion;
pub mod explain;
pub mod follow;
pub mod founding;
pub mod governance;
pub mod lifecycle;
pub mod limits;
pub mod machine;
pub mod opening;
pub mod policy;
pub mod proposal;
pub mod quorum;
pub mod reject;
mod scene;
pub mod state;
pub mod surroundings;

pub use access::{Action, At, AuditTarget, Caller, Sight, may, sight};
pub use change::{AuditGrant, Change, Scope, Subject, Target};
pub use charter::Charter;
pub use command::{CheckedCommand, Command, SignedCommand};
pub use exclusion::{Exclusion, ExclusionReceipt, ExclusionReceiptError};
pub use explain::{Explanation, explain, list};
pub use founding::{Founding, FoundingAct, Hosting, Terms};
pub use governance::Governance;
pub use ledger::Engine;
pub use lifecycle::Phase;
pub use machine::{Outcome, execute, execute_checked, outcome_of, read_set};
pub use opening::{Opening, Promise, PromiseRecord, PromiseStanding, SealedOpening};
pub use policy::{Elector, Policy, Quorum, Residual, Role, Roster};
pub use proposal::{Proposal, ProposalState};
pub use quorum::{QuorumLoss, Seats};
pub use reject::{ChannelReject, Refusal};
pub use surroundings::{Registry, RegistryNode, RegistryOrg, Surroundings, UnderWay};

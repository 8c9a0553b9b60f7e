//! The beacon's machine: the registry of a cluster and the pure functions over it.
//!
//! Owns organisations, the policies by which they decide together, nodes, committees, the layout and the jobs that change it, asset definitions, the founding of
//! channels and their directory, epochs with their seeds, the last checkpoint of every group and the audit of its chain;
//! decides which node takes which seat. Never does IO, reads a clock, draws randomness or holds a balance, and is never on
//! the path of a payment. `shard-node::core` composes
//! [`machine`] into the beacon group; nodes and routers follow what comes out as a
//! [`view::ClusterView`] under a [`proof::RegistryProof`].

pub mod accused;
pub mod arrivals;
pub mod assign;
pub mod audit;
pub mod channels;
pub mod command;
pub mod engine;
pub mod epochs;
pub mod extract;
pub mod genesis;
pub mod jobs;
pub mod keys;
pub mod limits;
pub mod machine;
pub mod majority;
pub mod nodes;
pub mod orgs;
pub mod policies;
pub mod proof;
pub mod rate;
pub mod registry;
pub mod risk;
pub mod seating;
pub mod seats;
pub mod view;
pub mod watch;

pub use accused::{Accusation, Accused, Removal};
pub use assign::{AssignError, Constraints, GroupSeats, assign};
pub use audit::report::AuditReport;
pub use audit::status::AuditStatus;
pub use audit::{AuditEntry, Trail};
pub use channels::ChannelEntry;
pub use command::{BeaconCommand, SignedCommand};
pub use engine::{EngineBook, Preflight, Standing, preflight};
pub use epochs::{Contribution, EpochBook, EpochPolicy, EpochProof};
pub use jobs::{Job, JobKind, JobReport, LeadHint, Phase, Said, ScalePolicy, SealedProof, Shards};
pub use machine::{CommandOutcome, Executed, Refused};
pub use nodes::{NodeLives, RemovedNode};
pub use policies::book::PolicyBook;
pub use policies::{Matter, PolicyChange, Ruled};
pub use proof::{RegistryProof, RegistryProofError, Succession};
pub use registry::{AuditHead, Checkpoint, Divergence, RegistryHead};
pub use risk::Risk;
pub use seating::Seating;
pub use seats::Readiness;
pub use view::ClusterView;
pub use watch::{Silence, Watch, WatchMode};

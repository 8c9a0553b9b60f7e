//! Storage: the key-value port, the log port, and everything that implements them.
//!
//! Owns: files, formats on disk, durability. A group's state is one [`Kv`]; the raft logs of all
//! groups of a node are one shared log engine that hands out one [`LogStore`] per group.
//! Never does: interpret keys or values, read a clock, draw randomness, or use an async runtime.
//! Where the data goes next: `consensus` keeps its entries and votes in a [`LogStore`];
//! `shard-node` writes one [`WriteBatch`] per block into the group's [`Kv`].
//!
//! Code map:
//! - [`kv`], [`mem`], [`faulty`]: the port, its memory implementation, and the one that fails on demand.
//! - [`cipher`], [`frame`], [`sealed`]: values encrypted or check-summed on their way to the disk.
//! - [`log`]: the log port, its memory implementation, and (feature `rocksdb`) the shared engine.
//! - `started` (feature `rocksdb`): that a node has run, said outside its data folder.
//! - `rocks` (feature `rocksdb`): state databases, identity of a folder, snapshots, offline check.
//!
//! Architecture invariant: without the feature `rocksdb` this crate is deterministic and starts no
//! thread; the simulator depends on that.

#[cfg(feature = "rocksdb")]
pub mod aside;
pub mod cipher;
pub mod error;
pub mod faulty;
pub mod frame;
pub mod kv;
pub mod log;
pub mod mem;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod sealed;
#[cfg(feature = "rocksdb")]
pub mod started;

pub use cipher::{ChaChaCipher, CounterNonces, Damaged, FrameCipher, NonceSource, PlainCipher, ValueCipher};
pub use error::StorageError;
pub use faulty::{Fault, FaultCounts, FaultPlan, FaultyKv, NoFaults, Operation};
pub use kv::{Crash, KeyRange, Kv, KvView, WriteBatch, WriteOp};
pub use log::{Completion, LogStore, MemLog};
#[cfg(feature = "rocksdb")]
pub use log::{GroupLog, LogEngine, LogIdentity, LogOptions, LogStats};
pub use mem::MemKv;
#[cfg(feature = "rocksdb")]
pub use rocks::{ResourceLimits, SharedResources, StagedState, StateDb, StateIdentity, VerifyReport};
pub use sealed::SealedKv;
#[cfg(feature = "rocksdb")]
pub use started::StartedMark;

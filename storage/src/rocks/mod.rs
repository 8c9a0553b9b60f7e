//! RocksDB: state databases, what all databases of a process share, and their folders on disk.
//!
//! Owns: options, error mapping, the identity of a folder, snapshot installation, the offline check.
//! Never does: interpret keys or values. [`StateDb`] is one group's [`crate::Kv`]; the log engine in
//! [`crate::log`] uses the same folder and sharing code.
//!
//! A data folder looks like this:
//! ```text
//! ROOT/LIVE                 which database folder is live: magic, version, generation, checksum
//! ROOT/ACKED                of the log alone: how far it was acknowledged
//! ROOT/db-0000000000000001/ SEAMARK  whose it is: magic, version, kind, cluster, group, format, node, checksum
//!                           CURRENT, MANIFEST-…, *.sst, *.log   RocksDB's own
//! ```

mod anchor;
mod compactors;
mod errors;
mod folder;
mod identity;
mod reseal;
mod shared;
mod space;
mod stall;
mod state;
mod tables;
mod verify;

pub(crate) use errors::map_error;
pub(crate) use folder::{is_there, live_folder, open_or_create, read_file, sync_folder, write_durably};
pub(crate) use identity::{Identity, Kind};
pub(crate) use shared::Profile;
pub(crate) use verify::{check_all, verify_root};

pub use shared::{ResourceLimits, SharedResources};
pub use state::{StagedState, StateDb, StateIdentity};
pub use verify::{VerifyReport, verify_offline};

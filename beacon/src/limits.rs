//! Limits of the registry. Those that other crates share stand in `ledger::limits`.

use ledger::limits::{BATCH_BYTES_MAX, COMMITTEE_MAX, GRPC_BYTES_MAX};

/// Organisations of a cluster.
pub const ORGS_MAX: usize = 64;
/// Nodes of a cluster.
pub const NODES_MAX: usize = 1024;
/// Shards of a cluster.
pub const SHARDS_MAX: usize = 1024;
/// Weight of one node in assignment.
pub const CAPACITY_MAX: u16 = 1000;
/// Bytes of the name of a cluster, an organisation or a zone.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a `host:port`: a DNS name, a colon and a port.
pub const ADDR_BYTES_MAX: usize = 253 + 1 + 5;
/// Bytes of an organisation's CA certificate in PEM.
pub const CA_PEM_BYTES_MAX: usize = 8 * 1024;
/// Encoded signed command.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;
/// How far in the future a command's deadline may lie.
pub const COMMAND_VALID_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Commands remembered because they could still be sent again.
pub const COMMANDS_OPEN_MAX: usize = 4096;
/// Proposals that wait for approval.
pub const PROPOSALS_MAX: usize = 64;
/// Divergences kept for one group; the first ones are the evidence, more add nothing.
pub const DIVERGENCES_MAX: usize = 8;
/// Encoded certificate of a checkpoint.
pub const CHECKPOINT_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(CA_PEM_BYTES_MAX * 2 <= COMMAND_BYTES_MAX, "a CA certificate fits into a command");
const _: () = assert!(COMMAND_BYTES_MAX < BATCH_BYTES_MAX, "a command fits into a batch");
const _: () = assert!(CHECKPOINT_BYTES_MAX * 8 < BATCH_BYTES_MAX, "several checkpoints fit into a batch");
const _: () = assert!(COMMITTEE_MAX <= NODES_MAX, "the largest committee can be seated");
const _: () = assert!(
    ORGS_MAX * (CA_PEM_BYTES_MAX + 256) + NODES_MAX * 1024 < GRPC_BYTES_MAX,
    "organisations and nodes of a cluster view fit into one message"
);

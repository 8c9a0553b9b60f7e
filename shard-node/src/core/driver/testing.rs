//! Configurations and blocks for the tests of the driver.

use std::sync::Arc;

use ledger::genesis::VerifyMode;
use ledger::header::Header;
use ledger::ids::NodeId;

use crate::core::driver::{CommittedBlock, DriverConfig};
use crate::core::support::{SHARD, node_key};

pub(super) fn config(node: u32) -> DriverConfig {
    DriverConfig {
        group: SHARD,
        node: NodeId(node),
        join: 1,
        key: node_key(node),
        pipeline: 1,
        checkpoint_every: 10,
        verify: VerifyMode::Ingest,
    }
}

/// A block that did nothing.
pub(super) fn block(header: Header) -> CommittedBlock {
    CommittedBlock {
        header_hash: header.hash(),
        header: Arc::new(header),
        outcomes: Vec::new(),
        mail: Vec::new(),
        outbox: Vec::new(),
        inbox: Vec::new(),
        cursors: Vec::new(),
        to_verify: Arc::default(),
        next_deadline: None,
    }
}

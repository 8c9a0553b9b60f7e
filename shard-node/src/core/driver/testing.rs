//! Configurations and blocks for the tests of the driver.

use std::sync::Arc;

use ledger::Committee;
use ledger::checked::Checked;
use ledger::genesis::VerifyMode;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId};

use crate::core::driver::{CommittedBlock, DriverConfig, RecentBlock, SystemView};
use crate::core::support::{self, SHARD, node_key};

pub(super) fn config(node: u32) -> DriverConfig {
    DriverConfig {
        group: SHARD,
        node: NodeId(node),
        join: 1,
        key: node_key(node).into(),
        pipeline: 1,
        checkpoint_every: 10,
        verify: VerifyMode::Ingest,
        checked: Checked::default(),
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
        sealed: None,
        shapes: Vec::new(),
        unsealed: false,
        reshaped: false,
    }
}

/// The state of a group at block 0, with these committees.
pub(super) fn at_zero(group: GroupId, committees: Vec<Committee>) -> SystemView {
    let zero = support::header(group, 0);
    SystemView {
        committees: committees.into(),
        height: Height(0),
        recent: vec![RecentBlock { hash: zero.hash(), header: Arc::new(zero), outbox: Vec::new(), inbox: Vec::new() }],
        certified: None,
        handovers: Vec::new(),
        checked: Height(0),
        forged: None,
        installed: None,
        outbox: Vec::new(),
        inbox: Vec::new(),
        next_deadline: None,
        evidence: Vec::new(),
        sealed: None,
    }
}

//! Blocks as unit tests of checkers make them up, in a cluster of which nothing but the layout is known.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use consensus::port::Position;
use cross_shard::StreamLeaf;
use ledger::genesis::{GENESIS_VERSION, Genesis, VerifyMode};
use ledger::hash::Hash32;
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{ClusterId, GroupId, Height, Incarnation, LayoutVersion, LedgerId, NodeId, TimeMs, TxId};
use ledger::layout::Layout;
use ledger::tx::Move;

use super::{AccusedSeen, BlockSeen, EpochsSeen, Facts, own};
use crate::workload::{Handing, Operation, Purpose};

/// The facts of a cluster that begins with a layout.
pub(super) fn facts(layout: Layout) -> Facts {
    facts_with(layout, Vec::new())
}

/// The same, of one that has a load.
pub(super) fn facts_with(layout: Layout, operations: Vec<Operation>) -> Facts {
    let genesis = Rc::new(Genesis {
        version: GENESIS_VERSION,
        name: String::new(),
        created_ms: TimeMs(0),
        seed: Hash32::ZERO,
        orgs: Vec::new(),
        nodes: Vec::new(),
        committees: Vec::new(),
        layout,
        verify: VerifyMode::Ingest,
        policies: BTreeMap::new(),
    });
    Facts::new(Rc::new(own::Places { genesis, channels: BTreeMap::new() }), Rc::new(operations))
}

/// A transaction of the main ledger, whose id is made of a byte.
pub(super) fn operation(id: u8, moves: Vec<Move>) -> Operation {
    Operation {
        index: u32::from(id),
        purpose: Purpose::Pay,
        txid: TxId(Hash32([id; 32])),
        bytes: Bytes::new(),
        openings: BTreeMap::new(),
        witnesses: BTreeMap::new(),
        ledgers: vec![LedgerId::MAIN; moves.len()],
        hidden: vec![None; moves.len()],
        moves,
        valid_until: TimeMs(u64::MAX),
        at_ms: 0,
        after: None,
        awaits: None,
        late: false,
        handing: Handing::default(),
    }
}

/// A header that says nothing but where it stands.
pub(super) fn header(group: GroupId, height: u64) -> Header {
    Header {
        version: HEADER_VERSION,
        cluster: ClusterId::default(),
        group,
        incarnation: Incarnation(0),
        height: Height(height),
        parents: Vec::new(),
        time_ms: TimeMs(height),
        layout_version: LayoutVersion(1),
        batch_root: Hash32::ZERO,
        receipts_root: Hash32::ZERO,
        state_root: Hash32::ZERO,
        outbox_root: Hash32::ZERO,
        inbox_cursors_root: Hash32::ZERO,
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash: Hash32::ZERO,
        next_committee_hash: Hash32::ZERO,
        flags: 0,
    }
}

/// A block in which nothing happens.
pub(super) fn block(group: GroupId, height: u64) -> BlockSeen {
    BlockSeen {
        node: NodeId(0),
        group,
        position: Position { term: 1, leader: 0, index: height },
        header: header(group, height),
        header_hash: Hash32([u8::try_from(height).unwrap_or(u8::MAX); 32]),
        receipts: Vec::new(),
        votes: Vec::new(),
        registers: Vec::new(),
        mail: Vec::new(),
        lines: Vec::new(),
        flow: Vec::new(),
        governed: Vec::new(),
        outbox: Vec::new(),
        inbox: Vec::new(),
        layout: None,
        committees: Vec::new(),
        epochs: EpochsSeen::default(),
        accused: AccusedSeen::default(),
    }
}

/// The head of a stream with a peer, which stands before this number.
pub(super) fn leaf(peer: GroupId, next_seq: u64) -> StreamLeaf {
    StreamLeaf { peer, next_seq, head: Hash32::ZERO }
}

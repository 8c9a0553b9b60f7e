//! What must never happen, whatever the faults were.
//!
//! Every checker has a file of its own, keeps its own books and does its own arithmetic. None calls
//! a predicate of the production code, which could be wrong in the same way as what it judges: they
//! use its data types, its codecs and the signature primitive, and nothing else. A transaction
//! without an answer is unknown, not absent.

pub mod certificates;
pub mod conservation;
pub mod durability;
pub mod equal_roots;
pub mod exactly_once;
pub mod monotone;

use std::collections::BTreeMap;
use std::rc::Rc;

use consensus::local::LocalLog;
use consensus::port::Position;
use cross_shard::StreamLeaf;
use ledger::certificate::Certificate;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, TxId};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use storage::mem::MemKv;

use crate::workload::Operation;

/// A block that a replica has persisted.
#[derive(Clone, Debug)]
pub struct BlockSeen {
    /// Where.
    pub node: NodeId,
    /// Of which group.
    pub group: GroupId,
    /// Where its entry stands in the log.
    pub position: Position,
    /// Its header.
    pub header: Header,
    /// The hash that the replica goes by.
    pub header_hash: Hash32,
    /// Its receipts.
    pub receipts: Vec<Receipt>,
    /// Heads of its outgoing streams.
    pub outbox: Vec<StreamLeaf>,
    /// Its cursors.
    pub inbox: Vec<StreamLeaf>,
}

/// What checkers are told as it happens.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A replica started from what its disk holds.
    Started {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The height that its state has.
        height: Height,
    },
    /// A replica persisted a block.
    Block(Box<BlockSeen>),
    /// A replica's role or term changed.
    Role {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Whether it leads.
        leads: bool,
        /// Its term.
        term: u64,
    },
    /// A replica's state is durable up to this height.
    Flushed {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Up to where.
        height: Height,
    },
    /// A replica gathered a certificate.
    Certified {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The certificate.
        certificate: Box<Certificate>,
    },
    /// A leader has proof that a peer took mail.
    PeerTook {
        /// Where.
        node: NodeId,
        /// The group that sent it.
        group: GroupId,
        /// The peer.
        dest: GroupId,
        /// Everything below has been taken.
        next_seq: u64,
    },
    /// A transaction was met again and answered with its first receipt.
    Known {
        /// The transaction.
        txid: TxId,
    },
    /// A client got a receipt.
    Acknowledged {
        /// The operation.
        operation: u32,
        /// The receipt.
        receipt: Receipt,
    },
    /// A client was refused for good.
    Refused {
        /// The operation.
        operation: u32,
        /// Why.
        reject: Reject,
    },
}

/// What a replica holds, as an auditor with the disks in hand sees it.
pub struct RawReplica<'a> {
    /// Where.
    pub node: NodeId,
    /// Of which group.
    pub group: GroupId,
    /// The state, unflushed batches included while the node is up.
    pub kv: &'a MemKv,
    /// The part of the log that no crash can take.
    pub log: &'a LocalLog,
}

/// When the disks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Right after a node lost power.
    Crash,
    /// Now and then.
    Passing,
    /// When everything has drained.
    End,
}

/// What a run is known to contain.
pub struct Facts {
    /// The cluster.
    pub genesis: Rc<Genesis>,
    /// The load.
    pub operations: Rc<Vec<Operation>>,
    /// Its transactions.
    pub by_txid: BTreeMap<TxId, u32>,
}

impl Facts {
    /// The facts of a run.
    #[must_use]
    pub fn new(genesis: Rc<Genesis>, operations: Rc<Vec<Operation>>) -> Self {
        let by_txid = operations.iter().rev().map(|operation| (operation.txid, operation.index)).collect();
        Self { genesis, operations, by_txid }
    }

    /// The operation with this index.
    #[must_use]
    pub fn operation(&self, index: u32) -> Option<&Operation> {
        self.operations.get(index as usize)
    }

    /// How many replicas a group has.
    #[must_use]
    pub fn replicas(&self, group: GroupId) -> usize {
        let committees = self.genesis.committees.iter();
        committees.filter(|committee| committee.group == group).map(|committee| committee.members.len()).sum()
    }
}

/// One checker.
pub trait Checker {
    /// Its name, in front of everything it finds.
    fn name(&self) -> &'static str;

    /// Something happened.
    fn see(&mut self, facts: &Facts, seen: &Seen, found: &mut Vec<String>);

    /// The disks lie open.
    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>);
}

/// All checkers of a run.
pub struct Checkers {
    facts: Facts,
    checkers: Vec<Box<dyn Checker>>,
    /// What they found, each line with the name of its checker.
    pub violations: Vec<String>,
}

impl Checkers {
    /// All of them.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let checkers: Vec<Box<dyn Checker>> = vec![
            Box::new(equal_roots::EqualRoots::default()),
            Box::new(monotone::Monotone::default()),
            Box::new(certificates::Certificates::default()),
            Box::new(durability::Durability::default()),
            Box::new(exactly_once::ExactlyOnce::default()),
            Box::new(conservation::Conservation::default()),
        ];
        Self { facts, checkers, violations: Vec::new() }
    }

    /// Tells all of them.
    pub fn see(&mut self, seen: &Seen) {
        let mut found = Vec::new();
        for checker in &mut self.checkers {
            checker.see(&self.facts, seen, &mut found);
            let name = checker.name();
            self.violations.extend(found.drain(..).map(|text| format!("{name}: {text}")));
        }
    }

    /// Lets all of them look at the disks.
    pub fn audit(&mut self, moment: Moment, replicas: &[RawReplica<'_>]) {
        let mut found = Vec::new();
        for checker in &mut self.checkers {
            checker.audit(&self.facts, moment, replicas, &mut found);
            let name = checker.name();
            self.violations.extend(found.drain(..).map(|text| format!("{name}: {text}")));
        }
    }
}

//! What must never happen, whatever the faults were.
//!
//! Every checker has a file of its own, keeps its own books and does its own arithmetic. None calls
//! a predicate of the production code, which could be wrong in the same way as what it judges: they
//! use its data types, its codecs and the signature primitive, and nothing else; what transactions
//! mean they work out in [`own`]. A transaction without an answer is unknown, not absent.

pub mod accusations;
pub mod agreement;
pub mod atomicity;
pub mod certificates;
pub mod comings;
pub mod conservation;
pub mod durability;
mod electors;
pub mod epochs;
pub mod equal_roots;
pub mod exactly_once;
pub mod foundings;
mod heights;
pub mod holds;
pub mod isolation;
pub mod keys;
pub mod lineage;
pub mod lines;
pub mod locks;
pub mod monotone;
pub mod order;
pub mod own;
pub mod pairs;
pub mod policies;
pub mod quorums;
pub mod registers;
pub mod removal;
pub mod revocations;
mod roots;
pub mod rules;
pub mod seats;
pub mod secrecy;
pub mod seen;
pub mod stints;
pub mod streams;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use consensus::local::LocalLog;
use cross_shard::Message;
use ledger::committee::Committee;
use ledger::crypto::PublicKey;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{Address, GroupId, GroupKind, NodeId, TxId};
use sha2::{Digest, Sha256};
use storage::mem::MemKv;

use crate::replica::Wal;
use crate::report::Coverage;
use crate::workload::Operation;

pub use agreement::BftSeen;
pub use seen::{AccusedSeen, BlockSeen, BornSeen, EpochsSeen, Given, Governed, RegisterWrite, Seen};

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
    /// The records of a member of a Byzantine group that no crash can take, where there is a disk with them.
    pub wal: Option<&'a Wal>,
}

/// When the disks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Right after a node lost power.
    Crash,
    /// Now and then.
    Passing,
    /// When everything has drained and every register is gone.
    End,
}

/// A transaction as the checkers work it out.
#[derive(Clone, Debug)]
pub struct TxFacts {
    /// The first operation that sends it.
    pub operation: u32,
    /// Who has a say in what.
    pub legs: Vec<own::Leg>,
    /// The groups that vote, by the first layout.
    pub voters: Vec<GroupId>,
    /// The group that each move names where it is hidden.
    pub hidden: Vec<Option<GroupId>>,
}

/// What a run is known to contain.
pub struct Facts {
    /// The cluster.
    pub genesis: Rc<Genesis>,
    /// Where accounts live.
    pub places: Rc<own::Places>,
    /// The load.
    pub operations: Rc<Vec<Operation>>,
    /// Its transactions.
    pub txs: BTreeMap<TxId, TxFacts>,
    /// Shards as they were cut and joined.
    pub lines: lines::Lines,
    /// Its accounts by partition.
    pub accounts: BTreeMap<[u8; 32], Address>,
    /// Whether seats of shards move.
    pub seats_move: bool,
    /// Whether nodes come and go.
    pub nodes_come_and_go: bool,
    /// Whether signing keys of nodes are replaced.
    pub keys_change: bool,
    /// Whether the cluster comes to decide by other policies.
    pub policies_change: bool,
    /// Whether the beacon hears who has voted twice, and takes the seats of that node.
    pub accused_lose_seats: bool,
    /// Payments that are in no load: of more than there is, signed by a liar in somebody's name.
    pub overdrafts: BTreeSet<TxId>,
    /// Channels: those of the genesis, and those that were founded while the cluster ran.
    channels: BTreeSet<GroupId>,
    /// Committees by group and hash: those of the genesis, and those that the beacon has put into force.
    committees: BTreeMap<(GroupId, Hash32), Committee>,
}

/// The hash of a committee, computed here.
fn committee_hash(committee: &Committee) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(b"seamark/committee/v1");
    hasher.update(borsh::to_vec(committee).unwrap_or_default());
    Hash32(hasher.finalize().into())
}

impl Facts {
    /// The facts of a run.
    #[must_use]
    pub fn new(places: Rc<own::Places>, operations: Rc<Vec<Operation>>) -> Self {
        let genesis = Rc::clone(&places.genesis);
        let (mut txs, mut accounts) = (BTreeMap::new(), BTreeMap::new());
        for operation in operations.iter() {
            let legs = own::legs(&places, &operation.moves);
            let credited = own::traces(operation).into_iter().map(|trace| trace.account);
            let touched = legs.iter().map(|leg| leg.account).chain(credited);
            accounts.extend(touched.map(|account| (own::partition(&account), account)));
            let voters = own::voters(&legs);
            let hidden = operation.hidden.iter().map(|named| named.map(|(group, _)| group)).collect();
            txs.entry(operation.txid).or_insert(TxFacts { operation: operation.index, legs, voters, hidden });
        }
        let lines = lines::Lines::new(&genesis.layout);
        let mut facts = Self {
            genesis,
            places,
            operations,
            txs,
            lines,
            accounts,
            seats_move: false,
            nodes_come_and_go: false,
            keys_change: false,
            policies_change: false,
            accused_lose_seats: false,
            overdrafts: BTreeSet::new(),
            channels: BTreeSet::new(),
            committees: BTreeMap::new(),
        };
        let first = Rc::clone(&facts.genesis);
        first.committees.iter().for_each(|committee| facts.know(committee));
        facts
    }

    fn know(&mut self, committee: &Committee) {
        if committee.group.kind() == Some(GroupKind::Channel) {
            self.channels.insert(committee.group);
        }
        self.committees.insert((committee.group, committee_hash(committee)), committee.clone());
    }

    /// What is to be known of committees, and of what liars have made, before anything is judged.
    fn learn(&mut self, seen: &Seen) {
        match seen {
            Seen::Founded(foundation) => self.know(&foundation.committee),
            Seen::Bft(BftSeen::Lied { deeds, .. }) => self.overdrafts.extend(&deeds.overdrafts),
            Seen::Block(block) if block.group == GroupId::BEACON => {
                if let Some(layout) = &block.layout {
                    self.lines.learn(layout);
                    block.committees.iter().for_each(|committee| self.know(committee));
                }
                for (_, _, message) in &block.mail {
                    if let Message::CommitteeUpdate(committee) = message {
                        self.know(committee);
                    }
                }
            }
            _ => {}
        }
    }

    /// The channels that there are by now.
    pub fn channels(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.channels.iter().copied()
    }

    /// The committee of a group with a hash, if it ever was in force.
    #[must_use]
    pub fn committee(&self, group: GroupId, hash: &Hash32) -> Option<&Committee> {
        self.committees.get(&(group, *hash))
    }

    /// Whether a committee that a group ever had names a node by a key.
    #[must_use]
    pub fn named(&self, group: GroupId, node: NodeId, key: &PublicKey) -> bool {
        let range = (group, Hash32([0; 32]))..=(group, Hash32([u8::MAX; 32]));
        let mut members = self.committees.range(range).flat_map(|(_, committee)| &committee.members);
        members.any(|member| member.node == node && member.key == *key)
    }

    /// The committee that a group of the genesis begins with, or a shard that others were cut or joined into.
    #[must_use]
    pub fn first_committee(&self, group: GroupId) -> Option<&Committee> {
        let first = self.genesis.committees.iter().find(|committee| committee.group == group);
        first.or_else(|| {
            let range = (group, Hash32([0; 32]))..=(group, Hash32([u8::MAX; 32]));
            self.committees.range(range).map(|(_, committee)| committee).min_by_key(|committee| committee.epoch)
        })
    }

    /// Whether an account lies in a group, or did while that lived.
    #[must_use]
    pub fn lives(&self, account: &Address, group: GroupId) -> bool {
        match self.places.channels.get(account) {
            Some(channel) => *channel == group,
            None => self.lines.owns(group, &own::partition(account)),
        }
    }

    /// The living group that an account lies in.
    #[must_use]
    pub fn home(&self, account: &Address) -> GroupId {
        let channel = self.places.channels.get(account).copied();
        channel.or_else(|| self.lines.owner(&own::partition(account))).unwrap_or(GroupId(0))
    }

    /// Whether what a leg is about lies in a group, or did while that lived.
    #[must_use]
    pub fn lies(&self, leg: &own::Leg, group: GroupId) -> bool {
        if leg.group.kind() == Some(GroupKind::Shard) { self.lives(&leg.account, group) } else { leg.group == group }
    }

    /// Whether a group votes on a leg, or did while it lived: who owns the account, and of a hidden move who is named, or
    /// stands for that one.
    #[must_use]
    pub fn speaks(&self, tx: &TxFacts, leg: &own::Leg, group: GroupId) -> bool {
        match tx.hidden.get(leg.slot).copied().flatten() {
            Some(named) if leg.group.kind() == Some(GroupKind::Shard) && named == leg.group => {
                self.lines.stands_for(group, named)
            }
            _ => self.lies(leg, group),
        }
    }

    /// Whether a group votes on a leg, or has what it is about.
    #[must_use]
    pub fn concerns(&self, tx: &TxFacts, leg: &own::Leg, group: GroupId) -> bool {
        self.lies(leg, group) || self.speaks(tx, leg, group)
    }

    /// The operation with this index.
    #[must_use]
    pub fn operation(&self, index: u32) -> Option<&Operation> {
        self.operations.get(index as usize)
    }

    /// A transaction and the first operation that sends it.
    #[must_use]
    pub fn tx(&self, txid: &TxId) -> Option<(&TxFacts, &Operation)> {
        let facts = self.txs.get(txid)?;
        Some((facts, self.operation(facts.operation)?))
    }
}

/// One checker.
pub trait Checker {
    /// Its name, in front of everything it finds.
    fn name(&self) -> &'static str;

    /// Something happened. A block is told for every replica; `first` says that no replica has had
    /// one of this height before.
    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>);

    /// The disks lie open.
    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>);

    /// Adds how often it has compared something that is not always there to be compared.
    fn tally(&self, _: &mut Coverage) {}
}

/// All checkers of a run.
pub struct Checkers {
    facts: Facts,
    heights: BTreeMap<GroupId, u64>,
    checkers: Vec<Box<dyn Checker>>,
    /// What they found, each line with the name of its checker.
    pub violations: Vec<String>,
}

impl Checkers {
    fn all() -> Vec<Box<dyn Checker>> {
        vec![
            Box::new(equal_roots::EqualRoots::default()),
            Box::new(monotone::Monotone::default()),
            Box::new(certificates::Certificates::default()),
            Box::new(durability::Durability::default()),
            Box::new(atomicity::Atomicity::default()),
            Box::new(registers::Registers::default()),
            Box::new(holds::Holds),
            Box::new(locks::Locks::default()),
            Box::new(exactly_once::ExactlyOnce::default()),
            Box::new(order::Order::default()),
            Box::new(conservation::Conservation::default()),
            Box::new(secrecy::Secrecy::default()),
            Box::new(isolation::Isolation),
            Box::new(pairs::Pairs::default()),
            Box::new(policies::Policies::default()),
            Box::new(foundings::Foundings::default()),
            Box::new(revocations::Revocations::default()),
            Box::new(agreement::Agreement::default()),
            Box::new(seats::Seats::default()),
            Box::new(removal::Removal::default()),
            Box::new(stints::Stints::default()),
            Box::new(lineage::Lineage::default()),
            Box::new(streams::Streams::default()),
            Box::new(epochs::Epochs::default()),
            Box::new(comings::Comings::default()),
            Box::new(accusations::Accusations::default()),
            Box::new(keys::Keys::default()),
            Box::new(rules::Rules::default()),
        ]
    }

    /// All of them.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self { facts, heights: BTreeMap::new(), checkers: Self::all(), violations: Vec::new() }
    }

    /// Names of all of them, each in front of what its checker finds.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Self::all().iter().map(|checker| checker.name()).collect()
    }

    /// What the run is known to contain.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Tells all of them.
    pub fn see(&mut self, seen: &Seen) {
        self.facts.learn(seen);
        let mut first = false;
        if let Seen::Born(born) = seen {
            let (group, height) = (born.header.group, born.header.height.0);
            self.heights.entry(group).or_insert(height);
        }
        if let Seen::Block(block) = seen {
            let highest = self.heights.entry(block.group).or_insert(0);
            first = block.header.height.0 > *highest;
            *highest = block.header.height.0.max(*highest);
        }
        let mut found = Vec::new();
        for checker in &mut self.checkers {
            checker.see(&self.facts, seen, first, &mut found);
            let name = checker.name();
            self.violations.extend(found.drain(..).map(|text| format!("{name}: {text}")));
        }
    }

    /// Adds what all of them have counted.
    pub(crate) fn tally(&self, coverage: &mut Coverage) {
        self.checkers.iter().for_each(|checker| checker.tally(coverage));
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

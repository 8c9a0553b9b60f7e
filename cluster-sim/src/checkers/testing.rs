//! What unit tests of checkers tell them: a small cluster, and blocks of its beacon with what the registry has taken.

use std::collections::BTreeMap;
use std::rc::Rc;

use beacon::jobs::JOB_VERSION;
use beacon::{BeaconCommand, Job, JobKind, Phase, SignedCommand};
use consensus::local::LocalLog;
use consensus::port::Position;
use cross_shard::Message;
use ledger::committee::{Committee, Member};
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{Epoch, GroupId, Height, Incarnation, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use storage::mem::MemKv;

use super::{
    AccusedSeen, BlockSeen, Checker, EpochsSeen, Facts, Governed, Moment, RawReplica, Seen, committee_hash, own,
};
use crate::cluster::{CREATED_MS, admin_key, genesis};
use crate::config::{Shape, SimConfig};
use crate::schedule::Scenario;

/// A checker, and what it is told.
pub(super) struct Bench<C> {
    pub facts: Facts,
    pub checker: C,
    heights: BTreeMap<GroupId, u64>,
    salt: u8,
    found: Vec<String>,
}

impl<C: Checker> Bench<C> {
    /// Of a cluster with two shards of three members each, all of them Raft's, and five nodes.
    pub fn new(checker: C) -> Self {
        let config = SimConfig {
            scenario: Some(Scenario::Calm),
            shards: Some(2),
            replicas: Some(3),
            nodes: Some(5),
            switches: Some(0),
            ..SimConfig::default()
        };
        let shape = config.shape(&mut ChaCha8Rng::seed_from_u64(1));
        let shape = Shape { channels: 0, byzantine: Vec::new(), newcomers: 0, beacon_replicas: 3, ..shape };
        let genesis = Rc::new(genesis(1, &shape).expect("the shape makes a cluster"));
        let places = Rc::new(own::Places { genesis, channels: BTreeMap::new() });
        let facts = Facts::new(places, Rc::new(Vec::new()));
        Self { facts, checker, heights: BTreeMap::new(), salt: 0, found: Vec::new() }
    }

    pub fn see(&mut self, seen: &Seen) {
        self.facts.learn(seen);
        self.checker.see(&self.facts, seen, true, &mut self.found);
    }

    /// What was found since somebody looked last.
    pub fn found(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found)
    }

    /// A command of an organisation that counts until a time, milliseconds since the cluster began.
    pub fn signed(&mut self, org: u16, command: &BeaconCommand, until_ms: u64) -> SignedCommand {
        self.salt += 1;
        let (org, until) = (OrgId(org), TimeMs(CREATED_MS + until_ms));
        let cluster = self.facts.genesis.cluster_id();
        SignedCommand::sign(&cluster, command, org, [self.salt; 16], until, admin_key(org, 0))
    }

    /// The committee of a group in the genesis.
    pub fn committee(&self, group: GroupId) -> Committee {
        self.facts.genesis.committee(group).expect("the cluster has it").clone()
    }

    /// The next header of a group, which hands over from one committee to the next.
    pub fn header(&mut self, group: GroupId, at_ms: u64, by: &Committee, next: &Committee) -> Header {
        let height = self.heights.entry(group).or_insert(0);
        *height += 1;
        let zero = Hash32([0; 32]);
        Header {
            version: HEADER_VERSION,
            cluster: self.facts.genesis.cluster_id(),
            group,
            incarnation: Incarnation(0),
            height: Height(*height),
            parents: Vec::new(),
            time_ms: TimeMs(CREATED_MS + at_ms),
            layout_version: LayoutVersion(0),
            batch_root: zero,
            receipts_root: zero,
            state_root: zero,
            outbox_root: zero,
            inbox_cursors_root: zero,
            value_flow: Vec::new(),
            congestion: Vec::new(),
            committee_hash: committee_hash(by),
            next_committee_hash: committee_hash(next),
            flags: 0,
        }
    }

    /// A block with this header.
    pub fn block(&mut self, header: Header, governed: Vec<Governed>, mail: Vec<(GroupId, Message)>) {
        let index = header.height.0;
        let seen = BlockSeen {
            node: NodeId(0),
            group: header.group,
            position: Position { term: 1, leader: 0, index },
            header_hash: Hash32([0; 32]),
            receipts: Vec::new(),
            votes: Vec::new(),
            registers: Vec::new(),
            mail: mail.into_iter().map(|(dest, message)| (dest, index, message)).collect(),
            lines: Vec::new(),
            flow: Vec::new(),
            governed,
            outbox: Vec::new(),
            inbox: Vec::new(),
            layout: None,
            committees: Vec::new(),
            epochs: EpochsSeen::default(),
            accused: AccusedSeen::default(),
            header,
        };
        self.see(&Seen::Block(Box::new(seen)));
    }

    /// The beacon's next block at a time: commands that the registry has taken, and mail.
    pub fn beacon(&mut self, at_ms: u64, commands: &[SignedCommand], mail: Vec<(GroupId, Message)>) {
        let own = self.committee(GroupId::BEACON);
        let header = self.header(GroupId::BEACON, at_ms, &own, &own);
        let governed = commands.iter().map(|signed| Governed::Registered(Box::new(signed.clone()))).collect();
        self.block(header, governed, mail);
    }

    /// The next block of a group, which hands over from one committee to the next.
    pub fn hands_over(&mut self, by: &Committee, next: &Committee) {
        let header = self.header(by.group, 0, by, next);
        self.block(header, Vec::new(), Vec::new());
    }

    /// One replica's disk lies open.
    pub fn audit(&mut self, group: GroupId, moment: Moment, kv: &MemKv) {
        let log = LocalLog::default();
        let replicas = [RawReplica { node: NodeId(0), group, kv, log: &log, wal: None }];
        self.checker.audit(&self.facts, moment, &replicas, &mut self.found);
    }
}

/// A later committee of a group, in which a node is named by another key.
pub(super) fn renamed(before: &Committee, node: NodeId, key: PublicKey) -> Committee {
    let name = |member: &Member| if member.node == node { Member { key, ..member.clone() } } else { member.clone() };
    let (epoch, members) = (Epoch(before.epoch.0 + 1), before.members.iter().map(name).collect());
    Committee::of(before.engine, before.group, before.incarnation, epoch, members)
}

/// A job as the beacon keeps it, on the first layout, of which nothing else is known.
pub(super) fn job(id: u64, kind: JobKind, phase: Phase) -> Job {
    Job {
        version: JOB_VERSION,
        id: JobId(id),
        kind,
        phase,
        manual: false,
        on: LayoutVersion(0),
        approvals: Vec::new(),
        by_scale: false,
        children: Vec::new(),
        since_ms: TimeMs(CREATED_MS),
        until_ms: None,
        warm: Vec::new(),
        open: Vec::new(),
        ends: Vec::new(),
        reason: None,
        seals: Vec::new(),
    }
}

/// Exactly one thing was found, which says so; or nothing.
pub(super) fn expect(what: &str, found: &[String], expected: Option<&str>) {
    match expected {
        None => assert!(found.is_empty(), "{what}: {found:?}"),
        Some(text) => assert!(matches!(found, [one] if one.contains(text)), "{what}: {found:?}"),
    }
}

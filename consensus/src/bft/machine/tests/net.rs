//! A group of machines in one thread: a wire, disks and hosts, all drawn from one seed.
//!
//! What is checked all the time: no index has two values; no ballot leaves a member before it is durable; no
//! honest member signs two answers to one question, whatever crashes; entries are applied in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation, SignedBallot};
use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::SecretKey;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, Epoch, GroupId, Incarnation, NodeId, OrgId, Tick};
use ledger::keys::NodeKeys;

use super::super::Machine;
use crate::bft::{
    Begin, BftTiming, Body, Chain, Decided, Event, Fate, Input, Message, Output, Record, Settings, VALUE_VERSION, Value,
};

pub const CLUSTER: ClusterId = ClusterId(Hash32([7; 32]));
const ANCHOR: Hash32 = Hash32([9; 32]);

pub fn key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"a member's key")
}

/// The key that follows the one of a member.
pub fn next_key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"a member's next key")
}

/// A committee with one of its members by the next key.
pub fn renewed(committee: &Committee, node: u32) -> Arc<Committee> {
    let mut next = committee.clone();
    next.epoch = Epoch(next.epoch.0 + 1);
    let at = next.index_of(NodeId(node)).unwrap();
    next.members[at].key = next_key(node).public();
    Arc::new(next)
}

pub fn committee(nodes: impl IntoIterator<Item = u32>, epoch: u64) -> Arc<Committee> {
    let member = |node: u32| Member { node: NodeId(node), org: OrgId(1), key: key(node).public() };
    let members = nodes.into_iter().map(member).collect();
    Arc::new(Committee::of(Engine::Bft, GroupId(0x0100_0001), Incarnation(0), Epoch(epoch), members))
}

pub fn batch(text: &str) -> Body {
    Body::Batch(Bytes::copy_from_slice(text.as_bytes()))
}

/// What survives a crash.
#[derive(Clone)]
pub struct Disk {
    /// Chains behind entries; the first is where the order starts.
    pub chains: Vec<Chain>,
    pub log: Vec<Decided>,
    /// Entries that the state has.
    pub applied: usize,
    /// Entries of the log that are durable.
    synced: usize,
    first: u64,
    pub records: Vec<Record>,
    /// Records up to these numbers are not needed when the log is durable.
    forget: Vec<u64>,
}

pub struct Node {
    pub id: NodeId,
    pub machine: Option<Machine>,
    pub disk: Disk,
    pub votes: bool,
    /// Whether its promises are checked: not those of a twin.
    honest: bool,
    /// Written and not durable.
    fresh: Vec<(u64, Record)>,
    durable: BTreeSet<SignedBallot>,
    /// All records that were ever durable.
    pub written: Vec<Record>,
    /// How often it has asked for records to be written.
    pub writes: usize,
    pub stopped: Option<String>,
}

#[derive(Clone)]
enum Task {
    Deliver(NodeId, NodeId, Message),
    Durable(usize, u64),
    Judged(usize, Hash32, bool),
    Apply(usize, Box<Decided>, Chain),
    Sync(usize),
    Decided(usize, NodeId, u64),
}

pub struct Net {
    pub now: u64,
    random: u64,
    /// Whether tasks are run in any order.
    pub wild: bool,
    /// Of a hundred messages, so many are lost.
    pub loss: usize,
    /// Nothing comes from or to these.
    pub cut: BTreeSet<NodeId>,
    pub nodes: Vec<Node>,
    tasks: Vec<Task>,
    /// Committees in force behind entries.
    pub committees: BTreeMap<u64, Arc<Committee>>,
    pub history: BTreeMap<u64, Value>,
    pub fates: BTreeMap<u64, Fate>,
    pub evidence: Vec<Equivocation>,
    /// Who has said of whom that it has signed too much to be remembered.
    pub unremembered: Vec<(NodeId, NodeId)>,
    /// What honest members have said, by question.
    pub said: BTreeMap<(NodeId, u64, u32, u8), Ballot>,
    /// Every message that was sent.
    pub sent: Vec<(NodeId, Message)>,
    pub asked: Vec<(NodeId, Hash32, bool)>,
    /// Who was asked for decided values, in order.
    pub fetched: Vec<NodeId>,
    /// Members that answer with whatever they like.
    pub liars: BTreeSet<NodeId>,
    /// Nodes that start without their next key.
    pub lack: BTreeSet<NodeId>,
}

impl Net {
    /// Members `1..=count`, all honest.
    pub fn new(count: u32, seed: u64) -> Self {
        Self::of(committee(1..=count, 0), 1..=count, seed)
    }

    /// A committee, and the nodes that run.
    pub fn of(committee: Arc<Committee>, nodes: impl IntoIterator<Item = u32>, seed: u64) -> Self {
        let mut net = Self {
            now: 1000,
            random: seed,
            wild: false,
            loss: 0,
            cut: BTreeSet::new(),
            nodes: Vec::new(),
            tasks: Vec::new(),
            committees: BTreeMap::from([(0, committee)]),
            history: BTreeMap::new(),
            fates: BTreeMap::new(),
            evidence: Vec::new(),
            unremembered: Vec::new(),
            said: BTreeMap::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            fetched: Vec::new(),
            liars: BTreeSet::new(),
            lack: BTreeSet::new(),
        };
        for node in nodes {
            net.add(node, true, true);
        }
        net
    }

    /// Adds a node that starts from nothing.
    pub fn add(&mut self, node: u32, votes: bool, honest: bool) {
        let chain = Chain::start(0, ANCHOR, &self.committees[&0]);
        let disk = Disk {
            chains: vec![chain],
            log: Vec::new(),
            applied: 0,
            synced: 0,
            first: 1,
            records: Vec::new(),
            forget: Vec::new(),
        };
        let (id, machine, fresh) = (NodeId(node), None, Vec::new());
        let durable = BTreeSet::new();
        let written = Vec::new();
        let node = Node { id, machine, disk, votes, honest, fresh, durable, written, writes: 0, stopped: None };
        self.nodes.push(node);
        self.start(self.nodes.len() - 1, 0);
    }

    /// A draw below `limit`.
    pub fn draw(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) as usize) % limit.max(1)
    }

    pub fn in_force(&self, index: u64) -> Arc<Committee> {
        Arc::clone(self.committees.range(..=index).next_back().unwrap().1)
    }

    /// Starts a node from its disk; its state has lost the last entries.
    pub fn start(&mut self, at: usize, behind: usize) {
        let node = &mut self.nodes[at];
        let state = node.disk.log.len().saturating_sub(behind);
        node.disk.applied = state;
        let node = &self.nodes[at];
        let chain = node.disk.chains[state].clone();
        let begin = Begin {
            committee: self.in_force(chain.index),
            chain,
            decided: node.disk.log[state..].to_vec(),
            records: (node.disk.first, node.disk.records.clone()),
            votes: node.votes,
        };
        let keys = NodeKeys::from(key(node.id.0));
        if !self.lack.contains(&node.id) {
            keys.add(next_key(node.id.0));
        }
        let settings = Settings { cluster: CLUSTER, node: node.id, key: keys, timing: BftTiming::DEFAULT };
        let mut out = Vec::new();
        let machine = Machine::new(settings, begin, Tick(self.now), &mut out);
        self.nodes[at].machine = Some(machine);
        self.carry_out(at, out);
    }

    /// Stops a node: what is not durable is gone.
    pub fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.machine = None;
        node.fresh.clear();
        let synced = node.disk.synced;
        node.disk.log.truncate(synced);
        node.disk.chains.truncate(synced + 1);
        node.disk.forget.clear();
        self.tasks.retain(|task| match task {
            Task::Durable(node, _) | Task::Judged(node, ..) | Task::Apply(node, ..) | Task::Sync(node) => *node != at,
            Task::Decided(node, ..) => *node != at,
            Task::Deliver(..) => true,
        });
    }

    pub fn step(&mut self, at: usize, input: Input) {
        let mut out = Vec::new();
        let Some(machine) = self.nodes[at].machine.as_mut() else { return };
        machine.step(Tick(self.now), input, &mut out);
        self.carry_out(at, out);
    }

    /// A member, or somebody who says so, has sent something.
    pub fn deliver(&mut self, from: u32, to: u32, message: Message) {
        self.tasks.push(Task::Deliver(NodeId(from), NodeId(to), message));
    }

    fn carry_out(&mut self, at: usize, out: Vec<Output>) {
        let id = self.nodes[at].id;
        for output in out {
            match output {
                Output::Persist { first, records } => {
                    let node = &mut self.nodes[at];
                    node.writes += 1;
                    let next =
                        node.fresh.last().map_or(node.disk.first + node.disk.records.len() as u64, |last| last.0 + 1);
                    assert_eq!(first, next, "numbered without a gap");
                    let last = first + records.len() as u64 - 1;
                    node.fresh.extend((first..).zip(records));
                    self.tasks.push(Task::Durable(at, last));
                }
                Output::Send { to, message } => {
                    assert_ne!(to, id);
                    let bytes = borsh::to_vec(&message).unwrap();
                    assert_eq!(borsh::from_slice::<Message>(&bytes).unwrap(), message);
                    self.check(at, &message);
                    self.sent.push((id, message.clone()));
                    self.tasks.push(Task::Deliver(id, to, message));
                }
                Output::Judge { value, batch, agreed } => {
                    self.asked.push((id, value, agreed));
                    let valid = !batch.starts_with(b"bad") && (agreed || !batch.starts_with(b"late"));
                    self.tasks.push(Task::Judged(at, value, valid));
                }
                Output::Commit { decided, note } => self.tasks.push(Task::Apply(at, decided, note)),
                Output::Forget(last) => self.nodes[at].disk.forget.push(last),
                Output::Fetch { node, index } => {
                    self.fetched.push(node);
                    self.tasks.push(Task::Decided(at, node, index));
                }
                Output::Fate { ticket, fate } => {
                    assert_eq!(self.fates.insert(ticket, fate), None, "one fate each");
                }
                Output::Standing(_) => {}
                Output::Evidence(pair) => self.evidence.push(*pair),
                Output::Unremembered(node) => self.unremembered.push((id, node)),
                Output::Stop(why) => self.nodes[at].stopped = Some(why),
            }
        }
    }

    /// The question that a ballot answers.
    pub fn question(ballot: &Ballot) -> (NodeId, u64, u32, u8) {
        let kind = match ballot.kind {
            BallotKind::Proposal { .. } => 0,
            BallotKind::Prevote => 1,
            BallotKind::Precommit => 2,
        };
        (ballot.node, ballot.index, ballot.round, kind)
    }

    /// What an honest member says is durable, and the only answer that it gives.
    fn check(&mut self, at: usize, message: &Message) {
        let node = &self.nodes[at];
        let ballots = match message {
            Message::Ballot(signed) => std::slice::from_ref(signed),
            Message::Ballots(_, ballots) => ballots.as_slice(),
            Message::Part(_) | Message::Want { .. } => return,
        };
        for signed in ballots.iter().filter(|signed| node.honest && signed.ballot.node == node.id) {
            assert!(node.durable.contains(signed), "sent before it was durable: {signed:?}");
            let ballot = signed.ballot;
            let said = self.said.entry(Self::question(&ballot)).or_insert(ballot);
            assert_eq!(*said, ballot, "two answers to one question");
        }
    }

    fn run_task(&mut self, task: Task) {
        match task {
            Task::Deliver(from, to, message) => {
                if self.cut.contains(&from) || self.cut.contains(&to) {
                    return;
                }
                if self.liars.contains(&to) {
                    return self.lie(to, &message);
                }
                for at in 0..self.nodes.len() {
                    if self.nodes[at].id == to {
                        self.step(at, Input::Peer { from, message: message.clone() });
                    }
                }
            }
            Task::Durable(at, last) => {
                let node = &mut self.nodes[at];
                let done = node.fresh.partition_point(|(number, _)| *number <= last);
                for (_, record) in node.fresh.drain(..done) {
                    if let Event::Ballot(signed) = &record.event {
                        node.durable.insert(*signed);
                    }
                    node.written.push(record.clone());
                    node.disk.records.push(record);
                }
                self.step(at, Input::Persisted(last));
            }
            Task::Judged(at, value, valid) => self.step(at, Input::Judged { value, valid }),
            Task::Apply(at, decided, note) => self.apply(at, *decided, note),
            Task::Sync(at) => {
                let disk = &mut self.nodes[at].disk;
                disk.synced = disk.log.len();
                let durable = disk.first + disk.records.len() as u64;
                for last in disk.forget.drain(..) {
                    let gone = (last + 1).min(durable).saturating_sub(disk.first);
                    disk.records.drain(..gone as usize);
                    disk.first += gone;
                }
            }
            Task::Decided(at, from, index) => {
                let other = self.nodes.iter().find(|node| node.id == from && node.machine.is_some());
                let behind = |decided: &&Decided| decided.value.index >= index;
                let found = other.map(|node| node.disk.log.iter().filter(behind).take(4).cloned().collect::<Vec<_>>());
                for decided in found.into_iter().flatten() {
                    self.step(at, Input::Decided { from, decided: Box::new(decided) });
                }
            }
        }
    }

    fn apply(&mut self, at: usize, decided: Decided, note: Chain) {
        let index = decided.value.index;
        let committee = self.in_force(index - 1);
        assert_eq!(decided.verify(CLUSTER, &committee), Ok(()), "what is committed is certified");
        let disk = &self.nodes[at].disk;
        let chain = &disk.chains[disk.applied];
        assert_eq!(index, chain.index + 1, "in order, without a gap");
        assert_eq!(note, chain.after(&decided.value, decided.value.id(), &committee));
        if self.nodes[at].honest {
            let known = self.history.entry(index).or_insert_with(|| decided.value.clone());
            assert_eq!(*known, decided.value, "two values at {index}");
        }
        let disk = &mut self.nodes[at].disk;
        if disk.applied == disk.log.len() {
            disk.chains.push(note);
            disk.log.push(decided);
        }
        disk.applied += 1;
        self.tasks.push(Task::Sync(at));
        let committee = self.in_force(index);
        self.step(at, Input::Applied { index, committee });
    }

    /// A liar votes for whatever it hears of, and for nothing, to whomever.
    fn lie(&mut self, liar: NodeId, message: &Message) {
        let Message::Ballot(heard) = message else { return };
        let ballot = Ballot { node: liar, ..heard.ballot };
        let kind = if self.draw(2) == 0 { BallotKind::Prevote } else { BallotKind::Precommit };
        let value = if self.draw(3) == 0 { None } else { ballot.value };
        let signed = Ballot { kind, value, ..ballot }.sign(&key(liar.0));
        let members = self.in_force(ballot.index - 1).members.len();
        let to = self.in_force(ballot.index - 1).members[self.draw(members)].node;
        if !self.liars.contains(&to) {
            self.tasks.push(Task::Deliver(liar, to, Message::Ballot(signed)));
        }
    }

    /// Runs tasks until there are none, or so many.
    pub fn settle(&mut self, most: usize) -> usize {
        let mut run = 0;
        while run < most && !self.tasks.is_empty() {
            let at = if self.wild { self.draw(self.tasks.len()) } else { 0 };
            let task = self.tasks.remove(at);
            if let Task::Deliver(..) = task {
                if self.draw(100) < self.loss {
                    continue;
                }
                if self.wild && self.draw(20) == 0 {
                    self.tasks.push(task.clone());
                }
            }
            self.run_task(task);
            run += 1;
        }
        run
    }

    /// Time passes until the next time-out, which is run.
    pub fn pass(&mut self) {
        let deadlines = self.nodes.iter().filter_map(|node| node.machine.as_ref()?.deadline());
        let Some(next) = deadlines.min() else { return };
        self.now = self.now.max(next.0);
        for at in 0..self.nodes.len() {
            let deadline = self.nodes[at].machine.as_ref().and_then(Machine::deadline);
            if deadline.is_some_and(|deadline| deadline.0 <= self.now) {
                self.step(at, Input::Tick);
            }
        }
    }

    /// Runs until all nodes that run and are not cut off have applied an entry. Fails after a number of time-outs
    /// that is far more than it takes.
    pub fn until(&mut self, index: u64) {
        for _ in 0..2000 {
            let most = self.tasks.len() + 200;
            while self.settle(most) == most && !self.reached(index) {}
            if self.reached(index) {
                return;
            }
            self.pass();
        }
        let at: Vec<_> = self.nodes.iter().map(|node| (node.id, node.disk.applied, node.stopped.clone())).collect();
        panic!("not all have come to {index}: {at:?}");
    }

    fn reached(&self, index: u64) -> bool {
        let mut nodes = self.nodes.iter().filter(|node| node.honest && !self.cut.contains(&node.id));
        nodes.all(|node| node.machine.is_none() || node.disk.applied as u64 >= index)
    }

    /// The node of an id.
    pub fn at(&self, node: u32) -> usize {
        self.nodes.iter().position(|other| other.id == NodeId(node)).unwrap()
    }

    pub fn machine(&self, node: u32) -> &Machine {
        self.nodes[self.at(node)].machine.as_ref().unwrap()
    }

    pub fn submit(&mut self, node: u32, ticket: u64, body: Body) {
        self.step(self.at(node), Input::Submit { ticket, body });
    }

    /// The member that leads, as the members see it that run.
    pub fn leader(&self) -> u32 {
        let leads = |node: &&Node| node.machine.as_ref().is_some_and(|machine| machine.standing().leads);
        self.nodes.iter().find(leads).map_or(0, |node| node.id.0)
    }

    /// The value that the proposer of a round would make for the entry that a node decides; it admits as little as it
    /// can of how long the turn has lasted.
    pub fn value(&self, node: u32, round: u32, body: Body) -> Value {
        let disk = &self.nodes[self.at(node)].disk;
        let chain = &disk.chains[disk.applied];
        let proposer = chain.turn.proposer(&self.in_force(chain.index), round);
        let (index, previous) = (chain.index + 1, chain.value);
        let lasted_ms = chain.turn.lasted_ms;
        Value { version: VALUE_VERSION, index, previous, proposer, round, heir: None, lasted_ms, body }
    }

    /// A ballot that whoever has the key signs, whether it may or not.
    pub fn ballot(&self, by: u32, index: u64, round: u32, kind: BallotKind, value: Option<Hash32>) -> SignedBallot {
        let committee = self.in_force(index - 1);
        let ballot = Ballot {
            version: BALLOT_VERSION,
            cluster: CLUSTER,
            group: committee.group,
            incarnation: committee.incarnation,
            committee: committee.hash(),
            index,
            round,
            kind,
            value,
            node: NodeId(by),
        };
        ballot.sign(&key(by))
    }

    /// The texts of the batches of all entries, in order.
    pub fn texts(&self) -> Vec<String> {
        let batches = self.history.values().filter_map(|value| match &value.body {
            Body::Batch(batch) => Some(String::from_utf8_lossy(batch).into_owned()),
            Body::Blank => None,
        });
        batches.collect()
    }
}

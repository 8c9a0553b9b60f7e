//! One replica of a group: engine, commit loop, state and driver, with the host's duties between
//! them. What a crash may take is [`Replica::disk`] and the unflushed part of [`Replica::kv`]; the
//! rest lives in [`Live`] and is gone with it.
//!
//! The order is production's: a block is persisted in one batch, and only then its effects go to the
//! driver and its replies to clients. Everything that leaves a replica is an [`Effect`], carried out
//! by [`crate::world`].

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use consensus::local::{self, LocalDisk, LocalReplica, LocalSettings};
use consensus::port::{AppliedState, Committed, Payload, Position, RoleView, Timing};
use ledger::genesis::{Genesis, VerifyMode};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, Tick, TxId};
use ledger::machine::Driver;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tree::StateTree;
use ledger::tx::ParsedTx;
use ledger::view::View;
use shard_node::core::applied::AppliedRecord;
use shard_node::core::driver::{self, CommittedBlock, DriverConfig, GroupDriver, SystemView};
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};
use shard_node::core::executor::{ExecutedBlock, GroupConstants, execute_by};
use shard_node::core::genesis::genesis_state;
use shard_node::core::machine::CommandOutcome;
use shard_node::core::marks;
use shard_node::core::peer::PeerMessage;
use shard_node::core::recheck;
use storage::kv::{Crash, Kv, WriteBatch};
use storage::mem::MemKv;

use crate::checkers::{BlockSeen, RegisterWrite, Seen};
use crate::cluster::{ended, node_key};
use crate::host::{Answer, Waiters};
use crate::sabotage::{self, Sabotage};
use crate::state::{self, KvState};
use crate::wire::{Reply, Wire};

/// Heartbeats and elections, quicker than in production so that a short run sees many of them.
pub const TIMING: Timing = Timing { heartbeat_ms: 40, election_min_ms: 160, election_max_ms: 320 };
/// Blocks between two checkpoints.
const CHECKPOINT_EVERY: u64 = 6;
/// Proposals in flight.
const PIPELINE: usize = 2;

/// What a replica asks of the world.
#[derive(Debug)]
pub enum Effect {
    /// Send to a node.
    Send(NodeId, Wire),
    /// Answer a client.
    Answer(u32, GroupId, Reply),
    /// Tell the replica when its log writes are durable.
    SyncLater(GroupId),
    /// Tell the driver later whether a block's signatures hold.
    CheckLater(GroupId, Height, bool),
    /// For the checkers.
    Saw(Seen),
    /// The replica stopped, or something that no host should see happened.
    Broken(String),
}

/// What is in memory while the node is up.
struct Live {
    engine: LocalReplica,
    driver: GroupDriver,
    tree: StateTree,
    applied: AppliedRecord,
    proposals: VecDeque<(u64, Bytes)>,
    waiters: Waiters,
    leads: bool,
    leader: Option<NodeId>,
    sync_due: bool,
}

#[allow(clippy::large_enum_variant, reason = "as for the driver's inputs")]
enum Job {
    Engine(local::Input),
    Driver(driver::Input),
}

/// A replica of a group on a node.
pub struct Replica {
    group: GroupId,
    node: NodeId,
    genesis: Rc<Genesis>,
    constants: GroupConstants,
    sabotage: Option<Sabotage>,
    /// The engine's disk.
    pub disk: LocalDisk,
    /// The state.
    pub kv: MemKv,
    live: Option<Live>,
}

impl Replica {
    /// A replica with the state of block 0.
    ///
    /// # Errors
    /// A text when the genesis has no such group.
    pub fn new(
        group: GroupId,
        node: NodeId,
        genesis: &Rc<Genesis>,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, String> {
        let first = genesis_state(genesis, group).map_err(|error| error.to_string())?;
        let kv = MemKv::new();
        let mut batch = WriteBatch::with_capacity(first.writes.len());
        first.writes.into_iter().for_each(|(key, value)| batch.put(key, value));
        for committee in genesis.committees.iter().filter(|committee| committee.incarnation.0 > 0) {
            let ended = ended(committee);
            batch.put(schema::committee(ended.group, &ended.hash()), encoded(&ended));
        }
        kv.write(batch).and_then(|()| kv.flush()).map_err(|error| error.to_string())?;
        Ok(Self {
            group,
            node,
            genesis: Rc::clone(genesis),
            constants: GroupConstants { cluster: genesis.cluster_id(), group, verify: genesis.verify },
            sabotage,
            disk: LocalDisk::default(),
            kv,
            live: None,
        })
    }

    /// Starts from what the disks hold.
    ///
    /// # Errors
    /// A text when the disks contradict each other.
    pub fn start(&mut self, now: Tick, clock_offset_ms: i64, seed: u64, out: &mut Vec<Effect>) -> Result<(), String> {
        let applied: AppliedRecord = state::load(&self.kv, &schema::applied())?;
        let mut tree = state::rebuild_tree(&self.kv, &self.genesis, self.group)?;
        if tree.root() != applied.state_root.0 {
            return Err(format!("the rebuilt tree of height {} has another root", applied.height));
        }
        let mut index = applied.consensus.position.map_or(0, |position| position.index);
        if index > self.disk.durable().entries.len() as u64 {
            return Err(format!("state has applied entry {index}, which the log does not hold"));
        }
        if self.sabotage == Some(Sabotage::ApplyTwice) && index > 0 {
            index -= 1;
        }
        let committee = self.genesis.committee(self.group).ok_or("the genesis has no such committee")?;
        let settings = LocalSettings {
            id: self.node,
            voters: committee.members.iter().map(|member| member.node).collect(),
            timing: TIMING,
            seed,
        };
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        let view = SystemView::read(&reader, &self.genesis, self.group, self.genesis.verify);
        let view = SystemView { committees: self.committees(), ..view.map_err(|error| error.to_string())? };
        let config = DriverConfig {
            group: self.group,
            node: self.node,
            key: node_key(self.node).clone(),
            pipeline: PIPELINE,
            checkpoint_every: CHECKPOINT_EVERY,
            verify: self.genesis.verify,
        };
        out.push(Effect::Saw(Seen::Started { node: self.node, group: self.group, height: applied.height }));
        let mut waiters = Waiters::default();
        for line in &view.outbox {
            // Nobody waits yet; what was acknowledged long ago has been applied.
            let _none = waiters.taken(line.leaf.peer, line.acked);
        }
        self.live = Some(Live {
            engine: LocalReplica::new(settings, self.disk.durable().clone(), index),
            driver: GroupDriver::new(config),
            tree,
            applied,
            proposals: VecDeque::new(),
            waiters,
            leads: false,
            leader: None,
            sync_due: false,
        });
        let first = [driver::Input::ClockOffset(clock_offset_ms), driver::Input::System(view)];
        self.work(now, first.into_iter().map(Job::Driver).collect(), out);
        Ok(())
    }

    /// Loses power. The first `log_keep` pending log writes and `state_keep` unflushed batches
    /// survive, and of the write after them the first `torn` entries. Returns how many of each are
    /// gone.
    pub fn crash(&mut self, log_keep: usize, torn: usize, state_keep: usize) -> (usize, usize) {
        self.live = None;
        let lost = (self.disk.pending().saturating_sub(log_keep), self.kv.unflushed().saturating_sub(state_keep));
        self.disk.crash_torn(log_keep, torn);
        self.kv.crash(state_keep);
        lost
    }

    /// The height that is applied, if the replica runs.
    #[must_use]
    pub fn height(&self) -> Option<Height> {
        self.live.as_ref().map(|live| live.applied.height)
    }

    /// The engine's view of itself, if the replica runs.
    #[must_use]
    pub fn role(&self) -> Option<RoleView> {
        self.live.as_ref().map(|live| live.engine.role())
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.leads)
    }

    /// The height of the newest certificate that this replica has seen since it started.
    #[must_use]
    pub fn certified(&self) -> Option<Height> {
        self.live.as_ref()?.driver.certificate().map(|certificate| certificate.header.height)
    }

    /// Makes the state durable.
    pub fn flush(&mut self, out: &mut Vec<Effect>) {
        match (self.kv.flush(), self.height()) {
            (Ok(()), Some(height)) => {
                out.push(Effect::Saw(Seen::Flushed { node: self.node, group: self.group, height }));
            }
            (Ok(()), None) => {}
            (Err(error), _) => out.push(Effect::Broken(error.to_string())),
        }
    }

    /// The first `count` pending log writes are durable.
    pub fn synced(&mut self, now: Tick, count: usize, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        live.sync_due = self.disk.pending() > count;
        if live.sync_due {
            out.push(Effect::SyncLater(self.group));
        }
        if let Some(last) = self.disk.sync(count) {
            self.work(now, VecDeque::from([Job::Engine(local::Input::Synced(last))]), out);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Tick, driver_too: bool, out: &mut Vec<Effect>) {
        let mut jobs = VecDeque::from([Job::Engine(local::Input::Tick)]);
        if driver_too {
            jobs.push_back(Job::Driver(driver::Input::Timer));
        }
        self.work(now, jobs, out);
    }

    /// The guarded clock moved against the tick.
    pub fn clock(&mut self, now: Tick, offset_ms: i64, out: &mut Vec<Effect>) {
        self.work(now, VecDeque::from([Job::Driver(driver::Input::ClockOffset(offset_ms))]), out);
    }

    /// A message of the engine.
    pub fn engine(&mut self, now: Tick, from: NodeId, message: local::Msg, out: &mut Vec<Effect>) {
        self.work(now, VecDeque::from([Job::Engine(local::Input::Message(from, message))]), out);
    }

    /// A message of a driver.
    pub fn peer(&mut self, now: Tick, from: NodeId, message: Box<PeerMessage>, out: &mut Vec<Effect>) {
        let input = driver::Input::Peer { from, message };
        self.work(now, VecDeque::from([Job::Driver(input)]), out);
    }

    /// The signatures of a block were checked.
    pub fn checked(&mut self, now: Tick, height: Height, valid: bool, out: &mut Vec<Effect>) {
        self.work(now, VecDeque::from([Job::Driver(driver::Input::Verified { height, valid })]), out);
    }

    fn answer(&self, answers: impl IntoIterator<Item = Answer>, out: &mut Vec<Effect>) {
        let group = self.group;
        out.extend(answers.into_iter().map(|(request, reply)| Effect::Answer(request, group, reply)));
    }

    /// A client's transaction: decode, verify, look for an earlier receipt, queue.
    pub fn submit(&mut self, now: Tick, request: u32, tx: Vec<u8>, wants_applied: bool, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        if !live.leads {
            let leader = live.leader;
            return self.answer([(request, Reply::NotLeader(leader))], out);
        }
        let parsed = ParsedTx::decode(&self.constants.cluster, &tx);
        let txid = match parsed.and_then(|tx| tx.verify_signatures().map(|()| tx.txid)) {
            Ok(txid) => txid,
            Err(reject) => return self.answer([(request, Reply::Refused(reject))], out),
        };
        let known = match self.sabotage {
            Some(Sabotage::ForgetReceipts | Sabotage::VoteAgain | Sabotage::LateHandOver) => Ok(None),
            _ => state::receipt(&self.kv, &txid),
        };
        match known {
            Ok(Some(receipt)) => {
                out.push(Effect::Saw(Seen::Known { txid }));
                let answers = live.waiters.known(request, wants_applied, &receipt);
                return self.answer(answers, out);
            }
            Ok(None) => {}
            Err(error) => out.push(Effect::Broken(error)),
        }
        live.waiters.wait(txid, request, wants_applied);
        self.work(now, VecDeque::from([Job::Driver(driver::Input::Submit(vec![Bytes::from(tx)]))]), out);
    }

    /// Sequences commands that no driver would propose, if this replica leads.
    pub fn inject(&mut self, now: Tick, commands: Vec<Command>, out: &mut Vec<Effect>) {
        let Some(live) = self.live.as_ref().filter(|live| live.leads) else { return };
        let entry = Entry { version: ENTRY_VERSION, stamp_ms: live.applied.time_ms, commands };
        self.work(now, VecDeque::from([Job::Engine(local::Input::Propose(Bytes::from(entry.encode())))]), out);
    }

    /// The committees in force as the driver is told of them.
    fn committees(&self) -> Vec<ledger::Committee> {
        let mut committees = state::committees(&self.kv);
        if self.sabotage == Some(Sabotage::LoneSignature) {
            committees.iter_mut().for_each(|committee| committee.threshold = 1);
        }
        committees
    }

    /// Runs engine and driver until neither has anything left to do.
    fn work(&mut self, now: Tick, mut jobs: VecDeque<Job>, out: &mut Vec<Effect>) {
        while let Some(job) = jobs.pop_front() {
            let Some(live) = &mut self.live else { return };
            match job {
                Job::Engine(input) => {
                    let mut outputs = Vec::new();
                    live.engine.step(now, input, &mut outputs);
                    for output in outputs {
                        if let Err(why) = self.engine_output(output, &mut jobs, out) {
                            out.push(Effect::Broken(format!("{} stopped on node {}: {why}", self.group, self.node)));
                            self.live = None;
                            return;
                        }
                    }
                }
                Job::Driver(input) => {
                    let mut outputs = Vec::new();
                    live.driver.step(now, input, &mut outputs);
                    for output in outputs {
                        self.driver_output(output, &mut jobs, out);
                    }
                }
            }
        }
    }

    fn engine_output(
        &mut self,
        output: local::Output,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        match output {
            local::Output::Send(to, message) => out.push(Effect::Send(to, Wire::Engine { group: self.group, message })),
            local::Output::Persist(write) => {
                if self.sabotage == Some(Sabotage::EarlySync) {
                    jobs.push_back(Job::Engine(local::Input::Synced(write.sequence)));
                }
                self.disk.write(write);
                if !live.sync_due {
                    live.sync_due = true;
                    out.push(Effect::SyncLater(self.group));
                }
            }
            local::Output::Committed(committed) => self.commit(committed, jobs, out)?,
            local::Output::Role(view) => {
                let lost = live.leads && !view.leads;
                live.leads = view.leads;
                live.leader = view.leader;
                if !view.leads {
                    live.proposals.clear();
                }
                let sent_away = if lost { live.waiters.leadership_lost(view.leader) } else { Vec::new() };
                self.answer(sent_away, out);
                out.push(Effect::Saw(Seen::Role {
                    node: self.node,
                    group: self.group,
                    leads: view.leads,
                    term: view.term,
                }));
                jobs.push_back(Job::Driver(driver::Input::Role { leads: view.leads, leader: view.leader }));
            }
            local::Output::Rejected(entry) => {
                if let Some(at) = live.proposals.iter().position(|(_, proposed)| *proposed == entry) {
                    let lost = live.proposals.remove(at);
                    jobs.extend(lost.map(|(id, _)| Job::Driver(driver::Input::Proposed { id, accepted: false })));
                }
            }
        }
        Ok(())
    }

    /// The commit loop: one atomic batch for each entry, then its effects, then its replies.
    fn commit(&mut self, committed: Committed, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let membership = live.applied.consensus.membership.clone();
        let consensus = AppliedState { position: Some(committed.position), membership };
        let payload = match committed.payload {
            Payload::Batch(payload) => payload,
            Payload::Blank | Payload::Membership(_) => {
                live.applied.consensus = consensus;
                let mut batch = WriteBatch::with_capacity(1);
                batch.put(schema::applied(), encoded(&live.applied));
                return self.kv.write(batch).map_err(|error| error.to_string());
            }
        };
        let block = self.execute(consensus, &payload, false)?;
        self.persisted(committed.position, block, &payload, jobs, out)
    }

    /// Executes an entry on top of what is applied. A rehearsal leaves the tree as it is.
    fn execute(&mut self, consensus: AppliedState, payload: &Bytes, rehearsal: bool) -> Result<ExecutedBlock, String> {
        let Some(live) = &mut self.live else { return Err("the replica does not run".to_owned()) };
        let sabotage = self.sabotage;
        let base = KvState { kv: &self.kv, hide_receipts: sabotage == Some(Sabotage::ForgetReceipts) };
        let mut copy = rehearsal.then(|| live.tree.clone());
        let tree = copy.as_mut().unwrap_or(&mut live.tree);
        execute_by(&base, tree, &self.constants, &live.applied, consensus, payload, |work, view, at, commands| {
            sabotage::run(sabotage, work, view, at, commands)
        })
        .map_err(|error| error.to_string())
    }

    /// Persists a block, then tells driver, checkers and clients.
    fn persisted(
        &mut self,
        position: Position,
        mut block: ExecutedBlock,
        payload: &Bytes,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let writes = std::mem::take(&mut block.writes);
        let seen = seen(self.node, self.group, position, &block, &writes);
        persist(&self.kv, writes, self.sabotage)?;
        live.applied = block.applied.clone();
        out.push(Effect::Saw(Seen::Block(Box::new(seen))));
        let own = live.proposals.front().is_some_and(|(_, proposed)| proposed == payload);
        let proposal = if own { live.proposals.pop_front() } else { None };
        let early = self.sabotage == Some(Sabotage::AppliedOnVote);
        let answers = answers(&self.kv, &block, &mut live.waiters, live.leader, early, out)?;
        let system_changed = block.system_changed;
        jobs.push_back(Job::Driver(driver::Input::Committed(committed_block(block))));
        if system_changed {
            jobs.push_back(Job::Driver(driver::Input::Committees(self.committees())));
        }
        jobs.extend(proposal.map(|(id, _)| Job::Driver(driver::Input::Proposed { id, accepted: true })));
        self.answer(answers, out);
        Ok(())
    }

    fn driver_output(&mut self, output: driver::Output, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        match output {
            driver::Output::Propose { id, entry } => {
                live.proposals.push_back((id, entry.clone()));
                if self.sabotage == Some(Sabotage::ReplyOnPropose) {
                    self.reply_early(&entry, out);
                }
                jobs.push_back(Job::Engine(local::Input::Propose(entry)));
            }
            driver::Output::Send { node, group, message } => {
                out.push(Effect::Send(node, Wire::Peer { group, message: Box::new(message) }));
            }
            driver::Output::Verify { height, txs } => {
                let valid = txs.iter().all(|tx| tx.verify_signatures().is_ok());
                out.push(Effect::CheckLater(self.group, height, valid));
            }
            driver::Output::Recheck { from, upto } => match self.recheck(from, upto) {
                Ok(forged) => jobs.push_back(Job::Driver(driver::Input::Rechecked { upto, forged })),
                Err(error) => out.push(Effect::Broken(error)),
            },
            driver::Output::Checked(height) => self.mark(marks::checked(), &height, out),
            driver::Output::Forged(height) => self.mark(marks::forged(), &height, out),
            driver::Output::Lookup { height, node } => match state::find(&self.kv, &schema::certificate(height)) {
                Ok(Some(certificate)) => {
                    let message = Box::new(PeerMessage::Certified(certificate));
                    out.push(Effect::Send(node, Wire::Peer { group: self.group, message }));
                }
                Ok(None) => {}
                Err(error) => out.push(Effect::Broken(error)),
            },
            driver::Output::Late(certificate) => {
                let height = certificate.header.height;
                out.push(Effect::Broken(format!("nobody asked for the certificate of height {height}")));
            }
            driver::Output::Certified(certificate) => {
                let mut batch = WriteBatch::with_capacity(1);
                batch.put(schema::certificate(certificate.header.height), encoded(&certificate));
                if let Err(error) = self.kv.write(batch) {
                    out.push(Effect::Broken(error.to_string()));
                }
                let certificate = Box::new(certificate);
                out.push(Effect::Saw(Seen::Certified { node: self.node, group: self.group, certificate }));
            }
            driver::Output::PeerTook { dest, next_seq } => {
                out.push(Effect::Saw(Seen::PeerTook { node: self.node, group: self.group, dest, next_seq }));
                let answers = live.waiters.taken(dest, next_seq);
                self.answer(answers, out);
            }
            driver::Output::Refuse { txs, reject } => self.refuse(&txs, reject, out),
            driver::Output::Alarm { text, .. } | driver::Output::Stop(text) => {
                out.push(Effect::Broken(format!("alarm on node {}: {text}", self.node)));
            }
        }
    }

    /// Keeps a mark of this node, as a host that checks signatures does.
    fn mark(&self, key: Vec<u8>, height: &Height, out: &mut Vec<Effect>) {
        if self.genesis.verify == VerifyMode::Every {
            let mut batch = WriteBatch::with_capacity(1);
            batch.put(key, encoded(height));
            if let Err(error) = self.kv.write(batch) {
                out.push(Effect::Broken(error.to_string()));
            }
        }
    }

    /// The lowest block of the database with a signature that does not hold.
    fn recheck(&self, from: Height, upto: Height) -> Result<Option<Height>, String> {
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        for height in (from.0..=upto.0).map(Height) {
            let txs = recheck::transactions(&mut View::new(&reader), height).map_err(|error| error.to_string())?;
            if !txs.is_some_and(|txs| txs.iter().all(|tx| tx.verify_signatures().is_ok())) {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    fn refuse(&mut self, txs: &[Bytes], reject: Reject, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        let reply = Waiters::refusal(reject, live.leader);
        let mut answers = Vec::new();
        for tx in txs {
            if let Ok(tx) = ParsedTx::decode(&self.constants.cluster, tx) {
                answers.extend(live.waiters.refuse(&tx.txid, &reply));
            }
        }
        self.answer(answers, out);
    }

    /// Sabotage: executes a proposal on the side and answers from that.
    fn reply_early(&mut self, entry: &Bytes, out: &mut Vec<Effect>) {
        let Some(consensus) = self.live.as_ref().map(|live| live.applied.consensus.clone()) else { return };
        let Ok(block) = self.execute(consensus, entry, true) else { return };
        let Some(live) = &mut self.live else { return };
        if let Ok(answers) = answers(&self.kv, &block, &mut live.waiters, live.leader, false, out) {
            self.answer(answers, out);
        }
    }
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

fn persist(kv: &MemKv, writes: Vec<(Vec<u8>, Option<Bytes>)>, sabotage: Option<Sabotage>) -> Result<(), String> {
    let (mut batch, mut second) = (WriteBatch::with_capacity(writes.len()), WriteBatch::new());
    for (key, value) in writes {
        let apart = sabotage == Some(Sabotage::SplitBatch) && key.first() == Some(&schema::STREAM);
        let target = if apart { &mut second } else { &mut batch };
        match value {
            Some(value) => target.put(key, value),
            None => target.delete(key),
        }
    }
    kv.write(batch).map_err(|error| error.to_string())?;
    if second.is_empty() { Ok(()) } else { kv.write(second).map_err(|error| error.to_string()) }
}

/// What the clients that wait for a block are told. With `early`, a bug, they are told of a vote
/// that all is applied.
fn answers(
    kv: &MemKv,
    block: &ExecutedBlock,
    waiters: &mut Waiters,
    leader: Option<NodeId>,
    early: bool,
    out: &mut Vec<Effect>,
) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    let mut voted = |txid: &TxId, decision, waiters: &Waiters| {
        let told = waiters.vote(txid, decision);
        if early {
            answers.extend(told.iter().map(|(request, _)| (*request, Reply::Applied)));
        }
        answers.extend(told);
    };
    for (txid, decision) in &block.votes {
        voted(txid, *decision, waiters);
    }
    for outcome in &block.outcomes {
        if let CommandOutcome::Voted(txid, decision) = outcome {
            voted(txid, *decision, waiters);
        }
    }
    for receipt in &block.receipts {
        answers.extend(waiters.receipt(receipt));
    }
    for outcome in &block.outcomes {
        match outcome {
            CommandOutcome::Known(txid, place) => {
                out.push(Effect::Saw(Seen::Known { txid: *txid }));
                answers.extend(waiters.receipt(&state::receipt_at(kv, *place)?));
            }
            CommandOutcome::Refused(txid, reject) => {
                answers.extend(waiters.refuse(txid, &Waiters::refusal(*reject, leader)));
            }
            CommandOutcome::Acked(dest, upto) => answers.extend(waiters.taken(*dest, *upto)),
            CommandOutcome::Receipt(..)
            | CommandOutcome::Voted(..)
            | CommandOutcome::Waits(_)
            | CommandOutcome::Delivered(..)
            | CommandOutcome::Checkpointed(_)
            | CommandOutcome::Registered
            | CommandOutcome::Ignored(_) => {}
        }
    }
    Ok(answers)
}

/// A block as the checkers see it: from its writes, not from what the machine says about them.
fn seen(
    node: NodeId,
    group: GroupId,
    position: Position,
    block: &ExecutedBlock,
    writes: &[(Vec<u8>, Option<Bytes>)],
) -> BlockSeen {
    let (mut registers, mut mail, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in writes {
        match (key.first(), value) {
            (Some(&schema::STATE), _) if key.get(33) == Some(&schema::KIND_REGISTER) => {
                let (Ok(partition), Ok(txid)) = (key[1..33].try_into(), key[34..].try_into()) else { continue };
                let value = value.as_ref().and_then(|bytes| borsh::from_slice(bytes).ok());
                registers.push(RegisterWrite { partition, txid: TxId(Hash32(txid)), value });
            }
            (Some(&schema::MAIL), Some(bytes)) => {
                let (Ok(dest), Ok(seq)) = (key[1..9].try_into(), key[9..].try_into()) else { continue };
                let Ok(message) = borsh::from_slice(bytes) else { continue };
                mail.push((GroupId(u64::from_be_bytes(dest)), u64::from_be_bytes(seq), message));
            }
            (Some(&schema::HISTORY), Some(bytes)) => lines.extend(borsh::from_slice(bytes)),
            _ => {}
        }
    }
    BlockSeen {
        node,
        group,
        position,
        header: block.header.clone(),
        header_hash: block.header_hash,
        receipts: block.receipts.clone(),
        votes: block.votes.clone(),
        registers,
        mail,
        lines,
        outbox: block.outbox.clone(),
        inbox: block.inbox.clone(),
    }
}

fn committed_block(block: ExecutedBlock) -> CommittedBlock {
    CommittedBlock {
        header: Arc::new(block.header),
        header_hash: block.header_hash,
        outcomes: block.outcomes,
        mail: block.mail,
        outbox: block.outbox,
        inbox: block.inbox,
        cursors: block.cursors,
        to_verify: Arc::new(block.to_verify),
        next_deadline: block.next_deadline,
    }
}

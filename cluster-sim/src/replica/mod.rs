//! One replica of a group: engine, commit loop, state and driver, with the host's duties between
//! them. What a crash may take is [`Replica::disk`] and the unflushed part of [`Replica::kv`]; the
//! rest lives in [`Live`] and is gone with it.
//!
//! Owns what comes in from the world; `commit` persists blocks, `carry` does what engine and driver ask
//! for, `members` lets voters follow the committee, `fetch` gets a state and gives it, `guard` keeps things back, `bft` is the engine of Byzantine
//! groups, `stint` goes over from one engine to the other. The order is production's: a block is persisted in one batch, and only then its effects go to the
//! driver and its replies to clients. Everything that leaves a replica is an [`Effect`], carried out
//! by [`crate::world`]. No replica touches another one.

mod bft;
mod carry;
pub(crate) mod commit;
mod fetch;
mod guard;
mod members;
mod stint;

use std::collections::VecDeque;
use std::rc::Rc;

use beacon::{JobReport, Said};
use bytes::Bytes;
use consensus::local::{self, LocalDisk, LocalReplica, LocalSettings};
use consensus::port::{Order, RoleView, Timing};
use cross_shard::closed;
use ledger::checked::Checked;
use ledger::committee::{Committee, Engine as Kind};
use ledger::crypto::SecretKey;
use ledger::foundation::Foundation;
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, GroupKind, Height, JobId, NodeId, Tick, TimeMs};
use ledger::keys::NodeKeys;
use ledger::limits::STAMP_AGE_MS_MAX;
use ledger::lineage::SealedBy;
use ledger::machine::Driver;
use ledger::receipt::{Outcome, Receipt};
use ledger::schema;
use ledger::tree::StateTree;
use ledger::tx::ParsedTx;
use ledger::view::View;
use shard_node::core::applied::{self, AppliedRecord};
use shard_node::core::driver::{self, Committees, DriverConfig, GroupDriver, SystemView};
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};
use shard_node::core::executor::GroupConstants;
use shard_node::core::genesis::{GenesisState, genesis_state, with_charter};
use shard_node::core::heads::Heads;
use shard_node::core::peer::PeerMessage;
use storage::kv::{Crash, Kv, WriteBatch};
use storage::mem::MemKv;

use crate::checkers::{RawReplica, Seen};
use crate::cluster::{anchors, channels, charter, ended, extract, node_key};
use crate::copies::Tapped;
use crate::host::{Answer, Waiters};
use crate::liars::Liar;
use crate::replica::fetch::{Fetch, Kept};
use crate::replica::stint::{Ahead, Step};
use crate::sabotage::Sabotage;
use crate::seat;
use crate::state::{self, KvState};
use crate::wire::{Reply, Wire};

pub use bft::Wal;
pub(crate) use bft::decided as decided_of;

/// Heartbeats and elections, quicker than in production so that a short run sees many of them.
pub const TIMING: Timing = Timing { heartbeat_ms: 40, election_min_ms: 160, election_max_ms: 320 };
/// Blocks between two checkpoints.
const CHECKPOINT_EVERY: u64 = 6;
/// Proposals in flight.
const PIPELINE: usize = 2;
/// The join of the first members of a group whose seats move.
pub(crate) const FIRST_JOIN: u16 = 1;
/// Ticks between two looks at the committee that voters follow.
const FOLLOW_EVERY_TICKS: u64 = 5;

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
    /// A replica of the group was started while its node runs.
    Opened(GroupId),
    /// A replica begins to fetch the state of another one, on this node.
    Fetching(NodeId),
    /// It has given up.
    FetchCut,
    /// An anchor passed mail on to the replica that leads.
    PassedOn,
    /// A replica of this node begins to go over to another engine.
    GoingOver,
    /// The replica stopped, or something that no host should see happened.
    Broken(String),
}

/// What is in memory while the node is up.
struct Live {
    engine: Engine,
    driver: GroupDriver,
    /// Certificates that were found to hold since the start.
    checked: Checked,
    tree: StateTree,
    /// The heads of streams after the last block.
    heads: Heads,
    applied: AppliedRecord,
    proposals: VecDeque<(u64, Bytes)>,
    waiters: Waiters,
    leads: bool,
    leader: Option<NodeId>,
    sync_due: bool,
    /// What orders the entries, by the state.
    order: Order,
    /// The stint of the engine that runs, or that is about to.
    stint: u64,
    /// When a leader of Raft leaves it.
    over_at: Option<Tick>,
    /// Who runs a later one.
    ahead: Option<Ahead>,
}

#[allow(clippy::large_enum_variant, reason = "as for the driver's inputs")]
enum Job {
    /// For the engine of a group that is not Byzantine; nothing where it is.
    Engine(local::Input),
    /// For that of one that is; nothing where it is not.
    Bft(bft::Event),
    Driver(driver::Input),
}

/// What orders the entries of a group.
enum Engine {
    Local(Box<LocalReplica>),
    Bft(Box<bft::Member>),
    /// Nothing: the engine that the state has in force is about to begin.
    Between(Step),
}

impl Engine {
    fn role(&self) -> RoleView {
        match self {
            Self::Local(replica) => replica.role(),
            Self::Bft(member) => member.role(),
            Self::Between(_) => RoleView::default(),
        }
    }

    /// Which one it is, if one runs.
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Local(_) => Some(Kind::Raft),
            Self::Bft(_) => Some(Kind::Bft),
            Self::Between(_) => None,
        }
    }

    /// Whether those who vote by its role have all that was ordered by others. Production changes voters by a joint
    /// configuration, whose second part is there only when they have.
    fn voters_settled(&self) -> bool {
        match self {
            Self::Local(replica) => replica.voters_settled(),
            Self::Bft(_) => true,
            Self::Between(_) => false,
        }
    }

    fn member(&self) -> Option<&bft::Member> {
        match self {
            Self::Local(_) | Self::Between(_) => None,
            Self::Bft(member) => Some(member),
        }
    }

    fn member_mut(&mut self) -> Option<&mut bft::Member> {
        match self {
            Self::Local(_) | Self::Between(_) => None,
            Self::Bft(member) => Some(member),
        }
    }
}

/// A replica of a group on a node.
pub struct Replica {
    group: GroupId,
    node: NodeId,
    genesis: Rc<Genesis>,
    constants: GroupConstants,
    sabotage: Option<Sabotage>,
    /// Whether the host keeps things back: see `guard`.
    pub(crate) guards: bool,
    /// Whether the beacon is told who has voted twice, and takes the seats of that node.
    pub(crate) accuses: bool,
    /// The keys of its node.
    pub(crate) keys: NodeKeys,
    /// How the group began, unless that stands in the genesis.
    founded: Option<Rc<Foundation>>,
    /// The first committee of a shard that others were cut or joined into.
    born: Option<Rc<Committee>>,
    /// Blocks since somebody looked last, where somebody keeps copies of the state.
    pub(crate) tap: Option<Vec<Tapped>>,
    /// Of which time the last word to the beacon about jobs was.
    said_ms: u64,
    /// Whether the seats of this group may move, though it was not founded meanwhile.
    moves: bool,
    /// With which join this replica takes part.
    join: u16,
    /// Who has a seat by the registry, as far as the node has heard, where seats move.
    registered: Vec<NodeId>,
    /// The engine's disk.
    pub disk: LocalDisk,
    /// The state; nothing while a replica that joins has not fetched it.
    pub kv: MemKv,
    /// What a member of a Byzantine group has beside these.
    pub(crate) beside: bft::Beside,
    live: Option<Live>,
    ticks: u64,
    /// What a state that is fetched is started with.
    seed: u64,
    /// The guarded clock against the tick, as it was last.
    offset_ms: i64,
    fetch: Option<Fetch>,
    kept: Option<Kept>,
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
        let replica = Self::empty(group, node, genesis, sabotage);
        let mut batch = writes_of(first_state(genesis, group)?);
        for committee in genesis.committees.iter().filter(|committee| committee.incarnation.0 > 0) {
            let ended = ended(committee);
            batch.put(schema::committee(ended.group, &ended.hash()), encoded(&ended));
        }
        replica.begin(batch)?;
        Ok(replica)
    }

    /// A replica of a founder of a group, with the state of block 0.
    ///
    /// # Errors
    /// A text when the foundation makes no state.
    pub fn founder(
        foundation: &Rc<Foundation>,
        node: NodeId,
        genesis: &Rc<Genesis>,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, String> {
        let replica = Self::joiner(foundation, seat::join_at(&foundation.committee), node, genesis, sabotage);
        replica.begin(writes_of(founded_state(genesis, foundation)?))?;
        Ok(replica)
    }

    /// A replica that joins a group: it has nothing, and takes part once it has fetched the state.
    #[must_use]
    pub fn joiner(
        foundation: &Rc<Foundation>,
        join: u16,
        node: NodeId,
        genesis: &Rc<Genesis>,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let founded = Some(Rc::clone(foundation));
        Self { founded, join, ..Self::empty(foundation.group, node, genesis, sabotage) }
    }

    /// A replica of a shard that others were cut or joined into, with its first state; with none where this node has to
    /// fetch one.
    #[must_use]
    pub fn child(
        first: &Rc<Committee>,
        kv: MemKv,
        node: NodeId,
        genesis: &Rc<Genesis>,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let (born, join) = (Some(Rc::clone(first)), seat::join_at(first));
        Self { born, join, kv, tap: Some(Vec::new()), ..Self::empty(first.group, node, genesis, sabotage) }
    }

    /// A replica that joins a shard whose seats move: it has nothing, and takes part once it has fetched the state.
    #[must_use]
    pub fn seated(
        group: GroupId,
        join: u16,
        reshaping: bool,
        node: NodeId,
        genesis: &Rc<Genesis>,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let tap = (reshaping && group.kind() == Some(GroupKind::Shard)).then(Vec::new);
        Self { moves: true, join, tap, ..Self::empty(group, node, genesis, sabotage) }
    }

    /// The seats of this group may move. Those of its first members are named by a join then.
    pub(crate) fn moves(&mut self) {
        self.moves = true;
        if self.join == 0 {
            self.join = FIRST_JOIN;
        }
    }

    /// It joins a group under the Byzantine engine, in which its node may have voted before.
    pub(crate) fn follows_first(&mut self) {
        self.beside.follow_first();
    }

    /// The registry gives these a seat. They are asked, and nothing is judged by it.
    pub(crate) fn hear_registered(&mut self, nodes: Vec<NodeId>) {
        self.registered = nodes;
    }

    /// Whether voters follow the committee.
    fn reseats(&self) -> bool {
        self.moves || self.founded.is_some()
    }

    fn empty(group: GroupId, node: NodeId, genesis: &Rc<Genesis>, sabotage: Option<Sabotage>) -> Self {
        Self {
            group,
            node,
            genesis: Rc::clone(genesis),
            constants: GroupConstants { cluster: genesis.cluster_id(), group, verify: genesis.verify },
            sabotage,
            guards: false,
            accuses: false,
            keys: node_key(node).clone().into(),
            founded: None,
            born: None,
            tap: None,
            said_ms: 0,
            moves: false,
            join: 0,
            registered: Vec::new(),
            disk: LocalDisk::default(),
            kv: MemKv::new(),
            beside: bft::Beside::default(),
            live: None,
            ticks: 0,
            seed: 0,
            offset_ms: 0,
            fetch: None,
            kept: None,
        }
    }

    fn begin(&self, batch: WriteBatch) -> Result<(), String> {
        self.kv.write(batch).and_then(|()| self.kv.flush()).map_err(|error| error.to_string())
    }

    /// The engine's name of this replica.
    #[must_use]
    pub fn seat(&self) -> NodeId {
        seat::seat(self.node, self.join)
    }

    /// With which join this replica takes part; 0 in a group of the genesis.
    #[must_use]
    pub fn join(&self) -> u16 {
        self.join
    }

    /// Whether there is no state here yet.
    #[must_use]
    pub fn vacant(&self) -> bool {
        matches!(self.kv.get(&schema::applied()), Ok(None))
    }

    /// Lets this replica lie.
    pub(crate) fn lie(&mut self, liar: Liar) {
        self.beside.liar = Some(Box::new(liar));
    }

    /// Who lies in a shard that this one was cut or joined into, if this replica lies.
    pub(crate) fn liar_in(&self, child: GroupId) -> Option<Liar> {
        let liar = self.beside.liar.as_ref()?;
        Some(liar.child(self.seed ^ child.0 ^ (u64::from(self.node.0) << 32)))
    }

    /// Log writes and records that are not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.disk.pending().max(self.beside.wal.pending())
    }

    /// Starts from what the disks hold.
    ///
    /// # Errors
    /// A text when the disks contradict each other.
    pub fn start(&mut self, now: Tick, clock_offset_ms: i64, seed: u64, out: &mut Vec<Effect>) -> Result<(), String> {
        (self.offset_ms, self.seed) = (clock_offset_ms, seed);
        if (self.reseats() || self.born.is_some()) && self.vacant() {
            // The leader's log tells when it may be fetched.
            return Ok(());
        }
        let applied: AppliedRecord = state::load(&self.kv, &schema::applied())?;
        let mut tree = state::rebuild_tree(&self.kv, self.group)?;
        if tree.root() != applied.state_root.0 {
            return Err(format!("the rebuilt tree of height {} has another root", applied.height));
        }
        let index = applied.consensus.position.map_or(0, |position| position.index);
        if index > self.disk.durable().last_index() {
            return Err(format!("state has applied entry {index}, which the log does not hold"));
        }
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        let order = applied::order(&reader, self.group).map_err(|fault| fault.0)?;
        let stint = order.stint();
        let view = SystemView::read(&reader, self.group, self.genesis.verify);
        let view = SystemView { committees: self.committees(), ..view.map_err(|error| error.to_string())? };
        let checked = Checked::default();
        let config = DriverConfig {
            group: self.group,
            node: self.node,
            join: self.join,
            key: self.keys.clone(),
            pipeline: PIPELINE,
            checkpoint_every: CHECKPOINT_EVERY,
            verify: self.genesis.verify,
            checked: checked.clone(),
        };
        out.push(Effect::Saw(Seen::Started { node: self.node, group: self.group, height: applied.height }));
        let mut waiters = Waiters::default();
        for line in &view.outbox {
            // Nobody waits yet; what was acknowledged long ago has been applied.
            let _none = waiters.taken(line.leaf.peer, line.acked);
        }
        // One that has not noted that it takes part goes on with what it takes until then.
        let enters = self.beside.wal.stint() != stint;
        let (engine, wanted) =
            if enters { (Engine::Between(Step::Log), Vec::new()) } else { self.engine_of(now, &applied, &order)? };
        let byzantine = engine.member().is_some();
        self.live = Some(Live {
            engine,
            driver: GroupDriver::new(config),
            checked,
            tree,
            heads: Heads::default(),
            applied,
            proposals: VecDeque::new(),
            waiters,
            leads: false,
            leader: None,
            sync_due: false,
            order,
            stint,
            over_at: None,
            ahead: None,
        });
        if enters {
            self.enter(out);
        }
        let first = [driver::Input::ClockOffset(clock_offset_ms), driver::Input::System(view)];
        let mut jobs: VecDeque<Job> = first.into_iter().map(Job::Driver).collect();
        if byzantine {
            self.bft_started(now, &mut jobs, out);
            jobs.push_back(Job::Bft(bft::Event::Carry(wanted)));
        }
        self.work(now, jobs, out);
        Ok(())
    }

    /// The engine that orders by the state, and what it wants done first.
    fn engine_of(
        &self,
        now: Tick,
        applied: &AppliedRecord,
        order: &Order,
    ) -> Result<(Engine, Vec<consensus::bft::Output>), String> {
        if order.engine == Kind::Bft {
            let (member, wanted) = self.member(now, applied, order)?;
            return Ok((Engine::Bft(Box::new(member)), wanted));
        }
        let known = if self.moves { seat::first(&self.kv, self.group) } else { None };
        let first = self.founded.as_ref().map(|founded| &founded.committee).or(self.born.as_deref());
        let first = known.as_ref().or(first);
        let committee = first.or_else(|| self.genesis.committee(self.group));
        let committee = committee.ok_or("nothing says who was in the group at first")?;
        let join = if first.is_some() { seat::join_at(committee) } else { 0 };
        // Behind another engine the members stand beside the state.
        let begun = match &applied.consensus.membership {
            Some((_, note)) if self.moves && order.after.is_some() => {
                Some(borsh::from_slice::<Vec<NodeId>>(note).map_err(|error| error.to_string())?)
            }
            Some(_) | None => None,
        };
        let first = || committee.members.iter().map(|member| seat::seat(member.node, join)).collect();
        let voters = begun.unwrap_or_else(first);
        let settings = LocalSettings { id: self.seat(), voters, timing: TIMING, seed: self.seed };
        let mut index = applied.consensus.position.map_or(0, |position| position.index);
        if self.sabotage == Some(Sabotage::ApplyTwice) && index > 0 {
            index -= 1;
        }
        let replica = LocalReplica::new(settings, self.disk.durable().clone(), index);
        Ok((Engine::Local(Box::new(replica)), Vec::new()))
    }

    /// Loses power. The first `log_keep` pending log writes and `state_keep` unflushed batches
    /// survive, and of the write after them the first `torn` entries. Returns how many of each are
    /// gone.
    pub fn crash(&mut self, log_keep: usize, torn: usize, state_keep: usize) -> (usize, usize) {
        (self.live, self.fetch, self.kept) = (None, None, None);
        if let Some(tap) = &mut self.tap {
            tap.clear();
        }
        let lost = (self.disk.pending().saturating_sub(log_keep), self.kv.unflushed().saturating_sub(state_keep));
        // Log and records are written side by side, so one may be further than the other.
        let kept = if torn.is_multiple_of(2) { log_keep } else { self.beside.wal.pending().saturating_sub(log_keep) };
        self.beside.crash(kept, torn, self.sabotage);
        self.disk.crash_torn(log_keep, torn);
        self.kv.crash(state_keep);
        lost
    }

    /// What an auditor sees of it.
    pub(crate) fn raw(&self, node: NodeId, group: GroupId) -> RawReplica<'_> {
        RawReplica { node, group, kv: &self.kv, log: self.disk.durable(), wal: Some(&self.beside.wal) }
    }

    /// The height that is applied, if the replica runs.
    #[must_use]
    pub fn height(&self) -> Option<Height> {
        self.live.as_ref().map(|live| live.applied.height)
    }

    /// The time of the block that is applied, if the replica runs.
    pub(crate) fn time(&self) -> Option<TimeMs> {
        self.live.as_ref().map(|live| live.applied.time_ms)
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
        live.sync_due = self.disk.pending() > count || self.beside.wal.pending() > count;
        if live.sync_due {
            out.push(Effect::SyncLater(self.group));
        }
        let runs = live.engine.kind().is_some();
        let mut jobs = VecDeque::new();
        jobs.extend(self.disk.sync(count).map(|last| Job::Engine(local::Input::Synced(last))));
        jobs.extend(self.synced_records(count, out));
        if runs {
            jobs.push_back(Job::Bft(bft::Event::Logged));
        } else {
            // What an engine has written that does not run any more is nobody's to hear of.
            jobs.clear();
            if let Err(why) = self.enter_on(now, &mut jobs, out) {
                out.push(Effect::Broken(format!("{} cannot go over on node {}: {why}", self.group, self.node)));
                self.live = None;
                return;
            }
        }
        self.work(now, jobs, out);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Tick, driver_too: bool, out: &mut Vec<Effect>) {
        self.ticks += 1;
        self.await_part(out);
        self.follow_ahead(now, out);
        let mut jobs = VecDeque::from([Job::Engine(local::Input::Tick), Job::Bft(bft::Event::Tick)]);
        if self.stands_aside() {
            // Others lead on.
            jobs.clear();
        }
        if self.ticks.is_multiple_of(FOLLOW_EVERY_TICKS) {
            jobs.extend(self.follow_committee().into_iter().map(Job::Engine));
            jobs.extend(self.wanted_certificate().map(|height| Job::Driver(driver::Input::Want(height))));
        }
        if driver_too {
            jobs.push_back(Job::Driver(driver::Input::Timer));
        }
        self.work(now, jobs, out);
    }

    /// The guarded clock moved against the tick.
    pub fn clock(&mut self, now: Tick, offset_ms: i64, out: &mut Vec<Effect>) {
        self.offset_ms = offset_ms;
        self.work(now, VecDeque::from([Job::Driver(driver::Input::ClockOffset(offset_ms))]), out);
    }

    /// A message of the engine, from one seat to another. What was meant for an earlier replica of this node
    /// does not count; whoever has no state yet learns from it whom to ask for one.
    pub fn engine(
        &mut self,
        now: Tick,
        (from, to): (NodeId, NodeId),
        stint: u64,
        message: local::Msg,
        out: &mut Vec<Effect>,
    ) {
        if to != self.seat() {
            return;
        }
        if self.live.is_none() && matches!(message, local::Msg::Append { .. }) {
            return self.lack(seat::node_of(from), out);
        }
        if self.strays(now, seat::node_of(from), stint, out) {
            return;
        }
        self.work(now, VecDeque::from([Job::Engine(local::Input::Message(from, message))]), out);
    }

    /// A message of a driver.
    pub fn peer(&mut self, now: Tick, from: NodeId, message: Box<PeerMessage>, out: &mut Vec<Effect>) {
        self.countersign(from, &message, out);
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
                let answers = match elsewhere(&self.kv, self.group, &receipt) {
                    None => live.waiters.known(request, wants_applied, &receipt),
                    Some(taken) => {
                        let applied = (taken && wants_applied && receipt.committed()).then_some(Reply::Applied);
                        let replies = std::iter::once(Reply::Receipt(receipt)).chain(applied);
                        replies.map(|reply| (request, reply)).collect()
                    }
                };
                return self.answer(answers, out);
            }
            Ok(None) => {}
            Err(error) => out.push(Effect::Broken(error)),
        }
        live.waiters.wait(txid, request, wants_applied);
        self.work(now, VecDeque::from([Job::Driver(driver::Input::Submit(vec![Bytes::from(tx)]))]), out);
    }

    /// Brings this node's word on a job to the beacon. It may be lost.
    pub(crate) fn report(&mut self, now: Tick, said: Said, key: &SecretKey, out: &mut Vec<Effect>) {
        let at_ms = self.guarded_clock(now).0.max(self.said_ms + 1);
        self.said_ms = at_ms;
        let report = JobReport::sign(self.constants.cluster, self.node, self.group, TimeMs(at_ms), said, key);
        self.work(now, VecDeque::from([Job::Driver(driver::Input::Report(report))]), out);
    }

    /// The registry has put the layout in force for which this group stands still.
    pub(crate) fn ended(&mut self, now: Tick, job: JobId, out: &mut Vec<Effect>) {
        self.work(now, VecDeque::from([Job::Driver(driver::Input::JobCommitted(job))]), out);
    }

    /// The seal in force, if the state has one and ends with it.
    pub(crate) fn sealed(&self) -> Option<SealedBy> {
        let sealed: SealedBy = state::find(&self.kv, &schema::sealed()).ok().flatten()?;
        (self.height() == Some(sealed.height)).then_some(sealed)
    }

    /// Sequences commands that no driver would propose, if this replica leads.
    pub fn inject(&mut self, now: Tick, commands: Vec<Command>, out: &mut Vec<Effect>) {
        if self.defers(&commands) {
            return;
        }
        let Some(live) = self.live.as_ref().filter(|live| live.leads) else { return };
        // A Byzantine group has no vote for a stamp of long ago.
        let (clock, last) = (self.guarded_clock(now), live.applied.time_ms);
        let old = live.engine.member().is_some() && clock.0 > last.0 + STAMP_AGE_MS_MAX / 2;
        let entry = Entry { version: ENTRY_VERSION, stamp_ms: if old { clock } else { last }, commands };
        let entry = Bytes::from(entry.encode());
        let jobs = [Self::bft_submit(bft::INJECTED, entry.clone()), Job::Engine(local::Input::Propose(entry))];
        self.work(now, VecDeque::from(jobs), out);
    }

    /// The guarded clock.
    fn guarded_clock(&self, now: Tick) -> TimeMs {
        let guarded = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_add(self.offset_ms);
        TimeMs(u64::try_from(guarded).unwrap_or(0))
    }

    /// The committees as the driver is told of them.
    fn committees(&self) -> Committees {
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        let mut committees = driver::committees(&mut View::new(&reader));
        if self.sabotage == Some(Sabotage::LoneSignature) {
            committees.current.iter_mut().for_each(|committee| committee.threshold = 1);
        }
        committees
    }

    /// Runs engine and driver until neither has anything left to do.
    fn work(&mut self, now: Tick, mut jobs: VecDeque<Job>, out: &mut Vec<Effect>) {
        while let Some(job) = jobs.pop_front() {
            let Some(live) = &mut self.live else { return };
            match job {
                Job::Bft(event) => {
                    if let Err(why) = self.bft_event(now, event, &mut jobs, out) {
                        if !self.lies() {
                            out.push(Effect::Broken(format!("{} stopped on node {}: {why}", self.group, self.node)));
                        }
                        self.live = None;
                        return;
                    }
                }
                Job::Engine(input) => {
                    let Engine::Local(engine) = &mut live.engine else { continue };
                    let mut outputs = Vec::new();
                    engine.step(now, input, &mut outputs);
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
        self.go_over(now, out);
    }
}

/// Of a receipt whose mail stands in streams that are not written any more: whether all of it was taken. `None` where
/// the streams of this group say so.
fn elsewhere(kv: &MemKv, here: GroupId, receipt: &Receipt) -> Option<bool> {
    let Outcome::Committed { mail } = &receipt.outcome else { return None };
    let ended = |dest: &GroupId| matches!(kv.get(&schema::closed(receipt.group, *dest)), Ok(Some(_)));
    if receipt.group == here && !mail.iter().any(|(dest, _)| ended(dest)) {
        return None;
    }
    let reader = KvState { kv, hide_receipts: false };
    let mut view = View::new(&reader);
    Some(mail.iter().all(|(dest, seq)| closed::acknowledged(&mut view, here, receipt.group, *dest, *seq)))
}

/// Block 0 of a group, channels included, which begin as if they had been founded.
pub(crate) fn first_state(genesis: &Genesis, group: GroupId) -> Result<GenesisState, String> {
    let mut first = genesis_state(genesis, None, group).map_err(|error| error.to_string())?;
    if group.kind() == Some(GroupKind::Channel) {
        first = with_charter(first, &charter(genesis, group)).map_err(|error| error.to_string())?;
        first.writes.push((schema::registry_extract(), encoded(&extract(genesis)).to_vec()));
    }
    if group != GroupId::BEACON {
        let told = anchors(genesis).into_iter();
        first.writes.extend(told.map(|update| (schema::anchors(update.channel), encoded(&update).to_vec())));
    }
    if group == GroupId::BEACON {
        let charters = channels(genesis).into_iter().map(|group| charter(genesis, group));
        first.writes.extend(charters.flat_map(|charter| beacon::channels::genesis_writes(&charter)));
    }
    Ok(first)
}

/// Block 0 of a group that was founded while the cluster ran.
pub(crate) fn founded_state(genesis: &Genesis, foundation: &Foundation) -> Result<GenesisState, String> {
    genesis_state(genesis, Some(foundation), foundation.group).map_err(|error| error.to_string())
}

fn writes_of(first: GenesisState) -> WriteBatch {
    let mut batch = WriteBatch::with_capacity(first.writes.len());
    first.writes.into_iter().for_each(|(key, value)| batch.put(key, value));
    batch
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

//! A group as one logical replica: the production executor and the production driver of its leader, between an order
//! that comes after a modelled time and processors that take a modelled time for everything.
//!
//! `payments` is what happens to payments until they are in an entry and when they have a receipt, `blocks` what happens
//! to the entry, `post` what happens to messages, `trails` what the audit is shown. Whatever comes from another group came
//! at least one hop ago, so groups can go a step ahead on their own: see [`super::world`].

mod blocks;
mod payments;
mod post;
mod trails;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use beacon::limits::CHECKPOINT_EVERY_BLOCKS;
use bytes::Bytes;
use ledger::checked::Checked;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, Tick, TxId};
use ledger::machine::Driver;
use ledger::tree::StateTree;
use ledger::{ParsedTx, schema};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shard_node::core::applied::AppliedRecord;
use shard_node::core::driver::{DriverConfig, GroupDriver, Input, Output, SystemView};
use shard_node::core::executor::{ExecutedBlock, GroupConstants};
use shard_node::core::heads::Heads;
use shard_node::core::peer::PeerMessage;

use crate::scale::Times;
use crate::scale::cluster::{Beginning, CREATED_MS, Directory, Seats};
use crate::scale::group::payments::{Paid, Waiting};
use crate::scale::group::trails::{Audited, Chain};
use crate::scale::load::{Clients, counted, payment};
use crate::scale::model::{Constants, Latencies, MS, Ns, Share, Work};
use crate::scale::report::Stats;

pub(super) use post::Letter;

/// As production does: between two timer inputs, proposals in flight.
const TIMER: Ns = 25 * MS;
const PIPELINE: usize = 3;
/// All pulls and probes of a driver come again within this time, so groups begin at a random moment of it.
pub(super) const CYCLE: Ns = 900 * MS;

/// What is the same for all groups of a run.
pub(super) struct Setting {
    pub(super) directory: Arc<Directory>,
    pub(super) constants: Constants,
    pub(super) latencies: Latencies,
    /// Thousandths of a core that each node has.
    pub(super) cores_milli: u64,
    /// Clients of each shard.
    pub(super) clients: u32,
    pub(super) times: Times,
    /// Keep the payments that were executed.
    pub(super) record: bool,
}

/// What is to happen in a group.
enum Event {
    /// Its leader begins to lead.
    Start,
    Timer,
    /// A client makes its next payment.
    Pay(u32),
    /// A payment has come to the router of the leader's node.
    Ingest(Bytes),
    /// Its signature has been checked.
    Submit(Bytes),
    /// A message has come to a member's node.
    Arrives {
        from: NodeId,
        member: usize,
        message: Box<PeerMessage>,
    },
    /// It has been read there, and what it proves has been checked.
    Peer {
        from: NodeId,
        member: usize,
        message: Box<PeerMessage>,
    },
    /// A proposal is in the log for good.
    Ordered {
        id: u64,
        entry: Bytes,
    },
    /// Its block has been executed.
    Applied {
        id: u64,
        block: Box<ExecutedBlock>,
        payments: Vec<Paid>,
        audited: Audited,
    },
    /// The leader has checked the signatures of a block: at ingest, all of them.
    Checked(Height),
}

/// One group.
pub(super) struct Group {
    pub(super) id: GroupId,
    setting: Arc<Setting>,
    constants: GroupConstants,
    pub(super) seats: Seats,
    pub(super) state: BTreeMap<Vec<u8>, Bytes>,
    tree: StateTree,
    heads: Heads,
    pub(super) applied: AppliedRecord,
    driver: GroupDriver,
    started: bool,
    rng: ChaCha8Rng,
    clients: Option<Clients>,
    agenda: BTreeMap<(Ns, u64), Event>,
    scheduled: u64,
    /// When what happens at present does.
    now: Ns,
    /// Of each member.
    pub(super) shares: Vec<Share>,
    ordered_until: Ns,
    /// Of each member: blocks are executed one after the other.
    applied_until: Vec<Ns>,
    /// Streams after the last block, outgoing and incoming.
    streams: (usize, usize),
    pub(super) letters: Vec<Letter>,
    written: u64,
    /// When the last letter to each group comes.
    arrivals: BTreeMap<GroupId, Ns>,
    /// Up to where a source's mail has been checked here, and up to where a destination has proved to have taken ours.
    taken: BTreeMap<GroupId, u64>,
    proved: BTreeMap<GroupId, u64>,
    /// Certificates whose signatures the leader has checked, and those that the other members have, as production
    /// remembers them.
    judged: Checked,
    met: Checked,
    /// Of a shard: its blocks that the beacon has not audited.
    chain: Chain,
    /// Of the beacon: how far each shard is audited, and where streams were shown, as its leader knows it that has executed a
    /// block.
    audited: BTreeMap<Vec<u8>, Bytes>,
    /// Of the beacon: when the last trail of each shard was taken.
    trailed: BTreeMap<GroupId, Ns>,
    /// The member that a destination asks for mail.
    asked: BTreeMap<GroupId, usize>,
    waiting: BTreeMap<TxId, Waiting>,
    /// Of each client: since when a payment of it is under way that is only counted.
    counted: Vec<Option<Ns>>,
    /// A payment of this shard, for the signatures of a block in which all payments are only counted.
    sample: Option<ParsedTx>,
    /// Payments to other groups that are not known to be taken there: their place in the stream, and since when.
    crossing: BTreeMap<GroupId, VecDeque<(u64, Ns)>>,
    pub(super) stats: Stats,
    /// Payments with a receipt since the beginning.
    pub(super) paid: u64,
    /// What was executed, if it is kept.
    pub(super) executed: Vec<Bytes>,
}

impl Group {
    /// A group at block 0, which begins to work at some moment of the first [`CYCLE`].
    pub(super) fn new(
        id: GroupId,
        setting: Arc<Setting>,
        begun: Beginning,
        clients: Option<Clients>,
        seed: u64,
    ) -> Result<Self, String> {
        let directory = &setting.directory;
        let seats = directory.seats.get(&id).cloned().ok_or_else(|| format!("{id} has no members"))?;
        let leader = seats.members[seats.leader];
        let constants = GroupConstants { cluster: directory.cluster, group: id, verify: directory.genesis.verify };
        let driver = GroupDriver::new(DriverConfig {
            group: id,
            node: leader,
            join: 1,
            key: directory.keys[leader.0 as usize].clone().into(),
            pipeline: PIPELINE,
            checkpoint_every: CHECKPOINT_EVERY_BLOCKS,
            verify: constants.verify,
            checked: Checked::default(),
        });
        let sample = match directory.accounts_of(id) {
            [first, .., last] => {
                let bytes = payment(directory, first, last.address, 1, [0xff; 16]);
                let tx = ParsedTx::decode(&directory.cluster, &bytes).map_err(|reject| format!("{reject:?}"))?;
                Some(tx)
            }
            _ => None,
        };
        let counted = vec![None; if clients.is_some() { setting.clients as usize } else { 0 }];
        let share = |node: &NodeId| Share { node: node.0 as usize, free: 0, used: 0 };
        let shares: Vec<Share> = seats.members.iter().map(share).collect();
        let first =
            begun.state.get(&schema::header(Height(0))).cloned().ok_or_else(|| format!("{id} has no block 0"))?;
        let mut group = Self {
            id,
            chain: Chain::new(first, begun.applied.clone()),
            audited: BTreeMap::new(),
            trailed: BTreeMap::new(),
            constants,
            applied_until: vec![0; shares.len()],
            seats,
            state: begun.state,
            tree: begun.tree,
            heads: Heads::default(),
            applied: begun.applied,
            driver,
            started: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
            clients,
            agenda: BTreeMap::new(),
            scheduled: 0,
            now: 0,
            shares,
            ordered_until: 0,
            streams: (0, 0),
            letters: Vec::new(),
            written: 0,
            arrivals: BTreeMap::new(),
            taken: BTreeMap::new(),
            proved: BTreeMap::new(),
            judged: Checked::default(),
            met: Checked::default(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            counted,
            sample,
            crossing: BTreeMap::new(),
            stats: Stats::default(),
            paid: 0,
            executed: Vec::new(),
            setting,
        };
        let begins = group.rng.random_range(0..CYCLE);
        group.later(begins, Event::Start);
        if group.clients.is_some() {
            let from = group.setting.times.load_from;
            for client in 0..group.setting.clients {
                let at = from + group.rng.random_range(0..10 * MS);
                group.later(at, Event::Pay(client));
            }
        }
        Ok(group)
    }

    /// Takes what comes from other groups, and does everything that is to happen before a moment.
    pub(super) fn advance(&mut self, until: Ns, letters: Vec<Letter>) -> Result<(), String> {
        for letter in letters {
            self.post(letter);
        }
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 >= until {
                break;
            }
            let ((now, _), event) = entry.remove_entry();
            self.now = now;
            self.happen(now, event).map_err(|cause| format!("{} at {} ms: {cause}", self.id, now / MS))?;
        }
        Ok(())
    }

    fn happen(&mut self, now: Ns, event: Event) -> Result<(), String> {
        let leader = self.seats.leader;
        match event {
            Event::Start => self.start(now),
            Event::Timer => {
                self.later(now + TIMER, Event::Timer);
                self.drive(now, leader, Input::Timer)
            }
            Event::Pay(client) => self.pay(now, client),
            Event::Ingest(tx) => {
                let constants = self.setting.constants;
                let checked = self.take(leader, now, constants.route_ns + constants.verify_ns, Work::Ingest, true);
                self.later(checked, Event::Submit(tx));
                Ok(())
            }
            Event::Submit(tx) => self.drive(now, leader, Input::Submit(vec![tx])),
            Event::Arrives { from, member, message } => {
                self.arrives(now, from, member, message);
                Ok(())
            }
            Event::Peer { from, member, message } => self.drive(now, member, Input::Peer { from, message }),
            Event::Ordered { id, entry } => self.ordered(now, id, &entry),
            Event::Applied { id, block, payments, audited } => {
                self.take_audited(now, audited);
                self.applied(now, id, *block, &payments)
            }
            Event::Checked(height) => self.drive(now, leader, Input::Verified { height, valid: true }),
        }
    }

    fn later(&mut self, at: Ns, event: Event) {
        self.scheduled += 1;
        self.agenda.insert((at, self.scheduled), event);
    }

    fn hop(&mut self) -> Ns {
        self.setting.latencies.hop(&mut self.rng)
    }

    /// Whether a moment is in the time that is measured.
    fn counts(&self, now: Ns) -> bool {
        (self.setting.times.measure_from..self.setting.times.measure_to).contains(&now)
    }

    /// Takes so much of a member's processor, for work that begins at a moment, and returns when it is done.
    fn take(&mut self, member: usize, from: Ns, cost: Ns, work: Work, spread: bool) -> Ns {
        if member == self.seats.leader && self.counts(from) {
            self.stats.leader_ns[work as usize] += cost;
        }
        self.shares[member].take(self.now, from, cost, self.setting.cores_milli, spread)
    }

    fn start(&mut self, now: Ns) -> Result<(), String> {
        self.started = true;
        let view = SystemView::read(&self.state, self.id, self.constants.verify).map_err(|error| error.to_string())?;
        let (leader, node) = (self.seats.leader, self.seats.members[self.seats.leader]);
        self.drive(now, leader, Input::ClockOffset(CREATED_MS as i64))?;
        self.drive(now, leader, Input::System(view))?;
        let signed = vec![now; self.seats.members.len()];
        self.attested(Height(0), self.applied.header_hash, &signed);
        self.drive(now, leader, Input::Role { leads: true, leader: Some(node) })?;
        self.later(now + TIMER, Event::Timer);
        Ok(())
    }

    /// Gives the driver an input, and does what it asks for, on behalf of a member.
    fn drive(&mut self, now: Ns, member: usize, input: Input) -> Result<(), String> {
        let mut out = Vec::new();
        // Ticks begin above zero.
        self.driver.step(Tick(now / MS + 1), input, &mut out);
        self.take_paths(now, &out);
        for output in out {
            self.carry_out(now, member, output)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Ns, member: usize, output: Output) -> Result<(), String> {
        match output {
            Output::Propose { id, entry } => self.propose(now, id, entry),
            // What replicas of one group tell each other is modelled where it is caused.
            Output::Send { group, .. } if group == self.id => {}
            Output::Send { node, group, message } => self.send(now, member, node, group, message),
            Output::Verify { height, .. } => self.later(now, Event::Checked(height)),
            Output::PeerTook { dest, next_seq } => self.took(now, dest, next_seq),
            Output::Refuse { txs, .. } => {
                for tx in txs {
                    if let Some(client) = counted(&tx) {
                        self.counted_refused(now, client);
                        continue;
                    }
                    let txid =
                        ParsedTx::decode(&self.constants.cluster, &tx).map_err(|error| format!("{error:?}"))?.txid;
                    self.refused(now, &txid);
                }
            }
            Output::Certified(certificate) => self.chain.certified(certificate),
            Output::AskTrail { group, node, certified, now: time } => {
                self.ask_trail(now, member, (group, node), certified, time)?;
            }
            Output::GiveTrail { node, wanted } => self.give_trail(now, member, node, wanted)?,
            Output::Checked(_) | Output::Late(_) | Output::Lookup { .. } => {}
            // There are no channels here.
            Output::AlarmEnded(_) | Output::Stray { .. } => {}
            Output::Alarm { text, .. } => return Err(text),
            Output::Stop(text) => return Err(text),
            Output::Forged(height) => return Err(format!("block {height} is said to be forged")),
            Output::Recheck { from, .. } => return Err(format!("block {from} is to be checked again")),
        }
        Ok(())
    }

    /// Payments and mail that are still under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        let counted = self.counted.iter().flatten().count();
        self.waiting.len() + counted + self.crossing.values().map(VecDeque::len).sum::<usize>()
    }

    /// What every run of a seed has to come to.
    pub(super) fn root(&self) -> (Height, Hash32) {
        (self.applied.height, self.applied.header_hash)
    }
}

/// Whether a later block may find something there. Of a production database the rest is history, which only readers ask
/// for; and of receipts those of payments that come a second time, which none does here.
fn is_read(key: &[u8]) -> bool {
    const HISTORY: [u8; 6] =
        [schema::HEADER, schema::BLOCK, schema::ENTRY, schema::HISTORY, schema::FLOW, schema::RECEIPT];
    key.first().is_some_and(|space| !HISTORY.contains(space))
}

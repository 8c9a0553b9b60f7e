//! Going over from one engine to the other: what production does in `consensus/src/engine/keeper.rs` and
//! `raft/stint.rs`, on the simulated disks.
//!
//! The state says which engine orders and behind which entry it began (its *stint*). When that is another one than the one that runs,
//! the replica leaves it, makes its state durable, has its log begin anew behind that, begins the records of votes
//! anew, notes that it takes part, and starts the other engine; each of these waits until the one before is durable,
//! and a replica that lost power in between goes on from there. Messages name the stint of their sender. One of an
//! earlier stint is told how far this replica is; one that hears of a later stint asks for what was decided, if its engine is
//! the Byzantine one, or fetches a state.

use std::collections::{BTreeMap, VecDeque};

use consensus::bft::{Chain, Decided};
use consensus::local::{Base, Change, Persist};
use ledger::committee::{Committee, Engine as Kind};
use ledger::hash::Hash32;
use ledger::ids::{NodeId, Tick};
use shard_node::core::applied::EngineStart;
use shard_node::core::driver;

use super::bft::{self, KEPT_ENTRIES};
use super::{Effect, Engine, Job, Replica, TIMING};
use crate::checkers::{BftSeen, Seen};
use crate::sabotage::Sabotage;
use crate::seat;
use crate::wire::Wire;
use crate::wire::bft::BftWire;

/// So long a leader of Raft goes on behind the entry that hands over, so that its followers hear that it is committed.
const FAREWELL_MS: u64 = 2 * TIMING.heartbeat_ms;
/// So long others are ahead before a state is fetched: most that hear so are about to apply the same entry.
const LOST_MS: u64 = TIMING.election_max_ms;
/// Between two questions of a Byzantine member that others have gone on without.
const ASK_MS: u64 = 60;

/// What has to be durable before the next step into a stint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The log ends with the entry that hands over.
    Log,
    /// It is noted that the replica takes part.
    Slot,
}

/// Somebody who runs a later stint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    node: NodeId,
    since: Tick,
    /// When it is asked next.
    ask_at: Tick,
}

/// What the engine that begins finds beside the state: its members, or where the order stands. `joins` are those of groups
/// whose seats move.
pub(super) fn first_note(
    start: &EngineStart,
    committee: &Committee,
    joins: &BTreeMap<NodeId, u16>,
    sabotage: Option<Sabotage>,
) -> Vec<u8> {
    match start.engine {
        Kind::Raft => {
            // Seats that do not move are named like their nodes.
            let join = |node: &NodeId| joins.get(node).copied().unwrap_or(0);
            let members = committee.members.iter().map(|member| seat::seat(member.node, join(&member.node)));
            let voters: Vec<NodeId> = members.collect();
            borsh::to_vec(&voters).expect("writing to memory does not fail")
        }
        Kind::Bft => {
            let forgets = sabotage == Some(Sabotage::SwitchWithoutParent);
            let anchor = if forgets { Hash32::default() } else { start.anchor };
            Chain::start(start.after.index, anchor, committee).encode().to_vec()
        }
    }
}

impl Replica {
    /// The stint that this replica is in, or on its way into.
    pub(super) fn stint(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.stint)
    }

    /// The engine that the state has in force, if the replica runs.
    #[must_use]
    pub fn ordered_by(&self) -> Option<Kind> {
        self.live.as_ref().map(|live| live.order.engine)
    }

    /// Leaves the engine that has handed over. A leader of Raft goes on for a moment.
    pub(super) fn go_over(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        let stint = live.order.stint();
        if stint == live.stint {
            return;
        }
        let farewell = matches!(live.engine, Engine::Local(_)) && live.leads;
        let due = *live.over_at.get_or_insert(Tick(now.0 + if farewell { FAREWELL_MS } else { 0 }));
        if now < due {
            return;
        }
        (live.stint, live.over_at, live.ahead) = (stint, None, None);
        live.engine = Engine::Between(Step::Log);
        // It was on its way because the group had gone on without this replica.
        self.fetch = None;
        out.push(Effect::GoingOver);
        self.enter(out);
    }

    /// The first step into a stint: the state is durable, and the log begins anew behind it.
    pub(super) fn enter(&mut self, out: &mut Vec<Effect>) {
        self.flush(out);
        let Some(live) = &self.live else { return };
        // Behind the entry that hands over; behind a later one where the state came from somebody else.
        let at = live.applied.consensus.position.unwrap_or_default();
        let base = Base { index: at.index, term: at.term, voters: Vec::new() };
        self.keep_decided();
        if let Some(liar) = &mut self.beside.liar {
            liar.rest();
        }
        self.disk.write(Persist { sequence: 0, change: Change::Begin(base) });
        self.sync_later(out);
    }

    /// What the log has of decided values stays at hand for those who have missed them.
    fn keep_decided(&mut self) {
        let log = self.disk.durable();
        let first = log.last_index().saturating_sub(KEPT_ENTRIES).max(1);
        let values = (first..=log.last_index()).filter_map(|index| bft::decided(log.entry(index)?));
        let values: Vec<Decided> = values.collect();
        if !values.is_empty() {
            self.beside.earlier = values.into_iter().map(|decided| (decided.value.index, decided)).collect();
        }
    }

    /// More is durable: takes the next step into the stint, or begins it.
    pub(super) fn enter_on(
        &mut self,
        now: Tick,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let Engine::Between(step) = live.engine else { return Ok(()) };
        match step {
            Step::Log if self.disk.pending() == 0 => {
                live.engine = Engine::Between(Step::Slot);
                self.beside.wal.enter(live.stint);
                self.sync_later(out);
                Ok(())
            }
            Step::Slot if self.beside.wal.pending() == 0 => self.begin_stint(now, jobs, out),
            Step::Log | Step::Slot => Ok(()),
        }
    }

    fn begin_stint(&mut self, now: Tick, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) -> Result<(), String> {
        let (engine, wanted) = {
            let Some(live) = &self.live else { return Ok(()) };
            self.engine_of(now, &live.applied, &live.order)?
        };
        let (node, group) = (self.node, self.group);
        let Some(live) = &mut self.live else { return Ok(()) };
        let (stint, kind) = (live.stint, live.order.engine);
        live.engine = engine;
        // What the engine before was given and has not made an entry that counts.
        for (id, _) in live.proposals.drain(..) {
            jobs.push_back(Job::Driver(driver::Input::Proposed { id, accepted: false }));
        }
        let role = live.engine.role();
        let (leads, leader) = (role.leads, role.leader.map(seat::node_of));
        let lost = live.leads && !leads;
        (live.leads, live.leader) = (leads, leader);
        let sent_away = if lost { live.waiters.leadership_lost(leader) } else { Vec::new() };
        self.answer(sent_away, out);
        out.push(Effect::Saw(Seen::Stint { node, group, engine: kind, stint }));
        if kind == Kind::Bft {
            let (index, round) = (role.applied_index + 1, 0);
            out.push(Effect::Saw(Seen::Bft(BftSeen::Turn { node, group, leads, index, round })));
            self.bft_started(now, jobs, out);
            jobs.push_back(Job::Bft(bft::Event::Carry(wanted)));
        }
        // The driver hears who leads, whoever that was before: until then it proposes nothing.
        jobs.push_back(Job::Driver(driver::Input::Role { leads, leader }));
        Ok(())
    }

    /// Whether a message is of another stint than the one that runs here. Whoever is in an earlier one is told, and
    /// who is in a later one is remembered.
    pub(super) fn strays(&mut self, now: Tick, from: NodeId, stint: u64, out: &mut Vec<Effect>) -> bool {
        let Some(live) = &self.live else { return true };
        if stint == live.stint {
            return false;
        }
        let (own, group) = (live.order.stint(), self.group);
        if stint < own {
            out.push(Effect::Send(from, Wire::Ahead { group, stint: own }));
        } else {
            self.ahead(now, from, stint);
        }
        true
    }

    /// A node says which stint it is in.
    pub fn ahead(&mut self, now: Tick, node: NodeId, stint: u64) {
        let member = self.in_force().is_ok_and(|committee| committee.index_of(node).is_some());
        let Some(live) = &mut self.live else { return };
        if stint <= live.order.stint() || !member {
            return;
        }
        let ahead = live.ahead.get_or_insert(Ahead { node, since: now, ask_at: now });
        ahead.node = node;
    }

    /// Asks those who have gone on for what is missing here.
    pub(super) fn follow_ahead(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        if live.order.stint() != live.stint {
            return;
        }
        let (order, applied) =
            (live.order.engine, live.applied.consensus.position.map_or(0, |position| position.index));
        let Some(ahead) = &mut live.ahead else { return };
        let node = ahead.node;
        match order {
            Kind::Bft if now >= ahead.ask_at => {
                ahead.ask_at = Tick(now.0 + ASK_MS);
                for node in self.asked_about(node) {
                    self.bft_send(node, BftWire::Ask { from: applied + 1 }, out);
                }
            }
            Kind::Raft if now.0 >= ahead.since.0 + LOST_MS => {
                ahead.since = now;
                self.lack(node, out);
            }
            Kind::Bft | Kind::Raft => {}
        }
    }
}

//! Turns: who proposes, as a pure function of what was decided.
//!
//! One member proposes as long as it does so in time, as a leader of Raft does: whoever holds a client's
//! transaction knows whom to give it to, and a member that is dead or silent costs its time-out once, not in
//! every cycle. What keeps a leader honest is that its turn ends: after [`TURN_ENTRIES`] entries, or when it has lasted
//! for [`TURN_MS`], the next member leads.
//!
//! How long a turn has lasted, each value says of itself ([`Value::lasted_ms`]), so that all agree on it and a blank
//! counts like any other. A leader may be wrong, and may lie. For a value that says too little by more than
//! [`TURN_SLACK_MS`], members do not vote: each goes by how long it has seen the turn last itself ([`Age`]). Nor do they for
//! one that says too much: who leads in another one's turn would end it with that. So whoever proposes just before every time-out leads for a
//! little more than [`TURN_MS`], and not for as many time-outs as a turn has entries. In later rounds members vote for what
//! says too little, and for all of it when more than two thirds have prevoted it: their clocks do not keep them from
//! coming to an end. Other clocks than that which ticks in a process are not asked, and none is compared with another's.
//!
//! A turn belongs to its owner, and how many entries and how long it lasts is fixed when it begins. Within it others may lead: an heir, to whom
//! the leader has handed over, or whoever made a value in a later round because the leader did not. They lead in the
//! rest of the turn and do not extend it, nor do they begin one of their own; and the next owner is the one behind
//! this owner, whoever has led last. So nothing that a value says and no round that passes changes whose turn comes
//! next, but that a member missed its own, nor when, by more than the slack: liars who hand each other the lead, or fall silent for each
//! other, use up turns of theirs. Were a later round to begin a turn of its proposer, a liar could hand over to
//! another one just in front of it, who falls silent, and so begin anew again and again.
//!
//! A member that was to lead and gave no value is left out of its next turns, of twice as many each time up to
//! [`SKIPS_MAX`]; one whose turn ended with a value of its own, without a miss in it, is forgiven. Everything here
//! follows from decided values alone, so all members agree on it.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::ids::{NodeId, Tick};
use ledger::limits::COMMITTEE_MAX;

use super::value::Value;

/// Entries of one turn.
pub const TURN_ENTRIES: u64 = 1024;
/// How long one turn may last, in milliseconds: it ends with the first value that says so much.
pub const TURN_MS: u64 = 60_000;
/// By so much a value may say less than a member that is to vote for it has seen the turn last, in milliseconds: members
/// see it begin when they have applied the entry before it, each in its own time.
pub const TURN_SLACK_MS: u64 = 10_000;
/// More than this no entry adds to what a member has seen the turn last, in milliseconds. A leader that takes so long for
/// one is long replaced; what takes longer is a group that stands still, and nobody leads in that time.
const ENTRY_MS_MAX: u64 = 5_000;
/// Turns that a member is left out of when it misses one for the first time. A member that died costs its time-out
/// once, and is asked again when it had time to be mended.
pub const SKIPS_FIRST: u16 = 16;
/// Turns that a member is left out of at most, in a row.
pub const SKIPS_MAX: u16 = 64;

/// A member that has missed a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Missed {
    /// The member.
    pub node: NodeId,
    /// How many of its turns it is left out of from here on.
    pub skips: u16,
    /// How many it is left out of when it misses the next one.
    pub next: u16,
}

/// Who proposes next.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Turn {
    /// Whose turn it is. The next one is that of a member behind it.
    pub owner: NodeId,
    /// Proposes in round 0: the owner, or who leads in the rest of its turn.
    pub leader: NodeId,
    /// The entry that the turn ends with, if its time is not over before.
    pub until: u64,
    /// How long it has lasted, in milliseconds, as its last value says.
    pub lasted_ms: u64,
    /// Members that have missed a turn, sorted by node.
    pub missed: Vec<Missed>,
}

impl Turn {
    /// The first turn, behind entry `index`.
    #[must_use]
    pub fn first(index: u64, committee: &Committee) -> Self {
        let nodes = committee.members.len() as u64;
        let at = usize::try_from(index % nodes.max(1)).unwrap_or(0);
        let leader = committee.members.get(at).map_or(NodeId(0), |member| member.node);
        let until = index.saturating_add(TURN_ENTRIES);
        Self { owner: leader, leader, until, lasted_ms: 0, missed: Vec::new() }
    }

    /// Whether this can be the turn behind entry `index`: it ends, not too late, and what is kept of misses is in order
    /// and within bounds. Owner and leader need not have a seat any more: that entry may have taken it, and then the
    /// members behind them propose.
    #[must_use]
    pub fn well_formed(&self, index: u64) -> bool {
        let bounded = |missed: &Missed| missed.skips <= SKIPS_MAX && (1..=SKIPS_MAX).contains(&missed.next);
        self.until > index
            && self.until - index <= TURN_ENTRIES
            && self.lasted_ms < TURN_MS
            && self.missed.len() <= COMMITTEE_MAX
            && self.missed.windows(2).all(|pair| pair[0].node < pair[1].node)
            && self.missed.iter().all(bounded)
    }

    /// The proposer of a round: the leader, and then the members behind it, one after the other.
    #[must_use]
    pub fn proposer(&self, committee: &Committee, round: u32) -> NodeId {
        let members = &committee.members;
        let at = members.partition_point(|member| member.node < self.leader);
        let nth = (at + round as usize % members.len().max(1)) % members.len().max(1);
        members.get(nth).map_or(self.leader, |member| member.node)
    }

    /// The turn behind a value that was decided by `committee`. Who made the value leads on, or the heir that it names;
    /// the members of the rounds before have missed. The last value of a turn has no heir: the next owner leads.
    #[must_use]
    pub fn after(&self, value: &Value, committee: &Committee) -> Self {
        let mut next = self.clone();
        next.missed.retain(|missed| committee.index_of(missed.node).is_some());
        for round in 0..value.round.min(committee.members.len() as u32) {
            next.miss(self.proposer(committee, round));
        }
        let heir = value.heir.filter(|heir| committee.index_of(*heir).is_some());
        next.leader = heir.unwrap_or(value.proposer);
        next.lasted_ms = value.lasted_ms;
        if value.index >= self.until || value.lasted_ms >= TURN_MS {
            if value.proposer == self.owner {
                next.forgive(self.owner);
            }
            next.rotate(committee);
            next.until = value.index.saturating_add(TURN_ENTRIES);
            next.lasted_ms = 0;
        }
        next
    }

    fn miss(&mut self, node: NodeId) {
        match self.missed.binary_search_by_key(&node, |missed| missed.node) {
            Ok(at) => {
                let missed = &mut self.missed[at];
                missed.skips = missed.next;
                missed.next = missed.next.saturating_mul(2).min(SKIPS_MAX);
            }
            Err(at) => self.missed.insert(at, Missed { node, skips: SKIPS_FIRST, next: 2 * SKIPS_FIRST }),
        }
    }

    /// Forgets what a member has missed, unless it has turns to be left out of: then it missed this one.
    fn forgive(&mut self, node: NodeId) {
        self.missed.retain(|missed| missed.node != node || missed.skips > 0);
    }

    /// The turn goes to the next member behind its owner that is not left out; to the next one when all are.
    fn rotate(&mut self, committee: &Committee) {
        let members = &committee.members;
        let behind = members.partition_point(|member| member.node <= self.owner);
        let order = (0..members.len()).map(|step| members[(behind + step) % members.len()].node);
        let order: Vec<NodeId> = order.collect();
        let mut owner = order.first().copied();
        for node in order {
            match self.missed.iter_mut().find(|missed| missed.node == node && missed.skips > 0) {
                Some(missed) => missed.skips -= 1,
                None => {
                    owner = Some(node);
                    break;
                }
            }
        }
        if let Some(owner) = owner {
            self.owner = owner;
            self.leader = owner;
        }
    }
}

/// How long a member has seen a turn last: by its own clock, and never less than the turn's values have said. One that
/// has seen the beginning of a turn is not told otherwise; one that comes in between goes by what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The end of the turn, which no other turn has.
    until: u64,
    /// How long it had lasted in milliseconds, and when.
    ms: u64,
    at: Tick,
}

impl Age {
    /// Of a turn about which nothing is known but what its values have said.
    #[must_use]
    pub const fn new(turn: &Turn, now: Tick) -> Self {
        Self { until: turn.until, ms: turn.lasted_ms, at: now }
    }

    /// In milliseconds.
    #[must_use]
    pub fn ms(&self, now: Tick) -> u64 {
        self.ms.saturating_add(now.0.saturating_sub(self.at.0).min(ENTRY_MS_MAX))
    }

    /// An entry is applied, and this is the turn behind it.
    pub fn applied(&mut self, turn: &Turn, now: Tick) {
        let seen = if self.until == turn.until { self.ms(now) } else { 0 };
        *self = Self { ms: seen.max(turn.lasted_ms), ..Self::new(turn, now) };
    }
}

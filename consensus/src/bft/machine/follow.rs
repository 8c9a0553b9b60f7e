//! What other members are ahead with: where they were heard, what they sent for entries that are not decided
//! here yet, and values that they have decided already.
//!
//! Owns: bounded buffers for what comes early, and when a member that is ahead is asked. Never believes
//! anything: what is buffered is judged when its index comes, and who claims to be ahead gets its turn among
//! those who do, whatever it claims and however it answers.

use std::collections::{BTreeMap, VecDeque};

use ledger::hash::Hash32;
use ledger::ids::{NodeId, Tick};

use super::super::api::Output;
use super::super::message::Message;
use super::super::value::{Body, Decided};
use super::Machine;
use super::parts::VALUE_BYTES_MAX;

/// How far ahead messages are kept. A member that is further behind needs decided values.
pub const EARLY_INDEXES: u64 = 2;
/// Messages of one peer that are kept for later.
pub const EARLY_MAX: usize = 128;
/// Decided values that are kept for later.
pub const AHEAD_MAX: usize = 8;
/// Their bytes at most, beside the first.
pub const AHEAD_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

#[derive(Default)]
struct Early {
    messages: Vec<(u64, Message)>,
    bytes: usize,
}

/// The last question to a member.
#[derive(Clone, Copy, Default)]
struct Question {
    /// Which one it was, counted from 1.
    number: u64,
    /// Until then it may be answered; zero when it was.
    until: Tick,
}

/// What is known of members that are ahead.
#[derive(Default)]
pub struct Follow {
    /// The highest entry that each other member was heard to work on.
    pub heard: BTreeMap<NodeId, u64>,
    /// Decided values that this node's own log has behind the state.
    pub own: VecDeque<Decided>,
    /// When somebody is to be asked.
    pub at: Option<Tick>,
    /// Nobody is asked before.
    rest: Tick,
    /// Questions so far.
    questions: u64,
    asked: BTreeMap<NodeId, Question>,
    early: BTreeMap<NodeId, Early>,
    ahead: Vec<Decided>,
    given: BTreeMap<(NodeId, Hash32), Tick>,
}

fn bytes_of(message: &Message) -> usize {
    match message {
        Message::Part(part) => part.data.len(),
        Message::Ballot(_) | Message::Ballots(..) | Message::Want { .. } => 0,
    }
}

fn size(decided: &Decided) -> usize {
    match &decided.value.body {
        Body::Blank => 0,
        Body::Batch(batch) => batch.len(),
    }
}

impl Follow {
    /// Nothing was heard yet; these values are behind the state in this node's own log.
    pub fn new(own: Vec<Decided>) -> Self {
        Self { own: own.into(), ..Self::default() }
    }

    /// A member works on an entry.
    pub fn hear(&mut self, from: NodeId, index: u64) {
        let heard = self.heard.entry(from).or_default();
        *heard = index.max(*heard);
    }

    /// The highest entry that more than so many members were heard to work on: one of them is honest.
    pub fn supported(&self, tolerated: usize) -> u64 {
        let mut heard: Vec<u64> = self.heard.values().copied().collect();
        heard.sort_unstable();
        heard.into_iter().rev().nth(tolerated).unwrap_or(0)
    }

    /// Somebody is to be asked, at this time or when the last question has had its time.
    pub fn ask_at(&mut self, at: Tick) {
        let at = at.max(self.rest);
        self.at = Some(self.at.map_or(at, |other| other.min(at)));
    }

    /// Whom to ask: of these, the one that was asked the longest time ago, also when it is the only one that
    /// answers. Nobody is asked twice within `ms` without having answered; when that leaves nobody, the first to
    /// be free again is waited for.
    pub fn ask(&mut self, among: impl Iterator<Item = NodeId>, now: Tick, ms: u64) -> Option<NodeId> {
        let last = |node: &NodeId| self.asked.get(node).copied().unwrap_or_default();
        let node = among.min_by_key(|node| (last(node).until > now, last(node).number))?;
        let until = last(&node).until;
        if until > now {
            self.rest = until;
            return None;
        }
        self.questions += 1;
        self.rest = Tick(now.0.saturating_add(ms));
        self.asked.insert(node, Question { number: self.questions, until: self.rest });
        Some(node)
    }

    /// A question was answered with what was missing: the next one need not wait. It goes to another member all
    /// the same, so that one that answers with as little as it can holds nobody back.
    pub fn answered(&mut self, by: NodeId) {
        if let Some(question) = self.asked.get_mut(&by) {
            question.until = Tick(0);
        }
        self.rest = Tick(0);
    }

    /// Keeps a message for later, as far as there is room for its sender.
    pub fn keep_early(&mut self, from: NodeId, index: u64, message: Message) {
        let early = self.early.entry(from).or_default();
        let bytes = bytes_of(&message);
        if early.messages.len() < EARLY_MAX && early.bytes + bytes <= VALUE_BYTES_MAX {
            early.bytes += bytes;
            early.messages.push((index, message));
        }
    }

    /// Takes the messages of an index out, in the order in which each peer sent them; older ones are dropped.
    pub fn take_early(&mut self, index: u64) -> Vec<(NodeId, Message)> {
        let mut taken = Vec::new();
        for (from, early) in &mut self.early {
            let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut early.messages)
                .into_iter()
                .filter(|(at, _)| *at >= index)
                .partition(|(at, _)| *at == index);
            early.bytes = later.iter().map(|(_, message)| bytes_of(message)).sum();
            early.messages = later;
            taken.extend(now.into_iter().map(|(_, message)| (*from, message)));
        }
        self.early.retain(|_, early| !early.messages.is_empty());
        taken
    }

    /// Keeps a decided value for later, as far as there is room. Those of the next entries go first.
    pub fn keep_ahead(&mut self, decided: Decided) {
        if self.ahead.contains(&decided) {
            return;
        }
        self.ahead.push(decided);
        self.ahead.sort_by_key(|decided| decided.value.index);
        while self.ahead.len() > AHEAD_MAX
            || self.ahead.len() > 1 && self.ahead.iter().map(size).sum::<usize>() > AHEAD_BYTES_MAX
        {
            self.ahead.pop();
        }
    }

    /// Takes the decided values of an index out; older ones are dropped.
    pub fn take_ahead(&mut self, index: u64) -> Vec<Decided> {
        self.ahead.retain(|decided| decided.value.index >= index);
        let later = self.ahead.partition_point(|decided| decided.value.index == index);
        self.ahead.drain(..later).collect()
    }

    /// Whether a peer may be given a value now: once within `ms`.
    pub fn may_answer(&mut self, peer: NodeId, value: Hash32, now: Tick, ms: u64) -> bool {
        let last = self.given.get(&(peer, value));
        let may = last.is_none_or(|at| at.0.saturating_add(ms) <= now.0);
        if may {
            self.given.insert((peer, value), now);
        }
        may
    }

    /// Another index begins.
    pub fn clear(&mut self) {
        self.given.clear();
        self.at = None;
    }

    /// Messages and decided values that are kept for later.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.early.values().map(|early| early.messages.len()).sum(), self.ahead.len())
    }
}

impl Machine {
    /// Takes a value that was decided elsewhere, when its certificate and its place hold.
    pub(super) fn take_decided(&mut self, decided: Decided) -> bool {
        let desk = &self.desk;
        let cluster = desk.settings.cluster;
        let holds =
            self.committing.is_none() && desk.sound(&decided.value) && decided.verify(cluster, &desk.committee).is_ok();
        if holds {
            let id = decided.value.id();
            self.desk.remember_decision(&decided, id);
            self.commit(decided, id, 0);
        }
        holds
    }

    pub(super) fn on_decided(&mut self, from: NodeId, decided: Decided) {
        let (index, at) = (self.desk.index(), decided.value.index);
        if self.desk.committee.index_of(from).is_some() {
            self.follow.hear(from, at);
        }
        if at == index && self.committing.is_none() {
            if self.take_decided(decided) {
                self.follow.answered(from);
            }
        } else if at > index && at - index <= AHEAD_MAX as u64 {
            self.follow.keep_ahead(decided);
        }
    }

    /// Whether the member is in a group that it has no seat in, and so hears nothing by itself.
    pub(super) fn outside(&self) -> bool {
        self.desk.committee.index_of(self.desk.node()).is_none()
    }

    /// Plans to ask for decided values when others are ahead. One entry ahead is how it always is for a moment,
    /// and more than that is only believed of as many as have an honest one among them.
    pub(super) fn look_ahead(&mut self) {
        let desk = &self.desk;
        let here = desk.index() + u64::from(self.committing.is_some());
        let timing = desk.settings.timing;
        let tolerated = desk.committee.engine.tolerated(desk.committee.members.len());
        let claimed = self.follow.supported(0).saturating_sub(here).min(1);
        let ahead = self.follow.supported(tolerated).saturating_sub(here).max(claimed);
        let wait = match ahead {
            0 if self.outside() || desk.finalized.is_some() => timing.repeat_ms,
            0 => return,
            1 => timing.vote_ms,
            _ => 0,
        };
        let at = desk.later(wait);
        self.follow.ask_at(at);
    }

    /// Asks whose turn it is. While an entry is being applied nobody is asked: the entries behind it may be here
    /// already, in the same answer. The next one plans anew.
    pub(super) fn fetch(&mut self) {
        self.follow.at = None;
        if self.committing.is_some() {
            return;
        }
        let desk = &self.desk;
        let here = desk.index();
        let (now, ms, node) = (desk.now, desk.settings.timing.repeat_ms, desk.node());
        let blind = self.outside() || desk.finalized.is_some();
        let heard = self.follow.heard.clone();
        let ahead = |other: &NodeId| blind || heard.get(other).is_some_and(|heard| *heard > here);
        let members = desk.committee.members.iter().map(|member| member.node);
        let among = members.filter(|other| *other != node && ahead(other));
        if let Some(node) = self.follow.ask(among, now, ms) {
            self.desk.out.push(Output::Fetch { node, index: here });
        }
        self.look_ahead();
    }
}

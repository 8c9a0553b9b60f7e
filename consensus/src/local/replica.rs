//! One replica: inputs in, outputs out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ledger::ids::{NodeId, Tick};

use super::disk::{Change, LocalEntry, LocalLog, Persist};
use super::message::{Input, Msg, Output};
use crate::port::{Committed, Payload, Position, RoleView, Timing};

/// Entries in one append.
const APPEND_ENTRIES_MAX: usize = 64;

/// What a replica goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// This replica.
    pub id: NodeId,
    /// Who votes until the log says otherwise; nobody for a replica that joins.
    pub voters: Vec<NodeId>,
    /// Heartbeats and elections, in the milliseconds of the [`Tick`]s given to `step`.
    pub timing: Timing,
    /// Spreads election time-outs; equal seeds give equal runs.
    pub seed: u64,
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate { votes: BTreeSet<NodeId> },
    Leader { followers: BTreeMap<NodeId, Progress> },
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    next: u64,
    matched: u64,
}

/// What waits for a write to be durable.
#[derive(Debug)]
enum Waiting {
    Send(NodeId, Msg),
    OwnVote { term: u64 },
    Log { upto: u64 },
}

/// A replica as a pure state machine.
#[derive(Debug)]
pub struct LocalReplica {
    settings: LocalSettings,
    log: LocalLog,
    /// Who votes by the last entry that says so, committed or not.
    voters: Vec<NodeId>,
    /// Indices of the entries that change it.
    changes: Vec<u64>,
    /// Who gets the log beside them.
    learners: BTreeSet<NodeId>,
    role: Role,
    leader: Option<NodeId>,
    /// Known to be committed.
    commit: u64,
    /// Handed to the host.
    applied: u64,
    /// Entries that are on this replica's disk.
    durable: u64,
    election_at: Option<Tick>,
    heartbeat_at: Tick,
    sequence: u64,
    synced: u64,
    waiting: VecDeque<(u64, Waiting)>,
    shown: Option<(bool, Option<NodeId>, u64)>,
}

impl LocalReplica {
    /// A replica with what its disk holds and the index up to which its host has applied (which was
    /// committed, so it is on the disk, or in front of what is there). Emits the entries after it again.
    #[must_use]
    pub fn new(mut settings: LocalSettings, persisted: LocalLog, applied: u64) -> Self {
        settings.voters.sort_unstable();
        settings.voters.dedup();
        let durable = persisted.last_index();
        let applied = applied.clamp(persisted.base.index, durable);
        let indices = (persisted.base.index + 1..).zip(&persisted.entries);
        let changes = indices.filter(|(_, entry)| entry.voters.is_some()).map(|(index, _)| index).collect();
        let mut replica = Self {
            settings,
            log: persisted,
            voters: Vec::new(),
            changes,
            learners: BTreeSet::new(),
            role: Role::Follower,
            leader: None,
            commit: applied,
            applied,
            durable,
            election_at: None,
            heartbeat_at: Tick(0),
            sequence: 0,
            synced: 0,
            waiting: VecDeque::new(),
            shown: None,
        };
        replica.count_voters();
        replica
    }

    /// Looks up who votes by now.
    fn count_voters(&mut self) {
        self.voters = self.voters_by(self.changes.last()).to_vec();
    }

    /// Who votes by the change with this index; by what is in front of the log, if there is none.
    fn voters_by(&self, change: Option<&u64>) -> &[NodeId] {
        let changed = change.and_then(|index| self.log.entry(*index)?.voters.as_deref());
        let before = if self.log.base.voters.is_empty() { &self.settings.voters } else { &self.log.base.voters };
        changed.unwrap_or(before)
    }

    /// Takes one input. Outputs are appended to `out`.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        if self.election_at.is_none() {
            self.await_leader(now);
        }
        match input {
            Input::Tick => self.tick(now, out),
            Input::Message(from, message) if self.hears(from, &message) => {
                self.message(now, from, message, out);
            }
            Input::Message(..) => {}
            Input::Propose(batch) => self.propose(now, batch, out),
            Input::Voters(voters) => self.change_voters(now, voters, out),
            Input::Learners(learners) => {
                self.learners = learners.into_iter().collect();
                self.list_followers();
            }
            Input::Synced(upto) => self.sync(now, upto, out),
        }
        self.advance(out);
        self.show(out);
    }

    /// This replica.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    /// What it is at the moment.
    #[must_use]
    pub fn role(&self) -> RoleView {
        let replicated = match &self.role {
            Role::Leader { followers } => followers.iter().map(|(node, progress)| (*node, progress.matched)).collect(),
            Role::Follower | Role::Candidate { .. } => Vec::new(),
        };
        RoleView {
            leads: self.leads(),
            leader: self.leader,
            term: self.log.term,
            stint: 0,
            last_log_index: self.last_index(),
            applied_index: self.applied,
            voters: self.voters.clone(),
            learners: self.learners.iter().copied().filter(|learner| !self.voters.contains(learner)).collect(),
            replicated,
            stopped: None,
        }
    }

    /// As in the raft engine: a leader leads when the first entry of its term is applied.
    fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. }) && self.term_at(self.applied) == self.log.term
    }

    fn last_index(&self) -> u64 {
        self.log.last_index()
    }

    fn term_at(&self, index: u64) -> u64 {
        self.log.term_at(index)
    }

    /// Whether the last change of the voters in its log is applied here, so that most of those who vote by it have all that
    /// was ordered before: only then is nobody counted on any more who voted until then.
    #[must_use]
    pub fn voters_settled(&self) -> bool {
        self.changes.last().is_none_or(|index| *index <= self.applied)
    }

    fn is_majority(&self, count: usize) -> bool {
        count * 2 > self.voters.len()
    }

    fn votes(&self) -> bool {
        self.voters.contains(&self.settings.id)
    }

    /// Whether this replica may ask to lead: it votes, or does not by a change that may not be committed.
    /// With that change in its log it keeps its vote from those who lack it, and they may be all the others:
    /// then nobody but this replica can end it (Ongaro's thesis, §4.2.2). Its own vote does not count.
    fn stands(&self) -> bool {
        let [before @ .., last] = &self.changes[..] else { return self.votes() };
        self.votes() || (*last > self.commit && self.voters_by(before.last()).contains(&self.settings.id))
    }

    /// Whether a message counts. Who is not among the voters that this replica knows of may be one by now,
    /// or none any more: it is followed when it leads, and may get a vote once no leader is known. So
    /// whoever was removed and does not know it disturbs nobody.
    fn hears(&self, from: NodeId, message: &Msg) -> bool {
        let known = self.voters.contains(&from);
        match message {
            Msg::Append { .. } => true,
            Msg::VoteRequest { .. } => known || self.leader.is_none(),
            Msg::VoteReply { .. } => known,
            Msg::AppendReply { .. } => known || self.learners.contains(&from),
        }
    }

    fn others(&self) -> Vec<NodeId> {
        self.voters.iter().copied().filter(|voter| *voter != self.settings.id).collect()
    }

    /// To whom a leader sends.
    fn followers(&self) -> Vec<NodeId> {
        match &self.role {
            Role::Leader { followers } => followers.keys().copied().collect(),
            Role::Follower | Role::Candidate { .. } => Vec::new(),
        }
    }

    /// Keeps what a leader knows of its followers in step with voters and learners.
    fn list_followers(&mut self) {
        let (next, own) = (self.last_index() + 1, self.settings.id);
        let Role::Leader { followers } = &mut self.role else { return };
        let listed: BTreeSet<NodeId> =
            self.voters.iter().chain(&self.learners).copied().filter(|node| *node != own).collect();
        followers.retain(|node, _| listed.contains(node));
        for node in listed {
            followers.entry(node).or_insert(Progress { next, matched: 0 });
        }
    }

    /// Makes one voter more, or one less, the content of the next entry.
    fn change_voters(&mut self, now: Tick, mut voters: Vec<NodeId>, out: &mut Vec<Output>) {
        voters.sort_unstable();
        voters.dedup();
        let joining = voters.iter().filter(|voter| !self.voters.contains(voter)).count();
        let leaving = self.voters.iter().filter(|voter| !voters.contains(voter)).count();
        // Two changes at once, or one on top of what another leader may still take back, could make two
        // majorities that have nobody in common.
        let settled = self.changes.last().is_none_or(|index| *index <= self.commit);
        if self.leads() && settled && joining + leaving == 1 && !voters.is_empty() {
            self.append_own(now, None, Some(voters), out);
        }
    }

    fn await_leader(&mut self, now: Tick) {
        let timing = self.settings.timing;
        let spread = timing.election_max_ms.saturating_sub(timing.election_min_ms).max(1);
        let drawn = mix(self.settings.seed ^ mix(u64::from(self.settings.id.0)) ^ mix(self.log.term).rotate_left(1));
        self.election_at = Some(Tick(now.0 + timing.election_min_ms + drawn % spread));
    }

    fn persist(&mut self, change: Change, out: &mut Vec<Output>) {
        self.sequence += 1;
        out.push(Output::Persist(Persist { sequence: self.sequence, change }));
    }

    /// Runs when everything written so far is durable.
    fn when_durable(&mut self, now: Tick, waiting: Waiting, out: &mut Vec<Output>) {
        if self.synced == self.sequence {
            self.release(now, waiting, out);
        } else {
            self.waiting.push_back((self.sequence, waiting));
        }
    }

    fn sync(&mut self, now: Tick, upto: u64, out: &mut Vec<Output>) {
        self.synced = self.synced.max(upto.min(self.sequence));
        while let Some((sequence, _)) = self.waiting.front() {
            if *sequence > self.synced {
                return;
            }
            if let Some((_, waiting)) = self.waiting.pop_front() {
                self.release(now, waiting, out);
            }
        }
    }

    fn release(&mut self, now: Tick, waiting: Waiting, out: &mut Vec<Output>) {
        match waiting {
            Waiting::Send(to, message) => out.push(Output::Send(to, message)),
            Waiting::Log { upto } => self.durable = self.durable.max(upto),
            Waiting::OwnVote { term } if term == self.log.term => self.count_vote(now, self.settings.id, out),
            Waiting::OwnVote { .. } => {}
        }
    }

    fn set_term(&mut self, term: u64, voted_for: Option<NodeId>, out: &mut Vec<Output>) {
        self.log.term = term;
        self.log.voted_for = voted_for;
        self.persist(Change::HardState { term, voted_for }, out);
    }

    fn write_log(&mut self, now: Tick, keep: u64, entries: Vec<LocalEntry>, out: &mut Vec<Output>) {
        // What was cut off is not on the disk any more, even if an earlier write of it completes.
        self.durable = self.durable.min(keep);
        for (_, waiting) in &mut self.waiting {
            if let Waiting::Log { upto } = waiting {
                *upto = (*upto).min(keep);
            }
        }
        let before = self.changes.len();
        self.changes.retain(|index| *index <= keep);
        let taken_back = self.changes.len() != before;
        let indices = (keep + 1..).zip(&entries);
        self.changes.extend(indices.filter(|(_, entry)| entry.voters.is_some()).map(|(index, _)| index));
        let changed = taken_back || entries.iter().any(|entry| entry.voters.is_some());
        let change = Change::Append { keep, entries };
        self.log.apply(&change);
        self.persist(change, out);
        if changed {
            self.count_voters();
            self.list_followers();
        }
        let upto = self.last_index();
        self.when_durable(now, Waiting::Log { upto }, out);
    }

    fn tick(&mut self, now: Tick, out: &mut Vec<Output>) {
        if let Role::Leader { followers } = &mut self.role {
            if now < self.heartbeat_at {
                return;
            }
            // Whatever was sent and not confirmed may be lost: go back to what is confirmed.
            for progress in followers.values_mut() {
                progress.next = progress.matched + 1;
            }
            self.heartbeat_at = Tick(now.0 + self.settings.timing.heartbeat_ms);
            for follower in self.followers() {
                self.send_entries(follower, out);
            }
        } else if self.election_at.is_some_and(|at| now >= at) {
            if self.stands() {
                self.campaign(now, out);
            } else {
                self.leader = None;
                self.await_leader(now);
            }
        }
    }

    fn campaign(&mut self, now: Tick, out: &mut Vec<Output>) {
        let term = self.log.term + 1;
        self.set_term(term, Some(self.settings.id), out);
        self.role = Role::Candidate { votes: BTreeSet::new() };
        self.leader = None;
        self.await_leader(now);
        let last_index = self.last_index();
        let request = Msg::VoteRequest { term, last_index, last_term: self.term_at(last_index) };
        for voter in self.others() {
            self.when_durable(now, Waiting::Send(voter, request.clone()), out);
        }
        self.when_durable(now, Waiting::OwnVote { term }, out);
    }

    fn count_vote(&mut self, now: Tick, voter: NodeId, out: &mut Vec<Output>) {
        let Role::Candidate { votes } = &mut self.role else {
            return;
        };
        if !self.voters.contains(&voter) {
            return;
        }
        votes.insert(voter);
        let count = votes.len();
        if self.is_majority(count) {
            self.lead(now, out);
        }
    }

    fn lead(&mut self, now: Tick, out: &mut Vec<Output>) {
        // Whom the host named when this replica led before may have lost its right since.
        self.learners.clear();
        self.role = Role::Leader { followers: BTreeMap::new() };
        self.list_followers();
        self.leader = Some(self.settings.id);
        self.heartbeat_at = Tick(now.0 + self.settings.timing.heartbeat_ms);
        self.append_own(now, None, None, out);
    }

    fn append_own(&mut self, now: Tick, batch: Option<Bytes>, voters: Option<Vec<NodeId>>, out: &mut Vec<Output>) {
        let entry = LocalEntry { term: self.log.term, leader: self.settings.id, batch, voters };
        self.write_log(now, self.last_index(), vec![entry], out);
        for follower in self.followers() {
            self.send_entries(follower, out);
        }
    }

    fn propose(&mut self, now: Tick, batch: Bytes, out: &mut Vec<Output>) {
        // Behind the entry by which it takes itself out, a leader adds nothing.
        if matches!(self.role, Role::Leader { .. }) && self.votes() {
            self.append_own(now, Some(batch), None, out);
        } else {
            out.push(Output::Rejected(batch));
        }
    }

    /// Sends what a follower lacks as far as known, or a heartbeat.
    fn send_entries(&mut self, to: NodeId, out: &mut Vec<Output>) {
        let (base, last_index) = (self.log.base.index, self.last_index());
        let Role::Leader { followers } = &mut self.role else {
            return;
        };
        let Some(progress) = followers.get_mut(&to) else {
            return;
        };
        let previous_index = (progress.next - 1).clamp(base, last_index);
        let from = (previous_index - base) as usize;
        let entries: Vec<_> = self.log.entries[from..].iter().take(APPEND_ENTRIES_MAX).cloned().collect();
        progress.next = previous_index + 1 + entries.len() as u64;
        let previous_term = self.term_at(previous_index);
        let (term, commit) = (self.log.term, self.commit);
        let append = Msg::Append { term, previous_index, previous_term, entries, commit, base };
        out.push(Output::Send(to, append));
    }

    fn message(&mut self, now: Tick, from: NodeId, message: Msg, out: &mut Vec<Output>) {
        let (Msg::VoteRequest { term, .. }
        | Msg::VoteReply { term, .. }
        | Msg::Append { term, .. }
        | Msg::AppendReply { term, .. }) = &message;
        if *term > self.log.term {
            self.set_term(*term, None, out);
            self.role = Role::Follower;
            self.leader = None;
            self.await_leader(now);
        }
        let current = *term == self.log.term;
        match message {
            Msg::VoteRequest { last_index, last_term, .. } => {
                let granted = current && self.vote_for(now, from, last_index, last_term, out);
                let reply = Msg::VoteReply { term: self.log.term, granted };
                self.when_durable(now, Waiting::Send(from, reply), out);
            }
            Msg::VoteReply { granted, .. } if current && granted => self.count_vote(now, from, out),
            Msg::VoteReply { .. } => {}
            Msg::Append { previous_index, previous_term, entries, commit, base, .. } if current => {
                self.follow(now, from, previous_index, previous_term, entries, commit, base, out);
            }
            Msg::Append { .. } => {
                let reply = Msg::AppendReply { term: self.log.term, matched: false, index: self.last_index() };
                self.when_durable(now, Waiting::Send(from, reply), out);
            }
            Msg::AppendReply { matched, index, .. } if current => self.confirmed(from, matched, index, out),
            Msg::AppendReply { .. } => {}
        }
    }

    fn vote_for(&mut self, now: Tick, from: NodeId, last_index: u64, last_term: u64, out: &mut Vec<Output>) -> bool {
        let own_last = self.last_index();
        let up_to_date = (last_term, last_index) >= (self.term_at(own_last), own_last);
        let free = self.log.voted_for.is_none_or(|voted| voted == from);
        if !up_to_date || !free {
            return false;
        }
        if self.log.voted_for.is_none() {
            self.set_term(self.log.term, Some(from), out);
        }
        self.await_leader(now);
        true
    }

    fn follow(
        &mut self,
        now: Tick,
        leader: NodeId,
        previous_index: u64,
        previous_term: u64,
        entries: Vec<LocalEntry>,
        commit: u64,
        base: u64,
        out: &mut Vec<Output>,
    ) {
        if matches!(self.role, Role::Leader { .. }) {
            // There is one leader in a term; this is not a message of our protocol.
            return;
        }
        self.role = Role::Follower;
        self.leader = Some(leader);
        self.await_leader(now);
        let term = self.log.term;
        if previous_index < self.log.base.index {
            // What is in front of our log is committed, so the leader has the same.
            let reply = Msg::AppendReply { term, matched: true, index: self.log.base.index };
            self.when_durable(now, Waiting::Send(leader, reply), out);
            return;
        }
        let fits = previous_index <= self.last_index() && self.term_at(previous_index) == previous_term;
        if !fits && previous_index == base {
            out.push(Output::Lacking(leader));
            return;
        }
        if !fits {
            let index = self.last_index().min(previous_index.saturating_sub(1)).max(self.commit);
            let reply = Msg::AppendReply { term, matched: false, index };
            self.when_durable(now, Waiting::Send(leader, reply), out);
            return;
        }
        let end = previous_index + entries.len() as u64;
        let known =
            (previous_index + 1..).zip(&entries).take_while(|(index, entry)| self.term_at(*index) == entry.term);
        let known = known.count();
        let keep = previous_index + known as u64;
        if known < entries.len() {
            if keep < self.commit {
                // Would take back what is committed: no leader of this protocol sends it.
                return;
            }
            self.write_log(now, keep, entries[known..].to_vec(), out);
        }
        self.commit = self.commit.max(commit.min(end));
        self.when_durable(now, Waiting::Send(leader, Msg::AppendReply { term, matched: true, index: end }), out);
    }

    fn confirmed(&mut self, from: NodeId, matched: bool, index: u64, out: &mut Vec<Output>) {
        let last_index = self.last_index();
        let Role::Leader { followers } = &mut self.role else {
            return;
        };
        let Some(progress) = followers.get_mut(&from) else {
            return;
        };
        if matched {
            progress.matched = progress.matched.max(index.min(last_index));
            progress.next = progress.next.max(progress.matched + 1);
            if progress.next <= last_index {
                self.send_entries(from, out);
            }
        } else if index < progress.next {
            progress.next = (index + 1).clamp(progress.matched + 1, last_index + 1);
            self.send_entries(from, out);
        }
    }

    /// Moves the commit index (paper §5.4.2: only by entries of the own term) and hands out what is
    /// committed and on the own disk, so that the host's state is never ahead of the log.
    fn advance(&mut self, out: &mut Vec<Output>) {
        if let Role::Leader { followers } = &self.role {
            let held = |voter: &NodeId| match followers.get(voter) {
                None if *voter == self.settings.id => self.durable,
                progress => progress.map_or(0, |progress| progress.matched),
            };
            let mut held: Vec<u64> = self.voters.iter().map(held).collect();
            held.sort_unstable_by(|a, b| b.cmp(a));
            let by_majority = held[held.len() / 2];
            if by_majority > self.commit && self.term_at(by_majority) == self.log.term {
                self.commit = by_majority;
            }
        }
        while self.applied < self.commit.min(self.durable) {
            let index = self.applied + 1;
            let Some(entry) = self.log.entry(index) else {
                return;
            };
            let position = Position { term: entry.term, leader: u64::from(entry.leader.0), index };
            let payload = match (&entry.voters, &entry.batch) {
                (Some(voters), _) => {
                    let bytes = borsh::to_vec(voters).expect("writing to memory does not fail");
                    Payload::Membership(Bytes::from(bytes))
                }
                (None, Some(batch)) => Payload::Batch(batch.clone()),
                (None, None) => Payload::Blank,
            };
            out.push(Output::Committed(Committed { position, payload, note: None }));
            self.applied = index;
        }
        // Whoever has taken itself out leads until that is committed.
        let out_for_good = !self.votes() && self.changes.last().is_none_or(|index| *index <= self.commit);
        if out_for_good && matches!(self.role, Role::Leader { .. }) {
            self.role = Role::Follower;
            self.leader = None;
        }
    }

    fn show(&mut self, out: &mut Vec<Output>) {
        let now = (self.leads(), self.leader, self.log.term);
        if self.shown != Some(now) {
            self.shown = Some(now);
            out.push(Output::Role(self.role()));
        }
    }
}

/// Spreads the bits of a number (splitmix64).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

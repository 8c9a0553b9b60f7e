//! The rules of the commit protocol as steps of one system: DESIGN §7 and `docs/protocol-commit.md`.
//! Owns every transition, and where a `Variant` bends it. One step is one apply of one group.
//!
//! **The wire.** Everything that was ever sent may arrive at any time, any number of times, in any
//! order, or never. So the wire needs no state: a bundle is any piece `log[first..end]` of a stream,
//! and an acknowledgement any cursor that the destination has had. That includes all loss,
//! duplication and reordering, and a little more: pieces that no source can have sent as one. When
//! faults end (`is_calm`), all that is on the wire counts as lost, and mail comes from outboxes alone.
//!
//! **The router** may hand the transaction over to any group at any time, any number of times, with
//! the openings. Calm steps have no router: from each state on, they are its death at that moment.

use std::fmt;

use stateright::{Model, Property};

use crate::properties;
use crate::shape::{Acks, GROUPS, Shape};
use crate::state::{Clock, Decision, Group, Message, Outcome, State, Stream};
use crate::variants::Variant;

/// One step. Where a group may decide either way, the decision is part of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A router, or any authorised caller, brings the transaction with its openings.
    HandOver { to: usize, vote: Decision },
    /// Block time of a group passes the next deadline.
    Tick { group: usize },
    /// A group that waits for openings votes NO because its block time is past `valid_until`.
    Deadline { group: usize },
    /// A bundle `log[first..end]` is sequenced; `vote` is what the group writes in the same apply.
    Deliver { from: usize, to: usize, first: u8, end: u8, vote: Option<Decision> },
    /// The source sequences a proof of the destination's cursor.
    Acknowledge { from: usize, to: usize, cursor: u8 },
    /// Only with `Acks::Together`: proofs of the cursors of all destinations.
    AcknowledgeAll { from: usize },
    /// The outcome takes effect.
    Resolve { group: usize, outcome: Outcome },
    /// The register goes.
    Drop { group: usize },
    /// Only with `Variant::CursorApart`: the cursor is stored.
    StoreCursor { from: usize, to: usize },
    /// Only with `Variant::CursorApart`: what was not stored is lost.
    Crash { from: usize, to: usize },
}

/// The protocol on one shape, to the letter or with one rule broken.
#[derive(Clone, Debug)]
pub struct Commit {
    pub shape: Shape,
    pub variant: Option<Variant>,
    parts: Vec<usize>,
}

impl Commit {
    pub fn new(shape: Shape, variant: Option<Variant>) -> Self {
        Self { shape, variant, parts: shape.parts() }
    }

    fn bends(&self, variant: Variant) -> bool {
        self.variant == Some(variant)
    }

    fn voters(&self) -> std::ops::Range<usize> {
        0..self.shape.voters
    }

    /// Whether the step needs no router and no fault, and is owed: by a group, by a clock, or by an
    /// anchor that carries what is in an outbox.
    pub fn is_calm(&self, state: &State, step: &Step) -> bool {
        match *step {
            Step::HandOver { .. } | Step::Crash { .. } => false,
            Step::Deliver { from, to, first, .. } => first >= state.streams[from][to].acked,
            Step::Tick { .. }
            | Step::Deadline { .. }
            | Step::Acknowledge { .. }
            | Step::AcknowledgeAll { .. }
            | Step::Resolve { .. }
            | Step::Drop { .. }
            | Step::StoreCursor { .. } => true,
        }
    }

    /// `None` when the step is refused. One that has no effect leaves the state as it is.
    fn take(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::HandOver { to, vote } => self.hand_over(state, to, vote),
            Step::Tick { group } => self.tick(&mut state.groups[group]),
            Step::Deadline { group } => self.deadline(state, group),
            Step::Deliver { from, to, first, end, vote } => self.deliver(state, from, to, first, end, vote),
            Step::Acknowledge { from, to, cursor } => self.acknowledge(state, from, to, cursor),
            Step::AcknowledgeAll { from } => self.acknowledge_all(state, from),
            Step::Resolve { group, outcome: Outcome::Commit } => self.commit(state, group),
            Step::Resolve { group, outcome: Outcome::Abort } => self.abort(state, group),
            Step::Drop { group } => self.drop_register(state, group),
            Step::StoreCursor { from, to } => {
                let stream = &mut state.streams[from][to];
                stream.cursor = stream.unsaved.take()?;
                Some(())
            }
            Step::Crash { from, to } => state.streams[from][to].unsaved.take().map(drop),
        }
    }

    fn hand_over(&self, state: &mut State, to: usize, vote: Decision) -> Option<()> {
        let group = &state.groups[to];
        match (group.register, group.clock) {
            (None, Clock::Before) => {}
            // The group may also refuse and write nothing, which is no step.
            (None, Clock::Late) if vote == Decision::No => {}
            (None, Clock::Gone) if self.bends(Variant::LateHandover) => {}
            (Some(Decision::No), Clock::Before) if self.bends(Variant::Revote) && vote == Decision::Yes => {}
            // A register answers for itself; without one, the transaction is refused as expired.
            _ => return None,
        }
        self.write(state, to, vote)
    }

    fn tick(&self, group: &mut Group) -> Option<()> {
        group.clock = match group.clock {
            Clock::Before if self.shape.grace => Clock::Late,
            Clock::Before | Clock::Late => Clock::Gone,
            Clock::Gone => return None,
        };
        Some(())
    }

    fn deadline(&self, state: &mut State, group: usize) -> Option<()> {
        let Group { register, votes, clock, .. } = state.groups[group];
        let waits = self.shape.hidden[group] && register.is_none() && votes.iter().any(Option::is_some);
        let writes = waits && clock >= Clock::Late && !self.bends(Variant::NoDeadline);
        writes.then_some(())?;
        self.write(state, group, Decision::No)
    }

    fn deliver(
        &self,
        state: &mut State,
        from: usize,
        to: usize,
        first: u8,
        end: u8,
        mut vote: Option<Decision>,
    ) -> Option<()> {
        let stream = state.streams[from][to];
        let cursor = stream.taken();
        if first > cursor {
            return None; // a gap
        }
        let fresh = if self.bends(Variant::NoCursor) { first } else { cursor };
        for seq in fresh..end {
            match stream.log.get(seq) {
                Message::Vote(decision) => self.take_vote(state, from, to, decision, &mut vote)?,
                Message::Credit => state.credited[from] = (state.credited[from] + 1).min(2),
            }
        }
        if vote.is_some() {
            return None; // nothing in the bundle asked for a vote
        }
        let taken = cursor.max(end);
        let stream = &mut state.streams[from][to];
        if self.bends(Variant::CursorApart) {
            stream.unsaved = (taken > stream.cursor).then_some(taken);
        } else {
            stream.cursor = taken;
            if self.shape.acks == Acks::AtOnce {
                stream.acked = taken;
            }
        }
        Some(())
    }

    /// Takes one `Vote`, with `choice` for a group that has not voted.
    fn take_vote(
        &self,
        state: &mut State,
        from: usize,
        to: usize,
        decision: Decision,
        choice: &mut Option<Decision>,
    ) -> Option<()> {
        let group = &mut state.groups[to];
        group.past.late_vote |= group.past.dropped;
        if self.bends(Variant::LateVoteIgnored) && group.register.is_none() && group.clock == Clock::Gone {
            return Some(());
        }
        let known = &mut group.votes[from];
        *known = known.or(Some(decision));
        if group.register.is_some() {
            return Some(());
        }
        let before = group.clock == Clock::Before;
        if !self.shape.hidden[to] {
            if self.bends(Variant::NoVoteOnMail) {
                return Some(());
            }
            return match choice.take()? {
                // After a NO, YES is pointless and still harmless: groups may do either.
                Decision::Yes if !before => None,
                vote => self.write(state, to, vote),
            };
        }
        match choice.take() {
            None => Some(()), // waits for the openings, or for `Step::Deadline`
            Some(Decision::No) if decision == Decision::No || !before => self.write(state, to, Decision::No),
            Some(_) => None,
        }
    }

    /// Writes a register and mails the vote to every other voter. A YES places its hold.
    fn write(&self, state: &mut State, group: usize, vote: Decision) -> Option<()> {
        let own = &mut state.groups[group];
        own.past.rewritten |= own.register.is_some();
        if vote == Decision::Yes {
            let pays = i8::from(self.shape.pays[group].is_some());
            (own.posted - own.held * pays >= pays).then_some(())?;
            own.held += 1;
        }
        own.register = Some(vote);
        own.outcome = None;
        own.votes[group] = Some(vote);
        for other in self.voters().filter(|&other| other != group) {
            state.streams[group][other].log.push(Message::Vote(vote))?;
        }
        if self.bends(Variant::CreditAtYes) && vote == Decision::Yes {
            self.emit_credit(state, group)?;
        }
        Some(())
    }

    fn emit_credit(&self, state: &mut State, group: usize) -> Option<()> {
        match self.shape.pays[group] {
            Some(payee) => state.streams[group][payee].log.push(Message::Credit),
            None => Some(()),
        }
    }

    fn acknowledge(&self, state: &mut State, from: usize, to: usize, cursor: u8) -> Option<()> {
        let stream = &mut state.streams[from][to];
        let proved = if self.bends(Variant::AckUntaken) { stream.log.len() } else { stream.cursor };
        (self.shape.acks == Acks::Apart && stream.acked < cursor && cursor <= proved).then_some(())?;
        stream.acked = cursor;
        Some(())
    }

    fn acknowledge_all(&self, state: &mut State, from: usize) -> Option<()> {
        let taken = self.votes_are_below(state, from, |stream| stream.cursor);
        (self.shape.acks == Acks::Together && taken).then_some(())?;
        for stream in &mut state.streams[from] {
            stream.acked = stream.cursor;
        }
        Some(())
    }

    /// Whether all votes of a group lie below a position in each of its streams.
    fn votes_are_below(&self, state: &State, group: usize, position: impl Fn(&Stream) -> u8) -> bool {
        self.voters().filter(|&peer| peer != group).all(|peer| {
            let stream = &state.streams[group][peer];
            let mut votes = stream.log.messages().filter(|(_, message)| matches!(message, Message::Vote(_)));
            votes.all(|(seq, _)| seq < position(stream))
        })
    }

    fn commit(&self, state: &mut State, group: usize) -> Option<()> {
        let own = &mut state.groups[group];
        let all_yes = self.voters().all(|voter| own.votes[voter] == Some(Decision::Yes));
        (own.register.is_some() && own.outcome.is_none() && all_yes).then_some(())?;
        own.outcome = Some(Outcome::Commit);
        own.held -= 1;
        own.posted -= i8::from(self.shape.pays[group].is_some());
        own.past.committed = true;
        if self.bends(Variant::CreditAtYes) { Some(()) } else { self.emit_credit(state, group) }
    }

    fn abort(&self, state: &mut State, group: usize) -> Option<()> {
        let own = state.groups[group];
        let mut reason = own.votes.contains(&Some(Decision::No));
        if own.register == Some(Decision::Yes) {
            reason |= self.bends(Variant::Alone) && own.clock >= Clock::Late;
            reason |= self.bends(Variant::Absence)
                && self.voters().any(|peer| own.votes[peer].is_none() && state.groups[peer].clock >= Clock::Late);
        }
        (own.register.is_some() && own.outcome.is_none() && reason).then_some(())?;
        let own = &mut state.groups[group];
        own.outcome = Some(Outcome::Abort);
        own.held -= i8::from(own.register == Some(Decision::Yes));
        own.past.aborted = true;
        Some(())
    }

    fn drop_register(&self, state: &mut State, group: usize) -> Option<()> {
        let own = state.groups[group];
        let received = self.voters().all(|voter| own.votes[voter].is_some());
        let acknowledged = self.votes_are_below(state, group, |stream| stream.acked);
        let applied = own.outcome.is_some();
        let past = own.clock == Clock::Gone;
        let may = match self.variant {
            Some(Variant::DropEarly) => applied,
            Some(Variant::DropUnreceived) => acknowledged && applied && past,
            Some(Variant::DropUnacknowledged) => received && applied && past,
            Some(Variant::DropUnapplied) => received && acknowledged && past,
            Some(Variant::DropUnexpired) => received && acknowledged && applied,
            _ => received && acknowledged && applied && past,
        };
        (own.register.is_some() && may).then_some(())?;
        let own = &mut state.groups[group];
        own.register = None;
        own.outcome = None;
        own.votes = Default::default();
        own.past.dropped = true;
        Some(())
    }

    /// Bundles of a stream, each with every vote that the destination might have to write.
    fn bundles(&self, state: &State, from: usize, to: usize, steps: &mut Vec<Step>) {
        let log = state.streams[from][to].log;
        let may_vote = to < self.shape.voters && state.groups[to].register.is_none();
        for first in 0..log.len() {
            for end in first + 1..=log.len() {
                steps.push(Step::Deliver { from, to, first, end, vote: None });
                if may_vote {
                    for vote in [Decision::Yes, Decision::No] {
                        steps.push(Step::Deliver { from, to, first, end, vote: Some(vote) });
                    }
                }
            }
        }
    }
}

/// As in the table of `docs/protocol-commit.md`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Step::HandOver { to, vote } => write!(f, "hand-over {to} {vote}"),
            Step::Tick { group } => write!(f, "tick {group}"),
            Step::Deadline { group } => write!(f, "deadline {group} {}", Decision::No),
            Step::Deliver { from, to, first, end, vote } => {
                write!(f, "mail {from}→{to} [{first},{end})")?;
                vote.map_or(Ok(()), |vote| write!(f, " {vote}"))
            }
            Step::Acknowledge { from, to, cursor } => write!(f, "ack {from}→{to} {cursor}"),
            Step::AcknowledgeAll { from } => write!(f, "acks {from}"),
            Step::Resolve { group, outcome: Outcome::Commit } => write!(f, "commit {group}"),
            Step::Resolve { group, outcome: Outcome::Abort } => write!(f, "abort {group}"),
            Step::Drop { group } => write!(f, "drop {group}"),
            Step::StoreCursor { from, to } => write!(f, "store {from}→{to}"),
            Step::Crash { from, to } => write!(f, "crash {from}→{to}"),
        }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variant {
            None => write!(f, "{}", self.shape),
            Some(variant) => write!(f, "{variant:?}, {}", self.shape),
        }
    }
}

impl Model for Commit {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial(&self.shape)]
    }

    /// Candidates; what a group refuses is sorted out by `next_state`.
    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for group in self.voters() {
            steps.push(Step::Tick { group });
            for vote in [Decision::Yes, Decision::No] {
                steps.push(Step::HandOver { to: group, vote });
            }
            steps.push(Step::Deadline { group });
            for outcome in [Outcome::Commit, Outcome::Abort] {
                steps.push(Step::Resolve { group, outcome });
            }
            steps.push(Step::Drop { group });
            steps.push(Step::AcknowledgeAll { from: group });
            for to in 0..GROUPS {
                let stream = state.streams[group][to];
                self.bundles(state, group, to, steps);
                for cursor in 1..=stream.log.len() {
                    steps.push(Step::Acknowledge { from: group, to, cursor });
                }
                if stream.unsaved.is_some() {
                    steps.push(Step::StoreCursor { from: group, to });
                    steps.push(Step::Crash { from: group, to });
                }
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = *last;
        self.take(&mut next, step)?;
        if next == *last {
            return None;
        }
        Some(if self.shape.renaming { next.representative(&self.parts) } else { next })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

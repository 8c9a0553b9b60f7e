//! One group's part of a story, as a list of events in the order of its chain.

use ledger::{GroupId, Height, Slot, TimeMs};
use proto::views::{BlockPoint, Explain, OwnVote, PreparedView, ReceivedVote, SentMail};
use serde::Serialize;

use super::legs::{hold, sentence};
use super::{Arrival, Facts, Reason};

/// What one group did.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStory {
    /// The group.
    pub group: String,
    /// Whether it votes; a group that does not is only credited.
    pub votes: bool,
    /// Its part in words: the moves that it votes on.
    pub about: Vec<String>,
    /// Block that the answer stands at.
    pub at_height: u64,
    /// The group has no leader; one of its replicas answered.
    pub stale: bool,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<String>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// One thing that happened in a group.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// `prepare`, `vote`, `hold`, `mail`, `heard`, `resolve`, `credit` or `forget`.
    pub kind: &'static str,
    /// YES or NO, for votes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yes: Option<bool>,
    /// The block; absent for what lies in the block of the event above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// From the moment a group first saw the transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<i64>,
    /// What happened, in words.
    pub text: String,
    /// Why, for a NO.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For mail: which group it went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest: Option<String>,
    /// For mail: its number in that stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// For mail: the destination has proved that it took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<bool>,
    /// What it brought about in the same block.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<Event>,
}

impl Event {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            yes: None,
            height: None,
            time_ms: None,
            after_ms: None,
            text: text.into(),
            reason: None,
            dest: None,
            seq: None,
            taken: None,
            with: Vec::new(),
        }
    }
}

/// Puts events at their place in time.
struct Teller<'a> {
    facts: &'a Facts<'a>,
    first_seen: Option<TimeMs>,
}

/// Each group's part: the voters first, in their order, then those that are only credited.
pub(super) fn tell_all(facts: &Facts<'_>, voters: &[GroupId], first_seen: Option<TimeMs>) -> Vec<GroupStory> {
    let teller = Teller { facts, first_seen };
    let mut groups: Vec<GroupId> = voters.to_vec();
    let others = facts.answers.iter().map(|answer| answer.group);
    for group in others.chain(facts.arrivals.iter().map(|arrival| arrival.group)) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let told = groups.iter().map(|group| teller.group(*group, voters.contains(group)));
    // A group that has no part and merely did not answer is worth a line only where it might have one.
    told.filter(|story| story.votes || !story.events.is_empty()).collect()
}

impl Teller<'_> {
    fn at(&self, event: Event, height: Height, time_ms: TimeMs) -> Event {
        let after = self.first_seen.map(|from| time_ms.0 as i64 - from.0 as i64);
        Event { height: Some(height.0), time_ms: Some(time_ms.0), after_ms: after, ..event }
    }

    fn point(&self, event: Event, at: BlockPoint) -> Event {
        self.at(event, at.height, at.time_ms)
    }

    fn group(&self, group: GroupId, votes: bool) -> GroupStory {
        let answer = self.facts.answers.iter().find(|answer| answer.group == group);
        let mut events = Vec::new();
        if let Some(answer) = answer {
            match &answer.prepared {
                Some(prepared) => self.prepared(answer, prepared, &mut events),
                None => events.extend(self.decided_alone(answer)),
            }
        }
        for arrival in self.facts.arrivals.iter().filter(|arrival| arrival.group == group) {
            events.push(self.arrival(arrival));
        }
        events.sort_by_key(|event| event.height);
        GroupStory {
            group: group.to_string(),
            votes,
            about: self.about(answer),
            at_height: answer.map_or(0, |answer| answer.height.0),
            stale: answer.is_some_and(|answer| answer.stale),
            unanswered: answer.and_then(|answer| answer.unanswered.as_ref()).map(|why| {
                if why.detail.is_empty() { why.code.clone() } else { format!("{}: {}", why.code, why.detail) }
            }),
            events,
        }
    }

    /// The moves that a group votes on.
    fn about(&self, answer: Option<&Explain>) -> Vec<String> {
        let (Some(tx), Some(answer)) = (self.facts.tx, answer) else { return Vec::new() };
        let all = || (0u16..).zip(&tx.body.slots);
        let slots: Vec<u16> = match (&answer.prepared, &answer.receipt) {
            (Some(PreparedView { own: Some(own), .. }), _) => own.legs.iter().map(|leg| leg / 2).collect(),
            // It has not voted, so what it waits for is the move that is hidden for it.
            (Some(_), _) => {
                let hidden = |slot: &Slot| matches!(slot, Slot::Hidden { group, .. } if *group == answer.group);
                all().filter(|(_, slot)| hidden(slot)).map(|(at, _)| at).collect()
            }
            (None, Some(_)) => all().map(|(at, _)| at).collect(),
            (None, None) => Vec::new(),
        };
        let mut lines: Vec<String> = slots.into_iter().map(|slot| sentence(tx, slot, self.facts.labels)).collect();
        lines.dedup();
        lines
    }

    fn prepared(&self, answer: &Explain, prepared: &PreparedView, events: &mut Vec<Event>) {
        let caused_by = first_heard(prepared);
        let how = match caused_by {
            Some(group) => format!("by the vote of {group}"),
            None => "handed over by a client".to_owned(),
        };
        events.push(self.point(Event::new("prepare", how), prepared.seen));
        let own_at = prepared.own.as_ref().map(|own| own.at.height);
        // A vote that made this group vote came first within their block.
        let before = |vote: &&ReceivedVote| match own_at {
            None => true,
            Some(own) => vote.at.height < own || (vote.at.height == own && caused_by.is_some()),
        };
        let heard = |vote: &ReceivedVote| self.heard(vote);
        events.extend(prepared.received.iter().filter(before).map(heard));
        events.extend(prepared.own.as_ref().map(|own| self.vote(answer, prepared, own)));
        events.extend(prepared.received.iter().filter(|vote| !before(vote)).map(heard));
        if let Some((at, posted)) = prepared.resolved {
            events.push(self.resolve(answer, at, posted));
        }
        if let Some(at) = prepared.dropped {
            events.push(
                self.point(Event::new("forget", "the register is dropped; what is shown here stays as history"), at),
            );
        }
    }

    fn heard(&self, vote: &ReceivedVote) -> Event {
        let text = match vote.no {
            None => format!("of {}", vote.group),
            Some(no) => format!("of {}: {}", vote.group, no.code()),
        };
        self.point(Event { yes: Some(vote.no.is_none()), ..Event::new("heard", text) }, vote.at)
    }

    fn vote(&self, answer: &Explain, prepared: &PreparedView, own: &OwnVote) -> Event {
        let mut event = Event { yes: Some(own.no.is_none()), ..Event::new("vote", "") };
        match own.no {
            Some(no) => {
                no.code().clone_into(&mut event.text);
                event.reason = Some(Reason::of(answer.group, no));
            }
            None => {
                if first_heard(prepared).is_some() && prepared.handed_over {
                    let what = if prepared.opened.is_empty() { "it" } else { "its opening" };
                    event.text = format!("once {what} was handed over");
                }
                event.with.extend(self.holds(prepared, own));
            }
        }
        let votes =
            own.sent.iter().map(|mail| letter("its vote", mail, mail.taken || self.heard_at(mail.dest, answer.group)));
        event.with.extend(votes);
        self.point(event, own.at)
    }

    fn holds(&self, prepared: &PreparedView, own: &OwnVote) -> Vec<Event> {
        let Some(tx) = self.facts.tx else { return Vec::new() };
        let now = |pinned: bool| match (prepared.resolved, pinned) {
            (None, false) => "held until the outcome is known",
            (None, true) => "so until the outcome is known",
            (Some((_, true)), false) => "held, then used",
            (Some((_, false)), false) => "held, then set free",
            (Some(_), true) => "so until the outcome was known",
        };
        let holds = own.legs.iter().filter_map(|leg| hold(tx, *leg, self.facts.labels));
        holds.map(|(what, pinned)| Event::new("hold", format!("{what}: {}", now(pinned)))).collect()
    }

    /// Whether a group says itself that it has heard another one's vote, which it may before that is
    /// proved to the sender.
    fn heard_at(&self, at: GroupId, of: GroupId) -> bool {
        let prepared =
            self.facts.answers.iter().find(|answer| answer.group == at).and_then(|answer| answer.prepared.as_ref());
        prepared.is_some_and(|prepared| prepared.received.iter().any(|vote| vote.group == of))
    }

    fn credits(&self, answer: &Explain) -> impl Iterator<Item = Event> {
        answer.credits.iter().map(|mail| letter("a credit", mail, super::taken(self.facts, mail)))
    }

    fn resolve(&self, answer: &Explain, at: BlockPoint, posted: bool) -> Event {
        let mut event =
            Event::new("resolve", if posted { "committed: all said yes" } else { "aborted: nothing changed" });
        event.with.extend(self.credits(answer));
        self.point(event, at)
    }

    /// The one event of a group that decides alone.
    fn decided_alone(&self, answer: &Explain) -> Option<Event> {
        let receipt = answer.receipt.as_ref()?;
        let mut event = match receipt.reason() {
            None => Event { yes: Some(true), ..Event::new("execute", "committed: decided by this group alone") },
            Some(no) => Event {
                yes: Some(false),
                reason: Some(Reason::of(answer.group, no)),
                ..Event::new("execute", format!("rejected: {}", no.code()))
            },
        };
        event.with.extend(self.credits(answer));
        Some(self.at(event, receipt.height, receipt.time_ms))
    }

    fn arrival(&self, arrival: &Arrival) -> Event {
        let labels = self.facts.labels;
        let (account, amount) = (labels.account(&arrival.account), labels.amount(arrival.amount, &arrival.asset));
        let text = if arrival.suspended {
            format!("{account} is frozen: {amount} wait in its suspense")
        } else {
            format!("{account} receives {amount}")
        };
        self.at(Event::new("credit", text), arrival.height, arrival.time_ms)
    }
}

/// The group whose vote made this one see the transaction, rather than a client.
fn first_heard(prepared: &PreparedView) -> Option<GroupId> {
    let first = prepared.received.first().filter(|first| first.at == prepared.seen)?;
    let own_at = prepared.own.as_ref().map(|own| own.at);
    // Handed over in the block of its vote: the vote that it heard in the same block came later.
    let by_client = prepared.handed_over && own_at == Some(prepared.seen);
    (!by_client).then_some(first.group)
}

fn letter(what: &str, mail: &SentMail, taken: bool) -> Event {
    let fate = if taken { "taken" } else { "on its way" };
    Event {
        dest: Some(mail.dest.to_string()),
        seq: Some(mail.seq),
        taken: Some(taken),
        ..Event::new("mail", format!("{what} to {}, no. {}: {fate}", mail.dest, mail.seq))
    }
}

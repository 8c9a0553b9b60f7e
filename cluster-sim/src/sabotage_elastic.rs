//! Bugs about shards that are cut and joined: of the machine that takes a change of the layout, of the beacon that makes
//! it, and of the first state of a child.

use beacon::Phase;
use beacon::jobs::{self, Job};
use beacon::registry;
use beacon::seats::joining;
use cross_shard::bundle::Bundle;
use cross_shard::commit::Prepared;
use cross_shard::{ClosedStream, Ended, Message, Reshaped, route, stream};
use ledger::certificate::Certificate;
use ledger::ids::{GroupId, GroupKind, TimeMs};
use ledger::machine::{BlockContext, Machine};
use ledger::schema;
use ledger::view::View;
use shard_node::core::entry::Command;
use shard_node::core::machine::{BlockWork, CommandOutcome};
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use super::Sabotage;
use crate::state;

/// Applies a command with the bug; `None` where the bug changes nothing about it.
pub(super) fn apply(
    sabotage: Sabotage,
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    command: &Command,
) -> Option<CommandOutcome> {
    let beacon = at.group == GroupId::BEACON;
    match (sabotage, command) {
        (Sabotage::TakenIgnored | Sabotage::ReaddressTwice, Command::Deliver(bytes)) => deliver(
            work,
            view,
            at,
            bytes,
            |message| matches!(message, Message::Reshaped(_)),
            |work, view, message| match (sabotage, message) {
                (Sabotage::TakenIgnored, Message::Reshaped(told)) => {
                    let ended = told.ended.iter().map(|ended| Ended { taken: 0, ..*ended }).collect();
                    work.receive(view, at, GroupId::BEACON, Message::Reshaped(Reshaped { ended, ..told }));
                }
                (_, Message::Reshaped(told)) => {
                    let left = not_taken(view, &told);
                    work.receive(view, at, GroupId::BEACON, Message::Reshaped(told));
                    pass_on(work, view, at, left);
                }
                (_, other) => work.receive(view, at, GroupId::BEACON, other),
            },
        ),
        (Sabotage::CursorKept, Command::Deliver(bytes)) => {
            let bundle: Bundle = borsh::from_slice(bytes).ok()?;
            let mut messages = bundle.messages.iter().filter_map(|message| borsh::from_slice::<Message>(message).ok());
            if !messages.any(|message| matches!(message, Message::Reshaped(_))) {
                return None;
            }
            let cursors = view.scan_prefix(schema::INBOX_PREFIX);
            let outcome = work.apply(view, at, command);
            for (key, cursor) in cursors {
                if view.get(&key).is_none() {
                    view.put(key, cursor);
                }
            }
            Some(outcome)
        }
        (Sabotage::SealForGood, Command::Deliver(bytes)) => deliver(
            work,
            view,
            at,
            bytes,
            |message| matches!(message, Message::Unseal(_)),
            |work, view, message| {
                if !matches!(message, Message::Unseal(_)) {
                    work.receive(view, at, GroupId::BEACON, message);
                }
            },
        ),
        (Sabotage::VoteUnrestricted, Command::Deliver(bytes)) => {
            let source = borsh::from_slice::<Bundle>(bytes).ok()?.source;
            deliver(
                work,
                view,
                at,
                bytes,
                |message| matches!(message, Message::Closed(_)),
                |work, view, message| {
                    let left = if let Message::Closed(told) = &message {
                        votes_of(view, told.source, told.dest, told.taken)
                    } else {
                        Vec::new()
                    };
                    work.receive(view, at, source, message);
                    pass_on(work, view, at, left);
                },
            )
        }
        (Sabotage::TwoSealing, Command::Report(_) | Command::Registry(_)) if beacon => {
            let sealing: Vec<Job> = jobs::jobs(view).into_iter().filter(|job| job.phase == Phase::Sealing).collect();
            let hidden = |job: &Job| Job { phase: Phase::Committed, ..job.clone() };
            for job in &sealing {
                view.store(jobs::job_key(job.id), &hidden(job));
            }
            let outcome = work.apply(view, at, command);
            for job in &sealing {
                if jobs::job(view, job.id) == Some(hidden(job)) {
                    view.store(jobs::job_key(job.id), job);
                }
            }
            Some(outcome)
        }
        (Sabotage::SeatBeforeState, Command::Checkpoint(bytes)) if beacon => {
            let certificate: Certificate = borsh::from_slice(bytes).ok()?;
            let group = certificate.header.group;
            let (current, coming) = (registry::committee(view, group)?, registry::coming_of(view, group)?);
            let shown = group.kind() != Some(GroupKind::Shard) || joining(&current, &coming).is_empty();
            if shown || certificate.verify(&current).is_err() {
                return None;
            }
            let hash = coming.hash();
            view.delete(registry::coming_key(group));
            view.store(registry::committee_key(group, &hash), &coming);
            view.store(registry::current_key(group), &hash);
            let shards: Vec<GroupId> = registry::layout(view)?.shards.iter().map(|shard| shard.group).collect();
            for dest in shards {
                stream::emit(view, dest, Message::CommitteeUpdate(coming.clone()).encode());
            }
            None
        }
        (Sabotage::OrdinalReused, Command::Report(_) | Command::Registry(_)) if beacon => {
            // The number of the next shard, as if only the layout said it.
            let key = jobs::counters_key();
            if let Some((version, job, _, since)) = view.load::<(u8, u64, u32, Option<TimeMs>)>(&key) {
                view.store(key, &(version, job, 0u32, since));
            }
            None
        }
        _ => None,
    }
}

/// Takes a bundle in which there is something that the bug is about, message by message.
fn deliver(
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    bytes: &[u8],
    wanted: impl Fn(&Message) -> bool,
    mut step: impl FnMut(&mut BlockWork, &mut View<'_>, Message),
) -> Option<CommandOutcome> {
    let bundle: Bundle = borsh::from_slice(bytes).ok()?;
    let mut messages = bundle.messages.iter().filter_map(|message| borsh::from_slice::<Message>(message).ok());
    let unseals = bundle.source == GroupId::BEACON;
    if !messages.any(|message| wanted(&message)) || work.layout.retired(bundle.source) {
        return None;
    }
    if work.sealed.as_ref().is_some_and(|sealed| sealed.height >= at.height || !unseals) {
        return None;
    }
    Some(match bundle.deliver(view, at.group) {
        Ok(taken) => {
            let count = taken.len() as u64;
            taken.into_iter().for_each(|(_, message)| step(work, view, message));
            CommandOutcome::Delivered(bundle.source, count)
        }
        Err(reject) => CommandOutcome::Ignored(reject),
    })
}

/// What of the own streams to retired groups was not taken.
fn not_taken(view: &mut View<'_>, told: &Reshaped) -> Vec<(GroupId, Message)> {
    let mut left = Vec::new();
    for ended in &told.ended {
        let head = stream::out_stream(view, ended.group);
        for seq in ended.taken.max(head.acked)..head.next_seq {
            left.extend(view.load::<Message>(&schema::mail(ended.group, seq)).map(|message| (ended.group, message)));
        }
    }
    left
}

/// The votes of an inherited stream that were not taken; they are gone from it.
fn votes_of(view: &mut View<'_>, source: GroupId, dest: GroupId, taken: u64) -> Vec<(GroupId, Message)> {
    let closed: Option<ClosedStream> = view.load(&schema::closed(source, dest));
    let Some(closed) = closed.filter(|closed| closed.taken.is_none()) else { return Vec::new() };
    let mut votes = Vec::new();
    for seq in taken.max(closed.kept)..closed.next_seq {
        let key = schema::closed_mail(source, dest, seq);
        if let Some(message @ Message::Vote(_)) = view.load::<Message>(&key) {
            view.delete(key);
            votes.push((dest, message));
        }
    }
    votes
}

/// Addresses messages anew, as they are.
fn pass_on(work: &BlockWork, view: &mut View<'_>, at: BlockContext, messages: Vec<(GroupId, Message)>) {
    for (dest, message) in messages {
        let next = route::route(&work.layout, dest, &message).into_iter();
        next.filter(|group| *group != at.group).for_each(|group| {
            stream::emit(view, group, message.encode());
        });
    }
}

/// What the right one of two children begins with, with the bug.
pub(crate) fn spoil_right_half(sabotage: Option<Sabotage>, kv: &MemKv) -> Result<(), String> {
    let mut batch = WriteBatch::new();
    match sabotage {
        Some(Sabotage::CreditByBoth) => {
            for (key, value) in state::scan(kv, schema::CLOSED_PREFIX) {
                let closed: ClosedStream = borsh::from_slice(&value).map_err(|error| error.to_string())?;
                let whole = ClosedStream { whole: true, ..closed };
                batch.put(key, borsh::to_vec(&whole).map_err(|error| error.to_string())?);
            }
        }
        Some(Sabotage::RegisterLeft) => {
            let leaves = state::scan(kv, &[schema::STATE]).into_iter();
            leaves
                .filter(|(key, _)| key.get(33) == Some(&schema::KIND_REGISTER))
                .for_each(|(key, _)| batch.delete(key));
        }
        Some(Sabotage::SiblingVotesNo) => {
            for (key, value) in state::scan(kv, &[schema::PREPARED]) {
                let mut record: Prepared = borsh::from_slice(&value).map_err(|error| error.to_string())?;
                if record.casts.iter().all(|cast| cast.outcome.is_none()) {
                    record.casts.clear();
                    batch.put(key, borsh::to_vec(&record).map_err(|error| error.to_string())?);
                }
            }
        }
        _ => {}
    }
    kv.write(batch).map_err(|error| error.to_string())
}

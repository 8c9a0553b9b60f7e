//! What became of a transaction, told as one story: every group's prepare, vote, hold, mail and
//! resolve, with heights, times and reasons.
//!
//! Pure: the answers of the groups come in, a [`Story`] goes out. [`tree`] draws it for people, and
//! its JSON is for programs. What no answer says is not guessed.

mod group;
mod legs;
mod tree;

use ledger::{Address, AssetId, GroupId, Height, Move, Outcome, ParsedTx, Reject, Slot, TimeMs, TxId};
use proto::views::{Explain, SentMail};
use serde::Serialize;

use crate::draft::words::{Labels, and};
use crate::error::CliError;
use crate::output::moment;
use group::GroupStory;

/// Everything that a story is made from.
pub struct Facts<'a> {
    /// The transaction.
    pub txid: TxId,
    /// The answers of the groups, in their order.
    pub answers: &'a [Explain],
    /// The transaction itself, with the openings that the caller has; `None` where no group has it
    /// any more.
    pub tx: Option<&'a ParsedTx>,
    /// Credits that were found in the history of payees.
    pub arrivals: &'a [Arrival],
    /// What people call accounts and assets.
    pub labels: &'a Labels,
}

/// A credit as it was applied at its payee's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The group.
    pub group: GroupId,
    /// Who received.
    pub account: Address,
    /// What.
    pub asset: AssetId,
    /// How much.
    pub amount: u128,
    /// Into suspense, because the account was frozen.
    pub suspended: bool,
    /// The block.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

/// How it ended, as far as the answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Every voter said yes.
    Committed,
    /// One said no; nothing changed anywhere.
    Aborted,
    /// Votes are missing.
    Undecided,
}

/// Why a transaction did not execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The group that said so.
    pub group: String,
    /// Stable code.
    pub code: &'static str,
    /// What happened.
    pub cause: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

impl Reason {
    /// What a group's NO says.
    #[must_use]
    pub fn of(group: GroupId, reject: Reject) -> Self {
        Self { group: group.to_string(), code: reject.code(), cause: reject.cause(), fix: reject.fix() }
    }
}

/// The story of one transaction.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// Its id.
    pub txid: String,
    /// How it ended.
    pub fate: Fate,
    /// It is applied in every voter group, and every credit is taken.
    pub applied: bool,
    /// Why it did not execute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What it waits for, in words; empty once it is applied or aborted everywhere.
    pub waits_for: Vec<String>,
    /// Block time at which a group first saw it; later times are told from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_ms: Option<u64>,
    /// From then to the block of the vote that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_after_ms: Option<u64>,
    /// Last block time at which a YES may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until_ms: Option<u64>,
    /// Text stored with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memo: String,
    /// Its moves in words, as far as they can be seen.
    pub moves: Vec<String>,
    /// The groups that vote.
    pub voters: Vec<String>,
    /// Each group's part.
    pub groups: Vec<GroupStory>,
}

/// Tells the story.
///
/// # Errors
/// `not_found` when no group knows the transaction.
pub fn tell(facts: &Facts<'_>) -> Result<Story, CliError> {
    let known = facts.answers.iter().any(|answer| answer.prepared.is_some() || answer.receipt.is_some());
    if !known {
        return Err(unknown(facts));
    }
    let voters = voters(facts.answers);
    let (fate, reason) = fate(facts.answers);
    let first_seen = first_seen(facts.answers);
    let waits_for = waits_for(facts, &voters, fate);
    Ok(Story {
        txid: facts.txid.to_string(),
        fate,
        applied: fate == Fate::Committed && waits_for.is_empty(),
        reason: reason.map(|(group, reject)| Reason::of(group, reject)),
        waits_for,
        first_seen_ms: first_seen.map(|at| at.0),
        decided_after_ms: decided_at(facts.answers, fate).zip(first_seen).map(|(at, from)| at.0.saturating_sub(from.0)),
        valid_until_ms: valid_until(facts).map(|at| at.0),
        memo: facts.tx.map(|tx| String::from_utf8_lossy(&tx.body.memo).into_owned()).unwrap_or_default(),
        moves: facts.tx.map(|tx| moves(tx, facts.labels)).unwrap_or_default(),
        voters: voters.iter().map(ToString::to_string).collect(),
        groups: group::tell_all(facts, &voters, first_seen),
    })
}

fn unknown(facts: &Facts<'_>) -> CliError {
    let silent: Vec<String> = facts
        .answers
        .iter()
        .filter(|answer| answer.unanswered.is_some())
        .map(|answer| answer.group.to_string())
        .collect();
    let mut cause = format!("no group that answered knows transaction {}", facts.txid);
    if !silent.is_empty() {
        cause.push_str(&format!("; {} did not answer", and(&silent)));
    }
    let fix = "check the id; a refusal leaves no trace, and if it was just sent, send the same file again: the id makes that safe";
    CliError::new("not_found", cause, fix)
}

/// The groups that vote, as those say that know it.
fn voters(answers: &[Explain]) -> Vec<GroupId> {
    let prepared = answers.iter().find_map(|answer| answer.prepared.as_ref());
    match prepared {
        Some(prepared) => prepared.voters.clone(),
        None => answers.iter().filter(|answer| answer.receipt.is_some()).map(|answer| answer.group).collect(),
    }
}

/// The outcome rule over what all answers say: AND over all legs. One NO decides; absence never does.
fn fate(answers: &[Explain]) -> (Fate, Option<(GroupId, Reject)>) {
    if let Some(no) = first_no(answers) {
        return (Fate::Aborted, Some(no));
    }
    let committed = |answer: &Explain| {
        let receipt = answer.receipt.as_ref().is_some_and(ledger::Receipt::committed);
        receipt || answer.prepared.as_ref().is_some_and(|prepared| prepared.resolved.is_some_and(|(_, posted)| posted))
    };
    if answers.iter().any(committed) || every_leg_said_yes(answers) {
        return (Fate::Committed, None);
    }
    (Fate::Undecided, None)
}

fn every_leg_said_yes(answers: &[Explain]) -> bool {
    let prepared = || answers.iter().filter_map(|answer| answer.prepared.as_ref());
    let Some(wanted) = prepared().next().map(|prepared| &prepared.legs) else { return false };
    let yes = |leg: &u16| {
        prepared().any(|prepared| {
            let own = prepared.own.as_ref().is_some_and(|own| own.no.is_none() && own.legs.contains(leg));
            own || prepared.received.iter().any(|vote| vote.no.is_none() && vote.legs.contains(leg))
        })
    };
    !wanted.is_empty() && wanted.iter().all(yes)
}

/// The NO that others followed: a group that hears of a NO says no, too, with the reason `aborted`; and one of another
/// ledger is told of it without its reason.
fn first_no(answers: &[Explain]) -> Option<(GroupId, Reject)> {
    let told = |no: Reject| match no {
        Reject::Aborted => 2u8,
        Reject::RefusedElsewhere => 1,
        _ => 0,
    };
    let mut found: Vec<(u8, TimeMs, GroupId, Reject)> = Vec::new();
    for answer in answers {
        if let Some(prepared) = &answer.prepared {
            if let Some((own, no)) = prepared.own.as_ref().and_then(|own| Some((own, own.no?))) {
                found.push((told(no), own.at.time_ms, answer.group, no));
            }
            let heard = prepared.received.iter().filter_map(|vote| Some((vote, vote.no?)));
            found.extend(heard.map(|(vote, no)| (told(no), vote.at.time_ms, vote.group, no)));
        }
        if let Some(receipt) = &answer.receipt {
            let at = receipt.time_ms;
            match &receipt.outcome {
                Outcome::Committed { .. } => {}
                Outcome::Rejected(reason) => found.push((told(*reason), at, answer.group, *reason)),
                Outcome::Aborted { group, reason } => found.push((told(*reason), at, *group, *reason)),
            }
        }
    }
    found.sort();
    found.first().map(|(_, _, group, reason)| (*group, *reason))
}

fn first_seen(answers: &[Explain]) -> Option<TimeMs> {
    let seen = |answer: &Explain| match (&answer.prepared, &answer.receipt) {
        (Some(prepared), _) => Some(prepared.seen.time_ms),
        (None, Some(receipt)) => Some(receipt.time_ms),
        (None, None) => None,
    };
    answers.iter().filter_map(seen).min()
}

/// The block time of the vote that decided: the last YES, or the first NO. The receipt's where one
/// group decides.
fn decided_at(answers: &[Explain], fate: Fate) -> Option<TimeMs> {
    let own = || answers.iter().filter_map(|answer| answer.prepared.as_ref()?.own.as_ref());
    let single = || answers.iter().filter_map(|answer| answer.receipt.as_ref()).map(|receipt| receipt.time_ms).min();
    match fate {
        Fate::Undecided => None,
        Fate::Committed if own().next().is_some() => {
            let voted = own().map(|own| own.at.time_ms).max();
            // A voter that did not answer may have voted later than all that did.
            voted.filter(|_| answers.iter().all(|answer| answer.unanswered.is_none()))
        }
        Fate::Aborted if own().next().is_some() => own().filter(|own| own.no.is_some()).map(|own| own.at.time_ms).min(),
        Fate::Committed | Fate::Aborted => single(),
    }
}

fn valid_until(facts: &Facts<'_>) -> Option<TimeMs> {
    let prepared = facts.answers.iter().find_map(|answer| answer.prepared.as_ref());
    prepared.map(|prepared| prepared.valid_until_ms).or_else(|| facts.tx.map(|tx| tx.body.valid_until_ms))
}

/// What is still to happen, in words.
fn waits_for(facts: &Facts<'_>, voters: &[GroupId], fate: Fate) -> Vec<String> {
    let mut waits = Vec::new();
    for voter in voters {
        let answer = facts.answers.iter().find(|answer| answer.group == *voter);
        let known = answer.filter(|answer| answer.unanswered.is_none());
        let Some(answer) = known else {
            let silent = answer.is_some_and(|answer| answer.unanswered.is_some());
            let why = if silent { "which does not answer" } else { "which has not seen it yet" };
            waits.push(format!("{voter}, {why}"));
            continue;
        };
        let resolved = answer.receipt.is_some();
        match &answer.prepared {
            _ if resolved => {}
            None => waits.push(format!("{voter}, which has not seen it yet")),
            Some(prepared) if prepared.own.is_some() => {
                if fate != Fate::Undecided {
                    waits.push(format!("{voter}, which has to hear of it by mail"));
                }
            }
            Some(prepared) => waits.push(format!(
                "{voter}, which needs {}; without it, it says no after {}",
                missing(facts, prepared.opened.as_slice(), *voter),
                moment(prepared.valid_until_ms.0)
            )),
        }
    }
    if fate == Fate::Committed {
        waits.extend(open_credits(facts));
    }
    waits
}

fn open_credits(facts: &Facts<'_>) -> Vec<String> {
    let open = |answer: &Explain| {
        let mut dests: Vec<GroupId> =
            answer.credits.iter().filter(|mail| !taken(facts, mail)).map(|mail| mail.dest).collect();
        dests.dedup();
        let from = answer.group;
        dests.into_iter().map(move |dest| format!("{dest}, which has not taken the credit from {from} yet"))
    };
    facts.answers.iter().flat_map(open).collect()
}

/// Whether a credit has been taken: its group has proved it to the sender, or, earlier, all credits
/// for that group stand in the histories of their payees.
fn taken(facts: &Facts<'_>, mail: &SentMail) -> bool {
    let sent = facts.answers.iter().flat_map(|answer| &answer.credits).filter(|other| other.dest == mail.dest).count();
    let arrived = facts.arrivals.iter().filter(|arrival| arrival.group == mail.dest).count();
    mail.taken || arrived >= sent
}

/// What a group lacks: the openings of its hidden moves, or, a channel, that one of its members hands it over.
fn missing(facts: &Facts<'_>, opened: &[u16], group: GroupId) -> String {
    let Some(tx) = facts.tx else { return "the opening of a hidden move".to_owned() };
    let hidden = (0u16..).zip(&tx.body.slots).filter(|(index, slot)| {
        matches!(slot, Slot::Hidden { group: named, .. } if *named == group) && !opened.contains(index)
    });
    let numbers: Vec<String> = hidden.map(|(index, _)| format!("move {}", index + 1)).collect();
    match numbers.is_empty() {
        true => "a member that hands it over".to_owned(),
        false => format!("the opening of {}", and(&numbers)),
    }
}

/// Each move in words.
fn moves(tx: &ParsedTx, labels: &Labels) -> Vec<String> {
    let visible: Vec<(u16, &Move)> = tx.visible().map(|(slot, _, mv)| (slot, mv)).collect();
    (0u16..)
        .zip(&tx.body.slots)
        .map(|(index, slot)| match (visible.iter().find(|(at, _)| *at == index), slot) {
            (Some((_, mv)), _) => labels.sentence(mv),
            (None, Slot::Hidden { group, .. }) => format!("a move hidden from all but {group}"),
            (None, Slot::Clear { .. }) => String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests;

//! `record verify` and `access`, which are proved; `show` and `history`, which list what the owner's past tells.

use std::path::Path;

use client::{Answer, Client};
use ledger::record::{Access, GrantLog, Grantee, Record};
use ledger::{Address, Hash32, LedgerId, Move, Reject, TimeMs};
use serde::Serialize;

use super::super::context::Context;
use super::super::past::steps;
use super::super::place::Place;
use super::super::proved::Proved;
use super::super::signer::now;
use super::book::{Book, Entry, about_records, access_by, makes};
use super::{PartyLine, grantee, hash_of};
use crate::args::{PartyArg, RecordsOf};
use crate::draft::words::{Labels, quoted};
use crate::error::CliError;
use crate::output::{Output, moment, table};

/// An account whose records are looked at.
struct Shelf {
    context: Context,
    client: Client,
    ledger: LedgerId,
    owner: Address,
    labels: Labels,
}

impl Shelf {
    async fn of(of: &RecordsOf) -> Result<Self, CliError> {
        let context = Context::new(&of.on.target)?;
        let owner = context.address(&of.owner)?;
        let Place { context, client, ledger } = Place::enter(context, &of.on).await?;
        Ok(Self { labels: context.labels(), context, client, ledger, owner })
    }

    /// The record, proved to be there; or that it is not, which is proved, too.
    async fn record(&self, hash: &Hash32) -> Result<(Record, Answer<Option<Record>>), CliError> {
        let answer = self.client.record(self.ledger, self.owner, *hash).await?;
        match answer.value.clone() {
            Some(record) => Ok((record, answer)),
            None => {
                let owner = self.labels.account(&self.owner);
                let fix = "check the owner, and that the file is unaltered: any change gives it another hash";
                Err(CliError::new(Reject::RecordUnknown.code(), format!("{owner} has no record of {hash}"), fix))
            }
        }
    }

    /// The owner's past: back to where this record was made, or all of it.
    async fn past(&self, record: Option<&Hash32>) -> Result<Book, CliError> {
        let owner = self.owner;
        let found = steps(&self.client, (self.ledger, owner), about_records, |step| {
            record.is_some_and(|record| step.moves(|mv| makes(mv, &owner, record)).next().is_some())
        });
        Ok(Book::of(owner, &found.await?))
    }

    fn line(&self, hash: &Hash32, record: &Record) -> RecordLine {
        RecordLine {
            record: hash.to_string(),
            owner: self.owner.to_string(),
            at_ms: record.at_ms.0,
            txid: record.txid.to_string(),
            metadata: String::from_utf8_lossy(&record.metadata).into_owned(),
            metadata_hex: hex::encode(&record.metadata),
        }
    }
}

/// A record, for programs.
#[derive(Serialize)]
struct RecordLine {
    record: String,
    owner: String,
    /// Since when, in the time of blocks.
    at_ms: u64,
    txid: String,
    /// As text; what is no text is in the bytes alone.
    metadata: String,
    metadata_hex: String,
}

impl RecordLine {
    fn text(&self, labels: &Labels) -> String {
        let owner = self.owner.parse().map_or_else(|_| self.owner.clone(), |owner| labels.account(&owner));
        let metadata = hex::decode(&self.metadata_hex).map_or_else(|_| String::new(), |bytes| quoted(&bytes));
        format!(
            "record {}\n  of           {owner}\n  since        {}\n  metadata     {metadata}\n  transaction  {}",
            self.record,
            moment(self.at_ms),
            self.txid
        )
    }
}

/// What a party may do, for programs.
#[derive(Serialize)]
struct AccessLine {
    #[serde(flatten)]
    party: PartyLine,
    allowed: bool,
    /// `owner`, `granted`, `expired`, `revoked`, `never` or `no_record`.
    access: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_ms: Option<u64>,
}

impl AccessLine {
    fn of(who: &Grantee, access: &Access) -> Self {
        let (word, terms, revoked) = match access {
            Access::Owner => ("owner", None, None),
            Access::Granted(terms) => ("granted", Some(terms), None),
            Access::Expired(terms) => ("expired", Some(terms), None),
            Access::Revoked(at) => ("revoked", None, Some(at.0)),
            Access::Never => ("never", None, None),
            Access::NoRecord => ("no_record", None, None),
        };
        Self {
            party: PartyLine::of(who),
            allowed: access.allowed(),
            access: word,
            scope: terms.map(|terms| terms.scope.clone()),
            until_ms: terms.and_then(|terms| terms.until_ms).map(|until| until.0),
            revoked_ms: revoked,
        }
    }

    /// What it is, in words that follow the party's name.
    fn words(&self) -> String {
        let scope = self.scope.as_deref().unwrap_or_default();
        let until = self.until_ms.map(moment);
        match (self.access, until, self.revoked_ms) {
            ("owner", _, _) => "everything: it is the owner's".to_owned(),
            ("granted", Some(until), _) => format!("\"{scope}\", until {until}"),
            ("granted", None, _) => format!("\"{scope}\", until it is revoked"),
            ("expired", Some(until), _) => format!("nothing any more: \"{scope}\" ended at {until}"),
            (_, _, Some(at)) => format!("nothing any more: revoked at {}", moment(at)),
            ("no_record", _, _) => "nothing: there was no such record yet".to_owned(),
            _ => "nothing: it was not granted".to_owned(),
        }
    }
}

#[derive(Serialize)]
struct Shown {
    owner: String,
    records: Vec<ShownRecord>,
    /// Transactions that changed the account's records and cannot be seen; what they did is left out.
    unseen: Vec<String>,
}

#[derive(Serialize)]
struct ShownRecord {
    #[serde(flatten)]
    line: RecordLine,
    /// Everybody whom it was ever granted to, and what each may do now.
    parties: Vec<AccessLine>,
}

/// `record show`.
pub(super) async fn show(of: &RecordsOf, what: Option<&str>, output: Output) -> Result<(), CliError> {
    let one = what.map(hash_of).transpose()?;
    let shelf = Shelf::of(of).await?;
    let proved = match &one {
        Some(hash) => Some((*hash, shelf.record(hash).await?.0)),
        None => None,
    };
    let book = shelf.past(one.as_ref()).await?;
    let at = now().max(book.latest());
    let found: Vec<(Hash32, Record)> = match proved {
        Some(found) => vec![found],
        None => book.records().iter().filter_map(|hash| Some((*hash, book.record(hash)?))).collect(),
    };
    let records = found.iter().map(|(hash, record)| {
        let parties = book.parties(hash);
        let line = |who: &Grantee| AccessLine::of(who, &book.access(hash, record, who, at));
        ShownRecord { line: shelf.line(hash, record), parties: parties.iter().map(line).collect() }
    });
    let records = records.collect();
    let unseen = book.unseen().iter().map(ToString::to_string).collect();
    let shown = Shown { owner: shelf.owner.to_string(), records, unseen };
    output.result(&shown, || shown_text(&shown, &shelf.labels))
}

fn shown_text(shown: &Shown, labels: &Labels) -> String {
    let mut parts: Vec<String> = Vec::new();
    for record in &shown.records {
        let mut text = record.line.text(labels);
        for line in &record.parties {
            text.push_str(&format!("\n  {}: {}", party_name(&line.party, labels), line.words()));
        }
        parts.push(text);
    }
    if parts.is_empty() {
        parts.push("there is no record".to_owned());
    }
    if !shown.unseen.is_empty() {
        let count = shown.unseen.len();
        parts.push(format!("… and what {count} transactions did that are hidden or gone, which --json names"));
    }
    parts.join("\n")
}

fn party_name(party: &PartyLine, labels: &Labels) -> String {
    match (&party.account, party.org) {
        (Some(account), _) => account.parse().map_or_else(|_| account.clone(), |address| labels.account(&address)),
        (None, Some(org)) => format!("organisation {org}"),
        (None, None) => String::new(),
    }
}

#[derive(Serialize)]
struct Verified {
    #[serde(flatten)]
    line: RecordLine,
    #[serde(flatten)]
    proved: Proved,
}

/// `record verify`.
pub(super) async fn verify(of: &RecordsOf, what: &str, proof: Option<&Path>, output: Output) -> Result<(), CliError> {
    let hash = hash_of(what)?;
    let shelf = Shelf::of(of).await?;
    let (record, answer) = shelf.record(&hash).await?;
    let verified = Verified { line: shelf.line(&hash, &record), proved: Proved::keep(&answer, proof)? };
    output.result(&verified, || format!("{}\n{}", verified.line.text(&shelf.labels), verified.proved.text()))
}

#[derive(Serialize)]
struct AccessReport {
    record: String,
    owner: String,
    /// The time that the answer is of.
    at_ms: u64,
    #[serde(flatten)]
    line: AccessLine,
    /// Of all that the party was ever granted.
    #[serde(flatten)]
    proved: Proved,
}

/// `record access`.
pub(super) async fn access(
    of: &RecordsOf,
    what: &str,
    party: &PartyArg,
    at: Option<u64>,
    check: bool,
    proof: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let hash = hash_of(what)?;
    let shelf = Shelf::of(of).await?;
    let who = grantee(&shelf.context, party)?;
    let (record, _) = shelf.record(&hash).await?;
    // Nothing is ever taken away from either, so the second may be of a later block than the first.
    let granted: Answer<Option<GrantLog>> = shelf.client.grants(shelf.ledger, shelf.owner, hash, who).await?;
    let log = granted.value.as_ref();
    // Now, by this machine's clock or the newest change, whichever is later.
    let latest = log.and_then(|log| log.changes.last()).map_or(record.at_ms, |change| change.at_ms);
    let at = at.map_or_else(|| now().max(latest), TimeMs);
    let access = access_by(&shelf.owner, (&hash, &record), (&who, log), at);
    let report = AccessReport {
        record: hash.to_string(),
        owner: shelf.owner.to_string(),
        at_ms: at.0,
        line: AccessLine::of(&who, &access),
        proved: Proved::keep(&granted, proof)?,
    };
    let name = shelf.labels.grantee(&who);
    output.result(&report, || {
        let proved = report.proved.text();
        format!("{name}: {}\n  at {}\n{proved}", report.line.words(), moment(report.at_ms))
    })?;
    if check && !report.line.allowed {
        let cause = format!("{name} has no access: {}", report.line.words());
        return Err(CliError::new("no_access", cause, "ask the owner of the record for a grant").after_report());
    }
    Ok(())
}

#[derive(Serialize)]
struct Past {
    record: String,
    owner: String,
    /// Oldest first.
    events: Vec<EventLine>,
    /// Transactions that changed the account's records since and cannot be seen.
    unseen: Vec<String>,
}

#[derive(Serialize)]
struct EventLine {
    /// `recorded`, `granted` or `revoked`.
    event: &'static str,
    at_ms: u64,
    txid: String,
    #[serde(flatten)]
    party: Option<PartyLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

impl EventLine {
    fn of(entry: &Entry) -> Self {
        let (event, who, terms) = match &entry.mv {
            Move::Grant { to, terms, .. } => ("granted", Some(to), Some(terms)),
            Move::Revoke { from, .. } => ("revoked", Some(from), None),
            _ => ("recorded", None, None),
        };
        Self {
            event,
            at_ms: entry.at_ms.0,
            txid: entry.txid.to_string(),
            party: who.map(PartyLine::of),
            scope: terms.map(|terms| terms.scope.clone()),
            until_ms: terms.and_then(|terms| terms.until_ms).map(|until| until.0),
        }
    }
}

/// `record history`.
pub(super) async fn history(of: &RecordsOf, what: &str, output: Output) -> Result<(), CliError> {
    let hash = hash_of(what)?;
    let shelf = Shelf::of(of).await?;
    shelf.record(&hash).await?;
    let book = shelf.past(Some(&hash)).await?;
    let past = Past {
        record: hash.to_string(),
        owner: shelf.owner.to_string(),
        events: book.about(&hash).iter().map(EventLine::of).collect(),
        unseen: book.unseen().iter().map(ToString::to_string).collect(),
    };
    output.result(&past, || {
        let rows = past.events.iter().map(|line| {
            let party = line.party.as_ref().map(|party| party_name(party, &shelf.labels)).unwrap_or_default();
            let scope = line.scope.clone().unwrap_or_default();
            let until = line.until_ms.map(moment).unwrap_or_default();
            [moment(line.at_ms), line.event.to_owned(), party, scope, until, line.txid.clone()]
        });
        let text = table(["time", "what", "party", "scope", "until", "transaction"], rows);
        match past.unseen.len() {
            0 => text,
            count => format!("{text}\n… and what {count} transactions did that are hidden or gone, which --json names"),
        }
    })
}

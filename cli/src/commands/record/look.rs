//! `record show`, `verify`, `access` and `history`: from what the owner's past tells, without a proof.

use ledger::record::{Access, Grantee};
use ledger::{Address, Hash32, Move, Reject, TimeMs};
use serde::Serialize;

use super::super::context::Context;
use super::super::past::{steps, unreadable};
use super::super::signer::now;
use super::book::{Book, Entry, about_records, makes};
use super::{PartyLine, grantee, hash_of};
use crate::args::{PartyArg, RecordsOf};
use crate::draft::words::{Labels, quoted};
use crate::error::CliError;
use crate::output::{Output, moment, table};

/// The records of one account.
struct Shelf {
    context: Context,
    owner: Address,
    labels: Labels,
    book: Book,
}

impl Shelf {
    /// Reads the owner's past: back to where this record was made, or all of it.
    async fn open(of: &RecordsOf, record: Option<&Hash32>) -> Result<Self, CliError> {
        let context = Context::new(&of.target)?;
        let owner = context.address(&of.owner)?;
        let client = context.client().await?;
        let found = steps(&client, owner, about_records, |step| {
            record.is_some_and(|record| step.moves(|mv| makes(mv, &owner, record)).next().is_some())
        });
        let book = Book::of(owner, &found.await?);
        Ok(Self { labels: context.labels(), context, owner, book })
    }

    /// The record, or why there is none.
    fn line(&self, record: &Hash32) -> Result<RecordLine, CliError> {
        let owner = self.labels.account(&self.owner);
        let Some(found) = self.book.record(record) else {
            let hidden = self.book.may_have_recorded();
            if !hidden.is_empty() {
                return Err(unreadable(&hidden, &format!("whether {owner} has recorded {record}")));
            }
            let fix = "check the owner, and that the file is unaltered: any change gives it another hash";
            return Err(CliError::new(Reject::RecordUnknown.code(), format!("{owner} has no record of {record}"), fix));
        };
        Ok(RecordLine {
            record: record.to_string(),
            owner: self.owner.to_string(),
            at_ms: found.at_ms.0,
            txid: found.txid.to_string(),
            metadata: String::from_utf8_lossy(&found.metadata).into_owned(),
            metadata_hex: hex::encode(&found.metadata),
        })
    }

    /// Now, by this machine's clock or the newest block that was seen, whichever is later.
    fn now(&self) -> TimeMs {
        now().max(self.book.latest())
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
    let shelf = Shelf::open(of, one.as_ref()).await?;
    let at = shelf.now();
    let hashes = one.map_or_else(|| shelf.book.records().to_vec(), |hash| vec![hash]);
    let mut records = Vec::new();
    for hash in &hashes {
        let parties = shelf.book.parties(hash);
        let line = |who: &Grantee| AccessLine::of(who, &shelf.book.access(hash, who, at));
        records.push(ShownRecord { line: shelf.line(hash)?, parties: parties.iter().map(line).collect() });
    }
    let unseen = shelf.book.unseen().iter().map(ToString::to_string).collect();
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

/// `record verify`.
pub(super) async fn verify(of: &RecordsOf, what: &str, output: Output) -> Result<(), CliError> {
    let hash = hash_of(what)?;
    let shelf = Shelf::open(of, Some(&hash)).await?;
    let line = shelf.line(&hash)?;
    output.result(&line, || line.text(&shelf.labels))
}

#[derive(Serialize)]
struct AccessReport {
    record: String,
    owner: String,
    /// The time that the answer is of.
    at_ms: u64,
    #[serde(flatten)]
    line: AccessLine,
}

/// `record access`.
pub(super) async fn access(
    of: &RecordsOf,
    what: &str,
    party: &PartyArg,
    at: Option<u64>,
    check: bool,
    output: Output,
) -> Result<(), CliError> {
    let hash = hash_of(what)?;
    let shelf = Shelf::open(of, Some(&hash)).await?;
    let who = grantee(&shelf.context, party)?;
    shelf.line(&hash)?;
    // A grant or revocation that cannot be seen could turn the answer around.
    let hidden = shelf.book.may_have_changed(&who);
    if !hidden.is_empty() {
        let what = format!("what {} may do with {hash}", shelf.labels.grantee(&who));
        return Err(unreadable(&hidden, &what));
    }
    let at = at.map_or_else(|| shelf.now(), TimeMs);
    let report = AccessReport {
        record: hash.to_string(),
        owner: shelf.owner.to_string(),
        at_ms: at.0,
        line: AccessLine::of(&who, &shelf.book.access(&hash, &who, at)),
    };
    let name = shelf.labels.grantee(&who);
    output.result(&report, || format!("{name}: {}\n  at {}", report.line.words(), moment(report.at_ms)))?;
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
    let shelf = Shelf::open(of, Some(&hash)).await?;
    shelf.line(&hash)?;
    let past = Past {
        record: hash.to_string(),
        owner: shelf.owner.to_string(),
        events: shelf.book.about(&hash).iter().map(EventLine::of).collect(),
        unseen: shelf.book.unseen().iter().map(ToString::to_string).collect(),
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

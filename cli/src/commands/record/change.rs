//! `record put`, `record grant` and `record revoke`: moves of one owner, in one transaction.

use client::Wait;
use ledger::record::{GrantTerms, Grantee};
use ledger::{Hash32, Move, TimeMs};
use serde::Serialize;

use super::super::context::Context;
use super::super::place::Place;
use super::super::settle;
use super::super::show::ReceiptLine;
use super::{PartyLine, grantee, hash_of};
use crate::args::{PartyArg, RecordOwner};
use crate::error::CliError;
use crate::load::sign::Party;
use crate::output::{Output, moment};

/// An owner who signs.
struct Desk {
    context: Context,
    party: Party,
}

impl Desk {
    fn of(owner: &RecordOwner) -> Result<Self, CliError> {
        let context = Context::new(&owner.on.target)?;
        let party = context.party(owner.key.as_deref())?;
        Ok(Self { context, party })
    }

    /// Signs the moves as one transaction and settles it.
    async fn execute(self, owner: &RecordOwner, moves: Vec<Move>) -> Result<Sent, CliError> {
        let Place { context, client, ledger } = Place::enter(self.context, &owner.on).await?;
        let moves = moves.into_iter().map(|mv| (ledger, mv)).collect();
        let keys = [&self.party.key];
        let settled = settle::execute(&context, &client, moves, b"", &keys, Wait::from(owner.wait)).await?;
        Ok(Sent { txid: settled.txid().to_string(), receipt: settled.receipt().map(ReceiptLine::of) })
    }
}

/// The transaction that was executed.
#[derive(Serialize)]
struct Sent {
    txid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptLine>,
}

impl Sent {
    fn text(&self) -> String {
        let at = self.receipt.as_ref().map_or_else(String::new, |receipt| format!(" at {}", moment(receipt.time_ms)));
        format!("  transaction {}{at}", self.txid)
    }
}

#[derive(Serialize)]
struct Put {
    owner: String,
    records: Vec<PutLine>,
    metadata: String,
    #[serde(flatten)]
    sent: Sent,
}

#[derive(Serialize)]
struct PutLine {
    record: String,
    /// The text of the command line that names it.
    source: String,
}

/// `record put`.
pub(super) async fn put(owner: &RecordOwner, what: &[String], metadata: &str, output: Output) -> Result<(), CliError> {
    // Everything that can be wrong with the files comes before a passphrase is asked for.
    let hashes = what.iter().map(|text| hash_of(text)).collect::<Result<Vec<Hash32>, _>>()?;
    let desk = Desk::of(owner)?;
    let address = desk.party.address;
    let record = |hash: &Hash32| Move::Record { owner: address, hash: *hash, metadata: metadata.as_bytes().to_vec() };
    let sent = desk.execute(owner, hashes.iter().map(record).collect()).await?;
    let lines = hashes.iter().zip(what);
    let put = Put {
        owner: address.to_string(),
        records: lines.map(|(hash, text)| PutLine { record: hash.to_string(), source: text.clone() }).collect(),
        metadata: metadata.to_owned(),
        sent,
    };
    output.result(&put, || {
        let mut text = format!("recorded under {}", put.owner);
        for line in &put.records {
            let source = if line.source == line.record { String::new() } else { format!("  {}", line.source) };
            text.push_str(&format!("\n  {}{source}", line.record));
        }
        format!("{text}\n{}", put.sent.text())
    })
}

#[derive(Serialize)]
struct Changed {
    owner: String,
    record: String,
    #[serde(flatten)]
    party: PartyLine,
    /// What is granted from now on; none after a revocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    #[serde(flatten)]
    sent: Sent,
}

/// `record grant`.
pub(super) async fn grant(
    owner: &RecordOwner,
    what: &str,
    party: &PartyArg,
    scope: String,
    until: Option<u64>,
    output: Output,
) -> Result<(), CliError> {
    let terms = GrantTerms { scope, until_ms: until.map(TimeMs) };
    change(owner, what, party, Some(terms), output).await
}

/// `record revoke`.
pub(super) async fn revoke(owner: &RecordOwner, what: &str, party: &PartyArg, output: Output) -> Result<(), CliError> {
    change(owner, what, party, None, output).await
}

async fn change(
    owner: &RecordOwner,
    what: &str,
    party: &PartyArg,
    terms: Option<GrantTerms>,
    output: Output,
) -> Result<(), CliError> {
    let record = hash_of(what)?;
    let desk = Desk::of(owner)?;
    let who: Grantee = grantee(&desk.context, party)?;
    let address = desk.party.address;
    let (scope, until_ms) = match &terms {
        Some(terms) => (Some(terms.scope.clone()), terms.until_ms.map(|until| until.0)),
        None => (None, None),
    };
    let mv = match terms {
        Some(terms) => Move::Grant { owner: address, record, to: who, terms },
        None => Move::Revoke { owner: address, record, from: who },
    };
    let sentence = desk.context.labels().sentence(&mv);
    let sent = desk.execute(owner, vec![mv]).await?;
    let changed = Changed {
        owner: address.to_string(),
        record: record.to_string(),
        party: PartyLine::of(&who),
        scope,
        until_ms,
        sent,
    };
    output.result(&changed, || format!("{sentence}\n{}", changed.sent.text()))
}

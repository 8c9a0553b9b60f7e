//! `lock`, `claim` and `refund`: hash-locks, for swaps with other systems.
//!
//! Claim and refund name the terms of the lock, which are read from the lock itself, under a proof.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use client::{Answer, Client, Wait};
use ledger::lock::{Lock as Locked, LockState, LockTerms, Secret, hash_of};
use ledger::{Address, AssetId, Hash32, LockId, Move, Reject, SecretKey, TimeMs, TxId};
use serde::Serialize;

use super::context::{Context, amount, id};
use super::place::Place;
use super::proved::Proved;
use super::settle;
use super::show::ReceiptLine;
use super::signer::ahead;
use crate::args::{Claim, InLedger, Lock, LockCommand, Refund, WaitFor};
use crate::draft::words::Labels;
use crate::error::CliError;
use crate::output::{Output, facts, moment};
use crate::setup::pki::random;

pub(super) async fn run(args: Lock, output: Output) -> Result<(), CliError> {
    match args.command {
        None => Box::pin(lock(args, output)).await,
        Some(LockCommand::NewSecret { file }) => new_secret(&file, output),
        Some(LockCommand::Show { on, lock, from, proof }) => {
            Box::pin(show(&on, &lock, &from, proof.as_deref(), output)).await
        }
    }
}

/// 32 bytes in hex, of a text or a file.
fn digits(code: &str, text: &str, what: &str) -> Result<Hash32, CliError> {
    text.trim().parse().map_err(|_| {
        let cause = format!("{what} is not 32 bytes in hex");
        CliError::usage(code, cause, "give 64 hex digits, such as 'seamark lock new-secret' makes")
    })
}

fn secret_in(file: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(file).map_err(|error| CliError::file(file, &error))?;
    Ok(digits("secret_form", &text, &format!("the secret in {}", file.display()))?.0)
}

/// The secret that a command line gives; the grammar demands one of the two.
fn secret_of(text: Option<&str>, file: Option<&Path>) -> Result<Secret, CliError> {
    match (text, file) {
        (Some(text), _) => Ok(digits("secret_form", text, "the secret")?.0),
        (None, Some(file)) => secret_in(file),
        (None, None) => Err(CliError::usage("usage", "no secret is given", "use --secret or --secret-file")),
    }
}

#[derive(Serialize)]
struct NewSecret {
    file: String,
    hash: String,
}

/// `lock new-secret`.
fn new_secret(file: &Path, output: Output) -> Result<(), CliError> {
    let secret: Secret = random::<32>()?;
    let write = || {
        let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        made.write_all(format!("{}\n", hex::encode(secret)).as_bytes())?;
        made.sync_all()
    };
    write().map_err(|error: std::io::Error| CliError::file(file, &error))?;
    let made = NewSecret { file: file.display().to_string(), hash: hash_of(&secret).to_string() };
    output.result(&made, || format!("the hash is {}\n  the secret is in {}; keep it to yourself", made.hash, made.file))
}

/// What a lock holds for whom, for programs.
#[derive(Serialize)]
struct TermsLine {
    lock: String,
    from: String,
    to: String,
    asset: String,
    amount: String,
    hash: String,
    deadline_ms: u64,
}

/// What a lock is for.
struct Found {
    id: LockId,
    from: Address,
    terms: LockTerms,
    hash: Hash32,
    deadline_ms: TimeMs,
}

impl Found {
    fn line(&self) -> TermsLine {
        TermsLine {
            lock: self.id.to_string(),
            from: self.from.to_string(),
            to: self.terms.to.to_string(),
            asset: self.terms.asset.to_string(),
            amount: self.terms.amount.to_string(),
            hash: self.hash.to_string(),
            deadline_ms: self.deadline_ms.0,
        }
    }

    /// A lock as the ledger has it.
    fn of(id: LockId, from: Address, lock: &Locked) -> Self {
        Self { id, from, terms: lock.terms, hash: lock.hash, deadline_ms: lock.deadline_ms }
    }

    /// The lock, if this move makes it.
    fn made_by(id: LockId, txid: &TxId, slot: u16, mv: &Move) -> Option<Self> {
        match mv {
            Move::Lock { from, to, asset, amount, hash, deadline_ms } if LockId::derive(txid, slot) == id => {
                let terms = LockTerms { to: *to, asset: *asset, amount: *amount };
                Some(Self { id, from: *from, terms, hash: *hash, deadline_ms: *deadline_ms })
            }
            _ => None,
        }
    }
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    terms: TermsLine,
    txid: String,
    /// Whether the payee of a claim has been credited already.
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptLine>,
}

impl Done {
    fn text(&self, sentence: &str) -> String {
        let applied = if self.applied { "" } else { "; final, and the credit is on its way" };
        let at = self.receipt.as_ref().map_or_else(String::new, |receipt| format!(" at {}", moment(receipt.time_ms)));
        format!("{sentence}{applied}\n  lock {}\n  transaction {}{at}", self.terms.lock, self.txid)
    }
}

/// Signs one move of a lock, settles it and prints what happened. The lock is that of the move's own
/// transaction where it makes one.
async fn finish(
    place: &Place,
    found: Option<&Found>,
    mv: Move,
    memo: &[u8],
    keys: &[&SecretKey],
    wait: WaitFor,
    output: Output,
) -> Result<(), CliError> {
    let Place { context, client, ledger } = place;
    let labels = labels(context, client, &mv).await;
    let sentence = labels.sentence(&mv);
    let moves = vec![(*ledger, mv.clone())];
    let settled = settle::execute(context, client, moves, memo, keys, Wait::from(wait)).await?;
    let txid = settled.txid();
    let made = Found::made_by(LockId::derive(&txid, 0), &txid, 0, &mv);
    let Some(lock) = made.as_ref().or(found) else {
        return Err(client::ClientError::Protocol("the move has no lock".to_owned()).into());
    };
    let receipt = settled.receipt().map(ReceiptLine::of);
    let credited = receipt.as_ref().is_some_and(|receipt| receipt.mail_to.is_empty());
    let applied = wait == WaitFor::Applied || credited;
    let done = Done { terms: lock.line(), txid: txid.to_string(), applied, receipt };
    output.result(&done, || done.text(&sentence))
}

async fn labels(context: &Context, client: &Client, mv: &Move) -> Labels {
    let mut labels = context.labels();
    context.label_assets(client, super::context::assets_of(std::iter::once(mv)), &mut labels).await;
    labels
}

/// `lock`.
async fn lock(args: Lock, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.on.target)?;
    // The grammar demands all of these where there is no subcommand.
    let amount = amount(args.amount.as_deref().unwrap_or_default())?;
    let to = context.address(args.to.as_deref().unwrap_or_default())?;
    let asset: AssetId = context.asset(args.asset.as_deref().unwrap_or_default())?;
    let hash = match &args.hash {
        Some(text) => digits("lock_hash", text, "the hash")?,
        None => hash_of(&secret_of(None, args.secret_file.as_deref())?),
    };
    let deadline_ms = ahead(args.until.unwrap_or_default());
    let payer = context.party(args.key.as_deref())?;
    let place = Place::enter(context, &args.on).await?;
    let mv = Move::Lock { from: payer.address, to, asset, amount, hash, deadline_ms };
    let keys = [&payer.key];
    finish(&place, None, mv, args.memo.as_bytes(), &keys, args.wait, output).await
}

/// `claim`.
pub(super) async fn claim(args: Claim, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.on.target)?;
    let lock: LockId = id("lock_id", &args.lock)?;
    let from = context.address(&args.from)?;
    let secret = secret_of(args.secret.as_deref(), args.secret_file.as_deref())?;
    let place = Place::enter(context, &args.on).await?;
    let found = Found::of(lock, from, &find(&place, from, lock).await?.0);
    // A secret of something else must not become known by a claim that is refused.
    if hash_of(&secret) != found.hash {
        let reject = Reject::WrongSecret;
        return Err(CliError::new(reject.code(), format!("{}; nothing was sent", reject.cause()), reject.fix()));
    }
    let mv = Move::Claim { from, lock, terms: found.terms, secret };
    finish(&place, Some(&found), mv, b"", &[], args.wait, output).await
}

/// `refund`.
pub(super) async fn refund(args: Refund, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.on.target)?;
    let lock: LockId = id("lock_id", &args.lock)?;
    let payer = context.party(args.key.as_deref())?;
    let place = Place::enter(context, &args.on).await?;
    let found = Found::of(lock, payer.address, &find(&place, payer.address, lock).await?.0);
    let mv = Move::Refund { from: payer.address, lock, terms: found.terms };
    let keys = [&payer.key];
    finish(&place, Some(&found), mv, b"", &keys, args.wait, output).await
}

/// The lock, proved to be there; or that it is not, which is proved, too.
async fn find(place: &Place, from: Address, id: LockId) -> Result<(Locked, Answer<Option<Locked>>), CliError> {
    let answer = place.client.lock(place.ledger, from, id).await?;
    match answer.value {
        Some(lock) => Ok((lock, answer)),
        None => {
            let reject = Reject::LockUnknown;
            Err(CliError::new(reject.code(), format!("{from} has no lock {id}"), reject.fix()))
        }
    }
}

/// A lock and what became of it, for programs.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    terms: TermsLine,
    /// `open`, `claimed` or `refunded`.
    state: &'static str,
    /// What opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// When it was settled, and by which transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_by: Option<String>,
    #[serde(flatten)]
    proved: Proved,
}

/// What became of a lock: a word, the secret of one that was claimed, and when and by what it was settled.
pub(super) fn became(state: &LockState) -> (&'static str, Option<String>, Option<(TimeMs, TxId)>) {
    match state {
        LockState::Open => ("open", None, None),
        LockState::Claimed { secret, txid, at_ms } => ("claimed", Some(hex::encode(secret)), Some((*at_ms, *txid))),
        LockState::Refunded { txid, at_ms } => ("refunded", None, Some((*at_ms, *txid))),
    }
}

/// `lock show`.
async fn show(on: &InLedger, lock: &str, from: &str, proof: Option<&Path>, output: Output) -> Result<(), CliError> {
    let context = Context::new(&on.target)?;
    let lock: LockId = id("lock_id", lock)?;
    let from = context.address(from)?;
    let place = Place::enter(context, on).await?;
    let (locked, answer) = find(&place, from, lock).await?;
    let found = Found::of(lock, from, &locked);
    let (state, secret, settled) = became(&locked.state);
    let shown = Shown {
        terms: found.line(),
        state,
        secret,
        settled_ms: settled.map(|(at, _)| at.0),
        settled_by: settled.map(|(_, txid)| txid.to_string()),
        proved: Proved::keep(&answer, proof)?,
    };
    let mut labels = place.context.labels();
    place.context.label_assets(&place.client, [found.terms.asset], &mut labels).await;
    output.result(&shown, || {
        let mut text = format!(
            "lock {}: {}\n{}",
            shown.terms.lock,
            shown.state,
            facts([
                ("from", labels.account(&found.from)),
                ("to", labels.account(&found.terms.to)),
                ("amount", labels.amount(found.terms.amount, &found.terms.asset)),
                ("hash", shown.terms.hash.clone()),
                ("deadline", moment(shown.terms.deadline_ms)),
            ])
        );
        if let Some(secret) = &shown.secret {
            text.push_str(&format!("\n  secret    {secret}"));
        }
        if let (Some(at), Some(txid)) = (shown.settled_ms, &shown.settled_by) {
            text.push_str(&format!("\n  settled   {}, by transaction {txid}", moment(at)));
        }
        text.push_str(&format!("\n{}", shown.proved.text()));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_read_back_as_they_are_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("swap.secret");
        new_secret(&file, Output::new(true)).unwrap();
        let secret = secret_in(&file).unwrap();
        assert_ne!(secret, [0; 32]);
        assert_eq!(secret_of(Some(&hex::encode(secret)), None), Ok(secret));
        assert_eq!(new_secret(&file, Output::new(true)).unwrap_err().code, "file", "no secret is overwritten");
        assert_eq!(secret_in(&file), Ok(secret));
        std::fs::write(&file, "00ff").unwrap();
        assert_eq!(secret_in(&file).unwrap_err().code, "secret_form");
        assert_eq!(digits("lock_hash", "no hash", "the hash").unwrap_err().code, "lock_hash");
    }
}

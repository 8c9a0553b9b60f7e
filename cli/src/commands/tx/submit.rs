//! `tx submit`: sends a transaction file, or builds, signs and sends a form at once.

use std::path::Path;

use client::{Settled, Wait};
use ledger::{Outcome, Reject};
use serde::Serialize;

use super::super::show::ReceiptLine;
use super::desk::{Desk, write};
use super::paper::add_signatures;
use crate::args::{Target, TxWait};
use crate::draft::words::and;
use crate::error::CliError;
use crate::explain::{Fate, Reason};
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    txid: String,
    fate: Fate,
    /// Whether it is applied in every group, all credits included.
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The votes that decided it; none where one group decides.
    votes: Vec<VoteLine>,
    /// Of the one group that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
}

#[derive(Serialize)]
struct VoteLine {
    group: String,
    yes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
}

pub(super) async fn submit(
    target: &Target,
    path: &Path,
    keys: &[String],
    wait: TxWait,
    save: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let mut desk = Desk::open(target, false).await?;
    let is_form = path.extension().is_some_and(|extension| extension == "toml");
    let mut file = if is_form { desk.build(path).await? } else { desk.read(path)? };
    add_signatures(&desk, &mut file, keys)?;
    let signed = file.signed(|account| desk.labels().account(account)).map_err(|error| {
        if is_form {
            CliError { fix: "name the missing keys with --key, or build a file that others sign".to_owned(), ..error }
        } else {
            error
        }
    })?;
    if let Some(save) = save {
        write(save, &file)?;
    }
    let sdk_wait = match wait {
        TxWait::Decided => Wait::Receipt,
        TxWait::Applied => Wait::Applied,
    };
    let sent = desk.client()?.submit_tx(signed, file.openings().to_vec(), sdk_wait).await;
    let settled = sent.map_err(|error| {
        let error = CliError::from(error).context(format!("transaction {}", file.txid()));
        if error.code == Reject::TooLate.code() {
            let fix = format!("it may still execute; 'seamark tx explain {}' tells what it waits for", file.txid());
            return CliError { fix, ..error };
        }
        error
    })?;
    let report = report(&settled, wait, save);
    output.result(&report, || report.text())?;
    match settled.no() {
        None => Ok(()),
        Some((group, reject)) => {
            let cause = format!("{group} said no to transaction {}: {}", settled.txid(), reject.cause());
            Err(CliError::new(reject.code(), cause, reject.fix()).after_report())
        }
    }
}

fn report(settled: &Settled, wait: TxWait, save: Option<&Path>) -> Report {
    let no = settled.no();
    let (votes, receipt) = match settled {
        Settled::Receipt(receipt) => (Vec::new(), Some(receipt)),
        Settled::Votes { votes, .. } => {
            let line = |vote: &client::GroupVote| VoteLine {
                group: vote.group.to_string(),
                yes: vote.no.is_none(),
                reason: vote.no.map(Reject::code),
                height: vote.height.map(|height| height.0),
            };
            (votes.iter().map(line).collect(), None)
        }
    };
    let nothing_follows =
        receipt.is_some_and(|receipt| matches!(&receipt.outcome, Outcome::Committed { mail } if mail.is_empty()));
    Report {
        txid: settled.txid().to_string(),
        fate: if no.is_none() { Fate::Committed } else { Fate::Aborted },
        applied: no.is_none() && (wait == TxWait::Applied || nothing_follows),
        reason: no.map(|(group, reject)| Reason::of(group, reject)),
        votes,
        receipt: receipt.map(ReceiptLine::of),
        saved: save.map(|path| path.display().to_string()),
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("transaction {}", self.txid);
        match &self.reason {
            Some(reason) => {
                text.push_str(&format!("\n  aborted: {} said no: {}; nothing changed", reason.group, reason.code))
            }
            None => {
                let who = match (&self.receipt, self.votes.as_slice()) {
                    (Some(receipt), _) => format!("{} decided it in block {}", receipt.group, receipt.height),
                    (None, votes) => {
                        let groups: Vec<&str> = votes.iter().map(|vote| vote.group.as_str()).collect();
                        format!("{} said yes", and(&groups))
                    }
                };
                let applied = if self.applied { "applied everywhere" } else { "it is being applied" };
                text.push_str(&format!("\n  committed: {who}; {applied}"));
            }
        }
        if let Some(saved) = &self.saved {
            text.push_str(&format!("\n  kept in {saved}"));
        }
        format!("{text}\n  each group's part: seamark tx explain {}", self.txid)
    }
}

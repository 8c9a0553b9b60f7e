//! `tx`: what became of a transaction; and transactions as forms and files.

mod again;
mod desk;
mod explain;
mod paper;
mod submit;

use std::time::{Duration, Instant};

use client::Client;
use ledger::{Receipt, TxId};
use proto::views::Explain;
use serde::Serialize;

use super::context::{Context, id};
use super::show::ReceiptLine;
use crate::args::{Tx, TxCommand, TxWait};
use crate::error::CliError;
use crate::explain::{Fate, Reason, Story};
use crate::output::Output;
use explain::look;
pub(super) use explain::transaction;

/// Between two looks at a transaction that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long is waited for one that nobody knows, or whose groups do not answer.
const WAIT_AT_MOST: Duration = Duration::from_secs(60);

pub(super) async fn run(args: Tx, output: Output) -> Result<(), CliError> {
    match args.command {
        None => {
            let id = args.id.as_deref().unwrap_or_default();
            Box::pin(show(&Context::new(&args.target)?, id, args.wait, args.proof.as_deref(), output)).await
        }
        Some(TxCommand::Build { target, form, out, offline }) => {
            Box::pin(paper::build(&target, &form, &out, offline, output)).await
        }
        Some(TxCommand::Show(file)) => Box::pin(paper::show(&file, output)).await,
        Some(TxCommand::Sign { file, key, out }) => {
            Box::pin(paper::sign(&file, &key, &[], out.as_deref(), output)).await
        }
        Some(TxCommand::Cosign { file, key, with, out }) => {
            Box::pin(paper::sign(&file, &key, &with, out.as_deref(), output)).await
        }
        Some(TxCommand::Redact { file, keep, out }) => Box::pin(paper::redact(&file, &keep, &out, output)).await,
        Some(TxCommand::Submit { target, file, key, wait, save }) => {
            Box::pin(submit::submit(&target, &file, &key, wait, save.as_deref(), output)).await
        }
        Some(TxCommand::Resubmit { target, transaction, wait }) => {
            Box::pin(again::resubmit(&target, &transaction, wait, output)).await
        }
        Some(TxCommand::Explain { target, what }) => Box::pin(explain::explain(&target, &what, output)).await,
    }
}

/// A transaction in short. Where there is a receipt, its fields come first.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    receipt: Option<ReceiptLine>,
    fate: Fate,
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    waits_for: Vec<String>,
    /// Its moves in words, as far as they can be seen.
    moves: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    memo: String,
    voters: Vec<String>,
    /// Of every group that voted and has applied the outcome.
    receipts: Vec<ReceiptLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

async fn show(
    context: &Context,
    text: &str,
    wait: Option<TxWait>,
    proof: Option<&std::path::Path>,
    output: Output,
) -> Result<(), CliError> {
    let txid: TxId = id("txid", text)?;
    let client = context.client().await?;
    let (story, answers) = match wait {
        None => look(context, &client, txid, None).await?,
        Some(wait) => wait_for(context, &client, txid, wait).await?,
    };
    let receipts: Vec<&Receipt> = answers.iter().filter_map(|answer| answer.receipt.as_ref()).collect();
    if let Some(path) = proof {
        let group = receipts.first().map(|receipt| receipt.group);
        let answer = client.transaction(txid, group, true).await?;
        let Some(proof) = answer.proof else {
            let cause = format!("no group has a receipt of transaction {txid} yet");
            return Err(CliError::new("not_found", cause, "wait for it with --wait applied"));
        };
        std::fs::write(path, proof.to_file()).map_err(|error| CliError::file(path, &error))?;
    }
    let report = Report {
        receipt: receipts.first().map(|receipt| ReceiptLine::of(receipt)),
        fate: story.fate,
        applied: story.applied,
        reason: story.reason.clone(),
        waits_for: story.waits_for.clone(),
        moves: story.moves.clone(),
        memo: story.memo.clone(),
        voters: story.voters.clone(),
        receipts: receipts.iter().map(|receipt| ReceiptLine::of(receipt)).collect(),
        proof: proof.map(|path| path.display().to_string()),
    };
    output.result(&report, || {
        let mut text = story.head();
        for receipt in &report.receipts {
            text.push_str(&format!("\n{}", receipt.place()));
        }
        match &report.proof {
            Some(proof) => format!("{text}\nproof written to {proof}"),
            None => format!("{text}\neach group's part: seamark tx explain {}", story.txid),
        }
    })
}

async fn wait_for(
    context: &Context,
    client: &Client,
    txid: TxId,
    wait: TxWait,
) -> Result<(Story, Vec<Explain>), CliError> {
    let since = Instant::now();
    loop {
        let found = look(context, client, txid, None).await;
        match found {
            Ok((story, answers)) if done(&story, wait) => return Ok((story, answers)),
            Err(error) if error.code != "not_found" => return Err(error),
            Err(error) if since.elapsed() > WAIT_AT_MOST => return Err(error),
            Ok((story, _)) if since.elapsed() > WAIT_AT_MOST => {
                let cause = format!("transaction {txid} still waits for {}", story.waits_for.join("; "));
                let fix = "see 'seamark status'; it ends by itself once a majority of each group is up";
                return Err(CliError::new("timeout", cause, fix));
            }
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

fn done(story: &Story, wait: TxWait) -> bool {
    let decided = story.fate != Fate::Undecided;
    match wait {
        TxWait::Decided => decided,
        TxWait::Applied => decided && story.waits_for.is_empty(),
    }
}

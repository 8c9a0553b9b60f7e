//! `tx`: what became of a transaction, and sending a signed one again.

use std::path::Path;

use client::{Client, PreparedTx, kept};
use ledger::TxId;
use serde::Serialize;

use super::context::{Context, id};
use super::settle::settle;
use super::show::ReceiptLine;
use crate::args::{Tx, TxCommand, TxResubmit, TxShow};
use crate::error::CliError;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    receipt: ReceiptLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

pub(super) async fn run(args: Tx, output: Output) -> Result<(), CliError> {
    match args.command {
        Some(TxCommand::Resubmit(args)) => resubmit(args, output).await,
        None => show(args.show, output).await,
    }
}

async fn show(args: TxShow, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let txid: TxId = id("txid", args.id.as_deref().unwrap_or_default())?;
    let client = context.client().await?;
    let answer = client.transaction(txid, None, args.proof.is_some()).await?;
    let Some(receipt) = answer.value else {
        let cause = format!("no group has a receipt of transaction {txid}");
        return Err(CliError::new(
            "not_found",
            cause,
            "check the id; if it was just sent, send the same bytes again with 'seamark tx resubmit': the txid makes that safe",
        ));
    };
    if let (Some(path), Some(proof)) = (&args.proof, &answer.proof) {
        std::fs::write(path, proof.to_file()).map_err(|error| CliError::file(path, &error))?;
    }
    let proof = args.proof.as_ref().map(|path| path.display().to_string());
    let report = Report { receipt: ReceiptLine::of(&receipt), proof };
    output.result(&report, || match &report.proof {
        Some(proof) => format!("{}\nproof written to {proof}", report.receipt.text()),
        None => report.receipt.text(),
    })
}

async fn resubmit(args: TxResubmit, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let client = context.client().await?;
    let tx = find(&context, &client, &args.transaction)?;
    let settled = settle(&context, &client, tx, args.wait.into()).await?;
    let receipt = match settled.receipt() {
        Some(receipt) => receipt.clone(),
        // Several groups voted; each has its receipt once it has applied the outcome.
        None => {
            let txid = settled.txid();
            let found = client.transaction(txid, None, false).await?.value;
            let cause = format!("transaction {txid} is committed, and no group has its receipt yet");
            found.ok_or_else(|| CliError::new("not_found", cause, format!("ask for it with 'seamark tx {txid}'")))?
        }
    };
    let report = Report { receipt: ReceiptLine::of(&receipt), proof: None };
    output.result(&report, || report.receipt.text())
}

/// A file, or the id of a transaction that is kept.
fn find(context: &Context, client: &Client, named: &str) -> Result<PreparedTx, CliError> {
    match named.parse::<TxId>() {
        Ok(txid) if !Path::new(named).exists() => Ok(context.kept(client).load(&txid)?),
        _ => Ok(kept::read_file(&client.cluster_id(), Path::new(named))?),
    }
}

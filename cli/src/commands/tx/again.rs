//! `tx resubmit`: a signed transaction is sent again, byte for byte.

use std::path::Path;

use client::{Client, PreparedTx, kept};
use ledger::TxId;

use crate::args::{Target, WaitFor};
use crate::commands::context::Context;
use crate::commands::settle::settle;
use crate::commands::show::ReceiptLine;
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn resubmit(target: &Target, named: &str, wait: WaitFor, output: Output) -> Result<(), CliError> {
    let context = Context::new(target)?;
    let client = context.client().await?;
    let tx = find(&context, &client, named)?;
    let settled = settle(&context, &client, tx, wait.into()).await?;
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
    let line = ReceiptLine::of(&receipt);
    output.result(&line, || line.text())
}

/// A file, or the id of a transaction that is kept.
fn find(context: &Context, client: &Client, named: &str) -> Result<PreparedTx, CliError> {
    match named.parse::<TxId>() {
        Ok(txid) if !Path::new(named).exists() => Ok(context.kept(client).load(&txid)?),
        _ => Ok(kept::read_file(&client.cluster_id(), Path::new(named))?),
    }
}

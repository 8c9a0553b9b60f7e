//! `tx`: what became of a transaction.

use ledger::TxId;
use serde::Serialize;

use super::context::{Context, id};
use super::show::ReceiptLine;
use crate::args::Tx;
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
    let context = Context::new(&args.target)?;
    let txid: TxId = id("txid", &args.id)?;
    let client = context.client().await?;
    let answer = client.transaction(txid, None, args.proof.is_some()).await?;
    let Some(receipt) = answer.value else {
        let cause = format!("no group has a receipt of transaction {txid}");
        return Err(CliError::new(
            "not_found",
            cause,
            "check the id; if it was just sent, send the same bytes again: the txid makes that safe",
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

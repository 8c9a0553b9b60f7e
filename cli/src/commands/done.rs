//! Small commands that are one move: sign it with one key, send it, wait until it is applied.

use client::{Client, Settled, Wait};
use ledger::{LedgerId, Move};
use serde::Serialize;

use super::show::ReceiptLine;
use crate::error::CliError;
use crate::load::sign::Party;
use crate::output::Output;

/// What was done.
#[derive(Serialize)]
struct Done {
    done: String,
    txid: String,
    /// The groups that agreed.
    groups: Vec<String>,
    /// Of the one group that decided, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptLine>,
}

/// Executes the move and prints `what` happened. The move is applied when this returns.
pub(super) async fn execute(
    client: &Client,
    party: &Party,
    mv: Move,
    what: String,
    output: Output,
) -> Result<(), CliError> {
    let settled = client.execute(vec![(LedgerId::MAIN, mv)], b"", &[&party.key], Wait::Applied).await?;
    let groups = match &settled {
        Settled::Receipt(receipt) => vec![receipt.group.to_string()],
        Settled::Votes { votes, .. } => votes.iter().map(|vote| vote.group.to_string()).collect(),
    };
    let done =
        Done { done: what, txid: settled.txid().to_string(), groups, receipt: settled.receipt().map(ReceiptLine::of) };
    output.result(&done, || {
        format!("{}\n  transaction {}, applied in {}", done.done, done.txid, crate::draft::words::and(&done.groups))
    })
}

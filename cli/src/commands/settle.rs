//! Sending what has been signed, so that nobody ever needs to sign it twice: the bytes are kept in
//! the cluster's folder before they are sent, and as long as their fate is open.

use client::{Client, ClientError, PreparedTx, Settled, Wait};
use ledger::{LedgerId, Move, ParsedTx, SecretKey, SignedTx};

use super::context::Context;
use super::stop::{Stop, interrupted};
use crate::args::WaitFor;
use crate::error::{CliError, OpenTx};

impl From<WaitFor> for Wait {
    fn from(wait: WaitFor) -> Self {
        match wait {
            WaitFor::Receipt => Self::Receipt,
            WaitFor::Applied => Self::Applied,
        }
    }
}

/// Signs moves and settles the transaction.
///
/// # Errors
/// As [`settle`].
pub(super) async fn execute(
    context: &Context,
    client: &Client,
    moves: Vec<(LedgerId, Move)>,
    memo: &[u8],
    keys: &[&SecretKey],
    wait: Wait,
) -> Result<Settled, CliError> {
    let tx = SignedTx::sign(&client.body(moves, memo)?, keys).encode();
    // What needs no state to be refused is neither kept nor sent.
    ParsedTx::decode(&client.cluster_id(), &tx).map_err(ClientError::BadTransaction)?;
    let tx = PreparedTx::from_bytes(&client.cluster_id(), tx.into()).map_err(ClientError::BadTransaction)?;
    settle(context, client, tx, wait).await
}

/// Keeps a signed transaction, sends it, and forgets it when its fate is known.
///
/// # Errors
/// What the cluster says. With a fate that is open the error names the txid and the file, and the way
/// to send the same bytes again.
pub(super) async fn settle(
    context: &Context,
    client: &Client,
    tx: PreparedTx,
    wait: Wait,
) -> Result<Settled, CliError> {
    let mut stop = Stop::listen()?;
    let kept = context.kept(client);
    let file = kept.keep(&tx)?;
    let settled = tokio::select! {
        settled = client.settle(tx.bytes.clone(), wait) => settled,
        () = stop.asked() => return Err(open(interrupted(), &tx, &file)),
    };
    match settled {
        Err(error) if !error.is_final() => Err(open(error.into(), &tx, &file)),
        known => {
            kept.forget(&tx.txid)?;
            Ok(known?)
        }
    }
}

fn open(error: CliError, tx: &PreparedTx, file: &std::path::Path) -> CliError {
    let again = format!(
        "send the same bytes again with 'seamark tx resubmit {}'; a new payment instead could pay twice",
        tx.txid
    );
    // What would have helped the first time may still be needed before the second.
    let fix = if error.code == "interrupted" { again } else { format!("{}; then {again}", error.fix) };
    let transaction = OpenTx { txid: tx.txid.to_string(), file: file.display().to_string() };
    CliError { fix, transaction: Some(Box::new(transaction)), ..error }
}

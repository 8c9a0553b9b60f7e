//! `tx explain`: asks every group, finds the credits in the history of payees, and shows the story.

use std::path::Path;

use client::Client;
use ledger::{Address, Move, ParsedTx, TxId};
use proto::views::{Explain, HistoryChange};

use super::super::context::{Context, assets_of, id};
use super::desk::Desk;
use crate::args::Target;
use crate::error::CliError;
use crate::explain::{Arrival, Facts, Story, tell};
use crate::output::Output;

/// Lines of a payee's history that are searched for the credit at once, and how often. A credit
/// further back is told by its mail alone.
const PAGE: u32 = 500;
const PAGES: usize = 10;

pub(super) async fn explain(target: &Target, what: &str, output: Output) -> Result<(), CliError> {
    let path = Path::new(what);
    let (txid, file) = if path.is_file() {
        let file = Desk::open(target, true).await?.read(path)?;
        (file.txid(), Some(file.parsed()))
    } else {
        (id::<TxId>("txid", what)?, None)
    };
    let context = Context::new(target)?;
    let client = context.client().await?;
    let (story, _) = look(&context, &client, txid, file).await?;
    output.result(&story, || story.text())
}

/// What all groups say of a transaction now. A file of it shows hidden moves, too.
pub(super) async fn look(
    context: &Context,
    client: &Client,
    txid: TxId,
    file: Option<ParsedTx>,
) -> Result<(Story, Vec<Explain>), CliError> {
    let answers = client.explain(txid).await?;
    let tx = file.or_else(|| transaction(client, &answers));
    let mut labels = context.labels();
    let mut arrivals = Vec::new();
    if let Some(tx) = &tx {
        let moves: Vec<&Move> = tx.visible().map(|(_, _, mv)| mv).collect();
        context.label_assets(client, assets_of(moves.iter().copied()), &mut labels).await;
        if answers.iter().any(|answer| answer.receipt.as_ref().is_some_and(ledger::Receipt::committed)) {
            arrivals = credits(client, txid, &moves).await?;
        }
    }
    let facts = Facts { txid, answers: &answers, tx: tx.as_ref(), arrivals: &arrivals, labels: &labels };
    let story = tell(&facts)?;
    Ok((story, answers))
}

/// The transaction as the first group has it that still has it.
pub(in crate::commands) fn transaction(client: &Client, answers: &[Explain]) -> Option<ParsedTx> {
    let bytes = answers.iter().map(|answer| answer.prepared.as_ref().map_or(&answer.tx, |prepared| &prepared.tx));
    bytes.filter(|bytes| !bytes.is_empty()).find_map(|bytes| ParsedTx::decode(&client.cluster_id(), bytes).ok())
}

/// Credits of this transaction in the history of its payees.
async fn credits(client: &Client, txid: TxId, moves: &[&Move]) -> Result<Vec<Arrival>, CliError> {
    let mut payees: Vec<Address> = moves.iter().filter_map(|mv| mv.follower()).collect();
    payees.sort_unstable();
    payees.dedup();
    let mut arrivals = Vec::new();
    for account in payees {
        let mut before = None;
        for _ in 0..PAGES {
            let answer = client.history(account, before, PAGE).await?;
            for line in answer.value.lines.iter().filter(|line| line.txid == txid) {
                let (asset, amount, suspended) = match line.change {
                    HistoryChange::Credit { asset, amount, .. } => (asset, amount, false),
                    HistoryChange::Suspended { asset, amount, .. } => (asset, amount, true),
                    _ => continue,
                };
                let (height, time_ms) = (line.height, line.time_ms);
                arrivals.push(Arrival { group: answer.group, account, asset, amount, suspended, height, time_ms });
            }
            before = answer.value.before;
            if before.is_none() || arrivals.iter().any(|arrival| arrival.account == account) {
                break;
            }
        }
    }
    Ok(arrivals)
}

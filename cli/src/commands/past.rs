//! What an account's history and the transactions behind it tell. Nodes list no records and no parties, so
//! they are read from the moves that made them, which groups keep as long as they keep the blocks. None of it is
//! proved; what is asked for by name is.

use client::Client;
use ledger::{Address, LedgerId, Move, ParsedTx, TimeMs, TxId};
use proto::views::{Explain, HistoryChange};

use super::tx::transaction;
use crate::error::CliError;

/// Lines of history that are asked for at once.
const PAGE: u32 = 500;
/// Transactions that are looked up at once.
const AT_ONCE: usize = 16;

/// A transaction in the past of an account.
pub(super) struct Step {
    pub(super) txid: TxId,
    /// Where the account is.
    ledger: LedgerId,
    /// Time of the block that applied it at the account.
    pub(super) time_ms: TimeMs,
    /// What was asked for of what it did to the account.
    changes: Vec<HistoryChange>,
    /// `None` where no group has it any more.
    tx: Option<ParsedTx>,
}

impl Step {
    /// Moves of the account's ledger that can be seen and are `of` interest, each with its slot.
    pub(super) fn moves<'a>(&'a self, of: impl Fn(&Move) -> bool + 'a) -> impl Iterator<Item = (u16, &'a Move)> {
        let seen = self.tx.iter().flat_map(ParsedTx::visible);
        seen.filter(move |(_, ledger, mv)| *ledger == self.ledger && of(mv)).map(|(slot, _, mv)| (slot, mv))
    }

    /// Whether the account's history tells of more than can be seen: moves were hidden, or the transaction
    /// is gone.
    pub(super) fn hides(&self, of: impl Fn(&Move) -> bool) -> bool {
        self.moves(of).count() < self.changes.len()
    }
}

/// The transactions that did to an account what is `wanted`, newest first, back to the first one that is
/// `enough`, or to the beginning.
///
/// # Errors
/// What the cluster says; `unanswered` and the like when a group that may have a transaction is silent.
pub(super) async fn steps(
    client: &Client,
    (ledger, account): (LedgerId, Address),
    wanted: impl Fn(&HistoryChange) -> bool,
    enough: impl Fn(&Step) -> bool,
) -> Result<Vec<Step>, CliError> {
    let mut steps: Vec<Step> = Vec::new();
    let mut before = None;
    loop {
        let page = client.history_of(ledger, account, before, PAGE).await?.value;
        let mut known = steps.len();
        for line in page.lines.into_iter().filter(|line| wanted(&line.change)) {
            match steps.last_mut().filter(|last| last.txid == line.txid) {
                // A transaction's lines follow each other, at most with the end of a page between them.
                Some(last) => last.changes.push(line.change),
                None => {
                    let (txid, time_ms) = (line.txid, line.time_ms);
                    steps.push(Step { txid, ledger, time_ms, changes: vec![line.change], tx: None });
                }
            }
        }
        while known < steps.len() {
            let until = steps.len().min(known + AT_ONCE);
            let txids: Vec<TxId> = steps[known..until].iter().map(|step| step.txid).collect();
            let asked = txids.iter().map(|txid| look_up(client, *txid));
            for (step, found) in steps[known..until].iter_mut().zip(futures::future::join_all(asked).await) {
                step.tx = found?;
            }
            if steps[known..until].iter().any(&enough) {
                return Ok(steps);
            }
            known = until;
        }
        before = page.before;
        if before.is_none() {
            return Ok(steps);
        }
    }
}

async fn look_up(client: &Client, txid: TxId) -> Result<Option<ParsedTx>, CliError> {
    let answers = client.explain(txid).await?;
    let found = transaction(client, &answers).filter(|tx| tx.txid == txid);
    match (found, answers.iter().find_map(silent)) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

fn silent(answer: &Explain) -> Option<CliError> {
    let silent = answer.unanswered.as_ref()?;
    let cause = format!("{} did not answer: {}", answer.group, silent.detail);
    Some(CliError::new(silent.code.clone(), cause, "see 'seamark status' for the group, and ask again"))
}

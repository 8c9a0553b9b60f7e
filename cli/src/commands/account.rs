//! `account`: balances, history, and a proof to take away.

use client::Consistency;
use ledger::{AccountRecord, Address, Authorisation};
use proto::views::{HistoryChange, HistoryLine};
use serde::Serialize;

use super::amounts::Assets;
use super::context::Context;
use crate::args::{Account, Freshness};
use crate::error::CliError;
use crate::output::{Output, moment, table};

/// Lines of history asked for at once.
const PAGE: u32 = 200;

#[derive(Serialize)]
struct Report {
    address: String,
    exists: bool,
    group: String,
    height: u64,
    sequence: u64,
    frozen: bool,
    authorisation: String,
    balances: Vec<BalanceLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Change>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

#[derive(Serialize)]
struct BalanceLine {
    asset: String,
    posted: String,
    held: String,
    available: String,
}

#[derive(Serialize)]
struct Change {
    height: u64,
    index: u32,
    time_ms: u64,
    txid: String,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
}

impl Change {
    fn of(line: &HistoryLine) -> Self {
        let text = |address: &Option<Address>| address.map(|address| address.to_string());
        let (change, asset, amount, other) = match &line.change {
            HistoryChange::Debit { asset, amount, to } => {
                (if to.is_some() { "paid" } else { "burned" }, Some(asset), Some(amount), text(to))
            }
            HistoryChange::Credit { asset, amount, from } => ("received", Some(asset), Some(amount), text(from)),
            HistoryChange::Rotated => ("rotated", None, None, None),
            HistoryChange::Suspended { asset, amount, from } => ("suspended", Some(asset), Some(amount), text(from)),
            HistoryChange::Released { asset, amount } => ("released", Some(asset), Some(amount), None),
            HistoryChange::Returned { asset, amount, to } => ("returned", Some(asset), Some(amount), text(to)),
            HistoryChange::Frozen(asset) => ("frozen", asset.as_ref(), None, None),
            HistoryChange::Thawed(asset) => ("thawed", asset.as_ref(), None, None),
            HistoryChange::Written => ("written", None, None, None),
            HistoryChange::Issued(asset) => ("issued", Some(asset), None, None),
        };
        Self {
            height: line.height.0,
            index: line.index,
            time_ms: line.time_ms.0,
            txid: line.txid.to_string(),
            change,
            asset: asset.map(ToString::to_string),
            amount: amount.map(ToString::to_string),
            other,
        }
    }
}

pub(super) async fn run(args: Account, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let address = context.address(&args.address)?;
    let client = context.client().await?;
    let consistency = match args.consistency {
        Freshness::Linearizable => Consistency::Linearizable,
        Freshness::Stale => Consistency::Stale,
    };
    let answer = client.account(address, consistency, args.proof.is_some()).await?;
    if let (Some(path), Some(proof)) = (&args.proof, &answer.proof) {
        std::fs::write(path, proof.to_file()).map_err(|error| CliError::file(path, &error))?;
    }
    let history = if args.history { Some(history(&client, address, args.limit).await?) } else { None };
    let exists = answer.value.is_some();
    let record = answer.value.unwrap_or_default();
    let report = Report {
        address: address.to_string(),
        exists,
        group: answer.group.to_string(),
        height: answer.height.0,
        sequence: record.sequence,
        frozen: record.flags & ledger::account::FLAG_FROZEN != 0,
        authorisation: authorisation(&record),
        balances: balances(&record),
        history,
        proof: args.proof.as_ref().map(|path| path.display().to_string()),
    };
    let balances = record.balances.iter().map(|(asset, _)| *asset);
    let changes = report.history.iter().flatten().filter_map(|change| change.asset.as_ref()?.parse().ok());
    let assets = Assets::of(&client, balances.chain(changes), output).await;
    output.result(&report, || text(&report, &assets))
}

async fn history(client: &client::Client, address: Address, limit: u32) -> Result<Vec<Change>, CliError> {
    let mut changes = Vec::new();
    let mut before = None;
    let limit_lines = usize::try_from(limit).unwrap_or(usize::MAX);
    while changes.len() < limit_lines {
        let left = u32::try_from(limit_lines - changes.len()).unwrap_or(u32::MAX);
        let page = client.history(address, before, left.min(PAGE)).await?.value;
        changes.extend(page.lines.iter().map(Change::of));
        before = page.before_height;
        if before.is_none() {
            break;
        }
    }
    changes.truncate(limit_lines);
    Ok(changes)
}

pub(super) fn authorisation(record: &AccountRecord) -> String {
    match &record.auth {
        None => "not revealed: the account has never paid".to_owned(),
        Some(Authorisation::Single(key)) => key.to_string(),
        Some(Authorisation::Multi { threshold, keys }) => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("{threshold} of {}", keys.join(", "))
        }
    }
}

fn balances(record: &AccountRecord) -> Vec<BalanceLine> {
    let line = |(asset, balance): &(ledger::AssetId, ledger::Balance)| BalanceLine {
        asset: asset.to_string(),
        posted: balance.posted.to_string(),
        held: balance.held.to_string(),
        available: balance.posted.saturating_sub(balance.held).to_string(),
    };
    record.balances.iter().map(line).collect()
}

fn text(report: &Report, assets: &Assets) -> String {
    let number = |asset: &str, text: &str| match (asset.parse(), text.parse()) {
        (Ok(asset), Ok(amount)) => assets.number(&asset, amount),
        _ => text.to_owned(),
    };
    let name = |asset: &str| asset.parse().map_or_else(|_| asset.to_owned(), |id| assets.name(&id));
    let mut text = format!("account {}\n  in {} at height {}", report.address, report.group, report.height);
    if !report.exists {
        text.push_str("\n  there is no such account yet: it holds nothing and has never been paid");
    } else {
        text.push_str(&format!("\n  authorisation: {}", report.authorisation));
        let rows = report.balances.iter().map(|line| {
            let (available, held) = (number(&line.asset, &line.available), number(&line.asset, &line.held));
            [name(&line.asset), available, held, line.asset.clone()]
        });
        match report.balances.is_empty() {
            true => text.push_str("\n  holds nothing"),
            false => text.push_str(&format!("\n{}", table(["asset", "available", "held", "asset's id"], rows))),
        }
    }
    if let Some(history) = &report.history {
        let rows = history.iter().map(|line| {
            let amount = match (&line.asset, &line.amount) {
                (Some(asset), Some(amount)) => format!("{} {}", number(asset, amount), name(asset)),
                _ => String::new(),
            };
            [
                line.height.to_string(),
                moment(line.time_ms),
                line.change.to_owned(),
                amount,
                line.other.clone().unwrap_or_default(),
                line.txid.clone(),
            ]
        });
        text.push_str(&format!("\n{}", table(["block", "time", "what", "amount", "with", "transaction"], rows)));
    }
    if let Some(proof) = &report.proof {
        text.push_str(&format!("\nproof written to {proof}; check it offline with: seamark verify {proof}"));
    }
    text
}

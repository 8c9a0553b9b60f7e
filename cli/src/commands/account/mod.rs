//! `account`: balances, holds, restrictions, data and history, and a proof to take away; and the
//! small commands that change one.

mod change;

use client::{Client, Consistency};
use ledger::account::FLAG_FROZEN;
use ledger::claim::{Claim, Item};
use ledger::limits::{ACCOUNT_LINES_MAX, LINES_COUNTED_MAX};
use ledger::{AccountRecord, Address, AssetId, Authorisation, LedgerId};
use proto::views::{AccountView, HistoryChange, HistoryLine, HistoryPlace};
use serde::Serialize;

use super::context::Context;
use super::place::Place;
use crate::args::{Account, Freshness};
use crate::draft::words::{Labels, quoted};
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
    /// What undecided transactions rely on, besides held amounts.
    undecided: Vec<ClaimLine>,
    data: Vec<DataLine>,
    /// There are more entries than are shown here.
    more_data: bool,
    /// Lines of balances, restrictions and limits that are not shown; at least so many where they were not counted.
    more_lines: u32,
    /// They were not counted to the end.
    more_lines_uncounted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Change>>,
    /// What `--before` has to be for older lines of history; none when there are no older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    older: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
    /// Whoever asks is an auditor of some assets: all of this is about them, and there may be more.
    partial: bool,
}

#[derive(Serialize)]
struct BalanceLine {
    asset: String,
    /// What people call it.
    label: String,
    posted: String,
    held: String,
    available: String,
    /// Arrived while debits were frozen; spendable once it is released.
    suspense: String,
    /// Whether the issuer froze it.
    frozen: bool,
    /// The most that one transaction may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_per_tx: Option<String>,
}

#[derive(Serialize)]
struct ClaimLine {
    txid: String,
    claim: String,
}

#[derive(Serialize)]
struct DataLine {
    key: String,
    value: String,
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
            HistoryChange::Locked { asset, amount, to } => ("locked", Some(asset), Some(amount), text(to)),
            HistoryChange::Claimed { asset, amount, to } => ("lock_claimed", Some(asset), Some(amount), text(to)),
            HistoryChange::Refunded { asset, amount } => ("lock_refunded", Some(asset), Some(amount), None),
            HistoryChange::Recorded => ("recorded", None, None, None),
            HistoryChange::Granted(to) => ("granted", None, None, text(to)),
            HistoryChange::Revoked(from) => ("revoked", None, None, text(from)),
            HistoryChange::Departed { asset, amount, other } => ("departed", Some(asset), Some(amount), text(other)),
            HistoryChange::Arrived { asset, amount, to } => ("arrived", Some(asset), Some(amount), text(to)),
            HistoryChange::Minted { asset, amount, to } => ("minted", Some(asset), Some(amount), text(to)),
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
    match args.command {
        Some(command) => Box::pin(change::run(command, output)).await,
        None => Box::pin(show(args, output)).await,
    }
}

async fn show(args: Account, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.on.target)?;
    let address = context.address(args.address.as_deref().unwrap_or_default())?;
    let Place { context, client, ledger } = Place::enter(context, &args.on).await?;
    let consistency = match args.consistency {
        Freshness::Linearizable => Consistency::Linearizable,
        Freshness::Stale => Consistency::Stale,
    };
    if let Some(path) = &args.proof {
        let answer = client.account_of(ledger, address, consistency, true).await?;
        if let Some(proof) = &answer.proof {
            std::fs::write(path, proof.to_file()).map_err(|error| CliError::file(path, &error))?;
        }
    }
    let answer = client.account_view_of(ledger, address, consistency, None).await?;
    let (history, older) = if args.history {
        let (lines, older) = history(&client, (ledger, address), args.before, args.limit).await?;
        (Some(lines), older.map(|place| place.to_string()))
    } else {
        (None, None)
    };
    let (exists, partial) = (answer.value.is_some(), answer.partial);
    let view = answer.value.unwrap_or_else(nothing);
    let mut labels = context.labels();
    let mut shown = assets(&view);
    if !output.is_json() {
        shown.extend(history.iter().flatten().filter_map(|change| change.asset.as_ref()?.parse::<AssetId>().ok()));
    }
    context.label_assets(&client, shown, &mut labels).await;
    let report = Report {
        address: address.to_string(),
        exists,
        group: answer.group.to_string(),
        height: answer.height.0,
        sequence: view.record.sequence,
        frozen: view.record.flags & FLAG_FROZEN != 0,
        authorisation: if partial { "not shown".to_owned() } else { authorisation(&view.record) },
        balances: balances(&view, &labels),
        undecided: view
            .claims
            .iter()
            .map(|claimed| ClaimLine { txid: claimed.txid.to_string(), claim: claim(&claimed.claim, &labels) })
            .collect(),
        data: view.data.iter().map(|(key, value)| DataLine { key: quoted(key), value: quoted(value) }).collect(),
        more_data: view.more_data,
        more_lines: view.more_lines,
        more_lines_uncounted: uncounted(view.more_lines),
        history,
        older,
        proof: args.proof.as_ref().map(|path| path.display().to_string()),
        partial,
    };
    output.result(&report, || text(&report, &labels))
}

fn nothing() -> AccountView {
    AccountView {
        version: 1,
        record: AccountRecord::default(),
        restrictions: Vec::new(),
        limits: Vec::new(),
        supplies: Vec::new(),
        claims: Vec::new(),
        more_lines: 0,
        data: Vec::new(),
        more_data: false,
    }
}

/// Whether of some kind as many lines are left out as are counted at all.
fn uncounted(more_lines: u32) -> bool {
    usize::try_from(more_lines).is_ok_and(|more| more >= LINES_COUNTED_MAX - ACCOUNT_LINES_MAX)
}

/// Every asset that has a line, by id.
fn assets(view: &AccountView) -> Vec<AssetId> {
    let balances = view.record.balances.iter().map(|line| line.0);
    let others = view.restrictions.iter().map(|line| line.asset).chain(view.limits.iter().map(|line| line.0));
    let mut assets: Vec<AssetId> = balances.chain(others).collect();
    assets.sort_unstable();
    assets.dedup();
    assets
}

/// Lines of history before a place, and the place before which there are older ones.
async fn history(
    client: &Client,
    (ledger, address): (LedgerId, Address),
    mut before: Option<HistoryPlace>,
    limit: u32,
) -> Result<(Vec<Change>, Option<HistoryPlace>), CliError> {
    let mut changes = Vec::new();
    let limit_lines = usize::try_from(limit).unwrap_or(usize::MAX);
    while changes.len() < limit_lines {
        let left = u32::try_from(limit_lines - changes.len()).unwrap_or(u32::MAX);
        let page = client.history_of(ledger, address, before, left.min(PAGE)).await?.value;
        changes.extend(page.lines.iter().map(Change::of));
        before = page.before;
        if before.is_none() {
            break;
        }
    }
    Ok((changes, before))
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

fn balances(view: &AccountView, labels: &Labels) -> Vec<BalanceLine> {
    let line = |asset: &AssetId| {
        let balance = view.record.balances.iter().find(|line| line.0 == *asset).map(|line| line.1).unwrap_or_default();
        let restriction = view.restrictions.iter().find(|line| line.asset == *asset);
        BalanceLine {
            asset: asset.to_string(),
            label: labels.asset(asset),
            posted: balance.posted.to_string(),
            held: balance.held.to_string(),
            available: balance.available().to_string(),
            suspense: restriction.map_or(0, |line| line.suspense).to_string(),
            frozen: restriction.is_some_and(|line| line.frozen),
            limit_per_tx: view.limits.iter().find(|line| line.0 == *asset).map(|line| line.1.to_string()),
        }
    };
    assets(view).iter().map(line).collect()
}

/// What an undecided transaction relies on, in words.
fn claim(claim: &Claim, labels: &Labels) -> String {
    match claim {
        Claim::AtLeast { asset, amount } => format!("at least {} stay available", labels.amount(*amount, asset)),
        Claim::AtMost { asset, amount } => format!("no more than {}", labels.amount(*amount, asset)),
        Claim::Incoming { asset, amount } => format!("{} will be credited", labels.amount(*amount, asset)),
        Claim::Version => "the account's version stays".to_owned(),
        Claim::Change(item) => match item {
            Item::Auth => "its keys will change".to_owned(),
            Item::Data(key) => format!("{} will change", quoted(key)),
            Item::Limit(asset) => format!("the limit of {} will change", labels.asset(asset)),
            Item::Frozen => "it will be frozen or thawed".to_owned(),
            Item::Restriction(asset) => format!("{} will be frozen or thawed by the issuer", labels.asset(asset)),
            Item::Lock(lock) => format!("the lock {lock} will be claimed or refunded"),
            Item::Record(hash) => format!("the hash {hash} will be recorded"),
            Item::Grant(record, who) => {
                format!("what {} may do with the record {record} will change", labels.grantee(who))
            }
        },
        Claim::Mint { asset, amount } => format!("{} will be created", labels.amount(*amount, asset)),
        Claim::Suspense { asset, amount } => format!("{} will leave its suspense", labels.amount(*amount, asset)),
    }
}

fn text(report: &Report, labels: &Labels) -> String {
    let number = |asset: &str, text: &str| match (asset.parse(), text.parse()) {
        (Ok(asset), Ok(amount)) => labels.number(amount, &asset),
        _ => text.to_owned(),
    };
    let name = |asset: &str| asset.parse().map_or_else(|_| asset.to_owned(), |id| labels.asset(&id));
    let mut text = format!("account {}\n  in {} at height {}", report.address, report.group, report.height);
    if report.partial {
        text.push_str("\n  shown is what is of the assets of your audit grants");
    }
    if !report.exists && report.partial {
        text.push_str(": nothing");
    } else if !report.exists {
        text.push_str("\n  there is no such account yet: it holds nothing and has never been paid");
    } else {
        if !report.partial {
            text.push_str(&format!("\n  authorisation: {}\n  version: {}", report.authorisation, report.sequence));
        }
        if report.frozen {
            text.push_str("\n  FROZEN: nothing can be debited");
        }
        let rows = report.balances.iter().map(|line| {
            [
                line.label.clone(),
                number(&line.asset, &line.available),
                number(&line.asset, &line.held),
                number(&line.asset, &line.suspense),
                if line.frozen { "yes".to_owned() } else { String::new() },
                line.limit_per_tx.as_deref().map(|limit| number(&line.asset, limit)).unwrap_or_default(),
                line.asset.clone(),
            ]
        });
        let header = ["asset", "available", "held", "suspense", "frozen", "limit", "asset's id"];
        if report.balances.is_empty() {
            text.push_str("\n  holds nothing");
        } else {
            text.push_str(&format!("\n{}", table(header, rows)));
        }
        if report.more_lines > 0 {
            let least = if report.more_lines_uncounted { "at least " } else { "" };
            text.push_str(&format!("\n… and {least}{} more", report.more_lines));
        }
    }
    if !report.undecided.is_empty() {
        let rows = report.undecided.iter().map(|line| [line.claim.clone(), line.txid.clone()]);
        text.push_str(&format!("\n{}", table(["undecided", "transaction"], rows)));
    }
    if !report.data.is_empty() {
        let rows = report.data.iter().map(|line| [line.key.clone(), line.value.clone()]);
        text.push_str(&format!("\n{}", table(["data", "value"], rows)));
        if report.more_data {
            text.push_str("\nthere is more data: seamark account data get shows all of it");
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
        if let Some(older) = &report.older {
            text.push_str(&format!("\n… and older lines: add --before {older}"));
        }
    }
    if let Some(proof) = &report.proof {
        text.push_str(&format!("\nproof written to {proof}; check it offline with: seamark verify {proof}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(more_lines: u32, older: Option<&str>) -> Report {
        Report {
            address: "sm1".to_owned(),
            exists: true,
            group: "shard-0".to_owned(),
            height: 1,
            sequence: 0,
            frozen: false,
            authorisation: String::new(),
            balances: Vec::new(),
            undecided: Vec::new(),
            data: Vec::new(),
            more_data: false,
            more_lines,
            more_lines_uncounted: uncounted(more_lines),
            history: Some(Vec::new()),
            older: older.map(ToOwned::to_owned),
            proof: None,
            partial: false,
        }
    }

    #[test]
    fn what_is_left_out_is_said() {
        let all = text(&report(0, None), &Labels::default());
        assert!(!all.contains('…'), "{all}");
        let some = text(&report(12, Some("7:3")), &Labels::default());
        assert!(some.contains("… and 12 more") && some.contains("--before 7:3"), "{some}");
        let most = u32::try_from(LINES_COUNTED_MAX - ACCOUNT_LINES_MAX).unwrap();
        let part = Report { partial: true, exists: false, ..report(0, None) };
        let part = text(&part, &Labels::default());
        assert!(part.contains("your audit grants: nothing") && !part.contains("no such account"), "{part}");
        let very_many = text(&report(most, None), &Labels::default());
        assert!(very_many.contains(&format!("… and at least {most} more")), "{very_many}");
        let json = serde_json::to_value(report(12, Some("7:3"))).unwrap();
        assert_eq!((&json["more_lines"], &json["older"]), (&12.into(), &"7:3".into()));
    }
}

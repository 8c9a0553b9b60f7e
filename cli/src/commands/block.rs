//! `block`: a block's header, certificate and receipts.

use ledger::{GroupId, Height};
use proto::views::BlockView;
use serde::Serialize;

use super::context::{Context, id};
use super::show::ReceiptLine;
use crate::args::Block;
use crate::error::CliError;
use crate::output::{Output, grouped, moment, table};

/// Receipts that people are shown.
const RECEIPTS_SHOWN: usize = 20;

#[derive(Serialize)]
struct Report {
    group: String,
    height: u64,
    hash: String,
    parents: Vec<String>,
    time_ms: u64,
    incarnation: u32,
    layout_version: u64,
    state_root: String,
    receipts_root: String,
    batch_root: String,
    outbox_root: String,
    inbox_cursors_root: String,
    committee_hash: String,
    next_committee_hash: String,
    value_flow: Vec<Flow>,
    /// Nodes whose signatures certify it; empty while there are too few.
    signers: Vec<u32>,
    receipts: Vec<ReceiptLine>,
}

#[derive(Serialize)]
struct Flow {
    asset: String,
    opening: String,
    closing: String,
    minted: String,
    burned: String,
    imported: String,
    exported: String,
    balances: bool,
}

pub(super) async fn run(args: Block, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let group: GroupId = id("group", &args.group)?;
    let client = context.client().await?;
    let Some(view) = client.block(group, Height(args.height)).await?.value else {
        let cause = format!("{group} has no block {} (yet, or any more)", args.height);
        return Err(CliError::new("not_found", cause, "see its height with 'seamark status'"));
    };
    let report = describe(&view);
    output.result(&report, || text(&report))
}

fn describe(view: &BlockView) -> Report {
    let header = &view.header;
    let sum = |peers: &[(GroupId, u128)]| {
        peers.iter().fold(0u128, |sum, (_, amount)| sum.saturating_add(*amount)).to_string()
    };
    let flow = |line: &ledger::flow::FlowLine| Flow {
        asset: line.asset.to_string(),
        opening: line.opening.to_string(),
        closing: line.closing.to_string(),
        minted: line.minted.to_string(),
        burned: line.burned.to_string(),
        imported: sum(&line.imported),
        exported: sum(&line.exported),
        balances: line.balances(),
    };
    let signers = view.certificate.iter().flat_map(|certificate| &certificate.signatures).map(|(node, _)| node.0);
    Report {
        group: header.group.to_string(),
        height: header.height.0,
        hash: header.hash().to_string(),
        parents: header.parents.iter().map(ToString::to_string).collect(),
        time_ms: header.time_ms.0,
        incarnation: header.incarnation.0,
        layout_version: header.layout_version.0,
        state_root: header.state_root.to_string(),
        receipts_root: header.receipts_root.to_string(),
        batch_root: header.batch_root.to_string(),
        outbox_root: header.outbox_root.to_string(),
        inbox_cursors_root: header.inbox_cursors_root.to_string(),
        committee_hash: header.committee_hash.to_string(),
        next_committee_hash: header.next_committee_hash.to_string(),
        value_flow: header.value_flow.iter().map(flow).collect(),
        signers: signers.collect(),
        receipts: view.receipts.iter().map(ReceiptLine::of).collect(),
    }
}

fn text(report: &Report) -> String {
    let signers: Vec<String> = report.signers.iter().map(|node| format!("node-{node}")).collect();
    let certified = if signers.is_empty() {
        "not certified yet".to_owned()
    } else {
        format!("certified by {}", signers.join(", "))
    };
    let receipts = report.receipts.iter().take(RECEIPTS_SHOWN).map(|receipt| {
        [receipt.index.to_string(), receipt.reject.unwrap_or(receipt.outcome).to_owned(), receipt.txid.clone()]
    });
    let more = report.receipts.len().saturating_sub(RECEIPTS_SHOWN);
    let number = |text: &str| text.parse().map_or_else(|_| text.to_owned(), grouped);
    let flows = report.value_flow.iter().map(|flow| {
        [
            flow.asset.clone(),
            number(&flow.opening),
            number(&flow.closing),
            number(&flow.imported),
            number(&flow.exported),
            number(&flow.minted),
            number(&flow.burned),
        ]
    });
    let mut text = format!(
        "block {} of {}\n  hash        {}\n  parent      {}\n  time        {}\n  state root  {}\n  {certified}",
        report.height,
        report.group,
        report.hash,
        report.parents.join(", "),
        moment(report.time_ms),
        report.state_root
    );
    if !report.value_flow.is_empty() {
        text.push_str(&format!(
            "\n{}",
            table(["asset", "opening", "closing", "imported", "exported", "minted", "burned"], flows)
        ));
    }
    if !report.receipts.is_empty() {
        text.push_str(&format!("\n{}", table(["position", "outcome", "transaction"], receipts)));
    }
    if more > 0 {
        text.push_str(&format!("\nand {more} more; --json shows all"));
    }
    text
}

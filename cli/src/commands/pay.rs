//! `pay`: one payment, final when the command returns.

use std::time::Duration;

use client::Wait;
use ledger::Move;
use serde::Serialize;

use super::amounts::Assets;
use super::context::{Context, amount, unknown_asset};
use super::place::Place;
use super::settle;
use super::show::ReceiptLine;
use crate::args::Pay;
use crate::error::CliError;
use crate::output::{Output, moment};

/// How long the asset's definition is waited for.
const ASSET_WITHIN: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Paid {
    from: String,
    to: String,
    asset: String,
    amount: String,
    /// Whether the payee has been credited already.
    applied: bool,
    receipt: ReceiptLine,
}

pub(super) async fn run(args: Pay, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.on.target)?;
    let amount = amount(&args.amount)?;
    let (to, asset) = (context.address(&args.to)?, context.asset(&args.asset)?);
    let payer = context.party(args.key.as_deref())?;
    let Place { context, client, ledger } = Place::enter(context, &args.on).await?;
    // A payment of what nobody has issued would only find an empty balance. Without the beacon's answer
    // it goes on: payments do not need it.
    let mut assets = Assets::default();
    match client.clone().with_patience(ASSET_WITHIN).asset(asset, None).await.map(|answer| answer.value) {
        Ok(Some(definition)) => assets.add(definition),
        Ok(None) => return Err(unknown_asset(&args.asset, &asset)),
        Err(error) => tracing::info!(%error, "the definition of the asset cannot be looked up"),
    }
    let mv = Move::Pay { from: payer.address, to, asset, amount };
    let wait = Wait::from(args.wait);
    let moves = vec![(ledger, mv)];
    let settled = settle::execute(&context, &client, moves, args.memo.as_bytes(), &[&payer.key], wait).await?;
    let receipt = settled.receipt().map(ReceiptLine::of).ok_or_else(no_receipt)?;
    let paid = Paid {
        from: payer.address.to_string(),
        to: to.to_string(),
        asset: asset.to_string(),
        amount: amount.to_string(),
        applied: wait == Wait::Applied || receipt.mail_to.is_empty(),
        receipt,
    };
    output.result(&paid, || {
        let credited = if paid.applied { "credited" } else { "final; the credit is on its way" };
        let (txid, at) = (&paid.receipt.txid, moment(paid.receipt.time_ms));
        let amount = assets.amount(&asset, amount);
        format!(
            "paid {amount} to {}: {credited}\n  transaction {txid}\n  at {at}; more with: seamark tx {txid}",
            paid.to
        )
    })
}

/// One payer, so one group decides and leaves a receipt; a router that says otherwise is wrong.
fn no_receipt() -> CliError {
    client::ClientError::Protocol("one payer, and several groups voted".to_owned()).into()
}

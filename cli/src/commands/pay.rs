//! `pay`: one payment, final when the command returns.

use client::Wait;
use ledger::{LedgerId, Move};
use serde::Serialize;

use super::context::{Context, amount};
use super::settle;
use super::show::ReceiptLine;
use crate::args::Pay;
use crate::error::CliError;
use crate::output::Output;

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
    let context = Context::new(&args.target)?;
    let amount = amount(&args.amount)?;
    let (to, asset) = (context.address(&args.to)?, context.asset(&args.asset)?);
    let payer = context.party(args.key.as_deref())?;
    let client = context.client().await?;
    let mv = Move::Pay { from: payer.address, to, asset, amount };
    let wait = Wait::from(args.wait);
    let moves = vec![(LedgerId::MAIN, mv)];
    let receipt = settle::execute(&context, &client, moves, args.memo.as_bytes(), &[&payer.key], wait).await?;
    let receipt = ReceiptLine::of(&receipt);
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
        format!("paid {} to {}: {credited}\n{}", paid.amount, paid.to, paid.receipt.text())
    })
}

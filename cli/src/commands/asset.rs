//! `asset`: defining assets and their first supply, and looking them up.

use client::{Consistency, Wait};
use ledger::{AssetId, AssetSpec, GroupId, LedgerId, Move};
use proto::views::AccountView;
use serde::Serialize;

use super::context::{Context, amount, unknown_asset};
use super::done::execute;
use super::place::Place;
use super::settle;
use super::show::ReceiptLine;
use crate::args::{Asset, FreezeAsset};
use crate::error::CliError;
use crate::load::stage::wait_known;
use crate::output::{Output, foreign, with_decimals};

#[derive(Serialize)]
struct Line {
    id: String,
    symbol: String,
    name: String,
    decimals: u8,
    issuer: String,
    frozen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptLine>,
    /// What the issuer has created and not destroyed, in the smallest unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    supply: Option<String>,
    /// How much of it is in the channel that is asked, in the smallest unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<String>,
}

impl Line {
    fn text(&self) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!(" ({})", foreign(&self.name)) };
        let mut text = format!(
            "asset {}{name}\n  id        {}\n  issuer    {}\n  decimals  {}\n  frozen    {}",
            self.symbol,
            self.id,
            self.issuer,
            self.decimals,
            if self.frozen { "yes" } else { "no" }
        );
        if let Some(supply) = self.supply.as_deref().and_then(|supply| supply.parse().ok()) {
            text.push_str(&format!("\n  supply    {} {}", with_decimals(supply, self.decimals), self.symbol));
        }
        if let Some(total) = self.total.as_deref().and_then(|total| total.parse().ok()) {
            text.push_str(&format!("\n  here      {} {}", with_decimals(total, self.decimals), self.symbol));
        }
        text
    }
}

pub(super) async fn run(command: Asset, output: Output) -> Result<(), CliError> {
    match command {
        Asset::Issue { target, symbol, name, decimals, supply, to, key } => {
            let context = Context::new(&target)?;
            // Everything that can be wrong with the command line comes before anything is sent.
            let supply = supply.as_deref().map(amount).transpose()?;
            let issuer = context.party(key.as_deref())?;
            let to = to.as_deref().map_or(Ok(issuer.address), |to| context.address(to))?;
            let spec = AssetSpec { issuer: issuer.address, symbol, name, decimals };
            if !spec.well_formed() {
                let reject = ledger::Reject::AssetForm;
                return Err(CliError::usage(reject.code(), reject.cause(), reject.fix()));
            }
            let client = context.client().await?;
            let asset = spec.id();
            let issue = Move::Issue(spec.clone());
            let (moves, keys) = (vec![(LedgerId::BEACON, issue)], [&issuer.key]);
            let issued = settle::execute(&context, &client, moves, b"", &keys, Wait::Receipt).await?;
            // Payments may go to any shard from now on.
            for shard in &client.genesis().layout.shards {
                wait_known(&client, asset, shard.group).await?;
            }
            if let Some(amount) = supply {
                let mint = Move::Mint { issuer: issuer.address, to, asset, amount };
                let moves = vec![(LedgerId::MAIN, mint)];
                settle::execute(&context, &client, moves, b"", &keys, Wait::Applied).await?;
            }
            let line = Line {
                id: asset.to_string(),
                symbol: spec.symbol,
                name: spec.name,
                decimals,
                issuer: spec.issuer.to_string(),
                frozen: false,
                receipt: issued.receipt().map(ReceiptLine::of),
                supply: supply.map(|supply| supply.to_string()),
                total: None,
            };
            output.result(&line, || line.text())
        }
        Asset::Show { on, asset } => {
            let context = Context::new(&on.target)?;
            let id = context.asset(&asset)?;
            let Place { client, ledger, .. } = Place::enter(context, &on).await?;
            let group = (ledger != LedgerId::MAIN).then_some(GroupId(ledger.0));
            let Some(found) = client.asset(id, group).await?.value else {
                return Err(unknown_asset(&asset, &id));
            };
            let total = match group {
                Some(group) => client.total(id, group).await?.value,
                None => None,
            };
            // The issuer's account keeps the count; it has one from its first mint on.
            let view = client.account_view_of(ledger, found.spec.issuer, Consistency::Linearizable, None).await;
            let view = view.inspect_err(|error| tracing::warn!(%error, "the supply cannot be read")).ok();
            let view = view.map(|answer| answer.value);
            let supply = view.and_then(|view| supply_in(view.as_ref(), &id));
            let line = Line {
                id: found.id.to_string(),
                symbol: found.spec.symbol,
                name: found.spec.name,
                decimals: found.spec.decimals,
                issuer: found.spec.issuer.to_string(),
                frozen: found.frozen,
                receipt: None,
                supply: supply.map(|supply| supply.to_string()),
                total: total.map(|total| total.to_string()),
            };
            output.result(&line, || line.text())
        }
        Asset::Freeze(args) => freeze(&args, true, output).await,
        Asset::Thaw(args) => freeze(&args, false, output).await,
    }
}

/// The supply as the issuer's account tells it; `None` when it has more lines than are shown.
fn supply_in(view: Option<&AccountView>, asset: &AssetId) -> Option<u128> {
    let Some(view) = view else { return Some(0) };
    let created = view.supplies.iter().find(|(of, _)| of == asset).map(|(_, amount)| *amount);
    created.or_else(|| (view.more_lines == 0).then_some(0))
}

async fn freeze(args: &FreezeAsset, frozen: bool, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let (account, asset) = (context.address(&args.account)?, context.asset(&args.asset)?);
    let issuer = context.party(args.key.as_deref())?;
    let client = context.client().await?;
    let mut labels = context.labels();
    context.label_assets(&client, [asset], &mut labels).await;
    let mv = Move::Freeze { issuer: issuer.address, account, asset, frozen };
    execute(&client, &issuer, mv.clone(), labels.sentence(&mv), output).await
}

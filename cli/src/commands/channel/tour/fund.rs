//! Assets: issued on the beacon, permitted in the channels, minted in the main ledger, which is where their
//! supply is made, and brought into the channels.

use channel::{AuditGrant, Change, Scope};
use client::Wait;
use ledger::{AssetId, AssetSpec, LedgerId, Move};

use super::cast::{AUDITOR, Actor, Cast, Step, Teller};
use super::found::{ANSWER_MINUTES, decide};
use super::stage::{arrived, astray};
use super::{Place, Places};
use crate::commands::signer::ahead;
use crate::error::CliError;
use crate::load::stage::wait_known;
use crate::output::with_decimals;

/// An asset.
pub(super) struct Good {
    pub(super) symbol: &'static str,
    pub(super) id: AssetId,
    decimals: u8,
}

impl Good {
    /// An amount of it, for people.
    pub(super) fn amount(&self, amount: u128) -> String {
        format!("{} {}", with_decimals(amount, self.decimals), self.symbol)
    }
}

/// All assets.
pub(super) struct Goods {
    pub(super) steel: Good,
    pub(super) grain: Good,
    pub(super) eur: Good,
}

/// Issues the assets, permits each in the channels that trade it, lets the auditor in where its organisation
/// is no member, and brings everybody what it trades.
pub(super) async fn bring_goods(cast: &Cast, places: &Places, teller: &mut Teller) -> Result<Goods, CliError> {
    let Cast { a, b, c, .. } = cast;
    let steel = issue(cast, places, a, ("STEEL", "tonnes of steel", 0), teller).await?;
    let grain = issue(cast, places, b, ("GRAIN", "tonnes of grain", 0), teller).await?;
    let eur = issue(cast, places, c, ("EUR", "euro", 2), teller).await?;
    let goods = Goods { steel, grain, eur };

    let in_steel = [(&goods.steel, [a, b]), (&goods.eur, [b, a])];
    let in_grain = [(&goods.grain, [b, c]), (&goods.eur, [c, b])];
    for (place, permits) in [(&places.steel, in_steel), (&places.grain, in_grain)] {
        for (good, voices) in permits {
            let (what, change) = (format!("permit {}", good.symbol), Change::PermitAsset { asset: good.id });
            decide(cast, place, &what, change, voices, teller).await?;
        }
    }
    let grant = AuditGrant {
        org: a.id,
        credential: None,
        scope: Scope::Everything,
        until_ms: ahead(ANSWER_MINUTES),
        until_height: None,
    };
    let what = format!("let the {AUDITOR} of {} read", a.name);
    decide(cast, &places.grain, &what, Change::GrantAudit(grant), [b, c], teller).await?;

    for (holder, issuer, good, amount, place) in [
        (a, a, &goods.steel, 2_000, &places.steel),
        (b, c, &goods.eur, 500_000, &places.steel),
        (b, b, &goods.grain, 100, &places.grain),
        (c, c, &goods.eur, 800_000, &places.grain),
    ] {
        bring(holder, issuer, good, amount, place).await?;
        teller.line(format!("{} has brought {} into {}", holder.name, good.amount(amount), place.name));
    }
    Ok(goods)
}

/// Issues an asset and waits until everybody has heard of it.
async fn issue(
    cast: &Cast,
    places: &Places,
    issuer: &Actor,
    (symbol, name, decimals): (&'static str, &str, u8),
    teller: &mut Teller,
) -> Result<Good, CliError> {
    let spec = AssetSpec { issuer: issuer.party.address, symbol: symbol.to_owned(), name: name.to_owned(), decimals };
    let id = spec.id();
    let moves = vec![(LedgerId::BEACON, Move::Issue(spec))];
    let settled = issuer.client.execute(moves, b"", &[&issuer.party.key], Wait::Receipt).await?;
    let receipt = settled.receipt().ok_or_else(|| astray("the beacon leaves no receipt of an asset"))?;
    for shard in &issuer.client.genesis().layout.shards {
        wait_known(&issuer.client, id, shard.group).await?;
    }
    // The beacon tells a group everything in one stream: who knows this asset has heard of both channels
    // before, and can trade with them.
    for place in [&places.steel, &places.grain] {
        wait_known(&cast.b.client, id, place.group).await?;
    }
    teller.step(Step {
        place: "beacon",
        org: issuer.name.clone(),
        did: format!("issues {symbol}"),
        then: "every group knows it".to_owned(),
        missing: Vec::new(),
        height: receipt.height.0,
    });
    Ok(Good { symbol, id, decimals })
}

/// Mints for an organisation, which sends all of it on to a channel.
async fn bring(holder: &Actor, issuer: &Actor, good: &Good, amount: u128, place: &Place) -> Result<(), CliError> {
    let (account, asset) = (holder.party.address, good.id);
    let mint = Move::Mint { issuer: issuer.party.address, to: account, asset, amount };
    issuer.execute(vec![(LedgerId::MAIN, mint)]).await?;
    let cross = Move::Transfer { from: account, to: account, asset, amount, ledger: place.ledger() };
    holder.execute(vec![(LedgerId::MAIN, cross)]).await?;
    arrived(&holder.client, place.ledger(), account, asset, amount).await
}

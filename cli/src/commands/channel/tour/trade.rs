//! A trade between two channels in one transaction: the organisation that is in both buys in one what it
//! pays for with what it sells in the other. All of it happens, or nothing.
//!
//! Every move is hidden: both channels keep the same signed bytes, which have a salted hash in the place of
//! each move, and each is given the openings of its own moves alone (`router::plan`).

use std::time::Instant;

use client::{Settled, Wait};
use ledger::{Hash32, Move, Opening, SignedTx, Slot, TxBody, TxId};
use serde::Serialize;

use super::cast::{Actor, Cast, Teller};
use super::fund::{Good, Goods};
use super::stage::{astray, until};
use super::{Place, Places};
use crate::commands::show::ReceiptLine;
use crate::error::CliError;
use crate::output::rounded;
use crate::setup::pki::random;

/// A move of the trade.
struct Leg<'a> {
    place: &'a Place,
    from: &'a Actor,
    to: &'a Actor,
    good: &'a Good,
    amount: u128,
}

impl Leg<'_> {
    fn opening(&self, slot: u16) -> Result<Opening, CliError> {
        let mv = Move::Pay {
            from: self.from.party.address,
            to: self.to.party.address,
            asset: self.good.id,
            amount: self.amount,
        };
        Ok(Opening { slot, salt: Hash32(random()?), mv })
    }

    fn in_words(&self) -> String {
        format!("{} pays {} {}", self.from.name, self.to.name, self.good.amount(self.amount))
    }
}

/// A move, as its signers saw it, and where it was shown in the clear.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MoveLine {
    slot: u16,
    pub(super) channel: &'static str,
    pub(super) what: String,
}

/// A channel's vote.
#[derive(Clone, Debug, Serialize)]
pub(super) struct VoteLine {
    pub(super) group: String,
    pub(super) yes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) height: Option<u64>,
}

/// What became of the trade.
#[derive(Serialize)]
pub(super) struct Trade {
    #[serde(skip)]
    pub(super) id: TxId,
    pub(super) txid: String,
    /// All of them hidden.
    pub(super) moves: Vec<MoveLine>,
    pub(super) votes: Vec<VoteLine>,
    /// Of both channels.
    pub(super) receipts: Vec<ReceiptLine>,
    /// From sending it until it was applied in both channels.
    pub(super) seconds: f64,
}

impl Trade {
    /// The block of a channel in which it was executed.
    pub(super) fn height(&self, place: &Place) -> Result<u64, CliError> {
        let group = place.group.to_string();
        let receipt = self.receipts.iter().find(|receipt| receipt.group == group);
        receipt.map(|receipt| receipt.height).ok_or_else(|| astray(format!("{} has no receipt", place.name)))
    }
}

/// Builds the transaction, has all three sign it, and settles it.
pub(super) async fn trade(cast: &Cast, places: &Places, goods: &Goods, teller: &Teller) -> Result<Trade, CliError> {
    let Cast { a, b, c, .. } = cast;
    let Places { steel, grain } = places;
    let legs = [
        Leg { place: steel, from: a, to: b, good: &goods.steel, amount: 40 },
        Leg { place: steel, from: b, to: a, good: &goods.eur, amount: 200_000 },
        Leg { place: grain, from: b, to: c, good: &goods.grain, amount: 25 },
        Leg { place: grain, from: c, to: b, good: &goods.eur, amount: 240_000 },
    ];
    let (mut slots, mut openings, mut moves) = (Vec::new(), Vec::new(), Vec::new());
    for (slot, leg) in (0u16..).zip(&legs) {
        let opening = leg.opening(slot)?;
        slots.push(Slot::Hidden { ledger: leg.place.ledger(), group: leg.place.group, hash: opening.hash() });
        openings.push(opening);
        teller.line(format!("{}, which only {} is shown", leg.in_words(), leg.place.name));
        moves.push(MoveLine { slot, channel: leg.place.name, what: leg.in_words() });
    }
    // Only who is in both channels may hand it to both.
    let body = TxBody { slots, ..b.client.body(Vec::new(), b"")? };
    let tx = SignedTx::sign(&body, &[&a.party.key, &b.party.key, &c.party.key]);
    let id = tx.txid(&body.cluster);
    let since = Instant::now();
    let settled = b.client.submit_tx(tx.encode(), openings, Wait::Applied).await?;
    let seconds = rounded(since.elapsed().as_secs_f64());
    if let Some((group, reject)) = settled.no() {
        let cause = format!("{group} said no to the trade: {}", reject.cause());
        return Err(CliError::new(reject.code(), cause, reject.fix()));
    }
    let Settled::Votes { votes, .. } = &settled else {
        return Err(astray("one channel decided a trade of two"));
    };
    let votes: Vec<VoteLine> = votes
        .iter()
        .map(|vote| VoteLine {
            group: vote.group.to_string(),
            yes: vote.no.is_none(),
            height: vote.height.map(|height| height.0),
        })
        .collect();
    let mut receipts = Vec::new();
    for place in [steel, grain] {
        let receipt = until(&format!("{} has its receipt", place.name), async || {
            let found = b.client.transaction(id, Some(place.group), false).await?.value;
            Ok::<_, CliError>(found.ok_or_else(|| "not yet".to_owned()))
        })
        .await?;
        if !receipt.committed() {
            return Err(astray(format!("both channels agreed to the trade, and {} did not execute it", place.name)));
        }
        teller.line(format!("{} has committed it in block {}", place.name, receipt.height));
        receipts.push(ReceiptLine::of(&receipt));
    }
    Ok(Trade { id, txid: id.to_string(), moves, votes, receipts, seconds })
}

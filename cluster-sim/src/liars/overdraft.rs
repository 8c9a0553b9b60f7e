//! A batch with nothing wrong but that it pays more than there is. Members cannot know that before it is executed, so they
//! vote for it; then it is rejected, as data.

use consensus::bft::{Body, Value};
use ledger::account::AccountRecord;
use ledger::auth::{Authorisation, Witness};
use ledger::crypto::SecretKey;
use ledger::ids::{Address, AssetId, TimeMs};
use ledger::schema;
use ledger::tx::{BODY_VERSION, Move, SignedTx, Slot, TxBody};
use rand::Rng;
use shard_node::core::entry::{Command, Entry};

use super::{Liar, Scene};
use crate::cluster::account_secrets;
use crate::state;

/// How long the payment may be executed.
const VALID_MS: u64 = 60_000;

/// An account of the group that one key signs for.
pub(super) struct Payer {
    address: Address,
    key: &'static SecretKey,
    pub(super) asset: AssetId,
    /// What it has, reserved or not.
    posted: u128,
}

impl Liar {
    /// A payment of one more than its payer has, with the payer's signature, under the stamp of the value that it stands in for, or of
    /// now where that is a blank. Nothing where nobody here has anything.
    pub(super) fn overdraft(&mut self, scene: &Scene<'_>, value: &Value) -> Option<(TimeMs, Command)> {
        let stamp_ms = match &value.body {
            Body::Batch(batch) => Entry::decode(batch).stamp_ms,
            Body::Blank => scene.time,
        };
        let Payer { address: from, key, asset, posted } = self.payer(scene)?;
        let to = account_secrets().keys().find(|account| **account != from).copied()?;
        let mv = Move::Pay { from, to, asset, amount: posted.checked_add(1)? };
        let body = TxBody {
            version: BODY_VERSION,
            cluster: scene.cluster,
            valid_until_ms: TimeMs(stamp_ms.0 + VALID_MS),
            salt: self.more.random(),
            slots: vec![Slot::Clear { ledger: scene.committee.group.ledger()?, mv }],
            memo: Vec::new(),
        };
        let mut signed = SignedTx { version: 1, body: body.encode(), witnesses: Vec::new() };
        let txid = signed.txid(&scene.cluster);
        let auth = Authorisation::Single(key.public());
        signed.witnesses.push(Witness { auth, signatures: vec![(0, key.sign(&txid.0))] });
        self.deeds.overdrafts.push(txid);
        Some((stamp_ms, Command::Tx(signed.encode())))
    }

    /// Somebody here that has something, and with whom nothing else is in the way.
    pub(super) fn payer(&mut self, scene: &Scene<'_>) -> Option<Payer> {
        let secrets = account_secrets();
        let first = self.more.random_range(0..secrets.len());
        secrets.iter().cycle().skip(first).take(secrets.len()).find_map(|(address, key)| {
            let record: AccountRecord = state::find(scene.kv, &schema::account(address)).ok()??;
            let own = Authorisation::Single(key.public());
            let free = record.flags == 0 && record.auth.as_ref().is_none_or(|held| *held == own);
            let (asset, balance) = record.balances.first().filter(|_| free)?;
            Some(Payer { address: *address, key, asset: *asset, posted: balance.posted })
        })
    }
}

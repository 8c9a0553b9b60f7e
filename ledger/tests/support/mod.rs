//! Keys, accounts, assets, transactions and states that the tests of this crate share.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, ClusterId, LedgerId, TimeMs};
use ledger::reject::Reject;
use ledger::tx::{Move, ParsedTx, SignedTx, Slot, TxBody, txid};
use ledger::view::View;
use ledger::{AssetDef, AssetSpec, Authorisation, SecretKey, Witness};

pub mod bank;
pub mod vectors;

/// Time of the block in all tests.
pub const NOW: TimeMs = TimeMs(1_700_000_000_000);

pub fn cluster() -> ClusterId {
    ClusterId(Hash32([9; 32]))
}

/// An authorisation with the keys that satisfy it, in its order.
#[derive(Clone, Debug)]
pub struct Owner {
    pub auth: Authorisation,
    pub keys: Vec<SecretKey>,
}

impl Owner {
    pub fn address(&self) -> Address {
        self.auth.address()
    }

    pub fn witness(&self, digest: &Hash32) -> Witness {
        let signers = self.keys.iter().take(self.auth.threshold());
        let signatures = (0u8..).zip(signers).map(|(index, key)| (index, key.sign(digest))).collect();
        Witness { auth: self.auth.clone(), signatures }
    }
}

pub fn key(seed: u8) -> SecretKey {
    SecretKey::derive(&[seed], b"test")
}

pub fn single(seed: u8) -> Owner {
    let key = key(seed);
    Owner { auth: Authorisation::Single(key.public()), keys: vec![key] }
}

pub fn multi(threshold: u8, seeds: &[u8]) -> Owner {
    let mut keys: Vec<SecretKey> = seeds.iter().map(|seed| key(*seed)).collect();
    keys.sort_by_key(SecretKey::public);
    let auth = Authorisation::Multi { threshold, keys: keys.iter().map(SecretKey::public).collect() };
    Owner { auth, keys }
}

pub fn asset_def(issuer: Address, symbol: &str) -> AssetDef {
    let spec = AssetSpec { issuer, symbol: symbol.to_owned(), name: "Test money".to_owned(), decimals: 2 };
    AssetDef { version: 1, id: spec.id(), spec, frozen: false }
}

pub fn pay(from: Address, to: Address, asset: AssetId, amount: u128) -> Move {
    Move::Pay { from, to, asset, amount }
}

pub fn body(moves: Vec<Move>) -> TxBody {
    TxBody {
        version: 1,
        cluster: cluster(),
        valid_until_ms: TimeMs(NOW.0 + 60_000),
        salt: [3; 16],
        slots: moves.into_iter().map(|mv| Slot::Clear { ledger: LedgerId::MAIN, mv }).collect(),
        memo: Vec::new(),
    }
}

pub fn sign(body: &TxBody, owners: &[&Owner]) -> SignedTx {
    let bytes = body.encode();
    let id = txid(&body.cluster, &bytes);
    let witnesses = owners.iter().map(|owner| owner.witness(&id.0)).collect();
    SignedTx { version: 1, body: bytes, witnesses }
}

/// What ingest does: decode, limits, signatures.
pub fn ingest(signed: &SignedTx) -> Result<ParsedTx, Reject> {
    let parsed = ParsedTx::decode(&cluster(), &signed.encode())?;
    parsed.verify_signatures()?;
    Ok(parsed)
}

pub type State = BTreeMap<Vec<u8>, Bytes>;

/// Runs `f` on a view of the state, writes what it wrote, and tells whether it wrote anything.
pub fn with_view<R>(state: &mut State, f: impl FnOnce(&mut View<'_>) -> R) -> (R, bool) {
    let (result, writes) = {
        let mut view = View::new(&*state);
        let result = f(&mut view);
        (result, view.into_writes().expect("a map does not fail"))
    };
    let wrote = !writes.is_empty();
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
    (result, wrote)
}

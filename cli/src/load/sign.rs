//! Keys for account strings, and signed payments.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use client::PreparedTx;
use ledger::auth::Authorisation;
use ledger::tx::BODY_VERSION;
use ledger::{AccountWrite, Address, AssetId, ClusterId, LedgerId, Move, SecretKey, SignedTx, Slot, TimeMs, TxBody};
use rayon::prelude::*;

use crate::error::CliError;
use crate::setup::pki::random;

/// How long a signed payment may execute: half of what the ledger allows, which is longer than a
/// run takes and leaves room for clocks that differ.
const VALID_FOR_MS: u64 = ledger::limits::VALID_FOR_MS_MAX / 2;

/// An account that this process holds the key of.
#[derive(Clone, Debug)]
pub struct Party {
    /// Its key.
    pub key: SecretKey,
    /// Its address.
    pub address: Address,
}

impl Party {
    /// The account that starts with this key.
    #[must_use]
    pub fn of(key: SecretKey) -> Self {
        let address = Authorisation::Single(key.public()).address();
        Self { key, address }
    }

    /// The account of a name: the same seed and name give the same key.
    #[must_use]
    pub fn derive(seed: &[u8], name: &str) -> Self {
        Self::of(SecretKey::derive(seed, name.as_bytes()))
    }
}

/// The accounts of many names, derived on all cores.
#[must_use]
pub fn parties(seed: &[u8], names: &[&str]) -> Vec<Party> {
    names.par_iter().map(|name| Party::derive(seed, name)).collect()
}

/// One payment to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Payment<'a> {
    /// Makes it distinct; unique in a run.
    pub index: u64,
    /// Who pays.
    pub from: &'a Party,
    /// Who is paid.
    pub to: Address,
    /// How much.
    pub amount: u128,
}

/// Signs the transactions of one run.
#[derive(Clone, Debug)]
pub struct Signer {
    cluster: ClusterId,
    asset: AssetId,
    valid_until_ms: TimeMs,
    /// Makes transactions of this run distinct from those of any other.
    run: [u8; 8],
}

impl Signer {
    /// For payments of an asset from now on.
    ///
    /// # Errors
    /// When the system gives no randomness, or the clock is unusable.
    pub fn new(cluster: ClusterId, asset: AssetId) -> Result<Self, CliError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| CliError::new("clock", "this machine's clock is before 1970", "set it"))?;
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let run = random()?;
        Ok(Self { cluster, asset, valid_until_ms: TimeMs(now_ms.saturating_add(VALID_FOR_MS)), run })
    }

    /// Signs one payment.
    #[must_use]
    pub fn pay(&self, payment: &Payment<'_>) -> PreparedTx {
        let Payment { index, from, to, amount } = *payment;
        let mv = Move::Pay { from: from.address, to, asset: self.asset, amount };
        self.moves(index, vec![mv], &[&from.key])
    }

    /// Signs several payments of 1 in one transaction, with every payer's key; and, where asked for,
    /// a change of the one entry of an account's data that all such transactions change.
    #[must_use]
    pub fn together(&self, index: u64, payments: &[(&Party, Address)], writes: Option<&Party>) -> PreparedTx {
        let pay =
            |(from, to): &(&Party, Address)| Move::Pay { from: from.address, to: *to, asset: self.asset, amount: 1 };
        let mut moves: Vec<Move> = payments.iter().map(pay).collect();
        let mut signers: Vec<&Party> = payments.iter().map(|(from, _)| *from).collect();
        if let Some(party) = writes {
            let write = AccountWrite::Data { key: b"bench".to_vec(), value: Some(index.to_be_bytes().to_vec()) };
            moves.push(Move::Write { account: party.address, write });
            if !signers.iter().any(|signer| signer.address == party.address) {
                signers.push(party);
            }
        }
        let keys: Vec<&SecretKey> = signers.iter().map(|signer| &signer.key).collect();
        self.moves(index, moves, &keys)
    }

    /// Signs a transaction that creates supply, at most 64 portions of it.
    #[must_use]
    pub fn mint(&self, index: u64, issuer: &Party, portions: &[(Address, u128)]) -> PreparedTx {
        let mint = |(to, amount): &(Address, u128)| Move::Mint {
            issuer: issuer.address,
            to: *to,
            asset: self.asset,
            amount: *amount,
        };
        self.moves(index, portions.iter().map(mint).collect(), &[&issuer.key])
    }

    fn moves(&self, index: u64, moves: Vec<Move>, keys: &[&SecretKey]) -> PreparedTx {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.run);
        salt[8..].copy_from_slice(&index.to_be_bytes());
        let body = TxBody {
            version: BODY_VERSION,
            cluster: self.cluster,
            valid_until_ms: self.valid_until_ms,
            salt,
            slots: moves.into_iter().map(|mv| Slot::Clear { ledger: LedgerId::MAIN, mv }).collect(),
            memo: Vec::new(),
        };
        let signed = SignedTx::sign(&body, keys);
        PreparedTx { txid: signed.txid(&self.cluster), bytes: Bytes::from(signed.encode()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::tx::ParsedTx;

    #[test]
    fn what_is_signed_is_a_valid_transaction_of_its_own() {
        let cluster = ClusterId(ledger::hash::sha256(b"cluster"));
        let signer = Signer::new(cluster, AssetId([7; 16])).unwrap();
        let parties = parties(b"seed", &["a", "b"]);
        assert_eq!(parties[0].address, Party::derive(b"seed", "a").address);
        assert_ne!(parties[0].address, Party::derive(b"other", "a").address);
        let pay = |index| signer.pay(&Payment { index, from: &parties[0], to: parties[1].address, amount: 5 });
        assert_ne!(pay(0).txid, pay(1).txid);
        let minted = signer.mint(2, &parties[0], &[(parties[1].address, 1), (parties[0].address, 2)]);
        let both = [(&parties[0], parties[1].address), (&parties[1], parties[0].address)];
        let together = signer.together(3, &both, Some(&parties[1]));
        let parsed = ParsedTx::decode(&cluster, &together.bytes).unwrap();
        assert_eq!((parsed.body.slots.len(), parsed.witnesses.len()), (3, 2), "each signs once");
        for tx in [pay(0), minted, together] {
            let parsed = ParsedTx::decode(&cluster, &tx.bytes).unwrap();
            assert_eq!(parsed.txid, tx.txid);
            assert_eq!(parsed.verify_signatures(), Ok(()));
        }
    }
}

//! Keys for account strings, and signed payments.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use client::PreparedTx;
use ledger::auth::Authorisation;
use ledger::hash::sha256;
use ledger::tx::BODY_VERSION;
use ledger::{
    AccountWrite, Address, AssetId, ClusterId, GroupId, LedgerId, Move, Opening, SecretKey, SignedTx, Slot, Submission,
    TimeMs, TxBody,
};
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

/// One of several payments in a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Leg<'a> {
    /// The group that holds the payer's account: of the main ledger, or a channel.
    pub home: GroupId,
    /// Who pays.
    pub from: &'a Party,
    /// Who is paid, in the same ledger.
    pub to: Address,
}

impl Leg<'_> {
    fn ledger(&self) -> LedgerId {
        self.home.ledger().unwrap_or(LedgerId::MAIN)
    }
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

    /// Signs one payment in the main ledger.
    #[must_use]
    pub fn pay(&self, payment: &Payment<'_>) -> PreparedTx {
        let Payment { index, from, to, amount } = *payment;
        let mv = Move::Pay { from: from.address, to, asset: self.asset, amount };
        self.clear(index, vec![(LedgerId::MAIN, mv)], &[&from.key])
    }

    /// Signs several payments of 1 in one transaction, with every payer's key; and, where asked for,
    /// a change of the one entry of an account's data that all such transactions change, which lies in
    /// the main ledger. Of payments in several ledgers each ledger is shown its own alone: that is how
    /// members of channels trade.
    #[must_use]
    pub fn together(&self, index: u64, legs: &[Leg<'_>], writes: Option<&Party>) -> PreparedTx {
        let pay = |leg: &Leg<'_>| {
            let mv = Move::Pay { from: leg.from.address, to: leg.to, asset: self.asset, amount: 1 };
            (leg.ledger(), mv)
        };
        let mut moves: Vec<(LedgerId, Move)> = legs.iter().map(pay).collect();
        let mut signers: Vec<&Party> = legs.iter().map(|leg| leg.from).collect();
        if let Some(party) = writes {
            let write = AccountWrite::Data { key: b"bench".to_vec(), value: Some(index.to_be_bytes().to_vec()) };
            moves.push((LedgerId::MAIN, Move::Write { account: party.address, write }));
            if !signers.iter().any(|signer| signer.address == party.address) {
                signers.push(party);
            }
        }
        let keys: Vec<&SecretKey> = signers.iter().map(|signer| &signer.key).collect();
        let several = moves.iter().any(|(ledger, _)| *ledger != moves[0].0);
        if several && writes.is_none() {
            return self.hidden(index, legs.iter().map(|leg| leg.home).zip(moves), &keys);
        }
        self.clear(index, moves, &keys)
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
        self.clear(index, portions.iter().map(|portion| (LedgerId::MAIN, mint(portion))).collect(), &[&issuer.key])
    }

    /// Signs a transaction in a ledger by which one account pays several, at most 64 of them.
    #[must_use]
    pub fn deal(&self, index: u64, ledger: LedgerId, from: &Party, portions: &[(Address, u128)]) -> PreparedTx {
        let pay = |(to, amount): &(Address, u128)| {
            (ledger, Move::Pay { from: from.address, to: *to, asset: self.asset, amount: *amount })
        };
        self.clear(index, portions.iter().map(pay).collect(), &[&from.key])
    }

    fn clear(&self, index: u64, moves: Vec<(LedgerId, Move)>, keys: &[&SecretKey]) -> PreparedTx {
        let slots = moves.into_iter().map(|(ledger, mv)| Slot::Clear { ledger, mv }).collect();
        self.sign(index, slots, Vec::new(), keys)
    }

    /// Moves that only the groups which vote on them are shown.
    fn hidden(
        &self,
        index: u64,
        moves: impl Iterator<Item = (GroupId, (LedgerId, Move))>,
        keys: &[&SecretKey],
    ) -> PreparedTx {
        let (mut slots, mut openings) = (Vec::new(), Vec::new());
        for (slot, (group, (ledger, mv))) in (0u16..).zip(moves) {
            let secret: [&[u8]; 3] = [&self.run, &index.to_be_bytes(), &slot.to_be_bytes()];
            let opening = Opening { slot, salt: sha256(&secret.concat()), mv };
            slots.push(Slot::Hidden { ledger, group, hash: opening.hash() });
            openings.push(opening);
        }
        self.sign(index, slots, openings, keys)
    }

    fn sign(&self, index: u64, slots: Vec<Slot>, openings: Vec<Opening>, keys: &[&SecretKey]) -> PreparedTx {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.run);
        salt[8..].copy_from_slice(&index.to_be_bytes());
        let body = TxBody {
            version: BODY_VERSION,
            cluster: self.cluster,
            valid_until_ms: self.valid_until_ms,
            salt,
            slots,
            memo: Vec::new(),
        };
        let signed = SignedTx::sign(&body, keys);
        let txid = signed.txid(&self.cluster);
        PreparedTx { txid, bytes: Bytes::from(Submission::encode(signed.encode(), openings)) }
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
        let both = |homes: [GroupId; 2]| {
            let leg = |at: usize| Leg { home: homes[at], from: &parties[at], to: parties[1 - at].address };
            [leg(0), leg(1)]
        };
        let together = signer.together(3, &both([GroupId::shard(0), GroupId::shard(1)]), Some(&parties[1]));
        let parsed = ParsedTx::decode(&cluster, &together.bytes).unwrap();
        assert_eq!((parsed.body.slots.len(), parsed.witnesses.len()), (3, 2), "each signs once");
        assert_eq!(parsed.body.moves().count(), 3, "one ledger: all of it is in the clear");
        let inside = signer.together(4, &both([GroupId::channel(1); 2]), None);
        let parsed = ParsedTx::decode(&cluster, &inside.bytes).unwrap();
        let ledger = LedgerId::of_channel(GroupId::channel(1));
        assert!(parsed.body.moves().all(|(found, _)| found == ledger) && parsed.openings.is_empty());

        // A swap between channels: each is shown its own payment, and nobody the other's.
        let homes = [GroupId::channel(1), GroupId::channel(2)];
        let swap = signer.together(5, &both(homes), None);
        let parsed = ParsedTx::decode(&cluster, &swap.bytes).unwrap();
        assert_eq!((parsed.body.moves().count(), parsed.openings.len(), parsed.witnesses.len()), (0, 2, 2));
        assert_ne!(parsed.openings[0].salt, parsed.openings[1].salt);
        let plan = router::plan(&ledger::Layout::even(1), &parsed).unwrap();
        assert_eq!(plan.groups().collect::<Vec<_>>(), homes);

        let dealt = signer.deal(6, ledger, &parties[0], &[(parties[1].address, 3)]);
        for tx in [pay(0), minted, together, inside, swap, dealt] {
            let parsed = ParsedTx::decode(&cluster, &tx.bytes).unwrap();
            assert_eq!(parsed.txid, tx.txid);
            assert_eq!(parsed.verify_signatures(), Ok(()));
        }
    }
}

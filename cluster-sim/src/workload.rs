//! The transactions of a run: really signed, made before it starts.
//!
//! Assets are issued at the beacon, minted to accounts in all shards, and paid around within and
//! between them; among the payments are overdrafts, payments to oneself, several payees, several
//! payers, burns, rotated keys, expired and forged transactions, and old ones sent again.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::asset::AssetSpec;
use ledger::auth::Authorisation;
use ledger::crypto::SecretKey;
use ledger::genesis::Genesis;
use ledger::ids::{Address, AssetId, ClusterId, GroupId, LedgerId, TimeMs, TxId};
use ledger::tx::{Move, SignedTx, Slot, TxBody};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::cluster::{CREATED_MS, account_keys};
use crate::config::SimConfig;

const ACCOUNTS: usize = 12;
const ASSETS: usize = 2;
/// Payments come in bursts, so that entries carry several of them.
const BURSTS: usize = 7;
const VALID_MS: u64 = 60 * 60 * 1000;

/// Why an operation is in the load, which says what its fate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Issues an asset.
    Issue,
    /// Creates supply.
    Mint,
    /// Moves it.
    Pay,
    /// Destroys it.
    Burn,
    /// Replaces the key of an account.
    Rotate,
    /// Asks for more than there is.
    Overdraft,
    /// Is past its deadline, or may be by the time it is executed.
    Expiring,
    /// Carries a broken signature, or the signature of somebody else. Must never execute.
    Forged,
    /// Has payers in two shards, which this version refuses.
    MultiVoter,
    /// Sends an earlier transaction once more.
    Again,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its place in the load.
    pub index: u32,
    /// Why it is there.
    pub purpose: Purpose,
    /// The transaction.
    pub txid: TxId,
    /// Its bytes.
    pub bytes: Bytes,
    /// Its moves, for the checkers' own arithmetic.
    pub moves: Vec<Move>,
    /// Not sent before this time.
    pub at_ms: u64,
    /// Not sent before this one has its fate.
    pub after: Option<u32>,
}

struct Account {
    key: &'static SecretKey,
    address: Address,
    home: GroupId,
}

struct Maker<'a> {
    rng: &'a mut ChaCha8Rng,
    cluster: ClusterId,
    accounts: Vec<Account>,
    spare: &'static SecretKey,
    outsider: &'static SecretKey,
    operations: Vec<Operation>,
    /// The mint that funds an account.
    funded_by: BTreeMap<(Address, AssetId), u32>,
}

/// Makes the load of a seed.
#[must_use]
pub fn make(genesis: &Genesis, config: &SimConfig, rng: &mut ChaCha8Rng) -> Vec<Operation> {
    let mut keys: Vec<&'static SecretKey> = account_keys().iter().collect();
    keys.shuffle(rng);
    let accounts = keys[..ACCOUNTS]
        .iter()
        .map(|key| {
            let address = Authorisation::Single(key.public()).address();
            Account { key, address, home: genesis.layout.locate(&address) }
        })
        .collect();
    let mut maker = Maker {
        rng,
        cluster: genesis.cluster_id(),
        accounts,
        spare: keys[ACCOUNTS],
        outsider: keys[ACCOUNTS + 1],
        operations: Vec::new(),
        funded_by: BTreeMap::new(),
    };
    maker.set_up();
    let bursts = maker.bursts(config);
    for _ in 0..config.payments {
        let at_ms = *bursts.choose(maker.rng).unwrap_or(&0);
        maker.payment(at_ms);
    }
    maker.rotation(config);
    for _ in 0..config.payments / 10 {
        maker.again(config);
    }
    maker.operations
}

impl Maker<'_> {
    fn bursts(&mut self, config: &SimConfig) -> Vec<u64> {
        let end = config.safety_ms.max(1_001);
        (0..BURSTS).map(|_| self.rng.random_range(1_000..end)).collect()
    }

    fn asset(&self, number: usize) -> AssetId {
        AssetId::derive(&self.accounts[number].address, "SIM")
    }

    /// Adds an operation with one transaction, signed by the given accounts.
    fn add(&mut self, purpose: Purpose, moves: Vec<Move>, signers: &[usize], at_ms: u64, after: Option<u32>) -> u32 {
        let valid_until = CREATED_MS + VALID_MS;
        self.add_until(purpose, moves, signers, at_ms, after, valid_until)
    }

    fn add_until(
        &mut self,
        purpose: Purpose,
        moves: Vec<Move>,
        signers: &[usize],
        at_ms: u64,
        after: Option<u32>,
        valid_until_ms: u64,
    ) -> u32 {
        let slots = moves
            .iter()
            .map(|mv| {
                let ledger = if matches!(mv, Move::Issue(_)) { LedgerId::BEACON } else { LedgerId::MAIN };
                Slot::Clear { ledger, mv: mv.clone() }
            })
            .collect();
        let mut memo = vec![0; self.rng.random_range(0..24)];
        self.rng.fill(&mut memo[..]);
        let body = TxBody {
            version: ledger::tx::BODY_VERSION,
            cluster: self.cluster,
            valid_until_ms: TimeMs(valid_until_ms),
            salt: self.rng.random(),
            slots,
            memo,
        };
        let keys: Vec<&SecretKey> = signers.iter().map(|signer| self.accounts[*signer].key).collect();
        let mut signed = SignedTx::sign(&body, &keys);
        if purpose == Purpose::Forged {
            self.forge(&mut signed);
        }
        let index = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        let txid = signed.txid(&self.cluster);
        let bytes = Bytes::from(signed.encode());
        self.operations.push(Operation { index, purpose, txid, bytes, moves, at_ms, after });
        index
    }

    /// Breaks the signature, or replaces it by a good one of a key that has no right to the account.
    fn forge(&mut self, signed: &mut SignedTx) {
        let txid = signed.txid(&self.cluster);
        let Some(witness) = signed.witnesses.first_mut() else { return };
        if self.rng.random() {
            witness.auth = Authorisation::Single(self.outsider.public());
            witness.signatures = vec![(0, self.outsider.sign(&txid.0))];
        } else if let Some((_, signature)) = witness.signatures.first_mut() {
            signature.0[self.rng.random_range(0..64)] ^= 1 << self.rng.random_range(0..8);
        }
    }

    fn set_up(&mut self) {
        let issues: Vec<u32> = (0..ASSETS)
            .map(|number| {
                let spec = AssetSpec {
                    issuer: self.accounts[number].address,
                    symbol: "SIM".to_owned(),
                    name: format!("simulated {number}"),
                    decimals: 2,
                };
                self.add(Purpose::Issue, vec![Move::Issue(spec)], &[number], 0, None)
            })
            .collect();
        for (number, issue) in issues.into_iter().enumerate() {
            for holder in 0..self.accounts.len() {
                // The first asset goes to everyone, the others to some.
                if number > 0 && holder != number && self.rng.random() {
                    continue;
                }
                let (asset, to) = (self.asset(number), self.accounts[holder].address);
                let huge = self.rng.random_range(0..10) == 0;
                let amount = if huge { 1u128 << 100 } else { self.rng.random_range(500..5_000) };
                let mint = Move::Mint { issuer: self.accounts[number].address, to, asset, amount };
                let at_ms = 200 * self.rng.random_range(0..2);
                let index = self.add(Purpose::Mint, vec![mint], &[number], at_ms, Some(issue));
                self.funded_by.insert((to, asset), index);
            }
        }
    }

    fn pay(&mut self, payer: usize, payee: usize, amount: u128) -> Move {
        let second = self.rng.random_range(0..4) == 0;
        let asset = self.asset(usize::from(second));
        Move::Pay { from: self.accounts[payer].address, to: self.accounts[payee].address, asset, amount }
    }

    fn payment(&mut self, at_ms: u64) {
        let count = self.accounts.len();
        let (payer, payee) = (self.rng.random_range(0..count), self.rng.random_range(0..count));
        let amount = self.rng.random_range(1..200);
        let one = self.pay(payer, payee, amount);
        let Move::Pay { from, asset, .. } = &one else { return };
        let after = self.funded_by.get(&(*from, *asset)).copied();
        match self.rng.random_range(0..100) {
            0..=7 => {
                let much = self.pay(payer, payee, 1 << 110);
                self.add(Purpose::Overdraft, vec![much], &[payer], at_ms, after);
            }
            8..=19 => {
                let mut moves = vec![one];
                for _ in 0..self.rng.random_range(1..4) {
                    let next = self.rng.random_range(0..count);
                    let amount = self.rng.random_range(1..60);
                    moves.push(self.pay(payer, next, amount));
                }
                self.add(Purpose::Pay, moves, &[payer], at_ms, after);
            }
            20..=25 => self.two_payers(payer, payee, one, at_ms, after),
            26..=29 => {
                // From long past to somewhere within the run.
                let until = CREATED_MS + self.rng.random_range(0..at_ms + 2_000);
                self.add_until(Purpose::Expiring, vec![one], &[payer], at_ms, after, until);
            }
            30..=32 => {
                self.add(Purpose::Forged, vec![one], &[payer], at_ms, after);
            }
            33..=35 => {
                let number = self.rng.random_range(0..ASSETS);
                let (issuer, asset) = (self.accounts[number].address, self.asset(number));
                let amount = self.rng.random_range(1..100);
                let after = self.funded_by.get(&(issuer, asset)).copied();
                self.add(Purpose::Burn, vec![Move::Burn { issuer, asset, amount }], &[number], at_ms, after);
            }
            36..=41 => {
                let own = self.pay(payer, payer, amount);
                self.add(Purpose::Pay, vec![own], &[payer], at_ms, after);
            }
            _ => {
                self.add(Purpose::Pay, vec![one], &[payer], at_ms, after);
            }
        }
    }

    /// Two payers in one transaction: of one shard it is a payment, of two it is refused.
    fn two_payers(&mut self, payer: usize, payee: usize, one: Move, at_ms: u64, after: Option<u32>) {
        let others: Vec<usize> = (0..self.accounts.len()).filter(|other| *other != payer).collect();
        let Some(other) = others.choose(self.rng).copied() else { return };
        let amount = self.rng.random_range(1..100);
        let moves = vec![one, self.pay(other, payee, amount)];
        let together = self.accounts[other].home == self.accounts[payer].home;
        let purpose = if together { Purpose::Pay } else { Purpose::MultiVoter };
        self.add(purpose, moves, &[payer, other], at_ms, after);
    }

    /// One account changes its key; what it signed with the old one may then be refused.
    fn rotation(&mut self, config: &SimConfig) {
        let account = self.accounts.len() - 1;
        let auth = Authorisation::Single(self.spare.public());
        let mv = Move::Rotate { account: self.accounts[account].address, auth };
        let at_ms = self.rng.random_range(config.safety_ms / 2..=config.safety_ms);
        self.add(Purpose::Rotate, vec![mv], &[account], at_ms, None);
    }

    fn again(&mut self, config: &SimConfig) {
        let Some(earlier) = self.operations.choose(self.rng).cloned() else { return };
        // Either once it is answered, or while it is still on its way.
        let after = if self.rng.random() { Some(earlier.index) } else { earlier.after };
        let at_ms = self.rng.random_range(earlier.at_ms..=earlier.at_ms.max(config.safety_ms));
        let index = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        self.operations.push(Operation { index, purpose: Purpose::Again, at_ms, after, ..earlier });
    }
}

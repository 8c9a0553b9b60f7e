//! Clients: as many of each shard as are asked for, each with one payment under way at a time, and the next one as soon
//! as that has its receipt. So a shard always has work, and no more than its clients bring.
//!
//! Of the payments within a shard some are made for the machine to execute, and the others are only counted: see
//! [`Payment`]. Those to other shards are all executed.

use std::sync::Arc;

use bytes::Bytes;
use ledger::ids::{GroupId, LedgerId, TimeMs};
use ledger::tx::BODY_VERSION;
use ledger::{Move, Signature, SignedTx, Slot, TxBody, Witness};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

use crate::scale::cluster::{Account, CREATED_MS, Directory};

/// Payments are good for so long.
const VALID_MS: u64 = 60 * 60 * 1000;
const AMOUNT_MAX: u128 = 100;

/// What a client makes next.
pub(super) enum Payment {
    /// A payment that is executed, as it comes to a router.
    Executed(Bytes),
    /// One within the shard that has its place in queues, entries and blocks and its costs, and nothing else: no balance is
    /// changed by it.
    Counted,
}

/// What stands for a payment of a client that is only counted, where the bytes of one would stand.
pub(super) fn token(client: u32) -> Bytes {
    Bytes::copy_from_slice(&client.to_be_bytes())
}

/// The client whose payment is only counted. No signed payment is as short as its token.
pub(super) fn counted(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// The clients of one shard.
pub(super) struct Clients {
    directory: Arc<Directory>,
    home: GroupId,
    /// Payments of a hundred that go to another shard.
    cross_pct: u8,
    /// Of so many payments within the shard one is executed.
    local_every: u32,
    /// Ranks of accounts: the first one is the busiest of its shard.
    ranks: Zipf<f64>,
    accounts: usize,
    rng: ChaCha8Rng,
    made: u64,
}

impl Clients {
    /// # Errors
    /// A text when the skew is no number, or negative.
    pub(super) fn new(
        directory: Arc<Directory>,
        home: GroupId,
        cross_pct: u8,
        local_every: u32,
        zipf: f64,
        seed: u64,
    ) -> Result<Self, String> {
        let accounts = directory.accounts_of(home).len();
        let ranks = Zipf::new(accounts as f64, zipf).map_err(|error| format!("a skew of {zipf}: {error}"))?;
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Ok(Self { directory, home, cross_pct, local_every: local_every.max(1), ranks, accounts, rng, made: 0 })
    }

    fn rank(&mut self) -> usize {
        // Ranks count from 1.
        (self.ranks.sample(&mut self.rng) as usize).clamp(1, self.accounts) - 1
    }

    /// The next payment, as a client sends it. The signature has the form of one and is none: what checking it costs is
    /// modelled. As much is drawn for one that is only counted, so that the others are the same however many of these
    /// there are.
    pub(super) fn next(&mut self) -> Payment {
        let home = self.home.ordinal() as usize;
        let shards = self.directory.accounts.len();
        let payer = self.rank();
        let crosses = shards > 1 && self.rng.random_range(0..100) < self.cross_pct;
        let there = if crosses { (home + self.rng.random_range(1..shards)) % shards } else { home };
        let mut payee = self.rank();
        if !crosses && payee == payer {
            payee = (payee + 1) % self.accounts;
        }
        let amount = self.rng.random_range(1..=AMOUNT_MAX);
        self.made += 1;
        if !crosses && !self.made.is_multiple_of(self.local_every.into()) {
            return Payment::Counted;
        }
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.home.0.to_be_bytes());
        salt[8..].copy_from_slice(&self.made.to_be_bytes());
        let from = &self.directory.accounts[home][payer];
        let to = self.directory.accounts[there][payee].address;
        Payment::Executed(payment(&self.directory, from, to, amount, salt))
    }
}

/// One payment.
pub(super) fn payment(
    directory: &Directory,
    from: &Account,
    to: ledger::Address,
    amount: u128,
    salt: [u8; 16],
) -> Bytes {
    let mv = Move::Pay { from: from.address, to, asset: directory.asset.id, amount };
    let body = TxBody {
        version: BODY_VERSION,
        cluster: directory.cluster,
        valid_until_ms: TimeMs(CREATED_MS + VALID_MS),
        salt,
        slots: vec![Slot::Clear { ledger: LedgerId::MAIN, mv }],
        memo: Vec::new(),
    };
    let unsigned = Signature([1; 64]);
    let witness = Witness { auth: from.auth.clone(), signatures: vec![(0, unsigned)] };
    SignedTx { version: 1, body: body.encode(), witnesses: vec![witness] }.encode().into()
}

#[cfg(test)]
mod tests {
    use ledger::ParsedTx;
    use ledger::genesis::VerifyMode;
    use router::{Plan, plan};

    use super::*;
    use crate::scale::cluster::Shape;

    #[test]
    fn payments_go_where_they_are_asked_to() {
        let shape = Shape { shards: 4, nodes: 6, replicas: 3, accounts: 8, verify: VerifyMode::Ingest, seed: 1 };
        let directory = Arc::new(Directory::new(&shape).unwrap());
        assert!(directory.accounts.iter().all(|shard| shard.len() == 8));
        let home = GroupId::shard(2);
        let mut clients = Clients::new(Arc::clone(&directory), home, 25, 1, 1.0, 7).unwrap();
        let (mut crossing, mut busiest) = (0, 0);
        for _ in 0..1_000 {
            let Payment::Executed(bytes) = clients.next() else { panic!("all are executed") };
            let tx = ParsedTx::decode(&directory.cluster, &bytes).unwrap();
            assert_eq!(plan(&directory.genesis.layout, &tx), Ok(Plan::One(home)));
            let Some((_, Move::Pay { from, to, .. })) = tx.body.moves().next() else { panic!("a payment") };
            assert_ne!(from, to);
            crossing += u32::from(directory.genesis.layout.locate(to) != home);
            busiest += u32::from(*from == directory.accounts[2][0].address);
        }
        assert!((200..300).contains(&crossing), "{crossing}");
        assert!(busiest > 250, "{busiest}");
        let other = Clients::new(directory, home, 25, 1, f64::NAN, 7);
        assert!(other.is_err(), "a skew that is no number");
    }

    #[test]
    fn those_that_are_executed_are_the_same_whatever_is_only_counted() {
        let shape = Shape { shards: 2, nodes: 6, replicas: 3, accounts: 8, verify: VerifyMode::Ingest, seed: 1 };
        let directory = Arc::new(Directory::new(&shape).unwrap());
        let home = GroupId::shard(0);
        let clients = |every| Clients::new(Arc::clone(&directory), home, 20, every, 1.0, 7).unwrap();
        let (mut all, mut some) = (clients(1), clients(8));
        let (mut local, mut crossing, mut only_counted) = (0, 0, 0);
        for number in 1..=1_000 {
            let Payment::Executed(bytes) = all.next() else { panic!("all are executed") };
            assert_eq!(counted(&bytes), None);
            let tx = ParsedTx::decode(&directory.cluster, &bytes).unwrap();
            let Some((_, Move::Pay { to, .. })) = tx.body.moves().next() else { panic!("a payment") };
            let crosses = directory.genesis.layout.locate(to) != home;
            match some.next() {
                Payment::Executed(same) => {
                    assert_eq!(same, bytes);
                    assert!(crosses || number % 8 == 0);
                    *(if crosses { &mut crossing } else { &mut local }) += 1;
                }
                Payment::Counted => {
                    assert!(!crosses && number % 8 != 0);
                    only_counted += 1;
                }
            }
        }
        assert!(local > 50 && crossing > 150 && only_counted > 600, "{local} {crossing} {only_counted}");
        assert_eq!([0, 7, u32::MAX].map(|client| counted(&token(client))), [Some(0), Some(7), Some(u32::MAX)]);
    }
}

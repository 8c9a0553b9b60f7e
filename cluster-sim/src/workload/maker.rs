//! What all shapes of transactions are made with: accounts, keys, signatures, deadlines, routers.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::asset::AssetSpec;
use ledger::auth::{Authorisation, Witness};
use ledger::crypto::{PublicKey, SecretKey};
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, ClusterId, GroupId, LedgerId, TimeMs, TxId};
use ledger::tx::{Move, Opening, SignedTx, Slot, TxBody};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Handing, Load, Operation, Purpose};
use crate::cluster::{CHANNEL_ACCOUNTS, CREATED_MS, account_keys, channel_keys, channels, founded_keys};
use crate::config::Shape;
use crate::scenario::Scenario;

/// Accounts of the load; every shard has some of them.
pub(super) const ACCOUNTS: usize = 16;
/// Assets, each issued by the account of the same number.
pub(super) const ASSETS: usize = 2;
/// The account that pays most of all.
pub(super) const HOT_PAYER: usize = 2;
/// The account that is paid most of all.
pub(super) const HOT_PAYEE: usize = 3;
/// Accounts from this one on need two of three keys.
const JOINT_FROM: usize = 14;
/// Payments come in bursts, so that entries carry several of them.
const BURSTS: usize = 7;
const SET_UP_VALID_MS: u64 = 2 * 60 * 60 * 1000;

pub(super) struct Account {
    auth: Authorisation,
    keys: Vec<&'static SecretKey>,
    pub(super) address: Address,
    pub(super) home: GroupId,
}

impl Account {
    /// An account of a ledger that is one group.
    fn of_channel(channel: GroupId, key: &'static SecretKey) -> Self {
        let auth = Authorisation::Single(key.public());
        Self { address: auth.address(), auth, keys: vec![key], home: channel }
    }

    fn new(genesis: &Genesis, keys: Vec<&'static SecretKey>) -> Self {
        let mut keys = keys;
        keys.sort_by_key(|key| key.public());
        let auth = match keys.as_slice() {
            [key] => Authorisation::Single(key.public()),
            several => Authorisation::Multi { threshold: 2, keys: several.iter().map(|key| key.public()).collect() },
        };
        let address = auth.address();
        Self { auth, keys, address, home: genesis.layout.locate(&address) }
    }

    fn witness(&self, id: &Hash32) -> Witness {
        // Of joint accounts the first and the last key sign.
        let signers = if self.keys.len() == 1 { vec![0] } else { vec![0, self.keys.len() - 1] };
        let sign = |at: usize| (u8::try_from(at).unwrap_or(u8::MAX), self.keys[at].sign(id));
        Witness { auth: self.auth.clone(), signatures: signers.into_iter().map(sign).collect() }
    }
}

/// What a transaction is made of, besides its moves.
pub(super) struct Terms {
    pub(super) purpose: Purpose,
    pub(super) at_ms: u64,
    pub(super) after: Option<u32>,
    pub(super) valid_until_ms: u64,
    /// Slots that are hidden, by move.
    pub(super) hidden: Vec<bool>,
    /// An account that does not sign though it should.
    pub(super) unsigned: Option<Address>,
    pub(super) handing: Handing,
}

pub(super) struct Maker<'a> {
    pub(super) rng: &'a mut ChaCha8Rng,
    cluster: ClusterId,
    pub(super) shape: Shape,
    pub(super) accounts: Vec<Account>,
    /// Accounts of channels, of each the same number.
    pub(super) inside: Vec<Account>,
    /// What the rotating account changes to.
    spare: &'static SecretKey,
    outsider: &'static SecretKey,
    operations: Vec<Operation>,
    /// The group that what is made from now on waits for.
    awaits: Option<GroupId>,
    /// The mint that funds an account.
    funded_by: BTreeMap<(Address, AssetId), u32>,
}

impl<'a> Maker<'a> {
    pub(super) fn new(genesis: &Genesis, shape: &Shape, rng: &'a mut ChaCha8Rng) -> Self {
        let mut keys: Vec<&'static SecretKey> = account_keys().iter().collect();
        keys.shuffle(rng);
        let (spare, outsider) = (keys.pop().expect("the pool has keys"), keys.pop().expect("the pool has keys"));
        let most = ACCOUNTS.div_ceil(genesis.layout.shards.len());
        let mut of_shard: BTreeMap<GroupId, usize> = BTreeMap::new();
        let mut accounts: Vec<Account> = Vec::with_capacity(ACCOUNTS);
        while accounts.len() < ACCOUNTS && keys.len() > 3 {
            let joint = accounts.len() >= JOINT_FROM;
            let own = keys.split_off(keys.len() - if joint { 3 } else { 1 });
            let account = Account::new(genesis, own);
            let there = of_shard.entry(account.home).or_insert(0);
            // Joint accounts live where they live; the others are spread evenly.
            if joint || *there < most {
                *there += 1;
                accounts.push(account);
            }
        }
        accounts[..JOINT_FROM.min(ACCOUNTS)].shuffle(rng);
        let groups = channels(genesis);
        let places = groups.iter().flat_map(|group| std::iter::repeat_n(*group, CHANNEL_ACCOUNTS));
        let inside = places.zip(channel_keys()).map(|(group, key)| Account::of_channel(group, key)).collect();
        Self {
            inside,
            rng,
            cluster: genesis.cluster_id(),
            shape: shape.clone(),
            accounts,
            spare,
            outsider,
            operations: Vec::new(),
            awaits: None,
            funded_by: BTreeMap::new(),
        }
    }

    pub(super) fn finish(self) -> Load {
        let channels = self.inside.iter().map(|account| (account.address, account.home)).collect();
        Load { operations: self.operations, channels }
    }

    /// Accounts of a channel that is founded meanwhile. What is made from now on waits until routers have heard of it.
    pub(super) fn settle_in(&mut self, channel: GroupId) {
        self.inside.extend(founded_keys().iter().map(|key| Account::of_channel(channel, key)));
        self.awaits = Some(channel);
    }

    /// How many operations there are.
    pub(super) fn made(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn bursts(&mut self) -> Vec<u64> {
        self.moments(BURSTS)
    }

    /// So many times within the phase with faults.
    pub(super) fn moments(&mut self, count: usize) -> Vec<u64> {
        let end = self.shape.safety_ms.max(1_001);
        (0..count).map(|_| self.rng.random_range(1_000..end)).collect()
    }

    /// The id of an operation's transaction.
    pub(super) fn txid(&self, operation: u32) -> TxId {
        self.operations[operation as usize].txid
    }

    /// Whether something happens that does so in so many of a hundred cases.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(self.rng).expect("there is something to pick from")
    }

    pub(super) fn any_account(&mut self) -> usize {
        self.rng.random_range(0..self.accounts.len())
    }

    pub(super) fn address(&self, account: usize) -> Address {
        self.accounts[account].address
    }

    pub(super) fn asset(&self, number: usize) -> AssetId {
        AssetId::derive(&self.accounts[number].address, "SIM")
    }

    /// Mostly the first asset, which everybody has.
    pub(super) fn some_asset(&mut self) -> AssetId {
        let second = self.chance(25);
        self.asset(usize::from(second))
    }

    pub(super) fn pay(&mut self, payer: usize, payee: usize, amount: u128) -> Move {
        let asset = self.some_asset();
        Move::Pay { from: self.address(payer), to: self.address(payee), asset, amount }
    }

    /// The mint after which the account has something of the asset.
    pub(super) fn funded(&self, account: usize, asset: AssetId) -> Option<u32> {
        self.funded_by.get(&(self.address(account), asset)).copied()
    }

    /// Deadlines between a moment and an hour away.
    pub(super) fn deadline(&mut self, at_ms: u64) -> u64 {
        let ahead = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(400..3_000),
            1 | 2 => self.rng.random_range(5_000..30_000),
            _ => self.rng.random_range(60_000..3_600_000),
        };
        CREATED_MS + at_ms + ahead
    }

    /// A transaction on ordinary terms.
    pub(super) fn terms(&mut self, purpose: Purpose, at_ms: u64, after: Option<u32>) -> Terms {
        let valid_until_ms = self.deadline(at_ms);
        let handing = Handing { wants_applied: self.chance(15), ..Handing::default() };
        Terms { purpose, at_ms, after, valid_until_ms, hidden: Vec::new(), unsigned: None, handing }
    }

    /// How a router, or somebody else, hands a transaction to `groups`.
    pub(super) fn handing(&mut self, groups: &[GroupId]) -> Handing {
        let (dies, stranger) = match self.shape.scenario {
            Scenario::Calm => (15, 5),
            Scenario::Routers => (55, 25),
            _ => (20, 10),
        };
        let mut handing = Handing { wants_applied: self.chance(15), ..Handing::default() };
        if self.chance(dies) {
            let messages = u32::try_from(3 * groups.len()).unwrap_or(u32::MAX);
            handing.dies_after = Some(self.rng.random_range(1..=messages));
        } else if self.chance(stranger) {
            let mut some = groups.to_vec();
            some.shuffle(self.rng);
            some.truncate(self.rng.random_range(1..=groups.len()));
            // A stranger sends once and is not interested in the answer.
            handing.dies_after = u32::try_from(some.len()).ok();
            handing.only = Some(some);
        }
        handing
    }

    /// Adds an operation with one transaction, signed by all accounts that have to sign.
    pub(super) fn add(&mut self, moves: Vec<Move>, terms: Terms) -> u32 {
        let (slots, openings, hidden) = self.slots(&moves, &terms);
        let mut memo = vec![0; self.rng.random_range(0..24)];
        self.rng.fill(&mut memo[..]);
        let ledgers: Vec<LedgerId> = moves.iter().map(|mv| self.ledger_of(mv)).collect();
        if ledgers.iter().any(|ledger| *ledger != ledgers[0]) {
            // One that all of them could read is refused.
            memo.clear();
        }
        let body = TxBody {
            version: ledger::tx::BODY_VERSION,
            cluster: self.cluster,
            valid_until_ms: TimeMs(terms.valid_until_ms),
            salt: self.rng.random(),
            slots,
            memo,
        };
        let mut signed = SignedTx { version: 1, body: body.encode(), witnesses: Vec::new() };
        let txid = signed.txid(&self.cluster);
        let mut signers: Vec<Address> = Vec::new();
        for mv in &moves {
            let first = mv.voters().find(|voter| voter.authorises).map(|voter| voter.account);
            signers.extend(first.filter(|account| !signers.contains(account) && terms.unsigned != Some(*account)));
        }
        let mut witnesses: BTreeMap<LedgerId, Vec<Witness>> = BTreeMap::new();
        let all = self.accounts.iter().chain(&self.inside);
        for account in all.filter(|account| signers.contains(&account.address)) {
            let witness = account.witness(&txid.0);
            if let Some(ledger) = account.home.ledger() {
                witnesses.entry(ledger).or_default().push(witness.clone());
            }
            signed.witnesses.push(witness);
        }
        let mut purpose = terms.purpose;
        if purpose == Purpose::Forged {
            purpose = self.forge(&mut signed);
        }
        let index = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        self.operations.push(Operation {
            index,
            purpose,
            ledgers,
            txid,
            bytes: Bytes::from(signed.encode()),
            openings,
            witnesses,
            moves,
            hidden,
            valid_until: TimeMs(terms.valid_until_ms),
            at_ms: terms.at_ms,
            after: terms.after,
            awaits: self.awaits,
            late: false,
            handing: terms.handing,
        });
        index
    }

    fn slots(
        &mut self,
        moves: &[Move],
        terms: &Terms,
    ) -> (Vec<Slot>, BTreeMap<GroupId, Vec<Opening>>, Vec<Option<(GroupId, Hash32)>>) {
        let (mut slots, mut openings, mut hidden) = (Vec::new(), BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for (index, mv) in (0u16..).zip(moves) {
            let ledger = self.ledger_of(mv);
            let owner = terms.hidden.get(usize::from(index)).filter(|wanted| **wanted).and_then(|_| self.one_home(mv));
            let Some(group) = owner else {
                slots.push(Slot::Clear { ledger, mv: mv.clone() });
                hidden.push(None);
                continue;
            };
            let salt = Hash32(self.rng.random());
            let opening = Opening { slot: index, salt, mv: mv.clone() };
            slots.push(Slot::Hidden { ledger, group, hash: opening.hash() });
            hidden.push(Some((group, salt)));
            openings.entry(group).or_default().push(opening);
        }
        (slots, openings, hidden)
    }

    /// The group in which all voters of a move live; a move without one cannot be hidden.
    fn one_home(&self, mv: &Move) -> Option<GroupId> {
        let mut homes: Vec<GroupId> = mv.voters().filter_map(|voter| self.home_of(&voter.account)).collect();
        homes.dedup();
        if let [one] = homes.as_slice() { Some(*one) } else { None }
    }

    /// The ledger that a move is in: that of its first voter.
    fn ledger_of(&self, mv: &Move) -> LedgerId {
        let first = mv.voters().next().filter(|_| !matches!(mv, Move::Issue(_)));
        first.map_or(LedgerId::BEACON, |voter| {
            self.home_of(&voter.account).and_then(GroupId::ledger).unwrap_or(LedgerId::MAIN)
        })
    }

    pub(super) fn home_of(&self, address: &Address) -> Option<GroupId> {
        self.accounts.iter().chain(&self.inside).find(|account| account.address == *address).map(|account| account.home)
    }

    /// A key that nobody signs with: an account that has it cannot be signed for by a witness of another
    /// account, nor by the outsider, both of which count as no signature.
    pub(super) fn unused_key(&mut self) -> &'static SecretKey {
        let drawn = self.rng.random_range(0..account_keys().len());
        let owned = self.accounts.iter().flat_map(|account| &account.keys);
        let signing: Vec<PublicKey> = owned.chain([&self.outsider]).map(|key| key.public()).collect();
        let unused: Vec<&SecretKey> = account_keys().iter().filter(|key| !signing.contains(&key.public())).collect();
        unused[drawn % unused.len()]
    }

    /// Breaks a signature, or replaces it by a good one of a key that has no right to the account,
    /// which is as if the account had not signed.
    fn forge(&mut self, signed: &mut SignedTx) -> Purpose {
        let txid = signed.txid(&self.cluster);
        let stranger = self.rng.random();
        let Some(witness) = signed.witnesses.first_mut() else { return Purpose::Forged };
        if stranger {
            witness.auth = Authorisation::Single(self.outsider.public());
            witness.signatures = vec![(0, self.outsider.sign(&txid.0))];
            return Purpose::Unsigned;
        }
        if let Some((_, signature)) = witness.signatures.first_mut() {
            signature.0[self.rng.random_range(0..64)] ^= 1 << self.rng.random_range(0..8);
        }
        Purpose::Forged
    }

    fn set_up_terms(purpose: Purpose, at_ms: u64, after: Option<u32>) -> Terms {
        Terms {
            purpose,
            at_ms,
            after,
            valid_until_ms: CREATED_MS + SET_UP_VALID_MS,
            hidden: Vec::new(),
            unsigned: None,
            handing: Handing::default(),
        }
    }

    /// Issues the assets and gives accounts something of them.
    pub(super) fn set_up(&mut self) {
        for number in 0..ASSETS {
            let spec = AssetSpec {
                issuer: self.address(number),
                symbol: "SIM".to_owned(),
                name: format!("simulated {number}"),
                decimals: 2,
            };
            let issue = self.add(vec![Move::Issue(spec)], Self::set_up_terms(Purpose::Issue, 0, None));
            for holder in 0..self.accounts.len() {
                // The first asset goes to everyone, the others to some.
                if number > 0 && holder != number && self.rng.random() {
                    continue;
                }
                let huge = self.rng.random_range(0..10) == 0 || holder == HOT_PAYER;
                let amount = if huge { 1u128 << 100 } else { self.rng.random_range(500..5_000) };
                let (issuer, to, asset) = (self.address(number), self.address(holder), self.asset(number));
                let at_ms = 200 * self.rng.random_range(0..2);
                let terms = Self::set_up_terms(Purpose::Mint, at_ms, Some(issue));
                let index = self.add(vec![Move::Mint { issuer, to, asset, amount }], terms);
                self.funded_by.insert((to, asset), index);
            }
        }
    }

    /// One account changes its key; what it signed with the old one may then be refused.
    pub(super) fn rotation(&mut self) {
        let account = JOINT_FROM - 1;
        let auth = Authorisation::Single(self.spare.public());
        let mv = Move::Rotate { account: self.address(account), auth };
        let at_ms = self.rng.random_range(self.shape.safety_ms / 2..=self.shape.safety_ms);
        self.add(vec![mv], Self::set_up_terms(Purpose::Rotate, at_ms, None));
    }

    /// Earlier transactions once more, either once they are answered or while they are under way,
    /// by a router that lives.
    pub(super) fn again(&mut self, count: usize) {
        self.again_of(0, count);
    }

    /// The same, of those from this one on.
    pub(super) fn again_of(&mut self, first: usize, count: usize) {
        for _ in 0..count {
            let known = self.operations.get(first..).unwrap_or_default();
            let Some(earlier) = known.choose(self.rng).cloned() else { return };
            let after = if self.rng.random() { Some(earlier.index) } else { earlier.after };
            let at_ms = self.rng.random_range(earlier.at_ms..=earlier.at_ms.max(self.shape.safety_ms));
            let handing = Handing { withheld: earlier.handing.withheld.clone(), ..Handing::default() };
            self.repeat(earlier, |again| Operation { at_ms, after, handing, ..again });
        }
    }

    /// Some of what several groups vote on once more, when nobody remembers it but by its receipt.
    pub(super) fn late(&mut self, count: usize) {
        let several: Vec<u32> = self
            .operations
            .iter()
            .filter(|operation| matches!(operation.purpose, Purpose::Several | Purpose::Withheld | Purpose::Unsigned))
            .map(|operation| operation.index)
            .collect();
        let chosen: Vec<u32> = several.choose_multiple(self.rng, count).copied().collect();
        for index in chosen {
            let earlier = self.operations[index as usize].clone();
            let handing = Handing { withheld: earlier.handing.withheld.clone(), ..Handing::default() };
            self.repeat(earlier, |again| Operation { at_ms: 0, after: None, late: true, handing, ..again });
        }
    }

    fn repeat(&mut self, earlier: Operation, change: impl FnOnce(Operation) -> Operation) {
        let index = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        let again = change(Operation { purpose: Purpose::Again, late: false, ..earlier });
        self.operations.push(Operation { index, ..again });
    }
}

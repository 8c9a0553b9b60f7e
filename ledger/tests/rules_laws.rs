//! Laws of the account rules: a small model, written without the code's own predicates, runs beside
//! one to four shards through random transactions, with credits that arrive late and in any order.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, GroupId, LedgerId, TxId};
use ledger::layout::Layout;
use ledger::rules::{Credit, RuleContext, apply_credit, execute};
use ledger::tx::Move;
use ledger::{AccountRecord, Balance, Reject, schema};
use proptest::prelude::*;
use proptest::sample::Index;
use support::{NOW, Owner, State, asset_def, body, ingest, multi, pay, sign, single, with_view};

/// The first one issues every asset.
const ACCOUNTS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Pay { from: usize, to: usize, asset: usize, amount: u128 },
    Mint { by: usize, to: usize, asset: usize, amount: u128 },
    Burn { by: usize, asset: usize, amount: u128 },
    Rotate { account: usize, seed: u8 },
}

impl Step {
    fn voter(&self) -> usize {
        match self {
            Self::Pay { from, .. } => *from,
            Self::Mint { by, .. } | Self::Burn { by, .. } => *by,
            Self::Rotate { account, .. } => *account,
        }
    }
}

/// Whether a step stands there twice, or two of them replace one account's authorisation.
fn repeats(steps: &[Step]) -> bool {
    let subject = |step: &Step| match step {
        Step::Rotate { account, .. } => format!("rotate {account}"),
        other => format!("{other:?}"),
    };
    let subjects: BTreeSet<String> = steps.iter().map(subject).collect();
    subjects.len() < steps.len()
}

/// Which keys sign for the first voter; all others sign with the keys they have.
#[derive(Clone, Copy, Debug)]
enum Signer {
    Right,
    Former,
    Stranger,
}

#[derive(Clone, Debug)]
enum Event {
    Transaction(Vec<Step>, Signer),
    Credit(Index),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Books {
    balances: BTreeMap<(usize, usize), u128>,
    supplies: BTreeMap<usize, u128>,
    auths: Vec<u8>,
}

/// An owner by the number of its authorisation: every third one needs two of three keys.
fn owner(number: u8) -> Owner {
    if number % 3 == 2 { multi(2, &[number, number + 100, number + 50]) } else { single(number) }
}

struct World {
    layout: Layout,
    addresses: Vec<Address>,
    assets: Vec<AssetId>,
    states: BTreeMap<GroupId, State>,
    in_flight: Vec<(GroupId, Credit)>,
    books: Books,
    former: Vec<Option<u8>>,
    salt: u64,
}

impl World {
    fn new(shards: u32, assets: usize) -> Self {
        let layout = Layout::even(shards);
        let auths: Vec<u8> = (0..ACCOUNTS as u8).collect();
        let addresses: Vec<Address> = auths.iter().map(|number| owner(*number).address()).collect();
        let defs: Vec<_> = (0..assets).map(|n| asset_def(addresses[0], &format!("A{n}"))).collect();
        let mut states = BTreeMap::new();
        for shard in &layout.shards {
            let mut state = State::new();
            with_view(&mut state, |view| defs.iter().for_each(|def| view.store(schema::asset(&def.id), def)));
            states.insert(shard.group, state);
        }
        let books = Books { auths, ..Books::default() };
        let assets = defs.iter().map(|def| def.id).collect();
        let former = vec![None; ACCOUNTS];
        let mut world = Self { layout, addresses, assets, states, in_flight: Vec::new(), books, former, salt: 0 };
        world.fund();
        world
    }

    fn fund(&mut self) {
        for asset in 0..self.assets.len() {
            for to in 0..ACCOUNTS {
                self.transaction(&[Step::Mint { by: 0, to, asset, amount: 500 }], Signer::Right);
            }
        }
        while !self.in_flight.is_empty() {
            self.deliver(0);
        }
    }

    fn home(&self, account: usize) -> GroupId {
        self.layout.locate(&self.addresses[account])
    }

    fn to_move(&self, step: &Step) -> Move {
        match step {
            Step::Pay { from, to, asset, amount } => {
                pay(self.addresses[*from], self.addresses[*to], self.assets[*asset], *amount)
            }
            Step::Mint { by, to, asset, amount } => Move::Mint {
                issuer: self.addresses[*by],
                to: self.addresses[*to],
                asset: self.assets[*asset],
                amount: *amount,
            },
            Step::Burn { by, asset, amount } => {
                Move::Burn { issuer: self.addresses[*by], asset: self.assets[*asset], amount: *amount }
            }
            Step::Rotate { account, seed } => {
                Move::Rotate { account: self.addresses[*account], auth: owner(*seed).auth }
            }
        }
    }

    fn signers(&self, steps: &[Step], signer: Signer) -> BTreeSet<u8> {
        let first = steps[0].voter();
        let voters: BTreeSet<usize> = steps.iter().map(Step::voter).collect();
        let number = |account: usize| match signer {
            Signer::Stranger if account == first => 99,
            Signer::Former if account == first => self.former[account].unwrap_or(99),
            _ => self.books.auths[account],
        };
        voters.into_iter().map(number).collect()
    }

    /// What must come of it, by the books alone; they change only when it is accepted.
    fn expect(&mut self, group: GroupId, steps: &[Step], signed: &BTreeSet<u8>) -> Result<(), Reject> {
        if steps.iter().any(|step| self.home(step.voter()) != group) {
            return Err(Reject::MultiVoter);
        }
        if steps.iter().any(|step| !signed.contains(&self.books.auths[step.voter()])) {
            return Err(Reject::NotAuthorised);
        }
        let mut books = self.books.clone();
        // Credits of this group come after all debits, and burns make room for mints only later.
        let mut credits = Vec::new();
        let mut burns = Vec::new();
        for step in steps {
            match *step {
                Step::Pay { from, to, asset, amount } => {
                    books.take(from, asset, amount)?;
                    credits.push((to, asset, amount));
                }
                Step::Mint { by, .. } | Step::Burn { by, .. } if by != 0 => {
                    return Err(Reject::NotIssuer);
                }
                Step::Mint { to, asset, amount, .. } => {
                    let supply = books.supplies.entry(asset).or_default();
                    let most = u128::MAX / 2;
                    *supply = supply.checked_add(amount).filter(|sum| *sum <= most).ok_or(Reject::Overflow)?;
                    credits.push((to, asset, amount));
                }
                Step::Burn { by, asset, amount } => {
                    books.take(by, asset, amount)?;
                    burns.push((asset, amount));
                }
                Step::Rotate { account, seed } => books.auths[account] = seed,
            }
        }
        for (asset, amount) in burns {
            *books.supplies.entry(asset).or_default() -= amount;
        }
        for (to, asset, amount) in credits {
            if self.home(to) == group {
                *books.balances.entry((to, asset)).or_default() += amount;
            }
        }
        for (account, (old, new)) in self.books.auths.iter().zip(&books.auths).enumerate() {
            if old != new {
                self.former[account] = Some(*old);
            }
        }
        self.books = books;
        Ok(())
    }

    fn transaction(&mut self, steps: &[Step], signer: Signer) {
        let group = self.home(steps[0].voter());
        let mut body = body(steps.iter().map(|step| self.to_move(step)).collect());
        self.salt += 1;
        body.salt[..8].copy_from_slice(&self.salt.to_le_bytes());
        let signed = self.signers(steps, signer);
        let owners: Vec<Owner> = signed.iter().map(|number| owner(*number)).collect();
        let signed_tx = sign(&body, &owners.iter().collect::<Vec<_>>());
        if repeats(steps) {
            assert_eq!(ingest(&signed_tx).err(), Some(Reject::DuplicateMove), "{steps:?}");
            return;
        }
        let tx = ingest(&signed_tx).expect("the form is right");
        let expected = self.expect(group, steps, &signed);
        let ctx = RuleContext {
            group,
            ledger: LedgerId::MAIN,
            layout: Some(&self.layout),
            time_ms: NOW,
            burned: &|_| 0,
            permission: None,
        };
        let state = self.states.get_mut(&group).expect("a shard of the layout");
        let (result, wrote) = with_view(state, |view| execute(view, &ctx, &tx));
        assert_eq!(result.as_ref().map(|_| ()), expected.as_ref().map(|_| ()), "{steps:?} {signer:?}");
        assert_eq!(wrote, result.is_ok(), "a refusal leaves no trace");
        for (dest, credit) in result.map(|effects| effects.credits).unwrap_or_default() {
            assert_ne!(dest, group, "a credit for this group is applied, not sent");
            self.in_flight.push((dest, credit));
        }
    }

    fn deliver(&mut self, at: usize) {
        let (dest, credit) = self.in_flight.swap_remove(at);
        with_view(self.states.get_mut(&dest).expect("a shard of the layout"), |view| apply_credit(view, &credit));
        let account = self.addresses.iter().position(|address| *address == credit.account).expect("one of ours");
        let asset = self.assets.iter().position(|asset| *asset == credit.asset).expect("one of ours");
        *self.books.balances.entry((account, asset)).or_default() += credit.amount;
    }

    fn check(&self) {
        for (account, address) in self.addresses.iter().enumerate() {
            let state = &self.states[&self.home(account)];
            for (asset, id) in self.assets.iter().enumerate() {
                let expected = self.books.balances.get(&(account, asset)).copied().unwrap_or(0);
                assert_eq!(balance(state, address, id).posted, expected, "account {account}, asset {asset}");
            }
        }
        for (asset, id) in self.assets.iter().enumerate() {
            let held = self.states.values().flat_map(balances).filter(|line| line.0 == *id);
            let posted: u128 = held.map(|line| line.1.posted).sum();
            let travelling = self.in_flight.iter().filter(|(_, credit)| credit.asset == *id);
            let total = posted + travelling.map(|(_, credit)| credit.amount).sum::<u128>();
            assert_eq!(total, self.books.supplies.get(&asset).copied().unwrap_or(0), "supply of asset {asset}");
            let counter = &self.states[&self.home(0)][&schema::supply(&self.addresses[0], id)];
            assert_eq!(borsh::from_slice::<u128>(counter).expect("a counter"), total);
        }
    }
}

impl Books {
    fn take(&mut self, account: usize, asset: usize, amount: u128) -> Result<(), Reject> {
        let balance = self.balances.entry((account, asset)).or_default();
        *balance = balance.checked_sub(amount).ok_or(Reject::InsufficientFunds)?;
        Ok(())
    }
}

/// The balance as a reader of the state finds it, in the record or in an entry of its own.
fn balance(state: &State, address: &Address, asset: &AssetId) -> Balance {
    let record: AccountRecord = state
        .get(&schema::account(address))
        .map(|bytes| borsh::from_slice(bytes).expect("a record"))
        .unwrap_or_default();
    if let Some(line) = record.balances.iter().find(|line| line.0 == *asset) {
        assert!(!state.contains_key(&schema::extra_balance(address, asset)), "one asset stands in one place");
        return line.1;
    }
    state
        .get(&schema::extra_balance(address, asset))
        .map(|bytes| borsh::from_slice(bytes).expect("a balance"))
        .unwrap_or_default()
}

/// Every balance of a state, wherever it stands; records are canonical, holds are covered.
fn balances(state: &State) -> Vec<(AssetId, Balance)> {
    let mut found = Vec::new();
    for (key, value) in state.iter().filter(|(key, _)| key[0] == schema::STATE) {
        match key[33] {
            schema::KIND_ACCOUNT => {
                let record: AccountRecord = borsh::from_slice(value).expect("a record");
                assert!(record.balances.len() <= ledger::limits::INLINE_BALANCES_MAX);
                assert!(record.balances.windows(2).all(|pair| pair[0].0 < pair[1].0));
                found.extend(record.balances);
            }
            schema::KIND_BALANCE => {
                let asset: [u8; 16] = key[34..].try_into().expect("an asset id");
                found.push((AssetId(asset), borsh::from_slice(value).expect("a balance")));
            }
            kind => assert_eq!(kind, schema::KIND_SUPPLY),
        }
    }
    assert!(found.iter().all(|(_, balance)| balance.held <= balance.posted));
    found
}

fn amount() -> impl Strategy<Value = u128> {
    prop_oneof![8 => 1u128..300, 2 => 300u128..3000, 1 => Just(u128::MAX), 1 => Just(u128::MAX / 2 - 5000)]
}

fn step(assets: usize) -> impl Strategy<Value = Step> {
    let account = || 0..ACCOUNTS;
    prop_oneof![
        8 => (account(), account(), 0..assets, amount())
            .prop_map(|(from, to, asset, amount)| Step::Pay { from, to, asset, amount }),
        2 => (prop_oneof![4 => Just(0), 1 => account()], account(), 0..assets, amount())
            .prop_map(|(by, to, asset, amount)| Step::Mint { by, to, asset, amount }),
        1 => (prop_oneof![4 => Just(0), 1 => account()], 0..assets, amount())
            .prop_map(|(by, asset, amount)| Step::Burn { by, asset, amount }),
        1 => (account(), 20u8..40).prop_map(|(account, seed)| Step::Rotate { account, seed }),
    ]
}

fn event(assets: usize) -> impl Strategy<Value = Event> {
    let signer = prop_oneof![8 => Just(Signer::Right), 1 => Just(Signer::Former), 1 => Just(Signer::Stranger)];
    prop_oneof![
        3 => (prop::collection::vec(step(assets), 1..4), signer)
            .prop_map(|(steps, signer)| Event::Transaction(steps, signer)),
        2 => any::<Index>().prop_map(Event::Credit),
    ]
}

fn history() -> impl Strategy<Value = (u32, usize, Vec<Event>)> {
    (1u32..5, prop_oneof![Just(1usize), Just(2), Just(12)])
        .prop_flat_map(|(shards, assets)| (Just(shards), Just(assets), prop::collection::vec(event(assets), 1..40)))
}

fn credits() -> impl Strategy<Value = Vec<Credit>> {
    let credit = (0u8..3, 0u8..14, 1u128..1000, any::<[u8; 32]>()).prop_map(|(account, asset, amount, txid)| Credit {
        txid: TxId(Hash32(txid)),
        move_index: 0,
        account: single(account).address(),
        asset: asset_def(single(0).address(), &format!("A{asset}")).id,
        amount,
    });
    prop::collection::vec(credit, 0..60)
}

fn after(credits: &[Credit]) -> State {
    let mut state = State::new();
    for credit in credits {
        with_view(&mut state, |view| apply_credit(view, credit));
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn shards_and_books_agree_and_supply_is_conserved((shards, assets, events) in history()) {
        let mut world = World::new(shards, assets);
        world.check();
        for event in events {
            match event {
                Event::Transaction(steps, signer) => world.transaction(&steps, signer),
                Event::Credit(_) if world.in_flight.is_empty() => {}
                Event::Credit(at) => world.deliver(at.index(world.in_flight.len())),
            }
            world.check();
        }
    }

    #[test]
    fn credits_give_the_same_state_in_any_order(
        (credits, shuffled) in credits().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
    ) {
        prop_assert_eq!(after(&credits), after(&shuffled));
    }

    #[test]
    fn credits_in_one_block_equal_credits_in_many(credits in credits()) {
        let mut state = State::new();
        with_view(&mut state, |view| credits.iter().for_each(|credit| { apply_credit(view, credit); }));
        prop_assert_eq!(state, after(&credits));
    }
}

#[test]
fn what_is_written_within_a_block_is_taken_back_by_rollback() {
    let mut world = World::new(1, 12);
    let group = world.home(0);
    let before = world.states[&group].clone();
    let credit = Credit {
        txid: TxId(Hash32::ZERO),
        move_index: 0,
        account: world.addresses[1],
        asset: world.assets[0],
        amount: 1,
    };
    let state = world.states.get_mut(&group).expect("the one shard");
    with_view(state, |view| {
        view.begin();
        apply_credit(view, &credit);
        view.rollback();
    });
    assert_eq!(*state, before);
}

//! Transfers between ledgers, on the machines of the main ledger's shards and of two channels: value
//! adds up over all ledgers at every moment, pair accounts count what is out there, flows balance by
//! group and by peer, and a channel that breaks the rules gets nothing that it was not sent.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use cross_shard::Message;
use ledger::flow::FlowLine;
use ledger::genesis::VerifyMode;
use ledger::ids::{Address, ClusterId, GroupId, Height, LedgerId, TimeMs, TxId};
use ledger::machine::{BlockContext, Machine};
use ledger::pair::{self, Pair, Transfer};
use ledger::receipt::Outcome;
use ledger::rules::Credit;
use ledger::tx::{Move, SignedTx, Slot, TxBody};
use ledger::view::View;
use ledger::{AccountRecord, AssetDef, AssetSpec, Authorisation, Layout, Reject, SecretKey, schema};
use proptest::prelude::*;
use shard_node::core::entry::Command;
use shard_node::core::machine::{BlockWork, CommandOutcome};

const CLUSTER: ClusterId = ClusterId(ledger::Hash32([9; 32]));
const START: u64 = 1_700_000_000_000;
const CHANNELS: [GroupId; 2] = [GroupId::channel(1), GroupId::channel(2)];
const CUSTOMERS: u8 = 5;
const EACH: u128 = 1000;

/// Keys and addresses of the customers; deriving them takes longer than a block.
static PARTIES: LazyLock<Vec<(SecretKey, Address)>> = LazyLock::new(|| {
    let party = |number: u8| {
        let key = SecretKey::derive(&[number], b"transfers");
        let address = Authorisation::Single(key.public()).address();
        (key, address)
    };
    (0..CUSTOMERS).map(party).collect()
});

fn key(number: u8) -> &'static SecretKey {
    &PARTIES[usize::from(number)].0
}

/// Customer 0 is the issuer. All have an account in every ledger, by one address.
fn customer(number: u8) -> Address {
    PARTIES[usize::from(number)].1
}

fn asset() -> AssetDef {
    let spec = AssetSpec { issuer: customer(0), symbol: "EUR".to_owned(), name: String::new(), decimals: 2 };
    AssetDef { version: 1, id: spec.id(), spec, frozen: false }
}

fn of(channel: GroupId) -> LedgerId {
    LedgerId::of_channel(channel)
}

type State = BTreeMap<Vec<u8>, Bytes>;

struct World {
    layout: Layout,
    states: BTreeMap<GroupId, State>,
    /// What a destination has taken of a source's stream: source, destination.
    taken: BTreeMap<(GroupId, GroupId), u64>,
    /// Source, destination: by the headers of the source, and of the destination.
    flows: BTreeMap<(GroupId, GroupId), (u128, u128)>,
    time: u64,
    salt: u64,
}

impl World {
    fn new(shards: u32) -> Self {
        let layout = Layout::even(shards);
        let groups: Vec<GroupId> = layout.shards.iter().map(|shard| shard.group).chain(CHANNELS).collect();
        let mut world = Self {
            states: groups.iter().map(|group| (*group, State::new())).collect(),
            layout,
            taken: BTreeMap::new(),
            flows: BTreeMap::new(),
            time: START,
            salt: 0,
        };
        for state in world.states.values_mut() {
            state.insert(schema::asset(&asset().id), borsh::to_vec(&asset()).unwrap().into());
            for group in &groups {
                state.insert(schema::current_committee(*group), Bytes::new());
            }
        }
        for number in 0..CUSTOMERS {
            let mint = Move::Mint { issuer: customer(0), to: customer(number), asset: asset().id, amount: EACH };
            world.send(LedgerId::MAIN, 0, mint).unwrap();
        }
        world.drain();
        world
    }

    fn home(&self, ledger: LedgerId, account: &Address) -> GroupId {
        if ledger == LedgerId::MAIN { self.layout.locate(account) } else { GroupId(ledger.0) }
    }

    fn home_pair(&self, channel: GroupId) -> GroupId {
        self.layout.locate(&pair::address(of(channel), &asset().id))
    }

    /// One block of a group.
    fn block<T>(&mut self, group: GroupId, work: impl FnOnce(&mut BlockWork, &mut View<'_>, BlockContext) -> T) -> T {
        self.time += 10;
        let at = BlockContext { cluster: CLUSTER, group, height: Height(self.time), time_ms: TimeMs(self.time) };
        let mut block = BlockWork::new(group, self.layout.clone(), VerifyMode::Ingest);
        let state = self.states.get_mut(&group).unwrap();
        let (result, lines, writes) = {
            let mut view = View::new(&*state);
            let result = work(&mut block, &mut view, at);
            let lines = block.flows.close(&mut view);
            (result, lines, view.into_writes().unwrap())
        };
        for (key, value) in writes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        self.book(group, &lines);
        result
    }

    fn book(&mut self, group: GroupId, lines: &[FlowLine]) {
        for line in lines {
            assert!(line.balances(), "{group}: {line:?}");
            assert_eq!(line.closing, self.posted(group), "the total of {group} is what its accounts have");
            for (dest, amount) in &line.exported {
                let sum = &mut self.flows.entry((group, *dest)).or_default().0;
                // What is forged can be as much as a number holds.
                *sum = sum.saturating_add(*amount);
            }
            for (source, amount) in &line.imported {
                let sum = &mut self.flows.entry((*source, group)).or_default().1;
                *sum = sum.saturating_add(*amount);
            }
        }
    }

    fn send(&mut self, ledger: LedgerId, signer: u8, mv: Move) -> Result<(), Reject> {
        self.salt += 1;
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salt.to_le_bytes());
        let group = self.home(ledger, &mv.voters().next().unwrap().account);
        let body = TxBody {
            version: 1,
            cluster: CLUSTER,
            valid_until_ms: TimeMs(self.time + 60_000),
            salt,
            slots: vec![Slot::Clear { ledger, mv }],
            memo: Vec::new(),
        };
        let bytes = SignedTx::sign(&body, &[key(signer)]).encode();
        self.block(group, |work, view, at| match work.apply(view, at, &Command::Tx(bytes)) {
            CommandOutcome::Receipt(_, index) => match &work.receipts[index as usize].outcome {
                Outcome::Committed { .. } => Ok(()),
                Outcome::Rejected(reason) | Outcome::Aborted { reason, .. } => Err(*reason),
            },
            CommandOutcome::Refused(_, reason) => Err(reason),
            other => panic!("{other:?}"),
        })
    }

    fn transfer(&mut self, from: LedgerId, to: LedgerId, payer: u8, payee: u8, amount: u128) -> Result<(), Reject> {
        let (asset, ledger) = (asset().id, to);
        let mv = Move::Transfer { from: customer(payer), to: customer(payee), asset, amount, ledger };
        self.send(from, payer, mv)
    }

    fn receive(&mut self, dest: GroupId, source: GroupId, message: Message) {
        self.block(dest, |work, view, at| work.receive(view, at, source, message));
    }

    /// Everything that was sent and not taken, oldest first of each stream.
    fn in_flight(&self) -> Vec<(GroupId, GroupId, Message)> {
        let mut all = Vec::new();
        for (source, state) in &self.states {
            for dest in self.states.keys() {
                let from = self.taken.get(&(*source, *dest)).copied().unwrap_or(0);
                let stored = (from..).map_while(|seq| state.get(&schema::mail(*dest, seq)));
                all.extend(stored.map(|bytes| (*source, *dest, borsh::from_slice(bytes).unwrap())));
            }
        }
        all
    }

    /// Delivers the head of one of the streams that have something.
    fn deliver(&mut self, pick: usize) -> bool {
        let mut heads = self.in_flight();
        heads.dedup_by_key(|message| (message.0, message.1));
        if heads.is_empty() {
            return false;
        }
        let (source, dest, message) = heads.swap_remove(pick % heads.len());
        *self.taken.entry((source, dest)).or_insert(0) += 1;
        self.receive(dest, source, message);
        true
    }

    fn drain(&mut self) {
        while self.deliver(0) {}
    }

    fn record(&self, group: GroupId, account: &Address) -> AccountRecord {
        let bytes = self.states[&group].get(&schema::account(account));
        bytes.map(|bytes| borsh::from_slice(bytes).unwrap()).unwrap_or_default()
    }

    fn balance(&self, ledger: LedgerId, number: u8) -> u128 {
        let record = self.record(self.home(ledger, &customer(number)), &customer(number));
        record.balances.iter().map(|line| line.1.posted).sum()
    }

    fn posted(&self, group: GroupId) -> u128 {
        (0..CUSTOMERS).flat_map(|number| self.record(group, &customer(number)).balances).map(|line| line.1.posted).sum()
    }

    fn pair(&self, group: GroupId, peer: LedgerId) -> Pair {
        let bytes = self.states[&group].get(&schema::pair(peer, &asset().id));
        bytes.map_or(Pair::new(peer, asset().id), |bytes| borsh::from_slice(bytes).unwrap())
    }

    /// What must be true at every moment.
    fn check(&self) {
        let flight = self.in_flight();
        let amount = |message: &Message| match message {
            Message::Credit(credit) => credit.amount,
            Message::Transfer(transfer) => transfer.amount,
            other => panic!("{other:?}"),
        };
        let everywhere: u128 = self.states.keys().map(|group| self.posted(*group)).sum();
        let moving: u128 = flight.iter().map(|(_, _, message)| amount(message)).sum();
        assert_eq!(everywhere + moving, EACH * u128::from(CUSTOMERS), "over all ledgers, nothing is made or lost");
        for channel in CHANNELS {
            let out = self.pair(self.home_pair(channel), of(channel));
            let there = self.pair(channel, LedgerId::MAIN);
            let between = |(source, dest, _): &&(GroupId, GroupId, Message)| *source == channel || *dest == channel;
            let between: u128 = flight.iter().filter(between).map(|(_, _, message)| amount(message)).sum();
            assert_eq!(out.amount.posted, self.posted(channel) + between, "{channel}: what is out there");
            assert_eq!(there.amount.posted, self.posted(channel), "{channel} has what it received and not returned");
            assert_eq!((out.refused, there.refused, out.amount.held, there.amount.held), (0, 0, 0, 0));
        }
    }
}

#[test]
fn value_goes_out_is_paid_on_and_comes_back_no_more_than_went_out() {
    let mut world = World::new(4);
    let channel = CHANNELS[0];
    world.transfer(LedgerId::MAIN, of(channel), 1, 2, 600).unwrap();
    world.check();
    world.drain();
    world.check();
    assert_eq!((world.balance(LedgerId::MAIN, 1), world.balance(of(channel), 2)), (400, 600));
    let pay = Move::Pay { from: customer(2), to: customer(3), asset: asset().id, amount: 250 };
    world.send(of(channel), 2, pay).unwrap();
    assert_eq!(world.transfer(of(channel), LedgerId::MAIN, 3, 4, 251), Err(Reject::InsufficientFunds));
    world.transfer(of(channel), LedgerId::MAIN, 3, 4, 250).unwrap();
    world.drain();
    world.check();
    assert_eq!((world.balance(LedgerId::MAIN, 4), world.balance(of(channel), 3)), (1250, 0));
    assert_eq!(world.pair(world.home_pair(channel), of(channel)).amount.posted, 350);
}

#[test]
fn what_cannot_move_is_refused_where_it_would_leave() {
    let mut world = World::new(2);
    let [one, two] = CHANNELS.map(of);
    world.transfer(LedgerId::MAIN, one, 1, 1, 600).unwrap();
    world.drain();
    for (from, to, amount, expected) in [
        (LedgerId::MAIN, LedgerId::MAIN, 1, Reject::TransferLedger),
        (one, one, 1, Reject::TransferLedger),
        (one, two, 1, Reject::TransferLedger),
        (LedgerId::MAIN, of(GroupId::channel(9)), 1, Reject::UnknownGroup),
        (LedgerId::MAIN, LedgerId::BEACON, 1, Reject::UnknownGroup),
        (LedgerId::MAIN, LedgerId(7), 1, Reject::UnknownGroup),
        (LedgerId::MAIN, one, 401, Reject::InsufficientFunds),
    ] {
        assert_eq!(world.transfer(from, to, 1, 1, amount), Err(expected), "{from:?} {to:?} {amount}");
    }
    let mint = Move::Mint { issuer: customer(0), to: customer(1), asset: asset().id, amount: 1 };
    assert_eq!(world.send(one, 0, mint), Err(Reject::ForeignAsset), "supply is made at home");
    let burn = Move::Burn { issuer: customer(0), asset: asset().id, amount: 1 };
    assert_eq!(world.send(one, 0, burn), Err(Reject::ForeignAsset));
    world.check();
}

#[test]
fn a_ledger_whose_accounts_claim_more_than_came_cannot_send_it_home() {
    let mut world = World::new(1);
    let channel = CHANNELS[0];
    world.transfer(LedgerId::MAIN, of(channel), 1, 2, 100).unwrap();
    world.drain();
    // As if a balance had been forged in the channel's state.
    let mut record = world.record(channel, &customer(2));
    record.balances[0].1.posted = 500;
    let state = world.states.get_mut(&channel).unwrap();
    state.insert(schema::account(&customer(2)), borsh::to_vec(&record).unwrap().into());
    state.insert(schema::total(&asset().id), borsh::to_vec(&500u128).unwrap().into());
    assert_eq!(world.transfer(of(channel), LedgerId::MAIN, 2, 2, 101), Err(Reject::PairExceeded));
    assert_eq!(world.transfer(of(channel), LedgerId::MAIN, 2, 2, 100), Ok(()));
    assert_eq!(world.transfer(of(channel), LedgerId::MAIN, 2, 2, 1), Err(Reject::PairExceeded));
}

/// What the committee of a channel could certify if it broke every rule.
fn forged(from: LedgerId, to: LedgerId, amount: u128) -> Message {
    let (txid, account, asset) = (TxId::default(), customer(3), asset().id);
    Message::Transfer(Transfer { txid, move_index: 0, from, to, account, asset, amount })
}

#[test]
fn the_home_ledger_takes_back_what_it_sent_and_nothing_else_whoever_certifies_it() {
    let mut world = World::new(4);
    let [one, two] = CHANNELS;
    world.transfer(LedgerId::MAIN, of(one), 1, 2, 100).unwrap();
    world.drain();
    let groups: Vec<GroupId> = world.layout.shards.iter().map(|shard| shard.group).collect();
    let main: u128 = groups.iter().map(|group| world.posted(*group)).sum();
    let credit = Credit { txid: TxId::default(), move_index: 0, account: customer(3), asset: asset().id, amount: 50 };
    for dest in groups.iter().copied().chain([two]) {
        for message in [
            forged(of(one), LedgerId::MAIN, 101),
            forged(of(one), LedgerId::MAIN, 0),
            forged(of(one), LedgerId::MAIN, u128::MAX),
            forged(of(two), LedgerId::MAIN, 1),
            forged(LedgerId::MAIN, of(one), 1),
            forged(LedgerId::MAIN, of(two), 1),
            forged(LedgerId::MAIN, LedgerId::MAIN, 1),
            forged(of(one), of(two), 1),
            Message::Credit(credit.clone()),
        ] {
            world.receive(dest, one, message);
        }
    }
    world.drain();
    assert_eq!(groups.iter().map(|group| world.posted(*group)).sum::<u128>(), main);
    assert_eq!((world.posted(two), world.pair(two, of(one)).amount.posted), (0, 0));
    let counted = world.pair(world.home_pair(one), of(one));
    assert_eq!(counted.amount.posted, 100, "what is out there is still owed");
    assert!(counted.refused >= 101, "and what was tried is on record: {counted:?}");
    // The honest way still works.
    world.receive(world.home_pair(one), one, forged(of(one), LedgerId::MAIN, 100));
    world.drain();
    assert_eq!(world.balance(LedgerId::MAIN, 3), EACH + 100);
    world.receive(world.home_pair(one), one, forged(of(one), LedgerId::MAIN, 1));
    world.drain();
    assert_eq!(world.balance(LedgerId::MAIN, 3), EACH + 100);
}

#[test]
fn what_arrives_at_another_shard_than_the_pair_accounts_goes_on_to_it() {
    let mut world = World::new(4);
    let channel = CHANNELS[0];
    world.transfer(LedgerId::MAIN, of(channel), 1, 3, 100).unwrap();
    world.drain();
    world.transfer(of(channel), LedgerId::MAIN, 3, 3, 100).unwrap();
    let (source, dest, message) = world.in_flight().remove(0);
    assert_eq!((source, dest), (channel, world.home_pair(channel)));
    // The channel knew an older layout, and sent it elsewhere.
    let shards: Vec<GroupId> = world.layout.shards.iter().map(|shard| shard.group).collect();
    let elsewhere = shards.into_iter().find(|group| *group != dest).unwrap();
    world.taken.insert((source, dest), 1);
    world.receive(elsewhere, source, message);
    world.drain();
    assert_eq!(world.balance(LedgerId::MAIN, 3), EACH + 100);
    world.check();
}

#[derive(Clone, Debug)]
enum Event {
    Out { channel: usize, payer: u8, payee: u8, amount: u128 },
    Back { channel: usize, payer: u8, payee: u8, amount: u128 },
    Within { ledger: usize, payer: u8, payee: u8, amount: u128 },
    Deliver(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let parties = || (0usize..2, 0..CUSTOMERS, 0..CUSTOMERS, 1u128..700);
    prop_oneof![
        3 => parties().prop_map(|(channel, payer, payee, amount)| Event::Out { channel, payer, payee, amount }),
        3 => parties().prop_map(|(channel, payer, payee, amount)| Event::Back { channel, payer, payee, amount }),
        2 => (0usize..3, 0..CUSTOMERS, 0..CUSTOMERS, 1u128..700)
            .prop_map(|(ledger, payer, payee, amount)| Event::Within { ledger, payer, payee, amount }),
        6 => (0usize..9).prop_map(Event::Deliver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn value_adds_up_over_all_ledgers_at_every_moment(shards in 1u32..5, events in prop::collection::vec(event(), 1..50)) {
        let mut world = World::new(shards);
        for event in events {
            let (from, payer, amount, result) = match event {
                Event::Out { channel, payer, payee, amount } => {
                    let before = world.balance(LedgerId::MAIN, payer);
                    let sent = world.transfer(LedgerId::MAIN, of(CHANNELS[channel]), payer, payee, amount);
                    (LedgerId::MAIN, payer, amount, (before, sent))
                }
                Event::Back { channel, payer, payee, amount } => {
                    let before = world.balance(of(CHANNELS[channel]), payer);
                    let sent = world.transfer(of(CHANNELS[channel]), LedgerId::MAIN, payer, payee, amount);
                    (of(CHANNELS[channel]), payer, amount, (before, sent))
                }
                Event::Within { ledger, payer, payee, amount } => {
                    let ledger = [LedgerId::MAIN, of(CHANNELS[0]), of(CHANNELS[1])][ledger];
                    let before = world.balance(ledger, payer);
                    let mv = Move::Pay { from: customer(payer), to: customer(payee), asset: asset().id, amount };
                    (ledger, payer, amount, (before, world.send(ledger, payer, mv)))
                }
                Event::Deliver(pick) => {
                    world.deliver(pick);
                    world.check();
                    continue;
                }
            };
            let (before, sent) = result;
            prop_assert_eq!(sent.is_ok(), before >= amount, "{} of {:?} has {}: {:?}", payer, from, before, sent);
            world.check();
        }
        world.drain();
        world.check();
        for ((source, dest), (exported, imported)) in &world.flows {
            prop_assert_eq!(exported, imported, "{} to {}", source, dest);
        }
    }
}

//! Laws of the commit protocol over the real account rules: two to four groups, random transactions
//! handed to random voters at random times, votes and credits delivered in stream order but
//! otherwise arbitrarily late. Whatever happens: no transaction is posted in one group and released
//! in another, nothing is lost or doubled, and once mail flows and time passes nothing is held.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::commit::{self, CommitContext, Decision, Handed, Prepared, Progress, Register};
use cross_shard::stream::{self, OutStream};
use cross_shard::{Message, Vote};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Address, AssetId, ClusterId, GroupId, Height, LedgerId, LockId, TimeMs, TxId};
use ledger::layout::Layout;
use ledger::limits::REGISTER_GRACE_MS;
use ledger::lock::{LockTerms, Secret, hash_of};
use ledger::rules::{self, Credit, RuleContext};
use ledger::tx::{AccountWrite, Condition, Move, Opening, ParsedTx, SignedTx, Slot, Submission, TxBody};
use ledger::{AccountRecord, Authorisation, Reject, SecretKey, schema};
use proptest::prelude::*;
use support::{State, with_view};

const CLUSTER: ClusterId = ClusterId(Hash32([5; 32]));
const ASSET: AssetId = AssetId([1; 16]);
const START_MS: u64 = 1_000_000;
const FUNDS: u128 = 100;

fn key(number: usize) -> SecretKey {
    SecretKey::derive(&number.to_le_bytes(), b"commit")
}

fn address(number: usize) -> Address {
    Authorisation::Single(key(number).public()).address()
}

struct Shard {
    state: State,
    height: u64,
    /// Next message to take of each source's stream.
    cursors: BTreeMap<GroupId, u64>,
    posted: BTreeSet<TxId>,
    released: BTreeMap<TxId, (GroupId, Reject)>,
}

struct World {
    layout: Layout,
    shards: BTreeMap<GroupId, Shard>,
    /// Two accounts in every shard, by shard.
    accounts: Vec<[usize; 2]>,
    now_ms: u64,
    salt: u64,
    /// Groups that vote only on what was handed over to them.
    by_hand: BTreeSet<GroupId>,
}

impl World {
    fn new(count: u32) -> Self {
        let layout = Layout::even(count);
        let mut accounts = vec![Vec::new(); count as usize];
        for number in 0.. {
            let home = layout.shards.iter().position(|shard| shard.group == layout.locate(&address(number)));
            let home = &mut accounts[home.expect("a shard of the layout")];
            if home.len() < 2 {
                home.push(number);
            }
            if accounts.iter().all(|list| list.len() == 2) {
                break;
            }
        }
        let accounts: Vec<[usize; 2]> = accounts.into_iter().map(|list| [list[0], list[1]]).collect();
        let mut shards = BTreeMap::new();
        for (range, list) in layout.shards.iter().zip(&accounts) {
            let mut state = State::new();
            with_view(&mut state, |view| {
                for other in &layout.shards {
                    view.put(schema::current_committee(other.group), Vec::new());
                }
                for number in list {
                    let credit = Credit {
                        txid: TxId(Hash32::ZERO),
                        move_index: 0,
                        account: address(*number),
                        asset: ASSET,
                        amount: FUNDS,
                    };
                    rules::apply_credit(view, &credit);
                }
            });
            let shard = Shard {
                state,
                height: 0,
                cursors: BTreeMap::new(),
                posted: BTreeSet::new(),
                released: BTreeMap::new(),
            };
            shards.insert(range.group, shard);
        }
        Self { layout, shards, accounts, now_ms: START_MS, salt: 0, by_hand: BTreeSet::new() }
    }

    fn group(&self, index: usize) -> GroupId {
        self.layout.shards[index % self.layout.shards.len()].group
    }

    /// One block of a group: deadlines first, then `work`; what it brought about is booked.
    fn apply<T>(
        &mut self,
        group: GroupId,
        work: impl FnOnce(&mut ledger::view::View<'_>, &CommitContext<'_>, &mut Vec<Progress>) -> T,
    ) -> T {
        let (layout, by_hand) = (self.layout.clone(), self.by_hand.contains(&group));
        let shard = self.shards.get_mut(&group).expect("a shard");
        shard.height += 1;
        let rules = RuleContext {
            group,
            ledger: LedgerId::MAIN,
            layout: Some(&layout),
            time_ms: TimeMs(self.now_ms),
            burned: &|_| 0,
            permission: None,
        };
        let ctx = CommitContext { rules, cluster: CLUSTER, height: Height(shard.height), barred: None, by_hand };
        let mut progress = Vec::new();
        let (result, _) = with_view(&mut shard.state, |view| {
            commit::sweep(view, &ctx, &mut progress);
            let result = work(view, &ctx, &mut progress);
            for step in &progress {
                if let Progress::Committed(_, effects) = step {
                    for (dest, credit) in &effects.credits {
                        stream::emit(view, *dest, Message::Credit(credit.clone()).encode());
                    }
                }
            }
            result
        });
        for step in progress {
            match step {
                Progress::Voted(..) => {}
                Progress::Committed(txid, _) => assert!(shard.posted.insert(txid), "posted twice"),
                Progress::Aborted(txid, by, reason) => {
                    assert!(shard.released.insert(txid, (by, reason)).is_none(), "released twice");
                }
            }
        }
        result
    }

    fn hand_over(&mut self, group: GroupId, bytes: &[u8]) -> Result<Handed, Reject> {
        let tx = ParsedTx::decode(&CLUSTER, bytes).expect("the form is right");
        self.apply(group, |view, ctx, out| {
            let groups = ctx.rules.voter_groups(&tx.body)?;
            commit::hand_over(view, ctx, &tx, groups, out)
        })
    }

    /// Takes the next message of a stream, if there is one, and acknowledges it if asked to.
    fn deliver(&mut self, source: GroupId, dest: GroupId, acknowledge: bool) -> bool {
        let next = self.shards[&dest].cursors.get(&source).copied().unwrap_or(0);
        let Some(bytes) = self.shards[&source].state.get(&schema::mail(dest, next)).cloned() else { return false };
        self.shards.get_mut(&dest).expect("a shard").cursors.insert(source, next + 1);
        match borsh::from_slice::<Message>(&bytes).expect("a message") {
            Message::Vote(vote) => {
                let taken = self.apply(dest, |view, ctx, out| commit::take_vote(view, ctx, source, &vote, out));
                assert_eq!(taken, Ok(()), "groups that follow the rules send votes that are taken");
            }
            Message::Credit(credit) => self.apply(dest, |view, _, _| {
                rules::apply_credit(view, &credit);
            }),
            other => panic!("nobody sends {other:?}"),
        }
        if acknowledge {
            self.acknowledge(source, dest);
        }
        true
    }

    fn acknowledge(&mut self, source: GroupId, dest: GroupId) {
        let upto = self.shards[&dest].cursors.get(&source).copied().unwrap_or(0);
        let shard = self.shards.get_mut(&source).expect("a shard");
        with_view(&mut shard.state, |view| {
            let mut head: OutStream = stream::out_stream(view, dest);
            head.acked = head.acked.max(upto);
            view.store(schema::outbox(dest), &head);
        });
    }

    fn pairs(&self) -> Vec<(GroupId, GroupId)> {
        let groups: Vec<GroupId> = self.shards.keys().copied().collect();
        let all = groups.iter().flat_map(|a| groups.iter().map(|b| (*a, *b)));
        all.filter(|(a, b)| a != b).collect()
    }

    fn settle(&mut self) {
        for _ in 0..3 {
            while self.pairs().into_iter().filter(|(a, b)| self.deliver(*a, *b, true)).count() > 0 {}
            self.pairs().into_iter().for_each(|(a, b)| self.acknowledge(a, b));
            self.now_ms += 60_000 + 2 * REGISTER_GRACE_MS;
            for group in self.shards.keys().copied().collect::<Vec<_>>() {
                self.apply(group, |_, _, _| ());
            }
        }
    }

    fn sum(&self) -> (u128, u128) {
        let (mut posted, mut held) = (0, 0);
        for value in self.shards.values().flat_map(|shard| &shard.state) {
            if value.0[0] == schema::STATE && value.0[33] == schema::KIND_ACCOUNT {
                let record: AccountRecord = borsh::from_slice(value.1).expect("an account");
                for (_, balance) in &record.balances {
                    assert!(balance.held <= balance.posted);
                    posted += balance.posted;
                    held += balance.held;
                }
            }
        }
        (posted, held)
    }

    fn leaves(&self, kind: u8) -> usize {
        let all = self.shards.values().flat_map(|shard| shard.state.keys());
        all.filter(|key| key[0] == schema::STATE && key[33] == kind).count()
    }

    fn check_atomic(&self) {
        for shard in self.shards.values() {
            for txid in &shard.posted {
                let split = self.shards.values().find(|other| other.released.contains_key(txid));
                assert!(split.is_none(), "{txid} was posted in one group and released in another");
            }
        }
    }
}

/// What one leg of a drawn transaction does, with accounts by shard and place.
#[derive(Clone, Debug)]
enum Leg {
    Pay { from: (usize, usize), to: (usize, usize), amount: u128 },
    Sync { from: (usize, usize), to: (usize, usize), amount: u128 },
    Least { of: (usize, usize), amount: u128 },
    Write { of: (usize, usize), key: u8 },
}

#[derive(Clone, Debug)]
enum Act {
    /// Legs; how long it is valid; which legs are hidden (a bit for each); whether a signature lacks.
    Make {
        legs: Vec<Leg>,
        valid_ms: u64,
        hidden: u8,
        lacks: bool,
    },
    /// Hands a made transaction to a group, with openings or without.
    HandOver {
        tx: usize,
        group: usize,
        open: bool,
    },
    Deliver {
        pair: usize,
        acknowledge: bool,
    },
    Pass(u64),
}

impl World {
    fn account(&self, at: (usize, usize)) -> Address {
        address(self.accounts[at.0 % self.accounts.len()][at.1 % 2])
    }

    fn number(&self, at: (usize, usize)) -> usize {
        self.accounts[at.0 % self.accounts.len()][at.1 % 2]
    }

    fn make(&mut self, legs: &[Leg], valid_ms: u64, hidden: u8, lacks: bool) -> Option<Made> {
        let (mut slots, mut openings, mut signers) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (leg, slot) in legs.iter().zip(0u16..) {
            let (mv, signer) = match leg {
                Leg::Pay { from, to, amount } => (
                    Move::Pay { from: self.account(*from), to: self.account(*to), asset: ASSET, amount: *amount },
                    from,
                ),
                Leg::Sync { from, to, amount } => {
                    let (from_account, to) = (self.account(*from), self.account(*to));
                    (Move::PaySync { from: from_account, to, asset: ASSET, amount: *amount }, from)
                }
                Leg::Least { of, amount } => {
                    let condition = Condition::AtLeast { asset: ASSET, amount: *amount };
                    (Move::Check { account: self.account(*of), condition }, of)
                }
                Leg::Write { of, key } => {
                    let write = AccountWrite::Data { key: vec![*key], value: Some(vec![1]) };
                    (Move::Write { account: self.account(*of), write }, of)
                }
            };
            signers.insert(self.number(*signer));
            let homes: BTreeSet<GroupId> = mv.voters().map(|voter| self.layout.locate(&voter.account)).collect();
            if hidden >> slot & 1 == 1 && homes.len() == 1 {
                let opening = Opening { slot, salt: sha256(&[slot as u8]), mv };
                let group = *homes.first().expect("one home");
                slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group, hash: opening.hash() });
                openings.push((group, opening));
            } else {
                slots.push(Slot::Clear { ledger: LedgerId::MAIN, mv });
            }
        }
        self.salt += 1;
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salt.to_le_bytes());
        let valid_until_ms = TimeMs(self.now_ms + valid_ms);
        let body = TxBody { version: 1, cluster: CLUSTER, valid_until_ms, salt, slots, memo: Vec::new() };
        let voters = rules::voter_groups(&self.layout, &body).ok().filter(|groups| groups.len() > 1)?;
        let keys: Vec<SecretKey> = signers.iter().skip(usize::from(lacks)).map(|number| key(*number)).collect();
        let signed = SignedTx::sign(&body, &keys.iter().collect::<Vec<_>>());
        let made = Made { signed, openings, voters };
        // A hidden move may repeat another one; whoever opens it sees that.
        made.voters.iter().all(|group| ParsedTx::decode(&CLUSTER, &made.bytes(*group, true)).is_ok()).then_some(made)
    }
}

struct Made {
    signed: SignedTx,
    openings: Vec<(GroupId, Opening)>,
    voters: Vec<GroupId>,
}

impl Made {
    fn bytes(&self, group: GroupId, open: bool) -> Vec<u8> {
        let own = self.openings.iter().filter(|(of, _)| open && *of == group).map(|(_, opening)| opening.clone());
        Submission::encode(self.signed.encode(), own.collect())
    }
}

fn leg() -> impl Strategy<Value = Leg> {
    let place = || (0usize..4, 0usize..2);
    prop_oneof![
        6 => (place(), place(), 1u128..80).prop_map(|(from, to, amount)| Leg::Pay { from, to, amount }),
        2 => (place(), place(), 1u128..80).prop_map(|(from, to, amount)| Leg::Sync { from, to, amount }),
        2 => (place(), 1u128..120).prop_map(|(of, amount)| Leg::Least { of, amount }),
        2 => (place(), 0u8..2).prop_map(|(of, key)| Leg::Write { of, key }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (prop::collection::vec(leg(), 2..5), 1u64..60_000, any::<u8>(), prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(legs, valid_ms, hidden, lacks, hides)| Act::Make {
                legs, valid_ms, hidden: if hides { hidden } else { 0 }, lacks,
            }),
        6 => (0usize..6, 0usize..4, prop::bool::weighted(0.8))
            .prop_map(|(tx, group, open)| Act::HandOver { tx, group, open }),
        9 => (0usize..12, any::<bool>()).prop_map(|(pair, acknowledge)| Act::Deliver { pair, acknowledge }),
        1 => (1u64..30_000).prop_map(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_history_ends_atomic_conserved_and_with_nothing_held(
        (count, by_hand, acts) in (2u32..5, prop_oneof![Just(0u8), any::<u8>()], prop::collection::vec(act(), 1..80)),
    ) {
        let mut world = World::new(count);
        let groups: Vec<GroupId> = world.shards.keys().copied().collect();
        world.by_hand.extend((0u32..).zip(groups).filter(|(bit, _)| by_hand >> bit & 1 == 1).map(|(_, group)| group));
        let before = world.sum().0;
        let mut made: Vec<Made> = Vec::new();
        for act in acts {
            match act {
                Act::Make { legs, valid_ms, hidden, lacks } => {
                    let tx = world.make(&legs, valid_ms, hidden, lacks);
                    made.extend(tx);
                }
                Act::HandOver { tx, group, open } if !made.is_empty() => {
                    // The latest ones, so that hand-overs meet what is undecided.
                    let tx = &made[made.len() - 1 - tx % made.len()];
                    let group = tx.voters[group % tx.voters.len()];
                    let _ = world.hand_over(group, &tx.bytes(group, open));
                }
                Act::HandOver { .. } => {}
                Act::Deliver { pair, acknowledge } => {
                    let pairs = world.pairs();
                    let (source, dest) = pairs[pair % pairs.len()];
                    world.deliver(source, dest, acknowledge);
                }
                Act::Pass(ms) => world.now_ms += ms,
            }
            world.check_atomic();
        }
        world.settle();
        world.check_atomic();
        prop_assert_eq!(world.sum(), (before, 0), "supply as before, and nothing held");
        prop_assert_eq!(world.leaves(schema::KIND_REGISTER), 0, "registers are dropped");
        prop_assert_eq!(world.leaves(schema::KIND_CLAIMS), 0, "and claims are gone");
        for (group, shard) in &world.shards {
            for (key, value) in shard.state.iter().filter(|(key, _)| key[0] == schema::PREPARED) {
                let record: Prepared = borsh::from_slice(value).expect("a record");
                prop_assert!(record.outcome().is_some() && record.dropped.is_some(), "{} {:?} {:?}", group, key, record);
            }
            prop_assert_eq!(shard.state.keys().filter(|key| key[0] == schema::DEADLINE).count(), 0);
        }
    }
}

/// A world of two shards and a transaction in which each pays the other.
fn swap() -> (World, Made, [GroupId; 2]) {
    let mut world = World::new(2);
    let legs = [Leg::Pay { from: (0, 0), to: (1, 0), amount: 30 }, Leg::Pay { from: (1, 1), to: (0, 1), amount: 40 }];
    let made = world.make(&legs, 10_000, 0, false).expect("two voters");
    let groups = [world.group(0), world.group(1)];
    (world, made, groups)
}

fn prepared(world: &mut World, group: GroupId, made: &Made) -> Option<Prepared> {
    let txid = made.signed.txid(&CLUSTER);
    world.apply(group, |view, _, _| commit::prepared(view, &txid))
}

#[test]
fn a_router_that_reached_one_group_and_died_owes_nothing() {
    let (mut world, made, [a, b]) = swap();
    assert_eq!(world.hand_over(a, &made.bytes(a, true)), Ok(Handed::Voted(Decision::Yes)));
    assert_eq!(world.sum().1, 30, "held");
    assert!(world.deliver(a, b, true), "b votes on the vote, and knows the outcome");
    assert_eq!(world.shards[&b].posted.len(), 1);
    assert!(world.deliver(b, a, true));
    assert_eq!(world.shards[&a].posted.len(), 1);
    assert!(world.deliver(a, b, true) && world.deliver(b, a, true), "the credits follow");
    assert_eq!(world.sum(), (4 * FUNDS, 0));
}

#[test]
fn registers_are_dropped_only_when_nobody_can_need_them() {
    let (mut world, made, [a, b]) = swap();
    let account = world.account((0, 0));
    let txid = made.signed.txid(&CLUSTER);
    world.hand_over(a, &made.bytes(a, true)).expect("a vote");
    let register = |world: &World| world.shards[&a].state.get(&schema::register(&account, &txid)).cloned();
    let written: Register = borsh::from_slice(&register(&world).expect("a register")).expect("it decodes");
    assert_eq!(written.decision, Decision::Yes);
    // Time alone drops nothing: the other's vote has not come.
    world.now_ms += 10 * REGISTER_GRACE_MS;
    world.apply(a, |_, _, _| ());
    assert!(register(&world).is_some());
    assert_eq!(world.sum().1, 30, "and nobody aborts alone");
    // Past its deadline the other group says no.
    assert!(world.deliver(a, b, false));
    assert_eq!(world.shards[&b].released[&txid], (b, Reject::Expired));
    assert!(world.deliver(b, a, true));
    assert_eq!(world.shards[&a].released[&txid], (b, Reject::Expired));
    assert_eq!(world.sum().1, 0);
    // Our own vote is not acknowledged yet.
    world.now_ms += REGISTER_GRACE_MS;
    world.apply(a, |_, _, _| ());
    assert!(register(&world).is_some());
    world.acknowledge(a, b);
    world.now_ms += REGISTER_GRACE_MS;
    world.apply(a, |_, _, _| ());
    assert!(register(&world).is_none());
    // It can never come to life again.
    assert_eq!(world.hand_over(a, &made.bytes(a, true)), Ok(Handed::Voted(Decision::Yes)), "history answers");
    assert!(register(&world).is_none());
    assert_eq!(world.sum().1, 0);
}

#[test]
fn a_missing_authorisation_leaves_no_trace_where_it_is_handed_over_and_is_a_no_when_mail_brings_it() {
    let (mut world, made, [a, b]) = swap();
    let one = SignedTx { witnesses: vec![], ..made.signed.clone() };
    let signer = |of: (usize, usize)| {
        let at = world.number(of);
        let full = SignedTx::sign(&ledger::TxBody::decode(&made.signed.body).expect("a body"), &[&key(at)]);
        full.witnesses
    };
    let only_a = Made { signed: SignedTx { witnesses: signer((0, 0)), ..one }, openings: vec![], voters: vec![a, b] };
    assert_eq!(world.hand_over(b, &only_a.bytes(b, true)), Err(Reject::NotAuthorised));
    assert_eq!(prepared(&mut world, b, &only_a), None, "nobody can spend the txid of another's transaction");
    assert_eq!(world.hand_over(a, &only_a.bytes(a, true)), Ok(Handed::Voted(Decision::Yes)));
    assert!(world.deliver(a, b, true) && world.deliver(b, a, true));
    let txid = made.signed.txid(&CLUSTER);
    assert_eq!(world.shards[&a].released[&txid], (b, Reject::NotAuthorised), "but a party can give up its own");
    assert_eq!(world.sum(), (4 * FUNDS, 0));
}

#[test]
fn signatures_of_our_accounts_are_verified_when_mail_brings_a_transaction() {
    let (mut world, made, [a, b]) = swap();
    let mut forged = made.signed.clone();
    let other = SignedTx::sign(
        &TxBody { memo: vec![1], ..ledger::TxBody::decode(&made.signed.body).expect("a body") },
        &[&key(world.number((0, 0))), &key(world.number((1, 1)))],
    );
    forged.witnesses = other.witnesses;
    let txid = made.signed.txid(&CLUSTER);
    let legs = vec![0];
    let vote = Vote { txid, tx: forged.encode(), legs, decision: Decision::Yes };
    let taken = world.apply(b, |view, ctx, out| commit::take_vote(view, ctx, a, &vote, out));
    assert_eq!(taken, Ok(()));
    assert_eq!(world.shards[&b].released[&txid], (b, Reject::NotAuthorised));
}

#[test]
fn a_vote_that_does_not_fit_is_refused_and_moves_nothing() {
    let (mut world, made, [a, b]) = swap();
    let txid = made.signed.txid(&CLUSTER);
    let good = Vote { txid, tx: made.signed.encode(), legs: vec![0], decision: Decision::Yes };
    let mut longer = good.tx.clone();
    longer.push(0);
    let cases = [
        (a, Vote { txid: TxId(Hash32::ZERO), ..good.clone() }, Reject::Malformed),
        (a, Vote { tx: longer, ..good.clone() }, Reject::Malformed),
        (a, Vote { legs: vec![0, 2], ..good.clone() }, Reject::WrongShard),
        (a, Vote { legs: vec![], ..good.clone() }, Reject::WrongShard),
        (b, good.clone(), Reject::WrongShard),
        (GroupId::shard(9), good.clone(), Reject::WrongShard),
        (GroupId::shard(9), Vote { legs: vec![], ..good.clone() }, Reject::WrongShard),
    ];
    for (source, vote, reason) in cases {
        let taken = world.apply(b, |view, ctx, out| commit::take_vote(view, ctx, source, &vote, out));
        assert_eq!(taken, Err(reason), "{vote:?}");
    }
    assert_eq!(prepared(&mut world, b, &made), None);
    // The same vote again, or a changed mind, is not taken twice.
    for decision in [Decision::Yes, Decision::No(Reject::Conflict)] {
        let vote = Vote { decision, ..good.clone() };
        world.apply(b, |view, ctx, out| commit::take_vote(view, ctx, a, &vote, out)).expect("taken or ignored");
    }
    assert_eq!(world.shards[&b].posted.len(), 1);
    assert!(world.shards[&b].released.is_empty());
}

#[test]
fn a_slot_for_a_group_that_does_not_exist_is_refused_without_a_trace() {
    let (mut world, made, [a, _]) = swap();
    let mut body = TxBody::decode(&made.signed.body).expect("a body");
    for nowhere in [GroupId::shard(9), GroupId(77)] {
        let hidden = Slot::Hidden { ledger: LedgerId::MAIN, group: nowhere, hash: Hash32::ZERO };
        body.slots.truncate(2);
        body.slots.push(hidden);
        let signed = SignedTx::sign(&body, &[&key(world.number((0, 0))), &key(world.number((1, 1)))]);
        let before = world.shards[&a].state.clone();
        assert_eq!(world.hand_over(a, &signed.encode()), Err(Reject::UnknownGroup), "{nowhere}");
        assert_eq!(world.shards[&a].state, before);
    }
}

/// As [`swap`]; the second group votes only on what was handed over to it.
fn guarded_swap() -> (World, Made, [GroupId; 2]) {
    let (mut world, made, groups) = swap();
    world.by_hand.insert(groups[1]);
    (world, made, groups)
}

#[test]
fn a_group_that_votes_by_hand_waits_for_a_hand_over_and_says_no_when_none_comes() {
    let (mut world, made, [a, b]) = guarded_swap();
    let txid = made.signed.txid(&CLUSTER);
    world.hand_over(a, &made.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true), "b remembers the vote");
    let record = prepared(&mut world, b, &made).expect("a record");
    assert_eq!((record.decision(), record.handed_over, record.received.len()), (None, false, 1));
    assert_eq!(world.sum().1, 30, "b holds nothing, though its account has signed");
    assert!(!world.deliver(b, a, true), "and says nothing");
    let deadline = world.apply(b, |view, _, _| commit::next_deadline(view));
    let until = world.now_ms + 10_000;
    assert_eq!(deadline, Some(TimeMs(until)), "a block is due then, even an empty one");
    world.now_ms = until + 1;
    world.apply(b, |_, _, _| ());
    assert_eq!(world.shards[&b].released[&txid], (b, Reject::Expired));
    assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(Handed::Voted(Decision::No(Reject::Expired))));
    world.settle();
    assert_eq!(world.shards[&a].released[&txid], (b, Reject::Expired));
    assert_eq!(world.sum(), (4 * FUNDS, 0));
    assert_eq!(world.leaves(schema::KIND_REGISTER), 0);
}

#[test]
fn a_group_that_votes_by_hand_votes_on_a_hand_over_before_and_after_the_mail() {
    for before in [true, false] {
        let (mut world, made, [a, b]) = guarded_swap();
        if before {
            assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(Handed::Voted(Decision::Yes)));
        }
        world.hand_over(a, &made.bytes(a, true)).expect("a vote");
        assert!(world.deliver(a, b, true));
        if !before {
            assert!(world.shards[&b].posted.is_empty());
            assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(Handed::Voted(Decision::Yes)));
            assert!(prepared(&mut world, b, &made).expect("a record").handed_over);
        }
        assert_eq!(world.shards[&b].posted.len(), 1);
        world.settle();
        assert_eq!(world.shards[&a].posted.len(), 1);
        assert_eq!(world.sum(), (4 * FUNDS, 0));
    }
}

/// What is not told before a hand-over is why it would be a NO. After one it is, and whoever hands over has been let in.
#[test]
fn a_group_that_votes_by_hand_tells_its_reasons_to_whom_it_admits_alone() {
    let (mut world, _, [a, b]) = guarded_swap();
    // More than the account of b has.
    let legs = [Leg::Pay { from: (0, 0), to: (1, 0), amount: 30 }, Leg::Pay { from: (1, 1), to: (0, 1), amount: 140 }];
    let poor = world.make(&legs, 10_000, 0, false).expect("two voters");
    world.hand_over(a, &poor.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true) && !world.deliver(b, a, true), "no word");
    let no = Handed::Voted(Decision::No(Reject::InsufficientFunds));
    assert_eq!(world.hand_over(b, &poor.bytes(b, true)), Ok(no));
    world.settle();

    // Nobody has signed for b's account: a NO, as soon as it is handed over, and not only at the deadline.
    let legs = [Leg::Pay { from: (0, 0), to: (1, 0), amount: 30 }, Leg::Pay { from: (1, 1), to: (0, 1), amount: 40 }];
    let mut unsigned = world.make(&legs, 10_000, 0, false).expect("two voters");
    let body = TxBody::decode(&unsigned.signed.body).expect("a body");
    unsigned.signed.witnesses = SignedTx::sign(&body, &[&key(world.number((0, 0)))]).witnesses;
    world.hand_over(a, &unsigned.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true) && !world.deliver(b, a, true), "no word");
    let no = Handed::Voted(Decision::No(Reject::NotAuthorised));
    assert_eq!(world.hand_over(b, &unsigned.bytes(b, true)), Ok(no));
    assert!(world.deliver(b, a, true));
    assert_eq!(world.sum(), (4 * FUNDS, 0), "what a held is free again");

    // A NO of the other group is answered at once: it says nothing about b.
    let legs = [Leg::Pay { from: (0, 0), to: (1, 0), amount: 140 }, Leg::Pay { from: (1, 1), to: (0, 1), amount: 40 }];
    let refused = world.make(&legs, 10_000, 0, false).expect("two voters");
    let no = Handed::Voted(Decision::No(Reject::InsufficientFunds));
    assert_eq!(world.hand_over(a, &refused.bytes(a, true)), Ok(no));
    assert!(world.deliver(a, b, true) && world.deliver(b, a, true));
    assert_eq!(world.shards[&b].released[&refused.signed.txid(&CLUSTER)], (b, Reject::Aborted));
}

/// Any party may hand its transaction over, to whom and as often as it likes, also after the outcome:
/// the first time counts, and every answer is the same.
#[test]
fn hand_overs_by_any_party_at_any_time_are_harmless() {
    let (mut world, made, [a, b]) = swap();
    for _ in 0..3 {
        assert_eq!(world.hand_over(a, &made.bytes(a, true)), Ok(Handed::Voted(Decision::Yes)));
    }
    assert_eq!(world.sum().1, 30, "held once");
    assert!(world.deliver(a, b, true));
    for group in [b, a, b] {
        assert_eq!(world.hand_over(group, &made.bytes(group, true)), Ok(Handed::Voted(Decision::Yes)));
    }
    world.settle();
    let settled = world.sum();
    world.now_ms += 10 * REGISTER_GRACE_MS;
    for group in [a, b, a, b] {
        world.hand_over(group, &made.bytes(group, true)).expect("history answers");
        world.settle();
    }
    assert_eq!((settled, world.sum()), ((4 * FUNDS, 0), (4 * FUNDS, 0)));
    let outcomes = [a, b].map(|group| (world.shards[&group].posted.len(), world.shards[&group].released.len()));
    assert_eq!(outcomes, [(1, 0), (1, 0)]);
}

#[test]
fn hidden_legs_wait_for_their_opening_and_say_no_when_it_does_not_come() {
    let mut world = World::new(2);
    let legs = [Leg::Pay { from: (0, 0), to: (0, 1), amount: 30 }, Leg::Pay { from: (1, 0), to: (1, 1), amount: 40 }];
    let [a, b] = [world.group(0), world.group(1)];
    let made = world.make(&legs, 10_000, 0b10, false).expect("two voters");
    assert_eq!(world.hand_over(b, &made.bytes(b, false)), Err(Reject::HiddenSlot));
    world.hand_over(a, &made.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true), "b cannot vote yet, and remembers");
    assert_eq!(prepared(&mut world, b, &made).map(|record| record.decision()), Some(None));
    assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(Handed::Voted(Decision::Yes)));
    assert_eq!(world.shards[&b].posted.len(), 1);

    let late = world.make(&legs, 10_000, 0b10, false).expect("two voters");
    world.hand_over(a, &late.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true));
    let deadline = world.apply(b, |view, _, _| commit::next_deadline(view));
    let until = world.now_ms + 10_000;
    assert_eq!(deadline, Some(TimeMs(until)), "a block is due then, even an empty one");
    world.now_ms = until + 1;
    assert_eq!(world.hand_over(b, &late.bytes(b, true)).ok(), Some(Handed::Voted(Decision::No(Reject::Expired))));
    world.settle();
    assert_eq!(world.sum(), (4 * FUNDS, 0));
}

#[test]
fn hidden_legs_that_nobody_authorised_are_a_no_once_they_are_opened() {
    let mut world = World::new(2);
    let legs = [Leg::Pay { from: (0, 0), to: (0, 1), amount: 30 }, Leg::Pay { from: (1, 0), to: (1, 1), amount: 40 }];
    let [a, b] = [world.group(0), world.group(1)];
    let mut made = world.make(&legs, 10_000, 0b10, false).expect("two voters");
    let whole = made.signed.clone();
    let body = ledger::TxBody::decode(&whole.body).expect("a body");
    made.signed.witnesses = SignedTx::sign(&body, &[&key(world.number((0, 0)))]).witnesses;
    assert_eq!(world.hand_over(b, &made.bytes(b, true)), Err(Reject::NotAuthorised), "no party has shown itself");
    world.hand_over(a, &made.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true), "b waits for the opening");
    let no = Handed::Voted(Decision::No(Reject::NotAuthorised));
    assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(no.clone()), "and not until the deadline");
    assert!(world.deliver(b, a, true));
    assert_eq!(world.sum(), (4 * FUNDS, 0), "what a held is free again");
    made.signed = whole;
    assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(no), "a vote is written once");

    // Whoever brings the signatures along is in time for them.
    let mut late = world.make(&legs, 10_000, 0b10, false).expect("two voters");
    let whole = std::mem::take(&mut late.signed.witnesses);
    let body = ledger::TxBody::decode(&late.signed.body).expect("a body");
    late.signed.witnesses = SignedTx::sign(&body, &[&key(world.number((0, 0)))]).witnesses;
    world.hand_over(a, &late.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true));
    late.signed.witnesses = whole;
    assert_eq!(world.hand_over(b, &late.bytes(b, true)), Ok(Handed::Voted(Decision::Yes)));
    world.settle();
    assert_eq!(world.sum(), (4 * FUNDS, 0));
}

#[test]
fn a_group_that_only_receives_votes_when_a_party_has_shown() {
    let mut world = World::new(2);
    let legs = [Leg::Sync { from: (0, 0), to: (1, 0), amount: 30 }];
    let [a, b] = [world.group(0), world.group(1)];
    let made = world.make(&legs, 10_000, 0, false).expect("two voters");
    assert_eq!(world.hand_over(b, &made.bytes(b, true)), Ok(Handed::Waits));
    assert_eq!(prepared(&mut world, b, &made), None);
    world.hand_over(a, &made.bytes(a, true)).expect("a vote");
    assert!(world.deliver(a, b, true) && world.deliver(b, a, true));
    assert_eq!(world.sum(), (4 * FUNDS, 0), "no credit is in flight: it was posted with the outcome");
    assert!(!world.deliver(a, b, true));
}

/// An account locks 30 for one of another shard, behind the hash of a secret; returns the claim.
fn locked(world: &mut World, from: (usize, usize), to: (usize, usize), secret: Secret) -> Move {
    let (payer, terms) = (world.account(from), LockTerms { to: world.account(to), asset: ASSET, amount: 30 });
    let deadline_ms = TimeMs(world.now_ms + 60_000);
    let LockTerms { to, asset, amount } = terms;
    let lock = Move::Lock { from: payer, to, asset, amount, hash: hash_of(&secret), deadline_ms };
    let signed = signed(world, vec![lock], &[world.number(from)]);
    let tx = ParsedTx::decode(&CLUSTER, &signed.encode()).expect("the form is right");
    let group = world.layout.locate(&payer);
    world.apply(group, |view, ctx, _| rules::execute(view, &ctx.rules, &tx)).expect("it locks");
    Move::Claim { from: payer, lock: LockId::derive(&tx.txid, 0), terms, secret }
}

fn signed(world: &mut World, moves: Vec<Move>, signers: &[usize]) -> SignedTx {
    world.salt += 1;
    let mut salt = [7; 16];
    salt[..8].copy_from_slice(&world.salt.to_le_bytes());
    let body = TxBody {
        version: 1,
        cluster: CLUSTER,
        valid_until_ms: TimeMs(world.now_ms + 10_000),
        salt,
        slots: moves.into_iter().map(|mv| Slot::Clear { ledger: LedgerId::MAIN, mv }).collect(),
        memo: Vec::new(),
    };
    let keys: Vec<SecretKey> = signers.iter().map(|number| key(*number)).collect();
    SignedTx::sign(&body, &keys.iter().collect::<Vec<_>>())
}

#[test]
fn a_secret_makes_a_group_vote_as_a_signature_does_and_a_wrong_one_leaves_no_trace() {
    let mut world = World::new(2);
    let [a, b] = [world.group(0), world.group(1)];
    let claim = locked(&mut world, (0, 0), (1, 0), [1; 32]);
    let pay = Move::Pay { from: world.account((1, 1)), to: world.account((0, 1)), asset: ASSET, amount: 40 };
    let Move::Claim { from, lock, terms, .. } = claim else { unreachable!("it is one") };
    let payer = world.number((1, 1));
    let wrong = Move::Claim { from, lock, terms, secret: [2; 32] };
    let unknown = Move::Claim { from, lock: LockId(Hash32::ZERO), terms, secret: [1; 32] };
    for (mv, reason) in [(wrong, Reject::WrongSecret), (unknown, Reject::LockUnknown)] {
        let tx = signed(&mut world, vec![mv, pay.clone()], &[payer]);
        assert_eq!(world.hand_over(a, &tx.encode()), Err(reason), "without a trace");
        assert_eq!(world.leaves(schema::KIND_REGISTER), 0);
        // Whoever signs the rest can have it decided: by mail it is a NO.
        assert_eq!(world.hand_over(b, &tx.encode()), Ok(Handed::Voted(Decision::Yes)));
        assert!(world.deliver(b, a, true) && world.deliver(a, b, true));
        assert_eq!(world.shards[&b].released[&tx.txid(&CLUSTER)], (a, reason));
        world.settle();
        assert_eq!(world.sum(), (4 * FUNDS, 30), "the lock is what it was");
    }
    let claim = locked(&mut world, (0, 0), (1, 0), [1; 32]);
    let tx = signed(&mut world, vec![claim, pay], &[payer]);
    assert_eq!(world.hand_over(a, &tx.encode()), Ok(Handed::Voted(Decision::Yes)));
    world.settle();
    world.check_atomic();
    assert!(world.shards.values().all(|shard| shard.posted.contains(&tx.txid(&CLUSTER))));
    assert_eq!(world.sum(), (4 * FUNDS, 30), "the first lock is still there, the second is paid");
}

#[test]
fn two_locks_in_two_groups_are_claimed_together_without_any_signature() {
    let mut world = World::new(2);
    let claims = vec![locked(&mut world, (0, 0), (1, 0), [1; 32]), locked(&mut world, (1, 1), (0, 1), [2; 32])];
    let tx = signed(&mut world, claims, &[]);
    assert_eq!(ParsedTx::decode(&CLUSTER, &tx.encode()).map(|tx| tx.verify_signatures()), Ok(Ok(())));
    assert_eq!(world.hand_over(world.group(0), &tx.encode()), Ok(Handed::Voted(Decision::Yes)));
    world.settle();
    assert!(world.shards.values().all(|shard| shard.posted.contains(&tx.txid(&CLUSTER))));
    assert_eq!(world.sum(), (4 * FUNDS, 0));
}

//! Votes of one group: what a YES reserves, what it refuses to others until the outcome is known, and
//! that posting and releasing leave nothing behind.

mod support;

use ledger::claim::{ClaimList, Restriction};
use ledger::ids::{Address, AssetId, GroupId, LedgerId, TxId};
use ledger::layout::Layout;
use ledger::rules::{self, Credit, Effects, HistoryKind, RuleContext, Signatures};
use ledger::tx::{AccountWrite, Condition, Move, Opening, ParsedTx, Slot};
use ledger::{AccountRecord, Balance, Hash32, Reject, schema};
use support::{NOW, Owner, State, asset_def, body, cluster, ingest, pay, sign, single, with_view};

const HERE: GroupId = GroupId::shard(0);

/// One shard that owns everything, with an asset and three funded accounts.
struct Bank {
    state: State,
    layout: Layout,
    asset: AssetId,
    salt: u8,
}

fn ctx(layout: &Layout) -> RuleContext<'_> {
    RuleContext { group: HERE, ledger: LedgerId::MAIN, layout: Some(layout), time_ms: NOW, burned: &|_| 0 }
}

impl Bank {
    fn new() -> Self {
        let def = asset_def(single(0).address(), "EUR");
        let mut state = State::new();
        with_view(&mut state, |view| view.store(schema::asset(&def.id), &def));
        let mut bank = Self { state, layout: Layout::even(1), asset: def.id, salt: 0 };
        for seed in 0..4 {
            bank.credit(single(seed).address(), 100);
        }
        bank
    }

    fn credit(&mut self, account: Address, amount: u128) -> HistoryKind {
        let credit = Credit { txid: TxId(Hash32::ZERO), move_index: 0, account, asset: self.asset, amount };
        with_view(&mut self.state, |view| rules::apply_credit(view, &credit)).0.kind
    }

    fn tx(&mut self, moves: Vec<Move>, owners: &[u8]) -> ParsedTx {
        self.salt += 1;
        let mut body = body(moves);
        body.salt[0] = self.salt;
        let owners: Vec<Owner> = owners.iter().map(|seed| single(*seed)).collect();
        ingest(&sign(&body, &owners.iter().collect::<Vec<_>>())).expect("the form is right")
    }

    fn reserve(&mut self, tx: &ParsedTx) -> Result<(), Reject> {
        let layout = self.layout.clone();
        let legs = ctx(&layout).own_legs(tx).expect("nothing is hidden");
        let (vote, wrote) =
            with_view(&mut self.state, |view| rules::reserve(view, &ctx(&layout), tx, &legs, Signatures::Unchecked));
        assert_eq!(vote.is_ok(), wrote, "a NO leaves no trace, a YES reserves");
        vote
    }

    fn prepared(&mut self, moves: Vec<Move>, owners: &[u8]) -> ParsedTx {
        let tx = self.tx(moves, owners);
        self.reserve(&tx).expect("a YES");
        tx
    }

    fn vote(&mut self, moves: Vec<Move>, owners: &[u8]) -> Result<(), Reject> {
        let tx = self.tx(moves, owners);
        self.reserve(&tx)
    }

    fn post(&mut self, tx: &ParsedTx) -> Effects {
        let layout = self.layout.clone();
        let legs = ctx(&layout).own_legs(tx).expect("nothing is hidden");
        with_view(&mut self.state, |view| rules::post(view, &ctx(&layout), tx.txid, &legs)).0
    }

    fn release(&mut self, tx: &ParsedTx) {
        let layout = self.layout.clone();
        let legs = ctx(&layout).own_legs(tx).expect("nothing is hidden");
        with_view(&mut self.state, |view| rules::release(view, tx.txid, &legs));
    }

    fn execute(&mut self, moves: Vec<Move>, owners: &[u8]) -> Result<Effects, Reject> {
        let tx = self.tx(moves, owners);
        let layout = self.layout.clone();
        with_view(&mut self.state, |view| rules::execute(view, &ctx(&layout), &tx)).0
    }

    fn load<T: borsh::BorshDeserialize>(&self, key: &[u8]) -> Option<T> {
        self.state.get(key).map(|bytes| borsh::from_slice(bytes).expect("it decodes"))
    }

    fn balance(&self, seed: u8) -> Balance {
        let record: AccountRecord = self.load(&schema::account(&single(seed).address())).unwrap_or_default();
        record.balances.iter().find(|line| line.0 == self.asset).map(|line| line.1).unwrap_or_default()
    }

    fn claims(&self, seed: u8) -> usize {
        let list: ClaimList = self.load(&schema::claims(&single(seed).address())).unwrap_or_default();
        list.claims.len()
    }

    fn pay(&self, from: u8, to: u8, amount: u128) -> Move {
        pay(single(from).address(), single(to).address(), self.asset, amount)
    }

    fn sync(&self, from: u8, to: u8, amount: u128) -> Move {
        Move::PaySync { from: single(from).address(), to: single(to).address(), asset: self.asset, amount }
    }

    fn check(&self, of: u8, condition: Condition) -> Move {
        Move::Check { account: single(of).address(), condition }
    }

    fn at_least(&self, of: u8, amount: u128) -> Move {
        self.check(of, Condition::AtLeast { asset: self.asset, amount })
    }

    fn at_most(&self, of: u8, amount: u128) -> Move {
        self.check(of, Condition::AtMost { asset: self.asset, amount })
    }
}

fn write(of: u8, key: &str, value: Option<&str>) -> Move {
    let write = AccountWrite::Data { key: key.into(), value: value.map(|value| value.as_bytes().to_vec()) };
    Move::Write { account: single(of).address(), write }
}

#[test]
fn a_yes_holds_the_amount_and_the_outcome_posts_or_frees_it() {
    let mut bank = Bank::new();
    let one = bank.prepared(vec![bank.pay(1, 2, 60)], &[1]);
    assert_eq!(bank.balance(1), Balance { posted: 100, held: 60 });
    assert_eq!(bank.vote(vec![bank.pay(1, 2, 41)], &[1]), Err(Reject::InsufficientFunds));
    let two = bank.prepared(vec![bank.pay(1, 3, 40)], &[1]);
    assert_eq!(bank.balance(1).available(), 0);
    bank.release(&two);
    assert_eq!(bank.balance(1), Balance { posted: 100, held: 60 });
    let effects = bank.post(&one);
    assert!(effects.credits.is_empty(), "the payee lives here");
    assert_eq!((bank.balance(1), bank.balance(2).posted), (Balance { posted: 40, held: 0 }, 160));
    assert_eq!((bank.claims(1), bank.claims(2)), (0, 0));
}

#[test]
fn a_busy_payer_holds_any_number_of_amounts_at_once() {
    let mut bank = Bank::new();
    bank.credit(single(1).address(), 900);
    let all: Vec<ParsedTx> = (0..200).map(|_| bank.prepared(vec![bank.pay(1, 2, 5)], &[1])).collect();
    assert_eq!(bank.balance(1), Balance { posted: 1000, held: 1000 });
    assert_eq!(bank.claims(1), 0, "holds are a sum, not a list");
    for (at, tx) in all.iter().enumerate() {
        if at % 2 == 0 { drop(bank.post(tx)) } else { bank.release(tx) }
    }
    assert_eq!(bank.balance(1), Balance { posted: 500, held: 0 });
}

#[test]
fn no_debit_can_depend_on_a_credit_of_its_own_transaction() {
    let mut bank = Bank::new();
    let chained = vec![bank.pay(1, 9, 50), bank.pay(9, 2, 50)];
    assert_eq!(bank.execute(chained.clone(), &[1, 9]).err(), Some(Reject::InsufficientFunds));
    assert_eq!(bank.vote(chained, &[1, 9]), Err(Reject::InsufficientFunds), "the same, prepared or at once");
}

#[test]
fn checks_hold_for_every_outcome_of_what_is_undecided() {
    let mut bank = Bank::new();
    let held = bank.prepared(vec![bank.pay(1, 2, 30)], &[1]);
    assert_eq!(bank.vote(vec![bank.at_least(1, 71)], &[1]), Err(Reject::CheckFailed), "if it commits, 70 are left");
    assert_eq!(bank.vote(vec![bank.at_most(1, 99)], &[1]), Err(Reject::CheckFailed), "if it aborts, 100 are there");
    let passes = bank.prepared(vec![bank.at_least(1, 70), bank.at_most(1, 100)], &[1]);
    bank.release(&passes);
    let incoming = bank.prepared(vec![bank.sync(2, 1, 5)], &[2]);
    assert_eq!(bank.vote(vec![bank.at_most(1, 104)], &[1]), Err(Reject::CheckFailed), "5 more may come");
    bank.release(&incoming);
    bank.release(&held);
    assert_eq!(bank.claims(1), 0);
}

#[test]
fn what_a_check_relied_on_cannot_be_taken_away_before_the_outcome() {
    let mut bank = Bank::new();
    let least = bank.prepared(vec![bank.at_least(1, 80)], &[1]);
    assert_eq!(bank.execute(vec![bank.pay(1, 2, 21)], &[1]).err(), Some(Reject::Conflict));
    assert!(bank.execute(vec![bank.pay(1, 2, 20)], &[1]).is_ok(), "what is left suffices");
    bank.post(&least);
    assert!(bank.execute(vec![bank.pay(1, 2, 80)], &[1]).is_ok(), "and then nothing is pinned");

    let most = bank.prepared(vec![bank.at_most(3, 110)], &[3]);
    assert_eq!(bank.vote(vec![bank.sync(2, 3, 11)], &[2]), Err(Reject::Conflict));
    assert_eq!(bank.credit(single(3).address(), 50), HistoryKind::Received, "a credit that follows cannot fail");
    bank.release(&most);

    let version = bank.prepared(vec![bank.check(3, Condition::Version(0))], &[3]);
    assert_eq!(bank.execute(vec![write(3, "k", Some("v"))], &[3]).err(), Some(Reject::Conflict));
    bank.post(&version);
    assert!(bank.execute(vec![write(3, "k", Some("v"))], &[3]).is_ok());
    assert_eq!(bank.vote(vec![bank.check(3, Condition::Version(0))], &[3]), Err(Reject::CheckFailed));
    assert_eq!(bank.vote(vec![bank.check(3, Condition::Version(1))], &[3]), Ok(()));
}

#[test]
fn two_undecided_writes_of_one_thing_conflict_and_others_do_not() {
    let mut bank = Bank::new();
    let first = bank.prepared(vec![write(1, "a", Some("1"))], &[1]);
    assert_eq!(bank.vote(vec![write(1, "a", Some("2"))], &[1]), Err(Reject::Conflict));
    assert_eq!(bank.execute(vec![write(1, "a", None)], &[1]).err(), Some(Reject::Conflict));
    assert_eq!(bank.vote(vec![bank.check(1, Condition::Version(0))], &[1]), Err(Reject::Conflict));
    let other = bank.prepared(vec![write(1, "b", Some("2"))], &[1]);
    bank.post(&first);
    bank.post(&other);
    assert_eq!(bank.state[&schema::data(&single(1).address(), b"a")], "1");
    let record: AccountRecord = bank.load(&schema::account(&single(1).address())).expect("an account");
    assert_eq!((record.sequence, record.flags), (2, 0));
    assert!(bank.execute(vec![write(1, "a", None)], &[1]).is_ok(), "a later one succeeds");
    assert!(!bank.state.contains_key(&schema::data(&single(1).address(), b"a")));
}

#[test]
fn an_account_limits_what_one_transaction_may_take() {
    let mut bank = Bank::new();
    let limit = |per_tx| Move::Write {
        account: single(1).address(),
        write: AccountWrite::Limit { asset: asset_def(single(0).address(), "EUR").id, per_tx },
    };
    bank.execute(vec![limit(Some(30))], &[1]).expect("its owner may");
    let both = vec![bank.pay(1, 2, 20), bank.pay(1, 3, 11)];
    assert_eq!(bank.execute(both, &[1]).err(), Some(Reject::LimitExceeded));
    assert_eq!(bank.vote(vec![bank.pay(1, 2, 31)], &[1]), Err(Reject::LimitExceeded));
    let held = bank.prepared(vec![bank.pay(1, 2, 30)], &[1]);
    bank.execute(vec![limit(Some(1))], &[1]).expect("a lower one");
    bank.post(&held);
    assert_eq!(bank.balance(1).posted, 70, "a limit affects new votes, never a hold that exists");
    bank.execute(vec![limit(None)], &[1]).expect("and none");
    assert!(bank.execute(vec![bank.pay(1, 2, 70)], &[1]).is_ok());
}

#[test]
fn what_a_frozen_account_gets_waits_in_suspense_until_it_is_released_or_returned() {
    let mut bank = Bank::new();
    let (issuer, account) = (single(0).address(), single(1).address());
    let freeze = |frozen| Move::Freeze { issuer, account, asset: asset_def(single(0).address(), "EUR").id, frozen };
    let held = bank.prepared(vec![bank.pay(1, 2, 10)], &[1]);
    assert_eq!(bank.execute(vec![freeze(true)], &[1]).err(), Some(Reject::NotAuthorised), "the issuer signs");
    bank.execute(vec![freeze(true)], &[0]).expect("not the account");
    assert_eq!(bank.vote(vec![bank.pay(1, 2, 1)], &[1]), Err(Reject::Frozen));
    assert_eq!(bank.vote(vec![bank.sync(2, 1, 1)], &[2]), Err(Reject::Frozen), "a synchronous credit can say no");
    let unfrozen = bank.check(1, Condition::NotFrozen(bank.asset));
    assert_eq!(bank.vote(vec![unfrozen], &[1]), Err(Reject::CheckFailed));
    bank.post(&held);
    assert_eq!(bank.balance(1).posted, 90, "a hold that exists is not touched");

    assert_eq!(bank.credit(account, 7), HistoryKind::Suspended);
    let paid = bank.execute(vec![bank.pay(2, 1, 5)], &[2]).expect("a payment cannot fail for its payee");
    assert!(paid.lines.iter().any(|line| line.kind == HistoryKind::Suspended));
    let restriction = |bank: &Bank| bank.load::<Restriction>(&schema::restriction(&account, &bank.asset));
    assert_eq!(restriction(&bank).map(|line| (line.frozen, line.suspense)), Some((true, 12)));
    assert_eq!(bank.balance(1).posted, 90);

    let asset = bank.asset;
    let release = Move::Release { account, asset, amount: 4 };
    assert_eq!(bank.vote(vec![release.clone()], &[1]), Err(Reject::Frozen));
    let back = |by, amount| Move::Return { by, account, to: single(2).address(), asset, amount };
    assert_eq!(bank.vote(vec![back(single(3).address(), 1)], &[3]), Err(Reject::NotIssuer));
    let first = bank.prepared(vec![back(issuer, 8)], &[0]);
    assert_eq!(bank.vote(vec![back(account, 5)], &[1]), Err(Reject::InsufficientFunds), "8 of 12 are spoken for");
    bank.post(&first);
    bank.execute(vec![freeze(false)], &[0]).expect("thawed");
    bank.execute(vec![release], &[1]).expect("released");
    assert_eq!((bank.balance(1).posted, bank.balance(2).posted), (94, 113));
    assert_eq!(restriction(&bank).map(|line| (line.frozen, line.suspense)), Some((false, 0)));
    assert_eq!(bank.credit(account, 1), HistoryKind::Received);
}

#[test]
fn an_owner_can_freeze_the_account_and_thaw_it() {
    let mut bank = Bank::new();
    let frozen = |on| Move::Write { account: single(1).address(), write: AccountWrite::Frozen(on) };
    bank.execute(vec![frozen(true)], &[1]).expect("frozen");
    assert_eq!(bank.execute(vec![bank.pay(1, 2, 1)], &[1]).err(), Some(Reject::Frozen));
    assert_eq!(bank.credit(single(1).address(), 3), HistoryKind::Suspended);
    bank.execute(vec![frozen(false)], &[1]).expect("thawed");
    assert!(bank.execute(vec![bank.pay(1, 2, 1)], &[1]).is_ok());
}

#[test]
fn undecided_mints_share_what_is_left_of_the_supply() {
    let mut bank = Bank::new();
    let mint = |amount| Move::Mint {
        issuer: single(0).address(),
        to: single(1).address(),
        asset: asset_def(single(0).address(), "EUR").id,
        amount,
    };
    let most = bank.prepared(vec![mint(u128::MAX / 2 - 500)], &[0]);
    assert_eq!(bank.vote(vec![mint(501)], &[0]), Err(Reject::Overflow));
    let rest = bank.prepared(vec![mint(500)], &[0]);
    bank.release(&most);
    let effects = bank.post(&rest);
    assert_eq!(effects.minted, [(bank.asset, 500)]);
    let supply: u128 = bank.load(&schema::supply(&single(0).address(), &bank.asset)).expect("a counter");
    assert_eq!((supply, bank.claims(0)), (500, 0));
    // A block's value flow adds up its mints before it subtracts its burns.
    let layout = bank.layout.clone();
    let tx = bank.tx(vec![mint(u128::MAX / 2 - 500)], &[0]);
    let burned = |_: &AssetId| 1;
    let tight = RuleContext { burned: &burned, ..ctx(&layout) };
    let refused = with_view(&mut bank.state, |view| rules::execute(view, &tight, &tx)).0;
    assert_eq!(refused.err(), Some(Reject::Overflow));
}

#[test]
fn a_checked_account_has_to_authorise_and_a_paid_one_does_not() {
    let mut bank = Bank::new();
    assert_eq!(bank.vote(vec![bank.at_least(1, 1)], &[2]), Err(Reject::NotAuthorised));
    assert_eq!(bank.vote(vec![bank.check(1, Condition::Consent), bank.pay(2, 1, 1)], &[2]), Err(Reject::NotAuthorised));
    assert_eq!(bank.vote(vec![bank.check(1, Condition::Consent), bank.pay(2, 1, 1)], &[1, 2]), Ok(()));
    assert_eq!(bank.vote(vec![bank.sync(2, 1, 1)], &[2]), Ok(()));
}

#[test]
fn moves_that_repeat_or_contradict_each_other_are_refused_before_anybody_votes() {
    let bank = Bank::new();
    let limit =
        |per_tx| Move::Write { account: single(1).address(), write: AccountWrite::Limit { asset: bank.asset, per_tx } };
    let cases = [
        vec![bank.pay(1, 2, 5), bank.pay(1, 2, 5)],
        vec![write(1, "a", None), write(1, "a", Some("1"))],
        vec![limit(None), limit(Some(3))],
        vec![bank.at_least(1, 10), bank.at_most(1, 9)],
        vec![bank.check(1, Condition::Version(1)), bank.check(1, Condition::Version(2))],
    ];
    for moves in cases {
        let tx = sign(&body(moves.clone()), &[&single(1)]);
        assert_eq!(ingest(&tx).err(), Some(Reject::DuplicateMove), "{moves:?}");
    }
    let fine = vec![bank.pay(1, 2, 5), bank.pay(1, 2, 6), bank.at_least(1, 9), bank.at_most(1, 9), write(1, "b", None)];
    assert!(ingest(&sign(&body(fine), &[&single(1)])).is_ok());
    for (key, value) in [("", None), (&"k".repeat(65), None), ("k", Some("v".repeat(1025)))] {
        let tx = sign(&body(vec![write(1, key, value.as_deref())]), &[&single(1)]);
        assert_eq!(ingest(&tx).err(), Some(Reject::WriteForm));
    }
}

#[test]
fn an_opening_has_to_be_of_its_slot_and_its_hash() {
    let bank = Bank::new();
    let opening = Opening { slot: 1, salt: Hash32([7; 32]), mv: bank.pay(2, 1, 3) };
    let mut body = body(vec![bank.pay(1, 2, 5)]);
    body.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: HERE, hash: opening.hash() });
    let signed = sign(&body, &[&single(1), &single(2)]).encode();
    let with =
        |openings: Vec<Opening>| ParsedTx::decode(&cluster(), &ledger::Submission::encode(signed.clone(), openings));
    let layout = Layout::even(1);
    let closed = with(Vec::new()).expect("the form is right");
    assert_eq!(ctx(&layout).own_legs(&closed).err(), Some(Reject::HiddenSlot));
    let open = with(vec![opening.clone()]).expect("it fits");
    assert_eq!(ctx(&layout).own_legs(&open).map(|legs| legs.len()), Ok(2));
    assert_eq!(open.signed(), signed, "the signed bytes are what they were");
    assert_eq!(open.txid, closed.txid);
    let wrong = [
        Opening { salt: Hash32([8; 32]), ..opening.clone() },
        Opening { mv: bank.pay(2, 1, 4), ..opening.clone() },
        Opening { slot: 0, ..opening.clone() },
        Opening { slot: 2, ..opening.clone() },
    ];
    for opening in wrong {
        assert_eq!(with(vec![opening]).err(), Some(Reject::OpeningMismatch));
    }
    assert_eq!(with(vec![opening.clone(), opening]).err(), Some(Reject::OpeningMismatch));
}

#[test]
fn a_hidden_slot_whose_account_another_group_owns_is_refused_by_the_group_that_it_names() {
    let bank = Bank::new();
    let layout = Layout::even(2);
    let owned = |group| (1..=200).find(|seed| layout.locate(&single(*seed).address()) == group);
    let there = owned(GroupId::shard(1)).expect("one of 200 accounts");
    let here = owned(HERE).expect("one of 200 accounts");
    for (owner, expected) in [(there, Err(Reject::WrongShard)), (here, Ok(1))] {
        let opening = Opening { slot: 0, salt: Hash32([7; 32]), mv: bank.pay(owner, 2, 3) };
        let mut body = body(Vec::new());
        body.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: HERE, hash: opening.hash() });
        let signed = sign(&body, &[&single(owner)]).encode();
        let submission = ledger::Submission::encode(signed, vec![opening]);
        let tx = ParsedTx::decode(&cluster(), &submission).expect("the form is right");
        assert_eq!(ctx(&layout).own_legs(&tx).map(|legs| legs.len()), expected);
    }
}

#[test]
fn moves_that_repeat_or_contradict_each_other_are_found_behind_openings_too() {
    let bank = Bank::new();
    let submit = |clear: Move, hidden: Move| {
        let opening = Opening { slot: 1, salt: Hash32([7; 32]), mv: hidden };
        let mut body = body(vec![clear]);
        body.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: HERE, hash: opening.hash() });
        let signed = sign(&body, &[&single(1)]).encode();
        ParsedTx::decode(&cluster(), &ledger::Submission::encode(signed, vec![opening])).err()
    };
    assert_eq!(submit(bank.pay(1, 2, 5), bank.pay(1, 2, 5)), Some(Reject::DuplicateMove));
    assert_eq!(submit(bank.at_least(1, 10), bank.at_most(1, 9)), Some(Reject::DuplicateMove));
    assert_eq!(submit(bank.pay(1, 2, 5), bank.pay(1, 2, 6)), None);
}

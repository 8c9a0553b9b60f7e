//! Hash-locks: what locks, claims and refunds do and are refused for, in what they meet, and a
//! property: whatever is tried, each lock is settled once, and amounts add up.

mod support;

use ledger::claim::Restriction;
use ledger::ids::{LockId, TimeMs};
use ledger::limits::LOCK_FOR_MS_MAX;
use ledger::lock::{Lock, LockState, LockTerms, Secret, hash_of};
use ledger::rules::HistoryKind;
use ledger::tx::{AccountWrite, Condition, Move, ParsedTx};
use ledger::{Balance, Hash32, Reject, schema};
use proptest::prelude::*;
use support::bank::Bank;
use support::{NOW, body, cluster, ingest, pay, sign, single};

const SECRET: Secret = [7; 32];
const HOUR: u64 = 3_600_000;

fn terms(bank: &Bank, amount: u128) -> LockTerms {
    LockTerms { to: single(2).address(), asset: bank.asset, amount }
}

/// Account 1 locks for account 2, for an hour from the bank's time on.
fn lock(bank: &Bank, amount: u128) -> Move {
    let LockTerms { to, asset, amount } = terms(bank, amount);
    let deadline_ms = TimeMs(bank.time.0 + HOUR);
    Move::Lock { from: single(1).address(), to, asset, amount, hash: hash_of(&SECRET), deadline_ms }
}

fn locked(bank: &mut Bank, amount: u128) -> LockId {
    let tx = bank.tx(vec![lock(bank, amount)], &[1]);
    bank.run_tx(&tx).expect("it locks");
    LockId::derive(&tx.txid, 0)
}

fn claim(bank: &Bank, lock: LockId, amount: u128) -> Move {
    Move::Claim { from: single(1).address(), lock, terms: terms(bank, amount), secret: SECRET }
}

fn refund(bank: &Bank, lock: LockId, amount: u128) -> Move {
    Move::Refund { from: single(1).address(), lock, terms: terms(bank, amount) }
}

fn state_of(bank: &Bank, id: LockId) -> LockState {
    bank.load::<Lock>(&schema::lock(&single(1).address(), &id)).expect("a lock").state
}

fn kinds(effects: &ledger::rules::Effects) -> Vec<HistoryKind> {
    effects.lines.iter().map(|line| line.kind).collect()
}

#[test]
fn whoever_knows_the_secret_makes_the_lock_pay_without_a_signature() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    assert_eq!(bank.balance(1), Balance { posted: 100, held: 60 });
    assert_eq!(
        bank.refusal(pay(single(1).address(), single(3).address(), bank.asset, 41), &[1]),
        Some(Reject::InsufficientFunds)
    );
    let tx = bank.tx(vec![claim(&bank, id, 60)], &[]);
    assert!(tx.witnesses.is_empty());
    let effects = bank.run_tx(&tx).expect("it pays");
    assert_eq!(kinds(&effects), [HistoryKind::Claimed, HistoryKind::Received]);
    assert_eq!((bank.balance(1), bank.balance(2).posted), (Balance { posted: 40, held: 0 }, 160));
    let settled = LockState::Claimed { secret: SECRET, txid: tx.txid, at_ms: bank.time };
    assert_eq!(state_of(&bank, id), settled, "the secret stands there for the other side");
    assert_eq!(bank.record(1).sequence, 0, "payments are no changes by the owner");
}

#[test]
fn the_hash_is_that_of_other_systems() {
    // sha256 of 32 bytes 0x00 … 0x1f, as sha256sum prints it.
    let secret: Secret = std::array::from_fn(|at| at as u8);
    assert_eq!(hash_of(&secret).to_string(), "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd");
}

#[test]
fn after_the_deadline_the_payer_takes_it_back_and_nobody_else_does() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    bank.time = TimeMs(NOW.0 + HOUR - 1);
    assert_eq!(bank.refusal(refund(&bank, id, 60), &[1]), Some(Reject::LockEarly));
    bank.time = TimeMs(NOW.0 + HOUR);
    assert_eq!(bank.refusal(claim(&bank, id, 60), &[]), Some(Reject::LockExpired), "not at the deadline itself");
    assert_eq!(bank.refusal(refund(&bank, id, 60), &[2]), Some(Reject::NotAuthorised));
    let tx = bank.tx(vec![refund(&bank, id, 60)], &[1]);
    assert_eq!(kinds(&bank.run_tx(&tx).expect("it is time")), [HistoryKind::Refunded]);
    assert_eq!(bank.balance(1), Balance { posted: 100, held: 0 });
    assert_eq!(state_of(&bank, id), LockState::Refunded { txid: tx.txid, at_ms: bank.time });
}

#[test]
fn a_lock_is_settled_once() {
    let mut bank = Bank::new();
    let (one, two) = (locked(&mut bank, 30), locked(&mut bank, 30));
    bank.execute(vec![claim(&bank, one, 30)], &[]).expect("the first claim");
    assert_eq!(bank.refusal(claim(&bank, one, 30), &[]), Some(Reject::LockSettled));
    bank.time = TimeMs(NOW.0 + HOUR);
    assert_eq!(bank.refusal(refund(&bank, one, 30), &[1]), Some(Reject::LockSettled));
    bank.execute(vec![refund(&bank, two, 30)], &[1]).expect("the other one");
    assert_eq!(bank.refusal(refund(&bank, two, 30), &[1]), Some(Reject::LockSettled));
    assert_eq!(bank.refusal(claim(&bank, two, 30), &[]), Some(Reject::LockSettled));
    assert_eq!((bank.balance(1), bank.balance(2).posted), (Balance { posted: 70, held: 0 }, 130));
}

#[test]
fn what_is_wrong_with_a_claim_is_told_and_leaves_no_trace() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    let from = single(1).address();
    let with = |lock, terms, secret| Move::Claim { from, lock, terms, secret };
    let other = LockTerms { to: single(3).address(), ..terms(&bank, 60) };
    for (mv, expected) in [
        (with(id, terms(&bank, 60), [8; 32]), Reject::WrongSecret),
        (with(LockId(Hash32::ZERO), terms(&bank, 60), SECRET), Reject::LockUnknown),
        (with(id, terms(&bank, 61), SECRET), Reject::LockTerms),
        (with(id, other, SECRET), Reject::LockTerms),
        (
            Move::Claim { from: single(3).address(), lock: id, terms: terms(&bank, 60), secret: SECRET },
            Reject::LockUnknown,
        ),
        (refund(&bank, LockId(Hash32::ZERO), 60), Reject::LockUnknown),
        (refund(&bank, id, 61), Reject::LockTerms),
    ] {
        assert_eq!(bank.refusal(mv, &[1]), Some(expected));
        assert!(expected.precedes_authorisation() && !expected.leaves_receipt(), "nobody's txid is used up by it");
    }
    assert_eq!(state_of(&bank, id), LockState::Open);
}

#[test]
fn what_is_wrong_with_a_lock_is_told() {
    let mut bank = Bank::new();
    let change = |bank: &Bank, amount: u128, deadline: u64, to: u8| Move::Lock {
        from: single(1).address(),
        to: single(to).address(),
        asset: bank.asset,
        amount,
        hash: Hash32::ZERO,
        deadline_ms: TimeMs(deadline),
    };
    let decode = |mv| {
        let signed = sign(&body(vec![mv]), &[&single(1)]);
        ParsedTx::decode(&cluster(), &signed.encode()).map(|tx| tx.txid)
    };
    assert_eq!(decode(change(&bank, 0, NOW.0 + 1, 2)), Err(Reject::ZeroAmount));
    assert_eq!(decode(change(&bank, 5, NOW.0 + 1, 1)), Err(Reject::LockForm));
    let zero = LockTerms { amount: 0, ..terms(&bank, 1) };
    assert_eq!(
        decode(Move::Refund { from: single(1).address(), lock: LockId(Hash32::ZERO), terms: zero }),
        Err(Reject::ZeroAmount)
    );
    for (deadline, expected) in [
        (0, Some(Reject::LockDeadline)),
        (NOW.0, Some(Reject::LockDeadline)),
        (NOW.0 + 1, None),
        (NOW.0 + LOCK_FOR_MS_MAX, None),
        (NOW.0 + LOCK_FOR_MS_MAX + 1, Some(Reject::LockDeadline)),
        (u64::MAX, Some(Reject::LockDeadline)),
    ] {
        assert_eq!(bank.refusal(change(&bank, 1, deadline, 2), &[1]), expected, "{deadline}");
    }
    assert_eq!(bank.refusal(change(&bank, 99, NOW.0 + 1, 2), &[1]), Some(Reject::InsufficientFunds), "two are locked");
    assert_eq!(bank.refusal(change(&bank, 1, NOW.0 + 1, 2), &[2]), Some(Reject::NotAuthorised));
}

#[test]
fn one_transaction_cannot_settle_a_lock_twice_or_without_a_signature_do_anything_else() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    let both = sign(&body(vec![claim(&bank, id, 60), refund(&bank, id, 60)]), &[&single(1)]);
    assert_eq!(ingest(&both).err(), Some(Reject::DuplicateMove));
    let theft =
        sign(&body(vec![claim(&bank, id, 60), pay(single(1).address(), single(2).address(), bank.asset, 1)]), &[]);
    assert_eq!(ingest(&theft).err(), Some(Reject::BadSignature), "a secret signs for its lock alone");
    assert_eq!(ingest(&sign(&body(vec![refund(&bank, id, 60)]), &[])).err(), Some(Reject::BadSignature));
    assert!(ingest(&sign(&body(vec![claim(&bank, id, 60)]), &[])).is_ok());
}

#[test]
fn two_that_would_settle_a_lock_are_not_undecided_at_once() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    let first = bank.vote(vec![claim(&bank, id, 60)], &[]).expect("a YES");
    assert_eq!(bank.refusal(claim(&bank, id, 60), &[]), Some(Reject::Conflict));
    // Voted for in time, it is posted whenever the outcome is known; nothing waits for anything.
    bank.time = TimeMs(NOW.0 + 2 * HOUR);
    assert_eq!(bank.refusal(refund(&bank, id, 60), &[1]), Some(Reject::Conflict));
    let mut aborted = bank.clone();
    bank.post(&first);
    assert_eq!((bank.balance(1), bank.balance(2).posted, bank.claims(1)), (Balance { posted: 40, held: 0 }, 160, 0));

    aborted.release(&first);
    assert_eq!((aborted.balance(1), aborted.claims(1)), (Balance { posted: 100, held: 60 }, 0), "locked as before");
    aborted.execute(vec![refund(&aborted, id, 60)], &[1]).expect("and then it is refunded");
}

#[test]
fn a_lock_that_is_undecided_holds_and_leaves_nothing_when_it_is_released() {
    let mut bank = Bank::new();
    let before = bank.state.clone();
    let tx = bank.vote(vec![lock(&bank, 60)], &[1]).expect("a YES");
    assert_eq!(bank.balance(1), Balance { posted: 100, held: 60 });
    let id = LockId::derive(&tx.txid, 0);
    assert_eq!(bank.refusal(claim(&bank, id, 60), &[]), Some(Reject::LockUnknown), "it is not there yet");
    bank.release(&tx);
    let mut after = bank.state.clone();
    // The first signature of an account is remembered, whatever became of what it signed.
    after.insert(schema::account(&single(1).address()), before[&schema::account(&single(1).address())].clone());
    assert_eq!((bank.balance(1), after), (Balance { posted: 100, held: 0 }, before));
}

#[test]
fn a_freeze_breaks_no_promise_and_a_frozen_payee_is_paid_into_suspense() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    let late = locked(&mut bank, 10);
    let freeze = |account: u8| Move::Freeze {
        issuer: single(0).address(),
        account: single(account).address(),
        asset: ledger::AssetId::derive(&single(0).address(), "EUR"),
        frozen: true,
    };
    let own = Move::Write { account: single(1).address(), write: AccountWrite::Frozen(true) };
    bank.execute(vec![own, freeze(1), freeze(2)], &[0, 1]).expect("all are frozen");
    assert_eq!(bank.refusal(lock(&bank, 1), &[1]), Some(Reject::Frozen), "no new promise");
    bank.execute(vec![claim(&bank, id, 60)], &[]).expect("the one that was made is kept");
    let restriction: Restriction = bank.load(&schema::restriction(&single(2).address(), &bank.asset)).expect("one");
    assert_eq!((bank.balance(2).posted, restriction.suspense), (100, 60));
    bank.time = TimeMs(NOW.0 + HOUR);
    bank.execute(vec![refund(&bank, late, 10)], &[1]).expect("it only becomes the payer's own again");
    assert_eq!(bank.balance(1), Balance { posted: 40, held: 0 });
}

#[test]
fn checks_and_limits_count_a_lock_as_they_count_a_debit() {
    let mut bank = Bank::new();
    let id = locked(&mut bank, 60);
    let check = |condition| Move::Check { account: single(1).address(), condition };
    let asset = bank.asset;
    assert_eq!(bank.refusal(check(Condition::AtLeast { asset, amount: 41 }), &[1]), Some(Reject::CheckFailed));
    assert_eq!(
        bank.refusal(check(Condition::AtMost { asset, amount: 99 }), &[1]),
        Some(Reject::CheckFailed),
        "it may come back"
    );
    let relies = bank.vote(vec![check(Condition::AtLeast { asset, amount: 40 })], &[1]).expect("a YES");
    bank.execute(vec![claim(&bank, id, 60)], &[]).expect("a claim takes nothing that is available");
    bank.post(&relies);
    let limit = AccountWrite::Limit { asset, per_tx: Some(5) };
    bank.execute(vec![Move::Write { account: single(1).address(), write: limit }], &[1]).expect("its owner may");
    assert_eq!(bank.refusal(lock(&bank, 6), &[1]), Some(Reject::LimitExceeded));
    assert_eq!(bank.refusal(lock(&bank, 5), &[1]), None);
}

#[derive(Clone, Debug)]
enum Event {
    Lock(u128, u64),
    Claim(usize, bool),
    Refund(usize),
    Pay(u128),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1u128..60, 1u64..50).prop_map(|(amount, ahead)| Event::Lock(amount, ahead)),
        3 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(at, knows)| Event::Claim(at, knows)),
        3 => (0usize..8).prop_map(Event::Refund),
        1 => (1u128..60).prop_map(Event::Pay),
        2 => (1u64..30).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A model that knows of a lock only what it was made of and whether it is settled says of every
    /// attempt what must come of it; held and posted amounts are those of the model.
    #[test]
    fn each_lock_is_settled_once_and_amounts_add_up(events in prop::collection::vec((event(), any::<bool>()), 1..40)) {
        let mut bank = Bank::new();
        let (from, to) = (single(1).address(), single(2).address());
        let (mut locks, mut free, mut paid) = (Vec::<(LockId, u128, u64, bool)>::new(), 100u128, 100u128);
        for (event, at_once) in events {
            let now = bank.time.0;
            let (mv, owners, expected) = match event {
                Event::Wait(ms) => {
                    bank.time = TimeMs(now + ms);
                    continue;
                }
                Event::Lock(amount, ahead) => {
                    let deadline_ms = TimeMs(now + ahead);
                    let mv = Move::Lock { from, to, asset: bank.asset, amount, hash: hash_of(&SECRET), deadline_ms };
                    (mv, &[1][..], (free < amount).then_some(Reject::InsufficientFunds))
                }
                Event::Pay(amount) => {
                    (pay(from, to, bank.asset, amount), &[1][..], (free < amount).then_some(Reject::InsufficientFunds))
                }
                Event::Claim(at, knows) => {
                    let Some((id, amount, deadline, settled)) = locks.get(at).copied() else { continue };
                    let secret = if knows { SECRET } else { [0; 32] };
                    let mv = Move::Claim { from, lock: id, terms: terms(&bank, amount), secret };
                    let expected = match (knows, settled, now < deadline) {
                        (false, ..) => Some(Reject::WrongSecret),
                        (_, true, _) => Some(Reject::LockSettled),
                        (_, _, false) => Some(Reject::LockExpired),
                        (true, false, true) => None,
                    };
                    (mv, &[][..], expected)
                }
                Event::Refund(at) => {
                    let Some((id, amount, deadline, settled)) = locks.get(at).copied() else { continue };
                    let expected = match (settled, now >= deadline) {
                        (true, _) => Some(Reject::LockSettled),
                        (false, false) => Some(Reject::LockEarly),
                        (false, true) => None,
                    };
                    (refund(&bank, id, amount), &[1][..], expected)
                }
            };
            let tx = bank.tx(vec![mv.clone()], owners);
            let result = if at_once {
                bank.run_tx(&tx).map(|_| ())
            } else {
                // In two steps, as with voters elsewhere, and once in vain.
                bank.prepare(&tx).map(|()| bank.release(&tx)).and_then(|()| bank.prepare(&tx)).map(|()| drop(bank.post(&tx)))
            };
            prop_assert_eq!(result.err(), expected, "{:?}", mv);
            if expected.is_none() {
                match mv {
                    Move::Lock { amount, deadline_ms, .. } => {
                        free -= amount;
                        locks.push((LockId::derive(&tx.txid, 0), amount, deadline_ms.0, false));
                    }
                    Move::Pay { amount, .. } => (free, paid) = (free - amount, paid + amount),
                    Move::Claim { lock, terms, .. } => {
                        paid += terms.amount;
                        locks.iter_mut().filter(|known| known.0 == lock).for_each(|known| known.3 = true);
                    }
                    Move::Refund { lock, terms, .. } => {
                        free += terms.amount;
                        locks.iter_mut().filter(|known| known.0 == lock).for_each(|known| known.3 = true);
                    }
                    other => unreachable!("{other:?} is not tried"),
                }
            }
            let held: u128 = locks.iter().filter(|lock| !lock.3).map(|lock| lock.1).sum();
            prop_assert_eq!(bank.balance(1), Balance { posted: free + held, held });
            prop_assert_eq!(bank.balance(2).posted, paid);
            prop_assert_eq!(free + held + paid, 200);
            prop_assert_eq!(bank.claims(1), 0);
        }
    }
}

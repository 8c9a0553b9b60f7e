use ledger::ids::Address;

use super::*;

const ASSET: AssetId = AssetId([3; 16]);

fn cluster() -> ClusterId {
    crate::core::support::genesis().cluster_id()
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

fn record(posted: u128, held: u128) -> Vec<u8> {
    encoded(&AccountRecord { balances: vec![(ASSET, Balance { posted, held })], ..AccountRecord::default() })
}

/// Accounts whose partitions begin with a zero, or a one.
fn account(one: bool) -> Address {
    let half = BitPrefix::ALL.child(one);
    let all = (0..=u8::MAX).map(|byte| Address([byte; 20]));
    all.into_iter().find(|address| half.covers(&address.partition().0)).expect("half of all lie there")
}

#[test]
fn value_stands_in_balances_and_in_suspense_and_nowhere_else() {
    let own = account(false);
    let restriction = Restriction { suspense: 5, ..Restriction::default() };
    let pairs = vec![
        (schema::account(&own), record(100, 30)),
        (schema::extra_balance(&own, &ASSET), encoded(&Balance { posted: 7, held: 0 })),
        (schema::restriction(&own, &ASSET), encoded(&restriction)),
        (schema::supply(&own, &ASSET), encoded(&1_000u128)),
        (schema::limit(&own, &ASSET), encoded(&1_000u128)),
        (schema::account(&account(true)), record(1_000, 0)),
        (schema::total(&ASSET), encoded(&1_000u128)),
    ];
    let tally = Tally::of(cluster(), BitPrefix::ALL.child(false), pairs).expect("it can be counted");
    let expected = ChildTally { totals: vec![(ASSET, 112)], sync_debits: Vec::new(), leaves: 5 };
    assert_eq!(tally.counted(), expected);
}

#[test]
fn changes_come_to_what_a_count_of_all_comes_to() {
    let key = schema::account(&account(false));
    let mut tally = Tally::new(cluster(), BitPrefix::ALL);
    let steps = [None, Some(record(5, 0)), Some(record(9, 9)), Some(record(0, 0)), Some(record(2, 0)), None];
    for step in steps.windows(2) {
        tally.change(&key, step[0].as_deref(), step[1].as_deref()).expect("the change fits");
        let all = step[1].iter().map(|value| (&key, value));
        assert_eq!(tally, Tally::of(cluster(), BitPrefix::ALL, all).expect("it can be counted"));
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_no_panic() {
    let key = schema::account(&account(false));
    let whole = || Tally::of(cluster(), BitPrefix::ALL, [(&key, record(5, 0))]).expect("it can be counted");
    let more = whole().change(&key, Some(&record(6, 0)), None);
    assert_eq!(more, Err(TallyError::Amount { asset: ASSET }));
    let full = whole().change(&key, None, Some(&record(u128::MAX, 0)));
    assert_eq!(full, Err(TallyError::Amount { asset: ASSET }));
    let other = schema::supply(&account(false), &ASSET);
    assert_eq!(Tally::new(cluster(), BitPrefix::ALL).change(&other, Some(&[1]), None), Err(TallyError::Leaves));
    let bad = whole().change(&key, None, Some(&[1, 2]));
    assert!(matches!(bad, Err(TallyError::Value { .. })));
    let nameless = [&schema::of_account(&account(false))[..], &[schema::KIND_BALANCE, 1]].concat();
    let bad = whole().change(&nameless, None, Some(&encoded(&Balance::default())));
    assert!(matches!(bad, Err(TallyError::Value { .. })));
    let bad = whole().change(&[schema::PREPARED, 1], None, Some(&[9]));
    assert!(matches!(bad, Err(TallyError::Value { .. })));
}

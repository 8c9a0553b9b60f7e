//! Records and grants: who may record and grant, what is refused, what access follows, and a property
//! that a list of everything that was said gives the same answers at every time.

mod support;

use ledger::ids::{OrgId, TimeMs};
use ledger::limits::{GRANT_CHANGES_MAX, GRANTEES_MAX, RECORD_METADATA_BYTES_MAX, RECORDS_MAX, SCOPE_BYTES_MAX};
use ledger::record::{Access, GrantLog, GrantTerms, Grantee, Record, access};
use ledger::rules::HistoryKind;
use ledger::tx::{Condition, Move, ParsedTx};
use ledger::view::View;
use ledger::{Hash32, Reject, schema};
use proptest::prelude::*;
use support::bank::Bank;
use support::{NOW, body, cluster, sign, single, with_view};

const HASH: Hash32 = Hash32([9; 32]);

fn put(hash: Hash32) -> Move {
    Move::Record { owner: single(1).address(), hash, metadata: b"contract 7".to_vec() }
}

fn account(seed: u8) -> Grantee {
    Grantee::Account(single(seed).address())
}

fn grant(to: Grantee, scope: &str, until_ms: Option<TimeMs>) -> Move {
    let terms = GrantTerms { scope: scope.to_owned(), until_ms };
    Move::Grant { owner: single(1).address(), record: HASH, to, terms }
}

fn revoke(from: Grantee) -> Move {
    Move::Revoke { owner: single(1).address(), record: HASH, from }
}

fn access_at(bank: &Bank, who: Grantee, at: TimeMs) -> Access {
    access(&mut View::new(&bank.state), &single(1).address(), &HASH, &who, at)
}

fn recorded() -> Bank {
    let mut bank = Bank::new();
    bank.execute(vec![put(HASH)], &[1]).expect("it records");
    bank
}

#[test]
fn a_record_tells_what_when_and_by_which_transaction_and_is_made_once() {
    let mut bank = Bank::new();
    let tx = bank.tx(vec![put(HASH)], &[1]);
    let effects = bank.run_tx(&tx).expect("it records");
    assert_eq!(effects.lines.iter().map(|line| line.kind).collect::<Vec<_>>(), [HistoryKind::Recorded]);
    let record: Record = bank.load(&schema::record(&single(1).address(), &HASH)).expect("a record");
    let expected = Record { version: 1, metadata: b"contract 7".to_vec(), at_ms: NOW, txid: tx.txid, grantees: 0 };
    assert_eq!(record, expected);
    assert_eq!(bank.load::<u32>(&schema::record_count(&single(1).address())), Some(1));
    assert_eq!(bank.record(1).sequence, 1, "it is a change by the owner");
    assert_eq!(bank.refusal(put(HASH), &[1]), Some(Reject::RecordExists));
    let elsewhere = Move::Record { owner: single(2).address(), hash: HASH, metadata: Vec::new() };
    assert_eq!(bank.refusal(elsewhere, &[2]), None, "others may have the same document");
    assert_eq!(bank.refusal(put(Hash32([1; 32])), &[2]), Some(Reject::NotAuthorised));
}

#[test]
fn what_is_malformed_is_refused_before_it_is_signed_for() {
    let decode = |mv| {
        let signed = sign(&body(vec![mv]), &[&single(1)]);
        ParsedTx::decode(&cluster(), &signed.encode()).map(|_| ())
    };
    let sized = |bytes| Move::Record { owner: single(1).address(), hash: HASH, metadata: vec![b'x'; bytes] };
    let scope = |scope: &str| decode(grant(account(2), scope, None));
    assert_eq!(decode(sized(RECORD_METADATA_BYTES_MAX)), Ok(()));
    assert_eq!(decode(sized(RECORD_METADATA_BYTES_MAX + 1)), Err(Reject::RecordForm));
    assert_eq!(scope("read:2026/q1_a.b-c"), Ok(()));
    assert_eq!(scope(&"r".repeat(SCOPE_BYTES_MAX)), Ok(()));
    for bad in [String::new(), "r".repeat(SCOPE_BYTES_MAX + 1), "Read".to_owned(), "a b".to_owned(), "é".to_owned()] {
        assert_eq!(scope(&bad), Err(Reject::RecordForm), "{bad:?}");
    }
    assert_eq!(decode(grant(account(1), "read", None)), Err(Reject::RecordForm), "to the owner");
    let twice = sign(&body(vec![grant(account(2), "read", None), revoke(account(2))]), &[&single(1)]);
    assert_eq!(ParsedTx::decode(&cluster(), &twice.encode()).err(), Some(Reject::DuplicateMove));
}

#[test]
fn only_the_owner_grants_and_revokes_and_only_what_is_there() {
    let mut bank = recorded();
    assert_eq!(bank.refusal(grant(account(2), "read", None), &[2]), Some(Reject::NotAuthorised), "a non-owner");
    let own = Move::Grant {
        owner: single(2).address(),
        record: HASH,
        to: account(3),
        terms: GrantTerms { scope: "read".to_owned(), until_ms: None },
    };
    assert_eq!(bank.refusal(own, &[2]), Some(Reject::RecordUnknown), "and in its own name it has no such record");
    assert_eq!(bank.refusal(revoke(account(2)), &[1]), Some(Reject::GrantUnknown));
    assert_eq!(bank.refusal(grant(account(2), "read", Some(NOW)), &[1]), Some(Reject::GrantExpired));
    bank.execute(vec![grant(account(2), "read", None)], &[1]).expect("the owner");
    assert_eq!(bank.refusal(revoke(account(2)), &[2]), Some(Reject::NotAuthorised));
    bank.execute(vec![revoke(account(2))], &[1]).expect("the owner");
    assert_eq!(bank.refusal(revoke(account(2)), &[1]), Some(Reject::GrantUnknown), "twice");
}

#[test]
fn access_follows_from_what_was_granted_until_when_and_revoked_since() {
    let mut bank = recorded();
    let at = |ms: u64| TimeMs(NOW.0 + ms);
    let terms = |scope: &str, until_ms| GrantTerms { scope: scope.to_owned(), until_ms };
    bank.time = at(10);
    bank.execute(vec![grant(account(2), "read", Some(at(20))), grant(Grantee::Org(OrgId(4)), "audit", None)], &[1])
        .expect("both");
    bank.time = at(30);
    bank.execute(vec![grant(account(2), "write", None)], &[1]).expect("again, and more");
    bank.time = at(40);
    bank.execute(vec![revoke(account(2))], &[1]).expect("no more");
    for (ms, expected) in [
        (0, Access::Never),
        (9, Access::Never),
        (10, Access::Granted(terms("read", Some(at(20))))),
        (19, Access::Granted(terms("read", Some(at(20))))),
        (20, Access::Expired(terms("read", Some(at(20))))),
        (30, Access::Granted(terms("write", None))),
        (40, Access::Revoked(at(40))),
        (9_999, Access::Revoked(at(40))),
    ] {
        assert_eq!(access_at(&bank, account(2), at(ms)), expected, "{ms}");
        assert_eq!(access_at(&bank, account(2), at(ms)).allowed(), matches!(expected, Access::Granted(_)));
    }
    assert_eq!(access_at(&bank, Grantee::Org(OrgId(4)), at(50)), Access::Granted(terms("audit", None)));
    assert_eq!(access_at(&bank, Grantee::Org(OrgId(5)), at(50)), Access::Never);
    assert_eq!(access_at(&bank, account(1), at(50)), Access::Owner);
    assert_eq!(access_at(&bank, account(1), TimeMs(NOW.0 - 1)), Access::NoRecord, "it was not there yet");
    let record: Record = bank.load(&schema::record(&single(1).address(), &HASH)).expect("a record");
    assert_eq!(record.grantees, 2, "one for each party, however often");
}

#[test]
fn a_record_and_its_grants_may_be_made_together() {
    let mut bank = Bank::new();
    let granted = grant(account(2), "read", None);
    assert_eq!(
        bank.execute(vec![granted.clone(), put(HASH)], &[1]).err(),
        Some(Reject::RecordUnknown),
        "in this order"
    );
    bank.execute(vec![put(HASH), granted, grant(account(3), "read", None)], &[1]).expect("a record with two grants");
    assert!(access_at(&bank, account(3), NOW).allowed());
    let record: Record = bank.load(&schema::record(&single(1).address(), &HASH)).expect("a record");
    assert_eq!(record.grantees, 2);
}

#[test]
fn undecided_changes_of_one_thing_conflict_and_leave_nothing_when_released() {
    let mut bank = recorded();
    let other = put(Hash32([1; 32]));
    let pending = bank.vote(vec![other.clone()], &[1]).expect("a YES");
    assert_eq!(bank.refusal(other, &[1]), Some(Reject::Conflict));
    let early = Move::Grant {
        owner: single(1).address(),
        record: Hash32([1; 32]),
        to: account(2),
        terms: GrantTerms { scope: "read".to_owned(), until_ms: None },
    };
    assert_eq!(bank.refusal(early, &[1]), Some(Reject::Conflict), "it is not known whether it will be there");
    let version = Move::Check { account: single(1).address(), condition: Condition::Version(1) };
    assert_eq!(bank.refusal(version, &[1]), Some(Reject::Conflict));
    bank.release(&pending);
    let granting = bank.vote(vec![grant(account(2), "read", None)], &[1]).expect("a YES");
    assert_eq!(bank.refusal(revoke(account(2)), &[1]), Some(Reject::Conflict));
    assert!(!access_at(&bank, account(2), NOW).allowed(), "not before the outcome");
    let another = bank.vote(vec![grant(account(3), "read", None)], &[1]).expect("another party");
    bank.release(&granting);
    bank.post(&another);
    assert_eq!((bank.claims(1), bank.record(1).sequence), (0, 2));
    assert_eq!(access_at(&bank, account(2), NOW), Access::Never);
}

#[test]
fn lists_are_bounded_and_a_revocation_always_has_room() {
    let mut bank = recorded();
    let owner = single(1).address();
    for change in 1..GRANT_CHANGES_MAX {
        bank.execute(vec![grant(account(2), "read", None)], &[1]).unwrap_or_else(|reject| panic!("{change}: {reject}"));
    }
    assert_eq!(bank.refusal(grant(account(2), "read", None), &[1]), Some(Reject::RecordFull));
    bank.execute(vec![revoke(account(2))], &[1]).expect("the last place is for this");
    let log: GrantLog = bank.load(&schema::grant(&owner, &HASH, &account(2))).expect("a log");
    assert_eq!(log.changes.len(), GRANT_CHANGES_MAX);
    assert_eq!(bank.refusal(grant(account(2), "read", None), &[1]), Some(Reject::RecordFull));

    let full = |bank: &mut Bank, grantees: u32, records: u32| {
        let key = schema::record(&owner, &HASH);
        let mut record: Record = bank.load(&key).expect("a record");
        record.grantees = grantees;
        with_view(&mut bank.state, |view| view.store(key, &record));
        with_view(&mut bank.state, |view| view.store(schema::record_count(&owner), &records));
    };
    full(&mut bank, GRANTEES_MAX - 1, RECORDS_MAX - 1);
    let both = [vec![grant(account(3), "a", None)], vec![put(Hash32([1; 32]))]]
        .map(|moves| bank.vote(moves, &[1]).expect("the last place"));
    assert_eq!(
        bank.refusal(grant(Grantee::Org(OrgId(1)), "a", None), &[1]),
        Some(Reject::RecordFull),
        "it may be taken"
    );
    assert_eq!(bank.refusal(put(Hash32([2; 32])), &[1]), Some(Reject::RecordFull));
    both.iter().for_each(|tx| bank.release(tx));
    assert_eq!(bank.refusal(put(Hash32([2; 32])), &[1]), None);
    assert_eq!(bank.refusal(grant(Grantee::Org(OrgId(1)), "a", None), &[1]), None);
    assert_eq!(bank.refusal(grant(account(3), "a", None), &[1]), Some(Reject::RecordFull));
    assert_eq!(bank.refusal(grant(Grantee::Org(OrgId(1)), "b", None), &[1]), None, "to a party that has its place");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn access_at_any_time_is_what_the_list_of_events_says(
        events in prop::collection::vec((0u64..5, 0u8..3, prop::option::of((0usize..3, prop::option::of(1u64..12)))), 0..25),
    ) {
        let scopes = ["read", "write", "audit"];
        let parties = [account(2), account(3), Grantee::Org(OrgId(2))];
        let mut bank = recorded();
        let mut said: Vec<(u64, u8, Option<GrantTerms>)> = Vec::new();
        for (wait, party, what) in events {
            bank.time = TimeMs(bank.time.0 + wait);
            let who = parties[usize::from(party)];
            let terms = what.map(|(scope, ahead)| GrantTerms {
                scope: scopes[scope].to_owned(),
                until_ms: ahead.map(|ahead| TimeMs(bank.time.0 + ahead)),
            });
            let last = said.iter().rev().find(|entry| entry.1 == party);
            let nothing = terms.is_none() && last.is_none_or(|entry| entry.2.is_none());
            let mv = match &terms {
                Some(terms) => Move::Grant { owner: single(1).address(), record: HASH, to: who, terms: terms.clone() },
                None => revoke(who),
            };
            prop_assert_eq!(bank.refusal(mv, &[1]), nothing.then_some(Reject::GrantUnknown));
            if !nothing {
                said.push((bank.time.0, party, terms));
            }
        }
        for at in NOW.0..bank.time.0 + 15 {
            for (party, who) in (0u8..).zip(parties) {
                let last = said.iter().rev().find(|entry| entry.1 == party && entry.0 <= at);
                let allowed = last.is_some_and(|(_, _, terms)| {
                    terms.as_ref().is_some_and(|terms| terms.until_ms.is_none_or(|until| at < until.0))
                });
                let found = access_at(&bank, who, TimeMs(at));
                prop_assert_eq!(found.allowed(), allowed, "{:?} at {}", found, at - NOW.0);
                if let (Access::Granted(terms), Some(entry)) = (found, last) {
                    prop_assert_eq!(Some(terms), entry.2.clone());
                }
            }
        }
    }
}

use super::*;
use crate::draft::file::Frame;
use crate::draft::form::Leg;
use ledger::lock::LockTerms;
use ledger::record::GrantTerms;
use ledger::{ClusterId, Hash32, OrgId, SecretKey, TimeMs};

fn key(name: &str) -> SecretKey {
    SecretKey::derive(b"words", name.as_bytes())
}

fn of(name: &str) -> Address {
    Authorisation::Single(key(name).public()).address()
}

fn labels() -> Labels {
    let mut labels = Labels::default();
    for name in ["alice", "bob", "carol"] {
        labels.accounts.insert(of(name), name.to_owned());
        labels.keys.insert(key(name).public(), name.to_owned());
    }
    labels.assets.insert(AssetId([1; 16]), "EUR".to_owned());
    labels
}

const EUR: AssetId = AssetId([1; 16]);
const LOCK: LockId = LockId(Hash32([6; 32]));
const HASH: Hash32 = Hash32([8; 32]);

#[test]
fn every_move_has_a_sentence() {
    let (alice, bob) = (of("alice"), of("bob"));
    let write = |write| Move::Write { account: alice, write };
    let check = |condition| Move::Check { account: bob, condition };
    let terms = LockTerms { to: bob, asset: EUR, amount: 1 };
    let read = GrantTerms { scope: "read".to_owned(), until_ms: Some(TimeMs(0)) };
    let transfer = |ledger| Move::Transfer { from: alice, to: bob, asset: EUR, amount: 1, ledger };
    let joint = Authorisation::Multi { threshold: 2, keys: vec![key("alice").public(), key("bob").public()] };
    for (mv, text) in [
        (Move::Pay { from: alice, to: bob, asset: EUR, amount: 1250 }, "alice pays bob 1,250 EUR"),
        (
            Move::PaySync { from: alice, to: bob, asset: EUR, amount: 1 },
            "alice pays bob 1 EUR, credited in the same step",
        ),
        (Move::Mint { issuer: alice, to: bob, asset: EUR, amount: 1 }, "alice creates 1 EUR for bob"),
        (Move::Burn { issuer: alice, asset: EUR, amount: 1 }, "alice destroys 1 EUR"),
        (Move::Rotate { account: alice, auth: joint }, "alice is signed for by 2 of the keys alice, bob from now on"),
        (check(Condition::AtLeast { asset: EUR, amount: 5 }), "only if bob has at least 5 EUR available"),
        (check(Condition::AtMost { asset: EUR, amount: 5 }), "only if bob has at most 5 EUR"),
        (check(Condition::Version(3)), "only if bob is unchanged since its version 3"),
        (check(Condition::NotFrozen(EUR)), "only if bob can spend EUR"),
        (check(Condition::Consent), "only if bob consents"),
        (write(AccountWrite::Data { key: b"k".to_vec(), value: Some(b"v".to_vec()) }), "alice sets \"k\" to \"v\""),
        (write(AccountWrite::Data { key: vec![0], value: None }), "alice removes 0x00"),
        (
            write(AccountWrite::Limit { asset: EUR, per_tx: Some(9) }),
            "alice limits what one transaction may take to 9 EUR",
        ),
        (write(AccountWrite::Limit { asset: EUR, per_tx: None }), "alice lifts its limit of EUR"),
        (write(AccountWrite::Frozen(true)), "alice freezes itself"),
        (write(AccountWrite::Frozen(false)), "alice thaws itself"),
        (Move::Freeze { issuer: alice, account: bob, asset: EUR, frozen: true }, "alice freezes what bob holds of EUR"),
        (Move::Release { account: alice, asset: EUR, amount: 1 }, "alice takes 1 EUR out of suspense"),
        (
            Move::Return { by: alice, account: bob, to: alice, asset: EUR, amount: 1 },
            "alice sends 1 EUR from the suspense of bob to alice",
        ),
        (
            Move::Lock { from: alice, to: bob, asset: EUR, amount: 1, hash: Hash32([1; 32]), deadline_ms: TimeMs(0) },
            &format!(
                "alice sets 1 EUR aside for bob, for whoever shows the secret behind {} before 1970-01-01 00:00:00.000 UTC",
                Hash32([1; 32])
            ),
        ),
        (
            Move::Claim { from: alice, lock: LOCK, terms, secret: [3; 32] },
            &format!("bob gets 1 EUR out of the lock {LOCK} of alice, by its secret"),
        ),
        (
            Move::Refund { from: alice, lock: LOCK, terms },
            &format!("alice takes 1 EUR back out of the lock {LOCK} for bob"),
        ),
        (
            Move::Record { owner: alice, hash: HASH, metadata: b"contract 7".to_vec() },
            &format!("alice records {HASH}, \"contract 7\""),
        ),
        (
            Move::Grant { owner: alice, record: HASH, to: Grantee::Account(bob), terms: read },
            &format!("alice grants bob \"read\" on the record {HASH} until 1970-01-01 00:00:00.000 UTC"),
        ),
        (
            Move::Revoke { owner: alice, record: HASH, from: Grantee::Org(OrgId(3)) },
            &format!("alice revokes what organisation 3 was granted on the record {HASH}"),
        ),
        (transfer(LedgerId::of_channel(GroupId::channel(3))), "alice pays bob 1 EUR in channel-3"),
        (transfer(LedgerId::MAIN), "alice pays bob 1 EUR in the main ledger"),
    ] {
        assert_eq!(labels().sentence(&mv), text);
    }
    // What has no name is shown whole.
    let stranger = of("stranger");
    let text = labels().sentence(&Move::Pay { from: stranger, to: bob, asset: AssetId([9; 16]), amount: 1 });
    assert!(text.contains(&stranger.to_string()) && text.contains(&AssetId([9; 16]).to_string()));
}

#[test]
fn a_plan_says_who_votes_who_follows_and_who_is_missing() {
    let layout = Layout::even(4);
    let groups = |names: [&str; 2]| names.map(|name| layout.locate(&of(name)).to_string());
    let [home_alice, home_bob] = groups(["alice", "bob"]);
    assert_ne!(home_alice, home_bob, "the names are chosen so that this test shows something");
    let pay =
        Leg { mv: Move::Pay { from: of("alice"), to: of("bob"), asset: EUR, amount: 500 }, hidden: false, line: 1 };
    let consent = Leg { mv: Move::Check { account: of("bob"), condition: Condition::Consent }, hidden: true, line: 2 };
    let frame = Frame {
        cluster: ClusterId::default(),
        layout: &layout,
        valid_until_ms: TimeMs(1_700_000_000_123),
        salt: [0; 16],
        slot_secret: Hash32::ZERO,
        memo: "trade 7",
    };
    let rule = |account: &Address| (*account == of("alice")).then(|| Authorisation::Single(key("alice").public()));
    let mut file = TxFile::build(&frame, &[pay, consent], rule).unwrap();
    file.sign(&key("alice"));
    let plan = Plan::of(&file, &layout, &labels());
    assert_eq!(plan.moves[0].voters, [home_alice.as_str()]);
    assert_eq!(plan.moves[0].credited.as_ref(), Some(&home_bob));
    assert!(plan.moves[1].hidden && !plan.complete);
    let mut both = [home_alice, home_bob];
    both.sort();
    assert_eq!(plan.groups, both);
    let text = plan.text();
    for part in [
        "valid until 2023-11-14 22:13:20.123 UTC",
        "memo: trade 7",
        "1. alice pays bob 500 EUR",
        "the credit in",
        "hidden from all other groups",
        &format!("all of it happens if {} and {} each say yes; otherwise nothing does", both[0], both[1]),
        "✓ alice: signed by alice",
        "✗ bob: MISSING; its keys are not known here",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    file.redact(&[]);
    let text = Plan::of(&file, &layout, &labels()).text();
    assert!(text.contains("a hidden move, whose opening is not in this file"), "{text}");
}

#[test]
fn lists_and_moments_for_people() {
    assert_eq!(and(&["a"]), "a");
    assert_eq!(and(&["a", "b", "c"]), "a, b and c");
    assert_eq!(and::<&str>(&[]), "");
    assert_eq!(moment(0), "1970-01-01 00:00:00.000 UTC");
    assert_eq!(moment(u64::MAX), format!("{} ms", u64::MAX));
    assert_eq!(quoted("für".as_bytes()), "\"für\"");
    assert_eq!(quoted(&[0xff, 0]), "0xff00");
    assert_eq!(quoted(b"a\nb"), "0x610a62");
    assert_eq!(quoted("a\u{202e}b".as_bytes()), "0x61e280ae62");
}

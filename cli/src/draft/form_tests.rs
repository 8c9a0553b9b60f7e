use hashbrown::HashMap;
use ledger::lock::LockTerms;
use ledger::record::{GrantTerms, Grantee};
use ledger::tx::{AccountWrite, Condition};
use ledger::{AssetId, GroupId, Hash32, LedgerId, LockId, OrgId, SecretKey, TimeMs};

use super::*;

/// Keys and assets by name.
struct Book(HashMap<&'static str, SecretKey>);

impl Names for Book {
    fn account(&self, text: &str) -> Result<Address, CliError> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let unknown = || CliError::usage("address", format!("'{text}' is nobody"), "check it");
        self.0.get(text).map(|key| Authorisation::Single(key.public()).address()).ok_or_else(unknown)
    }

    fn asset(&self, text: &str) -> Result<AssetId, CliError> {
        match text {
            "EUR" => Ok(AssetId([1; 16])),
            "BOND" => Ok(AssetId([2; 16])),
            _ => Err(CliError::usage("asset", format!("'{text}' is no asset"), "check it")),
        }
    }

    fn key(&self, text: &str) -> Result<PublicKey, CliError> {
        let unknown = || CliError::usage("public_key", format!("'{text}' is no key"), "check it");
        self.0.get(text).map(SecretKey::public).ok_or_else(unknown)
    }
}

fn book() -> Book {
    let names = ["alice", "bob", "carol", "issuer"];
    Book(names.into_iter().map(|name| (name, SecretKey::derive(b"form", name.as_bytes()))).collect())
}

fn of(name: &str) -> Address {
    book().account(name).unwrap()
}

const EUR: AssetId = AssetId([1; 16]);
const LOCK: LockId = LockId(Hash32([2; 32]));
/// 2026-01-31 12:00:00 UTC.
const AT: TimeMs = TimeMs(1_769_860_800_000);

fn moves(text: &str) -> Vec<Move> {
    read(text, &book()).unwrap().legs.into_iter().map(|leg| leg.mv).collect()
}

#[test]
fn every_move_has_its_table() {
    let text = r#"
        valid_for = "10m"
        memo = "all of them"
        [[pay]]
        from = "alice"
        to = "bob"
        asset = "EUR"
        amount = 5
        [[pay]]
        from = "bob"
        to = "alice"
        asset = "BOND"
        amount = "340282366920938463463374607431768211455"
        sync = true
        hidden = true
        [[check]]
        account = "bob"
        consent = true
        [[check]]
        account = "bob"
        at_least = { asset = "EUR", amount = 0 }
        [[check]]
        account = "bob"
        at_most = { asset = "EUR", amount = 9 }
        [[check]]
        account = "bob"
        version = 3
        [[check]]
        account = "bob"
        not_frozen = "EUR"
        [[write]]
        account = "alice"
        data = { key = "k", value = "v" }
        [[write]]
        account = "alice"
        data = { key = "h", hex = "00ff" }
        [[write]]
        account = "alice"
        data = { key = "r", remove = true }
        [[write]]
        account = "alice"
        limit = { asset = "EUR", per_tx = 500 }
        [[write]]
        account = "alice"
        limit = { asset = "BOND", lift = true }
        [[write]]
        account = "alice"
        frozen = true
        [[rotate]]
        account = "alice"
        key = "carol"
        [[freeze]]
        issuer = "issuer"
        account = "bob"
        asset = "EUR"
        frozen = false
        [[release]]
        account = "alice"
        asset = "EUR"
        amount = 1
        [[return]]
        by = "issuer"
        account = "alice"
        to = "bob"
        asset = "EUR"
        amount = 2
        [[mint]]
        issuer = "issuer"
        to = "alice"
        asset = "EUR"
        amount = 3
        [[burn]]
        issuer = "issuer"
        asset = "EUR"
        amount = 4
        [[lock]]
        from = "alice"
        to = "bob"
        asset = "EUR"
        amount = 5
        hash = "0101010101010101010101010101010101010101010101010101010101010101"
        deadline = "2026-01-31T12:00:00Z"
        [[claim]]
        from = "alice"
        lock = "0202020202020202020202020202020202020202020202020202020202020202"
        to = "bob"
        asset = "EUR"
        amount = 5
        secret = "0303030303030303030303030303030303030303030303030303030303030303"
        [[refund]]
        from = "bob"
        lock = "0202020202020202020202020202020202020202020202020202020202020202"
        to = "alice"
        asset = "EUR"
        amount = 6
        [[record]]
        owner = "alice"
        hash = "0404040404040404040404040404040404040404040404040404040404040404"
        metadata = "contract 7"
        [[grant]]
        owner = "alice"
        record = "0404040404040404040404040404040404040404040404040404040404040404"
        account = "bob"
        scope = "read"
        until = 1769860800000
        [[grant]]
        owner = "alice"
        record = "0404040404040404040404040404040404040404040404040404040404040404"
        org = 3
        scope = "audit"
        [[revoke]]
        owner = "alice"
        record = "0404040404040404040404040404040404040404040404040404040404040404"
        account = "carol"
        [[transfer]]
        from = "alice"
        to = "bob"
        asset = "EUR"
        amount = 7
        ledger = "channel-3"
    "#;
    let reading = read(text, &book()).unwrap();
    assert_eq!((reading.valid_for_ms, reading.memo.as_str()), (600_000, "all of them"));
    let (alice, bob, issuer) = (of("alice"), of("bob"), of("issuer"));
    let check = |condition| Move::Check { account: bob, condition };
    let write = |write| Move::Write { account: alice, write };
    let data = |key: &str, value: Option<&[u8]>| {
        write(AccountWrite::Data { key: key.into(), value: value.map(<[u8]>::to_vec) })
    };
    let terms = |to, amount| LockTerms { to, asset: EUR, amount };
    let grant = |to, scope: &str, until_ms| {
        let terms = GrantTerms { scope: scope.to_owned(), until_ms };
        Move::Grant { owner: alice, record: Hash32([4; 32]), to, terms }
    };
    let expected = [
        Move::Pay { from: alice, to: bob, asset: EUR, amount: 5 },
        Move::PaySync { from: bob, to: alice, asset: AssetId([2; 16]), amount: u128::MAX },
        check(Condition::Consent),
        check(Condition::AtLeast { asset: EUR, amount: 0 }),
        check(Condition::AtMost { asset: EUR, amount: 9 }),
        check(Condition::Version(3)),
        check(Condition::NotFrozen(EUR)),
        data("k", Some(b"v")),
        data("h", Some(&[0, 255])),
        data("r", None),
        write(AccountWrite::Limit { asset: EUR, per_tx: Some(500) }),
        write(AccountWrite::Limit { asset: AssetId([2; 16]), per_tx: None }),
        write(AccountWrite::Frozen(true)),
        Move::Rotate { account: alice, auth: Authorisation::Single(book().key("carol").unwrap()) },
        Move::Freeze { issuer, account: bob, asset: EUR, frozen: false },
        Move::Release { account: alice, asset: EUR, amount: 1 },
        Move::Return { by: issuer, account: alice, to: bob, asset: EUR, amount: 2 },
        Move::Mint { issuer, to: alice, asset: EUR, amount: 3 },
        Move::Burn { issuer, asset: EUR, amount: 4 },
        Move::Lock { from: alice, to: bob, asset: EUR, amount: 5, hash: Hash32([1; 32]), deadline_ms: AT },
        Move::Claim { from: alice, lock: LOCK, terms: terms(bob, 5), secret: [3; 32] },
        Move::Refund { from: bob, lock: LOCK, terms: terms(alice, 6) },
        Move::Record { owner: alice, hash: Hash32([4; 32]), metadata: b"contract 7".to_vec() },
        grant(Grantee::Account(bob), "read", Some(AT)),
        grant(Grantee::Org(OrgId(3)), "audit", None),
        Move::Revoke { owner: alice, record: Hash32([4; 32]), from: Grantee::Account(of("carol")) },
        Move::Transfer {
            from: alice,
            to: bob,
            asset: EUR,
            amount: 7,
            ledger: LedgerId::of_channel(GroupId::channel(3)),
        },
    ];
    let found: Vec<Move> = reading.legs.iter().map(|leg| leg.mv.clone()).collect();
    assert_eq!(found, expected);
    let hidden: Vec<bool> = reading.legs.iter().map(|leg| leg.hidden).collect();
    assert_eq!(hidden.iter().filter(|hidden| **hidden).count(), 1);
    assert!(hidden[1]);
    assert_eq!((reading.legs[0].line, reading.legs[1].line), (4, 9));
}

#[test]
fn moves_stand_in_the_order_of_the_file_whatever_their_kind() {
    let text = "[[burn]]\nissuer='issuer'\nasset='EUR'\namount=1\n[[pay]]\nfrom='alice'\nto='bob'\nasset='EUR'\namount=1\n[[burn]]\nissuer='issuer'\nasset='EUR'\namount=2\n";
    let kinds: Vec<bool> = moves(text).iter().map(|mv| matches!(mv, Move::Burn { .. })).collect();
    assert_eq!(kinds, [true, false, true]);
}

#[test]
fn accounts_of_several_keys_are_named_in_the_form() {
    let text = "[[account]]\nname='board'\nthreshold=2\nkeys=['carol','alice','bob']\n[[pay]]\nfrom='board'\nto='bob'\nasset='EUR'\namount=1\n[[rotate]]\naccount='board'\nthreshold=1\nkeys=['alice','bob']\n";
    let reading = read(text, &book()).unwrap();
    let (address, auth) = &reading.joint[0];
    let Authorisation::Multi { threshold: 2, keys } = auth else { panic!("{auth:?}") };
    assert!(keys.is_sorted(), "the ledger wants them in order");
    assert_eq!(*address, auth.address());
    assert!(matches!(&reading.legs[0].mv, Move::Pay { from, .. } if from == address));
    assert!(matches!(&reading.legs[1].mv, Move::Rotate { auth, .. } if auth.threshold() == 1));
    assert_eq!(reading.joint_names, [(*address, "board".to_owned())]);
}

/// What is wrong, with its line.
#[test]
fn every_mistake_is_refused_with_its_line() {
    let pay = "[[pay]]\nfrom = 'alice'\nto = 'bob'\nasset = 'EUR'\namount = 1\n";
    let hash = "04".repeat(32);
    let lock =
        format!("[[lock]]\nfrom = 'alice'\nto = 'bob'\nasset = 'EUR'\namount = 1\nhash = '{hash}'\ndeadline = 9\n");
    let claim = format!(
        "[[claim]]\nfrom = 'alice'\nto = 'bob'\nasset = 'EUR'\namount = 1\nlock = '{hash}'\nsecret = '{hash}'\n"
    );
    let grant = format!("[[grant]]\nowner = 'alice'\nrecord = '{hash}'\nscope = 'read'\n");
    let record = format!("[[record]]\nowner = 'alice'\nhash = '{hash}'\nmetadata = 'x'\n");
    let transfer = "[[transfer]]\nfrom = 'alice'\nto = 'bob'\nasset = 'EUR'\namount = 1\nledger = 'channel-1'\n";
    for (text, line, code, part) in [
        (&*lock.replace("'bob'", "'alice'"), 1, "lock_form", "holds the amount"),
        (&*lock.replace("= 1", "= 0"), 5, "zero_amount", "zero"),
        (&*lock.replace("0404", "04"), 6, "form", "32 bytes"),
        (&*lock.replace("= 9", "= 'tomorrow'"), 7, "form", "no moment"),
        (&*lock.replace("= 9", "= -1"), 7, "form", "before 1970"),
        (&*claim.replace(&format!("secret = '{hash}'"), "secret = '0404'"), 7, "form", "32 bytes"),
        (&*claim.replace(&format!("lock = '{hash}'"), "lock = 'x'"), 6, "form", "id of a lock"),
        (&*record.replace("'x'", &format!("'{}'", "x".repeat(1025))), 4, "record_form", "metadata"),
        (&*grant, 1, "form", "one party"),
        (&*format!("{grant}account = 'bob'\norg = 1\n"), 1, "form", "one party"),
        (&*format!("{grant}account = 'alice'\n"), 1, "record_form", "owner"),
        (&*format!("{}org = 1\n", grant.replace("'read'", "'Read'")), 4, "record_form", "scope"),
        (&*transfer.replace("channel-1", "shard-1"), 6, "form", "no ledger"),
        ("", 0, "form", "no move"),
        ("[[pay]]\nfrom = \"alice\"\n", 1, "form", "missing field"),
        (&format!("{pay}colour = 'red'\n"), 6, "form", "unknown field `colour`"),
        (&format!("colour = 'red'\n{pay}"), 1, "form", "unknown field `colour`"),
        (&format!("{pay}\n[[steal]]\nfrom = 'bob'\n"), 7, "form", "unknown field `steal`"),
        (&pay.replace("bob", "bobb"), 3, "address", "'bobb'"),
        (&pay.replace("EUR", "EURO"), 4, "asset", "'EURO'"),
        (&pay.replace("= 1", "= 0"), 5, "zero_amount", "zero"),
        (&pay.replace("= 1", "= -1"), 5, "form", "negative"),
        (&pay.replace("= 1", "= 1.5"), 5, "form", "whole number"),
        (&pay.replace("= 1", "= '1e3'"), 5, "form", "digits"),
        (&pay.replace("= 1", "= '340282366920938463463374607431768211456'"), 5, "form", "128 bits"),
        (&format!("valid_for = '25h'\n{pay}"), 1, "form", "24 hours"),
        (&format!("valid_for = '0s'\n{pay}"), 1, "form", "zero"),
        (&format!("valid_for = 'soon'\n{pay}"), 1, "form", "no period"),
        ("\n[[check]]\naccount = 'bob'\n", 2, "form", "one condition"),
        ("[[check]]\naccount = 'bob'\nversion = 1\nconsent = true\n", 1, "form", "has 2"),
        ("[[check]]\naccount = 'bob'\nconsent = false\n", 1, "form", "has 0"),
        ("[[write]]\naccount = 'bob'\n", 1, "form", "one change"),
        ("[[write]]\naccount = 'bob'\ndata = { key = 'k' }\n", 3, "form", "one of value"),
        ("[[write]]\naccount = 'bob'\ndata = { key = 'k', hex = 'xy' }\n", 3, "form", "haracter"),
        ("[[write]]\naccount = 'bob'\ndata = { key = '', value = 'x' }\n", 3, "write_form", "limits"),
        ("[[write]]\naccount = 'bob'\nlimit = { asset = 'EUR' }\n", 3, "form", "per_tx"),
        ("[[rotate]]\naccount = 'bob'\n", 1, "form", "one key"),
        ("[[rotate]]\naccount = 'bob'\nkey = 'nobody'\n", 3, "public_key", "nobody"),
        ("[[rotate]]\naccount = 'bob'\nthreshold = 3\nkeys = ['alice', 'bob']\n", 3, "auth_form", "threshold"),
        ("[[account]]\nname = 'alice'\nthreshold = 1\nkeys = ['bob']\n", 2, "form", "something else"),
        ("[[pay]\n", 1, "form", ""),
    ] {
        let error = read(text, &book()).unwrap_err();
        assert_eq!((error.code.as_str(), error.exit), (code, 1), "{text}\n{error}");
        assert!(error.cause.contains(part), "{part:?} in {error}\n{text}");
        if line > 0 {
            assert!(error.cause.starts_with(&format!("line {line}: ")), "line {line} in {error}\n{text}");
        }
        assert!(!error.fix.is_empty());
    }
}

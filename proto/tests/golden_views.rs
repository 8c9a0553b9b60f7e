//! Golden vectors of what reads answer with: a client of today must understand a node of tomorrow.
//!
//! The values are written out field by field, without defaults, so that a field that is added, removed or
//! moved does not compile or changes the bytes.

#[path = "../../ledger/tests/support/vectors.rs"]
mod vectors;

use ledger::claim::{Claim, Claimed, Item};
use ledger::{
    AccountRecord, Address, AssetId, Authorisation, Balance, GroupId, Hash32, Height, Outcome, Receipt, Reject,
    SecretKey, TimeMs, TxId,
};
use proto::views::{
    AccountView, BlockPoint, Explain, HistoryChange, HistoryLine, HistoryPage, HistoryPlace, OwnVote, PreparedView,
    ReceivedVote, RestrictionLine, SentMail, Unanswered,
};
use vectors::Vectors;

const TXID: TxId = TxId(Hash32([1; 32]));
const ASSET: AssetId = AssetId([2; 16]);
const OTHER: AssetId = AssetId([3; 16]);
const ALICE: Address = Address([4; 20]);

fn at(height: u64) -> BlockPoint {
    BlockPoint { height: Height(height), time_ms: TimeMs(1_700_000_000_000 + height) }
}

fn receipt(outcome: Outcome) -> Receipt {
    Receipt {
        version: 1,
        txid: TXID,
        group: GroupId::shard(2),
        height: Height(9),
        index: 8,
        time_ms: TimeMs(7),
        outcome,
    }
}

#[test]
fn account_views() {
    let mut vectors = Vectors::open("account_views.json");
    let key = SecretKey::derive(&[1], b"test").public();
    let full = AccountView {
        version: 1,
        record: AccountRecord {
            version: 1,
            auth: Some(Authorisation::Single(key)),
            flags: 5,
            sequence: 6,
            balances: vec![(ASSET, Balance { posted: 7, held: 8 }), (OTHER, Balance { posted: 9, held: 10 })],
        },
        restrictions: vec![RestrictionLine { asset: ASSET, frozen: true, suspense: 11 }],
        limits: vec![(OTHER, 12)],
        supplies: vec![(ASSET, 15)],
        claims: vec![
            Claimed { txid: TXID, claim: Claim::AtLeast { asset: ASSET, amount: 13 } },
            Claimed { txid: TXID, claim: Claim::Change(Item::Auth) },
        ],
        more_lines: 14,
        data: vec![(b"name".to_vec(), b"Alice".to_vec()), (vec![0], Vec::new())],
        more_data: true,
    };
    vectors.format("full", &full, "");
    let empty = AccountView {
        version: 1,
        record: AccountRecord { version: 1, auth: None, flags: 0, sequence: 0, balances: Vec::new() },
        restrictions: Vec::new(),
        limits: Vec::new(),
        supplies: Vec::new(),
        claims: Vec::new(),
        more_lines: 0,
        data: Vec::new(),
        more_data: false,
    };
    vectors.format("empty", &empty, "");
    vectors.finish();
}

#[test]
fn explains() {
    let mut vectors = Vectors::open("explains.json");
    let sent = |seq, taken| SentMail { dest: GroupId::shard(1), seq, taken };
    let nothing = Explain {
        version: 1,
        group: GroupId::shard(2),
        height: Height(9),
        time_ms: TimeMs(10),
        stale: false,
        prepared: None,
        receipt: None,
        tx: Vec::new(),
        credits: Vec::new(),
        unanswered: None,
    };
    let single = Explain {
        receipt: Some(receipt(Outcome::Committed { mail: vec![(GroupId::shard(1), 5), (GroupId::shard(1), 6)] })),
        tx: vec![1, 2, 3],
        credits: vec![sent(5, true), sent(6, false)],
        ..nothing.clone()
    };
    vectors.format("one group", &single, "");
    let prepared = |own, received, resolved, dropped| PreparedView {
        tx: vec![4, 5],
        opened: vec![1],
        voters: vec![GroupId::shard(1), GroupId::shard(2)],
        legs: vec![0, 2, 3],
        valid_until_ms: TimeMs(11),
        seen: at(1),
        handed_over: true,
        own,
        received,
        resolved,
        dropped,
    };
    let own = |no| OwnVote { no, legs: vec![0, 2], accounts: vec![ALICE], sent: vec![sent(7, false)], at: at(2) };
    let received = |no| ReceivedVote { group: GroupId::shard(1), no, legs: vec![3], at: at(3) };
    let views = [
        ("waits", prepared(None, Vec::new(), None, None), None),
        (
            "committed and dropped",
            prepared(Some(own(None)), vec![received(None)], Some((at(3), true)), Some(at(4))),
            Some(receipt(Outcome::Committed { mail: Vec::new() })),
        ),
        (
            "aborted",
            prepared(
                Some(own(Some(Reject::Frozen))),
                vec![received(Some(Reject::Conflict))],
                Some((at(3), false)),
                None,
            ),
            Some(receipt(Outcome::Aborted { group: GroupId::shard(2), reason: Reject::Frozen })),
        ),
    ];
    for (name, view, receipt) in views {
        vectors.format(name, &Explain { prepared: Some(view), receipt, stale: true, ..nothing.clone() }, "");
    }
    let unanswered = Unanswered { code: "not_leader".to_owned(), detail: "nobody leads".to_owned() };
    vectors.format("unanswered", &Explain { unanswered: Some(unanswered), ..nothing }, "");
    vectors.finish();
}

/// A change without a vector does not compile here.
fn name_of(change: &HistoryChange) -> &'static str {
    match change {
        HistoryChange::Debit { to: Some(_), .. } => "debit",
        HistoryChange::Debit { to: None, .. } => "burn",
        HistoryChange::Credit { .. } => "credit",
        HistoryChange::Rotated => "rotated",
        HistoryChange::Minted { .. } => "minted",
        HistoryChange::Suspended { .. } => "suspended",
        HistoryChange::Released { .. } => "released",
        HistoryChange::Returned { .. } => "returned",
        HistoryChange::Frozen(_) => "frozen",
        HistoryChange::Thawed(_) => "thawed",
        HistoryChange::Written => "written",
        HistoryChange::Locked { .. } => "locked",
        HistoryChange::Claimed { .. } => "claimed",
        HistoryChange::Refunded { .. } => "refunded",
        HistoryChange::Recorded => "recorded",
        HistoryChange::Granted(_) => "granted",
        HistoryChange::Revoked(_) => "revoked",
        HistoryChange::Departed { .. } => "departed",
        HistoryChange::Arrived { .. } => "arrived",
    }
}

#[test]
fn history_pages() {
    let mut vectors = Vectors::open("history_pages.json");
    let (asset, amount) = (ASSET, 5);
    let changes = [
        HistoryChange::Debit { asset, amount, to: Some(ALICE) },
        HistoryChange::Debit { asset, amount, to: None },
        HistoryChange::Credit { asset, amount, from: Some(ALICE) },
        HistoryChange::Rotated,
        HistoryChange::Minted { asset, amount, to: Some(ALICE) },
        HistoryChange::Suspended { asset, amount, from: None },
        HistoryChange::Released { asset, amount },
        HistoryChange::Returned { asset, amount, to: Some(ALICE) },
        HistoryChange::Frozen(Some(asset)),
        HistoryChange::Thawed(None),
        HistoryChange::Written,
        HistoryChange::Locked { asset, amount, to: Some(ALICE) },
        HistoryChange::Claimed { asset, amount, to: Some(ALICE) },
        HistoryChange::Refunded { asset, amount },
        HistoryChange::Recorded,
        HistoryChange::Granted(Some(ALICE)),
        HistoryChange::Revoked(None),
        HistoryChange::Departed { asset, amount, other: Some(ALICE) },
        HistoryChange::Arrived { asset, amount, to: Some(ALICE) },
    ];
    let line = |change| HistoryLine { height: Height(6), index: 7, time_ms: TimeMs(8), txid: TXID, change };
    for change in changes {
        vectors.format(name_of(&change), &line(change.clone()), "");
        let bytes = borsh::to_vec(&line(change)).expect("writing to memory does not fail").len();
        assert!(bytes <= ledger::limits::HISTORY_LINE_BYTES_MAX, "the bound of a page counts on it");
    }
    let before = Some(HistoryPlace { height: Height(6), index: 7 });
    vectors.format("page", &HistoryPage { version: 1, lines: vec![line(HistoryChange::Rotated)], before }, "");
    vectors.format("last page", &HistoryPage { version: 1, lines: Vec::new(), before: None }, "");
    vectors.finish();
}

#[test]
fn places_are_read_as_they_are_written() {
    let place = HistoryPlace { height: Height(1200), index: 3 };
    assert_eq!((place.to_string().as_str(), "1200:3".parse()), ("1200:3", Ok(place)));
    assert_eq!("1200".parse(), Ok(HistoryPlace { index: 0, ..place }));
    for text in ["", ":", "1:", ":1", "1:2:3", "-1", "1:4294967296"] {
        assert!(text.parse::<HistoryPlace>().is_err(), "{text}");
    }
}

//! What a shard knows of a transaction when both shards that it was joined from knew something: the table.

use cross_shard::commit::{Cast, Decision, Prepared, Received, Resolved, Stamp, Verdict, merge_records};
use ledger::Reject;
use ledger::hash::Hash32;
use ledger::ids::{Address, GroupId, Height, LockId, TimeMs, TxId};
use ledger::layout::BitPrefix;
use ledger::tx::{Move, Opening};

const PARENT: GroupId = GroupId::shard(0);
const LEFT: GroupId = GroupId::shard(1);
const RIGHT: GroupId = GroupId::shard(2);
const OTHER: GroupId = GroupId::shard(3);

fn at(height: u64) -> Stamp {
    Stamp { height: Height(height), time_ms: TimeMs(1_000 + height) }
}

fn halves() -> [BitPrefix; 2] {
    [false, true].map(|right| BitPrefix::ALL.child(right))
}

/// What a shard has seen at a height, and nothing more.
fn seen(height: u64) -> Prepared {
    Prepared {
        version: 2,
        txid: TxId(Hash32([1; 32])),
        tx: b"a signed transaction".to_vec(),
        openings: Vec::new(),
        voters: vec![LEFT, RIGHT, OTHER],
        legs: vec![0, 2, 4],
        valid_until_ms: TimeMs(9_000),
        seen: at(height),
        handed_over: false,
        casts: Vec::new(),
        received: Vec::new(),
        dropped: None,
    }
}

fn cast(group: GroupId, legs: &[u16], decision: Decision) -> Cast {
    Cast {
        group,
        decision,
        legs: legs.to_vec(),
        accounts: vec![Address([legs[0] as u8; 20])],
        sent: vec![(OTHER, 7)],
        at: at(5),
        within: BitPrefix::ALL,
        outcome: None,
    }
}

fn heard(group: GroupId, legs: &[u16], decision: Decision) -> Received {
    Received { group, decision, legs: legs.to_vec(), at: at(6) }
}

fn merged(left: Prepared, right: Prepared) -> Prepared {
    let [left_half, right_half] = halves();
    merge_records((left_half, left), (right_half, right))
}

#[test]
fn votes_of_both_stand_for_their_legs() {
    let left = Prepared {
        casts: vec![cast(LEFT, &[0], Decision::Yes)],
        received: vec![heard(OTHER, &[4], Decision::Yes)],
        handed_over: true,
        ..seen(4)
    };
    let right = Prepared {
        casts: vec![cast(RIGHT, &[2], Decision::Yes)],
        received: vec![heard(OTHER, &[4], Decision::Yes), heard(LEFT, &[0], Decision::Yes)],
        ..seen(3)
    };
    assert_eq!((left.verdict(), right.verdict()), (Verdict::Open, Verdict::Commit));
    let both = merged(left.clone(), right.clone());
    assert_eq!(both.verdict(), Verdict::Commit);
    assert_eq!(both.casts, [cast(LEFT, &[0], Decision::Yes), cast(RIGHT, &[2], Decision::Yes)]);
    assert_eq!(both.received.len(), 2, "what both have heard stands there once");
    assert_eq!((both.seen, both.handed_over), (at(3), true));
    assert!(both.unspoken(&[0, 2]).is_empty());
    // One has not voted: its legs are open.
    let waits = Prepared { casts: Vec::new(), ..right };
    let both = merged(left, waits);
    assert_eq!((both.verdict(), both.unspoken(&[0, 2])), (Verdict::Open, vec![2]));
}

#[test]
fn a_no_of_either_decides() {
    let no = Decision::No(Reject::Conflict);
    for (one, other) in [(no, Decision::Yes), (Decision::Yes, no)] {
        let left = Prepared { casts: vec![cast(LEFT, &[0], one)], ..seen(4) };
        let right = Prepared { casts: vec![cast(RIGHT, &[2], other)], ..seen(4) };
        let both = merged(left, right);
        let whose = if one == no { LEFT } else { RIGHT };
        assert_eq!(both.verdict(), Verdict::Abort(whose, Reject::Conflict));
        assert_eq!(both.decision(), Some(no));
    }
}

/// A shard voted, was cut, and its halves are joined again.
#[test]
fn a_vote_that_both_came_with_is_carried_out_once_for_each_account() {
    let of_parent = cast(PARENT, &[0, 2], Decision::Yes);
    let done = |height| Cast { outcome: Some(Resolved { committed: true, at: at(height) }), ..of_parent.clone() };
    let with = |cast: &Cast| Prepared { casts: vec![cast.clone()], ..seen(4) };
    let [left_half, right_half] = halves();
    // Equally far: one vote.
    assert_eq!(merged(with(&of_parent), with(&of_parent)).casts, std::slice::from_ref(&of_parent));
    assert_eq!(merged(with(&done(8)), with(&done(9))).casts, [done(8)]);
    // One of them is ahead: each half is as far as it is.
    let apart = merged(with(&done(8)), with(&of_parent));
    let within = |cast: Cast, within| Cast { within, ..cast };
    assert_eq!(apart.casts, [within(done(8), left_half), within(of_parent.clone(), right_half)]);
    assert_eq!(apart.outcome(), None);
    // Cut once more, and the right half carried out meanwhile; what each has of the other half's says nothing.
    let catch_up = Prepared { casts: vec![within(done(8), left_half), within(done(9), right_half)], ..seen(4) };
    assert_eq!(merged(apart.clone(), catch_up).casts, [done(8)]);
    // Joined with a shard that knew nothing of it, further up, the halves stay apart.
    let nothing = seen(4);
    let [whole, beside] = [BitPrefix::ALL, BitPrefix { bits: 1, length: 64 }];
    let kept = merge_records((whole, apart.clone()), (beside, nothing));
    assert_eq!(kept.casts, apart.casts);
    // Joined by shards that have none of its accounts, it is still known.
    let quarters = [0, 1].map(|bit| BitPrefix { bits: bit << 62, length: 2 });
    let beyond = |cast: &Cast| within(cast.clone(), right_half.child(cast.outcome.is_some()));
    let elsewhere = Prepared { casts: apart.casts.iter().map(beyond).collect(), ..seen(4) };
    let known = merge_records((quarters[0], elsewhere.clone()), (quarters[1], elsewhere));
    assert_eq!(known.casts, [done(8)]);
    assert!(known.unspoken(&[0, 2]).is_empty());
}

#[test]
fn what_is_needed_is_kept_while_one_needs_it() {
    let opening = |slot: u16| {
        let (from, lock, terms) = (Address([1; 20]), LockId(Hash32([6; 32])), lock_terms());
        Opening { slot, salt: Hash32([slot as u8; 32]), mv: Move::Refund { from, lock, terms } }
    };
    let gone = Prepared { tx: Vec::new(), dropped: Some(at(8)), ..seen(4) };
    let right = Prepared { openings: vec![opening(0), opening(2)], ..seen(4) };
    let left = Prepared { openings: vec![opening(1), opening(2)], ..gone.clone() };
    let both = merged(left, right.clone());
    assert_eq!((both.tx, both.dropped), (right.tx.clone(), None));
    assert_eq!(both.openings.iter().map(|opening| opening.slot).collect::<Vec<_>>(), [0, 1, 2]);
    let later = Prepared { dropped: Some(at(9)), ..gone.clone() };
    assert_eq!(merged(gone, later).dropped, Some(at(8)));
}

fn lock_terms() -> ledger::lock::LockTerms {
    ledger::lock::LockTerms { to: Address([2; 20]), asset: ledger::AssetId([3; 16]), amount: 7 }
}

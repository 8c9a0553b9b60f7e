//! Transactions that several groups vote on, at the way in of one of them.

use tokio::time::Instant;

use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, TimeMs};
use ledger::tx::{Opening, Slot, TxBody};
use ledger::{Address, AssetId, LedgerId, Move, SecretKey};
use v1::submit_event::Event;

use super::testing::{anybody, checked, next, receipt};
use super::waiters::SILENT_KEPT;
use super::*;
use crate::server::intake::Finding;
use crate::server::replies::ReplyQueue;

#[tokio::test]
async fn a_vote_is_told_once_to_everybody_and_the_receipt_follows() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let (late_sink, mut late) = tokio::sync::mpsc::channel(8);
    let (reply, late_reply) = (ReplyQueue::new(sink), ReplyQueue::new(late_sink));
    let waiters = Waiters::of(GroupId::shard(0));
    let tx = checked(b"tx of several groups");
    let txid = tx.txid;
    assert_eq!(waiters.wait(&tx, &reply, false, &anybody()), Waits::First);
    waiters.waits(&txid);
    assert!(matches!(next(&mut events).await[..], [Event::Waits(true)]));
    waiters.vote(&txid, Decision::Yes, Some(Height(7)));
    assert!(matches!(next(&mut events).await[..], [Event::Vote(vote)] if vote.yes && vote.height == 7));
    // Somebody who asks again hears it again, on the stream that asks, and is one waiter still; what
    // is told later adds nothing.
    assert_eq!(waiters.wait(&tx, &reply, true, &anybody()), Waits::Rides, "the same bytes are not sequenced again");
    assert!(matches!(next(&mut events).await[..], [Event::Vote(vote)] if vote.height == 7));
    assert_eq!(waiters.wait(&tx, &late_reply, false, &anybody()), Waits::Rides);
    assert!(matches!(next(&mut late).await[..], [Event::Vote(_)]));
    waiters.vote(&txid, Decision::Yes, None);
    waiters.waits(&txid);
    waiters.receipt(&receipt(txid, Vec::new()));
    let mut heard = next(&mut events).await;
    while heard.len() < 2 {
        heard.extend(next(&mut events).await);
    }
    assert!(matches!(heard[..], [Event::Receipt(_), Event::Applied(_)]), "{heard:?}");
    assert!(matches!(next(&mut late).await[..], [Event::Receipt(_)]));
    assert!(waiters.is_empty());
}

#[tokio::test]
async fn who_stops_asking_is_forgotten_once_there_is_nothing_to_tell_soon() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let (voted, queued) = (checked(b"voted"), checked(b"in the queue"));
    waiters.wait(&voted, &reply, false, &anybody());
    waiters.wait(&queued, &reply, false, &anybody());
    waiters.vote(&voted.txid, Decision::No(Reject::Frozen), None);
    assert!(matches!(next(&mut events).await[..], [Event::Vote(vote)] if vote.reject() == Some(Reject::Frozen)));
    let now = Instant::now();
    waiters.forget_silent(now);
    assert_eq!(waiters.len(), 2);
    waiters.forget_silent(now + 2 * SILENT_KEPT);
    assert!(waiters.knows(&queued.txid, &queued.bytes), "its fate is certain to come");
    assert!(!waiters.knows(&voted.txid, &voted.bytes));
}

#[test]
fn a_transaction_is_checked_with_its_openings_and_known_by_its_id() {
    let key = SecretKey::derive(b"key", b"");
    let mv = Move::Pay { from: Address([1; 20]), to: Address([2; 20]), asset: AssetId([3; 16]), amount: 4 };
    let opening = Opening { slot: 0, salt: Hash32([5; 32]), mv };
    let slot = Slot::Hidden { ledger: LedgerId::MAIN, group: GroupId::shard(0), hash: opening.hash() };
    let body = TxBody {
        version: 1,
        cluster: ClusterId::default(),
        valid_until_ms: TimeMs(10),
        salt: [0; 16],
        slots: vec![slot],
        memo: Vec::new(),
    };
    let signed = SignedTx::sign(&body, &[&key]);
    let mut forged = signed.clone();
    forged.witnesses[0].signatures[0].1.0[40] ^= 1;
    let with = |tx: &SignedTx, openings| Bytes::from(Submission::encode(tx.encode(), openings));
    let wrong = Opening { salt: Hash32::ZERO, ..opening.clone() };
    let txs = vec![
        with(&signed, vec![opening.clone()]),
        with(&forged, vec![opening]),
        with(&signed, vec![wrong]),
        with(&signed, Vec::new()),
    ];
    let cluster = ClusterId::default();
    let txid = signed.txid(&cluster);
    for bytes in &txs {
        assert_eq!(id_of(&cluster, bytes), Some(txid));
    }
    assert_eq!(id_of(&cluster, b"\x02 no submission"), None);
    let waiters = Waiters::of(GroupId::shard(0));
    let results = check(&cluster, Some(TimeMs(1)), txs.clone(), &waiters, |_| Finding::Nothing);
    let shape = |result: &Judged| match result {
        Judged::Fresh(tx) => Ok((tx.bytes.clone(), true)),
        Judged::Riding(tx) | Judged::Known(tx, _) | Judged::Doubtful(tx) => Ok((tx.bytes.clone(), false)),
        Judged::Refused(unfit) => Err((unfit.txid, unfit.reject)),
    };
    let expected = [
        Ok((txs[0].clone(), true)),
        Err((Some(txid), Reject::BadSignature)),
        Err((None, Reject::OpeningMismatch)),
        Ok((txs[3].clone(), true)),
    ];
    assert_eq!(results.iter().map(shape).collect::<Vec<_>>(), expected);
    // What was verified does not depend on the openings, so a replica that checked one of them
    // need not check the other.
    let fresh = |result: Judged| if let Judged::Fresh(tx) = result { Some(tx.mark) } else { None };
    let marks: Vec<Hash32> = results.into_iter().filter_map(fresh).collect();
    assert_eq!(marks[0], marks[1]);
}

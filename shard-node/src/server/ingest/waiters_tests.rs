use super::*;
use crate::server::ingest::testing::{checked, next, receipt};
use v1::submit_event::Event;

#[tokio::test]
async fn applied_comes_after_the_receipt_and_only_when_every_credit_is_taken() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let tx = checked(b"tx");
    let txid = tx.txid;
    assert_eq!(waiters.wait(&tx, &reply, true), Waits::First);
    assert_eq!(waiters.wait(&tx, &reply, false), Waits::Rides, "sent again, it is on its way");
    assert!(waiters.knows(&txid, &tx.bytes));
    waiters.receipt(&receipt(txid, vec![(GroupId::shard(1), 4), (GroupId::shard(2), 0)]));
    assert!(matches!(next(&mut events).await[..], [Event::Receipt(_)]), "who repeats itself is told once");
    waiters.taken(GroupId::shard(1), 5);
    waiters.taken(GroupId::shard(2), 0);
    assert!(waiters.is_empty());
    waiters.taken(GroupId::shard(2), 1);
    let mut seen = next(&mut events).await;
    while !seen.iter().any(|event| matches!(event, Event::Applied(_))) {
        seen = next(&mut events).await;
    }
    // What is known to be taken needs no waiting.
    assert_eq!(waiters.wait(&tx, &reply, true), Waits::First);
    waiters.receipt(&receipt(txid, vec![(GroupId::shard(1), 2)]));
    let mut both = next(&mut events).await;
    while both.len() < 2 {
        both.extend(next(&mut events).await);
    }
    assert!(matches!(both[..], [Event::Receipt(_), Event::Applied(_)]));
}

/// The same body with these witnesses: the same id, other bytes.
fn witnessed(witnesses: &str) -> Checked {
    Checked { bytes: Bytes::from(witnesses.to_owned()), ..checked(b"body") }
}

#[tokio::test]
async fn bad_witnesses_of_one_sender_do_not_spoil_the_good_ones_of_another() {
    let (bad_sink, mut bad_events) = tokio::sync::mpsc::channel(8);
    let (good_sink, mut good_events) = tokio::sync::mpsc::channel(8);
    let (bad_reply, good_reply) = (ReplyQueue::new(bad_sink), ReplyQueue::new(good_sink));
    let waiters = Waiters::of(GroupId::shard(0));
    let (bad, good) = (witnessed("bad"), witnessed("good"));
    for first_is_bad in [true, false] {
        let mut order = [(&bad, &bad_reply), (&good, &good_reply)];
        if !first_is_bad {
            order.reverse();
        }
        for (tx, reply) in order {
            assert!(!waiters.knows(&tx.txid, &tx.bytes), "other witnesses are checked on their own");
            assert_eq!(waiters.wait(tx, reply, false), Waits::First, "and sequenced on their own");
        }
        waiters.refuse(&bad.txid, &bad.bytes, Reject::NotAuthorised, None);
        let seen = next(&mut bad_events).await;
        let [Event::Refusal(refusal)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(refusal.reject(), Some(Reject::NotAuthorised));
        assert_eq!(refusal.tx_hash[..], ledger::hash::sha256(&bad.bytes).0, "it says which bytes were refused");
        assert!(waiters.knows(&good.txid, &good.bytes) && !waiters.knows(&bad.txid, &bad.bytes));
        waiters.receipt(&receipt(good.txid, Vec::new()));
        assert!(matches!(next(&mut good_events).await[..], [Event::Receipt(_)]), "nothing but its receipt");
        assert!(waiters.is_empty());
    }
    // A receipt is the fate of the body and news to everybody.
    waiters.wait(&bad, &bad_reply, false);
    waiters.wait(&good, &good_reply, false);
    waiters.receipt(&receipt(good.txid, Vec::new()));
    assert!(matches!(next(&mut bad_events).await[..], [Event::Receipt(_)]));
    assert!(matches!(next(&mut good_events).await[..], [Event::Receipt(_)]));
}

#[tokio::test]
async fn rivals_over_one_body_are_bounded() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let rival = |number: usize| witnessed(&format!("witnesses {number}"));
    for number in 0..=RIVALS_MAX {
        assert_eq!(waiters.wait(&rival(number), &reply, false), Waits::First);
    }
    assert_eq!(waiters.wait(&rival(RIVALS_MAX + 1), &reply, false), Waits::Crowded);
    assert_eq!(waiters.wait(&rival(3), &reply, false), Waits::Rides, "known ones still ride");
    let gone = rival(0);
    waiters.refuse(&gone.txid, &gone.bytes, Reject::NotAuthorised, None);
    assert_eq!(next(&mut events).await.len(), 1);
    assert_eq!(waiters.wait(&rival(RIVALS_MAX + 1), &reply, false), Waits::First, "a refusal makes room");
    assert_eq!(waiters.len(), 1);
}

#[tokio::test]
async fn a_stream_that_asks_again_is_told_once_that_it_is_applied() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let tx = checked(b"tx");
    let mail = vec![(GroupId::shard(1), 4)];
    for _ in 0..3 {
        assert_eq!(waiters.wait(&tx, &reply, true), Waits::First);
        waiters.receipt(&receipt(tx.txid, mail.clone()));
    }
    assert_eq!(waiters.books.lock().unapplied.len(), 1);
    waiters.taken(GroupId::shard(1), 5);
    {
        let books = waiters.books.lock();
        assert_eq!((books.unapplied.len(), books.asked.len()), (0, 0));
    }
    // Afterwards it is applied already.
    waiters.wait(&tx, &reply, true);
    waiters.receipt(&receipt(tx.txid, mail));
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.extend(next(&mut events).await);
    }
    let applied = seen.iter().filter(|event| matches!(event, Event::Applied(_))).count();
    assert_eq!((seen.len(), applied), (6, 2), "{seen:?}");
}

/// The number of those who were told that a credit is applied.
async fn applied(events: &mut tokio::sync::mpsc::Receiver<v1::SubmitEvents>, count: usize) -> usize {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(next(events).await);
    }
    seen.iter().filter(|event| matches!(event, Event::Applied(_))).count()
}

#[tokio::test]
async fn of_a_stream_that_has_ended_the_state_tells_and_the_numbers_of_others_are_not_its_own() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let [own, dest, parent] = [0, 1, 7].map(GroupId::shard);
    let waiters = Waiters::of(own);
    let wait = |name: &'static [u8], receipt: &dyn Fn(TxId) -> Receipt| {
        let tx = checked(name);
        assert_eq!(waiters.wait(&tx, &reply, true), Waits::First);
        waiters.receipt(&receipt(tx.txid));
    };
    waiters.taken(dest, 9);
    // One that this shard came from had numbers of its own, and that a peer has taken more of ours says nothing of them.
    wait(b"inherited", &|txid| Receipt { group: parent, ..receipt(txid, vec![(dest, 4)]) });
    wait(b"first", &|txid| receipt(txid, vec![(dest, 9)]));
    wait(b"second", &|txid| receipt(txid, vec![(dest, 10)]));
    assert!(waiters.has_ended(true), "of what the other one had mailed the state is asked");
    waiters.ended([dest]);
    let mut judged = Vec::new();
    waiters.judge(|source, dest, seq| {
        judged.push((source, dest, seq));
        if seq == 9 { MailFate::Taken } else { MailFate::Waits }
    });
    assert_eq!(judged, [(own, dest, 9), (own, dest, 10), (parent, dest, 4)]);
    assert_eq!(applied(&mut events, 4).await, 1, "three receipts, and the first one's credit");
    assert!(waiters.has_ended(false) && !waiters.has_ended(true), "two wait, and were judged");
    // What is taken of a stream with these numbers is none of ours any more.
    waiters.taken(dest, 11);
    waiters.judge(|source, _, _| if source == own { MailFate::Taken } else { MailFate::Elsewhere });
    assert_eq!(applied(&mut events, 1).await, 1);
    {
        let books = waiters.books.lock();
        assert_eq!((books.unapplied.len(), books.asked.len(), books.ended.len()), (0, 0, 0), "another one tells it");
    }
    // Who asks again is told by what the state says then, also behind a change of who leads.
    waiters.leadership_lost(None);
    wait(b"first", &|txid| receipt(txid, vec![(dest, 9)]));
    waiters.judge(|_, _, _| MailFate::Taken);
    assert_eq!(applied(&mut events, 2).await, 1);
}

#[tokio::test]
async fn a_lost_leadership_sends_everybody_to_the_next_leader() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let waiting = checked(b"waiting");
    waiters.wait(&waiting, &reply, false);
    waiters.leadership_lost(Some(NodeId(2)));
    let seen = next(&mut events).await;
    assert!(matches!(&seen[..], [Event::Refusal(refusal)] if refusal.leader_node == 2));
    assert!(!waiters.knows(&waiting.txid, &waiting.bytes));
}

#[tokio::test]
async fn what_has_no_fate_yet_is_counted_in_bytes() {
    let (sink, _events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let (one, two) = (checked(b"one"), checked(b"number two"));
    waiters.wait(&one, &reply, false);
    waiters.wait(&one, &reply, false);
    waiters.wait(&two, &reply, false);
    assert_eq!(waiters.bytes(), 13, "bytes that ride along cost nothing");
    waiters.refuse(&one.txid, &one.bytes, Reject::Busy, None);
    assert_eq!(waiters.bytes(), 10);
    waiters.leadership_lost(None);
    assert_eq!(waiters.bytes(), 0);
}

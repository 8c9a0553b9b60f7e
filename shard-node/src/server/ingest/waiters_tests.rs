use super::*;
use crate::core::entry::ENTRY_VERSION;
use crate::server::ingest::testing::{Shutting, anybody, checked, next, of_org, receipt};
use ledger::ids::TimeMs;
use v1::submit_event::Event;

#[tokio::test]
async fn applied_comes_after_the_receipt_and_only_when_every_credit_is_taken() {
    let (sink, mut events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    let waiters = Waiters::of(GroupId::shard(0));
    let tx = checked(b"tx");
    let txid = tx.txid;
    assert_eq!(waiters.wait(&tx, &reply, true, &anybody()), Waits::First);
    assert_eq!(waiters.wait(&tx, &reply, false, &anybody()), Waits::Rides, "sent again, it is on its way");
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
    assert_eq!(waiters.wait(&tx, &reply, true, &anybody()), Waits::First);
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
            assert_eq!(waiters.wait(tx, reply, false, &anybody()), Waits::First, "and sequenced on their own");
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
    waiters.wait(&bad, &bad_reply, false, &anybody());
    waiters.wait(&good, &good_reply, false, &anybody());
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
        assert_eq!(waiters.wait(&rival(number), &reply, false, &anybody()), Waits::First);
    }
    assert_eq!(waiters.wait(&rival(RIVALS_MAX + 1), &reply, false, &anybody()), Waits::Crowded);
    assert_eq!(waiters.wait(&rival(3), &reply, false, &anybody()), Waits::Rides, "known ones still ride");
    let gone = rival(0);
    waiters.refuse(&gone.txid, &gone.bytes, Reject::NotAuthorised, None);
    assert_eq!(next(&mut events).await.len(), 1);
    assert_eq!(waiters.wait(&rival(RIVALS_MAX + 1), &reply, false, &anybody()), Waits::First, "a refusal makes room");
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
        assert_eq!(waiters.wait(&tx, &reply, true, &anybody()), Waits::First);
        waiters.receipt(&receipt(tx.txid, mail.clone()));
    }
    assert_eq!(waiters.books.lock().unapplied.len(), 1);
    waiters.taken(GroupId::shard(1), 5);
    {
        let books = waiters.books.lock();
        assert_eq!((books.unapplied.len(), books.asked.len()), (0, 0));
    }
    // Afterwards it is applied already.
    waiters.wait(&tx, &reply, true, &anybody());
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
        assert_eq!(waiters.wait(&tx, &reply, true, &anybody()), Waits::First);
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
    waiters.wait(&waiting, &reply, false, &anybody());
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
    waiters.wait(&one, &reply, false, &anybody());
    waiters.wait(&one, &reply, false, &anybody());
    waiters.wait(&two, &reply, false, &anybody());
    assert_eq!(waiters.bytes(), 13, "bytes that ride along cost nothing");
    waiters.refuse(&one.txid, &one.bytes, Reject::Busy, None);
    assert_eq!(waiters.bytes(), 10);
    waiters.leadership_lost(None);
    assert_eq!(waiters.bytes(), 0);
}

/// Two organisations that wait in a channel, each over a stream of its own, and the channel.
struct Two {
    rules: Arc<Shutting>,
    waiters: Waiters,
    senders: [Arc<Sender>; 2],
    replies: [Arc<ReplyQueue>; 2],
    events: [tokio::sync::mpsc::Receiver<v1::SubmitEvents>; 2],
}

impl Two {
    fn new() -> Self {
        let rules = Arc::new(Shutting::default());
        let waiters = Waiters::behind(Gate::by(Box::new(Arc::clone(&rules))), GroupId::channel(0));
        let [(first, stays), (second, goes)] = [(); 2].map(|()| tokio::sync::mpsc::channel(8));
        let replies = [first, second].map(ReplyQueue::new);
        Self { rules, waiters, senders: [1, 2].map(of_org), replies, events: [stays, goes] }
    }

    /// Both hand over the same transaction.
    fn wait(&self, tx: &Checked, wants_applied: bool) -> [Waits; 2] {
        [0_usize, 1].map(|who| self.waiters.wait(tx, &self.replies[who], wants_applied, &self.senders[who]))
    }

    /// A block that shuts the second one out.
    fn shut_out(&self) {
        self.rules.block(Some(ledger::ids::OrgId(2)));
    }

    /// What the second one is told next is that it is told nothing any more.
    async fn is_untold(&mut self) {
        let seen = next(&mut self.events[1]).await;
        let [Event::Refusal(refusal)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((refusal.reject(), refusal.detail.as_str()), (Some(Reject::ChannelUntold), "org 2 is out"));
    }

    /// Whatever was pushed for the second one comes before the end of its stream, and there is nothing.
    async fn hears_nothing_else(self) {
        let Self { waiters, replies, events: [_stays, mut goes], .. } = self;
        drop((waiters, replies));
        assert!(goes.recv().await.is_none());
    }
}

#[tokio::test]
async fn what_is_told_behind_an_exclusion_is_told_to_those_alone_who_stay() {
    let receipt_of = |tx: &Checked| receipt(tx.txid, vec![(GroupId::shard(1), 4)]);
    type Tell<'a> = &'a dyn Fn(&Waiters, &Checked);
    let tells: [Tell<'_>; 5] = [
        &|waiters, tx| waiters.receipt(&receipt_of(tx)),
        &|waiters, tx| waiters.vote(&tx.txid, Decision::Yes, Some(Height(7))),
        &|waiters, tx| waiters.waits(&tx.txid),
        &|waiters, tx| waiters.refuse(&tx.txid, &tx.bytes, Reject::Busy, None),
        &|waiters, tx| waiters.refuse_all(&tx.txid, Reject::OutcomePruned, None),
    ];
    for (number, tell) in tells.into_iter().enumerate() {
        let mut two = Two::new();
        let tx = checked(b"in a channel");
        assert_eq!(two.wait(&tx, false), [Waits::First, Waits::Rides]);
        // Nobody has looked at who stays since the block came: the gate is asked by what is told.
        two.shut_out();
        tell(&two.waiters, &tx);
        two.is_untold().await;
        let seen = next(&mut two.events[0]).await;
        let told = match number {
            0 => matches!(seen[..], [Event::Receipt(_)]),
            1 => matches!(seen[..], [Event::Vote(_)]),
            2 => matches!(seen[..], [Event::Waits(_)]),
            _ => matches!(seen[..], [Event::Refusal(_)]),
        };
        assert!(told, "{number}: {seen:?}");
        // It waits no more: what comes later goes past it.
        two.waiters.receipt(&receipt_of(&tx));
        two.hears_nothing_else().await;
    }
}

#[tokio::test]
async fn credits_that_are_applied_behind_an_exclusion_are_told_to_those_who_stay() {
    for turned_away_first in [true, false] {
        let mut two = Two::new();
        let tx = checked(b"a transfer home");
        two.wait(&tx, true);
        two.waiters.receipt(&receipt(tx.txid, vec![(GroupId::shard(1), 4)]));
        for events in &mut two.events {
            assert!(matches!(next(events).await[..], [Event::Receipt(_)]), "both were members then");
        }
        two.shut_out();
        if turned_away_first {
            two.waiters.turn_away();
            two.is_untold().await;
        }
        // The receipt is one of a shard, so the state alone tells what became of its mail.
        two.waiters.judge(|_, _, _| MailFate::Taken);
        if !turned_away_first {
            two.is_untold().await;
        }
        assert!(matches!(next(&mut two.events[0]).await[..], [Event::Applied(_)]));
        two.hears_nothing_else().await;
    }
}

#[tokio::test]
async fn who_is_shut_out_is_turned_away_at_once_and_the_others_go_on_waiting() {
    let mut two = Two::new();
    let (both, own) = (checked(b"of both"), checked(b"its own"));
    two.wait(&both, false);
    assert_eq!(two.waiters.wait(&own, &two.replies[1], false, &two.senders[1]), Waits::First);
    two.waiters.turn_away();
    assert_eq!(two.waiters.len(), 2, "nobody was shut out");
    two.shut_out();
    two.waiters.turn_away();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(next(&mut two.events[1]).await);
    }
    let untold =
        |event: &Event| matches!(event, Event::Refusal(refusal) if refusal.reject() == Some(Reject::ChannelUntold));
    assert!(seen.len() == 2 && seen.iter().all(untold), "{seen:?}");
    assert!(two.waiters.knows(&both.txid, &both.bytes) && !two.waiters.has(&own.txid));
    // What it has on its way alone is proposed no more, and counts until it has left the queue.
    let entry = |txs: &[&Checked]| {
        let commands = txs.iter().map(|tx| Command::Tx(tx.bytes.to_vec())).collect();
        Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(7), commands }.encode())
    };
    assert_eq!(two.waiters.bytes(), both.bytes.len() + own.bytes.len());
    assert_eq!(two.waiters.without_withdrawn(entry(&[&both, &own])), entry(&[&both]));
    assert_eq!(two.waiters.bytes(), both.bytes.len());
    // What it hands over now is not taken, and there it is told so as at the door.
    assert_eq!(two.waiters.wait(&own, &two.replies[1], false, &two.senders[1]), Waits::Denied);
    let seen = next(&mut two.events[1]).await;
    assert!(matches!(&seen[..], [Event::Refusal(refusal)] if refusal.reject() == Some(Reject::ChannelRefused)));
    assert!(!two.waiters.has(&own.txid));
    assert_eq!(two.waiters.without_withdrawn(entry(&[&own])), entry(&[]));
    let word = v1::SubmitEvent::waits(id_bytes(&own.txid));
    two.waiters.answer(&two.replies[1], &two.senders[1], word);
    two.is_untold().await;
    two.waiters.receipt(&receipt(both.txid, Vec::new()));
    assert!(matches!(next(&mut two.events[0]).await[..], [Event::Receipt(_)]));
    // Whoever stays may send the same, which is then like any other.
    assert_eq!(two.waiters.wait(&own, &two.replies[0], false, &two.senders[0]), Waits::First);
    assert_eq!(two.waiters.without_withdrawn(entry(&[&own])), entry(&[&own]));
    two.hears_nothing_else().await;
}

#[tokio::test]
async fn what_others_have_sent_over_the_same_body_stays_when_one_is_turned_away() {
    let entry = |txs: &[&Checked]| {
        let commands = txs.iter().map(|tx| Command::Tx(tx.bytes.to_vec())).collect();
        Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(7), commands }.encode())
    };
    let (of_one, of_other) = (witnessed("of one"), witnessed("of the other"));
    for goes_first in [true, false] {
        let two = Two::new();
        let mut order = [(0, &of_one), (1, &of_other)];
        if goes_first {
            order.reverse();
        }
        for (who, tx) in order {
            assert_eq!(two.waiters.wait(tx, &two.replies[who], false, &two.senders[who]), Waits::First);
        }
        two.shut_out();
        two.waiters.turn_away();
        assert!(two.waiters.knows(&of_one.txid, &of_one.bytes) && !two.waiters.knows(&of_other.txid, &of_other.bytes));
        assert_eq!(two.waiters.without_withdrawn(entry(&[&of_other, &of_one])), entry(&[&of_one]));
        // After a while nothing of it can be on its way.
        two.waiters.forget_silent(Instant::now() + 2 * SILENT_KEPT);
        assert_eq!(two.waiters.bytes(), of_one.bytes.len());
        assert_eq!(two.waiters.without_withdrawn(entry(&[&of_other])), entry(&[&of_other]));
    }
}

#[tokio::test]
async fn what_is_withdrawn_counts_until_the_first_word_on_what_became_of_it_and_is_not_proposed_after_that() {
    let entry = |tx: &Checked| {
        let commands = vec![Command::Tx(tx.bytes.to_vec())];
        Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(7), commands }.encode())
    };
    type Word<'a> = &'a dyn Fn(&Waiters, &Checked);
    let words: [Word<'_>; 6] = [
        &|waiters, tx| waiters.receipt(&receipt(tx.txid, Vec::new())),
        &|waiters, tx| waiters.vote(&tx.txid, Decision::Yes, Some(Height(7))),
        &|waiters, tx| waiters.waits(&tx.txid),
        &|waiters, tx| waiters.refuse(&tx.txid, &tx.bytes, Reject::Busy, None),
        &|waiters, tx| waiters.refuse_all(&tx.txid, Reject::OutcomePruned, None),
        // Nothing is left of an entry that would have had nothing else in it.
        &|waiters, tx| drop(waiters.without_withdrawn(entry(tx))),
    ];
    for (number, word) in words.into_iter().enumerate() {
        let two = Two::new();
        let tx = checked(b"its own");
        assert_eq!(two.waiters.wait(&tx, &two.replies[1], false, &two.senders[1]), Waits::First);
        two.shut_out();
        two.waiters.turn_away();
        assert_eq!((two.waiters.len(), two.waiters.bytes()), (0, tx.bytes.len()), "{number}: it is on its way");
        word(&two.waiters, &tx);
        assert_eq!(two.waiters.bytes(), 0, "{number}: it is not any more");
        assert_ne!(two.waiters.without_withdrawn(entry(&tx)), entry(&tx), "{number}");
    }
}

/// A stream whose reader is gone.
async fn hung_up() -> Arc<ReplyQueue> {
    let (sink, events) = tokio::sync::mpsc::channel(8);
    let reply = ReplyQueue::new(sink);
    drop(events);
    reply.closed().await;
    reply
}

#[tokio::test]
async fn who_has_hung_up_is_forgotten_as_soon_as_it_was_told_a_vote() {
    let (sink, _events) = tokio::sync::mpsc::channel(8);
    let (stays, gone) = (ReplyQueue::new(sink), hung_up().await);
    let waiters = Waiters::of(GroupId::shard(0));
    let (own, both, queued) = (checked(b"its own"), checked(b"of both"), checked(b"in the queue"));
    for tx in [&own, &both, &queued] {
        waiters.wait(tx, &gone, false, &anybody());
    }
    waiters.wait(&both, &stays, false, &anybody());
    // What has no fate is in the queue, whoever waits for it.
    waiters.forget_silent(Instant::now());
    assert_eq!(waiters.len(), 3);
    for tx in [&own, &both] {
        waiters.vote(&tx.txid, Decision::Yes, Some(Height(7)));
    }
    assert!(!waiters.has(&own.txid) && waiters.has(&both.txid) && waiters.has(&queued.txid));
    assert_eq!(waiters.bytes(), both.bytes.len() + queued.bytes.len());
}

#[tokio::test]
async fn what_those_who_are_gone_behind_a_vote_have_left_makes_room_for_others() {
    for hangs_up in [true, false] {
        let (sink, events) = tokio::sync::mpsc::channel(8);
        let reply = ReplyQueue::new(sink);
        let waiters = Waiters::of(GroupId::shard(0));
        let large = Bytes::from(vec![7; WAITING_BYTES_MAX / 4]);
        let names: [&'static [u8]; 4] = [b"one", b"two", b"three", b"four"];
        for name in names {
            let tx = Checked { bytes: large.clone(), ..checked(name) };
            waiters.wait(&tx, &reply, false, &anybody());
            waiters.waits(&tx.txid);
        }
        let now = Instant::now();
        assert!(waiters.has_room(0, now) && !waiters.has_room(1, now), "its caller is there");
        let gone = if hangs_up {
            drop(events);
            reply.closed().await;
            assert!(!waiters.has_room(1, now + LOOK_EVERY / 2), "it was looked for a moment ago");
            now + LOOK_EVERY
        } else {
            assert!(!waiters.has_room(1, now + SILENT_KEPT_FULL / 2), "it may ask again");
            now + 2 * SILENT_KEPT_FULL
        };
        assert!(waiters.has_room(1, gone));
        assert_eq!((waiters.len(), waiters.bytes()), (0, 0));
    }
}

//! The way in for transactions: signatures are checked here, in parallel, before anything is
//! sequenced; and whoever waits for a transaction's fate is remembered here until it is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, NodeId, TimeMs, TxId};
use ledger::limits::INGEST_QUEUE_TXS;
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use ledger::rules;
use ledger::tx::ParsedTx;
use parking_lot::Mutex;
use proto::v1;
use rayon::prelude::*;
use tokio::sync::Notify;

use crate::core::records::ReceiptPlace;
use crate::server::intake::{Applied, Said};
use crate::server::limits::ARRIVALS_BYTES_MAX;
use crate::server::replies::ReplyQueue;

/// Retry hint for a full queue.
const BUSY_RETRY_MS: u32 = 50;
/// Batches below this are checked on one thread.
const PARALLEL_FROM: usize = 8;
/// Transactions checked in one round.
const ROUND_TXS: usize = 4096;

struct Waiter {
    reply: Arc<ReplyQueue>,
    wants_applied: bool,
}

/// Everybody who waits for one transaction, and the bytes that were checked for it. The txid does
/// not cover the witnesses, so only the very same bytes may rely on that check.
struct Waiting {
    checked: Held,
    waiters: Vec<Waiter>,
}

/// Bytes that count for as long as they are held.
struct Held {
    bytes: Bytes,
    total: Arc<AtomicUsize>,
}

impl Held {
    fn new(bytes: Bytes, total: &Arc<AtomicUsize>) -> Self {
        total.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, total: Arc::clone(total) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

struct Unapplied {
    txid: TxId,
    remaining: usize,
    reply: Arc<ReplyQueue>,
}

/// Who asked when which transaction is applied, by the address of its queue, which the record keeps
/// alive: a stream that asks again is told once.
type Asked = (TxId, usize);

fn asked(txid: TxId, reply: &Arc<ReplyQueue>) -> Asked {
    (txid, Arc::as_ptr(reply).addr())
}

#[derive(Default)]
struct Books {
    waiting: HashMap<TxId, Waiting>,
    unapplied: HashMap<u64, Unapplied>,
    asked: HashSet<Asked>,
    by_stream: HashMap<GroupId, BTreeMap<u64, Vec<u64>>>,
    taken: HashMap<GroupId, u64>,
    next_id: u64,
}

/// A batch that waits to be checked.
pub struct Arrived {
    /// As received.
    pub txs: Vec<Bytes>,
    /// Where fates go.
    pub reply: Arc<ReplyQueue>,
    /// Whether the sender wants to know when credits are applied.
    pub wants_applied: bool,
}

/// What has arrived for one group and is not checked yet. It is checked in as large parts as the
/// load brings, so that the cost of a round does not depend on how callers cut their batches.
#[derive(Default)]
pub struct Arrivals {
    queue: Mutex<Queue>,
    bell: Notify,
}

#[derive(Default)]
struct Queue {
    batches: Vec<Arrived>,
    txs: usize,
    bytes: usize,
}

impl Arrived {
    fn bytes(&self) -> usize {
        self.txs.iter().map(Bytes::len).sum()
    }
}

impl Arrivals {
    /// Queues a batch, or returns it when too much waits already.
    ///
    /// # Errors
    /// The batch, which was not taken.
    pub fn push(&self, batch: Arrived) -> Result<(), Arrived> {
        let bytes = batch.bytes();
        let mut queue = self.queue.lock();
        if queue.txs + batch.txs.len() > INGEST_QUEUE_TXS || queue.bytes + bytes > ARRIVALS_BYTES_MAX {
            return Err(batch);
        }
        queue.txs += batch.txs.len();
        queue.bytes += bytes;
        queue.batches.push(batch);
        drop(queue);
        self.bell.notify_one();
        Ok(())
    }

    /// Everything that waits, at most about [`ROUND_TXS`] transactions; waits for the first.
    pub async fn take(&self) -> Vec<Arrived> {
        loop {
            {
                let mut queue = self.queue.lock();
                let mut txs = 0;
                let upto = queue.batches.iter().take_while(|batch| {
                    let within = txs < ROUND_TXS;
                    txs += batch.txs.len();
                    within
                });
                let upto = upto.count();
                if upto > 0 {
                    let taken: Vec<Arrived> = queue.batches.drain(..upto).collect();
                    queue.txs -= taken.iter().map(|batch| batch.txs.len()).sum::<usize>();
                    queue.bytes -= taken.iter().map(Arrived::bytes).sum::<usize>();
                    if !queue.batches.is_empty() {
                        self.bell.notify_one();
                    }
                    return taken;
                }
            }
            self.bell.notified().await;
        }
    }
}

/// Who waits for which transaction of one group.
#[derive(Default)]
pub struct Waiters {
    books: Mutex<Books>,
    bytes: Arc<AtomicUsize>,
}

/// A transaction's id as the wire carries it.
#[must_use]
pub fn id_bytes(txid: &TxId) -> Bytes {
    Bytes::copy_from_slice(&txid.0.0)
}

/// A refusal event.
#[must_use]
pub fn refused(txid: &TxId, reject: Reject, leader: Option<NodeId>) -> v1::SubmitEvent {
    let mut refusal = v1::Refusal::of(reject);
    refusal.leader_node = leader.map_or(0, |node| node.0);
    if matches!(reject, Reject::Busy | Reject::PeerBusy) {
        refusal.retry_after_ms = BUSY_RETRY_MS;
    }
    v1::SubmitEvent::refused(id_bytes(txid), refusal)
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

impl Waiters {
    /// Remembers who waits; returns whether these very bytes are on their way already.
    pub fn wait(&self, tx: &Checked, reply: &Arc<ReplyQueue>, wants_applied: bool) -> bool {
        let mut books = self.books.lock();
        let waiter = Waiter { reply: Arc::clone(reply), wants_applied };
        match books.waiting.get_mut(&tx.txid) {
            Some(waiting) => {
                waiting.waiters.push(waiter);
                waiting.checked.bytes == tx.bytes
            }
            None => {
                let checked = Held::new(tx.bytes.clone(), &self.bytes);
                let waiting = Waiting { checked, waiters: vec![waiter] };
                books.waiting.insert(tx.txid, waiting);
                false
            }
        }
    }

    /// Whether somebody waits for these very bytes, so that they have been checked.
    #[must_use]
    pub fn knows(&self, txid: &TxId, bytes: &Bytes) -> bool {
        self.books.lock().waiting.get(txid).is_some_and(|waiting| waiting.checked.bytes == *bytes)
    }

    /// Whether somebody waits for this transaction, under whatever witnesses.
    #[must_use]
    pub fn waits(&self, txid: &TxId) -> bool {
        self.books.lock().waiting.contains_key(txid)
    }

    /// A transaction has its receipt.
    pub fn receipt(&self, receipt: &Receipt) {
        let mut books = self.books.lock();
        let Some(waiting) = books.waiting.remove(&receipt.txid) else { return };
        let event = v1::SubmitEvent::receipt(id_bytes(&receipt.txid), encoded(receipt));
        for waiter in waiting.waiters {
            waiter.reply.push(event.clone());
            if waiter.wants_applied {
                books.await_applied(receipt, waiter.reply);
            }
        }
    }

    /// A transaction was refused without a receipt.
    pub fn refuse(&self, txid: &TxId, reject: Reject, leader: Option<NodeId>) {
        let waiting = self.books.lock().waiting.remove(txid);
        for waiter in waiting.into_iter().flat_map(|waiting| waiting.waiters) {
            waiter.reply.push(refused(txid, reject, leader));
        }
    }

    /// A destination has taken everything of our stream below `next_seq`.
    pub fn taken(&self, dest: GroupId, next_seq: u64) {
        let mut books = self.books.lock();
        let known = books.taken.entry(dest).or_default();
        *known = (*known).max(next_seq);
        let Some(stream) = books.by_stream.get_mut(&dest) else { return };
        let later = stream.split_off(&next_seq);
        let done = std::mem::replace(stream, later);
        for id in done.into_values().flatten() {
            books.one_applied(id);
        }
    }

    /// This replica no longer leads: everybody is sent to the new leader, which knows what was
    /// committed and answers the same bytes with the same receipt.
    pub fn leadership_lost(&self, leader: Option<NodeId>) {
        let mut books = self.books.lock();
        // What destinations have taken stays true, and the next leader here needs it.
        let taken = std::mem::take(&mut books.taken);
        let old = std::mem::replace(&mut *books, Books { taken, ..Books::default() });
        drop(books);
        for (txid, waiting) in old.waiting {
            for waiter in waiting.waiters {
                waiter.reply.push(refused(&txid, Reject::NotLeader, leader));
            }
        }
        for unapplied in old.unapplied.into_values() {
            unapplied.reply.push(refused(&unapplied.txid, Reject::NotLeader, leader));
        }
    }

    /// Bytes of the transactions that have no fate yet.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of transactions somebody waits for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.books.lock().waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Books {
    fn await_applied(&mut self, receipt: &Receipt, reply: Arc<ReplyQueue>) {
        let Outcome::Committed { mail } = &receipt.outcome else { return };
        let open: Vec<(GroupId, u64)> =
            mail.iter().filter(|(dest, seq)| self.taken.get(dest).is_none_or(|taken| seq >= taken)).copied().collect();
        if open.is_empty() {
            reply.push(v1::SubmitEvent::applied(id_bytes(&receipt.txid)));
            return;
        }
        if reply.is_closed() || !self.asked.insert(asked(receipt.txid, &reply)) {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.unapplied.insert(id, Unapplied { txid: receipt.txid, remaining: open.len(), reply });
        for (dest, seq) in open {
            self.by_stream.entry(dest).or_default().entry(seq).or_default().push(id);
        }
    }

    fn one_applied(&mut self, id: u64) {
        let Some(unapplied) = self.unapplied.get_mut(&id) else { return };
        unapplied.remaining -= 1;
        if unapplied.remaining == 0
            && let Some(done) = self.unapplied.remove(&id)
        {
            self.asked.remove(&asked(done.txid, &done.reply));
            done.reply.push(v1::SubmitEvent::applied(id_bytes(&done.txid)));
        }
    }
}

/// A transaction that may be sequenced.
pub struct Checked {
    /// Its id.
    pub txid: TxId,
    /// As received.
    pub bytes: Bytes,
    /// What was verified: names the body and the witnesses.
    pub mark: Hash32,
}

/// Names a body together with its witnesses, for those who remember what they verified: the txid
/// alone does not cover the witnesses.
#[must_use]
pub fn verification_mark(tx: &ParsedTx) -> Hash32 {
    let witnesses = borsh::to_vec(&tx.witnesses).expect("writing to memory does not fail");
    ledger::hash::tagged(b"seamark/verified/v1", &[&tx.txid.0.0, &witnesses])
}

/// What became of one transaction of a round.
pub enum Judged {
    /// Verified now; it may be sequenced.
    Fresh(Checked),
    /// The very bytes are on their way and were verified when they came first. They were not verified
    /// now and must not be sequenced on their own.
    Riding(Checked),
    /// It has its receipt.
    Known(Checked, ReceiptPlace),
    /// Verified now, and probably refused by the machine without a trace.
    Doubtful(Checked),
    /// Refused. Without a decodable body there is no id.
    Refused(Option<TxId>, Reject),
}

/// Decodes, looks up and verifies a batch on all cores. `now` is the leader's guarded clock, to refuse
/// what no block would accept; without one that is left to the machine.
///
/// What `waiters` know byte for byte is on its way and was checked when it came first, and what has
/// its receipt was checked long ago: a router that repeats itself in an overload must not cost as much
/// again. The waiters are asked before the state is: who is not among them any more is in it.
#[must_use]
pub fn check(
    cluster: &ClusterId,
    now: Option<TimeMs>,
    txs: Vec<Bytes>,
    waiters: &Waiters,
    applied: &Applied,
) -> Vec<Judged> {
    let one = |bytes: Bytes| {
        let tx = match ParsedTx::decode(cluster, &bytes) {
            Ok(tx) => tx,
            Err(reject) => return Judged::Refused(None, reject),
        };
        let (txid, waiting) = (tx.txid, waiters.waits(&tx.txid));
        if waiting && waiters.knows(&txid, &bytes) {
            return Judged::Riding(Checked { txid, mark: Hash32::ZERO, bytes });
        }
        // What cannot be read will stop the group where it matters.
        let said = applied.look(&tx).unwrap_or(Said::Nothing);
        match said {
            Said::Receipt(place) => return Judged::Known(Checked { txid, mark: Hash32::ZERO, bytes }, place),
            Said::Over(reject) => return Judged::Refused(Some(txid), reject),
            Said::Doubtful | Said::Nothing => {}
        }
        if let Err(reject) = tx.verify_signatures() {
            return Judged::Refused(Some(txid), reject);
        }
        match now.map_or(Ok(()), |now| rules::check_time(&tx, now)) {
            // Past its deadline it may still have a receipt, which only the machine can tell.
            Ok(()) | Err(Reject::Expired | Reject::OutcomePruned) => {}
            Err(reject) => return Judged::Refused(Some(txid), reject),
        }
        let checked = Checked { txid, mark: verification_mark(&tx), bytes };
        // Beside a copy with other witnesses that has no fate yet, only the machine can judge.
        if matches!(said, Said::Doubtful) && !waiting { Judged::Doubtful(checked) } else { Judged::Fresh(checked) }
    };
    if txs.len() < PARALLEL_FROM {
        txs.into_iter().map(one).collect()
    } else {
        txs.into_par_iter().with_min_len(PARALLEL_FROM / 2).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::ids::Height;
    use v1::submit_event::Event;

    fn checked(text: &'static [u8]) -> Checked {
        Checked { txid: TxId(ledger::hash::sha256(text)), bytes: Bytes::from_static(text), mark: Hash32::ZERO }
    }

    fn receipt(txid: TxId, mail: Vec<(GroupId, u64)>) -> Receipt {
        Receipt {
            version: 1,
            txid,
            group: GroupId::shard(0),
            height: Height(3),
            index: 0,
            time_ms: TimeMs(9),
            outcome: Outcome::Committed { mail },
        }
    }

    async fn next(events: &mut tokio::sync::mpsc::Receiver<v1::SubmitEvents>) -> Vec<Event> {
        let batch = events.recv().await.expect("the queue is open");
        batch.events.into_iter().filter_map(|event| event.event).collect()
    }

    #[tokio::test]
    async fn applied_comes_after_the_receipt_and_only_when_every_credit_is_taken() {
        let (sink, mut events) = tokio::sync::mpsc::channel(8);
        let reply = ReplyQueue::new(sink);
        let waiters = Waiters::default();
        let tx = checked(b"tx");
        let txid = tx.txid;
        assert!(!waiters.wait(&tx, &reply, true));
        assert!(waiters.wait(&tx, &reply, false), "a second sender finds it on its way");
        assert!(waiters.knows(&txid, &tx.bytes));
        let other = Bytes::from_static(b"same body, other witnesses");
        assert!(!waiters.knows(&txid, &other), "other witnesses are checked on their own");
        assert!(!waiters.wait(&Checked { bytes: other, ..checked(b"tx") }, &reply, false));
        waiters.receipt(&receipt(txid, vec![(GroupId::shard(1), 4), (GroupId::shard(2), 0)]));
        let first = next(&mut events).await;
        assert_eq!(first.iter().filter(|event| matches!(event, Event::Receipt(_))).count(), first.len());
        waiters.taken(GroupId::shard(1), 5);
        waiters.taken(GroupId::shard(2), 0);
        assert!(waiters.is_empty());
        waiters.taken(GroupId::shard(2), 1);
        let mut seen = next(&mut events).await;
        while !seen.iter().any(|event| matches!(event, Event::Applied(_))) {
            seen = next(&mut events).await;
        }
        // What is known to be taken needs no waiting.
        assert!(!waiters.wait(&tx, &reply, true));
        waiters.receipt(&receipt(txid, vec![(GroupId::shard(1), 2)]));
        let mut both = next(&mut events).await;
        while both.len() < 2 {
            both.extend(next(&mut events).await);
        }
        assert!(matches!(both[..], [Event::Receipt(_), Event::Applied(_)]));
    }

    #[tokio::test]
    async fn a_stream_that_asks_again_is_told_once_that_it_is_applied() {
        let (sink, mut events) = tokio::sync::mpsc::channel(8);
        let reply = ReplyQueue::new(sink);
        let waiters = Waiters::default();
        let tx = checked(b"tx");
        let mail = vec![(GroupId::shard(1), 4)];
        for _ in 0..3 {
            assert!(!waiters.wait(&tx, &reply, true));
            waiters.receipt(&receipt(tx.txid, mail.clone()));
        }
        assert_eq!(waiters.books.lock().unapplied.len(), 1);
        waiters.taken(GroupId::shard(1), 5);
        assert_eq!((waiters.books.lock().unapplied.len(), waiters.books.lock().asked.len()), (0, 0));
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

    #[tokio::test]
    async fn a_lost_leadership_sends_everybody_to_the_next_leader() {
        let (sink, mut events) = tokio::sync::mpsc::channel(8);
        let reply = ReplyQueue::new(sink);
        let waiters = Waiters::default();
        let waiting = checked(b"waiting");
        waiters.wait(&waiting, &reply, false);
        waiters.leadership_lost(Some(NodeId(2)));
        let seen = next(&mut events).await;
        assert!(matches!(&seen[..], [Event::Refusal(refusal)] if refusal.leader_node == 2));
        assert!(!waiters.knows(&waiting.txid, &waiting.bytes));
    }

    #[tokio::test]
    async fn arrivals_are_bounded_in_number_and_in_bytes() {
        let (sink, _events) = tokio::sync::mpsc::channel(1);
        let reply = ReplyQueue::new(sink);
        let arrivals = Arrivals::default();
        let batch = |count: usize, tx: &Bytes| Arrived {
            txs: vec![tx.clone(); count],
            reply: Arc::clone(&reply),
            wants_applied: false,
        };
        let (small, large) = (Bytes::from_static(b"x"), Bytes::from(vec![7; 1 << 20]));
        for (full, tx) in [(INGEST_QUEUE_TXS, small), (ARRIVALS_BYTES_MAX >> 20, large)] {
            assert!(arrivals.push(batch(full, &tx)).is_ok());
            assert!(arrivals.push(batch(1, &tx)).is_err());
            assert_eq!(arrivals.take().await.len(), 1);
            assert!(arrivals.push(batch(1, &tx)).is_ok());
            assert_eq!(arrivals.take().await.len(), 1);
        }
    }

    #[tokio::test]
    async fn what_has_no_fate_yet_is_counted_in_bytes() {
        let (sink, _events) = tokio::sync::mpsc::channel(8);
        let reply = ReplyQueue::new(sink);
        let waiters = Waiters::default();
        let (one, two) = (checked(b"one"), checked(b"number two"));
        waiters.wait(&one, &reply, false);
        waiters.wait(&one, &reply, false);
        waiters.wait(&two, &reply, false);
        assert_eq!(waiters.bytes(), 13, "bytes that ride along cost nothing");
        waiters.refuse(&one.txid, Reject::Busy, None);
        assert_eq!(waiters.bytes(), 10);
        waiters.leadership_lost(None);
        assert_eq!(waiters.bytes(), 0);
    }
}

//! The way in for transactions: signatures are checked here, in parallel, before anything is
//! sequenced; and whoever waits for a transaction's fate is remembered here until it is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cross_shard::commit::Decision;
use hashbrown::{HashMap, HashSet};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, Height, NodeId, TimeMs, TxId};
use ledger::limits::{INGEST_QUEUE_TXS, RIVALS_MAX};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use ledger::rules;
use ledger::tx::{ParsedTx, SignedTx, Submission};
use parking_lot::Mutex;
use proto::v1;
use rayon::prelude::*;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::records::ReceiptPlace;
use crate::server::intake::Finding;
use crate::server::limits::ARRIVALS_BYTES_MAX;
use crate::server::replies::ReplyQueue;

/// Retry hint for a full queue.
const BUSY_RETRY_MS: u32 = 50;
/// Batches below this are checked on one thread.
const PARALLEL_FROM: usize = 8;
/// How long somebody who was told this group's vote, and has not asked again, is remembered. Routers
/// ask again every few seconds for as long as they wait, so whoever is silent this long is gone.
const SILENT_KEPT: Duration = Duration::from_secs(60);
/// Transactions checked in one round.
const ROUND_TXS: usize = 4096;

struct Waiter {
    reply: Arc<ReplyQueue>,
    wants_applied: bool,
}

/// The bytes that were checked and sequenced, and who sent them.
struct Sent {
    checked: Held,
    waiters: Vec<Waiter>,
}

/// What a group says of a transaction before its outcome is known.
#[derive(Clone, Copy)]
enum Said {
    /// It votes once another group has.
    Waits,
    Vote(v1::Vote),
}

/// Everybody who waits for one transaction. The txid does not cover the witnesses, so only the very
/// same bytes may rely on a check, and a refusal of some bytes is no news to those who sent others:
/// else anybody who has seen a body could spoil it. A receipt is for all.
struct Waiting {
    first: Sent,
    rivals: Vec<Sent>,
    /// What everybody here has been told so far, of a transaction that other groups vote on, too.
    said: Option<Said>,
    /// When somebody last asked.
    asked: Instant,
}

/// How a transaction waits for its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It is the first with these bytes and has to be sequenced.
    First,
    /// The very same bytes are on their way.
    Rides,
    /// It does not: as many others as may be wait with other witnesses over the same body.
    Crowded,
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
pub struct Waiters {
    group: GroupId,
    books: Mutex<Books>,
    bytes: Arc<AtomicUsize>,
}

/// A transaction's id as the wire carries it.
#[must_use]
pub fn id_bytes(txid: &TxId) -> Bytes {
    Bytes::copy_from_slice(&txid.0.0)
}

/// A refusal event; of these bytes only, or of whatever has this id.
#[must_use]
pub fn refused(txid: &TxId, bytes: Option<&Bytes>, reject: Reject, leader: Option<NodeId>) -> v1::SubmitEvent {
    let mut refusal = v1::Refusal::of(reject);
    if let Some(bytes) = bytes {
        refusal = refusal.of_bytes(bytes);
    }
    refusal.leader_node = leader.map_or(0, |node| node.0);
    if matches!(reject, Reject::Busy | Reject::PeerBusy) {
        refusal.retry_after_ms = BUSY_RETRY_MS;
    }
    v1::SubmitEvent::refused(id_bytes(txid), refusal)
}

/// The reason of a NO.
#[must_use]
pub fn decision_reason(decision: Decision) -> Option<Reject> {
    match decision {
        Decision::Yes => None,
        Decision::No(reason) => Some(reason),
    }
}

/// The id of a transaction that was taken as bytes, with or without openings.
#[must_use]
pub fn id_of(cluster: &ClusterId, bytes: &[u8]) -> Option<TxId> {
    let (signed, _) = Submission::split(bytes).ok()?;
    borsh::from_slice::<SignedTx>(&signed).ok().map(|tx| tx.txid(cluster))
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

impl Waiters {
    /// Nobody waits yet.
    #[must_use]
    pub fn of(group: GroupId) -> Self {
        Self { group, books: Mutex::default(), bytes: Arc::default() }
    }

    /// Remembers who waits. A sender that repeats itself is told once.
    pub fn wait(&self, tx: &Checked, reply: &Arc<ReplyQueue>, wants_applied: bool) -> Waits {
        let mut books = self.books.lock();
        let waiter = Waiter { reply: Arc::clone(reply), wants_applied };
        let sent = |waiter| Sent { checked: Held::new(tx.bytes.clone(), &self.bytes), waiters: vec![waiter] };
        let Some(waiting) = books.waiting.get_mut(&tx.txid) else {
            let waiting = Waiting { first: sent(waiter), rivals: Vec::new(), said: None, asked: Instant::now() };
            books.waiting.insert(tx.txid, waiting);
            return Waits::First;
        };
        waiting.asked = Instant::now();
        if let Some(said) = waiting.said {
            waiter.reply.push(self.event(&tx.txid, said));
        }
        if let Some(same) = waiting.sent_mut(&tx.bytes) {
            same.join(waiter);
            return Waits::Rides;
        }
        if waiting.rivals.len() == RIVALS_MAX {
            return Waits::Crowded;
        }
        waiting.rivals.push(sent(waiter));
        Waits::First
    }

    fn event(&self, txid: &TxId, said: Said) -> v1::SubmitEvent {
        match said {
            Said::Waits => v1::SubmitEvent::waits(id_bytes(txid)).by(self.group),
            Said::Vote(vote) => v1::SubmitEvent::vote(id_bytes(txid), vote),
        }
    }

    fn say(&self, txid: &TxId, said: Said) {
        let mut books = self.books.lock();
        let Some(waiting) = books.waiting.get_mut(txid) else { return };
        // A vote is written once, and nothing less is worth telling after it.
        if let Some(Said::Vote(_)) = waiting.said {
            return;
        }
        waiting.said = Some(said);
        let event = self.event(txid, said);
        for waiter in waiting.all() {
            waiter.reply.push(event.clone());
        }
    }

    /// Whether somebody waits for these very bytes, so that they have been checked.
    #[must_use]
    pub fn knows(&self, txid: &TxId, bytes: &Bytes) -> bool {
        self.books.lock().waiting.get_mut(txid).is_some_and(|waiting| waiting.sent_mut(bytes).is_some())
    }

    /// Whether somebody waits for this transaction, under whatever witnesses.
    #[must_use]
    pub fn has(&self, txid: &TxId) -> bool {
        self.books.lock().waiting.contains_key(txid)
    }

    /// A transaction has its receipt.
    pub fn receipt(&self, receipt: &Receipt) {
        let mut books = self.books.lock();
        let Some(waiting) = books.waiting.remove(&receipt.txid) else { return };
        let event = v1::SubmitEvent::receipt(id_bytes(&receipt.txid), encoded(receipt));
        for waiter in waiting.waiters() {
            waiter.reply.push(event.clone());
            if waiter.wants_applied {
                books.await_applied(self.group, receipt, waiter.reply);
            }
        }
    }

    /// This group voted on a transaction that other groups vote on, too. Whoever waits goes on
    /// waiting for the receipt that follows its outcome.
    pub fn vote(&self, txid: &TxId, decision: Decision, height: Option<Height>) {
        self.say(txid, Said::Vote(v1::Vote::of(self.group, decision_reason(decision), height)));
    }

    /// This group votes on a transaction once the vote of another group has come. Whoever waits goes
    /// on waiting.
    pub fn waits(&self, txid: &TxId) {
        self.say(txid, Said::Waits);
    }

    /// Forgets those who were told a vote long ago and have not asked since: an outcome may be as far
    /// away as the transaction's deadline, or never come.
    pub fn forget_silent(&self, now: Instant) {
        let silent = |waiting: &Waiting| waiting.said.is_some() && now > waiting.asked + SILENT_KEPT;
        self.books.lock().waiting.retain(|_, waiting| !silent(waiting));
    }

    /// These bytes were refused without a receipt. Who sent other witnesses goes on waiting, and so does
    /// whoever was told a vote: the group has voted all the same.
    pub fn refuse(&self, txid: &TxId, bytes: &Bytes, reject: Reject, leader: Option<NodeId>) {
        let mut books = self.books.lock();
        if let Some(Waiting { said: Some(Said::Vote(_)), .. }) = books.waiting.get(txid) {
            return;
        }
        let Some(refused_sent) = books.take_sent(txid, bytes) else { return };
        drop(books);
        let event = refused(txid, Some(bytes), reject, leader).by(self.group);
        for waiter in refused_sent.waiters {
            waiter.reply.push(event.clone());
        }
    }

    /// The fate of a transaction cannot be told, whatever its witnesses.
    pub fn refuse_all(&self, txid: &TxId, reject: Reject, leader: Option<NodeId>) {
        let waiting = self.books.lock().waiting.remove(txid);
        for waiter in waiting.into_iter().flat_map(Waiting::waiters) {
            waiter.reply.push(refused(txid, None, reject, leader).by(self.group));
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
            books.one_applied(self.group, id);
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
            for waiter in waiting.waiters() {
                waiter.reply.push(refused(&txid, None, Reject::NotLeader, leader).by(self.group));
            }
        }
        for unapplied in old.unapplied.into_values() {
            unapplied.reply.push(refused(&unapplied.txid, None, Reject::NotLeader, leader).by(self.group));
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

impl Waiting {
    fn sent_mut(&mut self, bytes: &Bytes) -> Option<&mut Sent> {
        std::iter::once(&mut self.first).chain(&mut self.rivals).find(|sent| sent.checked.bytes == *bytes)
    }

    fn all(&self) -> impl Iterator<Item = &Waiter> {
        std::iter::once(&self.first).chain(&self.rivals).flat_map(|sent| &sent.waiters)
    }

    fn waiters(self) -> impl Iterator<Item = Waiter> {
        std::iter::once(self.first).chain(self.rivals).flat_map(|sent| sent.waiters)
    }
}

impl Sent {
    fn join(&mut self, waiter: Waiter) {
        match self.waiters.iter_mut().find(|known| Arc::ptr_eq(&known.reply, &waiter.reply)) {
            Some(known) => known.wants_applied |= waiter.wants_applied,
            None => self.waiters.push(waiter),
        }
    }
}

impl Books {
    /// Those who wait for these bytes, who then wait no more.
    fn take_sent(&mut self, txid: &TxId, bytes: &Bytes) -> Option<Sent> {
        let waiting = self.waiting.get_mut(txid)?;
        if waiting.first.checked.bytes != *bytes {
            let at = waiting.rivals.iter().position(|sent| sent.checked.bytes == *bytes)?;
            return Some(waiting.rivals.remove(at));
        }
        if waiting.rivals.is_empty() {
            return self.waiting.remove(txid).map(|waiting| waiting.first);
        }
        let next = waiting.rivals.remove(0);
        Some(std::mem::replace(&mut waiting.first, next))
    }

    fn await_applied(&mut self, group: GroupId, receipt: &Receipt, reply: Arc<ReplyQueue>) {
        let Outcome::Committed { mail } = &receipt.outcome else { return };
        let open: Vec<(GroupId, u64)> =
            mail.iter().filter(|(dest, seq)| self.taken.get(dest).is_none_or(|taken| seq >= taken)).copied().collect();
        if open.is_empty() {
            reply.push(v1::SubmitEvent::applied(id_bytes(&receipt.txid)).by(group));
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

    fn one_applied(&mut self, group: GroupId, id: u64) {
        let Some(unapplied) = self.unapplied.get_mut(&id) else { return };
        unapplied.remaining -= 1;
        if unapplied.remaining == 0
            && let Some(done) = self.unapplied.remove(&id)
        {
            self.asked.remove(&asked(done.txid, &done.reply));
            done.reply.push(v1::SubmitEvent::applied(id_bytes(&done.txid)).by(group));
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

/// A transaction that may not be sequenced.
pub struct Unfit {
    /// Its id, unless its body does not decode.
    pub txid: Option<TxId>,
    /// As received.
    pub bytes: Bytes,
    /// Why.
    pub reject: Reject,
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
    /// Refused.
    Refused(Unfit),
}

/// Decodes, looks up and verifies a batch on all cores. `now` is the leader's guarded clock, to refuse
/// what no block would accept; without one that is left to the machine.
///
/// What `waiters` know byte for byte is on its way and was checked when it came first, and what has
/// its receipt was checked long ago: a router that repeats itself in an overload must not cost as much
/// again; `look` says what the applied state knows. The waiters are asked before the state is: who is
/// not among them any more is in it.
#[must_use]
pub fn check(
    cluster: &ClusterId,
    now: Option<TimeMs>,
    txs: Vec<Bytes>,
    waiters: &Waiters,
    look: impl Fn(&ParsedTx) -> Finding + Sync,
) -> Vec<Judged> {
    let one = |bytes: Bytes| {
        let tx = match ParsedTx::decode(cluster, &bytes) {
            Ok(tx) => tx,
            Err(reject) => return Judged::Refused(Unfit { txid: None, bytes, reject }),
        };
        let (txid, waiting) = (tx.txid, waiters.has(&tx.txid));
        if waiting && waiters.knows(&txid, &bytes) {
            return Judged::Riding(Checked { txid, mark: Hash32::ZERO, bytes });
        }
        let found = look(&tx);
        match found {
            Finding::Receipt(place) => return Judged::Known(Checked { txid, mark: Hash32::ZERO, bytes }, place),
            Finding::Over(reject) => return Judged::Refused(Unfit { txid: Some(txid), bytes, reject }),
            Finding::Doubtful | Finding::Nothing => {}
        }
        if let Err(reject) = tx.verify_signatures() {
            return Judged::Refused(Unfit { txid: Some(txid), bytes, reject });
        }
        match now.map_or(Ok(()), |now| rules::check_time(&tx, now)) {
            // Past its deadline it may still have a receipt, which only the machine can tell.
            Ok(()) | Err(Reject::Expired | Reject::OutcomePruned) => {}
            Err(reject) => return Judged::Refused(Unfit { txid: Some(txid), bytes, reject }),
        }
        let checked = Checked { txid, mark: verification_mark(&tx), bytes };
        // Beside a copy with other witnesses that has no fate yet, only the machine can judge.
        if matches!(found, Finding::Doubtful) && !waiting { Judged::Doubtful(checked) } else { Judged::Fresh(checked) }
    };
    if txs.len() < PARALLEL_FROM {
        txs.into_iter().map(one).collect()
    } else {
        txs.into_par_iter().with_min_len(PARALLEL_FROM / 2).map(one).collect()
    }
}

#[cfg(test)]
#[path = "ingest_tests.rs"]
mod several_groups;

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::ids::Height;
    use v1::submit_event::Event;

    pub(super) fn checked(text: &'static [u8]) -> Checked {
        Checked { txid: TxId(ledger::hash::sha256(text)), bytes: Bytes::from_static(text), mark: Hash32::ZERO }
    }

    pub(super) fn receipt(txid: TxId, mail: Vec<(GroupId, u64)>) -> Receipt {
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

    pub(super) async fn next(events: &mut tokio::sync::mpsc::Receiver<v1::SubmitEvents>) -> Vec<Event> {
        let batch = events.recv().await.expect("the queue is open");
        batch.events.into_iter().filter_map(|event| event.event).collect()
    }

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
}

//! Who waits for which transaction, until its fate is known and, where asked, applied.
//!
//! Owns the books of one group; they are volatile, and lost with the leadership. Whoever is not told asks
//! again with the same bytes. It never judges a transaction. Whom a channel does not admit any more waits no longer, and is
//! told nothing but that: what is about to be told asks the gate first.
//!
//! A credit is applied once its stream is taken that far. Of a stream that has ended with a shard at one of its ends, and of
//! one that a shard had which this one came from, only the state can tell: see [`Waiters::judge`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cross_shard::commit::Decision;
use hashbrown::{HashMap, HashSet};
use ledger::ids::{GroupId, Height, NodeId, TxId};
use ledger::limits::RIVALS_MAX;
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use parking_lot::Mutex;
use proto::v1;
use tokio::time::Instant;

use crate::server::ingest::{Checked, Gate, Sender, decision_reason, id_bytes, refused};
use crate::server::replies::ReplyQueue;

/// How long somebody who was told this group's vote, and has not asked again, is remembered. Routers
/// ask again every few seconds for as long as they wait, so whoever is silent this long is gone.
pub(super) const SILENT_KEPT: Duration = Duration::from_secs(60);

struct Waiter {
    reply: Arc<ReplyQueue>,
    wants_applied: bool,
    sender: Arc<Sender>,
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
    /// It does not: whoever sends it is not admitted any more, and was told so.
    Denied,
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

/// What the state says of a message in a stream that is written no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailFate {
    /// It was taken, where it was addressed first or where it was passed on to.
    Taken,
    /// Not yet, and so none behind it in the same stream.
    Waits,
    /// Another group has passed it on, and only that one will know.
    Elsewhere,
}

struct Unapplied {
    txid: TxId,
    remaining: usize,
    reply: Arc<ReplyQueue>,
    sender: Arc<Sender>,
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
    /// Shards that have ended: nobody takes a stream to one of them any more.
    retired: BTreeSet<GroupId>,
    /// As `by_stream`, of streams that are written no more: by whose they are, and where they went.
    ended: BTreeMap<(GroupId, GroupId), BTreeMap<u64, Vec<u64>>>,
    /// Somebody waits for one of these who has not been judged yet.
    fresh: bool,
    next_id: u64,
}

/// Who waits for which transaction of one group.
pub struct Waiters {
    group: GroupId,
    gate: Gate,
    books: Mutex<Books>,
    bytes: Arc<AtomicUsize>,
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

impl Waiters {
    /// Nobody waits yet, and everybody is told.
    #[must_use]
    pub fn of(group: GroupId) -> Self {
        Self::behind(Gate::open(), group)
    }

    /// Nobody waits yet; those are told whom the gate lets be.
    #[must_use]
    pub fn behind(gate: Gate, group: GroupId) -> Self {
        Self { group, gate, books: Mutex::default(), bytes: Arc::default() }
    }

    /// Remembers who waits. A sender that repeats itself is told once.
    pub fn wait(&self, tx: &Checked, reply: &Arc<ReplyQueue>, wants_applied: bool, sender: &Arc<Sender>) -> Waits {
        let mut books = self.books.lock();
        if let Some(refusal) = self.gate.denies(sender) {
            reply.push(self.denied(&tx.txid, refusal));
            return Waits::Denied;
        }
        let waiter = Waiter { reply: Arc::clone(reply), wants_applied, sender: Arc::clone(sender) };
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
        let waits_on = waiting.retain(|waiter| self.tell(&waiter.reply, &waiter.sender, || event.clone()));
        if !waits_on {
            books.waiting.remove(txid);
        }
    }

    fn denied(&self, txid: &TxId, refusal: v1::Refusal) -> v1::SubmitEvent {
        v1::SubmitEvent::refused(id_bytes(txid), refusal).by(self.group)
    }

    /// Tells somebody, or that it is not admitted any more; returns whether it is.
    fn tell(&self, reply: &ReplyQueue, sender: &Sender, event: impl FnOnce() -> v1::SubmitEvent) -> bool {
        let refusal = self.gate.ends(sender);
        let admitted = refusal.is_none();
        let event = match refusal {
            Some(refusal) => v1::SubmitEvent::refused(event().txid, refusal).by(self.group),
            None => event(),
        };
        reply.push(event);
        admitted
    }

    /// Answers somebody who does not wait.
    pub fn answer(&self, reply: &ReplyQueue, sender: &Sender, event: v1::SubmitEvent) {
        self.tell(reply, sender, || event);
    }

    /// Ends the waiting of all whom the newest state does not admit any more. They are told that, and nothing later.
    pub fn turn_away(&self) {
        if self.gate.is_open() {
            return;
        }
        let mut books = self.books.lock();
        let stays = |txid: &TxId, reply: &ReplyQueue, sender: &Sender| match self.gate.ends(sender) {
            None => true,
            Some(refusal) => {
                reply.push(self.denied(txid, refusal));
                false
            }
        };
        books.waiting.retain(|txid, waiting| waiting.retain(|waiter| stays(txid, &waiter.reply, &waiter.sender)));
        let applied = books.unapplied.iter();
        let gone: Vec<u64> =
            applied.filter(|(_, one)| !stays(&one.txid, &one.reply, &one.sender)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| books.forget(id));
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
            let told = self.tell(&waiter.reply, &waiter.sender, || event.clone());
            if told && waiter.wants_applied {
                books.await_applied(self.group, receipt, waiter);
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
            self.tell(&waiter.reply, &waiter.sender, || event.clone());
        }
    }

    /// The fate of a transaction cannot be told, whatever its witnesses.
    pub fn refuse_all(&self, txid: &TxId, reject: Reject, leader: Option<NodeId>) {
        let waiting = self.books.lock().waiting.remove(txid);
        for waiter in waiting.into_iter().flat_map(Waiting::waiters) {
            self.tell(&waiter.reply, &waiter.sender, || refused(txid, None, reject, leader).by(self.group));
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
            self.one_applied(&mut books, id);
        }
    }

    fn one_applied(&self, books: &mut Books, id: u64) {
        if let Some(done) = books.one_applied(id) {
            let event = || v1::SubmitEvent::applied(id_bytes(&done.txid)).by(self.group);
            self.tell(&done.reply, &done.sender, event);
        }
    }

    /// These shards have ended. How far their streams were taken is said no more; what was not taken goes on elsewhere.
    pub fn ended(&self, retired: impl IntoIterator<Item = GroupId>) {
        let mut books = self.books.lock();
        for dest in retired {
            if !books.retired.insert(dest) {
                continue;
            }
            books.taken.remove(&dest);
            if let Some(stream) = books.by_stream.remove(&dest).filter(|stream| !stream.is_empty()) {
                books.ended.insert((self.group, dest), stream);
                books.fresh = true;
            }
        }
    }

    /// Whether anybody waits for what only the state can tell; `fresh` if only of those counts who have not been judged yet.
    #[must_use]
    pub fn has_ended(&self, fresh: bool) -> bool {
        let books = self.books.lock();
        !books.ended.is_empty() && (books.fresh || !fresh)
    }

    /// Tells those who wait for streams that are written no more, by what `judge` says of each message: by whom it was
    /// written, to whom, and its number.
    pub fn judge(&self, mut judge: impl FnMut(GroupId, GroupId, u64) -> MailFate) {
        let mut books = self.books.lock();
        books.fresh = false;
        for ((source, dest), mut stream) in std::mem::take(&mut books.ended) {
            while let Some(first) = stream.first_entry() {
                match judge(source, dest, *first.key()) {
                    MailFate::Waits => break,
                    MailFate::Taken => first.remove().into_iter().for_each(|id| self.one_applied(&mut books, id)),
                    MailFate::Elsewhere => first.remove().into_iter().for_each(|id| books.forget(id)),
                }
            }
            if !stream.is_empty() {
                books.ended.insert((source, dest), stream);
            }
        }
    }

    /// This replica no longer leads: everybody is sent to the new leader, which knows what was
    /// committed and answers the same bytes with the same receipt.
    pub fn leadership_lost(&self, leader: Option<NodeId>) {
        let mut books = self.books.lock();
        // What destinations have taken stays true, and the next leader here needs it.
        let (taken, retired) = (std::mem::take(&mut books.taken), std::mem::take(&mut books.retired));
        let old = std::mem::replace(&mut *books, Books { taken, retired, ..Books::default() });
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

    /// Keeps those who are to go on waiting, and returns whether anybody does.
    fn retain(&mut self, mut keep: impl FnMut(&Waiter) -> bool) -> bool {
        let all = std::iter::once(&mut self.first).chain(&mut self.rivals);
        all.fold(false, |any, sent| {
            sent.waiters.retain(&mut keep);
            any || !sent.waiters.is_empty()
        })
    }

    fn waiters(self) -> impl Iterator<Item = Waiter> {
        std::iter::once(self.first).chain(self.rivals).flat_map(|sent| sent.waiters)
    }
}

impl Sent {
    fn join(&mut self, waiter: Waiter) {
        match self.waiters.iter_mut().find(|known| Arc::ptr_eq(&known.reply, &waiter.reply)) {
            // A stream is told once, and as whoever asked last over it.
            Some(known) => {
                known.wants_applied |= waiter.wants_applied;
                known.sender = waiter.sender;
            }
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

    /// Notes that somebody waits who was just told the receipt.
    fn await_applied(&mut self, group: GroupId, receipt: &Receipt, waiter: Waiter) {
        let Waiter { reply, sender, .. } = waiter;
        let Outcome::Committed { mail } = &receipt.outcome else { return };
        // The numbers in a receipt of a shard that this one came from are those of its streams.
        let writes = |books: &Self, dest: &GroupId| receipt.group == group && !books.retired.contains(dest);
        let known =
            |(dest, seq): &&(GroupId, u64)| writes(self, dest) && self.taken.get(dest).is_some_and(|taken| seq < taken);
        let open: Vec<(GroupId, u64)> = mail.iter().filter(|mark| !known(mark)).copied().collect();
        if open.is_empty() {
            reply.push(v1::SubmitEvent::applied(id_bytes(&receipt.txid)).by(group));
            return;
        }
        if reply.is_closed() || !self.asked.insert(asked(receipt.txid, &reply)) {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.unapplied.insert(id, Unapplied { txid: receipt.txid, remaining: open.len(), reply, sender });
        for (dest, seq) in open {
            let stream = match writes(self, &dest) {
                true => self.by_stream.entry(dest).or_default(),
                false => {
                    self.fresh = true;
                    self.ended.entry((receipt.group, dest)).or_default()
                }
            };
            stream.entry(seq).or_default().push(id);
        }
    }

    /// Nobody here will know.
    fn forget(&mut self, id: u64) {
        if let Some(unapplied) = self.unapplied.remove(&id) {
            self.asked.remove(&asked(unapplied.txid, &unapplied.reply));
        }
    }

    /// One more credit is taken; returns whom to tell when it was the last.
    fn one_applied(&mut self, id: u64) -> Option<Unapplied> {
        let unapplied = self.unapplied.get_mut(&id)?;
        unapplied.remaining -= 1;
        if unapplied.remaining > 0 {
            return None;
        }
        let done = self.unapplied.remove(&id)?;
        self.asked.remove(&asked(done.txid, &done.reply));
        Some(done)
    }
}

#[cfg(test)]
#[path = "waiters_tests.rs"]
mod tests;

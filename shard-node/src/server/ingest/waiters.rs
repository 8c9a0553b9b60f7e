//! Who waits for which transaction, until its fate is known and, where asked, applied.
//!
//! Owns the books of one group; they are volatile, and lost with the leadership. Whoever is not told asks
//! again with the same bytes. It never judges a transaction. Whom a channel does not admit any more waits no longer, and is
//! told nothing but that: what is about to be told asks the gate first.
//!
//! A credit is applied once its stream is taken that far. Of a stream that has ended with a shard at one of its ends, and of
//! one that a shard had which this one came from, only the state can tell: see [`Waiters::judge`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cross_shard::commit::Decision;
use ledger::ids::{GroupId, Height, NodeId, TxId};
use ledger::limits::{RIVALS_MAX, WAITING_BYTES_MAX};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use parking_lot::Mutex;
use proto::v1;
use tokio::time::Instant;

use crate::core::entry::{Command, Entry};
use crate::server::ingest::books::{Books, Held, Said, Sent, Waiter, Waiting};
use crate::server::ingest::{Checked, Gate, Sender, decision_reason, id_bytes, refused};
use crate::server::replies::ReplyQueue;

/// How long somebody who was told this group's vote, and has not asked again, is remembered. Routers
/// ask again every few seconds for as long as they wait, so whoever is silent this long is gone.
pub(super) const SILENT_KEPT: Duration = Duration::from_secs(60);
/// The same while there is no room for others: routers have missed two of their rounds.
pub(super) const SILENT_KEPT_FULL: Duration = Duration::from_secs(15);
/// Between two looks for people who are gone while there is no room: a look goes through all who wait.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(SILENT_KEPT_FULL.as_secs() < SILENT_KEPT.as_secs(), "others wait for it: patience is shorter");

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
        books.withdrawn.renew(&tx.bytes);
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
        books.withdrawn.said(txid);
        let Some(waiting) = books.waiting.get_mut(txid) else { return };
        // A vote is written once, and nothing less is worth telling after it.
        if let Some(Said::Vote(_)) = waiting.said {
            return;
        }
        waiting.said = Some(said);
        let event = self.event(txid, said);
        let tell = |waiter: &Waiter| self.tell(&waiter.reply, &waiter.sender, || event.clone());
        let waits_on = waiting.retain(|waiter| tell(waiter) && !waiter.reply.is_closed());
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

    /// Ends the waiting of all whom the newest state does not admit any more. They are told that, and nothing later. What they
    /// alone have sent is withdrawn.
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
        books.retain(Instant::now(), |txid, waiter| stays(txid, &waiter.reply, &waiter.sender));
        let applied = books.unapplied.iter();
        let gone: Vec<u64> =
            applied.filter(|(_, one)| !stays(&one.txid, &one.reply, &one.sender)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| books.forget(id));
    }

    /// An entry that is about to be proposed, without what was withdrawn. Whoever sent that was told so.
    #[must_use]
    pub fn without_withdrawn(&self, entry: Bytes) -> Bytes {
        let mut books = self.books.lock();
        if books.withdrawn.is_empty() {
            return entry;
        }
        let mut read = Entry::decode(&entry);
        let all = read.commands.len();
        let mut withdrawn = |tx: &[u8]| books.withdrawn.takes_out(tx);
        read.commands.retain(|command| !matches!(command, Command::Tx(tx) if withdrawn(tx)));
        if read.commands.len() == all { entry } else { Bytes::from(read.encode()) }
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
        books.withdrawn.said(&receipt.txid);
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

    /// Forgets those who were told a vote and have hung up, or were told so long ago and have not asked since: an outcome may
    /// be as far away as the transaction's deadline, or never come.
    pub fn forget_silent(&self, now: Instant) {
        let mut books = self.books.lock();
        books.forget_told(|waiting| now <= waiting.asked + SILENT_KEPT);
        // Whatever was on its way then has been proposed, or was lost.
        books.withdrawn.forget(now, SILENT_KEPT);
    }

    /// Whether so many bytes more may wait. Where there is no room, those who were told a vote and are gone are looked for first,
    /// now and then: what they have left must not keep others out. Clients of a router may be gone while its stream is not.
    #[must_use]
    pub fn has_room(&self, bytes: usize, now: Instant) -> bool {
        let fits = || self.bytes() + bytes <= WAITING_BYTES_MAX;
        if fits() {
            return true;
        }
        let mut books = self.books.lock();
        if books.looked.is_some_and(|last| now < last + LOOK_EVERY) {
            return false;
        }
        books.looked = Some(now);
        books.forget_told(|waiting| now <= waiting.asked + SILENT_KEPT_FULL);
        fits()
    }

    /// These bytes were refused without a receipt. Who sent other witnesses goes on waiting, and so does
    /// whoever was told a vote: the group has voted all the same.
    pub fn refuse(&self, txid: &TxId, bytes: &Bytes, reject: Reject, leader: Option<NodeId>) {
        let mut books = self.books.lock();
        books.withdrawn.takes_out(bytes);
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
        let waiting = {
            let mut books = self.books.lock();
            books.withdrawn.said(txid);
            books.waiting.remove(txid)
        };
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

#[cfg(test)]
#[path = "waiters_tests.rs"]
mod tests;

//! The books of who waits: by transaction and the very bytes that were sent, and by the mail that has to be taken.
//!
//! Owns what [`super::waiters`] looks up and changes under one lock. It tells nobody anything, except that all is applied
//! already to whoever was just told the receipt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use ledger::ids::{GroupId, TxId};
use ledger::receipt::{Outcome, Receipt};
use proto::v1;
use tokio::time::Instant;

use crate::server::ingest::withdrawn::Withdrawn;
use crate::server::ingest::{Sender, id_bytes};
use crate::server::replies::ReplyQueue;

/// Somebody who waits, over a stream.
pub(super) struct Waiter {
    pub(super) reply: Arc<ReplyQueue>,
    pub(super) wants_applied: bool,
    pub(super) sender: Arc<Sender>,
}

/// The bytes that were checked and sequenced, and who sent them.
pub(super) struct Sent {
    pub(super) checked: Held,
    pub(super) waiters: Vec<Waiter>,
}

/// What a group says of a transaction before its outcome is known.
#[derive(Clone, Copy)]
pub(super) enum Said {
    /// It votes once another group has.
    Waits,
    Vote(v1::Vote),
}

/// Everybody who waits for one transaction. The txid does not cover the witnesses, so only the very
/// same bytes may rely on a check, and a refusal of some bytes is no news to those who sent others:
/// else anybody who has seen a body could spoil it. A receipt is for all.
pub(super) struct Waiting {
    pub(super) first: Sent,
    pub(super) rivals: Vec<Sent>,
    /// What everybody here has been told so far, of a transaction that other groups vote on, too.
    pub(super) said: Option<Said>,
    /// When somebody last asked.
    pub(super) asked: Instant,
}

/// Bytes that count for as long as they are held.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) total: Arc<AtomicUsize>,
}

impl Held {
    pub(super) fn new(bytes: Bytes, total: &Arc<AtomicUsize>) -> Self {
        total.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, total: Arc::clone(total) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Somebody who has the receipt, and waits for what it mailed to be taken.
pub(super) struct Unapplied {
    pub(super) txid: TxId,
    pub(super) remaining: usize,
    pub(super) reply: Arc<ReplyQueue>,
    pub(super) sender: Arc<Sender>,
}

/// Who asked when which transaction is applied, by the address of its queue, which the record keeps
/// alive: a stream that asks again is told once.
pub(super) type Asked = (TxId, usize);

pub(super) fn asked(txid: TxId, reply: &Arc<ReplyQueue>) -> Asked {
    (txid, Arc::as_ptr(reply).addr())
}

#[derive(Default)]
pub(super) struct Books {
    pub(super) waiting: HashMap<TxId, Waiting>,
    pub(super) unapplied: HashMap<u64, Unapplied>,
    pub(super) asked: HashSet<Asked>,
    pub(super) by_stream: HashMap<GroupId, BTreeMap<u64, Vec<u64>>>,
    pub(super) taken: HashMap<GroupId, u64>,
    /// Shards that have ended: nobody takes a stream to one of them any more.
    pub(super) retired: BTreeSet<GroupId>,
    /// As `by_stream`, of streams that are written no more: by whose they are, and where they went.
    pub(super) ended: BTreeMap<(GroupId, GroupId), BTreeMap<u64, Vec<u64>>>,
    /// Somebody waits for one of these who has not been judged yet.
    pub(super) fresh: bool,
    pub(super) next_id: u64,
    /// What was on its way when all who sent it were turned away.
    pub(super) withdrawn: Withdrawn,
    /// When those who are gone were looked for last, for want of room.
    pub(super) looked: Option<Instant>,
}

impl Waiting {
    pub(super) fn sent_mut(&mut self, bytes: &Bytes) -> Option<&mut Sent> {
        std::iter::once(&mut self.first).chain(&mut self.rivals).find(|sent| sent.checked.bytes == *bytes)
    }

    /// Keeps those who are to go on waiting, and returns whether anybody does.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Waiter) -> bool) -> bool {
        let all = std::iter::once(&mut self.first).chain(&mut self.rivals);
        all.fold(false, |any, sent| {
            sent.waiters.retain(&mut keep);
            any || !sent.waiters.is_empty()
        })
    }

    /// Takes out what nobody waits for any more. As long as there is something else, that takes the first place.
    pub(super) fn take_deserted(&mut self) -> Vec<Sent> {
        let rivals = std::mem::take(&mut self.rivals);
        let (mut deserted, rivals): (Vec<Sent>, Vec<Sent>) =
            rivals.into_iter().partition(|sent| sent.waiters.is_empty());
        self.rivals = rivals;
        if self.first.waiters.is_empty() && !self.rivals.is_empty() {
            let next = self.rivals.remove(0);
            deserted.push(std::mem::replace(&mut self.first, next));
        }
        deserted
    }

    pub(super) fn waiters(self) -> impl Iterator<Item = Waiter> {
        std::iter::once(self.first).chain(self.rivals).flat_map(|sent| sent.waiters)
    }
}

impl Sent {
    pub(super) fn join(&mut self, waiter: Waiter) {
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
    pub(super) fn take_sent(&mut self, txid: &TxId, bytes: &Bytes) -> Option<Sent> {
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

    /// Keeps those who are to go on waiting for a fate. What nobody waits for after that is withdrawn, as of `now`.
    pub(super) fn retain(&mut self, now: Instant, mut keep: impl FnMut(&TxId, &Waiter) -> bool) {
        let mut deserted = Vec::new();
        let mut gone = Vec::new();
        for (txid, waiting) in &mut self.waiting {
            if !waiting.retain(|waiter| keep(txid, waiter)) {
                gone.push(*txid);
            }
            deserted.extend(waiting.take_deserted().into_iter().map(|sent| (*txid, sent)));
        }
        for txid in gone {
            deserted.extend(self.waiting.remove(&txid).map(|waiting| (txid, waiting.first)));
        }
        for (txid, sent) in deserted {
            self.withdrawn.add(txid, sent.checked, now);
        }
    }

    /// Forgets those who were told what the group says so far and have hung up, and all who wait for such a transaction that is
    /// not to be kept. What nobody was told of yet stays: it is on its way, and its fate is certain to come.
    pub(super) fn forget_told(&mut self, mut keep: impl FnMut(&Waiting) -> bool) {
        self.waiting.retain(|_, waiting| {
            waiting.said.is_none() || (keep(waiting) && waiting.retain(|waiter| !waiter.reply.is_closed()))
        });
    }

    /// Notes that somebody waits who was just told the receipt.
    pub(super) fn await_applied(&mut self, group: GroupId, receipt: &Receipt, waiter: Waiter) {
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
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(unapplied) = self.unapplied.remove(&id) {
            self.asked.remove(&asked(unapplied.txid, &unapplied.reply));
        }
    }

    /// One more credit is taken; returns whom to tell when it was the last.
    pub(super) fn one_applied(&mut self, id: u64) -> Option<Unapplied> {
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

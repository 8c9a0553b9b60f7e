//! Every transaction that has no fate yet: who waits for it, where it went, and until when.
//!
//! A synchronous state machine under one lock, taken once for each batch. It never waits and never
//! decodes a transaction twice. The txid is the key: several streams that send the same transaction
//! share one flight and hear the same fate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use ledger::limits::{BATCH_BYTES_MAX, BATCH_TXS_MAX};
use ledger::tx::ParsedTx;
use ledger::{GroupId, NodeId, Receipt, Reject, TxId};
use proto::v1::submit_event::Event;
use proto::{edge, v1};

use super::GatewayLimits;
use super::backend::{Backend, IngestError};
use super::outbox::Outbox;
use super::route::{Route, Verdict};
use super::view::ClusterView;
use crate::plan::plan;

/// Different witnesses over one body that may wait behind each other.
const RIVALS_MAX: usize = 4;

/// Bytes of all transactions that flights hold. The bytes are the flights' own: what a message
/// brought shares its buffer, and one transaction would keep all of it.
#[derive(Default)]
struct Held(Arc<AtomicUsize>);

impl Held {
    fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn hold(&self, bytes: &Bytes) -> HeldTx {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        HeldTx { bytes: Bytes::copy_from_slice(bytes), total: Arc::clone(&self.0) }
    }
}

/// A transaction that counts for as long as it is held.
struct HeldTx {
    bytes: Bytes,
    total: Arc<AtomicUsize>,
}

impl Drop for HeldTx {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// What a step goes by.
pub(super) struct Step<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) backend: &'a dyn Backend,
    pub(super) limits: &'a GatewayLimits,
    pub(super) now: Instant,
}

/// A decoded and planned transaction of a client.
pub(super) struct Planned {
    pub(super) txid: TxId,
    pub(super) group: GroupId,
    pub(super) bytes: Bytes,
}

struct Waiter {
    outbox: Arc<Outbox>,
    applied: bool,
}

/// Other bytes for the same txid: another set of witnesses over the same body. They are tried after
/// the ones before were refused, so that nobody can spoil a transaction by sending it with a bad
/// signature first.
struct Rival {
    tx: HeldTx,
    waiters: Vec<Waiter>,
}

struct Flight {
    tx: HeldTx,
    group: GroupId,
    /// Where it is; `None` while it waits for a leader.
    node: Option<NodeId>,
    sent_at: Instant,
    deadline: Instant,
    notify_applied: bool,
    /// Told to wait for a new layout.
    replan: bool,
    /// It was sent, and not answered for certain: a link was lost, a leader was silent or lost its
    /// leadership. What was sent may have executed, or may yet.
    open: bool,
    /// Known, and only `applied` is missing.
    receipt: Option<Bytes>,
    waiters: Vec<Waiter>,
    rivals: Vec<Rival>,
}

/// All flights of a gateway.
#[derive(Default)]
pub(super) struct Flights {
    all: HashMap<TxId, Flight>,
    held: Held,
    routes: BTreeMap<GroupId, Route>,
    /// When to look at flights again, in order.
    checks: VecDeque<(Instant, Vec<TxId>)>,
    /// Outboxes with new events, to be rung at the end of the step.
    touched: Vec<Arc<Outbox>>,
}

impl Flights {
    /// Takes planned transactions of one stream.
    pub(super) fn accept(&mut self, step: &Step<'_>, outbox: &Arc<Outbox>, txs: Vec<Planned>, applied: bool) {
        let mut fresh: BTreeMap<GroupId, Vec<TxId>> = BTreeMap::new();
        let mut checked = Vec::with_capacity(txs.len());
        for tx in txs {
            let (txid, group) = (tx.txid, tx.group);
            if self.admit(step, outbox, tx, applied) {
                fresh.entry(group).or_default().push(txid);
                checked.push(txid);
            }
        }
        if !checked.is_empty() {
            self.checks.push_back((step.now + step.limits.check_every(), checked));
        }
        for (group, txids) in fresh {
            self.dispatch(step, group, txids);
        }
        self.ring();
    }

    /// Whether the transaction has to be sent.
    fn admit(&mut self, step: &Step<'_>, outbox: &Arc<Outbox>, tx: Planned, applied: bool) -> bool {
        let full = |touched: &mut Vec<Arc<Outbox>>, reject| {
            let refusal = v1::Refusal::of(reject).retry_after_ms(step.limits.busy_retry_ms);
            let detail = "the router has too many transactions in flight";
            outbox.push_uncounted(v1::SubmitEvent::refused(edge::bytes_of(&tx.txid), refusal.detail(detail)));
            touch(touched, outbox);
            false
        };
        let heavy = self.held.total() + tx.bytes.len() > step.limits.in_flight_bytes_max;
        let crowded = heavy || self.all.len() >= step.limits.in_flight_max;
        match self.all.entry(tx.txid) {
            Entry::Occupied(mut entry) => {
                let flight = entry.get_mut();
                if flight.waits(outbox) {
                    return flight.upgrade(outbox, applied);
                }
                // What another stream has sent may execute: `busy` would say that nothing can.
                if !outbox.admit(step.limits.stream_in_flight_max) {
                    return full(&mut self.touched, Reject::TooLate);
                }
                let waiter = Waiter { outbox: outbox.clone(), applied };
                match flight.join(tx, waiter, &self.held, heavy) {
                    Joined::Waits { resend } => resend,
                    Joined::Told => {
                        touch(&mut self.touched, outbox);
                        false
                    }
                    Joined::Crowded => {
                        let refusal = v1::Refusal::of(Reject::TooLate).retry_after_ms(step.limits.busy_retry_ms);
                        outbox.push(v1::SubmitEvent::refused(edge::bytes_of(entry.key()), refusal), true);
                        touch(&mut self.touched, outbox);
                        false
                    }
                }
            }
            Entry::Vacant(entry) => {
                if crowded || !outbox.admit(step.limits.stream_in_flight_max) {
                    return full(&mut self.touched, Reject::Busy);
                }
                entry.insert(Flight {
                    tx: self.held.hold(&tx.bytes),
                    group: tx.group,
                    node: None,
                    sent_at: step.now,
                    deadline: step.now + step.limits.receipt_within,
                    notify_applied: applied,
                    replan: false,
                    open: false,
                    receipt: None,
                    waiters: vec![Waiter { outbox: outbox.clone(), applied }],
                    rivals: Vec::new(),
                });
                true
            }
        }
    }

    /// Sends flights of one group to its leader, or keeps them until there is one.
    fn dispatch(&mut self, step: &Step<'_>, group: GroupId, txids: Vec<TxId>) {
        let route = self.routes.entry(group).or_default();
        if route.closed() {
            self.hold(group, txids);
            return;
        }
        let mut txids = if route.waiting.is_empty() {
            txids
        } else {
            let mut all = std::mem::take(&mut route.waiting);
            all.extend(txids);
            // Some may have been answered by the former leader in the meantime.
            all.retain(|txid| self.all.contains_key(txid));
            all
        };
        if txids.is_empty() {
            return;
        }
        let attempts = step.view.committees.get(&group).map_or(1, |committee| committee.members.len());
        for _ in 0..attempts {
            let Some(target) = route.target(group, step.view) else {
                break;
            };
            let count = txids.len().min(route.allowance());
            match send(&mut self.all, step, group, target, &txids[..count]) {
                Ok(()) => {
                    route.sent(step.now);
                    let later = txids.split_off(count);
                    self.hold(group, later);
                    return;
                }
                Err(IngestError::Full) => break,
                Err(IngestError::Down) => route.lost(target, step.now),
            }
        }
        route.pause(step.now);
        self.hold(group, txids);
    }

    fn hold(&mut self, group: GroupId, txids: Vec<TxId>) {
        for txid in &txids {
            if let Some(flight) = self.all.get_mut(txid) {
                flight.node = None;
            }
        }
        self.routes.entry(group).or_default().waiting.extend(txids);
    }

    /// Takes events of a node.
    pub(super) fn events(&mut self, step: &Step<'_>, node: NodeId, events: Vec<v1::SubmitEvent>) {
        let mut again: BTreeMap<GroupId, Vec<TxId>> = BTreeMap::new();
        for v1::SubmitEvent { txid, event } in events {
            let Ok(id) = edge::txid("txid", &txid) else {
                continue;
            };
            match event {
                Some(Event::Receipt(receipt)) => self.receipt(step, node, id, txid, receipt),
                Some(Event::Applied(_)) => self.applied(id, &txid),
                Some(Event::Refusal(refusal)) => {
                    if let Some(group) = self.refusal(step, node, id, txid, refusal) {
                        again.entry(group).or_default().push(id);
                    }
                }
                None => {}
            }
        }
        for (group, txids) in again {
            self.dispatch(step, group, txids);
        }
        self.ring();
    }

    fn receipt(&mut self, step: &Step<'_>, node: NodeId, id: TxId, txid: Bytes, receipt: Bytes) {
        let Entry::Occupied(mut entry) = self.all.entry(id) else {
            return;
        };
        let flight = entry.get_mut();
        if let Some(route) = self.routes.get_mut(&flight.group) {
            route.works(node, step.now);
        }
        if flight.receipt.is_some() {
            return;
        }
        let more = flight.notify_applied
            && edge::value::<Receipt>("receipt", &receipt).is_ok_and(|receipt| receipt.committed());
        let rivals = std::mem::take(&mut flight.rivals);
        flight.waiters.extend(rivals.into_iter().flat_map(|rival| rival.waiters));
        let event = v1::SubmitEvent::receipt(txid, receipt.clone());
        for waiter in &flight.waiters {
            waiter.outbox.push(event.clone(), !(more && waiter.applied));
            touch(&mut self.touched, &waiter.outbox);
        }
        flight.waiters.retain(|waiter| more && waiter.applied);
        if flight.waiters.is_empty() {
            entry.remove();
        } else {
            flight.receipt = Some(receipt);
            flight.deadline = step.now + step.limits.applied_within;
        }
    }

    fn applied(&mut self, id: TxId, txid: &Bytes) {
        let Entry::Occupied(entry) = self.all.entry(id) else {
            return;
        };
        // Without the receipt it is not news yet: the flight is sent again and both will come.
        if entry.get().receipt.is_none() {
            return;
        }
        for waiter in entry.remove().waiters {
            waiter.outbox.push(v1::SubmitEvent::applied(txid.clone()), true);
            touch(&mut self.touched, &waiter.outbox);
        }
    }

    /// Returns the group when the flight is to be sent again now.
    fn refusal(
        &mut self,
        step: &Step<'_>,
        node: NodeId,
        id: TxId,
        txid: Bytes,
        refusal: v1::Refusal,
    ) -> Option<GroupId> {
        let flight = self.all.get_mut(&id)?;
        let group = flight.group;
        // An answer of a node it is no longer with changes nothing: the one it is with will answer.
        if flight.node != Some(node) {
            return None;
        }
        let route = self.routes.entry(group).or_default();
        match refusal.reject() {
            Some(Reject::NotLeader | Reject::GroupStopped | Reject::UnknownGroup) => {
                // It may come from a leader that had taken it and was lost.
                flight.open = true;
                let hint = Some(NodeId(refusal.leader_node)).filter(|hint| step.view.nodes.contains_key(hint));
                match route.not_leader(node, hint, step.now) {
                    Verdict::Send => Some(group),
                    Verdict::Wait => {
                        self.hold(group, vec![id]);
                        None
                    }
                }
            }
            Some(Reject::WrongShard) => {
                flight.replan = true;
                route.works(node, step.now);
                route.pause(step.now);
                self.hold(group, vec![id]);
                None
            }
            // With a receipt the fate is known; a busy leader only delays `applied`, and the next
            // check asks again.
            _ if flight.receipt.is_some() => None,
            // A queue was full now; what was sent before may have been taken.
            Some(Reject::Busy) if flight.open => {
                route.works(node, step.now);
                let late = v1::Refusal::of(Reject::TooLate).retry_after_ms(refusal.retry_after_ms);
                let detail = "its group is busy, and an earlier attempt may have executed";
                self.refused(step, id, txid, late.detail(detail))
            }
            _ => {
                route.works(node, step.now);
                self.refused(step, id, txid, refusal)
            }
        }
    }

    /// A refusal for good. The next rival, if there is one, takes the place of what was refused.
    fn refused(&mut self, step: &Step<'_>, id: TxId, txid: Bytes, refusal: v1::Refusal) -> Option<GroupId> {
        let Entry::Occupied(mut entry) = self.all.entry(id) else {
            return None;
        };
        let event = v1::SubmitEvent::refused(txid, refusal);
        for waiter in std::mem::take(&mut entry.get_mut().waiters) {
            waiter.outbox.push(event.clone(), true);
            touch(&mut self.touched, &waiter.outbox);
        }
        if entry.get().rivals.is_empty() {
            entry.remove();
            return None;
        }
        let flight = entry.get_mut();
        let next = flight.rivals.remove(0);
        flight.tx = next.tx;
        flight.waiters = next.waiters;
        // The txid is the same: what was open about it stays open.
        flight.notify_applied = flight.waiters.iter().any(|waiter| waiter.applied);
        flight.deadline = step.now + step.limits.receipt_within;
        Some(flight.group)
    }

    /// The link to a node is gone: what was there goes to another member.
    pub(super) fn link_lost(&mut self, step: &Step<'_>, node: NodeId) {
        for route in self.routes.values_mut() {
            route.lost(node, step.now);
        }
        let mut again: BTreeMap<GroupId, Vec<TxId>> = BTreeMap::new();
        for (txid, flight) in &mut self.all {
            if flight.node == Some(node) {
                flight.node = None;
                flight.open = true;
                again.entry(flight.group).or_default().push(*txid);
            }
        }
        for (group, txids) in again {
            self.dispatch(step, group, txids);
        }
        self.ring();
    }

    /// Looks at what is due: pauses that are over, flights without an answer, deadlines.
    pub(super) fn tick(&mut self, step: &Step<'_>) {
        let mut ready: Vec<TxId> = Vec::new();
        for (group, route) in &mut self.routes {
            if route.ready(*group, step.view, step.now) {
                ready.append(&mut route.waiting);
            }
        }
        let mut again: BTreeMap<GroupId, Vec<TxId>> = BTreeMap::new();
        for txid in ready {
            if let Some(group) = self.replan(step, txid) {
                again.entry(group).or_default().push(txid);
            }
        }
        self.check(step, &mut again);
        for (group, txids) in again {
            self.dispatch(step, group, txids);
        }
        self.ring();
    }

    /// The group of a flight, found anew when its shard said that it is not the one.
    fn replan(&mut self, step: &Step<'_>, txid: TxId) -> Option<GroupId> {
        let flight = self.all.get_mut(&txid)?;
        if flight.node.is_some() {
            return None;
        }
        if flight.replan {
            flight.replan = false;
            match ParsedTx::decode(&step.view.cluster, &flight.tx.bytes).and_then(|tx| plan(&step.view.layout, &tx)) {
                Ok(group) => flight.group = group,
                Err(reject) => {
                    return self.refused(step, txid, edge::bytes_of(&txid), v1::Refusal::of(reject));
                }
            }
        }
        Some(flight.group)
    }

    fn check(&mut self, step: &Step<'_>, again: &mut BTreeMap<GroupId, Vec<TxId>>) {
        while self.checks.front().is_some_and(|(at, _)| *at <= step.now) {
            let Some((_, txids)) = self.checks.pop_front() else {
                return;
            };
            let mut remain = Vec::new();
            for txid in txids {
                let Some(flight) = self.all.get_mut(&txid) else {
                    continue;
                };
                if step.now >= flight.deadline {
                    self.too_late(txid);
                    continue;
                }
                remain.push(txid);
                if flight.node.is_some() && step.now >= flight.sent_at + step.limits.resend_after {
                    flight.open = true;
                    again.entry(flight.group).or_default().push(txid);
                }
            }
            if !remain.is_empty() {
                self.checks.push_back((step.now + step.limits.check_every(), remain));
            }
        }
    }

    fn too_late(&mut self, id: TxId) {
        let Some(flight) = self.all.remove(&id) else {
            return;
        };
        let detail = if flight.receipt.is_some() {
            "the transaction is committed, but its credits were not confirmed in time"
        } else {
            "no leader of its group answered in time"
        };
        let refusal = v1::Refusal::of(Reject::TooLate).detail(detail);
        let event = v1::SubmitEvent::refused(edge::bytes_of(&id), refusal);
        let rivals = flight.rivals.into_iter().flat_map(|rival| rival.waiters);
        for waiter in flight.waiters.into_iter().chain(rivals) {
            waiter.outbox.push(event.clone(), true);
            touch(&mut self.touched, &waiter.outbox);
        }
    }

    fn ring(&mut self) {
        for outbox in self.touched.drain(..) {
            outbox.ring();
        }
    }
}

/// Marks an outbox for ringing. Events of one stream come in runs, so the last one is the likeliest.
fn touch(touched: &mut Vec<Arc<Outbox>>, outbox: &Arc<Outbox>) {
    if !touched.iter().rev().any(|known| Arc::ptr_eq(known, outbox)) {
        touched.push(outbox.clone());
    }
}

/// Hands flights to a node in batches and notes where they are.
fn send(
    all: &mut HashMap<TxId, Flight>,
    step: &Step<'_>,
    group: GroupId,
    node: NodeId,
    txids: &[TxId],
) -> Result<(), IngestError> {
    let mut batches: [Vec<Bytes>; 2] = [Vec::with_capacity(txids.len()), Vec::new()];
    let mut sizes = [0usize; 2];
    for txid in txids {
        let Some(flight) = all.get_mut(txid) else {
            continue;
        };
        // Noted before it is sent: when the node turns out to be down, the caller overwrites it.
        flight.node = Some(node);
        flight.sent_at = step.now;
        let kind = usize::from(flight.notify_applied);
        if batches[kind].len() == BATCH_TXS_MAX || sizes[kind] + flight.tx.bytes.len() > BATCH_BYTES_MAX {
            flush(step, group, node, kind, &mut batches)?;
            sizes[kind] = 0;
        }
        sizes[kind] += flight.tx.bytes.len();
        batches[kind].push(flight.tx.bytes.clone());
    }
    flush(step, group, node, 0, &mut batches)?;
    flush(step, group, node, 1, &mut batches)
}

fn flush(
    step: &Step<'_>,
    group: GroupId,
    node: NodeId,
    kind: usize,
    batches: &mut [Vec<Bytes>; 2],
) -> Result<(), IngestError> {
    let txs = std::mem::take(&mut batches[kind]);
    if txs.is_empty() {
        return Ok(());
    }
    step.backend.ingest(node, v1::IngestBatch { group: group.0, txs, notify_applied: kind == 1 })
}

enum Joined {
    /// Will be told; `resend` when the leader has to hear that `applied` is wanted.
    Waits { resend: bool },
    /// The fate was known.
    Told,
    /// Too many rivals.
    Crowded,
}

impl Flight {
    fn waits(&self, outbox: &Arc<Outbox>) -> bool {
        let rivals = self.rivals.iter().flat_map(|rival| &rival.waiters);
        self.waiters.iter().chain(rivals).any(|waiter| Arc::ptr_eq(&waiter.outbox, outbox))
    }

    /// The same stream sends it again: one fate, but it may now want `applied`.
    fn upgrade(&mut self, outbox: &Arc<Outbox>, applied: bool) -> bool {
        for waiter in &mut self.waiters {
            if Arc::ptr_eq(&waiter.outbox, outbox) {
                waiter.applied |= applied;
            }
        }
        applied && !std::mem::replace(&mut self.notify_applied, true)
    }

    fn join(&mut self, tx: Planned, waiter: Waiter, held: &Held, heavy: bool) -> Joined {
        if let Some(receipt) = &self.receipt {
            let event = v1::SubmitEvent::receipt(edge::bytes_of(&tx.txid), receipt.clone());
            waiter.outbox.push(event, !waiter.applied);
            if waiter.applied {
                self.waiters.push(waiter);
            }
            return Joined::Told;
        }
        if self.tx.bytes == tx.bytes {
            let resend = waiter.applied && !std::mem::replace(&mut self.notify_applied, true);
            self.waiters.push(waiter);
            return Joined::Waits { resend };
        }
        if let Some(rival) = self.rivals.iter_mut().find(|rival| rival.tx.bytes == tx.bytes) {
            rival.waiters.push(waiter);
        } else if self.rivals.len() < RIVALS_MAX && !heavy {
            self.rivals.push(Rival { tx: held.hold(&tx.bytes), waiters: vec![waiter] });
        } else {
            return Joined::Crowded;
        }
        Joined::Waits { resend: false }
    }
}

impl GatewayLimits {
    /// How often a flight is looked at: often enough for its deadline and for sending it again.
    fn check_every(&self) -> Duration {
        (self.resend_after / 2).min(self.receipt_within / 2).max(Duration::from_millis(10))
    }
}

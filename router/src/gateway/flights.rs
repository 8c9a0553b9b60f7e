//! Every transaction that has no fate yet: who waits for it, where it went, and until when.
//!
//! A synchronous state machine under one lock, taken once for each batch. It never waits and never
//! decodes a transaction twice. The txid is the key: several streams that send the same transaction
//! share one flight and hear the same fate. A transaction that several groups vote on is handed to
//! each of them, and each hand-over goes its own way: to the group's leader, to the next one when
//! that is lost, again when nobody answers. What follows from the answers is in [`super::ballot`].
//!
//! A shard that is cut or joined takes nothing for a moment. What it refuses then is kept here, and goes to the same shard
//! when it goes on, or to those that came from it; nobody outside is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use ledger::limits::{BATCH_BYTES_MAX, BATCH_TXS_MAX};
use ledger::tx::ParsedTx;
use ledger::{GroupId, GroupKind, LayoutVersion, NodeId, Receipt, Reject, TxId};
use proto::v1::submit_event::Event;
use proto::{edge, v1};
use tokio::time::Instant;

use super::GatewayLimits;
use super::backend::{Backend, IngestError};
use super::ballot::{Ballot, Conclusion};
use super::flight::{Course, Flight, Joined, Planned, Waiter};
use super::outbox::Outbox;
use super::route::{Route, Verdict};
use super::shares::{Amount, Shares};
use super::view::ClusterView;
use crate::plan::Plan;

/// What a step goes by.
pub(super) struct Step<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) backend: &'a dyn Backend,
    pub(super) limits: &'a GatewayLimits,
    pub(super) now: Instant,
}

/// What has to be handed over (again), by group.
type Due = BTreeMap<GroupId, Vec<TxId>>;

/// All flights of a gateway.
#[derive(Default)]
pub(super) struct Flights {
    all: HashMap<TxId, Flight>,
    held: Shares,
    routes: BTreeMap<GroupId, Route>,
    /// The layout that all flights go by.
    layout: LayoutVersion,
    /// The registry and the number of committees that were known at the last tick.
    known: (u64, usize),
    /// When to look at flights again, in order.
    checks: VecDeque<(Instant, Vec<TxId>)>,
    /// Outboxes with new events, to be rung at the end of the step.
    touched: Vec<Arc<Outbox>>,
}

/// What has to be sent of a transaction that came in.
enum Go {
    Nothing,
    Everywhere,
    To(Vec<GroupId>),
}

impl Flights {
    /// Takes planned transactions of one stream.
    pub(super) fn accept(&mut self, step: &Step<'_>, outbox: &Arc<Outbox>, txs: Vec<Planned>, applied: bool) {
        let mut due = Due::new();
        let mut checked = Vec::with_capacity(txs.len());
        for tx in txs {
            let txid = tx.txid;
            let one = match &tx.plan {
                Plan::One(group) => Some(*group),
                Plan::Several(_) => None,
            };
            match (self.admit(step, outbox, tx, applied), one) {
                (Go::Nothing, _) => continue,
                (Go::Everywhere, Some(group)) => due.entry(group).or_default().push(txid),
                (Go::Everywhere, None) => self.everywhere(txid, &mut due),
                (Go::To(groups), _) => groups.into_iter().for_each(|group| due.entry(group).or_default().push(txid)),
            }
            checked.push(txid);
        }
        if !checked.is_empty() {
            self.checks.push_back((step.now + step.limits.check_every(), checked));
        }
        self.dispatch_all(step, due);
        self.ring();
    }

    fn everywhere(&self, txid: TxId, due: &mut Due) {
        for group in self.all.get(&txid).into_iter().flat_map(Flight::groups) {
            due.entry(group).or_default().push(txid);
        }
    }

    /// Says what has to be sent.
    fn admit(&mut self, step: &Step<'_>, outbox: &Arc<Outbox>, tx: Planned, applied: bool) -> Go {
        let full = |touched: &mut Vec<Arc<Outbox>>, reject| {
            let refusal = v1::Refusal::of(reject).retry_after_ms(step.limits.busy_retry_ms);
            let refusal = match reject {
                Reject::OrgBusy => refusal,
                _ => refusal.detail("the router has too many transactions in flight"),
            };
            outbox.push_uncounted(v1::SubmitEvent::refused(edge::bytes_of(&tx.txid), refusal));
            touch(touched, outbox);
            Go::Nothing
        };
        let max = Amount { txs: step.limits.in_flight_max, bytes: step.limits.in_flight_bytes_max };
        let total = self.held.total();
        let crowded = total.txs >= max.txs || total.bytes + tx.bytes.len() > max.bytes;
        let shared_out = !self.held.allows(tx.org, tx.bytes.len(), max);
        let joined = match self.all.entry(tx.txid) {
            Entry::Occupied(mut entry) => {
                let flight = entry.get_mut();
                if flight.waits(outbox) {
                    flight.again(step.view, &tx, outbox, applied)
                } else if outbox.admit(step.limits.stream_in_flight_max) {
                    let waiter = Waiter { outbox: outbox.clone(), applied };
                    flight.join(step.view, tx, waiter, &mut self.held, crowded || shared_out)
                } else {
                    // What another stream has sent may execute: `busy` would say that nothing can.
                    return full(&mut self.touched, Reject::TooLate);
                }
            }
            Entry::Vacant(_) if shared_out && !crowded => return full(&mut self.touched, Reject::OrgBusy),
            Entry::Vacant(entry) => {
                if crowded || !outbox.admit(step.limits.stream_in_flight_max) {
                    return full(&mut self.touched, Reject::Busy);
                }
                let waiter = Waiter { outbox: outbox.clone(), applied };
                let deadline = step.now + step.limits.receipt_within;
                entry.insert(Flight::new(&mut self.held, tx, waiter, step.now, deadline));
                return Go::Everywhere;
            }
        };
        match joined {
            Joined::Waits { resend: true } => Go::Everywhere,
            Joined::Waits { resend: false } => Go::Nothing,
            Joined::Opens(groups) if groups.is_empty() => Go::Nothing,
            Joined::Opens(groups) => Go::To(groups),
            Joined::Told => {
                touch(&mut self.touched, outbox);
                Go::Nothing
            }
            Joined::Crowded(txid) => {
                let refusal = v1::Refusal::of(Reject::TooLate).retry_after_ms(step.limits.busy_retry_ms);
                outbox.push(v1::SubmitEvent::refused(edge::bytes_of(&txid), refusal), true);
                touch(&mut self.touched, outbox);
                Go::Nothing
            }
        }
    }

    fn dispatch_all(&mut self, step: &Step<'_>, due: Due) {
        for (group, txids) in due {
            self.dispatch(step, group, txids);
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
            if let Some(hand_over) = self.all.get_mut(txid).and_then(|flight| flight.hand_over(group)) {
                hand_over.node = None;
            }
        }
        self.routes.entry(group).or_default().waiting.extend(txids);
    }

    /// Takes events of a node.
    pub(super) fn events(&mut self, step: &Step<'_>, node: NodeId, events: Vec<v1::SubmitEvent>) {
        let mut due = Due::new();
        for v1::SubmitEvent { txid, group, event } in events {
            let Ok(id) = edge::txid("txid", &txid) else {
                continue;
            };
            let group = GroupId(group);
            match event {
                Some(Event::Receipt(receipt)) => self.receipt(step, node, id, txid, receipt, &mut due),
                Some(Event::Applied(_)) => self.applied(id, group, &txid),
                Some(Event::Refusal(refusal)) => self.refusal(step, node, id, group, refusal, &mut due),
                Some(Event::Vote(vote)) => {
                    let layout = &step.view.layout;
                    self.heard(step, node, id, GroupId(vote.group), &mut due, |ballot| ballot.vote(vote, layout));
                }
                Some(Event::Waits(_)) => self.heard(step, node, id, group, &mut due, |ballot| ballot.waits(group)),
                Some(Event::Decided(_)) | None => {}
            }
        }
        self.dispatch_all(step, due);
        self.ring();
    }

    fn receipt(&mut self, step: &Step<'_>, node: NodeId, id: TxId, txid: Bytes, receipt: Bytes, due: &mut Due) {
        let Entry::Occupied(mut entry) = self.all.entry(id) else {
            return;
        };
        let flight = entry.get_mut();
        let (hand_over, known) = match &mut flight.course {
            Course::One { hand_over, receipt } => (hand_over, receipt),
            // Several groups tell their outcome, and each speaks for itself, or for one that it came from.
            Course::Several(ballot) => {
                let (Ok(receipt), layout) = (edge::value::<Receipt>("receipt", &receipt), &step.view.layout) else {
                    return;
                };
                let group = ballot.speaker(receipt.group, node, layout);
                let heir_tells = ballot.heir_tells(group, receipt.group, layout);
                self.heard(step, node, id, group, due, |ballot| ballot.receipt(&receipt, layout));
                if heir_tells {
                    self.applied(id, group, &txid);
                }
                return;
            }
        };
        if let Some(route) = self.routes.get_mut(&hand_over.group) {
            route.works(node, step.now);
        }
        if known.is_some() {
            return;
        }
        let read = if flight.notify_applied { edge::value::<Receipt>("receipt", &receipt).ok() } else { None };
        let committed = read.as_ref().is_some_and(Receipt::committed);
        *known = Some(receipt.clone());
        let event = v1::SubmitEvent::receipt(txid, receipt);
        if !flight.tell(&event, committed, |outbox| touch(&mut self.touched, outbox)) {
            entry.remove();
            return;
        }
        flight.deadline = step.now + step.limits.applied_within;
        // What a shard had mailed that has ended, its heir passes on, and tells when it is taken.
        let layout = &step.view.layout;
        let heir = read.filter(|receipt| layout.retired(receipt.group)).map(|receipt| layout.heir(receipt.group));
        if let (Some(heir), Course::One { hand_over, .. }) = (heir, &mut flight.course)
            && hand_over.group != heir
        {
            hand_over.moves(heir, step.now);
            due.entry(heir).or_default().push(id);
        }
    }

    /// One of several groups said something.
    fn heard(
        &mut self,
        step: &Step<'_>,
        node: NodeId,
        id: TxId,
        group: GroupId,
        due: &mut Due,
        learn: impl FnOnce(&mut Ballot),
    ) {
        if let Some(route) = self.routes.get_mut(&group) {
            route.works(node, step.now);
        }
        if let Some(Flight { course: Course::Several(ballot), .. }) = self.all.get_mut(&id) {
            learn(ballot);
            self.conclude(step, id, due);
        }
    }

    /// Draws the conclusion from what several groups have said.
    fn conclude(&mut self, step: &Step<'_>, id: TxId, due: &mut Due) {
        let Entry::Occupied(mut entry) = self.all.entry(id) else {
            return;
        };
        let flight = entry.get_mut();
        let Course::Several(ballot) = &mut flight.course else {
            return;
        };
        if ballot.decided().is_some() {
            return;
        }
        match ballot.conclusion() {
            Conclusion::Open => {}
            Conclusion::Decided(votes) => {
                let committed = votes.iter().all(|vote| vote.yes);
                let silent = ballot.decide(votes.clone());
                let event = v1::SubmitEvent::decided(edge::bytes_of(&id), votes);
                if flight.tell(&event, committed, |outbox| touch(&mut self.touched, outbox)) {
                    flight.deadline = step.now + step.limits.applied_within;
                    silent.into_iter().for_each(|group| due.entry(group).or_default().push(id));
                } else {
                    entry.remove();
                }
            }
            Conclusion::Refused(group, refusal) => self.refused(step, id, group, refusal, due),
        }
    }

    fn applied(&mut self, id: TxId, group: GroupId, txid: &Bytes) {
        let Entry::Occupied(mut entry) = self.all.entry(id) else {
            return;
        };
        let all = match &mut entry.get_mut().course {
            // Without the receipt it is not news yet: the flight is sent again and both will come.
            Course::One { receipt, .. } => receipt.is_some(),
            Course::Several(ballot) => ballot.applied(group),
        };
        if !all {
            return;
        }
        for waiter in entry.remove().waiters {
            waiter.outbox.push(v1::SubmitEvent::applied(txid.clone()), true);
            touch(&mut self.touched, &waiter.outbox);
        }
    }

    fn refusal(
        &mut self,
        step: &Step<'_>,
        node: NodeId,
        id: TxId,
        group: GroupId,
        refusal: v1::Refusal,
        due: &mut Due,
    ) {
        let Some(flight) = self.all.get_mut(&id) else {
            return;
        };
        // One group need not say which it is. One that has ended speaks for no other.
        let group = match &flight.course {
            Course::One { hand_over, .. } if group != hand_over.group && step.view.layout.retired(group) => return,
            Course::One { hand_over, .. } => hand_over.group,
            Course::Several(_) => group,
        };
        // One that is about other bytes, which were sent before these, changes nothing.
        if !refusal.tx_hash.is_empty() && refusal.tx_hash[..] != ledger::hash::sha256(flight.given(group)).0 {
            return;
        }
        // Nor does an answer of a node it is no longer with: the one it is with will answer.
        let Some(hand_over) = flight.hand_over(group).filter(|hand_over| hand_over.node == Some(node)) else {
            return;
        };
        let open = hand_over.open;
        let route = self.routes.entry(group).or_default();
        // A leader that knows no such group means another one, which has to vote, too.
        let leads = refusal.leader_node == node.0;
        match refusal.reject() {
            Some(Reject::NotLeader | Reject::GroupStopped) => self.moved(step, node, id, group, &refusal, due),
            Some(Reject::UnknownGroup) if !leads => self.moved(step, node, id, group, &refusal, due),
            Some(Reject::WrongShard) => {
                hand_over.replan = true;
                route.works(node, step.now);
                route.pause(step.now);
                self.hold(group, vec![id]);
            }
            // Nothing of it was taken, and it is taken soon: here, or where its accounts will lie.
            Some(reject @ (Reject::Sealing | Reject::Moved)) => {
                hand_over.replan |= reject == Reject::Moved;
                route.stands_still(step.now);
                self.hold(group, vec![id]);
            }
            _ => {
                route.works(node, step.now);
                match &mut flight.course {
                    // With a fate known, a busy leader only delays `applied`, and the next check asks
                    // again.
                    Course::One { receipt: Some(_), .. } => {}
                    // A queue was full now; what was sent before may have been taken.
                    Course::One { .. } if open && refusal.reject() == Some(Reject::Busy) => {
                        let late = v1::Refusal::of(Reject::TooLate).retry_after_ms(refusal.retry_after_ms);
                        let detail = "its group is busy, and an earlier attempt may have executed";
                        self.refused(step, id, group, late.detail(detail), due);
                    }
                    Course::One { .. } => self.refused(step, id, group, refusal, due),
                    Course::Several(ballot) => {
                        ballot.refused(group, refusal);
                        self.conclude(step, id, due);
                    }
                }
            }
        }
    }

    /// The node does not lead the group.
    fn moved(&mut self, step: &Step<'_>, node: NodeId, id: TxId, group: GroupId, refusal: &v1::Refusal, due: &mut Due) {
        // It may come from a leader that had taken it and was lost.
        if let Some(hand_over) = self.all.get_mut(&id).and_then(|flight| flight.hand_over(group)) {
            hand_over.open = true;
        }
        let hint = Some(NodeId(refusal.leader_node)).filter(|hint| step.view.nodes.contains_key(hint));
        // Whoever names itself leads in a moment, but not where the group has stopped.
        let hint = hint.filter(|hint| *hint != node || refusal.reject() == Some(Reject::NotLeader));
        match self.routes.entry(group).or_default().not_leader(node, hint, step.now) {
            Verdict::Send => due.entry(group).or_default().push(id),
            Verdict::Wait => self.hold(group, vec![id]),
        }
    }

    /// A refusal for good. The next rival, if there is one, takes the place of what was refused.
    fn refused(&mut self, step: &Step<'_>, id: TxId, group: GroupId, refusal: v1::Refusal, due: &mut Due) {
        let Entry::Occupied(mut entry) = self.all.entry(id) else {
            return;
        };
        let flight = entry.get_mut();
        let event = v1::SubmitEvent::refused(edge::bytes_of(&id), refusal).by(group);
        for waiter in std::mem::take(&mut flight.waiters) {
            waiter.outbox.push(event.clone(), true);
            touch(&mut self.touched, &waiter.outbox);
        }
        if flight.next_rival(step.now, step.now + step.limits.receipt_within) {
            self.everywhere(id, due);
        } else {
            entry.remove();
        }
    }

    /// The link to a node is gone: what was there goes to another member.
    pub(super) fn link_lost(&mut self, step: &Step<'_>, node: NodeId) {
        for route in self.routes.values_mut() {
            route.lost(node, step.now);
        }
        let mut due = Due::new();
        for (txid, flight) in &mut self.all {
            for hand_over in flight.hand_overs().filter(|hand_over| hand_over.node == Some(node)) {
                (hand_over.node, hand_over.open) = (None, true);
                due.entry(hand_over.group).or_default().push(*txid);
            }
        }
        self.dispatch_all(step, due);
        self.ring();
    }

    /// Looks at what is due: pauses that are over, flights without an answer, deadlines.
    pub(super) fn tick(&mut self, step: &Step<'_>) {
        let mut moved = Due::new();
        self.reshape(step, &mut moved);
        self.dispatch_all(step, moved);
        self.hear_of_committees(step);
        let mut ready: Vec<(GroupId, Vec<TxId>)> = Vec::new();
        for (group, route) in &mut self.routes {
            if route.ready(*group, step.view, step.now) && !route.waiting.is_empty() {
                ready.push((*group, std::mem::take(&mut route.waiting)));
            }
        }
        let mut due = Due::new();
        for (group, txids) in ready {
            // What came just before the layout changed may have been planned by the one before.
            let ended = step.view.layout.retired(group);
            for txid in txids {
                self.released(step, group, txid, ended, &mut due);
            }
        }
        self.check(step, &mut due);
        self.dispatch_all(step, due);
        self.ring();
    }

    /// Goes by the layout of the view, if it is another one than before. What is with a shard that has ended, or waits for
    /// it, goes where its accounts lie now: what that shard has done with it, those that came from it know.
    fn reshape(&mut self, step: &Step<'_>, due: &mut Due) {
        let layout = &step.view.layout;
        if std::mem::replace(&mut self.layout, layout.version) == layout.version {
            return;
        }
        self.routes.values_mut().for_each(|route| route.go_on(step.now));
        let ended: BTreeSet<GroupId> = layout.lineage.iter().map(|entry| entry.group).collect();
        if ended.is_empty() {
            return;
        }
        self.routes.retain(|group, _| !ended.contains(group));
        let of_ended = |flight: &mut Flight| {
            let mut groups = flight.hand_overs().map(|hand_over| hand_over.group);
            groups.find(|group| ended.contains(group))
        };
        let concerned: Vec<(TxId, GroupId)> =
            self.all.iter_mut().filter_map(|(txid, flight)| Some((*txid, of_ended(flight)?))).collect();
        tracing::info!(layout = layout.version.0, flights = concerned.len(), "flights go by another layout");
        for (txid, group) in concerned {
            self.replan(step, group, txid, due);
        }
    }

    /// The committees of a layout may come behind it, by another way: what waits for them at a shard that has ended goes on
    /// with them, and not when its pause is over.
    fn hear_of_committees(&mut self, step: &Step<'_>) {
        let known = (step.view.revision, step.view.committees.len());
        if std::mem::replace(&mut self.known, known) != known {
            let ended = self.routes.iter_mut().filter(|(group, _)| step.view.layout.retired(**group));
            ended.for_each(|(_, route)| route.at_once(step.now));
        }
    }

    /// What waited for a group may go. When its shard said that it is not the one, or has `ended`, the groups are
    /// found anew.
    fn released(&mut self, step: &Step<'_>, group: GroupId, txid: TxId, ended: bool, due: &mut Due) {
        let Some(flight) = self.all.get_mut(&txid) else {
            return;
        };
        let Some(hand_over) = flight.hand_over(group).filter(|hand_over| hand_over.node.is_none()) else {
            return;
        };
        if !std::mem::take(&mut hand_over.replan) && !ended {
            return due.entry(group).or_default().push(txid);
        }
        self.replan(step, group, txid, due);
    }

    /// Finds the groups of a transaction anew, since one of them is not the right one.
    fn replan(&mut self, step: &Step<'_>, group: GroupId, txid: TxId, due: &mut Due) {
        let Some(flight) = self.all.get_mut(&txid) else {
            return;
        };
        let parsed = ParsedTx::decode_sent(&step.view.cluster, flight.bytes());
        if parsed.as_ref().is_ok_and(|tx| !step.view.not_heard_of(tx).is_empty()) {
            // A layout may be known before the committees that come with it.
            if let Some(hand_over) = flight.hand_over(group) {
                (hand_over.replan, hand_over.open) = (true, hand_over.unanswered());
            }
            self.routes.entry(group).or_default().pause(step.now);
            return self.hold(group, vec![txid]);
        }
        match parsed.and_then(|tx| step.view.plan(&tx)) {
            Ok(plan) => {
                let mut groups = flight.adopt(plan, &step.view.layout, step.now);
                groups.extend(flight.hand_over(group).map(|hand_over| hand_over.group));
                groups.sort_unstable();
                groups.dedup();
                groups.into_iter().for_each(|group| due.entry(group).or_default().push(txid));
                self.conclude(step, txid, due);
            }
            Err(reject) => {
                let refusal = v1::Refusal::of(reject);
                match &mut flight.course {
                    Course::One { .. } => self.refused(step, txid, group, refusal, due),
                    Course::Several(ballot) => {
                        ballot.refused(group, refusal);
                        self.conclude(step, txid, due);
                    }
                }
            }
        }
    }

    fn check(&mut self, step: &Step<'_>, due: &mut Due) {
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
                let silent = |at: Instant| step.now >= at + step.limits.resend_after;
                for hand_over in flight.hand_overs() {
                    if hand_over.node.is_some() && silent(hand_over.sent_at) {
                        hand_over.open = true;
                        due.entry(hand_over.group).or_default().push(txid);
                    }
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
        let detail = match &flight.course {
            _ if flight.fate(&id).is_some() => {
                "the transaction is committed, but its credits were not confirmed in time".to_owned()
            }
            Course::One { hand_over, .. } if self.routes.get(&hand_over.group).is_some_and(Route::is_still) => {
                format!("{} is being cut or joined, and did not go on in time", hand_over.group)
            }
            Course::One { .. } => "no leader of its group answered in time".to_owned(),
            Course::Several(ballot) => {
                format!("{}; the votes decide it without anybody's help, 'seamark tx' tells then", ballot.in_words())
            }
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
        let Some(bytes) = flight.sent(group, node, step.now) else {
            continue;
        };
        // Of a channel, each client's stand in batches of its own, which the link puts together.
        if group.kind() == Some(GroupKind::Channel) {
            let caller = flight.caller.as_deref().cloned();
            let notify_applied = flight.notify_applied;
            step.backend.ingest(node, v1::IngestBatch { group: group.0, txs: vec![bytes], notify_applied, caller })?;
            continue;
        }
        let kind = usize::from(flight.notify_applied);
        if batches[kind].len() == BATCH_TXS_MAX || sizes[kind] + bytes.len() > BATCH_BYTES_MAX {
            flush(step, group, node, kind, &mut batches)?;
            sizes[kind] = 0;
        }
        sizes[kind] += bytes.len();
        batches[kind].push(bytes);
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
    step.backend.ingest(node, v1::IngestBatch { group: group.0, txs, notify_applied: kind == 1, caller: None })
}

impl GatewayLimits {
    /// How often a flight is looked at: often enough for its deadlines and for sending it again.
    fn check_every(&self) -> Duration {
        let soonest = self.resend_after.min(self.receipt_within).min(self.applied_within);
        (soonest / 2).max(Duration::from_millis(10))
    }
}

#[cfg(test)]
#[path = "flights_tests.rs"]
mod tests;

//! The desk: takes transactions in, keeps the flights, and hands events out.
//!
//! Decoding and planning happen here, outside of the lock, once for each transaction.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ledger::limits::BATCH_TXS_MAX;
use ledger::tx::ParsedTx;
use ledger::{GroupId, GroupKind, NodeId, Reject, Submission};
use parking_lot::Mutex;
use proto::{edge, v1};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::GatewayLimits;
use super::backend::{Backend, EventSink};
use super::caller::Caller;
use super::flight::Planned;
use super::flights::{Flights, Step};
use super::outbox::Outbox;
use super::view::ClusterView;

/// Transactions decoded before others get the processor.
const CHUNK_TXS: usize = 512;
/// Unread events at which a client is not read any further.
const UNREAD_EVENTS_MAX: usize = 16_384;
const TICK: Duration = Duration::from_millis(10);

/// Transactions for groups that the router has not heard of.
#[derive(Default)]
struct Early {
    groups: Vec<GroupId>,
    txs: Vec<Bytes>,
}

/// Calls that wait at a time for groups that nobody may ever found.
const WAITING_MAX: usize = 64;

pub(super) struct Desk {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) limits: GatewayLimits,
    view: watch::Receiver<Arc<ClusterView>>,
    /// Who may wait for groups that the router has not heard of.
    waiting: Semaphore,
    flights: Mutex<Flights>,
}

impl Desk {
    pub(super) fn new(backend: Arc<dyn Backend>, limits: GatewayLimits) -> Arc<Self> {
        let view = backend.cluster();
        let waiting = Semaphore::new(WAITING_MAX);
        let desk = Arc::new(Self { backend, limits, view, waiting, flights: Mutex::default() });
        let sink: Arc<dyn EventSink> = desk.clone();
        desk.backend.attach(Arc::downgrade(&sink));
        desk
    }

    pub(super) fn view(&self) -> Arc<ClusterView> {
        self.view.borrow().clone()
    }

    /// Waits until the router has heard of all of these groups, for a moment at most.
    pub(super) async fn hear_of(&self, groups: &[GroupId], within: Duration) {
        let layout = Arc::clone(&self.view().layout);
        // A layout brings a shard that there is: its committee comes a moment later.
        let _turn = if groups.iter().all(|group| layout.prefix_of(*group).is_some()) {
            None
        } else {
            // Numbers that nobody has given to a channel must not keep everybody else's questions waiting.
            let Ok(turn) = self.waiting.try_acquire() else { return };
            Some(turn)
        };
        let mut view = self.view.clone();
        let heard = view.wait_for(|view| groups.iter().all(|group| view.committees.contains_key(group)));
        // Whoever asked looks at the view again.
        let _ = tokio::time::timeout(within.min(self.limits.heard_within), heard).await;
    }

    fn step<R>(&self, act: impl FnOnce(&mut Flights, &Step<'_>) -> R) -> R {
        let view = self.view();
        let mut flights = self.flights.lock();
        let step = Step { view: &view, backend: &*self.backend, limits: &self.limits, now: Instant::now() };
        act(&mut flights, &step)
    }

    /// Takes a chunk: sends what can be sent at once, and what is for a group that the router has not heard of
    /// when it has, or refuses it after a moment. The stream is not read any further meanwhile.
    async fn take(&self, caller: &Caller, outbox: &Arc<Outbox>, txs: Vec<Bytes>, notify_applied: bool) {
        let mut early = Early::default();
        self.accept(caller, outbox, txs, notify_applied, Some(&mut early));
        if !early.txs.is_empty() {
            self.hear_of(&early.groups, self.limits.heard_within).await;
            self.accept(caller, outbox, early.txs, notify_applied, None);
        }
    }

    /// Decodes and plans a chunk, and sends what can be sent. What is `early` is put there, if it may be.
    fn accept(
        &self,
        caller: &Caller,
        outbox: &Arc<Outbox>,
        txs: Vec<Bytes>,
        notify_applied: bool,
        mut early: Option<&mut Early>,
    ) {
        let view = self.view();
        let (wire, mut planned) = (caller.to_wire().map(Arc::new), Vec::with_capacity(txs.len()));
        // How many were for channels that the caller does not write to, and the first of these.
        let mut denied: Option<(GroupId, usize)> = None;
        for bytes in txs {
            let parsed = ParsedTx::decode_sent(&view.cluster, &bytes);
            let plan = parsed
                .as_ref()
                .map_err(|reject| *reject)
                .and_then(|tx| view.plan(tx))
                .and_then(|plan| view.admit(plan));
            let missing = match (&plan, &parsed) {
                (Err(Reject::UnknownGroup), Ok(tx)) => view.not_heard_of(tx),
                _ => Vec::new(),
            };
            if let Some(early) = &mut early
                && !missing.is_empty()
            {
                early.groups.extend(missing);
                early.txs.push(bytes);
                continue;
            }
            let planned_tx = parsed.and_then(|tx| plan.map(|plan| (tx.txid, plan)));
            let allowed = planned_tx.and_then(|(txid, plan)| {
                let closed = plan.groups().find(|group| !caller.writes_to(&view, *group));
                let Some(group) = closed else { return Ok((txid, plan)) };
                denied.get_or_insert((group, 0)).1 += 1;
                Err(Reject::AccessDenied)
            });
            match allowed {
                Ok((txid, plan)) => {
                    let to_channel = plan.groups().any(|group| group.kind() == Some(GroupKind::Channel));
                    let (org, caller) = (caller.org, wire.clone().filter(|_| to_channel));
                    planned.push(Planned { txid, plan, bytes, org, caller });
                }
                Err(reject) => outbox.push_uncounted(refusal_of(&view, &bytes, reject)),
            }
        }
        if let Some((group, count)) = denied {
            let (org, role) = (caller.org.map(|org| org.0), caller.role.as_str());
            tracing::warn!(%group, ?org, role, count, "transactions for a channel were denied");
        }
        self.step(|flights, step| flights.accept(step, outbox, planned, notify_applied));
        outbox.ring();
    }
}

/// The event of a transaction that is refused here. Bytes without a readable body have no id; the
/// hash of the bytes then says which one is meant.
fn refusal_of(view: &ClusterView, bytes: &[u8], reject: Reject) -> v1::SubmitEvent {
    let refusal = v1::Refusal::of(reject);
    match Submission::body_of(bytes) {
        Ok(body) => {
            let txid = ledger::tx::txid(&view.cluster, &body);
            v1::SubmitEvent::refused(edge::bytes_of(&txid), refusal)
        }
        Err(_) => {
            let hash = ledger::hash::sha256(bytes);
            v1::SubmitEvent::refused(Bytes::new(), refusal.detail(format!("bytes with sha256 {hash}")))
        }
    }
}

impl EventSink for Desk {
    fn events(&self, node: NodeId, events: Vec<v1::SubmitEvent>) {
        self.step(|flights, step| flights.events(step, node, events));
    }

    fn link_lost(&self, node: NodeId) {
        self.step(|flights, step| flights.link_lost(step, node));
    }
}

/// Serves the incoming half of one client stream.
pub(super) async fn serve_stream(
    desk: Arc<Desk>,
    caller: Caller,
    mut incoming: Streaming<v1::SubmitBatch>,
    outbox: Arc<Outbox>,
) {
    while !outbox.closed() {
        outbox.room(UNREAD_EVENTS_MAX).await;
        match incoming.message().await {
            Ok(Some(batch)) if batch.txs.len() > BATCH_TXS_MAX => {
                outbox.fail(Status::invalid_argument(format!(
                    "{} transactions in one message; at most {BATCH_TXS_MAX} are taken",
                    batch.txs.len()
                )));
                return;
            }
            Ok(Some(mut batch)) => {
                while batch.txs.len() > CHUNK_TXS {
                    let rest = batch.txs.split_off(CHUNK_TXS);
                    let chunk = std::mem::replace(&mut batch.txs, rest);
                    desk.take(&caller, &outbox, chunk, batch.notify_applied).await;
                    tokio::task::yield_now().await;
                }
                desk.take(&caller, &outbox, batch.txs, batch.notify_applied).await;
            }
            Ok(None) => return outbox.finish_input(),
            // The client is gone, or sent what is no message; both end the stream.
            Err(status) => return outbox.fail(status),
        }
    }
}

/// Drives retries and deadlines for as long as the desk lives, and goes by a new view at once: what waits for a layout or
/// a leader need not wait for the next tick.
pub(super) async fn clockwork(desk: Weak<Desk>) {
    let Some(mut view) = desk.upgrade().map(|desk| desk.view.clone()) else { return };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // The last view stays when nobody renews it any more.
            changed = view.changed(), if told => told = changed.is_ok(),
        }
        let Some(desk) = desk.upgrade() else { return };
        desk.step(|flights, step| flights.tick(step));
    }
}

//! The task behind a submit stream.
//!
//! Owns the map of what has been sent and not answered, which is what is sent again after a
//! reconnect or a refusal that passes. Sending again is safe because the txid is the idempotency
//! key. It never gives up on what may have executed without saying so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use ledger::{GroupId, Height, Receipt, Reject, TxId};
use proto::v1::submit_event::Event;
use proto::{EdgeError, edge, v1};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::certificates::CertificateFault;
use crate::net;
use crate::routers::{Routers, cause_of, connection_lost};
use crate::submit::{BATCH_TXS_MAX, GroupVote, MESSAGES_QUEUED_MAX, PreparedTx, SubmitEvent, SubmitOptions, no_of};

/// Bytes of transactions in one message.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
const RETRY_LEAST: Duration = Duration::from_millis(10);
/// How long what the router in use is known to refuse waits there until the others are tried again: each try costs
/// everything else on the stream its answers.
const HELD_FOR: Duration = RECONNECT_MAX;

struct Pending {
    bytes: Bytes,
    give_up: Instant,
    /// The fate has been reported; only `applied` is missing.
    fate_seen: bool,
    /// An attempt had no answer, or one that leaves open what became of it.
    open: bool,
    /// Waits in `retries`.
    waiting: bool,
    /// Routers that could not hand it over because of whose they are, by their places.
    refusing: Vec<usize>,
    /// The router in use is one of them, so it is not under way there.
    turned_away: bool,
}

/// Why a connection's turn ended.
enum Turn {
    /// Nothing is left to do.
    Done,
    /// Something has to go over another router.
    Elsewhere,
    /// The connection was lost.
    Lost(Loss),
}

/// How a connection was lost.
struct Loss {
    /// It had been opened, so that transactions may have been sent.
    opened: bool,
    /// Something had been received on it.
    answered: bool,
    /// The router does not let us in.
    refused: bool,
    cause: String,
}

/// One task that owns the state of a stream.
pub(super) struct Pump {
    routers: Arc<Routers>,
    options: SubmitOptions,
    pending: HashMap<TxId, Pending>,
    retries: BTreeMap<Instant, Vec<TxId>>,
    report: mpsc::UnboundedSender<Vec<SubmitEvent>>,
    queued: mpsc::Receiver<Vec<PreparedTx>>,
    input_open: bool,
    /// Something was turned away because of whose router is in use.
    elsewhere: bool,
    /// The place of the router in use.
    at: usize,
    /// Places of the routers that do not let us in, since one did.
    shut: Vec<usize>,
    room: Arc<Semaphore>,
}

impl Pump {
    pub(super) fn new(
        routers: Arc<Routers>,
        options: SubmitOptions,
        report: mpsc::UnboundedSender<Vec<SubmitEvent>>,
        queued: mpsc::Receiver<Vec<PreparedTx>>,
        room: Arc<Semaphore>,
    ) -> Self {
        Self {
            routers,
            options,
            pending: HashMap::new(),
            retries: BTreeMap::new(),
            report,
            queued,
            input_open: true,
            elsewhere: false,
            at: 0,
            shut: Vec::new(),
            room,
        }
    }

    pub(super) async fn run(mut self) {
        let mut delay = RECONNECT_FIRST;
        let mut tried = 0usize;
        loop {
            match self.connected().await {
                Turn::Done => return,
                Turn::Elsewhere => self.leave(),
                Turn::Lost(loss) => {
                    if loss.answered {
                        (delay, tried) = (RECONNECT_FIRST, 0);
                    }
                    if loss.refused && !self.shut.contains(&self.at) {
                        self.shut.push(self.at);
                    }
                    let cause = loss.cause;
                    tracing::debug!(%cause, in_flight = self.pending.len(), "submit stream lost");
                    if loss.opened {
                        self.leave();
                    }
                    // What waits to be sent has its time, too.
                    self.take_queued();
                    self.give_up(&cause);
                    self.refuse_hopeless(&cause);
                    tried += 1;
                    // The other routers first, and a pause only when all have been tried.
                    if tried.is_multiple_of(self.routers.len()) {
                        tokio::time::sleep(delay).await;
                        delay = (delay * 2).min(RECONNECT_MAX);
                    }
                    if self.finished() {
                        return;
                    }
                }
            }
        }
    }

    /// A connection has ended. What was turned away there has its answer; that of everything else is lost with it.
    fn leave(&mut self) {
        for pending in self.pending.values_mut() {
            pending.open |= !std::mem::take(&mut pending.turned_away);
        }
    }

    fn finished(&self) -> bool {
        self.report.is_closed() || (!self.input_open && self.pending.is_empty())
    }

    /// Runs over one connection until it is lost or all is done.
    async fn connected(&mut self) -> Turn {
        let (turn, _, channel) = self.routers.current();
        self.at = self.routers.place(turn);
        let (outgoing, messages) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let mut client = net::router_client(channel);
        let opening = client.submit(ReceiverStream::new(messages));
        let mut incoming = match tokio::time::timeout(self.options.give_up_after, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.not_opened(turn, &status),
            Err(_) => {
                return self.not_opened(turn, &tonic::Status::deadline_exceeded("no answer to the call"));
            }
        };
        self.shut.clear();
        let mut unsent = self.everything();
        let mut answered = false;
        loop {
            if self.finished() {
                return Turn::Done;
            }
            if std::mem::take(&mut self.elsewhere) {
                self.routers.lost(turn);
                return Turn::Elsewhere;
            }
            let wake = self.retries.keys().next().copied();
            let room = self.queued_room(&unsent);
            tokio::select! {
                biased;
                events = incoming.message() => match events {
                    Ok(Some(events)) => {
                        answered = true;
                        self.take(events.events);
                    }
                    Ok(None) => return self.lost(turn, answered, &tonic::Status::unavailable("the router closed the stream")),
                    Err(status) => return self.lost(turn, answered, &status),
                },
                permit = outgoing.reserve(), if !unsent.is_empty() => match permit {
                    Ok(permit) => { if let Some(batch) = unsent.pop_front() { permit.send(batch) } }
                    Err(_) => return self.lost(turn, answered, &tonic::Status::unavailable("the connection is gone")),
                },
                txs = self.queued.recv(), if room => match txs {
                    Some(txs) => { let batch = self.accept(txs); unsent.extend(batch); }
                    None => self.input_open = false,
                },
                () = sleep_until(wake) => { let again = self.due(); unsent.extend(again); }
                () = self.report.closed() => return Turn::Done,
            }
        }
    }

    fn queued_room(&self, unsent: &VecDeque<v1::SubmitBatch>) -> bool {
        self.input_open && unsent.len() < MESSAGES_QUEUED_MAX
    }

    fn lost(&self, turn: usize, answered: bool, status: &tonic::Status) -> Turn {
        self.routers.lost(turn);
        debug_assert!(connection_lost(status) || !status.message().is_empty());
        Turn::Lost(Loss { opened: true, answered, refused: false, cause: cause_of(status) })
    }

    fn not_opened(&self, turn: usize, status: &tonic::Status) -> Turn {
        self.routers.lost(turn);
        let fault = CertificateFault::of(status);
        let refused = fault.is_some() || status.code() == tonic::Code::PermissionDenied;
        let cause = fault.map_or_else(|| cause_of(status), |fault| fault.to_string());
        Turn::Lost(Loss { opened: false, answered: false, refused, cause })
    }

    /// Takes what waits to be sent, while there is nobody to send it to.
    fn take_queued(&mut self) {
        loop {
            match self.queued.try_recv() {
                Ok(txs) => {
                    self.accept(txs);
                }
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.input_open = false;
                    return;
                }
            }
        }
    }

    /// Everything that has no fate yet, to be sent over a new connection. What the router there is known to refuse
    /// waits for a while, until the others are tried again.
    fn everything(&mut self) -> VecDeque<v1::SubmitBatch> {
        self.retries.clear();
        let (mut all, mut held) = (Vec::with_capacity(self.pending.len()), Vec::new());
        for (txid, pending) in &mut self.pending {
            pending.turned_away = pending.refusing.contains(&self.at);
            pending.waiting = pending.turned_away;
            match pending.turned_away {
                true => held.push(*txid),
                false => all.push(pending.bytes.clone()),
            }
        }
        if !held.is_empty() {
            self.retries.insert(Instant::now() + HELD_FOR, held);
        }
        self.batches(all)
    }

    fn batches(&self, txs: Vec<Bytes>) -> VecDeque<v1::SubmitBatch> {
        let mut batches = VecDeque::new();
        let (mut current, mut size) = (Vec::new(), 0);
        for tx in txs {
            if current.len() == BATCH_TXS_MAX || (size + tx.len() > BATCH_BYTES_MAX && !current.is_empty()) {
                batches.push_back(self.batch(std::mem::take(&mut current)));
                size = 0;
            }
            size += tx.len();
            current.push(tx);
        }
        if !current.is_empty() {
            batches.push_back(self.batch(current));
        }
        batches
    }

    fn batch(&self, txs: Vec<Bytes>) -> v1::SubmitBatch {
        v1::SubmitBatch { txs, notify_applied: self.options.notify_applied }
    }

    /// Takes new transactions; those in flight already give their room back.
    fn accept(&mut self, txs: Vec<PreparedTx>) -> VecDeque<v1::SubmitBatch> {
        let give_up = Instant::now() + self.options.give_up_after;
        let mut fresh = Vec::with_capacity(txs.len());
        for PreparedTx { txid, bytes } in txs {
            if self.pending.contains_key(&txid) {
                self.room.add_permits(1);
                continue;
            }
            fresh.push(bytes.clone());
            let pending = Pending {
                bytes,
                give_up,
                fate_seen: false,
                open: false,
                waiting: false,
                refusing: Vec::new(),
                turned_away: false,
            };
            self.pending.insert(txid, pending);
        }
        self.batches(fresh)
    }

    /// Takes events of the router and reports what is news.
    fn take(&mut self, events: Vec<v1::SubmitEvent>) {
        let news: Vec<SubmitEvent> = events.into_iter().filter_map(|event| self.news(event)).collect();
        self.tell(news);
    }

    fn tell(&self, news: Vec<SubmitEvent>) {
        if !news.is_empty() {
            // Nobody listens any more: the loop sees that by itself.
            let _ = self.report.send(news);
        }
    }

    fn news(&mut self, event: v1::SubmitEvent) -> Option<SubmitEvent> {
        let txid = edge::txid("txid", &event.txid).ok()?;
        match event.event? {
            Event::Receipt(bytes) => {
                let receipt: Receipt = match edge::value("receipt", &bytes) {
                    Ok(receipt) => receipt,
                    Err(error) => return self.nonsense(txid, error.to_string()),
                };
                if receipt.txid != txid {
                    return self.nonsense(txid, "the receipt is of another transaction".to_owned());
                }
                let first = self.fate(&txid, receipt.committed())?;
                first.then_some(SubmitEvent::Receipt(receipt))
            }
            Event::Decided(votes) => {
                let votes = match group_votes(&votes) {
                    Ok(votes) => votes,
                    Err(error) => return self.nonsense(txid, error.to_string()),
                };
                let first = self.fate(&txid, no_of(&votes).is_none())?;
                first.then_some(SubmitEvent::Decided { txid, votes })
            }
            Event::Applied(_) => {
                // Without a fate before it, this is not an answer to what we asked.
                self.pending.get(&txid).is_some_and(|pending| pending.fate_seen).then_some(())?;
                self.pending.remove(&txid);
                Some(SubmitEvent::Applied(txid))
            }
            Event::Refusal(refusal) => self.refusal(txid, event.group, refusal),
            // Single groups decide nothing; routers keep to themselves what they say.
            Event::Vote(_) | Event::Waits(_) => None,
        }
    }

    /// Notes the fate of what is pending; returns whether it is news.
    fn fate(&mut self, txid: &TxId, committed: bool) -> Option<bool> {
        let pending = self.pending.get_mut(txid)?;
        let first = !std::mem::replace(&mut pending.fate_seen, true);
        if !(self.options.notify_applied && committed) {
            self.pending.remove(txid);
        }
        Some(first)
    }

    /// A refusal that passes is not a fate yet.
    fn refusal(&mut self, txid: TxId, group: u64, refusal: v1::Refusal) -> Option<SubmitEvent> {
        let reject = refusal.reject();
        let group = Some(GroupId(group)).filter(|group| group.kind().is_some());
        let pending = self.pending.get_mut(&txid)?;
        // By a group, it is about the router, whose organisation takes no part in the channel. Another one's may.
        let turned_away = matches!(reject, Some(Reject::AccessDenied | Reject::ChannelUntold)) && group.is_some();
        if turned_away && !pending.fate_seen && Instant::now() < pending.give_up {
            if !pending.refusing.contains(&self.at) {
                pending.refusing.push(self.at);
            }
            if !hopeless(&pending.refusing, &self.shut, self.routers.len()) {
                pending.turned_away = true;
                self.elsewhere = true;
                return None;
            }
        }
        let passes = reject.is_some_and(Reject::retryable) || pending.fate_seen;
        pending.open |= reject.is_some_and(leaves_open);
        let at = Instant::now() + Duration::from_millis(u64::from(refusal.retry_after_ms)).max(RETRY_LEAST);
        if passes && at < pending.give_up {
            if !std::mem::replace(&mut pending.waiting, true) {
                self.retries.entry(at).or_default().push(txid);
            }
            return None;
        }
        // The last answer speaks for the last attempt alone, unless it is a verdict.
        // That a channel admits the sender no more says nothing of an attempt that it took in before.
        let no_verdict = passes || turned_away || matches!(reject, Some(Reject::Storage | Reject::ChannelRefused));
        let says_so = matches!(reject, Some(Reject::TooLate | Reject::ChannelUntold));
        if pending.open && no_verdict && !says_so {
            let detail = format!("an earlier attempt may have executed; the last answer was {}", refusal.code);
            let (reject, code) = (Reject::TooLate, Reject::TooLate.code().to_owned());
            return self.end(SubmitEvent::Refused { txid, reject: Some(reject), group: None, code, detail });
        }
        self.end(SubmitEvent::Refused { txid, reject, group, code: refusal.code, detail: refusal.detail })
    }

    /// An answer that no correct router gives ends the transaction here.
    fn nonsense(&mut self, txid: TxId, detail: String) -> Option<SubmitEvent> {
        self.end(SubmitEvent::Refused { txid, reject: None, group: None, code: "protocol".to_owned(), detail })
    }

    fn end(&mut self, event: SubmitEvent) -> Option<SubmitEvent> {
        self.pending.remove(&event.txid())?;
        Some(event)
    }

    /// What is to be sent again now.
    fn due(&mut self) -> VecDeque<v1::SubmitBatch> {
        let mut again = Vec::new();
        for txid in take_due(&mut self.retries, Instant::now()) {
            match self.pending.get_mut(&txid) {
                Some(pending) if pending.turned_away => self.elsewhere = true,
                Some(pending) => {
                    pending.waiting = false;
                    again.push(pending.bytes.clone());
                }
                None => {}
            }
        }
        self.batches(again)
    }

    /// Ends what every router refuses, by letting us not in or by not handing it over: asking again does not mend
    /// that.
    fn refuse_hopeless(&mut self, cause: &str) {
        let routers = self.routers.len();
        let refused = self.pending.iter().filter(|(_, pending)| hopeless(&pending.refusing, &self.shut, routers));
        let refused: Vec<(TxId, bool)> = refused.map(|(txid, pending)| (*txid, pending.open)).collect();
        let news = refused
            .into_iter()
            .filter_map(|(txid, open)| {
                let (reject, detail) = match open {
                    true => (
                        Reject::TooLate,
                        format!("an earlier attempt may have executed; no router takes it from us: {cause}"),
                    ),
                    false => (Reject::AccessDenied, format!("no router takes it from us: {cause}")),
                };
                let code = reject.code().to_owned();
                self.end(SubmitEvent::Refused { txid, reject: Some(reject), group: None, code, detail })
            })
            .collect();
        self.tell(news);
    }

    /// Ends what has been tried for long enough.
    fn give_up(&mut self, cause: &str) {
        let now = Instant::now();
        let over: Vec<TxId> =
            self.pending.iter().filter(|(_, pending)| pending.give_up <= now).map(|(txid, _)| *txid).collect();
        let reject = Reject::TooLate;
        let news = over
            .into_iter()
            .filter_map(|txid| {
                let (code, detail) = (reject.code().to_owned(), format!("no router answered: {cause}"));
                self.end(SubmitEvent::Refused { txid, reject: Some(reject), group: None, code, detail })
            })
            .collect();
        self.tell(news);
    }
}

/// Whether every router is among those that refuse a transaction or those that do not let us in. One that cannot be
/// reached is among neither.
fn hopeless(refusing: &[usize], shut: &[usize], routers: usize) -> bool {
    (0..routers).all(|place| refusing.contains(&place) || shut.contains(&place))
}

/// The votes of a decision: at least one, and no group twice.
fn group_votes(votes: &v1::Votes) -> Result<Vec<GroupVote>, EdgeError> {
    if votes.votes.is_empty() {
        return Err(EdgeError::Missing { field: "votes" });
    }
    let mut known: Vec<GroupVote> = Vec::with_capacity(votes.votes.len());
    for vote in &votes.votes {
        let group = edge::group("group", vote.group)?;
        if known.iter().any(|other| other.group == group) {
            return Err(EdgeError::Number { field: "group of a second vote", found: vote.group });
        }
        let height = Some(Height(vote.height)).filter(|height| height.0 != 0);
        known.push(GroupVote { group, no: vote.reject(), height });
    }
    Ok(known)
}

/// Whether a refusal leaves open what became of the attempt it answers. A full queue or window took
/// nothing in; a leader that was lost, or could not read what it has, or a channel that tells nothing, may have.
fn leaves_open(reject: Reject) -> bool {
    matches!(
        reject,
        Reject::NotLeader | Reject::GroupStopped | Reject::TooLate | Reject::Storage | Reject::ChannelUntold
    )
}

/// Takes what is due, that of this very moment included: the alarm that rings for it would ring on.
fn take_due(retries: &mut BTreeMap<Instant, Vec<TxId>>, now: Instant) -> Vec<TxId> {
    let mut due = Vec::new();
    while let Some(first) = retries.first_entry().filter(|first| *first.key() <= now) {
        due.extend(first.remove());
    }
    due
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Hash32;

    #[test]
    fn only_what_every_router_refuses_is_hopeless() {
        assert!(hopeless(&[0, 1, 2], &[], 3));
        assert!(hopeless(&[], &[2, 0, 1], 3), "nobody lets us in");
        assert!(hopeless(&[1], &[0], 2));
        assert!(!hopeless(&[0, 2], &[2], 3), "one is down");
        assert!(!hopeless(&[], &[], 1));
    }

    #[test]
    fn what_is_due_now_is_due() {
        let (now, moment) = (Instant::now(), Duration::from_nanos(1));
        let tx = |number| TxId(Hash32([number; 32]));
        let mut retries =
            BTreeMap::from([(now - moment, vec![tx(1), tx(2)]), (now, vec![tx(3)]), (now + moment, vec![tx(4)])]);
        assert_eq!(take_due(&mut retries, now), [tx(1), tx(2), tx(3)]);
        assert_eq!(retries.into_values().collect::<Vec<_>>(), [[tx(4)]]);
    }
}

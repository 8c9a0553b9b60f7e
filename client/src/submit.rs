//! The submit stream: any number of transactions in flight over one connection, exactly one fate
//! for each.
//!
//! Owns the map of what has been sent and not answered, which is what is sent again after a
//! reconnect or a refusal that passes. Sending again is safe because the txid is the idempotency
//! key. It never signs and never looks into a transaction beyond its id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hashbrown::HashMap;
use ledger::{ClusterId, GroupId, Height, Receipt, Reject, SignedTx, Submission, TxId};
use proto::v1::submit_event::Event;
use proto::{EdgeError, edge, v1};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::ClientError;
use crate::net;
use crate::routers::{Routers, cause_of, connection_lost};

/// Transactions in one message.
const BATCH_TXS_MAX: usize = 2048;
/// Bytes of transactions in one message.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Messages between the pump and the connection.
const MESSAGES_QUEUED_MAX: usize = 16;
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
const RETRY_LEAST: Duration = Duration::from_millis(10);

/// How a submit stream behaves.
#[derive(Clone, Debug)]
pub struct SubmitOptions {
    /// Transactions in flight, and reported but not yet read; [`SubmitSender::send`] waits when
    /// there are this many.
    pub in_flight_max: usize,
    /// Ask for [`SubmitEvent::Applied`] after each transaction that is committed.
    pub notify_applied: bool,
    /// How long a transaction is sent again after lost connections and refusals that pass.
    pub give_up_after: Duration,
}

impl Default for SubmitOptions {
    fn default() -> Self {
        Self { in_flight_max: 32_768, notify_applied: false, give_up_after: Duration::from_secs(30) }
    }
}

/// A group's vote on a transaction that several groups vote on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupVote {
    /// Whose.
    pub group: GroupId,
    /// Why it is a NO; `None` for a YES.
    pub no: Option<Reject>,
    /// The block in which it was written, where the router knows it.
    pub height: Option<Height>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitEvent {
    /// Its receipt: the fate of a transaction that one group decides, committed or rejected.
    Receipt(Receipt),
    /// The fate of a transaction that several groups vote on: YES from all of them, or a NO.
    Decided {
        /// The transaction.
        txid: TxId,
        /// Every vote of a commit; of an abort those that the router held, a NO among them.
        votes: Vec<GroupVote>,
    },
    /// It is applied wherever it has to be, all credits with it. Comes after the fate, if asked for.
    Applied(TxId),
    /// It was refused without a trace. It may have executed, or may yet, only if the reason is
    /// `timeout`: whatever answer came last, that is the reason when an earlier attempt was not
    /// answered for certain. After its fate, it says that the credits were not confirmed in time.
    Refused {
        /// The transaction.
        txid: TxId,
        /// The reason, if this version knows it.
        reject: Option<Reject>,
        /// The group that refused; `None` when it was the router, or this client gave up.
        group: Option<GroupId>,
        /// Stable code.
        code: String,
        /// What happened in this case.
        detail: String,
    },
}

impl SubmitEvent {
    /// The transaction.
    #[must_use]
    pub fn txid(&self) -> TxId {
        match self {
            Self::Receipt(receipt) => receipt.txid,
            Self::Decided { txid, .. } | Self::Applied(txid) | Self::Refused { txid, .. } => *txid,
        }
    }
}

/// The NO among votes; without one, they commit.
#[must_use]
pub fn no_of(votes: &[GroupVote]) -> Option<(GroupId, Reject)> {
    votes.iter().find_map(|vote| Some((vote.group, vote.no?)))
}

/// An encoded transaction with its id, which the sender needs to recognise the answer.
#[derive(Clone, Debug)]
pub struct PreparedTx {
    /// Its id.
    pub txid: TxId,
    /// `borsh(SignedTx)`, or `borsh(Submission)` where openings of hidden slots come along.
    pub bytes: Bytes,
}

impl PreparedTx {
    /// Takes encoded bytes; only the outer form is looked at.
    ///
    /// # Errors
    /// [`Reject::Malformed`] or [`Reject::BodyTooLarge`].
    pub fn from_bytes(cluster: &ClusterId, bytes: Bytes) -> Result<Self, Reject> {
        let txid = if bytes.first() == Some(&2) {
            id_of(cluster, &Submission::split(&bytes)?.0)?
        } else {
            id_of(cluster, &bytes)?
        };
        Ok(Self { txid, bytes })
    }
}

fn id_of(cluster: &ClusterId, signed: &[u8]) -> Result<TxId, Reject> {
    if signed.len() > ledger::limits::SIGNED_TX_BYTES_MAX {
        return Err(Reject::BodyTooLarge);
    }
    let signed: SignedTx = borsh::from_slice(signed).map_err(|_| Reject::Malformed)?;
    Ok(signed.txid(cluster))
}

/// Both halves of an open stream.
pub struct SubmitStream {
    sender: SubmitSender,
    events: SubmitEvents,
}

/// The half that sends. Clones share the limit on what is in flight. When all are dropped, the
/// stream ends after the last fate.
#[derive(Clone)]
pub struct SubmitSender {
    cluster: ClusterId,
    queue: mpsc::Sender<Vec<PreparedTx>>,
    room: Arc<Semaphore>,
    in_flight_max: usize,
}

/// The half that reports. Reading it makes room for sending. When dropped, the stream is closed.
pub struct SubmitEvents {
    incoming: mpsc::UnboundedReceiver<Vec<SubmitEvent>>,
    room: Arc<Semaphore>,
    notify_applied: bool,
}

impl SubmitStream {
    pub(crate) fn open(routers: Arc<Routers>, cluster: ClusterId, options: SubmitOptions) -> Self {
        let in_flight_max = options.in_flight_max.clamp(1, 1 << 20);
        let room = Arc::new(Semaphore::new(in_flight_max));
        let (queue, queued) = mpsc::channel(MESSAGES_QUEUED_MAX);
        // Bounded by the room: an event leaves here before the room of its transaction is free.
        let (report, incoming) = mpsc::unbounded_channel();
        let notify_applied = options.notify_applied;
        let pump = Pump {
            routers,
            options,
            pending: HashMap::new(),
            retries: BTreeMap::new(),
            report,
            queued,
            input_open: true,
            room: room.clone(),
        };
        tokio::spawn(pump.run());
        Self {
            sender: SubmitSender { cluster, queue, room: room.clone(), in_flight_max },
            events: SubmitEvents { incoming, room, notify_applied },
        }
    }

    /// Sends transactions; see [`SubmitSender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, txs: Vec<Bytes>) -> Result<(), ClientError> {
        self.sender.send(txs).await
    }

    /// The events, one by one. Since this object can still send, they never end; use
    /// [`SubmitStream::split`] and drop the sender to see the end.
    pub fn events(&mut self) -> impl Stream<Item = SubmitEvent> + '_ {
        self.events.stream()
    }

    /// All events that are ready, at least one; `None` when the stream has ended.
    pub async fn next_events(&mut self) -> Option<Vec<SubmitEvent>> {
        self.events.next_events().await
    }

    /// Both halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (SubmitSender, SubmitEvents) {
        (self.sender, self.events)
    }
}

impl SubmitSender {
    /// Sends encoded transactions. Waits while too many are in flight, so some task must read the
    /// events. A transaction that is in flight already is not sent twice and has one fate.
    ///
    /// # Errors
    /// [`ClientError::BadTransaction`] when one is undecodable, and then none is sent;
    /// [`ClientError::Closed`].
    pub async fn send(&self, txs: Vec<Bytes>) -> Result<(), ClientError> {
        let prepared = txs
            .into_iter()
            .map(|bytes| PreparedTx::from_bytes(&self.cluster, bytes))
            .collect::<Result<Vec<_>, _>>()
            .map_err(ClientError::BadTransaction)?;
        self.send_prepared(prepared).await
    }

    /// As [`SubmitSender::send`], for callers that know the ids already.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub async fn send_prepared(&self, txs: Vec<PreparedTx>) -> Result<(), ClientError> {
        let mut rest = txs;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(BATCH_TXS_MAX).min(self.in_flight_max));
            let count = u32::try_from(rest.len()).expect("a batch has at most 2048");
            let permits = self.room.acquire_many(count).await.map_err(|_| ClientError::Closed)?;
            permits.forget();
            self.queue.send(rest).await.map_err(|_| ClientError::Closed)?;
            rest = later;
        }
        Ok(())
    }

    /// How many more transactions can be sent without waiting.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room.available_permits()
    }
}

impl SubmitEvents {
    /// All events that are ready, at least one; `None` when the stream has ended: every sender is
    /// dropped and every fate reported.
    pub async fn next_events(&mut self) -> Option<Vec<SubmitEvent>> {
        let events = self.incoming.recv().await?;
        let last = events.iter().filter(|event| is_last(event, self.notify_applied)).count();
        self.room.add_permits(last);
        Some(events)
    }

    /// The events, one by one.
    pub fn stream(&mut self) -> impl Stream<Item = SubmitEvent> + '_ {
        use futures::StreamExt;
        futures::stream::unfold(self, |events| async move {
            let batch = events.next_events().await?;
            Some((futures::stream::iter(batch), events))
        })
        .flatten()
    }
}

impl Drop for SubmitEvents {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Whether no other event follows for this transaction.
fn is_last(event: &SubmitEvent, notify_applied: bool) -> bool {
    match event {
        SubmitEvent::Receipt(receipt) => !(notify_applied && receipt.committed()),
        SubmitEvent::Decided { votes, .. } => !(notify_applied && no_of(votes).is_none()),
        SubmitEvent::Applied(_) | SubmitEvent::Refused { .. } => true,
    }
}

struct Pending {
    bytes: Bytes,
    give_up: Instant,
    /// The fate has been reported; only `applied` is missing.
    fate_seen: bool,
    /// An attempt had no answer, or one that leaves open what became of it.
    open: bool,
    /// Waits in `retries`.
    waiting: bool,
}

/// Why a connection's turn ended.
enum Turn {
    /// Nothing is left to do.
    Done,
    /// The connection was lost; something had been received on it before.
    Lost { answered: bool, cause: String },
}

/// One task that owns the state of a stream.
struct Pump {
    routers: Arc<Routers>,
    options: SubmitOptions,
    pending: HashMap<TxId, Pending>,
    retries: BTreeMap<Instant, Vec<TxId>>,
    report: mpsc::UnboundedSender<Vec<SubmitEvent>>,
    queued: mpsc::Receiver<Vec<PreparedTx>>,
    input_open: bool,
    room: Arc<Semaphore>,
}

impl Pump {
    async fn run(mut self) {
        let mut delay = RECONNECT_FIRST;
        let mut tried = 0usize;
        loop {
            match self.connected().await {
                Turn::Done => return,
                Turn::Lost { answered, cause } => {
                    if answered {
                        (delay, tried) = (RECONNECT_FIRST, 0);
                    }
                    tracing::debug!(%cause, in_flight = self.pending.len(), "submit stream lost");
                    self.pending.values_mut().for_each(|pending| pending.open = true);
                    self.give_up(&cause);
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

    fn finished(&self) -> bool {
        self.report.is_closed() || (!self.input_open && self.pending.is_empty())
    }

    /// Runs over one connection until it is lost or all is done.
    async fn connected(&mut self) -> Turn {
        let (turn, _, channel) = self.routers.current();
        let (outgoing, messages) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let mut client = net::router_client(channel);
        let opening = client.submit(ReceiverStream::new(messages));
        let mut incoming = match tokio::time::timeout(self.options.give_up_after, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.lost(turn, false, &status),
            Err(_) => {
                return self.lost(turn, false, &tonic::Status::deadline_exceeded("no answer to the call"));
            }
        };
        let mut unsent = self.everything();
        let mut answered = false;
        loop {
            if self.finished() {
                return Turn::Done;
            }
            let wake = self.retries.keys().next().copied();
            let room = self.queued_room(&unsent);
            tokio::select! {
                biased;
                events = incoming.message() => match events {
                    Ok(Some(events)) => { answered = true; self.take(events.events); }
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

    fn queued_room(&self, unsent: &std::collections::VecDeque<v1::SubmitBatch>) -> bool {
        self.input_open && unsent.len() < MESSAGES_QUEUED_MAX
    }

    fn lost(&self, turn: usize, answered: bool, status: &tonic::Status) -> Turn {
        self.routers.lost(turn);
        debug_assert!(connection_lost(status) || !status.message().is_empty());
        Turn::Lost { answered, cause: cause_of(status) }
    }

    /// Everything that has no fate yet, to be sent over a new connection.
    fn everything(&mut self) -> std::collections::VecDeque<v1::SubmitBatch> {
        self.retries.clear();
        let all: Vec<Bytes> = self
            .pending
            .values_mut()
            .map(|pending| {
                pending.waiting = false;
                pending.bytes.clone()
            })
            .collect();
        self.batches(all)
    }

    fn batches(&self, txs: Vec<Bytes>) -> std::collections::VecDeque<v1::SubmitBatch> {
        let mut batches = std::collections::VecDeque::new();
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
    fn accept(&mut self, txs: Vec<PreparedTx>) -> std::collections::VecDeque<v1::SubmitBatch> {
        let give_up = Instant::now() + self.options.give_up_after;
        let mut fresh = Vec::with_capacity(txs.len());
        for PreparedTx { txid, bytes } in txs {
            if self.pending.contains_key(&txid) {
                self.room.add_permits(1);
                continue;
            }
            fresh.push(bytes.clone());
            self.pending.insert(txid, Pending { bytes, give_up, fate_seen: false, open: false, waiting: false });
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
        let pending = self.pending.get_mut(&txid)?;
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
        if pending.open && (passes || reject == Some(Reject::Storage)) && reject != Some(Reject::TooLate) {
            let detail = format!("an earlier attempt may have executed; the last answer was {}", refusal.code);
            let (reject, code) = (Reject::TooLate, Reject::TooLate.code().to_owned());
            return self.end(SubmitEvent::Refused { txid, reject: Some(reject), group: None, code, detail });
        }
        let group = Some(GroupId(group)).filter(|group| group.kind().is_some());
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
    fn due(&mut self) -> std::collections::VecDeque<v1::SubmitBatch> {
        let now = Instant::now();
        let later = self.retries.split_off(&now);
        let ready = std::mem::replace(&mut self.retries, later);
        let mut again = Vec::new();
        for txid in ready.into_values().flatten() {
            if let Some(pending) = self.pending.get_mut(&txid) {
                pending.waiting = false;
                again.push(pending.bytes.clone());
            }
        }
        self.batches(again)
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
/// nothing in; a leader that was lost, or could not read what it has, may have.
fn leaves_open(reject: Reject) -> bool {
    matches!(reject, Reject::NotLeader | Reject::GroupStopped | Reject::TooLate | Reject::Storage)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! The submit stream: any number of transactions in flight over one connection, exactly one fate
//! for each.
//!
//! Owns both ends of a stream and the room on it; `pump` is the task between them and the router. It
//! never signs and never looks into a transaction beyond its id.

mod pump;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use ledger::{ClusterId, GroupId, Height, Receipt, Reject, Submission, TxId};
use tokio::sync::{Semaphore, mpsc};

use crate::error::ClientError;
use crate::routers::Routers;

use pump::Pump;

/// Transactions in one message.
const BATCH_TXS_MAX: usize = 2048;
/// Messages between the pump and the connection.
const MESSAGES_QUEUED_MAX: usize = 16;

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
    /// `borsh(SignedTx)`; `borsh(Submission)` where openings of hidden slots come along; `borsh(DealtTx)` where the
    /// moves are in several ledgers and each is given its own witnesses.
    pub bytes: Bytes,
}

impl PreparedTx {
    /// Takes encoded bytes; only the outer form is looked at.
    ///
    /// # Errors
    /// [`Reject::Malformed`] or [`Reject::BodyTooLarge`].
    pub fn from_bytes(cluster: &ClusterId, bytes: Bytes) -> Result<Self, Reject> {
        let txid = ledger::tx::txid(cluster, &Submission::body_of(&bytes)?);
        Ok(Self { txid, bytes })
    }
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
        tokio::spawn(Pump::new(routers, options, report, queued, room.clone()).run());
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

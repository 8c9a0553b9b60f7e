//! The link to one node: a bounded queue of batches and the long-lived `Ingest` stream that empties
//! it, opened when there is something to send and again after it was lost.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use client::net;
use ledger::NodeId;
use ledger::limits::{BATCH_BYTES_MAX, BATCH_TXS_MAX, INGEST_QUEUE_TXS};
use parking_lot::Mutex;
use proto::v1;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::backend::{EventSink, IngestError, LocalNode};
use super::peers::Peers;

const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// Bytes of transactions on their way to one node.
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages of events from the node in this process that may wait.
const LOCAL_REPLIES_MAX: usize = 256;

/// Batches on their way to one node.
pub(super) struct LinkQueue {
    state: Mutex<State>,
    /// Rings when a batch is queued, or the stream that empties the queue has changed.
    bell: Notify,
}

struct State {
    batches: VecDeque<v1::IngestBatch>,
    txs: usize,
    bytes: usize,
    /// Bytes of the batch at the back, which later ones may join.
    back_bytes: usize,
    down: bool,
    /// Counts streams, so that a dying one takes nothing from its successor.
    stream: u64,
}

impl LinkQueue {
    pub(super) fn new() -> Self {
        let state = State { batches: VecDeque::new(), txs: 0, bytes: 0, back_bytes: 0, down: false, stream: 0 };
        Self { state: Mutex::new(state), bell: Notify::new() }
    }

    /// Queues a batch; it joins the one before if that is for the same group and there is room.
    pub(super) fn push(&self, mut batch: v1::IngestBatch) -> Result<(), IngestError> {
        let bytes = bytes_of(&batch);
        let mut state = self.state.lock();
        if state.down {
            return Err(IngestError::Down);
        }
        if state.txs + batch.txs.len() > INGEST_QUEUE_TXS || state.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(IngestError::Full);
        }
        state.txs += batch.txs.len();
        state.bytes += bytes;
        let joined = state.back_bytes + bytes;
        match state.batches.back_mut() {
            Some(back)
                if back.group == batch.group
                    && back.notify_applied == batch.notify_applied
                    && back.caller == batch.caller
                    && back.txs.len() + batch.txs.len() <= BATCH_TXS_MAX
                    && joined <= BATCH_BYTES_MAX =>
            {
                back.txs.append(&mut batch.txs);
                state.back_bytes = joined;
            }
            _ => {
                state.batches.push_back(batch);
                state.back_bytes = bytes;
            }
        }
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// The next batch for the stream with this number; `None` once there is a newer stream.
    async fn pop(&self, stream: u64) -> Option<v1::IngestBatch> {
        loop {
            {
                let mut state = self.state.lock();
                if state.stream != stream {
                    // The ring may have been for the newer stream.
                    self.bell.notify_one();
                    return None;
                }
                if let Some(batch) = state.batches.pop_front() {
                    state.txs -= batch.txs.len();
                    state.bytes -= bytes_of(&batch);
                    if state.batches.is_empty() {
                        state.back_bytes = 0;
                    }
                    return Some(batch);
                }
            }
            self.bell.notified().await;
        }
    }

    async fn filled(&self) {
        loop {
            if !self.state.lock().batches.is_empty() {
                return;
            }
            self.bell.notified().await;
        }
    }

    fn open(&self) -> u64 {
        let mut state = self.state.lock();
        state.stream += 1;
        state.stream
    }

    /// Drops what is queued and takes nothing more until [`LinkQueue::up`].
    fn shut(&self) {
        let mut state = self.state.lock();
        state.stream += 1;
        state.down = true;
        state.batches.clear();
        (state.txs, state.bytes, state.back_bytes) = (0, 0, 0);
        drop(state);
        self.bell.notify_one();
    }

    fn up(&self) {
        self.state.lock().down = false;
    }
}

fn bytes_of(batch: &v1::IngestBatch) -> usize {
    batch.txs.iter().map(bytes::Bytes::len).sum()
}

/// Serves the link to a node of another process for as long as the sink lives.
pub(super) async fn run(node: NodeId, queue: Arc<LinkQueue>, peers: Arc<Peers>, sink: Weak<dyn EventSink>) {
    let mut delay = RECONNECT_FIRST;
    loop {
        queue.filled().await;
        let mut heard = false;
        let ended = session(node, &queue, &peers, &sink, &mut heard).await;
        queue.shut();
        let Some(sink) = sink.upgrade() else { return };
        tracing::debug!(%node, cause = %ended, "ingest link lost");
        sink.link_lost(node);
        drop(sink);
        if heard {
            delay = RECONNECT_FIRST;
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RECONNECT_MAX);
        queue.up();
    }
}

/// One life of the stream. Returns why it ended.
async fn session(
    node: NodeId,
    queue: &Arc<LinkQueue>,
    peers: &Peers,
    sink: &Weak<dyn EventSink>,
    heard: &mut bool,
) -> Status {
    let channel = match peers.channel(node) {
        Ok(channel) => channel,
        Err(status) => return status,
    };
    let stream = queue.open();
    let outgoing = futures::stream::unfold(queue.clone(), move |queue| async move {
        let batch = queue.pop(stream).await?;
        Some((batch, queue))
    });
    let mut incoming = match net::node_client(channel).ingest(outgoing).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                *heard = true;
                let Some(sink) = sink.upgrade() else {
                    return Status::cancelled("the gateway is gone");
                };
                sink.events(node, message.events);
            }
            Ok(None) => return Status::unavailable("the node closed the stream"),
            Err(status) => return status,
        }
    }
}

/// Serves the link to the node in this process.
pub(super) async fn run_local(local: Arc<dyn LocalNode>, queue: Arc<LinkQueue>, sink: Weak<dyn EventSink>) {
    let (reply, mut replies) = mpsc::channel::<v1::SubmitEvents>(LOCAL_REPLIES_MAX);
    let node = local.id();
    let stream = queue.open();
    let hand_over = async {
        while let Some(batch) = queue.pop(stream).await {
            local.ingest(batch, reply.clone()).await;
        }
    };
    let hand_back = async {
        let mut ready = Vec::new();
        while replies.recv_many(&mut ready, LOCAL_REPLIES_MAX).await > 0 {
            let Some(sink) = sink.upgrade() else { return };
            let mut all = ready.drain(..);
            let mut events = all.next().map(|first| first.events).unwrap_or_default();
            for more in all {
                events.extend(more.events);
            }
            sink.events(node, events);
        }
    };
    // Both run at once; `reply` is held here, so the second ends only when the sink is gone.
    tokio::select! {
        () = hand_over => {}
        () = hand_back => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn batch(group: u64, txs: usize) -> v1::IngestBatch {
        v1::IngestBatch { group, txs: vec![Bytes::from_static(b"tx"); txs], notify_applied: false, caller: None }
    }

    #[tokio::test]
    async fn batches_of_one_group_travel_together() {
        let queue = LinkQueue::new();
        let stream = queue.open();
        for (group, txs) in [(1, 2), (1, 3), (2, 1), (1, 1)] {
            queue.push(batch(group, txs)).unwrap();
        }
        let mut shape = Vec::new();
        for _ in 0..3 {
            let next = queue.pop(stream).await.unwrap();
            shape.push((next.group, next.txs.len()));
        }
        assert_eq!(shape, [(1, 5), (2, 1), (1, 1)]);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_bytes_too() {
        let queue = LinkQueue::new();
        let stream = queue.open();
        let large = || v1::IngestBatch {
            group: 1,
            txs: vec![Bytes::from(vec![7; BATCH_BYTES_MAX / 4]); 4],
            notify_applied: false,
            caller: None,
        };
        for _ in 0..QUEUE_BYTES_MAX / BATCH_BYTES_MAX {
            queue.push(large()).unwrap();
        }
        assert_eq!(queue.push(batch(1, 1)), Err(IngestError::Full));
        assert!(queue.pop(stream).await.is_some());
        assert_eq!(queue.push(large()), Ok(()), "room again");
        queue.shut();
        queue.up();
        assert_eq!(queue.push(large()), Ok(()));
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_dead_stream_takes_nothing() {
        let queue = LinkQueue::new();
        let old = queue.open();
        for _ in 0..INGEST_QUEUE_TXS / 4096 {
            queue.push(batch(1, 4096)).unwrap();
        }
        assert_eq!(queue.push(batch(1, 1)), Err(IngestError::Full));
        let new = queue.open();
        assert_eq!(queue.pop(old).await, None);
        assert!(queue.pop(new).await.is_some());
        queue.shut();
        assert_eq!(queue.push(batch(1, 1)), Err(IngestError::Down));
        queue.up();
        assert_eq!(queue.push(batch(1, 1)), Ok(()));
    }
}

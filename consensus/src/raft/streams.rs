//! Arriving appends, put back into the order of their stream.
//!
//! A sender has several appends on the way, and the transport may deliver them in any order. Each
//! names its stream and its place in it; it is handed to openraft when all before it were. A stream
//! whose sender gave up is forgotten when newer ones come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use ledger::ids::NodeId;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::group::HandleError;
use super::network::APPENDS_IN_FLIGHT_MAX;
use super::types::{Raft, TypeConfig, position};
use super::wire::{Append, AppendReply};

/// Streams remembered for each sender, so that a late append of a stream given up disturbs nothing.
const STREAMS_PER_SENDER_MAX: usize = 4;
/// Appends of one stream that may wait for their turn or for their answer: a sender has fewer on the
/// way.
const WAITING_MAX: usize = 2 * APPENDS_IN_FLIGHT_MAX;

type Request = AppendEntriesRequest<TypeConfig>;
type Answer = oneshot::Sender<StreamAppendResult<TypeConfig>>;

struct Incoming {
    name: u64,
    next: u64,
    early: BTreeMap<u64, (Request, Answer)>,
    ready: mpsc::Sender<(Request, Answer)>,
}

/// The append streams that arrive at one group, by the node that sends them. The transport lets only
/// members of the group call, so their number bounds the map.
#[derive(Default)]
pub(crate) struct Streams {
    senders: Mutex<BTreeMap<NodeId, VecDeque<Incoming>>>,
}

impl Streams {
    /// Answers one append of the replica on node `from`.
    pub(crate) async fn append(&self, raft: &Raft, from: NodeId, append: Append) -> Result<AppendReply, HandleError> {
        if append.stream == 0 {
            let previous = append.request.prev_log_id;
            let end = super::wire::append_end(&append.request);
            let reply =
                raft.append_entries(append.request).await.map_err(|error| HandleError::Stopped(error.to_string()))?;
            return match reply {
                openraft::raft::AppendEntriesResponse::Conflict if previous.is_none() => {
                    Err(HandleError::Malformed("conflict without a previous entry".into()))
                }
                reply => Ok(answer(reply.into_stream_result(previous, end))),
            };
        }
        let (tx, rx) = oneshot::channel();
        self.enqueue(raft, from, append, tx)?;
        match rx.await {
            Ok(result) => Ok(answer(result)),
            Err(_) => Err(HandleError::OutOfOrder),
        }
    }

    /// Drops all streams; whoever waits gets an error.
    pub(crate) fn clear(&self) {
        self.senders.lock().clear();
    }

    fn enqueue(&self, raft: &Raft, from: NodeId, append: Append, answer: Answer) -> Result<(), HandleError> {
        let mut senders = self.senders.lock();
        let streams = senders.entry(from).or_default();
        let at = match streams.iter().position(|stream| stream.name == append.stream) {
            Some(at) => at,
            None => {
                if streams.len() == STREAMS_PER_SENDER_MAX {
                    streams.pop_front();
                }
                streams.push_back(Incoming::start(raft.clone(), append.stream));
                streams.len() - 1
            }
        };
        let stream = streams.get_mut(at).ok_or(HandleError::OutOfOrder)?;
        if append.sequence < stream.next || append.sequence - stream.next >= WAITING_MAX as u64 {
            return Err(HandleError::OutOfOrder);
        }
        stream.early.insert(append.sequence, (append.request, answer));
        while let Some(ready) = stream.early.remove(&stream.next) {
            stream.next += 1;
            // Full or closed: the answer's sender is dropped, and the sender of the append is told.
            if stream.ready.try_send(ready).is_err() {
                return Err(HandleError::OutOfOrder);
            }
        }
        Ok(())
    }
}

impl Incoming {
    fn start(raft: Raft, name: u64) -> Self {
        let (ready, requests) = mpsc::channel(WAITING_MAX);
        tokio::spawn(serve(raft, requests));
        Self { name, next: 0, early: BTreeMap::new(), ready }
    }
}

/// Feeds one stream to openraft and hands the answers back, in order.
async fn serve(raft: Raft, requests: mpsc::Receiver<(Request, Answer)>) {
    let waiting: Arc<Mutex<VecDeque<Answer>>> = Arc::default();
    let queue = waiting.clone();
    let input = stream::unfold((requests, queue), |(mut requests, queue)| async move {
        let (request, answer) = requests.recv().await?;
        queue.lock().push_back(answer);
        Some((request, (requests, queue)))
    });
    let mut results = std::pin::pin!(raft.stream_append(input));
    while let Some(Ok(result)) = results.next().await {
        let Some(answer) = waiting.lock().pop_front() else {
            break;
        };
        // The caller may have given up; the entries are in the log all the same.
        drop(answer.send(result));
    }
    // Whatever still waits learns of it by its sender being dropped.
    waiting.lock().clear();
}

fn answer(result: StreamAppendResult<TypeConfig>) -> AppendReply {
    match result {
        Ok(upto) => AppendReply::Matched(upto.as_ref().map(position)),
        Err(StreamAppendError::Conflict(at)) => AppendReply::Conflict(position(&at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendReply::HigherVote((&vote).into()),
    }
}

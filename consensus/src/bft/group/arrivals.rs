//! What arrives from the other members: a lane for each, so that one that floods waits for itself alone.
//!
//! Owns: how many calls of one node are open at a time, and in which order messages come to the machine: a few of each
//! node in turn, however much one of them has sent. The messages of a call come into the lane when those of the call before
//! have left it, so a node holds what its open calls hold, and nothing more. Never looks at what messages say.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use ledger::ids::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::bft::Message;

/// Messages of one node that the machine takes before those of the next: as many as are judged in a few milliseconds.
const STRETCH_MESSAGES: usize = 16;

/// Calls that are open, counted by who has made them.
pub(super) struct Calls {
    most: usize,
    open: Mutex<BTreeMap<NodeId, usize>>,
}

/// An open call. It counts until this is dropped, also when its caller does not wait any more.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    node: NodeId,
}

impl Calls {
    /// So many of one node at a time.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, open: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a call; `None` when its node has as many open as it may have.
    pub(super) fn open(&self, node: NodeId) -> Option<Call<'_>> {
        let mut open = self.open.lock();
        let count = open.entry(node).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Call { calls: self, node })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut open = self.calls.open.lock();
        if let Some(count) = open.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.node);
            }
        }
    }
}

/// The messages of one node.
struct Lane {
    /// For one call.
    room: Arc<Semaphore>,
    messages: VecDeque<Message>,
    /// Held while there are messages.
    taken: Option<OwnedSemaphorePermit>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(1)), messages: VecDeque::new(), taken: None }
    }
}

#[derive(Default)]
struct Lanes {
    by_node: BTreeMap<NodeId, Lane>,
    /// Whose messages were taken last.
    last: Option<NodeId>,
    closed: bool,
}

impl Lanes {
    /// A few messages of the next node that has sent any.
    fn take(&mut self) -> Option<(NodeId, Vec<Message>)> {
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next =
            self.by_node.range((behind, Bound::Unbounded)).find(waits).or_else(|| self.by_node.iter().find(waits));
        let node = *next?.0;
        self.last = Some(node);
        let lane = self.by_node.get_mut(&node)?;
        let count = lane.messages.len().min(STRETCH_MESSAGES);
        let messages = lane.messages.drain(..count).collect();
        if lane.messages.is_empty() {
            lane.taken = None;
        }
        Some((node, messages))
    }
}

fn waits((_, lane): &(&NodeId, &Lane)) -> bool {
    !lane.messages.is_empty()
}

#[derive(Default)]
struct Shared {
    lanes: Mutex<Lanes>,
    news: Notify,
}

/// Nobody takes messages any more.
pub(super) struct Closed;

/// Where calls put their messages.
#[derive(Clone, Default)]
pub(super) struct Arrivals(Arc<Shared>);

/// Where the owner of the machine takes them from. Dropping it lets go whoever waits.
pub(super) struct Taker(Arc<Shared>);

impl Arrivals {
    /// Lanes without messages, and who takes them.
    pub(super) fn new() -> (Self, Taker) {
        let arrivals = Self::default();
        let taker = Taker(arrivals.0.clone());
        (arrivals, taker)
    }

    /// Puts the messages of a call into the lane of its node, as soon as those before have left it.
    pub(super) async fn put(&self, from: NodeId, messages: Vec<Message>) -> Result<(), Closed> {
        if messages.is_empty() {
            return Ok(());
        }
        let room = self.room(from).ok_or(Closed)?;
        let taken = room.acquire_owned().await.map_err(|_| Closed)?;
        self.fill(from, messages, taken);
        self.0.news.notify_one();
        Ok(())
    }

    fn room(&self, from: NodeId) -> Option<Arc<Semaphore>> {
        let mut lanes = self.0.lanes.lock();
        if lanes.closed {
            return None;
        }
        Some(lanes.by_node.entry(from).or_default().room.clone())
    }

    fn fill(&self, from: NodeId, messages: Vec<Message>, taken: OwnedSemaphorePermit) {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.by_node.entry(from).or_default();
        lane.messages.extend(messages);
        lane.taken = Some(taken);
    }
}

impl Taker {
    /// Waits for messages, and takes a few of one node. Nothing is lost when this is dropped while it waits.
    pub(super) async fn next(&self) -> (NodeId, Vec<Message>) {
        loop {
            let taken = self.0.lanes.lock().take();
            if let Some(taken) = taken {
                return taken;
            }
            self.0.news.notified().await;
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let mut lanes = self.0.lanes.lock();
        lanes.closed = true;
        for lane in lanes.by_node.values() {
            lane.room.close();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;
    use ledger::hash::Hash32;

    use super::*;

    fn want(index: u64) -> Message {
        Message::Want { index, value: Hash32::ZERO }
    }

    fn indexes((node, messages): (NodeId, Vec<Message>)) -> (u32, Vec<u64>) {
        let index = |message: Message| match message {
            Message::Want { index, .. } => index,
            other => panic!("{other:?}"),
        };
        (node.0, messages.into_iter().map(index).collect())
    }

    #[test]
    fn a_node_has_so_many_calls_open_and_others_have_their_own() {
        let calls = Calls::new(2);
        let first = calls.open(NodeId(1)).unwrap();
        let second = calls.open(NodeId(1));
        assert!(second.is_some() && calls.open(NodeId(1)).is_none());
        assert!(calls.open(NodeId(2)).is_some());
        drop(first);
        assert!(calls.open(NodeId(1)).is_some());
        drop(second);
        assert!(calls.open.lock().is_empty());
    }

    #[tokio::test]
    async fn one_that_floods_waits_for_itself_and_others_have_their_turns() {
        let (arrivals, taker) = Arrivals::new();
        let all = STRETCH_MESSAGES as u64;
        arrivals.put(NodeId(1), (0..3 * all).map(want).collect()).await.ok().unwrap();
        // Its next call stays outside until all of that has left.
        let mut later = Box::pin(arrivals.put(NodeId(1), vec![want(999)]));
        assert!(later.as_mut().now_or_never().is_none());
        assert_eq!(indexes(taker.next().await), (1, (0..all).collect()));
        for node in [3, 2] {
            arrivals.put(NodeId(node), vec![want(7)]).await.ok().unwrap();
        }
        assert_eq!(indexes(taker.next().await), (2, vec![7]));
        assert_eq!(indexes(taker.next().await), (3, vec![7]));
        assert_eq!(indexes(taker.next().await), (1, (all..2 * all).collect()));
        assert!(later.as_mut().now_or_never().is_none());
        assert_eq!(indexes(taker.next().await), (1, (2 * all..3 * all).collect()), "in the order in which they came");
        later.await.ok().unwrap();
        assert_eq!(indexes(taker.next().await), (1, vec![999]));
        assert!(taker.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn whoever_waits_is_let_go_when_nobody_takes_messages_any_more() {
        let (arrivals, taker) = Arrivals::new();
        arrivals.put(NodeId(1), vec![want(1)]).await.ok().unwrap();
        let mut waiting = Box::pin(arrivals.put(NodeId(1), vec![want(2)]));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(taker);
        assert!(waiting.await.is_err());
        assert!(arrivals.put(NodeId(2), vec![want(3)]).await.is_err());
    }
}

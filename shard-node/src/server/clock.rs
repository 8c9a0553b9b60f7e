//! Clock exchange: followers cannot refuse a committed entry, so a leader stamps with the median of
//! the clocks of its group's nodes (DESIGN §8), and a node far from the median raises an alarm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::net;
use ledger::ids::{NodeId, Tick};
use proto::v1;
use router::gateway::Peers;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two rounds of questions.
const EVERY: Duration = Duration::from_secs(1);
/// A peer that does not answer in this time is left out of the round.
const PATIENCE: Duration = Duration::from_millis(400);

/// This process's clocks: monotonic ticks and the wall clock at tick zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall_at_start_ms: i64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), wall_at_start_ms: wall_ms() }
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// What to add to a tick to get this node's own wall clock. Follows the wall clock when
    /// something adjusts it.
    #[must_use]
    pub fn wall_offset_ms(&self) -> i64 {
        wall_ms() - i64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)
    }

    /// The wall clock at the start.
    #[must_use]
    pub fn wall_at_start_ms(&self) -> i64 {
        self.wall_at_start_ms
    }
}

/// The wall clock in milliseconds since the epoch.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How far each peer's clock is from ours; only peers that answered in the last round.
pub type Offsets = BTreeMap<NodeId, i64>;

/// The median of our clock (offset 0) and the clocks of the group's other nodes that are known. The
/// lower one of an even number, so that a pair never runs ahead.
#[must_use]
pub fn median_offset_ms(offsets: &Offsets, me: NodeId, members: &[NodeId]) -> i64 {
    let mut known: Vec<i64> =
        members.iter().filter(|node| **node != me).filter_map(|node| offsets.get(node).copied()).collect();
    known.push(0);
    known.sort_unstable();
    known[(known.len() - 1) / 2]
}

/// Asks the peers again and again until `stop`.
pub async fn exchange(peers: Arc<Peers>, me: NodeId, offsets: watch::Sender<Offsets>, stop: CancellationToken) {
    loop {
        let nodes: Vec<NodeId> = peers.view().borrow().nodes.keys().copied().filter(|node| *node != me).collect();
        let asked = nodes.into_iter().map(|node| ask(Arc::clone(&peers), node));
        let round: Offsets = futures::future::join_all(asked).await.into_iter().flatten().collect();
        offsets.send_replace(round);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn ask(peers: Arc<Peers>, node: NodeId) -> Option<(NodeId, i64)> {
    let mut client = net::node_client(peers.channel(node).ok()?);
    let sent = wall_ms();
    let reply = tokio::time::timeout(PATIENCE, client.clock(v1::ClockRequest {})).await.ok()?.ok()?;
    let received = wall_ms();
    let theirs = i64::try_from(reply.into_inner().unix_ms).ok()?;
    Some((node, theirs - (sent + received) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_clock_does_not_move_the_median() {
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        let offsets: Offsets = [(NodeId(2), 3), (NodeId(3), 90_000)].into();
        assert_eq!(median_offset_ms(&offsets, NodeId(1), &nodes), 3);
        assert_eq!(median_offset_ms(&Offsets::new(), NodeId(1), &nodes), 0);
        let offsets: Offsets = [(NodeId(2), -4_000), (NodeId(3), -4_002)].into();
        assert_eq!(median_offset_ms(&offsets, NodeId(1), &nodes), -4_000);
    }
}

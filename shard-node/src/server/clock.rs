//! The guarded clock: followers cannot refuse a committed entry, so a leader stamps with the median of
//! the clocks of its group's nodes (DESIGN §8), and a node far from the median raises an alarm.
//!
//! Every reading, of a peer's wall clock and of our own, is taken against our monotonic clock and
//! holds until the next exchange. What moves a stamp in between is the monotonic clock alone: somebody
//! who sets a wall clock, here or there, moves one reading of several at the next exchange, and no
//! stamp before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::net;
use ledger::ids::{NodeId, Tick};
use proto::v1;
use router::gateway::Peers;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two rounds of questions.
const EVERY: Duration = Duration::from_secs(1);
/// Between two rounds until most nodes have answered one: nobody stamps before.
const EVERY_AT_FIRST: Duration = Duration::from_millis(100);
/// Between two looks at our own wall clock.
const LOOK: Duration = Duration::from_millis(50);
/// Against the monotonic clock: adjustments are slower, so this is somebody setting the clock, or the
/// machine that slept. The others are asked again at once.
const STEP_MS: u64 = 50;
/// Both clocks are read within this time, or again.
const READ_WITHIN_MS: i64 = 10;
/// A peer that does not answer in this time is left out of the round.
const PATIENCE: Duration = Duration::from_millis(400);

/// A machine's wall clock, which anybody may set.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> i64;
}

/// The wall clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWall;

impl WallClock for SystemWall {
    fn unix_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// This process's clocks: monotonic ticks, which are the runtime's, and the wall clock. Clones are the
/// same clocks.
#[derive(Clone)]
pub struct Clock {
    start: Instant,
    wall: Arc<dyn WallClock>,
    shift_ms: Arc<AtomicI64>,
}

impl Clock {
    /// A clock whose ticks start now, and the system's wall clock.
    #[must_use]
    pub fn start() -> Self {
        Self::start_by(Arc::new(SystemWall))
    }

    /// As [`Clock::start`], by this wall clock.
    #[must_use]
    pub fn start_by(wall: Arc<dyn WallClock>) -> Self {
        Self { start: Instant::now(), wall, shift_ms: Arc::default() }
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The wall clock in milliseconds since the epoch.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.wall.unix_ms().saturating_add(self.shift_ms.load(Ordering::Relaxed))
    }

    /// The wall clock against the tick, now. Changes when something sets the wall clock.
    #[must_use]
    pub fn wall_offset_ms(&self) -> i64 {
        loop {
            let before = self.elapsed_ms();
            let wall = self.wall_ms();
            let after = self.elapsed_ms();
            // A thread that was stopped between the two has read two different times.
            if after - before < READ_WITHIN_MS {
                return wall - (before + after) / 2;
            }
        }
    }

    /// Sets the wall clock of this process alone by so much, for tests of what follows from it.
    pub fn shift_wall(&self, by_ms: i64) {
        self.shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.tick().0).unwrap_or(i64::MAX)
    }
}

/// Wall clocks against our tick, as of the last exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Our own.
    pub own_ms: i64,
    /// Those of the peers that answered.
    pub peers_ms: BTreeMap<NodeId, i64>,
}

impl Readings {
    /// What to add to a tick for the median of the clocks of these nodes, of which we are one; the
    /// lower one of an even number, so that a pair never runs ahead. `None` when fewer than a
    /// majority are known: the few could be wrong together.
    #[must_use]
    pub fn guarded_ms(&self, me: NodeId, members: &[NodeId]) -> Option<i64> {
        let others = members.iter().filter(|node| **node != me);
        let mut known: Vec<i64> = others.filter_map(|node| self.peers_ms.get(node).copied()).collect();
        known.push(self.own_ms);
        if known.len() * 2 <= members.len() {
            return None;
        }
        known.sort_unstable();
        Some(known[(known.len() - 1) / 2])
    }
}

/// Asks the peers again and again until `stop`. There are no readings before the first round.
pub async fn exchange(
    peers: Arc<Peers>,
    me: NodeId,
    clock: Clock,
    readings: watch::Sender<Option<Readings>>,
    stop: CancellationToken,
) {
    let mut every = EVERY_AT_FIRST;
    loop {
        let nodes: Vec<NodeId> = peers.view().borrow().nodes.keys().copied().filter(|node| *node != me).collect();
        let asked = nodes.iter().map(|node| ask(Arc::clone(&peers), *node, clock.clone()));
        let peers_ms: BTreeMap<NodeId, i64> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        if 2 * (peers_ms.len() + 1) > nodes.len() + 1 {
            every = EVERY;
        }
        let own_ms = clock.wall_offset_ms();
        readings.send_replace(Some(Readings { own_ms, peers_ms }));
        let next = tokio::time::sleep(every);
        tokio::select! {
            () = stop.cancelled() => return,
            () = next => {}
            () = stepped(&clock, own_ms) => tracing::warn!("this machine's wall clock was set; asking the others"),
        }
    }
}

/// Resolves when the wall clock has left the place against the monotonic clock that it had.
async fn stepped(clock: &Clock, was_ms: i64) {
    while clock.wall_offset_ms().abs_diff(was_ms) < STEP_MS {
        tokio::time::sleep(LOOK).await;
    }
}

async fn ask(peers: Arc<Peers>, node: NodeId, clock: Clock) -> Option<(NodeId, i64)> {
    let mut client = net::node_client(peers.channel(node).ok()?);
    let sent = clock.elapsed_ms();
    let reply = tokio::time::timeout(PATIENCE, client.clock(v1::ClockRequest {})).await.ok()?.ok()?;
    let received = clock.elapsed_ms();
    let theirs = i64::try_from(reply.into_inner().unix_ms).ok()?;
    Some((node, theirs - (sent + received) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn readings(own_ms: i64, peers: &[(u32, i64)]) -> Readings {
        Readings { own_ms, peers_ms: peers.iter().map(|(node, ms)| (NodeId(*node), *ms)).collect() }
    }

    #[test]
    fn one_wrong_clock_does_not_move_the_median() {
        let guarded = |readings: Readings| readings.guarded_ms(NODES[0], &NODES);
        assert_eq!(guarded(readings(1_000, &[(2, 1_003), (3, 91_000)])), Some(1_003));
        assert_eq!(guarded(readings(9_000, &[(2, 1_000), (3, 1_002)])), Some(1_002), "our own may be the wrong one");
        assert_eq!(guarded(readings(9_000, &[(2, 1_000)])), Some(1_000), "the lower one of two");
    }

    #[test]
    fn nobody_is_guarded_by_fewer_than_a_majority() {
        assert_eq!(readings(5, &[]).guarded_ms(NODES[0], &NODES), None);
        assert_eq!(readings(5, &[(9, 1)]).guarded_ms(NODES[0], &NODES), None, "of another group");
        assert_eq!(readings(5, &[]).guarded_ms(NODES[0], &NODES[..1]), Some(5), "alone in its group");
        assert_eq!(readings(5, &[]).guarded_ms(NODES[0], &NODES[..2]), None);
    }

    #[test]
    fn a_wall_clock_that_is_set_moves_the_wall_and_not_the_tick() {
        let clock = Clock::start();
        let before = clock.wall_offset_ms();
        clock.shift_wall(60_000);
        let after = clock.wall_offset_ms();
        assert!((59_000..61_000).contains(&(after - before)), "{before} {after}");
        assert!(clock.tick().0 < 30_000);
    }
}

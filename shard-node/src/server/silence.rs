//! Whom this node does not hear of, told to the beacon under its signature.
//!
//! Who answers is known from the exchange of clocks, in which every node asks all others once a second. Only what was not
//! heard is told, and for a while that it is heard again; what follows from it, the beacon decides
//! ([`beacon::watch`]). A node that starts does not know what it told before, so it tells for a while what it hears: who was
//! silent then may be back, and seats may wait for that word. A node that hears fewer than most is cut off itself, knows no
//! guarded time, and tells nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use beacon::Silence;
use bytes::Bytes;
use ledger::crypto::SecretKey;
use ledger::ids::{GroupId, NodeId, Tick, TimeMs};
use router::gateway::ClusterView;
use tokio::sync::watch;

use crate::core::peer::PeerMessage;
use crate::server::clock::Readings;
use crate::server::group::HostContext;
use crate::server::rotation::voice;

/// Without an answer for so long a node counts as silent: three rounds have missed it.
const SILENT_AFTER_MS: u64 = 3_500;
/// Between two reports.
const REPORT_EVERY_MS: u64 = 2_000;
/// How long it is told that all are heard of again, also when the node has started.
const TELL_FOR_MS: u64 = 30_000;

/// When each node was heard of last, and what was told.
#[derive(Default)]
struct Ears {
    heard: BTreeMap<NodeId, Tick>,
    /// From when on it is known who is silent: some rounds behind the first one.
    from: Option<Tick>,
    /// When somebody was missed last.
    missed: Option<Tick>,
    /// When the last report was made.
    reported: Option<Tick>,
}

impl Ears {
    /// Takes a round of answers. A node that is new counts as heard of.
    fn round(&mut self, now: Tick, others: &[NodeId], answered: &BTreeMap<NodeId, i64>) {
        self.from.get_or_insert(Tick(now.0 + SILENT_AFTER_MS));
        self.heard.retain(|node, _| others.contains(node));
        for node in others {
            if answered.contains_key(node) {
                self.heard.insert(*node, now);
            } else {
                self.heard.entry(*node).or_insert(now);
            }
        }
    }

    /// The silent nodes, ascending, when it is time to tell of them, or that there are none any more.
    fn news(&mut self, now: Tick) -> Option<Vec<NodeId>> {
        // Until then whoever is silent would be told to be heard of.
        let from = self.from.filter(|from| now.0 >= from.0)?;
        let silent: Vec<NodeId> =
            self.heard.iter().filter(|(_, at)| now.0 >= at.0 + SILENT_AFTER_MS).map(|(node, _)| *node).collect();
        if !silent.is_empty() {
            self.missed = Some(now);
        }
        let tells = now.0 < self.missed.unwrap_or(from).0 + TELL_FOR_MS;
        let due = self.reported.is_none_or(|at| now.0 >= at.0 + REPORT_EVERY_MS);
        (tells && due).then(|| {
            self.reported = Some(now);
            silent
        })
    }
}

/// Tells the beacon's nodes until the node stops.
pub async fn report(context: HostContext, view: watch::Receiver<Arc<ClusterView>>) {
    let mut readings = context.readings.clone();
    let mut ears = Ears::default();
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            changed = readings.changed() => if changed.is_err() { return },
        }
        let Some(read) = readings.borrow_and_update().clone() else { continue };
        let others: Vec<NodeId> = view.borrow().nodes.keys().copied().filter(|node| *node != context.node).collect();
        let now = context.clock.tick();
        ears.round(now, &others, &read.peers_ms);
        let Some(at_ms) = guarded_now(&read, &context, now, &others) else { continue };
        if let Some(silent) = ears.news(now) {
            let Some(key) = voice(&context, &view.borrow()) else { continue };
            tell(&context, at_ms, silent, &key);
        }
    }
}

/// The median of the clocks of all nodes, if most of them have answered.
fn guarded_now(read: &Readings, context: &HostContext, now: Tick, others: &[NodeId]) -> Option<TimeMs> {
    let all: Vec<NodeId> = others.iter().copied().chain([context.node]).collect();
    let offset_ms = read.guarded_ms(context.node, &all)?;
    let now_ms = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_add(offset_ms);
    u64::try_from(now_ms).ok().map(TimeMs)
}

fn tell(context: &HostContext, at_ms: TimeMs, silent: Vec<NodeId>, key: &SecretKey) {
    let report = Silence::sign(context.genesis.cluster_id(), context.node, at_ms, silent, key);
    let payload = Bytes::from(PeerMessage::Silence(report).encode());
    for node in context.links.members(GroupId::BEACON) {
        context.links.send(node, GroupId::BEACON, payload.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: [NodeId; 3] = [NodeId(2), NodeId(3), NodeId(4)];

    fn answered(nodes: &[u32]) -> BTreeMap<NodeId, i64> {
        nodes.iter().map(|node| (NodeId(*node), 0)).collect()
    }

    /// Rounds of a second each, from a moment on, in which these answer; what is told, and when.
    fn rounds(ears: &mut Ears, from: u64, count: u64, nodes: &[u32]) -> Vec<(u64, Vec<u32>)> {
        let mut told = Vec::new();
        for round in 0..count {
            let now = from + round * 1_000;
            ears.round(Tick(now), &OTHERS, &answered(nodes));
            told.extend(ears.news(Tick(now)).map(|silent| (now, silent.iter().map(|node| node.0).collect())));
        }
        told
    }

    /// One that was silent may be back since, and seats may wait for that: the node may have told the beacon so itself.
    #[test]
    fn a_node_that_starts_tells_for_a_while_whom_it_hears() {
        let mut ears = Ears::default();
        assert_eq!(ears.news(Tick(0)), None, "it has not listened yet");
        let told = rounds(&mut ears, 5_000, 60, &[2, 3, 4]);
        assert_eq!(told.first(), Some(&(9_000, vec![])), "once it would have missed who is silent");
        assert_eq!(told.last(), Some(&(37_000, vec![])), "half a minute long");
        assert!(told.iter().all(|(_, silent)| silent.is_empty()));
    }

    #[test]
    fn who_has_missed_several_rounds_is_told_of_and_then_that_it_is_back() {
        let mut ears = Ears::default();
        rounds(&mut ears, 0, 40, &[2, 3, 4]);
        assert_eq!(rounds(&mut ears, 40_000, 10, &[2, 3, 4]), [], "there is nothing to tell");
        // Heard of at 49 s for the last time.
        let told = rounds(&mut ears, 50_000, 8, &[2, 4]);
        assert_eq!(told, [(53_000, vec![3]), (55_000, vec![3]), (57_000, vec![3])]);
        let told = rounds(&mut ears, 58_000, 60, &[2, 3, 4]);
        assert_eq!(told.first(), Some(&(59_000, vec![])));
        assert_eq!(told.last(), Some(&(85_000, vec![])), "half a minute long");
        assert!(told.iter().all(|(_, silent)| silent.is_empty()));
    }

    #[test]
    fn one_that_was_never_heard_of_counts_from_when_it_was_known_and_one_that_is_gone_does_not() {
        let mut ears = Ears::default();
        let told = rounds(&mut ears, 0, 5, &[2, 3]);
        assert_eq!(told, [(4_000, vec![4])]);
        ears.round(Tick(6_000), &OTHERS[..2], &answered(&[2, 3]));
        assert_eq!(ears.news(Tick(6_000)), Some(vec![]));
    }
}

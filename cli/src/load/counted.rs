//! What the nodes of a cluster count: bytes that they sent and wrote, and how often they made their logs
//! durable, which tells whether their blocks can have been.

use std::collections::{BTreeMap, BTreeSet};

use proto::v1;

/// What the nodes count.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Bytes that went through sockets.
    pub(super) sent_bytes: u64,
    /// Bytes that went to logs and databases.
    pub(super) written_bytes: u64,
    /// Times that each node's log was made durable.
    pub(super) fsyncs: BTreeMap<u32, u64>,
    /// Nodes that do not tell what they count: a channel of theirs is hidden from whoever asks.
    untold: BTreeSet<u32>,
    /// Height of each replica, by group and node.
    heights: BTreeMap<(u64, u32), u64>,
}

impl Counted {
    /// What was counted since an earlier moment.
    pub(super) fn since(self, earlier: &Self) -> Self {
        fn less<K: Ord>(now: BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
            let before = |key: &K| then.get(key).copied().unwrap_or(0);
            now.into_iter()
                .map(|(key, count)| {
                    let before = before(&key);
                    (key, count.saturating_sub(before))
                })
                .collect()
        }
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            fsyncs: less(self.fsyncs, &earlier.fsyncs),
            untold: self.untold.into_iter().chain(earlier.untold.iter().copied()).collect(),
            heights: less(self.heights, &earlier.heights),
        }
    }

    /// Whether the nodes' fsyncs can have made every block durable on a majority before it was
    /// acknowledged. Each block is an entry of its own, and a leader has no more than so many entries
    /// in flight; an fsync of a node therefore covers at most that many of a group's blocks, and each
    /// block needs one on a majority of the replicas. A node that does not tell its fsyncs counts as if it had made them.
    pub(super) fn durable(&self, entries_in_flight: u64) -> bool {
        let groups: BTreeSet<u64> = self.heights.keys().map(|(group, _)| *group).collect();
        groups.into_iter().all(|group| {
            let replicas = || self.heights.iter().filter(move |((of, _), _)| *of == group);
            let blocks = replicas().map(|(_, blocks)| *blocks).max().unwrap_or(0);
            let majority = replicas().count() as u64 / 2 + 1;
            // What was in flight when the counting began may have been made durable before.
            let needed = blocks.saturating_sub(entries_in_flight) / entries_in_flight;
            let of_node = |node: &u32| match self.untold.contains(node) {
                true => needed,
                false => self.fsyncs.get(node).copied().unwrap_or(0),
            };
            let counted: u64 = replicas().map(|((_, node), _)| of_node(node)).sum();
            counted >= majority * needed
        })
    }
}

/// Reads the counters of all nodes.
pub(super) fn counters(status: &v1::StatusReply) -> Counted {
    let sum = |of: fn(&v1::NodeStatusReply) -> u64| status.nodes.iter().map(of).fold(0u64, u64::saturating_add);
    let replicas = status.nodes.iter().flat_map(|node| node.replicas.iter().map(|replica| (node.node, replica)));
    // Whoever runs a node is told what it counts whatever is hidden.
    let untold = |node: &&v1::NodeStatusReply| {
        node.log_fsyncs == 0 && node.bytes_sent == 0 && node.replicas.iter().any(|replica| replica.hidden)
    };
    Counted {
        sent_bytes: sum(|node| node.bytes_sent.saturating_add(node.client_bytes_received)),
        written_bytes: sum(|node| node.log_bytes.saturating_add(node.state_bytes_written)),
        fsyncs: status.nodes.iter().map(|node| (node.node, node.log_fsyncs)).collect(),
        untold: status.nodes.iter().filter(untold).map(|node| node.node).collect(),
        heights: replicas.map(|(node, replica)| ((replica.group, node), replica.height)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_no_fsync_can_have_covered_are_not_durable() {
        // Two groups of three replicas on three nodes, 300 and 30 blocks, three entries in flight.
        let run = |fsyncs: [u64; 3]| Counted {
            fsyncs: (1..).zip(fsyncs).collect(),
            heights: (1..=3).flat_map(|node| [((7, node), 300), ((8, node), 30)]).collect(),
            ..Counted::default()
        };
        assert!(run([100, 100, 0]).durable(3), "a majority, as few as can be");
        assert!(run([300, 300, 300]).durable(3));
        assert!(!run([99, 98, 0]).durable(3));
        assert!(!run([1, 1, 1]).durable(3), "that there were some says nothing");
        let later = run([150, 150, 50]);
        assert!(!later.since(&run([100, 100, 0])).heights.values().any(|blocks| *blocks > 0));
        // One that does not tell, then or now, is not held against the others; a majority of those that do is missed still.
        let untold = |fsyncs, nodes: &[u32]| Counted { untold: nodes.iter().copied().collect(), ..run(fsyncs) };
        assert!(untold([100, 0, 0], &[2]).durable(3) && !untold([98, 0, 0], &[2]).durable(3));
        assert!(untold([200, 0, 0], &[3]).since(&untold([100, 0, 0], &[2])).untold.iter().eq(&[2, 3]));
    }

    #[test]
    fn a_node_with_a_hidden_channel_that_tells_no_totals_is_known_as_one() {
        let node = |node, log_fsyncs, hidden| v1::NodeStatusReply {
            node,
            log_fsyncs,
            replicas: vec![v1::ReplicaStatus { hidden, ..v1::ReplicaStatus::default() }],
            ..v1::NodeStatusReply::default()
        };
        let nodes = vec![node(1, 0, false), node(2, 0, true), node(3, 7, true)];
        let status = v1::StatusReply { nodes, ..v1::StatusReply::default() };
        assert!(counters(&status).untold.iter().eq(&[2]));
    }
}

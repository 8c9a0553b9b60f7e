//! Whether the node that is to take a seat has room on its disk for what comes with it. The beacon knows nothing of disks,
//! and the node itself finds out only when it receives; so whoever asks for a move asks the node first. Pure: what nodes say
//! is given.

use beacon::Shards;
use beacon::jobs::JobKind;
use ledger::limits::{SNAPSHOT_RESERVE_BYTES, SNAPSHOT_RESERVE_PARTS};
use ledger::{GroupId, NodeId};
use proto::v1;

use super::plan::Size;
use crate::error::CliError;
use crate::output::grouped;

/// The code of a move to a node without room.
pub(super) const MOVE_FULL: &str = "move_full";

/// What a node has and needs to take a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    group: GroupId,
    node: NodeId,
    /// Bytes that it may still write into its data folder.
    free: u64,
    needed: u64,
}

impl Room {
    /// Of a seat that moves; none where the node does not say what it has, or nobody what the shard takes.
    pub(super) fn of(kind: &JobKind, shards: &Shards, status: &v1::StatusReply) -> Option<Self> {
        let JobKind::Move { group, to, .. } = *kind else { return None };
        let reply = status.nodes.iter().find(|reply| reply.node == to.0 && reply.disk_size_bytes > 0)?;
        let state = Size::of(group, shards, status).bytes?;
        // As whoever receives a snapshot judges: it is there twice before it becomes the state, and a reserve stays free.
        let reserve = SNAPSHOT_RESERVE_BYTES.min(reply.disk_size_bytes / SNAPSHOT_RESERVE_PARTS);
        let needed = state.saturating_mul(2).saturating_add(reserve);
        Some(Self { group, node: to, free: reply.disk_free_bytes, needed })
    }

    /// Whether it is too little.
    pub(super) fn lacks(&self) -> bool {
        self.free < self.needed
    }

    /// That it is too little, if it is.
    pub(super) fn refused(&self) -> Option<CliError> {
        let Self { group, node, free, needed } = *self;
        self.lacks().then(|| {
            let [free, needed] = [free, needed].map(|bytes| grouped(bytes.into()));
            let cause = format!(
                "node {node} may write {free} bytes more where its data folder is, and taking the seat in {group} needs about {needed}: a snapshot is there twice at first, and a reserve stays free"
            );
            CliError::new(MOVE_FULL, cause, "free space there, or move the seat to another node")
        })
    }
}

/// The least that one of these nodes may still write, of those that say.
pub(super) fn least_free(nodes: &[u32], status: &v1::StatusReply) -> Option<u64> {
    let said = status.nodes.iter().filter(|reply| reply.disk_size_bytes > 0 && nodes.contains(&reply.node));
    said.map(|reply| reply.disk_free_bytes).min()
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::scene;
    use super::*;

    const ZERO: GroupId = GroupId::shard(0);
    const SIZE: u64 = 32_000;

    #[test]
    fn a_seat_needs_a_snapshot_twice_and_a_reserve() {
        let moves = JobKind::Move { group: ZERO, from: NodeId(1), to: NodeId(4) };
        let room = |kind: &JobKind, free: Option<u64>, state_bytes: u64| {
            let (shards, mut status) = scene();
            status.nodes[0].replicas[0].state_bytes = state_bytes;
            let disk_size_bytes = if free.is_some() { SIZE } else { 0 };
            let disk_free_bytes = free.unwrap_or_default();
            status.nodes.push(v1::NodeStatusReply { node: 4, disk_free_bytes, disk_size_bytes, ..Default::default() });
            Room::of(kind, &shards, &status)
        };
        // 1,000 are the reserve.
        let enough = room(&moves, Some(15_000), 7_000).unwrap();
        assert_eq!((enough.needed, enough.refused()), (15_000, None));
        let error = room(&moves, Some(14_999), 7_000).unwrap().refused().unwrap();
        assert_eq!(error.code, MOVE_FULL);
        assert!(
            error.cause.contains("node 4 may write 14,999 bytes") && error.cause.contains("about 15,000"),
            "{error:?}"
        );
        assert_eq!(room(&moves, None, 7_000), None, "it does not say");
        assert_eq!(room(&moves, Some(1), 0), None, "nobody says what the shard takes");
        assert_eq!(room(&JobKind::Split { group: ZERO }, Some(1), 7_000), None);
    }

    #[test]
    fn the_fullest_node_is_told() {
        let disk = |node, disk_free_bytes, disk_size_bytes| v1::NodeStatusReply {
            node,
            disk_free_bytes,
            disk_size_bytes,
            ..Default::default()
        };
        let nodes = vec![disk(1, 70, 100), disk(2, 60, 100), disk(3, 0, 0), disk(4, 5, 100)];
        let status = v1::StatusReply { nodes, unreachable: Vec::new() };
        assert_eq!(least_free(&[1, 2, 3], &status), Some(60));
        assert_eq!(least_free(&[3, 9], &status), None);
    }
}

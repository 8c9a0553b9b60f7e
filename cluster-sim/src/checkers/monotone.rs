//! Monotone: heights, cursors, stream heads and terms never go back, except for what a crash took
//! before it was durable; a term has one leader; nobody is told that mail was taken before it was.

use std::collections::BTreeMap;

use cross_shard::StreamLeaf;
use ledger::ids::{GroupId, Height, NodeId};

use super::{BftSeen, BlockSeen, Checker, Facts, Moment, RawReplica, Seen};

#[derive(Default)]
struct Replica {
    height: u64,
    flushed: u64,
    /// Log index of the last block.
    index: u64,
    term: u64,
    inbox: BTreeMap<GroupId, u64>,
    outbox: BTreeMap<GroupId, u64>,
}

/// The last seen of each replica.
#[derive(Default)]
pub struct Monotone {
    replicas: BTreeMap<(NodeId, GroupId), Replica>,
    /// By group, stint and term.
    leaders: BTreeMap<(GroupId, u64, u64), NodeId>,
    /// Greatest cursor that any replica of the destination has persisted: destination, source.
    taken: BTreeMap<(GroupId, GroupId), u64>,
}

fn forward(
    facts: &Facts,
    what: &str,
    kept: &mut BTreeMap<GroupId, u64>,
    leaves: &[StreamLeaf],
    found: &mut Vec<String>,
) {
    for leaf in leaves {
        let last = kept.entry(leaf.peer).or_insert(0);
        if leaf.next_seq < *last {
            found.push(format!("the {what} with {} went from {last} back to {}", leaf.peer, leaf.next_seq));
        }
        *last = leaf.next_seq;
    }
    // Those with a shard that has ended go.
    kept.retain(|peer, _| !facts.lines.retired(*peer) || leaves.iter().any(|leaf| leaf.peer == *peer));
    if kept.keys().any(|peer| leaves.iter().all(|leaf| leaf.peer != *peer)) {
        found.push(format!("the {what} of a peer disappeared"));
    }
}

impl Monotone {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (node, group, height) = (block.node, block.group, block.header.height.0);
        let last = self.replicas.entry((node, group)).or_default();
        if height != last.height + 1 {
            found.push(format!("node {node} applied height {height} of {group} after {}", last.height));
        }
        if block.position.index <= last.index {
            found.push(format!("node {node} applied entry {} of {group} after {}", block.position.index, last.index));
        }
        (last.height, last.index) = (height, block.position.index);
        forward(facts, "cursor", &mut last.inbox, &block.inbox, found);
        forward(facts, "stream", &mut last.outbox, &block.outbox, found);
        for leaf in &block.inbox {
            let taken = self.taken.entry((group, leaf.peer)).or_insert(0);
            *taken = leaf.next_seq.max(*taken);
        }
    }

    fn started(&mut self, node: NodeId, group: GroupId, height: Height, found: &mut Vec<String>) {
        let last = self.replicas.entry((node, group)).or_default();
        if height.0 < last.flushed || height.0 > last.height {
            found.push(format!(
                "node {node} restarted {group} at height {height}; it had flushed {} and applied {}",
                last.flushed, last.height
            ));
        }
        // What follows is known from the first block on; until then only the height counts.
        *last = Replica { height: height.0, flushed: last.flushed, ..Replica::default() };
    }
}

impl Checker for Monotone {
    fn name(&self) -> &'static str {
        "monotone"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, _: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) => self.block(facts, block, found),
            Seen::Born(born) => {
                let height = born.header.height.0;
                let begun = Replica { height, flushed: height, ..Replica::default() };
                self.replicas.insert((born.node, born.header.group), begun);
            }
            Seen::Started { node, group, height } => self.started(*node, *group, *height, found),
            Seen::Fetched { node, group, height, index, .. } => {
                let last = self.replicas.entry((*node, *group)).or_default();
                if height.0 < last.height {
                    found.push(format!("node {node} went from {} of {group} back to a state of {height}", last.height));
                }
                (last.height, last.flushed, last.index) = (height.0, height.0, *index);
            }
            Seen::Left { node, group, .. } => {
                self.replicas.remove(&(*node, *group));
            }
            Seen::Flushed { node, group, height } => {
                self.replicas.entry((*node, *group)).or_default().flushed = height.0;
            }
            Seen::Role { node, group, leads, stint, term } => {
                let last = self.replicas.entry((*node, *group)).or_default();
                if *term < last.term {
                    found.push(format!("the term of {group} on node {node} went from {} back to {term}", last.term));
                }
                last.term = *term;
                if *leads {
                    let leader = *self.leaders.entry((*group, *stint, *term)).or_insert(*node);
                    if leader != *node {
                        found.push(format!("nodes {leader} and {node} both lead {group} in term {term}"));
                    }
                }
            }
            Seen::PeerTook { node, group, dest, next_seq } => {
                let taken = self.taken.get(&(*dest, *group)).copied().unwrap_or(0);
                if *next_seq > taken {
                    found.push(format!(
                        "node {node} believes that {dest} took the mail of {group} below {next_seq}; it took {taken}"
                    ));
                }
            }
            // A state of another replica stands for the blocks up to it.
            Seen::Bft(BftSeen::Installed { node, group, height, index, .. }) => {
                let last = self.replicas.entry((*node, *group)).or_default();
                if height.0 < last.height {
                    found.push(format!("node {node} went from {} of {group} back to a state of {height}", last.height));
                }
                (last.height, last.flushed, last.index) = (height.0, height.0, *index);
            }
            Seen::Bft(_)
            | Seen::Stint { .. }
            | Seen::Founded(_)
            | Seen::Voters { .. }
            | Seen::KeyGone { .. }
            | Seen::Given { .. }
            | Seen::Admitted { .. }
            | Seen::Certified { .. }
            | Seen::Known { .. }
            | Seen::Acknowledged { .. }
            | Seen::Told { .. }
            | Seen::Decided { .. }
            | Seen::Applied { .. }
            | Seen::Refused { .. } => {}
        }
    }

    fn audit(&mut self, _: &Facts, _: Moment, _: &[RawReplica<'_>], _: &mut Vec<String>) {}
}

#[cfg(test)]
mod tests {
    use consensus::port::Position;
    use ledger::layout::Layout;

    use super::super::trial::{self, block, leaf};
    use super::*;

    const GROUP: GroupId = GroupId::shard(0);
    const PEER: GroupId = GroupId::shard(1);

    fn applies(block: BlockSeen) -> Seen {
        Seen::Block(Box::new(block))
    }

    fn role(node: u32, leads: bool, term: u64) -> Seen {
        Seen::Role { node: NodeId(node), group: GROUP, leads, stint: 0, term }
    }

    #[test]
    fn what_goes_back_or_is_told_too_early_is_found() {
        let (node, group) = (NodeId(0), GROUP);
        let heights = |heights: &[u64]| heights.iter().map(|height| applies(block(GROUP, *height))).collect::<Vec<_>>();
        let takes = |height, upto: &[u64]| {
            let inbox = upto.iter().map(|upto| leaf(PEER, *upto)).collect();
            applies(BlockSeen { inbox, ..block(GROUP, height) })
        };
        let sends = |height, upto| applies(BlockSeen { outbox: vec![leaf(PEER, upto)], ..block(GROUP, height) });
        let again = Position { term: 1, leader: 0, index: 1 };
        let fetched = Seen::Fetched { node, join: 1, group, height: Height(1), index: 1 };
        let took = |next_seq| Seen::PeerTook { node: NodeId(1), group: PEER, dest: GROUP, next_seq };
        for (all, what) in [
            (heights(&[1, 2, 3]), None),
            (heights(&[1, 3]), Some("applied height 3")),
            (
                vec![applies(block(GROUP, 1)), applies(BlockSeen { position: again, ..block(GROUP, 2) })],
                Some("applied entry 1"),
            ),
            (vec![takes(1, &[5]), takes(2, &[5]), sends(3, 2)], Some("the cursor of a peer disappeared")),
            (vec![takes(1, &[5]), takes(2, &[4])], Some("the cursor with")),
            (vec![takes(1, &[5]), takes(2, &[])], Some("the cursor of a peer disappeared")),
            (vec![sends(1, 5), sends(2, 4)], Some("the stream with")),
            (vec![takes(1, &[5]), took(5)], None),
            (vec![takes(1, &[5]), took(6)], Some("believes that")),
            ([heights(&[1, 2]), vec![fetched]].concat(), Some("back to a state of 1")),
            (
                [
                    heights(&[1, 2]),
                    vec![
                        Seen::Flushed { node, group, height: Height(2) },
                        Seen::Started { node, group, height: Height(1) },
                    ],
                ]
                .concat(),
                Some("it had flushed 2"),
            ),
            (vec![role(0, true, 3), role(1, false, 3), role(0, false, 4)], None),
            (vec![role(0, true, 3), role(0, false, 2)], Some("the term of")),
            (vec![role(0, true, 3), role(1, true, 3)], Some("both lead")),
        ] {
            let facts = trial::facts(Layout::even(2));
            let (mut monotone, mut found) = (Monotone::default(), Vec::new());
            all.iter().for_each(|seen| monotone.see(&facts, seen, true, &mut found));
            match what {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(what) => assert!(matches!(&found[..], [one] if one.contains(what)), "{what}: {found:?}"),
            }
        }
    }
}

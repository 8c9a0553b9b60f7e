//! On whose disks an entry has to be: by who ordered it, and who has ordered anything since.
//!
//! Under Raft those count who vote by the log, which is not the committee of the block: voters follow it later, one at a time.
//! An entry is on the disks of a majority of the voters by the last change of them that anybody has applied, since whoever
//! committed that change has everything before it. Where a change is on its way, which stands in a log and was applied by
//! nobody, a majority of those who vote by it is enough as well: a leader counts by its log. (Production changes several
//! voters at once, by a joint configuration; there the majorities of both sides count until the second one alone does.)
//!
//! Under the Byzantine engine those count whom the committee names that a block's header says has ordered it: more of them than
//! may lie, since more than two thirds have voted for it, and each of those had everything before it. A committee that has only
//! been put into force has ordered nothing yet, so until it has, the one before it is asked, whatever engine either has.
//!
//! Whoever leaves takes its disk along. Where the last who are known to order by then went on without it, what its replica had
//! applied counts for those who ordered with it, until they have ordered something, and not for those whom it joins later, with
//! another disk. Of one whom they still name the disk is missed like any that is lost: nobody has made up for it yet. Under Raft it is
//! not missed where it has made room for another replica of the node, with another name: the one before never votes again, so
//! all who ever decide are more than half without it, and meet whoever has the entry beside it. Somebody's disk has to be there
//! in any case.

use std::collections::{BTreeMap, BTreeSet};

use consensus::bft::{Event, Value};
use consensus::local::LocalLog;
use consensus::port::Position;
use ledger::committee::{Committee, Engine};
use ledger::ids::{GroupId, NodeId};

use super::RawReplica;

/// Who orders what comes behind an entry.
#[derive(Clone, Debug)]
struct Orderer {
    engine: Engine,
    nodes: BTreeSet<NodeId>,
}

impl Orderer {
    fn of(committee: &Committee) -> Self {
        let nodes = committee.members.iter().map(|member| member.node).collect();
        Self { engine: committee.engine, nodes }
    }

    fn voters(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self { engine: Engine::Raft, nodes: nodes.into_iter().collect() }
    }

    /// Whether these are as many as have what was ordered.
    fn enough(&self, holding: &BTreeSet<NodeId>) -> bool {
        let (count, all) = (holding.intersection(&self.nodes).count(), self.nodes.len());
        match self.engine {
            Engine::Raft => 2 * count > all,
            Engine::Bft => count > all.saturating_sub(1) / 3,
        }
    }
}

/// What a replica took along that was removed when those who order went on without it.
#[derive(Clone, Copy, Debug)]
struct Gone {
    /// Everything up to this entry.
    upto: u64,
    /// The last change of those who order that was known then, by its entry.
    last: u64,
}

/// What is known of a group.
#[derive(Default)]
struct Group {
    /// Who orders what comes behind an entry, by its index.
    behind: BTreeMap<u64, Orderer>,
    /// The last of them that is known to have ordered something.
    proven: u64,
    /// Up to which entry the replica of a node has applied.
    applied: BTreeMap<NodeId, u64>,
    /// Up to which entry it has the state of another one, for good.
    fetched: BTreeMap<NodeId, u64>,
    gone: BTreeMap<NodeId, Gone>,
}

/// Whether a replica has on its disk a value for an entry that it found good: what it votes by after a crash.
fn voted_for(replica: &RawReplica<'_>, index: u64) -> bool {
    replica.wal.is_some_and(|wal| {
        wal.durable().any(|record| match &record.event {
            Event::Value { encoded, valid: true, .. } if record.index == index => {
                borsh::from_slice::<Value>(encoded).is_ok_and(|value| value.index == index)
            }
            _ => false,
        })
    })
}

/// Changes of the voters that stand in a log behind an entry.
fn coming(log: &LocalLog, behind: u64) -> impl Iterator<Item = Orderer> {
    let entries = (behind + 1..=log.last_index()).filter_map(move |index| log.entry(index)?.voters.as_ref());
    entries.map(|seats| Orderer::voters(seats.iter().copied().map(crate::seat::node_of)))
}

impl Group {
    /// The entry behind which those have come into force that order an entry.
    fn orders(&self, index: u64) -> Option<u64> {
        self.behind.range(..index).next_back().map(|(at, _)| *at)
    }

    fn last(&self) -> u64 {
        self.behind.keys().next_back().copied().unwrap_or(0)
    }

    fn progress(&mut self, node: NodeId, index: u64) {
        let applied = self.applied.entry(node).or_insert(0);
        *applied = index.max(*applied);
    }

    fn holds(&self, replica: &RawReplica<'_>, position: Position) -> bool {
        let (index, log) = (position.index, replica.log);
        let logged = log.entry(index).is_some_and(|entry| entry.term == position.term);
        let fetched = self.fetched.get(&replica.node).is_some_and(|upto| index <= *upto);
        // A log begins behind what is in the state for good.
        index <= log.base.index || logged || fetched || voted_for(replica, index)
    }

    /// Nodes that have gone with an entry, and that ordered with those who came into force behind another one.
    fn taken(&self, index: u64, at: u64) -> impl Iterator<Item = NodeId> {
        let taken = self.gone.iter().filter(move |(_, gone)| gone.upto >= index && gone.last >= at);
        taken.map(|(node, _)| *node)
    }
}

/// Who has ordered what, in all groups.
#[derive(Default)]
pub struct Quorums {
    groups: BTreeMap<GroupId, Group>,
}

impl Quorums {
    /// An entry makes a block, which one committee has ordered and behind which another one may be in force. To be told for
    /// the first replica that has it, and for none of before again.
    pub fn ordered(&mut self, group: GroupId, index: u64, by: &Committee, next: Option<&Committee>) {
        let known = self.groups.entry(group).or_default();
        let orderer = Orderer::of(by);
        let agrees = |at: &u64| {
            let found = &known.behind[at];
            found.engine == orderer.engine && (found.engine == Engine::Raft || found.nodes == orderer.nodes)
        };
        let at = known.orders(index).filter(agrees).unwrap_or_else(|| {
            // The first block of the group, or what has put these into force was not told.
            let at = index.saturating_sub(1);
            known.behind.insert(at, orderer);
            at
        });
        known.proven = at.max(known.proven);
        // The voters of Raft are told by the log itself, but for those who begin behind another engine.
        let takes_over = |next: &&Committee| (by.engine, next.engine) != (Engine::Raft, Engine::Raft) && *next != by;
        if let Some(next) = next.filter(takes_over) {
            known.behind.entry(index).or_insert_with(|| Orderer::of(next));
        }
    }

    /// A change of the voters has been applied, so most of these have it.
    pub fn voters(&mut self, group: GroupId, index: u64, voters: &[NodeId]) {
        let known = self.groups.entry(group).or_default();
        known.behind.insert(index, Orderer::voters(voters.iter().copied()));
        known.proven = index.max(known.proven);
    }

    /// A replica has applied an entry, which is on its own disk before.
    pub fn applied(&mut self, group: GroupId, node: NodeId, index: u64) {
        self.groups.entry(group).or_default().progress(node, index);
    }

    /// A replica has the state of another one, for good.
    pub fn fetched(&mut self, group: GroupId, node: NodeId, index: u64) {
        let known = self.groups.entry(group).or_default();
        known.progress(node, index);
        known.fetched.insert(node, index);
    }

    /// A replica is removed, for good or to make room for one of the same node that joins anew.
    pub fn left(&mut self, group: GroupId, node: NodeId, rejoins: bool) {
        let known = self.groups.entry(group).or_default();
        known.fetched.remove(&node);
        let gone = Gone { upto: known.applied.remove(&node).unwrap_or(0), last: known.last() };
        let missed = |those: &Orderer| those.nodes.contains(&node) && !(rejoins && those.engine == Engine::Raft);
        if known.behind.get(&gone.last).is_some_and(missed) {
            known.gone.remove(&node);
        } else {
            known.gone.insert(node, gone);
        }
    }

    /// On how many disks an entry is, when it is on too few.
    #[must_use]
    pub fn lacks(&self, replicas: &[RawReplica<'_>], group: GroupId, position: Position) -> Option<usize> {
        let Some(known) = self.groups.get(&group) else { return Some(0) };
        let here = || replicas.iter().filter(move |replica| replica.group == group);
        let holding = here().filter(|replica| known.holds(replica, position));
        let present: BTreeSet<NodeId> = holding.map(|replica| replica.node).collect();
        let Some(orderer) = known.behind.get(&known.proven) else { return Some(present.len()) };
        let all: BTreeSet<NodeId> = present.iter().copied().chain(known.taken(position.index, known.proven)).collect();
        if !present.is_empty() && orderer.enough(&all) {
            return None;
        }
        let last = known.last();
        let by_raft = known.behind.get(&last).is_some_and(|last| last.engine == Engine::Raft);
        let mut changes = here().filter(|_| by_raft).flat_map(|replica| coming(replica.log, last));
        let on_its_way = changes.any(|change| change.enough(&present));
        (!on_its_way).then_some(present.len())
    }
}

#[cfg(test)]
mod tests {
    use consensus::local::LocalEntry;
    use ledger::committee::Member;
    use ledger::ids::{Epoch, Incarnation, OrgId};
    use storage::mem::MemKv;

    use super::*;
    use crate::cluster::node_key;

    const GROUP: GroupId = GroupId::shard(0);

    fn committee(engine: Engine, epoch: u64, nodes: &[u32]) -> Committee {
        let member = |node: &u32| Member { node: NodeId(*node), org: OrgId(0), key: node_key(NodeId(*node)).public() };
        Committee::of(engine, GROUP, Incarnation(0), Epoch(epoch), nodes.iter().map(member).collect())
    }

    fn nodes(nodes: &[u32]) -> Vec<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn entry(voters: Option<&[u32]>) -> LocalEntry {
        LocalEntry { term: 1, leader: NodeId(1), batch: None, voters: voters.map(nodes) }
    }

    fn log(upto: u64) -> LocalLog {
        LocalLog { term: 1, entries: (0..upto).map(|_| entry(None)).collect(), ..LocalLog::default() }
    }

    /// How many disks have an entry, if these logs are too few.
    fn lacks(quorums: &Quorums, logs: &[(u32, LocalLog)], index: u64) -> Option<usize> {
        let kv = MemKv::new();
        let replicas: Vec<RawReplica<'_>> = logs
            .iter()
            .map(|(node, log)| RawReplica { node: NodeId(*node), group: GROUP, kv: &kv, log, wal: None })
            .collect();
        quorums.lacks(&replicas, GROUP, Position { term: 1, leader: 1, index })
    }

    /// Of these nodes each has a log up to an entry; others are there without.
    fn on(holding: &[u32], upto: u64) -> Vec<(u32, LocalLog)> {
        (1..=7).map(|node| (node, log(if holding.contains(&node) { upto } else { 0 }))).collect()
    }

    fn raft(first: &[u32]) -> Quorums {
        let mut quorums = Quorums::default();
        quorums.ordered(GROUP, 5, &committee(Engine::Raft, 0, first), None);
        quorums
    }

    #[test]
    fn a_majority_counts_of_those_who_voted_however_few_or_many_voted_before_or_vote_later() {
        let mut quorums = raft(&[1, 2, 3, 4, 5]);
        for (holding, lacking) in [(&[1, 2][..], Some(2)), (&[1, 2, 3][..], None), (&[1, 2, 6, 7][..], Some(4))] {
            assert_eq!(lacks(&quorums, &on(holding, 5), 5), lacking, "five vote: {holding:?}");
        }
        // Another term's entry is another one.
        let mut other = on(&[1, 2, 3], 5);
        other[0].1.entries[4].term = 2;
        assert_eq!(lacks(&quorums, &other, 5), Some(2));
        quorums.voters(GROUP, 7, &nodes(&[1, 2, 3]));
        for (holding, lacking) in [(&[1, 2][..], None), (&[1, 4, 5][..], Some(3))] {
            assert_eq!(lacks(&quorums, &on(holding, 5), 5), lacking, "three vote: {holding:?}");
        }
        quorums.voters(GROUP, 9, &nodes(&[1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(lacks(&quorums, &on(&[1, 2, 3], 12), 5), Some(3), "who joins has what was before");
        assert_eq!(lacks(&quorums, &on(&[1, 2, 3, 7], 12), 12), None);
        // A replica that is told of an old change again changes nothing.
        quorums.voters(GROUP, 7, &nodes(&[1, 2, 3]));
        assert_eq!(lacks(&quorums, &on(&[1, 2, 3], 12), 5), Some(3));
    }

    #[test]
    fn a_leader_counts_by_a_change_that_nobody_has_applied_yet() {
        let quorums = raft(&[1, 2, 3, 4]);
        let mut logs = on(&[1, 2], 5);
        assert_eq!(lacks(&quorums, &logs, 5), Some(2), "two of four");
        logs[0].1.entries.push(entry(Some(&[1, 2, 3][..])));
        assert_eq!(lacks(&quorums, &logs, 5), None, "two of three, by the log of whoever leads");
        logs[1].1.entries.clear();
        assert_eq!(lacks(&quorums, &logs, 5), Some(1));
    }

    #[test]
    fn who_leaves_while_it_votes_is_missed_until_another_one_has_what_it_had() {
        let mut quorums = raft(&[1, 2, 3]);
        quorums.applied(GROUP, NodeId(3), 5);
        quorums.left(GROUP, NodeId(3), false);
        assert_eq!(lacks(&quorums, &on(&[1], 5), 5), Some(1), "one of three, of whom the third has lost its disk");
        assert_eq!(lacks(&quorums, &on(&[1, 2], 5), 5), None);
        // That it votes no more comes too late for what was ordered before.
        quorums.voters(GROUP, 7, &nodes(&[1, 2]));
        assert_eq!(lacks(&quorums, &on(&[1], 7), 5), Some(1));
        assert_eq!(lacks(&quorums, &on(&[1, 2], 7), 5), None);
        // The same of a Byzantine committee that goes on with it.
        let by = committee(Engine::Bft, 0, &[1, 2, 3, 4]);
        let mut quorums = Quorums::default();
        quorums.ordered(GROUP, 5, &by, Some(&by));
        quorums.applied(GROUP, NodeId(4), 5);
        quorums.left(GROUP, NodeId(4), false);
        assert_eq!(lacks(&quorums, &on(&[2], 5), 5), Some(1));
    }

    #[test]
    fn who_makes_room_for_a_replica_that_joins_anew_votes_no_more_and_is_not_missed() {
        let gone = |rejoins: bool, had: u64| {
            let mut quorums = raft(&[1, 2, 3, 4]);
            quorums.applied(GROUP, NodeId(4), had);
            quorums.left(GROUP, NodeId(4), rejoins);
            quorums
        };
        assert_eq!(lacks(&gone(false, 5), &on(&[1, 2], 5), 5), Some(2), "two of four");
        assert_eq!(lacks(&gone(true, 5), &on(&[1, 2], 5), 5), None, "the other three decide together or not at all");
        assert_eq!(lacks(&gone(true, 4), &on(&[1, 2], 5), 5), Some(2), "it had less");
        assert_eq!(lacks(&gone(true, 5), &on(&[1], 5), 5), Some(1), "one of four");
        // When it votes again it is with its new disk.
        let mut quorums = gone(true, 5);
        quorums.voters(GROUP, 7, &nodes(&[1, 2, 3]));
        quorums.voters(GROUP, 9, &nodes(&[1, 2, 3, 4]));
        assert_eq!(lacks(&quorums, &on(&[1, 2], 9), 5), Some(2));
        quorums.fetched(GROUP, NodeId(4), 8);
        assert_eq!(lacks(&quorums, &on(&[1, 2], 9), 5), None);
        // A Byzantine committee names the node, and the node votes again.
        let by = committee(Engine::Bft, 0, &[1, 2, 3, 4]);
        let mut quorums = Quorums::default();
        quorums.ordered(GROUP, 5, &by, Some(&by));
        quorums.applied(GROUP, NodeId(4), 5);
        quorums.left(GROUP, NodeId(4), true);
        assert_eq!(lacks(&quorums, &on(&[2], 5), 5), Some(1));
    }

    #[test]
    fn who_leaves_takes_its_disk_along_and_somebody_has_to_stay() {
        let (by_raft, by_bft) = (committee(Engine::Raft, 0, &[1, 4]), committee(Engine::Bft, 1, &[4, 5, 6, 7]));
        // The first one orders up to the eighth entry, which hands over to a committee without it, and leaves with so many.
        let gone_with = |had: u64| {
            let mut quorums = raft(&[1, 2, 3]);
            quorums.voters(GROUP, 6, &nodes(&[1, 2, 4]));
            quorums.voters(GROUP, 7, &nodes(&[1, 4]));
            for node in [2, 3] {
                quorums.applied(GROUP, NodeId(node), 7);
                quorums.left(GROUP, NodeId(node), false);
            }
            assert_eq!(lacks(&quorums, &on(&[1], 7), 5), Some(1), "they vote no more");
            assert_eq!(lacks(&quorums, &on(&[1, 4], 7), 5), None);
            quorums.ordered(GROUP, 8, &by_raft, Some(&by_bft));
            quorums.applied(GROUP, NodeId(1), had);
            quorums.left(GROUP, NodeId(1), false);
            quorums
        };
        assert_eq!(lacks(&gone_with(7), &on(&[4], 8), 8), Some(1), "it had less");
        let mut quorums = gone_with(8);
        assert_eq!(lacks(&quorums, &on(&[4], 8), 8), None);
        assert_eq!(lacks(&quorums, &on(&[], 8), 8), Some(0), "all are gone");
        quorums.ordered(GROUP, 9, &by_bft, Some(&by_bft));
        assert_eq!(lacks(&quorums, &on(&[4], 9), 8), Some(1), "the others have it before they order anything");
        // It comes back, with another disk.
        quorums.voters(GROUP, 11, &nodes(&[1, 4, 5]));
        assert_eq!(lacks(&quorums, &on(&[4], 11), 8), Some(1));
        quorums.fetched(GROUP, NodeId(1), 10);
        assert_eq!(lacks(&quorums, &on(&[4], 11), 8), None);
        assert_eq!(lacks(&quorums, &on(&[4], 11), 11), Some(1), "its state is of before");
    }

    #[test]
    fn of_a_byzantine_committee_more_count_than_may_lie_and_the_next_one_when_it_has_ordered_something() {
        let (first, next) = (committee(Engine::Bft, 0, &[1, 2, 3, 4]), committee(Engine::Bft, 1, &[1, 2, 3, 5]));
        let mut quorums = Quorums::default();
        quorums.ordered(GROUP, 5, &first, Some(&first));
        for (holding, lacking) in [(&[2][..], Some(1)), (&[2, 3][..], None), (&[2, 5, 6][..], Some(3))] {
            assert_eq!(lacks(&quorums, &on(holding, 5), 5), lacking, "{holding:?}");
        }
        quorums.ordered(GROUP, 6, &first, Some(&next));
        quorums.applied(GROUP, NodeId(4), 6);
        quorums.left(GROUP, NodeId(4), false);
        assert_eq!(lacks(&quorums, &on(&[2], 6), 6), None, "the fourth has signed it and is gone");
        quorums.ordered(GROUP, 8, &next, Some(&next));
        assert_eq!(lacks(&quorums, &on(&[2], 8), 6), Some(1), "whoever voted for the eighth has the sixth");
        quorums.fetched(GROUP, NodeId(5), 7);
        assert_eq!(lacks(&quorums, &on(&[2], 8), 6), None);
    }

    #[test]
    fn those_before_another_engine_count_until_it_has_ordered_something() {
        let (by_raft, by_bft) = (committee(Engine::Raft, 0, &[1, 2, 3]), committee(Engine::Bft, 1, &[4, 5, 6, 7]));
        let mut quorums = raft(&[1, 2, 3]);
        quorums.ordered(GROUP, 6, &by_raft, Some(&by_bft));
        let mut stale = on(&[1, 2], 6);
        assert_eq!(lacks(&quorums, &stale, 6), None);
        // What stands in a log behind that is void.
        stale[0].1.entries.push(entry(Some(&[1][..])));
        stale[1].1.entries.clear();
        assert_eq!(lacks(&quorums, &stale, 6), Some(1));
        quorums.ordered(GROUP, 7, &by_bft, None);
        assert_eq!(lacks(&quorums, &on(&[1, 2, 3], 7), 6), Some(3));
        assert_eq!(lacks(&quorums, &on(&[6, 7], 7), 6), None);
        // And back: those who begin under Raft vote, until the log says otherwise.
        let again = committee(Engine::Raft, 2, &[1, 2, 3]);
        quorums.ordered(GROUP, 9, &by_bft, Some(&again));
        assert_eq!(lacks(&quorums, &on(&[6, 7], 9), 9), None);
        quorums.ordered(GROUP, 10, &again, Some(&again));
        assert_eq!(lacks(&quorums, &on(&[6, 7], 10), 10), Some(2));
        assert_eq!(lacks(&quorums, &on(&[1, 2], 10), 10), None);
    }
}

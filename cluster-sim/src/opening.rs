//! What a node does about jobs that cut and join shards: it keeps copies, opens the children when the registry has their
//! layout in force, tells the beacon, and removes what has ended.
//!
//! Mirrors production's host. Copies are lost with the power, and made anew. A child's state is durable before its replica
//! begins. A parent stays, and lends its log to whoever is behind, until the job has ended; a node that comes back later than
//! that begins a child without a state and fetches one.

use std::collections::BTreeMap;
use std::rc::Rc;

use beacon::{ClusterView, Job, Phase, Said};
use ledger::ids::{GroupId, GroupKind, JobId, NodeId};
use ledger::layout::BitPrefix;
use ledger::lineage::{ChildShard, Seal};
use ledger::schema;
use storage::mem::MemKv;

use crate::checkers::{BftSeen, BornSeen, Seen};
use crate::copies::{Copies, Parent, Tapped};
use crate::node::Node;
use crate::replica::{Effect, FIRST_JOIN, Replica};
use crate::state;

/// Ticks between two looks at the jobs.
const LOOK_EVERY_TICKS: u64 = 3;
/// Ticks between two times that the beacon is told the same.
const SAY_EVERY_TICKS: u64 = 12;
/// Ticks that it takes to make a copy.
const COPY_TICKS: u64 = 6;

impl Node {
    /// Whether shards are cut and joined in this run.
    pub(crate) fn reshapes(&mut self, reshapes: bool) {
        self.reshaping = reshapes;
        for (group, replica) in &mut self.replicas {
            if group.kind() == Some(GroupKind::Shard) {
                replica.tap = reshapes.then(Vec::new);
            }
        }
    }

    /// Does what the jobs of the registry ask for, as far as this node has heard.
    pub(crate) fn follow_jobs(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if !self.reshaping || !self.ticks.is_multiple_of(LOOK_EVERY_TICKS) {
            return;
        }
        self.feed_copies(out);
        let Some(view) = self.registry.clone() else { return };
        let kept = |id: &JobId| view.jobs.iter().any(|job| job.id == *id);
        self.copies.retain(|id, _| kept(id));
        for job in view.jobs.iter().filter(|job| job.phase == Phase::Preparing) {
            self.prepare(now_ms, &view, job, out);
        }
        for seal in self.seals_that_hold(&view) {
            for parent in &seal.parents {
                self.with(now_ms, *parent, out, |replica, now, out| replica.ended(now, seal.job, out));
            }
            self.open_children(now_ms, &view, &seal, out);
        }
        self.open_vacant(now_ms, &view, out);
        // Where seats move, all that the registry names are looked after together.
        if !self.moves.shards {
            for committee in view.born.iter().filter_map(|born| view.committee(born.group)) {
                self.seek_state(committee, out);
            }
        }
        for job in view.jobs.iter().filter(|job| job.phase == Phase::Committed) {
            for child in &job.children {
                let told = job.open.contains(&(child.group, self.id));
                self.say(now_ms, child.group, told, Said::Open(job.id), out);
            }
        }
        self.remove_ended(&view, out);
    }

    /// Parents as they stand here, if all of them run.
    fn parents(&self, groups: &[(GroupId, BitPrefix)]) -> Option<Vec<Parent<'_>>> {
        let parent = |(group, prefix): &(GroupId, BitPrefix)| {
            let replica = self.replicas.get(group)?;
            Some(Parent { group: *group, prefix: *prefix, kv: &replica.kv, height: replica.height()? })
        };
        groups.iter().map(parent).collect()
    }

    /// Brings what blocks have written into the copies. One that has missed a block is lost.
    fn feed_copies(&mut self, out: &mut Vec<Effect>) {
        let mut tapped: BTreeMap<GroupId, Vec<Tapped>> = BTreeMap::new();
        for (group, replica) in &mut self.replicas {
            if let Some(tap) = &mut replica.tap {
                tapped.insert(*group, std::mem::take(tap));
            }
        }
        for (job, mut copies) in std::mem::take(&mut self.copies) {
            match self.feed(&mut copies, &tapped) {
                Ok(true) => {
                    self.copies.insert(job, copies);
                }
                Ok(false) => {}
                Err(why) => out.push(Effect::Broken(format!("the copies for {job} on node {}: {why}", self.id))),
            }
        }
    }

    fn feed(&self, copies: &mut Copies, tapped: &BTreeMap<GroupId, Vec<Tapped>>) -> Result<bool, String> {
        let groups = copies.parents().to_vec();
        let Some(parents) = self.parents(&groups) else { return Ok(false) };
        for (place, (group, _)) in groups.iter().enumerate() {
            let blocks = tapped.get(group).map_or(&[][..], Vec::as_slice);
            if !copies.advance(&parents, place, blocks)? {
                return Ok(false);
            }
        }
        // A state that came from another node was no block.
        Ok(copies.stand_with(&parents))
    }

    /// Makes copies for a job, or says that they are ready.
    fn prepare(&mut self, now_ms: u64, view: &ClusterView, job: &Job, out: &mut Vec<Effect>) {
        let groups: Option<Vec<(GroupId, BitPrefix)>> =
            job.kind.parents().into_iter().map(|group| Some((group, view.layout.prefix_of(group)?))).collect();
        let Some(groups) = groups.filter(|groups| !groups.is_empty() && !job.children.is_empty()) else { return };
        if let Some(copies) = self.copies.get(&job.id) {
            let ready = self.ticks >= copies.since + COPY_TICKS;
            for (group, _) in groups.iter().filter(|_| ready) {
                let told = job.warm.contains(&(*group, self.id));
                self.say(now_ms, *group, told, Said::Warm(job.id), out);
            }
            return;
        }
        let Some(parents) = self.parents(&groups) else { return };
        let made = Copies::make(self.genesis.cluster_id(), &job.children, &parents, self.ticks);
        match made {
            Ok(copies) => {
                self.copies.insert(job.id, copies);
            }
            Err(why) => out.push(Effect::Broken(format!("no copies for {} on node {}: {why}", job.id, self.id))),
        }
        // It had some, and has lost them.
        let lost: Vec<GroupId> =
            groups.iter().map(|(group, _)| *group).filter(|group| job.warm.contains(&(*group, self.id))).collect();
        for group in lost {
            let key = self.voice();
            self.with(now_ms, group, out, |replica, now, out| replica.report(now, Said::Cold(job.id), &key, out));
        }
    }

    /// Tells the beacon something, now and then, until it is known there.
    fn say(&mut self, now_ms: u64, group: GroupId, told: bool, said: Said, out: &mut Vec<Effect>) {
        let runs = self.replicas.get(&group).is_some_and(|replica| replica.height().is_some());
        if runs && !told && self.ticks.is_multiple_of(SAY_EVERY_TICKS) {
            let key = self.voice();
            self.with(now_ms, group, out, |replica, now, out| replica.report(now, said, &key, out));
        }
    }

    /// The seals that replicas here stand still by, and whose layout is in force.
    fn seals_that_hold(&self, view: &ClusterView) -> Vec<Seal> {
        let ended = self.replicas.iter().filter(|(group, _)| view.layout.retired(**group));
        let mut seals: Vec<Seal> = ended.filter_map(|(_, replica)| Some(replica.sealed()?.seal)).collect();
        seals.sort_by_key(|seal| seal.job);
        seals.dedup_by_key(|seal| seal.job);
        seals
    }

    /// Opens the children of parents that stand here where they ended.
    fn open_children(&mut self, now_ms: u64, view: &ClusterView, seal: &Seal, out: &mut Vec<Effect>) {
        let of_use = |group: GroupId| {
            let lives = view.layout.prefix_of(group).is_some();
            lives || view.jobs.iter().any(|job| job.kind.parents().contains(&group))
        };
        let missing = |child: &ChildShard| {
            // By now others may have its seat, and one that has left it comes back by a plan alone.
            let seats = view.committee(child.group).unwrap_or(&child.committee);
            let left = self.moves.shards && self.left.contains(&child.group);
            seats.index_of(self.id).is_some()
                && !left
                && !self.replicas.contains_key(&child.group)
                && of_use(child.group)
        };
        let wanted: Vec<GroupId> =
            seal.children.iter().filter(|child| missing(child)).map(|child| child.group).collect();
        if wanted.is_empty() {
            return;
        }
        let stands = |group: &GroupId| {
            let sealed = self.replicas.get(group).and_then(Replica::sealed);
            sealed.is_some_and(|sealed| sealed.seal == *seal)
        };
        let groups: Option<Vec<(GroupId, BitPrefix)>> =
            seal.parents.iter().map(|group| Some((*group, seal.layout.prefix_ever(*group)?))).collect();
        let Some(groups) = groups.filter(|_| seal.parents.iter().all(stands)) else { return };
        let warm = self.copies.remove(&seal.job);
        let (born, leaves) = {
            let Some(parents) = self.parents(&groups) else { return };
            let copies = match warm.filter(|copies| copies.stand_with(&parents)) {
                Some(copies) => Ok(copies),
                None => Copies::make(self.genesis.cluster_id(), &seal.children, &parents, self.ticks),
            };
            let born = copies.and_then(|copies| copies.born(&parents, self.sabotage));
            let leaves: Vec<_> =
                parents.iter().map(|parent| (parent.group, state::scan(parent.kv, &[schema::STATE]))).collect();
            (born, leaves)
        };
        let born = match born {
            Ok(born) => born,
            Err(why) => {
                let job = seal.job;
                return out.push(Effect::Broken(format!("no child of {job} can begin on node {}: {why}", self.id)));
            }
        };
        for one in born.into_iter().filter(|one| wanted.contains(&one.child.group)) {
            let (node, group) = (self.id, one.child.group);
            let pairs = state::scan(&one.kv, &[]);
            let seen = BornSeen { node, header: one.header, pairs, parents: leaves.clone() };
            out.push(Effect::Saw(Seen::Born(Box::new(seen))));
            let first = Rc::new(one.child.committee);
            let members: Vec<NodeId> = first.members.iter().map(|member| member.node).collect();
            let mut replica = Replica::child(&first, one.kv, self.id, &self.genesis, self.sabotage);
            // Whoever lies in a shard lies in what becomes of it; where two are joined, those of the left one.
            let left = seal.parents.first().and_then(|parent| self.replicas.get(parent));
            if let Some(liar) = left.and_then(|parent| parent.liar_in(group)) {
                let signs_twice = liar.signs_twice();
                out.push(Effect::Saw(Seen::Bft(BftSeen::Liar { node, group, signs_twice })));
                replica.lie(liar);
            }
            self.open(now_ms, group, replica, members, out);
        }
    }

    /// Begins children without a state whose parents nobody has any more.
    fn open_vacant(&mut self, now_ms: u64, view: &ClusterView, out: &mut Vec<Effect>) {
        for born in &view.born {
            let Some(committee) = view.committee(born.group) else { continue };
            let ended = !view.jobs.iter().any(|job| job.id == born.job);
            let here = born.parents.iter().any(|parent| self.replicas.contains_key(&parent.group));
            let stands = born
                .parents
                .iter()
                .all(|parent| self.replicas.get(&parent.group).is_some_and(|replica| replica.sealed().is_some()));
            let seated = committee.index_of(self.id).is_some();
            // One that has left it comes back by a plan alone.
            let left = self.moves.shards && self.left.contains(&born.group);
            if !seated || left || self.replicas.contains_key(&born.group) || stands || !ended && here {
                continue;
            }
            let first = Rc::new(committee.clone());
            let members: Vec<NodeId> = first.members.iter().map(|member| member.node).collect();
            let replica = if self.moves.shards {
                // Others may have come since, but whoever has a seat and no replica here had it from the first.
                Replica::seated(born.group, FIRST_JOIN, true, self.id, &self.genesis, self.sabotage)
            } else {
                Replica::child(&first, MemKv::new(), self.id, &self.genesis, self.sabotage)
            };
            self.open(now_ms, born.group, replica, members, out);
        }
    }

    /// Removes shards that have ended, once nobody needs their log any more.
    fn remove_ended(&mut self, view: &ClusterView, out: &mut Vec<Effect>) {
        let needed = |group: &GroupId| view.jobs.iter().any(|job| job.kind.parents().contains(group));
        let open = |group: GroupId| {
            let seated = view.committee(group).is_some_and(|committee| committee.index_of(self.id).is_some());
            !seated || self.replicas.contains_key(&group)
        };
        let ended = self.replicas.keys().filter(|group| view.layout.retired(**group) && !needed(group));
        let over: Vec<GroupId> =
            ended.filter(|group| view.layout.successors(**group).into_iter().all(open)).copied().collect();
        for group in over {
            self.remove(group, 0, false, out);
        }
    }
}

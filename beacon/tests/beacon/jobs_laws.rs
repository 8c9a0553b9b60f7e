//! Whatever happens to jobs, in whatever order: the layout covers everything, says what came from what, and forgets nothing.

use std::collections::BTreeMap;

use beacon::jobs::{self, Job, JobKind, Phase, Said};
use ledger::committee::{Committee, Member};
use ledger::genesis::Genesis;
use ledger::ids::{Address, Epoch, GroupId, Incarnation, JobId, OrgId};
use ledger::layout::{BitPrefix, Layout};
use ledger::view::View;
use proptest::prelude::*;

use crate::nodes::World;
use crate::support::{dealt, genesis};

/// Two shards and the beacon, all of the same three nodes.
fn small() -> Genesis {
    let nodes = dealt(3, 3);
    let member = |node: &ledger::genesis::NodeInfo| Member { node: node.id, org: node.org, key: node.key };
    let members: Vec<Member> = nodes.iter().map(member).collect();
    let groups = [GroupId::BEACON, GroupId::shard(0), GroupId::shard(1)];
    let committee = |group| Committee::majority(group, Incarnation(0), Epoch(0), members.clone());
    Genesis { committees: groups.map(committee).to_vec(), layout: Layout::even(2), nodes, ..genesis() }
}

/// What was true once, and stays true.
struct Known {
    layout: Layout,
    prefixes: BTreeMap<GroupId, BitPrefix>,
    children: BTreeMap<GroupId, JobId>,
    last: JobId,
}

impl Known {
    fn check(&mut self, world: &World) -> Result<(), TestCaseError> {
        let (view, all) = (world.view(), jobs::jobs(&mut View::new(&world.state)));
        let layout = &view.layout;
        prop_assert!(layout.well_formed());
        prop_assert!(layout.version >= self.layout.version);
        prop_assert_eq!(&layout.lineage[..self.layout.lineage.len()], &self.layout.lineage[..]);
        let living: Vec<GroupId> = layout.shards.iter().map(|shard| shard.group).collect();
        let ended: Vec<GroupId> = layout.lineage.iter().map(|entry| entry.group).collect();
        for group in living.iter().chain(&ended) {
            let prefix = layout.prefix_ever(*group).unwrap();
            prop_assert_eq!(*self.prefixes.entry(*group).or_insert(prefix), prefix, "a prefix is for life");
        }
        for seed in 0..32u8 {
            let account = Address([seed; 20]);
            let (before, now) = (self.layout.locate(&account), layout.locate(&account));
            prop_assert!(layout.descends(now, before), "{now} does not come from {before}");
        }
        // Whoever lives has a committee, and whoever was born has said so; of the others nothing is in force.
        let mut seated: Vec<GroupId> = view.committees.iter().map(|committee| committee.group).collect();
        seated.retain(|group| *group != GroupId::BEACON);
        let mut sorted = living.clone();
        sorted.sort_unstable();
        prop_assert_eq!(seated, sorted.clone());
        let born: Vec<GroupId> = view.born.iter().map(|born| born.group).collect();
        sorted.retain(|group| group.ordinal() > 1);
        prop_assert_eq!(born, sorted);
        let sealing = all.iter().filter(|job| job.phase == Phase::Sealing);
        prop_assert!(sealing.count() <= 1);
        for job in &all {
            self.last = self.last.max(job.id);
            for child in &job.children {
                let of = *self.children.entry(child.group).or_insert(job.id);
                prop_assert_eq!(of, job.id, "a number is given once");
            }
        }
        self.layout = layout.clone();
        Ok(())
    }
}

/// One of the jobs in a phase.
fn pick(world: &World, phase: Phase, which: u8) -> Option<Job> {
    let mut found = jobs::jobs(&mut View::new(&world.state));
    found.retain(|job| job.phase == phase);
    let count = found.len();
    (count > 0).then(|| found.swap_remove(usize::from(which) % count))
}

fn happen(world: &mut World, (event, which): (u8, u8)) {
    let shards = world.view().layout.shards;
    let at = usize::from(which) % shards.len();
    match event {
        0 | 1 => {
            // Refused where something is under way; that is part of it.
            let kind = JobKind::Split { group: shards[at].group };
            let _ = world.propose(1, kind, which > 200).and_then(|_| world.propose(2, kind, which > 200));
        }
        2 | 3 => {
            let right = shards[(at + 1) % shards.len()].group;
            let kind = JobKind::Merge { left: shards[at].group, right };
            let _ = world.propose(1, kind, false).and_then(|_| world.propose(2, kind, false));
        }
        4 | 5 => {
            if let Some(job) = pick(world, Phase::Preparing, which) {
                world.warm_without(job.id, 0);
                let _ = world.event(|view, at| jobs::cut(view, at, OrgId(1), job.id));
            }
        }
        6 | 7 => {
            if let Some(job) = pick(world, Phase::Sealing, which) {
                world.seal_all(job.id);
            }
        }
        8 => {
            if let Some(job) = pick(world, Phase::Sealing, which) {
                let proof = world.proof(job.id, job.kind.parents()[0]);
                world.sealed(&proof).unwrap();
            }
        }
        9 | 10 => {
            if let Some(job) = pick(world, Phase::Committed, which) {
                world.open_all(job.id);
            }
        }
        11 => {
            if let Some(job) = pick(world, Phase::Preparing, which) {
                let parent = job.kind.parents()[0];
                world.say(1, parent, Said::Cold(job.id)).unwrap();
            }
        }
        12 => {
            let phase = [Phase::Proposed, Phase::Preparing, Phase::Sealing][usize::from(which) % 3];
            if let Some(job) = pick(world, phase, which) {
                world.event(|view, at| jobs::cancel(view, at, OrgId(1), job.id)).unwrap();
            }
        }
        _ => {
            world.now += [100, 5_100, 70_000, 700_000][usize::from(which) % 4];
            world.tick();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_layout_stays_whole_with_all_that_it_came_from(events in prop::collection::vec((0..14u8, any::<u8>()), 8..48)) {
        let mut world = World::of(small());
        let layout = world.view().layout;
        let mut known = Known { layout, prefixes: BTreeMap::new(), children: BTreeMap::new(), last: JobId(0) };
        for event in events {
            happen(&mut world, event);
            known.check(&world)?;
        }
        let rest = known.children.keys().map(|child| child.ordinal()).max();
        prop_assert!(rest.is_none_or(|highest| highest as usize == known.children.len() + 1), "none is left out either");
    }
}

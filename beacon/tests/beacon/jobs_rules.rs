//! What jobs keep from changing, seats that are moved by one, and what is not taken from anybody.

use beacon::command::BeaconCommand;
use beacon::jobs::{self, JobKind, JobReport, Phase, Said, apply_report};
use beacon::machine::CommandOutcome;
use cross_shard::message::Message;
use ledger::committee::Engine;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;

use crate::jobs::{APART, SHARDS, SPLIT, seven};
use crate::nodes::World;
use crate::support::node_key;

#[test]
fn seats_stay_as_they_are_until_the_job_has_ended() {
    let mut world = World::of(seven());
    let id = world.decide(SPLIT, true);
    let switch = BeaconCommand::SwitchEngine { group: SHARDS[2], engine: Engine::Bft };
    assert_eq!(world.command(1, &switch), Err(Reject::ShardBusy));
    // Node 3, of organisation 3, has a seat in every group. No job is about the beacon: its committee changes.
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(3), capacity: 0 }).unwrap();
    let coming = |world: &World| world.view().coming.iter().map(|coming| coming.group).collect::<Vec<_>>();
    assert_eq!(coming(&world), [GroupId::BEACON, SHARDS[0], SHARDS[1], SHARDS[3]]);
    let cancelled = world.event(|view, at| jobs::cancel(view, at, OrgId(1), id)).unwrap();
    assert_eq!(cancelled.mail.iter().map(|(group, _)| *group).collect::<Vec<_>>(), [SHARDS[2]]);
    assert_eq!(coming(&world), [GroupId::BEACON, SHARDS[0], SHARDS[1], SHARDS[2], SHARDS[3]]);
    assert_eq!(world.propose(1, SPLIT, true), Err(Reject::ShardBusy), "seats are moving");
}

/// A drain of a member of the left half takes the seats of both from the job, and a plan is made. When the member may stay
/// after all, the job has them again, and the plan must not outlive that.
#[test]
fn a_plan_of_a_parent_goes_when_a_job_decides_about_its_seats_again() {
    let mut world = World::of(seven());
    let id = world.decide(APART, false);
    let coming = |world: &World, group: GroupId| world.view().coming.into_iter().find(|plan| plan.group == group);
    let drain = BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 0 };
    world.command(2, &drain).unwrap();
    assert!(coming(&world, SHARDS[0]).is_some_and(|plan| plan.index_of(NodeId(2)).is_none()));
    let back = BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 1 };
    let executed = world.command(2, &back).unwrap();
    let current = world.committee(SHARDS[0]);
    assert!(
        executed.mail.contains(&(SHARDS[0], Message::CommitteePlan(current.clone()))),
        "it is told that there is none"
    );
    assert_eq!(coming(&world, SHARDS[0]), None);
    let right = coming(&world, SHARDS[1]).expect("the right half is still brought to the nodes of the left one");
    assert!(right.index_of(NodeId(2)).is_some() && world.job(id).phase == Phase::Aligning);
    world.ready_all();
    assert_eq!((world.committee(SHARDS[0]), world.job(id).phase), (current, Phase::Preparing));
    world.warm_without(id, 0);
    world.seal_all(id);
    assert_eq!((world.job(id).phase, world.view().coming), (Phase::Committed, vec![]));
}

#[test]
fn a_seat_moves_by_the_word_of_its_organisation_or_of_most() {
    // Node n is of organisation (n - 1) % 3 + 1.
    let mut world = World::of(seven());
    let own = JobKind::Move { group: SHARDS[2], from: NodeId(1), to: NodeId(4) };
    let executed = world.propose(1, own, false).unwrap();
    let CommandOutcome::Job { id, phase: Phase::Preparing } = executed.outcome else { panic!("its own seat") };
    let coming = world.view().coming;
    assert_eq!(executed.mail, [(SHARDS[2], Message::CommitteePlan(coming[0].clone()))]);
    assert_eq!(coming[0].members.iter().map(|member| member.node.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((world.job(id).until_ms, world.tick()), (None, vec![]));
    // Nothing else changes the plan meanwhile.
    world.command(2, &BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 0 }).unwrap();
    assert_eq!(world.view().coming.iter().find(|plan| plan.group == SHARDS[2]), Some(&coming[0]));
    world.command(2, &BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 1 }).unwrap();
    assert_eq!(world.say(1, SHARDS[2], Said::Warm(id)), Err(Reject::ReportForm));
    assert_eq!(world.event(|view, at| jobs::cut(view, at, OrgId(1), id)), Err(Reject::JobOver));
    world.ready_all();
    assert_eq!((world.job(id).phase, world.committee(SHARDS[2]).members), (Phase::Done, coming[0].members.clone()));

    let foreign = JobKind::Move { group: SHARDS[3], from: NodeId(1), to: NodeId(5) };
    let waits = world.propose(1, foreign, false).unwrap();
    assert!(matches!(waits.outcome, CommandOutcome::Job { phase: Phase::Proposed, .. }));
    assert_eq!(world.view().coming, []);
    let CommandOutcome::Job { id, .. } = world.propose(3, foreign, false).unwrap().outcome else { panic!("a job") };
    assert_eq!(world.view().coming.len(), 1);
    let cancelled = world.event(|view, at| jobs::cancel(view, at, OrgId(3), id)).unwrap();
    assert_eq!(cancelled.mail, [(SHARDS[3], Message::CommitteePlan(world.committee(SHARDS[3])))]);
    assert_eq!((world.view().coming, world.job(id).phase), (vec![], Phase::Cancelled));
}

#[test]
fn reports_that_are_not_what_they_say_count_for_nothing() {
    let mut world = World::of(seven());
    let id = world.decide(SPLIT, true);
    let cluster = world.genesis.cluster_id();
    let sign = |at_ms: u64, node: u32, group: GroupId, said: Said, key: u32| {
        JobReport::sign(cluster, NodeId(node), group, TimeMs(at_ms), said, &node_key(key))
    };
    let good = sign(world.now, 1, SHARDS[2], Said::Warm(id), 1);
    let mut take = |report: &JobReport| world.event(|view, at| apply_report(view, at, report));
    let now = good.at_ms.0;
    for (what, wrong) in [
        ("another one's key", sign(now, 1, SHARDS[2], Said::Warm(id), 2)),
        ("altered", JobReport { said: Said::Cold(id), ..good.clone() }),
        ("another version", JobReport { version: 2, ..good.clone() }),
        ("of nobody", JobReport { node: NodeId(77), ..good.clone() }),
        ("of no member", sign(now, 5, SHARDS[2], Said::Warm(id), 5)),
        ("about no parent", sign(now, 1, SHARDS[3], Said::Warm(id), 1)),
        ("about no job", sign(now, 1, SHARDS[2], Said::Warm(JobId(9)), 1)),
        ("old", sign(now - 30_001, 1, SHARDS[2], Said::Warm(id), 1)),
        ("ahead", sign(now + 30_001, 1, SHARDS[2], Said::Warm(id), 1)),
        ("nobody scales", sign(now, 1, SHARDS[2], Said::Load { accounts: 1, bytes: 1, tps: 1 }, 1)),
    ] {
        assert_eq!(take(&wrong), Err(Reject::ReportForm), "{what}");
    }
    let foreign = JobReport { cluster: ClusterId(Hash32([1; 32])), ..good.clone() };
    assert_eq!(take(&foreign), Err(Reject::WrongCluster));
    assert_eq!(take(&good).unwrap().outcome, CommandOutcome::Job { id, phase: Phase::Preparing });
    assert_eq!(take(&good), Err(Reject::ReportForm), "it counts once");
    // One that was said earlier does not bring back what was taken back since.
    let later = sign(now + 2, 1, SHARDS[2], Said::Cold(id), 1);
    take(&later).unwrap();
    assert_eq!(take(&sign(now + 1, 1, SHARDS[2], Said::Warm(id), 1)), Err(Reject::ReportForm));
    assert_eq!(world.job(id).warm, []);
}

/// Each command reaches the rules of jobs, which refuse what is about no job or was planned on another layout.
#[test]
fn commands_about_jobs_are_judged_by_their_rules() {
    let mut world = World::of(seven());
    let layout = LayoutVersion(world.view().layout.version.0 + 7);
    for (command, reject) in [
        (BeaconCommand::SplitShard { group: SHARDS[2], layout, manual: false }, Reject::LayoutOld),
        (BeaconCommand::MergeShards { left: SHARDS[2], right: SHARDS[3], layout, manual: false }, Reject::LayoutOld),
        (BeaconCommand::MoveShard { group: SHARDS[2], from: NodeId(1), to: NodeId(4), layout }, Reject::LayoutOld),
        (BeaconCommand::CutShard { job: JobId(1) }, Reject::JobUnknown),
        (BeaconCommand::CancelJob { job: JobId(1) }, Reject::JobUnknown),
    ] {
        assert_eq!(world.command(1, &command), Err(reject), "{command:?}");
    }
    world.command(1, &BeaconCommand::SetScale(beacon::ScalePolicy::DEFAULT)).expect("one of several that ask for it");
}

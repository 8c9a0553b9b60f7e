//! Plans: what a job would come to, and each thing that speaks against one.

use beacon::ClusterView;
use beacon::jobs::{self, Asked, Job, JobKind, Phase, ScalePolicy, Shards, Standing, plan};
use beacon::machine::CommandOutcome;
use ledger::committee::Engine;
use ledger::crypto::PublicKey;
use ledger::ids::{GroupId, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::{ALIKE, APART, SHARDS, SPLIT, seven};
use crate::nodes::World;
use crate::support::{NOW, state_of};

fn standing() -> Standing {
    let state = state_of(&seven());
    Standing::read(&mut View::new(&state), TimeMs(NOW)).unwrap()
}

/// A job in a phase, as a standing has it.
fn a_job(kind: JobKind, phase: Phase) -> Job {
    let mut world = World::of(seven());
    let id = world.decide(kind, true);
    Job { phase, ..world.job(id) }
}

const fn moves(from: u32, to: u32) -> JobKind {
    JobKind::Move { group: SHARDS[2], from: NodeId(from), to: NodeId(to) }
}

const fn merges(left: GroupId, right: GroupId) -> JobKind {
    JobKind::Merge { left, right }
}

#[test]
fn each_thing_that_speaks_against_a_job() {
    let rows: [(&str, fn(&mut Standing), JobKind, Option<Reject>); 38] = [
        ("a split", |_| {}, SPLIT, None),
        ("a merge", |_| {}, ALIKE, None),
        ("a merge of shards with other nodes", |_| {}, APART, None),
        ("a move", |_| {}, moves(1, 4), None),
        ("no such shard", |_| {}, JobKind::Split { group: GroupId::shard(9) }, Some(Reject::ShardUnknown)),
        ("the beacon", |_| {}, JobKind::Split { group: GroupId::BEACON }, Some(Reject::ShardUnknown)),
        ("one half of two", |_| {}, merges(SHARDS[2], GroupId::shard(9)), Some(Reject::ShardUnknown)),
        (
            "a retired shard",
            |found| found.layout = found.layout.split(SHARDS[2], [4, 5].map(GroupId::shard)).unwrap(),
            SPLIT,
            Some(Reject::ShardUnknown),
        ),
        ("seats are moving", |found| found.coming.push(found.committees[3].clone()), SPLIT, Some(Reject::ShardBusy)),
        (
            "a key is awaited",
            |found| {
                let mut coming = found.committees[3].clone();
                coming.members[0].key = PublicKey([9; 33]);
                found.coming.push(coming);
            },
            SPLIT,
            Some(Reject::NodeKeyAwaited),
        ),
        ("another engine", |found| found.switching.push((SHARDS[3], Engine::Bft)), ALIKE, Some(Reject::ShardBusy)),
        ("a job", |found| found.jobs.push(a_job(SPLIT, Phase::Preparing)), ALIKE, Some(Reject::ShardBusy)),
        ("a child of one", |found| found.jobs.push(busy_child()), SPLIT, Some(Reject::ShardBusy)),
        ("one that waits for approvals", |found| found.jobs.push(a_job(SPLIT, Phase::Proposed)), ALIKE, None),
        ("quarantine", |found| found.quarantined = vec![SHARDS[2]], SPLIT, Some(Reject::GroupQuarantined)),
        ("quarantine of one that stays", |found| found.quarantined = vec![SHARDS[2]], moves(1, 4), None),
        ("neighbours", |_| {}, merges(SHARDS[1], SHARDS[2]), Some(Reject::NotSiblings)),
        ("the wrong way round", |_| {}, merges(SHARDS[3], SHARDS[2]), Some(Reject::NotSiblings)),
        ("one twice", |_| {}, merges(SHARDS[2], SHARDS[2]), Some(Reject::NotSiblings)),
        ("two engines", |found| found.committees[4].engine = Engine::Bft, ALIKE, Some(Reject::MergeApart)),
        ("a barred node would come", |found| found.barred = vec![NodeId(1)], APART, Some(Reject::MergeApart)),
        ("a node without capacity would come", |found| found.nodes[1].capacity = 0, APART, Some(Reject::MergeApart)),
        ("a barred node stays", |found| found.barred = vec![NodeId(4)], APART, None),
        (
            "a barred node stays, and nobody takes its seat",
            |found| found.barred = [4, 6, 7].map(NodeId).to_vec(),
            APART,
            Some(Reject::MergeApart),
        ),
        ("too deep", |found| found.layout.shards[2].prefix.length = 32, SPLIT, Some(Reject::SplitDepth)),
        ("too many shards", |found| fill_shards(found, 1024), SPLIT, Some(Reject::SplitDepth)),
        ("too many with those under way", fill_almost, SPLIT, Some(Reject::SplitDepth)),
        ("too many have ended", |found| fill_lineage(found, 4096), SPLIT, Some(Reject::SplitDepth)),
        ("two more are too many", |found| fill_lineage(found, 4095), ALIKE, Some(Reject::SplitDepth)),
        ("a registry too large", |found| found.view_bytes = 5_000_000, SPLIT, Some(Reject::SplitDepth)),
        ("too many jobs", |found| found.jobs = vec![a_job(APART, Phase::Aligning); 16], SPLIT, Some(Reject::JobsFull)),
        ("as many that wait", |found| found.jobs = vec![a_job(ALIKE, Phase::Proposed); 16], SPLIT, None),
        ("one of three is silent", |found| found.silent = vec![NodeId(2)], SPLIT, Some(Reject::ShardRisk)),
        ("one of five is silent", |found| found.silent = vec![NodeId(2)], JobKind::Split { group: SHARDS[0] }, None),
        ("has no seat", |_| {}, moves(7, 4), Some(Reject::MoveSource)),
        ("has one already", |_| {}, moves(1, 2), Some(Reject::MoveTarget)),
        ("who is left is silent", |found| found.silent = vec![NodeId(2)], moves(1, 4), Some(Reject::ShardRisk)),
        ("who leaves is silent", |found| found.silent = vec![NodeId(1)], moves(1, 4), None),
    ];
    for (what, change, kind, expected) in rows {
        let mut found = standing();
        change(&mut found);
        assert_eq!(plan(&found, &kind).err(), expected, "{what}");
    }
    let targets: [(&str, fn(&mut Standing), u32); 3] = [
        ("unknown", |_| {}, 77),
        ("accused", |found| found.barred = vec![NodeId(4)], 4),
        ("without capacity", |found| found.nodes[3].capacity = 0, 4),
    ];
    for (what, change, to) in targets {
        let mut found = standing();
        change(&mut found);
        assert_eq!(plan(&found, &moves(1, to)).err(), Some(Reject::MoveTarget), "{what}");
    }
}

/// A job that has committed, with the shard as its child.
fn busy_child() -> Job {
    let job = a_job(APART, Phase::Committed);
    let split = a_job(SPLIT, Phase::Committed);
    let child = split.children.into_iter().next().unwrap();
    Job { children: vec![ledger::ChildShard { group: SHARDS[2], ..child }], ..job }
}

fn fill_shards(found: &mut Standing, count: usize) {
    let last = found.layout.shards[3].clone();
    found.layout.shards.resize(count, last);
}

/// One shard fewer than there may be, and a split of another one under way.
fn fill_almost(found: &mut Standing) {
    fill_shards(found, 1023);
    found.jobs.push(a_job(JobKind::Split { group: SHARDS[0] }, Phase::Preparing));
}

fn fill_lineage(found: &mut Standing, count: usize) {
    let next = found.layout.split(SHARDS[0], [4, 5].map(GroupId::shard)).unwrap();
    found.layout.lineage = vec![next.lineage[0].clone(); count];
}

#[test]
fn a_plan_says_what_would_begin() {
    let found = standing();
    let split = plan(&found, &SPLIT).unwrap();
    let prefix = found.layout.prefix_of(SHARDS[2]).unwrap();
    assert_eq!(
        (split.parents.as_slice(), split.on, split.aligns),
        (&[(SHARDS[2], prefix)][..], LayoutVersion(1), false)
    );
    let children: Vec<_> = split.children.iter().map(|child| (child.group, child.prefix)).collect();
    assert_eq!(children, [(GroupId::shard(4), prefix.child(false)), (GroupId::shard(5), prefix.child(true))]);
    let apart = plan(&found, &APART).unwrap();
    assert_eq!((apart.aligns, apart.children.len(), apart.children[0].committee.members.len()), (true, 1, 5));
    assert!(!plan(&found, &ALIKE).unwrap().aligns);
    let moved = plan(&found, &moves(1, 4)).unwrap();
    assert_eq!(moved.committee.members.iter().map(|member| member.node.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((moved.children, moved.parents), (vec![], vec![]));
    // A follower computes the same from what it is shown, also of numbers that are given and not in the layout yet.
    let mut world = World::of(seven());
    world.decide(JobKind::Split { group: SHARDS[0] }, true);
    let beacon = Standing::read(&mut View::new(&world.state), TimeMs(world.now)).unwrap();
    let follower = Standing::of(&ClusterView::read(&world.state).unwrap());
    assert_eq!(plan(&follower, &SPLIT), plan(&beacon, &SPLIT));
    assert_eq!(plan(&follower, &SPLIT).unwrap().children[0].group, GroupId::shard(6));
}

#[test]
fn the_beacon_refuses_what_the_plan_refuses_and_another_layout() {
    let mut world = World::of(seven());
    let until = TimeMs(world.now + 60_000);
    let asked = Asked { kind: SPLIT, layout: LayoutVersion(2), manual: false };
    let refused = world.event(|view, at| jobs::propose(view, at, OrgId(1), asked, until));
    assert_eq!(refused, Err(Reject::LayoutOld));
    assert_eq!(world.propose(1, merges(SHARDS[1], SHARDS[2]), false), Err(Reject::NotSiblings));
    // Whatever was approved before is judged again when it is decided.
    world.propose(1, SPLIT, false).unwrap();
    world.decide(ALIKE, true);
    assert_eq!(world.propose(2, SPLIT, false), Err(Reject::ShardBusy));
}

/// What one organisation proposes takes no other one's place, and has its own bound.
#[test]
fn no_organisation_alone_keeps_the_others_from_a_job() {
    let mut world = World::of(seven());
    let kinds = [(1, 6), (1, 7), (2, 6), (2, 7), (3, 6)];
    let [waiting @ .., more] =
        kinds.map(|(from, to)| JobKind::Move { group: SHARDS[0], from: NodeId(from), to: NodeId(to) });
    // None of them is between two nodes of the organisation that proposes them, which would begin at once.
    for kind in waiting {
        world.propose(2, kind, false).unwrap();
    }
    assert_eq!(world.propose(2, more, false), Err(Reject::JobsFull));
    assert_eq!(world.propose(2, SPLIT, false), Err(Reject::JobsFull), "whatever it is");
    assert!(world.propose(2, waiting[0], false).is_ok(), "this one waits already");
    // Others have their own, and what they decide on has room.
    world.propose(3, SPLIT, true).unwrap();
    let CommandOutcome::Job { id, phase } = world.propose(2, SPLIT, true).unwrap().outcome else { panic!("a job") };
    assert_eq!(phase, Phase::Preparing, "to approve what another one proposes is free");
    assert_eq!(world.propose(2, more, false), Err(Reject::JobsFull), "its four are still there");
    world.event(|view, at| jobs::cancel(view, at, OrgId(2), JobId(1))).unwrap();
    assert!(world.propose(2, more, false).is_ok(), "it has taken one back");
    world.now += 60_001;
    world.tick();
    assert!(world.job(id).phase.under_way());
    // Node n is of organisation (n - 1) % 3 + 1: its own seats move by its word alone, and without end.
    for (group, from, to) in [(SHARDS[0], 1, 7), (SHARDS[3], 1, 4)] {
        let own = JobKind::Move { group, from: NodeId(from), to: NodeId(to) };
        assert!(!world.propose(1, own, false).unwrap().mail.is_empty());
    }
    let foreign =
        [(4, 2), (5, 1)].map(|(from, to)| JobKind::Move { group: SHARDS[1], from: NodeId(from), to: NodeId(to) });
    for kind in foreign {
        world.propose(1, kind, false).unwrap();
    }
    let last = JobKind::Move { group: SHARDS[1], from: NodeId(6), to: NodeId(2) };
    assert_eq!(world.propose(1, last, false), Err(Reject::JobsFull), "two that move its seats, and two that wait");
    assert!(world.propose(3, last, false).is_ok());
}

#[test]
fn whoever_asks_is_told_enough_to_plan_and_to_watch() {
    let mut world = World::of(seven());
    let told = |world: &World| {
        let told = Shards::read(&mut View::new(&world.state), TimeMs(world.now)).unwrap();
        let bytes = borsh::to_vec(&told).unwrap();
        assert_eq!(borsh::from_slice::<Shards>(&bytes).unwrap(), told, "it travels");
        told
    };
    assert_eq!((told(&world).standing, told(&world).policy), (standing(), ScalePolicy::DEFAULT));
    let id = world.decide(SPLIT, true);
    let under_way = told(&world);
    assert_eq!(under_way.jobs().map(|job| (job.id, job.phase)).collect::<Vec<_>>(), [(id, Phase::Preparing)]);
    assert_eq!(plan(&under_way.standing, &SPLIT), Err(Reject::ShardBusy));
    world.event(|view, at| jobs::cancel(view, at, OrgId(1), id)).unwrap();
    let over = told(&world);
    assert!(over.standing.jobs.is_empty());
    assert_eq!(over.jobs().map(|job| (job.id, job.phase)).collect::<Vec<_>>(), [(id, Phase::Cancelled)]);
    // A job that has come to nothing keeps its numbers.
    let again = plan(&over.standing, &SPLIT).unwrap();
    assert_eq!(again.children.iter().map(|child| child.group.ordinal()).collect::<Vec<_>>(), [6, 7]);
}

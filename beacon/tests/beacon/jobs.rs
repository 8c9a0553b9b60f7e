//! Jobs: the table of what happens to one in which phase, cell by cell, and what jobs keep from each other.

use beacon::BeaconCommand;
use beacon::jobs::{
    self, Asked, Job, JobKind, JobReport, Phase, RootShape, Said, SealedProof, apply_report, apply_sealed,
};
use beacon::machine::{CommandOutcome, Executed};
use beacon::registry::{self, RegistryHead};
use cross_shard::message::Message;
use cross_shard::stream::{self, StreamLeaf};
use ledger::certificate::Certificate;
use ledger::committee::{Committee, Member};
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::header::{FLAG_SEALED, Header};
use ledger::ids::{Epoch, GroupId, Height, Incarnation, JobId, NodeId, OrgId, TimeMs};
use ledger::lineage::SealedBy;
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::tree::{SubtreeRoot, combine};
use ledger::view::View;

use crate::nodes::World;
use crate::support::{at, certified, dealt, genesis, node_key, settle};

pub const SHARDS: [GroupId; 4] = [GroupId::shard(0), GroupId::shard(1), GroupId::shard(2), GroupId::shard(3)];
pub const APART: JobKind = JobKind::Merge { left: SHARDS[0], right: SHARDS[1] };
pub const ALIKE: JobKind = JobKind::Merge { left: SHARDS[2], right: SHARDS[3] };
pub const SPLIT: JobKind = JobKind::Split { group: SHARDS[2] };

/// Seven nodes of three organisations. The first two shards have five members each, three of them the same; the other two
/// have the same three.
pub fn seven() -> Genesis {
    let nodes = dealt(7, 3);
    let committee = |group: GroupId, ids: std::ops::RangeInclusive<u32>| {
        let member = |id: u32| {
            let node = nodes.iter().find(|node| node.id == NodeId(id)).unwrap();
            Member { node: node.id, org: node.org, key: node.key }
        };
        Committee::majority(group, Incarnation(0), Epoch(0), ids.map(member).collect())
    };
    let committees = vec![
        committee(GroupId::BEACON, 1..=3),
        committee(SHARDS[0], 1..=5),
        committee(SHARDS[1], 3..=7),
        committee(SHARDS[2], 1..=3),
        committee(SHARDS[3], 1..=3),
    ];
    Genesis { committees, nodes, ..genesis() }
}

/// A certificate of a header by all of a committee.
pub fn sign(header: Header, committee: &Committee) -> Certificate {
    let digest = header.hash();
    let signatures = committee.members.iter().map(|member| (member.node, node_key(member.node.0).sign(&digest)));
    Certificate { version: 1, signatures: signatures.collect(), header }
}

impl World {
    /// Has something happen in a block of its own, and sends what is to be mailed.
    pub fn event(
        &mut self,
        work: impl FnOnce(&mut View<'_>, &BlockContext) -> Result<Executed, Reject>,
    ) -> Result<Executed, Reject> {
        let context = at(&self.genesis, self.now);
        let mut found = Err(Reject::Storage);
        let next = settle(&self.state, |view| {
            found = work(view, &context);
            for (dest, message) in found.iter().flat_map(|executed| &executed.mail) {
                stream::emit(view, *dest, message.encode());
            }
        });
        assert!(found.is_ok() || next == self.state, "a refusal leaves no trace");
        self.state = next;
        let view = self.view();
        assert!(view.well_formed());
        match self.state.get(&registry::head_key()) {
            Some(head) => {
                let expected = borsh::to_vec(&RegistryHead::of(view.revision, &view.encode())).unwrap();
                assert_eq!(head[..], expected[..], "what followers are shown is what the head holds");
            }
            None => assert!(view.revision == 1 && view.jobs.is_empty()),
        }
        found
    }

    pub fn propose(&mut self, by: u16, kind: JobKind, manual: bool) -> Result<Executed, Reject> {
        let (layout, until) = (self.view().layout.version, TimeMs(self.now + 60_000));
        self.event(|view, at| jobs::propose(view, at, OrgId(by), Asked { kind, layout, manual }, until))
    }

    /// Two of three organisations ask for a job.
    pub fn decide(&mut self, kind: JobKind, manual: bool) -> JobId {
        self.propose(1, kind, manual).unwrap();
        let CommandOutcome::Job { id, phase } = self.propose(2, kind, manual).unwrap().outcome else { panic!("a job") };
        assert!(phase.under_way());
        id
    }

    pub fn job(&self, id: JobId) -> Job {
        jobs::job(&mut View::new(&self.state), id).unwrap()
    }

    pub fn say(&mut self, node: u32, group: GroupId, said: Said) -> Result<Executed, Reject> {
        self.now += 1;
        let cluster = self.genesis.cluster_id();
        let report = JobReport::sign(cluster, NodeId(node), group, TimeMs(self.now), said, &node_key(node));
        self.event(|view, at| apply_report(view, at, &report))
    }

    /// All members of all parents but this one have their copies. What is mailed.
    pub fn warm_without(&mut self, id: JobId, without: u32) -> Vec<(GroupId, Message)> {
        let mut mail = Vec::new();
        for group in self.job(id).kind.parents() {
            let nodes: Vec<u32> = self.committee(group).members.iter().map(|member| member.node.0).collect();
            for node in nodes.into_iter().filter(|node| *node != without) {
                mail.extend(self.say(node, group, Said::Warm(id)).unwrap().mail);
            }
        }
        mail
    }

    pub fn committee(&self, group: GroupId) -> Committee {
        registry::committee(&mut View::new(&self.state), group).unwrap()
    }

    pub fn tick(&mut self) -> Vec<(GroupId, Message)> {
        let nothing = CommandOutcome::Applied;
        let ticked = self.event(|view, at| Ok(Executed { mail: jobs::tick(view, at), ..nothing.into() }));
        ticked.unwrap().mail
    }

    pub fn sealed(&mut self, proof: &SealedProof) -> Result<Executed, Reject> {
        self.event(|view, at| apply_sealed(view, at, proof))
    }

    /// What a parent shows that has taken everything which the beacon had for it, and of each other shard of an even number
    /// as many messages as that number and ten.
    pub fn proof(&self, id: JobId, group: GroupId) -> SealedProof {
        let mut view = View::new(&self.state);
        let job = jobs::job(&mut view, id).unwrap();
        let shape = |tag: u8| RootShape::Inner { left: [tag; 32], right: [tag + 1; 32] };
        let shapes = match job.kind {
            JobKind::Split { .. } => vec![shape(1), RootShape::Leaf { position: [0xff; 32], value: [3; 32] }],
            JobKind::Merge { .. } | JobKind::Move { .. } => vec![shape(group.ordinal() as u8 + 4)],
        };
        let roots: Vec<SubtreeRoot> = shapes.iter().map(RootShape::root).collect();
        let root = roots.iter().copied().reduce(combine).unwrap();
        let leaf = |peer: GroupId, next_seq: u64| StreamLeaf { peer, next_seq, head: Hash32([9; 32]) };
        let mut inbox = vec![leaf(GroupId::BEACON, stream::out_stream(&mut view, group).next_seq)];
        let mut others: Vec<GroupId> = self.view().layout.shards.iter().map(|shard| shard.group).collect();
        others.sort_unstable();
        others.retain(|other| *other != group && other.ordinal() % 2 == 0);
        inbox.extend(others.into_iter().map(|other| leaf(other, u64::from(other.ordinal()) + 10)));
        let committee = registry::committee(&mut view, group).unwrap();
        let born = self.view().born.into_iter().find(|born| born.group == group);
        let first = born.iter().flat_map(|born| &born.parents).map(|end| end.height.0).max().unwrap_or(0);
        let last = registry::checkpoint(&mut view, group).map_or(0, |last| last.height.0);
        let Certificate { header, .. } = certified(&self.genesis, GroupId::BEACON, last.max(first) + 7, 0);
        let header = Header {
            group,
            state_root: Hash32(root.hash),
            layout_version: job.on,
            inbox_cursors_root: stream::root(&inbox),
            committee_hash: committee.hash(),
            next_committee_hash: committee.hash(),
            flags: FLAG_SEALED,
            ..header
        };
        SealedProof { version: 1, job: id, certificate: sign(header, &committee), inbox, roots, shapes }
    }

    /// Seals all parents of a job. What the last proof came to.
    pub fn seal_all(&mut self, id: JobId) -> Executed {
        let parents = self.job(id).kind.parents();
        let proofs: Vec<SealedProof> = parents.iter().map(|group| self.proof(id, *group)).collect();
        proofs.iter().map(|proof| self.sealed(proof).unwrap()).last().unwrap()
    }

    /// All members of all children have opened theirs.
    pub fn open_all(&mut self, id: JobId) {
        for child in self.job(id).children {
            for member in child.committee.members {
                self.say(member.node.0, child.group, Said::Open(id)).unwrap();
            }
        }
    }
}

const PHASES: [Phase; 7] = [
    Phase::Proposed,
    Phase::Aligning,
    Phase::Preparing,
    Phase::Sealing,
    Phase::Committed,
    Phase::Done,
    Phase::Cancelled,
];

/// A merge in a phase, and the proof of its left parent that was given, or would be.
fn in_phase(phase: Phase) -> (World, JobId, SealedProof) {
    let mut world = World::of(seven());
    let CommandOutcome::Job { id, .. } = world.propose(1, APART, false).unwrap().outcome else { panic!("a job") };
    if phase >= Phase::Aligning {
        world.propose(2, APART, false).unwrap();
    }
    if phase >= Phase::Preparing {
        world.ready_all();
        world.say(1, SHARDS[0], Said::Warm(id)).unwrap();
    }
    if phase >= Phase::Sealing {
        world.warm_without(id, 5);
    }
    let proof = world.proof(id, SHARDS[0]);
    if matches!(phase, Phase::Committed | Phase::Done) {
        world.seal_all(id);
    }
    if phase == Phase::Done {
        world.open_all(id);
    }
    if phase == Phase::Cancelled {
        world.event(|view, at| jobs::cancel(view, at, OrgId(1), id)).unwrap();
    }
    assert_eq!(world.job(id).phase, phase);
    (world, id, proof)
}

fn kind_of(message: &Message) -> &'static str {
    match message {
        Message::CommitteePlan(_) => "plan",
        Message::Seal(_) => "seal",
        Message::Unseal(_) => "unseal",
        Message::Reshaped(_) => "reshaped",
        _ => "other",
    }
}

/// What an event does to a job: its reject, nothing, something noted, or another phase with reason and mail.
fn cell(phase: Phase, event: &str) -> String {
    let (mut world, id, proof) = in_phase(phase);
    let before = world.job(id);
    let child = GroupId::shard(4);
    let found = match event {
        "approve" => world.propose(if phase == Phase::Proposed { 2 } else { 3 }, APART, false),
        "warm" => world.say(5, SHARDS[0], Said::Warm(id)),
        "cold" => world.say(1, SHARDS[0], Said::Cold(id)),
        "open" => world.say(1, child, Said::Open(id)),
        "cut" => world.event(|view, at| jobs::cut(view, at, OrgId(1), id)),
        "cancel" => world.event(|view, at| jobs::cancel(view, at, OrgId(1), id)),
        "proof" => world.sealed(&proof),
        "late" => {
            let until = before.until_ms.unwrap_or(TimeMs(world.now));
            let next = jobs::next_deadline(&mut View::new(&world.state));
            assert_eq!(next, before.phase.is_open().then_some(until));
            world.now = until.0;
            assert_eq!(world.tick(), [], "not before");
            world.now += 1;
            Ok(Executed { mail: world.tick(), ..CommandOutcome::Applied.into() })
        }
        other => panic!("no event {other}"),
    };
    let after = world.job(id);
    let executed = match found {
        Ok(executed) => executed,
        Err(reject) => return reject.code().to_owned(),
    };
    if after == before {
        assert_eq!(executed.mail, []);
        return "-".to_owned();
    }
    if after.phase == before.phase {
        assert_eq!(executed.mail, []);
        return "noted".to_owned();
    }
    let mut words = vec![after.phase.name()];
    words.extend(after.reason.map(Reject::code));
    words.extend(executed.mail.iter().map(|(_, message)| kind_of(message)));
    words.join(" ")
}

#[test]
fn every_cell_of_the_table() {
    // Proposed, aligning, preparing, sealing, committed, done, cancelled. Both parents have five members, of whom four have
    // to have copies; one has said so in Preparing, four of both in Sealing. What was cancelled was being sealed.
    let rows = [
        // The shards of a job that is done are gone; one that was cancelled is proposed anew, as another job.
        ("approve", ["aligning plan", "-", "-", "-", "-", "shard_unknown", "-"]),
        ("warm", ["report_form", "report_form", "noted", "noted", "-", "-", "-"]),
        ("cold", ["report_form", "report_form", "noted", "-", "-", "-", "-"]),
        ("cut", ["job_over", "job_over", "shard_risk", "-", "-", "job_over", "job_over"]),
        ("proof", ["seal_form", "seal_form", "seal_form", "noted", "-", "-", "seal_form"]),
        (
            "cancel",
            ["cancelled", "cancelled plan", "cancelled", "cancelled unseal unseal", "job_over", "job_over", "job_over"],
        ),
        (
            "late",
            [
                "cancelled expired",
                "cancelled unanswered plan",
                "cancelled unanswered",
                "cancelled unanswered unseal unseal",
                "done",
                "-",
                "-",
            ],
        ),
        ("open", ["-", "-", "-", "-", "noted", "-", "-"]),
    ];
    for (event, expected) in rows {
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            assert_eq!(cell(phase, event), expected, "{event} while {}", phase.name());
        }
    }
}

#[test]
fn a_job_is_cut_once_enough_members_of_every_parent_have_copies() {
    let mut world = World::of(seven());
    let id = world.decide(APART, false);
    assert_eq!(world.job(id).phase, Phase::Aligning);
    assert_eq!(world.job(id).children, [], "nothing is made before the nodes are the same");
    world.ready_all();
    assert_eq!(world.committee(SHARDS[0]).members, world.committee(SHARDS[1]).members);
    let job = world.job(id);
    let [child] = &job.children[..] else { panic!("one child") };
    assert_eq!((child.group, &child.committee.members), (GroupId::shard(4), &world.committee(SHARDS[0]).members));
    for node in 1..=5 {
        assert_eq!(world.say(node, SHARDS[0], Said::Warm(id)).unwrap().mail, []);
    }
    for node in 1..=3 {
        assert_eq!(
            world.say(node, SHARDS[1], Said::Warm(id)).unwrap().mail,
            [],
            "three of five could decide, and no more"
        );
    }
    world.say(2, SHARDS[1], Said::Cold(id)).unwrap();
    assert_eq!(world.say(4, SHARDS[1], Said::Warm(id)).unwrap().mail, []);
    let cut = world.say(2, SHARDS[1], Said::Warm(id)).unwrap();
    assert_eq!(cut.outcome, CommandOutcome::Job { id, phase: Phase::Sealing });
    let seal = world.job(id).seal(&world.view().layout).unwrap();
    assert!(seal.well_formed());
    assert_eq!(cut.mail, [SHARDS[0], SHARDS[1]].map(|group| (group, Message::Seal(seal.clone()))));
    // A parent can keep it.
    let kept = SealedBy { version: 1, seal, height: Height(8) };
    assert_eq!(borsh::from_slice::<SealedBy>(&borsh::to_vec(&kept).unwrap()).unwrap(), kept);
}

#[test]
fn a_smaller_half_takes_the_nodes_of_the_larger_one() {
    let mut genesis = seven();
    let [_, left, right, ..] = &mut genesis.committees[..] else { panic!("shards") };
    left.members.truncate(3);
    let (stays, group) = (right.members.clone(), right.group);
    let mut world = World::of(genesis);
    let id = world.decide(APART, false);
    assert!(world.view().coming.iter().all(|coming| coming.group != group), "the larger one stays");
    // Some leave and come at a time, and then the rest come.
    while world.job(id).phase == Phase::Aligning {
        assert!(!world.view().coming.is_empty(), "something is under way");
        world.ready_all();
    }
    assert_eq!(world.job(id).phase, Phase::Preparing);
    assert_eq!(
        APART.parents().into_iter().map(|half| world.committee(half).members).collect::<Vec<_>>(),
        [stays.clone(), stays.clone()]
    );
    assert_eq!(world.job(id).children[0].committee.members, stays);
}

#[test]
fn no_job_gives_a_seat_to_a_node_that_takes_none_any_more() {
    let mut world = World::of(seven());
    let id = world.decide(APART, false);
    let coming = |world: &World, group: GroupId| world.view().coming.into_iter().find(|coming| coming.group == group);
    let plan = coming(&world, SHARDS[1]).unwrap();
    assert!(plan.index_of(NodeId(2)).is_some() && world.committee(SHARDS[1]).index_of(NodeId(2)).is_none());
    let drain = |world: &mut World, node: NodeId| {
        let org = world.genesis.nodes.iter().find(|info| info.id == node).unwrap().org;
        world.command(org.0, &BeaconCommand::SetNodeCapacity { node, capacity: 0 }).unwrap();
    };
    drain(&mut world, NodeId(2));
    assert!(coming(&world, SHARDS[1]).is_none_or(|plan| plan.index_of(NodeId(2)).is_none()), "nobody waits for it");
    assert!(
        coming(&world, SHARDS[0]).is_some_and(|plan| plan.index_of(NodeId(2)).is_none()),
        "the left one gives up its"
    );
    world.ready_all();
    let [left, right] = [SHARDS[0], SHARDS[1]].map(|group| world.committee(group));
    assert!(left.members == right.members && left.index_of(NodeId(2)).is_none());
    assert_eq!(world.job(id).phase, Phase::Preparing, "then they were brought together");
    // Nor does a move.
    let mut world = World::of(seven());
    let id = world.decide(JobKind::Move { group: SHARDS[2], from: NodeId(1), to: NodeId(7) }, false);
    assert!(coming(&world, SHARDS[2]).is_some_and(|plan| plan.index_of(NodeId(7)).is_some()));
    drain(&mut world, NodeId(7));
    assert_eq!((coming(&world, SHARDS[2]), world.job(id).phase), (None, Phase::Preparing), "it waits to be taken back");
}

#[test]
fn a_manual_job_waits_for_the_command_of_one_that_has_approved_it() {
    let mut world = World::of(seven());
    let cut = |world: &mut World, by: u16, id| world.event(|view, at| jobs::cut(view, at, OrgId(by), id));
    assert_eq!(cut(&mut world, 1, JobId(1)), Err(Reject::JobUnknown));
    let id = world.decide(SPLIT, true);
    assert_eq!(world.propose(3, SPLIT, false).unwrap().outcome, CommandOutcome::Job { id, phase: Phase::Preparing });
    assert_eq!(world.warm_without(id, 3), []);
    assert_eq!(cut(&mut world, 1, id), Err(Reject::ShardRisk), "of three all have to, so that one may fail");
    assert_eq!(world.say(3, SHARDS[2], Said::Warm(id)).unwrap().mail, []);
    assert_eq!(world.job(id).phase, Phase::Preparing);
    assert_eq!(cut(&mut world, 3, id), Err(Reject::NotAuthorised));
    let cancelled = world.event(|view, at| jobs::cancel(view, at, OrgId(3), id));
    assert_eq!(cancelled, Err(Reject::NotAuthorised));
    let executed = cut(&mut world, 2, id).unwrap();
    assert_eq!(executed.outcome, CommandOutcome::Job { id, phase: Phase::Sealing });
    assert_eq!(executed.mail.iter().map(|(_, message)| kind_of(message)).collect::<Vec<_>>(), ["seal"]);
}

#[test]
fn one_job_is_sealed_at_a_time_and_the_next_one_by_the_layout_of_the_first() {
    let mut world = World::of(seven());
    let [one, other] = [SHARDS[2], SHARDS[3]].map(|group| world.decide(JobKind::Split { group }, false));
    let manual = world.decide(JobKind::Split { group: SHARDS[0] }, true);
    assert_eq!(world.warm_without(other, 0).len(), 1);
    assert_eq!(world.warm_without(one, 0), [], "it is ready, and another one is being sealed");
    world.warm_without(manual, 0);
    let waits = world.event(|view, at| jobs::cut(view, at, OrgId(1), manual)).unwrap();
    assert_eq!((waits.outcome, waits.mail), (CommandOutcome::Job { id: manual, phase: Phase::Preparing }, vec![]));
    assert_eq!(
        [one, other, manual].map(|id| world.job(id).phase),
        [Phase::Preparing, Phase::Sealing, Phase::Preparing]
    );
    let before = world.view().layout.version;
    let committed = world.seal_all(other);
    let seals = committed.mail.iter().filter_map(|(group, message)| match message {
        Message::Seal(seal) => Some((*group, seal.layout.version.0, seal.well_formed())),
        _ => None,
    });
    assert_eq!(seals.collect::<Vec<_>>(), [(SHARDS[2], before.0 + 2, true)], "the older one, on the new layout");
    assert_eq!(world.job(one).on.0, before.0 + 1);
    // The first is taken back, and the last one has its turn.
    let cancelled = world.event(|view, at| jobs::cancel(view, at, OrgId(1), one)).unwrap();
    assert_eq!(cancelled.mail.iter().map(|(_, message)| kind_of(message)).collect::<Vec<_>>(), ["unseal", "seal"]);
    world.seal_all(manual);
    let layout = world.view().layout;
    assert!(layout.well_formed());
    assert_eq!((layout.shards.len(), layout.version.0), (6, before.0 + 2));
}

#[test]
fn no_number_of_a_job_or_a_shard_is_given_twice() {
    let mut world = World::of(seven());
    let children =
        |world: &World, id| world.job(id).children.iter().map(|child| child.group.ordinal()).collect::<Vec<_>>();
    let first = world.decide(SPLIT, false);
    assert_eq!((first, children(&world, first)), (JobId(1), vec![4, 5]));
    world.event(|view, at| jobs::cancel(view, at, OrgId(1), first)).unwrap();
    let second = world.decide(SPLIT, false);
    assert_eq!((second, children(&world, second)), (JobId(2), vec![6, 7]));
    world.warm_without(second, 0);
    world.seal_all(second);
    world.open_all(second);
    let third = world.decide(JobKind::Merge { left: GroupId::shard(6), right: GroupId::shard(7) }, false);
    assert_eq!((third, children(&world, third)), (JobId(3), vec![8]));
    // Jobs that have ended are forgotten one day, and their numbers are not given again.
    world.event(|view, at| jobs::cancel(view, at, OrgId(1), third)).unwrap();
    for round in 0..70u64 {
        let id = world.decide(JobKind::Split { group: SHARDS[0] }, false);
        assert_eq!(id, JobId(4 + round));
        world.event(|view, at| jobs::cancel(view, at, OrgId(2), id)).unwrap();
    }
    let kept = jobs::jobs(&mut View::new(&world.state));
    assert_eq!((kept.len(), kept[0].id), (64, JobId(10)));
}

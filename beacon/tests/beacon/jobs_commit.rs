//! The commit of a job: what proves that a parent stands still, and all that changes in one apply.

use beacon::audit::{self, AUDIT_VERSION, AuditEntry, Trail};
use beacon::command::BeaconCommand;
use beacon::jobs::{self, JobKind, Phase, RootShape, Said, SealedProof};
use beacon::machine::{CommandOutcome, apply_checkpoint};
use beacon::registry;
use beacon::seating::{Began, Seat, Why};
use beacon::seats::apply_ready;
use cross_shard::closed::{Closed, ClosedStream, Ended, Passed, Reshaped};
use cross_shard::message::Message;
use cross_shard::stream::{self, InCursor, OutStream, StreamLeaf};
use ledger::asset::{AssetDef, AssetSpec};
use ledger::flow::FlowLine;
use ledger::hash::Hash32;
use ledger::header::{FLAG_BORN, Header};
use ledger::ids::{Address, AssetId, ClusterId, GroupId, Height, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::lineage::BornShard;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tree::{BitPrefix, StateTree, SubtreeKind, SubtreeRoot, combine};
use ledger::view::View;

use crate::jobs::{ALIKE, SHARDS, SPLIT, sign};
use crate::nodes::World;
use crate::seats::readiness;
use crate::support::{at, node_key, settle};

fn world() -> World {
    World::of(crate::jobs::seven())
}

/// A job whose parents are told to stand still.
fn sealing(world: &mut World, kind: JobKind) -> JobId {
    let id = world.decide(kind, false);
    world.warm_without(id, 0);
    assert_eq!(world.job(id).phase, Phase::Sealing);
    id
}

/// The proof with another header, certified as well.
fn headed(world: &World, proof: &SealedProof, change: impl FnOnce(&mut Header)) -> SealedProof {
    let mut header = proof.certificate.header.clone();
    let committee = world.committee(header.group);
    change(&mut header);
    SealedProof { certificate: sign(header, &committee), ..proof.clone() }
}

/// The proof with other cursors, certified as well.
fn with_inbox(world: &World, proof: &SealedProof, change: impl FnOnce(&mut Vec<StreamLeaf>)) -> SealedProof {
    let mut inbox = proof.inbox.clone();
    change(&mut inbox);
    let root = stream::root(&inbox);
    SealedProof { inbox, ..headed(world, proof, |header| header.inbox_cursors_root = root) }
}

#[test]
fn seats_say_which_job_they_come_from() {
    let mut world = world();
    let moves = world.decide(JobKind::Move { group: SHARDS[2], from: NodeId(1), to: NodeId(7) }, false);
    world.ready_all();
    assert_eq!(world.job(moves).phase, Phase::Done);
    let of = |world: &World, group| world.lives().seats.into_iter().find(|seating| seating.group == group);
    let moved = of(&world, SHARDS[2]).unwrap();
    let epoch = world.committee(SHARDS[2]).epoch;
    let seat = Seat { node: NodeId(7), epoch, from: Some(NodeId(1)), why: Why::Job(moves) };
    assert_eq!((moved.began, moved.seats.last()), (Began::Genesis, Some(&seat)));
    assert!(moved.seats[..2].iter().all(|seat| (seat.from, seat.why) == (None, Why::First)));

    let split = sealing(&mut world, SPLIT);
    world.seal_all(split);
    assert_eq!(of(&world, SHARDS[2]), None, "it has ended");
    for child in world.job(split).children {
        let born = of(&world, child.group).unwrap();
        assert_eq!(born.began, Began::Born { job: split, parents: vec![SHARDS[2]] });
        assert!(born.seats.len() == 3 && born.seats.iter().all(|seat| (seat.from, seat.why) == (None, Why::First)));
    }
}

#[test]
fn no_part_of_a_proof_can_be_another_one() {
    let mut world = world();
    // The beacon's stream to the parent has a message before the seal, so that a cursor before it is not empty.
    write(&mut world, SHARDS[2], &Message::Unseal(JobId(99)));
    let id = sealing(&mut world, SPLIT);
    let good = world.proof(id, SHARDS[2]);
    let [left, right] = good.roots[..] else { panic!("two halves") };
    let other = world.proof(id, SHARDS[3]);
    let whole = SubtreeRoot { hash: good.certificate.header.state_root.0, kind: SubtreeKind::Leaf };
    let few = {
        let mut proof = good.clone();
        proof.certificate.signatures.truncate(1);
        proof
    };
    let strangers = {
        let mut proof = good.clone();
        let digest = proof.certificate.header.hash();
        let nodes = [4, 5, 6];
        proof.certificate.signatures = nodes.map(|node| (NodeId(node), node_key(node).sign(&digest))).to_vec();
        proof
    };
    for (what, wrong) in [
        ("another version", SealedProof { version: 2, ..good.clone() }),
        ("no such job", SealedProof { job: JobId(9), ..good.clone() }),
        ("too few signatures", few),
        ("no members", strangers),
        ("of a shard that is no parent", other),
        ("not sealed", headed(&world, &good, |header| header.flags = 0)),
        ("another layout", headed(&world, &good, |header| header.layout_version = LayoutVersion(7))),
        ("another committee next", headed(&world, &good, |header| header.next_committee_hash = Hash32([1; 32]))),
        ("another state", headed(&world, &good, |header| header.state_root = Hash32([1; 32]))),
        ("a cursor that the header has not", {
            let mut proof = good.clone();
            proof.inbox[1].next_seq += 1;
            proof
        }),
        ("a cursor less than the header has", SealedProof { inbox: good.inbox[..1].to_vec(), ..good.clone() }),
        ("before the seal", with_inbox(&world, &good, |inbox| inbox[0].next_seq -= 1)),
        ("without the beacon", with_inbox(&world, &good, |inbox| inbox.retain(|leaf| leaf.peer != GroupId::BEACON))),
        ("more than the beacon has written", with_inbox(&world, &good, |inbox| inbox[0].next_seq += 1)),
        ("halves the other way round", {
            let shapes = good.shapes.iter().rev().copied().collect();
            SealedProof { roots: vec![right, left], shapes, ..good.clone() }
        }),
        ("one half", SealedProof { roots: vec![left], shapes: good.shapes[..1].to_vec(), ..good.clone() }),
        ("roots without shapes", SealedProof { shapes: Vec::new(), ..good.clone() }),
        ("shapes of other roots", { SealedProof { shapes: vec![good.shapes[1], good.shapes[0]], ..good.clone() } }),
        // What stands alone in a half rises: the whole would pass for its left half if a hash said what it is of.
        ("the whole as one leaf", SealedProof { roots: vec![whole, SubtreeRoot::EMPTY], ..good.clone() }),
        ("a kind that its shape does not show", {
            let leaf = SubtreeRoot { kind: SubtreeKind::Leaf, ..left };
            SealedProof { roots: vec![leaf, right], ..good.clone() }
        }),
    ] {
        assert_eq!(world.sealed(&wrong), Err(Reject::SealForm), "{what}");
    }
    let foreign = headed(&world, &good, |header| header.cluster = ClusterId(Hash32([1; 32])));
    assert_eq!(world.sealed(&foreign), Err(Reject::WrongCluster));
    let committed = world.sealed(&good).unwrap();
    assert_eq!(committed.outcome, CommandOutcome::Job { id, phase: Phase::Committed });
    assert_eq!(world.sealed(&good).unwrap().mail, [], "it is told again until the view shows it");
    let later = SealedProof { certificate: headed_again(&good), ..good };
    assert_eq!(world.sealed(&later), Err(Reject::SealForm));
}

/// Where one job waits for another one, its seal is mailed right behind the change of the layout, and one block takes both.
#[test]
fn a_seal_that_was_taken_together_with_the_layout_before_holds() {
    let mut world = world();
    let id = sealing(&mut world, SPLIT);
    let good = world.proof(id, SHARDS[2]);
    let before = headed(&world, &good, |header| header.layout_version = LayoutVersion(0));
    let committed = world.sealed(&before).unwrap();
    assert_eq!(committed.outcome, CommandOutcome::Job { id, phase: Phase::Committed });
}

/// Another header in the place of one that was committed; nobody has to have signed it.
fn headed_again(proof: &SealedProof) -> ledger::Certificate {
    let mut certificate = proof.certificate.clone();
    certificate.header.height.0 += 1;
    certificate
}

#[test]
fn a_seal_that_was_taken_back_does_not_stand_for_the_next_one() {
    let mut world = world();
    let first = sealing(&mut world, SPLIT);
    let old = world.proof(first, SHARDS[2]);
    world.event(|view, at| jobs::cancel(view, at, OrgId(1), first)).unwrap();
    assert_eq!(world.sealed(&old), Err(Reject::SealForm), "the job has ended");
    let second = sealing(&mut world, SPLIT);
    let passed_off = SealedProof { job: second, ..old };
    assert_eq!(world.sealed(&passed_off), Err(Reject::SealForm));
    // Nor does a header from behind which the chain was certified to have gone on.
    let good = world.proof(second, SHARDS[2]);
    let mut ahead = good.certificate.header.clone();
    (ahead.height.0, ahead.flags) = (ahead.height.0 + 1, 0);
    let ahead = sign(ahead, &world.committee(SHARDS[2]));
    let context = at(&world.genesis, world.now);
    world.state = settle(&world.state, |view| assert_eq!(apply_checkpoint(view, &context, &ahead), Ok(true)));
    assert_eq!(world.sealed(&good), Err(Reject::SealForm));
    let next = headed(&world, &good, |header| header.height.0 += 2);
    assert!(world.sealed(&next).is_ok());
}

fn asset(symbol: &str) -> Message {
    let issuer = Address([7; 20]);
    let spec = AssetSpec { issuer, symbol: symbol.to_owned(), name: symbol.to_owned(), decimals: 2 };
    Message::AssetUpdate(AssetDef { version: 1, id: AssetId::derive(&issuer, symbol), spec, frozen: false })
}

fn write(world: &mut World, group: GroupId, message: &Message) {
    world.state = settle(&world.state, |view| {
        stream::emit(view, group, message.encode());
    });
}

/// What the beacon's stream to a group holds, from its first message on.
fn stream_to(world: &World, group: GroupId) -> Vec<Message> {
    let mut view = View::new(&world.state);
    let out: OutStream = stream::out_stream(&mut view, group);
    (out.acked..out.next_seq).map(|seq| view.load(&schema::mail(group, seq)).unwrap()).collect()
}

fn closed(world: &World, group: GroupId) -> ClosedStream {
    View::new(&world.state).load(&schema::closed(GroupId::BEACON, group)).unwrap()
}

#[test]
fn a_split_changes_everything_at_once() {
    let mut world = world();
    write(&mut world, SHARDS[2], &asset("OLD"));
    // A shard that has written to the beacon; none does today.
    let cursor = InCursor { next_seq: 3, peaks: Vec::new() };
    world.state = settle(&world.state, |view| view.store(schema::inbox(SHARDS[2]), &cursor));
    let id = sealing(&mut world, SPLIT);
    let proof = world.proof(id, SHARDS[2]);
    // Behind what the parent has taken.
    write(&mut world, SHARDS[2], &asset("NEW"));
    let plan = Message::CommitteePlan(world.committee(SHARDS[2]));
    write(&mut world, SHARDS[2], &plan);
    let before = world.view();
    let executed = world.sealed(&proof).unwrap();

    let (job, view) = (world.job(id), world.view());
    let children: Vec<GroupId> = job.children.iter().map(|child| child.group).collect();
    assert_eq!(children, [GroupId::shard(4), GroupId::shard(5)]);
    let layout = before.layout.split(SHARDS[2], [children[0], children[1]]).unwrap();
    assert_eq!((&view.layout, job.phase, job.on), (&layout, Phase::Committed, before.layout.version));
    assert_eq!(view.jobs, std::slice::from_ref(&job));
    let committees: Vec<_> = job.children.iter().map(|child| child.committee.clone()).collect();
    assert_eq!(executed.committees, committees);
    for committee in &committees {
        assert_eq!(view.committee(committee.group), Some(committee));
        assert_eq!(committee.members, before.committee(SHARDS[2]).unwrap().members);
    }
    assert_eq!(view.committee(SHARDS[2]), None);
    let header = &proof.certificate.header;
    let [end] = job.ends[..] else { panic!("one parent") };
    assert_eq!((end.group, end.height, end.header_hash), (SHARDS[2], header.height, header.hash()));
    assert_eq!(end.root, combine(proof.roots[0], proof.roots[1]));
    let born: Vec<BornShard> = view.born.clone();
    assert_eq!(born.iter().map(|born| (born.group, born.roots[0])).collect::<Vec<_>>(), {
        children.iter().copied().zip(proof.roots.iter().copied()).collect::<Vec<_>>()
    });
    for (born, committee) in born.iter().zip(&committees) {
        assert_eq!((born.committee, born.job, born.layout), (committee.hash(), id, layout.version));
        assert_eq!((born.parents.as_slice(), layout.prefix_of(born.group)), (&job.ends[..], Some(born.prefix)));
    }
    world.state = settle(&world.state, |view| {
        let last = registry::checkpoint(view, SHARDS[2]).unwrap();
        assert_eq!((last.height, last.header_hash), (header.height, header.hash()), "it has no later one");
        assert_eq!(view.load(&schema::layout()), Some(layout.clone()));
        let kept = before.committee(SHARDS[2]).unwrap();
        assert_eq!(registry::committee_by_hash(view, SHARDS[2], &kept.hash()).as_ref(), Some(kept));
    });

    // Everybody else hears of it, and of how far the parent has taken what it wrote: shard 0 ten messages, others none.
    let told = executed.mail.iter().filter_map(|(group, message)| match message {
        Message::Reshaped(Reshaped { layout: told, committees: new, ended, .. }) => {
            assert_eq!((told, new), (&layout, &committees));
            Some((*group, ended.clone()))
        }
        _ => None,
    });
    let ended = |taken: u64| vec![Ended { group: SHARDS[2], taken }];
    assert_eq!(told.collect::<Vec<_>>(), [(SHARDS[0], ended(10)), (SHARDS[1], ended(0)), (SHARDS[3], ended(0))]);
    // The beacon's own streams.
    let taken = proof.inbox[0].next_seq;
    let tells = Message::Closed(Closed { version: 1, source: SHARDS[2], dest: GroupId::BEACON, taken: 3 });
    for child in &children {
        assert_eq!(stream_to(&world, *child), [asset("NEW"), tells.clone()]);
    }
    assert_eq!(stream_to(&world, SHARDS[2]), []);
    let passed = children.iter().map(|child| Passed { by: GroupId::BEACON, dest: *child, upto: 1 }).collect();
    let expected =
        ClosedStream { version: 1, kept: taken + 2, next_seq: taken + 2, taken: Some(taken), whole: true, passed };
    assert_eq!(closed(&world, SHARDS[2]), expected);
    assert!(!world.state.contains_key(&schema::inbox(SHARDS[2])));
    assert!(!world.state.contains_key(&schema::outbox(SHARDS[2])));

    world.open_all(id);
    assert_eq!((world.job(id).phase, world.view().jobs), (Phase::Done, vec![]));
}

/// Nothing prepares a committee of a shard that is being sealed. If one were there all the same, nobody could ever take a
/// seat in it: nodes would keep the parent for good.
#[test]
fn a_parent_ends_with_all_that_was_planned_for_it() {
    let mut world = world();
    let id = sealing(&mut world, SPLIT);
    let proof = world.proof(id, SHARDS[2]);
    let mut plan = world.committee(SHARDS[2]);
    plan.epoch.0 += 1;
    let dealt = beacon::epochs::dealt_key(SHARDS[2]);
    world.state = settle(&world.state, |view| {
        view.store(registry::coming_key(SHARDS[2]), &plan);
        view.store(dealt.clone(), &plan.hash());
    });
    world.sealed(&proof).unwrap();
    assert_eq!((world.job(id).phase, world.view().coming), (Phase::Committed, vec![]));
    assert!(!world.state.contains_key(&registry::coming_key(SHARDS[2])) && !world.state.contains_key(&dealt));
}

#[test]
fn a_merge_needs_both_and_its_child_is_told_everything_once() {
    let mut world = world();
    let id = sealing(&mut world, ALIKE);
    let proofs = [SHARDS[2], SHARDS[3]].map(|group| world.proof(id, group));
    for group in [SHARDS[2], SHARDS[3]] {
        write(&mut world, group, &asset("NEW"));
    }
    assert_eq!(world.sealed(&proofs[1]).unwrap().mail, []);
    assert_eq!(world.sealed(&proofs[1]).unwrap().mail, []);
    let other = headed(&world, &proofs[1], |header| header.height.0 += 1);
    assert_eq!(world.sealed(&other), Err(Reject::SealForm), "it has ended elsewhere");
    assert_eq!(world.job(id).phase, Phase::Sealing);
    world.sealed(&proofs[0]).unwrap();
    let (job, view) = (world.job(id), world.view());
    assert_eq!(job.ends.iter().map(|end| end.group).collect::<Vec<_>>(), [SHARDS[2], SHARDS[3]], "left first");
    let child = job.children[0].group;
    assert_eq!(view.born[0].roots, [combine(proofs[0].roots[0], proofs[1].roots[0])]);
    assert_eq!(view.born[0].parents, job.ends);
    assert_eq!(view.layout.prefix_of(child), view.layout.prefix_ever(SHARDS[2]).and_then(|prefix| prefix.parent()));
    let tells = |source| Message::Closed(Closed { version: 1, source, dest: GroupId::BEACON, taken: 0 });
    assert_eq!(stream_to(&world, child), [asset("NEW"), tells(SHARDS[2]), tells(SHARDS[3])]);
    assert_eq!(closed(&world, SHARDS[2]).passed, [Passed { by: GroupId::BEACON, dest: child, upto: 1 }]);
    assert_eq!(closed(&world, SHARDS[3]).passed, []);
    let kept = [SHARDS[2], SHARDS[3]].map(beacon::jobs::commit::sealed_key);
    assert!(kept.iter().all(|key| !world.state.contains_key(key)), "nothing is kept of what was waited for");
}

#[test]
fn the_first_checkpoint_of_a_child_continues_its_parents() {
    let mut world = world();
    let id = sealing(&mut world, ALIKE);
    world.seal_all(id);
    let born = world.view().born.remove(0);
    let committee = world.committee(born.group);
    let last = born.parents.iter().map(|end| end.height.0).max().unwrap();
    let first = Header {
        group: born.group,
        height: Height(last + 1),
        parents: born.parents.iter().map(|end| end.header_hash).collect(),
        state_root: Hash32(born.roots[0].hash),
        committee_hash: committee.hash(),
        next_committee_hash: committee.hash(),
        flags: FLAG_BORN,
        ..crate::support::certified(&world.genesis, GroupId::BEACON, 1, 0).header
    };
    let context = at(&world.genesis, world.now);
    let mut take = |change: fn(&mut Header)| {
        let mut header = first.clone();
        change(&mut header);
        let mut found = Ok(false);
        let next = settle(&world.state, |view| found = apply_checkpoint(view, &context, &sign(header, &committee)));
        world.state = next;
        found
    };
    let forged: [(&str, fn(&mut Header)); 4] = [
        ("other parents", |header| header.parents.reverse()),
        ("another state", |header| header.state_root = Hash32([1; 32])),
        ("no birth", |header| header.flags = 0),
        ("before the parents' ends", |header| header.height = Height(3)),
    ];
    for (what, wrong) in forged {
        assert_eq!(take(wrong), Err(Reject::MailForged), "{what}");
    }
    assert_eq!(take(|_| {}), Ok(true));
    assert_eq!(take(|header| header.height.0 += 1), Ok(true));
}

#[test]
fn a_child_changes_like_any_other_shard_and_can_be_a_parent_once_its_job_is_done() {
    let mut world = world();
    let id = sealing(&mut world, SPLIT);
    world.seal_all(id);
    let child = GroupId::shard(4);
    assert_eq!(world.propose(1, JobKind::Split { group: child }, false), Err(Reject::ShardBusy));
    world.open_all(id);
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(3), capacity: 0 }).unwrap();
    assert!(world.view().coming.iter().any(|coming| coming.group == child));
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(3), capacity: 1 }).unwrap();
    let next = sealing(&mut world, JobKind::Split { group: child });
    world.seal_all(next);
    assert!(world.say(1, child, Said::Warm(next)).is_ok(), "nothing follows from it");
    let lineage = world.view().layout.lineage;
    assert_eq!(lineage.iter().map(|entry| entry.group).collect::<Vec<_>>(), [SHARDS[2], child]);
    // What has ended is not shown any more, and is proved by the beacon's state for ever.
    assert!(world.view().born.iter().all(|born| born.group != child));
    assert!(world.state.contains_key(&schema::born(child)));
    world.now += 600_001;
    assert_eq!(world.tick(), []);
    assert_eq!((world.job(next).phase, world.job(next).reason), (Phase::Done, None));
}

#[test]
fn the_shape_of_a_root_is_what_the_tree_has() {
    let position = |first: u8, second: u8| {
        let mut position = [0; 32];
        (position[0], position[1]) = (first, second);
        position
    };
    let mut tree = StateTree::new(BitPrefix::ROOT);
    tree.apply([position(0, 1), position(0, 2), position(0xc0, 1)].map(|at| (at, Some([5; 32])))).unwrap();
    let (left, right) = (BitPrefix::ROOT.child(false).unwrap(), BitPrefix::ROOT.child(true).unwrap());
    let empty = right.child(false).unwrap();
    for (under, kind) in [
        (BitPrefix::ROOT, SubtreeKind::Internal),
        (left, SubtreeKind::Internal),
        (right, SubtreeKind::Leaf),
        (empty, SubtreeKind::Empty),
    ] {
        let shape = RootShape::of(&mut tree, &under).unwrap();
        let root = tree.subtree_root_at(&under).unwrap();
        assert_eq!((shape.root(), root.kind), (root, kind));
    }
    let mut half = StateTree::new(right);
    assert!(RootShape::of(&mut half, &left).is_err());
}

#[test]
fn the_beacon_hands_over_to_nobody_while_a_shard_stands_still() {
    let mut world = world();
    let id = sealing(&mut world, SPLIT);
    world.command(1, &BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity: 0 }).unwrap();
    let current = world.committee(GroupId::BEACON);
    let coming = registry::coming_of(&mut View::new(&world.state), GroupId::BEACON).unwrap();
    let ready = readiness(&world.genesis, &current, &coming, 7);
    let refused = world.event(|view, at| apply_ready(view, at, &ready));
    assert_eq!(refused.map(|executed| executed.mail), Err(Reject::ShardBusy));
    let proof = world.proof(id, SHARDS[2]);
    world.sealed(&proof).unwrap();
    let executed = world.event(|view, at| apply_ready(view, at, &ready)).unwrap();
    let told =
        |child: &ledger::ChildShard| executed.mail.contains(&(child.group, Message::CommitteeUpdate(coming.clone())));
    assert!(world.job(id).children.iter().all(told), "the children hear of it in their own streams");
}

#[test]
fn the_audit_of_a_child_begins_where_its_parent_has_ended() {
    let mut world = world();
    let id = sealing(&mut world, SPLIT);
    let committee = world.committee(SHARDS[2]);
    let none = stream::root(&[]);
    let proof = headed(&world, &world.proof(id, SHARDS[2]), |header| header.outbox_root = none);
    world.sealed(&proof).unwrap();
    let child = world.job(id).children[0].clone();
    let born = world.view().born.into_iter().find(|born| born.group == child.group).unwrap();
    let last = &proof.certificate.header;
    let after = |before: &Header| Header {
        height: before.height.next(),
        parents: vec![before.hash()],
        time_ms: TimeMs(before.time_ms.0 + 1),
        flags: 0,
        ..before.clone()
    };
    let hash = child.committee.hash();
    let first = Header {
        group: child.group,
        flags: FLAG_BORN,
        state_root: Hash32(born.roots[0].hash),
        inbox_cursors_root: none,
        committee_hash: hash,
        next_committee_hash: hash,
        ..after(last)
    };
    // What it begins with is not nothing.
    let line = FlowLine { asset: AssetId([1; 16]), opening: 40, closing: 45, minted: 5, ..FlowLine::default() };
    let second = Header { value_flow: vec![line], ..after(&first) };
    let trail = |headers: Vec<Header>, last: Header| Trail {
        version: AUDIT_VERSION,
        headers,
        certificate: sign(last, &child.committee),
        outbox: Vec::new(),
        inbox: Vec::new(),
    };
    let of_parent = |header: &Header| Trail {
        certificate: sign(header.clone(), &committee),
        inbox: proof.inbox.clone(),
        ..trail(Vec::new(), header.clone())
    };
    let other = Header { parents: vec![Hash32::ZERO], ..first.clone() };
    let context = at(&world.genesis, world.now);
    let mut bring = |trail: Trail| {
        let mut found = Err(Reject::Storage);
        world.state = settle(&world.state, |view| {
            found = audit::apply(view, &context, &AuditEntry::Trail(trail)).map(|mail| mail.len());
        });
        found
    };
    assert_eq!(bring(trail(Vec::new(), other)), Err(Reject::AuditGap), "it has other parents");
    assert_eq!(bring(trail(Vec::new(), second.clone())), Err(Reject::AuditGap), "its first block is missing");
    assert_eq!(bring(trail(vec![first], second.clone())), Ok(0));
    assert_eq!(bring(of_parent(last)), Err(Reject::AuditGap), "what comes before is missing");
    assert_eq!(bring(of_parent(&after(last))), Err(Reject::AuditForm), "nothing comes behind a seal");
    let mut view = View::new(&world.state);
    let audited = audit::trail::audited(&mut view, child.group).unwrap();
    assert_eq!((audited.height, audited.compared), (second.height, None));
    assert_eq!((audit::findings(&mut view), audit::quarantined(&mut view)), (vec![], vec![]));
}

//! Shards in quarantine: no job takes one out of it, and two ends of a shard are evidence wherever they come from.

use beacon::audit::evidence::Twice;
use beacon::audit::{self, AuditEntry};
use beacon::jobs::{self, JobKind, Phase, SealedProof};
use beacon::machine::{CommandOutcome, Executed, apply_checkpoint};
use beacon::registry;
use cross_shard::message::Message;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, NodeId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::{ALIKE, APART, SHARDS, SPLIT, seven, sign};
use crate::nodes::World;
use crate::support::{at, certified, settle};

/// Puts a shard into quarantine: its committee has certified two headers at one height.
fn quarantine(world: &mut World, group: GroupId) {
    let [first, second] = [1, 2].map(|root| certified(&world.genesis, group, 3, root));
    let entry = AuditEntry::Twice(Twice::of(first, second));
    let taken = world.event(|view, at| {
        let mail = audit::apply(view, at, &entry)?;
        Ok(Executed { mail, ..CommandOutcome::Applied.into() })
    });
    assert!(taken.is_ok() && held(world).contains(&group));
}

/// The proof with another state: the same height twice.
fn another(world: &World, proof: &SealedProof) -> SealedProof {
    let header = proof.certificate.header.clone();
    let committee = world.committee(header.group);
    let other = Header { receipts_root: Hash32([7; 32]), ..header };
    SealedProof { certificate: sign(other, &committee), ..proof.clone() }
}

fn held(world: &World) -> Vec<GroupId> {
    world.view().quarantined
}

#[test]
fn a_job_of_a_shard_in_quarantine_is_taken_back_before_its_commit() {
    for (kind, phase, group) in [
        (APART, Phase::Aligning, SHARDS[1]),
        (SPLIT, Phase::Preparing, SHARDS[2]),
        (SPLIT, Phase::Sealing, SHARDS[2]),
        (ALIKE, Phase::Sealing, SHARDS[3]),
    ] {
        let mut world = World::of(seven());
        let id = world.decide(kind, false);
        if phase == Phase::Sealing {
            world.warm_without(id, 0);
        }
        assert_eq!(world.job(id).phase, phase);
        let proofs: Vec<SealedProof> = kind.parents().iter().map(|parent| world.proof(id, *parent)).collect();
        quarantine(&mut world, group);
        if phase == Phase::Sealing {
            for proof in &proofs {
                assert_eq!(world.sealed(proof), Err(Reject::GroupQuarantined), "{kind:?}");
            }
        }
        let next = jobs::next_deadline(&mut View::new(&world.state));
        assert_eq!(next, Some(TimeMs(0)), "a block is due at once");
        let mail = world.tick();
        let job = world.job(id);
        assert_eq!((job.phase, job.reason), (Phase::Cancelled, Some(Reject::GroupQuarantined)), "{kind:?}");
        let unsealed = mail.iter().filter(|(_, message)| *message == Message::Unseal(id)).map(|(group, _)| *group);
        let expected = if phase == Phase::Sealing { kind.parents() } else { Vec::new() };
        assert_eq!(unsealed.collect::<Vec<_>>(), expected);
        assert_eq!(world.propose(1, kind, false), Err(Reject::GroupQuarantined));
        assert!(jobs::next_deadline(&mut View::new(&world.state)).is_none_or(|next| next.0 > 0));
    }
}

#[test]
fn other_shards_and_moves_go_on_beside_a_quarantine() {
    let mut world = World::of(seven());
    let id = world.decide(SPLIT, false);
    let own = JobKind::Move { group: SHARDS[3], from: NodeId(1), to: NodeId(4) };
    let CommandOutcome::Job { id: moved, .. } = world.propose(1, own, false).unwrap().outcome else { panic!("a job") };
    quarantine(&mut world, SHARDS[3]);
    assert_eq!(world.tick(), []);
    assert_eq!([id, moved].map(|id| world.job(id).phase), [Phase::Preparing; 2]);
    world.warm_without(id, 0);
    world.seal_all(id);
    assert_eq!(world.job(id).phase, Phase::Committed);
}

#[test]
fn two_ends_of_a_shard_are_evidence_against_it() {
    // The first one is noted, since that of the sibling is waited for.
    let mut world = World::of(seven());
    let id = world.decide(ALIKE, false);
    world.warm_without(id, 0);
    let first = world.proof(id, SHARDS[2]);
    let second = another(&world, &first);
    world.sealed(&first).unwrap();
    assert_eq!(world.sealed(&first).unwrap().mail, []);
    assert_eq!(held(&world), []);
    world.sealed(&second).unwrap();
    assert_eq!(held(&world), [SHARDS[2]]);
    assert_eq!(world.sealed(&world.proof(id, SHARDS[3])), Err(Reject::GroupQuarantined));
    assert_eq!(world.tick().len(), 2, "both are told to go on");
    // Or another header of that height was certified before.
    let mut world = World::of(seven());
    let id = world.decide(SPLIT, false);
    world.warm_without(id, 0);
    let proof = world.proof(id, SHARDS[2]);
    let before = another(&world, &proof).certificate;
    let context = at(&world.genesis, world.now);
    world.state = settle(&world.state, |view| assert_eq!(apply_checkpoint(view, &context, &before), Ok(true)));
    world.sealed(&proof).unwrap();
    assert_eq!((held(&world), world.job(id).phase), (vec![SHARDS[2]], Phase::Sealing));
    // Or the shard has ended with the first one: its children are there, and what it did is on record.
    let mut world = World::of(seven());
    let id = world.decide(SPLIT, false);
    world.warm_without(id, 0);
    let proof = world.proof(id, SHARDS[2]);
    let late = another(&world, &proof);
    world.sealed(&proof).unwrap();
    world.sealed(&late).unwrap();
    let mut view = View::new(&world.state);
    let marks = audit::quarantine::quarantines(&mut view);
    assert_eq!(marks.iter().map(|mark| mark.group).collect::<Vec<_>>(), [SHARDS[2]]);
    assert_eq!((registry::divergences(&mut view).len(), audit::quarantined(&mut view)), (1, vec![]));
    assert_eq!((world.tick(), world.job(id).phase), (vec![], Phase::Committed), "what has committed is not taken back");
    // One that nobody has signed is none.
    let mut forged = late;
    forged.certificate.header.receipts_root = Hash32([8; 32]);
    assert_eq!(world.sealed(&forged), Err(Reject::SealForm));
}

//! The commit of a job: once the beacon has the certified last header of every parent, the next layout is in force.
//!
//! Owns whether the proof of a seal holds, and the one apply in which the layout, the children's committees and leaves, and
//! the beacon's own streams change. Whoever else wrote to a parent is told by mail how far that one has taken it.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::closed::{self, Ended, RESHAPED_VERSION, Reshaped};
use cross_shard::message::Message;
use cross_shard::stream::{self, StreamLeaf};
use ledger::certificate::Certificate;
use ledger::hash::Hash32;
use ledger::header::{FLAG_BORN, FLAG_SEALED, Header};
use ledger::ids::{GroupId, JobId};
use ledger::limits::PEERS_MAX;
use ledger::lineage::{BORN_VERSION, BornShard, ParentEnd, Seal};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tree::{self, NodeHash, Position, StateTree, SubtreeKind, SubtreeRoot, TreeError};
use ledger::view::View;

use crate::audit;
use crate::audit::evidence::{self, Twice};
use crate::epochs;
use crate::jobs::table::{self, Mail};
use crate::jobs::{self, Job, JobKind, Phase, report, scale};
use crate::machine::{CommandOutcome, Executed, apply_checkpoint, ledgers};
use crate::registry::{self, Checkpoint};

/// Version written into new [`SealedProof`]s.
pub const SEALED_PROOF_VERSION: u8 = 1;

/// What stands at the top of a subtree: it shows of which kind a root is, which a hash alone does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RootShape {
    /// No leaf.
    Empty,
    /// Exactly one leaf.
    Leaf {
        /// Where it hangs.
        position: Position,
        /// Hash of its value.
        value: NodeHash,
    },
    /// Two leaves or more.
    Inner {
        /// Hash of the left half.
        left: NodeHash,
        /// Hash of the right half.
        right: NodeHash,
    },
}

impl RootShape {
    /// The root that this is the shape of.
    #[must_use]
    pub fn root(&self) -> SubtreeRoot {
        match self {
            Self::Empty => SubtreeRoot::EMPTY,
            Self::Leaf { position, value } => {
                SubtreeRoot { hash: tree::leaf_hash(position, value), kind: SubtreeKind::Leaf }
            }
            Self::Inner { left, right } => {
                SubtreeRoot { hash: tree::internal_hash(left, right), kind: SubtreeKind::Internal }
            }
        }
    }

    /// The shape of the subtree under a prefix, for whoever makes a [`SealedProof`].
    ///
    /// # Errors
    /// [`TreeError`] when the tree does not own the prefix.
    pub fn of(tree: &mut StateTree, under: &tree::BitPrefix) -> Result<Self, TreeError> {
        let found = tree.subtree_root_at(under)?;
        let halves = (under.child(false), under.child(true));
        Ok(match (found.kind, halves) {
            (SubtreeKind::Internal, (Some(left), Some(right))) => {
                let (left, right) = (tree.subtree_root_at(&left)?.hash, tree.subtree_root_at(&right)?.hash);
                Self::Inner { left, right }
            }
            // A whole position has no more than one leaf.
            (SubtreeKind::Internal | SubtreeKind::Leaf, _) => {
                let leaf = tree.leaves().find(|(position, _)| under.contains(position));
                leaf.map_or(Self::Empty, |(position, value)| Self::Leaf { position, value })
            }
            (SubtreeKind::Empty, _) => Self::Empty,
        })
    }
}

/// Proof that a parent stands still, and of where.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SealedProof {
    /// Format version, [`SEALED_PROOF_VERSION`].
    pub version: u8,
    /// The job.
    pub job: JobId,
    /// The parent's last header, certified.
    pub certificate: Certificate,
    /// All of its cursors, sorted by source, as the header commits to them.
    pub inbox: Vec<StreamLeaf>,
    /// The roots of both halves of its state, the left one first; where it is to be joined, its own.
    pub roots: Vec<SubtreeRoot>,
    /// What shows of which kind these roots are.
    pub shapes: Vec<RootShape>,
}

const SEALED: &[u8] = b"sealed/";

/// Key of the [`SealedProof`] of a parent whose sibling's is waited for.
#[must_use]
pub fn sealed_key(group: GroupId) -> Vec<u8> {
    registry::key(SEALED, &[&group.0.to_be_bytes()])
}

/// A job that has come to nothing: what was proved for it counts no more.
pub(crate) fn forget_proofs(view: &mut View<'_>, job: &Job) {
    for key in job.kind.parents().into_iter().map(sealed_key) {
        if view.get(&key).is_some() {
            registry::remove(view, key);
        }
    }
}

/// Whether a certificate says something else than one that is known of the same height. That is noted, and the group goes
/// into quarantine: who certifies two ends of a shard is unsound, whichever of them comes first.
fn diverges(view: &mut View<'_>, at: &BlockContext, certificate: &Certificate) -> bool {
    let header = &certificate.header;
    let last = registry::checkpoint(view, header.group).filter(|last| last.height == header.height);
    if last.is_some_and(|last| last.header_hash != header.hash()) {
        return apply_checkpoint(view, at, certificate).is_ok();
    }
    let noted: Option<SealedProof> = view.load(&sealed_key(header.group));
    let twice = noted.map(|noted| Twice::of(noted.certificate, certificate.clone()));
    twice.is_some_and(|twice| evidence::apply_twice(view, at, &twice).is_ok())
}

/// Takes the proof that a parent stands still; that of the last one puts the next layout in force. One that shows that the
/// parent has certified two ends is taken as evidence, and nothing else.
///
/// # Errors
/// [`Reject::WrongCluster`], [`Reject::GroupQuarantined`] while a parent is in quarantine, and [`Reject::SealForm`] for no job
/// that is being sealed, or a proof of anything else than the end of one of its parents. The view is then unchanged.
pub fn apply_sealed(view: &mut View<'_>, at: &BlockContext, proof: &SealedProof) -> Result<Executed, Reject> {
    let header = &proof.certificate.header;
    if header.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    let mut job = jobs::job(view, proof.job).ok_or(Reject::SealForm)?;
    let taken = CommandOutcome::Job { id: job.id, phase: job.phase };
    if diverges(view, at, &proof.certificate) {
        return Ok(taken.into());
    }
    match job.phase {
        Phase::Proposed | Phase::Aligning | Phase::Preparing => return Err(Reject::SealForm),
        Phase::Committed | Phase::Done | Phase::Cancelled => {
            let hash = header.hash();
            let known = job.ends.iter().any(|end| end.group == header.group && end.header_hash == hash);
            return if known { Ok(taken.into()) } else { Err(Reject::SealForm) };
        }
        Phase::Sealing => {}
    }
    // The next block takes the job back (`table::tick`); a proof may come before it.
    let held = audit::quarantined(view);
    if job.kind.parents().iter().any(|parent| held.binary_search(parent).is_ok()) {
        return Err(Reject::GroupQuarantined);
    }
    let end = judge(view, &job, proof)?;
    if let Some(known) = job.ends.iter().find(|known| known.group == end.group) {
        return if *known == end { Ok(taken.into()) } else { Err(Reject::SealForm) };
    }
    let parents = job.kind.parents();
    job.ends.push(end);
    job.ends.sort_by_key(|end| parents.iter().position(|parent| *parent == end.group));
    if job.ends.len() < parents.len() {
        registry::put(view, sealed_key(end.group), proof);
        jobs::keep(view, &job);
        registry::bump_revision(view);
        return Ok(taken.into());
    }
    let layout = registry::layout(view).ok_or(Reject::Registry)?;
    let seal = job.seal(&layout).ok_or(Reject::SealForm)?;
    let mut proofs = Vec::with_capacity(parents.len());
    for parent in &parents {
        let known = if *parent == end.group { Some(proof.clone()) } else { view.load(&sealed_key(*parent)) };
        proofs.push(known.ok_or(Reject::SealForm)?);
    }
    Ok(commit(view, at, job, &seal, &proofs))
}

/// Where a parent ended, if the proof holds.
fn judge(view: &mut View<'_>, job: &Job, proof: &SealedProof) -> Result<ParentEnd, Reject> {
    let header = &proof.certificate.header;
    let group = header.group;
    // A header names the layout that its block began with. The one before the job's may have come with the seal, in one
    // block: that it was taken follows from the cursor.
    let committee = registry::committee(view, group).filter(|_| job.kind.parents().contains(&group));
    let committee = committee.ok_or(Reject::SealForm)?;
    let form = proof.version == SEALED_PROOF_VERSION
        && header.flags & FLAG_SEALED != 0
        && header.layout_version <= job.on
        && header.next_committee_hash == header.committee_hash
        && proof.inbox.len() <= PEERS_MAX
        && stream::root(&proof.inbox) == header.inbox_cursors_root
        && proof.shapes.iter().map(RootShape::root).eq(proof.roots.iter().copied());
    // Behind this seal, not behind one that was taken back.
    let own = taken(proof, GroupId::BEACON);
    let out = stream::out_stream(view, group);
    let sealed_at = job.seals.iter().find(|(parent, _)| *parent == group).map(|(_, next)| *next);
    let behind = sealed_at.is_some_and(|next| own > next) && (out.acked..=out.next_seq).contains(&own);
    let root = match (job.kind, proof.roots.as_slice()) {
        (JobKind::Split { .. }, [left, right]) => Some(tree::combine(*left, *right)),
        (JobKind::Merge { .. }, [own]) => Some(*own),
        _ => None,
    };
    let root = root.filter(|root| root.hash == header.state_root.0);
    let (Some(root), true, true) = (root, form, behind) else { return Err(Reject::SealForm) };
    let header_hash = header.hash();
    // A chain that goes back behind what it has certified before, or is another one, is none to build on.
    let last = registry::checkpoint(view, group);
    let fits = |last: Checkpoint| header.height > last.height || last.header_hash == header_hash;
    if !last.is_none_or(fits) || proof.certificate.verify(&committee).is_err() {
        return Err(Reject::SealForm);
    }
    Ok(ParentEnd { group, height: header.height, header_hash, time_ms: header.time_ms, root })
}

/// How far a parent has taken a stream.
fn taken(proof: &SealedProof, source: GroupId) -> u64 {
    proof.inbox.iter().find(|leaf| leaf.peer == source).map_or(0, |leaf| leaf.next_seq)
}

/// The roots of the children's first states, the left one first.
fn first_roots(job: &Job, proofs: &[SealedProof]) -> Vec<SubtreeRoot> {
    match (job.kind, proofs) {
        (JobKind::Merge { .. }, [left, right]) => {
            let pair = left.roots.first().zip(right.roots.first());
            pair.map(|(left, right)| tree::combine(*left, *right)).into_iter().collect()
        }
        _ => proofs.iter().flat_map(|proof| proof.roots.clone()).collect(),
    }
}

/// Puts the next layout in force. Everything was checked before.
fn commit(view: &mut View<'_>, at: &BlockContext, mut job: Job, seal: &Seal, proofs: &[SealedProof]) -> Executed {
    registry::put(view, registry::layout_key(), &seal.layout);
    for (end, proof) in job.ends.iter().zip(proofs) {
        let header = &proof.certificate.header;
        registry::remove(view, registry::current_key(end.group));
        // Nobody waits for a committee of a shard that has ended.
        if registry::coming_of(view, end.group).is_some() {
            registry::remove(view, registry::coming_key(end.group));
        }
        epochs::forget_dealt(view, end.group);
        let last = Checkpoint {
            height: end.height,
            header_hash: end.header_hash,
            state_root: header.state_root,
            time_ms: end.time_ms,
        };
        registry::put(view, registry::checkpoint_key(end.group), &last);
        registry::put(view, registry::proof_key(end.group), &proof.certificate);
        report::forget_group(view, end.group);
        scale::forget_group(view, end.group);
    }
    forget_proofs(view, &job);
    for (child, root) in seal.children.iter().zip(first_roots(&job, proofs)) {
        let hash = child.committee.hash();
        registry::put(view, registry::committee_key(child.group, &hash), &child.committee);
        registry::put(view, registry::current_key(child.group), &hash);
        let born = BornShard {
            version: BORN_VERSION,
            group: child.group,
            prefix: child.prefix,
            committee: hash,
            job: job.id,
            layout: seal.layout.version,
            parents: job.ends.clone(),
            roots: vec![root],
        };
        // Whoever verifies what the child certifies finds its first committee here, under the beacon's headers.
        view.store(schema::born(child.group), &born);
    }
    // The beacon takes the change as every group does: the layout and the committees for its own look-ups, its streams to
    // the parents anew.
    let own = reshaped(&job, seal, proofs, GroupId::BEACON);
    closed::adopt(view, GroupId::BEACON, &own);
    // The children know it by their birth.
    let told = |group: &GroupId| seal.children.iter().all(|child| child.group != *group);
    let others = ledgers(view).unwrap_or_default().into_iter().filter(told);
    let tell = |group: GroupId| (group, Message::Reshaped(reshaped(&job, seal, proofs, group)));
    let mut mail: Mail = others.map(tell).collect();
    let mut counters = jobs::counters(view);
    counters.reshaped_ms = Some(at.time_ms);
    jobs::keep_counters(view, &counters);
    table::committed(view, at, &mut job);
    mail.extend(table::cut_waiting(view, at));
    registry::bump_revision(view);
    let outcome = CommandOutcome::Job { id: job.id, phase: job.phase };
    Executed { outcome, mail, committees: seal.children.iter().map(|child| child.committee.clone()).collect() }
}

/// The change, and how far each parent has taken what a group wrote to it.
fn reshaped(job: &Job, seal: &Seal, proofs: &[SealedProof], group: GroupId) -> Reshaped {
    let ended = seal.parents.iter().zip(proofs);
    Reshaped {
        version: RESHAPED_VERSION,
        job: job.id,
        layout: seal.layout.clone(),
        committees: seal.children.iter().map(|child| child.committee.clone()).collect(),
        ended: ended.map(|(parent, proof)| Ended { group: *parent, taken: taken(proof, group) }).collect(),
    }
}

/// How a shard began that others were cut or joined into; `None` of every other group.
pub(crate) fn born(view: &mut View<'_>, group: GroupId) -> Option<BornShard> {
    view.load(&schema::born(group))
}

/// Whether a header can be one of a shard that others were cut or joined into: it comes behind their ends, and the first
/// is as [`is_first`] says. Every other group's can.
pub(crate) fn follows_birth(view: &mut View<'_>, header: &Header) -> bool {
    let Some(born) = born(view, header.group) else { return true };
    let first = first_height(&born);
    if header.height.0 == first { is_first(&born, header) } else { header.height.0 > first }
}

/// Height of the first block of such a shard.
pub(crate) fn first_height(born: &BornShard) -> u64 {
    born.parents.iter().map(|end| end.height.0).max().unwrap_or(0).saturating_add(1)
}

/// Whether a header is that of the first block of such a shard: it names the ends of its parents, and what they left.
pub(crate) fn is_first(born: &BornShard, header: &Header) -> bool {
    let ends: Vec<Hash32> = born.parents.iter().map(|end| end.header_hash).collect();
    let root = born.roots.first().map(|root| root.hash);
    header.height.0 == first_height(born)
        && header.parents == ends
        && header.flags & FLAG_BORN != 0
        && root == Some(header.state_root.0)
}

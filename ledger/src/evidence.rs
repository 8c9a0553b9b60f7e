//! Evidence in the state of a group: proofs that a member has signed two ballots that exclude each other.
//!
//! Owns the record, what is kept, and how much of it. Each is a leaf of the state tree, so that the group's certified
//! headers commit to it and an ordinary inclusion proof shows it. Never decides what follows for the member: that is
//! the beacon's.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::ballot::Equivocation;
use crate::committee::Committee;
use crate::ids::{GroupId, Height, TimeMs};
use crate::layout::{BitPrefix, Layout};
use crate::limits::EVIDENCE_PER_MEMBER_MAX;
use crate::machine::BlockContext;
use crate::reject::Reject;
use crate::schema;
use crate::view::View;

/// Version written into new records.
pub const EVIDENCE_VERSION: u8 = 1;

/// A proof as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    /// Format version, [`EVIDENCE_VERSION`].
    pub version: u8,
    /// The block that took it.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
    /// The two ballots.
    pub proof: Equivocation,
}

/// What became of a proof that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is kept from this block on.
    New,
    /// It was kept before.
    Known,
    /// As many are kept of this member in this committee as say anything.
    Enough,
}

/// The part of the state tree that a group owns: its evidence has to lie there.
pub fn owned(view: &mut View<'_>, group: GroupId) -> BitPrefix {
    view.load::<Layout>(&schema::layout()).and_then(|layout| layout.prefix_of(group)).unwrap_or(BitPrefix::ALL)
}

/// Judges a proof by the committee that its ballots name, and keeps it under `owned`. Any committee that this group
/// knows will do, in force or not: what was signed does not become right when the committee has gone.
///
/// # Errors
/// [`Reject::CommitteeUnknown`], and [`Reject::EvidenceUnproved`] when the proof does not hold. The view is then
/// unchanged.
pub fn keep(view: &mut View<'_>, at: &BlockContext, owned: BitPrefix, proof: &Equivocation) -> Result<Keeping, Reject> {
    let (ballot, id) = (&proof.first.ballot, proof.id());
    let known: Option<Committee> = view.load(&schema::committee(ballot.group, &ballot.committee));
    let committee = known.ok_or(Reject::CommitteeUnknown)?;
    if !committee.engine.bears_liars() || proof.verify(&at.cluster, &committee).is_err() {
        return Err(Reject::EvidenceUnproved);
    }
    let member = schema::evidence_of(owned, ballot.group, &ballot.committee, ballot.node);
    let key = [&member[..], &id.0].concat();
    let kept = view.scan_prefix(&member);
    if kept.iter().any(|(found, _)| *found == key) {
        return Ok(Keeping::Known);
    }
    if kept.len() >= EVIDENCE_PER_MEMBER_MAX {
        return Ok(Keeping::Enough);
    }
    let record = Evidence { version: EVIDENCE_VERSION, height: at.height, time_ms: at.time_ms, proof: *proof };
    view.store(key, &record);
    Ok(Keeping::New)
}

/// All evidence that a group keeps, by group, committee, member and name.
pub fn kept(view: &mut View<'_>, owned: BitPrefix) -> Vec<Evidence> {
    let keys = view.scan_prefix(&schema::evidence(owned));
    keys.into_iter().filter_map(|(key, _)| view.load(&key)).collect()
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;

//! What happens once enough organisations have sent the same command, more than half of them unless a policy says
//! otherwise: a proposal, from its first approval to its decision.
//!
//! Owns how long approvals count, and how many proposals wait. Whose count, and which are enough, is the word of the policy
//! that is in force at each approval ([`crate::policies`]); that of the last one decides. Whether what is asked for can be
//! is judged by the callers before, with every approval, and so is what follows from the decision behind. A job is kept
//! before and after its decision alike: it has its approvals counted here, and the rest by its own table
//! ([`crate::jobs::table`]).
//!
//! Proposals are one when the same is asked for. Whoever sends one is told how many have approved and how many have to;
//! what waits about organisations and policies is shown besides ([`crate::policies::book`]). An approval cannot be taken
//! back: it counts until the deadline of the first one, or until its organisation is gone.
//!
//! | an approval, where | the same does not wait | it waits | its deadline has passed |
//! |---|---|---|---|
//! | others have to come | noted, until its own deadline | noted, once for an organisation; the deadline stays | begins anew |
//! | the policy holds with it | decided: nobody else is needed | decided | as where it does not wait |
//! | the policy does not ask for it | [`Reject::PolicyNotAsked`] | as before | as before |
//! | [`PROPOSALS_MAX`] of the kind wait, or [`PROPOSALS_PER_ORG_MAX`] that it alone approves | [`Reject::Busy`] | as above | [`Reject::Busy`] |
//!
//! What has lapsed is removed with the next approval of any proposal of that kind.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::limits::{PROPOSALS_MAX, PROPOSALS_PER_ORG_MAX};
use crate::machine::CommandOutcome;
use crate::policies::{Jury, Matter};
use crate::registry;

/// What waits for approvals.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal<T> {
    /// What is asked for; nothing where its key says it all.
    pub asked: T,
    /// Last block time at which it can be approved: the deadline of the command that proposed it.
    pub until_ms: TimeMs,
    /// Who has approved, ascending.
    pub approvals: Vec<OrgId>,
}

/// What an approval has come to.
pub(crate) enum Verdict<T> {
    /// It is noted, and others have to come. This is what its sender is told.
    Waits(CommandOutcome),
    /// The policy holds with it. Nothing is written yet, so that it can still be refused.
    Decided(Decided<T>),
}

/// A proposal that is decided, and those beside it.
pub(crate) struct Decided<T> {
    key: Vec<u8>,
    stale: Vec<Vec<u8>>,
    open: Vec<(Vec<u8>, Proposal<T>)>,
}

impl<T> Decided<T> {
    /// Takes the proposal out, with those of its kind that are settled by its decision.
    pub(crate) fn close(self, view: &mut View<'_>, settles: impl Fn(&T) -> bool) {
        let Self { key, stale, open } = self;
        let settled = open.into_iter().filter(|(found, other)| *found == key || settles(&other.asked));
        stale.into_iter().chain(settled.map(|(key, _)| key)).for_each(|key| registry::remove(view, key));
    }
}

/// Takes an organisation's approval of what is asked for, which is kept under a key of a family until it is decided by the
/// policy of its matter.
///
/// # Errors
/// [`Reject::PolicyNotAsked`] when the policy does not ask the organisation, and [`Reject::Busy`] when too many proposals
/// wait, or too many that nobody else has approved. The view is then unchanged.
pub(crate) fn approve<T: PartialEq + BorshSerialize + BorshDeserialize>(
    view: &mut View<'_>,
    at: &BlockContext,
    (matter, family, key): (Matter, &[u8], Vec<u8>),
    asked: T,
    (signer, until_ms): (OrgId, TimeMs),
) -> Result<Verdict<T>, Reject> {
    let jury = Jury::of(view, matter);
    jury.hear(signer)?;
    let all: Vec<(Vec<u8>, Proposal<T>)> = registry::family(view, &registry::key(family, &[]));
    let (stale, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, found)| found.until_ms < at.time_ms);
    let stale: Vec<Vec<u8>> = stale.into_iter().map(|(key, _)| key).collect();
    let known = open.iter().find(|(found, other)| *found == key && other.asked == asked).map(|(_, known)| known);
    let alone = open.iter().filter(|(_, other)| other.approvals == [signer]).count();
    let new = known.is_none();
    if new && open.len() >= PROPOSALS_MAX {
        return Err(Reject::Busy);
    }
    let until_ms = known.map_or(until_ms, |known| known.until_ms);
    let mut approvals = known.map_or_else(Vec::new, |known| known.approvals.clone());
    note(&mut approvals, signer, &jury);
    if jury.decides(&approvals) {
        return Ok(Verdict::Decided(Decided { key, stale, open }));
    }
    // What is decided at once takes no place.
    if new && alone >= PROPOSALS_PER_ORG_MAX {
        return Err(Reject::Busy);
    }
    let pending = jury.pending(&approvals);
    stale.into_iter().for_each(|key| registry::remove(view, key));
    registry::put(view, key, &Proposal { asked, until_ms, approvals });
    Ok(Verdict::Waits(pending))
}

/// Notes an approval, once for an organisation. Those of organisations that are gone are forgotten.
pub(crate) fn note(approvals: &mut Vec<OrgId>, signer: OrgId, jury: &Jury) {
    approvals.retain(|org| jury.has(*org));
    if let Err(place) = approvals.binary_search(&signer) {
        approvals.insert(place, signer);
    }
}

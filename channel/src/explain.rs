//! What people ask about proposals: which there are, and what is still missing.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::hash::Hash32;
use ledger::ids::{Height, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::policy::{Elector, Policy, Residual, Roster};
use crate::proposal::{Proposal, ProposalState};
use crate::reject::Refusal;
use crate::scene::Scene;
use crate::state;
use crate::surroundings::Surroundings;

/// Version written into new [`Explanation`]s.
pub const EXPLANATION_VERSION: u8 = 1;

/// A proposal and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Explanation {
    /// Format version, [`EXPLANATION_VERSION`].
    pub version: u8,
    /// The block whose state this is about.
    pub height: Height,
    /// Its time; deadlines are judged by it.
    pub time_ms: TimeMs,
    /// The proposal.
    pub proposal: Proposal,
    /// Where it stands at the time of asking.
    pub state: ProposalState,
    /// The policy that decides, as it is now.
    pub policy: Policy,
    /// The members now, ascending.
    pub members: Vec<OrgId>,
    /// Who can approve anything now, ascending.
    pub electors: Vec<Elector>,
    /// Whose approval counts now.
    pub approved: Vec<Elector>,
    /// Whose rejection counts now.
    pub rejected: Vec<Elector>,
    /// Approvals that would together decide; empty when none is missing or none can help.
    pub sufficient: Vec<Elector>,
    /// Why the change could not come into force as things are, however many approve.
    pub blocked: Option<Refusal>,
}

impl Explanation {
    /// What is left of the policy.
    #[must_use]
    pub fn residual(&self) -> Residual {
        let (approved, rejected) =
            (self.approved.iter().copied().collect(), BTreeSet::from_iter(self.rejected.clone()));
        let open = self.electors.iter().copied().filter(|elector| !rejected.contains(elector)).collect();
        self.policy.residual(&self.members.iter().copied().collect(), &approved, &open)
    }
}

/// Explains a proposal; `None` when there is no such proposal or no channel here.
pub fn explain(view: &mut View<'_>, at: &BlockContext, around: &Surroundings<'_>, id: &Hash32) -> Option<Explanation> {
    let mut scene = Scene::open(view, at, around).ok()?;
    let proposal = state::proposal(scene.view, id)?;
    let policy = scene.policy(proposal.change.subject()).ok()?;
    let (approved, rejected) = scene.heard(&proposal);
    let residual = scene.weigh(&proposal).ok()?;
    let sufficient = match &residual {
        Residual::Open(left) => left.sufficient().into_iter().collect(),
        Residual::Met | Residual::Impossible => Vec::new(),
    };
    let Roster { members, electors } = state::roster(&scene.members);
    let standing = proposal.state_at(at.time_ms);
    let blocked = if standing == ProposalState::Open { scene.enact(&proposal).err() } else { None };
    Some(Explanation {
        version: EXPLANATION_VERSION,
        height: at.height,
        time_ms: at.time_ms,
        state: standing,
        policy,
        members: members.into_iter().collect(),
        electors: electors.into_iter().collect(),
        approved: approved.into_iter().collect(),
        rejected: rejected.into_iter().collect(),
        sufficient,
        blocked,
        proposal,
    })
}

/// All proposals that are kept, the newest first, with where each stands.
pub fn list(view: &mut View<'_>, now: TimeMs) -> Vec<(Proposal, ProposalState)> {
    let mut found = state::proposals(view);
    found.sort_by_key(|proposal| (std::cmp::Reverse(proposal.height), proposal.id));
    found
        .into_iter()
        .map(|proposal| {
            let standing = proposal.state_at(now);
            (proposal, standing)
        })
        .collect()
}

//! What people are shown of policies: those in force, and what waits for approvals about organisations and policies.
//!
//! Owns the form of that answer. Judges nothing: whose approvals count, and whose would be enough, is the jury's word.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{OrgId, TimeMs};
use ledger::view::View;

use super::{Jury, Matter, PROPOSAL, PolicyChange, Ruled, ruled};
use crate::majority::Proposal;
use crate::orgs;
use crate::registry;

/// Version written into [`PolicyBook`].
pub const POLICY_BOOK_VERSION: u8 = 1;

/// The policies of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PolicyBook {
    /// Format version, [`POLICY_BOOK_VERSION`].
    pub version: u8,
    /// The organisations and their names, by number.
    pub orgs: Vec<(OrgId, String)>,
    /// The policy of each matter that is in force.
    pub ruled: Vec<(Matter, Ruled)>,
    /// What waits for approvals about organisations and policies, or did until its deadline.
    pub waiting: Vec<Waiting>,
}

/// A proposal that waits.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Waiting {
    /// What is asked for.
    pub asked: Asked,
    /// Last block time at which it can be approved.
    pub until_ms: TimeMs,
    /// Who has approved and counts, ascending.
    pub approvals: Vec<OrgId>,
    /// Whose approvals would decide it now; others may as well. None when those that it has would: any further one
    /// does, also a repeated one.
    pub enough: Vec<OrgId>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Asked {
    /// That an organisation joins.
    Admit {
        /// Its number.
        org: OrgId,
        /// Its name.
        name: String,
    },
    /// That an organisation goes.
    Remove(OrgId),
    /// That a matter is decided by another policy.
    Policy(PolicyChange),
}

impl PolicyBook {
    /// As the beacon's state has it.
    pub fn read(view: &mut View<'_>) -> Self {
        let changes: Vec<(Vec<u8>, Proposal<PolicyChange>)> = registry::family(view, &registry::key(PROPOSAL, &[]));
        let changes = changes.into_iter().map(|(_, found)| {
            let Proposal { asked, until_ms, approvals } = found;
            (Asked::Policy(asked), until_ms, approvals)
        });
        let (about_orgs, about_policies) = (Jury::of(view, Matter::Orgs), Jury::of(view, Matter::Policy));
        let waits = |jury: &Jury, (asked, until_ms, approvals): (Asked, TimeMs, Vec<OrgId>)| Waiting {
            asked,
            until_ms,
            approvals: jury.counted(&approvals),
            enough: jury.missing(&approvals),
        };
        let mut waiting: Vec<Waiting> =
            orgs::waiting(view).into_iter().map(|found| waits(&about_orgs, found)).collect();
        waiting.extend(changes.map(|found| waits(&about_policies, found)));
        Self {
            version: POLICY_BOOK_VERSION,
            orgs: registry::orgs(view).into_iter().map(|org| (org.id, org.name)).collect(),
            ruled: Matter::ALL.into_iter().map(|matter| (matter, ruled(view, matter))).collect(),
            waiting,
        }
    }

    /// The policy of a matter.
    #[must_use]
    pub fn of(&self, matter: Matter) -> Option<&Ruled> {
        self.ruled.iter().find(|(found, _)| *found == matter).map(|(_, ruled)| ruled)
    }
}

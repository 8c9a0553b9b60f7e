//! Who has to approve what in the cluster: a policy for each matter that organisations decide together, in the language
//! of channels ([`channel::policy`]).
//!
//! Owns the policies in force, how one is changed, and whether organisations could satisfy all of them. Counts no
//! approvals and keeps no proposals, which is for [`crate::majority`]; what people are shown is in [`book`].
//!
//! Organisations speak by their admin keys alone, so every elector that can approve is an organisation as
//! [`Role::Admin`]. A matter without a record follows [`default_policy`], which is what always was.
//!
//! | a change of a policy | comes to |
//! |---|---|
//! | is the policy in force | applied, nothing changes |
//! | was made on another revision than the one in force | [`Reject::PolicyStale`] |
//! | could not hold with the organisations of the moment | [`Reject::PolicyUnsatisfiable`] |
//! | comes from somebody whom the policy of policies does not ask | [`Reject::PolicyNotAsked`] |
//! | has approvals that do not satisfy the policy of policies | waits |
//! | has approvals that do | in force; others about the same matter are dropped |

pub mod book;

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use channel::{Elector, Policy, Quorum, Residual, Role, Roster};
use ledger::genesis::Genesis;
use ledger::hash::tagged;
use ledger::ids::{OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::genesis::GenesisFault;
use crate::machine::{CommandOutcome, Executed};
use crate::majority::{self, Verdict};
use crate::registry;

/// Version written into new [`Ruled`] records.
pub const POLICY_RECORD_VERSION: u8 = 1;

/// What organisations decide together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Matter {
    /// Which organisations belong to the cluster.
    Orgs = 0,
    /// These policies.
    Policy = 1,
    /// Which engine orders a shard, or the beacon.
    Engines = 2,
    /// Who is let out of quarantine.
    Quarantine = 3,
    /// How the cluster runs by itself: nodes that vanish, epochs and rebalancing, scaling.
    Operation = 4,
    /// Shards that are cut, joined or moved by command.
    Jobs = 5,
}

impl Matter {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Orgs, Self::Policy, Self::Engines, Self::Quarantine, Self::Operation, Self::Jobs];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Orgs => "orgs",
            Self::Policy => "policy",
            Self::Engines => "engines",
            Self::Quarantine => "quarantine",
            Self::Operation => "operation",
            Self::Jobs => "jobs",
        }
    }

    /// The matter of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|matter| matter.word() == word)
    }
}

/// The policy of a matter, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ruled {
    /// Format version, [`POLICY_RECORD_VERSION`].
    pub version: u8,
    /// How often it was changed; 0 as the cluster began.
    pub revision: u64,
    /// Who has to approve.
    pub policy: Policy,
}

impl Ruled {
    fn first(policy: Policy) -> Self {
        Self { version: POLICY_RECORD_VERSION, revision: 0, policy }
    }
}

/// Another policy for a matter.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PolicyChange {
    /// The matter.
    pub matter: Matter,
    /// Revision of its policy that this was made on, so that nobody approves a change of something else.
    pub base: u64,
    /// Who is to have to approve.
    pub policy: Policy,
}

const POLICY: &[u8] = b"policy/";
const PROPOSAL: &[u8] = b"policy-proposal/";

/// Key of the [`Ruled`] record of a matter.
#[must_use]
pub fn policy_key(matter: Matter) -> Vec<u8> {
    registry::key(POLICY, &[&[matter as u8]])
}

/// What a matter follows that nothing else was set for: more than half of the organisations.
#[must_use]
pub fn default_policy() -> Policy {
    Policy::members(Quorum::Majority, Role::Admin)
}

/// The policy of a matter that is in force.
pub fn ruled(view: &mut View<'_>, matter: Matter) -> Ruled {
    view.load(&policy_key(matter)).unwrap_or_else(|| Ruled::first(default_policy()))
}

fn elector(org: OrgId) -> Elector {
    Elector { org, role: Role::Admin }
}

fn roster(members: BTreeSet<OrgId>) -> Roster {
    let electors = members.iter().copied().map(elector).collect();
    Roster { members, electors }
}

/// Who decides a matter in this moment: the organisations there are, by its policy in force.
#[derive(Clone, Debug)]
pub(crate) struct Jury {
    members: BTreeSet<OrgId>,
    policy: Policy,
}

impl Jury {
    pub(crate) fn of(view: &mut View<'_>, matter: Matter) -> Self {
        let members = registry::orgs(view).into_iter().map(|org| org.id).collect();
        Self { members, policy: ruled(view, matter).policy }
    }

    /// Whether an organisation belongs to the cluster.
    pub(crate) fn has(&self, org: OrgId) -> bool {
        self.members.contains(&org)
    }

    /// Refuses an organisation whose approval would count for nothing.
    ///
    /// # Errors
    /// [`Reject::PolicyNotAsked`].
    pub(crate) fn hear(&self, org: OrgId) -> Result<(), Reject> {
        if self.asks(org) { Ok(()) } else { Err(Reject::PolicyNotAsked) }
    }

    fn asks(&self, org: OrgId) -> bool {
        self.has(org) && self.policy.names(&self.members, &elector(org))
    }

    fn electors(approvals: &[OrgId]) -> BTreeSet<Elector> {
        approvals.iter().copied().map(elector).collect()
    }

    /// Whether these approvals satisfy the policy. Those of organisations that are gone, or that it does not ask, do not
    /// count.
    pub(crate) fn decides(&self, approvals: &[OrgId]) -> bool {
        self.policy.holds(&self.members, &Self::electors(approvals))
    }

    /// Those of the approvals that count.
    pub(crate) fn counted(&self, approvals: &[OrgId]) -> Vec<OrgId> {
        approvals.iter().copied().filter(|org| self.asks(*org)).collect()
    }

    /// A small number of organisations that would decide, with the approvals there are. None when those do already.
    pub(crate) fn missing(&self, approvals: &[OrgId]) -> Vec<OrgId> {
        let heard = Self::electors(approvals);
        let open = self.members.iter().copied().map(elector).filter(|elector| !heard.contains(elector)).collect();
        match self.policy.residual(&self.members, &heard, &open) {
            Residual::Open(rest) => {
                let mut orgs: Vec<OrgId> = rest.sufficient().into_iter().map(|elector| elector.org).collect();
                orgs.dedup();
                orgs
            }
            // No policy comes to be that all together could not satisfy.
            Residual::Met | Residual::Impossible => Vec::new(),
        }
    }

    /// What whoever approves is told while others have to come.
    pub(crate) fn pending(&self, approvals: &[OrgId]) -> CommandOutcome {
        let counted = self.counted(approvals).len();
        let number = |n: usize| u16::try_from(n).expect("organisations are limited to 64");
        let needed = counted + self.missing(approvals).len();
        CommandOutcome::Pending { approvals: number(counted), needed: number(needed) }
    }
}

/// Whether these organisations could satisfy every policy of the cluster.
///
/// # Errors
/// [`Reject::PolicyBlocks`] when they could not satisfy one.
pub(crate) fn bear(view: &mut View<'_>, members: BTreeSet<OrgId>) -> Result<(), Reject> {
    let roster = roster(members);
    let stuck = Matter::ALL.into_iter().any(|matter| ruled(view, matter).policy.check_satisfiable(&roster).is_err());
    if stuck { Err(Reject::PolicyBlocks) } else { Ok(()) }
}

/// Counts the signer's approval of another policy for a matter; once the policy of policies that is in force holds, the
/// new one is. What it is judged by is judged with every approval, and so when it comes into force.
///
/// # Errors
/// [`Reject::PolicyStale`], [`Reject::PolicyUnsatisfiable`], [`Reject::PolicyNotAsked`], and [`Reject::Busy`] when too many
/// proposals wait. The view is then unchanged.
pub(crate) fn set(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    change: PolicyChange,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    let (matter, before) = (change.matter, ruled(view, change.matter));
    if change.policy == before.policy {
        return Ok(CommandOutcome::Applied.into());
    }
    if change.base != before.revision {
        return Err(Reject::PolicyStale);
    }
    let members = registry::orgs(view).into_iter().map(|org| org.id).collect();
    change.policy.check(&roster(members)).map_err(|_| Reject::PolicyUnsatisfiable)?;
    let name = tagged(b"seamark/policy-proposal/v1", &[&registry::encode(&change)]);
    let proposal = (Matter::Policy, PROPOSAL, registry::key(PROPOSAL, &[&name.0]));
    match majority::approve(view, at, proposal, change.clone(), (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        // What was approved beside it was about another policy in force.
        Verdict::Decided(decided) => decided.close(view, |other| other.matter == matter),
    }
    let after = Ruled { version: POLICY_RECORD_VERSION, revision: before.revision + 1, policy: change.policy };
    registry::put(view, policy_key(matter), &after);
    Ok(CommandOutcome::Applied.into())
}

/// The policies that a genesis states.
///
/// # Errors
/// [`GenesisFault::Policy`] names the first that cannot be in force with its organisations.
pub fn stated(genesis: &Genesis) -> Result<Vec<(Matter, Policy)>, GenesisFault> {
    let org_of = |name: &str| genesis.orgs.iter().find(|org| org.name == name).map(|org| org.id);
    let roster = roster(genesis.orgs.iter().map(|org| org.id).collect());
    let read = |(word, text): (&String, &String)| -> Result<(Matter, Policy), GenesisFault> {
        let fault = |cause: String| GenesisFault::Policy { matter: word.clone(), cause };
        let matter = Matter::of_word(word).ok_or_else(|| fault("nothing is decided under this name".to_owned()))?;
        let policy = Policy::parse(text, &org_of).map_err(|error| fault(error.to_string()))?;
        policy.check(&roster).map_err(|error| fault(error.to_string()))?;
        Ok((matter, policy))
    };
    genesis.policies.iter().map(read).collect()
}

/// The records of what a genesis states.
pub(crate) fn genesis_writes(genesis: &Genesis) -> Vec<(Vec<u8>, Vec<u8>)> {
    match stated(genesis) {
        Ok(policies) => policies
            .into_iter()
            .map(|(matter, policy)| (policy_key(matter), registry::encode(&Ruled::first(policy))))
            .collect(),
        // Nobody starts from a genesis that was not checked. Should one, these records stop the group, for they do not
        // decode; the default in their place would let others decide than those who were to.
        Err(_) => Matter::ALL.into_iter().map(|matter| (policy_key(matter), Vec::new())).collect(),
    }
}

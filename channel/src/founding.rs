//! How a channel begins: a proposal in the beacon that the invited organisations approve.
//!
//! A founding is a value: the beacon keeps it in its registry, calls [`Founding::act`] for each
//! signed command, and stores what comes back. Each organisation names its own nodes and anchors when
//! it approves. Once the stated policy holds over those who have approved, and they could satisfy
//! every policy of the channel by themselves and have brought as many nodes as its engine needs, the founding is
//! approved: they are the founders, and whoever has not approved by then is invited.
//!
//! A founding promises its policies instead of stating them ([`crate::opening`]): all that is judged of them here is
//! that the channel starts with those that every such channel starts with. The beacon proposes no other ones any more; one that
//! states its policies, which an earlier build took, is decided and started by the same rules.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, NodeId, OrgId, TimeMs};
use ledger::limits::COMMITTEE_MAX;

use crate::change::Subject;
use crate::lifecycle::{Phase, Step};
use crate::limits::{MEMBERS_MAX, NAME_BYTES_MAX, PROPOSAL_MS_MAX, TERMS_BYTES_MAX};
use crate::opening::{Promise, first_policies};
use crate::policy::{Elector, Policy, PolicyFault, Residual, Role, Roster};
use crate::reject::{ChannelReject, Refusal};
use crate::surroundings::{Registry, ascending, nodes_of};
use ledger::Engine;

/// What a founding states.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Terms {
    /// Name for people: 1 to 64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// Whom the proposer invites, strictly ascending; itself not among them.
    pub invited: Vec<OrgId>,
    /// What orders the channel.
    pub engine: Engine,
    /// Who has to approve the founding; only admins do.
    pub founding: Policy,
    /// One policy for each subject, in the order of [`Subject::ALL`]: those that the channel starts with.
    pub policies: Vec<(Subject, Policy)>,
}

/// Version written into new foundings. Version 1 knew no promise.
pub const FOUNDING_VERSION: u8 = 2;

/// The nodes an organisation brings.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hosting {
    /// Nodes that will host the channel, strictly ascending.
    pub nodes: Vec<NodeId>,
    /// Those of them that will carry mail, strictly ascending.
    pub anchors: Vec<NodeId>,
}

/// An organisation's word on a founding. The beacon embeds it in its signed commands. Variants are
/// added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FoundingAct {
    /// Approves, and brings nodes.
    Approve(Hosting),
    /// Rejects.
    Reject,
    /// Takes it back; the proposer only.
    Withdraw,
}

/// A founding as the beacon keeps it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Founding {
    /// Format version, [`FOUNDING_VERSION`].
    pub version: u8,
    /// See [`founding_id`].
    pub id: Hash32,
    /// What it states.
    pub terms: Terms,
    /// Who proposed.
    pub proposer: OrgId,
    /// Last time at which it can be approved, and by which an invited organisation may join.
    pub until_ms: TimeMs,
    /// Who has approved, by organisation.
    pub approvals: Vec<(OrgId, Hosting)>,
    /// Who has rejected, by organisation.
    pub rejections: Vec<OrgId>,
    /// How far it has come, but for the deadline: see [`Founding::phase_at`].
    pub phase: Phase,
    /// What it promises in place of policies of its own; none in one that an earlier build took with its policies.
    pub promise: Option<Promise>,
    /// That of the command that proposed it: with it, whoever is shown the founding can tell whether its id is of what is shown.
    pub salt: [u8; 16],
}

/// The id of a founding: `sha256("seamark/channel-founding/v1" ‖ cluster ‖ proposer ‖ until ‖ salt ‖
/// terms)`, numbers big-endian, the salt that of the command that proposes it.
#[must_use]
pub fn founding_id(cluster: &ClusterId, proposer: OrgId, until_ms: TimeMs, salt: &[u8; 16], terms: &Terms) -> Hash32 {
    let terms = borsh::to_vec(terms).expect("writing to memory does not fail");
    let parts: [&[u8]; 5] = [&cluster.0.0, &proposer.0.to_be_bytes(), &until_ms.0.to_be_bytes(), salt, &terms];
    tagged(b"seamark/channel-founding/v1", &parts)
}

/// The id of a founding that promises its policies: as [`founding_id`], under `seamark/channel-founding/v2`, with the promised
/// hash before the terms. So whoever approves the id approves what was promised, too.
#[must_use]
pub fn promised_founding_id(
    cluster: &ClusterId,
    proposer: OrgId,
    until_ms: TimeMs,
    salt: &[u8; 16],
    promised: &Hash32,
    terms: &Terms,
) -> Hash32 {
    let terms = borsh::to_vec(terms).expect("writing to memory does not fail");
    let parts: [&[u8]; 6] =
        [&cluster.0.0, &proposer.0.to_be_bytes(), &until_ms.0.to_be_bytes(), salt, &promised.0, &terms];
    tagged(b"seamark/channel-founding/v2", &parts)
}

impl Terms {
    /// Whether the terms can be put to the invited organisations.
    fn check(&self, proposer: OrgId, registry: &dyn Registry) -> Result<(), Refusal> {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.chars().all(letters) {
            return Err(Refusal::because(ChannelReject::FoundingForm, "the name"));
        }
        if borsh::object_length(self).map_or(true, |bytes| bytes > TERMS_BYTES_MAX) {
            return Err(Refusal::because(
                ChannelReject::FoundingForm,
                format!("the terms are over {TERMS_BYTES_MAX} bytes"),
            ));
        }
        if self.invited.contains(&proposer) {
            return Err(ChannelReject::InviteSelf.into());
        }
        if self.invited.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ChannelReject::AlreadyInvited.into());
        }
        if !ascending(&self.invited) {
            return Err(Refusal::because(ChannelReject::FoundingForm, "the order of the invited organisations"));
        }
        if self.invited.len() >= MEMBERS_MAX {
            return Err(ChannelReject::MembersFull.into());
        }
        if let Some(unknown) = self.invited.iter().find(|org| registry.org(**org).is_none()) {
            return Err(Refusal::because(ChannelReject::OrgUnknown, format!("organisation {unknown}")));
        }
        let all: BTreeSet<OrgId> = self.invited.iter().copied().chain([proposer]).collect();
        judge("founding", &self.founding, &admins(&all))?;
        check_policies(&self.policies, &founders(&all))
    }
}

/// Whether these are one policy for each subject, and all of them could hold.
pub(crate) fn check_policies(policies: &[(Subject, Policy)], roster: &Roster) -> Result<(), Refusal> {
    check_subjects(policies)?;
    policies.iter().try_for_each(|(subject, policy)| judge(subject.word(), policy, roster))
}

/// Whether these are one policy for each subject.
pub(crate) fn check_subjects(policies: &[(Subject, Policy)]) -> Result<(), Refusal> {
    if policies.iter().map(|(subject, _)| *subject).eq(Subject::ALL) {
        return Ok(());
    }
    Err(Refusal::because(ChannelReject::FoundingForm, "one policy for each subject, in order"))
}

fn judge(word: &str, policy: &Policy, roster: &Roster) -> Result<(), Refusal> {
    policy.check(roster).map_err(|fault| unsatisfiable(word, policy, &fault))
}

pub(crate) fn unsatisfiable(word: &str, policy: &Policy, fault: &PolicyFault) -> Refusal {
    Refusal::because(ChannelReject::PolicyUnsatisfiable, format!("the policy of {word}, {policy}: {fault}"))
}

/// The roster of those who can approve a founding.
fn admins(orgs: &BTreeSet<OrgId>) -> Roster {
    Roster {
        members: orgs.clone(),
        electors: orgs.iter().map(|org| Elector { org: *org, role: Role::Admin }).collect(),
    }
}

/// The roster of a channel with these founders: each has an admin key and a node.
pub(crate) fn founders(orgs: &BTreeSet<OrgId>) -> Roster {
    let electors = orgs.iter().flat_map(|org| [Role::Admin, Role::Node].map(|role| Elector { org: *org, role }));
    Roster { members: orgs.clone(), electors: electors.collect() }
}

impl Founding {
    /// Proposes a channel that goes by the policies that its terms state. The proposer's nodes and approval come with it. No
    /// command to the beacon leads here, whose nodes would read them.
    ///
    /// # Errors
    /// [`Refusal`] when the terms cannot be put to anybody.
    pub fn propose(
        cluster: &ClusterId,
        terms: Terms,
        proposer: OrgId,
        hosting: Hosting,
        until_ms: TimeMs,
        salt: &[u8; 16],
        registry: &dyn Registry,
        now: TimeMs,
    ) -> Result<Self, Refusal> {
        Self::begin(cluster, terms, None, proposer, hosting, until_ms, salt, registry, now)
    }

    /// Proposes a channel that comes to go by what is promised, which is sealed. As [`Founding::propose`]; its terms state
    /// the policies that every such channel starts with.
    ///
    /// # Errors
    /// As [`Founding::propose`], and [`ChannelReject::PromiseForm`].
    pub fn propose_sealed(
        cluster: &ClusterId,
        terms: Terms,
        promise: Promise,
        proposer: OrgId,
        hosting: Hosting,
        until_ms: TimeMs,
        salt: &[u8; 16],
        registry: &dyn Registry,
        now: TimeMs,
    ) -> Result<Self, Refusal> {
        Self::begin(cluster, terms, Some(promise), proposer, hosting, until_ms, salt, registry, now)
    }

    fn begin(
        cluster: &ClusterId,
        terms: Terms,
        promise: Option<Promise>,
        proposer: OrgId,
        hosting: Hosting,
        until_ms: TimeMs,
        salt: &[u8; 16],
        registry: &dyn Registry,
        now: TimeMs,
    ) -> Result<Self, Refusal> {
        if until_ms <= now || until_ms.0 > now.0.saturating_add(PROPOSAL_MS_MAX) {
            return Err(ChannelReject::ProposalDeadline.into());
        }
        terms.check(proposer, registry)?;
        let id = match &promise {
            None => founding_id(cluster, proposer, until_ms, salt, &terms),
            Some(promise) => promised_founding_id(cluster, proposer, until_ms, salt, &promise.hash, &terms),
        };
        let founding = Self {
            version: FOUNDING_VERSION,
            id,
            terms,
            proposer,
            until_ms,
            approvals: Vec::new(),
            rejections: Vec::new(),
            phase: Phase::Proposed,
            promise,
            salt: *salt,
        };
        if let Some(promise) = &founding.promise {
            if founding.terms.policies != first_policies() {
                return Err(Refusal::because(ChannelReject::PromiseForm, "policies beside it"));
            }
            promise.check(&founding.named())?;
        }
        founding.act(proposer, &FoundingAct::Approve(hosting), registry, now)
    }

    /// The phase at a time: a founding that was not approved in time is abandoned.
    #[must_use]
    pub fn phase_at(&self, now: TimeMs) -> Phase {
        if self.phase == Phase::Proposed && now > self.until_ms { Phase::Abandoned } else { self.phase }
    }

    /// Whether its id is of what it states and promises. An approval names the id alone, so whoever shows a founding could
    /// else show other terms, or another promise, under the id of this one. Where something is promised, the policies that
    /// every such channel starts with may have been left out.
    #[must_use]
    pub fn id_fits(&self, cluster: &ClusterId) -> bool {
        let id = match &self.promise {
            None => founding_id(cluster, self.proposer, self.until_ms, &self.salt, &self.terms),
            Some(promise) => {
                let terms = Terms { policies: first_policies(), ..self.terms.clone() };
                promised_founding_id(cluster, self.proposer, self.until_ms, &self.salt, &promise.hash, &terms)
            }
        };
        id == self.id
    }

    /// Who would be the founders if an organisation approved now, with so many nodes. `None` where its approval decides
    /// nothing, or is none.
    #[must_use]
    pub fn founders_with(&self, org: OrgId, hosting: &Hosting) -> Option<BTreeSet<OrgId>> {
        let spoken = self.rejections.contains(&org) || self.approvals.iter().any(|(known, _)| *known == org);
        if self.phase != Phase::Proposed || spoken {
            return None;
        }
        let mut next = self.clone();
        next.approvals.push((org, hosting.clone()));
        next.decided().then(|| next.approvers())
    }

    /// Everybody whom the terms name.
    #[must_use]
    pub fn named(&self) -> BTreeSet<OrgId> {
        self.terms.invited.iter().copied().chain([self.proposer]).collect()
    }

    /// The founding after an organisation's act, which an admin of it has signed.
    ///
    /// # Errors
    /// [`Refusal`]; the founding is as it was.
    pub fn act(&self, org: OrgId, act: &FoundingAct, registry: &dyn Registry, now: TimeMs) -> Result<Self, Refusal> {
        let mut next = self.clone();
        if !self.named().contains(&org) {
            return Err(ChannelReject::NotInvited.into());
        }
        match (self.phase, self.phase_at(now)) {
            (_, Phase::Proposed) => {}
            (Phase::Proposed, _) => return Err(ChannelReject::ProposalExpired.into()),
            (Phase::Abandoned, _) if self.hopeless() => return Err(ChannelReject::ProposalRejected.into()),
            (Phase::Abandoned, _) => return Err(ChannelReject::ProposalWithdrawn.into()),
            (Phase::Approved, _) if *act == FoundingAct::Withdraw && org == self.proposer => {}
            _ => return Err(ChannelReject::ProposalApplied.into()),
        }
        let spoken = self.rejections.contains(&org) || self.approvals.iter().any(|(known, _)| *known == org);
        match act {
            FoundingAct::Withdraw if org != self.proposer => return Err(ChannelReject::NotProposer.into()),
            FoundingAct::Withdraw => next.phase = next.phase.after(Step::Abandon)?,
            _ if spoken => return Err(ChannelReject::ProposalActed.into()),
            FoundingAct::Approve(hosting) => {
                next.check_hosting(org, hosting, registry)?;
                next.approvals.push((org, hosting.clone()));
                next.approvals.sort_by_key(|(known, _)| *known);
                // Nobody brings nodes twice, so whoever speaks last has to bring those that are missing.
                if !next.enough_nodes() && !next.awaits_anybody() {
                    let (engine, nodes) = (next.terms.engine, next.nodes());
                    let detail = format!("{nodes} nodes in all, and {engine} needs {}", engine.least_members());
                    return Err(Refusal::because(ChannelReject::EngineNodes, detail));
                }
                if next.decided() {
                    next.phase = next.phase.after(Step::Approve)?;
                }
            }
            FoundingAct::Reject => {
                next.rejections.push(org);
                next.rejections.sort_unstable();
                if next.hopeless() {
                    next.phase = next.phase.after(Step::Abandon)?;
                }
            }
        }
        Ok(next)
    }

    fn check_hosting(&self, org: OrgId, hosting: &Hosting, registry: &dyn Registry) -> Result<(), ChannelReject> {
        let nodes = nodes_of(registry, org, &hosting.nodes)?;
        if !ascending(&hosting.anchors) || !hosting.anchors.iter().all(|anchor| hosting.nodes.contains(anchor)) {
            return Err(ChannelReject::AnchorsForm);
        }
        let seats: usize = self.approvals.iter().map(|(_, known)| known.nodes.len()).sum();
        if seats + nodes.len() > COMMITTEE_MAX { Err(ChannelReject::MembersFull) } else { Ok(()) }
    }

    fn approvers(&self) -> BTreeSet<OrgId> {
        self.approvals.iter().map(|(org, _)| *org).collect()
    }

    /// What is left of the founding policy.
    #[must_use]
    pub fn residual(&self) -> Residual {
        let named = self.named();
        let approved = admins(&self.approvers()).electors;
        let mut open = admins(&named).electors;
        open.retain(|elector| !self.rejections.contains(&elector.org));
        self.terms.founding.residual(&named, &approved, &open)
    }

    /// Whether the founders could satisfy every policy: those who have approved, or, if everybody who
    /// has not rejected still did, those.
    fn founders_can_govern(&self, if_all_approve: bool) -> bool {
        let orgs = if if_all_approve {
            self.named().into_iter().filter(|org| !self.rejections.contains(org)).collect()
        } else {
            self.approvers()
        };
        let roster = founders(&orgs);
        self.terms.policies.iter().all(|(_, policy)| policy.check_satisfiable(&roster).is_ok())
    }

    /// Whether it could not be approved even if everybody who has not rejected approved.
    fn hopeless(&self) -> bool {
        let few = !self.enough_nodes() && !self.awaits_anybody();
        few || self.residual() == Residual::Impossible || !self.founders_can_govern(true)
    }

    fn decided(&self) -> bool {
        self.enough_nodes() && self.residual() == Residual::Met && self.founders_can_govern(false)
    }

    /// Nodes that those who have approved bring.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.seats().values().sum()
    }

    /// Whether those who have approved bring as many nodes as the engine needs. An approval under the founding policy
    /// decides only once they do.
    #[must_use]
    pub fn enough_nodes(&self) -> bool {
        self.nodes() >= self.terms.engine.least_members()
    }

    /// Whether somebody who is named has not spoken.
    fn awaits_anybody(&self) -> bool {
        let spoken =
            |org: &OrgId| self.rejections.contains(org) || self.approvals.iter().any(|(known, _)| known == org);
        self.named().iter().any(|org| !spoken(org))
    }

    /// Subjects whose policy those who have approved so far could not satisfy by themselves. An
    /// approval under the founding policy decides only once there is none.
    #[must_use]
    pub fn ungovernable(&self) -> Vec<Subject> {
        let roster = founders(&self.approvers());
        let lacking = self.terms.policies.iter().filter(|(_, policy)| policy.check_satisfiable(&roster).is_err());
        lacking.map(|(subject, _)| *subject).collect()
    }

    /// Seats of each founder so far.
    #[must_use]
    pub fn seats(&self) -> BTreeMap<OrgId, usize> {
        self.approvals.iter().map(|(org, hosting)| (*org, hosting.nodes.len())).collect()
    }
}

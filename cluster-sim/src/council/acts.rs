//! What an admin does in a channel.

use channel::policy::Item;
use channel::{AuditGrant, Change, Command as Act, Policy, ProposalState, Quorum, Role, Scope, Subject, state};
use cross_shard::RegistryUpdate;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, OrgId, TimeMs};
use ledger::schema;
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::Council;
use crate::cluster::ORGS;

/// How long a proposal is open.
pub(super) const OPEN_MS: u64 = 20_000;
/// The organisation that comes and goes. All others have two seats, which the quorum cannot spare.
pub(super) const GUEST: OrgId = OrgId(ORGS - 1);

/// A policy of rules in one another that can do without the guest; each organisation proposes another one.
fn nested(by: OrgId) -> Policy {
    let [zero, one] = [0, 1].map(|org| Policy::one(OrgId(org), Role::Admin));
    let members = |quorum| Policy::members(quorum, Role::Admin);
    let rule = |quorum, parts: [Policy; 2]| Policy::rule(quorum, parts.into_iter().map(Item::Sub).collect());
    match by.0 % 3 {
        0 => rule(Quorum::All, [rule(Quorum::Any, [zero, one]), members(Quorum::Majority)]),
        1 => {
            // One of the two has approved twice by it: for itself, and as any member.
            let parts = [zero, one, members(Quorum::Any)];
            Policy::rule(Quorum::AtLeast(2), parts.into_iter().map(Item::Sub).collect())
        }
        _ => rule(Quorum::Any, [members(Quorum::Majority), rule(Quorum::All, [zero, one])]),
    }
}

impl Council {
    fn change(&mut self, view: &mut View<'_>, by: OrgId, now: TimeMs, may_close: bool) -> Change {
        let missing = self.assets.iter().find(|asset| !state::asset_permitted(view, asset)).copied();
        if let Some(asset) = missing.filter(|_| self.rng.random_range(0..4) > 0) {
            return Change::PermitAsset { asset };
        }
        let org = OrgId(self.rng.random_range(0..ORGS));
        let until_ms = TimeMs(now.0 + OPEN_MS);
        match self.rng.random_range(0..14) {
            0..=3 if may_close => Change::Close,
            0 | 1 => Change::Freeze,
            2 | 3 => Change::Thaw,
            4 => Change::Remove { org: GUEST },
            5 => Change::Remove { org },
            6 | 7 => Change::Invite { org: GUEST, until_ms },
            8 | 9 => {
                let flat = [Some(Quorum::Majority), None, Some(Quorum::All), Some(Quorum::Any)].choose(&mut self.rng);
                let subject = [Subject::Freeze, Subject::Membership, Subject::Policy].choose(&mut self.rng).copied();
                let policy = match flat.copied().unwrap_or(Some(Quorum::All)) {
                    Some(quorum) => Policy::members(quorum, Role::Admin),
                    None => nested(by),
                };
                Change::Policy { subject: subject.unwrap_or(Subject::Freeze), policy }
            }
            10 => Change::RevokeKey { org, key: self.some_key(org) },
            11 => Change::GrantAudit(AuditGrant {
                org,
                credential: None,
                scope: Scope::Everything,
                until_ms,
                until_height: None,
            }),
            12 => {
                let grant = state::grants(view).choose(&mut self.rng).map(|record| (record.grant.org, record.id));
                let (org, grant) = grant.unwrap_or((org, Hash32([9; 32])));
                Change::RevokeAudit { org, grant }
            }
            _ => {
                let own = state::member(view, by).map_or_else(Vec::new, |member| member.nodes);
                let nodes: Vec<NodeId> = own.iter().map(|node| node.node).filter(|_| self.rng.random()).collect();
                Change::Anchors { org: by, nodes }
            }
        }
    }

    /// What an organisation does with its own keys and nodes.
    fn own(&mut self, view: &mut View<'_>, by: OrgId) -> Act {
        let keys = state::member(view, by).map_or_else(Vec::new, |member| member.keys);
        let new = self.some_key(by);
        let held = keys.choose(&mut self.rng).map_or(new, |key| key.key);
        match self.rng.random_range(0..8) {
            0..=2 => {
                let role = if self.rng.random_range(0..4) == 0 { Role::Member } else { Role::Admin };
                Act::AddKey { key: new, role }
            }
            3 | 4 => Act::RotateKey { old: held, new },
            5 => Act::RevokeKey { key: held },
            6 => Act::RevokeCertificate { credential: Hash32([self.rng.random_range(0..4); 32]) },
            _ => {
                let known: RegistryUpdate = view.load(&schema::registry_extract()).unwrap_or_default();
                let own = known.nodes.iter().filter(|node| node.org == by).map(|node| node.node);
                Act::SetNodes { nodes: own.filter(|_| self.rng.random_range(0..3) > 0).collect() }
            }
        }
    }

    pub(super) fn act(&mut self, view: &mut View<'_>, by: OrgId, now: TimeMs, may_close: bool) -> Act {
        let until_ms = TimeMs(now.0 + OPEN_MS);
        let mut proposals = state::proposals(view);
        let any = proposals.choose(&mut self.rng).map_or(Hash32([9; 32]), |proposal| proposal.id);
        proposals.retain(|proposal| proposal.state_at(now) == ProposalState::Open && proposal.proposer != by);
        let open = proposals.choose(&mut self.rng).map(|proposal| proposal.id);
        if state::invitation(view, by).is_some() && state::member(view, by).is_none() {
            // Nodes are dealt to organisations in turn.
            let nodes = vec![NodeId(u32::from(by.0))];
            return if self.rng.random_range(0..4) == 0 { Act::Decline } else { Act::Join { nodes } };
        }
        match (self.rng.random_range(0..24), open) {
            (0..=9, Some(proposal)) => Act::Approve { proposal },
            (10, Some(proposal)) => Act::Reject { proposal },
            (11, _) => Act::Withdraw { proposal: any },
            (12, _) => Act::Settle { proposal: any },
            (13, _) => Act::Approve { proposal: any },
            (14, _) if by == GUEST => Act::Leave,
            (15..=17, _) => self.own(view, by),
            (18, _) if may_close => Act::FinishClose,
            _ => Act::Propose { change: self.change(view, by, now, may_close), until_ms },
        }
    }
}

//! Foundings and proposals in words: what a change does, who has spoken, and who is missing. Pure.

use std::collections::BTreeSet;

use channel::policy::Item;
use channel::{
    AuditGrant, Change, Elector, Explanation, Founding, Governance, Phase, Policy, PromiseStanding, Proposal,
    ProposalState, Quorum, Residual, Role, Scope,
};
use ledger::{NodeId, OrgId};
use serde::Serialize;

use crate::commands::signer::Orgs;
use crate::draft::words::and;
use crate::output::moment;

/// Who has spoken on something, and what it still needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Standing {
    /// Who has approved.
    pub(super) approved: Vec<String>,
    /// Who has rejected.
    pub(super) rejected: Vec<String>,
    /// Whose approval can still help; not all of them need be necessary.
    pub(super) missing: Vec<String>,
    /// What is left of the policy, where something is that can still be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<String>,
    /// All of it in a sentence.
    pub(super) needs: String,
}

impl Standing {
    /// What a policy that asks `asked` still needs.
    fn of(
        residual: &Residual,
        asked: usize,
        approved: &BTreeSet<Elector>,
        rejected: &BTreeSet<Elector>,
        orgs: &Orgs,
    ) -> Self {
        let names = |electors: &BTreeSet<Elector>| electors.iter().map(|one| elector(one, orgs)).collect::<Vec<_>>();
        let mut open = BTreeSet::new();
        let (left, tail) = match residual {
            Residual::Met => (None, "nobody is missing".to_owned()),
            Residual::Impossible => (None, "the policy cannot be satisfied any more".to_owned()),
            Residual::Open(policy) => {
                gather(policy, &mut open);
                let text = policy.text(&|org| orgs.known(org));
                let tail = match flat(policy) {
                    Some((Quorum::All, electors)) => missing(&electors, orgs),
                    Some((quorum, electors)) => {
                        let list = electors.iter().map(|one| elector(one, orgs)).collect::<Vec<_>>();
                        match quorum.needed(electors.len()) {
                            needed if needed == electors.len() => missing(&electors, orgs),
                            1 => format!("one of {} has to approve", list.join(", ")),
                            needed => format!("{needed} of {} have to approve", list.join(", ")),
                        }
                    }
                    None => format!("it still needs {text}"),
                };
                (Some(text), tail)
            }
        };
        let verb = if approved.len() == 1 { "has" } else { "have" };
        Self {
            needs: format!("{} of {asked} {verb} approved; {tail}", approved.len()),
            approved: names(approved),
            rejected: names(rejected),
            missing: names(&open),
            left,
        }
    }

    /// What a founding still needs.
    pub(super) fn of_founding(founding: &Founding, orgs: &Orgs) -> Self {
        let admin = |org: OrgId| Elector { org, role: Role::Admin };
        let named = founding.named();
        let asked = named.iter().filter(|org| founding.terms.founding.names(&named, &admin(**org))).count();
        let approved = founding.approvals.iter().map(|(org, _)| admin(*org)).collect();
        let rejected = founding.rejections.iter().map(|org| admin(*org)).collect();
        let mut standing = Self::of(&founding.residual(), asked, &approved, &rejected, orgs);
        let lacking: Vec<&str> = founding.ungovernable().into_iter().map(channel::Subject::word).collect();
        if founding.phase == Phase::Proposed && founding.residual() == Residual::Met && !lacking.is_empty() {
            // The founding policy holds, and still the next approval decides: see `channel::founding`.
            let more = named.into_iter().map(admin).filter(|one| !approved.contains(one) && !rejected.contains(one));
            standing.missing = more.map(|one| elector(&one, orgs)).collect();
            standing.needs = format!(
                "those who have approved cannot satisfy the policy of {} by themselves; {} may still approve",
                and(&lacking),
                and(&standing.missing)
            );
        }
        standing
    }

    /// What a proposal still needs. Of who has spoken, members count; that a key was revoked meanwhile is
    /// not among what members are shown, so a voice by one counts here until the channel judges.
    pub(super) fn of_proposal(governance: &Governance, proposal: &Proposal, orgs: &Orgs) -> Self {
        let roster = channel::state::roster(&governance.members);
        let heard = |voices: &[channel::proposal::Voice]| -> BTreeSet<Elector> {
            let electors = voices.iter().map(|voice| voice.elector);
            electors.filter(|one| roster.members.contains(&one.org)).collect()
        };
        let (approved, rejected) = (heard(&proposal.approvals), heard(&proposal.rejections));
        let open: BTreeSet<Elector> = roster.electors.difference(&rejected).copied().collect();
        let subject = proposal.change.subject();
        let policy = governance.policies.iter().find(|(of, _)| *of == subject).map(|(_, policy)| policy);
        let residual = policy.map_or(Residual::Impossible, |policy| policy.residual(&roster.members, &approved, &open));
        let asks = |one: &&Elector| policy.is_some_and(|policy| policy.names(&roster.members, one));
        Self::of(&residual, roster.electors.iter().filter(asks).count(), &approved, &rejected, orgs)
    }

    /// What a proposal still needs, as the channel judges it.
    pub(super) fn of_explanation(said: &Explanation, orgs: &Orgs) -> Self {
        let members: BTreeSet<OrgId> = said.members.iter().copied().collect();
        let asked = said.electors.iter().filter(|one| said.policy.names(&members, one)).count();
        let set = |electors: &[Elector]| electors.iter().copied().collect::<BTreeSet<Elector>>();
        Self::of(&said.residual(), asked, &set(&said.approved), &set(&said.rejected), orgs)
    }
}

/// "org-b and org-c are missing".
fn missing(electors: &[Elector], orgs: &Orgs) -> String {
    let list: Vec<String> = electors.iter().map(|one| elector(one, orgs)).collect();
    let verb = if list.len() == 1 { "is" } else { "are" };
    format!("{} {verb} missing", and(&list))
}

/// An elector: its organisation, with the role where it is not the admin.
pub(super) fn elector(elector: &Elector, orgs: &Orgs) -> String {
    let name = orgs.name(elector.org);
    if elector.role == Role::Admin { name } else { format!("{name} ({})", elector.role.word()) }
}

/// Every elector that a policy names one by one.
fn gather(policy: &Policy, into: &mut BTreeSet<Elector>) {
    match policy {
        Policy::One(elector) => {
            into.insert(*elector);
        }
        Policy::Rule { items, .. } => {
            for item in items {
                if let Item::Sub(policy) = item {
                    gather(policy, into);
                }
            }
        }
    }
}

/// A policy that is one rule over electors.
fn flat(policy: &Policy) -> Option<(Quorum, Vec<Elector>)> {
    match policy {
        Policy::One(elector) => Some((Quorum::All, vec![*elector])),
        Policy::Rule { quorum, items } => {
            let one = |item: &Item| match item {
                Item::Sub(Policy::One(elector)) => Some(*elector),
                Item::Sub(Policy::Rule { .. }) | Item::Each(_) => None,
            };
            Some((*quorum, items.iter().map(one).collect::<Option<Vec<_>>>()?))
        }
    }
}

/// The word for where a proposal stands.
pub(super) fn state_word(state: ProposalState) -> &'static str {
    match state {
        ProposalState::Open => "open",
        ProposalState::Applied => "applied",
        ProposalState::Rejected => "rejected",
        ProposalState::Withdrawn => "withdrawn",
        ProposalState::Expired => "expired",
        ProposalState::Superseded => "superseded",
    }
}

/// The word for how far a channel has come.
pub(super) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Proposed => "proposed",
        Phase::Approved => "approved",
        Phase::Running => "running",
        Phase::Frozen => "frozen",
        Phase::Closing => "closing",
        Phase::Closed => "closed",
        Phase::Abandoned => "abandoned",
    }
}

/// The word for how far a channel is with what its founding promised.
pub(super) fn promise_word(standing: PromiseStanding) -> &'static str {
    match standing {
        PromiseStanding::Waits => "waits",
        PromiseStanding::Kept { .. } => "kept",
        PromiseStanding::Superseded { .. } => "superseded",
    }
}

/// Nodes as a list.
fn list(nodes: &[NodeId]) -> String {
    if nodes.is_empty() {
        return "none".to_owned();
    }
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What a change does.
pub(super) fn change(change: &Change, orgs: &Orgs) -> String {
    match change {
        Change::Invite { org, until_ms } => {
            format!("invite {}, which may join until {}", orgs.name(*org), moment(until_ms.0))
        }
        Change::Remove { org } => format!("remove {}", orgs.name(*org)),
        Change::Anchors { org, nodes } => format!("anchors of {}: {}", orgs.name(*org), list(nodes)),
        Change::Policy { subject, policy } => {
            format!("the policy of {} becomes {}", subject.word(), policy.text(&|org| orgs.known(org)))
        }
        Change::Freeze => "freeze the channel".to_owned(),
        Change::Thaw => "thaw the channel".to_owned(),
        Change::Close => "close the channel for good".to_owned(),
        Change::PermitAsset { asset } => format!("permit the asset {asset}"),
        Change::GrantAudit(grant) => format!("let {}", audit(grant, orgs)),
        Change::RevokeAudit { org, grant } => format!("end the audit grant {grant} of {}", orgs.name(*org)),
        Change::RevokeKey { org, key } => format!("revoke the key {key} of {}", orgs.name(*org)),
        Change::Engine { engine } => format!("go on under {engine}"),
    }
}

/// Who may read what, and until when.
pub(super) fn audit(grant: &AuditGrant, orgs: &Orgs) -> String {
    let who = match &grant.credential {
        Some(credential) => format!("the auditor of {} with the certificate {credential}", orgs.name(grant.org)),
        None => format!("auditors of {}", orgs.name(grant.org)),
    };
    format!("{who} read {} until {}", scope(&grant.scope), moment(grant.until_ms.0))
}

/// What may be read.
fn scope(scope: &Scope) -> String {
    fn joined<T: ToString>(what: &str, items: &[T]) -> String {
        format!("the {what} {}", and(&items.iter().map(ToString::to_string).collect::<Vec<_>>()))
    }
    match scope {
        Scope::Everything => "everything".to_owned(),
        Scope::Accounts(accounts) => joined("accounts", accounts),
        Scope::Assets(assets) => joined("assets", assets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orgs() -> Orgs {
        Orgs::named(&["org-a", "org-b", "org-c"])
    }

    fn admins(ids: &[u16]) -> BTreeSet<Elector> {
        ids.iter().map(|id| Elector { org: OrgId(*id), role: Role::Admin }).collect()
    }

    /// What is said of a policy over three members of which `approved` have approved and `rejected` rejected.
    fn said(text: &str, approved: &[u16], rejected: &[u16]) -> (String, Vec<String>) {
        let policy = Policy::parse(text, &|name| orgs().by_name(name)).unwrap();
        let members = (1..=3).map(OrgId).collect();
        let (approved, rejected) = (admins(approved), admins(rejected));
        let open = admins(&[1, 2, 3]).difference(&rejected).copied().collect();
        let standing = Standing::of(&policy.residual(&members, &approved, &open), 3, &approved, &rejected, &orgs());
        (standing.needs, standing.missing)
    }

    #[test]
    fn what_is_missing_is_said_in_a_sentence() {
        let cases: [(&str, &[u16], &[u16], &str, &[&str]); 8] = [
            ("all(members.admin)", &[1, 2], &[], "2 of 3 have approved; org-c is missing", &["org-c"]),
            ("all(members.admin)", &[1], &[], "1 of 3 has approved; org-b and org-c are missing", &["org-b", "org-c"]),
            (
                "majority(members.admin)",
                &[1],
                &[],
                "1 of 3 has approved; one of org-b, org-c has to approve",
                &["org-b", "org-c"],
            ),
            (
                "majority(members.admin)",
                &[],
                &[],
                "0 of 3 have approved; 2 of org-a, org-b, org-c have to approve",
                &["org-a", "org-b", "org-c"],
            ),
            ("majority(members.admin)", &[1], &[2], "1 of 3 has approved; org-c is missing", &["org-c"]),
            ("majority(members.admin)", &[1, 3], &[], "2 of 3 have approved; nobody is missing", &[]),
            ("all(members.admin)", &[1], &[2], "1 of 3 has approved; the policy cannot be satisfied any more", &[]),
            (
                "any(org-b.admin, all(org-a.admin, org-c.admin))",
                &[],
                &[],
                "0 of 3 have approved; it still needs any(org-b.admin, all(org-a.admin, org-c.admin))",
                &["org-a", "org-b", "org-c"],
            ),
        ];
        for (text, approved, rejected, sentence, missing) in cases {
            let (found, names) = said(text, approved, rejected);
            assert_eq!(found, sentence, "{text}");
            assert_eq!(names, missing, "{text}");
        }
    }

    #[test]
    fn changes_name_organisations_as_people_do() {
        let policy = Policy::parse("any(org-b.admin, #9.node)", &|name| orgs().by_name(name)).unwrap();
        let subject = channel::Subject::Freeze;
        assert_eq!(
            change(&Change::Policy { subject, policy }, &orgs()),
            "the policy of freeze becomes any(org-b.admin, #9.node)"
        );
        assert_eq!(change(&Change::Remove { org: OrgId(3) }, &orgs()), "remove org-c");
        assert_eq!(change(&Change::Remove { org: OrgId(9) }, &orgs()), "remove 9");
        let none = Change::Anchors { org: OrgId(1), nodes: Vec::new() };
        assert_eq!(change(&none, &orgs()), "anchors of org-a: none");
    }
}

//! Whether a policy holds, worked out from what the policy says and from nothing of the code that decides by it.

use std::collections::BTreeSet;

use channel::policy::Item;
use channel::{Policy, Quorum, Role};
use ledger::ids::OrgId;

/// Whether a policy holds among these members when the admins of these organisations have approved, and nobody else. Who is no
/// member counts for nothing.
pub(super) fn holds(policy: &Policy, members: &BTreeSet<OrgId>, approved: &BTreeSet<OrgId>) -> bool {
    let says = |org: &OrgId, role: Role| role == Role::Admin && members.contains(org) && approved.contains(org);
    let (quorum, items) = match policy {
        Policy::One(elector) => return says(&elector.org, elector.role),
        Policy::Rule { quorum, items } => (quorum, items),
    };
    let mut answers: Vec<bool> = Vec::new();
    for item in items {
        match item {
            Item::Each(role) => answers.extend(members.iter().map(|org| says(org, *role))),
            Item::Sub(part) => answers.push(holds(part, members, approved)),
        }
    }
    let yes = answers.iter().filter(|answer| **answer).count();
    !answers.is_empty()
        && match quorum {
            Quorum::Any => yes > 0,
            Quorum::All => yes == answers.len(),
            Quorum::Majority => 2 * yes > answers.len(),
            Quorum::AtLeast(count) => yes >= usize::from(*count),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orgs(orgs: &[u16]) -> BTreeSet<OrgId> {
        orgs.iter().copied().map(OrgId).collect()
    }

    #[test]
    fn a_policy_holds_with_as_many_as_it_asks_for_and_not_with_one_less() {
        let admins = |quorum| Policy::members(quorum, Role::Admin);
        let one = |org| Policy::one(OrgId(org), Role::Admin);
        let rule = |quorum, parts: Vec<Policy>| Policy::rule(quorum, parts.into_iter().map(Item::Sub).collect());
        for (what, policy, holds_with, lacks_with) in [
            ("any", admins(Quorum::Any), &[2][..], &[][..]),
            ("most of four", admins(Quorum::Majority), &[0, 1, 2][..], &[0, 1][..]),
            ("all", admins(Quorum::All), &[0, 1, 2, 3][..], &[0, 1, 2][..]),
            ("two of them", admins(Quorum::AtLeast(2)), &[1, 3][..], &[1][..]),
            ("a certain one", one(1), &[1][..], &[0, 2, 3][..]),
            ("no members", Policy::members(Quorum::Any, Role::Member), &[][..], &[0, 1, 2, 3][..]),
            ("both of two", rule(Quorum::All, vec![one(0), one(1)]), &[0, 1][..], &[0, 2, 3][..]),
            (
                "one of two and most",
                rule(Quorum::All, vec![rule(Quorum::Any, vec![one(0), one(1)]), admins(Quorum::Majority)]),
                &[1, 2, 3][..],
                &[0, 1][..],
            ),
        ] {
            let members = orgs(&[0, 1, 2, 3]);
            if !holds_with.is_empty() {
                assert!(holds(&policy, &members, &orgs(holds_with)), "{what}");
            }
            assert!(!holds(&policy, &members, &orgs(lacks_with)), "{what}");
            let gone = orgs(&[7]);
            assert!(!holds(&policy, &gone, &orgs(holds_with)), "{what}: none of them is a member any more");
        }
    }
}

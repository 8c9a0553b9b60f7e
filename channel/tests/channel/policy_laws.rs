//! Laws of the policy language.

use std::collections::BTreeSet;

use channel::limits::POLICY_DEPTH_MAX;
use channel::policy::{Item, PolicyFault};
use channel::{Elector, Policy, Quorum, Residual, Role, Roster};
use ledger::ids::OrgId;
use proptest::prelude::*;

const ORGS: u16 = 5;

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Admin), Just(Role::Member), Just(Role::Node)]
}

fn elector() -> impl Strategy<Value = Elector> {
    (1..=ORGS, role()).prop_map(|(org, role)| Elector { org: OrgId(org), role })
}

fn electors() -> impl Strategy<Value = BTreeSet<Elector>> {
    prop::collection::btree_set(elector(), 0..15)
}

fn orgs() -> impl Strategy<Value = BTreeSet<OrgId>> {
    prop::collection::btree_set((1..=ORGS).prop_map(OrgId), 1..=usize::from(ORGS))
}

/// Any policy in form. Numbers are cut to what the list has; what would count twice is left out.
fn policy() -> impl Strategy<Value = Policy> {
    let leaf = elector().prop_map(Policy::One);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let item = prop_oneof![4 => inner.prop_map(Item::Sub), 1 => role().prop_map(Item::Each)];
        (0..4u8, any::<u16>(), prop::collection::vec(item, 1..5)).prop_map(|(kind, count, mut items)| {
            let listed: Vec<Role> =
                items.iter().filter_map(|item| if let Item::Each(role) = item { Some(*role) } else { None }).collect();
            items.retain(|item| !matches!(item, Item::Sub(Policy::One(e)) if listed.contains(&e.role)));
            items.sort();
            items.dedup();
            let quorum = match kind {
                0 => Quorum::Any,
                1 => Quorum::All,
                2 => Quorum::Majority,
                _ => Quorum::AtLeast(count % u16::try_from(items.len()).unwrap() + 1),
            };
            Policy::rule(quorum, items)
        })
    })
}

fn fixed() -> impl Strategy<Value = Vec<Policy>> {
    prop::collection::btree_set(elector().prop_map(Policy::One), 1..6).prop_map(|set| set.into_iter().collect())
}

fn of(quorum: Quorum, policies: &[Policy]) -> Policy {
    Policy::rule(quorum, policies.iter().cloned().map(Item::Sub).collect())
}

proptest! {
    #[test]
    fn every_policy_made_here_is_in_form(policy in policy()) {
        prop_assert_eq!(policy.form(), Ok(()));
    }

    #[test]
    fn a_further_approval_never_takes_a_yes_back(
        policy in policy(), members in orgs(), some in electors(), more in electors(),
    ) {
        let both = some.union(&more).copied().collect();
        prop_assert!(!policy.holds(&members, &some) || policy.holds(&members, &both));
    }

    #[test]
    fn nobody_decides_alone_and_outsiders_never_count(policy in policy(), members in orgs(), some in electors()) {
        prop_assert!(!policy.holds(&members, &BTreeSet::new()));
        let inside = some.iter().filter(|elector| members.contains(&elector.org)).copied().collect();
        prop_assert_eq!(policy.holds(&members, &some), policy.holds(&members, &inside));
    }

    #[test]
    fn text_and_bytes_give_the_same_policy_back(policy in policy()) {
        let name = |org: OrgId| org.0.is_multiple_of(2).then(|| format!("org_{org}"));
        let org = |name: &str| name.strip_prefix("org_")?.parse().ok().map(OrgId);
        prop_assert_eq!(Policy::parse(&policy.text(&name), &org), Ok(policy.clone()));
        prop_assert_eq!(Policy::parse(&policy.to_string(), &|_| None), Ok(policy.clone()));
        let bytes = borsh::to_vec(&policy).unwrap();
        prop_assert_eq!(borsh::from_slice::<Policy>(&bytes).unwrap(), policy);
    }

    #[test]
    fn reading_never_panics_and_only_reads_canonical_bytes(bytes in prop::collection::vec(0u8..6, 0..64)) {
        let mut bytes = bytes;
        bytes.insert(0, 1);
        if let Ok(policy) = borsh::from_slice::<Policy>(&bytes) {
            prop_assert_eq!(policy.form(), Ok(()));
            prop_assert_eq!(borsh::to_vec(&policy).unwrap(), bytes);
        }
    }

    #[test]
    fn parsing_never_panics(text in "[a-z#.(), 0-9é-]{0,60}") {
        let _read = Policy::parse(&text, &|_| Some(OrgId(1)));
    }

    #[test]
    fn a_majority_is_one_more_than_half(list in fixed(), members in orgs(), some in electors()) {
        let half = u16::try_from(list.len() / 2 + 1).unwrap();
        prop_assert_eq!(
            of(Quorum::Majority, &list).holds(&members, &some),
            of(Quorum::AtLeast(half), &list).holds(&members, &some)
        );
        let half = u16::try_from(members.len() / 2 + 1).unwrap();
        prop_assert_eq!(
            Policy::members(Quorum::Majority, Role::Admin).holds(&members, &some),
            Policy::members(Quorum::AtLeast(half), Role::Admin).holds(&members, &some)
        );
    }

    #[test]
    fn any_is_one_and_all_is_each(list in fixed(), members in orgs(), some in electors()) {
        let n = u16::try_from(list.len()).unwrap();
        let holds = |quorum| of(quorum, &list).holds(&members, &some);
        prop_assert_eq!(holds(Quorum::Any), holds(Quorum::AtLeast(1)));
        prop_assert_eq!(holds(Quorum::All), holds(Quorum::AtLeast(n)));
        prop_assert_eq!(holds(Quorum::Any), list.iter().any(|policy| policy.holds(&members, &some)));
        prop_assert_eq!(holds(Quorum::All), list.iter().all(|policy| policy.holds(&members, &some)));
    }

    #[test]
    fn nesting(one in policy(), two in policy(), three in policy(), members in orgs(), some in electors()) {
        let holds = |policy: &Policy| policy.holds(&members, &some);
        for quorum in [Quorum::Any, Quorum::All] {
            let nested = of(quorum, &[of(quorum, &[one.clone(), two.clone()]), three.clone()]);
            let flat = of(quorum, &[one.clone(), two.clone(), three.clone()]);
            prop_assert_eq!(holds(&nested), holds(&flat), "associative");
        }
        for quorum in [Quorum::Any, Quorum::All, Quorum::Majority, Quorum::AtLeast(1)] {
            prop_assert_eq!(holds(&of(quorum, std::slice::from_ref(&one))), holds(&one), "alone");
        }
        let left = of(Quorum::All, &[one.clone(), of(Quorum::Any, &[two.clone(), three.clone()])]);
        let right = of(Quorum::Any, &[of(Quorum::All, &[one.clone(), two]), of(Quorum::All, &[one, three])]);
        prop_assert_eq!(holds(&left), holds(&right), "distributive");
    }

    #[test]
    fn the_residual_is_exactly_what_is_left(
        policy in policy(), members in orgs(), given in electors(), open in electors(), then in electors(),
    ) {
        let then: BTreeSet<Elector> = then.intersection(&open).copied().collect();
        let after = |more: &BTreeSet<Elector>| policy.holds(&members, &given.union(more).copied().collect());
        match policy.residual(&members, &given, &open) {
            Residual::Met => prop_assert!(policy.holds(&members, &given)),
            Residual::Impossible => prop_assert!(!after(&open)),
            Residual::Open(left) => {
                prop_assert!(!policy.holds(&members, &given));
                prop_assert_eq!(left.holds(&members, &then), after(&then));
                let enough = left.sufficient();
                prop_assert!(enough.is_subset(&open) && enough.is_disjoint(&given));
                prop_assert!(after(&enough), "{} of {}", left, policy);
            }
        }
    }

    #[test]
    fn what_passes_the_check_can_be_satisfied(policy in policy(), members in orgs(), some in electors()) {
        let electors: BTreeSet<Elector> = some.into_iter().filter(|elector| members.contains(&elector.org)).collect();
        let roster = Roster { members: members.clone(), electors: electors.clone() };
        match policy.check(&roster) {
            Ok(()) => prop_assert!(policy.holds(&members, &electors)),
            Err(PolicyFault::Unsatisfiable) => prop_assert!(!policy.holds(&members, &electors)),
            Err(PolicyFault::NotMember(org)) => prop_assert!(!members.contains(&org)),
            Err(PolicyFault::Count { needed, of }) => prop_assert!(needed > of),
            Err(fault) => prop_assert!(false, "{} is in form: {}", policy, fault),
        }
    }
}

#[test]
fn unsatisfiable_policies_are_refused_with_the_reason() {
    let members: BTreeSet<OrgId> = [1, 2].map(OrgId).into();
    let electors = members.iter().map(|org| Elector { org: *org, role: Role::Admin }).collect();
    let roster = Roster { members, electors };
    let check = |text: &str| Policy::parse(text, &|_| None).unwrap().check(&roster);
    assert_eq!(check("all(members.admin)"), Ok(()));
    assert_eq!(check("k-of(2, members.admin)"), Ok(()));
    assert_eq!(check("k-of(3, members.admin)"), Err(PolicyFault::Count { needed: 3, of: 2 }));
    assert_eq!(check("any(#1.admin, k-of(3, members.admin))"), Err(PolicyFault::Count { needed: 3, of: 2 }));
    assert_eq!(check("any(#1.admin, #3.admin)"), Err(PolicyFault::NotMember(OrgId(3))));
    assert_eq!(check("all(#1.admin, #1.node)"), Err(PolicyFault::Unsatisfiable));
    assert_eq!(check("#1.auditor"), Err(PolicyFault::Unsatisfiable));
    assert_eq!(check("any(#1.admin, #1.auditor)"), Ok(()));
}

#[test]
fn bytes_that_nest_for_ever_are_refused_before_they_are_built() {
    let mut bytes = vec![1];
    for _ in 0..2000 {
        bytes.extend_from_slice(&[1, 0, 1, 0, 1]);
    }
    let error = borsh::from_slice::<Policy>(&bytes).unwrap_err();
    assert!(error.to_string().contains(&format!("more than {POLICY_DEPTH_MAX} deep")), "{error}");
    let wide = [vec![1, 1, 0, 0xFF, 0xFF], [0, 0].repeat(65535)].concat();
    assert!(borsh::from_slice::<Policy>(&wide).unwrap_err().to_string().contains("more than 128"));
}

#[test]
fn over_nobody_nothing_holds() {
    let nobody = BTreeSet::new();
    for quorum in [Quorum::Any, Quorum::All, Quorum::Majority, Quorum::AtLeast(1)] {
        let policy = Policy::members(quorum, Role::Admin);
        assert!(!policy.holds(&nobody, &BTreeSet::new()), "{policy}");
        assert_eq!(policy.residual(&nobody, &BTreeSet::new(), &BTreeSet::new()), Residual::Impossible);
    }
}

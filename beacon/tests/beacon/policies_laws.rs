//! Nothing is decided whose approvals do not satisfy the policy of that moment, whatever organisations send: every outcome
//! is that of a model with an arithmetic of its own.

use std::collections::{BTreeMap, BTreeSet};

use beacon::command::BeaconCommand;
use beacon::machine::CommandOutcome;
use beacon::policies::{Matter, PolicyChange, ruled};
use channel::policy::Item;
use channel::{Policy, Quorum, Role};
use ledger::genesis::Genesis;
use ledger::ids::OrgId;
use ledger::reject::Reject;
use ledger::view::View;
use proptest::prelude::*;

use crate::nodes::World;
use crate::policies::{members, named};
use crate::support::{genesis, org};

const WITHIN_MS: u64 = 60_000;
/// Organisations 1 to 3 have all the seats, 4 to 6 have none, and 7 to 9 may join.
const FIRST: std::ops::RangeInclusive<u16> = 1..=6;
const MATTERS: [Matter; 3] = [Matter::Orgs, Matter::Policy, Matter::Quarantine];

/// Whether the approvals of admins satisfy a policy.
fn holds(policy: &Policy, orgs: &BTreeSet<u16>, approved: &BTreeSet<u16>) -> bool {
    let says = |org: u16, role: Role| role == Role::Admin && orgs.contains(&org) && approved.contains(&org);
    let (quorum, items) = match policy {
        Policy::One(elector) => return says(elector.org.0, elector.role),
        Policy::Rule { quorum, items } => (quorum, items),
    };
    let mut answers: Vec<bool> = Vec::new();
    for item in items {
        match item {
            Item::Each(role) => answers.extend(orgs.iter().map(|org| says(*org, *role))),
            Item::Sub(part) => answers.push(holds(part, orgs, approved)),
        }
    }
    let yes = answers.iter().filter(|answer| **answer).count();
    match quorum {
        Quorum::Any => yes > 0,
        Quorum::All => !answers.is_empty() && yes == answers.len(),
        Quorum::Majority => 2 * yes > answers.len(),
        Quorum::AtLeast(count) => yes >= usize::from(*count),
    }
}

/// Whether a policy asks an organisation.
fn asks(policy: &Policy, orgs: &BTreeSet<u16>, org: u16) -> bool {
    match policy {
        Policy::One(elector) => elector.org.0 == org && elector.role == Role::Admin,
        Policy::Rule { items, .. } => items.iter().any(|item| match item {
            Item::Each(role) => *role == Role::Admin && orgs.contains(&org),
            Item::Sub(part) => asks(part, orgs, org),
        }),
    }
}

/// Whether a policy names only organisations there are, and no rule asks for more than it lists.
fn sound(policy: &Policy, orgs: &BTreeSet<u16>) -> bool {
    let (quorum, items) = match policy {
        Policy::One(elector) => return orgs.contains(&elector.org.0),
        Policy::Rule { quorum, items } => (quorum, items),
    };
    let of: usize = items.iter().map(|item| if matches!(item, Item::Each(_)) { orgs.len() } else { 1 }).sum();
    let enough = match quorum {
        Quorum::Any | Quorum::All | Quorum::Majority => of > 0,
        Quorum::AtLeast(count) => usize::from(*count) <= of,
    };
    let parts = items.iter().all(|item| match item {
        Item::Each(_) => true,
        Item::Sub(part) => sound(part, orgs),
    });
    enough && parts
}

#[derive(Clone, Debug)]
enum Step {
    Join(u16),
    Leave(u16),
    /// A policy for one of the matters, made on a revision that is so far behind.
    Rule(usize, Policy, u64),
    Wait(u64),
}

fn quorum() -> impl Strategy<Value = Quorum> {
    prop_oneof![
        2 => Just(Quorum::Any),
        1 => Just(Quorum::All),
        3 => Just(Quorum::Majority),
        2 => (1u16..=6).prop_map(Quorum::AtLeast),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let of_named = |(quorum, orgs): (Quorum, BTreeSet<u16>)| {
        let orgs: Vec<u16> = orgs.into_iter().collect();
        let at_most = |count: u16| count.min(u16::try_from(orgs.len()).unwrap());
        let quorum = if let Quorum::AtLeast(count) = quorum { Quorum::AtLeast(at_most(count)) } else { quorum };
        named(quorum, &orgs)
    };
    let some = || (quorum(), prop::collection::btree_set(1u16..=8, 1..4)).prop_map(of_named);
    prop_oneof![
        6 => quorum().prop_map(members),
        3 => some(),
        2 => (some(), quorum()).prop_map(|(one, other)| {
            Policy::rule(Quorum::Any, vec![Item::Sub(one), Item::Sub(members(other))])
        }),
        2 => (some(), quorum()).prop_map(|(one, other)| {
            Policy::rule(Quorum::All, vec![Item::Sub(one), Item::Sub(members(other))])
        }),
        1 => Just(Policy::members(Quorum::Any, Role::Member)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (4u16..=9).prop_map(Step::Join),
        4 => (4u16..=9).prop_map(Step::Leave),
        1 => (0..MATTERS.len(), policy(), prop_oneof![5 => Just(0u64), 1 => Just(1u64)])
            .prop_map(|(matter, policy, behind)| Step::Rule(matter, policy, behind)),
        1 => (1u64..WITHIN_MS).prop_map(Step::Wait),
    ]
}

/// Several organisations, one after the other, send the same.
fn steps() -> impl Strategy<Value = Vec<(Step, Vec<u16>)>> {
    prop::collection::vec((step(), prop::collection::vec(1u16..=9, 1..6)), 1..30)
}

/// What the tests themselves think of it.
struct Model {
    orgs: BTreeSet<u16>,
    gone: BTreeSet<u16>,
    ruled: BTreeMap<Matter, (u64, Policy)>,
    /// By what is asked for: until when, and who has approved.
    open: BTreeMap<String, (u64, BTreeSet<u16>)>,
}

/// What a command comes to: in force, or noted with so many approvals that count.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Noted(usize),
}

impl Model {
    fn new() -> Self {
        let ruled = MATTERS.map(|matter| (matter, (0u64, members(Quorum::Majority))));
        Self { orgs: FIRST.collect(), gone: BTreeSet::new(), ruled: ruled.into(), open: BTreeMap::new() }
    }

    /// Whether these organisations could satisfy all policies.
    fn bear(&self, orgs: &BTreeSet<u16>) -> bool {
        self.ruled.values().all(|(_, policy)| holds(policy, orgs, orgs))
    }

    fn approve(&mut self, by: u16, matter: Matter, asked: String, now: u64) -> Result<Fate, Reject> {
        let policy = &self.ruled[&matter].1;
        if !asks(policy, &self.orgs, by) {
            return Err(Reject::PolicyNotAsked);
        }
        let known = self.open.get(&asked).filter(|(until, _)| *until >= now).cloned();
        let (until, mut approvals) = known.unwrap_or((now + WITHIN_MS, BTreeSet::new()));
        approvals.insert(by);
        approvals.retain(|org| self.orgs.contains(org));
        if holds(policy, &self.orgs, &approvals) {
            self.open.remove(&asked);
            return Ok(Fate::Done);
        }
        let counted = approvals.iter().filter(|org| asks(policy, &self.orgs, **org)).count();
        self.open.insert(asked, (until, approvals));
        Ok(Fate::Noted(counted))
    }

    fn send(&mut self, by: u16, step: &Step, now: u64) -> Result<Fate, Reject> {
        if !self.orgs.contains(&by) {
            return Err(Reject::Registry);
        }
        match step {
            Step::Wait(_) => Ok(Fate::Done),
            Step::Join(id) => {
                let with: BTreeSet<u16> = self.orgs.iter().copied().chain([*id]).collect();
                if self.orgs.contains(id) || self.gone.contains(id) {
                    return Err(Reject::Registry);
                }
                if !self.bear(&with) {
                    return Err(Reject::PolicyBlocks);
                }
                let fate = self.approve(by, Matter::Orgs, format!("join {id}"), now)?;
                if fate == Fate::Done {
                    self.orgs = with;
                }
                Ok(fate)
            }
            Step::Leave(id) => {
                let without: BTreeSet<u16> = self.orgs.iter().copied().filter(|org| org != id).collect();
                if !self.orgs.contains(id) {
                    return Err(Reject::Registry);
                }
                if !self.bear(&without) {
                    return Err(Reject::PolicyBlocks);
                }
                let fate = self.approve(by, Matter::Orgs, format!("leave {id}"), now)?;
                if fate == Fate::Done {
                    self.orgs = without;
                    self.gone.insert(*id);
                }
                Ok(fate)
            }
            Step::Rule(matter, policy, behind) => {
                let matter = MATTERS[*matter];
                let (revision, before) = self.ruled[&matter].clone();
                if *policy == before {
                    return Ok(Fate::Done);
                }
                if *behind > 0 && revision > 0 {
                    return Err(Reject::PolicyStale);
                }
                if !sound(policy, &self.orgs) || !holds(policy, &self.orgs, &self.orgs) {
                    return Err(Reject::PolicyUnsatisfiable);
                }
                let fate = self.approve(by, Matter::Policy, format!("{matter:?} {policy} on {revision}"), now)?;
                if fate == Fate::Done {
                    self.ruled.insert(matter, (revision + 1, policy.clone()));
                }
                Ok(fate)
            }
        }
    }
}

fn command(model: &Model, step: &Step) -> Option<BeaconCommand> {
    Some(match step {
        Step::Wait(_) => return None,
        Step::Join(id) => BeaconCommand::RegisterOrg(org(*id)),
        Step::Leave(id) => BeaconCommand::RemoveOrg { org: OrgId(*id) },
        Step::Rule(matter, policy, behind) => {
            let matter = MATTERS[*matter];
            let base = model.ruled[&matter].0.saturating_sub(*behind);
            BeaconCommand::SetPolicy(PolicyChange { matter, base, policy: policy.clone() })
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_is_decided_that_its_policy_does_not_hold_for(steps in steps()) {
        let mut world = World::of(Genesis { orgs: FIRST.map(org).collect(), ..genesis() });
        let mut model = Model::new();
        for (step, senders) in steps {
            if let Step::Wait(ms) = step {
                world.now += ms;
            }
            for by in senders {
                let Some(command) = command(&model, &step) else { continue };
                let expected = model.send(by, &step, world.now);
                let found = world.command(by, &command).map(|executed| match executed.outcome {
                    CommandOutcome::Applied => Fate::Done,
                    CommandOutcome::Pending { approvals, needed } => {
                        assert!(approvals < needed, "whoever waits is told for how many");
                        Fate::Noted(usize::from(approvals))
                    }
                    other => panic!("{other:?}"),
                });
                prop_assert_eq!(found, expected, "{:?} by {}", command, by);
                let orgs: BTreeSet<u16> = world.view().orgs.iter().map(|org| org.id.0).collect();
                prop_assert_eq!(&orgs, &model.orgs);
                let mut view = View::new(&world.state);
                for (matter, (revision, policy)) in &model.ruled {
                    let there = ruled(&mut view, *matter);
                    prop_assert_eq!((there.revision, &there.policy), (*revision, policy));
                    prop_assert!(holds(policy, &orgs, &orgs), "nobody can be locked out");
                }
            }
        }
    }
}

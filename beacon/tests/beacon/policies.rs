//! Policies of the cluster: which approvals are enough by which, how one is changed, and what cannot be.

use beacon::command::BeaconCommand;
use beacon::machine::CommandOutcome;
use beacon::policies::book::{Asked, PolicyBook};
use beacon::policies::{Matter, PolicyChange, Ruled, default_policy, policy_key, ruled};
use beacon::{JobKind, genesis as first_state};
use channel::policy::Item;
use channel::{Policy, Quorum, Role};
use ledger::genesis::Genesis;
use ledger::ids::{NodeId, OrgId};
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::{SHARDS, SPLIT, seven};
use crate::nodes::World;
use crate::support::{genesis, org};

const WITHIN_MS: u64 = 60_000;
const DONE: Result<CommandOutcome, Reject> = Ok(CommandOutcome::Applied);

fn waits(approvals: u16, needed: u16) -> Result<CommandOutcome, Reject> {
    Ok(CommandOutcome::Pending { approvals, needed })
}

pub fn members(quorum: Quorum) -> Policy {
    Policy::members(quorum, Role::Admin)
}

pub fn named(quorum: Quorum, orgs: &[u16]) -> Policy {
    Policy::rule(quorum, orgs.iter().map(|org| Item::Sub(Policy::one(OrgId(*org), Role::Admin))).collect())
}

/// Five organisations, of which the last two have no nodes.
fn five() -> World {
    World::of(Genesis { orgs: (1..=5).map(org).collect(), ..genesis() })
}

fn rule(matter: Matter, base: u64, policy: &Policy) -> BeaconCommand {
    BeaconCommand::SetPolicy(PolicyChange { matter, base, policy: policy.clone() })
}

fn send(world: &mut World, by: u16, command: &BeaconCommand) -> Result<CommandOutcome, Reject> {
    world.command(by, command).map(|executed| executed.outcome)
}

/// The policy of a matter as it is in force.
fn of(world: &World, matter: Matter) -> Ruled {
    ruled(&mut View::new(&world.state), matter)
}

/// A majority puts a policy in force.
fn decree(world: &mut World, matter: Matter, policy: &Policy) {
    let command = rule(matter, of(world, matter).revision, policy);
    let members: Vec<u16> = world.view().orgs.iter().map(|org| org.id.0).collect();
    let outcomes: Vec<_> = members.iter().take(members.len() / 2 + 1).map(|by| send(world, *by, &command)).collect();
    assert_eq!(outcomes.last(), Some(&DONE), "{outcomes:?}");
    assert_eq!(of(world, matter).policy, *policy);
}

#[test]
fn which_approvals_admit_and_remove_an_organisation() {
    let nested = Policy::rule(
        Quorum::All,
        vec![Item::Sub(Policy::one(OrgId(2), Role::Admin)), Item::Sub(named(Quorum::Any, &[4, 5]))],
    );
    let outsider = Err(Reject::PolicyNotAsked);
    let rows: [(&str, Policy, Vec<(u16, Result<CommandOutcome, Reject>)>); 6] = [
        ("two of all", members(Quorum::AtLeast(2)), vec![(4, waits(1, 2)), (4, waits(1, 2)), (1, DONE)]),
        ("any one", members(Quorum::Any), vec![(5, DONE)]),
        (
            "each",
            members(Quorum::All),
            vec![(1, waits(1, 5)), (2, waits(2, 5)), (3, waits(3, 5)), (4, waits(4, 5)), (5, DONE)],
        ),
        ("one alone", Policy::one(OrgId(3), Role::Admin), vec![(1, outsider), (3, DONE)]),
        ("nested", nested, vec![(1, outsider), (4, waits(1, 2)), (5, waits(2, 3)), (3, outsider), (2, DONE)]),
        ("two that are named", named(Quorum::All, &[1, 2]), vec![(2, waits(1, 2)), (5, outsider), (1, DONE)]),
    ];
    // Its own word counts where it is asked for it.
    for command in [BeaconCommand::RegisterOrg(org(6)), BeaconCommand::RemoveOrg { org: OrgId(5) }] {
        for (what, policy, steps) in &rows {
            let mut world = five();
            decree(&mut world, Matter::Orgs, policy);
            for (by, expected) in steps {
                assert_eq!(send(&mut world, *by, &command), *expected, "{what}: {by} sends {command:?}");
            }
            let orgs: Vec<u16> = world.view().orgs.iter().map(|org| org.id.0).collect();
            let expected: &[u16] =
                if matches!(command, BeaconCommand::RemoveOrg { .. }) { &[1, 2, 3, 4] } else { &[1, 2, 3, 4, 5, 6] };
            assert_eq!(orgs, expected, "{what}");
        }
    }
}

#[test]
fn a_proposal_is_judged_by_the_policy_in_force_at_each_approval() {
    let join = BeaconCommand::RegisterOrg(org(6));
    let mut world = five();
    assert_eq!([1, 2].map(|by| send(&mut world, by, &join)), [waits(1, 3), waits(2, 3)]);
    decree(&mut world, Matter::Orgs, &members(Quorum::All));
    assert_eq!(send(&mut world, 3, &join), waits(3, 5), "more are needed by now");
    decree(&mut world, Matter::Orgs, &named(Quorum::All, &[2, 4]));
    assert_eq!(send(&mut world, 3, &join), Err(Reject::PolicyNotAsked), "and others");
    let book = PolicyBook::read(&mut View::new(&world.state));
    let [found] = &book.waiting[..] else { panic!("one waits: {book:?}") };
    assert_eq!((&found.approvals[..], &found.enough[..]), (&[OrgId(2)][..], &[OrgId(4)][..]));
    decree(&mut world, Matter::Orgs, &members(Quorum::AtLeast(2)));
    // Nothing happens by itself; whoever is asked, also one that has approved, brings it about.
    let book = PolicyBook::read(&mut View::new(&world.state));
    assert_eq!((book.waiting[0].approvals.len(), book.waiting[0].enough.len()), (3, 0));
    assert!(world.view().org(OrgId(6)).is_none());
    assert_eq!(send(&mut world, 1, &join), DONE);
}

#[test]
fn who_has_left_counts_no_more_whatever_the_policy() {
    let join = BeaconCommand::RegisterOrg(org(6));
    let mut world = five();
    decree(&mut world, Matter::Orgs, &members(Quorum::AtLeast(2)));
    assert_eq!(send(&mut world, 4, &join), waits(1, 2));
    let removal = BeaconCommand::RemoveOrg { org: OrgId(4) };
    assert_eq!([1, 2].map(|by| send(&mut world, by, &removal)), [waits(1, 2), DONE]);
    assert_eq!(send(&mut world, 4, &join), Err(Reject::Registry), "it says nothing any more");
    assert_eq!([1, 3].map(|by| send(&mut world, by, &join)), [waits(1, 2), DONE]);
    // Who is named in a policy and gone is not there to approve.
    let mut world = five();
    decree(&mut world, Matter::Orgs, &named(Quorum::AtLeast(2), &[1, 4, 5]));
    assert_eq!(send(&mut world, 4, &join), waits(1, 2));
    assert_eq!([1, 5].map(|by| send(&mut world, by, &removal)), [waits(1, 2), DONE]);
    assert_eq!([1, 5].map(|by| send(&mut world, by, &join)), [waits(1, 2), DONE]);
}

#[test]
fn what_speaks_against_a_policy() {
    let rows: [(&str, Policy, Result<CommandOutcome, Reject>); 7] = [
        ("one that is not there", Policy::one(OrgId(6), Role::Admin), Err(Reject::PolicyUnsatisfiable)),
        ("not even beside others", named(Quorum::Any, &[1, 6]), Err(Reject::PolicyUnsatisfiable)),
        ("more than there are", members(Quorum::AtLeast(6)), Err(Reject::PolicyUnsatisfiable)),
        ("as many as there are", members(Quorum::AtLeast(5)), waits(1, 3)),
        ("nobody signs as a member", Policy::members(Quorum::Any, Role::Member), Err(Reject::PolicyUnsatisfiable)),
        ("nor as an auditor", Policy::one(OrgId(1), Role::Auditor), Err(Reject::PolicyUnsatisfiable)),
        ("the one in force", default_policy(), DONE),
    ];
    for matter in Matter::ALL {
        for (what, policy, expected) in &rows {
            let mut world = five();
            let before = world.state.get(&policy_key(matter)).cloned();
            assert_eq!(send(&mut world, 1, &rule(matter, 0, policy)), *expected, "{what}: {matter:?}");
            assert_eq!(world.state.get(&policy_key(matter)).cloned(), before, "{what}: nothing is in force by that");
        }
    }
}

#[test]
fn an_approval_of_what_has_changed_meanwhile_is_refused() {
    let (all, two) = (members(Quorum::All), members(Quorum::AtLeast(2)));
    let mut world = five();
    let (one, other) = (rule(Matter::Orgs, 0, &all), rule(Matter::Orgs, 0, &two));
    let elsewhere = rule(Matter::Jobs, 0, &all);
    for command in [&one, &other, &elsewhere] {
        assert_eq!([1, 2].map(|by| send(&mut world, by, command)), [waits(1, 3), waits(2, 3)]);
    }
    assert_eq!(send(&mut world, 3, &one), DONE);
    assert_eq!(of(&world, Matter::Orgs).revision, 1);
    assert_eq!(send(&mut world, 3, &other), Err(Reject::PolicyStale), "it was to replace another one");
    assert_eq!(send(&mut world, 4, &one), DONE, "this is so, whatever it was made on");
    assert_eq!(send(&mut world, 3, &rule(Matter::Orgs, 7, &two)), Err(Reject::PolicyStale));
    assert_eq!(send(&mut world, 3, &rule(Matter::Orgs, 1, &two)), waits(1, 3), "and begins anew");
    assert_eq!(send(&mut world, 3, &elsewhere), DONE, "another matter is not touched");
    assert_eq!(of(&world, Matter::Orgs), Ruled { version: 1, revision: 1, policy: all });
}

#[test]
fn a_change_that_was_approved_is_judged_again_when_it_comes_into_force() {
    let mut world = five();
    // By the organisations there are.
    let change = rule(Matter::Orgs, 0, &named(Quorum::Any, &[4, 5]));
    assert_eq!([1, 2].map(|by| send(&mut world, by, &change)), [waits(1, 3), waits(2, 3)]);
    let removal = BeaconCommand::RemoveOrg { org: OrgId(5) };
    assert_eq!([1, 2, 3].map(|by| send(&mut world, by, &removal)), [waits(1, 3), waits(2, 3), DONE]);
    assert_eq!(send(&mut world, 3, &change), Err(Reject::PolicyUnsatisfiable), "it names one that is gone");
    // And by the policy of policies: two had approved when three of five would have been enough.
    let mut world = five();
    let change = rule(Matter::Orgs, 0, &members(Quorum::Any));
    assert_eq!([1, 2].map(|by| send(&mut world, by, &change)), [waits(1, 3), waits(2, 3)]);
    decree(&mut world, Matter::Policy, &members(Quorum::All));
    let asked = [3, 4, 5].map(|by| send(&mut world, by, &change));
    assert_eq!(asked, [waits(3, 5), waits(4, 5), DONE]);
    let back = rule(Matter::Policy, 1, &default_policy());
    let asked = [1, 2, 3, 4, 5].map(|by| send(&mut world, by, &back));
    assert_eq!(asked, [waits(1, 5), waits(2, 5), waits(3, 5), waits(4, 5), DONE], "nobody loosens it by itself");
    assert_eq!(of(&world, Matter::Policy).revision, 2);
}

#[test]
fn nobody_goes_whom_a_policy_cannot_do_without() {
    let rows: [(&str, Policy, Result<CommandOutcome, Reject>); 6] = [
        ("each", members(Quorum::All), waits(1, 3)),
        ("as many as there are", members(Quorum::AtLeast(5)), Err(Reject::PolicyBlocks)),
        ("fewer", members(Quorum::AtLeast(4)), waits(1, 3)),
        ("it alone", Policy::one(OrgId(5), Role::Admin), Err(Reject::PolicyBlocks)),
        ("it and others", named(Quorum::All, &[1, 5]), Err(Reject::PolicyBlocks)),
        ("it or others", named(Quorum::Any, &[1, 5]), waits(1, 3)),
    ];
    for matter in Matter::ALL.into_iter().filter(|matter| *matter != Matter::Orgs) {
        for (what, policy, expected) in &rows {
            let mut world = five();
            decree(&mut world, matter, policy);
            let removal = BeaconCommand::RemoveOrg { org: OrgId(5) };
            assert_eq!(send(&mut world, 1, &removal), *expected, "{what}, by the policy of {matter:?}");
        }
    }
    // Approved before the policy was there, it is judged by it all the same.
    let mut world = five();
    let removal = BeaconCommand::RemoveOrg { org: OrgId(5) };
    assert_eq!([1, 2].map(|by| send(&mut world, by, &removal)), [waits(1, 3), waits(2, 3)]);
    decree(&mut world, Matter::Jobs, &named(Quorum::All, &[1, 5]));
    assert_eq!(send(&mut world, 3, &removal), Err(Reject::PolicyBlocks));
    decree(&mut world, Matter::Jobs, &members(Quorum::Any));
    assert_eq!(send(&mut world, 3, &removal), DONE);
}

/// Nobody signs as a member here. The six others are more than half of eleven, and not of the twelve of six organisations.
#[test]
fn nobody_joins_with_whom_a_policy_could_not_hold() {
    let both = Policy::rule(
        Quorum::Majority,
        vec![
            Item::Each(Role::Member),
            Item::Sub(named(Quorum::Any, &[1])),
            Item::Sub(named(Quorum::Any, &[2])),
            Item::Sub(named(Quorum::Any, &[3])),
            Item::Sub(named(Quorum::Any, &[4])),
            Item::Sub(named(Quorum::Any, &[5])),
            Item::Sub(named(Quorum::Any, &[1, 2])),
        ],
    );
    let mut world = five();
    decree(&mut world, Matter::Jobs, &both);
    assert_eq!(send(&mut world, 1, &BeaconCommand::RegisterOrg(org(6))), Err(Reject::PolicyBlocks));
    decree(&mut world, Matter::Jobs, &default_policy());
    assert_eq!(send(&mut world, 1, &BeaconCommand::RegisterOrg(org(6))), waits(1, 3));
}

#[test]
fn jobs_follow_their_policy_and_a_seat_between_ones_own_nodes_none() {
    let mut world = World::of(seven());
    decree(&mut world, Matter::Jobs, &Policy::one(OrgId(2), Role::Admin));
    let under_way = |outcome: Result<beacon::Executed, Reject>| match outcome.map(|executed| executed.outcome) {
        Ok(CommandOutcome::Job { phase, .. }) => Ok(phase.under_way()),
        Ok(other) => panic!("{other:?}"),
        Err(reject) => Err(reject),
    };
    assert_eq!(under_way(world.propose(1, SPLIT, false)), Err(Reject::PolicyNotAsked));
    assert_eq!(under_way(world.propose(2, SPLIT, false)), Ok(true), "it decides alone");
    let mut world = World::of(seven());
    decree(&mut world, Matter::Jobs, &Policy::one(OrgId(2), Role::Admin));
    // Nodes 1 and 7 are both of organisation 1.
    let own = JobKind::Move { group: SHARDS[2], from: NodeId(1), to: NodeId(7) };
    assert_eq!(under_way(world.propose(3, own, false)), Err(Reject::PolicyNotAsked));
    assert_eq!(under_way(world.propose(1, own, false)), Ok(true));
    let mut world = World::of(seven());
    decree(&mut world, Matter::Jobs, &members(Quorum::All));
    let asked = [1, 2, 3].map(|by| under_way(world.propose(by, SPLIT, false)));
    assert_eq!(asked, [Ok(false), Ok(false), Ok(true)]);
}

#[test]
fn a_genesis_states_policies() {
    let stating = |policies: &[(&str, &str)]| {
        let policies = policies.iter().map(|(matter, policy)| ((*matter).to_owned(), (*policy).to_owned())).collect();
        Genesis { version: Genesis::version_with(&policies), policies, ..genesis() }
    };
    let plain = stating(&[]);
    assert_eq!(plain, genesis());
    let stated =
        stating(&[("orgs", "all(members.admin)"), ("policy", "k-of(2, org-1.admin, org-2.admin, org-3.admin)")]);
    assert_eq!(first_state::check(&stated), Ok(()));
    assert_ne!(stated.cluster_id(), plain.cluster_id());
    let bytes = borsh::to_vec(&stated).unwrap();
    assert_eq!(borsh::from_slice::<Genesis>(&bytes).unwrap(), stated);
    assert_eq!(
        borsh::to_vec(&plain).unwrap()[1..],
        bytes[1..bytes.len() - borsh::to_vec(&stated.policies).unwrap().len()]
    );
    let one = stating(&[("orgs", "any(org-1.admin)")]);
    let tail = [&[1, 0, 0, 0, 4, 0, 0, 0][..], b"orgs", &[16, 0, 0, 0], b"any(org-1.admin)"].concat();
    assert_eq!(borsh::to_vec(&one).unwrap(), [&[2][..], &borsh::to_vec(&plain).unwrap()[1..], &tail].concat());
    let mut world = World::of(stated.clone());
    assert_eq!(of(&world, Matter::Orgs), Ruled { version: 1, revision: 0, policy: members(Quorum::All) });
    assert_eq!(of(&world, Matter::Policy).policy, named(Quorum::AtLeast(2), &[1, 2, 3]));
    assert_eq!(of(&world, Matter::Jobs).policy, default_policy());
    let join = BeaconCommand::RegisterOrg(org(4));
    assert_eq!([1, 2, 3].map(|by| send(&mut world, by, &join)), [waits(1, 3), waits(2, 3), DONE]);

    for (what, code, spoilt) in [
        ("not its version", "genesis_version", Genesis { version: 1, ..stated.clone() }),
        ("a version without need", "genesis_version", Genesis { version: 2, ..plain.clone() }),
        ("of nothing", "genesis_policy", stating(&[("weather", "all(members.admin)")])),
        ("no policy", "genesis_policy", stating(&[("orgs", "all(members")])),
        ("one that is not there", "genesis_policy", stating(&[("orgs", "any(org-1.admin, org-4.admin)")])),
        ("more than there are", "genesis_policy", stating(&[("orgs", "k-of(4, members.admin)")])),
        ("roles that nobody signs in", "genesis_policy", stating(&[("orgs", "any(members.node)")])),
    ] {
        assert_eq!(first_state::check(&spoilt).unwrap_err().code(), code, "{what}");
    }
    // Should nobody have checked it, nothing is decided: the state does not decode.
    let world = World::of(stating(&[("orgs", "all(members")]));
    let mut view = View::new(&world.state);
    ruled(&mut view, Matter::Orgs);
    assert!(view.into_writes().is_err());
}

#[test]
fn what_waits_is_shown_with_whose_word_would_be_enough() {
    let mut world = five();
    decree(&mut world, Matter::Orgs, &named(Quorum::AtLeast(2), &[1, 2, 5]));
    let until = ledger::ids::TimeMs(world.now + WITHIN_MS);
    send(&mut world, 2, &BeaconCommand::RegisterOrg(org(6))).unwrap();
    send(&mut world, 1, &BeaconCommand::RemoveOrg { org: OrgId(4) }).unwrap();
    let change = PolicyChange { matter: Matter::Engines, base: 0, policy: members(Quorum::All) };
    send(&mut world, 4, &BeaconCommand::SetPolicy(change.clone())).unwrap();
    let book = PolicyBook::read(&mut View::new(&world.state));
    assert_eq!(book.orgs.len(), 5);
    assert_eq!(book.of(Matter::Orgs), Some(&of(&world, Matter::Orgs)));
    assert_eq!(book.of(Matter::Engines).unwrap().policy, default_policy());
    let found: Vec<_> = book.waiting.iter().map(|one| (&one.asked, &one.approvals[..], one.enough.len())).collect();
    let admit = Asked::Admit { org: OrgId(6), name: "org-6".to_owned() };
    let expected = [
        (&admit, &[OrgId(2)][..], 1),
        (&Asked::Remove(OrgId(4)), &[OrgId(1)][..], 1),
        (&Asked::Policy(change), &[OrgId(4)][..], 2),
    ];
    assert_eq!(found, expected);
    assert!(book.waiting.iter().all(|one| one.until_ms == until));
    let bytes = borsh::to_vec(&book).unwrap();
    assert_eq!(borsh::from_slice::<PolicyBook>(&bytes).unwrap(), book);
}

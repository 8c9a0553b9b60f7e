//! What a founding promises, and how the channel keeps it.

use std::collections::BTreeSet;

use channel::limits::PROMISE_BYTES_MAX;
use channel::opening::first_policies;
use channel::{
    Change, ChannelReject as R, Command, Founding, FoundingAct, Opening, Outcome, Policy, Promise, PromiseStanding,
    ProposalState, Quorum, Role, Subject, Terms, state,
};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, Height, NodeId, OrgId, TimeMs};

use crate::support::{
    CLUSTER, DAY, Directory, NOW, World, admin, anyone, approved, everyone, hosting, majority, node_key, only, opening,
    promise, propose_sealed, rule, sealed_terms, terms,
};

fn open(opening: &Opening) -> Command {
    Command::Open { opening: opening.clone() }
}

/// What everything in a channel takes, if that is the same for every subject.
fn goes_by(world: &World) -> Vec<Policy> {
    let mut policies: Vec<Policy> =
        Subject::ALL.into_iter().map(|subject| world.read(|view| state::policy(view, subject)).unwrap()).collect();
    policies.dedup();
    policies
}

fn standing(world: &World) -> PromiseStanding {
    world.read(state::promise).expect("something was promised").standing
}

#[test]
fn a_channel_goes_by_what_everybody_knows_until_it_is_given_what_was_promised() {
    let wanted = opening(&majority());
    let mut world = World::promised(3, &wanted);
    assert_eq!((goes_by(&world), standing(&world)), (vec![everyone()], PromiseStanding::Waits));

    // Another salt, another policy, an order of its own: none of them has the hash that all have approved.
    let mut other_order = wanted.clone();
    other_order.policies.reverse();
    let other_salt = Opening::new([8; 32], wanted.policies.clone());
    for wrong in [other_salt, opening(&anyone()), other_order, Opening { version: 2, ..wanted.clone() }] {
        assert_eq!(world.refused(1, &open(&wrong)), R::OpeningWrong, "{wrong:?}");
    }
    assert_eq!(world.refused(9, &open(&wanted)), R::NotMember);
    let by_node = world.run_with(1, &node_key(10), &open(&wanted)).unwrap_err();
    assert_eq!(by_node.reject, R::Role, "a node's key does not act for its organisation");
    assert_eq!((goes_by(&world), standing(&world)), (vec![everyone()], PromiseStanding::Waits));

    // Any member's admin gives it, whoever proposed.
    let height = Height(world.height);
    let bytes = world.sign_with(3, &admin(3), &open(&wanted)).encode();
    assert_eq!(world.submit(&bytes), Ok(Outcome::Done));
    assert_eq!((goes_by(&world), standing(&world)), (vec![majority()], PromiseStanding::Kept { height }));
    // Sent again it did what it did; anew it is refused, and nothing changes.
    assert_eq!(world.submit(&bytes), Ok(Outcome::Done));
    assert_eq!(world.refused(1, &open(&wanted)), R::PromiseKept);
    assert_eq!(world.refused(1, &open(&opening(&anyone()))), R::PromiseKept);
    assert_eq!((goes_by(&world), standing(&world)), (vec![majority()], PromiseStanding::Kept { height }));
}

#[test]
fn without_the_opening_all_together_decide_and_end_the_promise_by_a_policy() {
    let wanted = opening(&anyone());
    let mut world = World::promised(3, &wanted);
    // What is about no policy leaves it as it is.
    world.enact(Change::Freeze);
    world.enact(Change::Thaw);
    assert_eq!(standing(&world), PromiseStanding::Waits);
    // A policy that is proposed ends nothing, and one that is in force does.
    let set = Change::Policy { subject: Subject::Freeze, policy: majority() };
    let (id, _) = world.propose(1, set);
    assert_eq!(world.approve(2, id), ProposalState::Open);
    assert_eq!(standing(&world), PromiseStanding::Waits);
    let height = Height(world.height);
    assert_eq!(world.approve(3, id), ProposalState::Applied);
    assert_eq!(standing(&world), PromiseStanding::Superseded { height });
    for given in [&wanted, &opening(&majority())] {
        assert_eq!(world.refused(1, &open(given)), R::PromiseSuperseded);
    }
    assert_eq!(world.read(|view| state::policy(view, Subject::Freeze)), Some(majority()));
    assert_eq!(world.read(|view| state::policy(view, Subject::Close)), Some(everyone()));
    // The next change does not say anything else of it.
    world.enact(Change::Policy { subject: Subject::Close, policy: majority() });
    assert_eq!(standing(&world), PromiseStanding::Superseded { height });
}

#[test]
fn a_policy_that_is_set_after_the_opening_counts() {
    let wanted = opening(&majority());
    let mut world = World::promised(3, &wanted);
    world.run(2, &open(&wanted)).unwrap();
    let kept = standing(&world);
    world.enact(Change::Policy { subject: Subject::Freeze, policy: anyone() });
    assert_eq!(standing(&world), kept);
    assert_eq!(world.refused(1, &open(&wanted)), R::PromiseKept);
    assert_eq!(
        world.read(|view| state::policy(view, Subject::Freeze)),
        Some(anyone()),
        "nobody brings the old one back"
    );
}

#[test]
fn a_founding_that_promises_nothing_is_given_nothing() {
    let mut world = World::five();
    assert_eq!(world.read(state::promise), None);
    assert_eq!(world.refused(1, &open(&opening(&majority()))), R::PromiseNone);
}

#[test]
fn what_is_proposed_is_judged_by_the_opening_and_other_policies_are_proposed_in_vain() {
    let wanted = opening(&anyone());
    let mut world = World::promised(3, &wanted);
    let (freeze, state) = world.propose(1, Change::Freeze);
    assert_eq!(state, ProposalState::Open);
    let set = Change::Policy { subject: Subject::Freeze, policy: only(2) };
    let (set, _) = world.propose(2, set);
    world.run(3, &open(&wanted)).unwrap();
    assert_eq!(world.refused(3, &Command::Approve { proposal: set }), R::ProposalStale);
    // One is enough now, and one has approved.
    let settled = world.run(2, &Command::Settle { proposal: freeze }).unwrap();
    assert_eq!(settled, Outcome::Proposal { id: freeze, state: ProposalState::Applied });
}

#[test]
fn what_could_not_be_satisfied_waits_until_it_can() {
    let wanted = opening(&only(3));
    let stated = Terms { founding: majority(), ..sealed_terms(&[2, 3]) };
    let founding = propose_sealed(stated, promise(&wanted, 3)).unwrap();
    let charter = approved(founding, &[1, 1]);
    assert_eq!((charter.invited.as_slice(), charter.promise), (&[OrgId(3)][..], Some(wanted.hash())));
    let mut world = World::of(&charter);
    assert_eq!(world.refused(1, &open(&wanted)), R::PolicyUnsatisfiable);
    assert_eq!((goes_by(&world), standing(&world)), (vec![everyone()], PromiseStanding::Waits));
    world.run(3, &Command::Join { nodes: vec![NodeId(30)] }).unwrap();
    assert_eq!(world.run(1, &open(&wanted)), Ok(Outcome::Done));
    assert_eq!(goes_by(&world), [only(3)]);
}

/// As terms that state policies may, as long as the founders can satisfy them.
#[test]
fn an_opening_may_name_who_has_not_joined_or_has_left() {
    let wanted = opening(&rule(Quorum::Any, &[only(1), only(3)]));
    let stated = Terms { founding: majority(), ..sealed_terms(&[2, 3]) };
    let founding = propose_sealed(stated, promise(&wanted, 3)).unwrap();
    let mut world = World::of(&approved(founding, &[1, 1]));
    assert_eq!(world.run(2, &open(&wanted)), Ok(Outcome::Done));
    assert_eq!(goes_by(&world), wanted.policies[..1].iter().map(|(_, policy)| policy.clone()).collect::<Vec<_>>());

    let mut left = World::promised(5, &wanted);
    left.enact(Change::Remove { org: OrgId(3) });
    assert_eq!(left.run(2, &open(&wanted)), Ok(Outcome::Done));

    // Whoever has promised what is no set of policies has promised nothing that comes into force.
    let mut short = wanted.clone();
    short.policies.pop();
    let mut world = World::promised(3, &short);
    assert_eq!(world.refused(1, &open(&short)), R::FoundingForm);
    assert_eq!((goes_by(&world), standing(&world)), (vec![everyone()], PromiseStanding::Waits));
}

#[test]
fn an_id_is_of_what_a_founding_states_and_promises() {
    let promised = || propose_sealed(sealed_terms(&[2, 3]), promise(&opening(&majority()), 3)).unwrap();
    let (until, now) = (TimeMs(NOW + DAY), TimeMs(NOW));
    let stated = Founding::propose(
        &CLUSTER,
        terms(&[2, 3], &majority()),
        OrgId(1),
        hosting(1, 1),
        until,
        &[1; 16],
        &Directory,
        now,
    );
    let stated = stated.unwrap();
    for founding in [promised(), stated.clone()] {
        assert!(founding.id_fits(&CLUSTER), "{founding:?}");
        assert!(!founding.id_fits(&ClusterId(Hash32([2; 32]))));
        // What is said of it later is not in the id.
        let act = FoundingAct::Approve(hosting(2, 1));
        assert!(founding.act(OrgId(2), &act, &Directory, now).unwrap().id_fits(&CLUSTER));
        let lies: [fn(&mut Founding); 7] = [
            |lie| lie.proposer = OrgId(2),
            |lie| lie.until_ms = TimeMs(NOW),
            |lie| lie.salt = [2; 16],
            |lie| lie.terms.name = "coal".to_owned(),
            |lie| lie.terms.founding = anyone(),
            |lie| lie.terms.invited = vec![OrgId(2)],
            |lie| lie.promise = Some(promise(&opening(&anyone()), 3)),
        ];
        for (index, lie) in lies.into_iter().enumerate() {
            let mut shown = founding.clone();
            lie(&mut shown);
            assert!(!shown.id_fits(&CLUSTER), "lie {index}");
        }
        let open = Founding { promise: None, ..founding };
        assert_eq!(open.id_fits(&CLUSTER), open == stated);
    }
    // Whom it does not name is shown no policies: those that are the same for all need not be there, others do.
    let mut short = [promised(), stated];
    short.iter_mut().for_each(|founding| founding.terms.policies.clear());
    assert_eq!(short.map(|founding| founding.id_fits(&CLUSTER)), [true, false]);
}

#[test]
fn whose_approval_would_found_a_channel_that_cannot_go_by_what_was_promised() {
    let wanted = opening(&only(3));
    let stated = Terms { founding: majority(), ..sealed_terms(&[2, 3]) };
    let founding = propose_sealed(stated, promise(&wanted, 3)).unwrap();
    let fits = |founding: &Founding, org: u16| {
        let founders = founding.founders_with(OrgId(org), &hosting(org, 1))?;
        Some(wanted.check_founders(&founders).map_err(|refusal| refusal.reject))
    };
    assert_eq!(fits(&founding, 2), Some(Err(R::PolicyUnsatisfiable)), "1 and 2 could found it, and not go by it");
    assert_eq!(fits(&founding, 3), Some(Ok(())));
    assert_eq!(fits(&founding, 1), None, "it has spoken");
    let all = propose_sealed(sealed_terms(&[2, 3]), promise(&wanted, 3)).unwrap();
    assert_eq!(fits(&all, 2), None, "others have to approve");
}

#[test]
fn a_phase_that_is_governed_takes_it_and_no_other_one_does() {
    let wanted = opening(&majority());
    for (change, expected) in [(Change::Freeze, Ok(Outcome::Done)), (Change::Close, Err(R::Closing))] {
        let mut world = World::promised(2, &wanted);
        world.enact(change.clone());
        let found = world.run(1, &open(&wanted)).map_err(|refusal| refusal.reject);
        assert_eq!(found, expected, "{change:?}");
    }
}

#[test]
fn what_a_founding_may_promise() {
    let wanted = opening(&majority());
    let good = || promise(&wanted, 3);
    let with = |change: &dyn Fn(&mut Promise)| {
        let mut promise = good();
        change(&mut promise);
        promise
    };
    let founding = propose_sealed(sealed_terms(&[2, 3]), good()).unwrap();
    assert_eq!(founding.promise, Some(good()));
    assert!(founding.ungovernable().is_empty(), "all of those who approve are enough for what everybody knows");
    for (what, promise) in [
        ("nobody's copy", with(&|promise| promise.sealed.keys.clear())),
        ("one is missing", with(&|promise| promise.sealed.keys.truncate(promise.sealed.keys.len() - 1))),
        ("one too many", with(&|promise| promise.sealed.keys.push((OrgId(4), [0; 48])))),
        ("out of order", with(&|promise| promise.sealed.keys.swap(0, 1))),
        ("one twice", with(&|promise| promise.sealed.keys[1].0 = OrgId(1))),
        ("too large", with(&|promise| promise.sealed.body.resize(PROMISE_BYTES_MAX, 0))),
        ("another version", with(&|promise| promise.version = 2)),
    ] {
        let refused = propose_sealed(sealed_terms(&[2, 3]), promise).unwrap_err();
        assert_eq!(refused.reject, R::PromiseForm, "{what}");
    }
    // Policies of its own would be in the clear, and would not be what was promised.
    let beside = propose_sealed(terms(&[2, 3], &majority()), good()).unwrap_err();
    assert_eq!(beside.reject, R::PromiseForm);
}

#[test]
fn whoever_approves_a_founding_approves_one_promise() {
    let of = |policy: &Policy| propose_sealed(sealed_terms(&[2]), promise(&opening(policy), 2)).unwrap();
    let until = TimeMs(NOW + DAY);
    let stated = sealed_terms(&[2]);
    let open =
        Founding::propose(&CLUSTER, stated, OrgId(1), hosting(1, 1), until, &[1; 16], &Directory, TimeMs(NOW)).unwrap();
    let ids = [of(&majority()).id, of(&anyone()).id, open.id];
    assert_eq!(BTreeSet::from(ids).len(), 3, "{ids:?}");
    assert_eq!(of(&majority()).id, ids[0]);
}

#[test]
fn policies_are_judged_by_those_who_can_read_them() {
    let named: BTreeSet<OrgId> = [1, 2].map(OrgId).into();
    let code = |opening: &Opening| opening.check_for(&named).map_err(|refusal| refusal.reject);
    let mut short = opening(&majority());
    short.policies.pop();
    for (opening, expected) in [
        (opening(&majority()), Ok(())),
        (opening(&only(2)), Ok(())),
        (opening(&only(3)), Err(R::PolicyUnsatisfiable)),
        (opening(&Policy::members(Quorum::AtLeast(3), Role::Admin)), Err(R::PolicyUnsatisfiable)),
        (opening(&Policy::members(Quorum::Any, Role::Member)), Err(R::PolicyUnsatisfiable)),
        (short, Err(R::FoundingForm)),
        (Opening { version: 2, ..opening(&majority()) }, Err(R::FoundingForm)),
        (Opening::new([0; 32], first_policies()), Ok(())),
    ] {
        assert_eq!(code(&opening), expected, "{opening:?}");
    }
    // The same policies have another hash under another salt: they cannot be guessed from it.
    let salted = |byte| Opening::new([byte; 32], first_policies()).hash();
    assert_ne!(salted(1), salted(2));
    assert_ne!(salted(1), Hash32::ZERO);
}

//! Proposals: made, approved, rejected, withdrawn, expired, superseded, explained.

use channel::limits::{PROPOSAL_KEPT_MS, PROPOSAL_MS_MAX, PROPOSALS_KEPT_MAX, PROPOSALS_OPEN_PER_ORG_MAX};
use channel::{Change, ChannelReject as R, Command, Elector, Phase, Policy, ProposalState as S, Quorum, Role, Subject};
use channel::{Residual, state};
use ledger::hash::Hash32;
use ledger::ids::{AssetId, OrgId, TimeMs};

use crate::support::{DAY, World, admin, anyone, everyone, key, majority, node_key, only, rule};

fn asset(number: u16) -> Change {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Change::PermitAsset { asset: AssetId(id) }
}

fn phase(world: &World) -> Phase {
    world.read(state::channel).unwrap().phase
}

#[test]
fn the_approval_that_satisfies_the_policy_brings_it_into_force() {
    let mut world = World::five();
    let (id, standing) = world.propose(1, Change::Freeze);
    assert_eq!((standing, phase(&world)), (S::Open, Phase::Running));
    assert_eq!(world.approve(3, id), S::Open);
    assert_eq!(world.approve(5, id), S::Applied);
    assert_eq!(phase(&world), Phase::Frozen);
    let kept = world.read(|view| state::proposal(view, &id)).unwrap();
    assert_eq!(kept.approvals.iter().map(|voice| voice.elector.org.0).collect::<Vec<_>>(), [1, 3, 5]);
    for command in [Command::Approve { proposal: id }, Command::Reject { proposal: id }] {
        assert_eq!(world.refused(2, &command), R::ProposalApplied);
    }
    assert_eq!(world.refused(1, &Command::Withdraw { proposal: id }), R::ProposalApplied);
    assert_eq!(world.refused(1, &Command::Settle { proposal: id }), R::ProposalApplied);
}

#[test]
fn under_any_it_is_in_force_at_once() {
    let mut world = World::with(&[1; 5], &anyone());
    assert_eq!(world.propose(4, Change::Freeze).1, S::Applied);
    assert_eq!(phase(&world), Phase::Frozen);
}

#[test]
fn acting_twice_is_refused() {
    let mut world = World::five();
    let (id, _) = world.propose(1, Change::Freeze);
    world.approve(2, id);
    world.reject(3, id);
    for org in [1, 2, 3] {
        assert_eq!(world.refused(org, &Command::Approve { proposal: id }), R::ProposalActed);
        assert_eq!(world.refused(org, &Command::Reject { proposal: id }), R::ProposalActed);
    }
}

#[test]
fn rejections_end_it_once_it_cannot_be_approved() {
    let mut world = World::five();
    let (id, _) = world.propose(1, Change::Freeze);
    assert_eq!(world.reject(2, id), S::Open);
    assert_eq!(world.reject(3, id), S::Open);
    assert_eq!(world.reject(4, id), S::Rejected);
    assert_eq!(world.refused(5, &Command::Approve { proposal: id }), R::ProposalRejected);
    let mut world = World::with(&[1; 5], &everyone());
    let (id, _) = world.propose(1, Change::Freeze);
    assert_eq!(world.reject(2, id), S::Rejected);
}

#[test]
fn only_the_proposer_withdraws() {
    let mut world = World::five();
    let (id, _) = world.propose(1, Change::Freeze);
    assert_eq!(world.refused(2, &Command::Withdraw { proposal: id }), R::NotProposer);
    world.run(1, &Command::Withdraw { proposal: id }).unwrap();
    assert_eq!(world.refused(2, &Command::Approve { proposal: id }), R::ProposalWithdrawn);
    assert_eq!(world.refused(2, &Command::Approve { proposal: Hash32([9; 32]) }), R::ProposalUnknown);
}

#[test]
fn past_its_deadline_it_is_expired() {
    let mut world = World::five();
    let (id, _) = world.propose(1, Change::Freeze);
    let until = world.read(|view| state::proposal(view, &id)).unwrap().until_ms;
    world.now = until.0;
    assert_eq!(world.approve(2, id), S::Open, "the deadline itself is in time");
    world.now = until.0 + 1;
    assert_eq!(world.explain(&id).state, S::Expired);
    for command in [Command::Approve { proposal: id }, Command::Reject { proposal: id }] {
        assert_eq!(world.refused(3, &command), R::ProposalExpired);
    }
    assert_eq!(world.refused(1, &Command::Withdraw { proposal: id }), R::ProposalExpired);
}

#[test]
fn deadlines_lie_ahead_and_within_a_month() {
    let mut world = World::five();
    for (until, expected) in [(0, Err(R::ProposalDeadline)), (1, Ok(())), (PROPOSAL_MS_MAX, Ok(()))] {
        let until_ms = TimeMs(world.now + until);
        let found = world.run(1, &Command::Propose { change: Change::Freeze, until_ms });
        assert_eq!(found.map(|_| ()).map_err(|refusal| refusal.reject), expected);
    }
    let until_ms = TimeMs(world.now + PROPOSAL_MS_MAX + 1);
    assert_eq!(world.refused(1, &Command::Propose { change: Change::Freeze, until_ms }), R::ProposalDeadline);
}

#[test]
fn what_changed_meanwhile_is_not_approved() {
    let mut world = World::five();
    let (freeze, _) = world.propose(1, Change::Freeze);
    let (close, _) = world.propose(2, Change::Close);
    let (other, _) = world.propose(3, asset(1));
    for org in [2, 3] {
        world.approve(org, freeze);
    }
    assert_eq!(phase(&world), Phase::Frozen);
    assert_eq!(world.refused(1, &Command::Approve { proposal: close }), R::ProposalStale);
    assert_eq!(world.explain(&close).state, S::Superseded);
    assert_eq!(world.approve(1, other), S::Open, "about something else");
}

#[test]
fn two_policies_for_one_subject_race() {
    let mut world = World::five();
    let set = |policy| Change::Policy { subject: Subject::Freeze, policy };
    let (one, _) = world.propose(1, set(anyone()));
    let (two, _) = world.propose(2, set(everyone()));
    let (elsewhere, _) = world.propose(2, Change::Policy { subject: Subject::Audit, policy: anyone() });
    world.approve(2, one);
    assert_eq!(world.approve(3, one), S::Applied);
    assert_eq!(world.refused(4, &Command::Approve { proposal: two }), R::ProposalStale);
    assert_eq!(world.approve(4, elsewhere), S::Open);
    assert_eq!(world.propose(5, Change::Freeze).1, S::Applied, "the new policy decides");
    let same = Change::Policy { subject: Subject::Freeze, policy: anyone() };
    assert_eq!(world.proposal_refused(1, same), R::NoChange);
}

#[test]
fn policies_name_members_and_roles_that_there_are() {
    let mut world = World::five();
    let set = |policy| Change::Policy { subject: Subject::Freeze, policy };
    assert_eq!(world.proposal_refused(1, set(only(6))), R::PolicyUnsatisfiable);
    let members = Policy::members(Quorum::All, Role::Member);
    assert_eq!(world.proposal_refused(1, set(members.clone())), R::PolicyUnsatisfiable, "no member keys yet");
    assert_eq!(
        world.proposal_refused(1, set(Policy::members(Quorum::AtLeast(6), Role::Admin))),
        R::PolicyUnsatisfiable
    );
    for org in 1..=5 {
        world.run(org, &Command::AddKey { key: key(org, "desk").public(), role: Role::Member }).unwrap();
    }
    world.enact(set(members));
    // A new member without such a key would make it unsatisfiable.
    world.enact(Change::Invite { org: OrgId(6), until_ms: TimeMs(world.now + DAY) });
    let join = Command::Join { nodes: vec![ledger::ids::NodeId(60)] };
    assert_eq!(world.refused(6, &join), R::PolicyUnsatisfiable);
}

#[test]
fn roles_approve_each_for_itself() {
    let mut world = World::with(&[1; 5], &anyone());
    let needs = rule(Quorum::All, &[only(1), Policy::one(OrgId(2), Role::Node)]);
    world.enact(Change::Policy { subject: Subject::Freeze, policy: needs });
    let (id, standing) = world.propose(3, Change::Freeze);
    assert_eq!(standing, S::Open, "the proposer is not asked");
    assert_eq!(world.read(|view| state::proposal(view, &id)).unwrap().approvals, []);
    assert_eq!(world.refused(3, &Command::Approve { proposal: id }), R::NotElector);
    assert_eq!(world.refused(2, &Command::Approve { proposal: id }), R::NotElector, "its node is asked");
    let approve = Command::Approve { proposal: id };
    world.run_with(2, &node_key(20), &approve).unwrap();
    let freeze = Command::Propose { change: Change::Freeze, until_ms: TimeMs(world.now + 1) };
    assert_eq!(world.run_with(2, &node_key(20), &freeze).unwrap_err().reject, R::Role, "only admins propose");
    assert_eq!(world.approve(1, id), S::Applied);
}

#[test]
fn a_revoked_key_takes_its_open_approvals_with_it_and_a_rotated_one_does_not() {
    let mut world = World::five();
    let (id, _) = world.propose(1, Change::Freeze);
    world.approve(2, id);
    world.run(2, &Command::RotateKey { old: admin(2).public(), new: key(2, "next").public() }).unwrap();
    assert_eq!(world.explain(&id).approved.len(), 2);
    world.run(1, &Command::AddKey { key: key(1, "spare").public(), role: Role::Admin }).unwrap();
    world.run_with(1, &key(1, "spare"), &Command::RevokeKey { key: admin(1).public() }).unwrap();
    assert_eq!(world.explain(&id).approved, [Elector { org: OrgId(2), role: Role::Admin }]);
    assert_eq!(world.approve(3, id), S::Open, "two count");
    world.run_with(1, &key(1, "spare"), &Command::Approve { proposal: id }).unwrap();
    assert_eq!(phase(&world), Phase::Frozen, "it may act again");
}

#[test]
fn when_members_go_a_proposal_may_be_settled() {
    let mut world = World::with(&[1; 5], &everyone());
    world.enact(Change::Policy { subject: Subject::Membership, policy: majority() });
    let (id, _) = world.propose(1, Change::Freeze);
    for org in [2, 3, 4] {
        world.approve(org, id);
    }
    assert_eq!(world.refused(1, &Command::Settle { proposal: id }), R::Undecided);
    world.enact(Change::Remove { org: OrgId(5) });
    assert_eq!(phase(&world), Phase::Running);
    assert_eq!(world.explain(&id).residual(), Residual::Met);
    world.run(4, &Command::Settle { proposal: id }).unwrap();
    assert_eq!(phase(&world), Phase::Frozen);
}

#[test]
fn an_explanation_says_what_is_missing() {
    let mut world = World::five();
    let needs = rule(Quorum::AtLeast(2), &[only(1), only(2), rule(Quorum::All, &[only(3), only(4)])]);
    world.enact(Change::Policy { subject: Subject::Freeze, policy: needs.clone() });
    let (id, _) = world.propose(3, Change::Freeze);
    world.reject(1, id);
    let found = world.explain(&id);
    assert_eq!((found.state, &found.policy), (S::Open, &needs));
    let electors =
        |orgs: &[u16]| orgs.iter().map(|org| Elector { org: OrgId(*org), role: Role::Admin }).collect::<Vec<_>>();
    assert_eq!((&found.approved, &found.rejected), (&electors(&[3]), &electors(&[1])));
    assert_eq!(found.residual(), Residual::Open(rule(Quorum::All, &[only(2), only(4)])));
    assert_eq!(found.sufficient, electors(&[2, 4]));
    assert_eq!(found.blocked, None);
    world.approve(2, id);
    assert_eq!(world.approve(4, id), S::Applied);
    let listed = world.read(|view| channel::list(view, TimeMs(world.now)));
    assert_eq!(listed[0].0.id, id);
    assert_eq!(listed.len(), 2);
}

#[test]
fn an_explanation_says_what_stands_in_the_way() {
    let mut world = World::five();
    let (id, _) = world.propose(1, Change::Remove { org: OrgId(5) });
    world.committee.members.retain(|seat| seat.org != OrgId(4));
    world.committee.threshold = 3;
    world.committee.members.retain(|seat| seat.org != OrgId(3));
    let blocked = world.explain(&id).blocked.unwrap();
    assert_eq!(blocked.reject, R::QuorumLostNow);
    assert!(blocked.to_string().contains("2 seats would be left of 3, and 3 decide"), "{blocked}");
    world.approve(2, id);
    assert_eq!(world.refused(3, &Command::Approve { proposal: id }), R::QuorumLostNow, "judged again at the end");
    assert_eq!(world.explain(&id).approved.len(), 2, "the refused approval left no trace");
}

#[test]
fn each_member_has_its_share_of_open_proposals() {
    let mut world = World::five();
    for number in 0..u16::try_from(PROPOSALS_OPEN_PER_ORG_MAX).unwrap() {
        world.propose(5, asset(number));
    }
    assert_eq!(world.proposal_refused(5, asset(999)), R::ProposalsFull);
    let removal = world.enact(Change::Remove { org: OrgId(5) });
    let open = world.read(|view| channel::list(view, TimeMs(world.now)));
    assert!(open.iter().all(|(proposal, standing)| proposal.id == removal || *standing == S::Withdrawn));
}

#[test]
fn ended_proposals_make_room() {
    let mut world = World::five();
    let (open, _) = world.propose(1, asset(u16::MAX));
    for round in 0..2u16 {
        for number in 0..320 {
            let (id, _) = world.propose(1 + number % 5, asset(round * 1000 + number));
            world.run(1 + number % 5, &Command::Withdraw { proposal: id }).unwrap();
        }
        world.now += DAY / 2;
    }
    assert_eq!(world.read(state::proposals).len(), PROPOSALS_KEPT_MAX);
    assert_eq!(world.explain(&open).proposal.id, open, "the ended ones went");
    world.now += PROPOSAL_KEPT_MS + DAY;
    world.propose(1, asset(1));
    assert_eq!(world.read(state::proposals).len(), 1);
}

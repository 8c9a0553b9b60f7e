//! Freezing, thawing, closing, and what a channel permits.

use channel::{
    AuditGrant, Change, ChannelReject as R, Command, Engine, Outcome, Phase, ProposalState as S, Scope, UnderWay, state,
};
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, Height, OrgId, TimeMs};

use crate::support::{DAY, World, anyone, key, majority};

fn phase(world: &World) -> Phase {
    world.read(state::channel).unwrap().phase
}

#[test]
fn frozen_it_is_governed_and_thawed() {
    let mut world = World::with(&[1; 5], &anyone());
    assert_eq!(world.proposal_refused(1, Change::Thaw), R::Transition);
    world.enact(Change::Freeze);
    assert_eq!(world.proposal_refused(1, Change::Freeze), R::Transition);
    world.enact(Change::Invite { org: OrgId(6), until_ms: TimeMs(world.now + DAY) });
    world.enact(Change::Thaw);
    assert_eq!(phase(&world), Phase::Running);
}

#[test]
fn it_closes_only_when_nothing_is_under_way() {
    let mut world = World::with(&[1; 5], &anyone());
    assert_eq!(world.refused(1, &Command::FinishClose), R::Transition);
    world.enact(Change::Close);
    assert_eq!(phase(&world), Phase::Closing);
    assert_eq!(world.proposal_refused(1, Change::Freeze), R::Closing);
    let rotate = Command::AddKey { key: key(1, "x").public(), role: channel::Role::Member };
    assert_eq!(world.run(1, &rotate), Ok(Outcome::Done), "keys are looked after to the end");
    world.under_way = UnderWay { registers: 2, mail: 3 };
    assert_eq!(world.refused(1, &Command::FinishClose), R::CloseRegisters);
    world.under_way.registers = 0;
    assert_eq!(world.refused(1, &Command::FinishClose), R::CloseMail);
    world.under_way.mail = 0;
    assert_eq!(world.run(1, &Command::FinishClose), Ok(Outcome::Phase(Phase::Closed)));
    assert_eq!(phase(&world), Phase::Closed);
    assert_eq!(world.refused(1, &Command::FinishClose), R::Closed);
    assert_eq!(world.proposal_refused(1, Change::Thaw), R::Closed);
    assert_eq!(world.refused(1, &Command::Leave), R::Closed);
}

#[test]
fn assets_are_permitted_once() {
    let mut world = World::five();
    let asset = AssetId([4; 16]);
    assert!(!world.read(|view| state::asset_permitted(view, &asset)));
    world.enact(Change::PermitAsset { asset });
    assert!(world.read(|view| state::asset_permitted(view, &asset)));
    assert_eq!(world.proposal_refused(1, Change::PermitAsset { asset }), R::AssetPermitted);
}

#[test]
fn audits_are_granted_within_bounds_and_revoked() {
    let mut world = World::five();
    let until_ms = TimeMs(world.now + DAY);
    let grant = AuditGrant { org: OrgId(9), credential: None, scope: Scope::Everything, until_ms, until_height: None };
    let with = |scope| AuditGrant { scope, ..grant.clone() };
    for (grant, expected) in [
        (AuditGrant { org: OrgId(77), ..grant.clone() }, R::OrgUnknown),
        (AuditGrant { until_ms: TimeMs(world.now - 1), ..grant.clone() }, R::GrantForm),
        (AuditGrant { until_ms: TimeMs(u64::MAX), ..grant.clone() }, R::GrantForm),
        (AuditGrant { until_height: Some(Height(0)), ..grant.clone() }, R::GrantForm),
        (with(Scope::Accounts(vec![])), R::GrantForm),
        (with(Scope::Accounts(vec![Address([2; 20]), Address([1; 20])])), R::GrantForm),
        (with(Scope::Assets(vec![AssetId([1; 16]); 2])), R::GrantForm),
        (with(Scope::Assets((0..=64).map(|n| AssetId([n; 16])).collect())), R::GrantForm),
    ] {
        assert_eq!(world.proposal_refused(1, Change::GrantAudit(grant)), expected);
    }
    let id = world.enact(Change::GrantAudit(grant));
    assert_eq!(world.read(state::grants).len(), 1);
    let revoke = |grant| Change::RevokeAudit { org: OrgId(9), grant };
    assert_eq!(world.proposal_refused(1, revoke(Hash32([1; 32]))), R::GrantUnknown);
    let (other, _) = world.propose(2, revoke(id));
    world.approve(3, other);
    assert_eq!(world.approve(4, other), S::Applied);
    assert_eq!(world.read(state::grants), []);
}

/// The engine is what the members want it to be; the committee that has it follows from the beacon.
#[test]
fn the_engine_is_changed_for_the_nodes_that_there_are() {
    let to = |engine| Change::Engine { engine };
    let mut small = World::with(&[1; 3], &majority());
    assert_eq!(small.proposal_refused(1, to(Engine::Raft)), R::NoChange);
    assert_eq!(small.proposal_refused(1, to(Engine::Bft)), R::EngineNodes, "three nodes");

    let mut world = World::with(&[2, 1, 1], &majority());
    let engine = |world: &World| world.read(state::channel).unwrap().engine;
    let (id, standing) = world.propose(1, to(Engine::Bft));
    let (other, _) = world.propose(2, to(Engine::Bft));
    assert_eq!((standing, world.approve(2, id)), (S::Open, S::Applied), "two of three");
    assert_eq!((engine(&world), world.committee.engine), (Engine::Bft, Engine::Raft));
    assert_eq!(world.refused(3, &Command::Approve { proposal: other }), R::ProposalStale);
    // Whoever leaves is judged by the engine that comes: with three nodes none may lie.
    assert_eq!(world.refused(3, &Command::Leave), R::QuorumLostNext);
    world.enact(to(Engine::Raft));
    assert_eq!(engine(&world), Engine::Raft, "taken back before it was in force");
    // A committee without a node that a member has named.
    world.committee.members.pop();
    assert_eq!(world.proposal_refused(1, to(Engine::Bft)), R::EngineChanging);
}

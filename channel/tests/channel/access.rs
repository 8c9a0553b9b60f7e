//! Who may do what: every role with every action, and what excludes everybody.

use channel::{
    Action, At, AuditGrant, AuditTarget, Caller, Change, ChannelReject as R, Command, Role, Scope, Sight, follow, may,
    sight,
};
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, Height, LockId, NodeId, OrgId, TimeMs};
use ledger::lock::{Lock, LockState, LockTerms};
use ledger::schema;

use crate::support::{DAY, World, anyone};

const CERTIFICATE: Hash32 = Hash32([0xCE; 32]);

fn ask(world: &World, org: u16, roles: &[Role], action: Action) -> Result<(), R> {
    let at = At { height: Height(world.height), time_ms: TimeMs(world.now) };
    world.read(|view| may(view, &Caller { org: OrgId(org), roles, credential: CERTIFICATE }, action, at))
}

/// Everything that can be asked for; of receipts, that of another organisation.
fn actions() -> [Action; 7] {
    [
        Action::Read,
        Action::Write,
        Action::Propose,
        Action::Approve,
        Action::AuditRead(AuditTarget::Everything),
        Action::OwnAct,
        Action::Receipt(OrgId(4)),
    ]
}

#[test]
fn every_role_with_every_action() {
    let world = World::five();
    let row = |roles: &[Role]| actions().map(|action| ask(&world, 1, roles, action));
    let no = Err(R::Role);
    let reads = Err(R::AuditorReads);
    assert_eq!(row(&[Role::Admin]), [Ok(()); 7]);
    assert_eq!(row(&[Role::Member]), [Ok(()), Ok(()), no, Ok(()), Ok(()), no, Ok(())]);
    assert_eq!(row(&[Role::Node]), [Ok(()), no, no, Ok(()), Ok(()), no, Ok(())]);
    assert_eq!(row(&[Role::Auditor]), [Ok(()), reads, reads, reads, Ok(()), reads, Ok(())]);
    assert_eq!(row(&[]), [no; 7]);
    let all = Role::ALL;
    assert_eq!(row(&all), row(&[Role::Auditor]), "whoever is an auditor is nothing else");
}

#[test]
fn outsiders_get_nothing_in_any_role() {
    let world = World::five();
    for roles in [&[][..], &[Role::Admin], &[Role::Member], &[Role::Node]] {
        for action in actions() {
            assert_eq!(ask(&world, 6, roles, action), Err(R::NotMember));
        }
    }
    assert_eq!(ask(&world, 6, &[Role::Auditor], Action::Read), Err(R::NotMember));
    assert_eq!(ask(&world, 6, &[Role::Auditor], Action::AuditRead(AuditTarget::Everything)), Err(R::NoGrant));
    let mut no_channel = World::five();
    no_channel.state.clear();
    assert_eq!(ask(&no_channel, 1, &[Role::Admin], Action::Read), Err(R::Unknown));
}

#[test]
fn an_invitation_gives_nothing_before_it_is_accepted() {
    let mut world = World::with(&[1; 5], &anyone());
    world.enact(Change::Invite { org: OrgId(6), until_ms: TimeMs(world.now + DAY) });
    for action in actions() {
        assert_eq!(ask(&world, 6, &[Role::Admin], action), Err(R::NotMember));
    }
    assert_eq!(ask(&world, 6, &[Role::Node], Action::Read), Err(R::NotMember));
    assert_eq!(ask(&world, 6, &[Role::Admin], Action::Join), Ok(()));
    assert_eq!(ask(&world, 6, &[Role::Member], Action::Join), Err(R::Role));
    assert_eq!(ask(&world, 6, &[Role::Admin, Role::Auditor], Action::Join), Err(R::AuditorReads));
    assert_eq!(ask(&world, 7, &[Role::Admin], Action::Join), Err(R::NotInvited));
    world.run(6, &Command::Join { nodes: vec![NodeId(60)] }).unwrap();
    assert_eq!(ask(&world, 6, &[Role::Node], Action::Read), Ok(()));
    assert_eq!(ask(&world, 6, &[Role::Admin], Action::Join), Err(R::NotInvited), "it has been used");
    world.enact(Change::Invite { org: OrgId(7), until_ms: TimeMs(world.now + DAY) });
    world.now += DAY + 1;
    assert_eq!(ask(&world, 7, &[Role::Admin], Action::Join), Err(R::NotInvited), "it has ended");
}

#[test]
fn the_machine_takes_no_command_that_access_denies() {
    let mut world = World::with(&[1; 5], &anyone());
    world.enact(Change::Close);
    let leave = Command::Leave;
    assert_eq!(ask(&world, 1, &[Role::Admin], leave.action()), Ok(()), "closing, one may still leave");
    let freeze = Command::Propose { change: Change::Freeze, until_ms: TimeMs(world.now + DAY) };
    assert_eq!(ask(&world, 1, &[Role::Admin], freeze.action()), Err(R::Closing));
    assert_eq!(world.refused(1, &freeze), R::Closing);
    assert_eq!(ask(&world, 1, &[Role::Admin], Command::FinishClose.action()), Ok(()));
    assert!(world.run(5, &leave).is_ok());
    assert_eq!(ask(&world, 5, &[Role::Admin], leave.action()), Err(R::Removed));
    assert_eq!(world.refused(5, &leave), R::Removed);
}

#[test]
fn from_its_exclusion_on_an_organisation_gets_nothing() {
    for remove in [true, false] {
        let mut world = World::with(&[1; 5], &anyone());
        let grant = AuditGrant {
            org: OrgId(5),
            credential: None,
            scope: Scope::Everything,
            until_ms: TimeMs(world.now + DAY),
            until_height: None,
        };
        world.enact(Change::GrantAudit(grant));
        assert_eq!(ask(&world, 5, &[Role::Admin], Action::Read), Ok(()));
        if remove {
            world.enact(Change::Remove { org: OrgId(5) });
        } else {
            world.run(5, &Command::Leave).unwrap();
        }
        for roles in [&[Role::Admin][..], &[Role::Member], &[Role::Node], &[Role::Auditor]] {
            for action in actions() {
                assert_eq!(ask(&world, 5, roles, action), Err(R::Removed), "{roles:?} {action:?}");
            }
        }
    }
}

#[test]
fn a_receipt_is_for_members_and_for_whom_it_is_about() {
    let mut world = World::with(&[1; 6], &anyone());
    let receipt = |world: &World, org, roles: &[Role], of| ask(world, org, roles, Action::Receipt(OrgId(of)));
    let roles = [&[Role::Admin][..], &[Role::Member], &[Role::Node], &[Role::Auditor]];
    world.run(5, &Command::Leave).unwrap();
    world.enact(Change::Remove { org: OrgId(6) });
    for role in roles {
        for of in [1, 4, 5, 6, 7] {
            assert_eq!(receipt(&world, 1, role, of), Ok(()), "{role:?} of {of}");
        }
        // Of itself alone; of others not even whether there is one.
        for (org, other) in [(5, 6), (6, 5)] {
            assert_eq!(receipt(&world, org, role, org), Ok(()), "{role:?} of {org}");
            for of in [other, 1, 7] {
                assert_eq!(receipt(&world, org, role, of), Err(R::Removed), "{role:?} of {of}");
            }
        }
        let outside = if role == [Role::Auditor] { R::NoGrant } else { R::NotMember };
        for of in [1, 5, 6, 7] {
            assert_eq!(receipt(&world, 7, role, of), Err(outside), "{role:?} of {of}");
        }
    }
    for org in [1, 5] {
        assert!(receipt(&world, org, &[], 5).is_err(), "a certificate without a role gets nothing");
    }
    // Who may read everything may read this.
    let until_ms = TimeMs(world.now + DAY);
    let grant = |scope| AuditGrant { org: OrgId(7), credential: None, scope, until_ms, until_height: None };
    world.enact(Change::GrantAudit(grant(Scope::Accounts(vec![Address([1; 20])]))));
    assert_eq!(receipt(&world, 7, &[Role::Auditor], 5), Err(R::NoGrant));
    world.enact(Change::GrantAudit(grant(Scope::Everything)));
    assert_eq!(receipt(&world, 7, &[Role::Auditor], 5), Ok(()));
    assert_eq!(receipt(&world, 7, &[Role::Admin], 5), Err(R::NotMember));
    // Also when the channel is closed, but not with a certificate that was revoked.
    world.enact(Change::Close);
    world.run(1, &Command::FinishClose).unwrap();
    assert_eq!(receipt(&world, 5, &[Role::Admin], 5), Ok(()));
    world.follow(|view, at| follow::apply_revocation(view, at, OrgId(5), &CERTIFICATE));
    assert_eq!(receipt(&world, 5, &[Role::Admin], 5), Err(R::CredentialRevoked));
}

#[test]
fn a_grant_covers_its_scope_its_certificate_and_its_time() {
    let mut world = World::with(&[1; 5], &anyone());
    let account = |n| AuditTarget::Account(Address([n; 20]));
    let asset = |n| AuditTarget::Asset(AssetId([n; 16]));
    let end = TimeMs(world.now + DAY);
    let grant =
        |scope, credential, until_height| AuditGrant { org: OrgId(9), credential, scope, until_ms: end, until_height };
    let audit = |world: &World, target| ask(world, 9, &[Role::Auditor], Action::AuditRead(target));
    let accounts = Scope::Accounts(vec![Address([1; 20]), Address([3; 20])]);
    world.enact(Change::GrantAudit(grant(accounts, None, None)));
    assert_eq!(audit(&world, account(1)), Ok(()));
    assert_eq!(audit(&world, account(3)), Ok(()));
    for target in [account(2), asset(1), AuditTarget::Everything] {
        assert_eq!(audit(&world, target), Err(R::NoGrant));
    }
    for roles in [&[Role::Member][..], &[Role::Admin], &[Role::Node]] {
        assert_eq!(ask(&world, 9, roles, Action::AuditRead(account(1))), Err(R::NotMember), "not an auditor");
    }
    for action in [Action::Read, Action::Write, Action::Propose] {
        assert_eq!(ask(&world, 9, &[Role::Auditor], action), Err(R::NotMember));
    }
    world.enact(Change::GrantAudit(grant(Scope::Assets(vec![AssetId([1; 16])]), Some(Hash32([1; 32])), None)));
    assert_eq!(audit(&world, asset(1)), Err(R::NoGrant), "for another certificate");
    let last = Height(world.height + 5);
    world.enact(Change::GrantAudit(grant(Scope::Everything, Some(CERTIFICATE), Some(last))));
    world.height = last.0;
    assert_eq!(audit(&world, AuditTarget::Everything), Ok(()));
    world.height += 1;
    assert_eq!(audit(&world, AuditTarget::Everything), Err(R::GrantExpired));
    assert_eq!(audit(&world, account(1)), Ok(()));
    world.now = end.0;
    assert_eq!(audit(&world, account(1)), Ok(()));
    world.now += 1;
    assert_eq!(audit(&world, account(1)), Err(R::GrantExpired));
}

/// A hash-lock is read by whose grant covers the payer or the asset, and its absence by the former alone: who may
/// not read a lock is not told whether there is one.
#[test]
fn a_lock_is_read_with_its_payer_or_with_its_asset() {
    let mut world = World::with(&[1; 5], &anyone());
    let (payer, asset) = (Address([1; 20]), AssetId([1; 16]));
    let [lock, other, missing] = [1, 2, 3].map(|byte| LockId(Hash32([byte; 32])));
    let locked = |asset| Lock {
        version: 1,
        terms: LockTerms { to: Address([2; 20]), asset, amount: 5 },
        hash: Hash32([4; 32]),
        deadline_ms: TimeMs(9),
        state: LockState::Open,
    };
    world.follow(|view, _| {
        view.store(schema::lock(&payer, &lock), &locked(asset));
        view.store(schema::lock(&payer, &other), &locked(AssetId([2; 16])));
    });
    let until_ms = TimeMs(world.now + DAY);
    let grant = |org, scope| {
        Change::GrantAudit(AuditGrant { org: OrgId(org), credential: None, scope, until_ms, until_height: None })
    };
    world.enact(grant(7, Scope::Accounts(vec![payer])));
    world.enact(grant(8, Scope::Assets(vec![asset])));
    world.enact(grant(9, Scope::Accounts(vec![Address([2; 20])])));
    let read = |org, payer, lock| ask(&world, org, &[Role::Auditor], Action::AuditRead(AuditTarget::Lock(payer, lock)));
    let no = Err(R::NoGrant);
    for (org, answers) in [(7, [Ok(()), Ok(()), Ok(())]), (8, [Ok(()), no, no]), (9, [no; 3]), (6, [no; 3])] {
        assert_eq!([lock, other, missing].map(|lock| read(org, payer, lock)), answers, "organisation {org}");
    }
    assert_eq!(read(8, Address([2; 20]), lock), no, "it is the payer's");
    assert_eq!(read(1, payer, missing), Ok(()), "an auditor of a member sees what the member sees");
}

/// Who may see an account sees all of it; an auditor of assets sees what is in it of these, and nothing when there is
/// nobody whom that could be shown.
#[test]
fn an_auditor_of_assets_sees_that_part_of_every_account() {
    let mut world = World::with(&[1; 5], &anyone());
    let [one, two, three] = [1, 2, 3].map(|byte| AssetId([byte; 16]));
    let until_ms = TimeMs(world.now + DAY);
    let grant = |org, assets: &[AssetId], credential, until_height| {
        let scope = Scope::Assets(assets.to_vec());
        Change::GrantAudit(AuditGrant { org: OrgId(org), credential, scope, until_ms, until_height })
    };
    let account = Action::AuditRead(AuditTarget::Account(Address([1; 20])));
    let see = |world: &World, org, role, action| {
        let at = At { height: Height(world.height), time_ms: TimeMs(world.now) };
        world.read(|view| sight(view, &Caller { org: OrgId(org), roles: &[role], credential: CERTIFICATE }, action, at))
    };
    assert_eq!(see(&world, 9, Role::Auditor, account), Err(R::NoGrant));
    let last = Height(world.height + 9);
    world.enact(grant(9, &[two], None, None));
    world.enact(grant(9, &[one, two], Some(CERTIFICATE), Some(last)));
    world.enact(grant(9, &[three], Some(Hash32([1; 32])), None));
    assert_eq!(see(&world, 9, Role::Auditor, account), Ok(Sight::Assets(vec![one, two])));
    for role in [Role::Admin, Role::Member, Role::Node] {
        assert_eq!(see(&world, 9, role, account), Err(R::NotMember), "not an auditor");
    }
    for action in [Action::Read, Action::Write, Action::Receipt(OrgId(4))] {
        assert!(see(&world, 9, Role::Auditor, action).is_err(), "{action:?} is of no asset");
    }
    for target in [AuditTarget::Everything, AuditTarget::Asset(three)] {
        assert_eq!(see(&world, 9, Role::Auditor, Action::AuditRead(target)), Err(R::NoGrant));
    }
    assert_eq!(see(&world, 9, Role::Auditor, Action::AuditRead(AuditTarget::Asset(one))), Ok(Sight::All));
    assert_eq!(see(&world, 1, Role::Auditor, account), Ok(Sight::All), "what a member sees");
    assert_eq!(see(&world, 8, Role::Auditor, account), Err(R::NoGrant), "another organisation's");
    world.height = last.0 + 1;
    assert_eq!(see(&world, 9, Role::Auditor, account), Ok(Sight::Assets(vec![two])));
    // A grant of the account shows all of it, as long as it holds.
    let ends = TimeMs(world.now + DAY / 2);
    world.enact(Change::GrantAudit(AuditGrant {
        org: OrgId(9),
        credential: None,
        scope: Scope::Accounts(vec![Address([1; 20])]),
        until_ms: ends,
        until_height: None,
    }));
    assert_eq!(see(&world, 9, Role::Auditor, account), Ok(Sight::All));
    world.now = ends.0 + 1;
    assert_eq!(see(&world, 9, Role::Auditor, account), Ok(Sight::Assets(vec![two])));
    world.now = until_ms.0 + 1;
    assert_eq!(see(&world, 9, Role::Auditor, account), Err(R::GrantExpired));
}

#[test]
fn what_is_seen_is_compared_by_what_it_shows() {
    let some = |bytes: &[u8]| Sight::Assets(bytes.iter().map(|byte| AssetId([*byte; 16])).collect());
    for (these, those, within) in [
        (Sight::All, Sight::All, true),
        (some(&[1]), Sight::All, true),
        (Sight::All, some(&[1]), false),
        (some(&[1, 3]), some(&[1, 2, 3]), true),
        (some(&[1, 4]), some(&[1, 2, 3]), false),
    ] {
        assert_eq!(these.within(&those), within, "{these:?} in {those:?}");
    }
}

#[test]
fn a_revoked_certificate_gets_nothing() {
    let mut world = World::five();
    world.run(1, &Command::RevokeCertificate { credential: CERTIFICATE }).unwrap();
    for action in actions() {
        assert_eq!(ask(&world, 1, &[Role::Admin], action), Err(R::CredentialRevoked));
    }
    assert_eq!(ask(&world, 2, &[Role::Admin], Action::Read), Ok(()), "another organisation's certificate");
    world.follow(|view, at| follow::apply_revocation(view, at, OrgId(2), &CERTIFICATE));
    assert_eq!(ask(&world, 2, &[Role::Admin], Action::Read), Err(R::CredentialRevoked));
}

#[test]
fn the_phase_has_a_say() {
    let mut world = World::with(&[1; 5], &anyone());
    let row = |world: &World| {
        let asked = [Action::Read, Action::Write, Action::Propose, Action::OwnAct];
        asked.map(|action| ask(world, 1, &[Role::Admin], action))
    };
    assert_eq!(row(&world), [Ok(()); 4]);
    world.enact(Change::Freeze);
    assert_eq!(row(&world), [Ok(()), Err(R::Frozen), Ok(()), Ok(())]);
    world.enact(Change::Close);
    assert_eq!(row(&world), [Ok(()), Err(R::Closing), Err(R::Closing), Ok(())]);
    world.run(1, &Command::FinishClose).unwrap();
    assert_eq!(row(&world), [Ok(()), Err(R::Closed), Err(R::Closed), Err(R::Closed)]);
}

//! Members: invited, joining, leaving, removed; their keys, nodes and anchors.

use channel::exclusion::Departure;
use channel::limits::{KEYS_PER_MEMBER_MAX, REVOCATIONS_PER_MEMBER_MAX};
use channel::{Change, ChannelReject as R, Command, Outcome, ProposalState as S, Role, Subject, follow, state};
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{Height, NodeId, OrgId, TimeMs};

use crate::support::{DAY, World, admin, anyone, key, majority, only};

fn invite(world: &World, org: u16) -> Change {
    Change::Invite { org: OrgId(org), until_ms: TimeMs(world.now + DAY) }
}

fn join(org: u32) -> Command {
    Command::Join { nodes: vec![NodeId(org * 10)] }
}

#[test]
fn invited_then_joined() {
    let mut world = World::five();
    assert_eq!(world.refused(6, &join(6)), R::NotInvited);
    world.enact(invite(&world, 6));
    assert_eq!(world.proposal_refused(2, invite(&world, 6)), R::AlreadyInvited);
    assert_eq!(world.refused(6, &Command::Leave), R::NotMember, "invited is not yet a member");
    assert_eq!(world.run_with(6, &key(6, "other"), &join(6)).unwrap_err().reject, R::KeyUnknown);
    for (nodes, expected) in
        [(vec![], R::NodesForm), (vec![61, 60], R::NodesForm), (vec![50], R::NodeUnknown), (vec![69], R::NodeUnknown)]
    {
        let nodes = nodes.into_iter().map(NodeId).collect();
        assert_eq!(world.refused(6, &Command::Join { nodes }), expected);
    }
    let height = Height(world.height);
    assert_eq!(world.run(6, &join(6)), Ok(Outcome::Joined { height }));
    let member = world.read(|view| state::member(view, OrgId(6))).unwrap();
    assert_eq!((member.joined, member.name.as_str(), member.nodes[0].node), (height, "org-6", NodeId(60)));
    assert_eq!(world.refused(6, &join(6)), R::AlreadyMember);
    assert_eq!(world.proposal_refused(2, invite(&world, 6)), R::AlreadyMember);
    assert_eq!(world.propose(6, Change::Freeze).1, S::Open, "and has a voice");
}

#[test]
fn invitations_that_cannot_be() {
    let mut world = World::five();
    assert_eq!(world.proposal_refused(1, invite(&world, 1)), R::InviteSelf);
    assert_eq!(world.proposal_refused(1, invite(&world, 77)), R::OrgUnknown);
    assert_eq!(world.proposal_refused(1, invite(&world, 2)), R::AlreadyMember);
    let past = Change::Invite { org: OrgId(6), until_ms: TimeMs(world.now) };
    assert_eq!(world.proposal_refused(1, past), R::ProposalDeadline);
}

#[test]
fn an_invitation_ends_by_time_or_by_its_guest() {
    let mut world = World::five();
    world.enact(invite(&world, 6));
    world.run(6, &Command::Decline).unwrap();
    assert_eq!(world.refused(6, &join(6)), R::NotInvited);
    world.enact(invite(&world, 6));
    world.now += DAY + 1;
    assert_eq!(world.refused(6, &join(6)), R::NotInvited);
    world.enact(invite(&world, 6));
    assert!(world.run(6, &join(6)).is_ok());
}

#[test]
fn leaving_takes_effect_in_its_block_and_leaves_an_exclusion() {
    let mut world = World::five();
    let (open, _) = world.propose(5, Change::Freeze);
    let (other, _) = world.propose(1, Change::Close);
    world.approve(5, other);
    let height = Height(world.height);
    assert_eq!(world.run(5, &Command::Leave), Ok(Outcome::Left { height }));
    let exclusions = world.read(|view| state::exclusions(view, OrgId(5)));
    assert_eq!((exclusions.len(), exclusions[0].height, exclusions[0].how), (1, height, Departure::Left));
    assert_eq!(world.read(|view| state::member(view, OrgId(5))), None);
    assert_eq!(world.refused(5, &Command::Approve { proposal: other }), R::Removed);
    assert_eq!(world.refused(1, &Command::Approve { proposal: open }), R::ProposalWithdrawn);
    assert_eq!(world.explain(&other).approved.len(), 1, "what it said is forgotten");
    // It comes back as a new member; the old exclusion stays.
    world.enact(invite(&world, 5));
    world.run(5, &join(5)).unwrap();
    assert_eq!(world.explain(&other).approved.len(), 1);
    assert_eq!(world.read(|view| state::exclusions(view, OrgId(5))).len(), 1);
}

#[test]
fn a_member_is_removed_by_the_others() {
    let mut world = World::five();
    assert_eq!(world.proposal_refused(5, Change::Remove { org: OrgId(5) }), R::RemoveSelf);
    assert_eq!(world.proposal_refused(1, Change::Remove { org: OrgId(6) }), R::NotMember);
    let id = world.enact(Change::Remove { org: OrgId(5) });
    let exclusion = world.read(|view| state::exclusions(view, OrgId(5)))[0];
    assert_eq!(exclusion.how, Departure::Removed(id));
    assert_eq!(world.refused(5, &Command::Leave), R::Removed);
    assert_eq!(world.proposal_refused(1, Change::Remove { org: OrgId(5) }), R::Removed);
}

#[test]
fn nobody_goes_where_the_quorum_would_go_too() {
    for (nodes, expected) in [
        (&[1, 1, 1][..], R::QuorumLostNext),
        (&[1, 1], R::QuorumLostNow),
        (&[2, 1, 1], R::QuorumLostNow),
        (&[1], R::LastMember),
    ] {
        let mut world = World::with(nodes, &majority());
        assert_eq!(world.refused(1, &Command::Leave), expected, "{nodes:?}");
        if nodes.len() > 1 {
            assert_eq!(world.proposal_refused(2, Change::Remove { org: OrgId(1) }), expected, "{nodes:?}");
        }
    }
    let mut world = World::with(&[1, 1, 2], &majority());
    let loss = world.run(1, &Command::Leave);
    assert!(loss.is_ok(), "three seats are left: {loss:?}");
}

/// Until the next committee is in force, whoever has gone has its seats and decides nothing by them.
#[test]
fn those_who_have_gone_do_not_make_up_the_quorum() {
    let mut world = World::with(&[1; 5], &anyone());
    world.enact(Change::Remove { org: OrgId(5) });
    assert!(world.run(4, &Command::Leave).is_ok(), "three of five are left, and three decide");
    let refusal = world.run(3, &Command::Leave).unwrap_err();
    assert_eq!(refusal.reject, R::QuorumLostNow);
    assert!(refusal.to_string().contains("2 seats would be left of 3, and 3 decide"), "{refusal}");
    assert_eq!(world.proposal_refused(1, Change::Remove { org: OrgId(2) }), R::QuorumLostNow);
}

#[test]
fn nobody_goes_whom_a_policy_cannot_do_without() {
    let mut world = World::five();
    world.enact(Change::Policy { subject: Subject::Freeze, policy: only(5) });
    let refusal = world.run(5, &Command::Leave).unwrap_err();
    assert_eq!(refusal.reject, R::PolicyUnsatisfiable);
    assert!(refusal.to_string().contains("the policy of freeze, #5.admin"), "{refusal}");
    assert_eq!(world.proposal_refused(1, Change::Remove { org: OrgId(5) }), R::PolicyUnsatisfiable);
    world.enact(Change::Policy { subject: Subject::Freeze, policy: anyone() });
    assert!(world.run(5, &Command::Leave).is_ok());
}

#[test]
fn keys_are_added_rotated_and_revoked_but_never_the_last_admin() {
    let mut world = World::five();
    let own = admin(1).public();
    assert_eq!(world.refused(1, &Command::RevokeKey { key: own }), R::LastAdmin);
    assert_eq!(world.proposal_refused(2, Change::RevokeKey { org: OrgId(1), key: own }), R::LastAdmin);
    let add = |key: PublicKey, role| Command::AddKey { key, role };
    let desk = key(1, "desk").public();
    world.run(1, &add(desk, Role::Member)).unwrap();
    assert_eq!(world.refused(1, &Command::RevokeKey { key: own }), R::LastAdmin, "a member's key is no admin's");
    for (key, role, expected) in [
        (desk, Role::Admin, R::KeyInUse),
        (admin(2).public(), Role::Admin, R::KeyInUse),
        (PublicKey([5; 33]), Role::Admin, R::KeyForm),
        (key(1, "x").public(), Role::Node, R::KeyForm),
        (key(1, "x").public(), Role::Auditor, R::KeyForm),
    ] {
        assert_eq!(world.refused(1, &add(key, role)), expected);
    }
    let leave = world.run_with(1, &key(1, "desk"), &Command::Leave);
    assert_eq!(leave.unwrap_err().reject, R::Role, "only admins act");
    let next = key(1, "next");
    world.run(1, &Command::RotateKey { old: own, new: next.public() }).unwrap();
    assert_eq!(world.refused(1, &Command::Leave), R::KeyUnknown, "the old key is out");
    let spare = key(1, "spare").public();
    world.run_with(1, &next, &add(spare, Role::Admin)).unwrap();
    world.run_with(1, &next, &Command::RevokeKey { key: spare }).unwrap();
    let again = world.run_with(1, &next, &add(spare, Role::Admin));
    assert_eq!(again.unwrap_err().reject, R::KeyRevoked, "a revoked key does not come back");
    let signed = world.run_with(1, &key(1, "spare"), &Command::Leave);
    assert_eq!(signed.unwrap_err().reject, R::CredentialRevoked);
}

#[test]
fn the_others_can_revoke_a_stolen_key() {
    let mut world = World::five();
    let spare = key(1, "spare").public();
    world.run(1, &Command::AddKey { key: spare, role: Role::Admin }).unwrap();
    let stolen = Change::RevokeKey { org: OrgId(1), key: spare };
    let (id, _) = world.propose(2, stolen.clone());
    world.approve(3, id);
    assert_eq!(world.approve(4, id), S::Applied);
    assert_eq!(world.run_with(1, &key(1, "spare"), &Command::Leave).unwrap_err().reject, R::CredentialRevoked);
    assert_eq!(world.proposal_refused(2, stolen), R::KeyUnknown);
}

#[test]
fn keys_and_revocations_are_bounded() {
    let mut world = World::five();
    for number in 1..KEYS_PER_MEMBER_MAX {
        let key = key(1, &number.to_string()).public();
        world.run(1, &Command::AddKey { key, role: Role::Member }).unwrap();
    }
    let more = Command::AddKey { key: key(1, "more").public(), role: Role::Member };
    assert_eq!(world.refused(1, &more), R::KeyForm);
    for number in 0..REVOCATIONS_PER_MEMBER_MAX {
        let credential = Hash32([u8::try_from(number).unwrap(); 32]);
        world.run(2, &Command::RevokeCertificate { credential }).unwrap();
        world.now += DAY / 200;
    }
    assert_eq!(world.refused(2, &Command::RevokeCertificate { credential: Hash32([3; 32]) }), R::NoChange);
    let credential = ledger::hash::sha256(b"more");
    assert_eq!(world.refused(2, &Command::RevokeCertificate { credential }), R::RevocationsFull);
    let own = state::credential_of(&admin(3).public());
    assert_eq!(world.refused(3, &Command::RevokeCertificate { credential: own }), R::KeyForm, "keys go as keys");
}

#[test]
fn nodes_are_set_where_the_quorum_bears_it() {
    let mut world = World::with(&[3, 1, 1], &anyone());
    let set = |nodes: &[u32]| Command::SetNodes { nodes: nodes.iter().copied().map(NodeId).collect() };
    assert_eq!(world.refused(1, &set(&[10, 11, 12])), R::NoChange);
    assert_eq!(world.refused(1, &set(&[])), R::NodesForm);
    assert_eq!(world.refused(1, &set(&[20])), R::NodeUnknown);
    assert_eq!(world.refused(1, &set(&[11])), R::AnchorsForm, "10 is its anchor");
    world.run(1, &set(&[10, 11, 12, 13])).unwrap();
    world.run(1, &set(&[10])).unwrap();
    let mut small = World::with(&[1, 1, 1], &anyone());
    world.enact(Change::Anchors { org: OrgId(2), nodes: vec![] });
    small.enact(Change::Anchors { org: OrgId(2), nodes: vec![] });
    assert_eq!(small.refused(2, &set(&[21])), R::QuorumLostNext, "its only seat would go at once");
    small.run(2, &set(&[20, 21])).unwrap();
    assert_eq!(small.read(|view| state::member(view, OrgId(2))).unwrap().nodes.len(), 2);
}

#[test]
fn anchors_are_ones_own() {
    let mut world = World::with(&[2, 2, 1], &majority());
    let set = |org: u16, nodes: &[u32]| Change::Anchors {
        org: OrgId(org),
        nodes: nodes.iter().copied().map(NodeId).collect(),
    };
    assert_eq!(world.proposal_refused(1, set(2, &[21])), R::AnchorsNotYours);
    assert_eq!(world.proposal_refused(1, set(1, &[20])), R::AnchorsForm);
    assert_eq!(world.proposal_refused(1, set(1, &[11, 10])), R::AnchorsForm);
    assert_eq!(world.proposal_refused(1, set(1, &[10])), R::NoChange);
    let (mine, _) = world.propose(1, set(1, &[11]));
    let (theirs, _) = world.propose(2, set(2, &[21]));
    assert_eq!(world.approve(3, mine), S::Applied);
    assert_eq!(world.approve(3, theirs), S::Applied, "another organisation's anchors are another matter");
    assert_eq!(world.read(|view| state::member(view, OrgId(1))).unwrap().anchors, [NodeId(11)]);
}

#[test]
fn the_registry_revokes_and_renews() {
    let mut world = World::five();
    let own = admin(1).public();
    world.follow(|view, at| follow::apply_revocation(view, at, OrgId(1), &state::credential_of(&own)));
    assert_eq!(world.refused(1, &Command::Leave), R::CredentialRevoked);
    let renewed = key(1, "renewed");
    world.follow(|view, _| follow::apply_admin_key(view, OrgId(1), &renewed.public()));
    world.follow(|view, _| follow::apply_admin_key(view, OrgId(1), &own));
    world.follow(|view, _| follow::apply_admin_key(view, OrgId(7), &renewed.public()));
    assert_eq!(world.read(|view| state::member(view, OrgId(1))).unwrap().keys.len(), 1);
    assert!(world.run_with(1, &renewed, &Command::Leave).is_ok());
}

#[test]
fn a_node_speaks_with_the_key_that_the_registry_has_for_it() {
    let mut world = World::five();
    let member = |world: &World| world.read(|view| state::member(view, OrgId(1))).unwrap();
    let (before, next) = (member(&world), key(1, "next").public());
    let host = before.nodes[0];
    assert_eq!((before.role_of(&host.key), before.role_of(&next)), (Some(Role::Node), None));
    // Not a node of the channel, not a member, not that member's node.
    for (org, node) in [(1, NodeId(99)), (7, host.node), (2, host.node)] {
        world.follow(|view, _| follow::apply_node_key(view, OrgId(org), node, &next));
        assert_eq!(member(&world), before);
    }
    world.follow(|view, _| follow::apply_node_key(view, OrgId(1), host.node, &next));
    let after = member(&world);
    assert_eq!((after.role_of(&host.key), after.role_of(&next)), (None, Some(Role::Node)));
    assert_eq!((after.nodes.len(), after.nodes[0].node), (before.nodes.len(), host.node));
    assert_eq!((after.keys, after.anchors), (before.keys, before.anchors));
}

#[test]
fn the_registry_leaves_every_member_an_admin() {
    let own = admin(1).public();
    let in_channel = key(1, "in the channel").public();
    let replace = Command::RotateKey { old: own, new: in_channel };
    let keys = |world: &World| {
        let member = world.read(|view| state::member(view, OrgId(1))).unwrap();
        member.keys.iter().map(|found| (found.key, found.role)).collect::<Vec<_>>()
    };
    let revoke = |world: &mut World, what: &PublicKey| {
        world.follow(|view, at| follow::apply_revocation(view, at, OrgId(1), &state::credential_of(what)));
    };
    let keep = |world: &mut World, key: &PublicKey| world.follow(|view, _| follow::keep_an_admin(view, OrgId(1), key));

    // Its only admin in the channel is another key than the registry's, and the registry revokes that one.
    let mut world = World::five();
    world.run(1, &replace).unwrap();
    keep(&mut world, &own);
    assert_eq!(keys(&world), [(in_channel, Role::Admin)], "nothing is missing");
    revoke(&mut world, &in_channel);
    keep(&mut world, &own);
    assert_eq!(keys(&world), [(own, Role::Admin)]);
    assert!(world.run(1, &Command::Leave).is_ok());
    keep(&mut world, &own);
    assert!(world.read(|view| state::member(view, OrgId(1))).is_none(), "nobody becomes a member by it");

    // The registry's key is a member's key in the channel.
    let mut world = World::five();
    let plain = key(1, "plain").public();
    world.run(1, &Command::AddKey { key: plain, role: Role::Member }).unwrap();
    revoke(&mut world, &own);
    keep(&mut world, &plain);
    assert_eq!(keys(&world), [(plain, Role::Admin)]);

    // It was revoked in the channel: the next one counts.
    let mut world = World::five();
    world.run(1, &Command::AddKey { key: in_channel, role: Role::Admin }).unwrap();
    world.run(1, &Command::RevokeKey { key: own }).unwrap();
    revoke(&mut world, &in_channel);
    keep(&mut world, &own);
    assert_eq!(keys(&world), []);
    let renewed = key(1, "renewed").public();
    world.follow(|view, _| follow::apply_admin_key(view, OrgId(1), &renewed));
    assert_eq!(keys(&world), [(renewed, Role::Admin)]);
}

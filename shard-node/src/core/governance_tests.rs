use beacon::command::BeaconCommand;
use channel::opening::first_policies;
use channel::{
    Change, ChannelReject, Command as Act, Engine, Opening, Outcome as Said, Phase, ProposalState, Role, Subject,
};
use cross_shard::notice::{AnchorsUpdate, ChannelStatus};
use ledger::ids::{AssetId, LedgerId};
use ledger::{Move, Outcome, SecretKey, SignedTx};

use super::*;
use crate::core::consortium::{
    Consortium, HOUR, SHARDS, address, admin, clear, client, majority, node_info, node_key, node_of, only, org_info,
};
use crate::core::entry::Command;
use crate::core::machine::CommandOutcome;

fn shown(world: &Consortium, group: GroupId) -> ChannelUpdate {
    let directory = world.chain(GroupId::BEACON).read(beacon::channels::directory);
    directory.into_iter().find(|entry| entry.group == group).expect("it is in the directory").shown
}

fn pay_in(world: &mut Consortium, group: GroupId, from: u8, to: u8, asset: AssetId, amount: u128) -> SignedTx {
    let (from, to) = (client(from), client(to));
    let mv = Move::Pay { from: address(&from), to: address(&to), asset, amount };
    world.sign(vec![clear(LedgerId::of_channel(group), mv)], &[&from])
}

/// A channel with 100 of a permitted asset in client 1's account.
fn funded() -> (Consortium, GroupId, AssetId) {
    let (mut world, group, _) = Consortium::with_two_channels();
    let asset = world.issue("EUR");
    world.bring(&client(1), asset, 100, group);
    world.enact(group, [1, 2], Change::PermitAsset { asset });
    world.settle();
    (world, group, asset)
}

#[test]
fn a_channel_that_was_founded_knows_the_cluster_and_is_known() {
    let mut world = Consortium::new();
    let asset = world.issue("EUR");
    let group = world.found("steel", &[1, 2, 3]);
    world.settle();
    let chain = world.chain(group);
    let members = chain.read(state::members);
    assert_eq!(members.iter().map(|member| member.org.0).collect::<Vec<_>>(), [1, 2, 3]);
    let extract: RegistryUpdate = chain.read(|view| view.load(&schema::registry_extract())).expect("it came by mail");
    assert_eq!((extract.orgs.len(), extract.nodes.len()), (4, 16));
    for known in [GroupId::BEACON, SHARDS[0], SHARDS[1], group] {
        assert!(chain.read(|view| view.get(&schema::current_committee(known))).is_some(), "{known}");
        let there = world.chain(known).read(|view| view.get(&schema::current_committee(group)));
        assert!(there.is_some(), "{known} does not know the channel");
    }
    assert!(chain.read(|view| view.get(&schema::asset(&asset))).is_some(), "assets of before are known");
    assert_eq!(
        shown(&world, group),
        super::shown(&mut View::new(&chain.state)).expect("it is a channel"),
        "charter and state agree"
    );
}

#[test]
fn names_are_given_once_and_terms_are_judged_by_the_registry() {
    let mut world = Consortium::new();
    world.found("steel", &[1, 2, 3]);
    let mut refused = |name: &str, invited: &[u16], by: u16| {
        let propose = world.proposal(name, by, invited);
        world.beacon(by, &propose)
    };
    for (name, invited) in [("steel", vec![2]), ("x", vec![9]), ("x", vec![1]), ("x", vec![2, 2])] {
        assert_eq!(refused(name, &invited, 1), CommandOutcome::Ignored(Reject::ChannelRefused), "{name} {invited:?}");
    }
    assert_eq!(refused("x", &[2], 1), CommandOutcome::Registered);
}

#[test]
fn a_channel_goes_by_what_was_promised_from_the_block_that_brings_the_opening() {
    let mut world = Consortium::new();
    let opening = Consortium::agreed();
    let group = world.start("steel", &[1, 2, 3]);
    world.settle();
    let of = |world: &Consortium| world.chain(group).read(|view| state::policy(view, Subject::Freeze));
    assert_eq!(of(&world), first_policies().into_iter().map(|(_, policy)| policy).next());
    // Everybody is asked until then.
    let freeze = Act::Propose { change: Change::Freeze, until_ms: TimeMs(world.now + HOUR) };
    let Ok(Said::Proposal { id, .. }) = world.govern(group, 1, &freeze) else { panic!("it is proposed") };
    let open = |state| Ok(Said::Proposal { id, state });
    assert_eq!(world.govern(group, 2, &Act::Approve { proposal: id }), open(ProposalState::Open));
    let other = Opening::new([8; 32], opening.policies.clone());
    assert_eq!(world.govern(group, 2, &Act::Open { opening: other }), Err(ChannelReject::OpeningWrong));
    let open_it = Act::Open { opening };
    assert_eq!(world.govern(group, 2, &open_it), Ok(Said::Done));
    assert_eq!(of(&world), Some(majority()));
    assert_eq!(world.govern(group, 3, &open_it), Err(ChannelReject::PromiseKept));
    assert_eq!(world.govern(group, 3, &Act::Settle { proposal: id }), open(ProposalState::Applied), "two are enough");
}

#[test]
fn a_frozen_channel_writes_nothing_and_the_directory_shows_it() {
    let (mut world, group, asset) = funded();
    world.enact(group, [2, 3], Change::Freeze);
    let tx = pay_in(&mut world, group, 1, 2, asset, 5);
    let refused = CommandOutcome::Refused(tx.txid(&world.cluster), Reject::ChannelFrozen);
    assert_eq!(world.submit(group, &tx, &[]), refused);
    world.settle();
    assert_eq!(shown(&world, group).status, ChannelStatus::Frozen);
    world.enact(group, [2, 3], Change::Thaw);
    assert!(matches!(world.submit(group, &tx, &[]), CommandOutcome::Receipt(..)), "it left no trace");
    world.settle();
    assert_eq!(shown(&world, group).status, ChannelStatus::Running);
    assert_eq!(world.chain(group).balance(&client(2), asset), 5);
}

#[test]
fn an_asset_that_is_not_permitted_can_only_go_home() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let asset = world.issue("EUR");
    world.bring(&client(1), asset, 100, group);
    let tx = pay_in(&mut world, group, 1, 2, asset, 5);
    let refused = CommandOutcome::Refused(tx.txid(&world.cluster), Reject::AssetNotPermitted);
    assert_eq!(world.submit(group, &tx, &[]), refused);
    let from = address(&client(1));
    let back = Move::Transfer { from, to: from, asset, amount: 40, ledger: LedgerId::MAIN };
    let back = world.sign(vec![clear(LedgerId::of_channel(group), back)], &[&client(1)]);
    assert!(matches!(world.submit(group, &back, &[]), CommandOutcome::Receipt(..)));
    world.settle();
    let home = world.home(&client(1));
    assert_eq!(world.chain(home).balance(&client(1), asset), 40);
    world.enact(group, [1, 2], Change::PermitAsset { asset });
    assert!(matches!(world.submit(group, &tx, &[]), CommandOutcome::Receipt(..)));
    assert_eq!(world.chain(group).balance(&client(2), asset), 5);
}

#[test]
fn members_join_and_go_and_the_directory_follows() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let until_ms = TimeMs(world.now + HOUR);
    world.enact(group, [1, 2], Change::Invite { org: OrgId(4), until_ms });
    let joined = world.govern(group, 4, &Act::Join { nodes: vec![node_of(4, 2)] });
    assert!(matches!(joined, Ok(Said::Joined { .. })), "{joined:?}");
    world.settle();
    assert_eq!(shown(&world, group).members, [1, 2, 3, 4].map(OrgId));
    assert!(shown(&world, group).nodes.contains(&node_of(4, 2)));
    // Its seat is not in the committee yet, so nothing is lost with it.
    let left = world.govern(group, 4, &Act::Leave);
    assert!(matches!(left, Ok(Said::Left { .. })), "{left:?}");
    world.settle();
    assert_eq!(shown(&world, group).members, [1, 2, 3].map(OrgId));
    assert_eq!(world.govern(group, 4, &Act::Decline), Err(ChannelReject::NotInvited));
    assert_eq!(world.govern(group, 4, &Act::Leave), Err(ChannelReject::Removed));
    assert_eq!(world.govern(group, 3, &Act::Leave), Err(ChannelReject::QuorumLostNext));
}

#[test]
fn a_channel_that_wants_another_engine_is_prepared_for_it() {
    let mut world = Consortium::new();
    let group = world.found("iron", &[1, 2, 3, 4]);
    world.settle();
    let (change, until_ms) = (Change::Engine { engine: Engine::Bft }, TimeMs(world.now + HOUR));
    let made = world.govern(group, 1, &Act::Propose { change, until_ms });
    let Ok(Said::Proposal { id, .. }) = made else { panic!("{made:?}") };
    for org in [2, 3] {
        world.govern(group, org, &Act::Approve { proposal: id }).expect("it counts");
    }
    world.settle();
    assert_eq!(shown(&world, group).engine, Engine::Bft);
    let chain = world.chain(group);
    let current: Committee = chain.read(|view| view.load(&schema::current_committee(group))).expect("it has one");
    let coming: Committee = chain.read(|view| view.load(&schema::coming_committee())).expect("it came by mail");
    assert_eq!((current.engine, current.members.len()), (Engine::Raft, 4), "nothing is in force yet");
    assert_eq!((coming.engine, coming.threshold, coming.members), (Engine::Bft, 3, current.members));
}

#[test]
fn what_a_channel_knows_of_the_registry_comes_by_mail() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let invite = |until_ms| Act::Propose { change: Change::Invite { org: OrgId(5), until_ms }, until_ms };
    let until_ms = TimeMs(world.now + HOUR);
    assert_eq!(world.govern(group, 1, &invite(until_ms)), Err(ChannelReject::OrgUnknown));
    for org in 1..=3 {
        world.beacon(org, &BeaconCommand::RegisterOrg(org_info(5)));
    }
    world.beacon(5, &BeaconCommand::RegisterNode(node_info(5, 0)));
    assert_eq!(world.govern(group, 1, &invite(until_ms)), Err(ChannelReject::OrgUnknown), "not before its mail");
    world.settle();
    world.enact(group, [1, 2], Change::Invite { org: OrgId(5), until_ms });
    assert_eq!(world.govern(group, 5, &Act::Join { nodes: vec![node_of(5, 1)] }), Err(ChannelReject::NodeUnknown));
    assert!(world.govern(group, 5, &Act::Join { nodes: vec![node_of(5, 0)] }).is_ok());
    // A change that channels do not go by is not told.
    let before = world.chain(GroupId::BEACON).mailed.len();
    world.beacon(5, &BeaconCommand::SetNodeCapacity { node: node_of(5, 0), capacity: 2 });
    assert_eq!(world.chain(GroupId::BEACON).mailed.len(), before);
}

#[test]
fn a_rotated_admin_key_counts_from_the_block_that_brings_it() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let fresh = SecretKey::derive(b"fresh", b"admin");
    let rotate = BeaconCommand::RotateAdminKey { key: fresh.public() };
    assert_eq!(world.beacon(1, &rotate), CommandOutcome::Registered);
    let until_ms = TimeMs(world.now + HOUR);
    let freeze = Act::Propose { change: Change::Freeze, until_ms };
    assert_eq!(world.govern_by(group, 1, &fresh, &freeze), Err(ChannelReject::KeyUnknown));
    world.settle();
    assert_eq!(world.govern_by(group, 1, &admin(1), &freeze), Err(ChannelReject::CredentialRevoked));
    assert!(world.govern_by(group, 1, &fresh, &freeze).is_ok());
    // It cannot come back, and the key in force cannot be revoked.
    let back = BeaconCommand::RotateAdminKey { key: admin(1).public() };
    assert_eq!(world.beacon_by(1, &fresh, &back), CommandOutcome::Ignored(Reject::Registry));
    let credential = ledger::hash::sha256(&fresh.public().0);
    let own = BeaconCommand::RevokeCredential { credential };
    assert_eq!(world.beacon_by(1, &fresh, &own), CommandOutcome::Ignored(Reject::Registry));
}

/// The beacon does not know which keys are admins of a channel, so it cannot refuse to revoke the last one.
#[test]
fn the_registry_takes_no_member_its_last_admin() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let fresh = SecretKey::derive(b"fresh", b"in the channel");
    let replace = Act::RotateKey { old: admin(1).public(), new: fresh.public() };
    assert_eq!(world.govern(group, 1, &replace), Ok(Said::Done));
    let credential = ledger::hash::sha256(&fresh.public().0);
    assert_eq!(world.beacon(1, &BeaconCommand::RevokeCredential { credential }), CommandOutcome::Registered);
    world.settle();
    let freeze = Act::Propose { change: Change::Freeze, until_ms: TimeMs(world.now + HOUR) };
    assert_eq!(world.govern_by(group, 1, &fresh, &freeze), Err(ChannelReject::CredentialRevoked));
    assert!(world.govern(group, 1, &freeze).is_ok(), "its key in the registry speaks for it");
    // Nor does another authority for its certificates: no key hangs on it.
    let ca_pem = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n".to_owned();
    assert_eq!(world.beacon(1, &BeaconCommand::UpdateOrgCa { ca_pem }), CommandOutcome::Registered);
    world.settle();
    let thaw = Act::Propose { change: Change::Thaw, until_ms: TimeMs(world.now + HOUR) };
    assert_eq!(world.govern(group, 1, &thaw), Err(ChannelReject::Transition), "it is not frozen yet");
}

#[test]
fn a_key_that_was_replaced_in_a_channel_does_not_come_back_with_the_registry() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let fresh = SecretKey::derive(b"fresh", b"in the channel");
    let replace = Act::RotateKey { old: admin(1).public(), new: fresh.public() };
    assert_eq!(world.govern(group, 1, &replace), Ok(Said::Done));
    // The registry has the old key for that organisation, and tells of something else.
    let revoke = BeaconCommand::RevokeCredential { credential: Hash32([7; 32]) };
    assert_eq!(world.beacon(2, &revoke), CommandOutcome::Registered);
    world.settle();
    let freeze = Act::Propose { change: Change::Freeze, until_ms: TimeMs(world.now + HOUR) };
    assert_eq!(world.govern(group, 1, &freeze), Err(ChannelReject::KeyUnknown));
    assert!(world.govern_by(group, 1, &fresh, &freeze).is_ok());
}

#[test]
fn a_revoked_certificate_is_revoked_in_every_channel() {
    let (mut world, first, second) = Consortium::with_two_channels();
    let credential = Hash32([7; 32]);
    assert_eq!(world.beacon(2, &BeaconCommand::RevokeCredential { credential }), CommandOutcome::Registered);
    world.settle();
    for group in [first, second] {
        let found = world.chain(group).read(|view| state::revocation(view, OrgId(2), &credential));
        assert!(found.is_some_and(|revocation| revocation.height > Height(0)), "{group}");
    }
    // A channel that is founded later hears of it with its first mail.
    let third = world.found("later", &[1, 2, 3]);
    world.settle();
    assert!(world.chain(third).read(|view| state::revocation(view, OrgId(2), &credential)).is_some());
}

#[test]
fn a_channel_closes_when_nothing_is_under_way() {
    let (mut world, group, asset) = funded();
    assert_eq!(world.govern(group, 1, &Act::FinishClose), Err(ChannelReject::Transition));
    // A transaction with a shard is prepared here.
    let (mine, theirs) = (client(1), client(9));
    let here = Move::Pay { from: address(&mine), to: address(&theirs), asset, amount: 1 };
    let there = Move::Pay { from: address(&theirs), to: address(&mine), asset, amount: 1 };
    world.mint(&theirs, asset, 5);
    let slots = vec![clear(LedgerId::of_channel(group), here), clear(LedgerId::MAIN, there)];
    let swap = world.sign(slots, &[&mine, &theirs]);
    assert!(matches!(world.submit(group, &swap, &[]), CommandOutcome::Voted(..)));
    world.enact(group, [1, 2], Change::Close);
    let tx = pay_in(&mut world, group, 1, 2, asset, 5);
    let refused = CommandOutcome::Refused(tx.txid(&world.cluster), Reject::ChannelClosing);
    assert_eq!(world.submit(group, &tx, &[]), refused);
    assert_eq!(world.govern(group, 1, &Act::FinishClose), Err(ChannelReject::CloseRegisters));
    let home = world.home(&theirs);
    // What it voted for before is carried out. Of what the main ledger is to debit it is handed the signature itself.
    assert!(matches!(world.submit(home, &swap, &[]), CommandOutcome::Voted(..)));
    world.settle();
    assert!(matches!(world.chain(group).outcome(&swap), Some(Outcome::Committed { .. })));
    assert_eq!(
        world.govern(group, 1, &Act::FinishClose),
        Err(ChannelReject::CloseRegisters),
        "the grace has not passed"
    );
    world.now += 3 * 60_000;
    world.block(group, Vec::new());
    world.block(SHARDS[0], Vec::new());
    assert_eq!(world.govern(group, 1, &Act::FinishClose), Ok(Said::Phase(Phase::Closed)));
    world.settle();
    assert_eq!(shown(&world, group).status, ChannelStatus::Closed);
    let tx = pay_in(&mut world, group, 1, 2, asset, 5);
    let refused = CommandOutcome::Refused(tx.txid(&world.cluster), Reject::ChannelClosed);
    assert_eq!(world.submit(group, &tx, &[]), refused);
}

#[test]
fn a_channel_does_not_close_over_mail_that_waits() {
    let (mut world, group, _) = funded();
    world.enact(group, [1, 2], Change::Close);
    assert_eq!(world.govern(group, 1, &Act::FinishClose), Err(ChannelReject::CloseMail), "the beacon has not heard");
    world.settle();
    assert_eq!(world.govern(group, 1, &Act::FinishClose), Ok(Said::Phase(Phase::Closed)));
}

/// Nobody takes the mail of a closed channel whose nodes have gone, and nobody waits for that: assets are issued as before.
#[test]
fn a_closed_channel_whose_stream_is_full_keeps_nobody_from_issuing_assets() {
    let (mut world, group, _) = funded();
    let issue = |world: &mut Consortium, symbol: &str| {
        let (symbol, name) = (symbol.to_owned(), "x".to_owned());
        let spec = ledger::AssetSpec { issuer: address(&client(0)), symbol, name, decimals: 0 };
        let tx = world.sign(vec![clear(LedgerId::BEACON, Move::Issue(spec))], &[&client(0)]);
        (tx.txid(&world.cluster), world.submit(GroupId::BEACON, &tx, &[]))
    };
    let key = ledger::schema::outbox(group);
    // As many messages as the window has, none of them taken.
    let full =
        stream::OutStream { next_seq: ledger::limits::MAIL_WINDOW_MESSAGES, acked: 0, peaks: vec![Hash32([1; 32])] };
    let fill = |world: &mut Consortium| {
        let bytes = bytes::Bytes::from(borsh::to_vec(&full).expect("writing to memory does not fail"));
        let beacon = world.chains.get_mut(&GroupId::BEACON).expect("it runs");
        beacon.state.insert(key.clone(), bytes).expect("it was told before")
    };
    let before = fill(&mut world);
    let (txid, waits) = issue(&mut world, "USD");
    assert_eq!(waits, CommandOutcome::Refused(txid, Reject::PeerBusy), "a channel that is not closed is waited for");
    world.chains.get_mut(&GroupId::BEACON).expect("it runs").state.insert(key.clone(), before);
    // The last block of the beacon is one that says so, too.
    let (txid, issued) = issue(&mut world, "EUR");
    assert!(matches!(issued, CommandOutcome::Receipt(of, _) if of == txid), "{issued:?}");
    world.enact(group, [1, 2], Change::Close);
    world.settle();
    assert_eq!(world.govern(group, 1, &Act::FinishClose), Ok(Said::Phase(Phase::Closed)));
    world.settle();
    assert_eq!(shown(&world, group).status, ChannelStatus::Closed);
    fill(&mut world);
    let mailed = world.chain(GroupId::BEACON).mailed.len();
    let (txid, issued) = issue(&mut world, "USD");
    assert!(matches!(issued, CommandOutcome::Receipt(of, _) if of == txid), "{issued:?}");
    let told: Vec<GroupId> = world.chain(GroupId::BEACON).mailed[mailed..].iter().map(|(dest, _)| *dest).collect();
    assert!(told.contains(&SHARDS[0]) && !told.contains(&group), "the others hear of it: {told:?}");
}

#[test]
fn everybody_is_told_who_carries_a_channels_mail_until_it_ends() {
    let (mut world, group, other) = Consortium::with_two_channels();
    let told = |world: &Consortium| {
        [SHARDS[0], SHARDS[1], group, other].map(|at| {
            let update = world.chain(at).read(|view| view.load::<AnchorsUpdate>(&schema::anchors(group)));
            update.map(|update| update.anchors)
        })
    };
    world.settle();
    let first = shown(&world, group).anchors;
    assert!(first.len() > 1 && first.contains(&node_of(1, 3)), "{first:?}");
    assert_eq!(told(&world).to_vec(), vec![Some(first.clone()); 4]);
    world.enact(group, [1, 2], Change::Anchors { org: OrgId(1), nodes: Vec::new() });
    world.settle();
    let left: Vec<NodeId> = first.into_iter().filter(|node| *node != node_of(1, 3)).collect();
    assert_eq!(told(&world).to_vec(), vec![Some(left); 4]);
    world.enact(group, [1, 2], Change::Close);
    world.settle();
    assert_eq!(told(&world).to_vec(), vec![None; 4], "every replica carries the mail of a channel that ends");
}

#[test]
fn the_next_key_of_a_node_speaks_from_the_block_that_brings_it_and_signs_when_the_committee_names_it() {
    let (mut world, group, _) = Consortium::with_two_channels();
    let host = node_of(1, 3);
    let (old, next) = (node_key(host), SecretKey::derive(b"next", b"node"));
    let possession = beacon::keys::prove_possession(&world.cluster, host, &old.public(), &next);
    let rotate = BeaconCommand::RotateNodeKey { node: host, key: next.public(), possession };
    let roles = |world: &Consortium| {
        let member = world.chain(group).read(|view| state::member(view, OrgId(1))).expect("it is a member");
        (member.role_of(&old.public()), member.role_of(&next.public()))
    };
    assert_eq!(world.beacon(1, &rotate), CommandOutcome::Registered);
    assert_eq!(roles(&world), (Some(Role::Node), None), "not before its mail");
    world.settle();
    assert_eq!(roles(&world), (None, Some(Role::Node)));
    let key_in = |committee: Option<Committee>| {
        let committee = committee.expect("there is one");
        committee.members[committee.index_of(host).expect("it is a member")].key
    };
    let current = world.chain(group).read(|view| view.load(&schema::current_committee(group)));
    let coming = world.chain(group).read(|view| view.load(&schema::coming_committee()));
    assert_eq!((key_in(current), key_in(coming)), (old.public(), next.public()));
}

#[test]
fn only_a_channel_is_governed_and_only_by_its_own_commands() {
    let (mut world, group, other) = Consortium::with_two_channels();
    let until = TimeMs(world.now + HOUR);
    let sign = |to| channel::SignedCommand::sign(&world.cluster, to, OrgId(2), &Act::Leave, [1; 16], until, &admin(2));
    let (mine, garbage) = (sign(group).encode(), vec![1, 2, 3]);
    for at in [GroupId::BEACON, SHARDS[0], other] {
        let outcome = world.one(at, Command::Channel(mine.clone()));
        assert_eq!(outcome, CommandOutcome::Ignored(Reject::UnknownGroup), "{at}");
    }
    assert_eq!(world.one(group, Command::Channel(garbage)), CommandOutcome::Ignored(Reject::Malformed));
    let mut forged = mine;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(world.one(group, Command::Channel(forged)), CommandOutcome::Ignored(Reject::BadSignature));
}

#[test]
fn a_policy_is_changed_by_the_policy_about_policies() {
    let (mut world, group, _) = Consortium::with_two_channels();
    world.enact(group, [1, 2], Change::Policy { subject: Subject::Freeze, policy: only(3) });
    let until_ms = TimeMs(world.now + HOUR);
    let frozen = world.govern(group, 3, &Act::Propose { change: Change::Freeze, until_ms });
    assert!(matches!(frozen, Ok(Said::Proposal { state: channel::ProposalState::Applied, .. })), "{frozen:?}");
}

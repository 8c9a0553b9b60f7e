//! Keys of nodes that are replaced: who may, by which key, how each group comes to have it, and what holds of before.

use beacon::accused::{accusations, accuse};
use beacon::channels;
use beacon::command::BeaconCommand;
use beacon::keys::{REPLACED_KEY_VERSION, ReplacedKey, possession, prove_possession, replaced_key};
use beacon::limits::{NODE_KEY_STANDS_MS, REPLACED_KEY_ACCUSES_MS, REPLACED_KEYS_MAX, REPLACED_KEYS_OF_ORG};
use beacon::machine::{CommandOutcome, Executed};
use beacon::seats::{READINESS_VERSION, Readiness, apply_ready, joining, new_signers};
use beacon::watch::{Silence, Watch, WatchMode, apply_silence};
use cross_shard::message::Message;
use cross_shard::notice::{ChannelStatus, ChannelUpdate};
use ledger::certificate::{Certificate, CertificateError};
use ledger::committee::{Committee, Engine};
use ledger::crypto::{PublicKey, SecretKey, Signature};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, Epoch, GroupId, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::accused::{twice, twice_in};
use crate::channels::Beacon;
use crate::jobs::{SPLIT, seven};
use crate::nodes::World;
use crate::seats::run;
use crate::support::{admin, at, certified, node, node_key, settle};

/// The only node of organisation 3, which has a seat in every group.
const NODE: NodeId = NodeId(3);

/// Keys that no node begins with.
fn spare(number: u8) -> SecretKey {
    SecretKey::derive(b"spare", &[number])
}

fn secret(key: &PublicKey) -> SecretKey {
    let known = (1..=9).map(node_key).chain((1..=3).map(spare));
    known.into_iter().find(|secret| secret.public() == *key).expect("a key of the tests")
}

/// The command that gives a node this key, signed for by the key itself, as the registry is now.
fn rotate(world: &World, id: NodeId, key: &SecretKey) -> BeaconCommand {
    let before = world.view().nodes.iter().find(|node| node.id == id).expect("it is registered").key;
    let possession = prove_possession(&world.genesis.cluster_id(), id, &before, key);
    BeaconCommand::RotateNodeKey { node: id, key: key.public(), possession }
}

/// A header that a committee has certified in force, signed by these of its members.
fn certificate(
    world: &World,
    committee: &Committee,
    height: u64,
    keys: impl Fn(NodeId, &PublicKey) -> SecretKey,
) -> Certificate {
    let Certificate { mut header, .. } = certified(&world.genesis, committee.group, height, 1);
    (header.committee_hash, header.next_committee_hash) = (committee.hash(), committee.hash());
    let digest = header.hash();
    let sign = |member: &ledger::Member| (member.node, keys(member.node, &member.key).sign(&digest));
    let signatures = committee.members.iter().map(sign).collect();
    Certificate { version: 1, header, signatures }
}

fn ready(world: &World, current: &Committee, coming: &Committee, keys: impl Fn(&PublicKey) -> SecretKey) -> Readiness {
    let certificate = certificate(world, current, 5, |_, key| secret(key));
    let digest = certificate.header.hash();
    let sign = |node: NodeId| {
        let at = coming.index_of(node).expect("it is a member");
        (node, keys(&coming.members[at].key).sign(&digest))
    };
    let signatures = new_signers(current, coming).into_iter().map(sign).collect();
    Readiness { version: READINESS_VERSION, coming: coming.hash(), certificate, signatures }
}

fn take(world: &mut World, proof: &Readiness) -> Result<Executed, Reject> {
    let at = at(&world.genesis, world.now);
    run(&mut world.state, |view| apply_ready(view, &at, proof))
}

/// Puts what is prepared into force, until nothing is any more.
fn take_all(world: &mut World) {
    while let Some(coming) = world.view().coming.first().cloned() {
        let current = world.view().committee(coming.group).expect("it is in force").clone();
        let proof = ready(world, &current, &coming, secret);
        take(world, &proof).unwrap();
    }
}

/// The same, but for one group, which has no quorum.
fn take_all_but(world: &mut World, stuck: GroupId) {
    while let Some(coming) = world.view().coming.iter().find(|coming| coming.group != stuck).cloned() {
        let current = world.view().committee(coming.group).expect("it is in force").clone();
        let proof = ready(world, &current, &coming, secret);
        take(world, &proof).unwrap();
    }
}

/// The key by which a committee names the node.
fn key_in(committee: &Committee) -> PublicKey {
    committee.members[committee.index_of(NODE).expect("it has a seat")].key
}

#[test]
fn every_group_takes_the_new_key_in_the_same_seat_and_what_was_certified_before_holds() {
    let mut world = World::new();
    let (old, new) = (node_key(NODE.0), spare(1));
    let executed = world.command(3, &rotate(&world, NODE, &new)).unwrap();
    assert_eq!(executed.outcome, CommandOutcome::Applied);
    let view = world.view();
    assert_eq!(view.nodes.iter().find(|node| node.id == NODE).map(|node| node.key), Some(new.public()));
    let plans: Vec<_> =
        view.coming.iter().map(|coming| (coming.group, Message::CommitteePlan(coming.clone()))).collect();
    assert_eq!(plans.len(), 5, "the beacon and four shards");
    assert_eq!(executed.mail, plans);

    for coming in view.coming.clone() {
        let before = world.view().committee(coming.group).unwrap().clone();
        assert!(coming.well_formed() && joining(&before, &coming).is_empty() && joining(&coming, &before).is_empty());
        assert_eq!((coming.epoch, new_signers(&before, &coming)), (Epoch(1), vec![NODE]));
        assert_eq!(
            world.command(3, &rotate(&world, NODE, &spare(2))),
            Err(Reject::NodeKeyPending),
            "{} still has the key before",
            coming.group
        );
        // The node has to show that it has the key, which the certificate alone does not.
        let good = ready(&world, &before, &coming, secret);
        for (what, wrong) in [
            ("no signature", Readiness { signatures: Vec::new(), ..good.clone() }),
            ("with the key before", ready(&world, &before, &coming, |_| node_key(NODE.0))),
            ("with another one", ready(&world, &before, &coming, |_| spare(2))),
        ] {
            assert_eq!(take(&mut world, &wrong), Err(Reject::MailForged), "{what}");
        }
        let executed = take(&mut world, &good).unwrap();
        assert_eq!(executed.committees, std::slice::from_ref(&coming));
        assert_eq!(world.view().committee(coming.group), Some(&coming));

        let sound = |committee: &Committee| certificate(&world, committee, 9, |_, key| secret(key));
        assert_eq!(sound(&before).verify(&before), Ok(()), "what was certified before is judged by that committee");
        assert_eq!(sound(&coming).verify(&coming), Ok(()));
        let late = certificate(&world, &coming, 9, |node, key| if node == NODE { old.clone() } else { secret(key) });
        assert_eq!(late.verify(&coming), Err(CertificateError::Signature), "the key before counts no more");
        let early = certificate(&world, &before, 9, |node, key| if node == NODE { new.clone() } else { secret(key) });
        assert_eq!(early.verify(&before), Err(CertificateError::Signature), "nor the new one before its time");
    }
    assert!(world.view().coming.is_empty());

    // Neither key is taken again, and a third one is.
    assert_eq!(world.command(3, &rotate(&world, NODE, &old)), Err(Reject::NodeKeyUsed));
    let joins = node(NODE.0 + 3, 3, "zone-3");
    let with_old = ledger::genesis::NodeInfo { key: old.public(), ..joins };
    assert_eq!(world.command(3, &BeaconCommand::RegisterNode(with_old)), Err(Reject::NodeKeyUsed));
    world.command(3, &rotate(&world, NODE, &spare(2))).unwrap();
    take_all(&mut world);
    assert_eq!(world.command(3, &rotate(&world, NODE, &new)), Err(Reject::NodeKeyUsed));
    let groups = world.view().committees;
    assert!(groups.iter().all(|committee| committee.epoch == Epoch(2)), "two steps in each group");
}

#[test]
fn what_is_refused() {
    let mut world = World::new();
    // A node without a seat, which is struck off.
    world.command(3, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
    let of_gone = rotate(&world, NodeId(6), &spare(1));
    world.command(3, &BeaconCommand::RemoveNode { node: NodeId(6) }).unwrap();

    let (cluster, before, new) = (world.genesis.cluster_id(), node_key(NODE.0).public(), spare(1));
    let with = |key: PublicKey, possession: Signature| BeaconCommand::RotateNodeKey { node: NODE, key, possession };
    let proof = |key: &SecretKey| prove_possession(&cluster, NODE, &before, key);
    let own = |key: SecretKey| with(key.public(), proof(&key));
    let elsewhere = prove_possession(&ClusterId(Hash32([1; 32])), NODE, &before, &new);
    let of_other = prove_possession(&cluster, NodeId(2), &before, &new);
    let after_other = prove_possession(&cluster, NODE, &node_key(2).public(), &new);
    let by_old = node_key(NODE.0).sign(&possession(&cluster, NODE, &before, &new.public()));
    for (what, by, command, expected) in [
        ("the key that it has", 3, own(node_key(NODE.0)), Reject::NodeKeyUsed),
        ("another node's key", 3, own(node_key(1)), Reject::NodeKeyUsed),
        ("the key of one that is gone", 3, own(node_key(6)), Reject::NodeKeyUsed),
        ("an admin's key", 3, own(admin(2)), Reject::NodeKeyUsed),
        ("signed by the key before", 3, with(new.public(), by_old), Reject::NodeKeyProof),
        ("signed for another cluster", 3, with(new.public(), elsewhere), Reject::NodeKeyProof),
        ("signed for another node", 3, with(new.public(), of_other), Reject::NodeKeyProof),
        ("signed behind another key", 3, with(new.public(), after_other), Reject::NodeKeyProof),
        ("no point of the curve", 3, with(PublicKey([5; 33]), proof(&new)), Reject::NodeKeyProof),
        ("another organisation's node", 2, own(spare(1)), Reject::NotAuthorised),
        ("a node that is gone", 3, of_gone, Reject::NodeGone),
        (
            "a node that there is not",
            3,
            BeaconCommand::RotateNodeKey { node: NodeId(99), key: new.public(), possession: proof(&new) },
            Reject::NodeUnknown,
        ),
    ] {
        assert_eq!(world.command(by, &command), Err(expected), "{what}");
    }

    // A group of it is being changed: node 2 gives its seats up.
    world.command(2, &BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 0 }).unwrap();
    assert_eq!(world.command(3, &own(spare(1))), Err(Reject::NodeKeyBusy));
    take_all(&mut world);
    // Something is held against it.
    let mut held = World::new();
    let double = twice(&held.genesis, NODE.0);
    let context = at(&held.genesis, held.now);
    run(&mut held.state, |view| {
        let mail = accuse(view, &context, &double);
        Ok(Executed { mail, ..CommandOutcome::Applied.into() })
    })
    .unwrap();
    assert_eq!(held.command(3, &own(spare(1))), Err(Reject::NodeKeyHeld));
    // Nothing stands in the way any more.
    world.command(3, &own(spare(1))).unwrap();
}

#[test]
fn while_a_job_is_about_a_shard_its_members_keep_their_keys() {
    let mut world = World::of(seven());
    let job = world.decide(SPLIT, false);
    let [shard] = SPLIT.groups()[..] else { panic!("a cut is of one shard") };
    let member = world.committee(shard).members[0].clone();
    let command = rotate(&world, member.node, &spare(1));
    assert_eq!(world.command(member.org.0, &command), Err(Reject::NodeKeyBusy));
    world.command(1, &BeaconCommand::CancelJob { job }).unwrap();
    assert!(world.command(member.org.0, &command).is_ok());
}

/// Whoever asks for a change of such a group is told what it waits for, and that waiting alone may not help.
#[test]
fn what_has_to_wait_for_a_key_is_refused_with_that_reason() {
    let mut world = World::of(seven());
    let [shard] = SPLIT.groups()[..] else { panic!("a cut is of one shard") };
    let member = world.committee(shard).members[0].clone();
    let switch = BeaconCommand::SwitchEngine { group: shard, engine: Engine::Bft };
    let command = rotate(&world, member.node, &spare(1));
    world.command(member.org.0, &command).unwrap();
    assert_eq!(world.propose(1, SPLIT, false), Err(Reject::NodeKeyAwaited));
    assert_eq!(world.command(1, &switch), Err(Reject::NodeKeyAwaited));
    // What the reason says to do: the node comes with its key, or goes.
    let mut drained = World::of(seven());
    drained.state = world.state.clone();
    take_all(&mut world);
    world.propose(1, SPLIT, false).unwrap();
    drained.command(member.org.0, &BeaconCommand::SetNodeCapacity { node: member.node, capacity: 0 }).unwrap();
    assert_eq!(drained.propose(1, SPLIT, false), Err(Reject::ShardBusy), "its seat moves, which ends by itself");
    assert_eq!(drained.command(1, &switch), Err(Reject::EngineChanging));
}

#[test]
fn a_node_that_does_not_come_with_its_key_can_be_drained() {
    let mut world = World::new();
    world.command(3, &rotate(&world, NODE, &spare(1))).unwrap();
    let waits = world.view().coming;
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NODE, capacity: 0 }).unwrap();
    let drained = world.view().coming;
    assert_eq!(drained.len(), waits.len());
    for coming in &drained {
        assert_eq!((coming.epoch, coming.index_of(NODE)), (Epoch(2), None), "{}", coming.group);
    }
    // Taken back, the key comes in its turn.
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NODE, capacity: 1 }).unwrap();
    assert!(world.view().coming.iter().all(|coming| coming.epoch == Epoch(3)));
    take_all(&mut world);
    let groups: Vec<GroupId> = world.view().groups_of(NODE).collect();
    assert_eq!(groups.len(), 5);
    for committee in world.view().committees {
        let at = committee.index_of(NODE).expect("it has a seat everywhere");
        assert_eq!(committee.members[at].key, spare(1).public());
    }
}

/// The beacon is told by the node, with this key, that it has not heard of another one.
fn said(world: &mut World, key: &SecretKey) -> Result<CommandOutcome, Reject> {
    world.now += 1;
    let report = Silence::sign(world.genesis.cluster_id(), NODE, TimeMs(world.now), vec![NodeId(2)], key);
    let at = at(&world.genesis, world.now);
    run(&mut world.state, |view| {
        let mail = apply_silence(view, &at, &report)?;
        Ok(Executed { mail, ..CommandOutcome::Applied.into() })
    })
    .map(|executed| executed.outcome)
}

/// Has the beacon listen to what nodes say of others.
fn watch(world: &mut World) {
    let watch = BeaconCommand::SetWatch(Watch { mode: WatchMode::DryRun, ..Watch::DEFAULT });
    world.command(1, &watch).unwrap();
    world.command(2, &watch).unwrap();
}

#[test]
fn until_every_group_has_the_key_the_beacon_hears_the_node_by_either() {
    let mut world = World::new();
    watch(&mut world);
    let (old, new) = (node_key(NODE.0), spare(1));
    let (heard, not_heard) = (Ok(CommandOutcome::Applied), Err(Reject::SilenceForm));
    assert_eq!((said(&mut world, &old), said(&mut world, &new)), (heard, not_heard));
    world.command(3, &rotate(&world, NODE, &new)).unwrap();
    assert_eq!(
        (said(&mut world, &old), said(&mut world, &new), said(&mut world, &spare(2))),
        (heard, heard, not_heard)
    );
    take_all(&mut world);
    assert_eq!((said(&mut world, &old), said(&mut world, &new)), (not_heard, heard));
}

/// What it certifies by itself it certifies with the key that it knows, and what is prepared there follows the registry.
#[test]
fn a_group_that_cannot_take_a_key_keeps_nobody_from_replacing_it_again() {
    let mut world = World::new();
    let stuck = GroupId::shard(0);
    let before = world.view().committee(stuck).expect("it is in force").clone();
    world.command(3, &rotate(&world, NODE, &spare(1))).unwrap();
    let first = world.view().coming.into_iter().find(|coming| coming.group == stuck).expect("it is prepared");
    take_all_but(&mut world, stuck);

    world.now += NODE_KEY_STANDS_MS - 1;
    let again = rotate(&world, NODE, &spare(2));
    assert_eq!(world.command(3, &again), Err(Reject::NodeKeyPending));
    world.now += 1;
    world.command(3, &again).unwrap();
    take_all_but(&mut world, stuck);
    for committee in world.view().committees {
        let expected = if committee.group == stuck { node_key(NODE.0) } else { spare(2) };
        assert_eq!(key_in(&committee), expected.public(), "{}", committee.group);
    }
    let coming = world.view().coming;
    let found: Vec<_> = coming.iter().map(|coming| (coming.group, coming.epoch, key_in(coming))).collect();
    assert_eq!(found, [(stuck, Epoch(2), spare(2).public())], "the key in between is left out");
    let sound = certificate(&world, &before, 9, |_, key| secret(key));
    assert_eq!(sound.verify(&before), Ok(()), "what it has certified, and what it may, is judged as ever");
    let stale = ready(&world, &before, &first, secret);
    assert_eq!(take(&mut world, &stale), Err(Reject::MailForged));
    assert_eq!(world.command(3, &rotate(&world, NODE, &spare(3))), Err(Reject::NodeKeyPending), "this one stands anew");

    // It has its quorum back.
    take_all(&mut world);
    assert!(world.view().committees.iter().all(|committee| key_in(committee) == spare(2).public()));
    world.command(3, &rotate(&world, NODE, &spare(3))).unwrap();
}

/// Something else is prepared there already, and a switch is wanted: neither comes before the quorum does.
#[test]
fn what_is_prepared_in_a_group_that_lacks_a_key_does_not_matter_to_the_next_one() {
    let mut world = World::new();
    let stuck = GroupId::shard(0);
    world.command(3, &rotate(&world, NODE, &spare(1))).unwrap();
    take_all_but(&mut world, stuck);
    let member =
        world.committee(stuck).members.iter().find(|member| member.node != NODE).cloned().expect("another one");
    world.command(member.org.0, &BeaconCommand::SetNodeCapacity { node: member.node, capacity: 0 }).unwrap();
    take_all_but(&mut world, stuck);
    let moves =
        |world: &World| world.view().coming.iter().map(|coming| coming.index_of(member.node)).collect::<Vec<_>>();
    assert_eq!(moves(&world), [None], "a seat moves there, which comes first");
    world.now += NODE_KEY_STANDS_MS;
    world.command(3, &rotate(&world, NODE, &spare(2))).unwrap();
    take_all_but(&mut world, stuck);
    assert_eq!(moves(&world), [None]);
    take_all(&mut world);
    assert!(world.view().committees.iter().all(|committee| key_in(committee) == spare(2).public()));
}

#[test]
fn a_closed_channel_is_not_waited_for_and_its_key_says_nothing_to_the_beacon() {
    for closed in [false, true] {
        let mut beacon = Beacon::new();
        let (channel, _) = beacon.found("alpha");
        let mut world = World::new();
        world.state = beacon.state;
        watch(&mut world);
        if closed {
            let entry = channels::directory(&mut View::new(&world.state)).remove(0);
            let shown = ChannelUpdate { status: ChannelStatus::Closed, ..entry.shown };
            world.state = settle(&world.state, |view| drop(channels::apply_update(view, channel, shown)));
        }
        let (old, new) = (node_key(NODE.0), spare(1));
        world.command(3, &rotate(&world, NODE, &new)).unwrap();
        take_all_but(&mut world, channel);
        let current = world.view().committee(channel).expect("it is in force").clone();
        assert_eq!(key_in(&current), old.public(), "the channel has no quorum");
        let by_old = if closed { Err(Reject::SilenceForm) } else { Ok(CommandOutcome::Applied) };
        assert_eq!((said(&mut world, &new), said(&mut world, &old)), (Ok(CommandOutcome::Applied), by_old));
        let again = world.command(3, &rotate(&world, NODE, &spare(2))).map(|executed| executed.outcome);
        let expected = if closed { Ok(CommandOutcome::Applied) } else { Err(Reject::NodeKeyPending) };
        assert_eq!(again, expected, "closed: {closed}");
    }
}

/// A copy of an old key can sign what it likes for entries of long ago.
#[test]
fn two_votes_by_a_key_of_long_ago_take_no_seat() {
    let shard = GroupId::shard(0);
    for (what, taken, passed_ms, accused) in [
        ("it was replaced less than a day ago", true, REPLACED_KEY_ACCUSES_MS - 1, 1),
        ("groups still have it", false, REPLACED_KEY_ACCUSES_MS, 1),
        ("no group has it any more", true, REPLACED_KEY_ACCUSES_MS, 0),
    ] {
        let mut world = World::new();
        let before = world.view().committee(shard).expect("it is in force").hash();
        world.command(3, &rotate(&world, NODE, &spare(1))).unwrap();
        if taken {
            take_all(&mut world);
        }
        world.now += passed_ms;
        let (proof, context) = (twice_in(&world.genesis, NODE.0, before), at(&world.genesis, world.now));
        let mail = run(&mut world.state, |view| {
            let mail = accuse(view, &context, &proof);
            Ok(Executed { mail, ..CommandOutcome::Applied.into() })
        });
        assert_eq!(accusations(&mut View::new(&world.state)).len(), accused, "{what}");
        assert!(accused == 1 || mail.unwrap().mail.is_empty(), "{what}");
    }
}

/// It could take the room that all have together.
#[test]
fn an_organisation_that_replaces_keys_all_the_time_keeps_no_other_from_replacing_theirs() {
    let (own, half) = (REPLACED_KEYS_OF_ORG, REPLACED_KEYS_MAX / 2);
    for (what, of_signer, of_others, expected) in [
        ("there is room for all", half - 1, 0, true),
        ("its own part is used up", half, 0, false),
        ("another one has taken what was for all", own - 1, half, true),
        ("nothing is left for it", own, half, false),
        ("nothing is left for anybody", 0, REPLACED_KEYS_MAX, false),
    ] {
        let mut world = World::new();
        for number in 0..of_signer + of_others {
            let mut key = [9; 33];
            key[..8].copy_from_slice(&number.to_be_bytes());
            let org = OrgId(if number < of_signer { 3 } else { 2 });
            let line = ReplacedKey { version: REPLACED_KEY_VERSION, node: NODE, org, replaced_ms: TimeMs(1) };
            world.state.insert(replaced_key(&PublicKey(key)), borsh::to_vec(&line).unwrap().into());
        }
        let command = rotate(&world, NODE, &spare(1));
        let answered = world.command(3, &command).map(|executed| executed.outcome);
        let wanted = if expected { Ok(CommandOutcome::Applied) } else { Err(Reject::Registry) };
        assert_eq!(answered, wanted, "{what}");
    }
}

#[test]
fn its_bytes_and_what_the_new_key_signs() {
    let command =
        BeaconCommand::RotateNodeKey { node: NodeId(3), key: PublicKey([2; 33]), possession: Signature([7; 64]) };
    let expected = format!("2803000000{}{}", "02".repeat(33), "07".repeat(64));
    assert_eq!(hex::encode(borsh::to_vec(&command).unwrap()), expected);
    let (cluster, before, new) = (ClusterId(Hash32([1; 32])), PublicKey([2; 33]), PublicKey([3; 33]));
    let mut bytes = vec![1; 32];
    bytes.extend([0, 0, 0, 3]);
    bytes.extend([2; 33]);
    bytes.extend([3; 33]);
    let named = ledger::hash::tagged(b"seamark/node-key/v1", &[&bytes]);
    assert_eq!(possession(&cluster, NodeId(3), &before, &new), named);
}

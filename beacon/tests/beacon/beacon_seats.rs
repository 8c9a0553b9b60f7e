//! The beacon's own committee: it changes as any other does, and nobody moves there to even something out.

use beacon::command::BeaconCommand;
use beacon::machine::CommandOutcome;
use beacon::registry;
use beacon::seats::{apply_ready, joining};
use cross_shard::message::Message;
use ledger::Foundation;
use ledger::ids::{Epoch, GroupId, Height, NodeId};
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

use crate::channels::Beacon;
use crate::nodes::World;
use crate::seats::{readiness, run};
use crate::support::{at, node, settle};

#[test]
fn a_member_of_the_beacon_is_drained_and_struck_off_as_any_other_node() {
    let mut world = World::new();
    // The only node of organisation 3, which has a seat everywhere.
    let leaves = NodeId(3);
    assert_eq!(world.view().groups_of(leaves).count(), 5);
    let executed = world.command(3, &BeaconCommand::SetNodeCapacity { node: leaves, capacity: 0 }).unwrap();
    let coming = registry::coming_of(&mut View::new(&world.state), GroupId::BEACON).unwrap();
    assert_eq!(executed.mail[0], (GroupId::BEACON, Message::CommitteePlan(coming.clone())));
    assert_eq!((coming.epoch, coming.index_of(leaves), coming.members.len()), (Epoch(1), None, 3));
    assert_eq!(world.command(3, &BeaconCommand::RemoveNode { node: leaves }), Err(Reject::NodeSeated));

    let current = world.view().committee(GroupId::BEACON).unwrap().clone();
    let ready = readiness(&world.genesis, &current, &coming, 7);
    assert_eq!(joining(&current, &coming).len(), 1);
    let at = at(&world.genesis, world.now);
    let revision = world.view().revision;
    let executed = run(&mut world.state, |view| apply_ready(view, &at, &ready)).unwrap();
    assert_eq!(executed.committees, std::slice::from_ref(&coming));
    let update = |shard| (GroupId::shard(shard), Message::CommitteeUpdate(coming.clone()));
    assert_eq!(executed.mail, (0..4).map(update).collect::<Vec<_>>(), "the beacon itself has it in this block");
    assert_eq!(world.view().committee(GroupId::BEACON), Some(&coming));
    assert!(world.view().revision > revision, "followers hear of it");
    assert_eq!(run(&mut world.state, |view| apply_ready(view, &at, &ready)), Err(Reject::CommitteeUnknown));

    world.ready_all();
    assert_eq!(world.view().groups_of(leaves).count(), 0);
    let removed = world.command(3, &BeaconCommand::RemoveNode { node: leaves }).unwrap();
    assert_eq!(removed.outcome, CommandOutcome::Applied);
}

#[test]
fn nobody_takes_a_seat_of_the_beacon_only_to_even_something_out() {
    let mut world = World::new();
    let first = world.view().committee(GroupId::BEACON).unwrap().clone();
    for id in 6..=9 {
        let org = u16::try_from(id % 3 + 1).unwrap();
        world.command(org, &BeaconCommand::RegisterNode(node(id, org, &format!("zone-{org}")))).unwrap();
        world.command(org, &BeaconCommand::JoinNode { node: NodeId(id) }).unwrap();
        world.ready_all();
        assert!(world.lives().arriving.is_empty(), "node {id} waits for nothing");
    }
    assert_eq!(world.view().committee(GroupId::BEACON), Some(&first));
}

#[test]
fn a_channel_that_is_founded_behind_a_hand_over_in_one_block_begins_with_the_committee_that_certifies_it() {
    let mut beacon = Beacon::new();
    let genesis = beacon.genesis.clone();
    let before = genesis.committee(GroupId::BEACON).unwrap().clone();
    let [outside, _] = World::new().outsiders();
    let gone = before.members.iter().find(|member| member.org == outside.org).unwrap().node;
    let mut after = before.clone();
    after.epoch = Epoch(1);
    after.members.retain(|member| member.node != gone);
    after.members.push(ledger::Member { node: outside.id, org: outside.org, key: outside.key });
    after.members.sort_by_key(|member| member.node);
    // As the machine leaves it behind a proof that the committee can take over.
    beacon.state = settle(&beacon.state, |view| {
        let hash = after.hash();
        view.store(registry::committee_key(GroupId::BEACON, &hash), &after);
        view.store(registry::current_key(GroupId::BEACON), &hash);
        view.store(schema::handover(Height(1)), &hash);
    });
    let (group, executed) = beacon.found("steel");
    let foundation: Foundation = beacon.read(|view| view.load(&registry::foundation_key(group))).unwrap();
    assert_eq!(foundation.beacon_committee, before, "its first mail is certified by that one");
    let named = (group, Message::CommitteeUpdate(after.clone()));
    assert!(executed.mail.contains(&named), "which names the other one");
    // In a later block it is the one in force.
    beacon.state = settle(&beacon.state, |view| view.delete(schema::handover(Height(1))));
    let (group, _) = beacon.found("coal");
    let foundation: Foundation = beacon.read(|view| view.load(&registry::foundation_key(group))).unwrap();
    assert_eq!(foundation.beacon_committee, after);
}

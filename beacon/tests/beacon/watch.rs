//! Nodes that vanish: who has to have reported what, and what follows from it.

use beacon::command::BeaconCommand;
use beacon::machine::CommandOutcome;
use beacon::watch::{Silence, Watch, WatchEvent, WatchMode, apply_silence};
use cross_shard::OutStream;
use cross_shard::message::Message;
use ledger::genesis::NodeInfo;
use ledger::ids::{ClusterId, GroupId, NodeId, TimeMs};
use ledger::limits::MAIL_WINDOW_MESSAGES;
use ledger::reject::Reject;
use ledger::schema;

use crate::epochs::to_rebalance;
use crate::nodes::World;
use crate::support::{at, node, node_key, settle};

/// The shortest time-out that there is.
const AFTER_MS: u64 = 10_000;

type Mail = Vec<(GroupId, Message)>;

impl World {
    fn policy(&mut self, mode: WatchMode, at_most: u16) {
        let set = BeaconCommand::SetWatch(Watch { mode, after_ms: AFTER_MS, at_most, ..Watch::DEFAULT });
        let waits = CommandOutcome::Pending { approvals: 1, needed: 2 };
        assert_eq!(self.command(1, &set).unwrap().outcome, waits);
        assert_eq!(self.command(2, &set).unwrap().outcome, CommandOutcome::Applied);
    }

    fn report(&mut self, by: u32, silent: &[u32]) -> Result<Mail, Reject> {
        let silent = silent.iter().copied().map(NodeId).collect();
        let cluster = self.genesis.cluster_id();
        let report = Silence::sign(cluster, NodeId(by), TimeMs(self.now), silent, &node_key(by));
        self.take(&report)
    }

    fn take(&mut self, report: &Silence) -> Result<Mail, Reject> {
        let mut taken = Err(Reject::Storage);
        let next = settle(&self.state, |view| taken = apply_silence(view, &at(&self.genesis, self.now), report));
        assert!(taken.is_ok() || next == self.state, "a refusal leaves no trace");
        self.state = next;
        taken
    }

    /// These say for a whole time-out that they do not hear of those. What is mailed in the end.
    fn silent_for_long(&mut self, reporters: &[u32], silent: &[u32]) -> Mail {
        let mut mail = Vec::new();
        for _ in 0..=2 {
            for by in reporters {
                mail.extend(self.report(*by, silent).unwrap());
            }
            self.now += AFTER_MS / 2;
        }
        mail
    }

    /// A shard takes no more mail of the beacon, or takes it again.
    fn takes_mail(&mut self, takes: bool) {
        let next_seq = if takes { 0 } else { MAIL_WINDOW_MESSAGES };
        let stream = OutStream { next_seq, ..OutStream::default() };
        self.state = settle(&self.state, |view| view.store(schema::outbox(GroupId::shard(0)), &stream));
    }

    fn events(&self) -> Vec<(u32, WatchEvent)> {
        self.lives().notes.iter().map(|note| (note.node.0, note.event)).collect()
    }

    fn out(&self) -> Vec<(u32, bool)> {
        self.lives().vanished.iter().map(|found| (found.node.0, found.acts)).collect()
    }

    /// All nodes but these.
    fn others(&self, without: &[u32]) -> Vec<u32> {
        self.genesis.nodes.iter().map(|node| node.id.0).filter(|node| !without.contains(node)).collect()
    }
}

/// A beacon that watches, and a node that is seated in shards alone.
fn watching(mode: WatchMode) -> (World, u32) {
    let mut world = World::new();
    world.policy(mode, 1);
    let gone = world.outside().id.0;
    (world, gone)
}

#[test]
fn a_node_that_most_have_not_heard_of_for_long_loses_its_seats() {
    let (mut world, gone) = watching(WatchMode::Replace);
    let reporters = world.others(&[gone]);
    let seated: Vec<GroupId> = world.view().groups_of(NodeId(gone)).collect();
    let mail = world.silent_for_long(&reporters, &[gone]);
    assert_eq!((world.out(), world.events()), (vec![(gone, true)], vec![(gone, WatchEvent::Replaced)]));
    assert_eq!(mail.iter().map(|(group, _)| *group).collect::<Vec<_>>(), seated);
    assert!(world.view().coming.iter().all(|coming| coming.index_of(NodeId(gone)).is_none()));
    let [vanished] = &world.lives().vanished[..] else { panic!("one has vanished") };
    assert!(vanished.reporters.len() > 2 && vanished.time_ms.0 - vanished.since_ms.0 >= AFTER_MS, "{vanished:?}");
    assert_eq!(world.silent_for_long(&reporters, &[gone]), [], "once");
    world.ready_all();
    assert_eq!(world.view().groups_of(NodeId(gone)).count(), 0);
    assert_eq!(world.view().node(NodeId(gone)).unwrap().capacity, 1, "it is its organisation's to take it out");
}

#[test]
fn a_member_of_the_beacon_that_vanishes_loses_that_seat_too() {
    let (mut world, _) = watching(WatchMode::Replace);
    // The only node of its organisation has a seat everywhere.
    let gone = 3;
    let reporters = world.others(&[gone]);
    let mail = world.silent_for_long(&reporters, &[gone]);
    assert_eq!(world.out(), [(gone, true)]);
    assert_eq!(mail.first().map(|(group, _)| *group), Some(GroupId::BEACON));
    world.ready_all();
    assert_eq!(world.view().groups_of(NodeId(gone)).count(), 0);
}

#[test]
fn less_than_most_or_less_than_the_whole_time_is_not_enough() {
    let (mut world, gone) = watching(WatchMode::Replace);
    let others = world.others(&[gone]);
    world.silent_for_long(&others[..2], &[gone]);
    assert_eq!(world.out(), [], "two of five");
    world.silent_for_long(&others[..2], &[gone]);
    world.report(others[2], &[gone]).unwrap();
    assert_eq!(world.out(), [], "the third has only just said so");
    // A pause in what one of them says begins its time anew.
    world.now += 31_000;
    for by in &others[..3] {
        world.report(*by, &[gone]).unwrap();
    }
    assert_eq!(world.out(), []);
    world.now += 1_000;
    world.silent_for_long(&others[..3], &[gone]);
    assert_eq!(world.out(), [(gone, true)]);
}

#[test]
fn most_nodes_are_not_enough_when_they_are_of_few_organisations() {
    let mut world = World::new();
    // Organisation 1 gets as many nodes with seats as all others together have, and one more.
    for id in 6..=9 {
        world.command(1, &BeaconCommand::RegisterNode(node(id, 1, "zone-1"))).unwrap();
        world.command(1, &BeaconCommand::JoinNode { node: NodeId(id) }).unwrap();
        world.ready_all();
    }
    world.policy(WatchMode::Replace, 1);
    let seated = |world: &World, node: u32| world.view().groups_of(NodeId(node)).count() > 0;
    let own: Vec<u32> = [1, 4, 6, 7, 8, 9].into_iter().filter(|node| seated(&world, *node)).collect();
    let victim = [5, 2].into_iter().find(|node| seated(&world, *node)).unwrap();
    let all = (1..=9).filter(|node| seated(&world, *node)).count();
    assert!(own.len() * 2 > all, "{own:?} of {all}");
    world.silent_for_long(&own, &[victim]);
    assert_eq!(world.out(), []);
}

#[test]
fn a_dry_run_writes_down_what_would_be_done_and_does_nothing() {
    let (mut world, gone) = watching(WatchMode::DryRun);
    let before = world.view();
    let reporters = world.others(&[gone]);
    assert_eq!(world.silent_for_long(&reporters, &[gone]), []);
    assert_eq!(world.silent_for_long(&reporters, &[gone]), []);
    assert_eq!((world.out(), world.events()), (vec![(gone, false)], vec![(gone, WatchEvent::WouldReplace)]));
    assert_eq!(world.view(), before, "nobody has anything to follow");
}

#[test]
fn no_more_nodes_are_out_than_the_policy_allows() {
    let (mut world, _) = watching(WatchMode::Replace);
    let [first, second] = world.outsiders().map(|node| node.id.0);
    let reporters = world.others(&[first, second]);
    world.silent_for_long(&reporters, &[first, second]);
    assert_eq!(world.out(), [(first, true), (second, false)]);
    assert_eq!(world.events(), [(first, WatchEvent::Replaced), (second, WatchEvent::TooMany)]);
    // The organisation of the first takes it out, and there is room for the second.
    world.ready_all();
    let org = world.genesis.node(NodeId(first)).unwrap().org.0;
    world.command(org, &BeaconCommand::RemoveNode { node: NodeId(first) }).unwrap();
    world.silent_for_long(&reporters, &[second]);
    assert_eq!(world.out(), [(second, true)]);
    assert_eq!(world.events().last(), Some(&(second, WatchEvent::Replaced)));
}

#[test]
fn one_that_is_heard_of_again_keeps_its_seats() {
    let (mut world, gone) = watching(WatchMode::Replace);
    let reporters = world.others(&[gone]);
    world.silent_for_long(&reporters, &[gone]);
    assert!(!world.view().coming.is_empty());
    world.now += 1_000;
    let mut mail = world.report(reporters[0], &[]).unwrap();
    assert_eq!(world.out(), [(gone, true)], "one of them says so");
    for by in &reporters[1..] {
        mail.extend(world.report(*by, &[]).unwrap());
    }
    assert_eq!((world.out(), world.events().last().copied()), (vec![], Some((gone, WatchEvent::Back))));
    assert!(world.view().coming.is_empty() && !mail.is_empty(), "the plans are given up");

    // Or its organisation says so.
    world.now += 1_000;
    world.silent_for_long(&reporters, &[gone]);
    let org = world.genesis.node(NodeId(gone)).unwrap().org.0;
    world.command(org, &BeaconCommand::SetNodeCapacity { node: NodeId(gone), capacity: 1 }).unwrap();
    assert!(world.out().is_empty() && world.view().coming.is_empty());
}

#[test]
fn reports_that_are_not_what_they_say_count_for_nothing() {
    let (mut world, gone) = watching(WatchMode::Replace);
    let by = world.others(&[gone])[0];
    let cluster = world.genesis.cluster_id();
    let sign = |at_ms: u64, silent: &[u32], key: u32| {
        Silence::sign(cluster, NodeId(by), TimeMs(at_ms), silent.iter().copied().map(NodeId).collect(), &node_key(key))
    };
    let good = sign(world.now, &[gone], by);
    for (what, wrong) in [
        ("another one's key", sign(world.now, &[gone], gone)),
        ("altered", Silence { silent: Vec::new(), ..good.clone() }),
        ("about itself", sign(world.now, &[by], by)),
        ("not in order", sign(world.now, &[5, 4], by)),
        ("old", sign(world.now - 30_001, &[gone], by)),
        ("ahead", sign(world.now + 30_001, &[gone], by)),
        ("of nobody", Silence { reporter: NodeId(77), ..good.clone() }),
        ("another version", Silence { version: 9, ..good.clone() }),
    ] {
        assert_eq!(world.take(&wrong), Err(Reject::SilenceForm), "{what}");
    }
    let foreign = Silence { cluster: ClusterId(ledger::Hash32([1; 32])), ..good.clone() };
    assert_eq!(world.take(&foreign), Err(Reject::WrongCluster));
    assert_eq!(world.take(&good), Ok(Vec::new()));
    assert_eq!(world.take(&good), Err(Reject::SilenceForm), "it counts once");
    // A node without a seat has no say.
    world.command(2, &BeaconCommand::RegisterNode(node(6, 2, "zone-2"))).unwrap();
    assert_eq!(world.report(6, &[gone]), Err(Reject::SilenceForm));
}

#[test]
fn nobody_is_watched_before_the_organisations_want_it() {
    let mut world = World::new();
    assert_eq!(world.report(1, &[2]), Err(Reject::SilenceForm));
    let set = |after_ms, at_most| {
        BeaconCommand::SetWatch(Watch { mode: WatchMode::Replace, after_ms, at_most, ..Watch::DEFAULT })
    };
    for (after_ms, at_most) in [(9_999, 1), (31 * 24 * 3_600_000, 1), (60_000, 0), (60_000, 65)] {
        assert_eq!(world.command(1, &set(after_ms, at_most)), Err(Reject::WatchForm), "{after_ms} {at_most}");
    }
    world.policy(WatchMode::Replace, 1);
    let reporters = world.others(&[5]);
    world.silent_for_long(&reporters, &[5]);
    assert!(!world.lives().silent.is_empty());
    world.policy(WatchMode::Off, 1);
    assert!(world.lives().silent.is_empty() && world.out().is_empty() && world.view().coming.is_empty());
    assert_eq!(world.report(1, &[2]), Err(Reject::SilenceForm));
}

#[test]
fn a_node_is_not_drained_where_another_member_is_silent() {
    let (mut world, _) = watching(WatchMode::DryRun);
    // Node 3 is in every group; whoever else leaves one would leave two that are heard of.
    let reporters = world.others(&[3]);
    for by in &reporters {
        world.report(*by, &[3]).unwrap();
    }
    let NodeInfo { id, org, .. } = world.outside();
    let drain = BeaconCommand::SetNodeCapacity { node: id, capacity: 0 };
    assert_eq!(world.command(org.0, &drain), Err(Reject::NodeSilence));
    world.command(org.0, &BeaconCommand::RegisterNode(node(6, org.0, "zone-x"))).unwrap();
    let replace = BeaconCommand::ReplaceNode { node: id, successor: NodeId(6) };
    assert_eq!(world.command(org.0, &replace), Err(Reject::NodeSilence));
    world.now += 1_000;
    for by in &reporters {
        world.report(*by, &[]).unwrap();
    }
    assert_eq!(world.command(org.0, &drain).unwrap().outcome, CommandOutcome::Applied);
}

/// All but the nodes of organisation 1: enough to be believed about them.
const REPORTERS: [u32; 3] = [2, 3, 5];

#[test]
fn a_node_that_joins_takes_no_seat_where_another_member_is_silent() {
    let (mut world, gone) = watching(WatchMode::DryRun);
    world.command(3, &BeaconCommand::RegisterNode(NodeInfo { capacity: 9, ..node(6, 3, "zone-3") })).unwrap();
    let join = BeaconCommand::JoinNode { node: NodeId(6) };
    // Every group has a seat of organisation 1, and so a member that is silent.
    for by in REPORTERS {
        world.report(by, &[1, 4]).unwrap();
    }
    assert_eq!(world.command(3, &join), Err(Reject::NodeSilence));
    assert!(world.lives().arriving.is_empty());

    // It takes what it may, and waits for the rest.
    world.now += 1_000;
    let reporters = world.others(&[gone]);
    for by in &reporters {
        world.report(*by, &[gone]).unwrap();
    }
    world.command(3, &join).unwrap();
    let waiting = world.view().groups_of(NodeId(gone)).count();
    let view = world.view();
    assert!(view.coming.iter().all(|coming| view.committee(coming.group).unwrap().index_of(NodeId(gone)).is_none()));
    assert!(waiting > 0 && view.coming.len() + waiting == 4, "{waiting} of four shards");
    assert_eq!(world.lives().arriving, [NodeId(6)]);

    world.now += 1_000;
    let mut mail = Vec::new();
    for by in &reporters {
        mail.extend(world.report(*by, &[]).unwrap());
    }
    assert_eq!((mail.len(), world.view().coming.len()), (waiting, 4), "it goes on when all are heard of again");
}

/// Nobody's seats are taken, so nothing has to be mailed at once.
#[test]
fn while_a_group_takes_no_mail_a_dry_run_takes_reports_and_a_watch_that_replaces_does_not() {
    let (mut world, gone) = watching(WatchMode::DryRun);
    let reporters = world.others(&[gone]);
    world.takes_mail(false);
    assert_eq!(world.silent_for_long(&reporters, &[gone]), []);
    assert_eq!(world.events(), [(gone, WatchEvent::WouldReplace)]);

    let (mut world, gone) = watching(WatchMode::Replace);
    world.takes_mail(false);
    assert_eq!(world.report(reporters[0], &[gone]), Err(Reject::PeerBusy));
    world.takes_mail(true);
    assert_eq!(world.report(reporters[0], &[gone]), Ok(Vec::new()));
}

#[test]
fn seats_that_wait_go_on_also_where_the_word_for_them_came_while_a_group_took_no_mail() {
    let (mut world, gone) = watching(WatchMode::DryRun);
    world.command(3, &BeaconCommand::RegisterNode(NodeInfo { capacity: 9, ..node(6, 3, "zone-3") })).unwrap();
    let reporters = world.others(&[gone]);
    for by in &reporters {
        world.report(*by, &[gone]).unwrap();
    }
    world.command(3, &BeaconCommand::JoinNode { node: NodeId(6) }).unwrap();
    let (prepared, waiting) = (world.view().coming, world.view().groups_of(NodeId(gone)).count());
    assert!(waiting > 0);
    world.takes_mail(false);
    world.now += 1_000;
    for by in &reporters {
        assert_eq!(world.report(*by, &[]), Ok(Vec::new()), "it counts, and nothing is mailed");
    }
    assert_eq!(world.view().coming, prepared);
    // All are heard of, as before: that is no news any more.
    world.takes_mail(true);
    world.now += 1_000;
    let mail = world.report(reporters[0], &[]).unwrap();
    assert_eq!((mail.len(), world.view().coming.len()), (waiting, prepared.len() + waiting));
    world.now += 1_000;
    assert_eq!(world.report(reporters[0], &[]), Ok(Vec::new()), "once");
}

#[test]
fn a_deal_moves_no_seat_where_another_member_is_silent() {
    let mut world = to_rebalance();
    world.policy(WatchMode::DryRun, 1);
    for by in REPORTERS {
        world.report(by, &[1, 4]).unwrap();
    }
    assert_eq!((world.pass_all(), world.view().coming), (vec![], vec![]));
    let targets = world.book().targets.len();
    assert_eq!(targets, 2, "it is still wanted");

    world.now += 1_000;
    let mut mail = Vec::new();
    for by in REPORTERS {
        mail.extend(world.report(by, &[]).unwrap());
    }
    assert_eq!((mail.len(), world.view().coming.len()), (targets, targets));
    // What is prepared goes on, whoever is silent then.
    world.now += 1_000;
    for by in REPORTERS {
        world.report(by, &[1, 4]).unwrap();
    }
    assert_eq!((world.pass_all(), world.view().coming.len()), (vec![], targets));
}

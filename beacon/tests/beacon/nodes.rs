//! Nodes that come and go: who takes seats of others, who follows whom, and what is left of one that is gone.

use std::collections::BTreeMap;

use beacon::arrivals::{self, Shares};
use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, Executed, execute_command};
use beacon::risk::{Risk, of_leaving};
use beacon::seating::{Began, Why};
use beacon::seats::{apply_ready, joining};
use beacon::{ClusterView, NodeLives};
use ledger::committee::{Committee, Engine, Member};
use ledger::genesis::{Genesis, NodeInfo};
use ledger::hash::Hash32;
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::seats::{readiness, run};
use crate::support::{NOW, State, admin, at, dealt, genesis, node, node_key, state_of};

/// A beacon with its time, to which commands are given.
pub struct World {
    pub genesis: Genesis,
    pub state: State,
    pub now: u64,
    salt: u8,
}

impl World {
    pub fn new() -> Self {
        Self::of(genesis())
    }

    pub fn of(genesis: Genesis) -> Self {
        Self { state: state_of(&genesis), genesis, now: NOW, salt: 0 }
    }

    /// Has an organisation's command executed.
    pub fn command(&mut self, by: u16, command: &BeaconCommand) -> Result<Executed, Reject> {
        self.salt += 1;
        let (cluster, until) = (self.genesis.cluster_id(), TimeMs(self.now + 60_000));
        let signed = SignedCommand::sign(&cluster, command, OrgId(by), [self.salt; 16], until, &admin(by));
        let at = at(&self.genesis, self.now);
        run(&mut self.state, |view| execute_command(view, &at, &signed.encode()).map_err(|refused| refused.reject))
    }

    pub fn view(&self) -> ClusterView {
        ClusterView::read(&self.state).unwrap()
    }

    pub fn lives(&self) -> NodeLives {
        NodeLives::read(&mut View::new(&self.state))
    }

    /// Puts what is prepared into force, until nothing is prepared any more.
    pub fn ready_all(&mut self) {
        while let Some(coming) = self.view().coming.first().cloned() {
            let current = self.view().committee(coming.group).unwrap().clone();
            let ready = readiness(&self.genesis, &current, &coming, 5);
            let at = at(&self.genesis, self.now);
            run(&mut self.state, |view| apply_ready(view, &at, &ready)).unwrap();
        }
    }

    fn seats(&self) -> BTreeMap<u32, usize> {
        let mut seats = BTreeMap::new();
        for member in self.view().committees.iter().flat_map(|committee| &committee.members) {
            *seats.entry(member.node.0).or_default() += 1;
        }
        seats
    }

    /// The two nodes of the genesis without a seat in the beacon: each is of an organisation that has another one.
    pub fn outsiders(&self) -> [NodeInfo; 2] {
        let beacon = self.genesis.committee(GroupId::BEACON).unwrap();
        let outside = self.genesis.nodes.iter().filter(|node| beacon.index_of(node.id).is_none()).cloned();
        outside.collect::<Vec<_>>().try_into().unwrap()
    }

    /// The first of them.
    pub fn outside(&self) -> NodeInfo {
        let [first, _] = self.outsiders();
        first
    }
}

const JOIN: fn(u32) -> BeaconCommand = |node| BeaconCommand::JoinNode { node: NodeId(node) };
const REMOVE: fn(u32) -> BeaconCommand = |node| BeaconCommand::RemoveNode { node: NodeId(node) };

fn replace(node: u32, successor: u32) -> BeaconCommand {
    BeaconCommand::ReplaceNode { node: NodeId(node), successor: NodeId(successor) }
}

#[test]
fn a_node_that_joins_takes_its_share_from_those_with_most_and_nobody_else_moves() {
    let mut world = World::new();
    // One replica of each organisation in every group: node 3 is the only one of organisation 3, and is everywhere.
    let before = world.seats();
    assert_eq!(before[&3], 5);
    world.command(3, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
    assert!(world.view().coming.is_empty(), "a node that is registered moves nobody");

    let executed = world.command(3, &JOIN(6)).unwrap();
    assert_eq!(world.lives().arriving, [NodeId(6)]);
    let view = world.view();
    assert_eq!(view.coming.len(), 2);
    assert_eq!(executed.mail.len(), 2);
    for coming in &view.coming {
        let current = view.committee(coming.group).unwrap();
        assert_eq!(joining(current, coming), [NodeId(6)]);
        assert_eq!(
            joining(coming, current),
            [NodeId(3)],
            "one seat, of the one with most, and of the same organisation"
        );
    }
    // Given again while it is under way, it changes nothing.
    assert_eq!(world.command(3, &JOIN(6)).unwrap().mail, []);
    assert_eq!(world.view().coming, view.coming);

    world.ready_all();
    let mut after = before;
    after.insert(3, 3);
    after.insert(6, 2);
    assert_eq!(world.seats(), after);
    assert_eq!(world.lives().arriving, [], "there is nothing left to even out");
    let again = world.command(3, &JOIN(6)).unwrap();
    assert_eq!((again.outcome, again.mail), (CommandOutcome::Applied, vec![]));
    assert_eq!(world.lives().arriving, []);
}

#[test]
fn a_drain_comes_before_a_share() {
    let mut world = World::new();
    world.command(3, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
    world.command(3, &JOIN(6)).unwrap();
    let leaves = world.outside();
    world.command(leaves.org.0, &BeaconCommand::SetNodeCapacity { node: leaves.id, capacity: 0 }).unwrap();
    for coming in world.view().coming {
        let current = world.view().committee(coming.group).unwrap().clone();
        if current.index_of(leaves.id).is_some() {
            assert!(coming.index_of(leaves.id).is_none(), "{coming:?}");
        }
    }
    world.ready_all();
    let seats = world.seats();
    assert_eq!(seats.get(&leaves.id.0), None);
    assert!(seats[&6] >= 2, "{seats:?}");
    assert_eq!(world.lives().arriving, []);
    assert!(world.view().committees.iter().all(|committee| committee.members.len() == 3));
}

#[test]
fn a_seat_that_a_group_lacks_is_taken_without_anybody_leaving() {
    let nodes = dealt(4, 4);
    let member = |node: &NodeInfo| Member { node: node.id, org: node.org, key: node.key };
    let members = nodes[..2].iter().map(member).collect();
    let current = Committee::of(Engine::Raft, GroupId::shard(0), Incarnation(0), Epoch(0), members);
    let seed = Hash32([5; 32]);
    let committees = [current.clone()];
    let mut shares = Shares::new(&seed, &nodes, &committees, &[], &[NodeId(4)]);
    let next = |shares: &mut Shares<'_>, missing| {
        let members = shares.next(&current, missing)?;
        Some(members.iter().map(|member| member.node.0).collect::<Vec<_>>())
    };
    assert_eq!(next(&mut shares, 0), None, "with one seat each there is nothing to even out");
    assert_eq!(next(&mut shares, 1), Some(vec![1, 2, 4]));
}

#[test]
fn a_node_is_prepared_in_a_few_groups_at_a_time() {
    let nodes = dealt(2, 2);
    let member = |node: &NodeInfo| Member { node: node.id, org: node.org, key: node.key };
    let alone = |shard| {
        let members = vec![member(&nodes[0])];
        Committee::of(Engine::Raft, GroupId::shard(shard), Incarnation(0), Epoch(0), members)
    };
    let committees: Vec<Committee> = (0..20).map(alone).collect();
    let seed = Hash32([5; 32]);
    let mut shares = Shares::new(&seed, &nodes, &committees, &[], &[NodeId(2)]);
    let taken = committees.iter().filter(|current| shares.next(current, 0).is_some()).count();
    assert_eq!(taken, beacon::limits::ARRIVALS_AT_ONCE);
    assert!(shares.is_open(&committees[19], NodeId(2), 0), "the others come later");
}

#[test]
fn who_may_not_take_seats_does_not_join() {
    let mut world = World::new();
    world.command(3, &BeaconCommand::RegisterNode(NodeInfo { capacity: 0, ..node(6, 3, "zone-3") })).unwrap();
    assert_eq!(world.command(3, &JOIN(6)), Err(Reject::NodeDrained));
    assert_eq!(world.command(1, &JOIN(6)), Err(Reject::NotAuthorised));
    assert_eq!(world.command(1, &JOIN(7)), Err(Reject::NodeUnknown));
}

#[test]
fn the_seats_of_a_node_that_is_replaced_go_to_its_successor_in_one_plan() {
    let mut world = World::new();
    let gone = world.outside();
    let (old, org) = (gone.id, gone.org.0);
    let seated: Vec<GroupId> = world.view().groups_of(old).collect();
    assert!(seated.len() > 1);
    world.command(org, &BeaconCommand::RegisterNode(node(6, org, &gone.zone))).unwrap();
    // One that would be preferred otherwise: as good, and without any seat, too.
    world.command(org, &BeaconCommand::RegisterNode(NodeInfo { capacity: 9, ..node(7, org, &gone.zone) })).unwrap();

    let executed = world.command(org, &replace(old.0, 6)).unwrap();
    assert_eq!(executed.mail.len(), seated.len());
    let view = world.view();
    assert_eq!(view.node(old).unwrap().capacity, 0);
    assert_eq!(view.coming.iter().map(|coming| coming.group).collect::<Vec<_>>(), seated);
    for coming in &view.coming {
        let current = view.committee(coming.group).unwrap();
        assert_eq!((joining(current, coming), joining(coming, current)), (vec![NodeId(6)], vec![old]));
    }
    assert_eq!(world.command(org, &replace(old.0, 6)).unwrap().mail, [], "given again, it changes nothing");
    assert_eq!(world.command(org, &REMOVE(old.0)), Err(Reject::NodeSeated));
    world.ready_all();
    assert_eq!(world.view().groups_of(NodeId(6)).collect::<Vec<_>>(), seated);
    assert_eq!(world.command(org, &REMOVE(old.0)).unwrap().outcome, CommandOutcome::Applied);
    assert_eq!(world.lives().successors, [], "nothing of it is left but its number");
}

#[test]
fn each_seat_says_why_its_node_has_it() {
    let why = |world: &World, node: u32| {
        let seats = world.lives().seats.into_iter().flat_map(|group| group.seats);
        let mut of_node: Vec<(Option<u32>, Why)> =
            seats.filter(|seat| seat.node.0 == node).map(|seat| (seat.from.map(|from| from.0), seat.why)).collect();
        of_node.dedup();
        of_node
    };
    let mut world = World::new();
    assert!(world.lives().seats.iter().all(|group| group.began == Began::Genesis && group.seats.len() == 3));
    assert_eq!(why(&world, 3), [(None, Why::First)]);
    world.command(3, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
    world.command(3, &JOIN(6)).unwrap();
    assert_eq!(why(&world, 6), [], "what is prepared is no seat");
    world.ready_all();
    assert_eq!(why(&world, 6), [(Some(3), Why::Share)]);

    let gone = world.outside();
    let (old, org) = (gone.id.0, gone.org.0);
    world.command(org, &BeaconCommand::RegisterNode(node(7, org, &gone.zone))).unwrap();
    world.command(org, &replace(old, 7)).unwrap();
    world.ready_all();
    assert_eq!(why(&world, 7), [(Some(old), Why::Successor)]);
    world.command(org, &REMOVE(old)).unwrap();
    assert_eq!(why(&world, 7), [(Some(old), Why::Need)], "for whom it was named is not kept");

    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(6), capacity: 0 }).unwrap();
    world.ready_all();
    assert!(why(&world, 6).is_empty() && why(&world, 3).contains(&(Some(6), Why::Need)));
}

#[test]
fn only_a_node_of_ones_own_that_may_take_seats_replaces_another() {
    let mut world = World::new();
    let gone = world.outside();
    let (old, org) = (gone.id.0, gone.org.0);
    let other = if org == 1 { 2 } else { 1 };
    world.command(other, &BeaconCommand::RegisterNode(node(6, other, "zone-x"))).unwrap();
    world.command(org, &BeaconCommand::RegisterNode(NodeInfo { capacity: 0, ..node(7, org, &gone.zone) })).unwrap();
    for (by, command, expected) in [
        (org, replace(old, old), Reject::NodeSuccessor),
        (org, replace(old, 7), Reject::NodeSuccessor),
        (org, replace(old, 6), Reject::NotAuthorised),
        (org, replace(old, 99), Reject::NodeUnknown),
        (other, replace(old, 6), Reject::NotAuthorised),
        (org, replace(99, 7), Reject::NodeUnknown),
    ] {
        assert_eq!(world.command(by, &command), Err(expected), "{command:?} by {by}");
    }
    assert!(world.view().coming.is_empty());
}

#[test]
fn a_successor_is_forgotten_when_the_node_stays() {
    let mut world = World::new();
    let gone = world.outside();
    let (old, org) = (gone.id, gone.org.0);
    world.command(org, &BeaconCommand::RegisterNode(node(6, org, &gone.zone))).unwrap();
    world.command(org, &replace(old.0, 6)).unwrap();
    assert_eq!(world.lives().successors, [(old, NodeId(6))]);
    world.command(org, &BeaconCommand::SetNodeCapacity { node: old, capacity: 1 }).unwrap();
    assert_eq!(world.lives().successors, []);
    assert!(world.view().coming.is_empty(), "nobody fetches the state any more");
}

#[test]
fn neither_the_number_nor_the_key_of_a_node_that_is_gone_is_given_again() {
    let mut world = World::new();
    world.command(2, &BeaconCommand::RegisterNode(node(6, 2, "zone-2"))).unwrap();
    let before = world.view();
    for (by, id, expected) in [(1, 6, Reject::NotAuthorised), (2, 8, Reject::NodeUnknown), (3, 3, Reject::NodeSeated)] {
        assert_eq!(world.command(by, &REMOVE(id)), Err(expected), "node {id} by {by}");
    }
    world.command(2, &REMOVE(6)).unwrap();
    let after = world.view();
    assert_eq!(after.node(NodeId(6)), None);
    assert_eq!(after.nodes.len() + 1, before.nodes.len());
    let [gone] = world.lives().removed[..] else { panic!("one node is gone") };
    assert_eq!((gone.node, gone.org, gone.key), (NodeId(6), OrgId(2), node_key(6).public()));

    assert_eq!(world.command(2, &REMOVE(6)), Err(Reject::NodeGone));
    let fresh = node_key(60).public();
    let other_tls = Hash32([6; 32]);
    let same_number = NodeInfo { key: fresh, tls_key_hash: other_tls, ..node(6, 2, "zone-2") };
    let same_key = NodeInfo { id: NodeId(7), tls_key_hash: other_tls, ..node(6, 2, "zone-2") };
    for again in [same_number.clone(), same_key] {
        assert_eq!(world.command(2, &BeaconCommand::RegisterNode(again.clone())), Err(Reject::NodeGone), "{again:?}");
    }
    let anew = BeaconCommand::RegisterNode(NodeInfo { id: NodeId(7), ..same_number });
    assert_eq!(world.command(2, &anew).unwrap().outcome, CommandOutcome::Applied);
}

#[test]
fn nothing_is_planned_for_a_node_that_is_gone() {
    let mut world = World::new();
    world.command(3, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
    world.command(3, &JOIN(6)).unwrap();
    assert_eq!(world.command(3, &REMOVE(6)), Err(Reject::NodeSeated), "it is about to get seats");
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(6), capacity: 0 }).unwrap();
    assert!(world.view().coming.is_empty());
    world.command(3, &REMOVE(6)).unwrap();
    assert_eq!(arrivals::arriving(&mut View::new(&world.state)), []);
}

#[test]
fn a_seat_moves_only_where_a_quorum_is_heard_of_now_and_after_one_more_failure() {
    let nodes = dealt(9, 9);
    let committee = |engine, members: usize| {
        let member = |node: &NodeInfo| Member { node: node.id, org: node.org, key: node.key };
        let members = nodes[..members].iter().map(member).collect();
        Committee::of(engine, GroupId::shard(0), Incarnation(0), Epoch(0), members)
    };
    let (now, next) =
        (|heard, needed| Some(Risk::Now { heard, needed }), |heard, needed| Some(Risk::NextFailure { heard, needed }));
    // Node 1 leaves.
    for (engine, members, silent, expected) in [
        (Engine::Raft, 3, &[][..], None),
        (Engine::Raft, 3, &[1], None),
        (Engine::Raft, 3, &[2], next(2, 2)),
        (Engine::Raft, 3, &[1, 2], now(1, 2)),
        (Engine::Raft, 3, &[2, 3], now(1, 2)),
        (Engine::Raft, 5, &[2], None),
        (Engine::Raft, 5, &[1, 2], None),
        (Engine::Raft, 5, &[2, 3], next(3, 3)),
        (Engine::Raft, 5, &[1, 2, 3], now(2, 3)),
        // One that bears no failure anyway is moved while it is there.
        (Engine::Raft, 1, &[], None),
        (Engine::Raft, 1, &[1], now(0, 1)),
        (Engine::Raft, 2, &[], None),
        (Engine::Raft, 2, &[2], now(1, 2)),
        (Engine::Bft, 4, &[], None),
        (Engine::Bft, 4, &[1], None),
        (Engine::Bft, 4, &[2], next(3, 3)),
        (Engine::Bft, 7, &[1, 2], None),
        (Engine::Bft, 7, &[2, 3], next(5, 5)),
        (Engine::Bft, 7, &[1, 2, 3], now(4, 5)),
    ] {
        let heard = |node: NodeId| !silent.contains(&node.0);
        let found = of_leaving(&committee(engine, members), NodeId(1), heard);
        assert_eq!(found, expected, "{engine} of {members} without {silent:?}");
    }
}

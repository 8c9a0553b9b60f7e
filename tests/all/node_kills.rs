//! Whoever takes a seat, and whoever leads while a seat moves, is killed in the midst of it: the seat moves all the same, and
//! customers pay meanwhile. Nodes are processes. The node that takes the seat does not run when it is planned, so that no
//! step is over before it is looked at. Where a phase has to last until somebody was killed in it, the shard lacks two of its
//! three members meanwhile, and takes nobody in. Commands are killed as well, in each of their steps.

use beacon::NodeLives;
use client::Client;
use ledger::{GroupId, NodeId};
use serde_json::{Value, json};

use crate::elastic::{asked, reaches};
use crate::elastic_faults;
use crate::nodes::{MEANWHILE, Scene, committees, outsiders, seats};
use crate::support::bank::now_ms;
use crate::support::cluster::leader_of;
use crate::support::eventually;
use crate::support::up::Up;

/// Waits until whoever leads a group has taken a node in as one that follows without a vote. Returns the group, and who
/// leads it.
async fn learns(client: &Client, joins: NodeId) -> (GroupId, NodeId) {
    eventually("a group has taken it in", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let all = status.nodes.iter().flat_map(|node| node.replicas.iter().map(move |replica| (node.node, replica)));
        let mut leading = all.filter(|(_, replica)| replica.leads && replica.learners.contains(&joins.0));
        let found = leading.next().map(|(node, replica)| (GroupId(replica.group), NodeId(node)));
        found.ok_or_else(|| format!("nobody counts on node {joins}"))
    })
    .await
}

/// Waits until whoever leads this very group has taken a node in as one that follows without a vote.
pub async fn learns_in(client: &Client, group: GroupId, joins: NodeId) {
    eventually("the group has taken it in", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let mut all = status.nodes.iter().flat_map(|node| &node.replicas);
        let found = all.any(|one| one.group == group.0 && one.leads && one.learners.contains(&joins.0));
        if found { Ok(()) } else { Err(format!("{group} does not count on node {joins}")) }
    })
    .await;
}

/// Waits until a node has begun with a group: there is something of it on its disk.
pub async fn begins_with(up: &Up, node: NodeId, group: GroupId) {
    let replica = up.dir.join(format!("nodes/node-{node}/data/{group}"));
    eventually("it has begun with the group", async || if replica.exists() { Ok(()) } else { Err("not yet") }).await;
}

/// A seat that moves to the other node of the same organisation, in the shard in which both nodes have one that have none in
/// the beacon. Without these two the shard has no majority, and the beacon keeps one, also without the node that takes the
/// seat.
struct Seat {
    shard: GroupId,
    leaves: NodeId,
    other: NodeId,
    takes: NodeId,
}

impl Seat {
    fn of(client: &Client) -> Self {
        let genesis = client.genesis();
        let [(leaves, _), (other, _)] = &outsiders(client)[..] else { panic!("two are outside the beacon") };
        let (leaves, other) = (*leaves, *other);
        let both =
            genesis.committees.iter().find(|one| [leaves, other].iter().all(|node| one.index_of(*node).is_some()));
        let org = |node: NodeId| genesis.node(node).unwrap().org;
        let takes = genesis.nodes.iter().map(|node| node.id).find(|node| *node != leaves && org(*node) == org(leaves));
        Self { shard: both.unwrap().group, leaves, other, takes: takes.unwrap() }
    }

    /// The committee in force is the one of before.
    async fn has_not_moved(&self, client: &Client) {
        let now = committees(client).await.remove(&self.shard).unwrap();
        assert!(now.index_of(self.leaves).is_some() && now.index_of(self.takes).is_none(), "{now:?}");
    }

    /// Kills the node that takes the seat when it has begun with the shard, of which two members are down by then, so that it
    /// has no vote. These two come back.
    async fn is_killed_as_a_learner(&self, scene: &mut Scene) {
        learns_in(&scene.client, self.shard, self.takes).await;
        for node in [self.leaves, self.other] {
            scene.up.kill(node).await;
        }
        scene.up.restart(self.takes);
        begins_with(&scene.up, self.takes, self.shard).await;
        self.has_not_moved(&scene.client).await;
        scene.up.kill(self.takes).await;
        self.has_not_moved(&scene.client).await;
        for node in [self.leaves, self.other] {
            scene.up.restart(node);
        }
    }
}

/// Asks for a change that ends when the node that takes the seats is there.
fn begun(scene: &Scene, line: &str) {
    let said = scene.up.told(&format!("{line} --wait 0"));
    assert_eq!(said["state"], "under_way", "{said}");
}

/// Gives the same command again, and watches it to its end.
fn ended(scene: &Scene, line: &str) -> Value {
    let said = scene.up.told(&format!("{line} --wait 60"));
    assert_eq!((&said["state"], &said["missing"]), (&"done".into(), &json!([])), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_fetches_the_state_gets_its_seats() {
    let mut scene = Scene::begin().await;
    let (_, org) = outsiders(&scene.client)[0].clone();
    let joins = NodeId(6);
    scene.up.add_node(joins, &org).await;
    scene.up.kill(joins).await;
    begun(&scene, "node join 6");
    let (group, _) = learns(&scene.client, joins).await;
    assert!(
        committees(&scene.client).await[&group].index_of(joins).is_none(),
        "it has no vote before it has the state"
    );

    scene.up.restart(joins);
    begins_with(&scene.up, joins, group).await;
    scene.up.kill(joins).await;
    scene.load.next(MEANWHILE).await;

    scene.up.restart(joins);
    let joined = ended(&scene, "node join 6");
    let seats = joined["seats"].as_array().unwrap();
    assert!(seats.contains(&group.to_string().into()), "{joined}");
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_moves_although_whoever_leads_is_killed_meanwhile() {
    let mut scene = Scene::begin().await;
    let (leaves, org) = outsiders(&scene.client)[0].clone();
    let takes = NodeId(6);
    scene.up.add_node(takes, &org).await;
    scene.up.kill(takes).await;
    let line = format!("node replace {leaves} {takes}");
    begun(&scene, &line);
    let (group, led) = learns(&scene.client, takes).await;

    scene.up.kill(led).await;
    scene.up.restart(takes);
    eventually("another one leads", async || {
        let status = scene.client.status().await.map_err(|error| error.to_string())?;
        match leader_of(&status, group) {
            Some(node) if node != led => Ok(()),
            other => Err(format!("{other:?} leads {group}")),
        }
    })
    .await;
    scene.load.next(MEANWHILE).await;
    scene.up.restart(led);
    let replaced = ended(&scene, &line);
    assert!(replaced["seats"].as_array().unwrap().contains(&group.to_string().into()), "{replaced}");
    scene.end(&[leaves]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_that_a_job_moves_does_so_although_the_node_that_takes_it_is_killed_without_a_vote() {
    let mut scene = Scene::begin().await;
    let seat = Seat::of(&scene.client);
    scene.up.kill(seat.takes).await;
    let line = format!("shard move {} --from {} --to {}", seat.shard, seat.leaves, seat.takes);
    let moves = asked(&scene.up, &line).await;
    reaches(&scene.up, &moves, &["preparing"]).await;
    seat.is_killed_as_a_learner(&mut scene).await;
    let killed_ms = now_ms();
    assert_eq!(reaches(&scene.up, &moves, &["preparing", "done"]).await["phase"], "preparing", "it was killed in it");
    scene.load.next(MEANWHILE).await;

    scene.up.restart(seat.takes);
    let ended = reaches(&scene.up, &moves, &["done"]).await;
    assert!(ended["since_ms"].as_u64().unwrap() >= killed_ms, "the phase was over before: {ended}, {killed_ms}");
    let now = committees(&scene.client).await.remove(&seat.shard).unwrap();
    assert!(now.index_of(seat.leaves).is_none() && now.index_of(seat.takes).is_some(), "{now:?}");
    scene.end(&[]).await;
}

/// Whether a node was struck off.
async fn is_struck_off(client: &Client, node: NodeId) -> bool {
    let lives = eventually("what the beacon holds", async || client.node_lives::<NodeLives>().await).await;
    lives.removed.iter().any(|gone| gone.node == node)
}

/// What the beacon has decided goes on without the command; the last step, which strikes the node off, is the command's alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_leaves_although_the_command_and_the_node_that_takes_its_seats_are_killed_in_every_step() {
    let mut scene = Scene::begin().await;
    let seat = Seat::of(&scene.client);
    let leave = format!("node leave {} --wait 120", seat.leaves);
    scene.up.kill(seat.takes).await;
    // It may have led the beacon, and nobody gives the command again.
    elastic_faults::leader(&scene.client, GroupId::BEACON).await;
    // One as soon as it is given, and one while it watches that nothing comes of it yet.
    elastic_faults::kill(elastic_faults::begun(&scene.up, &leave));
    let watches = elastic_faults::begun(&scene.up, &leave);
    learns_in(&scene.client, seat.shard, seat.takes).await;
    elastic_faults::kill(watches);
    seat.has_not_moved(&scene.client).await;
    seat.is_killed_as_a_learner(&mut scene).await;
    scene.load.next(MEANWHILE).await;

    scene.up.restart(seat.takes);
    eventually("its seats have moved, and nobody watches", async || {
        match seats(&committees(&scene.client).await, seat.leaves)[..] {
            [] => Ok(()),
            ref left => Err(format!("it has seats in {left:?}")),
        }
    })
    .await;
    assert!(!is_struck_off(&scene.client, seat.leaves).await, "the command that does so was killed before");

    // One that does it is killed before it has told anybody, or right behind.
    let last = elastic_faults::begun(&scene.up, &leave);
    eventually("it is struck off", async || match is_struck_off(&scene.client, seat.leaves).await {
        true => Ok(()),
        false => Err("not yet"),
    })
    .await;
    elastic_faults::kill(last);
    let left = scene.up.told(&leave);
    assert_eq!((&left["state"], &left["seats"]), (&"done".into(), &json!([])), "{left}");
    let routers = scene.up.profile().routers;
    assert!(routers.iter().all(|router| router.node != Some(seat.leaves)), "clients are not sent there any more");
    scene.up.kill(seat.leaves).await;
    scene.end(&[seat.leaves]).await;
}

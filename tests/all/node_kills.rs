//! Whoever takes a seat, and whoever leads while a seat moves, is killed in the midst of it: the seat moves all the same, and
//! customers pay meanwhile. Nodes are processes. The node that takes the seat does not run when it is planned, so that no
//! step is over before it is looked at.

use client::Client;
use ledger::{GroupId, NodeId};
use serde_json::{Value, json};

use crate::nodes::{MEANWHILE, Scene, committees, outsiders};
use crate::support::cluster::leader_of;
use crate::support::eventually;

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
    let replica = scene.up.dir.join(format!("nodes/node-{joins}/data/{group}"));
    eventually("it has begun with the group", async || if replica.exists() { Ok(()) } else { Err("not yet") }).await;
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

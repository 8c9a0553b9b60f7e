//! Members of the beacon that leave and are replaced while customers pay: processes with fsync, and the commands that
//! operators give. Whoever has an old profile goes on, and whoever begins with the genesis alone finds its way to the
//! committee of today; so does every node after all have stopped.

use client::proof::verify;
use client::{Client, Consistency};
use ledger::{GroupId, NodeId, OrgId};

use crate::nodes::{MEANWHILE, Scene, committees};
use crate::support::cluster::base_port;
use crate::support::eventually;
use crate::support::router::Router;

const BEACON: GroupId = GroupId::BEACON;

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_beacon_leave_and_are_replaced_under_payments() {
    let mut scene = Scene::begin().await;
    let genesis = scene.client.genesis().clone();
    let first = genesis.committee(BEACON).unwrap().clone();
    let name = |org: OrgId| genesis.orgs.iter().find(|known| known.id == org).unwrap().name.clone();
    let [leaves, dies, _] = &first.members[..] else { panic!("the beacon has three members: {first:?}") };
    let (one, other) = (name(leaves.org), name(dies.org));
    let (leaves, dies) = (leaves.node, dies.node);

    // One is drained and leaves; a new node may take its seats.
    scene.up.add_node(NodeId(6), &one).await;
    let left = scene.up.told(&format!("node leave {leaves} --wait 120"));
    assert_eq!((&left["state"], &left["seats"]), (&"done".into(), &serde_json::json!([])), "{left}");
    let second = committees(&scene.client).await[&BEACON].clone();
    assert!(second.epoch > first.epoch && second.index_of(leaves).is_none(), "{second:?}");
    scene.up.kill(leaves).await;
    scene.load.next(MEANWHILE).await;

    // One is lost with its disk, and a new one takes its seats, that in the beacon among them.
    scene.up.kill(dies).await;
    std::fs::remove_dir_all(scene.up.dir.join(format!("nodes/node-{dies}"))).unwrap();
    scene.load.next(MEANWHILE).await;
    scene.up.add_node(NodeId(7), &other).await;
    let replaced = scene.up.told(&format!("node replace {dies} 7 --wait 120"));
    assert_eq!((&replaced["state"], &replaced["missing"]), (&"done".into(), &serde_json::json!([])), "{replaced}");
    assert_eq!(scene.up.told(&format!("node leave {dies} --wait 120"))["state"], "done");
    let third = committees(&scene.client).await[&BEACON].clone();
    assert!(third.index_of(dies).is_none() && third.index_of(NodeId(7)).is_some(), "{third:?}");
    scene.load.next(MEANWHILE).await;

    // A router that has the genesis alone follows the registry to nodes of which it has never heard, and a customer
    // with a profile of the first day uses it; what it is told is proved.
    let router = Router::start(&scene.up.dir, base_port(1)).await;
    let mut profile = scene.up.profile();
    profile.routers = vec![router.endpoint.clone()];
    let client = Client::connect(&profile).await.unwrap();
    eventually("the router knows the beacon of today", async || {
        let cluster = client.cluster().await.map_err(|error| error.to_string())?;
        let known = cluster.committees.iter().map(|bytes| borsh::from_slice::<ledger::Committee>(bytes).unwrap());
        let known = known.into_iter().find(|committee| committee.group == BEACON).ok_or("no beacon")?;
        if known == third { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
    for wallet in &scene.wallets[..2] {
        let answer = client.account(wallet.address, Consistency::Linearizable, true).await.unwrap();
        assert!(verify(&answer.proof.unwrap(), &genesis).is_ok(), "{}", wallet.address);
    }

    // All nodes stop, and one of them forgets what it has followed: it begins with the genesis again.
    let runs: Vec<NodeId> = (1..=7).map(NodeId).filter(|node| ![leaves, dies].contains(node)).collect();
    let forgets = *runs.iter().find(|node| third.index_of(**node).is_none()).unwrap();
    let kept = |file: &str| scene.up.dir.join(format!("nodes/node-{forgets}/data/{file}"));
    let files = [kept("registry"), kept("beacon-handovers")];
    eventually("the node has kept what it follows", async || {
        if files.iter().all(|file| file.exists()) { Ok(()) } else { Err("not yet") }
    })
    .await;
    // Those that this test has started are ended first: 'up' ends with the last of its own.
    for node in runs.iter().rev() {
        scene.up.kill(*node).await;
    }
    for file in &files {
        std::fs::remove_file(file).unwrap();
    }
    for node in &runs {
        scene.up.restart(*node);
    }
    scene.up.whole(&scene.client, &scene.groups).await;
    eventually("it has followed the beacon again", async || {
        if files.iter().all(|file| file.exists()) { Ok(()) } else { Err("not yet") }
    })
    .await;
    scene.load.next(MEANWHILE).await;
    assert_eq!(committees(&scene.client).await[&BEACON], third, "nothing has moved since");
    drop(router);
    scene.end(&[leaves, dies]).await;
}

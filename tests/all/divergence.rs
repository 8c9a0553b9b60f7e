//! A replica whose state is another one than its group has certified. The files agree with themselves, so its start finds
//! nothing; the first block that it executes does. It says so to the beacon and stops, the audit names it with a proof, its
//! node is held, and everybody else goes on. It comes back by a new seat, or, where nobody takes its seat, rebuilt.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use beacon::audit::quarantine::Held;
use beacon::{AuditReport, AuditStatus, BeaconCommand};
use bytes::Bytes;
use client::Wait;
use ledger::genesis::Genesis;
use ledger::tree::{StateTree, value_hash};
use ledger::{AccountRecord, Address, GroupId, Hash32, NodeId, schema};
use serde_json::Value;
use shard_node::core::applied::AppliedRecord;
use shard_node::server::replica::STATE_FORMAT;
use storage::{KeyRange, Kv, PlainCipher, ResourceLimits, SharedResources, StateDb, StateIdentity, WriteBatch};

use crate::nodes::{MEANWHILE, Scene, committees, outsiders, seats};
use crate::support::bank::{Bank, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::program::program;
use crate::support::up::Up;

/// Gives an account one more than it has, in the state of a node that is stopped, and notes the root that follows from
/// that. Returns the last block of that state.
fn enrich(root: &Path, genesis: &Genesis, (node, group): (NodeId, GroupId), who: &Address) -> u64 {
    let resources = SharedResources::new(ResourceLimits::default()).unwrap();
    let cluster = genesis.cluster_id().0.0;
    let identity = StateIdentity { cluster, node: node.0, group: group.0, format_version: STATE_FORMAT };
    let db = StateDb::open(root, &resources, identity, Arc::new(PlainCipher)).unwrap();
    let read = |key: &[u8]| db.get(key).unwrap().expect("a stopped node has flushed its state");
    let write = |key: Vec<u8>, value: Vec<u8>| {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        db.write(batch).unwrap();
    };

    let mut account: AccountRecord = borsh::from_slice(&read(&schema::account(who))).unwrap();
    account.balances[0].1.posted += 1;
    write(schema::account(who), borsh::to_vec(&account).unwrap());

    let pairs = db.scan(KeyRange::prefix(&[schema::STATE]), usize::MAX).unwrap();
    let leaf = |(key, value): &(Bytes, Bytes)| (schema::tree_position(key).unwrap(), value_hash(value));
    let mut leaves: Vec<_> = pairs.iter().map(leaf).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.0);
    let prefix = genesis.layout.prefix_of(group).unwrap().in_tree();
    let mut tree = StateTree::from_sorted(prefix, leaves).unwrap();
    let mut applied: AppliedRecord = borsh::from_slice(&read(&schema::applied())).unwrap();
    let recorded = std::mem::replace(&mut applied.state_root, Hash32(tree.root()));
    assert_ne!(recorded, applied.state_root);
    write(schema::applied(), borsh::to_vec(&applied).unwrap());
    db.flush().unwrap();
    applied.height.0
}

/// What `audit status` shows. It ends with 1 while anything is wrong.
fn shown(up: &Up) -> Value {
    let mut command = Command::new(program());
    command.args(["audit", "status", "--json"]).env("SEAMARK_DIR", &up.dir);
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(output.status.success(), shown["sound"] == true, "{output:?}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_state_is_held_and_its_seats_go_to_others_under_payments() {
    let mut scene = Scene::begin().await;
    let genesis = scene.client.genesis().clone();
    let (victim, _) = outsiders(&scene.client)[0].clone();
    let held = seats(&committees(&scene.client).await, victim);
    let group = *held.first().expect("it has a seat in a shard");
    let rich = scene.wallets.iter().find(|wallet| genesis.layout.locate(&wallet.address) == group).unwrap();
    let rich = rich.address;
    eventually("nobody is held", async || {
        let shown = shown(&scene.up);
        if shown["sound"] == true { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;

    scene.up.stop(victim).await;
    let state = scene.up.dir.join(format!("nodes/node-{victim}/data/{group}/state"));
    let last = enrich(&state, &genesis, (victim, group), &rich);
    scene.up.restart(victim);
    let found = eventually("the audit names the replica", async || {
        let shown = shown(&scene.up);
        let found = shown["divergent"].as_array().and_then(|held| held.first().cloned());
        found.ok_or_else(|| shown.to_string())
    })
    .await;
    assert_eq!((&found["node"], &found["group"]), (&victim.0.into(), &group.to_string().into()), "{found}");
    let height = found["height"].as_u64().unwrap();
    assert!(height > last, "{height} is no block that it has executed from the altered state, of {last}");
    // The group itself is not held, and neither is any other.
    let said = shown(&scene.up);
    assert_eq!((&said["quarantines"], &said["findings"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{said}");
    scene.load.next(MEANWHILE).await;

    // The report has the proof, which holds without the cluster.
    let file = scene.up.dir.join("found.audit");
    let written = scene.up.told(&format!("audit report --out {}", file.display()));
    assert_eq!((&written["sound"], &written["proofs"]), (&false.into(), &1_u64.into()), "{written}");
    let judged = scene.up.told(&format!("audit verify {}", file.display()));
    let proof = &judged["proofs"][0];
    assert_eq!((&proof["kind"], &proof["group"]), (&"divergent".into(), &group.to_string().into()), "{judged}");
    assert_eq!(proof["id"], found["proof"], "{judged}");

    // All its seats go to others, and nobody gave a command.
    eventually("its seats have moved", async || match seats(&committees(&scene.client).await, victim)[..] {
        [] => Ok(()),
        ref left => Err(format!("it has seats in {left:?}")),
    })
    .await;
    scene.load.next(MEANWHILE).await;

    // Released by more than half of the organisations, it takes its share again, of which nothing is of the altered state.
    let release = |by: &str| format!("audit release {group} --node {victim} --as {by}");
    assert_eq!(scene.up.told(&release("org-a"))["in_force"], false);
    assert_eq!(shown(&scene.up)["sound"], false);
    assert_eq!(scene.up.told(&release("org-b"))["in_force"], true);
    eventually("nobody is held any more", async || {
        let shown = shown(&scene.up);
        if shown["sound"] == true { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let joined = scene.up.told(&format!("node join {victim} --wait 120"));
    assert_eq!((&joined["state"], &joined["missing"]), (&"done".into(), &Value::Array(vec![])), "{joined}");
    assert!(!seats(&committees(&scene.client).await, victim).is_empty(), "{joined}");
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_state_whose_seat_nobody_can_take_is_rebuilt() {
    const VICTIM: NodeId = NodeId(2);
    const HURT: GroupId = GroupId::shard(0);
    let mut cluster = TestCluster::start(Wanted::default()).await;
    let genesis = cluster.genesis.clone();
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), 1_000).await;
    cluster.wait_settled().await;
    cluster.stop_node(VICTIM).await;
    let last = enrich(&cluster.data(VICTIM, HURT).join("state"), &genesis, (VICTIM, HURT), &homes[0][0].address);
    cluster.start_node(VICTIM).await;

    let pay = async |from: usize, to: usize| {
        let (payer, payee) = (&homes[from][0], &homes[to][1]);
        bank.client.pay(&payer.key, payee.address, bank.asset, 1, Wait::Applied).await.unwrap();
    };
    let audited = async || eventually("the audit", async || bank.client.audit::<AuditStatus>(false).await).await;
    let mark = eventually("the audit names the replica", async || {
        // Only what it executes shows what it has.
        pay(0, 0).await;
        let status = audited().await;
        status.divergent.first().copied().ok_or_else(|| format!("{status:?}"))
    })
    .await;
    assert_eq!((mark.node, mark.group, mark.holds()), (VICTIM, HURT, true));
    assert!(mark.height.0 > last, "{mark:?}");
    let stopped = eventually("it has stopped", async || {
        let stopped = cluster.replica(VICTIM, HURT).await.stopped;
        if stopped.is_empty() { Err("it runs") } else { Ok(stopped) }
    })
    .await;
    assert!(stopped.contains(&format!("certified another header than this replica has at height {}", mark.height)));
    let report: AuditReport = bank.client.audit(true).await.unwrap();
    let proofs = report.verify(&genesis).unwrap();
    assert_eq!(proofs.iter().map(|proof| (proof.kind, proof.group)).collect::<Vec<_>>(), [("divergent", HURT)]);
    assert!(report.status.quarantines.is_empty(), "{:?}", report.status);
    for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        pay(from, to).await;
    }

    // Started again, it does not serve what it has.
    cluster.stop_node(VICTIM).await;
    cluster.start_node(VICTIM).await;
    eventually("the state is not taken", async || {
        let stopped = cluster.replica(VICTIM, HURT).await.stopped;
        if stopped.contains("state_wrong") { Ok(()) } else { Err(stopped) }
    })
    .await;
    cluster.stop_node(VICTIM).await;
    let mut command = Command::new(program());
    command.args(["node", "rebuild", "--json", "--config"]).arg(cluster.dir.node_config(VICTIM)).arg(HURT.to_string());
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    assert!(output.status.success(), "{output:?}");
    cluster.start_node(VICTIM).await;
    pay(0, 1).await;
    cluster.wait_settled().await;

    // It is held until organisations have looked into it.
    assert!(audited().await.divergent[0].holds());
    let consortium = Consortium::of(&cluster);
    let release = BeaconCommand::ReleaseQuarantine(Held { group: HURT, node: Some(VICTIM) });
    for (org, pending) in genesis.orgs.iter().zip([Some((1, 2)), None]) {
        assert_eq!(consortium.beacon(org.id, &release).await.unwrap().pending, pending);
    }
    pay(1, 0).await;
    cluster.wait_settled().await;
    let status = audited().await;
    assert!(status.sound() && status.divergent.iter().all(|mark| !mark.holds()), "{status:?}");
    assert_eq!(bank.total(homes.iter().flatten()).await, 4_000);
}

//! A node gets another signing key while customers pay, in processes and by the command that an operator gives. Payments go
//! on, what was proved before stays proved, the key before is gone in the end, and the node starts with the new one.

use beacon::NodeLives;
use client::{Client, Consistency, ProofFile};
use ledger::{GroupId, NodeId, PublicKey};

use crate::nodes::committees;
use crate::support::audit::{audit_chains, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

const SHARD: GroupId = GroupId::shard(0);
const NODE: NodeId = NodeId(2);
const FUNDS: u128 = 1_000_000;
/// What is executed between two changes at least.
const MEANWHILE: usize = 200;

async fn proof_of(client: &Client, wallet: &Wallet) -> ProofFile {
    let found = eventually("a proof of an account", async || {
        client.account(wallet.address, Consistency::Linearizable, true).await
    })
    .await;
    found.proof.expect("a proof was asked for")
}

/// By which keys the committees in force name a node.
async fn keys(client: &Client) -> Vec<PublicKey> {
    let lives: NodeLives = eventually("the committees in force", async || client.node_lives::<NodeLives>().await).await;
    let seats = lives.committees.iter().filter_map(|committee| Some(committee.members[committee.index_of(NODE)?].key));
    let mut keys: Vec<PublicKey> = seats.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Replaces the key of a node of a cluster with one shard, in which every node has a seat.
async fn rotates(nodes: u32, options: &[&str]) {
    let mut up = Up::start_with(nodes, 1, options).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 8).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    load.next(MEANWHILE).await;
    let before = proof_of(&client, &wallets[0]).await;
    client::proof::verify(&before, &genesis).unwrap();
    let first = committees(&client).await;
    let old = genesis.node(NODE).unwrap().key;
    assert_eq!(keys(&client).await, [old]);

    assert_eq!(up.refused("node rotate-key 99"), "not_found");
    let told = up.told(&format!("node rotate-key {NODE} --wait 120"));
    assert_eq!((&told["state"], &told["missing"]), (&"done".into(), &serde_json::json!([])), "{told}");
    load.next(MEANWHILE).await;
    let now = committees(&client).await;
    let found = keys(&client).await;
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [told["key"].as_str().unwrap()]);
    assert_ne!(found, [old]);
    for (group, committee) in &now {
        assert_eq!(committee.members.len(), first[group].members.len(), "{group}");
        for (member, was) in committee.members.iter().zip(&first[group].members) {
            assert_eq!((member.node, member.org), (was.node, was.org), "{group}: nobody moves");
            assert_eq!(member.key == was.key, member.node != NODE, "{group}: one key changes");
        }
    }
    let folder = up.dir.join(format!("nodes/node-{NODE}"));
    assert!(!folder.join("signing.key.next").exists());
    let former = std::fs::read_to_string(folder.join("signing.key.former")).unwrap();
    assert_eq!(former.trim(), old.to_string());

    // Whoever has the genesis alone judges both: what was certified before, and what the new key has signed.
    client::proof::verify(&before, &genesis).unwrap();
    let after = proof_of(&client, &wallets[0]).await;
    client::proof::verify(&after, &genesis).unwrap();
    assert_eq!(after.handovers.len(), before.handovers.len() + 1, "one step leads to the committee with the new key");

    // It starts with the key that is left, and is needed when another one is missing.
    up.kill(NODE).await;
    load.next(MEANWHILE).await;
    up.restart(NODE);
    let groups = [GroupId::BEACON, SHARD];
    up.whole(&client, &groups).await;
    let other = now[&SHARD].members.iter().map(|member| member.node).find(|node| *node != NODE).unwrap();
    up.kill(other).await;
    load.next(MEANWHILE).await;
    let signed = proof_of(&client, &wallets[0]).await;
    client::proof::verify(&signed, &genesis).unwrap();
    let signers: Vec<NodeId> = signed.certificate.signatures.iter().map(|(node, _)| *node).collect();
    assert!(signers.contains(&NODE), "{signers:?}");
    up.restart(other);
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 4 * MEANWHILE as u64, "{committed}");
    let heights = up.settled(&client, &groups).await;
    let supply = audit_chains(&client, &heights).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * wallets.len() as u128);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_in_raft_groups_under_payments() {
    rotates(3, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_in_a_byzantine_shard_under_payments() {
    rotates(4, &["--consensus", "bft", "--beacon-consensus", "raft", "--replicas", "4", "--orgs", "4"]).await;
}

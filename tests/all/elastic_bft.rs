//! A Byzantine shard is cut and joined again while customers pay, as one is that Raft orders: its children begin with the
//! same four members, of which one may lie, and follow from its certified last block. Nodes are processes, and a follower
//! is killed while copies are kept, and once more as soon as what was joined is in force.

use client::{Client, Consistency, proof};
use ledger::{GroupId, NodeId};

use crate::elastic::{FUNDS, all_committed, asked_by, done, follower, job, reaches, run};
use crate::elastic_faults::warm;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

const NODES: usize = 4;
/// More than half of four.
const ORGS: [&str; 3] = ["org-a", "org-b", "org-c"];
/// What is executed between two events at least.
const MEANWHILE: usize = 100;

/// Has a job that waits for it go on.
async fn cut(up: &Up, name: &str) {
    eventually("the job is cut", async || {
        // An answer that was lost has cut it all the same.
        match job(up, name)?["phase"].as_str() {
            Some("preparing") => run(up, &format!("shard cut {name} --as org-a --wait 0")).and(Err("cut".to_owned())),
            _ => Ok(()),
        }
    })
    .await;
}

/// Waits until all four members run a shard, under the engine of its parent.
async fn run_by_all(client: &Client, group: GroupId) {
    eventually("all members run the shard", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let replicas = status.nodes.iter().flat_map(|node| &node.replicas).filter(|one| one.group == group.0);
        let found: Vec<(&str, usize, &str)> =
            replicas.map(|one| (one.engine.as_str(), one.voters.len(), one.stopped.as_str())).collect();
        if found == [("bft", NODES, ""); NODES] { Ok(()) } else { Err(format!("{group}: {found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byzantine_shard_is_cut_and_joined_again_under_load_and_no_payment_fails() {
    let mut up = Up::start_with(4, 1, &["--consensus", "bft", "--replicas", "4", "--orgs", "4"]).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 24).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    let [zero, left, right, joined] = [0, 1, 2, 3].map(GroupId::shard);
    run_by_all(&client, zero).await;

    let old = bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    let shown = async || {
        eventually("a receipt with its proof", async || {
            let answer = client.transaction(old.txid(), Some(zero), true).await.map_err(|error| error.to_string())?;
            answer.value.zip(answer.proof).ok_or_else(|| "no proof yet".to_owned())
        })
        .await
    };
    let (receipt, certified) = shown().await;
    let kept = certified.encode();
    let fact = proof::verify(&certified, &genesis).unwrap().fact;
    let mut load = Load::start(&bank, &wallets[2..], &wallets[2..], 32).await;
    load.next_by_any(MEANWHILE).await;

    // While copies are made and kept: three of four go on, and whoever comes back makes its own anew.
    let split = asked_by(&up, "shard split shard-0 --manual", &ORGS).await;
    let victim: NodeId = follower(&client, zero).await;
    up.kill(victim).await;
    load.next_by_any(MEANWHILE).await;
    assert_eq!(job(&up, &split).unwrap()["phase"], "preparing", "it has waited for nobody but for the word");
    up.restart(victim);
    up.whole(&client, &[GroupId::BEACON, zero]).await;
    // All have to be ready, for one of four that is missing is all that the shard bears.
    warm(&up, &split, NODES).await;
    cut(&up, &split).await;
    done(&up, &client, &split, &[zero]).await;
    for half in [left, right] {
        run_by_all(&client, half).await;
    }
    load.next_by_any(MEANWHILE).await;
    assert_eq!(shown().await.0, receipt, "by what the parent has certified");

    // As soon as it is in force: three of four begin.
    let merge = asked_by(&up, "shard merge shard-1 shard-2", &ORGS).await;
    reaches(&up, &merge, &["committed", "done"]).await;
    let victim = NodeId(4);
    up.kill(victim).await;
    load.next_by_any(MEANWHILE).await;
    up.restart(victim);
    done(&up, &client, &merge, &[zero, left, right]).await;
    run_by_all(&client, joined).await;
    load.next_by_any(MEANWHILE).await;

    all_committed(load, &bank, &wallets).await;
    up.settled(&client, &[GroupId::BEACON, joined]).await;
    assert_eq!(shown().await.0, receipt);
    let account = client.account(wallets[0].address, Consistency::Linearizable, true).await.unwrap();
    assert_eq!((account.group, account.proof.is_some()), (joined, true));
    let verified = proof::verify(&proof::ProofFile::decode(&kept).unwrap(), &genesis).unwrap();
    assert_eq!(verified.fact, fact, "what was proved before is proved for good");
}

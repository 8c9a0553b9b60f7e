//! Shards that are held where the beacon has told them to stand still and they have not: two of three members are gone, so
//! nothing ends that phase but its time-out. What is killed then is killed in it, and the job is carried through or taken
//! back; no payment fails, and nothing is lost.

use std::time::Duration;

use client::{Client, Consistency};
use ledger::{GroupId, JobId, NodeId};
use proto::v1::{NodeStatusReply, ReplicaStatus};

use crate::elastic::{FUNDS, all_committed, asked, copies_are_gone, done, in_the_end, run};
use crate::elastic_faults::{leader, warm};
use crate::nodes::committees;
use crate::support::bank::{Bank, Wallet, now_ms, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

/// What is executed between two events at least.
const MEANWHILE: usize = 100;

/// A cluster under load, and a shard that is to be cut as soon as it is told to. One of its members has a seat in the beacon,
/// so that either can lose its majority and leave the other one's.
struct Held {
    up: Up,
    client: Client,
    bank: Bank,
    wallets: Vec<Wallet>,
    load: Load,
    shard: GroupId,
    members: Vec<NodeId>,
    /// The member with a seat in the beacon.
    both: NodeId,
    job: String,
}

impl Held {
    /// Returns when all copies are ready.
    async fn begin() -> Self {
        let up = Up::start(5, 3).await;
        let client = Client::connect(&up.profile()).await.unwrap();
        let genesis = client.genesis().clone();
        let nodes = |group: GroupId| -> Vec<NodeId> {
            genesis.committee(group).unwrap().members.iter().map(|member| member.node).collect()
        };
        let beacon = nodes(GroupId::BEACON);
        let found = genesis.layout.shards.iter().find_map(|shard| {
            let members = nodes(shard.group);
            let seated: Vec<NodeId> = members.iter().copied().filter(|node| beacon.contains(node)).collect();
            (seated.len() == 1).then(|| (shard.group, members, seated[0]))
        });
        // Each organisation has one seat in every group, and seats are even: the two nodes outside of the beacon have two of
        // three shards each, and so one together.
        let (shard, members, both) = found.expect("a shard with both nodes that have no seat in the beacon");
        let bank = Bank::open(&client).await;
        let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 8).into_iter().flatten().collect();
        bank.fund(&wallets, FUNDS).await;
        let mut load = Load::start(&bank, &wallets, &wallets, 32).await;
        load.next_by_any(MEANWHILE).await;
        let job = asked(&up, &format!("shard split {shard} --manual")).await;
        warm(&up, &job, members.len()).await;
        Self { up, client, bank, wallets, load, shard, members, both, job }
    }

    /// The members but one.
    fn members_but(&self, node: NodeId) -> Vec<NodeId> {
        self.members.iter().copied().filter(|member| *member != node).collect()
    }

    /// Has the job go on. Returns when the beacon says that the shard is to stand still.
    async fn told_to_stand_still(&self) {
        eventually("the shard is told to stand still", async || {
            let mut said = run(&self.up, &format!("shard status {}", self.job))?;
            if said["phase"] == "preparing" {
                let cut = |org: &str| run(&self.up, &format!("shard cut {} --as {org} --wait 0", self.job));
                said = cut("org-a").or_else(|_| cut("org-b"))?;
            }
            if said["phase"] == "sealing" { Ok(()) } else { Err(said.to_string()) }
        })
        .await;
    }

    /// Payments go on, the shard is cut in the end, and nothing was lost.
    async fn end(mut self) {
        let how = in_the_end(&self.up, &self.job).await;
        self.load.next_by_any(MEANWHILE).await;
        if how == "cancelled" {
            self.up.whole(&self.client, &[GroupId::BEACON, self.shard]).await;
            copies_are_gone(&self.up).await;
            self.job = asked(&self.up, &format!("shard split {}", self.shard)).await;
        }
        done(&self.up, &self.client, &self.job, &[self.shard]).await;
        self.load.next_by_any(MEANWHILE).await;
        all_committed(self.load, &self.bank, &self.wallets).await;
        let groups: Vec<GroupId> = committees(&self.client).await.into_keys().collect();
        self.up.settled(&self.client, &groups).await;
    }
}

fn replica(node: &NodeStatusReply, group: GroupId) -> Option<&ReplicaStatus> {
    node.replicas.iter().find(|replica| replica.group == group.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_a_shard_is_killed_while_the_beacon_waits_for_its_end() {
    let mut held = Held::begin().await;
    let leads = leader(&held.client, held.shard).await;
    let others = held.members_but(leads);
    for node in &others {
        held.up.kill(*node).await;
    }
    held.told_to_stand_still().await;
    let killed_ms = now_ms();
    held.up.kill(leads).await;
    for node in others.iter().chain([&leads]) {
        held.up.restart(*node);
    }
    in_the_end(&held.up, &held.job).await;
    let ended = run(&held.up, &format!("shard status {}", held.job)).unwrap();
    assert!(ended["since_ms"].as_u64().unwrap() >= killed_ms, "the phase was over before: {ended}, {killed_ms}");
    held.end().await;
}

/// Without the beacon nothing ends, also not by its time: whether others have gone on, nobody could say.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_stands_still_waits_for_a_beacon_that_has_lost_its_majority() {
    let mut held = Held::begin().await;
    let (shard, both, job) = (held.shard, held.both, held.job.parse::<JobId>().unwrap());
    let genesis = held.client.genesis().clone();
    let beacon = genesis.committee(GroupId::BEACON).unwrap().members.iter().map(|member| member.node);
    let beacon: Vec<NodeId> = beacon.filter(|node| *node != both).collect();
    let others = held.members_but(both);
    for node in &others {
        held.up.kill(*node).await;
    }
    held.told_to_stand_still().await;
    // The one that is left of the beacon has the mail that says so, and can prove it.
    let mut told = None;
    eventually("what the shard is told is certified", async || {
        let status = held.client.status().await.map_err(|error| error.to_string())?;
        let heights = status.nodes.iter().filter_map(|node| replica(node, GroupId::BEACON)).map(|one| one.height);
        let latest = heights.max().ok_or("nobody in the beacon answers")?;
        let told = *told.get_or_insert(latest);
        let its = status.nodes.iter().find(|node| node.node == both.0).and_then(|node| replica(node, GroupId::BEACON));
        match its.map(|one| one.certified_height) {
            Some(certified) if certified >= told => Ok(()),
            other => Err(format!("{other:?} of {told}")),
        }
    })
    .await;
    for node in &beacon {
        held.up.kill(*node).await;
    }
    for node in &others {
        held.up.restart(*node);
    }

    let client = held.client.clone();
    let stands = async |what: &str| {
        eventually(what, async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let replicas = status.nodes.iter().filter_map(|node| replica(node, shard));
            let found: Vec<(u64, u64)> = replicas.map(|one| (one.sealed_by_job, one.height)).collect();
            match found[..] {
                [first, second, third] if first.0 == job.0 && first == second && second == third => Ok(first.1),
                _ => Err(format!("{found:?}")),
            }
        })
        .await
    };
    let last = stands("all members stand still").await;
    let own = held.wallets.iter().find(|wallet| genesis.layout.locate(&wallet.address) == shard).unwrap();
    let hasty = client.clone().with_patience(Duration::from_secs(1));
    let read = hasty.account(own.address, Consistency::Linearizable, false).await;
    assert!(read.is_err(), "others may have gone on, so nobody says what is the newest");
    assert_eq!(stands("all members still stand still").await, last, "nothing came behind it");

    for node in &beacon {
        held.up.restart(*node);
    }
    held.end().await;
}

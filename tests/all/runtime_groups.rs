//! Groups that are founded while the cluster runs: their members' nodes start them, nobody else has
//! anything of them, and they are there again after a restart.

use std::collections::BTreeSet;

use beacon::BeaconCommand;
use channel::{Change, Command};
use client::{Consistency, Wait};
use ledger::{Address, AssetSpec, Committee, Engine, GroupId, LedgerId, Move, NodeId, OrgId};
use shard_node::core::marks;

use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Wallet, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted, agreed, leader_of};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::load::Load;

const A: OrgId = OrgId(1);
const B: OrgId = OrgId(2);
const C: OrgId = OrgId(3);

fn five_nodes() -> Wanted {
    Wanted { nodes: 5, ..Wanted::default() }
}

/// The committee of a group, as a node's router knows it.
async fn committee(cluster: &TestCluster, group: GroupId) -> Committee {
    let client = cluster.client();
    eventually("the group is known", async || {
        let reply = client.cluster().await.map_err(|error| error.to_string())?;
        let all = reply.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
        all.into_iter().find(|committee| committee.group == group).ok_or("no committee of it".to_owned())
    })
    .await
}

/// Waits until exactly the committee's nodes run the group, and all of them stand at one certified block.
async fn runs(cluster: &TestCluster, group: GroupId) -> Committee {
    let committee = committee(cluster, group).await;
    let seats: BTreeSet<NodeId> = committee.members.iter().map(|member| member.node).collect();
    let client = cluster.client();
    eventually("the members run the group", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let hosts = |reply: &&proto::v1::NodeStatusReply| reply.replicas.iter().any(|replica| replica.group == group.0);
        let found: BTreeSet<NodeId> = status.nodes.iter().filter(hosts).map(|reply| NodeId(reply.node)).collect();
        if found != seats {
            return Err(format!("{group} runs on {found:?}, not on {seats:?}"));
        }
        let height = agreed(&status, group)?;
        if height > 0 { Ok(()) } else { Err(format!("{group} has taken no mail yet")) }
    })
    .await;
    committee
}

/// A channel as its users see it.
struct Ledger<'a> {
    bank: &'a Bank,
    id: LedgerId,
}

impl Ledger<'_> {
    async fn execute(&self, mv: Move, by: &Wallet) {
        let client = &self.bank.client;
        eventually("the channel knows the asset", async || {
            match client.asset(self.bank.asset, Some(GroupId(self.id.0))).await {
                Ok(answer) => answer.value.map(drop).ok_or_else(|| "not yet".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        client.execute(vec![(self.id, mv)], b"", &[&by.key], Wait::Applied).await.unwrap();
    }

    /// Mints in the asset's home ledger, and has the amount cross to this one.
    async fn bring(&self, to: &Wallet, amount: u128) {
        let before = self.balance(to.address).await;
        self.bank.fund([to], amount).await;
        let cross =
            Move::Transfer { from: to.address, to: to.address, asset: self.bank.asset, amount, ledger: self.id };
        self.bank.execute(vec![cross], &[&to.key]).await.unwrap();
        eventually("the transfer arrives", async || match self.balance(to.address).await {
            now if now == before + amount => Ok(()),
            now => Err(format!("{now}, after {before}")),
        })
        .await;
    }

    async fn balance(&self, address: Address) -> u128 {
        let answer = self.bank.client.account_of(self.id, address, Consistency::Linearizable, false).await.unwrap();
        let balances = answer.value.map(|record| record.balances).unwrap_or_default();
        balances.iter().find(|line| line.0 == self.bank.asset).map_or(0, |line| line.1.posted)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founded_channel_runs_on_its_members_nodes_and_comes_back_after_a_restart() {
    let mut cluster = TestCluster::start(five_nodes()).await;
    let bank = Bank::open(&cluster.client()).await;
    let consortium = Consortium::of(&cluster);
    let channel = consortium.found("steel", &[(A, &[NodeId(1)]), (B, &[NodeId(2)]), (C, &[NodeId(3)])]).await;
    let members = runs(&cluster, channel).await;
    consortium.permit(channel, bank.asset, &[A, B]).await;
    assert_eq!(members.members.iter().map(|member| member.org).collect::<BTreeSet<_>>().len(), 3);

    // One of two organisations: the third has no part in it.
    let pair = consortium.found("coal", &[(A, &[NodeId(1)]), (B, &[NodeId(5)])]).await;
    let of_pair = runs(&cluster, pair).await;
    assert!(of_pair.members.iter().all(|member| member.org != OrgId(3)));

    let ledger = Ledger { bank: &bank, id: LedgerId::of_channel(channel) };
    let (alice, bob) = (wallet("alice", 0), wallet("bob", 0));
    ledger.bring(&alice, 100).await;
    ledger.execute(bank.pay(&alice, bob.address, 30), &alice).await;
    assert_eq!((ledger.balance(alice.address).await, ledger.balance(bob.address).await), (70, 30));
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [0, 0], "the main ledger has none of it");
    // It is proved from the genesis alone, by way of the beacon that founded the channel.
    let proved = bank.client.account_of(ledger.id, bob.address, Consistency::Linearizable, true).await.unwrap();
    let file = client::ProofFile::from_file(&proved.proof.unwrap().to_file()).unwrap();
    let verified = client::proof::verify(&file, &cluster.genesis).unwrap();
    assert_eq!((verified.group, verified.height), (channel, proved.height));
    let unfounded = client::ProofFile { version: file.claim.version(), founded: None, ..file };
    assert_eq!(client::proof::verify(&unfounded, &cluster.genesis).unwrap_err().code(), "proof_committee");

    // An asset that is issued later reaches the channels too.
    let spec = AssetSpec { issuer: bank.issuer.address, symbol: "USD".into(), name: "Dollar".into(), decimals: 2 };
    let later = Bank { asset: spec.id(), ..bank.clone() };
    bank.client
        .execute(vec![(LedgerId::BEACON, Move::Issue(spec))], b"", &[&bank.issuer.key], Wait::Applied)
        .await
        .unwrap();
    consortium.permit(pair, later.asset, &[B, A]).await;
    let dollars = Ledger { bank: &later, id: LedgerId::of_channel(pair) };
    dollars.bring(&bob, 5).await;
    assert_eq!(dollars.balance(bob.address).await, 5);

    let block = bank.client.block(channel, ledger::Height(1)).await.unwrap().value.unwrap();
    let certificate = block.certificate.expect("settled blocks are certified");
    certificate.verify(&members).unwrap();

    for _ in 0..2 {
        for node in cluster.node_ids() {
            for (group, committee) in [(channel, &members), (pair, &of_pair)] {
                let has = cluster.data(node, group).exists();
                assert_eq!(has, committee.index_of(node).is_some(), "the folder of {group} on node {node}");
            }
        }
        cluster.stop_all().await;
        cluster.start_all().await;
        assert_eq!(runs(&cluster, channel).await, members);
        assert_eq!(runs(&cluster, pair).await, of_pair);
    }
    ledger.execute(bank.pay(&bob, alice.address, 10), &bob).await;
    assert_eq!((ledger.balance(alice.address).await, ledger.balance(bob.address).await), (80, 20));

    let home =
        Move::Transfer { from: bob.address, to: alice.address, asset: bank.asset, amount: 15, ledger: LedgerId::MAIN };
    ledger.execute(home, &bob).await;
    eventually("what goes home arrives", async || match bank.balance(alice.address).await {
        15 => Ok(()),
        other => Err(format!("{other}")),
    })
    .await;
    assert_eq!((ledger.balance(alice.address).await, ledger.balance(bob.address).await), (80, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_down_when_a_channel_was_founded_starts_it_later() {
    let mut cluster = TestCluster::start(five_nodes()).await;
    let late = NodeId(5);
    cluster.stop_node(late).await;
    // With a seat for every node, the one that is down has one, too.
    let hosts: [(OrgId, &[NodeId]); 3] =
        [(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2), NodeId(5)]), (C, &[NodeId(3)])];
    // The first step of a group takes all of its members.
    let first_of_each = |nodes: &[NodeId]| nodes[..1].to_vec();
    let (channel, _) = Consortium::of(&cluster).decide_founding(Engine::Raft, "steel", &hosts, first_of_each).await;
    assert!(committee(&cluster, channel).await.index_of(late).is_some());
    assert!(!cluster.data(late, channel).exists());
    cluster.start_node(late).await;
    runs(&cluster, channel).await;

    // It knows its groups from its own files: nobody else is there to tell.
    cluster.stop_all().await;
    cluster.start_node(late).await;
    assert!(cluster.node(late).hosted().group(channel.0).is_some());
}

/// Gives a node this capacity, in the name of its organisation.
async fn capacity(cluster: &TestCluster, node: NodeId, capacity: u16) {
    let command = BeaconCommand::SetNodeCapacity { node, capacity };
    let fate = Consortium::of(cluster).beacon(cluster.info(node).org, &command).await.unwrap();
    assert_eq!(fate.pending, None);
}

/// Takes all capacity from a node.
async fn drain(cluster: &TestCluster, node: NodeId) {
    capacity(cluster, node, 0).await;
}

/// Starts a node that has nothing left but its keys: neither its data nor the mark that it has run.
async fn start_with_keys_alone(cluster: &mut TestCluster, node: NodeId) {
    cluster.stop_node(node).await;
    let folder = cluster.dir.node_dir(node);
    std::fs::remove_dir_all(folder.join("data")).unwrap();
    std::fs::remove_file(folder.join("signing.key.started")).unwrap();
    cluster.start_node(node).await;
}

/// Waits until the node's replica of a group has found out that its log was lost, from the others or, where
/// nothing is left that a committee in force would have made, from the registry.
async fn knows_its_loss(cluster: &TestCluster, node: NodeId, group: GroupId) {
    eventually("the loss is found", async || {
        let stopped = cluster.replica(node, group).await.stopped;
        if ["replica_log_lost", "seat_lost"].iter().any(|code| stopped.starts_with(code)) {
            Ok(())
        } else {
            Err(stopped)
        }
    })
    .await;
}

/// Waits until a committee after this one is in force that has, or has not, this node.
async fn in_force(cluster: &TestCluster, group: GroupId, after: &Committee, node: NodeId, seated: bool) -> Committee {
    eventually("the seat has moved", async || {
        let known = committee(cluster, group).await;
        match known.epoch > after.epoch && known.index_of(node).is_some() == seated {
            true => Ok(known),
            false => Err(format!("{group} has {known:?}")),
        }
    })
    .await
}

/// As [`in_force`], and all of it runs.
async fn seated(cluster: &TestCluster, group: GroupId, after: &Committee, node: NodeId, seated: bool) -> Committee {
    in_force(cluster, group, after, node, seated).await;
    runs(cluster, group).await
}

/// A member that lost its log takes part no more under its old id, in groups of the genesis and in channels.
/// Another node takes its place: in a shard when it is drained, in a channel when its organisation says so.
/// Let in again, it joins with an empty log under a new id. What it loses then is lost again.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_log_is_replaced_and_joins_anew() {
    let mut cluster = TestCluster::start(Wanted { nodes: 4, shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 2).remove(0);
    bank.fund(&wallets, 1_000).await;
    let shard = cluster.genesis.layout.shards[0].group;
    // Organisation A has two nodes; one of them at least has a seat in the shard.
    let seated_in_shard = |node: &NodeId| cluster.genesis.committee(shard).unwrap().index_of(*node).is_some();
    let victim = *[NodeId(1), NodeId(4)].iter().find(|node| seated_in_shard(node)).unwrap();
    let other = NodeId(5 - victim.0);
    let hosts: [(OrgId, &[NodeId]); 3] = [(A, &[victim]), (B, &[NodeId(2)]), (C, &[NodeId(3)])];
    let channel = Consortium::of(&cluster).found("steel", &hosts).await;
    let groups = [shard, channel];
    let mut committees = Vec::new();
    for group in groups {
        committees.push(runs(&cluster, group).await);
    }

    start_with_keys_alone(&mut cluster, victim).await;
    for group in groups {
        knows_its_loss(&cluster, victim, group).await;
    }
    let pay = async |amount: u128| {
        bank.client.pay(&wallets[0].key, wallets[1].address, bank.asset, amount, Wait::Applied).await.unwrap();
    };
    pay(100).await;

    // The other node comes first, so that no failure more than before would stop the channel. That it has its
    // seat, the channel hears from the beacon, after the routers.
    let hosted_on = async |cluster: &TestCluster, nodes: &[NodeId]| {
        let command = Command::SetNodes { nodes: BTreeSet::from_iter(nodes.to_vec()).into_iter().collect() };
        eventually("the channel counts the new seat", async || {
            match Consortium::of(cluster).act(channel, A, &command).await {
                Ok(channel::Outcome::Done) => Ok(()),
                Ok(other) => panic!("{other:?}"),
                Err(error) if error.to_string().contains("channel_quorum_at_risk") => Err(error.to_string()),
                Err(error) => panic!("{error}"),
            }
        })
        .await;
    };
    // No anchor is left behind.
    let no_anchors = Change::Anchors { org: A, nodes: Vec::new() };
    Consortium::of(&cluster).decide(channel, no_anchors, &[A, B]).await;
    hosted_on(&cluster, &[victim, other]).await;
    let both = in_force(&cluster, channel, &committees[1], other, true).await;
    hosted_on(&cluster, &[other]).await;
    committees[1] = seated(&cluster, channel, &both, victim, false).await;
    drain(&cluster, victim).await;
    committees[0] = seated(&cluster, shard, &committees[0], victim, false).await;
    for group in groups {
        eventually("the old folder is gone", async || {
            if cluster.data(victim, group).exists() { Err("it is there") } else { Ok(()) }
        })
        .await;
    }
    pay(20).await;

    capacity(&cluster, victim, 1).await;
    hosted_on(&cluster, &[victim, other]).await;
    let both = seated(&cluster, channel, &committees[1], victim, true).await;
    hosted_on(&cluster, &[victim]).await;
    committees[1] = seated(&cluster, channel, &both, other, false).await;
    drain(&cluster, other).await;
    committees[0] = seated(&cluster, shard, &committees[0], victim, true).await;
    for (group, joined) in groups.into_iter().zip([committees[0].epoch, both.epoch]) {
        let seat = std::fs::read_to_string(cluster.data(victim, group).join("seat.json")).unwrap();
        let join = format!("\"join\":{}", joined.0 + 1);
        assert!(seat.contains(&join), "{seat}");
    }
    pay(3).await;
    cluster.stop_all().await;
    cluster.start_all().await;
    for (at, group) in groups.into_iter().enumerate() {
        assert_eq!(runs(&cluster, group).await, committees[at]);
    }

    start_with_keys_alone(&mut cluster, victim).await;
    for group in groups {
        knows_its_loss(&cluster, victim, group).await;
    }
    pay(1).await;
    assert_eq!(bank.balances(&[wallets[0].address, wallets[1].address]).await, [876, 1_124]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_hands_its_replicas_over_under_payments() {
    let mut cluster = TestCluster::start(Wanted { snapshot_every: Some(100), ..five_nodes() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "mover", 4);
    let payers: Vec<Wallet> = homes.iter().flatten().cloned().collect();
    bank.fund(&payers, 1_000_000).await;
    let before = bank.client.account(payers[0].address, Consistency::Linearizable, true).await.unwrap();

    let beacon = cluster.genesis.committee(GroupId::BEACON).unwrap();
    let shards: Vec<GroupId> = cluster.genesis.layout.shards.iter().map(|shard| shard.group).collect();
    let seats = |node: NodeId| -> Vec<GroupId> {
        let seated = |group: &&GroupId| cluster.genesis.committee(**group).unwrap().index_of(node).is_some();
        shards.iter().filter(seated).copied().collect()
    };
    let outside = cluster.node_ids().into_iter().filter(|node| beacon.index_of(*node).is_none());
    let leaves = outside.max_by_key(|node| seats(*node).len()).unwrap();
    let moved = seats(leaves);
    assert!(!moved.is_empty());

    // More than the log keeps, so that whoever joins needs a snapshot.
    let mut load = Load::start(&bank, &payers, &payers, 64).await;
    let client = cluster.client();
    for group in &moved {
        eventually("the log is longer than what is kept of it", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let leader = leader_of(&status, *group).ok_or("nobody leads")?;
            let last = cluster.replica(leader, *group).await.log_last;
            if last > 400 { Ok(()) } else { Err(format!("{group} has {last} entries")) }
        })
        .await;
    }
    drain(&cluster, leaves).await;
    for group in &moved {
        eventually("the seat has moved", async || {
            let known = committee(&cluster, *group).await;
            let status = client.status().await.map_err(|error| error.to_string())?;
            let leader = leader_of(&status, *group).ok_or("nobody leads")?;
            let replicas = status.nodes.iter().find(|node| node.node == leader.0).map(|node| &node.replicas);
            let replica = replicas.into_iter().flatten().find(|replica| replica.group == group.0).unwrap();
            let voters: Vec<NodeId> = replica.voters.iter().copied().map(NodeId).collect();
            let members: Vec<NodeId> = known.members.iter().map(|member| member.node).collect();
            match known.epoch.0 > 0 && voters == members && !members.contains(&leaves) {
                true => Ok(()),
                false => Err(format!("{group}: voters {voters:?}, members {members:?}, epoch {}", known.epoch)),
            }
        })
        .await;
    }
    load.next(500).await;
    end_and_reconcile(load, &bank).await;

    for group in &moved {
        let now = runs(&cluster, *group).await;
        assert_eq!(now.members.len(), 3);
        let before = cluster.genesis.committee(*group).unwrap();
        let joined = now.members.iter().find(|member| before.index_of(member.node).is_none()).unwrap().node;
        let replica = cluster.node(joined).hosted().group(group.0).unwrap();
        let installed: Option<ledger::Height> = replica.share.state.load(&marks::installed()).unwrap();
        assert!(installed.is_some(), "node {joined} joined {group} without a snapshot");
        eventually("the old folder is gone", async || {
            if cluster.data(leaves, *group).exists() { Err("it is there") } else { Ok(()) }
        })
        .await;
    }
    // What was proved before still is, and what is proved now follows from the genesis.
    let old = before.proof.unwrap();
    client::proof::verify(&old, &cluster.genesis).unwrap();
    let home = cluster.genesis.layout.locate(&payers[0].address);
    for wallet in &payers {
        let group = cluster.genesis.layout.locate(&wallet.address);
        let after = bank.client.account(wallet.address, Consistency::Linearizable, true).await.unwrap();
        let steps = after.proof.unwrap().handovers.len();
        assert_eq!(steps > 0, moved.contains(&group), "{group} has {steps} hand-overs");
    }
    assert!(old.handovers.is_empty() && shards.contains(&home));

    cluster.stop_all().await;
    cluster.start_all().await;
    for group in &moved {
        assert!(runs(&cluster, *group).await.index_of(leaves).is_none());
    }
}

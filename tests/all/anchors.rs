//! Mail of channels goes through their anchors: what nodes say to each other is heard in the place of one that is no
//! anchor, and of one that is. Without the only anchor of a channel all goes on inside it, and what others have to hear
//! of waits until its members set another one.

use channel::Change;
use client::{Client, Consistency, Wait};
use consensus::sequencer::Sequencer;
use cross_shard::AnchorsUpdate;
use ledger::{Address, Committee, Engine, GroupId, LedgerId, Move, NodeId, Opening, OrgId, SignedTx, schema};
use shard_node::core::peer::PeerMessage;

use crate::channel_swaps::hidden;
use crate::support::bank::{Bank, Wallet, body, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::decoy::{Decoy, Heard};
use crate::support::eventually;

const A: OrgId = OrgId(1);
const B: OrgId = OrgId(2);
const C: OrgId = OrgId(3);

/// A channel, its nodes, and the one that carries its mail.
struct Side {
    group: GroupId,
    nodes: Vec<NodeId>,
    anchor: NodeId,
    /// One that is no anchor. It leads.
    leader: NodeId,
    /// The third one, which is no anchor either, and has no other part here.
    spare: NodeId,
}

/// Two channels with one anchor each, none of whose nodes has a seat in the beacon, and money in both.
struct Scene {
    cluster: TestCluster,
    bank: Bank,
    /// Of A and B.
    steel: Side,
    /// Of B and C.
    coal: Side,
    /// Has money in steel, and pays bob.
    alice: Wallet,
    bob: Wallet,
    /// Has money in coal, and pays dave.
    carol: Wallet,
    dave: Wallet,
    /// The admin of B, over its node in steel.
    between: Client,
}

impl Scene {
    async fn set() -> Self {
        let cluster = TestCluster::start(Wanted { nodes: 9, shards: 1, ..Wanted::default() }).await;
        let of = |org: OrgId| -> Vec<NodeId> {
            let beacon = cluster.genesis.committee(GroupId::BEACON).unwrap();
            let own = cluster.node_ids().into_iter().filter(|node| cluster.info(*node).org == org);
            own.filter(|node| beacon.index_of(*node).is_none()).collect()
        };
        let (of_a, of_b, of_c) = (of(A), of(B), of(C));
        assert!(of_a.len() >= 2 && of_b.len() >= 2 && of_c.len() >= 2, "the beacon has one node of each");
        let bank = Bank::open(&cluster.client()).await;
        let consortium = Consortium::of(&cluster);
        let mut sides = Vec::new();
        for (name, own, of_own, of_other) in [("steel", A, &of_a, of_b[0]), ("coal", C, &of_c, of_b[1])] {
            let (anchor, spare) = (of_own[0], of_own[1]);
            let hosts: [(OrgId, &[NodeId]); 2] = [(own, &of_own[..2]), (B, &[of_other])];
            let anchors =
                |nodes: &[NodeId]| nodes.iter().copied().filter(|node| *node == anchor).collect::<Vec<NodeId>>();
            let group = consortium.found_with(Engine::Raft, name, &hosts, anchors).await;
            consortium.permit(group, bank.asset, &[own, B]).await;
            sides.push(Side { group, nodes: vec![anchor, spare, of_other], anchor, leader: of_other, spare });
        }
        let (coal, steel) = (sides.pop().unwrap(), sides.pop().unwrap());
        let between = consortium.client_over(B, |node| node == steel.leader);
        let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| wallet(name, 0));
        let scene = Self { cluster, bank, steel, coal, alice, bob, carol, dave, between };
        for side in [&scene.steel, &scene.coal] {
            scene.knows_both(side).await;
            scene.is_led(side).await;
        }

        // Money comes in from a group that has no anchors, over one that passes it on.
        scene.bank.fund([&scene.alice, &scene.carol], 1_000).await;
        for (wallet, group) in [(&scene.alice, scene.steel.group), (&scene.carol, scene.coal.group)] {
            let (address, ledger) = (wallet.address, LedgerId::of_channel(group));
            let bring = Move::Transfer { from: address, to: address, asset: scene.bank.asset, amount: 600, ledger };
            scene.bank.execute(vec![bring], &[&wallet.key]).await.unwrap();
            scene.has(group, address, (600, 0)).await;
        }
        scene
    }

    /// Waits until the replicas of a channel know both channels and who carries their mail.
    async fn knows_both(&self, side: &Side) {
        for node in &side.nodes {
            for other in [&self.steel, &self.coal] {
                eventually("the channels know each other and their anchors", async || {
                    let running = self.cluster.node(*node).hosted().group(side.group.0);
                    let state = running.ok_or_else(|| format!("it does not run on node {node}"))?.share.state.clone();
                    let committee = state.load::<Committee>(&schema::current_committee(other.group));
                    let anchors = state.load::<AnchorsUpdate>(&schema::anchors(other.group));
                    let known = committee.map_err(|error| error.to_string())?;
                    let told = anchors.map_err(|error| error.to_string())?.map(|update| update.anchors);
                    match known.is_some() && told.as_deref() == Some(&[other.anchor][..]) {
                        true => Ok(()),
                        false => Err(format!("node {node} was told of {told:?}")),
                    }
                })
                .await;
            }
        }
    }

    /// Has a node lead the channel that is no anchor of it.
    async fn is_led(&self, side: &Side) {
        eventually("one that is no anchor leads", async || {
            for node in &side.nodes {
                let replica = self.cluster.node(*node).hosted().group(side.group.0);
                let replica = replica.ok_or_else(|| format!("node {node} does not host it yet"))?;
                if replica.role().leads {
                    if *node == side.leader {
                        return Ok(());
                    }
                    replica.engine.transfer_leader(side.leader).await.map_err(|error| error.to_string())?;
                }
            }
            Err("not yet".to_owned())
        })
        .await;
    }

    /// What an account has in a channel: posted, and of that held.
    async fn funds(&self, group: GroupId, address: Address) -> (u128, u128) {
        let ledger = LedgerId::of_channel(group);
        let answer = self.between.account_of(ledger, address, Consistency::Linearizable, false).await.unwrap();
        let balances = answer.value.map(|record| record.balances).unwrap_or_default();
        let line = balances.iter().find(|line| line.0 == self.bank.asset);
        line.map_or((0, 0), |(_, balance)| (balance.posted, balance.held))
    }

    async fn has(&self, group: GroupId, address: Address, expected: (u128, u128)) {
        eventually("the balance is as expected", async || {
            let found = self.funds(group, address).await;
            if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        })
        .await;
    }

    /// Alice pays bob in steel, and carol pays dave in coal.
    fn swap(&self, number: u8, amount: u128) -> (SignedTx, Vec<Opening>) {
        let pay = self.bank.pay(&self.alice, self.bob.address, amount);
        let (first, opening) = hidden(number, 0, self.steel.group, pay);
        let pay = self.bank.pay(&self.carol, self.dave.address, amount);
        let (second, other) = hidden(number, 1, self.coal.group, pay);
        let mut body = body(self.cluster.genesis.cluster_id(), number.into(), []);
        body.slots = vec![first, second];
        (SignedTx::sign(&body, &[&self.alice.key, &self.carol.key]), vec![opening, other])
    }

    async fn settles(&self, number: u8, amount: u128, wait: Wait) {
        let (tx, openings) = self.swap(number, amount);
        let settled = self.between.submit_tx(tx.encode(), openings, wait).await.unwrap();
        assert!(settled.committed(), "{settled:?}");
    }

    /// What nodes say is wrong, as B is shown it.
    async fn alarms(&self) -> Vec<String> {
        let status = eventually("the status", async || Consortium::of(&self.cluster).client(B).status().await).await;
        status.nodes.into_iter().flat_map(|node| node.alarms).collect()
    }
}

/// The group on the other side of the border, if a message to a replica of a channel crosses it.
fn comes_from(heard: &Heard) -> Option<GroupId> {
    let group = match heard.message() {
        PeerMessage::Pull { dest, .. } | PeerMessage::Probe { dest, .. } => dest,
        PeerMessage::Bundle(bundle) => bundle.source,
        PeerMessage::Serving { source } => source,
        PeerMessage::Head(proof) => proof.certificate.header.group,
        _ => return None,
    };
    (group != heard.group).then_some(group)
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_crosses_through_anchors_alone_and_waits_for_them_and_for_nothing_else_does() {
    let mut scene = Scene::set().await;
    let (steel, coal) = (scene.steel.group, scene.coal.group);
    scene.settles(1, 10, Wait::Applied).await;

    // In the place of a replica that is no anchor nothing is heard from over the border, but from the beacon.
    let (spare, anchor) = (scene.steel.spare, scene.coal.anchor);
    let beside = Decoy::instead_of(spare, &mut scene.cluster).await;
    scene.settles(2, 20, Wait::Applied).await;
    let all = eventually("the beacon has asked it twice", async || {
        let heard = beside.since(0);
        let from_beacon = |heard: &&Heard| heard.group == steel && comes_from(heard) == Some(GroupId::BEACON);
        let asked = heard.iter().filter(from_beacon).count();
        if asked >= 2 { Ok(heard) } else { Err(format!("{asked} times")) }
    })
    .await;
    let across = all.iter().filter(|heard| heard.group == steel).filter_map(comes_from);
    let others: Vec<GroupId> = across.filter(|group| *group != GroupId::BEACON).collect();
    assert!(others.is_empty(), "{others:?} ask a node that is no anchor");

    // Without coal's only anchor all goes on inside, and what both have decided waits on its way.
    let instead = Decoy::instead_of(anchor, &mut scene.cluster).await;
    let (alice, bob, carol, dave) = (scene.alice.address, scene.bob.address, scene.carol.address, scene.dave.address);
    for (group, wallet, payee) in [(coal, &scene.carol, dave), (steel, &scene.alice, bob)] {
        let pay = (LedgerId::of_channel(group), scene.bank.pay(wallet, payee, 1));
        let paid = scene.between.execute(vec![pay], b"", &[&wallet.key], Wait::Receipt).await.unwrap();
        assert!(paid.committed(), "{paid:?}");
    }
    scene.settles(3, 40, Wait::Receipt).await;
    let named = format!("no anchor of {coal} is heard of (nodes {anchor})");
    for whose in ["mail to it and from it waits", "mail from it waits"] {
        eventually("whoever waits says for whom", async || {
            let alarms = scene.alarms().await;
            let told = alarms.iter().any(|alarm| alarm.contains(&named) && alarm.contains(whose));
            if told { Ok(()) } else { Err(format!("{alarms:?}")) }
        })
        .await;
    }
    assert_eq!(scene.funds(steel, alice).await, (569, 40), "it waits");
    assert_eq!(scene.funds(coal, carol).await, (569, 40));

    // In its place only steel's anchor is heard to ask for steel's mail.
    let heard = eventually("steel asks for its mail", async || {
        let heard: Vec<Heard> = instead.since(0);
        let asks: Vec<Heard> =
            heard.into_iter().filter(|heard| heard.group == coal && comes_from(heard) == Some(steel)).collect();
        if asks.is_empty() { Err("nobody asks") } else { Ok(asks) }
    })
    .await;
    let askers: Vec<NodeId> = heard.iter().map(|heard| heard.from).collect();
    assert!(askers.iter().all(|node| *node == scene.steel.anchor), "{askers:?}");

    // Its members set another one. What waited comes through.
    let change = Change::Anchors { org: C, nodes: vec![scene.coal.spare] };
    Consortium::of(&scene.cluster).decide(coal, change, &[C, B]).await;
    scene.has(steel, alice, (529, 0)).await;
    scene.has(coal, carol, (529, 0)).await;
    scene.has(steel, bob, (71, 0)).await;
    scene.has(coal, dave, (71, 0)).await;
    scene.settles(4, 80, Wait::Applied).await;
    eventually("nobody waits any more", async || {
        let alarms = scene.alarms().await;
        let waits = alarms.iter().any(|alarm| alarm.contains("is heard of"));
        if waits { Err(format!("{alarms:?}")) } else { Ok(()) }
    })
    .await;
}

//! A member is removed, and its node stays a voter because nobody can decide on another committee: it gets nothing of
//! what the channel does from then on, and the others go on. Nor does it with a copy of its replica that was kept. The
//! nodes are in this process: what a node has at the end is read from its own replica, also when that is over, and who
//! leads is chosen.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use channel::Change;
use client::{Client, Consistency, Wait, net};
use consensus::port::{RoleView, any_replica, replica_id};
use consensus::raft::{CALL_KINDS, asks_for_values};
use consensus::sequencer::Sequencer;
use ledger::{Engine, GroupId, Height, LedgerId, Move, NodeId, OrgId};
use prost::Message;
use proto::v1;
use shard_node::server::admission;
use shard_node::server::group::{FIRST_JOIN, GroupHandle};
use shard_node::server::replica::ReplicaShare;
use tokio::sync::watch;

use crate::support::bank::{Bank, Wallet, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::call;

const A: OrgId = OrgId(1);
const B: OrgId = OrgId(2);
const C: OrgId = OrgId(3);
/// Payments after the removal.
const PAYMENTS: u128 = 20;

/// A channel of which no node has a seat in the beacon. It has as many as its engine needs to go on without one of them,
/// and without one more behind the removal.
pub struct Scene {
    pub cluster: TestCluster,
    pub bank: Bank,
    pub channel: GroupId,
    /// Nodes that stay.
    pub stay: Vec<NodeId>,
    /// The node of C.
    pub goes: NodeId,
    /// Two of the three nodes of the beacon.
    beacon: Vec<NodeId>,
    pub payer: Wallet,
    pub payee: Wallet,
}

/// What the node of C has of the channel, also when it does not host it any more.
struct Has {
    role: watch::Receiver<RoleView>,
    share: ReplicaShare,
}

impl Has {
    fn last_entry(&self) -> u64 {
        self.role.borrow().last_log_index
    }

    fn last_block(&self) -> Height {
        self.share.stand.lock().applied.height
    }
}

impl Scene {
    pub async fn set() -> Self {
        Self::ordered_by(Engine::Raft).await
    }

    async fn ordered_by(engine: Engine) -> Self {
        // Beside the three of the beacon.
        let (hosts, of_second) = match engine {
            Engine::Raft => (4, 1),
            Engine::Bft => (5, 2),
        };
        let cluster = TestCluster::start(Wanted { nodes: 3 + hosts, shards: 1, ..Wanted::default() }).await;
        let seated: Vec<NodeId> = {
            let beacon = cluster.genesis.committee(GroupId::BEACON).unwrap();
            beacon.members.iter().map(|member| member.node).collect()
        };
        let of = |org: OrgId, in_beacon: bool| -> Vec<NodeId> {
            let all = cluster.node_ids().into_iter().filter(|node| cluster.info(*node).org == org);
            all.filter(|node| seated.contains(node) == in_beacon).collect()
        };
        let (of_a, of_b, of_c) = (of(A, false), of(B, false), of(C, false));
        let enough = of_a.len() >= 2 && of_b.len() >= of_second && !of_c.is_empty();
        assert!(enough, "the beacon has one node of each");
        let beacon = [of(A, true), of(B, true)].concat();
        assert_eq!((seated.len(), beacon.len()), (3, 2));

        let bank = Bank::open(&cluster.client()).await;
        let (payer, payee) = (wallet("payer", 0), wallet("payee", 0));
        let (stay, goes) = ([&of_a[..2], &of_b[..of_second]].concat(), of_c[0]);
        let consortium = Consortium::of(&cluster);
        let hosts: [(OrgId, &[NodeId]); 3] = [(A, &of_a[..2]), (B, &of_b[..of_second]), (C, &of_c[..1])];
        let channel = consortium.found_by(engine, "steel", &hosts).await;
        consortium.permit(channel, bank.asset, &[A, B]).await;
        bank.fund([&payer], 1_000).await;
        let (asset, amount, ledger) = (bank.asset, 1_000, LedgerId::of_channel(channel));
        let bring = Move::Transfer { from: payer.address, to: payer.address, asset, amount, ledger };
        bank.execute(vec![bring], &[&payer.key]).await.unwrap();
        let scene = Self { cluster, bank, channel, stay, goes, beacon, payer, payee };
        eventually("the money is in the channel", async || {
            let answer = scene.member().account_of(ledger, scene.payer.address, Consistency::Linearizable, false).await;
            let found = answer.map_err(|error| error.to_string())?.value;
            found.map(drop).ok_or_else(|| "no account yet".to_owned())
        })
        .await;
        scene
    }

    pub fn member(&self) -> Client {
        self.cluster.client_of(self.stay[0])
    }

    fn replica(&self, node: NodeId) -> Arc<GroupHandle> {
        self.cluster.node(node).hosted().group(self.channel.0).expect("the node hosts the channel")
    }

    /// Has a node lead the channel.
    async fn led_by(&self, wanted: NodeId) {
        eventually("the node leads", async || {
            for node in self.stay.iter().copied().chain([self.goes]) {
                let replica = self.cluster.node(node).hosted().group(self.channel.0);
                let replica = replica.ok_or_else(|| format!("{node} does not host it yet"))?;
                if replica.role().leads {
                    if node == wanted {
                        return Ok(());
                    }
                    replica.engine.transfer_leader(wanted).await.map_err(|error| error.to_string())?;
                }
            }
            Err("not yet".to_owned())
        })
        .await;
    }

    /// Pays in the channel, and waits until it is final.
    pub async fn pay(&self, times: u128) {
        let (client, ledger) = (self.member(), LedgerId::of_channel(self.channel));
        for _ in 0..times {
            let pay = self.bank.pay(&self.payer, self.payee.address, 1);
            let settled = client.execute(vec![(ledger, pay)], b"", &[&self.payer.key], Wait::Receipt).await.unwrap();
            assert!(settled.committed(), "{settled:?}");
        }
    }

    pub async fn paid(&self) -> u128 {
        self.has(&self.payee).await
    }

    /// What somebody has in the channel.
    pub async fn has(&self, whose: &Wallet) -> u128 {
        let ledger = LedgerId::of_channel(self.channel);
        let client = self.member();
        let answer = client.account_of(ledger, whose.address, Consistency::Linearizable, false).await.unwrap();
        let balances = answer.value.map(|record| record.balances).unwrap_or_default();
        balances.iter().find(|line| line.0 == self.bank.asset).map_or(0, |line| line.1.posted)
    }

    /// The last entry that one of those who stay has applied.
    fn last_entry(&self) -> u64 {
        let applied = |node: &NodeId| self.replica(*node).share.stand.lock().applied.consensus.position;
        self.stay.iter().filter_map(applied).map(|position| position.index).max().unwrap()
    }

    fn voters(&self) -> Vec<NodeId> {
        self.replica(self.stay[0]).engine.role().borrow().voters.clone()
    }

    /// Asks those who stay, with the key of C's node, for what they have ordered from an index on, in all the ways in
    /// which replicas ask each other. Returns how each has answered, by the kind of the question.
    async fn asked_by_its_node(&self, from: u64) -> Vec<(u8, tonic::Code)> {
        let identity = self.cluster.node_identity(self.goes);
        let mut told = Vec::new();
        for node in &self.stay {
            let addr = &self.cluster.info(*node).peer_addr;
            let door = net::connect(addr, &identity, &self.cluster.roots(), &net::node_server_name(*node)).unwrap();
            for kind in CALL_KINDS.iter().copied().filter(|kind| asks_for_values(*kind)) {
                // Version, receiver, sender, and the index: all of these questions have it, and nothing else.
                let question = (1u8, any_replica(*node), replica_id(self.goes, FIRST_JOIN), from);
                let payload = Bytes::from(borsh::to_vec(&question).unwrap());
                let request = v1::RaftRequest { group: self.channel.0, kind: kind.into(), payload };
                let answer = call(&door, "/seamark.v1.Node/Raft", request.encode_to_vec().into()).await;
                told.push((kind, answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok)));
            }
        }
        assert!(told.len() >= 2 * self.stay.len(), "{told:?}");
        told
    }
}

/// Removes C while `leader` leads and the beacon cannot decide, and looks at what C's node has at the end.
async fn removed_while_led_by(engine: Engine, pick: impl Fn(&Scene) -> NodeId) {
    let mut scene = Scene::ordered_by(engine).await;
    scene.pay(1).await;
    scene.led_by(pick(&scene)).await;
    // A member's node is told all of it, unless this engine does not know the question.
    let told = scene.asked_by_its_node(1).await;
    assert!(told.iter().all(|(_, code)| *code != tonic::Code::PermissionDenied), "{told:?}");
    assert!(told.iter().filter(|(_, code)| *code == tonic::Code::Ok).count() >= 2 * scene.stay.len(), "{told:?}");
    for node in scene.beacon.clone() {
        scene.cluster.stop_node(node).await;
    }
    let has = {
        let replica = scene.replica(scene.goes);
        Has { role: replica.engine.role(), share: replica.share.clone() }
    };
    Consortium::of(&scene.cluster).decide(scene.channel, Change::Remove { org: C }, &[A, B]).await;
    let since = eventually("those who stay know", async || {
        let states = scene.stay.iter().map(|node| admission::excluded_since(&scene.replica(*node).share, C));
        states.collect::<Option<Vec<Height>>>().and_then(|all| all.first().copied()).ok_or("not yet")
    })
    .await;
    // Whatever is behind this in the log was proposed later.
    let until_then = scene.last_entry();

    // The committee stands, and all of it but one are enough.
    scene.pay(PAYMENTS).await;
    assert_eq!(scene.paid().await, 1 + PAYMENTS);
    assert!(scene.voters().contains(&scene.goes), "it is a voter still");
    // Members of a Byzantine group lead in turn, so that its turn may come, in which it can propose nothing.
    let leader = scene.stay.iter().find(|node| scene.replica(**node).role().leads);
    assert!(leader.is_some() || engine == Engine::Bft, "one of those who stay leads");
    let height = scene.replica(scene.stay[0]).share.stand.lock().applied.height;
    assert!(height > since && scene.last_entry() > until_then);
    assert!(has.last_block() <= since && has.last_entry() <= until_then, "{} of {until_then}", has.last_entry());
    // Nor is it told when it asks: its seat lets it vote, and no more.
    let told = scene.asked_by_its_node(until_then + 1).await;
    assert!(told.iter().all(|(_, code)| *code == tonic::Code::PermissionDenied), "{told:?}");
    assert!(scene.voters().contains(&scene.goes), "it was a voter all the time");

    // The beacon decides again: the voters follow, and its copy goes. It has got nothing in all that time.
    for node in scene.beacon.clone() {
        scene.cluster.start_node(node).await;
    }
    eventually("its seat and its copy are gone", async || {
        let (voters, copy) = (scene.voters(), scene.cluster.data(scene.goes, scene.channel).exists());
        if voters.contains(&scene.goes) || copy { Err(format!("{voters:?}, copy: {copy}")) } else { Ok(()) }
    })
    .await;
    scene.pay(1).await;
    assert_eq!(scene.paid().await, 2 + PAYMENTS);
    assert!(has.last_block() <= since && has.last_entry() <= until_then, "{} of {until_then}", has.last_entry());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_gets_no_entry_although_its_node_is_a_voter_still() {
    removed_while_led_by(Engine::Raft, |scene| scene.stay[0]).await;
}

/// Under the Byzantine engine it would have values, and the votes for them, from every member, and ask for decided ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_of_a_byzantine_channel_gets_no_value_although_its_node_votes_still() {
    removed_while_led_by(Engine::Bft, |scene| scene.stay[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_that_leads_hands_over_and_gets_no_entry_of_its_heir() {
    removed_while_led_by(Engine::Raft, |scene| scene.goes).await;
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (source, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if source.is_dir() {
            copy_folder(&source, &target);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_that_brings_back_an_old_copy_gets_nothing_new() {
    let mut scene = Scene::set().await;
    scene.pay(1).await;
    // All that its node has: state, snapshots and the local key.
    let (goes, folder) = (scene.goes, scene.cluster.data(scene.goes, scene.channel));
    let kept = folder.with_file_name("kept-by-its-operator");
    scene.cluster.stop_node(goes).await;
    copy_folder(&folder, &kept);
    scene.cluster.start_node(goes).await;
    eventually("it is a member's node again", async || {
        let replica = scene.cluster.node(goes).hosted().group(scene.channel.0);
        replica.map(drop).ok_or("it does not run yet")
    })
    .await;

    Consortium::of(&scene.cluster).decide(scene.channel, Change::Remove { org: C }, &[A, B]).await;
    let since = eventually("those who stay know", async || {
        admission::excluded_since(&scene.replica(scene.stay[0]).share, C).ok_or("not yet")
    })
    .await;
    eventually("its seat and its copy are gone", async || {
        let (voters, copy) = (scene.voters(), folder.exists());
        if voters.contains(&goes) || copy { Err(format!("{voters:?}, copy: {copy}")) } else { Ok(()) }
    })
    .await;
    scene.pay(PAYMENTS).await;

    scene.cluster.stop_node(goes).await;
    copy_folder(&kept, &folder);
    scene.cluster.start_node(goes).await;
    eventually("what was brought back is gone again", async || {
        if let Some(replica) = scene.cluster.node(goes).hosted().group(scene.channel.0) {
            let height = replica.share.stand.lock().applied.height;
            assert!(height <= since, "it has block {height}, and its organisation went with {since}");
        }
        if folder.exists() { Err("not yet") } else { Ok(()) }
    })
    .await;
    let over_its_own = Consortium::of(&scene.cluster).client_over(C, |node| node == goes);
    let refused = over_its_own.governance(scene.channel).await.expect_err("it is no member");
    assert!(["channel_refused", "access_denied"].contains(&refused.code()), "{refused}");
    scene.pay(1).await;
    assert_eq!(scene.paid().await, 2 + PAYMENTS);
}

//! A member of a Byzantine shard, or of the beacon, whose key signs two votes that exclude each other, as a second process with
//! that key would send them: the group and the beacon keep the proof, the beacon gives its seats to other nodes, its own among
//! them, and whoever looks is told who is accused, by which proof, and what becomes of the seats, after a restart of
//! everybody, too.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, BytesMut};
use client::{Identity, Settled, Wait, net};
use consensus::bft::Message;
use consensus::port::replica_id;
use consensus::raft::{CALL_KINDS, brings_values};
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
use ledger::{AssetSpec, Committee, Engine, GroupId, Hash32, LedgerId, Move, NodeId};
use proto::v1;
use seamark_cli::setup::files::read_signing_key;
use serde_json::{Value, json};

use crate::support::bank::{Bank, Wallet, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::program::program;
use crate::support::{eventually, in_time};

const SHARD: GroupId = GroupId::shard(0);
const BEACON: GroupId = GroupId::BEACON;
const FUNDS: u128 = 100_000;

/// A shard of four organisations' nodes, on this many nodes, and who can pay in it.
struct Scene {
    /// The group that is lied to: the shard, or the beacon.
    group: GroupId,
    cluster: TestCluster,
    bank: Bank,
    wallets: Vec<Wallet>,
    /// The member that lies.
    liar: NodeId,
    /// A member that hears it.
    witness: NodeId,
    /// Assets that were issued so far.
    issued: AtomicU32,
}

impl Scene {
    async fn set(nodes: u32, group: GroupId) -> Self {
        let orgs = Some(u16::try_from(nodes).unwrap());
        let beacon_engine = if group == BEACON { Engine::Bft } else { Engine::Raft };
        let engine = Engine::Bft;
        let wanted = Wanted { nodes, orgs, shards: 1, replicas: 4, engine, beacon_engine, ..Wanted::default() };
        let cluster = TestCluster::start(wanted).await;
        let bank = Bank::open(&cluster.client()).await;
        let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 2).remove(0);
        bank.fund(&wallets, FUNDS).await;
        cluster.wait_settled().await;
        // One that leads would not propose the proof against itself.
        let leader = cluster.leader(group).await;
        let members = cluster.genesis.committee(group).unwrap().members.iter().map(|member| member.node);
        let others: Vec<NodeId> = members.filter(|node| *node != leader).collect();
        let (liar, witness) = (others[0], others[1]);
        Self { group, cluster, bank, wallets, liar, witness, issued: AtomicU32::new(0) }
    }

    fn genesis_committee(&self) -> &Committee {
        self.cluster.genesis.committee(self.group).unwrap()
    }

    async fn pay(&self) {
        let (from, to) = (&self.wallets[0], &self.wallets[1]);
        self.bank.client.pay(&from.key, to.address, self.bank.asset, 1, Wait::Receipt).await.unwrap();
    }

    /// Gives the group that is lied to something to order.
    async fn order(&self) {
        if self.group != BEACON {
            return self.pay().await;
        }
        let issuer = wallet("issuer of the beacon", self.issued.fetch_add(1, Ordering::Relaxed));
        let spec = AssetSpec { issuer: issuer.address, symbol: "XAU".into(), name: "Gold".into(), decimals: 3 };
        let moves = vec![(LedgerId::BEACON, Move::Issue(spec))];
        let settled = self.bank.client.execute(moves, b"", &[&issuer.key], Wait::Receipt).await.unwrap();
        assert!(matches!(settled, Settled::Receipt(_)), "{settled:?}");
    }

    /// Sends the witness two prevotes of one entry for different values.
    async fn vote_twice(&self, index: u64) -> Result<(), String> {
        let (cluster, committee) = (&self.cluster, self.genesis_committee());
        let key = read_signing_key(&cluster.dir.node_dir(self.liar).join("signing.key")).unwrap();
        let vote = |value: u8| {
            let ballot = Ballot {
                version: BALLOT_VERSION,
                cluster: cluster.genesis.cluster_id(),
                group: self.group,
                incarnation: committee.incarnation,
                committee: committee.hash(),
                index,
                round: 0,
                kind: BallotKind::Prevote,
                value: Some(Hash32([value; 32])),
                node: self.liar,
            };
            Message::Ballot(ballot.sign(&key))
        };
        // The head of a request in the first stint: version, receiver, sender.
        let mut request = BytesMut::new();
        request.put_u8(1);
        request.put_u64_le(replica_id(self.witness, 1));
        request.put_u64_le(replica_id(self.liar, 1));
        request.put_slice(&borsh::to_vec(&vec![vote(1), vote(2)]).unwrap());
        let kind = CALL_KINDS.iter().copied().find(|kind| brings_values(*kind)).unwrap();
        let request = v1::RaftRequest { group: self.group.0, kind: kind.into(), payload: request.freeze() };
        let identity: Identity = cluster.node_identity(self.liar);
        let (addr, name) = (&cluster.info(self.witness).peer_addr, net::node_server_name(self.witness));
        let door = net::connect(addr, &identity, &cluster.roots(), &name).unwrap();
        let taken = in_time("the ballots are taken", net::node_client(door).raft(request)).await;
        taken.map(drop).map_err(|status| status.message().to_owned())
    }

    /// Lies until the group keeps a proof of it: an entry may be decided before the ballots of it arrive.
    async fn lie(&self) {
        let client = self.cluster.client();
        eventually("the group keeps the proof", async || {
            let last = self.cluster.replica(self.witness, self.group).await.log_last;
            self.vote_twice(last + 2).await?;
            self.order().await;
            self.order().await;
            let kept = client.evidence(self.group).await.map_err(|error| error.to_string())?;
            assert!(kept.iter().all(|one| one.proof.node() == self.liar), "{kept:?}");
            if kept.is_empty() { Err("none yet".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// Runs one command of the program beside the cluster. Whether it succeeded, and its JSON.
    fn said(&self, line: &str) -> (bool, Value) {
        let mut command = Command::new(program());
        command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", self.cluster.dir.root());
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"));
        (output.status.success(), said)
    }

    /// Waits until the status says this of the seats that the liar still has, by group and what stands in the way, and
    /// returns all of it.
    async fn until_seats(&self, wanted: &[(&str, &str)]) -> Value {
        let wanted: Vec<Value> = wanted.iter().map(|(group, hindrance)| json!([group, hindrance])).collect();
        eventually("what becomes of the seats", async || {
            let (_, status) = self.said("status");
            let accused = status["accused"].as_array().ok_or_else(|| status.to_string())?;
            let [line] = &accused[..] else { return Err(format!("accused are {accused:?}")) };
            assert_eq!((&line["node"], &line["group"]), (&json!(self.liar.0), &json!(self.group.to_string())));
            let seats = line["seats"].as_array().unwrap().iter();
            let seats: Vec<Value> = seats.map(|seat| json!([seat["group"], seat["hindrance"]])).collect();
            if seats == wanted { Ok(status) } else { Err(format!("{line}")) }
        })
        .await
    }

    /// Waits until a committee of four without the liar is in force in the group.
    async fn until_replaced(&self) -> Committee {
        let client = self.cluster.client();
        eventually("the committee without it is in force", async || {
            let reply = client.cluster().await.map_err(|error| error.to_string())?;
            let all = reply.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
            let now = all.into_iter().find(|committee| committee.group == self.group).ok_or("no committee")?;
            match (now.members.len(), now.index_of(self.liar)) {
                (4, None) => Ok(now),
                found => Err(format!("{found:?}")),
            }
        })
        .await
    }

    /// These groups keep the proof that a status names, and it is judged offline.
    fn proved_by(&self, status: &Value, keepers: &[&str]) {
        let evidence = status["accused"][0]["evidence"].as_str().unwrap();
        for keeper in keepers {
            let (_, listed) = self.said(&format!("evidence ls {keeper}"));
            let found = listed["evidence"].as_array().unwrap().iter().find(|line| line["id"] == evidence);
            let found = found.unwrap_or_else(|| panic!("{keeper}: {listed}"));
            assert_eq!((&found["node"], &found["ballot"]), (&json!(self.liar.0), &json!("prevote")));
            assert_eq!(listed["accused"], status["accused"], "{keeper}");
            let file = self.cluster.dir.root().join(format!("{keeper}.evidence"));
            let line = format!("evidence show {} --group {keeper} --out {}", &evidence[..12], file.display());
            let (shown, proof) = self.said(&line);
            assert!(shown && proof["proved_by"] == *keeper, "{proof}");
            let (holds, verified) = self.said(&format!("evidence verify {}", file.display()));
            assert!(holds && verified.to_string().contains(evidence), "{verified}");
        }
    }

    /// Waits until so many replicas of other nodes have an alarm about the liar.
    async fn until_alarms(&self, enough: impl Fn(usize) -> bool) {
        let told = format!("equivocation: node {} has signed two", self.liar);
        eventually("the alarms about the liar", async || {
            let others = self.cluster.status().await.nodes.into_iter().filter(|reply| reply.node != self.liar.0);
            let alarms: Vec<String> = others.flat_map(|reply| reply.alarms).collect();
            let many = alarms.iter().filter(|alarm| alarm.starts_with(&told)).count();
            if enough(many) { Ok(()) } else { Err(format!("{alarms:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_votes_twice_loses_its_seat_and_everybody_can_see_why() {
    let scene = Scene::set(5, SHARD).await;
    scene.lie().await;
    let status = scene.until_seats(&[]).await;
    // Another node has the seat, and payments go on.
    scene.until_replaced().await;
    scene.pay().await;
    scene.proved_by(&status, &["beacon", "shard-0"]);
    // Nobody raises an alarm about one that has no seat in the group any more.
    scene.until_alarms(|many| many == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_beacon_that_votes_twice_loses_its_seat_there() {
    let mut scene = Scene::set(5, BEACON).await;
    scene.lie().await;
    let status = scene.until_seats(&[]).await;
    // The beacon has prepared and proved its own committee without it, and goes on with that one.
    let committee = scene.until_replaced().await;
    scene.pay().await;
    scene.order().await;
    scene.proved_by(&status, &["beacon"]);
    scene.until_alarms(|many| many == 0).await;
    scene.cluster.stop_all().await;
    scene.cluster.start_all().await;
    let after = scene.until_seats(&[]).await;
    assert_eq!(status["accused"], after["accused"]);
    assert_eq!(scene.until_replaced().await, committee);
    scene.order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_that_nobody_can_take_is_told_of_after_a_restart_of_everybody_too() {
    let mut scene = Scene::set(4, SHARD).await;
    scene.lie().await;
    // A majority orders the beacon: there the one without a seat takes it, if the liar has one.
    let seats = [("shard-0", "no_node")];
    let before = scene.until_seats(&seats).await;
    scene.cluster.stop_all().await;
    scene.cluster.start_all().await;
    let after = scene.until_seats(&seats).await;
    assert_eq!(before["accused"], after["accused"]);
    let (well, checked) = scene.said("status --check");
    assert!(!well && checked["healthy"] == false, "{checked}");
    let problems = checked["problems"].to_string();
    assert!(problems.contains("it keeps its seat in shard-0: no other node can take the seat"), "{problems}");
    // Each replica says so by its state: the engine that found it has nothing open any more.
    scene.until_alarms(|many| many >= 3).await;
    scene.pay().await;
}

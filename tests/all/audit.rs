//! The audit of a running cluster: all is sound and goes on rising under payments; a committee that certifies two blocks at
//! one height, with the nodes' real keys, puts its group into quarantine, and no other; and organisations let it out.

use std::collections::BTreeMap;

use beacon::audit::Twice;
use beacon::audit::quarantine::Held;
use beacon::{AuditEntry, AuditReport, AuditStatus, BeaconCommand};
use client::{Wait, net};
use ledger::{Certificate, GroupId, Hash32, Header, Height, NodeId, Reject};
use proto::v1;
use seamark_cli::setup::files::read_signing_key;
use shard_node::core::peer::PeerMessage;

use crate::support::bank::{Bank, Wallet, reason, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;

const SHARDS: [GroupId; 2] = [GroupId::shard(0), GroupId::shard(1)];

struct Town {
    cluster: TestCluster,
    bank: Bank,
    /// Funded accounts, by shard.
    homes: Vec<Vec<Wallet>>,
}

impl Town {
    async fn start() -> Self {
        let cluster = TestCluster::start(Wanted::default()).await;
        let bank = Bank::open(&cluster.client()).await;
        let homes = wallets_in_each_shard(&cluster.genesis.layout, "audited", 2);
        bank.fund(homes.iter().flatten(), 10_000).await;
        Self { cluster, bank, homes }
    }

    async fn status(&self) -> AuditStatus {
        eventually("the audit's status", async || self.bank.client.audit(false).await).await
    }

    /// A payment from a shard to an account.
    async fn pay(&self, from: usize, to: &Wallet) -> Result<(), client::ClientError> {
        let payer = &self.homes[from][0];
        self.bank.client.pay(&payer.key, to.address, self.bank.asset, 1, Wait::Applied).await.map(drop)
    }

    /// Payments within shards and between them.
    async fn trade(&self) {
        for _ in 0..5 {
            for from in 0..SHARDS.len() {
                for to in &self.homes {
                    // A router may not know yet that a shard is out of quarantine.
                    eventually("a payment", async || self.pay(from, &to[1]).await).await;
                }
            }
        }
    }

    /// Waits until both shards are audited to their ends and their flows were compared there.
    async fn compared(&self) -> BTreeMap<GroupId, Height> {
        let heights = self.cluster.wait_settled().await;
        eventually("both shards are audited to their ends", async || {
            let status: AuditStatus = self.bank.client.audit(false).await.map_err(|error| error.to_string())?;
            if !status.sound() || !status.transits.is_empty() {
                return Err(format!("{status:?}"));
            }
            let audited = |group: GroupId| {
                let state = status.groups.iter().find(|state| state.group == group)?;
                let audit = state.audited.filter(|audit| audit.height.0 >= heights[&group])?;
                audit.compared.map(|_| (group, audit.height))
            };
            SHARDS.map(audited).into_iter().collect::<Option<BTreeMap<_, _>>>().ok_or_else(|| format!("{status:?}"))
        })
        .await
    }

    /// A header signed by all members of its committee, with the keys in their folders.
    fn certify(&self, header: Header) -> Certificate {
        let committee = self.cluster.genesis.committee(header.group).unwrap();
        let digest = header.hash();
        let sign = |node: NodeId| {
            let key = read_signing_key(&self.cluster.dir.node_dir(node).join("signing.key")).unwrap();
            (node, key.sign(&digest))
        };
        let mut signatures: Vec<_> = committee.members.iter().map(|member| sign(member.node)).collect();
        signatures.sort_by_key(|(node, _)| *node);
        Certificate { version: 1, header, signatures }
    }

    /// Says this to every replica of the beacon, as a node does.
    async fn tell_beacon(&self, from: NodeId, message: &PeerMessage) -> Result<(), String> {
        let identity = self.cluster.node_identity(from);
        for node in self.cluster.node_ids() {
            let frame = v1::LinkFrame { group: GroupId::BEACON.0, payload: message.encode().into() };
            let batch = v1::LinkBatch { frames: vec![frame] };
            let addr = &self.cluster.info(node).peer_addr;
            let door = net::connect(addr, &identity, &self.cluster.roots(), &net::node_server_name(node));
            let door = door.map_err(|error| error.to_string())?;
            let link = net::node_client(door).link(tokio_stream::iter([batch])).await;
            link.map_err(|status| status.to_string())?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_payments_is_audited_to_its_ends() {
    let town = Town::start().await;
    town.trade().await;
    let first = town.compared().await;
    town.trade().await;
    let second = town.compared().await;
    for group in SHARDS {
        assert!(second[&group] > first[&group], "{group}: {first:?} {second:?}");
    }
    let report: AuditReport = town.bank.client.audit(true).await.unwrap();
    let read = AuditReport::from_file(&report.to_file()).unwrap();
    assert_eq!(read.verify(&town.cluster.genesis), Ok(Vec::new()));
    for node in town.cluster.status().await.nodes {
        let found = node.alarms.iter().any(|alarm| alarm.contains("audit") || alarm.contains("quarantine"));
        assert!(!found, "node {}: {:?}", node.node, node.alarms);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_certified_blocks_stop_new_work_for_their_shard_alone_until_it_is_released() {
    let town = Town::start().await;
    town.trade().await;
    let [held, other] = SHARDS;
    let heights = town.compared().await;
    let block = eventually("the last audited block", async || {
        let answer = town.bank.client.block(held, heights[&held]).await.map_err(|error| error.to_string())?;
        answer.value.ok_or_else(|| "it is not there".to_owned())
    })
    .await;
    let header = block.header;
    let forged = Header { state_root: Hash32([7; 32]), ..header.clone() };
    let twice = AuditEntry::Twice(Twice::of(town.certify(header), town.certify(forged)));
    let member = town.cluster.genesis.committee(held).unwrap().members[0].node;
    let message = PeerMessage::Audit(Box::new(twice));
    eventually("the shard is in quarantine", async || {
        town.tell_beacon(member, &message).await?;
        let status = town.status().await;
        let found = status.quarantines.iter().any(|mark| mark.group == held && mark.holds());
        if found { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;

    // Nobody gives it anything new, and the other one goes on.
    eventually("routers refuse new work", async || match town.pay(0, &town.homes[0][1]).await {
        Err(error) if reason(&error) == Some(Reject::GroupQuarantined) => Ok(()),
        outcome => Err(format!("{outcome:?}")),
    })
    .await;
    for _ in 0..5 {
        town.pay(1, &town.homes[1][1]).await.unwrap();
    }
    assert!(!town.status().await.quarantines.iter().any(|mark| mark.group == other));
    eventually("whoever looks at a node of the beacon sees it", async || {
        let nodes = town.cluster.status().await.nodes;
        let alarmed = |node: &v1::NodeStatusReply| node.alarms.iter().any(|alarm| alarm.contains("quarantine"));
        if nodes.iter().all(alarmed) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let report: AuditReport = town.bank.client.audit(true).await.unwrap();
    let shown = report.verify(&town.cluster.genesis).unwrap();
    assert_eq!(shown.iter().map(|shown| (shown.kind, shown.group)).collect::<Vec<_>>(), [("certified_twice", held)]);

    // One organisation is not enough.
    let orgs: Vec<_> = town.cluster.genesis.orgs.iter().map(|org| org.id).collect();
    let consortium = Consortium::of(&town.cluster);
    let command = BeaconCommand::ReleaseQuarantine(Held { group: held, node: None });
    let fate = consortium.beacon(orgs[0], &command).await.unwrap();
    assert_eq!(fate.pending, Some((1, 2)));
    assert!(town.status().await.quarantines.iter().any(|mark| mark.group == held && mark.holds()));
    let fate = consortium.beacon(orgs[1], &command).await.unwrap();
    assert_eq!(fate.pending, None);
    eventually("the shard takes new work again", async || {
        town.pay(0, &town.homes[1][1]).await.map_err(|error| error.to_string())
    })
    .await;
    // The same proof says nothing new. What the beacon is told behind it, it has executed behind it.
    town.tell_beacon(member, &message).await.unwrap();
    town.trade().await;
    town.compared().await;
}

//! What happens to the cluster while customers use it. One thing at a time, so that every group always
//! has a majority; each lasts until transactions have been executed in spite of it.

use client::Client;
use ledger::{GroupId, NodeId};

use super::Town;
use crate::support::eventually;
use crate::support::machines::{Machines, leader, replica_of};
use crate::support::network::Cut;
use crate::support::random::Random;
use crate::support::router::Router;

/// One trouble.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// `kill -9` of the node that leads a group: also the anchor of its transactions.
    KillLeader(GroupId),
    /// `kill -9` of the node whose router a customer uses.
    KillRouterNode,
    /// `kill -9` of the router that is no node.
    KillRouter,
    /// The node that leads a group is cut off from all others.
    CutLeader(GroupId, Cut),
    /// One node's disk is full, and stays so until it is killed.
    FillDisk,
}

impl Trouble {
    /// Everything that can happen, in some order.
    pub(super) fn all(random: &mut Random) -> Vec<Self> {
        let (zero, one) = (GroupId::shard(0), GroupId::shard(1));
        let cut = *random.of(&[Cut::Both, Cut::Unheard, Cut::Deaf]);
        let cut_off = *random.of(&[zero, one]);
        let mut all = vec![
            Self::KillLeader(zero),
            Self::KillLeader(one),
            Self::KillLeader(GroupId::BEACON),
            Self::KillRouterNode,
            Self::KillRouter,
            Self::CutLeader(cut_off, cut),
            Self::FillDisk,
        ];
        random.shuffle(&mut all);
        all
    }

    /// Lets it happen, and ends it when transactions have been executed meanwhile.
    pub(super) async fn strike(
        self,
        town: &Town,
        machines: &mut Machines,
        router: &mut Router,
        client: &Client,
        customers: &[Client],
    ) {
        match self {
            Self::KillLeader(group) => {
                let (node, _) = leader(client, group).await;
                kill(self, node, town, machines).await;
            }
            Self::KillRouterNode => {
                let used = customers.iter().find_map(|customer| customer.router().node);
                let node = used.expect("they start at routers of their own");
                kill(self, node, town, machines).await;
            }
            Self::KillRouter => {
                println!("{self:?}");
                router.process.kill();
                town.goes_on().await;
                let port = router.endpoint.addr.rsplit_once(':').unwrap().1.parse().unwrap();
                *router = Router::start(machines.dir.root(), port).await;
            }
            Self::CutLeader(group, cut) => {
                let (node, _) = leader(client, group).await;
                println!("{self:?}: node {node}");
                machines.cut_off(node, cut);
                town.goes_on().await;
                machines.heal(node);
            }
            Self::FillDisk => {
                let (node, disk) = machines.small_disk();
                println!("{self:?}: node {node}");
                // At the latest its next snapshot needs room. Its other groups stop when they do.
                eventually("the node's replica of a shard has stopped", async || {
                    disk.fill();
                    let status = client.status().await.map_err(|error| error.to_string())?;
                    let replica = replica_of(&status, node, GroupId::shard(0)).ok_or("it does not answer")?;
                    let stopped = replica.stopped.contains("storage_disk_full");
                    if stopped { Ok(()) } else { Err(format!("{replica:?}")) }
                })
                .await;
                town.goes_on().await;
                machines.kill(node);
                machines.small_disk().1.free();
                machines.start_node(node);
            }
        }
    }
}

async fn kill(trouble: Trouble, node: NodeId, town: &Town, machines: &mut Machines) {
    println!("{trouble:?}: node {node}");
    machines.kill(node);
    town.goes_on().await;
    machines.start_node(node);
}

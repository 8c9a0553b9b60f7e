//! A cluster whose nodes are processes on machines of their own, as far as one machine can have them:
//! a network that can be cut between any two, and a disk that can be filled.

use std::collections::BTreeMap;

use client::{Client, Profile};
use ledger::genesis::{Genesis, VerifyMode};
use ledger::{GroupId, NodeId};
use proto::v1;
use seamark_cli::setup::{Addresses, ClusterDir, ClusterLock, ClusterSpec, make_cluster, write_cluster};
use shard_node::server::NodeConfig;
use tempfile::TempDir;

use super::cluster::{leader_of, settled, whole};
use super::eventually;
use super::network::{Cut, Medium, Network};
use super::program::{Process, as_node, program};
use super::small_disk::SmallDisk;

const NODES: u32 = 5;
const SHARDS: u32 = 2;
const REPLICAS: u16 = 3;
/// Room on the small disk: enough for a long run, and filled in a moment.
const DISK_BYTES: u64 = 256 << 20;
/// Log entries between two snapshots on the small disk. The log has room set aside for a while when the
/// disk is full; a snapshot has none.
const SNAPSHOT_EVERY: u64 = 100;

/// The cluster and what it runs on.
pub struct Machines {
    running: BTreeMap<NodeId, Process>,
    pub dir: ClusterDir,
    pub genesis: Genesis,
    network: Network,
    /// The disk of one node, when it is small.
    disk: Option<(NodeId, SmallDisk)>,
    // Last, so that it outlives everything that is in it.
    _folder: TempDir,
}

impl Machines {
    /// Starts a cluster of five nodes and two shards. The first node that hosts a shard gets a small
    /// disk, where one is wanted. Returns when every group has a leader.
    pub async fn start(medium: Medium, small_disk: bool) -> Self {
        super::log();
        let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
        let network = Network::open(medium, NODES, folder.path()).await;
        let dir = ClusterDir::at(folder.path().join("cluster"));
        let lock = ClusterLock::acquire(&dir).unwrap();
        let spec = ClusterSpec {
            nodes: NODES,
            orgs: 3,
            shards: SHARDS,
            replicas: REPLICAS,
            verify: Some(VerifyMode::Every),
            addresses: Addresses::Hosts(network.addrs()),
            ..ClusterSpec::default()
        };
        let made = make_cluster(&spec).unwrap();
        write_cluster(&dir, &lock, &made).unwrap();
        let genesis = made.genesis;
        let with_small_disk = small_disk.then(|| genesis.committee(GroupId::shard(0)).unwrap().members[0].node);
        for (node, file) in dir.node_configs(&genesis) {
            let mut config = NodeConfig::parse(&std::fs::read_to_string(&file).unwrap(), "".as_ref()).unwrap();
            config.listen_peer = network.listens(node).unwrap_or(config.listen_peer);
            if with_small_disk == Some(node) {
                config.snapshot_every = SNAPSHOT_EVERY;
            }
            std::fs::write(&file, config.to_toml().unwrap()).unwrap();
        }
        let disk = match with_small_disk {
            Some(node) => Some((node, SmallDisk::mount(&dir.node_dir(node).join("data"), DISK_BYTES).await)),
            None => None,
        };
        let mut machines = Self { running: BTreeMap::new(), dir, genesis, network, disk, _folder: folder };
        for node in machines.nodes() {
            machines.start_node(node);
        }
        let client = machines.client();
        machines.whole(&client).await;
        machines
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.genesis.nodes.iter().map(|node| node.id).collect()
    }

    /// All nodes but this one.
    pub fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.nodes().into_iter().filter(|other| *other != node).collect()
    }

    /// The beacon and all shards.
    pub fn groups(&self) -> Vec<GroupId> {
        self.genesis.committees.iter().map(|committee| committee.group).collect()
    }

    /// The profile of all routers in nodes.
    pub fn profile(&self) -> Profile {
        Profile::load(&self.dir.profile_path()).unwrap()
    }

    /// A client of all routers in nodes.
    pub fn client(&self) -> Client {
        Client::lazy(&self.profile()).unwrap()
    }

    /// A client of the routers of these nodes alone.
    pub fn client_of(&self, nodes: &[NodeId]) -> Client {
        let mut profile = self.profile();
        profile.routers.retain(|router| router.node.is_some_and(|node| nodes.contains(&node)));
        Client::lazy(&profile).unwrap()
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, node: NodeId) {
        let command = match &self.disk {
            Some((small, disk)) if *small == node => disk.command_of(self.network.command(node, program())),
            _ => self.network.command(node, program()),
        };
        let log = self.dir.node_dir(node).join("node.log");
        let process = Process::start(as_node(command, &self.dir.node_config(node)), &log);
        self.network.runs(node, process.pid());
        assert!(self.running.insert(node, process).is_none(), "node {node} runs already");
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: NodeId) {
        self.running.remove(&node).expect("the node runs").kill();
    }

    /// Cuts a node off from all others. Clients still reach it.
    pub fn cut_off(&self, node: NodeId, cut: Cut) {
        self.network.cut(node, &self.others(node), cut);
    }

    /// Ends [`Machines::cut_off`].
    pub fn heal(&self, node: NodeId) {
        self.network.heal(node, &self.others(node));
    }

    /// The node with the small disk, and the disk.
    pub fn small_disk(&self) -> (NodeId, &SmallDisk) {
        let (node, disk) = self.disk.as_ref().expect("a small disk was wanted");
        (*node, disk)
    }

    /// Fails the test when a node has ended by itself.
    pub fn assert_run(&mut self) {
        self.running.values_mut().for_each(Process::assert_runs);
    }

    /// Waits until every node answers, every group is led, and every replica has caught up.
    pub async fn whole(&mut self, client: &Client) {
        let groups = self.groups();
        whole(client, &groups, || self.assert_run()).await;
    }

    /// Waits until all mail has been taken and all replicas stand at the same block, certified;
    /// returns the height of each group.
    pub async fn settled(&mut self, client: &Client) -> BTreeMap<GroupId, u64> {
        self.whole(client).await;
        settled(client, &self.groups()).await
    }
}

/// The node that leads a group, and its term.
pub async fn leader(client: &Client, group: GroupId) -> (NodeId, u64) {
    eventually("a leader", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let node = leader_of(&status, group).ok_or_else(|| format!("{group} has no leader"))?;
        let replica = replica_of(&status, node, group).ok_or("it does not answer")?;
        Ok::<_, String>((node, replica.term))
    })
    .await
}

/// What a node says of its replica of a group.
pub fn replica_of(status: &v1::StatusReply, node: NodeId, group: GroupId) -> Option<&v1::ReplicaStatus> {
    let reply = status.nodes.iter().find(|reply| reply.node == node.0)?;
    reply.replicas.iter().find(|replica| replica.group == group.0)
}

//! A cluster in this process, or one of processes: every node with its own sockets, certificates and databases.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use client::{Client, Identity, Passphrase, Profile, TrustRoots};
use ledger::genesis::{Genesis, NodeInfo, VerifyMode};
use ledger::{Engine, GroupId, NodeId};
use proto::v1;
use seamark_cli::setup::{Addresses, Authority, ClusterDir, ClusterLock, ClusterSpec, make_cluster, write_cluster};
use shard_node::server::{Node, NodeConfig, NodeError};
use storage::{ResourceLimits, SharedResources};
use tempfile::TempDir;

use super::program::{Process, Processes, node_command};
use super::{eventually, in_time};

/// Ports below those that the system hands out by itself, so that nobody else gets the port of a
/// node that is stopped for a while.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// The shape of a cluster.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub nodes: u32,
    /// `None`: three, or as many as there are nodes.
    pub orgs: Option<u16>,
    pub shards: u32,
    pub replicas: u16,
    pub verify: VerifyMode,
    /// What orders the shards.
    pub engine: Engine,
    /// What orders the beacon.
    pub beacon_engine: Engine,
    /// Log entries between two snapshots; `None` is the default of a node.
    pub snapshot_every: Option<u64>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            nodes: 3,
            orgs: None,
            shards: 2,
            replicas: 3,
            verify: VerifyMode::Ingest,
            engine: Engine::Raft,
            beacon_engine: Engine::Raft,
            snapshot_every: None,
        }
    }
}

/// A cluster whose nodes can be stopped and started again. Its folder goes with it.
pub struct TestCluster {
    pub dir: ClusterDir,
    pub genesis: Genesis,
    resources: SharedResources,
    running: BTreeMap<NodeId, Node>,
    /// Nodes that run in processes of their own, which end with the cluster.
    processes: Processes,
    /// Nodes that run in processes of their own, which the test has.
    elsewhere: Vec<NodeId>,
    // Last, so that it outlives everything that is in it.
    _folder: TempDir,
}

/// Two ports for each node, from a range that nobody else in this process gets.
pub fn base_port(nodes: u32) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    // Several test processes at a time start at different places.
    let start = std::process::id().wrapping_mul(7919) % span;
    for _ in 0..1000 {
        let taken = NEXT.fetch_add(nodes * 2, Ordering::Relaxed);
        let base = PORTS.start + (start + taken) % span;
        let ports = base..base + nodes * 2;
        let free = |port: u32| TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).is_ok();
        if ports.end <= PORTS.end && ports.into_iter().all(free) {
            return u16::try_from(base).unwrap();
        }
    }
    panic!("no free ports in {PORTS:?}");
}

/// Has all nodes of a cluster, which do not run yet, make a snapshot of each group after so many entries of its log.
pub fn snapshot_every(dir: &ClusterDir, genesis: &Genesis, entries: u64) {
    for (_, file) in dir.node_configs(genesis) {
        let text = std::fs::read_to_string(&file).unwrap();
        let changed = text.replace("snapshot_every = 20000", &format!("snapshot_every = {entries}"));
        assert_ne!(text, changed, "the default in node.toml is another one");
        std::fs::write(&file, changed).unwrap();
    }
}

impl TestCluster {
    /// Makes a cluster and starts every node. Returns when every group has a leader.
    pub async fn start(wanted: Wanted) -> Self {
        super::log();
        let mut cluster = Self::prepare(&wanted);
        cluster.start_all().await;
        cluster
    }

    /// As [`TestCluster::start`], every node in a process of its own.
    pub async fn start_processes(wanted: Wanted) -> Self {
        let mut cluster = Self::prepare(&wanted);
        cluster.run_processes().await;
        cluster
    }

    /// Makes the files of a cluster and starts nothing.
    pub fn prepare(wanted: &Wanted) -> Self {
        let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
        let dir = ClusterDir::at(folder.path().join("cluster"));
        let lock = ClusterLock::acquire(&dir).unwrap();
        let spec = ClusterSpec {
            nodes: wanted.nodes,
            orgs: wanted.orgs.unwrap_or(u16::try_from(wanted.nodes.min(3)).unwrap()),
            shards: wanted.shards,
            replicas: wanted.replicas,
            verify: Some(wanted.verify),
            engine: wanted.engine,
            beacon_engine: Some(wanted.beacon_engine),
            addresses: Addresses::Loopback { base_port: base_port(wanted.nodes) },
            ..ClusterSpec::default()
        };
        let made = make_cluster(&spec).unwrap();
        write_cluster(&dir, &lock, &made).unwrap();
        let genesis = made.genesis;
        if let Some(entries) = wanted.snapshot_every {
            snapshot_every(&dir, &genesis, entries);
        }
        let resources = SharedResources::new(ResourceLimits::default()).unwrap();
        let (running, processes, elsewhere) = (BTreeMap::new(), Processes::default(), Vec::new());
        Self { dir, genesis, resources, running, processes, elsewhere, _folder: folder }
    }

    /// All node ids.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.genesis.nodes.iter().map(|node| node.id).collect()
    }

    /// The beacon and all shards.
    pub fn groups(&self) -> Vec<GroupId> {
        self.genesis.committees.iter().map(|committee| committee.group).collect()
    }

    /// The registry entry of a node.
    pub fn info(&self, node: NodeId) -> &NodeInfo {
        self.genesis.node(node).unwrap()
    }

    /// The data folder of a group on a node.
    pub fn data(&self, node: NodeId, group: GroupId) -> PathBuf {
        self.dir.node_dir(node).join("data").join(group.to_string())
    }

    /// Starts one node, and says why when it does not.
    pub async fn try_start(&mut self, node: NodeId) -> Result<(), NodeError> {
        super::log();
        let config = NodeConfig::load(&self.dir.node_config(node)).unwrap();
        let started = Box::pin(Node::start_with(config, self.resources.clone())).await?;
        self.running.insert(node, started);
        Ok(())
    }

    /// Starts one node.
    pub async fn start_node(&mut self, node: NodeId) {
        in_time("starting a node", self.try_start(node)).await.unwrap();
    }

    /// Starts one node in a process of its own, which can be killed. [`TestCluster::set_elsewhere`]
    /// says that it counts.
    pub fn start_process(&self, node: NodeId) -> Process {
        Process::start(node_command(&self.dir.node_config(node)), &self.log_of(node))
    }

    /// Starts all nodes of a cluster that was prepared, each in a process of its own that ends with the cluster and
    /// logs what its configuration says. Returns when every group has a leader.
    pub async fn run_processes(&mut self) {
        for node in self.node_ids() {
            let mut command = node_command(&self.dir.node_config(node));
            command.env_remove("RUST_LOG");
            self.processes.insert(node, Process::start(command, &self.log_of(node)));
        }
        self.wait_ready().await;
    }

    /// Fails the test when a process that ends with the cluster has ended by itself.
    pub fn assert_run(&mut self) {
        self.processes.assert_run();
    }

    /// The log file of a node that runs in a process of its own.
    pub fn log_of(&self, node: NodeId) -> PathBuf {
        self.dir.node_dir(node).join("node.log")
    }

    /// What is in that file so far.
    pub fn logged(&self, node: NodeId) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_of(node)).unwrap()).into_owned()
    }

    /// Says which nodes run in processes of their own, so that they are waited for as well.
    pub fn set_elsewhere(&mut self, nodes: &[NodeId]) {
        self.elsewhere = nodes.to_vec();
    }

    /// Stops one node as a signal would.
    pub async fn stop_node(&mut self, node: NodeId) {
        if let Some(mut process) = self.processes.remove(node) {
            let status = tokio::task::block_in_place(|| process.terminate());
            assert!(status.success(), "node {node}: {status}");
            return;
        }
        let running = self.running.remove(&node).expect("the node runs");
        in_time("stopping a node", Box::pin(running.shutdown())).await;
    }

    /// A node that runs in this process.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.running[&node]
    }

    /// Whether a node runs.
    pub fn runs(&self, node: NodeId) -> bool {
        self.running.contains_key(&node) || self.processes.has(node) || self.elsewhere.contains(&node)
    }

    /// Starts every node that does not run, and waits until every group has a leader.
    pub async fn start_all(&mut self) {
        for node in self.node_ids() {
            if !self.running.contains_key(&node) && !self.processes.has(node) {
                self.start_node(node).await;
            }
        }
        self.wait_ready().await;
    }

    /// Stops every node that runs, all at once.
    pub async fn stop_all(&mut self) {
        let all = std::mem::take(&mut self.running);
        let stopping = all.into_values().map(|node| Box::pin(node.shutdown()));
        in_time("stopping all nodes", futures::future::join_all(stopping)).await;
    }

    /// Waits until every group has one leader that runs.
    pub async fn wait_ready(&self) {
        let client = self.client();
        eventually("every group has a leader", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let missing: Vec<GroupId> =
                self.groups().into_iter().filter(|group| leader_of(&status, *group).is_none()).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("no leader of {missing:?}")) }
        })
        .await;
    }

    /// The profile that `seamark up` would leave.
    pub fn profile(&self) -> Profile {
        Profile::load(&self.dir.profile_path()).unwrap()
    }

    /// A client of all routers.
    pub fn client(&self) -> Client {
        Client::lazy(&self.profile()).unwrap()
    }

    /// A client of one node's router.
    pub fn client_of(&self, node: NodeId) -> Client {
        let mut profile = self.profile();
        profile.routers.retain(|router| router.node == Some(node));
        Client::lazy(&profile).unwrap()
    }

    /// The certificate and key of a node.
    pub fn node_identity(&self, node: NodeId) -> Identity {
        let folder = self.dir.node_dir(node);
        Identity::load(&folder.join("node.pem"), &folder.join("node.key")).unwrap()
    }

    /// The authority of an organisation, to issue further certificates.
    pub fn authority(&self, org: &str) -> Authority {
        let folder = self.dir.ca_dir(org);
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let passphrase = Passphrase::read(&folder.join("passphrase")).unwrap();
        Authority::from_sealed_pem(&read("ca.pem"), &read("ca.key"), passphrase.text()).unwrap()
    }

    /// The certificates of all authorities.
    pub fn roots(&self) -> TrustRoots {
        TrustRoots::of_orgs(&self.genesis.orgs)
    }

    /// What the nodes that run say about themselves.
    pub async fn status(&self) -> v1::StatusReply {
        let client = self.client();
        eventually("the cluster's status", async || client.status().await).await
    }

    /// The node that leads a group.
    pub async fn leader(&self, group: GroupId) -> NodeId {
        eventually("a leader", async || {
            leader_of(&self.status().await, group).ok_or_else(|| format!("{group} has no leader"))
        })
        .await
    }

    /// Waits until all mail has been taken and all replicas of every group that run stand at the
    /// same block, certified; returns the height of each group.
    pub async fn wait_settled(&self) -> BTreeMap<GroupId, u64> {
        let client = self.client();
        let running = self.running.len() + self.processes.count() + self.elsewhere.len();
        eventually("all replicas agree", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            if status.nodes.len() != running {
                return Err(format!("{} of {running} nodes answer", status.nodes.len()));
            }
            self.groups().into_iter().map(|group| Ok((group, agreed(&status, group)?))).collect()
        })
        .await
    }

    /// One replica, as its node describes it.
    pub async fn replica(&self, node: NodeId, group: GroupId) -> v1::ReplicaStatus {
        let client = self.client();
        eventually("a replica's status", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let reply =
                status.nodes.into_iter().find(|reply| reply.node == node.0).ok_or("the node does not answer")?;
            let replica = reply.replicas.into_iter().find(|replica| replica.group == group.0);
            replica.ok_or_else(|| format!("the node hosts no {group}"))
        })
        .await
    }
}

fn replicas_of(status: &v1::StatusReply, group: GroupId) -> impl Iterator<Item = (NodeId, &v1::ReplicaStatus)> {
    let all = status.nodes.iter().flat_map(|node| node.replicas.iter().map(|replica| (NodeId(node.node), replica)));
    all.filter(move |(_, replica)| replica.group == group.0)
}

/// The node that leads a group and runs. One that was deposed may not know it yet: the latest term
/// counts, and in one term, as a Byzantine engine has it, the latest entry.
pub fn leader_of(status: &v1::StatusReply, group: GroupId) -> Option<NodeId> {
    let leaders = replicas_of(status, group).filter(|(_, replica)| replica.leads && replica.stopped.is_empty());
    leaders.max_by_key(|(_, replica)| (replica.term, replica.log_last, replica.round)).map(|(node, _)| node)
}

/// Waits until every node answers, every group is led, and every replica has reached the height that
/// its group had when this was called: the next loss of any one node is survived. `still_run` fails the
/// test when something has ended by itself.
pub async fn whole(client: &Client, groups: &[GroupId], mut still_run: impl FnMut()) {
    let mut targets: Option<BTreeMap<GroupId, u64>> = None;
    eventually("the cluster is whole", async || {
        still_run();
        let status = client.status().await.map_err(|error| error.to_string())?;
        if let Some(gone) = status.unreachable.first() {
            return Err(format!("node {} does not answer: {}", gone.node, gone.error));
        }
        let heights = |group: GroupId| replicas_of(&status, group).map(|(_, replica)| replica.height);
        let targets = targets.get_or_insert_with(|| {
            groups.iter().map(|group| (*group, heights(*group).max().unwrap_or_default())).collect()
        });
        for group in groups {
            leader_of(&status, *group).ok_or_else(|| format!("{group} has no leader"))?;
            if let Some(behind) = heights(*group).find(|height| *height < targets[group]) {
                return Err(format!("a replica of {group} is at {behind} of {}", targets[group]));
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until all mail has been taken and all replicas stand at the same block, certified; returns the
/// height of each group.
pub async fn settled(client: &Client, groups: &[GroupId]) -> BTreeMap<GroupId, u64> {
    eventually("all replicas agree", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        groups.iter().map(|group| Ok::<_, String>((*group, agreed(&status, *group)?))).collect::<Result<_, _>>()
    })
    .await
}

/// The height at which all replicas of a group stand, if they do, with nothing left to do.
pub fn agreed(status: &v1::StatusReply, group: GroupId) -> Result<u64, String> {
    let mut first: Option<&v1::ReplicaStatus> = None;
    for (node, replica) in replicas_of(status, group) {
        if !replica.stopped.is_empty() {
            return Err(format!("{group} stopped on node {node}: {}", replica.stopped));
        }
        if replica.mail_pending > 0 {
            return Err(format!("{group} has {} messages that nobody acknowledged", replica.mail_pending));
        }
        if replica.certified_height != replica.height {
            let (certified, height) = (replica.certified_height, replica.height);
            return Err(format!("{group} on node {node} is certified to {certified} of {height}"));
        }
        let same = |other: &v1::ReplicaStatus| {
            (other.height, &other.state_root, &other.header_hash)
                == (replica.height, &replica.state_root, &replica.header_hash)
        };
        match first {
            None => first = Some(replica),
            Some(other) if same(other) => {}
            Some(other) if other.height == replica.height => {
                // At one height there is one state. Waiting does not mend this.
                panic!("{group}: replicas differ at height {}", replica.height)
            }
            Some(other) => return Err(format!("{group} is at {} and at {}", other.height, replica.height)),
        }
    }
    first.map(|replica| replica.height).ok_or_else(|| format!("nobody hosts {group}"))
}

//! Clusters on this machine: made, resumed, started, watched, stopped.
//!
//! Owns the nodes it started, as tasks of this process ([`Mode::InProcess`]) or as children of it
//! ([`Mode::Children`]); both run the same code on real sockets with real databases. It restarts
//! nothing: what dies stays dead and is reported. The folder belongs to [`crate::setup`].

mod children;
mod ready;
mod shape;

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Profile};
use ledger::NodeId;
use ledger::genesis::Genesis;
use serde::Serialize;
use shard_node::server::{Node, NodeConfig, NodeError};
use storage::{ResourceLimits, SharedResources};
use tempfile::TempDir;

use crate::error::CliError;
use crate::output::Output;
use crate::setup::{ClusterDir, ClusterLock, ClusterSpec, make_cluster, write_cluster};
use children::Child;

pub use ready::wait_ready;
pub use shape::{check_resumed, replicas_of, spec, verify_name};

/// Says which processes belong to a running cluster.
const RUN_FILE: &str = "up.json";
/// How long a new cluster may take until every group has a leader.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// How nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All in this process.
    InProcess,
    /// Each in a process of its own.
    Children,
}

impl Mode {
    /// From `--processes`.
    #[must_use]
    pub fn of(processes: bool) -> Self {
        if processes { Self::Children } else { Self::InProcess }
    }
}

/// A node of a running cluster, for `up --json` and the run file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeLine {
    /// Its id.
    pub id: NodeId,
    /// Its process, when it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where other nodes reach it.
    pub peer_addr: String,
    /// Where clients reach it.
    pub client_addr: String,
}

enum Running {
    InProcess(Vec<Node>),
    Children(Vec<Child>),
}

/// A cluster that runs.
pub struct LocalCluster {
    dir: ClusterDir,
    genesis: Genesis,
    profile: Profile,
    running: Running,
    _lock: ClusterLock,
    // Last, so that it is removed when everything that is in it has stopped.
    temp: Option<TempDir>,
}

/// The folder of a cluster with its lock held, before anything runs.
pub struct Prepared {
    dir: ClusterDir,
    genesis: Genesis,
    lock: ClusterLock,
    temp: Option<TempDir>,
    /// Whether it was there before.
    pub resumed: bool,
}

impl Prepared {
    /// Takes the lock of a folder, and makes the cluster there if there is none.
    ///
    /// # Errors
    /// `setup_locked` when it runs already, and everything that making one can fail with.
    pub fn open(root: &Path, spec: impl FnOnce() -> ClusterSpec, output: Output) -> Result<Self, CliError> {
        let dir = ClusterDir::at(root);
        let lock = ClusterLock::acquire(&dir)?;
        let resumed = dir.exists();
        if !resumed {
            let made = make_cluster(&spec())?;
            made.warnings.iter().for_each(|warning| output.remark(format!("note: {warning}")));
            write_cluster(&dir, &lock, &made)?;
        }
        let genesis = dir.genesis()?;
        Ok(Self { dir, genesis, lock, temp: None, resumed })
    }

    /// A cluster in a temporary folder that is removed when it has been stopped.
    ///
    /// # Errors
    /// As [`Prepared::open`].
    pub fn throw_away(spec: ClusterSpec, output: Output) -> Result<Self, CliError> {
        let temp = tempfile::Builder::new().prefix("seamark-").tempdir().map_err(|error| {
            CliError::new(
                "temp_folder",
                format!("no temporary folder can be made: {error}"),
                "free some space, or set TMPDIR to a folder that can be written",
            )
        })?;
        let prepared = Self::open(&temp.path().join("cluster"), || spec, output)?;
        Ok(Self { temp: Some(temp), ..prepared })
    }

    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Starts every node.
    ///
    /// # Errors
    /// What the first node that did not start says; those that did are stopped again.
    pub async fn start(self, mode: Mode) -> Result<LocalCluster, CliError> {
        let Self { dir, genesis, lock, temp, .. } = self;
        let profile = Profile::load(&dir.profile_path())?;
        let configs = dir.node_configs(&genesis);
        let running = match mode {
            Mode::InProcess => Running::InProcess(start_in_process(&configs).await?),
            Mode::Children => Running::Children(children::start(&configs).await?),
        };
        let cluster = LocalCluster { dir, genesis, profile, running, _lock: lock, temp };
        cluster.write_run_file()?;
        Ok(cluster)
    }
}

async fn start_in_process(configs: &[(NodeId, PathBuf)]) -> Result<Vec<Node>, CliError> {
    let loaded = configs.iter().map(|(_, file)| NodeConfig::load(file)).collect::<Result<Vec<_>, _>>()?;
    // All at once: a node that waits for its peers must not keep them from starting.
    let resources = SharedResources::new(ResourceLimits::default())?;
    let starting = loaded.into_iter().map(|config| tokio::spawn(Box::pin(Node::start_with(config, resources.clone()))));
    let mut nodes = Vec::new();
    let mut failed = None;
    for ((id, _), started) in configs.iter().zip(futures::future::join_all(starting).await) {
        match started {
            Ok(Ok(node)) => nodes.push(node),
            Ok(Err(error)) => failed = failed.or(Some(node_error(*id, &error))),
            Err(error) => failed = failed.or(Some(crashed(*id, &error.to_string()))),
        }
    }
    match failed {
        None => Ok(nodes),
        Some(error) => {
            stop_in_process(nodes).await;
            Err(error)
        }
    }
}

async fn stop_in_process(nodes: Vec<Node>) {
    futures::future::join_all(nodes.into_iter().map(|node| Box::pin(async move { node.shutdown().await }))).await;
}

/// The error of a node that did not start.
#[must_use]
pub fn node_error(id: NodeId, error: &NodeError) -> CliError {
    CliError::from_message(error.code(), error).context(format!("node {id}"))
}

fn crashed(id: NodeId, cause: &str) -> CliError {
    CliError::new(
        "node_crashed",
        format!("node {id} ended: {cause}"),
        "see its log; start it again with the same command",
    )
}

#[derive(Serialize)]
struct RunFile<'a> {
    pid: u32,
    nodes: &'a [NodeLine],
}

impl LocalCluster {
    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &ClusterDir {
        &self.dir
    }

    /// Its genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The client profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Its nodes, by id.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeLine> {
        let pid = |id| match &self.running {
            Running::InProcess(_) => None,
            Running::Children(children) => children.iter().find(|child| child.id() == id).and_then(Child::pid),
        };
        let line = |node: &ledger::genesis::NodeInfo| NodeLine {
            id: node.id,
            pid: pid(node.id),
            peer_addr: node.peer_addr.clone(),
            client_addr: node.client_addr.clone(),
        };
        self.genesis.nodes.iter().map(line).collect()
    }

    /// Waits until every group has a leader.
    ///
    /// # Errors
    /// `cluster_not_ready` with what is missing, or what the first node that ended said.
    pub async fn ready(&mut self) -> Result<Client, CliError> {
        let client = Client::lazy(&self.profile)?;
        let genesis = self.genesis.clone();
        tokio::select! {
            ready = wait_ready(&client, &genesis, READY_WITHIN) => ready?,
            ended = self.node_ended() => return Err(ended),
        }
        Ok(client)
    }

    /// Resolves when a node ends by itself, each time with one that was not reported before.
    pub async fn node_ended(&mut self) -> CliError {
        match &mut self.running {
            Running::Children(children) => children::one_ended(children).await,
            Running::InProcess(nodes) => {
                let waiting = nodes.iter().map(|node| {
                    Box::pin(async move {
                        node.wait_stopped().await;
                        node.id()
                    })
                });
                let waiting: Vec<_> = waiting.collect();
                if waiting.is_empty() {
                    return std::future::pending().await;
                }
                let (id, _, rest) = futures::future::select_all(waiting).await;
                drop(rest);
                nodes.retain(|node| node.id() != id);
                crashed(id, "it cannot go on")
            }
        }
    }

    /// Whether any node still runs.
    #[must_use]
    pub fn any_running(&self) -> bool {
        match &self.running {
            Running::InProcess(nodes) => !nodes.is_empty(),
            Running::Children(children) => children.iter().any(Child::runs),
        }
    }

    /// Stops every node and waits for it.
    pub async fn stop(self) {
        // Without it nobody takes old process ids for ours.
        let _ = std::fs::remove_file(self.dir.root().join(RUN_FILE));
        match self.running {
            Running::InProcess(nodes) => stop_in_process(nodes).await,
            Running::Children(children) => children::stop(children).await,
        }
        drop(self.temp);
    }

    fn write_run_file(&self) -> Result<(), CliError> {
        let path = self.dir.root().join(RUN_FILE);
        let nodes = self.nodes();
        let run = RunFile { pid: std::process::id(), nodes: &nodes };
        let text = serde_json::to_vec_pretty(&run).map_err(|error| CliError::file(&path, &error.into()))?;
        std::fs::write(&path, text).map_err(|error| CliError::file(&path, &error))
    }
}

/// The processes of the cluster that runs in a folder, as its run file says: the one of `up`, and
/// its children. Empty when it is not known.
#[must_use]
pub fn processes_of(root: &Path) -> Vec<u32> {
    let Ok(text) = std::fs::read(root.join(RUN_FILE)) else {
        return Vec::new();
    };
    let Ok(run) = serde_json::from_slice::<serde_json::Value>(&text) else {
        return Vec::new();
    };
    let pid = |value: &serde_json::Value| value.get("pid").and_then(serde_json::Value::as_u64);
    let nodes = run.get("nodes").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let all = pid(&run).into_iter().chain(nodes.iter().filter_map(pid));
    all.filter_map(|pid| u32::try_from(pid).ok()).collect()
}

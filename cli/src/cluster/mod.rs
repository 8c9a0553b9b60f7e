//! Clusters on this machine: made, resumed, started, watched, stopped.
//!
//! Owns the nodes it started, as tasks of this process ([`Mode::InProcess`]) or as children of it
//! ([`Mode::Children`]); both run the same code on real sockets with real databases. It restarts
//! nothing: what dies stays dead and is reported, and so is what does not start. The folder belongs to [`crate::setup`].

mod children;
mod ready;
mod shape;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Profile};
use ledger::genesis::Genesis;
use ledger::{Committee, GroupId, Height, NodeId};
use rustix::process::Signal;
use serde::Serialize;
use shard_node::core::marks;
use shard_node::server::{Node, NodeConfig, NodeError};
use storage::{ResourceLimits, SharedResources, StorageError};
use tempfile::TempDir;

use crate::error::CliError;
use crate::output::Output;
use crate::setup::{ClusterDir, ClusterLock, ClusterSpec, make_cluster, write_cluster};
use children::Child;

pub use ready::wait_ready;
pub use shape::{check_resumed, engine_of, replicas_of, spec, verify_name};

/// Says which processes belong to a running cluster.
const RUN_FILE: &str = "up.json";
/// Folder of a node's groups, as `setup` configures it.
const DATA_DIR: &str = "data";
/// What the folder of a group begins with that a node has left and is removing.
const LEFT: &str = "left-";
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

/// A node that ended or did not start, and why.
struct Ended {
    id: NodeId,
    error: CliError,
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
    /// Whether it was there before: its groups have been founded, unless it was stopped too early.
    resumed: bool,
    /// Nodes that do not run.
    down: BTreeSet<NodeId>,
    /// Of these, those that nobody has been told of.
    untold: VecDeque<Ended>,
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

    /// Has all nodes make a snapshot of each group after so many entries of its log.
    ///
    /// # Errors
    /// When a configuration cannot be read or written.
    pub fn snapshot_every(&self, entries: u64) -> Result<(), CliError> {
        for (_, file) in self.dir.node_configs(&self.genesis) {
            let text = std::fs::read_to_string(&file).map_err(|error| CliError::file(&file, &error))?;
            // As it stands there, with paths that start from its folder.
            let config: NodeConfig = toml::from_str(&text).map_err(|error| {
                CliError::new("config_form", format!("{}: {error}", file.display()), "report it: it was just made")
            })?;
            let text = NodeConfig { snapshot_every: entries, ..config }.to_toml()?;
            std::fs::write(&file, text).map_err(|error| CliError::file(&file, &error))?;
        }
        Ok(())
    }

    /// Starts every node. [`LocalCluster::ready`] judges whether those that start are enough, and
    /// [`LocalCluster::node_ended`] tells of the others.
    ///
    /// # Errors
    /// What the first node that did not start says, when none did.
    pub async fn start(self, mode: Mode) -> Result<LocalCluster, CliError> {
        let Self { dir, genesis, lock, temp, resumed } = self;
        let profile = Profile::load(&dir.profile_path())?;
        let configs = dir.node_configs(&genesis);
        let (running, failed) = match mode {
            Mode::InProcess => {
                let (nodes, failed) = start_in_process(&configs).await?;
                (Running::InProcess(nodes), failed)
            }
            Mode::Children => (Running::Children(children::start(&configs).await?), Vec::new()),
        };
        let (down, untold) = (BTreeSet::new(), VecDeque::from(failed));
        let cluster = LocalCluster { dir, genesis, profile, running, resumed, down, untold, _lock: lock, temp };
        cluster.write_run_file()?;
        Ok(cluster)
    }
}

async fn start_in_process(configs: &[(NodeId, PathBuf)]) -> Result<(Vec<Node>, Vec<Ended>), CliError> {
    // All at once: a node that waits for its peers must not keep them from starting.
    let resources = SharedResources::new(ResourceLimits::default())?;
    let starting = configs.iter().map(|(id, file)| {
        let (id, file, resources) = (*id, file.clone(), resources.clone());
        tokio::spawn(Box::pin(async move {
            let config = NodeConfig::load(&file).map_err(|error| not_running(id, error.into()))?;
            Node::start_with(config, resources).await.map_err(|error| node_error(id, error))
        }))
    });
    let (mut nodes, mut failed) = (Vec::new(), Vec::new());
    for ((id, _), started) in configs.iter().zip(futures::future::join_all(starting).await) {
        match started {
            Ok(Ok(node)) => nodes.push(node),
            Ok(Err(error)) => failed.push(Ended { id: *id, error }),
            Err(error) => failed.push(Ended { id: *id, error: crashed(*id, &error.to_string()) }),
        }
    }
    if nodes.is_empty() && !failed.is_empty() {
        return Err(failed.swap_remove(0).error);
    }
    if let Some(error) = out_of_files(&nodes) {
        stop_in_process(nodes).await;
        return Err(error);
    }
    Ok((nodes, failed))
}

/// A group that could not be opened because this process has too many files open. All nodes share the
/// limit, so none of them is well, and no client could ask.
fn out_of_files(nodes: &[Node]) -> Option<CliError> {
    let code = StorageError::OpenFiles { path: PathBuf::new(), detail: String::new() }.code();
    nodes.iter().find_map(|node| {
        let failed = node.hosted().failed.read();
        let reason = failed.values().find(|reason| reason.starts_with(code))?;
        let fix = "raise the limit with 'ulimit -n' (65536 or more), or make the cluster with fewer shards";
        Some(CliError::new(code, format!("node {}: {reason}", node.id()), fix))
    })
}

async fn stop_in_process(nodes: Vec<Node>) {
    futures::future::join_all(nodes.into_iter().map(|node| Box::pin(async move { node.shutdown().await }))).await;
}

/// The error of a node that did not start.
#[must_use]
pub fn node_error(id: NodeId, error: NodeError) -> CliError {
    not_running(id, error.into())
}

fn not_running(id: NodeId, error: CliError) -> CliError {
    error.context(format!("node {id} does not run"))
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

    /// The block of the last snapshot that a node's replica of a group took from another node. `None` when it
    /// took none, does not run, or runs in a process of its own.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn installed(&self, node: NodeId, group: GroupId) -> Result<Option<Height>, CliError> {
        let Running::InProcess(nodes) = &self.running else { return Ok(None) };
        let host = nodes.iter().find(|host| host.id() == node);
        let Some(replica) = host.and_then(|host| host.hosted().group(group.0)) else { return Ok(None) };
        replica.share.state.load(&marks::installed()).map_err(|fault| {
            CliError::new("storage", format!("{group} on node {node}: {fault}"), "see the node's log with --log info")
        })
    }

    /// Whether a node has anything of a group in its folder, be it only to remove it.
    #[must_use]
    pub fn keeps(&self, node: NodeId, group: GroupId) -> bool {
        let name = group.to_string();
        let of_group = |found: &str| found == name || found.strip_prefix(LEFT).is_some_and(|left| left == name);
        let entries = std::fs::read_dir(self.dir.node_dir(node).join(DATA_DIR)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|found| of_group(&found.to_string_lossy()))
    }

    /// Waits until every group has a leader. Nodes that end meanwhile, or did not start, are told of by
    /// [`LocalCluster::node_ended`] as long as every group keeps its quorum.
    ///
    /// # Errors
    /// `cluster_not_ready` with what is missing, or what the node said without which a group has no quorum.
    pub async fn ready(&mut self) -> Result<Client, CliError> {
        let client = Client::lazy(&self.profile)?;
        let (waiting, genesis) = (client.clone(), self.genesis.clone());
        let mut ready = std::pin::pin!(wait_ready(&waiting, &genesis, READY_WITHIN));
        let mut told = VecDeque::new();
        loop {
            let ended = tokio::select! {
                biased;
                ended = self.next_ended() => ended,
                ready = &mut ready => {
                    ready?;
                    self.untold = told;
                    return Ok(client);
                }
            };
            if let Some(why) = self.cannot_go_on() {
                self.untold = told;
                return Err(CliError { cause: format!("{}; {why}", ended.error.cause), ..ended.error });
            }
            told.push_back(ended);
        }
    }

    /// What the nodes that are down keep from working, in words.
    fn cannot_go_on(&self) -> Option<String> {
        let committees = &self.genesis.committees;
        if !self.resumed {
            let of_down = |committee: &&Committee| self.down.iter().any(|node| committee.index_of(*node).is_some());
            let group = committees.iter().find(of_down)?.group;
            return Some(format!("{group} takes its first step only when all of its nodes run"));
        }
        let lost = committees.iter().find(|committee| {
            let up = committee.members.iter().filter(|member| !self.down.contains(&member.node)).count();
            up < usize::from(committee.threshold)
        });
        lost.map(|committee| format!("{} has no quorum without it", committee.group))
    }

    /// The nodes that ended and that nobody has been told of, each with its reason.
    pub fn take_untold(&mut self) -> Vec<CliError> {
        self.untold.drain(..).map(|ended| ended.error).collect()
    }

    /// Resolves when a node ends by itself, each time with one that was not reported before; at first with
    /// those that did not start.
    pub async fn node_ended(&mut self) -> CliError {
        self.next_ended().await.error
    }

    async fn next_ended(&mut self) -> Ended {
        let ended = match self.untold.pop_front() {
            Some(ended) => ended,
            None => self.one_ended().await,
        };
        self.down.insert(ended.id);
        ended
    }

    async fn one_ended(&mut self) -> Ended {
        match &mut self.running {
            Running::Children(children) => {
                let (id, error) = children::one_ended(children).await;
                Ended { id, error }
            }
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
                Ended { id, error: crashed(id, "it cannot go on") }
            }
        }
    }

    /// Kills the process of a node as `kill -9` does, and returns when it is gone. Nobody is told of its end.
    ///
    /// # Errors
    /// `node_kill` when it has no process of its own that runs, or the system refuses.
    pub async fn kill(&mut self, node: NodeId) -> Result<(), CliError> {
        let killed = match &mut self.running {
            Running::InProcess(_) => false,
            Running::Children(children) => children::kill(children, node).await?,
        };
        if !killed {
            let cause = format!("node {node} has no process of its own that runs");
            return Err(CliError::new(
                "node_kill",
                cause,
                "see its log, node.log in its folder: it may have ended by itself",
            ));
        }
        self.down.insert(node);
        Ok(())
    }

    /// Stops the process of a node as SIGSTOP does, until it is woken: it keeps its connections and its locks, hears nothing
    /// and says nothing.
    ///
    /// # Errors
    /// `node_signal` when it has no process of its own that runs, or the system refuses.
    pub fn silence(&self, node: NodeId) -> Result<(), CliError> {
        self.signal(node, Signal::STOP)
    }

    /// Lets a node go on that was silenced.
    ///
    /// # Errors
    /// As [`LocalCluster::silence`].
    pub fn wake(&self, node: NodeId) -> Result<(), CliError> {
        self.signal(node, Signal::CONT)
    }

    fn signal(&self, node: NodeId, signal: Signal) -> Result<(), CliError> {
        let signalled = match &self.running {
            Running::InProcess(_) => false,
            Running::Children(children) => children::signal(children, node, signal)?,
        };
        if signalled {
            return Ok(());
        }
        let cause = format!("node {node} has no process of its own that runs");
        Err(CliError::new("node_signal", cause, "see its log, node.log in its folder: it may have ended by itself"))
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

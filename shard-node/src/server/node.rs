//! A node: reads its configuration, opens its databases, starts its groups and serves them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::net::{self, Identity, NetError, TrustRoots};
use client::secrets::{Keyring, SecretError};
use client::sockets::{Listener, Sockets, SystemSockets};
use consensus::bft::BftTiming;
use consensus::port::Timing;
use consensus::sequencer::Sequencer;
use ledger::NodeKeys;
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, NodeId};
use parking_lot::{Mutex, RwLock};
use router::gateway::{
    ClusterView, GatewayLimits, Health, NodeBackend, Peers, gateway_service, with_standard_services,
};
use storage::{LogEngine, LogIdentity, LogStats, ResourceLimits, SharedResources, StartedMark, StorageError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::begun::Counting;
use crate::server::clock::{Clock, SystemWall, WallClock, exchange};
use crate::server::config::NodeConfig;
use crate::server::doorkeeper;
use crate::server::epochs;
use crate::server::group::{GroupHandle, HostContext};
use crate::server::hosting::{self, Hosting};
use crate::server::kept::{self, Kept};
use crate::server::links::Links;
use crate::server::links::NodeTraffic;
use crate::server::local::{Hosted, LocalHost};
use crate::server::registry::publish;
use crate::server::rotation::{KeyFiles, Rotation};
use crate::server::service::Service;
use crate::server::silence;
use crate::server::socket;
use crate::server::trimming::Trimming;
use crate::server::vault::{Vault, VaultError};

/// Why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}; check the path in node.toml and its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The genesis is not usable.
    #[error("the genesis {path} is not usable: {cause}; copy it again from the cluster's founder")]
    Genesis {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The genesis, or a later registry, knows this node with another key.
    #[error("the registry does not fit this node: {0}; check node, cert and signing_key in node.toml")]
    Identity(String),
    /// TLS files.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A port.
    #[error("cannot listen on {addr}: {cause}; stop what uses the port or change it in node.toml and the genesis")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        cause: String,
    },
    /// The log or the shared resources.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The storage key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The signing key, or the passphrase.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl NodeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "file_unreadable",
            Self::Genesis { .. } => "genesis_invalid",
            Self::Identity(_) => "node_identity",
            Self::Net(error) => error.code(),
            Self::Listen { .. } => "listen",
            Self::Storage(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }
}

/// What a node finds on its machine: everything it uses besides its files.
#[derive(Clone)]
pub struct Machine {
    /// Shared caches and threads of all databases.
    pub resources: SharedResources,
    /// The network.
    pub sockets: Arc<dyn Sockets>,
    /// The wall clock. The monotonic one is that of the tokio runtime.
    pub wall: Arc<dyn WallClock>,
}

impl Machine {
    /// The one this process runs on.
    #[must_use]
    pub fn this(resources: SharedResources) -> Self {
        Self { resources, sockets: SystemSockets::shared(), wall: Arc::new(SystemWall) }
    }
}

/// A running node.
pub struct Node {
    id: NodeId,
    hosted: Arc<Hosted>,
    health: Health,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Hosted {
    pub(super) fn does_not_run(&self, group: GroupId, code: &str, text: String) {
        tracing::error!(%group, code, "{text}");
        self.failed.write().insert(group, format!("{code}: {text}"));
    }

    /// Counters of the log engine.
    #[must_use]
    pub fn log_stats(&self) -> LogStats {
        self.log.read().as_ref().map(LogEngine::stats).unwrap_or_default()
    }

    /// Why the log engine writes nothing any more. Groups that have nothing to write find out later.
    #[must_use]
    pub fn log_failure(&self) -> Option<StorageError> {
        self.log.read().as_ref().and_then(LogEngine::failure)
    }
}

/// What a node reads before it opens anything.
struct Files {
    genesis: Arc<Genesis>,
    /// What the beacon has proved to this node before.
    kept: Option<Kept>,
    key: NodeKeys,
    identity: Identity,
    roots: TrustRoots,
}

fn read(path: &Path) -> Result<String, NodeError> {
    std::fs::read_to_string(path).map_err(|error| match storage::error::is_open_files(&error) {
        true => StorageError::io(path, &error).into(),
        false => NodeError::File { path: path.to_owned(), cause: error.to_string() },
    })
}

/// Reads and checks a genesis file.
///
/// # Errors
/// [`NodeError::File`] or [`NodeError::Genesis`].
pub fn load_genesis(path: &Path) -> Result<Genesis, NodeError> {
    let bad = |cause: String| NodeError::Genesis { path: path.to_owned(), cause };
    let text = read(path)?;
    let genesis: Genesis = match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) => {
            let inner = value.get("genesis").cloned().unwrap_or(value);
            serde_json::from_value(inner).map_err(|error| bad(error.to_string()))?
        }
        Err(error) => return Err(bad(error.to_string())),
    };
    beacon::genesis::check(&genesis).map_err(|fault| bad(fault.to_string()))?;
    Ok(genesis)
}

/// Several nodes of one process share its limit of open files, which has an error of its own.
fn secret_error(error: SecretError) -> NodeError {
    if let SecretError::Io { path, os: Some(number), .. } = &error {
        let system = std::io::Error::from_raw_os_error(*number);
        if storage::error::is_open_files(&system) {
            return StorageError::io(path, &system).into();
        }
    }
    error.into()
}

fn read_files(config: &NodeConfig, keyring: &mut Keyring) -> Result<Files, NodeError> {
    let genesis = load_genesis(&config.genesis)?;
    let identity_error = |cause: &str| NodeError::Identity(cause.to_owned());
    let files = KeyFiles::of(config);
    let key = files.load(keyring).map_err(secret_error)?;
    let identity = Identity::load_with(&config.cert, &config.key, keyring)?;
    let kept = kept::load(&config.data_dir, &genesis);
    let known = match &kept {
        Some(kept) => kept.registry.node(config.node),
        None => genesis.node(config.node),
    };
    match known {
        None => {
            tracing::warn!(node = %config.node, "the registry does not name this node yet; it gets no group before")
        }
        Some(info) if !key.holds(&info.key) && !files.had(&info.key) => {
            return Err(identity_error("the signing key is another one than the registry names"));
        }
        Some(info) if info.tls_key_hash != identity.key_hash()? => {
            return Err(identity_error("the TLS certificate has another key than the registry names"));
        }
        Some(_) => {}
    }
    let roots = TrustRoots::of_orgs(kept.as_ref().map_or(&genesis.orgs, |kept| &kept.registry.orgs));
    Ok(Files { genesis: Arc::new(genesis), kept, key, identity, roots })
}

/// Opens the log, and makes it at the first start. One that has to be there and is not is never made: the
/// replicas would have forgotten what they promised.
fn open_log(config: &NodeConfig, genesis: &Genesis, resources: &SharedResources) -> Result<LogEngine, StorageError> {
    let (root, cluster) = (config.data_dir.join("log"), genesis.cluster_id().0.0);
    let mark = StartedMark::beside(&config.signing_key, cluster, config.node.0);
    let started = mark.is_set()?;
    if !LogEngine::is_there(&root)? {
        let witness = if started { Some(mark.path().to_owned()) } else { hosting::traces(&config.data_dir) };
        if let Some(witness) = witness {
            return Err(StorageError::LogMissing { path: root, witness });
        }
    }
    let log = LogEngine::open(&root, resources, LogIdentity { cluster, node: config.node.0 })?;
    if !started {
        mark.set()?;
    }
    Ok(log)
}

async fn listen(sockets: &dyn Sockets, addr: SocketAddr) -> Result<Box<dyn Listener>, NodeError> {
    sockets.listen(addr).await.map_err(|error| match storage::error::is_open_files(&error) {
        true => StorageError::io(addr.to_string(), &error).into(),
        false => NodeError::Listen { addr, cause: error.to_string() },
    })
}

impl Node {
    /// Starts a node. When this returns, its ports are open and its groups run; a group whose files
    /// are damaged does not, which `status` shows, and the others do.
    ///
    /// # Errors
    /// [`NodeError`] says what to mend.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let resources = SharedResources::new(ResourceLimits::default())?;
        Self::start_with(config, resources).await
    }

    /// As [`Node::start`], sharing database resources with other nodes of the process.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(config: NodeConfig, resources: SharedResources) -> Result<Self, NodeError> {
        Self::start_on(config, Machine::this(resources)).await
    }

    /// As [`Node::start`], on this machine.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_on(config: NodeConfig, machine: Machine) -> Result<Self, NodeError> {
        let Machine { resources, sockets, wall } = machine;
        let mut keyring = config.keyring();
        let files = read_files(&config, &mut keyring)?;
        // Everything that can be refused comes before anything is opened: nothing would close it.
        net::server_tls(&files.identity, &files.roots)?;
        let certificate = net::CertificateInfo::from_pem(&files.identity.cert_pem)?;
        let certificate_until_ms = certificate.until_secs.saturating_mul(1_000);
        let (mut peer_server, mut client_server) = (net::server_behind_door(), net::server_behind_door());
        let peer_socket = listen(&*sockets, config.listen_peer).await?;
        let client_socket = listen(&*sockets, config.listen_client).await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();

        let mut first = ClusterView::of_genesis(&files.genesis);
        if let Some(kept) = files.kept {
            first.adopt(&kept.registry, kept.height);
            first.proof = kept.proof.into();
            first.adopt_beacon(Arc::new(kept.succession));
        }
        let (view_out, view) = watch::channel(Arc::new(first));
        let entrance = doorkeeper::open(files.identity.clone(), &view)?;
        let peers = Arc::new(Peers::over(sockets, files.identity.clone(), files.roots.clone(), view.clone()));
        let (readings_out, readings) = watch::channel(None);
        let clock = Clock::start_by(wall);
        let links = Links::new(Arc::clone(&peers), stop.clone());
        let calls = Arc::clone(peers.traffic());
        let traffic = NodeTraffic { calls, peers: Arc::default(), clients: Arc::default() };
        let log = open_log(&config, &files.genesis, &resources)?;
        let cluster = files.genesis.cluster_id();
        let vault = Vault::open(&config.storage_key, &config.data_dir, cluster, config.node, &mut keyring)?;
        // The passphrase has done its work.
        drop(keyring);
        let context = HostContext {
            genesis: Arc::clone(&files.genesis),
            node: config.node,
            key: files.key,
            verify: config.verify.unwrap_or(files.genesis.verify),
            timing: Timing {
                heartbeat_ms: config.raft.heartbeat_ms,
                election_min_ms: config.raft.election_min_ms,
                election_max_ms: config.raft.election_max_ms,
            },
            bft: BftTiming::DEFAULT,
            snapshot_every_entries: config.snapshot_every,
            trimming: Arc::new(Trimming::new(config.trim_bytes_per_s)),
            resources,
            vault: Arc::new(vault),
            links,
            clock: clock.clone(),
            readings,
            traffic: traffic.clone(),
            changed: Arc::default(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let hosted = Arc::new(Hosted {
            context,
            groups: RwLock::new(BTreeMap::new()),
            failed: RwLock::new(BTreeMap::new()),
            founding: RwLock::new(BTreeMap::new()),
            warm: RwLock::new(BTreeMap::new()),
            copied: RwLock::new(BTreeMap::new()),
            rates: Mutex::default(),
            data_dir: config.data_dir.clone(),
            certificate_until_ms,
            log: RwLock::new(Some(log)),
        });
        let rotation = Rotation::new(Arc::clone(&hosted), KeyFiles::of(&config));
        let hosting = Hosting::new(Arc::clone(&hosted), config.data_dir.clone(), Arc::clone(&peers), rotation);
        let first = Arc::clone(&view.borrow());
        hosting.start_all(&first).await;
        tasks.spawn(exchange(Arc::clone(&peers), config.node, clock, readings_out, stop.clone()));
        let view_out = Arc::new(view_out);
        tasks.spawn(publish(Arc::clone(&hosted), Arc::clone(&view_out), stop.clone()));
        tasks.spawn(silence::report(hosted.context.clone(), view.clone()));
        tasks.spawn(epochs::contribute(Arc::clone(&hosted), config.data_dir.clone()));
        tasks.spawn(follow((Arc::clone(&peers), config.node), view_out, stop.clone()));
        tasks.spawn(doorkeeper::keep(Arc::clone(&entrance), view.clone(), stop.clone()));
        tasks.spawn(kept::keep(config.data_dir, view.clone(), stop.clone()));
        tasks.spawn(hosting.follow(view.clone()));

        let service = Service::new(Arc::clone(&hosted), view.clone()).into_service();
        let peer_server = peer_server.add_service(Counting::new(service, view.clone()));
        let local = Arc::new(LocalHost::new(Arc::clone(&hosted), view));
        let backend = NodeBackend::new(peers, Some(local));
        let gateway = gateway_service(backend, GatewayLimits::default());
        let (client_server, health) = with_standard_services(client_server.add_service(gateway)).await;
        let (of_peers, of_clients) = (Arc::clone(&traffic.peers), Arc::clone(&traffic.clients));
        for (server, listener, counter) in
            [(peer_server, peer_socket, of_peers), (client_server, client_socket, of_clients)]
        {
            let (stop, entrance) = (stop.clone(), Arc::clone(&entrance));
            tasks.spawn(async move {
                if let Err(error) = socket::serve(server, listener, entrance, stop.cancelled_owned(), counter).await {
                    tracing::error!(%error, "a server ended");
                }
            });
        }
        tracing::info!(node = %config.node, peer = %config.listen_peer, client = %config.listen_client, "node runs");
        Ok(Self { id: config.node, hosted, health, stop, tasks })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The groups it runs, for tests and tools in the same process.
    #[must_use]
    pub fn hosted(&self) -> &Arc<Hosted> {
        &self.hosted
    }

    /// Resolves when somebody stopped the node.
    pub async fn wait_stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Stops cleanly: sends new callers elsewhere, hands over leadership where it can, ends every
    /// task, flushes the state.
    pub async fn shutdown(self) {
        self.health.closing().await;
        let mut groups: Vec<Arc<GroupHandle>> =
            std::mem::take(&mut *self.hosted.groups.write()).into_values().collect();
        let leave = groups.iter().filter(|handle| handle.role().leads).map(|handle| async move {
            // Only a courtesy to clients: when nobody can take over, the group elects later.
            let patience = std::time::Duration::from_millis(500);
            let _ = tokio::time::timeout(patience, handle.engine.step_down()).await;
        });
        futures::future::join_all(leave).await;
        self.stop.cancel();
        for handle in &groups {
            handle.engine.shutdown().await;
        }
        self.tasks.close();
        let patience = std::time::Duration::from_secs(5);
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(node = %self.id, "some tasks did not end in time");
        }
        // One that had to be rebuilt may have started meanwhile.
        let late: Vec<Arc<GroupHandle>> = std::mem::take(&mut *self.hosted.groups.write()).into_values().collect();
        for handle in &late {
            handle.engine.shutdown().await;
        }
        groups.extend(late);
        let hosted = Arc::clone(&self.hosted);
        let closing = tokio::task::spawn_blocking(move || {
            for handle in &groups {
                if let Some(db) = handle.share.state.db() {
                    if let Err(error) = db.flush() {
                        tracing::warn!(group = %handle.group, %error, "the state was not flushed; it will be replayed from the log");
                    }
                    // Closing waits for none of its compactions, which take their time.
                    db.give_up();
                }
                handle.share.state.close();
            }
            drop(groups);
            drop(hosted.log.write().take());
        });
        if closing.await.is_err() {
            tracing::error!("closing the databases failed");
        }
    }
}

async fn follow(
    (peers, own): (Arc<Peers>, NodeId),
    view: Arc<watch::Sender<Arc<ClusterView>>>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = router::gateway::follow(peers, view, Some(own)) => {}
    }
}

//! Groups of one replica, for the tests of the host: a real engine, log and database in a temporary
//! folder, and no other node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::net::{Identity, TrustRoots};
use client::secrets::Keyring;
use consensus::bft::BftTiming;
use consensus::port::{Committed, Payload, Position, Timing};
use consensus::sequencer::Sequencer;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::ids::{Address, AssetId, Epoch, GroupId, Incarnation, LedgerId, NodeId, OrgId};
use ledger::{
    AssetDef, AssetSpec, Certificate, Committee, Header, Member, Move, SecretKey, SignedTx, TimeMs, TxId, schema,
};
use parking_lot::{Mutex, RwLock};
use router::gateway::{ClusterView, Peers};
use storage::{LogEngine, LogIdentity, ResourceLimits, SharedResources, WriteBatch};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::support::{self, NOW, SHARD, client_of, genesis_named, node_key};
use crate::server::clock::{Clock, Readings};
use crate::server::group::{GroupError, GroupHandle, HostContext, Logs, OpenGroup, Seat};
use crate::server::hosting::Hosting;
use crate::server::links::{Links, NodeTraffic};
use crate::server::local::Hosted;
use crate::server::replica::{Known, StateHandle};
use crate::server::rotation::{KeyFiles, Rotation};
use crate::server::trimming::Trimming;
use crate::server::vault::{LocalSeal, Vault};

/// The one node of these groups.
pub(crate) const NODE: NodeId = NodeId(1);
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A genesis in which [`NODE`] alone makes up the beacon and [`SHARD`].
pub(crate) fn lone_genesis(verify: VerifyMode) -> Genesis {
    let member = Member { node: NODE, org: OrgId(0), key: node_key(NODE.0).public() };
    let alone = |group| Committee::majority(group, Incarnation(0), Epoch(0), vec![member.clone()]);
    let committees = [GroupId::BEACON, SHARD].map(alone).to_vec();
    Genesis { committees, ..genesis_named("lone", verify) }
}

/// A certificate of a lone group.
pub(crate) fn certify(header: Header) -> Certificate {
    let signature = node_key(NODE.0).sign(&header.hash());
    Certificate { version: 1, header, signatures: vec![(NODE, signature)] }
}

/// An issuer whose account lies in [`SHARD`], and its asset.
pub(crate) fn issuer() -> (SecretKey, AssetDef) {
    let key = client_of(SHARD);
    let spec =
        AssetSpec { issuer: support::address(&key), symbol: "EUR".to_owned(), name: "Euro".to_owned(), decimals: 2 };
    (key, AssetDef { version: 1, id: spec.id(), spec, frozen: false })
}

/// Makes the asset known, as mail of the beacon would.
pub(crate) fn write_asset(state: &StateHandle) {
    let (_, asset) = issuer();
    let mut batch = WriteBatch::new();
    batch.put(schema::asset(&asset.id), borsh::to_vec(&asset).expect("writing to memory does not fail"));
    state.db().expect("the state is open").write(batch).expect("a write");
}

/// A transaction by the issuer, distinct by its salt, that gives `to` some of its asset.
pub(crate) fn mint(genesis: &Genesis, salt: u8, to: Address, amount: u128) -> (TxId, Bytes) {
    let (key, asset) = issuer();
    let signed = minted(genesis, &key, salt, to, asset.id, amount);
    (signed.txid(&genesis.cluster_id()), Bytes::from(signed.encode()))
}

/// A transaction like those of [`mint`] whose signature is over another one.
pub(crate) fn forged(genesis: &Genesis, salt: u8) -> Bytes {
    let (key, asset) = issuer();
    let to = Address([4; 20]);
    let mut signed = minted(genesis, &key, salt, to, asset.id, 1_000);
    signed.witnesses = minted(genesis, &key, salt + 100, to, asset.id, 1).witnesses;
    Bytes::from(signed.encode())
}

fn minted(genesis: &Genesis, key: &SecretKey, salt: u8, to: Address, asset: AssetId, amount: u128) -> SignedTx {
    let mv = Move::Mint { issuer: support::address(key), to, asset, amount };
    support::transaction(genesis.cluster_id(), LedgerId::MAIN, key, salt, vec![mv])
}

/// A committed entry with these transactions.
pub(crate) fn committed(index: u64, txs: impl IntoIterator<Item = Bytes>) -> Committed {
    let commands = txs.into_iter().map(|tx| Command::Tx(tx.to_vec())).collect();
    let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(NOW.0 + index), commands };
    let position = Position { term: 1, leader: 1, index };
    Committed { position, payload: Payload::Batch(entry.encode().into()), note: None }
}

pub(crate) fn resources() -> SharedResources {
    let limits = ResourceLimits { block_cache_bytes: 8 << 20, ..ResourceLimits::default() };
    SharedResources::new(limits).expect("resources")
}

/// What the groups of [`NODE`] share, whose files lie in a folder, and nobody to talk to.
fn context(folder: &Path, genesis: &Arc<Genesis>, verify: VerifyMode) -> (HostContext, Arc<Peers>) {
    let stop = CancellationToken::new();
    let (_, view) = watch::channel(Arc::new(ClusterView::of_genesis(genesis)));
    let peers = Arc::new(Peers::new(Identity::new("", ""), TrustRoots::default(), view));
    let clock = Clock::start();
    let (key, mut keyring) = (folder.join("storage.key"), Keyring::empty());
    let vault = Vault::open(&key, folder, genesis.cluster_id(), NODE, &mut keyring);
    let vault = vault.expect("a storage key");
    let readings = Readings { own_ms: clock.wall_offset_ms(), ..Readings::default() };
    let context = HostContext {
        genesis: Arc::clone(genesis),
        node: NODE,
        key: node_key(NODE.0).into(),
        verify,
        timing: Timing { heartbeat_ms: 40, election_min_ms: 100, election_max_ms: 200 },
        bft: BftTiming::DEFAULT,
        snapshot_every_entries: 0,
        trimming: Arc::new(Trimming::new(16 << 20)),
        resources: resources(),
        vault: Arc::new(vault),
        links: Links::new(Arc::clone(&peers), stop.clone()),
        clock,
        readings: watch::channel(Some(readings)).1,
        traffic: NodeTraffic { calls: Arc::default(), peers: Arc::default(), clients: Arc::default() },
        changed: Arc::default(),
        stop,
        tasks: TaskTracker::new(),
    };
    (context, peers)
}

/// [`NODE`] with a log of its own, before it has started any group.
pub(crate) struct LoneNode {
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) folder: TempDir,
    peers: Arc<Peers>,
}

impl LoneNode {
    pub(crate) fn new(genesis: Arc<Genesis>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (context, peers) = context(folder.path(), &genesis, VerifyMode::Ingest);
        let log = open_log(folder.path(), &context.resources, &genesis);
        let hosted = Hosted {
            context,
            groups: RwLock::default(),
            failed: RwLock::default(),
            founding: RwLock::default(),
            warm: RwLock::default(),
            copied: RwLock::default(),
            rates: Mutex::default(),
            data_dir: folder.path().to_owned(),
            certificate_until_ms: i64::MAX,
            log: RwLock::new(Some(log)),
        };
        Self { hosted: Arc::new(hosted), folder, peers }
    }

    /// What starts its groups.
    pub(crate) fn hosting(&self) -> Hosting {
        let files = KeyFiles::at(self.folder.path().join("signing.key"));
        let rotation = Rotation::new(Arc::clone(&self.hosted), files);
        Hosting::new(Arc::clone(&self.hosted), self.folder.path().to_owned(), Arc::clone(&self.peers), rotation)
    }

    /// Ends it, once its groups have ended.
    pub(crate) async fn end(self) {
        self.hosted.context.stop.cancel();
        self.hosted.context.tasks.close();
        tokio::time::timeout(PATIENCE, self.hosted.context.tasks.wait()).await.expect("all tasks end");
        drop(self.hosted.log.write().take());
    }
}

/// One running replica of [`SHARD`] that is its whole group.
pub(crate) struct Lone {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) context: HostContext,
    pub(crate) handle: Arc<GroupHandle>,
    pub(crate) folder: TempDir,
    log: Option<LogEngine>,
}

impl Lone {
    /// Starts it anew and waits until it leads.
    pub(crate) async fn start(verify: VerifyMode) -> Self {
        Self::start_in(TempDir::new().expect("a folder"), verify).await.expect("the group starts")
    }

    /// Starts it with what the folder holds.
    pub(crate) async fn start_in(folder: TempDir, verify: VerifyMode) -> Result<Self, (TempDir, GroupError)> {
        // One genesis, so that a folder may be opened again in the other mode, as node.toml allows.
        let genesis = Arc::new(lone_genesis(VerifyMode::Ingest));
        let (context, _) = context(folder.path(), &genesis, verify);
        let resources = context.resources.clone();
        let log = open_log(folder.path(), &resources, &genesis);
        let (shard, seal) = (folder.path().join("shard"), LocalSeal::open());
        let logs = Logs::open(&log, SHARD, &seal.cipher()).expect("the group's logs");
        let opened =
            OpenGroup::open(&context, SHARD, &Seat::of_genesis(), (&shard, seal), logs, Known::default()).await;
        let started = match opened {
            Ok(group) => group.start().await,
            Err(error) => Err(error),
        };
        let handle = match started {
            Ok(handle) => handle,
            Err(error) => return Err((folder, error)),
        };
        let lone = Self { genesis, context, handle, folder, log: Some(log) };
        lone.until("it leads", |handle| handle.role().leads || handle.stopped().is_some()).await;
        Ok(lone)
    }

    /// Waits for something about the group.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&GroupHandle) -> bool) {
        let there = async {
            while !condition(&self.handle) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, there).await;
        assert!(reached.is_ok(), "not reached: {what}; {:?}", self.handle.role());
    }

    /// Stops it as a node does, and gives its folder back.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.context.stop.cancel();
        self.handle.engine.shutdown().await;
        self.context.tasks.close();
        tokio::time::timeout(PATIENCE, self.context.tasks.wait()).await.expect("all tasks end");
        if let Some(db) = self.handle.share.state.db() {
            db.flush().expect("the state is flushed");
        }
        self.handle.share.state.close();
        drop(self.log.take());
        self.folder
    }
}

fn open_log(folder: &Path, resources: &SharedResources, genesis: &Genesis) -> LogEngine {
    let identity = LogIdentity { cluster: genesis.cluster_id().0.0, node: NODE.0 };
    LogEngine::open(&folder.join("log"), resources, identity).expect("the log opens")
}

//! Opening and starting a group: its files, then what is missing of its state, then its engine and task.
//!
//! Owns a group between these steps. Nothing here runs once the group does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use beacon::limits::CHECKPOINT_EVERY_BLOCKS;
use consensus::engine::{Group, Means};
use consensus::port::replica_id;
use consensus::raft::{FetchError, Founding, Prepared, RaftGroupConfig, Standing};
use consensus::sequencer::Sequencer;
use ledger::Committee;
use ledger::foundation::Foundation;
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, Height, NodeId};
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::{ReadFault, StateReader};
use router::gateway::ClusterView;
use storage::{LogEngine, LogStore, StorageError, ValueCipher};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::core::driver::{DriverConfig, GroupDriver};
use crate::core::marks;
use crate::server::alarms::Alarms;
use crate::server::checks;
use crate::server::group::admit::{self, AdmitError, Way};
use crate::server::group::task::{FORGET_EVERY, GroupTask};
use crate::server::group::{GroupError, GroupHandle, HostContext, PIPELINE, Turns, evidence, system_view, with_reader};
use crate::server::ingest::{Arrivals, Gate, Waiters};
use crate::server::judge::HostJudge;
use crate::server::links::Transport;
use crate::server::replica::{Committing, Files, Known, Replica, ReplicaShare};
use crate::server::vault::LocalSeal;

/// Inputs that wait for a group's task.
const INPUTS_MAX: usize = 4096;
/// Blocks that wait for a group's task; the commit loop waits beyond it.
const BLOCKS_MAX: usize = 64;
/// Between two times that the first leader of a shard that begins stands for election, until the others have opened theirs.
/// An answer to an earlier time counts as well, so this may be less than a round trip; one that has not opened it refuses at once.
const STAND_AGAIN: Duration = Duration::from_millis(10);

/// The engine's id of a node that is in a group since its beginning. Later joins have higher numbers,
/// so that no id is ever used again.
#[must_use]
pub fn first_raft_id(node: NodeId) -> u64 {
    replica_id(node, FIRST_JOIN)
}

/// The join of those that are in a group since its beginning.
pub const FIRST_JOIN: u16 = 1;

/// How this node comes to have a replica of a group.
#[derive(Clone, Debug)]
pub struct Seat {
    /// How the group began; none for the groups of the genesis.
    pub founded: Option<Arc<Foundation>>,
    /// Makes the replica's raft id unique: [`FIRST_JOIN`], or one more than the epoch with which this
    /// node joined (ADR 16).
    pub join: u16,
}

impl Seat {
    /// The seat of a node in a group of the genesis.
    #[must_use]
    pub fn of_genesis() -> Self {
        Self { founded: None, join: FIRST_JOIN }
    }
}

/// The logs of a group in the node's log engine.
#[derive(Clone)]
pub struct Logs {
    /// Of its entries.
    pub entries: Arc<dyn LogStore>,
    /// Of what a member of a Byzantine group writes down before it signs; empty where another engine runs.
    pub ballots: Arc<dyn LogStore>,
}

impl Logs {
    /// Opens both, sealed alike.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(engine: &LogEngine, group: GroupId, cipher: &Arc<dyn ValueCipher>) -> Result<Self, StorageError> {
        Ok(Self {
            entries: Arc::new(engine.group(group.0, Arc::clone(cipher))?),
            ballots: Arc::new(engine.beside(group.0, Arc::clone(cipher))?),
        })
    }
}

/// A group whose files are open and that does not run yet.
pub struct OpenGroup {
    context: HostContext,
    group: GroupId,
    share: ReplicaShare,
    committing: mpsc::Receiver<Committing>,
    prepared: Prepared,
    /// What was found of a snapshot that another node has sent.
    refused: Option<String>,
    ballots: Arc<dyn LogStore>,
    /// The members that the group began with, by their raft ids.
    first: Vec<(u64, NodeId)>,
    join: u16,
    /// Whether it gives the group its first members as soon as it runs, if the group has not begun.
    at_once: bool,
    /// Whether it alone does so, and stands for election then without waiting for its time-out.
    stands: bool,
}

impl OpenGroup {
    /// Opens the files of a group: those in its folder, which are sealed like this, and its logs. `known` is what is known
    /// of its state already.
    ///
    /// # Errors
    /// [`GroupError`] names the group and what is wrong.
    pub async fn open(
        context: &HostContext,
        group: GroupId,
        seat: &Seat,
        (folder, seal): (&Path, LocalSeal),
        logs: Logs,
        known: Known,
    ) -> Result<Self, GroupError> {
        let (effects, committing) = mpsc::channel(BLOCKS_MAX);
        let opened = {
            let (root, resources) = (folder.join("state"), context.resources.clone());
            let (genesis, node, verify) = (Arc::clone(&context.genesis), context.node, context.verify);
            let founded = seat.founded.clone();
            tokio::task::spawn_blocking(move || {
                let files = Files { root: &root, resources: &resources, seal, known };
                Replica::open(files, &genesis, founded.as_deref(), (node, group), verify, effects)
            })
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        };
        let (replica, share) = opened.map_err(|error| GroupError::Open(group, error))?;
        let first = first_members(&context.genesis, seat, &share, group);
        let first = first.map_err(|error| GroupError::Read(group, error))?;
        let config = RaftGroupConfig {
            group,
            raft_id: replica_id(context.node, seat.join),
            node: context.node,
            timing: context.timing,
            snapshot_dir: folder.join("snapshots"),
            snapshot_every_entries: context.snapshot_every_entries,
            snapshot_keep_entries: context.snapshot_every_entries / 4,
        };
        let transport = Arc::new(Transport { links: Arc::clone(&context.links), share: share.clone() });
        let Logs { entries, ballots } = logs;
        let lacking = share.state.load::<bool>(&marks::lacking()).map_err(|error| GroupError::Read(group, error))?;
        let mut prepared = Prepared::open(config, entries, Box::new(replica), transport).await?;
        if lacking.is_some() {
            prepared.lacks_state();
        }
        Ok(Self {
            context: context.clone(),
            group,
            share,
            committing,
            prepared,
            refused: None,
            ballots,
            first,
            join: seat.join,
            at_once: true,
            stands: false,
        })
    }

    /// The log index that a snapshot of another replica has to reach before this one can run: its own
    /// state is gone, and its log has been purged so far.
    #[must_use]
    pub fn missing(&self) -> Option<u64> {
        self.prepared.missing()
    }

    /// Fetches the snapshot that is missing from whichever of the members in this view lends one.
    ///
    /// # Errors
    /// [`FetchError`] says what each of them answered.
    pub async fn fetch(&mut self, view: &ClusterView) -> Result<(), FetchError> {
        let own = self.context.node;
        let others: Vec<NodeId> = view.members(self.group).into_iter().filter(|node| *node != own).collect();
        let fetched = self.prepared.fetch(&others).await;
        // Nobody reads yet, and the start looks at the state itself; whose snapshot was refused is told then.
        while let Ok(what) = self.committing.try_recv() {
            if let Committing::Refused(text) = what {
                tracing::warn!(group = %self.group, "{text}");
                self.refused.get_or_insert(text);
            }
        }
        fetched
    }

    /// Answers other members until the group runs here.
    #[must_use]
    pub fn founding(&self) -> Founding {
        self.prepared.founding()
    }

    /// Whether this replica follows without a vote, and so may run without asking anybody.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.prepared.follows()
    }

    /// Asks others once whether this replica may take part; one that has taken part may. Who they are
    /// follows from how it comes to its seat, and from the registry.
    ///
    /// # Errors
    /// [`AdmitError`] says whom it waits for, or that it has lost its log.
    pub async fn admit(&self, view: &ClusterView) -> Result<(), AdmitError> {
        let sure = match self.prepared.founding().standing() {
            Standing::Begun => return Ok(()),
            Standing::Sure => true,
            Standing::Unsure => false,
        };
        match admit::way(view, self.group, self.context.node, self.join, sure) {
            // One that is sure asks nobody.
            Way::Begin => Ok(self.prepared.join(&[]).await?),
            Way::Found => {
                let own = self.context.node;
                let others: Vec<_> = self.first.iter().copied().filter(|(_, node)| *node != own).collect();
                Ok(self.prepared.found(&others).await?)
            }
            Way::Join(voters) => Ok(self.prepared.join(&voters).await?),
            Way::Lost(epoch) => Err(AdmitError::Lost(epoch)),
            Way::Wait => Err(AdmitError::Unplanned),
        }
    }

    /// Lets this replica take part without asking anybody: the shard begins out of others whose logs are on this node. Where
    /// it does not lead them, it waits for who does to stand for election.
    ///
    /// # Errors
    /// [`AdmitError::Asked`] when the log cannot be written.
    pub fn begin_beside(&mut self, leads_parents: bool) -> Result<(), AdmitError> {
        (self.at_once, self.stands) = (leads_parents, leads_parents);
        Ok(self.prepared.begin()?)
    }

    /// The shards that were cut or joined into this one, while nothing has followed on its first block; none for any other
    /// group.
    #[must_use]
    pub fn newborn_of(&self) -> Vec<GroupId> {
        let origin: Option<Origin> = self.share.state.load(&schema::origin()).ok().flatten();
        let stand = self.share.stand.lock();
        let first =
            |origin: &Origin| stand.applied.consensus.position.is_none() && origin.first == stand.applied.height;
        let parents = origin.filter(first).map(|origin| origin.parents).unwrap_or_default();
        parents.into_iter().map(|parent| parent.group).collect()
    }

    /// Whether nobody else can be asked: it is the only one that the group begins with.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.join == FIRST_JOIN && self.first.len() == 1
    }

    /// Starts the group. One that was not admitted must not be: see [`OpenGroup::admit`].
    ///
    /// # Errors
    /// [`GroupError`] names the group and what is wrong.
    pub async fn start(self) -> Result<Arc<GroupHandle>, GroupError> {
        let Self { context, group, share, committing, prepared, refused, ballots, first, join, at_once, stands } = self;
        let (inputs, received) = mpsc::channel(INPUTS_MAX);
        let system = system_view(&share, group, &context).map_err(|error| GroupError::Read(group, error))?;
        let (certified_out, certified) =
            watch::channel(system.certified.as_ref().map(|certified| certified.certificate.clone()));
        let waiters = Arc::new(Waiters::behind(Gate::of(group, &share), group));
        let attested = Arc::new(AtomicU64::new(0));
        let alarms = Arc::new(Alarms::new(group));
        if let Some(text) = refused {
            alarms.pass(text);
        }
        let lost_proposals = Arc::new(AtomicBool::new(false));
        let known = checks::Known::default();
        let turns = Turns::default();
        let (engine_out, engine_in) = tokio::sync::oneshot::channel();
        let task = GroupTask {
            context: context.clone(),
            group,
            share: share.clone(),
            waiters: Arc::clone(&waiters),
            alarms: Arc::clone(&alarms),
            lost_proposals: Arc::clone(&lost_proposals),
            turns: turns.clone(),
            known: known.clone(),
            certified: certified_out,
            attested: Arc::clone(&attested),
            inputs: inputs.downgrade(),
            proposals: mpsc::channel(1).0,
            driver: GroupDriver::new(DriverConfig {
                group,
                node: context.node,
                join,
                key: context.key.clone(),
                pipeline: PIPELINE,
                checkpoint_every: CHECKPOINT_EVERY_BLOCKS,
                verify: context.verify,
                checked: share.checked.clone(),
            }),
            leader: None,
            leads: false,
            votes: false,
            stint: 0,
            excluded: false,
            members: Vec::new(),
            guarded_ms: None,
            engine: None,
            stepping_down: None,
            witnessed: Vec::new(),
            deferred: Vec::new(),
            beacon: Vec::new(),
            trails: Arc::new(Semaphore::new(1)),
            judged: Height(0),
            forget_at: tokio::time::Instant::now() + FORGET_EVERY,
        };
        // The task runs before the engine starts: replayed blocks are announced to it at once.
        context.tasks.spawn(task.run(system, received, committing, engine_in));
        let means = means(&context, &share, group, (ballots, known.clone()));
        let engine = Group::start(prepared, means).await?;
        evidence::follow(&context, &alarms, inputs.downgrade(), engine.evidence());
        // Who joins later has an empty log until the leader writes to it.
        if join == FIRST_JOIN && at_once {
            engine.bootstrap(first).await.map_err(|error| GroupError::Bootstrap(group, error))?;
            if stands {
                stand_at_once(&context, engine.clone());
            }
        } else if join == FIRST_JOIN {
            bootstrap_later(&context, engine.clone(), first);
        }
        let _ = engine_out.send(engine.clone());
        let arrivals = Arrivals::default();
        Ok(Arc::new(GroupHandle {
            group,
            engine,
            share,
            waiters,
            arrivals,
            certified,
            attested,
            alarms,
            cluster: context.genesis.cluster_id(),
            lost_proposals,
            turns,
            over: AtomicBool::new(false),
            inputs,
            verify: context.verify,
            known,
            stop: context.stop,
            tasks: context.tasks,
        }))
    }
}

/// What a replica needs beside its files, for whichever engine it runs.
fn means(
    context: &HostContext,
    share: &ReplicaShare,
    group: GroupId,
    (wal, known): (Arc<dyn LogStore>, checks::Known),
) -> Means {
    let (links, own) = (Arc::clone(&context.links), context.node);
    Means {
        cluster: context.genesis.cluster_id(),
        key: context.key.clone(),
        timing: context.bft,
        wal,
        judge: Arc::new(HostJudge::new(context, share, group, known)),
        others: Arc::new(move || links.members(group).into_iter().filter(|node| *node != own).collect()),
    }
}

/// Gives a group its first members, unless somebody else does so within the time of two elections: all at once they would
/// vote for themselves.
fn bootstrap_later(context: &HostContext, engine: Group, first: Vec<(u64, NodeId)>) {
    let (stop, patience) = (context.stop.clone(), Duration::from_millis(2 * context.timing.election_max_ms));
    context.tasks.spawn(async move {
        let mut role = engine.role();
        let led = async { role.wait_for(|role| role.leader.is_some()).await.is_ok() };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tokio::time::timeout(patience, led) => {}
        }
        if let Err(error) = engine.bootstrap(first).await {
            tracing::warn!(group = %engine.group(), %error, "the group is not given its first members here");
        }
    });
}

/// Has the replica of a group that has just been given its members stand for election, again and again until the others are
/// there to vote. By itself it would do so only when its time-out is over, and payers wait meanwhile. From the first term on
/// there is a vote, and time-outs decide as ever.
fn stand_at_once(context: &HostContext, engine: Group) {
    let (stop, patience) = (context.stop.clone(), Duration::from_millis(2 * context.timing.election_max_ms));
    context.tasks.spawn(async move {
        let mut role = engine.role();
        let (begun, mut times) = (tokio::time::Instant::now(), 0_u32);
        while begun.elapsed() < patience {
            if let Err(error) = engine.campaign().await {
                tracing::warn!(group = %engine.group(), %error, "the replica does not stand for election");
                return;
            }
            times += 1;
            // Whoever has given the members passes for the leader of term 0, in which nobody leads.
            let voted = async { role.wait_for(|role| role.term > 0).await.is_ok() };
            tokio::select! {
                () = stop.cancelled() => return,
                voted = tokio::time::timeout(STAND_AGAIN, voted) => if voted.is_ok() { break },
            }
        }
        // Payers wait for this, too.
        let (voted_ms, led) = (begun.elapsed().as_millis(), async { role.wait_for(|role| role.leads).await.is_ok() });
        tokio::select! {
            () = stop.cancelled() => {}
            led = tokio::time::timeout(patience, led) => {
                let (group, led_ms, leads) = (engine.group(), begun.elapsed().as_millis(), matches!(led, Ok(true)));
                tracing::info!(%group, times, voted_ms, led_ms, leads, "the replica has stood for election");
            }
        }
    });
}

/// The members that a group began with, by their raft ids: by the genesis, by the order that founded it, or by the state
/// with which a shard began that others were cut or joined into.
fn first_members(
    genesis: &Genesis,
    seat: &Seat,
    share: &ReplicaShare,
    group: GroupId,
) -> Result<Vec<(u64, NodeId)>, ReadFault> {
    let founded = seat.founded.as_deref().filter(|founded| founded.group == group);
    let known = genesis.committee(group).or(founded.map(|founded| &founded.committee)).cloned();
    let committee = match known {
        Some(committee) => Some(committee),
        None => with_reader(share, |reader| first_committee(reader, group))??,
    };
    let members = committee.into_iter().flat_map(|committee| committee.members);
    Ok(members.map(|member| (first_raft_id(member.node), member.node)).collect())
}

/// The committee of epoch 0, as the state keeps it.
fn first_committee(reader: &dyn StateReader, group: GroupId) -> Result<Option<Committee>, ReadFault> {
    let prefix = [schema::COMMITTEES_PREFIX, &group.0.to_be_bytes()].concat();
    for (_, bytes) in reader.scan_prefix(&prefix)? {
        let one: Committee = borsh::from_slice(&bytes).map_err(|error| ReadFault(error.to_string()))?;
        if one.epoch.0 == 0 {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

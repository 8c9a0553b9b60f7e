//! What happens before a replica takes part: its files are looked at, and what its state lacks to go
//! on is fetched.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ledger::committee::Engine;
use ledger::ids::{GroupId, NodeId};
use openraft::Config;
use storage::LogStore;
use tokio::sync::watch;

use super::codec;
use super::config::{RaftGroupConfig, StartError, openraft_config, sender};
use super::failure::Failure;
use super::fetch::{self, Asked, Borrowed, FetchError};
use super::found::{self, FoundError, Founding, Standing};
use super::group::RaftGroup;
use super::log::Log;
use super::machine::ApplierCell;
use super::network::{RaftTransport, Sender};
use super::snapshot::Snapshots;
use super::stint;
use super::types::{LeaderId, Vote};
use crate::port::{Applier, Order, Position, Timing};

/// What the files of a replica are opened with: again for each engine that it goes over to.
#[derive(Clone)]
pub(crate) struct Opening {
    config: RaftGroupConfig,
    store: Arc<dyn LogStore>,
    transport: Arc<dyn RaftTransport>,
}

impl Opening {
    pub(crate) fn group(&self) -> GroupId {
        self.config.group
    }

    pub(crate) fn timing(&self) -> Timing {
        self.config.timing
    }

    /// Opens them under this applier.
    pub(crate) async fn open(&self, applier: Box<dyn Applier>) -> Result<Prepared, StartError> {
        Prepared::open(self.config.clone(), self.store.clone(), applier, self.transport.clone()).await
    }
}

/// A replica whose files are open and that does not take part yet.
pub struct Prepared {
    opening: Opening,
    pub(super) config: RaftGroupConfig,
    pub(super) settings: Arc<Config>,
    pub(super) log: Log,
    pub(super) applier: Arc<ApplierCell>,
    pub(super) failure: Failure,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) sender: Arc<Sender>,
    missing: Option<Position>,
    founding: Founding,
    /// Its log says that it follows without a vote.
    follows: bool,
}

/// What a replica of a group that raft orders has become.
#[cfg(feature = "bft")]
pub(crate) enum Started {
    /// It takes part.
    Member(RaftGroup),
    /// It may have forgotten what it promised, and follows without a vote.
    Follower(super::follower::Follower),
}

impl Prepared {
    /// Looks at the log, the state and the kept snapshot.
    ///
    /// # Errors
    /// [`StartError`] when the settings, the log or the snapshots are not usable.
    pub async fn open(
        config: RaftGroupConfig,
        log: Arc<dyn LogStore>,
        applier: Box<dyn Applier>,
        transport: Arc<dyn RaftTransport>,
    ) -> Result<Self, StartError> {
        let group = config.group;
        let opening = Opening { config: config.clone(), store: log.clone(), transport: transport.clone() };
        let storage_error = |detail: String| StartError::Storage { group, detail };
        let settings = openraft_config(&config)?;
        let failure = Failure::default();
        let applier = Arc::new(ApplierCell::new(applier, failure.clone()));
        let dir = config.snapshot_dir.clone();
        let snapshots = applier.run(move |applier| Ok(Snapshots::open(&dir, applier))).await.and_then(|opened| opened);
        let snapshots =
            Arc::new(snapshots.map_err(|error| storage_error(format!("{}: {error}", config.snapshot_dir.display())))?);
        let log = Log::new(log, failure.clone());
        let applied = own_state(&log, &applier, &snapshots).await.map_err(|error| storage_error(error.to_string()))?;
        let missing =
            fetch::missing(&log, applied, snapshots.kept()).map_err(|error| storage_error(error.to_string()))?;
        let standing = found::standing(&log).map_err(|error| storage_error(error.to_string()))?;
        // A vote is durable before anything is applied, so a state without one is not of this log.
        // One that follows without a vote says so in the place of the vote.
        let follows = log.stint().map_err(|error| storage_error(error.to_string()))?.is_some();
        if standing != Standing::Begun && !follows && (applied.is_some() || snapshots.kept().is_some()) {
            applier.close().await;
            log.close();
            return Err(StartError::LogLost { group });
        }
        let founding = Founding::new(config.raft_id, standing);
        let sender = Arc::new(sender(&config, transport));
        let follows = follows && standing != Standing::Begun;
        Ok(Self { opening, config, settings, log, applier, failure, snapshots, sender, missing, founding, follows })
    }

    /// Answers others while this replica does not take part yet, and says where it stands. A host does not
    /// start a replica before [`Prepared::found`] or [`Prepared::join`] has let it.
    #[must_use]
    pub fn founding(&self) -> Founding {
        self.founding.clone()
    }

    /// Whether its log says that it follows without a vote. It may be started whatever others say: no engine lets it vote
    /// before nobody can rely on what it may have forgotten.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// Asks the other members (raft id and node) of a group whether this replica may begin; one that has
    /// begun may. To be called again while it says [`FoundError::Waiting`].
    ///
    /// # Errors
    /// [`FoundError`] says what each of them answered, or that this replica has lost its log.
    pub async fn found(&self, others: &[(u64, NodeId)]) -> Result<(), FoundError> {
        found::found(&self.founding, &self.sender, &self.log, others).await
    }

    /// Asks the voters of the committee before the one that this replica comes with whether it may begin;
    /// one that has begun may. To be called again while it says [`FoundError::Joining`].
    ///
    /// # Errors
    /// [`FoundError`] says what each of them answered, or that this replica has lost its log.
    pub async fn join(&self, voters: &[NodeId]) -> Result<(), FoundError> {
        found::join(&self.founding, &self.sender, &self.log, voters).await
    }

    /// Lets this replica take part without asking anybody. For a host that knows that its log was always empty: the group
    /// begins out of another one, whose log is in the same files and not empty. That it has promised nothing is durable before
    /// anything that it promises.
    ///
    /// # Errors
    /// [`FoundError::Log`].
    pub fn begin(&self) -> Result<(), FoundError> {
        found::begin(&self.founding, &self.log)
    }

    /// The group, and the id of this replica.
    #[must_use]
    pub fn identity(&self) -> (GroupId, u64) {
        (self.config.group, self.config.raft_id)
    }

    /// What it was opened with.
    pub(crate) fn opening(&self) -> Opening {
        self.opening.clone()
    }

    /// What orders the group's entries, by the state that is here.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        *self.orders().borrow()
    }

    /// As [`Prepared::order`], followed as it changes.
    pub(crate) fn orders(&self) -> watch::Receiver<Option<Order>> {
        self.applier.orders()
    }

    /// This replica takes part already, under another engine.
    pub(crate) fn takes_part(&self) {
        self.founding.rise(Standing::Begun);
    }

    /// Makes a snapshot of another replica the state. One that does not hold leaves it as it is, and is told.
    pub(crate) async fn install(&self, borrowed: Borrowed) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        // A state beside the log of a replica that has not begun would look like one whose log was lost.
        let begins = self.founding.standing() == Standing::Begun;
        if begins && found::standing(&self.log).map_err(text)? == Standing::Sure {
            let vote = Vote { leader_id: LeaderId { term: 1, node_id: self.config.raft_id }, committed: false };
            self.log.save_vote_durably(codec::encode_vote(&vote)).await.map_err(text)?;
        }
        borrowed.install(&self.snapshots, &self.applier, &self.log).await
    }

    /// The state that is here is none to go on from, by the word of the host: before this replica starts, it fetches a
    /// snapshot of another one, however far that reaches.
    pub fn lacks_state(&mut self) {
        self.missing.get_or_insert_with(Position::default);
    }

    /// The log index that a snapshot of another replica has to reach before this one can start;
    /// `None` when what is here is enough.
    #[must_use]
    pub fn missing(&self) -> Option<u64> {
        self.missing.map(|position| position.index)
    }

    /// Fetches what is missing from the first of these nodes that lends it. To be called again when none
    /// does.
    ///
    /// # Errors
    /// [`FetchError`] says what each of them answered.
    pub async fn fetch(&mut self, others: &[NodeId]) -> Result<(), FetchError> {
        if let Some(needed) = self.missing {
            let doubts = self.order().is_some_and(|order| order.engine == Engine::Bft);
            let asked = Asked::all(others, doubts);
            fetch::fetch(&self.sender, &self.snapshots, &self.applier, &self.log, needed, asked).await?;
            self.missing = None;
        }
        Ok(())
    }

    /// Brings the state up to what is known to be committed, then takes part.
    ///
    /// # Errors
    /// [`StartError::StateMissing`] while something is missing; [`StartError::LogLost`] when raft takes over from
    /// another engine and this replica may have forgotten what it promised; others when the log, the state or a
    /// snapshot are not usable.
    pub async fn start(self) -> Result<RaftGroup, StartError> {
        match self.enter().await {
            Ok(true) => RaftGroup::run(self).await,
            Ok(false) => {
                let group = self.config.group;
                Err(self.give_up(StartError::LogLost { group }).await)
            }
            Err(error) => Err(self.give_up(error).await),
        }
    }

    /// As [`Prepared::start`], but one that may not vote follows what the `others` decide.
    #[cfg(feature = "bft")]
    pub(crate) async fn start_or_follow(self, others: super::follower::Others) -> Result<Started, StartError> {
        match self.enter().await {
            Ok(true) => RaftGroup::run(self).await.map(Started::Member),
            Ok(false) => {
                let (group, closing) = (self.config.group, (self.applier.clone(), self.log.clone()));
                match super::follower::Follower::run(self, others).await {
                    Ok(follower) => Ok(Started::Follower(follower)),
                    Err(error) => {
                        closing.0.close().await;
                        closing.1.close();
                        Err(StartError::Storage { group, detail: error.to_string() })
                    }
                }
            }
            Err(error) => Err(self.give_up(error).await),
        }
    }

    /// Lets go of everything, for this reason.
    async fn give_up(self, error: StartError) -> StartError {
        self.applier.close().await;
        self.log.close();
        error
    }

    /// Enters the stint of raft that the state is in. Says whether this replica may vote there.
    async fn enter(&self) -> Result<bool, StartError> {
        let group = self.config.group;
        if let Some(position) = self.missing {
            return Err(StartError::StateMissing { group, purged: position.index });
        }
        let unusable = |error: io::Error| StartError::Storage { group, detail: error.to_string() };
        self.takes_over(Engine::Raft).await.map_err(unusable)?;
        let Some(after) = self.order().and_then(|order| order.after) else { return Ok(true) };
        let me = (self.config.raft_id, self.founding.standing() == Standing::Begun);
        stint::enter(&self.log, &self.applier, &self.snapshots, me, &after).await.map_err(unusable)
    }

    /// From now on this engine speaks and delivers, in the stint that the state is in.
    async fn takes_over(&self, engine: Engine) -> io::Result<()> {
        let stint = self.order().map_or(0, |order| order.stint());
        self.sender.stint.store(stint, Ordering::Relaxed);
        let told = self.applier.run(move |applier| {
            applier.ordered_by(engine);
            Ok(())
        });
        told.await
    }

    /// As [`Prepared::start`], with the Byzantine engine. A replica that was not let by [`Prepared::found`] is
    /// started as well: it follows, and votes as soon as nobody can count on what it may have forgotten.
    ///
    /// # Errors
    /// [`StartError::StateMissing`] while something is missing; others when the log, the records of its votes,
    /// the state or a snapshot are not usable.
    #[cfg(feature = "bft")]
    pub async fn start_bft(self, parts: crate::bft::BftParts) -> Result<crate::bft::BftGroup, StartError> {
        let told = self.takes_over(Engine::Bft).await;
        let Self { config, log, applier, failure, snapshots, sender, missing, founding, .. } = self;
        let (group, closing) = (config.group, (applier.clone(), log.clone()));
        let ground = crate::bft::Ground { config, log, applier, failure, snapshots, sender, founding };
        let started = match (missing, told) {
            (Some(position), _) => Err(StartError::StateMissing { group, purged: position.index }),
            (None, Err(error)) => Err(StartError::Storage { group, detail: error.to_string() }),
            (None, Ok(())) => crate::bft::BftGroup::run(ground, parts).await,
        };
        if started.is_err() {
            closing.0.close().await;
            closing.1.close();
        }
        started
    }
}

/// Where the state stands. One that is behind the stint which this replica has promised something in is replaced by the
/// snapshot that it made when it entered, if that is still there.
async fn own_state(log: &Log, applier: &Arc<ApplierCell>, snapshots: &Arc<Snapshots>) -> io::Result<Option<Position>> {
    let stint = log.stint()?.map_or(0, |stint| stint.start);
    let snapshots = snapshots.clone();
    let applied = applier.run(move |applier| {
        let reaches = |position: Option<Position>| position.map_or(0, |position| position.index) >= stint;
        if !reaches(applier.applied().position)
            && reaches(snapshots.kept())
            && let Some(folder) = snapshots.current(applier)?
        {
            snapshots.install(applier, &folder)?;
        }
        Ok(applier.applied().position)
    });
    applied.await
}

//! What happens before a replica takes part: its files are looked at, and what its state lacks to go
//! on is fetched.

use std::sync::Arc;

use ledger::ids::NodeId;
use openraft::Config;
use storage::LogStore;

use super::config::{RaftGroupConfig, StartError, openraft_config, sender};
use super::failure::Failure;
use super::fetch::{self, FetchError};
use super::found::{self, FoundError, Founding, Standing};
use super::group::RaftGroup;
use super::log::Log;
use super::machine::ApplierCell;
use super::network::{RaftTransport, Sender};
use super::snapshot::Snapshots;
use crate::port::{Applier, Position};

/// A replica whose files are open and that does not take part yet.
pub struct Prepared {
    pub(super) config: RaftGroupConfig,
    pub(super) settings: Arc<Config>,
    pub(super) log: Log,
    pub(super) applier: Arc<ApplierCell>,
    pub(super) failure: Failure,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) sender: Arc<Sender>,
    missing: Option<Position>,
    founding: Founding,
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
        let storage_error = |detail: String| StartError::Storage { group, detail };
        let settings = openraft_config(&config)?;
        let applied = applier.applied().position;
        let failure = Failure::default();
        let applier = Arc::new(ApplierCell::new(applier, failure.clone()));
        let dir = config.snapshot_dir.clone();
        let snapshots = applier.run(move |applier| Ok(Snapshots::open(&dir, applier))).await.and_then(|opened| opened);
        let snapshots =
            Arc::new(snapshots.map_err(|error| storage_error(format!("{}: {error}", config.snapshot_dir.display())))?);
        let log = Log::new(log, failure.clone());
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
        Ok(Self { config, settings, log, applier, failure, snapshots, sender, missing, founding })
    }

    /// Answers others while this replica does not take part yet, and says where it stands. A host does not
    /// start a replica before [`Prepared::found`] or [`Prepared::join`] has let it.
    #[must_use]
    pub fn founding(&self) -> Founding {
        self.founding.clone()
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
            fetch::fetch(&self.sender, &self.snapshots, &self.applier, &self.log, needed, others).await?;
            self.missing = None;
        }
        Ok(())
    }

    /// Brings the state up to what is known to be committed, then takes part.
    ///
    /// # Errors
    /// [`StartError::StateMissing`] while something is missing; others when the log, the state or a
    /// snapshot are not usable.
    pub async fn start(self) -> Result<RaftGroup, StartError> {
        match self.missing {
            Some(position) => {
                self.applier.close().await;
                self.log.close();
                Err(StartError::StateMissing { group: self.config.group, purged: position.index })
            }
            None => RaftGroup::run(self).await,
        }
    }

    /// As [`Prepared::start`], with the Byzantine engine. A replica that was not let by [`Prepared::found`] is
    /// started as well: it follows, and votes as soon as nobody can count on what it may have forgotten.
    ///
    /// # Errors
    /// [`StartError::StateMissing`] while something is missing; others when the log, the records of its votes,
    /// the state or a snapshot are not usable.
    #[cfg(feature = "bft")]
    pub async fn start_bft(self, parts: crate::bft::BftParts) -> Result<crate::bft::BftGroup, StartError> {
        let Self { config, log, applier, failure, snapshots, sender, missing, founding, .. } = self;
        let (group, closing) = (config.group, (applier.clone(), log.clone()));
        let ground = crate::bft::Ground { config, log, applier, failure, snapshots, sender, founding };
        let started = match missing {
            Some(position) => Err(StartError::StateMissing { group, purged: position.index }),
            None => crate::bft::BftGroup::run(ground, parts).await,
        };
        if started.is_err() {
            closing.0.close().await;
            closing.1.close();
        }
        started
    }
}

//! A replica of whichever engine its group has, so that a host need not know which.

use async_trait::async_trait;
use bytes::Bytes;
use ledger::Engine;
use ledger::ids::{GroupId, NodeId};
use tokio::sync::watch;

use crate::bft::BftGroup;
use crate::port::{RoleView, SequencerError};
use crate::raft::{HandleError, RaftGroup, Replica};
use crate::sequencer::{Proposal, Sequencer};

/// One replica of one group. Clones are the same replica.
#[derive(Clone)]
pub enum Group {
    /// Of a group whose members trust one another.
    Raft(RaftGroup),
    /// Of a group that bears members that lie.
    Bft(BftGroup),
}

/// Calls the same function of whichever engine it is.
macro_rules! either {
    ($group:expr, $one:ident => $call:expr) => {
        match $group {
            Group::Raft($one) => $call,
            Group::Bft($one) => $call,
        }
    };
}

impl Group {
    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self {
            Self::Raft(_) => Engine::Raft,
            Self::Bft(_) => Engine::Bft,
        }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        either!(self, one => one.group())
    }

    /// This replica's id, by [`crate::port::replica_id`].
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        match self {
            Self::Raft(one) => one.raft_id(),
            Self::Bft(one) => one.replica_id(),
        }
    }

    /// The replicas of the group, as far as the engine knows them.
    #[must_use]
    pub fn replicas(&self) -> Option<Vec<Replica>> {
        either!(self, one => one.replicas())
    }

    /// Gives a Raft group its first members; the members of a Byzantine group follow from its state.
    ///
    /// # Errors
    /// [`SequencerError::Refused`] when this replica is not among the members.
    pub async fn bootstrap(&self, members: Vec<(u64, NodeId)>) -> Result<(), SequencerError> {
        match self {
            Self::Raft(one) => one.bootstrap(members).await,
            Self::Bft(_) => Ok(()),
        }
    }

    /// Answers a request that the replica on node `from` sent.
    ///
    /// # Errors
    /// [`HandleError`]; the caller tries again in its own time.
    pub async fn handle(&self, from: NodeId, kind: u8, payload: Bytes) -> Result<Bytes, HandleError> {
        either!(self, one => one.handle(from, kind, payload).await)
    }
}

#[async_trait]
impl Sequencer for Group {
    async fn submit(&self, batch: Bytes) -> Result<Proposal, SequencerError> {
        either!(self, one => one.submit(batch).await)
    }

    fn role(&self) -> watch::Receiver<RoleView> {
        either!(self, one => one.role())
    }

    async fn read_barrier(&self) -> Result<u64, SequencerError> {
        either!(self, one => one.read_barrier().await)
    }

    async fn add_learner(&self, replica: u64, node: NodeId) -> Result<(), SequencerError> {
        either!(self, one => one.add_learner(replica, node).await)
    }

    async fn remove_learners(&self, replicas: Vec<u64>) -> Result<(), SequencerError> {
        either!(self, one => one.remove_learners(replicas).await)
    }

    async fn change_voters(&self, replicas: Vec<u64>) -> Result<(), SequencerError> {
        either!(self, one => one.change_voters(replicas).await)
    }

    async fn transfer_leader(&self, to: NodeId) -> Result<(), SequencerError> {
        either!(self, one => one.transfer_leader(to).await)
    }

    async fn step_down(&self) -> Result<(), SequencerError> {
        either!(self, one => one.step_down().await)
    }

    async fn snapshot_now(&self) -> Result<u64, SequencerError> {
        either!(self, one => one.snapshot_now().await)
    }

    async fn purge(&self, index: u64) -> Result<(), SequencerError> {
        either!(self, one => one.purge(index).await)
    }

    async fn shutdown(&self) {
        either!(self, one => one.shutdown().await);
    }
}

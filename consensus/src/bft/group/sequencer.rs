//! What the host asks of a replica.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::ids::NodeId;
use ledger::limits::BATCH_BYTES_MAX;
use tokio::sync::{oneshot, watch};

use super::task::{Command, Outcome};
use super::{BftGroup, ROOM_UNIT_BYTES};
use crate::port::{RoleView, SequencerError};
use crate::sequencer::{Proposal, Sequencer};

impl BftGroup {
    fn stopped(&self) -> SequencerError {
        SequencerError::Stopped(self.reason())
    }

    async fn command(&self, command: Command) -> Result<(), SequencerError> {
        // The task takes commands until it has noticed; their fate would be unknown for nothing.
        if self.inner.failure.get().is_some() {
            return Err(self.stopped());
        }
        self.inner.commands.send(command).await.map_err(|_| self.stopped())
    }

    /// Waits for what becomes of a submission.
    async fn outcome(self, answer: oneshot::Receiver<Outcome>) -> Outcome {
        answer.await.unwrap_or_else(|_| Err(SequencerError::Unknown(self.reason())))
    }
}

#[async_trait]
impl Sequencer for BftGroup {
    async fn submit(&self, batch: Bytes) -> Result<Proposal, SequencerError> {
        if batch.len() > BATCH_BYTES_MAX {
            let found = batch.len();
            return Err(SequencerError::Refused(format!("a batch of {found} bytes; the limit is {BATCH_BYTES_MAX}")));
        }
        let units = u32::try_from(1 + batch.len() / ROOM_UNIT_BYTES).unwrap_or(u32::MAX);
        let room = self.inner.room.clone().acquire_many_owned(units).await.map_err(|_| self.stopped())?;
        let (answer, wait) = oneshot::channel();
        self.command(Command::Submit { batch, answer, room }).await?;
        Ok(Proposal::new(self.clone().outcome(wait)))
    }

    fn role(&self) -> watch::Receiver<RoleView> {
        self.inner.role.clone()
    }

    async fn read_barrier(&self) -> Result<u64, SequencerError> {
        let (answer, wait) = oneshot::channel();
        self.command(Command::Barrier(answer)).await?;
        self.clone().outcome(wait).await
    }

    /// Does nothing: whoever is no member follows by itself, and members follow from the state.
    async fn add_learner(&self, _replica: u64, _node: NodeId) -> Result<(), SequencerError> {
        Ok(())
    }

    /// Does nothing: see [`Sequencer::add_learner`] of this engine.
    async fn remove_learners(&self, _replicas: Vec<u64>) -> Result<(), SequencerError> {
        Ok(())
    }

    /// Does nothing: the committee that the state has in force votes on the next entry.
    async fn change_voters(&self, _replicas: Vec<u64>) -> Result<(), SequencerError> {
        Ok(())
    }

    async fn transfer_leader(&self, to: NodeId) -> Result<(), SequencerError> {
        let now = self.inner.role.borrow().clone();
        if !now.voters.contains(&to) {
            return Err(SequencerError::Refused(format!("node {to} is not a voter")));
        }
        if now.leader == Some(to) {
            return Ok(());
        }
        if !now.leads {
            return Err(SequencerError::NotLeader(now.leader));
        }
        let mut role = self.role();
        self.command(Command::HandOver(to)).await?;
        let own = self.inner.config.node;
        let patience = Duration::from_millis(2 * self.inner.timing.propose_ms);
        let moved = role.wait_for(|role| role.leader.is_some_and(|leader| leader != own));
        match tokio::time::timeout(patience, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(SequencerError::Refused(format!("node {to} did not take over"))),
        }
    }

    async fn step_down(&self) -> Result<(), SequencerError> {
        let now = self.inner.role.borrow().clone();
        if !now.leads {
            return Ok(());
        }
        match now.heir(|node| node != self.inner.config.node) {
            Some(heir) => self.transfer_leader(heir).await,
            None => Err(SequencerError::Refused("there is no other voter".into())),
        }
    }

    async fn snapshot_now(&self) -> Result<u64, SequencerError> {
        let snapshots = self.inner.snapshots.clone();
        let made = self.inner.applier.run(move |applier| {
            if applier.applied().position.is_none() {
                return Ok(None);
            }
            snapshots.build(applier).map(Some)
        });
        let folder = made.await.map_err(|_| self.stopped())?;
        let Some(at) = folder.and_then(|folder| folder.applied.position) else {
            return Err(SequencerError::Refused("nothing is applied yet".into()));
        };
        self.command(Command::Snapshot(at.index)).await?;
        Ok(at.index)
    }

    async fn purge(&self, index: u64) -> Result<(), SequencerError> {
        let (done, wait) = oneshot::channel();
        self.command(Command::Purge(index, done)).await?;
        wait.await.map_err(|_| self.stopped())
    }

    async fn shutdown(&self) {
        self.end().await;
        self.inner.applier.close().await;
        self.inner.log.close();
    }
}

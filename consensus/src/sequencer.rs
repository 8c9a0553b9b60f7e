//! What a host asks of any engine, asynchronously.
//!
//! Owns the trait [`Sequencer`] and the ticket of a proposal. Never applies anything: that is the
//! [`crate::port::Applier`]'s part. The engines behind it are `raft` now and others later.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use ledger::ids::NodeId;
use tokio::sync::watch;

use crate::port::{RoleView, SequencerError};

/// A proposal that has its place in the queue. Resolves to the log index when the entry is applied
/// on this replica. Dropping it does not withdraw the proposal.
pub struct Proposal(BoxFuture<'static, Result<u64, SequencerError>>);

impl Proposal {
    /// Wraps what resolves when the entry is applied.
    pub fn new(outcome: impl Future<Output = Result<u64, SequencerError>> + Send + 'static) -> Self {
        Self(Box::pin(outcome))
    }
}

impl Future for Proposal {
    type Output = Result<u64, SequencerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// One replica of one group, whatever engine orders its entries.
#[async_trait]
pub trait Sequencer: Send + Sync + 'static {
    /// Queues a batch. When two calls return one after the other, their entries have this order in
    /// the log (if both get in). Any number may be in flight; the queue is bounded, so the call
    /// waits when it is full.
    async fn submit(&self, batch: Bytes) -> Result<Proposal, SequencerError>;

    /// Queues a batch and waits until it is applied here. Returns its log index.
    async fn propose(&self, batch: Bytes) -> Result<u64, SequencerError> {
        self.submit(batch).await?.await
    }

    /// What this replica is, followed as it changes. The channel closes when the replica is gone.
    fn role(&self) -> watch::Receiver<RoleView>;

    /// Linearizable read point: when it returns, everything that was acknowledged before the call
    /// is applied here. Returns the applied index it waited for. Leader only.
    async fn read_barrier(&self) -> Result<u64, SequencerError>;

    /// Adds a replica that receives the log without a vote. Returns when the change is committed,
    /// not when the learner has caught up: see [`RoleView::replicated`].
    async fn add_learner(&self, replica: u64, node: NodeId) -> Result<(), SequencerError>;

    /// Takes learners out of the group.
    async fn remove_learners(&self, replicas: Vec<u64>) -> Result<(), SequencerError>;

    /// Makes exactly these replicas the voters. New ones must be learners already; those that are
    /// left out leave the group.
    async fn change_voters(&self, replicas: Vec<u64>) -> Result<(), SequencerError>;

    /// Hands leadership to a voter; returns when another leader is known.
    async fn transfer_leader(&self, to: NodeId) -> Result<(), SequencerError>;

    /// Hands leadership to the most up-to-date other voter. Does nothing on a replica that does not
    /// lead.
    async fn step_down(&self) -> Result<(), SequencerError>;

    /// Makes a snapshot now. Returns the index it reaches.
    async fn snapshot_now(&self) -> Result<u64, SequencerError>;

    /// Forgets the log up to `index`, as far as a snapshot covers it.
    async fn purge(&self, index: u64) -> Result<(), SequencerError>;

    /// Stops the replica. When it returns, the applier is dropped and its files can be opened anew.
    async fn shutdown(&self);
}

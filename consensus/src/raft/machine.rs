//! openraft's state machine over the host's applier.
//!
//! The applier is called on a blocking thread, never concurrently, and never by openraft's own
//! tasks, so heartbeats go on while a block is executed or a snapshot is made. Responders are sent
//! after the applier has returned. A failure is noted in the applier's own words and stops the group.

use std::io;
use std::sync::Arc;

use futures::future::FutureExt;
use futures::stream::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::codec;
use super::failure::Failure;
use super::snapshot::{self, Folder, Snapshots};
use super::types::{EntryPayload, LeaderId, LogId, SnapshotMeta, StoredMembership, TypeConfig, log_id, position};
use crate::port::{Applier, Committed, Fatal, Order};

/// Entries and batch bytes given to the applier in one call.
const APPLY_ENTRIES_MAX: usize = 512;
const APPLY_BYTES_MAX: usize = 16 << 20;

/// The applier, until the group is shut down.
pub(crate) struct ApplierCell {
    applier: Mutex<Option<Box<dyn Applier>>>,
    failure: Failure,
    /// What orders the entries, by the state.
    order: watch::Sender<Option<Order>>,
}

impl ApplierCell {
    pub(crate) fn new(applier: Box<dyn Applier>, failure: Failure) -> Self {
        let order = watch::Sender::new(applier.order());
        Self { applier: Mutex::new(Some(applier)), failure, order }
    }

    /// Follows what orders the entries: what a receiver shows is in the state.
    pub(crate) fn orders(&self) -> watch::Receiver<Option<Order>> {
        self.order.subscribe()
    }

    /// Calls the applier on a blocking thread.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut dyn Applier) -> Result<T, Fatal> + Send + 'static,
    ) -> io::Result<T> {
        let cell = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut held = cell.applier.lock();
            let applier = held.as_deref_mut()?;
            let result = work(&mut *applier);
            let now = applier.order();
            cell.order.send_if_modified(|last| std::mem::replace(last, now) != now);
            Some(result)
        });
        let result = match done.await {
            Ok(Some(result)) => result,
            // Not a failure to be told: the group was asked to stop.
            Ok(None) => return Err(io::Error::other("the group is shut down")),
            Err(error) => Err(Fatal(format!("the applier panicked: {error}"))),
        };
        result.map_err(|fatal| {
            self.failure.note(&fatal.0);
            io::Error::other(fatal)
        })
    }

    /// Takes the applier out, after any call that is running: what held this cell can do nothing with it any more.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Box<dyn Applier>> {
        let cell = self.clone();
        let taken = tokio::task::spawn_blocking(move || cell.applier.lock().take());
        taken.await.ok().flatten()
    }

    /// Drops the applier, after any call that is running.
    pub(crate) async fn close(self: &Arc<Self>) {
        let cell = self.clone();
        let dropped = tokio::task::spawn_blocking(move || drop(cell.applier.lock().take()));
        if let Err(error) = dropped.await {
            tracing::error!(%error, "the applier panicked when it was dropped");
        }
    }
}

/// The state machine that openraft drives.
pub(crate) struct Machine {
    pub(crate) applier: Arc<ApplierCell>,
    pub(crate) snapshots: Arc<Snapshots>,
}

/// Makes a snapshot beside the running state machine.
pub(crate) struct Builder {
    applier: Arc<ApplierCell>,
    snapshots: Arc<Snapshots>,
}

type SnapshotOf = Snapshot<LeaderId, u64, ledger::ids::NodeId, Arc<Folder>>;

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<Folder>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let snapshots = self.snapshots.clone();
        snapshot::snapshot(self.applier.run(move |applier| snapshots.build(applier)).await?)
    }
}

/// Who waits for entries, with their indexes.
type Waiting = Vec<(u64, ApplyResponder<TypeConfig>)>;

/// Takes what is ready, at least one entry.
async fn next_entries<S>(stream: &mut S) -> io::Result<(Vec<Committed>, Waiting)>
where
    S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin,
{
    let mut entries = Vec::new();
    let mut responders = Vec::new();
    let mut bytes = 0;
    let mut next = stream.next().await;
    while let Some(item) = next {
        let (entry, responder) = item?;
        if let EntryPayload::Normal(batch) = &entry.payload {
            bytes += batch.0.len();
        }
        entries.push(Committed { position: position(&entry.log_id()), payload: codec::payload(&entry), note: None });
        responders.extend(responder.map(|responder| (entry.index(), responder)));
        if entries.len() == APPLY_ENTRIES_MAX || bytes >= APPLY_BYTES_MAX {
            break;
        }
        next = stream.next().now_or_never().flatten();
    }
    Ok((entries, responders))
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Arc<Folder>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.applier.run(|applier| Ok(applier.applied())).await?;
        Ok((applied.position.as_ref().map(log_id), codec::stored_membership(&applied)?))
    }

    async fn apply<S>(&mut self, stream: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut stream = stream.fuse();
        loop {
            let (entries, responders) = next_entries(&mut stream).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let applied = self.applier.run(move |applier| {
                applier.apply(entries)?;
                Ok(applier.applied().position.map_or(0, |position| position.index))
            });
            let reached = applied.await?;
            // Behind the entry that hands over to another engine all are void: whoever waits for one hears that it is
            // lost, when its responder is dropped.
            for (_, responder) in responders.into_iter().filter(|(index, _)| *index <= reached) {
                responder.send(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { applier: self.applier.clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, folder: Arc<Folder>) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        tracing::info!(upto = ?meta.last_log_id, "installing a snapshot");
        self.applier.run(move |applier| snapshots.install(applier, &folder)).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let snapshots = self.snapshots.clone();
        let current = self.applier.run(move |applier| snapshots.current(applier)).await?;
        current.map(snapshot::snapshot).transpose()
    }
}

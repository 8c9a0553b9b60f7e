//! How shards that others are cut or joined into come to run on this node, and how those end that they come from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use ledger::ids::{GroupId, Height};
use ledger::lineage::{Origin, SealedBy};
use ledger::schema;
use router::gateway::ClusterView;
use storage::{LogStore, StorageError, WriteBatch};

use super::Hosting;
use crate::core::follow::Writes;
use crate::core::late::late_state;
use crate::server::group::GroupHandle;
use crate::server::membership;
use crate::server::seat;
use crate::server::vault::LocalSeal;
use crate::server::warm::record::{self, Record};

/// Looks at a shard that may go and lacks the certificate of its last block; then the others are taken to have it.
const WITHOUT_CERTIFICATE: u32 = 20;
/// Blocks before the last one of a shard whose certificates are asked for before it goes.
const CERTIFIED_LAST: u64 = 64;

/// How far a shard that has ended is with what it leaves to those that came of it here.
#[derive(Default)]
pub(super) struct Ending {
    /// Blocks whose certificates were asked for.
    asked: BTreeSet<Height>,
    /// Blocks whose certificates all that came of it have.
    lent: BTreeSet<Height>,
    /// Looks at it since it may go, and lacks the certificate of its last block.
    looks: u32,
}

impl Ending {
    /// The blocks whose certificates are still to be passed on, of the last ones of a shard whose blocks are these. Each look at
    /// them costs several reads, and looks are many while payers wait for what came of it.
    fn open(&self, first: Height, last: Height) -> Vec<Height> {
        let from = last.0.saturating_sub(CERTIFIED_LAST).max(first.0);
        (from..=last.0).map(Height).filter(|height| !self.lent.contains(height)).collect()
    }
}

/// Whether a shard began out of others without this node, which has joined it since or was away for long: there is nothing
/// to wait for here.
pub(super) fn is_late(view: &ClusterView, group: GroupId) -> bool {
    view.jobs.iter().flat_map(|job| &job.children).all(|child| child.group != group)
}

impl Hosting {
    /// What this node begins with in a shard that it comes to too late to make its first state.
    pub(super) fn first_of_late(&self, view: &ClusterView, group: GroupId) -> Option<Writes> {
        if !self.is_unborn(view, group) {
            return None;
        }
        let born = view.born.iter().find(|born| born.group == group)?;
        late_state(view.cluster, born, &view.layout, view.committees.get(&group)?)
    }

    /// Whether a shard begins out of others, and has no state here yet.
    pub(super) fn is_unborn(&self, view: &ClusterView, group: GroupId) -> bool {
        view.born.iter().any(|born| born.group == group) && !self.folder(group).join("state").exists()
    }

    /// Gives a shard the state that was made for it, if it is there. What takes time is the disk, and nothing else waits for it.
    pub(super) async fn settle(&self, view: &ClusterView, child: GroupId) -> bool {
        if !self.warm.is_born(child) {
            return false;
        }
        let warm = record::folder(&self.data_dir, child);
        // The seat that comes with the state is the first one. A node that has left that one already, and joins again, does
        // so under the seat that it is to have now.
        if seat::coming_join(view, child, self.node()).is_some()
            && let Err(error) = seat::forget(&warm)
        {
            self.hosted.does_not_run(child, error.code(), error.to_string());
            return false;
        }
        let (folder, began) = (self.folder(child), Instant::now());
        let settling = tokio::task::spawn_blocking(move || Record::settle(&warm, &folder));
        let settled = settling.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        if let Err(error) = &settled {
            let path = self.folder(child);
            let text =
                format!("its state cannot be put to {}: {error}; check permissions and the disk", path.display());
            self.hosted.does_not_run(child, "file_unwritable", text);
        } else {
            tracing::info!(%child, took_ms = began.elapsed().as_millis(), "the first state of a shard is its state here");
        }
        settled.is_ok()
    }

    /// A shard that has ended takes nothing any more, and goes when nobody needs it. Says whether it is gone.
    pub(super) async fn end(&self, view: &ClusterView, group: GroupId) -> bool {
        let children: Vec<GroupId> = {
            let ended = view.layout.lineage.iter().find(|entry| entry.group == group);
            ended.map(|entry| entry.successors.clone()).unwrap_or_default()
        };
        let certified = match self.hosted.group(group.0) {
            Some(handle) => self.ended(&handle, &children),
            None => false,
        };
        // The layout comes by other ways than the registry, and before it.
        let known = children.iter().all(|child| view.committees.contains_key(child) || view.layout.retired(*child));
        let under_way = view.jobs.iter().any(|job| job.kind.parents().contains(&group));
        let open = children.iter().all(|child| {
            let begun = self.hosted.groups.read().contains_key(child);
            begun || view.layout.retired(*child) || !view.takes_part(*child, self.node())
        });
        if !known || under_way || !open {
            return false;
        }
        if !certified {
            let mut ending = self.ending.lock();
            let ending = ending.entry(group).or_default();
            ending.looks += 1;
            if ending.looks < WITHOUT_CERTIFICATE {
                return false;
            }
        }
        let gone = self.leave(group).await;
        if gone {
            self.ending.lock().remove(&group);
        }
        gone
    }

    /// Ends a shard that still runs here, and gives its last certificates to what came of it. Says whether the last block's
    /// is there.
    fn ended(&self, handle: &GroupHandle, children: &[GroupId]) -> bool {
        let sealed: Option<SealedBy> = handle.share.state.load(&schema::sealed()).ok().flatten();
        handle.end(sealed.as_ref().map(|sealed| sealed.seal.job));
        let Some(SealedBy { height: last, .. }) = sealed else { return false };
        let here: Vec<_> = children.iter().filter_map(|child| self.hosted.group(child.0)).collect();
        let mut certified = true;
        // Blocks before its own first one are not its to pass on.
        let first = membership::first_block(handle).unwrap_or(last);
        let open = self.ending.lock().entry(handle.group).or_default().open(first, last);
        for height in open {
            match lend_certificate(handle, height, &here) {
                Ok(Some(all)) if all && here.len() == children.len() => {
                    self.ending.lock().entry(handle.group).or_default().lent.insert(height);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    let mut ending = self.ending.lock();
                    let ending = ending.entry(handle.group).or_default();
                    // That of the last one is asked for until it is there.
                    if ending.asked.insert(height) || height == last {
                        handle.want_certificate(height);
                    }
                    certified &= height != last;
                }
                Err(error) => {
                    tracing::warn!(group = %handle.group, %height, %error, "a certificate is not passed on");
                    certified = false;
                }
            }
        }
        certified
    }

    /// Whether the logs of the shards that one begins out of are on this node. They and its own are in the same files, so
    /// that an empty one beside them was always empty.
    pub(super) fn has_logs(&self, parents: &[GroupId]) -> bool {
        !parents.is_empty() && parents.iter().all(|group| self.has_log(*group) == Some(true))
    }

    /// Whether a shard began out of others whose logs are here, and its own is empty: this node was a member of them and
    /// away at the birth, and has promised nothing. Whoever has joined later has written to its log before it had its seat.
    pub(super) fn missed_birth(&self, view: &ClusterView, group: GroupId) -> bool {
        let born = view.born.iter().find(|born| born.group == group);
        let parents: Vec<GroupId> = born.into_iter().flat_map(|born| &born.parents).map(|end| end.group).collect();
        self.is_unborn(view, group) && self.has_logs(&parents) && self.has_log(group) == Some(false)
    }

    /// Whether there is anything in the log of a shard; `None` where it cannot be read.
    fn has_log(&self, group: GroupId) -> Option<bool> {
        let engine = self.hosted.log.read();
        let engine = engine.as_ref()?;
        let has_any = |log: &dyn LogStore| -> Result<bool, StorageError> {
            Ok(log.last()?.is_some() || log.purged_index()?.is_some())
        };
        // A Byzantine member writes down what it signs beside the entries, and no entry.
        let has_log = || -> Result<bool, StorageError> {
            let cipher = || LocalSeal::open().cipher();
            Ok(has_any(&engine.group(group.0, cipher())?)? || has_any(&engine.beside(group.0, cipher())?)?)
        };
        has_log().ok()
    }
}

/// Passes a certificate of a shard that has ended on to what came of it. Says whether all of these have it now: one whose
/// state is closed takes none. `None` when there is no certificate.
fn lend_certificate(
    handle: &GroupHandle,
    height: Height,
    children: &[Arc<GroupHandle>],
) -> Result<Option<bool>, StorageError> {
    let key = schema::certificate(height);
    let Some(certificate) = handle.share.state.db().map(|db| db.get(&key)).transpose()?.flatten() else {
        return Ok(None);
    };
    let mut all = true;
    for child in children {
        let origin: Option<Origin> = child.share.state.load(&schema::origin()).ok().flatten();
        let Some((origin, db)) = origin.zip(child.share.state.db()) else {
            all = false;
            continue;
        };
        let own = if origin.has_spine(handle.group) { key.clone() } else { schema::archived(handle.group, &key) };
        if db.get(&own)?.is_none() {
            let mut batch = WriteBatch::new();
            batch.put(own, certificate.clone());
            db.write(batch)?;
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;

//! Which groups run on this node: those in which the registry gives it a seat, as that changes.
//!
//! Starts a group when the view names this node for it, stops one that this node has left, and removes
//! what is left of it on the disk. What a group does while it runs is [`super::group`]'s.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use consensus::sequencer::Sequencer;
use ledger::ids::{GroupId, NodeId};
use parking_lot::Mutex;
use router::gateway::{ClusterView, Peers};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::server::group::{GroupError, GroupHandle, HostContext, OpenGroup, open_cipher};
use crate::server::intake::check_arrivals;
use crate::server::leaving;
use crate::server::local::Hosted;
use crate::server::membership;
use crate::server::seat;

/// Between two rounds of asking all members for a snapshot.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at groups that this node is about to leave.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Folders of groups that were left, and are being removed.
const LEFT: &str = "left-";

/// Starts and stops the groups of a node.
pub struct Hosting {
    hosted: Arc<Hosted>,
    data_dir: PathBuf,
    peers: Arc<Peers>,
    /// Groups whose files are in use here, whether or not they run: each is opened once.
    opened: Mutex<BTreeSet<GroupId>>,
}

impl Hosting {
    /// The groups below a data folder.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, data_dir: PathBuf, peers: Arc<Peers>) -> Self {
        Self { hosted, data_dir, peers, opened: Mutex::default() }
    }

    fn node(&self) -> NodeId {
        self.hosted.context.node
    }

    fn folder(&self, group: GroupId) -> PathBuf {
        self.data_dir.join(group.to_string())
    }

    /// Starts every group that this node has a seat in, and those of which it still has the files: it
    /// may not have left them yet.
    pub async fn start_all(&self, view: &ClusterView) {
        self.remove_left();
        let mut groups = seats_of(view, self.node());
        groups.extend(folders(&self.data_dir).into_iter().filter_map(|(name, folder)| {
            let group: GroupId = name.parse().ok()?;
            folder.join("state").exists().then_some(group)
        }));
        for group in groups {
            self.start(view, group).await;
        }
    }

    /// Follows the view until the node stops.
    pub async fn follow(self, mut view: watch::Receiver<Arc<ClusterView>>) {
        let stop = self.hosted.context.stop.clone();
        loop {
            let current = Arc::clone(&view.borrow_and_update());
            let leaving = self.adapt(&current).await;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN), if leaving => {}
            }
        }
    }

    /// Starts what is new and stops what was left. Returns whether there is something to leave that
    /// could not be left yet.
    async fn adapt(&self, view: &ClusterView) -> bool {
        let wanted = seats_of(view, self.node());
        for group in &wanted {
            if self.joins_anew(view, *group) {
                self.leave(*group).await;
            }
            let fresh = !self.opened.lock().contains(group);
            if fresh {
                self.start(view, *group).await;
            }
        }
        let mut waits = false;
        let opened: Vec<GroupId> = self.opened.lock().difference(&wanted).copied().collect();
        for group in opened {
            // What the registry does not know at all is not left: this view may be an old one.
            if !view.committees.contains_key(&group) {
                continue;
            }
            if leaving::may_leave(&self.peers, view, group, self.node()).await {
                self.leave(group).await;
            } else {
                waits = true;
            }
        }
        waits
    }

    /// Whether a plan asks for another replica than the one here, which an earlier plan had begun.
    fn joins_anew(&self, view: &ClusterView, group: GroupId) -> bool {
        let asked = seat::coming_join(view, group, self.node());
        let here = seat::read(&self.folder(group), group).ok().flatten();
        matches!((asked, here), (Some(asked), Some(here)) if asked != here)
    }

    async fn start(&self, view: &ClusterView, group: GroupId) {
        if !self.opened.lock().insert(group) {
            return;
        }
        let context = group_context(&self.hosted.context);
        match self.open(&context, view, group).await {
            Ok(open) if open.missing().is_some() => {
                self.hosted.context.tasks.spawn(rebuild(Arc::clone(&self.hosted), context, group, open));
            }
            Ok(open) => run_group(&self.hosted, context, group, open.start().await),
            Err((code, text)) => self.hosted.does_not_run(group, code, text),
        }
    }

    async fn open(
        &self,
        context: &HostContext,
        view: &ClusterView,
        group: GroupId,
    ) -> Result<OpenGroup, (&'static str, String)> {
        let folder = self.folder(group);
        let seat = seat::seat(view, group, self.node(), &folder).map_err(|error| (error.code(), error.to_string()))?;
        let log = {
            let engine = self.hosted.log.read();
            let engine = engine.as_ref().ok_or(("storage_closed", "the log is closed".to_owned()))?;
            engine.group(group.0, open_cipher()).map_err(|error| (error.code(), error.to_string()))?
        };
        let open = OpenGroup::open(context, group, &seat, &folder, Arc::new(log)).await;
        open.map_err(|error| (error.code(), error.to_string()))
    }

    /// Stops a group and removes it from the disk: its state, its snapshots, its log.
    async fn leave(&self, group: GroupId) {
        let handle = self.hosted.groups.write().remove(&group);
        self.hosted.failed.write().remove(&group);
        if let Some(handle) = handle {
            stop_group(&handle).await;
            let state = handle.share.state.db();
            handle.share.state.close();
            if let Some(state) = state {
                // Readers hold it for one question at a time, and nobody can get it any more.
                while Arc::strong_count(&state) > 1 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        // From the renaming on, the folder is never taken for a replica again.
        let (folder, left) = (self.folder(group), self.data_dir.join(format!("{LEFT}{group}")));
        if let Err(error) = seat::leave(&folder) {
            tracing::warn!(%group, %error, "the folder of a group that was left stays");
            return;
        }
        if let Err(error) = std::fs::rename(&folder, &left) {
            tracing::warn!(%group, path = %folder.display(), %error, "the folder of a group that was left stays");
            return;
        }
        self.remove(group, &left);
        self.opened.lock().remove(&group);
        tracing::info!(%group, "this node has left the group; its data is removed");
    }

    fn remove(&self, group: GroupId, left: &Path) {
        let dropped = match self.hosted.log.read().as_ref() {
            Some(engine) => engine.drop_group(group.0).map_err(|error| error.to_string()),
            None => Err("the log is closed".to_owned()),
        };
        let removed = dropped.and_then(|()| std::fs::remove_dir_all(left).map_err(|error| error.to_string()));
        if let Err(error) = removed {
            tracing::warn!(%group, %error, "what is left of a group is removed at the next start");
        }
    }

    /// Ends what a crash has interrupted.
    fn remove_left(&self) {
        for (name, folder) in folders(&self.data_dir) {
            if let Some(group) = name.strip_prefix(LEFT).and_then(|name| name.parse().ok()) {
                self.remove(group, &folder);
            }
        }
    }
}

/// The folders below one, by name.
fn folders(root: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

/// The groups that a node has a seat in, now or as soon as it has the state.
fn seats_of(view: &ClusterView, node: NodeId) -> BTreeSet<GroupId> {
    let known = view.committees.keys().chain(view.coming.keys()).copied();
    known.filter(|group| view.takes_part(*group, node)).collect()
}

/// A context whose tasks end with the group, or with the node.
fn group_context(node: &HostContext) -> HostContext {
    let (stop, tasks) = (node.stop.child_token(), TaskTracker::new());
    let (stopped, ending) = (stop.clone(), tasks.clone());
    node.tasks.spawn(async move {
        stopped.cancelled().await;
        ending.close();
        ending.wait().await;
    });
    HostContext { stop, tasks, ..node.clone() }
}

/// Ends a group's engine and tasks.
async fn stop_group(handle: &GroupHandle) {
    handle.stop.cancel();
    handle.raft.shutdown().await;
    handle.tasks.close();
    handle.tasks.wait().await;
}

/// Runs a group that has started, or notes why it has not.
fn run_group(
    hosted: &Arc<Hosted>,
    context: HostContext,
    group: GroupId,
    started: Result<Arc<GroupHandle>, GroupError>,
) {
    let handle = match started {
        Ok(handle) => handle,
        Err(error) => {
            context.stop.cancel();
            return hosted.does_not_run(group, error.code(), error.to_string());
        }
    };
    let (checking, stop, tasks) = (Arc::clone(&handle), context.stop.clone(), context.tasks.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = check_arrivals(context, checking) => {}
        }
    });
    let (driven, stop) = (Arc::clone(&handle), handle.stop.clone());
    let node = hosted.context.node;
    handle.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = membership::drive(node, driven) => {}
        }
    });
    let mut failed = hosted.failed.write();
    hosted.groups.write().insert(group, handle);
    failed.remove(&group);
    hosted.context.changed.notify_one();
}

/// A replica that has lost its state, and whose log does not go back to the beginning, fetches a
/// snapshot from another member and then starts. Until then `status` says what it waits for.
async fn rebuild(hosted: Arc<Hosted>, context: HostContext, group: GroupId, mut open: OpenGroup) {
    let waits = |why: &str| {
        let text = format!("this replica's state is not here; it fetches a snapshot of another replica: {why}");
        hosted.does_not_run(group, "state_missing", text);
    };
    waits("asking the others");
    let fetching = async {
        while let Err(error) = open.fetch().await {
            waits(&error.to_string());
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::select! {
        () = context.stop.cancelled() => return,
        () = fetching => {}
    }
    tracing::info!(%group, "a snapshot was fetched");
    run_group(&hosted, context, group, open.start().await);
}

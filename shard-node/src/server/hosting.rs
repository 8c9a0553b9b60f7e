//! Which groups run on this node: those in which the registry gives it a seat, as that changes.
//!
//! Starts a group when the view names this node for it, stops one that this node has left, and removes
//! what is left of it on the disk. A replica whose state is missing, or whose log is empty, is held back
//! here until the others have given it what it needs. A group that could not be opened is tried again in a while, where
//! that can help. What a group does while it runs is [`super::group`]'s.
//!
//! A shard that others were cut or joined into starts with the state that was made of theirs here ([`super::warm`]), as
//! soon as the view shows it. They go on for as long as others may need them, taking nothing: they lend their log to
//! members that are behind, and gather the certificate of their last block. They are removed once the job has ended and
//! this node runs all that came of them.

mod again;
#[cfg(test)]
mod anew_tests;
#[cfg(test)]
mod key_tests;
mod lineage;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use consensus::raft::Standing;
use consensus::sequencer::Sequencer;
use ledger::ids::{GroupId, GroupKind, NodeId};
use parking_lot::Mutex;
use router::gateway::{ClusterView, Peers};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::again::Again;
use self::lineage::{Ending, is_late};
use crate::server::group::{AdmitError, HostContext, Logs, OpenGroup, Seat};
use crate::server::intake::check_arrivals;
use crate::server::leads::Leads;
use crate::server::leaving;
use crate::server::local::Hosted;
use crate::server::membership;
use crate::server::rebuild::PARTS as STATE_PARTS;
use crate::server::replica::Known;
use crate::server::rotation::Rotation;
use crate::server::warm::Warm;
use crate::server::{origin, seat, trimming, vault};

/// Between two rounds of asking all members for a snapshot.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Between two rounds of asking the members of a group whether this replica may take part.
const ADMIT_AGAIN: Duration = Duration::from_millis(100);
/// Between two looks at groups that this node is about to leave.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks while a job is under way that this node has a part in.
const LOOK_AT_JOBS: Duration = Duration::from_millis(100);
/// Between two looks when nothing is to be expected.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);
/// Folders of groups that were left, and are being removed.
const LEFT: &str = "left-";

/// Starts and stops the groups of a node.
pub struct Hosting {
    hosted: Arc<Hosted>,
    data_dir: PathBuf,
    peers: Arc<Peers>,
    /// Groups whose files are in use here, whether or not they run, and what ends them: each is opened
    /// once.
    opened: Mutex<BTreeMap<GroupId, HostContext>>,
    /// Those of them that could not be opened, and are tried again.
    again: Mutex<Again>,
    warm: Warm,
    leads: Leads,
    rotation: Rotation,
    /// Shards that have ended and are still here.
    ending: Mutex<BTreeMap<GroupId, Ending>>,
}

/// What there is to wait for.
#[derive(Clone, Copy, Default)]
struct Waits {
    /// Something could not be opened, begun or left yet, or a key of the node is being replaced.
    leaving: bool,
    /// A job is under way.
    job: bool,
}

impl Waits {
    fn pause(self) -> Duration {
        match self {
            Self { job: true, .. } => LOOK_AT_JOBS,
            Self { leaving: true, .. } => LOOK_AGAIN,
            Self { .. } => LOOK_ANYWAY,
        }
    }
}

impl Hosting {
    /// The groups below a data folder.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, data_dir: PathBuf, peers: Arc<Peers>, rotation: Rotation) -> Self {
        let warm = Warm::new(Arc::clone(&hosted), &data_dir);
        let leads = Leads::new(Arc::clone(&hosted));
        let (opened, again, ending) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { hosted, data_dir, peers, opened, again, warm, leads, rotation, ending }
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
            // One that begins out of others starts once these run.
            if !self.is_unborn(view, group) {
                self.start(view, group).await;
            }
        }
    }

    /// Follows the view until the node stops.
    pub async fn follow(self, mut view: watch::Receiver<Arc<ClusterView>>) {
        let stop = self.hosted.context.stop.clone();
        loop {
            let current = Arc::clone(&view.borrow_and_update());
            let waits = self.adapt(&current).await;
            self.warm.report(&current);
            self.leads.follow(&current);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
                () = self.warm.bell.notified() => {}
                () = tokio::time::sleep(waits.pause()) => {}
            }
        }
    }

    /// Has the keys that the view asks for, starts what is new and stops what was left. Returns what there is to wait for.
    async fn adapt(&self, view: &ClusterView) -> Waits {
        self.adapt_at(view, Instant::now()).await
    }

    /// As [`Hosting::adapt`], at this moment of the clock by which what has failed is tried again.
    async fn adapt_at(&self, view: &ClusterView, now: Instant) -> Waits {
        // Before any group starts: one that is founded meanwhile names the node by the key that the registry has.
        let rotating = self.rotation.adapt(view).await;
        let wanted = seats_of(view, self.node());
        self.retry(|group| wanted.contains(&group), now).await;
        let mut waits = Waits { leaving: rotating, job: self.warm.adapt(view) };
        let unborn: Vec<GroupId> = wanted.iter().copied().filter(|group| self.is_unborn(view, *group)).collect();
        let settled = futures::future::join_all(unborn.iter().map(|group| self.settle(view, *group))).await;
        let unsettled = unborn.into_iter().zip(settled).filter(|(group, done)| !done && !is_late(view, *group));
        let unsettled: BTreeSet<GroupId> = unsettled.map(|(group, _)| group).collect();
        let (mut fresh, mut anew) = (Vec::new(), Vec::new());
        for group in &wanted {
            if unsettled.contains(group) {
                waits.leaving = true;
                continue;
            }
            if self.joins_anew(view, *group) {
                anew.push(*group);
            }
            if !self.opened.lock().contains_key(group) {
                fresh.push(*group);
            }
        }
        // All at once: payers wait for both halves of a shard that was cut.
        futures::future::join_all(fresh.into_iter().map(|group| self.start(view, group))).await;
        // Behind those, as others are asked, who may be slow.
        let mut emptied = Vec::new();
        for group in anew {
            if self.gives_up(view, group).await && self.leave(group).await {
                emptied.push(group);
            } else {
                waits.leaving = true;
            }
        }
        futures::future::join_all(emptied.into_iter().map(|group| self.start(view, group))).await;
        let opened: Vec<GroupId> = self.opened.lock().keys().filter(|group| !wanted.contains(group)).copied().collect();
        for group in opened {
            if view.layout.retired(group) {
                waits.leaving |= !self.end(view, group).await;
                continue;
            }
            // What the registry does not know at all is not left: this view may be an old one.
            if !view.committees.contains_key(&group) {
                continue;
            }
            if !leaving::may_leave(&self.peers, view, group, self.node()).await || !self.leave(group).await {
                waits.leaving = true;
            }
        }
        waits.leaving |= !self.again.lock().is_empty();
        waits
    }

    /// Whether a plan asks for another replica than the one here: one that an earlier plan had begun, or
    /// one that was lost.
    fn joins_anew(&self, view: &ClusterView, group: GroupId) -> bool {
        let Some(asked) = seat::coming_join(view, group, self.node()) else { return false };
        match seat::read(&self.folder(group), group).ok().flatten() {
            Some(here) => here != asked,
            None => self.opened.lock().contains_key(&group),
        }
    }

    /// Whether the replica here may make room for the one that a plan asks for. Where it has a seat it may vote and sign yet,
    /// whatever the registry says, and what it has promised goes with it: that it is counted on no more, others have to say. One
    /// that was lost has nothing to give up.
    async fn gives_up(&self, view: &ClusterView, group: GroupId) -> bool {
        let lost = matches!(seat::read(&self.folder(group), group), Ok(None));
        lost || leaving::may_begin_anew(&self.peers, view, group, self.node()).await
    }

    /// Whether a group began by an order of the beacon's, which has to be known here: no group of the genesis did, and no
    /// shard, which others were cut or joined into.
    fn was_founded(&self, group: GroupId) -> bool {
        self.hosted.context.genesis.committee(group).is_none() && group.kind() != Some(GroupKind::Shard)
    }

    async fn start(&self, view: &ClusterView, group: GroupId) {
        let missing = !view.foundations.contains_key(&group) && !origin::is_kept(&self.folder(group));
        if self.was_founded(group) && missing {
            // It is followed like the registry, and this is tried again with every news.
            let text =
                "origin_missing: how the group began is not known here yet; a node of the beacon is asked".to_owned();
            tracing::info!(%group, "{text}");
            self.hosted.failed.write().insert(group, text);
            return;
        }
        let context = group_context(&self.hosted.context);
        match self.opened.lock().entry(group) {
            Entry::Vacant(place) => drop(place.insert(context.clone())),
            Entry::Occupied(_) => return context.stop.cancel(),
        }
        let began = Instant::now();
        let mut open = match self.open(&context, view, group).await {
            Ok(open) => open,
            Err((code, text)) => return self.not_opened(group, code, text),
        };
        self.again.lock().forget(group);
        let opened_ms = began.elapsed().as_millis();
        let starting = Starting { hosted: Arc::clone(&self.hosted), context, group, view: self.peers.view() };
        let tasks = starting.context.tasks.clone();
        let parents = open.newborn_of();
        // Also one that knew so when it ended the last time: it has promised nothing since, or it would have begun.
        if open.founding().standing() != Standing::Begun && self.has_logs(&parents) {
            // Of two that are joined each may have another leader, and one has to stand for election: the left one's.
            let left = parents.first().and_then(|parent| self.hosted.group(parent.0));
            let leads = left.is_some_and(|one| one.role().leads);
            if let Err(error) = open.begin_beside(leads) {
                return self.hosted.does_not_run(group, error.code(), error.to_string());
            }
        }
        let begun = open.founding().standing() == Standing::Begun || open.follows();
        if open.missing().is_some() && begun {
            tasks.spawn(starting.rebuild(open));
        } else if begun {
            starting.run(open).await;
            if !parents.is_empty() {
                let started_ms = began.elapsed().as_millis();
                tracing::info!(%group, opened_ms, started_ms, "a shard that others were cut or joined into is started");
            }
        } else {
            self.hosted.founding.write().insert(group, open.founding());
            if open.is_alone() {
                // Nobody has to be heard, and nobody else could tell.
                starting.admit(open).await;
            } else {
                tasks.spawn(starting.admit(open));
            }
        }
    }

    async fn open(
        &self,
        context: &HostContext,
        view: &ClusterView,
        group: GroupId,
    ) -> Result<OpenGroup, (&'static str, String)> {
        let folder = self.folder(group);
        // Before the seat is noted: a replica that has begun has its key.
        let seal = context.vault.seal_of(group, &folder).map_err(|error| (error.code(), error.to_string()))?;
        let known = view.foundations.get(&group).cloned();
        let founded = match self.was_founded(group) {
            false => None,
            true => Some(origin::of(known, group, &folder, &seal).map_err(|error| (error.code(), error.to_string()))?),
        };
        let missed = self.missed_birth(view, group);
        let seat = seat::seat(view, group, self.node(), &folder, missed);
        let seat = seat.map_err(|error| (error.code(), error.to_string()))?;
        let seat = Seat { founded, ..seat };
        let logs = {
            let engine = self.hosted.log.read();
            let engine = engine.as_ref().ok_or(("storage_closed", "the log is closed".to_owned()))?;
            Logs::open(engine, group, &seal.cipher()).map_err(|error| (error.code(), error.to_string()))?
        };
        let (counted, db) = self.warm.born(group).map(|born| (born.counted, born.db)).unzip();
        let known = Known { counted, db: db.flatten(), first: self.first_of_late(view, group) };
        let open = OpenGroup::open(context, group, &seat, (&folder, seal), logs, known).await;
        open.map_err(|error| (error.code(), error.to_string()))
    }

    /// Stops a group and removes it from the disk: its local key first, without which nothing of the rest
    /// can be read, then its state, its snapshots, its log. Says whether it is gone; what could not be removed is tried again.
    async fn leave(&self, group: GroupId) -> bool {
        self.again.lock().forget(group);
        let opened = self.opened.lock().get(&group).cloned();
        if let Some(context) = opened {
            self.stop(group, &context).await;
        }
        if let Err(error) = vault::destroy(&self.folder(group)) {
            let text = format!("the node has left it, and its local key could not be removed: {error}");
            self.hosted.does_not_run(group, "channel_key_stays", text);
            return false;
        }
        // From the renaming on, the folder is never taken for a replica again.
        let (folder, left) = (self.folder(group), self.data_dir.join(format!("{LEFT}{group}")));
        if let Err(error) = seat::leave(&folder) {
            tracing::warn!(%group, %error, "the folder of a group that was left stays");
            return false;
        }
        // What an earlier removal has left there, of which the log is gone.
        let renamed = remove_folder(&left).and_then(|()| if_there(std::fs::rename(&folder, &left)));
        if let Err(error) = renamed {
            tracing::warn!(%group, path = %folder.display(), %error, "the folder of a group that was left stays");
            return false;
        }
        // While there is a log of the former replica, no other one is opened here.
        let hosted = Arc::clone(&self.hosted);
        let removing = tokio::task::spawn_blocking(move || remove(&hosted, group, &left));
        let gone = removing.await.unwrap_or(false);
        if gone {
            self.opened.lock().remove(&group);
            tracing::info!(%group, "this node has left the group; its data is removed");
        }
        gone
    }

    /// Ends a group here, whether it runs, starts or waits, and lets go of its files.
    async fn stop(&self, group: GroupId, context: &HostContext) {
        context.stop.cancel();
        let running = || self.hosted.groups.write().remove(&group);
        let mut handles = Vec::from_iter(running());
        if let Some(handle) = handles.first() {
            handle.engine.shutdown().await;
        }
        context.tasks.close();
        context.tasks.wait().await;
        // One that was just starting may run by now.
        if let Some(handle) = running() {
            handle.engine.shutdown().await;
            context.tasks.wait().await;
            handles.push(handle);
        }
        self.hosted.failed.write().remove(&group);
        self.hosted.founding.write().remove(&group);
        for handle in handles {
            let state = handle.share.state.db();
            handle.share.state.close();
            if let Some(state) = state {
                // All of it goes: nobody waits for a compaction of it, which takes its time.
                state.give_up();
                // Readers hold it for one question at a time, and nobody can get it any more.
                while Arc::strong_count(&state) > 1 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                // Closing waits for whatever is compacted just then.
                drop(tokio::task::spawn_blocking(move || drop(state)).await);
            }
        }
    }

    /// Ends what a crash has interrupted.
    fn remove_left(&self) {
        for (name, folder) in folders(&self.data_dir) {
            let Some(group) = name.strip_prefix(LEFT).and_then(|name| name.parse().ok()) else { continue };
            if !self.folder(group).exists() {
                remove(&self.hosted, group, &folder);
            } else if let Err(error) = remove_folder(&folder) {
                // The node has joined again, for which the former log had to be gone.
                tracing::warn!(%group, %error, "what is left of a group is removed at the next start");
            }
        }
    }
}

/// Removes the log and the folder of a group that was left. Says whether the log is gone.
fn remove(hosted: &Hosted, group: GroupId, left: &Path) -> bool {
    let dropped = match hosted.log.read().as_ref() {
        Some(engine) => engine.drop_group(group.0).map_err(|error| error.to_string()),
        None => Err("the log is closed".to_owned()),
    };
    if let Err(error) = dropped {
        tracing::warn!(%group, %error, "the log of a group that was left is removed at the next start");
        return false;
    }
    if let Err(error) = remove_folder(left) {
        tracing::warn!(%group, %error, "what is left of a group is removed at the next start");
    }
    true
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

/// A group whose files are open, on its way to run.
struct Starting {
    hosted: Arc<Hosted>,
    context: HostContext,
    group: GroupId,
    view: watch::Receiver<Arc<ClusterView>>,
}

impl Starting {
    fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// Runs the group, or notes why it does not.
    async fn run(self, open: OpenGroup) {
        let Self { hosted, context, group, .. } = self;
        let handle = match Box::pin(open.start()).await {
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
        let (trimmed, stop) = (Arc::clone(&handle), handle.stop.clone());
        let trimming = Arc::clone(&hosted.context.trimming);
        let member = self.view.borrow().committees.get(&group).and_then(|committee| committee.index_of(node));
        handle.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = trimming::trim(trimmed, trimming, member.unwrap_or_default()) => {}
            }
        });
        let mut failed = hosted.failed.write();
        hosted.groups.write().insert(group, handle);
        failed.remove(&group);
        hosted.context.changed.notify_one();
    }

    /// A replica that has lost its state, and whose log does not go back to the beginning, fetches a
    /// snapshot from another member and then starts. Until then `status` says what it waits for.
    async fn rebuild(self, mut open: OpenGroup) {
        let waits = |why: &str| {
            let text = format!("this replica's state is not here; it fetches a snapshot of another replica: {why}");
            self.hosted.does_not_run(self.group, "state_missing", text);
        };
        waits("asking the others");
        let fetching = async {
            while let Err(error) = open.fetch(&self.view()).await {
                waits(&error.to_string());
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = self.context.stop.cancelled() => return,
            () = fetching => {}
        }
        tracing::info!(group = %self.group, "a snapshot was fetched");
        self.run(open).await;
    }

    /// A replica whose log is empty takes part when those whom it has to ask were heard. Until then
    /// `status` says whom it waits for. One that has lost its log never takes part.
    async fn admit(self, open: OpenGroup) {
        let asking = async {
            loop {
                match open.admit(&self.view()).await {
                    Ok(()) => return true,
                    Err(error) if error.passes() => self.waits(&error),
                    Err(error) => {
                        self.hosted.does_not_run(self.group, error.code(), error.to_string());
                        return false;
                    }
                }
                tokio::time::sleep(ADMIT_AGAIN).await;
            }
        };
        let admitted = tokio::select! {
            () = self.context.stop.cancelled() => return,
            admitted = asking => admitted,
        };
        let (hosted, group) = (Arc::clone(&self.hosted), self.group);
        if admitted && open.missing().is_some() {
            self.rebuild(open).await;
        } else if admitted {
            self.run(open).await;
        }
        hosted.founding.write().remove(&group);
    }

    fn waits(&self, error: &AdmitError) {
        let reason = format!("{}: {error}", error.code());
        let before = self.hosted.failed.write().insert(self.group, reason.clone());
        if before.as_ref() != Some(&reason) {
            tracing::info!(group = %self.group, "{error}");
        }
    }
}

/// A file or folder that only a node that has run leaves in its data folder, and that is made after its log.
pub(super) fn traces(data_dir: &Path) -> Option<PathBuf> {
    let groups = folders(data_dir).into_iter().filter(|(name, _)| name.parse::<GroupId>().is_ok());
    let mut parts = groups.flat_map(|(_, folder)| STATE_PARTS.map(|part| folder.join(part)));
    parts.find(|part| part.exists())
}

/// Removes a folder, if it is there.
fn remove_folder(folder: &Path) -> std::io::Result<()> {
    if_there(std::fs::remove_dir_all(folder))
}

/// What is not there need not be dealt with.
fn if_there(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

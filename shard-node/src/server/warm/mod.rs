//! Shards that begin on this node because others are cut or joined into them (docs/elastic.md, "Nodes").
//!
//! Owns the copies of the parents' states: made while the parents go on, kept up with them block by block, and turned into
//! the first states of the children when the parents stand at their seal ([`copy`]). What a copy is and how far it is,
//! stands beside it ([`record`]). What of it the beacon is told is [`reports`]'s.
//! Never does: open a child, or end a parent. [`super::hosting`] does, by the view.
//!
//! Nothing of a parent waits for a copy. One that falls behind, or meets an error, is thrown away and made anew. One that
//! was lost with the process is made anew as well, unless it had become a first state: that is noted, behind all that makes it one.

mod aside;
mod born;
mod certified;
mod copy;
mod count;
mod pace;
mod progress;
pub mod record;
mod reports;
mod unflushed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use beacon::limits::PREPARE_MS_MAX;
use beacon::{Job, Phase};
use ledger::ids::{GroupId, JobId, NodeId, TimeMs};
use parking_lot::Mutex;
use router::gateway::ClusterView;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::aside::aside;
pub use self::born::Born;
use self::copy::{Copies, CopyError, Parent, Place};
pub use self::count::under;
use self::pace::{Pace, Steps};
use self::progress::Copied;
use self::record::Record;
use self::reports::Reports;
use self::unflushed::unflushed_max;
use crate::server::followers::{FOLLOWED_MAX, Following, ROOM_BYTES, Room};
use crate::server::group::guarded_now;
use crate::server::local::Hosted;

/// How long a thread waits for a block before it looks around.
const LOOK: Duration = Duration::from_millis(25);
/// Blocks that a copy may be behind and still count as ready.
const BEHIND_MAX: u64 = 4;
/// Blocks that are taken in one step while a copy catches up.
const BLOCKS_A_STEP: usize = 64;
/// How much later each further member begins, of a shard that has so many accounts.
const APART: Duration = Duration::from_secs(1);
const APART_FROM: u64 = 50_000;
/// Waits before a copy is made anew, the first and the longest.
const ANEW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How far the copies of a job are.
enum Stage {
    /// They are being made, or are behind.
    Making,
    /// They follow.
    Ready,
    /// They are the first states of their shards; those that nobody has asked for yet.
    Born(BTreeMap<GroupId, Born>),
}

/// The copies of one job, with the thread that keeps them.
struct Making {
    job: Job,
    /// Since when the job waits for its copies.
    since: Instant,
    room: Room,
    /// How far making them is.
    copied: Copied,
    stage: Mutex<Stage>,
    stop: CancellationToken,
    /// The thread has ended, and holds no file any more.
    ended: CancellationToken,
}

/// Everything of this kind on a node.
pub struct Warm {
    hosted: Arc<Hosted>,
    place: Place,
    /// For what parents of all jobs write while copies are made.
    room: Room,
    running: Mutex<BTreeMap<JobId, Arc<Making>>>,
    reports: Mutex<Reports>,
    /// Rings when copies have become first states.
    pub bell: Arc<Notify>,
}

impl Warm {
    /// For the groups below a data folder.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, data_dir: &Path) -> Self {
        let context = &hosted.context;
        let place = Place {
            data_dir: data_dir.to_owned(),
            resources: context.resources.clone(),
            cluster: context.genesis.cluster_id(),
            node: context.node,
        };
        let (room, running) = (Room::new(ROOM_BYTES), Mutex::default());
        Self { hosted, place, room, running, reports: Mutex::default(), bell: Arc::default() }
    }

    /// Begins and ends copies as the view has it, and removes those that nobody wants. Says whether there is any job that
    /// this node has a part in.
    pub fn adapt(&self, view: &ClusterView) -> bool {
        let wanted: Vec<&Job> = view.jobs.iter().filter(|job| self.has_part(job)).collect();
        let mut running = self.running.lock();
        for (id, making) in running.iter() {
            if wanted.iter().all(|job| job.id != *id) {
                making.stop.cancel();
            }
        }
        running.retain(|_, making| {
            let over = making.ended.is_cancelled() && making.stop.is_cancelled();
            if over {
                // What nobody has asked for is closed before its folder goes.
                *making.stage.lock() = Stage::Making;
                // What has failed about a shard that never came is nothing to look after any more.
                let mut failed = self.hosted.failed.write();
                let never = making.job.children.iter().filter(|child| !view.committees.contains_key(&child.group));
                never.for_each(|child| drop(failed.remove(&child.group)));
            }
            !over
        });
        for job in &wanted {
            if !running.contains_key(&job.id) && !self.has_all(job) {
                let members: Vec<NodeId> = view.nodes.keys().copied().collect();
                let time = guarded_now(&self.hosted.context, &members);
                running.insert(job.id, self.begin((*job).clone(), time));
            }
        }
        for (child, folder) in record::copies(&self.place.data_dir) {
            let job = Record::read(&folder).map(|record| record.job());
            let held = running.values().any(|making| making.job.children.iter().any(|of| of.group == child));
            let wanted = wanted.iter().any(|of| Some(of.id) == job);
            if !held
                && !wanted
                && let Err(error) = copy::remove(&folder)
            {
                tracing::warn!(%child, code = error.code(), "a copy that nobody wants stays: {error}");
            }
        }
        !wanted.is_empty()
    }

    /// Whether this node has a seat in all shards that end with a job, and so copies to make.
    fn has_part(&self, job: &Job) -> bool {
        let own = self.place.node;
        let copies = matches!(job.phase, Phase::Preparing | Phase::Sealing | Phase::Committed);
        let seats = job.children.iter().all(|child| child.committee.index_of(own).is_some());
        copies && !job.children.is_empty() && seats
    }

    /// Whether there is a first state here of every child.
    fn has_all(&self, job: &Job) -> bool {
        job.children.iter().all(|child| self.place.has_state(child.group) || self.is_noted(child.group))
    }

    /// Whether a copy has become the first state of its shard, and can settle.
    #[must_use]
    pub fn is_born(&self, child: GroupId) -> bool {
        !self.is_busy(child) && self.is_noted(child)
    }

    fn is_noted(&self, child: GroupId) -> bool {
        Record::read(&record::folder(&self.place.data_dir, child)).is_some_and(|record| record.is_born())
    }

    /// Whether a thread still has files of a child open.
    fn is_busy(&self, child: GroupId) -> bool {
        let running = self.running.lock();
        let of_child = |making: &&Arc<Making>| making.job.children.iter().any(|of| of.group == child);
        running.values().filter(of_child).any(|making| !making.ended.is_cancelled())
    }

    /// The first state of a child that has just become one; once.
    pub fn born(&self, child: GroupId) -> Option<Born> {
        let running = self.running.lock();
        running.values().find_map(|making| match &mut *making.stage.lock() {
            Stage::Born(born) => born.remove(&child),
            Stage::Making | Stage::Ready => None,
        })
    }

    /// Tells the beacon what it does not know yet.
    pub fn report(&self, view: &ClusterView) {
        let context = &self.hosted.context;
        let groups = self.hosted.groups.read().clone();
        let mut reports = self.reports.lock();
        let settled = reports.settled(groups.keys().copied(), tokio::time::Instant::now());
        for job in view.jobs.iter().filter(|job| self.has_part(job)) {
            for (group, said) in reports::due(job, context.node, self.ready(job), |child| settled.contains(&child)) {
                reports.say(context, view, group, said);
            }
        }
        let (mut warm, mut copied, now) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
        let mut rates = self.hosted.rates.lock();
        rates.retain(|group| groups.contains_key(&group));
        for handle in groups.values() {
            rates.look(handle.group, now, handle.share.transactions.load(Ordering::Relaxed));
            reports.load(context, view, handle);
            warm.extend(self.ready_for(handle.group).map(|job| (handle.group, job)));
            copied.extend(self.copied_of(handle.group).map(|so_far| (handle.group, so_far)));
        }
        drop(rates);
        *self.hosted.warm.write() = warm;
        *self.hosted.copied.write() = copied;
    }

    /// The job for which copies of a shard are ready here.
    fn ready_for(&self, parent: GroupId) -> Option<JobId> {
        let running = self.running.lock();
        let of_parent = |making: &&Arc<Making>| making.job.kind.parents().contains(&parent);
        let mut ready = running.values().filter(of_parent).filter(|making| making.is_ready());
        ready.next().map(|making| making.job.id)
    }

    /// How far the copies are that are made of a shard here.
    fn copied_of(&self, parent: GroupId) -> Option<(u64, u64)> {
        let running = self.running.lock();
        let of_parent = |making: &&Arc<Making>| making.job.kind.parents().contains(&parent);
        running.values().find(of_parent).map(|making| making.copied.so_far())
    }

    fn ready(&self, job: &Job) -> bool {
        let running = self.running.lock();
        running.get(&job.id).map_or_else(|| self.has_all(job), |making| making.is_ready())
    }

    /// `time` is that of most nodes, where it is known.
    fn begin(&self, job: Job, time: Option<TimeMs>) -> Arc<Making> {
        tracing::info!(job = %job.id, kind = job.kind.name(), "copies are made for a job");
        let stop = self.hosted.context.stop.child_token();
        let (since, stage) = (waits_since(job.since_ms, time, Instant::now()), Mutex::new(Stage::Making));
        let (room, copied, ended) = (self.room.clone(), Copied::default(), CancellationToken::new());
        let making = Making { job, since, room, copied, stage, stop, ended };
        let making = Arc::new(making);
        let (hosted, place, bell) = (Arc::clone(&self.hosted), self.place.clone(), Arc::clone(&self.bell));
        let keeping = Arc::clone(&making);
        self.hosted.context.tasks.spawn(async move {
            let kept = Arc::clone(&keeping);
            let failed = || {
                // What it may have said of copies that are gone with it.
                *keeping.stage.lock() = Stage::Making;
                tracing::error!(job = %keeping.job.id, "making copies has panicked; it begins anew");
            };
            until_back(&keeping.stop, move || kept.keep(&hosted, &place), failed).await;
            keeping.ended.cancel();
            bell.notify_one();
        });
        making
    }
}

/// Since when a job waits for its copies, by this node's clock. One that was down meanwhile, or makes them anew, has as little
/// time left as all others.
fn waits_since(since_ms: TimeMs, time: Option<TimeMs>, now: Instant) -> Instant {
    let waited_ms = time.map_or(0, |time| time.0.saturating_sub(since_ms.0)).min(PREPARE_MS_MAX);
    now.checked_sub(Duration::from_millis(waited_ms)).unwrap_or(now)
}

/// Does work on a thread of its own until it comes back: anew when it has panicked, less and less often, unless it is to
/// stop. Each time `failed` is told first.
async fn until_back(stop: &CancellationToken, work: impl Fn() + Send + Sync + 'static, failed: impl Fn()) {
    let work = Arc::new(work);
    let mut pause = ANEW.0;
    loop {
        let work = Arc::clone(&work);
        if tokio::task::spawn_blocking(move || (*work)()).await.is_ok() {
            return;
        }
        failed();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(ANEW.1);
    }
}

impl Making {
    fn is_ready(&self) -> bool {
        !matches!(&*self.stage.lock(), Stage::Making)
    }

    /// Makes copies and keeps them, until they are born or nobody wants them any more.
    fn keep(&self, hosted: &Hosted, place: &Place) {
        let (mut pause, mut hurries) = (ANEW.0, false);
        while !self.stop.is_cancelled() {
            let error = match self.attempt(hosted, place, hurries) {
                Ok(Some(born)) => {
                    *self.stage.lock() = Stage::Born(born);
                    return;
                }
                Ok(None) => return,
                Err(error) => error,
            };
            *self.stage.lock() = Stage::Making;
            // One that has stood back too far to keep up would do so again.
            hurries |= matches!(error, CopyError::Behind(_));
            tracing::warn!(job = %self.job.id, code = error.code(), "copies are made anew: {error}");
            if matches!(error, CopyError::Birth(_) | CopyError::Tally(_) | CopyError::Tree(..)) {
                // The parents stay as they are; somebody has to look at this node.
                for child in &self.job.children {
                    hosted.does_not_run(child.group, error.code(), error.to_string());
                }
            }
            let mut waited = Duration::ZERO;
            while waited < pause && !self.stop.is_cancelled() {
                std::thread::sleep(LOOK);
                waited += LOOK;
            }
            pause = (pause * 2).min(ANEW.1);
        }
    }

    /// How long this node lets others begin before it: the members of a shard that has many accounts do not all write and
    /// hash at once, so that there are always enough of them to go on.
    fn turn(&self, node: NodeId, parents: &[Parent]) -> Duration {
        let many = parents.iter().any(|parent| parent.share.stand.lock().accounts >= APART_FROM);
        let member = self.job.children.first().and_then(|child| child.committee.index_of(node));
        let member = member.filter(|_| many).unwrap_or_default();
        APART * u32::try_from(member).unwrap_or_default()
    }

    /// Makes copies once, behind all other work unless it `hurries`, and follows until they are born; none when it was told
    /// to stop.
    fn attempt(
        &self,
        hosted: &Hosted,
        place: &Place,
        hurries: bool,
    ) -> Result<Option<BTreeMap<GroupId, Born>>, CopyError> {
        let following = Following::new(FOLLOWED_MAX, &self.room);
        let mut parents = Vec::new();
        for (number, group) in self.job.kind.parents().into_iter().enumerate() {
            let handle = hosted.group(group.0).filter(|handle| handle.stopped().is_none());
            let share = handle.ok_or(CopyError::Parent(group))?.share.clone();
            {
                let _stand = share.stand.lock();
                share.followers.add(number, &following);
            }
            parents.push(Parent { group, share });
        }
        // At the seal payers wait, so nothing stands back once a copy is made, nor while one is made that is late for the seal.
        let lost = following.lost_elsewhere();
        let over = || lost() || self.stop.is_cancelled() || parents.iter().any(Parent::is_closed);
        // The job is the one of the beginning, and may have come further.
        let late = || parents.iter().any(Parent::is_sealed);
        let filled = following.filled_elsewhere();
        let waits = self.job.phase == Phase::Preparing && !hurries;
        let turn = self.turn(place.node, &parents);
        // The end that is followed goes along, and comes back: it is one thread's.
        let make = |following: Following| {
            let pace = Pace { since: self.since, late: &late, filled: &filled };
            let steps = if waits { Steps::paced(pace, &over) } else { Steps::in_one_go(&over) };
            let mut steps = steps.noting(&self.copied);
            steps.wait(turn);
            let mut copies = Copies::make(place, &self.job, &parents, &mut steps)?;
            catch_up(&mut copies, &parents, &following, &mut steps)?;
            Ok((copies, following))
        };
        let made = if waits { aside(|| make(following)) } else { make(following) };
        // A parent that has ended was not too fast for its copy.
        let ended = || parents.iter().find(|parent| parent.is_closed()).map(|parent| CopyError::Parent(parent.group));
        let (mut copies, following) = made.map_err(|error: CopyError| ended().unwrap_or(error))?;
        let (mut unflushed, mut flushed, mut first_end) = (0, 0, None);
        while !copies.complete(&self.job) {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            if following.lost() {
                return Err(CopyError::Behind(parents[0].group));
            }
            // One that is opened again tells others of its blocks, and not this copy.
            if let Some(error) = ended() {
                return Err(error);
            }
            match following.next(LOOK) {
                // What waits behind it is hashed together with it.
                Ok(next) => {
                    for followed in std::iter::once(next).chain(following.waiting()) {
                        copies.block(&parents, &followed)?;
                        unflushed += followed.bytes();
                    }
                    // From the first one on payers wait.
                    first_end = first_end.or_else(|| copies.has_end(&self.job).then(Instant::now));
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The end that is kept here sends nothing, and stays.
                Err(RecvTimeoutError::Disconnected) => return Err(CopyError::Behind(parents[0].group)),
            }
            if self.is_ready() {
                copies.hash();
                if unflushed >= unflushed_max(flushed) && !copies.complete(&self.job) {
                    copies.certify(&parents)?;
                    copies.flush()?;
                    flushed += std::mem::take(&mut unflushed);
                }
            } else if copies.behind(&parents) <= BEHIND_MAX {
                // So that little is left to be hashed and made durable at the seal.
                copies.hash();
                parents.iter().try_for_each(Parent::flush)?;
                copies.certify(&parents)?;
                copies.flush()?;
                unflushed = 0;
                *self.stage.lock() = Stage::Ready;
            }
        }
        let ended = Instant::now();
        let apart_ms = first_end.map_or(Duration::ZERO, |first| ended.duration_since(first)).as_millis();
        tracing::info!(job = %self.job.id, apart_ms, unflushed, "all parents of a job stand at their seals here");
        let born = copies.births(&parents)?;
        tracing::info!(job = %self.job.id, took_ms = ended.elapsed().as_millis(), "all first states of a job are here");
        Ok(Some(born))
    }
}

/// Takes what parents have written while copies were made of them.
fn catch_up(
    copies: &mut Copies,
    parents: &[Parent],
    following: &Following,
    steps: &mut Steps<'_>,
) -> Result<(), CopyError> {
    let mut taken = 0usize;
    while copies.behind(parents) > BEHIND_MAX
        && let Ok(followed) = following.next(Duration::ZERO)
    {
        copies.block(parents, &followed)?;
        taken += 1;
        if taken.is_multiple_of(BLOCKS_A_STEP) && !steps.keep_up(copies.behind(parents)) {
            return Err(CopyError::Behind(parents[followed.place].group));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn who_comes_back_into_a_job_has_as_little_time_left_as_the_others() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let waited = |time: Option<u64>| now - waits_since(TimeMs(1_000), time.map(TimeMs), now);
        assert_eq!(waited(Some(401_000)), Duration::from_secs(400));
        assert_eq!(waited(Some(u64::MAX)), Duration::from_millis(PREPARE_MS_MAX));
        // A clock that is behind, and none yet.
        assert_eq!([waited(Some(999)), waited(None)], [Duration::ZERO; 2]);
    }

    #[tokio::test]
    async fn work_that_panics_is_done_anew_until_it_comes_back_or_is_to_stop() {
        let (tries, told) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
        let stop = CancellationToken::new();
        let counted = Arc::clone(&tries);
        let work = move || assert!(counted.fetch_add(1, Ordering::Relaxed) >= 2, "it fails twice");
        let failed = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        until_back(&stop, work, failed).await;
        assert_eq!((tries.load(Ordering::Relaxed), told.load(Ordering::Relaxed)), (3, 2));
        // Whoever is told may have it stopped.
        let counted = Arc::clone(&tries);
        let work = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("it always fails");
        };
        until_back(&stop, work, || stop.cancel()).await;
        assert_eq!(tries.load(Ordering::Relaxed), 4);
    }
}

//! Meetings: entries behind which this replica makes a snapshot because another one has asked several members to, and what
//! it tells of them.
//!
//! A snapshot that a borrower takes of one member holds things that no root of a header covers (docs/adr/0003), and another
//! member can say what they are only of a state of its own behind the very same entry. Members make their snapshots at
//! different times, so the borrower names an entry that is about to come ([`super::meet`]), and each member makes one
//! there: exactly behind it, since whoever applies entries asks [`Meetings::reached`] after each.
//!
//! Owns: one entry for each node that asks, with how many snapshots it may have made, and what it was told. Counting reads
//! all of what no header covers, so it happens beside the commit loop, one at a time, and for one node no more than a tenth
//! of the time. Never does: say anything of a state that this replica has not had itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::hash::Hash32;
use ledger::ids::NodeId;
use ledger::limits::{MEETING_AHEAD_MAX, MEETING_SNAPSHOTS_MAX, MEETINGS_MAX};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::group::HandleError;
use super::machine::ApplierCell;
use super::snapshot::{Folder, Snapshots, blocking};
use super::wire::{Meet, Met};
use crate::port::{Applier, Fatal};

/// In so long a node may have [`MEETING_SNAPSHOTS_MAX`] snapshots made.
const WINDOW: Duration = Duration::from_secs(30);
/// A snapshot that nobody asks for any more is let go after this. What was counted of it is still told.
const IDLE: Duration = Duration::from_secs(60);
/// One of which nothing was counted yet is kept for longer: whoever wants it may be reading what it was lent.
const UNCOUNTED: Duration = Duration::from_secs(60 * 60);
/// Nothing is counted for a node in so many times the time that the last count for it took.
const REST_FACTOR: u32 = 9;

/// How far this replica is with what a node has asked for.
#[derive(Clone, Copy)]
enum Stage {
    Waits,
    Made,
    Counting,
    Counted(Hash32),
    Failed,
}

/// What one node has asked for.
struct Slot {
    index: u64,
    stage: Stage,
    /// The snapshot, while it may still be wanted.
    folder: Option<Arc<Folder>>,
    /// When it has last asked.
    asked: Instant,
    /// Since when its snapshots are counted, and how many were made since.
    since: Instant,
    made: u32,
    /// Nothing is hashed for it before.
    rests_until: Instant,
    /// A snapshot of its is counted, or waits for its turn to be: no other one is begun meanwhile, or one node could fill
    /// the queue that all wait in.
    counts: bool,
}

impl Slot {
    fn new(index: u64, now: Instant) -> Self {
        Self {
            index,
            stage: Stage::Waits,
            folder: None,
            asked: now,
            since: now,
            made: 0,
            rests_until: now,
            counts: false,
        }
    }

    /// Whether one more snapshot may be made for this node.
    fn may_have_one(&mut self, now: Instant) -> bool {
        if now >= self.since + WINDOW {
            (self.since, self.made) = (now, 0);
        }
        self.made < MEETING_SNAPSHOTS_MAX
    }

    /// Lets the snapshot go when nobody has asked for so long.
    fn forget(&mut self, now: Instant) {
        let uncounted = matches!(self.stage, Stage::Made);
        let kept = if uncounted { UNCOUNTED } else { IDLE };
        if self.folder.is_none() || now < self.asked + kept {
            return;
        }
        self.folder = None;
        if uncounted {
            self.stage = Stage::Failed;
        }
    }

    fn has(&mut self, folder: Arc<Folder>) {
        self.made += 1;
        self.stage = Stage::Made;
        self.folder = Some(folder);
    }

    fn wants(&mut self, index: u64, now: Instant) -> bool {
        self.index == index && matches!(self.stage, Stage::Waits) && self.may_have_one(now)
    }
}

/// What others have asked for, by node.
#[derive(Default)]
pub(crate) struct Meetings {
    slots: Mutex<BTreeMap<NodeId, Slot>>,
    /// Held while something is counted.
    pub(super) counting: Arc<tokio::sync::Mutex<()>>,
}

fn index_of(applier: &dyn Applier) -> u64 {
    applier.applied().position.map_or(0, |position| position.index)
}

impl Meetings {
    /// The state stands behind another entry: makes a snapshot if that is one that somebody waits for. To be called before
    /// the next one is applied.
    pub(crate) fn reached(&self, applier: &mut dyn Applier, snapshots: &Snapshots) -> Result<(), Fatal> {
        let (now, index) = (Instant::now(), index_of(applier));
        let wanted = {
            let mut slots = self.slots.lock();
            slots.values_mut().for_each(|slot| slot.forget(now));
            slots.values_mut().any(|slot| slot.wants(index, now))
        };
        if !wanted {
            return Ok(());
        }
        let folder = snapshots.build(applier)?;
        for slot in self.slots.lock().values_mut() {
            if slot.wants(index, now) {
                slot.has(folder.clone());
            }
        }
        Ok(())
    }

    /// The snapshot that was made for this node, which it is lent before any other one.
    pub(crate) fn folder(&self, from: NodeId) -> Option<Arc<Folder>> {
        self.slots.lock().get(&from).and_then(|slot| slot.folder.clone())
    }

    /// Notes what a node asks for, and makes the snapshot if the state stands there now. `None` when it has had as many made
    /// as it may.
    fn begin(
        &self,
        applier: &mut dyn Applier,
        snapshots: &Snapshots,
        from: NodeId,
        index: u64,
    ) -> Result<Option<Met>, Fatal> {
        let (now, at) = (Instant::now(), index_of(applier));
        if at > index {
            return Ok(Some(Met::Passed(at)));
        }
        if index - at > MEETING_AHEAD_MAX {
            return Ok(None);
        }
        {
            let mut slots = self.slots.lock();
            if slots.len() >= MEETINGS_MAX && !slots.contains_key(&from) {
                // What is being counted for a node stays known, so that it is one at a time.
                let idle = slots.iter().filter(|(_, slot)| !slot.counts);
                let Some(node) = idle.min_by_key(|(_, slot)| slot.asked).map(|(node, _)| *node) else {
                    return Ok(None);
                };
                slots.remove(&node);
            }
            let slot = slots.entry(from).or_insert_with(|| Slot::new(index, now));
            slot.asked = now;
            if slot.index != index {
                (slot.index, slot.stage, slot.folder) = (index, Stage::Waits, None);
            }
            if at < index || !matches!(slot.stage, Stage::Waits) {
                return Ok(Some(Met::Waits));
            }
            if !slot.may_have_one(now) {
                return Ok(None);
            }
        }
        let folder = snapshots.build(applier)?;
        if let Some(slot) = self.slots.lock().get_mut(&from).filter(|slot| slot.index == index) {
            slot.has(folder);
        }
        Ok(Some(Met::Waits))
    }

    /// What there is to tell a node of this entry; nothing when that has to be found out.
    fn told(self: &Arc<Self>, from: NodeId, index: u64) -> Option<Met> {
        let now = Instant::now();
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&from).filter(|slot| slot.index == index)?;
        slot.asked = now;
        match slot.stage {
            Stage::Waits => None,
            Stage::Made => {
                if now >= slot.rests_until
                    && !slot.counts
                    && let Some(folder) = slot.folder.clone()
                {
                    (slot.stage, slot.counts) = (Stage::Counting, true);
                    tokio::spawn(self.clone().count(from, index, folder));
                }
                Some(Met::Counting)
            }
            Stage::Counting => Some(Met::Counting),
            Stage::Counted(hash) => Some(Met::Counted(hash)),
            Stage::Failed => Some(Met::Failed),
        }
    }

    /// Counts what no header covers, when it is this one's turn, and unless the node has asked for another one by then.
    async fn count(self: Arc<Self>, from: NodeId, index: u64, folder: Arc<Folder>) {
        let turn = self.counting.clone().lock_owned().await;
        if let Some(slot) = self.slots.lock().get_mut(&from).filter(|slot| slot.index != index) {
            slot.counts = false;
            return;
        }
        let begun = Instant::now();
        let counted = blocking(move || folder.uncovered()).await;
        drop(turn);
        let stage = match counted {
            Ok(hash) => Stage::Counted(hash),
            Err(error) => {
                tracing::warn!(%from, index, %error, "a snapshot could not be told of");
                Stage::Failed
            }
        };
        let (now, rest) = (Instant::now(), begun.elapsed() * REST_FACTOR);
        if let Some(slot) = self.slots.lock().get_mut(&from) {
            (slot.rests_until, slot.counts) = (now + rest, false);
            if slot.index == index {
                slot.stage = stage;
            }
        }
    }
}

/// Answers a node.
pub(crate) async fn answer(
    snapshots: &Arc<Snapshots>,
    applier: &Arc<ApplierCell>,
    from: NodeId,
    meet: Meet,
) -> Result<Met, HandleError> {
    let meetings = &snapshots.meetings;
    if let Some(met) = meetings.told(from, meet.index) {
        return Ok(met);
    }
    let making = snapshots.clone();
    let begun = applier.run(move |applier| making.meetings.begin(applier, &making, from, meet.index));
    let begun = begun.await.map_err(|error| HandleError::Stopped(error.to_string()))?;
    let met =
        begun.ok_or(HandleError::LendsNone("as many were made for this node as may be, or it is too far ahead"))?;
    // One that was made just now is counted from now on.
    Ok(match met {
        Met::Waits => meetings.told(from, meet.index).unwrap_or(met),
        met => met,
    })
}

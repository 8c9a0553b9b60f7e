//! How a copy becomes the first state of its shard: durably, and then noted as such.
//!
//! Payers wait for it, so it waits for the disk as little as it may: all copies of a job at once, the note behind them is not
//! synced, and the database stays open for whoever opens the shard, where the system lets it go along when its folder is renamed.

use std::time::Instant;

use ledger::ids::GroupId;
use storage::{Kv, StateDb, WriteBatch};

use super::copy::{CopyError, OneCopy, Place, batch, file, remove};
use super::record::{self, Record};
use crate::core::birth::Birth;
use crate::core::follow::Writes;
use crate::server::replica::Counted;

/// The first state of a shard, made durable, before anybody has asked for it.
pub struct Born {
    /// What is known of its leaves.
    pub counted: Counted,
    /// Its database, where that may stay open while its folder becomes that of the shard. Nobody else opens it before this is
    /// dropped.
    pub db: Option<StateDb>,
}

impl OneCopy {
    /// Makes it the first state of its shard, durably, and then notes so beside it. Returns what comes of it; nothing where
    /// the shard has a state on this node already, and the copy goes.
    pub(super) fn become_born(
        self,
        place: &Place,
        record: &Record,
        birth: Birth,
        beside: Writes,
    ) -> Result<Option<(GroupId, Born)>, CopyError> {
        let Self { child, db, leaves, .. } = self;
        let began = Instant::now();
        let mut first = WriteBatch::new();
        for range in birth.cut {
            if let Some(end) = range.end {
                first.delete_range(range.start, end);
            }
        }
        first.append(batch(beside));
        first.append(batch(birth.writes));
        db.write(first)?;
        db.flush()?;
        let durable_ms = began.elapsed().as_millis();
        // Closed before it is noted, unless it goes along: whoever opens the shard finds it free.
        let db = db.goes_along().then_some(db);
        let folder = record::folder(&place.data_dir, child);
        if place.has_state(child) {
            drop(db);
            remove(&folder)?;
            return Ok(None);
        }
        // Behind the state, and the seat is there since the copy was begun: what is noted is whole. Payers need not wait until
        // the note is durable, too: whoever loses it has the parents, and makes the copy anew.
        record.clone().born().note(&folder).map_err(|error| file(&folder, &error))?;
        let noted_ms = began.elapsed().as_millis();
        tracing::info!(%child, durable_ms, noted_ms, "a shard that begins has its first state here");
        Ok(Some((child, Born { counted: leaves, db })))
    }
}

/// Makes several copies first states. What takes time is the disk, so all are made durable, and noted, at once.
pub(super) fn at_once(
    place: &Place,
    copies: Vec<(OneCopy, Record, Birth, Writes)>,
) -> Vec<Result<Option<(GroupId, Born)>, CopyError>> {
    std::thread::scope(|scope| {
        let run = |(copy, record, birth, late): (OneCopy, Record, Birth, Writes)| {
            scope.spawn(move || copy.become_born(place, &record, birth, late))
        };
        let running: Vec<_> = copies.into_iter().map(run).collect();
        let ended = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

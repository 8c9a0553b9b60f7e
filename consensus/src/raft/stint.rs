//! Stints: a group goes over from one engine to another, and back, and all of them keep their entries in one log.
//!
//! The entry that puts another engine in force is the last of the one before (see docs/adr/0022). The state says which
//! engine that is and behind which entry it began ([`Order`]). The slot of the vote says in which stint the replica has
//! cast its vote, so that no promise of one is taken for one of another, and so do requests. A replica enters a stint
//! once, in this order: its state is durable, the log ends with the entry that hands over, and the slot names the
//! stint. From then on it takes part. Whatever happens in between, the next start finds one of these:
//!
//! | What has reached the disk | The state says | The slot says | What the start does |
//! |---|---|---|---|
//! | the entry that hands over, in the log alone | the stint before | the stint before | runs the engine before, which applies it, or hears that others have gone on |
//! | the state with it, not yet durable: power is lost | the stint before | the stint before | the same |
//! | the state with it | the new stint | the stint before | enters it |
//! | a snapshot with it, maybe the cut, and the state is lost | the stint before | the stint before | the same as in the first line, at most from that snapshot |
//! | the log is cut behind it | the new stint | the stint before | enters it, which cuts nothing more |
//! | records of votes begun anew (Byzantine) | the new stint | the stint before | enters it; nothing was voted with them |
//! | the slot | the new stint | the new stint | takes part with what it has promised |
//! | the slot, and the state is lost | an earlier stint | the new stint | installs its own snapshot of when it entered, or fetches one of another replica |
//!
//! A replica that was away during a change has the state of an earlier stint and nobody to go on with. It hears so from
//! the first request of a later stint, or asks; then it takes decided values or a snapshot from a member, which brings it
//! behind the change. The members of both engines are the same, so those who have gone on can reach it, and no quorum of
//! the engine before is needed: whoever has applied the entry that hands over may leave at once, but for a leader, which the
//! others hear of it from.
//!
//! Whether a replica may vote in a new stint follows from the one before. One that has promised something there, and
//! remembers it, has promised nothing in this one, since its slot does not name it. One whose log is empty, or that only
//! follows because it may have forgotten what it promised, cannot say so: it may have been in this stint already. It
//! follows without a vote (`raft::follower`), and under the Byzantine engine votes again when nobody can rely on what it may
//! have forgotten (see docs/adr/0017).

use std::io;
use std::sync::Arc;

use super::codec::{self, Stint};
use super::log::Log;
use super::machine::ApplierCell;
use super::snapshot::Snapshots;
use super::types::{LeaderId, LogId, Vote, log_id};
#[cfg(doc)]
use crate::port::Order;
use crate::port::Position;

/// Leaves what was before the entry that hands over: the state with it is durable, and the log ends there.
pub(crate) async fn close(
    log: &Log,
    applier: &Arc<ApplierCell>,
    snapshots: &Arc<Snapshots>,
    after: &Position,
) -> io::Result<()> {
    let snapshots = snapshots.clone();
    applier.run(move |applier| snapshots.build(applier).map(drop)).await?;
    cut(log, after).await
}

/// Takes off what stands behind the entry that hands over, which is void, and another entry in its place, which was
/// never committed. A log that does not reach so far begins anew behind it.
pub(crate) async fn cut(log: &Log, after: &Position) -> io::Result<()> {
    let (_, last) = log.extent()?;
    let other = log.entry_id(after.index)?.is_some_and(|id| id != log_id(after));
    if other || last > Some(after.index) {
        // Raft may start once more in the stint before, from the snapshot: then it must not look for what it had
        // committed behind the end.
        log.note_committed(after)?;
        log.truncate_behind(if other { after.index.checked_sub(1) } else { Some(after.index) }).await?;
    }
    let (_, last) = log.extent()?;
    if last < Some(after.index) { log.purge_upto(&log_id(after)) } else { Ok(()) }
}

/// openraft's logs begin at index 0, or behind what was purged. One that another engine has begun begins at 1.
fn count_from_zero(log: &Log) -> io::Result<()> {
    let (Some(first), _) = log.extent()? else { return Ok(()) };
    let (Some(before), None) = (first.checked_sub(1), log.purged()?) else { return Ok(()) };
    match log.entry_id(first)? {
        Some(id) => log.purge_upto(&LogId::new(id.leader_id, before)),
        None => Ok(()),
    }
}

/// Enters a stint of raft, or goes on with it. `begun` says that this replica takes part, or has taken part. Returns
/// whether it may vote.
pub(crate) async fn enter(
    log: &Log,
    applier: &Arc<ApplierCell>,
    snapshots: &Arc<Snapshots>,
    (own_id, begun): (u64, bool),
    after: &Position,
) -> io::Result<bool> {
    let noted = log.stint()?;
    if let Some(noted) = noted.filter(|noted| noted.start == after.index) {
        return Ok(noted.votes);
    }
    if !begun || noted.is_some_and(|noted| !noted.votes) {
        return Ok(false);
    }
    close(log, applier, snapshots, after).await?;
    count_from_zero(log)?;
    // openraft must not take for committed here what an earlier stint has committed behind its end.
    log.note_committed(after)?;
    // It stands for election in a later term than that of any entry before.
    let term = log.vote()?.map_or(0, |vote| vote.leader_id.term).max(after.term);
    let vote = Vote { leader_id: LeaderId { term, node_id: own_id }, committed: false };
    let stint = Stint { start: after.index, votes: true };
    log.save_vote_durably(codec::encode_stint(&vote, stint)).await?;
    Ok(true)
}

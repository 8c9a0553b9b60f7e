//! What happens between an open log and a running machine: whether this replica may vote, and its state brought up
//! to its log.
//!
//! What the state lacks after a crash is applied from the log, judged as if a peer had sent it. The state is ahead of the
//! log only behind a snapshot of another member, where the log begins anew: an entry is applied when it is durable in the
//! log (`task::Task::apply`), so whoever has it in its state still has its value and its proof for those who have missed
//! it, whoever else falls silent. Nothing that this replica promised is in the log: that is in its records, which are
//! forgotten only when the entry that they belong to is durable in the log.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ledger::committee::{Committee, Engine};
use ledger::hash::Hash32;
use ledger::ids::ClusterId;

use super::wal::{Wal, WalError};
use super::{BftParts, Ground, chain_of, decided};
use crate::bft::{Chain, Record};
use crate::port::{AppliedState, Applier, Committed, Fatal, Position, join_of};
use crate::raft::codec::{self, Stint};
use crate::raft::found::no_vote;
use crate::raft::log::Log;
use crate::raft::machine::ApplierCell;
use crate::raft::stint;
use crate::raft::types::log_id;
use crate::raft::{Standing, StartError, vouch};

/// Read at a time when the log is applied.
const REPLAY_BYTES_MAX: usize = 8 << 20;
/// The join of a replica that is in its group since its beginning.
const FIRST_JOIN: u16 = 1;

/// What a machine starts from.
pub(super) struct Ready {
    pub(super) chain: Chain,
    pub(super) committee: Arc<Committee>,
    /// The records of its votes, and the number of the first.
    pub(super) records: (u64, Vec<Record>),
    pub(super) votes: bool,
    pub(super) wal: Wal,
    /// The last entry in the state, and the place behind it.
    pub(super) place: (u64, Option<Hash32>),
}

impl Ready {
    /// The last entry that is applied, or that this replica had begun the next one of.
    pub(super) fn reached(&self) -> u64 {
        let begun = self.records.1.iter().map(|record| record.index.saturating_sub(1)).max();
        begun.unwrap_or(0).max(self.chain.index)
    }
}

/// Where entries of the engine stand: term and leader are those of the entry that it began behind, so that
/// positions only grow.
pub(super) fn position(start: &Position, index: u64) -> Position {
    Position { term: start.term.max(1), leader: start.leader, index }
}

/// Notes where this replica stands with the engine, durably, beside the vote that raft has left.
pub(super) async fn note(log: &Log, own_id: u64, stint: Stint) -> io::Result<()> {
    let vote = log.vote()?.unwrap_or_else(|| no_vote(own_id));
    log.save_vote_durably(codec::encode_stint(&vote, stint)).await
}

/// Prepares everything.
pub(super) async fn ready(ground: &Ground, parts: &BftParts) -> Result<Ready, StartError> {
    let group = ground.config.group;
    let unusable = |error: io::Error| StartError::Storage { group, detail: error.to_string() };
    let wal = Wal::new(parts.wal.clone(), parts.cluster, group, ground.config.raft_id);
    let (votes, records) = standing(ground, parts, &wal).await?;
    install_kept(ground).await.map_err(unusable)?;
    let (applied, committee, _) = state(&ground.applier).await.map_err(unusable)?;
    let committee = committee.ok_or_else(|| unusable(io::Error::other("the state has no committee")))?;
    let (chain, committee) = if committee.engine == Engine::Bft {
        let chain = chain(parts, &applied, &committee).map_err(|detail| StartError::Storage { group, detail })?;
        catch_up(ground, parts, chain, committee).await.map_err(unusable)?
    } else {
        // The kept snapshot was the last of this engine: there is nothing to decide any more.
        (Chain::start(parts.start.index, parts.anchor, &committee), committee)
    };
    let (applied, _, place) = state(&ground.applier).await.map_err(unusable)?;
    let place = (applied.position.map_or(0, |position| position.index), place);
    Ok(Ready { chain, committee: Arc::new(committee), records, votes, wal, place })
}

/// What the state has applied, the committee that it has in force, and its place.
pub(super) type Reached = (AppliedState, Option<Committee>, Option<Hash32>);

/// Where the state stands.
pub(super) async fn state(applier: &Arc<ApplierCell>) -> io::Result<Reached> {
    applier.run(|applier| Ok((applier.applied(), applier.committee()?, vouch::place(applier)))).await
}

/// Whether the replica may vote, and what it wrote down about its votes.
///
/// It may when it did before and has its records, or when it is let to begin: by raft, whose log it has, or by the
/// founding of the group. One that joins later begins as one that may have forgotten, and members of the committee
/// that is in force then let it vote: see [`crate::bft::Admission`]. It has no seat before (the host says it is
/// ready only when this engine votes), so no committee counts on it that it does not vote in.
async fn standing(ground: &Ground, parts: &BftParts, wal: &Wal) -> Result<(bool, (u64, Vec<Record>)), StartError> {
    let group = ground.config.group;
    let unusable = |error: io::Error| StartError::Storage { group, detail: error.to_string() };
    let foul = |error: WalError| StartError::Wal { group, detail: error.to_string() };
    let (start, own_id) = (parts.start.index, ground.config.raft_id);
    let noted = ground.log.stint().map_err(unusable)?;
    let stint = noted.filter(|stint| stint.start == start);
    // One that only followed in an earlier stint may have forgotten what it promised, in this one, too.
    let forgetful = stint.is_none() && noted.is_some_and(|noted| !noted.votes);
    let kept = wal.open().map_err(foul)?;
    if stint.is_some_and(|stint| stint.votes) {
        return Ok(match kept.filter(|kept| kept.start == start) {
            Some(kept) => (true, (kept.first, kept.records)),
            None => {
                tracing::warn!(
                    %group,
                    "the records of this replica's votes were lost; it follows until the others have moved on"
                );
                (false, (1, Vec::new()))
            }
        });
    }
    let begun = ground.founding.standing() == Standing::Begun;
    let empty = ground.log.is_empty().map_err(unusable)?;
    let first_join = join_of(own_id) == FIRST_JOIN;
    if stint.is_none() && start > 0 {
        // The engine before has handed over with this entry: see `raft::stint`.
        stint::close(&ground.log, &ground.applier, &ground.snapshots, &parts.start).await.map_err(unusable)?;
    }
    let admitted = if empty { first_join } else { stint.is_none() };
    if begun && admitted && !forgetful {
        // In this order: a replica that has noted that it votes has had its mark.
        let first = wal.begin(start).await.map_err(foul)?;
        note(&ground.log, own_id, Stint { start, votes: true }).await.map_err(unusable)?;
        return Ok((true, (first, Vec::new())));
    }
    if stint.is_none() {
        // Before the log gets its first entry, which would make it look like that of a replica that has begun.
        note(&ground.log, own_id, Stint { start, votes: false }).await.map_err(unusable)?;
    }
    Ok((false, (1, Vec::new())))
}

/// A state that is behind the beginning of the log is replaced by the snapshot that this replica has kept.
async fn install_kept(ground: &Ground) -> io::Result<()> {
    let (first, last) = ground.log.extent()?;
    let Some(begins) = first.or(last.map(|last| last + 1)) else { return Ok(()) };
    let snapshots = ground.snapshots.clone();
    let install = ground.applier.run(move |applier| {
        let applied = applier.applied().position.map_or(0, |position| position.index);
        if applied + 1 >= begins || snapshots.kept().is_none_or(|kept| kept.index <= applied) {
            return Ok(());
        }
        match snapshots.current(applier)? {
            Some(folder) => snapshots.install(applier, &folder),
            None => Ok(()),
        }
    });
    install.await
}

/// Where the state stands in the order of the engine.
fn chain(parts: &BftParts, applied: &AppliedState, committee: &Committee) -> Result<Chain, String> {
    let start = parts.start.index;
    let index = applied.position.map_or(0, |position| position.index);
    if index < start {
        return Err(format!("the state ends at entry {index}, and the engine begins behind entry {start}"));
    }
    if index == start {
        return Ok(Chain::start(start, parts.anchor, committee));
    }
    let note = applied.membership.as_ref().and_then(|(_, note)| chain_of(note));
    note.filter(|chain| chain.index == index && chain.well_formed())
        .ok_or_else(|| format!("the state ends at entry {index} and does not say where that stands in the order"))
}

/// Applies what the log has behind the state.
async fn catch_up(
    ground: &Ground,
    parts: &BftParts,
    mut chain: Chain,
    mut committee: Committee,
) -> io::Result<(Chain, Committee)> {
    let (_, last) = ground.log.extent()?;
    let last = last.unwrap_or(0);
    if last < chain.index && chain.index > parts.start.index {
        ground.log.purge_upto(&log_id(&position(&parts.start, chain.index)))?;
    }
    while chain.index < last && committee.engine == Engine::Bft {
        let stored = ground.log.read_stored(chain.index + 1..last + 1, REPLAY_BYTES_MAX)?;
        if stored.is_empty() {
            return Err(io::Error::other(format!("entry {} is missing in the log", chain.index + 1)));
        }
        let (start, cluster) = (parts.start, parts.cluster);
        let so_far = (chain, committee);
        let applied = ground.applier.run(move |applier| replay(applier, &stored, so_far, start, cluster));
        (chain, committee) = applied.await?;
    }
    Ok((chain, committee))
}

fn replay(
    applier: &mut dyn Applier,
    stored: &[(u64, Bytes)],
    (mut chain, mut committee): (Chain, Committee),
    start: Position,
    cluster: ClusterId,
) -> Result<(Chain, Committee), Fatal> {
    for (index, entry) in stored {
        let wrong = |what: &str| Fatal(format!("entry {index} of the log: {what}"));
        let decided = decided::decode(*index, entry).map_err(|error| wrong(&error.to_string()))?;
        let decided = decided.ok_or_else(|| wrong("it is of another engine"))?;
        if *index != chain.index + 1 || decided.value.previous != chain.value {
            return Err(wrong("it does not follow the entry before it"));
        }
        decided.verify(cluster, &committee).map_err(|error| wrong(&error.to_string()))?;
        let value = decided.value;
        chain = chain.after(&value, value.id(), &committee);
        let (position, payload) = (position(&start, *index), value.body.payload());
        applier.apply(vec![Committed { position, payload, note: Some(chain.encode()) }])?;
        committee = applier.committee()?.ok_or_else(|| wrong("behind it the state has no committee"))?;
        if committee.engine != Engine::Bft {
            break;
        }
    }
    Ok((chain, committee))
}

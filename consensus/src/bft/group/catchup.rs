//! Catching up: what a member asks others for that has missed what was decided, and what they answer.
//!
//! A question for values that are not decided yet is answered when they are, or after a short time without any,
//! so that whoever follows hears of an entry as soon as there is one. Nothing of an answer is believed before the
//! machine has judged its signatures.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::ids::NodeId;
use ledger::limits::BATCH_BYTES_MAX;
use tokio::sync::watch;

use super::decided;
use super::places::Places;
use crate::bft::Decided;
use crate::port::any_replica;
use crate::raft::HandleError;
use crate::raft::log::Log;
use crate::raft::network::{Peer, Sender};
use crate::raft::{serve, wire};

/// So long a question waits for what is not decided yet.
const WAIT: Duration = Duration::from_millis(500);

/// A question for decided values.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct Ask {
    /// Index of the first one.
    pub(super) from: u64,
}

/// Its answer.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct Answer {
    /// The last entry that the replica has applied, or has begun the next one of.
    pub(super) reached: u64,
    /// Whether the replica votes.
    pub(super) votes: bool,
    /// What it has.
    pub(super) found: Found,
}

/// What a log has of the values that were asked for.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(super) enum Found {
    /// These, in order and without a gap, from the first that was asked for on. None when there are none yet.
    Values(Vec<Decided>),
    /// The log begins later, or the values are of another engine: only a snapshot helps.
    Purged,
}

/// How far a replica is, for those who ask. Written by its task.
pub(super) struct Progress {
    /// Index of the last entry of the log.
    pub(super) tail: watch::Sender<u64>,
    /// The last entry that is applied, or that it has begun the next one of.
    pub(super) reached: AtomicU64,
    /// Whether it votes.
    pub(super) votes: AtomicBool,
    /// The running round.
    pub(super) round: AtomicU32,
    /// Where the state has been.
    pub(super) places: Places,
}

impl Progress {
    pub(super) fn reached(&self, index: u64) {
        self.reached.fetch_max(index, Ordering::AcqRel);
    }
}

/// Answers a question out of the log.
pub(super) async fn answer(log: &Log, progress: &Progress, ask: Ask) -> Result<Answer, HandleError> {
    let mut tail = progress.tail.subscribe();
    // Whether it came or not is looked up in the log.
    drop(tokio::time::timeout(WAIT, tail.wait_for(|last| *last >= ask.from)).await);
    let found = find(log, ask.from).map_err(|error| HandleError::Stopped(error.to_string()))?;
    let (reached, votes) = (progress.reached.load(Ordering::Acquire), progress.votes.load(Ordering::Acquire));
    Ok(Answer { reached, votes, found })
}

/// Answers a question for a replica that runs another engine by now, in the stint that began behind `stint`: its log
/// still has what this engine has decided before, and so helps those who have missed it. It votes for nobody here.
pub(crate) fn decided_before(log: &Log, stint: u64, body: &[u8]) -> Result<Bytes, HandleError> {
    let ask = wire::body::<Ask>(body).map_err(serve::malformed)?;
    let found = find(log, ask.from).map_err(|error| HandleError::Stopped(error.to_string()))?;
    Ok(wire::reply(&Answer { reached: stint, votes: false, found }))
}

fn find(log: &Log, from: u64) -> io::Result<Found> {
    let (_, last) = log.extent()?;
    if last.is_none_or(|last| last < from) {
        return Ok(Found::Values(Vec::new()));
    }
    let mut values = Vec::new();
    for (index, entry) in log.read_stored(from..u64::MAX, BATCH_BYTES_MAX)? {
        if values.is_empty() && index != from {
            break;
        }
        match decided::decode(index, &entry)? {
            Some(decided) => values.push(decided),
            None => break,
        }
    }
    Ok(if values.is_empty() { Found::Purged } else { Found::Values(values) })
}

/// Asks a node once. An answer that is none is an error, like no answer.
pub(super) async fn ask(sender: Arc<Sender>, node: NodeId, from: u64) -> Result<Answer, String> {
    let peer = Peer::to(sender, any_replica(node), node);
    let request = peer.request(&Ask { from });
    let asked = peer.call::<Answer>(wire::BFT_DECIDED, request, peer.call_timeout() + WAIT).await;
    let answer = asked.map_err(|error| error.to_string())?;
    if let Found::Values(values) = &answer.found {
        let contiguous = (from..).zip(values).all(|(index, decided)| decided.value.index == index);
        if !contiguous {
            return Err("it sent other values than it was asked for".to_owned());
        }
    }
    Ok(answer)
}

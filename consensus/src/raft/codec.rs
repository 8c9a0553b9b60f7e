//! Bytes of the log: entries, votes, markers, memberships. Each starts with a version.
//!
//! An entry's index is its key in the log and not repeated in it; a batch is not copied when an
//! entry is read.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{BufMut, Bytes, BytesMut};
use ledger::ids::NodeId;
use openraft::entry::RaftEntry;

use super::types::{Batch, Entry, EntryPayload, LeaderId, LogId, Membership, StoredMembership, Vote, log_id, position};
use crate::port::{AppliedState, Payload, Position, SequencerError};

const VERSION: u8 = 1;
const ENTRY_HEAD_BYTES: usize = 18;
const TAG_BLANK: u8 = 0;
const TAG_BATCH: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;
/// An entry whose engine keeps a proof with it: the seal, behind its length, stands before the batch.
const TAG_SEALED_BLANK: u8 = 3;
const TAG_SEALED_BATCH: u8 = 4;
/// A vote with the [`Stint`] that it is of.
const VERSION_STINT: u8 = 2;

/// Bytes that are not what this program writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed raft data: {0}")]
pub(crate) struct CodecError(pub(crate) String);

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// A vote as stored and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct VoteBytes {
    term: u64,
    leader: u64,
    committed: bool,
}

impl VoteBytes {
    /// The replica whose vote or leadership this is.
    pub(crate) fn leader(&self) -> u64 {
        self.leader
    }
}

impl From<&Vote> for VoteBytes {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, leader: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VoteBytes> for Vote {
    fn from(vote: VoteBytes) -> Self {
        Self { leader_id: LeaderId { term: vote.term, node_id: vote.leader }, committed: vote.committed }
    }
}

#[derive(BorshSerialize, BorshDeserialize)]
struct MembershipBytes {
    voter_sets: Vec<Vec<u64>>,
    members: Vec<(u64, NodeId)>,
}

fn sealed<T: BorshSerialize>(value: &T) -> Bytes {
    let mut out = vec![VERSION];
    borsh::to_writer(&mut out, value).expect("writing to memory does not fail");
    out.into()
}

fn opened<T: BorshDeserialize>(what: &str, bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => T::try_from_slice(rest).map_err(|error| CodecError(format!("{what}: {error}"))),
        Some((version, _)) => Err(CodecError(format!("{what}: unknown version {version}"))),
        None => Err(CodecError(format!("{what}: empty"))),
    }
}

/// Which stint of an engine a replica is in, noted beside the vote that it has cast in it. A group that has never had
/// another engine than raft has no stints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Stint {
    /// The entry that the engine began behind.
    pub(crate) start: u64,
    /// Whether the replica votes; one that does not may have forgotten what it promised.
    pub(crate) votes: bool,
}

/// A vote for the log.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    sealed(&VoteBytes::from(vote))
}

/// Reverse of [`encode_vote`]; a stint beside the vote is passed over.
pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    match bytes.split_first() {
        Some((&VERSION_STINT, rest)) => stint(rest).map(|(vote, _)| vote.into()),
        _ => opened::<VoteBytes>("vote", bytes).map(Vote::from),
    }
}

/// A vote for the log, with the stint that the replica is in.
pub(crate) fn encode_stint(vote: &Vote, stint: Stint) -> Bytes {
    let mut out = vec![VERSION_STINT];
    borsh::to_writer(&mut out, &(VoteBytes::from(vote), stint)).expect("writing to memory does not fail");
    out.into()
}

/// The stint beside a vote.
pub(crate) fn decode_stint(bytes: &[u8]) -> Result<Option<Stint>, CodecError> {
    match bytes.split_first() {
        Some((&VERSION_STINT, rest)) => stint(rest).map(|(_, stint)| Some(stint)),
        _ => Ok(None),
    }
}

fn stint(bytes: &[u8]) -> Result<(VoteBytes, Stint), CodecError> {
    <(VoteBytes, Stint)>::try_from_slice(bytes).map_err(|error| CodecError(format!("stint: {error}")))
}

/// A log id for the log's markers; nothing is a position too.
pub(crate) fn encode_log_id(id: Option<&LogId>) -> Bytes {
    sealed(&id.map(position))
}

/// Reverse of [`encode_log_id`].
pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<Option<LogId>, CodecError> {
    Ok(opened::<Option<Position>>("log position", bytes)?.as_ref().map(log_id))
}

/// A membership for entries, snapshots and the applier.
pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    sealed(&MembershipBytes {
        voter_sets: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
        members: membership.nodes().map(|(id, node)| (*id, *node)).collect(),
    })
}

/// Reverse of [`encode_membership`].
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, CodecError> {
    let raw: MembershipBytes = opened("membership", bytes)?;
    let voter_sets: Vec<BTreeSet<u64>> = raw.voter_sets.into_iter().map(|set| set.into_iter().collect()).collect();
    let members: BTreeMap<u64, NodeId> = raw.members.into_iter().collect();
    if voter_sets.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voter_sets, members).map_err(|error| CodecError(format!("membership: {error}")))
}

/// Whether a note beside the state is a place in the order of another engine.
#[cfg(feature = "bft")]
pub(crate) fn of_another_engine(note: &[u8]) -> bool {
    crate::bft::chain_of(note).is_some()
}

/// Whether a note beside the state is a place in the order of another engine; there is none.
#[cfg(not(feature = "bft"))]
pub(crate) fn of_another_engine(_note: &[u8]) -> bool {
    false
}

/// The members that raft begins with where it takes over, by replica id and node: the note beside the state at the entry
/// that hands over to it.
///
/// # Errors
/// [`SequencerError::Refused`] when nobody or somebody twice is among them.
pub fn first_note(members: &[(u64, NodeId)]) -> Result<Vec<u8>, SequencerError> {
    let voters: BTreeSet<u64> = members.iter().map(|(id, _)| *id).collect();
    let nodes: BTreeMap<u64, NodeId> = members.iter().copied().collect();
    if voters.is_empty() || voters.len() != members.len() {
        return Err(SequencerError::Refused("a group needs members, each of them once".to_owned()));
    }
    let membership = Membership::new(vec![voters], nodes);
    membership
        .map(|membership| encode_membership(&membership).to_vec())
        .map_err(|error| SequencerError::Refused(error.to_string()))
}

pub(crate) fn stored_membership(applied: &AppliedState) -> Result<StoredMembership, CodecError> {
    match &applied.membership {
        None => Ok(StoredMembership::default()),
        Some((at, bytes)) => match decode_membership(bytes) {
            Ok(members) => Ok(StoredMembership::new(at.as_ref().map(log_id), members)),
            // The state is in the stint of another engine, and raft is about to end here.
            Err(_) if of_another_engine(bytes) => Ok(StoredMembership::default()),
            Err(error) => Err(error),
        },
    }
}

/// The port's payload of an entry.
pub(crate) fn payload(entry: &Entry) -> Payload {
    match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(batch) => Payload::Batch(batch.0.clone()),
        EntryPayload::Membership(membership) => Payload::Membership(encode_membership(membership)),
    }
}

/// Appends an entry's bytes to `out`.
pub(crate) fn write_entry(entry: &Entry, out: &mut BytesMut) {
    let id = entry.log_id();
    out.put_u8(VERSION);
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.leader_id.node_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(TAG_BLANK),
        EntryPayload::Normal(batch) => {
            out.put_u8(TAG_BATCH);
            out.put_slice(&batch.0);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(TAG_MEMBERSHIP);
            out.put_slice(&encode_membership(membership));
        }
    }
}

/// Room that an entry takes.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(batch) => batch.0.len(),
            EntryPayload::Membership(_) => 64,
        }
}

/// An entry for the log.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry_bytes(entry));
    write_entry(entry, &mut out);
    out.freeze()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Which entry these bytes are, without its payload.
pub(crate) fn decode_entry_id(index: u64, bytes: &[u8]) -> Result<LogId, CodecError> {
    if bytes.len() < ENTRY_HEAD_BYTES {
        return Err(CodecError(format!("entry {index}: only {} bytes", bytes.len())));
    }
    if bytes[0] != VERSION {
        return Err(CodecError(format!("entry {index}: unknown version {}", bytes[0])));
    }
    Ok(LogId::new(LeaderId { term: word(bytes, 1), node_id: word(bytes, 9) }, index))
}

/// Reverse of [`encode_entry`].
pub(crate) fn decode_entry(index: u64, bytes: &Bytes) -> Result<Entry, CodecError> {
    let id = decode_entry_id(index, bytes)?;
    let payload = match bytes[ENTRY_HEAD_BYTES - 1] {
        TAG_BLANK if bytes.len() == ENTRY_HEAD_BYTES => EntryPayload::Blank,
        TAG_BATCH => EntryPayload::Normal(Batch(bytes.slice(ENTRY_HEAD_BYTES..))),
        TAG_MEMBERSHIP => EntryPayload::Membership(decode_membership(&bytes[ENTRY_HEAD_BYTES..])?),
        TAG_SEALED_BLANK | TAG_SEALED_BATCH => match open_sealed(index, bytes)?.1 {
            None => EntryPayload::Blank,
            Some(batch) => EntryPayload::Normal(Batch(batch)),
        },
        tag => return Err(CodecError(format!("entry {index}: unknown kind {tag}"))),
    };
    Ok(Entry::new(id, payload))
}

/// An entry of an engine that keeps a proof with each. Read as any other, it is its batch alone.
#[cfg(feature = "bft")]
pub(crate) fn encode_sealed(at: &Position, seal: &[u8], batch: Option<&[u8]>) -> Bytes {
    let room = ENTRY_HEAD_BYTES + SEAL_LENGTH_BYTES + seal.len() + batch.map_or(0, <[u8]>::len);
    let mut out = BytesMut::with_capacity(room);
    out.put_u8(VERSION);
    out.put_u64_le(at.term);
    out.put_u64_le(at.leader);
    out.put_u8(if batch.is_some() { TAG_SEALED_BATCH } else { TAG_SEALED_BLANK });
    out.put_u32_le(seal.len() as u32);
    out.put_slice(seal);
    out.put_slice(batch.unwrap_or_default());
    out.freeze()
}

/// The seal of an entry and its batch; none for an entry without a seal.
#[cfg(feature = "bft")]
pub(crate) fn decode_sealed(index: u64, bytes: &Bytes) -> Result<Option<(Bytes, Option<Bytes>)>, CodecError> {
    decode_entry_id(index, bytes)?;
    match bytes[ENTRY_HEAD_BYTES - 1] {
        TAG_SEALED_BLANK | TAG_SEALED_BATCH => open_sealed(index, bytes).map(Some),
        _ => Ok(None),
    }
}

const SEAL_LENGTH_BYTES: usize = 4;

/// Takes apart an entry with a seal, whose head has been looked at.
fn open_sealed(index: u64, bytes: &Bytes) -> Result<(Bytes, Option<Bytes>), CodecError> {
    let cut = || CodecError(format!("entry {index}: the seal is cut off"));
    let rest = bytes.slice(ENTRY_HEAD_BYTES..);
    let length = rest.first_chunk::<SEAL_LENGTH_BYTES>().ok_or_else(cut)?;
    let end = SEAL_LENGTH_BYTES.saturating_add(u32::from_le_bytes(*length) as usize);
    if rest.len() < end {
        return Err(cut());
    }
    let (seal, batch) = (rest.slice(SEAL_LENGTH_BYTES..end), rest.slice(end..));
    match bytes[ENTRY_HEAD_BYTES - 1] {
        TAG_SEALED_BATCH => Ok((seal, Some(batch))),
        _ if batch.is_empty() => Ok((seal, None)),
        _ => Err(CodecError(format!("entry {index}: bytes behind a blank entry"))),
    }
}

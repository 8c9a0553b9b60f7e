//! Messages between the replicas of a group, as bytes. Each request is
//! `version, to, from, body`, and once the group has gone over to another engine `version, to, from, stint, body`;
//! each reply is `version, body`.
//!
//! `to` and `from` are raft ids: a replica that was rebuilt under a new id never takes a message
//! meant for its former self. Entries travel in the bytes of the log and are not copied on arrival.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ledger::hash::Hash32;
use ledger::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX};
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse};

use super::codec::{self, CodecError, VoteBytes};
use super::config::APPEND_ENTRIES_MAX;
use super::types::{LogId, TypeConfig, log_id, position};
use crate::port::{Position, SnapshotSecret};

const VERSION: u8 = 1;
/// A request with the stint that it is of.
const VERSION_STINT: u8 = 2;
const HEAD_BYTES: usize = 17;
const STINT_BYTES: usize = 8;

/// Defines the kinds of calls, so that none is missing in the list of all.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: u8 = $number;)*

        /// All kinds of calls that replicas make to each other.
        pub const CALL_KINDS: &[u8] = &[$($name),*];
    };
}

kinds! {
    APPEND = 1;
    VOTE = 2;
    PRE_VOTE = 3;
    SNAPSHOT_OFFER = 4;
    SNAPSHOT_PART = 5;
    SNAPSHOT_DONE = 6;
    TRANSFER = 7;
    SNAPSHOT_ASK = 8;
    SNAPSHOT_READ = 9;
    /// Where the replica stands in the founding of its group; an empty body.
    STANDING = 10;
    /// The latest join that the replica knows of; an empty body.
    LATEST_JOIN = 11;
    /// Messages of a Byzantine group, in order; the reply is empty.
    BFT_MESSAGES = 12;
    /// Values that a Byzantine group has decided, from an index on.
    BFT_DECIDED = 13;
    /// Which stint the replica is in; an empty body.
    STINT = 14;
    /// Where the state of a replica of a Byzantine group stood behind an entry: see [`super::vouch`].
    BFT_PLACE = 15;
    /// What the replica has applied, from an index on, for one that follows without a vote.
    ENTRIES = 16;
    /// Behind which entry to make a snapshot for the sender, and what is in it that no header covers: see
    /// [`super::meet`].
    SNAPSHOT_MEET = 17;
}

/// Whether a request means whatever replica there is on the node, and not one of a certain id: it asks
/// for what is committed, and nothing that the sender does follows from who answers. The messages of a
/// Byzantine group are of this kind too: what counts in them is signed, by a member of a committee that they
/// name, and the committee knows nodes and not replicas.
pub(crate) fn asks_any(kind: u8) -> bool {
    matches!(
        kind,
        SNAPSHOT_ASK
            | SNAPSHOT_READ
            | LATEST_JOIN
            | BFT_MESSAGES
            | BFT_DECIDED
            | STINT
            | BFT_PLACE
            | ENTRIES
            | SNAPSHOT_MEET
    )
}

/// Whether a request means the same whatever stints its sender and its receiver are in: it asks for what is final, or
/// where a replica stands. All others are of one run of one engine, and nothing to any other.
pub(crate) fn of_any_stint(kind: u8) -> bool {
    matches!(
        kind,
        SNAPSHOT_ASK | SNAPSHOT_READ | STANDING | LATEST_JOIN | BFT_DECIDED | STINT | BFT_PLACE | SNAPSHOT_MEET
    )
}

/// Whether a call asks for a snapshot, or brings one: what a host may refuse to a replica that is on its way out without
/// any harm to consensus.
#[must_use]
pub fn carries_snapshot(kind: u8) -> bool {
    matches!(kind, SNAPSHOT_OFFER | SNAPSHOT_PART | SNAPSHOT_DONE | SNAPSHOT_ASK | SNAPSHOT_READ | SNAPSHOT_MEET)
}

/// Whether a call asks for what a group has ordered: values that a Byzantine one has decided, where they have led, or
/// entries.
#[must_use]
pub fn asks_for_values(kind: u8) -> bool {
    matches!(kind, BFT_DECIDED | BFT_PLACE | ENTRIES)
}

/// Whether a call brings what a Byzantine group votes on, and the votes.
#[must_use]
pub fn brings_values(kind: u8) -> bool {
    kind == BFT_MESSAGES
}

/// Entries in one append.
pub(crate) const APPEND_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Part of a snapshot file in one request.
pub(crate) const PART_BYTES_MAX: usize = 1 << 20;
/// Files of one snapshot. At 32 MiB a table that is a terabyte of state.
pub(crate) const SNAPSHOT_FILES_MAX: usize = 32_768;
/// Bytes of what comes with a snapshot: a key.
pub(crate) const SNAPSHOT_SECRET_BYTES_MAX: usize = 64;
/// Bytes of the path of a file in a snapshot, which RocksDB and the host name.
pub(crate) const SNAPSHOT_PATH_BYTES_MAX: usize = 64;
/// What stands around the entries of an append, the data of a part or the files of an offer: heads,
/// lengths, a membership.
const FRAMING_BYTES_MAX: usize = 1 << 20;
/// No request or reply is larger; a transport must let this much through.
pub const CALL_BYTES_MAX: usize = APPEND_BYTES_MAX + FRAMING_BYTES_MAX;

const _: () = assert!(CALL_BYTES_MAX + FRAMING_BYTES_MAX <= GRPC_BYTES_MAX, "any call fits into a message");
const _: () = assert!(
    BATCH_BYTES_MAX <= APPEND_BYTES_MAX && PART_BYTES_MAX <= APPEND_BYTES_MAX,
    "any entry fits into an append, and any part into a call"
);
const _: () = assert!(
    APPEND_ENTRIES_MAX as usize * ENTRY_FRAMING_BYTES <= FRAMING_BYTES_MAX,
    "the heads of as many entries as an append takes fit beside them"
);
const _: () = assert!(
    SNAPSHOT_FILES_MAX * (SNAPSHOT_PATH_BYTES_MAX + FILE_FRAMING_BYTES) <= APPEND_BYTES_MAX,
    "an offer of the largest snapshot fits into a call"
);
/// Length, version, term, leader and kind of an entry.
const ENTRY_FRAMING_BYTES: usize = 4 + 1 + 8 + 8 + 1;
/// Lengths, size and hash of a file in an offer.
const FILE_FRAMING_BYTES: usize = 4 + 8 + 32;

/// A request on its way to one replica.
pub(crate) struct Incoming {
    pub(crate) to: u64,
    pub(crate) from: u64,
    /// The stint that its sender is in.
    pub(crate) stint: u64,
    pub(crate) body: Bytes,
}

/// Takes the head off a request.
pub(crate) fn open_request(mut payload: Bytes) -> Result<Incoming, CodecError> {
    if payload.len() < HEAD_BYTES {
        return Err(CodecError(format!("request of {} bytes", payload.len())));
    }
    match payload.get_u8() {
        VERSION => Ok(Incoming { to: payload.get_u64_le(), from: payload.get_u64_le(), stint: 0, body: payload }),
        VERSION_STINT => {
            let (to, from) = (payload.get_u64_le(), payload.get_u64_le());
            if payload.len() < STINT_BYTES {
                return Err(CodecError("the stint of a request is cut off".into()));
            }
            Ok(Incoming { to, from, stint: payload.get_u64_le(), body: payload })
        }
        version => Err(CodecError(format!("request in version {version}; this node speaks {VERSION}"))),
    }
}

/// Who sends a request to whom, and in which stint.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) to: u64,
    pub(crate) from: u64,
    pub(crate) stint: u64,
}

fn request_head(head: Head, room: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + STINT_BYTES + room);
    out.put_u8(if head.stint == 0 { VERSION } else { VERSION_STINT });
    out.put_u64_le(head.to);
    out.put_u64_le(head.from);
    if head.stint != 0 {
        out.put_u64_le(head.stint);
    }
    out
}

fn write<T: BorshSerialize>(value: &T, out: &mut BytesMut) {
    borsh::to_writer(out.writer(), value).expect("writing to memory does not fail");
}

/// A request with a borsh body.
pub(crate) fn request<T: BorshSerialize>(head: Head, body: &T) -> Bytes {
    let mut out = request_head(head, 256);
    write(body, &mut out);
    out.freeze()
}

/// The body of a request, whole.
pub(crate) fn body<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, CodecError> {
    T::try_from_slice(bytes).map_err(|error| CodecError(format!("body: {error}")))
}

/// A reply with a borsh body.
pub(crate) fn reply<T: BorshSerialize>(body: &T) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(VERSION);
    write(body, &mut out);
    out.freeze()
}

/// Reverse of [`reply`].
pub(crate) fn open_reply<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => body(rest),
        _ => Err(CodecError("reply in an unknown version".into())),
    }
}

/// Head of an append; the entries follow, each behind its length.
#[derive(BorshSerialize, BorshDeserialize)]
struct AppendHead {
    stream: u64,
    sequence: u64,
    vote: VoteBytes,
    previous: Option<Position>,
    committed: Option<Position>,
    entries: u32,
}

/// An append and its place in the sender's stream; stream 0 is unordered.
pub(crate) struct Append {
    pub(crate) stream: u64,
    pub(crate) sequence: u64,
    pub(crate) request: AppendEntriesRequest<TypeConfig>,
}

/// An append request.
pub(crate) fn append(head: Head, append: &Append) -> Bytes {
    let request = &append.request;
    let entries = request.entries.iter().map(|entry| codec::entry_bytes(entry) + 4).sum::<usize>();
    let mut out = request_head(head, 128 + entries);
    let head = AppendHead {
        stream: append.stream,
        sequence: append.sequence,
        vote: (&request.vote).into(),
        previous: request.prev_log_id.as_ref().map(position),
        committed: request.leader_commit.as_ref().map(position),
        entries: request.entries.len() as u32,
    };
    write(&head, &mut out);
    for entry in &request.entries {
        let at = out.len();
        out.put_u32_le(0);
        codec::write_entry(entry, &mut out);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    out.freeze()
}

/// Reverse of [`append`], for the body.
pub(crate) fn open_append(body: &Bytes) -> Result<Append, CodecError> {
    let mut rest = body.as_ref();
    let head = AppendHead::deserialize(&mut rest).map_err(|error| CodecError(format!("append: {error}")))?;
    let mut rest = body.slice(body.len() - rest.len()..);
    let mut index = head.previous.map_or(Some(0), |previous| previous.index.checked_add(1));
    let mut entries = Vec::with_capacity((head.entries as usize).min(rest.len() / 4));
    for _ in 0..head.entries {
        let at = index.ok_or_else(|| CodecError("append: the index space is used up".into()))?;
        let length = if rest.len() < 4 { usize::MAX } else { rest.get_u32_le() as usize };
        if rest.len() < length {
            return Err(CodecError(format!("append: entry {at} is cut off")));
        }
        entries.push(codec::decode_entry(at, &rest.split_to(length))?);
        index = at.checked_add(1);
    }
    if !rest.is_empty() {
        return Err(CodecError("append: trailing bytes".into()));
    }
    let request = AppendEntriesRequest {
        vote: head.vote.into(),
        prev_log_id: head.previous.as_ref().map(log_id),
        entries,
        leader_commit: head.committed.as_ref().map(log_id),
    };
    Ok(Append { stream: head.stream, sequence: head.sequence, request })
}

/// Last log id of an append, whose success confirms everything up to it.
pub(crate) fn append_end(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request.entries.last().map(RaftEntry::log_id).or(request.prev_log_id)
}

/// Answer to an append.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum AppendReply {
    /// The log matches the leader's up to here and is durable.
    Matched(Option<Position>),
    /// The log has nothing, or something else, at this position.
    Conflict(Position),
    /// There is a later vote.
    HigherVote(VoteBytes),
}

/// Vote and pre-vote.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct VoteCall {
    vote: VoteBytes,
    last: Option<Position>,
    transfer: bool,
}

impl VoteCall {
    /// The replica that stands for election.
    pub(crate) fn candidate(&self) -> u64 {
        self.vote.leader()
    }
}

impl From<&VoteRequest<TypeConfig>> for VoteCall {
    fn from(request: &VoteRequest<TypeConfig>) -> Self {
        let last = request.last_log_id.as_ref().map(position);
        Self { vote: (&request.vote).into(), last, transfer: request.leadership_transfer }
    }
}

impl From<VoteCall> for VoteRequest<TypeConfig> {
    fn from(call: VoteCall) -> Self {
        let mut request = Self::new(call.vote.into(), call.last.as_ref().map(log_id));
        request.leadership_transfer = call.transfer;
        request
    }
}

/// Answer to a vote or pre-vote.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct VoteReply {
    vote: VoteBytes,
    last: Option<Position>,
    granted: bool,
}

impl From<&VoteResponse<TypeConfig>> for VoteReply {
    fn from(response: &VoteResponse<TypeConfig>) -> Self {
        let last = response.last_log_id.as_ref().map(position);
        Self { vote: (&response.vote).into(), last, granted: response.vote_granted }
    }
}

impl From<VoteReply> for VoteResponse<TypeConfig> {
    fn from(reply: VoteReply) -> Self {
        Self { vote: reply.vote.into(), vote_granted: reply.granted, last_log_id: reply.last.as_ref().map(log_id) }
    }
}

/// A leader asks a voter to take over.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct TransferCall {
    from_leader: VoteBytes,
    to: u64,
    last: Option<Position>,
}

impl TransferCall {
    /// The leader that asks.
    pub(crate) fn leader(&self) -> u64 {
        self.from_leader.leader()
    }
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferCall {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self {
            from_leader: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(position),
        }
    }
}

impl From<TransferCall> for TransferLeaderRequest<TypeConfig> {
    fn from(call: TransferCall) -> Self {
        Self::new(call.from_leader.into(), call.to, call.last.as_ref().map(log_id))
    }
}

/// Answer to a [`TransferCall`].
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum TransferReply {
    /// The voter starts an election.
    Accepted,
    /// The leader that asked is not the leader any more.
    VoteChanged {
        /// The asker's.
        expected: VoteBytes,
        /// The voter's.
        actual: VoteBytes,
    },
    /// The voter's log is not durable up to the leader's.
    LogNotFlushed {
        /// The leader's last entry.
        expected: Option<Position>,
        /// The voter's.
        actual: Option<Position>,
    },
}

impl From<Result<(), TransferLeaderError<TypeConfig>>> for TransferReply {
    fn from(result: Result<(), TransferLeaderError<TypeConfig>>) -> Self {
        match result {
            Ok(()) => Self::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::VoteChanged { expected: (&expected).into(), actual: (&actual).into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Self::LogNotFlushed { expected: expected.as_ref().map(position), actual: actual.as_ref().map(position) }
            }
        }
    }
}

impl From<TransferReply> for Result<(), TransferLeaderError<TypeConfig>> {
    fn from(reply: TransferReply) -> Self {
        match reply {
            TransferReply::Accepted => Ok(()),
            TransferReply::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferReply::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.as_ref().map(log_id),
                actual: actual.as_ref().map(log_id),
            }),
        }
    }
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct FileInfo {
    /// Relative to the snapshot's folder, with `/` between components.
    pub(crate) path: String,
    /// Its length.
    pub(crate) length_bytes: u64,
    /// Its content.
    pub(crate) sha256: [u8; 32],
}

/// What a snapshot is and consists of. Its hash names the transfer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Manifest {
    pub(crate) position: Option<Position>,
    pub(crate) membership_at: Option<Position>,
    pub(crate) membership: Vec<u8>,
    pub(crate) files: Vec<FileInfo>,
}

/// Announces a snapshot.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct Offer {
    pub(crate) vote: VoteBytes,
    pub(crate) manifest: Manifest,
    /// What the receiver needs to read the files.
    pub(crate) secret: SnapshotSecret,
}

/// How much of each file of an offered snapshot is there already.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum OfferReply {
    /// Go on from these offsets.
    Have(Vec<u64>),
    /// All of it is applied already; the receiver's vote.
    NotNeeded(VoteBytes),
    /// There is a later vote.
    HigherVote(VoteBytes),
}

/// A piece of a file.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct Part {
    pub(crate) snapshot: [u8; 32],
    pub(crate) file: u32,
    pub(crate) offset_bytes: u64,
    pub(crate) data: Bytes,
}

/// Answer to a [`Part`]: where the file ends now.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum PartReply {
    /// Send from here.
    Continue(u64),
    /// This snapshot is not being received; offer it again.
    Unknown,
}

/// A replica without a state asks for a snapshot that reaches this index at least.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct Ask {
    pub(crate) at_least: u64,
}

/// Answer to an [`Ask`].
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum AskReply {
    /// It may be read now, with this.
    Lent(Manifest, SnapshotSecret),
    /// This replica has not got so far itself.
    Behind,
}

/// A replica of a Byzantine group wants snapshots of several members that stand behind one and the same entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Meet {
    /// Index of the entry.
    pub(crate) index: u64,
}

/// Answer to a [`Meet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Met {
    /// This replica is behind another entry already, this one, and has no snapshot of that one.
    Passed(u64),
    /// It makes one when it gets there.
    Waits,
    /// It has one, and is hashing what no header covers.
    Counting,
    /// The hash of what is in it that no header covers ([`crate::port::Packer::uncovered`]).
    Counted(Hash32),
    /// It has one, and could not read it.
    Failed,
}

/// Reads from a file of a lent snapshot.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct Read {
    pub(crate) snapshot: [u8; 32],
    pub(crate) file: u32,
    pub(crate) offset_bytes: u64,
}

/// Answer to a [`Read`].
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum ReadReply {
    /// What stands there, [`PART_BYTES_MAX`] at most.
    Data(Bytes),
    /// This snapshot is not lent any more; ask again.
    Unknown,
}

/// All files are sent.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct Done {
    pub(crate) vote: VoteBytes,
    pub(crate) snapshot: [u8; 32],
}

/// Answer to a [`Done`].
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum DoneReply {
    /// Installed, or not needed; the receiver's vote.
    Installed(VoteBytes),
    /// Files did not verify and were dropped, or nothing is being received; offer it again.
    Again(String),
}

//! What a member has written down before it voted, as bytes: each record says whose it is and which one, so that
//! another replica's are told from its own, and altered ones from what was written.
//!
//! The mark of the last purge names the start of the engine that the records belong to. A replica that votes has
//! one always; where there is none, whatever it wrote was lost.
//!
//! What others were caught at lies beside the records, in the slot of the vote, which this log has no other use for.

use std::sync::Arc;

use borsh::BorshDeserialize;
use bytes::{BufMut, Bytes, BytesMut};
use ledger::ballot::Equivocation;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId};
use storage::{LogStore, StorageError};
use tokio::sync::oneshot;

use crate::bft::Record;

const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + 2 * HASH_BYTES;

/// Why records are not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WalError {
    /// Written by another replica, or by one of another group or cluster.
    #[error("{0} is of another replica, group or cluster")]
    Foreign(String),
    /// Not what was written.
    #[error("{0} is not what was written: {1}")]
    Damaged(String, String),
    /// The store has failed.
    #[error("{code}: {0}", code = .0.code())]
    Storage(StorageError),
}

impl From<StorageError> for WalError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The records of one replica.
#[derive(Clone)]
pub(super) struct Wal {
    store: Arc<dyn LogStore>,
    owner: Hash32,
}

/// What was written down and not forgotten.
pub(super) struct Kept {
    /// The entry that the engine began behind.
    pub(super) start: u64,
    /// Number of the first record.
    pub(super) first: u64,
    /// The records.
    pub(super) records: Vec<Record>,
}

/// What a frame is for: its hash is another one for each.
#[derive(Clone, Copy)]
enum Frame {
    Record,
    Mark,
    Caught,
}

impl Frame {
    const fn tag(self) -> &'static [u8] {
        match self {
            Self::Record => b"seamark/bft-wal/record/v1",
            Self::Mark => b"seamark/bft-wal/mark/v1",
            Self::Caught => b"seamark/bft-wal/caught/v1",
        }
    }

    fn name(self, number: u64) -> String {
        match self {
            Self::Record => format!("record {number}"),
            Self::Mark => format!("the mark behind record {number}"),
            Self::Caught => "the list of proofs of double votes".to_owned(),
        }
    }
}

impl Wal {
    pub(super) fn new(store: Arc<dyn LogStore>, cluster: ClusterId, group: GroupId, replica: u64) -> Self {
        let parts: [&[u8]; 3] = [&cluster.0.0, &group.0.to_le_bytes(), &replica.to_le_bytes()];
        Self { store, owner: tagged(b"seamark/bft-wal/owner/v1", &parts) }
    }

    fn seal(&self, frame: Frame, number: u64, body: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + body.len());
        out.put_u8(VERSION);
        out.put_slice(&self.owner.0);
        out.put_slice(&self.hash(frame, number, body).0);
        out.put_slice(body);
        out.freeze()
    }

    fn hash(&self, frame: Frame, number: u64, body: &[u8]) -> Hash32 {
        tagged(frame.tag(), &[&self.owner.0, &number.to_le_bytes(), body])
    }

    fn open_frame<T: BorshDeserialize>(&self, frame: Frame, number: u64, bytes: &Bytes) -> Result<T, WalError> {
        let damaged = |what: &str| WalError::Damaged(frame.name(number), what.to_owned());
        if bytes.len() < HEAD_BYTES {
            return Err(damaged("it is cut off"));
        }
        if bytes[0] != VERSION {
            return Err(damaged(&format!("its version is {}, and this program writes {VERSION}", bytes[0])));
        }
        let (owner, rest) = bytes[1..].split_at(HASH_BYTES);
        let (hash, body) = rest.split_at(HASH_BYTES);
        if owner != self.owner.0 {
            return Err(WalError::Foreign(frame.name(number)));
        }
        if hash != self.hash(frame, number, body).0 {
            return Err(damaged("its hash is another one"));
        }
        T::try_from_slice(body).map_err(|error| damaged(&error.to_string()))
    }

    fn mark(&self, number: u64, start: u64) -> Bytes {
        self.seal(Frame::Mark, number, &start.to_le_bytes())
    }

    /// Reads everything; `None` when nothing was ever written.
    pub(super) fn open(&self) -> Result<Option<Kept>, WalError> {
        let found = self.store.read(0..u64::MAX, usize::MAX)?;
        let (Some(mark), Some(purged)) = (self.store.purged()?, self.store.purged_index()?) else {
            return match found.first() {
                None => Ok(None),
                Some((number, _)) => {
                    Err(WalError::Damaged(Frame::Record.name(*number), "nothing was marked before it".to_owned()))
                }
            };
        };
        let start = self.open_frame::<u64>(Frame::Mark, purged, &mark)?;
        let mut records = Vec::with_capacity(found.len());
        for (expected, (number, bytes)) in (purged + 1..).zip(&found) {
            if *number != expected {
                return Err(WalError::Damaged(Frame::Record.name(expected), "it is missing".to_owned()));
            }
            records.push(self.open_frame(Frame::Record, *number, bytes)?);
        }
        Ok(Some(Kept { start, first: purged + 1, records }))
    }

    /// Begins anew, durably: what was written before is forgotten. Returns the number of the next record.
    pub(super) async fn begin(&self, start: u64) -> Result<u64, WalError> {
        let last = self.store.last()?.map(|(number, _)| number);
        let upto = last.max(self.store.purged_index()?).unwrap_or(0);
        let (done, wait) = oneshot::channel();
        // A receiver that is gone does not care any more.
        self.store.purge_upto(upto, self.mark(upto, start), Box::new(move |result| drop(done.send(result))));
        match wait.await {
            Ok(result) => result?,
            Err(_) => {
                return Err(WalError::Damaged(Frame::Mark.name(upto), "the log was closed meanwhile".to_owned()));
            }
        }
        Ok(upto + 1)
    }

    /// Writes records, numbered from `first` on; `done` runs when they are durable, or can no longer become so.
    pub(super) fn append(
        &self,
        first: u64,
        records: &[Record],
        done: impl FnOnce(Result<(), StorageError>) + Send + 'static,
    ) {
        let framed = (first..).zip(records).map(|(number, record)| {
            let body = borsh::to_vec(record).expect("writing to memory does not fail");
            (number, self.seal(Frame::Record, number, &body))
        });
        self.store.append(framed.collect(), Box::new(done));
    }

    /// The proofs that were kept last.
    pub(super) fn caught(&self) -> Result<Vec<Equivocation>, WalError> {
        match self.store.read_vote()? {
            Some(bytes) => self.open_frame(Frame::Caught, 0, &bytes),
            None => Ok(Vec::new()),
        }
    }

    /// Keeps these proofs in the place of those before; `done` runs when they are durable, or can no longer become so.
    pub(super) fn save_caught(
        &self,
        proofs: &[Equivocation],
        done: impl FnOnce(Result<(), StorageError>) + Send + 'static,
    ) {
        let body = borsh::to_vec(proofs).expect("writing to memory does not fail");
        self.store.save_vote(self.seal(Frame::Caught, 0, &body), Box::new(done));
    }

    /// Forgets the records up to this number.
    pub(super) fn forget(&self, upto: u64, start: u64, done: impl FnOnce(Result<(), StorageError>) + Send + 'static) {
        self.store.purge_upto(upto, self.mark(upto, start), Box::new(done));
    }
}

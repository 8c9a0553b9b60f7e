//! Entries as they are sequenced: commands and a time stamp, no height and no parent.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::hash::{Hash32, tagged};
use ledger::ids::TimeMs;
use ledger::limits::{BATCH_BYTES_MAX, BATCH_TXS_MAX};

/// Version written into new entries.
pub const ENTRY_VERSION: u8 = 1;

/// One command of an entry. Variants are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Command {
    /// A client's signed transaction, as received.
    Tx(Vec<u8>) = 0,
    /// A bundle of mail from another group: borsh of `cross_shard::Bundle`.
    Deliver(Vec<u8>) = 1,
    /// A proof of a peer's cursor: borsh of `cross_shard::AckProof`.
    Ack(Vec<u8>) = 2,
    /// A group's checkpoint for the beacon: borsh of `ledger::Certificate`.
    Checkpoint(Vec<u8>) = 3,
    /// A change of the beacon's registry: borsh of its signed command.
    Registry(Vec<u8>) = 4,
    /// An act of a channel's governance: borsh of `channel::SignedCommand`.
    Channel(Vec<u8>) = 5,
    /// A prepared committee can take over: borsh of `beacon::Readiness`.
    Ready(Vec<u8>) = 6,
    /// A proof that a member of a committee has voted twice: borsh of `ledger::Equivocation`.
    Evidence(Vec<u8>) = 7,
    /// A node's word on a job or on its load, for the beacon: borsh of `beacon::jobs::JobReport`.
    Report(Vec<u8>) = 8,
    /// A shard's proof that it is sealed, for the beacon: borsh of `beacon::jobs::SealedProof`.
    Sealed(Vec<u8>) = 9,
    /// A node's report on whom it does not hear of, for the beacon: borsh of `beacon::Silence`.
    Silence(Vec<u8>) = 10,
    /// What a member of the beacon gives to the seed of an epoch: borsh of `beacon::Contribution`.
    Contribution(Vec<u8>) = 12,
    /// Headers of a group, or a proof against one or against a replica, for the beacon's audit: borsh of
    /// `beacon::AuditEntry`.
    Audit(Vec<u8>) = 13,
}

impl Command {
    /// Encoded size, to keep batches within their limit.
    #[must_use]
    pub fn size(&self) -> usize {
        let (Self::Tx(bytes)
        | Self::Deliver(bytes)
        | Self::Ack(bytes)
        | Self::Checkpoint(bytes)
        | Self::Registry(bytes)
        | Self::Channel(bytes)
        | Self::Ready(bytes)
        | Self::Evidence(bytes)
        | Self::Report(bytes)
        | Self::Sealed(bytes)
        | Self::Silence(bytes)
        | Self::Contribution(bytes)
        | Self::Audit(bytes)) = self;
        bytes.len() + 5
    }

    /// Hash below the header's `batch_root`.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let (kind, bytes) = match self {
            Self::Tx(bytes) => (0u8, bytes),
            Self::Deliver(bytes) => (1, bytes),
            Self::Ack(bytes) => (2, bytes),
            Self::Checkpoint(bytes) => (3, bytes),
            Self::Registry(bytes) => (4, bytes),
            Self::Channel(bytes) => (5, bytes),
            Self::Ready(bytes) => (6, bytes),
            Self::Evidence(bytes) => (7, bytes),
            Self::Report(bytes) => (8, bytes),
            Self::Sealed(bytes) => (9, bytes),
            Self::Silence(bytes) => (10, bytes),
            Self::Contribution(bytes) => (12, bytes),
            Self::Audit(bytes) => (13, bytes),
        };
        tagged(b"seamark/entry/v1", &[&[kind], bytes])
    }
}

/// A batch as a leader proposes it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    /// Format version, [`ENTRY_VERSION`].
    pub version: u8,
    /// The leader's guarded clock; the machine uses `max(stamp, previous + 1)`.
    pub stamp_ms: TimeMs,
    /// What to apply, in order.
    pub commands: Vec<Command>,
}

impl Entry {
    /// Encodes for the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes what must be an entry: in this version, within its limits, and with nothing behind it.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > BATCH_BYTES_MAX {
            return None;
        }
        let entry: Self = borsh::from_slice(bytes).ok()?;
        (entry.version == ENTRY_VERSION && entry.commands.len() <= 2 * BATCH_TXS_MAX).then_some(entry)
    }

    /// Decodes what stands in the log. A committed entry that is not decodable is an empty one on
    /// every replica alike: a leader that proposes garbage gets an empty block.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or(Self { version: ENTRY_VERSION, stamp_ms: TimeMs(0), commands: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_in_the_log_is_an_empty_entry_everywhere() {
        assert!(Entry::decode(b"garbage").commands.is_empty());
        let entry = Entry {
            version: ENTRY_VERSION,
            stamp_ms: TimeMs(5),
            commands: vec![Command::Tx(vec![1, 2, 3]), Command::Ack(vec![])],
        };
        assert_eq!(Entry::decode(&entry.encode()), entry);
        let mut longer = entry.encode();
        longer.push(0);
        assert!(Entry::decode(&longer).commands.is_empty());
        assert_eq!((Entry::read(&longer), Entry::read(&entry.encode())), (None, Some(entry)));
    }
}

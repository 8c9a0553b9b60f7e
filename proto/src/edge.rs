//! The edge: from bytes and numbers of the wire to ledger types, with errors that say what was
//! wrong, and back.

use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::{Address, AssetId, GroupId, Hash32, Height, Reject, TxId};

use crate::v1;

/// A message that is well-formed protobuf but not what the field means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// A field of fixed length has another one.
    #[error("{field} has {found} bytes, expected {expected}")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// Bytes that are no canonical encoding of what the field holds.
    #[error("{field} does not decode: {cause}")]
    Decode {
        /// The field.
        field: &'static str,
        /// What the decoder said.
        cause: String,
    },
    /// A number that is out of its range.
    #[error("{field} is {found}, which is no valid value")]
    Number {
        /// The field.
        field: &'static str,
        /// The number.
        found: u64,
    },
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
}

impl EdgeError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "wire_length",
            Self::Decode { .. } => "wire_decode",
            Self::Number { .. } => "wire_number",
            Self::Missing { .. } => "wire_missing",
        }
    }
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], EdgeError> {
    bytes.try_into().map_err(|_| EdgeError::Length { field, expected: N, found: bytes.len() })
}

/// Takes 32 bytes as a hash.
///
/// # Errors
/// [`EdgeError::Length`].
pub fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash32, EdgeError> {
    fixed(field, bytes).map(Hash32)
}

/// Takes 32 bytes as a transaction id.
///
/// # Errors
/// [`EdgeError::Length`].
pub fn txid(field: &'static str, bytes: &[u8]) -> Result<TxId, EdgeError> {
    hash(field, bytes).map(TxId)
}

/// Takes 20 bytes as an address.
///
/// # Errors
/// [`EdgeError::Length`].
pub fn address(field: &'static str, bytes: &[u8]) -> Result<Address, EdgeError> {
    fixed(field, bytes).map(Address)
}

/// Takes 16 bytes as an asset id.
///
/// # Errors
/// [`EdgeError::Length`].
pub fn asset(field: &'static str, bytes: &[u8]) -> Result<AssetId, EdgeError> {
    fixed(field, bytes).map(AssetId)
}

/// Takes a number as a group of a known kind.
///
/// # Errors
/// [`EdgeError::Number`].
pub fn group(field: &'static str, number: u64) -> Result<GroupId, EdgeError> {
    let group = GroupId(number);
    if group.kind().is_some() { Ok(group) } else { Err(EdgeError::Number { field, found: number }) }
}

/// Decodes a canonical value; trailing bytes are refused.
///
/// # Errors
/// [`EdgeError::Decode`].
pub fn value<T: BorshDeserialize>(field: &'static str, bytes: &[u8]) -> Result<T, EdgeError> {
    borsh::from_slice(bytes).map_err(|error| EdgeError::Decode { field, cause: error.to_string() })
}

/// The bytes of an id, for the wire.
#[must_use]
pub fn bytes_of(id: &TxId) -> Bytes {
    Bytes::copy_from_slice(&id.0.0)
}

impl v1::Refusal {
    /// A refusal for this reason.
    #[must_use]
    pub fn of(reject: Reject) -> Self {
        Self {
            number: u32::from(reject.number()),
            code: reject.code().to_owned(),
            detail: String::new(),
            retry_after_ms: 0,
            leader_node: 0,
            tx_hash: Bytes::new(),
        }
    }

    /// Adds what happened in this case.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, delay_ms: u32) -> Self {
        self.retry_after_ms = delay_ms;
        self
    }

    /// Adds which bytes were refused: other witnesses over the same body may fare better.
    #[must_use]
    pub fn of_bytes(mut self, tx: &[u8]) -> Self {
        self.tx_hash = Bytes::copy_from_slice(&ledger::hash::sha256(tx).0);
        self
    }

    /// The reason, if this version knows it.
    #[must_use]
    pub fn reject(&self) -> Option<Reject> {
        u16::try_from(self.number).ok().and_then(Reject::from_number)
    }
}

impl v1::QueryReply {
    /// An answer that says why there is none.
    #[must_use]
    pub fn refused(refusal: v1::Refusal) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }
}

impl v1::Vote {
    /// A group's vote: yes, or no for a reason.
    #[must_use]
    pub fn of(group: GroupId, reason: Option<Reject>, height: Option<Height>) -> Self {
        Self {
            group: group.0,
            yes: reason.is_none(),
            reason: reason.map_or(0, |reason| u32::from(reason.number())),
            height: height.map_or(0, |height| height.0),
        }
    }

    /// Why it is a no; `None` for a yes. A reason that this version does not know is `aborted`.
    #[must_use]
    pub fn reject(&self) -> Option<Reject> {
        let known = u16::try_from(self.reason).ok().and_then(Reject::from_number);
        (!self.yes).then(|| known.unwrap_or(Reject::Aborted))
    }
}

impl v1::SubmitEvent {
    fn of(txid: Bytes, event: v1::submit_event::Event) -> Self {
        Self { txid, event: Some(event), group: 0 }
    }

    /// Adds which group says so.
    #[must_use]
    pub fn by(mut self, group: GroupId) -> Self {
        self.group = group.0;
        self
    }

    /// The event that a transaction was refused.
    #[must_use]
    pub fn refused(txid: Bytes, refusal: v1::Refusal) -> Self {
        Self::of(txid, v1::submit_event::Event::Refusal(refusal))
    }

    /// The event that a transaction has its receipt, encoded.
    #[must_use]
    pub fn receipt(txid: Bytes, receipt: Bytes) -> Self {
        Self::of(txid, v1::submit_event::Event::Receipt(receipt))
    }

    /// The event that a group voted on a transaction.
    #[must_use]
    pub fn vote(txid: Bytes, vote: v1::Vote) -> Self {
        Self::of(txid, v1::submit_event::Event::Vote(vote))
    }

    /// The event that votes have decided a transaction.
    #[must_use]
    pub fn decided(txid: Bytes, votes: Vec<v1::Vote>) -> Self {
        Self::of(txid, v1::submit_event::Event::Decided(v1::Votes { votes }))
    }

    /// The event that a group votes on a transaction once another group has.
    #[must_use]
    pub fn waits(txid: Bytes) -> Self {
        Self::of(txid, v1::submit_event::Event::Waits(true))
    }

    /// The event that all credits of a transaction have been applied.
    #[must_use]
    pub fn applied(txid: Bytes) -> Self {
        Self::of(txid, v1::submit_event::Event::Applied(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_are_checked() {
        assert!(hash("x", &[0; 32]).is_ok());
        let short = hash("root", &[0; 31]).unwrap_err();
        assert_eq!(short.code(), "wire_length");
        assert_eq!(short.to_string(), "root has 31 bytes, expected 32");
        assert!(address("x", &[0; 21]).is_err());
        assert!(asset("x", &[]).is_err());
        assert_eq!(group("g", GroupId::shard(3).0), Ok(GroupId::shard(3)));
        assert_eq!(group("g", 7).unwrap_err().code(), "wire_number");
        assert_eq!(value::<u32>("v", &[0; 5]).unwrap_err().code(), "wire_decode");
    }

    #[test]
    fn refusals_carry_their_reason() {
        let refusal = v1::Refusal::of(Reject::Busy).retry_after_ms(20).detail("full");
        assert_eq!(refusal.reject(), Some(Reject::Busy));
        assert_eq!(refusal.code, "busy");
        assert_eq!(v1::Refusal { number: 70_000, ..refusal }.reject(), None);
    }
}

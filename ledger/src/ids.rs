//! Identifiers and units. Every id is a type of its own, so that a height can never be passed for
//! an index nor a node for an organisation.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::{Hash32, tagged};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
                 BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// A consortium member.
    OrgId(u16)
);
number!(
    /// One `seamark node` process of one organisation.
    NodeId(u32)
);
number!(
    /// Position of a block in the chain of one group; the genesis block is 0.
    Height(u64)
);
number!(
    /// Milliseconds since the Unix epoch, as stamped into blocks.
    TimeMs(u64)
);
number!(
    /// Milliseconds of a node-local monotonic clock. Drives timers, never state.
    Tick(u64)
);
number!(
    /// Committee generation of a group.
    Epoch(u64)
);
number!(
    /// Bumped when a group is rebuilt; part of everything its replicas sign.
    Incarnation(u32)
);
number!(
    /// Version of the prefix tree that says which shard owns which accounts.
    LayoutVersion(u64)
);

/// Names a change of the layout, or of a shard's seats: a split, a merge or a move. Counts up and is never given
/// twice. Shown as `job-N`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let bad = || IdError::Job(s.to_owned());
        let number = s.strip_prefix("job-").ok_or_else(bad)?;
        let job = Self(number.parse().map_err(|_| bad())?);
        // One name for each job: no sign, no leading zeros.
        if job.to_string() == s { Ok(job) } else { Err(bad()) }
    }
}

impl Height {
    /// The height after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The three kinds of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// The one group that assigns nodes and keeps the layout.
    Beacon,
    /// A group that owns a bit-prefix of the main ledger.
    Shard,
    /// A private ledger of its own.
    Channel,
}

/// One hash chain, one consensus instance, one state. The kind is in the top byte.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GroupId(pub u64);

const KIND_SHIFT: u32 = 56;

impl GroupId {
    /// The beacon group. There is one.
    pub const BEACON: Self = Self(1 << KIND_SHIFT);

    /// The shard with this ordinal. Ordinals are never reused.
    #[must_use]
    pub const fn shard(ordinal: u32) -> Self {
        Self((2 << KIND_SHIFT) | ordinal as u64)
    }

    /// The channel with this ordinal.
    #[must_use]
    pub const fn channel(ordinal: u32) -> Self {
        Self((3 << KIND_SHIFT) | ordinal as u64)
    }

    /// The kind, or `None` for a number that no group can have.
    #[must_use]
    pub const fn kind(self) -> Option<GroupKind> {
        match self.0 >> KIND_SHIFT {
            1 => Some(GroupKind::Beacon),
            2 => Some(GroupKind::Shard),
            3 => Some(GroupKind::Channel),
            _ => None,
        }
    }

    /// The account space that the group serves, all of it or a part; `None` for a number that no
    /// group can have.
    #[must_use]
    pub const fn ledger(self) -> Option<LedgerId> {
        match self.kind() {
            Some(GroupKind::Beacon) => Some(LedgerId::BEACON),
            Some(GroupKind::Shard) => Some(LedgerId::MAIN),
            Some(GroupKind::Channel) => Some(LedgerId::of_channel(self)),
            None => None,
        }
    }

    /// The number within its kind.
    #[must_use]
    pub const fn ordinal(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(GroupKind::Beacon) => f.write_str("beacon"),
            Some(GroupKind::Shard) => write!(f, "shard-{}", self.ordinal()),
            Some(GroupKind::Channel) => write!(f, "channel-{}", self.ordinal()),
            None => write!(f, "group-{:#x}", self.0),
        }
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for GroupId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let bad = || IdError::Group(s.to_owned());
        if s == "beacon" {
            return Ok(Self::BEACON);
        }
        let (kind, number) = s.rsplit_once('-').ok_or_else(bad)?;
        let ordinal: u32 = number.parse().map_err(|_| bad())?;
        let group = match kind {
            "shard" => Self::shard(ordinal),
            "channel" => Self::channel(ordinal),
            _ => return Err(bad()),
        };
        // One name for each group: no sign, no leading zeros.
        if group.to_string() == s { Ok(group) } else { Err(bad()) }
    }
}

/// An account space: the main ledger (cut into shards), the beacon's own registry, or a channel.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LedgerId(pub u64);

impl LedgerId {
    /// The ledger that is cut into shards.
    pub const MAIN: Self = Self(0);
    /// The registry kept by the beacon: asset definitions and cluster membership.
    pub const BEACON: Self = Self(1 << KIND_SHIFT);

    /// The ledger of a channel.
    #[must_use]
    pub const fn of_channel(group: GroupId) -> Self {
        Self(group.0)
    }
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
                 BorshSerialize, BorshDeserialize)]
        pub struct $name(pub Hash32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Hash32::from_str(s).map($name)
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_id!(
    /// Hash of the genesis file; part of everything that is signed.
    ClusterId
);
hash_id!(
    /// `sha256("seamark/tx/v1" ‖ cluster ‖ body)`: the idempotency key of a transaction.
    TxId
);
hash_id!(
    /// Names a hash-lock, see [`crate::lock`].
    LockId
);

/// Twenty bytes that name an account: `sha256("seamark/addr/v1" ‖ initial authorisation)[..20]`.
/// Shown as bech32m with prefix `sm` (BIP-350).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Address(pub [u8; 20]);

const ADDRESS_PREFIX: bech32::Hrp = bech32::Hrp::parse_unchecked("sm");

impl Address {
    /// The first 32 bytes of every state key that belongs to this account.
    #[must_use]
    pub fn partition(&self) -> Hash32 {
        tagged(b"acct", &[&self.0])
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<bech32::Bech32m>(ADDRESS_PREFIX, &self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let bad = || IdError::Address(s.to_owned());
        let parsed = bech32::primitives::decode::CheckedHrpstring::new::<bech32::Bech32m>(s).map_err(|_| bad())?;
        if parsed.hrp() != ADDRESS_PREFIX {
            return Err(bad());
        }
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        let address = Self(bytes.try_into().map_err(|_| bad())?);
        // Twenty bytes are 32 symbols without padding; a 33rd would be dropped unseen.
        if address.to_string().len() == s.len() { Ok(address) } else { Err(bad()) }
    }
}

/// Names an asset: `sha256("seamark/asset/v1" ‖ issuer ‖ symbol)[..16]`, shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct AssetId(pub [u8; 16]);

impl AssetId {
    /// The id of the asset that `issuer` issues under `symbol`.
    #[must_use]
    pub fn derive(issuer: &Address, symbol: &str) -> Self {
        let hash = tagged(b"seamark/asset/v1", &[&issuer.0, symbol.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.0[..16]);
        Self(id)
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AssetId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let mut id = [0; 16];
        hex::decode_to_slice(s, &mut id).map_err(|_| IdError::Asset(s.to_owned()))?;
        Ok(Self(id))
    }
}

macro_rules! text_serde {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_serde!(Address, AssetId);

/// A text that is no id of the kind it was taken for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `sm1…` in bech32m over 20 bytes.
    #[error("'{0}' is no account address: expected bech32m with prefix sm; check for a typing error")]
    Address(String),
    /// Not 64 hex digits.
    #[error("'{0}' is no hash: expected 64 hex digits")]
    Hash(String),
    /// Not 32 hex digits.
    #[error("'{0}' is no asset id: expected 32 hex digits")]
    Asset(String),
    /// Not `beacon`, `shard-N` or `channel-N`.
    #[error("'{0}' is no group: expected beacon, shard-N or channel-N")]
    Group(String),
    /// Not `job-N`.
    #[error("'{0}' is no job: expected job-N; look at 'seamark shard status'")]
    Job(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_text_and_refuse_typing_errors() {
        let address = Address([7; 20]);
        let text = address.to_string();
        assert!(text.starts_with("sm1"));
        assert_eq!(text.parse::<Address>(), Ok(address));
        let mut wrong = text.into_bytes();
        wrong[8] = if wrong[8] == b'q' { b'p' } else { b'q' };
        let wrong = String::from_utf8(wrong).expect("ASCII");
        assert!(wrong.parse::<Address>().is_err());
    }

    #[test]
    fn an_address_has_no_second_text_with_a_valid_checksum() {
        use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
        let text = |extra: Option<bech32::Fe32>| -> String {
            let symbols = [7u8; 20].iter().copied().bytes_to_fes().chain(extra);
            symbols.with_checksum::<bech32::Bech32m>(&ADDRESS_PREFIX).chars().collect()
        };
        assert_eq!(text(None).parse::<Address>(), Ok(Address([7; 20])));
        assert!(text(Some(bech32::Fe32::Q)).parse::<Address>().is_err());
    }

    #[test]
    fn groups_survive_text() {
        for group in [GroupId::BEACON, GroupId::shard(3), GroupId::channel(9)] {
            assert_eq!(group.to_string().parse::<GroupId>(), Ok(group));
        }
        for wrong in ["shard-", "shard-+3", "shard-03", "shard-4294967296", "Shard-3", "beacon-0", ""] {
            assert!(wrong.parse::<GroupId>().is_err(), "{wrong}");
        }
        assert_eq!(GroupId(0).kind(), None);
    }

    #[test]
    fn jobs_survive_text() {
        for job in [JobId(0), JobId(7), JobId(u64::MAX)] {
            assert_eq!(job.to_string().parse::<JobId>(), Ok(job));
        }
        for wrong in ["job-", "job-+3", "job-03", "job--1", "Job-3", "3", ""] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
    }
}

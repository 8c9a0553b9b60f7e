//! Records and grants: a notarised hash under its owner's account, and who may have access to what
//! it stands for.
//!
//! The ledger keeps no document and serves none. It proves that the owner recorded a hash at a time,
//! and whom the owner has given which access; whoever keeps the document asks [`access`]. All of it
//! are leaves under the owner's partition, nothing is ever taken away, and every list is bounded.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::Hash32;
use crate::ids::{Address, OrgId, TimeMs, TxId};
use crate::limits::SCOPE_BYTES_MAX;
use crate::schema;
use crate::view::View;

/// A notarised hash. Never changes, but for the count of those it was granted to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    /// Format version, 1.
    pub version: u8,
    /// What the owner says about it; at most [`crate::limits::RECORD_METADATA_BYTES_MAX`] bytes.
    pub metadata: Vec<u8>,
    /// Time of the block that recorded it.
    pub at_ms: TimeMs,
    /// The transaction that did.
    pub txid: TxId,
    /// Parties that it was ever granted to; at most [`crate::limits::GRANTEES_MAX`].
    pub grantees: u32,
}

/// Who can be granted access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Grantee {
    /// Whoever signs for this account.
    Account(Address),
    /// Whoever an organisation's authority vouches for. Shards do not know the registry, so an
    /// organisation that does not exist can be named, and nobody is it.
    Org(OrgId),
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GrantTerms {
    /// To do what: a word that owner and keeper of the document agree on, see [`scope_well_formed`].
    pub scope: String,
    /// Access ends before this block time; `None` lasts until it is revoked.
    pub until_ms: Option<TimeMs>,
}

/// One change of what a party may do.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GrantChange {
    /// Time of the block.
    pub at_ms: TimeMs,
    /// The transaction.
    pub txid: TxId,
    /// Granted from then on, in place of what was granted before; `None` revokes.
    pub terms: Option<GrantTerms>,
}

/// All that one party was ever granted of one record. One leaf, so that its proof, or the proof of
/// its absence, answers every question about that party.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GrantLog {
    /// Format version, 1.
    pub version: u8,
    /// Oldest first; at most [`crate::limits::GRANT_CHANGES_MAX`], of which the last can only be a
    /// revocation.
    pub changes: Vec<GrantChange>,
}

impl Default for GrantLog {
    fn default() -> Self {
        Self { version: 1, changes: Vec::new() }
    }
}

impl GrantLog {
    /// Whether there is something to revoke.
    #[must_use]
    pub fn granted(&self) -> bool {
        self.changes.last().is_some_and(|change| change.terms.is_some())
    }
}

/// What a party may do with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything: it is the owner's.
    Owner,
    /// What was granted.
    Granted(GrantTerms),
    /// Nothing any more: the grant has ended.
    Expired(GrantTerms),
    /// Nothing any more: revoked at this time.
    Revoked(TimeMs),
    /// Nothing: it was not granted.
    Never,
    /// There is no such record of this owner, or was not yet.
    NoRecord,
}

impl Access {
    /// Whether there is any.
    #[must_use]
    pub fn allowed(&self) -> bool {
        match self {
            Self::Owner | Self::Granted(_) => true,
            Self::Expired(_) | Self::Revoked(_) | Self::Never | Self::NoRecord => false,
        }
    }
}

/// Whether a scope is 1 to [`SCOPE_BYTES_MAX`] lower-case letters, digits, `-`, `.`, `:`, `/` or `_`:
/// one spelling for each, so that keepers can compare bytes.
#[must_use]
pub fn scope_well_formed(scope: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:/_".contains(&byte);
    (1..=SCOPE_BYTES_MAX).contains(&scope.len()) && scope.bytes().all(plain)
}

/// What `who` may do with a record at a time, as far as the state behind the view knows. Of two
/// changes in one block the later one counts. A caller that is both an account and of an
/// organisation asks twice.
pub fn access(view: &mut View<'_>, owner: &Address, record: &Hash32, who: &Grantee, at: TimeMs) -> Access {
    let known: Option<Record> = view.load(&schema::record(owner, record));
    if known.is_none_or(|record| record.at_ms > at) {
        return Access::NoRecord;
    }
    if *who == Grantee::Account(*owner) {
        return Access::Owner;
    }
    let log: GrantLog = view.load(&schema::grant(owner, record, who)).unwrap_or_default();
    let last = log.changes.into_iter().rev().find(|change| change.at_ms <= at);
    match last {
        None => Access::Never,
        Some(GrantChange { at_ms, terms: None, .. }) => Access::Revoked(at_ms),
        Some(GrantChange { terms: Some(terms), .. }) => {
            if terms.until_ms.is_some_and(|until| at >= until) {
                Access::Expired(terms)
            } else {
                Access::Granted(terms)
            }
        }
    }
}

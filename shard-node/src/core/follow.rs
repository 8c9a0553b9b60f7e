//! What of a parent's keys belongs to the copy that a shard begins with.
//!
//! A node makes the copy while the parent goes on: all of its keys once, as they stand, and from then on what each block
//! writes. Both go through [`follow`], so that a copy which was kept warm and one that is made at the seal hold the same.
//! What [`crate::core::birth::birth`] writes comes on top. Never reads a clock or a disk: the host moves the bytes.

use bytes::Bytes;
use ledger::ids::{GroupId, Height};
use ledger::layout::BitPrefix;
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::{ReadFault, StateReader};

use crate::core::tally::covers;

/// Keys to write, and to delete.
pub type Writes = Vec<(Vec<u8>, Option<Bytes>)>;

/// What a parent is to the child.
pub enum Side<'a> {
    /// It is cut, and the child owns what lies under this prefix.
    Half(BitPrefix),
    /// The left one of two that are joined.
    Left,
    /// The right one of two that are joined.
    Right(Right<'a>),
}

/// The right one of two parents, and what decides what of it has a place beside the left one's.
pub struct Right<'a> {
    /// The right parent.
    pub group: GroupId,
    /// How it began.
    pub origin: Option<&'a Origin>,
    /// How the left parent began.
    pub left_origin: Option<&'a Origin>,
    /// State of the left parent, at the block that the copy has of it or a later one.
    pub left: &'a dyn StateReader,
}

impl Right<'_> {
    /// Whose block stands under the right parent's plain key of a height.
    fn chain_at(&self, height: Height) -> GroupId {
        self.origin.and_then(|origin| origin.on_spine(height)).unwrap_or(self.group)
    }

    /// Whether the left parent has inherited the chain of a group, too.
    fn known_left(&self, chain: GroupId) -> bool {
        self.left_origin.is_some_and(|origin| {
            origin.has_spine(chain) || origin.archived.iter().any(|segment| segment.group == chain)
        })
    }

    /// Where the copy keeps one of its keys; `None` where it has no place there, or birth writes it.
    fn place(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(match key.first() {
            Some(&(schema::STATE | schema::HISTORY)) => Some(key.to_vec()),
            // The left one's counts where both have it, and it comes whenever the left one writes it.
            Some(&(schema::RECEIPT | schema::PREPARED)) => match self.left.get(key)? {
                Some(_) => None,
                None => Some(key.to_vec()),
            },
            Some(&(schema::HEADER | schema::BLOCK | schema::ENTRY | schema::CERTIFICATE)) => {
                height_of(&key[1..]).and_then(|height| self.archive(height, key))
            }
            Some(&schema::META) => {
                let height = key.strip_prefix(schema::HANDOVER_PREFIX).and_then(height_of);
                height.and_then(|height| self.archive(height, key))
            }
            Some(&schema::ARCHIVE) => {
                let chain = key.get(1..9).and_then(|id| id.try_into().ok()).map(|id| GroupId(u64::from_be_bytes(id)));
                chain.filter(|chain| !self.known_left(*chain)).map(|_| key.to_vec())
            }
            _ => None,
        })
    }

    fn archive(&self, height: Height, key: &[u8]) -> Option<Vec<u8>> {
        let chain = self.chain_at(height);
        (!self.known_left(chain)).then(|| schema::archived(chain, key))
    }
}

fn height_of(rest: &[u8]) -> Option<Height> {
    Some(Height(u64::from_be_bytes(rest.try_into().ok()?)))
}

/// What of a parent's writes belongs into the copy, and where. Keys that stand in the parent's database may be given as
/// writes, too: so a copy begins.
///
/// Marks of the node ([`schema::NODE`]) go along with the left parent's, or those of the parent that is cut: heights go
/// on, so they say the same of the child.
///
/// # Errors
/// [`ReadFault`] when the left parent's state cannot be read.
pub fn follow<'w>(
    side: &Side<'_>,
    writes: impl IntoIterator<Item = &'w (Vec<u8>, Option<Bytes>)>,
) -> Result<Writes, ReadFault> {
    let mut kept = Vec::new();
    for (key, value) in writes {
        let place = match side {
            Side::Half(prefix) => keeps(prefix, key).then(|| key.clone()),
            Side::Left => Some(key.clone()),
            Side::Right(right) => right.place(key)?,
        };
        kept.extend(place.map(|key| (key, value.clone())));
    }
    Ok(kept)
}

/// Whether a key of a parent that is cut belongs to the half under a prefix: only what belongs to an account does not
/// belong to both.
#[must_use]
pub fn keeps(prefix: &BitPrefix, key: &[u8]) -> bool {
    match key.first() {
        Some(&(schema::STATE | schema::HISTORY)) => covers(prefix, key),
        _ => true,
    }
}

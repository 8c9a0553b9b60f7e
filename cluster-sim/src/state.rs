//! A replica's database as the executor and the driver read it.

use bytes::Bytes;
use cross_shard::stream::{InCursor, OutStream};
use ledger::hash::Hash32;
use ledger::ids::GroupId;
use ledger::layout::Layout;
use ledger::lineage::Origin;
use ledger::receipt::Receipt;
use ledger::schema;
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::view::{ReadFault, StateReader};
use shard_node::core::records::{BlockRecord, ReceiptPlace};
use storage::kv::{KeyRange, Kv};
use storage::mem::MemKv;

/// The memory database as a [`StateReader`].
pub struct KvState<'a> {
    /// The database.
    pub kv: &'a MemKv,
    /// Sabotage: receipts are not seen.
    pub hide_receipts: bool,
}

impl StateReader for KvState<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        if self.hide_receipts && key.first() == Some(&schema::RECEIPT) {
            return Ok(None);
        }
        self.kv.get(key).map_err(|error| ReadFault(error.to_string()))
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.kv.scan(KeyRange::prefix(prefix), usize::MAX).map_err(|error| ReadFault(error.to_string()))
    }

    fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.kv.scan(KeyRange::prefix_from(prefix, from), limit).map_err(|error| ReadFault(error.to_string()))
    }
}

/// The decoded value of a key.
///
/// # Errors
/// A text when the value is missing or does not decode.
pub fn load<T: borsh::BorshDeserialize>(kv: &MemKv, key: &[u8]) -> Result<T, String> {
    find(kv, key)?.ok_or_else(|| format!("the database has no key {key:02x?}"))
}

/// The decoded value of a key that may be absent.
///
/// # Errors
/// A text when the value does not decode.
pub fn find<T: borsh::BorshDeserialize>(kv: &MemKv, key: &[u8]) -> Result<Option<T>, String> {
    let Some(bytes) = kv.get(key).map_err(|error| error.to_string())? else { return Ok(None) };
    borsh::from_slice(&bytes).map(Some).map_err(|error| format!("key {key:02x?} does not decode: {error}"))
}

/// All pairs under a prefix.
#[must_use]
pub fn scan(kv: &MemKv, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
    kv.scan(KeyRange::prefix(prefix), usize::MAX).unwrap_or_default()
}

fn peer_of(key: &[u8], prefix: &[u8]) -> Option<GroupId> {
    Some(GroupId(u64::from_be_bytes(key.get(prefix.len()..)?.try_into().ok()?)))
}

/// The outgoing streams.
#[must_use]
pub fn out_streams(kv: &MemKv) -> Vec<(GroupId, OutStream)> {
    scan(kv, schema::OUTBOX_PREFIX)
        .iter()
        .filter_map(|(key, value)| Some((peer_of(key, schema::OUTBOX_PREFIX)?, borsh::from_slice(value).ok()?)))
        .collect()
}

/// The incoming cursors.
#[must_use]
pub fn in_cursors(kv: &MemKv) -> Vec<(GroupId, InCursor)> {
    scan(kv, schema::INBOX_PREFIX)
        .iter()
        .filter_map(|(key, value)| Some((peer_of(key, schema::INBOX_PREFIX)?, borsh::from_slice(value).ok()?)))
        .collect()
}

/// The receipt of a transaction, if it has one.
///
/// # Errors
/// A text when the database contradicts itself.
pub fn receipt(kv: &MemKv, txid: &ledger::TxId) -> Result<Option<Receipt>, String> {
    match find::<ReceiptPlace>(kv, &schema::receipt(txid))? {
        Some(place) => receipt_at(kv, place).map(Some),
        None => Ok(None),
    }
}

/// The receipt at a place.
///
/// # Errors
/// A text when there is none.
pub fn receipt_at(kv: &MemKv, place: ReceiptPlace) -> Result<Receipt, String> {
    let plain = schema::block(place.height);
    let origin: Option<Origin> = find(kv, &schema::origin())?;
    let archived = origin.is_some_and(|origin| origin.archived.iter().any(|segment| segment.group == place.chain));
    let key = if archived { schema::archived(place.chain, &plain) } else { plain };
    let block: BlockRecord = load(kv, &key)?;
    let index = usize::try_from(place.index).unwrap_or(usize::MAX);
    block.receipts.get(index).cloned().ok_or_else(|| format!("block {} has no receipt {index}", place.height))
}

/// Builds the state tree from the leaves in the database. What a shard owns is the same in every layout.
///
/// # Errors
/// A text when a leaf lies outside the group's prefix, or the database has no layout.
pub fn rebuild_tree(kv: &MemKv, group: GroupId) -> Result<StateTree, String> {
    let layout: Layout = load(kv, &schema::layout())?;
    let prefix = layout.prefix_ever(group).map_or(BitPrefix::ROOT, ledger::layout::BitPrefix::in_tree);
    let mut tree = StateTree::new(prefix);
    let leaves = scan(kv, &[schema::STATE]);
    tree.apply(leaves.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, Some(value_hash(value))))))
        .map_err(|error| error.to_string())?;
    Ok(tree)
}

/// Whether a node has a pair for itself: certificates, of inherited chains, too, and marks.
fn of_node(key: &[u8]) -> bool {
    let kind = if key.first() == Some(&schema::ARCHIVE) { key.get(9) } else { key.first() };
    [Some(&schema::CERTIFICATE), Some(&schema::NODE)].contains(&kind)
}

/// A digest of everything replicated: all but the certificates and marks, which each node has for itself.
#[must_use]
pub fn digest(kv: &MemKv) -> Hash32 {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = scan(kv, &[])
        .into_iter()
        .filter(|(key, _)| !of_node(key))
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    ledger::hash::sha256(&borsh::to_vec(&pairs).expect("writing to memory does not fail"))
}

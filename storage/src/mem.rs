//! The memory database: the port's reference, deterministic, with a power switch.
//!
//! Owns: one ordered map for what is visible, one for what is durable, and the batches between
//! them. Never does: threads, clocks, or IO (except [`Kv::checkpoint`], which is asked to).
//! Used by the simulator and as the model that RocksDB is tested against.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use crate::StorageError;
use crate::kv::{Crash, KeyRange, Kv, KvView, WriteBatch, WriteOp};

type Map = BTreeMap<Bytes, Bytes>;

/// File that [`Kv::checkpoint`] writes into its folder.
pub const CHECKPOINT_FILE: &str = "MEMORY";
const MAGIC: &[u8; 8] = b"SEAMMEM\x01";

/// A [`Kv`] in memory. Views are copy-on-write: one clone of the map for the first write beside a view.
#[derive(Default)]
pub struct MemKv {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    visible: Arc<Map>,
    durable: Map,
    unflushed: Vec<WriteBatch>,
}

fn apply(map: &mut Map, batch: &WriteBatch) {
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } => {
                map.insert(key.clone(), value.clone());
            }
            WriteOp::Delete { key } => {
                map.remove(key);
            }
            WriteOp::DeleteRange { start, end } => {
                if start < end {
                    let mut tail = map.split_off(start);
                    map.append(&mut tail.split_off(end));
                }
            }
        }
    }
}

fn scan(map: &Map, range: &KeyRange, limit: usize) -> Vec<(Bytes, Bytes)> {
    if range.is_empty() {
        return Vec::new();
    }
    let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<Bytes, _>((Bound::Included(&range.start), end))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl MemKv {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// The whole visible content as bytes: magic, count, pairs, checksum.
    pub fn export(&self) -> Bytes {
        let map = self.state.lock().visible.clone();
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(MAGIC);
        out.put_u64(map.len() as u64);
        for (key, value) in map.iter() {
            out.put_u64(key.len() as u64);
            out.put_u64(value.len() as u64);
            out.put_slice(key);
            out.put_slice(value);
        }
        out.put_u32(crc32fast::hash(&out));
        out.freeze()
    }

    /// A database with the (durable) content of an [`MemKv::export`]; `name` is shown in errors.
    pub fn import(exported: &[u8], name: &Path) -> Result<Self, StorageError> {
        let map = decode(exported).map_err(|detail| StorageError::corrupt(name, detail))?;
        let state = State { visible: Arc::new(map.clone()), durable: map, unflushed: Vec::new() };
        Ok(Self { state: Mutex::new(state) })
    }

    /// A database with the content of a folder written by [`Kv::checkpoint`].
    pub fn open_checkpoint(dir: &Path) -> Result<Self, StorageError> {
        let file = dir.join(CHECKPOINT_FILE);
        let exported = std::fs::read(&file).map_err(|error| StorageError::io(&file, &error))?;
        Self::import(&exported, &file)
    }
}

fn decode(exported: &[u8]) -> Result<Map, String> {
    let (body, mut stored) = exported.split_last_chunk::<4>().map(|(body, crc)| (body, &crc[..])).ok_or("cut short")?;
    if stored.get_u32() != crc32fast::hash(body) {
        return Err("the checksum does not match".into());
    }
    let mut rest = body.strip_prefix(MAGIC).ok_or("not a memory checkpoint")?;
    let count = rest.try_get_u64().map_err(|_| "cut short")?;
    let mut map = Map::new();
    for _ in 0..count {
        let key_len = rest.try_get_u64().map_err(|_| "cut short")?;
        let value_len = rest.try_get_u64().map_err(|_| "cut short")?;
        let key = take(&mut rest, key_len)?;
        let value = take(&mut rest, value_len)?;
        map.insert(key, value);
    }
    if rest.is_empty() { Ok(map) } else { Err("trailing bytes".into()) }
}

fn take(rest: &mut &[u8], len: u64) -> Result<Bytes, String> {
    let len = usize::try_from(len).map_err(|_| "a length is too large")?;
    let (head, tail) = rest.split_at_checked(len).ok_or("cut short")?;
    *rest = tail;
    Ok(Bytes::copy_from_slice(head))
}

impl Kv for MemKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state.lock().visible.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let state = self.state.lock();
        Ok(keys.iter().map(|key| state.visible.get(*key).cloned()).collect())
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        Ok(scan(&self.state.lock().visible, &range, limit))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        apply(Arc::make_mut(&mut state.visible), &batch);
        state.unflushed.push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        let batches = std::mem::take(&mut state.unflushed);
        batches.iter().for_each(|batch| apply(&mut state.durable, batch));
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        let io = |path: &Path, error: std::io::Error| StorageError::io(path, &error);
        std::fs::create_dir(dir).map_err(|error| io(dir, error))?;
        let path: PathBuf = dir.join(CHECKPOINT_FILE);
        let mut file = std::fs::File::create_new(&path).map_err(|error| io(&path, error))?;
        file.write_all(&self.export()).map_err(|error| io(&path, error))?;
        file.sync_all().map_err(|error| io(&path, error))?;
        let folder = std::fs::File::open(dir).map_err(|error| io(dir, error))?;
        folder.sync_all().map_err(|error| io(dir, error))
    }

    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        Box::new(MemView(self.state.lock().visible.clone()))
    }
}

impl Crash for MemKv {
    fn unflushed(&self) -> usize {
        self.state.lock().unflushed.len()
    }

    fn crash(&self, keep: usize) {
        let mut state = self.state.lock();
        let batches = std::mem::take(&mut state.unflushed);
        batches.iter().take(keep).for_each(|batch| apply(&mut state.durable, batch));
        state.visible = Arc::new(state.durable.clone());
    }
}

struct MemView(Arc<Map>);

impl KvView for MemView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        Ok(scan(&self.0, &range, limit))
    }
}

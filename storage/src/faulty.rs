//! A database that fails on demand: full disk, IO errors, lies about durability, flipped bytes.
//!
//! Owns: the injection. Never does: decide; a caller-supplied [`FaultPlan`] does, so one seed of the
//! simulator decides everything. No clocks: a slow operation is only counted.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::StorageError;
use crate::kv::{Crash, KeyRange, Kv, KvView, WriteBatch};

/// An operation that is about to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `get`, also on a view.
    Get,
    /// `multi_get` of this many keys.
    MultiGet(usize),
    /// `scan`, also on a view.
    Scan,
    /// `write` of this many bytes.
    Write {
        /// Sum of key and value lengths.
        bytes: usize,
    },
    /// `flush`.
    Flush,
    /// `checkpoint`.
    Checkpoint,
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing unusual.
    None,
    /// Fails with `storage_disk_full`, without effect.
    DiskFull,
    /// Fails with `storage_io`, without effect.
    Io,
    /// A flush reports success, but nothing became durable. Other operations run normally.
    LostFlush,
    /// A read returns its first non-empty value with one bit of byte `byte % length` flipped.
    Corrupt {
        /// Which byte, modulo the value's length.
        byte: usize,
    },
    /// Runs normally; the units are added to [`FaultCounts::slow_units`] for the caller's clock.
    Slow {
        /// In whatever unit the caller's clock has.
        units: u64,
    },
}

/// Decides per operation; must be deterministic if the run is to be repeated.
pub trait FaultPlan: Send {
    /// The fault of operation number `number` (from 0).
    fn decide(&mut self, number: u64, operation: Operation) -> Fault;

    /// How many of `unflushed` batches survive a crash (torn when between none and all).
    fn survivors(&mut self, unflushed: usize) -> usize {
        let _ = unflushed;
        0
    }
}

/// A plan without faults.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl FaultPlan for NoFaults {
    fn decide(&mut self, _: u64, _: Operation) -> Fault {
        Fault::None
    }
}

impl<F: FnMut(u64, Operation) -> Fault + Send> FaultPlan for F {
    fn decide(&mut self, number: u64, operation: Operation) -> Fault {
        self(number, operation)
    }
}

/// What was injected so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Operations seen.
    pub operations: u64,
    /// Operations that were made to fail.
    pub failed: u64,
    /// Flushes that lied.
    pub lost_flushes: u64,
    /// Values that were altered.
    pub corrupted: u64,
    /// Sum of all [`Fault::Slow`] units.
    pub slow_units: u64,
    /// Crashes.
    pub crashes: u64,
}

/// `K` behind a [`FaultPlan`]; `name` is the path shown in errors.
pub struct FaultyKv<K> {
    inner: K,
    injector: Injector,
}

struct Injector {
    name: PathBuf,
    state: Mutex<(Box<dyn FaultPlan>, FaultCounts)>,
}

/// What is left of a fault once errors have been returned.
#[derive(Clone, Copy)]
enum Effect {
    None,
    LostFlush,
    Flip { byte: usize },
}

impl Injector {
    fn before(&self, operation: Operation) -> Result<Effect, StorageError> {
        let (plan, counts) = &mut *self.state.lock();
        let fault = plan.decide(counts.operations, operation);
        counts.operations += 1;
        match fault {
            Fault::None => Ok(Effect::None),
            Fault::Slow { units } => {
                counts.slow_units += units;
                Ok(Effect::None)
            }
            Fault::DiskFull => {
                counts.failed += 1;
                Err(StorageError::DiskFull { path: self.name.clone(), detail: "injected".into() })
            }
            Fault::Io => {
                counts.failed += 1;
                Err(StorageError::Io { path: self.name.clone(), detail: "injected".into() })
            }
            Fault::LostFlush => {
                counts.lost_flushes += u64::from(operation == Operation::Flush);
                Ok(Effect::LostFlush)
            }
            Fault::Corrupt { byte } => Ok(Effect::Flip { byte }),
        }
    }

    fn after<'a>(&self, effect: Effect, mut values: impl Iterator<Item = &'a mut Bytes>) {
        let Effect::Flip { byte } = effect else {
            return;
        };
        if let Some(value) = values.find(|value| !value.is_empty()) {
            let mut altered = value.to_vec();
            let at = byte % altered.len();
            altered[at] ^= 1;
            *value = Bytes::from(altered);
            self.state.lock().1.corrupted += 1;
        }
    }
}

impl<K: Kv> FaultyKv<K> {
    /// Wraps `inner`.
    pub fn new(inner: K, plan: impl FaultPlan + 'static, name: impl Into<PathBuf>) -> Self {
        let state = Mutex::new((Box::new(plan) as Box<dyn FaultPlan>, FaultCounts::default()));
        Self { inner, injector: Injector { name: name.into(), state } }
    }

    /// The wrapped database, without faults; what a checker looks at.
    pub fn inner(&self) -> &K {
        &self.inner
    }

    /// What was injected so far.
    pub fn counts(&self) -> FaultCounts {
        self.injector.state.lock().1
    }
}

impl<K: Crash> FaultyKv<K> {
    /// Loses power; the plan says how many unflushed batches survive.
    pub fn crash_by_plan(&self) {
        let unflushed = self.inner.unflushed();
        let keep = self.injector.state.lock().0.survivors(unflushed);
        self.crash(keep);
    }
}

impl<K: Kv> Kv for FaultyKv<K> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let effect = self.injector.before(Operation::Get)?;
        let mut value = self.inner.get(key)?;
        self.injector.after(effect, value.iter_mut());
        Ok(value)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let effect = self.injector.before(Operation::MultiGet(keys.len()))?;
        let mut values = self.inner.multi_get(keys)?;
        self.injector.after(effect, values.iter_mut().flatten());
        Ok(values)
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let effect = self.injector.before(Operation::Scan)?;
        let mut pairs = self.inner.scan(range, limit)?;
        self.injector.after(effect, pairs.iter_mut().map(|(_, value)| value));
        Ok(pairs)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.injector.before(Operation::Write { bytes: batch.bytes() })?;
        self.inner.write(batch)
    }

    fn flush(&self) -> Result<(), StorageError> {
        match self.injector.before(Operation::Flush)? {
            Effect::LostFlush => Ok(()),
            Effect::None | Effect::Flip { .. } => self.inner.flush(),
        }
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.injector.before(Operation::Checkpoint)?;
        self.inner.checkpoint(dir)
    }

    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        Box::new(FaultyView { inner: self.inner.snapshot_view(), injector: &self.injector })
    }

    fn disk_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        self.inner.disk_bytes(range)
    }

    fn compacted_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        self.inner.compacted_bytes(range)
    }

    fn is_quiet(&self) -> bool {
        self.inner.is_quiet()
    }

    fn drop_files(&self, ranges: &[KeyRange]) -> Result<(), StorageError> {
        self.inner.drop_files(ranges)
    }

    fn wake(&self) -> Result<(), StorageError> {
        self.inner.wake()
    }

    fn compact(&self, range: &KeyRange) -> Result<(), StorageError> {
        self.inner.compact(range)
    }

    fn give_up(&self) {
        self.inner.give_up();
    }
}

impl<K: Crash> Crash for FaultyKv<K> {
    fn unflushed(&self) -> usize {
        self.inner.unflushed()
    }

    fn crash(&self, keep: usize) {
        self.injector.state.lock().1.crashes += 1;
        self.inner.crash(keep);
    }
}

struct FaultyView<'a> {
    inner: Box<dyn KvView + 'a>,
    injector: &'a Injector,
}

impl KvView for FaultyView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let effect = self.injector.before(Operation::Get)?;
        let mut value = self.inner.get(key)?;
        self.injector.after(effect, value.iter_mut());
        Ok(value)
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let effect = self.injector.before(Operation::Scan)?;
        let mut pairs = self.inner.scan(range, limit)?;
        self.injector.after(effect, pairs.iter_mut().map(|(_, value)| value));
        Ok(pairs)
    }
}

//! The one writer: drains the queue, writes one batch with one fsync, moves the mark of what is
//! acknowledged, then runs the completions.
//!
//! Owns: the fold and the fail-stop rule. Never does: retry. A failed write leaves it open what
//! reached the disk, so from then on every command fails and nothing is written.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::engine::Shared;
use super::group::GroupState;
use super::mark::Mark;
use super::queue::{Change, Command, Drained};
use super::tail::Sequence;
use crate::StorageError;

/// Writes one batch durably. Returns the number of the last change in it.
pub(super) type Sink = Box<dyn FnMut(rocksdb::WriteBatch) -> Result<u64, StorageError> + Send>;

/// Runs until the queue is closed and empty.
pub(super) fn run(shared: &Shared, mut sink: Sink, mut mark: Mark) {
    loop {
        let drained = shared.queue.drain();
        let finished = drained.closed && drained.commands.is_empty() && drained.marks.is_empty();
        if finished {
            break;
        }
        step(shared, &mut sink, &mut mark, drained);
    }
}

fn step(shared: &Shared, sink: &mut Sink, mark: &mut Mark, drained: Drained) {
    let result = match shared.poison() {
        Some(poisoned) => Err(poisoned),
        None => {
            let written = sink(fold(shared, &drained)).and_then(|sequence| mark.advance(sequence));
            if let Err(error) = &written {
                tracing::error!(%error, code = error.code(), "the shared log stops after a failed write");
                shared.set_poison(error);
            }
            written
        }
    };
    if result.is_ok() {
        settle(shared, &drained.commands);
    }
    for command in drained.commands {
        let done = command.done;
        let result = result.clone();
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            // The caller's state is unknown now; going on could acknowledge what it never saw.
            shared.set_poison(&StorageError::Refused {
                path: shared.root.clone(),
                detail: "a completion panicked".into(),
            });
        }
    }
}

/// Everything that waited, as one batch.
fn fold(shared: &Shared, drained: &Drained) -> rocksdb::WriteBatch {
    let mut batch = rocksdb::WriteBatch::default();
    let mut entries = 0;
    // Before the commands: a removal of the group in the same batch must remove its mark as well.
    for (key, value) in &drained.marks {
        batch.put(key, value);
    }
    for command in &drained.commands {
        entries += command.entries;
        for change in &command.changes {
            match change {
                Change::Put { key, value } => batch.put(key, value),
                Change::DeleteRange { from, to } => batch.delete_range(from, to),
            }
        }
    }
    let appends = drained.commands.iter().filter(|command| command.entries > 0).count() as u64;
    shared.counters.add(batch.size_in_bytes() as u64, appends, entries);
    batch
}

/// Tells each group how far it is durable now.
fn settle(shared: &Shared, commands: &[Command]) {
    let mut newest: BTreeMap<u64, (&Arc<GroupState>, Sequence)> = BTreeMap::new();
    for command in commands {
        newest.insert(command.group.id, (&command.group, command.sequence));
    }
    for (group, sequence) in newest.values() {
        group.tail.lock().flushed(*sequence, shared.options.cache_bytes_max);
    }
}

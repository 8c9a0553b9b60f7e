//! The command queue between the groups and the one writer.
//!
//! Owns: order (all changes of all groups in one line) and the bound in bytes. Never does: IO.
//! Committed marks do not queue: the newest one per group rides with the next batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex};

use super::group::GroupState;
use super::keys::LogKey;
use super::port::Completion;
use super::tail::Sequence;

/// One change of the database.
pub(super) enum Change {
    Put { key: LogKey, value: Vec<u8> },
    DeleteRange { from: LogKey, to: LogKey },
}

/// One call of a group, already encoded.
pub(super) struct Command {
    pub(super) group: Arc<GroupState>,
    pub(super) sequence: Sequence,
    pub(super) changes: Vec<Change>,
    pub(super) entries: u64,
    pub(super) done: Completion,
}

impl Command {
    /// What the command costs while it waits; never zero, so that the count is bounded too.
    fn bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| match change {
            Change::Put { value, .. } => 64 + value.len(),
            Change::DeleteRange { .. } => 64,
        });
        256 + changes.sum::<usize>()
    }
}

/// Everything that waited when the writer looked.
#[derive(Default)]
pub(super) struct Drained {
    pub(super) commands: Vec<Command>,
    /// Encoded committed marks by key.
    pub(super) marks: BTreeMap<LogKey, Vec<u8>>,
    pub(super) closed: bool,
}

#[derive(Default)]
struct Waiting {
    drained: Drained,
    bytes: usize,
    writer: Option<ThreadId>,
    /// The writer has taken work and has not come back for more.
    writing: bool,
}

/// Many producers, one consumer.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    work: Condvar,
    room: Condvar,
    idle: Condvar,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (work, room, idle) = (Condvar::new(), Condvar::new(), Condvar::new());
        Self { waiting: Mutex::default(), work, room, idle, bytes_max }
    }

    /// Waits until there is room. Called before a group's lock is taken, so that a full queue never
    /// blocks that group's readers; the bound is exceeded by one command per caller at most. The
    /// writer's own thread (a completion) is let through, since waiting for itself would be for ever.
    pub(super) fn wait_for_room(&self) {
        let mut waiting = self.waiting.lock();
        while waiting.bytes >= self.bytes_max
            && !waiting.drained.closed
            && waiting.writer != Some(std::thread::current().id())
        {
            self.room.wait(&mut waiting);
        }
    }

    /// Queues a command; gives it back if the queue is closed.
    pub(super) fn push(&self, command: Command) -> Result<(), Box<Command>> {
        let mut waiting = self.waiting.lock();
        if waiting.drained.closed {
            return Err(Box::new(command));
        }
        waiting.bytes += command.bytes();
        waiting.drained.commands.push(command);
        self.work.notify_one();
        Ok(())
    }

    /// Notes a committed mark for the next batch, without waking the writer. False if closed.
    pub(super) fn mark(&self, key: LogKey, value: Vec<u8>) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.drained.closed {
            waiting.drained.marks.insert(key, value);
        }
        !waiting.drained.closed
    }

    /// Lets the writer finish what is queued and refuses everything after.
    pub(super) fn close(&self) {
        self.waiting.lock().drained.closed = true;
        self.work.notify_all();
        self.room.notify_all();
        self.idle.notify_all();
    }

    /// Waits until no command is queued and every one that was has been completed, or the queue is
    /// closed. Not from a completion, which would wait for itself.
    pub(super) fn wait_idle(&self) {
        let mut waiting = self.waiting.lock();
        while (waiting.writing || !waiting.drained.commands.is_empty()) && !waiting.drained.closed {
            self.idle.wait(&mut waiting);
        }
    }

    /// For the writer: waits for work (or the close) and takes all of it.
    pub(super) fn drain(&self) -> Drained {
        let mut waiting = self.waiting.lock();
        waiting.writer = Some(std::thread::current().id());
        waiting.writing = false;
        while waiting.drained.commands.is_empty() && !waiting.drained.closed {
            self.idle.notify_all();
            self.work.wait(&mut waiting);
        }
        waiting.writing = true;
        let closed = waiting.drained.closed;
        waiting.bytes = 0;
        self.room.notify_all();
        let drained = std::mem::take(&mut waiting.drained);
        waiting.drained.closed = closed;
        drained
    }
}

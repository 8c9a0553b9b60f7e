//! Groups that could not be opened, and when each is tried again.
//!
//! Owns the times alone. What kept a group from being opened stands in `status` until it runs; that it is tried again is
//! said there, too. What is damaged, of somebody else or lost is not: it needs people, and the next start finds it again.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::ids::GroupId;
use tokio::time::Instant;

use super::Hosting;

/// Before a group is tried again, the first time and at most. It doubles in between.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Whether what kept a group from being opened may end by itself, or by what an operator does while the node runs: room on
/// the disk, permissions, files that somebody else holds, and, of a seat, what the registry says.
fn passes(code: &str) -> bool {
    matches!(
        code,
        "storage_disk_full"
            | "storage_open_files"
            | "storage_in_use"
            | "storage_io"
            | "storage_closed"
            | "key_file"
            | "origin_file"
            | "seat_file"
            | "seat_lost"
    )
}

/// Groups that wait to be tried again, each with its last pause and the moment when it is due.
#[derive(Default)]
pub(super) struct Again(BTreeMap<GroupId, (Duration, Instant)>);

impl Again {
    /// Takes a failure. Returns the pause after which the group is tried again; `None` where that cannot help.
    fn failed(&mut self, group: GroupId, code: &str, now: Instant) -> Option<Duration> {
        if !passes(code) {
            self.0.remove(&group);
            return None;
        }
        let pause = self.0.get(&group).map_or(PAUSES.0, |(last, _)| (*last * 2).min(PAUSES.1));
        self.0.insert(group, (pause, now + pause));
        Some(pause)
    }

    /// It was opened, or is not to be any more.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }

    /// Those whose time has come, ascending.
    fn due(&self, now: Instant) -> Vec<GroupId> {
        self.0.iter().filter(|(_, (_, at))| *at <= now).map(|(group, _)| *group).collect()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Hosting {
    /// Notes why a group was not opened, and when it is tried again.
    pub(super) fn not_opened(&self, group: GroupId, code: &str, text: String) {
        let pause = self.again.lock().failed(group, code, Instant::now());
        let text = match pause {
            Some(pause) => format!("{text}; it is tried again in {} s", pause.as_secs()),
            None => text,
        };
        self.hosted.does_not_run(group, code, text);
    }

    /// Lets go of what earlier trials have left of the groups whose time has come, so that they are opened once more. Why
    /// they do not run is shown until they do.
    pub(super) async fn retry(&self, wanted: impl Fn(GroupId) -> bool, now: Instant) {
        let due = self.again.lock().due(now);
        for group in due.into_iter().filter(|group| wanted(*group)) {
            let context = self.opened.lock().remove(&group);
            if let Some(context) = context {
                context.stop.cancel();
                context.tasks.close();
                context.tasks.wait().await;
            }
        }
    }
}

#[cfg(test)]
#[path = "again_tests.rs"]
mod tests;

//! What an operator must know of a group on this node.
//!
//! Two kinds. A *passing* alarm has a cause that may mend itself, like a clock or a full queue: it is
//! raised again while the cause lasts and disappears when it is not. A *lasting* one has a cause that
//! nothing on this node mends: it stays until whoever raised it says that its cause has ended, or
//! until the process ends. Never does: decide anything.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::ids::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::core::driver;

/// How long a passing alarm is shown after it was raised last.
const SHOWN: Duration = Duration::from_secs(60);
/// Different passing alarms kept per group.
const PASSING_MAX: usize = 16;

/// Why a lasting alarm was raised; there is one alarm for each cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The group has stopped on this node.
    Stopped,
    /// A snapshot that a node sent did not pass its checks.
    Snapshot,
    /// A member has signed two ballots that exclude each other.
    Equivocation(NodeId),
    /// The driver's.
    Driver(driver::Cause),
}

/// The alarms of one group.
pub struct Alarms {
    group: GroupId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    passing: Vec<(String, Instant)>,
    lasting: BTreeMap<Cause, String>,
}

impl Alarms {
    /// No alarms.
    #[must_use]
    pub fn new(group: GroupId) -> Self {
        Self { group, state: Mutex::default() }
    }

    /// Raises a passing alarm, or shows it for longer.
    pub fn pass(&self, text: String) {
        self.pass_at(text, Instant::now());
    }

    fn pass_at(&self, text: String, now: Instant) {
        let passing = &mut self.state.lock().passing;
        if let Some(known) = passing.iter_mut().find(|(known, _)| *known == text) {
            known.1 = now;
            return;
        }
        tracing::warn!(group = %self.group, "{text}");
        passing.push((text, now));
        let extra = passing.len().saturating_sub(PASSING_MAX);
        passing.drain(..extra);
    }

    /// Raises a lasting alarm. The first text of a cause stays: what came first says most.
    pub fn last(&self, cause: Cause, text: String) {
        let lasting = &mut self.state.lock().lasting;
        lasting.entry(cause).or_insert_with(|| {
            tracing::error!(group = %self.group, "{text}");
            text
        });
    }

    /// The cause of a lasting alarm has ended.
    pub fn end(&self, cause: Cause) {
        self.state.lock().lasting.remove(&cause);
    }

    /// The cause of a lasting alarm has ended, and people are to hear of it nevertheless: it passes from now on.
    pub fn lapse(&self, cause: Cause) {
        let ended = self.state.lock().lasting.remove(&cause);
        if let Some(text) = ended {
            self.pass(text);
        }
    }

    /// The causes of lasting alarms that are not kept have ended.
    pub fn retain(&self, keep: impl Fn(Cause) -> bool) {
        self.state.lock().lasting.retain(|cause, _| keep(*cause));
    }

    /// The alarms to show: lasting ones, and passing ones of the last minute.
    #[must_use]
    pub fn current(&self) -> Vec<String> {
        self.current_at(Instant::now())
    }

    fn current_at(&self, now: Instant) -> Vec<String> {
        let state = &mut *self.state.lock();
        state.passing.retain(|(_, at)| now.saturating_duration_since(*at) < SHOWN);
        state.lasting.values().chain(state.passing.iter().map(|(text, _)| text)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGED: Cause = Cause::Driver(driver::Cause::ForgedBlock);

    #[test]
    fn passing_alarms_go_by_themselves_and_lasting_ones_with_their_cause() {
        let alarms = Alarms::new(GroupId::shard(0));
        let start = Instant::now();
        alarms.pass_at("the clock is off".to_owned(), start);
        alarms.last(FORGED, "block 7 is forged".to_owned());
        alarms.last(FORGED, "block 9 is forged".to_owned());
        let divergence = Cause::Driver(driver::Cause::Divergence(NodeId(2)));
        alarms.last(divergence, "node 2 signed another header".to_owned());
        let both = ["block 7 is forged", "node 2 signed another header", "the clock is off"];
        assert_eq!(alarms.current_at(start), both);
        alarms.pass_at("the clock is off".to_owned(), start + SHOWN / 2);
        assert_eq!(alarms.current_at(start + SHOWN).len(), 3, "raised again, it is shown for longer");
        assert_eq!(alarms.current_at(start + 100 * SHOWN), both[..2], "no time ends a lasting one");
        alarms.end(FORGED);
        assert_eq!(alarms.current_at(start + 100 * SHOWN), both[1..2]);
        alarms.retain(|cause| cause == divergence);
        assert_eq!(alarms.current_at(start + 100 * SHOWN), both[1..2]);
        alarms.retain(|cause| cause != divergence);
        assert!(alarms.current_at(start + 100 * SHOWN).is_empty());
    }

    #[test]
    fn an_alarm_that_lapses_is_shown_a_little_longer() {
        let alarms = Alarms::new(GroupId::shard(0));
        alarms.lapse(Cause::Snapshot);
        assert!(alarms.current().is_empty());
        alarms.last(Cause::Snapshot, "node 2 has lied".to_owned());
        alarms.lapse(Cause::Snapshot);
        assert_eq!(alarms.current(), ["node 2 has lied"]);
        assert!(alarms.current_at(Instant::now() + 2 * SHOWN).is_empty());
    }

    #[test]
    fn many_passing_alarms_do_not_displace_a_lasting_one() {
        let alarms = Alarms::new(GroupId::shard(0));
        alarms.last(Cause::Stopped, "stopped".to_owned());
        for number in 0..3 * PASSING_MAX {
            alarms.pass(format!("alarm {number}"));
        }
        let shown = alarms.current();
        assert_eq!(shown.len(), PASSING_MAX + 1);
        assert_eq!(shown[0], "stopped");
    }
}

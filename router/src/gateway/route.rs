//! Where the transactions of one group go: its probable leader, and what to do when that is wrong.

use std::time::Duration;

use ledger::{GroupId, NodeId, TxId};
use tokio::time::Instant;

use super::view::ClusterView;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// An election takes well under a second, and payers wait for the pause that it ends in. A try costs
/// one member a probe.
const BACKOFF_MAX: Duration = Duration::from_millis(100);
/// Whoever is elected leads once its first entry is applied, a round and two syncs later.
const SOON_FIRST: Duration = Duration::from_millis(5);
/// A shard that is cut or joined stands still for a moment, and says so whenever it is asked.
const STILL_MAX: Duration = Duration::from_millis(200);
/// Hints are followed at once, but not more often than this: two nodes that name each other must
/// not keep the router busy.
const HINT_INTERVAL: Duration = Duration::from_millis(20);

/// How long a probe may be unanswered until the next candidate is tried.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// Transactions sent to a node that has not shown that it leads. During an election everything in
/// flight would otherwise go to one member after the other, when the nodes have better things to do.
pub(super) const PROBE_TXS: usize = 64;

/// What to do with transactions that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send them to the leader known now.
    Send,
    /// Keep them until the gate opens.
    Wait,
}

/// Whether transactions may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// A few have been sent to find out whether the candidate leads.
    Probing {
        until: Instant,
    },
    /// Nobody leads, as far as is known.
    Paused {
        until: Instant,
    },
}

/// The way to one group. While the gate is closed, transactions wait here.
#[derive(Debug)]
pub(super) struct Route {
    leader: Option<NodeId>,
    /// Whether the leader has answered as one.
    trusted: bool,
    /// The last one that turned out not to lead.
    failed: Option<NodeId>,
    /// Whom the view named when it was looked at last.
    named: Option<NodeId>,
    moved_at: Option<Instant>,
    turn: usize,
    backoff: Duration,
    /// The next pause for one that is elected and does not lead yet.
    soon: Duration,
    /// The next pause of a group that stands still.
    still: Duration,
    /// The group said last that it stands still, or is no more.
    stands: bool,
    gate: Gate,
    /// Transactions kept until the gate opens.
    pub(super) waiting: Vec<TxId>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            leader: None,
            trusted: false,
            failed: None,
            named: None,
            moved_at: None,
            turn: 0,
            backoff: BACKOFF_FIRST,
            soon: SOON_FIRST,
            still: BACKOFF_FIRST,
            stands: false,
            gate: Gate::Open,
            waiting: Vec::new(),
        }
    }
}

impl Route {
    /// Whether transactions have to wait now.
    pub(super) fn closed(&self) -> bool {
        self.gate != Gate::Open
    }

    /// How many transactions may go to the target at once.
    pub(super) fn allowance(&self) -> usize {
        if self.trusted { usize::MAX } else { PROBE_TXS }
    }

    /// Transactions have been sent. Those to an untrusted node are a probe, and no more follow.
    pub(super) fn sent(&mut self, now: Instant) {
        if !self.trusted {
            self.gate = Gate::Probing { until: now + PROBE_WAIT };
        }
    }

    /// Looks whom the view names. One that is named only now may have been asked before it was elected, as happens where a
    /// shard has just begun: that it did not lead then says nothing.
    fn look(&mut self, group: GroupId, view: &ClusterView) {
        let named = view.leaders.get(&group).copied();
        let news = std::mem::replace(&mut self.named, named) != named;
        if news && named == self.failed {
            self.failed = None;
        }
    }

    /// The node to send to: the leader, or the next candidate.
    pub(super) fn target(&mut self, group: GroupId, view: &ClusterView) -> Option<NodeId> {
        self.look(group, view);
        if let Some(leader) = self.leader
            && view.nodes.contains_key(&leader)
        {
            return Some(leader);
        }
        let hint = view.leaders.get(&group).copied().filter(|hint| Some(*hint) != self.failed);
        self.leader = hint.or_else(|| self.next_member(group, view));
        self.leader
    }

    fn next_member(&mut self, group: GroupId, view: &ClusterView) -> Option<NodeId> {
        let members = &view.committees.get(&group)?.members;
        for _ in 0..members.len() {
            let node = members[self.turn % members.len()].node;
            self.turn = self.turn.wrapping_add(1);
            if Some(node) != self.failed || members.len() == 1 {
                return Some(node);
            }
        }
        None
    }

    fn fail(&mut self, node: NodeId) {
        self.leader = None;
        self.trusted = false;
        self.failed = Some(node);
    }

    /// `node` says it does not lead, and perhaps who does. One that names itself is elected, and leads as soon as it has
    /// applied what was committed before: it is asked again in a moment, and nobody else.
    pub(super) fn not_leader(&mut self, node: NodeId, hint: Option<NodeId>, now: Instant) -> Verdict {
        if matches!(self.gate, Gate::Paused { .. }) {
            return Verdict::Wait;
        }
        // It was asked before the route changed; the one known now has not been asked yet.
        if self.leader.is_some_and(|leader| leader != node) {
            return Verdict::Send;
        }
        if hint == Some(node) {
            (self.leader, self.trusted) = (Some(node), false);
            self.gate = Gate::Paused { until: now + self.soon };
            self.soon = (self.soon * 2).min(BACKOFF_MAX);
            return Verdict::Wait;
        }
        self.fail(node);
        self.gate = Gate::Open;
        let calm = self.moved_at.is_none_or(|moved| now.duration_since(moved) >= HINT_INTERVAL);
        match hint.filter(|_| calm) {
            Some(hint) => {
                self.leader = Some(hint);
                self.moved_at = Some(now);
                Verdict::Send
            }
            None => {
                self.pause(now);
                Verdict::Wait
            }
        }
    }

    /// The node cannot be reached.
    pub(super) fn lost(&mut self, node: NodeId, now: Instant) {
        if self.leader.is_none_or(|leader| leader == node) {
            self.fail(node);
            if matches!(self.gate, Gate::Probing { .. }) {
                self.gate = Gate::Paused { until: now };
            }
        }
    }

    /// Tries again later: the pause doubles every time until something works.
    pub(super) fn pause(&mut self, now: Instant) {
        if self.gate == Gate::Open {
            self.gate = Gate::Paused { until: now + self.backoff };
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// The group says that it stands still, or is no more: tries again later, with a few, until it goes on or the layout
    /// has changed.
    pub(super) fn stands_still(&mut self, now: Instant) {
        // Others were sent together with the one that was answered first.
        if matches!(self.gate, Gate::Paused { until } if self.stands && now < until) {
            return;
        }
        self.stands = true;
        self.trusted = false;
        self.gate = Gate::Paused { until: now + self.still };
        self.still = (self.still * 2).min(STILL_MAX);
    }

    /// Whether the group stood still when it was asked last.
    pub(super) fn is_still(&self) -> bool {
        self.stands
    }

    /// The layout has changed: a group that stood still is asked at once.
    pub(super) fn go_on(&mut self, now: Instant) {
        if std::mem::take(&mut self.stands) {
            self.at_once(now);
        }
        self.still = BACKOFF_FIRST;
    }

    /// What was waited for is there.
    pub(super) fn at_once(&mut self, now: Instant) {
        if matches!(self.gate, Gate::Paused { .. }) {
            self.gate = Gate::Paused { until: now };
        }
    }

    /// `node` answered as a leader does.
    pub(super) fn works(&mut self, node: NodeId, now: Instant) {
        (self.backoff, self.soon) = (BACKOFF_FIRST, SOON_FIRST);
        (self.still, self.stands) = (BACKOFF_FIRST, false);
        if self.leader == Some(node) {
            self.failed = None;
            self.trusted = true;
            if matches!(self.gate, Gate::Probing { .. }) {
                self.gate = Gate::Paused { until: now };
            }
        }
    }

    /// Opens the gate when its time has come, or when the view names a leader that has not failed.
    pub(super) fn ready(&mut self, group: GroupId, view: &ClusterView, now: Instant) -> bool {
        self.look(group, view);
        match self.gate {
            Gate::Open => return false,
            Gate::Probing { until } => {
                if now < until {
                    return false;
                }
                if let Some(silent) = self.leader {
                    self.fail(silent);
                }
            }
            Gate::Paused { until } => {
                let hinted = self.leader.is_none()
                    && view.leaders.get(&group).is_some_and(|hint| Some(*hint) != self.failed)
                    && self.moved_at.is_none_or(|moved| now.duration_since(moved) >= HINT_INTERVAL);
                if now < until && !hinted {
                    return false;
                }
                if hinted {
                    self.moved_at = Some(now);
                }
            }
        }
        self.gate = Gate::Open;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn view() -> ClusterView {
        ClusterView {
            cluster: ledger::ClusterId::default(),
            genesis: bytes::Bytes::new(),
            layout: std::sync::Arc::new(ledger::Layout::even(1)),
            committees: std::collections::BTreeMap::new(),
            coming: std::collections::BTreeMap::new(),
            founded: std::collections::BTreeMap::new(),
            foundations: std::collections::BTreeMap::new(),
            nodes: std::collections::BTreeMap::new(),
            orgs: std::sync::Arc::default(),
            channels: std::collections::BTreeMap::new(),
            revoked: std::sync::Arc::default(),
            quarantined: std::sync::Arc::default(),
            jobs: std::sync::Arc::default(),
            born: std::sync::Arc::default(),
            leaders: std::collections::BTreeMap::new(),
            load_every_ms: None,
            lead: None,
            revision: 1,
            beacon_height: 0,
            proof: bytes::Bytes::new(),
            beacon: None,
        }
    }

    #[test]
    fn a_hint_is_followed_at_once_but_not_in_circles() {
        let mut route = Route { leader: Some(A), ..Route::default() };
        let mut now = Instant::now();
        assert_eq!(route.not_leader(A, Some(B), now), Verdict::Send);
        // More answers of the old one: the new one is known.
        assert_eq!(route.not_leader(A, Some(B), now), Verdict::Send);
        assert_eq!(route.leader, Some(B));
        // The new one points back at once.
        assert_eq!(route.not_leader(B, Some(A), now), Verdict::Wait);
        assert_eq!(route.not_leader(B, Some(A), now), Verdict::Wait);
        now += Duration::from_secs(1);
        route.gate = Gate::Open;
        route.leader = Some(B);
        assert_eq!(route.not_leader(B, Some(A), now), Verdict::Send);
    }

    #[test]
    fn pauses_grow_until_something_works() {
        let mut route = Route { leader: Some(A), ..Route::default() };
        let now = Instant::now();
        let mut pauses = Vec::new();
        let pause = |route: &mut Route| {
            route.gate = Gate::Open;
            route.pause(now);
            let Gate::Paused { until } = route.gate else { panic!("not paused") };
            until.duration_since(now).as_millis()
        };
        for _ in 0..7 {
            pauses.push(pause(&mut route));
        }
        assert_eq!(pauses, [20, 40, 80, 100, 100, 100, 100]);
        route.works(A, now);
        assert_eq!(pause(&mut route), 20);
    }

    #[test]
    fn a_group_that_stands_still_is_asked_again_less_and_less_often_and_at_once_with_a_new_layout() {
        let mut route = Route { leader: Some(A), ..Route::default() };
        let mut now = Instant::now();
        route.works(A, now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            route.stands_still(now);
            // The answers to what was sent together with it.
            route.stands_still(now);
            let Gate::Paused { until } = route.gate else { panic!("not paused") };
            pauses.push(until.duration_since(now).as_millis());
            assert_eq!((route.leader, route.allowance()), (Some(A), PROBE_TXS), "it leads, and is asked with a few");
            now = until;
            route.gate = Gate::Open;
            route.sent(now);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 200, 200]);
        route.stands_still(now);
        route.go_on(now);
        assert_eq!((route.gate, route.is_still()), (Gate::Paused { until: now }, false));
        // It goes on: what was a probe opens the way.
        route.gate = Gate::Open;
        route.sent(now);
        route.works(A, now);
        assert_eq!((route.gate, route.allowance()), (Gate::Paused { until: now }, usize::MAX));
        route.stands_still(now);
        assert_eq!(route.gate, Gate::Paused { until: now + BACKOFF_FIRST }, "pauses are short again");
    }

    #[test]
    fn one_that_names_itself_is_asked_again_in_a_moment_and_then_less_and_less_often() {
        let mut route = Route { leader: Some(A), ..Route::default() };
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            route.gate = Gate::Open;
            route.sent(now);
            assert_eq!(route.not_leader(A, Some(A), now), Verdict::Wait);
            // The answers to what was sent together with it.
            assert_eq!(route.not_leader(A, Some(A), now), Verdict::Wait);
            let Gate::Paused { until } = route.gate else { panic!("not paused") };
            pauses.push(until.duration_since(now).as_millis());
            assert_eq!((route.leader, route.failed, route.allowance()), (Some(A), None, PROBE_TXS));
            now = until;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 100, 100]);
        route.works(A, now);
        assert_eq!(route.soon, SOON_FIRST);
    }

    #[test]
    fn one_that_did_not_lead_is_asked_at_once_when_the_view_names_it_only_then() {
        let (group, now, mut view) = (GroupId::shard(0), Instant::now(), view());
        let mut route = Route { leader: Some(A), ..Route::default() };
        assert_eq!(route.not_leader(A, None, now), Verdict::Wait);
        assert!(!route.ready(group, &view, now), "nobody is known to lead");
        view.leaders.insert(group, A);
        assert!(route.ready(group, &view, now), "it was elected since");
        assert_eq!(route.failed, None);
        // Whom the view had named before it failed has to be named anew.
        route.leader = Some(A);
        assert_eq!(route.not_leader(A, None, now), Verdict::Wait);
        assert!(!route.ready(group, &view, now));
        view.leaders.insert(group, B);
        assert!(route.ready(group, &view, now + HINT_INTERVAL));
    }

    #[test]
    fn a_candidate_is_probed_and_the_rest_follows_its_first_answer() {
        let view = view();
        let group = GroupId::shard(0);
        let now = Instant::now();
        let mut route = Route { leader: Some(A), ..Route::default() };
        assert_eq!(route.allowance(), PROBE_TXS);
        route.sent(now);
        assert!(route.closed() && !route.ready(group, &view, now));
        route.works(A, now);
        assert!(route.ready(group, &view, now) && !route.closed());
        assert_eq!(route.allowance(), usize::MAX);
        route.sent(now);
        assert!(!route.closed(), "a trusted leader is not probed");

        // A probe without an answer makes room for the next candidate.
        route.lost(A, now);
        route.leader = Some(B);
        route.sent(now);
        assert!(!route.ready(group, &view, now));
        assert!(route.ready(group, &view, now + PROBE_WAIT));
        assert_eq!((route.leader, route.failed), (None, Some(B)));
    }
}

//! Leads that move because of load: where the registry asks this node to hand the lead of a shard over, it does.
//!
//! Decides nothing about load: the beacon does (`beacon::jobs::scale`). The wish stands in the view until somebody else has
//! reported that shard's load, or until it is too old; as long as this node leads, it is tried again, and once it does not
//! there is nothing to do. So it is never done twice, and may be lost with the process.

use std::sync::Arc;
use std::time::Duration;

use beacon::LeadHint;
use consensus::port::RoleView;
use consensus::sequencer::Sequencer;
use ledger::ids::NodeId;
use parking_lot::Mutex;
use router::gateway::ClusterView;
use tokio::time::Instant;

use crate::server::local::Hosted;

/// Between two attempts at the same.
const AGAIN: Duration = Duration::from_secs(5);
/// Entries that the one who is to lead may be behind by.
const LAG_MAX: u64 = 256;

/// What was tried last.
pub struct Leads {
    hosted: Arc<Hosted>,
    tried: Mutex<Option<(u64, Instant)>>,
}

/// Whether a node has a lead to hand over now: it has it, and the other one votes and has nearly all of the log, so that the
/// group does not wait for it.
#[must_use]
pub fn due(hint: &LeadHint, node: NodeId, role: &RoleView) -> bool {
    let reached = role.replicated.iter().find(|(other, _)| *other == hint.to).map(|(_, upto)| *upto);
    hint.from == node
        && role.leads
        && role.voters.contains(&hint.to)
        && reached.is_some_and(|upto| upto.saturating_add(LAG_MAX) >= role.last_log_index)
}

impl Leads {
    /// For the groups of a node.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>) -> Self {
        Self { hosted, tried: Mutex::default() }
    }

    /// Does what the view asks for.
    pub fn follow(&self, view: &ClusterView) {
        let Some(hint) = view.lead else { return };
        let handle = self.hosted.groups.read().get(&hint.group).cloned();
        let Some(handle) = handle.filter(|handle| due(&hint, self.hosted.context.node, &handle.role())) else { return };
        let now = Instant::now();
        let mut tried = self.tried.lock();
        if tried.is_some_and(|(number, at)| number == hint.number && now < at + AGAIN) {
            return;
        }
        *tried = Some((hint.number, now));
        let (group, to, engine) = (hint.group, hint.to, handle.engine.clone());
        tracing::info!(%group, node = %to, "this node leads more than its share; it hands over");
        self.hosted.context.tasks.spawn(async move {
            if let Err(error) = engine.transfer_leader(to).await {
                tracing::warn!(%group, node = %to, %error, "the lead could not be handed over");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use ledger::ids::{GroupId, TimeMs};

    use super::*;

    #[test]
    fn a_lead_is_handed_over_by_who_has_it_to_who_can_take_it() {
        let (one, two) = (NodeId(1), NodeId(2));
        let group = GroupId::shard(0);
        let hint = LeadHint { version: 2, number: 1, group, from: one, to: two, until_ms: TimeMs(1) };
        let leads = RoleView {
            leads: true,
            voters: vec![one, two, NodeId(3)],
            replicated: vec![(two, 744), (NodeId(3), 1_000)],
            last_log_index: 1_000,
            ..RoleView::default()
        };
        assert!(due(&hint, one, &leads));
        assert!(!due(&hint, two, &leads), "it is another one's");
        assert!(!due(&hint, one, &RoleView { leads: false, ..leads.clone() }), "it is done, or was lost");
        assert!(!due(&hint, one, &RoleView { last_log_index: 1_001, ..leads.clone() }), "it is behind");
        assert!(!due(&hint, one, &RoleView { replicated: vec![], ..leads.clone() }), "nobody knows how far it is");
        assert!(!due(&hint, one, &RoleView { voters: vec![one, NodeId(3)], ..leads }), "it has no vote any more");
    }
}

//! Drives the engine's membership after the committee in the group's state.
//!
//! The state says who signs; the engine has to follow: whoever is about to join becomes a learner, and
//! once its committee is in force the voters become that committee, in one joint change. One task per
//! group does that on whichever replica leads, one step at a time, and looks again after each: nothing is
//! remembered, so that another leader goes on where one has died. A leader whose state is older than the
//! voters that it finds waits until it is not.
//!
//! Voters change only behind the certificate of the block that hands over: the ones that leave may be
//! needed for it. They change only when the new voters have the log, one more of them than a majority
//! needs, so that the change takes no quorum, also after one more failure. A leader that has no seat any
//! more hands over first.
//!
//! A Byzantine engine has no membership of its own: its members are the committee, from the next entry on, and
//! whoever joins takes what is decided by itself. There, every replica only sees to it that it has the certificates of
//! blocks that hand over, since any of them may lend its state to one that joins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use beacon::seats::join_at;
use consensus::port::{RoleView, SequencerError, replica_id};
use consensus::raft::Replica;
use consensus::sequencer::Sequencer;
use ledger::Committee;
use ledger::certificate::Certificate;
use ledger::ids::{Height, NodeId};
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::ReadFault;
use storage::KeyRange;

use crate::server::group::GroupHandle;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Entries by which a replica may lag and still become a voter.
const LAG_MAX: u64 = 256;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Ask for the certificate of this block: it hands over to another committee.
    Certificate(Height),
    /// Let a replica receive the log.
    AddLearner(u64, NodeId),
    /// Take learners out that have no seat and are not about to get one.
    RemoveLearners(Vec<u64>),
    /// Hand leadership to a voter that stays.
    HandOver(NodeId),
    /// Make these the voters.
    ChangeVoters(Vec<u64>),
}

/// What the next step is made of.
pub struct Facts<'a> {
    /// This node.
    pub node: NodeId,
    /// The committee in force.
    pub current: &'a Committee,
    /// The one that is being prepared.
    pub coming: Option<&'a Committee>,
    /// A block that hands over and whose certificate is missing here.
    pub uncertified: Option<Height>,
    /// The engine's members.
    pub replicas: &'a [Replica],
    /// The engine's view.
    pub role: &'a RoleView,
}

impl Facts<'_> {
    /// Decides the next step on the replica that leads.
    #[must_use]
    pub fn next(&self) -> Step {
        let voters: BTreeSet<NodeId> = self.replicas.iter().filter(|one| one.votes).map(|one| one.node).collect();
        let seats: BTreeSet<NodeId> = self.current.members.iter().map(|member| member.node).collect();
        if voters != seats {
            return self.follow_committee(&voters, &seats);
        }
        let stale = |one: &&Replica| !one.votes && !self.expected(one);
        let stale: Vec<u64> = self.replicas.iter().filter(stale).map(|one| one.id).collect();
        if !stale.is_empty() {
            return Step::RemoveLearners(stale);
        }
        let Some(coming) = self.coming else { return Step::Nothing };
        // Whoever joins is going to fetch the state, and with it the proof of every hand-over before.
        if let Some(height) = self.uncertified {
            return Step::Certificate(height);
        }
        let missing = coming.members.iter().find(|member| self.replicas.iter().all(|one| one.node != member.node));
        match (missing, join_at(coming)) {
            (Some(member), Some(join)) => Step::AddLearner(replica_id(member.node, join), member.node),
            _ => Step::Nothing,
        }
    }

    /// Whether a learner is the replica that the plan asks for.
    fn expected(&self, one: &Replica) -> bool {
        self.coming.is_some_and(|coming| {
            coming.index_of(one.node).is_some()
                && join_at(coming).map(|join| replica_id(one.node, join)) == Some(one.id)
        })
    }

    fn follow_committee(&self, voters: &BTreeSet<NodeId>, seats: &BTreeSet<NodeId>) -> Step {
        if let Some(height) = self.uncertified {
            return Step::Certificate(height);
        }
        let id = |node: &NodeId| self.replicas.iter().find(|one| one.node == *node).map(|one| one.id);
        let Some(ids) = seats.iter().map(id).collect::<Option<Vec<u64>>>() else {
            // One that was ready as a learner is one no more; its id is that of the epoch it joined with.
            let lost = seats.iter().find(|node| id(node).is_none());
            return match (lost, join_at(self.current)) {
                (Some(node), Some(join)) => Step::AddLearner(replica_id(*node, join), *node),
                _ => Step::Nothing,
            };
        };
        let has_log = |node: &&NodeId| {
            let reached = self.role.replicated.iter().find(|(other, _)| other == *node);
            **node == self.node || reached.is_some_and(|(_, upto)| *upto + LAG_MAX >= self.role.last_log_index)
        };
        let ready = seats.iter().filter(has_log).count();
        let needed = (seats.len() / 2 + 2).min(seats.len());
        let joined = seats.difference(voters).all(|node| has_log(&node));
        if ready < needed || !joined {
            return Step::Nothing;
        }
        if seats.contains(&self.node) {
            return Step::ChangeVoters(ids);
        }
        let reached = |node: &&NodeId| self.role.replicated.iter().find(|(other, _)| other == *node).map(|one| one.1);
        match seats.intersection(voters).max_by_key(reached) {
            Some(heir) => Step::HandOver(*heir),
            // Nobody of the old committee stays: the new voters elect one of them.
            None => Step::ChangeVoters(ids),
        }
    }
}

/// Looks and acts until the group stops.
pub async fn drive(node: NodeId, handle: Arc<GroupHandle>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let role = handle.role();
        if !role.leads && handle.engine.engine().leader_gives_votes() {
            continue;
        }
        let step = match look(node, &handle, &role) {
            Ok(step) => step,
            Err(fault) => {
                tracing::warn!(group = %handle.group, %fault, "the committee cannot be read");
                continue;
            }
        };
        if let Err(error) = act(&handle, step.clone()).await {
            tracing::debug!(group = %handle.group, ?step, %error, "a change of members waits");
        }
    }
}

fn look(node: NodeId, handle: &GroupHandle, role: &RoleView) -> Result<Step, ReadFault> {
    if !handle.engine.engine().leader_gives_votes() {
        return Ok(uncertified_handover(handle)?.map_or(Step::Nothing, Step::Certificate));
    }
    let Some(replicas) = handle.engine.replicas() else { return Ok(Step::Nothing) };
    let state = &handle.share.state;
    let current: Option<Committee> = state.load(&schema::current_committee(handle.group))?;
    let coming: Option<Committee> = state.load(&schema::coming_committee())?;
    let Some(current) = current else { return Ok(Step::Nothing) };
    let facts = Facts {
        node,
        current: &current,
        coming: coming.as_ref(),
        uncertified: uncertified_handover(handle)?,
        replicas: &replicas,
        role,
    };
    Ok(facts.next())
}

/// The first block of a group: 0, unless others were cut or joined into it.
///
/// # Errors
/// [`ReadFault`] when the database fails or is closed.
pub fn first_block(handle: &GroupHandle) -> Result<Height, ReadFault> {
    let origin: Option<Origin> = handle.share.state.load(&schema::origin())?;
    Ok(origin.map_or(Height(0), |origin| origin.first))
}

/// The heights of all blocks of a group after which another committee of its own signs, ascending.
///
/// # Errors
/// [`ReadFault`] when the database fails or is closed.
pub fn handovers(handle: &GroupHandle) -> Result<Vec<Height>, ReadFault> {
    // Of blocks before its first one others see to it, who may be gone.
    let first = first_block(handle)?;
    let mut blocks = handovers_under(handle, schema::HANDOVER_PREFIX)?;
    blocks.retain(|height| *height >= first);
    Ok(blocks)
}

/// The heights in the keys that go on like this with a height, ascending.
///
/// # Errors
/// [`ReadFault`] when the database fails or is closed.
pub fn handovers_under(handle: &GroupHandle, prefix: &[u8]) -> Result<Vec<Height>, ReadFault> {
    let db = handle.share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    let found = db.scan(KeyRange::prefix(prefix), usize::MAX).map_err(|error| ReadFault(error.to_string()))?;
    let height = |key: &[u8]| -> Option<Height> {
        let bytes: [u8; 8] = key.strip_prefix(prefix)?.try_into().ok()?;
        Some(Height(u64::from_be_bytes(bytes)))
    };
    Ok(found.iter().filter_map(|(key, _)| height(key)).collect())
}

/// The lowest block that hands over and whose certificate is missing here.
///
/// # Errors
/// [`ReadFault`] when the database fails or is closed.
pub fn uncertified_handover(handle: &GroupHandle) -> Result<Option<Height>, ReadFault> {
    for height in handovers(handle)? {
        if handle.share.state.load::<Certificate>(&schema::certificate(height))?.is_none() {
            return Ok(Some(height));
        }
    }
    Ok(None)
}

async fn act(handle: &GroupHandle, step: Step) -> Result<(), SequencerError> {
    let group = handle.group;
    match step {
        Step::Nothing => Ok(()),
        Step::Certificate(height) => {
            handle.want_certificate(height);
            Ok(())
        }
        Step::AddLearner(id, node) => {
            tracing::info!(%group, %node, "a node joins, as a learner first");
            // The kept snapshot may be older than the certificate of a hand-over that it contains; without
            // that certificate nobody takes it.
            if handovers(handle).is_ok_and(|blocks| !blocks.is_empty()) {
                handle.engine.snapshot_now().await?;
            }
            handle.engine.add_learner(id, node).await
        }
        Step::RemoveLearners(ids) => handle.engine.remove_learners(ids).await,
        Step::HandOver(node) => {
            tracing::info!(%group, %node, "this node has no seat any more and hands over");
            handle.engine.transfer_leader(node).await
        }
        Step::ChangeVoters(ids) => {
            tracing::info!(%group, "the voters follow the committee");
            handle.engine.change_voters(ids).await
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;

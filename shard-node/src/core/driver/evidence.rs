//! Evidence: proofs that a member has voted twice, on their way into the group's state and to the beacon.
//!
//! Owns what is not in state yet, and whom to tell. A member that has a proof gives it to the one that leads, again and
//! again until the state has it. The beacon decides what follows for the node: the leader tells it of what the state
//! has, as long as the node has a seat, and whoever has a proof against the leader itself tells it, too. Everything
//! here may be lost but what is in state; nothing is taken without being judged.

use std::collections::BTreeMap;

use ledger::ballot::Equivocation;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Tick};
use ledger::limits::EVIDENCE_PER_MEMBER_MAX;

use crate::core::driver::{CommittedBlock, GroupDriver, Output};
use crate::core::machine::CommandOutcome;
use crate::core::peer::PeerMessage;

/// Between two times that the same is proposed, or given to the one that leads.
const AGAIN_MS: u64 = 1_000;
/// Between two times that the beacon is told the same.
const BEACON_EVERY_MS: u64 = 10_000;
/// Proofs that may wait for their place in state. The first ones say enough.
const OPEN_MAX: usize = 64;
/// Proofs in state that are remembered here.
const KEPT_MAX: usize = 1024;

/// What a replica knows of double votes.
#[derive(Default)]
pub(super) struct Witness {
    /// Judged, and not in state yet, by name.
    open: BTreeMap<Hash32, Equivocation>,
    /// In state.
    kept: BTreeMap<Hash32, Equivocation>,
    /// When the open ones were passed on last.
    passed: Option<Tick>,
    /// When the beacon was told last.
    told: Option<Tick>,
}

impl Witness {
    /// Starts over from what is in state. What was not there yet still has to get there.
    pub(super) fn reset(&mut self, kept: Vec<Equivocation>) {
        self.kept.clear();
        kept.into_iter().for_each(|proof| self.settle(proof));
    }

    /// Who leads has changed: whoever leads now has not been told anything.
    pub(super) fn leadership_changed(&mut self) {
        (self.passed, self.told) = (None, None);
    }

    fn knows(&self, id: &Hash32) -> bool {
        self.open.contains_key(id) || self.kept.contains_key(id)
    }

    /// Whether the state has as many proofs against a member of a committee as it keeps. A liar makes a new one with
    /// every ballot, and the group is not to be busy with nothing else.
    fn has_enough(&self, proof: &Equivocation) -> bool {
        let about = |proof: &Equivocation| (proof.first.ballot.committee, proof.node());
        let same = self.kept.values().filter(|kept| about(kept) == about(proof));
        same.count() >= EVIDENCE_PER_MEMBER_MAX
    }

    fn settle(&mut self, proof: Equivocation) {
        let id = proof.id();
        self.open.remove(&id);
        if self.kept.insert(id, proof).is_none() {
            self.told = None;
        }
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_first();
        }
    }
}

/// Whether something that was done then may be done again.
fn due(now: Tick, last: Option<Tick>, every_ms: u64) -> bool {
    last.is_none_or(|at| now.0 >= at.0 + every_ms)
}

impl GroupDriver {
    /// Takes a proof of this replica's engine, or of a peer. The beacon takes what members of any group have signed.
    pub(super) fn take_evidence(&mut self, proof: Equivocation) {
        let ballot = &proof.first.ballot;
        let (own, id) = (self.config.group, proof.id());
        let foreign = ballot.group != own && own != GroupId::BEACON;
        let known = self.witness.knows(&id) || self.witness.has_enough(&proof);
        if foreign || known || self.witness.open.len() >= OPEN_MAX {
            return;
        }
        let cluster = self.certifier.header(self.certifier.last()).map(|(header, _)| header.cluster);
        let committee = self.committees.named(ballot.group, &ballot.committee);
        let (Some(cluster), Some(committee)) = (cluster, committee) else { return };
        if committee.engine.bears_liars() && proof.verify(&cluster, committee).is_ok() {
            self.witness.open.insert(id, proof);
            self.witness.passed = None;
        }
    }

    /// A block has taken proofs, of whomever.
    pub(super) fn witnessed(&mut self, block: &CommittedBlock) {
        for outcome in &block.outcomes {
            if let CommandOutcome::Evidence(proof) = outcome {
                self.batcher.drop_evidence(&proof.id());
                self.witness.settle(**proof);
            }
        }
    }

    /// Passes on what is not where it belongs yet.
    pub(super) fn pass_evidence(&mut self, now: Tick, out: &mut Vec<Output>) {
        if !self.witness.open.is_empty() && due(now, self.witness.passed, AGAIN_MS) {
            self.witness.passed = Some(now);
            for proof in self.witness.open.values() {
                if self.leads {
                    self.batcher.push_evidence(*proof);
                } else if let Some(leader) = self.leader.filter(|leader| *leader != proof.node()) {
                    let message = PeerMessage::Evidence(*proof);
                    out.push(Output::Send { node: leader, group: self.config.group, message });
                }
            }
        }
        if self.config.group != GroupId::BEACON && due(now, self.witness.told, BEACON_EVERY_MS) {
            let told = self.for_the_beacon();
            if !told.is_empty() {
                self.witness.told = Some(now);
            }
            for node in self.nodes_of(GroupId::BEACON) {
                out.extend(told.iter().map(|proof| Output::Send {
                    node,
                    group: GroupId::BEACON,
                    message: PeerMessage::Evidence(*proof),
                }));
            }
        }
    }

    /// What this replica has to tell the beacon: the leader, whatever the state has against those with a seat; others,
    /// what the leader will not propose, since it is about the leader.
    fn for_the_beacon(&self) -> Vec<Equivocation> {
        let seated = |proof: &&Equivocation| {
            self.own_committee().is_some_and(|committee| committee.index_of(proof.node()).is_some())
        };
        if self.leads {
            return self.witness.kept.values().filter(seated).copied().collect();
        }
        self.witness.open.values().filter(|proof| self.leader == Some(proof.node())).copied().collect()
    }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;

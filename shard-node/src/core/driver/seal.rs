//! A group that is sealed: it stands still, and proves to the beacon where.
//!
//! Owns what the driver does from the block that took a seal to the one that takes it back. It proposes nothing but the
//! beacon's word that it may go on, hears the beacon alone, and gives back what was given to it. Whoever leads sends the
//! proof of the last block again and again, until the host says that the job is committed. All of it may be lost: the seal
//! is in state, and so is what the proof is made of, beside its certificate.

use beacon::jobs::commit::SEALED_PROOF_VERSION;
use beacon::jobs::{RootShape, SealedProof};
use cross_shard::{Bundle, Message};
use ledger::ids::{GroupId, JobId, Tick};
use ledger::lineage::SealedBy;
use ledger::reject::Reject;

use crate::core::driver::{CommittedBlock, GroupDriver, Output};
use crate::core::peer::PeerMessage;

/// Between two times that the beacon is told the same.
const AGAIN_MS: u64 = 100;
/// Bundles of the beacon that are kept until one says that the group may go on: all go into one entry, and so many fit. A
/// seal lasts a few seconds, so the beacon has written less than that meanwhile.
const HELD_MAX: usize = 3;

/// A seal in force, with what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The seal, and the block that took it.
    pub by: SealedBy,
    /// What stands at the top of both halves of the state, or of the whole: see [`crate::core::records::seal_shapes`].
    pub shapes: Vec<RootShape>,
}

/// How this replica stands still.
#[derive(Default)]
pub(super) struct Sealing {
    standing: Option<Standstill>,
    /// The job is committed: what the group had is the children's.
    over: bool,
    /// When the beacon was told last.
    told: Option<Tick>,
    /// Bundles of the beacon, in order, none of which takes the seal back.
    held: Vec<Bundle>,
}

impl Sealing {
    /// Whether the group stands still.
    pub(super) fn stands(&self) -> bool {
        self.standing.is_some()
    }

    /// Why nothing is taken from clients; `None` while the group goes on.
    pub(super) fn refusal(&self) -> Option<Reject> {
        self.standing.as_ref().map(|_| if self.over { Reject::Moved } else { Reject::Sealing })
    }

    /// What was proposed or kept is lost, or nobody is led any more.
    pub(super) fn lost(&mut self) {
        self.held.clear();
        self.told = None;
    }

    /// Keeps a bundle of the beacon. With the one that takes the seal back, returns all that are to be proposed.
    fn hold(&mut self, bundle: Bundle) -> Vec<Bundle> {
        let Some(standing) = &self.standing else { return vec![bundle] };
        let job = standing.by.seal.job;
        let goes_on = bundle
            .messages
            .iter()
            .any(|message| matches!(borsh::from_slice::<Message>(message), Ok(Message::Unseal(of)) if of == job));
        self.held.push(bundle);
        if goes_on { std::mem::take(&mut self.held) } else { Vec::new() }
    }
}

/// Whether the beacon has the group stand still by this, or go on: payers wait for what follows on it.
fn is_urgent(bundle: &Bundle) -> bool {
    let of_seal =
        |message: &Vec<u8>| matches!(borsh::from_slice::<Message>(message), Ok(Message::Seal(_) | Message::Unseal(_)));
    bundle.source == GroupId::BEACON && bundle.messages.iter().any(of_seal)
}

impl GroupDriver {
    /// Starts over from what is in state.
    pub(super) fn reset_seal(&mut self, sealed: Option<Standstill>, out: &mut Vec<Output>) {
        match sealed {
            Some(standing) => self.stand_still(standing, out),
            None => self.go_on(),
        }
    }

    /// A block has taken a seal, or taken one back; in this order, if both.
    pub(super) fn follow_seal(&mut self, block: &CommittedBlock, out: &mut Vec<Output>) {
        if let Some(by) = &block.sealed {
            self.stand_still(Standstill { by: by.clone(), shapes: block.shapes.clone() }, out);
        } else if block.unsealed {
            self.go_on();
        }
    }

    /// What was in flight and what waits goes back to its senders: what stands behind this block is void, and who leads
    /// the children is not known yet.
    fn stand_still(&mut self, standing: Standstill, out: &mut Vec<Output>) {
        let over = self.sealing.over && self.sealing.standing.as_ref() == Some(&standing);
        self.sealing = Sealing { standing: Some(standing), over, ..Sealing::default() };
        self.mailroom.stand_still(true);
        self.mailroom.proposals_lost();
        self.witness.leadership_changed();
        let mut txs = self.batcher.lose_in_flight();
        txs.extend(self.batcher.clear());
        self.batcher.stand_still(true);
        if let (false, Some(reject)) = (txs.is_empty(), self.sealing.refusal()) {
            out.push(Output::Refuse { txs, reject });
        }
    }

    fn go_on(&mut self) {
        self.sealing = Sealing::default();
        self.mailroom.stand_still(false);
        self.batcher.stand_still(false);
    }

    /// The cluster has a layout in which this group is no more.
    pub(super) fn job_committed(&mut self, job: JobId) {
        if self.sealing.standing.as_ref().is_some_and(|standing| standing.by.seal.job == job) {
            self.sealing.over = true;
        }
    }

    /// Takes a bundle that continues what this replica has. Of a group that stands still only the beacon's are taken, and
    /// they are proposed together with the one that lets it go on.
    pub(super) fn bundle(&mut self, bundle: Bundle) {
        let stands = self.sealing.stands();
        if !self.leads || !self.batcher.has_room_for_bundle() || stands && bundle.source != GroupId::BEACON {
            return;
        }
        let Some(bundle) = self.mailroom.accept(bundle, &self.config, &self.committees) else { return };
        let urgent = is_urgent(&bundle);
        for bundle in self.sealing.hold(bundle) {
            self.batcher.push_bundle(bundle);
        }
        if urgent {
            self.batcher.hurry();
        }
        if self.sealing.held.len() > HELD_MAX {
            self.sealing.held.clear();
            self.mailroom.proposals_lost();
        }
    }

    /// An entry of this replica has left the pipeline. If the group stands still all the same, it was void, and what was
    /// in it was not taken.
    pub(super) fn void_if_sealed(&mut self) {
        if self.sealing.stands() {
            self.mailroom.proposals_lost();
            self.sealing.held.clear();
        }
    }

    /// Tells the beacon where this group stands, until it is known there.
    pub(super) fn prove_seal(&mut self, now: Tick, out: &mut Vec<Output>) {
        let due = self.sealing.told.is_none_or(|at| now.0 >= at.0 + AGAIN_MS);
        if !self.leads || self.sealing.over || !due {
            return;
        }
        let Some(standing) = &self.sealing.standing else { return };
        let latest = self.certifier.latest();
        let Some(last) = latest.filter(|latest| latest.certificate.header.height == standing.by.height) else { return };
        let proof = SealedProof {
            version: SEALED_PROOF_VERSION,
            job: standing.by.seal.job,
            certificate: last.certificate.clone(),
            inbox: last.inbox.clone(),
            roots: standing.shapes.iter().map(RootShape::root).collect(),
            shapes: standing.shapes.clone(),
        };
        self.sealing.told = Some(now);
        out.extend(self.nodes_of(GroupId::BEACON).into_iter().map(|node| Output::Send {
            node,
            group: GroupId::BEACON,
            message: PeerMessage::Sealed(proof.clone()),
        }));
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;

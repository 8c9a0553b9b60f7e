//! The proof that a prepared committee can take over: signatures of those who join, over a header that
//! the committee in force has certified. A member whose key is replaced counts as one that joins: it signs with both, and
//! by the second shows that it has it.
//!
//! Whoever joins signs as a member will, as soon as it has the state and, under the Byzantine engine, its vote; the leader
//! gathers that and sends the proof to the beacon, again and again until the committee is in force. All of it may be lost.

use std::collections::BTreeMap;

use beacon::Readiness;
use beacon::seats::{READINESS_VERSION, join_at, new_signers};
use ledger::certificate::Attestation;
use ledger::committee::Committee;
use ledger::crypto::{self, PublicKey, Signature};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, Tick};

use crate::core::driver::{GroupDriver, Output};
use crate::core::peer::PeerMessage;

/// Between two announcements of the same.
const AGAIN_MS: u64 = 500;
/// Heights that signatures of those who join are kept for, the highest.
const HEIGHTS_MAX: usize = 64;

/// Signatures of those who join, and what was sent.
#[derive(Default)]
pub(super) struct Ready {
    coming: Option<Hash32>,
    /// The last block when this replica heard of the plan. On blocks up to it, a replica that an earlier plan
    /// had begun on the same node may have signed, without having heard of this one.
    known_at: Height,
    signatures: BTreeMap<Height, BTreeMap<NodeId, Signature>>,
    proof: Option<Readiness>,
    announced: Option<Tick>,
}

impl Ready {
    /// Forgets what belongs to another plan.
    pub(super) fn keep_for(&mut self, coming: Option<&Committee>, known_at: Height) {
        let hash = coming.map(Committee::hash);
        if self.coming != hash {
            *self = Self { coming: hash, known_at, ..Self::default() };
        }
    }
}

impl GroupDriver {
    /// Whether this replica is about to join, and may say so. One that its node has left over from an earlier time in the
    /// group is not, though the plan names the node: the host removes that one and begins with another, and
    /// on the old one's word a committee would come into force that lacks a member. The same goes for one that has
    /// no vote yet.
    pub(super) fn joins(&self) -> bool {
        let join = self.committees.coming().and_then(join_at);
        join == Some(self.config.join)
            && self.committees.joins(self.config.group, self.config.node)
            && self.would_vote()
    }

    /// Whether this replica votes as soon as its committee is in force. Raft gives a seat and a vote together. Under the
    /// Byzantine engine one that joins is admitted to vote by members of the committee in force that vote
    /// themselves, and a group counts on the votes of all whom a committee names. Were it only admitted behind the change,
    /// members that wait for each other could be too many to go on, and one that is silent could keep another one out.
    fn would_vote(&self) -> bool {
        let current = self.own_committee().or(self.committees.coming());
        self.votes || current.is_none_or(|current| current.engine.leader_gives_votes())
    }

    /// A node that is about to join has signed a header.
    pub(super) fn joiner_signed(&mut self, now: Tick, attestation: &Attestation, out: &mut Vec<Output>) {
        let node = attestation.node;
        let key = self.committees.coming().and_then(|coming| Some(coming.members[coming.index_of(node)?].key));
        if let Some(key) = key {
            self.note_signature(now, attestation, &key, out);
        }
    }

    /// A member has signed a header. Returns whether it did so with the key that it is about to have, which counts for the
    /// proof and for no certificate.
    pub(super) fn renewed_signed(&mut self, now: Tick, attestation: &Attestation, out: &mut Vec<Output>) -> bool {
        let next = self.committees.next_key(self.config.group, attestation.node);
        next.is_some_and(|key| self.note_signature(now, attestation, &key, out))
    }

    /// Keeps a signature of one that the prepared committee names by this key. Returns whether it holds.
    fn note_signature(&mut self, now: Tick, attestation: &Attestation, key: &PublicKey, out: &mut Vec<Output>) -> bool {
        let Attestation { node, height, header_hash, signature, .. } = *attestation;
        let own = self.certifier.header(height).map(|(_, hash)| hash);
        if own != Some(header_hash) || crypto::verify(key, &header_hash, &signature).is_err() {
            return false;
        }
        if height > self.ready.known_at {
            self.ready.signatures.entry(height).or_default().insert(node, signature);
            while self.ready.signatures.len() > HEIGHTS_MAX {
                self.ready.signatures.pop_first();
            }
            self.prove_readiness(now, height, out);
        }
        true
    }

    /// Signs a block with the next key as well, where the committee that is prepared names this replica by another one than
    /// it has. A leader that has made the proof needs no more of that; once another one leads, it has to make its own, as the
    /// one that was made here may have been lost with the lead.
    pub(super) fn sign_renewed(&mut self, now: Tick, height: Height, out: &mut Vec<Output>) {
        let (group, node) = (self.config.group, self.config.node);
        let proved = self.leads && self.ready.proof.is_some();
        let Some(public) = self.committees.next_key(group, node).filter(|_| !proved) else { return };
        let (Some(key), Some((_, header_hash))) = (self.config.key.of(&public), self.certifier.header(height)) else {
            return;
        };
        let attestation = Attestation { group, height, header_hash, node, signature: key.sign(&header_hash) };
        // A leader makes the proof by itself.
        let others = self.nodes_of(group).into_iter().filter(|other| *other != node && !self.leads);
        out.extend(others.map(|other| Output::Send {
            node: other,
            group,
            message: PeerMessage::Attest { attestation: attestation.clone(), wants_certificate: false },
        }));
        self.note_signature(now, &attestation, &public, out);
    }

    /// The block that hands over is certified by those who were there before, so it proves nothing to the
    /// committee in force; and whoever joins proves nothing by its signature of the block that brought the plan.
    /// Where nothing else comes, the leader makes another one that does.
    fn go_on_behind_plan(&mut self, height: Height) {
        let Some(current) = self.own_committee() else { return };
        let named = self.certifier.header(height).map(|(header, _)| header.committee_hash);
        let joins = self.committees.coming().is_some_and(|coming| !new_signers(current, coming).is_empty());
        let proves = named == Some(current.hash()) && (height > self.ready.known_at || !joins);
        if self.leads && self.certifier.last() == height && !proves {
            self.batcher.deadline_due();
        }
    }

    /// Makes the proof when a certified header has the signatures of all who join.
    pub(super) fn prove_readiness(&mut self, now: Tick, height: Height, out: &mut Vec<Output>) {
        if !self.leads || self.ready.proof.is_some() {
            return;
        }
        let (Some(current), Some(coming)) = (self.own_committee(), self.committees.coming()) else { return };
        let joining = new_signers(current, coming);
        let signed = self.ready.signatures.get(&height);
        let signatures: Option<Vec<(NodeId, Signature)>> =
            joining.iter().map(|node| Some((*node, *signed?.get(node)?))).collect();
        let certificate = self.certifier.certificate(height);
        let certificate = certificate.filter(|found| found.header.committee_hash == current.hash());
        let (Some(signatures), Some(certificate)) = (signatures, certificate) else { return };
        let proof = Readiness {
            version: READINESS_VERSION,
            coming: coming.hash(),
            certificate: certificate.clone(),
            signatures,
        };
        self.ready.proof = Some(proof);
        self.ready.announced = None;
        self.repeat_readiness(now, out);
    }

    /// Sends again what may have been lost: a leader its proof, one that joins its last signature.
    pub(super) fn repeat_readiness(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.committees.coming().is_none() || self.ready.announced.is_some_and(|at| now.0 < at.0 + AGAIN_MS) {
            return;
        }
        let (own, node) = (self.config.group, self.config.node);
        if self.committees.next_key(own, node).is_some() {
            let height = self.attested();
            self.sign_renewed(now, height, out);
            if !self.leads {
                self.ready.announced = Some(now);
                return;
            }
        }
        if self.leads && self.ready.proof.is_none() {
            // Whoever leads since a moment ago has seen no certificate come, and where nobody joins, no signature.
            let last = self.certifier.last();
            self.prove_readiness(now, last, out);
            self.go_on_behind_plan(last);
            return;
        }
        if self.joins() {
            // What it passed before it knew of the plan, it has not signed yet.
            let height = self.attested();
            let signed = self.certifier.own(height).cloned();
            let key = self.key_for(height);
            let sign = || self.certifier.attest(height, &self.config, key.as_ref()?);
            let Some(attestation) = signed.or_else(sign) else { return };
            let members = self.nodes_of(own);
            out.extend(members.into_iter().map(|member| Output::Send {
                node: member,
                group: own,
                message: PeerMessage::Attest { attestation: attestation.clone(), wants_certificate: false },
            }));
            self.ready.announced = Some(now);
        } else if self.leads
            && let Some(proof) = self.ready.proof.clone()
        {
            self.ready.announced = Some(now);
            if own == GroupId::BEACON {
                // The beacon judges its own.
                return self.take_ready(self.config.node, proof);
            }
            out.extend(self.nodes_of(GroupId::BEACON).into_iter().map(|node| Output::Send {
                node,
                group: GroupId::BEACON,
                message: PeerMessage::Ready(proof.clone()),
            }));
        }
    }

    /// Takes a group's proof into the beacon's next entry. It is judged when it is executed; here only
    /// what costs nothing to see is asked for: who sends it, and by which committee it is certified.
    pub(super) fn take_ready(&mut self, from: NodeId, ready: Readiness) {
        let header = &ready.certificate.header;
        if !self.leads || self.config.group != GroupId::BEACON || !self.is_member(header.group, from) {
            return;
        }
        let current = self.committees.current(header.group);
        if current.is_some_and(|current| ready.certificate.verify(current).is_ok()) {
            self.batcher.push_ready(ready);
        }
    }
}

//! What peers say: signatures, certificates, mail, and questions for them.
//!
//! Owns who may say what. Nothing is taken on a peer's word: a message counts for members of the group it
//! speaks of, and what it carries is judged by signatures and proofs.

use beacon::{Contribution, Silence};
use ledger::certificate::Certificate;
use ledger::ids::{GroupId, Height, NodeId, Tick};

use crate::core::driver::attest::fits_checkpoint;
use crate::core::driver::{GroupDriver, Output, certify};
use crate::core::peer::{PeerMessage, Wanted};

impl GroupDriver {
    pub(super) fn peer(&mut self, now: Tick, from: NodeId, message: PeerMessage, out: &mut Vec<Output>) {
        match message {
            PeerMessage::Attest { attestation, wants_certificate } => {
                let own = self.config.group;
                if attestation.node != from || attestation.group != own {
                    return;
                }
                let height = attestation.height;
                if self.committees.joins(own, from) {
                    self.joiner_signed(now, &attestation, out);
                } else if self.is_member(own, from) {
                    if !self.renewed_signed(now, &attestation, out) {
                        self.gather(now, attestation, out);
                    }
                } else {
                    return;
                }
                if wants_certificate {
                    self.give_certificate(height, from, out);
                }
            }
            PeerMessage::Want { height } => {
                let own = self.config.group;
                if self.is_member(own, from) || self.committees.joins(own, from) {
                    self.give_certificate(height, from, out);
                    self.call_for_block(height);
                } else {
                    self.stranger();
                }
            }
            PeerMessage::Certified(certificate) => {
                let height = certificate.header.height;
                if !self.certifier.holds(height) {
                    // One answer of each node is looked at.
                    let member = self.is_member(self.config.group, from);
                    if self.wanted.get_mut(&height).is_some_and(|(_, nodes)| member && nodes.insert(from)) {
                        out.push(Output::Late(certificate));
                    }
                    return;
                }
                let Some(committee) = self.committee_at(height).cloned() else { return };
                match self.certifier.adopt(&certificate, &committee) {
                    certify::Adopted::Nothing => {}
                    certify::Adopted::News => self.certified(now, certificate, out),
                    certify::Adopted::Contradiction => {
                        self.confess(&certificate, out);
                        out.push(Output::Stop(contradiction(self.config.group, height)));
                    }
                }
            }
            PeerMessage::Pull { dest, node, next_seq, ack } => {
                if !self.serves(dest, from, out) {
                    return;
                }
                if let Some(ack) = ack {
                    self.take_ack(ack, out);
                }
                if node == from {
                    let latest = self.certifier.latest();
                    let committees = &self.committees;
                    self.mailroom.subscribe(&self.config, now, dest, node, next_seq, latest, committees, out);
                }
            }
            PeerMessage::Bundle(bundle) => self.mail_arrives(now, from, bundle, out),
            PeerMessage::Probe { dest, next_seq } => {
                if self.serves(dest, from, out) {
                    self.mailroom.probed(dest, from, next_seq, self.certifier.latest(), out);
                }
            }
            PeerMessage::Head(proof) => {
                let source = proof.certificate.header.group;
                if self.fetches(source) && self.crosses(source, from) {
                    self.mailroom.head(&self.config, now, from, &proof, &self.committees);
                }
            }
            PeerMessage::Serving { source } if source == self.config.group => self.anchor_heard(now, from),
            PeerMessage::Serving { source } => {
                self.mailroom.serving(&self.config, now, source, from, &self.committees);
            }
            PeerMessage::Ack(proof) => self.take_ack(proof, out),
            PeerMessage::Checkpoint(certificate) => self.checkpoint(now, from, certificate, out),
            PeerMessage::Ready(ready) => self.take_ready(from, ready),
            PeerMessage::Evidence(proof) => {
                let members = [proof.first.ballot.group, self.config.group];
                if members.into_iter().any(|group| self.is_member(group, from)) {
                    self.take_evidence(proof);
                    self.pass_evidence(now, out);
                }
            }
            PeerMessage::Silence(report) => self.take_silence(now, from, report),
            PeerMessage::WantTrail { after } => self.give(from, Wanted::Trail(after), out),
            PeerMessage::WantHeaders { after } => self.give(from, Wanted::Headers(after), out),
            PeerMessage::WantStreams { at } => self.give(from, Wanted::Streams(at), out),
            PeerMessage::Audit(entry) => self.take_audit(from, *entry),
            PeerMessage::Contribution(given) => self.take_contribution(now, from, given),
            PeerMessage::Report(report) => self.take_report(now, from, report),
            PeerMessage::Sealed(proof) => self.take_proof(now, from, proof),
        }
        self.flush(now, out);
    }

    /// Takes a group's certificate into the beacon's next entry, from a member of the group and judged
    /// by its committee in force: what is sequenced costs every replica, and a forged height would
    /// stand in the way of the real one.
    fn checkpoint(&mut self, now: Tick, from: NodeId, certificate: Certificate, out: &mut Vec<Output>) {
        let header = &certificate.header;
        if !self.leads || self.config.group != GroupId::BEACON || !fits_checkpoint(&certificate) {
            return;
        }
        let (group, certified, now) = (header.group, header.height, self.stamp(now));
        let Some(committee) = self.committees.current(group) else {
            // A retired shard: its end is known, and its headers up to there may be missing.
            if self.is_member(group, from) {
                out.push(Output::AskTrail { group, node: from, certified, now });
            }
            return;
        };
        if committee.index_of(from).is_none() {
            return;
        }
        // Also behind one that is known: what was asked for may have got lost.
        out.push(Output::AskTrail { group, node: from, certified, now });
        if self.batcher.misses_checkpoint(header) && self.config.checked.verify(&certificate, committee).is_ok() {
            self.batcher.push_checkpoint(certificate);
        }
    }

    /// Takes a node's report on whom it does not hear of into the beacon's next entry. It counts for nodes with a seat
    /// alone, and under their own signature; what it is worth is judged when it is executed.
    fn take_silence(&mut self, now: Tick, from: NodeId, report: Silence) {
        if !self.leads || self.config.group != GroupId::BEACON || report.reporter != from {
            return;
        }
        let keys = self.committees.keys_of(from);
        if self.batcher.misses_silence(now, &report) && keys.iter().any(|key| report.holds(key)) {
            self.batcher.push_silence(now, report);
        }
    }

    /// Takes what a member of the beacon gives to a seed into the next entry, under the member's own signature. Which
    /// epoch and phase it is for is judged when it is executed.
    fn take_contribution(&mut self, now: Tick, from: NodeId, given: Contribution) {
        if !self.leads || self.config.group != GroupId::BEACON || given.node != from {
            return;
        }
        let Some(committee) = self.own_committee() else { return };
        let Some(key) = committee.index_of(from).map(|at| committee.members[at].key) else { return };
        if self.batcher.misses_contribution(now, &given) && given.holds(&key) {
            self.batcher.push_contribution(now, given);
        }
    }

    pub(super) fn is_member(&self, group: GroupId, node: NodeId) -> bool {
        self.committees.speaks_for(group, node)
    }

    /// A leader judges a proof and drops what it covers with the next entry; others pass it on.
    fn take_ack(&mut self, proof: cross_shard::AckProof, out: &mut Vec<Output>) {
        if !self.leads {
            if let Some(leader) = self.leader.filter(|leader| *leader != self.config.node) {
                let message = PeerMessage::Ack(proof);
                out.push(Output::Send { node: leader, group: self.config.group, message });
            }
            return;
        }
        let dest = proof.certificate.header.group;
        if self.mailroom.judge_ack(&proof, &self.config, &self.committees) {
            out.push(Output::PeerTook { dest, next_seq: proof.leaf.next_seq });
            self.batcher.push_ack(dest, proof);
        }
    }
}

/// Why a replica that a certificate contradicts has to stop.
#[must_use]
pub fn contradiction(group: GroupId, height: Height) -> String {
    format!(
        "a majority certified another header than this replica has at height {height} of {group}: its state is wrong"
    )
}

#[cfg(test)]
#[path = "hear_tests.rs"]
mod tests;

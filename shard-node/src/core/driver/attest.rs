//! Attesting: blocks in order, once what has to be checked of them is checked, and what follows a
//! certificate.
//!
//! Owns the order in which this replica signs. Nothing is attested on top of a block that carries a
//! signature which does not hold, before earlier blocks are checked again, or on a state that another node
//! gave and the committee has not certified. A block is signed with the key by which its own committee names this replica,
//! whichever the node has by now.

use std::collections::BTreeSet;
use std::sync::Arc;

use beacon::limits::CHECKPOINT_BYTES_MAX;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::crypto::SecretKey;
use ledger::genesis::VerifyMode;
use ledger::ids::{GroupId, Height, NodeId, Tick, TimeMs};
use ledger::tx::ParsedTx;

use crate::core::driver::{Cause, CertifiedBlock, GroupDriver, Output, certify};
use crate::core::peer::PeerMessage;

/// How long certificates that the host wants are asked for.
pub(super) const WANTED_MS: u64 = 3_000;
/// A block that is no older is of about now: whoever may read can ask for a later one, and each costs every replica a
/// signature and a sync.
pub(super) const FRESH_MS: u64 = 60_000;

impl GroupDriver {
    /// Attests at once, or after the host has checked the client signatures of the block.
    pub(super) fn attest_checked(&mut self, now: Tick, height: Height, txs: Arc<Vec<ParsedTx>>, out: &mut Vec<Output>) {
        if self.distrusts.is_some_and(|forged| height >= forged) {
            return;
        }
        self.unattested.insert(height, txs.is_empty());
        if !txs.is_empty() {
            out.push(Output::Verify { height, txs });
        }
        self.attest_ready(now, out);
    }

    pub(super) fn verified(&mut self, now: Tick, height: Height, valid: bool, out: &mut Vec<Output>) {
        if !valid {
            return self.distrust(height, out);
        }
        if let Some(checked) = self.unattested.get_mut(&height) {
            *checked = true;
        }
        self.attest_ready(now, out);
    }

    pub(super) fn rechecked(&mut self, now: Tick, upto: Height, forged: Option<Height>, out: &mut Vec<Output>) {
        if let Some(height) = forged {
            self.distrust(height, out);
        }
        if self.rechecking == Some(upto) {
            self.rechecking = None;
            if forged.is_none() {
                out.push(Output::Checked(upto));
            }
        }
        self.attest_ready(now, out);
    }

    /// A block carries a signature that does not hold: neither it nor what is built on it is attested,
    /// now or after a restart.
    pub(super) fn distrust(&mut self, height: Height, out: &mut Vec<Output>) {
        let lowest = self.distrusts.map_or(height, |known| known.min(height));
        self.distrusts = Some(lowest);
        self.unattested.split_off(&lowest);
        out.push(Output::Forged(lowest));
        out.push(Output::Alarm {
            cause: Cause::ForgedBlock,
            text: format!(
                "block {height} of {} carries a signature that does not hold; this replica attests neither it nor \
                 anything after it: its leader forged or its memory is damaged",
                self.config.group
            ),
        });
    }

    /// The first block that this replica may sign; `None` while there is none.
    ///
    /// What it has executed from a state of its own it may sign. The block of a snapshot and those
    /// before it others have executed: it signs them when the committee has certified that block or a
    /// later one. Until then, in `ingest`, where the members trust each other with what is executed, it
    /// signs what it computes itself on top of the snapshot, if it knows a certified header (or block 0)
    /// that the snapshot's headers lead on from, not far below: so of three members two suffice, one of
    /// which was rebuilt. In `every` no member is taken at its word, and it waits.
    fn attestable_from(&self) -> Option<Height> {
        match self.unproved {
            None => Some(Height(0)),
            Some(installed) => self.may_sign_behind(installed).then(|| installed.next()),
        }
    }

    pub(super) fn attest_ready(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.rechecking.is_some() {
            return;
        }
        let Some(from) = self.attestable_from() else { return };
        let mut passed = None;
        while let Some((height, _)) = self.unattested.range(from..).next().filter(|(_, checked)| **checked) {
            let height = *height;
            self.unattested.remove(&height);
            if self.distrusts.is_none_or(|forged| height < forged) {
                self.attested = self.attested.max(height);
                passed = Some(height);
                self.attest(now, height, out);
            }
        }
        out.extend(passed.map(Output::Checked));
    }

    /// A member cannot sign our last block, since its state came from another one at that block. It can
    /// sign the next one, so a leader makes one, if need be an empty one. Not so far beyond the last
    /// certificate that the member could not sign that either.
    pub(super) fn call_for_block(&mut self, height: Height) {
        let open = self.certifier.last() == height && self.certifier.certificate(height).is_none();
        if self.leads && open && self.may_sign_behind(height) {
            self.batcher.deadline_due();
        }
    }

    /// Somebody is to be proved what the group holds as of about now, and where nothing happens its last block may be days
    /// old: a leader makes one, if need be an empty one. Nobody certifies block 0.
    pub(super) fn refresh(&mut self, now: Tick, out: &mut Vec<Output>) {
        let last = self.certifier.header(self.certifier.last()).map(|(header, _)| (header.height, header.time_ms));
        let fresh = |(height, time): (Height, TimeMs)| {
            height > Height(0) && self.stamp(now).0 < time.0.saturating_add(FRESH_MS)
        };
        if self.leads && !last.is_some_and(fresh) {
            self.batcher.deadline_due();
            self.flush(now, out);
        }
    }

    /// Whether a member whose state came from another one at this block may sign later ones: see
    /// [`GroupDriver::attestable_from`].
    fn may_sign_behind(&self, installed: Height) -> bool {
        let known = self.certifier.latest().map_or(0, |latest| latest.certificate.header.height.0);
        self.config.verify == VerifyMode::Ingest && known.saturating_add(certify::WINDOW) >= installed.0
    }

    fn attest(&mut self, now: Tick, height: Height, out: &mut Vec<Output>) {
        let Some(committee) = self.committee_at(height) else { return };
        let seated = committee.index_of(self.config.node).is_some();
        if !seated && !self.joins() {
            return;
        }
        let others: Vec<NodeId> =
            committee.members.iter().map(|member| member.node).filter(|node| *node != self.config.node).collect();
        let Some(key) = self.key_for(height) else { return };
        let Some(attestation) = self.certifier.attest(height, &self.config, &key) else { return };
        for node in others {
            let message = PeerMessage::Attest { attestation: attestation.clone(), wants_certificate: false };
            out.push(Output::Send { node, group: self.config.group, message });
        }
        // The signature of one that is about to join is for the others to count, and not for a certificate.
        if seated {
            self.gather(now, attestation, out);
            self.sign_renewed(now, height, out);
        }
    }

    /// The key that this replica signs a block with: the one by which the committee that judges the block names it, or, if it
    /// is about to join, the one that is prepared. `None` while the node does not hold that key.
    pub(super) fn key_for(&self, height: Height) -> Option<SecretKey> {
        let node = self.config.node;
        let named = |committee: &Committee| committee.index_of(node).map(|at| committee.members[at].key);
        let judge = self.committee_at(height).and_then(named);
        let public = judge.or_else(|| self.committees.coming().and_then(named))?;
        self.config.key.of(&public)
    }

    /// The committee that judges a block: the one that its header names, while it is at hand, else the
    /// one in force.
    pub(super) fn committee_at(&self, height: Height) -> Option<&Committee> {
        let header = self.certifier.header(height);
        let named = header.and_then(|(header, _)| self.committees.named(self.config.group, &header.committee_hash));
        named.or_else(|| self.own_committee())
    }

    pub(super) fn gather(&mut self, now: Tick, attestation: ledger::Attestation, out: &mut Vec<Output>) {
        let Some(committee) = self.committee_at(attestation.height).cloned() else { return };
        match self.certifier.gather(attestation, &committee) {
            certify::Gathered::Nothing => {}
            certify::Gathered::Divergence(node, height) => out.push(Output::Alarm {
                cause: Cause::Divergence(node),
                text: format!(
                    "node {node} signed another header than this replica at height {height} of {}",
                    self.config.group
                ),
            }),
            certify::Gathered::Certificate(certificate) => self.certified(now, *certificate, out),
        }
    }

    pub(super) fn certified(&mut self, now: Tick, certificate: Certificate, out: &mut Vec<Output>) {
        let height = certificate.header.height;
        self.wanted.remove(&height);
        if let Some(installed) = self.unproved {
            self.unproved = (height < installed).then_some(installed);
            self.attest_ready(now, out);
        }
        let newest = self.certifier.latest().is_some_and(|latest| latest.certificate.header.height == height);
        if self.hands_over(&certificate)
            && let Some(block) = self.certifier.certified_at(height)
        {
            self.mailroom.handed_over(block);
        }
        if newest {
            if self.leads
                && self.config.group != GroupId::BEACON
                && height.0 >= self.last_checkpoint.0 + self.config.checkpoint_every
                && fits_checkpoint(&certificate)
            {
                self.last_checkpoint = height;
                self.show(now, &certificate, out);
            }
            let stand = self.stand();
            if let Some(latest) = self.certifier.latest() {
                self.mailroom.certified(&self.config, stand, now, latest, &self.committees, out);
            }
        }
        out.push(Output::Certified(certificate));
        self.prove_readiness(now, height, out);
        self.prove_seal(now, out);
    }

    /// A certificate that was missing here has come from a replica that keeps it.
    pub(super) fn found(&mut self, block: CertifiedBlock) {
        let CertifiedBlock { certificate, outbox, inbox } = block;
        if self.hands_over(&certificate) {
            self.mailroom.handed_over(certify::Certified { certificate, outbox, inbox });
        }
    }

    /// Whether mail is served by this certificate also when there are later ones: it is of a block of the beacon behind
    /// which another committee certifies.
    fn hands_over(&self, certificate: &Certificate) -> bool {
        let header = &certificate.header;
        self.config.group == GroupId::BEACON && header.next_committee_hash != header.committee_hash
    }

    /// Answers a replica that misses a certificate: with that one, at once or as soon as the host has
    /// found it, or with what helps it to make its own.
    pub(super) fn give_certificate(&self, height: Height, node: NodeId, out: &mut Vec<Output>) {
        let mut send = |message| out.push(Output::Send { node, group: self.config.group, message });
        if let Some(certificate) = self.certifier.certificate(height) {
            return send(PeerMessage::Certified(certificate.clone()));
        }
        if let Some(own) = self.certifier.own(height) {
            send(PeerMessage::Attest { attestation: own.clone(), wants_certificate: false });
        }
        if let Some(latest) = self.certifier.latest().filter(|latest| latest.certificate.header.height < height) {
            return send(PeerMessage::Certified(latest.certificate.clone()));
        }
        if height <= self.certifier.last() && !self.certifier.holds(height) {
            out.push(Output::Lookup { height, node });
        }
    }

    /// Whether this replica has its seat since a block that was the former committee's to certify, and that
    /// it has neither signed nor seen certified: it has started since. Its signatures ask for nothing then,
    /// and as a leader it would prove what it has taken by an older block, until there is another one.
    fn was_handed_over_at(&self, height: Height) -> bool {
        let seated = |committee: &Committee| committee.index_of(self.config.node).is_some();
        self.own_committee().is_some_and(seated)
            && self.committee_at(height).is_some_and(|judges| !seated(judges))
            && self.certifier.own(height).is_none()
            && self.certifier.certificate(height).is_none()
    }

    /// Asks the other replicas for certificates that are missed here and that a signature of ours does
    /// not ask for already.
    pub(super) fn ask_for_certificates(&mut self, now: Tick, out: &mut Vec<Output>) {
        self.wanted.retain(|_, (since, _)| now.0 < since.0 + WANTED_MS);
        if self.asked.is_some_and(|at| now.0 < at.0 + certify::ANNOUNCE_AGAIN_MS) {
            return;
        }
        let last = self.certifier.last();
        let unsigned = self.attestable_from().is_none_or(|from| last < from);
        let unproved = self.unproved.filter(|_| unsigned).map(|_| last);
        let handed_over = self.was_handed_over_at(last).then_some(last);
        let heights: Vec<Height> = self.wanted.keys().copied().chain(unproved.or(handed_over)).collect();
        if heights.is_empty() {
            return;
        }
        self.asked = Some(now);
        for height in heights {
            // Of a block that hands over, those who signed it may be others than those in force.
            let judges = self.own_committee().into_iter().chain(self.committee_at(height));
            let mut nodes: BTreeSet<NodeId> =
                judges.flat_map(|committee| &committee.members).map(|member| member.node).collect();
            nodes.remove(&self.config.node);
            out.extend(nodes.into_iter().map(|node| Output::Send {
                node,
                group: self.config.group,
                message: PeerMessage::Want { height },
            }));
        }
    }
}

/// Whether the beacon takes a certificate of this size. A block that touched very many assets has a
/// larger header; the group then checkpoints with its next one.
pub(super) fn fits_checkpoint(certificate: &Certificate) -> bool {
    borsh::object_length(certificate).is_ok_and(|bytes| bytes <= CHECKPOINT_BYTES_MAX)
}

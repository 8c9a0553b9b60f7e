//! The audit, as far as replicas carry it: the beacon's leader takes trails and proofs into its next entry, and a replica
//! that finds its own state contradicted says so.
//!
//! Owns whom the beacon listens to, and that nothing forged is sequenced. What it is worth is for [`beacon::audit`].

use beacon::AuditEntry;
use beacon::audit::Divergent;
use beacon::limits::CHECKPOINT_AGAIN_MS;
use ledger::certificate::Certificate;
use ledger::ids::{GroupId, NodeId, Tick};

use crate::core::driver::attest::fits_checkpoint;
use crate::core::driver::{GroupDriver, Output};
use crate::core::peer::{PeerMessage, Wanted};

impl GroupDriver {
    /// Takes what a member of the group that it is about, or of the beacon, brings. Of a shard that is gone, whoever came of
    /// it has the headers.
    pub(super) fn take_audit(&mut self, from: NodeId, entry: AuditEntry) {
        let group = entry.group();
        let member = [group, GroupId::BEACON].into_iter().any(|group| self.is_member(group, from));
        let heard = member || (self.committees.current(group).is_none() && self.has_seat(from));
        if !self.leads || self.config.group != GroupId::BEACON || !heard {
            return;
        }
        if self.batcher.misses_audit(&entry) && self.is_certified(&entry) {
            self.batcher.push_audit(entry);
        }
    }

    /// Gives a member of the beacon what the audit wants of this group.
    pub(super) fn give(&self, node: NodeId, wanted: Wanted, out: &mut Vec<Output>) {
        if self.config.group != GroupId::BEACON && self.is_member(GroupId::BEACON, node) {
            out.push(Output::GiveTrail { node, wanted });
        }
    }

    fn has_seat(&self, node: NodeId) -> bool {
        self.committees.all().any(|(_, committee)| committee.index_of(node).is_some())
    }

    /// Whether a committee that is known here certified what is brought.
    fn is_certified(&self, entry: &AuditEntry) -> bool {
        let holds = |certificate: &Certificate| {
            let header = &certificate.header;
            let committee = self.committees.named(header.group, &header.committee_hash);
            committee.is_some_and(|committee| certificate.verify(committee).is_ok())
        };
        match entry {
            AuditEntry::Trail(trail) => holds(&trail.certificate),
            AuditEntry::Divergent(divergent) => holds(&divergent.certificate),
            AuditEntry::Twice(twice) => holds(&twice.first) && holds(&twice.second),
        }
    }

    /// This replica has another header than its committee has certified. It tells the beacon before it stops: nobody else
    /// has the header that proves it.
    pub(super) fn confess(&self, certificate: &Certificate, out: &mut Vec<Output>) {
        let Some((own, _)) = self.certifier.header(certificate.header.height) else { return };
        if !fits_checkpoint(certificate) {
            return;
        }
        let (group, node) = (self.config.group, self.config.node);
        let Some(committee) = self.committees.named(group, &certificate.header.committee_hash) else { return };
        let Some(at) = committee.index_of(node) else { return };
        let Some(key) = self.config.key.of(&committee.members[at].key) else { return };
        let confessed = Divergent::sign(own.clone(), node, &key, certificate.clone());
        for node in self.nodes_of(GroupId::BEACON) {
            let message = PeerMessage::Audit(Box::new(AuditEntry::Divergent(confessed.clone())));
            out.push(Output::Send { node, group: GroupId::BEACON, message });
        }
    }

    /// Shows the beacon the last certificate, if it was shown none for a while: a group that rests is audited to its end,
    /// and what got lost is asked for again.
    pub(super) fn show_again(&mut self, now: Tick, out: &mut Vec<Output>) {
        let due = self.shown.is_none_or(|at| now.0 >= at.0 + CHECKPOINT_AGAIN_MS);
        let Some(latest) = self.certifier.latest().filter(|_| due) else { return };
        if self.leads && self.config.group != GroupId::BEACON && fits_checkpoint(&latest.certificate) {
            let certificate = latest.certificate.clone();
            self.show(now, &certificate, out);
        }
    }

    /// Shows the beacon a certificate.
    pub(super) fn show(&mut self, now: Tick, certificate: &Certificate, out: &mut Vec<Output>) {
        self.shown = Some(now);
        for node in self.nodes_of(GroupId::BEACON) {
            let message = PeerMessage::Checkpoint(certificate.clone());
            out.push(Output::Send { node, group: GroupId::BEACON, message });
        }
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;

//! Messages between groups: what reading them costs at the member that they come to, what proves something and has to be
//! checked, and how they leave.

use beacon::AuditEntry;
use ledger::certificate::Certificate;
use ledger::checked::Checked;
use ledger::ids::{GroupId, NodeId};
use shard_node::core::driver::Output;
use shard_node::core::peer::PeerMessage;

use crate::scale::group::{Event, Group};
use crate::scale::model::{Ns, Work};

/// A message on its way to another group.
pub(in crate::scale) struct Letter {
    /// When it comes.
    pub(in crate::scale) at: Ns,
    pub(in crate::scale) source: GroupId,
    /// Counts the letters of the source, so that all have one order.
    pub(in crate::scale) number: u64,
    pub(in crate::scale) dest: GroupId,
    from: NodeId,
    to: NodeId,
    message: Box<PeerMessage>,
}

impl Group {
    /// Takes a letter, for the moment at which it comes.
    pub(super) fn post(&mut self, letter: Letter) {
        let Letter { at, from, to, message, .. } = letter;
        if let Ok(member) = self.seats.members.binary_search(&to) {
            self.later(at, Event::Arrives { from, member, message });
        }
    }

    /// Sends a message to another group. A destination is served by the member that it asks. On a connection nothing
    /// overtakes what was sent before.
    pub(super) fn send(&mut self, now: Ns, member: usize, to: NodeId, dest: GroupId, message: PeerMessage) {
        let by = match &message {
            PeerMessage::Bundle(_) | PeerMessage::Ack(_) => self.asked.get(&dest).copied().unwrap_or(member),
            _ => member,
        };
        let work = work_of(&message);
        // Headers are read before they are written.
        let times = if matches!(message, PeerMessage::Audit(_)) { 2 } else { 1 };
        let cost = times * self.handling(&message);
        let sent = self.take(by, now, cost, work, true);
        let quickest = sent + self.hop();
        let latest = self.arrivals.entry(dest).or_default();
        let at = quickest.max(*latest);
        *latest = at;
        self.written += 1;
        if self.counts(now) {
            match work {
                Work::Order | Work::Audit => self.stats.messages.checkpoints += 1,
                _ => self.stats.messages.mail += 1,
            }
        }
        let from = self.seats.members[by];
        let number = self.written;
        self.letters.push(Letter { at, source: self.id, number, dest, from, to, message: Box::new(message) });
    }

    /// The trees from which the paths in these messages come: one of the outgoing streams, one of the incoming ones.
    pub(super) fn take_paths(&mut self, now: Ns, out: &[Output]) {
        let (mut bundles, mut acks) = (false, false);
        for output in out {
            if let Output::Send { group, message, .. } = output
                && *group != self.id
            {
                bundles |= matches!(message, PeerMessage::Bundle(_) | PeerMessage::Head(_));
                acks |= matches!(message, PeerMessage::Pull { ack: Some(_), .. } | PeerMessage::Ack(_));
            }
        }
        let (outgoing, incoming) = self.streams;
        let path = self.setting.constants.path_ns;
        let leader = self.seats.leader;
        if bundles {
            self.take(leader, now, path * outgoing as u64, Work::Mail, true);
        }
        if acks {
            self.take(leader, now, path * incoming as u64, Work::Pulls, true);
        }
    }

    /// What it takes to write a message, or to read it. All but trails are of about the same size.
    fn handling(&self, message: &PeerMessage) -> Ns {
        let PeerMessage::Audit(entry) = message else { return self.setting.constants.message_ns };
        self.setting.constants.message(borsh::object_length(&**entry).unwrap_or_default())
    }

    /// What it takes to judge a certificate: signatures that were checked are not checked again.
    fn judging(&self, certificate: &Certificate) -> Ns {
        let news = self.judged.remember(Checked::name(certificate, &certificate.header.committee_hash));
        self.setting.constants.certificate(if news { certificate.signatures.len() } else { 0 })
    }

    /// A message has come to a member's node, which reads it and checks what it proves, if that is news.
    pub(super) fn arrives(&mut self, now: Ns, from: NodeId, member: usize, message: Box<PeerMessage>) {
        if !self.started {
            return;
        }
        let (constants, leader) = (self.setting.constants, self.seats.leader);
        let work = work_of(&message);
        let handling = self.handling(&message);
        let mut done = self.take(member, now, handling, work, true);
        match &*message {
            PeerMessage::Attest { .. } => done = self.take(member, done, constants.check_ns, work, true),
            PeerMessage::Pull { dest, ack, .. } => {
                self.asked.insert(*dest, member);
                let known = self.proved.entry(*dest).or_default();
                if let Some(ack) = ack.as_ref().filter(|ack| ack.leaf.next_seq > *known) {
                    *known = ack.leaf.next_seq;
                    if member != leader {
                        // It is passed on to the one that leads.
                        let passed = self.take(member, done, constants.message_ns, Work::Acks, true) + self.hop();
                        done = self.take(leader, passed, constants.message_ns, Work::Acks, true);
                        if self.counts(now) {
                            self.stats.messages.mail += 1;
                        }
                    }
                    let check = self.judging(&ack.certificate);
                    done = self.take(leader, done, check, Work::Acks, true);
                }
            }
            PeerMessage::Ack(ack) => {
                let known = self.proved.entry(ack.certificate.header.group).or_default();
                if ack.leaf.next_seq > *known {
                    *known = ack.leaf.next_seq;
                    let check = self.judging(&ack.certificate);
                    done = self.take(member, done, check, work, true);
                }
            }
            PeerMessage::Bundle(bundle) => {
                let end = bundle.first_seq + bundle.messages.len() as u64;
                let known = self.taken.entry(bundle.source).or_default();
                if end > *known {
                    *known = end;
                    let check = self.judging(&bundle.certificate);
                    done = self.take(member, done, check, work, true);
                }
            }
            PeerMessage::Head(proof) => {
                let known = self.taken.get(&proof.certificate.header.group).copied().unwrap_or_default();
                if proof.leaf.next_seq > known {
                    let check = self.judging(&proof.certificate);
                    done = self.take(member, done, check, work, true);
                }
            }
            PeerMessage::Checkpoint(certificate) => {
                // All members of the beacon are told, and the one that leads takes it.
                if member != leader {
                    return;
                }
                let check = self.judging(certificate);
                done = self.take(member, done, check, work, true);
            }
            PeerMessage::Audit(entry) => {
                // The leader checks the certificate, which nobody remembers, and writes all of it twice: once for its
                // name, once into an entry. Whether one of the group waits already, its driver alone knows.
                let signatures = match &**entry {
                    AuditEntry::Trail(trail) => trail.certificate.signatures.len(),
                    AuditEntry::Divergent(_) | AuditEntry::Twice(_) => 0,
                };
                let judge = constants.certificate(signatures) + 2 * handling;
                done = self.take(member, done, judge, work, true);
            }
            PeerMessage::Serving { .. }
            | PeerMessage::Probe { .. }
            | PeerMessage::Certified(_)
            | PeerMessage::Want { .. }
            | PeerMessage::Ready(_)
            | PeerMessage::Evidence(_)
            | PeerMessage::Silence(_)
            | PeerMessage::WantTrail { .. }
            | PeerMessage::WantHeaders { .. }
            | PeerMessage::WantStreams { .. }
            | PeerMessage::Contribution(_)
            | PeerMessage::Report(_)
            | PeerMessage::Sealed(_) => {}
        }
        self.later(done, Event::Peer { from, member, message });
    }
}

/// What a message is part of.
fn work_of(message: &PeerMessage) -> Work {
    match message {
        PeerMessage::Bundle(_) | PeerMessage::Head(_) => Work::Mail,
        PeerMessage::Ack(_) => Work::Acks,
        PeerMessage::Pull { .. } | PeerMessage::Serving { .. } | PeerMessage::Probe { .. } => Work::Pulls,
        PeerMessage::Attest { .. } | PeerMessage::Certified(_) | PeerMessage::Want { .. } => Work::Certify,
        PeerMessage::WantTrail { .. }
        | PeerMessage::WantHeaders { .. }
        | PeerMessage::WantStreams { .. }
        | PeerMessage::Audit(_) => Work::Audit,
        PeerMessage::Checkpoint(_)
        | PeerMessage::Ready(_)
        | PeerMessage::Evidence(_)
        | PeerMessage::Silence(_)
        | PeerMessage::Contribution(_)
        | PeerMessage::Report(_)
        | PeerMessage::Sealed(_) => Work::Order,
    }
}

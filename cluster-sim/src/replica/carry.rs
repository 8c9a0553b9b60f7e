//! What engine and driver ask for, carried out as a host does.
//!
//! Owns the host's duties towards both; blocks are persisted in `commit`.

use std::collections::VecDeque;

use beacon::AuditEntry;
use bytes::Bytes;
use consensus::local;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::genesis::VerifyMode;
use ledger::header::Header;
use ledger::ids::{GroupId, Height};
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::View;
use shard_node::core::driver::{self, CertifiedBlock};
use shard_node::core::marks;
use shard_node::core::peer::PeerMessage;
use shard_node::core::recheck;
use shard_node::core::records::BlockRecord;
use shard_node::core::trail;
use storage::kv::{Kv, WriteBatch};

use crate::checkers::Seen;
use crate::host::Waiters;
use crate::replica::{Effect, Job, Replica, encoded};
use crate::sabotage::Sabotage;
use crate::seat;
use crate::state::{self, KvState};
use crate::wire::Wire;

impl Replica {
    pub(super) fn engine_output(
        &mut self,
        output: local::Output,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        match output {
            local::Output::Send(to, message) => {
                let (group, stint) = (self.group, live.stint);
                let Some(message) = self.let_through(seat::node_of(to), message) else { return Ok(()) };
                let wire = Wire::Engine { group, stint, from: self.seat(), to, message };
                out.push(Effect::Send(seat::node_of(to), wire));
            }
            local::Output::Persist(write) => {
                if self.sabotage == Some(Sabotage::EarlySync) {
                    jobs.push_back(Job::Engine(local::Input::Synced(write.sequence)));
                }
                self.disk.write(write);
                if !live.sync_due {
                    live.sync_due = true;
                    out.push(Effect::SyncLater(self.group));
                }
            }
            local::Output::Committed(committed) => self.commit(committed, jobs, out)?,
            local::Output::Role(view) => {
                let (lost, stint) = (live.leads && !view.leads, live.stint);
                let leader = view.leader.map(seat::node_of);
                live.leads = view.leads;
                live.leader = leader;
                if !view.leads {
                    live.proposals.clear();
                }
                let sent_away = if lost { live.waiters.leadership_lost(leader) } else { Vec::new() };
                self.answer(sent_away, out);
                out.push(Effect::Saw(Seen::Role {
                    node: self.node,
                    group: self.group,
                    leads: view.leads,
                    stint,
                    term: view.term,
                }));
                jobs.push_back(Job::Driver(driver::Input::Role { leads: view.leads, leader }));
            }
            local::Output::Lacking(leader) => self.lack(seat::node_of(leader), out),
            local::Output::Rejected(entry) => {
                if let Some(at) = live.proposals.iter().position(|(_, proposed)| *proposed == entry) {
                    let lost = live.proposals.remove(at);
                    jobs.extend(lost.map(|(id, _)| Job::Driver(driver::Input::Proposed { id, accepted: false })));
                }
            }
        }
        Ok(())
    }

    pub(super) fn driver_output(&mut self, output: driver::Output, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        if let driver::Output::Send { node, group, message: PeerMessage::Attest { .. } } = &output
            && *group == self.group
            && self.keeps_apart(*node)
        {
            return;
        }
        if let driver::Output::Send { node, group, message } = &output
            && *group == self.group
            && self.withholds(*node, message.tells_of())
        {
            return;
        }
        let aside = self.stands_aside();
        let Some(live) = &mut self.live else { return };
        match output {
            // What nobody is sent makes the log longer than those of the others, who need this vote. It is told that it
            // leads no more when they have elected one.
            driver::Output::Propose { .. } if aside => {}
            driver::Output::Propose { id, entry } => {
                live.proposals.push_back((id, entry.clone()));
                if self.sabotage == Some(Sabotage::ReplyOnPropose) {
                    self.reply_early(&entry, out);
                }
                jobs.push_back(Self::bft_submit(id, entry.clone()));
                jobs.push_back(Job::Engine(local::Input::Propose(entry)));
            }
            // The beacon would move the seats of whoever is accused, and those of the genesis do not move in most runs.
            driver::Output::Send { group, message: PeerMessage::Evidence(_), .. }
                if group != self.group && (!self.accuses || self.sabotage == Some(Sabotage::EvidenceUntold)) => {}
            driver::Output::Send { node, group, message } => {
                if group == self.group && matches!(message, PeerMessage::Bundle(_)) {
                    out.push(Effect::PassedOn);
                }
                out.push(Effect::Send(node, Wire::Peer { group, message: Box::new(message) }));
            }
            driver::Output::Verify { height, txs } => {
                let valid = txs.iter().all(|tx| tx.verify_signatures().is_ok());
                out.push(Effect::CheckLater(self.group, height, valid));
            }
            driver::Output::Recheck { from, upto } => match self.recheck(from, upto) {
                Ok(forged) => jobs.push_back(Job::Driver(driver::Input::Rechecked { upto, forged })),
                Err(error) => out.push(Effect::Broken(error)),
            },
            driver::Output::Checked(height) => self.mark(marks::checked(), &height, out),
            driver::Output::Forged(height) => self.mark(marks::forged(), &height, out),
            driver::Output::Lookup { height, node } => match state::find(&self.kv, &schema::certificate(height)) {
                Ok(Some(_)) if self.withholds(node, Some(height)) => {}
                Ok(Some(certificate)) => {
                    let message = Box::new(PeerMessage::Certified(certificate));
                    out.push(Effect::Send(node, Wire::Peer { group: self.group, message }));
                }
                Ok(None) => {}
                Err(error) => out.push(Effect::Broken(error)),
            },
            driver::Output::AskTrail { group, node, certified, now } => {
                match trail::missed(&KvState { kv: &self.kv, hide_receipts: false }, group, certified, now) {
                    Ok(Some(wanted)) => {
                        let message = Box::new(PeerMessage::want(wanted));
                        out.push(Effect::Send(node, Wire::Peer { group, message }));
                    }
                    Ok(None) => {}
                    Err(fault) => out.push(Effect::Broken(fault.to_string())),
                }
            }
            driver::Output::GiveTrail { node, wanted } => {
                match trail::given(&KvState { kv: &self.kv, hide_receipts: false }, wanted) {
                    Ok(Some(trail)) => {
                        let message = Box::new(PeerMessage::Audit(Box::new(AuditEntry::Trail(trail))));
                        out.push(Effect::Send(node, Wire::Peer { group: GroupId::BEACON, message }));
                    }
                    Ok(None) => {}
                    Err(fault) => out.push(Effect::Broken(fault.to_string())),
                }
            }
            driver::Output::Late(certificate) => match self.late(certificate) {
                Ok(found) => {
                    jobs.extend(found.map(|block| Job::Driver(driver::Input::Found(Box::new(block)))));
                }
                Err(why) => out.push(Effect::Broken(why)),
            },
            driver::Output::Certified(certificate) => {
                let mut batch = WriteBatch::with_capacity(1);
                batch.put(schema::certificate(certificate.header.height), encoded(&certificate));
                // That of a block that hands over is durable at once: those who signed it may leave.
                let hands_over = self.kv.get(&schema::handover(certificate.header.height));
                let kept = self.kv.write(batch).and_then(|()| match hands_over? {
                    Some(_) => self.kv.flush(),
                    None => Ok(()),
                });
                if let Err(error) = kept {
                    out.push(Effect::Broken(error.to_string()));
                }
                let certificate = Box::new(certificate);
                out.push(Effect::Saw(Seen::Certified { node: self.node, group: self.group, certificate }));
            }
            driver::Output::PeerTook { dest, next_seq } => {
                out.push(Effect::Saw(Seen::PeerTook { node: self.node, group: self.group, dest, next_seq }));
                let answers = live.waiters.taken(dest, next_seq);
                self.answer(answers, out);
            }
            driver::Output::Refuse { txs, reject } => self.refuse(&txs, reject, out),
            // Anchors may be away for as long as a fault lasts.
            driver::Output::Alarm { cause: driver::Cause::Anchors(_), .. }
            | driver::Output::AlarmEnded(_)
            | driver::Output::Stray { .. } => {}
            driver::Output::Alarm { text, .. } | driver::Output::Stop(text) => {
                out.push(Effect::Broken(format!("alarm on node {}: {text}", self.node)));
            }
        }
    }

    /// Judges the certificate of an earlier block that was asked for, and keeps it: as a host does.
    fn late(&self, certificate: Certificate) -> Result<Option<CertifiedBlock>, String> {
        let header = &certificate.header;
        let named = schema::committee(self.group, &header.committee_hash);
        let own: Option<Header> = state::find(&self.kv, &schema::header(header.height))?;
        let committee: Option<Committee> = state::find(&self.kv, &named)?;
        let (Some(own), Some(committee)) = (own, committee) else { return Ok(None) };
        if certificate.verify(&committee).is_err() {
            return Ok(None);
        }
        if own != *header {
            return Err(driver::contradiction(self.group, header.height));
        }
        let mut batch = WriteBatch::with_capacity(1);
        batch.put(schema::certificate(header.height), encoded(&certificate));
        self.kv.write(batch).and_then(|()| self.kv.flush()).map_err(|error| error.to_string())?;
        let BlockRecord { outbox, inbox, .. } = state::load(&self.kv, &schema::block(header.height))?;
        Ok(Some(CertifiedBlock { certificate, outbox, inbox }))
    }

    /// Keeps a mark of this node, as a host that checks signatures does.
    fn mark(&self, key: Vec<u8>, height: &Height, out: &mut Vec<Effect>) {
        if self.genesis.verify == VerifyMode::Every {
            let mut batch = WriteBatch::with_capacity(1);
            batch.put(key, encoded(height));
            if let Err(error) = self.kv.write(batch) {
                out.push(Effect::Broken(error.to_string()));
            }
        }
    }

    /// The lowest block of the database with a signature that does not hold.
    fn recheck(&self, from: Height, upto: Height) -> Result<Option<Height>, String> {
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        for height in (from.0..=upto.0).map(Height) {
            let txs = recheck::transactions(&mut View::new(&reader), height).map_err(|error| error.to_string())?;
            if !txs.is_some_and(|txs| txs.iter().all(|tx| tx.verify_signatures().is_ok())) {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    fn refuse(&mut self, txs: &[Bytes], reject: Reject, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        let reply = Waiters::refusal(reject, live.leader);
        let mut answers = Vec::new();
        for tx in txs {
            if let Ok(tx) = ParsedTx::decode(&self.constants.cluster, tx) {
                answers.extend(live.waiters.refuse(&tx.txid, &reply));
            }
        }
        self.answer(answers, out);
    }
}

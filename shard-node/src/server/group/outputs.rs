//! What a group's driver asks for, carried out: proposals, messages, checks of signatures, certificates.
//!
//! Owns no state of its own. It waits for nothing: what takes time goes to tasks and threads of its own,
//! and comes back to the driver as an input.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use beacon::AuditEntry;
use bytes::Bytes;
use ledger::Certificate;
use ledger::committee::Committee;
use ledger::genesis::VerifyMode;
use ledger::header::{FLAG_SEALED, Header};
use ledger::ids::{GroupId, Height, NodeId, TimeMs};
use ledger::machine::Driver;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::ReadFault;
use storage::WriteBatch;

use crate::core::driver::{CertifiedBlock, Input, Output, contradiction};
use crate::core::marks;
use crate::core::peer::{PeerMessage, Wanted};
use crate::core::records::BlockRecord;
use crate::core::trail;
use crate::server::alarms::Cause;
use crate::server::checks;
use crate::server::group::task::GroupTask;
use crate::server::group::with_reader;
use crate::server::ingest::id_of;
use crate::server::replica::ReplicaShare;

impl GroupTask {
    pub(super) fn step(&mut self, input: Input) {
        if self.share.halt.is_stopped() {
            return;
        }
        let mut out = Vec::new();
        let from = if let Input::Peer { from, .. } = &input { Some(*from) } else { None };
        let strangers = self.driver.strangers();
        self.driver.step(self.context.clock.tick(), input, &mut out);
        if let Some(from) = from.filter(|_| self.driver.strangers() > strangers) {
            self.context.links.unanswered(self.group, from);
        }
        self.attested.store(self.driver.attested().0, Ordering::Relaxed);
        for output in out {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Propose { id, entry } => {
                if self.proposals.try_send((id, entry)).is_err() {
                    self.deferred.push(Input::Proposed { id, accepted: false });
                }
            }
            Output::Send { node, group, message } => {
                if node == self.context.node && group == self.group {
                    self.feed(Input::Peer { from: node, message: Box::new(message) });
                } else if group == self.group {
                    self.send_to_member(node, &message);
                } else {
                    self.context.links.send(node, group, Bytes::from(message.encode()));
                }
            }
            Output::Verify { height, txs } => self.verify(height, txs),
            Output::Recheck { from, upto } => self.recheck(from, upto),
            Output::Checked(height) => {
                if self.context.verify == VerifyMode::Every {
                    self.mark(marks::checked(), &height);
                }
            }
            Output::Forged(height) => self.mark(marks::forged(), &height),
            Output::Late(certificate) => self.late(certificate),
            Output::Lookup { height, node } => self.lookup(height, node),
            Output::AskTrail { group, node, certified, now } => self.ask_trail(group, node, certified, now),
            Output::GiveTrail { node, wanted } => self.give_trail(node, wanted),
            Output::Certified(certificate) => self.keep(certificate),
            Output::PeerTook { dest, next_seq } => self.waiters.taken(dest, next_seq),
            Output::Refuse { txs, reject } => {
                if reject == Reject::NotLeader && self.leads {
                    self.lost_proposals.store(true, Ordering::Release);
                }
                for bytes in txs {
                    if let Some(txid) = id_of(&self.context.genesis.cluster_id(), &bytes) {
                        self.waiters.refuse(&txid, &bytes, reject, self.leader);
                    }
                }
            }
            Output::Alarm { cause, text } => self.alarms.last(Cause::Driver(cause), text),
            Output::AlarmEnded(cause) => self.alarms.end(Cause::Driver(cause)),
            Output::Stray { dest, node } => {
                let refused = self.driver.refused_pulls();
                tracing::info!(group = %self.group, %dest, %node, refused, "mail was asked for past the anchors");
            }
            Output::Stop(reason) => self.wrong(reason),
        }
    }

    /// Sends a message to another replica of this group, unless its node is not to have it any more.
    fn send_to_member(&self, node: NodeId, message: &PeerMessage) {
        let links = &self.context.links;
        if !links.withholds(&self.share, self.group, node, message) {
            links.send(node, self.group, Bytes::from(message.encode()));
        }
    }

    /// Gives the driver an input of our own making, after what is being done.
    fn feed(&self, input: Input) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.try_send(input);
        }
    }

    /// Checks a block's signatures on other threads, leaving out what this node checked itself.
    fn verify(&self, height: Height, txs: Arc<Vec<ParsedTx>>) {
        let (inputs, known, halt) = (self.inputs.clone(), self.known.clone(), self.share.halt.clone());
        self.context.tasks.spawn(async move {
            let checking = tokio::task::spawn_blocking(move || known.all_hold(&txs));
            let Some(valid) = checks::finished(&halt, &format!("block {height}"), checking).await else { return };
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.send(Input::Verified { height, valid }).await;
            }
        });
    }

    /// Checks blocks of the database again, on other threads.
    fn recheck(&self, from: Height, upto: Height) {
        tracing::info!(group = %self.group, %from, %upto, "checking the client signatures of earlier blocks");
        let (inputs, known, halt) = (self.inputs.clone(), self.known.clone(), self.share.halt.clone());
        let (state, stop) = (self.share.state.clone(), self.context.stop.clone());
        self.context.tasks.spawn(async move {
            let what = format!("blocks {from} to {upto}");
            let checking = tokio::task::spawn_blocking(move || checks::recheck(&state, &known, from, upto, &stop));
            match checks::finished(&halt, &what, checking).await {
                Some(Ok(Some(forged))) => {
                    if let Some(inputs) = inputs.upgrade() {
                        let _ = inputs.send(Input::Rechecked { upto, forged }).await;
                    }
                }
                Some(Ok(None)) | None => {}
                Some(Err(fault)) => halt.stop(format!("{what} could not be checked: {fault}")),
            }
        });
    }

    /// Keeps a mark of this node beside the state.
    fn mark<T: borsh::BorshSerialize>(&self, key: Vec<u8>, value: &T) {
        let Some(db) = self.share.state.db() else { return };
        let mut batch = WriteBatch::new();
        batch.put(key, borsh::to_vec(value).expect("writing to memory does not fail"));
        if let Err(error) = db.write(batch) {
            self.alarm(format!("{}: a mark could not be kept: {error}", self.group));
        }
    }

    /// The state is wrong. That must be known after a restart too, before anything is served.
    fn wrong(&self, reason: String) {
        self.mark(marks::wrong(), &reason);
        if let Some(db) = self.share.state.db() {
            let group = self.group;
            let flushing = tokio::task::spawn_blocking(move || db.flush());
            self.context.tasks.spawn(async move {
                if !matches!(flushing.await, Ok(Ok(()))) {
                    tracing::error!(%group, "that the state is wrong may not be remembered: it was not flushed");
                }
            });
        }
        self.share.halt.stop(reason);
    }

    /// A certificate of an earlier block, which only the database can judge.
    fn late(&self, certificate: Certificate) {
        let height = certificate.header.height;
        match judge_late(&self.share, self.group, &certificate) {
            Ok(Late::Holds) => {
                self.keep(certificate.clone());
                self.found(certificate);
            }
            Ok(Late::Contradicts) => self.wrong(contradiction(self.group, height)),
            Ok(Late::Nothing) => {}
            Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }

    /// Tells the driver of a certificate that was missing and is kept now.
    fn found(&self, certificate: Certificate) {
        match self.share.state.load::<BlockRecord>(&schema::block(certificate.header.height)) {
            Ok(Some(BlockRecord { outbox, inbox, .. })) => {
                self.feed(Input::Found(Box::new(CertifiedBlock { certificate, outbox, inbox })));
            }
            Ok(None) => {}
            Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }

    /// Sends a kept certificate to a replica that misses it.
    fn lookup(&self, height: Height, node: NodeId) {
        match self.share.state.load::<Certificate>(&schema::certificate(height)) {
            Ok(Some(certificate)) => self.send_to_member(node, &PeerMessage::Certified(certificate)),
            Ok(None) => {}
            Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }

    /// Asks for what this replica of the beacon misses of a group's headers and streams.
    fn ask_trail(&self, group: GroupId, node: NodeId, certified: Height, now: TimeMs) {
        match with_reader(&self.share, |reader| trail::missed(reader, group, certified, now)) {
            Ok(Ok(Some(wanted))) => {
                let message = PeerMessage::want(wanted);
                self.context.links.send(node, group, Bytes::from(message.encode()));
            }
            Ok(Ok(None)) => {}
            Ok(Err(fault)) | Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
        // Whoever has a replica of a shard has inherited the chains of those that it came from.
        match with_reader(&self.share, |reader| trail::missed_before(reader, group)) {
            Ok(Ok(missed)) => {
                for (gone, wanted) in missed {
                    let message = PeerMessage::want(wanted);
                    self.context.links.send(node, gone, Bytes::from(message.encode()));
                }
            }
            Ok(Err(fault)) | Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }

    /// Reads headers of this group for the beacon, on a thread of its own: they may be many.
    fn give_trail(&self, node: NodeId, wanted: Wanted) {
        let (share, links) = (self.share.clone(), Arc::clone(&self.context.links));
        let group = self.group;
        let Ok(turn) = Arc::clone(&self.trails).try_acquire_owned() else { return };
        self.context.tasks.spawn(async move {
            let _turn = turn;
            let reading =
                tokio::task::spawn_blocking(move || with_reader(&share, |reader| trail::given(reader, wanted)));
            match reading.await {
                Ok(Ok(Ok(Some(trail)))) => {
                    let message = PeerMessage::Audit(Box::new(AuditEntry::Trail(trail)));
                    links.send(node, GroupId::BEACON, Bytes::from(message.encode()));
                }
                Ok(Ok(Ok(None))) => {}
                Ok(Ok(Err(fault)) | Err(fault)) => {
                    tracing::warn!(%group, %fault, "headers for the audit cannot be read")
                }
                Err(error) => tracing::warn!(%group, %error, "headers for the audit were not read"),
            }
        });
    }

    /// Keeps a certificate beside the block. It is node-local: losing it costs a question to a peer. That of
    /// a block that hands over is durable at once, because those who signed it may be gone next time.
    fn keep(&self, certificate: Certificate) {
        if let Some(db) = self.share.state.db() {
            let height = certificate.header.height;
            let mut batch = WriteBatch::new();
            let bytes = borsh::to_vec(&certificate).expect("writing to memory does not fail");
            batch.put(schema::certificate(height), bytes);
            let kept = db.write(batch).and_then(|()| match db.get(&schema::handover(height))? {
                Some(_) => db.flush(),
                None => Ok(()),
            });
            if let Err(error) = kept {
                self.alarm(format!("{}: a certificate could not be kept: {error}", self.group));
            }
        }
        let header = &certificate.header;
        if header.flags & FLAG_SEALED != 0 {
            tracing::info!(group = %self.group, height = %header.height, "the last block of the shard is certified");
        }
        // Also an earlier one is news to whoever waits for it.
        self.certified.send_modify(|latest| {
            if latest.as_ref().is_none_or(|known| known.header.height < certificate.header.height) {
                *latest = Some(certificate);
            }
        });
    }
}

/// What a certificate of an earlier block is worth.
pub(super) enum Late {
    /// It certifies the block that this replica has.
    Holds,
    /// It certifies another one.
    Contradicts,
    /// Nothing.
    Nothing,
}

pub(super) fn judge_late(share: &ReplicaShare, group: GroupId, certificate: &Certificate) -> Result<Late, ReadFault> {
    let header = &certificate.header;
    let own: Option<Header> = share.state.load(&schema::header(header.height))?;
    let committee: Option<Committee> = share.state.load(&schema::committee(group, &header.committee_hash))?;
    let (Some(own), Some(committee)) = (own, committee) else { return Ok(Late::Nothing) };
    Ok(match certificate.verify(&committee) {
        Ok(()) if own == *header => Late::Holds,
        Ok(()) => Late::Contradicts,
        Err(_) => Late::Nothing,
    })
}

//! The node-local half of a replica: batching, attesting, gathering certificates, pulling mail.
//!
//! Volatile and without IO: everything here can be lost at any time and is rebuilt from state and
//! from what peers repeat. It decides what to propose and whom to tell; the host carries it out.
//! `port` is what goes in and comes out, `system` what it starts from, `attest` decides which blocks are
//! signed, `certify` gathers signatures, `audit` shows the beacon what is done, `hear` takes what peers say, `mail` serves and
//! pulls streams, `pace` says how often, `border` says who carries them, `evidence` brings proofs of double votes into state and to the beacon, `batch`
//! fills entries, `seal` stands still for a change of the layout, `jobs` brings what is said of such changes to the beacon.
//! What nodes tell the beacon, whoever they are, comes in by `hear`.

mod attest;
mod audit;
mod batch;
mod book;
mod border;
mod certify;
mod evidence;
mod hear;
mod jobs;
mod mail;
mod pace;
mod port;
mod ready;
mod seal;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::ids::{GroupId, Height, NodeId, Tick, TimeMs};
use ledger::machine::Driver;
use ledger::reject::Reject;

use crate::core::peer::PeerMessage;

use batch::Batcher;
use book::Book;
use border::Border;
use certify::Certifier;
use evidence::Witness;
use mail::Mailroom;
use ready::Ready;
use seal::Sealing;

pub use book::Committees;
pub use hear::contradiction;
pub use pace::credits_wait_ms;
pub use port::{Cause, CommittedBlock, DriverConfig, Input, Output};
pub use seal::Standstill;
pub use system::{CertifiedBlock, OutboxView, RecentBlock, SystemView, committees, streams};

/// Heights that the host may want at a time; what comes on top is not asked for.
const WANTED_MAX: usize = 256;

/// The driver of one replica.
pub struct GroupDriver {
    config: DriverConfig,
    leads: bool,
    /// Another engine is to begin here: nothing is proposed until it says who leads.
    paused: bool,
    leader: Option<NodeId>,
    /// The engine votes as soon as a committee names this replica: see [`Input::Votes`].
    votes: bool,
    clock_offset_ms: i64,
    committees: Book,
    batcher: Batcher,
    certifier: Certifier,
    mailroom: Mailroom,
    border: Border,
    last_checkpoint: Height,
    /// When the beacon was shown a certificate last, or this replica began to lead.
    shown: Option<Tick>,
    /// The earliest deadline in state: once the time is past it, a leader proposes a block, if need
    /// be an empty one.
    next_deadline: Option<TimeMs>,
    /// Blocks whose client signatures are not checked yet, and those behind them: a header commits
    /// to everything before it, so blocks are attested in order.
    unattested: BTreeMap<Height, bool>,
    /// The last block that this replica has attested, and with it all before.
    attested: Height,
    /// A block carried a signature that does not hold; nothing built on it is attested.
    distrusts: Option<Height>,
    /// Blocks up to here are being checked again; nothing is attested before that is done.
    rechecking: Option<Height>,
    /// The state came from another node at this height, and the committee has certified neither that
    /// block nor a later one, which says the same of it. See [`GroupDriver::attestable_from`].
    unproved: Option<Height>,
    /// Certificates that the host wants, since when, and who has answered.
    wanted: BTreeMap<Height, (Tick, BTreeSet<NodeId>)>,
    asked: Option<Tick>,
    /// What shows that the committee which is being prepared can take over.
    ready: Ready,
    /// Proofs that members have voted twice.
    witness: Witness,
    /// The seal in force.
    sealing: Sealing,
}

impl GroupDriver {
    /// A driver that knows nothing yet; give it [`Input::System`] first.
    #[must_use]
    pub fn new(config: DriverConfig) -> Self {
        Self {
            batcher: Batcher::new(config.pipeline),
            certifier: Certifier::default(),
            mailroom: Mailroom::default(),
            border: Border::default(),
            leads: false,
            paused: false,
            leader: None,
            votes: false,
            clock_offset_ms: 0,
            committees: Book::default(),
            last_checkpoint: Height(0),
            shown: None,
            next_deadline: None,
            unattested: BTreeMap::new(),
            attested: Height(0),
            distrusts: None,
            rechecking: None,
            unproved: None,
            wanted: BTreeMap::new(),
            asked: None,
            ready: Ready::default(),
            witness: Witness::default(),
            sealing: Sealing::default(),
            config,
        }
    }

    /// The highest certified header, if any was certified since the start.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certifier.latest().map(|certified| &certified.certificate)
    }

    /// Transactions waiting for a place in an entry.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.batcher.queued()
    }

    /// The block up to which this replica has checked what it has to check and signed the headers.
    #[must_use]
    pub fn attested(&self) -> Height {
        self.attested
    }

    fn own_committee(&self) -> Option<&Committee> {
        self.committees.current(self.config.group)
    }

    fn stamp(&self, now: Tick) -> TimeMs {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        TimeMs(u64::try_from(now.saturating_add(self.clock_offset_ms)).unwrap_or(0))
    }

    /// Nodes that may answer for a group, its likely leader first.
    fn nodes_of(&self, group: GroupId) -> Vec<NodeId> {
        self.committees
            .current(group)
            .map(|committee| committee.members.iter().map(|member| member.node).collect())
            .unwrap_or_default()
    }

    fn system(&mut self, now: Tick, view: SystemView, out: &mut Vec<Output>) {
        self.unattested.clear();
        self.next_deadline = view.next_deadline;
        self.committees(view.committees, out);
        self.mailroom.reset(&view.outbox, &view.inbox);
        self.mailroom.handed_over_at(view.handovers);
        self.witness.reset(view.evidence);
        self.unattested.extend(view.recent.iter().map(|block| (block.header.height, true)));
        let certified = view.certified.as_ref().map(|block| block.certificate.header.height);
        self.certifier.reset(view.height, view.recent, view.certified);
        self.unproved = view.installed.filter(|installed| certified.is_none_or(|height| height < *installed));
        if let Some(forged) = view.forged {
            self.distrust(forged, out);
        }
        self.reset_seal(view.sealed, out);
        self.rechecking = (view.checked < view.height).then_some(view.height);
        if let Some(upto) = self.rechecking {
            out.push(Output::Recheck { from: view.checked.next(), upto });
        }
        self.attest_ready(now, out);
    }

    fn committees(&mut self, committees: Committees, out: &mut Vec<Output>) {
        let before = self.own_committee().map(|committee| committee.engine);
        let known_at = self.certifier.last().max(committees.height);
        let anchors = self.committees.all_anchors().clone();
        let beacon = self.committees.beacon().to_vec();
        self.committees = committees.into();
        self.committees.beacon_is_on(beacon);
        self.ready.keep_for(self.committees.coming(), known_at);
        self.mailroom.keep_subscribers(&self.config, &self.committees);
        self.border_changed(&anchors, out);
        let engine = self.own_committee().map(|committee| committee.engine);
        if before.zip(engine).is_some_and(|(before, now)| before != now) {
            self.engine_changed(out);
        }
    }

    /// The committee that came into force is ordered by another engine. What was given to the one before and stands
    /// behind the last block is void, so it is told as lost, as any proposal that did not get into the log; a
    /// transaction of it that was executed after all is found to have been. What waits goes to the engine that begins,
    /// if this replica leads there, and back to its senders if it does not.
    fn engine_changed(&mut self, out: &mut Vec<Output>) {
        self.paused = self.leads;
        self.votes = false;
        self.mailroom.proposals_lost();
        self.witness.leadership_changed();
        let txs = self.batcher.lose_in_flight();
        if !txs.is_empty() {
            out.push(Output::Refuse { txs, reject: Reject::NotLeader });
        }
    }

    fn committed(&mut self, now: Tick, block: CommittedBlock, out: &mut Vec<Output>) {
        self.next_deadline = block.next_deadline;
        self.mailroom.committed(&block);
        self.witnessed(&block);
        self.follow_seal(&block, out);
        let (height, to_verify) = (block.header.height, Arc::clone(&block.to_verify));
        self.certifier.committed(block);
        self.attest_checked(now, height, to_verify, out);
        self.flush(now, out);
    }

    fn flush(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.leads && !self.paused {
            let stamp = self.stamp(now);
            self.batcher.propose(now, stamp, out);
        }
    }

    fn timer(&mut self, now: Tick, out: &mut Vec<Output>) {
        let uncertified = self.certifier.uncertified(now);
        if let Some(committee) = self.own_committee() {
            for member in committee.members.iter().filter(|member| member.node != self.config.node) {
                out.extend(uncertified.iter().map(|attestation| Output::Send {
                    node: member.node,
                    group: self.config.group,
                    message: PeerMessage::Attest { attestation: attestation.clone(), wants_certificate: true },
                }));
            }
        }
        self.ask_for_certificates(now, out);
        self.repeat_readiness(now, out);
        self.pass_evidence(now, out);
        self.show_again(now, out);
        if self.leads || self.committees.all_anchors().contains_key(&self.config.group) {
            let (stand, has_room) = (self.stand(), !self.leads || self.batcher.has_room_for_bundle());
            self.mailroom.pull(&self.config, stand, now, has_room, self.certifier.latest(), &self.committees, out);
        }
        self.mailroom.serve_waiting(&self.config, now, self.certifier.latest(), &self.committees, out);
        self.watch_border(now, out);
        self.mailroom.expire(now);
        if let Some(installed) = self.unproved {
            self.call_for_block(installed);
        }
        self.prove_seal(now, out);
        if self.leads && self.next_deadline.is_some_and(|deadline| self.stamp(now) > deadline) {
            self.batcher.deadline_due();
        }
        self.flush(now, out);
    }

    fn role(&mut self, now: Tick, leads: bool, leader: Option<NodeId>, out: &mut Vec<Output>) {
        self.leader = leader;
        let resumes = std::mem::take(&mut self.paused);
        if self.leads == leads {
            if resumes {
                self.timer(now, out);
            }
            return;
        }
        self.leads = leads;
        self.shown = Some(now);
        self.mailroom.leadership_changed();
        self.witness.leadership_changed();
        self.sealing.lost();
        let stranded = self.batcher.clear();
        if !leads && !stranded.is_empty() {
            out.push(Output::Refuse { txs: stranded, reject: Reject::NotLeader });
        }
        self.timer(now, out);
    }
}

impl Driver for GroupDriver {
    type Input = Input;
    type Output = Output;

    fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::System(view) => self.system(now, view, out),
            Input::Committees(committees) => {
                self.committees(committees, out);
                for bundle in self.mailroom.unpark() {
                    self.bundle(bundle);
                }
                self.flush(now, out);
            }
            Input::Streams { outbox, inbox } => self.mailroom.reshaped(&outbox, &inbox, &self.committees),
            Input::Report(report) => self.send_report(&report, out),
            Input::JobCommitted(job) => self.job_committed(job),
            Input::Beacon(nodes) => self.committees.beacon_is_on(nodes),
            Input::Role { leads, leader } => self.role(now, leads, leader, out),
            Input::Votes(votes) => {
                self.votes = votes;
                self.repeat_readiness(now, out);
            }
            Input::ClockOffset(offset_ms) => self.clock_offset_ms = offset_ms,
            Input::Submit(txs)
                if self.leads && self.sealing.stands() || self.sealing.refusal() == Some(Reject::Moved) =>
            {
                let reject = self.sealing.refusal().unwrap_or(Reject::NotLeader);
                out.push(Output::Refuse { txs, reject });
            }
            Input::Submit(txs) if self.leads => {
                let refused = self.batcher.push_txs(txs);
                if !refused.is_empty() {
                    out.push(Output::Refuse { txs: refused, reject: Reject::Busy });
                }
                self.flush(now, out);
            }
            Input::Submit(txs) => out.push(Output::Refuse { txs, reject: Reject::NotLeader }),
            Input::Proposed { id, accepted } => {
                if let Some(txs) = self.batcher.proposed(id, accepted) {
                    self.mailroom.proposals_lost();
                    // Their fate is open. Sent again, they are executed once or found to have been.
                    if !txs.is_empty() {
                        let reject = self.sealing.refusal().unwrap_or(Reject::NotLeader);
                        out.push(Output::Refuse { txs, reject });
                    }
                }
                self.void_if_sealed();
                self.flush(now, out);
            }
            Input::Committed(block) => self.committed(now, block, out),
            Input::Verified { height, valid } => self.verified(now, height, valid, out),
            Input::Rechecked { upto, forged } => self.rechecked(now, upto, forged, out),
            Input::Want(height) => {
                if self.wanted.len() < WANTED_MAX {
                    self.wanted.entry(height).or_insert_with(|| (now, BTreeSet::new()));
                    self.asked = None;
                    self.ask_for_certificates(now, out);
                }
            }
            Input::Refresh => self.refresh(now, out),
            Input::Found(block) => self.found(*block),
            Input::Peer { from, message } => self.peer(now, from, *message, out),
            Input::Evidence(proof) => {
                self.take_evidence(*proof);
                self.pass_evidence(now, out);
                self.flush(now, out);
            }
            Input::Timer => self.timer(now, out),
        }
    }
}

#[cfg(test)]
mod beacon_tests;
#[cfg(test)]
mod ready_tests;
#[cfg(test)]
mod renewal_tests;
#[cfg(test)]
mod switch_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

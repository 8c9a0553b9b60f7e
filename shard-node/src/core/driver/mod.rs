//! The node-local half of a replica: batching, attesting, gathering certificates, pulling mail.
//!
//! Volatile and without IO: everything here can be lost at any time and is rebuilt from state and
//! from what peers repeat. It decides what to propose and whom to tell; the host carries it out.
//! `system` is what it starts from, `certify` gathers signatures, `mail` serves and pulls streams,
//! `batch` fills entries.

mod batch;
mod certify;
mod mail;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use beacon::limits::CHECKPOINT_BYTES_MAX;
use bytes::Bytes;
use cross_shard::InCursor;
use cross_shard::stream::StreamLeaf;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::crypto::SecretKey;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, Tick, TimeMs};
use ledger::machine::Driver;
use ledger::reject::Reject;
use ledger::tx::ParsedTx;

use crate::core::executor::EmittedMail;
use crate::core::machine::CommandOutcome;
use crate::core::peer::PeerMessage;

use batch::Batcher;
use certify::Certifier;
use mail::Mailroom;

pub use system::{CertifiedBlock, OutboxView, RecentBlock, SystemView, committees};

/// How long certificates that the host wants are asked for.
const WANTED_MS: u64 = 3_000;
/// Heights that the host may want at a time; what comes on top is not asked for.
const WANTED_MAX: usize = 256;

/// What a driver is made for.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// The key headers are signed with.
    pub key: SecretKey,
    /// Proposals in flight at once.
    pub pipeline: usize,
    /// Blocks between two checkpoints in the beacon.
    pub checkpoint_every: u64,
    /// How far replicas check what others did.
    pub verify: VerifyMode,
}

/// A block after it was persisted.
#[derive(Clone, Debug)]
pub struct CommittedBlock {
    /// Its header.
    pub header: Arc<Header>,
    /// The header's hash.
    pub header_hash: Hash32,
    /// What became of its commands.
    pub outcomes: Vec<CommandOutcome>,
    /// What it emitted.
    pub mail: Vec<EmittedMail>,
    /// Heads of its outgoing streams.
    pub outbox: Vec<StreamLeaf>,
    /// Cursors of its incoming streams, as its header commits to them.
    pub inbox: Vec<StreamLeaf>,
    /// The same cursors with all that mail is followed by.
    pub cursors: Vec<(GroupId, InCursor)>,
    /// Signatures to check before it is attested.
    pub to_verify: Arc<Vec<ParsedTx>>,
    /// The earliest deadline in state.
    pub next_deadline: Option<TimeMs>,
}

/// What happens to a driver.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one comes once, at a start; the others are many and small")]
pub enum Input {
    /// State as read by the host, at the start and after a snapshot.
    System(SystemView),
    /// The committees in force changed.
    Committees(Vec<Committee>),
    /// This replica leads, or another does.
    Role {
        /// Whether it may propose.
        leads: bool,
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Offset of the guarded clock against the tick: `time = tick + offset`.
    ClockOffset(i64),
    /// Transactions whose signatures hold.
    Submit(Vec<Bytes>),
    /// A proposal left the pipeline: applied here, or lost.
    Proposed {
        /// As in [`Output::Propose`].
        id: u64,
        /// Whether it is in the log for certain.
        accepted: bool,
    },
    /// A block was persisted.
    Committed(CommittedBlock),
    /// The signatures of a block were checked.
    Verified {
        /// The block.
        height: Height,
        /// Whether all hold.
        valid: bool,
    },
    /// The blocks that were to be checked again were checked, from [`Output::Recheck`] on.
    Rechecked {
        /// The last of them.
        upto: Height,
        /// The lowest that does not hold.
        forged: Option<Height>,
    },
    /// Somebody needs the certificate of an earlier block, which is not kept here.
    Want(Height),
    /// A peer's message.
    Peer {
        /// Who sent it; the transport has authenticated it.
        from: NodeId,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// Time has passed.
    Timer,
}

/// What a driver asks of its host.
#[derive(Clone, Debug)]
pub enum Output {
    /// Propose an entry.
    Propose {
        /// Returned in [`Input::Proposed`].
        id: u64,
        /// The encoded entry.
        entry: Bytes,
    },
    /// Send a message to the replica of `group` on `node`.
    Send {
        /// The node; may be this one.
        node: NodeId,
        /// The group there.
        group: GroupId,
        /// The message.
        message: PeerMessage,
    },
    /// Check the signatures of a block and answer with [`Input::Verified`].
    Verify {
        /// The block.
        height: Height,
        /// Its transactions.
        txs: Arc<Vec<ParsedTx>>,
    },
    /// Check the client signatures of blocks in the database, in order, and answer with
    /// [`Input::Rechecked`].
    Recheck {
        /// The first block.
        from: Height,
        /// The last one.
        upto: Height,
    },
    /// Client signatures are checked up to here; the host keeps the mark.
    Checked(Height),
    /// A signature of this block does not hold; the host keeps the mark.
    Forged(Height),
    /// A certificate was completed; the host keeps it.
    Certified(Certificate),
    /// A certificate that the host wanted, of a block that is not at hand here: the host judges it by
    /// its database and keeps it.
    Late(Certificate),
    /// Send the certificate of this height to a node, if it is kept.
    Lookup {
        /// The height.
        height: Height,
        /// The node, of the same group.
        node: NodeId,
    },
    /// A peer group has taken everything of our stream below this.
    PeerTook {
        /// The peer.
        dest: GroupId,
        /// Its cursor.
        next_seq: u64,
    },
    /// Queued transactions that this replica cannot propose any more.
    Refuse {
        /// The transactions.
        txs: Vec<Bytes>,
        /// Why.
        reject: Reject,
    },
    /// Something an operator must know, and that no time mends.
    Alarm {
        /// One alarm is shown for each.
        cause: Cause,
        /// What happened, and what it means.
        text: String,
    },
    /// This replica's state is wrong: nothing of it may be served any more, and the group must not go
    /// on here. The text says why.
    Stop(String),
}

/// What a lasting alarm of a driver is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A block carries a signature that does not hold.
    ForgedBlock,
    /// This node signed another header than this replica has.
    Divergence(NodeId),
}

/// The driver of one replica.
pub struct GroupDriver {
    config: DriverConfig,
    leads: bool,
    leader: Option<NodeId>,
    clock_offset_ms: i64,
    committees: BTreeMap<GroupId, Committee>,
    batcher: Batcher,
    certifier: Certifier,
    mailroom: Mailroom,
    last_checkpoint: Height,
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
}

impl GroupDriver {
    /// A driver that knows nothing yet; give it [`Input::System`] first.
    #[must_use]
    pub fn new(config: DriverConfig) -> Self {
        Self {
            batcher: Batcher::new(config.pipeline),
            certifier: Certifier::default(),
            mailroom: Mailroom::default(),
            leads: false,
            leader: None,
            clock_offset_ms: 0,
            committees: BTreeMap::new(),
            last_checkpoint: Height(0),
            next_deadline: None,
            unattested: BTreeMap::new(),
            attested: Height(0),
            distrusts: None,
            rechecking: None,
            unproved: None,
            wanted: BTreeMap::new(),
            asked: None,
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
        self.committees.get(&self.config.group)
    }

    fn stamp(&self, now: Tick) -> TimeMs {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        TimeMs(u64::try_from(now.saturating_add(self.clock_offset_ms)).unwrap_or(0))
    }

    /// Nodes that may answer for a group, its likely leader first.
    fn nodes_of(&self, group: GroupId) -> Vec<NodeId> {
        self.committees
            .get(&group)
            .map(|committee| committee.members.iter().map(|member| member.node).collect())
            .unwrap_or_default()
    }

    fn system(&mut self, now: Tick, view: SystemView, out: &mut Vec<Output>) {
        self.unattested.clear();
        self.next_deadline = view.next_deadline;
        self.committees(view.committees);
        self.mailroom.reset(&view.outbox, &view.inbox);
        self.unattested.extend(view.recent.iter().map(|block| (block.header.height, true)));
        let certified = view.certified.as_ref().map(|block| block.certificate.header.height);
        self.certifier.reset(view.height, view.recent, view.certified);
        self.unproved = view.installed.filter(|installed| certified.is_none_or(|height| height < *installed));
        if let Some(forged) = view.forged {
            self.distrust(forged, out);
        }
        self.rechecking = (view.checked < view.height).then_some(view.height);
        if let Some(upto) = self.rechecking {
            out.push(Output::Recheck { from: view.checked.next(), upto });
        }
        self.attest_ready(now, out);
    }

    fn committees(&mut self, committees: Vec<Committee>) {
        self.committees = committees.into_iter().map(|committee| (committee.group, committee)).collect();
    }

    fn committed(&mut self, now: Tick, block: CommittedBlock, out: &mut Vec<Output>) {
        self.next_deadline = block.next_deadline;
        self.mailroom.committed(&block);
        let (height, to_verify) = (block.header.height, Arc::clone(&block.to_verify));
        self.certifier.committed(block);
        self.attest_checked(now, height, to_verify, out);
        self.flush(now, out);
    }

    /// Attests at once, or after the host has checked the client signatures of the block.
    fn attest_checked(&mut self, now: Tick, height: Height, txs: Arc<Vec<ParsedTx>>, out: &mut Vec<Output>) {
        if self.distrusts.is_some_and(|forged| height >= forged) {
            return;
        }
        self.unattested.insert(height, txs.is_empty());
        if !txs.is_empty() {
            out.push(Output::Verify { height, txs });
        }
        self.attest_ready(now, out);
    }

    fn verified(&mut self, now: Tick, height: Height, valid: bool, out: &mut Vec<Output>) {
        if !valid {
            return self.distrust(height, out);
        }
        if let Some(checked) = self.unattested.get_mut(&height) {
            *checked = true;
        }
        self.attest_ready(now, out);
    }

    fn rechecked(&mut self, now: Tick, upto: Height, forged: Option<Height>, out: &mut Vec<Output>) {
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
    fn distrust(&mut self, height: Height, out: &mut Vec<Output>) {
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

    fn attest_ready(&mut self, now: Tick, out: &mut Vec<Output>) {
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
    fn call_for_block(&mut self, height: Height) {
        let open = self.certifier.last() == height && self.certifier.certificate(height).is_none();
        if self.leads && open && self.may_sign_behind(height) {
            self.batcher.deadline_due();
        }
    }

    /// Whether a member whose state came from another one at this block may sign later ones: see
    /// [`GroupDriver::attestable_from`].
    fn may_sign_behind(&self, installed: Height) -> bool {
        let known = self.certifier.latest().map_or(0, |latest| latest.certificate.header.height.0);
        self.config.verify == VerifyMode::Ingest && known.saturating_add(certify::WINDOW) >= installed.0
    }

    fn attest(&mut self, now: Tick, height: Height, out: &mut Vec<Output>) {
        let Some(committee) = self.committees.get(&self.config.group) else { return };
        if committee.index_of(self.config.node).is_none() {
            return;
        }
        let Some(attestation) = self.certifier.attest(height, &self.config) else { return };
        for member in &committee.members {
            if member.node != self.config.node {
                let message = PeerMessage::Attest { attestation: attestation.clone(), wants_certificate: false };
                out.push(Output::Send { node: member.node, group: self.config.group, message });
            }
        }
        self.gather(now, attestation, out);
    }

    fn gather(&mut self, now: Tick, attestation: ledger::Attestation, out: &mut Vec<Output>) {
        let Some(committee) = self.committees.get(&self.config.group) else { return };
        match self.certifier.gather(attestation, committee) {
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

    fn certified(&mut self, now: Tick, certificate: Certificate, out: &mut Vec<Output>) {
        let height = certificate.header.height;
        self.wanted.remove(&height);
        if let Some(installed) = self.unproved {
            self.unproved = (height < installed).then_some(installed);
            self.attest_ready(now, out);
        }
        let newest = self.certifier.latest().is_some_and(|latest| latest.certificate.header.height == height);
        if newest {
            if self.leads
                && self.config.group != GroupId::BEACON
                && height.0 >= self.last_checkpoint.0 + self.config.checkpoint_every
                && fits_checkpoint(&certificate)
            {
                self.last_checkpoint = height;
                for node in self.nodes_of(GroupId::BEACON) {
                    let message = PeerMessage::Checkpoint(certificate.clone());
                    out.push(Output::Send { node, group: GroupId::BEACON, message });
                }
            }
            if let Some(latest) = self.certifier.latest() {
                self.mailroom.certified(&self.config, self.leads, now, latest, &self.committees, out);
            }
        }
        out.push(Output::Certified(certificate));
    }

    fn peer(&mut self, now: Tick, from: NodeId, message: PeerMessage, out: &mut Vec<Output>) {
        match message {
            PeerMessage::Attest { attestation, wants_certificate } => {
                let own = self.config.group;
                if attestation.node != from || attestation.group != own || !self.is_member(own, from) {
                    return;
                }
                let height = attestation.height;
                self.gather(now, attestation, out);
                if wants_certificate {
                    self.give_certificate(height, from, out);
                }
            }
            PeerMessage::Want { height } => {
                if self.is_member(self.config.group, from) {
                    self.give_certificate(height, from, out);
                    self.call_for_block(height);
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
                let Some(committee) = self.committees.get(&self.config.group) else { return };
                match self.certifier.adopt(&certificate, committee) {
                    certify::Adopted::Nothing => {}
                    certify::Adopted::News => self.certified(now, certificate, out),
                    certify::Adopted::Contradiction => {
                        out.push(Output::Stop(contradiction(self.config.group, height)));
                    }
                }
            }
            PeerMessage::Pull { dest, node, next_seq, ack } => {
                if !self.is_member(dest, from) {
                    return;
                }
                if let Some(ack) = ack {
                    self.take_ack(ack, out);
                }
                if node == from {
                    let latest = self.certifier.latest();
                    self.mailroom.subscribe(&self.config, now, dest, node, next_seq, latest, out);
                }
            }
            PeerMessage::Bundle(bundle) => {
                if self.is_member(bundle.source, from) {
                    self.bundle(bundle);
                }
            }
            PeerMessage::Probe { dest, next_seq } => {
                if self.is_member(dest, from) {
                    Mailroom::probed(dest, from, next_seq, self.certifier.latest(), out);
                }
            }
            PeerMessage::Head(proof) => {
                if self.leads {
                    self.mailroom.head(&self.config, now, from, &proof, &self.committees);
                }
            }
            PeerMessage::Serving { source } => self.mailroom.serving(source, from, &self.committees),
            PeerMessage::Ack(proof) => self.take_ack(proof, out),
            PeerMessage::Checkpoint(certificate) => self.checkpoint(from, certificate),
        }
        self.flush(now, out);
    }

    /// Takes a group's certificate into the beacon's next entry, from a member of the group and judged
    /// by its committee in force: what is sequenced costs every replica, and a forged height would
    /// stand in the way of the real one.
    fn checkpoint(&mut self, from: NodeId, certificate: Certificate) {
        let header = &certificate.header;
        if !self.leads || self.config.group != GroupId::BEACON || !fits_checkpoint(&certificate) {
            return;
        }
        let Some(committee) = self.committees.get(&header.group).filter(|known| known.index_of(from).is_some()) else {
            return;
        };
        if self.batcher.misses_checkpoint(header) && certificate.verify(committee).is_ok() {
            self.batcher.push_checkpoint(certificate);
        }
    }

    /// Answers a replica that misses a certificate: with that one, at once or as soon as the host has
    /// found it, or with what helps it to make its own.
    fn give_certificate(&self, height: Height, node: NodeId, out: &mut Vec<Output>) {
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

    /// Asks the other replicas for certificates that are missed here and that a signature of ours does
    /// not ask for already.
    fn ask_for_certificates(&mut self, now: Tick, out: &mut Vec<Output>) {
        self.wanted.retain(|_, (since, _)| now.0 < since.0 + WANTED_MS);
        if self.asked.is_some_and(|at| now.0 < at.0 + certify::ANNOUNCE_AGAIN_MS) {
            return;
        }
        let last = self.certifier.last();
        let unsigned = self.attestable_from().is_none_or(|from| last < from);
        let unproved = self.unproved.filter(|_| unsigned).map(|_| last);
        let heights: Vec<Height> = self.wanted.keys().copied().chain(unproved).collect();
        if heights.is_empty() {
            return;
        }
        self.asked = Some(now);
        let Some(committee) = self.own_committee() else { return };
        for member in committee.members.iter().filter(|member| member.node != self.config.node) {
            out.extend(heights.iter().map(|height| Output::Send {
                node: member.node,
                group: self.config.group,
                message: PeerMessage::Want { height: *height },
            }));
        }
    }

    fn is_member(&self, group: GroupId, node: NodeId) -> bool {
        self.committees.get(&group).is_some_and(|committee| committee.index_of(node).is_some())
    }

    fn bundle(&mut self, bundle: cross_shard::Bundle) {
        if self.leads
            && self.batcher.has_room_for_bundle()
            && let Some(bundle) = self.mailroom.accept(bundle, &self.config, &self.committees)
        {
            self.batcher.push_bundle(bundle);
        }
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

    fn flush(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.leads {
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
        if self.leads {
            let has_room = self.batcher.has_room_for_bundle();
            self.mailroom.pull(&self.config, now, has_room, self.certifier.latest(), &self.committees, out);
        }
        self.mailroom.expire(now);
        if let Some(installed) = self.unproved {
            self.call_for_block(installed);
        }
        if self.leads && self.next_deadline.is_some_and(|deadline| self.stamp(now) > deadline) {
            self.batcher.deadline_due();
        }
        self.flush(now, out);
    }

    fn role(&mut self, now: Tick, leads: bool, leader: Option<NodeId>, out: &mut Vec<Output>) {
        self.leader = leader;
        if self.leads == leads {
            return;
        }
        self.leads = leads;
        self.mailroom.leadership_changed();
        let stranded = self.batcher.clear();
        if !leads && !stranded.is_empty() {
            out.push(Output::Refuse { txs: stranded, reject: Reject::NotLeader });
        }
        self.timer(now, out);
    }
}

/// Why a replica that a certificate contradicts has to stop.
#[must_use]
pub fn contradiction(group: GroupId, height: Height) -> String {
    format!(
        "a majority certified another header than this replica has at height {height} of {group}: its state is wrong"
    )
}

/// Whether the beacon takes a certificate of this size. A block that touched very many assets has a
/// larger header; the group then checkpoints with its next one.
fn fits_checkpoint(certificate: &Certificate) -> bool {
    borsh::object_length(certificate).is_ok_and(|bytes| bytes <= CHECKPOINT_BYTES_MAX)
}

impl Driver for GroupDriver {
    type Input = Input;
    type Output = Output;

    fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::System(view) => self.system(now, view, out),
            Input::Committees(committees) => {
                self.committees(committees);
                for bundle in self.mailroom.unpark() {
                    self.bundle(bundle);
                }
                self.flush(now, out);
            }
            Input::Role { leads, leader } => self.role(now, leads, leader, out),
            Input::ClockOffset(offset_ms) => self.clock_offset_ms = offset_ms,
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
                        out.push(Output::Refuse { txs, reject: Reject::NotLeader });
                    }
                }
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
            Input::Peer { from, message } => self.peer(now, from, *message, out),
            Input::Timer => self.timer(now, out),
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

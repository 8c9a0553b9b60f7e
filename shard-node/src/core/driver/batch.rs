//! Fills entries: whatever waits goes into the next one, and while one is in flight the next one
//! grows. So batches follow the load by themselves, and a lone transaction never waits.

use std::collections::{BTreeMap, VecDeque};

use beacon::{AuditEntry, Contribution, Readiness, Silence};
use bytes::Bytes;
use cross_shard::{AckProof, Bundle};
use ledger::ballot::Equivocation;
use ledger::certificate::Certificate;
use ledger::crypto::Signature;
use ledger::hash::{Hash32, sha256};
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, Tick, TimeMs};
use ledger::limits::{BATCH_BYTES_MAX, BATCH_TXS_MAX, INGEST_QUEUE_TXS};

use crate::core::driver::Output;
use crate::core::driver::jobs::Desk;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};

/// Acknowledgements ride with other commands; alone they wait this long, since nothing but the
/// size of the peer's outbox depends on them.
const ACK_DELAY_MS: u64 = 100;
/// Bundles that may wait for a place.
const BUNDLES_WAITING_MAX: usize = 64;
/// With a proposal in flight, another one leaves only when it is worth a block of its own: so many
/// transactions, or so many bundles, or a word that payers wait for. Each block costs every replica a signature, a
/// certificate and an fsync, whatever it holds.
const WORTH_TXS: usize = 1024;
const WORTH_BUNDLES: usize = 16;
/// Between two reports of one node that say the same.
const SILENCE_EVERY_MS: u64 = 5_000;
/// Between two times that the same contribution to a seed is taken.
const CONTRIBUTION_EVERY_MS: u64 = 1_000;
/// Certified headers of one group at one height that are sequenced: two are proof enough.
const CONFLICTS_MAX: usize = 2;
/// Room kept free in an entry for its own framing.
const ENTRY_SLACK_BYTES: usize = 64 * 1024;

pub(super) struct Batcher {
    pipeline: usize,
    /// Proposals without an answer, with the transactions in them.
    in_flight: BTreeMap<u64, Vec<Bytes>>,
    next_id: u64,
    txs: VecDeque<Bytes>,
    bundles: VecDeque<Bundle>,
    acks: BTreeMap<GroupId, AckProof>,
    acks_since: Option<Tick>,
    checkpoints: Vec<Certificate>,
    /// The latest proof of each group that a prepared committee can take over.
    ready: BTreeMap<GroupId, Readiness>,
    /// Proofs that a member has voted twice, by name.
    evidence: BTreeMap<Hash32, Equivocation>,
    /// What waits for the audit, one of each kind of each group.
    audits: BTreeMap<(GroupId, u8), AuditEntry>,
    /// Names of what was taken for the audit since this replica leads, one of each kind of each group.
    audited: BTreeMap<(GroupId, u8), Hash32>,
    /// The latest report of each node on whom it does not hear of.
    silences: BTreeMap<NodeId, Silence>,
    /// Since this replica leads: when a report of each node was taken, and about whom.
    silenced: BTreeMap<NodeId, (Tick, Vec<NodeId>)>,
    /// What members of the beacon give to a seed, by node: each part leaves before the next one comes.
    contributions: BTreeMap<NodeId, Contribution>,
    /// Since this replica leads: when the last one of each node was taken, and which.
    contributed: BTreeMap<NodeId, (Tick, Signature)>,
    /// The highest checkpoint of each group that waits or was proposed since this replica leads.
    checkpointed: BTreeMap<GroupId, (Height, Vec<Hash32>)>,
    /// A deadline in state is due: an empty entry serves.
    deadline: bool,
    /// What nodes and shards say of jobs, in the beacon.
    desk: Desk,
    /// The group is sealed: nothing is proposed but bundles, which are those that let it go on.
    still: bool,
    /// One of the bundles has the group stand still, or go on: payers wait for what follows on that.
    urgent: bool,
}

impl Batcher {
    pub(super) fn new(pipeline: usize) -> Self {
        Self {
            pipeline: pipeline.max(1),
            in_flight: BTreeMap::new(),
            next_id: 0,
            txs: VecDeque::new(),
            bundles: VecDeque::new(),
            acks: BTreeMap::new(),
            acks_since: None,
            checkpoints: Vec::new(),
            ready: BTreeMap::new(),
            evidence: BTreeMap::new(),
            audits: BTreeMap::new(),
            audited: BTreeMap::new(),
            silences: BTreeMap::new(),
            silenced: BTreeMap::new(),
            contributions: BTreeMap::new(),
            contributed: BTreeMap::new(),
            checkpointed: BTreeMap::new(),
            deadline: false,
            desk: Desk::default(),
            still: false,
            urgent: false,
        }
    }

    /// The group is sealed, or goes on.
    pub(super) fn stand_still(&mut self, still: bool) {
        self.still = still;
    }

    /// What nodes and shards say of jobs.
    pub(super) fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    /// A deadline in state is due: a block is called for, with whatever there is to put into it.
    pub(super) fn deadline_due(&mut self) {
        self.deadline = self.in_flight.is_empty();
    }

    pub(super) fn queued(&self) -> usize {
        self.txs.len()
    }

    /// Takes transactions up to the bound and returns the rest.
    pub(super) fn push_txs(&mut self, mut txs: Vec<Bytes>) -> Vec<Bytes> {
        let room = INGEST_QUEUE_TXS.saturating_sub(self.txs.len());
        let refused = if txs.len() > room { txs.split_off(room) } else { Vec::new() };
        self.txs.extend(txs);
        refused
    }

    pub(super) fn has_room_for_bundle(&self) -> bool {
        self.bundles.len() < BUNDLES_WAITING_MAX
    }

    pub(super) fn push_bundle(&mut self, bundle: Bundle) {
        self.bundles.push_back(bundle);
    }

    /// The bundles that wait leave at once and alone: behind what the last of them says, nothing else is taken.
    pub(super) fn hurry(&mut self) {
        self.urgent = !self.bundles.is_empty();
    }

    pub(super) fn push_ack(&mut self, dest: GroupId, proof: AckProof) {
        self.acks.insert(dest, proof);
    }

    /// Whether a checkpoint says more than what waits or was proposed: it is of a later block, or of
    /// another block at the same height, which is evidence that the beacon keeps.
    pub(super) fn misses_checkpoint(&self, header: &Header) -> bool {
        match self.checkpointed.get(&header.group) {
            Some((height, hashes)) if *height == header.height => {
                hashes.len() < CONFLICTS_MAX && !hashes.contains(&header.hash())
            }
            known => known.is_none_or(|(height, _)| *height < header.height),
        }
    }

    /// Takes a checkpoint that was missed, and judged.
    pub(super) fn push_checkpoint(&mut self, certificate: Certificate) {
        let Header { group, height, .. } = certificate.header;
        let known = self.checkpointed.entry(group).or_default();
        if known.0 < height {
            *known = (height, Vec::new());
        }
        known.1.push(certificate.header.hash());
        self.checkpoints.retain(|waiting| waiting.header.group != group || waiting.header.height == height);
        self.checkpoints.push(certificate);
    }

    /// Takes a proof that was judged.
    pub(super) fn push_ready(&mut self, ready: Readiness) {
        self.ready.insert(ready.group(), ready);
    }

    /// Takes a proof that was judged.
    pub(super) fn push_evidence(&mut self, proof: Equivocation) {
        self.evidence.insert(proof.id(), proof);
    }

    /// Whether nothing like this waits for the audit, and it is not what was taken last. A trail that was lost on its way
    /// comes again, as it was or longer.
    pub(super) fn misses_audit(&self, entry: &AuditEntry) -> bool {
        let about = (entry.group(), entry.kind());
        let trail = matches!(entry, AuditEntry::Trail(_));
        !self.audits.contains_key(&about) && (trail || self.audited.get(&about) != Some(&sha256(&entry.encode())))
    }

    /// Takes what was missed for the audit, and judged.
    pub(super) fn push_audit(&mut self, entry: AuditEntry) {
        let about = (entry.group(), entry.kind());
        self.audited.insert(about, sha256(&entry.encode()));
        self.audits.insert(about, entry);
    }

    /// Whether a report says anything that was not taken a moment ago.
    pub(super) fn misses_silence(&self, now: Tick, report: &Silence) -> bool {
        let known = self.silenced.get(&report.reporter);
        known.is_none_or(|(at, silent)| *silent != report.silent || now.0 >= at.0 + SILENCE_EVERY_MS)
    }

    /// Takes a report that was missed, and judged.
    pub(super) fn push_silence(&mut self, now: Tick, report: Silence) {
        self.silenced.insert(report.reporter, (now, report.silent.clone()));
        self.silences.insert(report.reporter, report);
    }

    /// Whether a contribution was not taken a moment ago.
    pub(super) fn misses_contribution(&self, now: Tick, given: &Contribution) -> bool {
        let known = self.contributed.get(&given.node);
        // The same under another key is another one: the one before was refused, if the member's key has changed.
        known.is_none_or(|(at, taken)| *taken != given.signature || now.0 >= at.0 + CONTRIBUTION_EVERY_MS)
    }

    /// Takes a contribution that was missed, and judged.
    pub(super) fn push_contribution(&mut self, now: Tick, given: Contribution) {
        self.contributed.insert(given.node, (now, given.signature));
        self.contributions.insert(given.node, given);
    }

    /// A proof that waits is in state.
    pub(super) fn drop_evidence(&mut self, id: &Hash32) {
        self.evidence.remove(id);
    }

    /// A proposal left the pipeline. When it was lost, returns its transactions: a leader that may
    /// not write for a moment goes on leading, so nobody else would tell their senders.
    pub(super) fn proposed(&mut self, id: u64, accepted: bool) -> Option<Vec<Bytes>> {
        if !accepted {
            self.desk.lost();
        }
        self.in_flight.remove(&id).filter(|_| !accepted)
    }

    /// Forgets the proposals without an answer, and returns their transactions. Whatever else was in them comes again:
    /// mail is pulled, proofs are repeated.
    pub(super) fn lose_in_flight(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.in_flight).into_values().flatten().collect()
    }

    /// Drops everything; returns the transactions, whose senders must hear of it.
    pub(super) fn clear(&mut self) -> Vec<Bytes> {
        self.bundles.clear();
        self.urgent = false;
        self.acks.clear();
        self.acks_since = None;
        self.checkpoints.clear();
        self.ready.clear();
        self.evidence.clear();
        self.audits.clear();
        self.audited.clear();
        self.silences.clear();
        self.silenced.clear();
        self.contributions.clear();
        self.contributed.clear();
        self.checkpointed.clear();
        self.desk.clear();
        self.in_flight.clear();
        self.deadline = false;
        self.txs.drain(..).collect()
    }

    /// Proposes entries while there is something to propose and room in the pipeline.
    pub(super) fn propose(&mut self, now: Tick, stamp: TimeMs, out: &mut Vec<Output>) {
        while self.in_flight.len() < self.pipeline && self.due(now) {
            self.deadline = false;
            let commands = self.fill();
            let txs = commands.iter().filter_map(transaction).collect();
            let entry = Entry { version: ENTRY_VERSION, stamp_ms: stamp, commands };
            let id = self.next_id;
            self.next_id += 1;
            self.in_flight.insert(id, txs);
            out.push(Output::Propose { id, entry: Bytes::from(entry.encode()) });
        }
    }

    fn due(&mut self, now: Tick) -> bool {
        let worth = self.txs.len() >= WORTH_TXS || self.bundles.len() >= WORTH_BUNDLES;
        let urgent = self.urgent || self.desk.hurries();
        if !self.in_flight.is_empty() && !worth && !urgent {
            return false;
        }
        if self.still {
            return !self.bundles.is_empty();
        }
        if !self.txs.is_empty()
            || !self.bundles.is_empty()
            || !self.checkpoints.is_empty()
            || !self.ready.is_empty()
            || !self.evidence.is_empty()
            || !self.audits.is_empty()
            || !self.silences.is_empty()
            || self.desk.is_due(now)
            || !self.contributions.is_empty()
            || self.deadline
        {
            return true;
        }
        if self.acks.is_empty() {
            self.acks_since = None;
            return false;
        }
        let since = *self.acks_since.get_or_insert(now);
        now.0 >= since.0 + ACK_DELAY_MS
    }

    fn fill(&mut self) -> Vec<Command> {
        let mut room = BATCH_BYTES_MAX - ENTRY_SLACK_BYTES;
        let mut commands = Vec::new();
        while let Some(bundle) = self.bundles.pop_front() {
            let command = Command::Deliver(encoded(&bundle));
            if command.size() > room {
                // One that fits into no entry would stop all that wait behind it. `Bundle::check`
                // refuses such bundles, so there is none; should there be, it is not kept.
                if !commands.is_empty() {
                    self.bundles.push_front(bundle);
                }
                break;
            }
            room -= command.size();
            commands.push(command);
        }
        let alone = self.urgent || self.still;
        self.urgent &= !self.bundles.is_empty();
        if alone {
            return commands;
        }
        self.desk.fill(&mut room, &mut commands);
        for (dest, proof) in std::mem::take(&mut self.acks) {
            let command = Command::Ack(encoded(&proof));
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                // It has been judged, so the peer's next pull does not bring it again: it waits.
                self.acks.insert(dest, proof);
            }
        }
        self.acks_since = None;
        for certificate in std::mem::take(&mut self.checkpoints) {
            let command = Command::Checkpoint(encoded(&certificate));
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                self.checkpoints.push(certificate);
            }
        }
        for (group, ready) in std::mem::take(&mut self.ready) {
            let command = Command::Ready(encoded(&ready));
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                self.ready.insert(group, ready);
            }
        }
        for (id, proof) in std::mem::take(&mut self.evidence) {
            let command = Command::Evidence(encoded(&proof));
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                self.evidence.insert(id, proof);
            }
        }
        for (about, entry) in std::mem::take(&mut self.audits) {
            let command = Command::Audit(entry.encode());
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                self.audits.insert(about, entry);
            }
        }
        for (node, report) in std::mem::take(&mut self.silences) {
            let command = Command::Silence(encoded(&report));
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                self.silences.insert(node, report);
            }
        }
        for (node, given) in std::mem::take(&mut self.contributions) {
            let command = Command::Contribution(encoded(&given));
            if command.size() <= room {
                room -= command.size();
                commands.push(command);
            } else {
                self.contributions.insert(node, given);
            }
        }
        for _ in 0..BATCH_TXS_MAX {
            match self.txs.front() {
                Some(tx) if tx.len() + 5 <= room => {
                    let tx = self.txs.pop_front().expect("there is a front");
                    room -= tx.len() + 5;
                    commands.push(Command::Tx(tx.into()));
                }
                _ => break,
            }
        }
        commands
    }
}

fn transaction(command: &Command) -> Option<Bytes> {
    match command {
        Command::Tx(bytes) => Some(Bytes::from(bytes.clone())),
        Command::Deliver(_)
        | Command::Ack(_)
        | Command::Checkpoint(_)
        | Command::Registry(_)
        | Command::Channel(_)
        | Command::Ready(_)
        | Command::Evidence(_)
        | Command::Report(_)
        | Command::Sealed(_)
        | Command::Silence(_)
        | Command::Contribution(_)
        | Command::Audit(_) => None,
    }
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(out: &[Output]) -> Vec<(u64, Entry)> {
        out.iter()
            .filter_map(|output| match output {
                Output::Propose { id, entry } => Some((*id, Entry::decode(entry))),
                _ => None,
            })
            .collect()
    }

    fn tx(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn a_lone_transaction_never_waits_and_later_ones_gather_behind_it() {
        let mut batcher = Batcher::new(3);
        let mut out = Vec::new();
        assert!(batcher.push_txs(vec![tx(10)]).is_empty());
        batcher.propose(Tick(0), TimeMs(5), &mut out);
        assert_eq!(entries(&out).len(), 1);
        for _ in 0..20 {
            assert!(batcher.push_txs(vec![tx(10)]).is_empty());
            batcher.propose(Tick(1), TimeMs(6), &mut out);
        }
        assert_eq!(entries(&out).len(), 1, "one is in flight and there is little to add");
        assert_eq!(batcher.proposed(0, true), None);
        batcher.propose(Tick(2), TimeMs(7), &mut out);
        let all = entries(&out);
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].1.commands.len(), 20);
        assert_eq!(all[1].1.stamp_ms, TimeMs(7));
    }

    #[test]
    fn the_pipeline_and_the_batch_are_bounded() {
        let mut batcher = Batcher::new(2);
        let mut out = Vec::new();
        let refused = batcher.push_txs(vec![tx(3000); INGEST_QUEUE_TXS + 3]);
        assert_eq!(refused.len(), 3);
        batcher.propose(Tick(0), TimeMs(1), &mut out);
        let all = entries(&out);
        assert_eq!(all.len(), 2);
        for (_, entry) in &all {
            assert!(entry.encode().len() <= BATCH_BYTES_MAX);
            assert!(entry.commands.len() <= BATCH_TXS_MAX);
        }
        let lost = batcher.proposed(1, false).expect("a lost proposal is reported as lost");
        assert!(!lost.is_empty(), "with its transactions");
        assert_eq!(batcher.proposed(1, false), None, "and only once");
    }

    #[test]
    fn losing_leadership_returns_what_waits() {
        let mut batcher = Batcher::new(1);
        assert!(batcher.push_txs(vec![tx(1), tx(2)]).is_empty());
        assert_eq!(batcher.clear().len(), 2);
        assert_eq!(batcher.queued(), 0);
    }
}

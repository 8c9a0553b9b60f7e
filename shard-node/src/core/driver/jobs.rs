//! What nodes and shards tell the beacon of jobs, on its way into the beacon's entries.
//!
//! Owns how much of it is taken: the latest of each sender, and the same again only after a while. What it is worth is
//! judged when it is executed; here only what costs little to see is asked for.

use std::collections::{BTreeMap, BTreeSet};

use beacon::jobs::{JobReport, Said, SealedProof};
use ledger::header::FLAG_SEALED;
use ledger::ids::{GroupId, JobId, NodeId, Tick};
use ledger::limits::BATCH_BYTES_MAX;

use crate::core::driver::{GroupDriver, Output};
use crate::core::entry::Command;
use crate::core::peer::PeerMessage;

/// Between two reports of a node that say the same, and between two that say what it does at the moment.
const REPORT_EVERY_MS: u64 = 1_000;
/// Between two proofs that one node brings of one shard.
const PROOF_EVERY_MS: u64 = 500;
/// For how long the proof of one of two shards that are joined waits for that of the other one. Nothing follows on it alone, and
/// a block of its own would cost every node a view of the registry just when payers wait.
pub(super) const LONE_PROOF_MS: u64 = 50;
/// The largest proof that is taken: it goes into an entry, beside others.
const PROOF_BYTES_MAX: usize = BATCH_BYTES_MAX / 4;

/// What waits for a place in an entry, and when it was taken.
#[derive(Default)]
pub(super) struct Desk {
    /// The latest report of each node on each shard.
    reports: BTreeMap<(NodeId, GroupId), JobReport>,
    reported: BTreeMap<(NodeId, GroupId), (Tick, Said)>,
    /// The latest proof of each shard that each of its members brings.
    proofs: BTreeMap<(GroupId, NodeId), SealedProof>,
    proved: BTreeMap<(GroupId, NodeId), Tick>,
    /// The shards that a proof was taken of since this replica leads, for the job that the last one was for: of no two are shards
    /// sealed at a time.
    ended: Option<(JobId, BTreeSet<GroupId>)>,
    /// Since when a proof waits.
    waits: Option<Tick>,
}

impl Desk {
    /// Whether anything waits that an entry is made for by now.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        let waited = self.waits.is_some_and(|since| now.0 >= since.0 + LONE_PROOF_MS);
        !self.reports.is_empty() || waited || self.hurries()
    }

    /// Whether a proof waits with which its job is committed, as far as can be told here: payers wait for that. It is that of a
    /// shard that is cut, which proves two halves, or the second one of two that are joined. That the first one was taken may not
    /// be known, where another replica led then; but both are brought again and again.
    pub(super) fn hurries(&self) -> bool {
        let both = |job: JobId| self.ended.as_ref().is_some_and(|(of, ended)| *of == job && ended.len() > 1);
        self.proofs.values().any(|proof| proof.roots.len() != 1 || both(proof.job))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// An entry was lost, and what was in it with it: it comes again, and is taken then.
    pub(super) fn lost(&mut self) {
        self.reported.clear();
        self.proved.clear();
        self.ended = None;
    }

    fn misses_report(&self, now: Tick, report: &JobReport) -> bool {
        self.reported.get(&(report.node, report.group)).is_none_or(|(at, said)| {
            let news = *said != report.said && !matches!(report.said, Said::Load { .. } | Said::Follows { .. });
            news || now.0 >= at.0 + REPORT_EVERY_MS
        })
    }

    fn push_report(&mut self, now: Tick, report: JobReport) {
        let key = (report.node, report.group);
        self.reported.insert(key, (now, report.said));
        self.reports.insert(key, report);
    }

    fn misses_proof(&self, now: Tick, group: GroupId, from: NodeId) -> bool {
        self.proved.get(&(group, from)).is_none_or(|at| now.0 >= at.0 + PROOF_EVERY_MS)
    }

    fn push_proof(&mut self, now: Tick, from: NodeId, proof: SealedProof) {
        let key = (proof.certificate.header.group, from);
        self.proved.insert(key, now);
        let known = self.ended.take().filter(|(job, _)| *job == proof.job);
        let (job, mut ended) = known.unwrap_or_else(|| (proof.job, BTreeSet::new()));
        ended.insert(key.0);
        self.ended = Some((job, ended));
        self.waits.get_or_insert(now);
        self.proofs.insert(key, proof);
    }

    /// Fills an entry as far as there is room. What does not fit waits for the next one.
    pub(super) fn fill(&mut self, room: &mut usize, commands: &mut Vec<Command>) {
        for (key, proof) in std::mem::take(&mut self.proofs) {
            if !place(Command::Sealed(encoded(&proof)), room, commands) {
                self.proofs.insert(key, proof);
            }
        }
        self.waits = self.waits.filter(|_| !self.proofs.is_empty());
        for (key, report) in std::mem::take(&mut self.reports) {
            if !place(Command::Report(encoded(&report)), room, commands) {
                self.reports.insert(key, report);
            }
        }
    }
}

fn place(command: Command, room: &mut usize, commands: &mut Vec<Command>) -> bool {
    let Some(left) = room.checked_sub(command.size()) else { return false };
    *room = left;
    commands.push(command);
    true
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

impl GroupDriver {
    /// Brings this node's own word to the beacon. It may be lost: the host repeats it until the view shows its effect.
    pub(super) fn send_report(&self, report: &JobReport, out: &mut Vec<Output>) {
        out.extend(self.nodes_of(GroupId::BEACON).into_iter().map(|node| Output::Send {
            node,
            group: GroupId::BEACON,
            message: PeerMessage::Report(report.clone()),
        }));
    }

    /// Takes a node's report into the beacon's next entry, if it is its own, signed, and about a group that there is.
    pub(super) fn take_report(&mut self, now: Tick, from: NodeId, report: JobReport) {
        if !self.leads || self.config.group != GroupId::BEACON || report.node != from {
            return;
        }
        if self.committees.current(report.group).is_none() {
            return;
        }
        let keys = self.committees.keys_of(from);
        let desk = self.batcher.desk();
        if desk.misses_report(now, &report) && keys.iter().any(|key| report.holds(key)) {
            desk.push_report(now, report);
        }
    }

    /// Takes a shard's proof that it is sealed into the beacon's next entry: from a member, certified by the committee in
    /// force.
    pub(super) fn take_proof(&mut self, now: Tick, from: NodeId, proof: SealedProof) {
        let header = &proof.certificate.header;
        let sealed = header.flags & FLAG_SEALED != 0;
        if !self.leads || self.config.group != GroupId::BEACON || !sealed || !self.is_member(header.group, from) {
            return;
        }
        let Some(committee) = self.committees.current(header.group) else { return };
        let desk = self.batcher.desk();
        let fits = borsh::object_length(&proof).is_ok_and(|bytes| bytes <= PROOF_BYTES_MAX);
        if fits && desk.misses_proof(now, header.group, from) && proof.certificate.verify(committee).is_ok() {
            desk.push_proof(now, from, proof);
        }
    }
}

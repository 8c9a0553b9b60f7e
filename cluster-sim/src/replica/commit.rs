//! The commit loop: one atomic batch for each entry, then its effects, then its replies.
//!
//! Owns the order of these, and what checkers and clients are told of a block.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use beacon::accused::accused_key;
use beacon::epochs::{Deal, EpochRecord, deal_key, record_key};
use beacon::registry::seed_key;
use beacon::{Accusation, Contribution};
use bytes::Bytes;
use consensus::port::{AppliedState, Committed, Payload, Position};
use cross_shard::Message;
use cross_shard::bundle::Bundle;
use ledger::ballot::Equivocation;
use ledger::committee::Committee;
use ledger::flow::SealedFlow;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, TxId};
use ledger::schema;
use ledger::view::{Knowing, View};
use shard_node::core::applied;
use shard_node::core::driver::{self, CommittedBlock};
use shard_node::core::entry::{Command, Entry};
use shard_node::core::executor::{ExecutedBlock, Execution, execute_behind};
use shard_node::core::heads::Heads;
use shard_node::core::machine::CommandOutcome;
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use crate::checkers::{AccusedSeen, BlockSeen, EpochsSeen, Governed, RegisterWrite, Seen};
use crate::copies::Tapped;
use crate::host::{Answer, Waiters};
use crate::replica::{Effect, Job, Replica, encoded, stint};
use crate::sabotage::{self, Sabotage};
use crate::seat;
use crate::state::{self, KvState};
use crate::wire::Reply;

impl Replica {
    /// The commit loop: one atomic batch for each entry, then its effects, then its replies.
    pub(super) fn commit(
        &mut self,
        committed: Committed,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        // Behind an entry that hands over, what the engine before has ordered is void.
        let by = live.engine.kind();
        let counts = by.is_some_and(|by| applied::counts(&live.order, by, committed.position.index));
        if !counts && self.sabotage != Some(Sabotage::VoidCounts) {
            return Ok(());
        }
        let membership = match &committed.note {
            Some(note) => Some((Some(committed.position), note.to_vec())),
            None => live.applied.consensus.membership.clone(),
        };
        let mut consensus = AppliedState { position: Some(committed.position), membership };
        let payload = match committed.payload {
            Payload::Batch(payload) => payload,
            other => {
                if let Payload::Membership(voters) = other {
                    let seats: Vec<NodeId> = borsh::from_slice(&voters).map_err(|error| error.to_string())?;
                    out.push(Effect::Saw(Seen::Voters {
                        node: self.node,
                        group: self.group,
                        index: committed.position.index,
                        voters: seats.into_iter().map(seat::node_of).collect(),
                    }));
                    consensus.membership = Some((Some(committed.position), voters.to_vec()));
                }
                return self.note(consensus);
            }
        };
        match self.execute(consensus.clone(), &payload, false)? {
            Execution::Block(block) => self.persisted(committed.position, *block, &payload, jobs, out),
            Execution::Void => {
                self.note(consensus)?;
                self.proposed(&payload, jobs);
                Ok(())
            }
        }
    }

    /// Persists a position that makes no block.
    fn note(&mut self, consensus: AppliedState) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        live.applied.consensus = consensus;
        let mut batch = WriteBatch::with_capacity(1);
        batch.put(schema::applied(), encoded(&live.applied));
        self.kv.write(batch).map_err(|error| error.to_string())
    }

    /// Tells the driver that a proposal of its own was applied, if this is the next one.
    fn proposed(&mut self, payload: &Bytes, jobs: &mut VecDeque<Job>) {
        let Some(live) = &mut self.live else { return };
        let own = live.proposals.front().is_some_and(|(_, proposed)| proposed == payload);
        let proposal = if own { live.proposals.pop_front() } else { None };
        jobs.extend(proposal.map(|(id, _)| Job::Driver(driver::Input::Proposed { id, accepted: true })));
    }

    /// Executes an entry on top of what is applied. A rehearsal leaves the tree as it is.
    fn execute(&mut self, consensus: AppliedState, payload: &Bytes, rehearsal: bool) -> Result<Execution, String> {
        let Some(live) = &mut self.live else { return Err("the replica does not run".to_owned()) };
        let sabotage = self.sabotage;
        let base = KvState { kv: &self.kv, hide_receipts: sabotage == Some(Sabotage::ForgetReceipts) };
        let mut copy = rehearsal.then(|| live.tree.clone());
        let tree = copy.as_mut().unwrap_or(&mut live.tree);
        let mut anew = Heads::default();
        let heads = if rehearsal { &mut anew } else { &mut live.heads };
        let base = Knowing::new(&base, &live.checked);
        execute_behind(
            &base,
            tree,
            heads,
            &self.constants,
            &live.applied,
            consensus,
            payload,
            |work, view, at, commands| sabotage::run(sabotage, work, view, at, commands),
        )
        .map_err(|error| error.to_string())
    }

    /// Persists a block, then tells driver, checkers and clients.
    fn persisted(
        &mut self,
        position: Position,
        mut block: ExecutedBlock,
        payload: &Bytes,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        if let Some((start, committee)) = &block.handed_over {
            let joins = if self.moves { seat::seats(&self.kv, self.group) } else { BTreeMap::new() };
            let note = stint::first_note(start, committee, &joins, self.sabotage);
            block.applied.consensus.membership = Some((Some(start.after), note));
            let applied = encoded(&block.applied);
            block.writes.retain(|(key, _)| *key != schema::applied());
            block.writes.push((schema::applied(), Some(applied)));
            live.order = start.order();
        }
        let writes = std::mem::take(&mut block.writes);
        let seen = seen(self.node, self.group, position, &block, &writes, payload);
        if let Some(tap) = &mut self.tap {
            tap.push(Tapped::of(&self.kv, block.header.height, &writes)?);
        }
        persist(&self.kv, writes, self.sabotage)?;
        live.applied = block.applied.clone();
        out.push(Effect::Saw(Seen::Block(Box::new(seen))));
        let early = self.sabotage == Some(Sabotage::AppliedOnVote);
        let answers = answers(&self.kv, &block, &mut live.waiters, live.leader, early, out)?;
        let (system_changed, reshaped) = (block.system_changed, block.reshaped);
        jobs.push_back(Job::Driver(driver::Input::Committed(committed_block(block))));
        if system_changed {
            jobs.push_back(Job::Driver(driver::Input::Committees(self.committees())));
            // Whoever has no right any more gets nothing that comes after this block.
            for input in self.follow_committee().into_iter().rev() {
                jobs.push_front(Job::Engine(input));
            }
        }
        if reshaped {
            let base = KvState { kv: &self.kv, hide_receipts: false };
            let streams = driver::streams(&mut View::new(&base)).map_err(|error| error.to_string())?;
            jobs.push_back(Job::Driver(driver::Input::Streams { outbox: streams.0, inbox: streams.1 }));
        }
        self.proposed(payload, jobs);
        self.answer(answers, out);
        Ok(())
    }

    /// Sabotage: executes a proposal on the side and answers from that.
    pub(super) fn reply_early(&mut self, entry: &Bytes, out: &mut Vec<Effect>) {
        let Some(consensus) = self.live.as_ref().map(|live| live.applied.consensus.clone()) else { return };
        let Ok(Execution::Block(block)) = self.execute(consensus, entry, true) else { return };
        let Some(live) = &mut self.live else { return };
        if let Ok(answers) = answers(&self.kv, &block, &mut live.waiters, live.leader, false, out) {
            self.answer(answers, out);
        }
    }
}

fn persist(kv: &MemKv, writes: Vec<(Vec<u8>, Option<Bytes>)>, sabotage: Option<Sabotage>) -> Result<(), String> {
    let (mut batch, mut second) = (WriteBatch::with_capacity(writes.len()), WriteBatch::new());
    for (key, value) in writes {
        let apart = sabotage == Some(Sabotage::SplitBatch) && key.first() == Some(&schema::STREAM);
        let target = if apart { &mut second } else { &mut batch };
        match value {
            Some(value) => target.put(key, value),
            None => target.delete(key),
        }
    }
    kv.write(batch).map_err(|error| error.to_string())?;
    if second.is_empty() { Ok(()) } else { kv.write(second).map_err(|error| error.to_string()) }
}

/// What the clients that wait for a block are told. With `early`, a bug, they are told of a vote
/// that all is applied.
fn answers(
    kv: &MemKv,
    block: &ExecutedBlock,
    waiters: &mut Waiters,
    leader: Option<NodeId>,
    early: bool,
    out: &mut Vec<Effect>,
) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    let mut voted = |txid: &TxId, decision, waiters: &Waiters| {
        let told = waiters.vote(txid, decision);
        if early {
            answers.extend(told.iter().map(|(request, _)| (*request, Reply::Applied)));
        }
        answers.extend(told);
    };
    for (txid, decision) in &block.votes {
        voted(txid, *decision, waiters);
    }
    for outcome in &block.outcomes {
        if let CommandOutcome::Voted(txid, decision) = outcome {
            voted(txid, *decision, waiters);
        }
    }
    for receipt in &block.receipts {
        answers.extend(waiters.receipt(receipt));
    }
    for outcome in &block.outcomes {
        match outcome {
            CommandOutcome::Known(txid, place) => {
                out.push(Effect::Saw(Seen::Known { txid: *txid }));
                let receipt = state::receipt_at(kv, *place)?;
                if place.chain == block.header.group {
                    answers.extend(waiters.receipt(&receipt));
                } else {
                    // Its mail stands in the streams of a group that this one came from: whoever asks again is told.
                    answers.extend(waiters.refuse(txid, &Reply::Receipt(receipt)));
                }
            }
            CommandOutcome::Refused(txid, reject) => {
                answers.extend(waiters.refuse(txid, &Waiters::refusal(*reject, leader)));
            }
            CommandOutcome::Acked(dest, upto) => answers.extend(waiters.taken(*dest, *upto)),
            CommandOutcome::Receipt(..)
            | CommandOutcome::Voted(..)
            | CommandOutcome::Waits(_)
            | CommandOutcome::Delivered(..)
            | CommandOutcome::Checkpointed(_)
            | CommandOutcome::Registered
            | CommandOutcome::Evidence(_)
            | CommandOutcome::Governed { .. }
            | CommandOutcome::Ignored(_) => {}
        }
    }
    Ok(answers)
}

/// A block as the checkers see it: from its writes, not from what the machine says about them.
pub(crate) fn seen(
    node: NodeId,
    group: GroupId,
    position: Position,
    block: &ExecutedBlock,
    writes: &[(Vec<u8>, Option<Bytes>)],
    payload: &Bytes,
) -> BlockSeen {
    let mut flow = block.header.value_flow.clone();
    let (mut registers, mut mail, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let (mut layout, mut committees) = (None, Vec::new());
    for (key, value) in writes {
        match (key.first(), value) {
            (Some(&schema::STATE), _) if key.get(33) == Some(&schema::KIND_REGISTER) => {
                let (Ok(partition), Ok(txid)) = (key[1..33].try_into(), key[34..].try_into()) else { continue };
                let value = value.as_ref().and_then(|bytes| borsh::from_slice(bytes).ok());
                registers.push(RegisterWrite { partition, txid: TxId(Hash32(txid)), value });
            }
            (Some(&schema::MAIL), Some(bytes)) => {
                let (Ok(dest), Ok(seq)) = (key[1..9].try_into(), key[9..].try_into()) else { continue };
                let Ok(message) = borsh::from_slice(bytes) else { continue };
                mail.push((GroupId(u64::from_be_bytes(dest)), u64::from_be_bytes(seq), message));
            }
            (Some(&schema::SYSTEM), Some(bytes)) if *key == schema::layout() => layout = borsh::from_slice(bytes).ok(),
            (Some(&schema::SYSTEM), Some(bytes)) if key.starts_with(schema::COMMITTEES_PREFIX) => {
                committees.extend(borsh::from_slice::<Committee>(bytes));
            }
            (Some(&schema::HISTORY), Some(bytes)) => lines.extend(borsh::from_slice(bytes)),
            (Some(&schema::FLOW), Some(bytes)) => {
                flow.extend(borsh::from_slice::<SealedFlow>(bytes).into_iter().flat_map(|sealed| sealed.lines));
            }
            _ => {}
        }
    }
    BlockSeen {
        node,
        group,
        position,
        header: block.header.clone(),
        header_hash: block.header_hash,
        receipts: block.receipts.clone(),
        votes: block.votes.clone(),
        registers,
        mail,
        lines,
        flow,
        governed: governed(block, payload),
        outbox: block.outbox.clone(),
        inbox: block.inbox.clone(),
        layout,
        committees,
        epochs: epochs(group, writes, payload),
        accused: accused(group, writes, payload),
    }
}

/// What a block of the beacon has about epochs, from the entry and the writes.
fn epochs(group: GroupId, writes: &[(Vec<u8>, Option<Bytes>)], payload: &Bytes) -> EpochsSeen {
    let mut seen = EpochsSeen::default();
    if group != GroupId::BEACON {
        return seen;
    }
    for command in &Entry::decode(payload).commands {
        if let Command::Contribution(bytes) = command {
            seen.contributions.extend(borsh::from_slice::<Contribution>(bytes));
        }
    }
    let family = |mut key: Vec<u8>| {
        key.truncate(key.len() - size_of::<u64>());
        key
    };
    let (record, deal) = (family(record_key(0)), family(deal_key(0)));
    for (key, value) in writes {
        let Some(value) = value else { continue };
        if key.starts_with(&record) {
            seen.records.extend(borsh::from_slice::<EpochRecord>(value));
        } else if key.starts_with(&deal) {
            seen.deals.extend(borsh::from_slice::<Deal>(value));
        } else if *key == seed_key() {
            seen.seed = borsh::from_slice(value).ok();
        }
    }
    seen
}

/// What a block of the beacon has about double votes, from the entry and the writes.
fn accused(group: GroupId, writes: &[(Vec<u8>, Option<Bytes>)], payload: &Bytes) -> AccusedSeen {
    let mut seen = AccusedSeen::default();
    if group != GroupId::BEACON {
        return seen;
    }
    for command in &Entry::decode(payload).commands {
        if let Command::Evidence(bytes) = command {
            seen.proofs.extend(borsh::from_slice::<Equivocation>(bytes));
        }
    }
    let mut family = accused_key(NodeId(0));
    family.truncate(family.len() - size_of::<u32>());
    for (_, value) in writes.iter().filter(|(key, _)| key.starts_with(&family)) {
        seen.accusations.extend(value.iter().flat_map(|value| borsh::from_slice::<Accusation>(value)));
    }
    seen
}

/// What the governance of a channel goes by, or that of the cluster, from the entry itself; of a shard what it is told of its
/// seats.
fn governed(block: &ExecutedBlock, payload: &Bytes) -> Vec<Governed> {
    let shard = match block.header.group.kind() {
        Some(GroupKind::Channel | GroupKind::Beacon) => false,
        Some(GroupKind::Shard) => true,
        None => return Vec::new(),
    };
    let mut all = Vec::new();
    for (command, outcome) in Entry::decode(payload).commands.iter().zip(&block.outcomes) {
        match (command, outcome) {
            (Command::Channel(bytes), CommandOutcome::Governed { verdict, .. }) => {
                let Ok(signed) = borsh::from_slice(bytes) else { continue };
                all.push(Governed::Act(Box::new(signed), verdict.as_ref().ok().copied()));
            }
            (Command::Registry(bytes), CommandOutcome::Registered) => {
                let Ok(signed) = borsh::from_slice(bytes) else { continue };
                all.push(Governed::Registered(Box::new(signed)));
            }
            (Command::Deliver(bytes), CommandOutcome::Delivered(GroupId::BEACON, _)) => {
                let Ok(bundle) = borsh::from_slice::<Bundle>(bytes) else { continue };
                let own = |committee: &Committee| committee.group == block.header.group;
                let told = (bundle.first_seq..).zip(&bundle.messages).filter_map(|(seq, message)| {
                    match borsh::from_slice(message) {
                        Ok(Message::RegistryUpdate(update)) if !shard => Some(Governed::Told(seq, update)),
                        Ok(Message::CommitteePlan(plan)) => Some(Governed::Planned(seq, plan)),
                        Ok(Message::CommitteeUpdate(seated)) if own(&seated) => Some(Governed::Seated(seq, seated)),
                        _ => None,
                    }
                });
                all.extend(told);
            }
            _ => {}
        }
    }
    all
}

fn committed_block(block: ExecutedBlock) -> CommittedBlock {
    CommittedBlock {
        header: Arc::new(block.header),
        header_hash: block.header_hash,
        outcomes: block.outcomes,
        mail: block.mail,
        outbox: block.outbox,
        inbox: block.inbox,
        cursors: block.cursors,
        to_verify: Arc::new(block.to_verify),
        next_deadline: block.next_deadline,
        sealed: block.sealed,
        shapes: block.shapes,
        unsealed: block.unsealed,
        reshaped: block.reshaped,
    }
}

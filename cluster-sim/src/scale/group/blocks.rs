//! From a proposal to a certificate: an order after a modelled time, a block by the production executor, its cost on
//! every member, and the signatures of those who certify it.

use std::collections::BTreeSet;
use std::sync::Arc;

use beacon::AuditEntry;
use bytes::Bytes;
use consensus::port::AppliedState;
use cross_shard::{AckProof, Bundle};
use ledger::certificate::{Attestation, Certificate};
use ledger::checked::Checked;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, TxId};
use ledger::machine::BlockContext;
use ledger::view::View;
use shard_node::core::driver::{self, CommittedBlock, Input};
use shard_node::core::entry::{Command, Entry};
use shard_node::core::executor::{ExecutedBlock, execute_behind};
use shard_node::core::machine::{BlockWork, CommandOutcome};
use shard_node::core::peer::PeerMessage;
use shard_node::core::records::ReceiptPlace;

use crate::scale::group::payments::Paid;
use crate::scale::group::trails::Audited;
use crate::scale::group::{Event, Group, is_read};
use crate::scale::load::counted;
use crate::scale::model::{Ns, Work};

/// What a block costs each member.
#[derive(Default)]
struct Cost {
    /// Client signatures that a member checks which has not done so at ingest.
    txs: u64,
    execute: Ns,
    streams: Ns,
    credits: Ns,
    /// Certificates of mail, of what was taken, and of checkpoints, for the leader, which has judged them before.
    mail: Ns,
    acks: Ns,
    checkpoints: Ns,
    /// Trails, with their certificates, which every member checks.
    audits: Ns,
    /// Certificates of all but these for each of the others, which checks the signatures when it meets a certificate first.
    certificates: Ns,
}

impl Cost {
    /// What a member that does not lead has to do.
    fn other(&self) -> Ns {
        self.execute + self.streams + self.credits + self.certificates + self.audits
    }
}

impl Group {
    /// Hands an entry to the engine, which is modelled: it is in the log after a time, behind those before it. An append
    /// and its answer are messages of the leader and of each other member.
    pub(super) fn propose(&mut self, now: Ns, id: u64, entry: Bytes) {
        let members = self.seats.members.len();
        let message = self.setting.constants.message_ns;
        for member in 0..members {
            let others = if member == self.seats.leader { members as u64 - 1 } else { 1 };
            self.take(member, now, 2 * message * others, Work::Order, true);
        }
        if self.counts(now) {
            self.stats.messages.order += 2 * (members as u64 - 1);
        }
        let ordered = now + self.setting.latencies.ordered(members, &mut self.rng);
        self.ordered_until = self.ordered_until.max(ordered);
        self.later(self.ordered_until, Event::Ordered { id, entry });
    }

    /// Executes an entry that is in the log, once for all members, and finds out when each of them would have.
    pub(super) fn ordered(&mut self, now: Ns, id: u64, entry: &Bytes) -> Result<(), String> {
        let log = AppliedState::default();
        let (tree, heads) = (&mut self.tree, &mut self.heads);
        let executed = execute_behind(&self.state, tree, heads, &self.constants, &self.applied, log, entry, run)
            .map_err(|error| error.to_string())?;
        let mut block = executed.block().ok_or("a shard that nobody cuts is sealed")?;
        for (key, value) in std::mem::take(&mut block.writes).into_iter().filter(|(key, _)| is_read(key)) {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        self.applied = block.applied.clone();
        self.streams = (block.outbox.len(), block.inbox.len());
        let commands = Entry::decode(entry).commands;
        let payments = payments(&commands, &block.outcomes);
        // A block of payments has signatures for its members to check, whether they are executed or counted.
        if self.constants.verify == VerifyMode::Every && block.to_verify.is_empty() && !payments.is_empty() {
            block.to_verify.extend(self.sample.clone());
        }
        let mut trails = trails(&commands, &block.outcomes);
        for trail in trails.iter_mut().filter(|trail| trail.taken) {
            trail.streams_cost = self.streams_cost(now, trail.group, trail.streams);
        }
        let cost = self.cost(&block, &commands, &trails);
        self.note(now, &block, entry);
        let mut audited = Audited::default();
        for trail in trails.iter().filter(|trail| trail.taken) {
            self.take_trail(trail.group, trail.headers, &mut audited);
        }
        let done = self.execute_everywhere(now, &cost);
        self.attested(block.header.height, block.header_hash, &done);
        let at = done[self.seats.leader];
        self.later(at, Event::Applied { id, block: Box::new(block), payments, audited });
        Ok(())
    }

    fn note(&mut self, now: Ns, block: &ExecutedBlock, entry: &Bytes) {
        if !self.counts(now) {
            return;
        }
        self.stats.blocks += 1;
        self.stats.commands += block.outcomes.len() as u64;
        self.stats.command_bytes += entry.len() as u64;
        let ignored = block.outcomes.iter().filter(|outcome| matches!(outcome, CommandOutcome::Ignored(_)));
        self.stats.ignored += ignored.count() as u64;
    }

    fn cost(&self, block: &ExecutedBlock, commands: &[Command], trails: &[Shown]) -> Cost {
        let constants = &self.setting.constants;
        let streams = (block.outbox.len() + block.inbox.len()) as u64;
        let written: BTreeSet<GroupId> = block.mail.iter().map(|mail| mail.dest).collect();
        let acked = block.outcomes.iter().filter(|outcome| matches!(outcome, CommandOutcome::Acked(..)));
        let changed = (written.len() + block.cursors.len() + acked.count()) as u64;
        // One that does not lead on from what is audited is refused as soon as its headers are hashed.
        let audit = |trail: &Shown| match trail.taken {
            true => constants.audit(trail.headers, 0) + trail.streams_cost + constants.certificate(trail.signatures),
            false => constants.audit(trail.headers, 0),
        };
        let mut cost = Cost {
            execute: constants.block_ns,
            audits: trails.iter().map(audit).sum(),
            streams: constants.stream_ns * streams + constants.head_ns * changed,
            ..Cost::default()
        };
        for (command, outcome) in commands.iter().zip(&block.outcomes) {
            match outcome {
                CommandOutcome::Receipt(..)
                | CommandOutcome::Known(..)
                | CommandOutcome::Refused(..)
                | CommandOutcome::Voted(..)
                | CommandOutcome::Waits(_) => {
                    cost.txs += 1;
                    cost.execute += constants.execute_ns;
                }
                // What was taken before is not checked again.
                CommandOutcome::Delivered(_, 0) => {}
                CommandOutcome::Delivered(_, messages) => {
                    cost.credits += constants.credit_ns * messages;
                    let (leader, other) = self.meeting(command);
                    cost.mail += leader;
                    cost.certificates += other;
                }
                CommandOutcome::Acked(..) => {
                    let (leader, other) = self.meeting(command);
                    cost.acks += leader;
                    cost.certificates += other;
                }
                CommandOutcome::Checkpointed(_) => {
                    let (leader, other) = self.meeting(command);
                    cost.checkpoints += leader;
                    cost.certificates += other;
                }
                CommandOutcome::Registered
                | CommandOutcome::Evidence(_)
                | CommandOutcome::Governed { .. }
                | CommandOutcome::Ignored(_) => {}
            }
        }
        cost
    }

    /// What the certificate of a command costs when it is executed: the leader, and each other member.
    fn meeting(&self, command: &Command) -> (Ns, Ns) {
        let Some(certificate) = certificate_of(command) else { return (0, 0) };
        let (constants, signatures) = (&self.setting.constants, certificate.signatures.len());
        let name = Checked::name(&certificate, &certificate.header.committee_hash);
        let leader = constants.certificate(if self.judged.knows(&name) { 0 } else { signatures });
        (leader, constants.certificate(if self.met.remember(name) { signatures } else { 0 }))
    }

    /// When each member has executed a block, and may sign it. The others hear one hop later that it is ordered. With
    /// `verify = every` they check the clients' signatures first; the leader has done that at ingest.
    fn execute_everywhere(&mut self, now: Ns, cost: &Cost) -> Vec<Ns> {
        let (leader, constants) = (self.seats.leader, self.setting.constants);
        let mut done = Vec::with_capacity(self.shares.len());
        for member in 0..self.shares.len() {
            let heard = if member == leader { now } else { now + self.hop() };
            let mut at = heard.max(self.applied_until[member]);
            if member == leader {
                for (cost, work) in [
                    (cost.execute, Work::Execute),
                    (cost.streams, Work::Streams),
                    (cost.mail + cost.credits, Work::Mail),
                    (cost.acks, Work::Acks),
                    (cost.checkpoints, Work::Order),
                    (cost.audits, Work::Audit),
                ] {
                    at = self.take(member, at, cost, work, false);
                }
                self.applied_until[member] = at;
            } else {
                at = self.take(member, at, cost.other(), Work::Execute, false);
                self.applied_until[member] = at;
                if self.constants.verify == VerifyMode::Every {
                    at = self.take(member, at, cost.txs * constants.verify_ns, Work::Certify, true);
                }
            }
            let signs = self.take(member, at, constants.sign_ns, Work::Certify, true);
            // The leader's receipts do not wait for its signature.
            done.push(if member == leader { at } else { signs });
        }
        done
    }

    /// The other members sign a block when they have executed it, and tell all. So many signatures come to the leader as
    /// it needs besides its own; they are real ones. What each of the others does with those of the rest is a cost only.
    pub(super) fn attested(&mut self, height: Height, header_hash: Hash32, signed: &[Ns]) {
        let (leader, members) = (self.seats.leader, self.seats.members.len());
        let (needed, check) = (self.seats.threshold - 1, self.setting.constants.check_ns);
        let mut coming: Vec<(Ns, usize)> = Vec::with_capacity(members - 1);
        for member in (0..members).filter(|member| *member != leader) {
            self.take(member, signed[member], check * needed as u64, Work::Certify, true);
            coming.push((signed[member] + self.hop(), member));
        }
        if self.counts(signed[leader]) {
            self.stats.messages.certify += (members * (members - 1)) as u64;
        }
        coming.sort_unstable();
        for (at, member) in coming.into_iter().take(needed) {
            let node = self.seats.members[member];
            let key = &self.setting.directory.keys[node.0 as usize];
            let attestation =
                Attestation { group: self.id, height, header_hash, node, signature: key.sign(&header_hash) };
            let message = Box::new(PeerMessage::Attest { attestation, wants_certificate: false });
            self.later(at, Event::Arrives { from: node, member: leader, message });
        }
    }

    /// The leader has executed a block: its driver goes on with it, and clients hear of their payments.
    pub(super) fn applied(
        &mut self,
        now: Ns,
        id: u64,
        mut block: ExecutedBlock,
        payments: &[Paid],
    ) -> Result<(), String> {
        let leader = self.seats.leader;
        let mut receipts = std::mem::take(&mut block.receipts).into_iter();
        let refused = std::mem::take(&mut block.refused);
        let changed = block.system_changed;
        if self.id != GroupId::BEACON {
            self.chain.push(&block);
        }
        self.drive(now, leader, Input::Committed(committed(block)))?;
        if changed {
            let committees = driver::committees(&mut View::new(&self.state));
            self.drive(now, leader, Input::Committees(committees))?;
        }
        self.drive(now, leader, Input::Proposed { id, accepted: true })?;
        for paid in payments {
            match paid {
                Paid::Counted(client) => self.counted_receipt(now, *client),
                Paid::Executed => {
                    if let Some(receipt) = receipts.next() {
                        self.receipt(now, receipt);
                    }
                }
            }
        }
        for receipt in receipts {
            self.receipt(now, receipt);
        }
        for refused in refused {
            self.refused(now, &refused.txid);
        }
        Ok(())
    }
}

/// The machine, for all commands but payments that are only counted: these come to what one comes to that was executed
/// before, which changes nothing.
fn run(work: &mut BlockWork, view: &mut View<'_>, at: BlockContext, commands: &[Command]) -> Vec<CommandOutcome> {
    if commands.iter().all(|command| client_of(command).is_none()) {
        return work.run(view, at, commands);
    }
    let executed: Vec<Command> = commands.iter().filter(|command| client_of(command).is_none()).cloned().collect();
    let mut outcomes = work.run(view, at, &executed).into_iter();
    let nowhere = ReceiptPlace { height: at.height, index: 0, chain: at.group };
    let outcome = |command: &Command| match client_of(command) {
        Some(_) => Some(CommandOutcome::Known(TxId(Hash32::ZERO), nowhere)),
        None => outcomes.next(),
    };
    commands.iter().filter_map(outcome).collect()
}

/// The client whose payment is only counted.
fn client_of(command: &Command) -> Option<u32> {
    let Command::Tx(bytes) = command else { return None };
    counted(bytes)
}

/// The payments of a block with a receipt, in their order.
fn payments(commands: &[Command], outcomes: &[CommandOutcome]) -> Vec<Paid> {
    let paid = |(command, outcome): (&Command, &CommandOutcome)| match client_of(command) {
        Some(client) => Some(Paid::Counted(client)),
        None => matches!(outcome, CommandOutcome::Receipt(..)).then_some(Paid::Executed),
    };
    commands.iter().zip(outcomes).filter_map(paid).collect()
}

/// What a block was shown for the audit.
struct Shown {
    group: GroupId,
    headers: u64,
    /// Streams that stand in it, outgoing and incoming.
    streams: u64,
    /// What they cost a member, one that leads on.
    streams_cost: Ns,
    signatures: usize,
    /// It led on from what was audited.
    taken: bool,
}

/// The trails of a block.
fn trails(commands: &[Command], outcomes: &[CommandOutcome]) -> Vec<Shown> {
    let shown = |(command, outcome): (&Command, &CommandOutcome)| {
        let Command::Audit(bytes) = command else { return None };
        let Ok(AuditEntry::Trail(trail)) = AuditEntry::decode(bytes) else { return None };
        Some(Shown {
            group: trail.certificate.header.group,
            headers: trail.headers.len() as u64 + 1,
            streams: (trail.outbox.len() + trail.inbox.len()) as u64,
            streams_cost: 0,
            signatures: trail.certificate.signatures.len(),
            taken: matches!(outcome, CommandOutcome::Registered),
        })
    };
    commands.iter().zip(outcomes).filter_map(shown).collect()
}

/// The certificate that a command brings, if members remember to have checked it. Those of trails are checked every time.
fn certificate_of(command: &Command) -> Option<Certificate> {
    match command {
        Command::Deliver(bytes) => borsh::from_slice::<Bundle>(bytes).ok().map(|bundle| bundle.certificate),
        Command::Ack(bytes) => borsh::from_slice::<AckProof>(bytes).ok().map(|proof| proof.certificate),
        Command::Checkpoint(bytes) => borsh::from_slice(bytes).ok(),
        Command::Tx(_)
        | Command::Registry(_)
        | Command::Channel(_)
        | Command::Ready(_)
        | Command::Evidence(_)
        | Command::Silence(_)
        | Command::Contribution(_)
        | Command::Audit(_)
        | Command::Report(_)
        | Command::Sealed(_) => None,
    }
}

fn committed(block: ExecutedBlock) -> CommittedBlock {
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

//! Serves our streams to groups that pull them, and pulls theirs: the anchor's work.
//!
//! Every replica serves; only the one that leads pulls, since only it can propose what it gets. A
//! pull is a subscription: while it is repeated, new certified mail is sent at once. All of it may
//! be lost or repeated; the cursor in state decides.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cross_shard::stream::StreamLeaf;
use cross_shard::{AckProof, Bundle};
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, Tick};
use ledger::limits::{BUNDLE_BYTES_MAX, BUNDLE_MESSAGES_MAX};
use ledger::merkle::{self, MerklePath};
use ledger::reject::Reject;

use crate::core::driver::certify::Certified;
use crate::core::driver::{CommittedBlock, DriverConfig, OutboxView, Output};
use crate::core::machine::CommandOutcome;
use crate::core::peer::PeerMessage;

/// A pull is repeated this often.
const PULL_EVERY_MS: u64 = 300;
/// A source that has not answered this many pulls is asked on another node.
const SILENT_PULLS_MAX: u32 = 2;
/// A source that has answered this many pulls and moved nothing is asked on another node, too: the
/// one asked so far may be behind, or alter what it sends. Where there is no mail this costs nothing.
const FRUITLESS_PULLS_MAX: u32 = 5;
/// A subscription that is not repeated ends after this.
const SUBSCRIPTION_MS: u64 = 1_500;

struct Subscriber {
    node: NodeId,
    next_seq: u64,
    since: Tick,
}

/// Our stream to one destination. Unacknowledged messages are kept in memory; the window bounds them.
#[derive(Default)]
struct Outgoing {
    next_seq: u64,
    first_kept: u64,
    kept: VecDeque<(Bytes, Hash32)>,
    taken: u64,
    subscriber: Option<Subscriber>,
}

impl Outgoing {
    fn push(&mut self, message: Bytes) {
        let hash = cross_shard::stream::message_hash(&message);
        self.kept.push_back((message, hash));
        self.next_seq += 1;
    }

    fn drop_below(&mut self, seq: u64) {
        while self.first_kept < seq && self.kept.pop_front().is_some() {
            self.first_kept += 1;
        }
    }
}

/// Their stream to us.
#[derive(Default)]
struct Incoming {
    /// Cursor in state.
    cursor: u64,
    /// Cursor once what we proposed is applied.
    expected: u64,
    /// Cursor that the source has been told of, with a proof.
    told: u64,
    target: usize,
    silent: u32,
    /// Pulls since the cursor moved.
    fruitless: u32,
    pulled: Option<Tick>,
    /// The latest bundle whose committee is not known yet; earlier ones come again with a pull.
    parked: Option<Bundle>,
}

#[derive(Default)]
pub(super) struct Mailroom {
    outgoing: BTreeMap<GroupId, Outgoing>,
    incoming: BTreeMap<GroupId, Incoming>,
}

fn path_of(leaves: &[StreamLeaf], peer: GroupId) -> Option<(StreamLeaf, MerklePath)> {
    let index = leaves.binary_search_by_key(&peer, |leaf| leaf.peer).ok()?;
    let hashes: Vec<Hash32> = leaves.iter().map(StreamLeaf::hash).collect();
    Some((leaves[index], merkle::prove(&hashes, index)?))
}

impl Mailroom {
    pub(super) fn reset(&mut self, outbox: &[OutboxView], inbox: &[StreamLeaf]) {
        self.outgoing.clear();
        for view in outbox {
            let mut stream = Outgoing { next_seq: view.acked, first_kept: view.acked, ..Outgoing::default() };
            stream.taken = view.acked;
            for message in &view.messages {
                stream.push(message.clone());
            }
            self.outgoing.insert(view.leaf.peer, stream);
        }
        for leaf in inbox {
            let stream = self.incoming.entry(leaf.peer).or_default();
            stream.cursor = leaf.next_seq;
            stream.expected = leaf.next_seq;
        }
    }

    pub(super) fn leadership_changed(&mut self) {
        for stream in self.incoming.values_mut() {
            *stream = Incoming { cursor: stream.cursor, expected: stream.cursor, ..Incoming::default() };
        }
        self.acks_lost();
    }

    /// Proofs of cursors that were judged may not have got into the log: what counts is the state.
    fn acks_lost(&mut self) {
        for stream in self.outgoing.values_mut() {
            stream.taken = stream.first_kept;
        }
    }

    /// Something proposed did not get into the log: ask again from the cursor on.
    pub(super) fn proposals_lost(&mut self) {
        for stream in self.incoming.values_mut() {
            stream.expected = stream.cursor;
        }
        self.acks_lost();
    }

    pub(super) fn committed(&mut self, block: &CommittedBlock) {
        for mail in &block.mail {
            let stream = self.outgoing.entry(mail.dest).or_default();
            if stream.next_seq == mail.seq {
                stream.push(mail.message.clone());
            }
        }
        for leaf in &block.inbox {
            let stream = self.incoming.entry(leaf.peer).or_default();
            if stream.cursor != leaf.next_seq {
                stream.fruitless = 0;
            }
            stream.cursor = leaf.next_seq;
            stream.expected = stream.expected.max(leaf.next_seq);
        }
        for outcome in &block.outcomes {
            match outcome {
                CommandOutcome::Acked(dest, upto) => {
                    if let Some(stream) = self.outgoing.get_mut(dest) {
                        stream.taken = stream.taken.max(*upto);
                        stream.drop_below(*upto);
                    }
                }
                CommandOutcome::Ignored(_) => self.proposals_lost(),
                CommandOutcome::Receipt(..)
                | CommandOutcome::Known(..)
                | CommandOutcome::Refused(..)
                | CommandOutcome::Voted(..)
                | CommandOutcome::Waits(_)
                | CommandOutcome::Delivered(..)
                | CommandOutcome::Checkpointed(_)
                | CommandOutcome::Registered => {}
            }
        }
    }

    /// A newer header was certified: new mail may go out, and cursors can be proved.
    pub(super) fn certified(
        &mut self,
        config: &DriverConfig,
        leads: bool,
        now: Tick,
        latest: &Certified,
        committees: &BTreeMap<GroupId, Committee>,
        out: &mut Vec<Output>,
    ) {
        for (dest, stream) in &mut self.outgoing {
            serve(config, *dest, stream, latest, out);
        }
        if leads {
            for leaf in &latest.inbox {
                let news = self.incoming.get(&leaf.peer).is_some_and(|stream| leaf.next_seq > stream.told);
                if news {
                    self.pull_from(config, now, leaf.peer, Some(latest), committees, out);
                }
            }
        }
    }

    /// A group asks for mail, now and while it keeps asking.
    pub(super) fn subscribe(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        dest: GroupId,
        node: NodeId,
        next_seq: u64,
        latest: Option<&Certified>,
        out: &mut Vec<Output>,
    ) {
        let message = PeerMessage::Serving { source: config.group };
        out.push(Output::Send { node, group: dest, message });
        let stream = self.outgoing.entry(dest).or_default();
        stream.subscriber = Some(Subscriber { node, next_seq: next_seq.max(stream.first_kept), since: now });
        if let Some(latest) = latest {
            serve(config, dest, stream, latest, out);
        }
    }

    pub(super) fn expire(&mut self, now: Tick) {
        for stream in self.outgoing.values_mut() {
            if stream.subscriber.as_ref().is_some_and(|subscriber| now.0 > subscriber.since.0 + SUBSCRIPTION_MS) {
                stream.subscriber = None;
            }
        }
    }

    /// A source answered a pull.
    pub(super) fn serving(&mut self, source: GroupId) {
        if let Some(stream) = self.incoming.get_mut(&source) {
            stream.silent = 0;
        }
    }

    /// Takes a bundle that continues what we have and holds; it is then counted as expected. One
    /// whose committee is not known yet is parked until the beacon's mail brings it.
    pub(super) fn accept(
        &mut self,
        bundle: Bundle,
        config: &DriverConfig,
        committees: &BTreeMap<GroupId, Committee>,
    ) -> Option<Bundle> {
        let stream = self.incoming.get_mut(&bundle.source)?;
        let end = bundle.first_seq.saturating_add(bundle.messages.len() as u64);
        if bundle.dest != config.group || bundle.first_seq > stream.expected || end <= stream.expected {
            return None;
        }
        let mut lookup =
            |group: GroupId, hash: Hash32| committees.get(&group).filter(|committee| committee.hash() == hash).cloned();
        match bundle.check(&mut lookup) {
            Ok(()) => {
                stream.expected = end;
                Some(bundle)
            }
            Err(Reject::CommitteeUnknown) => {
                stream.parked = Some(bundle);
                None
            }
            Err(_) => None,
        }
    }

    /// The bundles that wait for a committee, to be judged again.
    pub(super) fn unpark(&mut self) -> Vec<Bundle> {
        self.incoming.values_mut().filter_map(|stream| stream.parked.take()).collect()
    }

    /// Whether a proof of a peer's cursor holds and says something new.
    pub(super) fn judge_ack(
        &mut self,
        proof: &AckProof,
        config: &DriverConfig,
        committees: &BTreeMap<GroupId, Committee>,
    ) -> bool {
        let Some(stream) = self.outgoing.get_mut(&proof.certificate.header.group) else { return false };
        if proof.leaf.next_seq <= stream.taken || proof.leaf.next_seq > stream.next_seq {
            return false;
        }
        let mut lookup =
            |group: GroupId, hash: Hash32| committees.get(&group).filter(|committee| committee.hash() == hash).cloned();
        if proof.check(config.group, &mut lookup).is_err() {
            return false;
        }
        stream.taken = proof.leaf.next_seq;
        true
    }

    /// Repeats the pulls that are due. The beacon receives no mail.
    pub(super) fn pull(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        latest: Option<&Certified>,
        committees: &BTreeMap<GroupId, Committee>,
        out: &mut Vec<Output>,
    ) {
        if config.group == GroupId::BEACON {
            return;
        }
        for source in committees.keys().filter(|source| **source != config.group) {
            let stream = self.incoming.entry(*source).or_default();
            if stream.pulled.is_none_or(|at| now.0 >= at.0 + PULL_EVERY_MS) {
                stream.silent += 1;
                stream.fruitless += 1;
                if stream.silent > SILENT_PULLS_MAX || stream.fruitless > FRUITLESS_PULLS_MAX {
                    stream.silent = 0;
                    stream.fruitless = 0;
                    stream.target += 1;
                }
                self.pull_from(config, now, *source, latest, committees, out);
            }
        }
    }

    fn pull_from(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        source: GroupId,
        latest: Option<&Certified>,
        committees: &BTreeMap<GroupId, Committee>,
        out: &mut Vec<Output>,
    ) {
        let Some(committee) = committees.get(&source).filter(|committee| !committee.members.is_empty()) else {
            return;
        };
        let stream = self.incoming.entry(source).or_default();
        stream.pulled = Some(now);
        let proved = latest.and_then(|latest| {
            let (leaf, path) = path_of(&latest.inbox, source)?;
            let certificate = latest.certificate.clone();
            (leaf.next_seq > 0).then_some(AckProof { version: 1, leaf, path, certificate })
        });
        stream.told = proved.as_ref().map_or(stream.told, |proof| proof.leaf.next_seq);
        let message =
            PeerMessage::Pull { dest: config.group, node: config.node, next_seq: stream.expected, ack: proved };
        let node = committee.members[stream.target % committee.members.len()].node;
        out.push(Output::Send { node, group: source, message });
    }
}

/// Sends what is certified and not sent yet.
fn serve(config: &DriverConfig, dest: GroupId, stream: &mut Outgoing, latest: &Certified, out: &mut Vec<Output>) {
    let Some(subscriber) = &mut stream.subscriber else { return };
    let Some((leaf, path)) = path_of(&latest.outbox, dest) else { return };
    if leaf.next_seq > stream.next_seq {
        return;
    }
    while subscriber.next_seq < leaf.next_seq && subscriber.next_seq >= stream.first_kept {
        let from = usize::try_from(subscriber.next_seq - stream.first_kept).unwrap_or(usize::MAX);
        let until = usize::try_from(leaf.next_seq - stream.first_kept).unwrap_or(usize::MAX);
        let mut size = 0;
        let messages: Vec<Vec<u8>> = stream
            .kept
            .range(from..until)
            .take(BUNDLE_MESSAGES_MAX)
            .take_while(|(message, _)| {
                size += message.len();
                size <= BUNDLE_BYTES_MAX
            })
            .map(|(message, _)| message.to_vec())
            .collect();
        if messages.is_empty() {
            return;
        }
        let tail = stream.kept.range(from + messages.len()..until).map(|(_, hash)| *hash).collect();
        let first_seq = subscriber.next_seq;
        subscriber.next_seq += messages.len() as u64;
        let bundle = Bundle {
            version: 1,
            source: config.group,
            dest,
            first_seq,
            messages,
            tail,
            leaf,
            path: path.clone(),
            certificate: latest.certificate.clone(),
        };
        out.push(Output::Send { node: subscriber.node, group: dest, message: PeerMessage::Bundle(bundle) });
    }
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;

//! Serves our streams to groups that pull them, and pulls theirs: the anchor's work.
//!
//! Every replica serves; only the one that leads pulls, since only it can propose what it gets. Where a channel has
//! anchors, they serve and pull, and pass on what they get (`border`). A
//! pull is a subscription: while it is repeated, new certified mail is sent at once. All of it may
//! be lost or repeated; the cursor in state decides.
//!
//! A source that answers may still be cut off from its group, or withhold. So the others are asked
//! beside it, one at a time, how far the stream is certified, and one that has not delivered in time
//! what another can prove is left. Without news this costs a small message and no signature check.
//!
//! Among many groups credits wait a while for those that follow (`pace`).
//!
//! The beacon's own committees come with the mail that they certify. So its mail is served up to each block that
//! hands over under the certificate of that block, and only then under a later one: whoever has taken all mail up
//! to there knows the committee that certifies the next piece, however long it has been away.

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cross_shard::range::Nodes;
use cross_shard::stream::{StreamLeaf, message_hash};
use cross_shard::{AckProof, Bundle, InCursor, Message};
use ledger::certificate::Certificate;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, Tick};
use ledger::limits::{BUNDLE_BYTES_MAX, BUNDLE_MESSAGES_MAX};
use ledger::merkle::{MerklePath, MerkleTree};
use ledger::reject::Reject;

use crate::core::driver::book::Book;
use crate::core::driver::border::Stand;
use crate::core::driver::certify::Certified;
use crate::core::driver::pace::Pace;
use crate::core::driver::system::CertifiedBlock;
use crate::core::driver::{CommittedBlock, DriverConfig, OutboxView, Output};
use crate::core::machine::CommandOutcome;
use crate::core::peer::{HeadProof, PeerMessage};

/// A pull is repeated this often.
pub(super) const PULL_EVERY_MS: u64 = 300;
/// A source that has not answered this many pulls is asked on another node.
const SILENT_PULLS_MAX: u32 = 2;
/// Between two questions to the replicas of a source that are not subscribed to.
const PROBE_EVERY_MS: u64 = 900;
/// Mail that another replica has proved to be there is delivered within this, or the source is left.
const DELIVER_WITHIN_MS: u64 = 600;
/// A subscription that is not repeated ends after this.
const SUBSCRIPTION_MS: u64 = 1_500;
/// Bundles sent in answer to one pull or one new certificate. The rest of a long stream follows with the
/// next of either, so that neither this replica nor the way there is taken by one destination.
const SERVED_BUNDLES_MAX: usize = 16;

struct Subscriber {
    node: NodeId,
    next_seq: u64,
    since: Tick,
    /// When the last bundle went to it.
    sent: Option<Tick>,
}

/// Our stream to one destination. Unacknowledged messages are kept in memory. The window bounds what
/// clients cause of them; mail that a delivery causes comes on top.
#[derive(Default)]
struct Outgoing {
    next_seq: u64,
    first_kept: u64,
    kept: VecDeque<Bytes>,
    nodes: Nodes,
    taken: u64,
    /// Behind the last message that does not wait.
    urgent: u64,
    /// One, or of a channel with anchors each of them that asks.
    subscribers: Vec<Subscriber>,
}

impl Outgoing {
    fn starting_at(seq: u64) -> Self {
        Self { next_seq: seq, first_kept: seq, taken: seq, nodes: Nodes::starting_at(seq), ..Self::default() }
    }

    fn push(&mut self, message: Bytes) {
        let waits = Message::may_wait(&message);
        self.nodes.push(message_hash(&message));
        self.kept.push_back(message);
        self.next_seq += 1;
        if !waits {
            self.urgent = self.next_seq;
        }
    }

    fn drop_below(&mut self, seq: u64) {
        while self.first_kept < seq && self.kept.pop_front().is_some() {
            self.first_kept += 1;
        }
        self.nodes.drop_below(self.first_kept);
    }
}

/// What a replica of the source has proved about the stream, and has not come yet.
struct Claim {
    head: u64,
    /// Who proved it, until it has been asked for it.
    node: Option<NodeId>,
    since: Tick,
}

/// Their stream to us.
#[derive(Default)]
struct Incoming {
    /// Cursor in state.
    cursor: InCursor,
    /// Cursor once what we proposed is applied.
    expected: InCursor,
    /// Cursor that the source has been told of, with a proof.
    told: u64,
    /// Behind the last bundle with mail that somebody waits for: its source is told at once.
    urgent: u64,
    /// When it was told so last in a request of its own.
    proved: Option<Tick>,
    /// When mail of it was last found to have come.
    delivered: Option<Tick>,
    /// Mail has come since then.
    fresh: bool,
    target: usize,
    silent: u32,
    pulled: Option<Tick>,
    /// Questions to other replicas so far, and the last one.
    probes: usize,
    probed: Option<Tick>,
    claim: Option<Claim>,
    /// Since when it is pulled, or when last a replica of it has answered.
    heard: Option<Tick>,
    /// What an anchor passed on last to the one that leads, and when.
    passed: Option<(u64, Tick)>,
    /// The latest bundle whose committee is not known yet; earlier ones come again with a pull.
    parked: Option<Bundle>,
}

impl Incoming {
    /// The replica that is subscribed to, of those that may be asked.
    fn source(&self, sources: &[NodeId]) -> NodeId {
        sources[self.target % sources.len()]
    }

    /// Whether the source has not been told of mail that somebody waits for.
    fn hurries(&self) -> bool {
        self.urgent > self.told
    }

    /// Where the mail that is here, or on its way from here to the one that leads, ends.
    fn end(&self, now: Tick) -> u64 {
        let passed = self.passed.filter(|(_, at)| now.0 < at.0 + DELIVER_WITHIN_MS);
        passed.map_or(0, |(end, _)| end).max(self.expected.next_seq)
    }

    /// Leaves a source that is silent, or has not delivered in time what another replica has proved.
    /// Returns whether to ask the next one at once.
    fn choose(&mut self, now: Tick, due: bool, has_room: bool, pace: Pace, sources: &[NodeId]) -> bool {
        let expected = self.expected.next_seq;
        self.claim = self.claim.take().filter(|claim| claim.head > expected);
        self.silent += u32::from(due);
        if let Some(claim) = &mut self.claim {
            if !has_room {
                // It may have been delivered, and dropped here.
                claim.since = now;
            } else if now.0 >= claim.since.0 + pace.within_ms(DELIVER_WITHIN_MS) {
                let current = self.target % sources.len();
                let proved = claim.node.take().and_then(|node| sources.iter().position(|known| *known == node));
                self.target = proved.filter(|index| *index != current).unwrap_or(current + 1);
                self.silent = 1;
                claim.since = now;
                return true;
            }
        }
        if self.silent > SILENT_PULLS_MAX {
            self.silent = 1;
            self.target += 1;
        }
        false
    }

    /// Asks for mail from what is expected on.
    fn pull(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        source: GroupId,
        sources: &[NodeId],
        latest: Option<(&Certified, &Heads<'_>)>,
        pace: Pace,
        out: &mut Vec<Output>,
    ) {
        self.pulled = Some(now);
        self.heard = self.heard.or(Some(now));
        let proved = latest.filter(|_| self.hurries() || pace.ack_due(now, self.proved)).and_then(|(latest, inbox)| {
            let (leaf, path) = inbox.path_of(source)?;
            let certificate = latest.certificate.clone();
            (leaf.next_seq > 0).then_some(AckProof { version: 1, leaf, path, certificate })
        });
        if let Some(proof) = &proved {
            (self.told, self.proved) = (proof.leaf.next_seq, Some(now));
        }
        let next_seq = self.end(now);
        let message = PeerMessage::Pull { dest: config.group, node: config.node, next_seq, ack: proved };
        out.push(Output::Send { node: self.source(sources), group: source, message });
    }

    /// Asks one of the other replicas, in turn, whether it has more.
    fn probe(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        source: GroupId,
        sources: &[NodeId],
        pace: Pace,
        out: &mut Vec<Output>,
    ) {
        if std::mem::take(&mut self.fresh) {
            self.delivered = Some(now);
        }
        let every_ms = pace.probe_every_ms(PROBE_EVERY_MS, now, self.delivered);
        let others = sources.len() - 1;
        if others == 0 || self.probed.is_some_and(|at| now.0 < at.0 + every_ms) {
            return;
        }
        self.probed = Some(now);
        let index = (self.target + 1 + self.probes % others) % sources.len();
        self.probes += 1;
        let message = PeerMessage::Probe { dest: config.group, next_seq: self.expected.next_seq };
        out.push(Output::Send { node: sources[index], group: source, message });
    }
}

#[derive(Default)]
pub(super) struct Mailroom {
    outgoing: BTreeMap<GroupId, Outgoing>,
    incoming: BTreeMap<GroupId, Incoming>,
    /// Certified blocks of the beacon that hand over, ascending, while somebody has not taken what they prove. In other
    /// groups none: who their committees are, the beacon says.
    handovers: Vec<Certified>,
    /// The group is sealed: it hears the beacon alone.
    still: bool,
    /// Where mail waits: when all streams were looked at, and when what was taken was proved by itself.
    looked: Option<Tick>,
    proved: Option<Tick>,
}

/// The streams of one header. They are hashed when the first of them is to be proved, and not once for each: among many
/// groups that would be most of a leader's work.
struct Heads<'a> {
    leaves: &'a [StreamLeaf],
    tree: OnceCell<MerkleTree>,
}

impl<'a> Heads<'a> {
    fn of(leaves: &'a [StreamLeaf]) -> Self {
        Self { leaves, tree: OnceCell::new() }
    }

    fn index_of(&self, peer: GroupId) -> Option<usize> {
        self.leaves.binary_search_by_key(&peer, |leaf| leaf.peer).ok()
    }

    fn leaf_of(&self, peer: GroupId) -> Option<StreamLeaf> {
        self.index_of(peer).map(|index| self.leaves[index])
    }

    fn path_of(&self, peer: GroupId) -> Option<(StreamLeaf, MerklePath)> {
        let index = self.index_of(peer)?;
        let tree = self.tree.get_or_init(|| MerkleTree::new(self.leaves.iter().map(StreamLeaf::hash).collect()));
        Some((self.leaves[index], tree.prove(index)?))
    }
}

/// By what a stream is proved.
struct Proofs<'a> {
    handovers: &'a [Certified],
    latest: &'a Certified,
    /// The streams of `latest`.
    outbox: Heads<'a>,
    inbox: Heads<'a>,
}

impl<'a> Proofs<'a> {
    fn of(handovers: &'a [Certified], latest: &'a Certified) -> Self {
        Self { handovers, latest, outbox: Heads::of(&latest.outbox), inbox: Heads::of(&latest.inbox) }
    }

    /// How far a stream is certified by now.
    fn certified(&self, dest: GroupId) -> u64 {
        self.outbox.leaf_of(dest).map_or(0, |leaf| leaf.next_seq)
    }

    /// What was taken of a source's mail, under the latest certificate.
    fn taken(&self, source: GroupId) -> Option<AckProof> {
        let (leaf, path) = self.inbox.path_of(source)?;
        let certificate = self.latest.certificate.clone();
        (leaf.next_seq > 0).then_some(AckProof { version: 1, leaf, path, certificate })
    }

    /// The head of a stream beyond a sequence number that a receiver who has everything before it can judge: by the first
    /// block behind there that hands over, or the latest one.
    fn beyond(&self, dest: GroupId, seq: u64) -> Option<(StreamLeaf, MerklePath, &'a Certificate)> {
        let later = |leaf: StreamLeaf| leaf.next_seq > seq;
        for block in self.handovers {
            let heads = Heads::of(&block.outbox);
            if heads.leaf_of(dest).is_some_and(later) {
                let (leaf, path) = heads.path_of(dest)?;
                return Some((leaf, path, &block.certificate));
            }
        }
        if !self.outbox.leaf_of(dest).is_some_and(later) {
            return None;
        }
        let (leaf, path) = self.outbox.path_of(dest)?;
        Some((leaf, path, &self.latest.certificate))
    }
}

impl Mailroom {
    pub(super) fn reset(&mut self, outbox: &[OutboxView], inbox: &[(GroupId, InCursor)]) {
        self.outgoing.clear();
        for view in outbox {
            let mut stream = Outgoing::starting_at(view.acked);
            for message in &view.messages {
                stream.push(message.clone());
            }
            self.outgoing.insert(view.leaf.peer, stream);
        }
        for (source, cursor) in inbox {
            let stream = self.incoming.entry(*source).or_default();
            stream.cursor = cursor.clone();
            stream.expected = cursor.clone();
        }
    }

    /// The layout has changed, and with it streams have ended or begun. Who is subscribed to one that goes on still is.
    pub(super) fn reshaped(&mut self, outbox: &[OutboxView], inbox: &[(GroupId, InCursor)], committees: &Book) {
        let before = std::mem::take(&mut self.outgoing);
        self.incoming.retain(|source, _| committees.current(*source).is_some());
        self.reset(outbox, inbox);
        for (dest, stream) in before {
            if let Some(now) = self.outgoing.get_mut(&dest) {
                now.subscribers = stream.subscribers;
            }
        }
    }

    /// The group is sealed, or goes on.
    pub(super) fn stand_still(&mut self, still: bool) {
        self.still = still;
    }

    /// The blocks that hand over, as the state has them.
    pub(super) fn handed_over_at(&mut self, blocks: Vec<CertifiedBlock>) {
        self.handovers.clear();
        for CertifiedBlock { certificate, outbox, inbox } in blocks {
            self.handed_over(Certified { certificate, outbox, inbox });
        }
    }

    /// A block that hands over is certified.
    pub(super) fn handed_over(&mut self, block: Certified) {
        let height = |block: &Certified| block.certificate.header.height;
        let at = self.handovers.partition_point(|known| height(known) < height(&block));
        if self.handovers.get(at).is_none_or(|known| height(known) != height(&block)) {
            self.handovers.insert(at, block);
        }
    }

    /// Forgets the blocks that hand over and prove nothing any more that somebody lacks. A stream that is not there any
    /// more was that to a retired shard, and what nobody has taken of it is in others.
    fn forget_handovers(&mut self) {
        let outgoing = &self.outgoing;
        let open = |leaf: &StreamLeaf| outgoing.get(&leaf.peer).is_some_and(|line| line.first_kept < leaf.next_seq);
        self.handovers.retain(|block| block.outbox.iter().any(open));
    }

    pub(super) fn leadership_changed(&mut self) {
        for stream in self.incoming.values_mut() {
            let cursor = std::mem::take(&mut stream.cursor);
            *stream = Incoming { expected: cursor.clone(), cursor, ..Incoming::default() };
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
            stream.expected = stream.cursor.clone();
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
        for (source, cursor) in &block.cursors {
            let stream = self.incoming.entry(*source).or_default();
            if stream.expected.next_seq < cursor.next_seq {
                stream.expected = cursor.clone();
            }
            stream.cursor = cursor.clone();
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
                | CommandOutcome::Registered
                | CommandOutcome::Evidence(_)
                | CommandOutcome::Governed { .. } => {}
            }
        }
        if !self.handovers.is_empty() {
            self.forget_handovers();
        }
    }

    /// A newer header was certified: new mail may go out, and cursors can be proved.
    pub(super) fn certified(
        &mut self,
        config: &DriverConfig,
        stand: Stand,
        now: Tick,
        latest: &Certified,
        committees: &Book,
        out: &mut Vec<Output>,
    ) {
        let pace = Pace::of(committees.groups().count());
        let (proofs, inbox) = (Proofs::of(&self.handovers, latest), Heads::of(&latest.inbox));
        let round = Round { config, now, pace, looks: false, proofs: &proofs };
        for (dest, stream) in &mut self.outgoing {
            round.serve(*dest, stream, out);
        }
        for leaf in latest.inbox.iter().filter(|leaf| !self.still || leaf.peer == GroupId::BEACON) {
            if !stand.fetches(config, committees, leaf.peer) {
                continue;
            }
            let sources = committees.sources(config.group, leaf.peer);
            if sources.is_empty() {
                continue;
            }
            let news = |stream: &&mut Incoming| leaf.next_seq > stream.told && (!pace.holds() || stream.hurries());
            if let Some(stream) = self.incoming.get_mut(&leaf.peer).filter(news) {
                stream.pull(config, now, leaf.peer, sources, Some((latest, &inbox)), pace, out);
            }
        }
    }

    /// Looks at all streams, where mail waits, and sends what has waited long enough.
    pub(super) fn serve_waiting(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        latest: Option<&Certified>,
        committees: &Book,
        out: &mut Vec<Output>,
    ) {
        let pace = Pace::of(committees.groups().count());
        let Some(latest) = latest.filter(|_| pace.look_due(now, self.looked)) else { return };
        self.looked = Some(now);
        let round = Round { config, now, pace, looks: true, proofs: &Proofs::of(&self.handovers, latest) };
        for (dest, stream) in &mut self.outgoing {
            round.serve(*dest, stream, out);
        }
    }

    /// A group asks for mail, now and while it keeps asking. Who asks takes the place of who asked before, but for
    /// the anchors of a channel, each of which asks for itself.
    pub(super) fn subscribe(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        dest: GroupId,
        node: NodeId,
        next_seq: u64,
        latest: Option<&Certified>,
        committees: &Book,
        out: &mut Vec<Output>,
    ) {
        let message = PeerMessage::Serving { source: config.group };
        out.push(Output::Send { node, group: dest, message });
        let stream = self.outgoing.entry(dest).or_default();
        let anchors = committees.anchors(dest, config.group).unwrap_or_default();
        let sent = stream.subscribers.iter().find(|known| known.node == node).and_then(|known| known.sent);
        stream.subscribers.retain(|known| known.node != node && anchors.contains(&known.node));
        stream.subscribers.push(Subscriber { node, next_seq: next_seq.max(stream.first_kept), since: now, sent });
        if let Some(latest) = latest {
            let pace = Pace::of(committees.groups().count());
            let round = Round { config, now, pace, looks: false, proofs: &Proofs::of(&self.handovers, latest) };
            round.serve(dest, stream, out);
        }
    }

    pub(super) fn expire(&mut self, now: Tick) {
        for stream in self.outgoing.values_mut() {
            stream.subscribers.retain(|subscriber| now.0 <= subscriber.since.0 + SUBSCRIPTION_MS);
        }
    }

    /// Ends the subscriptions of nodes that are given the mail no more.
    pub(super) fn keep_subscribers(&mut self, config: &DriverConfig, committees: &Book) {
        for (dest, stream) in &mut self.outgoing {
            let serves = committees.carries(config.group, config.node, *dest);
            stream.subscribers.retain(|known| {
                let carries = committees.carries(*dest, known.node, config.group);
                serves && carries && committees.gets_mail_of(*dest, known.node)
            });
        }
    }

    /// Who is sent the mail for a group as it comes.
    #[cfg(test)]
    pub(super) fn subscribers(&self, dest: GroupId) -> Vec<NodeId> {
        let streams = self.outgoing.get(&dest).into_iter();
        streams.flat_map(|stream| &stream.subscribers).map(|subscriber| subscriber.node).collect()
    }

    /// Other anchors carry the mail of a group, or none: what is known of the old ones counts no more.
    pub(super) fn anchors_changed(&mut self, group: GroupId) {
        if let Some(stream) = self.incoming.get_mut(&group) {
            (stream.heard, stream.silent, stream.pulled) = (None, 0, None);
        }
    }

    /// A group is not pulled from here: that it does not answer says nothing.
    pub(super) fn forget_heard(&mut self, source: GroupId) {
        if let Some(stream) = self.incoming.get_mut(&source) {
            stream.heard = None;
        }
    }

    /// Since when a group is pulled, or when it answered last.
    pub(super) fn heard(&self, source: GroupId) -> Option<Tick> {
        self.incoming.get(&source)?.heard
    }

    /// Whether an anchor passes a bundle on to the one that leads: it is from the replica that was asked, and goes on
    /// from what was passed on before. What it carries is judged by the one that leads.
    pub(super) fn passes_on(
        &mut self,
        bundle: &Bundle,
        config: &DriverConfig,
        now: Tick,
        from: NodeId,
        committees: &Book,
    ) -> bool {
        let sources = committees.sources(config.group, bundle.source);
        let Some(stream) = self.incoming.get_mut(&bundle.source).filter(|_| !sources.is_empty()) else { return false };
        let (wanted, end) = (stream.end(now), bundle.first_seq.saturating_add(bundle.messages.len() as u64));
        let goes_on = bundle.dest == config.group && bundle.first_seq <= wanted && end > wanted;
        if !goes_on || stream.source(sources) != from {
            return false;
        }
        stream.passed = Some((end, now));
        true
    }

    /// A group asks how far its mail is certified here.
    pub(super) fn probed(
        &self,
        dest: GroupId,
        node: NodeId,
        next_seq: u64,
        latest: Option<&Certified>,
        out: &mut Vec<Output>,
    ) {
        let Some(latest) = latest else { return };
        let Some((leaf, path, certificate)) = Proofs::of(&self.handovers, latest).beyond(dest, next_seq) else {
            return;
        };
        let proof = HeadProof { version: 1, leaf, path, certificate: certificate.clone() };
        out.push(Output::Send { node, group: dest, message: PeerMessage::Head(proof) });
    }

    /// A source answered a pull. Only the replica that was asked can say that.
    pub(super) fn serving(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        source: GroupId,
        from: NodeId,
        committees: &Book,
    ) {
        let sources = committees.sources(config.group, source);
        if sources.is_empty() {
            return;
        }
        if let Some(stream) = self.incoming.get_mut(&source).filter(|stream| stream.source(sources) == from) {
            stream.silent = 0;
            stream.heard = Some(now);
        }
    }

    /// A replica of a source proves that there is mail. The one that is subscribed to has a moment to
    /// deliver it; until then the first proof stands.
    pub(super) fn head(
        &mut self,
        config: &DriverConfig,
        now: Tick,
        from: NodeId,
        proof: &HeadProof,
        committees: &Book,
    ) {
        let header = &proof.certificate.header;
        let Some(committee) = committees.named(header.group, &header.committee_hash) else { return };
        let Some(stream) = self.incoming.get_mut(&header.group) else { return };
        let pending = stream.claim.as_ref().is_some_and(|claim| claim.head > stream.expected.next_seq);
        if pending || proof.leaf.next_seq <= stream.expected.next_seq {
            return;
        }
        let holds = proof.version == 1
            && proof.leaf.peer == config.group
            && (committee.index_of(from).is_some() || committees.speaks_for(header.group, from))
            && proof.path.leads_to(&proof.leaf.hash(), &header.outbox_root)
            && config.checked.verify(&proof.certificate, committee).is_ok();
        if holds {
            stream.claim = Some(Claim { head: proof.leaf.next_seq, node: Some(from), since: now });
        }
    }

    /// Takes a bundle that continues what we have and holds as a whole, so that it will be taken when
    /// it is delivered; it is then counted as expected. Anything less must not move what is expected:
    /// it would keep the genuine mail out. One whose committee is not known yet is parked until the
    /// beacon's mail brings it.
    pub(super) fn accept(&mut self, bundle: Bundle, config: &DriverConfig, committees: &Book) -> Option<Bundle> {
        committees.current(bundle.source)?;
        // What an anchor passes on has not been asked for here.
        let stream = self.incoming.entry(bundle.source).or_default();
        let end = bundle.first_seq.saturating_add(bundle.messages.len() as u64);
        let expected = stream.expected.next_seq;
        if bundle.dest != config.group || bundle.first_seq > expected || end <= expected {
            return None;
        }
        let mut lookup = |group: GroupId, hash: Hash32| committees.named(group, &hash).cloned();
        match bundle.check_once(&mut lookup, Some(&config.checked)) {
            Ok(()) => {
                (_, stream.expected) = bundle.follow(stream.expected.clone()).ok()?;
                stream.fresh = true;
                if bundle.messages.iter().any(|message| !Message::may_wait(message)) {
                    stream.urgent = end;
                }
                Some(bundle)
            }
            Err(Reject::CommitteeUnknown) => {
                // What an ended incarnation certified is refused for ever.
                let current = committees.current(bundle.source).map(|committee| committee.incarnation);
                if current.is_none_or(|current| bundle.certificate.header.incarnation >= current) {
                    stream.parked = Some(bundle);
                }
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
    pub(super) fn judge_ack(&mut self, proof: &AckProof, config: &DriverConfig, committees: &Book) -> bool {
        let Some(stream) = self.outgoing.get_mut(&proof.certificate.header.group) else { return false };
        if proof.leaf.next_seq <= stream.taken || proof.leaf.next_seq > stream.next_seq {
            return false;
        }
        let mut lookup = |group: GroupId, hash: Hash32| committees.named(group, &hash).cloned();
        if proof.check_once(config.group, &mut lookup, Some(&config.checked)).is_err() {
            return false;
        }
        stream.taken = proof.leaf.next_seq;
        true
    }

    /// Repeats the pulls that are due, leaves sources that do not deliver, and asks beside them.
    /// `has_room` tells whether bundles are taken at the moment. To the beacon only channels write.
    pub(super) fn pull(
        &mut self,
        config: &DriverConfig,
        stand: Stand,
        now: Tick,
        has_room: bool,
        latest: Option<&Certified>,
        committees: &Book,
        out: &mut Vec<Output>,
    ) {
        let writes = |source: GroupId| config.group != GroupId::BEACON || source.kind() == Some(GroupKind::Channel);
        let inbox = Heads::of(latest.map_or(&[][..], |latest| &latest.inbox[..]));
        let pace = Pace::of(committees.groups().count());
        let proves = !pace.holds() || pace.look_due(now, self.proved);
        if proves {
            self.proved = Some(now);
        }
        let latest = latest.map(|latest| (latest, &inbox));
        for source in committees.groups() {
            let sources = committees.sources(config.group, *source);
            let fetches = writes(*source) && stand.fetches(config, committees, *source);
            let asks = *source != config.group && fetches && (!self.still || *source == GroupId::BEACON);
            if !asks || sources.is_empty() {
                continue;
            }
            let stream = self.incoming.entry(*source).or_default();
            let due = stream.pulled.is_none_or(|at| now.0 >= at.0 + PULL_EVERY_MS);
            if stream.choose(now, due, has_room, pace, sources) || due {
                let latest = latest.filter(|_| proves || stream.hurries());
                stream.pull(config, now, *source, sources, latest, pace, out);
            }
            stream.probe(config, now, *source, sources, pace, out);
        }
    }
}

/// One time that mail is sent: with a certificate, for a request, or since it has waited.
struct Round<'a> {
    config: &'a DriverConfig,
    now: Tick,
    pace: Pace,
    /// All streams are looked at.
    looks: bool,
    proofs: &'a Proofs<'a>,
}

impl Round<'_> {
    /// Sends what is certified, not sent yet, and does not wait.
    fn serve(&self, dest: GroupId, stream: &mut Outgoing, out: &mut Vec<Output>) {
        let mut subscribers = std::mem::take(&mut stream.subscribers);
        for subscriber in subscribers.iter_mut().filter(|subscriber| !self.waits(dest, stream, subscriber)) {
            let before = subscriber.next_seq;
            serve_one(self.config, dest, stream, subscriber, self.proofs, out);
            if self.pace.holds() && subscriber.next_seq > before {
                subscriber.sent = Some(self.now);
                // What was taken comes under the certificate that the mail came under, which need not be checked again.
                let message = self.proofs.taken(dest).map(PeerMessage::Ack);
                out.extend(message.map(|message| Output::Send { node: subscriber.node, group: dest, message }));
            }
        }
        stream.subscribers = subscribers;
    }

    /// Whether there is nothing that a subscriber is sent by now.
    fn waits(&self, dest: GroupId, stream: &Outgoing, subscriber: &Subscriber) -> bool {
        if !self.pace.holds() {
            return false;
        }
        let waiting = self.proofs.certified(dest).saturating_sub(subscriber.next_seq);
        let urgent = stream.urgent > subscriber.next_seq;
        waiting == 0 || (!urgent && !self.pace.bundle_due(self.now, subscriber.sent, self.looks, waiting))
    }
}

fn serve_one(
    config: &DriverConfig,
    dest: GroupId,
    stream: &Outgoing,
    subscriber: &mut Subscriber,
    proofs: &Proofs<'_>,
    out: &mut Vec<Output>,
) {
    for _ in 0..SERVED_BUNDLES_MAX {
        if subscriber.next_seq < stream.first_kept {
            return;
        }
        let Some((leaf, path, certificate)) = proofs.beyond(dest, subscriber.next_seq) else { return };
        if leaf.next_seq > stream.next_seq {
            return;
        }
        let from = usize::try_from(subscriber.next_seq - stream.first_kept).unwrap_or(usize::MAX);
        let until = usize::try_from(leaf.next_seq - stream.first_kept).unwrap_or(usize::MAX);
        let mut size = 0;
        let messages: Vec<Vec<u8>> = stream
            .kept
            .range(from..until)
            .take(BUNDLE_MESSAGES_MAX)
            .take_while(|message| {
                size += message.len();
                size <= BUNDLE_BYTES_MAX
            })
            .map(|message| message.to_vec())
            .collect();
        if messages.is_empty() {
            return;
        }
        let first_seq = subscriber.next_seq;
        let end = first_seq + messages.len() as u64;
        let Some(proof) = stream.nodes.proof(end, leaf.next_seq) else { return };
        subscriber.next_seq = end;
        let bundle = Bundle {
            version: 2,
            source: config.group,
            dest,
            first_seq,
            messages,
            proof,
            leaf,
            path,
            certificate: certificate.clone(),
        };
        out.push(Output::Send { node: subscriber.node, group: dest, message: PeerMessage::Bundle(bundle) });
    }
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;

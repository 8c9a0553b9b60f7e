//! Headers for the audit: what a shard keeps of its chain until the beacon has audited it, how the beacon asks for it, and
//! what is sent.
//!
//! Which headers make a trail, and which of them the beacon misses, production decides ([`shard_node::core::trail`]); here is
//! only what it reads. In a node that is the database, which keeps every block; here it is no more than what the beacon has
//! not said to have audited.

use std::collections::BTreeMap;

use beacon::AuditEntry;
use beacon::audit::rounds::{Shown, round_ms, shown_key};
use beacon::audit::trail::{audited, audited_key};
use bytes::Bytes;
use cross_shard::StreamLeaf;
use ledger::Signature;
use ledger::certificate::Certificate;
use ledger::ids::{GroupId, Height, NodeId, TimeMs};
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};
use shard_node::core::applied::AppliedRecord;
use shard_node::core::executor::ExecutedBlock;
use shard_node::core::peer::{PeerMessage, Wanted};
use shard_node::core::records::BlockRecord;
use shard_node::core::trail;

use crate::scale::cluster::encoded;
use crate::scale::group::Group;
use crate::scale::model::{MS, Ns};

/// Where the streams of a group stand, outgoing and incoming, each sorted by peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ends {
    outbox: Vec<StreamLeaf>,
    inbox: Vec<StreamLeaf>,
}

impl Ends {
    /// Takes where some of them stand now.
    fn put(&mut self, changed: &Self) {
        for (ends, changed) in [(&mut self.outbox, &changed.outbox), (&mut self.inbox, &changed.inbox)] {
            for leaf in changed {
                match ends.binary_search_by_key(&leaf.peer, |known| known.peer) {
                    Ok(at) => ends[at] = *leaf,
                    Err(at) => ends.insert(at, *leaf),
                }
            }
        }
    }
}

/// Goes from what is known of streams to what they are now, and returns what has changed. No stream ends here.
fn step(known: &mut Vec<StreamLeaf>, now: &[StreamLeaf]) -> Vec<StreamLeaf> {
    let (mut changed, mut before) = (Vec::new(), known.iter().peekable());
    for leaf in now {
        let same = before.next_if(|known| known.peer == leaf.peer);
        if same != Some(leaf) {
            changed.push(*leaf);
        }
    }
    known.clear();
    known.extend_from_slice(now);
    changed
}

/// A block that is not audited. Of a block of 512 shards the heads of all streams are many times as large as all else, so
/// those are kept that it has changed.
struct Kept {
    header: Bytes,
    /// Of its certificate, as soon as it has one.
    signatures: Option<Vec<(NodeId, Signature)>>,
    changed: Ends,
}

/// The end of a group's chain, from the first block that is not audited.
pub(super) struct Chain {
    applied: AppliedRecord,
    blocks: BTreeMap<Height, Kept>,
    /// Before the first of them.
    before: Ends,
    /// Behind the last of them.
    last: Ends,
}

impl Chain {
    /// A chain of block 0, with its encoded header.
    pub(super) fn new(first: Bytes, applied: AppliedRecord) -> Self {
        let kept = Kept { header: first, signatures: None, changed: Ends::default() };
        let blocks = BTreeMap::from([(applied.height, kept)]);
        Self { applied, blocks, before: Ends::default(), last: Ends::default() }
    }

    /// Takes the next block.
    pub(super) fn push(&mut self, block: &ExecutedBlock) {
        let outbox = step(&mut self.last.outbox, &block.outbox);
        let inbox = step(&mut self.last.inbox, &block.inbox);
        let kept = Kept { header: encoded(&block.header), signatures: None, changed: Ends { outbox, inbox } };
        self.blocks.insert(block.header.height, kept);
        self.applied = block.applied.clone();
    }

    /// Takes the certificate of a block that is kept.
    pub(super) fn certified(&mut self, certificate: Certificate) {
        if let Some(kept) = self.blocks.get_mut(&certificate.header.height) {
            kept.signatures = Some(certificate.signatures);
        }
    }

    /// The beacon has audited all blocks up to this one, and asks for none of them again.
    fn audited(&mut self, height: Height) {
        let behind = self.blocks.split_off(&height.next());
        for kept in std::mem::replace(&mut self.blocks, behind).into_values() {
            self.before.put(&kept.changed);
        }
    }

    /// What a database has under the key of a header, a certificate or the record of a block.
    fn find(&self, key: &[u8]) -> Option<Bytes> {
        let (space, height) = key.split_first()?;
        let height = Height(u64::from_be_bytes(height.try_into().ok()?));
        let kept = self.blocks.get(&height)?;
        match *space {
            schema::HEADER => Some(kept.header.clone()),
            schema::CERTIFICATE => {
                let (header, signatures) = (borsh::from_slice(&kept.header).ok()?, kept.signatures.clone()?);
                Some(encoded(&Certificate { version: 1, header, signatures }))
            }
            schema::BLOCK => {
                let mut ends = self.before.clone();
                self.blocks.range(..=height).for_each(|(_, kept)| ends.put(&kept.changed));
                // Nobody asks for receipts here.
                Some(encoded(&BlockRecord { receipts: Vec::new(), outbox: ends.outbox, inbox: ends.inbox }))
            }
            _ => None,
        }
    }
}

impl StateReader for Chain {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        if key == schema::applied().as_slice() {
            return Ok(Some(encoded(&self.applied)));
        }
        Ok(self.find(key))
    }

    fn scan_prefix(&self, _: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        Err(ReadFault("a trail is read block by block".to_owned()))
    }

    fn scan_from(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        Err(ReadFault("a trail is read block by block".to_owned()))
    }
}

/// The part of a cost that comes once in a round, for so much of the round.
fn part(cost: Ns, since: Ns, round: Ns) -> Ns {
    let part = u128::from(cost) * u128::from(since.min(round)) / u128::from(round.max(1));
    u64::try_from(part).unwrap_or(cost)
}

/// What a block of the beacon has audited.
#[derive(Default)]
pub(super) struct Audited {
    /// How far shards are audited now, and where those with many streams last showed them, by key.
    pub(super) records: Vec<(Vec<u8>, Bytes)>,
    pub(super) headers: u64,
}

impl Group {
    /// In the beacon: its leader has executed a block.
    pub(super) fn take_audited(&mut self, now: Ns, audited: Audited) {
        self.audited.extend(audited.records);
        if self.counts(now) {
            self.stats.headers += audited.headers;
        }
    }

    /// In the beacon: a trail of a shard was taken, of which it keeps what its leader needs to ask for the next one.
    pub(super) fn take_trail(&self, group: GroupId, headers: u64, audited: &mut Audited) {
        for key in [audited_key(group), shown_key(group)] {
            audited.records.extend(self.state.get(&key).cloned().map(|record| (key, record)));
        }
        audited.headers += headers;
    }

    /// In the beacon: what showing streams costs a member for each trail that is taken, over a long time. A round of a shard
    /// with many streams is longer than most studies, and all shards show their streams in the same seconds; so each trail pays
    /// for its part of the round, whether it is the one that shows them or not. One that shows few pays for these.
    pub(super) fn streams_cost(&mut self, now: Ns, group: GroupId, streams: u64) -> Ns {
        let before = self.trailed.insert(group, now).unwrap_or(self.setting.times.load_from);
        let each = self.setting.constants.audit_stream_ns;
        let shown = self.state.get(&shown_key(group)).and_then(|bytes| borsh::from_slice::<Shown>(bytes).ok());
        shown.map_or(each * streams, |shown| {
            part(each * shown.streams, now.saturating_sub(before), round_ms(shown.streams).saturating_mul(MS))
        })
    }

    /// In the beacon: asks the node that has shown a certificate for what is missing, by what the beacon's time is.
    pub(super) fn ask_trail(
        &mut self,
        now: Ns,
        member: usize,
        (group, node): (GroupId, NodeId),
        certified: Height,
        time: TimeMs,
    ) -> Result<(), String> {
        let missed = trail::missed(&self.audited, group, certified, time).map_err(|fault| fault.to_string())?;
        if let Some(wanted) = missed {
            self.send(now, member, node, group, PeerMessage::want(wanted));
        }
        Ok(())
    }

    /// In a shard: sends the beacon what it wants, if it is certified.
    pub(super) fn give_trail(&mut self, now: Ns, member: usize, node: NodeId, wanted: Wanted) -> Result<(), String> {
        let audited = match wanted {
            Wanted::Trail(after) => after,
            Wanted::Headers(after) => Some(after),
            // This block is asked for again.
            Wanted::Streams(at) => at.0.checked_sub(1).map(Height),
        };
        if let Some(audited) = audited {
            self.chain.audited(audited);
        }
        if let Some(trail) = trail::given(&self.chain, wanted).map_err(|fault| fault.to_string())? {
            let message = PeerMessage::Audit(Box::new(AuditEntry::Trail(trail)));
            self.send(now, member, node, GroupId::BEACON, message);
        }
        Ok(())
    }

    /// Of the beacon: how far it has audited a shard; none where it has taken no trail of it.
    pub(in crate::scale) fn audited(&self, shard: GroupId) -> Result<Option<Height>, String> {
        let mut view = View::new(&self.audited);
        let audit = audited(&mut view, shard);
        view.fault().map_or(Ok(audit.map(|audit| audit.height)), |fault| Err(fault.to_string()))
    }

    /// Blocks that are kept for the audit.
    #[cfg(test)]
    pub(in crate::scale) fn kept(&self) -> usize {
        self.chain.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use ledger::hash::Hash32;

    use super::*;

    fn leaf(peer: u32, next_seq: u64) -> StreamLeaf {
        StreamLeaf { peer: GroupId::shard(peer), next_seq, head: Hash32([1; 32]) }
    }

    #[test]
    fn a_cost_of_a_round_is_paid_in_parts() {
        for (since, expected) in [(0, 0), (1, 10), (50, 500), (64, 640), (100, 640)] {
            assert_eq!(part(640, since * MS, 64 * MS), expected, "{since}");
        }
        assert_eq!(part(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(part(640, 1, 0), 0);
    }

    #[test]
    fn heads_are_kept_by_what_changes() {
        let (mut known, mut again) = (Vec::new(), Ends::default());
        let stands = [
            vec![leaf(3, 1)],
            vec![leaf(1, 1), leaf(3, 1), leaf(9, 4)],
            vec![leaf(1, 1), leaf(3, 2), leaf(9, 4)],
            vec![leaf(1, 1), leaf(3, 2), leaf(9, 4)],
            vec![leaf(1, 2), leaf(2, 1), leaf(3, 2), leaf(9, 5)],
        ];
        let mut counts = Vec::new();
        for now in stands {
            let outbox = step(&mut known, &now);
            counts.push(outbox.len());
            again.put(&Ends { outbox, inbox: Vec::new() });
            assert_eq!((&known, &again.outbox), (&now, &now));
        }
        assert_eq!(counts, [1, 2, 1, 0, 3]);
    }
}

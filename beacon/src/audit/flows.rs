//! Value flows over all groups: what each shard says entered and left it, added up over its whole chain, and compared with
//! what its peers say.
//!
//! A header's line of an asset must balance and open with what the last one closed with. What one shard has given to
//! another must be what the other has from it, as soon as nothing is in flight between them. Mail in flight shows in the
//! streams: what the sender has sent against what the receiver has taken. An amount that both sides post by vote
//! (`PaySync`) is not mail, and either side may be first; so flows are compared when both shards have taken all mail that
//! anybody had sent them, votes among it, and so know the same of every transaction. Channels show no flows, only streams;
//! what they bring back the main ledger measures itself, in its pair accounts.
//!
//! What is compared are sums as of the block at which the shard last showed its streams ([`rounds`]); what its headers say of
//! later blocks is added up beside them until it shows its streams again. So sums and streams of a shard are always of one
//! block, whatever block that is of another one.
//!
//! Sums count modulo 2^128: an asset may go to and fro for ever, and what is compared is whether two sums are equal.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::stream::StreamLeaf;
use ledger::flow::FlowLine;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{AssetId, GroupId, GroupKind, Height, LayoutVersion};
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::audit::trail::Trail;
use crate::audit::{AUDIT_VERSION, Flaw, legacy, lines, note, rounds};
use crate::jobs::commit;
use crate::registry;

/// What a shard says of an asset, over all its audited blocks up to the one at which it last showed its streams; or, beside
/// that, over those since. All sums modulo 2^128.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AssetSums {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// The shard.
    pub group: GroupId,
    /// The asset.
    pub asset: AssetId,
    /// Its total in the shard after the last block that touched it.
    pub closing: u128,
    /// Created by its issuer.
    pub minted: u128,
    /// Destroyed by its issuer.
    pub burned: u128,
    /// What came, by source.
    pub imported: BTreeMap<GroupId, u128>,
    /// What left, by destination.
    pub exported: BTreeMap<GroupId, u128>,
}

impl AssetSums {
    /// Nothing has happened yet, in a group that began with nothing.
    #[must_use]
    pub fn new(group: GroupId, asset: AssetId) -> Self {
        let (imported, exported) = (BTreeMap::new(), BTreeMap::new());
        Self { version: AUDIT_VERSION, group, asset, closing: 0, minted: 0, burned: 0, imported, exported }
    }

    /// What came from a peer.
    #[must_use]
    pub fn came_from(&self, peer: GroupId) -> u128 {
        self.imported.get(&peer).copied().unwrap_or(0)
    }

    /// What left for a peer.
    #[must_use]
    pub fn left_for(&self, peer: GroupId) -> u128 {
        self.exported.get(&peer).copied().unwrap_or(0)
    }

    /// Adds one block's line. Says what is wrong with it, if anything.
    #[must_use]
    pub fn add(&mut self, line: &FlowLine) -> Option<Flaw> {
        let asset = self.asset;
        let flaw = match (line.balances(), self.closing == line.opening) {
            (false, _) => Some(Flaw::Unbalanced { asset }),
            (true, false) => Some(Flaw::Discontinuous { asset, closed: self.closing, opened: line.opening }),
            (true, true) => None,
        };
        self.closing = line.closing;
        self.minted = self.minted.wrapping_add(line.minted);
        self.burned = self.burned.wrapping_add(line.burned);
        for (sums, peers) in [(&mut self.imported, &line.imported), (&mut self.exported, &line.exported)] {
            for (peer, amount) in peers {
                let sum = sums.entry(*peer).or_default();
                *sum = sum.wrapping_add(*amount);
            }
        }
        flaw
    }

    /// Adds what happened since.
    fn take(&mut self, since: &Self) {
        self.closing = since.closing;
        self.minted = self.minted.wrapping_add(since.minted);
        self.burned = self.burned.wrapping_add(since.burned);
        for (sums, peers) in [(&mut self.imported, &since.imported), (&mut self.exported, &since.exported)] {
            for (peer, amount) in peers {
                let sum = sums.entry(*peer).or_default();
                *sum = sum.wrapping_add(*amount);
            }
        }
    }
}

/// Where a stream stands by one of its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StreamEnd {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// Sequence number of the next message.
    pub next_seq: u64,
    /// Head of the range over everything before it.
    pub head: Hash32,
}

impl StreamEnd {
    fn of(leaf: &StreamLeaf) -> Self {
        Self { version: AUDIT_VERSION, next_seq: leaf.next_seq, head: leaf.head }
    }
}

const SUMS: &[u8] = b"audit-sums/";
const SINCE: &[u8] = b"audit-since/";
const SENT: &[u8] = b"audit-sent/";
const TOOK: &[u8] = b"audit-took/";
const LAYOUT: &[u8] = b"audit-layout/";

/// Key of [`AssetSums`] up to the block at which the shard last showed its streams.
#[must_use]
pub fn sums_key(group: GroupId, asset: &AssetId) -> Vec<u8> {
    registry::key(SUMS, &[&group.0.to_be_bytes(), &asset.0])
}

/// Key of [`AssetSums`] over the blocks since, which begin with nothing but the asset's total. Only while there are such.
#[must_use]
pub fn since_key(group: GroupId, asset: &AssetId) -> Vec<u8> {
    registry::key(SINCE, &[&group.0.to_be_bytes(), &asset.0])
}

/// Key of what a source says that it has sent to a destination: a [`StreamEnd`].
#[must_use]
pub fn sent_key(dest: GroupId, source: GroupId) -> Vec<u8> {
    registry::key(SENT, &[&dest.0.to_be_bytes(), &source.0.to_be_bytes()])
}

/// Key of what a destination says that it has taken from a source: a [`StreamEnd`].
#[must_use]
pub fn took_key(dest: GroupId, source: GroupId) -> Vec<u8> {
    registry::key(TOOK, &[&dest.0.to_be_bytes(), &source.0.to_be_bytes()])
}

/// Key of the layout that a group went by at the block at which it last showed its streams: a [`LayoutVersion`].
#[must_use]
pub fn layout_key(group: GroupId) -> Vec<u8> {
    registry::key(LAYOUT, &[&group.0.to_be_bytes()])
}

/// The layout that a group went by at the block at which it last showed its streams; the first one where nothing else was
/// seen.
pub(crate) fn layout_of(view: &mut View<'_>, group: GroupId) -> LayoutVersion {
    view.load(&layout_key(group)).unwrap_or(LayoutVersion(1))
}

/// What a shard says of all its assets, by asset, as of the block at which it last showed its streams.
pub fn sums(view: &mut View<'_>, group: GroupId) -> Vec<AssetSums> {
    let prefix = registry::key(SUMS, &[&group.0.to_be_bytes()]);
    registry::family(view, &prefix).into_iter().map(|(_, sums)| sums).collect()
}

/// All assets that a shard's headers have told of.
pub(crate) fn assets(view: &mut View<'_>, group: GroupId) -> BTreeSet<AssetId> {
    let since = registry::key(SINCE, &[&group.0.to_be_bytes()]);
    let since = registry::family::<AssetSums>(view, &since).into_iter().map(|(_, sums)| sums.asset);
    let mut assets: BTreeSet<AssetId> = since.collect();
    assets.extend(sums(view, group).into_iter().map(|sums| sums.asset));
    assets
}

/// What the lines of a trail came to.
pub(crate) struct Added {
    /// Whether one of them shows that the group broke the rules.
    pub(crate) flawed: bool,
    /// By asset, what was added to the sums that are compared: all that happened since the shard last showed its streams.
    /// Nothing where it does not show them now.
    pub(crate) moved: Vec<AssetSums>,
}

/// Adds the lines of new headers up to the last one, which was added before if there are none. Where the trail shows streams,
/// the sums move on to its end.
pub(crate) fn add(view: &mut View<'_>, at: &BlockContext, last: &Header, news: &[&Header], shows: bool) -> Added {
    let group = last.group;
    let born = commit::born(view, group).is_some();
    let mut begun: Vec<(AssetId, u128)> = Vec::new();
    let mut since: BTreeMap<AssetId, AssetSums> = BTreeMap::new();
    let mut flaws = Vec::new();
    for header in news {
        for line in &header.value_flow {
            let sums = since.entry(line.asset).or_insert_with(|| {
                if let Some(known) = view.load::<AssetSums>(&since_key(group, &line.asset)) {
                    return known;
                }
                let before = view.load::<AssetSums>(&sums_key(group, &line.asset)).map(|before| before.closing);
                // What its parents left it: their headers say how much that was together, not of each half.
                let closing = before.unwrap_or(if born { line.opening } else { 0 });
                if born && before.is_none() {
                    begun.push((line.asset, line.opening));
                }
                AssetSums { closing, ..AssetSums::new(group, line.asset) }
            });
            flaws.extend(sums.add(line).map(|flaw| (header.height, flaw)));
        }
    }
    let moved = if shows { move_on(view, group, since) } else { set_aside(view, since) };
    legacy::note_begun(view, at, last, &begun);
    let flawed = !flaws.is_empty();
    for (height, flaw) in flaws {
        note(view, at, group, height, flaw);
    }
    Added { flawed, moved }
}

/// Keeps what happened since streams were shown, which are not shown now either.
fn set_aside(view: &mut View<'_>, since: BTreeMap<AssetId, AssetSums>) -> Vec<AssetSums> {
    for sums in since.into_values() {
        registry::put(view, since_key(sums.group, &sums.asset), &sums);
    }
    Vec::new()
}

/// Adds what happened since streams were shown to the sums that are compared, and returns it.
fn move_on(view: &mut View<'_>, group: GroupId, mut since: BTreeMap<AssetId, AssetSums>) -> Vec<AssetSums> {
    let aside = registry::key(SINCE, &[&group.0.to_be_bytes()]);
    for (key, known) in registry::family::<AssetSums>(view, &aside) {
        registry::remove(view, key);
        // Where new headers have lines of the asset, they were added to it.
        since.entry(known.asset).or_insert(known);
    }
    for news in since.values() {
        let key = sums_key(group, &news.asset);
        let mut sums = view.load(&key).unwrap_or_else(|| AssetSums::new(group, news.asset));
        sums.take(news);
        registry::put(view, key, &sums);
    }
    since.into_values().collect()
}

/// Keeps where the streams stand at the end of a trail, and notes where both ends say the same of how much and not of
/// what.
pub(crate) fn keep_streams(view: &mut View<'_>, at: &BlockContext, trail: &Trail) {
    let header = &trail.certificate.header;
    let group = header.group;
    if layout_of(view, group) != header.layout_version {
        registry::put(view, layout_key(group), &header.layout_version);
    }
    let sent = trail.outbox.iter().map(|leaf| (leaf, leaf.peer, group));
    let took = trail.inbox.iter().map(|leaf| (leaf, group, leaf.peer));
    for (leaf, dest, source) in sent.chain(took) {
        let (mut own, mut other) = (sent_key(dest, source), took_key(dest, source));
        if dest == group {
            std::mem::swap(&mut own, &mut other);
        }
        let end = StreamEnd::of(leaf);
        if view.load::<StreamEnd>(&own) != Some(end) {
            registry::put(view, own, &end);
        }
        let other: Option<StreamEnd> = view.load(&other);
        if other.is_some_and(|other| other.next_seq == end.next_seq && other.head != end.head) {
            let height = height_of(view, dest, header);
            note(view, at, dest, height, Flaw::OtherMail { peer: source });
        }
    }
}

/// Up to which block the flows and streams of a group count, where the header is the last one that was shown with streams, of
/// whichever group.
pub(crate) fn height_of(view: &mut View<'_>, group: GroupId, shown: &Header) -> Height {
    if group == shown.group {
        return shown.height;
    }
    rounds::upto(view, group).unwrap_or_default()
}

/// One of the two ends of all streams into a group, by source.
fn ends(view: &mut View<'_>, family: &[u8], dest: GroupId) -> BTreeMap<GroupId, StreamEnd> {
    let prefix = registry::key(family, &[&dest.0.to_be_bytes()]);
    let found: Vec<(Vec<u8>, StreamEnd)> = registry::family(view, &prefix);
    let source = |key: &[u8]| Some(GroupId(u64::from_be_bytes(key.get(prefix.len()..)?.try_into().ok()?)));
    found.into_iter().filter_map(|(key, end)| Some((source(&key)?, end))).collect()
}

/// How far each stream into a group was sent and taken, by source, by what was shown. Without the beacon's, which moves no
/// value and votes on none.
pub(crate) fn streams(view: &mut View<'_>, group: GroupId) -> BTreeMap<GroupId, (u64, u64)> {
    let mut streams: BTreeMap<GroupId, (u64, u64)> = BTreeMap::new();
    for (source, end) in ends(view, SENT, group) {
        streams.entry(source).or_default().0 = end.next_seq;
    }
    for (source, end) in ends(view, TOOK, group) {
        streams.entry(source).or_default().1 = end.next_seq;
    }
    streams.remove(&GroupId::BEACON);
    streams
}

/// Whether a group has taken all that was sent to it, by what is audited.
fn drained(view: &mut View<'_>, group: GroupId) -> bool {
    streams(view, group).values().all(|(sent, took)| sent == took)
}

/// The shards that a group has ever written to or heard of.
pub(crate) fn peers(view: &mut View<'_>, group: GroupId) -> BTreeSet<GroupId> {
    let mut peers: BTreeSet<GroupId> = ends(view, TOOK, group).into_keys().collect();
    for sums in sums(view, group) {
        peers.extend(sums.imported.into_keys());
        peers.extend(sums.exported.into_keys());
    }
    peers.retain(|peer| peer.kind() == Some(GroupKind::Shard) && *peer != group);
    peers
}

/// Compares what a shard and its peers say of each other, if nothing is in flight; `shown` is the last header that was
/// shown, of whichever group. Says whether all peers were compared.
///
/// Once shards were cut or joined, whole lines of them are ([`lines`]): what was on its way to a shard that is gone is
/// counted as given to that one, and has come to another one.
pub(crate) fn compare(view: &mut View<'_>, at: &BlockContext, group: GroupId, shown: &Header) -> bool {
    let Some(layout) = registry::layout(view) else { return false };
    if !layout.lineage.is_empty() {
        return lines::compare(view, at, layout, group, shown);
    }
    if !drained(view, group) {
        return false;
    }
    let own: BTreeMap<AssetId, AssetSums> = sums(view, group).into_iter().map(|sums| (sums.asset, sums)).collect();
    let mut all = true;
    for peer in peers(view, group) {
        if !drained(view, peer) {
            all = false;
            continue;
        }
        let theirs: BTreeMap<AssetId, AssetSums> =
            sums(view, peer).into_iter().map(|sums| (sums.asset, sums)).collect();
        let assets: BTreeSet<AssetId> = own.keys().chain(theirs.keys()).copied().collect();
        for asset in assets {
            let of = |sums: &BTreeMap<AssetId, AssetSums>, what: fn(&AssetSums, GroupId) -> u128, peer: GroupId| {
                sums.get(&asset).map_or(0, |sums| what(sums, peer))
            };
            let there = (of(&own, AssetSums::left_for, peer), of(&theirs, AssetSums::came_from, group));
            let back = (of(&theirs, AssetSums::left_for, group), of(&own, AssetSums::came_from, peer));
            for (from, to, (exported, imported)) in [(group, peer, there), (peer, group, back)] {
                if exported != imported {
                    let flaw = Flaw::FlowsDiffer { peer: to, asset, exported, imported };
                    let height = height_of(view, from, shown);
                    note(view, at, from, height, flaw);
                }
            }
        }
    }
    all
}

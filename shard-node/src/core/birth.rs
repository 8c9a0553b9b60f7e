//! How a shard begins that others were cut or joined into: its first block, and what of its parents' state is its own.
//!
//! Pure, and a function of the sealed parents alone: every member computes the same block, whether its copy of the state
//! was kept warm ([`crate::core::follow`]) or is made at the seal. Owns what is checked before a child may begin: the
//! parents carry the same seal and nothing behind it, the roots of the halves are those that the parent has certified,
//! and what the children have of each asset is what the parents had.
//! What becomes of mail is [`cross_shard::estate`]'s.

use std::collections::{BTreeMap, BTreeSet};

use borsh::BorshDeserialize;
use bytes::Bytes;
use consensus::port::AppliedState;
use cross_shard::commit::{merge_records, prepared};
use cross_shard::{estate, stream};
use ledger::hash::Hash32;
use ledger::header::{FLAG_BORN, HEADER_VERSION, Header};
use ledger::ids::{AssetId, ClusterId, GroupId, Height, Incarnation, LayoutVersion, TimeMs, TxId};
use ledger::layout::BitPrefix;
use ledger::limits::SPINE_MAX;
use ledger::lineage::{ChildShard, ORIGIN_VERSION, Origin, ParentEnd, Seal, SealedBy, Segment};
use ledger::merkle;
use ledger::schema;
use ledger::tree::{SubtreeRoot, combine};
use ledger::view::{ReadFault, StateReader, View};
use storage::KeyRange;

use crate::core::applied::AppliedRecord;
use crate::core::entry::{ENTRY_VERSION, Entry};
use crate::core::records::{self, BlockRecord};
use crate::core::tally::ChildTally;

const TOTALS: &[u8] = b"Xtotal/";
const SYNC_DEBITS: &[u8] = b"Xsync/";

/// What makes a copy of the parents' state the first state of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// To be written on top of the copy, sorted by key; `None` deletes.
    pub writes: Vec<(Vec<u8>, Option<Bytes>)>,
    /// What of the copy is a sibling's, and goes.
    pub cut: Vec<KeyRange>,
    /// The header of the first block.
    pub header: Header,
    /// What the next block continues from; also among the writes.
    pub applied: AppliedRecord,
}

/// Why a child cannot begin here. The parents stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// A parent's state cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// Something that every state has is missing.
    #[error("the state of {group} holds no {what}; it is damaged")]
    Missing {
        /// The parent.
        group: GroupId,
        /// What.
        what: &'static str,
    },
    /// A parent does not stand at its seal.
    #[error("{0} carries no seal, or has gone on behind it")]
    NotSealed(GroupId),
    /// The parents that were given are not those of one seal.
    #[error("the parents do not carry one and the same seal")]
    Apart,
    /// The seal names no such child.
    #[error("the seal makes no {0}")]
    NoChild(GroupId),
    /// The roots that were computed are not those that the parents have certified.
    #[error("the roots of the copies do not come to the state root of {0}: its state here is wrong")]
    Root(GroupId),
    /// What the copies have of an asset is not what the parents had.
    #[error("of asset {asset} the parents had {had}, the copies have {have}: the state here is wrong")]
    Totals {
        /// The asset.
        asset: AssetId,
        /// What the parents' totals, or their undecided debits, say.
        had: u128,
        /// What was counted.
        have: u128,
    },
}

/// A parent, as it stands.
struct Parent<'a> {
    group: GroupId,
    cluster: ClusterId,
    prefix: BitPrefix,
    applied: AppliedRecord,
    origin: Option<Origin>,
    view: View<'a>,
}

impl<'a> Parent<'a> {
    fn read(reader: &'a dyn StateReader, group: GroupId) -> Result<(Self, SealedBy), BirthError> {
        let mut view = View::new(reader);
        let missing = |what| BirthError::Missing { group, what };
        let applied: AppliedRecord = load(&mut view, &schema::applied())?.ok_or(missing("applied position"))?;
        let header: Header = load(&mut view, &schema::header(applied.height))?.ok_or(missing("last header"))?;
        let sealed: Option<SealedBy> = load(&mut view, &schema::sealed())?;
        let sealed = sealed.filter(|sealed| sealed.height == applied.height && header.group == group);
        let sealed = sealed.ok_or(BirthError::NotSealed(group))?;
        let prefix = sealed.seal.layout.prefix_ever(group).ok_or(BirthError::NotSealed(group))?;
        let origin = load(&mut view, &schema::origin())?;
        Ok((Self { group, cluster: header.cluster, prefix, applied, origin, view }, sealed))
    }

    /// Its own stretch of the chain.
    fn segment(&self) -> Segment {
        let from = self.origin.as_ref().map_or(Height(0), |origin| origin.first);
        Segment { group: self.group, from, to: self.applied.height }
    }

    fn end(&self, root: SubtreeRoot) -> ParentEnd {
        let AppliedRecord { height, header_hash, time_ms, .. } = self.applied;
        ParentEnd { group: self.group, height, header_hash, time_ms, root }
    }
}

fn load<T: BorshDeserialize>(view: &mut View<'_>, key: &[u8]) -> Result<Option<T>, ReadFault> {
    let found = view.load(key);
    view.fault().map_or(Ok(found), |fault| Err(fault.clone()))
}

/// The first state and block of a shard that the seal of its parents makes. `parents` are their states, left first, at
/// the block that took the seal. `roots` and `tallies` are what was computed of the copies: where a shard is cut, of both
/// halves, left first; where two are joined, of both parents, left first.
///
/// # Errors
/// [`BirthError`] when these are not sealed parents, or what was computed does not add up to what they have certified.
pub fn birth(
    parents: &[&dyn StateReader],
    child: GroupId,
    roots: &[SubtreeRoot],
    tallies: &[ChildTally],
) -> Result<Birth, BirthError> {
    let first = parents.first().ok_or(BirthError::Apart)?;
    let mut view = View::new(*first);
    let seal: Option<SealedBy> = load(&mut view, &schema::sealed())?;
    let seal = seal.ok_or(BirthError::Apart)?.seal;
    if parents.len() != seal.parents.len() {
        return Err(BirthError::Apart);
    }
    let mut read = Vec::with_capacity(parents.len());
    for (reader, group) in parents.iter().zip(&seal.parents) {
        let (parent, sealed) = Parent::read(*reader, *group)?;
        if sealed.seal != seal {
            return Err(BirthError::Apart);
        }
        read.push(parent);
    }
    let place = seal.children.iter().position(|born| born.group == child).ok_or(BirthError::NoChild(child))?;
    let (ends, root) = ends(&read, place, roots)?;
    let cluster = read[0].cluster;
    let mut draft =
        Draft { seal: &seal, own: &seal.children[place], cluster, heir: place == 0, writes: BTreeMap::new() };
    draft.amounts(&mut read, place, tallies)?;
    draft.system();
    let ended = parents.iter().zip(&seal.parents);
    let ended: Vec<_> = ended.map(|(state, group)| estate::Parent { group: *group, state: *state }).collect();
    draft.writes.extend(estate::inherit(&ended, draft.heir)?);
    draft.records(&mut read)?;
    let (header, applied) = draft.block(&ends, root);
    draft.chain(&read, &ends, &header);
    for parent in &read {
        if let Some(fault) = parent.view.fault() {
            return Err(fault.clone().into());
        }
    }
    let cut = if read.len() == 1 { cut(draft.own.prefix) } else { Vec::new() };
    Ok(Birth { writes: draft.writes.into_iter().collect(), cut, header, applied })
}

/// Where the parents ended, and the root of the child's state.
fn ends(
    parents: &[Parent<'_>],
    place: usize,
    roots: &[SubtreeRoot],
) -> Result<(Vec<ParentEnd>, SubtreeRoot), BirthError> {
    let [left, right] = roots else { return Err(BirthError::Root(parents[0].group)) };
    let whole = combine(*left, *right);
    let (own, of_parents) = if parents.len() == 1 { (roots[place], vec![whole]) } else { (whole, roots.to_vec()) };
    for (parent, root) in parents.iter().zip(&of_parents) {
        if Hash32(root.hash) != parent.applied.state_root {
            return Err(BirthError::Root(parent.group));
        }
    }
    Ok((parents.iter().zip(of_parents).map(|(parent, root)| parent.end(root)).collect(), own))
}

/// What of the copy of a parent that is cut lies outside of the child's prefix.
fn cut(prefix: BitPrefix) -> Vec<KeyRange> {
    let width = 1u64.checked_shl(64u32.saturating_sub(u32::from(prefix.length)));
    let behind = width.and_then(|width| prefix.bits.checked_add(width));
    let mut ranges = Vec::new();
    for space in [schema::HISTORY, schema::STATE] {
        let at = |bits: u64| [&[space], &bits.to_be_bytes()[..]].concat();
        if prefix.bits != 0 {
            ranges.push(KeyRange::new(vec![space], at(prefix.bits)));
        }
        if let Some(behind) = behind {
            ranges.push(KeyRange::new(at(behind), vec![space + 1]));
        }
    }
    ranges
}

type Amounts = BTreeMap<AssetId, u128>;

/// The writes of a birth, as they come together.
struct Draft<'s> {
    seal: &'s Seal,
    own: &'s ChildShard,
    cluster: ClusterId,
    /// Whether the child is the left one, which does for its parents what only one may do.
    heir: bool,
    writes: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl Draft<'_> {
    fn put<T: borsh::BorshSerialize>(&mut self, key: Vec<u8>, value: &T) {
        let bytes = borsh::to_vec(value).expect("writing to memory does not fail");
        self.writes.insert(key, Some(bytes.into()));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    fn joins(&self) -> bool {
        self.seal.parents.len() == 2
    }

    /// What the child has of each asset: its own half's count, or all that both parents had.
    fn amounts(&mut self, parents: &mut [Parent<'_>], place: usize, tallies: &[ChildTally]) -> Result<(), BirthError> {
        let totals: Vec<&[(AssetId, u128)]> = tallies.iter().map(|tally| tally.totals.as_slice()).collect();
        let debits: Vec<&[(AssetId, u128)]> = tallies.iter().map(|tally| tally.sync_debits.as_slice()).collect();
        for (prefix, counted) in [(TOTALS, totals), (SYNC_DEBITS, debits)] {
            let mut had = Amounts::new();
            for parent in parents.iter_mut() {
                for (asset, amount) in stored(parent, prefix)? {
                    add(&mut had, asset, amount)?;
                }
            }
            let mut have = Amounts::new();
            for (asset, amount) in counted.iter().flat_map(|amounts| amounts.iter()) {
                add(&mut have, *asset, *amount)?;
            }
            // An asset of which nothing is left has a total of zero, and no leaf.
            for asset in had.keys().chain(have.keys()) {
                let of = |amounts: &Amounts| amounts.get(asset).copied().unwrap_or(0);
                if of(&had) != of(&have) {
                    return Err(BirthError::Totals { asset: *asset, had: of(&had), have: of(&have) });
                }
            }
            let own: Amounts = if self.joins() {
                have
            } else {
                counted.get(place).into_iter().flat_map(|amounts| amounts.iter().copied()).collect()
            };
            for asset in had.keys() {
                let key = [prefix, &asset.0].concat();
                match own.get(asset).copied().unwrap_or(0) {
                    0 => self.delete(key),
                    amount => self.put(key, &amount),
                }
            }
        }
        Ok(())
    }

    /// The layout and the committees that come with the seal.
    fn system(&mut self) {
        let seal = self.seal;
        self.put(schema::layout(), &seal.layout);
        self.delete(schema::sealed());
        self.delete(records::seal_shapes());
        self.delete(schema::coming_committee());
        for parent in &seal.parents {
            self.delete(schema::current_committee(*parent));
        }
        for ChildShard { group, committee, .. } in &seal.children {
            self.put(schema::committee(*group, &committee.hash()), committee);
            self.put(schema::current_committee(*group), committee);
        }
    }

    /// What both parents know of the transactions that several groups vote on. One that both have done with is history,
    /// and the left one's account of it stays.
    fn records(&mut self, parents: &mut [Parent<'_>]) -> Result<(), BirthError> {
        let [left, right] = parents else { return Ok(()) };
        let mut open: BTreeSet<TxId> = BTreeSet::new();
        for parent in [&mut *left, &mut *right] {
            let deadlines = parent.view.scan_prefix(&[schema::DEADLINE]);
            open.extend(deadlines.iter().filter_map(|(key, _)| schema::deadline_of(key)).map(|(_, txid)| txid));
        }
        for (key, value) in right.view.scan_prefix(&[schema::DEADLINE]) {
            self.writes.insert(key, Some(value));
        }
        for txid in open {
            let both = prepared(&mut left.view, &txid).zip(prepared(&mut right.view, &txid));
            if let Some((of_left, of_right)) = both {
                let merged = merge_records((left.prefix, of_left), (right.prefix, of_right));
                self.put(schema::prepared(&txid), &merged);
            }
        }
        let swept: Vec<Option<TimeMs>> =
            vec![load(&mut left.view, &schema::swept())?, load(&mut right.view, &schema::swept())?];
        match swept.into_iter().min().flatten() {
            Some(lower) => self.put(schema::swept(), &lower),
            None => self.delete(schema::swept()),
        }
        Ok(())
    }

    /// The first block.
    fn block(&mut self, ends: &[ParentEnd], root: SubtreeRoot) -> (Header, AppliedRecord) {
        let committee = &self.own.committee;
        let of = (self.cluster, self.own.group, self.seal.layout.version);
        let header = first_header(of, (committee.hash(), committee.incarnation), ends, root);
        let time_ms = header.time_ms;
        let applied = AppliedRecord {
            version: 1,
            consensus: AppliedState::default(),
            height: header.height,
            header_hash: header.hash(),
            time_ms,
            state_root: header.state_root,
        };
        // As if an empty entry had made it, so that it can be checked again like any other.
        let entry = Entry { version: ENTRY_VERSION, stamp_ms: time_ms, commands: Vec::new() };
        self.put(schema::header(header.height), &header);
        self.put(schema::block(header.height), &BlockRecord::default());
        self.writes.insert(schema::entry(header.height), Some(entry.encode().into()));
        self.put(schema::applied(), &applied);
        self.delete(schema::engine_start());
        (header, applied)
    }

    /// Where the chain before the first block stands.
    fn chain(&mut self, parents: &[Parent<'_>], ends: &[ParentEnd], header: &Header) {
        let inherited = |parent: &Parent<'_>| {
            parent.origin.as_ref().map(|origin| (origin.spine.clone(), origin.archived.clone())).unwrap_or_default()
        };
        let (mut spine, mut archived) = inherited(&parents[0]);
        spine.push(parents[0].segment());
        for right in &parents[1..] {
            let (right_spine, right_archived) = inherited(right);
            let known: BTreeSet<GroupId> = spine.iter().chain(&archived).map(|segment| segment.group).collect();
            let all = right_archived.into_iter().chain(right_spine).chain([right.segment()]);
            archived.extend(all.filter(|segment| !known.contains(&segment.group)));
        }
        // The oldest are forgotten: their blocks stay, and nobody finds them through this shard any more.
        let over = (spine.len() + archived.len()).saturating_sub(SPINE_MAX);
        let of_archive = over.min(archived.len());
        archived.drain(..of_archive);
        spine.drain(..over - of_archive);
        let origin = Origin {
            version: ORIGIN_VERSION,
            job: self.seal.job,
            first: header.height,
            header_hash: header.hash(),
            parents: ends.to_vec(),
            spine,
            archived,
        };
        self.put(schema::origin(), &origin);
    }
}

/// The header of the first block of a shard, of which cluster, of which number and with which layout; by its first
/// committee, where its parents ended, and the root of its first state.
pub(super) fn first_header(
    (cluster, group, layout_version): (ClusterId, GroupId, LayoutVersion),
    (committee_hash, incarnation): (Hash32, Incarnation),
    ends: &[ParentEnd],
    root: SubtreeRoot,
) -> Header {
    Header {
        version: HEADER_VERSION,
        cluster,
        group,
        incarnation,
        height: ends.iter().map(|end| end.height).max().unwrap_or_default().next(),
        parents: ends.iter().map(|end| end.header_hash).collect(),
        time_ms: TimeMs(ends.iter().map(|end| end.time_ms.0).max().unwrap_or_default() + 1),
        layout_version,
        batch_root: merkle::root(&[]),
        receipts_root: merkle::root(&[]),
        state_root: Hash32(root.hash),
        outbox_root: stream::root(&[]),
        inbox_cursors_root: stream::root(&[]),
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash,
        next_committee_hash: committee_hash,
        flags: FLAG_BORN,
    }
}

fn stored(parent: &mut Parent<'_>, prefix: &[u8]) -> Result<Vec<(AssetId, u128)>, BirthError> {
    let mut amounts = Vec::new();
    for (key, value) in parent.view.scan_prefix(prefix) {
        let asset = key[prefix.len()..].try_into().map(AssetId);
        let amount = borsh::from_slice::<u128>(&value);
        let (Ok(asset), Ok(amount)) = (asset, amount) else {
            return Err(BirthError::Missing { group: parent.group, what: "well-formed totals" });
        };
        amounts.push((asset, amount));
    }
    Ok(amounts)
}

fn add(sums: &mut Amounts, asset: AssetId, amount: u128) -> Result<(), BirthError> {
    let sum = sums.entry(asset).or_default();
    *sum = sum.checked_add(amount).ok_or(BirthError::Totals { asset, had: *sum, have: amount })?;
    Ok(())
}

#[cfg(test)]
#[path = "birth_tests.rs"]
mod tests;

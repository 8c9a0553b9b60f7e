//! What shards begin with, against what those left that were cut or joined into them.
//!
//! A header shows of an asset only blocks that touched it. So what a child began with is known from its first line, and of
//! one that never had a line of the asset only as what is left over. Every cut and every join is a sum: what ended is what
//! began. Shards that have ended without a line have passed on what they began with, unknown as it is, so the sums at both
//! of their ends are added up into one, in which they do not stand. Where somebody who lives has no line yet, the others may
//! have begun with less than was left, not with more; where nobody is missing, with exactly that.
//!
//! Nobody knows which of them is wrong: it is a finding and an alarm, and people decide.

use std::collections::{BTreeMap, BTreeSet};

use ledger::header::Header;
use ledger::ids::{AssetId, GroupId};
use ledger::layout::Layout;
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::audit::flows::{self, AssetSums};
use crate::audit::lines::Lines;
use crate::audit::{Flaw, note};
use crate::jobs::commit;
use crate::registry;

const BEGUN: &[u8] = b"audit-begun/";

/// Key of what a shard began with of an asset: a `u128`, of its first line.
fn begun_key(group: GroupId, asset: &AssetId) -> Vec<u8> {
    registry::key(BEGUN, &[&group.0.to_be_bytes(), &asset.0])
}

/// What is known of a shard and an asset.
#[derive(Clone, Copy)]
enum Word {
    /// It has ended without a line: what it left is what it began with.
    Silent,
    /// What it began with and what it left, as far as that is known.
    Said { begun: Option<u128>, left: Option<u128> },
}

/// Keeps what a shard began with, by the first lines of assets in what was shown now, and judges what has become known:
/// with first lines, and with the end of a retired shard.
pub(crate) fn note_begun(view: &mut View<'_>, at: &BlockContext, shown: &Header, begun: &[(AssetId, u128)]) {
    for (asset, amount) in begun {
        registry::put(view, begun_key(shown.group, asset), amount);
    }
    let Some(layout) = registry::layout(view).filter(|layout| !layout.lineage.is_empty()) else { return };
    let lines = Lines::of(&layout);
    let members = lines.members(lines.name(shown.group));
    let mut assets: BTreeSet<AssetId> = begun.iter().map(|(asset, _)| *asset).collect();
    if layout.retired(shown.group) && is_whole(view, shown.group, shown) {
        for member in &members {
            assets.extend(flows::assets(view, *member));
        }
    }
    for asset in assets {
        let words = members.iter().map(|member| (*member, word(view, &layout, *member, &asset, shown))).collect();
        for (left, opened) in contradictions(&layout, &words) {
            note(view, at, shown.group, shown.height, Flaw::Inherited { asset, left, opened });
        }
    }
}

/// Whether a retired shard is audited to its end, with its streams.
fn is_whole(view: &mut View<'_>, group: GroupId, shown: &Header) -> bool {
    let end = registry::checkpoint(view, group).map(|last| last.height);
    end == Some(flows::height_of(view, group, shown))
}

fn word(view: &mut View<'_>, layout: &Layout, group: GroupId, asset: &AssetId, shown: &Header) -> Word {
    let born = commit::born(view, group).is_some();
    let whole = layout.retired(group) && is_whole(view, group, shown);
    let sums: Option<AssetSums> = view.load(&flows::sums_key(group, asset));
    match (born, sums) {
        // A shard of the genesis begins with nothing.
        (false, sums) => Word::Said { begun: Some(0), left: whole.then(|| sums.map_or(0, |sums| sums.closing)) },
        (true, Some(sums)) => {
            let begun = view.load(&begun_key(group, asset));
            Word::Said { begun, left: whole.then_some(sums.closing) }
        }
        (true, None) if whole => Word::Silent,
        // Its first line may stand beside the sums, which go to where it last showed its streams.
        (true, None) => Word::Said { begun: view.load(&begun_key(group, asset)), left: None },
    }
}

/// A cut, a join, or several of them between which nothing was said.
#[derive(Clone, Copy, Default)]
struct Turn {
    /// What was left, and whether all of it is known.
    left: u128,
    /// Whether not all that was left is known.
    short: bool,
    /// What others began with.
    begun: u128,
    /// Whether somebody has not said what it began with.
    open: bool,
}

impl Turn {
    fn contradicts(&self) -> bool {
        !self.short && if self.open { self.begun > self.left } else { self.begun != self.left }
    }

    fn with(&self, other: &Self) -> Self {
        Self {
            left: self.left.saturating_add(other.left),
            short: self.short || other.short,
            begun: self.begun.saturating_add(other.begun),
            open: self.open || other.open,
        }
    }
}

/// The sums that do not come out: what was left, and what was begun with.
fn contradictions(layout: &Layout, words: &BTreeMap<GroupId, Word>) -> Vec<(u128, u128)> {
    // A turn is named by the first shard that begins with it.
    let ends: BTreeMap<GroupId, GroupId> =
        layout.lineage.iter().filter_map(|entry| Some((entry.group, *entry.successors.first()?))).collect();
    let mut begins: BTreeMap<GroupId, GroupId> = BTreeMap::new();
    for entry in &layout.lineage {
        let first = entry.successors.first();
        begins.extend(entry.successors.iter().zip(first.into_iter().cycle()).map(|(born, first)| (*born, *first)));
    }
    let mut turns: BTreeMap<GroupId, Turn> = BTreeMap::new();
    let mut alone: BTreeMap<GroupId, Turn> = BTreeMap::new();
    // Turns that a silent shard leads from and to are one.
    let mut joined: Vec<(GroupId, GroupId)> = Vec::new();
    for (group, word) in words {
        let (begin, end) = (begins.get(group).copied(), ends.get(group).copied());
        let (begun, left) = match word {
            Word::Said { begun, left } => (*begun, *left),
            Word::Silent => {
                joined.extend(begin.zip(end));
                (None, None)
            }
        };
        let silent = matches!(word, Word::Silent);
        if let Some(begin) = begin {
            let (turn, alone) = (turns.entry(begin).or_default(), alone.entry(begin).or_default());
            turn.begun = turn.begun.saturating_add(begun.unwrap_or(0));
            turn.open |= begun.is_none() && !silent;
            alone.begun = turn.begun;
            alone.open |= begun.is_none();
        }
        if let Some(end) = end {
            let (turn, alone) = (turns.entry(end).or_default(), alone.entry(end).or_default());
            turn.left = turn.left.saturating_add(left.unwrap_or(0));
            turn.short |= left.is_none() && !silent;
            alone.left = turn.left;
            alone.short |= left.is_none();
        }
    }
    let mut whole: BTreeMap<GroupId, Turn> = BTreeMap::new();
    for (name, turn) in &turns {
        let sum = whole.entry(named(&joined, *name)).or_default();
        *sum = sum.with(turn);
    }
    let all = whole.values().chain(alone.values()).filter(|turn| turn.contradicts());
    all.map(|turn| (turn.left, turn.begun)).collect()
}

/// The lowest turn that is one with this.
fn named(joined: &[(GroupId, GroupId)], name: GroupId) -> GroupId {
    let mut one = BTreeSet::from([name]);
    loop {
        let before = one.len();
        for (begin, end) in joined {
            if one.contains(begin) || one.contains(end) {
                one.extend([*begin, *end]);
            }
        }
        if one.len() == before {
            return one.first().copied().unwrap_or(name);
        }
    }
}

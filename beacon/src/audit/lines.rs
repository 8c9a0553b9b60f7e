//! Value flows over shards that were cut and joined: compared by whole lines.
//!
//! A line is a shard with all that it came from, all that came from it, and so on: those that stand in one piece of the
//! lineage. What a shard gave to one that is gone has come to another one of that line, or was passed on by a child of the
//! giver, which then has it from its parent and gives it again. And the two halves of a `PaySync` are named by the layout
//! at the moment each is posted, so either may name a parent and the other one its child. So of a line that the lineage
//! knows, what all of it has given to shards is held against what all shards have from it; of a shard that was never cut or
//! joined still against each line that it gave to. This finds every amount that one shard books and another one does not,
//! and not which of the shards of a line is wrong.
//!
//! It is compared when nothing is on its way any more, by what was shown with streams: all retired shards are audited to
//! their ends; all that is concerned goes by the layout in force, has therefore told how far it has taken the streams of those
//! that are gone, and has taken all that the living had sent it; and a shard that two were joined into has had blocks enough
//! to take what its parents had sent each other. Concerned are both lines, and whoever holds what was written to them and
//! waits: the children of those that wrote it. Until then the difference is shown as on its way.

use std::collections::{BTreeMap, BTreeSet};

use ledger::header::Header;
use ledger::ids::{AssetId, GroupId, GroupKind};
use ledger::layout::Layout;
use ledger::limits::SELF_MAIL_MAX;
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::audit::flows::{self, AssetSums};
use crate::audit::{Flaw, note};
use crate::channels;
use crate::jobs::commit;
use crate::registry;

/// Which shards came from each other.
#[derive(Default)]
pub(crate) struct Lines {
    /// Of each shard in the lineage the lowest one of its line.
    lowest: BTreeMap<GroupId, GroupId>,
}

impl Lines {
    /// Reads them from the lineage.
    pub(crate) fn of(layout: &Layout) -> Self {
        let mut lines = Self::default();
        for entry in &layout.lineage {
            for successor in &entry.successors {
                let (one, other) = (lines.name(entry.group), lines.name(*successor));
                lines.lowest.insert(one.max(other), one.min(other));
                lines.lowest.insert(one.min(other), one.min(other));
            }
        }
        lines
    }

    /// The lowest shard of a group's line; of a group that was never cut or joined that group.
    pub(crate) fn name(&self, group: GroupId) -> GroupId {
        let mut name = group;
        // Each step leads to a lower one.
        while let Some(lower) = self.lowest.get(&name).filter(|lower| **lower != name) {
            name = *lower;
        }
        name
    }

    /// All shards of a line, living or not, by its name.
    pub(crate) fn members(&self, name: GroupId) -> Vec<GroupId> {
        let known = self.lowest.keys().copied().filter(|group| self.name(*group) == name);
        let mut members: Vec<GroupId> = known.collect();
        if members.is_empty() {
            members.push(name);
        }
        members
    }

    /// Whether a line has more than one shard.
    pub(crate) fn reshaped(&self, name: GroupId) -> bool {
        self.lowest.contains_key(&name)
    }
}

fn is_shard(group: GroupId) -> bool {
    group.kind() == Some(GroupKind::Shard)
}

/// What was read for one comparison, so that it is read once.
struct Books<'h> {
    layout: Layout,
    lines: Lines,
    /// The last header that was shown, of whichever group.
    shown: &'h Header,
    sums: BTreeMap<GroupId, Vec<AssetSums>>,
    streams: BTreeMap<GroupId, BTreeMap<GroupId, (u64, u64)>>,
    rest: BTreeMap<GroupId, bool>,
}

/// Compares the line of a shard, and those that it has value from, if nothing of theirs is in flight; `shown` is the last
/// header that was shown, of whichever group. Says whether all of them were compared.
pub(crate) fn compare(view: &mut View<'_>, at: &BlockContext, layout: Layout, group: GroupId, shown: &Header) -> bool {
    let lines = Lines::of(&layout);
    let (sums, streams, rest) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut books = Books { layout, lines, shown, sums, streams, rest };
    if !books.rests(view, group) || !retired_are_whole(view, &books.layout, shown) {
        return false;
    }
    let own = books.lines.name(group);
    let mut sources = BTreeSet::from([own]);
    for member in books.lines.members(own) {
        let from = books.sums(view, member).iter().flat_map(|sums| sums.imported.keys().copied()).collect::<Vec<_>>();
        sources.extend(from.into_iter().filter(|from| is_shard(*from)).map(|from| books.lines.name(from)));
    }
    let mut all = true;
    for source in sources {
        all &= books.check(view, at, source, own);
    }
    all
}

/// Whether all retired shards are audited to their ends, with their streams: until then nobody knows what they have written.
pub(crate) fn retired_are_whole(view: &mut View<'_>, layout: &Layout, shown: &Header) -> bool {
    layout.lineage.iter().all(|entry| {
        let end = registry::checkpoint(view, entry.group).map(|last| last.height);
        end == Some(flows::height_of(view, entry.group, shown))
    })
}

impl Books<'_> {
    fn sums(&mut self, view: &mut View<'_>, group: GroupId) -> &[AssetSums] {
        self.sums.entry(group).or_insert_with(|| flows::sums(view, group))
    }

    fn streams(&mut self, view: &mut View<'_>, dest: GroupId) -> &BTreeMap<GroupId, (u64, u64)> {
        self.streams.entry(dest).or_insert_with(|| flows::streams(view, dest))
    }

    /// Whether nothing is on its way to a group from the living, nor has it anything of its own to take. A retired one has
    /// taken what it ever will.
    fn rests(&mut self, view: &mut View<'_>, group: GroupId) -> bool {
        if self.layout.retired(group) {
            return true;
        }
        if let Some(known) = self.rest.get(&group) {
            return *known;
        }
        let current = match self.shown.group == group {
            true => self.shown.layout_version,
            false => flows::layout_of(view, group),
        };
        let rests = current == self.layout.version && self.has_taken_all(view, group) && self.has_room(view, group);
        self.rest.insert(group, rests);
        rests
    }

    fn has_taken_all(&mut self, view: &mut View<'_>, group: GroupId) -> bool {
        let open = self.streams(view, group).iter().filter(|(_, (sent, took))| sent != took).map(|(source, _)| *source);
        let open: Vec<GroupId> = open.collect();
        // What one that is gone had written is with its children, who are asked instead.
        open.into_iter().all(|source| self.layout.retired(source))
    }

    /// Whether a shard that two were joined into has had blocks enough to take what those before it had sent each other.
    fn has_room(&mut self, view: &mut View<'_>, group: GroupId) -> bool {
        let Some(born) = commit::born(view, group) else { return true };
        let mut before: BTreeSet<GroupId> = BTreeSet::from([group]);
        // Successors stand behind their parents.
        for entry in self.layout.lineage.iter().rev() {
            if entry.successors.iter().any(|successor| before.contains(successor)) {
                before.insert(entry.group);
            }
        }
        let mut left = 0u64;
        for dest in &before {
            for (source, (sent, took)) in self.streams(view, *dest) {
                if before.contains(source) {
                    left = left.saturating_add(sent.saturating_sub(*took));
                }
            }
        }
        let blocks = left.div_ceil(SELF_MAIL_MAX as u64);
        flows::height_of(view, group, self.shown).0 >= commit::first_height(&born).saturating_add(blocks)
    }

    /// These groups, and all that hold what was written to one of them, or by one that is gone, and waits until it is known
    /// how far it was taken.
    fn concerned(&mut self, view: &mut View<'_>, groups: BTreeSet<GroupId>) -> BTreeSet<GroupId> {
        let mut left: Vec<GroupId> = groups.iter().copied().collect();
        let mut concerned = groups;
        while let Some(dest) = left.pop() {
            let open = self.streams(view, dest).iter().filter(|(_, (sent, took))| sent != took);
            let open: Vec<GroupId> = open.map(|(source, _)| *source).collect();
            let gone = self.layout.retired(dest);
            for source in open.into_iter().filter(|source| gone || self.layout.retired(*source)) {
                let holders = self.layout.successors(source).into_iter().chain(self.layout.successors(dest));
                for holder in holders.collect::<Vec<_>>() {
                    // A closed channel takes part in nothing.
                    if !channels::is_closed(view, holder) && concerned.insert(holder) {
                        left.push(holder);
                    }
                }
            }
        }
        concerned
    }

    /// Compares what a line has given with what others have from it, `asking` among them, which the line may not know of.
    /// Says whether it could.
    fn check(&mut self, view: &mut View<'_>, at: &BlockContext, source: GroupId, asking: GroupId) -> bool {
        let givers: BTreeSet<GroupId> = self.lines.members(source).into_iter().collect();
        let mut takers = BTreeSet::from([source, asking]);
        for giver in &givers {
            let peers = flows::peers(view, *giver);
            takers.extend(peers.into_iter().map(|peer| self.lines.name(peer)));
        }
        let members: BTreeSet<GroupId> = takers.iter().flat_map(|name| self.lines.members(*name)).collect();
        let concerned = self.concerned(view, members.clone());
        if !concerned.into_iter().all(|group| self.rests(view, group)) {
            return false;
        }
        // By asset, and by line of the receivers where the giver never changed: what it gave and what they have.
        let apart = !self.lines.reshaped(source);
        let mut amounts: BTreeMap<(AssetId, GroupId), (u128, u128)> = BTreeMap::new();
        for member in members {
            let all = self.sums(view, member).to_vec();
            for sums in all {
                let line = |peer: GroupId| if apart { self.lines.name(peer) } else { source };
                if givers.contains(&member) {
                    for (to, amount) in sums.exported.iter().filter(|(to, _)| is_shard(**to)) {
                        let given = &mut amounts.entry((sums.asset, line(*to))).or_default().0;
                        *given = given.wrapping_add(*amount);
                    }
                }
                for (_, amount) in sums.imported.iter().filter(|(from, _)| givers.contains(*from)) {
                    let got = &mut amounts.entry((sums.asset, line(member))).or_default().1;
                    *got = got.wrapping_add(*amount);
                }
            }
        }
        let height = flows::height_of(view, source, self.shown);
        for ((asset, peer), (exported, imported)) in amounts.into_iter().filter(|(_, (given, got))| given != got) {
            let flaw = match apart {
                true => Flaw::FlowsDiffer { peer, asset, exported, imported },
                false => Flaw::LineDiffers { asset, exported, imported },
            };
            note(view, at, source, height, flaw);
        }
        true
    }
}

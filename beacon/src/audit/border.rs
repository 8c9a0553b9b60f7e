//! What channels bring back, against what they were given, by the flows of shards alone.
//!
//! A channel's own flows are sealed, and nobody but its members can add them up. But each shard's header says what it has
//! given to a channel and what it has from it. All shards together have no more of an asset from a channel than they have given
//! it, since every asset is at home in the main ledger and a channel passes nothing on to another one. The rules of pair
//! accounts keep it so; here it is checked without believing any shard's rules: one that books value which no channel has
//! sent is found as soon as it is more than the channel has left.
//!
//! What comes back was given before. It is compared when the shards have shown their flows and streams to behind all that the
//! channel has taken by what it has shown, and the channel its streams to behind all that they have taken from it.

use std::collections::BTreeSet;

use ledger::ids::{AssetId, GroupId, GroupKind};
use ledger::layout::Layout;
use ledger::limits::SUPPLY_MAX;
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::audit::flows::{self, AssetSums};
use crate::audit::trail::Trail;
use crate::audit::{Flaw, lines, note};
use crate::registry;

/// Compares what a trail that shows streams may have changed: of a channel's all that it moved, of a shard's what it says of
/// channels, which is in what was added to its sums (`moved`).
pub(crate) fn compare(view: &mut View<'_>, at: &BlockContext, trail: &Trail, moved: &[AssetSums]) {
    let shown = &trail.certificate.header;
    let Some(layout) = registry::layout(view) else { return };
    let mut found: BTreeSet<(GroupId, AssetId)> = BTreeSet::new();
    if is_channel(&shown.group) {
        let peers = trail.outbox.iter().chain(&trail.inbox).map(|leaf| leaf.peer).collect::<BTreeSet<_>>();
        for peer in peers {
            let with =
                |sums: &AssetSums| sums.imported.contains_key(&shown.group) || sums.exported.contains_key(&shown.group);
            let sums = flows::sums(view, peer).into_iter().filter(with);
            found.extend(sums.map(|sums| (shown.group, sums.asset)));
        }
    } else {
        for sums in moved {
            let peers = sums.imported.keys().chain(sums.exported.keys()).copied();
            found.extend(peers.filter(is_channel).map(|channel| (channel, sums.asset)));
        }
    }
    let channels: BTreeSet<GroupId> = found.iter().map(|(channel, _)| *channel).collect();
    if channels.is_empty() || !lines::retired_are_whole(view, &layout, shown) {
        return;
    }
    let ready: BTreeSet<GroupId> =
        channels.into_iter().filter(|channel| can_be_compared(view, &layout, *channel)).collect();
    for (channel, asset) in found.into_iter().filter(|(channel, _)| ready.contains(channel)) {
        let (mut given, mut returned) = (0u128, 0u128);
        for shard in all_shards(&layout) {
            if let Some(sums) = view.load::<AssetSums>(&flows::sums_key(shard, &asset)) {
                given = given.wrapping_add(sums.left_for(channel));
                returned = returned.wrapping_add(sums.came_from(channel));
            }
        }
        // Modulo 2^128 what is out there is never more than there is of an asset; more has come back than went out.
        if given.wrapping_sub(returned) > SUPPLY_MAX {
            let height = flows::height_of(view, channel, shown);
            note(view, at, channel, height, Flaw::ChannelOverdrawn { asset, given, returned });
        }
    }
}

fn is_channel(group: &GroupId) -> bool {
    group.kind() == Some(GroupKind::Channel)
}

/// All shards that there ever were.
fn all_shards(layout: &Layout) -> impl Iterator<Item = GroupId> + '_ {
    let living = layout.shards.iter().map(|shard| shard.group);
    living.chain(layout.lineage.iter().map(|entry| entry.group))
}

/// Whether what shards have shown lies behind what the channel has taken, and what the channel has shown behind what
/// shards have taken from it.
fn can_be_compared(view: &mut View<'_>, layout: &Layout, channel: GroupId) -> bool {
    let given = flows::streams(view, channel);
    let behind_it = given.iter().all(|(source, (sent, took))| is_channel(source) || took <= sent);
    // What was on its way to a shard that is gone it has then addressed anew.
    let knows = layout.lineage.is_empty() || flows::layout_of(view, channel) == layout.version;
    let taken = |view: &mut View<'_>, shard: GroupId| {
        flows::streams(view, shard).get(&channel).is_none_or(|(sent, took)| took <= sent)
    };
    behind_it && knows && layout.shards.iter().all(|shard| taken(view, shard.group))
}

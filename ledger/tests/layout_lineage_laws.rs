//! Laws of layouts that change: whatever is cut and joined, in whatever order, everything has one owner, a shard's
//! prefix is the same for ever, and everything that ever was leads to who does it now.

use std::collections::{BTreeMap, BTreeSet};

use ledger::hash::sha256;
use ledger::ids::{GroupId, LayoutVersion};
use ledger::layout::{BitPrefix, Layout, Lineage};
use proptest::prelude::*;

/// A cut of the shard at a place, or a join of the pair that begins there, if it is one.
fn change(layout: &Layout, split: bool, at: usize) -> Option<Layout> {
    let (at, next) = (at % layout.shards.len(), layout.next_shard());
    let group = layout.shards[at].group;
    if split {
        return layout.split(group, [next, GroupId::shard(next.ordinal() + 1)]);
    }
    let right = layout.shards.get(at + 1)?.group;
    layout.merge([group, right], next)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn layout_lineage_laws(count in 1u32..6, changes in prop::collection::vec((any::<bool>(), 0usize..64), 0..40)) {
        let mut layout = Layout::even(count);
        let mut ever: BTreeMap<GroupId, BitPrefix> = BTreeMap::new();
        for (split, at) in changes {
            ever.extend(layout.shards.iter().map(|shard| (shard.group, shard.prefix)));
            let Some(next) = change(&layout, split, at) else { continue };
            prop_assert!(next.well_formed());
            prop_assert_eq!(next.version.0, layout.version.0 + 1);
            prop_assert!(next.lineage.starts_with(&layout.lineage), "what was stays");
            for shard in &next.shards {
                let old = layout.prefix_of(shard.group).is_some();
                prop_assert!(old || !ever.contains_key(&shard.group), "an ordinal is given once");
            }
            layout = next;
        }
        ever.extend(layout.shards.iter().map(|shard| (shard.group, shard.prefix)));
        for (group, prefix) in &ever {
            prop_assert_eq!(layout.prefix_ever(*group), Some(*prefix));
            prop_assert_eq!(layout.retired(*group), layout.prefix_of(*group).is_none());
            let (heir, successors) = (layout.heir(*group), layout.successors(*group));
            prop_assert!(layout.prefix_of(heir).is_some(), "an heir lives");
            prop_assert!(successors.contains(&heir) && layout.heir(heir) == heir);
            prop_assert_eq!(layout.successors(heir), vec![heir]);
            // Whoever has something of what it had came from it. A join and a cut later, others have come from it, too.
            for shard in &layout.shards {
                let related = shard.prefix.holds(prefix) || prefix.holds(&shard.prefix);
                prop_assert!(!related || successors.contains(&shard.group), "{} of {}", shard.group, group);
            }
            for shard in &layout.shards {
                prop_assert_eq!(layout.descends(shard.group, *group), successors.contains(&shard.group));
            }
        }
        prop_assert!(!ever.contains_key(&layout.next_shard()));
        for seed in 0..50u8 {
            let partition = sha256(&[seed]);
            let owners: BTreeSet<GroupId> = layout.shards.iter()
                .filter(|shard| shard.prefix.covers(&partition.0))
                .map(|shard| shard.group)
                .collect();
            prop_assert_eq!(owners, BTreeSet::from([layout.owner(&partition)]));
        }
    }

    #[test]
    fn a_lineage_that_was_altered_is_refused(
        changes in prop::collection::vec((any::<bool>(), 0usize..64), 1..12),
        at in any::<prop::sample::Index>(),
        what in 0u8..7,
    ) {
        let layout = changes.into_iter().fold(Layout::even(2), |layout, (split, at)| {
            change(&layout, split, at).unwrap_or(layout)
        });
        prop_assume!(!layout.lineage.is_empty());
        let at = at.index(layout.lineage.len());
        let mut altered = layout.clone();
        let entry: &mut Lineage = &mut altered.lineage[at];
        match what {
            0 => entry.group = layout.shards[0].group,
            1 => entry.prefix = BitPrefix { length: 65, ..entry.prefix },
            2 => entry.until = LayoutVersion(layout.version.0 + 1),
            3 => entry.successors.clear(),
            4 => entry.successors[0] = entry.group,
            5 => entry.successors[0] = layout.next_shard(),
            _ => drop(altered.lineage.remove(at)),
        }
        // A first entry that goes may leave a history that began later.
        prop_assert!(!altered.well_formed() || what == 6);
        prop_assert!(layout.well_formed());
    }
}

#[test]
fn what_cannot_be_cut_or_joined_is_not() {
    let layout = Layout::even(3);
    let [a, b, c, new, other] = [0, 1, 2, 3, 4].map(GroupId::shard);
    let cut = |parent, children| layout.split(parent, children);
    assert!(cut(a, [new, other]).is_some());
    assert_eq!(cut(new, [other, GroupId::shard(5)]), None, "no such shard");
    assert_eq!(cut(a, [new, new]), None, "twice the same");
    assert_eq!(cut(a, [b, new]), None, "it lives");
    assert_eq!(cut(a, [GroupId::channel(3), new]), None, "no shard");
    let join = |parents, child| layout.merge(parents, child);
    assert!(join([a, b], new).is_some());
    assert_eq!(join([b, a], new), None, "the left one first");
    assert_eq!(join([b, c], new), None, "beside each other, and of different prefixes");
    assert_eq!(join([a, c], new), None);
    assert_eq!(join([a, a], new), None);
    assert_eq!(join([a, b], c), None, "it lives");
    let joined = join([a, b], new).expect("it was");
    assert_eq!(joined.split(c, [a, other]), None, "it has lived");
    assert_eq!(Layout::even(1).merge([a, a], new), None, "of everything there is no other half");
    // A prefix of 64 bits is the end.
    let deepest = (0..64u32).fold(Layout::even(1), |layout, depth| {
        let next = 1 + 2 * depth;
        let first = layout.shards[0].group;
        layout.split(first, [next, next + 1].map(GroupId::shard)).expect("it is not so deep yet")
    });
    assert!(deepest.well_formed());
    assert_eq!(deepest.split(deepest.shards[0].group, [200, 201].map(GroupId::shard)), None);
    assert!(deepest.merge([deepest.shards[0].group, deepest.shards[1].group], GroupId::shard(200)).is_some());
}

#[test]
fn of_a_joined_pair_one_does_what_only_one_can_do() {
    let layout = Layout::even(2).split(GroupId::shard(0), [2, 3].map(GroupId::shard)).expect("it can be cut");
    assert_eq!(layout.heir(GroupId::shard(0)), GroupId::shard(2), "the left one");
    let layout = layout.merge([2, 3].map(GroupId::shard), GroupId::shard(4)).expect("they are halves");
    for group in [0, 2, 3] {
        assert_eq!(layout.heir(GroupId::shard(group)), GroupId::shard(4));
        assert_eq!(layout.successors(GroupId::shard(group)), [GroupId::shard(4)]);
    }
    assert_eq!(layout.heir(GroupId::channel(1)), GroupId::channel(1), "what is no shard is never retired");
    assert!(layout.descends(GroupId::channel(1), GroupId::channel(1)));
    assert!(!layout.descends(GroupId::shard(1), GroupId::shard(0)));
}

//! What each member says that its own replica of a shard has and does, and what of that counts.
//!
//! Every member executes all blocks of its shard, so honest ones say nearly the same. What counts is what stands in the
//! middle of what as many members say as decide in the shard. Of a Byzantine one these are two thirds, so that those who may
//! lie are too few to move the middle out of what honest members say. Who leads is one member's own word: nothing but the
//! wish that it gives the lead away follows from that.
//!
//! Whoever is not heard may have no replica that runs, also where nobody watches nodes ([`enough`]).

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::ids::{GroupId, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::view::View;

use super::{Load, SCALE_VERSION, ScalePolicy};
use crate::jobs::needed;
use crate::registry;

/// The last word of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Word {
    node: NodeId,
    load: Load,
    taken_ms: TimeMs,
}

/// The last words of the members of a shard.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Words {
    version: u8,
    /// Who has said last that it leads, and not since that it does not.
    leads: Option<NodeId>,
    /// By node.
    words: Vec<Word>,
}

const WORDS: &[u8] = b"loadsof/";

fn words_key(group: GroupId) -> Vec<u8> {
    registry::key(WORDS, &[&group.0.to_be_bytes()])
}

/// The words that count now, of members alone.
fn words(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy, committee: &Committee) -> Words {
    let known: Option<Words> = view.load(&words_key(committee.group));
    let mut known = known.unwrap_or(Words { version: SCALE_VERSION, leads: None, words: Vec::new() });
    let member = |node: NodeId| committee.index_of(node).is_some();
    known.words.retain(|word| member(word.node) && policy.is_fresh(word.taken_ms, at.time_ms));
    known.leads = known.leads.filter(|node| member(*node));
    known
}

/// Takes a member's word. Returns who leads its shard, and the load that counts by now; `None` while too few are heard, or
/// nobody says that it leads.
pub(super) fn hear(
    view: &mut View<'_>,
    at: &BlockContext,
    policy: &ScalePolicy,
    committee: &Committee,
    (node, load, leads): (NodeId, Load, bool),
) -> Option<(NodeId, Load)> {
    let mut known = words(view, at, policy, committee);
    let word = Word { node, load, taken_ms: at.time_ms };
    match known.words.binary_search_by_key(&node, |word| word.node) {
        Ok(place) => known.words[place] = word,
        Err(place) => known.words.insert(place, word),
    }
    if leads {
        known.leads = Some(node);
    } else if known.leads == Some(node) {
        // Who has led and does not any more is not taken for the leader until the next one has spoken.
        known.leads = None;
    }
    registry::put(view, words_key(committee.group), &known);
    let loads: Vec<Load> = known.words.iter().map(|word| word.load).collect();
    let enough = loads.len() >= usize::from(committee.threshold);
    known.leads.zip(middle(&loads).filter(|_| enough))
}

/// What stands in the middle of what so many say, of each number for itself; of two in the middle the smaller one. `None`
/// where nobody says anything.
fn middle(loads: &[Load]) -> Option<Load> {
    let last = loads.len().checked_sub(1)?;
    Some(Load {
        accounts: nth(loads.iter().map(|load| load.accounts), last / 2)?,
        bytes: nth(loads.iter().map(|load| load.bytes), last / 2)?,
        tps: nth(loads.iter().map(|load| load.tps), last / 2)?,
    })
}

fn nth<T: Ord + Copy>(values: impl Iterator<Item = T>, place: usize) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(place).copied()
}

/// Whether as many members of a shard are heard as a job that ends it needs. All of them are to report.
pub(super) fn enough(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy, group: GroupId) -> bool {
    let Some(committee) = registry::committee(view, group) else { return false };
    words(view, at, policy, &committee).words.len() >= needed(&committee)
}

/// Forgets what was said of a shard that has ended.
pub(super) fn forget_group(view: &mut View<'_>, group: GroupId) {
    let key = words_key(group);
    if view.get(&key).is_some() {
        registry::remove(view, key);
    }
}

/// Forgets everything that was said.
pub(super) fn forget_all(view: &mut View<'_>) {
    let lines = view.scan_prefix(&registry::key(WORDS, &[]));
    lines.into_iter().for_each(|(key, _)| registry::remove(view, key));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accounts: &[u64]) -> Option<u64> {
        let load = |accounts: &u64| Load { accounts: *accounts, bytes: 0, tps: 0 };
        middle(&accounts.iter().map(load).collect::<Vec<_>>()).map(|load| load.accounts)
    }

    #[test]
    fn the_middle_is_between_what_honest_members_say_whatever_as_many_say_as_may_lie() {
        assert_eq!(of(&[]), None);
        let rows: [(&[u64], u64); 7] = [
            (&[9], 9),
            (&[9, 3], 3),
            (&[9, 3, 5], 5),
            (&[0, 5, 6], 5),
            (&[u64::MAX, 5, 6], 6),
            (&[u64::MAX, 5, 6, 7], 6),
            (&[0, 5, 6, 7], 5),
        ];
        for (said, expected) in rows {
            assert_eq!(of(said), Some(expected), "{said:?}");
        }
        for liars in 1..=4_usize {
            for heard in 2 * liars + 1..=3 * liars + 1 {
                let honest: Vec<u64> = (100..).take(heard - liars).collect();
                for lies in [vec![0; liars], vec![u64::MAX; liars]] {
                    let found = of(&[honest.clone(), lies].concat()).expect("somebody says something");
                    assert!(honest.contains(&found), "{liars} of {heard}: {found}");
                }
            }
        }
    }

    #[test]
    fn each_number_has_a_middle_of_its_own() {
        let loads = [(1, 30, 5), (2, 20, 6), (3, 10, 4)].map(|(accounts, bytes, tps)| Load { accounts, bytes, tps });
        assert_eq!(middle(&loads), Some(Load { accounts: 2, bytes: 20, tps: 5 }));
    }
}

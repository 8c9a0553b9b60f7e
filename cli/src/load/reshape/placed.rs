//! Accounts of a shard that will be cut, and of another one, with the keys of all of them.

use std::collections::BTreeMap;

use ledger::{Address, GroupId, Layout};

use crate::error::CliError;
use crate::load::sign::{Party, parties};
use crate::setup::pki::random;

/// Keys derived at once.
const DRAWN: u64 = 8_192;
/// Accounts of the other shard, at most.
const OTHERS_MAX: usize = 1_000;

/// Accounts of the first shard, of which each half has as many, and some of another shard.
pub(super) struct Placed {
    /// With the half that each is in, by the number that it would have if the shard were cut.
    pub(super) shard: Vec<(Party, GroupId)>,
    pub(super) others: Vec<(Party, GroupId)>,
}

impl Placed {
    /// Derives keys until there are enough.
    ///
    /// # Errors
    /// `bench_accounts` and `bench_reshape` when there is nothing to cut or to compare with; that the system gives no
    /// randomness.
    pub(super) fn draw(layout: &Layout, group: GroupId, wanted: u32) -> Result<Self, CliError> {
        let few =
            || CliError::usage("bench_accounts", "each half of the shard needs an account", "use more --accounts");
        let one = || CliError::usage("bench_reshape", "there is no other shard", "use a cluster with two");
        let seed: [u8; 32] = random()?;
        let half = usize::try_from(wanted / 2).unwrap_or(usize::MAX);
        if half == 0 {
            return Err(few());
        }
        let halves = halves(layout, group)?;
        if halves.shards.len() < 3 {
            return Err(one());
        }
        let mut held: BTreeMap<GroupId, usize> = BTreeMap::new();
        let mut placed = Self { shard: Vec::with_capacity(half * 2), others: Vec::new() };
        let others = half.min(OTHERS_MAX);
        let mut next = 0u64;
        while placed.shard.len() < half * 2 || placed.others.len() < others {
            let names: Vec<String> = (next..next + DRAWN).map(|number| number.to_string()).collect();
            next += DRAWN;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for party in parties(&seed, &names) {
                let home = halves.locate(&party.address);
                if layout.locate(&party.address) == group {
                    let count = held.entry(home).or_default();
                    if *count < half {
                        *count += 1;
                        placed.shard.push((party, home));
                    }
                } else if placed.others.len() < others {
                    placed.others.push((party, home));
                }
            }
        }
        // All of them in one shard: there may be more than two.
        let other = placed.others.first().map(|(_, home)| *home);
        placed.others.retain(|(_, home)| Some(*home) == other);
        Ok(placed)
    }

    /// All addresses.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.shard.iter().chain(&self.others).map(|(party, _)| party.address).collect()
    }
}

/// The layout if the shard were cut.
fn halves(layout: &Layout, group: GroupId) -> Result<Layout, CliError> {
    let left = layout.next_shard();
    let right = GroupId::shard(left.ordinal().saturating_add(1));
    let cannot = || CliError::new("protocol", format!("{group} cannot be cut"), "report it with the version");
    layout.split(group, [left, right]).ok_or_else(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_have_as_many_accounts_and_others_are_all_in_one_shard() {
        let (layout, first) = (Layout::even(3), Layout::even(3).shards[0].group);
        let placed = Placed::draw(&layout, first, 21).unwrap();
        let mut halves: BTreeMap<GroupId, usize> = BTreeMap::new();
        placed.shard.iter().for_each(|(_, home)| *halves.entry(*home).or_default() += 1);
        assert_eq!(halves.into_values().collect::<Vec<_>>(), [10, 10]);
        assert!(placed.shard.iter().all(|(party, _)| layout.locate(&party.address) == first));
        let other = placed.others[0].1;
        assert!(other != first && placed.others.iter().all(|(party, _)| layout.locate(&party.address) == other));
        let code = |layout: &Layout, wanted| Placed::draw(layout, first, wanted).err().map(|error| error.code);
        assert_eq!(code(&layout, 1), Some("bench_accounts".to_owned()));
        assert_eq!(code(&Layout::even(1), 4), Some("bench_reshape".to_owned()));
    }
}

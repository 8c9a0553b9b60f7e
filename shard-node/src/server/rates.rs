//! How many transactions a second each replica of a node executes: what its counter has gained over the last ten to twenty
//! seconds. Whoever looks does so by their own clock; looks that are rarer make it the mean since the one before the last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ledger::ids::GroupId;

/// A look that is so far from the one before counts as the next one.
const STRETCH: Duration = Duration::from_secs(10);

/// The counter of a replica at two looks.
#[derive(Clone, Copy, Debug)]
struct Looks {
    before: (Instant, u64),
    last: (Instant, u64),
}

/// Those of a node.
#[derive(Debug, Default)]
pub struct Rates {
    looks: BTreeMap<GroupId, Looks>,
}

impl Rates {
    /// Looks at how many transactions a replica has executed since it was opened, and says how many a second that were
    /// lately: none at the first look.
    pub fn look(&mut self, group: GroupId, now: Instant, transactions: u64) -> u32 {
        let look = (now, transactions);
        let looks = self.looks.entry(group).or_insert(Looks { before: look, last: look });
        if transactions < looks.last.1 {
            // It was opened anew, and counts from the beginning.
            *looks = Looks { before: look, last: look };
        } else if now.duration_since(looks.last.0) >= STRETCH {
            *looks = Looks { before: looks.last, last: look };
        }
        let (since, before) = looks.before;
        let millis = now.duration_since(since).as_millis().max(1_000);
        let rate = u128::from(transactions.saturating_sub(before)) * 1_000 / millis;
        u32::try_from(rate).unwrap_or(u32::MAX)
    }

    /// Forgets replicas that are not here any more.
    pub fn retain(&mut self, here: impl Fn(GroupId) -> bool) {
        self.looks.retain(|group, _| here(*group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: GroupId = GroupId::shard(0);

    #[test]
    fn a_rate_is_of_lately_and_begins_anew_with_the_counter() {
        let begin = Instant::now();
        let mut rates = Rates::default();
        let mut look =
            |seconds: u64, transactions| rates.look(SHARD, begin + Duration::from_secs(seconds), transactions);
        assert_eq!(look(0, 500), 0, "nothing is known of what was before");
        assert_eq!(look(0, 540), 40, "of less than a second as if it were one");
        assert_eq!(look(5, 600), 20);
        assert_eq!(look(10, 1_500), 100);
        assert_eq!(look(15, 1_500), 66, "since the first look");
        // From here on over what was behind the look at ten seconds.
        assert_eq!(look(20, 1_500), 0);
        assert_eq!(look(25, 3_000), 100);
        assert_eq!(look(26, 7), 0, "it was opened anew");
        assert_eq!(look(28, 27), 10);
        rates.retain(|group| group != SHARD);
        assert_eq!(rates.look(SHARD, begin + Duration::from_secs(29), 1_000), 0);
    }
}

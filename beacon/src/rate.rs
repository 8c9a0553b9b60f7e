//! What to expect of a group's rate behind a switch of its engine.
//!
//! Owns the ratios that were measured and says where they come from: `docs/performance.md`, which has the same numbers (a test
//! below compares them), so both are changed together.
//! They are of one machine that all members share, so that the checks of all of them add up. Where each member has a machine
//! of its own a check by every member costs a group no more than one does, and what is expected here is the least. Never
//! measures anything, and nobody decides by it: `seamark bench --engines` measures both engines where they are to run.

use ledger::committee::Engine;
use ledger::genesis::VerifyMode;

use crate::engine::Side;

/// Under full load a group of the Byzantine engine takes so many thousandths of what the machine can verify, with one check
/// of each payment by every member: `seamark bench --engines --seconds 6 --rounds 1`, four members, 6,323 of 9,694 a second.
pub const BFT_REACHES_PERMILLE: u64 = 652;
/// As [`BFT_REACHES_PERMILLE`], for Raft where every member checks, in the same run: 5,458 of 8,481 a second. Each rate is
/// divided by the bound that was measured with it.
pub const RAFT_EVERY_REACHES_PERMILLE: u64 = 643;
/// As [`BFT_REACHES_PERMILLE`], for Raft where a payment is checked once: `seamark bench --shards 1 --seconds 4`.
pub const RAFT_INGEST_REACHES_PERMILLE: u64 = 370;
/// Where all three come from, for people.
pub const SOURCE: &str = "docs/performance.md: 'One engine beside the other', and its first table for verify = ingest";

/// What a group reaches of the rate that its machine can verify, in thousandths, and checks for each payment.
fn reached(side: &Side, verify: VerifyMode) -> (u64, u64) {
    let members = u64::try_from(side.members.max(1)).unwrap_or(u64::MAX);
    match (side.engine, verify) {
        (Engine::Bft, VerifyMode::Ingest | VerifyMode::Every) => (BFT_REACHES_PERMILLE, members),
        (Engine::Raft, VerifyMode::Every) => (RAFT_EVERY_REACHES_PERMILLE, members),
        (Engine::Raft, VerifyMode::Ingest) => (RAFT_INGEST_REACHES_PERMILLE, 1),
    }
}

/// The rate behind a switch as a share of the present one, in percent, rounded, under full load on one machine.
#[must_use]
pub fn expected_percent(now: &Side, then: &Side, verify: VerifyMode) -> u64 {
    let ((now, checks_now), (then, checks_then)) = (reached(now, verify), reached(then, verify));
    // `then / checks_then` over `now / checks_now`.
    let (over, under) = (then.saturating_mul(checks_now), now.saturating_mul(checks_then));
    over.saturating_mul(100).saturating_add(under / 2) / under
}

/// What is to be expected of a switch, in words.
pub(crate) const fn words(from: Engine, to: Engine) -> &'static str {
    match (from, to) {
        (Engine::Raft, Engine::Bft) => {
            "every member checks every client's signature and votes twice before an entry is decided: as fast as before where \
             as many members check already ('verify = every'), lower where one does, and by what members that join check as \
             well where all share a machine; at low load a payment takes up to four times as long"
        }
        (Engine::Bft, Engine::Raft) => {
            "the leader's log decides after one answer of a majority, and members check signatures as the cluster's 'verify' \
             says: as fast as before where all of them do, higher where one does; at low load a payment takes less time"
        }
        (Engine::Raft, Engine::Raft) | (Engine::Bft, Engine::Bft) => "as before",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_expected_by_what_was_measured_and_by_how_many_check() {
        let (raft, bft) = (|members| Side::of(Engine::Raft, members), |members| Side::of(Engine::Bft, members));
        for (what, now, then, verify, expected) in [
            ("as in the run that measured both: 0.652 over 0.643", raft(4), bft(4), VerifyMode::Every, 101),
            ("and back", bft(4), raft(4), VerifyMode::Every, 99),
            ("one member more checks, too", raft(3), bft(4), VerifyMode::Every, 76),
            ("four check, where one did", raft(3), bft(4), VerifyMode::Ingest, 44),
            ("and back", bft(4), raft(3), VerifyMode::Ingest, 227),
            ("nothing changes", bft(4), bft(4), VerifyMode::Ingest, 100),
            ("nobody is there", raft(0), bft(0), VerifyMode::Every, 101),
        ] {
            assert_eq!(expected_percent(&now, &then, verify), expected, "{what}");
        }
    }

    #[test]
    fn what_is_expected_is_what_the_page_says_was_measured() {
        let page = include_str!("../../docs/performance.md");
        for (row, permille, digits) in [
            ("| bft takes at least", BFT_REACHES_PERMILLE, 3),
            ("| rate of bft, and of raft", RAFT_EVERY_REACHES_PERMILLE, 3),
            ("| `seamark bench --shards 1 --seconds 4`", RAFT_INGEST_REACHES_PERMILLE, 2),
        ] {
            let found = page.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("no row '{row}'"));
            let thousandths = format!("0.{permille:03}");
            let ratio = &thousandths[..2 + digits];
            assert!(found.contains(&format!(" {ratio} ")), "{ratio} in '{found}'");
        }
    }
}

//! What to expect of a group's rate behind a switch of its engine.
//!
//! Owns the ratios that were measured and says where they come from: `docs/performance.md`, of which nothing here is newer.
//! They are of one machine that all members share, so that the checks of all of them add up. Where each member has a machine
//! of its own a check by every member costs a group no more than one does, and what is expected here is the least. Never
//! measures anything, and nobody decides by it: `seamark bench --engines` measures both engines where they are to run.

use ledger::committee::Engine;
use ledger::genesis::VerifyMode;

use crate::engine::Side;

/// Under full load a group of the Byzantine engine takes so many thousandths of what the machine can verify, with one check
/// of each payment by every member: `seamark bench --engines --seconds 6`, four members, verify bound 7,917 a second.
pub const BFT_REACHES_PERMILLE: u64 = 640;
/// As [`BFT_REACHES_PERMILLE`], for Raft where every member checks, in the same run: 5,805 of 7,917 a second.
pub const RAFT_EVERY_REACHES_PERMILLE: u64 = 733;
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
            "lower: every member checks every client's signature and votes twice before an entry is decided, so the group \
             is as fast as one member checks; at low load a payment takes up to four times as long"
        }
        (Engine::Bft, Engine::Raft) => {
            "higher: the leader's log decides after one answer of a majority; members check signatures as the cluster's \
             'verify' says"
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
            ("as in the run that measured both: 5,082 of 5,805", raft(4), bft(4), VerifyMode::Every, 87),
            ("and back", bft(4), raft(4), VerifyMode::Every, 115),
            ("one member more checks, too", raft(3), bft(4), VerifyMode::Every, 65),
            ("four check, where one did", raft(3), bft(4), VerifyMode::Ingest, 43),
            ("and back", bft(4), raft(3), VerifyMode::Ingest, 231),
            ("nothing changes", bft(4), bft(4), VerifyMode::Ingest, 100),
            ("nobody is there", raft(0), bft(0), VerifyMode::Every, 87),
        ] {
            assert_eq!(expected_percent(&now, &then, verify), expected, "{what}");
        }
    }
}

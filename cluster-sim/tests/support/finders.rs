//! Who finds which bug that is put back. What is found by somebody else does not count, so that no checker can stop looking
//! without a test that fails.

use cluster_sim::Sabotage;

/// Those that may find a bug. They are checkers, or `liveness`: something does not come to its end; `host`: a node does not
/// start on what is there; `panic`: an assertion of the production code. Where several can, whoever is first ends the run.
const FINDERS: &[(Sabotage, &[&str])] = &[
    (Sabotage::ReplyOnPropose, &["durability"]),
    (Sabotage::SplitBatch, &["equal_roots"]),
    (Sabotage::LoneSignature, &["certificates"]),
    (Sabotage::ForgetReceipts, &["atomicity", "exactly_once"]),
    (Sabotage::EarlySync, &["durability"]),
    (Sabotage::ApplyTwice, &["equal_roots"]),
    (Sabotage::VoteAgain, &["atomicity"]),
    (Sabotage::LateHandOver, &["atomicity"]),
    (Sabotage::TimeOutAlone, &["atomicity"]),
    (Sabotage::AbsenceIsNo, &["atomicity"]),
    (Sabotage::DropEarly, &["registers"]),
    (Sabotage::NoVoteOnMail, &["liveness"]),
    (Sabotage::ReleaseTwice, &["holds"]),
    (Sabotage::HoldNothing, &["panic", "holds"]),
    (Sabotage::TakeDeadMail, &["liveness", "atomicity", "exactly_once", "conservation"]),
    (Sabotage::CreditAgain, &["exactly_once"]),
    (Sabotage::AppliedOnVote, &["durability"]),
    (Sabotage::HastyRouter, &["durability"]),
    (Sabotage::LateClaim, &["locks"]),
    (Sabotage::LockStaysOpen, &["panic", "locks"]),
    (Sabotage::OneDecides, &["policies"]),
    (Sabotage::AnyOpening, &["policies"]),
    (Sabotage::KeepRemoved, &["policies"]),
    (Sabotage::ForgetPair, &["pairs"]),
    (Sabotage::TellOthers, &["isolation"]),
    (Sabotage::RevokedSigns, &["policies"]),
    (Sabotage::StaleWins, &["policies"]),
    (Sabotage::DeafDirectory, &["policies"]),
    (Sabotage::LapsedVoice, &["policies"]),
    (Sabotage::AnyAdmin, &["revocations"]),
    (Sabotage::KeepState, &["seats"]),
    (Sabotage::TellGone, &["liveness", "seats"]),
    (Sabotage::TellRemoved, &["removal"]),
    (Sabotage::AdmitRevoked, &["revocations"]),
    (Sabotage::AdmitGone, &["removal"]),
    (Sabotage::VoteBeforePersist, &["agreement"]),
    (Sabotage::QuorumOffByOne, &["agreement"]),
    (Sabotage::ForeignCertificate, &["agreement"]),
    (Sabotage::ForeignRound, &["agreement"]),
    (Sabotage::ForeignCommittee, &["agreement"]),
    (Sabotage::TimeUnchecked, &["agreement"]),
    (Sabotage::RunAgain, &["equal_roots"]),
    (Sabotage::EvidenceDropped, &["agreement"]),
    (Sabotage::JudgeSkipsSignatures, &["host", "panic"]),
    (Sabotage::LockForgotten, &["agreement"]),
    (Sabotage::SwitchWithoutParent, &["agreement"]),
    (Sabotage::VoidCounts, &["host", "stints"]),
    (Sabotage::TakenIgnored, &["conservation"]),
    (Sabotage::ReaddressTwice, &["exactly_once", "conservation"]),
    (Sabotage::CursorKept, &["streams"]),
    (Sabotage::CreditByBoth, &["exactly_once", "conservation"]),
    (Sabotage::VoteUnrestricted, &["liveness", "atomicity", "registers"]),
    (Sabotage::RegisterLeft, &["lineage"]),
    (Sabotage::SiblingVotesNo, &["holds", "atomicity", "registers"]),
    (Sabotage::SealForGood, &["liveness"]),
    (Sabotage::TwoSealing, &["lineage"]),
    (Sabotage::OrdinalReused, &["lineage"]),
    (Sabotage::TallyOfWrongHalf, &["lineage"]),
    (Sabotage::SeatBeforeState, &["seats"]),
    (Sabotage::SeatKept, &["seats"]),
    (Sabotage::DrainUndone, &["comings"]),
    (Sabotage::NumberReused, &["comings"]),
    (Sabotage::KeyTaken, &["keys"]),
    (Sabotage::KeyDroppedEarly, &["keys"]),
    (Sabotage::KeyUnsynced, &["liveness", "keys"]),
    (Sabotage::PolicyBefore, &["rules"]),
    (Sabotage::EvidenceUntold, &["liveness"]),
    (Sabotage::AccusedUnproved, &["accusations"]),
    (Sabotage::SeedStands, &["epochs"]),
    (Sabotage::CommitLate, &["epochs"]),
    (Sabotage::SecretUnchecked, &["epochs"]),
    (Sabotage::WithholderPlays, &["epochs"]),
    (Sabotage::DealAltered, &["epochs"]),
];

/// Checkers that no bug here needs: unit tests of their own violate what they judge.
pub const BY_UNIT_TESTS: &[&str] = &["foundings", "monotone", "order", "secrecy", "stints"];

/// Those that may find a bug.
pub fn finders(sabotage: Sabotage) -> &'static [&'static str] {
    let entry = FINDERS.iter().find(|(bug, _)| *bug == sabotage);
    entry.map(|(_, finders)| *finders).unwrap_or_else(|| panic!("nobody is said to find {sabotage:?}"))
}

/// Who has found something.
pub fn finder(violation: &str) -> &str {
    violation.split_once(": ").map_or(violation, |(finder, _)| finder)
}

//! One broken rule each, and what must come of it. Owns the list and its tests; where a rule is bent is
//! in `rules.rs`. The table in `docs/protocol-commit.md` quotes the traces, and the tests hold it to them.

use crate::examine;
use crate::properties::{
    ALL_YES_IS_FINAL, CONSERVED, CREDIT_EARNED, CREDIT_ONCE, HOLDS, NO_LATE_VOTE, NO_SPLIT, STAYS_DROPPED, WRITTEN_ONCE,
};
use crate::rules::{Commit, Step};
use crate::say;
use crate::shape::{Acks, Shape};

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A group that voted NO votes YES when the transaction is handed over again.
    Revote,
    /// A hand-over after `valid_until + grace` is executed when there is no register, as after a drop.
    LateHandover,
    /// A group that voted YES aborts by itself once its block time is past `valid_until`.
    Alone,
    /// A group takes a missing vote for NO once the peer's block time is past `valid_until`.
    Absence,
    /// A register is dropped as soon as its outcome is applied.
    DropEarly,
    /// A register is dropped before every vote has been received.
    DropUnreceived,
    /// A register is dropped before its votes are acknowledged.
    DropUnacknowledged,
    /// A register is dropped before its outcome is applied.
    DropUnapplied,
    /// A register is dropped before `valid_until + grace`.
    DropUnexpired,
    /// A group that receives a vote does not vote itself.
    NoVoteOnMail,
    /// A vote that arrives after `valid_until + grace`, where there is no register, is taken for one on a
    /// dropped register and ignored.
    LateVoteIgnored,
    /// A group that waits for openings waits for ever.
    NoDeadline,
    /// The destination takes every bundle that leaves no gap, whatever it has taken before.
    NoCursor,
    /// The source drops mail that the destination has not taken.
    AckUntaken,
    /// The cursor is stored in a later step than the effects.
    CursorApart,
    /// A credit is emitted with the YES, not with the commit.
    CreditAtYes,
}

/// Two voters; the debit of the first is credited with the second, so that both streams carry votes and
/// one carries a credit.
fn pair() -> Shape {
    Shape::clear(2).pay(0, 1)
}

fn story(trace: &[Step]) -> String {
    trace.iter().map(Step::to_string).collect::<Vec<_>>().join("; ")
}

/// The shortest way to what is wrong is shown, and has to stand in the documentation.
fn tell(variant: Variant, wrong: &str, trace: &[Step]) {
    let row = format!("`{}`", story(trace));
    say(&format!("    {wrong}: {row}"));
    let table = include_str!("../../../docs/protocol-commit.md");
    let told = table.lines().any(|line| line.starts_with(&format!("| `{variant:?}` |")) && line.contains(&row));
    assert!(told, "the table has no row `{variant:?}` with {row}");
}

impl Variant {
    /// Exactly these properties fail; the first one's shortest trace is told.
    fn violates(self, shape: Shape, names: &[&'static str]) {
        let report = examine(&Commit::new(shape, Some(self)));
        let mut failed: Vec<_> = report.violated.iter().map(|(name, _)| *name).collect();
        let mut expected = names.to_vec();
        failed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(failed, expected, "{self:?}");
        let (name, trace) = report.violated.iter().find(|(name, _)| *name == names[0]).unwrap();
        tell(self, name, trace);
    }

    /// No property fails, and something never comes to rest.
    fn gets_stuck(self, shape: Shape) {
        let report = examine(&Commit::new(shape, Some(self)));
        assert_eq!(report.violated, vec![], "{self:?}");
        assert!(report.stuck > 0, "{self:?}");
        tell(self, "stuck", &report.trace.unwrap());
    }
}

#[test]
fn voting_again_after_a_no() {
    let failed = [NO_SPLIT, ALL_YES_IS_FINAL, WRITTEN_ONCE, STAYS_DROPPED, NO_LATE_VOTE];
    Variant::Revote.violates(pair(), &failed);
}

#[test]
fn a_hand_over_after_the_drop() {
    let failed = [STAYS_DROPPED, NO_SPLIT, ALL_YES_IS_FINAL, NO_LATE_VOTE];
    Variant::LateHandover.violates(pair(), &failed);
}

#[test]
fn timing_out_alone() {
    Variant::Alone.violates(pair(), &[NO_SPLIT, ALL_YES_IS_FINAL]);
}

#[test]
fn absence_taken_for_no() {
    Variant::Absence.violates(pair(), &[NO_SPLIT, ALL_YES_IS_FINAL]);
}

#[test]
fn dropping_early() {
    // It votes over and over; the bounds keep the search small.
    let shape = Shape::clear(2).without_grace().acks(Acks::AtOnce).by_name();
    Variant::DropEarly.violates(shape, &[NO_SPLIT, ALL_YES_IS_FINAL, STAYS_DROPPED, NO_LATE_VOTE]);
}

#[test]
fn dropping_before_every_vote_is_received() {
    Variant::DropUnreceived.violates(pair(), &[STAYS_DROPPED, NO_LATE_VOTE]);
}

#[test]
fn dropping_before_the_outcome() {
    Variant::DropUnapplied.violates(pair(), &[HOLDS]);
}

#[test]
fn dropping_before_the_deadline() {
    Variant::DropUnexpired.violates(pair(), &[STAYS_DROPPED, NO_SPLIT, ALL_YES_IS_FINAL, NO_LATE_VOTE]);
}

/// The fourth condition is not what keeps the protocol safe: votes outlive their register in the outbox.
#[test]
fn dropping_before_acknowledgement_breaks_nothing() {
    for shape in [pair(), pair().hide_all(), Shape::clear(3).pay_follower()] {
        let report = examine(&Commit::new(shape, Some(Variant::DropUnacknowledged)));
        assert_eq!(report.violated, vec![]);
        assert_eq!((report.stuck, report.may_miss), (0, 0));
    }
}

#[test]
fn not_voting_on_mail() {
    Variant::NoVoteOnMail.gets_stuck(pair());
}

#[test]
fn ignoring_a_vote_that_comes_late() {
    Variant::LateVoteIgnored.gets_stuck(pair());
}

#[test]
fn waiting_for_openings_for_ever() {
    Variant::NoDeadline.gets_stuck(pair().hide_all());
}

#[test]
fn delivery_without_a_cursor() {
    let failed = [CREDIT_ONCE, CONSERVED, NO_SPLIT, ALL_YES_IS_FINAL, STAYS_DROPPED, NO_LATE_VOTE];
    Variant::NoCursor.violates(pair(), &failed);
}

#[test]
fn dropping_mail_before_it_is_taken() {
    Variant::AckUntaken.gets_stuck(pair());
}

#[test]
fn a_cursor_stored_after_the_effects() {
    let failed = [CREDIT_ONCE, CONSERVED, NO_SPLIT, ALL_YES_IS_FINAL, STAYS_DROPPED, NO_LATE_VOTE];
    Variant::CursorApart.violates(pair(), &failed);
}

#[test]
fn a_credit_with_the_yes() {
    Variant::CreditAtYes.violates(pair(), &[CREDIT_EARNED, CONSERVED]);
}

//! Single steps of the rules, by hand: that the model says what it means to say. The searches show what
//! follows from the rules, not that they are the right ones.

use stateright::Model;

use crate::rules::{Commit, Step};
use crate::shape::Shape;
use crate::state::{Clock, Decision, Outcome, State};

use Decision::{No, Yes};

const COMMIT: Outcome = Outcome::Commit;
const ABORT: Outcome = Outcome::Abort;

fn model(shape: Shape) -> Commit {
    Commit::new(shape.by_name(), None)
}

fn hand_over(to: usize, vote: Decision) -> Step {
    Step::HandOver { to, vote }
}

fn mail(from: usize, to: usize, first: u8, end: u8, vote: Option<Decision>) -> Step {
    Step::Deliver { from, to, first, end, vote }
}

fn resolve(group: usize, outcome: Outcome) -> Step {
    Step::Resolve { group, outcome }
}

/// The state after steps that must all be possible.
fn after(model: &Commit, steps: &[Step]) -> State {
    let start = State::initial(&model.shape);
    steps
        .iter()
        .fold(start, |state, step| model.next_state(&state, *step).unwrap_or_else(|| panic!("{step} has no effect")))
}

/// The votes with which a step is possible.
fn choices(model: &Commit, state: &State, step: impl Fn(Option<Decision>) -> Step) -> Vec<Option<Decision>> {
    [None, Some(Yes), Some(No)].into_iter().filter(|vote| model.next_state(state, step(*vote)).is_some()).collect()
}

#[test]
fn the_cursor_trims_what_it_has_and_refuses_a_gap() {
    let model = model(Shape::clear(2).pay(0, 1));
    let commits = [hand_over(0, Yes), hand_over(1, Yes), mail(1, 0, 0, 1, None), resolve(0, COMMIT)];
    let sent = after(&model, &commits);
    assert_eq!((sent.streams[0][1].log.len(), sent.groups[0].posted, sent.groups[0].held), (2, 0, 0));
    assert_eq!(model.next_state(&sent, mail(0, 1, 1, 2, None)), None, "a gap");

    let half = model.next_state(&sent, mail(0, 1, 0, 1, None)).unwrap();
    assert_eq!((half.streams[0][1].cursor, half.credited[0]), (1, 0));
    assert_eq!(model.next_state(&half, mail(0, 1, 0, 1, None)), None, "nothing new");
    let all = model.next_state(&half, mail(0, 1, 0, 2, None)).unwrap();
    assert_eq!((all.streams[0][1].cursor, all.credited[0]), (2, 1));
    assert_eq!(Some(all), model.next_state(&half, mail(0, 1, 1, 2, None)), "the overlap makes no difference");
    for (first, end) in [(0, 1), (0, 2), (1, 2)] {
        assert_eq!(model.next_state(&all, mail(0, 1, first, end, None)), None, "nothing new");
    }
}

#[test]
fn only_what_is_taken_is_acknowledged_and_only_the_outbox_is_sent_when_faults_are_over() {
    let model = model(Shape::clear(2));
    let sent = after(&model, &[hand_over(0, Yes)]);
    let ack = Step::Acknowledge { from: 0, to: 1, cursor: 1 };
    assert_eq!(model.next_state(&sent, ack), None);
    let first = mail(0, 1, 0, 1, Some(Yes));
    assert!(model.is_calm(&sent, &first));
    let taken = model.next_state(&sent, first).unwrap();
    let acked = model.next_state(&taken, ack).unwrap();
    assert!(!model.is_calm(&acked, &first), "the source no longer has it");
    assert!(!model.is_calm(&acked, &hand_over(1, Yes)), "the router is gone");
}

#[test]
fn a_vote_is_answered_in_the_same_apply() {
    let model = model(Shape::clear(2));
    for (vote, ticks, allowed) in [
        (Yes, 0, vec![Some(Yes), Some(No)]),
        (No, 0, vec![Some(Yes), Some(No)]),
        (Yes, 1, vec![Some(No)]),
        (Yes, 2, vec![Some(No)]),
        (No, 2, vec![Some(No)]),
    ] {
        let mut steps = vec![Step::Tick { group: 1 }; ticks];
        steps.push(hand_over(0, vote));
        let state = after(&model, &steps);
        assert_eq!(choices(&model, &state, |vote| mail(0, 1, 0, 1, vote)), allowed, "{vote} after {ticks} ticks");
    }
    let voted = after(&model, &[hand_over(0, Yes), hand_over(1, No)]);
    assert_eq!(choices(&model, &voted, |vote| mail(0, 1, 0, 1, vote)), vec![None]);
}

#[test]
fn without_openings_a_group_waits_and_says_no_at_its_deadline() {
    let model = model(Shape::clear(2).hide_all());
    let deadline = Step::Deadline { group: 1 };
    let sent = after(&model, &[hand_over(0, Yes)]);
    assert_eq!(choices(&model, &sent, |vote| mail(0, 1, 0, 1, vote)), vec![None]);
    let late = after(&model, &[hand_over(0, Yes), Step::Tick { group: 1 }]);
    assert_eq!(choices(&model, &late, |vote| mail(0, 1, 0, 1, vote)), vec![None, Some(No)]);
    assert_eq!(model.next_state(&late, deadline), None, "it has not heard of it");

    let waits = model.next_state(&sent, mail(0, 1, 0, 1, None)).unwrap();
    assert_eq!((waits.groups[1].register, model.next_state(&waits, deadline)), (None, None));
    assert_eq!(model.next_state(&waits, hand_over(1, Yes)).unwrap().groups[1].held, 1, "the router brings openings");
    let late = model.next_state(&waits, Step::Tick { group: 1 }).unwrap();
    assert_eq!(model.next_state(&late, deadline).unwrap().groups[1].register, Some(No));

    let refused = after(&model, &[hand_over(0, No)]);
    assert_eq!(
        choices(&model, &refused, |vote| mail(0, 1, 0, 1, vote)),
        vec![None, Some(No)],
        "a NO needs no openings"
    );
}

#[test]
fn a_register_answers_for_itself_and_goes_under_four_conditions() {
    let model = model(Shape::clear(2));
    let drop = Step::Drop { group: 0 };
    let needed = [
        hand_over(0, Yes),
        hand_over(1, No),
        mail(0, 1, 0, 1, None),
        mail(1, 0, 0, 1, None),
        Step::Acknowledge { from: 0, to: 1, cursor: 1 },
        resolve(0, ABORT),
        Step::Tick { group: 0 },
        Step::Tick { group: 0 },
    ];
    for end in 0..needed.len() {
        let state = after(&model, &needed[..end]);
        assert_eq!(model.next_state(&state, drop), None, "after {end} steps");
        for vote in [Yes, No] {
            let taken = model.next_state(&state, hand_over(0, vote)).is_some();
            assert_eq!(taken, end == 0, "{vote} after {end} steps");
        }
    }
    let ready = after(&model, &needed);
    let dropped = model.next_state(&ready, drop).unwrap();
    assert_eq!((dropped.groups[0].register, dropped.groups[0].votes, dropped.groups[0].held), (None, [None; 4], 0));
    for vote in [Yes, No] {
        assert_eq!(model.next_state(&dropped, hand_over(0, vote)), None, "refused as expired");
    }
}

#[test]
fn a_hand_over_past_the_deadline_can_only_be_a_no() {
    let model = model(Shape::clear(2));
    for (ticks, clock, allowed) in
        [(0, Clock::Before, vec![Yes, No]), (1, Clock::Late, vec![No]), (2, Clock::Gone, vec![])]
    {
        let state = after(&model, &vec![Step::Tick { group: 0 }; ticks]);
        assert_eq!(state.groups[0].clock, clock);
        let possible: Vec<_> =
            [Yes, No].into_iter().filter(|vote| model.next_state(&state, hand_over(0, *vote)).is_some()).collect();
        assert_eq!(possible, allowed);
    }
}

#[test]
fn the_outcome_is_the_and_of_all_votes() {
    let model = model(Shape::clear(3).pay(0, 1));
    let yes = after(&model, &[hand_over(0, Yes), hand_over(1, Yes), mail(1, 0, 0, 1, None)]);
    assert_eq!(yes.groups[0].held, 1);
    for outcome in [COMMIT, ABORT] {
        assert_eq!(model.next_state(&yes, resolve(0, outcome)), None, "the third vote is not known");
    }
    for (third, outcome, posted) in [(Yes, COMMIT, 0), (No, ABORT, 1)] {
        let known = model.next_state(&yes, hand_over(2, third)).unwrap();
        let known = model.next_state(&known, mail(2, 0, 0, 1, None)).unwrap();
        let possible: Vec<_> = [COMMIT, ABORT]
            .into_iter()
            .filter(|outcome| model.next_state(&known, resolve(0, *outcome)).is_some())
            .collect();
        assert_eq!(possible, [outcome]);
        let done = model.next_state(&known, resolve(0, outcome)).unwrap();
        assert_eq!((done.groups[0].posted, done.groups[0].held), (posted, 0));
        assert_eq!(done.streams[0][1].log.len(), if outcome == COMMIT { 2 } else { 1 }, "a credit goes with a commit");
    }
}

//! A formal model of the commit across groups, searched exhaustively: safety of every state, and rest
//! once routers and faults are gone.
//!
//! Owns the configurations that must hold, and the two searches. The protocol in prose, what the model
//! covers and what it bounds are in `docs/protocol-commit.md`. Nothing here is used by the crate.
#![allow(clippy::unwrap_used)] // a test that meets an error has failed

mod explore;
mod properties;
mod rules;
mod shape;
mod state;
mod stories;
mod variants;

use std::collections::{BTreeSet, HashSet};
use std::io::Write;
use std::time::Instant;

use stateright::{Checker, Expectation, Model};

use explore::Report;
use rules::{Commit, Step};
use shape::{Acks, FOLLOWER, Shape};

/// Searches all of a model twice, at the same time on two cores: `explore` for properties and rest, and
/// stateright's own checker for the properties. They must agree.
fn examine(model: &Commit) -> Report<Step> {
    let start = Instant::now();
    let checker = model.clone().checker().spawn_bfs();
    let report = explore::explore(model, |s, step| model.is_calm(s, step), |s| properties::is_rest(model, s));
    let checker = checker.join();

    let discovered = checker.discoveries();
    let (mut violated, mut never) = (BTreeSet::new(), BTreeSet::new());
    for property in model.properties() {
        let found = discovered.contains_key(property.name);
        match property.expectation {
            Expectation::Always if found => violated.insert(property.name),
            Expectation::Sometimes if !found => never.insert(property.name),
            _ => false,
        };
    }
    assert_eq!(checker.unique_state_count(), report.states);
    assert_eq!(violated, report.violated.iter().map(|(name, _)| *name).collect());
    assert_eq!(never, report.never.iter().copied().collect());

    let (name, Report { states, steps, depth, stuck, may_miss, .. }) = (model.to_string(), &report);
    let seconds = start.elapsed().as_secs_f64();
    let line = format!("{name:<44} {states:>9} states {steps:>10} steps depth {depth:>2} {seconds:>6.1} s");
    let found = format!("{} violated, {stuck} stuck, {may_miss} may miss rest", report.violated.len());
    say(&format!("{line}  {found}"));
    report
}

/// Prints past the capture of the test harness: how much was searched is part of the result.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Whether the searches of `make soak` are asked for.
fn soak() -> bool {
    std::env::var_os("SEAMARK_SOAK").is_some()
}

fn holds(shape: Shape) {
    let report = examine(&Commit::new(shape, None));
    assert_eq!(report.violated, vec![], "{shape}");
    assert_eq!(report.never, Vec::<&str>::new(), "{shape}: this search shows little");
    assert_eq!((report.stuck, report.may_miss, report.trace), (0, 0, None), "{shape}");
}

#[test]
fn two_voters() {
    let clear = Shape::clear(2);
    for slots in [clear, clear.hide(&[0]), clear.hide(&[1]), clear.hide_all()] {
        for shape in [
            slots,
            slots.pay(0, 1),
            slots.pay(0, FOLLOWER),
            slots.pay(0, 1).pay(1, 0),
            slots.pay(0, 1).pay(1, FOLLOWER),
            slots.pay_follower(),
        ] {
            holds(shape);
        }
    }
}

/// Nothing is bounded here but what `docs/protocol-commit.md` names for all searches.
#[test]
fn three_voters() {
    let clear = Shape::clear(3);
    holds(clear);
    holds(clear.pay_follower());
    holds(clear.hide_all().pay_follower());
    holds(clear.hide(&[1, 2]).pay_follower());
    holds(clear.pay(0, 1).pay(1, 2).pay(2, 0));
    if soak() {
        holds(clear.hide(&[2]).pay_follower());
        holds(clear.hide_all().pay(0, 1).pay(1, 2).pay(2, 0));
        holds(clear.hide(&[1]).pay(0, 1).pay(1, 0).pay(2, FOLLOWER));
    }
}

/// With four, acknowledgements are bounded. Only the drop reads them, and it asks for all of a group's.
#[test]
fn four_voters() {
    let clear = Shape::clear(4).acks(Acks::Together);
    let bounded = clear.without_grace();
    holds(bounded);
    holds(bounded.hide_all().pay_follower());
    if soak() {
        holds(bounded.hide(&[2, 3]).pay_follower());
        holds(clear.pay_follower());
        holds(clear.hide_all().pay_follower());
    }
}

/// Where the model adds nothing to the design's own check of these rules (`commit_model.py`: no mail
/// positions, no acknowledgements, no grace, no credits), it has exactly the states of that check.
#[test]
fn same_states_as_the_first_check() {
    for (voters, clear, hidden) in [(2, 260, 284), (3, 25_356, 28_740)] {
        let shape = Shape::clear(voters).without_grace().acks(Acks::AtOnce).by_name();
        assert_eq!(examine(&Commit::new(shape, None)).states, clear);
        assert_eq!(examine(&Commit::new(shape.hide_all(), None)).states, hidden);
    }
}

/// Exchanging voters leaves a representative alone, and searches with and without it see the same.
#[test]
fn renaming_is_exact() {
    let three = Shape::clear(3).without_grace().acks(Acks::AtOnce);
    for shape in [Shape::clear(2), Shape::clear(2).pay_follower(), three, three.hide(&[1, 2]).pay_follower()] {
        let (by_name, parts) = (Commit::new(shape.by_name(), None), shape.parts());
        let mut seen: HashSet<_> = by_name.init_states().into_iter().collect();
        let mut todo: Vec<_> = seen.iter().copied().collect();
        while let Some(state) = todo.pop() {
            todo.extend(by_name.next_states(&state).into_iter().filter(|next| seen.insert(*next)));
        }
        let all = examine(&by_name);
        assert_eq!(seen.len(), all.states);
        let least: HashSet<_> = seen.iter().map(|state| state.representative(&parts)).collect();
        assert!(least.iter().all(|state| seen.contains(state) && state.representative(&parts) == *state));
        for (i, j) in (0..shape.voters).flat_map(|j| (0..j).map(move |i| (i, j))).filter(|&(i, j)| parts[i] == parts[j])
        {
            assert!(seen.iter().all(|s| s.exchanged(i, j).representative(&parts) == s.representative(&parts)));
        }
        let reduced = examine(&Commit::new(shape, None));
        assert_eq!(least.len(), reduced.states);
        assert!(reduced.states < all.states);
    }
}

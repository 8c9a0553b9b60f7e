//! Liveness by exhaustion: does everything come to rest once routers and faults are gone?
//!
//! Owns the search over all reachable states and the search back from rest. Knows no protocol: a
//! model, a set of calm steps and a set of states at rest are given. stateright's `eventually` is not
//! used: it takes a join of two paths for the end of neither and so misses counterexamples, which its
//! documentation says, and it cannot ask about a part of the steps only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use stateright::{Expectation, Model};

/// What a search found.
#[derive(Debug)]
pub struct Report<A> {
    /// Reachable states, by all steps.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Longest of the shortest ways to a state.
    pub depth: usize,
    /// Every `always` that does not, with a shortest way there.
    pub violated: Vec<(&'static str, Vec<A>)>,
    /// Every `sometimes` that never is.
    pub never: Vec<&'static str>,
    /// States from which no calm steps lead to rest.
    pub stuck: usize,
    /// States from which calm steps *may* miss rest: some run of them goes on for ever, or ends
    /// elsewhere. None means that every run ends at rest, with no fairness asked beyond "while a
    /// calm step is possible, one is taken".
    pub may_miss: usize,
    /// A shortest way to a stuck state or, without one, to a state that may miss rest.
    pub trace: Option<Vec<A>>,
}

/// Searches all of `model`. Of each state only a 64-bit hash is kept; two states that share one would be
/// taken for one here and, with another hash, not by stateright, whose count is compared.
pub fn explore<M>(
    model: &M,
    calm: impl Fn(&M::State, &M::Action) -> bool,
    rest: impl Fn(&M::State) -> bool,
) -> Report<M::Action>
where
    M: Model,
    M::State: Hash + Clone,
    M::Action: Clone,
{
    let mut graph = Graph::default();
    let mut level: Vec<(u32, M::State)> = Vec::new();
    for state in model.init_states() {
        if let Some(id) = graph.visit(fingerprint(&state), None) {
            level.push((id, state));
        }
    }
    let properties = model.properties();
    let mut witness: Vec<Option<u32>> = vec![None; properties.len()]; // a first state that settles each
    let (mut steps, mut depth, mut at_rest, mut actions) = (0, 0, Vec::new(), Vec::new());
    while !level.is_empty() {
        let mut next_level = Vec::new();
        for (id, state) in level {
            for (property, witness) in properties.iter().zip(&mut witness).filter(|(_, witness)| witness.is_none()) {
                let settles = (property.condition)(model, &state) == (property.expectation == Expectation::Sometimes);
                *witness = settles.then_some(id);
            }
            at_rest.push(rest(&state)); // states come here in the order of their numbers
            model.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let is_calm = calm(&state, &action);
                let Some(next) = model.next_state(&state, action) else { continue };
                steps += 1;
                let print = fingerprint(&next);
                if let Some(new) = graph.visit(print, Some(id)) {
                    next_level.push((new, next));
                }
                if is_calm {
                    graph.calm.push((id, graph.ids[&print]));
                }
            }
        }
        level = next_level;
        depth += 1;
    }
    let (stuck, may_miss) = graph.judge(&at_rest);
    let first = |marked: &[bool]| marked.iter().position(|&mark| mark).map(|id| id as u32);
    let mut report = Report {
        states: graph.parents.len(),
        steps,
        depth: depth - 1,
        violated: Vec::new(),
        never: Vec::new(),
        stuck: stuck.iter().filter(|&&s| s).count(),
        may_miss: may_miss.iter().filter(|&&s| s).count(),
        trace: first(&stuck).or_else(|| first(&may_miss)).map(|id| graph.way_to(model, id)),
    };
    for (property, witness) in properties.iter().zip(witness) {
        match (&property.expectation, witness) {
            (Expectation::Always, Some(id)) => report.violated.push((property.name, graph.way_to(model, id))),
            (Expectation::Sometimes, None) => report.never.push(property.name),
            (Expectation::Always, None) | (Expectation::Sometimes, Some(_)) => {}
            (Expectation::Eventually, _) => panic!("{}: liveness is judged by rest", property.name),
        }
    }
    report
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Fingerprints(u64);

impl Hasher for Fingerprints {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        panic!("only for fingerprints");
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}

/// States are numbered in the order of the search.
#[derive(Default)]
struct Graph {
    ids: HashMap<u64, u32, BuildHasherDefault<Fingerprints>>,
    parents: Vec<Option<u32>>,
    calm: Vec<(u32, u32)>,
}

impl Graph {
    /// The number of a state that was not known.
    fn visit(&mut self, print: u64, parent: Option<u32>) -> Option<u32> {
        let id = u32::try_from(self.parents.len()).expect("fewer than 2^32 states");
        match self.ids.entry(print) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(id);
                self.parents.push(parent);
                Some(id)
            }
        }
    }

    /// Of each state, whether it is stuck, and whether it may miss rest. Back from rest, and back from
    /// the states where calm steps end, taking a state when all of its calm steps are accounted for:
    /// those on a cycle, or before one, never are.
    fn judge(&self, at_rest: &[bool]) -> (Vec<bool>, Vec<bool>) {
        let count = at_rest.len();
        let mut first = vec![0u32; count + 1]; // calm steps into state i: sources[first[i]..first[i + 1]]
        let mut open = vec![0u32; count]; // calm steps out of state i that are not accounted for
        for &(from, to) in &self.calm {
            first[to as usize + 1] += 1;
            open[from as usize] += 1;
        }
        for i in 0..count {
            first[i + 1] += first[i];
        }
        let (mut fill, mut sources) = (first.clone(), vec![0u32; self.calm.len()]);
        for &(from, to) in &self.calm {
            sources[fill[to as usize] as usize] = from;
            fill[to as usize] += 1;
        }
        let into = |id: u32| &sources[first[id as usize] as usize..first[id as usize + 1] as usize];

        let mut stuck: Vec<bool> = at_rest.iter().map(|rests| !rests).collect();
        let mut todo: Vec<u32> = (0..count as u32).filter(|&id| at_rest[id as usize]).collect();
        while let Some(id) = todo.pop() {
            for &from in into(id) {
                if std::mem::take(&mut stuck[from as usize]) {
                    todo.push(from);
                }
            }
        }

        let mut may_miss = vec![true; count];
        let mut todo: Vec<u32> =
            (0..count as u32).filter(|&id| open[id as usize] == 0 && at_rest[id as usize]).collect();
        while let Some(id) = todo.pop() {
            may_miss[id as usize] = false;
            for &from in into(id) {
                open[from as usize] -= 1;
                if open[from as usize] == 0 {
                    todo.push(from);
                }
            }
        }
        (stuck, may_miss)
    }

    /// The steps of the shortest way from a first state to `id`.
    fn way_to<M: Model>(&self, model: &M, id: u32) -> Vec<M::Action>
    where
        M::State: Hash,
        M::Action: Clone,
    {
        let (mut ways, mut at) = (vec![id], id);
        while let Some(parent) = self.parents[at as usize] {
            ways.push(parent);
            at = parent;
        }
        ways.reverse();
        let number = |state: &M::State| self.ids[&fingerprint(state)];
        let mut state = model.init_states().into_iter().find(|state| number(state) == ways[0]).expect("a first state");
        let mut trace = Vec::new();
        for &want in &ways[1..] {
            let step = model.next_steps(&state).into_iter().find(|(_, next)| number(next) == want);
            let (action, next) = step.expect("the step by which the search came");
            trace.push(action);
            state = next;
        }
        trace
    }
}

mod tests {
    //! The search itself, on graphs small enough to judge by eye.

    use super::*;

    /// Edges `(from, to, calm)` from state 0.
    struct Toy(&'static [(u8, u8, bool)]);

    impl Model for Toy {
        type State = u8;
        type Action = (u8, u8, bool);

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, state: &u8, actions: &mut Vec<Self::Action>) {
            actions.extend(self.0.iter().filter(|edge| edge.0 == *state));
        }

        fn next_state(&self, _: &u8, edge: Self::Action) -> Option<u8> {
            Some(edge.1)
        }
    }

    fn judge(edges: &'static [(u8, u8, bool)], rest: u8) -> Report<(u8, u8, bool)> {
        explore(&Toy(edges), |_, edge| edge.2, |state| *state == rest)
    }

    #[test]
    fn a_line_that_ends_at_rest_is_fine() {
        let report = judge(&[(0, 1, true), (1, 2, true)], 2);
        assert_eq!((report.states, report.depth, report.stuck, report.may_miss), (3, 2, 0, 0));
        assert_eq!(report.trace, None);
    }

    #[test]
    fn an_end_elsewhere_is_stuck_and_what_leads_there_may_miss() {
        let report = judge(&[(0, 1, true), (0, 2, true), (2, 3, true)], 1);
        assert_eq!((report.stuck, report.may_miss), (2, 3));
        assert_eq!(report.trace, Some(vec![(0, 2, true)]));
    }

    #[test]
    fn a_way_that_is_not_calm_does_not_count() {
        let report = judge(&[(0, 1, true), (1, 2, false)], 2);
        assert_eq!((report.states, report.stuck, report.may_miss), (3, 2, 2));
    }

    #[test]
    fn a_cycle_is_not_stuck_and_may_still_never_rest() {
        let report = judge(&[(0, 3, false), (3, 1, true), (1, 2, true), (2, 1, true), (2, 4, true)], 4);
        assert_eq!((report.stuck, report.may_miss), (1, 4));
        let report = judge(&[(0, 4, true), (0, 1, false), (1, 2, true), (2, 1, true)], 4);
        assert_eq!((report.stuck, report.may_miss), (2, 2));
        assert_eq!(report.trace, Some(vec![(0, 1, false)]));
    }
}

//! All groups of a cluster in modelled time.
//!
//! Nothing that a group does reaches another one sooner than one hop later. So all of them go one hop ahead at a time,
//! side by side on several threads; then letters are given out in the order of their arrival, and what groups have used
//! of the nodes that they share is added up. The outcome does not depend on the number of threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ledger::ids::GroupId;
use ledger::memo::{Memory, remembering_in};

use crate::scale::group::{Group, Letter};
use crate::scale::model::{MS, Ns};
use crate::scale::{Progress, Times};

/// One step, for the groups of one thread.
struct Turn {
    until: Ns,
    /// From when on each node is free.
    free: Arc<Vec<Ns>>,
    /// For the groups of the thread, each with its place there, in the order of arrival.
    letters: Vec<(usize, Letter)>,
}

/// What came of it.
struct Done {
    letters: Vec<Letter>,
    /// Node, what a group has used of it, and from when on it is free for that group.
    used: Vec<(usize, Ns, Ns)>,
    /// Payments of its groups with a receipt since the beginning.
    paid: u64,
    fault: Option<String>,
}

/// What nodes have used of their processors in the time that is measured.
pub(super) struct Outcome {
    pub(super) groups: Vec<Group>,
    /// Of each node.
    pub(super) used: Vec<Ns>,
}

/// Runs all groups to the end of the run, and tells `watch` of each step. They come back in the order of their ids.
///
/// The threads have one memory of signatures: what one of them has signed none checks.
///
/// # Errors
/// What a group or its driver found wrong; nothing may be.
pub(super) fn run(
    groups: Vec<Group>,
    nodes: usize,
    step: Ns,
    times: Times,
    threads: usize,
    watch: &mut dyn FnMut(Progress),
) -> Result<Outcome, String> {
    let signatures = Memory::default();
    let threads = threads.clamp(1, groups.len().max(1));
    let mut places = BTreeMap::new();
    let mut shares: Vec<Vec<Group>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, group) in groups.into_iter().enumerate() {
        let share = &mut shares[at % threads];
        places.insert(group.id, (at % threads, share.len()));
        share.push(group);
    }
    thread::scope(|scope| {
        let workers: Vec<_> = shares
            .into_iter()
            .map(|groups| {
                let ((turns, next), (done, results)) = (channel::<Turn>(), channel::<Done>());
                let memory = signatures.clone();
                let worker = scope.spawn(move || remembering_in(&memory, || work(groups, &next, &done)));
                (turns, results, worker)
            })
            .collect();
        let mut used = vec![0; nodes];
        let lines: Vec<Line<'_>> = workers.iter().map(|(turns, results, _)| Line { turns, results }).collect();
        let steps = all_steps(&lines, &places, &mut used, step, times, watch);
        drop(lines);
        let mut groups = Vec::with_capacity(places.len());
        for (turns, _, worker) in workers {
            // A thread ends when no turn can come any more.
            drop(turns);
            groups.extend(worker.join().map_err(|_| "a thread of the study has panicked".to_owned())?);
        }
        groups.sort_by_key(|group: &Group| group.id);
        steps.map(|()| Outcome { groups, used })
    })
}

/// The line to a thread.
struct Line<'a> {
    turns: &'a Sender<Turn>,
    results: &'a Receiver<Done>,
}

fn all_steps(
    lines: &[Line<'_>],
    places: &BTreeMap<GroupId, (usize, usize)>,
    used: &mut [Ns],
    step: Ns,
    times: Times,
    watch: &mut dyn FnMut(Progress),
) -> Result<(), String> {
    let mut free = vec![0; used.len()];
    let mut letters: Vec<Letter> = Vec::new();
    let mut now = 0;
    while now < times.end {
        let until = now + step;
        let mut given: Vec<Vec<(usize, Letter)>> = lines.iter().map(|_| Vec::new()).collect();
        for letter in letters.drain(..) {
            if let Some((line, place)) = places.get(&letter.dest) {
                given[*line].push((*place, letter));
            }
        }
        let known = Arc::new(free.clone());
        for (line, letters) in lines.iter().zip(given) {
            let turn = Turn { until, free: Arc::clone(&known), letters };
            line.turns.send(turn).map_err(|_| "a thread of the study has ended".to_owned())?;
        }
        let (mut shared, mut payments) = (BTreeMap::<usize, (Ns, Ns)>::new(), 0);
        for line in lines {
            let done = line.results.recv().map_err(|_| "a thread of the study has ended".to_owned())?;
            if let Some(fault) = done.fault {
                return Err(fault);
            }
            letters.extend(done.letters);
            payments += done.paid;
            for (node, taken, until) in done.used {
                let (all, last) = shared.entry(node).or_default();
                *all += taken;
                *last = until.max(*last);
            }
        }
        let counts = (times.measure_from..times.measure_to).contains(&now);
        for (node, (taken, last)) in shared {
            // Of one group it is known when it is done; several have to share.
            free[node] = last.max(free[node].max(now) + taken);
            used[node] += if counts { taken } else { 0 };
        }
        letters.sort_by_key(|letter| (letter.at, letter.source, letter.number));
        now = until;
        watch(Progress { modelled_ms: now.min(times.end) / MS, whole_ms: times.end / MS, payments });
    }
    Ok(())
}

/// One thread: its groups take their turns until no more come.
fn work(mut groups: Vec<Group>, turns: &Receiver<Turn>, done: &Sender<Done>) -> Vec<Group> {
    while let Ok(Turn { until, free, letters }) = turns.recv() {
        let mut given: Vec<Vec<Letter>> = groups.iter().map(|_| Vec::new()).collect();
        for (place, letter) in letters {
            given[place].push(letter);
        }
        let mut result = Done { letters: Vec::new(), used: Vec::new(), paid: 0, fault: None };
        for (group, letters) in groups.iter_mut().zip(given) {
            for share in &mut group.shares {
                (share.free, share.used) = (free[share.node], 0);
            }
            if let Err(fault) = group.advance(until, letters) {
                result.fault = Some(fault);
                break;
            }
            result.letters.append(&mut group.letters);
            result.paid += group.paid;
            let taken = group.shares.iter().filter(|share| share.used > 0);
            result.used.extend(taken.map(|share| (share.node, share.used, share.free)));
        }
        if done.send(result).is_err() {
            break;
        }
    }
    groups
}

//! The search for an order of one account's operations, moment by moment.
//!
//! Goes through the moments at which operations begin and end, and keeps every way in which what is
//! open may stand: which of it has happened already. Nothing happens before it has to: an effect when
//! its time is up or a read needs it, a read at any moment while it is asked. That loses no explanation,
//! since effects add up in any order and only reads tell them apart. (Wing and Gong's search with
//! Lowe's "just in time" order; ways that stand alike are one.)

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Read, Time, signed};

/// What has no explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub why: Why,
    /// When it was over.
    pub time: Time,
}

/// In which way an operation contradicts everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The read shows less than is possible.
    TooLittle { read: usize },
    /// The read shows more than is possible.
    TooMuch { read: usize },
    /// The amounts of the read are no sum of what may have happened.
    NoSum { read: usize },
    /// The read stands at a lower height than what was over before it began.
    Backwards { read: usize },
    /// What the transfer did stands in a block of which there was a read before it began.
    Foreseen { transfer: usize },
}

/// What of the open operations has happened, and what the account has by that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    posted: i128,
    held: i128,
    /// The highest of the reads that have been placed.
    height: u64,
    /// The lowest height at which a read can come next: what has happened since stands in a block.
    floor: u64,
    effects: BTreeSet<usize>,
    reads: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    // Before the ends of the same time: what touches overlaps.
    EffectBegins(usize),
    ReadBegins(usize),
    EffectEnds(usize),
    ReadEnds(usize),
}

struct Search<'a> {
    effects: &'a [Effect],
    /// By their place in the history.
    reads: BTreeMap<usize, Read>,
    open_effects: BTreeSet<usize>,
    /// With the lowest height that each can have, by what was over when it began.
    open_reads: BTreeMap<usize, u64>,
    ways: BTreeSet<Way>,
}

/// Whether there is an order of these effects and reads that starts with `opening`.
pub(super) fn explain(opening: u128, effects: &[Effect], reads: &[(usize, Read)]) -> Result<(), Misfit> {
    let mut moments: BTreeSet<(Time, Moment)> = BTreeSet::new();
    for (number, effect) in effects.iter().enumerate() {
        moments.insert((effect.from, Moment::EffectBegins(number)));
        moments.extend(effect.until.map(|until| (until.max(effect.from), Moment::EffectEnds(number))));
    }
    for (number, read) in reads {
        moments.insert((read.invoked, Moment::ReadBegins(*number)));
        moments.insert((read.completed.max(read.invoked), Moment::ReadEnds(*number)));
    }
    let start =
        Way { posted: signed(opening), held: 0, height: 0, floor: 0, effects: BTreeSet::new(), reads: BTreeSet::new() };
    let mut search = Search {
        effects,
        reads: reads.iter().copied().collect(),
        open_effects: BTreeSet::new(),
        open_reads: BTreeMap::new(),
        ways: BTreeSet::from([start]),
    };
    for (time, moment) in moments {
        search.pass(moment).map_err(|why| Misfit { why, time })?;
    }
    Ok(())
}

impl Search<'_> {
    fn pass(&mut self, moment: Moment) -> Result<(), Why> {
        match moment {
            Moment::EffectBegins(number) => {
                let Effect { transfer, at, optional, .. } = self.effects[number];
                self.open_effects.insert(number);
                if let Some(at) = at.filter(|_| !optional) {
                    self.ways.retain(|way| way.height < at);
                    if self.ways.is_empty() {
                        return Err(Why::Foreseen { transfer });
                    }
                }
            }
            Moment::ReadBegins(number) => {
                let floor = self.ways.iter().map(|way| way.floor).min().unwrap_or_default();
                self.open_reads.insert(number, floor);
            }
            Moment::EffectEnds(number) => {
                // Those that wait for it end with it, at the latest now.
                if self.open_effects.contains(&number) {
                    self.place_reads();
                    self.end_effect(number)?;
                }
            }
            Moment::ReadEnds(number) => {
                self.place_reads();
                let (with, without) = self.ways.iter().cloned().partition(|way| way.reads.contains(&number));
                self.ways = with;
                if self.ways.is_empty() {
                    return Err(self.misfit(number, &without));
                }
                self.open_reads.remove(&number);
                self.ways = self.taken(|way| _ = way.reads.remove(&number));
            }
        }
        Ok(())
    }

    /// The ways with something forgotten that is over: those that are alike now are one.
    fn taken(&mut self, forget: impl Fn(&mut Way)) -> BTreeSet<Way> {
        let mut ways = BTreeSet::new();
        for mut way in std::mem::take(&mut self.ways) {
            forget(&mut way);
            ways.insert(way);
        }
        ways
    }

    /// Lets the effect happen in every way in which it has not, and forgets it.
    fn end_effect(&mut self, number: usize) -> Result<(), Why> {
        let effect = self.effects[number];
        // A hold that is optional ends with its release; the release has the number after it.
        let pair = [effect.after.unwrap_or(number), number];
        if effect.optional && effect.after.is_none() {
            return Ok(());
        }
        let mut ways = BTreeSet::new();
        for mut way in std::mem::take(&mut self.ways) {
            let begun = pair[0] == number || self.has(&way, pair[0]);
            if !effect.optional || begun {
                let mut fits = true;
                for part in pair {
                    fits &= self.has(&way, part) || self.happen(&mut way, part);
                }
                if !fits {
                    continue;
                }
            }
            for part in pair {
                way.effects.remove(&part);
            }
            ways.insert(way);
        }
        self.ways = ways;
        for part in pair {
            self.open_effects.remove(&part);
        }
        if self.ways.is_empty() { Err(Why::Foreseen { transfer: effect.transfer }) } else { Ok(()) }
    }

    /// Whether an effect has happened.
    fn has(&self, way: &Way, number: usize) -> bool {
        way.effects.contains(&number) || !self.open_effects.contains(&number)
    }

    /// Lets an effect happen now, unless a read has been placed that should have seen it.
    fn happen(&self, way: &mut Way, number: usize) -> bool {
        let effect = &self.effects[number];
        if effect.at.is_some_and(|at| at <= way.height) {
            return false;
        }
        way.posted += effect.posted;
        way.held += effect.held;
        let next = if way.height > 0 { way.height + 1 } else { 0 };
        way.floor = way.floor.max(next).max(effect.at.unwrap_or_default());
        way.effects.insert(number)
    }

    /// Adds every way in which reads that are open can be placed now.
    fn place_reads(&mut self) {
        let mut fresh: Vec<Way> = self.ways.iter().cloned().collect();
        while let Some(way) = fresh.pop() {
            for number in self.open_reads.keys() {
                if way.reads.contains(number) {
                    continue;
                }
                for next in self.placed(&way, *number) {
                    if self.ways.insert(next.clone()) {
                        fresh.push(next);
                    }
                }
            }
        }
    }

    /// Every way in which a read comes next, after some of the open effects.
    fn placed(&self, way: &Way, number: usize) -> Vec<Way> {
        let read = self.reads[&number];
        let waits: Vec<usize> = self.open_effects.difference(&way.effects).copied().collect();
        let mut found = Vec::new();
        if read.height == 0 || read.height >= way.floor {
            self.choose(way.clone(), &waits, &read, &mut found);
        }
        for way in &mut found {
            way.height = way.height.max(read.height);
            way.floor = way.floor.max(read.height);
            way.reads.insert(number);
        }
        found
    }

    /// Lets each of `waits` happen or not, and keeps what gives the amounts that the read shows.
    fn choose(&self, way: Way, waits: &[usize], read: &Read, found: &mut Vec<Way>) {
        let Some((first, others)) = waits.split_first() else {
            let fits = read.height == 0 || read.height >= way.floor;
            if fits && (way.posted, way.held) == (signed(read.posted), signed(read.held)) {
                found.push(way);
            }
            return;
        };
        let effect = &self.effects[*first];
        let seen = effect.at.filter(|_| read.height > 0).map(|at| at <= read.height);
        if seen != Some(false) && effect.after.is_none_or(|before| self.has(&way, before)) {
            let mut with = way.clone();
            if self.happen(&mut with, *first) {
                self.choose(with, others, read, found);
            }
        }
        // What is optional need not have happened, whatever block it would stand in.
        if seen != Some(true) || effect.optional {
            self.choose(way, others, read, found);
        }
    }

    /// In which way a read contradicts what may have happened before it.
    fn misfit(&self, number: usize, ways: &BTreeSet<Way>) -> Why {
        let read = self.reads[&number];
        if read.height > 0 && read.height < self.open_reads[&number] {
            return Why::Backwards { read: number };
        }
        let (mut least, mut most) = (i128::MAX, i128::MIN);
        for way in ways {
            let waits = self.open_effects.difference(&way.effects).map(|number| self.effects[*number].posted);
            let (less, more): (Vec<i128>, Vec<i128>) = waits.partition(|posted| *posted < 0);
            least = least.min(way.posted + less.iter().sum::<i128>());
            most = most.max(way.posted + more.iter().sum::<i128>());
        }
        match signed(read.posted) {
            posted if posted < least => Why::TooLittle { read: number },
            posted if posted > most => Why::TooMuch { read: number },
            _ => Why::NoSum { read: number },
        }
    }
}

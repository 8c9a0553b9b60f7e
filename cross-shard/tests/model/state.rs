//! The state of the model: what each group has stored about one transaction, every mail stream
//! between two groups, and history that only the properties read. Owns the data and its symmetry;
//! decides nothing (that is `rules.rs`).

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::shape::{FOLLOWER, GROUPS, Shape, VOTERS};

/// What a register says, and what a `Vote` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Decision {
    Yes,
    No,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Yes => "YES",
            Decision::No => "NO",
        })
    }
}

/// What a group has done about the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    Commit,
    Abort,
}

/// A group's block time against the transaction's deadline. It only moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Clock {
    /// Not past `valid_until`.
    Before,
    /// Past `valid_until`.
    Late,
    /// Past `valid_until + grace`.
    Gone,
}

/// One group. The first five fields are what a group stores or computes from what it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Absent is both "never voted" and "dropped": a group keeps nothing that tells them apart.
    pub register: Option<Decision>,
    /// Applied outcome, stored with the register and dropped with it.
    pub outcome: Option<Outcome>,
    /// Votes it knows, its own among them; dropped with the register.
    pub votes: [Option<Decision>; VOTERS],
    pub clock: Clock,
    /// Units in the account that this group debits.
    pub posted: i8,
    /// Holds on that account, or on what a check or write reserves.
    pub held: i8,
    pub past: Past,
}

/// What has ever happened in a group. No rule reads it, but for `Variant`s and properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Past {
    pub committed: bool,
    pub aborted: bool,
    pub dropped: bool,
    /// A register that had a value was written again.
    pub rewritten: bool,
    /// A `Vote` was taken after the register had been dropped.
    pub late_vote: bool,
}

/// One message of a stream. A credit needs no more than its stream: one debit per voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Vote(Decision),
    Credit,
}

/// All messages that a stream ever had, in order; position is sequence number. Two bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Log(u8);

impl Log {
    /// Room of a log. The rules need two, a vote and a credit; variants want more, and a step that would
    /// write beyond the room is left out.
    pub const ROOM: u8 = 3;

    pub fn len(self) -> u8 {
        (0..Self::ROOM).find(|&seq| self.code(seq) == 0).unwrap_or(Self::ROOM)
    }

    fn code(self, seq: u8) -> u8 {
        (self.0 >> (2 * seq)) & 3
    }

    /// The message at `seq`, which must be below `len`.
    pub fn get(self, seq: u8) -> Message {
        match self.code(seq) {
            1 => Message::Vote(Decision::Yes),
            2 => Message::Vote(Decision::No),
            3 => Message::Credit,
            _ => panic!("no message {seq}"),
        }
    }

    /// Appends; `None` when there is no room.
    pub fn push(&mut self, message: Message) -> Option<()> {
        let code = match message {
            Message::Vote(Decision::Yes) => 1,
            Message::Vote(Decision::No) => 2,
            Message::Credit => 3,
        };
        let seq = self.len();
        (seq < Self::ROOM).then(|| self.0 |= code << (2 * seq))
    }

    pub fn messages(self) -> impl Iterator<Item = (u8, Message)> {
        (0..self.len()).map(move |seq| (seq, self.get(seq)))
    }
}

/// The mail of one group to another. Invariant of the rules: `acked ≤ cursor ≤ log.len()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    pub log: Log,
    /// What the source knows of the cursor. Its outbox holds `log[acked..]`.
    pub acked: u8,
    /// What the destination has taken, stored with the effects.
    pub cursor: u8,
    /// Only with `Variant::CursorApart`: taken, but the cursor is not stored yet.
    pub unsaved: Option<u8>,
}

impl Stream {
    /// Up to where messages have had their effects.
    pub fn taken(&self) -> u8 {
        self.unsaved.unwrap_or(self.cursor)
    }
}

/// The whole system at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    pub groups: [Group; VOTERS],
    /// `streams[from][to]`. What is on the wire is no part of the state: see `rules.rs`.
    pub streams: [[Stream; GROUPS]; VOTERS],
    /// How often the credit of a voter's debit has been applied, counted to two.
    pub credited: [u8; VOTERS],
}

impl State {
    /// Nobody has heard of the transaction; every payer has the one unit it needs.
    pub fn initial(shape: &Shape) -> Self {
        let group = |i: usize| Group {
            register: None,
            outcome: None,
            votes: [None; VOTERS],
            clock: Clock::Before,
            posted: i8::from(shape.pays[i].is_some()),
            held: 0,
            past: Past::default(),
        };
        Self {
            groups: std::array::from_fn(group),
            streams: [[Stream::default(); GROUPS]; VOTERS],
            credited: [0; VOTERS],
        }
    }

    /// Of the states that differ from this one only by a renaming of interchangeable voters, the same
    /// one for all of them. Sorts voters by what can be said of each without naming another, then
    /// takes the least over every order of those that look alike.
    pub fn representative(&self, parts: &[usize]) -> Self {
        let n = parts.len();
        let look = |i: usize| {
            let group = &self.groups[i];
            let mut pairs = [Pair::default(); VOTERS];
            for (other, pair) in pairs[..n].iter_mut().enumerate() {
                *pair = (parts[other], group.votes[other], self.streams[i][other], self.streams[other][i]);
            }
            pairs[..n].sort_unstable();
            let Group { register, outcome, clock, posted, held, past, .. } = *group;
            let own = (register, outcome, clock, posted, held, past, self.credited[i], self.streams[i][FOLLOWER]);
            (parts[i], own, pairs)
        };
        let looks: [_; VOTERS] = std::array::from_fn(|i| if i < n { Some(look(i)) } else { None });
        let mut order: [usize; VOTERS] = std::array::from_fn(|i| i);
        order[..n].sort_by(|&a, &b| looks[a].cmp(&looks[b]));
        let mut least = self.renamed(&order);
        while next_order(&mut order[..n], |a, b| looks[a] == looks[b]) {
            least = least.min(self.renamed(&order));
        }
        least
    }

    /// Voters `i` and `j` under each other's name.
    pub fn exchanged(&self, i: usize, j: usize) -> Self {
        let mut order = std::array::from_fn(|k| k);
        order.swap(i, j);
        self.renamed(&order)
    }

    /// Voter `order[i]` becomes voter `i`.
    fn renamed(&self, order: &[usize; VOTERS]) -> Self {
        Self {
            groups: std::array::from_fn(|i| {
                let group = self.groups[order[i]];
                Group { votes: order.map(|j| group.votes[j]), ..group }
            }),
            streams: std::array::from_fn(|i| {
                let row = self.streams[order[i]];
                std::array::from_fn(|j| if j == FOLLOWER { row[FOLLOWER] } else { row[order[j]] })
            }),
            credited: order.map(|i| self.credited[i]),
        }
    }
}

/// What a voter and another have in common, by the other's part.
type Pair = (usize, Option<Decision>, Stream, Stream);

/// The next order in which every run of voters that look `alike` is permuted in itself, runs taken
/// as digits of an odometer. False when all have been seen.
fn next_order(order: &mut [usize], alike: impl Fn(usize, usize) -> bool) -> bool {
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && alike(order[start], order[end]) {
            end += 1;
        }
        if next_permutation(&mut order[start..end]) {
            return true;
        }
        start = end;
    }
    false
}

/// Lexicographic successor; at the last one, back to the first and false.
fn next_permutation(order: &mut [usize]) -> bool {
    let Some(i) = (1..order.len()).rev().find(|&i| order[i - 1] < order[i]) else {
        order.reverse();
        return false;
    };
    let j = (i..order.len()).rev().find(|&j| order[j] > order[i - 1]).expect("order[i] is one");
    order.swap(i - 1, j);
    order[i..].reverse();
    true
}

impl Hash for State {
    /// All fields in one piece, since hashing is much of the work of a search.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let vote = |vote: Option<Decision>| vote.map_or(0, |vote| 1 + vote as u8);
        let groups = self.groups.map(|group| {
            let Group { register, outcome, votes, clock, posted, held, past } = group;
            let Past { committed, aborted, dropped, rewritten, late_vote } = past;
            let flags = [committed, aborted, dropped, rewritten, late_vote];
            [
                vote(register) | outcome.map_or(0, |outcome| 1 + outcome as u8) << 2 | (clock as u8) << 4,
                votes.iter().fold(0, |all, known| all << 2 | vote(*known)),
                (posted as u8) << 4 | (held as u8 & 15),
                flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag)),
            ]
        });
        let streams = self.streams.map(|row| {
            row.map(|Stream { log, acked, cursor, unsaved }| {
                [log.0, unsaved.map_or(0, |unsaved| 1 + unsaved) << 4 | acked << 2 | cursor]
            })
        });
        hasher.write(groups.as_flattened());
        hasher.write(streams.as_flattened().as_flattened());
        hasher.write(&self.credited);
    }
}

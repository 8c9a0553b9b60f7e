//! What one run of the model covers: who votes, which slots are hidden, who pays whom, and every
//! bound that is set on the search. Owns no rule of the protocol.

use std::fmt;

/// Most voter groups of a shape.
pub const VOTERS: usize = 4;
/// Index of the group that has no slot of its own and only receives credits.
pub const FOLLOWER: usize = VOTERS;
/// Voters and the follower.
pub const GROUPS: usize = VOTERS + 1;

/// When a source learns of the cursors of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// At any time, of each stream by itself, also of an old cursor.
    Apart,
    /// Bound: at any time after all of its votes are taken, of all streams in one step.
    Together,
    /// Bound: of each stream in the step that takes the mail.
    AtOnce,
}

/// One configuration. Group numbers below `voters` vote; voter `i` debits one unit when `pays[i]` is set.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub voters: usize,
    /// Slots of which the group cannot know the content before a router brings the opening.
    pub hidden: [bool; VOTERS],
    /// The group that the debit of a voter is credited in: another voter or the follower.
    pub pays: [Option<usize>; VOTERS],
    /// Whether `valid_until` and `valid_until + grace` pass at two moments. Without, at the same one.
    pub grace: bool,
    pub acks: Acks,
    /// Whether states that differ by a renaming of interchangeable voters are one state. That is an exact
    /// reduction and no bound: no rule and no property names a voter.
    pub renaming: bool,
}

impl Shape {
    /// `voters` groups with clear slots and no payment; nothing else is bounded.
    pub fn clear(voters: usize) -> Self {
        assert!((2..=VOTERS).contains(&voters));
        Self { voters, hidden: [false; VOTERS], pays: [None; VOTERS], grace: true, acks: Acks::Apart, renaming: true }
    }

    /// The same with the slots of these voters hidden.
    pub fn hide(mut self, voters: &[usize]) -> Self {
        for &voter in voters {
            assert!(voter < self.voters);
            self.hidden[voter] = true;
        }
        self
    }

    /// The same with the slots of all voters hidden.
    pub fn hide_all(mut self) -> Self {
        self.hidden[..self.voters].fill(true);
        self
    }

    /// The same with a debit of `payer` that is credited in `payee`.
    pub fn pay(mut self, payer: usize, payee: usize) -> Self {
        assert!(payer < self.voters && payer != payee && (payee < self.voters || payee == FOLLOWER));
        self.pays[payer] = Some(payee);
        self
    }

    /// The same with a debit of every voter that is credited in the follower.
    pub fn pay_follower(mut self) -> Self {
        self.pays[..self.voters].fill(Some(FOLLOWER));
        self
    }

    /// Bound: `valid_until` and `valid_until + grace` pass in one step.
    pub fn without_grace(mut self) -> Self {
        self.grace = false;
        self
    }

    /// Bound on acknowledgements.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Without the reduction by renaming.
    pub fn by_name(mut self) -> Self {
        self.renaming = false;
        self
    }

    /// For each voter, the first one that it can be exchanged with, itself if none comes before it.
    pub fn parts(&self) -> Vec<usize> {
        let alike = |i: usize, j: usize| {
            let swap = |k: usize| {
                if k == i {
                    j
                } else if k == j {
                    i
                } else {
                    k
                }
            };
            (0..self.voters)
                .all(|k| self.hidden[swap(k)] == self.hidden[k] && self.pays[swap(k)] == self.pays[k].map(swap))
        };
        let parts: Vec<usize> = (0..self.voters).map(|i| (0..i).find(|&j| alike(i, j)).unwrap_or(i)).collect();
        assert!(parts.is_sorted(), "interchangeable voters of {self} are not side by side");
        parts
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} voters ", self.voters)?;
        for hidden in &self.hidden[..self.voters] {
            write!(f, "{}", if *hidden { 'h' } else { 'c' })?;
        }
        for (payer, payee) in self.pays.iter().enumerate() {
            match payee {
                Some(FOLLOWER) => write!(f, " {payer}→F")?,
                Some(payee) => write!(f, " {payer}→{payee}")?,
                None => {}
            }
        }
        let acks = match self.acks {
            Acks::Apart => "",
            Acks::Together => ", acks together",
            Acks::AtOnce => ", acks at once",
        };
        let grace = if self.grace { "" } else { ", no grace" };
        let names = if self.renaming { "" } else { ", by name" };
        write!(f, "{grace}{acks}{names}")
    }
}

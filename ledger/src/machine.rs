//! The contract that production and simulator both run (DESIGN §4).

use crate::ids::{ClusterId, GroupId, Height, Tick, TimeMs};
use crate::view::View;

/// Keys that a command will probably read. A hint for prefetching: a miss reads synchronously.
pub type ReadSet = Vec<Vec<u8>>;

/// Where in its chain a command is applied. All of it is computed from state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockContext {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// The block being built.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

/// The replicated half of a group: pure and total. All state is in the view; a rejection is an
/// outcome, never an error.
pub trait Machine {
    /// What is sequenced.
    type Command;
    /// What it results in.
    type Outcome;

    /// Keys worth prefetching.
    fn read_set(&self, command: &Self::Command) -> ReadSet;

    /// Applies one command.
    fn apply(&mut self, view: &mut View<'_>, at: BlockContext, command: &Self::Command) -> Self::Outcome;
}

/// The node-local half of a group: volatile, without IO.
pub trait Driver {
    /// What happens to it.
    type Input;
    /// What it asks its host to do.
    type Output;

    /// Takes one input and appends what is to be done.
    fn step(&mut self, now: Tick, input: Self::Input, out: &mut Vec<Self::Output>);
}

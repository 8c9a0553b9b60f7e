//! The phases of a channel and what each allows: two closed tables, every cell of which a test pins.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::reject::ChannelReject;

/// How far a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Phase {
    /// Its founding waits for approvals, in the beacon.
    Proposed,
    /// Its founding was approved; its group has not started.
    Approved,
    /// In use.
    Running,
    /// Read and governed, not written.
    Frozen,
    /// Finishing what is under way.
    Closing,
    /// Read only, for good.
    Closed,
    /// Its founding was rejected, withdrawn or too late.
    Abandoned,
}

/// What moves a channel from phase to phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The founding's policy holds.
    Approve,
    /// The founding was rejected, withdrawn or too late.
    Abandon,
    /// The group starts.
    Start,
    /// Freeze.
    Freeze,
    /// Thaw.
    Thaw,
    /// Begin to close.
    Close,
    /// Nothing is under way any more.
    Drain,
}

/// What somebody wants to do in a channel, as far as its phase has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// Read the ledger.
    Read,
    /// Submit a transaction.
    Write,
    /// Propose a change, approve or reject one, or join by invitation.
    Govern,
    /// Change what is one's own: keys, nodes, leaving.
    OwnAct,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Proposed, Self::Approved, Self::Running, Self::Frozen, Self::Closing, Self::Closed, Self::Abandoned];

    /// The phase after a step.
    ///
    /// # Errors
    /// [`ChannelReject`] when the step is not possible from here.
    pub fn after(self, step: Step) -> Result<Self, ChannelReject> {
        match (self, step) {
            (Self::Proposed, Step::Approve) => Ok(Self::Approved),
            (Self::Proposed | Self::Approved, Step::Abandon) => Ok(Self::Abandoned),
            (Self::Approved, Step::Start) | (Self::Frozen, Step::Thaw) => Ok(Self::Running),
            (Self::Running, Step::Freeze) => Ok(Self::Frozen),
            (Self::Running | Self::Frozen, Step::Close) => Ok(Self::Closing),
            (Self::Closing, Step::Drain) => Ok(Self::Closed),
            (Self::Closed, _) => Err(ChannelReject::Closed),
            (Self::Closing, Step::Freeze | Step::Thaw | Step::Close) => Err(ChannelReject::Closing),
            (Self::Proposed | Self::Approved | Self::Abandoned, Step::Freeze | Step::Thaw | Step::Close) => {
                Err(ChannelReject::NotRunning)
            }
            (
                Self::Proposed | Self::Approved | Self::Running | Self::Frozen | Self::Closing | Self::Abandoned,
                Step::Approve | Step::Abandon | Step::Start | Step::Freeze | Step::Thaw | Step::Drain,
            ) => Err(ChannelReject::Transition),
        }
    }

    /// Whether the phase allows a deed.
    ///
    /// # Errors
    /// [`ChannelReject`] says what the phase is instead.
    pub fn allows(self, deed: Deed) -> Result<(), ChannelReject> {
        match (self, deed) {
            (Self::Proposed | Self::Approved | Self::Abandoned, _) => Err(ChannelReject::NotRunning),
            (Self::Running, _)
            | (Self::Frozen | Self::Closing, Deed::Read | Deed::OwnAct)
            | (Self::Frozen, Deed::Govern)
            | (Self::Closed, Deed::Read) => Ok(()),
            (Self::Frozen, Deed::Write) => Err(ChannelReject::Frozen),
            (Self::Closing, Deed::Write | Deed::Govern) => Err(ChannelReject::Closing),
            (Self::Closed, Deed::Write | Deed::Govern | Deed::OwnAct) => Err(ChannelReject::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table_of_steps() {
        use ChannelReject::{Closed as C, Closing as G, NotRunning as N, Transition as T};
        use Phase::{Abandoned, Approved, Closed, Closing, Frozen, Running};
        let steps = [Step::Approve, Step::Abandon, Step::Start, Step::Freeze, Step::Thaw, Step::Close, Step::Drain];
        #[rustfmt::skip]
        let table: [[Result<Phase, ChannelReject>; 7]; 7] = [
            /* Proposed  */ [Ok(Approved), Ok(Abandoned), Err(T), Err(N), Err(N), Err(N), Err(T)],
            /* Approved  */ [Err(T), Ok(Abandoned), Ok(Running), Err(N), Err(N), Err(N), Err(T)],
            /* Running   */ [Err(T), Err(T), Err(T), Ok(Frozen), Err(T), Ok(Closing), Err(T)],
            /* Frozen    */ [Err(T), Err(T), Err(T), Err(T), Ok(Running), Ok(Closing), Err(T)],
            /* Closing   */ [Err(T), Err(T), Err(T), Err(G), Err(G), Err(G), Ok(Closed)],
            /* Closed    */ [Err(C), Err(C), Err(C), Err(C), Err(C), Err(C), Err(C)],
            /* Abandoned */ [Err(T), Err(T), Err(T), Err(N), Err(N), Err(N), Err(T)],
        ];
        for (phase, row) in Phase::ALL.into_iter().zip(table) {
            for (step, cell) in steps.into_iter().zip(row) {
                assert_eq!(phase.after(step), cell, "{phase:?} × {step:?}");
            }
        }
    }

    #[test]
    fn every_cell_of_the_table_of_deeds() {
        use ChannelReject::{Closed as C, Closing as G, Frozen as F, NotRunning as N};
        let deeds = [Deed::Read, Deed::Write, Deed::Govern, Deed::OwnAct];
        #[rustfmt::skip]
        let table: [[Result<(), ChannelReject>; 4]; 7] = [
            /* Proposed  */ [Err(N); 4],
            /* Approved  */ [Err(N); 4],
            /* Running   */ [Ok(()); 4],
            /* Frozen    */ [Ok(()), Err(F), Ok(()), Ok(())],
            /* Closing   */ [Ok(()), Err(G), Err(G), Ok(())],
            /* Closed    */ [Ok(()), Err(C), Err(C), Err(C)],
            /* Abandoned */ [Err(N); 4],
        ];
        for (phase, row) in Phase::ALL.into_iter().zip(table) {
            for (deed, cell) in deeds.into_iter().zip(row) {
                assert_eq!(phase.allows(deed), cell, "{phase:?} × {deed:?}");
            }
        }
    }
}

//! Whether a change of seats leaves a committee able to decide: pure arithmetic over how many seats
//! each organisation has.
//!
//! The failure that is allowed for is that of one node. A channel whose committee could not bear
//! one before, such as one of two nodes, may take in members; it cannot lose a seat.

use std::collections::BTreeMap;

use ledger::committee::{Committee, Engine};
use ledger::ids::OrgId;

use crate::reject::{ChannelReject, Refusal};

/// How many seats each organisation has, and how many decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    /// By organisation.
    pub by_org: BTreeMap<OrgId, usize>,
    /// Seats that decide.
    pub threshold: usize,
}

/// Why a change of seats is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumLoss {
    /// The seats that stay could not decide, not even on the new committee.
    #[error("{left} seats would be left of {of}, and {needed} decide")]
    Now {
        /// Seats that stay.
        left: usize,
        /// Seats before.
        of: usize,
        /// Seats that decide now.
        needed: usize,
    },
    /// The seats that stay could decide, but not with one less.
    #[error("{left} seats would be left, of which {needed} decide, so that none may fail")]
    AfterOneFailure {
        /// Seats that stay.
        left: usize,
        /// Seats that would decide.
        needed: usize,
    },
}

impl QuorumLoss {
    /// The rejection that this is the reason of.
    #[must_use]
    pub fn reject(&self) -> ChannelReject {
        match self {
            Self::Now { .. } => ChannelReject::QuorumLostNow,
            Self::AfterOneFailure { .. } => ChannelReject::QuorumLostNext,
        }
    }
}

impl From<QuorumLoss> for Refusal {
    fn from(loss: QuorumLoss) -> Self {
        Self::because(loss.reject(), loss)
    }
}

impl Seats {
    /// The seats of a committee.
    #[must_use]
    pub fn of(committee: &Committee) -> Self {
        let mut by_org = BTreeMap::new();
        for member in &committee.members {
            *by_org.entry(member.org).or_default() += 1;
        }
        Self { by_org, threshold: usize::from(committee.threshold) }
    }

    /// Without the seats of organisations that are members no more: they have them until the next committee is in
    /// force, and nothing that the channel decides is sent to them any more, so that they decide nothing.
    #[must_use]
    pub fn of_members(mut self, is_member: impl Fn(OrgId) -> bool) -> Self {
        self.by_org.retain(|org, _| is_member(*org));
        self
    }

    /// All seats.
    #[must_use]
    pub fn total(&self) -> usize {
        self.by_org.values().sum()
    }

    /// Seats that may fail while the rest decides.
    #[must_use]
    pub fn tolerance(&self) -> usize {
        self.total().saturating_sub(self.threshold)
    }

    /// Whether `lost` seats of an organisation may go. The ones that stay must be enough now, by the
    /// present threshold, because they have to decide on the committee without the others; and in
    /// that committee, by its own threshold, one more seat must be able to fail. Losing none is
    /// never refused.
    ///
    /// # Errors
    /// [`QuorumLoss`].
    pub fn may_lose(&self, org: OrgId, lost: usize, engine: Engine) -> Result<(), QuorumLoss> {
        let lost = lost.min(self.by_org.get(&org).copied().unwrap_or(0));
        if lost == 0 {
            return Ok(());
        }
        let of = self.total();
        let left = of - lost;
        if left < self.threshold {
            return Err(QuorumLoss::Now { left, of, needed: self.threshold });
        }
        let needed = engine.threshold(left);
        if left < needed + 1 {
            return Err(QuorumLoss::AfterOneFailure { left, needed });
        }
        Ok(())
    }

    /// Whether an organisation may go with all its seats.
    ///
    /// # Errors
    /// [`QuorumLoss`].
    pub fn may_lose_org(&self, org: OrgId, engine: Engine) -> Result<(), QuorumLoss> {
        self.may_lose(org, usize::MAX, engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(counts: &[usize], engine: Engine) -> Seats {
        let by_org: BTreeMap<OrgId, usize> = counts.iter().enumerate().map(|(at, n)| (OrgId(at as u16), *n)).collect();
        let total = by_org.values().sum();
        Seats { by_org, threshold: engine.threshold(total) }
    }

    #[test]
    fn thresholds() {
        let all = |engine: Engine| (1..=10).map(|n| engine.threshold(n)).collect::<Vec<_>>();
        assert_eq!(all(Engine::Raft), [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
        assert_eq!(all(Engine::Bft), [1, 2, 3, 3, 4, 5, 5, 6, 7, 7]);
    }

    #[test]
    fn who_may_go() {
        use QuorumLoss::{AfterOneFailure, Now};
        for (counts, engine, expected) in [
            (&[1][..], Engine::Raft, Err(Now { left: 0, of: 1, needed: 1 })),
            (&[1, 1], Engine::Raft, Err(Now { left: 1, of: 2, needed: 2 })),
            (&[1, 1, 1], Engine::Raft, Err(AfterOneFailure { left: 2, needed: 2 })),
            (&[1, 1, 1, 1], Engine::Raft, Ok(())),
            (&[2, 1, 1], Engine::Raft, Err(Now { left: 2, of: 4, needed: 3 })),
            (&[2, 2, 1], Engine::Raft, Ok(())),
            (&[3, 1, 1], Engine::Raft, Err(Now { left: 2, of: 5, needed: 3 })),
            (&[0, 1, 1], Engine::Raft, Ok(())),
            (&[1, 1, 1, 1], Engine::Bft, Err(AfterOneFailure { left: 3, needed: 3 })),
            (&[1, 1, 1, 1, 1], Engine::Bft, Ok(())),
            (&[2, 1, 1, 1, 1, 1], Engine::Bft, Ok(())),
        ] {
            assert_eq!(seats(counts, engine).may_lose_org(OrgId(0), engine), expected, "{counts:?} {engine:?}");
        }
        assert_eq!(seats(&[1, 1], Engine::Raft).may_lose_org(OrgId(9), Engine::Raft), Ok(()), "has no seat");
        assert_eq!(seats(&[3, 1, 1], Engine::Raft).may_lose(OrgId(0), 2, Engine::Raft), Ok(()));
        assert_eq!(seats(&[3, 1], Engine::Raft).tolerance(), 1);
    }

    #[test]
    fn who_has_gone_already_does_not_count() {
        // Seven seats, of which four decide until there are fewer.
        let five_and_two = || seats(&[2, 2, 1, 1, 1], Engine::Raft);
        assert_eq!(five_and_two().may_lose_org(OrgId(4), Engine::Raft), Ok(()));
        let after_one = five_and_two().of_members(|org| org != OrgId(0));
        assert_eq!((after_one.total(), after_one.threshold), (5, 4));
        assert_eq!(after_one.may_lose_org(OrgId(4), Engine::Raft), Ok(()));
        let after_two = after_one.of_members(|org| org != OrgId(4));
        let lost = QuorumLoss::Now { left: 3, of: 4, needed: 4 };
        assert_eq!(after_two.may_lose_org(OrgId(3), Engine::Raft), Err(lost));
        assert_eq!(after_two.may_lose(OrgId(1), 1, Engine::Raft), Err(lost));
    }
}

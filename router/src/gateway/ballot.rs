//! What several groups say about one transaction, and what follows from it.
//!
//! Decided means: YES from every group, or NO from one. Votes are written once, so what is decided
//! stays so. A refusal without a trace is the fate only while nobody can have voted: as soon as one
//! group has, its vote goes to the others by mail, and they vote, too, whatever they answered to the
//! hand-over.

use bytes::Bytes;
use ledger::{GroupId, NodeId, Outcome, Receipt, Reject};
use proto::v1;
use tokio::time::Instant;

use super::flight::HandOver;
use crate::plan::Part;

/// What a group has said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// Nothing since the transaction was handed to it. It may have voted.
    Nothing,
    /// That it votes when another group has.
    Waits,
    /// Its vote.
    Vote(v1::Vote),
    /// That it does not take the transaction like this. It has not voted.
    Refused(v1::Refusal),
}

/// One of the groups that vote.
pub(super) struct Voter {
    pub(super) hand_over: HandOver,
    /// What it is given, where that is not what came.
    own: Option<Bytes>,
    said: Said,
    /// The outcome is applied there, and everything it mailed has been taken.
    pub(super) applied: bool,
}

impl Voter {
    fn new(part: Part, now: Instant) -> Self {
        let own = part.own.map(Bytes::from);
        Self { hand_over: HandOver::to(part.group, now), own, said: Said::Nothing, applied: false }
    }
}

/// What follows from what has been said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Conclusion {
    /// Nothing yet.
    Open,
    /// These votes decide.
    Decided(Vec<v1::Vote>),
    /// Nobody has voted and nobody will: this group's refusal is the fate.
    Refused(GroupId, v1::Refusal),
}

/// The groups that vote on one transaction.
pub(super) struct Ballot {
    /// Sorted by group.
    pub(super) voters: Vec<Voter>,
    /// The NO of a group that is not among the voters by this router's layout.
    stranger: Option<v1::Vote>,
    /// A group has committed, so all have voted YES.
    committed: bool,
    decided: Option<Vec<v1::Vote>>,
}

impl Ballot {
    pub(super) fn new(parts: Vec<Part>, now: Instant) -> Self {
        let voters = parts.into_iter().map(|part| Voter::new(part, now)).collect();
        Self { voters, stranger: None, committed: false, decided: None }
    }

    pub(super) fn voter(&mut self, group: GroupId) -> Option<&mut Voter> {
        let at = self.voters.binary_search_by_key(&group, |voter| voter.hand_over.group).ok()?;
        Some(&mut self.voters[at])
    }

    /// Notes that it goes to a node of this group; `None` when that has nothing left to say.
    pub(super) fn sent(&mut self, group: GroupId, node: NodeId, now: Instant) -> Option<()> {
        let voter = self.voter(group).filter(|voter| !voter.applied)?;
        (voter.hand_over.node, voter.hand_over.sent_at) = (Some(node), now);
        if let Said::Refused(_) = voter.said {
            voter.said = Said::Nothing;
        }
        Some(())
    }

    /// What a group is given, where that is not what came.
    pub(super) fn own(&self, group: GroupId) -> Option<&Bytes> {
        let at = self.voters.binary_search_by_key(&group, |voter| voter.hand_over.group).ok()?;
        self.voters[at].own.as_ref()
    }

    /// Takes what each group is given now; `before` is what came at first. Returns the groups that
    /// get something else and have not voted on what they had.
    pub(super) fn give(&mut self, parts: Vec<Part>, before: &Bytes) -> Vec<GroupId> {
        let mut changed = Vec::new();
        for part in parts {
            let Some(voter) = self.voter(part.group) else { continue };
            let own = part.own.map(Bytes::from);
            let differs = own.as_ref().is_some_and(|own| own != voter.own.as_ref().unwrap_or(before));
            if differs && !matches!(voter.said, Said::Vote(_)) {
                changed.push(part.group);
            }
            voter.own = own;
        }
        changed
    }

    /// Goes by a new layout: what groups that stay have said still counts.
    pub(super) fn adopt(&mut self, parts: Vec<Part>, now: Instant) {
        let mut before = std::mem::take(&mut self.voters);
        let kept = |part: Part| match before.iter().position(|voter| voter.hand_over.group == part.group) {
            Some(at) => Voter { own: part.own.map(Bytes::from), ..before.swap_remove(at) },
            None => Voter::new(part, now),
        };
        self.voters = parts.into_iter().map(kept).collect();
    }

    /// A group voted. A later word of the same group adds nothing but the block.
    pub(super) fn vote(&mut self, vote: v1::Vote) {
        match self.voter(GroupId(vote.group)) {
            Some(voter) => match &mut voter.said {
                Said::Vote(known) if known.height != 0 || known.yes != vote.yes => {}
                said => *said = Said::Vote(vote),
            },
            None if !vote.yes => {
                self.stranger.get_or_insert(vote);
            }
            None => {}
        }
    }

    /// A group that only votes after others has taken notice.
    pub(super) fn waits(&mut self, group: GroupId) {
        if let Some(voter) = self.voter(group)
            && !matches!(voter.said, Said::Vote(_))
        {
            voter.said = Said::Waits;
        }
    }

    /// A group does not take the transaction.
    pub(super) fn refused(&mut self, group: GroupId, refusal: v1::Refusal) {
        if let Some(voter) = self.voter(group)
            && !matches!(voter.said, Said::Vote(_))
        {
            voter.said = match refusal.reject() {
                // A group that cannot read what it knows has said nothing.
                Some(Reject::Storage) => Said::Nothing,
                // A queue was full now; what was sent before may have been taken.
                Some(Reject::Busy) if voter.hand_over.open => Said::Nothing,
                _ => Said::Refused(refusal),
            };
        }
    }

    /// A group has its receipt, which tells the outcome everywhere.
    pub(super) fn receipt(&mut self, receipt: &Receipt) {
        match &receipt.outcome {
            Outcome::Committed { .. } => self.committed = true,
            Outcome::Rejected(reason) => {
                self.vote(v1::Vote::of(receipt.group, Some(*reason), Some(receipt.height)));
            }
            Outcome::Aborted { group, reason } => {
                let reason = if *reason == Reject::RefusedElsewhere { self.told_here(*group) } else { *reason };
                self.vote(v1::Vote::of(*group, Some(reason), None));
            }
        }
    }

    /// Why a group said no, when another ledger's receipt does not tell: it may have refused the hand-over for it,
    /// and has told whoever sends this over this router.
    fn told_here(&mut self, group: GroupId) -> Reject {
        let refusal = self.voter(group).and_then(|voter| match &voter.said {
            Said::Refused(refusal) => refusal.reject(),
            Said::Nothing | Said::Waits | Said::Vote(_) => None,
        });
        refusal.filter(|reject| !reject.retryable()).unwrap_or(Reject::RefusedElsewhere)
    }

    /// A group has applied the outcome, and everything it mailed has been taken. Returns whether all
    /// have.
    pub(super) fn applied(&mut self, group: GroupId) -> bool {
        if let Some(voter) = self.voter(group) {
            voter.applied = true;
        }
        self.decided.is_some() && self.voters.iter().all(|voter| voter.applied)
    }

    /// The votes that decide, once [`Ballot::decide`] was told them.
    pub(super) fn decided(&self) -> Option<&[v1::Vote]> {
        self.decided.as_deref()
    }

    /// Keeps the votes that decide. Returns groups that have to be asked again, since they stopped
    /// telling when they refused.
    pub(super) fn decide(&mut self, votes: Vec<v1::Vote>) -> Vec<GroupId> {
        self.decided = Some(votes);
        let refused = self.voters.iter().filter(|voter| matches!(voter.said, Said::Refused(_)));
        refused.map(|voter| voter.hand_over.group).collect()
    }

    pub(super) fn conclusion(&self) -> Conclusion {
        let said = || self.voters.iter().map(|voter| &voter.said);
        let vote_of = |voter: &Voter| match &voter.said {
            Said::Vote(vote) => Some(*vote),
            Said::Nothing | Said::Waits | Said::Refused(_) => {
                self.committed.then(|| v1::Vote::of(voter.hand_over.group, None, None))
            }
        };
        let votes: Vec<v1::Vote> = self.voters.iter().filter_map(vote_of).chain(self.stranger).collect();
        if votes.iter().any(|vote| !vote.yes) || votes.len() == self.voters.len() {
            return Conclusion::Decided(votes);
        }
        if !votes.is_empty() || said().any(|said| *said == Said::Nothing) {
            return Conclusion::Open;
        }
        self.refusal().map_or(Conclusion::Open, |(group, refusal)| Conclusion::Refused(group, refusal))
    }

    /// The refusal to tell, when there are several: one that knows nothing of the transaction leaves
    /// more open than all others, one that its transaction can never get over ends it, whatever the others
    /// lack, and one that stays is worth more than one that passes.
    fn refusal(&self) -> Option<(GroupId, v1::Refusal)> {
        let rank = |refusal: &v1::Refusal| match refusal.reject() {
            Some(Reject::Busy) => 0,
            Some(Reject::Expired) => 1,
            Some(reject) if reject.retryable() => 3,
            Some(_) | None => 2,
        };
        let refusals = self.refusals();
        refusals.min_by_key(|(_, refusal)| rank(refusal)).map(|(group, refusal)| (group, refusal.clone()))
    }

    fn refusals(&self) -> impl Iterator<Item = (GroupId, &v1::Refusal)> {
        self.voters.iter().filter_map(|voter| match &voter.said {
            Said::Refused(refusal) => Some((voter.hand_over.group, refusal)),
            Said::Nothing | Said::Waits | Said::Vote(_) => None,
        })
    }

    /// What is known while nothing is decided, in words.
    pub(super) fn in_words(&self) -> String {
        let of = |voter: &Voter| {
            let group = voter.hand_over.group;
            match &voter.said {
                Said::Nothing => format!("{group} has not answered"),
                Said::Waits => format!("{group} waits for another vote"),
                Said::Vote(_) => format!("{group} has voted yes"),
                Said::Refused(refusal) => format!("{group} refused: {}", refusal.code),
            }
        };
        self.voters.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
#[path = "ballot_tests.rs"]
mod tests;

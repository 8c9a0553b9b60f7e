//! What several groups say about one transaction, and what follows from it.
//!
//! Decided means: YES from every group, or NO from one. Votes are written once, so what is decided
//! stays so. A refusal without a trace is the fate only while nobody can have voted: as soon as one
//! group has, its vote goes to the others by mail, and they vote, too, whatever they answered to the
//! hand-over.
//!
//! Shards are cut and joined meanwhile. What a shard has voted before it ended stands for those that came from it, as far
//! as they speak for nothing else; whoever has not been heard is asked.

use bytes::Bytes;
use ledger::{GroupId, Layout, NodeId, Outcome, Receipt, Reject};
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

    /// One that came from these, all of which were voters until they ended. Between them they speak for all that it
    /// speaks for.
    fn after(part: Part, ended: &[&Self], now: Instant) -> Self {
        let mut voter = Self::new(part, now);
        if ended.is_empty() {
            return voter;
        }
        voter.hand_over.open = ended.iter().any(|before| before.hand_over.unanswered());
        voter.applied = ended.iter().all(|before| before.applied);
        let votes = ended.iter().map(|before| before.vote().filter(|vote| vote.yes));
        if let Some(votes) = votes.collect::<Option<Vec<&v1::Vote>>>() {
            // Heights go on where a shard is cut; where two are joined, each had a block of its own.
            let height = if let [one] = votes[..] { one.height } else { 0 };
            let group = voter.hand_over.group.0;
            voter.said = Said::Vote(v1::Vote { group, yes: true, reason: 0, height });
        }
        voter
    }

    fn vote(&self) -> Option<&v1::Vote> {
        match &self.said {
            Said::Vote(vote) => Some(vote),
            Said::Nothing | Said::Waits | Said::Refused(_) => None,
        }
    }

    /// It voted. A later word adds nothing but the block.
    fn hear(&mut self, vote: v1::Vote) {
        match &mut self.said {
            Said::Vote(known) if known.height != 0 || known.yes != vote.yes => {}
            said => *said = Said::Vote(vote),
        }
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
    /// The NO of a group that is not among the voters by this router's layout: it is behind, or the group has ended.
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

    /// Goes by a new layout: what groups that stay have said still counts, and what one that has ended has voted counts
    /// for those that came from it.
    pub(super) fn adopt(&mut self, parts: Vec<Part>, layout: &Layout, now: Instant) {
        let mut before = std::mem::take(&mut self.voters);
        let stays = |voter: &&Voter| parts.iter().any(|part| part.group == voter.hand_over.group);
        let ended = before.iter().filter(|voter| !stays(voter));
        // A NO of one that has ended stays named.
        if let Some(no) = ended.filter_map(Voter::vote).find(|vote| !vote.yes) {
            self.stranger.get_or_insert(*no);
        }
        let kept = |part: Part| match before.iter().position(|voter| voter.hand_over.group == part.group) {
            Some(at) => Voter { own: part.own.map(Bytes::from), ..before.swap_remove(at) },
            None => {
                let became = |voter: &&Voter| layout.successors(voter.hand_over.group).contains(&part.group);
                let ended: Vec<&Voter> = before.iter().filter(became).collect();
                Voter::after(part, &ended, now)
            }
        };
        self.voters = parts.into_iter().map(kept).collect();
    }

    /// A group voted. A later word of the same group adds nothing but the block.
    pub(super) fn vote(&mut self, vote: v1::Vote, layout: &Layout) {
        match self.voter(GroupId(vote.group)) {
            Some(voter) => voter.hear(vote),
            None if !vote.yes => {
                self.stranger.get_or_insert(vote);
            }
            None => self.inherit(vote, layout),
        }
    }

    /// The YES of a group that is no voter, perhaps since it has ended: it stands for those that own nothing but what it
    /// owned. One that it was joined into speaks for more.
    fn inherit(&mut self, vote: v1::Vote, layout: &Layout) {
        let ended = GroupId(vote.group);
        let Some(owned) = layout.prefix_ever(ended).filter(|_| layout.retired(ended)) else { return };
        for group in layout.successors(ended) {
            let within = layout.prefix_of(group).is_some_and(|prefix| owned.holds(&prefix));
            if let Some(voter) = self.voter(group).filter(|_| within) {
                voter.hear(v1::Vote { group: group.0, ..vote });
            }
        }
    }

    /// The voter that a node speaks for when it shows the word of a group: that group, or one that came from it and is
    /// with that node.
    pub(super) fn speaker(&self, word_of: GroupId, node: NodeId, layout: &Layout) -> GroupId {
        let here = self.voters.iter().filter(|voter| voter.hand_over.node == Some(node));
        let mut groups = here.map(|voter| voter.hand_over.group);
        groups.find(|group| layout.descends(*group, word_of)).unwrap_or(word_of)
    }

    /// Whether the voter that has shown the word of a shard that has ended need not say when its credits are applied: what
    /// that shard had mailed, its heir passes on, and tells, where that is a voter.
    pub(super) fn heir_tells(&self, group: GroupId, word_of: GroupId, layout: &Layout) -> bool {
        let heir = layout.heir(word_of);
        group != heir && layout.retired(word_of) && self.voters.iter().any(|voter| voter.hand_over.group == heir)
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

    /// A group has its receipt, or that of one that it came from, which tells the outcome everywhere.
    pub(super) fn receipt(&mut self, receipt: &Receipt, layout: &Layout) {
        match &receipt.outcome {
            Outcome::Committed { .. } => self.committed = true,
            Outcome::Rejected(reason) => {
                self.vote(v1::Vote::of(receipt.group, Some(*reason), Some(receipt.height)), layout);
            }
            Outcome::Aborted { group, reason } => {
                let reason = if *reason == Reject::RefusedElsewhere { self.told_here(*group) } else { *reason };
                self.vote(v1::Vote::of(*group, Some(reason), None), layout);
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
        let says_why = |reject: &Reject| !reject.retryable() && *reject != Reject::ChannelUntold;
        refusal.filter(says_why).unwrap_or(Reject::RefusedElsewhere)
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

    /// The refusal to tell, when there are several: one that knows nothing of the transaction, or tells nothing of it, leaves
    /// more open than all others, one that its transaction can never get over ends it, whatever the others
    /// lack, and one that stays is worth more than one that passes.
    fn refusal(&self) -> Option<(GroupId, v1::Refusal)> {
        let rank = |refusal: &v1::Refusal| match refusal.reject() {
            Some(Reject::Busy | Reject::ChannelUntold) => 0,
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

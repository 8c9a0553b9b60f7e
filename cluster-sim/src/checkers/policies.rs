//! The governance of channels: a change is in force only if those whom its policy asks have approved
//! it, by signed commands that this checker counts itself; what an organisation sends after it was
//! excluded does nothing; and what the disks say of members, policies and phase follows from the
//! commands alone.

use std::collections::{BTreeMap, BTreeSet};

use channel::state;
use channel::{Change, Command, Outcome, Phase, Policy, ProposalState, Quorum, Role, SignedCommand, Subject, Target};
use ledger::crypto;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, OrgId, TimeMs};
use ledger::schema;
use ledger::view::View;
use shard_node::core::applied::AppliedRecord;

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state::{KvState, load};

struct Proposed {
    change: Change,
    by: OrgId,
    until: TimeMs,
    approved: BTreeSet<OrgId>,
    ended: bool,
}

/// A channel as its commands have made it.
struct Book {
    height: u64,
    members: BTreeSet<OrgId>,
    invited: BTreeSet<OrgId>,
    policies: BTreeMap<Subject, Policy>,
    phase: Phase,
    proposals: BTreeMap<Hash32, Proposed>,
    /// Commands that were executed, and what they did.
    done: BTreeMap<Hash32, Outcome>,
}

impl Book {
    fn new(facts: &Facts) -> Self {
        let policy = Policy::members(Quorum::Majority, Role::Admin);
        Self {
            height: 0,
            members: facts.genesis.orgs.iter().map(|org| org.id).collect(),
            invited: BTreeSet::new(),
            policies: Subject::ALL.into_iter().map(|subject| (subject, policy.clone())).collect(),
            phase: Phase::Running,
            proposals: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    /// How many of so many members a policy asks; only policies of the load are known.
    fn asks(policy: &Policy, members: usize) -> Option<usize> {
        let of = |quorum| *policy == Policy::members(quorum, Role::Admin);
        if of(Quorum::Any) {
            Some(1)
        } else if of(Quorum::Majority) {
            Some(members / 2 + 1)
        } else if of(Quorum::All) {
            Some(members)
        } else {
            None
        }
    }

    fn exclude(&mut self, org: OrgId) {
        self.members.remove(&org);
        for proposed in self.proposals.values_mut() {
            proposed.approved.remove(&org);
            proposed.ended |= proposed.by == org;
        }
        self.supersede(&[Target::Member(org), Target::Nodes(org), Target::Keys(org), Target::Audit(org)]);
    }

    fn supersede(&mut self, targets: &[Target]) {
        for proposed in self.proposals.values_mut() {
            proposed.ended |= targets.contains(&proposed.change.target());
        }
    }

    /// A proposal came into force: whether it might, and what follows.
    fn decide(&mut self, id: &Hash32, now: TimeMs) -> Result<(), String> {
        let proposed = self.proposals.get(id).ok_or("nobody proposed it")?;
        let policy = self.policies.get(&proposed.change.subject()).ok_or("no policy is about it")?;
        let count = proposed.approved.intersection(&self.members).count();
        let asked = Self::asks(policy, self.members.len()).ok_or("its policy was never set")?;
        if count < asked || proposed.ended || now > proposed.until {
            let ended = proposed.ended;
            return Err(format!("{count} have approved, {policy} asks {asked}, ended before: {ended}"));
        }
        let change = proposed.change.clone();
        match &change {
            Change::Remove { org } => self.exclude(*org),
            Change::Invite { org, .. } => {
                self.invited.insert(*org);
            }
            Change::Policy { subject, policy } => {
                self.policies.insert(*subject, policy.clone());
            }
            Change::Freeze => self.phase = Phase::Frozen,
            Change::Thaw => self.phase = Phase::Running,
            Change::Close => self.phase = Phase::Closing,
            Change::Anchors { .. }
            | Change::PermitAsset { .. }
            | Change::GrantAudit(_)
            | Change::RevokeAudit { .. }
            | Change::RevokeKey { .. } => {}
        }
        self.supersede(&[change.target()]);
        Ok(())
    }

    fn act(&mut self, facts: &Facts, signed: &SignedCommand, outcome: Outcome, now: TimeMs) -> Result<(), String> {
        let digest = signed.digest();
        if let Some(first) = self.done.insert(digest, outcome) {
            return if first == outcome { Ok(()) } else { Err(format!("it did {first:?} the first time")) };
        }
        let org = signed.org;
        let admin = facts.genesis.orgs.iter().find(|info| info.id == org).map(|info| info.admin_key);
        if admin != Some(signed.key) || crypto::verify(&signed.key, &digest, &signed.signature).is_err() {
            return Err("its signature is not that of the organisation".to_owned());
        }
        let act: Command = borsh::from_slice(&signed.body).map_err(|error| error.to_string())?;
        let guest = matches!(act, Command::Join { .. } | Command::Decline) && self.invited.contains(&org);
        if !self.members.contains(&org) && !guest {
            return Err("the organisation is no member".to_owned());
        }
        match (&act, outcome) {
            (Command::Propose { change, until_ms }, Outcome::Proposal { id, .. }) => {
                let approved = BTreeSet::from([org]);
                let proposed = Proposed { change: change.clone(), by: org, until: *until_ms, approved, ended: false };
                self.proposals.insert(id, proposed);
            }
            (Command::Approve { .. }, Outcome::Proposal { id, .. }) => {
                let proposed = self.proposals.get_mut(&id).ok_or("nobody proposed it")?;
                proposed.approved.insert(org);
            }
            (Command::Reject { .. } | Command::Withdraw { .. }, Outcome::Proposal { id, state }) => {
                let proposed = self.proposals.get_mut(&id).ok_or("nobody proposed it")?;
                proposed.ended |= state != ProposalState::Open;
            }
            (Command::Join { .. }, _) => {
                self.invited.remove(&org);
                self.members.insert(org);
                self.supersede(&[Target::Member(org), Target::Nodes(org), Target::Keys(org)]);
            }
            (Command::Decline, _) => {
                self.invited.remove(&org);
                self.supersede(&[Target::Member(org)]);
            }
            (Command::Leave, _) => self.exclude(org),
            _ => {}
        }
        match outcome {
            Outcome::Proposal { id, state: ProposalState::Applied } => self.decide(&id, now),
            _ => Ok(()),
        }
    }
}

/// The books of all channels.
#[derive(Default)]
pub struct Policies {
    books: BTreeMap<GroupId, Book>,
}

impl Policies {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let book = self.books.entry(block.group).or_insert_with(|| Book::new(facts));
        book.height = block.header.height.0;
        for (signed, outcome) in &block.governed {
            let Some(outcome) = outcome else { continue };
            if let Err(why) = book.act(facts, signed, *outcome, block.header.time_ms) {
                let (group, height) = (block.group, block.header.height);
                found.push(format!("{group} carried out a command of {} at {height}: {why}", signed.org));
            }
        }
    }

    fn compare(&self, replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let Some(book) = self.books.get(&replica.group) else { return Ok(()) };
        let applied: AppliedRecord = load(replica.kv, &schema::applied())?;
        if applied.height.0 != book.height {
            return Ok(());
        }
        let reader = KvState { kv: replica.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let members: BTreeSet<OrgId> = state::members(&mut view).iter().map(|member| member.org).collect();
        let phase = state::channel(&mut view).map(|channel| channel.phase);
        if members != book.members || phase != Some(book.phase) {
            let expected = (&book.members, book.phase);
            found.push(format!("{} has {members:?} and is {phase:?}, not {expected:?}", replica.group));
        }
        for (subject, policy) in &book.policies {
            let there = state::policy(&mut view, *subject);
            if there.as_ref() != Some(policy) {
                found.push(format!("the policy of {subject:?} in {} is {there:?}, not {policy}", replica.group));
            }
        }
        Ok(())
    }
}

impl Checker for Policies {
    fn name(&self) -> &'static str {
        "policies"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let (Seen::Block(block), true) = (seen, first)
            && block.group.kind() == Some(GroupKind::Channel)
        {
            self.block(facts, block, found);
        }
    }

    fn audit(&mut self, _: &Facts, _: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas.iter().filter(|replica| replica.group.kind() == Some(GroupKind::Channel)) {
            if let Err(error) = self.compare(replica, found) {
                found.push(error);
            }
        }
    }
}

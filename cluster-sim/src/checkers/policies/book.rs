//! A channel as its commands and the beacon's mail have made it, counted by the checker itself.

use std::collections::{BTreeMap, BTreeSet};

use channel::state::MemberRecord;
use channel::{
    Change, Charter, Command, Outcome, Phase, Policy, ProposalState, Quorum, Role, SignedCommand, Subject, Target,
};
use cross_shard::RegistryUpdate;
use ledger::committee::Engine;
use ledger::crypto::{self, PublicKey};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use sha2::{Digest, Sha256};

use crate::checkers::{Facts, electors};

struct Proposed {
    change: Change,
    by: OrgId,
    until: TimeMs,
    /// Who has approved, by which key.
    approved: BTreeMap<OrgId, PublicKey>,
    ended: bool,
}

/// A member by the book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub keys: BTreeMap<PublicKey, Role>,
    pub nodes: BTreeSet<NodeId>,
    pub anchors: BTreeSet<NodeId>,
}

/// The book of one channel.
pub(super) struct Book {
    pub height: u64,
    pub members: BTreeMap<OrgId, Member>,
    pub policies: BTreeMap<Subject, Policy>,
    /// The hash that the founding promised, until the channel has what it is of or its members have set a policy.
    pub promised: Option<Hash32>,
    pub phase: Phase,
    /// What it is to be ordered by.
    pub engine: Engine,
    /// The blocks in which memberships have ended, by organisation.
    pub ended: BTreeMap<OrgId, Vec<u64>>,
    /// Keys and certificates that count no more.
    pub revoked: BTreeSet<(OrgId, Hash32)>,
    invited: BTreeSet<OrgId>,
    proposals: BTreeMap<Hash32, Proposed>,
    /// Commands that were executed, and what they did.
    done: BTreeMap<Hash32, Outcome>,
    /// Admin keys as the registry has them, as far as the channel has heard.
    registry: BTreeMap<OrgId, PublicKey>,
    /// What comes next in the beacon's stream.
    told: u64,
}

/// What names a key where certificates are named by the hash of theirs.
fn credential(key: &PublicKey) -> Hash32 {
    Hash32(Sha256::digest(key.0).into())
}

impl Book {
    pub fn new(facts: &Facts, group: GroupId) -> Self {
        let genesis = &facts.genesis;
        let policy = Policy::members(Quorum::Majority, Role::Admin);
        let seats = genesis.committee(group).map_or(&[][..], |committee| &committee.members[..]);
        let member = |org: &ledger::genesis::OrgInfo| {
            let nodes: BTreeSet<NodeId> =
                seats.iter().filter(|seat| seat.org == org.id).map(|seat| seat.node).collect();
            let anchors = nodes.iter().take(1).copied().collect();
            (org.id, Member { keys: BTreeMap::from([(org.admin_key, Role::Admin)]), nodes, anchors })
        };
        Self {
            height: 0,
            members: genesis.orgs.iter().map(member).collect(),
            policies: Subject::ALL.into_iter().map(|subject| (subject, policy.clone())).collect(),
            promised: None,
            phase: Phase::Running,
            engine: genesis.committee(group).map_or(Engine::Raft, |committee| committee.engine),
            ended: BTreeMap::new(),
            revoked: BTreeSet::new(),
            invited: BTreeSet::new(),
            proposals: BTreeMap::new(),
            done: BTreeMap::new(),
            registry: genesis.orgs.iter().map(|org| (org.id, org.admin_key)).collect(),
            told: 0,
        }
    }

    /// The book of a channel that was founded while the cluster ran. What the registry says it hears later.
    pub fn of(charter: &Charter) -> Self {
        let member = |record: &MemberRecord| Member {
            keys: record.keys.iter().map(|key| (key.key, key.role)).collect(),
            nodes: record.nodes.iter().map(|node| node.node).collect(),
            anchors: record.anchors.iter().copied().collect(),
        };
        Self {
            height: 0,
            members: charter.members.iter().map(|record| (record.org, member(record))).collect(),
            policies: charter.policies.iter().cloned().collect(),
            promised: charter.promise,
            phase: Phase::Running,
            engine: charter.engine,
            ended: BTreeMap::new(),
            revoked: BTreeSet::new(),
            invited: charter.invited.iter().copied().collect(),
            proposals: BTreeMap::new(),
            done: BTreeMap::new(),
            registry: BTreeMap::new(),
            told: 0,
        }
    }

    /// Whether a policy holds when these admins have approved.
    fn holds(&self, policy: &Policy, approved: &BTreeSet<OrgId>) -> bool {
        electors::holds(policy, &self.members.keys().copied().collect(), approved)
    }

    fn counts(&self, org: OrgId, key: &PublicKey) -> bool {
        self.members.contains_key(&org) && !self.revoked.contains(&(org, credential(key)))
    }

    fn exclude(&mut self, org: OrgId) {
        if self.members.remove(&org).is_some() {
            self.ended.entry(org).or_default().push(self.height);
        }
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

    fn revoke(&mut self, org: OrgId, what: Hash32) {
        self.revoked.insert((org, what));
        if let Some(member) = self.members.get_mut(&org) {
            member.keys.retain(|key, _| credential(key) != what);
        }
    }

    /// The beacon's mail has brought the registry: who has a new admin key has it here, too, and what
    /// was revoked counts no more from this moment.
    pub fn told(&mut self, seq: u64, update: &RegistryUpdate) {
        if seq < self.told {
            return;
        }
        self.told = seq + 1;
        for entry in &update.orgs {
            let before = self.registry.insert(entry.org, entry.admin_key);
            let revoked = self.revoked.contains(&(entry.org, credential(&entry.admin_key)));
            // What is said first is not new.
            if before.is_some_and(|before| before != entry.admin_key)
                && !revoked
                && let Some(member) = self.members.get_mut(&entry.org)
            {
                member.keys.entry(entry.admin_key).or_insert(Role::Admin);
            }
        }
        for (org, credential) in &update.revoked {
            self.revoke(*org, *credential);
        }
        for (org, _) in &update.revoked {
            self.still_speaks(*org, update);
        }
    }

    /// A member whose last admin key the registry has revoked has the registry's, unless that was revoked, too.
    fn still_speaks(&mut self, org: OrgId, update: &RegistryUpdate) {
        let Some(entry) = update.orgs.iter().find(|entry| entry.org == org) else { return };
        let revoked = self.revoked.contains(&(org, credential(&entry.admin_key)));
        let Some(member) = self.members.get_mut(&org) else { return };
        if !revoked && !member.keys.values().any(|role| *role == Role::Admin) {
            member.keys.insert(entry.admin_key, Role::Admin);
        }
    }

    /// A proposal came into force: whether it might, and what follows.
    fn decide(&mut self, id: &Hash32, now: TimeMs) -> Result<(), String> {
        let proposed = self.proposals.get(id).ok_or("nobody proposed it")?;
        let policy = self.policies.get(&proposed.change.subject()).ok_or("no policy is about it")?;
        let counted = proposed.approved.iter().filter(|(org, key)| self.counts(**org, key));
        let approved: BTreeSet<OrgId> = counted.map(|(org, _)| *org).collect();
        if !self.holds(policy, &approved) || proposed.ended || now > proposed.until {
            let ended = proposed.ended;
            return Err(format!("{approved:?} have approved, the policy is {policy}, ended before: {ended}"));
        }
        let (change, by) = (proposed.change.clone(), proposed.by);
        match &change {
            Change::Remove { org } => self.exclude(*org),
            Change::Invite { org, .. } => {
                self.invited.insert(*org);
            }
            Change::Policy { subject, policy } => {
                self.policies.insert(*subject, policy.clone());
                self.promised = None;
            }
            Change::Freeze => self.phase = Phase::Frozen,
            Change::Thaw => self.phase = Phase::Running,
            Change::Close => self.phase = Phase::Closing,
            Change::Anchors { nodes, .. } => {
                let member = self.members.get_mut(&by).ok_or("its proposer is no member")?;
                member.anchors = nodes.iter().copied().collect();
            }
            Change::RevokeKey { org, key } => self.revoke(*org, credential(key)),
            Change::Engine { engine } => self.engine = *engine,
            Change::PermitAsset { .. } | Change::GrantAudit(_) | Change::RevokeAudit { .. } => {}
        }
        self.supersede(&[change.target()]);
        Ok(())
    }

    /// A command was carried out: whether it might be, and what follows.
    pub fn act(&mut self, signed: &SignedCommand, outcome: Outcome, now: TimeMs) -> Result<(), String> {
        let digest = signed.digest();
        if let Some(first) = self.done.insert(digest, outcome) {
            return if first == outcome { Ok(()) } else { Err(format!("it did {first:?} the first time")) };
        }
        let (org, key) = (signed.org, signed.key);
        if crypto::verify(&key, &digest, &signed.signature).is_err() {
            return Err("its signature does not hold".to_owned());
        }
        let act: Command = borsh::from_slice(&signed.body).map_err(|error| error.to_string())?;
        let role = match self.members.get(&org) {
            Some(member) => member.keys.get(&key).copied(),
            None => {
                let guest = matches!(act, Command::Join { .. } | Command::Decline) && self.invited.contains(&org);
                if !guest {
                    return Err("the organisation is no member".to_owned());
                }
                (self.registry.get(&org) == Some(&key)).then_some(Role::Admin)
            }
        };
        if role != Some(Role::Admin) || self.revoked.contains(&(org, credential(&key))) {
            return Err(format!("the key that signed it is that of {role:?} there, or was revoked"));
        }
        self.follow(org, key, act, outcome)?;
        match outcome {
            Outcome::Proposal { id, state: ProposalState::Applied } => self.decide(&id, now),
            _ => Ok(()),
        }
    }

    fn proposed(&mut self, id: &Hash32) -> Result<&mut Proposed, String> {
        self.proposals.get_mut(id).ok_or_else(|| "nobody proposed it".to_owned())
    }

    fn own(&mut self, org: OrgId) -> Result<&mut Member, String> {
        self.members.get_mut(&org).ok_or_else(|| "the organisation is no member".to_owned())
    }

    /// What follows from a command, but for a change that it brings into force.
    fn follow(&mut self, org: OrgId, key: PublicKey, act: Command, outcome: Outcome) -> Result<(), String> {
        match (act, outcome) {
            (Command::Propose { change, until_ms }, Outcome::Proposal { id, .. }) => {
                let approved = BTreeMap::from([(org, key)]);
                self.proposals.insert(id, Proposed { change, by: org, until: until_ms, approved, ended: false });
            }
            (Command::Approve { .. }, Outcome::Proposal { id, .. }) => {
                self.proposed(&id)?.approved.insert(org, key);
            }
            (Command::Reject { .. } | Command::Withdraw { .. }, Outcome::Proposal { id, state }) => {
                self.proposed(&id)?.ended |= matches!(state, ProposalState::Rejected | ProposalState::Withdrawn);
            }
            (Command::Join { nodes }, _) => {
                self.invited.remove(&org);
                let keys = BTreeMap::from([(key, Role::Admin)]);
                let member = Member { keys, nodes: nodes.into_iter().collect(), anchors: BTreeSet::new() };
                self.members.insert(org, member);
                self.supersede(&[Target::Member(org), Target::Nodes(org), Target::Keys(org)]);
            }
            (Command::Decline, _) => {
                self.invited.remove(&org);
                self.supersede(&[Target::Member(org)]);
            }
            (Command::Leave, _) => self.exclude(org),
            (Command::AddKey { key, role }, _) => {
                self.own(org)?.keys.insert(key, role);
                self.supersede(&[Target::Keys(org)]);
            }
            (Command::RotateKey { old, new }, _) => {
                let member = self.own(org)?;
                let role = member.keys.remove(&old).ok_or("the key that it replaces is not there")?;
                member.keys.insert(new, role);
                self.supersede(&[Target::Keys(org)]);
            }
            (Command::RevokeKey { key }, _) => {
                self.revoke(org, credential(&key));
                self.supersede(&[Target::Keys(org)]);
            }
            (Command::RevokeCertificate { credential }, _) => self.revoke(org, credential),
            (Command::SetNodes { nodes }, _) => {
                self.own(org)?.nodes = nodes.into_iter().collect();
                self.supersede(&[Target::Nodes(org)]);
            }
            (Command::FinishClose, Outcome::Phase(Phase::Closed)) if self.phase == Phase::Closing => {
                self.phase = Phase::Closed;
                self.supersede(&[Target::Phase]);
            }
            (Command::Open { opening }, Outcome::Done) => {
                let bytes = borsh::to_vec(&opening).map_err(|error| error.to_string())?;
                let hash = Sha256::new().chain_update(b"seamark/channel-opening/v1").chain_update(bytes).finalize();
                let promised = self.promised.take();
                if promised != Some(Hash32(hash.into())) {
                    return Err(format!("what waits is {promised:?}, and not what it was given"));
                }
                self.policies = opening.policies.into_iter().collect();
                self.supersede(&Subject::ALL.map(Target::Policy));
            }
            (Command::Open { .. }, other) => return Err(format!("{other:?} of an opening")),
            (Command::FinishClose, other) => return Err(format!("{other:?} out of {:?}", self.phase)),
            _ => {}
        }
        Ok(())
    }
}

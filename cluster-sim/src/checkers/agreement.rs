//! Agreement in Byzantine groups: one value at an index, each decided by more than two thirds of the members with
//! precommits that they cast; honest members give one answer to a question; time stays near the clocks; and what
//! shows that a member lies is about one that does, and is in the group's state in the end.
//!
//! Nobody leads on by saying of its turn that it has lasted less than it has. Where a group goes over to this engine, its
//! first value builds on the block that hands over.
//!
//! Ballots and their signatures are judged here by the bytes and the signature primitive alone. Liars are known from
//! the beginning of a run. What a liar's own replica says is not believed: only what honest replicas decide, cast
//! and find counts.

use std::collections::{BTreeMap, BTreeSet};

use consensus::bft::Decided;
use ledger::ballot::{Ballot, BallotKind, Equivocation};
use ledger::committee::{Committee, Engine};
use ledger::crypto;
use ledger::evidence::Evidence;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, Height, NodeId};
use ledger::schema;
use sha2::{Digest, Sha256};

use super::equal_roots::header_hash;
use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen, committee_hash};
use crate::liars::Deeds;
use crate::state;

/// Entries in which a proof has to get into state, by leaders that it is not about.
const SETTLED_ENTRIES: u64 = 40;
/// How far a block's time may be ahead of the true time: clocks are off by a few seconds at most.
const AHEAD_MS: u64 = 10_000;
/// By so much a value may say less than its proposer has led: members bear ten seconds of it, and between the making of
/// a value and its decision may lie a few rounds of votes and one leap of the clocks.
const HIDDEN_MS: u64 = 18_000;
/// What one entry adds to the time that somebody leads, at most.
const ENTRY_MS_MAX: u64 = 5_000;
/// How long a turn lasts by what its values say, and how many entries. Then another one begins, maybe of the same member:
/// one that has led in the rest of a turn may be next.
const TURN_MS: u64 = 60_000;
const TURN_ENTRIES: u64 = 1_024;

/// What happens in a Byzantine group.
#[derive(Clone, Debug)]
pub enum BftSeen {
    /// A replica lies in this run.
    Liar {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Whether it signs ballots that exclude each other.
        signs_twice: bool,
    },
    /// It has lied.
    Lied {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// What it has done since it was told last.
        deeds: Deeds,
    },
    /// A replica takes a value for decided.
    Decided {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Its id.
        value: Hash32,
        /// The value with its proof.
        decided: Box<Decided>,
    },
    /// An honest member has told others a ballot of its own.
    Cast {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// What it says.
        ballot: Ballot,
    },
    /// An honest replica has found that somebody voted twice.
    Evidence {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The proof.
        proof: Box<Equivocation>,
    },
    /// Who leads has changed.
    Turn {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Whether this replica does.
        leads: bool,
        /// In which entry.
        index: u64,
        /// In which round.
        round: u32,
    },
    /// A replica that had forgotten its votes votes again.
    Admitted {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
    },
    /// A replica has put the state of another one in the place of its own.
    Installed {
        /// Where.
        node: NodeId,
        /// With which join the replica takes part.
        join: u16,
        /// Of which group.
        group: GroupId,
        /// Its height.
        height: Height,
        /// Up to where in the log.
        index: u64,
    },
    /// The true time, in milliseconds since the epoch.
    Clock(u64),
}

/// Who has proposed one entry after the other in first rounds.
struct Lead {
    proposer: NodeId,
    /// How long, by the true time and without what no member counts.
    age_ms: u64,
    at_ms: u64,
}

/// A question that a member answers once: who, entry, round, kind.
type Question = (NodeId, GroupId, u64, u32, u8);

/// What was decided, cast and found so far.
#[derive(Default)]
pub struct Agreement {
    /// Liars, and whether they sign twice.
    liars: BTreeMap<(NodeId, GroupId), bool>,
    values: BTreeMap<(GroupId, u64), (Hash32, NodeId)>,
    /// Blocks that hand over to this engine, by the index of their entry.
    anchors: BTreeMap<(GroupId, u64), Hash32>,
    /// Committees that came into force, by the index of the entry.
    in_force: BTreeMap<GroupId, BTreeMap<u64, Hash32>>,
    cast: BTreeMap<Question, Ballot>,
    /// Proofs that were judged.
    proved: BTreeSet<Hash32>,
    /// Whose double vote is known, to whom that has been up since, and how many entries others have proposed since.
    open: BTreeMap<(NodeId, GroupId), (BTreeSet<NodeId>, u64)>,
    cluster: Option<ClusterId>,
    /// Signatures that hold.
    good: BTreeSet<(NodeId, Hash32, [u8; 64])>,
    /// Who leads; forgotten where a replica that has seen it begins anew.
    leads: BTreeMap<GroupId, Lead>,
    /// The entry that a turn ends with at the latest.
    ends: BTreeMap<GroupId, u64>,
    clock_ms: Option<u64>,
}

pub(super) fn tagged(tag: &[u8], parts: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(tag);
    parts.iter().for_each(|part| hasher.update(part));
    Hash32(hasher.finalize().into())
}

fn kind(ballot: &Ballot) -> u8 {
    match ballot.kind {
        BallotKind::Proposal { .. } => 0,
        BallotKind::Prevote => 1,
        BallotKind::Precommit => 2,
    }
}

fn question(ballot: &Ballot) -> Question {
    (ballot.node, ballot.group, ballot.index, ballot.round, kind(ballot))
}

pub(super) fn digest(ballot: &Ballot) -> Hash32 {
    tagged(b"seamark/ballot/v1", &[&borsh::to_vec(ballot).unwrap_or_default()])
}

impl Agreement {
    fn lies(&self, node: NodeId, group: GroupId) -> bool {
        self.liars.contains_key(&(node, group))
    }

    fn decided(
        &mut self,
        facts: &Facts,
        (node, group, value): (NodeId, GroupId, Hash32),
        decided: &Decided,
        found: &mut Vec<String>,
    ) {
        if self.lies(node, group) {
            return;
        }
        let index = decided.value.index;
        let bytes = borsh::to_vec(&decided.value).unwrap_or_default();
        if tagged(b"seamark/value/v1", &[&bytes]) != value {
            found.push(format!("node {node} goes by a wrong id for entry {index} of {group}"));
        }
        match self.values.get(&(group, index)) {
            Some((other, first)) if *other != value => {
                found.push(format!("nodes {first} and {node} have decided two values for entry {index} of {group}"));
            }
            Some(_) => {}
            None => {
                let before = (group, index.saturating_sub(1));
                let anchor = self.anchors.get(&before).copied();
                let follows = anchor.or_else(|| self.values.get(&before).map(|(value, _)| *value));
                if follows.is_some_and(|before| before != decided.value.previous) {
                    found.push(format!("entry {index} of {group} does not follow the one before it"));
                }
                self.values.insert((group, index), (value, node));
                self.lasts(group, decided, found);
                for ((accused, of), (_, entries)) in &mut self.open {
                    *entries += u64::from(*of == group && *accused != decided.value.proposer);
                }
            }
        }
        found.extend(self.proof(facts, group, value, decided).err());
    }

    /// Whether a value admits how long its proposer has led.
    fn lasts(&mut self, group: GroupId, decided: &Decided, found: &mut Vec<String>) {
        let Some(now) = self.clock_ms else { return };
        let (index, proposer, said) = (decided.value.index, decided.value.proposer, decided.value.lasted_ms);
        let until = self.ends.entry(group).or_insert(0);
        if *until == 0 || self.anchors.contains_key(&(group, index.saturating_sub(1))) {
            *until = index.saturating_sub(1) + TURN_ENTRIES;
        }
        let over = index >= *until || said >= TURN_MS;
        if over {
            *until = index + TURN_ENTRIES;
        }
        let lead = self.leads.entry(group).or_insert(Lead { proposer, age_ms: 0, at_ms: now });
        if lead.proposer != proposer || decided.round > 0 {
            *lead = Lead { proposer, age_ms: 0, at_ms: now };
            return;
        }
        lead.age_ms += now.saturating_sub(lead.at_ms).min(ENTRY_MS_MAX);
        lead.at_ms = now;
        let age = lead.age_ms;
        if over {
            self.leads.remove(&group);
        }
        if said + HIDDEN_MS < age {
            found.push(format!("entry {index} of {group} says that its turn has lasted {said} ms; it was {age} ms"));
        }
    }

    /// Who decides an entry.
    fn committee<'a>(&self, facts: &'a Facts, group: GroupId, index: u64) -> Option<&'a Committee> {
        let since = self.in_force.get(&group).and_then(|known| known.range(..index).next_back());
        since.map_or_else(|| facts.first_committee(group), |(_, hash)| facts.committee(group, hash))
    }

    /// Whether more than two thirds have precommitted a value, and those of them that are honest really have.
    fn proof(&mut self, facts: &Facts, group: GroupId, value: Hash32, decided: &Decided) -> Result<(), String> {
        let index = decided.value.index;
        let Some(committee) = self.committee(facts, group, index) else {
            return Err(format!("nobody knows who decides entry {index} of {group}"));
        };
        if committee.engine != Engine::Bft {
            return Err(format!("entry {index} of {group} was decided behind the one that hands over"));
        }
        let hash = committee_hash(committee);
        let cluster = *self.cluster.get_or_insert_with(|| facts.genesis.cluster_id());
        let mut signers = BTreeSet::new();
        for (node, signature) in &decided.signatures {
            let Some(member) = committee.members.iter().find(|member| member.node == *node) else {
                return Err(format!("node {node} has decided entry {index} of {group} and is no member"));
            };
            let ballot = Ballot {
                version: 1,
                cluster,
                group,
                incarnation: committee.incarnation,
                committee: hash,
                index,
                round: decided.round,
                kind: BallotKind::Precommit,
                value: Some(value),
                node: *node,
            };
            let digest = digest(&ballot);
            if self.good.insert((*node, digest, signature.0)) {
                crypto::verify(&member.key, &digest, signature)
                    .map_err(|_| format!("the precommit of node {node} for entry {index} of {group} does not hold"))?;
            }
            // Whoever decides may add a precommit of its own that it has not told yet. It decides without it.
            if self.lies(*node, group) || self.cast.get(&question(&ballot)) == Some(&ballot) {
                signers.insert(*node);
            }
        }
        if 3 * signers.len() <= 2 * committee.members.len() {
            let (few, all) = (signers.len(), committee.members.len());
            return Err(format!("entry {index} of {group} was decided by {few} of {all} that have said so"));
        }
        Ok(())
    }

    /// An honest member has said something.
    fn cast(&mut self, ballot: &Ballot, found: &mut Vec<String>) {
        let known = self.cast.entry(question(ballot)).or_insert(*ballot);
        if known != ballot {
            let Ballot { node, group, index, round, .. } = ballot;
            found.push(format!("honest node {node} has cast two ballots in round {round} of entry {index} of {group}"));
        }
    }

    fn proved(
        &mut self,
        facts: &Facts,
        (node, group): (NodeId, GroupId),
        proof: &Equivocation,
        found: &mut Vec<String>,
    ) {
        let accused = proof.first.ballot.node;
        if self.liars.get(&(accused, group)) != Some(&true) {
            found.push(format!("node {node} has evidence against node {accused} of {group}, which votes once"));
        }
        let name = tagged(b"proof", &[&borsh::to_vec(proof).unwrap_or_default()]);
        if self.proved.insert(name)
            && let Err(why) = judge(facts, group, proof)
        {
            found.push(format!("the evidence of node {node} against node {accused} of {group} does not hold: {why}"));
        }
        self.open.entry((accused, group)).or_default().0.insert(node);
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, index, header) = (block.group, block.position.index, &block.header);
        let engine = |hash: &Hash32| facts.committee(group, hash).map(|committee| committee.engine);
        let bft = engine(&header.committee_hash) == Some(Engine::Bft);
        if header.committee_hash != header.next_committee_hash {
            self.in_force.entry(group).or_default().insert(index, header.next_committee_hash);
            if !bft && engine(&header.next_committee_hash) == Some(Engine::Bft) {
                self.anchors.insert((group, index), header_hash(header));
            }
        }
        let Some(clock) = self.clock_ms.filter(|_| bft) else { return };
        let time = header.time_ms.0;
        if time > clock + AHEAD_MS {
            let height = header.height;
            found.push(format!("height {height} of {group} is {} ms ahead of the true time", time - clock));
        }
    }

    /// What honest members knew of double votes has come into state.
    fn settled(&self, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for ((accused, group), (witnesses, entries)) in &self.open {
            for replica in replicas.iter().filter(|replica| replica.group == *group) {
                let held = state::scan(replica.kv, &[schema::STATE]).into_iter().any(|(_, value)| {
                    borsh::from_slice::<Evidence>(&value)
                        .is_ok_and(|evidence| evidence.version == 1 && evidence.proof.first.ballot.node == *accused)
                });
                if !held && !witnesses.is_empty() && *entries >= SETTLED_ENTRIES {
                    found.push(format!(
                        "{witnesses:?} know that node {accused} of {group} voted twice; the state on node {} does not",
                        replica.node
                    ));
                }
            }
        }
    }
}

/// Judges a proof: two ballots of one member, to one question, both signed.
pub(super) fn judge(facts: &Facts, group: GroupId, proof: &Equivocation) -> Result<(), String> {
    let (one, other) = (&proof.first.ballot, &proof.second.ballot);
    if one == other || question(one) != question(other) || one.committee != other.committee || one.group != group {
        return Err("the ballots do not exclude each other".to_owned());
    }
    let members = facts.committee(group, &one.committee).map_or(&[][..], |committee| &committee.members[..]);
    let member = members.iter().find(|member| member.node == one.node).ok_or("it is about nobody of the group")?;
    for signed in [&proof.first, &proof.second] {
        crypto::verify(&member.key, &digest(&signed.ballot), &signed.signature)
            .map_err(|_| "a signature does not hold".to_owned())?;
    }
    Ok(())
}

impl Checker for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Bft(BftSeen::Liar { node, group, signs_twice }) => {
                self.liars.insert((*node, *group), *signs_twice);
            }
            Seen::Bft(BftSeen::Decided { node, group, value, decided }) => {
                self.decided(facts, (*node, *group, *value), decided, found);
            }
            Seen::Bft(BftSeen::Cast { ballot, .. }) => self.cast(ballot, found),
            Seen::Bft(BftSeen::Evidence { node, group, proof }) => self.proved(facts, (*node, *group), proof, found),
            Seen::Bft(BftSeen::Clock(now)) => self.clock_ms = Some(*now),
            Seen::Block(block) if first => self.block(facts, block, found),
            Seen::Started { node, group, .. } => {
                // What it knew of and nobody had put into state yet is gone.
                for ((_, of), (witnesses, _)) in &mut self.open {
                    if of == group {
                        witnesses.remove(node);
                    }
                }
                // It goes by what it is told of the turn.
                self.leads.remove(group);
            }
            Seen::Left { node, group, .. } => {
                // What a replica knew goes with it.
                for ((_, of), (witnesses, _)) in &mut self.open {
                    if of == group {
                        witnesses.remove(node);
                    }
                }
            }
            Seen::Stint { group, .. }
            | Seen::Bft(BftSeen::Installed { group, .. } | BftSeen::Admitted { group, .. }) => {
                self.leads.remove(group);
            }
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment == Moment::End {
            self.settled(replicas, found);
        }
    }
}

//! Epochs: a seed follows from the one before and from what members have published in time, and from nothing else; whoever
//! withholds sits out the next epoch; and what is dealt follows from the seed.
//!
//! What was published is read from the entries of the beacon: the first commitment that is signed and comes before the
//! time of secrets, and the first secret that is signed, comes in that time and is the one of the commitment. The records
//! of the registry have to say exactly that. Hashes and seeds are computed here. A deal has to name the seats that the
//! checker knows, and is recomputed from its record by the function that is published for whoever wants to verify an
//! assignment: that anybody can is what is promised.

use std::collections::BTreeMap;

use beacon::Contribution;
use beacon::epochs::{Deal, EPOCH_VERSION, Entrant, EpochHead, EpochRecord, Part};
use beacon::registry;
use cross_shard::Message;
use ledger::committee::{Committee, Engine};
use ledger::crypto::{self, PublicKey};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, GroupKind, Height, NodeId, TimeMs};
use sha2::{Digest, Sha256};

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::council::LENGTH_MS;
use crate::state;

/// Epochs that the registry keeps.
const KEPT: usize = 8;

/// What was published, in the order of the log.
type Published = BTreeMap<(u64, NodeId), Vec<Given>>;

/// Something that was published.
struct Given {
    /// The time of the block that brought it.
    time_ms: TimeMs,
    contribution: Contribution,
    /// The keys by which the beacon's committees before and behind that block name the member.
    keys: Vec<PublicKey>,
}

/// The epochs of a run.
#[derive(Default)]
pub struct Epochs {
    /// The seed in force, where it is another one than that of the genesis.
    seed: Option<Hash32>,
    published: Published,
    /// The beacon's committee before and behind each of its blocks.
    committees: BTreeMap<Height, (Hash32, Hash32)>,
    /// Who has seats in each shard.
    seats: BTreeMap<GroupId, Vec<NodeId>>,
    records: BTreeMap<u64, EpochRecord>,
}

fn hash_of(parts: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    Hash32(hasher.finalize().into())
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap_or_default()
}

fn nodes(committee: &Committee) -> Vec<NodeId> {
    committee.members.iter().map(|member| member.node).collect()
}

/// Secrets that a committee asks for.
fn needed(committee: &Committee) -> usize {
    match committee.engine {
        Engine::Raft => committee.members.len() / 2 + 1,
        Engine::Bft => 2 * committee.members.len() / 3 + 1,
    }
}

/// Whether a contribution is signed with a key.
fn signed(cluster: &ClusterId, given: &Contribution, key: &PublicKey) -> bool {
    let (variant, value) = match given.part {
        Part::Commitment(value) => (0u8, value),
        Part::Secret(value) => (1, value),
    };
    let (epoch, node) = (given.epoch.to_be_bytes(), given.node.0.to_be_bytes());
    let digest = hash_of(&[b"seamark/contribution/v1", &cluster.0.0, &epoch, &node, &[variant], &value.0]);
    given.cluster == *cluster && crypto::verify(key, &digest, &given.signature).is_ok()
}

/// What a member committed itself to and has revealed, each in its time. In the block that gives it another key either may
/// have come before that, which the entry knows and the header does not: what counts there (`certain` of a commitment and of
/// a secret) is for the registry to say.
fn contributed(
    cluster: &ClusterId,
    published: &Published,
    record: &EpochRecord,
    entrant: &Entrant,
    certain: (bool, bool),
) -> (Option<Hash32>, Option<Hash32>) {
    if entrant.barred {
        return (None, None);
    }
    let reveal = TimeMs(record.began_ms.0 + LENGTH_MS / 2);
    let over = TimeMs(record.began_ms.0 + LENGTH_MS);
    let given = published.get(&(record.epoch, entrant.node)).map_or(&[][..], Vec::as_slice);
    // A member that is given another key meanwhile goes on with that one.
    let valid = |given: &&Given, certain: bool| {
        let holds = |key: &PublicKey| signed(cluster, &given.contribution, key);
        match certain && !given.keys.is_empty() {
            true => given.keys.iter().all(holds),
            false => given.keys.iter().chain([&entrant.key]).any(holds),
        }
    };
    let early = given.iter().filter(|given| given.time_ms < reveal && valid(given, certain.0));
    let mut commitments = early.filter_map(|given| {
        if let Part::Commitment(commitment) = given.contribution.part { Some(commitment) } else { None }
    });
    let Some(commitment) = commitments.next() else { return (None, None) };
    let (epoch, node) = (record.epoch.to_be_bytes(), entrant.node.0.to_be_bytes());
    let fits = |secret: &Hash32| {
        hash_of(&[b"seamark/epoch-commitment/v1", &cluster.0.0, &epoch, &node, &secret.0]) == commitment
    };
    let in_time =
        given.iter().filter(|given| reveal <= given.time_ms && given.time_ms < over && valid(given, certain.1));
    let mut secrets = in_time.filter_map(|given| match given.contribution.part {
        Part::Secret(secret) if fits(&secret) => Some(secret),
        Part::Secret(_) | Part::Commitment(_) => None,
    });
    (Some(commitment), secrets.next())
}

/// Whether the members of an epoch are those of a committee; each with its key there, or one that the beacon's committees have
/// named it by since.
fn enters(facts: &Facts, record: &EpochRecord, committee: &Committee) -> bool {
    let members = committee.members.iter().map(|member| (member.node, member.org));
    let keys = committee.members.iter().map(|member| member.key);
    let known = |(entrant, key): (&Entrant, PublicKey)| {
        entrant.key == key || facts.named(GroupId::BEACON, entrant.node, &entrant.key)
    };
    record.entrants.iter().map(|entrant| (entrant.node, entrant.org)).eq(members)
        && record.entrants.iter().zip(keys).all(known)
}

impl Epochs {
    fn record(&self, facts: &Facts, block: &BlockSeen, record: &EpochRecord, found: &mut Vec<String>) {
        let epoch = record.epoch;
        let mut wrong = |what: &str| found.push(format!("epoch {epoch} {what}"));
        if (record.ended_height, record.ended_ms) != (block.header.height, block.header.time_ms) {
            wrong("ends in another block than the one that says so");
        }
        if record.ended_ms.0 < record.began_ms.0 + LENGTH_MS || record.version != EPOCH_VERSION {
            wrong("ends before its time, or is of another version");
        }
        let committee = self.committees.get(&record.began_height).and_then(|(before, behind)| {
            let of =
                |hash: &Hash32| facts.committee(GroupId::BEACON, hash).filter(|known| enters(facts, record, known));
            of(before).or_else(|| of(behind))
        });
        match committee {
            None => wrong("has others than the members that the beacon had when it began"),
            Some(committee) if usize::from(record.needed) != needed(committee) => {
                wrong("asks for another number of secrets than the beacon decides with");
            }
            Some(_) => {}
        }
        let before = epoch.checked_sub(1).and_then(|before| self.records.get(&before));
        let cluster = facts.genesis.cluster_id();
        let mut secrets = Vec::new();
        let mut revealed = 0;
        for entrant in &record.entrants {
            let node = entrant.node;
            let withheld = before.is_some_and(|before| {
                let mut lines = before.entrants.iter().filter(|line| line.node == node && !line.barred);
                lines.any(|line| line.commitment.is_some() && line.secret.is_none())
            });
            if withheld != entrant.barred {
                wrong(&format!("has node {node} barred: {}, which withheld before: {withheld}", entrant.barred));
            }
            let of = |certain| contributed(&cluster, &self.published, record, entrant, certain);
            let mut ways = [(true, true), (true, false), (false, true), (false, false)].into_iter().map(of);
            let said = (entrant.commitment, entrant.secret);
            let (commitment, secret) = ways.find(|way| *way == said).unwrap_or_else(|| of((false, false)));
            if entrant.commitment != commitment {
                wrong(&format!("has another commitment of node {node} than it has published in time"));
            }
            if entrant.secret != secret {
                wrong(&format!("has another secret of node {node} than the one that it has revealed in time"));
            }
            if let Some(secret) = secret {
                secrets.extend_from_slice(&node.0.to_be_bytes());
                secrets.extend_from_slice(&secret.0);
                revealed += 1;
            }
        }
        let previous = self.seed.unwrap_or(facts.genesis.seed);
        if record.previous != previous {
            wrong("does not go on from the seed before");
        }
        let fresh = revealed >= usize::from(record.needed);
        let made = hash_of(&[b"seamark/epoch-seed/v1", &previous.0, &epoch.to_be_bytes(), &secrets]);
        let seed = if fresh { made } else { previous };
        if record.fresh != fresh || record.seed != seed {
            wrong("has a seed that does not follow from what was revealed");
        }
        if block.epochs.seed.unwrap_or(previous) != seed {
            wrong("leaves another seed in the registry than its own");
        }
        let dealt = block.epochs.deals.iter().find(|deal| deal.epoch == epoch);
        match dealt {
            Some(deal) if fresh => found.extend(self.deal(record, deal).err()),
            None if !fresh && record.deal.is_none() => {}
            Some(_) | None => wrong("deals seats where it may not, or does not where it has to"),
        }
    }

    fn deal(&self, record: &EpochRecord, deal: &Deal) -> Result<(), String> {
        let epoch = record.epoch;
        if record.deal != Some(hash_of(&[b"seamark/deal/v1", &encoded(deal)])) || deal.seed != record.seed {
            return Err(format!("the deal of epoch {epoch} is not the one of its record, or of another seed"));
        }
        let named = deal.groups.iter().map(|seated| (seated.group, &seated.members));
        if !named.eq(self.seats.iter().map(|(group, members)| (*group, members))) {
            return Err(format!("the deal of epoch {epoch} goes by other seats than the shards have"));
        }
        let usable = |node: &NodeId| deal.nodes.iter().any(|known| known.node == *node && known.capacity > 0);
        for (group, members) in &deal.moves {
            let before = self.seats.get(group).map_or(0, Vec::len);
            if members.len() != before || !members.is_sorted_by(|one, next| one < next) || !members.iter().all(usable) {
                return Err(format!("the deal of epoch {epoch} has {members:?} in {group}, which had {before} seats"));
            }
        }
        deal.check().map_err(|fault| format!("whoever recomputes the deal of epoch {epoch} finds: {fault}"))
    }

    /// A block of the beacon that no replica has told of before.
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        if self.seats.is_empty() {
            let first = facts.genesis.committees.iter();
            let shards = first.filter(|committee| committee.group.kind() == Some(GroupKind::Shard));
            self.seats.extend(shards.map(|committee| (committee.group, nodes(committee))));
        }
        let header = &block.header;
        // The end of an epoch comes before everything else in a block.
        if block.epochs.seed.is_some() && block.epochs.records.iter().all(|record| !record.fresh) {
            found.push(format!("height {} of the beacon changes the seed, and no epoch ends there", header.height));
        }
        for record in &block.epochs.records {
            self.record(facts, block, record, found);
            self.seed = Some(record.seed);
            self.records.insert(record.epoch, record.clone());
        }
        self.committees.insert(header.height, (header.committee_hash, header.next_committee_hash));
        for given in &block.epochs.contributions {
            let named = [&header.committee_hash, &header.next_committee_hash].into_iter();
            let committees = named.filter_map(|hash| facts.committee(GroupId::BEACON, hash));
            let members =
                committees.flat_map(|committee| &committee.members).filter(|member| member.node == given.node);
            let (time_ms, contribution) = (header.time_ms, given.clone());
            let keys = members.map(|member| member.key).collect();
            let line = Given { time_ms, contribution, keys };
            self.published.entry((given.epoch, given.node)).or_default().push(line);
        }
        for (_, _, message) in &block.mail {
            if let Message::CommitteeUpdate(seated) = message
                && let Some(members) = self.seats.get_mut(&seated.group)
            {
                *members = nodes(seated);
            }
        }
        if let Some(layout) = &block.layout {
            let lives = |group: GroupId| layout.shards.iter().any(|shard| shard.group == group);
            self.seats.retain(|group, _| lives(*group));
            for committee in block.committees.iter().filter(|committee| lives(committee.group)) {
                self.seats.entry(committee.group).or_insert_with(|| nodes(committee));
            }
        }
    }

    /// What the state tree commits to at the end.
    fn head(&self, beacon: &RawReplica<'_>) -> Result<(), String> {
        let kept: Vec<(u64, Hash32)> = self
            .records
            .values()
            .skip(self.records.len().saturating_sub(KEPT))
            .map(|record| (record.epoch, hash_of(&[b"seamark/epoch-record/v1", &encoded(record)])))
            .collect();
        let head: Option<EpochHead> = state::find(beacon.kv, &registry::epochs_key())?;
        if head.map_or_else(Vec::new, |head| head.records) == kept {
            return Ok(());
        }
        Err(format!("the beacon on node {} commits to other epochs than there were", beacon.node))
    }
}

impl Checker for Epochs {
    fn name(&self) -> &'static str {
        "epochs"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let Seen::Block(block) = seen
            && first
            && block.group == GroupId::BEACON
        {
            self.block(facts, block, found);
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment == Moment::End {
            let beacons = replicas.iter().filter(|replica| replica.group == GroupId::BEACON);
            found.extend(beacons.filter_map(|beacon| self.head(beacon).err()));
        }
    }
}

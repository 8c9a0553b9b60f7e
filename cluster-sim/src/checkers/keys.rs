//! Signing keys of nodes: no key is ever given to two nodes, nor again after it was replaced; whoever is given one has shown
//! that it has it; every committee names each of its nodes by a key that is its own, and never again by one that was replaced
//! there; no node drops a key by which a group still names it; and in the end every committee names everybody by the key that
//! the registry has.
//!
//! Who was given which keys is read from the commands that the registry has carried out, each once; committees from the
//! beacon's mail and layouts, and by what the last block of a group hands over to. That a certificate has no signature of a key
//! that the committee of its height does not name, `certificates` says.

use std::collections::{BTreeMap, BTreeSet};

use beacon::{BeaconCommand, Job, Phase};
use cross_shard::Message;
use ledger::committee::Committee;
use ledger::crypto::{self, PublicKey};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use sha2::{Digest, Sha256};

use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};
use crate::state;

/// Key prefix of jobs in the beacon's state.
const JOBS: &[u8] = b"Gjob/";

/// The keys of a run.
#[derive(Default)]
pub struct Keys {
    /// The keys that each node was given, the oldest first.
    given: BTreeMap<NodeId, Vec<PublicKey>>,
    /// Commands that the registry has carried out: sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    /// The committees that the beacon has put into force.
    in_force: BTreeMap<GroupId, Committee>,
    /// The committee that each group's last block hands over to.
    last: BTreeMap<GroupId, Hash32>,
}

/// What a new key has to sign.
fn possession(facts: &Facts, node: NodeId, before: &PublicKey, new: &PublicKey) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(b"seamark/node-key/v1");
    hasher.update(facts.genesis.cluster_id().0.0);
    hasher.update(node.0.to_be_bytes());
    hasher.update(before.0);
    hasher.update(new.0);
    Hash32(hasher.finalize().into())
}

fn names(committee: &Committee, node: NodeId, key: &PublicKey) -> bool {
    committee.members.iter().any(|member| member.node == node && member.key == *key)
}

impl Keys {
    fn begin(&mut self, facts: &Facts) {
        self.given = facts.genesis.nodes.iter().map(|node| (node.id, vec![node.key])).collect();
        let first = facts.genesis.committees.iter();
        self.in_force = first.map(|committee| (committee.group, committee.clone())).collect();
    }

    /// Which of a node's keys this is, by the order in which it was given them.
    fn place(&self, node: NodeId, key: &PublicKey) -> Option<usize> {
        self.given.get(&node)?.iter().position(|given| given == key)
    }

    fn owner(&self, key: &PublicKey) -> Option<NodeId> {
        self.given.iter().find(|(_, keys)| keys.contains(key)).map(|(node, _)| *node)
    }

    fn command(&mut self, facts: &Facts, command: &BeaconCommand, found: &mut Vec<String>) {
        let (node, key) = match command {
            BeaconCommand::RegisterNode(info) => (info.id, info.key),
            BeaconCommand::RotateNodeKey { node, key, possession: signature } => {
                let before = self.given.get(node).and_then(|keys| keys.last());
                let shown = before.map(|before| possession(facts, *node, before, key));
                if shown.is_none_or(|digest| crypto::verify(key, &digest, signature).is_err()) {
                    found.push(format!("node {node} is given a key that has not signed for it"));
                }
                (*node, *key)
            }
            _ => return,
        };
        if let Some(owner) = self.owner(&key) {
            found.push(format!("node {node} is given a key that was node {owner}'s before"));
        }
        self.given.entry(node).or_default().push(key);
    }

    /// A committee that is prepared or in force; `before` has how many keys each node had before this block, where those who
    /// join are named by their newest one.
    fn judge(&self, committee: &Committee, before: Option<&BTreeMap<NodeId, usize>>, found: &mut Vec<String>) {
        let (group, known) = (committee.group, self.in_force.get(&committee.group));
        for member in &committee.members {
            let node = member.node;
            let Some(place) = self.place(node, &member.key) else {
                found.push(format!("{group} names node {node} by a key that was never its own"));
                continue;
            };
            let had = known.and_then(|known| known.members.iter().find(|had| had.node == node));
            let least = match had {
                Some(had) => self.place(node, &had.key),
                // Within a block it may have had a seat planned before it was given another key.
                None => before.and_then(|before| before.get(&node)).and_then(|count| count.checked_sub(1)),
            };
            if least.is_some_and(|least| place < least) {
                found.push(format!("{group} names node {node} by a key that was replaced there"));
            }
        }
    }

    fn beacon(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let before: BTreeMap<NodeId, usize> = self.given.iter().map(|(node, keys)| (*node, keys.len())).collect();
        for governed in &block.governed {
            let Governed::Registered(signed) = governed else { continue };
            if self.commands.insert(signed.encode())
                && let Ok(command) = signed.parse()
            {
                self.command(facts, &command, found);
            }
        }
        let mut told: BTreeSet<GroupId> = BTreeSet::new();
        for (dest, _, message) in &block.mail {
            match message {
                Message::CommitteePlan(plan) if *dest == plan.group => self.judge(plan, Some(&before), found),
                Message::CommitteeUpdate(seated) if told.insert(seated.group) => {
                    self.judge(seated, Some(&before), found);
                    self.in_force.insert(seated.group, seated.clone());
                }
                _ => {}
            }
        }
        if let Some(layout) = &block.layout {
            self.in_force.retain(|group, _| !facts.lines.retired(*group));
            let lives = |group: GroupId| layout.shards.iter().any(|shard| shard.group == group);
            for committee in block.committees.iter().filter(|committee| lives(committee.group)) {
                // A child begins with the keys that its parents' members had when the job began.
                self.judge(committee, None, found);
                self.in_force.entry(committee.group).or_insert_with(|| committee.clone());
            }
        }
    }

    /// A node has dropped a key: judged by what is in force in that moment, since what comes into force later does not need it
    /// any more.
    fn gone(&self, facts: &Facts, node: NodeId, key: &PublicKey, found: &mut Vec<String>) {
        if self.given.get(&node).and_then(|keys| keys.last()) == Some(key) {
            found.push(format!("node {node} has dropped the key that the registry has of it"));
        }
        let last = self.last.iter().filter(|(group, _)| !facts.lines.retired(**group));
        let last = last.filter_map(|(group, hash)| facts.committee(*group, hash));
        let naming = last.chain(self.in_force.values()).find(|committee| names(committee, node, key));
        if let Some(committee) = naming {
            found.push(format!("node {node} has dropped a key, and {} still names it by that one", committee.group));
        }
    }

    /// At the end everybody has the key that the registry has, unless a job that waits for somebody keeps groups from it.
    fn end(&self, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        let Some(beacon) = replicas.iter().find(|replica| replica.group == GroupId::BEACON) else { return };
        let jobs = state::scan(beacon.kv, JOBS);
        let mut jobs = jobs.iter().filter_map(|(_, value)| borsh::from_slice::<Job>(value).ok());
        if jobs.any(|job| !matches!(job.phase, Phase::Proposed | Phase::Done | Phase::Cancelled)) {
            return;
        }
        for committee in self.in_force.values() {
            for member in &committee.members {
                let newest = self.given.get(&member.node).and_then(|keys| keys.last());
                if newest != Some(&member.key) {
                    found.push(format!("{} still names node {} by a key before", committee.group, member.node));
                }
            }
        }
    }
}

impl Checker for Keys {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if !facts.keys_change {
            return;
        }
        if self.given.is_empty() {
            self.begin(facts);
        }
        match seen {
            Seen::Block(block) if first => {
                if block.group == GroupId::BEACON {
                    self.beacon(facts, block, found);
                }
                self.last.insert(block.group, block.header.next_committee_hash);
            }
            Seen::Born(born) => {
                self.last.entry(born.header.group).or_insert(born.header.next_committee_hash);
            }
            Seen::Founded(foundation) => {
                let first = &foundation.committee;
                self.in_force.entry(first.group).or_insert_with(|| first.clone());
            }
            Seen::KeyGone { node, key } => self.gone(facts, *node, key, found),
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if facts.keys_change && moment == Moment::End {
            self.end(replicas, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use beacon::SignedCommand;
    use beacon::jobs::job_key;
    use beacon::keys::prove_possession;
    use ledger::committee::Member;
    use ledger::crypto::SecretKey;
    use ledger::genesis::NodeInfo;
    use ledger::ids::JobId;
    use storage::kv::{Kv, WriteBatch};
    use storage::mem::MemKv;

    use super::super::testing::{Bench, expect, job, renamed};
    use super::*;
    use crate::cluster::{later_key, node_info};

    const SHARD: GroupId = GroupId::shard(0);

    /// A checker, and a node with a seat in the shard.
    fn bench() -> (Bench<Keys>, NodeId) {
        let mut bench = Bench::new(Keys::default());
        bench.facts.keys_change = true;
        let node = bench.committee(SHARD).members[0].node;
        (bench, node)
    }

    fn public(node: NodeId, number: usize) -> PublicKey {
        later_key(node, number).public()
    }

    /// Gives a node a key behind the one with a number, for which somebody signs.
    fn gives(
        bench: &mut Bench<Keys>,
        node: NodeId,
        (before, key, signer): (usize, PublicKey, &SecretKey),
    ) -> SignedCommand {
        let cluster = bench.facts.genesis.cluster_id();
        let possession = prove_possession(&cluster, node, &public(node, before), signer);
        bench.signed(0, &BeaconCommand::RotateNodeKey { node, key, possession }, 10_000)
    }

    /// Gives a node its second key.
    fn renew(bench: &mut Bench<Keys>, node: NodeId) {
        let command = gives(bench, node, (0, public(node, 1), later_key(node, 1)));
        bench.beacon(1, &[command], Vec::new());
    }

    #[test]
    fn a_key_is_given_once_and_to_whom_has_it() {
        let (_, node) = bench();
        let other = NodeId((node.0 + 1) % 5);
        let key = |number| (public(node, number), later_key(node, number));
        let ((first, first_secret), (second, second_secret), (third, third_secret)) = (key(0), key(1), key(2));
        let (others, others_secret) = (public(other, 0), later_key(other, 0));
        let before = format!("was node {node}'s before");
        let of_other = format!("was node {other}'s before");
        for (what, given, expected) in [
            ("its next one", vec![(0, second, second_secret)], None),
            ("two, one behind the other", vec![(0, second, second_secret), (1, third, third_secret)], None),
            ("one that another key signs for", vec![(0, second, third_secret)], Some("has not signed for it")),
            (
                "one behind another key than its last",
                vec![(0, second, second_secret), (0, third, third_secret)],
                Some("has not signed for it"),
            ),
            ("the one that it has", vec![(0, first, first_secret)], Some(&before[..])),
            ("one of before", vec![(0, second, second_secret), (1, first, first_secret)], Some(&before[..])),
            ("another node's", vec![(0, others, others_secret)], Some(&of_other[..])),
        ] {
            let (mut bench, node) = bench();
            let commands: Vec<SignedCommand> = given.iter().map(|given| gives(&mut bench, node, *given)).collect();
            bench.beacon(1, &commands, Vec::new());
            expect(what, &bench.found(), expected);
            // Sent again they do nothing.
            bench.beacon(2, &commands, Vec::new());
            expect(what, &bench.found(), None);
        }
        for (what, key, expected) in [
            ("a new node", node_info(7).key, None),
            ("a new node with a key of another one", others, Some(&of_other[..])),
        ] {
            let (mut bench, _) = bench();
            let command = BeaconCommand::RegisterNode(NodeInfo { key, ..node_info(7) });
            let command = bench.signed(0, &command, 10_000);
            bench.beacon(1, &[command], Vec::new());
            expect(what, &bench.found(), expected);
        }
    }

    #[test]
    fn a_committee_names_its_nodes_by_their_own_keys_and_by_none_that_was_replaced_there() {
        let (replaced, foreign) = (Some("by a key that was replaced there"), Some("by a key that was never its own"));
        for (what, numbers, expected) in [
            ("by the one before, until it changes", &[0][..], None),
            ("by the next one", &[0, 1][..], None),
            ("by the next one, and then by the one before", &[1, 0][..], replaced),
            ("by one that it was not given", &[2][..], foreign),
        ] {
            for planned in [false, true] {
                let (mut bench, node) = bench();
                renew(&mut bench, node);
                let mut committee = bench.committee(SHARD);
                for (at, number) in numbers.iter().enumerate() {
                    committee = renamed(&committee, node, public(node, *number));
                    let message = match planned && at + 1 == numbers.len() {
                        true => Message::CommitteePlan(committee.clone()),
                        false => Message::CommitteeUpdate(committee.clone()),
                    };
                    bench.beacon(2, &[], vec![(SHARD, message)]);
                }
                expect(what, &bench.found(), expected);
            }
        }
        for (what, number, expected) in [("who joins", 1, None), ("who joins by an old key", 0, replaced)] {
            let (mut bench, _) = bench();
            let before = bench.committee(SHARD);
            let joins = (0..5).map(NodeId).find(|node| before.index_of(*node).is_none()).expect("it has three of five");
            renew(&mut bench, joins);
            let member = Member { node: joins, org: node_info(joins.0).org, key: public(joins, number) };
            let members = before.members.iter().cloned().chain([member]).collect();
            let next = Committee::of(before.engine, SHARD, before.incarnation, ledger::ids::Epoch(1), members);
            bench.beacon(2, &[], vec![(SHARD, Message::CommitteeUpdate(next))]);
            expect(what, &bench.found(), expected);
        }
    }

    #[test]
    fn no_key_is_dropped_by_which_anybody_names_the_node_in_that_moment() {
        let (mut bench, node) = bench();
        let seats: Vec<Committee> = bench.facts.genesis.committees.clone();
        let seats: Vec<Committee> = seats.into_iter().filter(|seat| seat.index_of(node).is_some()).collect();
        let later: Vec<Committee> = seats.iter().map(|seat| renamed(seat, node, public(node, 1))).collect();
        let gone = |bench: &mut Bench<Keys>, number| {
            bench.see(&Seen::KeyGone { node, key: public(node, number) });
            bench.found()
        };
        let named = Some("still names it by that one");
        seats.iter().for_each(|seat| bench.hands_over(seat, seat));
        renew(&mut bench, node);
        expect("the registry has the next one", &gone(&mut bench, 0), named);
        let mail = later.iter().map(|seat| (SHARD, Message::CommitteeUpdate(seat.clone()))).collect();
        bench.beacon(2, &[], mail);
        expect("no group has heard of it", &gone(&mut bench, 0), named);
        for (at, (seat, next)) in seats.iter().zip(&later).enumerate() {
            bench.hands_over(seat, next);
            let all = at + 1 == seats.len();
            expect("groups have handed over", &gone(&mut bench, 0), if all { None } else { named });
        }
        let mut of_registry = gone(&mut bench, 1);
        assert_eq!(of_registry.len(), 2, "{of_registry:?}");
        expect("a group names it so", &of_registry.split_off(1), named);
        expect("the one that it has", &of_registry, Some("has dropped the key that the registry has of it"));
        assert_eq!(gone(&mut bench, 2), Vec::<String>::new(), "one that it never used");
    }

    #[test]
    fn in_the_end_everybody_is_named_by_the_last_key_unless_a_job_waits() {
        let kind = beacon::JobKind::Split { group: SHARD };
        for (what, moment, waits, renewed, expected) in [
            ("all is done", Moment::End, None, true, None),
            ("a committee has not changed", Moment::End, None, false, Some("still names node")),
            ("it is not the end", Moment::Passing, None, false, None),
            ("a job waits", Moment::End, Some(Phase::Preparing), false, None),
            ("a job has ended", Moment::End, Some(Phase::Done), false, Some("still names node")),
        ] {
            let (mut bench, node) = bench();
            renew(&mut bench, node);
            let seats = bench.facts.genesis.committees.clone();
            let mail = seats
                .iter()
                .filter(|seat| seat.index_of(node).is_some() && (renewed || seat.group != SHARD))
                .map(|seat| (SHARD, Message::CommitteeUpdate(renamed(seat, node, public(node, 1)))));
            bench.beacon(2, &[], mail.collect());
            let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
            if let Some(phase) = waits {
                let bytes = borsh::to_vec(&job(1, kind, phase)).expect("writing to memory does not fail");
                batch.put(job_key(JobId(1)), bytes);
            }
            kv.write(batch).expect("memory takes it");
            bench.audit(GroupId::BEACON, moment, &kv);
            expect(what, &bench.found(), expected);
        }
    }
}

//! Nodes that are accused of having voted twice: the beacon accuses nobody but whoever has, by a proof that its own
//! entry brings and that holds by the bytes, each once; what an accused node signs counts for nothing where it has no
//! seat any more, be it in a decided value or in a certificate; and each group that goes on without it makes blocks.
//!
//! That such a node gets no seat and keeps none is judged with all that come and go (`comings`), and that what honest
//! members know of double votes gets into their group's state, with everything else of such groups (`agreement`). Who
//! signs twice is known from the beginning of a run.

use std::collections::{BTreeMap, BTreeSet};

use beacon::Accusation;
use consensus::bft::Decided;
use ledger::ballot::Equivocation;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};

use super::agreement::{digest, judge, tagged};
use super::{BftSeen, BlockSeen, Checker, Facts, Moment, RawReplica, Seen};

/// Who is accused, and what became of the groups that it had a seat in.
#[derive(Default)]
pub struct Accusations {
    /// Who lies in which group, and whether it signs twice.
    liars: BTreeMap<(NodeId, GroupId), bool>,
    accused: BTreeSet<NodeId>,
    /// Committees that came into force, by the index of the entry.
    in_force: BTreeMap<GroupId, BTreeMap<u64, Hash32>>,
    /// The last block of each group.
    heights: BTreeMap<GroupId, u64>,
    /// The block behind which a group goes on without an accused node.
    without: BTreeMap<GroupId, (u64, NodeId)>,
}

/// The name of a proof, computed here.
fn name(proof: &Equivocation) -> Hash32 {
    tagged(b"seamark/equivocation/v1", &[&digest(&proof.first.ballot).0, &digest(&proof.second.ballot).0])
}

/// Accused nodes among those who have signed for a committee, and are none of it.
fn strangers<'a>(
    accused: &'a BTreeSet<NodeId>,
    committee: &'a Committee,
    signers: impl Iterator<Item = NodeId> + 'a,
) -> impl Iterator<Item = NodeId> + 'a {
    signers.filter(move |node| accused.contains(node) && committee.index_of(*node).is_none())
}

impl Accusations {
    fn accuse(&mut self, facts: &Facts, accusation: &Accusation, proofs: &[Equivocation], found: &mut Vec<String>) {
        let (node, group) = (accusation.node, accusation.group);
        if !self.accused.insert(node) {
            found.push(format!("node {node} is accused once more"));
        }
        if self.liars.get(&(node, group)) != Some(&true) {
            found.push(format!("node {node} is accused of what it did in {group}, where it votes once"));
        }
        let Some(proof) = proofs.iter().find(|proof| name(proof) == accusation.evidence) else {
            return found.push(format!("node {node} is accused by a proof that nobody has brought"));
        };
        if proof.first.ballot.node != node {
            found.push(format!("node {node} is accused by a proof about another one"));
        }
        if let Err(why) = judge(facts, group, proof) {
            found.push(format!("node {node} is accused by a proof that does not hold: {why}"));
        }
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, header) = (block.group, &block.header);
        for accusation in &block.accused.accusations {
            self.accuse(facts, accusation, &block.accused.proofs, found);
        }
        self.heights.insert(group, header.height.0);
        if header.committee_hash == header.next_committee_hash {
            return;
        }
        self.in_force.entry(group).or_default().insert(block.position.index, header.next_committee_hash);
        let before = facts.committee(group, &header.committee_hash);
        if let (Some(before), Some(next)) = (before, facts.committee(group, &header.next_committee_hash)) {
            let left = before.members.iter().map(|member| member.node);
            if let Some(node) = strangers(&self.accused, next, left).next() {
                self.without.insert(group, (header.height.0, node));
            }
        }
    }

    /// Whose precommits have decided a value. What a liar's own replica says is not believed.
    fn decided(&self, facts: &Facts, (by, group): (NodeId, GroupId), decided: &Decided, found: &mut Vec<String>) {
        let index = decided.value.index;
        let since = self.in_force.get(&group).and_then(|known| known.range(..index).next_back());
        let committee = since.map_or_else(|| facts.first_committee(group), |(_, hash)| facts.committee(group, hash));
        let Some(committee) = committee.filter(|_| !self.liars.contains_key(&(by, group))) else { return };
        for node in strangers(&self.accused, committee, decided.signatures.iter().map(|(node, _)| *node)) {
            found.push(format!("node {node} is accused and has no seat in {group}, and decides entry {index}"));
        }
    }

    fn certified(&self, facts: &Facts, group: GroupId, certificate: &Certificate, found: &mut Vec<String>) {
        let Some(committee) = facts.committee(group, &certificate.header.committee_hash) else { return };
        for node in strangers(&self.accused, committee, certificate.signatures.iter().map(|(node, _)| *node)) {
            let height = certificate.header.height;
            found.push(format!("node {node} is accused and has no seat in {group}, and certifies height {height}"));
        }
    }
}

impl Checker for Accusations {
    fn name(&self) -> &'static str {
        "accusations"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if !facts.accused_lose_seats {
            return;
        }
        match seen {
            Seen::Bft(BftSeen::Liar { node, group, signs_twice }) => {
                self.liars.insert((*node, *group), *signs_twice);
            }
            Seen::Bft(BftSeen::Decided { node, group, decided, .. }) => {
                self.decided(facts, (*node, *group), decided, found);
            }
            Seen::Certified { node, group, certificate } if !self.liars.contains_key(&(*node, *group)) => {
                self.certified(facts, *group, certificate, found);
            }
            Seen::Block(block) if first => self.block(facts, block, found),
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, _: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        for (group, (height, node)) in self.without.iter().filter(|(group, _)| !facts.lines.retired(**group)) {
            if self.heights.get(group).is_none_or(|last| last <= height) {
                found.push(format!("{group} has made no block since it goes on without node {node}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use beacon::accused::ACCUSATION_VERSION;
    use cross_shard::Message;
    use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
    use ledger::committee::Member;
    use ledger::crypto::Signature;
    use ledger::ids::{Epoch, Height, OrgId, TimeMs};
    use storage::mem::MemKv;

    use super::super::testing::{Bench, expect};
    use super::super::{AccusedSeen, trial};
    use super::*;
    use crate::cluster::node_key;

    fn shard() -> GroupId {
        GroupId::shard(0)
    }

    /// In a run in which this node votes twice in the first shard.
    fn bench(liar: NodeId) -> Bench<Accusations> {
        let mut bench = Bench::new(Accusations::default());
        bench.facts.accused_lose_seats = true;
        bench.see(&Seen::Bft(BftSeen::Liar { node: liar, group: shard(), signs_twice: true }));
        bench
    }

    fn members(bench: &Bench<Accusations>) -> Vec<NodeId> {
        bench.committee(shard()).members.iter().map(|member| member.node).collect()
    }

    /// Two prevotes of a node, by the key of this one.
    fn twice(bench: &Bench<Accusations>, node: NodeId, key: NodeId) -> Equivocation {
        let committee = bench.committee(shard());
        let ballot = |value: u8| Ballot {
            version: BALLOT_VERSION,
            cluster: bench.facts.genesis.cluster_id(),
            group: committee.group,
            incarnation: committee.incarnation,
            committee: committee.hash(),
            index: 5,
            round: 0,
            kind: BallotKind::Prevote,
            value: Some(Hash32([value; 32])),
            node,
        };
        let [one, other] = [1, 2].map(|value| ballot(value).sign(node_key(key)));
        Equivocation::of(one, other).unwrap()
    }

    /// The beacon's next block, which brings these proofs and accuses this node by one.
    fn accuses(
        bench: &mut Bench<Accusations>,
        height: u64,
        proofs: Vec<Equivocation>,
        by: &Equivocation,
        node: NodeId,
    ) {
        let accusation = Accusation {
            version: ACCUSATION_VERSION,
            node,
            org: OrgId(0),
            group: by.first.ballot.group,
            evidence: by.id(),
            height: Height(height),
            time_ms: TimeMs(1),
        };
        let accused = AccusedSeen { proofs, accusations: vec![accusation] };
        let block = BlockSeen { accused, ..trial::block(GroupId::BEACON, height) };
        bench.see(&Seen::Block(Box::new(block)));
    }

    #[test]
    fn nobody_is_accused_but_by_a_proof_that_holds_and_each_once() {
        let nodes = members(&bench(NodeId(0)));
        let (liar, honest) = (nodes[0], nodes[1]);
        let fresh = || bench(liar);
        let proof = |node: NodeId, key: NodeId| twice(&fresh(), node, key);
        let (good, forged) = (proof(liar, liar), proof(liar, honest));
        for (what, proofs, by, expected) in [
            ("it has voted twice", vec![good], good, None),
            ("nobody has brought it", vec![], good, Some("nobody has brought")),
            ("another one has signed it", vec![forged], forged, Some("does not hold")),
        ] {
            let mut bench = fresh();
            accuses(&mut bench, 1, proofs, &by, liar);
            expect(what, &bench.found(), expected);
        }
        let mut bench = fresh();
        accuses(&mut bench, 1, vec![good], &good, liar);
        accuses(&mut bench, 2, vec![good], &good, liar);
        expect("a second time", &bench.found(), Some("once more"));
        // Whoever votes once is not accused, and by a proof about somebody else least of all.
        let mut bench = fresh();
        accuses(&mut bench, 1, vec![proof(honest, honest)], &proof(honest, honest), honest);
        expect("it votes once", &bench.found(), Some("votes once"));
        let mut bench = fresh();
        accuses(&mut bench, 1, vec![good], &good, honest);
        let found = bench.found();
        assert!(found.iter().any(|text| text.contains("about another one")), "{found:?}");
    }

    #[test]
    fn what_an_accused_node_signs_without_a_seat_counts_nowhere_and_its_group_goes_on() {
        let nodes = members(&bench(NodeId(0)));
        let (liar, honest) = (nodes[0], nodes[1]);
        let mut bench = bench(liar);
        let good = twice(&bench, liar, liar);
        accuses(&mut bench, 1, vec![good], &good, liar);
        let before = bench.committee(shard());
        let others = before.members.iter().filter(|member| member.node != liar).cloned();
        let other = bench.facts.genesis.nodes.iter().find(|node| before.index_of(node.id).is_none()).unwrap();
        let joins = Member { node: other.id, org: other.org, key: other.key };
        let mut seats: Vec<Member> = others.chain([joins]).collect();
        seats.sort_by_key(|member| member.node);
        let after = Committee::of(before.engine, before.group, before.incarnation, Epoch(1), seats);
        let told = Message::CommitteeUpdate(after.clone());
        bench.beacon(2, &[], vec![(shard(), told)]);
        let signed_by = |bench: &mut Bench<Accusations>, committee: &Committee, signers: &[NodeId]| {
            let header = bench.header(shard(), 3, committee, committee);
            let signatures = signers.iter().map(|node| (*node, Signature([1; 64]))).collect();
            let certificate = Box::new(Certificate { version: 1, header, signatures });
            bench.see(&Seen::Certified { node: honest, group: shard(), certificate });
        };
        signed_by(&mut bench, &before, &[liar, honest]);
        expect("in its seat", &bench.found(), None);
        signed_by(&mut bench, &after, &[honest]);
        expect("the others", &bench.found(), None);
        signed_by(&mut bench, &after, &[liar, honest]);
        expect("without a seat", &bench.found(), Some("certifies height"));

        bench.hands_over(&before, &after);
        bench.audit(shard(), Moment::End, &MemKv::new());
        expect("nothing since", &bench.found(), Some("has made no block since"));
        bench.hands_over(&after, &after);
        bench.audit(shard(), Moment::End, &MemKv::new());
        expect("a block since", &bench.found(), None);
    }
}

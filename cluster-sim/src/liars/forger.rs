//! A member that makes things up: ballots and quorums of others, decided values with a proof of something else,
//! certificates of blocks that are none; mail, too (`mail`). Those who have left its group lend it their keys.

use bytes::Bytes;
use consensus::bft::{Body, Decided, Message, Quorum, VALUE_VERSION, Value};
use ledger::ballot::{Ballot, BallotKind, SignedBallot};
use ledger::certificate::Certificate;
use ledger::crypto::Signature;
use ledger::hash::Hash32;
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{Height, LayoutVersion, NodeId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use shard_node::core::entry::{ENTRY_VERSION, Entry};
use shard_node::core::peer::PeerMessage;

use super::{Liar, Ruse, Scene};
use crate::cluster::node_key;
use crate::wire::Wire;
use crate::wire::bft::BftWire;

impl Liar {
    /// Makes something up and tells somebody.
    pub(super) fn forge(&mut self, scene: &Scene<'_>, said: &mut Vec<(NodeId, Wire)>) {
        let Some(to) = self.anybody(scene) else { return };
        let (index, round) = (scene.chain.index + 1, scene.round);
        match self.draw(4) {
            0 => self.forge_decided(scene, to, None, said),
            1 => {
                self.did(Ruse::Votes);
                // A vote of everybody, none of which is theirs.
                let kind = [BallotKind::Prevote, BallotKind::Precommit][self.draw(2) as usize];
                let value = Some(Hash32(self.rng.random()));
                let ballots = self.of_everybody(scene, scene.ballot(index, round, kind, value));
                said.extend(ballots.into_iter().map(|signed| (to, scene.wire(Message::Ballot(signed)))));
            }
            2 => {
                let (ruse, quorum, kind) = [
                    (Ruse::Polka, Quorum::Polka, BallotKind::Prevote),
                    (Ruse::Precommits, Quorum::Precommits, BallotKind::Precommit),
                    (Ruse::Skip, Quorum::Skip, BallotKind::Prevote),
                ][self.draw(3) as usize];
                self.did(ruse);
                let value = Some(Hash32(self.rng.random()));
                let ballots = self.of_everybody(scene, scene.ballot(index, round + 1, kind, value));
                said.push((to, scene.wire(Message::Ballots(quorum, ballots))));
            }
            _ => {
                self.did(Ruse::Certificate);
                let certificate = scene.certificate(&mut self.rng, |_| {});
                let (group, message) = (scene.committee.group, Box::new(PeerMessage::Certified(certificate)));
                said.push((to, Wire::Peer { group, message }));
            }
        }
    }

    /// A ballot as if every member had cast it. The own signature stands for all.
    fn of_everybody(&self, scene: &Scene<'_>, ballot: Ballot) -> Vec<SignedBallot> {
        let own = scene.sign(ballot);
        let nodes = scene.committee.members.iter().map(|member| member.node);
        let theirs = |node: NodeId| SignedBallot { ballot: Ballot { node, ..ballot }, signature: own.signature };
        nodes.map(|node| if node == scene.node { own } else { theirs(node) }).collect()
    }

    /// A value as if it were decided, with the proof of the last one that was; or with the own signature alone. Before it the
    /// same with the proof of an earlier committee, where there can be one; behind it, of what was asked for, the right value
    /// with its proof, as if that were of another round.
    pub(super) fn forge_decided(
        &mut self,
        scene: &Scene<'_>,
        to: NodeId,
        asked: Option<Decided>,
        said: &mut Vec<(NodeId, Wire)>,
    ) {
        self.did(Ruse::DecidedValue);
        let round = 0;
        let batch = Entry { version: ENTRY_VERSION, stamp_ms: scene.time, commands: Vec::new() }.encode();
        let value = Value {
            version: VALUE_VERSION,
            index: scene.chain.index + 1,
            previous: scene.chain.value,
            proposer: scene.chain.turn.proposer(scene.committee, round),
            round,
            heir: None,
            lasted_ms: scene.chain.turn.lasted_ms,
            body: Body::Batch(Bytes::from(batch)),
        };
        let last = scene.log.last().and_then(crate::replica::decided_of);
        let signatures = match last.filter(|_| self.draw(4) > 0) {
            Some(last) => last.signatures,
            None => {
                let own = scene.sign(scene.ballot(value.index, round, BallotKind::Precommit, Some(value.id())));
                let nodes = scene.committee.members.iter().map(|member| member.node);
                nodes.map(|node| (node, own.signature)).collect()
            }
        };
        let reached = value.index + 1;
        let mut values: Vec<Decided> = self.by_former(scene, &value, round).into_iter().collect();
        values.push(Decided { value, round, signatures });
        values.extend(asked.map(|right| Decided { round: right.round + 1, ..right }));
        said.push((to, scene.bft(BftWire::Answer { reached, votes: true, values: Some(values) })));
    }

    /// A value with the proof of a committee that was in force before, where those who have left it, and this node, are as many
    /// as decided there. Whoever has left is counted on by nobody, so its key is the liar's as well.
    fn by_former(&self, scene: &Scene<'_>, value: &Value, round: u32) -> Option<Decided> {
        let owned = |node: &NodeId| *node == scene.node || scene.committee.index_of(*node).is_none();
        self.former.iter().filter(|former| *former != scene.committee).find_map(|former| {
            let ballot = scene.ballot(value.index, round, BallotKind::Precommit, Some(value.id()));
            let ballot = Ballot { committee: former.hash(), incarnation: former.incarnation, ..ballot };
            let signers = former.members.iter().map(|member| member.node).filter(owned);
            let signed = signers.map(|node| (node, Ballot { node, ..ballot }.sign(node_key(node)).signature));
            let signatures: Vec<(NodeId, Signature)> = signed.collect();
            let enough = signatures.len() >= usize::from(former.threshold);
            enough.then(|| Decided { value: value.clone(), round, signatures })
        })
    }
}

impl Scene<'_> {
    /// A certificate of a block that is none: signed by this node, and by nobody else in the names of all. `change` says what is
    /// in the block.
    pub(super) fn certificate(&self, rng: &mut ChaCha8Rng, change: impl FnOnce(&mut Header)) -> Certificate {
        let mut header = Header {
            version: HEADER_VERSION,
            cluster: self.cluster,
            group: self.committee.group,
            incarnation: self.committee.incarnation,
            height: Height(1 + u64::from(rng.random_range(0..200_u32))),
            parents: vec![Hash32(rng.random())],
            time_ms: self.time,
            layout_version: LayoutVersion(1),
            batch_root: Hash32::default(),
            receipts_root: Hash32::default(),
            state_root: Hash32(rng.random()),
            outbox_root: Hash32::default(),
            inbox_cursors_root: Hash32::default(),
            value_flow: Vec::new(),
            congestion: Vec::new(),
            committee_hash: self.committee.hash(),
            next_committee_hash: self.committee.hash(),
            flags: 0,
        };
        change(&mut header);
        let own = node_key(self.node).sign(&header.hash());
        let signature = |node: NodeId| if node == self.node { own } else { Signature([5; 64]) };
        let nodes = self.committee.members.iter().map(|member| member.node);
        Certificate { version: 1, signatures: nodes.map(|node| (node, signature(node))).collect(), header }
    }
}

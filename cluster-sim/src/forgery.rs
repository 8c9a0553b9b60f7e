//! Mail that nobody may take: altered by the anchor that serves it, or signed by the replicas of an
//! incarnation that has ended.
//!
//! The forger knows everything, keys included: what it makes is as good as a forgery can be.

use cross_shard::bundle::{AckProof, Bundle};
use cross_shard::commit::{self, Decision};
use cross_shard::stream;
use cross_shard::{Message, Vote};
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::header::Header;
use ledger::ids::{GroupId, Incarnation, NodeId};
use ledger::merkle;
use ledger::reject::Reject;
use ledger::rules::Credit;
use ledger::schema;
use ledger::tx::{ParsedTx, Slot};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use shard_node::core::applied::AppliedRecord;
use shard_node::core::entry::Command;
use shard_node::core::peer::PeerMessage;

use crate::checkers::own;
use crate::cluster::{ended, node_key};
use crate::replica::Replica;
use crate::state;
use crate::wire::{Endpoint, Wire};
use crate::world::World;

/// Changes something about a bundle.
pub(crate) fn alter(rng: &mut ChaCha8Rng, bundle: &mut Bundle) {
    let at = rng.random_range(0..bundle.messages.len().max(1));
    match rng.random_range(0..6) {
        0 => {
            if let Some(byte) = bundle.messages.get_mut(at).and_then(|message| message.last_mut()) {
                *byte ^= 1;
            }
        }
        1 => {
            if let Some(message) = bundle.messages.get_mut(at)
                && let Ok(Message::Vote(mut vote)) = borsh::from_slice(message)
            {
                vote.decision = match vote.decision {
                    Decision::Yes => Decision::No(Reject::Conflict),
                    Decision::No(_) => Decision::Yes,
                };
                *message = Message::Vote(vote).encode();
            }
        }
        2 => {
            bundle.messages.pop();
        }
        3 => bundle.first_seq += 1,
        4 => bundle.proof.clear(),
        _ => {
            if let Some((_, signature)) = bundle.certificate.signatures.first_mut() {
                signature.0[0] ^= 1;
            }
        }
    }
}

/// Replicas of an ended incarnation and what they sign now.
struct Ghost {
    committee: Committee,
    header: Header,
}

impl Ghost {
    fn certify(&self, change: impl FnOnce(&mut Header)) -> Certificate {
        let mut header = self.header.clone();
        header.incarnation = Incarnation(0);
        header.committee_hash = self.committee.hash();
        header.next_committee_hash = self.committee.hash();
        header.height.0 += 1;
        header.time_ms.0 += 1;
        change(&mut header);
        let digest = header.hash();
        let members = self.committee.members.iter().take(usize::from(self.committee.threshold));
        let signatures = members.map(|member| (member.node, node_key(member.node).sign(&digest))).collect();
        Certificate { version: 1, header, signatures }
    }

    /// The message as the next one of the stream, as if it had been sent.
    fn bundle(&self, mut cursor: stream::InCursor, dest: GroupId, message: &Message) -> Option<Bundle> {
        let bytes = message.encode();
        let first_seq = cursor.next_seq;
        cursor.push(&bytes);
        let leaf = cursor.leaf(dest);
        let certificate = self.certify(|header| header.outbox_root = stream::root(&[leaf]));
        Some(Bundle {
            version: 2,
            source: self.committee.group,
            dest,
            first_seq,
            messages: vec![bytes],
            proof: Vec::new(),
            leaf,
            path: merkle::prove(&[leaf.hash()], 0)?,
            certificate,
        })
    }

    /// A proof that everything has been taken which the receiver ever sent.
    fn ack(&self, dest: GroupId, sent: stream::OutStream) -> Option<AckProof> {
        let leaf = sent.leaf(dest);
        let certificate = self.certify(|header| header.inbox_cursors_root = stream::root(&[leaf]));
        Some(AckProof { version: 1, leaf, path: merkle::prove(&[leaf.hash()], 0)?, certificate })
    }
}

impl World {
    /// Replicas of an ended incarnation of one shard send mail to another, or prove that they took
    /// some, through the network or with the help of a leader there that sequences anything.
    pub(crate) fn haunt(&mut self, source: u32, dest: u32) {
        let shards: Vec<GroupId> = self.genesis.layout.shards.iter().map(|shard| shard.group).collect();
        let source = shards[source as usize % shards.len()];
        let others: Vec<GroupId> = shards.into_iter().filter(|shard| *shard != source).collect();
        if others.is_empty() {
            return;
        }
        let dest = others[dest as usize % others.len()];
        let Some(leader) = self.leader_of(dest) else { return };
        let (commands, message) = match self.forged(source, dest, leader) {
            Some(forged) => forged,
            None => return,
        };
        self.coverage.ghosts += 1;
        if self.rng.random() {
            let commands = vec![commands];
            self.on_node(leader, None, |node, now_ms, out| {
                node.with(now_ms, dest, out, |replica, now, out| replica.inject(now, commands, out));
            });
        } else if let Some(from) = self.genesis.committee(source).and_then(|committee| committee.members.first()) {
            let from = Endpoint::Node(from.node);
            let wire = Wire::Peer { group: dest, message: Box::new(message) };
            self.send(from, Endpoint::Node(leader), wire);
        }
    }

    fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        let leads = |node: &&crate::node::Node| node.replicas.get(&group).is_some_and(Replica::leads);
        self.nodes.values().find(leads).map(|node| node.id)
    }

    fn forged(&mut self, source: GroupId, dest: GroupId, leader: NodeId) -> Option<(Command, PeerMessage)> {
        let committee = ended(self.genesis.committee(source)?);
        let replica = self.nodes.values().find_map(|node| node.replicas.get(&source))?;
        let applied: AppliedRecord = state::load(&replica.kv, &schema::applied()).ok()?;
        let header: Header = state::load(&replica.kv, &schema::header(applied.height)).ok()?;
        let ghost = Ghost { committee, header };
        let there = &self.nodes.get(&leader)?.replicas.get(&dest)?.kv;
        if self.rng.random_range(0..3) == 0 {
            let sent = state::find(there, &schema::outbox(source)).ok()??;
            let proof = ghost.ack(dest, sent)?;
            let bytes = borsh::to_vec(&proof).ok()?;
            return Some((Command::Ack(bytes), PeerMessage::Ack(proof)));
        }
        let cursor = state::find(there, &schema::inbox(source)).ok()?.unwrap_or_default();
        let message = self.wish(source, dest)?;
        let bundle = ghost.bundle(cursor, dest, &message)?;
        let bytes = borsh::to_vec(&bundle).ok()?;
        Some((Command::Deliver(bytes), PeerMessage::Bundle(bundle)))
    }

    /// What a ghost would like the destination to believe: a vote on something that both vote on, or
    /// that somebody there was paid.
    fn wish(&mut self, source: GroupId, dest: GroupId) -> Option<Message> {
        let facts = self.checkers.facts();
        let both = |groups: &[GroupId]| groups.contains(&source) && groups.contains(&dest);
        let shared: Vec<u32> = facts.txs.values().filter(|tx| both(&tx.voters)).map(|tx| tx.operation).collect();
        let operations = std::rc::Rc::clone(&self.operations);
        if let Some(index) = shared.choose(&mut self.rng)
            && self.rng.random_range(0..4) > 0
        {
            let operation = &operations[*index as usize];
            let tx = ParsedTx::decode(&self.genesis.cluster_id(), &operation.bytes).ok()?;
            let legs = commit::legs_where(&tx.body, |slot, account| match (slot, account) {
                (Slot::Clear { .. }, Some(account)) => own::home(&self.genesis, &account) == source,
                (Slot::Hidden { group, .. }, _) => *group == source,
                (Slot::Clear { .. }, None) => false,
            });
            let decision = if self.rng.random() { Decision::Yes } else { Decision::No(Reject::Conflict) };
            return Some(Message::Vote(Vote { txid: tx.txid, tx: tx.signed(), legs, decision }));
        }
        let paid = operations.iter().find_map(|operation| {
            let trace = own::traces(operation)
                .into_iter()
                .find(|trace| trace.kind == own::Kind::Credited && own::home(&self.genesis, &trace.account) == dest)?;
            Some((operation.txid, trace))
        });
        let (txid, trace) = paid?;
        let credit = Credit { txid, move_index: 0, account: trace.account, asset: trace.asset, amount: 7 };
        Some(Message::Credit(credit))
    }
}

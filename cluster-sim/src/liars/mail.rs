//! Mail that a member makes up in the name of its group: an amount for somebody in another shard, or word that more was taken than
//! was. The leaf is its own, and so is the certificate over it, but for the signatures of all others.

use cross_shard::Message;
use cross_shard::bundle::{AckProof, Bundle};
use cross_shard::stream::{self, InCursor, OutStream};
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{AssetId, GroupId, GroupKind, NodeId, TxId};
use ledger::layout::Layout;
use ledger::merkle;
use ledger::rules::Credit;
use ledger::schema;
use rand::Rng;
use rand::seq::IndexedRandom;
use shard_node::core::peer::PeerMessage;

use super::{Liar, Ruse, Scene};
use crate::cluster::account_secrets;
use crate::state;
use crate::wire::Wire;

/// An amount that would show in the books of whoever took it.
const AMOUNT: u128 = 1_000_003;

impl Liar {
    /// Makes mail up for another shard, and gives it to all of its members: one of them leads.
    pub(super) fn forge_mail(&mut self, scene: &Scene<'_>, said: &mut Vec<(NodeId, Wire)>) {
        let Some(dest) = self.addressee(scene) else { return };
        let group = dest.group;
        let (ruse, made) = if self.more.random() {
            (Ruse::ForgedMail, self.bundle(scene, group))
        } else {
            (Ruse::ForgedAck, self.ack(scene, group))
        };
        let Some(message) = made else { return };
        self.did(ruse);
        let others = dest.members.iter().map(|member| member.node).filter(|node| *node != scene.node);
        said.extend(others.map(|node| (node, Wire::Peer { group, message: Box::new(message.clone()) })));
    }

    /// Another shard that its group knows.
    fn addressee(&mut self, scene: &Scene<'_>) -> Option<Committee> {
        let known = state::scan(scene.kv, schema::CURRENT_COMMITTEES_PREFIX).into_iter();
        let known = known.filter_map(|(_, value)| borsh::from_slice::<Committee>(&value).ok());
        let other =
            |known: &Committee| known.group.kind() == Some(GroupKind::Shard) && known.group != scene.committee.group;
        let others: Vec<Committee> = known.filter(other).collect();
        others.choose(&mut self.more).cloned()
    }

    /// A credit as the next message of its group, where all before it was taken.
    fn bundle(&mut self, scene: &Scene<'_>, dest: GroupId) -> Option<PeerMessage> {
        let sent: OutStream = state::find(scene.kv, &schema::outbox(dest)).ok()?.unwrap_or_default();
        let layout: Layout = state::load(scene.kv, &schema::layout()).ok()?;
        let account = account_secrets().keys().find(|account| layout.locate(account) == dest).copied()?;
        let asset = self.payer(scene).map_or(AssetId([7; 16]), |payer| payer.asset);
        let txid = TxId(Hash32(self.more.random()));
        let bytes = Message::Credit(Credit { txid, move_index: 0, account, asset, amount: AMOUNT }).encode();
        let mut cursor = InCursor { next_seq: sent.next_seq, peaks: sent.peaks };
        let first_seq = cursor.next_seq;
        cursor.push(&bytes);
        let leaf = cursor.leaf(dest);
        Some(PeerMessage::Bundle(Bundle {
            version: 2,
            source: scene.committee.group,
            dest,
            first_seq,
            messages: vec![bytes],
            proof: Vec::new(),
            leaf,
            path: merkle::prove(&[leaf.hash()], 0)?,
            certificate: scene.certificate(&mut self.more, |header| header.outbox_root = stream::root(&[leaf])),
        }))
    }

    /// That its group has taken as much of that shard as it has, or one message more.
    fn ack(&mut self, scene: &Scene<'_>, dest: GroupId) -> Option<PeerMessage> {
        let mut taken: InCursor = state::find(scene.kv, &schema::inbox(dest)).ok()?.unwrap_or_default();
        if self.more.random() {
            taken.push(b"never sent");
        }
        let leaf = taken.leaf(dest);
        Some(PeerMessage::Ack(AckProof {
            version: 1,
            leaf,
            path: merkle::prove(&[leaf.hash()], 0)?,
            certificate: scene.certificate(&mut self.more, |header| header.inbox_cursors_root = stream::root(&[leaf])),
        }))
    }
}

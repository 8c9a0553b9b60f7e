//! Groups with real keys, committees and certificates, without an account machine.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;

use bytes::Bytes;
use cross_shard::range::Nodes;
use cross_shard::stream::{self, StreamLeaf, inbox_leaves, outbox_leaves};
use cross_shard::{AckProof, Bundle, Message};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Address, AssetId, ClusterId, Epoch, GroupId, Height, Incarnation, LayoutVersion, NodeId, OrgId};
use ledger::ids::{TimeMs, TxId};
use ledger::rules::Credit;
use ledger::view::View;
use ledger::{Certificate, Committee, Header, Member, SecretKey, merkle, schema};

#[path = "../../../ledger/tests/support/vectors.rs"]
pub mod vectors;

pub type State = BTreeMap<Vec<u8>, Bytes>;

/// Runs `f` on a view of the state, writes what it wrote, and tells whether it wrote anything.
pub fn with_view<R>(state: &mut State, f: impl FnOnce(&mut View<'_>) -> R) -> (R, bool) {
    let (result, writes) = {
        let mut view = View::new(&*state);
        let result = f(&mut view);
        (result, view.into_writes().expect("a map does not fail"))
    };
    let wrote = !writes.is_empty();
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
    (result, wrote)
}

pub fn credit(number: u64) -> Message {
    Message::Credit(Credit {
        txid: TxId(sha256(&number.to_le_bytes())),
        move_index: 0,
        account: Address([number.to_le_bytes()[0]; 20]),
        asset: AssetId([1; 16]),
        amount: u128::from(number) + 1,
    })
}

/// What a group certified at one time: its header, and the streams below both roots.
#[derive(Clone)]
pub struct Certified {
    pub certificate: Certificate,
    pub outbox: Vec<StreamLeaf>,
    pub inbox: Vec<StreamLeaf>,
}

/// A group of three replicas.
pub struct Group {
    pub id: GroupId,
    pub state: State,
    pub committee: Committee,
    keys: Vec<SecretKey>,
    height: u64,
}

impl Group {
    pub fn new(ordinal: u32) -> Self {
        Self::of_incarnation(ordinal, 0)
    }

    /// The group in one of its lives, each with replicas of its own.
    pub fn of_incarnation(ordinal: u32, incarnation: u32) -> Self {
        let id = GroupId::shard(ordinal);
        let life = (ordinal + 1_000 * incarnation).to_le_bytes();
        let keys: Vec<_> = (0..3u8).map(|node| SecretKey::derive(&[node], &life)).collect();
        let members =
            (1..).zip(&keys).map(|(node, key)| Member { node: NodeId(node), org: OrgId(0), key: key.public() });
        let committee = Committee::majority(id, Incarnation(incarnation), Epoch(0), members.collect());
        Self { id, state: State::new(), committee, keys, height: 0 }
    }

    /// Makes another group's committee known, as the beacon's mail would.
    pub fn learn(&mut self, committee: &Committee) {
        let key = schema::committee(committee.group, &committee.hash());
        with_view(&mut self.state, |view| view.store(key, committee));
    }

    pub fn emit(&mut self, dest: GroupId, message: Vec<u8>) -> u64 {
        with_view(&mut self.state, |view| stream::emit(view, dest, message)).0
    }

    /// Makes a block whose header commits to the streams as they are, signed by two of three.
    pub fn certify(&mut self) -> Certified {
        let ((outbox, inbox), _) = with_view(&mut self.state, |view| (outbox_leaves(view), inbox_leaves(view)));
        self.height += 1;
        let header = Header {
            version: 1,
            cluster: ClusterId(Hash32([9; 32])),
            group: self.id,
            incarnation: self.committee.incarnation,
            height: Height(self.height),
            parents: vec![Hash32::ZERO],
            time_ms: TimeMs(self.height),
            layout_version: LayoutVersion(1),
            batch_root: Hash32::ZERO,
            receipts_root: Hash32::ZERO,
            state_root: Hash32::ZERO,
            outbox_root: stream::root(&outbox),
            inbox_cursors_root: stream::root(&inbox),
            value_flow: Vec::new(),
            congestion: Vec::new(),
            committee_hash: self.committee.hash(),
            next_committee_hash: self.committee.hash(),
            flags: 0,
        };
        let digest = header.hash();
        let signatures = (1..).zip(&self.keys).take(2).map(|(node, key)| (NodeId(node), key.sign(&digest)));
        let certificate = Certificate { version: 1, header, signatures: signatures.collect() };
        Certified { certificate, outbox, inbox }
    }

    /// Sequence number, in state, of the next message to take from a source.
    pub fn cursor(&mut self, source: GroupId) -> u64 {
        with_view(&mut self.state, |view| stream::in_cursor(view, source).next_seq).0
    }

    pub fn deliver(&mut self, bundle: &Bundle) -> (Result<Vec<(u64, Message)>, ledger::Reject>, bool) {
        let me = self.id;
        with_view(&mut self.state, |view| bundle.deliver(view, me))
    }

    pub fn acknowledge(&mut self, ack: &AckProof) -> (Result<u64, ledger::Reject>, bool) {
        let me = self.id;
        with_view(&mut self.state, |view| ack.apply(view, me))
    }
}

fn leaf_of(leaves: &[StreamLeaf], peer: GroupId) -> Option<(StreamLeaf, merkle::MerklePath)> {
    let at = leaves.iter().position(|leaf| leaf.peer == peer)?;
    let hashes: Vec<_> = leaves.iter().map(StreamLeaf::hash).collect();
    Some((leaves[at], merkle::prove(&hashes, at)?))
}

/// Messages `first..end` of everything sent to `dest`, under what the source certified.
pub fn bundle(at: &Certified, sent: &[Vec<u8>], dest: GroupId, first: usize, end: usize) -> Bundle {
    let (leaf, path) = leaf_of(&at.outbox, dest).expect("the stream exists");
    let head = usize::try_from(leaf.next_seq).expect("small");
    let end = end.min(head);
    let mut nodes = Nodes::starting_at(0);
    sent.iter().for_each(|message| nodes.push(stream::message_hash(message)));
    Bundle {
        version: 2,
        source: at.certificate.header.group,
        dest,
        first_seq: first as u64,
        messages: sent[first.min(end)..end].to_vec(),
        proof: nodes.proof(end as u64, leaf.next_seq).expect("all of it is kept"),
        leaf,
        path,
        certificate: at.certificate.clone(),
    }
}

/// The acknowledgement for `source` under what the destination certified.
pub fn ack(at: &Certified, source: GroupId) -> Option<AckProof> {
    let (leaf, path) = leaf_of(&at.inbox, source)?;
    Some(AckProof { version: 1, leaf, path, certificate: at.certificate.clone() })
}

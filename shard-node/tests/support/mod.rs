//! Keys, committees, a small genesis, headers, certificates and mail that the tests share. Unit
//! tests of the core include this file too, so it names nothing of this crate.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use cross_shard::range::Nodes;
use cross_shard::stream::{self, StreamLeaf};
use cross_shard::{AckProof, Bundle, InCursor, Message};
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256};
use ledger::header::HEADER_VERSION;
use ledger::ids::{
    Address, AssetId, ClusterId, Epoch, GroupId, Height, Incarnation, LayoutVersion, LedgerId, NodeId, OrgId, TimeMs,
    TxId,
};
use ledger::merkle::{self, MerklePath};
use ledger::rules::Credit;
use ledger::{
    Attestation, Authorisation, Certificate, Committee, Engine, Header, Layout, Member, Move, SecretKey, SignedTx,
    Slot, TxBody,
};

/// Time of the genesis; blocks come after it.
pub const NOW: TimeMs = TimeMs(1_700_000_000_000);
/// The group under test in most tests: nodes 1, 2 and 3.
pub const SHARD: GroupId = GroupId::shard(0);
/// Another group: nodes 4, 5 and 6.
pub const PEER: GroupId = GroupId::shard(1);

/// All groups, in order.
pub const GROUPS: [GroupId; 3] = [GroupId::BEACON, SHARD, PEER];

/// The nodes of a group. No node is in two groups, so that membership can be told apart.
pub fn nodes(group: GroupId) -> [u32; 3] {
    match group {
        SHARD => [1, 2, 3],
        PEER => [4, 5, 6],
        _ => [7, 8, 9],
    }
}

pub fn node_key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"node")
}

pub fn client_key(seed: u8) -> SecretKey {
    SecretKey::derive(&[seed], b"client")
}

pub fn committee(group: GroupId, epoch: u64) -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(0), key: node_key(node).public() };
    Committee::majority(group, Incarnation(0), Epoch(epoch), nodes(group).map(member).to_vec())
}

pub fn committees() -> Vec<Committee> {
    GROUPS.map(|group| committee(group, 0)).to_vec()
}

pub fn genesis_named(name: &str, verify: VerifyMode) -> Genesis {
    let node = |id: u32| NodeInfo {
        id: NodeId(id),
        org: OrgId(0),
        zone: "z".to_owned(),
        capacity: 1,
        key: node_key(id).public(),
        tls_key_hash: sha256(&id.to_le_bytes()),
        peer_addr: format!("127.0.0.1:{}", 7000 + id),
        client_addr: format!("127.0.0.1:{}", 8000 + id),
    };
    let org =
        OrgInfo { id: OrgId(0), name: "Alpha".to_owned(), ca_pem: "PEM".to_owned(), admin_key: node_key(99).public() };
    Genesis {
        version: 1,
        name: name.to_owned(),
        created_ms: NOW,
        seed: Hash32([1; 32]),
        orgs: vec![org],
        nodes: (1..=9).map(node).collect(),
        committees: committees(),
        layout: Layout::even(2),
        verify,
        policies: Default::default(),
    }
}

pub fn genesis() -> Genesis {
    genesis_named("test", VerifyMode::Ingest)
}

/// A header of a group that says nothing yet.
pub fn header(group: GroupId, height: u64) -> Header {
    let committee_hash = committee(group, 0).hash();
    Header {
        version: HEADER_VERSION,
        cluster: genesis().cluster_id(),
        group,
        incarnation: Incarnation(0),
        height: Height(height),
        parents: vec![Hash32::ZERO],
        time_ms: TimeMs(NOW.0 + height),
        layout_version: LayoutVersion(1),
        batch_root: merkle::root(&[]),
        receipts_root: merkle::root(&[]),
        state_root: Hash32::ZERO,
        outbox_root: stream::root(&[]),
        inbox_cursors_root: stream::root(&[]),
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash,
        next_committee_hash: committee_hash,
        flags: 0,
    }
}

pub fn attestation(node: u32, header: &Header) -> Attestation {
    let header_hash = header.hash();
    let signature = node_key(node).sign(&header_hash);
    Attestation { group: header.group, height: header.height, header_hash, node: NodeId(node), signature }
}

/// A certificate by the first two nodes of the header's group.
pub fn certify(header: Header) -> Certificate {
    let digest = header.hash();
    let signers = &nodes(header.group)[..2];
    let signatures = signers.iter().map(|node| (NodeId(*node), node_key(*node).sign(&digest))).collect();
    Certificate { version: 1, header, signatures }
}

/// Nodes 1 to 4 as members of [`SHARD`] under the Byzantine engine.
pub fn liars() -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(0), key: node_key(node).public() };
    Committee::of(Engine::Bft, SHARD, Incarnation(0), Epoch(0), (1..=4).map(member).collect())
}

/// A proof that a node has voted twice in [`liars`].
pub fn twice(node: u32) -> Equivocation {
    let committee = liars();
    let ballot = |value: u8| Ballot {
        version: BALLOT_VERSION,
        cluster: genesis().cluster_id(),
        group: SHARD,
        incarnation: committee.incarnation,
        committee: committee.hash(),
        index: 5,
        round: 0,
        kind: BallotKind::Prevote,
        value: Some(Hash32([value; 32])),
        node: NodeId(node),
    };
    let [one, other] = [1, 2].map(|value| ballot(value).sign(&node_key(node)));
    Equivocation::of(one, other).expect("they exclude each other")
}

/// Encoded credits with different contents.
pub fn credits(count: u64) -> Vec<Vec<u8>> {
    let credit = |number: u64| Credit {
        txid: TxId(sha256(&number.to_le_bytes())),
        move_index: 0,
        account: Address([2; 20]),
        asset: AssetId([1; 16]),
        amount: u128::from(number) + 1,
    };
    (0..count).map(|number| Message::Credit(credit(number)).encode()).collect()
}

/// The head of a stream of these messages.
pub fn stream_head(peer: GroupId, messages: &[Vec<u8>]) -> StreamLeaf {
    cursor_behind(messages).leaf(peer)
}

/// The cursor behind these messages.
pub fn cursor_behind(messages: &[Vec<u8>]) -> InCursor {
    let mut cursor = InCursor::default();
    messages.iter().for_each(|message| cursor.push(message));
    cursor
}

pub fn path_to(leaves: &[StreamLeaf], peer: GroupId) -> (StreamLeaf, MerklePath) {
    let index = leaves.iter().position(|leaf| leaf.peer == peer).expect("the stream exists");
    let hashes: Vec<Hash32> = leaves.iter().map(StreamLeaf::hash).collect();
    (leaves[index], merkle::prove(&hashes, index).expect("the leaf exists"))
}

/// Messages `first..end` of everything that `certificate`'s group has sent to `dest`.
pub fn bundle(
    certificate: Certificate,
    outbox: &[StreamLeaf],
    sent: &[Vec<u8>],
    dest: GroupId,
    first: usize,
    end: usize,
) -> Bundle {
    let (leaf, path) = path_to(outbox, dest);
    let mut nodes = Nodes::starting_at(0);
    sent.iter().for_each(|message| nodes.push(stream::message_hash(message)));
    Bundle {
        version: 2,
        source: certificate.header.group,
        dest,
        first_seq: first as u64,
        messages: sent[first..end].to_vec(),
        proof: nodes.proof(end as u64, leaf.next_seq).expect("all of it is kept"),
        leaf,
        path,
        certificate,
    }
}

/// Mail from [`PEER`] to [`SHARD`], under a header of the committee given.
pub fn bundle_from_peer(committee: &Committee, sent: &[Vec<u8>], first: usize, end: usize) -> Bundle {
    let outbox = [stream_head(SHARD, sent)];
    let header = Header {
        outbox_root: stream::root(&outbox),
        committee_hash: committee.hash(),
        ..header(PEER, sent.len() as u64)
    };
    bundle(certify(header), &outbox, sent, SHARD, first, end)
}

/// The proof that [`PEER`] has taken these messages of [`SHARD`].
pub fn ack_from_peer(taken: &[Vec<u8>]) -> AckProof {
    let inbox = [stream_head(SHARD, taken)];
    let header = Header { inbox_cursors_root: stream::root(&inbox), ..header(PEER, 50) };
    let (leaf, path) = path_to(&inbox, SHARD);
    AckProof { version: 1, leaf, path, certificate: certify(header) }
}

pub fn address(key: &SecretKey) -> Address {
    Authorisation::Single(key.public()).address()
}

/// A client whose account lies in this shard.
pub fn client_of(shard: GroupId) -> SecretKey {
    (0..=u8::MAX)
        .map(client_key)
        .find(|key| Layout::even(2).locate(&address(key)) == shard)
        .expect("half of all keys belong to each of two shards")
}

/// A transaction by one key; `salt` tells equal ones apart.
pub fn transaction(cluster: ClusterId, ledger: LedgerId, key: &SecretKey, salt: u8, moves: Vec<Move>) -> SignedTx {
    let body = TxBody {
        version: 1,
        cluster,
        valid_until_ms: TimeMs(NOW.0 + 60_000),
        salt: [salt; 16],
        slots: moves.into_iter().map(|mv| Slot::Clear { ledger, mv }).collect(),
        memo: Vec::new(),
    };
    SignedTx::sign(&body, &[key])
}

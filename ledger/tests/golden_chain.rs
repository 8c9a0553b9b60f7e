//! Golden vectors of the chain itself: headers, certificates, committees, layout, genesis, and the
//! roots over the items of a block.

mod support;

use ledger::certificate::Attestation;
use ledger::flow::{FlowHead, FlowLine, SealedFlow, next_salt};
use ledger::genesis::{NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Epoch, GroupId, Height, Incarnation, LayoutVersion, NodeId, OrgId};
use ledger::layout::{Layout, Lineage};
use ledger::{Certificate, Committee, FoundedGroup, Header, Member, merkle};
use support::vectors::Vectors;
use support::{asset_def, cluster, key, single};

fn committee() -> Committee {
    let member =
        |node: u8| Member { node: NodeId(node.into()), org: OrgId(u16::from(node) % 2), key: key(node).public() };
    Committee::majority(GroupId::shard(1), Incarnation(2), Epoch(3), [3, 1, 2].map(member).to_vec())
}

fn flow() -> FlowLine {
    let line = FlowLine {
        asset: asset_def(single(1).address(), "EUR").id,
        opening: 100,
        closing: 90,
        minted: 5,
        burned: 6,
        imported: vec![(GroupId::shard(0), 1)],
        exported: vec![(GroupId::shard(0), 3), (GroupId::shard(2), 7)],
    };
    assert!(line.balances());
    line
}

fn header() -> Header {
    Header {
        version: 1,
        cluster: cluster(),
        group: GroupId::shard(1),
        incarnation: Incarnation(2),
        height: Height(4),
        parents: vec![Hash32([5; 32])],
        time_ms: support::NOW,
        layout_version: LayoutVersion(6),
        batch_root: Hash32([7; 32]),
        receipts_root: Hash32([8; 32]),
        state_root: Hash32([9; 32]),
        outbox_root: Hash32([10; 32]),
        inbox_cursors_root: Hash32([11; 32]),
        value_flow: vec![flow()],
        congestion: vec![(GroupId::shard(2), 50)],
        committee_hash: committee().hash(),
        next_committee_hash: committee().hash(),
        flags: 0,
    }
}

fn certificate() -> Certificate {
    let header = header();
    let digest = header.hash();
    let signatures = [1u8, 3].map(|node| (NodeId(node.into()), key(node).sign(&digest))).to_vec();
    Certificate { version: 1, header, signatures }
}

fn layout() -> Layout {
    let mut layout = Layout::even(3);
    layout.version = LayoutVersion(2);
    layout.lineage.push(Lineage {
        group: GroupId::shard(9),
        prefix: layout.shards[0].prefix,
        until: LayoutVersion(2),
        successors: vec![GroupId::shard(0), GroupId::shard(1)],
    });
    layout
}

#[test]
fn headers_and_certificates() {
    let mut vectors = Vectors::open("chain.json");
    vectors.format("flow", &flow(), "");
    let salt = next_salt(&next_salt(&Hash32::ZERO, b"an entry"), b"another entry");
    let sealed = SealedFlow { version: 1, salt, lines: vec![flow()] };
    vectors.format("flow/sealed", &sealed, &sealed.commitment(Height(4)).to_string());
    let head = FlowHead::default().after(&sealed.commitment(Height(4)));
    vectors.format("flow/head", &head, "");
    vectors.format("header", &header(), &header().hash().to_string());
    let mut merged = header();
    merged.parents.push(Hash32([12; 32]));
    merged.value_flow.clear();
    vectors.format("header/merged", &merged, &merged.hash().to_string());
    let certificate = certificate();
    assert_eq!(certificate.verify(&committee()), Ok(()));
    vectors.format("certificate", &certificate, "");
    let attestation = Attestation {
        group: GroupId::shard(1),
        height: Height(4),
        header_hash: header().hash(),
        node: NodeId(1),
        signature: key(1).sign(&header().hash()),
    };
    vectors.format("attestation", &attestation, "");
    vectors.format("committee", &committee(), &committee().hash().to_string());
    let (committee, foundation) = (Hash32([7; 32]), Hash32([8; 32]));
    let founded = FoundedGroup { version: 1, group: GroupId::channel(5), committee, foundation };
    vectors.format("founded group", &founded, "");
    vectors.finish();
}

#[test]
fn layouts_and_genesis() {
    let mut vectors = Vectors::open("genesis.json");
    for shards in [1, 3, 4] {
        vectors.format(&format!("layout/even {shards}"), &Layout::even(shards), "");
    }
    vectors.format("layout/with lineage", &layout(), "");
    let genesis = ledger::genesis::Genesis {
        version: 1,
        name: "test".to_owned(),
        created_ms: support::NOW,
        seed: Hash32([1; 32]),
        orgs: vec![OrgInfo {
            id: OrgId(0),
            name: "Alpha".to_owned(),
            ca_pem: "PEM".to_owned(),
            admin_key: key(9).public(),
        }],
        nodes: vec![NodeInfo {
            id: NodeId(1),
            org: OrgId(0),
            zone: "z".to_owned(),
            capacity: 1,
            key: key(1).public(),
            tls_key_hash: Hash32([2; 32]),
            peer_addr: "127.0.0.1:1".to_owned(),
            client_addr: "127.0.0.1:2".to_owned(),
        }],
        committees: vec![committee()],
        layout: layout(),
        verify: VerifyMode::Every,
    };
    vectors.format("genesis", &genesis, &genesis.cluster_id().to_string());
    let json = serde_json::to_vec(&genesis).expect("genesis is JSON");
    let again: ledger::genesis::Genesis = serde_json::from_slice(&json).expect("and reads back");
    assert_eq!(again.cluster_id(), genesis.cluster_id());
    vectors.finish();
}

#[test]
fn roots_over_items() {
    let mut vectors = Vectors::open("merkle.json");
    for count in [0u8, 1, 2, 3, 4, 5, 7, 8] {
        let leaves: Vec<Hash32> = (0..count).map(|item| merkle::leaf_hash(&[item])).collect();
        let bytes: Vec<u8> = leaves.iter().flat_map(|leaf| leaf.0).collect();
        vectors.pin(&format!("root of {count}"), &bytes, &merkle::root(&leaves).to_string());
    }
    let leaves: Vec<Hash32> = (0..7u8).map(|item| merkle::leaf_hash(&[item])).collect();
    for index in 0..leaves.len() {
        let path = merkle::prove(&leaves, index).expect("the item exists");
        vectors.format(&format!("path {index} of 7"), &path, &leaves[index].to_string());
    }
    // RFC 6962: the root of nothing, and of one empty item.
    assert_eq!(merkle::root(&[]), sha256(b""));
    assert_eq!(merkle::leaf_hash(b"").to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    vectors.finish();
}

#[test]
fn a_certificate_is_refused_for_each_thing_that_is_wrong() {
    use ledger::certificate::CertificateError as E;
    let changed = |change: fn(&mut Certificate)| {
        let mut certificate = certificate();
        change(&mut certificate);
        certificate.verify(&committee())
    };
    assert_eq!(changed(|_| ()), Ok(()));
    assert_eq!(changed(|c| c.version = 2), Err(E::Version));
    assert_eq!(changed(|c| c.header.version = 2), Err(E::Version));
    assert_eq!(changed(|c| c.header.group = GroupId::shard(2)), Err(E::Group));
    assert_eq!(changed(|c| c.header.incarnation = Incarnation(1)), Err(E::Group));
    assert_eq!(changed(|c| c.header.committee_hash = Hash32::ZERO), Err(E::Committee));
    assert_eq!(changed(|c| c.signatures.truncate(1)), Err(E::TooFew));
    assert_eq!(changed(|c| c.signatures.swap(0, 1)), Err(E::Signer));
    assert_eq!(changed(|c| c.signatures[1] = c.signatures[0]), Err(E::Signer));
    assert_eq!(changed(|c| c.signatures[1].0 = NodeId(77)), Err(E::Signer));
    assert_eq!(changed(|c| c.signatures[1].0 = NodeId(2)), Err(E::Signature));
    assert_eq!(changed(|c| c.header.height = Height(5)), Err(E::Signature));
    assert_eq!(changed(|c| c.signatures[0].1.0[0] ^= 1), Err(E::Signature));
    let mut stranger = committee();
    stranger.members[0].key = key(50).public();
    assert_eq!(certificate().verify(&stranger), Err(E::Committee));
}

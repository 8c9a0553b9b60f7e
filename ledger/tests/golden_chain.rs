//! Golden vectors of the chain itself: headers, certificates, committees, layout, genesis, and the
//! roots over the items of a block.

mod support;

use ledger::certificate::Attestation;
use ledger::flow::{FlowHead, FlowLine, SealedFlow, next_salt};
use ledger::genesis::{NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Epoch, GroupId, Height, Incarnation, JobId, LayoutVersion, NodeId, OrgId};
use ledger::layout::{Layout, Lineage};
use ledger::lineage::{BornShard, ChildShard, Origin, ParentEnd, Seal, SealedBy, Segment};
use ledger::tree::{SubtreeKind, SubtreeRoot};
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
fn shards_that_end_and_begin() {
    let mut vectors = Vectors::open("lineage.json");
    let children = [3, 4].map(GroupId::shard);
    let next = Layout::even(3).split(GroupId::shard(1), children).expect("it can be cut");
    let child = |group| {
        let committee = Committee { group, incarnation: Incarnation(0), epoch: Epoch(0), ..committee() };
        ChildShard { group, prefix: next.prefix_of(group).expect("it lives"), committee }
    };
    let (parents, children) = (vec![GroupId::shard(1)], children.map(child).to_vec());
    let seal = Seal { version: 1, job: JobId(4), parents, children, layout: next.clone() };
    assert!(seal.well_formed());
    vectors.format("seal", &seal, "");
    vectors.format("sealed by", &SealedBy { version: 1, seal: seal.clone(), height: Height(4) }, "");
    let end = ParentEnd {
        group: GroupId::shard(1),
        height: Height(4),
        header_hash: header().hash(),
        time_ms: support::NOW,
        root: SubtreeRoot { hash: [9; 32], kind: SubtreeKind::Internal },
    };
    let segment = |ordinal, from, to| Segment { group: GroupId::shard(ordinal), from: Height(from), to: Height(to) };
    let origin = Origin {
        version: 1,
        job: JobId(4),
        first: Height(5),
        header_hash: Hash32([6; 32]),
        parents: vec![end],
        spine: vec![segment(0, 0, 2), segment(1, 3, 4)],
        archived: vec![segment(2, 0, 1)],
    };
    assert!(origin.well_formed());
    assert_eq!(
        [2, 3, 4, 5].map(|height| origin.on_spine(Height(height))),
        [Some(0), Some(1), Some(1), None].map(|ordinal: Option<u32>| ordinal.map(GroupId::shard))
    );
    assert!(origin.has_spine(GroupId::shard(0)) && !origin.has_spine(GroupId::shard(2)));
    vectors.format("origin", &origin, "");
    let born = BornShard {
        version: 1,
        group: seal.children[1].group,
        prefix: seal.children[1].prefix,
        committee: seal.children[1].committee.hash(),
        job: JobId(4),
        layout: next.version,
        parents: vec![end],
        roots: vec![SubtreeRoot { hash: [10; 32], kind: SubtreeKind::Leaf }],
    };
    vectors.format("born shard", &born, "");
    vectors.finish();
}

#[test]
fn a_seal_that_says_something_else_than_its_layout_is_refused() {
    let halves = [3, 4].map(GroupId::shard);
    let next = Layout::even(3).split(GroupId::shard(1), halves).expect("it can be cut");
    let child = |group| {
        let committee = Committee { group, incarnation: Incarnation(0), epoch: Epoch(0), ..committee() };
        ChildShard { group, prefix: next.prefix_of(group).expect("it lives"), committee }
    };
    let (parents, children) = (vec![GroupId::shard(1)], halves.map(child).to_vec());
    let seal = Seal { version: 1, job: JobId(4), parents, children, layout: next.clone() };
    let changed = |change: fn(&mut Seal)| {
        let mut seal = seal.clone();
        change(&mut seal);
        seal.well_formed()
    };
    assert!(changed(|_| ()));
    assert!(!changed(|seal| seal.version = 2));
    assert!(!changed(|seal| seal.parents[0] = GroupId::shard(0)));
    assert!(!changed(|seal| seal.parents.push(GroupId::shard(0))));
    assert!(!changed(|seal| seal.parents.clear()));
    assert!(!changed(|seal| seal.children.swap(0, 1)));
    assert!(!changed(|seal| seal.children.truncate(1)));
    assert!(!changed(|seal| seal.children[0].prefix = seal.children[1].prefix));
    assert!(!changed(|seal| seal.children[0].committee.group = GroupId::shard(9)));
    assert!(!changed(|seal| seal.children[0].committee.epoch = Epoch(1)));
    assert!(!changed(|seal| seal.children[0].committee.members.clear()));
    assert!(!changed(|seal| seal.layout.lineage.clear()));
    assert!(!changed(|seal| seal.layout.version = LayoutVersion(9)));
    let joined = next.merge(halves, GroupId::shard(5)).expect("they are halves of one prefix");
    let child =
        ChildShard { group: GroupId::shard(5), prefix: joined.shards[1].prefix, committee: child(halves[0]).committee };
    let child = ChildShard { committee: Committee { group: child.group, ..child.committee.clone() }, ..child };
    let seal = Seal { version: 1, job: JobId(5), parents: halves.to_vec(), children: vec![child], layout: joined };
    assert!(seal.well_formed());
    assert!(!Seal { parents: vec![halves[1], halves[0]], ..seal }.well_formed(), "the left one first");
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
        policies: Default::default(),
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

//! The exclusion receipt, over a real state tree and real signatures.

use channel::{Command, ExclusionReceipt, ExclusionReceiptError as E, state};
use ledger::certificate::{Certificate, CertificateError};
use ledger::hash::Hash32;
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{ClusterId, Height, LayoutVersion, OrgId, TimeMs};
use ledger::schema;
use ledger::tree::{BitPrefix, StateTree, value_hash};

use crate::support::{CLUSTER, GROUP, State, World, anyone, node_key};

fn tree_of(state: &State) -> StateTree {
    let mut tree = StateTree::new(BitPrefix::ROOT);
    let leaves = state.iter().map(|(key, value)| (schema::tree_position(key).unwrap(), Some(value_hash(value))));
    tree.apply(leaves.collect::<Vec<_>>()).unwrap();
    tree
}

fn certify(world: &World, root: [u8; 32], height: Height) -> Certificate {
    let header = Header {
        version: HEADER_VERSION,
        cluster: CLUSTER,
        group: GROUP,
        incarnation: world.committee.incarnation,
        height,
        parents: vec![Hash32::ZERO],
        time_ms: TimeMs(world.now),
        layout_version: LayoutVersion(1),
        batch_root: Hash32::ZERO,
        receipts_root: Hash32::ZERO,
        state_root: Hash32(root),
        outbox_root: Hash32::ZERO,
        inbox_cursors_root: Hash32::ZERO,
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash: world.committee.hash(),
        next_committee_hash: world.committee.hash(),
        flags: 0,
    };
    let digest = header.hash();
    let signers = world.committee.members.iter().take(usize::from(world.committee.threshold));
    let signatures = signers.map(|member| (member.node, node_key(member.node.0).sign(&digest))).collect();
    Certificate { version: 1, header, signatures }
}

fn receipt() -> (World, ExclusionReceipt) {
    let mut world = World::with(&[1; 5], &anyone());
    world.run(5, &Command::Leave).unwrap();
    let exclusion = world.read(|view| state::exclusions(view, OrgId(5)))[0];
    // Any later header will do.
    world.run(1, &Command::RevokeCertificate { credential: Hash32([3; 32]) }).unwrap();
    let mut tree = tree_of(&world.state);
    let position = schema::tree_position(&state::exclusion_key(OrgId(5), exclusion.height)).unwrap();
    let path = tree.prove(&position).unwrap();
    let certificate = certify(&world, tree.root(), Height(world.height));
    (world, ExclusionReceipt::new(exclusion, path, certificate))
}

#[test]
fn it_is_verified_with_nothing_but_the_committee() {
    let (world, receipt) = receipt();
    let read = ExclusionReceipt::decode(&receipt.encode()).unwrap();
    let exclusion = read.verify(&CLUSTER, &world.committee).unwrap();
    assert_eq!((exclusion.org, exclusion.group, exclusion.height), (OrgId(5), GROUP, Height(1)));
}

#[test]
fn altered_in_anything_it_proves_nothing() {
    let (world, good) = receipt();
    let judge = |receipt: &ExclusionReceipt| receipt.verify(&CLUSTER, &world.committee).unwrap_err().code();
    let mut org = good.clone();
    org.exclusion.org = OrgId(4);
    assert_eq!(judge(&org), "exclusion_not_in_state");
    let mut height = good.clone();
    height.exclusion.height = Height(0);
    assert_eq!(judge(&height), "exclusion_not_in_state");
    let mut time = good.clone();
    time.exclusion.time_ms = TimeMs(1);
    assert_eq!(judge(&time), "exclusion_not_in_state");
    let mut early = good.clone();
    early.exclusion.height = Height(99);
    assert_eq!(judge(&early), "exclusion_early");
    let mut group = good.clone();
    group.exclusion.group = ledger::ids::GroupId::channel(8);
    assert_eq!(judge(&group), "exclusion_other_chain");
    let mut forged = good.clone();
    forged.certificate.header.state_root = Hash32::ZERO;
    assert_eq!(judge(&forged), "exclusion_certificate");
    let mut few = good.clone();
    few.certificate.signatures.pop();
    assert_eq!(few.verify(&CLUSTER, &world.committee).unwrap_err(), E::Certificate(CertificateError::TooFew));
    let other = ClusterId(Hash32([2; 32]));
    assert_eq!(good.verify(&other, &world.committee).unwrap_err(), E::OtherChain);
    let mut bytes = good.encode();
    bytes.push(0);
    assert_eq!(ExclusionReceipt::decode(&bytes).unwrap_err().code(), "exclusion_malformed");
    bytes.pop();
    bytes[0] = 2;
    assert_eq!(ExclusionReceipt::decode(&bytes).unwrap_err().code(), "exclusion_malformed");
}

#[test]
fn every_record_is_a_leaf_of_the_state_tree() {
    let (world, _) = receipt();
    assert!(world.state.keys().all(|key| schema::tree_position(key).is_some()));
    assert_eq!(tree_of(&world.state).len(), world.state.len());
}

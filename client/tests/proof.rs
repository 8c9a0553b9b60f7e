//! Proof files: what holds, and that nothing else does.

#![allow(clippy::unwrap_used)]

use client::proof::{Claim, Fact, Handover, PROOF_MAGIC, tree_prefix, verify};
use client::{ProofFile, VerifiedClaim};
use ledger::committee::Member;
use ledger::genesis::{Genesis, OrgInfo, VerifyMode};
use ledger::header::HEADER_VERSION;
use ledger::tree::{StateTree, value_hash};
use ledger::*;

const GROUP: GroupId = GroupId::shard(1);

fn node_key(epoch: u64, node: u32) -> SecretKey {
    SecretKey::derive(&epoch.to_le_bytes(), &node.to_le_bytes())
}

fn committee(group: GroupId, epoch: u64) -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(1), key: node_key(epoch, node).public() };
    Committee::majority(group, Incarnation(0), Epoch(epoch), (1..=3).map(member).collect())
}

fn genesis() -> Genesis {
    let org = OrgInfo { id: OrgId(1), name: "a".into(), ca_pem: String::new(), admin_key: node_key(0, 9).public() };
    Genesis {
        version: 1,
        name: "test".into(),
        created_ms: TimeMs(1),
        seed: Hash32::ZERO,
        orgs: vec![org],
        nodes: Vec::new(),
        committees: [GroupId::BEACON, GroupId::shard(0), GROUP].map(|group| committee(group, 0)).to_vec(),
        layout: Layout::even(2),
        verify: VerifyMode::Ingest,
    }
}

fn header(genesis: &Genesis, height: u64, epoch: u64) -> Header {
    Header {
        version: HEADER_VERSION,
        cluster: genesis.cluster_id(),
        group: GROUP,
        incarnation: Incarnation(0),
        height: Height(height),
        parents: vec![Hash32::ZERO],
        time_ms: TimeMs(5),
        layout_version: LayoutVersion(1),
        batch_root: Hash32::ZERO,
        receipts_root: Hash32::ZERO,
        state_root: Hash32::ZERO,
        outbox_root: Hash32::ZERO,
        inbox_cursors_root: Hash32::ZERO,
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash: committee(GROUP, epoch).hash(),
        next_committee_hash: committee(GROUP, epoch).hash(),
        flags: 0,
    }
}

fn certify(header: Header, epoch: u64, nodes: &[u32]) -> Certificate {
    let digest = header.hash();
    let signatures = nodes.iter().map(|node| (NodeId(*node), node_key(epoch, *node).sign(&digest))).collect();
    Certificate { version: 1, header, signatures }
}

/// Addresses of the shard, in order of search.
fn addresses() -> impl Iterator<Item = Address> {
    (0u32..)
        .map(|number| {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Address(bytes)
        })
        .filter(|address| Layout::even(2).locate(address) == GROUP)
}

fn account_proof(genesis: &Genesis, present: bool) -> ProofFile {
    let prefix = tree_prefix(genesis.layout.prefix_of(GROUP).unwrap()).unwrap();
    let mut tree = StateTree::new(prefix);
    let known: Vec<Address> = addresses().take(20).collect();
    let position = |address: &Address| schema::tree_position(&schema::account(address)).unwrap();
    let record = |sequence: usize| {
        borsh::to_vec(&AccountRecord { sequence: sequence as u64, ..AccountRecord::default() }).unwrap()
    };
    let leaves = known.iter().enumerate().map(|(at, address)| (position(address), Some(value_hash(&record(at)))));
    tree.apply(leaves).unwrap();
    let address = if present { known[7] } else { addresses().nth(30).unwrap() };
    let claim =
        Claim::Account { address, record: present.then(|| record(7)), proof: tree.prove(&position(&address)).unwrap() };
    let header = Header { state_root: Hash32(tree.root()), ..header(genesis, 8, 0) };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(GROUP, 0))
}

fn receipt_proof(genesis: &Genesis) -> ProofFile {
    let receipts: Vec<Receipt> = (0..5)
        .map(|index| Receipt {
            version: 1,
            txid: TxId(hash::sha256(&[index as u8])),
            group: GROUP,
            height: Height(8),
            index,
            time_ms: TimeMs(5),
            outcome: Outcome::Rejected(Reject::InsufficientFunds),
        })
        .collect();
    let leaves: Vec<Hash32> = receipts.iter().map(Receipt::leaf).collect();
    let claim =
        Claim::Receipt { receipt: borsh::to_vec(&receipts[3]).unwrap(), path: merkle::prove(&leaves, 3).unwrap() };
    let header = Header { receipts_root: merkle::root(&leaves), ..header(genesis, 8, 0) };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 2, 3]), committee(GROUP, 0))
}

fn code(proof: &ProofFile, genesis: &Genesis) -> &'static str {
    verify(proof, genesis).map_or_else(|error| error.code(), |_| "holds")
}

#[test]
fn accounts_and_their_absence_are_proved() {
    let genesis = genesis();
    let proof = account_proof(&genesis, true);
    let verified = verify(&ProofFile::from_file(&proof.to_file()).unwrap(), &genesis).unwrap();
    assert_eq!((verified.group, verified.height), (GROUP, Height(8)));
    assert_eq!(verified.signers, [NodeId(1), NodeId(3)]);
    let Fact::Account { record: Some(record), .. } = verified.fact else { panic!() };
    assert_eq!(record.sequence, 7);

    let absent = verify(&account_proof(&genesis, false), &genesis).unwrap();
    assert!(matches!(absent.fact, Fact::Account { record: None, .. }));
}

#[test]
fn receipts_are_proved() {
    let genesis = genesis();
    let good = receipt_proof(&genesis);
    let Fact::Receipt(receipt) = verify(&good, &genesis).unwrap().fact else { panic!() };
    assert_eq!(receipt.index, 3);
    let mut moved = good.clone();
    let Claim::Receipt { path, .. } = &mut moved.claim else { panic!() };
    path.index = 2;
    assert_eq!(code(&moved, &genesis), "proof_receipt");
    let mut forged = good;
    let Claim::Receipt { receipt: bytes, .. } = &mut forged.claim else { panic!() };
    let committed = Receipt { outcome: Outcome::Committed { mail: Vec::new() }, ..receipt };
    *bytes = borsh::to_vec(&committed).unwrap();
    assert_eq!(code(&forged, &genesis), "proof_receipt");
}

#[test]
fn each_broken_part_has_its_code() {
    let genesis = genesis();
    let good = account_proof(&genesis, true);
    let broken = |change: fn(&mut ProofFile)| {
        let mut proof = good.clone();
        change(&mut proof);
        code(&proof, &genesis)
    };
    assert_eq!(broken(|_| {}), "holds");
    assert_eq!(broken(|proof| proof.version = 2), "proof_version");
    assert_eq!(broken(|proof| proof.cluster = ClusterId::default()), "proof_other_cluster");
    assert_eq!(broken(|proof| proof.certificate.header.state_root = Hash32::ZERO), "proof_certificate");
    assert_eq!(broken(|proof| proof.certificate.signatures.truncate(1)), "proof_certificate");
    assert_eq!(broken(|proof| proof.committee = committee(GROUP, 1)), "proof_committee");
    assert_eq!(broken(|proof| proof.committee.threshold = 1), "proof_committee");
    assert_eq!(broken(|proof| proof.certificate.header.group = GroupId::channel(1)), "proof_committee");
    assert_eq!(
        broken(|proof| {
            let Claim::Account { record, .. } = &mut proof.claim else { panic!() };
            *record = None;
        }),
        "proof_position_present"
    );
    assert_eq!(
        broken(|proof| {
            let Claim::Account { address, .. } = &mut proof.claim else { panic!() };
            *address = addresses().nth(3).unwrap();
        }),
        "proof_leaf_mismatch"
    );
    let mut other = good.clone();
    let Claim::Account { address, record, .. } = &mut other.claim else { panic!() };
    *record = None;
    *address = (0..=255).map(|byte| Address([byte; 20])).find(|a| genesis.layout.locate(a) != GROUP).unwrap();
    assert_eq!(code(&other, &genesis), "proof_unrelated_leaf");
}

#[test]
fn a_later_committee_needs_its_chain() {
    let genesis = genesis();
    let mut proof = account_proof(&genesis, true);
    let last = Header { next_committee_hash: committee(GROUP, 1).hash(), ..header(&genesis, 5, 0) };
    proof.certificate.header.committee_hash = committee(GROUP, 1).hash();
    proof.certificate = certify(proof.certificate.header.clone(), 1, &[1, 2]);
    proof.committee = committee(GROUP, 1);
    assert_eq!(code(&proof, &genesis), "proof_committee");
    let step = Handover { committee: committee(GROUP, 0), certificate: certify(last.clone(), 0, &[2, 3]) };
    proof.handovers = vec![step.clone()];
    assert_eq!(code(&proof, &genesis), "holds");

    proof.handovers = vec![step.clone(), step.clone()];
    assert_eq!(code(&proof, &genesis), "proof_committee");
    let weak = Handover { certificate: certify(last.clone(), 0, &[2]), ..step.clone() };
    proof.handovers = vec![weak];
    assert_eq!(code(&proof, &genesis), "proof_certificate");
    let late = Header { height: Height(9), ..last };
    proof.handovers = vec![Handover { certificate: certify(late, 0, &[1, 2]), ..step }];
    assert_eq!(code(&proof, &genesis), "proof_committee");
}

#[test]
fn no_cut_and_no_flipped_bit_holds() {
    let genesis = genesis();
    for good in [account_proof(&genesis, true), account_proof(&genesis, false), receipt_proof(&genesis)] {
        let bytes = good.to_file();
        assert!(bytes.starts_with(PROOF_MAGIC));
        for at in 0..bytes.len() {
            assert!(ProofFile::from_file(&bytes[..at]).is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let Ok(proof) = ProofFile::from_file(&flipped) else {
                continue;
            };
            // What proves that one account is absent may prove it of its neighbours too.
            let address = match verify(&proof, &genesis) {
                Ok(VerifiedClaim { fact: Fact::Account { address, record: None }, .. }) => address,
                Ok(other) => panic!("byte {at}: {other:?}"),
                Err(_) => continue,
            };
            let Claim::Account { address: claimed, .. } = good.claim else { panic!() };
            assert_ne!(address, claimed, "byte {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(ProofFile::from_file(&longer).is_err());
    }
}

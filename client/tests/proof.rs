//! Proof files: what holds, and that nothing else does.

#![allow(clippy::unwrap_used)]

mod support;

use client::proof::{Claim, Fact, Handover, PROOF_MAGIC, StateEntry, verify};
use client::{BornProof, Entry, EntryName, FoundedProof, ProofFile, VerifiedClaim};
use ledger::genesis::Genesis;
use ledger::record::Grantee;
use ledger::*;
use support::{
    CHANNEL, CHILD, GROUP, account_proof, addresses, born, certify, channel_proof, child_proof, committee, entry_proof,
    founded, genesis, header, header_of, holdings_proof, receipt_proof, record_entry, record_proof,
};

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

fn balances(proof: &ProofFile, genesis: &Genesis) -> (Vec<u128>, bool) {
    let verified = verify(proof, genesis).unwrap();
    let Fact::Account { record: Some(record), .. } = verified.fact else { panic!() };
    (record.balances.iter().map(|(_, balance)| balance.posted).collect(), verified.complete)
}

#[test]
fn every_balance_of_an_account_with_many_assets_is_proved() {
    let genesis = genesis();
    let proof = holdings_proof(&genesis, 12);
    assert_eq!(proof.version, 2);
    assert_eq!(balances(&proof, &genesis), ((1..=12).collect(), true));
    assert_eq!(ProofFile::from_file(&proof.to_file()).as_ref(), Ok(&proof));

    let broken = |change: fn(&mut Vec<StateEntry>)| {
        let mut proof = proof.clone();
        let Claim::Holdings { entries, .. } = &mut proof.claim else { panic!() };
        change(entries);
        code(&proof, &genesis)
    };
    assert_eq!(broken(|_| {}), "holds");
    let raised = borsh::to_vec(&Balance { posted: 1_000_000, held: 0 }).unwrap();
    let mut altered = proof.clone();
    let Claim::Holdings { entries, .. } = &mut altered.claim else { panic!() };
    entries[3].value = raised;
    assert_eq!(code(&altered, &genesis), "proof_root_mismatch", "an altered extra balance");
    assert_eq!(broken(|entries| drop(entries.pop())), "proof_root_mismatch", "one left out");
    assert_eq!(broken(|entries| entries.truncate(1)), "proof_lone_leaf");
    assert_eq!(broken(|entries| drop(entries.remove(0))), "proof_root_mismatch", "without the record");
    assert_eq!(broken(|entries| entries[2].key[5] ^= 1), "proof_root_mismatch", "of another asset");
    assert_eq!(broken(|entries| entries.swap(1, 2)), "proof_malformed");
    assert_eq!(broken(|entries| entries.push(entries[4].clone())), "proof_malformed");
    let mut other = proof.clone();
    let Claim::Holdings { address, .. } = &mut other.claim else { panic!() };
    *address = addresses().nth(3).unwrap();
    assert_eq!(code(&other, &genesis), "proof_root_mismatch", "of another account");
    let mut older = proof.clone();
    older.version = 1;
    assert_eq!(code(&older, &genesis), "proof_version");
}

#[test]
fn a_record_alone_says_whether_there_may_be_more() {
    let genesis = genesis();
    // No room is left in the record, and there is more under the account: what, the proof does not say.
    let old = record_proof(&genesis, 12);
    assert_eq!(old.version, 1);
    assert_eq!(balances(&old, &genesis), ((1..=8).collect(), false));
    // A full record that is the only entry, and one with room.
    assert_eq!(balances(&record_proof(&genesis, 8), &genesis), ((1..=8).collect(), true));
    assert_eq!(balances(&record_proof(&genesis, 7), &genesis), ((1..=7).collect(), true));
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
    assert_eq!(broken(|proof| proof.version = 3), "proof_version");
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
fn entries_and_their_absence_are_proved_by_name() {
    let genesis = genesis();
    let (name, value) = record_entry();
    let good = entry_proof(&genesis, name, Some(value.clone()));
    assert_eq!(good.version, 3);
    let verified = verify(&ProofFile::from_file(&good.to_file()).unwrap(), &genesis).unwrap();
    let Fact::Entry { entry: Entry::Record(hash, Some(record)), .. } = verified.fact else { panic!() };
    assert_eq!((EntryName::Record(hash), borsh::to_vec(&record).unwrap()), (name, value.clone()));
    let bob = EntryName::Grants(Hash32([5; 32]), Grantee::Account(Address([2; 20])));
    for absent in [name, bob, EntryName::Lock(LockId(Hash32([5; 32])))] {
        let proof = entry_proof(&genesis, absent, None);
        let Fact::Entry { entry, .. } = verify(&proof, &genesis).unwrap().fact else { panic!() };
        assert_eq!(entry, Entry::decode(absent, None).unwrap());
        // There being nothing of one name says nothing about another one that is there.
        let mut swapped = good.clone();
        swapped.claim = proof.claim;
        assert_ne!(code(&swapped, &genesis), "holds", "{absent:?}");
    }

    let changed = |change: fn(&mut Vec<u8>, &mut Option<Vec<u8>>)| {
        let mut proof = good.clone();
        let Claim::Entry { key, value, .. } = &mut proof.claim else { panic!() };
        change(key, value);
        code(&proof, &genesis)
    };
    assert_eq!(changed(|_, _| ()), "holds");
    assert_eq!(changed(|_, value| *value = None), "proof_position_present");
    assert_eq!(changed(|_, value| value.as_mut().unwrap().push(0)), "proof_leaf_mismatch");
    assert_eq!(changed(|key, _| key[1] ^= 1), "proof_leaf_mismatch");
    assert_eq!(changed(|key, _| key[0] = schema::KIND_LOCK), "proof_leaf_mismatch");
    assert_eq!(changed(|key, _| *key = vec![schema::KIND_ACCOUNT]), "proof_malformed");
    assert_eq!(code(&ProofFile { version: 2, ..good.clone() }, &genesis), "proof_version");
    // A lock's bytes are no record, whatever the state holds.
    let foreign = entry_proof(&genesis, name, Some(vec![1, 2, 3]));
    assert_eq!(code(&foreign, &genesis), "proof_malformed");
}

#[test]
fn what_a_shard_certified_that_was_born_later_needs_its_birth() {
    let genesis = genesis();
    let good = child_proof(&genesis);
    assert_eq!((good.version, code(&good, &genesis)), (4, "holds"));
    assert_eq!(ProofFile::decode(&good.encode()).as_ref(), Ok(&good));
    let bare = ProofFile { version: 1, born: None, ..good.clone() };
    assert_eq!(ProofFile::decode(&bare.encode()).as_ref(), Ok(&bare), "as its nodes send it");
    assert_eq!(code(&bare, &genesis), "proof_committee");
    assert_eq!(code(&ProofFile { version: 3, ..good.clone() }, &genesis), "proof_version");
    assert_eq!(code(&ProofFile { born: None, ..good.clone() }, &genesis), "proof_version");

    let birth = born(&genesis);
    let with = |change: fn(&mut BornProof)| {
        let mut born = birth.clone();
        change(&mut born);
        code(&good.clone().with_born(born), &genesis)
    };
    assert_eq!(with(|_| ()), "holds");
    // A committee of the forger's, another shard, a prefix that hides what is there, another state of the beacon.
    assert_eq!(with(|born| born.leaf.version = 2), "proof_committee");
    assert_eq!(with(|born| born.leaf.committee = Hash32([7; 32])), "proof_committee");
    assert_eq!(with(|born| born.leaf.group = GroupId::shard(3)), "proof_committee");
    assert_eq!(with(|born| born.leaf.prefix = BitPrefix::ALL), "proof_committee");
    assert_eq!(with(|born| born.certificate.header.state_root = Hash32::ZERO), "proof_certificate");
    assert_eq!(with(|born| born.certificate.signatures.truncate(1)), "proof_certificate");
    assert_eq!(with(|born| born.certificate.header.group = CHILD), "proof_committee");
    assert_eq!(with(|born| born.committee = committee(GroupId::BEACON, 1)), "proof_committee");

    // The parent has the right half, too; the child says nothing about it.
    let right = genesis.layout.prefix_of(GROUP).unwrap().child(true);
    let mut beside = good.clone();
    let Claim::Account { address, .. } = &mut beside.claim else { panic!() };
    *address = addresses().find(|address| right.covers(&address.partition().0)).unwrap();
    assert_eq!(code(&beside, &genesis), "proof_unrelated_leaf");
    // Beginnings of two kinds, and one for a group that the genesis names.
    assert_eq!(code(&good.clone().with_founded(founded(&genesis)), &genesis), "proof_committee");
    assert_eq!(code(&account_proof(&genesis, true).with_born(birth), &genesis), "proof_committee");
}

/// A group's prefix is the same for all its life: what it certifies under a later layout is judged by that prefix.
#[test]
fn a_shard_of_the_genesis_is_proved_under_any_layout() {
    let genesis = genesis();
    let mut later = account_proof(&genesis, true);
    later.certificate.header.layout_version = LayoutVersion(9);
    later.certificate = certify(later.certificate.header.clone(), 0, &[1, 2]);
    assert_eq!(code(&later, &genesis), "holds");
}

#[test]
fn what_a_channel_certified_needs_its_founding() {
    let genesis = genesis();
    let good = channel_proof(&genesis);
    assert_eq!((good.version, code(&good, &genesis)), (3, "holds"));
    assert_eq!(ProofFile::decode(&good.encode()).as_ref(), Ok(&good));
    let bare = ProofFile { version: 1, founded: None, ..good.clone() };
    assert_eq!(ProofFile::decode(&bare.encode()).as_ref(), Ok(&bare), "as nodes of the channel send it");
    assert_eq!(code(&bare, &genesis), "proof_committee");
    assert_eq!(code(&ProofFile { version: 1, ..good.clone() }, &genesis), "proof_version");
    assert_eq!(code(&ProofFile { founded: None, ..good.clone() }, &genesis), "proof_version");

    let founding = founded(&genesis);
    let with = |change: fn(&mut FoundedProof)| {
        let mut founded = founding.clone();
        change(&mut founded);
        code(&good.clone().with_founded(founded), &genesis)
    };
    assert_eq!(with(|_| ()), "holds");
    // A committee of the forger's, another channel, another state of the beacon, and who else may sign it.
    assert_eq!(with(|founded| founded.leaf.committee = Hash32([7; 32])), "proof_committee");
    assert_eq!(with(|founded| founded.leaf.foundation = Hash32([7; 32])), "proof_committee");
    assert_eq!(with(|founded| founded.leaf.group = GroupId::channel(5)), "proof_committee");
    assert_eq!(with(|founded| founded.certificate.header.state_root = Hash32::ZERO), "proof_certificate");
    assert_eq!(with(|founded| founded.certificate.signatures.truncate(1)), "proof_certificate");
    assert_eq!(with(|founded| founded.certificate.header.group = CHANNEL), "proof_committee");
    assert_eq!(with(|founded| founded.committee = committee(GroupId::BEACON, 1)), "proof_committee");

    // The committee that was founded, and no other one, signs until it hands over.
    let mut usurped = good.clone();
    usurped.committee = committee(CHANNEL, 1);
    usurped.certificate.header.committee_hash = usurped.committee.hash();
    usurped.certificate = certify(usurped.certificate.header.clone(), 1, &[1, 2]);
    assert_eq!(code(&usurped, &genesis), "proof_committee");
    let of_a_shard = account_proof(&genesis, true).with_founded(founding);
    assert_eq!(code(&of_a_shard, &genesis), "proof_committee", "the genesis says how it began");
}

#[test]
fn a_founding_is_proved_over_two_changes_of_the_beacons_committee() {
    const BEACON: GroupId = GroupId::BEACON;
    let genesis = genesis();
    let (good, founding) = (channel_proof(&genesis), founded(&genesis));
    let step = |epoch: u64, height: u64| {
        let next_committee_hash = committee(BEACON, epoch + 1).hash();
        let last = Header { next_committee_hash, ..header_of(&genesis, BEACON, height, epoch) };
        Handover { committee: committee(BEACON, epoch), certificate: certify(last, epoch, &[1, 2]) }
    };
    let state_root = founding.certificate.header.state_root;
    let certificate = certify(Header { state_root, ..header_of(&genesis, BEACON, 9, 2) }, 2, &[1, 3]);
    let handovers = vec![step(0, 6), step(1, 8)];
    let later = FoundedProof { certificate, committee: committee(BEACON, 2), handovers, ..founding.clone() };
    let with = |founded: FoundedProof| code(&good.clone().with_founded(founded), &genesis);
    assert_eq!(with(later.clone()), "holds");
    assert_eq!(with(founding), "holds", "what was proved before stays proved");
    for (what, handovers) in [
        ("none", vec![]),
        ("the last is missing", vec![step(0, 6)]),
        ("the first is missing", vec![step(1, 8)]),
        ("out of order", vec![step(1, 8), step(0, 6)]),
        ("two at one height", vec![step(0, 8), step(1, 8)]),
        ("beyond the proof", vec![step(0, 6), step(1, 9)]),
    ] {
        assert_eq!(with(FoundedProof { handovers, ..later.clone() }), "proof_committee", "{what}");
    }
    let mut weak = step(1, 8);
    weak.certificate.signatures.truncate(1);
    assert_eq!(with(FoundedProof { handovers: vec![step(0, 6), weak], ..later }), "proof_certificate");
}

#[test]
fn no_cut_and_no_flipped_bit_holds() {
    let genesis = genesis();
    let proofs = [
        account_proof(&genesis, true),
        account_proof(&genesis, false),
        receipt_proof(&genesis),
        holdings_proof(&genesis, 10),
        channel_proof(&genesis),
        entry_proof(&genesis, record_entry().0, Some(record_entry().1)),
    ];
    for good in proofs {
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

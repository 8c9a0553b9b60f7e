//! Exclusion receipts as files: what holds, offline and from the genesis alone, and that nothing else does.

#![allow(clippy::unwrap_used)]

mod support;

use channel::exclusion::{Departure, ExclusionReceipt};
use client::exclusion::{EXCLUSION_MAGIC, verify};
use client::{ExclusionFile, Handover};
use ledger::genesis::Genesis;
use ledger::*;
use support::{CHANNEL, certify, committee, exclusion_file, founded, genesis, header_of};

fn code(file: &ExclusionFile, genesis: &Genesis) -> &'static str {
    verify(file, genesis).map_or_else(|error| error.code(), |_| "holds")
}

#[test]
fn a_receipt_is_judged_by_the_genesis_alone() {
    let genesis = genesis();
    let file = ExclusionFile::from_file(&exclusion_file(&genesis).to_file()).unwrap();
    let verified = verify(&file, &genesis).unwrap();
    assert_eq!((verified.exclusion.group, verified.exclusion.org), (CHANNEL, OrgId(3)));
    assert_eq!((verified.exclusion.height, verified.height), (Height(7), Height(8)));
    assert_eq!(verified.signers, [NodeId(1), NodeId(3)]);
}

#[test]
fn an_altered_receipt_is_refused_with_its_code() {
    let genesis = genesis();
    let good = exclusion_file(&genesis);
    let with = |change: fn(&mut ExclusionFile)| {
        let mut file = good.clone();
        change(&mut file);
        code(&file, &genesis)
    };
    assert_eq!(with(|_| ()), "holds");
    assert_eq!(with(|file| file.version = 2), "exclusion_malformed");
    assert_eq!(with(|file| file.receipt.version = 2), "exclusion_malformed");
    assert_eq!(with(|file| file.receipt.exclusion.org = OrgId(2)), "exclusion_not_in_state");
    assert_eq!(with(|file| file.receipt.exclusion.joined = Height(1)), "exclusion_not_in_state");
    assert_eq!(with(|file| file.receipt.exclusion.height = Height(6)), "exclusion_not_in_state");
    assert_eq!(with(|file| file.receipt.exclusion.height = Height(9)), "exclusion_early");
    assert_eq!(with(|file| file.receipt.exclusion.how = Departure::Removed(Hash32([1; 32]))), "exclusion_not_in_state");
    assert_eq!(with(|file| file.receipt.exclusion.group = GroupId::channel(5)), "exclusion_other_chain");
    assert_eq!(
        with(|file| file.receipt.certificate.header.cluster = ClusterId(Hash32([1; 32]))),
        "exclusion_other_chain"
    );
    assert_eq!(with(|file| file.receipt.certificate.header.state_root = Hash32([1; 32])), "exclusion_certificate");
    assert_eq!(with(|file| file.receipt.certificate.signatures.truncate(1)), "exclusion_certificate");
    assert_eq!(with(|file| file.receipt.certificate.header.group = GroupId::channel(5)), "exclusion_committee");
    assert_eq!(with(|file| file.founded = None), "exclusion_committee");
    assert_eq!(with(|file| file.committee = committee(CHANNEL, 1)), "exclusion_committee");
    let elsewhere = Genesis { name: "another".to_owned(), ..genesis.clone() };
    assert_eq!(code(&good, &elsewhere), "exclusion_other_chain");
}

/// Somebody else's signatures are worth nothing, however well they fit together.
#[test]
fn another_committee_proves_nothing_until_the_channel_has_handed_over_to_it() {
    let genesis = genesis();
    let good = exclusion_file(&genesis);
    let later = committee(CHANNEL, 1);
    let header = Header { committee_hash: later.hash(), ..good.receipt.certificate.header.clone() };
    let certificate = certify(header, 1, &[1, 2]);
    let receipt = ExclusionReceipt { certificate, ..good.receipt.clone() };
    assert_eq!(receipt.verify(&genesis.cluster_id(), &later).map(|exclusion| exclusion.org), Ok(OrgId(3)));
    let usurped = ExclusionFile { receipt, committee: later.clone(), ..good.clone() };
    assert_eq!(code(&usurped, &genesis), "exclusion_committee");
    // Nor a founding by others than the beacon.
    let mut founding = founded(&genesis);
    founding.leaf.committee = later.hash();
    let forged = ExclusionFile { founded: Some(founding), ..usurped.clone() };
    assert_eq!(code(&forged, &genesis), "exclusion_committee");

    let last = Header { next_committee_hash: later.hash(), ..header_of(&genesis, CHANNEL, 5, 0) };
    let step = Handover { committee: committee(CHANNEL, 0), certificate: certify(last, 0, &[2, 3]) };
    let handed = ExclusionFile { handovers: vec![step.clone()], ..usurped.clone() };
    assert_eq!(code(&handed, &genesis), "holds");
    let weak = Handover { certificate: certify(step.certificate.header.clone(), 0, &[2]), ..step };
    assert_eq!(code(&ExclusionFile { handovers: vec![weak], ..usurped }, &genesis), "exclusion_committee");
}

#[test]
fn no_cut_and_no_flipped_bit_holds() {
    let genesis = genesis();
    let bytes = exclusion_file(&genesis).to_file();
    assert!(bytes.starts_with(EXCLUSION_MAGIC));
    let judge = |bytes: &[u8]| ExclusionFile::from_file(bytes).and_then(|file| verify(&file, &genesis).map(drop));
    assert_eq!(judge(&bytes), Ok(()));
    for at in 0..bytes.len() {
        assert_eq!(judge(&bytes[..at]).unwrap_err().code(), "exclusion_malformed", "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let code = judge(&flipped).expect_err("it was altered").code();
        assert!(code.starts_with("exclusion_"), "byte {at}: {code}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(judge(&longer).unwrap_err().code(), "exclusion_malformed");
}

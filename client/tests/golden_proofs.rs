//! Golden vectors of proof files: a proof made today must hold for as long as its genesis is known.

mod support;
#[path = "../../ledger/tests/support/vectors.rs"]
mod vectors;

use client::proof::{Handover, verify};
use client::{ExclusionFile, ProofFile};
use ledger::Header;
use support::{
    GROUP, account_proof, certify, channel_proof, child_proof, committee, entry_proof, exclusion_file, genesis, header,
    holdings_proof, receipt_proof, record_entry,
};
use vectors::{Vectors, refuses_other_lengths};

#[test]
fn proof_files() {
    let mut vectors = Vectors::open("proofs.json");
    let genesis = genesis();
    vectors.pin("genesis", &borsh::to_vec(&genesis).expect("it encodes"), &genesis.cluster_id().to_string());
    let mut later = account_proof(&genesis, true);
    let last = Header { next_committee_hash: committee(GROUP, 1).hash(), ..header(&genesis, 5, 0) };
    later.certificate.header.committee_hash = committee(GROUP, 1).hash();
    later.certificate = certify(later.certificate.header.clone(), 1, &[1, 2]);
    later.committee = committee(GROUP, 1);
    later.handovers = vec![Handover { committee: committee(GROUP, 0), certificate: certify(last, 0, &[2, 3]) }];
    let proofs = [
        ("account", account_proof(&genesis, true)),
        ("account/absent", account_proof(&genesis, false)),
        ("receipt", receipt_proof(&genesis)),
        ("account/after a handover", later),
        ("holdings", holdings_proof(&genesis, 10)),
        ("channel", channel_proof(&genesis)),
        ("child", child_proof(&genesis)),
        ("entry", entry_proof(&genesis, record_entry().0, Some(record_entry().1))),
        ("entry/absent", entry_proof(&genesis, record_entry().0, None)),
    ];
    for (name, proof) in proofs {
        let header_hash = proof.certificate.header.hash().to_string();
        assert!(verify(&proof, &genesis).is_ok(), "{name}");
        vectors.format(name, &proof, &header_hash);
        refuses_other_lengths(name, &proof.encode(), |bytes| ProofFile::decode(bytes).is_ok());
        let file = vectors.pin(&format!("{name}/file"), &proof.to_file(), &header_hash);
        assert_eq!(ProofFile::from_file(&file).as_ref(), Ok(&proof), "{name}");
        refuses_other_lengths(name, &file, |bytes| ProofFile::from_file(bytes).is_ok());
    }
    vectors.finish();
}

#[test]
fn exclusion_receipts() {
    let mut vectors = Vectors::open("exclusions.json");
    let (genesis, file) = (genesis(), exclusion_file(&genesis()));
    let header_hash = file.receipt.certificate.header.hash().to_string();
    assert!(client::exclusion::verify(&file, &genesis).is_ok());
    vectors.format("receipt", &file.receipt, &header_hash);
    vectors.format("file without its magic", &file, &header_hash);
    let bytes = vectors.pin("file", &file.to_file(), &header_hash);
    assert_eq!(ExclusionFile::from_file(&bytes).as_ref(), Ok(&file));
    refuses_other_lengths("file", &bytes, |bytes| ExclusionFile::from_file(bytes).is_ok());
    vectors.finish();
}

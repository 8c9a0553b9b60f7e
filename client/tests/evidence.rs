//! Evidence as files: what holds, offline and from the genesis alone, and that nothing else does.

#![allow(clippy::unwrap_used)]

mod support;

use client::EvidenceFile;
use client::evidence::{EVIDENCE_FORMAT, EVIDENCE_MAGIC, state_key, verify};
use client::proof::tree_prefix;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
use ledger::evidence::EVIDENCE_VERSION;
use ledger::genesis::Genesis;
use ledger::tree::{StateTree, value_hash};
use ledger::*;
use support::{GROUP, certify, committee, genesis, header_of, node_key};

/// The committee of [`GROUP`], under the engine in which members vote.
fn voters() -> Committee {
    Committee::of(Engine::Bft, GROUP, Incarnation(0), Epoch(0), committee(GROUP, 0).members)
}

/// Node 2 has prevoted two values, which this group keeps.
fn kept_by(genesis: &Genesis, group: GroupId) -> EvidenceFile {
    let vote = |value: u8| {
        let ballot = Ballot {
            version: BALLOT_VERSION,
            cluster: genesis.cluster_id(),
            group: GROUP,
            incarnation: Incarnation(0),
            committee: voters().hash(),
            index: 12,
            round: 1,
            kind: BallotKind::Prevote,
            value: Some(Hash32([value; 32])),
            node: NodeId(2),
        };
        ballot.sign(&node_key(0, 2))
    };
    let proof = Equivocation::of(vote(1), vote(2)).unwrap();
    let evidence = Evidence { version: EVIDENCE_VERSION, height: Height(7), time_ms: TimeMs(9), proof };
    let owned = genesis.layout.prefix_of(group).unwrap_or(layout::BitPrefix::ALL);
    let position = schema::tree_position(&state_key(owned, &evidence)).unwrap();
    let mut tree = StateTree::new(tree_prefix(owned).unwrap());
    tree.apply([(position, Some(value_hash(&borsh::to_vec(&evidence).unwrap())))]).unwrap();
    let path = tree.prove(&position).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, group, 8, 0) };
    EvidenceFile {
        version: EVIDENCE_FORMAT,
        evidence,
        accused: voters(),
        path,
        certificate: certify(header, 0, &[1, 3]),
        committee: committee(group, 0),
        handovers: Vec::new(),
        founded: None,
    }
}

fn code(file: &EvidenceFile, genesis: &Genesis) -> &'static str {
    verify(file, genesis).map_or_else(|error| error.code(), |_| "holds")
}

#[test]
fn evidence_is_judged_by_the_genesis_alone_whoever_keeps_it() {
    let genesis = genesis();
    for group in [GROUP, GroupId::BEACON] {
        let file = EvidenceFile::from_file(&kept_by(&genesis, group).to_file()).unwrap();
        let verified = verify(&file, &genesis).unwrap();
        assert_eq!((verified.node, verified.kept_by, verified.height), (NodeId(2), group, Height(8)));
        assert_eq!(verified.signers, [NodeId(1), NodeId(3)]);
    }
}

#[test]
fn altered_evidence_is_refused_with_its_code() {
    let genesis = genesis();
    let good = kept_by(&genesis, GROUP);
    let with = |change: fn(&mut EvidenceFile)| {
        let mut file = good.clone();
        change(&mut file);
        code(&file, &genesis)
    };
    assert_eq!(with(|_| ()), "holds");
    assert_eq!(with(|file| file.version = 2), "evidence_malformed");
    assert_eq!(with(|file| file.evidence.version = 2), "evidence_malformed");
    assert_eq!(with(|file| file.evidence.proof.second = file.evidence.proof.first), "ballots_agree");
    assert_eq!(with(|file| file.evidence.proof.first.ballot.round = 0), "ballots_agree");
    assert_eq!(
        with(|file| file.evidence.proof.first.signature = file.evidence.proof.second.signature),
        "ballot_signature"
    );
    assert_eq!(with(|file| file.accused.epoch = Epoch(1)), "ballot_committee");
    assert_eq!(with(|file| file.evidence.height = Height(6)), "evidence_not_in_state");
    assert_eq!(with(|file| file.certificate.header.state_root = Hash32([1; 32])), "evidence_committee");
    assert_eq!(with(|file| file.certificate.signatures.truncate(1)), "evidence_committee");
    assert_eq!(with(|file| file.committee = committee(GROUP, 1)), "evidence_committee");
    let elsewhere = Genesis { name: "another".to_owned(), ..genesis.clone() };
    assert_eq!(code(&good, &elsewhere), "evidence_other_cluster");
    // Another shard does not judge what is not signed in it.
    let other = kept_by(&genesis, GroupId::shard(0));
    assert_eq!(code(&other, &genesis), "evidence_not_in_state");
}

#[test]
fn what_is_cut_or_longer_is_no_evidence() {
    let genesis = genesis();
    let bytes = kept_by(&genesis, GROUP).to_file();
    assert!(bytes.starts_with(EVIDENCE_MAGIC));
    let judge = |bytes: &[u8]| EvidenceFile::from_file(bytes).and_then(|file| verify(&file, &genesis).map(drop));
    assert_eq!(judge(&bytes), Ok(()));
    for at in 0..bytes.len() {
        assert_eq!(judge(&bytes[..at]).unwrap_err().code(), "evidence_malformed", "cut at {at}");
    }
    assert_eq!(judge(&[&bytes[..], &[0]].concat()).unwrap_err().code(), "evidence_malformed");
}

//! Evidence as files: what holds, offline and from the genesis alone, and that nothing else does.

#![allow(clippy::unwrap_used)]

mod support;

use client::EvidenceFile;
use client::evidence::{EVIDENCE_FORMAT, EVIDENCE_MAGIC, EVIDENCE_OF_BORN, state_key, verify};
use client::proof::tree_prefix;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
use ledger::evidence::EVIDENCE_VERSION;
use ledger::genesis::Genesis;
use ledger::tree::{StateTree, value_hash};
use ledger::*;
use support::{CHILD, GROUP, born, certify, committee, genesis, header_of, node_key};

/// The committee of a group, under the engine in which members vote.
fn voters_of(group: GroupId) -> Committee {
    Committee::of(Engine::Bft, group, Incarnation(0), Epoch(0), committee(group, 0).members)
}

/// Node 2 has prevoted two values in [`GROUP`], which this group keeps.
fn kept_by(genesis: &Genesis, group: GroupId) -> EvidenceFile {
    kept_as(genesis, group, BallotKind::Prevote)
}

/// As [`kept_by`], for two ballots of another kind.
fn kept_as(genesis: &Genesis, group: GroupId, kind: BallotKind) -> EvidenceFile {
    let owned = genesis.layout.prefix_of(group).unwrap_or(layout::BitPrefix::ALL);
    kept_of(genesis, (GROUP, kind), (group, owned))
}

/// Node 2 has signed two ballots of a kind in a group, for two values, which one that owns this part of the tree keeps.
fn kept_of(
    genesis: &Genesis,
    (of, kind): (GroupId, BallotKind),
    (group, owned): (GroupId, layout::BitPrefix),
) -> EvidenceFile {
    let vote = |value: u8| {
        let ballot = Ballot {
            version: BALLOT_VERSION,
            cluster: genesis.cluster_id(),
            group: of,
            incarnation: Incarnation(0),
            committee: voters_of(of).hash(),
            index: 12,
            round: 1,
            kind,
            value: Some(Hash32([value; 32])),
            node: NodeId(2),
        };
        ballot.sign(&node_key(0, 2))
    };
    let proof = Equivocation::of(vote(1), vote(2)).unwrap();
    let evidence = Evidence { version: EVIDENCE_VERSION, height: Height(7), time_ms: TimeMs(9), proof };
    let position = schema::tree_position(&state_key(owned, &evidence)).unwrap();
    let mut tree = StateTree::new(tree_prefix(owned).unwrap());
    tree.apply([(position, Some(value_hash(&borsh::to_vec(&evidence).unwrap())))]).unwrap();
    let path = tree.prove(&position).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, group, 8, 0) };
    EvidenceFile {
        version: EVIDENCE_FORMAT,
        evidence,
        accused: voters_of(of),
        path,
        certificate: certify(header, 0, &[1, 3]),
        committee: committee(group, 0),
        handovers: Vec::new(),
        founded: None,
        born: None,
    }
}

fn code(file: &EvidenceFile, genesis: &Genesis) -> &'static str {
    verify(file, genesis).map_or_else(|error| error.code(), |_| "holds")
}

#[test]
fn evidence_is_judged_by_the_genesis_alone_whoever_keeps_it() {
    let genesis = genesis();
    let (new, again) = (BallotKind::Proposal { valid_round: None }, BallotKind::Proposal { valid_round: Some(0) });
    for (group, kind) in [
        (GROUP, BallotKind::Prevote),
        (GROUP, BallotKind::Precommit),
        (GROUP, new),
        (GROUP, again),
        (GroupId::BEACON, BallotKind::Prevote),
        (GroupId::BEACON, new),
    ] {
        let file = EvidenceFile::from_file(&kept_as(&genesis, group, kind).to_file()).unwrap();
        assert_eq!(file.evidence.proof.first.ballot.kind, kind);
        let verified = verify(&file, &genesis).unwrap();
        assert_eq!((verified.node, verified.kept_by, verified.height), (NodeId(2), group, Height(8)));
        assert_eq!(verified.signers, [NodeId(1), NodeId(3)]);
    }
}

/// A shard that another one was cut into is proved by the beacon's word on its birth, and owns what that says.
#[test]
fn evidence_of_a_shard_that_was_cut_off_is_judged_by_the_proof_of_its_birth() {
    let genesis = genesis();
    let owned = genesis.layout.prefix_of(GROUP).unwrap().child(false);
    let bare = kept_of(&genesis, (CHILD, BallotKind::Prevote), (CHILD, owned));
    assert_eq!(code(&bare, &genesis), "evidence_committee", "nothing proves its beginning");
    let good = EvidenceFile::from_file(&bare.clone().with_born(born(&genesis)).to_file()).unwrap();
    assert_eq!(good.version, EVIDENCE_OF_BORN);
    let verified = verify(&good, &genesis).unwrap();
    assert_eq!((verified.node, verified.kept_by), (NodeId(2), CHILD));
    let with = |change: fn(&mut EvidenceFile)| {
        let mut file = good.clone();
        change(&mut file);
        code(&file, &genesis)
    };
    assert_eq!(with(|file| file.version = EVIDENCE_FORMAT), "evidence_malformed");
    assert_eq!(with(|file| file.born.as_mut().unwrap().leaf.group = GROUP), "evidence_committee");
    assert_eq!(with(|file| file.born.as_mut().unwrap().certificate.signatures.clear()), "evidence_committee");
    assert_eq!(with(|file| file.born = None), "evidence_malformed");
    // What its sibling owns is not what it does.
    let sibling = (CHILD, genesis.layout.prefix_of(GROUP).unwrap().child(true));
    let other = kept_of(&genesis, (CHILD, BallotKind::Prevote), sibling);
    assert_eq!(code(&other.with_born(born(&genesis)), &genesis), "evidence_not_in_state");
    // A group of the genesis did not begin later.
    assert_eq!(code(&kept_by(&genesis, GROUP).with_born(born(&genesis)), &genesis), "evidence_committee");
}

/// What a shard certifies after the layout has changed is judged as before: its prefix stays.
#[test]
fn evidence_holds_in_whatever_layout_the_block_stands() {
    let genesis = genesis();
    let mut file = kept_by(&genesis, GROUP);
    file.certificate.header.layout_version = LayoutVersion(9);
    file.certificate = certify(file.certificate.header, 0, &[1, 3]);
    assert_eq!(code(&file, &genesis), "holds");
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
    assert_eq!(with(|file| file.version = EVIDENCE_OF_BORN), "evidence_malformed");
    assert_eq!(with(|file| file.evidence.version = 2), "evidence_malformed");
    assert_eq!(with(|file| file.evidence.proof.second = file.evidence.proof.first), "ballots_agree");
    assert_eq!(with(|file| file.evidence.proof.first.ballot.round = 0), "ballots_agree");
    assert_eq!(
        with(|file| file.evidence.proof.first.signature = file.evidence.proof.second.signature),
        "ballot_signature"
    );
    assert_eq!(with(|file| file.accused.epoch = Epoch(1)), "ballot_committee");
    // The round that a proposal refers to is before its own.
    let later = BallotKind::Proposal { valid_round: Some(1) };
    assert_eq!(code(&kept_as(&genesis, GROUP, later), &genesis), "ballot_malformed");
    let mut mixed = kept_as(&genesis, GROUP, BallotKind::Proposal { valid_round: None });
    mixed.evidence.proof.second = good.evidence.proof.second;
    assert_eq!(code(&mixed, &genesis), "ballots_agree", "a proposal and a vote are two answers to two questions");
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

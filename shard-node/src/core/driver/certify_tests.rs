use super::*;
use crate::core::driver::testing::{block, config};
use crate::core::support::{SHARD, attestation, certify, committee, header, node_key};

/// A certifier with block `height`, on node 1.
fn certifier(height: u64) -> Certifier {
    let mut certifier = Certifier::default();
    certifier.committed(block(header(SHARD, height)));
    certifier
}

/// Signs as the driver does: the own signature is gathered like any other.
fn sign(certifier: &mut Certifier, height: u64) -> Gathered {
    let own = certifier.attest(Height(height), &config(1), &node_key(1)).expect("the block is here");
    certifier.gather(own, &committee(SHARD, 0))
}

fn gather(certifier: &mut Certifier, attestation: Attestation) -> Gathered {
    certifier.gather(attestation, &committee(SHARD, 0))
}

fn certificate(gathered: Gathered) -> Certificate {
    let Gathered::Certificate(certificate) = gathered else { panic!("no certificate") };
    *certificate
}

fn signers(certificate: &Certificate) -> Vec<u32> {
    certificate.signatures.iter().map(|(node, _)| node.0).collect()
}

fn other_header(height: u64) -> Header {
    Header { state_root: Hash32([77; 32]), ..header(SHARD, height) }
}

/// The right hash with another node's signature.
fn forged(node: u32, header: &Header) -> Attestation {
    Attestation { signature: node_key(50).sign(&header.hash()), ..attestation(node, header) }
}

#[test]
fn a_majority_makes_one_certificate() {
    let mut certifier = certifier(1);
    assert!(matches!(sign(&mut certifier, 1), Gathered::Nothing));
    assert!(certifier.latest().is_none());
    let made = certificate(gather(&mut certifier, attestation(2, &header(SHARD, 1))));
    assert_eq!(made.verify(&committee(SHARD, 0)), Ok(()));
    assert_eq!(signers(&made), [1, 2]);
    assert_eq!(certifier.latest().map(|latest| latest.certificate.clone()), Some(made));
    let third = gather(&mut certifier, attestation(3, &header(SHARD, 1)));
    assert!(matches!(third, Gathered::Nothing), "it is made once");
}

#[test]
fn the_same_node_twice_is_no_majority() {
    let mut certifier = certifier(1);
    for _ in 0..3 {
        assert!(matches!(sign(&mut certifier, 1), Gathered::Nothing));
    }
    let stranger = gather(&mut certifier, attestation(4, &header(SHARD, 1)));
    assert!(matches!(stranger, Gathered::Nothing), "a node outside the committee");
    assert!(certifier.latest().is_none());
}

#[test]
fn a_wrong_signature_does_not_count_and_does_not_stand_in_the_way() {
    let mut certifier = certifier(1);
    assert!(matches!(sign(&mut certifier, 1), Gathered::Nothing));
    let wrong = gather(&mut certifier, forged(2, &header(SHARD, 1)));
    assert!(matches!(wrong, Gathered::Nothing));
    assert!(certifier.latest().is_none());
    let made = certificate(gather(&mut certifier, attestation(3, &header(SHARD, 1))));
    assert_eq!(signers(&made), [1, 3]);
    assert_eq!(made.verify(&committee(SHARD, 0)), Ok(()));
}

#[test]
fn a_node_that_signed_wrongly_can_sign_again() {
    let mut certifier = certifier(1);
    assert!(matches!(sign(&mut certifier, 1), Gathered::Nothing));
    assert!(matches!(gather(&mut certifier, forged(2, &header(SHARD, 1))), Gathered::Nothing));
    let made = certificate(gather(&mut certifier, attestation(2, &header(SHARD, 1))));
    assert_eq!(signers(&made), [1, 2]);
}

#[test]
fn another_header_with_a_good_signature_is_a_divergence() {
    let mut certifier = certifier(1);
    assert!(matches!(sign(&mut certifier, 1), Gathered::Nothing));
    let forged = gather(&mut certifier, forged(2, &other_header(1)));
    assert!(matches!(forged, Gathered::Nothing), "nobody is blamed without a signature of theirs");
    let diverged = gather(&mut certifier, attestation(2, &other_header(1)));
    assert!(matches!(diverged, Gathered::Divergence(NodeId(2), Height(1))));
    let made = certificate(gather(&mut certifier, attestation(3, &header(SHARD, 1))));
    assert_eq!(signers(&made), [1, 3], "the other signature is no part of it");
}

#[test]
fn our_own_signature_comes_first() {
    let mut certifier = Certifier::default();
    for node in [2, 3] {
        let early = gather(&mut certifier, attestation(node, &header(SHARD, 1)));
        assert!(matches!(early, Gathered::Nothing), "the block is not here yet");
    }
    certifier.committed(block(header(SHARD, 1)));
    for node in [2, 3] {
        let unsigned = gather(&mut certifier, attestation(node, &header(SHARD, 1)));
        assert!(matches!(unsigned, Gathered::Nothing), "we have not judged the block yet");
    }
    assert!(certifier.latest().is_none());
    let made = certificate(sign(&mut certifier, 1));
    assert_eq!(signers(&made), [1, 2, 3]);
    assert_eq!(made.verify(&committee(SHARD, 0)), Ok(()));
}

#[test]
fn a_late_certificate_is_taken_once_and_only_if_it_fits() {
    let mut certifier = certifier(1);
    let committee = committee(SHARD, 0);
    assert_eq!(
        certifier.adopt(&certify(other_header(1)), &committee),
        Adopted::Contradiction,
        "a majority certified another header than ours"
    );
    assert_eq!(certifier.adopt(&certify(header(SHARD, 2)), &committee), Adopted::Nothing, "a block that is not here");
    let mut weak = certify(header(SHARD, 1));
    weak.signatures.truncate(1);
    assert_eq!(certifier.adopt(&weak, &committee), Adopted::Nothing, "too few signatures");
    let mut wrong = certify(header(SHARD, 1));
    wrong.signatures[1].1 = node_key(50).sign(&header(SHARD, 1).hash());
    assert_eq!(certifier.adopt(&wrong, &committee), Adopted::Nothing, "a wrong signature");
    assert!(certifier.latest().is_none());
    assert_eq!(certifier.adopt(&certify(header(SHARD, 1)), &committee), Adopted::News);
    assert_eq!(certifier.latest().map(|latest| latest.certificate.header.height), Some(Height(1)));
    assert_eq!(certifier.adopt(&certify(header(SHARD, 1)), &committee), Adopted::Nothing, "it is no news any more");
}

#[test]
fn an_older_certificate_does_not_replace_a_newer_one() {
    let mut certifier = certifier(1);
    certifier.committed(block(header(SHARD, 2)));
    let committee = committee(SHARD, 0);
    assert_eq!(certifier.adopt(&certify(header(SHARD, 2)), &committee), Adopted::News);
    assert_eq!(certifier.adopt(&certify(header(SHARD, 1)), &committee), Adopted::News, "still worth keeping");
    assert_eq!(certifier.latest().map(|latest| latest.certificate.header.height), Some(Height(2)));
}

#[test]
fn far_heights_take_no_memory() {
    let mut certifier = certifier(1000);
    let cheap = attestation(2, &header(SHARD, 0));
    let mut at = |height| {
        certifier.gather(Attestation { height: Height(height), ..cheap.clone() }, &committee(SHARD, 0));
        certifier.heights.len()
    };
    for far in [0, 1000 - WINDOW - 1, 1000 + WINDOW + 1, u64::MAX - WINDOW, u64::MAX] {
        assert_eq!(at(far), 1, "height {far}");
    }
    assert_eq!(at(1000 - WINDOW), 2);
    assert_eq!(at(1000 + WINDOW), 3);
    for height in 0..3000 {
        at(height);
    }
    let bound = usize::try_from(2 * WINDOW + 1).expect("small");
    assert_eq!(certifier.heights.len(), bound);
    for height in 1001..=1600 {
        certifier.committed(block(header(SHARD, height)));
        assert!(certifier.heights.len() <= bound, "height {height}");
    }
    assert_eq!(certifier.heights.first_key_value().map(|(height, _)| *height), Some(Height(1600 - WINDOW)));
}

/// Heights that are announced at a time.
fn announced(certifier: &mut Certifier, at: u64) -> Vec<u64> {
    certifier.uncertified(Tick(at)).iter().map(|attestation| attestation.height.0).collect()
}

#[test]
fn an_uncertified_block_is_announced_again_until_it_is_certified() {
    let mut certifier = certifier(1);
    assert!(announced(&mut certifier, 0).is_empty(), "it is not signed yet");
    assert!(matches!(sign(&mut certifier, 1), Gathered::Nothing));
    assert!(announced(&mut certifier, 10).is_empty(), "peers have just been told");
    assert!(announced(&mut certifier, ANNOUNCE_AGAIN_MS).is_empty(), "less than a round ago");
    assert!(announced(&mut certifier, 2 * ANNOUNCE_AGAIN_MS - 1).is_empty());
    assert_eq!(announced(&mut certifier, 2 * ANNOUNCE_AGAIN_MS), [1]);
    assert!(announced(&mut certifier, 2 * ANNOUNCE_AGAIN_MS + 1).is_empty());
    assert_eq!(announced(&mut certifier, 3 * ANNOUNCE_AGAIN_MS), [1]);
    assert_eq!(certifier.adopt(&certify(header(SHARD, 1)), &committee(SHARD, 0)), Adopted::News);
    assert!(announced(&mut certifier, 9 * ANNOUNCE_AGAIN_MS).is_empty());
}

#[test]
fn earlier_blocks_without_a_certificate_are_announced_too_some_at_a_time() {
    let mut certifier = Certifier::default();
    for height in 1..=20 {
        certifier.committed(block(header(SHARD, height)));
        assert!(matches!(sign(&mut certifier, height), Gathered::Nothing));
    }
    assert!(announced(&mut certifier, 0).is_empty());
    assert_eq!(announced(&mut certifier, ANNOUNCE_AGAIN_MS), [1, 2, 3, 4, 5, 6, 7, 8, 20]);
    for height in [1, 2, 4, 20] {
        assert_eq!(certifier.adopt(&certify(header(SHARD, height)), &committee(SHARD, 0)), Adopted::News);
    }
    assert_eq!(announced(&mut certifier, 2 * ANNOUNCE_AGAIN_MS), [3, 5, 6, 7, 8, 9, 10, 11, 19]);
}

#[test]
fn a_start_continues_with_what_is_in_state_and_keeps_what_peers_have_signed() {
    let mut certifier = certifier(1);
    gather(&mut certifier, attestation(2, &header(SHARD, 3)));
    let recent = |height| {
        let header = header(SHARD, height);
        RecentBlock { hash: header.hash(), header: Arc::new(header), outbox: Vec::new(), inbox: Vec::new() }
    };
    let kept = CertifiedBlock { certificate: certify(header(SHARD, 2)), outbox: Vec::new(), inbox: Vec::new() };
    certifier.reset(Height(3), vec![recent(3)], Some(kept));
    assert_eq!(certifier.latest().map(|latest| latest.certificate.header.height), Some(Height(2)));
    assert!(!certifier.holds(Height(1)), "of blocks with a certificate nothing more is needed");
    let made = certificate(sign(&mut certifier, 3));
    assert_eq!(signers(&made), [1, 2]);
}

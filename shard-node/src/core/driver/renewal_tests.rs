//! A member whose key is replaced: which key signs which block, and what shows the beacon that it has the next one.

use beacon::Readiness;
use ledger::certificate::Attestation;
use ledger::crypto::{self, SecretKey};
use ledger::header::Header;
use ledger::ids::{Epoch, GroupId, NodeId, Tick};
use ledger::machine::Driver;
use ledger::{Certificate, Committee, NodeKeys};

use super::testing::{at_zero, block, config};
use super::{Committees, DriverConfig, GroupDriver, Input, Output, SystemView};
use crate::core::peer::PeerMessage;
use crate::core::support::{SHARD, committee, committees, header, node_key};

/// The member whose key is replaced.
const RENEWS: u32 = 2;

fn next_key() -> SecretKey {
    SecretKey::derive(b"the next key", b"of node 2")
}

/// The committee that names the member by its next key.
fn renewed() -> Committee {
    let mut next = committee(SHARD, 1);
    next.members[1].key = next_key().public();
    next
}

/// What the group knows while that is prepared, and when it is in force.
fn known(in_force: bool) -> Committees {
    let mut current = committees();
    if !in_force {
        return Committees { current, coming: Some(renewed()), ..Committees::default() };
    }
    current.retain(|known| known.group != SHARD);
    current.push(renewed());
    Committees { current, former: vec![committee(SHARD, 0)], ..Committees::default() }
}

/// A block of the shard that a committee judges.
fn by(height: u64, judge: &Committee) -> Header {
    Header { committee_hash: judge.hash(), next_committee_hash: judge.hash(), ..header(SHARD, height) }
}

fn attestation(node: u32, header: &Header, key: &SecretKey) -> Attestation {
    let header_hash = header.hash();
    let signature = key.sign(&header_hash);
    Attestation { group: SHARD, height: header.height, header_hash, node: NodeId(node), signature }
}

struct Bench {
    driver: GroupDriver,
    now: Tick,
}

impl Bench {
    fn new(node: u32, keys: &[SecretKey], leads: bool) -> Self {
        let held = NodeKeys::none();
        keys.iter().cloned().for_each(|key| held.add(key));
        let driver = GroupDriver::new(DriverConfig { key: held, ..config(node) });
        let mut bench = Self { driver, now: Tick(0) };
        bench.step(Input::System(SystemView { committees: known(false), ..at_zero(SHARD, Vec::new()) }));
        bench.step(Input::Role { leads, leader: Some(NodeId(1)) });
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.driver.step(self.now, input, &mut out);
        out
    }

    fn block(&mut self, header: &Header) -> Vec<Output> {
        self.step(Input::Committed(block(header.clone())))
    }

    fn hears(&mut self, attestation: Attestation) -> Vec<Output> {
        let from = attestation.node;
        let message = PeerMessage::Attest { attestation, wants_certificate: false };
        self.step(Input::Peer { from, message: Box::new(message) })
    }

    /// A second later.
    fn later(&mut self) -> Vec<Output> {
        self.now = Tick(self.now.0 + 1_000);
        self.step(Input::Timer)
    }
}

/// By which of its keys a member has signed a block to node 1: the key that it has, the next one.
fn signed(out: &[Output], header: &Header) -> (bool, bool) {
    let with = |key: &SecretKey| {
        out.iter().any(|output| match output {
            Output::Send { node: NodeId(1), message: PeerMessage::Attest { attestation, .. }, .. } => {
                attestation.height == header.height
                    && crypto::verify(&key.public(), &header.hash(), &attestation.signature).is_ok()
            }
            _ => false,
        })
    };
    (with(&node_key(RENEWS)), with(&next_key()))
}

fn proofs(out: Vec<Output>) -> Vec<Readiness> {
    let to_beacon = |output: Output| match output {
        Output::Send { group: GroupId::BEACON, message: PeerMessage::Ready(proof), .. } => Some(proof),
        _ => None,
    };
    out.into_iter().filter_map(to_beacon).collect()
}

fn certificates(out: Vec<Output>) -> Vec<Certificate> {
    let certified = |output: Output| match output {
        Output::Certified(certificate) => Some(certificate),
        _ => None,
    };
    out.into_iter().filter_map(certified).collect()
}

#[test]
fn a_member_signs_with_both_keys_while_the_next_one_is_prepared_and_then_with_that_alone() {
    let (old, new) = (committee(SHARD, 0), renewed());
    let (first, second, third) = (by(1, &old), by(2, &old), by(3, &new));
    let mut bench = Bench::new(RENEWS, &[node_key(RENEWS), next_key()], false);
    let out = bench.block(&first);
    assert_eq!(signed(&out, &first), (true, true));
    assert!(signed(&bench.later(), &first).1, "the next key's may be lost, so it comes again");
    // The block in which the committee comes into force is the last that the one before judges.
    let last = Header { next_committee_hash: new.hash(), ..second };
    bench.step(Input::Committees(known(true)));
    assert_eq!(signed(&bench.block(&last), &last), (true, false));
    assert_eq!(signed(&bench.block(&third), &third), (false, true));

    // One that has not the next key goes on with the one it has, and has nothing to say behind the change.
    let mut without = Bench::new(RENEWS, &[node_key(RENEWS)], false);
    assert_eq!(signed(&without.block(&first), &first), (true, false));
    without.step(Input::Committees(known(true)));
    assert_eq!(signed(&without.block(&last), &last), (true, false));
    assert_eq!(signed(&without.block(&third), &third), (false, false));
}

#[test]
fn a_leader_proves_that_the_member_has_its_key_and_counts_each_key_for_what_it_is() {
    let (old, new) = (committee(SHARD, 0), renewed());
    let first = by(1, &old);
    let mut bench = Bench::new(1, &[node_key(1)], true);
    bench.block(&first);
    // By the next key alone nothing is certified, nor proved.
    let out = bench.hears(attestation(RENEWS, &first, &next_key()));
    assert!(proofs(out.clone()).is_empty() && certificates(out).is_empty());
    let out = bench.hears(attestation(RENEWS, &first, &SecretKey::derive(b"another", b"key")));
    assert!(proofs(out.clone()).is_empty() && certificates(out).is_empty());
    let out = bench.hears(attestation(RENEWS, &first, &node_key(RENEWS)));
    let found = certificates(out.clone());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].verify(&old), Ok(()));
    let sent = proofs(out);
    assert!(!sent.is_empty() && sent.iter().all(|proof| proof.holds(&old, &new)), "{sent:?}");
    assert!(sent[0].signatures.iter().map(|(node, _)| node.0).eq([RENEWS]));

    // Behind the change the key before counts for nothing.
    let second = by(2, &new);
    bench.step(Input::Committees(known(true)));
    bench.block(&second);
    assert!(certificates(bench.hears(attestation(RENEWS, &second, &node_key(RENEWS)))).is_empty());
    let found = certificates(bench.hears(attestation(RENEWS, &second, &next_key())));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].verify(&new), found[0].header.height), (Ok(()), second.height));
    assert!(found[0].verify(&old).is_err(), "another committee judges it");
    assert_eq!(new.epoch, Epoch(1));
}

#[test]
fn a_leader_whose_own_key_is_replaced_proves_it_by_itself() {
    let (old, new) = (committee(SHARD, 0), renewed());
    let first = by(1, &old);
    let mut bench = Bench::new(RENEWS, &[node_key(RENEWS), next_key()], true);
    bench.block(&first);
    let sent = proofs(bench.hears(attestation(1, &first, &node_key(1))));
    assert!(!sent.is_empty() && sent.iter().all(|proof| proof.holds(&old, &new)), "{sent:?}");

    let mut without = Bench::new(RENEWS, &[node_key(RENEWS)], true);
    without.block(&first);
    assert!(proofs(without.hears(attestation(1, &first, &node_key(1)))).is_empty());
    assert!(proofs(without.later()).is_empty(), "it does not have the key");
}

#[test]
fn a_leader_that_has_proved_its_own_key_signs_on_with_it_when_another_one_leads() {
    let (old, new) = (committee(SHARD, 0), renewed());
    let (first, second) = (by(1, &old), by(2, &old));
    let mut bench = Bench::new(RENEWS, &[node_key(RENEWS), next_key()], true);
    bench.block(&first);
    assert!(!proofs(bench.hears(attestation(1, &first, &node_key(1)))).is_empty());

    // The beacon may never have seen the proof, and the next leader makes none without this signature.
    bench.step(Input::Role { leads: false, leader: Some(NodeId(1)) });
    assert!(signed(&bench.later(), &first).1, "of the last block, though none comes");
    assert_eq!(signed(&bench.block(&second), &second), (true, true));

    // The proof is still good if it leads again.
    bench.step(Input::Role { leads: true, leader: Some(NodeId(RENEWS)) });
    let sent = proofs(bench.later());
    assert!(!sent.is_empty() && sent.iter().all(|proof| proof.holds(&old, &new)), "{sent:?}");
}

use beacon::epochs::{CONTRIBUTION_VERSION, Part};
use ledger::hash::Hash32;
use ledger::machine::Driver;

use super::*;
use crate::core::driver::testing::{at_zero, config};
use crate::core::driver::{DriverConfig, Input};
use crate::core::entry::{Command, Entry};
use crate::core::support::{committees, genesis, node_key, nodes};

/// A replica of a group at block 0, with this leader.
fn driver(group: GroupId, node: u32, leader: u32) -> GroupDriver {
    let mut driver = GroupDriver::new(DriverConfig { group, ..config(node) });
    let mut out = Vec::new();
    driver.step(Tick(0), Input::System(at_zero(group, committees())), &mut out);
    driver.step(Tick(0), Input::Role { leads: node == leader, leader: Some(NodeId(leader)) }, &mut out);
    driver
}

fn contribution(node: u32, value: u8, signer: u32) -> Contribution {
    let part = Part::Commitment(Hash32([value; 32]));
    Contribution::sign(genesis().cluster_id(), 1, NodeId(node), part, &node_key(signer))
}

/// What a driver proposes of contributions when it hears one; the proposal is through at once.
fn heard(driver: &mut GroupDriver, now: u64, from: u32, given: &Contribution) -> Vec<Contribution> {
    let mut out = Vec::new();
    let message = Box::new(PeerMessage::Contribution(given.clone()));
    driver.step(Tick(now), Input::Peer { from: NodeId(from), message }, &mut out);
    let mut all = Vec::new();
    for output in &out {
        let Output::Propose { id, entry } = output else { continue };
        for command in Entry::decode(entry).commands {
            if let Command::Contribution(bytes) = command {
                all.push(borsh::from_slice(&bytes).expect("a contribution"));
            }
        }
        driver.step(Tick(now), Input::Proposed { id: *id, accepted: true }, &mut Vec::new());
    }
    all
}

#[test]
fn the_beacons_leader_sequences_what_its_members_have_signed() {
    let [a, b, c] = nodes(GroupId::BEACON);
    let mut leader = driver(GroupId::BEACON, a, a);
    let given = contribution(b, 1, b);
    for (what, from, wrong) in [
        ("brought by another one", c, given.clone()),
        ("another key", b, contribution(b, 1, c)),
        ("altered", b, Contribution { epoch: 2, ..given.clone() }),
        ("another version", b, Contribution { version: CONTRIBUTION_VERSION + 1, ..given.clone() }),
        ("no member of the beacon", 1, contribution(1, 1, 1)),
    ] {
        assert_eq!(heard(&mut leader, 0, from, &wrong), [], "{what}");
    }
    assert_eq!(heard(&mut leader, 0, b, &given), std::slice::from_ref(&given));
    assert_eq!(heard(&mut leader, 999, b, &given), [], "it was taken a moment ago");
    assert_eq!(heard(&mut leader, 1_000, b, &given), std::slice::from_ref(&given), "it may have been lost");
    let next = contribution(b, 2, b);
    assert_eq!(heard(&mut leader, 1_000, b, &next), [next], "another one is taken at once");
    let own = contribution(a, 3, a);
    assert_eq!(heard(&mut leader, 1_000, a, &own), [own], "also its own");
}

#[test]
fn nobody_else_takes_contributions() {
    let [a, b, _] = nodes(GroupId::BEACON);
    let given = contribution(b, 1, b);
    assert_eq!(heard(&mut driver(GroupId::BEACON, a, b), 0, b, &given), [], "it does not lead");
    assert_eq!(heard(&mut driver(GroupId::shard(0), 1, 1), 0, b, &given), [], "a shard");
}

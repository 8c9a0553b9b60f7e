//! When a replica that is about to join says that it is ready.

use std::collections::BTreeSet;

use ledger::Committee;
use ledger::committee::Engine;
use ledger::header::Header;
use ledger::ids::{Epoch, NodeId, Tick};
use ledger::machine::Driver;

use super::testing::{at_zero, block, config};
use super::{Committees, DriverConfig, GroupDriver, Input, Output, SystemView};
use crate::core::peer::PeerMessage;
use crate::core::support::{SHARD, committees, header, liars, node_key};

/// The node that joins.
const JOINS: u32 = 14;

/// Nodes 1 to 4 of [`SHARD`] under an engine.
fn members(engine: Engine) -> Committee {
    let all = liars();
    Committee::of(engine, SHARD, all.incarnation, all.epoch, all.members)
}

/// What the group knows: the committee in force, and one that is prepared with node 14 in the place of node 4.
fn known(current: &Committee) -> Committees {
    let mut next = current.members.clone();
    next[3].node = NodeId(JOINS);
    next[3].key = node_key(JOINS).public();
    let coming = Committee::of(current.engine, SHARD, current.incarnation, Epoch(1), next);
    let mut all = committees();
    all.retain(|committee| committee.group != SHARD);
    all.push(current.clone());
    Committees { current: all, coming: Some(coming), ..Committees::default() }
}

/// The replica that joins.
struct Joiner {
    driver: GroupDriver,
    now: Tick,
    current: Committee,
}

impl Joiner {
    fn of(current: Committee) -> Self {
        let driver = GroupDriver::new(DriverConfig { join: 2, ..config(JOINS) });
        let view = SystemView { committees: known(&current), ..at_zero(SHARD, committees()) };
        let mut joiner = Self { driver, now: Tick(0), current };
        joiner.signs(Input::System(view));
        joiner
    }

    /// The heights of the headers that it shows its signature of to node 2, each once.
    fn signs(&mut self, input: Input) -> Vec<u64> {
        let mut out = Vec::new();
        self.driver.step(self.now, input, &mut out);
        let shown = out.into_iter().filter_map(|output| match output {
            Output::Send { node: NodeId(2), message: PeerMessage::Attest { attestation, .. }, .. } => {
                assert_eq!(attestation.node, NodeId(JOINS));
                Some(attestation.height.0)
            }
            _ => None,
        });
        shown.collect::<BTreeSet<u64>>().into_iter().collect()
    }

    fn block(&mut self, height: u64) -> Vec<u64> {
        let hash = self.current.hash();
        let header = Header { committee_hash: hash, next_committee_hash: hash, ..header(SHARD, height) };
        self.signs(Input::Committed(block(header)))
    }

    /// A second later.
    fn later(&mut self) -> Vec<u64> {
        self.now = Tick(self.now.0 + 1_000);
        self.signs(Input::Timer)
    }
}

#[test]
fn under_the_byzantine_engine_it_says_nothing_before_it_would_vote() {
    let mut joiner = Joiner::of(members(Engine::Bft));
    assert!(joiner.later().is_empty(), "not of block 0 either");
    assert_eq!((joiner.block(1), joiner.later()), (vec![], vec![]), "nobody has said anything of its vote");
    assert!(joiner.signs(Input::Votes(false)).is_empty());
    assert_eq!((joiner.block(2), joiner.later()), (vec![], vec![]));
    assert_eq!(joiner.signs(Input::Votes(true)), [2], "the last block, though none comes");
    assert_eq!(joiner.later(), [2], "again, as it may be lost");
    assert_eq!(joiner.block(3), [3]);
}

#[test]
fn under_raft_a_vote_comes_with_the_seat_and_is_not_waited_for() {
    let mut joiner = Joiner::of(members(Engine::Raft));
    joiner.signs(Input::Votes(false));
    assert_eq!(joiner.block(1), [1]);
    assert!(joiner.later().contains(&1), "again, as it may be lost");
}

#[test]
fn what_one_engine_has_said_of_its_vote_does_not_count_for_the_next_one() {
    let mut joiner = Joiner::of(members(Engine::Raft));
    assert_eq!(joiner.signs(Input::Votes(true)), [0], "block 0 is the last one");
    joiner.current = members(Engine::Bft);
    let next = known(&joiner.current);
    assert!(joiner.signs(Input::Committees(next)).is_empty());
    assert!(joiner.block(1).is_empty());
    assert!(!joiner.later().contains(&1));
    assert_eq!(joiner.signs(Input::Votes(true)), [1]);
    // Back to Raft, nothing has to be said anew.
    joiner.current = members(Engine::Raft);
    let next = known(&joiner.current);
    assert!(joiner.signs(Input::Committees(next)).is_empty());
    assert_eq!(joiner.block(2), [2]);
}

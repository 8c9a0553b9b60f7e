use std::collections::BTreeMap;

use bytes::Bytes;
use cross_shard::{Message, stream};
use ledger::genesis::VerifyMode;
use ledger::ids::Epoch;
use ledger::tree::{BitPrefix, StateTree};

use super::*;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::executor::{ExecutedBlock, Execution, GroupConstants, execute};
use crate::core::genesis::genesis_state;
use crate::core::support::{self, NOW, SHARD, bundle, certify, genesis, header, liars, stream_head};

fn start(engine: Engine, index: u64) -> EngineStart {
    let after = Position { term: 3, leader: 1, index };
    EngineStart { version: ENGINE_START_VERSION, engine, after, height: Height(4), anchor: Hash32([1; 32]) }
}

#[test]
fn an_entry_counts_for_the_engine_in_force_and_behind_the_hand_over() {
    use Engine::{Bft, Raft};
    for (what, in_force, handed, by, index, expected) in [
        ("there was no other", Raft, None, Raft, 1, true),
        ("there was no other", Bft, None, Bft, 1, true),
        ("behind the hand-over, in the log that has handed over", Bft, Some(7), Raft, 8, false),
        ("far behind it", Bft, Some(7), Raft, 99, false),
        ("the first of the new engine", Bft, Some(7), Bft, 8, true),
        ("the entry that handed over, again", Bft, Some(7), Raft, 7, false),
        // Raft, then the other up to 20, then Raft again.
        ("what the first run has left", Raft, Some(20), Raft, 8, false),
        ("the last of the engine between", Raft, Some(20), Bft, 20, false),
        ("behind it", Raft, Some(20), Bft, 21, false),
        ("the first of the second run", Raft, Some(20), Raft, 21, true),
    ] {
        let first = Order { engine: in_force, after: None, anchor: Hash32([1; 32]) };
        let order = handed.map_or(first, |index| start(in_force, index).order());
        assert_eq!(counts(&order, by, index), expected, "{what}");
    }
}

/// A shard that executes what its engine delivers, if it counts.
struct Group {
    state: BTreeMap<Vec<u8>, Bytes>,
    tree: StateTree,
    applied: AppliedRecord,
    mail: Vec<Vec<u8>>,
}

impl Group {
    fn new() -> Self {
        let first = genesis_state(&genesis(), None, SHARD).expect("the genesis names the group");
        let prefix = genesis().layout.prefix_of(SHARD).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
        let state = first.writes.into_iter().map(|(key, value)| (key, value.into())).collect();
        Self { state, tree: StateTree::new(prefix), applied: first.applied, mail: Vec::new() }
    }

    /// What the commit loop does with an entry. `None` for one that is void.
    fn deliver(&mut self, by: Engine, index: u64, commands: Vec<Command>) -> Option<ExecutedBlock> {
        if !counts(&order(&self.state, SHARD).expect("it reads"), by, index) {
            return None;
        }
        let constants = GroupConstants { cluster: genesis().cluster_id(), group: SHARD, verify: VerifyMode::Ingest };
        let stamp_ms = TimeMs(NOW.0 + index);
        let payload = Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode().into();
        let position = Position { term: 1, leader: 1, index };
        let consensus = AppliedState { position: Some(position), membership: None };
        let block = execute(&self.state, &mut self.tree, &constants, &self.applied, consensus, &payload);
        let Execution::Block(block) = block.expect("it executes") else { return None };
        for (key, value) in &block.writes {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
        self.applied = block.applied.clone();
        Some(*block)
    }

    /// The beacon's next mail: a committee comes into force.
    fn told(&mut self, committee: &Committee) -> Command {
        self.mail.push(Message::CommitteeUpdate(committee.clone()).encode());
        let outbox = [stream_head(SHARD, &self.mail)];
        let count = self.mail.len();
        let header = ledger::Header { outbox_root: stream::root(&outbox), ..header(GroupId::BEACON, count as u64) };
        let bundle = bundle(certify(header), &outbox, &self.mail, SHARD, count - 1, count);
        Command::Deliver(borsh::to_vec(&bundle).expect("it encodes"))
    }
}

#[test]
fn the_block_that_puts_another_engine_in_force_is_the_last_of_the_one_before() {
    let mut group = Group::new();
    let (raft, bft) = (support::committee(SHARD, 0), Committee { epoch: Epoch(1), ..liars() });
    let back = support::committee(SHARD, 2);
    assert!(group.deliver(Engine::Bft, 1, Vec::new()).is_none(), "nobody has handed over to it");
    group.deliver(Engine::Raft, 1, Vec::new()).expect("it counts");
    let told = group.told(&bft);
    let last = group.deliver(Engine::Raft, 2, vec![told]).expect("it counts");
    assert!(last.system_changed);
    assert_eq!((last.header.committee_hash, last.header.next_committee_hash), (raft.hash(), bft.hash()));
    let start: EngineStart = borsh::from_slice(&group.state[&schema::engine_start()]).expect("it decodes");
    assert_eq!((start.engine, start.after.index, start.height), (Engine::Bft, 2, Height(2)));
    assert_eq!(start.anchor, last.header_hash);
    assert_eq!(last.handed_over, Some((start, bft.clone())));
    assert_eq!(order(&group.state, SHARD), Ok(start.order()));

    // What stands behind it in the old log is void, whatever it is, and the position stays.
    let before = (group.state.clone(), group.applied.clone());
    let again = group.told(&raft);
    group.mail.pop();
    for index in [3, 4] {
        assert!(group.deliver(Engine::Raft, index, vec![again.clone()]).is_none());
    }
    assert_eq!((&group.state, &group.applied), (&before.0, &before.1));
    let first = group.deliver(Engine::Bft, 3, Vec::new()).expect("the new engine begins at that index");
    assert_eq!(first.header.parents, [last.header_hash]);
    assert_eq!((first.header.height, first.header.committee_hash), (Height(3), bft.hash()));

    // And back. The entries that the first run of Raft has left stay void.
    let told = group.told(&back);
    let last = group.deliver(Engine::Bft, 4, vec![told]).expect("it counts");
    assert_eq!(last.header.next_committee_hash, back.hash());
    assert!(group.deliver(Engine::Bft, 5, Vec::new()).is_none());
    assert!(group.deliver(Engine::Raft, 4, Vec::new()).is_none());
    let first = group.deliver(Engine::Raft, 5, Vec::new()).expect("it counts");
    assert_eq!((first.header.height, first.header.parents), (Height(5), vec![last.header_hash]));
}

#[test]
fn a_change_of_seats_leaves_the_engine_where_it_is() {
    let mut group = Group::new();
    let next = support::committee(SHARD, 1);
    let told = group.told(&next);
    let block = group.deliver(Engine::Raft, 1, vec![told]).expect("it counts");
    assert_eq!(block.header.next_committee_hash, next.hash());
    assert!(!group.state.contains_key(&schema::engine_start()) && block.handed_over.is_none());
    assert!(group.deliver(Engine::Raft, 2, Vec::new()).is_some());
}

#[test]
fn a_replica_has_joined_with_the_committee_since_which_it_has_its_seat() {
    let member = |node: u32| ledger::Member {
        node: NodeId(node),
        org: ledger::ids::OrgId(1),
        key: ledger::SecretKey::derive(b"node", &node.to_be_bytes()).public(),
    };
    let of = |epoch: u64, nodes: &[u32]| {
        let members = nodes.iter().copied().map(member).collect();
        Committee::majority(SHARD, ledger::ids::Incarnation(0), Epoch(epoch), members)
    };
    // The second node leaves and comes back; the committees of epochs 3 and 5 were given up and were never in force.
    let all = [of(0, &[1, 2, 3]), of(2, &[1, 3, 4]), of(4, &[1, 2, 4]), of(6, &[1, 2, 4])];
    let known = all
        .iter()
        .map(|one| (schema::committee(SHARD, &one.hash()), Bytes::from(borsh::to_vec(one).expect("it encodes"))));
    let state: BTreeMap<Vec<u8>, Bytes> = known.collect();
    let joins = |committee: &Committee| {
        let found = replicas(&state, committee).expect("it reads");
        found.into_iter().map(|(id, node)| (node.0, consensus::port::join_of(id))).collect::<Vec<_>>()
    };
    assert_eq!(joins(&all[0]), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(joins(&all[1]), [(1, 1), (3, 1), (4, 3)]);
    assert_eq!(joins(&all[3]), [(1, 1), (2, 5), (4, 3)]);
    // One that is about to come into force is not in the state yet.
    assert_eq!(joins(&of(7, &[1, 2, 4, 9])), [(1, 1), (2, 5), (4, 3), (9, 8)]);
}

//! What the checker of conservation finds where shards have ended, and on single disks.

use consensus::local::LocalLog;
use consensus::port::AppliedState;
use ledger::hash::Hash32;
use ledger::ids::{Address, NodeId, TimeMs};
use ledger::layout::Layout;
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use super::super::trial::{self, block};
use super::*;

const ASSET: AssetId = AssetId([7; 16]);

const fn shard(ordinal: u32) -> GroupId {
    GroupId::shard(ordinal)
}

fn see(books: &mut Conservation, facts: &Facts, group: GroupId, height: u64, line: FlowLine) -> Vec<String> {
    let seen = BlockSeen { flow: vec![FlowLine { asset: ASSET, ..line }], ..block(group, height) };
    let mut found = Vec::new();
    books.see(facts, &Seen::Block(Box::new(seen)), true, &mut found);
    found
}

/// The first of two shards has made 50 and sent 20 to the second one, which was cut; the left half has got so many of these.
fn sent_on(came: u128) -> (Facts, Conservation, Vec<String>) {
    let (mut facts, mut books) = (trial::facts(Layout::even(2)), Conservation::default());
    let made = FlowLine { closing: 50, minted: 50, ..FlowLine::default() };
    let mut found = see(&mut books, &facts, shard(0), 1, made);
    let sent = FlowLine { opening: 50, closing: 30, exported: vec![(shard(1), 20)], ..FlowLine::default() };
    found.extend(see(&mut books, &facts, shard(0), 2, sent));
    facts.lines.learn(&Layout::even(2).split(shard(1), [shard(2), shard(3)]).expect("it can be cut"));
    let taken = FlowLine { closing: came, imported: vec![(shard(0), came)], ..FlowLine::default() };
    found.extend(see(&mut books, &facts, shard(2), 8, taken));
    (facts, books, found)
}

#[test]
fn where_a_shard_has_ended_no_more_comes_than_has_left_and_in_the_end_no_less() {
    for (came, at_once, in_the_end) in [(20, 0, 0), (21, 1, 1), (19, 0, 1)] {
        let (facts, books, found) = sent_on(came);
        assert_eq!(found.len(), at_once, "{came}: {found:?}");
        let mut left = Vec::new();
        books.arrived(&facts, &mut left);
        assert_eq!(left.len(), in_the_end, "{came}: {left:?}");
    }
}

#[test]
fn what_has_come_from_shards_counts_for_all_of_their_kin() {
    let first = Layout::even(2);
    let cut = first.split(shard(1), [shard(2), shard(3)]).expect("it can be cut");
    let joined = cut.merge([shard(2), shard(3)], shard(4)).expect("they are halves");
    let mut facts = trial::facts(first);
    assert_eq!(kin(&facts), BTreeMap::new());
    facts.lines.learn(&cut);
    facts.lines.learn(&joined);
    assert_eq!(kin(&facts), BTreeMap::from([1, 2, 3, 4].map(|ordinal| (shard(ordinal), shard(1)))));
}

#[test]
fn a_disk_holds_what_its_group_held_at_its_height() {
    let (_, mut books, _) = sent_on(20);
    for (height, posted, wrong, compared) in [(1, 50, 0, 1), (2, 30, 0, 2), (2, 50, 1, 3), (9, 7, 0, 3)] {
        let account =
            AccountRecord { balances: vec![(ASSET, Balance { posted, held: 0 })], ..AccountRecord::default() };
        let applied = AppliedRecord {
            version: 1,
            consensus: AppliedState::default(),
            height: Height(height),
            header_hash: Hash32::ZERO,
            time_ms: TimeMs(0),
            state_root: Hash32::ZERO,
        };
        let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
        batch.put(schema::account(&Address::default()), borsh::to_vec(&account).expect("it is plain data"));
        batch.put(schema::applied(), borsh::to_vec(&applied).expect("it is plain data"));
        kv.write(batch).expect("memory takes it");
        let log = LocalLog::default();
        let replica = RawReplica { node: NodeId(0), group: shard(0), kv: &kv, log: &log, wal: None };
        let mut found = Vec::new();
        books.disk(&replica, &mut found).expect("all of it decodes");
        assert_eq!((found.len(), books.disks), (wrong, compared), "{height} {posted}: {found:?}");
    }
}

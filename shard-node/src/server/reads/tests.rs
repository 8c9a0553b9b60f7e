use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::support::{SHARD, header};
use crate::server::halt::Halt;
use crate::server::replica::ReplicaShare;
use crate::server::testing::{Lone, certify, issuer, mint, write_asset};
use client::proof::{Fact, ProofFile, verify};
use consensus::port::AppliedState;
use ledger::Hash32;
use ledger::genesis::VerifyMode;
use ledger::hash::sha256;
use ledger::ids::TimeMs;
use ledger::limits::HISTORY_LINES_MAX;
use ledger::rules::{HistoryKind, HistoryLine};
use proto::views::{HistoryChange, HistoryPage};
use storage::{KvView, MemKv, StorageError, WriteBatch};

fn put<T: borsh::BorshSerialize>(batch: &mut WriteBatch, key: Vec<u8>, value: &T) {
    batch.put(key, encoded(value));
}

fn address(number: u32) -> Address {
    Address(sha256(&number.to_le_bytes()).0[..20].try_into().expect("20 bytes"))
}

fn asset_id(number: u32) -> AssetId {
    AssetId(sha256(&number.to_be_bytes()).0[..16].try_into().expect("16 bytes"))
}

fn raw(numbers: impl IntoIterator<Item = u32>) -> Vec<Bytes> {
    numbers.into_iter().map(|number| Bytes::copy_from_slice(&address(number).0)).collect()
}

/// An account with a full record, and so many balances beside it, all of one amount.
fn rich(batch: &mut WriteBatch, address: &Address, extra: u32, posted: u128) {
    let inline = u32::try_from(INLINE_BALANCES_MAX).expect("small");
    let balance = Balance { posted, ..Balance::default() };
    let balances = (0..inline).map(|number| (asset_id(number), balance)).collect();
    put(batch, schema::account(address), &AccountRecord { balances, ..AccountRecord::default() });
    for number in inline..inline + extra {
        put(batch, schema::extra_balance(address, &asset_id(number)), &balance);
    }
}

fn at_height(batch: &mut WriteBatch, height: u64) {
    let applied = AppliedRecord {
        version: 1,
        consensus: AppliedState::default(),
        height: Height(height),
        header_hash: Hash32::ZERO,
        time_ms: TimeMs(height),
        state_root: Hash32::ZERO,
    };
    put(batch, schema::applied(), &applied);
}

/// A database in which a block is applied after every look at it. Each writes its height wherever there
/// is a number.
struct Busy {
    inner: MemKv,
    height: AtomicU64,
}

impl Busy {
    fn new() -> Self {
        let busy = Self { inner: MemKv::new(), height: AtomicU64::new(0) };
        busy.apply();
        busy
    }

    fn apply(&self) {
        let height = self.height.fetch_add(1, Ordering::Relaxed) + 1;
        let mut batch = WriteBatch::new();
        at_height(&mut batch, height);
        rich(&mut batch, &address(1), 5, u128::from(height));
        rich(&mut batch, &address(2), 5, u128::from(height));
        self.inner.write(batch).expect("a write");
    }
}

impl Kv for Busy {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let value = self.inner.get(key);
        self.apply();
        value
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let values = self.inner.multi_get(keys);
        self.apply();
        values
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let pairs = self.inner.scan(range, limit);
        self.apply();
        pairs
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.inner.write(batch)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.inner.flush()
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.inner.checkpoint(dir)
    }

    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        let view = self.inner.snapshot_view();
        self.apply();
        view
    }
}

fn all_are(record: &AccountRecord, height: u64) -> bool {
    record.balances.len() == INLINE_BALANCES_MAX + 5
        && record.balances.iter().all(|(_, balance)| balance.posted == u128::from(height))
}

#[test]
fn an_answer_is_of_one_moment_and_says_which() {
    let one = Bytes::copy_from_slice(&address(1).0);
    let questions = [
        Query::Account(v1::AccountQuery { address: one.clone(), group: 0 }),
        Query::Accounts(v1::AccountsQuery { addresses: raw([1, 2]) }),
        Query::AccountView(v1::AccountViewQuery { address: one, ..v1::AccountViewQuery::default() }),
    ];
    for question in questions {
        let db = Busy::new();
        let reply = look_up(&db, SHARD, &question, [None; 2]).ok().expect("an answer");
        assert!(reply.found && reply.height > 0);
        for value in &reply.values {
            let record = match &question {
                Query::AccountView(_) => decoded::<proto::views::AccountView>(value).expect("a view").record,
                _ => decoded::<AccountRecord>(value).expect("a record"),
            };
            assert!(all_are(&record, reply.height), "of height {}: {record:?}", reply.height);
        }
    }
}

/// Lets nobody look at the database but through a view that was taken while the tree was locked.
struct Guarded<'a> {
    share: &'a ReplicaShare,
    inner: &'a dyn Kv,
}

impl Kv for Guarded<'_> {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StorageError> {
        panic!("read at a moment of its own")
    }

    fn multi_get(&self, _: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        panic!("read at a moment of its own")
    }

    fn scan(&self, _: KeyRange, _: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        panic!("read at a moment of its own")
    }

    fn write(&self, _: WriteBatch) -> Result<(), StorageError> {
        panic!("written by a read")
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.inner.flush()
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.inner.checkpoint(dir)
    }

    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        assert!(self.share.stand.try_lock().is_none(), "a block may come between tree and database");
        self.inner.snapshot_view()
    }
}

async fn propose(lone: &Lone, tx: Bytes) {
    let commands = vec![Command::Tx(tx.to_vec())];
    let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(0), commands };
    lone.handle.engine.propose(entry.encode().into()).await.expect("it is committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_path_and_header_of_a_proof_are_of_one_block() {
    let lone = Lone::start(VerifyMode::Ingest).await;
    let share = &lone.handle.share;
    write_asset(&share.state);
    let payee = crate::core::support::address(&issuer().0);
    for salt in 1..4 {
        propose(&lone, mint(&lone.genesis, salt, payee, 5).1).await;
    }
    let db = share.state.db().expect("it is open");
    let guarded = Guarded { share, inner: &*db };
    let caught = prove::standing(&guarded, &share.stand, &share.halt, payee).ok().expect("an account");
    // Blocks that come afterwards change nothing of it.
    propose(&lone, mint(&lone.genesis, 9, payee, 7).1).await;
    let header: Header = share.state.load(&schema::header(caught.height)).expect("a read").expect("a header");
    let committee = lone.genesis.committee(SHARD).expect("a committee").clone();
    let file = ProofFile::new(header.cluster, caught.claim, certify(header), committee);
    let verified = verify(&file, &lone.genesis).expect("the proof holds");
    let record: AccountRecord = decoded(&caught.record.expect("it is there")).expect("a record");
    assert_eq!((verified.height, record.balances[0].1.posted), (Height(3), 15));
    assert_eq!(verified.fact, Fact::Account { address: payee, record: Some(record) });
    // After a failed write the tree may be ahead of the database.
    let halt = Halt::default();
    halt.stop("a write failed");
    let refused = prove::standing(&guarded, &share.stand, &halt, payee);
    assert!(matches!(refused, Err(Failure::Refused(Reject::GroupStopped, ..))));
    drop(db);
    lone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_tells_how_much_was_minted_and_burned() {
    let lone = Lone::start(VerifyMode::Ingest).await;
    write_asset(&lone.handle.share.state);
    let (key, asset) = issuer();
    let (own, payee) = (crate::core::support::address(&key), Address([3; 20]));
    propose(&lone, mint(&lone.genesis, 1, payee, 5).1).await;
    propose(&lone, mint(&lone.genesis, 2, own, 70).1).await;
    let burn = ledger::Move::Burn { issuer: own, asset: asset.id, amount: 30 };
    let cluster = lone.genesis.cluster_id();
    let burn = crate::core::support::transaction(cluster, ledger::ids::LedgerId::MAIN, &key, 3, vec![burn]);
    propose(&lone, Bytes::from(burn.encode())).await;
    let query = v1::HistoryQuery {
        address: Bytes::copy_from_slice(&own.0),
        before_height: u64::MAX,
        limit: 10,
        ..v1::HistoryQuery::default()
    };
    let request = v1::QueryRequest { query: Some(Query::History(query)), ..v1::QueryRequest::default() };
    let reply = answer(&lone.handle, None, request).await;
    let page: HistoryPage = decoded(&reply.values[0]).expect("a page");
    let changes: Vec<HistoryChange> = page.lines.into_iter().map(|line| line.change).collect();
    let minted = |amount, to| HistoryChange::Minted { asset: asset.id, amount, to: Some(to) };
    assert_eq!(changes[0], HistoryChange::Debit { asset: asset.id, amount: 30, to: None });
    assert!(changes.contains(&minted(70, own)), "{changes:?}");
    assert_eq!(changes.last(), Some(&minted(5, payee)));
    lone.stop().await;
}

/// A view that counts what is read through it.
struct Counting<'a> {
    inner: Box<dyn KvView + 'a>,
    gets: &'a AtomicUsize,
    pairs: &'a AtomicUsize,
    largest: &'a AtomicUsize,
}

impl KvView for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key)
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let pairs = self.inner.scan(range, limit)?;
        self.pairs.fetch_add(pairs.len(), Ordering::Relaxed);
        self.largest.fetch_max(pairs.len(), Ordering::Relaxed);
        Ok(pairs)
    }
}

#[test]
fn many_accounts_are_bounded_in_number_and_bytes() {
    let db = MemKv::new();
    let mut batch = WriteBatch::new();
    (0..60).for_each(|number| rich(&mut batch, &address(number), 4_000, 7));
    db.write(batch).expect("a write");
    let (gets, pairs, largest) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let inner = db.snapshot_view();
    let reader = ViewReader(Box::new(Counting { inner, gets: &gets, pairs: &pairs, largest: &largest }));
    let few = accounts(&reader, &raw([3, 999, 3])).ok().expect("they fit");
    assert_eq!((few.len(), few[1].len()), (3, 0));
    assert_eq!(few[0], few[2]);
    let refused = |result| matches!(result, Err(Failure::Refused(Reject::AnswerTooLarge, ..)));
    let most = ANSWER_BYTES_MAX / (few[0].len() + VALUE_BYTES);
    gets.store(0, Ordering::Relaxed);
    assert!(refused(accounts(&reader, &raw(0..60))), "60 accounts of {} bytes", few[0].len());
    assert_eq!(gets.load(Ordering::Relaxed), most + 1, "nothing is read beyond the bound");
    assert!(refused(accounts(&reader, &raw(std::iter::repeat_n(3, most + 1)))), "the same again takes room, too");
    assert!(accounts(&reader, &raw(std::iter::repeat_n(3, most))).is_ok());
    assert!(refused(accounts(&reader, &raw(std::iter::repeat_n(999, ACCOUNTS_ASKED_MAX + 1)))));
    assert!(accounts(&reader, &raw(std::iter::repeat_n(999, ACCOUNTS_ASKED_MAX))).is_ok());
}

/// Lines of an account in these blocks, so many in each.
fn write_history(db: &MemKv, blocks: &[(u64, u32)]) {
    let mut batch = WriteBatch::new();
    for (height, count) in blocks {
        put(&mut batch, schema::header(Height(*height)), &header(SHARD, *height));
        for index in 0..*count {
            let line = HistoryLine {
                account: address(1),
                kind: HistoryKind::Sent,
                txid: TxId(sha256(&index.to_le_bytes())),
                asset: asset_id(1),
                amount: u128::from(index) + 1,
                other: Some(address(2)),
            };
            put(&mut batch, schema::history(&address(1), Height(*height), index), &line);
        }
    }
    at_height(&mut batch, blocks.iter().map(|block| block.0).max().unwrap_or(0));
    db.write(batch).expect("a write");
}

#[test]
fn pages_of_history_are_bounded_and_miss_nothing_whatever_its_shape() {
    let dense: Vec<(u64, u32)> = (1..=300).map(|height| (height, 100)).collect();
    let sparse = [(1, 3), (7, 1), (900_000, 2), (999_999, 1)];
    // One block with more lines than any page may have.
    let hot = [(5, 2), (6, 20_000), (7, 2)];
    for (blocks, limit) in [(&dense[..], 250), (&sparse[..], 2), (&hot[..], 999), (&hot[..], u32::MAX), (&[][..], 5)] {
        let db = MemKv::new();
        write_history(&db, blocks);
        let mut expected: Vec<(u64, u32)> =
            blocks.iter().flat_map(|(height, count)| (0..*count).map(|index| (*height, index))).collect();
        expected.reverse();
        let most = (limit as usize).min(HISTORY_LINES_MAX);
        let (mut found, mut next) = (Vec::new(), Some(HistoryPlace { height: Height(1_000_000), index: 0 }));
        while let Some(before) = next {
            let (gets, pairs, largest) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
            let inner = db.snapshot_view();
            let reader = ViewReader(Box::new(Counting { inner, gets: &gets, pairs: &pairs, largest: &largest }));
            let page = history::page(&reader, &address(1), before, limit).ok().expect("a page");
            assert!(encoded(&page).len() <= ANSWER_BYTES_MAX, "it fits into a message");
            let rest = expected.len() - found.len();
            assert_eq!(page.lines.len(), most.min(rest), "a page is full, or the last");
            assert_eq!(page.before.is_none(), rest <= most, "there is a next page only where there are lines");
            found.extend(page.lines.iter().map(|line| (line.height.0, line.index)));
            next = page.before;
            let (largest, pairs) = (largest.load(Ordering::Relaxed), pairs.load(Ordering::Relaxed));
            assert!(largest <= 4097 && pairs <= 20_000, "{largest} lines at once, {pairs} for a page");
            assert!(gets.load(Ordering::Relaxed) <= page.lines.len() + 1, "a header is read once for its lines");
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn a_place_is_before_the_lines_that_follow_it_only() {
    let db = MemKv::new();
    write_history(&db, &[(4, 3), (5, 3)]);
    let ask = |height, index| {
        let query = v1::HistoryQuery {
            address: raw([1]).remove(0),
            before_height: height,
            before_index: index,
            limit: 1,
            group: 0,
        };
        let reply = look_up(&db, SHARD, &Query::History(query), [None; 2]).ok().expect("an answer");
        let page: HistoryPage = decoded(&reply.values[0]).expect("a page");
        page.lines.first().map(|line| (line.height.0, line.index))
    };
    assert_eq!(ask(u64::MAX, u32::MAX), Some((5, 2)));
    assert_eq!(ask(5, 2), Some((5, 1)));
    assert_eq!(ask(5, 0), Some((4, 2)), "a height alone is the beginning of its block");
    assert_eq!(ask(4, 0), None);
    assert_eq!(ask(0, 0), None);
}

#[test]
fn an_account_with_more_lines_than_are_shown_says_how_many() {
    let db = MemKv::new();
    let mut batch = WriteBatch::new();
    at_height(&mut batch, 1);
    let shown = u32::try_from(ledger::limits::ACCOUNT_LINES_MAX).expect("small");
    rich(&mut batch, &address(1), shown + 7, 1);
    rich(&mut batch, &address(2), shown, 1);
    db.write(batch).expect("a write");
    for (number, more) in [(1, 7), (2, 0)] {
        let query = v1::AccountViewQuery { address: raw([number]).remove(0), ..v1::AccountViewQuery::default() };
        let reply = look_up(&db, SHARD, &Query::AccountView(query), [None; 2]).ok().expect("an answer");
        let view: proto::views::AccountView = decoded(&reply.values[0]).expect("a view");
        assert_eq!((view.more_lines, view.record.balances.len()), (more, INLINE_BALANCES_MAX + shown as usize));
    }
}

#[test]
fn what_an_answer_takes_counts_values_and_proof() {
    let value = Bytes::from_static(&[0; 100]);
    let reply = v1::QueryReply { values: vec![value.clone(); 3], proof: value, ..v1::QueryReply::default() };
    assert_eq!(bytes_of(&reply), 3 * (100 + VALUE_BYTES) + 100);
}

#[test]
fn what_a_channel_is_to_agree_on_is_shown_to_whom_its_founding_names() {
    let policy = channel::Policy::members(channel::Quorum::All, channel::Role::Admin);
    let terms = channel::Terms {
        name: "steel".to_owned(),
        invited: vec![OrgId(2)],
        engine: ledger::Engine::Raft,
        founding: policy.clone(),
        policies: channel::Subject::ALL.map(|subject| (subject, policy.clone())).to_vec(),
    };
    let founding = Founding {
        version: 1,
        id: Hash32([1; 32]),
        terms,
        proposer: OrgId(1),
        until_ms: TimeMs(2),
        approvals: Vec::new(),
        rejections: Vec::new(),
        phase: channel::Phase::Proposed,
        promise: Some(channel::Promise {
            version: channel::opening::PROMISE_VERSION,
            hash: Hash32([2; 32]),
            sealed: channel::SealedOpening {
                sender: ledger::PublicKey([3; 33]),
                keys: vec![(OrgId(1), [1; 48]), (OrgId(2), [2; 48])],
                body: vec![4; 512],
            },
        }),
        salt: [5; 16],
    };
    let [one, two, three] = [1, 2, 3].map(|org| Some(OrgId(org)));
    for (router, caller, whole) in [
        (one, one, true),
        (one, two, true),
        (two, one, true),
        (one, three, false),
        (three, one, false),
        (None, one, false),
        (one, None, false),
        (None, None, false),
    ] {
        let shown = shown_to(founding.clone(), [router, caller]);
        assert_eq!(shown.terms.policies.is_empty(), !whole, "{router:?} {caller:?}");
        let promise = shown.promise.as_ref().expect("it promises");
        let own: Vec<OrgId> = caller.into_iter().filter(|org| founding.named().contains(org)).collect();
        let copies: Vec<OrgId> = promise.sealed.keys.iter().map(|(org, _)| *org).collect();
        assert_eq!((promise.hash, &copies), (Hash32([2; 32]), &own), "{router:?} {caller:?}: each its own copy");
        assert_eq!(promise.sealed.body.is_empty(), own.is_empty(), "{router:?} {caller:?}");
        assert_eq!((shown.id, shown.named()), (founding.id, founding.named()), "who is missing everybody may see");
    }
}

/// A shard that two others were joined into, of which the left one had been cut out of a third.
fn joined(batch: &mut WriteBatch) -> [GroupId; 3] {
    let [whole, left, right] = [7, 8, 9].map(GroupId::shard);
    let segment = |group, from, to| Segment { group, from: Height(from), to: Height(to) };
    let origin = Origin {
        version: ledger::lineage::ORIGIN_VERSION,
        job: JobId(1),
        first: Height(6),
        header_hash: Hash32::ZERO,
        parents: Vec::new(),
        spine: vec![segment(whole, 1, 3), segment(left, 4, 5)],
        archived: vec![segment(right, 4, 5)],
    };
    put(batch, schema::origin(), &origin);
    for (group, height) in [(whole, 3), (left, 4), (SHARD, 6)] {
        put(batch, schema::header(Height(height)), &header(group, height));
    }
    put(batch, schema::archived(right, &schema::header(Height(4))), &header(right, 4));
    at_height(batch, 6);
    [whole, left, right]
}

#[test]
fn a_block_of_a_shard_that_has_ended_is_told_by_its_name() {
    let db = MemKv::new();
    let mut batch = WriteBatch::new();
    let [whole, left, right] = joined(&mut batch);
    db.write(batch).expect("a write");
    let ask = |group: GroupId, height| {
        let query = v1::BlockQuery { group: group.0, height };
        let reply = look_up(&db, SHARD, &Query::Block(query), [None; 2]).ok().expect("an answer");
        let block: Option<BlockView> = reply.values.first().map(|value| decoded(value).expect("a block"));
        block.map(|block| (block.header.group, block.header.height.0))
    };
    assert_eq!(ask(right, 4), Some((right, 4)), "both had a block of this height");
    assert_eq!(ask(left, 4), Some((left, 4)));
    assert_eq!(ask(whole, 3), Some((whole, 3)));
    assert_eq!(ask(SHARD, 6), Some((SHARD, 6)));
    assert_eq!(ask(SHARD, 3), Some((whole, 3)), "its chain begins with that of the one it came from");
    for (group, height) in [(right, 6), (left, 6), (whole, 4), (GroupId::shard(10), 4)] {
        assert_eq!(ask(group, height), None, "{group} has no block {height}");
    }
}

#[test]
fn a_receipt_of_a_shard_that_has_ended_is_found_in_its_own_block() {
    let db = MemKv::new();
    let mut batch = WriteBatch::new();
    let [_, left, right] = joined(&mut batch);
    let txid = |group: GroupId| TxId(sha256(&group.0.to_le_bytes()));
    let receipt = |group: GroupId| Receipt {
        version: 1,
        txid: txid(group),
        group,
        height: Height(4),
        index: 0,
        time_ms: TimeMs(1),
        outcome: ledger::Outcome::Committed { mail: Vec::new() },
    };
    let plain = schema::block(Height(4));
    for (group, key) in [(left, plain.clone()), (right, schema::archived(right, &plain))] {
        let record = BlockRecord { receipts: vec![receipt(group)], ..BlockRecord::default() };
        put(&mut batch, key, &record);
        put(&mut batch, schema::receipt(&txid(group)), &ReceiptPlace { height: Height(4), index: 0, chain: group });
    }
    db.write(batch).expect("a write");
    for group in [left, right] {
        let query = v1::TransactionQuery { txid: Bytes::copy_from_slice(&txid(group).0.0), group: 0 };
        let reply = look_up(&db, SHARD, &Query::Transaction(query), [None; 2]).ok().expect("an answer");
        assert_eq!(decoded::<Receipt>(&reply.values[0]).expect("a receipt"), receipt(group));
    }
}

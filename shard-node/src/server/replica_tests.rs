use std::sync::atomic::AtomicBool;

use super::*;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::support::{self, NOW, SHARD, address, liars};
use crate::server::testing::{certify, committed, issuer, lone_genesis, mint, resources, write_asset};
use crate::server::vault::Vault;
use consensus::port::{Position, SnapshotSecret};
use cross_shard::{Message, stream};
use ledger::Header;
use ledger::ids::{Address, ClusterId, Epoch, Height, TimeMs};
use storage::{Fault, FaultyKv, MemKv, Operation};
use tempfile::TempDir;

/// Another node, which seals nothing.
fn sender() -> Origin {
    Origin { node: NodeId(7), secret: SnapshotSecret::default() }
}

/// A replica in memory whose writes fail once `failing` is set.
struct Bench {
    replica: Replica,
    share: ReplicaShare,
    failing: Arc<AtomicBool>,
    _effects: mpsc::Receiver<Committing>,
}

impl Bench {
    fn new() -> Self {
        let genesis = lone_genesis(VerifyMode::Ingest);
        let failing = Arc::new(AtomicBool::new(false));
        let full = Arc::clone(&failing);
        let plan = move |_: u64, operation: Operation| match operation {
            Operation::Write { .. } if full.load(Ordering::Relaxed) => Fault::DiskFull,
            _ => Fault::None,
        };
        let db: Arc<dyn Kv> = Arc::new(FaultyKv::new(MemKv::new(), plan, "memory"));
        write_genesis(&*db, &genesis, None, SHARD).expect("block 0");
        let stand = rebuild(&*db, "memory", SHARD).expect("a tree");
        let (effects, received) = mpsc::channel(8);
        let share = ReplicaShare {
            state: StateHandle { db: Arc::new(RwLock::new(Some(db))) },
            stand: Arc::new(Mutex::new(stand)),
            halt: Halt::default(),
            followers: Followers::default(),
            checked: Checked::default(),
            trimming_bytes: Arc::default(),
            written_bytes: Arc::default(),
            transactions: Arc::default(),
        };
        write_asset(&share.state);
        let cluster = genesis.cluster_id();
        let replica = Replica {
            root: PathBuf::new(),
            resources: crate::server::testing::resources(),
            seal: LocalSeal::open(),
            identity: StateIdentity { cluster: cluster.0.0, node: 1, group: SHARD.0, format_version: STATE_FORMAT },
            constants: GroupConstants { cluster, group: SHARD, verify: VerifyMode::Ingest },
            state: share.state.clone(),
            stand: Arc::clone(&share.stand),
            effects,
            halt: share.halt.clone(),
            followers: share.followers.clone(),
            checked: share.checked.clone(),
            staged: None,
            by: Engine::Raft,
            written_bytes: Arc::clone(&share.written_bytes),
            transactions: Arc::clone(&share.transactions),
        };
        Self { replica, share, failing, _effects: received }
    }

    fn mint(&mut self, index: u64) -> Result<(), Fatal> {
        let salt = u8::try_from(index).expect("a small test");
        let (_, tx) = mint(&lone_genesis(VerifyMode::Ingest), salt, Address([3; 20]), 5);
        self.replica.apply(vec![committed(index, [tx])])
    }
}

#[test]
fn a_failed_write_stops_the_group_before_anybody_sees_the_tree() {
    let mut bench = Bench::new();
    bench.mint(1).expect("a block");
    assert_eq!(bench.share.transactions.load(Ordering::Relaxed), 1, "the mint of {:?} counts", issuer().1.id);
    let root = bench.share.stand.lock().tree.root();
    assert_eq!(bench.share.halt.reason(), None);

    bench.failing.store(true, Ordering::Relaxed);
    let fatal = bench.mint(2).expect_err("the disk is full");
    assert!(fatal.0.contains("storage_disk_full"), "{fatal}");
    let mut stand = bench.share.stand.lock();
    assert_ne!(stand.tree.root(), root, "the tree is ahead of the database");
    assert_eq!(Hash32(root), stand.applied.state_root);
    assert_eq!(bench.share.halt.reason().as_ref(), Some(&fatal.0), "which whoever holds this lock is told");
    drop(stand);

    // Nothing is built on such a tree, also when the disk has room again.
    bench.failing.store(false, Ordering::Relaxed);
    assert_eq!(bench.mint(3), Err(fatal));
}

/// The entry by which the beacon's only mail puts a committee into force.
fn puts_in_force(committee: &Committee, index: u64) -> Committed {
    let genesis = lone_genesis(VerifyMode::Ingest);
    let beacon = genesis.committee(GroupId::BEACON).expect("there is a beacon").hash();
    let mail = [Message::CommitteeUpdate(committee.clone()).encode()];
    let outbox = [support::stream_head(SHARD, &mail)];
    let header = Header {
        cluster: genesis.cluster_id(),
        committee_hash: beacon,
        next_committee_hash: beacon,
        outbox_root: stream::root(&outbox),
        ..support::header(GroupId::BEACON, 1)
    };
    let bundle = support::bundle(certify(header), &outbox, &mail, SHARD, 0, 1);
    let commands = vec![Command::Deliver(encoded(&bundle).to_vec())];
    let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(NOW.0 + index), commands };
    let position = Position { term: 1, leader: 1, index };
    Committed { position, payload: Payload::Batch(entry.encode().into()), note: None }
}

#[test]
fn what_an_engine_delivers_behind_its_last_entry_leaves_no_trace() {
    let mut bench = Bench::new();
    bench.mint(1).expect("a block");
    assert_eq!(bench.replica.order().map(|order| (order.engine, order.after)), Some((Engine::Raft, None)));
    let bft = Committee { epoch: Epoch(1), ..liars() };
    let (_, tx) = mint(&lone_genesis(VerifyMode::Ingest), 3, Address([3; 20]), 5);
    let blank = Committed { payload: Payload::Blank, ..committed(4, []) };
    bench.replica.apply(vec![puts_in_force(&bft, 2), committed(3, [tx]), blank]).expect("one of them is a block");

    let applied = bench.share.stand.lock().applied.clone();
    assert_eq!(applied.height, Height(2));
    let order = bench.replica.order().expect("the state says it");
    assert_eq!(
        (order.engine, order.after, order.anchor),
        (Engine::Bft, applied.consensus.position, applied.header_hash)
    );
    assert_eq!(order.stint(), 2);
    // The engine that begins finds its beginning beside the state, also after another start.
    let note = first_note(&order, &bft, &[]).expect("it follows from the committee");
    assert_eq!(applied.consensus.membership, Some((order.after, note)));
    assert_eq!(bench.replica.applied(), applied.consensus);
    let kept: Option<AppliedRecord> = bench.share.state.load(&schema::applied()).expect("a read");
    assert_eq!(kept, Some(applied.clone()));
    assert_eq!(applied::order(&DbReader(&*bench.replica.db().expect("it is open")), SHARD), Ok(order));

    // Whatever Raft still delivers, and what the other one would deliver again.
    bench.mint(3).expect("it is void");
    bench.replica.ordered_by(Engine::Bft);
    bench.mint(2).expect("it is void");
    assert_eq!(bench.share.stand.lock().applied, applied);
    bench.mint(3).expect("a block");
    let applied = bench.share.stand.lock().applied.clone();
    assert_eq!((applied.height, applied.consensus.position.map(|at| at.index)), (Height(3), Some(3)));
}

/// A replica on disk that applies mints, one a block.
struct Disk {
    replica: Replica,
    share: ReplicaShare,
    folder: TempDir,
    effects: mpsc::Receiver<Committing>,
}

impl Disk {
    fn new() -> Self {
        Self::sealed_by(LocalSeal::open())
    }

    fn sealed_by(seal: LocalSeal) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (sender, effects) = mpsc::channel(64);
        let genesis = lone_genesis(VerifyMode::Ingest);
        let root = folder.path().join("state");
        let files = Files { root: &root, resources: &resources(), seal, known: Known::default() };
        let opened = Replica::open(files, &genesis, None, (NodeId(1), SHARD), VerifyMode::Ingest, sender);
        let (replica, share) = opened.expect("an empty folder");
        write_asset(&share.state);
        Self { replica, share, folder, effects }
    }

    /// Blocks with the mints of these numbers.
    fn with(mints: impl IntoIterator<Item = u8>) -> Self {
        Self::new().and(mints)
    }

    fn and(mut self, mints: impl IntoIterator<Item = u8>) -> Self {
        for (index, salt) in (1..).zip(mints) {
            let (_, tx) = mint(&lone_genesis(VerifyMode::Ingest), salt, Address([3; 20]), 5);
            self.replica.apply(vec![committed(index, [tx])]).expect("a block");
        }
        self
    }

    fn put<T: borsh::BorshSerialize>(&self, key: Vec<u8>, value: &T) {
        let mut batch = WriteBatch::new();
        batch.put(key, encoded(value));
        self.share.state.db().expect("it is open").write(batch).expect("a write");
    }

    fn delete(&self, key: Vec<u8>) {
        let mut batch = WriteBatch::new();
        batch.delete(key);
        self.share.state.db().expect("it is open").write(batch).expect("a write");
    }

    fn load<T: borsh::BorshDeserialize>(&self, key: Vec<u8>) -> Option<T> {
        self.share.state.load(&key).expect("a read")
    }

    /// Makes a snapshot, as received by somebody else.
    fn snapshot(&mut self) -> PathBuf {
        let dir = self.folder.path().join("snapshot");
        self.replica.checkpoint(&dir).expect("a snapshot").path
    }

    /// Makes a snapshot in a folder that outlives the replica.
    fn snapshot_in(&mut self, dir: &Path) -> PathBuf {
        self.replica.checkpoint(dir).expect("a snapshot").path
    }

    fn height(&self) -> u64 {
        self.share.stand.lock().applied.height.0
    }

    /// Folders and files of the state.
    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("state")).expect("the folder").count()
    }
}

#[test]
fn a_good_snapshot_is_checked_first_and_switched_to_after() {
    let mut leader = Disk::with(1..=5);
    leader.put(marks::checked(), &Height(5));
    leader.put(marks::forged(), &Height(9));
    let header: Header = leader.load(schema::header(Height(4))).expect("a header");
    leader.put(schema::certificate(Height(4)), &certify(header));
    let dir = leader.snapshot();
    let mut replica = Disk::with(1..=2);
    replica.put(marks::checked(), &Height(2));
    let prepared = replica.replica.prepare(&dir, Some(sender())).expect("it holds");
    assert_eq!(replica.height(), 2, "nothing has changed yet");
    let last: Header = leader.load(schema::header(Height(5))).expect("a header");
    assert_eq!((prepared.header, prepared.signers.hash()), (last.hash(), last.committee_hash));
    assert_eq!(prepared.committee.hash(), last.next_committee_hash);
    assert_eq!(Some(prepared.order), leader.replica.order());
    assert_eq!(replica.replica.install(&dir), Ok(prepared.applied));
    assert_eq!((replica.height(), replica.files()), (5, 2), "LIVE and one database");
    assert_eq!(replica.share.stand.lock().applied, leader.share.stand.lock().applied);
    // What the sender claims to have found out is not taken over.
    let marks = [marks::checked(), marks::forged(), marks::installed()].map(|key| replica.load::<Height>(key));
    assert_eq!(marks, [Some(Height(2)), None, Some(Height(5))]);
    let last = std::iter::from_fn(|| replica.effects.try_recv().ok()).last();
    assert!(matches!(last, Some(Committing::Installed)));
    // It goes on from there.
    let (_, tx) = mint(&lone_genesis(VerifyMode::Ingest), 6, Address([3; 20]), 5);
    replica.replica.apply(vec![committed(6, [tx])]).expect("a block");
    assert_eq!(replica.height(), 6);
}

#[test]
fn a_wrong_snapshot_leaves_the_good_state_and_names_its_sender() {
    type Harm = fn(&Disk);
    let harms: [(&str, Harm); 9] = [
        ("does not match its recorded root", |leader| leader.put(schema::account(&address(&issuer().0)), &1u8)),
        ("does not continue", |leader| {
            let header: Header = leader.load(schema::header(Height(3))).expect("a header");
            leader.put(schema::header(Height(3)), &Header { state_root: Hash32([7; 32]), ..header });
        }),
        ("does not continue", |leader| leader.delete(schema::header(Height(3)))),
        ("its mail is not", |leader| {
            leader.put(
                schema::inbox(GroupId::BEACON),
                &cross_shard::InCursor { next_seq: 3, peaks: vec![Hash32([1; 32]); 2] },
            );
        }),
        ("does not decode", |leader| leader.put(schema::certificate(Height(3)), &1u8)),
        ("last header does not name its state", |leader| {
            let header: Header = leader.load(schema::header(Height(5))).expect("a header");
            leader.put(schema::header(Height(5)), &Header { state_root: Hash32([7; 32]), ..header });
        }),
        ("last header does not name its state", |leader| {
            let applied: AppliedRecord = leader.load(schema::applied()).expect("a position");
            leader.put(schema::applied(), &AppliedRecord { time_ms: TimeMs(u64::MAX), ..applied });
        }),
        ("committees are not those", |leader| leader.put(schema::current_committee(SHARD), &liars())),
        ("committees are not those", |leader| {
            let header: Header = leader.load(schema::header(Height(5))).expect("a header");
            leader.put(schema::committee(SHARD, &header.committee_hash), &liars());
        }),
    ];
    let mut replica = Disk::with(1..=2);
    let before = replica.share.stand.lock().applied.clone();
    let mut refuses = |dir: &Path, why: &str| {
        let error = replica.replica.prepare(dir, Some(sender())).expect_err(why);
        assert!(matches!(&error, SnapshotError::Refused(reason) if reason.contains(why)), "{why}: {error}");
        let told = std::iter::from_fn(|| replica.effects.try_recv().ok()).last();
        assert!(
            matches!(&told, Some(Committing::Refused(text))
                if text.starts_with("snapshot_refused: ") && text.contains("node 7") && text.contains(why)),
            "{why}"
        );
        assert!(replica.replica.install(dir).is_err(), "{why}: not by another way either");
        assert_eq!((replica.share.stand.lock().applied.clone(), replica.files()), (before.clone(), 2), "{why}");
        assert!(replica.load::<Header>(schema::header(Height(2))).is_some(), "{why}: it is still served");
    };
    for (why, harm) in harms {
        let mut leader = Disk::with(1..=5);
        harm(&leader);
        refuses(&leader.snapshot(), why);
    }
    // Consistent in itself, but of another history.
    refuses(&Disk::with([1, 12, 13, 14]).snapshot(), "does not continue");
    // With the label of another position.
    let mut leader = Disk::with(1..=5);
    let dir = leader.snapshot();
    crate::server::snapshot::label::write(&dir, &leader.replica.constants, &AppliedState::default()).expect("a label");
    refuses(&dir, "another position");
    // With damaged files: cut, and with other bytes in them.
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [Spoil; 3] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x55),
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
    ];
    for spoil in spoils {
        let mut leader = Disk::with(1..=5);
        let dir = leader.snapshot();
        let files = std::fs::read_dir(&dir).expect("the snapshot").map(|entry| entry.expect("a file").path());
        let tables: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
        assert!(!tables.is_empty());
        for table in tables {
            let mut bytes = std::fs::read(&table).expect("a table");
            spoil(&mut bytes);
            std::fs::write(&table, bytes).expect("a write");
        }
        refuses(&dir, "");
    }
    // After all that the replica runs, and a good one is taken.
    assert_eq!(replica.share.halt.reason(), None);
    let (_, tx) = mint(&lone_genesis(VerifyMode::Ingest), 3, Address([3; 20]), 5);
    replica.replica.apply(vec![committed(3, [tx])]).expect("a block");
    let mut leader = Disk::with(1..=5);
    let dir = leader.snapshot();
    replica.replica.prepare(&dir, Some(sender())).expect("it holds");
    replica.replica.install(&dir).expect("it is taken");
    assert_eq!(replica.height(), 5);
}

#[test]
fn only_a_certificate_of_its_last_header_by_those_who_sign_it_makes_a_snapshot_certified() {
    let mut leader = Disk::with(1..=5);
    let header = |height: u64| leader.load::<Header>(schema::header(Height(height))).expect("a header");
    let (last, before) = (header(5), header(4));
    let good = certify(last.clone());
    let mut nobodys = good.clone();
    nobodys.signatures.clear();
    let certificates = [(None, false), (Some(certify(before)), false), (Some(nobodys), false), (Some(good), true)];
    for (certificate, expected) in certificates {
        if let Some(certificate) = &certificate {
            leader.put(schema::certificate(Height(5)), certificate);
        }
        let dir = leader.snapshot();
        let mut replica = Disk::with(1..=2);
        let prepared = replica.replica.prepare(&dir, Some(sender())).expect("it holds");
        assert_eq!(prepared.certified, expected, "{certificate:?}");
        std::fs::remove_dir_all(&dir).expect("the snapshot");
    }
}

#[test]
fn a_snapshot_that_others_contradict_is_dropped_and_people_hear_whose_it_was() {
    let mut leader = Disk::with(1..=5);
    let dir = leader.snapshot();
    let mut replica = Disk::with(1..=2);
    let before = replica.share.stand.lock().applied.clone();
    let text = |told: Option<Committing>| match told {
        Some(Committing::Refused(text)) => Some(text),
        _ => None,
    };
    for lie in [Some((NodeId(7), "snapshot_contradicted: by two".to_owned())), None] {
        while replica.effects.try_recv().is_ok() {}
        replica.replica.prepare(&dir, Some(sender())).expect("it passes the checks of its own");
        replica.replica.discard(lie.clone()).expect("it is told");
        assert_eq!((replica.share.stand.lock().applied.clone(), replica.files()), (before.clone(), 2), "no copy stays");
        let told = text(replica.effects.try_recv().ok());
        // Where nobody has lied, there is nothing to tell.
        assert_eq!(told.is_some(), lie.is_some());
        assert!(told.is_none_or(|text| {
            text.starts_with("snapshot_refused: ") && text.contains("node 7") && text.contains("snapshot_contradicted")
        }));
    }
}

/// A replica whose group has gone over to a Byzantine engine with its second block, and has made one more.
fn under_bft() -> Disk {
    let mut disk = Disk::with([1]);
    let bft = Committee { epoch: Epoch(1), ..liars() };
    disk.replica.apply(vec![puts_in_force(&bft, 2)]).expect("a block");
    disk.replica.ordered_by(Engine::Bft);
    let (_, tx) = mint(&lone_genesis(VerifyMode::Ingest), 3, Address([3; 20]), 5);
    disk.replica.apply(vec![committed(3, [tx])]).expect("a block");
    assert_eq!(disk.height(), 3);
    // The change of committee, which whoever takes the state wants to see certified.
    let header: Header = disk.load(schema::header(Height(2))).expect("a header");
    disk.put(schema::certificate(Height(2)), &certify(header));
    disk
}

#[test]
fn what_no_header_covers_is_counted_alike_by_lender_witness_and_borrower() {
    let told = |disk: &mut Disk| {
        let dir = disk.snapshot();
        let told = disk.replica.packer().uncovered(&dir).expect("it is read");
        std::fs::remove_dir_all(&dir).expect("the snapshot");
        told
    };
    // What a witness tells does not depend on what it has found out by itself.
    let mut witness = under_bft();
    witness.put(marks::checked(), &Height(3));
    let header: Header = witness.load(schema::header(Height(3))).expect("a header");
    witness.put(schema::certificate(Height(3)), &certify(header));
    let honest = told(&mut witness);
    assert_eq!(told(&mut under_bft()), honest);
    let dir = under_bft().snapshot_in(&witness.folder.path().join("lent"));
    let mut borrower = Disk::with([1]);
    assert_eq!(borrower.replica.prepare(&dir, Some(sender())).expect("it holds").uncovered, honest);
    // One that seals what it has counts the same.
    let (_key, seal) = local_seal();
    let mut sealing = Disk::sealed_by(seal).and([1, 2]);
    assert_eq!(told(&mut sealing), told(&mut Disk::with([1, 2])));

    let spaces = [
        schema::SYSTEM,
        schema::STREAM,
        schema::HEADER,
        schema::BLOCK,
        schema::ENTRY,
        schema::RECEIPT,
        schema::HISTORY,
    ];
    for space in spaces {
        let mut liar = under_bft();
        let db = liar.share.state.db().expect("it is open");
        let first = db.scan(storage::KeyRange::prefix(&[space]), 1).expect("a scan").remove(0);
        drop(db);
        liar.delete(first.0.to_vec());
        assert_ne!(told(&mut liar), honest, "{}", char::from(space));
    }
    // A snapshot that passes all other checks.
    let mut liar = under_bft();
    liar.put(schema::total(&issuer().1.id), &7_000_000_u128);
    let altered = told(&mut liar);
    assert_ne!(altered, honest);
    let dir = liar.snapshot();
    assert_eq!(borrower.replica.prepare(&dir, Some(sender())).expect("it holds").uncovered, altered);
    // Under raft its lender is taken at its word, and nothing is counted.
    let dir = Disk::with(1..=5).snapshot_in(&witness.folder.path().join("under-raft"));
    assert_eq!(Disk::with([1]).replica.prepare(&dir, Some(sender())).expect("it holds").uncovered, Hash32::ZERO);
}

/// The seal of a node of its own, and where its local key lies.
fn local_seal() -> (TempDir, LocalSeal) {
    let (folder, channel) = (TempDir::new().expect("a folder"), GroupId::channel(1));
    let vault = {
        let (key, mut keyring) = (folder.path().join("storage.key"), client::Keyring::empty());
        Vault::open(&key, folder.path(), ClusterId(Hash32([1; 32])), NodeId(1), &mut keyring)
    };
    let seal = vault.expect("a vault").seal_of(channel, &folder.path().join("channel-1")).expect("a key");
    (folder, seal)
}

/// Whether any file of a folder holds these bytes.
fn somewhere(folder: &Path, bytes: &[u8]) -> bool {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.into_iter().any(|path| match path.is_dir() {
        true => somewhere(&path, bytes),
        false => std::fs::read(&path).expect("a file").windows(bytes.len()).any(|window| window == bytes),
    })
}

#[test]
fn a_sealed_snapshot_is_sent_under_a_key_of_its_own_and_sealed_anew_under_the_receivers() {
    let ((_, ours), (theirs_key, theirs)) = (local_seal(), local_seal());
    let mut leader = Disk::sealed_by(theirs.clone()).and(1..=5);
    let kept = leader.snapshot();
    let dir = kept.with_file_name("sent");
    let packed = leader.replica.packer().pack(&kept, &dir).expect("a copy is made");
    assert!(packed.copied, "the files that lie here are not sent");
    let mut replica = Disk::sealed_by(ours.clone());
    let from = |secret| Some(Origin { node: NodeId(7), secret });
    for secret in [SnapshotSecret::default(), SnapshotSecret(vec![1; 32]), SnapshotSecret(vec![1; 7])] {
        let refused = replica.replica.prepare(&dir, from(secret)).expect_err("it is not the sender's");
        assert!(matches!(refused, SnapshotError::Refused(_)), "{refused}");
        assert_eq!((replica.height(), replica.files()), (0, 2));
    }
    // What opens the copy opens nothing that the sender keeps, and its own snapshot is whole for itself.
    let stolen = replica.replica.prepare(&kept, from(packed.secret.clone())).expect_err("it is under another key");
    assert!(matches!(stolen, SnapshotError::Refused(_)), "{stolen}");
    assert!(leader.replica.prepare(&kept, None).is_ok());
    leader.replica.discard(None).expect("not taken");
    let prepared = replica.replica.prepare(&dir, from(packed.secret.clone())).expect("it holds");
    assert_eq!(replica.replica.install(&dir), Ok(prepared.applied));
    assert_eq!((replica.height(), replica.files()), (5, 2));
    assert_eq!(replica.share.stand.lock().applied, leader.share.stand.lock().applied);

    // What is on the disk now is read with this node's key and no other one.
    let header: Header = leader.load(schema::header(Height(5))).expect("a header");
    let Disk { replica: stopped, share, folder, .. } = replica;
    let (identity, root) = (stopped.identity, stopped.root.clone());
    share.state.close();
    drop(stopped);
    let read = |seal: &LocalSeal| {
        let db = StateDb::open(&root, &resources(), identity, seal.cipher()).expect("a database");
        db.get(&schema::header(Height(5)))
    };
    assert_eq!(read(&ours), Ok(Some(encoded(&header))));
    assert_eq!(read(&theirs).expect_err("sealed under another key").code(), "storage_corrupt");
    let root = header.state_root.0;
    assert!(!somewhere(folder.path(), &root) && !somewhere(&dir, &root), "no value lies there in the clear");
    assert!(!somewhere(folder.path(), &packed.secret.0) && !somewhere(&dir, &packed.secret.0));
    let local = std::fs::read(theirs_key.path().join("channel-1/local.key")).expect("it is there");
    assert!(!somewhere(&dir, &local[8..]), "nor does the sender's local key lie in what is sent, sealed or not");
    let mut open = Disk::with(1..=5);
    assert!(somewhere(&open.snapshot(), &root), "where nothing is sealed, it does");
}

#[test]
fn an_altered_snapshot_of_a_channel_is_refused_and_the_next_whole_one_taken() {
    let ((_, ours), (_, theirs)) = (local_seal(), local_seal());
    let mut leader = Disk::sealed_by(theirs).and(1..=5);
    let kept = leader.snapshot();
    let dir = kept.with_file_name("sent");
    let secret = leader.replica.packer().pack(&kept, &dir).expect("a copy is made").secret;
    let mut replica = Disk::sealed_by(ours);
    let files = std::fs::read_dir(&dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let judged = |path: &PathBuf| {
        path.extension().is_some_and(|kind| kind == "sst") || path.file_name().is_some_and(|name| name == "APPLIED")
    };
    let altered: Vec<PathBuf> = files.filter(judged).collect();
    assert!(altered.len() >= 2, "values and a label: {altered:?}");
    for path in altered {
        let whole = std::fs::read(&path).expect("a file");
        for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("written");
            let refused = replica.replica.prepare(&dir, Some(Origin { node: NodeId(7), secret: secret.clone() }));
            assert!(refused.is_err(), "byte {at} of {}", path.display());
            assert_eq!((replica.height(), replica.files()), (0, 2), "nothing of it stays");
        }
        std::fs::write(&path, whole).expect("written");
    }
    assert!(
        replica.replica.prepare(&dir, Some(Origin { node: NodeId(7), secret })).is_ok(),
        "the copy itself is whole"
    );
    assert_eq!(replica.replica.install(&dir).map(|applied| applied.position), Ok(leader.replica.applied().position));
    assert_eq!(replica.height(), 5);
}

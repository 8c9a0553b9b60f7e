use consensus::port::{Applier, Committed, Payload, Position};
use cross_shard::Message;
use ledger::genesis::VerifyMode;
use ledger::ids::{LayoutVersion, TimeMs};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::core::elastic::{Chain, JOB, LEFT, RIGHT, asset, client, mint, pay, split_seal};
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::support::{SHARD, genesis};
use crate::server::followers::{Following, Room, Waiting};
use crate::server::group::FIRST_JOIN;
use crate::server::replica::{Committing, Files, Known, Replica};
use crate::server::testing::resources;
use crate::server::warm::progress::Copied;

const NODE: NodeId = NodeId(1);

/// A replica of [`SHARD`] on a disk, and the same shard in memory, which says what its mail has to look like.
struct Original {
    chain: Chain,
    replica: Replica,
    parent: Parent,
    index: u64,
    folder: TempDir,
    _effects: mpsc::Receiver<Committing>,
}

impl Original {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let (sender, effects) = mpsc::channel(64);
        let root = folder.path().join(SHARD.to_string()).join("state");
        let files = Files { root: &root, resources: &resources(), seal: LocalSeal::open(), known: Known::default() };
        let opened = Replica::open(files, &genesis(), None, (NODE, SHARD), VerifyMode::Ingest, sender);
        let (replica, share) = opened.expect("an empty folder");
        let parent = Parent { group: SHARD, share };
        Self { chain: Chain::new(SHARD), replica, parent, index: 0, folder, _effects: effects }
    }

    fn block(&mut self, commands: Vec<Command>) {
        let stamp_ms = TimeMs(self.chain.applied.time_ms.0 + 10);
        let payload = Entry { version: ENTRY_VERSION, stamp_ms, commands: commands.clone() }.encode();
        self.chain.block(commands);
        self.index += 1;
        let position = Position { term: 1, leader: 1, index: self.index };
        let entry = Committed { position, payload: Payload::Batch(payload.into()), note: None };
        self.replica.apply(vec![entry]).expect("a block");
        assert_eq!(self.parent.share.stand.lock().applied.header_hash, self.chain.applied.header_hash);
    }

    fn told(&mut self, message: Message) {
        let told = self.chain.told(&[message]);
        self.block(vec![told]);
    }

    fn place(&self, name: &str) -> Place {
        let data_dir = self.folder.path().join(name);
        std::fs::create_dir(&data_dir).expect("a folder");
        Place { data_dir, resources: resources(), cluster: genesis().cluster_id(), node: NODE }
    }

    fn follow(&self) -> Following {
        let following = Following::new(Waiting { blocks_max: 16, bytes_max: 1 << 20 }, &Room::new(1 << 20));
        let _stand = self.parent.share.stand.lock();
        self.parent.share.followers.add(0, &following);
        following
    }
}

fn job() -> Job {
    Job {
        version: 1,
        id: JOB,
        kind: beacon::JobKind::Split { group: SHARD },
        phase: beacon::Phase::Sealing,
        manual: false,
        on: LayoutVersion(1),
        approvals: Vec::new(),
        by_scale: false,
        children: split_seal().children,
        since_ms: TimeMs(1),
        until_ms: None,
        warm: Vec::new(),
        open: Vec::new(),
        ends: Vec::new(),
        reason: None,
        seals: Vec::new(),
    }
}

/// Everything that a copy holds.
fn content(place: &Place, child: GroupId) -> Vec<(Bytes, Bytes)> {
    let root = record::folder(&place.data_dir, child).join("state");
    let db = StateDb::open(&root, &place.resources, place.identity(child), LocalSeal::open().cipher());
    db.expect("it is closed, and whole").scan(KeyRange::all(), usize::MAX).expect("it can be read")
}

fn take(copies: &mut Copies, parents: &[Parent], following: &Following) {
    assert!(!following.lost());
    for followed in following.waiting() {
        copies.block(parents, &followed).expect("it follows");
    }
}

#[test]
fn a_copy_that_was_kept_is_the_one_that_is_made_at_the_seal() {
    let mut original = Original::new();
    let (left, right) = (client(LEFT), client(RIGHT));
    original.told(Message::AssetUpdate(asset()));
    original.block(vec![mint(&left, 100, 1), mint(&right, 40, 2)]);

    let (place, following) = (original.place("warm"), original.follow());
    let parents = [Parent { group: SHARD, share: original.parent.share.clone() }];
    // Blocks that come while the copy is being made are in it already, or follow.
    original.block(vec![pay(&left, &right, 20, 3)]);
    let mut warm = Copies::make(&place, &job(), &parents, &mut Steps::in_one_go(&|| false)).expect("a copy");
    for child in [LEFT, RIGHT] {
        let folder = record::folder(&place.data_dir, child);
        assert!(Record::read(&folder).is_some_and(|record| !record.is_born()));
        assert_eq!(seat::read(&folder, child).expect("readable"), Some(FIRST_JOIN), "nobody waits for it at the seal");
    }
    original.block(vec![pay(&right, &left, 5, 4)]);
    assert!(!parents[0].is_sealed() && !parents[0].is_closed());
    assert_eq!(warm.behind(&parents), 1);
    take(&mut warm, &parents, &following);
    assert!(warm.behind(&parents) == 0 && !warm.complete(&job()));
    original.told(Message::Seal(split_seal()));
    take(&mut warm, &parents, &following);
    assert!(warm.complete(&job()));
    assert!(parents[0].is_sealed(), "who still makes a copy rests no more");
    let born = warm.births(&parents).expect("the shards begin");
    assert_eq!(born.keys().copied().collect::<Vec<_>>(), [LEFT, RIGHT]);
    // Whoever opens them by their names does so once they are closed.
    let born: BTreeMap<GroupId, u64> = born.into_iter().map(|(child, born)| (child, born.counted.accounts)).collect();
    assert_eq!(born.values().sum::<u64>(), original.parent.share.stand.lock().accounts);

    let cold_place = original.place("cold");
    let cold = Copies::make(&cold_place, &job(), &parents, &mut Steps::in_one_go(&|| false)).expect("a copy");
    assert!(cold.complete(&job()));
    cold.births(&parents).expect("the shards begin");
    for child in [LEFT, RIGHT] {
        let (warm, cold) = (content(&place, child), content(&cold_place, child));
        assert!(!warm.is_empty());
        assert_eq!(warm, cold, "{child}");
        let record = Record::read(&record::folder(&place.data_dir, child)).expect("a record");
        assert!(record.is_born() && record.job() == JOB);
        let seat = seat::read(&record::folder(&place.data_dir, child), child).expect("a seat");
        assert_eq!(seat, Some(FIRST_JOIN), "it is there when the shard opens");
        let seal = LocalSeal::open();
        let root = record::folder(&place.data_dir, child).join("state");
        // What is known of the leaves is what a look at them finds.
        let files = Files { root: &root, resources: &place.resources, seal, known: Known::default() };
        let (sender, _effects) = mpsc::channel(1);
        let opened = Replica::open(files, &genesis(), None, (NODE, child), VerifyMode::Ingest, sender);
        let (_, share) = opened.expect("its tree has the root of its first block");
        assert_eq!(share.stand.lock().accounts, born[&child]);
    }
}

/// Where the system does not let it go along with its folder, it is closed and opened again.
#[test]
fn the_database_of_a_copy_stays_open_while_it_becomes_that_of_its_shard() {
    let mut original = Original::new();
    original.told(Message::AssetUpdate(asset()));
    original.block(vec![mint(&client(LEFT), 100, 1)]);
    original.told(Message::Seal(split_seal()));
    let place = original.place("node");
    let parents = [Parent { group: SHARD, share: original.parent.share.clone() }];
    let copies = Copies::make(&place, &job(), &parents, &mut Steps::in_one_go(&|| false)).expect("a copy");
    for (child, Born { counted, db }) in copies.births(&parents).expect("the shards begin") {
        assert_eq!(db.is_some(), cfg!(target_os = "linux"), "{child}");
        let (warm, folder) = (record::folder(&place.data_dir, child), place.data_dir.join(child.to_string()));
        Record::settle(&warm, &folder).expect("settled");
        let root = folder.join("state");
        // Each time that a database is opened it begins another list of its files.
        let lists = || -> Vec<_> {
            let found = std::fs::read_dir(root.join("db-0000000000000001")).expect("a folder").flatten();
            let mut names: Vec<_> = found.map(|entry| entry.file_name()).collect();
            names.retain(|name| name.to_string_lossy().starts_with("MANIFEST"));
            names
        };
        let (before, accounts) = (lists(), counted.accounts);
        let known = Known { counted: Some(counted), db, first: None };
        let files = Files { root: &root, resources: &place.resources, seal: LocalSeal::open(), known };
        let (sender, _effects) = mpsc::channel(1);
        let opened = Replica::open(files, &genesis(), None, (NODE, child), VerifyMode::Ingest, sender);
        let (replica, share) = opened.expect("it has the root of its first block");
        assert_eq!(lists() == before, cfg!(target_os = "linux"), "{child}");
        assert_eq!(share.stand.lock().accounts, accounts);
        // It is the state from here on: what it writes is there when it is opened again, by its name.
        let db = share.state.db().expect("it is open");
        assert!(db.is_quiet());
        let mut more = WriteBatch::new();
        more.put(b"Nmore".to_vec(), b"written".to_vec());
        db.write(more).expect("a write");
        db.flush().expect("a flush");
        share.state.close();
        drop((db, replica, share));
        let db = StateDb::open(&root, &place.resources, place.identity(child), LocalSeal::open().cipher());
        let found = db.expect("it is closed, and whole").get(b"Nmore").expect("it can be read");
        assert_eq!(found.as_deref(), Some(&b"written"[..]), "{child}");
    }
}

/// The measure is one for each key.
#[test]
fn what_is_read_is_noted_part_by_part() {
    let all = 2 * CHUNK as u64 + 7;
    let keys: Vec<Bytes> = (0..all).map(|key| Bytes::copy_from_slice(&key.to_be_bytes())).collect();
    let within = |range: &KeyRange| keys.iter().filter(|key| range.contains(key)).cloned().collect::<Vec<_>>();
    let scan = |range: KeyRange, limit: usize| -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        Ok(within(&range).into_iter().take(limit).map(|key| (key, Bytes::new())).collect())
    };
    let size = |range: &KeyRange| -> Result<u64, StorageError> { Ok(within(range).len() as u64) };
    let copied = Copied::default();
    let mut steps = Steps::in_one_go(&|| false).noting(&copied);
    steps.begin(all);
    let (mut seen, mut noted) = (0, Vec::new());
    let each = |_: &[u8], _: &Bytes| {
        if seen % CHUNK == 0 {
            noted.push(copied.so_far().0);
        }
        seen += 1;
        Ok(())
    };
    pairs(SHARD, &mut steps, scan, size, KeyRange::all(), each).expect("all are read");
    assert_eq!(noted, [0, CHUNK as u64, 2 * CHUNK as u64]);
    assert_eq!(copied.so_far(), (all, all));
}

#[test]
fn a_parent_that_ends_here_is_known_to_whoever_copies_it() {
    let original = Original::new();
    let parent = Parent { group: SHARD, share: original.parent.share.clone() };
    original.parent.share.state.close();
    assert!(parent.is_closed() && !parent.is_sealed());
    let place = original.place("warm");
    let made = Copies::make(&place, &job(), &[parent], &mut Steps::in_one_go(&|| false)).map(|_| ());
    assert_eq!(made.map_err(|error| error.code()), Err("parent_missing"));
}

#[test]
fn a_copy_with_a_gap_is_none() {
    let mut original = Original::new();
    original.told(Message::AssetUpdate(asset()));
    let (place, following) = (original.place("warm"), original.follow());
    let parents = [Parent { group: SHARD, share: original.parent.share.clone() }];
    let mut copies = Copies::make(&place, &job(), &parents, &mut Steps::in_one_go(&|| false)).expect("a copy");
    original.block(vec![mint(&client(LEFT), 100, 1)]);
    original.block(vec![mint(&client(RIGHT), 100, 2)]);
    let blocks: Vec<Followed> = following.waiting();
    let gap = copies.block(&parents, &blocks[1]).map_err(|error| error.code());
    assert_eq!(gap, Err("copy_behind"));
    drop(copies);
    // A parent that goes on has not ended.
    let refused =
        Copies::make(&place, &job(), &parents, &mut Steps::in_one_go(&|| false)).expect("a copy").births(&parents);
    assert_eq!(refused.map(|_| ()).map_err(|error| error.code()), Err("birth_seal"));
}

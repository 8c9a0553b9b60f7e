use std::sync::atomic::AtomicBool;

use super::*;
use crate::core::support::SHARD;
use crate::server::testing::{committed, issuer, lone_genesis, mint, write_asset};
use ledger::ids::Address;
use storage::{Fault, FaultyKv, MemKv, Operation};

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
        write_genesis(&*db, &genesis, SHARD).expect("block 0");
        let stand = rebuild(&*db, "memory", SHARD).expect("a tree");
        let (effects, received) = mpsc::channel(8);
        let share = ReplicaShare {
            state: StateHandle { db: Arc::new(RwLock::new(Some(db))) },
            stand: Arc::new(Mutex::new(stand)),
            halt: Halt::default(),
            written_bytes: Arc::default(),
            transactions: Arc::default(),
        };
        write_asset(&share.state);
        let cluster = genesis.cluster_id();
        let replica = Replica {
            root: PathBuf::new(),
            resources: crate::server::testing::resources(),
            identity: StateIdentity { cluster: cluster.0.0, group: SHARD.0, format_version: STATE_FORMAT },
            constants: GroupConstants { cluster, group: SHARD, verify: VerifyMode::Ingest },
            state: share.state.clone(),
            stand: Arc::clone(&share.stand),
            effects,
            halt: share.halt.clone(),
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

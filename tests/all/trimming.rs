//! The space of accounts that a shard has left to its sibling comes back: a node with RocksDB says how much there is to be given
//! back when a shard was cut, and gives it back.

use beacon::BeaconCommand;
use client::Client;
use ledger::{BitPrefix, GroupId, LayoutVersion, NodeId, OrgId, schema};
use shard_node::server::warm::under;
use storage::KeyRange;

use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;

/// The first member, which does not wait for others to be done before it.
const NODE: NodeId = NodeId(1);
const FUNDS: u128 = 1_000;
/// So many that those of each half fill dozens of blocks of a table file.
const ACCOUNTS: usize = 4_000;

/// Of one half: its shard, its keys of accounts and of their history, and those of the other half.
struct Half {
    shard: GroupId,
    own: [KeyRange; 2],
    other: [KeyRange; 2],
}

impl Half {
    fn of(shard: GroupId, right: bool) -> Self {
        let keys =
            |right: bool| [schema::STATE, schema::HISTORY].map(|space| under(space, BitPrefix::ALL.child(right)));
        Self { shard, own: keys(right), other: keys(!right) }
    }
}

/// Bytes that keys of a shard take on the disk of the node, and how many keys there are, of two at most.
fn on_disk(cluster: &TestCluster, shard: GroupId, ranges: &[KeyRange]) -> (u64, usize) {
    let handle = cluster.node(NODE).hosted().group(shard.0).unwrap();
    let db = handle.share.state.db().unwrap();
    let bytes = ranges.iter().map(|range| db.disk_bytes(range).unwrap()).sum();
    (bytes, ranges.iter().map(|range| db.scan(range.clone(), 1).unwrap().len()).sum())
}

/// How much of each of these shards is still to be removed from the disk, by what the node says of itself.
async fn to_be_trimmed(client: &Client, halves: &[Half]) -> Result<Vec<u64>, String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    let node = status.nodes.iter().find(|reply| reply.node == NODE.0).ok_or("the node does not answer")?;
    let of = |half: &Half| node.replicas.iter().find(|one| one.group == half.shard.0).map(|one| one.trimming_bytes);
    halves.iter().map(|half| of(half).ok_or_else(|| format!("{} does not run yet", half.shard))).collect()
}

/// Three nodes that are to rewrite as much as they can.
async fn eager() -> TestCluster {
    let mut cluster = TestCluster::prepare(&Wanted { shards: 1, ..Wanted::default() });
    for (_, file) in cluster.dir.node_configs(&cluster.genesis) {
        let text = std::fs::read_to_string(&file).unwrap();
        let changed = text.replace("trim_bytes_per_s = 4194304", "trim_bytes_per_s = 1073741824");
        assert_ne!(text, changed, "the default in node.toml is another one");
        std::fs::write(&file, changed).unwrap();
    }
    cluster.start_all().await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn the_space_of_the_other_half_comes_back_after_a_cut() {
    let cluster = eager().await;
    let client = cluster.client();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&cluster.genesis.layout, "home", ACCOUNTS).remove(0);
    bank.fund(&wallets, FUNDS).await;

    let split = BeaconCommand::SplitShard { group: GroupId::shard(0), layout: LayoutVersion(1), manual: false };
    let consortium = Consortium::of(&cluster);
    for org in [OrgId(1), OrgId(2)] {
        consortium.beacon(org, &split).await.unwrap();
    }
    assert_eq!(cluster.genesis.committee(GroupId::shard(0)).unwrap().index_of(NODE), Some(0), "it is the first member");
    let halves = [Half::of(GroupId::shard(1), false), Half::of(GroupId::shard(2), true)];
    let found = eventually("both halves have something to give back", async || {
        let found = to_be_trimmed(&client, &halves).await?;
        if found.iter().all(|bytes| *bytes > 0) { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    for half in &halves {
        assert_eq!(on_disk(&cluster, half.shard, &half.other).1, 0, "nobody finds an account of the other half");
    }

    eventually("both have given it back", async || {
        let left = to_be_trimmed(&client, &halves).await?;
        if left.iter().all(|bytes| *bytes == 0) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    for (half, found) in halves.iter().zip(found) {
        let (left, _) = on_disk(&cluster, half.shard, &half.other);
        assert!(left * 10 < found, "{}: {left} bytes of {found} are still there", half.shard);
        let (own, keys) = on_disk(&cluster, half.shard, &half.own);
        assert!(own > 0 && keys > 0, "{}: {own} bytes, {keys} keys", half.shard);
    }
    assert_eq!(bank.total(&wallets).await, FUNDS * ACCOUNTS as u128);
}

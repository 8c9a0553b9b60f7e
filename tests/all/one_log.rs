//! A node that hosts many channels has one log with one writer: what all of them write at once becomes durable together,
//! and what they execute waits for no disk of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use client::Wait;
use futures::future::{join, join_all};
use ledger::hash::sha256;
use ledger::{GroupId, LedgerId, Move, NodeId, OrgId};
use storage::{LogStore, PlainCipher};

use crate::support::bank::wallet;
use crate::support::cluster::{TestCluster, Wanted, leader_of, settled};
use crate::support::consortium::Consortium;
use crate::support::eventually;

const CHANNELS: u64 = 20;
const A: (OrgId, &[NodeId]) = (OrgId(1), &[ONE]);
const B: (OrgId, &[NodeId]) = (OrgId(2), &[NodeId(2)]);
/// Hosts all channels.
const ONE: NodeId = NodeId(1);
/// Not a group: what holds the writer is written for it.
const NOBODY: u64 = 0x6e_6f_62_6f_64_79;

/// How far the logs of these groups go on [`ONE`].
async fn log_ends(cluster: &TestCluster, groups: &BTreeSet<GroupId>) -> BTreeMap<u64, u64> {
    let nodes = cluster.status().await.nodes.into_iter().filter(|node| node.node == ONE.0);
    let replicas = nodes.flat_map(|node| node.replicas);
    replicas.filter(|line| groups.contains(&GroupId(line.group))).map(|line| (line.group, line.log_last)).collect()
}

/// Below a folder, the databases with something in their write-ahead log.
pub fn with_wal(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    // One that has just been removed has nothing any more.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            with_wal(&path, found);
            continue;
        }
        let numbered = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<u64>().is_ok());
        let wal = numbered && path.extension().is_some_and(|extension| extension == "log");
        if wal && entry.metadata().is_ok_and(|file| file.len() > 0) {
            found.insert(folder.to_path_buf());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_write_at_once_share_the_syncs_of_their_node() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let consortium = Consortium::of(&cluster);
    let mut channels = BTreeSet::new();
    for number in 0..CHANNELS {
        // Each organisation has a share of the channels that it may propose.
        let hosts = if number % 2 == 0 { [A, B] } else { [B, A] };
        channels.insert(consortium.found(&format!("steel-{number}"), &hosts).await);
    }
    let all: Vec<GroupId> = cluster.groups().into_iter().chain(channels.iter().copied()).collect();
    let client = cluster.client_of(ONE);
    eventually("every channel is led", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let missing: Vec<_> = channels.iter().filter(|channel| leader_of(&status, **channel).is_none()).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no leader of {missing:?}")) }
    })
    .await;
    settled(&client, &all).await;

    // The writer is held until the node has an entry of each channel to write.
    let (release, held) = mpsc::channel::<()>();
    let (told, holding) = tokio::sync::oneshot::channel();
    {
        let log = cluster.node(ONE).hosted().log.read();
        let nobody = log.as_ref().unwrap().group(NOBODY, Arc::new(PlainCipher)).unwrap();
        let hold = move |written: Result<(), storage::StorageError>| {
            let _ = told.send(written);
            let _ = held.recv();
        };
        nobody.save_vote(Bytes::from_static(b"held"), Box::new(hold));
    }
    holding.await.unwrap().unwrap();
    let (before, ends) = (cluster.node(ONE).hosted().log_stats(), log_ends(&cluster, &channels).await);
    assert_eq!(ends.len() as u64, CHANNELS, "it hosts all of them");

    let alice = wallet("alice", 0);
    let write = |channel: GroupId| {
        let (client, key) = (&client, &alice.key);
        let hash = sha256(&channel.0.to_be_bytes());
        let record = Move::Record { owner: alice.address, hash, metadata: b"a contract".to_vec() };
        let moves = vec![(LedgerId::of_channel(channel), record)];
        async move { client.execute(moves, b"", &[key], Wait::Receipt).await.unwrap() }
    };
    let release_later = async {
        eventually("the node has something of each channel to write", async || {
            let now = log_ends(&cluster, &channels).await;
            let waits = now.iter().filter(|(group, end)| ends.get(group).is_some_and(|before| *end > before)).count();
            if waits as u64 == CHANNELS { Ok(()) } else { Err(format!("{waits} of {CHANNELS}")) }
        })
        .await;
        // Nothing of it is durable, so the members cannot have agreed on anything.
        let stats = cluster.node(ONE).hosted().log_stats();
        assert_eq!((stats.fsyncs, stats.entries), (before.fsyncs, before.entries), "one writer, and it is held");
        drop(release);
    };
    let (written, ()) = join(join_all(channels.iter().copied().map(write)), Box::pin(release_later)).await;
    assert!(written.iter().all(client::Settled::committed), "{written:?}");

    let after = cluster.node(ONE).hosted().log_stats();
    let (syncs, entries) = (after.fsyncs - before.fsyncs, after.entries - before.entries);
    // All that waited took one. What groups have written since, such as checkpoints in the beacon, may have had one each.
    assert!(entries >= CHANNELS && syncs + CHANNELS / 2 <= entries, "{entries} entries took {syncs} syncs");
    // One may be under way.
    assert!(after.fsyncs.abs_diff(after.batches) <= 1, "only the writer's batches are made durable: {after:?}");

    // Of all databases of the node only the log has a write-ahead log: those of channels are written without one, so there
    // is nothing to sync.
    let mut found = BTreeSet::new();
    with_wal(&cluster.dir.node_dir(ONE), &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    for group in &all {
        assert!(found.iter().all(|folder| !folder.starts_with(cluster.data(ONE, *group))), "{found:?}");
    }
}

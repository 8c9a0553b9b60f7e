//! What channels cost that nobody uses, in what can be counted: those that Raft orders append nothing to their logs, the
//! Byzantine ones no more than their leaders' signs of life, and each node has one log with one writer, whose batches
//! are all that it syncs. What a machine spends on them is measured by `scripts/idle-channels`.

use std::collections::{BTreeMap, BTreeSet};

use ledger::{Engine, GroupId, NodeId, OrgId};
use storage::LogStats;

use crate::one_log::with_wal;
use crate::support::cluster::{TestCluster, Wanted, agreed};
use crate::support::consortium::Consortium;
use crate::support::eventually;

const ORGS: u16 = 5;
const RAFT: u16 = 10;
const BFT: u16 = 2;
/// Blank entries of each Byzantine channel for which nobody does anything.
const WINDOW: u64 = 10;
/// The node that hosts no Byzantine channel.
const APART: NodeId = NodeId(5);

/// Where the replicas of some groups stand.
type Stands = BTreeMap<(NodeId, GroupId), Stand>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    term: u64,
    log_last: u64,
    height: u64,
}

fn stands(cluster: &TestCluster, groups: &[GroupId]) -> Stands {
    let mut stands = Stands::new();
    for node in cluster.node_ids() {
        for group in groups {
            let Some(replica) = cluster.node(node).hosted().group(group.0) else { continue };
            let (role, height) = (replica.role(), replica.share.stand.lock().applied.height.0);
            assert_eq!(role.stopped, None, "{group} on node {node}");
            stands.insert((node, *group), Stand { term: role.term, log_last: role.last_log_index, height });
        }
    }
    stands
}

fn logs(cluster: &TestCluster) -> BTreeMap<NodeId, LogStats> {
    cluster.node_ids().into_iter().map(|node| (node, cluster.node(node).hosted().log_stats())).collect()
}

/// So many organisations from this one on, in a circle, each with its node.
fn hosts(first: u16, count: u16) -> Vec<(OrgId, [NodeId; 1])> {
    let org = |at: u16| (first + at) % ORGS + 1;
    (0..count).map(|at| (OrgId(org(at)), [NodeId(org(at).into())])).collect()
}

/// Founds a channel of these. Whoever is named first can look at it.
async fn found(consortium: &Consortium<'_>, engine: Engine, name: &str, hosts: &[(OrgId, [NodeId; 1])]) -> GroupId {
    let hosts: Vec<(OrgId, &[NodeId])> = hosts.iter().map(|(org, nodes)| (*org, nodes.as_slice())).collect();
    consortium.found_by(engine, name, &hosts).await
}

/// Waits until every channel, as a member sees it, the beacon and the shards have nothing left to do.
async fn at_rest(cluster: &TestCluster, consortium: &Consortium<'_>, channels: &BTreeMap<GroupId, OrgId>) {
    eventually("nothing is under way", async || {
        let mut statuses = BTreeMap::new();
        for org in channels.values() {
            if !statuses.contains_key(org) {
                let status = consortium.client(*org).status().await.map_err(|error| error.to_string())?;
                statuses.insert(*org, status);
            }
        }
        for (channel, org) in channels {
            agreed(&statuses[org], *channel)?;
        }
        let status = statuses.values().next().ok_or("nobody was asked")?;
        cluster.groups().into_iter().try_for_each(|group| agreed(status, group).map(drop))
    })
    .await;
}

/// Waits until every replica of these groups has so many entries more than it had.
async fn longer(cluster: &TestCluster, groups: &[GroupId], than: &Stands, by: u64) {
    eventually("the Byzantine channels go on", async || {
        let now = stands(cluster, groups);
        let short = than.iter().find(|(place, before)| now[*place].log_last < before.log_last + by);
        match short {
            None => Ok(()),
            Some(((node, group), before)) => {
                Err(format!("{group} on node {node} is not {by} entries behind {before:?}"))
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_nobody_uses_append_nothing_and_sync_nothing_of_their_own() {
    let wanted = Wanted { nodes: ORGS.into(), orgs: Some(ORGS), shards: 1, ..Wanted::default() };
    let cluster = TestCluster::start(wanted).await;
    for node in cluster.node_ids() {
        assert_eq!(u32::from(cluster.info(node).org.0), node.0, "each organisation has the node of its number");
    }
    let consortium = Consortium::of(&cluster);
    let (mut raft, mut bft, mut members) = (Vec::new(), Vec::new(), BTreeMap::new());
    for number in 0..BFT {
        // Never the last node.
        let hosts = hosts(0, 4);
        bft.push(found(&consortium, Engine::Bft, &format!("bft-{number}"), &hosts).await);
        members.insert(bft[bft.len() - 1], hosts[0].0);
    }
    for number in 0..RAFT {
        let hosts = hosts(number, 3);
        raft.push(found(&consortium, Engine::Raft, &format!("raft-{number}"), &hosts).await);
        members.insert(raft[raft.len() - 1], hosts[0].0);
    }
    at_rest(&cluster, &consortium, &members).await;

    let always = cluster.groups();
    let (before, after) = eventually("a window in which nobody stands for election", async || {
        let before = (stands(&cluster, &raft), stands(&cluster, &bft), stands(&cluster, &always), logs(&cluster));
        longer(&cluster, &bft, &before.1, WINDOW).await;
        let counted = logs(&cluster);
        let after = (stands(&cluster, &raft), stands(&cluster, &bft), stands(&cluster, &always), counted);
        let terms = |stands: &Stands| stands.values().map(|stand| stand.term).collect::<Vec<_>>();
        // Whoever wins one appends an entry by that, as it does on a machine that is too busy.
        let same = terms(&before.0) == terms(&after.0) && terms(&before.2) == terms(&after.2);
        if same { Ok((before, after)) } else { Err("somebody stood for election") }
    })
    .await;
    assert_eq!((before.0.len(), before.1.len()), (3 * usize::from(RAFT), 4 * usize::from(BFT)));
    assert_eq!(before.0, after.0, "the channels that Raft orders have appended nothing");
    for (place, stand) in &after.1 {
        // What a leader without work proposes makes no block, so no certificate, no mail and no checkpoint either.
        assert_eq!(stand.height, before.1[place].height, "{place:?}");
    }

    for (node, log) in &after.3 {
        // One may be under way.
        assert!(log.fsyncs.abs_diff(log.batches) <= 1, "node {node} syncs something else than batches: {log:?}");
        let mut found = BTreeSet::new();
        with_wal(&cluster.dir.node_dir(*node), &mut found);
        assert_eq!(found.len(), 1, "node {node} has one log: {found:?}");
        let of_channel = |group: &GroupId| found.iter().any(|folder| folder.starts_with(cluster.data(*node, *group)));
        assert!(!raft.iter().chain(&bft).chain(&always).any(of_channel), "{found:?}");
    }

    // Where no Byzantine channel runs, six channels cost not a single entry or batch: what is written is what the beacon and
    // the shard have appended, such as checkpoints, and each of these entries takes one batch, and one more when it goes.
    let hosted = raft.iter().filter(|channel| after.0.contains_key(&(APART, **channel))).count();
    assert_eq!(hosted, 6);
    assert!(bft.iter().all(|channel| !after.1.contains_key(&(APART, *channel))));
    let grown: u64 = after
        .2
        .iter()
        .filter(|((node, _), _)| *node == APART)
        .map(|(place, stand)| stand.log_last - before.2[place].log_last)
        .sum();
    let (was, is) = (before.3[&APART], after.3[&APART]);
    assert!(is.entries - was.entries <= grown, "{was:?}, {is:?}, and {grown} entries of the beacon and the shard");
    assert!(is.batches - was.batches <= 2 * grown, "{was:?}, {is:?}, and {grown} entries of the beacon and the shard");
    // The others have the same signs of life to write, however many other channels there are.
    for node in cluster.node_ids().into_iter().filter(|node| *node != APART) {
        let values: u64 = after
            .1
            .iter()
            .filter(|((of, _), _)| *of == node)
            .map(|(place, stand)| stand.log_last - before.1[place].log_last)
            .sum();
        let entries = after.3[&node].entries - before.3[&node].entries;
        assert!(values >= u64::from(BFT) * WINDOW && entries >= values, "node {node}: {values} of {entries}");
    }
}

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
    leads: bool,
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
            let stand = Stand { leads: role.leads, term: role.term, log_last: role.last_log_index, height };
            stands.insert((node, *group), stand);
        }
    }
    stands
}

/// A cluster at one moment.
struct Look {
    stands: Stands,
    logs: BTreeMap<NodeId, LogStats>,
}

fn logs(cluster: &TestCluster) -> BTreeMap<NodeId, LogStats> {
    cluster.node_ids().into_iter().map(|node| (node, cluster.node(node).hosted().log_stats())).collect()
}

/// So many organisations from this one on, in a circle, each with its node.
fn hosts(first: u16, count: u16) -> Vec<(OrgId, [NodeId; 1])> {
    let org = |at: u16| (first + at) % ORGS + 1;
    let mut hosts: Vec<_> = (0..count).map(|at| (OrgId(org(at)), [NodeId(org(at).into())])).collect();
    // Those that are invited stand in order.
    hosts[1..].sort_unstable();
    hosts
}

/// Founds a channel of these. Whoever is named first can look at it.
async fn found(consortium: &Consortium<'_>, engine: Engine, name: &str, hosts: &[(OrgId, [NodeId; 1])]) -> GroupId {
    let hosts: Vec<(OrgId, &[NodeId])> = hosts.iter().map(|(org, nodes)| (*org, nodes.as_slice())).collect();
    consortium.found_by(engine, name, &hosts).await
}

/// Waits until every channel, as a member sees it, the beacon and the shards have nothing left to do.
async fn at_rest(cluster: &TestCluster, consortium: &Consortium<'_>, channels: &BTreeMap<GroupId, OrgId>) {
    let always = cluster.groups();
    let all: Vec<GroupId> = always.iter().chain(channels.keys()).copied().collect();
    let orgs: BTreeSet<OrgId> = channels.values().copied().collect();
    let heights = || stands(cluster, &all).into_values().map(|stand| stand.height).collect::<Vec<u64>>();
    eventually("nothing is under way", async || {
        let before = heights();
        let mut statuses = BTreeMap::new();
        for org in &orgs {
            let status = consortium.client(*org).status().await.map_err(|error| error.to_string())?;
            statuses.insert(*org, status);
        }
        for (channel, org) in channels {
            agreed(&statuses[org], *channel)?;
        }
        for (group, status) in always.iter().flat_map(|group| statuses.values().map(move |status| (*group, status))) {
            agreed(status, group)?;
        }
        // What all of them have said is of one moment.
        if heights() == before { Ok(()) } else { Err("it has gone on meanwhile".to_owned()) }
    })
    .await;
}

/// Whether each of these groups, which Raft orders, is led, and all of it has what whoever leads has: nobody stands for
/// election, and nothing of an earlier one is still to come.
fn led(stands: &Stands, groups: &[GroupId]) -> Result<(), String> {
    for group in groups {
        let all: Vec<Stand> = stands.iter().filter(|((_, of), _)| of == group).map(|(_, stand)| *stand).collect();
        let places: BTreeSet<(u64, u64)> = all.iter().map(|stand| (stand.term, stand.log_last)).collect();
        if places.len() != 1 || !all.iter().any(|stand| stand.leads) {
            return Err(format!("{group}: {all:?}"));
        }
    }
    Ok(())
}

/// Looks twice: between the looks the Byzantine channels have gone on for a while, and nobody has stood for election, since
/// whoever wins one appends an entry by that. That happens where a machine is too busy.
async fn window(cluster: &TestCluster, bft: &[GroupId], all: &[GroupId]) -> (Look, Look) {
    let raft: Vec<GroupId> = all.iter().copied().filter(|group| !bft.contains(group)).collect();
    eventually("a window in which nobody stands for election", async || {
        let stood = eventually("all that Raft orders is led", async || {
            let now = stands(cluster, all);
            led(&now, &raft).map(|()| now)
        })
        .await;
        let before = Look { stands: stood, logs: logs(cluster) };
        eventually("the Byzantine channels go on", async || {
            let now = stands(cluster, bft);
            let short = now.iter().find(|(place, now)| now.log_last < before.stands[*place].log_last + WINDOW);
            short.map_or(Ok(()), |((node, group), stand)| Err(format!("{group} on node {node}: {stand:?}")))
        })
        .await;
        // In this order: whatever has been written in between has been appended in between.
        let written = logs(cluster);
        let after = Look { stands: stands(cluster, all), logs: written };
        let terms = |look: &Look| look.stands.values().map(|stand| stand.term).collect::<Vec<u64>>();
        if terms(&before) == terms(&after) { Ok((before, after)) } else { Err("somebody stood for election") }
    })
    .await
}

/// By how many entries the logs of these groups have grown on a node.
fn grown(before: &Look, after: &Look, node: NodeId, groups: &[GroupId]) -> u64 {
    let stood = |group: &GroupId| {
        let place = (node, *group);
        after.stands.get(&place).map(|stand| stand.log_last - before.stands[&place].log_last)
    };
    groups.iter().filter_map(stood).sum()
}

/// Entries and batches that a node has written.
fn written(before: &Look, after: &Look, node: NodeId) -> (u64, u64) {
    let (was, is) = (before.logs[&node], after.logs[&node]);
    (is.entries - was.entries, is.batches - was.batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_nobody_uses_append_nothing_and_sync_nothing_of_their_own() {
    let wanted = Wanted { nodes: ORGS.into(), orgs: Some(ORGS), shards: 1, ..Wanted::default() };
    let cluster = TestCluster::start(wanted).await;
    for node in cluster.node_ids() {
        assert_eq!(u32::from(cluster.info(node).org.0), node.0, "each organisation has the node of its number");
    }
    let (consortium, always) = (Consortium::of(&cluster), cluster.groups());
    let (mut bft, mut raft, mut members) = (Vec::new(), Vec::new(), BTreeMap::new());
    for number in 0..BFT {
        // Never the last node.
        let hosts = hosts(0, 4);
        let channel = found(&consortium, Engine::Bft, &format!("bft-{number}"), &hosts).await;
        members.insert(channel, hosts[0].0);
        bft.push(channel);
    }
    at_rest(&cluster, &consortium, &members).await;
    let few = window(&cluster, &bft, &[&always[..], &bft[..]].concat()).await;

    for number in 0..RAFT {
        let hosts = hosts(number, 3);
        let channel = found(&consortium, Engine::Raft, &format!("raft-{number}"), &hosts).await;
        members.insert(channel, hosts[0].0);
        raft.push(channel);
    }
    at_rest(&cluster, &consortium, &members).await;
    let (before, after) = window(&cluster, &bft, &[&always[..], &bft[..], &raft[..]].concat()).await;

    let of = |groups: &[GroupId]| -> Stands {
        let stands = after.stands.iter().filter(|((_, group), _)| groups.contains(group));
        stands.map(|(place, stand)| (*place, *stand)).collect()
    };
    assert_eq!((of(&raft).len(), of(&bft).len()), (3 * usize::from(RAFT), 4 * usize::from(BFT)));
    for (place, stand) in of(&raft) {
        let was = before.stands[&place];
        assert_eq!((stand.log_last, stand.height), (was.log_last, was.height), "{place:?} has appended something");
    }
    for (place, stand) in of(&bft) {
        // What a leader without work proposes makes no block, so no certificate, no mail and no checkpoint either.
        assert_eq!(stand.height, before.stands[&place].height, "{place:?}");
    }

    for (node, log) in &after.logs {
        // One may be under way.
        assert!(log.fsyncs.abs_diff(log.batches) <= 1, "node {node} syncs something else than batches: {log:?}");
        let mut found = BTreeSet::new();
        with_wal(&cluster.dir.node_dir(*node), &mut found);
        assert_eq!(found.len(), 1, "node {node} has one log: {found:?}");
        for (_, group) in after.stands.keys() {
            assert!(!found.iter().any(|folder| folder.starts_with(cluster.data(*node, *group))), "{found:?}");
        }
    }

    // Where no Byzantine channel runs, six channels cost not one entry or batch: what is written is what the beacon and the
    // shard have appended, such as checkpoints. Each of these entries may take a batch when it comes and one when it goes.
    let hosted = |groups: &[GroupId]| of(groups).keys().filter(|(node, _)| *node == APART).count();
    assert_eq!((hosted(&raft), hosted(&bft)), (6, 0));
    let others = grown(&before, &after, APART, &always);
    let (entries, batches) = written(&before, &after, APART);
    assert!(
        entries <= others && batches <= 2 * others,
        "{entries} in {batches} for {others} of the beacon and the shard"
    );
    // And the others write for a sign of life what they have written before there were those channels.
    for node in (1..APART.0).map(NodeId) {
        let values = [grown(&few.0, &few.1, node, &bft), grown(&before, &after, node, &bft)];
        let [(entries, batches), now] = [written(&few.0, &few.1, node), written(&before, &after, node)];
        let said = format!("node {node}: {entries} in {batches} for {}, then {now:?} for {}", values[0], values[1]);
        // Three times as much is room for rounds that a busy machine fails.
        assert!(entries > 0 && now.0 * values[0] <= 3 * entries * values[1], "{said}");
        assert!(batches > 0 && now.1 * values[0] <= 3 * batches * values[1], "{said}");
    }
}

//! Waiting until a cluster can take payments.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use client::Client;
use ledger::GroupId;
use ledger::genesis::Genesis;
use proto::v1;

use crate::error::CliError;

const POLL: Duration = Duration::from_millis(50);
/// A cluster that starts refuses connections at first; asking again is cheaper than waiting long.
const ASK_WITHIN: Duration = Duration::from_millis(1500);

/// Waits until every group of the genesis has a leader.
///
/// # Errors
/// `cluster_not_ready` with what is missing; an error that asking again does not change.
pub async fn wait_ready(client: &Client, genesis: &Genesis, within: Duration) -> Result<(), CliError> {
    let asking = client.clone().with_patience(ASK_WITHIN);
    let until = Instant::now() + within;
    let mut missing = String::from("no router has answered yet");
    while Instant::now() < until {
        match asking.status().await {
            Ok(status) => {
                let without = without_leader(&status, genesis);
                if without.is_empty() {
                    return Ok(());
                }
                missing = format!("without a leader: {}{}", names(&without), reasons(&status, &without));
            }
            Err(error) if error.retryable() => missing = error.to_string(),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
    let cause = format!("the cluster was not ready after {} seconds: {missing}", within.as_secs());
    Err(CliError::new(
        "cluster_not_ready",
        cause,
        "see the logs of its nodes (--log info); 'seamark status' shows each group",
    ))
}

/// The groups that no node says it leads.
fn without_leader(status: &v1::StatusReply, genesis: &Genesis) -> Vec<GroupId> {
    let replicas = status.nodes.iter().flat_map(|node| &node.replicas);
    let led: BTreeSet<u64> =
        replicas.filter(|replica| replica.leads && replica.stopped.is_empty()).map(|replica| replica.group).collect();
    genesis.committees.iter().map(|committee| committee.group).filter(|group| !led.contains(&group.0)).collect()
}

/// Why replicas of these groups do not run, one for each group.
fn reasons(status: &v1::StatusReply, groups: &[GroupId]) -> String {
    let of = |group: &GroupId| {
        status.nodes.iter().find_map(|node| {
            let stopped = |replica: &&v1::ReplicaStatus| replica.group == group.0 && !replica.stopped.is_empty();
            let replica = node.replicas.iter().find(stopped)?;
            Some(format!("\n  {group} on node {}: {}", node.node, replica.stopped))
        })
    };
    groups.iter().filter_map(of).collect()
}

fn names(groups: &[GroupId]) -> String {
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Shape;
    use crate::setup::{Addresses, make_cluster};

    #[test]
    fn a_group_has_a_leader_when_a_replica_that_runs_says_so() {
        let shape = Shape { nodes: Some(1), shards: Some(1), ..Shape::default() };
        let genesis = make_cluster(&crate::cluster::spec(&shape, Addresses::Free)).unwrap().genesis;
        let replica = |group: GroupId, stopped: &str| v1::ReplicaStatus {
            group: group.0,
            leads: true,
            stopped: stopped.to_owned(),
            ..v1::ReplicaStatus::default()
        };
        let shard = GroupId::shard(0);
        let status = |replicas| v1::StatusReply {
            nodes: vec![v1::NodeStatusReply { replicas, ..v1::NodeStatusReply::default() }],
            unreachable: Vec::new(),
        };
        assert_eq!(without_leader(&status(vec![]), &genesis), [GroupId::BEACON, shard]);
        let one = status(vec![replica(GroupId::BEACON, ""), replica(shard, "disk full")]);
        assert_eq!(without_leader(&one, &genesis), [shard]);
        assert_eq!(reasons(&one, &[GroupId::BEACON, shard]), "\n  shard-0 on node 0: disk full");
        let both = status(vec![replica(GroupId::BEACON, ""), replica(shard, "")]);
        assert!(without_leader(&both, &genesis).is_empty());
        assert_eq!(names(&[GroupId::BEACON, shard]), "beacon, shard-0");
    }
}

//! Asks until every replica has signed the last block of its group. With `--verify every` that is
//! when all checks of client signatures have been made: they happen off the path of a payment, so the
//! last credit does not wait for them. And until a node that was silent has what the others have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::Client;
use ledger::{Committee, GroupId, NodeId};
use proto::v1;

use super::agree::committees;
use super::wait::until;
use crate::error::CliError;

const POLL: Duration = Duration::from_millis(5);
/// How far behind the checks may be when the last payment is done.
const WITHIN: Duration = Duration::from_secs(120);

/// Waits for the blocks that are there now. Nobody waits for a node that is gone for good.
///
/// # Errors
/// `bench_unchecked` when a replica does not sign; otherwise what the router says.
pub(super) async fn all_checked(client: &Client, gone: Option<NodeId>) -> Result<(), CliError> {
    let mut committees = committees(client).await?;
    for committee in &mut committees {
        committee.members.retain(|member| Some(member.node) != gone);
    }
    let until = Instant::now() + WITHIN;
    let wanted = heights(&client.status().await?);
    loop {
        let missing = missing(&client.status().await?, &committees, &wanted);
        match missing.first() {
            None => return Ok(()),
            Some((group, node)) if Instant::now() >= until => {
                let cause = format!("node {node} has not checked and signed {group} up to its last block in time");
                let fix = "see 'seamark status' and the node's log: it may have found a signature that does not hold";
                return Err(CliError::new("bench_unchecked", cause, fix));
            }
            Some(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Waits until a node has the blocks that the others have now, in each of its groups.
///
/// # Errors
/// `not_in_time`; otherwise what the router says.
pub(super) async fn caught_up(client: &Client, node: NodeId) -> Result<(), CliError> {
    let wanted = heights(&client.status().await?);
    until("the node that was silent has what the others have", WITHIN, async || {
        Ok(has_all(&client.status().await?, node, &wanted).then_some(()))
    })
    .await
}

/// Whether a node answers, and each of its replicas has reached these heights.
fn has_all(status: &v1::StatusReply, node: NodeId, wanted: &BTreeMap<u64, u64>) -> bool {
    let reached = |replica: &v1::ReplicaStatus| Some(&replica.height) >= wanted.get(&replica.group);
    let own = status.nodes.iter().find(|reply| reply.node == node.0);
    own.is_some_and(|reply| !reply.replicas.is_empty() && reply.replicas.iter().all(reached))
}

fn replicas(status: &v1::StatusReply) -> impl Iterator<Item = (u32, &v1::ReplicaStatus)> {
    status.nodes.iter().flat_map(|node| node.replicas.iter().map(|replica| (node.node, replica)))
}

/// The last block of each group.
fn heights(status: &v1::StatusReply) -> BTreeMap<u64, u64> {
    let mut heights = BTreeMap::new();
    for (_, replica) in replicas(status) {
        let height: &mut u64 = heights.entry(replica.group).or_default();
        *height = (*height).max(replica.height);
    }
    heights
}

/// Replicas that have not signed up to these heights.
fn missing(status: &v1::StatusReply, committees: &[Committee], wanted: &BTreeMap<u64, u64>) -> Vec<(GroupId, u32)> {
    let signed = |group: GroupId, node: u32| {
        let own = replicas(status).find(|(of, replica)| *of == node && replica.group == group.0);
        own.is_some_and(|(_, replica)| Some(&replica.attested_height) >= wanted.get(&group.0))
    };
    let members =
        committees.iter().flat_map(|committee| committee.members.iter().map(|member| (committee.group, member.node.0)));
    members.filter(|(group, node)| !signed(*group, *node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Epoch, Incarnation, Member, OrgId, SecretKey};

    fn status(replicas: &[(u32, u64, u64)]) -> v1::StatusReply {
        let node = |(node, height, attested_height): &(u32, u64, u64)| {
            let group = GroupId::shard(0).0;
            let replica =
                v1::ReplicaStatus { group, height: *height, attested_height: *attested_height, ..Default::default() };
            v1::NodeStatusReply { node: *node, replicas: vec![replica], ..Default::default() }
        };
        v1::StatusReply { nodes: replicas.iter().map(node).collect(), unreachable: Vec::new() }
    }

    #[test]
    fn every_replica_has_to_sign_the_last_block_that_any_has() {
        let key = SecretKey::derive(b"k", b"1").public();
        let member = |node| Member { node: NodeId(node), org: OrgId(1), key };
        let members = (1..=3).map(member).collect();
        let committees = [Committee::majority(GroupId::shard(0), Incarnation(0), Epoch(0), members)];
        let wanted = heights(&status(&[(1, 9, 9), (2, 8, 8), (3, 9, 4)]));
        assert_eq!(wanted[&GroupId::shard(0).0], 9);
        let late = |replicas: &[(u32, u64, u64)]| -> Vec<u32> {
            missing(&status(replicas), &committees, &wanted).into_iter().map(|(_, node)| node).collect()
        };
        assert_eq!(late(&[(1, 9, 9), (2, 9, 8), (3, 9, 4)]), [2, 3]);
        assert_eq!(late(&[(1, 12, 11), (2, 12, 9)]), [3], "one that does not answer has not signed");
        assert!(late(&[(1, 9, 9), (2, 9, 9), (3, 12, 10)]).is_empty());
    }

    #[test]
    fn who_was_silent_has_all_when_it_answers_and_is_where_the_others_were() {
        let wanted = heights(&status(&[(1, 9, 9), (2, 8, 8)]));
        let has_all = |replicas: &[(u32, u64, u64)]| has_all(&status(replicas), NodeId(3), &wanted);
        assert!(!has_all(&[(1, 9, 9), (2, 9, 9)]), "it does not answer");
        assert!(!has_all(&[(1, 12, 9), (3, 8, 8)]));
        assert!(has_all(&[(1, 12, 9), (3, 9, 2)]));
    }
}

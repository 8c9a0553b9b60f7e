//! Waiting for events of the cluster, and what its nodes say of a group. Nothing waits for time alone, and
//! whatever does not come ends the tour with the reason why it has not come yet.

use std::time::{Duration, Instant};

use client::{Client, ClientError, Consistency};
use ledger::{Address, AssetId, Committee, GroupId, LedgerId, NodeId, OrgId};
use proto::v1;
use serde::Serialize;

use super::Place;
use crate::commands::signer::Orgs;
use crate::error::CliError;
use crate::load::agree::committees;

/// Between two looks.
const POLL: Duration = Duration::from_millis(20);
/// How long any event may take. Generous: laptops are busy.
const WITHIN: Duration = Duration::from_secs(60);

/// A node that decides in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Seat {
    /// The node.
    pub(super) node: u32,
    /// Its organisation.
    pub(super) org: String,
}

/// The error of a story that took another turn than it must.
pub(super) fn astray(cause: impl ToString) -> CliError {
    CliError::new("tour_failed", cause, "report it with all that the command printed; --log info shows more")
}

/// Looks until it is there. The inner error says what is missing, the outer one ends the waiting.
///
/// # Errors
/// `tour_timeout` with what is missing, and whatever looking fails with.
pub(super) async fn until<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>, CliError>,
) -> Result<T, CliError> {
    let since = Instant::now();
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(missing) if since.elapsed() >= WITHIN => {
                let cause = format!("{what}: not within {} seconds: {missing}", WITHIN.as_secs());
                let fix = "run it on a machine that is less busy; --log info shows what the nodes do";
                return Err(CliError::new("tour_timeout", cause, fix));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The committee in force of a group, as the client's router knows it.
async fn committee(client: &Client, group: GroupId) -> Result<Option<Committee>, CliError> {
    Ok(committees(client).await?.into_iter().find(|known| known.group == group))
}

/// The seats of a committee.
pub(super) fn seats(committee: &Committee, orgs: &Orgs) -> Vec<Seat> {
    committee.members.iter().map(|member| Seat { node: member.node.0, org: orgs.name(member.org) }).collect()
}

/// A replica, as its node describes it; none where the node does not run the group.
pub(super) fn replica(status: &v1::StatusReply, node: NodeId, group: GroupId) -> Option<&v1::ReplicaStatus> {
    let node = status.nodes.iter().find(|reply| reply.node == node.0)?;
    node.replicas.iter().find(|replica| replica.group == group.0)
}

/// The replica that leads a group. A deposed leader may not know it yet: the latest term counts.
pub(super) fn leader(status: &v1::StatusReply, group: GroupId) -> Option<&v1::ReplicaStatus> {
    let all = status.nodes.iter().flat_map(|node| &node.replicas);
    let leading = all.filter(|replica| replica.group == group.0 && replica.leads && replica.stopped.is_empty());
    leading.max_by_key(|replica| replica.term)
}

/// Waits until exactly these nodes, in order, are a group's committee, for its own state and for the router.
///
/// The engine's voters follow the committee that stands in the group's state, so once they have, the group
/// reckons its quorum with these seats.
pub(super) async fn seated(client: &Client, place: &Place, nodes: &[NodeId]) -> Result<Committee, CliError> {
    until(&format!("the seats of {} are those of its members", place.name), async || {
        let status = client.status().await?;
        let mut voters = leader(&status, place.group).map(|leader| leader.voters.clone()).unwrap_or_default();
        voters.sort_unstable();
        let vote = voters.iter().copied().eq(nodes.iter().map(|node| node.0));
        let sit = |known: &Committee| known.members.iter().map(|member| member.node).eq(nodes.iter().copied());
        let known = committee(client, place.group).await?;
        let found = known.filter(|known| vote && sit(known));
        Ok::<_, CliError>(found.ok_or_else(|| format!("those who vote are {voters:?}")))
    })
    .await
}

/// Waits until the client's router knows a group.
pub(super) async fn known(client: &Client, place: &Place) -> Result<(), CliError> {
    until(&format!("the routers know {}", place.name), async || {
        let found = committee(client, place.group).await?;
        Ok::<_, CliError>(found.map(drop).ok_or_else(|| "one has not heard of its committee".to_owned()))
    })
    .await
}

/// Waits until the directory names these members of a channel, in order.
pub(super) async fn listed(client: &Client, place: &Place, members: &[OrgId]) -> Result<(), CliError> {
    until(&format!("the directory has heard of the members of {}", place.name), async || {
        let lines = client.channels().await?;
        let line = lines.into_iter().find(|line| line.group == place.group);
        let named = line.map(|line| line.members).unwrap_or_default();
        let found = if named == members { Ok(()) } else { Err(format!("it names {named:?}")) };
        Ok::<_, CliError>(found)
    })
    .await
}

/// What an account of a ledger has of an asset.
pub(super) async fn balance(
    client: &Client,
    ledger: LedgerId,
    account: Address,
    asset: AssetId,
) -> Result<u128, ClientError> {
    let answer = client.account_of(ledger, account, Consistency::Linearizable, false).await?;
    let balances = answer.value.map(|record| record.balances).unwrap_or_default();
    Ok(balances.iter().find(|line| line.0 == asset).map_or(0, |line| line.1.posted))
}

/// Waits until an account has so much of an asset.
pub(super) async fn arrived(
    client: &Client,
    ledger: LedgerId,
    account: Address,
    asset: AssetId,
    wanted: u128,
) -> Result<(), CliError> {
    until("the transfer arrives", async || {
        let has = balance(client, ledger, account, asset).await?;
        let found = if has == wanted { Ok(()) } else { Err(format!("there are {has} of {wanted}")) };
        Ok::<_, CliError>(found)
    })
    .await
}

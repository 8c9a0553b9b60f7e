//! A member joins: it is invited, accepts, and its node fetches a snapshot, signs, and takes its seat, while
//! the channel has a history that is longer than the log that is kept of it.

use std::time::Instant;

use channel::{Change, Command, Outcome};
use ledger::{Height, Move, NodeId};
use serde::Serialize;

use super::cast::{Actor, Cast, SEED, Step, Teller, nodes_of};
use super::found::{ANSWER_MINUTES, decide};
use super::fund::{Good, Goods};
use super::stage::{Seat, astray, leader, listed, replica, seated, seats, until};
use super::{Place, Places, SNAPSHOT_EVERY};
use crate::cluster::LocalCluster;
use crate::commands::signer::ahead;
use crate::error::CliError;
use crate::load::sign::Party;
use crate::output::rounded;

/// Entries from which on the log is longer than what is kept of it, by several snapshots.
const LOG_ENTRIES_MIN: u64 = 4 * SNAPSHOT_EVERY;
/// Payments between two looks at the log.
const PAYMENTS_AT_ONCE: u64 = 50;

/// How the member came in.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Join {
    pub(super) channel: &'static str,
    pub(super) org: String,
    pub(super) nodes: Vec<u32>,
    /// Payments that were made in the channel so that it has a history.
    pub(super) payments: u64,
    /// Entries of the log by then.
    pub(super) log_entries: u64,
    /// The block in which it became a member.
    pub(super) height: u64,
    /// The block of the snapshot that its node took from another one; none if it took none.
    pub(super) snapshot_height: Option<u64>,
    /// Where its node was when it was first seen at that block or later.
    pub(super) node_height: u64,
    /// From its acceptance until then.
    pub(super) seconds_to_height: f64,
    /// From its acceptance until it had its seat.
    pub(super) seconds_to_seat: f64,
    pub(super) committee_before: Vec<Seat>,
    pub(super) committee_after: Vec<Seat>,
}

impl Join {
    /// What is not as it must be.
    pub(super) fn problems(&self) -> Vec<String> {
        match self.snapshot_height {
            Some(_) => Vec::new(),
            None => vec![format!("the node of {} joined {} without a snapshot", self.org, self.channel)],
        }
    }
}

/// The account that the history is paid to.
fn warehouse() -> Party {
    Party::derive(SEED, "warehouse")
}

/// A payment of one unit to it.
pub(super) async fn deliver(payer: &Actor, place: &Place, good: &Good) -> Result<client::Settled, CliError> {
    let (from, to) = (payer.party.address, warehouse().address);
    payer.execute(vec![(place.ledger(), Move::Pay { from, to, asset: good.id, amount: 1 })]).await
}

/// Pays until the log is longer than what is kept of it. Each payment is waited for and so is an entry at
/// least. Returns how many there were, and how long the log is.
async fn make_history(payer: &Actor, place: &Place, good: &Good) -> Result<(u64, u64), CliError> {
    let mut payments = 0;
    loop {
        for _ in 0..PAYMENTS_AT_ONCE {
            deliver(payer, place, good).await?;
        }
        payments += PAYMENTS_AT_ONCE;
        let status = payer.client.status().await?;
        let entries = leader(&status, place.group).map_or(0, |leader| leader.log_last);
        if entries >= LOG_ENTRIES_MIN {
            return Ok((payments, entries));
        }
    }
}

/// The third organisation joins the first channel.
pub(super) async fn join(
    cluster: &LocalCluster,
    cast: &Cast,
    places: &Places,
    goods: &Goods,
    teller: &mut Teller,
) -> Result<Join, CliError> {
    let (Cast { a, b, c, .. }, place) = (cast, &places.steel);
    let (payments, log_entries) = make_history(a, place, &goods.steel).await?;
    teller.line(format!("{} has made {payments} payments in {}", a.name, place.name));
    let before = seated(&a.client, place, &nodes_of(&[a, b])).await?;

    let invite = Change::Invite { org: c.id, until_ms: ahead(ANSWER_MINUTES) };
    decide(cast, place, &format!("invite {}", c.name), invite, [a, b], teller).await?;
    let since = Instant::now();
    let fate = c.act(place.group, &Command::Join { nodes: c.nodes.clone() }).await?;
    let Outcome::Joined { height } = fate.outcome else {
        return Err(astray(format!("{} has accepted its invitation, and is no member", c.name)));
    };
    teller.step(Step {
        place: place.name,
        org: c.name.clone(),
        did: format!("joins {}", place.name),
        then: format!("it is a member from block {height} on"),
        missing: Vec::new(),
        height: fate.height.0,
    });

    let node = *c.nodes.first().ok_or_else(|| astray(format!("{} has no node", c.name)))?;
    let node_height = reached(a, place, node, height).await?;
    let seconds_to_height = rounded(since.elapsed().as_secs_f64());
    let snapshot_height = cluster.installed(node, place.group)?.map(|height| height.0);
    teller.line(match snapshot_height {
        Some(snapshot) => {
            format!(
                "node {node} took the snapshot of block {snapshot} and was at {node_height} after {seconds_to_height} s"
            )
        }
        None => format!("node {node} was at {node_height} after {seconds_to_height} s, without a snapshot"),
    });
    let after = seated(&a.client, place, &nodes_of(&[a, b, c])).await?;
    let seconds_to_seat = rounded(since.elapsed().as_secs_f64());
    listed(&a.client, place, &[a.id, b.id, c.id]).await?;
    teller.line(format!("node {node} has its seat after {seconds_to_seat} s"));
    Ok(Join {
        channel: place.name,
        org: c.name.clone(),
        nodes: c.nodes.iter().map(|node| node.0).collect(),
        payments,
        log_entries,
        height: height.0,
        snapshot_height,
        node_height,
        seconds_to_height,
        seconds_to_seat,
        committee_before: seats(&before, &cast.orgs),
        committee_after: seats(&after, &cast.orgs),
    })
}

/// Waits until a node's replica is at a block; returns where it is.
async fn reached(asks: &Actor, place: &Place, node: NodeId, height: Height) -> Result<u64, CliError> {
    until(&format!("node {node} reaches block {height} of {}", place.name), async || {
        let status = asks.client.status().await?;
        let found = match replica(&status, node, place.group) {
            Some(replica) if !replica.stopped.is_empty() => Err(format!("it has stopped: {}", replica.stopped)),
            Some(replica) if replica.height >= height.0 => Ok(replica.height),
            Some(replica) => Err(format!("it is at {}", replica.height)),
            None => Err("it does not run the channel yet".to_owned()),
        };
        Ok::<_, CliError>(found)
    })
    .await
}

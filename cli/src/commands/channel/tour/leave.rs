//! A member leaves: too early it is refused, since the others could not decide without it; later it takes its
//! value home, leaves, and is told nothing from that block on, while the others go on.

use std::time::Instant;

use channel::{ChannelReject, Command, Outcome};
use ledger::{LedgerId, Move, NodeId};
use serde::Serialize;

use super::Places;
use super::cast::{Cast, Step, Teller, nodes_of};
use super::fund::{Good, Goods};
use super::join::deliver;
use super::stage::{Seat, arrived, astray, balance, listed, seated, seats, until};
use crate::cluster::LocalCluster;
use crate::commands::show::ReceiptLine;
use crate::error::CliError;
use crate::output::rounded;

/// What the member that left was answered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Answered {
    /// From handing over that it leaves until this answer was there.
    pub(super) after_ms: f64,
    /// Why it was refused; none if it was not.
    pub(super) code: Option<String>,
}

/// How the member went.
#[derive(Serialize)]
pub(super) struct Leave {
    pub(super) channel: &'static str,
    pub(super) org: String,
    /// What it took home before.
    pub(super) taken_home: Vec<String>,
    /// The block from which on it is no member.
    pub(super) height: u64,
    /// What it was answered when it asked for the members right afterwards.
    pub(super) answered: Answered,
    pub(super) committee_before: Vec<Seat>,
    pub(super) committee_after: Vec<Seat>,
    /// From handing over that it leaves until the others decide without it.
    pub(super) seconds_to_committee: f64,
    /// From then on until its nodes had removed their copies.
    pub(super) seconds_to_removal: f64,
    /// A payment of the others afterwards.
    pub(super) next_payment: ReceiptLine,
}

impl Leave {
    /// What is not as it must be.
    pub(super) fn problems(&self) -> Vec<String> {
        let expected = ChannelReject::Removed.code();
        match self.answered.code.as_deref() {
            Some(code) if code == expected => Vec::new(),
            Some(code) => {
                vec![format!("{} left {} and is refused with {code}, not {expected}", self.org, self.channel)]
            }
            None => vec![format!("{} left {} and is still shown its members", self.org, self.channel)],
        }
    }
}

/// What a member is told that the others cannot do without.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TooEarly {
    pub(super) channel: &'static str,
    pub(super) org: String,
    pub(super) code: String,
    pub(super) cause: String,
}

/// The second organisation tries to leave before anybody has joined, and is refused.
pub(super) async fn too_early(cast: &Cast, places: &Places, teller: &Teller) -> Result<TooEarly, CliError> {
    let (b, place) = (&cast.b, &places.steel);
    let refused = match b.act(place.group, &Command::Leave).await {
        Err(error) if error.code == ChannelReject::QuorumLostNow.code() => error,
        Err(error) => return Err(error),
        Ok(_) => return Err(astray(format!("{} has left {}, which has no quorum now", b.name, place.name))),
    };
    teller.line(format!("{} would leave {}: {}", b.name, place.name, refused.code));
    Ok(TooEarly { channel: place.name, org: b.name.clone(), code: refused.code, cause: refused.cause })
}

/// The second organisation leaves the first channel.
pub(super) async fn leave(
    cluster: &LocalCluster,
    cast: &Cast,
    places: &Places,
    goods: &Goods,
    teller: &mut Teller,
) -> Result<Leave, CliError> {
    let (Cast { a, b, c, .. }, place) = (cast, &places.steel);
    let mut taken_home = Vec::new();
    for good in [&goods.steel, &goods.eur] {
        taken_home.extend(take_home(cast, places, good, teller).await?);
    }
    let before = seated(&a.client, place, &nodes_of(&[a, b, c])).await?;
    if !b.nodes.iter().all(|node| cluster.keeps(*node, place.group)) {
        return Err(astray(format!("a node of {} has no copy of {} that could be removed", b.name, place.name)));
    }

    let since = Instant::now();
    let fate = b.act(place.group, &Command::Leave).await?;
    let Outcome::Left { height } = fate.outcome else {
        return Err(astray(format!("{} has left, and the channel does not say when", b.name)));
    };
    let code = b.client.governance(place.group).await.err().map(|error| CliError::from(error).code);
    let answered = Answered { after_ms: rounded(since.elapsed().as_secs_f64() * 1000.0), code };
    teller.step(Step {
        place: place.name,
        org: b.name.clone(),
        did: format!("leaves {}", place.name),
        then: format!("it is no member from block {height} on"),
        missing: Vec::new(),
        height: fate.height.0,
    });
    let told = answered.code.as_deref().unwrap_or("who the members are");
    teller.line(format!("{} asks for the members and is told {told}, {} ms after it left", b.name, answered.after_ms));

    let after = seated(&a.client, place, &nodes_of(&[a, c])).await?;
    let seconds_to_committee = rounded(since.elapsed().as_secs_f64());
    listed(&a.client, place, &[a.id, c.id]).await?;
    teller.line(format!("the others decide without it after {seconds_to_committee} s"));
    let since = Instant::now();
    removed(cluster, &b.nodes, places).await?;
    let seconds_to_removal = rounded(since.elapsed().as_secs_f64());
    teller.line(format!("its nodes have removed their copies {seconds_to_removal} s later"));

    let settled = deliver(a, place, &goods.steel).await?;
    let receipt = settled.receipt().ok_or_else(|| astray("a payment in a channel left no receipt"))?;
    teller.line(format!("{} pays in block {}: the others go on", a.name, receipt.height));
    Ok(Leave {
        channel: place.name,
        org: b.name.clone(),
        taken_home,
        height: height.0,
        answered,
        committee_before: seats(&before, &cast.orgs),
        committee_after: seats(&after, &cast.orgs),
        seconds_to_committee,
        seconds_to_removal,
        next_payment: ReceiptLine::of(receipt),
    })
}

/// Sends all that the second organisation has of an asset in the first channel back to the main ledger: who is
/// no member any more cannot. Returns how much it was, if it was anything.
async fn take_home(cast: &Cast, places: &Places, good: &Good, teller: &Teller) -> Result<Option<String>, CliError> {
    let (b, place) = (&cast.b, &places.steel);
    let (account, asset) = (b.party.address, good.id);
    let amount = balance(&b.client, place.ledger(), account, asset).await?;
    if amount == 0 {
        return Ok(None);
    }
    let there = balance(&b.client, LedgerId::MAIN, account, asset).await?;
    let home = Move::Transfer { from: account, to: account, asset, amount, ledger: LedgerId::MAIN };
    b.execute(vec![(place.ledger(), home)]).await?;
    arrived(&b.client, LedgerId::MAIN, account, asset, there + amount).await?;
    teller.line(format!("{} has taken {} home from {}", b.name, good.amount(amount), place.name));
    Ok(Some(good.amount(amount)))
}

/// Waits until these nodes have nothing of the first channel on their disks any more.
async fn removed(cluster: &LocalCluster, nodes: &[NodeId], places: &Places) -> Result<(), CliError> {
    let place = &places.steel;
    until(&format!("the copies of {} are removed", place.name), async || {
        let has = |node: &&NodeId| cluster.keeps(**node, place.group);
        let left: Vec<u32> = nodes.iter().filter(has).map(|node| node.0).collect();
        let found = if left.is_empty() { Ok(()) } else { Err(format!("nodes {left:?} have one")) };
        Ok::<_, CliError>(found)
    })
    .await
}

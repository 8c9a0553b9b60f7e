//! The founding of groups at run time.
//!
//! Counts the approvals of a proposal, and once every member has sent it gives the group its id, its
//! committee and its [`Foundation`], and tells everybody. Who has to approve is decided in one place,
//! [`decided`]; nothing after it depends on how that came about.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::committee::{Committee, Member};
use ledger::foundation::{FOUNDATION_VERSION, Foundation};
use ledger::genesis::NodeInfo;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId, TimeMs};
use ledger::limits::{CHARTER_BYTES_MAX, FOUNDERS_MAX};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::assign::{Constraints, GroupSeats, assign};
use crate::command::{Engine, FoundedKind, Founding};
use crate::limits::{CHANNELS_MAX, PROPOSALS_MAX};
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::registry;

const FOUNDING: &[u8] = b"founding/";

/// A proposal and who has approved it.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
struct Proposed {
    founding: Founding,
    until_ms: TimeMs,
    approvals: Vec<OrgId>,
}

/// Counts the signer's approval of a group; the one that decides founds it.
pub(crate) fn found(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    founding: Founding,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    check(view, signer, &founding)?;
    let encoded = borsh::to_vec(&founding).expect("writing to memory does not fail");
    let name: Hash32 = tagged(b"seamark/founding/v1", &[&encoded]);
    let key = registry::key(FOUNDING, &[&name.0]);
    let open: Vec<(Vec<u8>, Proposed)> = registry::family(view, &registry::key(FOUNDING, &[]));
    let (stale, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|(_, found)| found.until_ms < at.time_ms);
    let known = open.iter().find(|(found, _)| *found == key).map(|(_, proposed)| proposed.clone());
    if known.is_none() && open.len() >= PROPOSALS_MAX {
        return Err(Reject::Busy);
    }
    let mut proposed = known.unwrap_or(Proposed { founding, until_ms, approvals: Vec::new() });
    if let Err(place) = proposed.approvals.binary_search(&signer) {
        proposed.approvals.insert(place, signer);
    }
    // Whatever may still refuse comes before the first write.
    let foundation = if decided(&proposed) { Some(foundation(view, at, &proposed.founding)?) } else { None };
    stale.into_iter().for_each(|(key, _)| registry::remove(view, key));
    let Some(foundation) = foundation else {
        let count = |n: usize| u16::try_from(n).expect("organisations are limited to 64");
        let (approvals, needed) = (count(proposed.approvals.len()), count(proposed.founding.members.len()));
        registry::put(view, key, &proposed);
        return Ok(CommandOutcome::Pending { approvals, needed }.into());
    };
    if view.get(&key).is_some() {
        registry::remove(view, key);
    }
    let committees = vec![foundation.committee.clone()];
    let mail = settle(view, foundation);
    registry::bump_revision(view);
    Ok(Executed { outcome: CommandOutcome::Applied, mail, committees })
}

/// Every member has approved.
fn decided(proposed: &Proposed) -> bool {
    proposed.approvals == proposed.founding.members
}

/// What a proposal has to be, whoever has approved it.
fn check(view: &mut View<'_>, signer: OrgId, founding: &Founding) -> Result<(), Reject> {
    let Founding { kind: FoundedKind::Channel, charter, members, replicas: _, consensus: Engine::Raft } = founding;
    let listed = (1..=FOUNDERS_MAX).contains(&members.len()) && members.windows(2).all(|pair| pair[0] < pair[1]);
    if charter.len() > CHARTER_BYTES_MAX || !listed {
        return Err(Reject::Registry);
    }
    if members.binary_search(&signer).is_err() {
        return Err(Reject::NotAuthorised);
    }
    if members.iter().any(|org| registry::org(view, *org).is_none()) {
        return Err(Reject::Registry);
    }
    // Also while it waits for approvals: who approves should know that it can be done.
    let group = GroupId::channel(registry::channels(view));
    first_committee(view, group, founding).map(drop)
}

/// The first committee of a group, on nodes of its members, by capacity and by what they carry already.
fn first_committee(view: &mut View<'_>, group: GroupId, founding: &Founding) -> Result<Committee, Reject> {
    let nodes: Vec<NodeInfo> =
        registry::nodes(view).into_iter().filter(|node| founding.members.binary_search(&node.org).is_ok()).collect();
    let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
    for member in registry::committees(view).iter().flat_map(|committee| &committee.members) {
        *held.entry(member.node).or_default() += 1;
    }
    let seed = registry::seed(view).ok_or(Reject::Registry)?;
    let wanted = GroupSeats { group, seats: founding.replicas };
    let seated = assign(&seed, &nodes, &[wanted], &Constraints { held, ..Constraints::default() });
    let seated = seated.map_err(|_| Reject::Seats)?.into_iter().next().map(|(_, nodes)| nodes).unwrap_or_default();
    let member = |node: &NodeInfo| Member { node: node.id, org: node.org, key: node.key };
    let members = nodes.iter().filter(|node| seated.contains(&node.id)).map(member);
    Ok(Committee::majority(group, Incarnation(0), Epoch(0), members.collect()))
}

fn foundation(view: &mut View<'_>, at: &BlockContext, founding: &Founding) -> Result<Foundation, Reject> {
    let ordinal = registry::channels(view);
    if ordinal as usize >= CHANNELS_MAX {
        return Err(Reject::Busy);
    }
    refuse_full(view)?;
    let group = GroupId::channel(ordinal);
    Ok(Foundation {
        version: FOUNDATION_VERSION,
        group,
        charter: founding.charter.clone(),
        members: founding.members.clone(),
        committee: first_committee(view, group, founding)?,
        beacon_committee: registry::committee(view, GroupId::BEACON).ok_or(Reject::Registry)?,
        layout: registry::layout(view).ok_or(Reject::Registry)?,
        founded_ms: at.time_ms,
        beacon_height: at.height,
    })
}

/// Writes the group into the registry. Everybody hears of its committee; the group itself hears of all
/// committees in force, the layout and every asset, which is its first mail.
fn settle(view: &mut View<'_>, foundation: Foundation) -> Vec<(GroupId, Message)> {
    let (group, committee) = (foundation.group, foundation.committee.clone());
    let others: Vec<Committee> = registry::committees(view);
    let told = others.iter().filter(|known| known.group != GroupId::BEACON);
    let mut mail: Vec<_> = told.map(|known| (known.group, Message::CommitteeUpdate(committee.clone()))).collect();
    let hash = committee.hash();
    registry::put(view, registry::channels_key(), &(group.ordinal() + 1));
    registry::put(view, registry::committee_key(group, &hash), &committee);
    registry::put(view, registry::current_key(group), &hash);
    registry::put(view, registry::foundation_key(group), &foundation);
    mail.extend(others.into_iter().map(|known| (group, Message::CommitteeUpdate(known))));
    mail.push((group, Message::CommitteeUpdate(committee)));
    mail.extend(registry::layout(view).map(|layout| (group, Message::LayoutUpdate(layout))));
    mail.extend(registry::assets(view).into_iter().map(|asset| (group, Message::AssetUpdate(asset))));
    mail
}

//! Switching the engine of a group while it runs: who has to approve, what it takes, and how it is carried out.
//!
//! The engine is a property of the committee, so a switch is a change of committee and takes its road ([`crate::seats`]):
//! prepared, shown to be ready, put into force by mail. A switch moves no seat. Where the engine needs more members they
//! come first, one change at a time and still under the engine in force; then the same members go on under the other
//! one. So whoever orders behind a switch has the state and has followed the log before it. A group that has more members
//! than the genesis gives it, because another engine needed them, gives their seats up behind a switch back to Raft, again a
//! step at a time.
//!
//! Of a shard and of the beacon, more than half of the organisations approve; of a channel, its members by its policy. What is wanted is
//! kept until it is in force. Asking for the engine in force takes a switch back that is not there yet.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::{Committee, Engine, Member};
use ledger::genesis::NodeInfo;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::channels;
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::majority::{self, Proposal, Verdict};
use crate::policies::Matter;
use crate::rate;
use crate::registry;
use crate::seats::{self, Wanted};

mod standing;

pub use standing::{ENGINE_BOOK_VERSION, EngineBook, Standing, configured};

/// Version written into new [`Switch`]es.
pub const SWITCH_VERSION: u8 = 1;

/// A switch that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Switch {
    /// Format version, [`SWITCH_VERSION`].
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// The engine that is asked for.
    pub engine: Engine,
    /// Hash of the committee in force when it was proposed: what was approved is a switch of that one.
    pub committee: Hash32,
}

/// A switch that waits for approvals.
pub type SwitchProposal = Proposal<Switch>;

const WANTED: &[u8] = b"engine/";
const SWITCH: &[u8] = b"switch/";

/// Key of the engine that a shard or the beacon is on its way to.
#[must_use]
pub fn wanted_key(group: GroupId) -> Vec<u8> {
    registry::key(WANTED, &[&group.0.to_be_bytes()])
}

/// Key of a [`SwitchProposal`].
#[must_use]
pub fn switch_key(group: GroupId, engine: Engine) -> Vec<u8> {
    registry::key(SWITCH, &[&group.0.to_be_bytes(), engine.name().as_bytes()])
}

/// The engine that a group is to have: that of its committee in force, unless it is on its way to another one.
pub fn wanted(view: &mut View<'_>, current: &Committee) -> Engine {
    let other = match current.group.kind() {
        Some(GroupKind::Channel) => channels::engine(view, current.group),
        _ => view.load(&wanted_key(current.group)),
    };
    other.unwrap_or(current.engine)
}

/// Whether a shard or the beacon is on its way to another engine, and may wait for a node.
pub(crate) fn under_way(view: &mut View<'_>) -> bool {
    !view.scan_prefix(&registry::key(WANTED, &[])).is_empty()
}

/// Switches that wait for approvals, by group.
pub fn proposals(view: &mut View<'_>) -> Vec<SwitchProposal> {
    registry::family(view, &registry::key(SWITCH, &[])).into_iter().map(|(_, proposal)| proposal).collect()
}

/// A committee that comes into force: what it was wanted for is done.
pub(crate) fn arrived(view: &mut View<'_>, committee: &Committee) {
    let key = wanted_key(committee.group);
    if view.load::<Engine>(&key) == Some(committee.engine) {
        registry::remove(view, key);
    }
}

/// The next step of a group to the engine that it is to have, when no seat has to move: its members under that engine,
/// or, where they are too few for it, a committee with more of them under the engine in force. `nodes` decide about seats
/// where the beacon does; the members of a channel bring theirs. `None` when nobody can be found.
#[must_use]
pub(crate) fn next(current: &Committee, to: Engine, nodes: Option<&Wanted<'_>>) -> Option<(Vec<Member>, Engine)> {
    let missing = to.least_members().saturating_sub(current.members.len());
    if missing == 0 {
        return Some((current.members.clone(), to));
    }
    let mut members = current.members.clone();
    seats::take_seats(&mut members, missing.min(seats::step(current)), current, nodes?).ok()?;
    members.sort_by_key(|member| member.node);
    Some((members, current.engine))
}

/// Takes an organisation's approval of a switch; the one with which the policy holds has it prepared. A switch that is under
/// way is not begun again, and asking for it changes nothing.
///
/// # Errors
/// [`Reject`] as [`preflight`] has it, and when mail or proposals are full. The view is then unchanged.
pub(crate) fn switch(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    (group, engine): (GroupId, Engine),
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    if group.kind() == Some(GroupKind::Channel) {
        return Err(Reject::EngineFixed);
    }
    let current = registry::committee(view, group).ok_or(Reject::UnknownGroup)?;
    if current.engine != engine && wanted(view, &current) == engine {
        return Ok(CommandOutcome::Applied.into());
    }
    let standing = Standing::read(view).ok_or(Reject::Registry)?;
    preflight(&standing, group, engine)?.refusal.map_or(Ok(()), Err)?;
    let asked = Switch { version: SWITCH_VERSION, group, engine, committee: current.hash() };
    let proposal = (Matter::Engines, SWITCH, switch_key(group, engine));
    let decided = match majority::approve(view, at, proposal, asked, (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        Verdict::Decided(decided) => decided,
    };
    refuse_full(view)?;
    // What was approved for the other direction was about another state.
    decided.close(view, |other| other.group == group);
    if engine == current.engine {
        registry::remove(view, wanted_key(group));
    } else {
        registry::put(view, wanted_key(group), &engine);
    }
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

/// A committee before or behind a switch, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The engine.
    pub engine: Engine,
    /// Members.
    pub members: usize,
    /// Members that decide, and whose signatures make a certificate.
    pub threshold: usize,
    /// Members that may fail: stop under Raft, do whatever they like under the Byzantine engine.
    pub tolerated: usize,
    /// Messages among the members for one entry, with those that carry signatures of headers, when nothing is lost.
    pub messages: usize,
    /// Signatures that all of them together make for one entry: of ballots and of headers.
    pub signatures: usize,
}

impl Side {
    /// A committee of so many members.
    #[must_use]
    pub const fn of(engine: Engine, members: usize) -> Self {
        let others = members.saturating_sub(1);
        // Each tells all others what it has signed.
        let headers = members * others;
        let (order, ballots) = match engine {
            // The leader sends it to each of the others, who answer.
            Engine::Raft => (2 * others, 0),
            // One proposal to all others, which each of them shows to the rest, and two votes of each to all others.
            Engine::Bft => (others * others + 2 * members * others, 1 + 2 * members),
        };
        Self {
            engine,
            members,
            threshold: engine.threshold(members),
            tolerated: engine.tolerated(members),
            messages: order + headers,
            signatures: ballots + members,
        }
    }
}

/// What a switch would change, and why it cannot be, if so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The group.
    pub group: GroupId,
    /// As it is.
    pub now: Side,
    /// As it would be at the end.
    pub then: Side,
    /// Nodes that take seats first, ascending. Of a channel the members bring them.
    pub joining: Vec<NodeId>,
    /// Nodes that give seats up at the end, ascending, as seats are held now: those of a group that has more than the
    /// genesis gives it, once Raft orders it.
    pub leaving: Vec<NodeId>,
    /// Committees that come into force one after the other: those that take seats, the one with the engine, those that
    /// give seats up. Taking a switch back has only the last.
    pub steps: usize,
    /// The engine that the group is on its way to already, which may wait for a node. Asking for it again changes nothing, of a
    /// shard or of the beacon, and asking for the one in force takes it back.
    pub under_way: Option<Engine>,
    /// The organisation with most seats behind the switch, and how many.
    pub most: Option<(OrgId, usize)>,
    /// Members that go over with a vote.
    pub voting: usize,
    /// What to expect of rate and latency.
    pub rate: &'static str,
    /// What to think of, for people.
    pub notes: Vec<String>,
    /// Why it is refused.
    pub refusal: Option<Reject>,
}

/// Says what a switch of a group to an engine would change. Pure, and the same wherever it is computed from the same
/// standing: the beacon refuses what this refuses.
///
/// Refused are a shard that a job is about ([`Reject::ShardBusy`]), the engine in force, unless the group is on its way to
/// another one ([`Reject::EngineSame`]), any other change that is under way ([`Reject::EngineChanging`],
/// [`Reject::NodeKeyAwaited`]), too few nodes ([`Reject::EngineNodes`]), a committee that could not bear one more failure than it has already ([`Reject::EngineRisk`]),
/// and one of which too few have a vote to decide anything ([`Reject::EngineVotes`]), which only those see who have asked the
/// replicas ([`Standing::voteless`]).
///
/// # Errors
/// [`Reject::UnknownGroup`] when there is no such group.
pub fn preflight(standing: &Standing, group: GroupId, engine: Engine) -> Result<Preflight, Reject> {
    let current = standing.committees.iter().find(|known| known.group == group).ok_or(Reject::UnknownGroup)?;
    let under_way = standing.switching.iter().find(|(switching, _)| *switching == group).map(|(_, to)| *to);
    // A channel takes no second proposal of what it wants already.
    let again = under_way == Some(engine) && group.kind() != Some(GroupKind::Channel);
    let back = engine == current.engine && under_way.is_some();
    let Road { joining, leaving, steps, found } = road(standing, current, engine);
    let seated = current.members.iter().map(|member| member.node);
    let going_over: Vec<NodeId> = seated.chain(joining.iter().copied()).collect();
    let members: Vec<NodeId> = going_over.iter().copied().filter(|node| !leaving.contains(node)).collect();
    let (now, then) = (Side::of(current.engine, current.members.len()), Side::of(engine, members.len()));
    let sound = going_over.iter().filter(|node| standing.sound(**node)).count();
    let (voting, needed) =
        (going_over.iter().filter(|node| standing.votes(**node)).count(), engine.threshold(going_over.len()));
    let coming = standing.coming.iter().find(|coming| coming.group == group);
    let keys = coming.is_some_and(|coming| seats::changes_keys_alone(current, coming));
    let refusal = if again {
        None
    } else if standing.busy.contains(&group) {
        Some(Reject::ShardBusy)
    } else if back {
        None
    } else if engine == current.engine {
        Some(Reject::EngineSame)
    } else if under_way.is_some() || coming.is_some() && !keys {
        Some(Reject::EngineChanging)
    } else if keys {
        Some(Reject::NodeKeyAwaited)
    } else if !found {
        Some(Reject::EngineNodes)
    } else if sound <= needed {
        Some(Reject::EngineRisk)
    } else if voting < needed {
        Some(Reject::EngineVotes)
    } else {
        None
    };
    let most = most(standing, current, &members);
    let mut notes = Vec::new();
    if let Some(to) = under_way {
        notes.push(on_its_way(to, back, found));
    }
    if let Some((org, seats)) = most
        && engine.bears_liars()
        && seats > then.tolerated
    {
        notes.push(format!(
            "organisation {org} would have {seats} of {} seats: together they are more than the {} that may lie",
            then.members, then.tolerated
        ));
    }
    if !leaving.is_empty() {
        let (seats, many) = (then.members, now.members);
        notes.push(format!(
            "the genesis gives the group {seats} members, and {many} are in force: once raft orders it, the seats that are \
             too many are given up"
        ));
    }
    if then.tolerated < now.tolerated {
        notes.push(format!("{} members may fail now, and {} behind the switch", now.tolerated, then.tolerated));
    }
    let silenced: Vec<NodeId> = going_over.iter().copied().filter(|node| standing.voteless.contains(node)).collect();
    if !silenced.is_empty() {
        notes.push(without_votes(&silenced, engine, voting.saturating_sub(needed)));
    }
    Ok(Preflight {
        group,
        now,
        then,
        joining,
        leaving,
        // The engine in force needs no committee of its own.
        steps: if back { steps - 1 } else { steps },
        under_way,
        most,
        voting,
        rate: rate::words(current.engine, engine),
        notes,
        refusal,
    })
}

/// What a group that is on its way to an engine is told: whether this takes it back, or, if not, whether enough nodes were found.
fn on_its_way(to: Engine, back: bool, found: bool) -> String {
    match (back, found) {
        (true, _) => format!("the group is on its way to {to}, which this takes back"),
        (false, true) => format!("the group is on its way to {to} already, and nothing else is begun by asking again"),
        (false, false) => format!(
            "the group is on its way to {to} already, and waits for a node that can take a seat; asking for the engine in \
             force takes it back"
        ),
    }
}

/// What follows for members that go over without a vote, of which `more` others may fail before nothing is decided.
fn without_votes(nodes: &[NodeId], engine: Engine, more: usize) -> String {
    let nodes = nodes.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ");
    let fate = match engine {
        Engine::Bft => "behind the switch one that lost its records comes to vote when the others have gone on",
        Engine::Raft => {
            "behind the switch one that lost its records has none either, until its seat goes to another node"
        }
    };
    format!("without a vote now: {nodes}; {fate}, and until then {more} more may fail")
}

/// The committees from the one in force to the last of a switch.
struct Road {
    /// Who takes seats first, ascending.
    joining: Vec<NodeId>,
    /// Who gives seats up at the end, ascending.
    leaving: Vec<NodeId>,
    /// Committees that come into force, with the one that brings the engine.
    steps: usize,
    /// Whether there are enough to take seats.
    found: bool,
}

fn road(standing: &Standing, current: &Committee, engine: Engine) -> Road {
    let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
    for member in standing.committees.iter().flat_map(|committee| &committee.members) {
        *held.entry(member.node).or_default() += 1;
    }
    let nodes: Vec<NodeInfo> = standing.nodes.iter().filter(|node| standing.sound(node.id)).cloned().collect();
    let wanted = Wanted { seed: &standing.seed, nodes: &nodes, held: &held };
    let seated = current.group.kind() != Some(GroupKind::Channel);
    let (mut last, mut steps) = (current.clone(), 1);
    let found = loop {
        match next(&last, engine, seated.then_some(&wanted)) {
            None => break false,
            Some((_, then)) if then == engine && last.members.len() >= engine.least_members() => break true,
            Some((members, _)) => {
                last.members = members;
                steps += 1;
            }
        }
    };
    let configured = standing.configured.iter().find(|(group, _)| *group == current.group).map(|(_, seats)| *seats);
    last.engine = engine;
    while let Some(members) = seats::give_up(&last, seats::surplus(&last, configured), &wanted) {
        last.members = members;
        steps += 1;
    }
    let only = |one: &Committee, other: &Committee| -> Vec<NodeId> {
        let members = one.members.iter().map(|member| member.node);
        members.filter(|node| other.index_of(*node).is_none()).collect()
    };
    Road { joining: only(&last, current), leaving: only(current, &last), steps, found }
}

/// The organisation with most seats in a committee of these nodes, of which some have seats now; of several, the first.
fn most(standing: &Standing, current: &Committee, members: &[NodeId]) -> Option<(OrgId, usize)> {
    let seated = current.members.iter().filter(|member| members.contains(&member.node)).map(|member| member.org);
    let new = standing.nodes.iter().filter(|node| members.contains(&node.id) && current.index_of(node.id).is_none());
    let mut seats: BTreeMap<OrgId, usize> = BTreeMap::new();
    seated.chain(new.map(|node| node.org)).for_each(|org| *seats.entry(org).or_default() += 1);
    seats.into_iter().max_by_key(|(org, count)| (*count, std::cmp::Reverse(*org)))
}

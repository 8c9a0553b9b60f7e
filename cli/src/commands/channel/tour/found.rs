//! Founding a channel, and deciding in it: who proposes, who approves, and who is missing in between.

use std::collections::BTreeSet;

use beacon::BeaconCommand;
use channel::opening::first_policies;
use channel::{Change, Command, Engine, FoundingAct, Outcome, Policy, ProposalState, Quorum, Role, Subject, Terms};
use ledger::Hash32;

use super::Place;
use super::cast::{Actor, Cast, Step, Teller, nodes_of};
use super::stage::{astray, known, seated};
use crate::commands::channel::charter;
use crate::commands::channel::words::{Standing, state_word};
use crate::commands::signer::ahead;
use crate::error::CliError;

/// How long the others may take to answer, minutes.
pub(super) const ANSWER_MINUTES: u64 = 60;

/// Two organisations found a channel in which everything takes a majority, and whoever is outside does not know that.
pub(super) async fn found(
    cast: &Cast,
    name: &'static str,
    founders: [&Actor; 2],
    teller: &mut Teller,
) -> Result<Place, CliError> {
    let [proposer, invited] = founders;
    let majority = Policy::members(Quorum::Majority, Role::Admin);
    let policies = Subject::ALL.map(|subject| (subject, majority.clone())).to_vec();
    let named = BTreeSet::from([proposer.id, invited.id]);
    let (_, promise) = charter::promise(&proposer.client, proposer.id, policies, &named, &cast.orgs).await?;
    let terms = Terms {
        name: name.to_owned(),
        invited: vec![invited.id],
        engine: Engine::Raft,
        founding: Policy::members(Quorum::All, Role::Admin),
        policies: first_policies(),
    };
    let (hosting, until_ms) = (proposer.hosting(), ahead(ANSWER_MINUTES));
    let fate = proposer.beacon(&BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms }).await?;
    let id = fate.founding.ok_or_else(|| astray("the beacon does not say what became of a founding"))?.id;
    let foundings = proposer.client.foundings().await?;
    let founding = foundings.iter().find(|founding| founding.id == id);
    let founding = founding.ok_or_else(|| astray(format!("the founding of {name} is not kept")))?;
    let standing = Standing::of_founding(founding, &cast.orgs);
    teller.step(Step {
        place: "beacon",
        org: proposer.name.clone(),
        did: format!("proposes {name} to {}", invited.name),
        then: standing.needs,
        missing: standing.missing,
        height: fate.height.0,
    });

    // Who is asked reads it before it says yes; nodes of those who are not have no copy that they could open.
    let kept = invited.client.foundings().await?;
    let asked = kept.iter().find(|founding| founding.id == id);
    let opening = invited.read(asked.ok_or_else(|| astray(format!("{} is not asked about {name}", invited.name)))?)?;
    let act = FoundingAct::Approve(invited.hosting());
    let fate = invited.beacon(&BeaconCommand::ActOnChannel { founding: id, act }).await?;
    let group = fate.founding.and_then(|founding| founding.channel);
    let group = group.ok_or_else(|| astray(format!("all have approved {name}, and it is not founded")))?;
    teller.step(Step {
        place: "beacon",
        org: invited.name.clone(),
        did: format!("approves {name}"),
        then: format!("it is founded: {group}"),
        missing: Vec::new(),
        height: fate.height.0,
    });
    let place = Place { name, group };
    // Everybody's router hears of it, also of those who take no part: they may be refused by it then.
    for actor in cast.actors() {
        known(&actor.client, &place).await?;
    }
    let committee = seated(&proposer.client, &place, &nodes_of(&founders)).await?;
    teller.line(format!("{name} runs on {} nodes, of which {} decide", committee.members.len(), committee.threshold));
    let fate = invited.act(place.group, &Command::Open { opening }).await?;
    teller.step(Step {
        place: name,
        org: invited.name.clone(),
        did: format!("gives {name} what its founders have agreed on"),
        then: "it goes by that, and the beacon has only seen a hash of it".to_owned(),
        missing: Vec::new(),
        height: fate.height.0,
    });
    Ok(place)
}

/// The first of these organisations proposes a change, the others approve it, the last one so that it is in
/// force.
pub(super) async fn decide(
    cast: &Cast,
    place: &Place,
    what: &str,
    change: Change,
    voices: [&Actor; 2],
    teller: &mut Teller,
) -> Result<(), CliError> {
    let [proposer, other] = voices;
    let fate = proposer.act(place.group, &Command::Propose { change, until_ms: ahead(ANSWER_MINUTES) }).await?;
    let Outcome::Proposal { id, state: ProposalState::Open } = fate.outcome else {
        return Err(astray(format!("{} proposed to {what}, and no approval is missing", proposer.name)));
    };
    let standing = standing(cast, place, proposer, &id).await?;
    teller.step(Step {
        place: place.name,
        org: proposer.name.clone(),
        did: format!("proposes to {what}"),
        then: standing.needs,
        missing: standing.missing,
        height: fate.height.0,
    });
    let fate = other.act(place.group, &Command::Approve { proposal: id }).await?;
    let Outcome::Proposal { state, .. } = fate.outcome else {
        return Err(astray(format!("{} approved a proposal, and something else came of it", other.name)));
    };
    if state != ProposalState::Applied {
        return Err(astray(format!("both have approved to {what}, and it is {}", state_word(state))));
    }
    teller.step(Step {
        place: place.name,
        org: other.name.clone(),
        did: format!("approves to {what}"),
        then: "it is in force".to_owned(),
        missing: Vec::new(),
        height: fate.height.0,
    });
    Ok(())
}

/// Where a proposal stands, as its channel tells a member.
async fn standing(cast: &Cast, place: &Place, member: &Actor, id: &Hash32) -> Result<Standing, CliError> {
    let governance = member.client.governance(place.group).await?;
    let proposal = governance.proposals.iter().find(|proposal| proposal.id == *id);
    let proposal = proposal.ok_or_else(|| astray(format!("{} does not keep proposal {id}", place.name)))?;
    Ok(Standing::of_proposal(&governance, proposal, &cast.orgs))
}

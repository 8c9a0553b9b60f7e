//! Founding: a channel is proposed in the beacon, and the organisations that are named say what they
//! think of it. What it is to go by is sealed for them; whoever approves last gives it to the channel.

use std::collections::{BTreeMap, BTreeSet};

use beacon::BeaconCommand;
use channel::opening::first_policies;
use channel::{Elector, Engine, FoundingAct, Opening, Policy, Role, Subject, Terms};
use client::{Client, CommandFate};
use ledger::{Hash32, OrgId};
use serde::Serialize;

use super::look::PolicyLine;
use super::words::Standing;
use super::{charter, names};
use crate::args::{Admin, CreateChannel};
use crate::commands::signer::{Orgs, Signer, Signing, WITHIN_MINUTES, ahead, now, salt};
use crate::error::CliError;
use crate::output::{Output, foreign};

/// What an organisation says about a channel that is being founded.
pub(super) enum Word {
    /// Yes, with these nodes and anchors.
    Approve { nodes: Vec<u32>, anchors: Vec<u32> },
    /// No.
    Reject,
    /// It proposed it, and takes it back.
    Withdraw,
}

/// What became of a founding.
#[derive(Serialize)]
struct Report {
    founding: String,
    name: String,
    state: &'static str,
    /// The channel, once it is founded.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    org: String,
    command: String,
    beacon_height: u64,
    /// Who has approved and who is missing, as long as that is asked.
    #[serde(flatten)]
    standing: Option<Standing>,
    /// What the channel is to go by, where whoever signs has read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<PolicyLine>,
    /// Whether it does, once it is founded.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<bool>,
}

/// `channel create`.
pub(super) async fn create(args: CreateChannel, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(&args.admin)?;
    let orgs = signer.orgs();
    let policies = policies(&args.policy, &args.policy_for, &orgs)?;
    let founding = names::policy(&args.founding, &orgs)?;
    let mut named: BTreeSet<OrgId> = args.members.iter().map(|text| orgs.id(text)).collect::<Result<_, _>>()?;
    let org = signer.org(None)?;
    named.insert(org.id);
    let client = signer.client_of(&org.name).await?;
    let hosting = names::hosting(&client, org.id, &args.own.nodes, &args.anchors).await?;
    let (opening, promise) = charter::promise(&client, org.id, policies, &named, &orgs).await?;
    let engine: Engine = args.consensus.into();
    let own = BTreeSet::from([Elector { org: org.id, role: Role::Admin }]);
    if founding.holds(&named, &own) && hosting.nodes.len() >= engine.least_members() {
        charter::enough(&opening, &BTreeSet::from([org.id]), &orgs)?;
    }
    let invited = named.iter().copied().filter(|other| *other != org.id).collect();
    let terms = Terms { name: args.name.clone(), invited, engine, founding, policies: first_policies() };
    let command = BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms: ahead(args.within) };
    let fate = signer.command(&client, &org, &command, salt()?, WITHIN_MINUTES).await?;
    report(&client, &signer, &org, &args.name, &fate, Some(Agreed { opening, named }), output).await
}

/// One policy for each subject: the one of all, but for those that have one of their own.
fn policies(all: &str, own: &[String], orgs: &Orgs) -> Result<Vec<(Subject, Policy)>, CliError> {
    let all = names::policy(all, orgs)?;
    let mut particular = BTreeMap::new();
    for text in own {
        let Some((word, policy)) = text.split_once('=') else {
            let cause = format!("'{text}' names no subject");
            return Err(CliError::usage("channel_subject", cause, "write it as 'freeze=any(members.admin)'"));
        };
        let subject = names::subject(word.trim())?;
        if particular.insert(subject, names::policy(policy, orgs)?).is_some() {
            let cause = format!("the policy of {} is given twice", subject.word());
            return Err(CliError::usage("channel_subject", cause, "give it once"));
        }
    }
    Ok(Subject::ALL.map(|subject| (subject, particular.remove(&subject).unwrap_or_else(|| all.clone()))).to_vec())
}

/// `channel approve`, `reject` and `withdraw` of a channel that is being founded.
pub(super) async fn act(admin: &Admin, place: &str, word: Word, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(admin)?;
    let (org, orgs) = (signer.org(None)?, signer.orgs());
    let client = signer.client_of(&org.name).await?;
    let foundings = client.foundings().await?;
    let founding = names::founding(&foundings, place, now())?;
    // Nobody approves what it has not read. To whom it is not addressed the beacon says so.
    let opening = match &word {
        Word::Approve { .. } if founding.named().contains(&org.id) => {
            charter::read(&client, founding, org.id, &org.key)?
        }
        Word::Approve { .. } | Word::Reject | Word::Withdraw => None,
    };
    if let Some(opening) = &opening {
        let lines = charter::lines(&opening.policies, &orgs);
        output.remark(format!("{} is to go by\n{}", foreign(&founding.terms.name), charter::text(&lines)));
    }
    let act = match word {
        Word::Approve { nodes, anchors } => {
            let hosting = names::hosting(&client, org.id, &nodes, &anchors).await?;
            if let (Some(opening), Some(founders)) = (&opening, founding.founders_with(org.id, &hosting)) {
                charter::enough(opening, &founders, &orgs)?;
            }
            FoundingAct::Approve(hosting)
        }
        Word::Reject => FoundingAct::Reject,
        Word::Withdraw => FoundingAct::Withdraw,
    };
    let command = BeaconCommand::ActOnChannel { founding: founding.id, act };
    let fate = signer.command(&client, &org, &command, salt()?, WITHIN_MINUTES).await?;
    let agreed = opening.map(|opening| Agreed { opening, named: founding.named() });
    report(&client, &signer, &org, &founding.terms.name, &fate, agreed, output).await
}

/// What founders have agreed on, and who they may be.
struct Agreed {
    opening: Opening,
    named: BTreeSet<OrgId>,
}

async fn report(
    client: &Client,
    signer: &Signer<'_>,
    org: &Signing,
    name: &str,
    fate: &CommandFate,
    agreed: Option<Agreed>,
    output: Output,
) -> Result<(), CliError> {
    let orgs = signer.orgs();
    let founding = fate.founding.ok_or_else(|| {
        let fix = "see 'seamark channel ls', and report this with both versions";
        CliError::new("protocol", "the answer to the command does not say what became of the founding", fix)
    })?;
    let state = match (founding.channel, founding.abandoned) {
        (Some(_), _) => "founded",
        (None, true) => "abandoned",
        (None, false) => "open",
    };
    let standing = if state == "open" { standing(client, &founding.id, org.id, &orgs).await } else { None };
    let policies = agreed.as_ref().map_or(Vec::new(), |agreed| charter::lines(&agreed.opening.policies, &orgs));
    let kept = match (founding.channel, agreed) {
        // Boxed: it waits for a channel to start, while the report stands beside it.
        (Some(channel), Some(Agreed { opening, named })) => {
            Some(Box::pin(charter::keep(signer, org, &named, channel, opening)).await)
        }
        _ => None,
    };
    let report = Report {
        founding: founding.id.to_string(),
        name: name.to_owned(),
        state,
        channel: founding.channel.map(|group| group.to_string()),
        org: org.name.clone(),
        command: fate.digest.to_string(),
        beacon_height: fate.height.0,
        standing,
        policies,
        in_force: kept.as_ref().map(Result::is_ok),
    };
    output.result(&report, || text(&report))?;
    // The channel is founded all the same, and everything in it takes everybody until then.
    kept.unwrap_or(Ok(())).map_err(|error| {
        let fix = format!("put it in force with 'seamark channel open {name}' as soon as the channel runs");
        let error = CliError { fix, ..error.context("the channel is founded, and what was agreed on is not in force") };
        error.after_report()
    })
}

/// Who is missing. The command has been executed whether this can be read or not, so nothing fails here;
/// and what does not know yet what this organisation said is older than the command.
async fn standing(client: &Client, id: &Hash32, org: OrgId, orgs: &Orgs) -> Option<Standing> {
    let read = client.foundings().await.inspect_err(|error| tracing::warn!(%error, "the foundings cannot be read"));
    let foundings = read.ok()?;
    let founding = foundings.iter().find(|founding| founding.id == *id)?;
    let spoken = founding.approvals.iter().any(|(known, _)| *known == org) || founding.rejections.contains(&org);
    spoken.then(|| Standing::of_founding(founding, orgs))
}

fn text(report: &Report) -> String {
    let what = match (&report.channel, report.state) {
        (Some(channel), _) => format!("the channel {} is founded: {channel}", report.name),
        (None, "abandoned") => format!("the channel {} will not be founded", report.name),
        (None, _) => {
            let needs = report.standing.as_ref().map_or("see 'seamark channel ls'", |standing| standing.needs.as_str());
            format!("the channel {} is being founded: {needs}", report.name)
        }
    };
    let mut text =
        format!("{what}\n  founding {}\n  command {}, signed by {}", report.founding, report.command, report.org);
    if report.in_force == Some(true) {
        text.push_str(&format!("\n{}", charter::text(&report.policies)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use channel::Quorum;

    #[test]
    fn each_subject_has_one_policy_and_its_own_comes_first() {
        let orgs = Orgs::named(&["org-a"]);
        let own = ["freeze=any".to_owned(), "close = org-a.admin".to_owned()];
        let found = policies("majority", &own, &orgs).unwrap();
        assert!(found.iter().map(|(subject, _)| *subject).eq(Subject::ALL));
        for (subject, policy) in found {
            let expected = match subject {
                Subject::Freeze => Policy::members(Quorum::Any, Role::Admin),
                Subject::Close => Policy::one(OrgId(1), Role::Admin),
                _ => Policy::members(Quorum::Majority, Role::Admin),
            };
            assert_eq!(policy, expected, "{}", subject.word());
        }
        for (own, code) in [
            (vec!["freeze".to_owned()], "channel_subject"),
            (vec!["frost=any".to_owned()], "channel_subject"),
            (vec!["freeze=any".to_owned(), "freeze=all".to_owned()], "channel_subject"),
            (vec!["freeze=none".to_owned()], "policy_org"),
        ] {
            assert_eq!(policies("majority", &own, &orgs).unwrap_err().code, code, "{own:?}");
        }
    }
}

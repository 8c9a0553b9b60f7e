//! What founders agree on without the beacon: sealed into the founding by whoever proposes it, read before it is approved, and
//! given to the channel as soon as that runs.
//!
//! Owns when each of these happens on the command line. How an opening is sealed is for `client::opening`; which one the
//! channel takes, for the channel itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use channel::{ChannelReject, Command, Founding, Opening, Policy, Promise, Refusal, SignedCommand, Subject};
use client::Client;
use ledger::{GroupId, OrgId, PublicKey, SecretKey};
use serde::Serialize;

use super::govern::Desk;
use super::look::PolicyLine;
use super::names;
use super::words;
use crate::args::{Admin, InChannel};
use crate::commands::signer::{Orgs, Signer, Signing, WITHIN_MINUTES, ahead, now, salt};
use crate::error::CliError;
use crate::output::{Output, foreign, table};
use crate::setup::pki::random;

/// Between two tries to reach a channel that starts.
const POLL: Duration = Duration::from_millis(100);
/// How long a channel may take to start. Its founders' nodes all have to hear of it and to begin together.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// What a channel refuses for good, however often it is asked.
const FINAL: [ChannelReject; 6] = [
    ChannelReject::PromiseNone,
    ChannelReject::PromiseSuperseded,
    ChannelReject::OpeningWrong,
    ChannelReject::PolicyUnsatisfiable,
    ChannelReject::KeyUnknown,
    ChannelReject::CredentialRevoked,
];

/// What a founding comes to go by.
#[derive(Serialize)]
struct Report {
    founding: String,
    name: String,
    state: &'static str,
    /// The hash that was promised; none where the policies are in the founding itself, as earlier builds could have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    promised: Option<String>,
    policies: Vec<PolicyLine>,
}

/// A rule of channels that this side has found broken.
fn broken(refusal: &Refusal) -> CliError {
    let cause = match &refusal.detail {
        Some(detail) => format!("{} ({detail})", refusal.reject.cause()),
        None => refusal.reject.cause().to_owned(),
    };
    CliError::new(refusal.reject.code(), cause, refusal.reject.fix())
}

/// Seals policies for everybody whom a founding of this proposer is to name. The beacon cannot judge them, so they are judged
/// here.
pub(super) async fn promise(
    client: &Client,
    proposer: OrgId,
    policies: Vec<(Subject, Policy)>,
    named: &BTreeSet<OrgId>,
    orgs: &Orgs,
) -> Result<(Opening, Promise), CliError> {
    let salt = random().map_err(|error| CliError::from_message("randomness", error))?;
    let opening = Opening::new(salt, policies);
    opening.check_for(named).map_err(|refusal| broken(&refusal))?;
    let known = client.admins().await?;
    let reader = |org: &OrgId| match known.get(org) {
        Some(key) => Ok((*org, *key)),
        None => {
            Err(names::rule(ChannelReject::OrgUnknown, format!("the registry has no organisation {}", orgs.name(*org))))
        }
    };
    let readers = named.iter().map(reader).collect::<Result<BTreeMap<OrgId, PublicKey>, CliError>>()?;
    let promise = client::opening::seal(&client.cluster_id(), proposer, &opening, &readers)?;
    Ok((opening, promise))
}

/// What a founding promises, as an organisation's admin reads it; `None` where it promises nothing. What the admin is shown is
/// what the id of the founding is of, by the hash in it, and a channel of these founders can come to go by it.
pub(super) fn read(
    client: &Client,
    founding: &Founding,
    org: OrgId,
    key: &SecretKey,
) -> Result<Option<Opening>, CliError> {
    if !founding.id_fits(&client.cluster_id()) {
        let cause = format!(
            "the founding of {} is not what its id is of: the router says something else, or leaves policies out",
            foreign(&founding.terms.name)
        );
        let fix = "ask over a router of an organisation that the founding names, and approve nothing before";
        return Err(CliError::new("protocol", cause, fix));
    }
    let Some(promise) = &founding.promise else { return Ok(None) };
    let named = founding.named();
    if !named.contains(&org) {
        return Err(names::rule(ChannelReject::NotInvited, "what it promises is for whom it names".to_owned()));
    }
    let opening = client::opening::open(&client.cluster_id(), founding.proposer, promise, org, key)?;
    opening.check_for(&named).map_err(|refusal| broken(&refusal))?;
    Ok(Some(opening))
}

/// Refuses an approval that would found a channel whose founders could not satisfy what they agreed on: every change in it
/// would take all of them until others have joined. The beacon cannot see that.
pub(super) fn enough(opening: &Opening, founders: &BTreeSet<OrgId>, orgs: &Orgs) -> Result<(), CliError> {
    opening.check_founders(founders).map_err(|refusal| {
        let names = founders.iter().map(|org| orgs.name(*org)).collect::<Vec<_>>().join(", ");
        let cause = format!("{names} would found the channel with this, and it could not go by what is agreed on");
        let fix = "let the others that the founding names approve first, or found it by a policy that asks for them";
        CliError { fix: fix.into(), ..broken(&refusal).context(cause) }
    })
}

/// Gives a channel that was just founded what was promised, once it runs. Another member may do so at the same time: then it is
/// done. No router of anybody whom the founding does not name carries it.
pub(super) async fn keep(
    signer: &Signer<'_>,
    org: &Signing,
    named: &BTreeSet<OrgId>,
    channel: GroupId,
    opening: Opening,
) -> Result<(), CliError> {
    let client = signer.client_among(&org.name, named).await?;
    let (command, until) = (Command::Open { opening }, ahead(WITHIN_MINUTES));
    let signed =
        SignedCommand::sign(&client.cluster_id(), channel, org.id, &command, salt()?, until, &org.key).encode();
    let since = Instant::now();
    loop {
        let error = match client.channel_command(channel, signed.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => CliError::from(error),
        };
        if error.code == ChannelReject::PromiseKept.code() {
            return Ok(());
        }
        // Whatever else is refused, a channel that starts may take a moment later.
        if FINAL.iter().any(|reject| error.code == reject.code()) || since.elapsed() >= STARTS_WITHIN {
            return Err(error);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The policies of an opening as people read them.
pub(super) fn lines(policies: &[(Subject, Policy)], orgs: &Orgs) -> Vec<PolicyLine> {
    policies.iter().map(|(subject, policy)| PolicyLine::of(*subject, policy, orgs)).collect()
}

/// As a table.
pub(super) fn text(lines: &[PolicyLine]) -> String {
    let rows = lines.iter().map(|line| [line.subject.to_owned(), line.policy.clone()]);
    table(["subject", "who has to approve"], rows)
}

/// `channel charter`.
pub(super) async fn show(admin: &Admin, place: &str, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(admin)?;
    let (org, orgs) = (signer.org(None)?, signer.orgs());
    let client = signer.client_of(&org.name).await?;
    let foundings = client.foundings().await?;
    let founding = names::founding(&foundings, place, now())?;
    let opening = read(&client, founding, org.id, &org.key)?;
    let policies = opening.as_ref().map_or(&founding.terms.policies, |opening| &opening.policies);
    let report = Report {
        founding: founding.id.to_string(),
        name: founding.terms.name.clone(),
        state: words::phase_word(founding.phase_at(now())),
        promised: founding.promise.as_ref().map(|promise| promise.hash.to_string()),
        policies: lines(policies, &orgs),
    };
    output.result(&report, || {
        let told = match &report.promised {
            Some(hash) => {
                format!("the founding promises {hash}, which is the hash of this, and the beacon has not read it")
            }
            None => "the founding states this in the clear".to_owned(),
        };
        format!("{} ({})\n{}\n{told}", foreign(&report.name), report.state, text(&report.policies))
    })
}

/// `channel open`.
pub(super) async fn open(on: &InChannel, output: Output) -> Result<(), CliError> {
    let mut desk = Desk::at(on).await?;
    let foundings = desk.client.foundings().await?;
    let founding = foundings.iter().find(|founding| founding.id == desk.founding()).ok_or_else(|| {
        let cause = "the beacon has forgotten the founding, and with it what it promised";
        CliError::new(
            "founding_unknown",
            cause,
            "propose the policies that are wanted with 'seamark channel policy propose'",
        )
    })?;
    let opening = read(&desk.client, founding, desk.org.id, &desk.org.key)?
        .ok_or_else(|| broken(&ChannelReject::PromiseNone.into()))?;
    desk.only_over(&founding.named()).await?;
    desk.act(&Command::Open { opening }, output).await
}

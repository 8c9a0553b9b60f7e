//! `channel`: founding channels, governing them, and looking at them.
//!
//! Code map: `found` talks to the beacon about channels that do not run yet, `charter` is what founders agree on without it,
//! `govern` talks to a channel that runs, `look` and `explain` read, `receipt` leaves and fetches what proves it; `names` finds what a command line calls
//! things, `words` says it back, `missing` what a command leaves to come. `tour` plays all of it on a cluster of its own.

mod charter;
mod explain;
mod found;
mod govern;
mod look;
mod missing;
pub(super) mod names;
mod receipt;
mod tour;
mod words;

use std::path::Path;

use channel::{AuditGrant, Change, Command, Scope};
use client::Client;
use client::net::certificate_key_hash;
use ledger::{Engine, GroupId, Hash32};

use super::context::{Context, id};
use super::signer::ahead;
use crate::args::{
    Admin, AnchorsChange, Channel, ChannelAudit, ChannelKey, GrantAudit, PolicyChange, Proposed, RevokeAudit,
};
use crate::draft::Names;
use crate::error::CliError;
use crate::output::Output;
use govern::{Desk, plain, propose};

/// The channel that a text names.
pub(super) async fn named(client: &Client, text: &str) -> Result<GroupId, CliError> {
    Ok(names::channel(client, text).await?.group)
}

/// Proposes that another engine orders a channel.
pub(super) async fn propose_engine(
    admin: &Admin,
    channel: &str,
    engine: Engine,
    within: u64,
    output: Output,
) -> Result<(), CliError> {
    Desk::open(admin, channel).await?.propose(Change::Engine { engine }, within, output).await
}

pub(super) async fn run(args: Channel, output: Output) -> Result<(), CliError> {
    match args {
        Channel::Create(args) => Box::pin(found::create(args, output)).await,
        Channel::Charter { admin, place } => charter::show(&admin, &place, output).await,
        Channel::Open(on) => charter::open(&on, output).await,
        Channel::Approve { proposed, own, anchors } => {
            if proposed.proposal.is_some() && !(own.nodes.is_empty() && anchors.is_empty()) {
                let cause = "nodes and anchors come with the approval of a founding, not of a proposal";
                return Err(CliError::usage("channel_nodes", cause, "leave out --nodes and --anchors"));
            }
            let founding = found::Word::Approve { nodes: own.nodes, anchors };
            speak(&proposed, founding, govern::Word::Approve, output).await
        }
        Channel::Reject(proposed) => speak(&proposed, found::Word::Reject, govern::Word::Reject, output).await,
        Channel::Withdraw(proposed) => speak(&proposed, found::Word::Withdraw, govern::Word::Withdraw, output).await,
        Channel::Settle { on, proposal } => {
            govern::speak(&on.admin, &on.channel, &proposal, govern::Word::Settle, output).await
        }
        Channel::Ls { target } => look::ls(&Context::new(&target)?, output).await,
        Channel::Show(on) => look::show(&on, output).await,
        Channel::Status { target, channel } => look::status(&Context::new(&target)?, &channel, output).await,
        Channel::Proposals(on) => look::proposals(&on, output).await,
        Channel::Explain { on, proposal } => explain::explain(&on, &proposal, output).await,
        Channel::Join { on, own } => {
            let desk = Desk::at(&on).await?;
            let nodes = names::own_nodes(&desk.client, desk.org.id, &own.nodes).await?;
            desk.act(&Command::Join { nodes }, output).await
        }
        Channel::Decline(on) => plain(&on, Command::Decline, output).await,
        Channel::Leave { on, out } => Box::pin(receipt::leave(&on, out.as_deref(), output)).await,
        Channel::Receipt { on, excluded, out } => Box::pin(receipt::show(&on, &excluded, out.as_deref(), output)).await,
        Channel::Nodes { on, set } => plain(&on, Command::SetNodes { nodes: names::in_order(&set) }, output).await,
        Channel::FinishClose(on) => plain(&on, Command::FinishClose, output).await,
        Channel::Key(change) => keys(change, output).await,
        // Boxed: it holds a whole cluster.
        Channel::Tour => Box::pin(tour::run(output)).await,
        Channel::Invite { proposing, invited } => {
            let desk = Desk::at(&proposing.on).await?;
            let until_ms = ahead(proposing.within);
            let change = Change::Invite { org: desk.orgs.id(&invited)?, until_ms };
            desk.propose_until(change, until_ms, output).await
        }
        Channel::Remove { proposing, removed } => {
            let desk = Desk::at(&proposing.on).await?;
            let change = Change::Remove { org: desk.orgs.id(&removed)? };
            desk.propose(change, proposing.within, output).await
        }
        Channel::Anchors(args) => {
            // Without nodes there is --none.
            let AnchorsChange::Set { proposing, nodes, none: _ } = args.change();
            let desk = Desk::at(&proposing.on).await?;
            let change = Change::Anchors { org: desk.org.id, nodes: names::in_order(&nodes) };
            desk.propose(change, proposing.within, output).await
        }
        Channel::Policy(args) => {
            let PolicyChange::Propose { proposing, subject, text } = args.change();
            let subject = names::subject(&subject)?;
            let desk = Desk::at(&proposing.on).await?;
            let change = Change::Policy { subject, policy: names::policy(&text, &desk.orgs)? };
            desk.propose(change, proposing.within, output).await
        }
        Channel::Freeze(proposing) => propose(&proposing, Change::Freeze, output).await,
        Channel::Thaw(proposing) => propose(&proposing, Change::Thaw, output).await,
        Channel::Close(proposing) => propose(&proposing, Change::Close, output).await,
        Channel::Permit { proposing, asset } => {
            let desk = Desk::at(&proposing.on).await?;
            let change = Change::PermitAsset { asset: desk.context().asset(&asset)? };
            desk.propose(change, proposing.within, output).await
        }
        Channel::Audit(ChannelAudit::Grant(args)) | Channel::AuditGrant(args) => grant_audit(args, output).await,
        Channel::Audit(ChannelAudit::Revoke(args)) | Channel::AuditRevoke(args) => revoke_audit(args, output).await,
    }
}

/// `channel audit grant`.
async fn grant_audit(args: GrantAudit, output: Output) -> Result<(), CliError> {
    let desk = Desk::at(&args.proposing.on).await?;
    let grant = AuditGrant {
        org: desk.orgs.id(&args.auditor)?,
        credential: args.certificate.as_deref().map(credential).transpose()?,
        scope: scope(desk.context(), &args.accounts, &args.assets)?,
        until_ms: ahead(args.until),
        until_height: None,
    };
    desk.propose(Change::GrantAudit(grant), args.proposing.within, output).await
}

/// `channel audit revoke`.
async fn revoke_audit(args: RevokeAudit, output: Output) -> Result<(), CliError> {
    let grant: Hash32 = id("grant_id", &args.grant)?;
    let desk = Desk::at(&args.proposing.on).await?;
    let change = Change::RevokeAudit { org: desk.orgs.id(&args.auditor)?, grant };
    desk.propose(change, args.proposing.within, output).await
}

/// Approves, rejects or withdraws: a proposal where one is named, else a founding.
async fn speak(proposed: &Proposed, founding: found::Word, word: govern::Word, output: Output) -> Result<(), CliError> {
    match &proposed.proposal {
        Some(proposal) => govern::speak(&proposed.admin, &proposed.place, proposal, word, output).await,
        None => Box::pin(found::act(&proposed.admin, &proposed.place, founding, output)).await,
    }
}

/// `channel key`.
async fn keys(change: ChannelKey, output: Output) -> Result<(), CliError> {
    match change {
        ChannelKey::Add { on, public, role } => {
            let desk = Desk::at(&on).await?;
            let command = Command::AddKey { key: desk.context().key(&public)?, role: govern::role(role) };
            desk.act(&command, output).await
        }
        ChannelKey::Rotate { on, old, new } => {
            let desk = Desk::at(&on).await?;
            let command = Command::RotateKey { old: desk.context().key(&old)?, new: desk.context().key(&new)? };
            desk.act(&command, output).await
        }
        ChannelKey::Revoke { proposing, public, of } => {
            let desk = Desk::at(&proposing.on).await?;
            let key = desk.context().key(&public)?;
            let of = of.as_deref().map(|text| desk.orgs.id(text)).transpose()?;
            match of.filter(|org| *org != desk.org.id) {
                Some(org) => desk.propose(Change::RevokeKey { org, key }, proposing.within, output).await,
                None => desk.act(&Command::RevokeKey { key }, output).await,
            }
        }
        ChannelKey::RevokeCertificate { on, certificate } => {
            let credential = credential(&certificate)?;
            plain(&on, Command::RevokeCertificate { credential }, output).await
        }
    }
}

/// What names a certificate.
fn credential(path: &Path) -> Result<Hash32, CliError> {
    let pem = std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error))?;
    Ok(certificate_key_hash(&pem)?)
}

/// What an auditor may read; the lists of channels have each entry once, in order.
fn scope(context: &Context, accounts: &[String], assets: &[String]) -> Result<Scope, CliError> {
    if !accounts.is_empty() {
        let mut accounts = accounts.iter().map(|text| context.address(text)).collect::<Result<Vec<_>, CliError>>()?;
        accounts.sort_unstable();
        accounts.dedup();
        return Ok(Scope::Accounts(accounts));
    }
    if !assets.is_empty() {
        let mut assets = assets.iter().map(|text| context.asset(text)).collect::<Result<Vec<_>, CliError>>()?;
        assets.sort_unstable();
        assets.dedup();
        return Ok(Scope::Assets(assets));
    }
    Ok(Scope::Everything)
}

//! Commands to the beacon and to channels, as the node that leads the group takes them: judged, sequenced,
//! answered.
//!
//! A command that the state as it stands refuses is not sequenced: what is sequenced costs every replica of
//! the group. Whether one was executed shows in the state itself, which remembers commands by their digest;
//! nothing is kept here, and a command that is sent again has its outcome.

use std::time::Duration;

use beacon::command::SignedCommand;
use beacon::machine::{self, CommandOutcome};
use bytes::Bytes;
use consensus::port::SequencerError;
use consensus::sequencer::Sequencer;
use ledger::ids::{GroupId, GroupKind, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::{ReadFault, View};
use ledger::{Committee, Hash32};
use proto::v1;

use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::governance;
use crate::server::admission::{self, Denial};
use crate::server::group::{GroupHandle, guarded_now};
use crate::server::local::Hosted;
use crate::server::replica::ViewReader;

/// How long an entry may take to be committed and executed.
const EXECUTED_WITHIN: Duration = Duration::from_secs(4);

/// Why a command has no outcome here.
enum Failure {
    Refused(Reject),
    /// By the rules of channels.
    Channel(channel::Refusal),
    /// Whoever sends it may not.
    Denied(Denial),
    NotLeader(u32),
    Fault(ReadFault),
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

impl From<ReadFault> for Failure {
    fn from(fault: ReadFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<SequencerError> for Failure {
    fn from(error: SequencerError) -> Self {
        match error {
            SequencerError::NotLeader(leader) => Self::NotLeader(leader.map_or(0, |node| node.0)),
            SequencerError::Stopped(_) => Self::Refused(Reject::GroupStopped),
            SequencerError::Unknown(_) | SequencerError::Refused(_) => Self::Refused(Reject::TooLate),
        }
    }
}

/// Has a command executed that a router of `org` hands over, or says why not.
pub async fn execute(hosted: &Hosted, org: Option<OrgId>, request: v1::CommandRequest) -> v1::CommandReply {
    let refusal = match try_execute(hosted, org, &request).await {
        Ok(reply) => return reply,
        Err(Failure::Refused(reject)) => v1::Refusal::of(reject),
        Err(Failure::Channel(refusal)) => v1::Refusal::of(Reject::ChannelRefused).detail(refusal.to_string()),
        Err(Failure::Denied(denial)) => denial.refusal(),
        Err(Failure::NotLeader(leader)) => v1::Refusal { leader_node: leader, ..v1::Refusal::of(Reject::NotLeader) },
        Err(Failure::Fault(fault)) => v1::Refusal::of(Reject::Storage).detail(fault.to_string()),
    };
    v1::CommandReply { refusal: Some(refusal), ..v1::CommandReply::default() }
}

/// A command that has been read, and what names it.
enum Order {
    Registry(SignedCommand, Hash32),
    Channel(Box<channel::CheckedCommand>),
}

impl Order {
    fn read(group: &GroupHandle, bytes: &Bytes) -> Result<Self, Failure> {
        if group.group == GroupId::BEACON {
            let signed = SignedCommand::decode(bytes)?;
            let digest = signed.digest(&group.cluster);
            return Ok(Self::Registry(signed, digest));
        }
        let checked = channel::CheckedCommand::check(bytes, &group.cluster, group.group);
        checked.map(|checked| Self::Channel(Box::new(checked))).map_err(|reject| Failure::Channel(reject.into()))
    }

    fn entry(&self, bytes: &Bytes) -> Command {
        match self {
            Self::Registry(..) => Command::Registry(bytes.to_vec()),
            Self::Channel(_) => Command::Channel(bytes.to_vec()),
        }
    }

    /// Runs the command on a view that is thrown away.
    fn judge(&self, group: &GroupHandle, stamp_ms: TimeMs, bytes: &Bytes) -> Result<(), Failure> {
        let (height, before_ms) = {
            let stand = group.share.stand.lock();
            (stand.applied.height, stand.applied.time_ms)
        };
        let time_ms = TimeMs(stamp_ms.0.max(before_ms.0 + 1));
        let at = BlockContext { cluster: group.cluster, group: group.group, height: height.next(), time_ms };
        match self {
            Self::Registry(..) => {
                let judged = read(group, |view| machine::execute_command(view, &at, bytes))?;
                judged.map(drop).map_err(|refused| match refused.channel {
                    Some(refusal) => Failure::Channel(refusal),
                    None => Failure::Refused(refused.reject),
                })
            }
            Self::Channel(_) => {
                let (_, verdict) = read(group, |view| governance::execute(view, &at, bytes))??;
                verdict.map(drop).map_err(Failure::Channel)
            }
        }
    }

    /// The outcome of a command that was executed.
    fn known(&self, group: &GroupHandle) -> Result<Option<v1::CommandReply>, Failure> {
        let reply = match self {
            Self::Registry(signed, digest) => {
                let outcome = read(group, |view| machine::outcome_of(view, signed, digest))?;
                outcome.map(|outcome| reply_of(outcome, digest))
            }
            Self::Channel(checked) => {
                let outcome = read(group, |view| channel::outcome_of(view, checked))?;
                outcome.map(|outcome| v1::CommandReply {
                    digest: Bytes::copy_from_slice(&checked.digest().0),
                    outcome: borsh::to_vec(&outcome).expect("writing to memory does not fail").into(),
                    ..v1::CommandReply::default()
                })
            }
        };
        let height = group.share.stand.lock().applied.height.0;
        Ok(reply.map(|reply| v1::CommandReply { height, ..reply }))
    }
}

fn reply_of(outcome: CommandOutcome, digest: &Hash32) -> v1::CommandReply {
    let reply = v1::CommandReply { digest: Bytes::copy_from_slice(&digest.0), ..v1::CommandReply::default() };
    match outcome {
        CommandOutcome::Applied => reply,
        CommandOutcome::Pending { approvals, needed } => {
            v1::CommandReply { approvals: approvals.into(), needed: needed.into(), ..reply }
        }
        CommandOutcome::Founding { id, phase } => v1::CommandReply {
            founding: Bytes::copy_from_slice(&id.0),
            abandoned: phase == channel::Phase::Abandoned,
            ..reply
        },
        CommandOutcome::Founded { id, group } => {
            v1::CommandReply { founding: Bytes::copy_from_slice(&id.0), channel: group.0, ..reply }
        }
    }
}

async fn try_execute(
    hosted: &Hosted,
    org: Option<OrgId>,
    request: &v1::CommandRequest,
) -> Result<v1::CommandReply, Failure> {
    let group = GroupId(if request.group == 0 { GroupId::BEACON.0 } else { request.group });
    if !matches!(group.kind(), Some(GroupKind::Beacon | GroupKind::Channel)) {
        return Err(Failure::Refused(Reject::UnknownGroup));
    }
    let bytes = &request.command;
    let group = hosted.group(group.0).ok_or(Failure::Refused(Reject::UnknownGroup))?;
    let order = Order::read(&group, bytes)?;
    // Behind this, whoever led before is no ground to refuse anything.
    group.engine.read_barrier().await?;
    if let Order::Channel(checked) = &order {
        let action = checked.command().action();
        admission::judge(&group, org, request.caller.as_ref(), action).map_err(Failure::Denied)?;
    }
    if let Some(reply) = order.known(&group)? {
        return Ok(reply);
    }
    let stamp_ms = now(hosted, &group)?;
    order.judge(&group, stamp_ms, bytes)?;
    let entry = Entry { version: ENTRY_VERSION, stamp_ms, commands: vec![order.entry(bytes)] };
    let executed = async { group.engine.submit(Bytes::from(entry.encode())).await?.await };
    match tokio::time::timeout(EXECUTED_WITHIN, executed).await {
        Ok(index) => index?,
        Err(_) => return Err(Failure::Refused(Reject::TooLate)),
    };
    match order.known(&group)? {
        Some(reply) => Ok(reply),
        None => {
            // Something came in between; the state as it is now says what.
            order.judge(&group, now(hosted, &group)?, bytes)?;
            Err(Failure::Refused(Reject::TooLate))
        }
    }
}

/// The time that an entry is stamped with. Without a guarded clock nobody here leads.
fn now(hosted: &Hosted, group: &GroupHandle) -> Result<TimeMs, Failure> {
    let committee: Option<Committee> = group.share.state.load(&schema::current_committee(group.group))?;
    let members = committee.into_iter().flat_map(|committee| committee.members).map(|member| member.node);
    let members: Vec<_> = members.collect();
    guarded_now(&hosted.context, &members).ok_or(Failure::NotLeader(0))
}

fn read<T>(group: &GroupHandle, work: impl FnOnce(&mut View<'_>) -> T) -> Result<T, ReadFault> {
    let db = group.share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    let reader = ViewReader::of(&*db);
    let mut view = View::new(&reader);
    let result = work(&mut view);
    view.fault().cloned().map_or(Ok(result), Err)
}

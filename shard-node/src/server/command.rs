//! Commands to the beacon and to channels, as the node that leads the group takes them: judged, sequenced,
//! answered.
//!
//! A command that the state as it stands refuses is not sequenced: what is sequenced costs every replica of
//! the group. Whether one was executed shows in the state itself, which remembers commands by their digest;
//! nothing is kept here, and a command that is sent again has its outcome.
//!
//! A channel's command is alone in flight, see [`super::group::Turns`]. One that ends a membership is sequenced while the
//! engine's voters are the committee by which the channel has judged that the rest can decide: from its block on,
//! those who go get nothing, and so count for nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use beacon::command::SignedCommand;
use beacon::machine::{self, CommandOutcome};
use bytes::Bytes;
use channel::{ChannelReject, state};
use consensus::port::SequencerError;
use consensus::sequencer::Sequencer;
use ledger::ids::{GroupId, GroupKind, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::{ReadFault, View};
use ledger::{Committee, Hash32};
use proto::v1;
use tokio::time::Instant;

use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::governance;
use crate::server::admission::{self, Denial, Forwarder};
use crate::server::group::{GroupHandle, guarded_now};
use crate::server::local::Hosted;
use crate::server::replica::ViewReader;

/// How long an entry may take to be committed and executed.
const EXECUTED_WITHIN: Duration = Duration::from_secs(4);
/// How long the engine's voters may take to follow the committee, until a member that goes has to ask again.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);

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

/// Has a command executed that a router hands over, or says why not.
pub async fn execute(hosted: &Hosted, from: Option<Forwarder>, request: v1::CommandRequest) -> v1::CommandReply {
    let refusal = match try_execute(hosted, from, &request).await {
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

    /// The entry that executes it.
    fn entry(&self, stamp_ms: TimeMs, bytes: &Bytes) -> Bytes {
        let command = match self {
            Self::Registry(..) => Command::Registry(bytes.to_vec()),
            Self::Channel(_) => Command::Channel(bytes.to_vec()),
        };
        Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms, commands: vec![command] }.encode())
    }

    /// Runs the command on a view that is thrown away. Says whether it ends somebody's membership in a channel.
    fn judge(&self, group: &GroupHandle, stamp_ms: TimeMs, bytes: &Bytes) -> Result<bool, Failure> {
        let (height, before_ms) = {
            let stand = group.share.stand.lock();
            (stand.applied.height, stand.applied.time_ms)
        };
        let time_ms = TimeMs(stamp_ms.0.max(before_ms.0 + 1));
        let at = BlockContext { cluster: group.cluster, group: group.group, height: height.next(), time_ms };
        match self {
            Self::Registry(..) => {
                let judged = read(group, |view| machine::execute_command(view, &at, bytes))?;
                judged.map(|_| false).map_err(|refused| match refused.channel {
                    Some(refusal) => Failure::Channel(refusal),
                    None => Failure::Refused(refused.reject),
                })
            }
            Self::Channel(_) => {
                let (before, (_, verdict), after) = read(group, |view| {
                    let before = state::members(view).len();
                    let executed = governance::execute(view, &at, bytes)?;
                    // One command changes one membership at most.
                    Ok::<_, Reject>((before, executed, state::members(view).len()))
                })??;
                verdict.map(|_| after < before).map_err(Failure::Channel)
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
        CommandOutcome::Job { .. } => {
            let outcome = borsh::to_vec(&outcome).expect("writing to memory does not fail");
            v1::CommandReply { outcome: outcome.into(), ..reply }
        }
    }
}

async fn try_execute(
    hosted: &Hosted,
    from: Option<Forwarder>,
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
        admission::judge(&group, from, request.caller.as_ref(), action).map_err(Failure::Denied)?;
    }
    if let Some(reply) = order.known(&group)? {
        return Ok(reply);
    }
    match tokio::time::timeout(EXECUTED_WITHIN, sequenced(hosted, &group, &order, bytes)).await {
        Ok(executed) => executed?,
        Err(_) => return Err(Failure::Refused(Reject::TooLate)),
    }
    match order.known(&group)? {
        Some(reply) => Ok(reply),
        None => {
            // Something came in between; the state as it is now says what.
            order.judge(&group, now(hosted, &group)?, bytes)?;
            Err(Failure::Refused(Reject::TooLate))
        }
    }
}

/// Judges a command and puts it into the log; returns when it is executed.
async fn sequenced(hosted: &Hosted, group: &GroupHandle, order: &Order, bytes: &Bytes) -> Result<(), Failure> {
    if let Order::Registry(..) = order {
        let stamp_ms = now(hosted, group)?;
        order.judge(group, stamp_ms, bytes)?;
        group.engine.submit(order.entry(stamp_ms, bytes)).await?.await?;
        return Ok(());
    }
    let (mut role, until) = (group.engine.role(), Instant::now() + FOLLOWED_WITHIN);
    loop {
        role.mark_unchanged();
        if may_go(hosted, group, order, bytes)?.is_some() {
            let turn = group.turns.alone().await;
            // What was in flight is in the state by now, and nothing comes in between any more.
            if let Some(stamp_ms) = may_go(hosted, group, order, bytes)? {
                let proposal = group.engine.submit(order.entry(stamp_ms, bytes)).await?;
                // Whoever waits may give up. The turn is over when the entry has its fate, and not before.
                let executing = group.tasks.spawn(async move {
                    let executed = proposal.await;
                    drop(turn);
                    executed
                });
                let executed = executing.await.map_err(|_| Failure::Refused(Reject::TooLate))?;
                return executed.map(drop).map_err(Failure::from);
            }
        }
        match tokio::time::timeout_at(until, role.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failure::Refused(Reject::GroupStopped)),
            Err(_) => {
                let detail = "the voters are just following the last change of the committee; send it again";
                return Err(Failure::Channel(channel::Refusal::because(ChannelReject::QuorumLostNow, detail)));
            }
        }
    }
}

/// The stamp with which a channel's command may be sequenced now; `None` when it ends a membership and the voters are
/// others than the committee that it is judged by.
fn may_go(hosted: &Hosted, group: &GroupHandle, order: &Order, bytes: &Bytes) -> Result<Option<TimeMs>, Failure> {
    let context = &hosted.context;
    if context.links.excluded_since(&group.share, group.group, context.node).is_some() {
        // It hands over.
        return Err(Failure::NotLeader(0));
    }
    let stamp_ms = now(hosted, group)?;
    let ends_membership = order.judge(group, stamp_ms, bytes)?;
    Ok((!ends_membership || voters_are_seated(group)?).then_some(stamp_ms))
}

/// Whether the engine's voters are the committee in force, as far as it knows them.
fn voters_are_seated(group: &GroupHandle) -> Result<bool, ReadFault> {
    let Some(voters) = group.engine.voters() else { return Ok(false) };
    let committee: Option<Committee> = group.share.state.load(&schema::current_committee(group.group))?;
    let seats: BTreeSet<NodeId> =
        committee.into_iter().flat_map(|committee| committee.members).map(|member| member.node).collect();
    Ok(voters == seats)
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

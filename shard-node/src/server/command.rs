//! Commands to the beacon, as the node that leads it takes them: judged, sequenced, answered.
//!
//! A command that the registry as it stands refuses is not sequenced: what is sequenced costs every
//! replica of the beacon. Whether one was executed shows in the registry itself, which remembers
//! commands by their digest; nothing is kept here, and a command that is sent again has its outcome.

use std::time::Duration;

use beacon::command::SignedCommand;
use beacon::machine::{self, CommandOutcome};
use bytes::Bytes;
use consensus::port::SequencerError;
use consensus::sequencer::Sequencer;
use ledger::ids::{GroupId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::{ReadFault, View};
use ledger::{Committee, Hash32};
use proto::v1;

use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::server::group::{GroupHandle, guarded_now};
use crate::server::local::Hosted;
use crate::server::replica::ViewReader;

/// How long an entry may take to be committed and executed.
const EXECUTED_WITHIN: Duration = Duration::from_secs(4);

/// Why a command has no outcome here.
enum Failure {
    Refused(Reject),
    NotLeader(u32),
    Fault(ReadFault),
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

/// Has a command executed, or says why not.
pub async fn execute(hosted: &Hosted, request: v1::CommandRequest) -> v1::CommandReply {
    let refusal = match try_execute(hosted, &request.command).await {
        Ok(reply) => return reply,
        Err(Failure::Refused(reject)) => v1::Refusal::of(reject),
        Err(Failure::NotLeader(leader)) => v1::Refusal { leader_node: leader, ..v1::Refusal::of(Reject::NotLeader) },
        Err(Failure::Fault(fault)) => v1::Refusal::of(Reject::Storage).detail(fault.to_string()),
    };
    v1::CommandReply { refusal: Some(refusal), ..v1::CommandReply::default() }
}

async fn try_execute(hosted: &Hosted, bytes: &Bytes) -> Result<v1::CommandReply, Failure> {
    let signed = SignedCommand::decode(bytes).map_err(Failure::Refused)?;
    let beacon = hosted.group(GroupId::BEACON.0).ok_or(Failure::Refused(Reject::UnknownGroup))?;
    let digest = signed.digest(&beacon.cluster);
    // Behind this, whoever led before is no ground to refuse anything.
    beacon.raft.read_barrier().await?;
    if let Some(reply) = known(&beacon, &signed, &digest)? {
        return Ok(reply);
    }
    let stamp_ms = now(hosted, &beacon)?;
    judge(&beacon, stamp_ms, bytes)?;
    let entry = Entry { version: ENTRY_VERSION, stamp_ms, commands: vec![Command::Registry(bytes.to_vec())] };
    let executed = async { beacon.raft.submit(Bytes::from(entry.encode())).await?.await };
    match tokio::time::timeout(EXECUTED_WITHIN, executed).await {
        Ok(index) => index?,
        Err(_) => return Err(Failure::Refused(Reject::TooLate)),
    };
    match known(&beacon, &signed, &digest)? {
        Some(reply) => Ok(reply),
        None => {
            // Something came in between; the registry as it is now says what.
            judge(&beacon, now(hosted, &beacon)?, bytes)?;
            Err(Failure::Refused(Reject::TooLate))
        }
    }
}

/// The time that an entry is stamped with. Without a guarded clock nobody here leads.
fn now(hosted: &Hosted, beacon: &GroupHandle) -> Result<TimeMs, Failure> {
    let committee: Option<Committee> = beacon.share.state.load(&schema::current_committee(GroupId::BEACON))?;
    let members = committee.into_iter().flat_map(|committee| committee.members).map(|member| member.node);
    let members: Vec<_> = members.collect();
    guarded_now(&hosted.context, &members).ok_or(Failure::NotLeader(0))
}

/// Runs the command on a view that is thrown away.
fn judge(beacon: &GroupHandle, stamp_ms: TimeMs, bytes: &[u8]) -> Result<(), Failure> {
    let (height, before_ms) = {
        let stand = beacon.share.stand.lock();
        (stand.applied.height, stand.applied.time_ms)
    };
    let time_ms = TimeMs(stamp_ms.0.max(before_ms.0 + 1));
    let at = BlockContext { cluster: beacon.cluster, group: GroupId::BEACON, height: height.next(), time_ms };
    read(beacon, |view| machine::execute_command(view, &at, bytes))?.map(|_| ()).map_err(Failure::Refused)
}

/// The outcome of a command that was executed.
fn known(beacon: &GroupHandle, signed: &SignedCommand, digest: &Hash32) -> Result<Option<v1::CommandReply>, Failure> {
    let outcome = read(beacon, |view| machine::outcome_of(view, signed, digest))?;
    let height = beacon.share.stand.lock().applied.height.0;
    let digest = Bytes::copy_from_slice(&digest.0);
    Ok(outcome.map(|outcome| match outcome {
        CommandOutcome::Applied => v1::CommandReply { digest, height, ..v1::CommandReply::default() },
        CommandOutcome::Pending { approvals, needed } => v1::CommandReply {
            digest,
            height,
            approvals: approvals.into(),
            needed: needed.into(),
            ..v1::CommandReply::default()
        },
    }))
}

fn read<T>(beacon: &GroupHandle, work: impl FnOnce(&mut View<'_>) -> T) -> Result<T, ReadFault> {
    let db = beacon.share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    let reader = ViewReader::of(&*db);
    let mut view = View::new(&reader);
    let result = work(&mut view);
    view.fault().cloned().map_or(Ok(result), Err)
}

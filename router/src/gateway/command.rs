//! Commands to the beacon and to channels: handed to whoever leads it, and again to the next one, until one answers.
//!
//! The group remembers a command by its digest, so the same bytes may arrive any number of times.

use std::time::{Duration, Instant};

use ledger::{GroupId, GroupKind, NodeId, Reject};
use proto::v1;

use super::desk::Desk;
use super::query::passing;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Has a command executed, or says why not.
pub(super) async fn execute(desk: &Desk, request: v1::CommandRequest) -> v1::CommandReply {
    let group = if request.group == 0 { GroupId::BEACON } else { GroupId(request.group) };
    if !matches!(group.kind(), Some(GroupKind::Beacon | GroupKind::Channel)) {
        return refused(v1::Refusal::of(Reject::UnknownGroup).detail("commands go to the beacon and to channels"));
    }
    let until = Instant::now() + desk.limits.command_within;
    let (mut backoff, mut hint, mut turn) = (BACKOFF_FIRST, None, 0usize);
    loop {
        let members = desk.view().members(group);
        if members.is_empty() {
            return refused(v1::Refusal::of(Reject::UnknownGroup).detail(format!("the router knows no {group}")));
        }
        let node = hint.take().filter(|hint| members.contains(hint)).unwrap_or_else(|| {
            turn += 1;
            members[(turn - 1) % members.len()]
        });
        let last = match desk.backend.command(node, request.clone()).await {
            Ok(reply) => match elsewhere(&reply, node) {
                None => return reply,
                Some(leader) => {
                    hint = leader;
                    reply
                }
            },
            Err(status) if passing(&status) => {
                // It may have been sequenced; that shows when it is sent again.
                let detail = format!("node {node} did not answer: {}", status.message());
                refused(v1::Refusal::of(Reject::TooLate).detail(detail))
            }
            Err(status) => {
                let detail = format!("node {node}: {}", status.message());
                return refused(v1::Refusal::of(Reject::AccessDenied).detail(detail));
            }
        };
        let pause = if hint.is_some() {
            Duration::from_millis(1)
        } else if turn.is_multiple_of(members.len()) {
            let pause = backoff;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            pause
        } else {
            Duration::ZERO
        };
        if Instant::now() + pause >= until {
            return last;
        }
        tokio::time::sleep(pause).await;
    }
}

fn refused(refusal: v1::Refusal) -> v1::CommandReply {
    v1::CommandReply { refusal: Some(refusal), ..v1::CommandReply::default() }
}

/// Whether another node may take the command, and which one was named.
fn elsewhere(reply: &v1::CommandReply, asked: NodeId) -> Option<Option<NodeId>> {
    let refusal = reply.refusal.as_ref()?;
    let elsewhere = matches!(
        refusal.reject()?,
        Reject::NotLeader | Reject::GroupStopped | Reject::UnknownGroup | Reject::TooLate | Reject::Storage
    );
    let hint = Some(NodeId(refusal.leader_node)).filter(|node| node.0 != 0 && *node != asked);
    elsewhere.then_some(hint)
}

//! Commands to the beacon and to channels: handed to whoever leads the group.
//!
//! The group remembers a command by its digest, so the same bytes may arrive any number of times.

use ledger::{GroupId, GroupKind, NodeId, Reject};
use proto::v1;

use super::ask::{Said, in_turn, passing, said};
use super::desk::Desk;

/// Refusals after which another member may take the command.
const ELSEWHERE: [Reject; 5] =
    [Reject::NotLeader, Reject::GroupStopped, Reject::UnknownGroup, Reject::TooLate, Reject::Storage];

/// Has a command executed, or says why not.
pub(super) async fn execute(desk: &Desk, request: v1::CommandRequest) -> v1::CommandReply {
    let group = if request.group == 0 { GroupId::BEACON } else { GroupId(request.group) };
    if !matches!(group.kind(), Some(GroupKind::Beacon | GroupKind::Channel)) {
        return refused(v1::Refusal::of(Reject::UnknownGroup).detail("commands go to the beacon and to channels"));
    }
    let ask = |node| hand_over(desk, node, request.clone());
    let answer = in_turn(desk, group, desk.limits.command_within, ask).await;
    answer.unwrap_or_else(|| {
        refused(v1::Refusal::of(Reject::UnknownGroup).detail(format!("the router knows no {group}")))
    })
}

async fn hand_over(desk: &Desk, node: NodeId, request: v1::CommandRequest) -> Said<v1::CommandReply> {
    match desk.backend.command(node, request).await {
        Ok(reply) => {
            let refusal = reply.refusal.clone();
            said(reply, refusal.as_ref(), node, &ELSEWHERE)
        }
        Err(status) if passing(&status) => {
            // It may have been sequenced; that shows when it is sent again.
            let detail = format!("node {node} did not answer: {}", status.message());
            Said::Silent(refused(v1::Refusal::of(Reject::TooLate).detail(detail)))
        }
        Err(status) => {
            let detail = format!("node {node}: {}", status.message());
            Said::Final(refused(v1::Refusal::of(Reject::AccessDenied).detail(detail)))
        }
    }
}

fn refused(refusal: v1::Refusal) -> v1::CommandReply {
    v1::CommandReply { refusal: Some(refusal), ..v1::CommandReply::default() }
}

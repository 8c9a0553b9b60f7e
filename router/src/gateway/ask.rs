//! Asking the members of a group in turn until one of them answers for it: the one loop behind reads and
//! commands.
//!
//! Owns whom to ask next and for how long, and says of a group that nobody answers for whether enough of its nodes do at
//! all. What an answer means, its caller says.

use std::collections::BTreeMap;
use std::time::Duration;

use beacon::limits::CHANNELS_EVER_MAX;
use ledger::{GroupId, GroupKind, NodeId, Reject};
use proto::v1;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::desk::Desk;
use super::view::ClusterView;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Before a node that another one named is asked. Two that name each other must not keep the router busy.
const HINT_PAUSE: Duration = Duration::from_millis(1);

/// What one member said.
pub(super) enum Said<T> {
    /// Nobody else would say otherwise.
    Final(T),
    /// Somebody else may, perhaps the one that was named. It is the answer when nobody does.
    Elsewhere(T, Option<NodeId>),
    /// The node does not answer. What is said in its place is the answer when nobody else says anything later.
    Silent(T),
}

/// An answer that may be a refusal.
pub(super) trait Answer {
    /// The refusal, if it is one.
    fn refusal_mut(&mut self) -> Option<&mut v1::Refusal>;
}

impl Answer for v1::QueryReply {
    fn refusal_mut(&mut self) -> Option<&mut v1::Refusal> {
        self.refusal.as_mut()
    }
}

impl Answer for v1::CommandReply {
    fn refusal_mut(&mut self) -> Option<&mut v1::Refusal> {
        self.refusal.as_mut()
    }
}

/// Which members of a group have answered when they were last asked.
#[derive(Default)]
struct Heard(BTreeMap<NodeId, bool>);

impl Heard {
    /// What is known of a group's quorum when too few of its nodes answer. Nothing before each has been asked.
    fn lacks(&self, view: &ClusterView, group: GroupId) -> Option<String> {
        let committee = view.committees.get(&group)?;
        let heard = committee.members.iter().map(|member| self.0.get(&member.node).copied());
        let heard = heard.collect::<Option<Vec<bool>>>()?;
        let (all, needed) = (heard.len(), committee.engine.threshold(heard.len()));
        let answering = heard.into_iter().filter(|answers| *answers).count();
        (answering < needed)
            .then(|| format!("no quorum: {answering} of the {all} nodes of {group} answer, and {needed} have to"))
    }

    /// Adds that to a refusal.
    fn told<T: Answer>(&self, mut answer: T, view: &ClusterView, group: GroupId) -> T {
        if let (Some(lack), Some(refusal)) = (self.lacks(view, group), answer.refusal_mut()) {
            refusal.detail = match refusal.detail.is_empty() {
                true => lack,
                false => format!("{}; {lack}", refusal.detail),
            };
        }
        answer
    }
}

/// Asks the members of a group, its probable leader first and then whom they name, until one answers for it or
/// the time is over, or the group has ended. `None` of a group that the router does not know.
pub(super) async fn in_turn<T, Asked>(
    desk: &Desk,
    group: GroupId,
    within: Duration,
    ask: impl Fn(NodeId) -> Asked,
) -> Option<T>
where
    T: Answer,
    Asked: Future<Output = Said<T>>,
{
    let until = Instant::now() + within;
    let awaited = {
        let view = desk.view();
        !view.committees.contains_key(&group) && view.layout.prefix_of(group).is_some()
    };
    if may_come(group) || awaited {
        desk.hear_of(&[group], within).await;
    }
    let (mut backoff, mut hint, mut turn, mut heard) = (BACKOFF_FIRST, None, 0usize, Heard::default());
    loop {
        let members = desk.view().members(group);
        if members.is_empty() {
            return None;
        }
        let node = hint.take().filter(|hint| members.contains(hint)).unwrap_or_else(|| {
            turn += 1;
            members[(turn - 1) % members.len()]
        });
        let (last, answers) = match ask(node).await {
            Said::Final(answer) => return Some(answer),
            Said::Elsewhere(answer, named) => {
                hint = named;
                (answer, true)
            }
            Said::Silent(answer) => (answer, false),
        };
        heard.0.insert(node, answers);
        // Nobody answers for a shard that has ended, and whoever asks finds out who does now.
        if desk.view().layout.retired(group) {
            return Some(last);
        }
        // A pause when nobody is left who could know better right away.
        let pause = if hint.is_some() {
            HINT_PAUSE
        } else if turn.is_multiple_of(members.len()) {
            let pause = backoff;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            pause
        } else {
            Duration::ZERO
        };
        if Instant::now() + pause >= until {
            return Some(heard.told(last, &desk.view(), group));
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether a group that the router has not heard of may just have been founded.
pub(super) fn may_come(group: GroupId) -> bool {
    group.kind() == Some(GroupKind::Channel) && (group.ordinal() as usize) < CHANNELS_EVER_MAX
}

/// What a refusal of `asked` comes to: whether it is about that node alone, for the reasons in `elsewhere`.
pub(super) fn said<T>(answer: T, refusal: Option<&v1::Refusal>, asked: NodeId, elsewhere: &[Reject]) -> Said<T> {
    let Some(refusal) = refusal else { return Said::Final(answer) };
    match refusal.reject() {
        Some(reject) if elsewhere.contains(&reject) => {
            let named = Some(NodeId(refusal.leader_node)).filter(|node| node.0 != 0 && *node != asked);
            Said::Elsewhere(answer, named)
        }
        _ => Said::Final(answer),
    }
}

/// Whether another node may take a call that this one did not.
pub(super) fn passing(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented
    )
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;

//! What a Byzantine engine has caught a member at: two ballots of its that exclude each other.
//!
//! Takes it from the engine, tells the operator, and gives it to the driver, which brings it into the state and to
//! the beacon. The engine keeps it, over restarts, until the group's task says that the state has it. From then on the
//! alarm follows from the state, on every replica and after every start, and ends when the member has no seat in the group
//! any more. Judges nothing: the engine has checked both signatures, and whoever else is shown the proof checks them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::ballot::Equivocation;
use ledger::hash::Hash32;
use ledger::ids::NodeId;
use tokio::sync::{mpsc, watch};

use super::HostContext;
use crate::core::driver::Input;
use crate::server::alarms::{Alarms, Cause};

/// Between two times that the driver is given the same: it drops a proof while it has too many, or has not yet seen the
/// block that brought the committee.
const AGAIN: Duration = Duration::from_secs(10);

/// Takes what the engine has found, before and from now on, until the group ends.
pub(super) fn follow(
    context: &HostContext,
    alarms: &Arc<Alarms>,
    inputs: mpsc::WeakSender<Input>,
    open: watch::Receiver<BTreeMap<Hash32, Equivocation>>,
) {
    let (alarms, stop) = (Arc::clone(alarms), context.stop.clone());
    context.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = pass_on(alarms, inputs, open) => {}
        }
    });
}

async fn pass_on(
    alarms: Arc<Alarms>,
    inputs: mpsc::WeakSender<Input>,
    mut open: watch::Receiver<BTreeMap<Hash32, Equivocation>>,
) {
    let mut told = BTreeSet::new();
    loop {
        let now = open.borrow_and_update().clone();
        told.retain(|id| now.contains_key(id));
        for (id, proof) in now {
            if !told.insert(id) {
                continue;
            }
            raise(&alarms, &proof);
            let Some(inputs) = inputs.upgrade() else { return };
            if inputs.send(Input::Evidence(Box::new(proof))).await.is_err() {
                return;
            }
        }
        match tokio::time::timeout(AGAIN, open.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => told.clear(),
        }
    }
}

/// Raises the alarm about the member that a proof is about.
fn raise(alarms: &Alarms, proof: &Equivocation) {
    alarms.last(Cause::Equivocation(proof.node()), text(proof));
}

/// Tells of the proofs that the state has against those who have a seat, and no more of those who have none.
pub(super) fn in_state(alarms: &Alarms, proofs: &[Equivocation], members: &[NodeId]) {
    proofs.iter().filter(|proof| members.contains(&proof.node())).for_each(|proof| raise(alarms, proof));
    alarms.retain(|cause| match cause {
        Cause::Equivocation(node) => members.contains(&node),
        Cause::Stopped | Cause::Snapshot | Cause::Driver(_) => true,
    });
}

fn text(proof: &Equivocation) -> String {
    let ballot = &proof.first.ballot;
    format!(
        "equivocation: node {} has signed two {}s of entry {} of {} in round {} that exclude each other (evidence {}): \
         it lies, or another process runs with its signing key; 'seamark evidence ls' shows the proof, and how far the \
         beacon is with giving the node's seats to others",
        ballot.node,
        ballot.kind.name(),
        ballot.index,
        ballot.group,
        ballot.round,
        proof.id(),
    )
}

#[cfg(test)]
mod tests {
    use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
    use ledger::crypto::SecretKey;
    use ledger::ids::{ClusterId, GroupId, Incarnation};

    use super::*;

    fn twice(round: u32) -> Equivocation {
        let key = SecretKey::derive(b"node", &3u32.to_be_bytes());
        let vote = |value: u8| {
            let ballot = Ballot {
                version: BALLOT_VERSION,
                cluster: ClusterId(Hash32([1; 32])),
                group: GroupId::shard(0),
                incarnation: Incarnation(0),
                committee: Hash32([2; 32]),
                index: 9,
                round,
                kind: BallotKind::Prevote,
                value: Some(Hash32([value; 32])),
                node: NodeId(3),
            };
            ballot.sign(&key)
        };
        Equivocation::of(vote(1), vote(2)).expect("they exclude each other")
    }

    #[tokio::test]
    async fn what_was_found_before_anybody_listened_is_told_too_and_each_once() {
        let (first, second) = (twice(0), twice(1));
        let alarms = Arc::new(Alarms::new(GroupId::shard(0)));
        let open = watch::Sender::new(BTreeMap::from([(first.id(), first)]));
        let (inputs, mut told) = mpsc::channel(8);
        let passing = tokio::spawn(pass_on(Arc::clone(&alarms), inputs.downgrade(), open.subscribe()));
        for proof in [first, second] {
            match told.recv().await {
                Some(Input::Evidence(found)) => assert_eq!(*found, proof),
                _ => panic!("a proof is told"),
            }
            assert_eq!(alarms.current(), [text(&first)], "one alarm for a member");
            open.send_modify(|open| {
                open.insert(second.id(), second);
            });
        }
        drop(open);
        passing.await.expect("it ends with the engine");
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn what_the_state_has_is_told_until_the_member_has_no_seat() {
        let alarms = Alarms::new(GroupId::shard(0));
        let (kept, seated, gone) = ([twice(0), twice(1)], [1, 3].map(NodeId), [1, 2].map(NodeId));
        in_state(&alarms, &kept, &gone);
        assert!(alarms.current().is_empty(), "it had no seat when the replica started");
        in_state(&alarms, &kept, &seated);
        assert_eq!(alarms.current(), [text(&kept[0])], "one alarm for a member");
        alarms.last(Cause::Snapshot, "another one".to_owned());
        in_state(&alarms, &[], &seated);
        assert_eq!(alarms.current().len(), 2);
        in_state(&alarms, &[], &gone);
        assert_eq!(alarms.current(), ["another one"]);
    }

    #[test]
    fn the_alarm_says_who_and_what_to_do() {
        let proof = twice(2);
        let text = text(&proof);
        let id = proof.id().to_string();
        for part in ["node 3", "two prevotes of entry 9 of shard-0 in round 2", id.as_str(), "'seamark evidence ls'"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

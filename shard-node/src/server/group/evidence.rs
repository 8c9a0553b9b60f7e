//! What a Byzantine engine has caught a member at: two ballots of its that exclude each other.
//!
//! Takes it from the engine, tells the operator, and gives it to the driver, which brings it into the state and to
//! the beacon. Judges nothing: the engine has checked both signatures, and whoever else is shown the proof checks
//! them again.

use std::sync::Arc;

use ledger::ballot::Equivocation;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::HostContext;
use crate::core::driver::Input;
use crate::server::alarms::{Alarms, Cause};

/// Takes what the engine finds until the group ends.
pub(super) fn follow(
    context: &HostContext,
    alarms: &Arc<Alarms>,
    inputs: mpsc::WeakSender<Input>,
    mut caught: broadcast::Receiver<Equivocation>,
) {
    let (alarms, stop) = (Arc::clone(alarms), context.stop.clone());
    context.tasks.spawn(async move {
        loop {
            let proof = tokio::select! {
                () = stop.cancelled() => return,
                proof = caught.recv() => match proof {
                    Ok(proof) => proof,
                    // Too many at once: a few of one member say as much as all.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
            };
            alarms.last(Cause::Equivocation(proof.node()), text(&proof));
            let Some(inputs) = inputs.upgrade() else { return };
            // It is not lost where the task is busy: whoever lied may not do so again.
            if inputs.send(Input::Evidence(Box::new(proof))).await.is_err() {
                return;
            }
        }
    });
}

fn text(proof: &Equivocation) -> String {
    let ballot = &proof.first.ballot;
    format!(
        "equivocation: node {} has signed two {}s of entry {} of {} in round {} that exclude each other (evidence {}): \
         it lies, or another process runs with its signing key; look at it with 'seamark evidence ls', and drain the node",
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
    use ledger::hash::Hash32;
    use ledger::ids::{ClusterId, GroupId, Incarnation, NodeId};

    use super::*;

    #[test]
    fn the_alarm_says_who_and_what_to_do() {
        let key = SecretKey::derive(b"node", &3u32.to_be_bytes());
        let vote = |value: u8| {
            let ballot = Ballot {
                version: BALLOT_VERSION,
                cluster: ClusterId(Hash32([1; 32])),
                group: GroupId::shard(0),
                incarnation: Incarnation(0),
                committee: Hash32([2; 32]),
                index: 9,
                round: 2,
                kind: BallotKind::Prevote,
                value: Some(Hash32([value; 32])),
                node: NodeId(3),
            };
            ballot.sign(&key)
        };
        let proof = Equivocation::of(vote(1), vote(2)).expect("they exclude each other");
        let text = text(&proof);
        let id = proof.id().to_string();
        for part in ["node 3", "two prevotes of entry 9 of shard-0 in round 2", id.as_str(), "drain the node"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

//! Meeting: a borrower has several members of a Byzantine group make a snapshot behind one and the same entry, so that each of
//! them can say what is in it that no root of a header covers.
//!
//! The entry is the one that the group stands at, or a few behind it where members have gone on before they were asked: a
//! Byzantine group decides entries all the time, also when it is idle, and one that has come to a stand has all its members at
//! its last one. What the members tell is one hash of all of it ([`crate::port::Packer::uncovered`]), and the borrower
//! counts the same of what it was lent. Who is believed is [`super::vouch`]'s. Never does: take a lender's word, or that of
//! any one member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::hash::Hash32;
use ledger::ids::NodeId;
use tokio::time::Instant;

use super::fetch::Asked;
use super::network::{Peer, Sender};
use super::vouch::{self, Doubt};
use super::wire::{self, Meet, Met};
use crate::port::{Candidate, any_replica};

/// How far behind the entry that the group stands at the meeting is: the next one is tried where members have passed the one
/// before. The last one is that of a group that stands still, where one that lies says that it has passed the first: nobody gets
/// to any other there, as the group may wait for the borrower.
const AHEAD: [u64; 4] = [0, 4, 32, 0];
/// From this one of [`AHEAD`] on whoever comes is enough that has an honest one among them.
const FEW: usize = 2;
/// Between two questions to the same nodes.
const PAUSE: Duration = Duration::from_millis(100);
/// So long a group takes to get to an entry that is [`AHEAD`], and then some.
const PATIENCE: Duration = Duration::from_secs(60);
/// A group that has gone no further in so long stands still: it may wait for the borrower, which need not wait for it.
const STILL: Duration = Duration::from_secs(20);
/// When enough have made their snapshots, the others have so long.
const LATECOMERS: Duration = Duration::from_secs(2);

/// An entry, and the nodes that have made a snapshot behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meeting {
    pub(crate) index: u64,
    pub(crate) nodes: Vec<NodeId>,
}

async fn ask(sender: &Arc<Sender>, nodes: &[NodeId], index: u64) -> Vec<(NodeId, Met)> {
    let asking = nodes.iter().map(|node| async move {
        let peer = Peer::to(sender.clone(), any_replica(*node), *node);
        let met = peer.call::<Met>(wire::SNAPSHOT_MEET, peer.request(&Meet { index }), peer.call_timeout()).await;
        Some((*node, met.ok()?))
    });
    join_all(asking).await.into_iter().flatten().collect()
}

/// Whether the nodes that come to an entry are enough, where so many may lie. Unless a `few` do, all that do not lie have to
/// come, since another entry can be tried: some of those that do may not tell of it in the end.
fn enough(answers: &[(NodeId, Met)], index: u64, tolerated: usize, few: bool) -> bool {
    let come = answers.iter().filter(|(_, met)| comes(*met)).count();
    // Whoever says that it has passed an entry that it is not behind has not understood, or lies.
    let passed = answers.iter().any(|(_, met)| matches!(met, Met::Passed(at) if *at > index));
    come > tolerated && (few || !passed || come > tolerated.saturating_mul(2))
}

fn comes(met: Met) -> bool {
    match met {
        Met::Waits | Met::Counting | Met::Counted(_) => true,
        Met::Passed(_) | Met::Failed => false,
    }
}

fn is_there(met: Met) -> bool {
    matches!(met, Met::Counting | Met::Counted(_))
}

/// Finds an entry that more of these nodes make a snapshot behind than may lie, and waits until they have. None where they do
/// not: under Raft, whose members nobody has to doubt, no node does.
pub(crate) async fn meet(sender: &Arc<Sender>, asked: Asked<'_>) -> Option<Meeting> {
    for (attempt, ahead) in AHEAD.into_iter().enumerate() {
        let tip = vouch::tip(sender, asked.nodes, asked.tolerated).await;
        let index = tip.checked_add(ahead).filter(|index| *index > 0)?;
        let answers = ask(sender, asked.nodes, index).await;
        if answers.is_empty() {
            return None;
        }
        if enough(&answers, index, asked.tolerated, attempt >= FEW) {
            let come: Vec<NodeId> = answers.iter().filter(|(_, met)| comes(*met)).map(|(node, _)| *node).collect();
            let nodes = gathered(sender, come, index, asked.tolerated).await;
            if nodes.len() > asked.tolerated {
                return Some(Meeting { index, nodes });
            }
        }
    }
    None
}

/// Waits until these nodes have made their snapshots, and no longer than for enough of them and a little, nor while the group
/// stands still before the entry; who has.
async fn gathered(sender: &Arc<Sender>, mut come: Vec<NodeId>, index: u64, tolerated: usize) -> Vec<NodeId> {
    let mut until = Instant::now() + PATIENCE;
    let (mut tip, mut still_at) = (0, Instant::now() + STILL);
    let mut there: Vec<NodeId> = Vec::new();
    loop {
        let answers = ask(sender, &come, index).await;
        for (node, met) in answers {
            if is_there(met) {
                there.push(node);
            }
            if !matches!(met, Met::Waits) {
                come.retain(|other| *other != node);
            }
        }
        let now = Instant::now();
        if there.len() > tolerated {
            until = until.min(now + LATECOMERS);
        }
        if come.is_empty() || now >= until {
            return there;
        }
        if there.len() <= tolerated {
            let reached = vouch::tip(sender, &come, tolerated).await;
            if reached > tip {
                (tip, still_at) = (reached, now + STILL);
            } else if now >= still_at {
                return there;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks those at a meeting, but for the lender, what is in their snapshots that no header covers, and judges what is in the
/// lender's by it. Waits until so many have counted as it takes, and no longer than `patience`.
pub(crate) async fn attested(
    sender: &Arc<Sender>,
    meeting: Option<&Meeting>,
    candidate: &Candidate,
    lender: NodeId,
    patience: Duration,
) -> Result<(), Doubt> {
    let mut said: BTreeMap<NodeId, Hash32> = BTreeMap::new();
    let mut judged = vouch::attest(candidate, lender, &said);
    let at = candidate.applied.position.map(|position| position.index);
    let Some(meeting) = meeting.filter(|meeting| Some(meeting.index) == at) else { return judged };
    let mut asked: Vec<NodeId> = meeting.nodes.iter().copied().filter(|node| *node != lender).collect();
    let until = Instant::now() + patience;
    // Too few have said anything yet.
    while judged.is_err_and(|doubt| !doubt.lie()) && !asked.is_empty() {
        for (node, met) in ask(sender, &asked, meeting.index).await {
            match met {
                Met::Counted(hash) => {
                    said.insert(node, hash);
                }
                Met::Waits | Met::Counting => continue,
                Met::Passed(_) | Met::Failed => {}
            }
            asked.retain(|other| *other != node);
        }
        judged = vouch::attest(candidate, lender, &said);
        if Instant::now() >= until {
            break;
        }
        if judged.is_err_and(|doubt| !doubt.lie()) && !asked.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTED: Met = Met::Counted(Hash32([1; 32]));

    /// Members of any version have to understand each other.
    #[test]
    fn the_bytes_of_questions_and_answers_do_not_change() {
        let bytes = |met: Met| borsh::to_vec(&met).expect("bytes");
        assert_eq!(borsh::to_vec(&Meet { index: 5 }).expect("bytes"), [5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(Met::Passed(7)), [0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!([bytes(Met::Waits), bytes(Met::Counting), bytes(Met::Failed)], [[1], [2], [4]]);
        assert_eq!(bytes(COUNTED), [&[3][..], &[1; 32]].concat());
    }

    fn answers(met: &[Met]) -> Vec<(NodeId, Met)> {
        (1..).map(NodeId).zip(met.iter().copied()).collect()
    }

    #[test]
    fn who_comes_is_enough_with_an_honest_one_and_without_one_that_has_passed() {
        let rows: [(&[Met], usize, bool, bool); 9] = [
            (&[], 0, false, false),
            (&[Met::Waits], 0, false, true),
            (&[Met::Waits, Met::Counting], 1, false, true),
            (&[Met::Waits, Met::Failed], 1, false, false),
            // One has gone on: another entry is tried, unless a few do, or the others are enough whoever lies.
            (&[Met::Waits, COUNTED, Met::Passed(8)], 1, false, false),
            (&[Met::Waits, COUNTED, Met::Passed(8)], 1, true, true),
            (&[Met::Waits, COUNTED, COUNTED, Met::Passed(8)], 1, false, true),
            // Nobody passes an entry that it is not behind.
            (&[Met::Waits, COUNTED, Met::Passed(7)], 1, false, true),
            (&[Met::Passed(8), Met::Passed(9)], 1, true, false),
        ];
        for (met, tolerated, few, expected) in rows {
            assert_eq!(enough(&answers(met), 7, tolerated, few), expected, "{met:?}, {tolerated}, {few}");
        }
    }
}

//! Whether seats may move, asked of the nodes themselves before a command is given: the beacon judges again, but knows who
//! is silent only while somebody watches. Pure but for the asking.

use beacon::EpochBook;
use client::Client;
use ledger::genesis::NodeInfo;
use ledger::{GroupId, NodeId, Reject};

use super::picture::Picture;
use super::{Asked, nodes};
use crate::commands::signer::Signer;
use crate::error::CliError;

/// Whether a change of a node's seats that is only about to begin may: no group may come to stand on too few.
pub(super) fn judge(asked: Asked, node: NodeId, picture: &Picture, known: &[NodeInfo]) -> Result<(), CliError> {
    let risk = match asked {
        Asked::Join => picture.risk_of_joining(node, known),
        Asked::Drain | Asked::Leave | Asked::Replace(_) => {
            if let Some(channel) = picture.channels(node).first() {
                let cause = format!("node {node} hosts {channel}");
                return Err(refused(Reject::NodeInChannel, cause));
            }
            picture.risk(node).map(|(group, risk)| (node, group, risk))
        }
    };
    at_rest(risk)
}

/// The same of a deal that evens seats out: of which shards, its seed decides.
fn judge_rebalance(picture: &Picture) -> Result<(), CliError> {
    at_rest(picture.risk_of_dealing())
}

fn at_rest(risk: Option<(NodeId, GroupId, beacon::Risk)>) -> Result<(), CliError> {
    match risk {
        Some((leaves, group, risk)) => {
            let cause = format!("the seat of node {leaves} in {group} may not move now: {risk}");
            Err(refused(Reject::NodeSilence, cause))
        }
        None => Ok(()),
    }
}

fn refused(reject: Reject, cause: String) -> CliError {
    CliError::new(reject.code(), cause, reject.fix())
}

async fn look(signer: &Signer<'_>) -> Result<(Client, Picture), CliError> {
    let reader = signer.context().client().await?;
    let picture = Picture::take(&reader).await?;
    Ok((reader, picture))
}

/// Refuses to leave a node without capacity where it could not be drained: it is the same. One that has none already has
/// given its seats up before.
pub(in crate::commands) async fn capacity(signer: &Signer<'_>, node: NodeId, capacity: u16) -> Result<(), CliError> {
    if capacity > 0 {
        return Ok(());
    }
    let (reader, picture) = look(signer).await?;
    let known = nodes(&reader).await?;
    if known.iter().any(|info| info.id == node && info.capacity == 0) {
        return Ok(());
    }
    judge(Asked::Drain, node, &picture, &known)
}

/// Refuses to ask for a deal that evens seats out while a member of a shard could not give its seat. Where there are no
/// epochs, the beacon says so.
pub(in crate::commands) async fn rebalance(signer: &Signer<'_>) -> Result<(), CliError> {
    let (reader, picture) = look(signer).await?;
    let book: EpochBook = reader.epochs().await?;
    if book.policy.length_ms == 0 { Ok(()) } else { judge_rebalance(&picture) }
}

#[cfg(test)]
mod tests {
    use ledger::{Hash32, OrgId, PublicKey};

    use super::super::picture::tests::picture;
    use super::*;

    /// Nodes 1 to 4, of which each may have seats.
    fn known() -> Vec<NodeInfo> {
        let info = |id: u32| NodeInfo {
            id: NodeId(id),
            org: OrgId(1),
            zone: String::new(),
            capacity: 9,
            key: PublicKey([2; 33]),
            tls_key_hash: Hash32::ZERO,
            peer_addr: String::new(),
            client_addr: String::new(),
        };
        (1..=4).map(info).collect()
    }

    #[test]
    fn what_moves_a_seat_is_refused_where_another_member_does_not_answer() {
        let code = |judged: Result<(), CliError>| judged.err().map(|error| error.code);
        let silence = || Some("members_silent".to_owned());
        // Who runs, of the shard's 1, 2 and 3 and of 4; then what becomes of a drain of 3, a join of 4 and a rebalance.
        for (running, drain, join, deal) in [
            (&[1, 2, 3, 4][..], None, None, None),
            // The one that is drained may be gone; nobody else gives a seat meanwhile.
            (&[1, 2, 4], None, silence(), silence()),
            // The one that joins may be started later.
            (&[1, 2, 3], None, None, None),
            (&[1, 3, 4], silence(), silence(), silence()),
            (&[1, 4], silence(), silence(), silence()),
        ] {
            let picture = picture(&[1, 2, 3], running, &[1, 2, 3], &[]);
            let judged = |asked, node| code(judge(asked, NodeId(node), &picture, &known()));
            assert_eq!(judged(Asked::Drain, 3), drain, "{running:?}");
            assert_eq!(judged(Asked::Join, 4), join, "{running:?}");
            assert_eq!(code(judge_rebalance(&picture)), deal, "{running:?}");
        }
    }

    #[test]
    fn who_takes_no_seat_of_others_puts_nobody_at_risk() {
        let mut now = picture(&[1, 2, 3], &[1, 2, 4], &[1, 2, 3], &[]);
        let judged = |now: &Picture, known: &[NodeInfo], node| judge(Asked::Join, NodeId(node), now, known);
        assert_eq!(judged(&now, &known(), 1), Ok(()), "it has a seat");
        let mut weak = known();
        weak[3].capacity = 1;
        assert_eq!(judged(&now, &weak, 4), Ok(()), "others have less load for their capacity");
        now.lives.arriving.push(NodeId(4));
        assert_eq!(judged(&now, &known(), 4), Ok(()), "it was decided before");
    }
}

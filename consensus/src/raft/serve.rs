//! What replicas of any engine answer alike: whom a request is for, whose it is, and snapshots that are lent.

use bytes::Bytes;
use ledger::ids::NodeId;

use super::codec::CodecError;
use super::fetch::Lender;
use super::group::HandleError;
use super::wire::{self, Incoming};
use crate::port::{any_replica, node_of};

/// A request that is none.
pub(crate) fn malformed(error: CodecError) -> HandleError {
    HandleError::Malformed(error.to_string())
}

/// Opens a request that is for this replica and of one of the node that sent it.
pub(crate) fn open(
    (own_id, own_node): (u64, NodeId),
    from: NodeId,
    kind: u8,
    payload: Bytes,
) -> Result<Incoming, HandleError> {
    let request = wire::open_request(payload).map_err(malformed)?;
    let any = wire::asks_any(kind) && request.to == any_replica(own_node);
    if request.to != own_id && !any {
        return Err(HandleError::WrongReplica { own: own_id, to: request.to });
    }
    if node_of(request.from) != Some(from) {
        return Err(HandleError::WrongSender { node: from, claimed: request.from });
    }
    Ok(request)
}

/// Refuses what is of another stint than that of this replica. One that comes from a later stint knows that this
/// replica has been left behind.
pub(crate) fn of_stint(own: u64, kind: u8, request: &Incoming) -> Result<(), HandleError> {
    if wire::of_any_stint(kind) || request.stint == own {
        return Ok(());
    }
    Err(HandleError::OtherStint { own, of: request.stint })
}

/// Answers [`wire::SNAPSHOT_ASK`] and [`wire::SNAPSHOT_READ`].
pub(crate) async fn lend(lender: &Lender, from: NodeId, kind: u8, body: &[u8]) -> Result<Bytes, HandleError> {
    match kind {
        wire::SNAPSHOT_ASK => Ok(wire::reply(&lender.ask(from, wire::body(body).map_err(malformed)?).await?)),
        wire::SNAPSHOT_READ => Ok(wire::reply(&lender.read(from, wire::body(body).map_err(malformed)?).await?)),
        kind => Err(HandleError::Malformed(format!("unknown kind {kind}"))),
    }
}

//! Headers of shards that are gone, for the beacon's audit.
//!
//! A node removes a shard once nobody needs it to go on; what came of it has its chain. So whoever asks for headers of a
//! shard that is gone is given them from there. Owns who is asked on this node and that it is asked for one thing at a time;
//! what is read is [`crate::core::trail`]'s. Never judges anything: the beacon does.

use std::sync::Arc;

use beacon::{AuditEntry, Trail};
use bytes::Bytes;
use ledger::ids::{GroupId, GroupKind, NodeId};
use tokio::sync::Semaphore;

use crate::core::peer::{PeerMessage, Wanted};
use crate::core::trail;
use crate::server::group::with_reader;
use crate::server::local::Hosted;
use crate::server::replica::ReplicaShare;

/// Sends a node of the beacon what it wants of a shard that is gone, if a shard here came of it. While another request is
/// answered this one is dropped: the beacon asks again.
pub(super) fn lend(hosted: &Hosted, turns: &Arc<Semaphore>, to: NodeId, gone: GroupId, wanted: Wanted) {
    let Ok(turn) = Arc::clone(turns).try_acquire_owned() else { return };
    let shares: Vec<ReplicaShare> = {
        let groups = hosted.groups.read();
        let shards = groups.values().filter(|handle| handle.group.kind() == Some(GroupKind::Shard));
        shards.map(|handle| handle.share.clone()).collect()
    };
    let links = Arc::clone(&hosted.context.links);
    hosted.context.tasks.spawn(async move {
        let _turn = turn;
        match tokio::task::spawn_blocking(move || first_lent(&shares, gone, wanted)).await {
            Ok(Some(trail)) => {
                let message = PeerMessage::Audit(Box::new(AuditEntry::Trail(trail)));
                links.send(to, GroupId::BEACON, Bytes::from(message.encode()));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%gone, %error, "headers for the audit were not read"),
        }
    });
}

fn first_lent(shares: &[ReplicaShare], gone: GroupId, wanted: Wanted) -> Option<Trail> {
    for share in shares {
        match with_reader(share, |reader| trail::lent(reader, gone, wanted)) {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(trail))) => return Some(trail),
            // One that is being closed lends nothing.
            Ok(Err(fault)) | Err(fault) => tracing::warn!(%gone, %fault, "headers for the audit cannot be read"),
        }
    }
    None
}

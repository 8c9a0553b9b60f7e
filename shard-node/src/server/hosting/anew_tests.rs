//! A node that is to join a group again, while the group may count on the replica that it has.

use ledger::genesis::VerifyMode;
use ledger::ids::{Epoch, Incarnation, OrgId};
use ledger::{Committee, Member};

use super::*;
use crate::core::support::{SHARD, node_key};
use crate::server::group::FIRST_JOIN;
use crate::server::testing::{LoneNode, NODE, lone_genesis};

fn committee(epoch: u64, nodes: &[u32]) -> Committee {
    let member = |node: &u32| Member { node: NodeId(*node), org: OrgId(0), key: node_key(*node).public() };
    Committee::majority(SHARD, Incarnation(0), Epoch(epoch), nodes.iter().map(member).collect())
}

/// The registry has taken its seat and plans another one for it. The group may not have heard of the first yet: it votes there,
/// and the block that hands over may need its signature.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_seat_stays_until_others_say_that_the_group_goes_on_without_it() {
    let node = LoneNode::new(Arc::new(lone_genesis(VerifyMode::Ingest)));
    let view = ClusterView::of_genesis(&node.hosted.context.genesis);
    let hosting = node.hosting();
    hosting.start_all(&view).await;
    let running = node.hosted.group(SHARD.0).expect("it runs");

    let mut ahead = view.clone();
    ahead.committees.insert(SHARD, committee(2, &[2, 3]));
    ahead.coming.insert(SHARD, committee(4, &[NODE.0, 2, 3]));
    assert!(hosting.joins_anew(&ahead, SHARD));
    let waits = hosting.adapt_at(&ahead, Instant::now()).await;
    assert!(waits.leaving, "nobody has said so");
    let still = node.hosted.group(SHARD.0).expect("it runs on");
    assert!(Arc::ptr_eq(&running, &still) && running.stopped().is_none());
    assert_eq!(seat::read(&hosting.folder(SHARD), SHARD).expect("readable"), Some(FIRST_JOIN));
    // One whose seat is gone has lost what it promised, and nobody is asked.
    assert!(!hosting.gives_up(&ahead, SHARD).await);
    seat::forget(&hosting.folder(SHARD)).expect("removed");
    assert!(hosting.gives_up(&ahead, SHARD).await);

    let opened = hosting.opened.lock().clone();
    for (group, context) in opened {
        hosting.stop(group, &context).await;
    }
    node.end().await;
}

//! The keys that a view asks for, and the groups that start with them.

use ledger::SecretKey;
use ledger::genesis::VerifyMode;

use super::*;
use crate::core::support::{SHARD, node_key};
use crate::server::rotation::next_file;
use crate::server::testing::{LoneNode, NODE, lone_genesis};

/// A group that is founded just then names the node by its next key, and may need it from its first vote on.
#[tokio::test(flavor = "multi_thread")]
async fn one_look_at_a_view_takes_up_the_next_key_and_starts_the_groups() {
    let node = LoneNode::new(Arc::new(lone_genesis(VerifyMode::Ingest)));
    let next = SecretKey::derive(b"the next one", b"node");
    let digits: String = next.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(next_file(&node.folder.path().join("signing.key")), digits).expect("written");
    let mut view = ClusterView::of_genesis(&node.hosted.context.genesis);
    view.nodes.get_mut(&NODE).expect("it is in the genesis").key = next.public();

    let hosting = node.hosting();
    hosting.adapt_at(&view, Instant::now()).await;
    assert_eq!(node.hosted.context.key.public(), [node_key(NODE.0).public(), next.public()]);
    assert!(node.hosted.group(SHARD.0).is_some());
    let opened = hosting.opened.lock().clone();
    for (group, context) in opened {
        hosting.stop(group, &context).await;
    }
    node.end().await;
}

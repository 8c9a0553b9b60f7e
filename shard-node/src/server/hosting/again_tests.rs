use std::sync::Arc;

use ledger::genesis::VerifyMode;
use router::gateway::ClusterView;

use super::*;
use crate::core::support::SHARD;
use crate::server::testing::{LoneNode, lone_genesis};

const GROUP: GroupId = GroupId::shard(4);

#[test]
fn pauses_double_up_to_a_minute_and_begin_anew_once_it_was_opened() {
    let (mut again, start) = (Again::default(), Instant::now());
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let pause = Duration::from_secs(seconds);
        assert_eq!(again.failed(GROUP, "storage_disk_full", start), Some(pause));
        assert!(again.due(start + pause - Duration::from_millis(1)).is_empty());
        assert_eq!(again.due(start + pause), [GROUP]);
    }
    again.forget(GROUP);
    assert!(again.is_empty());
    assert_eq!(again.failed(GROUP, "storage_disk_full", start), Some(PAUSES.0));
}

#[test]
fn what_needs_people_is_not_tried_again() {
    let now = Instant::now();
    for code in ["storage_corrupt", "storage_wrong_node", "storage_newer_version", "state_corrupt", "state_wrong"] {
        let mut again = Again::default();
        assert_eq!(again.failed(GROUP, code, now), None, "{code}");
        // Nor when something else was in the way before.
        assert!(again.failed(GROUP, "storage_io", now).is_some());
        assert_eq!(again.failed(GROUP, code, now), None, "{code}");
        assert!(again.is_empty(), "{code}");
    }
}

/// Nothing but the failure of a moment, and no restart of the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_could_not_be_opened_runs_once_its_cause_is_gone() {
    let node = LoneNode::new(Arc::new(lone_genesis(VerifyMode::Ingest)));
    let view = ClusterView::of_genesis(&node.hosted.context.genesis);
    let hosting = node.hosting();
    let log = node.hosted.log.write().take();
    hosting.start_all(&view).await;
    let groups = [GroupId::BEACON, SHARD];
    let reasons = node.hosted.failed.read().clone();
    for group in groups {
        let reason = &reasons[&group];
        assert!(reason.starts_with("storage_closed") && reason.ends_with("tried again in 1 s"), "{reason}");
    }

    // The cause is still there.
    let start = Instant::now();
    assert!(hosting.adapt_at(&view, start + PAUSES.1).await.leaving);
    for group in groups {
        let reason = node.hosted.failed.read()[&group].clone();
        assert!(reason.ends_with("tried again in 2 s"), "{reason}");
    }

    *node.hosted.log.write() = log;
    let waits = hosting.adapt_at(&view, start + 2 * PAUSES.1).await;
    assert!(!waits.leaving);
    assert!(hosting.again.lock().is_empty() && node.hosted.failed.read().is_empty());
    for group in groups {
        assert!(node.hosted.group(group.0).is_some(), "{group}");
    }
    // It is opened once.
    hosting.adapt_at(&view, start + 3 * PAUSES.1).await;
    let opened = hosting.opened.lock().clone();
    assert_eq!(opened.keys().copied().collect::<Vec<_>>(), groups);
    for (group, context) in opened {
        hosting.stop(group, &context).await;
    }
    node.end().await;
}

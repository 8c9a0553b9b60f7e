//! Whether a group has stopped on this node, and why.
//!
//! One cell for everybody who has a part in the group: the commit loop, the group's task, readers.
//! It is set once, by whoever finds that the group cannot go on here, and from that moment nobody
//! answers for the group any more. Never does: end anything by itself.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The cell; clones are the same cell.
#[derive(Clone, Default)]
pub struct Halt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reason: Mutex<Option<String>>,
    token: CancellationToken,
}

impl Halt {
    /// Stops the group, unless it has stopped already: the first reason is the one that counts.
    pub fn stop(&self, reason: impl Into<String>) {
        self.0.reason.lock().get_or_insert_with(|| reason.into());
        self.0.token.cancel();
    }

    /// Why the group has stopped; `None` while it runs.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.reason.lock().clone()
    }

    /// Whether the group has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Resolves when the group has stopped.
    pub async fn stopped(&self) {
        self.0.token.cancelled().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts_and_everybody_hears_of_it() {
        let halt = Halt::default();
        let other = halt.clone();
        assert_eq!(other.reason(), None);
        let heard = tokio::spawn(async move { other.stopped().await });
        halt.stop("the disk is full");
        halt.stop("the log is poisoned");
        heard.await.unwrap();
        assert_eq!(halt.reason().as_deref(), Some("the disk is full"));
    }
}

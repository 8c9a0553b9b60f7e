//! The task of a replica, from outside: told to stop, and waited for.

use ledger::ids::GroupId;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// A task that ends when it is told to.
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// A task that ends when what `stop` says changes, or nobody is left to say anything.
    pub(crate) fn new(stop: watch::Sender<bool>, task: JoinHandle<()>) -> Self {
        Self { stop, task: Mutex::new(Some(task)) }
    }

    /// Ends the task, and with it everything that it has begun. Whoever comes second waits until it has ended, too.
    pub(crate) async fn end(&self, group: GroupId) {
        self.stop.send_replace(true);
        let mut task = self.task.lock().await;
        if let Some(running) = task.take()
            && let Err(error) = running.await
        {
            tracing::error!(%group, %error, "the replica did not stop cleanly");
        }
    }
}

//! Turns at a group's log: what may be in flight beside what.
//!
//! Transactions and mail are proposed beside each other. An act of a channel's governance is alone in flight: it is
//! judged by the very state that it is executed on, and whatever stands behind it in the log was proposed when it was
//! executed. So a leader knows whom it excludes before there is anything to keep from them. It costs nothing to wait:
//! the log commits in its order.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Gives out the turns of one group, in the order in which they are asked for. Whoever has one keeps it until the
/// fate of its entry is known. Clones are the same.
#[derive(Clone, Default)]
pub struct Turns(Arc<RwLock<()>>);

impl Turns {
    /// A turn beside others of this kind.
    pub async fn beside_others(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0).read_owned().await
    }

    /// As [`Turns::beside_others`], if nobody has to be waited for.
    #[must_use]
    pub fn beside_others_now(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Arc::clone(&self.0).try_read_owned().ok()
    }

    /// A turn alone: everything that was proposed before has its fate, and nothing else is proposed meanwhile.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.0).write_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_act_waits_for_what_is_in_flight_and_whatever_comes_later_waits_for_it() {
        let turns = Turns::default();
        let (first, second) = (turns.beside_others().now_or_never(), turns.beside_others().now_or_never());
        assert!(first.is_some() && second.is_some(), "these do not wait for each other");
        let mut act = Box::pin(turns.alone());
        assert!(act.as_mut().now_or_never().is_none());
        let mut behind = Box::pin(turns.beside_others());
        assert!(behind.as_mut().now_or_never().is_none(), "it does not overtake the act");
        assert!(turns.beside_others_now().is_none(), "nor does one that does not wait");
        drop(first);
        assert!(act.as_mut().now_or_never().is_none());
        drop(second);
        let alone = act.as_mut().now_or_never().expect("nothing is in flight any more");
        assert!(behind.as_mut().now_or_never().is_none());
        drop(alone);
        assert!(behind.as_mut().now_or_never().is_some());
        assert!(turns.beside_others_now().is_some());
    }
}

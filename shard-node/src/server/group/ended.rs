//! Who waits for mail of a stream that is written no more, since a shard at one of its ends was cut or joined.
//!
//! Owns when the state is asked what became of such mail. What it says is `cross_shard::closed`'s, and whoever waits is
//! told by the group's waiters.

use cross_shard::closed::{self, ClosedStream};
use ledger::ids::GroupId;
use ledger::layout::Layout;
use ledger::schema;
use ledger::view::View;

use crate::server::group::task::GroupTask;
use crate::server::ingest::MailFate;
use crate::server::replica::ViewReader;

impl GroupTask {
    /// Tells those who wait for mail of streams that are written no more, when the state may say another thing than before.
    pub(super) fn judge_ended(&mut self) {
        let height = self.share.stand.lock().applied.height;
        let again = std::mem::replace(&mut self.judged, height) != height;
        if !self.waiters.has_ended(!again) {
            return;
        }
        let Some(db) = self.share.state.db() else { return };
        let reader = ViewReader::of(&*db);
        let mut view = View::new(&reader);
        self.waiters.judge(|source, dest, seq| taken(&mut view, self.group, (source, dest, seq)));
        if let Some(fault) = view.fault() {
            self.alarm(format!("{}: {fault}", self.group));
        }
    }

    /// Those who wait for a shard that has ended, wait for something else now.
    pub(super) fn follow_lineage(&self) {
        match self.share.state.load::<Layout>(&schema::layout()) {
            Ok(layout) => {
                let ended = layout.map(|layout| layout.lineage).unwrap_or_default();
                self.waiters.ended(ended.into_iter().map(|entry| entry.group));
            }
            Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }
}

/// What the state of `me` says of a message in a stream that is written no more. One that a shard had which this one came
/// from is passed on by one of those that did, and by that one it is told.
fn taken(view: &mut View<'_>, me: GroupId, (source, dest, seq): (GroupId, GroupId, u64)) -> MailFate {
    let stream: Option<ClosedStream> = view.load(&schema::closed(source, dest));
    let elsewhere = |stream: &ClosedStream| !stream.whole && stream.taken.is_none_or(|taken| seq >= taken);
    match closed::acknowledged(view, me, source, dest, seq) {
        // What cannot be read says nothing.
        _ if view.fault().is_some() => MailFate::Waits,
        _ if stream.as_ref().is_some_and(elsewhere) => MailFate::Elsewhere,
        true => MailFate::Taken,
        false => MailFate::Waits,
    }
}

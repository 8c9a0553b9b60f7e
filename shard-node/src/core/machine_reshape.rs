//! Seals and changes of the layout in the composed machine (docs/elastic.md, 5).
//!
//! Owns when a group stands still and what it then takes: nothing but the beacon's word that it may go on. What becomes
//! of streams when the layout changes is [`cross_shard::closed`]'s, what becomes of jobs [`beacon::jobs`]'s.

use beacon::jobs::{self, JobReport, SealedProof};
use cross_shard::bundle::Bundle;
use cross_shard::closed::{self, Closed, ClosedStream, Reshaped};
use cross_shard::{commit, estate};
use ledger::ids::{GroupId, GroupKind, JobId, TimeMs};
use ledger::layout::Layout;
use ledger::limits::SELF_MAIL_MAX;
use ledger::lineage::{SEALED_VERSION, Seal, SealedBy};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::View;

use super::{BlockWork, CommandOutcome};
use crate::core::entry::Command;
use crate::core::records;

/// The earliest time behind which a block is due though nothing waits for it: a deadline of a transaction or, in the
/// beacon, of a job or an epoch; and at once while a shard has not taken all that its parents had sent each other. `now` is the time of
/// the last block.
pub fn next_deadline(view: &mut View<'_>, group: GroupId, now: TimeMs) -> Option<TimeMs> {
    let (of_jobs, of_epochs) = match group == GroupId::BEACON {
        true => (jobs::next_deadline(view), beacon::epochs::next_deadline(view, now)),
        false => (None, None),
    };
    let of_mail = self_mail_waits(view, group).then_some(now);
    [commit::next_deadline(view), of_jobs, of_epochs, of_mail].into_iter().flatten().min()
}

/// Whether something is left of what the parents of this group had sent each other.
fn self_mail_waits(view: &mut View<'_>, group: GroupId) -> bool {
    if view.get(&schema::origin()).is_none() {
        return false;
    }
    let Some(layout) = view.load::<Layout>(&schema::layout()) else { return false };
    view.scan_prefix(schema::CLOSED_PREFIX).into_iter().any(|(key, _)| {
        let Some((source, dest)) = schema::closed_of(&key) else { return false };
        let known: Option<ClosedStream> = view.load(&key);
        let left = known.is_some_and(|closed| closed.taken.is_some() && closed.kept < closed.next_seq);
        left && layout.descends(group, source) && layout.descends(group, dest)
    })
}

fn from_beacon(bytes: &[u8]) -> bool {
    borsh::from_slice::<Bundle>(bytes).is_ok_and(|bundle| bundle.source == GroupId::BEACON)
}

impl BlockWork {
    /// Finds out how the group stands before the block; whether it is sealed.
    pub(in crate::core) fn stand(&mut self, view: &mut View<'_>) -> bool {
        self.sealed = view.load(&schema::sealed());
        self.born = view.get(&schema::origin()).is_some();
        self.sealed.is_some()
    }

    /// Why a command is not taken, while the group is sealed. In the block that took the seal nothing follows on it; in an
    /// entry behind it the beacon is heard, and nobody else until it takes the seal back.
    pub(super) fn refused_by_seal(&self, at: BlockContext, command: &Command) -> Option<CommandOutcome> {
        let sealed = self.sealed.as_ref()?;
        match command {
            Command::Deliver(bytes) if sealed.height < at.height && from_beacon(bytes) => None,
            Command::Tx(bytes) => Some(match ParsedTx::decode(&at.cluster, bytes) {
                Ok(tx) => CommandOutcome::Refused(tx.txid, Reject::Sealing),
                Err(reject) => CommandOutcome::Ignored(reject),
            }),
            _ => Some(CommandOutcome::Ignored(Reject::Sealing)),
        }
    }

    /// Takes a seal of which this group is a parent and whose layout is the next one.
    pub(super) fn seal(&mut self, view: &mut View<'_>, at: BlockContext, seal: Seal) {
        let next = self.layout.version.0.checked_add(1) == Some(seal.layout.version.0);
        if self.sealed.is_none() && next && seal.parents.contains(&self.group) && seal.well_formed() {
            let sealed = SealedBy { version: SEALED_VERSION, seal, height: at.height };
            view.store(schema::sealed(), &sealed);
            self.sealed = Some(sealed);
        }
    }

    /// Goes on, when the job that sealed this group has come to nothing.
    pub(super) fn unseal(&mut self, view: &mut View<'_>, job: JobId) {
        if self.sealed.take_if(|sealed| sealed.seal.job == job).is_some() {
            view.delete(schema::sealed());
            view.delete(records::seal_shapes());
            self.unsealed = true;
        }
    }

    /// Takes the change of the layout that follows on the one in force.
    pub(super) fn adopt_layout(&mut self, view: &mut View<'_>, reshaped: Reshaped) {
        if reshaped.follows(self.layout.version) {
            closed::adopt(view, self.group, &reshaped);
            self.layout = reshaped.layout;
            (self.system_changed, self.reshaped) = (true, true);
        }
    }

    /// Takes the word on how far an inherited stream was taken, and passes on the rest. Value in it has come from the
    /// retired group and leaves again, so that what that one has exported is imported once by a shard. What is for a channel
    /// is not counted here: it has left with the retired group, and no header shows that it arrives.
    pub(super) fn pass_on(&mut self, view: &mut View<'_>, at: BlockContext, sender: GroupId, told: &Closed) {
        let moved = closed::take(view, &self.layout, self.group, sender, told);
        for value in moved.value.into_iter().filter(|value| value.to.kind() == Some(GroupKind::Shard)) {
            self.flows.imported(value.asset, value.from, value.amount);
            self.flows.exported(value.asset, value.to, value.amount);
        }
        for (source, message) in moved.own {
            self.receive(view, at, source, message);
        }
    }

    /// Takes of what the parents had sent each other as much as one block may.
    pub(super) fn take_self_mail(&mut self, view: &mut View<'_>, at: BlockContext) {
        if !self.born {
            return;
        }
        for (source, message) in estate::self_mail(view, &self.layout, self.group, SELF_MAIL_MAX) {
            self.receive(view, at, source, message);
        }
    }

    /// Ends what of the beacon's jobs has lasted too long.
    pub(super) fn tick_jobs(&mut self, view: &mut View<'_>, at: BlockContext) {
        if self.group == GroupId::BEACON {
            let mail = jobs::tick(view, &at);
            self.tell(view, at, mail);
        }
    }

    /// A node's word on a job or on its load is the beacon's to judge.
    pub(super) fn report(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let Ok(report) = borsh::from_slice::<JobReport>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        let executed = jobs::apply_report(view, &at, &report).map_err(beacon::Refused::from);
        self.take_executed(view, at, executed)
    }

    /// So is the proof that a parent stands still.
    pub(super) fn end_of_parent(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let Ok(proof) = borsh::from_slice::<SealedProof>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        let executed = jobs::apply_sealed(view, &at, &proof).map_err(beacon::Refused::from);
        self.take_executed(view, at, executed)
    }

    /// Goes by the layout that the beacon has put into force itself.
    pub(super) fn follow_layout(&mut self, view: &mut View<'_>) {
        let layout: Option<Layout> = view.load(&schema::layout());
        if let Some(layout) = layout.filter(|layout| layout.version > self.layout.version) {
            self.layout = layout;
            (self.system_changed, self.reshaped) = (true, true);
        }
    }
}

#[cfg(test)]
#[path = "machine_reshape_tests.rs"]
mod tests;

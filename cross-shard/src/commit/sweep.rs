//! What the passing of time calls for: votes that waited too long, and registers that nobody can need any more.

use ledger::ids::{GroupId, TimeMs, TxId};
use ledger::limits::{REGISTER_GRACE_MS, REGISTER_RECHECK_MS, SWEEP_MAX};
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::View;

use super::{CommitContext, Decision, Prepared, Progress, prepared, resolve, store, vote_and_resolve};
use crate::closed;

/// Deadlines of many transactions share an empty block.
pub(super) fn whole_seconds(time_ms: u64) -> TimeMs {
    TimeMs(time_ms.div_ceil(1000).saturating_mul(1000))
}

/// Deals with deadlines that the block's time has passed: a group that still waits for openings, or for a
/// hand-over, writes NO, and registers that nobody can need any more are dropped.
pub fn sweep(view: &mut View<'_>, ctx: &CommitContext<'_>, out: &mut Vec<Progress>) {
    let from = swept(view);
    let keys = view.first_keys(&[schema::DEADLINE], &schema::deadline_from(from), SWEEP_MAX);
    let mut upto = from;
    for key in keys {
        let Some((at, txid)) = schema::deadline_of(&key) else { continue };
        if !ctx.past(at) {
            break;
        }
        upto = at;
        view.delete(key);
        due(view, ctx, &txid, out);
    }
    if upto != from {
        view.store(schema::swept(), &upto);
    }
}

fn swept(view: &mut View<'_>) -> TimeMs {
    view.load(&schema::swept()).unwrap_or_default()
}

/// The earliest deadline that is still ahead. Once a block's time is past it, a block is due even
/// if there is nothing else to put into it.
pub fn next_deadline(view: &mut View<'_>) -> Option<TimeMs> {
    let from = swept(view);
    let first = view.first_keys(&[schema::DEADLINE], &schema::deadline_from(from), 1);
    first.first().and_then(|key| schema::deadline_of(key)).map(|(at, _)| at)
}

fn due(view: &mut View<'_>, ctx: &CommitContext<'_>, txid: &TxId, out: &mut Vec<Progress>) {
    let Some(mut record) = prepared(view, txid) else { return };
    if record.dropped.is_some() {
        return;
    }
    let tx = ParsedTx::decode(&ctx.cluster, &record.tx).expect("it was decoded when it was recorded");
    let own = ctx.own(&tx.body);
    if !ctx.concerned(&record, &own) {
        // All of it lies in another shard that came from the one that knew it.
        drop_register(view, ctx, &mut record);
        return;
    }
    let open = record.unspoken(&own);
    if !open.is_empty() {
        vote_and_resolve(view, ctx, &tx, &mut record, open, Decision::No(Reject::Expired), out);
        return;
    }
    let resolved = resolve(view, ctx, &tx, &mut record, out);
    if droppable(view, ctx, &record) {
        drop_register(view, ctx, &mut record);
        return;
    }
    if resolved {
        store(view, &record);
    }
    let again = whole_seconds(ctx.rules.time_ms.0.saturating_add(REGISTER_RECHECK_MS));
    view.put(schema::deadline(again, txid), Vec::new());
}

/// The four conditions: every vote received, our own acknowledged by all voters, the outcome
/// applied, and the time past.
fn droppable(view: &mut View<'_>, ctx: &CommitContext<'_>, record: &Prepared) -> bool {
    let mut acknowledged = |source: GroupId, sent: &[(GroupId, u64)]| {
        sent.iter().all(|(dest, seq)| closed::acknowledged(view, ctx.me(), source, *dest, *seq))
    };
    record.heard_all()
        && record.outcome().is_some()
        && ctx.past(TimeMs(record.valid_until_ms.0.saturating_add(REGISTER_GRACE_MS)))
        && record.casts.iter().all(|cast| acknowledged(cast.group, &cast.sent))
}

fn drop_register(view: &mut View<'_>, ctx: &CommitContext<'_>, record: &mut Prepared) {
    for account in record.accounts().filter(|account| ctx.lies_here(account)) {
        let key = schema::register(account, &record.txid);
        // One of two shards that were joined may have dropped its own before.
        if view.get(&key).is_some() {
            view.delete(key);
        }
    }
    record.tx = Vec::new();
    record.openings = Vec::new();
    record.dropped = Some(ctx.stamp());
    store(view, record);
}

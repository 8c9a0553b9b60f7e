//! What happens between a transaction's arrival at the leader and its place in the queue: round after
//! round, everything that has arrived is checked, and answered here where the state that is applied
//! already holds the answer.
//!
//! Sequencing costs an fsync on every replica and room in the log for ever, so it is for what may
//! change something. A transaction that has its receipt gets it. One that the machine would refuse
//! without a trace is refused, when that is certain: no copy of it can be in the log unapplied, and
//! the state is one that a read barrier has shown to be current. What came for somebody whom a channel does not admit
//! any more is not sequenced, and answered with that alone: its waiters see to both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use consensus::sequencer::Sequencer;
use ledger::account::AccountRecord;
use ledger::asset::AssetDef;
use ledger::genesis::VerifyMode;
use ledger::ids::{Address, GroupId, Height, NodeId, TimeMs};
use ledger::lineage::SealedBy;
use ledger::lock::{Lock, hash_of};
use ledger::machine::{BlockContext, Machine};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::tx::{Move, ParsedTx};
use ledger::view::{ReadFault, View};
use ledger::{Layout, rules, schema};
use proto::v1;
use tokio::time::Instant;

use crate::core::entry::Command;
use crate::core::machine::{BlockWork, CommandOutcome};
use crate::core::records::ReceiptPlace;
use crate::server::group::{GroupHandle, HostContext, guarded_now};
use crate::server::ingest::{self, Arrived, Checked, Judged, Unfit, Waits, refused};
use crate::server::replica::{DbReader, ReplicaShare};

/// A barrier that takes longer than this says nothing; what waits for it is sequenced.
const BARRIER_WITHIN: Duration = Duration::from_millis(500);

/// The applied state of a group, as a round sees it.
pub struct Applied {
    group: GroupId,
    share: ReplicaShare,
    /// The layout in force; none while it cannot be read.
    layout: Option<Layout>,
    /// Time of a block that is applied. Every later block has a later time.
    time_ms: TimeMs,
    /// Whether the group stands at a seal.
    sealed: bool,
}

/// What the applied state says about a transaction.
pub enum Finding {
    /// It has its receipt, at this place.
    Receipt(ReceiptPlace),
    /// No later block can execute it, or none before the group goes on, here or as others.
    Over(Reject),
    /// A debited account is under another authorisation than the transaction shows, or its asset is
    /// not known: the machine would probably refuse it.
    Doubtful,
    /// Nothing.
    Nothing,
}

impl Applied {
    /// The state as it is now.
    #[must_use]
    pub fn of(handle: &GroupHandle) -> Self {
        // Time first: what is read later is of this block or a later one.
        let time_ms = handle.share.stand.lock().applied.time_ms;
        let layout = handle.share.state.load(&schema::layout()).ok().flatten();
        let sealed = handle.share.state.load::<SealedBy>(&schema::sealed()).is_ok_and(|by| by.is_some());
        Self { group: handle.group, share: handle.share.clone(), layout, time_ms, sealed }
    }

    /// Whether this group alone decides a transaction, all of which is visible here. What other groups
    /// vote on, too, only the machine can judge: a vote may have come before, or may yet.
    fn decides(&self, tx: &ParsedTx) -> bool {
        let groups = self.layout.as_ref().and_then(|layout| rules::voter_groups(layout, &tx.body).ok());
        groups.is_some_and(|groups| groups == [self.group]) && tx.visible().count() == tx.body.slots.len()
    }

    /// Looks a transaction up that nobody has verified yet.
    ///
    /// # Errors
    /// [`ReadFault`]; the machine will meet it too, and stop the group.
    pub fn look(&self, tx: &ParsedTx) -> Result<Finding, ReadFault> {
        let state = &self.share.state;
        if let Some(place) = state.load::<ReceiptPlace>(&schema::receipt(&tx.txid))? {
            return Ok(Finding::Receipt(place));
        }
        let decides = self.decides(tx);
        if decides && let Err(reject @ (Reject::Expired | Reject::OutcomePruned)) = rules::check_time(tx, self.time_ms)
        {
            return Ok(Finding::Over(reject));
        }
        if self.sealed {
            // The group's task would refuse it as well. Routers ask again and again, and signatures cost what all others are
            // waiting for: the processor.
            return Ok(Finding::Over(Reject::Sealing));
        }
        if !decides {
            return Ok(Finding::Nothing);
        }
        for (_, _, mv) in tx.visible() {
            for account in mv.voters().filter(|voter| voter.authorises).map(|voter| voter.account) {
                if !self.authorised(tx, &account)? {
                    return Ok(Finding::Doubtful);
                }
            }
            if let Move::Claim { from, lock, terms, secret } = mv {
                let found: Option<Lock> = state.load(&schema::lock(from, lock))?;
                if found.is_none_or(|lock| lock.terms != *terms || lock.hash != hash_of(secret)) {
                    return Ok(Finding::Doubtful);
                }
            }
            if let Move::Mint { asset, .. } | Move::Burn { asset, .. } = mv
                && state.load::<AssetDef>(&schema::asset(asset))?.is_none()
            {
                return Ok(Finding::Doubtful);
            }
        }
        Ok(Finding::Nothing)
    }

    /// Whether an account has authorised a transaction, as far as its witnesses name the right keys.
    fn authorised(&self, tx: &ParsedTx, account: &Address) -> Result<bool, ReadFault> {
        let record: Option<AccountRecord> = match self.group {
            GroupId::BEACON => None,
            _ => self.share.state.load(&schema::account(account))?,
        };
        Ok(match record.and_then(|record| record.auth) {
            Some(auth) => tx.witnesses.iter().any(|witness| witness.auth == auth),
            None => tx.witnesses.iter().any(|witness| witness.auth.address() == *account),
        })
    }
}

/// Checks what arrives for one group, round after round, and hands it to the group's task.
pub async fn check_arrivals(context: HostContext, handle: Arc<GroupHandle>) {
    let cluster = context.genesis.cluster_id();
    loop {
        let round = handle.arrivals.take().await;
        let role = handle.role();
        let now = guarded_now(&context, &role.voters);
        let (mut txs, mut senders) = (Vec::new(), Vec::new());
        for (index, arrived) in round.iter().enumerate() {
            senders.extend(std::iter::repeat_n(index, arrived.txs.len()));
            txs.extend(arrived.txs.iter().cloned());
        }
        let waiters = Arc::clone(&handle.waiters);
        let applied = Applied::of(&handle);
        // What cannot be read will stop the group where it matters.
        let look = move |tx: &ParsedTx| applied.look(tx).unwrap_or(Finding::Nothing);
        let checking = tokio::task::spawn_blocking(move || ingest::check(&cluster, now, txs, &waiters, look));
        let Ok(judged) = checking.await else { return };
        let mut intake = Intake { handle: &handle, leader: role.leader, fresh: Vec::new() };
        let (mut known, mut doubtful) = (Vec::new(), Vec::new());
        for (judged, sender) in judged.into_iter().zip(senders) {
            let arrived = &round[sender];
            match judged {
                Judged::Fresh(tx) => intake.queue(tx, arrived),
                Judged::Riding(tx) => intake.ride(&tx, arrived),
                Judged::Known(tx, place) => known.push((tx, place, arrived)),
                Judged::Doubtful(tx) => doubtful.push((tx, arrived)),
                Judged::Refused(Unfit { txid: Some(txid), bytes, reject }) => {
                    let event = refused(&txid, Some(&bytes), reject, None).by(handle.group);
                    handle.waiters.answer(&arrived.reply, &arrived.sender, event);
                }
                // Without a decodable body there is no id to answer to; routers decode first.
                Judged::Refused(Unfit { txid: None, reject, .. }) => {
                    arrived.reply.push(v1::SubmitEvent::refused(bytes::Bytes::new(), v1::Refusal::of(reject)));
                }
            }
        }
        intake.submit();
        intake.answer_known(known).await;
        if !doubtful.is_empty() {
            let verdicts = verdicts(&handle, doubtful.iter().map(|(tx, _)| tx.bytes.clone()).collect()).await;
            for ((tx, arrived), verdict) in doubtful.into_iter().zip(verdicts) {
                match verdict {
                    Some(reject) => {
                        let event = refused(&tx.txid, Some(&tx.bytes), reject, None).by(handle.group);
                        handle.waiters.answer(&arrived.reply, &arrived.sender, event);
                    }
                    None => intake.queue(tx, arrived),
                }
            }
            intake.submit();
        }
    }
}

/// One round's way into the queue.
struct Intake<'a> {
    handle: &'a GroupHandle,
    leader: Option<NodeId>,
    fresh: Vec<Checked>,
}

impl Intake<'_> {
    fn queue(&mut self, tx: Checked, arrived: &Arrived) {
        let waiters = &self.handle.waiters;
        if !waiters.has_room(tx.bytes.len(), Instant::now()) {
            return self.busy(&tx, arrived);
        }
        match waiters.wait(&tx, &arrived.reply, arrived.wants_applied, &arrived.sender) {
            Waits::First => self.fresh.push(tx),
            Waits::Rides | Waits::Denied => {}
            Waits::Crowded => self.busy(&tx, arrived),
        }
    }

    fn busy(&self, tx: &Checked, arrived: &Arrived) {
        let event = refused(&tx.txid, Some(&tx.bytes), Reject::Busy, self.leader);
        self.handle.waiters.answer(&arrived.reply, &arrived.sender, event.by(self.handle.group));
    }

    fn ride(&self, tx: &Checked, arrived: &Arrived) {
        let waiters = &self.handle.waiters;
        match waiters.wait(tx, &arrived.reply, arrived.wants_applied, &arrived.sender) {
            // What it relied on got its fate in between; only a check of its own counts.
            Waits::First => waiters.refuse(&tx.txid, &tx.bytes, Reject::Busy, self.leader),
            Waits::Rides | Waits::Denied => {}
            Waits::Crowded => self.busy(tx, arrived),
        }
    }

    fn submit(&mut self) {
        if let Err(txs) = self.handle.submit(std::mem::take(&mut self.fresh)) {
            for tx in txs {
                self.handle.waiters.refuse(&tx.txid, &tx.bytes, Reject::Busy, self.leader);
            }
        }
    }

    /// Answers transactions that have their receipt. Each block is read once.
    async fn answer_known(&self, known: Vec<(Checked, ReceiptPlace, &Arrived)>) {
        if known.is_empty() {
            return;
        }
        let mut places: BTreeMap<(GroupId, Height), Vec<(usize, ReceiptPlace)>> = BTreeMap::new();
        for (at, (_, place, _)) in known.iter().enumerate() {
            places.entry((place.chain, place.height)).or_default().push((at, *place));
        }
        let (share, here) = (self.handle.share.clone(), self.handle.group);
        let reading = tokio::task::spawn_blocking(move || receipts(&share, here, places));
        let Ok(found) = reading.await else { return };
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(group = %self.handle.group, %error, "receipts cannot be read");
                BTreeMap::new()
            }
        };
        for (at, (tx, _, arrived)) in known.into_iter().enumerate() {
            match found.remove(&at) {
                Some(receipt) => {
                    let waiters = &self.handle.waiters;
                    let wait = || waiters.wait(&tx, &arrived.reply, arrived.wants_applied, &arrived.sender);
                    if wait() == Waits::Crowded {
                        // The receipt is news to all who wait, and makes room.
                        waiters.receipt(&receipt);
                        wait();
                    }
                    waiters.receipt(&receipt);
                }
                // It was executed; whoever cannot be told how must not take it for refused.
                None => {
                    let event = refused(&tx.txid, None, Reject::TooLate, self.leader).by(self.handle.group);
                    self.handle.waiters.answer(&arrived.reply, &arrived.sender, event);
                }
            }
        }
    }
}

fn receipts(
    share: &ReplicaShare,
    here: GroupId,
    places: BTreeMap<(GroupId, Height), Vec<(usize, ReceiptPlace)>>,
) -> Result<BTreeMap<usize, Receipt>, ReadFault> {
    let mut found = BTreeMap::new();
    for wanted in places.into_values() {
        let [(_, first), ..] = &wanted[..] else { continue };
        let receipts = share.receipts_at(here, first)?;
        for (at, place) in wanted {
            found.extend(receipts.get(place.index as usize).map(|receipt| (at, receipt.clone())));
        }
    }
    Ok(found)
}

/// What the machine says about transactions that are probably refused: the reason for those that it
/// refuses without a trace on a state that is current, and nothing for all that must be sequenced.
async fn verdicts(handle: &Arc<GroupHandle>, txs: Vec<bytes::Bytes>) -> Vec<Option<Reject>> {
    let undecided = vec![None; txs.len()];
    // A proposal that was lost while this replica went on leading may be in the log all the same.
    if handle.lost_proposals.load(Ordering::Acquire) {
        return undecided;
    }
    match tokio::time::timeout(BARRIER_WITHIN, handle.engine.read_barrier()).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return undecided,
    }
    let asked = Arc::clone(handle);
    let trying = tokio::task::spawn_blocking(move || {
        let judge = |tx: &bytes::Bytes| rehearse(&asked, tx).unwrap_or_default();
        txs.iter().map(judge).collect()
    });
    trying.await.unwrap_or(undecided)
}

/// Executes a transaction on the applied state, and forgets what it did.
fn rehearse(handle: &GroupHandle, tx: &bytes::Bytes) -> Result<Option<Reject>, ReadFault> {
    let closed = || ReadFault("the state is closed".into());
    let applied = handle.share.stand.lock().applied.clone();
    let db = handle.share.state.db().ok_or_else(closed)?;
    let reader = DbReader(&*db);
    let mut view = View::new(&reader);
    let layout: Layout = view.load(&schema::layout()).ok_or_else(closed)?;
    let at = BlockContext {
        cluster: handle.cluster,
        group: handle.group,
        height: applied.height.next(),
        time_ms: TimeMs(applied.time_ms.0 + 1),
    };
    let mut work = BlockWork::new(handle.group, layout, VerifyMode::Ingest);
    let outcome = work.apply(&mut view, at, &Command::Tx(tx.to_vec()));
    if let Some(fault) = view.fault() {
        return Err(fault.clone());
    }
    match outcome {
        CommandOutcome::Refused(_, reject) if reject.precedes_authorisation() || reject == Reject::UnknownAsset => {
            Ok(Some(reject))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ledger::lineage::SEALED_VERSION;
    use storage::WriteBatch;

    use super::*;
    use crate::core::elastic::split_seal;
    use crate::server::testing::{Lone, forged, mint};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_shard_that_stands_still_refuses_before_it_checks_signatures() {
        let lone = Lone::start(VerifyMode::Ingest).await;
        let (handle, cluster) = (&lone.handle, lone.genesis.cluster_id());
        let judged = |tx: &Bytes| {
            let applied = Applied::of(handle);
            let look = |tx: &ParsedTx| applied.look(tx).expect("the state can be read");
            ingest::check(&cluster, None, vec![tx.clone()], &handle.waiters, look).pop()
        };
        let refused = |judged: Option<Judged>| match judged {
            Some(Judged::Refused(Unfit { reject, .. })) => Some(reject),
            _ => None,
        };
        let (bad, (_, good)) = (forged(&lone.genesis, 1), mint(&lone.genesis, 2, Address([4; 20]), 5));
        assert_eq!((refused(judged(&bad)), refused(judged(&good))), (Some(Reject::BadSignature), None));
        let seal = SealedBy { version: SEALED_VERSION, seal: split_seal(), height: Height(1) };
        let mut batch = WriteBatch::new();
        batch.put(schema::sealed(), borsh::to_vec(&seal).expect("writing to memory does not fail"));
        handle.share.state.db().expect("the state is open").write(batch).expect("a write");
        for tx in [&bad, &good] {
            assert_eq!(refused(judged(tx)), Some(Reject::Sealing));
        }
        lone.stop().await;
    }
}

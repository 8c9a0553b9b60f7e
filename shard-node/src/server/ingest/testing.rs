//! Transactions, receipts, events and senders for the tests of the way in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, OrgId, TimeMs, TxId};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use parking_lot::Mutex;
use proto::v1;
use v1::submit_event::Event;

use crate::server::admission::Forwarder;
use crate::server::ingest::gate::Admits;
use crate::server::ingest::{Checked, Sender};

pub(super) fn checked(text: &'static [u8]) -> Checked {
    Checked { txid: TxId(ledger::hash::sha256(text)), bytes: Bytes::from_static(text), mark: Hash32::ZERO }
}

/// Whoever sends to a group that tells everybody.
pub(super) fn anybody() -> Arc<Sender> {
    Arc::default()
}

/// A client of an organisation, over a router of the same one.
pub(super) fn of_org(org: u16) -> Arc<Sender> {
    let from = Forwarder { org: OrgId(org), credential: Hash32([1; 32]) };
    let caller =
        v1::Caller { org: org.into(), role: "client".to_owned(), credential: Bytes::copy_from_slice(&[2; 32]) };
    Arc::new(Sender { from: Some(from), caller: Some(caller) })
}

/// A channel that shuts organisations out, block by block.
#[derive(Default)]
pub(super) struct Shutting {
    blocks: Mutex<(Height, Vec<OrgId>)>,
    asked: AtomicUsize,
}

impl Shutting {
    /// Another block, which shuts this one out.
    pub(super) fn block(&self, out: Option<OrgId>) {
        let mut blocks = self.blocks.lock();
        blocks.0 = blocks.0.next();
        blocks.1.extend(out);
    }

    /// How often somebody was judged.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Admits for Arc<Shutting> {
    fn newest(&self) -> Height {
        self.blocks.lock().0
    }

    fn denies(&self, sender: &Sender) -> Option<v1::Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let org = sender.caller.as_ref().map(|caller| caller.org)?;
        let out = self.blocks.lock().1.iter().any(|out| u32::from(out.0) == org);
        out.then(|| v1::Refusal::of(Reject::ChannelRefused).detail(format!("org {org} is out")))
    }
}

pub(super) fn receipt(txid: TxId, mail: Vec<(GroupId, u64)>) -> Receipt {
    Receipt {
        version: 1,
        txid,
        group: GroupId::shard(0),
        height: Height(3),
        index: 0,
        time_ms: TimeMs(9),
        outcome: Outcome::Committed { mail },
    }
}

pub(super) async fn next(events: &mut tokio::sync::mpsc::Receiver<v1::SubmitEvents>) -> Vec<Event> {
    let batch = events.recv().await.expect("the queue is open");
    batch.events.into_iter().filter_map(|event| event.event).collect()
}

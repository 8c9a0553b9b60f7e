//! Transactions, receipts and events for the tests of the way in.

use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, TimeMs, TxId};
use ledger::receipt::{Outcome, Receipt};
use proto::v1;
use v1::submit_event::Event;

use crate::server::ingest::Checked;

pub(super) fn checked(text: &'static [u8]) -> Checked {
    Checked { txid: TxId(ledger::hash::sha256(text)), bytes: Bytes::from_static(text), mark: Hash32::ZERO }
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

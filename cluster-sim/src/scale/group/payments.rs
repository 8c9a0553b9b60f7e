//! Payments: from a client to the router, and back with the receipt. Which of them the machine executes, and which are only
//! counted, [`crate::scale::load`] has decided; all of them go the same way and take as long.

use bytes::Bytes;
use ledger::ParsedTx;
use ledger::ids::{GroupId, TxId};
use ledger::receipt::{Outcome, Receipt};
use router::{Plan, plan};

use crate::scale::group::{Event, Group};
use crate::scale::load::{Payment, token};
use crate::scale::model::Ns;

/// A payment of a block that has a receipt.
pub(super) enum Paid {
    /// The next one that the machine has executed.
    Executed,
    /// One of this client that is only counted.
    Counted(u32),
}

/// A payment under way that the machine executes.
pub(super) struct Waiting {
    client: u32,
    since: Ns,
    bytes: Option<Bytes>,
}

impl Group {
    /// A client makes a payment, and the router finds out where it goes.
    pub(super) fn pay(&mut self, now: Ns, client: u32) -> Result<(), String> {
        if now >= self.setting.times.clients_until {
            return Ok(());
        }
        let Some(clients) = &mut self.clients else { return Ok(()) };
        let bytes = match clients.next() {
            Payment::Executed(bytes) => {
                self.begun(now, client, &bytes)?;
                bytes
            }
            Payment::Counted => {
                if let Some(since) = self.counted.get_mut(client as usize) {
                    *since = Some(now);
                }
                token(client)
            }
        };
        let at = now + self.hop();
        self.later(at, Event::Ingest(bytes));
        Ok(())
    }

    /// A payment that will be executed is under way.
    fn begun(&mut self, now: Ns, client: u32, bytes: &Bytes) -> Result<(), String> {
        let directory = &self.setting.directory;
        let tx = ParsedTx::decode(&directory.cluster, bytes).map_err(|reject| format!("{reject:?}"))?;
        let planned = plan(&directory.genesis.layout, &tx);
        if planned != Ok(Plan::One(self.id)) {
            return Err(format!("the router sends a payment of this shard to {planned:?}"));
        }
        let kept = self.setting.record.then(|| bytes.clone());
        self.waiting.insert(tx.txid, Waiting { client, since: now, bytes: kept });
        Ok(())
    }

    /// Tells a client what became of its payment.
    pub(super) fn receipt(&mut self, now: Ns, receipt: Receipt) {
        let Some(Waiting { client, since, bytes }) = self.waiting.remove(&receipt.txid) else { return };
        let at = now + self.hop();
        match receipt.outcome {
            Outcome::Committed { mail } => {
                if self.counts(now) {
                    self.stats.payments += 1;
                    self.stats.crossing += u64::from(!mail.is_empty());
                    self.stats.receipt_us.push(micros(at - since));
                }
                for (dest, seq) in mail {
                    self.crossing.entry(dest).or_default().push_back((seq, since));
                }
                self.executed.extend(bytes);
                self.paid += 1;
            }
            Outcome::Rejected(_) | Outcome::Aborted { .. } => self.stats.refused += 1,
        }
        self.later(at, Event::Pay(client));
    }

    /// Tells a client of the receipt of a payment that is only counted.
    pub(super) fn counted_receipt(&mut self, now: Ns, client: u32) {
        let Some(since) = self.counted.get_mut(client as usize).and_then(Option::take) else { return };
        let at = now + self.hop();
        if self.counts(now) {
            self.stats.payments += 1;
            self.stats.receipt_us.push(micros(at - since));
        }
        self.paid += 1;
        self.later(at, Event::Pay(client));
    }

    /// As [`Group::refused`], of one that is only counted.
    pub(super) fn counted_refused(&mut self, now: Ns, client: u32) {
        if self.counted.get_mut(client as usize).and_then(Option::take).is_some() {
            self.stats.refused += 1;
            let at = now + self.hop();
            self.later(at, Event::Pay(client));
        }
    }

    /// A payment came to nothing; its client goes on with the next one.
    pub(super) fn refused(&mut self, now: Ns, txid: &TxId) {
        let Some(Waiting { client, .. }) = self.waiting.remove(txid) else { return };
        self.stats.refused += 1;
        let at = now + self.hop();
        self.later(at, Event::Pay(client));
    }

    /// Another group has proved how far it has taken our mail.
    pub(super) fn took(&mut self, now: Ns, dest: GroupId, next_seq: u64) {
        let (counts, at) = (self.counts(now), now + self.hop());
        let Some(crossing) = self.crossing.get_mut(&dest) else { return };
        while let Some((_, since)) = crossing.front().copied().filter(|(seq, _)| *seq < next_seq) {
            crossing.pop_front();
            if counts {
                self.stats.applied_us.push(micros(at - since));
            }
        }
    }
}

fn micros(ns: Ns) -> u32 {
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

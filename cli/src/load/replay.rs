//! Sends a history by its schedule and accounts for the result.
//!
//! The path of a transfer: the schedule releases it, it is signed (ahead of time where there is
//! room for that), sent, committed in its payer's shard, visible to its payee; each step is reported
//! back to the schedule, which releases what that funds. At the end the balances are read from the
//! ledger, not computed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use client::{Client, PreparedTx, SubmitEvent, SubmitEvents, SubmitOptions, SubmitSender};
use hashbrown::HashMap;
use indicatif::ProgressBar;
use ledger::{Address, Outcome, Reject, TxId};
use rayon::prelude::*;
use serde::Serialize;

use super::agree::{Agreed, agree};
use super::drive::{GIVE_UP_AFTER, micros, unknown_fate};
use super::latency::{Latencies, Percentiles};
use super::sign::{Party, Payment, Signer, parties};
use super::stage::Stage;
use super::{Phase, Phases};
use crate::error::CliError;
use crate::health::GroupLine;
use crate::history::{self, Balances, History, MalformedLine, OutOfTurn, Schedule, execute, state_sha256};
use crate::output::{Output, rounded};

/// More transfers than this are signed when they are sent, not ahead, to bound memory.
const AHEAD_MAX: usize = 500_000;
/// Signed one by one below this many at once; spreading costs more than it gives.
const PARALLEL_FROM: usize = 32;
/// How often the fate of a transfer is asked for again after a time-out.
const ASK_AGAIN_MAX: u32 = 3;
/// How long a rate-limited replay sleeps between two looks.
const PACE: Duration = Duration::from_millis(2);

/// What is sent, and how.
pub struct Plan<'a> {
    /// The history.
    pub history: &'a History,
    /// Balances before the first transfer.
    pub opening: &'a Balances,
    /// Which transfers may be in flight at once.
    pub order: history::Order,
    /// Transfers a second at most.
    pub rate: Option<u64>,
    /// Transfers in flight at most.
    pub in_flight: usize,
    /// Keys are derived from this and the account string.
    pub seed: Vec<u8>,
    /// Symbol of the asset that is issued for the run.
    pub symbol: String,
    /// Where the final balances are written.
    pub balances_file: Option<PathBuf>,
}

/// A malformed line, for the report.
#[derive(Clone, Debug, Serialize)]
pub struct MalformedEntry {
    /// The file.
    pub file: String,
    /// The line.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// What a replay found. The first fields have a fixed form for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Payments in the history.
    pub transfers: u64,
    /// Rows that are no payment.
    pub skipped: u64,
    /// Payments executed and credited.
    pub committed: u64,
    /// Payments the ledger refused.
    pub rejected: u64,
    /// Accounts named by the history and the opening balances.
    pub accounts: u64,
    /// Shards of the main ledger.
    pub shards: u64,
    /// Replicas of the smallest shard.
    pub replicas: u64,
    /// Committed payments between two shards.
    pub cross_shard: u64,
    /// From the first payment sent to the last one visible.
    pub seconds: f64,
    /// Committed payments a second.
    pub tps: f64,
    /// From sending to the receipt.
    pub latency_ms: Percentiles,
    /// Sum of all balances before, read from the ledger.
    pub supply_before: String,
    /// Sum of all balances after, read from the ledger.
    pub supply_after: String,
    /// Whether the two are equal.
    pub conserved: bool,
    /// Hash over the final balances.
    pub state_sha256: String,
    /// Whether every replica of every group had the same header and state at the same height.
    pub replicas_agree: bool,
    /// Whether the final state is that of sequential execution.
    pub matches_sequential: bool,
    /// Refusals by code.
    pub rejections: BTreeMap<String, u64>,
    /// Rows without a receiver, part of `skipped`.
    pub skipped_no_receiver: u64,
    /// Rows with amount zero, part of `skipped`.
    pub skipped_zero_amount: u64,
    /// Rows that could not be understood.
    pub malformed: u64,
    /// The first of them.
    pub malformed_lines: Vec<MalformedEntry>,
    /// Payments never sent, because one that was to fund them was refused.
    pub unsent: u64,
    /// The asset of the run.
    pub asset: String,
    /// The groups at the end.
    pub groups: Vec<GroupLine>,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

impl Report {
    /// The error that a wrong result ends the command with.
    ///
    /// # Errors
    /// `replay_not_conserved`, `replicas_disagree` or `replay_stalled`.
    pub fn check(&self) -> Result<(), CliError> {
        let see = "keep the cluster's folder and report it: this must not happen";
        let problems = || {
            if self.problems.is_empty() { String::new() } else { format!(": {}", self.problems.join("; ")) }
        };
        if !self.conserved {
            let cause = format!("the supply was {} before and is {} now", self.supply_before, self.supply_after);
            return Err(CliError::new("replay_not_conserved", cause, see).after_report());
        }
        if !self.replicas_agree {
            let cause = format!("not all replicas agree{}", problems());
            return Err(CliError::new(
                "replicas_disagree",
                cause,
                "see 'seamark status': a replica is missing, behind or wrong",
            )
            .after_report());
        }
        if self.unsent > 0 {
            let cause = format!(
                "{} payments were never sent, because one that was to fund them was refused{}",
                self.unsent,
                problems()
            );
            return Err(CliError::new("replay_stalled", cause, "see the refusals in the report").after_report());
        }
        Ok(())
    }
}

/// Replays a history on a cluster.
///
/// # Errors
/// What the cluster refuses or does not answer; a result that is wrong is no error here.
pub async fn replay(
    client: &Client,
    issuer: Party,
    plan: &Plan<'_>,
    output: Output,
    mut phases: Phases,
) -> Result<Report, CliError> {
    let history = plan.history;
    let names: Vec<&str> = history.accounts.iter().map(|(_, name)| name).collect();
    let parties = tokio::task::block_in_place(|| parties(&plan.seed, &names));
    let addresses: Vec<Address> = parties.iter().map(|party| party.address).collect();
    phases.end("derive keys");

    let stage = Stage::set(client, issuer, &plan.symbol).await?;
    let portions = history.accounts.iter().map(|(ix, _)| (addresses[ix.at()], plan.opening.get(ix)));
    stage.mint(&portions.collect::<Vec<_>>(), output).await?;
    let before = stage.balances(&addresses).await?;
    phases.end("fund accounts");

    let mut book = Book::new(history, &parties, &stage.signer);
    let last_send = plan.rate.map(|rate| history.transfers.len() as u64 / rate.max(1));
    if history.transfers.len() <= AHEAD_MAX && last_send.is_none_or(|seconds| seconds < 3600) {
        tokio::task::block_in_place(|| book.sign_ahead());
    }
    phases.end("sign");

    let mut run = Run::new(plan, book);
    let bar = output.bar(history.transfers.len() as u64, "replaying");
    run.drive(client, &bar).await?;
    bar.finish_and_clear();
    phases.end("send and settle");

    let after = stage.balances(&addresses).await?;
    phases.end("read balances");
    let agreed = agree(client).await?;
    phases.end("compare replicas");
    run.report(&stage, &before, after, agreed, phases.finish())
}

/// Every transfer as a transaction: signed ahead, or when it is asked for.
struct Book<'a> {
    history: &'a History,
    parties: &'a [Party],
    signer: &'a Signer,
    ahead: Vec<Option<PreparedTx>>,
}

impl<'a> Book<'a> {
    fn new(history: &'a History, parties: &'a [Party], signer: &'a Signer) -> Self {
        Self { history, parties, signer, ahead: Vec::new() }
    }

    fn sign(&self, transfer: u32) -> PreparedTx {
        let row = &self.history.transfers[transfer as usize];
        let from = &self.parties[row.from.at()];
        let to = self.parties[row.to.at()].address;
        self.signer.pay(&Payment { index: u64::from(transfer), from, to, amount: row.amount })
    }

    fn sign_ahead(&mut self) {
        let all = u32::try_from(self.history.transfers.len()).unwrap_or(u32::MAX);
        self.ahead = (0..all).into_par_iter().map(|transfer| Some(self.sign(transfer))).collect();
    }

    /// The transactions of these transfers. Signing is deterministic, so asking again gives the
    /// same bytes.
    fn take(&mut self, transfers: &[u32]) -> Vec<PreparedTx> {
        let ready = transfers.iter().map(|at| self.ahead.get_mut(*at as usize).and_then(Option::take));
        let ready: Vec<Option<PreparedTx>> = ready.collect();
        let finish = |(tx, transfer): (Option<PreparedTx>, &u32)| tx.unwrap_or_else(|| self.sign(*transfer));
        if ready.iter().filter(|tx| tx.is_none()).count() < PARALLEL_FROM {
            return ready.into_iter().zip(transfers).map(finish).collect();
        }
        tokio::task::block_in_place(|| ready.into_par_iter().zip(transfers.par_iter()).map(finish).collect())
    }
}

struct Flight {
    transfer: u32,
    sent_micros: u64,
    asked_again: u32,
    receipt: bool,
}

/// A replay while it runs.
struct Run<'a> {
    plan: &'a Plan<'a>,
    book: Book<'a>,
    schedule: Schedule,
    flights: HashMap<TxId, Flight>,
    latencies: Latencies,
    start: Instant,
    end: Instant,
    sent: u64,
    committed: Vec<u32>,
    rejected: BTreeMap<String, u64>,
    malformed: Vec<MalformedEntry>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan<'a>, book: Book<'a>) -> Self {
        let now = Instant::now();
        let history = plan.history;
        let entry = |line: &MalformedLine| MalformedEntry {
            file: history.files.get(line.file).cloned().unwrap_or_default(),
            line: line.line,
            reason: line.reason.to_string(),
        };
        Self {
            plan,
            book,
            schedule: Schedule::new(plan.order, history, plan.opening),
            flights: HashMap::new(),
            latencies: Latencies::default(),
            start: now,
            end: now,
            sent: 0,
            committed: Vec::new(),
            rejected: BTreeMap::new(),
            malformed: history.malformed.first.iter().map(entry).collect(),
        }
    }

    async fn drive(&mut self, client: &Client, bar: &ProgressBar) -> Result<(), CliError> {
        let in_flight_max = self.plan.in_flight.max(1);
        let options = SubmitOptions { in_flight_max, notify_applied: true, give_up_after: GIVE_UP_AFTER };
        let (sender, mut events) = client.submit_stream(options).split();
        self.start = Instant::now();
        self.end = self.start;
        while !self.schedule.is_finished() {
            let paced = self.send_ready(&sender).await?;
            if self.schedule.is_stalled() {
                break;
            }
            self.hear(&sender, &mut events, paced).await?;
            bar.set_position(self.committed.len() as u64 + self.rejections());
        }
        Ok(())
    }

    /// Sends what may be sent now. True when only the rate holds the rest back.
    async fn send_ready(&mut self, sender: &SubmitSender) -> Result<bool, CliError> {
        let due = self.plan.rate.map_or(u64::MAX, |rate| {
            let due = self.start.elapsed().as_secs_f64() * rate as f64;
            // The first one is due at once.
            (due as u64 + 1).saturating_sub(self.sent)
        });
        // Never more than the stream takes without waiting: this task is the one that reads it.
        let room = sender.room().min(usize::try_from(due).unwrap_or(usize::MAX));
        let ready = self.schedule.ready(room);
        if ready.is_empty() {
            return Ok(due == 0 && self.schedule.unsent() > 0);
        }
        let txs = self.book.take(&ready);
        let sent_micros = micros(self.start.elapsed());
        for (tx, transfer) in txs.iter().zip(&ready) {
            let flight = Flight { transfer: *transfer, sent_micros, asked_again: 0, receipt: false };
            self.flights.insert(tx.txid, flight);
        }
        self.sent += ready.len() as u64;
        sender.send_prepared(txs).await?;
        Ok(self.plan.rate.is_some())
    }

    /// Takes the events that are there; with `paced`, waits for them only a moment.
    async fn hear(&mut self, sender: &SubmitSender, events: &mut SubmitEvents, paced: bool) -> Result<(), CliError> {
        let batch = tokio::select! {
            batch = events.next_events() => batch,
            () = tokio::time::sleep(PACE), if paced => return Ok(()),
        };
        let ended = || {
            CliError::new(
                "stream_ended",
                "the submit stream has ended before every fate was known",
                "see 'seamark status' and the logs of the nodes",
            )
        };
        let mut again = Vec::new();
        for event in batch.ok_or_else(ended)? {
            self.take(event, &mut again)?;
        }
        if !again.is_empty() {
            let txs = self.book.take(&again);
            sender.send_prepared(txs).await?;
        }
        Ok(())
    }

    fn take(&mut self, event: SubmitEvent, again: &mut Vec<u32>) -> Result<(), CliError> {
        let txid = event.txid();
        // A transfer between accounts of one shard has ended with its receipt.
        let Some(flight) = self.flights.get_mut(&txid) else {
            return Ok(());
        };
        let transfer = flight.transfer;
        let reported = match event {
            SubmitEvent::Receipt(receipt) => {
                let now = micros(self.start.elapsed());
                if !std::mem::replace(&mut flight.receipt, true) {
                    self.latencies.record(now.saturating_sub(flight.sent_micros));
                }
                match receipt.outcome {
                    Outcome::Committed { mail } if mail.is_empty() => self.visible(txid, transfer),
                    Outcome::Committed { .. } => self.schedule.committed(transfer),
                    Outcome::Rejected(reject) | Outcome::Aborted { reason: reject, .. } => {
                        self.refused(txid, transfer, reject.code())
                    }
                }
            }
            // A transfer has one payer, so its group alone decides.
            SubmitEvent::Decided { .. } => {
                let cause = "one payer, and several groups voted".to_owned();
                return Err(client::ClientError::Protocol(cause).into());
            }
            SubmitEvent::Applied(_) => self.visible(txid, transfer),
            SubmitEvent::Refused { reject: Some(Reject::TooLate), detail, .. } => {
                flight.asked_again += 1;
                if flight.asked_again > ASK_AGAIN_MAX || flight.receipt {
                    return Err(unknown_fate(txid, &detail));
                }
                again.push(transfer);
                Ok(())
            }
            SubmitEvent::Refused { code, .. } => self.refused(txid, transfer, &code),
        };
        reported.map_err(|error: OutOfTurn| {
            let cause = format!("the cluster answered out of turn: {error}");
            CliError::new("replay_out_of_turn", cause, "keep the cluster's folder and report it: this must not happen")
        })
    }

    fn visible(&mut self, txid: TxId, transfer: u32) -> Result<(), OutOfTurn> {
        self.flights.remove(&txid);
        self.committed.push(transfer);
        self.end = Instant::now();
        self.schedule.visible(transfer)
    }

    fn refused(&mut self, txid: TxId, transfer: u32, code: &str) -> Result<(), OutOfTurn> {
        self.flights.remove(&txid);
        *self.rejected.entry(code.to_owned()).or_default() += 1;
        self.end = Instant::now();
        self.schedule.rejected(transfer)
    }

    fn rejections(&self) -> u64 {
        self.rejected.values().sum()
    }

    fn report(
        self,
        stage: &Stage,
        before: &[u128],
        after: Vec<u128>,
        agreed: Agreed,
        phases: Vec<Phase>,
    ) -> Result<Report, CliError> {
        let history = self.plan.history;
        let crosses = |transfer: &&u32| {
            let row = &history.transfers[**transfer as usize];
            let home = |ix: history::AccountIx| stage.home(&self.book.parties[ix.at()].address);
            home(row.from) != home(row.to)
        };
        let seconds = self.end.duration_since(self.start).as_secs_f64();
        let committed = self.committed.len() as u64;
        let (supply_before, supply_after) = (sum(before), sum(&after));
        let too_large = |error| {
            CliError::new("replay_supply", error, "keep the cluster's folder and report it: this must not happen")
        };
        let balances = Balances::new(after).map_err(too_large)?;
        let expected = execute(history, self.plan.opening);
        if let Some(path) = &self.plan.balances_file {
            history::save_balances(path, &history.accounts, &balances)?;
        }
        let state = state_sha256(&history.accounts, &balances);
        let shards = stage.layout.shards.iter().map(|shard| shard.group.to_string());
        let shards: Vec<String> = shards.collect();
        let replicas =
            agreed.groups.iter().filter(|line| shards.contains(&line.group)).map(|line| line.replicas.len()).min();
        Ok(Report {
            transfers: history.transfers.len() as u64,
            skipped: history.skipped.total(),
            committed,
            rejected: self.rejections(),
            accounts: history.accounts.len() as u64,
            shards: shards.len() as u64,
            replicas: replicas.unwrap_or(0) as u64,
            cross_shard: self.committed.iter().filter(crosses).count() as u64,
            seconds: rounded(seconds),
            tps: rounded(if seconds > 0.0 { committed as f64 / seconds } else { 0.0 }),
            latency_ms: self.latencies.percentiles(),
            conserved: supply_before.is_some() && supply_before == supply_after,
            supply_before: text_of(supply_before),
            supply_after: text_of(supply_after),
            matches_sequential: state == state_sha256(&history.accounts, &expected.balances),
            state_sha256: state,
            replicas_agree: agreed.agree,
            rejections: self.rejected.clone(),
            skipped_no_receiver: history.skipped.no_receiver,
            skipped_zero_amount: history.skipped.zero_amount,
            malformed: history.malformed.total,
            malformed_lines: self.malformed,
            unsent: self.schedule.unsent() as u64,
            asset: stage.asset.to_string(),
            groups: agreed.groups,
            phases,
            problems: agreed.problems,
        })
    }
}

fn sum(balances: &[u128]) -> Option<u128> {
    balances.iter().try_fold(0u128, |sum, balance| sum.checked_add(*balance))
}

fn text_of(supply: Option<u128>) -> String {
    supply.map_or_else(|| "more than 128 bits".to_owned(), |supply| supply.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with every field, for tests of its text and JSON.
    pub(crate) fn example() -> Report {
        Report {
            transfers: 3,
            skipped: 1,
            committed: 3,
            rejected: 0,
            accounts: 2,
            shards: 4,
            replicas: 3,
            cross_shard: 2,
            seconds: 0.5,
            tps: 6.0,
            latency_ms: Percentiles { p50: 10.0, p99: 20.0 },
            supply_before: "100".to_owned(),
            supply_after: "100".to_owned(),
            conserved: true,
            state_sha256: "ab".repeat(32),
            replicas_agree: true,
            matches_sequential: true,
            rejections: BTreeMap::new(),
            skipped_no_receiver: 1,
            skipped_zero_amount: 0,
            malformed: 0,
            malformed_lines: Vec::new(),
            unsent: 0,
            asset: "00".repeat(16),
            groups: Vec::new(),
            phases: vec![Phase { name: "sign", seconds: 0.1 }],
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let json = serde_json::to_value(example()).unwrap();
        for field in [
            "transfers",
            "skipped",
            "committed",
            "rejected",
            "accounts",
            "shards",
            "replicas",
            "cross_shard",
            "seconds",
            "tps",
            "latency_ms",
            "supply_before",
            "supply_after",
            "conserved",
            "state_sha256",
            "replicas_agree",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert!(json["latency_ms"].get("p50").is_some() && json["latency_ms"].get("p99").is_some());
    }

    #[test]
    fn a_wrong_result_is_an_error_after_the_report() {
        assert!(example().check().is_ok());
        let code = |report: Report| report.check().unwrap_err();
        let lost = code(Report { conserved: false, ..example() });
        assert_eq!((lost.code.as_str(), lost.reported), ("replay_not_conserved", true));
        assert_eq!(code(Report { replicas_agree: false, ..example() }).code, "replicas_disagree");
        assert_eq!(code(Report { unsent: 4, ..example() }).code, "replay_stalled");
    }

    #[test]
    fn signing_ahead_and_on_demand_give_the_same_bytes() {
        let mut reader = history::HistoryReader::default();
        reader.add("h", &b"from,to,amount\na,b,1\nb,a,2\na,a,3\n"[..]).unwrap();
        let history = reader.finish();
        let parties = parties(b"seed", &["a", "b"]);
        let signer = Signer::new(ledger::ClusterId::default(), ledger::AssetId([1; 16])).unwrap();
        let mut book = Book::new(&history, &parties, &signer);
        let on_demand = book.take(&[0, 1, 2]);
        book.sign_ahead();
        let ahead = book.take(&[0, 1, 2]);
        let again = book.take(&[2]);
        let bytes = |txs: &[PreparedTx]| txs.iter().map(|tx| tx.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&ahead), bytes(&on_demand));
        assert_eq!(bytes(&again), bytes(&ahead[2..]));
    }
}

//! One who uses the bank: what is sent, how often, and what is heard of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, Consistency, SubmitEvent, SubmitOptions};
use ledger::{GroupId, Hash32, LedgerId, Move, Opening, Reject, SecretKey, SignedTx, Slot, Submission, TimeMs, TxId};
use tokio::sync::watch;

use super::Town;
use crate::history::{Fate, Kind, Leg, Read, Time, Transfer};
use crate::support::bank::{Wallet, body, now_ms};
use crate::support::in_time;
use crate::support::random::Random;

/// How long one attempt may take before the same bytes are sent again, over another connection.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A little less than half of what is done are reads.
const READS_PERCENT: u64 = 45;

/// A transaction, and what was heard of it.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) txid: TxId,
    pub(super) valid_until_ms: u64,
    /// The groups that vote on it, sorted.
    pub(super) voters: Vec<GroupId>,
    pub(super) transfer: Transfer,
    /// What was sent.
    bytes: Bytes,
    /// Its sender did not hear its fate before it did something else.
    pub(super) late: bool,
    /// It was refused, and nobody wrote a receipt.
    pub(super) traceless: bool,
    pub(super) attempts: usize,
    /// One group lacks what it has to vote on.
    pub(super) half_open: bool,
}

impl Deed {
    /// Sends the same bytes until the fate is known, and notes it as known now. What happened meanwhile
    /// is over when all mail has been taken.
    pub(super) async fn ask_again(&mut self, town: &Town, client: &Client) {
        let mut told = Told { half_open: self.half_open, ..Told::default() };
        let asking = async {
            while told.fate == Fate::Unknown {
                attempt(town, client, self.bytes.clone(), &mut told).await;
            }
        };
        in_time("the fate of a transaction that is sent again", asking).await;
        self.traceless = told.traceless;
        self.transfer.fate = told.fate;
        self.transfer.decided = told.decided;
    }
}

/// Everything that customers did and saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) deeds: Vec<Deed>,
    pub(super) reads: Vec<Read>,
}

impl Seen {
    pub(super) fn add(&mut self, more: Self) {
        self.deeds.extend(more.deeds);
        self.reads.extend(more.reads);
    }
}

/// What is about to be sent.
#[derive(Default)]
struct Draft {
    moves: Vec<Move>,
    /// Account, whether it is debited, and how much.
    legs: Vec<(usize, bool, u128)>,
    payers: Vec<usize>,
    voters: Vec<GroupId>,
}

/// One who uses the bank.
pub(super) struct Customer {
    town: Arc<Town>,
    client: Client,
    number: usize,
    random: Random,
    sent: u64,
    seen: Seen,
}

impl Customer {
    pub(super) fn new(town: Arc<Town>, client: Client, number: usize, seed: u64) -> Self {
        let client = client.with_patience(ATTEMPT);
        Self { town, client, number, random: Random::new(seed), sent: 0, seen: Seen::default() }
    }

    /// Uses the bank until it is told to stop.
    pub(super) async fn live(mut self, stopped: watch::Receiver<bool>) -> Seen {
        while !*stopped.borrow() {
            if self.random.percent(READS_PERCENT) {
                let account = self.account(None);
                self.seen.reads.extend(read(&self.town, &self.client, account).await);
            } else {
                let deed = self.transact().await;
                self.seen.deeds.push(deed);
            }
        }
        self.seen
    }

    /// An account, in this shard if one is named.
    fn account(&mut self, shard: Option<GroupId>) -> usize {
        let all: Vec<usize> =
            (0..self.town.wallets.len()).filter(|at| shard.is_none_or(|shard| self.town.homes[*at] == shard)).collect();
        *self.random.of(&all)
    }

    fn amount(&mut self) -> u128 {
        // Some are more than an account may have.
        if self.random.percent(6) {
            600 + u128::from(self.random.below(900))
        } else {
            1 + u128::from(self.random.below(20))
        }
    }

    fn add(&mut self, draft: &mut Draft, from: usize, to: usize, sync: bool) {
        let (asset, amount) = (self.town.bank.asset, self.amount());
        let [payer, payee] = [from, to].map(|at| self.town.wallets[at].address);
        draft.moves.push(match sync {
            true => Move::PaySync { from: payer, to: payee, asset, amount },
            false => Move::Pay { from: payer, to: payee, asset, amount },
        });
        draft.legs.extend([(from, true, amount), (to, false, amount)]);
        draft.payers.push(from);
        let homes = &self.town.homes;
        draft.voters.extend([homes[from]].into_iter().chain(sync.then_some(homes[to])));
        draft.voters.sort_unstable();
        draft.voters.dedup();
    }

    /// Another account than this one.
    fn other(&mut self, than: usize) -> usize {
        loop {
            let account = self.account(None);
            if account != than {
                return account;
            }
        }
    }

    async fn transact(&mut self) -> Deed {
        let mut draft = Draft::default();
        let kind = self.random.below(100);
        let (swap, half_open) = (kind >= 45, kind >= 94);
        if swap {
            // Both sides pay, so both groups vote.
            for shard in [GroupId::shard(0), GroupId::shard(1)] {
                let from = self.account(Some(shard));
                let to = self.other(from);
                self.add(&mut draft, from, to, false);
            }
        } else {
            let from = self.account(None);
            let to = self.other(from);
            self.add(&mut draft, from, to, kind < 10);
        }
        // Half of them are short of time.
        let valid_for = match (half_open, self.random.percent(50)) {
            (true, _) => 500 + self.random.below(1_000),
            (false, true) => 1_000 + self.random.below(4_000),
            (false, false) => 10_000 + self.random.below(10_000),
        };
        self.send(draft, valid_for, half_open).await
    }

    async fn send(&mut self, draft: Draft, valid_for: u64, half_open: bool) -> Deed {
        let town = Arc::clone(&self.town);
        let cluster = town.bank.client.cluster_id();
        self.sent += 1;
        let mut body = body(cluster, self.number as u64 * 1_000_000_000 + self.sent, draft.moves.clone());
        body.valid_until_ms = TimeMs(now_ms() + valid_for);
        let mut openings = Vec::new();
        if half_open {
            // One side's move is shown, the other one's is not, to nobody.
            for (slot, mv) in (0..).zip(&draft.moves) {
                let opening = Opening { slot, salt: Hash32([7; 32]), mv: mv.clone() };
                let group = town.homes[draft.payers[usize::from(slot)]];
                body.slots[usize::from(slot)] = Slot::Hidden { ledger: LedgerId::MAIN, group, hash: opening.hash() };
                openings.push(opening);
            }
            openings.remove(usize::from(self.random.percent(50)));
        }
        let keys: Vec<&SecretKey> = draft.payers.iter().map(|payer| &town.wallets[*payer].key).collect();
        let tx = SignedTx::sign(&body, &keys);
        let (txid, signed) = (tx.txid(&cluster), tx.encode());
        let bytes: Bytes = if half_open { Submission::encode(signed, openings).into() } else { signed.into() };

        let invoked = town.now();
        let mut told = Told { half_open, ..Told::default() };
        let mut attempts = 0;
        // Every other customer does not ask again. What became of it is found out in the end.
        let patient = self.number.is_multiple_of(2);
        while told.fate == Fate::Unknown && (patient || attempts == 0) {
            attempts += 1;
            attempt(&town, &self.client, bytes.clone(), &mut told).await;
        }
        let several = draft.voters.len() > 1;
        while told.fate == Fate::Yes && told.applied.is_none() {
            // Its credits are somewhere: the same bytes again tell when they have arrived.
            attempt(&town, &self.client, bytes.clone(), &mut told).await;
        }
        if told.fate == Fate::No {
            if several && !told.traceless {
                released(&self.client, txid).await;
            }
            told.applied = Some(town.now());
        }
        if told.fate == Fate::Yes {
            town.executed.lock().push((invoked, draft.voters.clone()));
        }
        let leg = |(account, debit, amount): (usize, bool, u128)| {
            let home = town.homes[account];
            let kind = match (debit, several) {
                (true, false) => Kind::Debit,
                (true, true) => Kind::Held,
                (false, false) if draft.voters == [home] => Kind::Credit,
                (false, _) => Kind::Mailed,
            };
            let known = told.heights.iter().find(|(group, _)| *group == home).map(|(_, height)| *height);
            Leg { account, kind, amount, at: known.filter(|_| kind != Kind::Mailed), over: None }
        };
        let had_part = |leg: &(usize, bool, u128)| {
            let refused = leg.1 && several && told.refused.contains(&town.homes[leg.0]);
            !refused && !told.traceless
        };
        let legs = draft.legs.into_iter().filter(had_part).map(leg).collect();
        let Told { fate, decided, applied, traceless, .. } = told;
        let transfer = Transfer { invoked, fate, decided, applied, legs };
        let (voters, valid_until_ms) = (draft.voters, body.valid_until_ms.0);
        let late = fate == Fate::Unknown;
        Deed { txid, valid_until_ms, voters, transfer, bytes, late, traceless, attempts, half_open }
    }
}

/// What a customer has heard of a transaction.
struct Told {
    fate: Fate,
    decided: Option<Time>,
    applied: Option<Time>,
    traceless: bool,
    /// The block of the receipt, or of each YES.
    heights: Vec<(GroupId, u64)>,
    /// Who said no, and held nothing.
    refused: Vec<GroupId>,
    /// As in [`Deed::half_open`].
    half_open: bool,
}

impl Default for Told {
    fn default() -> Self {
        let (heights, refused) = (Vec::new(), Vec::new());
        Self { fate: Fate::Unknown, decided: None, applied: None, traceless: false, heights, refused, half_open: false }
    }
}

impl Told {
    fn fate(&mut self, now: Time, yes: bool, heights: Vec<(GroupId, u64)>) {
        let fate = if yes { Fate::Yes } else { Fate::No };
        assert!(self.fate == Fate::Unknown || self.fate == fate, "{:?}, and now {fate:?}", self.fate);
        if self.fate == Fate::Unknown {
            (self.fate, self.decided, self.heights) = (fate, Some(now), heights);
        }
    }
}

/// Sends a transaction once and listens for as long as one attempt may take.
async fn attempt(town: &Town, client: &Client, bytes: Bytes, told: &mut Told) {
    let options = SubmitOptions { in_flight_max: 1, notify_applied: true, give_up_after: ATTEMPT };
    let mut stream = client.submit_stream(options);
    stream.send(vec![bytes]).await.unwrap();
    let listening = async {
        while let Some(events) = stream.next_events().await {
            for event in events {
                match event {
                    SubmitEvent::Receipt(receipt) => {
                        told.fate(town.now(), receipt.committed(), vec![(receipt.group, receipt.height.0)]);
                    }
                    SubmitEvent::Decided { votes, .. } => {
                        let yes = votes.iter().all(|vote| vote.no.is_none());
                        told.refused = votes.iter().filter(|vote| vote.no.is_some()).map(|vote| vote.group).collect();
                        let votes = votes.iter().filter(|vote| vote.no.is_none());
                        let heights = votes.filter_map(|vote| Some((vote.group, vote.height?.0))).collect();
                        told.fate(town.now(), yes, heights);
                    }
                    SubmitEvent::Applied(_) => {
                        told.applied = Some(town.now());
                        return;
                    }
                    SubmitEvent::Refused { reject, group, code, detail, .. } => {
                        let error = ClientError::Refused { reject, group, code, detail };
                        if told.fate == Fate::Unknown && error.is_final() {
                            told.fate(town.now(), false, Vec::new());
                            told.traceless = true;
                        } else {
                            // One side lacks its opening, which is what is told when the other side passes.
                            let lacks = told.half_open && reject == Some(Reject::HiddenSlot);
                            assert!(error.retryable() || lacks || told.fate == Fate::Yes, "{error}");
                        }
                        return;
                    }
                }
                if told.fate == Fate::No {
                    return;
                }
            }
        }
    };
    // In time or not: what was heard is in `told`.
    let _ = tokio::time::timeout(ATTEMPT, listening).await;
}

/// Waits until both groups are through with a transaction.
async fn released(client: &Client, txid: TxId) {
    let through = async {
        loop {
            if let Ok(known) = client.explain(txid).await
                && known.iter().filter(|explain| !explain.stale && explain.receipt.is_some()).count() == 2
            {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    in_time("both groups have applied a NO", through).await;
}

/// Reads an account; `None` when nobody answers, which tells nothing.
pub(super) async fn read(town: &Town, client: &Client, account: usize) -> Option<Read> {
    let Wallet { address, .. } = town.wallets[account];
    let invoked = town.now();
    let answer = client.account_view(address, Consistency::Linearizable, None).await;
    let completed = town.now();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            assert!(error.retryable(), "{error}");
            return None;
        }
    };
    let view = answer.value.expect("the account was funded");
    let (_, balance) = view.record.balances.iter().find(|(asset, _)| *asset == town.bank.asset)?;
    let (posted, held) = (balance.posted, balance.held);
    Some(Read { account, invoked, completed, height: answer.height.0, posted, held })
}

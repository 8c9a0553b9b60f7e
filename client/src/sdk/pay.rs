//! Submitting transactions and waiting for their fate.
//!
//! Owns the rule which answers are final. It never signs anew by itself: what was signed once is sent
//! again, and its bytes are in every error that leaves its fate open.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ledger::{
    Address, AssetId, Authorisation, GroupId, LedgerId, Move, Opening, Outcome, ParsedTx, Receipt, Reject, SecretKey,
    SignedTx, Slot, Submission, TimeMs, TxBody, TxId, Witness,
};
use proto::v1;
use rand::TryRngCore;

use crate::error::ClientError;
use crate::sdk::{Answer, Client, Consistency};
use crate::submit::{GroupVote, PreparedTx, SubmitEvent, SubmitOptions, SubmitStream, no_of};

/// How long a payment made by [`Client::pay`] may execute.
const VALID_FOR_MS: u64 = 5 * 60 * 1000;

/// When a submitted transaction counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Its fate is final: the receipt of the one group that decides, or the votes where several do.
    #[default]
    Receipt,
    /// It is applied in every group, all credits included.
    Applied,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// One group decided: its receipt.
    Receipt(Receipt),
    /// Several groups voted. Each has a receipt once it has applied the outcome, which
    /// [`Client::transaction`] finds.
    Votes {
        /// The transaction.
        txid: TxId,
        /// Every vote of a commit; of an abort those that the router held, a NO among them.
        votes: Vec<GroupVote>,
    },
}

impl Settled {
    /// The transaction.
    #[must_use]
    pub fn txid(&self) -> TxId {
        match self {
            Self::Receipt(receipt) => receipt.txid,
            Self::Votes { txid, .. } => *txid,
        }
    }

    /// Why nothing was executed, and which group said so; `None` when it was committed.
    #[must_use]
    pub fn no(&self) -> Option<(GroupId, Reject)> {
        match self {
            Self::Receipt(receipt) => match &receipt.outcome {
                Outcome::Committed { .. } => None,
                Outcome::Rejected(reason) => Some((receipt.group, *reason)),
                Outcome::Aborted { group, reason } => Some((*group, *reason)),
            },
            Self::Votes { votes, .. } => no_of(votes),
        }
    }

    /// Whether it was executed.
    #[must_use]
    pub fn committed(&self) -> bool {
        self.no().is_none()
    }

    /// The receipt, where one group decided.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Receipt(receipt) => Some(receipt),
            Self::Votes { .. } => None,
        }
    }
}

impl Client {
    /// Opens a stream for any number of transactions.
    #[must_use]
    pub fn submit_stream(&self, options: SubmitOptions) -> SubmitStream {
        SubmitStream::open(self.shared.routers.clone(), self.shared.cluster, options)
    }

    /// Sends one transaction and waits for its fate, which may be that it was rejected.
    ///
    /// # Errors
    /// [`ClientError`]; after `timeout`, [`ClientError::Unreachable`], [`ClientError::Protocol`] and
    /// [`ClientError::Closed`] the transaction may have executed, or may yet, and sending the same bytes
    /// again tells. [`ClientError::Unapplied`] when it is final and only the credits are unconfirmed.
    pub async fn submit(&self, tx: impl Into<Bytes>) -> Result<Settled, ClientError> {
        self.submit_and_wait(tx, Wait::Receipt).await
    }

    /// As [`Client::submit`], and waits for what `wait` says. Of a transaction with moves in several ledgers each
    /// ledger is given the witnesses of its own accounts; accounts whose keys were rotated are looked up for that.
    ///
    /// # Errors
    /// As [`Client::submit`]; [`ClientError::BadTransaction`] for one that spans ledgers and has a memo, or a witness
    /// that no account needs.
    pub async fn submit_and_wait(&self, tx: impl Into<Bytes>, wait: Wait) -> Result<Settled, ClientError> {
        let tx = self.dealt(tx.into()).await?;
        let options =
            SubmitOptions { in_flight_max: 1, notify_applied: wait == Wait::Applied, give_up_after: self.patience };
        let mut stream = self.submit_stream(options);
        stream.send(vec![tx]).await?;
        let mut fate: Option<Settled> = None;
        while let Some(events) = stream.next_events().await {
            for event in events {
                let settled = match event {
                    SubmitEvent::Receipt(receipt) => Settled::Receipt(receipt),
                    SubmitEvent::Decided { txid, votes } => Settled::Votes { txid, votes },
                    SubmitEvent::Applied(_) => return fate.ok_or(ClientError::Closed),
                    SubmitEvent::Refused { reject, group, code, detail, .. } => {
                        if let Some(settled) = fate {
                            return Err(ClientError::Unapplied { settled: Box::new(settled) });
                        }
                        let number = reject.map_or(0, |reject| u32::from(reject.number()));
                        let refusal = v1::Refusal { number, code, detail, ..v1::Refusal::default() };
                        return Err(ClientError::refused(&refusal).by(group));
                    }
                };
                if wait == Wait::Receipt || !settled.committed() {
                    return Ok(settled);
                }
                fate = Some(settled);
            }
        }
        Err(ClientError::Closed)
    }

    /// The bytes to send. Which ledger is given which witnesses is said here, so that no router has to guess. What
    /// cannot be read is sent as it is: a router says what is wrong with it.
    async fn dealt(&self, bytes: Bytes) -> Result<Bytes, ClientError> {
        let tx = match ParsedTx::decode_sent(&self.shared.cluster, &bytes) {
            Ok(tx) if tx.dealt.is_empty() && tx.body.spans_ledgers() => tx,
            Err(reject @ Reject::MemoAcrossLedgers) => return Err(ClientError::BadTransaction(reject)),
            Ok(_) | Err(_) => return Ok(bytes),
        };
        let placed = |witness: &Witness| {
            let mut voters = tx.visible().flat_map(|(_, _, mv)| mv.voters());
            voters.any(|voter| voter.authorises && voter.account == witness.auth.address())
        };
        if tx.witnesses.iter().all(placed) {
            let dealt = tx.dealt_by(|_, _| None).map_err(ClientError::BadTransaction)?;
            return Ok(dealt.encode().into());
        }
        let mut rules: Vec<(LedgerId, Address, Authorisation)> = Vec::new();
        for (_, ledger, mv) in tx.visible() {
            for voter in mv.voters().filter(|voter| voter.authorises) {
                let asked = self.account_of(ledger, voter.account, Consistency::Linearizable, false);
                let Ok(Answer { value: record, .. }) = Box::pin(asked).await else {
                    // Who may not ask there may not send there either, which a router says better.
                    return Ok(bytes);
                };
                rules.extend(record.and_then(|record| record.auth).map(|auth| (ledger, voter.account, auth)));
            }
        }
        let rule = |ledger: LedgerId, account: &Address| {
            let known = rules.iter().find(|(of, known, _)| *of == ledger && known == account);
            known.map(|(_, _, auth)| auth.clone())
        };
        let dealt = tx.dealt_by(rule).map_err(ClientError::BadTransaction)?;
        Ok(dealt.encode().into())
    }

    /// Sends an encoded [`SignedTx`] with openings of its hidden slots, sorted by slot, and waits.
    /// Each group gets only the openings of its own slots. Openings may also be left out here and
    /// handed over by somebody else.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_tx(
        &self,
        tx: impl Into<Bytes>,
        openings: Vec<Opening>,
        wait: Wait,
    ) -> Result<Settled, ClientError> {
        let tx: Bytes = tx.into();
        if openings.is_empty() {
            return self.submit_and_wait(tx, wait).await;
        }
        self.submit_and_wait(Submission::encode(tx.into(), openings), wait).await
    }

    /// Makes a body for these moves with a fresh salt, valid for five minutes.
    ///
    /// # Errors
    /// [`ClientError::Randomness`]; [`ClientError::BadTransaction`] for a memo that several ledgers could read.
    pub fn body(&self, moves: Vec<(LedgerId, Move)>, memo: &[u8]) -> Result<TxBody, ClientError> {
        let mut salt = [0; 16];
        rand::rngs::OsRng.try_fill_bytes(&mut salt).map_err(|error| ClientError::Randomness(error.to_string()))?;
        let body = TxBody {
            version: ledger::tx::BODY_VERSION,
            cluster: self.shared.cluster,
            valid_until_ms: TimeMs(now_ms() + VALID_FOR_MS),
            salt,
            slots: moves.into_iter().map(|(ledger, mv)| Slot::Clear { ledger, mv }).collect(),
            memo: memo.to_vec(),
        };
        if !body.memo.is_empty() && body.spans_ledgers() {
            return Err(ClientError::BadTransaction(Reject::MemoAcrossLedgers));
        }
        Ok(body)
    }

    /// Signs moves with single keys, sends them, and waits. A rejection is an error here.
    ///
    /// The call makes the salt, so calling it again pays again. Whoever cannot live with an open fate
    /// after a crash keeps the bytes first: [`Client::body`], [`SignedTx::sign`], [`Client::settle`].
    ///
    /// # Errors
    /// [`ClientError`]: [`ClientError::Rejected`] with the group that said no and why;
    /// [`ClientError::Unapplied`]; what says that these bytes never execute, such as `expired` or
    /// `bad_signature`; and [`ClientError::Unsettled`] with the id and the signed bytes for everything
    /// else that happened after they were signed and told no fate.
    pub async fn execute(
        &self,
        moves: Vec<(LedgerId, Move)>,
        memo: &[u8],
        keys: &[&SecretKey],
        wait: Wait,
    ) -> Result<Settled, ClientError> {
        let tx = SignedTx::sign(&self.body(moves, memo)?, keys);
        self.settle(Bytes::from(tx.encode()), wait).await
    }

    /// Sends a signed transaction, for the first time or again, and waits. A rejection is an error
    /// here.
    ///
    /// # Errors
    /// As [`Client::execute`]; [`ClientError::BadTransaction`] when the bytes are no transaction.
    pub async fn settle(&self, tx: Bytes, wait: Wait) -> Result<Settled, ClientError> {
        let prepared = PreparedTx::from_bytes(&self.shared.cluster, tx).map_err(ClientError::BadTransaction)?;
        let settled = match self.submit_and_wait(prepared.bytes.clone(), wait).await {
            Ok(settled) => settled,
            Err(error) if error.is_final() => return Err(error),
            Err(cause) => {
                let PreparedTx { txid, bytes: tx } = prepared;
                return Err(ClientError::Unsettled { txid, tx, cause: Box::new(cause) });
            }
        };
        match settled.no() {
            None => Ok(settled),
            Some((group, reject)) => Err(ClientError::Rejected { group, reject, settled: Box::new(settled) }),
        }
    }

    /// Pays from the account of a key. A payment has one payer, so one group decides it.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn pay(
        &self,
        key: &SecretKey,
        to: Address,
        asset: AssetId,
        amount: u128,
        wait: Wait,
    ) -> Result<Receipt, ClientError> {
        let from = Authorisation::Single(key.public()).address();
        let mv = Move::Pay { from, to, asset, amount };
        match self.execute(vec![(LedgerId::MAIN, mv)], b"", &[key], wait).await? {
            Settled::Receipt(receipt) => Ok(receipt),
            Settled::Votes { .. } => Err(ClientError::Protocol("one payer, and several groups voted".to_owned())),
        }
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 makes transactions that have expired, which the cluster says clearly.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

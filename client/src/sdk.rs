//! The client: one object for a whole cluster. It knows routers, never shards.
//!
//! Owns fail-over between routers, retries, and checking of proofs. Submitting is idempotent: the
//! same signed bytes may be sent any number of times, over any router, and have one fate.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::genesis::Genesis;
use ledger::{
    AccountRecord, Address, AssetDef, AssetId, ClusterId, GroupId, Hash32, Height, LedgerId, Move, Opening, Outcome,
    Receipt, Reject, SecretKey, SignedTx, Slot, Submission, TimeMs, TxBody, TxId,
};
use proto::v1::query_request::Query;
use proto::views::{AccountView, BlockView, Explain, HistoryPage};
use proto::{edge, v1};
use rand::TryRngCore;
use tonic::Status;

use crate::error::ClientError;
use crate::net;
use crate::profile::{Profile, RouterEndpoint};
use crate::proof::{self, Fact, ProofFile};
use crate::routers::{Backoff, Routers, connection_lost, error_of};
use crate::submit::{GroupVote, PreparedTx, SubmitEvent, SubmitOptions, SubmitStream, no_of};

/// How long calls are retried unless another time is set.
const PATIENCE: Duration = Duration::from_secs(20);
/// One attempt at a read.
const ATTEMPT: Duration = Duration::from_secs(6);
/// How long a payment made by [`Client::pay`] may execute.
const VALID_FOR_MS: u64 = 5 * 60 * 1000;
/// Accounts in one query.
const ACCOUNTS_PER_QUERY: usize = 4096;

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Reflects everything acknowledged before the call.
    #[default]
    Linearizable,
    /// Of this height of the group or later, from any replica.
    AtLeast(Height),
    /// Whatever a replica has.
    Stale,
}

/// An answer and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The group that answered.
    pub group: GroupId,
    /// Its height.
    pub height: Height,
    /// The value.
    pub value: T,
    /// The proof, if asked for; it has been checked against the genesis.
    pub proof: Option<ProofFile>,
}

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

/// What an organisation's command to the beacon has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandFate {
    /// What names the command: the digest that its admin signed.
    pub digest: Hash32,
    /// Organisations that have approved and how many have to; `None` when the change is in force.
    pub pending: Option<(u32, u32)>,
    /// The beacon's height at which this is known.
    pub height: Height,
}

/// A client of one cluster. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    patience: Duration,
}

struct Shared {
    cluster: ClusterId,
    genesis: Genesis,
    routers: Arc<Routers>,
}

impl Client {
    /// Connects by a profile and checks that the router serves the profile's cluster.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(profile: &Profile) -> Result<Self, ClientError> {
        let client = Self::lazy(profile)?;
        client.check_cluster().await?;
        Ok(client)
    }

    /// Builds a client that connects when first used. Nothing is checked before.
    ///
    /// # Errors
    /// [`ClientError::Profile`] or [`ClientError::Net`].
    pub fn lazy(profile: &Profile) -> Result<Self, ClientError> {
        let genesis = profile.genesis()?;
        let (identity, roots) = (profile.identity()?, profile.roots()?);
        let routers = Arc::new(Routers::new(&profile.routers, &identity, &roots)?);
        let shared = Shared { cluster: genesis.cluster_id(), genesis, routers };
        Ok(Self { shared: Arc::new(shared), patience: PATIENCE })
    }

    /// With another limit on how long a call is retried.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Its genesis, as the profile names it.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The router in use now. When it is lost, the next one of the profile takes its place.
    #[must_use]
    pub fn router(&self) -> &RouterEndpoint {
        self.shared.routers.current().1
    }

    async fn check_cluster(&self) -> Result<(), ClientError> {
        let reply = self.cluster().await?;
        let genesis: Genesis = edge::value("genesis", &reply.genesis)?;
        if genesis.cluster_id() == self.shared.cluster {
            return Ok(());
        }
        Err(ClientError::OtherCluster { addr: self.router().addr.clone() })
    }

    // ---- submitting

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

    /// As [`Client::submit`], and waits for what `wait` says.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_and_wait(&self, tx: impl Into<Bytes>, wait: Wait) -> Result<Settled, ClientError> {
        let options =
            SubmitOptions { in_flight_max: 1, notify_applied: wait == Wait::Applied, give_up_after: self.patience };
        let mut stream = self.submit_stream(options);
        stream.send(vec![tx.into()]).await?;
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
    /// [`ClientError::Randomness`].
    pub fn body(&self, moves: Vec<(LedgerId, Move)>, memo: &[u8]) -> Result<TxBody, ClientError> {
        let mut salt = [0; 16];
        rand::rngs::OsRng.try_fill_bytes(&mut salt).map_err(|error| ClientError::Randomness(error.to_string()))?;
        Ok(TxBody {
            version: ledger::tx::BODY_VERSION,
            cluster: self.shared.cluster,
            valid_until_ms: TimeMs(now_ms() + VALID_FOR_MS),
            salt,
            slots: moves.into_iter().map(|(ledger, mv)| Slot::Clear { ledger, mv }).collect(),
            memo: memo.to_vec(),
        })
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
        let from = ledger::Authorisation::Single(key.public()).address();
        let mv = Move::Pay { from, to, asset, amount };
        match self.execute(vec![(LedgerId::MAIN, mv)], b"", &[key], wait).await? {
            Settled::Receipt(receipt) => Ok(receipt),
            Settled::Votes { .. } => Err(ClientError::Protocol("one payer, and several groups voted".to_owned())),
        }
    }

    // ---- reading

    /// The record of an account; `None` when there is none. A proof is checked here.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn account(
        &self,
        address: Address,
        consistency: Consistency,
        prove: bool,
    ) -> Result<Answer<Option<AccountRecord>>, ClientError> {
        let query = v1::AccountQuery { address: Bytes::copy_from_slice(&address.0) };
        let reply = self.query(consistency, prove, Query::Account(query)).await?;
        let record = found_value::<AccountRecord>("account", &reply)?;
        let expected = Fact::Account { address, record: record.clone() };
        self.answer(reply, record, prove.then_some(expected))
    }

    /// An account with what lies beside its record: restrictions with suspense, limits, claims, and a
    /// page of its data, from after `data_after` on. `None` when there is no such account.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn account_view(
        &self,
        address: Address,
        consistency: Consistency,
        data_after: Option<&[u8]>,
    ) -> Result<Answer<Option<AccountView>>, ClientError> {
        let query = v1::AccountViewQuery {
            address: Bytes::copy_from_slice(&address.0),
            data_after: Bytes::copy_from_slice(data_after.unwrap_or_default()),
        };
        let reply = self.query(consistency, false, Query::AccountView(query)).await?;
        let view = found_value("account", &reply)?;
        self.answer(reply, view, None)
    }

    /// The records of many accounts, in the order asked for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn accounts(
        &self,
        addresses: &[Address],
        consistency: Consistency,
    ) -> Result<Vec<Option<AccountRecord>>, ClientError> {
        let mut records = Vec::with_capacity(addresses.len());
        for part in addresses.chunks(ACCOUNTS_PER_QUERY) {
            let query = v1::AccountsQuery {
                addresses: part.iter().map(|address| Bytes::copy_from_slice(&address.0)).collect(),
            };
            let reply = self.query(consistency, false, Query::Accounts(query)).await?;
            if reply.values.len() != part.len() {
                return Err(ClientError::Protocol(format!(
                    "{} records for {} accounts",
                    reply.values.len(),
                    part.len()
                )));
            }
            for value in &reply.values {
                records.push(if value.is_empty() { None } else { Some(edge::value("account", value)?) });
            }
        }
        Ok(records)
    }

    /// A part of an account's history, newest first, from before a height on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history(
        &self,
        address: Address,
        before: Option<Height>,
        limit: u32,
    ) -> Result<Answer<HistoryPage>, ClientError> {
        let query = v1::HistoryQuery {
            address: Bytes::copy_from_slice(&address.0),
            before_height: before.map_or(u64::MAX, |height| height.0),
            limit,
        };
        let reply = self.query(Consistency::Linearizable, false, Query::History(query)).await?;
        let page = found_value("history", &reply)?.unwrap_or(HistoryPage {
            version: 1,
            lines: Vec::new(),
            before_height: None,
        });
        self.answer(reply, page, None)
    }

    /// The receipt of a transaction; `None` when no group has one. With a group the question goes
    /// there alone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn transaction(
        &self,
        txid: TxId,
        group: Option<GroupId>,
        prove: bool,
    ) -> Result<Answer<Option<Receipt>>, ClientError> {
        let query = v1::TransactionQuery { txid: edge::bytes_of(&txid), group: group.map_or(0, |group| group.0) };
        let reply = self.query(Consistency::Linearizable, prove, Query::Transaction(query)).await?;
        let receipt = found_value::<Receipt>("receipt", &reply)?;
        if receipt.as_ref().is_some_and(|receipt| receipt.txid != txid) {
            return Err(ClientError::Protocol("the receipt is of another transaction".to_owned()));
        }
        // Only presence can be proved: that no group has a receipt is nothing one group can certify.
        let expected = receipt.clone().filter(|_| prove).map(Fact::Receipt);
        self.answer(reply, receipt, expected)
    }

    /// What every group knows of a transaction, by group: each one that knows it, and each one that
    /// did not answer. Empty when nobody knows it. A group without a leader answers with what one of
    /// its replicas has, and says so.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(&self, txid: TxId) -> Result<Vec<Explain>, ClientError> {
        let query = v1::ExplainQuery { txid: edge::bytes_of(&txid) };
        let reply = self.query(Consistency::Linearizable, false, Query::Explain(query)).await?;
        Ok(reply.values.iter().map(|value| edge::value("explain", value)).collect::<Result<_, _>>()?)
    }

    /// A block; `None` when the group has not reached the height, or has pruned it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block(&self, group: GroupId, height: Height) -> Result<Answer<Option<BlockView>>, ClientError> {
        let query = v1::BlockQuery { group: group.0, height: height.0 };
        let reply = self.query(Consistency::Linearizable, false, Query::Block(query)).await?;
        let block = found_value("block", &reply)?;
        self.answer(reply, block, None)
    }

    /// The definition of an asset, as the beacon or another group knows it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn asset(&self, asset: AssetId, group: Option<GroupId>) -> Result<Answer<Option<AssetDef>>, ClientError> {
        let query =
            v1::AssetQuery { asset: Bytes::copy_from_slice(&asset.0), group: group.unwrap_or(GroupId::BEACON).0 };
        let reply = self.query(Consistency::Linearizable, false, Query::Asset(query)).await?;
        let definition = found_value("asset", &reply)?;
        self.answer(reply, definition, None)
    }

    /// Genesis, layout, committees and nodes, as the router knows them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cluster(&self) -> Result<v1::ClusterReply, ClientError> {
        self.call(|mut router| async move { router.cluster(v1::ClusterRequest {}).await }).await
    }

    /// The health of every group on every node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<v1::StatusReply, ClientError> {
        self.call(|mut router| async move { router.status(v1::StatusRequest {}).await }).await
    }

    /// Hands over an organisation's command to the beacon, encoded and signed by its admin, and waits
    /// until it is executed. The same bytes may be sent any number of times.
    ///
    /// # Errors
    /// [`ClientError`]: [`ClientError::Refused`] says why the registry did not change; after `timeout`
    /// and [`ClientError::Unreachable`] it may have, and sending the same bytes again tells.
    pub async fn command(&self, signed: impl Into<Bytes>) -> Result<CommandFate, ClientError> {
        let request = v1::CommandRequest { command: signed.into() };
        let mut backoff = Backoff::new(self.patience);
        loop {
            let reply = self
                .call(|mut router| {
                    let request = request.clone();
                    async move { router.command(request).await }
                })
                .await?;
            let Some(refusal) = &reply.refusal else {
                let pending = (reply.needed > 0).then_some((reply.approvals, reply.needed));
                let digest = edge::hash("digest", &reply.digest)?;
                return Ok(CommandFate { digest, pending, height: Height(reply.height) });
            };
            let error = ClientError::refused(refusal).by(Some(GroupId::BEACON));
            match backoff.delay(Duration::from_millis(u64::from(refusal.retry_after_ms))) {
                Some(delay) if error.retryable() => tokio::time::sleep(delay).await,
                _ => return Err(error),
            }
        }
    }

    /// Sends one read, retried until it is answered or refused for good.
    async fn query(&self, consistency: Consistency, prove: bool, query: Query) -> Result<v1::QueryReply, ClientError> {
        let (consistency, height) = match consistency {
            Consistency::Linearizable => (v1::Consistency::Linearizable, 0),
            Consistency::AtLeast(height) => (v1::Consistency::AtLeast, height.0),
            Consistency::Stale => (v1::Consistency::Stale, 0),
        };
        let request = v1::QueryRequest { consistency: consistency.into(), height, prove, query: Some(query) };
        let mut backoff = Backoff::new(self.patience);
        loop {
            let request = request.clone();
            let reply = self
                .call(|mut router| {
                    let request = request.clone();
                    async move { router.query(request).await }
                })
                .await?;
            let Some(refusal) = &reply.refusal else {
                return Ok(reply);
            };
            let error = ClientError::refused(refusal).by(known_group(reply.group));
            let least = Duration::from_millis(u64::from(refusal.retry_after_ms));
            match backoff.delay(least) {
                Some(delay) if error.retryable() => tokio::time::sleep(delay).await,
                _ => return Err(error),
            }
        }
    }

    /// Calls the router in use; when it is lost, the next, until patience ends.
    async fn call<T, F, Fut>(&self, request: F) -> Result<T, ClientError>
    where
        F: Fn(proto::v1::router_client::RouterClient<tonic::transport::Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let routers = &self.shared.routers;
        let mut backoff = Backoff::new(self.patience);
        let mut tried = 0usize;
        loop {
            let (turn, _, channel) = routers.current();
            let attempt = request(net::router_client(channel));
            let within = ATTEMPT.min(backoff.left());
            let status = match tokio::time::timeout(within, attempt).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if !connection_lost(&status) {
                return Err(error_of(&status));
            }
            routers.lost(turn);
            tried += 1;
            if tried.is_multiple_of(routers.len()) || backoff.left().is_zero() {
                match backoff.delay(Duration::ZERO) {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => return Err(error_of(&status)),
                }
            }
        }
    }

    /// Builds an answer; what was to be proved is checked against the genesis.
    fn answer<T>(&self, reply: v1::QueryReply, value: T, expected: Option<Fact>) -> Result<Answer<T>, ClientError> {
        let proof = match expected {
            None => None,
            Some(expected) => Some(self.check_proof(&reply, &expected)?),
        };
        Ok(Answer { group: edge::group("group", reply.group)?, height: Height(reply.height), value, proof })
    }

    fn check_proof(&self, reply: &v1::QueryReply, expected: &Fact) -> Result<ProofFile, ClientError> {
        let file = ProofFile::decode(&reply.proof)?;
        let verified = proof::verify(&file, &self.shared.genesis)?;
        if verified.fact != *expected {
            return Err(ClientError::Protocol("the proof is of something else than the answer".to_owned()));
        }
        if !verified.complete {
            return Err(ClientError::Protocol("the proof does not cover every balance of the account".to_owned()));
        }
        Ok(file)
    }
}

/// The group that a field names; routers leave it out where no group speaks.
fn known_group(number: u64) -> Option<GroupId> {
    Some(GroupId(number)).filter(|group| group.kind().is_some())
}

fn found_value<T: BorshDeserialize>(field: &'static str, reply: &v1::QueryReply) -> Result<Option<T>, ClientError> {
    match (reply.found, reply.values.first()) {
        (false, _) => Ok(None),
        (true, Some(value)) => Ok(Some(edge::value(field, value)?)),
        (true, None) => Err(ClientError::Protocol(format!("{field} is found but missing"))),
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 makes transactions that have expired, which the cluster says clearly.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

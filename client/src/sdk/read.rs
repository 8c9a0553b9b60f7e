//! Reads. An answer with a proof has been checked against the genesis before anybody sees it.
//!
//! Owns how a question is asked again until it is answered. It trusts no router for what a proof says.

use std::time::Duration;

use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::lock::Lock;
use ledger::record::{GrantLog, Grantee, Record};
use ledger::{
    AccountRecord, Address, AssetDef, AssetId, Evidence, GroupId, GroupKind, Hash32, Height, LedgerId, LockId, OrgId,
    Receipt, Reject, TxId,
};
use proto::v1::query_request::Query;
use proto::views::{AccountView, BlockView, ChannelLine, Explain, HistoryPage, HistoryPlace};
use proto::{edge, v1};

use crate::descent::{BornProof, FoundedProof};
use crate::entry::{Entry, EntryName};
use crate::error::ClientError;
use crate::evidence::{self, EvidenceFile};
use crate::exclusion::{self, ExclusionFile};
use crate::proof::{self, Fact, ProofFile};
use crate::routers::Backoff;
use crate::sdk::Client;

/// Accounts in one query, at first.
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
    /// Whoever asks is an auditor of some assets of a channel: the value is what is of them, and there may be more.
    pub partial: bool,
}

impl Client {
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
        self.account_of(LedgerId::MAIN, address, consistency, prove).await
    }

    /// As [`Client::account`], of the main ledger or of a channel's.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn account_of(
        &self,
        ledger: LedgerId,
        address: Address,
        consistency: Consistency,
        prove: bool,
    ) -> Result<Answer<Option<AccountRecord>>, ClientError> {
        // The main ledger is 0, and a channel's ledger has the number of its group.
        let query = v1::AccountQuery { address: Bytes::copy_from_slice(&address.0), group: ledger.0 };
        let reply = self.query(consistency, prove, Query::Account(query)).await?;
        let record = found_value::<AccountRecord>("account", &reply)?;
        let expected = Fact::Account { address, record: record.clone() };
        self.answer(reply, record, prove.then_some(expected)).await
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
        self.account_view_of(LedgerId::MAIN, address, consistency, data_after).await
    }

    /// As [`Client::account_view`], of the main ledger or of a channel's.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn account_view_of(
        &self,
        ledger: LedgerId,
        address: Address,
        consistency: Consistency,
        data_after: Option<&[u8]>,
    ) -> Result<Answer<Option<AccountView>>, ClientError> {
        let query = v1::AccountViewQuery {
            address: Bytes::copy_from_slice(&address.0),
            data_after: Bytes::copy_from_slice(data_after.unwrap_or_default()),
            group: ledger.0,
        };
        let reply = self.query(consistency, false, Query::AccountView(query)).await?;
        let view = found_value("account", &reply)?;
        self.answer(reply, view, None).await
    }

    /// The records of many accounts, in the order asked for. Those of one question are of one moment
    /// of their group; where their records are too large for one answer, they are asked for in parts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn accounts(
        &self,
        addresses: &[Address],
        consistency: Consistency,
    ) -> Result<Vec<Option<AccountRecord>>, ClientError> {
        let mut records = Vec::with_capacity(addresses.len());
        let mut parts: Vec<&[Address]> = addresses.chunks(ACCOUNTS_PER_QUERY).rev().collect();
        while let Some(part) = parts.pop() {
            let query = v1::AccountsQuery {
                addresses: part.iter().map(|address| Bytes::copy_from_slice(&address.0)).collect(),
            };
            let reply = match self.query(consistency, false, Query::Accounts(query)).await {
                Err(ClientError::Refused { reject: Some(Reject::AnswerTooLarge), .. }) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                answer => answer?,
            };
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

    /// A record of an account, by its hash, proved; `None` when it is proved that there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn record(
        &self,
        ledger: LedgerId,
        owner: Address,
        record: Hash32,
    ) -> Result<Answer<Option<Record>>, ClientError> {
        self.entry(ledger, owner, EntryName::Record(record)).await
    }

    /// All that a party was ever granted of a record, proved; `None` when it is proved to be nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn grants(
        &self,
        ledger: LedgerId,
        owner: Address,
        record: Hash32,
        who: Grantee,
    ) -> Result<Answer<Option<GrantLog>>, ClientError> {
        self.entry(ledger, owner, EntryName::Grants(record, who)).await
    }

    /// A hash-lock of a payer, by its id, proved; `None` when it is proved that there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lock(
        &self,
        ledger: LedgerId,
        payer: Address,
        lock: LockId,
    ) -> Result<Answer<Option<Lock>>, ClientError> {
        self.entry(ledger, payer, EntryName::Lock(lock)).await
    }

    /// What stands under a name, as what the name is for.
    async fn entry<T: BorshDeserialize>(
        &self,
        ledger: LedgerId,
        address: Address,
        name: EntryName,
    ) -> Result<Answer<Option<T>>, ClientError> {
        let query = v1::EntryQuery {
            address: Bytes::copy_from_slice(&address.0),
            group: ledger.0,
            key: Bytes::from(name.key()),
        };
        let reply = self.query(Consistency::Linearizable, true, Query::Entry(query)).await?;
        let value = found_value::<T>("entry", &reply)?;
        let bytes = reply.values.first().filter(|_| reply.found);
        let entry = Entry::decode(name, bytes.map(|bytes| &bytes[..]));
        let entry = entry.map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.answer(reply, value, Some(Fact::Entry { address, entry })).await
    }

    /// A page of an account's history, newest first: lines before a place, or the newest ones. The next
    /// page is before [`HistoryPage::before`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history(
        &self,
        address: Address,
        before: Option<HistoryPlace>,
        limit: u32,
    ) -> Result<Answer<HistoryPage>, ClientError> {
        self.history_of(LedgerId::MAIN, address, before, limit).await
    }

    /// As [`Client::history`], of the main ledger or of a channel's.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history_of(
        &self,
        ledger: LedgerId,
        address: Address,
        before: Option<HistoryPlace>,
        limit: u32,
    ) -> Result<Answer<HistoryPage>, ClientError> {
        let before = before.unwrap_or(HistoryPlace { height: Height(u64::MAX), index: 0 });
        let query = v1::HistoryQuery {
            address: Bytes::copy_from_slice(&address.0),
            before_height: before.height.0,
            before_index: before.index,
            limit,
            group: ledger.0,
        };
        let reply = self.query(Consistency::Linearizable, false, Query::History(query)).await?;
        let page =
            found_value("history", &reply)?.unwrap_or(HistoryPage { version: 1, lines: Vec::new(), before: None });
        self.answer(reply, page, None).await
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
        self.answer(reply, receipt, expected).await
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
        self.answer(reply, block, None).await
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
        self.answer(reply, definition, None).await
    }

    /// How much of an asset a group has in all, but for what is on its way to it: a shard, or a channel for those who may
    /// read it. `None` where the asset is not known, and of the beacon.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn total(&self, asset: AssetId, group: GroupId) -> Result<Answer<Option<u128>>, ClientError> {
        let query = v1::AssetQuery { asset: Bytes::copy_from_slice(&asset.0), group: group.0 };
        let reply = self.query(Consistency::Linearizable, false, Query::Asset(query)).await?;
        let total = reply.values.get(1).map(|value| edge::value("total", value)).transpose()?;
        self.answer(reply, total, None).await
    }

    /// The channels of the cluster, as the beacon shows them to everybody.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn channels(&self) -> Result<Vec<ChannelLine>, ClientError> {
        self.listed("channel", false).await
    }

    /// The foundings of channels that the beacon keeps: those that wait for approvals, and the others until
    /// their deadline.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn foundings(&self) -> Result<Vec<channel::Founding>, ClientError> {
        self.listed("founding", true).await
    }

    async fn listed<T: BorshDeserialize>(&self, what: &'static str, foundings: bool) -> Result<Vec<T>, ClientError> {
        let query = Query::Channels(v1::ChannelsQuery { foundings });
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        Ok(reply.values.iter().map(|value| edge::value(what, value)).collect::<Result<_, _>>()?)
    }

    /// A channel's members, policies and proposals; for its members, and auditors of everything.
    ///
    /// # Errors
    /// [`ClientError`]; the detail of `channel_refused` says which rule of the channel refuses.
    pub async fn governance(&self, channel: GroupId) -> Result<channel::Governance, ClientError> {
        let query = Query::Governance(v1::GovernanceQuery { group: channel.0, ..v1::GovernanceQuery::default() });
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        found_value("governance", &reply)?.ok_or_else(|| ClientError::Protocol(format!("{channel} has no governance")))
    }

    /// What a proposal in a channel waits for, as the channel itself judges it; `None` when it keeps no such proposal. For its
    /// members, and auditors of everything.
    ///
    /// # Errors
    /// [`ClientError`]; the detail of `channel_refused` says which rule of the channel refuses.
    pub async fn explain_proposal(
        &self,
        channel: GroupId,
        proposal: &Hash32,
    ) -> Result<Option<channel::Explanation>, ClientError> {
        let explain = Bytes::copy_from_slice(&proposal.0);
        let query = Query::Governance(v1::GovernanceQuery { group: channel.0, explain });
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        found_value("explanation", &reply)
    }

    /// Sends one read, retried until it is answered or refused for good.
    pub(super) async fn query(
        &self,
        consistency: Consistency,
        prove: bool,
        query: Query,
    ) -> Result<v1::QueryReply, ClientError> {
        let (consistency, height) = match consistency {
            Consistency::Linearizable => (v1::Consistency::Linearizable, 0),
            Consistency::AtLeast(height) => (v1::Consistency::AtLeast, height.0),
            Consistency::Stale => (v1::Consistency::Stale, 0),
        };
        let request =
            v1::QueryRequest { consistency: consistency.into(), height, prove, query: Some(query), caller: None };
        let mut backoff = Backoff::new(self.patience);
        let mut refusing = Vec::new();
        loop {
            let request = request.clone();
            let (turn, reply) = self
                .call_in_turn(|mut router| {
                    let request = request.clone();
                    async move { router.query(request).await }
                })
                .await?;
            let Some(refusal) = &reply.refusal else {
                return Ok(reply);
            };
            let error = ClientError::refused(refusal).by(known_group(reply.group));
            // Routers of organisations that take no part in a channel are not told of it.
            if refusal.reject() == Some(Reject::AccessDenied) && self.elsewhere(turn, &mut refusing, &mut backoff).await
            {
                continue;
            }
            let least = Duration::from_millis(u64::from(refusal.retry_after_ms));
            match backoff.delay(least) {
                Some(delay) if error.retryable() => tokio::time::sleep(delay).await,
                _ => return Err(error),
            }
        }
    }

    /// The newest exclusion of an organisation from a channel, as a receipt that has been checked against the
    /// genesis; `None` when it never left. For the channel's members, and for the organisation itself.
    ///
    /// # Errors
    /// [`ClientError`]; the detail of `channel_refused` says which rule of the channel refuses.
    pub async fn exclusion(&self, channel: GroupId, org: OrgId) -> Result<Option<ExclusionFile>, ClientError> {
        let query = Query::Exclusion(v1::ExclusionQuery { group: channel.0, org: org.0.into() });
        let reply = self.query(Consistency::Linearizable, true, query).await?;
        let Some(mut file) = found_value::<ExclusionFile>("exclusion", &reply)? else { return Ok(None) };
        if self.shared.genesis.committee(channel).is_none() {
            file.founded = Box::pin(self.founded(channel)).await?;
        }
        let verified = exclusion::verify(&file, &self.shared.genesis)?;
        match (verified.exclusion.group, verified.exclusion.org) == (channel, org) {
            true => Ok(Some(file)),
            false => Err(ClientError::Protocol("the receipt is of somebody else".to_owned())),
        }
    }

    /// What a group keeps of members that have voted twice, unproved; the beacon keeps that of every group.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn evidence(&self, group: GroupId) -> Result<Vec<Evidence>, ClientError> {
        let query = Query::Evidence(v1::EvidenceQuery { group: group.0, id: Bytes::new() });
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        Ok(reply.values.iter().map(|value| edge::value("evidence", value)).collect::<Result<_, _>>()?)
    }

    /// What the beacon holds about the coming and going of nodes, unproved: `beacon::NodeLives`, which this crate does
    /// not know.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_lives<T: BorshDeserialize>(&self) -> Result<T, ClientError> {
        let query = Query::Nodes(v1::NodesQuery {});
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell of its nodes".to_owned());
        found_value("nodes", &reply)?.ok_or_else(missing)
    }

    /// Who has to approve what in the cluster, as the beacon holds it, unproved: `beacon::PolicyBook`, which this crate does
    /// not know.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policies<T: BorshDeserialize>(&self) -> Result<T, ClientError> {
        let query = Query::Policies(v1::PoliciesQuery {});
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell of its policies".to_owned());
        found_value("policies", &reply)?.ok_or_else(missing)
    }

    /// Who is accused of voting twice and what becomes of its seats, as the beacon holds it, unproved: `beacon::Accused`,
    /// which this crate does not look into.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn accused<T: BorshDeserialize>(&self, consistency: Consistency) -> Result<T, ClientError> {
        let query = Query::Accused(v1::AccusedQuery {});
        let reply = self.query(consistency, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell who is accused".to_owned());
        found_value("accused", &reply)?.ok_or_else(missing)
    }

    /// What the beacon's audit of all groups has come to, unproved: `beacon::AuditStatus`, or with the proofs that it keeps
    /// `beacon::AuditReport`, neither of which this crate looks into.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit<T: BorshDeserialize>(&self, proofs: bool) -> Result<T, ClientError> {
        let query = Query::Audit(v1::AuditQuery { proofs });
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell of its audit".to_owned());
        found_value("audit", &reply)?.ok_or_else(missing)
    }

    /// What the beacon holds about epochs, unproved: `beacon::EpochBook`, which this crate does not look into.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn epochs<T: BorshDeserialize>(&self) -> Result<T, ClientError> {
        let query = Query::Epochs(v1::EpochsQuery {});
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell of its epochs".to_owned());
        found_value("epochs", &reply)?.ok_or_else(missing)
    }

    /// The epochs that the beacon keeps, with what proves them: `beacon::EpochProof`, which this crate does not look into and
    /// whose judge is the caller. `None` when no epoch has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn epoch_proof<T: BorshDeserialize>(&self) -> Result<Option<T>, ClientError> {
        let query = Query::Epochs(v1::EpochsQuery {});
        let reply = self.query(Consistency::Linearizable, true, query).await?;
        found_value("epochs", &reply)
    }

    /// One piece of evidence by its name, as a file that has been checked against the genesis; `None` when the group
    /// does not keep it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn evidence_file(&self, group: GroupId, id: Hash32) -> Result<Option<EvidenceFile>, ClientError> {
        let query = Query::Evidence(v1::EvidenceQuery { group: group.0, id: Bytes::copy_from_slice(&id.0) });
        let reply = self.query(Consistency::Linearizable, true, query).await?;
        let Some(mut file) = found_value::<EvidenceFile>("evidence", &reply)? else { return Ok(None) };
        let kept_by = file.certificate.header.group;
        let known = self.shared.genesis.committee(kept_by).is_some();
        if !known && kept_by.kind() == Some(GroupKind::Shard) {
            if let Some(born) = Box::pin(self.born(kept_by)).await? {
                file = file.with_born(born);
            }
        } else if !known {
            file.founded = Box::pin(self.founded(kept_by)).await?;
        }
        let verified = evidence::verify(&file, &self.shared.genesis)?;
        match verified.evidence.proof.id() == id && verified.kept_by == group {
            true => Ok(Some(file)),
            false => Err(ClientError::Protocol("the evidence is another one than was asked for".to_owned())),
        }
    }

    /// With which committee a channel began, and what proves it: the beacon's word, which follows from the
    /// genesis. `None` when the beacon has founded no such channel. Judged together with what it is needed for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn founded(&self, channel: GroupId) -> Result<Option<FoundedProof>, ClientError> {
        let query = Query::Founded(v1::FoundedQuery { group: channel.0 });
        let reply = self.query(Consistency::Linearizable, true, query).await?;
        found_value("founding", &reply)
    }

    /// With which committee a shard began that others were cut or joined into, and what it owns, with what proves it: the
    /// beacon's word. `None` when it is no such shard. Judged together with what it is needed for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn born(&self, shard: GroupId) -> Result<Option<BornProof>, ClientError> {
        let query = Query::Founded(v1::FoundedQuery { group: shard.0 });
        let reply = self.query(Consistency::Linearizable, true, query).await?;
        found_value("birth", &reply)
    }

    /// Builds an answer; what was to be proved is checked against the genesis.
    async fn answer<T>(
        &self,
        reply: v1::QueryReply,
        value: T,
        expected: Option<Fact>,
    ) -> Result<Answer<T>, ClientError> {
        let proof = match expected {
            None => None,
            Some(expected) => Some(self.check_proof(&reply, &expected).await?),
        };
        let (group, height) = (edge::group("group", reply.group)?, Height(reply.height));
        Ok(Answer { group, height, value, proof, partial: reply.partial })
    }

    async fn check_proof(&self, reply: &v1::QueryReply, expected: &Fact) -> Result<ProofFile, ClientError> {
        let mut file = ProofFile::decode(&reply.proof)?;
        let group = file.certificate.header.group;
        // The nodes of a channel, and of a shard that came later, prove what is in it, and the beacon whose word counts
        // there. Few reads need that, so it takes no room in all of them.
        let known = self.shared.genesis.committee(group).is_some();
        if !known && group.kind() == Some(GroupKind::Shard) {
            if let Some(born) = Box::pin(self.born(group)).await? {
                file = file.with_born(born);
            }
        } else if !known && let Some(founded) = Box::pin(self.founded(group)).await? {
            file = file.with_founded(founded);
        }
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

pub(super) fn found_value<T: BorshDeserialize>(
    field: &'static str,
    reply: &v1::QueryReply,
) -> Result<Option<T>, ClientError> {
    match (reply.found, reply.values.first()) {
        (false, _) => Ok(None),
        (true, Some(value)) => Ok(Some(edge::value(field, value)?)),
        (true, None) => Err(ClientError::Protocol(format!("{field} is found but missing"))),
    }
}

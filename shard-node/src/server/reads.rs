//! Answers to reads at one replica: linearizable behind a read barrier of the leader, at a height,
//! or as it stands; with a proof where one is asked for.

use std::time::Duration;

use bytes::Bytes;
use client::proof::{Claim, Handover, ProofFile, StateEntry};
use consensus::port::SequencerError;
use consensus::sequencer::Sequencer;
use ledger::account::{AccountRecord, Balance};
use ledger::asset::AssetDef;
use ledger::header::Header;
use ledger::ids::{Address, AssetId, GroupId, Height, TxId};
use ledger::limits::{BALANCES_SHOWN_MAX, GRPC_BYTES_MAX, INLINE_BALANCES_MAX};
use ledger::merkle;
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::rules::{HistoryKind, HistoryLine};
use ledger::view::{ReadFault, StateReader};
use ledger::{Certificate, Committee, Hash32, schema};
use proto::views::{BlockView, HistoryChange, HistoryPage};
use proto::{edge, v1, views};
use storage::{KeyRange, Kv};
use v1::query_request::Query;

use crate::core::records::{BlockRecord, ReceiptPlace};
use crate::server::gather;
use crate::server::group::GroupHandle;
use crate::server::membership;
use crate::server::replica::DbReader;

/// How long a proof waits for the certificate of its block.
const CERTIFICATE_WITHIN: Duration = Duration::from_secs(3);
/// How long a read at a height waits for the replica to reach it. Short, so that a router that asks
/// one replica after the other still says `behind` before its client gives the router up.
const HEIGHT_WITHIN: Duration = Duration::from_secs(1);
/// Lines of one page of history.
const HISTORY_LINES_MAX: usize = 1000;
/// Room in a message beside the values of an answer.
const SLACK_BYTES: usize = 64 * 1024;

/// Why a read is not answered.
enum Failure {
    Refused(Reject, String, Option<u32>),
    Fault(ReadFault),
}

impl From<ReadFault> for Failure {
    fn from(fault: ReadFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<storage::StorageError> for Failure {
    fn from(error: storage::StorageError) -> Self {
        Self::Fault(ReadFault(error.to_string()))
    }
}

impl From<proto::EdgeError> for Failure {
    fn from(error: proto::EdgeError) -> Self {
        Self::Refused(Reject::Malformed, error.to_string(), None)
    }
}

fn refuse(reject: Reject) -> Failure {
    Failure::Refused(reject, String::new(), None)
}

/// Answers one read.
pub async fn answer(handle: &GroupHandle, request: v1::QueryRequest) -> v1::QueryReply {
    match try_answer(handle, request).await {
        Ok(reply) => reply,
        Err(Failure::Refused(reject, detail, leader)) => {
            let mut refusal = v1::Refusal::of(reject);
            if !detail.is_empty() {
                refusal = refusal.detail(detail);
            }
            refusal.leader_node = leader.unwrap_or(0);
            v1::QueryReply { group: handle.group.0, ..v1::QueryReply::refused(refusal) }
        }
        Err(Failure::Fault(fault)) => {
            tracing::warn!(group = %handle.group, %fault, "a read failed");
            let refusal = v1::Refusal::of(Reject::Storage).detail(fault.to_string());
            v1::QueryReply { group: handle.group.0, ..v1::QueryReply::refused(refusal) }
        }
    }
}

/// Nothing is read of a group that has stopped here: its state may be wrong, or behind its tree.
fn runs(handle: &GroupHandle) -> Result<(), Failure> {
    match handle.stopped() {
        Some(reason) => Err(Failure::Refused(Reject::GroupStopped, reason, None)),
        None => Ok(()),
    }
}

async fn try_answer(handle: &GroupHandle, request: v1::QueryRequest) -> Result<v1::QueryReply, Failure> {
    reach(handle, &request).await?;
    runs(handle)?;
    let height = handle.share.stand.lock().applied.height;
    let query = request.query.ok_or_else(|| refuse(Reject::Malformed))?;
    let mut reply = v1::QueryReply { group: handle.group.0, height: height.0, ..v1::QueryReply::default() };
    match query {
        Query::Account(query) => {
            let address = edge::address("address", &query.address)?;
            if request.prove {
                return prove_account(handle, address).await;
            }
            found(&mut reply, account(handle, &address)?);
        }
        Query::Accounts(query) => {
            let mut room = GRPC_BYTES_MAX - SLACK_BYTES;
            for bytes in &query.addresses {
                let record = account(handle, &edge::address("address", bytes)?)?;
                let value = record.map(|record| encoded(&record)).unwrap_or_default();
                room = room.checked_sub(value.len() + 8).ok_or_else(|| refuse(Reject::AnswerTooLarge))?;
                reply.values.push(value);
            }
            reply.found = true;
        }
        Query::History(query) => {
            let address = edge::address("address", &query.address)?;
            let page = history(handle, &address, Height(query.before_height), query.limit)?;
            found(&mut reply, Some(page));
        }
        Query::Transaction(query) => {
            let txid = edge::txid("txid", &query.txid)?;
            if request.prove {
                return prove_receipt(handle, txid).await;
            }
            found(&mut reply, receipt(handle, &txid)?.map(|(receipt, _)| receipt));
        }
        Query::Explain(query) => {
            let txid = edge::txid("txid", &query.txid)?;
            found(&mut reply, gather::explain(handle, &txid)?);
        }
        Query::AccountView(query) => {
            let address = edge::address("address", &query.address)?;
            found(&mut reply, gather::account_view(handle, &address, &query.data_after)?);
        }
        Query::Block(query) => found(&mut reply, block(handle, Height(query.height))?),
        Query::Asset(query) => found(&mut reply, asset(handle, &edge::asset("asset", &query.asset)?)?),
    }
    Ok(reply)
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

fn found<T: borsh::BorshSerialize>(reply: &mut v1::QueryReply, value: Option<T>) {
    reply.found = value.is_some();
    reply.values.extend(value.map(|value| encoded(&value)));
}

/// Waits until the replica may answer at the consistency that was asked for.
async fn reach(handle: &GroupHandle, request: &v1::QueryRequest) -> Result<(), Failure> {
    match request.consistency() {
        v1::Consistency::Stale => Ok(()),
        v1::Consistency::Linearizable => match handle.raft.read_barrier().await {
            Ok(_) => Ok(()),
            Err(SequencerError::NotLeader(leader)) => {
                Err(Failure::Refused(Reject::NotLeader, String::new(), leader.map(|node| node.0)))
            }
            Err(SequencerError::Stopped(detail)) => Err(Failure::Refused(Reject::GroupStopped, detail, None)),
            Err(error @ (SequencerError::Unknown(_) | SequencerError::Refused(_))) => {
                Err(Failure::Refused(Reject::NotLeader, error.to_string(), None))
            }
        },
        v1::Consistency::AtLeast => {
            let mut role = handle.raft.role();
            let there = async {
                while handle.share.stand.lock().applied.height.0 < request.height {
                    if role.changed().await.is_err() {
                        return;
                    }
                }
            };
            match tokio::time::timeout(HEIGHT_WITHIN, there).await {
                Ok(()) => Ok(()),
                Err(_) => Err(refuse(Reject::Behind)),
            }
        }
    }
}

fn account(handle: &GroupHandle, address: &Address) -> Result<Option<AccountRecord>, Failure> {
    let Some(mut record) = handle.share.state.load::<AccountRecord>(&schema::account(address))? else {
        return Ok(None);
    };
    if record.balances.len() >= INLINE_BALANCES_MAX {
        let db = handle.share.state.db().ok_or_else(|| refuse(Reject::GroupStopped))?;
        add_extra_balances(&mut record, &entries(&*db, address, &[schema::KIND_BALANCE])?)?;
    }
    Ok(Some(record))
}

/// The entries of an account whose keys go on like this, in order.
fn entries(db: &dyn Kv, address: &Address, kind: &[u8]) -> Result<Vec<StateEntry>, Failure> {
    let of_account = schema::of_account(address);
    let found = db.scan(KeyRange::prefix(&[&of_account[..], kind].concat()), BALANCES_SHOWN_MAX + 1)?;
    if found.len() > BALANCES_SHOWN_MAX {
        return Err(refuse(Reject::AnswerTooLarge));
    }
    let entry =
        |(key, value): (Bytes, Bytes)| StateEntry { key: key[of_account.len()..].to_vec(), value: value.to_vec() };
    Ok(found.into_iter().map(entry).collect())
}

/// Puts the balances that have entries of their own behind those in the record.
fn add_extra_balances(record: &mut AccountRecord, entries: &[StateEntry]) -> Result<(), ReadFault> {
    for StateEntry { key, value } in entries {
        let Some((&schema::KIND_BALANCE, asset)) = key.split_first() else { continue };
        let asset: [u8; 16] = asset.try_into().map_err(|_| ReadFault("a balance has a foreign key".into()))?;
        record.balances.push((AssetId(asset), decoded::<Balance>(value)?));
    }
    Ok(())
}

fn decoded<T: borsh::BorshDeserialize>(bytes: &[u8]) -> Result<T, ReadFault> {
    borsh::from_slice(bytes).map_err(|error| ReadFault(error.to_string()))
}

fn asset(handle: &GroupHandle, id: &AssetId) -> Result<Option<AssetDef>, Failure> {
    if handle.group == GroupId::BEACON {
        let db = handle.share.state.db().ok_or_else(|| refuse(Reject::GroupStopped))?;
        let reader = DbReader(&*db);
        let mut view = ledger::view::View::new(&reader);
        return Ok(beacon::registry::asset(&mut view, id));
    }
    Ok(handle.share.state.load(&schema::asset(id))?)
}

fn receipt(handle: &GroupHandle, txid: &TxId) -> Result<Option<(Receipt, BlockRecord)>, Failure> {
    let Some(place) = handle.share.state.load::<ReceiptPlace>(&schema::receipt(txid))? else { return Ok(None) };
    let record: Option<BlockRecord> = handle.share.state.load(&schema::block(place.height))?;
    Ok(record.and_then(|record| Some((record.receipts.get(place.index as usize)?.clone(), record))))
}

fn block(handle: &GroupHandle, height: Height) -> Result<Option<BlockView>, Failure> {
    let state = &handle.share.state;
    let Some(header) = state.load::<Header>(&schema::header(height))? else { return Ok(None) };
    let record: BlockRecord = state.load(&schema::block(height))?.unwrap_or_default();
    let certificate = state.load::<Certificate>(&schema::certificate(height))?;
    Ok(Some(BlockView { version: 1, header, certificate, receipts: record.receipts }))
}

fn history(handle: &GroupHandle, address: &Address, before: Height, limit: u32) -> Result<HistoryPage, Failure> {
    let limit = (limit as usize).clamp(1, HISTORY_LINES_MAX);
    let prefix = schema::history_prefix(address);
    let db = handle.share.state.db().ok_or_else(|| refuse(Reject::GroupStopped))?;
    let reader = DbReader(&*db);
    // Newest first: walk back in windows of heights until the page is full.
    let top = before.0.min(handle.share.stand.lock().applied.height.0 + 1);
    let (mut until, mut width) = (top, 64u64);
    let mut lines: Vec<views::HistoryLine> = Vec::new();
    while until > 0 && lines.len() < limit {
        let from = until.saturating_sub(width);
        let bound = |height: u64| [prefix.as_slice(), &height.to_be_bytes()].concat();
        let part = db.scan(KeyRange::new(bound(from), bound(until)), usize::MAX)?;
        for (key, value) in part.iter().rev() {
            lines.push(line(&reader, &key[prefix.len()..], value)?);
        }
        until = from;
        width = width.saturating_mul(4);
    }
    // A page ends at a whole block, so that `before_height` can name where the next one starts.
    let mut next = None;
    if lines.len() > limit {
        let edge = lines[limit - 1].height;
        let keep = lines.iter().take_while(|line| line.height >= edge).count();
        if keep < lines.len() {
            next = Some(edge);
        }
        lines.truncate(keep);
    } else if until > 0 {
        next = Some(Height(until));
    }
    Ok(HistoryPage { version: 1, lines, before_height: next })
}

fn line(reader: &DbReader<'_>, place: &[u8], value: &[u8]) -> Result<views::HistoryLine, Failure> {
    let foreign = || ReadFault("a line of history has a foreign key".into());
    let (height, index) = place.split_at_checked(8).ok_or_else(foreign)?;
    let height = Height(u64::from_be_bytes(height.try_into().map_err(|_| foreign())?));
    let index = u32::from_be_bytes(index.try_into().map_err(|_| foreign())?);
    let line: HistoryLine = borsh::from_slice(value).map_err(|error| ReadFault(error.to_string()))?;
    let header = reader.get(&schema::header(height))?.ok_or_else(foreign)?;
    let header: Header = borsh::from_slice(&header).map_err(|error| ReadFault(error.to_string()))?;
    let HistoryLine { kind, asset, amount, other, txid, .. } = line;
    let change = match kind {
        HistoryKind::Sent => HistoryChange::Debit { asset, amount, to: other },
        HistoryKind::Burned => HistoryChange::Debit { asset, amount, to: None },
        HistoryKind::Received => HistoryChange::Credit { asset, amount, from: other },
        HistoryKind::Minted => HistoryChange::Issued(asset),
        HistoryKind::Rotated => HistoryChange::Rotated,
        HistoryKind::Suspended => HistoryChange::Suspended { asset, amount, from: other },
        HistoryKind::Released => HistoryChange::Released { asset, amount },
        HistoryKind::Returned => HistoryChange::Returned { asset, amount, to: other },
        HistoryKind::Frozen => HistoryChange::Frozen(named(asset)),
        HistoryKind::Thawed => HistoryChange::Thawed(named(asset)),
        HistoryKind::Written => HistoryChange::Written,
    };
    Ok(views::HistoryLine { height, index, time_ms: header.time_ms, txid, change })
}

/// The asset of a line, where it names one.
fn named(asset: ledger::AssetId) -> Option<ledger::AssetId> {
    (asset != ledger::AssetId::default()).then_some(asset)
}

/// The certificate of a block: kept already, or completed within moments.
async fn certificate(handle: &GroupHandle, height: Height) -> Result<Certificate, Failure> {
    let mut certified = handle.certified.clone();
    let mut asked = false;
    let wait = async {
        loop {
            let latest = certified.borrow_and_update().as_ref().map(|latest| latest.header.height);
            let kept: Option<Certificate> = handle.share.state.load(&schema::certificate(height))?;
            if let Some(certificate) = kept {
                return Ok(certificate);
            }
            // Later blocks are certified here: this certificate was missed, and comes when asked for.
            if !asked && latest.is_some_and(|latest| latest > height) {
                asked = true;
                handle.want_certificate(height);
            }
            if certified.changed().await.is_err() {
                return Err(refuse(Reject::GroupStopped));
            }
        }
    };
    tokio::time::timeout(CERTIFICATE_WITHIN, wait).await.unwrap_or_else(|_| Err(refuse(Reject::Behind)))
}

fn committee(handle: &GroupHandle, hash: Hash32) -> Result<Committee, Failure> {
    let committee = handle.share.state.load(&schema::committee(handle.group, &hash))?;
    committee.ok_or_else(|| Failure::Fault(ReadFault("the committee of a header is missing".into())))
}

/// The steps from the group's first committee to the one that certified this height.
async fn chain(handle: &GroupHandle, upto: Height) -> Result<Vec<Handover>, Failure> {
    let mut steps = Vec::new();
    for height in membership::handovers(handle)?.into_iter().filter(|height| *height < upto) {
        let certificate = certificate(handle, height).await?;
        let committee = committee(handle, certificate.header.committee_hash)?;
        steps.push(Handover { committee, certificate });
    }
    Ok(steps)
}

async fn proved(
    handle: &GroupHandle,
    certificate: Certificate,
    claim: Claim,
    value: Option<Bytes>,
) -> Result<v1::QueryReply, Failure> {
    let committee = committee(handle, certificate.header.committee_hash)?;
    let handovers = chain(handle, certificate.header.height).await?;
    let file = ProofFile { handovers, ..ProofFile::new(certificate.header.cluster, claim, certificate, committee) };
    Ok(v1::QueryReply {
        group: handle.group.0,
        height: file.certificate.header.height.0,
        found: value.is_some(),
        values: value.into_iter().collect(),
        proof: encoded(&file),
        refusal: None,
    })
}

async fn prove_account(handle: &GroupHandle, address: Address) -> Result<v1::QueryReply, Failure> {
    let key = schema::account(&address);
    let position = schema::tree_position(&key).ok_or_else(|| refuse(Reject::Malformed))?;
    // Entries and path under one lock: the next block cannot come between them.
    let (height, record, claim) = {
        let mut stand = handle.share.stand.lock();
        runs(handle)?;
        let db = handle.share.state.db().ok_or_else(|| refuse(Reject::GroupStopped))?;
        let proof = stand.tree.prove(&position).map_err(|_| refuse(Reject::WrongShard))?;
        let record = DbReader(&*db).get(&key)?;
        let rest = proof.down_to(stand.tree.prefix(), &schema::subtree_of(&address));
        match (record, rest) {
            // Not the only entry of the account: all of them are proved together.
            (Some(bytes), Some(proof)) => {
                let entries = entries(&*db, &address, &[])?;
                let mut record: AccountRecord = decoded(&bytes)?;
                add_extra_balances(&mut record, &entries)?;
                (stand.applied.height, Some(encoded(&record)), Claim::Holdings { address, entries, proof })
            }
            (record, _) => {
                let bytes = record.as_ref().map(|bytes| bytes.to_vec());
                (stand.applied.height, record, Claim::Account { address, record: bytes, proof })
            }
        }
    };
    let certificate = certificate(handle, height).await?;
    proved(handle, certificate, claim, record).await
}

async fn prove_receipt(handle: &GroupHandle, txid: TxId) -> Result<v1::QueryReply, Failure> {
    let Some((receipt, record)) = receipt(handle, &txid)? else {
        let height = handle.share.stand.lock().applied.height;
        return Ok(v1::QueryReply { group: handle.group.0, height: height.0, ..v1::QueryReply::default() });
    };
    let certificate = certificate(handle, receipt.height).await?;
    let leaves: Vec<Hash32> = record.receipts.iter().map(Receipt::leaf).collect();
    let path = merkle::prove(&leaves, receipt.index as usize)
        .ok_or_else(|| Failure::Fault(ReadFault("a receipt is not in its block".into())))?;
    let bytes = encoded(&receipt);
    proved(handle, certificate, Claim::Receipt { receipt: bytes.to_vec(), path }, Some(bytes)).await
}

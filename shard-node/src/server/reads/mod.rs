//! Answers to reads at one replica: linearizable behind a read barrier of the leader, at a height,
//! or as it stands; with a proof where one is asked for.
//!
//! Owns what a read may cost and how large its answer may be. Every answer is of one moment of the state:
//! a block that is applied meanwhile shows in all of it or in nothing. Nothing is written here; a
//! question that has to be answered as of about now may have the beacon make a block, at most one a minute.

mod history;
mod part;
mod prove;

use std::time::Duration;

use beacon::{Accused, AuditReport, AuditStatus, ChannelEntry, EngineBook, EpochBook, NodeLives, PolicyBook, Shards};
use bytes::Bytes;
use channel::{Founding, Governance, Sight};
use client::EntryName;
use client::proof::StateEntry;
use consensus::port::SequencerError;
use consensus::sequencer::Sequencer;
use ledger::account::{AccountRecord, Balance};
use ledger::asset::AssetDef;
use ledger::evidence;
use ledger::header::Header;
use ledger::ids::{Address, AssetId, ClusterId, GroupId, GroupKind, Height, JobId, OrgId, TimeMs, TxId};
use ledger::limits::{ACCOUNTS_ASKED_MAX, ANSWER_BYTES_MAX, BALANCES_SHOWN_MAX, INLINE_BALANCES_MAX};
use ledger::lineage::{Origin, SealedBy, Segment};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::view::{ReadFault, StateReader, View};
use ledger::{Certificate, schema};
use proto::views::{BlockView, ChannelLine, HistoryPlace};
use proto::{edge, v1};
use storage::{KeyRange, Kv};
use v1::query_request::Query;

use crate::core::applied::AppliedRecord;
use crate::core::governance;
use crate::core::records::{BlockRecord, ReceiptPlace};
use crate::server::admission::{self, Denial, Forwarder};
use crate::server::gather;
use crate::server::group::GroupHandle;
use crate::server::replica::ViewReader;

/// How long a read at a height waits for the replica to reach it. Short, so that a router that asks
/// one replica after the other still says `behind` before its client gives the router up.
const HEIGHT_WITHIN: Duration = Duration::from_secs(1);
/// What one value costs in a message beside its bytes, at most.
const VALUE_BYTES: usize = 8;

/// Why a read is not answered.
enum Failure {
    Refused(Reject, String, Option<u32>),
    /// Whoever asks may not.
    Denied(Denial),
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

/// Answers one read that a router hands over.
pub async fn answer(handle: &GroupHandle, from: Option<Forwarder>, request: v1::QueryRequest) -> v1::QueryReply {
    match try_answer(handle, from, request).await {
        Ok(reply) => reply,
        Err(Failure::Refused(reject, detail, leader)) => {
            let mut refusal = v1::Refusal::of(reject);
            if !detail.is_empty() {
                refusal = refusal.detail(detail);
            }
            refusal.leader_node = leader.unwrap_or(0);
            v1::QueryReply { group: handle.group.0, ..v1::QueryReply::refused(refusal) }
        }
        Err(Failure::Denied(denial)) => {
            v1::QueryReply { group: handle.group.0, ..v1::QueryReply::refused(denial.refusal()) }
        }
        Err(Failure::Fault(fault)) => {
            tracing::warn!(group = %handle.group, %fault, "a read failed");
            let refusal = v1::Refusal::of(Reject::Storage).detail(fault.to_string());
            v1::QueryReply { group: handle.group.0, ..v1::QueryReply::refused(refusal) }
        }
    }
}

/// Nothing is read of a group that has stopped here: its state may be wrong, or behind its tree. Nor of a shard that has
/// ended: others own its accounts.
fn runs(handle: &GroupHandle) -> Result<(), Failure> {
    match handle.stopped() {
        Some(reason) => Err(Failure::Refused(Reject::GroupStopped, reason, None)),
        None if handle.is_over() => Err(refuse(Reject::Moved)),
        None => Ok(()),
    }
}

/// Nor is what was read the newest there is where a seal is in force by now: the shard may have ended without this node
/// having heard of it, and others may have gone on.
fn goes_on(handle: &GroupHandle, consistency: v1::Consistency) -> Result<(), Failure> {
    if consistency == v1::Consistency::Linearizable && handle.share.state.load::<SealedBy>(&schema::sealed())?.is_some()
    {
        return Err(refuse(Reject::Sealing));
    }
    Ok(())
}

async fn try_answer(
    handle: &GroupHandle,
    from: Option<Forwarder>,
    request: v1::QueryRequest,
) -> Result<v1::QueryReply, Failure> {
    let (caller, action) = (request.caller.clone(), admission::action_of(&request));
    let parts = admission::has_parts(&request);
    let judge = || admission::sight(handle, from, caller.as_ref(), action, parts).map_err(Failure::Denied);
    let admitted = admission::sees(handle, from, caller.as_ref(), action, parts);
    if !admitted && request.consistency() == v1::Consistency::AtLeast {
        // What a replica that is behind says of a new member is not final, so it is judged again. Whoever is not let in
        // then waited as long as anybody, whatever height was asked for, and learns nothing about it.
        tokio::time::sleep(HEIGHT_WITHIN).await;
        judge()?;
    }
    // Who leads, and that a replica does not answer, is no secret; why it does not is for those whom it admits. Nor is it
    // for others to say: a follower may not know of a new member, and a state that has stopped judges nobody, while a
    // denial counts for the whole group.
    let told = |failure: Failure| match failure {
        Failure::Refused(reject, _, leader) if !admitted => Failure::Refused(reject, String::new(), leader),
        failure => failure,
    };
    reach(handle, &request).await.map_err(told)?;
    runs(handle).map_err(told)?;
    let sight = judge()?;
    let consistency = request.consistency();
    let query = request.query.ok_or_else(|| refuse(Reject::Malformed))?;
    let reply = match &sight {
        Sight::All => {
            let asking = [
                from.map(|from| from.org),
                caller.as_ref().and_then(|caller| u16::try_from(caller.org).ok()).map(OrgId),
            ];
            in_full(handle, query, request.prove, asking).await?
        }
        Sight::Assets(assets) => {
            let (state, group, assets) = (handle.share.state.clone(), handle.group, assets.clone());
            aside(move || part::look_up(&*state.db().ok_or_else(closed)?, group, &query, &assets)).await?
        }
    };
    goes_on(handle, consistency)?;
    // Who may still ask after the answer was read could do so at every block that is in it.
    admission::still(handle, from, caller.as_ref(), action, &sight).map_err(Failure::Denied)?;
    // Each kind of answer has a bound of its own; none that was overlooked breaks the connection.
    if bytes_of(&reply) > ANSWER_BYTES_MAX {
        return Err(refuse(Reject::AnswerTooLarge));
    }
    Ok(reply)
}

/// Answers whoever may see all of it. `asking` are the organisations of the router and of its caller.
async fn in_full(
    handle: &GroupHandle,
    query: Query,
    prove: bool,
    asking: [Option<OrgId>; 2],
) -> Result<v1::QueryReply, Failure> {
    match query {
        Query::Account(query) if prove => prove::account(handle, edge::address("address", &query.address)?).await,
        Query::Entry(query) if prove => {
            let (address, name) = named(&query)?;
            prove::entry(handle, address, name).await
        }
        Query::Transaction(query) if prove => prove::receipt(handle, edge::txid("txid", &query.txid)?).await,
        Query::Founded(query) => match edge::group("group", query.group)? {
            shard if shard.kind() == Some(GroupKind::Shard) => prove::born(handle, shard).await,
            group => prove::founded(handle, group).await,
        },
        Query::Exclusion(query) => {
            let org = u16::try_from(query.org).map_err(|_| refuse(Reject::Malformed))?;
            prove::exclusion(handle, OrgId(org)).await
        }
        Query::Epochs(_) if prove => prove::epochs(handle).await,
        Query::Admins(query) => prove::admins(handle, TimeMs(query.since_ms)).await,
        Query::Evidence(query) if !query.id.is_empty() => prove::evidence(handle, edge::hash("id", &query.id)?).await,
        query => {
            let (state, group) = (handle.share.state.clone(), handle.group);
            aside(move || look_up(&*state.db().ok_or_else(closed)?, group, &query, asking)).await
        }
    }
}

/// Reads on a thread of its own: disks are waited for, and long answers put together, where nobody else
/// waits.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Failure::Fault(ReadFault(format!("the read did not end: {error}")))))
}

fn closed() -> Failure {
    Failure::Fault(ReadFault("the state is closed".into()))
}

/// What an answer takes in a message, with what its fields cost there.
fn bytes_of(reply: &v1::QueryReply) -> usize {
    reply.values.iter().map(|value| value.len() + VALUE_BYTES).sum::<usize>() + reply.proof.len()
}

/// Answers a question from one moment of the state. `asking` are the organisations of the router and of its caller.
fn look_up(db: &dyn Kv, group: GroupId, query: &Query, asking: [Option<OrgId>; 2]) -> Result<v1::QueryReply, Failure> {
    let reader = ViewReader::of(db);
    let (applied, mut reply) = begun(&reader, group)?;
    match query {
        Query::Account(query) => found(&mut reply, account(&reader, &edge::address("address", &query.address)?)?),
        Query::Entry(query) => {
            let (address, name) = named(query)?;
            reply.values.extend(reader.get(&name.state_key(&address))?);
            reply.found = !reply.values.is_empty();
        }
        Query::Accounts(query) => {
            reply.values = accounts(&reader, &query.addresses)?;
            reply.found = true;
        }
        Query::History(query) => {
            let (address, before) = history_asked(query, &applied)?;
            found(&mut reply, Some(history::page(&reader, &address, before, query.limit)?));
        }
        Query::Transaction(query) => {
            found(&mut reply, receipt(&reader, group, &edge::txid("txid", &query.txid)?)?.map(|(receipt, _)| receipt));
        }
        Query::Explain(query) => {
            let txid = edge::txid("txid", &query.txid)?;
            found(&mut reply, gather::explain(&reader, group, &applied, &txid)?);
        }
        Query::AccountView(query) => {
            let address = edge::address("address", &query.address)?;
            found(&mut reply, gather::account_view(&reader, &address, &query.data_after)?);
        }
        Query::Channels(query) => {
            reply.found = true;
            reply.values = if query.foundings { foundings(&reader, asking)? } else { channels(&reader)? };
        }
        Query::Governance(query) if !query.explain.is_empty() => {
            let (id, at) = (edge::hash("explain", &query.explain)?, (applied.height, applied.time_ms));
            found(&mut reply, viewed(&reader, |view| governance::explain(view, group, at, &id))?);
        }
        Query::Governance(_) => {
            let governance = viewed(&reader, |view| Governance::read(view, applied.height, applied.time_ms))?;
            found(&mut reply, governance);
        }
        Query::Evidence(_) => {
            reply.found = true;
            let kept = viewed(&reader, |view| {
                let owned = evidence::owned(view, group);
                evidence::kept(view, owned)
            })?;
            reply.values = kept.iter().map(encoded).collect();
        }
        // Other groups have nothing of it.
        Query::Nodes(_) => found(&mut reply, Some(viewed(&reader, NodeLives::read)?)),
        Query::Accused(_) => found(&mut reply, Some(viewed(&reader, Accused::read)?)),
        // The same: a group that is not the beacon has no committees in its registry, and shows an empty status.
        Query::Audit(query) if query.proofs => {
            let cluster = header_cluster(&reader, &applied)?;
            found(&mut reply, Some(viewed(&reader, |view| AuditReport::read(view, cluster))?));
        }
        Query::Audit(_) => found(&mut reply, Some(viewed(&reader, AuditStatus::read)?)),
        Query::Epochs(_) => found(&mut reply, Some(viewed(&reader, EpochBook::read)?)),
        Query::Shards(_) => found(&mut reply, viewed(&reader, |view| Shards::read(view, applied.time_ms))?),
        Query::Engines(_) => found(&mut reply, viewed(&reader, EngineBook::read)?),
        Query::Policies(_) => found(&mut reply, Some(viewed(&reader, PolicyBook::read)?)),
        Query::Job(query) => found(&mut reply, viewed(&reader, |view| beacon::jobs::job(view, JobId(query.job)))?),
        Query::Block(query) => found(&mut reply, block(&reader, group, query)?),
        Query::Asset(query) => {
            let id = edge::asset("asset", &query.asset)?;
            found(&mut reply, asset(&reader, group, &id)?);
            // The beacon has nothing of any.
            if reply.found && group != GroupId::BEACON {
                let total: u128 = load(&reader, &schema::total(&id))?.unwrap_or(0);
                reply.values.push(encoded(&total));
            }
        }
        // What is always proved is answered before.
        Query::Founded(_) | Query::Exclusion(_) | Query::Admins(_) => return Err(refuse(Reject::Malformed)),
    }
    Ok(reply)
}

/// Where the group stands in this moment, and an answer of it that has nothing yet.
fn begun(reader: &ViewReader<'_>, group: GroupId) -> Result<(AppliedRecord, v1::QueryReply), ReadFault> {
    let applied = load::<AppliedRecord>(reader, &schema::applied())?;
    let applied = applied.ok_or_else(|| ReadFault("the state holds no applied position".into()))?;
    let reply = v1::QueryReply { group: group.0, height: applied.height.0, ..v1::QueryReply::default() };
    Ok((applied, reply))
}

/// The account whose history is asked for, and the place that the page is before.
fn history_asked(query: &v1::HistoryQuery, applied: &AppliedRecord) -> Result<(Address, HistoryPlace), Failure> {
    let address = edge::address("address", &query.address)?;
    let asked = HistoryPlace { height: Height(query.before_height), index: query.before_index };
    Ok((address, asked.min(HistoryPlace { height: applied.height.next(), index: 0 })))
}

/// The cluster, as the last block's header names it.
fn header_cluster(reader: &ViewReader<'_>, applied: &AppliedRecord) -> Result<ClusterId, ReadFault> {
    let header = load::<Header>(reader, &schema::header(applied.height))?;
    Ok(header.ok_or_else(|| ReadFault("the state holds no header of its last block".into()))?.cluster)
}

/// The account and the name that a question is about. What has no name of its own is not told by its key.
fn named(query: &v1::EntryQuery) -> Result<(Address, EntryName), Failure> {
    let address = edge::address("address", &query.address)?;
    let unknown = || Failure::Refused(Reject::Malformed, "no entry is asked for by such a key".into(), None);
    Ok((address, EntryName::of_key(&query.key).ok_or_else(unknown)?))
}

/// The foundings that the beacon keeps; nothing in another group. The policies that a channel is to have are for whom its
/// founding names, asking over a router of such an organisation; for others they are left out. Of what is promised each of those
/// is given its own copy, over any router: nobody else opens it.
fn foundings(reader: &ViewReader<'_>, asking: [Option<OrgId>; 2]) -> Result<Vec<Bytes>, ReadFault> {
    let shown = |founding: Founding| encoded(&shown_to(founding, asking));
    Ok(viewed(reader, beacon::channels::foundings)?.into_iter().map(shown).collect())
}

fn shown_to(mut founding: Founding, asking: [Option<OrgId>; 2]) -> Founding {
    let named = founding.named();
    if !asking.iter().all(|org| org.is_some_and(|org| named.contains(&org))) {
        founding.terms.policies.clear();
    }
    let [_, caller] = asking;
    if let Some(promise) = &mut founding.promise {
        promise.sealed.keys.retain(|(org, _)| caller == Some(*org));
        if promise.sealed.keys.is_empty() {
            promise.sealed.body.clear();
        }
    }
    founding
}

/// The beacon's directory of channels; nothing in another group.
fn channels(reader: &ViewReader<'_>) -> Result<Vec<Bytes>, ReadFault> {
    let line = |entry: ChannelEntry| ChannelLine {
        version: 1,
        group: entry.group,
        name: entry.name,
        founding: entry.founding,
        members: entry.shown.members,
        nodes: entry.shown.nodes,
        anchors: entry.shown.anchors,
        status: entry.shown.status.word().to_owned(),
    };
    Ok(viewed(reader, beacon::channels::directory)?.into_iter().map(|entry| encoded(&line(entry))).collect())
}

/// What a machine's own reading finds.
fn viewed<T>(reader: &ViewReader<'_>, read: impl FnOnce(&mut View<'_>) -> T) -> Result<T, ReadFault> {
    let mut view = View::new(reader);
    let found = read(&mut view);
    view.fault().cloned().map_or(Ok(found), Err)
}

fn load<T: borsh::BorshDeserialize>(reader: &ViewReader<'_>, key: &[u8]) -> Result<Option<T>, ReadFault> {
    reader.get(key)?.map(|bytes| decoded(&bytes)).transpose()
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
        v1::Consistency::Linearizable => match handle.engine.read_barrier().await {
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
            let mut role = handle.engine.role();
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

/// Record and further balances of an account.
fn account(reader: &ViewReader<'_>, address: &Address) -> Result<Option<AccountRecord>, Failure> {
    let Some(mut record) = load::<AccountRecord>(reader, &schema::account(address))? else {
        return Ok(None);
    };
    if record.balances.len() >= INLINE_BALANCES_MAX {
        add_extra_balances(&mut record, &entries(reader, address, &[schema::KIND_BALANCE])?)?;
    }
    Ok(Some(record))
}

/// Several accounts in the order asked for, with nothing for one that does not exist. Nothing is read any
/// more once the answer is too large.
fn accounts(reader: &ViewReader<'_>, addresses: &[Bytes]) -> Result<Vec<Bytes>, Failure> {
    if addresses.len() > ACCOUNTS_ASKED_MAX {
        let detail = format!("at most {ACCOUNTS_ASKED_MAX} accounts are read at once");
        return Err(Failure::Refused(Reject::AnswerTooLarge, detail, None));
    }
    let mut values = Vec::with_capacity(addresses.len());
    let mut room = ANSWER_BYTES_MAX;
    for bytes in addresses {
        let record = account(reader, &edge::address("address", bytes)?)?;
        let value = record.map(|record| encoded(&record)).unwrap_or_default();
        room = room.checked_sub(value.len() + VALUE_BYTES).ok_or_else(|| refuse(Reject::AnswerTooLarge))?;
        values.push(value);
    }
    Ok(values)
}

/// The entries of an account whose keys go on like this, in order.
fn entries(reader: &ViewReader<'_>, address: &Address, kind: &[u8]) -> Result<Vec<StateEntry>, Failure> {
    let of_account = schema::of_account(address);
    let found = reader.0.scan(KeyRange::prefix(&[&of_account[..], kind].concat()), BALANCES_SHOWN_MAX + 1)?;
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

fn asset(reader: &ViewReader<'_>, group: GroupId, id: &AssetId) -> Result<Option<AssetDef>, Failure> {
    if group == GroupId::BEACON {
        return Ok(beacon::registry::asset(&mut View::new(reader), id));
    }
    Ok(load(reader, &schema::asset(id))?)
}

fn receipt(reader: &ViewReader<'_>, here: GroupId, txid: &TxId) -> Result<Option<(Receipt, BlockRecord)>, Failure> {
    let Some(place) = load::<ReceiptPlace>(reader, &schema::receipt(txid))? else { return Ok(None) };
    let origin = load::<Origin>(reader, &schema::origin())?;
    let record: Option<BlockRecord> = load(reader, &place.block_key(here, origin.as_ref()))?;
    Ok(record.and_then(|record| Some((record.receipts.get(place.index as usize)?.clone(), record))))
}

/// A block of this group's chain, or of one that it came from, by that one's name.
fn block(reader: &ViewReader<'_>, here: GroupId, query: &v1::BlockQuery) -> Result<Option<BlockView>, Failure> {
    let (height, asked) = (Height(query.height), GroupId(query.group));
    let ended = load::<Origin>(reader, &schema::origin())?.filter(|_| asked != here && asked.kind().is_some());
    let has = |chain: &[Segment]| chain.iter().any(|segment| segment.group == asked && segment.holds(height));
    let archived = match &ended {
        Some(origin) if has(&origin.archived) => true,
        Some(origin) if has(&origin.spine) => false,
        Some(_) => return Ok(None),
        None => false,
    };
    let key = |plain: Vec<u8>| if archived { schema::archived(asked, &plain) } else { plain };
    let Some(header) = load::<Header>(reader, &key(schema::header(height)))? else { return Ok(None) };
    let record: BlockRecord = load(reader, &key(schema::block(height)))?.unwrap_or_default();
    let certificate = load::<Certificate>(reader, &key(schema::certificate(height)))?;
    Ok(Some(BlockView { version: 1, header, certificate, receipts: record.receipts }))
}

#[cfg(test)]
mod tests;

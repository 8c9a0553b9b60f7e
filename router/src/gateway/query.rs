//! Reads: which group, which replica, and what to do when that one cannot answer.
//!
//! A question that meets a shard which is cut or joined meanwhile is asked again where the answer lies then. What a shard
//! that has ended is asked for by its name, its heir answers: heights go on, and it has all that the other one had.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use ledger::genesis::NodeInfo;
use ledger::limits::{ACCOUNTS_ASKED_MAX, ANSWER_BYTES_MAX};
use ledger::{GroupId, Height, NodeId, OrgId, Reject, TimeMs};
use proto::v1::query_request::Query;
use proto::views::{Explain, Unanswered};
use proto::{EdgeError, edge, v1};
use tokio::time::Instant;
use tonic::Status;

use super::ask::{Said, in_turn, passing, said};
use super::desk::Desk;
use super::view::ClusterView;

/// Refusals after which another replica may answer.
const ELSEWHERE: [Reject; 7] = [
    Reject::NotLeader,
    Reject::GroupStopped,
    Reject::UnknownGroup,
    Reject::Behind,
    Reject::Storage,
    Reject::Sealing,
    Reject::Moved,
];
/// What one value costs in a message beside its bytes, at most.
const VALUE_BYTES: usize = 8;
/// Groups or nodes asked at the same time for one question.
const PARALLEL_MAX: usize = 32;

/// Where a question goes.
enum Target {
    One(GroupId, v1::QueryRequest),
    /// Every group that may have it.
    Any(v1::QueryRequest),
    Accounts(v1::QueryRequest, v1::AccountsQuery),
    /// Every group, and all of their answers.
    Explain(v1::QueryRequest),
}

/// Answers a read, or says why not.
pub(super) async fn answer(desk: &Desk, request: v1::QueryRequest) -> v1::QueryReply {
    let until = Instant::now() + desk.limits.read_within;
    loop {
        let view = desk.view();
        let reply = ask(desk, &view, request.clone()).await;
        // Who had no answer by a layout that is over may have one by the next.
        let over = reply.refusal.is_some() && desk.view().layout.version != view.layout.version;
        if !over || Instant::now() >= until {
            return reply;
        }
    }
}

async fn ask(desk: &Desk, view: &ClusterView, request: v1::QueryRequest) -> v1::QueryReply {
    match target(view, request) {
        Ok(Target::One(group, request)) => ask_group(desk, group, request).await,
        Ok(Target::Any(request)) => ask_any(desk, view, request).await,
        Ok(Target::Accounts(request, accounts)) => ask_accounts(desk, view, &request, accounts).await,
        Ok(Target::Explain(request)) => explain(desk, view, request).await,
        Err(error) => refused(Reject::Malformed, error.to_string()),
    }
}

fn refused(reject: Reject, detail: impl Into<String>) -> v1::QueryReply {
    v1::QueryReply::refused(v1::Refusal::of(reject).detail(detail))
}

fn target(view: &ClusterView, mut request: v1::QueryRequest) -> Result<Target, EdgeError> {
    if v1::Consistency::try_from(request.consistency).is_err() {
        let found = u64::from(request.consistency.unsigned_abs());
        return Err(EdgeError::Number { field: "consistency", found });
    }
    let group = match request.query.as_mut().ok_or(EdgeError::Missing { field: "query" })? {
        Query::Account(account) => home(view, &account.address, account.group)?,
        Query::Entry(entry) => home(view, &entry.address, entry.group)?,
        Query::History(history) => home(view, &history.address, history.group)?,
        Query::Transaction(transaction) => {
            edge::txid("txid", &transaction.txid)?;
            if transaction.group == 0 {
                return Ok(Target::Any(request));
            }
            alive(view, transaction.group)?
        }
        Query::AccountView(account) => home(view, &account.address, account.group)?,
        Query::Explain(explain) => {
            edge::txid("txid", &explain.txid)?;
            return Ok(Target::Explain(request));
        }
        Query::Channels(_)
        | Query::Founded(_)
        | Query::Nodes(_)
        | Query::Accused(_)
        | Query::Audit(_)
        | Query::Epochs(_)
        | Query::Shards(_)
        | Query::Job(_)
        | Query::Policies(_)
        | Query::Admins(_)
        | Query::Engines(_) => GroupId::BEACON,
        Query::Governance(governance) => edge::group("group", governance.group)?,
        Query::Exclusion(exclusion) => edge::group("group", exclusion.group)?,
        Query::Evidence(evidence) if evidence.group == 0 => GroupId::BEACON,
        Query::Evidence(evidence) => alive(view, evidence.group)?,
        Query::Block(block) => alive(view, block.group)?,
        Query::Asset(asset) => {
            edge::asset("asset", &asset.asset)?;
            if asset.group == 0 { GroupId::BEACON } else { alive(view, asset.group)? }
        }
        Query::Accounts(accounts) => {
            let accounts = std::mem::take(accounts);
            return Ok(Target::Accounts(request, accounts));
        }
    };
    Ok(Target::One(group, request))
}

/// The group that an account lies in: the shard of the main ledger that owns its address, unless a channel is named.
fn home(view: &ClusterView, address: &[u8], group: u64) -> Result<GroupId, EdgeError> {
    let address = edge::address("address", address)?;
    match group {
        0 => Ok(view.layout.locate(&address)),
        group if view.layout.retired(GroupId(group)) => Ok(view.layout.locate(&address)),
        group => edge::group("group", group),
    }
}

/// The group that answers in the name of this one: its heir, if it has ended.
fn alive(view: &ClusterView, group: u64) -> Result<GroupId, EdgeError> {
    edge::group("group", group).map(|group| view.layout.heir(group))
}

/// Asks the leader for a linearizable answer and any replica for others, until one answers.
async fn ask_group(desk: &Desk, group: GroupId, request: v1::QueryRequest) -> v1::QueryReply {
    ask_within(desk, group, request, desk.limits.read_within).await
}

async fn ask_within(desk: &Desk, group: GroupId, request: v1::QueryRequest, within: Duration) -> v1::QueryReply {
    let read = v1::ReadRequest { group: group.0, query: Some(request) };
    let ask = |node| read_at(desk, node, group, read.clone());
    let answer = in_turn(desk, group, within, ask).await;
    answer.unwrap_or_else(|| refused(Reject::UnknownGroup, format!("no group {group} is known to the router")))
}

async fn read_at(desk: &Desk, node: NodeId, group: GroupId, read: v1::ReadRequest) -> Said<v1::QueryReply> {
    match desk.backend.read(node, read).await {
        Ok(reply) => {
            let refusal = reply.refusal.clone();
            said(reply, refusal.as_ref(), node, &ELSEWHERE)
        }
        Err(status) if passing(&status) => {
            let detail = format!("node {node} of {group} did not answer: {}", status.message());
            Said::Silent(refused(Reject::Unanswered, detail))
        }
        Err(status) => Said::Final(refused(Reject::AccessDenied, format!("node {node}: {}", status.message()))),
    }
}

/// Asks every group; the first that has it answers. "Not found" needs all of them.
async fn ask_any(desk: &Desk, view: &ClusterView, request: v1::QueryRequest) -> v1::QueryReply {
    let mut answers = stream::iter(every_group(view))
        .map(|group| ask_group(desk, group, request.clone()))
        .buffer_unordered(PARALLEL_MAX);
    let mut result = v1::QueryReply::default();
    while let Some(reply) = answers.next().await {
        if reply.found {
            return reply;
        }
        if reply.refusal.is_some() {
            result = reply;
        }
    }
    if result.refusal.is_none() {
        result.group = GroupId::BEACON.0;
    }
    result
}

fn every_group(view: &ClusterView) -> Vec<GroupId> {
    view.layout.shards.iter().map(|shard| shard.group).chain([GroupId::BEACON]).collect()
}

/// The channels that the beacon shows the client's organisation in.
fn channels_of(view: &ClusterView, request: &v1::QueryRequest) -> Vec<GroupId> {
    let org = request.caller.as_ref().and_then(|caller| u16::try_from(caller.org).ok()).map(OrgId);
    let Some(org) = org else { return Vec::new() };
    view.channels.iter().filter(|(_, members)| members.contains(&org)).map(|(group, _)| *group).collect()
}

/// Asks every group that tells the client what it knows of a transaction: those of the main ledger, the beacon, and
/// its organisation's channels. One that cannot be asked is named, so that nobody takes its silence for ignorance.
async fn explain(desk: &Desk, view: &ClusterView, request: v1::QueryRequest) -> v1::QueryReply {
    let groups = every_group(view).into_iter().chain(channels_of(view, &request));
    let asked = groups.map(|group| explain_of(desk, group, request.clone()));
    let mut answers = stream::iter(asked).buffer_unordered(PARALLEL_MAX);
    let mut known: Vec<Explain> = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(explain) => known.extend(explain),
            Err(refused) => return refused,
        }
    }
    known.sort_by_key(|explain| explain.group);
    let values: Vec<Bytes> = known.iter().map(encoded).collect();
    v1::QueryReply { group: GroupId::BEACON.0, found: !values.is_empty(), values, ..v1::QueryReply::default() }
}

/// What one group knows, if anything. A group without a leader cannot say what it will have decided,
/// but its replicas still have what was decided before: that is asked for in half of the time.
async fn explain_of(desk: &Desk, group: GroupId, request: v1::QueryRequest) -> Result<Option<Explain>, v1::QueryReply> {
    let half = desk.limits.read_within / 2;
    let first = ask_within(desk, group, request.clone(), half).await;
    let linearizable = request.consistency == i32::from(v1::Consistency::Linearizable);
    let mut stale = false;
    let reply = match &first.refusal {
        Some(refusal) if linearizable && refusal.reject() != Some(Reject::Malformed) => {
            stale = true;
            let request = v1::QueryRequest { consistency: v1::Consistency::Stale.into(), ..request };
            ask_within(desk, group, request, half).await
        }
        _ => first,
    };
    match reply.refusal {
        Some(refusal) if refusal.reject() == Some(Reject::Malformed) => Err(v1::QueryReply::refused(refusal)),
        Some(refusal) => Ok(Some(unanswered(group, refusal))),
        None => match reply.values.first().map(|value| edge::value::<Explain>("explain", value)) {
            None => Ok(None),
            Some(Ok(explain)) => Ok(Some(Explain { stale, ..explain })),
            Some(Err(error)) => {
                Ok(Some(unanswered(group, v1::Refusal::of(Reject::Malformed).detail(error.to_string()))))
            }
        },
    }
}

fn unanswered(group: GroupId, refusal: v1::Refusal) -> Explain {
    Explain {
        version: 1,
        group,
        height: Height(0),
        time_ms: TimeMs(0),
        stale: false,
        prepared: None,
        receipt: None,
        tx: Vec::new(),
        credits: Vec::new(),
        unanswered: Some(Unanswered { code: refusal.code, detail: refusal.detail }),
    }
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    borsh::to_vec(value).expect("writing to memory does not fail").into()
}

/// Splits a question over the shards and puts the answers back in the order asked for.
async fn ask_accounts(
    desk: &Desk,
    view: &ClusterView,
    request: &v1::QueryRequest,
    accounts: v1::AccountsQuery,
) -> v1::QueryReply {
    let count = accounts.addresses.len();
    if count > ACCOUNTS_ASKED_MAX {
        return refused(Reject::AnswerTooLarge, format!("at most {ACCOUNTS_ASKED_MAX} accounts are read at once"));
    }
    let mut parts: std::collections::BTreeMap<GroupId, (Vec<usize>, Vec<Bytes>)> = std::collections::BTreeMap::new();
    for (at, bytes) in accounts.addresses.into_iter().enumerate() {
        match edge::address("address", &bytes) {
            Ok(address) => {
                let part = parts.entry(view.layout.locate(&address)).or_default();
                part.0.push(at);
                part.1.push(bytes);
            }
            Err(error) => return refused(Reject::Malformed, error.to_string()),
        }
    }
    let asked = parts.into_iter().map(|(group, (places, addresses))| {
        let query = v1::AccountsQuery { addresses };
        let request = v1::QueryRequest { prove: false, query: Some(Query::Accounts(query)), ..request.clone() };
        async move { (places, ask_group(desk, group, request).await) }
    });
    let mut answers = stream::iter(asked).buffer_unordered(PARALLEL_MAX);
    let mut values = vec![Bytes::new(); count];
    // What fits into the answer of each shard need not fit into one.
    let mut room = ANSWER_BYTES_MAX.saturating_sub(count * VALUE_BYTES);
    while let Some((places, reply)) = answers.next().await {
        if reply.refusal.is_some() {
            return reply;
        }
        if reply.values.len() != places.len() {
            return refused(Reject::Storage, "a shard answered with another number of accounts");
        }
        for (place, value) in places.into_iter().zip(reply.values) {
            let Some(left) = room.checked_sub(value.len()) else {
                return refused(Reject::AnswerTooLarge, "the records of these accounts do not fit into one message");
            };
            room = left;
            values[place] = value;
        }
    }
    v1::QueryReply { group: GroupId::BEACON.0, found: true, values, ..v1::QueryReply::default() }
}

/// Asks every node how it is doing.
pub(super) async fn status(desk: &Desk, request: v1::StatusRequest) -> v1::StatusReply {
    let nodes: Vec<NodeInfo> = desk.view().nodes.values().cloned().collect();
    let asked = nodes.into_iter().map(|info| node_status(desk, info, request.clone()));
    let mut reply = v1::StatusReply::default();
    let mut answers = stream::iter(asked).buffer_unordered(PARALLEL_MAX);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(node) => reply.nodes.push(node),
            Err(unreachable) => reply.unreachable.push(unreachable),
        }
    }
    reply.nodes.sort_by_key(|node| node.node);
    reply.unreachable.sort_by_key(|node| node.node);
    reply
}

async fn node_status(
    desk: &Desk,
    info: NodeInfo,
    request: v1::StatusRequest,
) -> Result<v1::NodeStatusReply, v1::UnreachableNode> {
    let limit = desk.limits.status_within;
    let answer = match tokio::time::timeout(limit, desk.backend.node_status(info.id, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} ms", limit.as_millis()))),
    };
    answer.map_err(|status| v1::UnreachableNode { node: info.id.0, addr: info.peer_addr, error: cause_of(&status) })
}

/// The innermost cause; the outer text of a failed connection only says that it failed.
fn cause_of(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

//! What can be asked about a channel: every call of every service, with every question. Which there are, the
//! descriptors say; what is new there, nobody makes here, and a test fails.

use bytes::Bytes;
use channel::{Change, Command};
use client::EntryName;
use consensus::port::{any_replica, replica_id};
use consensus::raft::CALL_KINDS;
use ledger::{LedgerId, NodeId, SignedTx, TimeMs};
use prost::Message;
use proto::v1;
use proto::v1::query_request::Query;
use shard_node::core::peer::PeerMessage;
use shard_node::server::group::FIRST_JOIN;

use super::{B, OUTSIDE, Scene};
use crate::support::bank::{body, now_ms};
use crate::support::consortium::Consortium;
use crate::support::rpc::{questions, short};

/// A message, and who does what with it.
type Sent = (String, Bytes);

impl Scene {
    /// One question of each kind about what is in the channel.
    pub fn question(&self, kind: &str) -> v1::QueryRequest {
        let (channel, account) = (self.channel.0, Bytes::copy_from_slice(&self.payee.address.0));
        let txid = Bytes::copy_from_slice(&self.txid.0.0);
        let query = match kind {
            "account" => Query::Account(v1::AccountQuery { address: account, group: channel }),
            "accounts" => Query::Accounts(v1::AccountsQuery { addresses: vec![account] }),
            "entry" => {
                let key = Bytes::from(EntryName::Record(ledger::Hash32([7; 32])).key());
                Query::Entry(v1::EntryQuery { address: account, group: channel, key })
            }
            "account_view" => Query::AccountView(v1::AccountViewQuery {
                address: account,
                group: channel,
                ..v1::AccountViewQuery::default()
            }),
            "history" => Query::History(v1::HistoryQuery {
                address: account,
                before_height: u64::MAX,
                limit: 100,
                group: channel,
                ..v1::HistoryQuery::default()
            }),
            "transaction" => Query::Transaction(v1::TransactionQuery { txid, group: channel }),
            "explain" => Query::Explain(v1::ExplainQuery { txid }),
            "block" => Query::Block(v1::BlockQuery { group: channel, height: self.height.0 }),
            "asset" => {
                Query::Asset(v1::AssetQuery { asset: Bytes::copy_from_slice(&self.bank.asset.0), group: channel })
            }
            "channels" => Query::Channels(v1::ChannelsQuery { foundings: true }),
            "governance" => Query::Governance(v1::GovernanceQuery { group: channel, ..Default::default() }),
            "founded" => Query::Founded(v1::FoundedQuery { group: channel }),
            // Of a member: whether there is one is nobody's business either.
            "exclusion" => Query::Exclusion(v1::ExclusionQuery { group: channel, org: B.0.into() }),
            "evidence" => Query::Evidence(v1::EvidenceQuery { group: channel, ..v1::EvidenceQuery::default() }),
            "nodes" => Query::Nodes(v1::NodesQuery {}),
            "accused" => Query::Accused(v1::AccusedQuery {}),
            "audit" => Query::Audit(v1::AuditQuery { proofs: true }),
            "epochs" => Query::Epochs(v1::EpochsQuery {}),
            "shards" => Query::Shards(v1::ShardsQuery {}),
            "job" => Query::Job(v1::JobQuery { job: 1 }),
            "policies" => Query::Policies(v1::PoliciesQuery {}),
            "admins" => Query::Admins(v1::AdminsQuery::default()),
            "engines" => Query::Engines(v1::EnginesQuery {}),
            other => panic!("the question '{other}' is new: ask it here about a channel"),
        };
        // A client that says who it is, is not believed.
        v1::QueryRequest { query: Some(query), caller: Some(self.pretence()), ..v1::QueryRequest::default() }
    }

    /// What the admin of a member would be.
    pub fn pretence(&self) -> v1::Caller {
        v1::Caller { org: 1, role: "admin".to_owned(), credential: Bytes::copy_from_slice(&[7; 32]) }
    }

    /// A payment in the channel that its payer has really signed.
    pub fn transaction(&self) -> SignedTx {
        let moves = [self.bank.pay(&self.payer, self.payee.address, 5)];
        let mut body = body(self.cluster.genesis.cluster_id(), 9, moves);
        for slot in &mut body.slots {
            if let ledger::Slot::Clear { ledger, .. } = slot {
                *ledger = LedgerId::of_channel(self.channel);
            }
        }
        SignedTx::sign(&body, &[&self.payer.key])
    }

    /// A command to the channel that its member B has really signed.
    pub fn command(&self) -> Bytes {
        let until = TimeMs(now_ms() + 60_000);
        let change = Change::Freeze;
        let command = Command::Propose { change, until_ms: until };
        let id = self.cluster.genesis.cluster_id();
        let key = Consortium::of(&self.cluster).key(B);
        channel::SignedCommand::sign(&id, self.channel, B, &command, [3; 16], until, &key).encode().into()
    }

    /// What somebody sends to a method of a router.
    pub fn to_router(&self, who: &str, method: &str) -> Vec<Sent> {
        match short(method) {
            "Query" => questions()
                .into_iter()
                .map(|kind| (format!("{who} asks for {kind}"), self.question(&kind).encode_to_vec().into()))
                .collect(),
            "Submit" => {
                let txs = vec![Bytes::from(self.transaction().encode())];
                let batch = v1::SubmitBatch { txs, ..v1::SubmitBatch::default() };
                vec![(format!("{who} submits"), batch.encode_to_vec().into())]
            }
            "Command" => {
                let (command, group) = (self.command(), self.channel.0);
                let request = v1::CommandRequest { command, group, caller: Some(self.pretence()) };
                vec![(format!("{who} commands"), request.encode_to_vec().into())]
            }
            "Cluster" | "Status" => vec![(format!("{who} looks at {method}"), Bytes::new())],
            other => panic!("{other} is new: call it here about a channel"),
        }
    }

    /// What somebody sends to a method of the node `at`, which nodes and routers call. All of it is what a member's
    /// node would send.
    pub fn to_node(&self, who: &str, method: &str, at: NodeId) -> Vec<Sent> {
        let group = self.channel.0;
        match short(method) {
            "Raft" => raft_calls(OUTSIDE, at)
                .into_iter()
                .map(|(kind, payload)| {
                    let request = v1::RaftRequest { group, kind, payload };
                    (format!("{who}, raft {kind}"), request.encode_to_vec().into())
                })
                .collect(),
            "Link" => {
                let want = PeerMessage::Want { height: self.height };
                let pull = PeerMessage::Pull { dest: self.channel, node: OUTSIDE, next_seq: 0, ack: None };
                let frame =
                    |message: &PeerMessage| v1::LinkFrame { group, payload: borsh::to_vec(message).unwrap().into() };
                let batch = v1::LinkBatch { frames: vec![frame(&want), frame(&pull)] };
                vec![(format!("{who}, link"), batch.encode_to_vec().into())]
            }
            "Ingest" => {
                let txs = vec![Bytes::from(self.transaction().encode())];
                let batch = v1::IngestBatch { group, txs, notify_applied: true, caller: Some(self.pretence()) };
                vec![(format!("{who}, ingest"), batch.encode_to_vec().into())]
            }
            "Read" => questions()
                .into_iter()
                .map(|kind| {
                    // Any replica answers that.
                    let consistency = v1::Consistency::Stale.into();
                    let query = v1::QueryRequest { consistency, ..self.question(&kind) };
                    let request = v1::ReadRequest { group, query: Some(query) };
                    (format!("{who} reads {kind}"), request.encode_to_vec().into())
                })
                .collect(),
            "Command" => {
                let request = v1::CommandRequest { command: self.command(), group, caller: Some(self.pretence()) };
                vec![(format!("{who}, command"), request.encode_to_vec().into())]
            }
            "NodeStatus" => {
                let request = v1::StatusRequest { caller: Some(self.pretence()) };
                vec![(format!("{who}, {method}"), request.encode_to_vec().into())]
            }
            "Clock" => vec![(format!("{who}, {method}"), Bytes::new())],
            "Follow" => {
                let request = v1::FollowRequest { lacking: vec![group], ..v1::FollowRequest::default() };
                vec![(format!("{who}, {method}"), request.encode_to_vec().into())]
            }
            other => panic!("{other} is new: call it here about a channel"),
        }
    }
}

/// The messages that members of a Byzantine group vote by.
pub const BFT_MESSAGES: u32 = 12;
/// What a Byzantine group's members alone answer, too: where a borrower wants snapshots of several of them.
pub const SNAPSHOT_MEET: u32 = 17;

/// A call of each kind as the replica on `from` would make it to the one on `to`; the formats are in
/// `consensus/src/raft/wire.rs`. Those from 8 on change nothing wherever they are answered: they are questions, and
/// no messages.
pub fn raft_calls(from: NodeId, to: NodeId) -> Vec<(u32, Bytes)> {
    fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
        borsh::to_vec(value).unwrap()
    }
    let (sender, receiver, any) = (replica_id(from, FIRST_JOIN), replica_id(to, FIRST_JOIN), any_replica(to));
    let call = |to: u64, body: Vec<u8>| Bytes::from([encoded(&(1u8, to, sender)), body].concat());
    // Term, leader, whether it is committed; and no position.
    let (vote, nowhere, hash) = ((9u64, sender, false), None::<u64>, [7u8; 32]);
    let no_files = (nowhere, nowhere, Vec::<u8>::new(), Vec::<u8>::new());
    let no_secret = Vec::<u8>::new();
    let calls = vec![
        (1, call(receiver, encoded(&(0u64, 0u64, vote, nowhere, nowhere, 0u32)))),
        (2, call(receiver, encoded(&(vote, nowhere, false)))),
        (3, call(receiver, encoded(&(vote, nowhere, false)))),
        (4, call(receiver, encoded(&(vote, no_files, no_secret)))),
        (5, call(receiver, encoded(&(hash, 0u32, 0u64, b"data".to_vec())))),
        (6, call(receiver, encoded(&(vote, hash)))),
        (7, call(receiver, encoded(&(vote, receiver, nowhere)))),
        (8, call(any, encoded(&u64::MAX))),
        (9, call(any, encoded(&(hash, 0u32, 0u64)))),
        (10, call(receiver, Vec::new())),
        (11, call(any, Vec::new())),
        (BFT_MESSAGES, call(any, encoded(&0u32))),
        (13, call(any, encoded(&u64::MAX))),
        (14, call(any, Vec::new())),
        (15, call(any, encoded(&u64::MAX))),
        (16, call(any, encoded(&0u64))),
        (SNAPSHOT_MEET, call(any, encoded(&0u64))),
    ];
    let kinds: Vec<u32> = CALL_KINDS.iter().map(|kind| u32::from(*kind)).collect();
    let tried: Vec<u32> = calls.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(tried, kinds, "a kind of call is new: make it here");
    calls
}

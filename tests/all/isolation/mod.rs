//! What happens in a channel is its members' alone: whoever else asks, over whatever port, with whatever
//! certificate of the cluster, gets nothing of it. The calls are those of the service descriptors, so that a
//! new one has to be put here. What a link is answered comes back over another one: see [`crate::link_answers`].

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use channel::exclusion::Departure;
use channel::{Change, Command};
use client::net::{self, Identity};
use client::{Client, Consistency, EntryName, ExclusionFile, Wait};
use consensus::port::{any_replica, replica_id};
use consensus::raft::CALL_KINDS;
use consensus::sequencer::Sequencer;
use ledger::{Address, Engine, GroupId, Height, LedgerId, Move, NodeId, OrgId, SignedTx, TimeMs, TxId};
use prost::Message;
use proto::v1;
use proto::v1::query_request::Query;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use seamark_cli::setup::{Authority, Subject};
use shard_node::core::peer::PeerMessage;
use shard_node::server::group::FIRST_JOIN;
use tonic::transport::Channel;

use crate::support::bank::{Bank, Wallet, body, now_ms, wallet};
use crate::support::cluster::{TestCluster, Wanted, leader_of};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::{call, methods, questions, services, short};

pub const A: OrgId = OrgId(1);
pub const B: OrgId = OrgId(2);
pub const C: OrgId = OrgId(3);
/// Organisation C's only node.
pub const OUTSIDE: NodeId = NodeId(3);
/// A node of A that hosts the channel.
pub const INSIDE: NodeId = NodeId(1);
/// Stands in a transaction of the channel, and nowhere else.
const MEMO: &[u8] = b"two tonnes of cold-rolled steel";

/// Stands in a transaction of the main ledger.
const OPEN_MEMO: &[u8] = b"three crates of mountain apples";

/// A channel with something in it that nobody outside may see.
pub struct Scene {
    pub cluster: TestCluster,
    pub bank: Bank,
    pub channel: GroupId,
    pub payer: Wallet,
    /// Was paid in the channel, and has never been heard of outside.
    pub payee: Wallet,
    txid: TxId,
    /// The block of that payment.
    pub height: Height,
}

impl Scene {
    pub async fn set(hosts: &[(OrgId, &[NodeId])], voters: &[OrgId]) -> Self {
        let cluster = TestCluster::start(Wanted { nodes: 5, shards: 1, ..Wanted::default() }).await;
        let bank = Bank::open(&cluster.client()).await;
        let (payer, payee) = (wallet("payer", 0), wallet("payee", 0));
        let consortium = Consortium::of(&cluster);
        // All of them answer who asks for mail.
        let channel = consortium.found_with(Engine::Raft, "steel", hosts, <[NodeId]>::to_vec).await;
        consortium.permit(channel, bank.asset, voters).await;
        bank.fund([&payer], 1_000).await;
        let ledger = LedgerId::of_channel(channel);
        let (asset, amount) = (bank.asset, 1_000);
        let bring = Move::Transfer { from: payer.address, to: payer.address, asset, amount, ledger };
        bank.execute(vec![bring], &[&payer.key]).await.unwrap();
        let member = Self::member(&cluster);
        eventually("the money is in the channel", async || {
            let answer = member.account_of(ledger, payer.address, Consistency::Linearizable, false).await;
            let found = answer.map_err(|error| error.to_string())?.value;
            found.map(drop).ok_or_else(|| "no account yet".to_owned())
        })
        .await;
        let pay = bank.pay(&payer, payee.address, 77);
        let settled = member.execute(vec![(ledger, pay)], MEMO, &[&payer.key], Wait::Receipt).await.unwrap();
        let client::Settled::Receipt(receipt) = settled else { panic!("{settled:?}") };
        let (txid, height) = (receipt.txid, receipt.height);
        Self { cluster, bank, channel, payer, payee, txid, height }
    }

    /// A client of organisation A.
    pub fn member(cluster: &TestCluster) -> Client {
        cluster.client_of(INSIDE)
    }

    pub fn issue(&self, org: &str, subject: impl Fn(&str, &str) -> Subject) -> Identity {
        self.cluster.authority(org).issue(&subject("somebody", org)).unwrap().identity()
    }

    /// As an organisation's issuing authority makes it, below the one that the registry has; with that one's
    /// certificate behind its own.
    fn issue_below(&self, org: &str, subject: &Subject) -> Identity {
        let above = self.cluster.authority(org);
        let above = Issuer::from_ca_cert_pem(above.cert_pem(), KeyPair::from_pem(&above.key_pem()).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, format!("issuing ca of {org}"));
        let cert = params.signed_by(&key, &above).unwrap().pem();
        let leaf = Authority::from_pem(&cert, &key.serialize_pem()).unwrap().issue(subject).unwrap();
        Identity::new(format!("{}{cert}", leaf.cert_pem), leaf.key_pem.as_str())
    }

    /// The client port of a node.
    pub fn door(&self, node: NodeId, identity: &Identity) -> Channel {
        let addr = &self.cluster.info(node).client_addr;
        net::connect(addr, identity, &self.cluster.roots(), &net::node_server_name(node)).unwrap()
    }

    /// The port between nodes.
    pub fn back_door(&self, node: NodeId, identity: &Identity) -> Channel {
        let addr = &self.cluster.info(node).peer_addr;
        net::connect(addr, identity, &self.cluster.roots(), &net::node_server_name(node)).unwrap()
    }

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
    fn pretence(&self) -> v1::Caller {
        v1::Caller { org: 1, role: "admin".to_owned(), credential: Bytes::copy_from_slice(&[7; 32]) }
    }

    /// Everything in these bytes is for everybody.
    pub fn is_clean(&self, what: &str, bytes: &[u8]) {
        let has = |secret: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
        assert!(!has(&self.payee.address.0), "{what} shows an account of the channel");
        assert!(!has(MEMO), "{what} shows a memo of the channel");
        assert!(!has(&self.txid.0.0), "{what} shows a transaction of the channel");
    }

    fn transaction(&self) -> SignedTx {
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
    fn command(&self) -> Bytes {
        let until = TimeMs(now_ms() + 60_000);
        let change = Change::Freeze;
        let command = Command::Propose { change, until_ms: until };
        let id = self.cluster.genesis.cluster_id();
        let key = Consortium::of(&self.cluster).key(B);
        channel::SignedCommand::sign(&id, self.channel, B, &command, [3; 16], until, &key).encode().into()
    }

    /// Every call of a router, about the channel; each must be denied, or be of what everybody may know.
    async fn knocks(&self, who: &str, door: &Channel) {
        for method in methods("Router") {
            let messages: Vec<(String, Bytes)> = match short(&method) {
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
            };
            for (what, message) in messages {
                let bytes = match call(door, &method, message).await {
                    Ok(Some(bytes)) => bytes,
                    Err(status) if status.code() == tonic::Code::PermissionDenied => continue,
                    other => panic!("{what}: {other:?}"),
                };
                // The id of what somebody sends is its own; what it learns must not be more.
                if short(&method) != "Submit" {
                    self.is_clean(&what, &bytes);
                }
                self.is_denied(&what, short(&method), bytes);
            }
        }
    }

    /// What is about the channel alone says that it was refused.
    fn is_denied(&self, what: &str, method: &str, bytes: Bytes) {
        match method {
            "Query" => {
                let reply = v1::QueryReply::decode(bytes).unwrap();
                let public = [
                    "channels", "accounts", "explain", "founded", "nodes", "accused", "audit", "epochs", "shards",
                    "job", "policies", "admins", "engines",
                ];
                if !public.iter().any(|kind| what.ends_with(kind)) {
                    let refusal = reply.refusal.unwrap_or_else(|| panic!("{what}: it was answered"));
                    assert!(
                        ["access_denied", "channel_refused"].contains(&refusal.code.as_str()),
                        "{what}: {refusal:?}"
                    );
                    assert!(reply.values.is_empty() && reply.proof.is_empty());
                }
            }
            "Command" => {
                let refusal = v1::CommandReply::decode(bytes).unwrap().refusal.expect(what);
                assert!(["access_denied", "channel_refused"].contains(&refusal.code.as_str()), "{what}: {refusal:?}");
            }
            "Submit" => {
                let events = v1::SubmitEvents::decode(bytes).unwrap().events;
                assert!(!events.is_empty(), "{what}: it is told nothing");
                for event in events {
                    let Some(v1::submit_event::Event::Refusal(refusal)) = event.event else {
                        panic!("{what}: {event:?}")
                    };
                    assert!(
                        ["access_denied", "channel_refused"].contains(&refusal.code.as_str()),
                        "{what}: {refusal:?}"
                    );
                }
            }
            _ => {}
        }
    }

    /// Every call between nodes, about the channel, to the node `at` by somebody who has no part in it: by a node
    /// with a certificate as good as any, or by a router. All of them are what a member's node would send. Returns
    /// what was denied by whoever leads: a follower sends transactions and commands to the leader without looking
    /// at them.
    async fn breaks_in(&self, by: Burglar, at: NodeId, door: &Channel) -> Vec<String> {
        let (who, group, mut denied) = (format!("a {by:?} outside at node {at}"), self.channel.0, Vec::new());
        for method in methods("Node") {
            let messages: Vec<(String, Bytes)> = match short(&method) {
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
                    let frame = |message: &PeerMessage| v1::LinkFrame {
                        group,
                        payload: borsh::to_vec(message).unwrap().into(),
                    };
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
            };
            for (what, message) in messages {
                let answer = call(door, &method, message).await;
                let at_the_door = match short(&method) {
                    "Raft" => true,
                    // Between nodes, whatever it is about; what a node may say of a group, its driver judges.
                    "Link" | "Clock" => by == Burglar::Router,
                    _ => false,
                };
                if at_the_door {
                    is_denied_at_the_door(&what, answer);
                    continue;
                }
                let bytes = answer.unwrap_or_else(|status| panic!("{what}: {status:?}")).expect(&what);
                match short(&method) {
                    "Read" => {
                        self.is_clean(&what, &bytes);
                        let reply = v1::QueryReply::decode(bytes).unwrap();
                        let refusal = reply.refusal.unwrap_or_else(|| panic!("{what}: it was answered"));
                        // What it says of its caller is not looked at any further: it may speak for nobody here.
                        assert_eq!(refusal.code, "access_denied", "{what}: {refusal:?}");
                        assert!(reply.values.is_empty() && reply.proof.is_empty(), "{what}");
                    }
                    "Ingest" | "Command" if bytes.windows(10).any(|part| part == b"not_leader") => {}
                    "Ingest" => {
                        let event = v1::SubmitEvents::decode(bytes).unwrap().events.remove(0).event;
                        let Some(v1::submit_event::Event::Refusal(refusal)) = event else {
                            panic!("{what}: {event:?}")
                        };
                        assert_eq!(refusal.code, "access_denied", "{what}: {refusal:?}");
                        denied.push("ingest".to_owned());
                    }
                    "Command" => {
                        let refusal = v1::CommandReply::decode(bytes).unwrap().refusal.expect(&what);
                        assert_eq!(refusal.code, "access_denied", "{what}: {refusal:?}");
                        denied.push("command".to_owned());
                    }
                    "Follow" => {
                        self.is_clean(&what, &bytes);
                        let reply = v1::FollowReply::decode(bytes).unwrap();
                        assert!(reply.foundations.is_empty(), "{what}: how the channel began is for its nodes");
                    }
                    _ => self.is_clean(&what, &bytes),
                }
            }
        }
        denied
    }

    /// As [`Scene::breaks_in`], at all of these nodes, until what a leader alone judges was denied by one: who leads may
    /// change meanwhile.
    async fn breaks_in_everywhere(&self, by: Burglar, identity: &Identity, nodes: &[NodeId]) {
        let doors: Vec<(NodeId, Channel)> = nodes.iter().map(|node| (*node, self.back_door(*node, identity))).collect();
        let mut denied = BTreeSet::<String>::new();
        eventually("a leader denies transactions and commands", async || {
            for (node, door) in &doors {
                denied.extend(Box::pin(self.breaks_in(by, *node, door)).await);
            }
            let missing = ["ingest", "command"].into_iter().find(|what| !denied.contains(*what));
            missing.map_or(Ok(()), |what| Err(format!("no {what} of a {by:?} came to a leader")))
        })
        .await;
    }

    /// A router's certificate.
    fn router_of(&self, org: &str) -> Identity {
        self.issue(org, |name, org| Subject::router(name, org, vec!["127.0.0.1".to_owned()]))
    }
}

/// Who comes to the port between nodes, with a certificate of an organisation that has no part in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Burglar {
    Node,
    Router,
}

/// The call was not let through to any group.
fn is_denied_at_the_door(what: &str, answer: Result<Option<Bytes>, tonic::Status>) {
    let status = answer.expect_err(what);
    let denied = (tonic::Code::PermissionDenied, ledger::Reject::AccessDenied.to_string());
    assert_eq!((status.code(), status.message().to_owned()), denied, "{what}");
}

/// The messages that members of a Byzantine group vote by.
const BFT_MESSAGES: u32 = 12;
/// What a Byzantine group's members alone answer, too: where a borrower wants snapshots of several of them.
const SNAPSHOT_MEET: u32 = 17;

/// A call of each kind as the replica on `from` would make it to the one on `to`; the formats are in
/// `consensus/src/raft/wire.rs`. Those from 8 on change nothing wherever they are answered: they are questions, and
/// no messages.
fn raft_calls(from: NodeId, to: NodeId) -> Vec<(u32, Bytes)> {
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

/// The calls of [`raft_calls`] are what replicas say to each other: where the node has a seat, they are answered.
async fn a_member_answers(cluster: &TestCluster, door: &Channel, group: GroupId, at: NodeId) {
    assert!(cluster.genesis.committee(group).unwrap().index_of(OUTSIDE).is_some(), "it has a seat in {group}");
    let questions = |kind: u32| kind >= 8 && kind != BFT_MESSAGES && kind != SNAPSHOT_MEET;
    for (kind, payload) in raft_calls(OUTSIDE, at).into_iter().filter(|(kind, _)| questions(*kind)) {
        let request = v1::RaftRequest { group: group.0, kind, payload }.encode_to_vec();
        let answer = call(door, "/seamark.v1.Node/Raft", request.into()).await;
        assert!(matches!(answer, Ok(Some(_))), "raft {kind}: {answer:?}");
    }
}

/// A channel whose members vote on every entry is as closed as one with a leader: its members answer each other, and
/// nobody else.
async fn a_byzantine_channel_answers_its_members_alone(scene: &Scene) {
    const HOSTS: [(OrgId, &[NodeId]); 2] = [(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2), NodeId(5)])];
    let tin = Consortium::of(&scene.cluster).found_by(Engine::Bft, "tin", &HOSTS).await;
    let request = |kind, payload| Bytes::from(v1::RaftRequest { group: tin.0, kind, payload }.encode_to_vec());
    // What this engine answers, from one member to the other: the messages, what was decided, the stint, the place, and where
    // to make a snapshot.
    let member = scene.back_door(INSIDE, &scene.cluster.node_identity(NodeId(5)));
    let of_the_engine = |kind: u32| (BFT_MESSAGES..16).contains(&kind) || kind == SNAPSHOT_MEET;
    for (kind, payload) in raft_calls(NodeId(5), INSIDE).into_iter().filter(|(kind, _)| of_the_engine(*kind)) {
        let request = request(kind, payload);
        eventually("a member is answered", async || {
            match call(&member, "/seamark.v1.Node/Raft", request.clone()).await {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("raft {kind}: {other:?}")),
            }
        })
        .await;
    }
    let as_node = scene.cluster.node_identity(OUTSIDE);
    for node in HOSTS.iter().flat_map(|(_, nodes)| nodes.iter().copied()) {
        let door = scene.back_door(node, &as_node);
        for (kind, payload) in raft_calls(OUTSIDE, node) {
            let answer = call(&door, "/seamark.v1.Node/Raft", request(kind, payload)).await;
            is_denied_at_the_door(&format!("a node outside at node {node}, raft {kind} of {tin}"), answer);
        }
    }
}

/// Whether any file below a folder has these bytes.
pub fn found_in(folder: &Path, secret: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => found_in(&path, secret),
            false => std::fs::read(&path).unwrap_or_default().windows(secret.len()).any(|part| part == secret),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_get_nothing_of_a_channel() {
    assert_eq!(services(), ["Router", "Node"], "a service is new: try its calls here");
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    // C has a channel of its own: it is clients and a node of another channel that come.
    let other = Consortium::of(&scene.cluster).found("coal", &[(C, &[OUTSIDE]), (B, &[NodeId(5)])]).await;
    let query = Some(Query::Governance(v1::GovernanceQuery { group: other.0, ..Default::default() }));
    let own = v1::QueryRequest { query, ..v1::QueryRequest::default() }.encode_to_vec();
    let door = scene.door(OUTSIDE, &scene.issue("org-c", Subject::client));
    eventually("it reads its own channel", async || {
        let told = call(&door, "/seamark.v1.Router/Query", own.clone().into()).await;
        let told = told.map_err(|status| status.to_string())?.ok_or_else(|| "no answer".to_owned())?;
        let reply = v1::QueryReply::decode(told).unwrap();
        if reply.found { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    // The search finds what is there: a member is shown all of it, over any member's router.
    let member = scene.issue("org-b", Subject::client);
    for node in [INSIDE, NodeId(2)] {
        let ask = scene.question("block").encode_to_vec();
        let seen = call(&scene.door(node, &member), "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
        assert!(seen.windows(32).any(|part| part == scene.txid.0.0), "a member reads the block");
    }
    let as_node = scene.cluster.node_identity(OUTSIDE);
    for (who, identity) in [
        ("a client outside", scene.issue("org-c", Subject::client)),
        ("an admin outside", scene.issue("org-c", Subject::admin)),
        ("an auditor outside", scene.issue("org-c", Subject::auditor)),
        ("a node outside, as a client,", as_node.clone()),
    ] {
        for node in [INSIDE, NodeId(2), OUTSIDE] {
            scene.knocks(&format!("{who} at node {node}"), &scene.door(node, &identity)).await;
        }
    }
    // How high the channel is, nobody finds out by asking for a height.
    let client = scene.issue("org-c", Subject::client);
    let mut told = Vec::new();
    for height in [1, u64::MAX / 2] {
        let consistency = v1::Consistency::AtLeast.into();
        let ask = v1::QueryRequest { consistency, height, ..scene.question("block") }.encode_to_vec();
        let answer = call(&scene.door(OUTSIDE, &client), "/seamark.v1.Router/Query", ask.into()).await.unwrap();
        told.push(v1::QueryReply::decode(answer.unwrap()).unwrap());
    }
    assert!(told[0].refusal.is_some());
    assert_eq!(told[0], told[1]);
    let members = [INSIDE, NodeId(2), NodeId(4)];
    scene.breaks_in_everywhere(Burglar::Node, &as_node, &members).await;
    scene.breaks_in_everywhere(Burglar::Router, &scene.router_of("org-c"), &members).await;
    // It is about the group, and not about the calls.
    let shard = scene.cluster.genesis.committee(GroupId::shard(0)).unwrap();
    let neighbour = shard.members.iter().map(|member| member.node).find(|node| *node != OUTSIDE).unwrap();
    a_member_answers(&scene.cluster, &scene.back_door(neighbour, &as_node), shard.group, neighbour).await;
    a_byzantine_channel_answers_its_members_alone(&scene).await;
    // Nothing of it has ever been on the disk of a node outside, and on that of a member values, log entries and
    // snapshots are sealed. The search finds what is not: what a shard keeps.
    let pay = scene.bank.pay(&scene.payer, scene.payer.address, 1);
    let main = vec![(LedgerId::MAIN, pay)];
    scene.bank.fund([&scene.payer], 1).await;
    let client = scene.cluster.client();
    client.execute(main, OPEN_MEMO, &[&scene.payer.key], Wait::Applied).await.unwrap();
    scene.cluster.wait_settled().await;
    let folders = [INSIDE, NodeId(2), NodeId(4), OUTSIDE].map(|node| scene.cluster.dir.node_dir(node));
    assert!(folders.iter().any(|folder| found_in(folder, OPEN_MEMO)));
    for folder in &folders {
        assert!(!found_in(folder, MEMO), "{}", folder.display());
    }
    let (address, txid) = (scene.payee.address, scene.txid);
    for secret in [&address.0[..], &txid.0.0, address.to_string().as_bytes(), txid.to_string().as_bytes()] {
        assert!(
            !found_in(&folders[3], secret),
            "a node outside has something of the channel on its disk or in its log"
        );
    }
    assert!(scene.cluster.data(INSIDE, scene.channel).join("local.key").exists());
    assert!(!scene.cluster.data(OUTSIDE, scene.channel).exists());
    assert_eq!(balance(&Scene::member(&scene.cluster), &scene, scene.payee.address).await, 77);
}

pub async fn balance(client: &Client, scene: &Scene, address: Address) -> u128 {
    let ledger = LedgerId::of_channel(scene.channel);
    let answer = client.account_of(ledger, address, Consistency::Linearizable, false).await.unwrap();
    let balances = answer.value.map(|record| record.balances).unwrap_or_default();
    balances.iter().find(|line| line.0 == scene.bank.asset).map_or(0, |line| line.1.posted)
}

/// Certificates of an authority below the one that the registry has are their organisation's like any other.
#[tokio::test(flavor = "multi_thread")]
async fn behind_an_intermediate_authority_a_certificate_is_its_organisations() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let member = scene.issue_below("org-b", &Subject::client("till", "org-b"));
    let outsider = scene.issue_below("org-c", &Subject::client("till", "org-b"));
    for node in [INSIDE, NodeId(2)] {
        let ask = scene.question("block").encode_to_vec();
        let seen = call(&scene.door(node, &member), "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
        assert!(seen.windows(32).any(|part| part == scene.txid.0.0), "a member reads the block");
        scene.knocks(&format!("a client of another's at node {node}"), &scene.door(node, &outsider)).await;
    }
    // A router of a member asks for any member.
    let subject = Subject::router("r", "org-b", vec!["127.0.0.1".to_owned()]);
    let certificate = scene.issue_below("org-b", &subject);
    let router = scene.back_door(INSIDE, &certificate);
    let credential = Bytes::copy_from_slice(&[7; 32]);
    let caller = v1::Caller { org: B.0.into(), role: "client".to_owned(), credential };
    let consistency = v1::Consistency::Stale.into();
    let query = v1::QueryRequest { consistency, caller: Some(caller), ..scene.question("block") };
    let read = v1::ReadRequest { group: scene.channel.0, query: Some(query) }.encode_to_vec();
    eventually("its replica has the block", async || {
        let seen = call(&router, "/seamark.v1.Node/Read", read.clone().into()).await.unwrap().unwrap();
        let reply = v1::QueryReply::decode(seen).unwrap();
        assert_eq!(reply.refusal, None);
        if reply.found { Ok(()) } else { Err("not yet") }
    })
    .await;
    // Until its organisation revokes it in the channel: then it speaks for nobody there any more, whomever it names.
    let act = Command::RevokeCertificate { credential: certificate.key_hash().unwrap() };
    Consortium::of(&scene.cluster).act(scene.channel, B, &act).await.unwrap();
    eventually("it is refused", async || {
        let seen = call(&router, "/seamark.v1.Node/Read", read.clone().into()).await.unwrap().unwrap();
        let refusal = v1::QueryReply::decode(seen).unwrap().refusal.ok_or("it is answered")?;
        assert!(refusal.code == "access_denied" && refusal.detail.contains("revoked"), "{refusal:?}");
        Ok::<_, &str>(())
    })
    .await;
    let batch = v1::IngestBatch {
        group: scene.channel.0,
        txs: vec![Bytes::from(scene.transaction().encode())],
        notify_applied: true,
        caller: Some(scene.pretence()),
    };
    let leader = scene.cluster.leader(scene.channel).await;
    let door = scene.back_door(leader, &certificate);
    let answer = call(&door, "/seamark.v1.Node/Ingest", batch.encode_to_vec().into()).await.unwrap().unwrap();
    let event = v1::SubmitEvents::decode(answer).unwrap().events.remove(0).event;
    assert!(
        matches!(&event, Some(v1::submit_event::Event::Refusal(refusal)) if refusal.code == "access_denied"),
        "{event:?}"
    );
    // Another one of the same organisation speaks for all.
    let other = scene.cluster.authority("org-b").issue(&subject).unwrap().identity();
    let seen = call(&scene.back_door(INSIDE, &other), "/seamark.v1.Node/Read", read.into()).await.unwrap().unwrap();
    assert!(v1::QueryReply::decode(seen).unwrap().found);
}

/// An auditor of a member reads and does nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn auditors_read_and_do_nothing_else() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let auditor = scene.door(INSIDE, &scene.issue("org-a", Subject::auditor));
    let ask = scene.question("block").encode_to_vec();
    let seen = call(&auditor, "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
    assert!(seen.windows(32).any(|part| part == scene.txid.0.0));
    for (method, message) in [
        ("Submit", {
            let txs = vec![Bytes::from(scene.transaction().encode())];
            v1::SubmitBatch { txs, ..v1::SubmitBatch::default() }.encode_to_vec()
        }),
        ("Command", {
            let (command, group) = (scene.command(), scene.channel.0);
            v1::CommandRequest { command, group, caller: None }.encode_to_vec()
        }),
    ] {
        let denied = call(&auditor, &format!("/seamark.v1.Router/{method}"), message.into()).await.unwrap_err();
        assert_eq!(denied.code(), tonic::Code::PermissionDenied, "{method}");
    }
    // A router of the member that lets its auditor through all the same: whoever leads the channel denies it.
    let router = scene.router_of("org-a");
    let doors = [INSIDE, NodeId(2), NodeId(4)].map(|node| scene.back_door(node, &router));
    let (group, credential) = (scene.channel.0, Bytes::copy_from_slice(&[7; 32]));
    let caller = Some(v1::Caller { org: A.0.into(), role: "auditor".to_owned(), credential });
    let txs = vec![Bytes::from(scene.transaction().encode())];
    let ingest = v1::IngestBatch { group, txs, notify_applied: true, caller: caller.clone() }.encode_to_vec();
    let command = v1::CommandRequest { command: scene.command(), group, caller }.encode_to_vec();
    for (method, message) in [("Ingest", Bytes::from(ingest)), ("Command", Bytes::from(command))] {
        let refusal = eventually("a leader is asked", async || {
            for door in &doors {
                let answer = call(door, &format!("/seamark.v1.Node/{method}"), message.clone()).await;
                let refusal = refusal_in(method, answer.unwrap().expect(method));
                if refusal.code != "not_leader" {
                    return Ok(refusal);
                }
            }
            Err("nobody of them leads")
        })
        .await;
        assert_eq!(refusal.code, "channel_refused", "{method}: {refusal:?}");
        assert!(refusal.detail.contains("channel_auditor_reads_only"), "{method}: {refusal:?}");
    }
    assert_eq!(balance(&Scene::member(&scene.cluster), &scene, scene.payee.address).await, 77);
}

/// Why a node refuses a transaction or a command.
fn refusal_in(method: &str, answer: Bytes) -> v1::Refusal {
    match method {
        "Ingest" => {
            let event = v1::SubmitEvents::decode(answer).unwrap().events.remove(0).event;
            let Some(v1::submit_event::Event::Refusal(refusal)) = event else { panic!("{event:?}") };
            refusal
        }
        "Command" => v1::CommandReply::decode(answer).unwrap().refusal.expect("it is refused"),
        other => panic!("{other}"),
    }
}

/// Everybody sees that a channel is there, who leads it, and whether it is well. How far it has come and how much
/// happens in it is for those whom it admits.
#[tokio::test(flavor = "multi_thread")]
async fn status_shows_a_channel_to_those_whom_it_admits() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let seen = async |node: NodeId, identity: Identity| {
        // What a client says of itself is not believed here either.
        let request = v1::StatusRequest { caller: Some(scene.pretence()) }.encode_to_vec();
        let answer = call(&scene.door(node, &identity), "/seamark.v1.Router/Status", request.into()).await;
        let status = v1::StatusReply::decode(answer.unwrap().unwrap()).unwrap();
        let all = status.nodes.into_iter().flat_map(|node| node.replicas);
        let replicas: Vec<v1::ReplicaStatus> = all.filter(|replica| replica.group == scene.channel.0).collect();
        assert_eq!(replicas.len(), 3, "it is known where it runs");
        replicas
    };
    for identity in [scene.issue("org-b", Subject::client), scene.issue("org-a", Subject::auditor)] {
        for replica in seen(INSIDE, identity).await {
            assert!(!replica.hidden && replica.height > 0 && !replica.state_root.is_empty(), "{replica:?}");
        }
    }
    for (node, identity) in [
        (INSIDE, scene.issue("org-c", Subject::client)),
        (INSIDE, scene.issue("org-c", Subject::auditor)),
        (OUTSIDE, scene.issue("org-c", Subject::admin)),
        // An outsider's router would see it, too.
        (OUTSIDE, scene.issue("org-b", Subject::client)),
    ] {
        for replica in seen(node, identity).await {
            let public = v1::ReplicaStatus {
                group: scene.channel.0,
                leads: replica.leads,
                leader_node: replica.leader_node,
                voters: vec![1, 2, 4],
                hidden: true,
                unwell: replica.unwell,
                // It has not handed over yet.
                handovers_certified: replica.leads,
                ..v1::ReplicaStatus::default()
            };
            assert_eq!(replica, public);
        }
    }
}

/// What a node counts for all its groups together tells how busy a channel of it is. Whoever is not shown the channel is
/// told it of other nodes alone.
#[tokio::test(flavor = "multi_thread")]
async fn totals_of_a_node_are_for_those_whom_its_channels_admit() {
    const HOSTS: [NodeId; 3] = [INSIDE, NodeId(2), NodeId(4)];
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    for (at, org, admitted) in [
        (NodeId(2), "org-b", true),
        (OUTSIDE, "org-c", false),
        (INSIDE, "org-c", false),
        // An outsider's router would see it, too.
        (OUTSIDE, "org-b", false),
    ] {
        let door = scene.door(at, &scene.issue(org, Subject::client));
        let request = v1::StatusRequest::default().encode_to_vec();
        let answer = call(&door, "/seamark.v1.Router/Status", request.into()).await;
        let nodes = v1::StatusReply::decode(answer.unwrap().unwrap()).unwrap().nodes;
        assert_eq!(nodes.len(), 5, "all nodes answer");
        for node in nodes {
            let hosts = HOSTS.contains(&NodeId(node.node));
            assert_eq!(
                node.replicas.iter().any(|replica| replica.hidden),
                hosts && !admitted,
                "{org} at {at}: {node:?}"
            );
            let of_log = [node.log_fsyncs, node.log_appends, node.log_bytes];
            match (hosts, admitted) {
                (true, false) => {
                    let all = (of_log, node.bytes_sent, node.client_bytes_received);
                    assert_eq!(all, ([0; 3], 0, 0), "{org} at {at} of node {}", node.node);
                }
                (true, true) => assert!(node.bytes_sent > 0 && !of_log.contains(&0), "{org} at {at}: {node:?}"),
                (false, _) => assert!(node.bytes_sent > 0, "{org} at {at}: {node:?}"),
            }
        }
    }
}

/// Why a replica has stopped is for those whom the channel admits. Others hear that it does not answer, which `status`
/// shows everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_stopped_says_why_to_those_whom_the_channel_admits() {
    const WHY: &str = "block 77 cannot be written: the disk is full";
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let stopped = eventually("the node hosts the channel", async || {
        scene.cluster.node(INSIDE).hosted().group(scene.channel.0).ok_or("not yet")
    })
    .await;
    stopped.share.halt.stop(WHY);
    // Its engine ends then, and has a reason of its own.
    stopped.engine.shutdown().await;
    for (name, org) in [("org-b", B), ("org-c", C)] {
        let subject = Subject::router("r", name, vec!["127.0.0.1".to_owned()]);
        let router = scene.back_door(INSIDE, &scene.cluster.authority(name).issue(&subject).unwrap().identity());
        for consistency in [v1::Consistency::Stale, v1::Consistency::Linearizable] {
            let credential = Bytes::copy_from_slice(&[7; 32]);
            let caller = v1::Caller { org: org.0.into(), role: "client".to_owned(), credential };
            let consistency = consistency.into();
            let query = v1::QueryRequest { consistency, caller: Some(caller), ..scene.question("block") };
            let read = v1::ReadRequest { group: scene.channel.0, query: Some(query) }.encode_to_vec();
            let answer = call(&router, "/seamark.v1.Node/Read", read.into()).await.unwrap().unwrap();
            let reply = v1::QueryReply::decode(answer).unwrap();
            let refusal = reply.refusal.clone().unwrap_or_else(|| panic!("it has stopped: {reply:?}"));
            assert!(reply.values.is_empty() && reply.proof.is_empty() && reply.height == 0, "{reply:?}");
            let bare = v1::Refusal::of(ledger::Reject::GroupStopped);
            if org == B {
                assert_eq!((refusal.code, refusal.detail.is_empty()), (bare.code, false), "{org} at {consistency}");
            } else {
                assert_eq!(refusal, bare, "{org} at {consistency}");
            }
        }
    }
    // The others go on without it.
    assert_eq!(balance(&scene.cluster.client_of(NodeId(4)), &scene, scene.payee.address).await, 77);
}

/// A member's client is served whichever router of its profile comes first; those of outsiders hand nothing over.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_pays_over_the_next_router_when_the_first_is_an_outsiders() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let ledger = LedgerId::of_channel(scene.channel);
    let pay = |amount| vec![(ledger, scene.bank.pay(&scene.payer, scene.payee.address, amount))];
    let mut profile = scene.cluster.profile();
    profile.routers.retain(|router| [Some(OUTSIDE), Some(INSIDE)].contains(&router.node));
    profile.routers.sort_by_key(|router| router.node != Some(OUTSIDE));
    let client = Client::lazy(&profile).unwrap();
    profile.routers.truncate(1);
    let outside_alone = Client::lazy(&profile).unwrap();
    eventually("the router outside has heard of the channel", async || {
        let reply = outside_alone.cluster().await.map_err(|error| error.to_string())?;
        let all = reply.committees.iter().map(|bytes| borsh::from_slice::<ledger::Committee>(bytes).unwrap());
        all.into_iter().find(|known| known.group == scene.channel).map(drop).ok_or("not yet".to_owned())
    })
    .await;

    assert_eq!(client.router().node, Some(OUTSIDE));
    let settled = client.execute(pay(3), b"", &[&scene.payer.key], Wait::Receipt).await.unwrap();
    assert!(settled.committed(), "{settled:?}");
    assert_eq!(client.router().node, Some(INSIDE));
    assert_eq!(balance(&client, &scene, scene.payee.address).await, 80);

    // Where there is no other, it is refused, and is told why.
    let error = outside_alone.execute(pay(5), b"", &[&scene.payer.key], Wait::Receipt).await.unwrap_err();
    assert_eq!(error.code(), "access_denied", "{error}");
    assert!(error.to_string().contains("use a member's router"), "{error}");
    assert_eq!(balance(&client, &scene, scene.payee.address).await, 80);
}

/// A removed member gets nothing any more: not over the connections it has, not with its certificates, not
/// with its node, whose copy of the channel is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_gets_nothing_any_more() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)]), (C, &[OUTSIDE])], &[A, B]).await;
    let identity = scene.issue("org-c", Subject::client);
    let doors = [INSIDE, NodeId(2), OUTSIDE].map(|node| scene.door(node, &identity));
    for door in &doors {
        let ask = scene.question("block").encode_to_vec();
        let seen = call(door, "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
        assert!(seen.windows(32).any(|part| part == scene.txid.0.0), "a member reads the block");
    }
    assert!(scene.cluster.data(OUTSIDE, scene.channel).exists());
    Consortium::of(&scene.cluster).decide(scene.channel, Change::Remove { org: C }, &[A, B]).await;
    // Its node gets no snapshot any more of whoever knows, although consensus still counts it.
    let as_node = scene.cluster.node_identity(OUTSIDE);
    let leader = leader_of(&scene.cluster.status().await, scene.channel);
    if let Some(leader) = leader.filter(|leader| *leader != OUTSIDE) {
        let (kind, payload) = raft_calls(OUTSIDE, leader).swap_remove(7);
        let request = v1::RaftRequest { group: scene.channel.0, kind, payload }.encode_to_vec();
        let answer = call(&scene.back_door(leader, &as_node), "/seamark.v1.Node/Raft", request.into()).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::PermissionDenied);
    }
    // From the block on that removed it, whoever is asked.
    for (door, node) in doors.iter().zip([INSIDE, NodeId(2), OUTSIDE]) {
        scene.knocks(&format!("a removed member at node {node}"), door).await;
    }
    for (who, identity) in [
        ("an admin", scene.issue("org-c", Subject::admin)),
        ("an auditor", scene.issue("org-c", Subject::auditor)),
        ("a router, as a client,", scene.router_of("org-c")),
    ] {
        for node in [INSIDE, NodeId(2), OUTSIDE] {
            let who = format!("{who} of a removed member at node {node}");
            scene.knocks(&who, &scene.door(node, &identity)).await;
        }
    }
    eventually("its copy is gone", async || {
        if scene.cluster.data(OUTSIDE, scene.channel).exists() { Err("it is there") } else { Ok(()) }
    })
    .await;
    let stay = [INSIDE, NodeId(2), NodeId(4)];
    for node in stay {
        let door = scene.back_door(node, &as_node);
        // It takes part in consensus until the beacon's next committee is in force there.
        eventually("its seat is gone", async || {
            let (kind, payload) = raft_calls(OUTSIDE, node).swap_remove(9);
            let request = v1::RaftRequest { group: scene.channel.0, kind, payload }.encode_to_vec();
            match call(&door, "/seamark.v1.Node/Raft", request.into()).await {
                Err(status) if status.code() == tonic::Code::PermissionDenied => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    scene.breaks_in_everywhere(Burglar::Node, &as_node, &stay).await;
    scene.breaks_in_everywhere(Burglar::Router, &scene.router_of("org-c"), &stay).await;
    // Of all that the channel holds, it gets what proves that it was removed; from its own router, too, which
    // has nothing of the channel any more.
    let consortium = Consortium::of(&scene.cluster);
    let genesis = &scene.cluster.genesis;
    for node in [INSIDE, OUTSIDE] {
        let removed = consortium.client_over(C, |own| own == node);
        let receipt = removed.exclusion(scene.channel, C).await.unwrap().expect("it was removed");
        let file = ExclusionFile::from_file(&receipt.to_file()).unwrap();
        let verified = client::exclusion::verify(&file, genesis).unwrap();
        assert_eq!((verified.exclusion.org, verified.exclusion.group), (C, scene.channel));
        assert!(matches!(verified.exclusion.how, Departure::Removed(_)));
        for of in [A, B] {
            let error = removed.exclusion(scene.channel, of).await.unwrap_err();
            assert!(error.to_string().contains("channel_removed"), "{error}");
        }
    }
    // Members are given it as well, and are told that nobody else went. Nobody else may fetch it for them.
    let member = consortium.client(A);
    assert!(member.exclusion(scene.channel, C).await.unwrap().is_some());
    assert_eq!(member.exclusion(scene.channel, B).await.unwrap(), None);
    let past_its_router = consortium.client_over(A, |own| own == OUTSIDE);
    assert_eq!(past_its_router.exclusion(scene.channel, C).await.unwrap_err().code(), "access_denied");
    // The others go on.
    let ledger = LedgerId::of_channel(scene.channel);
    let pay = scene.bank.pay(&scene.payer, scene.payee.address, 3);
    let member = Scene::member(&scene.cluster);
    member.execute(vec![(ledger, pay)], b"", &[&scene.payer.key], Wait::Receipt).await.unwrap();
    assert_eq!(balance(&member, &scene, scene.payee.address).await, 80);
}

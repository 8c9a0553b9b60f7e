//! A cluster of fake nodes over real loopback mTLS: they keep receipts in memory and follow a
//! script, so that every answer a leader can give can be provoked.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::net::{self, Identity, TrustRoots};
use client::{Profile, RouterEndpoint};
use futures::{Stream, StreamExt};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::tx::ParsedTx;
use ledger::*;
use parking_lot::Mutex;
use proto::v1::node_server::{Node, NodeServer};
use proto::v1::query_request::Query;
use proto::views::Explain;
use proto::{edge, v1};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use router::gateway::{ClusterView, Gateway, GatewayLimits, LocalNode, NodeBackend, Peers};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

/// Longest time anything here may take; only a failing test waits so long.
pub const SOON: Duration = Duration::from_secs(60);
/// Further away than any test waits.
pub const NEVER: Duration = Duration::from_secs(3600);
/// Messages of a node that may wait for its router.
const MESSAGES_MAX: usize = 1024;

/// A router that gives nothing up and asks nobody again for want of an answer: however slow the machine is, what
/// happens follows from what the nodes say. How limits are kept is tested where time is said, in
/// `router/src/gateway/flights_tests.rs`.
pub fn calm() -> GatewayLimits {
    GatewayLimits {
        receipt_within: NEVER,
        applied_within: NEVER,
        resend_after: NEVER,
        read_within: NEVER,
        command_within: NEVER,
        status_within: SOON,
        ..GatewayLimits::default()
    }
}

/// As [`calm`], and who is silent is soon asked again.
pub fn persistent() -> GatewayLimits {
    GatewayLimits { resend_after: Duration::from_millis(50), ..calm() }
}

pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn identity(&self, name: &str, role: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names = vec![format!("{name}.seamark"), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "org");
        params.distinguished_name.push(DnType::OrganizationalUnitName, role);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(cert.pem(), key.serialize_pem())
    }

    pub fn roots(&self) -> TrustRoots {
        TrustRoots { ca_pems: vec![self.pem.clone()] }
    }
}

/// What a leader does with a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mood {
    /// Executes it and answers.
    #[default]
    Work,
    /// Executes it and drops the stream without an answer.
    DropAfter,
    /// Answers nothing until the mood changes; a resend is then answered.
    Silent,
    /// Sends receipts but not `applied`.
    NoApplied,
    /// Says that its queue is full.
    Busy,
    /// Says that mail to the payee's group waits.
    PeerBusy,
    /// Says that it does not own the account.
    WrongShard,
    /// Says that it is being cut or joined.
    Sealing,
    /// Says that it was cut or joined.
    Moved,
}

/// What a leader says to a transaction that several groups vote on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Yes,
    No(Reject),
    Refuse(Reject),
    Waits,
    Silent,
    /// Takes it and drops the stream without an answer.
    Drop,
    /// It has its receipt already.
    Known(Reject),
}

/// A transaction as it was handed to a leader that took it.
#[derive(Clone, Debug)]
pub struct Handed {
    pub node: NodeId,
    pub group: GroupId,
    pub bytes: Bytes,
    pub applied: bool,
}

/// State shared by all fake nodes: what a replicated group would agree on.
#[derive(Default)]
pub struct World {
    pub leaders: Mutex<BTreeMap<GroupId, NodeId>>,
    pub give_hints: Mutex<bool>,
    pub mood: Mutex<Mood>,
    pub receipts: Mutex<HashMap<TxId, Receipt>>,
    pub executed: Mutex<HashMap<TxId, u32>>,
    pub batches: Mutex<Vec<(NodeId, GroupId, usize)>>,
    pub reads: Mutex<Vec<(NodeId, GroupId)>>,
    /// What groups say to every question, in the place of an answer.
    pub refusing: Mutex<BTreeMap<GroupId, Reject>>,
    /// What each group says, one after the other; the last one again and again. Nothing is silence.
    pub answers: Mutex<BTreeMap<GroupId, Vec<Answer>>>,
    pub handed: Mutex<Vec<Handed>>,
    /// To how many of these, by group, what is said is on its way.
    answered: Mutex<BTreeMap<GroupId, usize>>,
    /// Balances that every account has.
    pub balances: Mutex<u32>,
    streams: Mutex<Vec<(NodeId, mpsc::WeakSender<Result<v1::SubmitEvents, Status>>)>>,
    /// Nodes that show this registry to whoever follows them, whatever the view says.
    pub lies: Mutex<BTreeMap<NodeId, Bytes>>,
    /// Nodes that were followed, in order.
    pub followed: Mutex<Vec<NodeId>>,
    pub seen: Notify,
    /// Counts the times that all ingest streams were cut.
    pub cuts: watch::Sender<u32>,
}

impl World {
    pub async fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let seen = self.seen.notified();
                if met(self) {
                    return;
                }
                seen.await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never saw {what}"));
    }

    pub fn lead(&self, group: GroupId, node: u32) {
        self.leaders.lock().insert(group, NodeId(node));
    }

    /// Ends every ingest stream that is open now.
    pub fn cut_streams(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// What a group says from now on to transactions that several groups vote on.
    pub fn answer(&self, group: GroupId, answers: &[Answer]) {
        self.answers.lock().insert(group, answers.to_vec());
    }

    fn next_answer(&self, group: GroupId) -> Answer {
        let mut all = self.answers.lock();
        match all.get_mut(&group).map(|answers| (answers.first().copied(), answers)) {
            Some((Some(next), answers)) if answers.len() > 1 => {
                answers.remove(0);
                next
            }
            Some((Some(last), _)) => last,
            Some((None, _)) | None => Answer::Silent,
        }
    }

    /// The leader of a group says something by itself, as it does when mail arrives.
    pub fn tell(&self, group: GroupId, event: v1::SubmitEvent) {
        let leader = self.leaders.lock()[&group];
        for (node, stream) in &*self.streams.lock() {
            if let Some(stream) = stream.upgrade().filter(|_| *node == leader) {
                stream.try_send(Ok(v1::SubmitEvents { events: vec![event.clone()] })).unwrap();
            }
        }
    }

    /// Notes that what a leader says to so many hand-overs is on its way.
    fn note_answers(&self, group: u64, answers: usize) {
        *self.answered.lock().entry(GroupId(group)).or_default() += answers;
        self.seen.notify_waiters();
    }

    /// How often a group was handed a transaction.
    pub fn handed_to(&self, group: GroupId) -> usize {
        self.handed.lock().iter().filter(|handed| handed.group == group).count()
    }

    /// Waits until each of these groups has been handed this many transactions in all, and what its leader says to
    /// them is on its way: whatever a test lets the leader say next comes after that.
    pub async fn until_handed(&self, groups: &[GroupId], times: usize) {
        let answered = |world: &Self, group: &GroupId| world.answered.lock().get(group).copied().unwrap_or(0);
        self.until("hand-overs", |world| groups.iter().all(|group| answered(world, group) >= times)).await;
    }

    fn not_leader(&self, node: NodeId, group: GroupId) -> Option<v1::Refusal> {
        let leader = self.leaders.lock().get(&group).copied();
        if leader == Some(node) {
            return None;
        }
        let hint = leader.filter(|_| *self.give_hints.lock()).map_or(0, |leader| leader.0);
        Some(v1::Refusal { leader_node: hint, ..v1::Refusal::of(Reject::NotLeader) })
    }
}

#[derive(Clone)]
pub struct FakeNode {
    pub id: NodeId,
    pub cluster: ClusterId,
    pub world: Arc<World>,
    pub view: watch::Receiver<Arc<ClusterView>>,
}

impl FakeNode {
    /// The events of one batch, `None` if it drops the stream; and how many hand-overs they answer.
    fn ingest_batch(&self, batch: &v1::IngestBatch) -> (Option<Vec<v1::SubmitEvent>>, usize) {
        let group = GroupId(batch.group);
        self.world.batches.lock().push((self.id, group, batch.txs.len()));
        let (mut events, mut answers) = (Vec::new(), 0);
        let mut keep = true;
        for bytes in &batch.txs {
            let tx = self.take(bytes);
            let txid = edge::bytes_of(&tx.parsed.txid);
            let refuse = |refusal| v1::SubmitEvent::refused(txid.clone(), refusal).by(group);
            if let Some(refusal) = self.world.not_leader(self.id, group) {
                events.push(refuse(refusal));
                continue;
            }
            if tx.several {
                let (event, stays) = self.vote(group, &tx.parsed, bytes, batch.notify_applied);
                events.extend(event);
                answers += 1;
                keep &= stays;
                continue;
            }
            // Looked at after the leader, so that a test can change first this and then that.
            let mood = *self.world.mood.lock();
            // Whatever it is told to do, a shard that has ended executes nothing.
            let mood = if self.view.borrow().layout.retired(group) { Mood::Moved } else { mood };
            keep &= mood != Mood::DropAfter;
            match mood {
                Mood::Silent => continue,
                Mood::Busy => {
                    events.push(refuse(v1::Refusal::of(Reject::Busy).retry_after_ms(5)));
                    continue;
                }
                Mood::PeerBusy => {
                    events.push(refuse(v1::Refusal::of(Reject::PeerBusy).retry_after_ms(5)));
                    continue;
                }
                Mood::WrongShard => {
                    events.push(refuse(v1::Refusal::of(Reject::WrongShard)));
                    continue;
                }
                Mood::Sealing => {
                    events.push(refuse(v1::Refusal::of(Reject::Sealing)));
                    continue;
                }
                Mood::Moved => {
                    events.push(refuse(v1::Refusal::of(Reject::Moved)));
                    continue;
                }
                Mood::Work | Mood::NoApplied | Mood::DropAfter => {}
            }
            if let Err(reject) = tx.parsed.verify_signatures() {
                // Twice, as for a router that asked again just before the answer came.
                let event = refuse(v1::Refusal::of(reject).of_bytes(bytes));
                events.extend([event.clone(), event]);
                continue;
            }
            let receipt = self.execute(group, tx.parsed.txid);
            let receipt = borsh::to_vec(&receipt).unwrap().into();
            events.push(v1::SubmitEvent::receipt(txid.clone(), receipt));
            if batch.notify_applied && mood == Mood::Work {
                events.push(v1::SubmitEvent::applied(txid));
            }
        }
        self.world.seen.notify_waiters();
        (keep.then_some(events), answers)
    }

    fn take(&self, bytes: &Bytes) -> Taken {
        let parsed = ParsedTx::decode(&self.cluster, bytes).expect("the router sends only what decodes");
        let several = matches!(router::plan(&self.view.borrow().layout, &parsed), Ok(router::Plan::Several(_)));
        Taken { parsed, several }
    }

    /// What is said to a transaction that several groups vote on, and whether the stream stays.
    fn vote(&self, group: GroupId, tx: &ParsedTx, bytes: &Bytes, applied: bool) -> (Option<v1::SubmitEvent>, bool) {
        self.world.handed.lock().push(Handed { node: self.id, group, bytes: bytes.clone(), applied });
        let txid = edge::bytes_of(&tx.txid);
        let event = match self.world.next_answer(group) {
            Answer::Yes => Some(vote(tx.txid, group, None)),
            Answer::No(reason) => Some(vote(tx.txid, group, Some(reason))),
            // What a leader refuses, it refuses as the leader.
            Answer::Refuse(reject) => {
                let refusal = v1::Refusal { leader_node: self.id.0, ..v1::Refusal::of(reject) };
                Some(v1::SubmitEvent::refused(txid, refusal).by(group))
            }
            Answer::Waits => Some(v1::SubmitEvent::waits(txid).by(group)),
            Answer::Known(reason) => Some(receipt(tx.txid, group, Outcome::Rejected(reason))),
            Answer::Silent => None,
            Answer::Drop => return (None, false),
        };
        (event, true)
    }

    fn execute(&self, group: GroupId, txid: TxId) -> Receipt {
        let mut receipts = self.world.receipts.lock();
        let height = Height(receipts.len() as u64 + 1);
        let receipt = receipts.entry(txid).or_insert_with(|| {
            *self.world.executed.lock().entry(txid).or_default() += 1;
            let outcome = Outcome::Committed { mail: Vec::new() };
            Receipt { version: 1, txid, group, height, index: 0, time_ms: TimeMs(1), outcome }
        });
        receipt.clone()
    }

    fn record_of(&self, address: &[u8]) -> Bytes {
        let asset = |number: u32| AssetId([number.to_be_bytes(); 4].concat().try_into().unwrap());
        let balances = (0..*self.world.balances.lock()).map(|number| (asset(number), Balance::default())).collect();
        let record = AccountRecord { sequence: u64::from(address[0]), balances, ..AccountRecord::default() };
        borsh::to_vec(&record).unwrap().into()
    }

    fn answer(&self, request: v1::ReadRequest) -> v1::QueryReply {
        let group = GroupId(request.group);
        self.world.reads.lock().push((self.id, group));
        self.world.seen.notify_waiters();
        if let Some(reject) = self.world.refusing.lock().get(&group) {
            return v1::QueryReply::refused(v1::Refusal::of(*reject));
        }
        let query = request.query.unwrap();
        let linearizable = query.consistency == i32::from(v1::Consistency::Linearizable);
        if linearizable && let Some(refusal) = self.world.not_leader(self.id, group) {
            return v1::QueryReply::refused(refusal);
        }
        let mut reply = v1::QueryReply { group: group.0, height: 7, found: true, ..Default::default() };
        match query.query.unwrap() {
            // The record's sequence number tells which account was asked for.
            Query::Account(account) => reply.values.push(self.record_of(&account.address)),
            Query::Accounts(accounts) => {
                reply.values = accounts.addresses.iter().map(|address| self.record_of(address)).collect();
            }
            Query::Transaction(transaction) => {
                let txid = edge::txid("txid", &transaction.txid).unwrap();
                match self.world.receipts.lock().get(&txid).filter(|receipt| receipt.group == group) {
                    Some(receipt) => reply.values.push(borsh::to_vec(receipt).unwrap().into()),
                    None => reply.found = false,
                }
            }
            Query::Explain(explain) => {
                let txid = edge::txid("txid", &explain.txid).unwrap();
                let receipt = self.world.receipts.lock().get(&txid).filter(|receipt| receipt.group == group).cloned();
                reply.found = receipt.is_some();
                reply.values.extend(receipt.map(|receipt| Bytes::from(borsh::to_vec(&explained(receipt)).unwrap())));
            }
            Query::History(_)
            | Query::Block(_)
            | Query::Asset(_)
            | Query::AccountView(_)
            | Query::Channels(_)
            | Query::Entry(_)
            | Query::Founded(_)
            | Query::Evidence(_)
            | Query::Nodes(_)
            | Query::Accused(_)
            | Query::Audit(_)
            | Query::Epochs(_)
            | Query::Shards(_)
            | Query::Job(_)
            | Query::Policies(_)
            | Query::Admins(_)
            | Query::Engines(_)
            | Query::Exclusion(_)
            | Query::Governance(_) => reply.found = false,
        }
        reply
    }
}

struct Taken {
    parsed: ParsedTx,
    several: bool,
}

/// A group's vote, written in its block 5.
pub fn vote(txid: TxId, group: GroupId, reason: Option<Reject>) -> v1::SubmitEvent {
    v1::SubmitEvent::vote(edge::bytes_of(&txid), v1::Vote::of(group, reason, Some(Height(5))))
}

/// A group's receipt, in its block 6.
pub fn receipt(txid: TxId, group: GroupId, outcome: Outcome) -> v1::SubmitEvent {
    let receipt = Receipt { version: 1, txid, group, height: Height(6), index: 0, time_ms: TimeMs(1), outcome };
    v1::SubmitEvent::receipt(edge::bytes_of(&txid), borsh::to_vec(&receipt).unwrap().into())
}

/// All that a group mailed has been taken.
pub fn applied(txid: TxId, group: GroupId) -> v1::SubmitEvent {
    v1::SubmitEvent::applied(edge::bytes_of(&txid)).by(group)
}

fn explained(receipt: Receipt) -> Explain {
    Explain {
        version: 1,
        group: receipt.group,
        height: Height(7),
        time_ms: TimeMs(1),
        stale: false,
        prepared: None,
        receipt: Some(receipt),
        tx: Vec::new(),
        credits: Vec::new(),
        unanswered: None,
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvents, Status>> + Send>>;

#[tonic::async_trait]
impl Node for FakeNode {
    type IngestStream = EventStream;
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FollowReply, Status>> + Send>>;

    async fn ingest(&self, request: Request<Streaming<v1::IngestBatch>>) -> Result<Response<EventStream>, Status> {
        assert_eq!(net::peer_identity(&request).unwrap().role, net::Role::Router);
        let mut batches = request.into_inner();
        let (events, ready) = mpsc::channel(MESSAGES_MAX);
        let node = self.clone();
        self.world.streams.lock().push((self.id, events.downgrade()));
        let mut cuts = self.world.cuts.subscribe();
        tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    batch = batches.message() => batch,
                    _ = cuts.changed() => return,
                };
                let Ok(Some(batch)) = batch else { return };
                let (all, answers) = node.ingest_batch(&batch);
                let sent = match all {
                    Some(all) => events.send(Ok(v1::SubmitEvents { events: all })).await.is_ok(),
                    None => false,
                };
                node.world.note_answers(batch.group, answers);
                if !sent {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(ready))))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::QueryReply>, Status> {
        Ok(Response::new(self.answer(request.into_inner())))
    }

    async fn follow(&self, _: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        self.world.followed.lock().push(self.id);
        self.world.seen.notify_waiters();
        let lie = self.world.lies.lock().get(&self.id).cloned();
        let views = tokio_stream::wrappers::WatchStream::new(self.view.clone());
        let told = move |view: Arc<ClusterView>| {
            let mut replies = view.to_follow_replies(Epoch(0), Vec::new());
            if let (Some(lie), Some(last)) = (&lie, replies.last_mut()) {
                last.registry = lie.clone();
            }
            futures::stream::iter(replies.into_iter().map(Ok::<_, Status>))
        };
        Ok(Response::new(Box::pin(views.flat_map(told))))
    }

    async fn command(&self, _: Request<v1::CommandRequest>) -> Result<Response<v1::CommandReply>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn node_status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::NodeStatusReply>, Status> {
        Ok(Response::new(v1::NodeStatusReply { node: self.id.0, ..Default::default() }))
    }

    async fn raft(&self, _: Request<v1::RaftRequest>) -> Result<Response<v1::RaftReply>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn link(&self, _: Request<Streaming<v1::LinkBatch>>) -> Result<Response<v1::LinkEnd>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn clock(&self, _: Request<v1::ClockRequest>) -> Result<Response<v1::ClockReply>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }
}

#[tonic::async_trait]
impl LocalNode for FakeNode {
    fn id(&self) -> NodeId {
        self.id
    }

    async fn ingest(&self, batch: v1::IngestBatch, reply: mpsc::Sender<v1::SubmitEvents>) {
        let (events, answers) = self.ingest_batch(&batch);
        if let Some(events) = events {
            let _ = reply.send(v1::SubmitEvents { events }).await;
        }
        self.world.note_answers(batch.group, answers);
    }

    async fn read(&self, request: v1::ReadRequest) -> Result<v1::QueryReply, Status> {
        Ok(self.answer(request))
    }

    async fn command(&self, _: v1::CommandRequest) -> Result<v1::CommandReply, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn node_status(&self, _: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status> {
        Ok(v1::NodeStatusReply { node: self.id.0, ..Default::default() })
    }
}

/// Three fake nodes, two shards, and as many routers as a test starts.
pub struct Cluster {
    pub ca: Authority,
    pub genesis: Genesis,
    pub world: Arc<World>,
    pub view: Arc<watch::Sender<Arc<ClusterView>>>,
    pub nodes: Vec<FakeNode>,
    tasks: Vec<AbortOnDropHandle<()>>,
    dir: tempfile::TempDir,
}

pub struct RunningRouter {
    pub addr: String,
    task: AbortOnDropHandle<()>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl RunningRouter {
    /// Stops it and cuts its connections.
    pub fn kill(mut self) {
        drop(self.stop.take());
        drop(self.task);
    }
}

pub const NODES: u32 = 3;

impl Cluster {
    pub async fn start() -> Self {
        let ca = Authority::new("ca");
        let mut listeners = Vec::new();
        for _ in 0..NODES {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let identities: Vec<_> = (1..=NODES).map(|id| ca.identity(&format!("node-{id}"), "node")).collect();
        let genesis = genesis(&ca, &listeners, &identities);
        let world = Arc::new(World::default());
        *world.give_hints.lock() = true;
        for committee in &genesis.committees {
            world.lead(committee.group, 1);
        }
        let (view, seen) = watch::channel(Arc::new(ClusterView::of_genesis(&genesis)));
        let (mut nodes, mut tasks) = (Vec::new(), Vec::new());
        for ((id, listener), identity) in (1..=NODES).zip(listeners).zip(identities) {
            let node =
                FakeNode { id: NodeId(id), cluster: genesis.cluster_id(), world: world.clone(), view: seen.clone() };
            nodes.push(node.clone());
            let server = net::server(&identity, &ca.roots()).unwrap().add_service(NodeServer::new(node));
            let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
            tasks.push(AbortOnDropHandle::new(tokio::spawn(async move {
                serving.await.unwrap();
            })));
        }
        let dir = tempfile::tempdir().unwrap();
        Self { ca, genesis, world, view: Arc::new(view), nodes, tasks, dir }
    }

    /// Takes a node's server away for good.
    pub fn stop_node(&mut self, id: u32) {
        drop(self.tasks.remove(id as usize - 1));
    }

    /// The beacon's committee of the genesis.
    pub fn beacon(&self) -> Committee {
        self.genesis.committee(GroupId::BEACON).unwrap().clone()
    }

    /// The registry of the genesis with a change, proved by these members of the beacon.
    pub fn registry(&self, signers: &[u32], change: impl FnOnce(&mut beacon::ClusterView)) -> Bytes {
        self.registry_by(&self.beacon(), signers, change)
    }

    /// The same, proved by members of a later committee of the beacon.
    pub fn registry_by(
        &self,
        committee: &Committee,
        signers: &[u32],
        change: impl FnOnce(&mut beacon::ClusterView),
    ) -> Bytes {
        let mut registry = beacon::ClusterView::from_genesis(&self.genesis);
        change(&mut registry);
        let head = beacon::RegistryHead::of(registry.revision, &registry.encode());
        let position = schema::tree_position(&beacon::registry::head_key()).unwrap();
        let leaf = (position, tree::value_hash(&borsh::to_vec(&head).unwrap()));
        let mut tree = tree::StateTree::from_sorted(tree::BitPrefix::ROOT, vec![leaf]).unwrap();
        let path = tree.prove(&position).unwrap();
        let at = (Height(registry.revision), Hash32(tree.root()));
        let certificate = self.certified((committee, committee), signers, at);
        beacon::RegistryProof::new(&registry, path, certificate).encode().into()
    }

    /// The block after which another committee of the beacon certifies.
    pub fn handover(&self, from: &Committee, to: &Committee, height: u64) -> Handover {
        let signers: Vec<u32> = from.members.iter().map(|member| member.node.0).collect();
        let certificate = self.certified((from, to), &signers, (Height(height), Hash32::ZERO));
        Handover { committee: from.clone(), certificate }
    }

    /// A header of the beacon by one committee, which names the next.
    fn certified(
        &self,
        (committee, next): (&Committee, &Committee),
        signers: &[u32],
        (height, root): (Height, Hash32),
    ) -> Certificate {
        let header = Header {
            version: header::HEADER_VERSION,
            cluster: self.cluster_id(),
            group: GroupId::BEACON,
            incarnation: Incarnation(0),
            height,
            parents: vec![Hash32::ZERO],
            time_ms: TimeMs(1),
            layout_version: self.genesis.layout.version,
            batch_root: Hash32::ZERO,
            receipts_root: Hash32::ZERO,
            state_root: root,
            outbox_root: Hash32::ZERO,
            inbox_cursors_root: Hash32::ZERO,
            value_flow: Vec::new(),
            congestion: Vec::new(),
            committee_hash: committee.hash(),
            next_committee_hash: next.hash(),
            flags: 0,
        };
        let digest = header.hash();
        let sign = |id: &u32| (NodeId(*id), SecretKey::derive(b"node", &id.to_le_bytes()).sign(&digest));
        let signatures = signers.iter().map(sign).collect();
        Certificate { version: 1, header, signatures }
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.genesis.cluster_id()
    }

    pub fn peers(&self) -> Arc<Peers> {
        Arc::new(Peers::new(self.ca.identity("router-1", "router"), self.ca.roots(), self.view.subscribe()))
    }

    pub async fn router(&self, limits: GatewayLimits) -> RunningRouter {
        self.router_in(limits, None).await
    }

    pub async fn router_in(&self, limits: GatewayLimits, local: Option<FakeNode>) -> RunningRouter {
        self.run(TcpListener::bind("127.0.0.1:0").await.unwrap(), limits, local)
    }

    /// A router where somebody has listened so far.
    pub fn router_on(&self, listener: TcpListener, limits: GatewayLimits) -> RunningRouter {
        self.run(listener, limits, None)
    }

    fn run(&self, listener: TcpListener, limits: GatewayLimits, local: Option<FakeNode>) -> RunningRouter {
        let addr = listener.local_addr().unwrap().to_string();
        let local = local.map(|node| Arc::new(node) as Arc<dyn LocalNode>);
        let backend = NodeBackend::new(self.peers(), local);
        let service = Gateway::new(backend, limits).into_service();
        let identity = self.ca.identity("router-1", "router");
        let server = net::server(&identity, &self.ca.roots()).unwrap().add_service(service);
        // A runtime of its own, so that a kill also takes the connections, which tonic detaches.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let std_listener = listener.into_std().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(std_listener).unwrap();
                tokio::select! {
                    result = server.serve_with_incoming(TcpListenerStream::new(listener)) => result.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            thread.await.unwrap();
        }));
        RunningRouter { addr, task, stop: Some(stop) }
    }

    pub fn profile(&self, routers: &[&str]) -> Profile {
        self.profile_of(&self.ca.identity("client", "client"), routers)
    }

    pub fn profile_of(&self, identity: &Identity, routers: &[&str]) -> Profile {
        let base = self.dir.path();
        write(base, "ca.pem", &self.ca.pem);
        write(base, "client.pem", &identity.cert_pem);
        write(base, "client.key", &identity.key_pem);
        client::profile::write_genesis(&base.join("genesis.json"), &self.genesis).unwrap();
        let routers = routers
            .iter()
            .map(|addr| RouterEndpoint { node: None, addr: (*addr).to_owned(), server_name: "router-1.seamark".into() })
            .collect();
        Profile {
            cluster: "test".into(),
            cluster_id: self.cluster_id(),
            genesis: "genesis.json".into(),
            ca: "ca.pem".into(),
            cert: "client.pem".into(),
            key: "client.key".into(),
            routers,
            base: base.to_owned(),
        }
    }

    /// A signed payment; equal numbers give equal bytes.
    pub fn payment(&self, number: u64) -> SignedTx {
        let key = SecretKey::derive(b"payer", &(number % 50).to_le_bytes());
        let from = Authorisation::Single(key.public()).address();
        let mv = Move::Pay { from, to: Address([9; 20]), asset: AssetId([1; 16]), amount: 1 };
        self.signed(number, vec![Slot::Clear { ledger: LedgerId::MAIN, mv }], &[&key])
    }

    /// An account of a shard with its key; equal numbers give equal accounts.
    pub fn payer(&self, shard: u32, number: u64) -> (SecretKey, Address) {
        let key =
            |salt: u64| SecretKey::derive(b"payer of a shard", &[number.to_le_bytes(), salt.to_le_bytes()].concat());
        let mut all = (0..).map(|salt| (key(salt), Authorisation::Single(key(salt).public()).address()));
        all.find(|(_, address)| self.genesis.layout.locate(address) == GroupId::shard(shard)).unwrap()
    }

    /// Signed moves on the main ledger; equal numbers give equal bytes.
    pub fn signed(&self, number: u64, slots: Vec<Slot>, keys: &[&SecretKey]) -> SignedTx {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&number.to_le_bytes());
        let body = TxBody {
            version: 1,
            cluster: self.cluster_id(),
            valid_until_ms: TimeMs(u64::MAX / 2),
            salt,
            slots,
            memo: Vec::new(),
        };
        SignedTx::sign(&body, keys)
    }

    /// A payment from each of the two shards.
    pub fn swap(&self, number: u64) -> SignedTx {
        let (one, two) = (self.payer(0, number), self.payer(1, number));
        let slots = [&one, &two].map(|payer| {
            let mv = Move::Pay { from: payer.1, to: Address([9; 20]), asset: AssetId([1; 16]), amount: 1 };
            Slot::Clear { ledger: LedgerId::MAIN, mv }
        });
        self.signed(number, slots.to_vec(), &[&one.0, &two.0])
    }

    pub fn payments(&self, numbers: std::ops::Range<u64>) -> Vec<Bytes> {
        numbers.map(|number| self.payment(number).encode().into()).collect()
    }
}

fn write(base: &Path, name: &str, text: &str) {
    std::fs::write(base.join(name), text).unwrap();
}

fn genesis(ca: &Authority, listeners: &[TcpListener], identities: &[Identity]) -> Genesis {
    let key = |id: u32| SecretKey::derive(b"node", &id.to_le_bytes()).public();
    let nodes: Vec<NodeInfo> = (1..=NODES)
        .zip(listeners.iter().zip(identities))
        .map(|(id, (listener, identity))| NodeInfo {
            id: NodeId(id),
            org: OrgId(1),
            zone: "z".into(),
            capacity: 1,
            key: key(id),
            tls_key_hash: identity.key_hash().unwrap(),
            peer_addr: listener.local_addr().unwrap().to_string(),
            client_addr: String::new(),
        })
        .collect();
    let members: Vec<_> =
        nodes.iter().map(|node| committee::Member { node: node.id, org: node.org, key: node.key }).collect();
    let committees = [GroupId::BEACON, GroupId::shard(0), GroupId::shard(1)]
        .map(|group| Committee::majority(group, Incarnation(0), Epoch(0), members.clone()))
        .to_vec();
    Genesis {
        version: 1,
        name: "test".into(),
        created_ms: TimeMs(1),
        seed: Hash32::ZERO,
        orgs: vec![OrgInfo { id: OrgId(1), name: "org".into(), ca_pem: ca.pem.clone(), admin_key: key(0) }],
        nodes,
        committees,
        layout: Layout::even(2),
        verify: VerifyMode::Ingest,
        policies: Default::default(),
    }
}

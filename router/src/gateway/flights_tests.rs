//! Flights as time goes by, which a test says: who is asked again, and what is told when a limit has passed.

#![allow(clippy::unwrap_used)] // a test that meets an error has failed

use std::sync::Weak;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use ledger::genesis::{Genesis, NodeInfo, VerifyMode};
use ledger::{Committee, Epoch, Hash32, Height, Incarnation, Layout, Member, OrgId, Outcome, SecretKey, TimeMs};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use super::*;
use crate::gateway::backend::EventSink;
use crate::gateway::outbox::OutboxStream;
use crate::plan::Part;

const ZERO: GroupId = GroupId::shard(0);
const ONE: GroupId = GroupId::shard(1);
const ID: TxId = TxId(Hash32([7; 32]));
/// When a transaction without a fate is given up, milliseconds.
const DEADLINE_MS: u64 = 1_500;
/// Between two looks of the clockwork.
const TICK_MS: usize = 10;

/// Nodes that take whatever they are given and say nothing by themselves.
struct Nodes {
    view: watch::Receiver<Arc<ClusterView>>,
    handed: Mutex<Vec<(NodeId, GroupId)>>,
}

#[async_trait]
impl Backend for Nodes {
    fn cluster(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.clone()
    }

    fn attach(&self, _: Weak<dyn EventSink>) {}

    fn ingest(&self, node: NodeId, batch: v1::IngestBatch) -> Result<(), IngestError> {
        self.handed.lock().push((node, GroupId(batch.group)));
        Ok(())
    }

    async fn read(&self, _: NodeId, _: v1::ReadRequest) -> Result<v1::QueryReply, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn command(&self, _: NodeId, _: v1::CommandRequest) -> Result<v1::CommandReply, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn node_status(&self, _: NodeId, _: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// The flights of a router, and one client.
struct Scene {
    flights: Flights,
    nodes: Nodes,
    limits: GatewayLimits,
    start: Instant,
    outbox: Arc<Outbox>,
    told: OutboxStream,
}

/// Three nodes host both shards; node 1 is said to lead the first one, and node 2 the second.
fn view() -> ClusterView {
    let key = |node: u32| SecretKey::derive(b"node", &node.to_le_bytes()).public();
    let info = |node: u32| NodeInfo {
        id: NodeId(node),
        org: OrgId(1),
        zone: "z".into(),
        capacity: 1,
        key: key(node),
        tls_key_hash: Hash32::ZERO,
        peer_addr: String::new(),
        client_addr: String::new(),
    };
    let member = |node: u32| Member { node: NodeId(node), org: OrgId(1), key: key(node) };
    let committee =
        |group| Committee::majority(group, Incarnation(0), Epoch(0), (1..=3).map(member).collect::<Vec<_>>());
    let genesis = Genesis {
        version: 1,
        name: "test".into(),
        created_ms: TimeMs(1),
        seed: Hash32::ZERO,
        orgs: Vec::new(),
        nodes: (1..=3).map(info).collect(),
        committees: [ZERO, ONE].map(committee).to_vec(),
        layout: Layout::even(2),
        verify: VerifyMode::Ingest,
    };
    ClusterView { leaders: BTreeMap::from([(ZERO, NodeId(1)), (ONE, NodeId(2))]), ..ClusterView::of_genesis(&genesis) }
}

impl Scene {
    fn new() -> Self {
        let (_, seen) = watch::channel(Arc::new(view()));
        let limits = GatewayLimits {
            receipt_within: Duration::from_millis(DEADLINE_MS),
            applied_within: Duration::from_millis(DEADLINE_MS),
            resend_after: Duration::from_millis(200),
            ..GatewayLimits::default()
        };
        let outbox = Outbox::new();
        Self {
            flights: Flights::default(),
            nodes: Nodes { view: seen, handed: Mutex::default() },
            limits,
            start: Instant::now(),
            told: OutboxStream::new(Arc::clone(&outbox)),
            outbox,
        }
    }

    /// Something happens so many milliseconds after the beginning.
    fn at(&mut self, ms: u64, act: impl FnOnce(&mut Flights, &Step<'_>)) {
        let view = self.nodes.view.borrow().clone();
        let now = self.start + Duration::from_millis(ms);
        let step = Step { view: &view, backend: &self.nodes, limits: &self.limits, now };
        act(&mut self.flights, &step);
    }

    /// The client sends its transaction.
    fn send(&mut self, ms: u64, plan: Plan, applied: bool) {
        let outbox = Arc::clone(&self.outbox);
        let tx = Planned { txid: ID, plan, bytes: Bytes::from_static(b"signed"), caller: None };
        self.at(ms, |flights, step| flights.accept(step, &outbox, vec![tx], applied));
    }

    /// A node says something.
    fn hears(&mut self, ms: u64, node: u32, event: v1::SubmitEvent) {
        self.at(ms, |flights, step| flights.events(step, NodeId(node), vec![event]));
    }

    /// Goes on in the steps of the clockwork, until just before `until`. Whenever the first shard is handed the
    /// transaction by then, it says the same `again`.
    fn passes(&mut self, from: u64, until: u64, again: Option<&v1::SubmitEvent>) {
        for ms in (from..until).step_by(TICK_MS) {
            let before = self.handed_to(ZERO);
            self.at(ms, |flights, step| flights.tick(step));
            if let Some(event) = again.filter(|_| self.handed_to(ZERO) > before) {
                self.hears(ms, 1, event.clone());
            }
        }
    }

    fn handed_to(&self, group: GroupId) -> usize {
        self.nodes.handed.lock().iter().filter(|handed| handed.1 == group).count()
    }

    /// What the client has been told since it was asked last.
    fn told(&mut self) -> Vec<v1::SubmitEvent> {
        match self.told.next().now_or_never() {
            Some(Some(message)) => message.unwrap().events,
            Some(None) | None => Vec::new(),
        }
    }

    /// The one thing that the client is told is that the time is over, and with which words.
    fn given_up(&mut self) -> String {
        let told = self.told();
        let [event] = &told[..] else { panic!("{told:?}") };
        let Some(Event::Refusal(refusal)) = &event.event else { panic!("{event:?}") };
        assert_eq!((event.group, refusal.reject()), (0, Some(Reject::TooLate)));
        refusal.detail.clone()
    }
}

fn both() -> Plan {
    Plan::Several([ZERO, ONE].map(|group| Part { group, own: None }).to_vec())
}

fn yes(group: GroupId) -> v1::SubmitEvent {
    v1::SubmitEvent::vote(edge::bytes_of(&ID), v1::Vote::of(group, None, Some(Height(5))))
}

/// A group that never answers may have voted, so the refusal of the other one is not the fate; and a YES without the
/// other vote is none either.
#[test]
fn an_open_outcome_is_reported_as_open_once_its_time_is_over() {
    let refusal = v1::Refusal { leader_node: 1, ..v1::Refusal::of(Reject::HiddenSlot) };
    for (said, words) in [
        (
            v1::SubmitEvent::refused(edge::bytes_of(&ID), refusal).by(ZERO),
            "shard-0 refused: hidden_slot; shard-1 has not answered",
        ),
        (yes(ZERO), "shard-0 has voted yes; shard-1 has not answered"),
        (
            v1::SubmitEvent::waits(edge::bytes_of(&ID)).by(ZERO),
            "shard-0 waits for another vote; shard-1 has not answered",
        ),
    ] {
        let mut scene = Scene::new();
        scene.send(0, both(), false);
        assert_eq!(*scene.nodes.handed.lock(), [(NodeId(1), ZERO), (NodeId(2), ONE)]);
        scene.hears(1, 1, said.clone());
        scene.passes(10, DEADLINE_MS, Some(&said));
        assert!(scene.told().is_empty(), "{words}");
        let handed = (scene.handed_to(ZERO), scene.handed_to(ONE));
        assert!(handed.0 > 2 && handed.1 > 2, "both are asked again: {handed:?}");
        scene.passes(DEADLINE_MS, DEADLINE_MS + 1, None);
        let detail = scene.given_up();
        assert!(detail.starts_with(words) && detail.contains("seamark tx"), "{detail}");
        // Nothing is left of it.
        let handed = scene.nodes.handed.lock().len();
        scene.passes(DEADLINE_MS + 10, 3 * DEADLINE_MS, None);
        assert_eq!(scene.nodes.handed.lock().len(), handed);
        assert!(scene.told().is_empty());
    }
}

#[test]
fn a_silent_leader_is_asked_again_until_the_deadline() {
    let mut scene = Scene::new();
    scene.send(0, Plan::One(ZERO), false);
    scene.passes(10, DEADLINE_MS, None);
    assert!(scene.handed_to(ZERO) > 2, "others are, too, since it has not shown that it leads");
    assert!(scene.told().is_empty());
    scene.passes(DEADLINE_MS, DEADLINE_MS + 1, None);
    assert_eq!(scene.given_up(), "no leader of its group answered in time");
}

/// From the decision on, what is waited for is the credits, and their time begins anew.
#[test]
fn a_decision_stays_when_its_credits_are_not_confirmed_in_time() {
    let mut scene = Scene::new();
    scene.send(0, both(), true);
    let late = DEADLINE_MS - 10;
    scene.passes(10, late, None);
    scene.hears(late, 1, yes(ZERO));
    scene.hears(late, 2, yes(ONE));
    let told = scene.told();
    assert!(matches!(&told[..], [v1::SubmitEvent { event: Some(Event::Decided(_)), .. }]), "{told:?}");
    scene.passes(late, late + DEADLINE_MS, None);
    assert!(scene.told().is_empty());
    scene.passes(late + DEADLINE_MS, late + DEADLINE_MS + 200, None);
    assert!(scene.given_up().contains("committed"));
}

/// A receipt that comes in the last moment is the fate.
#[test]
fn what_is_answered_before_the_deadline_is_not_late() {
    let mut scene = Scene::new();
    scene.send(0, Plan::One(ZERO), false);
    scene.passes(10, DEADLINE_MS, None);
    let outcome = Outcome::Committed { mail: Vec::new() };
    let receipt =
        Receipt { version: 1, txid: ID, group: ZERO, height: Height(6), index: 0, time_ms: TimeMs(1), outcome };
    let bytes = Bytes::from(borsh::to_vec(&receipt).unwrap());
    scene.hears(DEADLINE_MS - 1, 1, v1::SubmitEvent::receipt(edge::bytes_of(&ID), bytes.clone()));
    scene.passes(DEADLINE_MS, 2 * DEADLINE_MS, None);
    assert_eq!(scene.told(), [v1::SubmitEvent::receipt(edge::bytes_of(&ID), bytes)]);
}

//! Flights as time goes by, which a test says: who is asked again, and what is told when a limit has passed.

#![allow(clippy::unwrap_used)] // a test that meets an error has failed

use std::sync::Weak;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use ledger::genesis::{Genesis, NodeInfo, VerifyMode};
use ledger::{
    Address, AssetId, Authorisation, Committee, Epoch, Hash32, Height, Incarnation, Layout, LedgerId, Member, Move,
    OrgId, Outcome, SecretKey, SignedTx, Slot, TimeMs, TxBody,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use super::*;
use crate::gateway::backend::EventSink;
use crate::gateway::outbox::OutboxStream;
use crate::plan::Part;

const ZERO: GroupId = GroupId::shard(0);
const ONE: GroupId = GroupId::shard(1);
/// What the first shard is cut into.
const LEFT: GroupId = GroupId::shard(2);
const RIGHT: GroupId = GroupId::shard(3);
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
    view: watch::Sender<Arc<ClusterView>>,
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
        policies: Default::default(),
    };
    ClusterView { leaders: BTreeMap::from([(ZERO, NodeId(1)), (ONE, NodeId(2))]), ..ClusterView::of_genesis(&genesis) }
}

impl Scene {
    fn new() -> Self {
        let (view, seen) = watch::channel(Arc::new(view()));
        let limits = GatewayLimits {
            receipt_within: Duration::from_millis(DEADLINE_MS),
            applied_within: Duration::from_millis(DEADLINE_MS),
            resend_after: Duration::from_millis(200),
            ..GatewayLimits::default()
        };
        let outbox = Outbox::new();
        Self {
            view,
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
        self.hand_in(ms, plan, (ID, Bytes::from_static(b"signed")), applied);
    }

    fn hand_in(&mut self, ms: u64, plan: Plan, (txid, bytes): (TxId, Bytes), applied: bool) {
        let outbox = Arc::clone(&self.outbox);
        let tx = Planned { txid, plan, bytes, org: None, caller: None };
        self.at(ms, |flights, step| flights.accept(step, &outbox, vec![tx], applied));
    }

    /// A client of an organisation sends a transaction of its own, over another stream. Why it is refused at once, if it is.
    fn offer(&mut self, org: u16, number: u8) -> Option<Reject> {
        let outbox = Outbox::new();
        let mut told = OutboxStream::new(Arc::clone(&outbox));
        let (txid, bytes) = (id(number), Bytes::from(vec![number; 10]));
        let tx = Planned { txid, plan: Plan::One(ZERO), bytes, org: Some(OrgId(org)), caller: None };
        self.at(0, |flights, step| flights.accept(step, &outbox, vec![tx], false));
        let events = told.next().now_or_never().flatten()?.unwrap().events;
        let [v1::SubmitEvent { event: Some(Event::Refusal(refusal)), .. }] = &events[..] else { panic!("{events:?}") };
        assert!(refusal.retry_after_ms > 0);
        refusal.reject()
    }

    /// The router sees the cluster so from now on.
    fn sees(&self, view: ClusterView) {
        self.view.send_replace(Arc::new(view));
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

fn id(number: u8) -> TxId {
    TxId(Hash32([number; 32]))
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

/// The first shard is cut into two; node 1 is said to lead the left one, and node 3 the right one.
fn cut() -> ClusterView {
    let mut view = view();
    view.layout = Arc::new(view.layout.split(ZERO, [LEFT, RIGHT]).unwrap());
    let parent = view.committees.remove(&ZERO).unwrap();
    view.leaders.remove(&ZERO);
    for (group, leader) in [(LEFT, 1), (RIGHT, 3)] {
        view.committees.insert(group, Committee { group, ..parent.clone() });
        view.leaders.insert(group, NodeId(leader));
    }
    view
}

/// A transaction with a payment from each of these shards of the layout behind the cut.
fn payments(shards: &[GroupId]) -> (TxId, Bytes) {
    let (layout, cluster) = (cut().layout, view().cluster);
    let key = |number: u32| SecretKey::derive(b"payer", &number.to_le_bytes());
    let account = |number: u32| Authorisation::Single(key(number).public()).address();
    let payer = |shard: &GroupId| (0..).find(|number| layout.locate(&account(*number)) == *shard).unwrap();
    let payers: Vec<u32> = shards.iter().map(payer).collect();
    let slots = payers.iter().map(|number| {
        let mv = Move::Pay { from: account(*number), to: Address([9; 20]), asset: AssetId([1; 16]), amount: 1 };
        Slot::Clear { ledger: LedgerId::MAIN, mv }
    });
    let body = TxBody {
        version: 1,
        cluster,
        valid_until_ms: TimeMs(u64::MAX / 2),
        salt: [0; 16],
        slots: slots.collect(),
        memo: Vec::new(),
    };
    let keys: Vec<SecretKey> = payers.into_iter().map(key).collect();
    let tx = SignedTx::sign(&body, &keys.iter().collect::<Vec<_>>());
    (tx.txid(&cluster), tx.encode().into())
}

fn refused(txid: TxId, group: GroupId, reject: Reject) -> v1::SubmitEvent {
    v1::SubmitEvent::refused(edge::bytes_of(&txid), v1::Refusal::of(reject)).by(group)
}

fn receipt_of(txid: TxId, group: GroupId) -> v1::SubmitEvent {
    let outcome = Outcome::Committed { mail: Vec::new() };
    let receipt = Receipt { version: 1, txid, group, height: Height(6), index: 0, time_ms: TimeMs(1), outcome };
    v1::SubmitEvent::receipt(edge::bytes_of(&txid), borsh::to_vec(&receipt).unwrap().into())
}

#[test]
fn what_a_sealed_shard_refuses_goes_to_those_that_come_from_it_and_nobody_is_told() {
    let mut scene = Scene::new();
    let tx = payments(&[RIGHT]);
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), false);
    assert_eq!(*scene.nodes.handed.lock(), [(NodeId(1), ZERO)]);
    let sealing = refused(tx.0, ZERO, Reject::Sealing);
    scene.hears(1, 1, sealing.clone());
    scene.passes(10, 1_000, Some(&sealing));
    let asked = scene.handed_to(ZERO);
    assert!((4..=12).contains(&asked), "it is asked again, and not all the time: {asked}");
    assert!(scene.told().is_empty());
    // The layout comes before the committees, and then these.
    let children = cut();
    scene.sees(ClusterView { layout: Arc::clone(&children.layout), ..view() });
    scene.passes(1_000, 1_200, None);
    assert_eq!((scene.handed_to(RIGHT), scene.told().len()), (0, 0));
    scene.sees(children);
    scene.passes(1_200, 1_201, None);
    assert_eq!(scene.nodes.handed.lock().last(), Some(&(NodeId(3), RIGHT)));
    scene.hears(1_330, 3, receipt_of(tx.0, RIGHT));
    assert_eq!(scene.told(), [receipt_of(tx.0, RIGHT)]);
    assert_eq!((scene.handed_to(ZERO), scene.handed_to(LEFT)), (asked, 0));
}

#[test]
fn what_a_sealed_shard_refuses_goes_to_it_again_when_the_seal_is_taken_back() {
    let mut scene = Scene::new();
    let tx = payments(&[LEFT]);
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), false);
    let sealing = refused(tx.0, ZERO, Reject::Sealing);
    scene.hears(1, 1, sealing.clone());
    scene.passes(10, 600, Some(&sealing));
    assert!(scene.told().is_empty());
    scene.passes(600, 820, Some(&receipt_of(tx.0, ZERO)));
    assert_eq!(scene.told(), [receipt_of(tx.0, ZERO)]);
    // The next one finds a leader that is known to work.
    let before = scene.handed_to(ZERO);
    scene.hand_in(830, Plan::One(ZERO), payments(&[RIGHT]), false);
    scene.passes(840, 850, None);
    assert_eq!(scene.handed_to(ZERO), before + 1);
}

#[test]
fn a_shard_that_never_goes_on_is_named_when_the_time_is_over() {
    for reject in [Reject::Sealing, Reject::Moved] {
        let mut scene = Scene::new();
        let tx = payments(&[LEFT]);
        scene.hand_in(0, Plan::One(ZERO), tx.clone(), false);
        let refusal = refused(tx.0, ZERO, reject);
        scene.hears(1, 1, refusal.clone());
        scene.passes(10, DEADLINE_MS, Some(&refusal));
        assert!(scene.told().is_empty());
        scene.passes(DEADLINE_MS, DEADLINE_MS + 1, None);
        assert_eq!(scene.given_up(), "shard-0 is being cut or joined, and did not go on in time");
    }
}

/// Nothing is waited for, neither a pause nor an answer of somebody who is no more.
#[test]
fn what_was_in_flight_goes_on_at_once_when_the_layout_changes() {
    let mut scene = Scene::new();
    let tx = payments(&[RIGHT]);
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), false);
    scene.sees(cut());
    scene.passes(10, 11, None);
    assert_eq!(scene.nodes.handed.lock().last(), Some(&(NodeId(3), RIGHT)));
    // What comes late of the one before changes nothing.
    scene.hears(12, 3, refused(tx.0, ZERO, Reject::Moved));
    // It may have executed there: that a queue is full now is not its fate.
    scene.hears(13, 3, refused(tx.0, RIGHT, Reject::Busy));
    let told = scene.told();
    let [v1::SubmitEvent { event: Some(Event::Refusal(refusal)), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(refusal.reject(), Some(Reject::TooLate));

    // The receipt of the one before is the fate, whoever shows it; its heir says when credits are applied.
    let mut scene = Scene::new();
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), true);
    scene.hears(1, 1, receipt_of(tx.0, ZERO));
    assert_eq!(scene.told(), [receipt_of(tx.0, ZERO)]);
    scene.sees(cut());
    scene.passes(10, 11, None);
    assert_eq!(scene.nodes.handed.lock().last(), Some(&(NodeId(1), LEFT)));
    let applied = v1::SubmitEvent::applied(edge::bytes_of(&tx.0));
    scene.hears(12, 1, applied.clone().by(LEFT));
    assert_eq!(scene.told(), [applied]);
}

/// The shard that owns the payer now shows the receipt of the one before; what that had mailed, its heir has passed on.
#[test]
fn when_credits_of_a_shard_that_has_ended_are_applied_its_heir_is_asked() {
    let mut scene = Scene::new();
    let tx = payments(&[RIGHT]);
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), true);
    scene.sees(cut());
    scene.passes(10, 11, None);
    assert_eq!(scene.nodes.handed.lock().last(), Some(&(NodeId(3), RIGHT)));
    scene.hears(12, 3, receipt_of(tx.0, ZERO));
    assert_eq!(scene.told(), [receipt_of(tx.0, ZERO)]);
    assert_eq!(scene.nodes.handed.lock().last(), Some(&(NodeId(1), LEFT)));
    let applied = v1::SubmitEvent::applied(edge::bytes_of(&tx.0));
    scene.hears(13, 1, applied.clone().by(LEFT));
    assert_eq!(scene.told(), [applied]);

    // Where both are asked for their votes, the heir's word is that of both.
    let mut scene = Scene::new();
    let tx = payments(&[LEFT, RIGHT]);
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), true);
    scene.sees(cut());
    scene.passes(10, 11, None);
    scene.hears(12, 1, receipt_of(tx.0, ZERO));
    let votes = [LEFT, RIGHT].map(|group| v1::Vote::of(group, None, None)).to_vec();
    assert_eq!(scene.told(), [v1::SubmitEvent::decided(edge::bytes_of(&tx.0), votes)]);
    let applied = v1::SubmitEvent::applied(edge::bytes_of(&tx.0));
    scene.hears(13, 1, applied.clone().by(LEFT));
    assert!(scene.told().is_empty(), "the other one has not been heard of");
    scene.hears(14, 3, receipt_of(tx.0, ZERO));
    assert_eq!(scene.told(), [applied]);
}

/// It was planned by the layout before, and is taken in just behind the change.
#[test]
fn what_is_planned_for_a_shard_that_has_ended_is_planned_anew() {
    let mut scene = Scene::new();
    scene.sees(cut());
    scene.passes(0, 1, None);
    scene.hand_in(5, Plan::One(ZERO), payments(&[RIGHT]), false);
    scene.passes(10, 60, None);
    assert_eq!(*scene.nodes.handed.lock(), [(NodeId(3), RIGHT)]);
    assert!(scene.told().is_empty());
}

/// What one group would have decided alone, two vote on now; what was voted before stands.
#[test]
fn votes_outlive_the_shard_that_gave_them() {
    let mut scene = Scene::new();
    let tx = payments(&[ONE, RIGHT]);
    let vote = |group| v1::SubmitEvent::vote(edge::bytes_of(&tx.0), v1::Vote::of(group, None, Some(Height(5))));
    scene.hand_in(0, both(), tx.clone(), false);
    scene.hears(1, 1, vote(ZERO));
    scene.hears(2, 2, refused(tx.0, ONE, Reject::Sealing));
    scene.sees(cut());
    scene.passes(10, 11, None);
    assert_eq!((scene.handed_to(RIGHT), scene.handed_to(LEFT)), (1, 0));
    assert!(scene.told().is_empty());
    scene.hears(12, 2, vote(ONE));
    let votes = [ONE, RIGHT].map(|group| v1::Vote::of(group, None, Some(Height(5)))).to_vec();
    assert_eq!(scene.told(), [v1::SubmitEvent::decided(edge::bytes_of(&tx.0), votes)]);

    let mut scene = Scene::new();
    let tx = payments(&[LEFT, RIGHT]);
    scene.hand_in(0, Plan::One(ZERO), tx.clone(), false);
    scene.hears(1, 1, refused(tx.0, ZERO, Reject::Sealing));
    scene.sees(cut());
    scene.passes(10, 11, None);
    assert_eq!((scene.handed_to(LEFT), scene.handed_to(RIGHT)), (1, 1));
    // It had been executed as one, and both know.
    scene.hears(12, 3, receipt_of(tx.0, ZERO));
    let votes = [LEFT, RIGHT].map(|group| v1::Vote::of(group, None, None)).to_vec();
    assert_eq!(scene.told(), [v1::SubmitEvent::decided(edge::bytes_of(&tx.0), votes)]);
}

/// Over however many streams its clients send, in number as in bytes.
#[test]
fn the_clients_of_one_organisation_never_take_all_flights_of_a_router() {
    let by_number = |limits: &mut GatewayLimits| limits.in_flight_max = 12;
    let by_bytes = |limits: &mut GatewayLimits| limits.in_flight_bytes_max = 120;
    for bound in [by_number as fn(&mut GatewayLimits), by_bytes] {
        let mut scene = Scene::new();
        bound(&mut scene.limits);
        let refused: Vec<_> = (1..=8).map(|number| scene.offer(1, number)).collect();
        assert_eq!(refused, [[None; 6].as_slice(), &[Some(Reject::OrgBusy); 2]].concat(), "it leaves half");
        let refused: Vec<_> = (11..=14).map(|number| scene.offer(2, number)).collect();
        assert_eq!(refused, [None, None, None, Some(Reject::OrgBusy)], "whoever comes next has room");
        assert_eq!([scene.offer(3, 21), scene.offer(3, 22)], [None, Some(Reject::OrgBusy)]);
        // What one is told makes room for all.
        for number in 1..=4 {
            scene.hears(1, 1, receipt_of(id(number), ZERO));
        }
        assert_eq!([scene.offer(2, 14), scene.offer(3, 22)], [None, None]);
    }
}

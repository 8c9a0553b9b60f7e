//! How long a group is waited for, and who is asked in which order.

#![allow(clippy::unwrap_used)] // a test that meets an error has failed

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::{Committee, Epoch, Hash32, Incarnation, Layout, Member, OrgId, SecretKey, TimeMs};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::gateway::{Backend, ClusterView, EventSink, GatewayLimits, IngestError, command, query};

const CHANNEL: GroupId = GroupId::channel(0);

/// Nodes that answer commands and reads in this way, and who was asked.
struct Nodes {
    view: watch::Receiver<Arc<ClusterView>>,
    /// Whom a node names as the leader; one that names itself answers.
    leader: u32,
    asked: Mutex<Vec<u32>>,
    /// Who does not answer at all.
    down: Mutex<Vec<u32>>,
}

impl Nodes {
    fn refusal(&self, node: NodeId) -> Result<Option<v1::Refusal>, Status> {
        self.asked.lock().push(node.0);
        if self.down.lock().contains(&node.0) {
            return Err(Status::unavailable("nobody listens"));
        }
        let elsewhere = v1::Refusal { leader_node: self.leader, ..v1::Refusal::of(Reject::NotLeader) };
        Ok((node.0 != self.leader).then_some(elsewhere))
    }
}

#[async_trait]
impl Backend for Nodes {
    fn cluster(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.clone()
    }

    fn attach(&self, _: Weak<dyn EventSink>) {}

    fn ingest(&self, _: NodeId, _: v1::IngestBatch) -> Result<(), IngestError> {
        Err(IngestError::Down)
    }

    async fn read(&self, node: NodeId, request: v1::ReadRequest) -> Result<v1::QueryReply, Status> {
        let refusal = self.refusal(node)?;
        Ok(v1::QueryReply { group: request.group, found: true, refusal, ..v1::QueryReply::default() })
    }

    async fn command(&self, node: NodeId, _: v1::CommandRequest) -> Result<v1::CommandReply, Status> {
        Ok(v1::CommandReply { height: 7, refusal: self.refusal(node)?, ..v1::CommandReply::default() })
    }

    async fn node_status(&self, _: NodeId, _: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

struct Scene {
    desk: Arc<Desk>,
    nodes: Arc<Nodes>,
    view: watch::Sender<Arc<ClusterView>>,
}

fn scene(limits: GatewayLimits) -> Scene {
    let genesis = Genesis {
        version: 1,
        name: "test".into(),
        created_ms: TimeMs(1),
        seed: Hash32::ZERO,
        orgs: Vec::new(),
        nodes: Vec::new(),
        committees: Vec::new(),
        layout: Layout::even(1),
        verify: VerifyMode::Ingest,
        policies: Default::default(),
    };
    let (view, seen) = watch::channel(Arc::new(ClusterView::of_genesis(&genesis)));
    let nodes = Arc::new(Nodes { view: seen, leader: 3, asked: Mutex::default(), down: Mutex::default() });
    let backend: Arc<dyn Backend> = nodes.clone();
    Scene { desk: Desk::new(backend, limits), nodes, view }
}

impl Scene {
    /// The channel is founded on nodes 1 to 3.
    fn found(&self) {
        self.comes(CHANNEL);
    }

    /// The committee of a group is known: nodes 1 to 3.
    fn comes(&self, group: GroupId) {
        let member = |node: u32| {
            let key = SecretKey::derive(b"node", &node.to_le_bytes()).public();
            Member { node: NodeId(node), org: OrgId(1), key }
        };
        let committee = Committee::majority(group, Incarnation(0), Epoch(0), (1..=3).map(member).collect());
        self.view.send_modify(|view| {
            Arc::make_mut(view).committees.insert(group, committee);
        });
    }
}

fn command_to(group: GroupId) -> v1::CommandRequest {
    v1::CommandRequest { group: group.0, ..v1::CommandRequest::default() }
}

fn question_of(group: GroupId) -> v1::QueryRequest {
    let query = v1::query_request::Query::Governance(v1::GovernanceQuery { group: group.0, ..Default::default() });
    v1::QueryRequest { query: Some(query), ..v1::QueryRequest::default() }
}

#[tokio::test]
async fn a_channel_that_was_just_founded_is_waited_for() {
    let scene = scene(GatewayLimits::default());
    let mut commanded = Box::pin(command::execute(&scene.desk, command_to(CHANNEL)));
    let mut asked = Box::pin(query::answer(&scene.desk, question_of(CHANNEL)));
    assert!(futures::poll!(commanded.as_mut()).is_pending(), "it is not refused at once");
    assert!(futures::poll!(asked.as_mut()).is_pending());
    scene.found();
    assert_eq!((commanded.await.height, asked.await.refusal), (7, None));
    // The probable leader is the first member, and whom it names is asked next.
    assert_eq!(*scene.nodes.asked.lock(), [1, 3, 1, 3]);
}

/// Some hosted group has told the layout already, and the registry comes with the committees.
#[tokio::test]
async fn a_shard_that_a_layout_brings_before_its_committee_is_waited_for_by_however_many() {
    let scene = scene(GatewayLimits::default());
    let ask = || Box::pin(query::answer(&scene.desk, question_of(GroupId::shard(0))));
    let mut asking: Vec<_> = (0..100).map(|_| ask()).collect();
    for asked in &mut asking {
        assert!(futures::poll!(asked.as_mut()).is_pending(), "it is not refused at once");
    }
    scene.comes(GroupId::shard(0));
    for asked in asking {
        assert_eq!(asked.await.refusal, None);
    }
}

#[tokio::test]
async fn what_does_not_come_is_refused_after_a_moment_and_what_cannot_come_at_once() {
    let short = GatewayLimits { heard_within: Duration::from_millis(1), ..GatewayLimits::default() };
    let never = scene(short);
    let refused = command::execute(&never.desk, command_to(CHANNEL)).await.refusal.unwrap();
    assert_eq!(refused.reject(), Some(Reject::UnknownGroup));
    let refused = query::answer(&never.desk, question_of(CHANNEL)).await.refusal.unwrap();
    assert_eq!(refused.reject(), Some(Reject::UnknownGroup));
    // Shards are never founded, and there are not so many channels.
    let patient = scene(GatewayLimits::default());
    let too_many = GroupId::channel(u32::try_from(CHANNELS_EVER_MAX).unwrap());
    for group in [GroupId::shard(7), too_many] {
        let mut asked = Box::pin(query::answer(&patient.desk, question_of(group)));
        assert!(futures::poll!(asked.as_mut()).is_ready(), "{group}");
    }
    assert!(never.nodes.asked.lock().is_empty() && patient.nodes.asked.lock().is_empty());
}

#[tokio::test]
async fn a_group_without_a_quorum_is_refused_with_how_many_of_its_nodes_answer() {
    // Longer than it takes to ask each of them once.
    let within = Duration::from_millis(500);
    for (down, told) in [
        (&[2u32, 3][..], Some("no quorum: 1 of the 3 nodes of channel-0 answer, and 2 have to")),
        (&[1, 2, 3], Some("no quorum: 0 of the 3 nodes of channel-0 answer, and 2 have to")),
        // They answer, and have no leader yet: that is another trouble.
        (&[3], None),
    ] {
        let scene = scene(GatewayLimits { command_within: within, read_within: within, ..GatewayLimits::default() });
        scene.found();
        scene.nodes.down.lock().extend(down);
        let commanded = command::execute(&scene.desk, command_to(CHANNEL));
        let asked = query::answer(&scene.desk, question_of(CHANNEL));
        let (commanded, asked) = futures::join!(commanded, asked);
        for refusal in [commanded.refusal.unwrap(), asked.refusal.unwrap()] {
            let said = refusal.detail.find("no quorum").map(|at| &refusal.detail[at..]);
            assert_eq!(said, told, "{down:?}: {refusal:?}");
        }
    }
}

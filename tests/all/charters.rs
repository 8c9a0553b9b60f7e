//! What founders agree on is for them: no node has it on its disk or in its log in the clear, also none that hosts the
//! beacon, and no answer to an outsider shows it. What of it the beacon has, is a hash and copies that the founders'
//! admins open.

use std::collections::BTreeMap;

use beacon::BeaconCommand;
use bytes::Bytes;
use channel::opening::first_policies;
use channel::policy::Item;
use channel::{Command, FoundingAct, Hosting, Opening, Outcome, Policy, PromiseStanding, Quorum, Role, Subject, Terms};
use client::net;
use ledger::{Engine, GroupId, NodeId, OrgId, SecretKey, TimeMs};
use prost::Message;
use proto::v1;
use proto::v1::query_request::Query;

use crate::isolation::found_in;
use crate::support::bank::now_ms;
use crate::support::cluster::{TestCluster, Wanted, settled};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::call;

/// A policy that nobody else has, and that stands in the opening alone.
fn agreed_on(first: OrgId, second: OrgId) -> Policy {
    let one = |org, role| Item::Sub(Policy::one(org, role));
    let nodes = Policy::rule(Quorum::All, vec![one(first, Role::Node), one(second, Role::Node)]);
    let both = vec![one(first, Role::Admin), one(second, Role::Admin), Item::Sub(nodes)];
    Policy::rule(Quorum::AtLeast(2), both)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_founders_agree_on_is_nowhere_outside_and_not_in_the_beacon() {
    let cluster = TestCluster::start_processes(Wanted { nodes: 6, shards: 1, ..Wanted::default() }).await;
    let consortium = Consortium::of(&cluster);
    let beacon = cluster.genesis.committee(GroupId::BEACON).unwrap();
    let (deciding, away): (Vec<NodeId>, Vec<NodeId>) =
        cluster.node_ids().into_iter().partition(|node| beacon.index_of(*node).is_some());
    // Has no part in the channel, and none in the beacon.
    let outside = away[0];
    let org_of = |node: NodeId| cluster.info(node).org;
    let founders: Vec<OrgId> =
        cluster.genesis.orgs.iter().map(|org| org.id).filter(|org| *org != org_of(outside)).collect();
    let [first, second] = founders[..] else { panic!("{founders:?}") };
    let hosting = |org: OrgId| {
        let nodes: Vec<NodeId> = cluster.node_ids().into_iter().filter(|node| org_of(*node) == org).collect();
        Hosting { anchors: nodes[..1].to_vec(), nodes }
    };

    let secret = agreed_on(first, second);
    let wanted = Opening::new([7; 32], Subject::ALL.map(|subject| (subject, secret.clone())).to_vec());
    let admins = consortium.client(first).admins().await.unwrap();
    let readers: BTreeMap<_, _> = founders.iter().map(|org| (*org, admins[org])).collect();
    let id = cluster.genesis.cluster_id();
    let promise = client::opening::seal(&id, first, &wanted, &readers).unwrap();
    let terms = Terms {
        name: "steel".to_owned(),
        invited: vec![second],
        engine: Engine::Raft,
        founding: Policy::members(Quorum::All, Role::Admin),
        policies: first_policies(),
    };
    let until_ms = TimeMs(now_ms() + 600_000);
    // Whoever states it by mistake is refused: under the number that earlier builds had for that, or beside a promise.
    let stated = Terms { policies: wanted.policies.clone(), ..terms.clone() };
    let clear = [vec![8], borsh::to_vec(&(stated.clone(), hosting(first), until_ms)).unwrap()].concat();
    let beside = BeaconCommand::ProposeSealedChannel {
        terms: stated,
        promise: promise.clone(),
        hosting: hosting(first),
        until_ms,
    };
    for (command, code) in [(clear, "malformed"), (borsh::to_vec(&beside).unwrap(), "founding_promise")] {
        let refused = consortium.beacon_bytes(first, command).await.expect_err(code).to_string();
        assert!(refused.contains(code), "{refused}");
    }
    let (sealed, hosts) = (promise.clone(), hosting(first));
    let propose = BeaconCommand::ProposeSealedChannel { terms, promise: sealed, hosting: hosts, until_ms };
    let proposed = consortium.beacon(first, &propose).await.unwrap().founding.unwrap();
    // While it waits, and when it is decided.
    let mut seen = outsiders_view(&cluster, outside, deciding[0]).await;
    // Who is asked reads its own copy before it says yes, and is given nobody else's.
    let asked = consortium.client(second).foundings().await.unwrap().remove(0);
    assert!(asked.id_fits(&id), "what it is shown is what it approves");
    let copies = &asked.promise.as_ref().unwrap().sealed.keys;
    assert_eq!(copies.iter().map(|(org, _)| *org).collect::<Vec<_>>(), [second]);
    let read = client::opening::open(&id, first, asked.promise.as_ref().unwrap(), second, &consortium.key(second));
    assert_eq!(read.as_ref(), Ok(&wanted));
    let act = FoundingAct::Approve(hosting(second));
    let approve = BeaconCommand::ActOnChannel { founding: proposed.id, act };
    let channel = consortium.beacon(second, &approve).await.unwrap().founding.unwrap().channel.unwrap();
    eventually("whoever is outside has heard of the channel", async || {
        let reply = cluster.client_of(outside).cluster().await.map_err(|error| error.to_string())?;
        let all = reply.committees.iter().map(|bytes| borsh::from_slice::<ledger::Committee>(bytes).unwrap());
        all.into_iter().find(|known| known.group == channel).map(drop).ok_or("not yet".to_owned())
    })
    .await;
    settled(&consortium.client(first), &[GroupId::BEACON, channel]).await;
    let member = consortium.client(first);
    let before = eventually("the channel answers its members", async || member.governance(channel).await).await;
    let standing = before.promise.unwrap().standing;
    assert_eq!((before.policies, standing), (first_policies(), PromiseStanding::Waits));
    let open = Command::Open { opening: read.unwrap() };
    assert_eq!(consortium.act(channel, second, &open).await.unwrap(), Outcome::Done);
    settled(&consortium.client(first), &[GroupId::BEACON, channel]).await;
    let after = consortium.client(first).governance(channel).await.unwrap();
    assert_eq!(after.policies, wanted.policies, "members see what they have agreed on");

    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    // The search finds what is there: the channel is in what everybody follows.
    let later = eventually("a node of the beacon tells of the channel", async || {
        let later = outsiders_view(&cluster, outside, deciding[0]).await;
        let told = later.iter().any(|(what, bytes)| what == "Follow" && has(bytes, &channel.0.to_le_bytes()));
        if told { Ok(later) } else { Err("not yet") }
    })
    .await;
    seen.extend(later);

    let forms = [borsh::to_vec(&secret).unwrap(), secret.to_string().into_bytes()];
    for (what, bytes) in &seen {
        assert!(forms.iter().all(|form| !has(bytes, form)), "{what} shows an outsider what the founders agreed on");
        assert!(!has(bytes, &promise.sealed.body[..64]), "{what} gives an outsider a copy to try keys on");
    }
    let folder = |node: &NodeId| cluster.dir.node_dir(*node);
    assert!(deciding.iter().any(|node| found_in(&folder(node), &promise.hash.0)), "the beacon has decided on its hash");
    // Members' nodes keep it sealed, and the nodes of the beacon have never had it, whose they may be.
    assert!(deciding.iter().any(|node| org_of(*node) == org_of(outside)), "one of them is an outsider's");
    for node in deciding.iter().chain(&away) {
        for form in &forms {
            assert!(!found_in(&folder(node), form), "node {node} has what the founders agreed on");
        }
    }
}

/// The beacon's state proves the keys: before anything in the registry has changed, and after a key was replaced.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_is_sealed_for_the_admin_key_that_the_beacon_has_certified() {
    let cluster = TestCluster::start(Wanted { nodes: 3, shards: 1, ..Wanted::default() }).await;
    let consortium = Consortium::of(&cluster);
    let mut expected: BTreeMap<_, _> = cluster.genesis.orgs.iter().map(|org| (org.id, org.admin_key)).collect();
    let [first, second] = [0, 1].map(|at: usize| cluster.genesis.orgs[at].id);
    let member = consortium.client(first);
    assert_eq!(member.admins().await.unwrap(), expected);
    let next = SecretKey::derive(b"the second organisation's next key", b"");
    let rotate = BeaconCommand::RotateAdminKey { key: next.public() };
    consortium.beacon(second, &rotate).await.unwrap();
    expected.insert(second, next.public());
    let known = member.admins().await.unwrap();
    assert_eq!(known, expected, "what is acknowledged is shown");

    let opening = Opening::new([7; 32], first_policies());
    let id = cluster.genesis.cluster_id();
    let promise = client::opening::seal(&id, first, &opening, &known).unwrap();
    assert_eq!(client::opening::open(&id, first, &promise, second, &next).as_ref(), Ok(&opening));
    let before = client::opening::open(&id, first, &promise, second, &consortium.key(second));
    assert_eq!(before.map_err(|error| error.code()), Err("opening_sealed"), "the key before opens nothing any more");
}

/// All that an organisation without a part in it can be told of a channel: by its router, as clients ask, and by a node
/// of the beacon, as its node follows the registry.
async fn outsiders_view(cluster: &TestCluster, outside: NodeId, beacon: NodeId) -> Vec<(String, Bytes)> {
    let org = cluster.genesis.orgs.iter().find(|org| org.id == cluster.info(outside).org).unwrap();
    let subject = seamark_cli::setup::Subject::admin("somebody", &org.name);
    let admin = cluster.authority(&org.name).issue(&subject).unwrap().identity();
    let name = net::node_server_name(outside);
    let door = net::connect(&cluster.info(outside).client_addr, &admin, &cluster.roots(), &name).unwrap();
    let mut seen = Vec::new();
    let channel = GroupId::channel(0).0;
    for (what, query) in [
        ("Channels", Query::Channels(v1::ChannelsQuery { foundings: true })),
        ("Founded", Query::Founded(v1::FoundedQuery { group: channel })),
        ("Governance", Query::Governance(v1::GovernanceQuery { group: channel, ..v1::GovernanceQuery::default() })),
        ("Admins", Query::Admins(v1::AdminsQuery::default())),
    ] {
        let request = v1::QueryRequest { query: Some(query), ..v1::QueryRequest::default() }.encode_to_vec();
        // Whoever is denied at the door has been told nothing.
        if let Ok(Some(answer)) = call(&door, "/seamark.v1.Router/Query", request.into()).await {
            seen.push((what.to_owned(), answer));
        }
    }
    for method in ["Cluster", "Status"] {
        let answer = call(&door, &format!("/seamark.v1.Router/{method}"), Bytes::new()).await.unwrap().unwrap();
        seen.push((method.to_owned(), answer));
    }
    let (own, name) = (cluster.node_identity(outside), net::node_server_name(beacon));
    let door = net::connect(&cluster.info(beacon).peer_addr, &own, &cluster.roots(), &name).unwrap();
    let ask = v1::FollowRequest { lacking: vec![channel], ..v1::FollowRequest::default() }.encode_to_vec();
    let answer = call(&door, "/seamark.v1.Node/Follow", ask.into()).await.unwrap().unwrap();
    seen.push(("Follow".to_owned(), answer));
    seen
}

//! The gateway and the SDK against fake nodes, over real loopback mTLS.

#![allow(clippy::unwrap_used)]

mod admins;
mod refusals;
mod reshape;
mod support;
mod votes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::net;
use client::{Client, Consistency, SubmitEvent, SubmitOptions, Wait};
use ledger::{Address, GroupId, LayoutVersion, NodeId, Reject, TxId};
use proto::v1;
use proto::v1::submit_event::Event;
use router::gateway::{ClusterView, GatewayLimits, follow};
use support::{Authority, Cluster, Mood, SOON, calm, persistent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The patience of a client that is to lose it, after it has had an answer at least.
const HASTE: Duration = Duration::from_secs(2);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("this takes too long")
}

/// Sends payments over one stream and collects every event by transaction.
async fn pay_all(client: &Client, txs: Vec<Bytes>, applied: bool) -> HashMap<TxId, Vec<SubmitEvent>> {
    let options = SubmitOptions { in_flight_max: 700, notify_applied: applied, ..SubmitOptions::default() };
    let (sender, mut events) = client.submit_stream(options).split();
    let sending = tokio::spawn(async move { sender.send(txs).await });
    let mut fates: HashMap<TxId, Vec<SubmitEvent>> = HashMap::new();
    soon(async {
        while let Some(batch) = events.next_events().await {
            for event in batch {
                fates.entry(event.txid()).or_default().push(event);
            }
        }
    })
    .await;
    sending.await.unwrap().unwrap();
    fates
}

fn one_receipt(events: &[SubmitEvent]) -> bool {
    matches!(events, [SubmitEvent::Receipt(receipt)] if receipt.committed())
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_find_their_shard_and_each_has_one_fate() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let fates = pay_all(&client, cluster.payments(0..5000), true).await;
    assert_eq!(fates.len(), 5000);
    for (txid, events) in &fates {
        let [SubmitEvent::Receipt(receipt), SubmitEvent::Applied(applied)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert!(receipt.committed() && receipt.txid == *txid && applied == txid);
    }
    let batches = cluster.world.batches.lock();
    let groups: std::collections::BTreeSet<GroupId> = batches.iter().map(|batch| batch.1).collect();
    assert_eq!(groups.into_iter().collect::<Vec<_>>(), [GroupId::shard(0), GroupId::shard(1)]);
    assert!(batches.len() < 500, "batches stay batches: {}", batches.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_is_idempotent_and_shared_between_streams() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let tx = cluster.payment(1).encode();
    let (a, b) = tokio::join!(client.submit(tx.clone()), client.submit_and_wait(tx.clone(), Wait::Applied));
    assert_eq!(a.unwrap(), b.unwrap());
    let again = client.submit(tx).await.unwrap();
    assert_eq!(cluster.world.executed.lock()[&again.txid()], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_leader_costs_a_redirect() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    for (hints, leader, numbers) in [(true, 3, 0..200), (false, 2, 200..400), (true, 1, 400..600)] {
        *cluster.world.give_hints.lock() = hints;
        cluster.world.lead(GroupId::shard(0), leader);
        cluster.world.lead(GroupId::shard(1), leader);
        let fates = pay_all(&client, cluster.payments(numbers), false).await;
        assert_eq!(fates.len(), 200);
        assert!(fates.values().all(|events| one_receipt(events)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_replaced_and_nothing_happens_twice() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.set(Mood::DropAfter);
    let txs = cluster.payments(0..300);
    let paying = tokio::spawn({
        let client = client.clone();
        async move { pay_all(&client, txs, true).await }
    });
    cluster.world.until("executions", |world| !world.executed.lock().is_empty()).await;
    cluster.world.lead(GroupId::shard(0), 2);
    cluster.world.lead(GroupId::shard(1), 2);
    cluster.world.set(Mood::Work);
    let fates = paying.await.unwrap();
    assert_eq!(fates.len(), 300);
    let one = |events: &Vec<SubmitEvent>| matches!(events[..], [SubmitEvent::Receipt(_), SubmitEvent::Applied(_)]);
    assert!(fates.values().all(one));
    assert!(cluster.world.executed.lock().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_is_waited_out_with_probes() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    // Both leaders have answered once, so both are trusted.
    assert_eq!(pay_all(&client, cluster.payments(0..50), false).await.len(), 50);
    cluster.world.set(Mood::Silent);
    cluster.world.batches.lock().clear();
    let (sender, mut events) = client.submit_stream(SubmitOptions::default()).split();
    sender.send(cluster.payments(50..4050)).await.unwrap();
    drop(sender);
    let sent = |world: &support::World| world.batches.lock().iter().map(|batch| batch.2).sum::<usize>();
    cluster.world.until("all payments", |world| sent(world) == 4000).await;
    cluster.world.leaders.lock().clear();
    cluster.world.cut_streams();
    cluster.world.until("probes", |world| world.batches.lock().iter().filter(|batch| batch.0.0 > 1).count() > 4).await;
    assert!(sent(&cluster.world) < 4000 + 2000, "{}", sent(&cluster.world));
    cluster.world.set(Mood::Work);
    cluster.world.lead(GroupId::shard(0), 3);
    cluster.world.lead(GroupId::shard(1), 2);
    let mut receipts = 0;
    soon(async {
        while let Some(batch) = events.next_events().await {
            assert!(batch.iter().all(|event| one_receipt(std::slice::from_ref(event))), "{batch:?}");
            receipts += batch.len();
        }
    })
    .await;
    assert_eq!(receipts, 4000);
    assert!(sent(&cluster.world) < 2 * 4000 + 4000, "{}", sent(&cluster.world));
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_comes_from_the_next_leader() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.set(Mood::NoApplied);
    let options = SubmitOptions { notify_applied: true, ..SubmitOptions::default() };
    let mut stream = client.submit_stream(options);
    stream.send(cluster.payments(0..1)).await.unwrap();
    let first = soon(stream.next_events()).await.unwrap();
    assert!(one_receipt(&first));
    cluster.world.set(Mood::Work);
    cluster.world.lead(GroupId::shard(0), 3);
    cluster.world.lead(GroupId::shard(1), 3);
    cluster.world.cut_streams();
    let second = soon(stream.next_events()).await.unwrap();
    assert_eq!(second, [SubmitEvent::Applied(first[0].txid())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_asked_again_and_the_deadline_is_kept() {
    let cluster = Cluster::start().await;
    cluster.world.set(Mood::Silent);
    // One router never asks again, and gives up.
    let hasty = GatewayLimits { receipt_within: Duration::from_millis(100), ..calm() };
    let router = cluster.router(hasty).await;
    let (mut events, txs) = raw_stream(&cluster, &router.addr, 1).await;
    txs.send(cluster.payments(0..1)).await.unwrap();
    let event = soon(events.message()).await.unwrap().unwrap().events.remove(0);
    let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
    assert_eq!(refusal.reject(), Some(Reject::TooLate));
    // Another one asks again and again, and never gives up.
    let router = cluster.router(persistent()).await;
    let (mut events, txs) = raw_stream(&cluster, &router.addr, 1).await;
    cluster.world.batches.lock().clear();
    txs.send(cluster.payments(1..2)).await.unwrap();
    cluster.world.until("more questions", |world| world.batches.lock().len() >= 3).await;
    cluster.world.set(Mood::Work);
    let event = soon(events.message()).await.unwrap().unwrap().events.remove(0);
    assert!(matches!(event.event, Some(Event::Receipt(_))));
}

struct RawSender(tokio::sync::mpsc::Sender<v1::SubmitBatch>);

impl RawSender {
    async fn send(&self, txs: Vec<Bytes>) -> Result<(), ()> {
        self.0.send(v1::SubmitBatch { txs, notify_applied: false }).await.map_err(|_| ())
    }
}

/// A submit stream without the SDK's own retries.
async fn raw_stream(cluster: &Cluster, addr: &str, queued: usize) -> (tonic::Streaming<v1::SubmitEvents>, RawSender) {
    let identity = cluster.ca.identity("client", "client");
    let channel = net::connect(addr, &identity, &cluster.ca.roots(), "router-1.seamark").unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(queued);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let events = net::router_client(channel).submit(stream).await.unwrap().into_inner();
    (events, RawSender(sender))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_router_says_busy_at_once() {
    let cluster = Cluster::start().await;
    let limits = GatewayLimits { stream_in_flight_max: 10, ..persistent() };
    let router = cluster.router(limits).await;
    let (mut events, txs) = raw_stream(&cluster, &router.addr, 4).await;
    cluster.world.set(Mood::Silent);
    txs.send(cluster.payments(0..25)).await.unwrap();
    let mut refused = 0;
    while refused < 15 {
        for event in soon(events.message()).await.unwrap().unwrap().events {
            let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
            assert_eq!(refusal.reject(), Some(Reject::Busy));
            assert!(refusal.retry_after_ms > 0);
            refused += 1;
        }
    }
    assert_eq!(refused, 15);
    cluster.world.set(Mood::Work);
    let mut received = 0;
    drop(txs);
    while let Some(message) = soon(events.message()).await.unwrap() {
        received += message.events.iter().filter(|event| matches!(event.event, Some(Event::Receipt(_)))).count();
    }
    assert_eq!(received, 10, "and the stream ended after the last fate");
}

/// As many bytes as are left for others, in however few transactions; answered ones make room.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_holds_enough_bytes_of_an_organisation_says_so() {
    let cluster = Cluster::start().await;
    let one = cluster.payment(0).encode().len();
    let limits = GatewayLimits { in_flight_bytes_max: 20 * one + one / 2, ..persistent() };
    let router = cluster.router(limits).await;
    let (mut events, txs) = raw_stream(&cluster, &router.addr, 4).await;
    for round in 0..2 {
        cluster.world.set(Mood::Silent);
        txs.send(cluster.payments(round * 100..round * 100 + 15)).await.unwrap();
        let (mut refused, mut received) = (0, 0);
        while refused + received < 15 {
            for event in soon(events.message()).await.unwrap().unwrap().events {
                match event.event {
                    Some(Event::Refusal(refusal)) => {
                        assert_eq!(refusal.reject(), Some(Reject::OrgBusy));
                        assert!(refusal.retry_after_ms > 0);
                        refused += 1;
                    }
                    Some(Event::Receipt(_)) => received += 1,
                    other => panic!("{other:?}"),
                }
            }
            if refused == 5 {
                cluster.world.set(Mood::Work);
            }
        }
        assert_eq!((refused, received), (5, 10), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_waits_out_a_busy_leader() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.set(Mood::Busy);
    let tx = cluster.payment(1).encode();
    let submitting = tokio::spawn(async move { client.submit(tx).await });
    cluster.world.until("two attempts", |world| world.batches.lock().len() >= 2).await;
    cluster.world.set(Mood::Work);
    assert!(soon(submitting).await.unwrap().unwrap().committed());
}

/// A full window is passed on as it is, with its hint; the client tries again, and says it by its
/// code when its patience ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_reaches_the_client_as_a_refusal_that_passes() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    cluster.world.set(Mood::PeerBusy);
    let (mut events, txs) = raw_stream(&cluster, &router.addr, 1).await;
    txs.send(cluster.payments(0..1)).await.unwrap();
    let event = soon(events.message()).await.unwrap().unwrap().events.remove(0);
    let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
    assert_eq!((refusal.reject(), refusal.code.as_str()), (Some(Reject::PeerBusy), "peer_busy"));
    assert!(refusal.retry_after_ms > 0);

    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let hasty = client.clone().with_patience(HASTE);
    let tx: Bytes = cluster.payment(1).encode().into();
    let error = soon(hasty.settle(tx.clone(), Wait::Receipt)).await.unwrap_err();
    assert_eq!(error.code(), "peer_busy");
    assert!(error.retryable());
    let waiting = tokio::spawn(async move { client.settle(tx, Wait::Receipt).await });
    let sent = cluster.world.batches.lock().len();
    cluster.world.until("another attempt", |world| world.batches.lock().len() > sent + 1).await;
    cluster.world.set(Mood::Work);
    assert!(soon(waiting).await.unwrap().unwrap().committed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_signature_cannot_spoil_a_good_one() {
    let cluster = Cluster::start().await;
    let router = cluster.router(persistent()).await;
    let good = cluster.payment(1);
    let mut bad = good.clone();
    bad.witnesses[0].signatures[0].1.0[40] ^= 1;
    // The leader keeps silent until both are at the router.
    cluster.world.set(Mood::Silent);
    let (mut first, bad_sender) = raw_stream(&cluster, &router.addr, 1).await;
    bad_sender.send(vec![bad.encode().into()]).await.unwrap();
    cluster.world.until("the bad one", |world| !world.batches.lock().is_empty()).await;
    let (mut second, good_sender) = raw_stream(&cluster, &router.addr, 1).await;
    good_sender.send(vec![good.encode().into(), Bytes::from_static(b"junk")]).await.unwrap();
    let junk = soon(second.message()).await.unwrap().unwrap().events.remove(0);
    let Some(Event::Refusal(refusal)) = junk.event else { panic!("{junk:?}") };
    assert_eq!(refusal.reject(), Some(Reject::Malformed));
    cluster.world.set(Mood::Work);
    let event = soon(first.message()).await.unwrap().unwrap().events.remove(0);
    let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
    assert_eq!(refusal.reject(), Some(Reject::BadSignature));
    let event = soon(second.message()).await.unwrap().unwrap().events.remove(0);
    assert!(matches!(event.event, Some(Event::Receipt(_))), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_shard_is_planned_again_by_the_new_layout() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.set(Mood::WrongShard);
    let tx = cluster.payment(1).encode();
    let submitting = tokio::spawn(async move { client.submit(tx).await });
    cluster.world.until("an attempt", |world| !world.batches.lock().is_empty()).await;
    // The two shards change places.
    cluster.view.send_modify(|view| {
        let mut new = (**view).clone();
        let mut layout = (*new.layout).clone();
        layout.version = LayoutVersion(2);
        layout.shards[0].group = GroupId::shard(1);
        layout.shards[1].group = GroupId::shard(0);
        new.layout = Arc::new(layout);
        *view = Arc::new(new);
    });
    cluster.world.set(Mood::Work);
    let receipt = soon(submitting).await.unwrap().unwrap().receipt().unwrap().clone();
    let first = cluster.world.batches.lock()[0].1;
    assert_ne!(receipt.group, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_do_not_fit_into_one_answer_are_refused_by_name_and_asked_for_in_parts() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.lead(GroupId::shard(0), 2);
    cluster.world.lead(GroupId::shard(1), 3);
    // A megabyte each: six of one shard fit into its answer, those of both into none.
    *cluster.world.balances.lock() = 20_000;
    let home = |address: &Address| cluster.genesis.layout.locate(address);
    let addresses: Vec<Address> = [GroupId::shard(0), GroupId::shard(1)]
        .into_iter()
        .flat_map(|group| (0..=255).map(|byte| Address([byte; 20])).filter(move |a| home(a) == group).take(6))
        .collect();
    let identity = cluster.ca.identity("client", "client");
    let channel = net::connect(&router.addr, &identity, &cluster.ca.roots(), "router-1.seamark").unwrap();
    let mut gateway = net::router_client(channel);
    let mut ask = async |addresses: Vec<Bytes>| {
        let query = v1::query_request::Query::Accounts(v1::AccountsQuery { addresses });
        let request = v1::QueryRequest { query: Some(query), ..v1::QueryRequest::default() };
        gateway.query(request).await.unwrap().into_inner()
    };
    let raw: Vec<Bytes> = addresses.iter().map(|address| Bytes::copy_from_slice(&address.0)).collect();
    assert_eq!(ask(raw[..6].to_vec()).await.values.len(), 6);
    assert_eq!(ask(raw).await.refusal.unwrap().reject(), Some(Reject::AnswerTooLarge));
    let too_many = vec![Bytes::copy_from_slice(&[1; 20]); ledger::limits::ACCOUNTS_ASKED_MAX + 1];
    assert_eq!(ask(too_many).await.refusal.unwrap().reject(), Some(Reject::AnswerTooLarge));
    let records = soon(client.accounts(&addresses, Consistency::Linearizable)).await.unwrap();
    let found: Vec<_> = records.into_iter().map(|record| record.unwrap().sequence).collect();
    assert_eq!(found, addresses.iter().map(|address| u64::from(address.0[0])).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_where_the_answer_is() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.lead(GroupId::shard(0), 2);
    cluster.world.lead(GroupId::shard(1), 3);

    let addresses: Vec<Address> = (0..100).map(|byte| Address([byte; 20])).collect();
    let records = client.accounts(&addresses, Consistency::Linearizable).await.unwrap();
    let order: Vec<u64> = records.into_iter().map(|record| record.unwrap().sequence).collect();
    assert_eq!(order, (0..100).collect::<Vec<u64>>());

    for address in &addresses[..4] {
        let answer = client.account(*address, Consistency::Linearizable, false).await.unwrap();
        assert_eq!(answer.value.unwrap().sequence, u64::from(address.0[0]));
        assert_eq!(answer.group, cluster.genesis.layout.locate(address));
        assert_eq!(answer.height.0, 7);
    }
    cluster.world.reads.lock().clear();
    client.account(addresses[0], Consistency::Stale, false).await.unwrap();
    assert_eq!(cluster.world.reads.lock().len(), 1, "any replica answers a stale read");

    let receipt = client.submit(cluster.payment(1).encode()).await.unwrap().receipt().unwrap().clone();
    let found = client.transaction(receipt.txid, None, false).await.unwrap();
    assert_eq!(found.value, Some(receipt.clone()));
    let there = client.transaction(receipt.txid, Some(receipt.group), false).await.unwrap();
    assert_eq!(there.value, Some(receipt));
    assert_eq!(client.transaction(TxId::default(), None, false).await.unwrap().value, None);
    let unknown = client.transaction(TxId::default(), Some(GroupId::shard(9)), false).await.unwrap_err();
    assert_eq!(unknown.code(), "unknown_group");
    let unproved = client.account(addresses[0], Consistency::Linearizable, true).await.unwrap_err();
    assert_eq!(unproved.code(), "proof_malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_questions_are_refused() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let identity = cluster.ca.identity("client", "client");
    let channel = net::connect(&router.addr, &identity, &cluster.ca.roots(), "router-1.seamark").unwrap();
    let mut client = net::router_client(channel);
    let account = |bytes: &'static [u8]| {
        let query = v1::AccountQuery { address: Bytes::from_static(bytes), group: 0 };
        Some(v1::query_request::Query::Account(query))
    };
    let questions = [
        v1::QueryRequest::default(),
        v1::QueryRequest { query: account(b"short"), ..Default::default() },
        v1::QueryRequest { consistency: 9, query: account(&[0; 20]), ..Default::default() },
    ];
    for question in questions {
        let reply = client.query(question).await.unwrap().into_inner();
        assert_eq!(reply.refusal.unwrap().reject(), Some(Reject::Malformed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_node_that_does_not_answer() {
    let mut cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.stop_node(3);
    let status = client.status().await.unwrap();
    assert_eq!(status.nodes.iter().map(|node| node.node).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(status.unreachable[0].node, 3);
    assert!(!status.unreachable[0].error.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_garbage_get_nothing_and_hurt_nobody() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let stranger = Authority::new("another ca").identity("client", "client");
    let refused = Client::lazy(&cluster.profile_of(&stranger, &[&router.addr]))
        .unwrap()
        .with_patience(Duration::from_secs(600))
        .cluster()
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "certificate_unknown_authority", "told at once");

    let node_addr = cluster.genesis.nodes[0].peer_addr.clone();
    for addr in [&router.addr, &node_addr] {
        for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 4096], vec![0x16, 3, 1, 0xff, 0xff]] {
            let mut socket = tokio::net::TcpStream::connect(addr.as_str()).await.unwrap();
            // The other side may close before all is written.
            let _ = socket.write_all(&garbage).await;
            let _ = socket.shutdown().await;
            let mut answer = Vec::new();
            let _ = soon(socket.read_to_end(&mut answer)).await;
            assert!(answer.len() < 64, "no more than a TLS alert");
        }
    }
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    assert!(client.submit(cluster.payment(1).encode()).await.unwrap().committed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_key_is_not_believed() {
    let cluster = Cluster::start().await;
    let info = &cluster.genesis.nodes[0];
    let identity = cluster.ca.identity("router-1", "router");
    let (roots, name) = (cluster.ca.roots(), net::node_server_name(NodeId(1)));
    let ask = |channel| async { net::node_client(channel).node_status(v1::StatusRequest::default()).await };
    let traffic = Arc::default();
    let pinned = |key| {
        net::connect_pinned(&info.peer_addr, &identity, &roots, &name, key, &client::SystemSockets::shared(), &traffic)
            .unwrap()
    };
    assert!(ask(pinned(info.tls_key_hash)).await.is_ok());
    assert!(ask(pinned(cluster.genesis.nodes[1].tls_key_hash)).await.is_err());
    let other_name = net::connect(&info.peer_addr, &identity, &roots, "node-2.seamark").unwrap();
    assert!(ask(other_name).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_router_costs_a_reconnect() {
    let cluster = Cluster::start().await;
    let first = cluster.router(persistent()).await;
    let second = cluster.router(persistent()).await;
    let client = Client::connect(&cluster.profile(&[&first.addr, &second.addr])).await.unwrap();
    cluster.world.set(Mood::Silent);
    let (sender, mut events) = client.submit_stream(SubmitOptions::default()).split();
    sender.send(cluster.payments(0..500)).await.unwrap();
    cluster.world.until("the payments", |world| !world.batches.lock().is_empty()).await;
    first.kill();
    cluster.world.set(Mood::Work);
    sender.send(cluster.payments(400..600)).await.unwrap();
    drop(sender);
    let mut fates: HashMap<TxId, u32> = HashMap::new();
    soon(async {
        while let Some(batch) = events.next_events().await {
            for event in batch {
                assert!(matches!(event, SubmitEvent::Receipt(_)), "{event:?}");
                *fates.entry(event.txid()).or_default() += 1;
            }
        }
    })
    .await;
    assert_eq!(fates.len(), 600);
    assert!(client.cluster().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_router_reaches_its_node_without_a_socket() {
    let mut cluster = Cluster::start().await;
    let local = cluster.nodes[0].clone();
    cluster.stop_node(1);
    let router = cluster.router_in(calm(), Some(local)).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let fates = pay_all(&client, cluster.payments(0..1000), true).await;
    assert_eq!(fates.len(), 1000);
    assert!(client.account(Address([1; 20]), Consistency::Linearizable, false).await.unwrap().value.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_follows_the_cluster() {
    let mut cluster = Cluster::start().await;
    let (sender, mut seen) = tokio::sync::watch::channel(cluster.view.borrow().clone());
    let peers = cluster.peers();
    tokio::spawn(follow(peers, Arc::new(sender), None));
    cluster.stop_node(1);
    let proof = cluster.registry(&[1, 3], |registry| {
        registry.revision = 5;
        registry.nodes[0].tls_key_hash = ledger::Hash32([7; 32]);
    });
    cluster.view.send_modify(|view| {
        let mut new = (**view).clone();
        new.proof = proof;
        new.leaders.insert(GroupId::shard(1), NodeId(2));
        *view = Arc::new(new);
    });
    let view = soon(seen.wait_for(|view| view.revision == 5)).await.unwrap().clone();
    assert_eq!(view.members(GroupId::shard(1))[0], NodeId(2));
    assert_eq!(view.nodes[&NodeId(1)].tls_key_hash, ledger::Hash32([7; 32]));
    assert_eq!(view.beacon_height, 5);
}

/// The first node that is followed shows a registry in which a key of its own is node 2, at a height
/// beyond all others. It is not believed, and it does not keep the true one out.
#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_the_beacon_cannot_make_a_key_a_node() {
    let cluster = Cluster::start().await;
    let mine = ledger::Hash32([0xbb; 32]);
    let forged = cluster.registry(&[1], |registry| {
        registry.revision = u64::MAX;
        registry.nodes[1].tls_key_hash = mine;
    });
    cluster.world.lies.lock().insert(NodeId(1), forged);
    let honest = cluster.registry(&[2, 3], |registry| registry.revision = 2);
    cluster.view.send_modify(|view| *view = Arc::new(ClusterView { proof: honest, ..(**view).clone() }));

    let genesis = Arc::new(ClusterView::of_genesis(&cluster.genesis));
    let (sender, mut seen) = tokio::sync::watch::channel(genesis);
    tokio::spawn(follow(cluster.peers(), Arc::new(sender), None));
    let view = soon(seen.wait_for(|view| view.revision > 1)).await.unwrap().clone();
    assert_eq!((view.revision, view.beacon_height), (2, 2));
    assert!(view.nodes.values().all(|node| node.tls_key_hash != mine));
    assert_eq!(cluster.world.followed.lock()[..2], [NodeId(1), NodeId(2)], "the lie was told, and left");
}

/// Whoever has the genesis alone follows the beacon to committees of which it has never heard, by the hand-overs that come
/// with the registry, and believes nothing where one of them is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_follows_the_beacon_over_changes_of_its_committee() {
    let cluster = Cluster::start().await;
    let first = cluster.beacon();
    let without = |from: &ledger::Committee, gone: u32| {
        let mut next = from.clone();
        next.members.retain(|member| member.node != NodeId(gone));
        next.epoch.0 += 1;
        ledger::Committee::of(next.engine, next.group, next.incarnation, next.epoch, next.members)
    };
    let (second, third) = (without(&first, 1), without(&without(&first, 1), 2));
    let steps = vec![cluster.handover(&first, &second, 5), cluster.handover(&second, &third, 8)];
    let proof = cluster.registry_by(&third, &[3], |registry| {
        registry.revision = 9;
        registry.committees.retain(|committee| committee.group != GroupId::BEACON);
        registry.committees.insert(0, third.clone());
    });
    let shown = |steps: Vec<ledger::Handover>| {
        let mut view = ClusterView::of_genesis(&cluster.genesis);
        view.beacon = Some(Arc::new(beacon::Succession::of(steps, third.clone())));
        view.proof = proof.clone();
        cluster.view.send_modify(|current| *current = Arc::new(view));
    };
    let (sender, mut seen) = tokio::sync::watch::channel(Arc::new(ClusterView::of_genesis(&cluster.genesis)));
    shown(steps[1..].to_vec());
    tokio::spawn(follow(cluster.peers(), Arc::new(sender), None));
    // Every node has shown it, and none was believed.
    soon(async {
        loop {
            let news = cluster.world.seen.notified();
            if (1..=3).all(|node| cluster.world.followed.lock().contains(&NodeId(node))) {
                return;
            }
            news.await;
        }
    })
    .await;
    assert_eq!(seen.borrow().revision, 1);
    shown(steps.clone());
    let view = soon(seen.wait_for(|view| view.revision == 9)).await.unwrap().clone();
    assert_eq!(view.committees[&GroupId::BEACON], third);
    let known = view.beacon.as_ref().unwrap();
    assert_eq!((known.steps(), known.last()), (&steps[..], &third));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_noticed() {
    let (here, there) = (Cluster::start().await, Cluster::start().await);
    let router = here.router(calm()).await;
    let mut profile = there.profile(&[&router.addr]);
    // Let in by the authority of the one cluster, with the genesis of the other.
    let mine = here.profile(&[&router.addr]);
    profile.ca = mine.resolve(&mine.ca);
    profile.cert = mine.resolve(&mine.cert);
    profile.key = mine.resolve(&mine.key);
    let Err(error) = Client::connect(&profile).await else { panic!("it connected") };
    assert_eq!(error.code(), "other_cluster");
}

/// What was executed and not answered is never reported by the `busy` that came later: whoever pays
/// again after `busy` would pay twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_without_an_answer_is_a_timeout_whatever_comes_later() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    // The leader executes it and is cut off before it answers; then it is busy for good.
    cluster.world.set(Mood::DropAfter);
    let (mut events, txs) = raw_stream(&cluster, &router.addr, 1).await;
    txs.send(cluster.payments(0..1)).await.unwrap();
    cluster.world.until("the execution", |world| !world.executed.lock().is_empty()).await;
    cluster.world.set(Mood::Busy);
    let event = soon(events.message()).await.unwrap().unwrap().events.remove(0);
    let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
    assert_eq!(refusal.reject(), Some(Reject::TooLate));
    assert!(refusal.retry_after_ms > 0);

    // Without such an attempt it is what it is.
    txs.send(cluster.payments(1..2)).await.unwrap();
    let event = soon(events.message()).await.unwrap().unwrap().events.remove(0);
    let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
    assert_eq!(refusal.reject(), Some(Reject::Busy));
}

/// The same where the router dies with what it knew, and the next one is told `busy`.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_in_mind_what_a_dead_router_was_given() {
    let cluster = Cluster::start().await;
    let first = cluster.router(calm()).await;
    let second = cluster.router(calm()).await;
    let profile = cluster.profile(&[&first.addr, &second.addr]);
    let client = Client::connect(&profile).await.unwrap().with_patience(HASTE);
    let tx: Bytes = cluster.payment(1).encode().into();
    cluster.world.set(Mood::DropAfter);
    let paying = tokio::spawn({
        let (client, tx) = (client.clone(), tx.clone());
        async move { client.settle(tx, Wait::Receipt).await }
    });
    cluster.world.until("the execution", |world| !world.executed.lock().is_empty()).await;
    cluster.world.set(Mood::Busy);
    first.kill();
    let error = soon(paying).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "timeout", "{error}");
    let client::ClientError::Unsettled { txid, tx: kept, .. } = error else { panic!("{error:?}") };
    assert_eq!(kept, tx, "the very bytes");

    cluster.world.set(Mood::Work);
    let settled = client.settle(kept, Wait::Receipt).await.unwrap();
    assert_eq!(settled.txid(), txid);
    assert_eq!(cluster.world.executed.lock()[&txid], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_made_here_comes_back_with_its_bytes_when_it_has_no_receipt() {
    let cluster = Cluster::start().await;
    let limits = GatewayLimits { applied_within: Duration::from_millis(200), ..calm() };
    let router = cluster.router(limits).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let client = client.with_patience(HASTE);
    let key = ledger::SecretKey::derive(b"payer", b"1");
    let pay = |wait| client.pay(&key, Address([9; 20]), ledger::AssetId([1; 16]), 1, wait);

    // Never taken in: `busy` is the truth, and the same bytes may still be sent.
    cluster.world.set(Mood::Busy);
    let busy = soon(pay(Wait::Receipt)).await.unwrap_err();
    assert_eq!(busy.code(), "busy");
    assert!(matches!(&busy, client::ClientError::Unsettled { .. }) && !busy.is_final());
    assert!(cluster.world.executed.lock().is_empty());

    // Final, and only the credits are not confirmed: not a timeout, and nothing to send again.
    cluster.world.set(Mood::NoApplied);
    let unapplied = soon(pay(Wait::Applied)).await.unwrap_err();
    assert_eq!(unapplied.code(), "not_applied");
    let client::ClientError::Unapplied { settled } = unapplied else { panic!("{unapplied:?}") };
    assert!(settled.committed());
}

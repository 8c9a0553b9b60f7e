//! What somebody reads who listens to the network, or is given the logs: of a channel nothing. All that goes between
//! nodes, and between clients and routers, is recorded while a channel is used, and is searched for what is in it. Every
//! node is a process of its own, and none is reached but over the recorder.

use bytes::Bytes;
use client::net;
use client::{Consistency, Identity, Settled, Wait};
use ledger::hash::sha256;
use ledger::{AccountWrite, GroupId, LedgerId, Move, NodeId, Opening, SignedTx, Slot};
use prost::Message;
use proto::v1;
use proto::v1::query_request::Query;
use proto::v1::submit_event::Event;
use seamark_cli::setup::Subject;
use shard_node::core::peer::PeerMessage;
use tonic::transport::Channel;

use crate::isolation::{A, B, C, INSIDE, OUTSIDE, found_in, lines_with};
use crate::support::bank::{Bank, body, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::call;
use crate::support::wire::{APPLICATION_DATA, Port, Wires};

/// Nodes that host the channel.
const HOSTS: [NodeId; 3] = [INSIDE, NodeId(2), NodeId(4)];
const FUNDS: u128 = 10_000_000_000_000_000;
const AMOUNT: u128 = 7_340_912_655_018_243;
/// What is paid in the channel for something in another one.
const PRICE: u128 = 1_286_440_907_315_569;
/// A node of B that hosts the other channel, besides the one of C.
const ELSEWHERE: NodeId = NodeId(5);
const MEMO: &[u8] = b"two tonnes of cold-rolled steel";
const METADATA: &[u8] = b"bill of lading 4711 of the Marie-Luise";
const NAME: &[u8] = b"Harbour Steelworks and Sons";
/// What a node logs of a client that a channel does not admit: when it asks, and when it sends a transaction; and of a
/// node that has no seat in it: when it calls, and when it asks over a link.
const DENIALS: [&str; 4] = [
    "a call to a channel was denied",
    "transactions for a channel were denied",
    "a call was denied: the calling node has no seat in the group",
    "nothing was answered: the caller has no seat in the group",
];

/// Something that is in the channel, and nowhere else.
struct Secret {
    what: &'static str,
    /// As it stands in what is sent.
    raw: Vec<u8>,
    /// As people would write it.
    text: String,
}

impl Secret {
    /// In all the ways in which it could be written.
    fn forms(&self) -> [Vec<u8>; 3] {
        let digits: String = self.raw.iter().map(|byte| format!("{byte:02x}")).collect();
        [self.raw.clone(), self.text.clone().into_bytes(), digits.into_bytes()]
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms().iter().any(|form| has(bytes, form))
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// How often they have logged that organisation C was denied this about a group.
fn noted(cluster: &TestCluster, denial: &str, group: GroupId) -> usize {
    lines_with(cluster, &cluster.node_ids(), &[denial, &format!("org=Some({C})"), &group.to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_channel_can_be_read_from_the_wires_or_the_logs() {
    let mut cluster = TestCluster::prepare(&Wanted { nodes: 5, shards: 1, ..Wanted::default() });
    let wires = Wires::before(&cluster).await;
    let all = cluster.node_ids();
    cluster.run_processes().await;

    // Money comes into a channel of A and B, and one transaction there has a bit of everything.
    let bank = Bank::open(&cluster.client()).await;
    let (payer, payee) = (wallet("payer", 0), wallet("payee", 0));
    let consortium = Consortium::of(&cluster);
    let channel = consortium.found("steel", &[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])]).await;
    consortium.permit(channel, bank.asset, &[A, B]).await;
    bank.fund([&payer], FUNDS).await;
    let (from, asset, ledger) = (payer.address, bank.asset, LedgerId::of_channel(channel));
    let bring = Move::Transfer { from, to: from, asset, amount: FUNDS, ledger };
    bank.execute(vec![bring], &[&payer.key]).await.unwrap();
    let member = cluster.client_of(INSIDE);
    eventually("the money is in the channel", async || {
        let answer = member.account_of(ledger, from, Consistency::Linearizable, false).await;
        let found = answer.map_err(|error| error.to_string())?.value;
        found.map(drop).ok_or_else(|| "no account yet".to_owned())
    })
    .await;
    let hash = sha256(b"what is on the Marie-Luise");
    let data = AccountWrite::Data { key: b"trades as".to_vec(), value: Some(NAME.to_vec()) };
    let moves = vec![
        (ledger, bank.pay(&payer, payee.address, AMOUNT)),
        (ledger, Move::Record { owner: from, hash, metadata: METADATA.to_vec() }),
        (ledger, Move::Write { account: from, write: data }),
    ];
    let settled = member.execute(moves, MEMO, &[&payer.key], Wait::Receipt).await.unwrap();
    let Settled::Receipt(receipt) = settled else { panic!("{settled:?}") };
    assert!(receipt.committed(), "{receipt:?}");
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let secrets = [
        Secret { what: "a memo", raw: MEMO.to_vec(), text: utf8(MEMO) },
        Secret { what: "the metadata of a record", raw: METADATA.to_vec(), text: utf8(METADATA) },
        Secret { what: "the name of an account", raw: NAME.to_vec(), text: utf8(NAME) },
        Secret { what: "an amount", raw: AMOUNT.to_le_bytes().to_vec(), text: AMOUNT.to_string() },
        Secret { what: "an account", raw: payee.address.0.to_vec(), text: payee.address.to_string() },
        Secret { what: "a transaction", raw: receipt.txid.0.0.to_vec(), text: receipt.txid.to_string() },
        Secret { what: "a record", raw: hash.0.to_vec(), text: hash.to_string() },
    ];

    // The search finds what is there: all of it is in what a member is told, over any router of a member.
    let roots = cluster.roots();
    let door = |node: NodeId, identity: &Identity| -> Channel {
        net::connect(&cluster.info(node).client_addr, identity, &roots, &net::node_server_name(node)).unwrap()
    };
    let issue = |org: &str| cluster.authority(org).issue(&Subject::client("somebody", org)).unwrap().identity();
    let ask = |query: Query| v1::QueryRequest { query: Some(query), ..v1::QueryRequest::default() }.encode_to_vec();
    let explain = ask(Query::Explain(v1::ExplainQuery { txid: Bytes::copy_from_slice(&receipt.txid.0.0) }));
    let insider = issue("org-b");
    for node in HOSTS {
        let door = door(node, &insider);
        eventually("a member is told of the transaction", async || {
            let told = call(&door, "/seamark.v1.Router/Query", explain.clone().into()).await;
            let told = told.map_err(|status| status.to_string())?.ok_or_else(|| "no answer".to_owned())?;
            let lacks = secrets.iter().find(|secret| !has(&told, &secret.raw));
            lacks.map_or(Ok(()), |secret| Err(format!("{} is not in it", secret.what)))
        })
        .await;
    }

    // Another channel, of B and C, trades with this one. Who pays here has no account anywhere else.
    let coal = consortium.found("coal", &[(B, &[ELSEWHERE]), (C, &[OUTSIDE])]).await;
    consortium.permit(coal, bank.asset, &[B, C]).await;
    let [seller, buyer, trader] = ["seller", "buyer", "trader"].map(|name| wallet(name, 0));
    bank.fund([&trader], 1_000).await;
    let (of_coal, there) = (LedgerId::of_channel(coal), trader.address);
    let bring = Move::Transfer { from: there, to: there, asset, amount: 1_000, ledger: of_coal };
    bank.execute(vec![bring], &[&trader.key]).await.unwrap();
    let between = consortium.client(B);
    eventually("the money is in the other channel", async || {
        let answer = between.account_of(of_coal, there, Consistency::Linearizable, false).await;
        let found = answer.map_err(|error| error.to_string())?.value;
        found.map(drop).ok_or_else(|| "no account yet".to_owned())
    })
    .await;
    let funding = vec![(ledger, bank.pay(&payer, seller.address, PRICE))];
    member.execute(funding, b"", &[&payer.key], Wait::Receipt).await.unwrap();
    let hide = |slot: u16, group: GroupId, mv: Move| {
        let opening = Opening { slot, salt: sha256(&[&b"wires"[..], &slot.to_be_bytes()].concat()), mv };
        (Slot::Hidden { ledger: LedgerId::of_channel(group), group, hash: opening.hash() }, opening)
    };
    let (first, opening) = hide(0, channel, bank.pay(&seller, buyer.address, PRICE));
    let (second, other_opening) = hide(1, coal, bank.pay(&trader, buyer.address, 7));
    let mut swap = body(cluster.genesis.cluster_id(), 2, []);
    swap.slots = vec![first, second];
    let swap = SignedTx::sign(&swap, &[&seller.key, &trader.key]);
    let txid = swap.txid(&cluster.genesis.cluster_id());
    eventually("the channels have heard of each other, and trade", async || {
        let openings = vec![opening.clone(), other_opening.clone()];
        match between.submit_tx(swap.encode(), openings, Wait::Applied).await {
            Ok(settled) if settled.committed() => Ok(()),
            Err(error) if ["unknown_group", "timeout"].contains(&error.code()) => Err(error.to_string()),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let key = seller.key.public();
    let veiled = [
        Secret { what: "who pays", raw: seller.address.0.to_vec(), text: seller.address.to_string() },
        Secret { what: "the key of who pays", raw: key.0.to_vec(), text: key.to_string() },
        Secret { what: "the price", raw: PRICE.to_le_bytes().to_vec(), text: PRICE.to_string() },
        Secret { what: "what opens a move", raw: opening.salt.0.to_vec(), text: opening.salt.to_string() },
    ];
    // What a member of the other channel is told of it has its own side only. What its nodes keep, `channel_swaps` reads.
    let at_home = Consortium::of(&cluster).client(C);
    let settled = at_home.transaction(txid, Some(coal), false).await.unwrap().value.expect("it has its receipt");
    let there = door(OUTSIDE, &issue("org-c"));
    let mut told = vec![ask(Query::Explain(v1::ExplainQuery { txid: Bytes::copy_from_slice(&txid.0.0) }))];
    told.extend((1..=settled.height.0).map(|height| ask(Query::Block(v1::BlockQuery { group: coal.0, height }))));
    let mut shown = Vec::new();
    for question in told {
        let answer = call(&there, "/seamark.v1.Router/Query", question.into()).await.unwrap();
        shown.extend_from_slice(&answer.expect("an answer"));
    }
    assert!(has(&shown, &trader.key.public().0) && has(&shown, &txid.0.0), "its own side is in it");
    for secret in &veiled {
        assert!(!secret.is_in(&shown), "the other channel is told {}", secret.what);
    }

    // Whoever is refused is noted in a log, at both ports.
    let before = DENIALS.map(|denial| noted(&cluster, denial, channel));
    let outsider = door(INSIDE, &issue("org-c"));
    let block = ask(Query::Block(v1::BlockQuery { group: channel.0, height: receipt.height.0 }));
    let told = call(&outsider, "/seamark.v1.Router/Query", block.into()).await.unwrap().unwrap();
    let refusal = v1::QueryReply::decode(told).unwrap().refusal.expect("an outsider is refused");
    assert_eq!(refusal.code, "channel_refused", "{refusal:?}");
    let mut body = body(cluster.genesis.cluster_id(), 1, []);
    body.slots.push(Slot::Clear { ledger, mv: bank.pay(&payer, payee.address, 1) });
    let txs = vec![Bytes::from(SignedTx::sign(&body, &[&payer.key]).encode())];
    let batch = v1::SubmitBatch { txs, ..v1::SubmitBatch::default() }.encode_to_vec();
    let told = call(&outsider, "/seamark.v1.Router/Submit", batch.into()).await.unwrap().expect("an answer");
    let event = v1::SubmitEvents::decode(told).unwrap().events.remove(0).event;
    assert!(matches!(&event, Some(Event::Refusal(refusal)) if refusal.code == "access_denied"), "{event:?}");
    let info = cluster.info(INSIDE);
    let as_node = cluster.node_identity(OUTSIDE);
    let back_door = net::connect(&info.peer_addr, &as_node, &roots, &net::node_server_name(INSIDE)).unwrap();
    let request = v1::RaftRequest { group: channel.0, kind: 11, payload: Bytes::new() }.encode_to_vec();
    let denied = call(&back_door, "/seamark.v1.Node/Raft", request.into()).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let payload = borsh::to_vec(&PeerMessage::Want { height: receipt.height }).unwrap().into();
    let batch = v1::LinkBatch { frames: vec![v1::LinkFrame { group: channel.0, payload }] }.encode_to_vec();
    call(&back_door, "/seamark.v1.Node/Link", batch.into()).await.unwrap();
    eventually("all denials are noted, with who and about what", async || {
        let noted = DENIALS.map(|denial| noted(&cluster, denial, channel));
        if noted.iter().zip(before).all(|(now, before)| *now > before) { Ok(()) } else { Err(format!("{noted:?}")) }
    })
    .await;
    cluster.assert_run();

    // All that was sent is TLS, and nothing of it is in there.
    let ways = wires.sealed();
    for way in &ways {
        for secret in secrets.iter().chain(&veiled) {
            assert!(!secret.is_in(&way.bytes), "{} goes over the wire: {}", secret.what, way.place());
        }
    }
    // It went over these wires, and the search finds what does go there in the clear: whom a handshake is for.
    let called = |node: NodeId, port: Port| {
        let name = net::node_server_name(node);
        let mut there = ways.iter().filter(|way| (way.node, way.port, way.to_node) == (node, port, true));
        there.any(|way| has(&way.bytes, name.as_bytes()))
    };
    assert!(all.iter().all(|node| called(*node, Port::Nodes)), "nodes call each other there");
    assert!(HOSTS.iter().all(|node| called(*node, Port::Clients)), "clients call them there");
    let (mut to_hosts, mut sent) = (0, 0);
    for way in ways.iter().filter(|way| way.port == Port::Nodes && HOSTS.contains(&way.node)) {
        to_hosts += usize::from(way.to_node && way.record_types().unwrap().contains(&APPLICATION_DATA));
        sent += way.bytes.len();
    }
    assert!(to_hosts >= HOSTS.len() && sent > MEMO.len() * HOSTS.len(), "{to_hosts} ways, {sent} bytes");

    // No log has any of it, and a node outside has nothing at all.
    for node in &all {
        let log = std::fs::read(cluster.log_of(*node)).unwrap();
        assert!(has(&log, format!("node {node} runs").as_bytes()), "node {node} logs there");
        for secret in secrets.iter().chain(&veiled) {
            assert!(!secret.is_in(&log), "{} is in the log of node {node}", secret.what);
        }
    }
    for secret in secrets.iter().chain(&veiled) {
        for form in secret.forms() {
            assert!(!found_in(&cluster.dir.node_dir(OUTSIDE), &form), "a node outside has {}", secret.what);
        }
    }
}

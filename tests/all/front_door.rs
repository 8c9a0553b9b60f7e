//! Who is let in, and what happens to those who shout at the door.

use bytes::Bytes;
use client::net::{self, Identity};
use client::{Client, ClientError, Profile, Wait};
use ledger::NodeId;
use prost::Message;
use proto::v1;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use seamark_cli::setup::{Authority, Subject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::bank::{Bank, Wallet, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::in_time;
use crate::support::rpc::{call, methods, short};

const NODE: NodeId = NodeId(1);

struct Door {
    cluster: TestCluster,
    bank: Bank,
    alice: Wallet,
}

impl Door {
    async fn open() -> Self {
        let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
        let bank = Bank::open(&cluster.client()).await;
        let alice = wallet("alice", 0);
        bank.fund([&alice], 1_000).await;
        Self { cluster, bank, alice }
    }

    fn peer_port(&self, identity: &Identity) -> Channel {
        let info = self.cluster.info(NODE);
        net::connect(&info.peer_addr, identity, &self.cluster.roots(), &net::node_server_name(NODE)).unwrap()
    }

    fn client_port(&self, identity: &Identity) -> Channel {
        let info = self.cluster.info(NODE);
        net::connect(&info.client_addr, identity, &self.cluster.roots(), &net::node_server_name(NODE)).unwrap()
    }

    fn issue(&self, subject: &Subject) -> Identity {
        self.cluster.authority("org-a").issue(subject).unwrap().identity()
    }

    /// A client's certificate of an organisation of the cluster that was valid until yesterday.
    fn expired(&self) -> Identity {
        self.signed(Some("client"), -1)
    }

    /// A certificate of an organisation of the cluster that says this in OU, valid for two days until so many from now.
    fn signed(&self, unit: Option<&str>, until_days: i32) -> Identity {
        let authority = self.cluster.authority("org-a");
        let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(authority.cert_pem(), key).unwrap();
        let day = time::Duration::days(1);
        let now = time::OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (now + day * (until_days - 2), now + day * until_days);
        params.distinguished_name.push(DnType::CommonName, "client");
        params.distinguished_name.push(DnType::OrganizationName, "org-a");
        if let Some(unit) = unit {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = KeyPair::generate().unwrap();
        Identity::new(params.signed_by(&leaf, &issuer).unwrap().pem(), leaf.serialize_pem())
    }

    async fn still_works(&self) {
        let to = wallet("bob", 0).address;
        self.bank.client.pay(&self.alice.key, to, self.bank.asset, 1, Wait::Applied).await.unwrap();
        let status = self.cluster.status().await;
        assert_eq!((status.nodes.len(), status.unreachable.len()), (3, 0));
        let stopped: Vec<_> =
            status.nodes.iter().flat_map(|node| &node.replicas).filter(|replica| !replica.stopped.is_empty()).collect();
        assert!(stopped.is_empty(), "{stopped:?}");
    }
}

/// The connection broke off: no service was reached. When in the handshake that shows is a matter of
/// timing.
fn connection_refused(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
        && std::error::Error::source(status).is_some()
}

/// Why a client of this profile is not answered, which it hears long before it would give up.
async fn told_at_once(profile: &Profile) -> ClientError {
    let client = Client::lazy(profile).unwrap().with_patience(10 * crate::support::DEADLINE);
    in_time("a certificate that is not taken is told at once", client.status()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_the_cluster_are_let_in() {
    let door = Door::open().await;
    // A certificate of an authority that nobody knows, even when it calls itself like one of ours.
    let stranger = Authority::make("org-a").unwrap().issue(&Subject::client("client", "org-a")).unwrap().identity();
    for channel in [door.client_port(&stranger), door.peer_port(&stranger)] {
        for method in methods("Router").iter().chain(&methods("Node")) {
            let error = call(&channel, method, Bytes::new()).await.unwrap_err();
            assert!(connection_refused(&error), "{method}: {error:?}");
        }
    }
    // One of our own whose time is over.
    let expired = door.expired();
    for channel in [door.client_port(&expired), door.peer_port(&expired)] {
        let error = call(&channel, "/seamark.v1.Router/Cluster", Bytes::new()).await.unwrap_err();
        assert!(connection_refused(&error), "{error:?}");
    }
    // And one who shows none.
    let info = door.cluster.info(NODE);
    let roots = door.cluster.roots();
    let mut tls = tonic::transport::ClientTlsConfig::new().domain_name(net::node_server_name(NODE));
    for pem in &roots.ca_pems {
        tls = tls.ca_certificate(tonic::transport::Certificate::from_pem(pem));
    }
    for addr in [&info.client_addr, &info.peer_addr] {
        let endpoint = Channel::from_shared(format!("https://{addr}")).unwrap().tls_config(tls.clone()).unwrap();
        let channel = endpoint.connect_lazy();
        let error = call(&channel, "/seamark.v1.Router/Cluster", Bytes::new()).await.unwrap_err();
        assert!(connection_refused(&error), "{error:?}");
    }
    // The SDK says so too, with a code for each.
    let folder = tempfile::tempdir().unwrap();
    for (name, identity, code) in
        [("stranger", &stranger, "certificate_unknown_authority"), ("expired", &expired, "certificate_expired")]
    {
        let mut profile = door.cluster.profile();
        (profile.cert, profile.key) = (folder.path().join(name), folder.path().join(format!("{name}.key")));
        std::fs::write(&profile.cert, &identity.cert_pem).unwrap();
        std::fs::write(&profile.key, identity.key_pem.as_bytes()).unwrap();
        let error = told_at_once(&profile).await;
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("this client's certificate"), "{error}");
    }
    door.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_a_role_is_answered_by_no_call() {
    let door = Door::open().await;
    for unit in [None, Some("cashier")] {
        let nobody = door.signed(unit, 1);
        let (clients, peers) = (door.client_port(&nobody), door.peer_port(&nobody));
        let of_clients = methods("Router").into_iter().map(|method| (&clients, method));
        for (channel, method) in of_clients.chain(methods("Node").into_iter().map(|method| (&peers, method))) {
            let error = call(channel, &method, Bytes::new()).await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied, "{unit:?}, {method}: {error:?}");
        }
        // Nor for a question that is about the main ledger alone.
        let address = Bytes::copy_from_slice(&door.alice.address.0);
        let query = Some(v1::query_request::Query::Account(v1::AccountQuery { address, group: 0 }));
        let ask = v1::QueryRequest { query, ..v1::QueryRequest::default() }.encode_to_vec();
        let error = call(&clients, "/seamark.v1.Router/Query", ask.into()).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied, "{unit:?}: {error:?}");
    }
    // It is the role that is missing.
    let client = door.client_port(&door.signed(Some("client"), 1));
    assert!(call(&client, "/seamark.v1.Router/Cluster", Bytes::new()).await.is_ok());
    door.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_between_nodes_answers_nodes_alone() {
    let door = Door::open().await;
    let hosts = vec!["127.0.0.1".to_owned()];
    // Each is signed by an organisation of the cluster. That is not enough.
    let not_nodes = [
        ("a client", door.issue(&Subject::client("client-2", "org-a"))),
        ("an admin", door.issue(&Subject::admin("admin-2", "org-a"))),
        ("an auditor", door.issue(&Subject::auditor("auditor-2", "org-a"))),
        ("a node's name with another key", door.issue(&Subject::node(NodeId(2), "org-a", hosts.clone()))),
    ];
    for (who, identity) in &not_nodes {
        let channel = door.peer_port(identity);
        for method in methods("Node") {
            let error = match call(&channel, &method, Bytes::new()).await {
                Err(error) => error,
                Ok(answer) => panic!("{who} got an answer from {method}: {answer:?}"),
            };
            assert_eq!(error.code(), Code::PermissionDenied, "{who}, {method}: {error:?}");
            assert!(error.message().starts_with("access_denied"), "{who}, {method}: {error:?}");
        }
    }
    // A router's certificate opens what routers need, and no method more. A method that is added has
    // to be put on one of the two sides here.
    let router = door.peer_port(&door.issue(&Subject::router("router-9", "org-a", hosts)));
    for method in methods("Node") {
        let denied = match call(&router, &method, Bytes::new()).await {
            Err(error) => error.code() == Code::PermissionDenied,
            Ok(_) => false,
        };
        match short(&method) {
            "Raft" | "Link" | "Clock" => assert!(denied, "{method} is for nodes alone"),
            "Ingest" | "Read" | "Follow" | "NodeStatus" | "Command" => assert!(!denied, "{method} is for routers too"),
            other => panic!("{other} is new: say here who may call it"),
        }
    }
    // No service is on the other's port, whoever asks.
    let node = door.cluster.node_identity(NodeId(2));
    // Who shows the certificate of another node than was called is not spoken to, though it is one of the cluster.
    let info = door.cluster.info(NODE);
    for (addr, method) in
        [(&info.peer_addr, "/seamark.v1.Node/NodeStatus"), (&info.client_addr, "/seamark.v1.Router/Cluster")]
    {
        let wrong = net::connect(addr, &node, &door.cluster.roots(), &net::node_server_name(NodeId(2))).unwrap();
        let error = call(&wrong, method, Bytes::new()).await.unwrap_err();
        assert!(connection_refused(&error), "{method}: {error:?}");
    }
    // The SDK says what is wrong, and what to correct.
    let mut profile = door.cluster.profile();
    profile.routers.retain(|router| router.node == Some(NODE));
    profile.routers[0].server_name = net::node_server_name(NodeId(2));
    let error = told_at_once(&profile).await;
    assert_eq!(error.code(), "router_certificate_other", "{error}");
    assert!(error.to_string().contains("correct addr and server_name"), "{error}");
    // Nor is one of an authority that the profile does not have.
    let folder = tempfile::tempdir().unwrap();
    profile.routers[0].server_name = net::node_server_name(NODE);
    profile.ca = folder.path().join("ca.pem");
    std::fs::write(&profile.ca, Authority::make("org-x").unwrap().cert_pem()).unwrap();
    let error = told_at_once(&profile).await;
    assert_eq!(error.code(), "router_certificate_unknown_authority", "{error}");
    for method in methods("Node") {
        let error = call(&door.client_port(&node), &method, Bytes::new()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{method}: {error:?}");
    }
    for method in methods("Router") {
        let error = call(&door.peer_port(&node), &method, Bytes::new()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{method}: {error:?}");
    }
    door.still_works().await;
}

/// The certificate of a node with the key that it has, valid until yesterday.
fn expired_certificate(door: &Door, node: NodeId) -> String {
    let org = &door.cluster.genesis.orgs.iter().find(|org| org.id == door.cluster.info(node).org).unwrap().name;
    let authority = door.cluster.authority(org);
    let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.cert_pem(), key).unwrap();
    let own = door.cluster.node_identity(node);
    let names = [net::node_server_name(node), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    let (day, now) = (time::Duration::days(1), time::OffsetDateTime::now_utc());
    (params.not_before, params.not_after) = (now - day * 2, now - day);
    params.distinguished_name.push(DnType::CommonName, format!("node-{node}"));
    params.distinguished_name.push(DnType::OrganizationName, org);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "node");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.signed_by(&KeyPair::from_pem(&own.key_pem).unwrap(), &issuer).unwrap().pem()
}

/// A node whose certificate has run out is alarmed about it, and takes part as before: its key is what the
/// registry knows it by.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_does_not_stop_consensus() {
    let mut door = Door::open().await;
    let late = NodeId(2);
    let pem = expired_certificate(&door, late);
    door.cluster.stop_node(late).await;
    std::fs::write(door.cluster.dir.node_dir(late).join("node.pem"), pem).unwrap();
    door.cluster.start_node(late).await;
    // Of three replicas, two have to agree: without the other one, this one is needed.
    door.cluster.stop_node(NodeId(3)).await;
    let to = wallet("bob", 0).address;
    let paid = door.bank.client.pay(&door.alice.key, to, door.bank.asset, 1, Wait::Applied);
    in_time("a payment with two replicas of three", paid).await.unwrap();
    let status = door.cluster.client_of(NODE).status().await.unwrap();
    let alarms = &status.nodes.iter().find(|node| node.node == late.0).unwrap().alarms;
    assert!(alarms.iter().any(|alarm| alarm.starts_with("certificate_expired")), "{alarms:?}");
    // Nobody else gets in by it: a client with a certificate that has run out is refused as before.
    let error = call(&door.client_port(&door.expired()), "/seamark.v1.Router/Cluster", Bytes::new()).await.unwrap_err();
    assert!(connection_refused(&error), "{error:?}");
}

/// Bytes that follow from a number: the same garbage in every run.
fn garbage(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_leaves_the_cluster_working() {
    let door = Door::open().await;
    let mut shouts = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: seamark\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        // A TLS record that announces more than it brings.
        vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff],
        vec![0; 100_000],
    ];
    shouts.extend((1..20).map(|seed| garbage(seed, 1 << (seed % 17))));
    let mut silent = Vec::new();
    for node in door.cluster.node_ids() {
        let info = door.cluster.info(node);
        for addr in [&info.peer_addr, &info.client_addr] {
            for shout in &shouts {
                let mut socket = TcpStream::connect(addr).await.unwrap();
                // The node may hang up in the middle of it.
                let _ = socket.write_all(shout).await;
                let _ = socket.shutdown().await;
                let mut answer = Vec::new();
                let _ = in_time("the end of a bad connection", socket.read_to_end(&mut answer)).await;
            }
            // Connections that never say anything, and stay.
            for _ in 0..20 {
                silent.push(TcpStream::connect(addr).await.unwrap());
            }
        }
    }
    door.still_works().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_inside_valid_connections_is_refused_and_stops_no_group() {
    let door = Door::open().await;
    let client = door.client_port(&door.cluster.profile().identity().unwrap());
    let node = door.peer_port(&door.cluster.node_identity(NodeId(2)));
    for (channel, service) in [(client, "Router"), (node.clone(), "Node")] {
        for method in methods(service) {
            for seed in 1..20 {
                // An answer or an error: what counts is that there is one and that nothing breaks.
                let _ = call(&channel, &method, Bytes::from(garbage(seed, 300))).await;
            }
        }
    }
    // Well-formed outside, garbage inside: every kind of consensus message, with and without a group.
    let group = ledger::GroupId::shard(0).0;
    for kind in 0..=20u32 {
        for (group, length) in [(group, 0), (group, 64), (0, 64), (ledger::GroupId::BEACON.0, 500)] {
            let payload = garbage(u64::from(kind) + 1, length).into();
            let request = v1::RaftRequest { group, kind, payload }.encode_to_vec();
            let answer = call(&node, "/seamark.v1.Node/Raft", request.into()).await;
            assert!(answer.is_err(), "garbage of kind {kind} was taken: {answer:?}");
        }
    }
    for seed in 1..10 {
        let frame = v1::LinkFrame { group, payload: garbage(seed, 200).into() };
        let batch = v1::LinkBatch { frames: vec![frame] }.encode_to_vec();
        let error = call(&node, "/seamark.v1.Node/Link", batch.into()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    }
    door.still_works().await;
}

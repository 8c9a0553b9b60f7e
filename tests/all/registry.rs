//! The registry as nodes follow it: a change that the beacon certified reaches every node, also those
//! that host no replica of the beacon, and is found again after a restart.

use beacon::{BeaconCommand, SignedCommand};
use client::Wait;
use ledger::genesis::NodeInfo;
use ledger::{GroupId, NodeId, TimeMs};

use crate::support::bank::{Bank, now_ms, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::shell::Shell;

const CHANGED: NodeId = NodeId(4);

/// Hands a command to the router of one node, signed by the admin of the changed node's organisation.
async fn change(cluster: &TestCluster, at: NodeId, capacity: u16) {
    let signed = signed(cluster, capacity, capacity as u8).encode();
    let (consortium, org) = (Consortium::of(cluster), cluster.info(CHANGED).org);
    let client = consortium.client_over(org, |node| node == at);
    let fate = client.command(signed.clone()).await.unwrap();
    assert_eq!(fate.pending, None);
    let again = consortium.client(org).command(signed).await.unwrap();
    assert_eq!((again.digest, again.pending), (fate.digest, None), "sent again, it has its outcome");
}

fn signed(cluster: &TestCluster, capacity: u16, salt: u8) -> SignedCommand {
    let org = cluster.info(CHANGED).org;
    let name = &cluster.genesis.orgs.iter().find(|known| known.id == org).unwrap().name;
    let admin = cluster.dir.admin_key(name).unwrap();
    let command = BeaconCommand::SetNodeCapacity { node: CHANGED, capacity };
    SignedCommand::sign(&cluster.genesis.cluster_id(), &command, org, [salt; 16], TimeMs(now_ms() + 60_000), &admin)
}

/// Waits until every node's router knows this capacity of the changed node.
async fn known_everywhere(cluster: &TestCluster, capacity: u16) {
    for node in cluster.node_ids() {
        let client = cluster.client_of(node);
        eventually("a node knows the change", async || {
            let reply = client.cluster().await.map_err(|error| error.to_string())?;
            let nodes: Vec<NodeInfo> = reply.nodes.iter().map(|bytes| borsh::from_slice(bytes).unwrap()).collect();
            let found = nodes.iter().find(|info| info.id == CHANGED).unwrap().capacity;
            if found == capacity { Ok(()) } else { Err(format!("node {node} still says {found}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_change_reaches_every_node_and_outlives_a_restart() {
    let mut cluster = TestCluster::start(Wanted { nodes: 5, ..Wanted::default() }).await;
    let beacon = cluster.genesis.committee(GroupId::BEACON).unwrap();
    assert!(cluster.node_ids().iter().any(|node| beacon.index_of(*node).is_none()), "some node has to follow");
    let outside = *cluster.node_ids().iter().find(|node| beacon.index_of(**node).is_none()).unwrap();
    change(&cluster, outside, 77).await;
    known_everywhere(&cluster, 77).await;
    change(&cluster, beacon.members[0].node, 78).await;
    known_everywhere(&cluster, 78).await;

    cluster.wait_settled().await;
    cluster.stop_all().await;
    cluster.start_all().await;
    known_everywhere(&cluster, 78).await;

    // And whom the nodes let in by it is still right: they work together.
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 1);
    bank.fund(homes.iter().flatten(), 10).await;
    let (alice, bob) = (&homes[0][0], &homes[1][0]);
    bank.client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [9, 11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_says_why_and_is_not_sequenced() {
    let cluster = TestCluster::start(Wanted { nodes: 5, ..Wanted::default() }).await;
    let before = cluster.wait_settled().await[&GroupId::BEACON];
    let admin = Consortium::of(&cluster).client(cluster.info(CHANGED).org);
    let refusals = async |signed: SignedCommand| match admin.command(signed.encode()).await {
        Err(error) => error.code().to_owned(),
        Ok(fate) => panic!("it was taken: {fate:?}"),
    };
    let good = signed(&cluster, 3, 1);
    assert_eq!(refusals(SignedCommand { salt: [9; 16], ..good.clone() }).await, "bad_signature");
    let client = cluster.client().command(good.encode()).await.unwrap_err();
    assert_eq!(client.code(), "access_denied", "a client's certificate commands nothing");
    assert_eq!(refusals(SignedCommand { version: 7, ..good.clone() }).await, "malformed");
    assert_eq!(refusals(signed(&cluster, u16::MAX, 2)).await, "registry");
    let other = cluster.genesis.orgs.iter().find(|org| org.id != good.org).unwrap();
    let key = cluster.dir.admin_key(&other.name).unwrap();
    let command = BeaconCommand::SetNodeCapacity { node: CHANGED, capacity: 3 };
    let until = TimeMs(now_ms() + 60_000);
    let foreign = SignedCommand::sign(&cluster.genesis.cluster_id(), &command, other.id, [3; 16], until, &key);
    assert_eq!(refusals(foreign).await, "not_authorised");
    assert_eq!(cluster.wait_settled().await[&GroupId::BEACON], before, "nothing of it is in the beacon's chain");
}

#[test]
fn the_registry_is_changed_and_shown_from_the_command_line() {
    let shell = Shell::start(&["--nodes", "4", "--shards", "1"]);
    let shown = |node: u64| {
        let said = shell.told("beacon show");
        said["nodes"].as_array().unwrap().iter().find(|line| line["node"] == node).unwrap().clone()
    };
    let changed = shell.told("node capacity 2 7");
    assert_eq!((&changed["in_force"], changed["command"].as_str().unwrap().len()), (&true.into(), 64));
    assert_eq!(shown(2)["capacity"], 7);
    // Nodes reach it where they did: nobody may lead from where the others look in vain.
    let peer = shown(2)["peer_addr"].as_str().unwrap().to_owned();
    shell.told(&format!("node address 2 --peer {peer} --client 127.0.0.1:2"));
    assert_eq!((shown(2)["peer_addr"].clone(), shown(2)["client_addr"].clone()), (peer.into(), "127.0.0.1:2".into()));

    // Several organisations: whose command it is has to be said where no node says it.
    shell.write("new.key", &"17".repeat(32));
    assert_eq!(shell.refused("beacon rotate-key new.key")["error"]["code"], "org");
    assert_eq!(shell.told("beacon rotate-key new.key --as org-b")["in_force"], true);
    let node_of_b =
        shell.told("beacon show")["nodes"].as_array().unwrap().iter().find(|line| line["org"] == 2).unwrap()["node"]
            .clone();
    let line = format!("node capacity {node_of_b} 3");
    assert_eq!(shell.refused(&line)["error"]["code"], "bad_signature", "the old key signs nothing any more");
    assert_eq!(shell.told(&format!("{line} --key-file new.key"))["in_force"], true);

    let ca = shell.dir().join("ca/org-a/ca.pem");
    let join = |org: &str| {
        format!(
            "beacon org register org-d --id 4 --ca {} --admin-key {} --as {org}",
            ca.display(),
            ledger::SecretKey::derive(b"org-d", b"").public()
        )
    };
    let first = shell.told(&join("org-a"));
    assert_eq!((&first["in_force"], &first["approvals"], &first["needed"]), (&false.into(), &1.into(), &2.into()));
    assert_eq!(shell.told(&join("org-c"))["in_force"], true);
    assert_eq!(shell.refused(&join("org-a"))["error"]["code"], "registry", "it has joined");
    assert_eq!(shell.refused("node capacity 99 1")["error"]["code"], "not_found");
}

/// It comes with an authority of its own and goes again; from then on its certificates open nothing. Who has a seat
/// stays.
#[test]
fn an_organisation_goes_when_more_than_half_have_said_so() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    let secret = ledger::SecretKey::derive(b"org-d", b"");
    let digits: String = secret.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    shell.write("d.key", &digits);
    shell.told("ca new org-d --out d-ca");
    shell.told("ca issue admin dora --ca d-ca --out d");
    let folder = shell.dir().join("admin/4");
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in [("dora.pem", "admin.pem"), ("dora.key", "admin.key"), ("passphrase", "passphrase")] {
        std::fs::copy(shell.dir().join("../d").join(from), folder.join(to)).unwrap();
    }
    let register = |id: u16, by: &str| {
        let ca = shell.dir().join("../d-ca/ca.pem");
        let key = secret.public();
        format!("beacon org register org-d --id {id} --ca {} --admin-key {key} --as {by}", ca.display())
    };
    let code = |line: &str| shell.refused(line)["error"]["code"].as_str().unwrap().to_owned();
    assert_eq!(code("beacon org remove 4 --as org-a"), "registry", "there is none");
    shell.told(&register(4, "org-a"));
    assert_eq!(shell.told(&register(4, "org-b"))["in_force"], true);

    for (line, expected) in [
        ("beacon org remove org-c --as org-a", "org_seated"),
        ("beacon org remove org-a --as org-a", "org_seated"),
        ("beacon org remove org-x --as org-a", "org"),
        ("beacon org remove 77 --as org-a", "registry"),
    ] {
        assert_eq!(code(line), expected, "{line}");
    }
    // Once its admin is let in, it approves like any other.
    let own = "beacon org remove 4 --as 4 --key-file d.key";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = runtime.block_on(eventually("nodes let in whom the registry has let in", async || {
        let said = shell.seamark(&format!("{own} --json"));
        if said.success { Ok(said.json()) } else { Err(said.stdout) }
    }));
    assert_eq!((&first["in_force"], &first["approvals"], &first["needed"]), (&false.into(), &1.into(), &3.into()));
    assert_eq!(shell.told("beacon org remove 4 --as org-a")["approvals"], 2);
    assert_eq!(shell.told("beacon org remove 4 --as org-b")["in_force"], true);

    // Its certificates open no door any more, as soon as every node has heard.
    runtime.block_on(eventually("nobody lets it in", async || match code(own) {
        code if code == "certificate_unknown_authority" => Ok(()),
        code => Err(code),
    }));
    assert_eq!(code(&register(4, "org-a")), "registry", "its number is not given again");
    assert_eq!(shell.told(&register(5, "org-a"))["approvals"], 1, "it may come back as another one");
}

/// Where each has to approve, two of three do not let anybody in, and three of four let nobody out; where two are enough,
/// they do.
#[test]
fn organisations_come_and_go_by_the_policy_for_it() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1", "--policy-for", "orgs=all"]);
    let policy = |matter: &str| {
        let said = shell.told("beacon policy");
        said["matters"].as_array().unwrap().iter().find(|line| line["matter"] == matter).unwrap().clone()
    };
    let enough = || shell.told("beacon policy")["waiting"][0]["enough"].clone();
    let code = |line: &str| shell.refused(line)["error"]["code"].as_str().unwrap().to_owned();
    assert_eq!((&policy("orgs")["policy"], &policy("orgs")["revision"]), (&"all(members.admin)".into(), &0.into()));
    assert_eq!(policy("policy")["policy"], "majority(members.admin)");

    let register = |by: &str| {
        let (ca, key) = (shell.dir().join("../d-ca/ca.pem"), ledger::SecretKey::derive(b"org-d", b"").public());
        format!("beacon org register org-d --id 4 --ca {} --admin-key {key} --as {by}", ca.display())
    };
    shell.told("ca new org-d --out d-ca");
    shell.told(&register("org-a"));
    let second = shell.told(&register("org-b"));
    assert_eq!((&second["in_force"], &second["approvals"], &second["needed"]), (&false.into(), &2.into(), &3.into()));
    assert_eq!(enough(), serde_json::json!(["org-c"]));
    assert_eq!(shell.told(&register("org-c"))["in_force"], true);

    // It would have to agree itself. Three of four are enough to say that it need not.
    for by in ["org-a", "org-b", "org-c"] {
        assert_eq!(shell.told(&format!("beacon org remove 4 --as {by}"))["in_force"], false);
    }
    assert_eq!(enough(), serde_json::json!(["org-d"]));
    let propose = |policy: &str, on: u64, by: &str| format!("beacon policy propose orgs {policy} --on {on} --as {by}");
    assert_eq!(code(&propose("k-of(5,members.admin)", 0, "org-a")), "org_policy_unsatisfiable");
    assert_eq!(code(&propose("any(org-x.admin)", 0, "org-a")), "policy_org");
    let last = ["org-a", "org-b", "org-c"].map(|by| shell.told(&propose("k-of(2,members.admin)", 0, by)));
    assert_eq!(last.map(|said| said["in_force"].clone()), [false.into(), false.into(), serde_json::Value::from(true)]);
    assert_eq!(policy("orgs")["revision"], 1);
    assert_eq!(code(&propose("any", 0, "org-a")), "org_policy_stale");
    // What three have sent before is more than enough now; one of them says it again.
    assert_eq!(shell.told("beacon org remove 4 --as org-b")["in_force"], true);
    assert_eq!(code("beacon org remove 4 --as org-b"), "registry", "it is gone");

    // Without whom a policy cannot be, stays; and whom it does not ask, is not heard.
    for by in ["org-a", "org-b"] {
        shell.told(&propose("org-a.admin", 1, by));
    }
    assert_eq!(code("beacon org remove org-a --as org-a"), "org_policy_blocks");
    assert_eq!(code(&register("org-b").replace("--id 4", "--id 5")), "org_policy_not_asked");
    let joined = shell.told(&register("org-a").replace("--id 4", "--id 5"));
    assert_eq!(joined["in_force"], true, "one is enough");
}

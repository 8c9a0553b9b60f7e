//! What speaks against cutting, joining or moving a shard is said by its code, with cause and fix, and changes nothing. And
//! what was proved before shards and committees changed is proved afterwards, offline.

use std::path::Path;
use std::process::Command;

use beacon::{BeaconCommand, SignedCommand};
use client::{Client, Consistency};
use ledger::{Committee, GroupId, LayoutVersion, NodeId, OrgId, TimeMs};
use proto::v1::NodeStatusReply;
use seamark_cli::setup::ClusterDir;
use serde_json::Value;

use crate::elastic::{FUNDS, asked, children, copies, copies_are_gone, done, reaches, run};
use crate::elastic_faults::{leader, warm};
use crate::nodes::committees;
use crate::support::bank::{Bank, Wallet, now_ms, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::program::program;
use crate::support::up::Up;

const ZERO: GroupId = GroupId::shard(0);

/// Four nodes of three organisations, of which three have a seat in each shard.
pub async fn four_nodes(shards: u32) -> (Up, Client, Bank, Vec<Wallet>) {
    let up = Up::start_with(4, shards, &["--replicas", "3", "--orgs", "3"]).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> =
        wallets_in_each_shard(&client.genesis().layout, "home", 6).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    (up, client, bank, wallets)
}

/// The members of a shard, and a node that is none.
fn seated(committee: &Committee) -> (NodeId, NodeId, NodeId) {
    let spare = (1..=4).map(NodeId).find(|node| committee.index_of(*node).is_none()).unwrap();
    (committee.members[0].node, committee.members[1].node, spare)
}

/// Gives commands, each of which must fail with its code, say why, and say what to do.
fn all_refused(up: &Up, rows: &[(&str, &str)]) {
    for (line, code) in rows {
        let mut command = Command::new(program());
        command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", &up.dir);
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}"));
        // The command line itself is wrong where it names what is no shard.
        let exit = if *code == "group" { 2 } else { 1 };
        assert_eq!((&said["error"]["code"], output.status.code()), (&Value::from(*code), Some(exit)), "{line}: {said}");
        for part in ["cause", "fix"] {
            assert!(said["error"][part].as_str().is_some_and(|text| !text.is_empty()), "{line}: {said}");
        }
    }
}

/// The admin of an organisation, over the routers of its own nodes; for what the command line never sends.
pub struct Admin {
    client: Client,
    id: OrgId,
    key: ledger::SecretKey,
}

impl Admin {
    pub async fn of(up: &Up, client: &Client, name: &str) -> Self {
        let dir = ClusterDir::at(&up.dir);
        let genesis = client.genesis();
        let id = genesis.orgs.iter().find(|org| org.name == name).unwrap().id;
        let own: Vec<NodeId> = genesis.nodes.iter().filter(|node| node.org == id).map(|node| node.id).collect();
        let mut profile = up.profile_of(&own);
        let folder = dir.admin_dir(name);
        (profile.cert, profile.key) = (folder.join("admin.pem"), folder.join("admin.key"));
        Self { client: Client::connect(&profile).await.unwrap(), id, key: dir.admin_key(name).unwrap() }
    }

    /// Has the beacon execute a command: the same bytes are sent until it answers.
    pub async fn gives(&self, command: &BeaconCommand, salt: u8) {
        let (cluster, until) = (self.client.cluster_id(), TimeMs(now_ms() + 600_000));
        let signed = SignedCommand::sign(&cluster, command, self.id, [salt; 16], until, &self.key).encode();
        eventually("the beacon takes the command", async || self.client.command(signed.clone()).await).await;
    }

    /// The code by which the beacon refuses a command, signed until a moment.
    async fn refused(&self, command: &BeaconCommand, salt: u8, until: TimeMs) -> String {
        let cluster = self.client.cluster_id();
        let signed = SignedCommand::sign(&cluster, command, self.id, [salt; 16], until, &self.key);
        match self.client.command(signed.encode()).await {
            Err(error) => error.code().to_owned(),
            Ok(fate) => panic!("it was taken: {fate:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_against_a_job_is_told_and_nothing_is_lost() {
    let (mut up, client, bank, wallets) = four_nodes(2).await;
    let genesis = client.genesis().clone();
    let (member, mate, spare) = seated(genesis.committee(ZERO).unwrap());
    let org = genesis.nodes[0].org;
    let org = genesis.orgs.iter().find(|known| known.id == org).unwrap().name.clone();
    // Its weight is zero, so it has no place for a seat.
    up.add_node(NodeId(5), &org).await;
    up.told(&format!("node capacity 5 0 --as {org}"));
    let moves = |from: NodeId, to: NodeId| format!("shard move shard-0 --from {from} --to {to} --as org-a --wait 0");
    let (unknown, full) = (moves(member, NodeId(99)), moves(member, NodeId(5)));
    let (seated_there, not_seated) = (moves(member, mate), moves(spare, mate));
    all_refused(
        &up,
        &[
            ("shard split shard-9 --as org-a --wait 0", "shard_unknown"),
            ("shard split beacon --as org-a --wait 0", "group"),
            ("shard merge shard-1 shard-0 --as org-a --wait 0", "not_siblings"),
            ("shard merge shard-0 shard-9 --as org-a --wait 0", "shard_unknown"),
            (unknown.as_str(), "move_target"),
            (full.as_str(), "move_target"),
            (seated_there.as_str(), "move_target"),
            (not_seated.as_str(), "move_source"),
            ("shard status job-99", "job_unknown"),
            ("shard cut job-99 --as org-a --wait 0", "job_unknown"),
            ("shard cancel job-99 --as org-a", "job_unknown"),
        ],
    );
    // A plan shows the same, and says so once.
    let mut planned = Command::new(program());
    planned.args(["shard", "plan", "merge", "shard-1", "shard-0", "--json"]).env("SEAMARK_DIR", &up.dir);
    let planned = tokio::task::block_in_place(|| planned.output()).unwrap();
    let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!((&report["refusal"], planned.status.code()), (&"not_siblings".into(), Some(1)), "{report}");

    // While a shard is being cut.
    let split = asked(&up, "shard split shard-0 --manual").await;
    assert_eq!(asked(&up, "shard split shard-0 --manual").await, split, "asked for again, it is the same");
    let (busy, cancel) = (moves(member, spare), format!("shard cancel {split} --as org-c"));
    all_refused(
        &up,
        &[
            ("shard merge shard-0 shard-1 --as org-a --wait 0", "shard_busy"),
            (busy.as_str(), "shard_busy"),
            // It has not asked for it.
            (cancel.as_str(), "not_authorised"),
        ],
    );
    // Copies of both halves are there on three members. One of these is down when the job is taken back.
    warm(&up, &split, 3).await;
    assert_eq!(copies(&up).len(), 6, "{:?}", copies(&up));
    let leads = leader(&client, GroupId::BEACON).await;
    let down = [member, mate].into_iter().find(|node| *node != leads).unwrap();
    up.kill(down).await;
    let taken_back = up.told(&format!("shard cancel {split} --as org-a"));
    assert_eq!(taken_back["state"], "cancelled", "{taken_back}");
    let of_down = up.dir.join(format!("nodes/node-{down}"));
    eventually("those that run remove their copies", async || {
        let left = copies(&up);
        if left.iter().all(|path| path.starts_with(&of_down)) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(copies(&up).len(), 2, "one that is down has not heard of it");
    up.restart(down);
    copies_are_gone(&up).await;
    up.whole(&client, &[GroupId::BEACON, ZERO, GroupId::shard(1)]).await;
    let (again, cut) = (format!("shard cancel {split} --as org-a"), format!("shard cut {split} --as org-a --wait 0"));
    all_refused(&up, &[(again.as_str(), "job_over"), (cut.as_str(), "job_over")]);

    // Behind a change of the layout.
    let split = asked(&up, "shard split shard-0").await;
    done(&up, &client, &split, &[ZERO]).await;
    let halves = children(&up, &split);
    assert!(!halves.contains(&"shard-2".to_owned()), "what a job was given that came to nothing is not given again");
    let (cousins, over) =
        (format!("shard merge {} shard-1 --as org-a --wait 0", halves[1]), format!("shard cancel {split} --as org-a"));
    all_refused(
        &up,
        &[
            (busy.as_str(), "shard_unknown"),
            (cousins.as_str(), "not_siblings"),
            (over.as_str(), "job_over"),
            // A plan that was seen before the layout changed, of a shard that is as it was.
            ("shard split shard-1 --on 1 --as org-a --wait 0", "layout_old"),
        ],
    );
    let admin = Admin::of(&up, &client, "org-a").await;
    let old = BeaconCommand::SplitShard { group: GroupId::shard(1), layout: LayoutVersion(1), manual: false };
    assert_eq!(admin.refused(&old, 1, TimeMs(now_ms() + 60_000)).await, "layout_old");
    // By a clock that is an hour behind it would be in time.
    assert_eq!(admin.refused(&old, 2, TimeMs(now_ms() - 3_540_000)).await, "expired");

    // A beacon without a majority decides nothing, and says so; what was there goes on when it is back.
    let beacon = genesis.committee(GroupId::BEACON).unwrap();
    let silent: Vec<NodeId> = beacon.members.iter().take(2).map(|member| member.node).collect();
    for node in &silent {
        up.kill(*node).await;
    }
    let code = up.refused("shard split shard-1 --as org-a --wait 0");
    assert!(["unanswered", "not_leader", "too_late", "unreachable"].contains(&code.as_str()), "{code}");
    for node in &silent {
        up.restart(*node);
    }
    let mut groups = vec![GroupId::BEACON, GroupId::shard(1)];
    groups.extend(halves.iter().map(|half| half.parse::<GroupId>().unwrap()));
    up.whole(&client, &groups).await;
    let jobs = run(&up, "shard status").unwrap();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2, "nothing was begun meanwhile: {jobs}");
    let split = asked(&up, "shard split shard-1").await;
    reaches(&up, &split, &["done"]).await;
    assert_eq!(bank.total(&wallets).await, FUNDS * wallets.len() as u128);
}

/// All three have to say that their copies are ready, so the one whose clock is set is heard as well: what it says is stamped
/// by the clock that most agree on.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_takes_part_in_a_cut() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let wrong = NodeId(2);
    cluster.node(wrong).hosted().context.clock.shift_wall(-3_600_000);
    let client = cluster.client();
    eventually("the node says that its clock is wrong", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let alarms: Vec<String> = status.nodes.into_iter().flat_map(|node| node.alarms).collect();
        if alarms.iter().any(|alarm| alarm.contains("clock")) { Ok(()) } else { Err(format!("{alarms:?}")) }
    })
    .await;
    let consortium = Consortium::of(&cluster);
    let split = BeaconCommand::SplitShard { group: ZERO, layout: LayoutVersion(1), manual: false };
    for org in [OrgId(1), OrgId(2)] {
        consortium.beacon(org, &split).await.unwrap();
    }
    let halves = [1, 2].map(|shard| GroupId::shard(shard).0);
    eventually("every node runs both halves, and no other shard", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let shards = |node: &NodeStatusReply| -> Vec<u64> {
            let groups = node.replicas.iter().map(|replica| replica.group);
            let mut shards: Vec<u64> = groups.filter(|group| *group != GroupId::BEACON.0).collect();
            shards.sort_unstable();
            shards
        };
        let found: Vec<Vec<u64>> = status.nodes.iter().map(shards).collect();
        if found.len() == 3 && found.iter().all(|shards| *shards == halves) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

/// Runs `verify` away from the cluster: with the genesis, a file, and nothing else.
fn verified(folder: &Path, file: &str) -> Result<Value, String> {
    let genesis = folder.join("genesis.json");
    let output = Command::new(program())
        .args(["verify", "--json", "--genesis"])
        .arg(&genesis)
        .arg(folder.join(file))
        .env_remove("SEAMARK_DIR")
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    if output.status.success() { Ok(said) } else { Err(said["error"]["code"].as_str().unwrap().to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_from_before_a_split_and_across_a_change_of_committees_hold_without_the_cluster() {
    let (up, client, bank, wallets) = four_nodes(1).await;
    let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
    std::fs::copy(ClusterDir::at(&up.dir).genesis_path(), folder.path().join("genesis.json")).unwrap();
    let keep = |name: &str, proof: &client::proof::ProofFile| {
        std::fs::write(folder.path().join(name), proof.to_file()).unwrap();
    };
    let account = async || {
        eventually("an account with its proof", async || {
            let answer = client.account(wallets[0].address, Consistency::Linearizable, true).await;
            answer.map_err(|error| error.to_string())?.proof.ok_or_else(|| "no proof yet".to_owned())
        })
        .await
    };
    let old = bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    let receipt = async || {
        eventually("a receipt with its proof", async || {
            let answer = client.transaction(old.txid(), Some(ZERO), true).await;
            answer.map_err(|error| error.to_string())?.proof.ok_or_else(|| "no proof yet".to_owned())
        })
        .await
    };
    keep("account-of-the-first-committee", &account().await);
    keep("receipt-of-the-first-committee", &receipt().await);

    // A seat moves, so that another committee certifies.
    let (member, _, spare) = seated(client.genesis().committee(ZERO).unwrap());
    let moved = asked(&up, &format!("shard move shard-0 --from {member} --to {spare}")).await;
    reaches(&up, &moved, &["done"]).await;
    let second = committees(&client).await.remove(&ZERO).unwrap();
    assert!(second.index_of(spare).is_some() && second.index_of(member).is_none(), "{second:?}");
    bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    let later = account().await;
    assert_eq!(later.committee, second);
    assert_eq!(later.handovers.len() as u64, second.epoch.0, "a step for each committee since the genesis");
    keep("account-of-the-second-committee", &later);

    // And the shard is cut.
    let split = asked(&up, "shard split shard-0").await;
    done(&up, &client, &split, &[ZERO]).await;
    bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    keep("account-of-a-half", &account().await);
    // What the shard had certified before both, those that came of it show.
    keep("receipt-shown-by-a-half", &receipt().await);
    let halves = children(&up, &split);
    drop(up);

    let files = [
        ("account-of-the-first-committee", vec!["shard-0"]),
        ("receipt-of-the-first-committee", vec!["shard-0"]),
        ("account-of-the-second-committee", vec!["shard-0"]),
        ("account-of-a-half", halves.iter().map(String::as_str).collect()),
        ("receipt-shown-by-a-half", vec!["shard-0"]),
    ];
    for (file, by) in files {
        let said = verified(folder.path(), file).unwrap_or_else(|code| panic!("{file}: {code}"));
        assert_eq!(said["valid"], true, "{said}");
        assert!(by.contains(&said["group"].as_str().unwrap()), "{file} is by {said}");
        let mut bytes = std::fs::read(folder.path().join(file)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(folder.path().join("altered"), bytes).unwrap();
        assert!(verified(folder.path(), "altered").is_err(), "{file}");
    }
}

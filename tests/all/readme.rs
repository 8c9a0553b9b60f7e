//! README's own commands, run as they stand there: the two make targets exist and do what they say,
//! and the tour works line by line.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::program::program;
use crate::support::shell::{Shell, blocks, root};

#[test]
fn the_two_commands_are_make_demo_and_make_test() {
    assert_eq!(blocks("README.md", "sh")[0], ["make demo", "make test"]);
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for target in ["demo", "test", "build"] {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "no target {target}");
    }
    let gate = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(gate.contains("make test"), "the gate runs what README names");
}

/// What `make demo` runs once everything is built.
#[test]
fn the_demo_settles_a_real_block_and_every_replica_agrees() {
    let output = Command::new(program()).args(["demo", "--json"]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in [
        "transfers",
        "skipped",
        "committed",
        "rejected",
        "accounts",
        "shards",
        "replicas",
        "cross_shard",
        "seconds",
        "tps",
        "latency_ms",
        "supply_before",
        "supply_after",
        "conserved",
        "state_sha256",
        "replicas_agree",
    ] {
        assert!(report.get(field).is_some(), "the report has no {field}");
    }
    assert_eq!(report["transfers"], 5992);
    assert_eq!(report["committed"], report["transfers"]);
    assert_eq!(report["rejected"], 0);
    assert_eq!(report["conserved"], true);
    assert_eq!(report["replicas_agree"], true);
    assert_eq!(report["state_sha256"], "3b87f6f57c8c1bcb0ade37206b440ab351a4497e657ccc198741f53976abe715");
}

#[test]
fn the_tour_works_line_by_line() {
    let all = blocks("README.md", "sh");
    assert_eq!(all[1], ["seamark up --dir /tmp/seamark"]);
    let shell = Shell::start(&[]);
    let here = shell.dir();
    let here = |line: &String| line.replace("/tmp/seamark", here.to_str().unwrap());
    let said = shell.script(&all[2].iter().map(here).collect::<Vec<_>>()).stdout;
    assert!(said.contains("1250") || said.contains("1,250"), "bob's balance is shown: {said}");
}

#[test]
fn history_speed_and_faults_on_clusters_of_their_own() {
    let lines = &blocks("README.md", "sh")[3];
    assert_eq!(lines.len(), 3, "a line each for replay, bench and sim: {lines:?}");
    let shell = Shell::start(&["--shards", "1"]);
    shell.write("history.csv", "from,to,amount\nalice,bob,5\nbob,carol,3\ncarol,carol,1\nalice,bob,0\n");
    let replayed = shell.script(&lines[..1]).stdout;
    assert!(replayed.contains("3 committed, 0 rejected") && replayed.contains("1 rows skipped"), "{replayed}");
    let measured = shell.script(&lines[1..2]).stdout;
    assert!(measured.contains("ratio to the bound"), "{measured}");
    let simulated = shell.script(&lines[2..]).stdout;
    assert!(simulated.contains("20 seeds"), "{simulated}");
    // What ran beside the cluster of this folder did not touch it.
    assert_eq!(shell.told("status")["healthy"], true);
}

/// A stranger's small steps: what is asked of the program says what there is.
#[test]
fn what_was_issued_and_paid_can_be_looked_up() {
    let shell = Shell::start(&["--shards", "2"]);
    shell.told("key new bob");
    shell.told("asset issue EUR --decimals 2 --supply 100000");
    assert_eq!(shell.told("asset show EUR")["supply"], "100000");
    let paid = shell.told("pay bob 1250 --asset EUR --memo rent");
    let found = shell.told(&format!("tx {}", paid["receipt"]["txid"].as_str().unwrap()));
    assert_eq!(found["memo"], "rent");
    assert_eq!(found["moves"], serde_json::json!(["operator pays bob 12.50 EUR"]));
    shell.write("cluster/keys/eve.key", "not a key");
    let listed = shell.refused("key list");
    assert_eq!(listed["keys"][0]["name"], "bob", "a damaged file hides no other");
    assert!(listed["unreadable"][0].as_str().unwrap().contains("eve.key"), "{listed}");
    assert_eq!(shell.refused("pay bob 1 --asset EUR --dir nowhere")["error"]["code"], "address");
    assert_eq!(
        shell.refused(&format!("pay {} 1 --asset EUR --dir nowhere", paid["to"].as_str().unwrap()))["error"]["code"],
        "profile_missing"
    );
}

/// Certificates are made in the ledger's own tool, and let in whom the cluster knows the authority of.
#[test]
fn certificates_are_issued_and_let_in_only_by_authorities_of_the_cluster() {
    let shell = Shell::start(&["--shards", "1"]);
    let orgs = std::fs::read_dir(shell.dir().join("ca")).unwrap().map(|entry| entry.unwrap().file_name());
    let own = orgs.map(|name| name.into_string().unwrap()).min().unwrap();
    let issued = shell.told(&format!("ca issue client shop --ca cluster/ca/{own} --out shop"));
    assert_eq!((&issued["role"], &issued["org"]), (&"client".into(), &own.as_str().into()));
    shell.told("ca new stranger --out stranger");
    shell.told("ca issue client shop --ca stranger --out outsider");
    assert_eq!(shell.refused("ca new stranger --out stranger")["error"]["code"], "ca_exists");
    assert_eq!(shell.refused("ca issue node seven --ca stranger --out n")["error"]["code"], "ca_name");
    assert_eq!(shell.refused("ca show history.csv")["error"]["code"], "tls_file");
    let key = std::fs::read_to_string(shell.dir().join("../stranger/ca.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "the passphrase locks the key");

    // The profile names the files of whoever calls.
    let profile = std::fs::read_to_string(shell.dir().join("client.toml")).unwrap();
    for folder in ["shop", "outsider"] {
        let dir = shell.dir().join("..").join(folder);
        let used = profile
            .replace("client/client.pem", &dir.join("shop.pem").display().to_string())
            .replace("client/client.key", &dir.join("shop.key").display().to_string());
        assert_ne!(used, profile, "the profile names certificate and key");
        std::fs::write(shell.dir().join("client.toml"), used).unwrap();
        if folder == "shop" {
            assert_eq!(shell.told("status")["healthy"], true);
        } else {
            assert_eq!(shell.refused("status")["error"]["code"], "certificate_unknown_authority");
        }
    }
}

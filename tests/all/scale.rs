//! The scale study as a user runs it: constants measured to a file, four shards over them, and what comes out.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::program::program;

fn seamark(args: &[&str]) -> Output {
    Command::new(program()).args(args).stderr(Stdio::inherit()).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn four_shards_by_constants_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let (constants, chart) = (folder.path().join("constants.json"), folder.path().join("scale.svg"));
    let measured = seamark(&["bench", "--constants", "--json"]);
    assert!(measured.status.success());
    let costs = json(&measured);
    for cost in [
        "route_ns",
        "verify_ns",
        "execute_ns",
        "tree_ns",
        "block_ns",
        "sign_ns",
        "check_ns",
        "message_ns",
        "audit_stream_ns",
    ] {
        assert!(costs[cost].as_u64().is_some_and(|ns| ns > 0), "{cost}: {costs}");
    }
    std::fs::write(&constants, &measured.stdout).unwrap();

    let (constants, chart) = (constants.to_str().unwrap(), chart.to_str().unwrap());
    let mut study =
        vec!["sim", "--scale", "--json", "--nodes", "16", "--shards", "4", "--replicas", "3", "--cross", "20"];
    study.extend(["--clients", "16", "--accounts", "16", "--measure-ms", "200", "--constants", constants]);
    let first = seamark(&[&study[..], &["--svg", chart]].concat());
    assert!(first.status.success());
    let report = json(&first);
    assert_eq!(report["constants"], costs);
    let rows = report["rows"].as_array().unwrap();
    let of = |field: &str| rows.iter().map(|row| row[field].as_u64().unwrap()).collect::<Vec<u64>>();
    assert_eq!((of("shards"), of("nodes"), of("refused")), (vec![1, 2, 4], vec![4, 8, 16], vec![0, 0, 0]));
    assert!(of("payments").iter().all(|payments| *payments > 0), "{report}");
    assert!(
        rows.iter().all(|row| row["beacon"]["behind_blocks"].as_u64().is_some_and(|blocks| blocks < 256)),
        "{report}"
    );
    assert!(report["beacon_spread"].is_null(), "no cluster has 8 shards: {report}");
    assert!(of("crossing")[0] == 0 && of("crossing")[2] > 0, "{report}");
    assert_eq!(rows[0]["efficiency"], 1.0);
    assert!(std::fs::read_to_string(chart).unwrap().contains("Efficiency"));

    // The same constants and the same seed give the same study.
    let again = json(&seamark(&study));
    assert_eq!(again["rows"], report["rows"]);
    // Shards cannot do more than as many times one of them: a floor above that is missed, and says so.
    let missed = seamark(&[&study[..], &["--efficiency-at-least", "5"]].concat());
    assert_eq!(missed.status.code(), Some(1));
}

/// Runs without shards that are cut have some blocks and no halves.
#[test]
fn what_has_to_happen_in_runs_and_does_not_is_missed() {
    let runs = ["--json", "sim", "--seeds", "2", "--reshapes", "0", "--transactions", "5", "--safety-ms", "500"];
    for (wanted, status) in [("blocks,certificates", 0), ("blocks,halves", 1)] {
        let done = seamark(&[&runs[..], &["--met", wanted]].concat());
        assert_eq!(done.status.code(), Some(status), "{wanted}");
        let report = json(&done);
        assert!(report["coverage"]["blocks"].as_u64() > Some(0) && report["coverage"]["halves"] == 0, "{report}");
        let unmet = report["unmet"].as_array().expect("a list");
        assert!(unmet.iter().any(|name| name == "halves") && unmet.iter().all(|name| name != "blocks"), "{report}");
    }
}

#[test]
fn what_cannot_be_studied_is_refused() {
    for (args, code) in [
        (&["sim", "--scale", "--nodes", "2", "--replicas", "64", "--shards", "1", "--cores", "0"][..], "scale_cores"),
        (&["sim", "--shards", "9"][..], "sim_size"),
        (&["sim", "--scale", "--shards", "8", "--beacon-spread-at-most", "2"][..], "scale_spread"),
        (&["sim", "--met", "blocks,halfs"][..], "sim_coverage"),
        (&["sim", "--scale", "--constants", "/dev/null"][..], "bench_constants"),
    ] {
        let refused = seamark(&[&["--json"], args].concat());
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        assert_eq!(json(&refused)["error"]["code"], code, "{args:?}");
    }
}

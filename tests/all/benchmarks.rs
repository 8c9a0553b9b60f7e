//! `bench` inside channels, and of an organisation that joins one and leaves it, in a very small size: that it
//! founds, pays, joins and is refused as it says. How fast anything is, is for `make soak`.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::program::program;

/// What the benchmark reports; the floors that it is given have to be reached.
fn bench(line: &str) -> Value {
    let output = Command::new(program()).arg("bench").args(line.split_whitespace()).arg("--json").output().unwrap();
    assert!(output.status.success(), "bench {line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn above_zero(told: &Value, fields: &[&str]) {
    for field in fields {
        assert!(told[field].as_f64() > Some(0.0), "{field} in {told}");
    }
}

#[test]
fn payments_and_swaps_of_two_channels_are_compared() {
    let told = bench(
        "--channels 2 --accounts 20 --transactions 400 --in-flight 64 --seconds 1 --swap-at-most 1000 --together-at-least 0.001",
    );
    above_zero(&told, &["tps", "committed", "bound_tps", "bound_ratio"]);
    assert_eq!((&told["rejected"], &told["aborted"]), (&json!(0), &json!(0)));
    assert_eq!((&told["replicas"], &told["verify_mode"]), (&json!(3), &json!("every")));
    assert_eq!((&told["verifies_per_tx"], &told["durable"]), (&json!(3), &json!(true)));
    let beside = &told["channels"];
    assert_eq!((&beside["count"], &beside["members"]), (&json!(2), &json!(3)));
    above_zero(beside, &["one_tps", "together_ratio", "payments", "swaps", "swap_ratio"]);
    above_zero(&beside["payment_ms"], &["p50", "p99"]);
    above_zero(&beside["swap_ms"], &["p50", "p99"]);
}

#[test]
fn an_organisation_joins_a_channel_in_use_from_a_snapshot_and_is_out_at_once_when_it_leaves() {
    // With four in flight, no entry has more, so that the log is many times longer than what is kept of it.
    let told = bench(
        "--join --accounts 30 --past 1000 --in-flight 4 --snapshot-every 100 --rate 100 --seconds 1 --join-at-most 60",
    );
    assert_eq!((&told["from_snapshot"], &told["replicas_agree"]), (&json!(true), &json!(true)));
    assert_eq!((&told["accounts"], &told["verify_mode"]), (&json!(30), &json!("every")));
    above_zero(&told, &["join_seconds", "state_seconds", "fill_tps", "payments_before", "payments_during"]);
    above_zero(&told["during_ms"], &["p50", "p99"]);
    assert_eq!(told["refused"], json!({}));
    assert!(told["past_transactions"].as_u64() >= Some(1000), "{told}");

    let leave = &told["leave"];
    let height = |field: &str| leave[field].as_u64().unwrap();
    assert_eq!(leave["blocks_shown_after"], json!(0));
    assert!(height("last_shown_height") < height("exclusion_height"), "{leave}");
    assert!(height("exclusion_height") <= height("told_height"), "{leave}");
    for tried in ["read", "command"] {
        assert_eq!(leave["refusals"][tried], json!("channel_removed"), "{tried} in {leave}");
    }
    // By the channel's node, or before that by a router that the beacon has told who is in it.
    let pay = leave["refusals"]["pay"].as_str().unwrap();
    assert!(["channel_removed", "access_denied"].contains(&pay), "{leave}");
}

//! `bench` inside channels, of an organisation that joins one and leaves it, of one engine beside the other, of going
//! from one to the other, of a node that takes a replica over, of a shard that is cut and joined, and plainly of a
//! shard that the Byzantine engine orders, in a very small size: that it founds, pays, joins, is refused, silences,
//! kills, switches, takes over and cuts as it says. How fast anything is, is for `make soak`.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::support::program::program;

/// A benchmark takes all of the machine that it gets; two at a time would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// What the benchmark reports; the floors that it is given have to be reached.
fn bench(line: &str) -> Value {
    // One that has failed has measured nothing that the next one depends on.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
fn a_byzantine_shard_pays_under_load() {
    let line = "--consensus bft --accounts 20 --transactions 400 --in-flight 64 --seconds 1 --at-least 0.00001";
    let told = bench(line);
    above_zero(&told, &["tps", "committed", "seconds", "bound_tps", "bound_ratio"]);
    assert_eq!((&told["consensus"], &told["shards"], &told["replicas"]), (&json!("bft"), &json!(1), &json!(4)));
    assert_eq!((&told["rejected"], &told["aborted"], &told["rejections"]), (&json!(0), &json!(0), &json!({})));
    above_zero(&told["latency_ms"], &["p50", "p99"]);
    // Whoever votes for a batch has checked it, also where one organisation runs all of it.
    assert_eq!((&told["verify_mode"], &told["verifies_per_tx"]), (&json!("ingest"), &json!(4)));
    assert_eq!(told["durable"], json!(true));
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
        "--join --accounts 30 --past 1000 --in-flight 4 --snapshot-every 100 --rate 100 --seconds 1 --join-at-most 600",
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

#[test]
fn the_engines_are_compared_and_the_byzantine_one_pays_on_beside_a_silent_member_and_without_its_leader() {
    let told = bench(
        "--engines --accounts 20 --transactions 400 --in-flight 64 --load 100 --rounds 0 --seconds 1 --at-least 0.00001 --latency-at-most 100000 --without-one-at-least 0.00001 --gap-at-most 600 --later-gap-at-most 600",
    );
    for engine in ["raft", "bft"] {
        let of = &told[engine];
        above_zero(of, &["alone"]);
        above_zero(&of["alone_ms"], &["p50", "p99"]);
        above_zero(&of["rate"], &["tps", "committed", "bound_tps", "bound_ratio"]);
        // Each replica checks, whoever orders.
        assert_eq!((&of["rate"]["verifies_per_tx"], &of["rate"]["durable"]), (&json!(4), &json!(true)), "{engine}");
    }
    above_zero(&told, &["latency_ratio", "silenced", "silent_ratio", "without_one_ratio"]);
    for measured in ["silent", "without_one"] {
        above_zero(&told[measured], &["tps", "committed"]);
        assert_eq!(told[measured]["verifies_per_tx"], json!(4), "{measured}");
    }
    assert_eq!((&told["members"], &told["verify_mode"]), (&json!(4), &json!("every")));
    assert_eq!((&told["failed"], &told["refused"]), (&json!(0), &json!({})));

    let outage = &told["outage"];
    above_zero(outage, &["longest_gap_seconds", "later_gap_seconds", "payments_after", "watched_seconds"]);
    assert!(!outage["leaders"].as_array().unwrap().contains(&outage["killed"]), "{outage}");
}

#[test]
fn a_shard_goes_over_to_the_other_engine_and_back_while_payments_are_made() {
    let told = bench("--switch --accounts 20 --load 100 --seconds 1 --pause-at-most 600");
    for (direction, engine, members) in [("to_bft", "bft", 4), ("to_raft", "raft", 3)] {
        let of = &told[direction];
        assert_eq!((&of["engine"], &of["members"]), (&json!(engine), &json!(members)), "{direction}");
        above_zero(of, &["longest_gap_seconds", "switch_seconds"]);
        assert_eq!(of["failed"], json!(0), "{direction}");
    }
    above_zero(&told, &["gap_before_seconds", "executed"]);
    above_zero(&told["meanwhile_ms"], &["p50", "p99"]);
    assert_eq!((&told["rate"], &told["verify_mode"]), (&json!(100), &json!("every")));
    assert_eq!((&told["failed"], &told["refused"]), (&json!(0), &json!({})));
}

#[test]
fn a_new_node_takes_a_replica_over_while_payments_are_made() {
    let told = bench("--takeover --accounts 200 --in-flight 32 --seconds 2 --takeover-at-most 600");
    // So small a state is taken over in a moment, in which a busy machine may make no payment at all.
    above_zero(&told, &["takeover_seconds", "state_seconds", "rate_before", "executed"]);
    above_zero(&told["before_ms"], &["p50", "p99"]);
    assert_eq!((&told["accounts"], &told["verify_mode"]), (&json!(200), &json!("ingest")));
    assert_eq!((&told["failed"], &told["refused"]), (&json!(0), &json!({})));
    assert_eq!(told["replicas_agree"], json!(true));
    assert_ne!(told["from"], told["to"]);
}

#[test]
fn a_shard_is_cut_and_joined_again_while_payments_are_made() {
    let told = bench("--reshape --accounts 200 --rounds 1 --load 100 --in-flight 8 --seconds 1 --pause-at-most 600");
    let jobs = told["jobs"].as_array().unwrap();
    assert_eq!(jobs.iter().map(|job| &job["kind"]).collect::<Vec<_>>(), [&json!("split"), &json!("merge")]);
    for job in jobs {
        above_zero(job, &["pause_seconds", "seconds"]);
    }
    for kind in ["split", "merge"] {
        above_zero(&told[kind], &["median_seconds", "worst_seconds"]);
    }
    above_zero(&told, &["gap_before_seconds", "others_before", "executed"]);
    above_zero(&told["meanwhile_ms"], &["p50", "p99"]);
    assert_eq!((&told["accounts"], &told["rate"]), (&json!(200), &json!(100)));
    assert_eq!((&told["failed"], &told["refused"]), (&json!(0), &json!({})));
    assert_eq!((&told["replicas_agree"], &told["money_conserved"]), (&json!(true), &json!(true)));
}

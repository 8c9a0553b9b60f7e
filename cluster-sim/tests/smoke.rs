//! Many small clusters, each from its seed, each run twice.

use cluster_sim::{Coverage, Scenario, SimConfig, run, run_twice};

const SEEDS: u64 = 60;

#[test]
fn no_seed_violates_anything_and_equal_seeds_are_equal() {
    let config = SimConfig::default();
    let mut total = Coverage::default();
    let (mut committed, mut rejected) = (0, 0);
    for seed in 0..SEEDS {
        let report = run_twice(seed, &config);
        assert!(report.passed(), "{}", serde_json::to_string_pretty(&report).expect("a report is plain data"));
        total.add(&report.coverage);
        committed += report.committed;
        rejected += report.rejected;
    }
    // The seeds together must have met everything that they are there for.
    let met = [
        ("leader changes", total.leader_changes),
        ("crashes", total.crashes),
        ("lost log writes", total.lost_log_writes),
        ("lost state", total.lost_state_batches),
        ("blocks applied again", total.replayed_blocks),
        ("lost messages", total.lost_messages),
        ("duplicated messages", total.duplicated_messages),
        ("reordered messages", total.reordered_messages),
        ("retries", total.retries),
        ("known transactions", total.known),
        ("payments across shards", total.cross_shard),
        ("overdrafts", total.overdrafts),
        ("expired transactions", total.expired),
        ("certificates", total.certificates),
        ("checkpoints", total.checkpoints),
        ("committed transactions", committed),
        ("rejected transactions", rejected),
    ];
    for (what, count) in met {
        assert!(count >= SEEDS / 4, "{SEEDS} seeds met only {count} {what}");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let config = SimConfig { payments: 10, safety_ms: 1_500, ..SimConfig::default() };
    assert_ne!(run(1, &config).event_hash, run(2, &config).event_hash);
}

#[test]
fn every_scenario_runs_on_other_shapes_too() {
    for (scenario, seed) in Scenario::ALL.iter().zip(1_000..) {
        for (nodes, shards, replicas) in [(3, 1, 3), (7, 3, 5)] {
            let config =
                SimConfig { scenario: Some(*scenario), nodes, shards, replicas, payments: 30, ..SimConfig::default() };
            let report = run(seed, &config);
            assert!(report.passed(), "{}", serde_json::to_string_pretty(&report).expect("a report is plain data"));
        }
    }
}

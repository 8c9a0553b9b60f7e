//! Tier 2 of the simulator: the node host as it is, openraft, gRPC over mutual TLS, RocksDB, router
//! and SDK, under turmoil's network and clock, with tier 1's load and checkers.
//!
//! A seed decides the shape, the load, the faults and their times, and the latencies that turmoil
//! draws; `docs/simulator.md` says how far that repeats a run. [`world`] drives it, [`network`] is what
//! the hosts are given instead of sockets and a wall clock, [`faults`] what goes wrong, [`load`] the
//! clients, [`history`] what was agreed on, [`judge`] the verdict, [`spoil`] whether it means anything.

mod faults;
mod history;
mod judge;
mod load;
mod network;
mod spoil;
mod world;

use world::{Ended, World};

/// How many seeds, from 1 on, `make test` runs; `SEAMARK_TIER2_SEEDS` is another number.
const SEEDS: u64 = 4;
/// With so many, some replica has had to install a snapshot; whether one has in a few is chance.
const SEEDS_WITH_SNAPSHOTS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} has to be a number")))
}

fn run(seed: u64) -> Ended {
    let again = format!(
        "SEAMARK_TIER2_SEED={seed} RUST_TEST_THREADS=1 cargo test --release --workspace --locked --test all -- tier2::seeds --nocapture"
    );
    let outcome = std::panic::catch_unwind(|| World::new(seed).run());
    match outcome {
        Ok(ended) => {
            println!("seed {seed}: {}", ended.summary);
            assert!(ended.violations.is_empty(), "seed {seed}: {:#?}\nrun it again: {again}", ended.violations);
            ended
        }
        Err(cause) => {
            eprintln!("seed {seed} failed; run it again: {again}");
            std::panic::resume_unwind(cause);
        }
    }
}

/// Every transaction has one fate in all groups, what was acknowledged is there, and nothing is held
/// in the end, whatever the network and the processes did.
#[test]
fn seeds() {
    crate::support::log();
    if let Some(seed) = number("SEAMARK_TIER2_SEED") {
        return drop(run(seed));
    }
    let (mut crashes, mut snapshots, mut several) = (0, 0, 0);
    let seeds = number("SEAMARK_TIER2_SEEDS").unwrap_or(SEEDS);
    for seed in 1..=seeds {
        let ended = run(seed);
        if seed == 1 {
            spoil::each_lie_is_found(&ended);
        }
        crashes += ended.summary.crashes;
        snapshots += ended.summary.snapshots;
        several += ended.summary.fates[1];
    }
    assert!(crashes > 0 && several > 0, "{crashes} crashes, {several} commits of several groups");
    assert!(snapshots > 0 || seeds < SEEDS_WITH_SNAPSHOTS, "no replica installed a snapshot");
}

#[test]
fn disks_that_go_back_are_noticed() {
    crate::support::log();
    let ended = World::new(1).run_with_disks_that_go_back();
    let of = |whose: &str| ended.violations.iter().any(|text| text.starts_with(whose));
    // Where mail of the lost blocks had been taken, the chains cannot be executed again, and that is what is said.
    assert!(of("log") && (of("durability") || of("chain")), "{:#?}", ended.violations);
}

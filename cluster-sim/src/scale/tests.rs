//! Small studies: that they are repeatable, lose nothing, and come to what one group would come to alone.

use beacon::audit::flows::sums;
use beacon::audit::{findings, quarantined};
use beacon::limits::CHECKPOINT_EVERY_BLOCKS;
use bytes::Bytes;
use consensus::port::AppliedState;
use ledger::ids::TimeMs;
use ledger::view::View;
use ledger::{Balance, Outcome};
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};
use shard_node::core::executor::{GroupConstants, execute};

use super::cluster::{CREATED_MS, undivided};
use super::*;

/// Of no machine in particular.
const CONSTANTS: Constants = Constants {
    route_ns: 3_000,
    verify_ns: 40_000,
    execute_ns: 30_000,
    tree_ns: 5_000,
    block_ns: 20_000,
    stream_ns: 700,
    head_ns: 2_000,
    credit_ns: 10_000,
    sign_ns: 50_000,
    check_ns: 30_000,
    certificate_ns: 3_000,
    message_ns: 3_000,
    path_ns: 300,
    audit_ns: 9_000,
    audit_stream_ns: 4_000,
};

fn small() -> Study {
    Study {
        shards: 4,
        nodes: 12,
        replicas: 3,
        cross_pct: 25,
        zipf: 0.8,
        local_every: 1,
        accounts: 16,
        clients: 8,
        warm_up_ms: 50,
        measure_ms: 600,
        seed: 3,
        threads: 2,
        ..Study::default()
    }
}

#[test]
fn four_shards_beside_one() {
    let study = small();
    let one = study.run(1, &CONSTANTS).unwrap();
    let mut four = study.run(4, &CONSTANTS).unwrap();
    four.compare(&one);
    assert_eq!((one.nodes, four.nodes), (3, 12));
    for row in [&one, &four] {
        assert_eq!((row.refused, row.ignored), (0, 0), "{row:?}");
        assert!(row.payments > 100 * u64::from(row.shards), "{row:?}");
        // A hop to the shard, an order of two hops and an fsync, and a hop back.
        assert!(row.receipt_ms.p50 >= 3.0 && row.receipt_ms.p50 <= row.receipt_ms.p99, "{row:?}");
        assert!(row.beacon.commands_per_s > 0.0 && row.beacon.bytes_per_s > 0.0, "{row:?}");
        assert!(row.busiest_node > 0.0 && row.busiest_node < 1.1, "{row:?}");
    }
    assert_eq!((one.crossing, one.applied_ms.p99), (0, 0.0), "there is no other shard");
    let crossing = four.crossing as f64 / four.payments as f64;
    assert!((0.2..0.3).contains(&crossing), "{crossing}");
    assert!(four.applied_ms.p50 > four.receipt_ms.p50, "mail takes longer: {four:?}");
    assert!(four.leader_cpu_us.mail > 0.0 && four.leader_cpu_us.acks > 0.0, "{four:?}");
    assert!(four.leader_cpu_us.all > one.leader_cpu_us.all, "and costs more");
    assert!(four.efficiency > 0.5 && four.efficiency < 1.1, "{four:?}");
}

#[test]
fn all_headers_come_to_the_audit() {
    let study = Study { measure_ms: 1_000, drain_ms: 1_000, ..small() };
    let (row, finished) = study.play(4, &CONSTANTS, false, &mut |_| ()).unwrap();
    let (every, load) = (CHECKPOINT_EVERY_BLOCKS, row.beacon);
    assert_eq!(row.ignored, 0, "each trail leads on: {row:?}");
    assert!(load.headers_per_shard_s > 0.5 * row.blocks_per_shard_s, "{row:?}");
    assert!(load.bytes_per_shard_s > 300.0 * load.headers_per_shard_s, "they are in the beacon's entries: {row:?}");
    assert!(load.audit_cpu_ms_per_s > 0.0 && load.audit_cpu_ms_per_s < load.cpu_ms_per_s, "{row:?}");
    assert!(row.leader_cpu_us.audit > 0.0 && row.messages_per_payment.checkpoints > 0.0, "{row:?}");
    assert!(keeps_up(&row) && load.behind_blocks < 2 * every, "{row:?}");
    let beacon = &finished.groups[0];
    for shard in &finished.groups[1..] {
        let (done, audited) = (shard.root().0, beacon.audited(shard.id).unwrap().unwrap());
        assert!(audited.0 >= every && audited <= done, "{}: {audited} of {done}", shard.id);
        assert!(done.0 - audited.0 <= load.behind_blocks, "{}: {audited} of {done}", shard.id);
        // What is audited was said with the last question; more than that is forgotten.
        assert!((shard.kept() as u64) < 4 * every, "{}: {} of {done}", shard.id, shard.kept());
    }
    let mut view = View::new(&beacon.state);
    assert_eq!((findings(&mut view), quarantined(&mut view)), (Vec::new(), Vec::new()), "nothing is wrong");
    let sums = sums(&mut view, GroupId::shard(1));
    assert_eq!(sums.len(), 1, "there is one asset");
    assert!(!sums[0].imported.is_empty() && !sums[0].exported.is_empty(), "flows are added up: {sums:?}");
}

/// The members of the beacon have nodes of their own, so that nobody waits for them.
#[test]
fn a_beacon_that_does_not_keep_up_is_seen() {
    let study = Study { shards: 2, nodes: 9, measure_ms: 2_500, local_every: 16, ..small() };
    let usual = study.run(2, &CONSTANTS).unwrap();
    let dear = study.run(2, &Constants { audit_ns: 20_000_000, ..CONSTANTS }).unwrap();
    assert!(keeps_up(&usual) && usual.busiest_node < 0.9, "{usual:?}");
    assert!(!keeps_up(&dear) && dear.busiest_node > 0.9, "{dear:?}");
    assert!(dear.beacon.headers_per_shard_s < dear.blocks_per_shard_s / 2.0, "{dear:?}");
    assert!(dear.per_s > 0.9 * usual.per_s, "payments do not wait for the audit: {dear:?}");
}

#[test]
fn the_load_of_the_beacon_is_compared() {
    let study = Study { shards: 16, nodes: 64, accounts: 4, clients: 4, measure_ms: 400, local_every: 16, ..small() };
    let rows: Vec<Row> = [4, 8, 16].map(|shards| study.run(shards, &CONSTANTS).unwrap()).into();
    assert!(rows.iter().all(|row| row.beacon.audit_cpu_ms_per_s > 0.0), "{rows:?}");
    assert_eq!(beacon_spread(&rows[..2]), None, "only one has 8 shards");
    let spread = beacon_spread(&rows).unwrap();
    assert!((1.0..3.0).contains(&spread), "{spread}: {rows:?}");
    // Each shard has twice as many streams among twice as many shards, and shows them half as often: it costs no more.
    let many = Constants { audit_stream_ns: 300_000, ..CONSTANTS };
    let dear = [8, 16].map(|shards| study.run(shards, &many).unwrap());
    let growth = |of: &[Row]| of[1].beacon.cpu_ms_per_shard_s / of[0].beacon.cpu_ms_per_shard_s;
    assert!(growth(&dear) < 1.2 * growth(&rows[1..]), "{dear:?}");
    assert!(dear[1].beacon.audit_cpu_ms_per_s > 1.5 * rows[2].beacon.audit_cpu_ms_per_s, "it costs: {dear:?}");
}

#[test]
fn a_seed_decides_everything_and_threads_nothing() {
    let study = Study { measure_ms: 100, ..small() };
    let first = study.run(4, &CONSTANTS).unwrap();
    for threads in [1, 3, 64] {
        assert_eq!(Study { threads, ..study.clone() }.run(4, &CONSTANTS).unwrap(), first);
    }
    let other = Study { seed: 4, ..study.clone() }.run(4, &CONSTANTS).unwrap();
    assert_ne!(other.digest, first.digest);
    let dearer = Constants { verify_ns: 400_000, ..CONSTANTS };
    assert!(study.run(4, &dearer).unwrap().per_s < first.per_s, "constants count");
}

#[test]
fn processors_bound_what_is_done() {
    let study = Study { shards: 1, clients: 64, measure_ms: 300, verify: VerifyMode::Ingest, ..small() };
    let slow = Study { cores_milli: 100, ..study.clone() }.run(1, &CONSTANTS).unwrap();
    let fast = study.run(1, &CONSTANTS).unwrap();
    // A payment takes 73 microseconds of a leader: a tenth of a core does fewer than 1,370 of them a second.
    assert!(slow.per_s < 1_370.0 && slow.busiest_node > 0.9, "{slow:?}");
    assert!(fast.per_s > 3.0 * slow.per_s, "{fast:?}");
}

/// With the seed and the constants the same, what is said of time is the same, down to each draw: only the state differs,
/// and with it the headers.
#[test]
fn payments_that_are_only_counted_change_nothing_but_balances() {
    for verify in [VerifyMode::Every, VerifyMode::Ingest] {
        let study = Study { verify, measure_ms: 300, ..small() };
        for shards in [1, 4] {
            let all = study.run(shards, &CONSTANTS).unwrap();
            assert!(all.payments > 0);
            for local_every in [2, 16, u32::MAX] {
                let some = Study { local_every, ..study.clone() }.run(shards, &CONSTANTS).unwrap();
                assert_ne!(some.digest, all.digest, "{shards} shards, one of {local_every}");
                assert_eq!(Row { digest: all.digest.clone(), ..some }, all, "{shards} shards, one of {local_every}");
            }
        }
    }
}

#[test]
fn of_those_that_are_only_counted_nothing_is_executed_or_kept() {
    let study = Study { local_every: u32::MAX, measure_ms: 200, drain_ms: 1_000, ..small() };
    let (row, finished) = study.play(4, &CONSTANTS, true, &mut |_| ()).unwrap();
    let executed: usize = finished.groups.iter().map(|group| group.executed.len()).sum();
    let paid: u64 = finished.groups.iter().map(|group| group.paid).sum();
    assert!(executed as u64 >= row.crossing && row.crossing > 0, "all that cross are: {executed}, {row:?}");
    assert!(paid > 3 * executed as u64 && paid >= row.payments, "and no others: {paid}, {executed}");
    for group in &finished.groups {
        assert_eq!(group.under_way(), 0, "{}: all that was sent has come to its end", group.id);
        let receipts = group.state.keys().filter(|key| key.first() == Some(&schema::RECEIPT)).count();
        assert_eq!(receipts, 0, "{}: nobody pays twice", group.id);
    }
}

#[test]
fn whoever_watches_sees_the_time_pass() {
    let study = Study { measure_ms: 50, ..small() };
    let mut seen: Vec<Progress> = Vec::new();
    let watched = study.run_watched(2, &CONSTANTS, &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(watched, study.run(2, &CONSTANTS).unwrap());
    assert!(seen.windows(2).all(|pair| pair[0].modelled_ms <= pair[1].modelled_ms));
    assert!(seen.windows(2).all(|pair| pair[0].payments <= pair[1].payments));
    let last = seen.last().unwrap();
    assert_eq!(last.modelled_ms, last.whole_ms);
    assert!(last.payments >= watched.payments && watched.payments > 0, "{last:?}, {watched:?}");
}

/// The balances of all accounts, by what one group that owns all of them comes to with these payments.
fn alone(finished: &Finished, payments: &[Bytes]) -> Vec<Vec<(ledger::AssetId, Balance)>> {
    let directory = &finished.directory;
    let mut group = undivided(directory).unwrap();
    let constants = GroupConstants { cluster: directory.cluster, group: GroupId::shard(0), verify: VerifyMode::Ingest };
    for (at, some) in (1..).zip(payments.chunks(100)) {
        let commands = some.iter().map(|bytes| Command::Tx(bytes.to_vec())).collect();
        let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(CREATED_MS + at), commands };
        let (payload, log) = (Bytes::from(entry.encode()), AppliedState::default());
        let block = execute(&group.state, &mut group.tree, &constants, &group.applied, log, &payload);
        let block = block.expect("it is executed").block().expect("a block");
        assert_eq!(block.receipts.len(), some.len());
        assert!(block.receipts.iter().all(|receipt| receipt.outcome == Outcome::Committed { mail: Vec::new() }));
        for (key, value) in block.writes {
            match value {
                Some(value) => group.state.insert(key, value),
                None => group.state.remove(&key),
            };
        }
        group.applied = block.applied;
    }
    let balances = |account: &cluster::Account| {
        let bytes = &group.state[&schema::account(&account.address)];
        borsh::from_slice::<AccountRecord>(bytes).unwrap().balances
    };
    directory.accounts.iter().flatten().map(balances).collect()
}

#[test]
fn shards_come_to_what_one_group_would_come_to() {
    let study = Study { measure_ms: 200, drain_ms: 1_000, ..small() };
    let (row, finished) = study.play(4, &CONSTANTS, true, &mut |_| ()).unwrap();
    assert!(row.crossing > 0);
    let mut payments = Vec::new();
    for group in &finished.groups {
        assert_eq!(group.under_way(), 0, "{}: all that was sent has come to its end", group.id);
        assert_eq!(finished.under_way(group), Ok(0), "{}", group.id);
        payments.extend(group.executed.iter().cloned());
    }
    assert!(payments.len() as u64 >= row.payments);
    let mut sharded = Vec::new();
    for group in finished.groups.iter().filter(|group| group.id != GroupId::BEACON) {
        for account in finished.directory.accounts_of(group.id) {
            let record: AccountRecord = value(group, &schema::account(&account.address)).unwrap().unwrap();
            sharded.push(record.balances);
        }
    }
    let expected = alone(&finished, &payments);
    assert_eq!(sharded, expected);
    let untouched = expected.iter().filter(|balances| balances[0].1.posted == BALANCE).count();
    assert!(untouched < expected.len() / 4, "and much has moved: {untouched}");
}

#[test]
fn among_many_shards_mail_waits_and_comes() {
    let study = Study { shards: 20, nodes: 60, accounts: 4, clients: 8, measure_ms: 200, drain_ms: 2_000, ..small() };
    let (row, finished) = study.play(20, &CONSTANTS, false, &mut |_| ()).unwrap();
    assert_eq!((row.refused, row.ignored), (0, 0), "{row:?}");
    assert!(row.crossing > 100, "{row:?}");
    let wait_ms = credits_wait_ms(21) as f64;
    assert!(wait_ms > 0.0 && row.applied_ms.p50 > row.receipt_ms.p50, "{row:?}");
    for group in &finished.groups {
        assert_eq!(group.under_way(), 0, "{}: all that was sent has come to its end", group.id);
        assert_eq!(finished.under_way(group), Ok(0), "{}", group.id);
    }
}

#[test]
fn value_that_is_missing_is_noticed() {
    let (_, mut finished) = Study { measure_ms: 50, ..small() }.play(2, &CONSTANTS, false, &mut |_| ()).unwrap();
    assert_eq!(finished.check_value(), Ok(()));
    let address = finished.directory.accounts[1][0].address;
    let asset = finished.directory.asset.id;
    let shard = finished.groups.iter_mut().find(|group| group.id == GroupId::shard(1)).unwrap();
    let mut record: AccountRecord = value(shard, &schema::account(&address)).unwrap().unwrap();
    record.balances[0].1.posted += 1;
    shard.state.insert(schema::account(&address), cluster::encoded(&record));
    assert!(finished.check_value().is_err(), "an account has more than its shard counts");
    let shard = finished.groups.iter_mut().find(|group| group.id == GroupId::shard(1)).unwrap();
    let total: u128 = value(shard, &schema::total(&asset)).unwrap().unwrap();
    shard.state.insert(schema::total(&asset), cluster::encoded(&(total + 1)));
    assert!(finished.check_value().is_err(), "all together have more than there was");
}

#[test]
fn what_is_compared() {
    let study = small();
    assert_eq!(Study { shards: 512, ..study.clone() }.steps(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    assert_eq!(Study { shards: 6, ..study.clone() }.steps(), [1, 2, 4, 6]);
    assert_eq!(Study { shards: 1, ..study.clone() }.steps(), [1]);
    assert_eq!([1, 2, 4].map(|shards| study.nodes_for(shards)), [3, 6, 12]);
    assert_eq!(Study { nodes: 4, ..study.clone() }.nodes_for(1), 3, "one group has its members");
    for wrong in [
        Study { cores_milli: 0, ..study.clone() },
        Study { measure_ms: 0, ..study.clone() },
        Study { replicas: 0, ..study.clone() },
        Study { nodes: 5_000, ..study.clone() },
        Study { zipf: -1.0, ..study.clone() },
        Study { local_every: 0, ..study.clone() },
        Study { accounts: 0, ..study.clone() },
    ] {
        assert!(wrong.run(4, &CONSTANTS).is_err(), "{wrong:?}");
    }
}

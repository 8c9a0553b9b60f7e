//! `sim --scale`: the same load on clusters of more and more shards, in modelled time. `steps` runs them and prints each
//! as soon as it is done; the rest comes when all are.

use std::path::PathBuf;
use std::time::Instant;

use cluster_sim::scale::{Constants, Latencies, Row, SPREAD_SHARDS_MIN, Study, beacon_spread, keeps_up};
use serde::Serialize;

use super::{chart, steps};
use crate::args::Sim;
use crate::cluster::verify_name;
use crate::commands::bench::constants;
use crate::error::CliError;
use crate::output::{Output, grouped, rounded, table};

/// What a study came to, with all that it went by.
#[derive(Serialize)]
struct Report {
    /// Nodes of the largest cluster.
    nodes: u32,
    /// Its shards.
    shards: u32,
    replicas: u16,
    cross_pct: u8,
    zipf: f64,
    local_every: u32,
    accounts: u32,
    clients: u32,
    cores: f64,
    verify: &'static str,
    warm_up_ms: u64,
    measure_ms: u64,
    seed: u64,
    latencies: Latencies,
    constants: Constants,
    /// One for each cluster, the smallest first.
    rows: Vec<Row>,
    /// How constant the beacon's load for each shard is, where there are clusters to compare.
    beacon_spread: Option<f64>,
    /// How long it took, by the clock of the wall.
    real_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    svg: Option<PathBuf>,
}

pub(super) fn run(args: &Sim, output: Output) -> Result<(), CliError> {
    let study = study(args)?;
    let constants = match &args.study.constants {
        Some(file) => constants::read(file)?,
        None => constants::measured()?,
    };
    let start = Instant::now();
    let rows = steps::run(&study, &constants, output)?;
    let report = Report {
        nodes: study.nodes,
        shards: study.shards,
        replicas: study.replicas,
        cross_pct: study.cross_pct,
        zipf: study.zipf,
        local_every: study.local_every,
        accounts: study.accounts,
        clients: study.clients,
        cores: study.cores_milli as f64 / 1_000.0,
        verify: verify_name(study.verify),
        warm_up_ms: study.warm_up_ms,
        measure_ms: study.measure_ms,
        seed: study.seed,
        latencies: study.latencies,
        constants,
        real_seconds: rounded(start.elapsed().as_secs_f64()),
        beacon_spread: beacon_spread(&rows),
        rows,
        svg: args.study.svg.clone(),
    };
    if let Some(file) = &args.study.svg {
        let drawn = chart::svg(&report.rows).map_err(|cause| {
            CliError::new("scale_chart", cause, "leave --svg out, and report this with the numbers of --json")
        })?;
        std::fs::write(file, drawn).map_err(|error| CliError::file(file, &error))?;
    }
    output.result(&report, || text(&report))?;
    judged(&report, args.study.efficiency_at_least, args.study.beacon_spread_at_most)
}

/// What is to be studied.
fn study(args: &Sim) -> Result<Study, CliError> {
    let (asked, usual) = (&args.study, Study::default());
    let cores_milli = asked.cores * 1_000.0;
    if !(1.0..=1_000_000.0).contains(&cores_milli) {
        let cause = format!("a node cannot have {} cores", asked.cores);
        return Err(CliError::usage("scale_cores", cause, "use --cores from 0.001 to 1000"));
    }
    if !asked.zipf.is_finite() || asked.zipf < 0.0 {
        let cause = format!("{} is no skew", asked.zipf);
        return Err(CliError::usage("scale_zipf", cause, "use --zipf 0, for none, or more"));
    }
    if asked.beacon_spread_at_most.is_some() && args.shards.unwrap_or(usual.shards) <= SPREAD_SHARDS_MIN {
        let cause = format!("the beacon's load is compared among clusters with {SPREAD_SHARDS_MIN} shards and more");
        return Err(CliError::usage("scale_spread", cause, "use --shards 9 or more, or no --beacon-spread-at-most"));
    }
    Ok(Study {
        shards: args.shards.unwrap_or(usual.shards),
        nodes: args.nodes.unwrap_or(usual.nodes),
        replicas: args.replicas.unwrap_or(usual.replicas),
        cross_pct: asked.cross,
        zipf: asked.zipf,
        local_every: asked.local_every,
        accounts: asked.accounts,
        clients: asked.clients,
        cores_milli: cores_milli as u64,
        verify: asked.verify.into(),
        latencies: Latencies { hop_us: asked.hop_us, fsync_us: asked.fsync_us, ..usual.latencies },
        warm_up_ms: asked.warm_up_ms,
        measure_ms: asked.measure_ms,
        seed: args.seed.unwrap_or(usual.seed),
        ..usual
    })
}

fn judged(report: &Report, efficiency: Option<f64>, spread: Option<f64>) -> Result<(), CliError> {
    if let (Some(asked), Some(row)) = (efficiency, report.rows.last())
        && row.efficiency < asked
    {
        let (shards, reached) = (row.shards, row.efficiency);
        let cause = format!("with {shards} shards the efficiency is {reached}, and at least {asked} was asked for");
        let fix = "leader_cpu_us of the JSON tells what leaders were busy with; docs/scale.md explains it";
        return Err(CliError::new("scale_floor", cause, fix).after_report());
    }
    let Some(asked) = spread else { return Ok(()) };
    let fix = "beacon of each row of the JSON tells what it was busy with; docs/scale.md explains it";
    let behind = report.rows.iter().find(|row| row.shards >= SPREAD_SHARDS_MIN && !keeps_up(row));
    let cause = match (behind, report.beacon_spread) {
        (Some(row), _) => {
            let (shards, blocks) = (row.shards, row.beacon.behind_blocks);
            format!("with {shards} shards the beacon does not keep up: {blocks} blocks of a shard wait for the audit")
        }
        (None, Some(found)) if found <= asked => return Ok(()),
        (None, Some(found)) => format!(
            "the beacon's processor time for each shard differs by a factor of {found}, and at most {asked} was asked for"
        ),
        (None, None) => "the beacon did nothing in one of the clusters".to_owned(),
    };
    Err(CliError::new("scale_beacon", cause, fix).after_report())
}

/// What follows on the rows, which have been printed.
fn text(report: &Report) -> String {
    let whole = |number: f64| grouped(number.round() as u128);
    let beacon = report.rows.iter().map(|row| {
        let beacon = &row.beacon;
        [
            row.shards.to_string(),
            whole(beacon.commands_per_s),
            whole(beacon.bytes_per_s),
            format!("{:.1}", beacon.cpu_ms_per_s),
            format!("{:.1}", beacon.audit_cpu_ms_per_s),
            format!("{:.3}", beacon.commands_per_shard_s),
            whole(beacon.bytes_per_shard_s),
            format!("{:.3}", beacon.cpu_ms_per_shard_s),
            format!("{:.1} of {:.1}", beacon.headers_per_shard_s, row.blocks_per_shard_s),
            beacon.behind_blocks.to_string(),
        ]
    });
    let beacon = table(
        [
            "shards",
            "commands/s",
            "bytes/s",
            "CPU ms/s",
            "of it audit",
            "commands/s a shard",
            "bytes/s a shard",
            "CPU ms/s a shard",
            "blocks/s audited",
            "behind",
        ],
        beacon,
    );
    let leaders = report.rows.iter().map(|row| {
        let cpu = &row.leader_cpu_us;
        let parts =
            [cpu.all, cpu.ingest, cpu.execute, cpu.streams, cpu.mail, cpu.acks, cpu.pulls, cpu.certify, cpu.order]
                .map(|us| format!("{us:.1}"));
        let [all, ingest, execute, streams, mail, acks, pulls, certify, order] = parts;
        let audit = format!("{:.1}", cpu.audit);
        [row.shards.to_string(), all, ingest, execute, streams, mail, acks, pulls, certify, order, audit]
    });
    let leaders = table(
        ["shards", "all", "ingest", "execute", "streams", "mail", "acks", "pulls", "certify", "order", "audit"],
        leaders,
    );
    let spread = report.beacon_spread.map_or_else(String::new, |spread| {
        format!("CPU a shard, largest over smallest from {SPREAD_SHARDS_MIN} shards on: {spread}\n")
    });
    format!(
        "load of the beacon\n{beacon}\n{spread}\nmicroseconds of a leader's processor for each payment\n{leaders}\nconstants\n{}\n{:.0} s",
        constants::text(&report.constants),
        report.real_seconds,
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    /// Of no machine in particular.
    const CONSTANTS: &str = r#"{"route_ns":3000,"verify_ns":40000,"execute_ns":30000,"tree_ns":5000,"block_ns":20000,
        "stream_ns":700,"head_ns":2000,"credit_ns":10000,"sign_ns":50000,"check_ns":30000,"certificate_ns":3000,"message_ns":3000,"path_ns":300,"audit_ns":9000,"audit_stream_ns":4000}"#;

    fn parsed(line: &str) -> Sim {
        let cli = Cli::try_parse_from(std::iter::once("seamark").chain(line.split_whitespace())).unwrap();
        match cli.command {
            Command::Sim(sim) => sim,
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn what_is_not_said_is_as_in_the_documentation() {
        let asked = study(&parsed("sim --scale")).unwrap();
        assert_eq!(asked, Study::default());
        let other = study(&parsed(
            "sim --scale --nodes 64 --shards 8 --cross 3 --zipf 0.5 --cores 0.25 --local-every 4 --seed 9",
        ))
        .unwrap();
        let Study { nodes, shards, cross_pct, zipf, cores_milli, local_every, seed, .. } = other;
        assert_eq!((nodes, shards, cross_pct, zipf, cores_milli, local_every, seed), (64, 8, 3, 0.5, 250, 4, 9));
        for (wrong, code) in [
            ("sim --scale --cores 0", "scale_cores"),
            ("sim --scale --cores nan", "scale_cores"),
            ("sim --scale --zipf -1", "scale_zipf"),
            ("sim --scale --zipf inf", "scale_zipf"),
            ("sim --scale --shards 8 --beacon-spread-at-most 2", "scale_spread"),
        ] {
            let args = wrong.replace("zipf -1", "zipf=-1");
            assert_eq!(study(&parsed(&args)).unwrap_err().code, code, "{wrong}");
        }
    }

    #[test]
    fn a_small_study_as_table_json_and_chart() {
        let study =
            Study { shards: 2, nodes: 6, replicas: 3, accounts: 8, clients: 4, measure_ms: 50, ..Study::default() };
        let constants: Constants = serde_json::from_str(CONSTANTS).unwrap();
        let rows: Vec<Row> = study
            .steps()
            .into_iter()
            .map(|shards| study.run(shards, &constants).unwrap())
            .scan(None, |one: &mut Option<Row>, mut row| {
                let first = one.get_or_insert_with(|| row.clone()).clone();
                row.compare(&first);
                Some(row)
            })
            .collect();
        let report = Report {
            nodes: 6,
            shards: 2,
            replicas: 3,
            cross_pct: 10,
            zipf: 1.0,
            local_every: 16,
            accounts: 8,
            clients: 4,
            cores: 1.0,
            verify: "every",
            warm_up_ms: 100,
            measure_ms: 50,
            seed: 1,
            latencies: Latencies::default(),
            constants,
            beacon_spread: beacon_spread(&rows),
            rows,
            real_seconds: 0.5,
            svg: None,
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 2);
        assert_eq!(json["rows"][0]["efficiency"], 1.0);
        for field in
            ["payments", "per_s", "receipt_ms", "applied_ms", "beacon", "messages_per_payment", "leader_cpu_us"]
        {
            assert!(json["rows"][1].get(field).is_some(), "no {field}");
        }
        for quantile in ["p50", "p90", "p99"] {
            assert!(json["rows"][1]["receipt_ms"][quantile].as_f64().unwrap() > 0.0);
        }
        assert_eq!(json["constants"]["verify_ns"], 40_000);
        let printed = text(&report);
        assert!(printed.contains("load of the beacon") && printed.contains("a leader's processor"), "{printed}");
        assert!(printed.contains("decode and verify it") && printed.contains("audit a header"), "{printed}");
        assert!(json["beacon_spread"].is_null() && !printed.contains("largest over smallest"), "{printed}");
        let drawn = chart::svg(&report.rows).unwrap();
        assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
        assert!(drawn.contains("Efficiency"), "{drawn}");
        assert_eq!(judged(&report, None, None).map_err(|error| error.code), Ok(()));
        assert_eq!(judged(&report, Some(99.0), None).map_err(|error| error.code), Err("scale_floor".to_owned()));
        spread_is_judged(report);
    }

    /// Of rows with 8 shards and more, whatever the others say.
    fn spread_is_judged(mut report: Report) {
        let rows = [(4, 9.0), (8, 0.5), (16, 0.4), (32, 0.6)].map(|(shards, cpu_ms_per_shard_s)| {
            let mut row = Row { shards, efficiency: 1.0, ..Row::default() };
            row.beacon.cpu_ms_per_shard_s = cpu_ms_per_shard_s;
            row
        });
        report.rows = rows.to_vec();
        report.beacon_spread = beacon_spread(&report.rows);
        let judge = |report: &Report, at_most| judged(report, Some(0.9), Some(at_most)).map_err(|error| error.code);
        assert_eq!(serde_json::to_value(&report).unwrap()["beacon_spread"], 1.5);
        assert!(text(&report).contains("largest over smallest from 8 shards on: 1.5"));
        assert_eq!(judge(&report, 1.5), Ok(()));
        assert_eq!(judge(&report, 1.4), Err("scale_beacon".to_owned()));
        // A beacon that has come to its end does no more for twice as many shards: that is not constant.
        report.rows[3].beacon.behind_blocks = 257;
        assert_eq!(judge(&report, 1.5), Err("scale_beacon".to_owned()));
    }
}

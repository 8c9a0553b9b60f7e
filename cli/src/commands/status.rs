//! `status`: every group on every node, who is accused of voting twice, and what is wrong.

use std::time::{Duration, Instant};

use client::Consistency;
use serde::Serialize;

use super::accused::{self, AccusedLine, accused, accused_table};
use super::context::Context;
use super::show::groups_table;
use crate::args::Status;
use crate::error::CliError;
use crate::health::{GroupLine, ahead, groups, problems};
use crate::load::agree::committees;
use crate::output::{Output, rounded, table};

/// Longest measurement of the rate.
const MEASURE_MS_MAX: u64 = 60_000;
/// How long the beacon may take to say who is accused.
const ACCUSED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Report {
    cluster: String,
    healthy: bool,
    problems: Vec<String>,
    tps: f64,
    groups: Vec<Group>,
    nodes: Vec<Node>,
    /// Who is accused of voting twice, whether it still has a seat or not.
    accused: Vec<AccusedLine>,
}

#[derive(Serialize)]
struct Group {
    #[serde(flatten)]
    line: GroupLine,
    tps: f64,
}

#[derive(Serialize)]
struct Node {
    node: u32,
    reachable: bool,
    version: String,
    uptime_ms: u64,
    clock_offset_ms: i64,
    alarms: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

pub(super) async fn run(args: Status, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let client = context.client().await?;
    let committees = committees(&client).await?;
    let first = client.status().await?;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(args.measure_ms.min(MEASURE_MS_MAX))).await;
    let status = client.status().await?;
    let seconds = since.elapsed().as_secs_f64();
    let before = groups(&first, &committees);
    let after = groups(&status, &committees);
    let lines = after.into_iter().zip(&before).map(|(line, before)| {
        let executed = line.transactions.saturating_sub(before.transactions);
        Group { tps: rounded(executed as f64 / seconds.max(0.001)), line }
    });
    let lines: Vec<Group> = lines.collect();
    let mut problems = problems(&status, &committees);
    problems.extend(ahead(&first, &status, &committees));
    // From any replica, so that it is told without a quorum, too.
    let asked = tokio::time::timeout(ACCUSED_WITHIN, accused(&client, Consistency::Stale)).await;
    let accused = match asked.map_err(|_| "it does not answer".to_owned()) {
        Ok(Ok(accused)) => accused,
        Ok(Err(CliError { cause, .. })) | Err(cause) => {
            problems.push(format!("the beacon does not say who is accused of voting twice: {cause}"));
            Vec::new()
        }
    };
    problems.extend(accused::problems(&accused));
    let report = Report {
        cluster: client.cluster_id().to_string(),
        healthy: problems.is_empty(),
        tps: rounded(lines.iter().map(|group| group.tps).sum()),
        problems,
        groups: lines,
        nodes: nodes(&status),
        accused,
    };
    output.result(&report, || text(&report))?;
    if args.check && !report.healthy {
        let cause = report.problems.join("; ");
        return Err(
            CliError::new("unhealthy", cause, "mend what is named; the logs of the nodes say more").after_report()
        );
    }
    Ok(())
}

fn nodes(status: &proto::v1::StatusReply) -> Vec<Node> {
    let answering = status.nodes.iter().map(|node| Node {
        node: node.node,
        reachable: true,
        version: node.version.clone(),
        uptime_ms: node.uptime_ms,
        clock_offset_ms: node.clock_offset_ms,
        alarms: node.alarms.clone(),
        error: String::new(),
    });
    let silent = status.unreachable.iter().map(|node| Node {
        node: node.node,
        reachable: false,
        version: String::new(),
        uptime_ms: 0,
        clock_offset_ms: 0,
        alarms: Vec::new(),
        error: node.error.clone(),
    });
    let mut nodes: Vec<Node> = answering.chain(silent).collect();
    nodes.sort_by_key(|node| node.node);
    nodes
}

fn text(report: &Report) -> String {
    let tps: Vec<f64> = report.groups.iter().map(|group| group.tps).collect();
    let lines: Vec<&GroupLine> = report.groups.iter().map(|group| &group.line).collect();
    let nodes = report.nodes.iter().map(|node| {
        let state = if node.reachable { "runs".to_owned() } else { format!("does not answer: {}", node.error) };
        let told = |text: String| if node.reachable { text } else { "-".to_owned() };
        let uptime = told(format!("{} s", node.uptime_ms / 1000));
        let clock = told(format!("{} ms", node.clock_offset_ms));
        [format!("node-{}", node.node), state, uptime, clock, told(node.version.clone())]
    });
    let verdict = if report.healthy {
        "everything is well".to_owned()
    } else {
        let count = report.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        format!("{count} {noun}:\n  - {}", report.problems.join("\n  - "))
    };
    let accused = accused_table(&report.accused).map(|table| format!("{table}\n")).unwrap_or_default();
    format!(
        "cluster {}\n{}\n{}\n{accused}{verdict}",
        report.cluster,
        groups_table(&lines, Some(&tps)),
        table(["node", "state", "up for", "clock off by", "version"], nodes)
    )
}

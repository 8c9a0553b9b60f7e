//! The report of `replay` and `demo` for people.

use std::collections::BTreeMap;

use super::show::groups_table;
use crate::health::GroupLine;
use crate::load::Phase;
use crate::load::replay::Report;
use crate::output::{facts as facts_of, grouped, table};

/// Malformed lines that are shown.
const MALFORMED_SHOWN: usize = 10;

/// The whole report; `title` says what was replayed.
pub(super) fn text(title: &str, report: &Report) -> String {
    let groups: Vec<&GroupLine> = report.groups.iter().collect();
    let mut text =
        format!("{title}\n\n{}\n\n{}\n{}", facts(report), groups_table(&groups, None), phases(&report.phases));
    if report.malformed > 0 {
        text.push_str(&format!("\n{} lines could not be understood:", report.malformed));
        for line in report.malformed_lines.iter().take(MALFORMED_SHOWN) {
            text.push_str(&format!("\n  {}, line {}: {}", line.file, line.line, line.reason));
        }
    }
    text.push_str(&refusals(&report.rejections));
    for problem in &report.problems {
        text.push_str(&format!("\nPROBLEM: {problem}"));
    }
    text.push_str(&format!("\n\n{}", verdict(report)));
    text
}

/// A line for each code that payments were refused with, each behind a line break.
pub(super) fn refusals(refused: &BTreeMap<String, u64>) -> String {
    refused.iter().fold(String::new(), |text, (code, count)| {
        format!("{text}\n{} payments were refused: {code}", grouped((*count).into()))
    })
}

fn facts(report: &Report) -> String {
    let share = if report.committed > 0 { report.cross_shard as f64 * 100.0 / report.committed as f64 } else { 0.0 };
    let count = |number: u64| grouped(number.into());
    let rows = [
        (
            "transfers",
            format!(
                "{} between {} accounts ({} rows skipped)",
                count(report.transfers),
                count(report.accounts),
                count(report.skipped)
            ),
        ),
        ("settled", format!("{} committed, {} rejected", count(report.committed), count(report.rejected))),
        ("shards", format!("{} with {} replicas each", report.shards, report.replicas)),
        ("crossed shards", format!("{} ({share:.0} %)", count(report.cross_shard))),
        ("rate", format!("{} payments a second for {:.2} s", grouped(report.tps.round() as u128), report.seconds)),
        (
            "latency",
            format!("half within {:.1} ms, 99 of 100 within {:.1} ms", report.latency_ms.p50, report.latency_ms.p99),
        ),
        ("supply", supply(report)),
        ("final state", format!("sha256 {}", report.state_sha256)),
        (
            "replicas",
            if report.replicas_agree {
                "all agree: same header and state root at the same height".to_owned()
            } else {
                "DO NOT AGREE".to_owned()
            },
        ),
    ];
    facts_of(rows)
}

fn supply(report: &Report) -> String {
    let number = |text: &str| text.parse().map_or_else(|_| text.to_owned(), grouped);
    if report.conserved {
        format!("{} before and after: conserved", number(&report.supply_before))
    } else {
        format!("{} before, {} after: NOT CONSERVED", number(&report.supply_before), number(&report.supply_after))
    }
}

/// Where the time went.
pub(super) fn phases(phases: &[Phase]) -> String {
    let all: f64 = phases.iter().map(|phase| phase.seconds).sum();
    let share = |seconds: f64| {
        if all > 0.0 { seconds * 100.0 / all } else { 0.0 }
    };
    let rows = phases.iter().map(|phase| {
        [phase.name.to_owned(), format!("{:.2} s", phase.seconds), format!("{:.0} %", share(phase.seconds))]
    });
    table(["where the time went", "", ""], rows)
}

fn verdict(report: &Report) -> String {
    match (report.check(), report.matches_sequential) {
        (Ok(()), true) => "Every balance is what sequential execution gives, nothing was lost or created, and every replica agrees.".to_owned(),
        (Ok(()), false) => "Nothing was lost or created and every replica agrees; the final state differs from sequential execution in this order.".to_owned(),
        (Err(error), _) => format!("NOT AS IT SHOULD BE: {}", error.cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::replay::tests::example;

    #[test]
    fn the_report_says_what_matters() {
        let good = text("Title", &example());
        for part in [
            "Title",
            "3 committed, 0 rejected",
            "4 with 3 replicas",
            "2 (67 %)",
            "conserved",
            "all agree",
            "where the time went",
            "Every balance",
        ] {
            assert!(good.contains(part), "{part} in\n{good}");
        }
        let bad = text("Title", &Report { conserved: false, problems: vec!["node 3 is gone".to_owned()], ..example() });
        for part in ["NOT CONSERVED", "PROBLEM: node 3 is gone", "NOT AS IT SHOULD BE"] {
            assert!(bad.contains(part), "{part} in\n{bad}");
        }
    }
}

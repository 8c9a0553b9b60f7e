//! The clusters of a scale study, one after the other: how far each has come while it runs, and its row as soon as it is
//! done. So a study that is cut short has told what it had.

use std::time::{Duration, Instant};

use cluster_sim::scale::{Constants, Progress, Row, Study};
use indicatif::ProgressBar;

use crate::cluster::verify_name;
use crate::error::CliError;
use crate::output::{Output, grouped};

/// A bar moves this often.
const MOVES_EVERY: Duration = Duration::from_millis(100);
/// Where no terminal shows it, a line of how far it is comes this often.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Columns of the rows, each with its width.
const COLUMNS: [(&str, usize); 9] = [
    ("shards", 6),
    ("nodes", 5),
    ("payments/s", 11),
    ("efficiency", 10),
    ("receipt p50/p90/p99 ms", 24),
    ("applied p50/p90/p99 ms", 26),
    ("messages/payment", 16),
    ("of it mail", 10),
    ("busiest node", 12),
];

/// Runs all clusters of a study, and compares each with the first.
///
/// # Errors
/// `scale_run` when there is no such cluster, or something is wrong in one.
pub(super) fn run(study: &Study, constants: &Constants, output: Output) -> Result<Vec<Row>, CliError> {
    output.part(head(study));
    output.part(aligned(COLUMNS.map(|(name, _)| name.to_owned())));
    let mut rows: Vec<Row> = Vec::new();
    for shards in study.steps() {
        let mut step = Step::begun(shards, output);
        let ran = tokio::task::block_in_place(|| study.run_watched(shards, constants, &mut |seen| step.goes_on(seen)));
        step.bar.finish_and_clear();
        let mut row = ran.map_err(|cause| {
            let cause = format!("{shards} shards: {cause}");
            CliError::new(
                "scale_run",
                cause,
                "use other --nodes, --replicas or --shards; if it says nothing of these, report it",
            )
        })?;
        let one = rows.first().cloned().unwrap_or_else(|| row.clone());
        row.compare(&one);
        output.remark(step.done(&row));
        output.part(aligned(cells(&row)));
        rows.push(row);
    }
    Ok(rows)
}

/// One cluster while it runs.
struct Step {
    shards: u32,
    output: Output,
    bar: ProgressBar,
    begun: Instant,
    moved: Instant,
    told: Instant,
    seen: Progress,
}

impl Step {
    fn begun(shards: u32, output: Output) -> Self {
        let (bar, now) = (output.bar(0, format!("{shards} shards")), Instant::now());
        let seen = Progress { modelled_ms: 0, whole_ms: 0, payments: 0 };
        Self { shards, output, bar, begun: now, moved: now, told: now, seen }
    }

    fn goes_on(&mut self, seen: Progress) {
        self.seen = seen;
        let now = Instant::now();
        if now.duration_since(self.moved) < MOVES_EVERY {
            return;
        }
        self.moved = now;
        self.bar.set_length(seen.whole_ms);
        self.bar.set_position(seen.modelled_ms);
        self.bar.set_message(format!("{} shards, {} paid", self.shards, grouped(seen.payments.into())));
        if self.bar.is_hidden() && now.duration_since(self.told) >= TOLD_EVERY {
            self.told = now;
            let whole = seen.whole_ms as f64 / 1_000.0;
            self.output.remark(format!("{} of {whole:.1} s", self.so_far()));
        }
    }

    /// What it has come to, and what that took.
    fn so_far(&self) -> String {
        format!(
            "{} shards: {} payments in {:.1} s; modelled: {:.1}",
            self.shards,
            grouped(self.seen.payments.into()),
            self.begun.elapsed().as_secs_f64(),
            self.seen.modelled_ms as f64 / 1_000.0,
        )
    }

    fn done(&self, row: &Row) -> String {
        let rate = grouped(row.per_s.round() as u128);
        format!("{} s, {rate} payments/s, efficiency {:.3}", self.so_far(), row.efficiency)
    }
}

/// What is studied.
fn head(study: &Study) -> String {
    let executed = match study.local_every {
        1 => "all executed".to_owned(),
        every => format!("of the others one of {every} executed"),
    };
    format!(
        "{} % of payments to another shard, {executed}, skew {}; {} replicas, {} cores a node, verify = {}, {} clients a shard; {} + {} ms, seed {}",
        study.cross_pct,
        study.zipf,
        study.replicas,
        study.cores_milli as f64 / 1_000.0,
        verify_name(study.verify),
        study.clients,
        study.warm_up_ms,
        study.measure_ms,
        study.seed,
    )
}

fn cells(row: &Row) -> [String; 9] {
    let (receipt, applied) = (row.receipt_ms, row.applied_ms);
    [
        row.shards.to_string(),
        row.nodes.to_string(),
        grouped(row.per_s.round() as u128),
        format!("{:.3}", row.efficiency),
        format!("{:.1} / {:.1} / {:.1}", receipt.p50, receipt.p90, receipt.p99),
        format!("{:.1} / {:.1} / {:.1}", applied.p50, applied.p90, applied.p99),
        format!("{:.2}", row.messages_per_payment.all),
        format!("{:.2}", row.messages_per_payment.mail),
        format!("{:.2}", row.busiest_node),
    ]
}

/// A line of the table, which is printed before the next one is known.
fn aligned(cells: [String; 9]) -> String {
    let columns: Vec<String> = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$}")).collect();
    columns.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_their_heads() {
        let row = Row { shards: 512, nodes: 4_096, per_s: 8_123_456.4, efficiency: 0.9512, ..Row::default() };
        let (heads, line) = (aligned(COLUMNS.map(|(name, _)| name.to_owned())), aligned(cells(&row)));
        assert_eq!(heads.chars().count(), line.chars().count());
        let end = |text: &str, of: &str| text.find(of).map(|at| at + of.len());
        assert_eq!(end(&line, "8,123,456"), end(&heads, "payments/s"));
        assert_eq!(end(&line, "0.951"), end(&heads, "efficiency"));
        let study = head(&Study { local_every: 16, ..Study::default() });
        assert!(study.contains("one of 16 executed") && study.contains("5 replicas"), "{study}");
    }

    #[test]
    fn a_step_tells_how_far_it_is_and_what_came_of_it() {
        let mut step = Step::begun(8, Output::new(true));
        step.goes_on(Progress { modelled_ms: 1_500, whole_ms: 2_500, payments: 123_456 });
        assert!(step.so_far().starts_with("8 shards: 123,456 payments in "), "{}", step.so_far());
        let done = step.done(&Row { per_s: 130_000.0, efficiency: 0.97, ..Row::default() });
        assert!(done.ends_with("modelled: 1.5 s, 130,000 payments/s, efficiency 0.970"), "{done}");
    }
}

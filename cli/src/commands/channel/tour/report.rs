//! The report of the tour: one object for programs, and for people what happened, part by part, with the
//! answers side by side.

use serde::Serialize;

use super::cast::{AUDITOR, Cast, Step};
use super::join::Join;
use super::leave::{Leave, TooEarly};
use super::sight::{ASKED, After, Answer, Sight};
use super::stage::{Seat, astray};
use super::trade::Trade;
use crate::commands::report::phases as phases_table;
use crate::error::CliError;
use crate::load::Phase;
use crate::output::{facts, grouped, table};

/// A channel as the directory has it at the end.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Listed {
    channel: String,
    name: String,
    status: String,
    members: Vec<String>,
    nodes: Vec<u32>,
}

/// The directory, as anybody reads it.
pub(super) async fn directory(cast: &Cast) -> Result<Vec<Listed>, CliError> {
    let lines = cast.a.client.channels().await?;
    let listed = lines.into_iter().map(|line| Listed {
        channel: line.group.to_string(),
        name: line.name,
        status: line.status,
        members: line.members.iter().map(|org| cast.orgs.name(*org)).collect(),
        nodes: line.nodes.iter().map(|node| node.0).collect(),
    });
    Ok(listed.collect())
}

/// All that happened.
#[derive(Serialize)]
pub(super) struct Report {
    channels: Vec<Listed>,
    /// Who is asked, in the order of the columns.
    asked: [String; ASKED],
    steps: Vec<Step>,
    trade: Trade,
    too_early: TooEarly,
    join: Join,
    leave: Leave,
    /// After the trade, after the joining and after the leaving.
    views: Vec<Sight>,
    /// What is not as it must be. Empty.
    problems: Vec<String>,
    phases: Vec<Phase>,
}

impl Report {
    /// Puts the parts together and judges them.
    pub(super) fn new(
        cast: &Cast,
        channels: Vec<Listed>,
        steps: Vec<Step>,
        trade: Trade,
        too_early: TooEarly,
        join: Join,
        leave: Leave,
        views: Vec<Sight>,
        phases: Vec<Phase>,
    ) -> Self {
        let [a, b, c] = cast.actors().map(|actor| actor.name.clone());
        let seen = views.iter().flat_map(Sight::problems);
        let problems = join.problems().into_iter().chain(leave.problems()).chain(seen).collect();
        let asked = [a, b, c, AUDITOR.to_owned()];
        Self { channels, asked, steps, trade, too_early, join, leave, views, problems, phases }
    }

    /// Whether all is as it must be.
    ///
    /// # Errors
    /// `tour_failed` with what is not.
    pub(super) fn check(&self) -> Result<(), CliError> {
        match self.problems.as_slice() {
            [] => Ok(()),
            problems => Err(astray(problems.join("; ")).after_report()),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut parts = vec![
            "Channels on a cluster of five nodes and three organisations".to_owned(),
            self.steps_text(),
            self.trade_text(),
            self.join_text(),
            self.leave_text(),
        ];
        parts.extend(self.views.iter().map(|view| self.view_text(view)));
        parts.push(phases_table(&self.phases));
        parts.extend(self.problems.iter().map(|problem| format!("PROBLEM: {problem}")));
        parts.push(self.verdict().to_owned());
        parts.join("\n\n")
    }

    fn steps_text(&self) -> String {
        let rows = self
            .steps
            .iter()
            .map(|step| [step.place.to_owned(), step.org.clone(), step.did.clone(), step.then.clone()]);
        table(["where", "who", "did", "what is so then, and who is missing"], rows)
    }

    fn trade_text(&self) -> String {
        let trade = &self.trade;
        let mut lines = vec![format!("The trade: transaction {}, every move hidden", trade.txid)];
        lines.extend(trade.moves.iter().map(|one| format!("  {}: {}", one.channel, one.what)));
        lines.extend(trade.votes.iter().map(|vote| {
            let word = if vote.yes { "yes" } else { "no" };
            let block = vote.height.map_or(String::new(), |height| format!(" in block {height}"));
            format!("  {} voted {word}{block}", vote.group)
        }));
        lines.extend(
            trade.receipts.iter().map(|receipt| format!("  {} {}", receipt.outcome, receipt.place().trim_start())),
        );
        lines.push(format!("  applied in both after {} s", trade.seconds));
        lines.join("\n")
    }

    fn join_text(&self) -> String {
        let join = &self.join;
        let snapshot = match join.snapshot_height {
            Some(height) => format!("of block {height}, taken from another node"),
            None => "NONE".to_owned(),
        };
        let rows = [
            (
                "before",
                format!(
                    "{} payments, {} entries of log",
                    grouped(join.payments.into()),
                    grouped(join.log_entries.into())
                ),
            ),
            ("a member", format!("from block {} on", join.height)),
            ("snapshot", snapshot),
            ("its node", format!("at block {} after {} s", join.node_height, join.seconds_to_height)),
            ("its seat", format!("after {} s", join.seconds_to_seat)),
            ("committee before", seats_text(&join.committee_before)),
            ("committee after", seats_text(&join.committee_after)),
        ];
        format!("{} joins {}\n{}", join.org, join.channel, facts(rows))
    }

    fn leave_text(&self) -> String {
        let (leave, early) = (&self.leave, &self.too_early);
        let told = match &leave.answered.code {
            Some(code) => format!("{code}, {} ms after it handed over that it leaves", leave.answered.after_ms),
            None => "STILL WHO THE MEMBERS ARE".to_owned(),
        };
        let rows = [
            ("too early", format!("refused before {} had joined: {} ({})", self.join.org, early.code, early.cause)),
            ("taken home", leave.taken_home.join(", ")),
            ("no member", format!("from block {} on", leave.height)),
            ("is told", told),
            ("committee before", seats_text(&leave.committee_before)),
            (
                "committee after",
                format!("{}, after {} s", seats_text(&leave.committee_after), leave.seconds_to_committee),
            ),
            ("its copies", format!("removed {} s later", leave.seconds_to_removal)),
            ("the others", format!("go on: a payment {}", leave.next_payment.place().trim_start())),
        ];
        format!("{} leaves {}\n{}", leave.org, leave.channel, facts(rows))
    }

    fn view_text(&self, view: &Sight) -> String {
        let title = match view.after {
            After::Trade => "What each is answered after the trade".to_owned(),
            After::Join => format!("What each is answered after {} has joined {}", self.join.org, self.join.channel),
            After::Leave => format!("What each is answered after {} has left {}", self.leave.org, self.leave.channel),
        };
        let rows = view.rows.iter().map(|row| {
            let answer = |who: &String| row.answers.get(who).map(Answer::text).unwrap_or_default();
            let [a, b, c, auditor] = self.asked.each_ref().map(answer);
            [row.asked.clone(), a, b, c, auditor]
        });
        let [a, b, c, auditor] = self.asked.each_ref().map(String::as_str);
        format!("{title}\n{}", table(["asked for", a, b, c, auditor], rows))
    }

    fn verdict(&self) -> &'static str {
        if self.problems.is_empty() {
            "Members were shown the same everywhere, and nobody else was shown anything."
        } else {
            "NOT AS IT SHOULD BE."
        }
    }
}

fn seats_text(seats: &[Seat]) -> String {
    seats.iter().map(|seat| format!("{} ({})", seat.node, seat.org)).collect::<Vec<_>>().join(" ")
}

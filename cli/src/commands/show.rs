//! Texts for people that several commands share.

use ledger::{Outcome, Receipt};
use serde::Serialize;

use crate::health::GroupLine;
use crate::output::{grouped, moment, table};

/// Characters of a hash that people are shown.
const HASH_CHARS: usize = 12;
/// Of a channel that does not admit whoever asks.
const NOT_SHOWN: &str = "not shown to you";

/// Groups as a table; with a rate each where there is one.
pub(super) fn groups_table(groups: &[&GroupLine], tps: Option<&[f64]>) -> String {
    let row = |group: &GroupLine| {
        let leader = group.leader.map_or_else(|| "NONE".to_owned(), |node| format!("node-{node}"));
        if !group.shown {
            let hidden = || NOT_SHOWN.to_owned();
            return [group.group.clone(), engine(group), leader, hidden(), hidden(), replicas(group), hidden()];
        }
        [
            group.group.clone(),
            engine(group),
            leader,
            grouped(group.height.into()),
            root(&group.state_root),
            replicas(group),
            grouped(group.transactions.into()),
        ]
    };
    let rows = groups.iter().map(|group| row(group));
    let heads = ["group", "engine", "leader", "height", "state root", "replicas (lag)", "transactions"];
    let Some(tps) = tps else { return table(heads, rows) };
    let rated = rows.zip(groups).zip(tps).map(|(([a, b, c, d, e, f, g], group), tps)| {
        let rate = if group.shown { format!("{tps:.0}") } else { NOT_SHOWN.to_owned() };
        [a, b, c, d, e, f, g, rate]
    });
    let [a, b, c, d, e, f, g] = heads;
    table([a, b, c, d, e, f, g, "tx/s"], rated)
}

/// What orders a group, how many of its replicas may fail, and how often proposers just did.
fn engine(group: &GroupLine) -> String {
    match group.round {
        Some(round) if round > 0 => format!("{} ({} may fail), round {round}", group.engine, group.tolerates),
        _ => format!("{} ({} may fail)", group.engine, group.tolerates),
    }
}

/// The beginning of a root; an empty state has a constant for one.
fn root(hex_root: &str) -> String {
    if hex_root == hex::encode(ledger::tree::PLACEHOLDER) {
        return "(empty)".to_owned();
    }
    hex_root.chars().take(HASH_CHARS).collect()
}

fn replicas(group: &GroupLine) -> String {
    let one = |replica: &crate::health::ReplicaLine| match (replica.lag, replica.answers) {
        _ if !replica.stopped.is_empty() => format!("{}(STOPPED)", replica.node),
        (Some(lag), _) => format!("{}({lag})", replica.node),
        (None, false) => format!("{}(GONE)", replica.node),
        (None, true) if replica.unwell => format!("{}(UNWELL)", replica.node),
        (None, true) => replica.node.to_string(),
    };
    group.replicas.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A receipt, for programs.
#[derive(Serialize)]
pub(super) struct ReceiptLine {
    pub(super) txid: String,
    pub(super) group: String,
    pub(super) height: u64,
    pub(super) index: u32,
    pub(super) time_ms: u64,
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reject: Option<&'static str>,
    /// Groups that are credited by mail.
    pub(super) mail_to: Vec<String>,
}

impl ReceiptLine {
    pub(super) fn of(receipt: &Receipt) -> Self {
        let (outcome, reject, mail_to) = match &receipt.outcome {
            Outcome::Committed { mail } => {
                ("committed", None, mail.iter().map(|(group, _)| group.to_string()).collect())
            }
            Outcome::Rejected(reject) => ("rejected", Some(reject.code()), Vec::new()),
            Outcome::Aborted { reason, .. } => ("aborted", Some(reason.code()), Vec::new()),
        };
        Self {
            txid: receipt.txid.to_string(),
            group: receipt.group.to_string(),
            height: receipt.height.0,
            index: receipt.index,
            time_ms: receipt.time_ms.0,
            outcome,
            reject,
            mail_to,
        }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> String {
        let at = moment(self.time_ms);
        format!("  in block {} of {}, position {}, at {at}", self.height, self.group, self.index)
    }

    pub(super) fn text(&self) -> String {
        let fate = match self.reject {
            Some(code) => format!("rejected: {code}"),
            None if self.mail_to.is_empty() => self.outcome.to_owned(),
            None => format!("{}; its credits go to {}", self.outcome, self.mail_to.join(", ")),
        };
        format!("transaction {}\n  {fate}\n{}", self.txid, self.place())
    }
}

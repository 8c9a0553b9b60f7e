//! `evidence`: members that have signed two ballots that exclude each other, listed with what becomes of their seats,
//! shown with proof, and written to files. What a file is worth offline is for [`super::verify`].

use std::path::Path;

use client::{Client, Consistency};
use ledger::{Equivocation, GroupId, Hash32};
use serde::Serialize;

use super::accused::{AccusedLine, accused, accused_table};
use super::context::Context;
use super::verify;
use crate::args::Evidence;
use crate::error::CliError;
use crate::output::{Output, moment, table};

/// Digits of an id that name one, at least.
const ID_DIGITS_MIN: usize = 4;
/// Digits of an id that people are shown in a list.
const ID_DIGITS_SHOWN: usize = 12;

/// What a member did, for programs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EvidenceLine {
    id: String,
    /// The member.
    node: u32,
    /// In which group.
    group: String,
    /// `proposal`, `prevote` or `precommit`.
    ballot: &'static str,
    /// Index of the entry in the group's log.
    entry: u64,
    round: u32,
    /// The two values; none stands for a vote for none.
    values: [Option<String>; 2],
    /// The block from which on it is kept.
    kept_since: u64,
    kept_since_ms: u64,
}

impl EvidenceLine {
    pub(super) fn of(kept: &ledger::Evidence) -> Self {
        let Equivocation { first, second } = kept.proof;
        let value = |value: Option<Hash32>| value.map(|value| value.to_string());
        Self {
            id: kept.proof.id().to_string(),
            node: kept.proof.node().0,
            group: first.ballot.group.to_string(),
            ballot: first.ballot.kind.name(),
            entry: first.ballot.index,
            round: first.ballot.round,
            values: [value(first.ballot.value), value(second.ballot.value)],
            kept_since: kept.height.0,
            kept_since_ms: kept.time_ms.0,
        }
    }

    pub(super) fn text(&self) -> String {
        let [one, other] = self.values.each_ref().map(|value| value.as_deref().unwrap_or("nothing"));
        format!(
            "node {} has signed two {}s of entry {} of {} in round {}\n  one for {one}\n  one for {other}\n  evidence {}, kept since block {}, at {}",
            self.node,
            self.ballot,
            self.entry,
            self.group,
            self.round,
            self.id,
            self.kept_since,
            moment(self.kept_since_ms)
        )
    }
}

#[derive(Serialize)]
struct Listed {
    group: String,
    evidence: Vec<EvidenceLine>,
    /// Whom the beacon holds evidence against, of every group.
    accused: Vec<AccusedLine>,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    line: EvidenceLine,
    /// The group that keeps it, and its block that proves it.
    proved_by: String,
    height: u64,
    signers: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

pub(super) async fn run(args: Evidence, output: Output) -> Result<(), CliError> {
    match args {
        Evidence::Ls { target, group } => {
            let group = group_of(&group)?;
            let client = Context::new(&target)?.client().await?;
            list(&client, group, output).await
        }
        Evidence::Show { target, id, group, out } => {
            let group = group_of(&group)?;
            let client = Context::new(&target)?.client().await?;
            show(&client, group, &id, out.as_deref(), output).await
        }
        Evidence::Verify(file) => verify::run(&file, output),
    }
}

fn group_of(text: &str) -> Result<GroupId, CliError> {
    text.parse().map_err(|_| {
        let cause = format!("'{text}' is no group");
        CliError::usage("group", cause, "name it as beacon, shard-0 or channel-0")
    })
}

async fn list(client: &Client, group: GroupId, output: Output) -> Result<(), CliError> {
    let kept = client.evidence(group).await?;
    let listed = Listed {
        group: group.to_string(),
        evidence: kept.iter().map(EvidenceLine::of).collect(),
        accused: accused(client, Consistency::Linearizable).await?,
    };
    output.result(&listed, || {
        let accused = accused_table(&listed.accused).map(|table| format!("\n{table}")).unwrap_or_default();
        if listed.evidence.is_empty() {
            return format!("{group} keeps no evidence: nobody was found to have voted twice{accused}");
        }
        let rows = listed.evidence.iter().map(|line| {
            [
                line.id.chars().take(ID_DIGITS_SHOWN).collect::<String>(),
                format!("node-{}", line.node),
                line.group.clone(),
                format!("{} of entry {}, round {}", line.ballot, line.entry, line.round),
                moment(line.kept_since_ms),
            ]
        });
        table(["evidence", "against", "in", "voted twice", "since"], rows) + &accused
    })
}

async fn show(client: &Client, group: GroupId, id: &str, out: Option<&Path>, output: Output) -> Result<(), CliError> {
    let ids: Vec<Hash32> = client.evidence(group).await?.iter().map(|kept| kept.proof.id()).collect();
    let id = pick(&ids, id)?;
    let Some(file) = client.evidence_file(group, id).await? else {
        let fix = "report this with both versions";
        return Err(CliError::new("protocol", "the group lists evidence that it does not show", fix));
    };
    let written = match out {
        Some(path) => {
            std::fs::write(path, file.to_file()).map_err(|error| CliError::file(path, &error))?;
            Some(path.display().to_string())
        }
        None => None,
    };
    let header = &file.certificate.header;
    let shown = Shown {
        line: EvidenceLine::of(&file.evidence),
        proved_by: header.group.to_string(),
        height: header.height.0,
        signers: file.certificate.signatures.iter().map(|(node, _)| node.0).collect(),
        file: written,
    };
    output.result(&shown, || {
        let proved = format!("{}\n  proved by block {} of {}", shown.line.text(), shown.height, shown.proved_by);
        match &shown.file {
            Some(path) => format!("{proved}\n  written to {path}; 'seamark verify' judges it offline"),
            None => proved,
        }
    })
}

/// The one id that begins like this.
fn pick(ids: &[Hash32], text: &str) -> Result<Hash32, CliError> {
    let see = "see them with 'seamark evidence ls'";
    let digits = text.to_ascii_lowercase();
    let mut found = ids.iter().filter(|id| digits.len() >= ID_DIGITS_MIN && id.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(CliError::usage("id_ambiguous", format!("'{text}' begins several ids"), see)),
        (None, _) => Err(CliError::new("evidence_unknown", format!("there is no evidence '{text}'"), see)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_named_by_the_beginning_of_its_id() {
        let ids = [[0x12; 32], [0x34; 32]].map(Hash32);
        let mut twin = [0x12; 32];
        twin[31] = 9;
        let twins = [ids[0], Hash32(twin)];
        assert_eq!(pick(&ids, "1212"), Ok(ids[0]));
        assert_eq!(pick(&ids, &ids[1].to_string().to_uppercase()), Ok(ids[1]));
        for (among, text, code) in
            [(&ids, "121", "evidence_unknown"), (&ids, "ffff", "evidence_unknown"), (&twins, "1212", "id_ambiguous")]
        {
            assert_eq!(pick(among, text).unwrap_err().code, code, "{text}");
        }
        assert_eq!(group_of("shard-1"), Ok(GroupId::shard(1)));
        assert_eq!(group_of("shards").unwrap_err().code, "group");
    }
}

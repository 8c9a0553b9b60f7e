//! Asks until every replica of every group has been seen at one height, and compares them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::Client;
use ledger::{Committee, GroupId};

use crate::error::CliError;
use crate::health::{Agreement, GroupLine, groups};

const POLL: Duration = Duration::from_millis(50);
/// How long replicas that lag may take after the last payment.
const WITHIN: Duration = Duration::from_secs(30);

/// What the replicas were found to be.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// Every replica of every group had the same header and state at the same height.
    pub agree: bool,
    /// Why not, in words.
    pub problems: Vec<String>,
    /// The groups at the end.
    pub groups: Vec<GroupLine>,
}

/// The committees in force, the beacon's first.
///
/// # Errors
/// When no router answers, or the answer makes no sense.
pub async fn committees(client: &Client) -> Result<Vec<Committee>, CliError> {
    let reply = client.cluster().await?;
    let mut committees = reply
        .committees
        .iter()
        .map(|bytes| proto::edge::value::<Committee>("committee", bytes))
        .collect::<Result<Vec<_>, _>>()?;
    committees.sort_by_key(|committee| committee.group);
    Ok(committees)
}

/// Waits for all replicas and compares them.
///
/// # Errors
/// When no router answers.
pub async fn agree(client: &Client) -> Result<Agreed, CliError> {
    let until = Instant::now() + WITHIN;
    let mut agreement = Agreement::default();
    let mut from: BTreeMap<GroupId, u64> = BTreeMap::new();
    loop {
        // Shards may be cut or joined meanwhile: those count that there are.
        let committees = committees(client).await?;
        let status = client.status().await?;
        agreement.observe(&status);
        let lines = groups(&status, &committees);
        for (committee, line) in committees.iter().zip(&lines) {
            from.entry(committee.group).or_insert(line.height);
        }
        // Channels that are not shown to whoever asks cannot be compared.
        let shown = committees.iter().zip(&lines).filter(|(_, line)| line.shown);
        let shown: Vec<Committee> = shown.map(|(committee, _)| committee.clone()).collect();
        let missing = agreement.missing(&shown, &from);
        let mut problems = agreement.conflicts();
        let late = Instant::now() >= until;
        if missing.is_empty() || !problems.is_empty() || late {
            let unseen =
                missing.iter().map(|group| format!("not every replica of {group} reached the same height in time"));
            problems.extend(unseen);
            return Ok(Agreed { agree: problems.is_empty(), problems, groups: lines });
        }
        tokio::time::sleep(POLL).await;
    }
}

//! Exclusion receipts: where they are kept, and what they say in words.

use std::path::{Path, PathBuf};

use channel::Exclusion;
use channel::exclusion::Departure;
use client::{Client, ExclusionFile};
use ledger::{GroupId, OrgId};
use serde::Serialize;

use super::signer::Orgs;
use crate::error::CliError;
use crate::output::moment;

/// The end of a membership, for programs.
#[derive(Debug, Serialize)]
pub(super) struct ExclusionLine {
    channel: String,
    org: String,
    /// `left` or `removed`.
    how: &'static str,
    /// The proposal that removed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<String>,
    /// Block in which it had become a member; 0 for a founder.
    joined: u64,
    /// The last block that it may have received.
    excluded: u64,
    excluded_ms: u64,
}

impl ExclusionLine {
    pub(super) fn of(exclusion: &Exclusion, orgs: &Orgs) -> Self {
        let (how, proposal) = match exclusion.how {
            Departure::Left => ("left", None),
            Departure::Removed(proposal) => ("removed", Some(proposal.to_string())),
        };
        Self {
            channel: exclusion.group.to_string(),
            org: orgs.name(exclusion.org),
            how,
            proposal,
            joined: exclusion.joined.0,
            excluded: exclusion.height.0,
            excluded_ms: exclusion.time_ms.0,
        }
    }

    pub(super) fn text(&self) -> String {
        let how = match &self.proposal {
            None => "left".to_owned(),
            Some(proposal) => format!("was removed by proposal {proposal} from"),
        };
        format!(
            "{} {how} {} in block {}, at {}\n  it had become a member in block {}",
            self.org,
            self.channel,
            self.excluded,
            moment(self.excluded_ms),
            self.joined
        )
    }
}

/// Fetches the newest receipt of an organisation and writes it to a file: the one named, else one in this
/// folder that says what it is of.
///
/// # Errors
/// What the channel says; `exclusion_none` where it knows of no exclusion.
pub(super) async fn keep(
    client: &Client,
    channel: GroupId,
    org: OrgId,
    out: Option<&Path>,
) -> Result<(ExclusionFile, PathBuf), CliError> {
    let Some(file) = client.exclusion(channel, org).await? else {
        let cause = format!("organisation {org} was never excluded from {channel}");
        return Err(CliError::new("exclusion_none", cause, "see its members with 'seamark channel ls'"));
    };
    let height = file.receipt.exclusion.height;
    let named = || PathBuf::from(format!("exclusion-{channel}-org-{org}-at-{height}.receipt"));
    let path = out.map_or_else(named, Path::to_path_buf);
    std::fs::write(&path, file.to_file()).map_err(|error| CliError::file(&path, &error))?;
    Ok((file, path))
}

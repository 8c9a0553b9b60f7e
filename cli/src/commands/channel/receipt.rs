//! Leaving a channel, and what proves that somebody left or was removed.

use std::path::Path;

use channel::Command;
use serde::Serialize;

use super::govern::Desk;
use super::names;
use crate::args::InChannel;
use crate::commands::exclusion::{ExclusionLine, keep};
use crate::commands::signer::Signer;
use crate::error::CliError;
use crate::output::{Output, moment};

/// A receipt that was fetched and judged.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    exclusion: ExclusionLine,
    /// The block that proves it.
    height: u64,
    time_ms: u64,
    signers: Vec<u32>,
    file: String,
}

/// `channel receipt`.
pub(super) async fn show(on: &InChannel, excluded: &str, out: Option<&Path>, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(&on.admin)?;
    let orgs = signer.orgs();
    let org = orgs.id(excluded)?;
    let client = signer.reader().await?;
    let line = names::channel(&client, &on.channel).await?;
    let (file, path) = keep(&client, line.group, org, out).await?;
    let certificate = &file.receipt.certificate;
    let report = Report {
        exclusion: ExclusionLine::of(&file.receipt.exclusion, &orgs),
        height: certificate.header.height.0,
        time_ms: certificate.header.time_ms.0,
        signers: certificate.signatures.iter().map(|(node, _)| node.0).collect(),
        file: path.display().to_string(),
    };
    output.result(&report, || {
        format!(
            "{}\n  proved by block {} at {}\n  the receipt is in {}; 'seamark verify' judges it offline",
            report.exclusion.text(),
            report.height,
            moment(report.time_ms),
            report.file
        )
    })
}

/// `channel leave`. The membership has ended whether its receipt can be had or not; members give it later, too.
pub(super) async fn leave(on: &InChannel, out: Option<&Path>, output: Output) -> Result<(), CliError> {
    let desk = Desk::at(on).await?;
    let command = Command::Leave;
    let fate = desk.send(&command).await?;
    match keep(&desk.client, desk.channel(), desk.org.id, out).await {
        Ok((_, path)) => desk.tell(&command, &fate, Some(path.display().to_string()), output).await,
        Err(error) => {
            desk.tell(&command, &fate, None, output).await?;
            let fix = "ask for it again with 'seamark channel receipt'".to_owned();
            let error = CliError { fix, ..error.context("the membership has ended, and its receipt is missing") };
            Err(error.after_report())
        }
    }
}

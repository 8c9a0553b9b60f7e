//! `tx build`, `show`, `sign`, `cosign` and `redact`: transaction files, before they are sent.

use std::path::{Path, PathBuf};

use ledger::GroupId;
use serde::Serialize;

use super::super::context::id;
use super::desk::{Desk, write};
use crate::args::{Target, TransactionFile};
use crate::draft::file::TxFile;
use crate::draft::words::{Plan, and};
use crate::error::CliError;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    /// The file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(flatten)]
    plan: Plan,
}

impl Report {
    fn print(&self, note: &str, output: Output) -> Result<(), CliError> {
        output.result(self, || format!("{}{note}", self.plan.text()))
    }
}

pub(super) async fn build(
    target: &Target,
    form: &Path,
    out: &Path,
    offline: bool,
    output: Output,
) -> Result<(), CliError> {
    let mut desk = Desk::open(target, offline).await?;
    let file = desk.build(form).await?;
    let plan = desk.plan(&file).await;
    write(out, &file)?;
    let note = format!("\nwritten to {0}; sign it with: seamark tx sign {0} --key NAME", out.display());
    Report { file: Some(out.display().to_string()), plan }.print(&note, output)
}

pub(super) async fn show(args: &TransactionFile, output: Output) -> Result<(), CliError> {
    let mut desk = Desk::open(&args.target, args.offline).await?;
    let file = desk.read(&args.file)?;
    let plan = desk.plan(&file).await;
    Report { file: None, plan }.print("", output)
}

pub(super) async fn sign(
    args: &TransactionFile,
    keys: &[String],
    copies: &[PathBuf],
    out: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let mut desk = Desk::open(&args.target, args.offline).await?;
    let mut file = desk.read(&args.file)?;
    for copy in copies {
        file.merge(&desk.read(copy)?)?;
    }
    if !keys.is_empty() {
        // What is signed is shown before the passphrase is asked for.
        let plan = desk.plan(&file).await;
        if !output.is_json() {
            output.remark(plan.moves.iter().map(|mv| format!("signing: {}", mv.text)).collect::<Vec<_>>().join("\n"));
        }
    }
    add_signatures(&desk, &mut file, keys)?;
    let out = out.unwrap_or(&args.file);
    write(out, &file)?;
    let plan = desk.plan(&file).await;
    let note = if plan.complete {
        format!("\ncomplete; send it with: seamark tx submit {}", out.display())
    } else {
        format!("\nwritten to {0}; who is missing signs with: seamark tx cosign {0} --key NAME", out.display())
    };
    Report { file: Some(out.display().to_string()), plan }.print(&note, output)
}

/// Adds signatures of these keys; a key that has no say is refused.
pub(super) fn add_signatures(desk: &Desk, file: &mut TxFile, keys: &[String]) -> Result<(), CliError> {
    for key in keys {
        let party = desk.party(key)?;
        if file.sign(&party.key).is_empty() {
            let labels = desk.labels();
            let accounts: Vec<String> = file
                .signers()
                .iter()
                .flat_map(|signer| &signer.accounts)
                .map(|account| labels.account(account))
                .collect();
            let cause = format!("key '{key}' authorises none of the accounts that have to sign: {}", and(&accounts));
            return Err(CliError::new(
                "tx_not_a_signer",
                cause,
                "use one of the keys that 'seamark tx show' names as missing",
            ));
        }
    }
    Ok(())
}

pub(super) async fn redact(
    args: &TransactionFile,
    keep: &[String],
    out: &Path,
    output: Output,
) -> Result<(), CliError> {
    let mut desk = Desk::open(&args.target, args.offline).await?;
    let mut file = desk.read(&args.file)?;
    let keep = keep.iter().map(|group| id::<GroupId>("group", group)).collect::<Result<Vec<_>, _>>()?;
    file.redact(&keep);
    write(out, &file)?;
    let plan = desk.plan(&file).await;
    let note = format!("\nwritten to {}", out.display());
    Report { file: Some(out.display().to_string()), plan }.print(&note, output)
}

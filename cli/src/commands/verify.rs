//! `verify`: a proof file or an exclusion receipt against a genesis, with no network.

use client::exclusion::{self, EXCLUSION_MAGIC};
use client::profile::read_genesis;
use client::proof::{self, Fact, PROOF_BYTES_MAX, PROOF_MAGIC};
use client::{ExclusionFile, ProofError, ProofFile, VerifiedClaim, VerifiedExclusion};
use serde::Serialize;

use super::account::authorisation;
use super::context::Context;
use super::exclusion::ExclusionLine;
use super::show::ReceiptLine;
use super::signer::Orgs;
use crate::args::VerifyFile;
use crate::error::CliError;
use crate::output::{Output, grouped, moment};

#[derive(Serialize)]
struct Report {
    valid: bool,
    cluster: String,
    group: String,
    height: u64,
    time_ms: u64,
    header_hash: String,
    signers: Vec<u32>,
    fact: FactLine,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum FactLine {
    Account { address: String, exists: bool, authorisation: String, balances: Vec<(String, String)>, complete: bool },
    Receipt { receipt: ReceiptLine },
    Exclusion(ExclusionLine),
}

impl Report {
    fn of_claim(claim: &VerifiedClaim) -> Self {
        Self {
            valid: true,
            cluster: claim.cluster.to_string(),
            group: claim.group.to_string(),
            height: claim.height.0,
            time_ms: claim.time_ms.0,
            header_hash: claim.header_hash.to_string(),
            signers: claim.signers.iter().map(|node| node.0).collect(),
            fact: fact(claim),
        }
    }

    fn of_exclusion(verified: &VerifiedExclusion, orgs: &Orgs) -> Self {
        Self {
            valid: true,
            cluster: verified.cluster.to_string(),
            group: verified.exclusion.group.to_string(),
            height: verified.height.0,
            time_ms: verified.time_ms.0,
            header_hash: verified.header_hash.to_string(),
            signers: verified.signers.iter().map(|node| node.0).collect(),
            fact: FactLine::Exclusion(ExclusionLine::of(&verified.exclusion, orgs)),
        }
    }
}

pub(super) fn run(args: &VerifyFile, output: Output) -> Result<(), CliError> {
    let genesis = match &args.genesis {
        Some(path) => path.clone(),
        None => crate::setup::ClusterDir::at(Context::new(&args.target)?.dir()).genesis_path(),
    };
    let genesis = read_genesis(&genesis)?;
    let length = std::fs::metadata(&args.file).map_err(|error| CliError::file(&args.file, &error))?.len();
    if length > (PROOF_BYTES_MAX + PROOF_MAGIC.len()) as u64 {
        return Err(ProofError::Malformed("it is too large".to_owned()).into());
    }
    let bytes = std::fs::read(&args.file).map_err(|error| CliError::file(&args.file, &error))?;
    let report = match bytes.starts_with(EXCLUSION_MAGIC) {
        true => {
            let verified = exclusion::verify(&ExclusionFile::from_file(&bytes)?, &genesis)?;
            Report::of_exclusion(&verified, &Orgs::of(&genesis))
        }
        false => Report::of_claim(&proof::verify(&ProofFile::from_file(&bytes)?, &genesis)?),
    };
    output.result(&report, || text(&report))
}

fn fact(claim: &VerifiedClaim) -> FactLine {
    match &claim.fact {
        Fact::Account { address, record } => {
            let exists = record.is_some();
            let record = record.clone().unwrap_or_default();
            FactLine::Account {
                address: address.to_string(),
                exists,
                authorisation: authorisation(&record),
                balances: record
                    .balances
                    .iter()
                    .map(|(asset, balance)| (asset.to_string(), balance.posted.to_string()))
                    .collect(),
                complete: claim.complete,
            }
        }
        Fact::Receipt(receipt) => FactLine::Receipt { receipt: ReceiptLine::of(receipt) },
    }
}

fn text(report: &Report) -> String {
    let signers: Vec<String> = report.signers.iter().map(|node| format!("node-{node}")).collect();
    let fact = match &report.fact {
        FactLine::Account { address, exists: false, .. } => format!("there was no account {address}"),
        FactLine::Account { address, balances, complete, .. } => {
            let number = |text: &str| text.parse().map_or_else(|_| text.to_owned(), grouped);
            let lines: Vec<String> = balances
                .iter()
                .map(|(asset, amount)| format!("\n  {} of asset {asset}, in its smallest unit", number(amount)))
                .collect();
            let held = if lines.is_empty() { " nothing".to_owned() } else { lines.concat() };
            let rest = match complete {
                true if lines.is_empty() => "",
                true => "\n  and nothing else",
                false => {
                    "\n  and may have held other assets: this proof is of its record alone, which is full; \
                     'seamark account --proof' now makes proofs of every balance"
                }
            };
            format!("account {address} held{held}{rest}")
        }
        FactLine::Receipt { receipt } => receipt.text(),
        FactLine::Exclusion(line) => line.text(),
    };
    format!(
        "the proof holds\n{fact}\nproved by block {} of {} at {}, certified by {}\ntrusted: the genesis of cluster {} and nothing else",
        report.height,
        report.group,
        moment(report.time_ms),
        signers.join(", "),
        report.cluster
    )
}

//! `verify`: a proof file, an exclusion receipt or evidence against a genesis, with no network.

use client::evidence::{self, EVIDENCE_MAGIC};
use client::exclusion::{self, EXCLUSION_MAGIC};
use client::profile::read_genesis;
use client::proof::{self, Fact, PROOF_BYTES_MAX, PROOF_MAGIC};
use client::{
    Entry, EvidenceFile, ExclusionFile, ProofError, ProofFile, VerifiedClaim, VerifiedEvidence, VerifiedExclusion,
};
use ledger::Address;
use ledger::lock::Lock;
use ledger::record::{GrantChange, Grantee};
use serde::Serialize;

use super::account::authorisation;
use super::context::Context;
use super::evidence::EvidenceLine;
use super::exclusion::ExclusionLine;
use super::lock::became;
use super::show::ReceiptLine;
use super::signer::Orgs;
use crate::args::VerifyFile;
use crate::draft::words::quoted;
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
    Account {
        address: String,
        exists: bool,
        authorisation: String,
        balances: Vec<(String, String)>,
        complete: bool,
    },
    Receipt {
        receipt: ReceiptLine,
    },
    Exclusion(ExclusionLine),
    Evidence(EvidenceLine),
    Record {
        owner: String,
        record: String,
        exists: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        at_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        txid: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata_hex: Option<String>,
    },
    /// All that one party was ever granted of a record.
    Grants {
        owner: String,
        record: String,
        party: String,
        changes: Vec<ChangeLine>,
    },
    Lock {
        from: String,
        lock: String,
        exists: bool,
        #[serde(flatten)]
        terms: Option<LockLine>,
    },
}

/// A change of what a party may do; without a scope it is a revocation.
#[derive(Serialize)]
struct ChangeLine {
    at_ms: u64,
    txid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

impl ChangeLine {
    fn of(change: &GrantChange) -> Self {
        Self {
            at_ms: change.at_ms.0,
            txid: change.txid.to_string(),
            scope: change.terms.as_ref().map(|terms| terms.scope.clone()),
            until_ms: change.terms.as_ref().and_then(|terms| terms.until_ms).map(|until| until.0),
        }
    }

    fn text(&self) -> String {
        let what = match (&self.scope, self.until_ms) {
            (None, _) => "revoked".to_owned(),
            (Some(scope), None) => format!("granted \"{scope}\""),
            (Some(scope), Some(until)) => format!("granted \"{scope}\" until {}", moment(until)),
        };
        format!("\n  {}: {what}, by transaction {}", moment(self.at_ms), self.txid)
    }
}

#[derive(Serialize)]
struct LockLine {
    to: String,
    asset: String,
    amount: String,
    hash: String,
    deadline_ms: u64,
    /// `open`, `claimed` or `refunded`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl LockLine {
    fn of(lock: &Lock) -> Self {
        let (state, secret, _) = became(&lock.state);
        Self {
            to: lock.terms.to.to_string(),
            asset: lock.terms.asset.to_string(),
            amount: lock.terms.amount.to_string(),
            hash: lock.hash.to_string(),
            deadline_ms: lock.deadline_ms.0,
            state,
            secret,
        }
    }

    fn text(&self) -> String {
        let amount = self.amount.parse().map_or_else(|_| self.amount.clone(), grouped);
        let secret = self.secret.as_ref().map_or_else(String::new, |secret| format!("\n  secret {secret}"));
        format!(
            "{}: {amount} of asset {}, in its smallest unit, for {} until {}\n  hash {}{secret}",
            self.state,
            self.asset,
            self.to,
            moment(self.deadline_ms),
            self.hash
        )
    }
}

fn entry(address: &Address, entry: &Entry) -> FactLine {
    let account = address.to_string();
    match entry {
        Entry::Record(hash, record) => FactLine::Record {
            owner: account,
            record: hash.to_string(),
            exists: record.is_some(),
            at_ms: record.as_ref().map(|record| record.at_ms.0),
            txid: record.as_ref().map(|record| record.txid.to_string()),
            metadata_hex: record.as_ref().map(|record| hex::encode(&record.metadata)),
        },
        Entry::Grants(record, who, log) => {
            let party = match who {
                Grantee::Account(account) => account.to_string(),
                Grantee::Org(org) => format!("organisation {org}"),
            };
            let changes = log.iter().flat_map(|log| &log.changes).map(ChangeLine::of).collect();
            FactLine::Grants { owner: account, record: record.to_string(), party, changes }
        }
        Entry::Lock(id, lock) => FactLine::Lock {
            from: account,
            lock: id.to_string(),
            exists: lock.is_some(),
            terms: lock.as_ref().map(LockLine::of),
        },
    }
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

    fn of_evidence(verified: &VerifiedEvidence) -> Self {
        Self {
            valid: true,
            cluster: verified.cluster.to_string(),
            group: verified.kept_by.to_string(),
            height: verified.height.0,
            time_ms: verified.time_ms.0,
            header_hash: verified.header_hash.to_string(),
            signers: verified.signers.iter().map(|node| node.0).collect(),
            fact: FactLine::Evidence(EvidenceLine::of(&verified.evidence)),
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
    let report = if bytes.starts_with(EXCLUSION_MAGIC) {
        let verified = exclusion::verify(&ExclusionFile::from_file(&bytes)?, &genesis)?;
        Report::of_exclusion(&verified, &Orgs::of(&genesis))
    } else if bytes.starts_with(EVIDENCE_MAGIC) {
        Report::of_evidence(&evidence::verify(&EvidenceFile::from_file(&bytes)?, &genesis)?)
    } else {
        Report::of_claim(&proof::verify(&ProofFile::from_file(&bytes)?, &genesis)?)
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
        Fact::Entry { address, entry: found } => entry(address, found),
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
        FactLine::Evidence(line) => line.text(),
        FactLine::Record { owner, record, at_ms: Some(at), metadata_hex: Some(metadata), .. } => {
            let metadata = hex::decode(metadata).map_or_else(|_| metadata.clone(), |bytes| quoted(&bytes));
            format!("account {owner} had recorded {record}\n  since {}, with {metadata}", moment(*at))
        }
        FactLine::Record { owner, record, .. } => format!("account {owner} had no record of {record}"),
        FactLine::Grants { owner, record, party, changes } if changes.is_empty() => {
            format!("account {owner} had granted {party} nothing of record {record}")
        }
        FactLine::Grants { owner, record, party, changes } => {
            let changes: String = changes.iter().map(ChangeLine::text).collect();
            format!("account {owner} had granted {party} of record {record}{changes}")
        }
        FactLine::Lock { from, lock, terms: Some(terms), .. } => {
            format!("account {from} had the lock {lock}\n  {}", terms.text())
        }
        FactLine::Lock { from, lock, .. } => format!("account {from} had no lock {lock}"),
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

//! `record`: notarised hashes, and who may do what with what they stand for.
//!
//! Code map: `change` records, grants and revokes; `look` reads, what is asked for by name with a proof, and what
//! is listed from a `book` of what the owner's past tells.

mod book;
mod change;
mod look;

use std::io::Read;
use std::path::Path;

use ledger::Hash32;
use ledger::record::Grantee;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::context::Context;
use super::signer::Orgs;
use crate::args::{PartyArg, Record};
use crate::error::CliError;
use crate::output::Output;

/// Bytes of a file that are hashed at once.
const PART: usize = 64 * 1024;

pub(super) async fn run(command: Record, output: Output) -> Result<(), CliError> {
    match command {
        Record::Put { owner, what, metadata } => change::put(&owner, &what, &metadata, output).await,
        Record::Grant { owner, what, party, scope, until } => {
            change::grant(&owner, &what, &party, scope, until, output).await
        }
        Record::Revoke { owner, what, party } => change::revoke(&owner, &what, &party, output).await,
        Record::Show { of, what } => look::show(&of, what.as_deref(), output).await,
        Record::Verify { of, what, proof } => look::verify(&of, &what, proof.as_deref(), output).await,
        Record::Access { of, what, party, at, check, proof } => {
            look::access(&of, &what, &party, at, check, proof.as_deref(), output).await
        }
        Record::History { of, what } => look::history(&of, &what, output).await,
    }
}

/// The hash that a text is, or that of the file that it names.
fn hash_of(text: &str) -> Result<Hash32, CliError> {
    match text.parse() {
        Ok(hash) => Ok(hash),
        Err(_) => file_hash(Path::new(text)).map_err(|error| CliError::file(Path::new(text), &error)),
    }
}

fn file_hash(path: &Path) -> std::io::Result<Hash32> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut part = vec![0; PART];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(Hash32(hasher.finalize().into())),
            read => hasher.update(&part[..read]),
        }
    }
}

/// The party that a command line names.
fn grantee(context: &Context, party: &PartyArg) -> Result<Grantee, CliError> {
    match (&party.account, &party.org) {
        (Some(account), _) => Ok(Grantee::Account(context.address(account)?)),
        (None, Some(org)) => Ok(Grantee::Org(Orgs::of(&context.profile()?.genesis()?).id(org)?)),
        (None, None) => Err(CliError::usage("usage", "no party is named", "name one with --account or --org")),
    }
}

/// A party, for programs.
#[derive(Serialize)]
struct PartyLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<u16>,
}

impl PartyLine {
    fn of(who: &Grantee) -> Self {
        match who {
            Grantee::Account(account) => Self { account: Some(account.to_string()), org: None },
            Grantee::Org(org) => Self { account: None, org: Some(org.0) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_hash_or_the_name_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let bytes = vec![7u8; PART + 1];
        std::fs::write(&path, &bytes).unwrap();
        let hash = ledger::hash::sha256(&bytes);
        assert_eq!(hash_of(path.to_str().unwrap()), Ok(hash));
        assert_eq!(hash_of(&hash.to_string()), Ok(hash));
        assert_eq!(hash_of("nowhere/at/all").unwrap_err().code, "file");
    }
}

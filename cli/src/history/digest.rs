//! The final state as a hash and as a file.
//!
//! The hash is SHA-256 over one line `account,balance` an account, sorted by the
//! bytes of the account string, each ended by a line feed. The file has these
//! lines, quoted where CSV needs it and without a header, so that it is a valid
//! opening file; unless an account needs quotes, its SHA-256 is the hash.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{Accounts, Balances, read::HistoryError};

/// The hash of the state.
#[must_use]
pub fn state_digest(accounts: &Accounts, balances: &Balances) -> [u8; 32] {
    let mut hash = Sha256::new();
    for ix in accounts.sorted() {
        hash.update(accounts.name(ix));
        hash.update(format!(",{}\n", balances.get(ix)));
    }
    hash.finalize().into()
}

/// [`state_digest`] in lower-case hex, as `state_sha256` reports it.
#[must_use]
pub fn state_sha256(accounts: &Accounts, balances: &Balances) -> String {
    hex::encode(state_digest(accounts, balances))
}

/// Writes one line an account.
///
/// # Errors
/// When the writer fails.
pub fn write_balances(out: impl Write, accounts: &Accounts, balances: &Balances) -> io::Result<()> {
    let mut lines = csv::Writer::from_writer(out);
    for ix in accounts.sorted() {
        lines.write_record([accounts.name(ix), &balances.get(ix).to_string()])?;
    }
    lines.flush()
}

/// Writes the balances to a new file, or over an old one.
///
/// # Errors
/// When it cannot be written to the end.
pub fn save_balances(path: &Path, accounts: &Accounts, balances: &Balances) -> Result<(), HistoryError> {
    let save = || {
        let mut out = BufWriter::new(File::create(path)?);
        write_balances(&mut out, accounts, balances)?;
        out.flush()?;
        out.get_ref().sync_all()
    };
    save().map_err(|source: io::Error| HistoryError::Write { file: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::opening;

    fn state(rows: &[(&str, u128)]) -> (Accounts, Balances) {
        let mut accounts = Accounts::default();
        let mut balances = Vec::new();
        for (name, balance) in rows {
            accounts.intern(name).unwrap();
            balances.push(*balance);
        }
        (accounts, Balances::new(balances).unwrap())
    }

    #[test]
    fn the_hash_is_over_sorted_lines() {
        let (accounts, balances) = state(&[("b", 0), ("a", ledger::limits::SUPPLY_MAX), ("a,1", 0)]);
        let text = format!("a,{}\na,1,0\nb,0\n", ledger::limits::SUPPLY_MAX);
        assert_eq!(state_sha256(&accounts, &balances), hex::encode(Sha256::digest(text)));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(state_sha256(&Accounts::default(), &Balances::default()), empty);
    }

    #[test]
    fn the_file_hashes_to_the_state_and_opens_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let (accounts, balances) = state(&[("x", 7), ("0xaa", 0), ("é", 3)]);
        save_balances(&path, &accounts, &balances).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes, "0xaa,0\nx,7\né,3\n".as_bytes());
        assert_eq!(state_sha256(&accounts, &balances), hex::encode(Sha256::digest(&bytes)));

        let mut again = Accounts::default();
        let read = opening::read_file(&path, &mut again).unwrap();
        assert_eq!(state_sha256(&again, &read), state_sha256(&accounts, &balances));

        let error = save_balances(folder.path(), &accounts, &balances).unwrap_err();
        assert_eq!(error.code(), "HISTORY_WRITE");
    }

    #[test]
    fn quotes_are_written_where_needed_and_read_back() {
        let (accounts, balances) = state(&[("Smith, J", 1), ("say \"hi\"", 2)]);
        let mut out = Vec::new();
        write_balances(&mut out, &accounts, &balances).unwrap();
        assert_eq!(out, b"\"Smith, J\",1\n\"say \"\"hi\"\"\",2\n");
        let mut again = Accounts::default();
        let read = opening::read("o", &out[..], &mut again).unwrap();
        assert_eq!(state_sha256(&again, &read), state_sha256(&accounts, &balances));
    }
}

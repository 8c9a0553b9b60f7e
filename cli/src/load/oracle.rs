//! What somebody else computed for a history, and whether a replay came to the same.
//!
//! An oracle file is a JSON object; each set of data has its own entry with the number of transfers and
//! accounts, the supply, and the hash of the final balances. The answer is the same for any number of
//! shards.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::replay::Report;
use crate::error::CliError;

/// The right answer for one set of data. Other fields of an entry are for people.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Oracle {
    transfers: u64,
    accounts: u64,
    supply: String,
    final_sha256: String,
}

impl Oracle {
    /// Reads the entry of a set.
    ///
    /// # Errors
    /// `file`, `oracle_form`, or `oracle_set` when it has no such entry.
    pub fn read(path: &Path, set: &str) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error))?;
        let mut sets: BTreeMap<String, Self> = serde_json::from_str(&text).map_err(|error| {
            let fix = "use a JSON object of sets with transfers, accounts, supply and final_sha256";
            CliError::new("oracle_form", format!("{} is no oracle: {error}", path.display()), fix)
        })?;
        sets.remove(set).ok_or_else(|| {
            let names: Vec<&str> = sets.keys().map(String::as_str).collect();
            let cause = format!("{} knows {}, and not '{set}'", path.display(), names.join(", "));
            CliError::usage("oracle_set", cause, "name one of them with --oracle-set")
        })
    }

    /// The set that a data file is of, by its name: what stands before the first dot.
    #[must_use]
    pub fn set_of(file: &Path) -> String {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.split('.').next().unwrap_or_default().to_owned()
    }

    /// Compares a replay with the right answer.
    ///
    /// # Errors
    /// `replay_wrong` names every difference.
    pub fn check(&self, report: &Report) -> Result<(), CliError> {
        let lines = [
            // The oracle counts transfers of nothing too; no ledger executes them.
            ("transfers", (report.transfers + report.skipped_zero_amount).to_string(), self.transfers.to_string()),
            ("committed", report.committed.to_string(), report.transfers.to_string()),
            ("accounts", report.accounts.to_string(), self.accounts.to_string()),
            ("supply", report.supply_after.clone(), self.supply.clone()),
            ("final state", report.state_sha256.clone(), self.final_sha256.clone()),
        ];
        let wrong: Vec<String> = lines
            .into_iter()
            .filter(|(_, found, expected)| found != expected)
            .map(|(what, found, expected)| format!("{what} {found} instead of {expected}"))
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let fix = "check that data, opening balances and oracle belong together; if they do, report it";
        Err(CliError::new("replay_wrong", format!("the replay differs from the oracle: {}", wrong.join(", ")), fix))
    }
}

#[cfg(test)]
mod tests {
    use super::super::replay::tests::example;
    use super::*;

    const FILE: &str = r#"{
        "one": {"transfers": 3, "accounts": 2, "supply": "12", "final_sha256": "ab", "funded": 1},
        "two": {"transfers": 4, "accounts": 2, "supply": "12", "final_sha256": "cd"}
    }"#;

    #[test]
    fn an_entry_is_found_by_the_name_of_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oracle.json");
        std::fs::write(&path, FILE).unwrap();
        let one = Oracle::read(&path, &Oracle::set_of(Path::new("/data/one.csv.gz"))).unwrap();
        assert_eq!((one.transfers, one.final_sha256.as_str()), (3, "ab"));
        let unknown = Oracle::read(&path, "three").unwrap_err();
        assert_eq!(unknown.code, "oracle_set");
        assert!(unknown.cause.contains("one, two"), "{unknown}");
        let right = Oracle { final_sha256: "ab".repeat(32), supply: "100".to_owned(), ..one };
        assert_eq!(right.check(&example()), Ok(()));
        let two_of_nothing = Report { transfers: 1, committed: 1, skipped_zero_amount: 2, ..example() };
        assert_eq!(right.check(&two_of_nothing), Ok(()));
        let report = Report { state_sha256: "cd".repeat(32), committed: 2, ..example() };
        let wrong = right.check(&report).unwrap_err();
        assert_eq!(wrong.code, "replay_wrong");
        assert!(wrong.cause.contains("committed 2 instead of 3") && wrong.cause.contains("final state"), "{wrong}");
        std::fs::write(&path, "[]").unwrap();
        assert_eq!(Oracle::read(&path, "one").unwrap_err().code, "oracle_form");
        assert_eq!(Oracle::read(Path::new("/no/such"), "one").unwrap_err().code, "file");
    }
}

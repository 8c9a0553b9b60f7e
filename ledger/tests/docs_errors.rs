//! The table of rejections in docs/errors.md says what the code says.

use std::path::Path;

use ledger::Reject;

#[test]
fn every_rejection_stands_in_the_manual_with_code_cause_fix_receipt_and_retry() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    let manual = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Machines above the ledger have tables, and numbers, of their own.
    let rejections = manual.split("\n## ").find(|section| section.starts_with("Rejections")).expect("the section");
    let rows: Vec<Vec<&str>> = rejections
        .lines()
        .filter(|line| line.starts_with("| ") && line.ends_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for reject in Reject::ALL {
        let number = reject.number().to_string();
        let row = rows.iter().find(|row| row.first() == Some(&number.as_str()));
        let row = row.unwrap_or_else(|| panic!("{number} {} is not in the manual", reject.code()));
        let said = |yes: bool| if yes { "yes" } else { "" };
        let code = format!("`{}`", reject.code());
        let expected = [
            number.as_str(),
            &code,
            reject.cause(),
            reject.fix(),
            said(reject.leaves_receipt()),
            said(reject.retryable()),
        ];
        assert_eq!(row, &expected, "row {number}");
    }
    let numbered = rows.iter().filter(|row| row[0].parse::<u16>().is_ok()).count();
    assert_eq!(numbered, Reject::ALL.len(), "the manual has a rejection that the code does not know");
}

//! The balances accounts have before the first payment: from a file, or the
//! least with which no payment overdraws.
//!
//! A file is `account,balance`, gzipped or not, with or without a header; with
//! one, the columns may come in any order among others. It is used whole or not
//! at all: a balance lost to a malformed line would surface much later, as an
//! overdraft somewhere else.

use std::{io::Read, path::Path};

use super::{
    Accounts, Balances, History, SupplyTooLarge,
    layout::{self, Header, MalformedReason},
    read::HistoryError,
    rows::{Fields, Rows},
};

/// The least opening balances with which the transfers, executed in order,
/// never overdraw.
///
/// # Errors
/// When these add up to more than the largest supply.
pub fn auto(history: &History) -> Result<Balances, SupplyTooLarge> {
    let mut opening = vec![0u128; history.accounts.len()];
    let mut now = vec![0u128; history.accounts.len()];
    let mut total = 0u128;
    for transfer in &history.transfers {
        let (from, to) = (transfer.from.at(), transfer.to.at());
        let lacking = transfer.amount.saturating_sub(now[from]);
        total = total.checked_add(lacking).ok_or(SupplyTooLarge)?;
        // Each is part of `total`, which fits.
        opening[from] += lacking;
        now[from] = (now[from] + lacking) - transfer.amount;
        now[to] += transfer.amount;
    }
    Balances::new(opening)
}

/// Reads opening balances. Accounts the history does not know are added to it.
///
/// # Errors
/// When the file cannot be read, a line is malformed, an account comes twice, or
/// the sum is too large.
pub fn read_file(path: &Path, accounts: &mut Accounts) -> Result<Balances, HistoryError> {
    let name = path.display().to_string();
    let rows = Rows::open(path).map_err(|source| HistoryError::read(&name, source))?;
    read_rows(&name, rows, accounts).map_err(|error| error.in_file(&name))
}

/// As [`read_file`], from any input; `name` is used in messages.
///
/// # Errors
/// As [`read_file`].
pub fn read(name: &str, input: impl Read, accounts: &mut Accounts) -> Result<Balances, HistoryError> {
    let rows = Rows::new(input).map_err(|source| HistoryError::read(name, source))?;
    read_rows(name, rows, accounts).map_err(|error| error.in_file(name))
}

/// Where the two columns are, and how many there are.
struct Columns {
    account: usize,
    balance: usize,
    width: usize,
}

fn read_rows(name: &str, mut rows: Rows<'_>, accounts: &mut Accounts) -> Result<Balances, HistoryError> {
    let mut fields = Fields::default();
    let mut columns = None;
    let mut found: Vec<Option<u128>> = Vec::new();
    while let Some((line, split)) = rows.next(&mut fields).map_err(|source| HistoryError::read(name, source))? {
        let malformed = |reason| HistoryError::Opening { line, reason };
        split.map_err(|fault| malformed(fault.into()))?;
        let columns = match &columns {
            Some(columns) => columns,
            None => {
                let header = header(&fields)?;
                let is_header = header.is_some();
                let first = header.unwrap_or(Columns { account: 0, balance: 1, width: 2 });
                rows.set_width(first.width);
                let first = columns.insert(first);
                if is_header {
                    continue;
                }
                first
            }
        };
        let (account, balance) = row(&fields, columns).map_err(malformed)?;
        let at = accounts.intern(account)?.at();
        if found.len() <= at {
            found.resize(at + 1, None);
        }
        if found[at].replace(balance).is_some() {
            return Err(HistoryError::OpeningTwice { line, account: account.to_owned() });
        }
    }
    let balances = found.into_iter().map(Option::unwrap_or_default).collect();
    Ok(Balances::new(balances)?)
}

/// The columns, if the first row is a header. It cannot be mistaken for a
/// balance, since `balance` is no number.
fn header(fields: &Fields) -> Result<Option<Columns>, HistoryError> {
    let header = Header::new(fields);
    let found = (header.find("account")?, header.find("balance")?);
    let (Some(account), Some(balance)) = found else {
        return Ok(None);
    };
    Ok(Some(Columns { account, balance, width: fields.len() }))
}

fn row<'a>(fields: &'a Fields, columns: &Columns) -> Result<(&'a str, u128), MalformedReason> {
    let (expected, found) = (columns.width, fields.len());
    if expected != found {
        return Err(MalformedReason::FieldCount { expected, found });
    }
    let field = |at: usize| fields.get(at).unwrap_or_default();
    let account = layout::account(field(columns.account), "account")?.ok_or(MalformedReason::NoAccount)?;
    Ok((account, layout::amount(field(columns.balance))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{HistoryReader, execute};
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Vec<(String, u128)>, String> {
        let mut accounts = Accounts::default();
        let balances =
            read("opening", text.as_bytes(), &mut accounts).map_err(|error| format!("{}: {error}", error.code()))?;
        Ok(accounts.iter().map(|(ix, name)| (name.to_owned(), balances.get(ix))).collect())
    }

    #[test]
    fn with_and_without_a_header() {
        let expected = Ok(vec![("a".to_owned(), 5), ("b, c".to_owned(), 0)]);
        for text in [
            "a,5\n\"b, c\",0\n",
            "account,balance\r\na,5\r\n\"b, c\",0\r\n",
            "\u{feff}Balance,note,Account\n5,,a\n0,\"x\ny\",\"b, c\"",
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("account,balance\n"), Ok(vec![]));
    }

    #[test]
    fn a_wrong_line_refuses_the_file() {
        let max = u128::MAX;
        let table = [
            ("a,5\nb\n".to_owned(), "OPENING_MALFORMED", "line 2: 1 fields"),
            ("a,5\nb,6,7\n".to_owned(), "OPENING_MALFORMED", "line 2: 3 fields"),
            ("a,-5\n".to_owned(), "OPENING_MALFORMED", "line 1: the amount is negative"),
            ("a,\n".to_owned(), "OPENING_MALFORMED", "line 1: no amount"),
            ("a,1.5\n".to_owned(), "OPENING_MALFORMED", "line 1: the amount is not"),
            (",5\n".to_owned(), "OPENING_MALFORMED", "line 1: no account"),
            ("a,5\n\"b,6\n".to_owned(), "OPENING_MALFORMED", "line 2: a quote"),
            ("a,5\nb,1\na,5\n".to_owned(), "OPENING_ACCOUNT_TWICE", "line 3: `a`"),
            (format!("a,{max}0\n"), "OPENING_MALFORMED", "line 1: the amount is larger"),
            (format!("a,{}\nb,1\n", ledger::limits::SUPPLY_MAX), "OPENING_SUPPLY_TOO_LARGE", "add up to more"),
            ("balance,account,balance\n".to_owned(), "HISTORY_COLUMN_TWICE", "`balance`"),
        ];
        for (text, code, part) in table {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(code) && error.contains(part), "{text:?} gave {error}");
        }
    }

    #[test]
    fn a_file_adds_its_accounts_to_those_of_the_rows() {
        let mut reader = HistoryReader::default();
        reader.add("h", &b"from,to,amount\na,b,1\n"[..]).unwrap();
        let mut history = reader.finish();
        let opening = read("o", &b"z,7\na,1\n"[..], &mut history.accounts).unwrap();
        let names: Vec<&str> = history.accounts.iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b", "z"]);
        assert_eq!(opening.total(), 8);
    }

    #[test]
    fn auto_needs_the_supply_to_fit() {
        let max = ledger::limits::SUPPLY_MAX;
        let text = format!("from,to,amount\na,b,{max}\nb,a,{max}\na,a,{max}\n");
        let mut reader = HistoryReader::default();
        reader.add("h", text.as_bytes()).unwrap();
        assert_eq!(auto(&reader.finish()).unwrap().total(), max);

        let mut reader = HistoryReader::default();
        reader.add("h", format!("{text}c,a,1\n").as_bytes()).unwrap();
        assert_eq!(auto(&reader.finish()), Err(SupplyTooLarge));
    }

    proptest! {
        /// Enough for every payment; one unit less anywhere is not.
        #[test]
        fn auto_is_enough_and_the_least(
            rows in prop::collection::vec((0u8..5, 0u8..5, 1u8..20), 0..40),
        ) {
            let mut reader = HistoryReader::default();
            let mut text = "from,to,amount\n".to_owned();
            for (from, to, amount) in &rows {
                text += &format!("{from},{to},{amount}\n");
            }
            reader.add("h", text.as_bytes()).unwrap();
            let history = reader.finish();
            let opening = auto(&history).unwrap();
            prop_assert!(execute(&history, &opening).rejected.is_empty());
            let all: Vec<u128> = history.accounts.iter().map(|(ix, _)| opening.get(ix)).collect();
            for at in 0..all.len() {
                if let Some(less) = all[at].checked_sub(1) {
                    let mut all = all.clone();
                    all[at] = less;
                    let short = Balances::new(all).unwrap();
                    prop_assert!(!execute(&history, &short).rejected.is_empty());
                }
            }
        }
    }
}

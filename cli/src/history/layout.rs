//! Which column of a file means what, and when a field is refused.
//!
//! A layout is recognised by its header alone. Fields are taken to the letter:
//! an amount is decimal digits, an account string is kept as it stands, and
//! whatever fits neither is malformed; nothing is repaired.

use super::{etl, plain, read::HistoryError, rows::Fields, rows::RowFault, xblock};

/// Longest account string, in bytes.
pub(super) const ACCOUNT_BYTES_MAX: usize = 1_024;

/// What exporters write where there is nobody (Python's `None`).
const NOBODY: &[u8] = b"None";

/// The layouts that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A header that names `from`, `to` and `amount`.
    Plain,
    /// `transactions.csv` of ethereum-etl.
    EthereumEtl,
    /// The XBlock data sets that block-emulator reads.
    XBlock,
}

/// Where a layout keeps what we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub layout: Layout,
    pub from: usize,
    pub to: usize,
    pub amount: usize,
}

/// The names in a header, folded to lower case, and its width.
pub(super) struct Header {
    names: Vec<String>,
}

impl Header {
    pub fn new(fields: &Fields) -> Self {
        let fold = |field: &[u8]| String::from_utf8_lossy(field).trim().to_ascii_lowercase();
        Self { names: fields.iter().map(fold).collect() }
    }

    /// The column called `name`; an error if two are, for either could be meant.
    pub fn find(&self, name: &'static str) -> Result<Option<usize>, HistoryError> {
        let mut found = (0..self.names.len()).filter(|&at| self.names[at] == name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(HistoryError::ColumnTwice { column: name }),
            (first, _) => Ok(first),
        }
    }

    /// The layout this header belongs to.
    pub fn columns(&self) -> Result<Columns, HistoryError> {
        for detect in [plain::columns, etl::columns, xblock::columns] {
            if let Some(columns) = detect(self)? {
                return Ok(columns);
            }
        }
        let mut header = self.names.join(",");
        if let Some((cut, _)) = header.char_indices().nth(200) {
            header.truncate(cut);
            header.push('…');
        }
        Err(HistoryError::UnknownLayout { header })
    }
}

/// Why a row was left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedReason {
    /// The row itself cannot be split into fields.
    #[error("{0}")]
    Row(#[from] RowFault),
    /// Another number of fields than the header has.
    #[error("{found} fields where the header has {expected}")]
    FieldCount {
        /// Fields in the header.
        expected: usize,
        /// Fields in the row.
        found: usize,
    },
    /// Nobody pays.
    #[error("no payer")]
    NoPayer,
    /// An opening balance of nobody.
    #[error("no account")]
    NoAccount,
    /// An account string that is not text.
    #[error("the account in `{column}` is not UTF-8")]
    AccountNotText {
        /// The column.
        column: &'static str,
    },
    /// An account string with a control character, or a space at an end.
    #[error("the account in `{column}` holds a control character, or a space at its start or end")]
    AccountNotClean {
        /// The column.
        column: &'static str,
    },
    /// An account string that is too long.
    #[error("the account in `{column}` is longer than {ACCOUNT_BYTES_MAX} bytes")]
    AccountTooLong {
        /// The column.
        column: &'static str,
    },
    /// No amount at all.
    #[error("no amount")]
    NoAmount,
    /// An amount below zero.
    #[error("the amount is negative")]
    NegativeAmount,
    /// An amount that is not a row of decimal digits.
    #[error("the amount is not a whole decimal number")]
    NotAWholeNumber,
    /// An amount above 128 bits.
    #[error("the amount is larger than {}", u128::MAX)]
    AmountTooLarge,
}

/// What a well-formed row says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    pub from: &'a str,
    /// `None`: no receiver.
    pub to: Option<&'a str>,
    pub amount: u128,
}

impl Columns {
    /// Takes a row apart. Everything needed is checked before anything is used,
    /// so a row that is skipped was well-formed too.
    pub fn parse<'a>(&self, fields: &'a Fields) -> Result<Parsed<'a>, MalformedReason> {
        let field = |at: usize| fields.get(at).unwrap_or_default();
        let from = account(field(self.from), "from")?.ok_or(MalformedReason::NoPayer)?;
        let to = account(field(self.to), "to")?;
        let amount = amount(field(self.amount))?;
        Ok(Parsed { from, to, amount })
    }
}

/// An account string as it stands; `None` where there is nobody.
pub(super) fn account<'a>(field: &'a [u8], column: &'static str) -> Result<Option<&'a str>, MalformedReason> {
    if field.is_empty() || field == NOBODY {
        return Ok(None);
    }
    if field.len() > ACCOUNT_BYTES_MAX {
        return Err(MalformedReason::AccountTooLong { column });
    }
    let text = std::str::from_utf8(field).map_err(|_| MalformedReason::AccountNotText { column })?;
    // Two spellings that look the same would be two accounts, and a line break
    // would forge a line of the state that is hashed.
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(MalformedReason::AccountNotClean { column });
    }
    Ok(Some(text))
}

/// Decimal digits, nothing else.
pub(super) fn amount(field: &[u8]) -> Result<u128, MalformedReason> {
    if field.is_empty() {
        return Err(MalformedReason::NoAmount);
    }
    if let Some(rest) = field.strip_prefix(b"-")
        && rest.first().is_some_and(u8::is_ascii_digit)
    {
        return Err(MalformedReason::NegativeAmount);
    }
    if !field.iter().all(u8::is_ascii_digit) {
        return Err(MalformedReason::NotAWholeNumber);
    }
    let step = |sum: u128, digit: &u8| sum.checked_mul(10)?.checked_add(u128::from(digit - b'0'));
    field.iter().try_fold(0u128, step).ok_or(MalformedReason::AmountTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_digits_up_to_128_bits() {
        use MalformedReason as M;
        let max = u128::MAX.to_string();
        let table: &[(&str, Result<u128, M>)] = &[
            ("0", Ok(0)),
            ("007", Ok(7)),
            (&max, Ok(u128::MAX)),
            ("340282366920938463463374607431768211456", Err(M::AmountTooLarge)),
            ("99999999999999999999999999999999999999999999", Err(M::AmountTooLarge)),
            ("", Err(M::NoAmount)),
            ("-1", Err(M::NegativeAmount)),
            ("-1.5", Err(M::NegativeAmount)),
            ("-", Err(M::NotAWholeNumber)),
            ("+1", Err(M::NotAWholeNumber)),
            ("1.0", Err(M::NotAWholeNumber)),
            ("1e18", Err(M::NotAWholeNumber)),
            ("0x10", Err(M::NotAWholeNumber)),
            (" 1", Err(M::NotAWholeNumber)),
            ("1 000", Err(M::NotAWholeNumber)),
            ("1,000", Err(M::NotAWholeNumber)),
            ("١", Err(M::NotAWholeNumber)),
            ("NaN", Err(M::NotAWholeNumber)),
        ];
        for (text, expected) in table {
            assert_eq!(&amount(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn account_strings_are_kept_or_refused_never_changed() {
        use MalformedReason as M;
        let column = "to";
        let long = "x".repeat(ACCOUNT_BYTES_MAX + 1);
        let table: &[(&[u8], Result<Option<&str>, M>)] = &[
            (b"0xAbC", Ok(Some("0xAbC"))),
            (b"Smith, J", Ok(Some("Smith, J"))),
            (&long.as_bytes()[1..], Ok(Some(&long[1..]))),
            (b"", Ok(None)),
            (b"None", Ok(None)),
            (b"none", Ok(Some("none"))),
            (long.as_bytes(), Err(M::AccountTooLong { column })),
            (b"\xff", Err(M::AccountNotText { column })),
            (b" a", Err(M::AccountNotClean { column })),
            (b"a\tb", Err(M::AccountNotClean { column })),
            (b"a\nb,5", Err(M::AccountNotClean { column })),
            (b" ", Err(M::AccountNotClean { column })),
        ];
        for (field, expected) in table {
            assert_eq!(&account(field, column), expected, "{field:?}");
        }
    }
}

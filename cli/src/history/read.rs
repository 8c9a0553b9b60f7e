//! Files to a [`History`]: finds each file's layout by its header, takes every
//! row for exactly one of payment, skipped or malformed, and keeps the payments
//! in the order of the rows, which is the order of execution.

use std::{
    io::{self, Read},
    path::Path,
};

use super::{
    Accounts, History, Layout, Malformed, MalformedLine, Skipped, SupplyTooLarge, TooManyAccounts, Transfer,
    layout::{Header, MalformedReason, Parsed},
    rows::{Fields, RowFault, Rows},
};

/// Why an input cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Reading failed, or the gzip stream is damaged.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system, or the decompressor, says.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// No header, for there is no line.
    #[error("the file is empty: the first line must be a header that names the columns")]
    Empty,
    /// The first line cannot be split into column names.
    #[error("the header cannot be read: {0}")]
    Header(RowFault),
    /// A column that is needed exists twice.
    #[error("the header names the column `{column}` twice: rename or remove one")]
    ColumnTwice {
        /// The column.
        column: &'static str,
    },
    /// The header fits none of the layouts.
    #[error(
        "the header `{header}` fits no known layout; it must name `from,to,amount`, or \
         `from_address,to_address,value` (ethereum-etl), or \
         `blockNumber,from,to,toCreate,value` (XBlock)"
    )]
    UnknownLayout {
        /// The header, shortened.
        header: String,
    },
    /// A line of an opening file is wrong. Without it balances would be too
    /// low, so nothing of the file is used.
    #[error("opening balances, line {line}: {reason}")]
    Opening {
        /// The line, counted from 1.
        line: u64,
        /// What is wrong.
        reason: MalformedReason,
    },
    /// An opening file gives an account two balances.
    #[error("opening balances, line {line}: `{account}` already has a balance")]
    OpeningTwice {
        /// The line of the second one.
        line: u64,
        /// The account.
        account: String,
    },
    /// The opening balances do not fit the ledger.
    #[error("opening balances: {0}")]
    Supply(#[from] SupplyTooLarge),
    /// Too many accounts.
    #[error(transparent)]
    Accounts(#[from] TooManyAccounts),
    /// Too many payments.
    #[error("more than {} payments: split the input", u32::MAX)]
    TooManyTransfers,
    /// Not a block.
    #[error("the block cannot be decoded: {reason}")]
    Block {
        /// What the decoder says.
        reason: String,
    },
    /// An error in one of several files.
    #[error("{file}: {source}")]
    In {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: Box<HistoryError>,
    },
}

impl HistoryError {
    /// A stable name for the kind of error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "HISTORY_READ",
            Self::Write { .. } => "HISTORY_WRITE",
            Self::Empty => "HISTORY_EMPTY",
            Self::Header(_) => "HISTORY_HEADER",
            Self::ColumnTwice { .. } => "HISTORY_COLUMN_TWICE",
            Self::UnknownLayout { .. } => "HISTORY_UNKNOWN_LAYOUT",
            Self::Opening { .. } => "OPENING_MALFORMED",
            Self::OpeningTwice { .. } => "OPENING_ACCOUNT_TWICE",
            Self::Supply(_) => "OPENING_SUPPLY_TOO_LARGE",
            Self::Accounts(_) => "HISTORY_TOO_MANY_ACCOUNTS",
            Self::TooManyTransfers => "HISTORY_TOO_MANY_TRANSFERS",
            Self::Block { .. } => "HISTORY_BLOCK",
            Self::In { source, .. } => source.code(),
        }
    }

    pub(super) fn read(file: &str, source: io::Error) -> Self {
        Self::Read { file: file.to_owned(), source }
    }

    /// Names the file, unless the error already does.
    pub(super) fn in_file(self, file: &str) -> Self {
        match self {
            named @ (Self::Read { .. } | Self::Write { .. } | Self::In { .. }) => named,
            source => Self::In { file: file.to_owned(), source: Box::new(source) },
        }
    }
}

/// Collects one or several files into a [`History`].
#[derive(Default)]
pub struct HistoryReader {
    transfers: Vec<Transfer>,
    accounts: Accounts,
    skipped: Skipped,
    malformed: Malformed,
    rows: u64,
    files: Vec<String>,
}

impl HistoryReader {
    /// Reads files as one history, executed one file after the other, each in
    /// the order of its rows.
    ///
    /// # Errors
    /// When a file cannot be read or has no known layout. Malformed rows are no
    /// error: they are counted in [`History::malformed`].
    pub fn read_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<History, HistoryError> {
        let mut reader = Self::default();
        for path in paths {
            reader.add_file(path.as_ref())?;
        }
        Ok(reader.finish())
    }

    /// Reads one more file.
    ///
    /// # Errors
    /// As [`HistoryReader::read_files`].
    pub fn add_file(&mut self, path: &Path) -> Result<Layout, HistoryError> {
        let name = path.display().to_string();
        let rows = Rows::open(path).map_err(|source| HistoryError::read(&name, source))?;
        self.add_rows(&name, rows)
    }

    /// Reads one more input, gzipped or not; `name` is used in messages.
    ///
    /// # Errors
    /// As [`HistoryReader::read_files`].
    pub fn add(&mut self, name: &str, input: impl Read) -> Result<Layout, HistoryError> {
        let rows = Rows::new(input).map_err(|source| HistoryError::read(name, source))?;
        self.add_rows(name, rows)
    }

    fn add_rows(&mut self, name: &str, rows: Rows<'_>) -> Result<Layout, HistoryError> {
        let file = self.files.len();
        self.files.push(name.to_owned());
        self.add_rows_of(file, name, rows).map_err(|error| error.in_file(name))
    }

    fn add_rows_of(&mut self, file: usize, name: &str, mut rows: Rows<'_>) -> Result<Layout, HistoryError> {
        let mut fields = Fields::default();
        let header = rows.next(&mut fields).map_err(|source| HistoryError::read(name, source))?;
        let (_, split) = header.ok_or(HistoryError::Empty)?;
        split.map_err(HistoryError::Header)?;
        let columns = Header::new(&fields).columns()?;
        let expected = fields.len();
        rows.set_width(expected);
        while let Some((line, split)) = rows.next(&mut fields).map_err(|source| HistoryError::read(name, source))? {
            self.rows += 1;
            let parsed = split.map_err(MalformedReason::from).and_then(|()| {
                let found = fields.len();
                match found == expected {
                    true => columns.parse(&fields),
                    false => Err(MalformedReason::FieldCount { expected, found }),
                }
            });
            match parsed {
                Ok(row) => self.add_row(line, &row)?,
                Err(reason) => self.malformed.add(MalformedLine { file, line, reason }),
            }
        }
        Ok(columns.layout)
    }

    fn add_row(&mut self, line: u64, row: &Parsed<'_>) -> Result<(), HistoryError> {
        let Some(to) = row.to else {
            self.skipped.no_receiver += 1;
            return Ok(());
        };
        let from = self.accounts.intern(row.from)?;
        let to = self.accounts.intern(to)?;
        if row.amount == 0 {
            self.skipped.zero_amount += 1;
            return Ok(());
        }
        if self.transfers.len() >= u32::MAX as usize {
            return Err(HistoryError::TooManyTransfers);
        }
        self.transfers.push(Transfer { line, from, to, amount: row.amount });
        Ok(())
    }

    /// What was read, in the order of reading.
    #[must_use]
    pub fn finish(self) -> History {
        History {
            transfers: self.transfers,
            accounts: self.accounts,
            skipped: self.skipped,
            malformed: self.malformed,
            rows: self.rows,
            files: self.files,
        }
    }
}

/// Builds histories that do not come from rows of text.
impl HistoryReader {
    pub(super) fn begin(&mut self, name: &str) {
        self.files.push(name.to_owned());
    }

    pub(super) fn push(&mut self, line: u64, from: &str, to: &str, amount: u128) -> Result<(), HistoryError> {
        self.rows += 1;
        self.add_row(line, &Parsed { from, to: Some(to), amount })
    }
}

impl History {
    /// The payer and the payee of a transfer, as the input calls them.
    #[must_use]
    pub fn names(&self, transfer: &Transfer) -> (&str, &str) {
        (self.accounts.name(transfer.from), self.accounts.name(transfer.to))
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;

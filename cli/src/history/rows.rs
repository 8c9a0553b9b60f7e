//! Bytes to rows: gzip, lines, quotes.
//!
//! Streams: one row is held at a time, and a row has an upper size. Stricter
//! than common CSV readers where those guess: text after a closing quote and a
//! quote that never closes make the line malformed, and reading goes on with
//! the very next line, so one bad quote cannot swallow what follows.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

/// Longest row, in bytes (an Ethereum transaction's input fits many times).
pub(super) const ROW_BYTES_MAX: usize = 4 << 20;
/// Most lines a row may span by line breaks inside quotes.
const ROW_LINES_MAX: usize = 32;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// A row that cannot be split into fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// Longer than a row may be.
    #[error("longer than {ROW_BYTES_MAX} bytes")]
    TooLong,
    /// A quoted field that does not end.
    #[error("a quote is never closed")]
    QuoteNotClosed,
    /// A quoted field followed by something other than a comma.
    #[error("text after a closing quote")]
    TextAfterQuote,
}

/// The fields of one row, unquoted; reused from row to row.
#[derive(Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    fn end_field(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Splits one row by RFC 4180. A quote inside an unquoted field stands for
    /// itself.
    fn split(&mut self, row: &[u8]) -> Result<(), RowFault> {
        self.bytes.clear();
        self.ends.clear();
        let mut rest = row;
        loop {
            rest = match rest.strip_prefix(b"\"") {
                Some(quoted) => self.quoted(quoted)?,
                None => {
                    let end = rest.iter().position(|&b| b == b',').unwrap_or(rest.len());
                    self.bytes.extend_from_slice(&rest[..end]);
                    &rest[end..]
                }
            };
            self.end_field();
            match rest.split_first() {
                None => return Ok(()),
                Some((b',', after)) => rest = after,
                Some(_) => return Err(RowFault::TextAfterQuote),
            }
        }
    }

    /// Takes a quoted field, whose opening quote is gone; returns what follows.
    fn quoted<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], RowFault> {
        loop {
            let end = rest.iter().position(|&b| b == b'"').ok_or(RowFault::QuoteNotClosed)?;
            self.bytes.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix(b"\"") {
                None => return Ok(rest),
                Some(after) => {
                    self.bytes.push(b'"');
                    rest = after;
                }
            }
        }
    }
}

struct Line {
    number: u64,
    /// `None`: too long to keep.
    text: Option<Vec<u8>>,
}

/// The rows of one input.
pub(super) struct Rows<'r> {
    input: Box<dyn BufRead + 'r>,
    lines_read: u64,
    /// Lines looked at for an open quote and given back.
    pending: VecDeque<Line>,
    /// Fields a row must have for a line break inside quotes to be believed;
    /// zero as long as the header is not known.
    width: usize,
}

impl Rows<'static> {
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }
}

impl<'r> Rows<'r> {
    /// Reads gzip if the first two bytes say so, else as it stands.
    pub fn new(mut raw: impl Read + 'r) -> io::Result<Self> {
        let mut head = Vec::new();
        raw.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
        let gzip = head == GZIP_MAGIC;
        let whole = BufReader::new(Cursor::new(head).chain(raw));
        let mut input: Box<dyn BufRead + 'r> = match gzip {
            true => Box::new(BufReader::new(MultiGzDecoder::new(whole))),
            false => Box::new(whole),
        };
        let mut start = Vec::new();
        input.by_ref().take(UTF8_MARK.len() as u64).read_to_end(&mut start)?;
        if start == UTF8_MARK {
            start.clear();
        }
        let input = Box::new(BufReader::new(Cursor::new(start).chain(input)));
        Ok(Self { input, lines_read: 0, pending: VecDeque::new(), width: 0 })
    }

    /// From now on a row has this many fields.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    /// The next row that is not blank: the number of its first line, and
    /// whether it could be split. `None` at the end.
    pub fn next(&mut self, fields: &mut Fields) -> io::Result<Option<(u64, Result<(), RowFault>)>> {
        loop {
            let Some(line) = self.next_line()? else {
                return Ok(None);
            };
            let Some(text) = line.text else {
                return Ok(Some((line.number, Err(RowFault::TooLong))));
            };
            if text.is_empty() {
                continue;
            }
            let split = match fields.split(&text) {
                Err(RowFault::QuoteNotClosed) if self.width > 0 => self.join(text, fields)?,
                split => split,
            };
            return Ok(Some((line.number, split)));
        }
    }

    /// Tries to close a quote with the lines that follow. Believed only if the
    /// row then has as many fields as the header; otherwise they are given back.
    fn join(&mut self, mut row: Vec<u8>, fields: &mut Fields) -> io::Result<Result<(), RowFault>> {
        let mut taken = Vec::new();
        while taken.len() + 1 < ROW_LINES_MAX {
            let Some(line) = self.next_line()? else { break };
            let fits = match &line.text {
                Some(text) if row.len() + text.len() < ROW_BYTES_MAX => {
                    row.push(b'\n');
                    row.extend_from_slice(text);
                    true
                }
                _ => false,
            };
            taken.push(line);
            if !fits {
                break;
            }
            match fields.split(&row) {
                Err(RowFault::QuoteNotClosed) => {}
                Ok(()) if fields.len() == self.width => return Ok(Ok(())),
                _ => break,
            }
        }
        for line in taken.into_iter().rev() {
            self.pending.push_front(line);
        }
        Ok(Err(RowFault::QuoteNotClosed))
    }

    /// The next line without its end (`\n` or `\r\n`).
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.pending.pop_front() {
            return Ok(Some(line));
        }
        let mut text = Vec::new();
        self.take_to_line_end(&mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        self.lines_read += 1;
        let number = self.lines_read;
        if text.last() == Some(&b'\n') {
            text.pop();
        } else if text.len() > ROW_BYTES_MAX {
            self.drop_line()?;
            return Ok(Some(Line { number, text: None }));
        }
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        Ok(Some(Line { number, text: Some(text) }))
    }

    fn take_to_line_end(&mut self, text: &mut Vec<u8>) -> io::Result<usize> {
        self.input.by_ref().take(ROW_BYTES_MAX as u64 + 1).read_until(b'\n', text)
    }

    /// Passes over the rest of a line that is too long to keep.
    fn drop_line(&mut self) -> io::Result<()> {
        let mut scrap = Vec::new();
        loop {
            scrap.clear();
            if self.take_to_line_end(&mut scrap)? == 0 || scrap.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(u64, Result<Vec<String>, RowFault>)>;

    fn rows(input: &[u8], width: usize) -> Seen {
        let mut rows = Rows::new(input).unwrap();
        rows.set_width(width);
        let mut fields = Fields::default();
        let mut seen = Vec::new();
        while let Some((line, split)) = rows.next(&mut fields).unwrap() {
            let text = |f: &[u8]| String::from_utf8_lossy(f).into_owned();
            seen.push((line, split.map(|()| fields.iter().map(text).collect())));
        }
        seen
    }

    fn ok(line: u64, fields: &[&str]) -> (u64, Result<Vec<String>, RowFault>) {
        (line, Ok(fields.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn lines_ends_blanks_and_marks() {
        let expected = vec![ok(1, &["a", "b"]), ok(4, &["c", ""]), ok(5, &["", ""])];
        assert_eq!(rows(b"a,b\n\n\nc,\n,", 2), expected);
        assert_eq!(rows(b"\xef\xbb\xbfa,b\r\n\r\n\r\nc,\r\n,\r\n", 2), expected);
        assert_eq!(rows(b"", 2), vec![]);
        assert_eq!(rows(b"\xef\xbb\xbf", 2), vec![]);
        assert_eq!(rows(b"a", 2), vec![ok(1, &["a"])]);
    }

    #[test]
    fn quotes() {
        let text = b"\"a,b\",\"say \"\"hi\"\"\"\n\"\",5\" pipe\n\"two\r\nlines\",x\nlast,\"\"\n";
        let expected = vec![
            ok(1, &["a,b", "say \"hi\""]),
            ok(2, &["", "5\" pipe"]),
            ok(3, &["two\nlines", "x"]),
            ok(5, &["last", ""]),
        ];
        assert_eq!(rows(text, 2), expected);
    }

    #[test]
    fn a_bad_quote_costs_its_own_line_only() {
        let open = Err(RowFault::QuoteNotClosed);
        let after = Err(RowFault::TextAfterQuote);
        assert_eq!(
            rows(b"a,\"b\nc,d\n\"e\" ,f\ng,\"h\"\ni,j\n\"k", 2),
            vec![(1, open.clone()), ok(2, &["c", "d"]), (3, after), ok(4, &["g", "h"]), ok(5, &["i", "j"]), (6, open),]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut text = b"a,b\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', ROW_BYTES_MAX * 2 + 7));
        text.extend(b"\nc,d\n");
        assert_eq!(rows(&text, 2), vec![ok(1, &["a", "b"]), (2, Err(RowFault::TooLong)), ok(3, &["c", "d"])]);
    }

    #[test]
    fn the_longest_line_is_read() {
        let mut text = vec![b'x'; ROW_BYTES_MAX];
        text.push(b'\n');
        let seen = rows(&text, 1);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].1.as_ref().unwrap()[0].len(), ROW_BYTES_MAX);
    }
}

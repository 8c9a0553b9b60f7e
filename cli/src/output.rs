//! All that a command prints: one JSON object on stdout, or text for people.
//!
//! Results go to stdout, progress and remarks to stderr. A broken pipe ends nothing: the command
//! did its work, and only its text is lost.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{CliError, OpenTx};

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON, or text for people.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether one JSON object is asked for.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result of a command: `value` as JSON, or the text.
    ///
    /// # Errors
    /// `output_json` when the value has no JSON form.
    pub fn result<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json {
            let json = serde_json::to_string(value)
                .map_err(|error| CliError::new("output_json", error, "report this with the command that was run"))?;
            print_line(&json);
        } else {
            print_line(text().trim_end());
        }
        Ok(())
    }

    /// Prints a part of the text that is ready before the rest. Who asked for JSON is given all of it as one object later.
    pub fn part(self, text: impl AsRef<str>) {
        if !self.json {
            print_line(text.as_ref());
        }
    }

    /// Says something to people that is not the result.
    pub fn remark(self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
    }

    /// Prints why the command failed; with JSON asked for, also as the one object on stdout.
    pub fn failure(self, error: &CliError) {
        self.remark(error.to_string());
        if self.json && !error.reported {
            self.failure_for_programs(error);
        }
    }

    /// Prints why the command failed as the one object on stdout.
    pub fn failure_for_programs(self, error: &CliError) {
        #[derive(Serialize)]
        struct Failure<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            code: &'a str,
            cause: &'a str,
            fix: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            transaction: Option<&'a OpenTx>,
        }
        let transaction = error.transaction.as_deref();
        let body = Body { code: &error.code, cause: &error.cause, fix: &error.fix, transaction };
        if let Ok(json) = serde_json::to_string(&Failure { error: body }) {
            print_line(&json);
        }
    }

    /// A bar over `length` steps, shown when stderr is a terminal.
    #[must_use]
    pub fn bar(self, length: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(length), target());
        let style = ProgressStyle::with_template("{msg:<28} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar
    }

    /// A spinner for work of unknown length, shown when stderr is a terminal.
    #[must_use]
    pub fn spinner(self, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, target());
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() }
}

/// Set once something of a result could not be written.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever closed the pipe has read enough.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            UNWRITTEN.store(true, Ordering::Relaxed);
            eprintln!("error[output]: the result could not be written: {error}\n  fix: make room where it goes");
        }
    }
}

/// Whether something of a result could not be written. The command then has failed, whatever it did.
#[must_use]
pub fn unwritten() -> bool {
    UNWRITTEN.load(Ordering::Relaxed)
}

/// Text that somebody else wrote, as it may stand on a terminal where people decide what to sign: what
/// would move the cursor, change the direction of writing or begin a new line is shown as an escape.
#[must_use]
pub fn foreign(text: &str) -> String {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if unseen(c) { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    plain
}

/// A table for people.
#[must_use]
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.to_vec());
    }
    table.to_string()
}

/// Facts for people, one a line, with their values aligned.
#[must_use]
pub fn facts<'a>(rows: impl AsRef<[(&'a str, String)]>) -> String {
    let rows = rows.as_ref();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("  {name:<width$}  {value}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A number with separators between thousands.
#[must_use]
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of smallest units with a point before the last `decimals` digits.
#[must_use]
pub fn with_decimals(amount: u128, decimals: u8) -> String {
    if decimals == 0 {
        return grouped(amount);
    }
    let width = usize::from(decimals);
    let digits = format!("{amount:0>least$}", least = width + 1);
    let (whole, fraction) = digits.split_at(digits.len() - width);
    format!("{}.{fraction}", whole.parse().map_or_else(|_| whole.to_owned(), grouped))
}

/// A moment of block time, in UTC.
#[must_use]
pub fn moment(unix_ms: u64) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000) else {
        return format!("{unix_ms} ms");
    };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03} UTC", at.millisecond())
}

/// Rounds to three digits after the point, which is all that a measurement here is good for.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1000.0).round() / 1000.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_tables_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
        assert_eq!(rounded(1.23456), 1.235);
        assert_eq!(rounded(f64::NAN), 0.0);
        assert_eq!(facts([("a", "1".to_owned()), ("bcd", "2".to_owned())]), "  a    1\n  bcd  2");
        let text = table(["a", "b"], [["1".to_owned(), "two".to_owned()]]);
        assert!(text.contains("two") && text.contains('a'));
    }

    #[test]
    fn foreign_text_moves_no_cursor_and_turns_no_line_around() {
        assert_eq!(foreign("für Ü 漢字 \u{1f600}"), "für Ü 漢字 \u{1f600}");
        assert_eq!(foreign("rent\n\u{1b}[2K2. nothing"), "rent\\u{a}\\u{1b}[2K2. nothing");
        assert_eq!(foreign("a\u{202e}b\u{9b}c\u{200f}\u{feff}"), "a\\u{202e}b\\u{9b}c\\u{200f}\\u{feff}");
    }
}

//! The form: a transaction as people write it, in TOML.
//!
//! Each move is a table, `[[pay]]`, `[[check]]` and so on, and stands in the transaction where it
//! stands in the file. Unknown keys are refused. Every error names the line. docs/transactions.md
//! is the manual.

mod beyond;
mod moves;
mod value;

use hashbrown::HashMap;
use ledger::limits::VALID_FOR_MS_MAX;
use ledger::{Address, Authorisation, Move, PublicKey};
use serde::Deserialize;
use toml::Spanned;

use super::Names;
use crate::error::{CliError, EXIT_FAILED};
use beyond::{Claim, Grant, Lock, Record, Refund, Revoke, Transfer};
use moves::{Burn, Check, Freeze, Mint, Pay, Release, Return, Rotate, Table, ToMove, Write};
use value::{Amount, Moment, Period};

/// How long a transaction may execute when the form does not say.
const VALID_FOR_MS: u64 = 5 * 60 * 1000;
/// Characters of a form, far above what the ledger's limits on moves need.
const FORM_CHARS_MAX: usize = 1024 * 1024;

type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default)]
    valid_for: Option<Spanned<Period>>,
    #[serde(default)]
    memo: String,
    #[serde(default)]
    account: Vec<Spanned<Joint>>,
    #[serde(default)]
    pay: Vec<Spanned<Pay>>,
    #[serde(default)]
    check: Vec<Spanned<Check>>,
    #[serde(default)]
    write: Vec<Spanned<Write>>,
    #[serde(default)]
    rotate: Vec<Spanned<Rotate>>,
    #[serde(default)]
    freeze: Vec<Spanned<Freeze>>,
    #[serde(default)]
    release: Vec<Spanned<Release>>,
    #[serde(default, rename = "return")]
    give_back: Vec<Spanned<Return>>,
    #[serde(default)]
    mint: Vec<Spanned<Mint>>,
    #[serde(default)]
    burn: Vec<Spanned<Burn>>,
    #[serde(default)]
    lock: Vec<Spanned<Lock>>,
    #[serde(default)]
    claim: Vec<Spanned<Claim>>,
    #[serde(default)]
    refund: Vec<Spanned<Refund>>,
    #[serde(default)]
    record: Vec<Spanned<Record>>,
    #[serde(default)]
    grant: Vec<Spanned<Grant>>,
    #[serde(default)]
    revoke: Vec<Spanned<Revoke>>,
    #[serde(default)]
    transfer: Vec<Spanned<Transfer>>,
}

/// An account of several keys, named for use in this form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Joint {
    name: Text,
    threshold: Spanned<u8>,
    keys: Vec<Text>,
    /// Where the account did not start with these keys.
    #[serde(default)]
    address: Option<Text>,
}

/// One move of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The move.
    pub mv: Move,
    /// Only its hash is to stand in the body.
    pub hidden: bool,
    /// Where it stands in the form, from 1.
    pub line: usize,
}

/// What a form says, with names replaced by what they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The moves, in the order of the file.
    pub legs: Vec<Leg>,
    /// Stored with the transaction.
    pub memo: String,
    /// From the time it is built on, milliseconds.
    pub valid_for_ms: u64,
    /// Accounts that the form defines by their keys.
    pub joint: Vec<(Address, Authorisation)>,
    /// What the form calls them.
    pub joint_names: Vec<(Address, String)>,
}

/// Reads a form.
///
/// # Errors
/// `form` for what is no form, and what a name, an amount or a move is refused for; each with its
/// line.
pub fn read(text: &str, names: &dyn Names) -> Result<Reading, CliError> {
    if text.len() > FORM_CHARS_MAX {
        return Err(wrong("the form is over 1 MiB", "a transaction has at most 64 moves; write several forms"));
    }
    let form: Form = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        let fix = "correct the line; 'seamark tx build --help' shows a form, docs/transactions.md every key";
        wrong(format!("line {line}: {}", error.message().trim().replace('\n', ", ")), fix)
    })?;
    let mut reader = Reader { text, names, joint: HashMap::new() };
    let mut reading = Reading {
        legs: Vec::new(),
        memo: form.memo.clone(),
        valid_for_ms: reader.valid_for(form.valid_for.as_ref())?,
        joint: Vec::new(),
        joint_names: Vec::new(),
    };
    for joint in &form.account {
        let (address, auth) = reader.define(joint)?;
        reading.joint.push((address, auth));
        reading.joint_names.push((address, joint.get_ref().name.get_ref().clone()));
    }
    let mut legs = Vec::new();
    reader.gather(&form.pay, &mut legs)?;
    reader.gather(&form.check, &mut legs)?;
    reader.gather(&form.write, &mut legs)?;
    reader.gather(&form.rotate, &mut legs)?;
    reader.gather(&form.freeze, &mut legs)?;
    reader.gather(&form.release, &mut legs)?;
    reader.gather(&form.give_back, &mut legs)?;
    reader.gather(&form.mint, &mut legs)?;
    reader.gather(&form.burn, &mut legs)?;
    reader.gather(&form.lock, &mut legs)?;
    reader.gather(&form.claim, &mut legs)?;
    reader.gather(&form.refund, &mut legs)?;
    reader.gather(&form.record, &mut legs)?;
    reader.gather(&form.grant, &mut legs)?;
    reader.gather(&form.revoke, &mut legs)?;
    reader.gather(&form.transfer, &mut legs)?;
    legs.sort_by_key(|(position, _)| *position);
    if legs.is_empty() {
        return Err(wrong("the form has no move", "add at least one, such as [[pay]]; see 'seamark tx build --help'"));
    }
    reading.legs = legs.into_iter().map(|(_, leg)| leg).collect();
    Ok(reading)
}

fn wrong(cause: impl ToString, fix: &str) -> CliError {
    CliError::new("form", cause, fix)
}

/// The line of a position, from 1.
fn line_at(text: &str, position: usize) -> usize {
    text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

/// Resolves what stands in a form.
struct Reader<'a> {
    text: &'a str,
    names: &'a dyn Names,
    joint: HashMap<String, Address>,
}

impl Reader<'_> {
    fn line<T>(&self, of: &Spanned<T>) -> usize {
        line_at(self.text, of.span().start)
    }

    /// Adds the line to what is wrong with a value.
    fn at<V>(&self, line: usize, result: Result<V, CliError>) -> Result<V, CliError> {
        result.map_err(|error| CliError { exit: EXIT_FAILED, ..error.context(format!("line {line}")) })
    }

    fn refuse<V>(&self, line: usize, cause: impl ToString, fix: &str) -> Result<V, CliError> {
        self.at(line, Err(wrong(cause, fix)))
    }

    fn account(&self, text: &Text) -> Result<Address, CliError> {
        match self.joint.get(text.get_ref()) {
            Some(address) => Ok(*address),
            None => self.at(self.line(text), self.names.account(text.get_ref())),
        }
    }

    fn asset(&self, text: &Text) -> Result<ledger::AssetId, CliError> {
        self.at(self.line(text), self.names.asset(text.get_ref()))
    }

    fn key(&self, text: &Text) -> Result<PublicKey, CliError> {
        self.at(self.line(text), self.names.key(text.get_ref()))
    }

    /// An amount that is moved, so it is not zero.
    fn amount(&self, amount: &Spanned<Amount>) -> Result<u128, CliError> {
        match amount.get_ref().0 {
            0 => {
                let zero = CliError::new("zero_amount", "the amount is zero", "give an amount above zero");
                self.at(self.line(amount), Err(zero))
            }
            amount => Ok(amount),
        }
    }

    fn valid_for(&self, period: Option<&Spanned<Period>>) -> Result<u64, CliError> {
        let Some(period) = period else { return Ok(VALID_FOR_MS) };
        let line = self.line(period);
        match period.get_ref().0 {
            0 => {
                self.refuse(line, "valid_for is zero", "give it the time that signing and sending need, such as \"5m\"")
            }
            ms if ms > VALID_FOR_MS_MAX => self.refuse(line, "valid_for is over 24 hours", "use at most \"24h\""),
            ms => Ok(ms),
        }
    }

    /// `threshold` of these keys, in the order that the ledger demands.
    fn rule(&self, threshold: &Spanned<u8>, keys: &[Text]) -> Result<Authorisation, CliError> {
        let mut found = keys.iter().map(|key| self.key(key)).collect::<Result<Vec<_>, _>>()?;
        found.sort_unstable();
        let auth = Authorisation::Multi { threshold: *threshold.get_ref(), keys: found };
        if auth.well_formed() {
            Ok(auth)
        } else {
            let reject = ledger::Reject::AuthForm;
            let fix = "name 1 to 16 different keys, and a threshold from 1 to their number";
            self.at(self.line(threshold), Err(CliError::new(reject.code(), reject.cause(), fix)))
        }
    }

    fn define(&mut self, joint: &Spanned<Joint>) -> Result<(Address, Authorisation), CliError> {
        let Joint { name, threshold, keys, address } = joint.get_ref();
        if self.joint.contains_key(name.get_ref()) || self.names.account(name.get_ref()).is_ok() {
            let cause = format!("the name '{}' stands for something else already", name.get_ref());
            return self.refuse(self.line(name), cause, "give the account another name in this form");
        }
        let auth = self.rule(threshold, keys)?;
        let address = match address {
            None => auth.address(),
            Some(text) => self.account(text)?,
        };
        self.joint.insert(name.get_ref().clone(), address);
        Ok((address, auth))
    }

    fn gather<T: ToMove>(&self, tables: &[Spanned<T>], legs: &mut Vec<(usize, Leg)>) -> Result<(), CliError> {
        for table in tables {
            let (found, line) = (table.get_ref(), self.line(table));
            let leg = Leg { mv: found.to_move(self, line)?, hidden: found.hidden(), line };
            legs.push((table.span().start, leg));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;

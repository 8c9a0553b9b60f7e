//! The tables of a form, one for each kind of move, and the moves they mean.

use ledger::limits::{DATA_KEY_BYTES_MAX, DATA_VALUE_BYTES_MAX};
use ledger::tx::{AccountWrite, Condition};
use ledger::{Authorisation, Move};
use serde::Deserialize;
use toml::Spanned;

use super::value::Amount;
use super::{Reader, Text};
use crate::error::CliError;

/// A table that means a move.
pub(super) trait ToMove: Table {
    /// The move; `line` is where the table starts.
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError>;
}

/// What all tables of moves have.
pub(super) trait Table {
    fn hidden(&self) -> bool;
}

/// Declares the tables of moves: their keys, and `hidden`, which all of them have.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$attribute])* $field: $kind,)*
            #[serde(default)]
            hidden: bool,
        }

        impl Table for $name {
            fn hidden(&self) -> bool {
                self.hidden
            }
        })*
    };
}

pub(super) use tables;

tables! {
    /// `[[pay]]`
    Pay { from: Text, to: Text, asset: Text, amount: Spanned<Amount>, #[serde(default)] sync: bool, }
    /// `[[mint]]`
    Mint { issuer: Text, to: Text, asset: Text, amount: Spanned<Amount>, }
    /// `[[burn]]`
    Burn { issuer: Text, asset: Text, amount: Spanned<Amount>, }
    /// `[[freeze]]`
    Freeze { issuer: Text, account: Text, asset: Text, frozen: bool, }
    /// `[[release]]`
    Release { account: Text, asset: Text, amount: Spanned<Amount>, }
    /// `[[return]]`
    Return { by: Text, account: Text, to: Text, asset: Text, amount: Spanned<Amount>, }
    /// `[[rotate]]`: one key, or a threshold of several.
    Rotate {
        account: Text,
        #[serde(default)] key: Option<Text>,
        #[serde(default)] threshold: Option<Spanned<u8>>,
        #[serde(default)] keys: Option<Vec<Text>>,
    }
    /// `[[check]]`: exactly one condition.
    Check {
        account: Text,
        #[serde(default)] at_least: Option<Bound>,
        #[serde(default)] at_most: Option<Bound>,
        #[serde(default)] version: Option<u64>,
        #[serde(default)] not_frozen: Option<Text>,
        #[serde(default)] consent: Option<bool>,
    }
    /// `[[write]]`: exactly one change.
    Write {
        account: Text,
        #[serde(default)] data: Option<Spanned<Data>>,
        #[serde(default)] limit: Option<Spanned<Limit>>,
        #[serde(default)] frozen: Option<bool>,
    }
}

/// `{ asset, amount }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bound {
    asset: Text,
    amount: Amount,
}

/// `{ key, value }`, `{ key, hex }` or `{ key, remove = true }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Data {
    key: Text,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    hex: Option<Text>,
    #[serde(default)]
    remove: bool,
}

/// `{ asset, per_tx }` or `{ asset, lift = true }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    asset: Text,
    #[serde(default)]
    per_tx: Option<Amount>,
    #[serde(default)]
    lift: bool,
}

impl ToMove for Pay {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        let (from, to) = (reader.account(&self.from)?, reader.account(&self.to)?);
        let (asset, amount) = (reader.asset(&self.asset)?, reader.amount(&self.amount)?);
        Ok(if self.sync { Move::PaySync { from, to, asset, amount } } else { Move::Pay { from, to, asset, amount } })
    }
}

impl ToMove for Mint {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Mint {
            issuer: reader.account(&self.issuer)?,
            to: reader.account(&self.to)?,
            asset: reader.asset(&self.asset)?,
            amount: reader.amount(&self.amount)?,
        })
    }
}

impl ToMove for Burn {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Burn {
            issuer: reader.account(&self.issuer)?,
            asset: reader.asset(&self.asset)?,
            amount: reader.amount(&self.amount)?,
        })
    }
}

impl ToMove for Freeze {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Freeze {
            issuer: reader.account(&self.issuer)?,
            account: reader.account(&self.account)?,
            asset: reader.asset(&self.asset)?,
            frozen: self.frozen,
        })
    }
}

impl ToMove for Release {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Release {
            account: reader.account(&self.account)?,
            asset: reader.asset(&self.asset)?,
            amount: reader.amount(&self.amount)?,
        })
    }
}

impl ToMove for Return {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Return {
            by: reader.account(&self.by)?,
            account: reader.account(&self.account)?,
            to: reader.account(&self.to)?,
            asset: reader.asset(&self.asset)?,
            amount: reader.amount(&self.amount)?,
        })
    }
}

impl ToMove for Rotate {
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError> {
        let account = reader.account(&self.account)?;
        let auth = match (&self.key, &self.threshold, &self.keys) {
            (Some(key), None, None) => Authorisation::Single(reader.key(key)?),
            (None, Some(threshold), Some(keys)) => reader.rule(threshold, keys)?,
            _ => {
                let fix = "write key = \"NAME\", or threshold = 2 and keys = [\"A\", \"B\", \"C\"]";
                return reader.refuse(line, "a rotation needs one key, or a threshold and keys", fix);
            }
        };
        Ok(Move::Rotate { account, auth })
    }
}

impl ToMove for Check {
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError> {
        let account = reader.account(&self.account)?;
        let mut conditions = Vec::new();
        if let Some(Bound { asset, amount }) = &self.at_least {
            conditions.push(Condition::AtLeast { asset: reader.asset(asset)?, amount: amount.0 });
        }
        if let Some(Bound { asset, amount }) = &self.at_most {
            conditions.push(Condition::AtMost { asset: reader.asset(asset)?, amount: amount.0 });
        }
        conditions.extend(self.version.map(Condition::Version));
        if let Some(asset) = &self.not_frozen {
            conditions.push(Condition::NotFrozen(reader.asset(asset)?));
        }
        if self.consent == Some(true) {
            conditions.push(Condition::Consent);
        }
        match <[Condition; 1]>::try_from(conditions) {
            Ok([condition]) => Ok(Move::Check { account, condition }),
            Err(conditions) => {
                let cause = format!("a check has one condition, this one has {}", conditions.len());
                let fix = "write one of at_least, at_most, version, not_frozen or consent = true; use several checks for several conditions";
                reader.refuse(line, cause, fix)
            }
        }
    }
}

impl ToMove for Write {
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError> {
        let account = reader.account(&self.account)?;
        let write = match (&self.data, &self.limit, self.frozen) {
            (Some(data), None, None) => data.get_ref().to_write(reader, reader.line(data))?,
            (None, Some(limit), None) => limit.get_ref().to_write(reader, reader.line(limit))?,
            (None, None, Some(frozen)) => AccountWrite::Frozen(frozen),
            _ => {
                let fix = "write one of data, limit or frozen; use several writes for several changes";
                return reader.refuse(line, "a write has one change", fix);
            }
        };
        Ok(Move::Write { account, write })
    }
}

impl Data {
    fn to_write(&self, reader: &Reader<'_>, line: usize) -> Result<AccountWrite, CliError> {
        let value = match (&self.value, &self.hex, self.remove) {
            (Some(value), None, false) => Some(value.as_bytes().to_vec()),
            (None, Some(digits), false) => match hex::decode(digits.get_ref()) {
                Ok(bytes) => Some(bytes),
                Err(error) => return reader.refuse(reader.line(digits), error, "write two hex digits for each byte"),
            },
            (None, None, true) => None,
            _ => {
                let fix = "write { key = \"K\", value = \"V\" }, { key = \"K\", hex = \"00ff\" } or { key = \"K\", remove = true }";
                return reader.refuse(line, "data has a key and one of value, hex or remove", fix);
            }
        };
        let key = self.key.get_ref().as_bytes().to_vec();
        let fits = (1..=DATA_KEY_BYTES_MAX).contains(&key.len())
            && value.as_ref().is_none_or(|value| value.len() <= DATA_VALUE_BYTES_MAX);
        if fits {
            Ok(AccountWrite::Data { key, value })
        } else {
            let reject = ledger::Reject::WriteForm;
            reader.at(line, Err(CliError::new(reject.code(), reject.cause(), reject.fix())))
        }
    }
}

impl Limit {
    fn to_write(&self, reader: &Reader<'_>, line: usize) -> Result<AccountWrite, CliError> {
        let per_tx = match (&self.per_tx, self.lift) {
            (Some(amount), false) => Some(amount.0),
            (None, true) => None,
            _ => {
                let fix = "write { asset = \"A\", per_tx = 500 } or { asset = \"A\", lift = true }";
                return reader.refuse(line, "a limit has an asset and one of per_tx or lift", fix);
            }
        };
        Ok(AccountWrite::Limit { asset: reader.asset(&self.asset)?, per_tx })
    }
}

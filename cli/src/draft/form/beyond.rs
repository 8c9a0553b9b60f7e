//! The tables of hash-locks, records, grants and transfers to other ledgers.

use std::str::FromStr;

use ledger::limits::RECORD_METADATA_BYTES_MAX;
use ledger::lock::LockTerms;
use ledger::record::{GrantTerms, Grantee, scope_well_formed};
use ledger::{GroupId, GroupKind, Hash32, LedgerId, LockId, Move, OrgId, Reject, TimeMs};
use serde::Deserialize;
use toml::Spanned;

use super::moves::tables;
use super::{Amount, Moment, Reader, Table, Text, ToMove};
use crate::error::CliError;

tables! {
    /// `[[lock]]`
    Lock { from: Text, to: Text, asset: Text, amount: Spanned<Amount>, hash: Text, deadline: Moment, }
    /// `[[claim]]`
    Claim { from: Text, lock: Text, to: Text, asset: Text, amount: Spanned<Amount>, secret: Text, }
    /// `[[refund]]`
    Refund { from: Text, lock: Text, to: Text, asset: Text, amount: Spanned<Amount>, }
    /// `[[record]]`
    Record { owner: Text, hash: Text, #[serde(default)] metadata: Option<Text>, }
    /// `[[grant]]`: to an account or to an organisation.
    Grant {
        owner: Text,
        record: Text,
        #[serde(default)] account: Option<Text>,
        #[serde(default)] org: Option<u16>,
        scope: Text,
        #[serde(default)] until: Option<Moment>,
    }
    /// `[[revoke]]`: of an account or of an organisation.
    Revoke {
        owner: Text,
        record: Text,
        #[serde(default)] account: Option<Text>,
        #[serde(default)] org: Option<u16>,
    }
    /// `[[transfer]]`
    Transfer { from: Text, to: Text, asset: Text, amount: Spanned<Amount>, ledger: Text, }
}

/// 32 bytes in hex.
fn digits<T: FromStr>(reader: &Reader<'_>, text: &Text, what: &str) -> Result<T, CliError> {
    match text.get_ref().parse() {
        Ok(found) => Ok(found),
        Err(_) => reader.refuse(reader.line(text), format!("{what} is 32 bytes"), "write it as 64 hex digits"),
    }
}

/// What the ledger would refuse without a look at its state.
fn refused<T>(reader: &Reader<'_>, line: usize, reject: Reject) -> Result<T, CliError> {
    reader.at(line, Err(CliError::new(reject.code(), reject.cause(), reject.fix())))
}

fn grantee(reader: &Reader<'_>, line: usize, account: Option<&Text>, org: Option<u16>) -> Result<Grantee, CliError> {
    match (account, org) {
        (Some(account), None) => Ok(Grantee::Account(reader.account(account)?)),
        (None, Some(org)) => Ok(Grantee::Org(OrgId(org))),
        _ => reader.refuse(line, "access is one party's", "write account = \"NAME\" or org = NUMBER"),
    }
}

fn terms(reader: &Reader<'_>, to: &Text, asset: &Text, amount: &Spanned<Amount>) -> Result<LockTerms, CliError> {
    Ok(LockTerms { to: reader.account(to)?, asset: reader.asset(asset)?, amount: reader.amount(amount)? })
}

impl ToMove for Lock {
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError> {
        let LockTerms { to, asset, amount } = terms(reader, &self.to, &self.asset, &self.amount)?;
        let (from, deadline_ms) = (reader.account(&self.from)?, TimeMs(self.deadline.0));
        if from == to {
            return refused(reader, line, Reject::LockForm);
        }
        let hash: Hash32 = digits(reader, &self.hash, "the SHA-256 of a secret")?;
        Ok(Move::Lock { from, to, asset, amount, hash, deadline_ms })
    }
}

impl ToMove for Claim {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        let secret: Hash32 = digits(reader, &self.secret, "the secret of a lock")?;
        Ok(Move::Claim {
            from: reader.account(&self.from)?,
            lock: digits::<LockId>(reader, &self.lock, "the id of a lock")?,
            terms: terms(reader, &self.to, &self.asset, &self.amount)?,
            secret: secret.0,
        })
    }
}

impl ToMove for Refund {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Refund {
            from: reader.account(&self.from)?,
            lock: digits::<LockId>(reader, &self.lock, "the id of a lock")?,
            terms: terms(reader, &self.to, &self.asset, &self.amount)?,
        })
    }
}

impl ToMove for Record {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        let metadata = self.metadata.as_ref().map_or("", |text| text.get_ref().as_str());
        if metadata.len() > RECORD_METADATA_BYTES_MAX {
            let line = self.metadata.as_ref().map_or(1, |text| reader.line(text));
            return refused(reader, line, Reject::RecordForm);
        }
        let hash = digits(reader, &self.hash, "the hash of a record")?;
        Ok(Move::Record { owner: reader.account(&self.owner)?, hash, metadata: metadata.into() })
    }
}

impl ToMove for Grant {
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError> {
        let owner = reader.account(&self.owner)?;
        let to = grantee(reader, line, self.account.as_ref(), self.org)?;
        if to == Grantee::Account(owner) {
            return refused(reader, line, Reject::RecordForm);
        }
        let scope = self.scope.get_ref().clone();
        if !scope_well_formed(&scope) {
            return refused(reader, reader.line(&self.scope), Reject::RecordForm);
        }
        let terms = GrantTerms { scope, until_ms: self.until.map(|until| TimeMs(until.0)) };
        Ok(Move::Grant { owner, record: digits(reader, &self.record, "the hash of a record")?, to, terms })
    }
}

impl ToMove for Revoke {
    fn to_move(&self, reader: &Reader<'_>, line: usize) -> Result<Move, CliError> {
        Ok(Move::Revoke {
            owner: reader.account(&self.owner)?,
            record: digits(reader, &self.record, "the hash of a record")?,
            from: grantee(reader, line, self.account.as_ref(), self.org)?,
        })
    }
}

impl ToMove for Transfer {
    fn to_move(&self, reader: &Reader<'_>, _: usize) -> Result<Move, CliError> {
        Ok(Move::Transfer {
            from: reader.account(&self.from)?,
            to: reader.account(&self.to)?,
            asset: reader.asset(&self.asset)?,
            amount: reader.amount(&self.amount)?,
            ledger: ledger(reader, &self.ledger)?,
        })
    }
}

/// `main`, or the name of a channel.
fn ledger(reader: &Reader<'_>, text: &Text) -> Result<LedgerId, CliError> {
    if text.get_ref() == "main" {
        return Ok(LedgerId::MAIN);
    }
    match text.get_ref().parse::<GroupId>() {
        Ok(group) if group.kind() == Some(GroupKind::Channel) => Ok(LedgerId::of_channel(group)),
        _ => {
            let cause = format!("'{}' is no ledger", text.get_ref());
            reader.refuse(reader.line(text), cause, "write \"main\" or a channel such as \"channel-3\"")
        }
    }
}

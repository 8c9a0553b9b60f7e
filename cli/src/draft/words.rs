//! Transactions in plain words: what each move does, who votes, what is missing.

use std::fmt::Write as _;

use hashbrown::HashMap;
use ledger::record::Grantee;
use ledger::tx::{AccountWrite, Condition};
use ledger::{Address, AssetId, Authorisation, GroupId, Layout, LedgerId, LockId, Move, PublicKey, Slot};
use serde::Serialize;

use super::file::TxFile;
use crate::output::{foreign, moment, with_decimals};

/// What people call accounts, assets and keys. What has no name is shown whole: a part of an
/// address could be that of somebody else.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// By address.
    pub accounts: HashMap<Address, String>,
    /// By id.
    pub assets: HashMap<AssetId, String>,
    /// Digits after the point, by id; amounts of others are shown in the smallest unit.
    pub decimals: HashMap<AssetId, u8>,
    /// By public key.
    pub keys: HashMap<PublicKey, String>,
}

impl Labels {
    /// An account.
    #[must_use]
    pub fn account(&self, address: &Address) -> String {
        self.accounts.get(address).cloned().unwrap_or_else(|| address.to_string())
    }

    /// An asset.
    #[must_use]
    pub fn asset(&self, id: &AssetId) -> String {
        self.assets.get(id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// A key.
    #[must_use]
    pub fn key(&self, key: &PublicKey) -> String {
        self.keys.get(key).cloned().unwrap_or_else(|| key.to_string())
    }

    /// An amount with its asset.
    #[must_use]
    pub fn amount(&self, amount: u128, asset: &AssetId) -> String {
        format!("{} {}", self.number(amount, asset), self.asset(asset))
    }

    /// An amount with the decimals of its asset.
    #[must_use]
    pub fn number(&self, amount: u128, asset: &AssetId) -> String {
        with_decimals(amount, self.decimals.get(asset).copied().unwrap_or(0))
    }

    fn rule(&self, auth: &Authorisation) -> String {
        match auth {
            Authorisation::Single(key) => format!("the key {}", self.key(key)),
            Authorisation::Multi { threshold, keys } => {
                let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
                format!("{threshold} of the keys {}", keys.join(", "))
            }
        }
    }

    /// What a move does.
    #[must_use]
    pub fn sentence(&self, mv: &Move) -> String {
        let name = |address: &Address| self.account(address);
        match mv {
            Move::Pay { from, to, asset, amount } => {
                format!("{} pays {} {}", name(from), name(to), self.amount(*amount, asset))
            }
            Move::PaySync { from, to, asset, amount } => {
                format!("{} pays {} {}, credited in the same step", name(from), name(to), self.amount(*amount, asset))
            }
            Move::Mint { issuer, to, asset, amount } => {
                format!("{} creates {} for {}", name(issuer), self.amount(*amount, asset), name(to))
            }
            Move::Burn { issuer, asset, amount } => {
                format!("{} destroys {}", name(issuer), self.amount(*amount, asset))
            }
            Move::Issue(spec) => format!("{} issues {}", name(&spec.issuer), spec.symbol),
            Move::Rotate { account, auth } => {
                format!("{} is signed for by {} from now on", name(account), self.rule(auth))
            }
            Move::Check { account, condition } => self.condition(&name(account), condition),
            Move::Write { account, write } => self.write(&name(account), write),
            Move::Freeze { issuer, account, asset, frozen } => {
                let verb = if *frozen { "freezes" } else { "thaws" };
                format!("{} {verb} what {} holds of {}", name(issuer), name(account), self.asset(asset))
            }
            Move::Release { account, asset, amount } => {
                format!("{} takes {} out of suspense", name(account), self.amount(*amount, asset))
            }
            Move::Return { by, account, to, asset, amount } => format!(
                "{} sends {} from the suspense of {} to {}",
                name(by),
                self.amount(*amount, asset),
                name(account),
                name(to)
            ),
            Move::Lock { from, to, asset, amount, hash, deadline_ms } => format!(
                "{} sets {} aside for {}, for whoever shows the secret behind {hash} before {}",
                name(from),
                self.amount(*amount, asset),
                name(to),
                moment(deadline_ms.0)
            ),
            Move::Claim { from, lock, terms, .. } => format!(
                "{} gets {} out of the lock {lock} of {}, by its secret",
                name(&terms.to),
                self.amount(terms.amount, &terms.asset),
                name(from)
            ),
            Move::Refund { from, lock, terms } => format!(
                "{} takes {} back out of the lock {lock} for {}",
                name(from),
                self.amount(terms.amount, &terms.asset),
                name(&terms.to)
            ),
            Move::Record { owner, hash, metadata } => {
                let note = if metadata.is_empty() { String::new() } else { format!(", {}", quoted(metadata)) };
                format!("{} records {hash}{note}", name(owner))
            }
            Move::Grant { owner, record, to, terms } => {
                let until = terms.until_ms.map_or_else(String::new, |until| format!(" until {}", moment(until.0)));
                let (owner, to) = (name(owner), self.grantee(to));
                format!("{owner} grants {to} \"{}\" on the record {record}{until}", terms.scope)
            }
            Move::Revoke { owner, record, from } => {
                format!("{} revokes what {} was granted on the record {record}", name(owner), self.grantee(from))
            }
            Move::Transfer { from, to, asset, amount, ledger } => {
                format!("{} pays {} {} in {}", name(from), name(to), self.amount(*amount, asset), ledger_name(*ledger))
            }
        }
    }

    /// Whom a record is granted to.
    #[must_use]
    pub fn grantee(&self, who: &Grantee) -> String {
        match who {
            Grantee::Account(account) => self.account(account),
            Grantee::Org(org) => format!("organisation {org}"),
        }
    }

    fn condition(&self, account: &str, condition: &Condition) -> String {
        match condition {
            Condition::AtLeast { asset, amount } => {
                format!("only if {account} has at least {} available", self.amount(*amount, asset))
            }
            Condition::AtMost { asset, amount } => {
                format!("only if {account} has at most {}", self.amount(*amount, asset))
            }
            Condition::Version(sequence) => format!("only if {account} is unchanged since its version {sequence}"),
            Condition::NotFrozen(asset) => format!("only if {account} can spend {}", self.asset(asset)),
            Condition::Consent => format!("only if {account} consents"),
        }
    }

    fn write(&self, account: &str, write: &AccountWrite) -> String {
        match write {
            AccountWrite::Data { key, value: Some(value) } => {
                format!("{account} sets {} to {}", quoted(key), quoted(value))
            }
            AccountWrite::Data { key, value: None } => format!("{account} removes {}", quoted(key)),
            AccountWrite::Limit { asset, per_tx: Some(limit) } => {
                format!("{account} limits what one transaction may take to {}", self.amount(*limit, asset))
            }
            AccountWrite::Limit { asset, per_tx: None } => {
                format!("{account} lifts its limit of {}", self.asset(asset))
            }
            AccountWrite::Frozen(true) => format!("{account} freezes itself"),
            AccountWrite::Frozen(false) => format!("{account} thaws itself"),
        }
    }
}

/// A ledger for people, as forms name it, too.
#[must_use]
pub fn ledger_name(ledger: LedgerId) -> String {
    if ledger == LedgerId::MAIN { "the main ledger".to_owned() } else { GroupId(ledger.0).to_string() }
}

/// Bytes of account data for people: as text in quotes where it is text, else in hex.
#[must_use]
pub fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if foreign(text) == text => format!("\"{text}\""),
        _ => format!("0x{}", hex::encode(bytes)),
    }
}

/// A transaction as people and programs are told it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Its id.
    pub txid: String,
    /// Last block time at which it may execute.
    pub valid_until_ms: u64,
    /// Text stored with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memo: String,
    /// Its moves, in order.
    pub moves: Vec<MoveLine>,
    /// The groups whose YES it needs.
    pub groups: Vec<String>,
    /// Who has to sign.
    pub signers: Vec<SignerLine>,
    /// Whether every signature is there.
    pub complete: bool,
}

/// A move of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct MoveLine {
    /// What it does.
    pub text: String,
    /// Groups that vote on it.
    pub voters: Vec<String>,
    /// The group that is credited afterwards, and cannot refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credited: Option<String>,
    /// Only its hash stands in the body.
    pub hidden: bool,
    /// The id of the hash-lock that it makes, by which it is claimed or refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

/// A signer of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct SignerLine {
    /// Its accounts.
    pub accounts: Vec<String>,
    /// Signatures needed; absent while the authorisation is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<usize>,
    /// Keys that have signed.
    pub signed: Vec<String>,
    /// Keys that may still sign.
    pub may_sign: Vec<String>,
    /// Signatures that are missing.
    pub missing: usize,
}

impl Plan {
    /// What a transaction file means under a layout.
    #[must_use]
    pub fn of(file: &TxFile, layout: &Layout, labels: &Labels) -> Self {
        let mut groups: Vec<GroupId> = Vec::new();
        let moves = file
            .moves()
            .zip(0u16..)
            .map(|((slot, mv), index)| {
                let voters = voters(slot, layout);
                groups.extend(&voters);
                let locks = matches!(mv, Some(Move::Lock { .. }));
                let lock = locks.then(|| LockId::derive(&file.txid(), index).to_string());
                MoveLine { lock, ..line(slot, mv, &voters, layout, labels) }
            })
            .collect();
        groups.sort_unstable();
        groups.dedup();
        let body = file.body();
        Self {
            txid: file.txid().to_string(),
            valid_until_ms: body.valid_until_ms.0,
            memo: String::from_utf8_lossy(&body.memo).into_owned(),
            moves,
            groups: groups.iter().map(ToString::to_string).collect(),
            signers: signers(file, labels),
            complete: file.complete(),
        }
    }

    /// The plan for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("transaction {}", self.txid);
        let _ = write!(text, "\n  valid until {}", moment(self.valid_until_ms));
        if !self.memo.is_empty() {
            let _ = write!(text, "\n  memo: {}", foreign(&self.memo));
        }
        text.push_str("\nwhat it does");
        for (mv, number) in self.moves.iter().zip(1..) {
            let _ = write!(text, "\n  {number}. {}\n     {}", mv.text, mv.fate());
        }
        let _ = write!(text, "\n{}", self.outcome());
        text.push_str("\nsignatures");
        for signer in &self.signers {
            let _ = write!(text, "\n  {}", signer.text());
        }
        text
    }

    fn outcome(&self) -> String {
        match self.groups.as_slice() {
            [group] => format!("{group} decides alone: all of it happens, or nothing"),
            groups => format!("all of it happens if {} each say yes; otherwise nothing does", and(groups)),
        }
    }
}

impl MoveLine {
    fn fate(&self) -> String {
        let mut text = format!("{} {}", and(&self.voters), if self.voters.len() == 1 { "votes" } else { "vote" });
        if let Some(credited) = &self.credited {
            let _ = write!(text, "; the credit in {credited} follows and cannot fail");
        }
        if self.hidden {
            text.push_str("; hidden from all other groups");
        }
        if let Some(lock) = &self.lock {
            let _ = write!(text, "; the lock's id is {lock}");
        }
        text
    }
}

impl SignerLine {
    fn text(&self) -> String {
        let accounts = self.accounts.join(", ");
        let mark = if self.missing == 0 { "✓" } else { "✗" };
        let mut parts = Vec::new();
        match self.threshold {
            None => parts.push("MISSING; its keys are not known here, so let its holder sign".to_owned()),
            Some(threshold) => {
                if threshold > 1 || self.signed.len() + self.may_sign.len() > 1 {
                    parts.push(format!("{} of {threshold} signatures", self.signed.len().min(threshold)));
                }
                if !self.signed.is_empty() {
                    parts.push(format!("signed by {}", and(&self.signed)));
                }
                if self.missing > 0 {
                    parts.push(format!("MISSING; may be signed by {}", self.may_sign.join(" or ")));
                }
            }
        }
        format!("{mark} {accounts}: {}", parts.join(", "))
    }
}

/// The groups that vote on a slot, each once.
fn voters(slot: &Slot, layout: &Layout) -> Vec<GroupId> {
    let mut groups = match slot {
        Slot::Hidden { group, .. } => vec![*group],
        Slot::Clear { ledger, mv } => mv.voters().map(|voter| home(layout, *ledger, &voter.account)).collect(),
    };
    groups.dedup();
    groups
}

fn home(layout: &Layout, ledger: LedgerId, account: &Address) -> GroupId {
    if ledger == LedgerId::MAIN { layout.locate(account) } else { GroupId(ledger.0) }
}

fn line(slot: &Slot, mv: Option<&Move>, voters: &[GroupId], layout: &Layout, labels: &Labels) -> MoveLine {
    let (ledger, hidden) = match slot {
        Slot::Clear { ledger, .. } => (*ledger, false),
        Slot::Hidden { ledger, .. } => (*ledger, true),
    };
    let credited =
        mv.and_then(Move::follower).map(|to| home(layout, ledger, &to)).filter(|group| !voters.contains(group));
    MoveLine {
        text: mv
            .map_or_else(|| "a hidden move, whose opening is not in this file".to_owned(), |mv| labels.sentence(mv)),
        voters: voters.iter().map(ToString::to_string).collect(),
        credited: credited.map(|group| group.to_string()),
        hidden,
        lock: None,
    }
}

fn signers(file: &TxFile, labels: &Labels) -> Vec<SignerLine> {
    file.signers()
        .iter()
        .map(|signer| {
            let (signed, may): (Vec<_>, Vec<_>) =
                signer.keys().iter().partition(|key| signer.signatures.contains_key(*key));
            SignerLine {
                accounts: signer.accounts.iter().map(|account| labels.account(account)).collect(),
                threshold: signer.rule.as_ref().map(Authorisation::threshold),
                signed: signed.into_iter().map(|key| labels.key(key)).collect(),
                may_sign: may.into_iter().map(|key| labels.key(key)).collect(),
                missing: signer.missing(),
            }
        })
        .collect()
}

/// A list as people say it.
#[must_use]
pub fn and<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [rest @ .., last] => {
            let rest: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", rest.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;

//! The transaction file: a body on its way to being signed, in JSON.
//!
//! It holds the bytes that are signed, who has to sign them and by which rule, the signatures so
//! far, and the openings of hidden moves. Whoever reads one checks everything that can be checked
//! without the ledger: the id, the form of the body, that openings fit their hashes, and every
//! signature. docs/transactions.md describes each field.

mod paper;

pub use paper::FILE_BYTES_MAX;

use std::collections::BTreeMap;

use ledger::auth::Witness;
use ledger::tx::{BODY_VERSION, Opening, ParsedTx, Submission};
use ledger::{
    Address, Authorisation, ClusterId, GroupId, Hash32, Layout, LedgerId, PublicKey, Reject, SecretKey, Signature,
    SignedTx, Slot, TimeMs, TxBody, TxId,
};

use super::form::Leg;
use crate::error::CliError;

/// A transaction that is being signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxFile {
    body: TxBody,
    bytes: Vec<u8>,
    txid: TxId,
    signers: Vec<Signer>,
    /// Sorted by slot.
    openings: Vec<Opening>,
}

/// Accounts that one authorisation stands for, and its signatures so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The accounts, in the order of the moves.
    pub accounts: Vec<Address>,
    /// Their authorisation; `None` while nobody has said what it is.
    pub rule: Option<Authorisation>,
    /// Valid signatures over the id.
    pub signatures: BTreeMap<PublicKey, Signature>,
}

impl Signer {
    /// How many signatures are still missing. One at least while the authorisation is not known.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.rule.as_ref().map_or(1, Authorisation::threshold).saturating_sub(self.signatures.len())
    }

    /// The keys that may sign.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        match &self.rule {
            None => &[],
            Some(Authorisation::Single(key)) => std::slice::from_ref(key),
            Some(Authorisation::Multi { keys, .. }) => keys,
        }
    }

    /// The witness, with exactly as many signatures as the rule needs.
    fn witness(&self) -> Option<Witness> {
        let auth = self.rule.clone()?;
        let indexed = (0u8..).zip(self.keys());
        let found = indexed.filter_map(|(index, key)| Some((index, *self.signatures.get(key)?)));
        let signatures: Vec<_> = found.take(auth.threshold()).collect();
        (signatures.len() == auth.threshold()).then_some(Witness { auth, signatures })
    }
}

/// What a transaction is built from, besides its moves.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Which group owns which account: hidden moves name their group.
    pub layout: &'a Layout,
    /// Last block time at which it may execute.
    pub valid_until_ms: TimeMs,
    /// Makes it distinct from an equal one.
    pub salt: [u8; 16],
    /// Hides the moves: the salt of a slot is derived from it.
    pub slot_secret: Hash32,
    /// Stored with it.
    pub memo: &'a str,
}

/// The error of a transaction that no cluster would take.
fn refused(reject: Reject) -> CliError {
    CliError::new(reject.code(), reject.cause(), reject.fix())
}

impl TxFile {
    /// Builds the body of these moves. `rule` says by what an account is authorised, where that is
    /// known.
    ///
    /// # Errors
    /// What the ledger would refuse the body for, and `tx_hidden` for a move that cannot be hidden.
    pub fn build(
        frame: &Frame<'_>,
        legs: &[Leg],
        rule: impl Fn(&Address) -> Option<Authorisation>,
    ) -> Result<Self, CliError> {
        let (mut slots, mut openings) = (Vec::with_capacity(legs.len()), Vec::new());
        for (leg, slot) in legs.iter().zip(0u16..) {
            if leg.hidden {
                let salt = ledger::hash::tagged(b"seamark/slot-salt/v1", &[&slot.to_be_bytes(), &frame.slot_secret.0]);
                let opening = Opening { slot, salt, mv: leg.mv.clone() };
                let group = one_group(frame.layout, leg)?;
                slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group, hash: opening.hash() });
                openings.push(opening);
            } else {
                slots.push(Slot::Clear { ledger: LedgerId::MAIN, mv: leg.mv.clone() });
            }
        }
        let body = TxBody {
            version: BODY_VERSION,
            cluster: frame.cluster,
            valid_until_ms: frame.valid_until_ms,
            salt: frame.salt,
            slots,
            memo: frame.memo.as_bytes().to_vec(),
        };
        let mut file = Self::of(body.encode(), &frame.cluster, openings)?;
        for account in file.must_authorise() {
            file.signers.push(Signer { accounts: vec![account], rule: None, signatures: BTreeMap::new() });
            if let Some(rule) = rule(&account) {
                file.learn(&account, rule);
            }
        }
        Ok(file)
    }

    /// Checks a body with its openings, as the ledger would.
    fn of(bytes: Vec<u8>, cluster: &ClusterId, openings: Vec<Opening>) -> Result<Self, CliError> {
        let unsigned = SignedTx { version: 1, body: bytes, witnesses: Vec::new() };
        let parsed = ParsedTx::decode(cluster, &Submission::encode(unsigned.encode(), openings)).map_err(refused)?;
        let ParsedTx { txid, body, body_bytes, openings, .. } = parsed;
        Ok(Self { body, bytes: body_bytes, txid, signers: Vec::new(), openings })
    }

    /// The accounts that have to authorise the moves that can be seen here, each once.
    fn must_authorise(&self) -> Vec<Address> {
        let mut accounts = Vec::new();
        for (_, mv) in self.moves() {
            for voter in mv.into_iter().flat_map(ledger::Move::voters) {
                if voter.authorises && !accounts.contains(&voter.account) {
                    accounts.push(voter.account);
                }
            }
        }
        accounts
    }

    /// The slots in order, each with its move where that can be seen here.
    pub fn moves(&self) -> impl Iterator<Item = (&Slot, Option<&ledger::Move>)> {
        (0u16..).zip(&self.body.slots).map(|(index, slot)| {
            let mv = match slot {
                Slot::Clear { mv, .. } => Some(mv),
                Slot::Hidden { .. } => {
                    self.openings.iter().find(|opening| opening.slot == index).map(|found| &found.mv)
                }
            };
            (slot, mv)
        })
    }

    /// The id.
    #[must_use]
    pub fn txid(&self) -> TxId {
        self.txid
    }

    /// What is signed.
    #[must_use]
    pub fn body(&self) -> &TxBody {
        &self.body
    }

    /// The transaction as the ledger reads it, with the openings that are here and no signatures.
    #[must_use]
    pub fn parsed(&self) -> ParsedTx {
        ParsedTx {
            txid: self.txid,
            body: self.body.clone(),
            body_bytes: self.bytes.clone(),
            witnesses: Vec::new(),
            openings: self.openings.clone(),
            dealt: Vec::new(),
        }
    }

    /// Who has to sign, in the order of the moves.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// Openings of hidden moves that the file holds, by slot.
    #[must_use]
    pub fn openings(&self) -> &[Opening] {
        &self.openings
    }

    /// Whether every authorisation is complete.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.signers.iter().all(|signer| signer.missing() == 0)
    }

    /// Takes note of an account's authorisation. Accounts that share one become one signer, since
    /// they share its signatures.
    pub fn learn(&mut self, account: &Address, rule: Authorisation) {
        let Some(at) = self.signers.iter().position(|signer| signer.accounts.contains(account)) else { return };
        if self.signers[at].rule.as_ref() == Some(&rule) {
            return;
        }
        self.signers[at].accounts.retain(|known| known != account);
        match self.signers.iter_mut().find(|signer| signer.rule.as_ref() == Some(&rule)) {
            Some(same) => same.accounts.push(*account),
            None => {
                let signer = Signer { accounts: vec![*account], rule: Some(rule), signatures: BTreeMap::new() };
                self.signers.insert(at + 1, signer);
            }
        }
        self.signers.retain(|signer| !signer.accounts.is_empty());
    }

    /// Adds the signature of a key to every authorisation it belongs to. Returns the accounts it
    /// speaks for: none when it has no say.
    pub fn sign(&mut self, key: &SecretKey) -> Vec<Address> {
        let public = key.public();
        let own = Authorisation::Single(public);
        let own_address = own.address();
        let unknown = |signer: &Signer| signer.rule.is_none() && signer.accounts.contains(&own_address);
        if self.signers.iter().any(unknown) {
            self.learn(&own_address, own);
        }
        let mut accounts = Vec::new();
        for signer in self.signers.iter_mut().filter(|signer| signer.keys().contains(&public)) {
            signer.signatures.insert(public, key.sign(&self.txid.0));
            accounts.extend(&signer.accounts);
        }
        accounts
    }

    /// Takes over the signatures and openings of another copy of the same transaction.
    ///
    /// # Errors
    /// `tx_other` when it is another transaction.
    pub fn merge(&mut self, other: &Self) -> Result<(), CliError> {
        if other.bytes != self.bytes {
            let cause = format!("the files hold different transactions: {} and {}", self.txid, other.txid);
            return Err(CliError::new(
                "tx_other",
                cause,
                "merge only copies of one file; each build makes a new transaction",
            ));
        }
        for theirs in &other.signers {
            let Some(rule) = &theirs.rule else { continue };
            for account in &theirs.accounts {
                let unknown = |ours: &Signer| ours.rule.is_none() && ours.accounts.contains(account);
                if self.signers.iter().any(unknown) {
                    self.learn(account, rule.clone());
                }
            }
            if let Some(ours) = self.signers.iter_mut().find(|signer| signer.rule.as_ref() == Some(rule)) {
                ours.signatures.extend(&theirs.signatures);
            }
        }
        for opening in &other.openings {
            if let Err(at) = self.openings.binary_search_by_key(&opening.slot, |known| known.slot) {
                self.openings.insert(at, opening.clone());
            }
        }
        Ok(())
    }

    /// Keeps the openings of these groups alone.
    pub fn redact(&mut self, keep: &[GroupId]) {
        let slots = &self.body.slots;
        self.openings.retain(|opening| {
            let slot = slots.get(usize::from(opening.slot));
            matches!(slot, Some(Slot::Hidden { group, .. }) if keep.contains(group))
        });
    }

    /// The signed transaction, encoded.
    ///
    /// # Errors
    /// `tx_incomplete` with the accounts whose signatures are missing.
    pub fn signed(&self, label: impl Fn(&Address) -> String) -> Result<Vec<u8>, CliError> {
        let missing: Vec<String> = self
            .signers
            .iter()
            .filter(|signer| signer.missing() > 0)
            .map(|signer| {
                let accounts: Vec<String> = signer.accounts.iter().map(&label).collect();
                format!("{} of {}", signer.missing(), accounts.join(", "))
            })
            .collect();
        if !missing.is_empty() {
            let cause = format!("signatures are missing: {}", missing.join("; "));
            return Err(CliError::new("tx_incomplete", cause, "add them with 'seamark tx cosign FILE --key NAME'"));
        }
        let witnesses = self.signers.iter().filter_map(Signer::witness).collect();
        Ok(SignedTx { version: 1, body: self.bytes.clone(), witnesses }.encode())
    }
}

/// The one group that all voters of a hidden move live in.
fn one_group(layout: &Layout, leg: &Leg) -> Result<GroupId, CliError> {
    let mut groups: Vec<GroupId> = leg.mv.voters().map(|voter| layout.locate(&voter.account)).collect();
    groups.dedup();
    match groups.as_slice() {
        [group] => Ok(*group),
        _ => Err(CliError::new(
            "tx_hidden",
            format!(
                "line {}: the accounts that vote on this move live in two groups, so it cannot be hidden from one",
                leg.line
            ),
            "leave out 'hidden', or use a move that one account votes on, such as a pay without 'sync'",
        )),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

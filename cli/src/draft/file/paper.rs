//! The JSON of a transaction file, version 1.

use std::collections::BTreeMap;

use ledger::tx::Opening;
use ledger::{Address, Authorisation, ClusterId, GroupId, Hash32, PublicKey, Signature, Slot, TxId, crypto};
use serde::{Deserialize, Serialize};

use super::{Signer, TxFile};
use crate::error::CliError;

const FORMAT: &str = "seamark transaction";
const VERSION: u8 = 1;
/// Hex of the largest submission, with room for the JSON around it.
pub const FILE_BYTES_MAX: usize = 4 * ledger::limits::SUBMISSION_BYTES_MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    format: String,
    version: u8,
    cluster: ClusterId,
    txid: TxId,
    body: String,
    signers: Vec<PaperSigner>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    openings: Vec<PaperOpening>,
}

/// One key under `key`, or a threshold of `keys`; neither while the authorisation is not known.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PaperSigner {
    accounts: Vec<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<PublicKey>>,
    signatures: BTreeMap<PublicKey, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PaperOpening {
    slot: u16,
    group: String,
    salt: Hash32,
    #[serde(rename = "move")]
    mv: String,
}

fn wrong(cause: impl std::fmt::Display) -> CliError {
    let fix = "get the file again from whoever built it; a transaction file is never edited by hand";
    CliError::new("tx_file", format!("this is no sound transaction file: {cause}"), fix)
}

fn bytes(field: &str, digits: &str) -> Result<Vec<u8>, CliError> {
    hex::decode(digits).map_err(|error| wrong(format!("{field}: {error}")))
}

impl TxFile {
    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let paper = Paper {
            format: FORMAT.to_owned(),
            version: VERSION,
            cluster: self.body.cluster,
            txid: self.txid,
            body: hex::encode(&self.bytes),
            signers: self.signers.iter().map(PaperSigner::of).collect(),
            openings: self.openings.iter().filter_map(|opening| PaperOpening::of(opening, self)).collect(),
        };
        let mut text = serde_json::to_string_pretty(&paper).expect("plain data has a JSON form");
        text.push('\n');
        text
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// `tx_file` with what is wrong, `tx_version`, or what the ledger would refuse the body for.
    pub fn from_text(text: &str) -> Result<Self, CliError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(wrong("it is too large"));
        }
        let paper: Paper = serde_json::from_str(text).map_err(wrong)?;
        if paper.format != FORMAT {
            return Err(wrong(format!("its format is '{}'", paper.format)));
        }
        if paper.version != VERSION {
            let cause =
                format!("the transaction file has version {}, this program knows version {VERSION}", paper.version);
            return Err(CliError::new("tx_version", cause, "use a newer program"));
        }
        let openings = paper.openings.iter().map(PaperOpening::read).collect::<Result<Vec<_>, _>>()?;
        let mut file = Self::of(bytes("body", &paper.body)?, &paper.cluster, openings)?;
        if file.txid != paper.txid {
            return Err(wrong(format!("its id is {}, but its body has {}", paper.txid, file.txid)));
        }
        for opening in &paper.openings {
            let group = file.group_of(opening.slot).map(|group| group.to_string());
            if group.as_ref() != Some(&opening.group) {
                return Err(wrong(format!("the opening of move {} names another group", opening.slot + 1)));
            }
        }
        file.signers = paper.signers.iter().map(|signer| signer.read(&file.txid)).collect::<Result<Vec<_>, _>>()?;
        let listed = |account: &Address| file.signers.iter().filter(|signer| signer.accounts.contains(account)).count();
        for account in file.must_authorise() {
            if listed(&account) != 1 {
                return Err(wrong(format!("account {account} has to sign and is not listed once")));
            }
        }
        Ok(file)
    }

    /// The group that an opening is for.
    fn group_of(&self, slot: u16) -> Option<GroupId> {
        match self.body.slots.get(usize::from(slot))? {
            Slot::Hidden { group, .. } => Some(*group),
            Slot::Clear { .. } => None,
        }
    }
}

impl PaperSigner {
    fn of(signer: &Signer) -> Self {
        let (key, threshold, keys) = match &signer.rule {
            None => (None, None, None),
            Some(Authorisation::Single(key)) => (Some(*key), None, None),
            Some(Authorisation::Multi { threshold, keys }) => (None, Some(*threshold), Some(keys.clone())),
        };
        let signatures = signer.signatures.iter().map(|(key, signature)| (*key, hex::encode(signature.0))).collect();
        Self { accounts: signer.accounts.clone(), key, threshold, keys, signatures }
    }

    fn read(&self, txid: &TxId) -> Result<Signer, CliError> {
        let rule = match (&self.key, &self.threshold, &self.keys) {
            (None, None, None) => None,
            (Some(key), None, None) => Some(Authorisation::Single(*key)),
            (None, Some(threshold), Some(keys)) => {
                Some(Authorisation::Multi { threshold: *threshold, keys: keys.clone() })
            }
            _ => return Err(wrong("a signer has either a key, or a threshold and keys")),
        };
        if self.accounts.is_empty() || rule.as_ref().is_some_and(|rule| !rule.well_formed()) {
            return Err(wrong("a signer without account, or with keys that no account can have"));
        }
        let mut signer = Signer { accounts: self.accounts.clone(), rule, signatures: BTreeMap::new() };
        for (key, digits) in &self.signatures {
            let signature = bytes("a signature", digits)?;
            let signature = Signature(signature.try_into().map_err(|_| wrong("a signature has 64 bytes"))?);
            if !signer.keys().contains(key) || crypto::verify(key, &txid.0, &signature).is_err() {
                return Err(wrong(format!("the signature of key {key} is not valid for this transaction")));
            }
            signer.signatures.insert(*key, signature);
        }
        Ok(signer)
    }
}

impl PaperOpening {
    fn of(opening: &Opening, file: &TxFile) -> Option<Self> {
        let group = file.group_of(opening.slot)?.to_string();
        let mv = borsh::to_vec(&opening.mv).expect("writing to memory does not fail");
        Some(Self { slot: opening.slot, group, salt: opening.salt, mv: hex::encode(mv) })
    }

    fn read(&self) -> Result<Opening, CliError> {
        let mv = borsh::from_slice(&bytes("a move", &self.mv)?).map_err(wrong)?;
        Ok(Opening { slot: self.slot, salt: self.salt, mv })
    }
}

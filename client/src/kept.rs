//! Signed transactions kept on disk from before they are sent until their fate is known.
//!
//! Owns the format of a transaction file and the folder they are kept in. A payment that was signed
//! and not answered must never be signed again: the new one has another txid, and both may execute.
//! What is kept here can be sent again, as often as needed, also after a crash of the sender.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::{ClusterId, Submission, TxBody, TxId};

use crate::files;
use crate::submit::PreparedTx;

/// First bytes of a transaction file; `borsh(SignedTx)`, `borsh(Submission)` or `borsh(DealtTx)` follows, whose
/// first byte is its version.
pub const TX_MAGIC: &[u8; 8] = b"SEAMSGTX";
/// Ending of the files in the folder.
const ENDING: &str = "tx";

/// Why a kept transaction cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written: {cause}; check the path, its permissions and the free space")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// Not a transaction file, truncated, or altered in its form.
    #[error("{path} is no signed transaction: {cause}; use the file as it was written")]
    Form {
        /// The file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// Made for another cluster.
    #[error("{path} is a transaction of another cluster; use the folder or profile of its cluster")]
    OtherCluster {
        /// The file.
        path: String,
    },
    /// No such transaction is kept.
    #[error("no transaction {0} is kept here; it has its fate, was sent from another folder, or the id is mistyped")]
    NotFound(TxId),
}

impl KeptError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "tx_file_io",
            Self::Form { .. } => "tx_file_form",
            Self::OtherCluster { .. } => "tx_file_other_cluster",
            Self::NotFound(_) => "tx_not_kept",
        }
    }
}

fn io(path: &Path, error: &std::io::Error) -> KeptError {
    KeptError::Io { path: path.display().to_string(), cause: error.to_string() }
}

/// The bytes of a transaction file: magic, then the transaction as it is sent.
#[must_use]
pub fn to_file(tx: &[u8]) -> Vec<u8> {
    [TX_MAGIC, tx].concat()
}

/// Reads a transaction file.
///
/// # Errors
/// [`KeptError::Io`], [`KeptError::Form`], [`KeptError::OtherCluster`].
pub fn read_file(cluster: &ClusterId, path: &Path) -> Result<PreparedTx, KeptError> {
    let bytes = std::fs::read(path).map_err(|error| io(path, &error))?;
    let form = |cause: String| KeptError::Form { path: path.display().to_string(), cause };
    let tx = bytes.strip_prefix(TX_MAGIC).ok_or_else(|| form("it does not start as one".to_owned()))?;
    let prepared = PreparedTx::from_bytes(cluster, Bytes::copy_from_slice(tx))
        .map_err(|reject| form(reject.cause().to_owned()))?;
    let body = Submission::body_of(tx).map_err(|reject| form(reject.cause().to_owned()))?;
    let body = TxBody::decode(&body).map_err(|reject| form(reject.cause().to_owned()))?;
    if body.cluster == *cluster {
        Ok(prepared)
    } else {
        Err(KeptError::OtherCluster { path: path.display().to_string() })
    }
}

/// A folder of transactions whose fate is open, one file each, named by its txid.
#[derive(Clone, Debug)]
pub struct KeptTxs {
    folder: PathBuf,
    cluster: ClusterId,
}

impl KeptTxs {
    /// The folder of this cluster's transactions; made when the first is kept.
    #[must_use]
    pub fn new(folder: PathBuf, cluster: ClusterId) -> Self {
        Self { folder, cluster }
    }

    /// Where a transaction is kept, or would be.
    #[must_use]
    pub fn path(&self, txid: &TxId) -> PathBuf {
        self.folder.join(format!("{txid}.{ENDING}"))
    }

    /// Keeps a transaction: durable when this returns, and readable by its owner alone.
    ///
    /// # Errors
    /// [`KeptError::Io`]; nothing should be sent then.
    pub fn keep(&self, tx: &PreparedTx) -> Result<PathBuf, KeptError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| io(&self.folder, &error))?;
        let path = self.path(&tx.txid);
        files::replace(&path, &to_file(&tx.bytes), 0o600).map_err(|error| io(&path, &error))?;
        Ok(path)
    }

    /// A kept transaction.
    ///
    /// # Errors
    /// [`KeptError`]; the file must hold the transaction that it is named by.
    pub fn load(&self, txid: &TxId) -> Result<PreparedTx, KeptError> {
        let path = self.path(txid);
        if !path.exists() {
            return Err(KeptError::NotFound(*txid));
        }
        let tx = read_file(&self.cluster, &path)?;
        if tx.txid == *txid {
            return Ok(tx);
        }
        Err(KeptError::Form { path: path.display().to_string(), cause: format!("it holds transaction {}", tx.txid) })
    }

    /// Removes a transaction whose fate is known. One that is not kept is no error.
    ///
    /// # Errors
    /// [`KeptError::Io`].
    pub fn forget(&self, txid: &TxId) -> Result<(), KeptError> {
        let path = self.path(txid);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(&path, &error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Address, AssetId, Hash32, LedgerId, Move, SecretKey, SignedTx, Slot, TimeMs};

    fn payment(cluster: ClusterId) -> PreparedTx {
        let mv = Move::Pay { from: Address([1; 20]), to: Address([2; 20]), asset: AssetId([3; 16]), amount: 4 };
        let body = TxBody {
            version: 1,
            cluster,
            valid_until_ms: TimeMs(5),
            salt: [6; 16],
            slots: vec![Slot::Clear { ledger: LedgerId::MAIN, mv }],
            memo: Vec::new(),
        };
        let tx = SignedTx::sign(&body, &[&SecretKey::derive(b"kept", b"1")]);
        PreparedTx::from_bytes(&cluster, tx.encode().into()).unwrap()
    }

    #[test]
    fn what_is_kept_comes_back_byte_for_byte_until_it_is_forgotten() {
        let (here, there) = (ClusterId(Hash32([1; 32])), ClusterId(Hash32([2; 32])));
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptTxs::new(folder.path().join("transactions"), here);
        let tx = payment(here);
        assert_eq!(kept.load(&tx.txid).unwrap_err().code(), "tx_not_kept");
        let path = kept.keep(&tx).unwrap();
        kept.keep(&tx).unwrap();
        assert_eq!(kept.load(&tx.txid).unwrap().bytes, tx.bytes);
        assert_eq!(read_file(&here, &path).unwrap().txid, tx.txid);
        assert_eq!(read_file(&there, &path).unwrap_err().code(), "tx_file_other_cluster");

        let good = std::fs::read(&path).unwrap();
        for bad in [&good[..good.len() - 1], &good[8..], b"", &[&good[..], b"x"].concat()] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(kept.load(&tx.txid).unwrap_err().code(), "tx_file_form");
        }
        // Under another name it would be sent as what it is not.
        let other = TxId(Hash32([9; 32]));
        std::fs::write(kept.path(&other), &good).unwrap();
        assert_eq!(kept.load(&other).unwrap_err().code(), "tx_file_form");
        kept.forget(&tx.txid).unwrap();
        kept.forget(&tx.txid).unwrap();
        assert_eq!(kept.load(&tx.txid).unwrap_err().code(), "tx_not_kept");
    }
}

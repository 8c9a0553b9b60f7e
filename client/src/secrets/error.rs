//! Why a private key of a process or an organisation cannot be read or kept.

use std::path::Path;

/// Why a secret or its passphrase cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The system refused.
    #[error("{path} cannot be read or written: {cause}; check the path and its permissions")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
        /// The number it said it with.
        os: Option<i32>,
    },
    /// The file is not what was written.
    #[error("the key file {path} is damaged: {cause}; restore it from a copy")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// Written by another version.
    #[error("the key file {path} has version {found}, which this program does not know; use a newer program")]
    UnknownVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u8,
    },
    /// The file holds something else than what it is read for.
    #[error(
        "{path} holds {found}, and {wanted} is expected there; check which file is named, or restore it from a copy"
    )]
    Form {
        /// The file.
        path: String,
        /// What it holds.
        found: String,
        /// What it has to hold.
        wanted: &'static str,
    },
    /// The file is whole and does not open.
    #[error(
        "{path} does not open with the passphrase of {source_of}; give the one that it was sealed under, or restore both from one backup"
    )]
    WrongPassphrase {
        /// The file.
        path: String,
        /// Where the passphrase comes from.
        source_of: String,
    },
    /// The file is sealed, and nobody gives a passphrase.
    #[error(
        "{path} is sealed and there is no passphrase: no file is named, none called 'passphrase' lies beside it, and neither SEAMARK_PASSPHRASE nor the systemd credential seamark-passphrase is set; give it in one of these ways"
    )]
    NoPassphrase {
        /// The file.
        path: String,
    },
    /// The file of the passphrase cannot be read.
    #[error(
        "{path} has to hold the passphrase of private keys and cannot be read: {cause}; bring it back, or name no file and give the passphrase in SEAMARK_PASSPHRASE or as the systemd credential seamark-passphrase"
    )]
    PassphraseFile {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// Others can read the file of the passphrase.
    #[error(
        "others than its owner can read {path}, which holds the passphrase of private keys; run chmod 600 on it, and seal the keys under a new one if somebody may have read it"
    )]
    PassphraseReadable {
        /// The file.
        path: String,
    },
    /// What is given is no passphrase.
    #[error("{source_of} holds no passphrase: {cause}; put it there as one line of text")]
    PassphraseForm {
        /// Where it comes from.
        source_of: String,
        /// What is wrong.
        cause: &'static str,
    },
    /// No randomness, or not enough memory.
    #[error(
        "keys cannot be sealed or opened here: {0}; check the memory of this machine and that /dev/urandom is readable"
    )]
    Crypto(String),
}

impl SecretError {
    /// Stable code for programs. Where the keystore of accounts has the same trouble, it has the same code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "key_io",
            Self::Damaged { .. } => "key_damaged",
            Self::UnknownVersion { .. } => "key_version",
            Self::Form { .. } => "key_form",
            Self::WrongPassphrase { .. } => "wrong_passphrase",
            Self::NoPassphrase { .. } => "passphrase_missing",
            Self::PassphraseFile { .. } => "passphrase_file",
            Self::PassphraseReadable { .. } => "passphrase_readable",
            Self::PassphraseForm { .. } => "passphrase_form",
            Self::Crypto(_) => "key_crypto",
        }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), cause: error.to_string(), os: error.raw_os_error() }
    }

    pub(super) fn damaged(path: &Path, cause: impl ToString) -> Self {
        Self::Damaged { path: path.display().to_string(), cause: cause.to_string() }
    }
}

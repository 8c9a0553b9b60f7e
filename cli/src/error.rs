//! The one error of the command line: a stable code, the cause, and what to do about it.
//!
//! Every error of the layers below becomes one. Their texts end with the remedy after the last
//! `"; "`, by which cause and fix are told apart.

use std::fmt;

use client::ClientError;
use serde::Serialize;

use crate::history::HistoryError;
use crate::setup::{SetupError, SpecError};

/// Refused or failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line itself is wrong.
pub const EXIT_USAGE: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// Stable, for programs.
    pub code: String,
    /// What happened.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
    /// Exit code of the process.
    pub exit: u8,
    /// The command has printed its result, which tells the same; nothing more goes to stdout.
    pub reported: bool,
    /// The signed transaction that it is about, when its fate is open.
    pub transaction: Option<Box<OpenTx>>,
}

/// A signed transaction whose fate is open, and where its bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenTx {
    /// Its id.
    pub txid: String,
    /// The file with its signed bytes.
    pub file: String,
}

impl CliError {
    /// A refusal or failure.
    #[must_use]
    pub fn new(code: impl Into<String>, cause: impl ToString, fix: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            cause: cause.to_string(),
            fix: fix.into(),
            exit: EXIT_FAILED,
            reported: false,
            transaction: None,
        }
    }

    /// A command line that cannot mean anything.
    #[must_use]
    pub fn usage(code: impl Into<String>, cause: impl ToString, fix: impl Into<String>) -> Self {
        Self { exit: EXIT_USAGE, ..Self::new(code, cause, fix) }
    }

    /// From a message that ends with the remedy, after `"; "` or as a last sentence.
    #[must_use]
    pub fn from_message(code: impl Into<String>, message: impl ToString) -> Self {
        let message = message.to_string();
        let message = message.trim();
        let split =
            message.rsplit_once("; ").or_else(|| message.split_once(". ")).or_else(|| message.rsplit_once('\n'));
        match split {
            Some((cause, fix)) => Self::new(code, cause, fix),
            None => Self::new(code, message, "correct what is named here and run the command again"),
        }
    }

    /// An input or output error of a file.
    #[must_use]
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        if storage::error::is_open_files(error) {
            return storage::StorageError::io(path, error).into();
        }
        let cause = format!("{} cannot be read or written: {error}", path.display());
        Self::new("file", cause, "check the path, its permissions and the free space")
    }

    /// Of a command whose result has been printed already.
    #[must_use]
    pub fn after_report(self) -> Self {
        Self { reported: true, ..self }
    }

    /// In the context of something larger.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.cause = format!("{what}: {}", self.cause);
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}\n  fix: {}", self.code, self.cause, self.fix)?;
        match &self.transaction {
            Some(open) => write!(f, "\n  transaction: {}\n  kept in: {}", open.txid, open.file),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let error = match error {
            // Whoever keeps the bytes says where, and how to send them again; see `commands::settle`.
            ClientError::Unsettled { txid, cause, .. } => {
                let known = Self::from(*cause);
                return Self { cause: format!("{} (transaction {txid})", known.cause), ..known };
            }
            other => other,
        };
        if let ClientError::Refused { reject: Some(ledger::Reject::ChannelRefused), detail, .. } = &error
            && let Some(rule) = rule_of_channels(detail)
        {
            return rule;
        }
        let code = error.code().to_owned();
        match &error {
            ClientError::Rejected { group, reject, settled } => {
                let place = match settled.receipt() {
                    Some(receipt) => format!("block {} of {group}", receipt.height),
                    None => group.to_string(),
                };
                let cause = format!("{} (transaction {} in {place})", reject.cause(), settled.txid());
                Self::new(code, cause, reject.fix())
            }
            ClientError::BadTransaction(reject) => {
                Self::new(code, format!("the transaction was not sent: {}", reject.cause()), reject.fix())
            }
            ClientError::Refused { reject: Some(reject), detail, .. } => {
                let mut cause = reject.cause().to_owned();
                // The detail starts with cause and fix; what follows in parentheses is this case.
                if let Some((_, own)) = detail.split_once(reject.fix()).filter(|(_, own)| !own.trim().is_empty()) {
                    cause = format!("{cause}{own}");
                }
                Self::new(code, cause, reject.fix())
            }
            ClientError::Refused { detail, .. } => {
                Self::new(code, detail, "see the node's log; a newer program may know this reason")
            }
            _ => Self::from_message(code, error),
        }
    }
}

/// The rule of channels that refused: the detail of `channel_refused` is what [`channel::Refusal`] writes,
/// its code first and its fix last.
fn rule_of_channels(detail: &str) -> Option<CliError> {
    let (_, own) = detail.split_once(ledger::Reject::ChannelRefused.fix())?;
    let (code, told) = own.trim().strip_prefix('(')?.strip_suffix(')')?.split_once(": ")?;
    let rule = channel::ChannelReject::ALL.iter().find(|rule| rule.code() == code)?;
    let cause = told.strip_suffix(rule.fix()).map_or(told, |cause| cause.trim_end_matches("; "));
    Some(CliError::new(code, cause, rule.fix()))
}

impl From<client::ProfileError> for CliError {
    fn from(error: client::ProfileError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<client::KeystoreError> for CliError {
    fn from(error: client::KeystoreError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<client::SecretError> for CliError {
    fn from(error: client::SecretError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<client::KeptError> for CliError {
    fn from(error: client::KeptError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<crate::setup::PkiError> for CliError {
    fn from(error: crate::setup::PkiError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<client::NetError> for CliError {
    fn from(error: client::NetError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<client::ProofError> for CliError {
    fn from(error: client::ProofError) -> Self {
        let fix = "do not rely on this claim; ask the cluster for the proof again, and check that the genesis is the right one";
        match &error {
            client::ProofError::Malformed(_)
            | client::ProofError::Version(_)
            | client::ProofError::OtherCluster { .. } => Self::from_message(error.code(), error),
            _ => Self::new(error.code(), error, fix),
        }
    }
}

impl From<client::ExclusionFileError> for CliError {
    fn from(error: client::ExclusionFileError) -> Self {
        let fix = "do not rely on it; fetch it again with 'seamark channel receipt', and check that the genesis is the right one";
        Self::new(error.code(), error, fix)
    }
}

impl From<client::OpeningError> for CliError {
    fn from(error: client::OpeningError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<client::EvidenceFileError> for CliError {
    fn from(error: client::EvidenceFileError) -> Self {
        let fix = "do not rely on it; fetch it again with 'seamark evidence show', and check that the genesis is the right one";
        Self::new(error.code(), error, fix)
    }
}

impl From<beacon::epochs::EpochProofError> for CliError {
    fn from(error: beacon::epochs::EpochProofError) -> Self {
        let fix = "do not rely on it; fetch it again with 'seamark beacon seed --out FILE', and check that the genesis is the right one";
        Self::new(error.code(), error, fix)
    }
}

impl From<HistoryError> for CliError {
    fn from(error: HistoryError) -> Self {
        // Its codes are upper case; on the command line all codes look alike.
        let code = error.code().to_ascii_lowercase();
        Self::new(
            code,
            error,
            "correct the named file, line or column; 'seamark replay --help' lists the layouts that are read",
        )
    }
}

impl From<SetupError> for CliError {
    fn from(error: SetupError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<SpecError> for CliError {
    fn from(error: SpecError) -> Self {
        Self { exit: EXIT_USAGE, ..Self::from_message(error.code(), error) }
    }
}

impl From<shard_node::server::config::ConfigError> for CliError {
    fn from(error: shard_node::server::config::ConfigError) -> Self {
        Self::from_message(error.code(), error)
    }
}

impl From<storage::StorageError> for CliError {
    fn from(error: storage::StorageError) -> Self {
        Self::new(error.code(), format!("{}: {}", error.path().display(), error.cause()), error.fix())
    }
}

impl From<shard_node::server::NodeError> for CliError {
    fn from(error: shard_node::server::NodeError) -> Self {
        match error {
            shard_node::server::NodeError::Storage(error) => error.into(),
            shard_node::server::NodeError::Net(error) => error.into(),
            other => Self::from_message(other.code(), other),
        }
    }
}

impl From<shard_node::server::rebuild::RebuildError> for CliError {
    fn from(error: shard_node::server::rebuild::RebuildError) -> Self {
        use shard_node::server::rebuild::RebuildError;
        match error {
            RebuildError::Node(error) => error.into(),
            RebuildError::Log(error) => Self::from(error).context("the votes of the replica cannot be read"),
            other => Self::from_message(other.code(), other),
        }
    }
}

impl From<proto::EdgeError> for CliError {
    fn from(error: proto::EdgeError) -> Self {
        Self::new(error.code(), error, "the router's answer makes no sense; report it with both versions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Reject;

    #[test]
    fn cause_and_fix_are_told_apart() {
        let error = CliError::from_message("x", "the port is taken; by us; choose another");
        assert_eq!((error.cause.as_str(), error.fix.as_str()), ("the port is taken; by us", "choose another"));
        assert_eq!(error.to_string(), "error[x]: the port is taken; by us\n  fix: choose another");
        let plain = CliError::from_message("x", "no remedy here");
        assert_eq!(plain.cause, "no remedy here");
        assert!(!plain.fix.is_empty());
        assert_eq!(plain.exit, EXIT_FAILED);
    }

    #[test]
    fn cause_and_fix_of_a_storage_error_are_its_own() {
        let cut = storage::StorageError::Truncated { path: "/d/7.log".into(), found: 2, acknowledged: 3 };
        let error = CliError::from(shard_node::server::NodeError::Storage(cut.clone()));
        assert_eq!(error.code, "storage_truncated");
        assert_eq!((error.cause, error.fix), (format!("/d/7.log: {}", cut.cause()), cut.fix().to_owned()));
        assert!(cut.fix().starts_with("Bring the log's folder back"), "{}", cut.fix());
    }

    #[test]
    fn too_many_open_files_have_a_code_of_their_own() {
        let full = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let error = CliError::file(std::path::Path::new("/d/f"), &full);
        assert_eq!(error.code, "storage_open_files");
        assert!(error.fix.contains("ulimit -n"), "{}", error.fix);
    }

    #[test]
    fn refusals_keep_their_code_cause_fix_and_detail() {
        let refusal = proto::v1::Refusal::of(Reject::Busy).detail("the queue holds 65536");
        let error = CliError::from(ClientError::refused(&refusal));
        assert_eq!(error.code, "busy");
        assert_eq!(error.cause, format!("{} (the queue holds 65536)", Reject::Busy.cause()));
        assert_eq!(error.fix, Reject::Busy.fix());
        let rule = channel::Refusal::because(channel::ChannelReject::PolicyUnsatisfiable, "that of freeze; all of it");
        let refusal = proto::v1::Refusal::of(Reject::ChannelRefused).detail(rule.to_string());
        let error = CliError::from(ClientError::refused(&refusal));
        assert_eq!(error.code, "policy_unsatisfiable", "the rule says more than that some rule refused");
        assert_eq!(error.cause, format!("{} (that of freeze; all of it)", rule.reject.cause()));
        assert_eq!(error.fix, rule.reject.fix());
        let unknown = proto::v1::Refusal::of(Reject::ChannelRefused).detail("later_rule: not known here; none");
        assert_eq!(CliError::from(ClientError::refused(&unknown)).code, "channel_refused");
        let bare = CliError::from(ClientError::refused(&proto::v1::Refusal::of(Reject::Expired)));
        assert_eq!(bare.cause, Reject::Expired.cause());
    }
}

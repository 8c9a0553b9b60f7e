//! Transactions on paper: from a form that people write, to a file that people sign, to the bytes
//! that are sent.
//!
//! Owns the form ([`form`], TOML: what should happen, by names), the transaction file ([`file`],
//! JSON: the body as it is signed, who has to sign, the signatures so far, openings of hidden
//! moves), and both in plain words ([`words`]). Reads no keystore, asks no cluster and takes no
//! time by itself: names, authorisations, the layout, the time and the salts come from the caller.

pub mod file;
pub mod form;
pub mod words;

use ledger::{Address, AssetId, PublicKey};

use crate::error::CliError;

/// What names in a form stand for.
pub trait Names {
    /// An address as it stands, or that of a key's name.
    ///
    /// # Errors
    /// `address` when it is neither.
    fn account(&self, text: &str) -> Result<Address, CliError>;

    /// An asset by id, `ISSUER/SYMBOL` or a symbol.
    ///
    /// # Errors
    /// `asset` when it is none of them.
    fn asset(&self, text: &str) -> Result<AssetId, CliError>;

    /// A public key as it stands, or that of a key's name.
    ///
    /// # Errors
    /// `public_key` when it is neither.
    fn key(&self, text: &str) -> Result<PublicKey, CliError>;
}

//! Fungible assets: what is issued, by whom, and under which flags.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::ids::{Address, AssetId};
use crate::limits::{DECIMALS_MAX, NAME_BYTES_MAX, SYMBOL_BYTES_MAX};

/// What an issuer asks for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct AssetSpec {
    /// The account that may mint and burn.
    pub issuer: Address,
    /// Short name, unique for the issuer: ASCII letters, digits, `-` and `.`.
    pub symbol: String,
    /// Name for people.
    pub name: String,
    /// Digits after the point when amounts are shown.
    pub decimals: u8,
}

impl AssetSpec {
    /// The id this asset will have.
    #[must_use]
    pub fn id(&self) -> AssetId {
        AssetId::derive(&self.issuer, &self.symbol)
    }

    /// Whether names and decimals are within limits.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        let symbol_ok = (1..=SYMBOL_BYTES_MAX).contains(&self.symbol.len())
            && self.symbol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        let name_ok = self.name.len() <= NAME_BYTES_MAX && !self.name.chars().any(char::is_control);
        symbol_ok && name_ok && self.decimals <= DECIMALS_MAX
    }
}

/// A definition as the beacon keeps it and every group receives it by mail.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct AssetDef {
    /// Format version, 1.
    pub version: u8,
    /// Derived from issuer and symbol.
    pub id: AssetId,
    /// What was asked for.
    pub spec: AssetSpec,
    /// No new debit of this asset is accepted while set.
    pub frozen: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_nothing_that_moves_a_cursor() {
        let spec = |name: &str| AssetSpec {
            issuer: crate::ids::Address([1; 20]),
            symbol: "EUR".to_owned(),
            name: name.to_owned(),
            decimals: 2,
        };
        assert!(spec("Euro, für alle").well_formed());
        for name in ["a\u{1b}[2J", "a\nb", "\u{9b}2J", "\0"] {
            assert!(!spec(name).well_formed(), "{name:?}");
        }
    }
}

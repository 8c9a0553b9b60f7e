//! Pair accounts: for each peer ledger and asset, how much a ledger has out there, or holds of what
//! is at home there.
//!
//! Every asset has a home ledger, where its supply is made. What leaves its home is added to the
//! home's pair account with the ledger it goes to; what arrives is added to that ledger's own pair
//! account with the home. The way back subtracts from both. So no ledger can return more than it
//! received: its own rules refuse to send more, and the home, which trusts no other ledger's rules,
//! refuses to take more.
//!
//! A pair account has an address that nobody can sign for. It lies where the layout puts that
//! address, so that one group counts for the whole ledger, and it moves with a split.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::account::Balance;
use crate::hash::tagged;
use crate::ids::{Address, AssetId, LedgerId, TxId};

/// The ledger in which an asset's supply is made. Assets are defined by the beacon for the main
/// ledger, all of them; an asset of a channel's own would need an id that binds its ledger, so that
/// no ledger could pass off another one's assets as its own.
#[must_use]
pub fn home_of(_asset: &AssetId) -> LedgerId {
    LedgerId::MAIN
}

/// Address of a ledger's pair account: `sha256("seamark/pair/v1" ‖ peer (BE) ‖ asset)[..20]`. No
/// authorisation has it, since those are hashed under another tag.
#[must_use]
pub fn address(peer: LedgerId, asset: &AssetId) -> Address {
    let hash = tagged(b"seamark/pair/v1", &[&peer.0.to_be_bytes(), &asset.0]);
    let mut address = [0; 20];
    address.copy_from_slice(&hash.0[..20]);
    Address(address)
}

/// A pair account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Pair {
    /// Format version, 1.
    pub version: u8,
    /// The other ledger.
    pub peer: LedgerId,
    /// The asset.
    pub asset: AssetId,
    /// At home: what is out there. Elsewhere: what came from there and has not gone back; what
    /// undecided transfers back will take of it is held.
    pub amount: Balance,
    /// What arrived from the peer beyond `amount`, and was not credited to anybody. Above zero only
    /// when the peer's committee broke the rules.
    pub refused: u128,
}

impl Pair {
    /// The pair account with a peer before anything happened.
    #[must_use]
    pub fn new(peer: LedgerId, asset: AssetId) -> Self {
        Self { version: 1, peer, asset, amount: Balance::default(), refused: 0 }
    }
}

/// Value on its way to another ledger. It goes from the payer's group to that of the sending
/// ledger's pair account, from there to that of the receiving ledger's, and from there, as a credit,
/// to the payee. Like a credit it cannot fail, unless it would break the rule of pairs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transfer {
    /// The transaction that debited.
    pub txid: TxId,
    /// Index of the move in it.
    pub move_index: u16,
    /// The ledger that it left.
    pub from: LedgerId,
    /// The ledger that it goes to.
    pub to: LedgerId,
    /// Who receives, in that ledger.
    pub account: Address,
    /// What.
    pub asset: AssetId,
    /// How much.
    pub amount: u128,
}

impl Transfer {
    /// The pair account that counts it, in the ledger where it is now: with the ledger it goes to
    /// before it has left, with the one it came from after.
    #[must_use]
    pub fn pair(&self, here: LedgerId) -> Address {
        address(if here == self.from { self.to } else { self.from }, &self.asset)
    }
}

//! What a node has found out by itself about the chain of a replica, kept beside its state.
//!
//! Like certificates these are node-local: no block depends on them, no other node is believed about
//! them (an installed snapshot gets new ones), and losing one costs a check that is made again. But
//! they must outlive a restart, or a replica would attest what it refused to attest before.

use ledger::ids::Height;
use ledger::schema::NODE;
use ledger::view::View;

fn key(name: &[u8]) -> Vec<u8> {
    [&[NODE], name].concat()
}

/// Key of the height up to which this node has checked the client signatures of the chain.
#[must_use]
pub fn checked() -> Vec<u8> {
    key(b"checked")
}

/// Key of the lowest height at which this node has found a signature that does not hold.
#[must_use]
pub fn forged() -> Vec<u8> {
    key(b"forged")
}

/// Key of the height of the last snapshot that came from another node.
#[must_use]
pub fn installed() -> Vec<u8> {
    key(b"installed")
}

/// Key of the reason why this state is known to be wrong: a majority certified another header.
#[must_use]
pub fn wrong() -> Vec<u8> {
    key(b"wrong")
}

/// Key of the mark that there are no accounts: whoever finds it fetches a snapshot of another member.
#[must_use]
pub fn lacking() -> Vec<u8> {
    key(b"lacking")
}

/// The marks that a driver starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Client signatures are checked up to here.
    pub checked: Option<Height>,
    /// Here stands one that does not hold.
    pub forged: Option<Height>,
    /// The state came from another node at this height.
    pub installed: Option<Height>,
}

impl Marks {
    /// Reads them.
    #[must_use]
    pub fn read(view: &mut View<'_>) -> Self {
        Self { checked: view.load(&checked()), forged: view.load(&forged()), installed: view.load(&installed()) }
    }
}

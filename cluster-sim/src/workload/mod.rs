//! The transactions of a run: really signed, made before it starts.
//!
//! Assets are issued at the beacon and minted to accounts in all shards. `simple` makes what one
//! group decides: payments within and between shards, overdrafts, burns, expired and forged ones.
//! `several` makes what several groups vote on: several payers, swaps, checks, writes, freezes and
//! suspense, with hidden moves, missing signatures and withheld openings. `promised` makes hash-locks
//! and records, `channels` what happens in channels and between them and the main ledger, `changing` what happens in one that is
//! founded meanwhile and whose members change. [`Handing`] says how a transaction reaches its groups: by a router that lives, by
//! one that dies, or by a stranger.

mod changing;
mod channels;
mod maker;
mod promised;
mod several;
mod simple;

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::auth::Witness;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{Address, GroupId, LedgerId, TimeMs, TxId};
use ledger::tx::{Move, Opening, SignedTx};
use rand_chacha::ChaCha8Rng;

use crate::config::Shape;
use maker::Maker;

/// Why an operation is in the load, which says what its fate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Issues an asset.
    Issue,
    /// Creates supply.
    Mint,
    /// Moves it.
    Pay,
    /// Destroys it.
    Burn,
    /// Replaces the key of an account.
    Rotate,
    /// Asks for more than there is.
    Overdraft,
    /// Is past its deadline, or may be by the time it is executed.
    Expiring,
    /// Carries a broken signature, or the signature of somebody else. Must never execute.
    Forged,
    /// Has moves that several groups vote on, as far as there are several.
    Several,
    /// Lacks the signature of an account that has to sign. Must never commit.
    Unsigned,
    /// An opening is never handed to its group. Must never commit.
    Withheld,
    /// Sends an earlier transaction once more.
    Again,
}

/// How a transaction reaches its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handing {
    /// The groups it is handed to; all that vote, if this is `None`.
    pub only: Option<Vec<GroupId>>,
    /// The router dies after it has sent and received so many messages about it, and nobody asks
    /// about it again.
    pub dies_after: Option<u32>,
    /// Groups that are not given their openings.
    pub withheld: Vec<GroupId>,
    /// Openings are handed over only from this time on.
    pub openings_at_ms: u64,
    /// Whether the client wants to know when all is applied.
    pub wants_applied: bool,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its place in the load.
    pub index: u32,
    /// Why it is there.
    pub purpose: Purpose,
    /// The transaction.
    pub txid: TxId,
    /// Its signed bytes, with all witnesses and without openings.
    pub bytes: Bytes,
    /// Openings of hidden slots, for each group its own.
    pub openings: BTreeMap<GroupId, Vec<Opening>>,
    /// Its witnesses, for each ledger those of its own accounts.
    pub witnesses: BTreeMap<LedgerId, Vec<Witness>>,
    /// Its moves, hidden ones too, for the checkers' own arithmetic.
    pub moves: Vec<Move>,
    /// The ledger that each of them is in.
    pub ledgers: Vec<LedgerId>,
    /// What each hidden slot names: its group and the salt of its hash.
    pub hidden: Vec<Option<(GroupId, Hash32)>>,
    /// Its deadline.
    pub valid_until: TimeMs,
    /// Not sent before this time.
    pub at_ms: u64,
    /// Not sent before this one has its fate.
    pub after: Option<u32>,
    /// Not sent before routers have heard of this group, which is founded while the cluster runs.
    pub awaits: Option<GroupId>,
    /// Sent only when everything else has drained and registers are gone.
    pub late: bool,
    /// How it reaches its groups.
    pub handing: Handing,
}

impl Operation {
    /// What a group is given, without openings: where several ledgers take part, the witnesses of its own alone.
    #[must_use]
    pub fn signed_for(&self, group: GroupId) -> Vec<u8> {
        let signed = borsh::from_slice::<SignedTx>(&self.bytes);
        match signed {
            Ok(signed) if self.ledgers.windows(2).any(|pair| pair[0] != pair[1]) => {
                let own = group.ledger().and_then(|ledger| self.witnesses.get(&ledger));
                SignedTx { witnesses: own.cloned().unwrap_or_default(), ..signed }.encode()
            }
            Ok(_) | Err(_) => self.bytes.to_vec(),
        }
    }
}

/// The load of a seed.
pub struct Load {
    /// What clients want.
    pub operations: Vec<Operation>,
    /// Accounts that live in channels.
    pub channels: BTreeMap<Address, GroupId>,
}

/// Makes the load of a seed, without what is about a channel that is founded meanwhile.
#[must_use]
pub fn make(genesis: &Genesis, shape: &Shape, rng: &mut ChaCha8Rng) -> Load {
    usual(genesis, shape, rng).finish()
}

/// Makes the load of a seed. What is about the channel that is founded while the cluster runs is drawn from a stream of its own.
pub(crate) fn make_with(
    genesis: &Genesis,
    shape: &Shape,
    rng: &mut ChaCha8Rng,
    founded: Option<GroupId>,
    purse: &mut ChaCha8Rng,
) -> Load {
    let mut maker = usual(genesis, shape, rng);
    if let Some(group) = founded.filter(|_| shape.money > 0) {
        maker.rng = purse;
        maker.changing(group, shape.money as usize);
    }
    maker.finish()
}

fn usual<'a>(genesis: &Genesis, shape: &Shape, rng: &'a mut ChaCha8Rng) -> Maker<'a> {
    let mut maker = Maker::new(genesis, shape, rng);
    maker.set_up();
    let bursts = maker.bursts();
    for _ in 0..shape.transactions {
        let at_ms = maker.pick(&bursts);
        if maker.chance(45) {
            maker.simple(at_ms);
        } else {
            maker.several(at_ms);
        }
    }
    maker.rotation();
    maker.again(shape.transactions / 8);
    maker.late(8);
    maker.promised(shape.transactions / 10);
    maker.channels(shape.transactions / 4);
    maker
}

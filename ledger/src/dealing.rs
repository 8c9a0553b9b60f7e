//! Which ledger is given which witnesses of a transaction that spans several, so that none learns who pays in another.
//!
//! Owns the form in which a client says so ([`DealtTx`]), and the rule by which a witness is some ledger's business.
//! A router deals by it; groups are given a [`crate::SignedTx`] with the witnesses of their own ledger, and never see
//! this form. The txid does not cover the witnesses, so that all of them mean the same transaction.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::auth::{Authorisation, Witness};
use crate::ids::{Address, ClusterId, LedgerId};
use crate::limits::{MOVES_MAX, SIGNED_TX_BYTES_MAX, SUBMISSION_BYTES_MAX};
use crate::reject::Reject;
use crate::tx::{Opening, ParsedTx, SignedTx, Submission};

/// The witnesses that the groups of one ledger are given.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LedgerWitnesses {
    /// The ledger, one of the body's.
    pub ledger: LedgerId,
    /// Its witnesses: one at least.
    pub witnesses: Vec<Witness>,
}

/// A transaction that spans ledgers on its way from a client to a router: its witnesses by ledger, and openings of
/// hidden slots. What is of a ledger that the sender has nothing to do with is left out; who has it sends it, too.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DealtTx {
    /// Format version, 3; the other forms are a [`SignedTx`], 1, and a [`Submission`], 2.
    pub version: u8,
    /// The signed bytes.
    pub body: Vec<u8>,
    /// Strictly ascending by ledger.
    pub witnesses: Vec<LedgerWitnesses>,
    /// Sorted by slot.
    pub openings: Vec<Opening>,
}

impl DealtTx {
    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes; of body, witnesses and openings only number and order are looked at.
    ///
    /// # Errors
    /// [`Reject::Malformed`] or [`Reject::BodyTooLarge`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > SUBMISSION_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        let dealt: Self = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        let sorted = dealt.witnesses.windows(2).all(|pair| pair[0].ledger < pair[1].ledger);
        let named = dealt.witnesses.iter().all(|given| !given.witnesses.is_empty());
        let within = dealt.witnesses.len() <= MOVES_MAX && dealt.openings.len() <= MOVES_MAX;
        if dealt.version == 3 && sorted && named && within { Ok(dealt) } else { Err(Reject::Malformed) }
    }

    /// What two parties bring together, each perhaps its own ledger's alone; `None` when they mean different
    /// transactions, or different witnesses for one ledger.
    #[must_use]
    pub fn with(mut self, other: Self) -> Option<Self> {
        if self.body != other.body {
            return None;
        }
        for theirs in other.witnesses {
            match self.witnesses.binary_search_by_key(&theirs.ledger, |given| given.ledger) {
                Ok(at) if self.witnesses[at] == theirs => {}
                Ok(_) => return None,
                Err(at) => self.witnesses.insert(at, theirs),
            }
        }
        add_openings(&mut self.openings, other.openings);
        Some(self)
    }
}

fn add_openings(openings: &mut Vec<Opening>, more: Vec<Opening>) {
    for opening in more {
        if let Err(at) = openings.binary_search_by_key(&opening.slot, |known| known.slot) {
            openings.insert(at, opening);
        }
    }
}

impl Submission {
    /// The signed bytes of a transaction in any of the forms in which a client may send it.
    ///
    /// # Errors
    /// [`Reject::Malformed`] or [`Reject::BodyTooLarge`].
    pub fn body_of(bytes: &[u8]) -> Result<Vec<u8>, Reject> {
        if bytes.first() == Some(&3) {
            return DealtTx::decode(bytes).map(|dealt| dealt.body);
        }
        let (signed, _) = Self::split(bytes)?;
        if signed.len() > SIGNED_TX_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        borsh::from_slice::<SignedTx>(&signed).map(|signed| signed.body).map_err(|_| Reject::Malformed)
    }

    /// What two parties send of one transaction, put together; `None` when it is not the same.
    #[must_use]
    pub fn together(ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        if ours.first() == Some(&3) || theirs.first() == Some(&3) {
            let (ours, theirs) = (DealtTx::decode(ours).ok()?, DealtTx::decode(theirs).ok()?);
            return ours.with(theirs).map(|both| both.encode());
        }
        let (signed, mut openings) = Self::split(ours).ok()?;
        let (other, more) = Self::split(theirs).ok()?;
        if signed != other {
            return None;
        }
        add_openings(&mut openings, more);
        Some(Self::encode(signed, openings))
    }
}

impl ParsedTx {
    /// Decodes what a client may send to a router: besides what [`ParsedTx::decode`] takes, a [`DealtTx`].
    ///
    /// # Errors
    /// [`Reject`] names what is wrong.
    pub fn decode_sent(cluster: &ClusterId, bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.first() != Some(&3) {
            return Self::decode(cluster, bytes);
        }
        let DealtTx { body, witnesses: dealt, openings, .. } = DealtTx::decode(bytes)?;
        let unsigned = SignedTx { version: 1, body, witnesses: Vec::new() };
        let mut tx = Self::decode_signed(cluster, &unsigned.encode())?;
        if !tx.body.spans_ledgers() {
            return Err(Reject::Malformed);
        }
        for given in &dealt {
            if !tx.body.slots.iter().any(|slot| slot.ledger() == given.ledger) {
                return Err(Reject::Malformed);
            }
            // A ledger's groups are given these as a transaction that is signed with nothing else.
            let part = tx.signed_with(given.witnesses.clone());
            tx.witnesses.extend(Self::decode_signed(cluster, &part)?.witnesses);
        }
        tx.dealt = dealt;
        tx.open(openings)?;
        Ok(tx)
    }

    /// Which ledger is given which witnesses: what the sender says; else each the witnesses of the accounts that have
    /// to authorise a move of it that can be seen here. `rule` says by what an account is authorised, where that is
    /// known; an account of which it is not is that of the authorisation that it started with. A witness of nobody who
    /// can be seen goes nowhere, while there are moves that cannot: it comes with their openings.
    ///
    /// # Errors
    /// [`Reject::WitnessUnplaced`] for a witness that fits no account, when all moves can be seen.
    pub fn deal(
        &self,
        rule: impl Fn(LedgerId, &Address) -> Option<Authorisation>,
    ) -> Result<Vec<LedgerWitnesses>, Reject> {
        if !self.dealt.is_empty() {
            return Ok(self.dealt.clone());
        }
        let all_seen = self.visible().count() == self.body.slots.len();
        let mut dealt: Vec<LedgerWitnesses> = Vec::new();
        for witness in &self.witnesses {
            let fits = |ledger, account: &Address| match rule(ledger, account) {
                Some(auth) => auth == witness.auth,
                None => witness.auth.address() == *account,
            };
            let mut placed = false;
            for (_, ledger, mv) in self.visible() {
                if !mv.voters().any(|voter| voter.authorises && fits(ledger, &voter.account)) {
                    continue;
                }
                placed = true;
                let at = dealt.binary_search_by_key(&ledger, |given| given.ledger).unwrap_or_else(|at| {
                    dealt.insert(at, LedgerWitnesses { ledger, witnesses: Vec::new() });
                    at
                });
                if !dealt[at].witnesses.contains(witness) {
                    dealt[at].witnesses.push(witness.clone());
                }
            }
            if !placed && all_seen {
                return Err(Reject::WitnessUnplaced);
            }
        }
        Ok(dealt)
    }

    /// The form in which it is sent to a router, with its witnesses by ledger.
    ///
    /// # Errors
    /// As [`ParsedTx::deal`].
    pub fn dealt_by(&self, rule: impl Fn(LedgerId, &Address) -> Option<Authorisation>) -> Result<DealtTx, Reject> {
        let (body, openings) = (self.body_bytes.clone(), self.openings.clone());
        Ok(DealtTx { version: 3, body, witnesses: self.deal(rule)?, openings })
    }
}

//! Transactions. The signed bytes are the bytes that are stored, hashed and forwarded, never
//! re-encoded.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetSpec;
use crate::auth::{Authorisation, Witness};
use crate::crypto::SecretKey;
use crate::hash::{Hash32, tagged};
use crate::ids::{Address, AssetId, ClusterId, GroupId, LedgerId, TimeMs, TxId};
use crate::limits::{
    BODY_BYTES_MAX, DATA_KEY_BYTES_MAX, DATA_VALUE_BYTES_MAX, MEMO_BYTES_MAX, MOVES_MAX, SIGNED_TX_BYTES_MAX,
    SUBMISSION_BYTES_MAX, WITNESSES_MAX,
};
use crate::reject::Reject;

/// Version written into new bodies.
pub const BODY_VERSION: u8 = 1;

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Move {
    /// Takes from one account (voter) and gives to another (follower).
    Pay {
        /// Debited; must authorise.
        from: Address,
        /// Credited.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Creates supply; the issuer is the voter.
    Mint {
        /// Must be the asset's issuer and authorise.
        issuer: Address,
        /// Credited.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Destroys supply that the issuer holds.
    Burn {
        /// Must be the asset's issuer and authorise.
        issuer: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Defines an asset; voted by the beacon, on the beacon's ledger.
    Issue(AssetSpec),
    /// Replaces an account's authorisation.
    Rotate {
        /// The account; the old authorisation must sign.
        account: Address,
        /// The new one.
        auth: Authorisation,
    },
    /// Like `Pay`, but the credit votes too: it is refused for a frozen payee, and posted in the
    /// same transaction instead of following later.
    PaySync {
        /// Debited; must authorise.
        from: Address,
        /// Credited; votes, without having to authorise.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Demands something of an account, which must authorise: nobody else may pin its state while
    /// the transaction is undecided.
    Check {
        /// The account that votes.
        account: Address,
        /// What has to hold.
        condition: Condition,
    },
    /// Changes what an account says about itself.
    Write {
        /// The account; must authorise.
        account: Address,
        /// The change.
        write: AccountWrite,
    },
    /// Freezes or thaws what an account holds of an asset. Holds that exist are not touched.
    Freeze {
        /// The asset's issuer; must authorise.
        issuer: Address,
        /// Whose holdings; votes, without having to authorise.
        account: Address,
        /// The asset.
        asset: AssetId,
        /// Frozen from now on, or thawed.
        frozen: bool,
    },
    /// Moves an amount that arrived while the account was frozen into its balance, once it is not.
    Release {
        /// The account; must authorise.
        account: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Sends an amount that arrived while the account was frozen somewhere else, usually back.
    Return {
        /// The asset's issuer, or the account itself; must authorise.
        by: Address,
        /// In whose suspense the amount lies.
        account: Address,
        /// Credited.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
}

/// What a [`Move::Check`] demands. It must hold for every outcome of what is undecided on the
/// account: balances count without what is held, or with what is on its way, whichever is worse.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Condition {
    /// The available balance is at least this.
    AtLeast {
        /// Of this asset.
        asset: AssetId,
        /// The least amount.
        amount: u128,
    },
    /// The posted balance is at most this at the time of the vote. A credit that merely follows
    /// its debit may raise it before the outcome is known.
    AtMost {
        /// Of this asset.
        asset: AssetId,
        /// The greatest amount.
        amount: u128,
    },
    /// The account's sequence is this number: its owner has changed nothing since.
    Version(u64),
    /// Debits of the asset are possible: neither account nor holding is frozen.
    NotFrozen(AssetId),
    /// Only that the account has authorised the transaction: a payee's consent.
    Consent,
}

/// What an account may change about itself, besides its authorisation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AccountWrite {
    /// Sets or removes an entry of the account's data.
    Data {
        /// 1 to [`DATA_KEY_BYTES_MAX`] bytes.
        key: Vec<u8>,
        /// At most [`DATA_VALUE_BYTES_MAX`] bytes; `None` removes.
        value: Option<Vec<u8>>,
    },
    /// Limits what one transaction may debit of an asset; `None` lifts the limit.
    Limit {
        /// The asset.
        asset: AssetId,
        /// Greatest sum of debits in one transaction.
        per_tx: Option<u128>,
    },
    /// Freezes the whole account, or thaws it: nothing can be debited meanwhile.
    Frozen(bool),
}

/// An account that can say no to a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The account.
    pub account: Address,
    /// Whether it must authorise the transaction.
    pub authorises: bool,
}

impl Move {
    /// The accounts that vote on this move: one, or two for moves that need two accounts to agree.
    /// The first one always authorises.
    pub fn voters(&self) -> impl Iterator<Item = Voter> + use<> {
        let (first, second) = match self {
            Self::Pay { from, .. } => (*from, None),
            Self::PaySync { from, to, .. } => (*from, Some(*to)),
            Self::Mint { issuer, .. } | Self::Burn { issuer, .. } => (*issuer, None),
            Self::Issue(spec) => (spec.issuer, None),
            Self::Rotate { account, .. }
            | Self::Check { account, .. }
            | Self::Write { account, .. }
            | Self::Release { account, .. } => (*account, None),
            Self::Freeze { issuer, account, .. } => (*issuer, Some(*account)),
            Self::Return { by, account, .. } => (*by, Some(*account)),
        };
        let first = Voter { account: first, authorises: true };
        let second = second.map(|account| Voter { account, authorises: false });
        std::iter::once(first).chain(second)
    }

    /// The account whose credit follows and cannot fail, if the move has one.
    #[must_use]
    pub fn follower(&self) -> Option<Address> {
        match self {
            Self::Pay { to, .. } | Self::Mint { to, .. } | Self::Return { to, .. } => Some(*to),
            Self::Burn { .. }
            | Self::Issue(_)
            | Self::Rotate { .. }
            | Self::PaySync { .. }
            | Self::Check { .. }
            | Self::Write { .. }
            | Self::Freeze { .. }
            | Self::Release { .. } => None,
        }
    }

    /// Every account this move touches, voters first.
    pub fn accounts(&self) -> impl Iterator<Item = Address> + use<> {
        self.voters().map(|voter| voter.account).chain(self.follower())
    }
}

/// A move in the clear, or hidden from all but its own group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Slot {
    /// Visible to every group of the transaction.
    Clear {
        /// Account space of the move.
        ledger: LedgerId,
        /// The move.
        mv: Move,
    },
    /// Only its salted hash is visible; the opening goes to the ledger's group alone.
    Hidden {
        /// Account space of the move.
        ledger: LedgerId,
        /// Group that votes on it.
        group: GroupId,
        /// `sha256("seamark/slot/v1" ‖ salt ‖ borsh(move))`.
        hash: Hash32,
    },
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxBody {
    /// Format version, [`BODY_VERSION`].
    pub version: u8,
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Last block time at which it may execute.
    pub valid_until_ms: TimeMs,
    /// Makes equal payments distinct.
    pub salt: [u8; 16],
    /// 1 to [`MOVES_MAX`].
    pub slots: Vec<Slot>,
    /// At most [`MEMO_BYTES_MAX`] bytes.
    pub memo: Vec<u8>,
}

impl TxBody {
    /// Encodes the body; from here on only the bytes count.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes and checks all limits that need no state.
    ///
    /// # Errors
    /// [`Reject`] names the limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        let body: Self = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if body.version != BODY_VERSION {
            return Err(Reject::Malformed);
        }
        if body.memo.len() > MEMO_BYTES_MAX {
            return Err(Reject::MemoTooLarge);
        }
        if body.slots.is_empty() || body.slots.len() > MOVES_MAX {
            return Err(Reject::MoveCount);
        }
        for (_, mv) in body.moves() {
            check_move(mv)?;
        }
        check_together(body.moves().map(|(_, mv)| mv))?;
        Ok(body)
    }

    /// The moves in the clear.
    pub fn moves(&self) -> impl Iterator<Item = (LedgerId, &Move)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Clear { ledger, mv } => Some((*ledger, mv)),
            Slot::Hidden { .. } => None,
        })
    }
}

fn check_move(mv: &Move) -> Result<(), Reject> {
    match mv {
        Move::Pay { amount, .. }
        | Move::PaySync { amount, .. }
        | Move::Mint { amount, .. }
        | Move::Burn { amount, .. }
        | Move::Release { amount, .. }
        | Move::Return { amount, .. } => {
            if *amount == 0 {
                Err(Reject::ZeroAmount)
            } else {
                Ok(())
            }
        }
        Move::Write { write: AccountWrite::Data { key, value }, .. } => {
            let fits = (1..=DATA_KEY_BYTES_MAX).contains(&key.len())
                && value.as_ref().is_none_or(|value| value.len() <= DATA_VALUE_BYTES_MAX);
            fits.then_some(()).ok_or(Reject::WriteForm)
        }
        Move::Write { write: AccountWrite::Limit { .. } | AccountWrite::Frozen(_), .. }
        | Move::Check { .. }
        | Move::Freeze { .. } => Ok(()),
        Move::Issue(spec) => spec.well_formed().then_some(()).ok_or(Reject::AssetForm),
        Move::Rotate { auth, .. } => auth.well_formed().then_some(()).ok_or(Reject::AuthForm),
    }
}

/// What a move changes or demands, so that two moves on the same thing can be told.
#[derive(PartialEq, Eq)]
enum Subject<'a> {
    Auth,
    Data(&'a [u8]),
    Limit(AssetId),
    Frozen,
    Restriction(AssetId),
    Version,
}

fn subject(mv: &Move) -> Option<(Address, Subject<'_>)> {
    match mv {
        Move::Rotate { account, .. } => Some((*account, Subject::Auth)),
        Move::Write { account, write: AccountWrite::Data { key, .. } } => Some((*account, Subject::Data(key))),
        Move::Write { account, write: AccountWrite::Limit { asset, .. } } => Some((*account, Subject::Limit(*asset))),
        Move::Write { account, write: AccountWrite::Frozen(_) } => Some((*account, Subject::Frozen)),
        Move::Freeze { account, asset, .. } => Some((*account, Subject::Restriction(*asset))),
        Move::Check { account, condition: Condition::Version(_) } => Some((*account, Subject::Version)),
        Move::Pay { .. }
        | Move::PaySync { .. }
        | Move::Mint { .. }
        | Move::Burn { .. }
        | Move::Issue(_)
        | Move::Check { .. }
        | Move::Release { .. }
        | Move::Return { .. } => None,
    }
}

/// Bounds that two checks of one account and asset set, if they contradict each other.
fn contradict(a: &Move, b: &Move) -> bool {
    use Condition::{AtLeast, AtMost};
    let (Move::Check { account: one, condition: first }, Move::Check { account: two, condition: second }) = (a, b)
    else {
        return false;
    };
    let (least, most) = match (first, second) {
        (AtLeast { asset: x, amount: least }, AtMost { asset: y, amount: most })
        | (AtMost { asset: x, amount: most }, AtLeast { asset: y, amount: least })
            if x == y =>
        {
            (least, most)
        }
        _ => return false,
    };
    one == two && least > most
}

/// Refuses the same move twice, two changes of one thing, and checks that cannot both hold.
fn check_together<'a>(moves: impl Iterator<Item = &'a Move>) -> Result<(), Reject> {
    let moves: Vec<&Move> = moves.collect();
    for (at, mv) in moves.iter().enumerate().skip(1) {
        let subject_here = subject(mv);
        for earlier in &moves[..at] {
            let same_subject = subject_here.is_some() && subject_here == subject(earlier);
            if mv == earlier || same_subject || contradict(earlier, mv) {
                return Err(Reject::DuplicateMove);
            }
        }
    }
    Ok(())
}

/// `sha256("seamark/tx/v1" ‖ cluster ‖ body)`.
#[must_use]
pub fn txid(cluster: &ClusterId, body: &[u8]) -> TxId {
    TxId(tagged(b"seamark/tx/v1", &[&cluster.0.0, body]))
}

/// A body with the authorisations of its debited accounts, as sent and stored.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedTx {
    /// Format version, 1.
    pub version: u8,
    /// The signed bytes.
    pub body: Vec<u8>,
    /// One for each debited account; several accounts may share one.
    pub witnesses: Vec<Witness>,
}

impl SignedTx {
    /// Signs a body with single keys.
    #[must_use]
    pub fn sign(body: &TxBody, keys: &[&SecretKey]) -> Self {
        let bytes = body.encode();
        let id = txid(&body.cluster, &bytes);
        let witnesses = keys
            .iter()
            .map(|key| Witness { auth: Authorisation::Single(key.public()), signatures: vec![(0, key.sign(&id.0))] })
            .collect();
        Self { version: 1, body: bytes, witnesses }
    }

    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// The id under a cluster.
    #[must_use]
    pub fn txid(&self, cluster: &ClusterId) -> TxId {
        txid(cluster, &self.body)
    }
}

/// The move behind a hidden slot, for the group that votes on it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Opening {
    /// Index of the slot.
    pub slot: u16,
    /// What the hash was salted with.
    pub salt: Hash32,
    /// The move.
    pub mv: Move,
}

impl Opening {
    /// `sha256("seamark/slot/v1" ‖ salt ‖ borsh(move))`, which stands in the body.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let mv = borsh::to_vec(&self.mv).expect("writing to memory does not fail");
        tagged(b"seamark/slot/v1", &[&self.salt.0, &mv])
    }
}

/// A signed transaction with openings of hidden slots, on its way to the groups that vote on them.
/// The openings are neither signed nor forwarded to other groups; the hashes in the body bind them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Submission {
    /// Format version, 2; a transaction without openings travels as a [`SignedTx`], version 1.
    pub version: u8,
    /// The encoded [`SignedTx`].
    pub tx: Vec<u8>,
    /// Sorted by slot.
    pub openings: Vec<Opening>,
}

impl Submission {
    /// The bytes to send: the transaction alone where there is nothing to open.
    #[must_use]
    pub fn encode(tx: Vec<u8>, openings: Vec<Opening>) -> Vec<u8> {
        if openings.is_empty() {
            return tx;
        }
        borsh::to_vec(&Self { version: 2, tx, openings }).expect("writing to memory does not fail")
    }

    /// Separates the signed bytes from the openings. Bytes that are no submission are returned as
    /// they are: decoding them as a transaction tells what is wrong.
    ///
    /// # Errors
    /// [`Reject::Malformed`] or [`Reject::BodyTooLarge`].
    pub fn split(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Opening>), Reject> {
        if bytes.len() > SUBMISSION_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        if bytes.first() != Some(&2) {
            return Ok((bytes.to_vec(), Vec::new()));
        }
        let submission: Self = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if submission.openings.is_empty() || submission.openings.len() > MOVES_MAX {
            return Err(Reject::Malformed);
        }
        Ok((submission.tx, submission.openings))
    }
}

/// A transaction decoded once, together with its id.
#[derive(Clone, Debug)]
pub struct ParsedTx {
    /// Its id.
    pub txid: TxId,
    /// The decoded body.
    pub body: TxBody,
    /// The bytes that were signed.
    pub body_bytes: Vec<u8>,
    /// Its authorisations.
    pub witnesses: Vec<Witness>,
    /// Openings of hidden slots, sorted by slot; those that came along.
    pub openings: Vec<Opening>,
}

impl ParsedTx {
    /// Decodes a transaction, with or without openings, and checks everything that needs neither
    /// state nor the curve.
    ///
    /// # Errors
    /// [`Reject`] names what is wrong.
    pub fn decode(cluster: &ClusterId, bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.first() == Some(&2) {
            let (tx, openings) = Submission::split(bytes)?;
            let mut parsed = Self::decode_signed(cluster, &tx)?;
            parsed.open(openings)?;
            return Ok(parsed);
        }
        Self::decode_signed(cluster, bytes)
    }

    fn decode_signed(cluster: &ClusterId, bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > SIGNED_TX_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        let signed: SignedTx = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if signed.version != 1 || signed.witnesses.len() > WITNESSES_MAX {
            return Err(Reject::Malformed);
        }
        let body = TxBody::decode(&signed.body)?;
        if body.cluster != *cluster {
            return Err(Reject::WrongCluster);
        }
        // One witness for each voter that must authorise is the most that can be needed; more only
        // costs whoever checks.
        if signed.witnesses.len() > body.slots.len() || !signed.witnesses.iter().all(Witness::well_formed) {
            return Err(Reject::AuthForm);
        }
        let txid = txid(cluster, &signed.body);
        Ok(Self { txid, body, body_bytes: signed.body, witnesses: signed.witnesses, openings: Vec::new() })
    }

    /// Takes openings, all of which must fit the body.
    ///
    /// # Errors
    /// [`Reject::OpeningMismatch`] for an opening of another slot or another move, and what a move
    /// in the clear would be refused for.
    pub fn open(&mut self, openings: Vec<Opening>) -> Result<(), Reject> {
        let sorted = openings.windows(2).all(|pair| pair[0].slot < pair[1].slot);
        if !sorted {
            return Err(Reject::OpeningMismatch);
        }
        for opening in &openings {
            let hash = match self.body.slots.get(usize::from(opening.slot)) {
                Some(Slot::Hidden { hash, .. }) => *hash,
                Some(Slot::Clear { .. }) | None => return Err(Reject::OpeningMismatch),
            };
            if opening.hash() != hash {
                return Err(Reject::OpeningMismatch);
            }
            check_move(&opening.mv)?;
        }
        let clear = self.body.moves().map(|(_, mv)| mv);
        check_together(clear.chain(openings.iter().map(|opening| &opening.mv)))?;
        self.openings = openings;
        Ok(())
    }

    /// The encoded [`SignedTx`], without openings: what a vote carries.
    #[must_use]
    pub fn signed(&self) -> Vec<u8> {
        SignedTx { version: 1, body: self.body_bytes.clone(), witnesses: self.witnesses.clone() }.encode()
    }

    /// Every move that can be seen here, with its slot and ledger: those in the clear, and those
    /// whose opening came along.
    pub fn visible(&self) -> impl Iterator<Item = (u16, LedgerId, &Move)> {
        (0u16..).zip(&self.body.slots).filter_map(|(index, slot)| match slot {
            Slot::Clear { ledger, mv } => Some((index, *ledger, mv)),
            Slot::Hidden { ledger, .. } => {
                let at = self.openings.binary_search_by_key(&index, |opening| opening.slot).ok()?;
                Some((index, *ledger, &self.openings[at].mv))
            }
        })
    }

    /// Verifies every signature. The number of checks is the number of signatures.
    ///
    /// # Errors
    /// [`Reject::BadSignature`] if one does not hold.
    pub fn verify_signatures(&self) -> Result<(), Reject> {
        let all = self.witnesses.iter().all(|witness| witness.verifies(&self.txid.0));
        if all && !self.witnesses.is_empty() { Ok(()) } else { Err(Reject::BadSignature) }
    }
}

//! The steps a transaction is made of, who has a say in each, and what can be said against them
//! without looking at any state.
//!
//! Never reads state: what a step means for accounts is in `rules`.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetSpec;
use crate::auth::Authorisation;
use crate::hash::Hash32;
use crate::ids::{Address, AssetId, LedgerId, LockId, TimeMs};
use crate::limits::{DATA_KEY_BYTES_MAX, DATA_VALUE_BYTES_MAX, RECORD_METADATA_BYTES_MAX};
use crate::lock::{LockTerms, Secret};
use crate::pair;
use crate::record::{self, GrantTerms, Grantee};
use crate::reject::Reject;

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
    /// Sets an amount aside, to be paid to whoever it names once somebody shows the secret behind a
    /// hash, or to be taken back after a deadline: see [`crate::lock`].
    Lock {
        /// Whose amount; must authorise.
        from: Address,
        /// Whom a claim pays; another account.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
        /// SHA-256 of a secret of 32 bytes.
        hash: Hash32,
        /// A claim has to be voted for before this block time.
        deadline_ms: TimeMs,
    },
    /// Pays a lock to its payee. Nobody has to authorise it: the secret does, and it pays nobody but
    /// the payee.
    Claim {
        /// Whose lock; votes, without having to authorise.
        from: Address,
        /// Which.
        lock: LockId,
        /// What the lock pays to whom.
        terms: LockTerms,
        /// What was hashed.
        secret: Secret,
    },
    /// Takes back what a lock holds, after its deadline.
    Refund {
        /// Whose lock; must authorise.
        from: Address,
        /// Which.
        lock: LockId,
        /// What the lock would have paid to whom.
        terms: LockTerms,
    },
    /// Notarises a hash: see [`crate::record`].
    Record {
        /// Under this account; must authorise.
        owner: Address,
        /// Of what is recorded.
        hash: Hash32,
        /// At most [`RECORD_METADATA_BYTES_MAX`] bytes.
        metadata: Vec<u8>,
    },
    /// Grants access to a record, in place of what the party was granted before.
    Grant {
        /// Whose record; must authorise.
        owner: Address,
        /// Its hash.
        record: Hash32,
        /// To whom; not the owner.
        to: Grantee,
        /// What.
        terms: GrantTerms,
    },
    /// Revokes what a party was granted.
    Revoke {
        /// Whose record; must authorise.
        owner: Address,
        /// Its hash.
        record: Hash32,
        /// Whose access ends.
        from: Grantee,
    },
    /// Pays to an account of another ledger: from the asset's home to another ledger, or back. See
    /// [`crate::pair`].
    Transfer {
        /// Debited; must authorise.
        from: Address,
        /// Credited, in the other ledger.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
        /// The other ledger.
        ledger: LedgerId,
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
    /// The first one authorises, but for a claim, which its secret authorises.
    pub fn voters(&self) -> impl Iterator<Item = Voter> + use<> {
        let (first, second) = match self {
            Self::Pay { from, .. }
            | Self::Lock { from, .. }
            | Self::Claim { from, .. }
            | Self::Refund { from, .. }
            | Self::Transfer { from, .. } => (*from, None),
            Self::Record { owner, .. } | Self::Grant { owner, .. } | Self::Revoke { owner, .. } => (*owner, None),
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
        let first = Voter { account: first, authorises: !self.opens_lock() };
        let second = second.map(|account| Voter { account, authorises: false });
        std::iter::once(first).chain(second)
    }

    /// Whether the move is authorised by a secret that it shows, and not by a signature.
    #[must_use]
    pub fn opens_lock(&self) -> bool {
        matches!(self, Self::Claim { .. })
    }

    /// The account whose credit follows and cannot fail, if the move has one. It lies in the move's
    /// own ledger; that of a transfer is the pair account, from where the amount goes on.
    #[must_use]
    pub fn follower(&self) -> Option<Address> {
        match self {
            Self::Pay { to, .. } | Self::Mint { to, .. } | Self::Return { to, .. } => Some(*to),
            Self::Claim { terms, .. } => Some(terms.to),
            Self::Transfer { asset, ledger, .. } => Some(pair::address(*ledger, asset)),
            Self::Lock { .. }
            | Self::Refund { .. }
            | Self::Record { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::Burn { .. }
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

/// Limits of one move that need no state.
pub(crate) fn check_move(mv: &Move) -> Result<(), Reject> {
    match mv {
        Move::Pay { amount, .. }
        | Move::PaySync { amount, .. }
        | Move::Mint { amount, .. }
        | Move::Burn { amount, .. }
        | Move::Release { amount, .. }
        | Move::Return { amount, .. }
        | Move::Transfer { amount, .. }
        | Move::Claim { terms: LockTerms { amount, .. }, .. }
        | Move::Refund { terms: LockTerms { amount, .. }, .. } => not_zero(*amount),
        Move::Lock { from, to, amount, .. } => {
            not_zero(*amount)?;
            (from != to).then_some(()).ok_or(Reject::LockForm)
        }
        Move::Record { metadata, .. } => {
            (metadata.len() <= RECORD_METADATA_BYTES_MAX).then_some(()).ok_or(Reject::RecordForm)
        }
        Move::Grant { owner, to, terms, .. } => {
            let fits = record::scope_well_formed(&terms.scope) && *to != Grantee::Account(*owner);
            fits.then_some(()).ok_or(Reject::RecordForm)
        }
        Move::Write { write: AccountWrite::Data { key, value }, .. } => {
            let fits = (1..=DATA_KEY_BYTES_MAX).contains(&key.len())
                && value.as_ref().is_none_or(|value| value.len() <= DATA_VALUE_BYTES_MAX);
            fits.then_some(()).ok_or(Reject::WriteForm)
        }
        Move::Write { write: AccountWrite::Limit { .. } | AccountWrite::Frozen(_), .. }
        | Move::Check { .. }
        | Move::Revoke { .. }
        | Move::Freeze { .. } => Ok(()),
        Move::Issue(spec) => spec.well_formed().then_some(()).ok_or(Reject::AssetForm),
        Move::Rotate { auth, .. } => auth.well_formed().then_some(()).ok_or(Reject::AuthForm),
    }
}

fn not_zero(amount: u128) -> Result<(), Reject> {
    if amount == 0 { Err(Reject::ZeroAmount) } else { Ok(()) }
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
    Lock(LockId),
    Record(Hash32),
    Grant(Hash32, Grantee),
}

fn subject(mv: &Move) -> Option<(Address, Subject<'_>)> {
    match mv {
        Move::Rotate { account, .. } => Some((*account, Subject::Auth)),
        Move::Write { account, write: AccountWrite::Data { key, .. } } => Some((*account, Subject::Data(key))),
        Move::Write { account, write: AccountWrite::Limit { asset, .. } } => Some((*account, Subject::Limit(*asset))),
        Move::Write { account, write: AccountWrite::Frozen(_) } => Some((*account, Subject::Frozen)),
        Move::Freeze { account, asset, .. } => Some((*account, Subject::Restriction(*asset))),
        Move::Check { account, condition: Condition::Version(_) } => Some((*account, Subject::Version)),
        Move::Claim { from, lock, .. } | Move::Refund { from, lock, .. } => Some((*from, Subject::Lock(*lock))),
        Move::Record { owner, hash, .. } => Some((*owner, Subject::Record(*hash))),
        Move::Grant { owner, record, to: who, .. } | Move::Revoke { owner, record, from: who } => {
            Some((*owner, Subject::Grant(*record, *who)))
        }
        Move::Pay { .. }
        | Move::PaySync { .. }
        | Move::Mint { .. }
        | Move::Burn { .. }
        | Move::Issue(_)
        | Move::Lock { .. }
        | Move::Transfer { .. }
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
pub(crate) fn check_together<'a>(moves: impl Iterator<Item = &'a Move>) -> Result<(), Reject> {
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

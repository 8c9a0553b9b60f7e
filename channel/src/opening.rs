//! What founders agree on without the beacon: the opening, the promise that a founding carries instead of it, and how a
//! channel keeps the promise.
//!
//! A promise is a salted hash of the opening, with copies of the opening that only the organisations that the founding
//! names can read. The beacon judges its form and nothing else. The channel starts with [`first_policies`], which everybody
//! knows, and puts those of the opening in force as soon as one of its members gives it the opening. Nothing here seals or
//! opens a copy: that takes randomness and keys, and is the client's (`client::opening`).

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::PublicKey;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{Height, OrgId};

use crate::change::{Subject, Target};
use crate::founding;
use crate::limits::{OPENING_BYTES_MAX, PROMISE_BYTES_MAX};
use crate::policy::{Policy, Quorum, Role, Roster};
use crate::reject::{ChannelReject, Refusal};
use crate::scene::Scene;
use crate::state::{self, Batch};

/// Version written into new openings.
pub const OPENING_VERSION: u8 = 1;
/// Version written into new promises.
pub const PROMISE_VERSION: u8 = 1;
/// Version written into new [`PromiseRecord`]s.
const RECORD_VERSION: u8 = 1;

/// The policies of a channel that keeps a promise, until it has kept it: every admin has to approve everything.
#[must_use]
pub fn first_policies() -> Vec<(Subject, Policy)> {
    Subject::ALL.map(|subject| (subject, Policy::members(Quorum::All, Role::Admin))).to_vec()
}

/// What the founders want their channel to go by.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Opening {
    /// Format version, [`OPENING_VERSION`].
    pub version: u8,
    /// Random: without it, policies could be guessed and compared with the hash.
    pub salt: [u8; 32],
    /// One policy for each subject, in the order of [`Subject::ALL`].
    pub policies: Vec<(Subject, Policy)>,
}

impl Opening {
    /// An opening under this salt.
    #[must_use]
    pub fn new(salt: [u8; 32], policies: Vec<(Subject, Policy)>) -> Self {
        Self { version: OPENING_VERSION, salt, policies }
    }

    /// What a founding carries of it: `sha256("seamark/channel-opening/v1" ‖ borsh)`.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/channel-opening/v1", &[&bytes])
    }

    /// Whether a channel of these founders could come to go by it. Whoever proposes it asks that, and whoever is asked to
    /// approve; the beacon cannot.
    ///
    /// # Errors
    /// [`Refusal`] names what cannot be.
    pub fn check_for(&self, named: &BTreeSet<OrgId>) -> Result<(), Refusal> {
        if self.version != OPENING_VERSION {
            return Err(Refusal::because(ChannelReject::FoundingForm, "the version of the opening"));
        }
        if borsh::object_length(self).map_or(true, |bytes| bytes > OPENING_BYTES_MAX) {
            let detail = format!("the opening is over {OPENING_BYTES_MAX} bytes");
            return Err(Refusal::because(ChannelReject::FoundingForm, detail));
        }
        self.check(&founding::founders(named))
    }

    /// Whether these organisations, each with its admin and its nodes, could satisfy every policy. It may name others, that
    /// have not joined yet or have left.
    ///
    /// # Errors
    /// [`ChannelReject::PolicyUnsatisfiable`] names the first that they could not; [`ChannelReject::FoundingForm`] where it is
    /// not one policy for each subject, in order.
    pub fn check_founders(&self, founders: &BTreeSet<OrgId>) -> Result<(), Refusal> {
        self.check_satisfiable(&founding::founders(founders))
    }

    fn check(&self, roster: &Roster) -> Result<(), Refusal> {
        founding::check_policies(&self.policies, roster)
    }

    fn check_satisfiable(&self, roster: &Roster) -> Result<(), Refusal> {
        founding::check_subjects(&self.policies)?;
        self.policies.iter().try_for_each(|(subject, policy)| {
            let fits = policy.form().and_then(|()| policy.check_satisfiable(roster));
            fits.map_err(|fault| founding::unsatisfiable(subject.word(), policy, &fault))
        })
    }
}

/// An opening sealed for several organisations: its body under a random key, and that key under one key for each
/// organisation, which it and the sender alone can compute. How is in `client::opening`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SealedOpening {
    /// Public half of a key that was made for this one opening.
    pub sender: PublicKey,
    /// The body's key, sealed for each organisation that the founding names, ascending.
    pub keys: Vec<(OrgId, [u8; 48])>,
    /// The opening, padded and sealed.
    pub body: Vec<u8>,
}

/// What a founding carries in place of its policies.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Promise {
    /// Format version, [`PROMISE_VERSION`].
    pub version: u8,
    /// [`Opening::hash`]. Whoever approves the founding approves what it is the hash of.
    pub hash: Hash32,
    /// For those who are asked to approve.
    pub sealed: SealedOpening,
}

impl Promise {
    /// Whether it has a copy for each organisation that is named, and for nobody else, within limits. What is in the copies
    /// nobody but these can say.
    ///
    /// # Errors
    /// [`ChannelReject::PromiseForm`].
    pub fn check(&self, named: &BTreeSet<OrgId>) -> Result<(), Refusal> {
        let refuse = |detail: &str| Err(Refusal::because(ChannelReject::PromiseForm, detail));
        if self.version != PROMISE_VERSION {
            return refuse("its version");
        }
        if borsh::object_length(self).map_or(true, |bytes| bytes > PROMISE_BYTES_MAX) {
            return refuse("its size");
        }
        if !self.sealed.keys.iter().map(|(org, _)| org).eq(named) {
            return refuse("one copy for each organisation that is named, in order");
        }
        Ok(())
    }
}

/// How far a channel is with what its founding promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum PromiseStanding {
    /// Its members have not given it the opening.
    Waits,
    /// The policies of the opening came into force in this block.
    Kept {
        /// The block.
        height: Height,
    },
    /// In this block its members set a policy otherwise. All of them have approved that: the opening counts no more.
    Superseded {
        /// The block.
        height: Height,
    },
}

/// A promise as the channel keeps it in state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PromiseRecord {
    /// Format version, 1.
    pub version: u8,
    /// [`Opening::hash`].
    pub hash: Hash32,
    /// How far it is.
    pub standing: PromiseStanding,
}

impl PromiseRecord {
    /// That of a channel that starts.
    #[must_use]
    pub fn waiting(hash: Hash32) -> Self {
        Self { version: RECORD_VERSION, hash, standing: PromiseStanding::Waits }
    }
}

impl Scene<'_, '_> {
    /// Puts the policies of an opening in force, all of them or none. What is still proposed about policies was proposed of
    /// others, and ends.
    ///
    /// # Errors
    /// When nothing waits for an opening, it is another one, or its policies could not be satisfied now.
    pub fn keep_promise(&mut self, opening: &Opening) -> Result<Batch, Refusal> {
        let record = state::promise(self.view).ok_or(ChannelReject::PromiseNone)?;
        match record.standing {
            PromiseStanding::Waits => {}
            PromiseStanding::Kept { height } => {
                return Err(Refusal::because(ChannelReject::PromiseKept, format!("since block {height}")));
            }
            PromiseStanding::Superseded { height } => {
                return Err(Refusal::because(ChannelReject::PromiseSuperseded, format!("since block {height}")));
            }
        }
        if opening.hash() != record.hash {
            return Err(ChannelReject::OpeningWrong.into());
        }
        // As if they had been stated: whom they name besides may join later, or has left.
        opening.check_satisfiable(&state::roster(&self.members))?;
        let mut batch = Batch::default();
        for (subject, policy) in &opening.policies {
            batch.put(state::policy_key(*subject), policy);
        }
        let standing = PromiseStanding::Kept { height: self.at.height };
        batch.put(state::promise_key(), &PromiseRecord { standing, ..record });
        self.supersede(&mut batch, &Subject::ALL.map(Target::Policy), None, None);
        Ok(batch)
    }

    /// The members have set a policy: what waits for an opening waits no more.
    pub fn supersede_promise(&mut self, batch: &mut Batch) {
        if let Some(record) = state::promise(self.view)
            && record.standing == PromiseStanding::Waits
        {
            let standing = PromiseStanding::Superseded { height: self.at.height };
            batch.put(state::promise_key(), &PromiseRecord { standing, ..record });
        }
    }
}
